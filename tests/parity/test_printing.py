"""Tensors print as PyTorch's do, in every case tried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_repr_of_complex_numbers(dtype: type) -> None:
    inf, nan = float("inf"), float("nan")
    for values in (
        [1 + 2j, 3.5 - 4j], [1 + 0j], [complex(inf, nan), 1j], [1e-9 + 1j, 1e9], [0j], [-0.5 - 0.25j, 100 + 2j], [1e5 + 1j, 3], [],
        list(np.arange(2000) * (1 + 2j)), [[1j], [2]],
    ):  # fmt: skip
        same(np.asarray(values, dtype))
    same(np.asarray(1 + 2j, dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.uint64, np.float16])
def test_repr_of_other_widths(dtype: type) -> None:
    for values in ([1, 2], [[0, 100], [3, 4]], [], 7, np.arange(30) % 11):
        same(np.asarray(values, dtype))


@pytest.mark.parametrize(
    "options",
    [
        {"precision": 2}, {"precision": 8, "linewidth": 40}, {"profile": "short"}, {"profile": "full"}, {"sci_mode": True},
        {"sci_mode": False}, {"threshold": 5, "edgeitems": 1}, {"linewidth": 30},
    ],
    ids=str,
)  # fmt: skip
def test_print_options(options: dict[str, Any]) -> None:
    try:
        graphc.set_printoptions(**options)
        torch.set_printoptions(**options)
        square = np.arange(36, dtype=np.float32).reshape(6, 6) / 7
        for array in (square, np.asarray([1e-9, 1e9], np.float32), np.arange(40), np.asarray([1 + 2j, 3.14159])):
            same(array)
    finally:
        graphc.set_printoptions(profile="default")
        torch.set_printoptions(profile="default")


def same(array: np.ndarray) -> None:
    """Raises AssertionError where the texts differ."""
    assert repr(graphc.from_numpy(array)) == repr(torch.from_numpy(array)).replace("torch.", "graphc.")


def test_repr_of_history() -> None:
    for length in (1, 3, 8, 9, 20):
        ours, theirs = graphc.ones(length, requires_grad=True), torch.ones(length, requires_grad=True)
        assert repr(ours) == repr(theirs)
        assert repr(ours * 1.5) == repr(theirs * 1.5)
