"""Copies that exchange which axis is contiguous: squares transposed in registers.

Enters: a group that only stores a value reached by movement.  Leaves: a `Launch`, or None for a copy of another kind.
Never here: elementwise work on the way (`schedule.tiles`).
"""

from __future__ import annotations

from graphc.dims import Dim, Size, coefficient, minimum, product, substitute
from graphc.ir.loops import Expr, For, Transpose
from graphc.schedule.lower import Context, Launch, finish
from graphc.schedule.panels import place_of
from graphc.schedule.partition import Group
from graphc.schedule.pull import Block, Puller, delinear, strides_of

SIDE = 64  # elements of a block along either axis: of all lines that are touched, whole ones
LEAST = 8  # elements along both axes that make it worth while


def transposed_copy(group: Group, context: Context) -> Launch | None:
    """The launch of a copy whose source is contiguous along another axis than its result."""
    if group.members or len(group.outputs) != 1:
        return None
    (value,) = group.outputs
    shape, last = value.shape, len(value.shape) - 1
    puller = Puller(context.checks, lambda _: False)
    for axis in range(last):
        others = [d for d in range(last) if d != axis]
        sizes = tuple(shape[d] for d in others)
        if any(isinstance(n, int) and n < LEAST for n in (shape[axis], shape[last])):
            continue
        blocks = tuple((shape[d] + SIDE - 1) // SIDE for d in (axis, last))
        extent = product(sizes) * product(blocks)
        p = Dim.symbol("p", 0, below=extent)
        start = ((p // blocks[1]) % blocks[0] * SIDE, p % blocks[1] * SIDE)
        index: dict[int, Size] = dict(zip(others, delinear(p // product(blocks), sizes), strict=True))

        def element(k: Size, j: Size, block: Block, at: dict[int, Size] = index, axis: int = axis) -> Expr:
            return puller.pull(value, tuple({**at, axis: k, last: j}[d] for d in range(len(shape))), block)

        place = place_of(puller, element, shape[axis], shape[last])
        if place is None or not place.along_columns or place.dtype is not value.dtype:
            continue
        element(Dim.symbol("k"), Dim.symbol("j"), Block(puller.names))  # names its buffer
        target = puller.buffer(value, "out")
        at = puller.offset(value, tuple({**index, axis: start[0], last: start[1]}[d] for d in range(len(shape))))
        between, across = coefficient(place.offset, "j"), strides_of(shape)[axis]
        assert between is not None
        source = substitute(place.offset, {"k": start[0], "j": start[1]})
        columns, rows = (_length(shape[d], s) for d, s in ((axis, start[0]), (last, start[1])))
        stream = value in context.streamed
        dtype = value.dtype
        body = Transpose("x", target, at, across, place.buffer, source, between, rows, columns, dtype, dtype, 0, stream)
        return finish(puller, For("p", extent, "parallel", (body,)), extent, SIDE * SIDE / 4, group, "copy, transposed")
    return None


def _length(size: Size, start: Size) -> Size:
    return SIDE if isinstance(size, int) and size % SIDE == 0 else minimum(SIDE, size - start)
