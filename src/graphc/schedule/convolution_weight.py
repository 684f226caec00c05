"""The nest of a convolution's weight gradient, channels last.

Enters: a group whose anchor is `convolution_weight_sums`.  Leaves: its `Launch`.  Never here: what is computed, and in which order
(`ops.convolution_weight_last`).

The result is a matrix of the kernel's elements and input channels by output channels.  A unit is some of its rows and columns, or
all of them for one part of the batch; it goes over all places, block by block, so that units share nothing.  In a block, register
tiles of rows by columns run over the places: what a row needs is one element of the input a place, and what the columns need is a
few neighbours of the gradient, so nothing is packed.  Where nothing was padded, a row of the kernel meets neighbours in memory, and
its elements are rows beside the channels.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.dims import Dim, maximum, minimum
from graphc.ir.graph import Value
from graphc.ir.loops import Call, Expr, For, Index, Let, Load, Size, Stmt, Store, Var
from graphc.ops.convolution_weight_last import LEAST_OF_ONE, block_of
from graphc.ops.windows import fixed_inside
from graphc.schedule.convolution import Tiles
from graphc.schedule.lower import Context, Launch, assumed
from graphc.schedule.matmul import largest_tile, rows_of_tiles
from graphc.schedule.partition import Group, is_stored
from graphc.schedule.pull import Block, Position, free_symbols, multiply_add

UNITS = 16  # so many are shared out evenly
PIECES = 4  # of a part, where all of an open batch may be one part
PANEL = 32  # columns of a tile where registers are wide


def convolution_weight(group: Group, context: Context) -> list[Launch]:
    """[N, *places, O], [N, *sizes, C] -> [parts, *kernel, C, O]."""
    return [_Weight(group, context).lower()]


def _pair(sizes: tuple[int, ...], missing: int) -> tuple[int, int]:
    """One or two numbers as two: a line is an image of one row."""
    first, second = (*(missing,) * (2 - len(sizes)), *sizes)
    return first, second


class _Weight(Tiles):
    outer: int
    channels: int

    def __init__(self, group: Group, context: Context) -> None:
        super().__init__(group, context)
        self.g, self.x = self.node.inputs
        attrs = self.node.attrs
        self.kernel, self.stride, self.dilation = (_pair(attrs[name], 1) for name in ("kernel", "stride", "dilation"))
        self.before = _pair(attrs["before"], 0)
        self.batch, *places, self.outer = fixed_inside("convolution_weight", self.g.shape)
        _, *sizes, self.channels = fixed_inside("convolution_weight", self.x.shape)
        self.places, self.sizes, self.rank = _pair(tuple(places), 1), _pair(tuple(sizes), 1), len(sizes)
        reach = (self.places[1] - 1) * self.stride[1] + self.kernel[1] - self.before[1]
        self.joined = self.dilation[1] == 1 and not self.before[1] and reach <= self.sizes[1] and is_stored(self.x)
        self.parts: int = attrs["parts"]
        self.part_images: Size = attrs["images"]
        self.open = not isinstance(self.batch, int)
        self.rows = self.channels * (self.kernel[1] if self.joined else 1)
        most = largest_tile(context.lanes, PANEL)
        self.width = min(most.columns, self.outer)
        self.height = rows_of_tiles(self.rows, most.rows)
        self.shape_units()

    def shape_units(self) -> None:
        """How many tiles down and across are a unit's."""
        self.taps = self.kernel[0] * (1 if self.joined else self.kernel[1])
        self.down, self.across = -(-self.rows // self.height), -(-self.outer // self.width)
        self.each_down, self.each_across = self.down, self.across
        self.apart = self.parts == 1 or (self.open and self.rows * self.taps * self.outer > LEAST_OF_ONE)
        least = UNITS if self.parts == 1 else PIECES * self.parts
        while self.apart and self.units() < least and (self.each_down > 1 or self.each_across > 1):
            if self.each_across > 1:
                self.each_across = -(-self.each_across // 2)
            else:
                self.each_down = -(-self.each_down // 2)

    def units(self) -> int:
        pieces = -(-self.down // self.each_down) * -(-self.across // self.each_across)
        return pieces * (self.parts if self.parts > 1 else self.taps)

    # ---- the unit --------------------------------------------------------------------------------------------------

    def lower(self) -> Launch:
        extent = self.units()
        p = Dim.symbol("p", 0, below=extent)
        strips, groups = -(-self.across // self.each_across), -(-self.down // self.each_down)
        self.part: Size = p // (strips * groups) if self.parts > 1 else 0
        tap: Size = Dim.symbol("t", 0, below=self.taps)
        self.first_column: Size = 0
        self.first_row: Size = 0
        if self.apart:
            self.first_column = (p % strips) * (self.each_across * self.width)
            self.first_row = ((p // strips) % groups) * (self.each_down * self.height)
        if self.parts == 1:
            tap = p // (strips * groups)
        self.tap: tuple[Size, Size] = (tap, 0) if self.joined else (tap // self.kernel[1], tap % self.kernel[1])
        body = [self.clear_result(), self.over_places()]
        if self.parts > 1:
            body[0] = For("t", self.taps, "serial", (body[0],))
        places = assumed(self.part_images) * self.places[0] * self.places[1] * (self.taps if self.parts > 1 else 1)
        work = places * self.each_down * self.height * self.each_across * self.width / 8
        return self.finished(extent, body, work, "convolution, its weight")

    def over_places(self) -> Stmt:
        """All tiles of the unit, block by block."""
        images, high = block_of(self.part_images, *self.places)
        end = self.batch if self.parts == 1 else minimum(self.batch, (self.part + 1) * self.part_images)
        rest = end - self.part * self.part_images
        if not self.fills_parts():
            rest = maximum(0, rest)
        blocks = (rest + images - 1) // images
        n, band = Dim.symbol("n", 0, below=blocks), Dim.symbol("b", 0, below=-(-self.places[0] // high))
        self.first_image: Size = self.part * self.part_images + n * images
        whole = not self.open and self.batch % self.part_images == 0 and self.part_images % images == 0
        self.images: Size = images if whole else minimum(images, end - self.first_image)
        self.first_place, self.high = low, most = self.met(0)
        if self.places[0] > high:
            self.first_place = maximum(low, band * high)
            self.high = maximum(0, minimum(low + most, band * high + high) - self.first_place)
        body: tuple[Stmt, ...] = tuple(self.tiles())
        if self.parts > 1:
            body = (For("t", self.taps, "serial", body),)
        if self.places[0] > high:
            body = (For("b", -(-self.places[0] // high), "serial", body),)
        return For("n", blocks, "serial", body)

    def fills_parts(self) -> bool:
        """Whether every part is known to have an image."""
        if self.open:
            return self.parts == 1
        return isinstance(self.part_images, int) and (self.parts - 1) * self.part_images < self.batch

    def met(self, dim: int) -> tuple[Size, Size]:
        """The first place at which the unit's element of the kernel meets the input along a dim, and how many there are."""
        size, places = self.sizes[dim], self.places[dim]
        s, b, d, k = self.stride[dim], self.before[dim], self.dilation[dim], self.kernel[dim]
        if (dim == 1 and self.joined) or (b == 0 and (places - 1) * s + d * (k - 1) < size):
            return 0, places
        at = self.tap[dim] * d - b  # of the input, under place 0
        low = maximum(0, (s - 1 - at) // s)
        return low, maximum(0, minimum(places, (size - 1 - at) // s + 1) - low)

    def result_at(self, row: Size, column: Size) -> Size:
        across = self.tap[0] if self.joined else self.tap[0] * self.kernel[1] + self.tap[1]
        return ((self.part * self.taps + across) * self.rows + row) * self.outer + column

    def strips(self) -> tuple[Size, Size]:
        """How many rows and columns of the result are the unit's."""
        rows: Size = self.each_down * self.height
        columns: Size = self.each_across * self.width
        rows = rows if self.rows % (self.each_down * self.height) == 0 else minimum(rows, self.rows - self.first_row)
        columns = columns if self.outer % (self.each_across * self.width) == 0 else minimum(columns, self.outer - self.first_column)
        return rows, columns

    def clear_result(self) -> Stmt:
        rows, columns = self.strips()
        i, j = Dim.symbol("i", 0, below=rows), Dim.symbol("j", 0, below=columns)
        at = self.result_at(self.first_row + i, self.first_column + j)
        store = Store(self.puller.buffer(self.out, "inout"), at, self.zero)
        return For("i", rows, "serial", (For("j", columns, "vector", (store,)),))

    def tiles(self) -> list[Stmt]:
        """Every tile of the unit: whole ones, then what is left at the right and at the end."""
        rows, columns = self.strips()
        statements: list[Stmt] = []
        for down, height in self.cut(rows, self.height, self.rows):
            for across, width in self.cut(columns, self.width, self.outer):
                u, v = Dim.symbol("u", 0, below=down[1]), Dim.symbol("v", 0, below=across[1])
                row, column = down[0] + u * height, across[0] + v * width
                inner = self.one(height, width, self.first_row + row, self.first_column + column)
                statements.append(For("u", down[1], "serial", (For("v", across[1], "serial", tuple(inner)),)))
        return statements

    @staticmethod
    def cut(length: Size, step: int, whole: int) -> list[tuple[tuple[Size, Size], int]]:
        """((where they start, how many there are), how long they are) of the pieces of a unit's rows or columns."""
        full, rest = length // step, whole % step
        found: list[tuple[tuple[Size, Size], int]] = [((0, full), step)] if full != 0 else []
        if rest:
            count: Size = (length % step + rest - 1) // rest if not isinstance(length, int) else 1
            found.append(((full * step, count), rest))
        return found

    def neighbours(self, value: Value, at: Position, start: Size, block: Block) -> Callable[[Size, Block], Expr]:
        """What gives the element of a value `k` after the one at ``(*at, start)``, where the value's elements lie in a row."""
        if not is_stored(value):
            return lambda k, inner: inner.let(self.puller.pull(value, (*at, start + k), inner))
        base = block.let(Index(self.puller.offset(value, (*at, 0)) + start))
        assert isinstance(base, Var)
        return lambda k, inner: inner.let(Load(self.puller.buffer(value, "in"), Dim.symbol(base.name) + k, self.dtype))

    def one(self, height: int, width: int, row: Size, column: Size) -> list[Stmt]:
        """One tile over the places of a block, added to the result."""
        name = self.alloc(f"sums{height}x{width}", height * width, registers=True)
        i, j = Dim.symbol("i", 0, high=height - 1), Dim.symbol("j", 0, high=width - 1)
        at = i * width + j
        low, many = self.met(1)
        m, y, z = Dim.symbol("m", 0, below=self.images), Dim.symbol("y", 0, below=self.high), Dim.symbol("z", 0, below=many)
        image, place = self.first_image + m, (self.first_place + y, low + z)
        under = [q * s + t * d - b for q, s, t, d, b in zip(place, self.stride, self.tap, self.dilation, self.before, strict=True)]
        outer = Block(self.puller.names)
        left = self.neighbours(self.x, (image, *under[2 - self.rank :]), row, outer)(i, outer)
        element = self.neighbours(self.g, (image, *place[2 - self.rank :]), column, outer)
        inner = outer.inner()
        right = element(j, inner)
        inner.add(Store(name, at, multiply_add(left, right, Load(name, at, self.dtype))))

        def over(before: list[Stmt], body: list[Stmt]) -> Stmt:
            return For("i", height, "unroll", (*before, For("j", width, "tile", tuple(body))))

        steps = [s for s in outer.statements if isinstance(s, Let) and "i" not in free_symbols(s)]  # once a place
        rest = [s for s in outer.statements if s not in steps]
        chain = over(rest, inner.statements)
        extents: list[tuple[str, Size]] = [("z", many), ("y", self.high), ("m", self.images)]
        chain = For(*extents.pop(0), "serial", (*steps, chain))
        for var, extent in extents:
            chain = For(var, extent, "serial", (chain,))
        begin = Block(self.puller.names)
        corner = begin.let(Index(self.result_at(row, column)))
        assert isinstance(corner, Var)
        out, there = self.puller.buffer(self.out, "inout"), Dim.symbol(corner.name) + i * self.outer + j
        total = Call("add", (Load(out, there, self.dtype), Load(name, at, self.dtype)), self.dtype)
        return [*begin.statements, over([], [Store(name, at, self.zero)]), chain, over([], [Store(out, there, total)])]
