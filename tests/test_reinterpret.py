"""`Tensor.view(dtype)`: the same bytes as every other dtype, shared, compiled, and refused where they do not lie together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphc
from graphc.dtypes import bfloat16, bool_, float16, float32, float64, int8, int16, int32, int64, uint8

DTYPES = (uint8, int8, int16, int32, int64, float16, bfloat16, float32, float64, bool_)


@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_keeps_every_byte(source: graphc.dtype) -> None:
    raw = np.random.default_rng(0).integers(0, 2 if source is bool_ else 256, (3, 32)).astype(np.uint8)
    x = graphc.from_numpy(raw.copy()).view(source)
    assert tuple(x.shape) == (3, 32 // source.itemsize)
    targets = [d for d in DTYPES if d is not bool_ or source is bool_]
    compiled = graphc.compile(lambda x: [x.view(d).clone() for d in targets])(x)
    for target, made in zip(targets, compiled, strict=True):
        seen = x.view(target)
        assert seen.dtype is target and tuple(seen.shape) == (3, 32 // target.itemsize)
        assert seen.data_ptr() == x.data_ptr()
        for result in (seen, made):
            np.testing.assert_array_equal(result.numpy().view(np.uint8), raw)


def test_a_write_shows_in_the_other() -> None:
    def zero_first(x: graphc.Tensor) -> graphc.Tensor:
        x.view(graphc.int32)[0] = 0
        return x * 2

    for run in (zero_first, graphc.compile(zero_first)):
        x = graphc.ones(4)
        assert run(x).tolist() == [0.0, 2.0, 2.0, 2.0]
        assert x.tolist() == [0.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("shape", "source", "target"),
    [(s, a, b) for (s, a, b) in itertools.product([(2, 8), (8,)], (float32, uint8), (uint8, int16, float64))],
)
def test_of_a_part(shape: tuple[int, ...], source: graphc.dtype, target: graphc.dtype) -> None:
    """Rows of a wider tensor: its last dim has no gaps, the others have."""
    whole = graphc.from_numpy(np.arange(64, dtype=np.uint8)).view(source).reshape(-1, 8)
    part = whole[: shape[0]] if len(shape) == 2 else whole[0]
    np.testing.assert_array_equal(part.view(target).numpy(), part.numpy().view(target.numpy))


def test_refused() -> None:
    with pytest.raises(RuntimeError, match="do not lie together"):
        graphc.ones(3, 4).t().view(uint8)
    with pytest.raises(RuntimeError, match="divisible by 4"):
        graphc.ones(3, dtype=uint8).view(float32)
    with pytest.raises(RuntimeError, match="0 dims"):
        graphc.ones(()).view(uint8)
    with pytest.raises(RuntimeError, match="do not lie together"):
        graphc.ones(9, dtype=uint8)[1:].view(float32)
    x = graphc.ones(2)
    assert x.view(float32) is x
