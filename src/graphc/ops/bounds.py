"""Indices that must lie inside a dim: how a kernel checks them, how a reference does, and samples of them.

Enters: indices.  Leaves: indices that are inside, or IndexError (RuntimeError, where PyTorch raises that) when the call ends.
Never here: operators.
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import int64
from graphc.ir.loops import Expr, Size
from graphc.ops.declare import fill
from graphc.ops.expressions import both, clamped, converted
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import size as size_value


def places(high: int, *shape: int, low: int = 0) -> Any:
    """Sample indices in low..high-1."""
    return fill(*shape, low=low, high=high, dtype=int64, grad=False)


def checked(load: Any, position: Expr, limit: Size, message: str) -> Size:
    """`position`, forced into 0..limit-1; a place outside is recorded as a failure of the call."""
    position = converted(position, int64)
    load.check(both(fn("ge", position, literal(0, int64)), fn("lt", position, size_value(limit))), message)
    return clamped(load, position, limit)


def check_range(name: str, index: Any, limit: int, error: type[Exception] = IndexError) -> None:
    """The reference's check.  Raises `error`."""
    if index.size and (index.min() < 0 or index.max() >= limit):
        raise error(f"{name}: index out of range")


def out_of_range(name: str, error: type[Exception] = IndexError) -> str:
    """The message of a failed check of a kernel."""
    return f"{'' if error is IndexError else 'RuntimeError: '}{name}: index out of range"
