"""Constants: what a graph can know without running.

Enters: operators on `full` values.  Leaves: `full` values.  Never here: functions that are not correctly rounded (their
bits belong to the code generator), tensors of differing elements.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dims import Dim
from graphc.dtypes import DType
from graphc.ir.graph import Builder, Rule, Value, attribute_key
from graphc.ir.op import Op, Shape, TensorType

# Their NumPy references give the bits of the loop IR on every input.
_EXACT = (
    "add", "sub", "mul", "div", "neg", "abs", "sqrt", "square", "reciprocal", "floor", "ceil", "trunc", "where", "cast",
    "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "logical_not",
)  # fmt: skip

Number = bool | int | float


def constant_of(value: Value) -> Number | None:
    """The number that every element of `value` is, as its dtype holds it; None where it is no known constant."""
    if value.node is None or value.node.op.name != "full" or value.dtype.kind == "c":
        return None
    number = value.node.attrs["value"]
    return None if isinstance(number, Dim) else held(number, value.dtype)


@functools.lru_cache(4096, typed=True)
def _rounded(number: Number, dtype: DType) -> Number:
    array = Op.table["full"].reference(np, value=number, shape=(), dtype=dtype)
    plain: Number = array.astype(np.float64).item() if dtype.kind == "f" else array.item()
    return plain


def held(number: Number, dtype: DType) -> Number:
    """`number` rounded or converted to `dtype`, as `full` does."""
    if isinstance(number, float) and number == 0 and dtype.kind == "f":
        return number  # equal keys of the cache, but of two signs
    return _rounded(number, dtype)


def full(builder: Builder, number: Number, shape: Shape, dtype: DType) -> Value:
    """A constant tensor."""
    return builder.emit(Op.table["full"], (), {"value": number, "shape": shape, "dtype": dtype})[0]


def fold_rules() -> dict[str, tuple[Rule, ...]]:
    """Operator name -> rules that make constants of constants."""
    rules: dict[str, tuple[Rule, ...]] = dict.fromkeys(_EXACT, (_evaluated,))
    rules["full"] = (_of_its_dtype,)
    rules["div"] = (*rules["div"], _by_power_of_two)
    return rules


def _of_its_dtype(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value] | None:
    """``full(1, dtype=f32)`` --> ``full(1.0, dtype=f32)``: the number that the dtype holds, so that equal constants are one."""
    number, dtype = attrs["value"], attrs["dtype"]
    if isinstance(number, Dim) or dtype.kind == "c":
        return None
    plain = held(number, dtype)
    if attribute_key(plain) == attribute_key(number):
        return None
    return (full(builder, plain, attrs["shape"], dtype),)


def _evaluated(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value] | None:
    """``add(1, 2)`` --> ``3``, of the broadcast shape."""
    numbers = [constant_of(v) for v in inputs]
    if not numbers or any(n is None for n in numbers):
        return None
    (out,) = op.infer_types([v.type for v in inputs], attrs)
    arrays = [np.asarray(n).astype(v.dtype.numpy) for n, v in zip(numbers, inputs, strict=True)]
    with np.errstate(all="ignore"):
        result = np.asarray(op.reference(np, *arrays, **attrs), out.dtype.numpy)
    return (full(builder, _plain(result, out), out.shape, out.dtype),)


def _plain(result: np.ndarray[Any, Any], out: TensorType) -> Number:
    number: Number = result.astype(np.float64).item() if out.dtype.kind == "f" else result.item()
    return number


def _by_power_of_two(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value] | None:
    """``div(x, 8)`` --> ``mul(x, 0.125)``: the same number, rounded once either way."""
    x, divisor = inputs
    number = constant_of(divisor)
    if number is None or number == 0 or not math.isfinite(number) or math.frexp(number)[0] not in (0.5, -0.5):
        return None
    inverse = 1.0 / number
    if held(inverse, divisor.dtype) != inverse:
        return None
    return builder.emit(Op.table["mul"], (x, full(builder, inverse, divisor.shape, divisor.dtype)), {})
