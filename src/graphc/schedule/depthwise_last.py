"""The nest of a depthwise convolution of images with their channels last.

Enters: a group whose anchor is `depthwise_last`.  Leaves: its `Launch`.  Never here: what is computed (`ops.depthwise`), other
orders of dims (`schedule.depthwise`).

A unit is a band of rows of one image, or, where a row is one tile, all rows of a few vectors of channels, for which the rows under
the kernel stay in the nearest cache.  A few places of a row by one vector of channels are summed in registers, one fma chain each
over the kernel from zero.  What is outside an image is never read: its rows and columns are zeros in the chain, written out so.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.dims import Dim, maximum, minimum
from graphc.ir.loops import Expr, For, Load, Size, Stmt, Store
from graphc.ops.windows import fixed, fixed_inside
from graphc.schedule.convolution import Tiles
from graphc.schedule.lower import Context, Launch, assumed
from graphc.schedule.partition import Group
from graphc.schedule.pull import Block, multiply_add

WIDE, NARROW = 14, 6  # most places of a tile where there are 32 registers of 64 bytes, and where there are 16
MOST_CHANNELS = 16  # of a tile
MOST_UNITS = 24  # so many are shared out evenly
LEAST_WORK = 1 << 13  # of a unit, in operations


def depthwise_last(group: Group, context: Context) -> list[Launch]:
    """[N, H, W, C], [*kernel, C] -> [N, *places, C]."""
    if group.before is not None:
        from graphc.schedule.expansion import Expanded

        return [Expanded(group, context).lower()]
    return [Depthwise(group, context).lower()]


class Depthwise(Tiles):
    """What a unit of a depthwise convolution does."""

    channels: int
    places: list[int]

    def __init__(self, group: Group, context: Context) -> None:
        super().__init__(group, context)
        self.x, self.weight = self.node.inputs
        self.stride, self.before, self.dilation = (self.node.attrs[name] for name in ("stride", "before", "dilation"))
        self.batch, *self.sizes, self.channels = fixed_inside("depthwise_last", self.x.shape)
        _, *self.places, _ = fixed_inside("depthwise_last", self.out.shape)
        *self.kernel, _ = fixed("depthwise_last", self.weight.shape)
        self.vector = min(self.channels, MOST_CHANNELS, max(self.lanes, 4))
        self.most = WIDE if self.lanes >= MOST_CHANNELS else NARROW

    @property
    def work(self) -> float:
        """Of one image."""
        return self.places[0] * self.places[1] * self.channels * (self.kernel[0] * self.kernel[1] + 4) / 8

    def parts(self, whole: int) -> int:
        """Into how many parts `whole` of them are cut: an even number of equal ones, if that is not far from as many as can be."""
        most = int(max(1, min(whole, MOST_UNITS / assumed(self.batch), self.work // LEAST_WORK)))
        equal = [n for n in range(most, most // 3, -1) if whole % n == 0]
        even = [n for n in equal if n % 2 == 0]
        return (even or equal or [-(-whole // -(-whole // most))])[0]

    def lower(self) -> Launch:
        """The launch over all units."""
        blocks, high = self.channels // self.vector, self.places[0]
        narrow = self.places[1] <= self.most and self.channels % self.vector == 0
        parts = self.parts(blocks) if narrow else 0
        if parts and blocks % parts == 0 and 2 * parts >= self.parts(high):
            return self.by_channels(parts, blocks // parts)
        parts = self.parts(high)
        each = -(-high // parts)
        p = Dim.symbol("p", 0, below=self.batch * parts)
        self.image, first = p // parts, (p % parts) * each
        rows: Size = each if high % each == 0 else minimum(each, high - first)
        self.row = first + Dim.symbol("y", 0, below=rows)
        self.top = self.row * self.stride[0] - self.before[0]
        return self.shared(parts, For("y", rows, "serial", tuple(self.line())))

    def by_channels(self, parts: int, each: int) -> Launch:
        """A unit is so many vectors of channels of one image."""
        p = Dim.symbol("p", 0, below=self.batch * parts)
        self.image, first = p // parts, (p % parts) * each
        self.row = Dim.symbol("y", 0, below=self.places[0])
        self.top = self.row * self.stride[0] - self.before[0]
        channel = (first + Dim.symbol("c", 0, below=each)) * self.vector
        tile = self.tile_of(self.places[1], self.vector, 0, channel, 0)
        return self.shared(parts, For("c", each, "serial", (For("y", self.places[0], "serial", tuple(tile)),)))

    def shared(self, parts: int, body: Stmt) -> Launch:
        return self.finished(self.batch * parts, [body], self.work / parts, "depthwise convolution, channels last")

    def line(self) -> list[Stmt]:
        """A row of places: those where the kernel is inside the image in a loop over tiles, the few beside them apart."""
        most, count = self.most, self.places[1]
        beside = [place for place in range(count) if self.outside(place, 1)] if count > most else []
        inside = [place for place in range(count) if place not in beside]
        statements: list[Stmt] = []
        first, last = (inside[0], inside[-1] + 1) if inside else (count, count)
        for begin, end in ((0, first), (first, last), (last, count)):
            wide = self.even(end - begin, most)
            pieces, rest = divmod(end - begin, wide)
            loops = [(begin, pieces)] if begin == first else [(begin + k * wide, 1) for k in range(pieces)]
            for start, many in loops:
                at = start + Dim.symbol("w", 0, below=many) * wide
                statements.append(For("w", many, "serial", tuple(self.piece(wide, at, start))))
            if rest:
                statements.extend(self.piece(rest, end - rest, end - rest))
        return statements

    @staticmethod
    def even(count: int, most: int) -> int:
        """Places of a tile: such that nothing is left over, if they are not too few."""
        return next((wide for wide in range(most, most // 2, -1) if count % wide == 0), most) if count > most else max(1, count)

    def outside(self, start: int, wide: int) -> set[tuple[int, int]]:
        """(place, column of the kernel) of a tile that meet outside the image."""
        return {
            (i, m)
            for i in range(wide)
            for m in range(self.kernel[1])
            if not 0 <= (start + i) * self.stride[1] + m * self.dilation[1] - self.before[1] < self.sizes[1]
        }

    def piece(self, wide: int, column: Size, start: int) -> list[Stmt]:
        """A tile of places, all channels."""
        blocks, rest = divmod(self.channels, self.vector)
        c = Dim.symbol("c", 0, below=blocks)
        loop = For("c", blocks, "serial", tuple(self.tile_of(wide, self.vector, column, c * self.vector, start)))
        return [loop, *(self.tile_of(wide, rest, column, blocks * self.vector, start) if rest else ())]

    def tile_of(self, wide: int, channels: int, column: Size, channel: Size, start: int) -> list[Stmt]:
        """A tile of places by neighbouring channels: the rows above the image, those inside, those below."""
        sums = self.alloc(f"sums{wide}x{channels}", wide * channels, registers=True)
        high = self.kernel[0]
        low, end = self.rows_inside()
        v = Dim.symbol("v", 0, high=channels - 1)
        statements: list[Stmt] = []
        clear = Store(sums, v, self.zero)
        statements.append(For("v", channels, "tile", (clear,)))
        if low != 0:  # the chains are one as long as there are zeros only
            k: Size = Dim.symbol("k", 0, below=low)
            statements.append(For("k", low, "serial", (self.row_of_zeros(sums, 1, channels, channel, k),)))
        spread = Store(sums, Dim.symbol("i", 0, high=wide - 1) * channels + v, Load(sums, v, self.dtype))
        statements.append(For("i", wide, "unroll", (For("v", channels, "tile", (spread,)),)))
        if end - low != 0:
            k = low + Dim.symbol("k", 0, below=end - low)
            one = self.row_of_kernel(sums, wide, channels, column, channel, k, self.outside(start, wide))
            statements.append(For("k", end - low, "serial", tuple(one)))
        if high - end != 0:
            k = end + Dim.symbol("k", 0, below=high - end)
            statements.append(For("k", high - end, "serial", (self.row_of_zeros(sums, wide, channels, channel, k),)))
        block = Block(self.puller.names)
        place = column + Dim.symbol("i", 0, high=wide - 1)
        total = Load(sums, Dim.symbol("i", 0, high=wide - 1) * channels + v, self.dtype)
        self.epilogue(total, (self.image, self.row, place, channel + v), block)
        statements.append(For("i", wide, "unroll", (For("v", channels, "tile", tuple(block.statements)),)))
        return statements

    def rows_inside(self) -> tuple[Size, Size]:
        """The first row of the kernel that meets the image, and the first below it."""
        gap, high = self.dilation[0], self.kernel[0]
        low = maximum(0, minimum(high, (gap - 1 - self.top) // gap)) if self.before[0] else 0
        reach = (self.places[0] - 1) * self.stride[0] - self.before[0] + gap * (high - 1)
        if reach < self.sizes[0]:
            return low, high
        return low, maximum(low, minimum(high, (self.sizes[0] - 1 - self.top) // gap + 1))

    def under(self, row: Size, column: Size, channel: Size, block: Block) -> Expr:
        """An element of the image; row: from `top` on."""
        return block.let(self.puller.pull(self.x, (self.image, self.top + row, column, channel), block))

    def link(self, sums: str, at: Size, element: Expr, block: Block, where: tuple[Size, Size, Size]) -> None:
        """One link of the chain of the sum at `at` with the weight at (k, m, channel)."""
        weight = self.puller.pull(self.weight, where, block)
        block.add(Store(sums, at, multiply_add(element, weight, Load(sums, at, self.dtype))))

    def row_of_zeros(self, sums: str, wide: int, channels: int, channel: Size, k: Size) -> Stmt:
        """One row of the kernel outside the image."""
        v, m = Dim.symbol("v", 0, high=channels - 1), Dim.symbol("m", 0, below=self.kernel[1])
        block = Block(self.puller.names)
        self.link(sums, Dim.symbol("i", 0, high=wide - 1) * channels + v, self.zero, block, (k, m, channel + v))
        places = For("i", wide, "unroll", (For("v", channels, "tile", tuple(block.statements)),))
        return For("m", self.kernel[1], "serial", (places,))

    def row_of_kernel(
        self, sums: str, wide: int, channels: int, column: Size, channel: Size, k: Size, zeros: set[tuple[int, int]]
    ) -> Sequence[Stmt]:
        """One row of the kernel: a link of every chain for each of its columns."""
        v = Dim.symbol("v", 0, high=channels - 1)
        statements = []
        for m in range(self.kernel[1]):
            for i in range(wide):
                block = Block(self.puller.names)
                element: Expr = self.zero
                if (i, m) not in zeros:
                    across = (column + i) * self.stride[1] + m * self.dilation[1] - self.before[1]
                    element = self.under(k * self.dilation[0], across, channel + v, block)
                self.link(sums, i * channels + v, element, block, (k, m, channel + v))
                statements.append(For("v", channels, "tile", tuple(block.statements)))
        return statements
