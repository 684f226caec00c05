"""Elements by position in memory: `as_strided`, and writing where it reads.

Enters: tensors.  Leaves: operators.  Never here: real memory; here a tensor's memory is its elements in row-major order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dims import product
from graphc.dtypes import int64
from graphc.ir.op import Bad, Movement, Op, Shape, TensorType, shape_text
from graphc.ops.arguments import constant, one_size, sizes, tensor, zeros_like
from graphc.ops.arithmetic import add, mul
from graphc.ops.comparison import where
from graphc.ops.create import iota
from graphc.ops.declare import EVERY, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.movement import Index, expand, reshape


def span(size: Any, stride: Any) -> int:
    """How many elements of memory lie between the first and the last, both counted."""
    return 0 if 0 in size else 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))


def overlaps(size: Any, stride: Any) -> bool:
    """Whether two elements may share a place: True where, in order of strides, one dim does not step over those below it."""
    if 0 in size:
        return False
    reach = 0
    for step, n in sorted((s, n) for n, s in zip(size, stride, strict=True) if n != 1):
        if step <= reach:
            return True
        reach += (n - 1) * step
    return False


def check_strided(name: str, size: Any, stride: Any, offset: Any, count: Any) -> None:
    """Raise RuntimeError unless the places lie within `count` elements of memory."""
    if len(size) != len(stride):
        raise RuntimeError(f"{name}: mismatch in length of strides and shape: {shape_text(size)} and {shape_text(stride)}")
    if not all(isinstance(v, int) for v in (*size, *stride, offset)):
        raise RuntimeError(
            f"{name}: sizes, strides and offset must be ints, got {shape_text(size)}, {shape_text(stride)}, {offset}"
        )
    if any(n < 0 for n in size):
        raise RuntimeError(f"{name}: negative size in {shape_text(size)}")
    if any(s < 0 for s in stride):
        raise RuntimeError(f"{name}: Negative strides are not supported at the moment, got strides: {shape_text(stride)}")
    if offset < 0:
        raise RuntimeError(f"{name}: Tensor: invalid storage offset {offset}")
    if isinstance(count, int) and 0 not in size and offset + span(size, stride) > count:
        raise RuntimeError(
            f"{name}: sizes {shape_text(size)}, strides {shape_text(stride)} and storage offset {offset} require "
            f"{offset + span(size, stride)} elements and are out of bounds for storage of size {count}"
        )


def _prepare(x: Any, size: Any, stride: Any, storage_offset: Any = 0) -> Prepared:
    x = tensor("as_strided", "x", x)
    shape, steps = sizes("as_strided", (tuple(size),), "size"), sizes("as_strided", (tuple(stride),), "stride")
    return (x,), {"size": shape, "stride": steps, "offset": one_size("as_strided", "storage_offset", storage_offset)}


def _infer(x: TensorType, size: Shape, stride: Shape, offset: Any) -> TensorType:
    count = product(x.shape)
    if not isinstance(count, int):
        raise RuntimeError(f"as_strided: sizes of {x} must be known")
    check_strided("as_strided", size, stride, offset, count)
    return TensorType(x.dtype, size)


def _index(index: Index, in_type: TensorType, out_type: TensorType, size: Shape, stride: Shape, offset: Any) -> Index:
    linear = offset
    for i, step in zip(index, stride, strict=True):
        linear = linear + i * step
    result: list[Any] = []
    for n in reversed(in_type.shape):
        result.append(linear % n if len(result) + 1 < in_type.rank else linear)
        linear = linear // n
    return tuple(reversed(result))


def _reference(xp: Any, x: Any, size: Any, stride: Any, offset: Any) -> Any:
    """A view of row-major memory (through unsigned integers: not every dtype has a buffer); read-only where places are shared."""
    if 0 in size:
        return x.reshape(-1)[:0].reshape(size)
    x, step = np.ascontiguousarray(x).reshape(x.shape), x.dtype.itemsize
    if step > 8 or x.dtype.kind in "biufc":
        plain = x
    else:
        plain = x.view(f"u{step}")
    made = np.ndarray(size, plain.dtype, plain, offset * step, tuple(s * step for s in stride))
    made.flags.writeable = x.flags.writeable and not overlaps(size, stride)
    return made.view(x.dtype)


def positions(size: Shape, stride: Shape, offset: Any) -> Any:
    """The place in memory of every element, as a vector of int64."""
    total = constant(offset, int64, size)
    for k, (n, step) in enumerate(zip(size, stride, strict=True)):
        line = reshape.run(iota.run(size=n, dtype=int64), shape=tuple(n if j == k else 1 for j in range(len(size))))
        total = add(total, expand.run(mul(line, step), shape=size))
    return reshape.run(total, shape=(product(size),))


def _grad(g: Any, out: Any, x: Any, size: Shape, stride: Shape, offset: Any) -> tuple[Any]:
    flat = constant(0, g.dtype, (product(x.shape),))
    if 0 in size:
        return (zeros_like(x),)
    summed = Op.table["scatter_add"].run(flat, positions(size, stride, offset), reshape.run(g, shape=(product(size),)), dim=0)
    return (reshape.run(summed, shape=tuple(x.shape)),)


def strided_scatter(whole: Any, part: Any, size: Shape, stride: Shape, offset: Any) -> Any:
    """`whole` with what `as_strided` reads of it replaced by `part`.  Only for places that differ (see `overlaps`)."""
    if 0 in size:
        return whole
    count = product(whole.shape)
    source = add(iota.run(size=product(size), dtype=int64), 1)
    taken = Op.table["scatter_add"].run(constant(0, int64, (count,)), positions(size, stride, offset), source, dim=0)
    here = Op.table["gt"](taken, 0)
    found = Op.table["index_select"].run(reshape.run(part, shape=(product(size),)), Op.table["clamp"](add(taken, -1), 0), dim=0)
    return reshape.run(where.run(here, found, reshape.run(whole, shape=(count,))), shape=tuple(whole.shape))


as_strided = Op(
    "as_strided",
    doc="Elements at offset + i*stride[0] + j*stride[1] + ... of the row-major elements of x.  [...] -> size.",
    signature="(x, size, stride, storage_offset=0)",
    prepare=_prepare,
    infer=_infer,
    reference=_reference,
    grad=_grad,
    lowering=Movement(_index),
    attrs=("size", "stride", "offset"),
    dtypes=EVERY,
    samples=(
        call(fill(12), (3, 4), (4, 1)),
        call(fill(3, 4), (2, 3), (1, 4), 1),
        call(fill(10), (4, 3), (2, 1)),
        call(fill(5), (), (), 4),
        call(fill(33), (3, 0), (1, 1)),
        call(fill(2, 3, 4), (2, 2), (12, 5), 3),
    ),
    bad=(
        Bad((fill(5), (6,), (1,)), RuntimeError, "as_strided: .* out of bounds for storage of size 5"),
        Bad((fill(5), (2,), (-1,)), RuntimeError, "as_strided: Negative strides"),
        Bad((fill(5), (2, 2), (1,)), RuntimeError, "as_strided: mismatch in length of strides and shape"),
        Bad((fill(5), (2,), (1,), -1), RuntimeError, "as_strided: Tensor: invalid storage offset"),
    ),
    methods=(),
    functions=(),
)

__all__ = ["as_strided", "check_strided", "overlaps", "positions", "span", "strided_scatter"]
