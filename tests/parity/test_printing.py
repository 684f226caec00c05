"""Tensors print as PyTorch's do, in every case tried."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

SHAPES = [(), (1,), (3,), (100,), (1001,), (0,), (0, 3), (2, 3), (40, 40), (2, 3, 4), (20, 20, 20), (2, 2, 2, 2)]
SPECIAL = [
    [np.nan, 1, np.inf], [np.nan, np.inf], [1.5, np.nan, -np.inf], [1e-9, 1e9], [0.0, -0.0], [1, 1e9], [1e-4], [np.nan, 1e-7],
    [99999.5], [1000.0, 1.0], [1001.0, 1.0], [1e8], [1.5e8], [123456.789],
]  # fmt: skip


def arrays() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        normal = rng.standard_normal(shape)
        yield np.asarray(normal, np.float32)
        yield np.asarray(normal * 1e5)
        yield np.asarray(normal * 1e-5, np.float16)
        yield np.asarray(np.round(normal * 10), np.float32)
        yield np.asarray(rng.integers(-5, 100, shape))
        yield np.asarray(rng.integers(0, 9, shape), np.int32)
        yield np.asarray(rng.integers(0, 2, shape), bool)
    for values in SPECIAL:
        yield np.asarray(values, np.float32)
        yield np.asarray(values[0], np.float64)


@pytest.mark.parametrize("array", list(arrays()), ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_repr(array: np.ndarray) -> None:
    assert repr(graphc.from_numpy(array)) == repr(torch.from_numpy(array)).replace("torch.", "graphc.")


def test_repr_of_history() -> None:
    for length in (1, 3, 8, 9, 20):
        ours, theirs = graphc.ones(length, requires_grad=True), torch.ones(length, requires_grad=True)
        assert repr(ours) == repr(theirs)
        assert repr(ours * 1.5) == repr(theirs * 1.5)
