"""The bytes of elements read as another dtype: what `Tensor.view(dtype)` is.

Enters: tensors.  Leaves: one operator.  Never here: conversion of values (`comparison.cast`).
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import DType, bool_, float16, float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64
from graphc.ir.loops import Call, Expr
from graphc.ir.op import Bad, Element, Op, TensorType
from graphc.ops.arguments import tensor
from graphc.ops.create import require_dtype
from graphc.ops.declare import EVERY, call, fill
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import size as size_value
from graphc.ops.movement import Index

_UNSIGNED = {1: uint8, 2: uint16, 4: uint32, 8: uint64}


def _infer(x: TensorType, dtype: DType) -> TensorType:
    """The last size grows or shrinks with the width.  Raises RuntimeError where that is not possible."""
    have, want = x.dtype.itemsize, dtype.itemsize
    if have == want:
        return TensorType(dtype, x.shape)
    if not x.rank:
        raise RuntimeError(f"view: {x} of 0 dims cannot be seen as {dtype}, whose elements have another size")
    size = x.shape[-1] * have
    if want > have and isinstance(size, int) and size % want:
        raise RuntimeError(f"view: the last dim of {x} must be divisible by {want // have} to be seen as {dtype}")
    return TensorType(dtype, (*x.shape[:-1], size // want))


def _bits(x: Expr, width: int) -> Expr:
    """An element as an unsigned integer of `width` bytes: its own bits, the rest 0."""
    own = _UNSIGNED[x.dtype.itemsize]
    if x.dtype is bool_:
        x = Call("cast", (x,), own)
    elif x.dtype is not own:
        x = Call("bitcast", (x,), own)
    return x if own.itemsize == width else Call("cast", (x,), _UNSIGNED[width])


def _element(bits: Expr, dtype: DType) -> Expr:
    """The lowest bits of an unsigned integer as an element."""
    own = _UNSIGNED[dtype.itemsize]
    bits = bits if bits.dtype is own else Call("cast", (bits,), own)
    if dtype is bool_:
        return fn("ne", bits, literal(0, own))
    return bits if dtype is own else Call("bitcast", (bits,), dtype)


def _rule(load: Any, index: Index, in_types: Any, out_type: TensorType, dtype: DType) -> Expr:
    """A part of one element, or several side by side, the first lowest."""
    have, want = in_types[0].dtype.itemsize, dtype.itemsize
    if have == want:
        return _element(_bits(load(0, index), have), dtype)
    *lead, last = index
    if have > want:
        many = have // want
        whole = load.let(_bits(load(0, (*lead, last // many)), have))
        position = Call("cast", (load.let(size_value(last % many)),), whole.dtype)
        return _element(fn("shr", whole, fn("mul", position, literal(8 * want, whole.dtype))), dtype)
    many = want // have
    total: Expr | None = None
    for k in range(many):
        part = _bits(load(0, (*lead, last * many + k)), want)
        part = part if not k else fn("shl", part, literal(8 * have * k, part.dtype))
        total = part if total is None else fn("or", total, part)
    assert total is not None
    return _element(total, dtype)


def _reference(xp: Any, x: Any, dtype: DType) -> Any:
    """NumPy's view, of a row-major copy where the memory does not allow one."""
    try:
        return x.view(dtype.numpy)
    except ValueError:
        return xp.ascontiguousarray(x).view(dtype.numpy)


view_dtype = Op(
    "view_dtype",
    doc="The bytes of x as elements of another dtype; the last dim grows or shrinks with their size.  [..., n] -> [..., m].",
    signature="(x, dtype)",
    prepare=lambda x, dtype: ((tensor("view", "x", x),), {"dtype": require_dtype("view", dtype)}),
    infer=_infer,
    reference=_reference,
    grad=None,
    lowering=Element(_rule),
    attrs=("dtype",),
    dtypes=EVERY,
    samples=(
        call(fill(3, 8), uint8),
        call(fill(2, 16), int64),
        call(fill(8), int16),
        call(fill(2, 4, dtype=float32), int32),
        call(fill(2, 4, dtype=float64), float16),
        call(fill(3, dtype=int8), uint8),
        call(fill(0, 8), uint8),
    ),
    bad=(
        Bad((fill(3, dtype=uint8), float32), RuntimeError, "view: the last dim of .* must be divisible by 4"),
        Bad((fill(), uint8), RuntimeError, "view: .* of 0 dims cannot be seen as"),
        Bad((fill(2), "uint8"), TypeError, "view: argument 'dtype'"),
    ),
    methods=(),
    functions=(),
)
