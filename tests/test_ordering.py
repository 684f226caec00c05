"""Order with NaN, ties and 16-bit floats; scans that meet NaN and infinities; searches: what PyTorch's samples do not reach."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphc

NAN = math.nan
X = [2.0, NAN, -1.0, 2.0, math.inf, -math.inf]


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64, graphc.float16, graphc.bfloat16], ids=str)
def test_nan_is_the_greatest(dtype: Any) -> None:
    x = graphc.tensor(X, dtype=dtype)
    assert x.sort().indices.tolist() == [5, 2, 0, 3, 4, 1]
    assert x.sort(descending=True).indices.tolist() == [1, 4, 0, 3, 2, 5]
    assert x.argsort(descending=True, stable=True).tolist() == [1, 4, 0, 3, 2, 5]
    assert x.topk(2).indices.tolist() == [1, 4] and x.topk(2, largest=False).indices.tolist() == [5, 2]
    assert x.kthvalue(6).indices.item() == 1
    assert x.median(0).indices.item() == 1 and math.isnan(x.median())
    assert x.nanmedian().item() == 2.0


@pytest.mark.parametrize("descending", [False, True])
def test_every_sort_is_stable(descending: bool) -> None:
    values = np.random.default_rng(0).integers(0, 5, (3, 4000))
    places = graphc.from_numpy(values).sort(1, descending).indices.numpy()
    keys = -values if descending else values
    assert np.array_equal(places, np.argsort(keys, axis=1, kind="stable"))


def test_running_extrema_keep_a_nan_and_the_last_of_equal_ones() -> None:
    values, places = graphc.tensor([1.0, 3.0, 3.0, NAN, 5.0, NAN]).cummax(0)
    assert places.tolist() == [0, 1, 2, 3, 3, 5] and values.tolist()[:3] == [1.0, 3.0, 3.0]
    assert all(map(math.isnan, values.tolist()[3:]))
    assert graphc.tensor([2, 2, 1, 3]).cummin(0).indices.tolist() == [0, 1, 2, 2]


def test_logcumsumexp_of_infinities_and_large_numbers() -> None:
    found = graphc.tensor([-math.inf, -math.inf, 1000.0, 1000.0, math.inf, math.inf], dtype=graphc.float64).logcumsumexp(0)
    assert found.tolist() == [-math.inf, -math.inf, 1000.0, 1000.0 + math.log(2), math.inf, math.inf]


@pytest.mark.parametrize("order", [1, 2])
def test_gradients_of_cumprod_at_zeros(order: int) -> None:
    """Against central differences, with several zeros in a line."""
    start = np.array([[0.5, 0.0, 2.0, 0.0, 1.5], [0.0, 1.0, 2.0, 3.0, 0.5]])
    weights = graphc.from_numpy(np.random.default_rng(0).standard_normal(start.shape))

    def first(x: Any) -> Any:
        x = graphc.from_numpy(x).requires_grad_()
        (g,) = graphc.autograd.grad((x.cumprod(1) * weights).sum(), x, create_graph=True)
        return x, g

    def value(x: Any) -> float:
        if order == 1:
            return float((graphc.from_numpy(x).cumprod(1) * weights).sum())
        return float((first(x)[1] * weights).sum())

    x, g = first(start)
    found = g if order == 1 else graphc.autograd.grad((g * weights).sum(), x)[0]
    wanted = np.zeros_like(start)
    for place in np.ndindex(start.shape):
        step = np.zeros_like(start)
        step[place] = 1e-5
        wanted[place] = (value(start + step) - value(start - step)) / 2e-5
    assert np.allclose(found.detach().numpy(), wanted, atol=1e-6)


def test_compiled_order_is_eager_order() -> None:
    def everything(x: Any) -> Any:
        return (*x.sort(1), *x.topk(3), x.quantile(0.3, 1), *x.mode(1), *x.cummin(1), graphc.bucketize(x, x[0].sort().values))

    x = graphc.from_numpy(np.random.default_rng(0).integers(-3, 3, (4, 9)).astype(np.float64))
    for a, b in zip(graphc.compile(everything)(x), everything(x), strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_searches_and_counts() -> None:
    rows = graphc.tensor([[1.0, 2.0, 2.0, 4.0], [0.0, 0.0, 0.0, 9.0]])
    assert graphc.searchsorted(rows, graphc.tensor([[2.0, 5.0], [0.0, -1.0]])).tolist() == [[1, 4], [0, 0]]
    assert graphc.searchsorted(rows, graphc.tensor([[2.0, 5.0], [0.0, -1.0]]), right=True).tolist() == [[3, 4], [3, 0]]
    values, inverse, counts = graphc.tensor([[3, 1], [1, 3]]).unique(return_inverse=True, return_counts=True)
    assert (values.tolist(), inverse.tolist(), counts.tolist()) == ([1, 3], [[1, 0], [0, 1]], [2, 2])
    assert graphc.tensor([0, 3, 3]).bincount(minlength=6).tolist() == [1, 0, 0, 2, 0, 0]
    assert graphc.tensor([1.0, 2.0, NAN]).unique().tolist()[:2] == [1.0, 2.0]
