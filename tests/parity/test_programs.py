"""Whole programs as users write them: PyTorch's values, and the same bits eager and compiled."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

from parity import programs_models, programs_numeric  # noqa: E402  where torch is absent, nothing is collected

PROGRAMS = {
    name: function
    for module in (programs_models, programs_numeric)
    for name, function in vars(module).items()
    if isinstance(function, FunctionType) and function.__code__.co_varnames[:4] == ("torch", "nn", "F", "optim")
}
TOLERANCES = {torch.float64: (1e-9, 1e-11), torch.float32: (2e-4, 2e-5), torch.bfloat16: (2e-2, 1e-2), torch.float16: (2e-2, 1e-2)}


def flat(result: Any) -> Iterator[Any]:
    """The leaves of nested tuples, lists and dicts."""
    if isinstance(result, tuple | list | dict):
        for part in result.values() if isinstance(result, dict) else result:
            yield from flat(part)
    else:
        yield result


def run(name: str, library: ModuleType, compiled: bool = False) -> list[Any]:
    """Everything that the program's calls give."""
    step, calls = PROGRAMS[name](library, library.nn, library.nn.functional, library.optim)
    if compiled:
        step = graphc.compile(step)
    leaves = [leaf for arguments in calls for leaf in flat(step(*arguments))]
    assert not compiled or not step.stats()["fallbacks"]
    return leaves


def as_numpy(x: Any, library: ModuleType) -> np.ndarray:
    return x.detach().to(library.float32 if x.dtype is library.bfloat16 else x.dtype).numpy()


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str) -> None:
    eager, compiled, theirs = run(name, graphc), run(name, graphc, compiled=True), run(name, torch)
    assert len(eager) == len(compiled) == len(theirs)
    for i, (x, y, z) in enumerate(zip(eager, compiled, theirs, strict=True)):
        where = f"result {i}"
        if not isinstance(x, graphc.Tensor):
            assert x == y == z, where
            continue
        assert tuple(x.shape) == tuple(y.shape) == tuple(z.shape), where
        assert f"{x.dtype}"[7:] == f"{y.dtype}"[7:] == f"{z.dtype}"[6:], where
        mine, wanted = as_numpy(x, graphc), as_numpy(z, torch)
        assert mine.tobytes() == as_numpy(y, graphc).tobytes(), where
        rtol, atol = TOLERANCES.get(torch.bfloat16 if name == "half_storage" else z.dtype, (0, 0))
        np.testing.assert_allclose(mine, wanted, rtol=rtol, atol=atol, err_msg=where)


def test_there_are_many() -> None:
    assert len(PROGRAMS) >= 40
