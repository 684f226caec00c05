"""The nest of products with a whole kernel at every place, added where they belong.

Enters: a group whose anchor is `taps_product`.  Leaves: its `Launch`.  Never here: what is computed, and in which order
(`ops.convolution_back`).

A unit is one image: register tiles of places by panels of columns put its products into scratch that stays in the second cache, and
for each element of the kernel those of all places are added to the image.
"""

from __future__ import annotations

import math

from graphc.dims import Dim, maximum, minimum
from graphc.ir.loops import Call, For, Load, Size, Stmt, Store
from graphc.ops.windows import fixed, fixed_inside
from graphc.schedule.convolution import Tiles
from graphc.schedule.lower import Context, Launch
from graphc.schedule.matmul import largest_tile, rows_of_tiles
from graphc.schedule.partition import Group, is_stored
from graphc.schedule.pull import Block, cast, delinear


def taps(group: Group, context: Context) -> list[Launch]:
    """[N, *places, O], panels [P, O, width] -> [N, *shape, C]."""
    return [_Taps(group, context).lower()]


class _Taps(Tiles):
    def __init__(self, group: Group, context: Context) -> None:
        super().__init__(group, context)
        self.g, self.panels = self.node.inputs
        attrs = self.node.attrs
        self.kernel, self.before, self.dilation = attrs["kernel"], attrs["before"], attrs["dilation"]
        self.batch, *self.places, self.outer = fixed_inside("taps_product", self.g.shape)
        _, *self.shape, self.channels = fixed_inside("taps_product", self.out.shape)
        self.count, _, self.width = fixed("taps_product", self.panels.shape)
        self.image = Dim.symbol("p", 0, below=self.batch)

    def lower(self) -> Launch:
        """The launch over all images."""
        rows = math.prod(self.places)
        self.alloc("products", rows * self.count * self.width)
        z = Dim.symbol("z", 0, below=math.prod(self.shape) * self.channels)
        clear = Store(self.puller.buffer(self.out, "inout"), self.offset() + z, self.zero)
        body = [For("z", math.prod(self.shape) * self.channels, "vector", (clear,)), *self.products(), self.added()]
        work = rows * self.count * self.width * (self.outer + 8) / 8
        return self.finished(self.batch, body, work, "products with a kernel, added")

    def products(self) -> list[Stmt]:
        """Of all places with all of the kernel, in scratch [places, P * width]."""
        rows = math.prod(self.places)
        most = largest_tile(self.lanes, self.width)
        height = rows_of_tiles(rows, most.rows)
        body: list[Stmt] = []
        for column in range(0, self.width, most.columns):
            columns = min(most.columns, self.width - column)
            u = Dim.symbol("u", 0, below=rows // height)
            body.append(For("u", rows // height, "serial", tuple(self.one(height, u * height, columns, column))))
            if rows % height:
                body.extend(self.one(rows % height, rows // height * height, columns, column))
        return [*self.gradients(), For("q", self.count, "serial", tuple(body))]

    def gradients(self) -> list[Stmt]:
        """The image's gradients in scratch, where they are not in memory."""
        if is_stored(self.g):
            return []
        rows = math.prod(self.places)
        self.alloc("gradients", rows * self.outer)
        y, k = Dim.symbol("y", 0, below=rows), Dim.symbol("k", 0, below=self.outer)
        block = Block(self.puller.names)
        index = (self.image, *delinear(y, tuple(self.places)), k)
        block.add(Store("gradients", y * self.outer + k, block.let(cast(self.puller.pull(self.g, index, block), self.dtype))))
        return [For("y", rows, "serial", (For("k", self.outer, "vector", tuple(block.statements)),))]

    def one(self, height: int, row: Size, columns: int, column: int) -> list[Stmt]:
        """One register tile: products of `height` places with `columns` columns of the panel ``q``."""
        q, k = Dim.symbol("q", 0, below=self.count), Dim.symbol("k", 0, below=self.outer)
        i, j = Dim.symbol("i", 0, high=height - 1), Dim.symbol("j", 0, high=columns - 1)
        a, start = "gradients", (row + i) * self.outer + k
        if is_stored(self.g):
            a, start = self.puller.buffer(self.g, "in"), start + self.image * (math.prod(self.places) * self.outer)
        there = (row + i) * (self.count * self.width) + q * self.width + column + j

        def kept(total: Load, block: Block) -> None:
            block.add(Store("products", there, total))

        return self.tile(height, columns, (a, start), (self.panels, (q, k, column + j)), [("k", self.outer)], kept)

    def added(self) -> Stmt:
        """The products, added to the image, one element of the kernel after the other."""
        c = Dim.symbol("c", 0, below=self.channels)
        tap: Size = 0
        place: Size = 0
        at: Size = 0
        loops: list[tuple[str, Size]] = []
        inner: list[tuple[str, Size]] = []
        sizes = zip(self.kernel, self.places, self.shape, self.before, self.dilation, strict=True)
        for dim, (kernel, places, size, before, dilation) in enumerate(sizes):
            r = Dim.symbol(f"r{dim}", 0, below=kernel)
            first = before - r * dilation  # the place whose product with this element belongs to element 0
            low = maximum(0, first)
            many = maximum(0, minimum(places, size + first) - low)
            y = low + Dim.symbol(f"y{dim}", 0, below=many)
            loops.append((f"r{dim}", kernel))
            inner.append((f"y{dim}", many))
            tap, place, at = tap * kernel + r, place * places + y, at * size + y - first
        product = Load("products", place * (self.count * self.width) + tap * self.channels + c, self.dtype)
        name, there = self.puller.buffer(self.out, "inout"), self.offset() + at * self.channels + c
        total = Call("add", (Load(name, there, self.dtype), product), self.dtype)
        body: Stmt = For("c", self.channels, "vector", (Store(name, there, total),))
        for var, extent in reversed([*loops, *inner]):
            body = For(var, extent, "serial", (body,))
        return body

    def offset(self) -> Size:
        """Where the unit's image begins."""
        start: Size = self.image * (math.prod(self.shape) * self.channels)
        return start
