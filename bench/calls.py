"""``python -m bench calls [--parameters N] [--threads N] [--seconds S]``: what a compiled module's call costs beside its kernel.

Enters: how many parameters.  Leaves: microseconds of a call with nothing changed: graphc, its program alone (the linked entry with
a filled table), `torch.compile` and `jax.jit`, in one process and in turns.  Never here: large kernels, compile times.

The module multiplies by half of its parameters and adds the others, one after the other: one kernel of a few elements, so that
a call is mostly what is asked before it runs: whether parameters, modes and attributes are what they were.  Results are compared
first.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

WIDTH, ROWS = 8, 4
WARMUP_CALLS, LEAST_ROUNDS = 60, 7
TOLERANCE = 1e-4
Call = Callable[[], Any]


def chain(library: Any, weights: dict[str, Any]) -> Any:
    """The module of a library."""

    class Chain(library.nn.Module):  # type: ignore[misc, name-defined]  # the base is of either library
        def __init__(self) -> None:
            super().__init__()
            for name, value in weights.items():
                setattr(self, name, library.nn.Parameter(library.tensor(value)))

        def forward(self, x: Any) -> Any:
            for i in range(0, len(weights), 2):
                x = x * getattr(self, f"w{i}") + getattr(self, f"w{i + 1}")
            return x

    return Chain().eval()


def program_of(compiled: Any) -> Call:
    """The program of the last call by itself, on the table of its record; a C call from Python costs what `nothing` takes more."""
    from graphc.native import programs

    record = compiled._records.records[0]
    table, entry = (record.words_of[programs.PROGRAM.index(name)] for name in ("table", "entry"))
    pool = record.variant.program.pool
    run, arguments = _as_function(entry), (table, pool.run_address, pool.address)
    return lambda: run(*arguments)


def nothing() -> Call:
    """A C function that does nothing to speak of, called in the same way."""
    run = _as_function(ctypes.cast(ctypes.pythonapi.PyThreadState_Get, ctypes.c_void_p).value or 0)
    return lambda: run(0, 0, 0)


def _as_function(address: int) -> Callable[..., int]:
    return ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(address)


def graphc_calls(weights: dict[str, Any], x: Any) -> dict[str, tuple[Call, Any]]:
    """Calls by name, and the result as an array where it is to be compared."""
    import graphc

    given, inference, training = graphc.tensor(x), *(graphc.compile(chain(graphc, weights)) for _ in range(2))
    with graphc.no_grad():
        for _ in range(WARMUP_CALLS):
            found = inference(given)

    def without() -> Any:
        return inference(given)

    return {
        "graphc": (_in_mode(graphc.no_grad, without), found.numpy()),
        "its program alone": (program_of(inference), None),
        "a C call of nothing": (nothing(), None),
        "graphc, recorded": (lambda: training(given), training(given).detach().numpy()),
    }


def torch_calls(weights: dict[str, Any], x: Any) -> dict[str, tuple[Call, Any]]:
    """As `graphc_calls`."""
    import torch

    given, inference, training = torch.tensor(x), *(torch.compile(chain(torch, weights)) for _ in range(2))
    with torch.no_grad():
        found = inference(given).numpy()
    return {
        "torch.compile": (_in_mode(torch.no_grad, lambda: inference(given)), found),
        "torch.compile, recorded": (lambda: training(given), training(given).detach().numpy()),
    }


def jax_calls(weights: dict[str, Any], x: Any) -> dict[str, tuple[Call, Any]]:
    """As `graphc_calls`; JAX's functions are handed their parameters."""
    import jax
    import jax.numpy as jnp

    def forward(parameters: Sequence[Any], x: Any) -> Any:
        for i in range(0, len(parameters), 2):
            x = x * parameters[i] + parameters[i + 1]
        return x

    run, given = jax.jit(forward), jnp.asarray(x)
    parameters = [jnp.asarray(value) for value in weights.values()]
    return {"jax.jit": (lambda: jax.block_until_ready(run(parameters, given)), np.asarray(run(parameters, given)))}


def _in_mode(mode: Any, call: Call) -> Call:
    call.mode = mode  # type: ignore[attr-defined]
    return call


def measure(calls: dict[str, Call], seconds: float) -> dict[str, float]:
    """Median microseconds of each, taking turns."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(LEAST_ROUNDS):
        for name, call in calls.items():
            with getattr(call, "mode", _Nothing)():
                for _ in range(WARMUP_CALLS):
                    call()
                samples[name] += _timed(call, seconds / LEAST_ROUNDS)
    return {name: statistics.median(times) for name, times in samples.items()}


class _Nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def _timed(call: Call, seconds: float, batch: int = 50) -> list[float]:
    found, end = [], time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        start = time.perf_counter_ns()
        for _ in range(batch):
            call()
        found.append((time.perf_counter_ns() - start) / batch / 1e3)
    return found


def main(arguments: Sequence[str]) -> int:
    """Exit status: 1 where a result is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench calls", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parameters", type=int, default=60, help="how many the module has (60)")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each (2)")
    parser.add_argument("--threads", type=int, default=2, help="threads of every library (2)")
    parser.add_argument("--libraries", nargs="+", default=["graphc", "torch", "jax"], choices=["graphc", "torch", "jax"])
    given = parser.parse_args(arguments)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    random = np.random.default_rng(0)
    weights = {f"w{i}": random.standard_normal(WIDTH, np.float32) for i in range(given.parameters // 2 * 2)}
    x = random.standard_normal((ROWS, WIDTH), np.float32)
    kinds = {"graphc": graphc_calls, "torch": torch_calls, "jax": jax_calls}
    _set_threads(given.threads, given.libraries)
    found: dict[str, tuple[Call, Any]] = {}
    for library in given.libraries:
        try:
            found |= kinds[library](weights, x)
        except ImportError as missing:
            print(f"{library}: left out ({missing})")
    wanted = next(result for _, result in found.values() if result is not None)
    status = 0
    for name, (_, result) in found.items():
        if result is not None and not np.abs(result - wanted).max() <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            print(f"{name}: a wrong result")
            status = 1
    print(f"{len(weights)} parameters, microseconds of a call")
    for name, time_us in measure({name: call for name, (call, _) in found.items()}, given.seconds).items():
        print(f"  {name:24}{time_us:10.2f}")
    return status


def _set_threads(count: int, libraries: Sequence[str]) -> None:
    if "graphc" in libraries:
        from graphc.runtime.threads import set_num_threads

        set_num_threads(count)
    if "torch" in libraries:
        try:
            import torch
        except ImportError:
            return
        torch.set_num_threads(count)
