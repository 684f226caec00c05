"""The nests of Winograd's convolution: the filters' transform, and images through it.

Enters: a group whose anchor is `winograd` or `winograd_filters`.  Leaves: its `Launch`.  Never here: which convolutions are made
this way (`ops.convolution_last`).

Results come in squares of two by two, each from four by four elements of input, its patch.  A unit is a block of patches by a few
panels of channels.  The patches' transforms go to scratch, 16 numbers each; 16 products with the transformed filters, in
register tiles as in a direct convolution, go to scratch too, and are transformed back into squares.  Where input channels are many
they come in blocks, and the chains of fma go on from one block to the next, so blocks never show in the bits.
Source: Lavin and Gray, "Fast algorithms for convolutional neural networks" (2016).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from graphc.dims import Dim, is_equal, maximum, minimum
from graphc.ir.loops import Call, Const, Expr, For, Load, Prefetch, Size, Stmt, Store
from graphc.ops.windows import fixed, fixed_inside
from graphc.schedule.convolution import Tiles
from graphc.schedule.lower import Context, Launch, assumed
from graphc.schedule.matmul import LINE_NBYTES, largest_tile, lower_tiles, rows_of_tiles
from graphc.schedule.partition import Group
from graphc.schedule.pull import Block, cast

POINTS = 16  # products of a patch
MOST_PATCHES = 32  # of a unit
WHOLE_PATCHES = 56  # of a unit that is a whole image
BLOCK_NBYTES = 5 << 16  # of transformed patches
CHUNK = 64  # channels that are transformed while their patches are in the nearest cache
MOST_PANELS = 4  # of a unit: the patches are transformed again for others
LEAST_UNITS = 14  # so many are shared out evenly

Line = list[Expr]


def winograd(group: Group, context: Context) -> list[Launch]:
    """[N, H, W, C], [groups, 16, P, C / groups, width] -> [N, *places, O]."""
    return [_Winograd(group, context).lower()]


def winograd_filters(group: Group, context: Context) -> list[Launch]:
    """[groups, 3, 3, C, O] -> [groups, 16, P, C, width]."""
    return [_Filters(group, context).lower()]


class _Transforms(Tiles):
    """Linear maps of small squares."""

    def mapped(self, square: list[Line], one: Callable[[Line, Block], Line], block: Block) -> list[Line]:
        """`one` applied to the columns, then to the rows."""
        columns = [one([row[i] for row in square], block) for i in range(len(square[0]))]
        return [one([column[i] for column in columns], block) for i in range(len(columns[0]))]

    def sum(self, a: Expr, b: Expr, block: Block) -> Expr:
        return block.let(Call("add", (a, b), self.dtype))

    def difference(self, a: Expr, b: Expr, block: Block) -> Expr:
        return block.let(Call("sub", (a, b), self.dtype))

    def patch(self, d: Line, block: Block) -> Line:
        """Four elements of input."""
        outer = self.difference(d[0], d[2], block), self.difference(d[1], d[3], block)
        return [outer[0], self.sum(d[1], d[2], block), self.difference(d[2], d[1], block), outer[1]]

    def filter(self, g: Line, block: Block) -> Line:
        """Three elements of a filter."""
        half = Const(0.5, self.dtype)
        ends = self.sum(g[0], g[2], block)
        both = self.sum(ends, g[1], block), self.difference(ends, g[1], block)
        return [g[0], *(block.let(Call("mul", (half, each), self.dtype)) for each in both), g[2]]

    def result(self, m: Line, block: Block) -> Line:
        """Four products."""
        first = self.sum(self.sum(m[0], m[1], block), m[2], block)
        return [first, self.difference(self.difference(m[1], m[2], block), m[3], block)]


class _Filters(_Transforms):
    def __init__(self, group: Group, context: Context) -> None:
        super().__init__(group, context)
        (self.weight,) = self.node.inputs
        self.groups, _, _, self.inner, self.outer = fixed("winograd_filters", self.weight.shape)
        *_, self.count, _, self.width = fixed("winograd_filters", self.out.shape)

    def lower(self) -> Launch:
        """A unit is an input channel's row of one panel; columns beyond the last are copies of it, which nobody reads."""
        extent = self.groups * self.count * self.inner
        p = Dim.symbol("p", 0, below=extent)
        group, panel, channel = p // self.inner // self.count, (p // self.inner) % self.count, p % self.inner
        j = Dim.symbol("j", 0, high=self.width - 1)
        column = panel * self.width + j
        if self.outer % self.width:
            column = minimum(column, self.outer - 1)
        block = Block(self.puller.names)
        square: list[Line] = []
        for row in range(3):
            pulled = [self.puller.pull(self.weight, (group, row, k, channel, column), block) for k in range(3)]
            square.append([block.let(cast(element, self.dtype)) for element in pulled])
        name = self.puller.buffer(self.out, "out")
        for i, line in enumerate(self.mapped(square, self.filter, block)):
            for k, element in enumerate(line):
                there = (((group * POINTS + 4 * i + k) * self.count + panel) * self.inner + channel) * self.width + j
                block.add(Store(name, there, element))
        body = For("j", self.width, "tile", tuple(block.statements))
        return self.finished(extent, [body], 8.0 * self.width, "filters for Winograd's convolution")


class _Winograd(_Transforms):
    def __init__(self, group: Group, context: Context) -> None:
        super().__init__(group, context)
        self.x, self.filters = self.node.inputs
        self.before, self.groups = self.node.attrs["before"], self.node.attrs["groups"]
        self.batch, *self.sizes, channels = fixed_inside("winograd", self.x.shape)
        _, *self.places, outer = fixed_inside("winograd", self.out.shape)
        self.channels, self.outer = channels // self.groups, outer // self.groups
        _, _, self.count, _, self.width = fixed("winograd", self.filters.shape)
        self.shape_units()

    # ---- sizes -----------------------------------------------------------------------------------------------------

    def shape_units(self) -> None:
        """Patches, channels and panels of a unit, such that what it goes over again and again stays in the second cache."""
        down, self.across = (-(-size // 2) for size in self.places)
        self.images = max(1, MOST_PATCHES // (down * self.across))
        if isinstance(self.batch, int):
            self.images = max(1, min(self.batch, self.images))
        most = max(1, MOST_PATCHES // self.across)
        rows = min(range(min(most, down), most // 2, -1), key=lambda many: -(-down // many) * many, default=down)
        whole = down * self.across <= WHOLE_PATCHES and down % rows != 0  # else the last band would be of patches outside
        bands = 1 if whole else -(-down // rows)
        self.rows = -(-down // bands)
        self.bands = -(-down // self.rows)
        self.patches = self.images * self.rows * self.across
        self.chunk = CHUNK if self.channels % CHUNK == 0 else self.channels
        chunks = self.channels // self.chunk
        most = max(1, BLOCK_NBYTES // (POINTS * self.patches * self.chunk * self.dtype.itemsize))
        self.chunks = next(k for k in range(min(most, chunks), 0, -1) if chunks % k == 0)
        self.depth = self.chunks * self.chunk
        self.blocks: Size = (self.batch + self.images - 1) // self.images * self.bands
        blocks = -(-assumed(self.batch) // self.images) * self.bands
        self.each = min(self.count, MOST_PANELS if self.patches <= MOST_PATCHES else MOST_PANELS // 2)
        while self.each > 2 and blocks * self.groups * -(-self.count // self.each) < LEAST_UNITS:
            self.each = -(-self.each // 2)
        self.parts = -(-self.count // self.each)
        most_tile = largest_tile(self.lanes, self.width)
        self.columns = most_tile.columns if self.width % most_tile.columns == 0 else self.width
        self.tall = rows_of_tiles(self.patches, most_tile.rows)

    # ---- the unit --------------------------------------------------------------------------------------------------

    def lower(self) -> Launch:
        extent = self.groups * self.parts * self.blocks
        p = Dim.symbol("p", 0, below=extent)
        block = p % self.blocks
        self.first_row: Size = (block % self.bands) * self.rows
        self.first_image: Size = block // self.bands * self.images
        self.panel: Size = (p // self.blocks) % self.parts * self.each
        self.block: Size = p // self.blocks // self.parts
        self.alloc("patches", POINTS * self.patches * self.depth)
        self.alloc("products", POINTS * self.patches * self.each * self.width)
        down = 2 * self.rows + 2
        self.alloc("under", down * (2 * self.across + 2) * self.chunk)
        whole = self.images == 1 or (isinstance(self.batch, int) and self.batch % self.images == 0)
        self.many: Size = self.images if whole else minimum(self.images, self.batch - self.first_image)
        body = [*self.transforms(), *self.multiply()]
        if self.depth < self.channels:
            body = [self.cleared(), For("b", self.channels // self.depth, "serial", tuple(body))]
        work = POINTS * self.patches * self.channels * self.each * self.width / 8
        return self.finished(extent, [*body, *self.squares()], work, "Winograd's convolution")

    def cleared(self) -> Stmt:
        """Zeros in the products of the patches that there are."""
        patch = self.each * self.width
        used = self.many * (self.rows * self.across * patch)
        z = Dim.symbol("h", 0, below=POINTS) * (self.patches * patch) + Dim.symbol("z", 0, below=used)
        return For("h", POINTS, "serial", (For("z", used, "vector", (Store("products", z, self.zero),)),))

    def transforms(self) -> list[Stmt]:
        """The transforms of the patches' channels of one block, to scratch [16, patches, depth]."""
        first = Dim.symbol("b", 0, below=self.channels // self.depth) * self.depth if self.depth < self.channels else 0
        image, chunk = Dim.symbol("a", 0, below=self.many), Dim.symbol("f", 0, below=self.chunks) * self.chunk
        wide = 2 * self.across + 2
        index = (
            self.first_image + image,
            2 * self.first_row - self.before[0],
            -self.before[1],
            self.block * self.channels + first + chunk,
        )
        frame = self.framed(self.x, index, (2 * self.rows + 2, wide, self.chunk), "under")
        y, x = Dim.symbol("y", 0, below=self.rows), Dim.symbol("x", 0, below=self.across)
        c = Dim.symbol("c", 0, below=self.chunk)
        block = Block(self.puller.names)
        square: list[Line] = []
        for i in range(4):
            places = [((2 * y + i) * wide + 2 * x + k) * self.chunk + c for k in range(4)]
            square.append([block.let(Load("under", place, self.dtype)) for place in places])
        patch = (image * self.rows + y) * self.across + x
        for i, line in enumerate(self.mapped(square, self.patch, block)):
            for k, element in enumerate(line):
                block.add(Store("patches", ((4 * i + k) * self.patches + patch) * self.depth + chunk + c, element))
        body: Stmt = For("c", self.chunk, "vector", tuple(block.statements))
        for var, extent in (("x", self.across), ("y", self.rows)):
            body = For(var, extent, "serial", (body,))
        return [For("a", self.many, "serial", (For("f", self.chunks, "serial", (*frame, body)),))]

    def multiply(self) -> list[Stmt]:
        """The 16 products, to scratch [16, patches, channels of the unit]."""
        point, q = Dim.symbol("h", 0, below=POINTS), Dim.symbol("q", 0, below=self.each)
        first = Dim.symbol("b", 0, below=self.channels // self.depth) * self.depth if self.depth < self.channels else 0
        k = Dim.symbol("k", 0, below=self.depth)
        panels = self.panels()
        outer = self.each * self.width
        inner: list[Stmt] = []
        for column in range(0, self.width, self.columns):
            for tall, count, start, ahead in self.tiles():
                i, j = Dim.symbol("i", 0, high=tall - 1), column + Dim.symbol("j", 0, high=self.columns - 1)
                w = Dim.symbol("w", 0, below=count)
                row = start + w * tall + i
                a = (point * self.patches + row) * self.depth + k
                at = (self.block, point, self.panel + q, first + k)
                to = (point * self.patches + row) * outer + q * self.width + j

                def kept(total: Load, block: Block, to: Size = to) -> None:
                    block.add(Store("products", to, total))

                made = self.tile(
                    tall,
                    self.columns,
                    ("patches", a),
                    (self.filters, (*at, j)),
                    [("k", self.depth)],
                    kept,
                    ("products", to) if self.depth < self.channels else None,
                    self.ahead(column, ahead),
                )
                inner.append(For("w", count, "serial", tuple(made)))
        return [For("h", POINTS, "serial", (For("q", panels, "serial", tuple(inner)),))]

    def tiles(self) -> Iterator[tuple[int, Size, Size, Size]]:
        """The register tiles of a column: (rows, how many, first row, how many of them ask for the next product's filters)."""
        if isinstance(self.many, int):
            full, rest = divmod(self.patches, self.tall)
            if full:
                yield self.tall, full, 0, full
            if rest:
                yield rest, 1, full * self.tall, 0
            return
        each = self.rows * self.across
        patches = self.many * each
        whole = patches // self.tall
        yield self.tall, whole, 0, 1
        for rows, count, start in lower_tiles(patches % self.tall, self.tall, math.gcd(each, self.tall)):
            yield rows, count, whole * self.tall + start, is_equal(whole, 0)

    def ahead(self, column: int, many: Size) -> list[Stmt]:
        """The filters of the next product, asked for while this one is made: they come from memory.

        many: tiles of a column that do so: all of a known number; of an open one the first, or none.
        """
        if many == 0:
            return []
        known = many if isinstance(many, int) else 1
        point, q = Dim.symbol("h", 0, below=POINTS), Dim.symbol("q", 0, below=self.each) + 1
        first = Dim.symbol("b", 0, below=self.channels // self.depth) * self.depth if self.depth < self.channels else 0
        place = self.loaded(self.filters, (self.block, point + q // self.each, self.panel + q % self.each, first, 0))
        if place is None:
            return []
        line = LINE_NBYTES // self.dtype.itemsize
        steps = known * (self.width // self.columns)  # over a panel, each of as many links as it has rows
        each = -(-self.width // (line * steps))
        w, k = Dim.symbol("w", 0, below=known) if known > 1 else 0, Dim.symbol("k", 0, below=self.depth)
        link = ((column // self.columns * known + w) * self.depth + k) * each
        lines = [(link + i) * self.width // (line * steps * each) for i in range(each)]
        asked = tuple(Prefetch(place[0], place[1] + number * line, self.dtype) for number in lines)
        if isinstance(self.many, int):
            return list(asked)
        return [For("z", maximum(0, many - Dim.symbol("w", 0)), "serial", asked)]

    def panels(self) -> Size:
        return self.each if self.count % self.each == 0 else minimum(self.each, self.count - self.panel)

    def squares(self) -> list[Stmt]:
        """The squares of one row of patches after the other, and from them the results."""
        outer, wide = self.each * self.width, 2 * self.across
        self.alloc("result", 2 * wide * outer)
        first = self.panel * self.width
        valid: Size = minimum(outer, self.outer - first) if self.outer % outer else outer
        image, y = Dim.symbol("a", 0, below=self.many), Dim.symbol("y", 0, below=self.rows)
        x, o = Dim.symbol("x", 0, below=self.across), Dim.symbol("o", 0, below=valid)
        block = Block(self.puller.names)
        patch = (image * self.rows + y) * self.across + x
        square: list[Line] = [
            [block.let(Load("products", ((4 * i + k) * self.patches + patch) * outer + o, self.dtype)) for k in range(4)]
            for i in range(4)
        ]
        for i, line in enumerate(self.mapped(square, self.result, block)):
            for k, element in enumerate(line):
                block.add(Store("result", (i * wide + 2 * x + k) * outer + o, element))
        made = For("x", self.across, "serial", (For("o", valid, "vector", tuple(block.statements)),))
        return [For("a", self.many, "serial", (For("y", self.rows, "serial", (made, self.stored(image, y, valid))),))]

    def stored(self, image: Size, y: Size, valid: Size) -> Stmt:
        """What lies inside the result, through the epilogue."""
        row = 2 * (self.first_row + y)
        even = self.places[0] % 2 == 0 and self.bands * self.rows * 2 == self.places[0]
        rows: Size = 2 if even else maximum(0, minimum(2, self.places[0] - row))
        e, f = Dim.symbol("e", 0, below=rows), Dim.symbol("f", 0, below=self.places[1])
        o = Dim.symbol("o", 0, below=valid)
        block = Block(self.puller.names)
        result = Load("result", (e * 2 * self.across + f) * (self.each * self.width) + o, self.dtype)
        channel = self.block * self.outer + self.panel * self.width + o
        self.epilogue(result, (self.first_image + image, row + e, f, channel), block)
        body: Sequence[Stmt] = (For("f", self.places[1], "serial", (For("o", valid, "vector", tuple(block.statements)),)),)
        return For("e", rows, "serial", tuple(body))
