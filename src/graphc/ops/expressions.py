"""Writing scalar rules: loop IR expressions with their dtypes filled in.

Enters: expressions and Python numbers.  Leaves: `Expr`.  Never here: rounding to storage dtypes.
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import DType, bool_, int64
from graphc.ir.loops import Call, Const, Expr, Index, Size

_COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})


def call(fn: str, *args: Expr) -> Call:
    """fn(args), of the dtype that its operands give it."""
    if fn in _COMPARISONS:
        return Call(fn, args, bool_)
    return Call(fn, args, args[1].dtype if fn == "select" else args[0].dtype)


def constant(value: float | bool, dtype: DType) -> Const:
    """`value` as a literal of `dtype`."""
    if dtype.kind == "f":
        return Const(float(value), dtype)
    return Const(bool(value) if dtype.kind == "b" else int(value), dtype)


def converted(x: Expr, dtype: DType) -> Expr:
    """`x` as a value of `dtype`; 16-bit floats are reached through float32, as everywhere."""
    if x.dtype is dtype:
        return x
    if dtype.compute is not dtype and x.dtype is not dtype.compute:
        x = Call("cast", (x,), dtype.compute)
    return Call("cast", (x,), dtype)


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
