"""Random programs in Python show the same eagerly and compiled, and the reference interpreter agrees with every graph of theirs."""

from __future__ import annotations

from typing import Any

import pytest

import code_checks
import graphc
from code_checks import Counts, finding, shrunk
from random_code import Code, Input, Statement
from random_growth import Growing

PROGRAMS, TOGETHER, MOST_STATEMENTS = 2000, 100, 2


@pytest.mark.parametrize("first", range(0, PROGRAMS, TOGETHER))
def test_random_programs_show_the_same_compiled(first: int) -> None:
    counts = Counts()
    for seed in range(first, first + TOGETHER):
        code = Growing(seed, MOST_STATEMENTS).code()
        found = finding(code, counts)
        if found is not None:
            pytest.fail("{}\n{}".format(*shrunk(code, found)))
    assert counts.compiled >= 0.9 * TOGETHER, counts
    assert counts.graphs >= 2 * TOGETHER, counts
    assert counts.raised <= 0.2 * TOGETHER, counts


def program(*lines: str) -> Code:
    """A program of two inputs that returns ``y``."""
    inputs = Input("x", "float32", (3,)), Input("z", "float32", (2, 2), layout="turned")
    return Code(0, inputs, tuple(map(Statement, lines)), ("y",))


def test_what_differs_is_found_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    code = program("a = x * 2", "b = z.t().reshape(-1)", "y = a.cos() + b[0]", "y = y - 1", "z.mul_(2)")
    assert finding(code) is None
    cos = graphc.Tensor.cos

    def different(target: Any, **_: Any) -> Any:
        def call(*args: Any) -> Any:
            with monkeypatch.context() as patch:
                patch.setattr(graphc.Tensor, "cos", lambda x: cos(x) * (1 + 2.0**-23))
                return target(*args)

        call.stats = lambda: {"fallbacks": []}  # type: ignore[attr-defined]
        return call

    monkeypatch.setattr(graphc, "compile", different)
    found = finding(code)
    assert found is not None and "elements differ" in found
    small, found = shrunk(code, found)
    assert [s.text for s in small.statements] == ["a = x * 2", "y = a.cos() + b[0]"] or len(small.statements) <= 3
    assert small.batches == (None,) and "elements differ" in found


def test_the_interpreter_finds_a_wrong_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    run = code_checks.run_interpreted
    monkeypatch.setattr(code_checks, "run_interpreted", lambda graph, arrays: [a * a.dtype.type(1.001) for a in run(graph, arrays)])
    found = finding(program("y = x.exp()"))
    assert found is not None and found.startswith("interpreter: ")
