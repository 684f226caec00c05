"""Dtypes by the array API standard: promotion without a weaker rank for 0-d arrays, kinds, limits.

Enters: arrays, dtypes, Python numbers.  Leaves: dtypes, arrays of one dtype.  Never here: the promotion table (`graphc.dtypes`).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import graphc
from graphc import Tensor
from graphc.dtypes import CATEGORY, DType, default_for_scalar, promote_types
from graphc.ops.arguments import cast

Number = bool | int | float | complex
_KINDS = {
    "bool": "b", "signed integer": "i", "unsigned integer": "u", "integral": "iu", "real floating": "f",
    "complex floating": "c", "numeric": "iufc",
}  # fmt: skip


def common_dtype(name: str, operands: tuple[Any, ...]) -> DType:
    """The dtype of arrays, dtypes and numbers together; a number takes the arrays' dtype.

    Raises TypeError where a number is of a later kind (bool, integer, floating, complex), or without any array or dtype.
    """
    given = [x if isinstance(x, DType) else x.dtype for x in operands if isinstance(x, DType | Tensor)]
    if not given:
        raise TypeError(f"{name}: at least one argument must be an array")
    dtype = given[0]
    for other in given[1:]:
        dtype = promote_types(dtype, other)
    for x in operands:
        if isinstance(x, Number):
            kind = default_for_scalar(x).kind
            if kind == "c" and dtype.kind == "f":
                dtype = dtype.to_complex()
            elif CATEGORY[kind] > CATEGORY[dtype.kind] or (kind == "b") != (dtype.kind == "b"):
                raise TypeError(f"{name}: a Python {type(x).__name__} cannot be combined with an array of {dtype}")
        elif not isinstance(x, DType | Tensor):
            raise TypeError(f"{name}: expected arrays and numbers, got {type(x).__name__}")
    return dtype


def promoted(name: str, *operands: Any) -> tuple[Tensor, ...]:
    """Arrays and numbers as arrays of their common dtype."""
    dtype = common_dtype(name, operands)
    return tuple(cast(x, dtype) if isinstance(x, Tensor) else graphc.full((), x, dtype=dtype) for x in operands)


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype that arithmetic on these gives.  Raises TypeError where there is none."""
    return common_dtype("result_type", arrays_and_dtypes)


def can_cast(from_: DType | Tensor, to: DType, /) -> bool:
    """Whether promotion leads from one dtype to the other."""
    given = from_.dtype if isinstance(from_, Tensor) else from_
    if CATEGORY[given.kind] > CATEGORY[to.kind] or (given.kind == "b") != (to.kind == "b"):
        return False
    try:
        return promote_types(given, to) is to
    except TypeError:
        return False


def astype(x: Tensor, dtype: DType, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """x as another dtype; x itself if it is of that dtype and no copy is asked for."""
    return x.to(dtype, copy=copy, device=device)  # type: ignore[attr-defined,no-any-return]


def isdtype(dtype: DType, kind: Any) -> bool:
    """Whether a dtype is a given one, of a named kind, or any of a tuple of these.  Raises ValueError for an unknown kind."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, DType):
        return dtype is kind
    if kind not in _KINDS:
        raise ValueError(f"isdtype: unknown kind {kind!r}")
    return dtype.kind in _KINDS[kind]


def finfo(type: DType | Tensor, /) -> SimpleNamespace:
    """bits, eps, max, min, smallest_normal and dtype of a floating dtype, or of the parts of a complex one."""
    dtype = type.dtype if isinstance(type, Tensor) else type
    found = graphc.finfo(dtype)
    return SimpleNamespace(
        bits=found.bits, eps=found.eps, max=found.max, min=found.min, smallest_normal=found.smallest_normal, dtype=dtype.real
    )


def iinfo(type: DType | Tensor, /) -> SimpleNamespace:
    """bits, max, min and dtype of an integer dtype."""
    dtype = type.dtype if isinstance(type, Tensor) else type
    found = graphc.iinfo(dtype)
    return SimpleNamespace(bits=found.bits, max=found.max, min=found.min, dtype=dtype)
