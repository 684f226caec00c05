"""Gradients, and gradients of gradients, at zeros, ties, NaNs and ends of domains: PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

NAN, INF = math.nan, math.inf
SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 4.0]
MATRIX = [[0.0, 2.0, 3.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.0]]
Case = tuple[list[Any], Callable[..., Any]]

CASES: dict[str, Case] = {
    "prod of one zero": ([[0.0, 2, 3]], lambda lib, x: x.prod()),
    "prod of two zeros": ([[0.0, 0, 3]], lambda lib, x: x.prod()),
    "prod of zeros": ([[0.0, 0, 0]], lambda lib, x: x.prod()),
    "prod of rows": ([MATRIX], lambda lib, x: x.prod(1, keepdim=True)),
    "prod of columns": ([MATRIX], lambda lib, x: x.prod(0)),
    "prod of a number": ([0.0], lambda lib, x: x.prod()),
    "cumprod": ([[1.0, 0, 3, 0, 2]], lambda lib, x: x.cumprod(0)),
    "std of equal elements": ([[1.0, 1, 1]], lambda lib, x: x.std()),
    "std of rows": ([[[1.0, 1], [2, 3]]], lambda lib, x: x.std(1)),
    "std_mean": ([[1.0, 2, 4]], lambda lib, x: sum(lib.std_mean(x))),
    "amax of ties": ([[[1.0, 3, 3], [2, 2, 2]]], lambda lib, x: x.amax(1)),
    "max of ties": ([[1.0, 3, 3, 2]], lambda lib, x: x.max()),
    "max of rows of ties": ([[[1.0, 3, 3], [2, 2, 2]]], lambda lib, x: x.max(1).values),
    "max of NaN": ([[1.0, NAN, 3, NAN]], lambda lib, x: x.max()),
    "maximum": ([[1.0, 2, 3, NAN], [1.0, 3, 2, 1.0]], lambda lib, x, y: lib.maximum(x, y)),
    "minimum": ([[1.0, 2, 3, NAN], [1.0, 3, 2, 1.0]], lambda lib, x, y: lib.minimum(x, y)),
    "aminmax": ([[1.0, 3, 3, 1]], lambda lib, x: sum(lib.aminmax(x))),
    "clamp at its limits": ([[1.0, 2, 3, 0, NAN]], lambda lib, x: x.clamp(1, 2)),
    "clamp with crossed limits": (
        [[1.0, 2, 3, 0], [2.0, 2, 2, 2], [1.0, 1, 1, 1]],
        lambda lib, x, low, high: lib.clamp(x, low, high),
    ),
    "abs": ([SPECIAL], lambda lib, x: x.abs()),
    "sqrt": ([SPECIAL], lambda lib, x: x.sqrt()),
    "reciprocal": ([SPECIAL], lambda lib, x: x.reciprocal()),
    "power 0": ([SPECIAL], lambda lib, x: x**0),
    "power 1": ([SPECIAL], lambda lib, x: x**1),
    "power 2": ([SPECIAL], lambda lib, x: x**2),
    "power 3": ([SPECIAL], lambda lib, x: x**3),
    "power -1": ([SPECIAL], lambda lib, x: x**-1),
    "power -2": ([SPECIAL], lambda lib, x: x**-2),
    "of base 2": ([SPECIAL], lambda lib, x: 2**x),
    "of base 1": ([SPECIAL], lambda lib, x: 1**x),
    "atan2": ([[0.0, 0, 1, -1, 0, 2], [0.0, 1, 0, 0, -1, 3]], lambda lib, x, y: lib.atan2(x, y)),
    "fmod": ([[5.0, -5, 5, 0], [3.0, 3, -3, 1]], lambda lib, x, y: lib.fmod(x, y)),
    "remainder": ([[5.0, -5, 5, 0], [3.0, 3, -3, 1]], lambda lib, x, y: lib.remainder(x, y)),
    "nansum": ([[1.0, NAN, 2]], lambda lib, x: lib.nansum(x)),
    "nanmean": ([[1.0, NAN, 2]], lambda lib, x: lib.nanmean(x)),
    "logsumexp with infinity": ([[[1.0, -INF], [0.0, 1.0]]], lambda lib, x: lib.logsumexp(x, 1)),
}


def weights(library: Any, x: Any, low: float, high: float) -> Any:
    count = int(np.prod(tuple(x.shape), dtype=int))
    return library.tensor(np.linspace(low, high, count).reshape(tuple(x.shape)), dtype=library.float64)


def gradients(library: Any, case: Case, order: int) -> list[np.ndarray[Any, Any]]:
    """Of a weighted sum of the results; zeros where nothing depends."""
    data, rule = case
    inputs = [library.tensor(values, dtype=library.float64, requires_grad=True) for values in data]
    found = [rule(library, *inputs)]
    for k in range(order):
        dependent = [y for y in found if y is not None and y.requires_grad]
        if not dependent:
            break
        weighed = [weights(library, y, 0.5 + k, 1.5 + k) for y in dependent]
        found = library.autograd.grad(dependent, inputs, weighed, create_graph=k + 1 < order, allow_unused=True)
    else:
        return [np.zeros(x.shape) if g is None else np.array((g + 0).detach().numpy()) for x, g in zip(inputs, found, strict=True)]
    return [np.zeros(x.shape) for x in inputs]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_as_pytorch(name: str, order: int) -> None:
    for ours, theirs in zip(gradients(graphc, CASES[name], order), gradients(torch, CASES[name], order), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12, equal_nan=True)
