"""The nest of a depthwise convolution and of the convolution of one by one that its images come from.

Enters: a group whose anchor is `depthwise_last`, with the convolution's group before it.  Leaves: its `Launch`.  Never here: what
is computed (`ops.convolution_last`, `ops.depthwise`), joining groups (partition).

A unit is a panel of channels of a band of one image.  What the first convolution makes of the rows under the band goes to scratch,
with zeros around it, and the second one's chains run over that: the image between them, the largest of networks that widen images
before they look at neighbours, is never in memory.  Rows that two bands share are made twice; the bits are those of two kernels.
"""

from __future__ import annotations

from graphc.dims import Dim, maximum, minimum
from graphc.ir.graph import Node, Value
from graphc.ir.loops import Expr, For, Load, Size, Stmt, Store
from graphc.schedule.convolution import Convolution
from graphc.schedule.depthwise_last import MOST_CHANNELS, Depthwise
from graphc.schedule.lower import Context, Launch, assumed
from graphc.schedule.partition import Group
from graphc.schedule.pull import Block, Position, Puller

LEAST_NBYTES = 9 << 16  # of the images between: fewer stay in the second caches anyhow
SCRATCH_NBYTES = 1 << 18  # of what a unit has of one: part of a second cache
LEAST_UNITS = 6  # of an image; so many are shared out evenly if they are even, else twice as many
MOST_TWICE = 8  # one in so many rows may be made twice


def bands_of(first: Node, second: Node) -> int:
    """Into how many bands an image is cut; 0 where two kernels are better."""
    (batch, high, wide, channels), attrs = second.inputs[0].shape, second.attrs
    _, count, _, width = first.inputs[1].shape
    itemsize = second.inputs[0].dtype.itemsize
    pointwise = all({*first.attrs[name]} == {one} for name, one in (("kernel", 1), ("stride", 1), ("before", 0)))
    if not pointwise or first.attrs["groups"] != 1 or min(attrs["before"]) < 0:
        return 0
    if first.inputs[0].shape[1:-1] != (high, wide) or channels % MOST_CHANNELS or width % MOST_CHANNELS:
        return 0
    if assumed(batch) * high * wide * channels * itemsize < LEAST_NBYTES:
        return 0
    for bands in range(1, attrs["places"][0] + 1):
        units, rows = count * bands, -(-attrs["places"][0] // bands)
        under, across = _under(second, rows)
        shared = -(-attrs["places"][0] // rows) == bands and units >= LEAST_UNITS and (units % 2 == 0 or units >= 2 * LEAST_UNITS)
        if shared and under * across * width * itemsize <= SCRATCH_NBYTES:
            return bands if bands == 1 or MOST_TWICE * (bands * under - high) <= bands * under else 0
    return 0


def _under(second: Node, rows: int) -> tuple[int, int]:
    """The rows and columns between the convolutions that so many rows of results look at."""
    attrs, counts = second.attrs, (rows, second.attrs["places"][1])
    axes = zip(counts, attrs["stride"], attrs["dilation"], second.inputs[1].shape, strict=False)
    down, across = (s * (n - 1) + d * (k - 1) + 1 for n, s, d, k in axes)
    return down, max(across, attrs["before"][1] + second.inputs[0].shape[2])


class _First(Convolution):
    """The convolution of one by one: its results go to scratch."""

    def __init__(self, group: Group, context: Context, second: Expanded) -> None:
        super().__init__(group, context)
        self.second, self.puller, self.allocs = second, second.puller, second.allocs
        self.share(1)

    def put(self, value: Value, index: Position, element: Expr) -> Store:
        _, row, column, channel = index
        return Store("between", self.second.place(row - self.second.top, column, channel), element)


class Expanded(Depthwise):
    """What a unit of both convolutions does."""

    def __init__(self, group: Group, context: Context) -> None:
        super().__init__(group, context)
        before = group.before
        assert before is not None and before.anchor is not None
        self.puller = Puller(context.checks, lambda value: value in group.value_axes or value in before.value_axes)
        self.first = _First(before, context, self)
        self.bands = bands_of(before.anchor, self.node)
        self.rows = -(-self.places[0] // self.bands)
        self.down, self.across = _under(self.node, self.rows)

    def lower(self) -> Launch:
        """The launch over all units."""
        first, high = self.first, self.places[0]
        extent = self.batch * (first.count * self.bands)
        p = Dim.symbol("p", 0, below=extent)
        begin = (p % self.bands) * self.rows
        first.panel, first.image = (p // self.bands) % first.count, p // self.bands // first.count
        first.plane, first.block, first.rows = 0, 0, self.down
        self.image, self.channel = first.image, first.panel * first.width
        self.top = begin * self.stride[0] - self.before[0]
        low = maximum(0, -self.top)
        first.first, first.high = self.top + low, maximum(0, minimum(self.down, self.sizes[0] - self.top) - low)
        self.alloc("between", self.down * self.across * first.width)
        inside = (low, first.high), (self.before[1], self.sizes[1])
        frame = self.frame("between", (self.down, self.across, first.width), *inside)
        rows: Size = self.rows if high % self.rows == 0 else minimum(self.rows, high - begin)
        self.within = Dim.symbol("y", 0, below=rows)
        self.row = begin + self.within
        body = [*frame, *first.results(), For("y", rows, "serial", tuple(self.line()))]
        links = self.rows * self.places[1] * self.kernel[0] * self.kernel[1] + self.down * self.sizes[1] * first.depth
        return self.finished(extent, body, links * first.width / 8, "a convolution of one by one, then a depthwise one")

    def place(self, row: Size, column: Size, channel: Size) -> Size:
        """Where an element between the two convolutions is; row: from `top` on."""
        at: Size = (row * self.across + column + self.before[1]) * self.first.width + channel - self.channel
        return at

    # ---- the second convolution ------------------------------------------------------------------------------------

    def piece(self, wide: int, column: Size, start: int) -> list[Stmt]:
        """A tile of places, all channels of the panel."""
        count: Size = self.first.width // self.vector
        if self.channels % self.first.width:
            count = minimum(count, (self.channels - self.channel) // self.vector)
        channel = self.channel + Dim.symbol("c", 0, below=count) * self.vector
        return [For("c", count, "serial", tuple(self.tile_of(wide, self.vector, column, channel, start)))]

    def outside(self, start: int, wide: int) -> set[tuple[int, int]]:
        return set()

    def rows_inside(self) -> tuple[Size, Size]:
        return 0, self.kernel[0]

    def under(self, row: Size, column: Size, channel: Size, block: Block) -> Expr:
        return block.let(Load("between", self.place(self.within * self.stride[0] + row, column, channel), self.dtype))
