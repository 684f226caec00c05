"""Elementwise groups that read something transposed: tiles of two axes instead of one axis from end to end.

Enters: what a group reads and walks.  Leaves: the axis to tile beside the innermost one, and the loops.  Never here: statements.

Along the innermost axis such a buffer is read in steps, one element of each line of memory.  In a tile every line that is fetched
is read whole before it is pushed out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.dims import Dim, Size, minimum, product
from graphc.schedule.partition import Axes
from graphc.schedule.pull import delinear

TILE = 16  # elements of either axis: the lines of both sides fit the nearest cache, also where they are a power of two apart


def read_across(walked: Iterable[Axes], axes: Sequence[Size], inner: int) -> int | None:
    """An axis along which a buffer is contiguous that walks `inner` too.   walked: the axis of each dim of each buffer read."""
    for one in walked:
        if inner in one and one[-1] not in (inner, None):
            size = axes[one[-1]]
            if not isinstance(size, int) or size >= 4:
                return one[-1]
    return None


def tiles(axes: Sequence[Size], inner: int, across: int) -> tuple[Size, dict[int, Size], dict[int, Size]]:
    """(how many tiles, the extents of the two axes in tile `p`, the index of each axis at element `s`, `v` of tile `p`)."""
    outer = [a for a in range(len(axes)) if a not in (inner, across)]
    outer_sizes = tuple(axes[a] for a in outer)
    blocks = {a: (axes[a] + TILE - 1) // TILE for a in (across, inner)}
    count = product(outer_sizes) * blocks[across] * blocks[inner]
    p = Dim.symbol("p", 0, below=count)
    block = {inner: p % blocks[inner], across: (p // blocks[inner]) % blocks[across]}
    index: dict[int, Size] = dict(zip(outer, delinear(p // (blocks[inner] * blocks[across]), outer_sizes), strict=True))
    extents: dict[int, Size] = {a: minimum(TILE, axes[a] - block[a] * TILE) for a in block}
    for axis, name in ((across, "s"), (inner, "v")):
        index[axis] = block[axis] * TILE + Dim.symbol(name, 0, below=extents[axis])
    return count, extents, index
