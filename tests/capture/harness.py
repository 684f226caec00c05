"""Capture programs: small eager programs that must show the same when what they compile is compiled: elements to the bit, strides
and offsets, which memory is shared, what is on the tape, texts of errors.

A program is a generator.  It builds its world, wraps what is to be compiled in `compile`, and yields whatever shall be compared:
results, modules, optimizers, numbers.  It runs twice from one seed: with a `compile` that gives the function back, and with
`graphc.compile`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import graphc
from capture.fallbacks import FALLBACKS
from graphc import nn
from graphc.errors import CompileWarning
from observed import Observer, Shown, difference

Compile = Callable[..., Any]
Body = Callable[[Compile], Iterator[Any]]
RUNS_IN_PYTHON = 2  # of a compiled function, before its calls are machine code: programs are short


@dataclass(frozen=True)
class Program:
    """A program.   traces: how often its functions may be traced, all together; a tighter number is a better one."""

    name: str
    body: Body
    traces: int


PROGRAMS: dict[str, Program] = {}


def program(traces: int = 1) -> Callable[[Body], Body]:
    """Enter a generator function into the list."""

    def enter(body: Body) -> Body:
        name = body.__name__
        assert name not in PROGRAMS, f"two programs called {name}"
        PROGRAMS[name] = Program(name, body, traces)
        return body

    return enter


def run(one: Program, compile: Compile) -> list[Shown]:
    """What a program shows: each thing it yields, and the random state then."""
    graphc.manual_seed(7)
    return [Observer().show([value, graphc.get_rng_state()]) for value in one.body(compile)]


def check(one: Program) -> None:
    """Eager and compiled runs agree, and the compiled one compiled what it should."""
    made: list[Any] = []

    def compile(target: Any, **options: Any) -> Any:
        made.append(graphc.compile(target, **options))
        return made[-1]

    with warnings.catch_warnings(), mock.patch("graphc.quick.RUNS_IN_PYTHON", RUNS_IN_PYTHON):
        warnings.simplefilter("ignore")
        warnings.simplefilter("ignore", CompileWarning)
        wanted = run(one, lambda target, **_: target)
        got = run(one, compile)
    assert len(wanted) > 1, f"{one.name} shows too little"
    for i, (a, b) in enumerate(zip(got, wanted, strict=False)):
        found = difference(a, b, f"{one.name}, yield {i}: ")
        assert found is None, found
    assert len(got) == len(wanted)
    check_compiled(one, [x.stats() for x in made])


def check_compiled(one: Program, stats: list[dict[str, Any]]) -> None:
    """Functions were traced, not too often, and ran eagerly only where `FALLBACKS` says so."""
    reasons = [reason for s in stats for reason in s["fallbacks"]]
    expected = FALLBACKS.get(one.name)
    if expected is None:
        assert not reasons, f"{one.name} runs eagerly: {reasons}"
    else:
        assert reasons, f"{one.name} does not run eagerly any more: take it from capture/fallbacks.py"
        assert all(re.search(expected, reason) for reason in reasons), f"{one.name} runs eagerly: {reasons}, not for {expected}"
    traces = sum(s["traces"] for s in stats)
    assert 0 < traces <= one.traces, f"{one.name}: {traces} traces, at most {one.traces}: {[s['recompiles'] for s in stats]}"


# ---- what programs are made of ----------------------------------------------------------------------------------------


def normal(*shape: int, dtype: Any = None) -> graphc.Tensor:
    """Normal numbers, the next of the generator."""
    return graphc.randn(*shape).to(dtype or graphc.float32)


def leaf(*shape: int, dtype: Any = None) -> graphc.Tensor:
    """The same, with a gradient."""
    return normal(*shape, dtype=dtype).requires_grad_()


def mlp(*between: nn.Module) -> nn.Sequential:
    """Four numbers to two."""
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), *between, nn.Linear(5, 2))


def outcome(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a call returns, or the error that it raises."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return error
