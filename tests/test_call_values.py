"""Arguments and results as PyTorch's programs use them: tensors for ints, tensors in lists, results with memory of their own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import data
from graphc.nn import functional as F

TWO = graphc.tensor(2)
SIZES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "zeros": (lambda: graphc.zeros((3, TWO)), (3, 2)),
    "randn": (lambda: graphc.randn(TWO, 3), (2, 3)),
    "randint": (lambda: graphc.randint(TWO, (TWO,)), (2,)),
    "randperm": (lambda: graphc.randperm(TWO), (2,)),
    "view": (lambda: graphc.ones(6).view(TWO, -1), (2, 3)),
    "expand": (lambda: graphc.ones(1, 3).expand(TWO, -1), (2, 3)),
    "repeat": (lambda: graphc.ones(3).repeat(graphc.tensor([2])), (6,)),
    "one_hot": (lambda: F.one_hot(graphc.arange(2), TWO), (2, 2)),
    "dim": (lambda: graphc.ones(2, 3, 4).sum(TWO), (2, 3)),
    "alpha": (lambda: graphc.add(graphc.ones(3), 1, alpha=TWO), (3,)),
}


@pytest.mark.parametrize("name", SIZES)
def test_tensors_for_ints(name: str) -> None:
    call, shape = SIZES[name]
    assert tuple(call().shape) == shape


def test_tensors_that_are_no_ints() -> None:
    for given in (graphc.tensor(2.0), graphc.tensor([2, 3]), graphc.tensor(True)):
        with pytest.raises(TypeError, match="must be ints, not Tensor"):
            graphc.zeros((3, given))


def test_randint_by_keywords() -> None:
    for drawn in (graphc.randint(9, size=(5,)), graphc.randint(high=9, size=(5,)), graphc.randint(0, 9, (5,))):
        assert drawn.shape == (5,) and drawn.min() >= 0 and drawn.max() < 9
    with pytest.raises(TypeError, match="missing argument 'size'"):
        graphc.randint(9)


LISTS: list[tuple[list[Any], list[Any], Any]] = [
    ([graphc.tensor([1.5]), graphc.tensor([[2.5]])], [1.5, 2.5], graphc.float32),
    ([[graphc.tensor([1])], [2]], [[1], [2]], graphc.int64),
    ([graphc.tensor(1.0, dtype=graphc.float64), 2], [1.0, 2.0], graphc.float64),
    ([np.float16(1), 2], [1.0, 2.0], graphc.float16),
    ([np.float64(1), 2], [1.0, 2.0], graphc.float32),
    ([np.ones(2), np.zeros(2)], [[1.0, 1.0], [0.0, 0.0]], graphc.float64),
    ([np.uint8(1)], [1], graphc.uint8),
    ([True, 2, 0.5], [1.0, 2.0, 0.5], graphc.float32),
]


@pytest.mark.parametrize("case", range(len(LISTS)))
def test_lists_of_tensors_and_arrays(case: int) -> None:
    given, values, dtype = LISTS[case]
    made = graphc.tensor(given)
    assert made.tolist() == values and made.dtype is dtype


OWN: dict[str, Callable[[Any], Any]] = {
    "repeat": lambda x: x.repeat(3, 1, 1, 1, 1),
    "repeat once": lambda x: x.repeat(1, 1, 1, 1),
    "tile": lambda x: x.tile((1,)),
    "repeat_interleave": lambda x: x.repeat_interleave(1, 0),
    "roll": lambda x: x.roll(0, 0),
    "pad": lambda x: F.pad(x, (0, 0)),
    "crop": lambda x: F.pad(x, (-1, 0)),
    "interpolate": lambda x: F.interpolate(x, size=(3, 4)),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 1),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 1),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 1),
}


@pytest.mark.parametrize("name", OWN)
def test_results_with_memory_of_their_own(name: str) -> None:
    x = graphc.arange(24.0).reshape(1, 2, 3, 4)
    y = OWN[name](x)
    expected = y.numpy().copy() + 1
    y.add_(1)
    assert x.reshape(-1).tolist() == list(range(24)) and (y.numpy() == expected).all()


def test_an_expanded_view_of_the_same_shape_is_written_to() -> None:
    x = graphc.zeros(2, 3)
    x.expand(2, 3).add_(1)
    assert x.sum() == 6


def test_cat_of_many() -> None:
    parts = [graphc.full((2, i % 3 + 1), float(i), requires_grad=True) for i in range(300)]
    joined = graphc.cat(parts, 1)
    assert (joined.detach().numpy() == np.concatenate([p.detach().numpy() for p in parts], 1)).all()
    (joined * joined).sum().backward()
    assert all((p.grad == 2 * p).all() for p in parts)
    with pytest.raises(RuntimeError, match=r"cat: sizes must match except in dim 1: f32\[2, 1\] and f32\[3, 1\]"):
        graphc.cat([*parts, graphc.ones(3, 1)], 1)


def test_sampler_of_more_than_memory_holds() -> None:
    sampler = data.RandomSampler(range(5), replacement=True, num_samples=10**12)
    drawn = list(islice(sampler, 9000))
    assert set(drawn) == set(range(5)) and len(sampler) == 10**12
