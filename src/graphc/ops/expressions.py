"""Writing scalar rules: loop IR expressions with their dtypes filled in.

Enters: expressions and Python numbers.  Leaves: `Expr`.  Never here: rounding to storage dtypes.
"""

from __future__ import annotations

from typing import Any

from graphc.dims import bounds, known_less
from graphc.dtypes import DType, bool_, int32, int64, uint64
from graphc.ir.loops import Call, Const, Expr, Index, Size

_COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})


def call(fn: str, *args: Expr) -> Call:
    """fn(args), of the dtype that its operands give it."""
    if fn in _COMPARISONS:
        return Call(fn, args, bool_)
    return Call(fn, args, args[1].dtype if fn == "select" else args[0].dtype)


def constant(value: float | bool, dtype: DType) -> Const:
    """`value` as a literal of `dtype`; integers wrap."""
    if dtype.kind == "f":
        return Const(float(value), dtype)
    return Const(bool(value) if dtype.kind == "b" else wrapped(int(value), dtype), dtype)


def wrapped(value: int, dtype: DType) -> int:
    """An integer modulo 2 to the width of `dtype`, in its range."""
    bits = 8 * dtype.itemsize
    value &= (1 << bits) - 1
    return value - (1 << bits) if dtype.kind == "i" and value >> (bits - 1) else value


def converted(x: Expr, dtype: DType) -> Expr:
    """`x` as a value of `dtype`; 16-bit floats are reached through float32, as everywhere.

    Floats become integers as on x86: truncated to int32 (int64 for dtypes of four and eight bytes other than int32), where NaN
    and what does not fit give the least value, and then cut to the width of `dtype`.
    """
    if x.dtype is dtype:
        return x
    if dtype.compute is not dtype and x.dtype is not dtype.compute:
        x = Call("cast", (x,), dtype.compute)
    if x.dtype.kind == "f" and dtype.kind in "iu" and dtype is not uint64:
        x = Call("cast", (x,), x.dtype.compute) if x.dtype.compute is not x.dtype else x
        holder = through(dtype)
        fits = call("lt", x, constant(2.0 ** (8 * holder.itemsize - 1), x.dtype))
        x = select(fits, Call("cast", (x,), holder), constant(-(1 << (8 * holder.itemsize - 1)), holder))
        return x if holder is dtype else Call("cast", (x,), dtype)
    return Call("cast", (x,), dtype)


def through(dtype: DType) -> DType:
    """The integers that floats become first on their way to `dtype`."""
    return int32 if dtype is int32 or dtype.itemsize < 4 else int64


def select(condition: Expr, then: Expr, otherwise: Expr) -> Expr:
    """then where condition, else otherwise; both are computed."""
    return Call("select", (condition, then, otherwise), then.dtype)


def both(x: Expr, y: Expr) -> Expr:
    """Logical and of two bools."""
    return Call("and", (x, y), bool_)


def size(value: Size) -> Expr:
    """A size or index as an int64 value."""
    return Const(value, int64) if isinstance(value, int) else Index(value)


def clamped(load: Any, position: Expr, limit: Size) -> Size:
    """`position` (int64) forced into 0..limit-1 and made usable inside an index, so that no load is out of range."""
    inside = call("max", call("min", position, size(limit - 1)), constant(0, int64))
    chosen: Size = load.symbol(load.let(inside))
    return chosen


def inside_tests(position: Size, limit: Size) -> list[Expr]:
    """The tests that 0 <= position < limit needs where bounds do not decide it."""
    low, _ = bounds(position)
    tests: list[Expr] = [] if low is not None and low >= 0 else [call("ge", size(position), constant(0, int64))]
    return tests if known_less(position, limit) else [*tests, call("lt", size(position), size(limit))]
