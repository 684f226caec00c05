"""Integer dtypes, conversions between dtypes and 16-bit floats beside numbers: PyTorch's values on x86, eagerly and compiled."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

INTEGERS = ("uint8", "int8", "int16", "int32", "int64")
EVERY = ("bool", *INTEGERS, "float16", "bfloat16", "float32", "float64")
FLOATS = [300.0, -1.0, np.nan, np.inf, -np.inf, 1e20, -1e20, -200.0, 3e9, -3e9, 2147483520.0, -2147483648.0, 0.9, -0.9, 65535.0]
WHOLE = [0, 1, -1, 2, 3, 7, 100, -100, 127, -128, 128, 255, 300, 32767, -32768, 2**31 - 1, -(2**31), 2**62]


def pair(values: list[Any], dtype: str, source: str) -> tuple[Any, Any]:
    """The same tensor in both libraries."""
    array = np.array(values, source)
    return (
        graphc.from_numpy(array.copy()).to(getattr(graphc, dtype)),
        torch.from_numpy(array.copy()).to(getattr(torch, dtype)),
    )


def same(ours: Any, theirs: Any) -> None:
    assert ours.dtype.name == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_array_equal(ours.double().numpy(), theirs.double().numpy())


@pytest.mark.parametrize(
    "source, target", list(itertools.product(("float16", "bfloat16", "float32", "float64"), (*INTEGERS, "bool")))
)
def test_floats_become_integers(source: str, target: str) -> None:
    ours, theirs = pair(FLOATS, source, "float32")
    wanted = theirs.to(getattr(torch, target))
    same(ours.to(getattr(graphc, target)), wanted)
    same(graphc.compile(lambda x: x.to(getattr(graphc, target)))(ours), wanted)


@pytest.mark.parametrize("source, target", list(itertools.product(INTEGERS, EVERY)))
def test_integers_convert(source: str, target: str) -> None:
    ours, theirs = pair(WHOLE, source, "int64")
    same(ours.to(getattr(graphc, target)), theirs.to(getattr(torch, target)))


BINARY: list[Callable[..., Any]] = [
    lambda x, y, lib: x + y,
    lambda x, y, lib: x - y,
    lambda x, y, lib: x * y,
    lambda x, y, lib: x // lib.where(y == 0, lib.ones_like(y), y),
    lambda x, y, lib: x % lib.where(y == 0, lib.ones_like(y), y),
    lambda x, y, lib: lib.fmod(x, lib.where(y == 0, lib.ones_like(y), y)),
    lambda x, y, lib: lib.div(x, lib.where(y == 0, lib.ones_like(y), y), rounding_mode="trunc"),
    lambda x, y, lib: x / y,
    lambda x, y, lib: x & y,
    lambda x, y, lib: x | y,
    lambda x, y, lib: x ^ y,
    lambda x, y, lib: ~x,
    lambda x, y, lib: x << (y & 3),
    lambda x, y, lib: x >> (y & 3),
    lambda x, y, lib: x**2 + y**3,
    lambda x, y, lib: x < y,
    lambda x, y, lib: lib.maximum(x, y),
    lambda x, y, lib: lib.clamp(x, -3, 90),
    lambda x, y, lib: -x,
    lambda x, y, lib: abs(x),
    lambda x, y, lib: lib.sign(x),
    lambda x, y, lib: x * 3 + 7,
    lambda x, y, lib: x == -1,
    lambda x, y, lib: x.sum(),
    lambda x, y, lib: x.sum(0, dtype=x.dtype),
    lambda x, y, lib: x.prod(),
    lambda x, y, lib: x.cumsum(0),
    lambda x, y, lib: x.amax(),
    lambda x, y, lib: x.min(0).values,
]


@pytest.mark.parametrize(
    "dtypes", [*((d, d) for d in INTEGERS), ("uint8", "int8"), ("int16", "uint8"), ("int64", "int8")], ids="-".join
)
def test_integer_arithmetic(dtypes: tuple[str, str]) -> None:
    x, theirs_x = pair(WHOLE, dtypes[0], "int64")
    y, theirs_y = pair(WHOLE[5:] + WHOLE[:5], dtypes[1], "int64")
    wanted = [rule(theirs_x, theirs_y, torch) for rule in BINARY]
    for k, rule in enumerate(BINARY):
        same(rule(x, y, graphc), wanted[k])
    for ours, theirs in zip(graphc.compile(lambda x, y: [rule(x, y, graphc) for rule in BINARY])(x, y), wanted, strict=True):
        same(ours, theirs)


DIVISIONS: list[Callable[..., Any]] = [
    lambda x, y: x // y,
    lambda x, y: x % y,
    lambda x, y: graphc.fmod(x, y),
    lambda x, y: graphc.div(x, y, rounding_mode="floor"),
    lambda x, y: graphc.div(x, y, rounding_mode="trunc"),
]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("rule", range(len(DIVISIONS)))
def test_integer_division_by_zero_raises(dtype: str, rule: int) -> None:
    x = graphc.ones(40, dtype=getattr(graphc, dtype))
    y = x.clone()
    y[33] = 0
    divide = DIVISIONS[rule]
    compiled = graphc.compile(divide)
    assert (compiled(x, x) == divide(x, x)).all()
    for call in (divide, compiled):
        for divisor in (y, 0):
            with pytest.raises(RuntimeError, match="ZeroDivisionError"):
                call(x, divisor)


def test_a_failed_division_leaves_state_as_it_was() -> None:
    total = graphc.zeros(3, dtype=graphc.int64)

    def step(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        total.add_(1)
        return x // y

    compiled = graphc.compile(step)
    ones = graphc.ones(3, dtype=graphc.int64)
    compiled(ones, ones)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        compiled(ones, graphc.zeros(3, dtype=graphc.int64))
    assert total.tolist() == [1, 1, 1]


NUMBERS: list[Callable[..., Any]] = [
    lambda x: x * 0.1234567,
    lambda x: 0.1234567 * x,
    lambda x: x / 0.1234567,
    lambda x: x + 0.1234567,
    lambda x: x - 0.1234567,
    lambda x: x // 0.1234567,
    lambda x: x % 0.1234567,
    lambda x: x < 0.1234567,
    lambda x: x.clamp(max=0.1234567),
]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("rule", range(len(NUMBERS)))
def test_numbers_beside_16_bit_floats(dtype: str, rule: int) -> None:
    values = list(np.random.default_rng(rule).uniform(-4, 4, 500))
    ours, theirs = pair(values, dtype, "float64")
    wanted = NUMBERS[rule](theirs)
    same(NUMBERS[rule](ours), wanted)
    same(graphc.compile(NUMBERS[rule])(ours), wanted)


@pytest.mark.parametrize("x, y", list(itertools.product(EVERY, EVERY)))
def test_promotion(x: str, y: str) -> None:
    """Of two tensors, and of a tensor with a 0-d one."""
    for shape in ((2,), ()):
        ours = graphc.ones(2, dtype=getattr(graphc, x)) * graphc.ones(shape, dtype=getattr(graphc, y))
        theirs = torch.ones(2, dtype=getattr(torch, x)) * torch.ones(shape, dtype=getattr(torch, y))
        same(ours, theirs)
