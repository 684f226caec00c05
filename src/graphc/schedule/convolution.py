"""The convolution nest: direct implicit GEMM on images with their channels last.

Enters: a group whose anchor is `convolution_panels`.  Leaves: its `Launch`.  Never here: what is computed (`ops.convolution_last`),
Winograd's form (`schedule.winograd`), one channel at a time (`schedule.depthwise`).

A row of the kernel meets neighbours in memory, so a product with it is one run over columns and channels, and an element of the
result is a few such runs.  A unit is a band of rows of one image by a few panels of channels.  It copies what lies under the
band into scratch, with zeros around it, pulled through whatever movement there is, and register tiles of places by channels run
over it.  Every element is one fma chain over kernel and channels in row-major order, so tiles, bands and vector widths never show
in the bits.
Source: Georganas and others, "Anatomy of high-performance deep learning convolutions on SIMD architectures" (2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.dims import Dim, coefficient, maximum, minimum, product, substitute
from graphc.dtypes import DType
from graphc.ir.cost import is_cheap
from graphc.ir.graph import Value
from graphc.ir.loops import Alloc, Const, Expr, For, Let, Load, Prefetch, Size, Stmt, Store
from graphc.ops.panels import panel_width
from graphc.ops.windows import fixed, fixed_inside
from graphc.schedule.lower import Context, Launch, assumed, finish
from graphc.schedule.matmul import LINE_NBYTES, largest_tile
from graphc.schedule.partition import Group
from graphc.schedule.pull import Block, Position, Puller, cast, multiply_add

WEIGHT_NBYTES = 3 << 17  # of weights that one unit goes over again and again: part of the second cache
NEAR_NBYTES = 1 << 14  # of weights that stay in the nearest cache beside what lies under a tile
SCRATCH_NBYTES = 3 << 16  # of input under one band
LEAST_UNITS = 16  # so many are shared out evenly
EVEN_UNITS = 14  # the same, of units as long as each other
SHORT = 128  # a chain for which the way of a result through scratch is not free
MOST_RIDING = 8  # nodes of an epilogue that is written out
MOST_ACROSS = 8  # channels
FEW_PLACES = 64  # up to which weights come from memory faster than they are asked for unless asked for early

Triple = tuple[int, int, int]
Run = tuple[str, int]  # a loop of a chain: its variable and extent


def lifted(sizes: Sequence[int], missing: int) -> Triple:
    """One to three numbers as three: lines and images are volumes of one row or plane."""
    first, second, third = (*(missing,) * (3 - len(sizes)), *sizes)
    return first, second, third


class Tiles:
    """Register tiles of a nest, and what its results go through."""

    def __init__(self, group: Group, context: Context) -> None:
        assert group.anchor is not None
        self.group, self.node, self.lanes = group, group.anchor, context.lanes
        self.out = self.node.outputs[0]
        self.dtype: DType = self.out.dtype.compute
        self.puller = Puller(context.checks, lambda value: value in group.value_axes)
        self.allocs: dict[str, Stmt] = {}
        self.zero = Const(0.0 if self.dtype.kind == "f" else 0, self.dtype)

    def alloc(self, name: str, size: int, registers: bool = False) -> str:
        """Scratch of the unit; asked for again under its name, it is the same."""
        self.allocs[name] = Alloc(name, self.dtype, size, "registers" if registers else "stack")
        return name

    def clear(self, name: str, size: int) -> Stmt:
        """Zeros in scratch."""
        return For("z", size, "vector", (Store(name, Dim.symbol("z", 0, below=size), self.zero),))

    def tile(
        self,
        rows: int,
        columns: int,
        a: tuple[str, Size],
        b: tuple[Value, Position],
        runs: Sequence[Run],
        finish: Callable[[Load, Block], None],
        start: tuple[str, Size] | None = None,
        ahead: Sequence[Stmt] = (),
    ) -> list[Stmt]:
        """The sums of a * b over the runs: chains of fma from zero (or `start`), `rows` by `columns` of them in registers.

        a, start: buffer and offset, b: value and index, in terms of row ``i``, column ``j`` and the variables of the runs.
        finish: takes a sum and the block of what is done with it.   ahead: done with every link.
        """
        sums = self.alloc(f"sums{rows}", rows * columns, registers=True)
        i, j = Dim.symbol("i", 0, high=rows - 1), Dim.symbol("j", 0, high=columns - 1)
        at = i * columns + j

        def over(statements: Sequence[Stmt], inner: Sequence[Stmt]) -> tuple[Stmt, ...]:
            return (For("i", rows, "unroll", (*statements, For("j", columns, "tile", tuple(inner)))),)

        outer = Block(self.puller.names)
        left = outer.let(Load(a[0], a[1], self.dtype))
        inner = outer.inner()
        right = inner.let(self.puller.pull(*b, inner))
        inner.add(Store(sums, at, multiply_add(left, right, Load(sums, at, self.dtype))))
        chain = (*ahead, *over(outer.statements, inner.statements))
        for var, extent in reversed(runs):
            chain = (For(var, extent, "serial", chain),)
        first: Expr = self.zero if start is None else Load(*start, self.dtype)
        last = Block(self.puller.names)
        finish(Load(sums, at, self.dtype), last)
        return [*over((), (Store(sums, at, first),)), *chain, *over((), last.statements)]

    def is_light(self) -> bool:
        """Whether what rides along is cheap enough to be written out for every row of a tile."""
        riding = [node for node in self.group.members if node is not self.node]
        return len(riding) <= MOST_RIDING and all(map(is_cheap, riding))

    def epilogue(self, result: Expr, index: Position, block: Block) -> None:
        """The outputs at one element of the anchor's result."""
        group = self.group

        def index_of(value: Value) -> Position:
            return tuple(0 if a is None else index[a] for a in group.value_axes[value])

        block.memo[self.out, index_of(self.out)] = block.let(cast(result, self.out.dtype))
        elements = [block.let(self.puller.pull(value, index_of(value), block)) for value in group.outputs]
        for value, element in zip(group.outputs, elements, strict=True):  # after every load: an output may lie over an input
            block.add(self.put(value, index_of(value), element))

    def put(self, value: Value, index: Position, element: Expr) -> Store:
        """The store of an element of an output."""
        return Store(self.puller.buffer(value, "out"), self.puller.offset(value, index), element)

    def loaded(self, value: Value, index: Position) -> tuple[str, Size] | None:
        """Where an element lies that is read as it is stored; None for one that is computed or of another dtype."""
        trial = Block(iter(range(1 << 20)))
        buffers = dict(self.puller.buffers)
        self.puller.pull(value, index, trial)
        self.puller.buffers, touched = buffers, self.puller.buffers
        match trial.statements:
            case [Let(_, Load(buffer, offset, dtype))] if dtype is self.dtype:
                (held,) = [key for key, name in touched.items() if name == buffer]
                return self.puller.buffer(*held), offset
        return None

    def copied(
        self, source: Value, index: Position, to: tuple[str, Size], extents: dict[str, Size], columns: str, channels: str
    ) -> Stmt:
        """A box of `source`, whose elements are at `index`, copied to scratch.

        The loops are those of `extents`; of `columns` and `channels`, the one along which the source is contiguous is innermost,
        and both are one where it is contiguous along both.
        """
        inner, joined = channels, 0
        place = self.loaded(source, index)
        if place is not None:
            steps = {var: coefficient(place[1], var) for var in (columns, channels)}
            length, count = extents[channels], extents[columns]
            in_line = steps[channels] == 1 and steps[columns] == length == coefficient(to[1], columns)
            if in_line and isinstance(count, int) and isinstance(length, int):
                joined = count * length
            elif steps[columns] == 1 and steps[channels] != 1:
                inner = columns
        block = Block(self.puller.names)
        if inner == columns:  # read across: element by element costs less than vectors that are taken apart
            return self.copied_across(source, index, to, extents, columns, channels)
        if joined and place is not None:
            here: dict[str, Size] = {columns: 0, channels: Dim.symbol(channels, 0, below=joined)}
            block.add(Store(to[0], substitute(to[1], here), block.let(Load(place[0], substitute(place[1], here), self.dtype))))
            extents = {**{var: n for var, n in extents.items() if var != columns}, channels: joined}
        else:
            block.add(Store(to[0], to[1], block.let(cast(self.puller.pull(source, index, block), self.dtype))))
        body: tuple[Stmt, ...] = (For(inner, extents[inner], "vector", tuple(block.statements)),)
        for var in [v for v in reversed(extents) if v != inner]:
            body = (For(var, extents[var], "serial", body),)
        return body[0]

    def copied_across(
        self, source: Value, index: Position, to: tuple[str, Size], extents: dict[str, Size], columns: str, channels: str
    ) -> Stmt:
        """`copied` of a source that is contiguous along columns: a few channels at a time, whose lines stay in the cache."""
        count = extents[channels]
        assert isinstance(count, int)
        few = next(k for k in range(min(count, MOST_ACROSS), 0, -1) if count % k == 0)
        here = {channels: Dim.symbol("o", 0, below=count // few) * few + Dim.symbol(channels, 0, high=few - 1)}
        block = Block(self.puller.names)
        element = self.puller.pull(source, tuple(substitute(at, here) for at in index), block)
        block.add(Store(to[0], substitute(to[1], here), block.let(cast(element, self.dtype))))
        body: Stmt = For(channels, few, "unroll", tuple(block.statements))
        loops = {
            **{var: n for var, n in extents.items() if var not in (columns, channels)},
            "o": count // few,
            columns: extents[columns],
        }
        for var in reversed(loops):
            body = For(var, loops[var], "serial", (body,))
        return body

    def framed(self, source: Value, origin: Position, box: Triple, name: str) -> list[Stmt]:
        """A box [rows, columns, channels] of images [N, H, W, C], with zeros where it is outside them, in scratch.

        origin: of the box in the source; its column is a number.
        """
        (down, across, channels), (image, top, left, channel) = box, origin
        assert isinstance(left, int)
        high, wide = fixed("convolution", source.shape[1:3])
        low = minimum(down, maximum(0, -top))
        rows = maximum(0, minimum(down, high - top) - low)
        start = min(-left, across) if left < 0 else 0
        count = max(0, min(across, wide - left) - start)
        y, x = low + Dim.symbol("y", 0, below=rows), start + Dim.symbol("x", 0, below=count)
        c = Dim.symbol("c", 0, below=channels)
        statements = self.frame(name, box, (low, rows), (start, count))
        if count:
            extents: dict[str, Size] = {"y": rows, "x": count, "c": channels}
            there = (y * across + x) * channels + c
            statements.append(self.copied(source, (image, top + y, left + x, channel + c), (name, there), extents, "x", "c"))
        return statements

    def frame(self, name: str, box: Triple, inside: tuple[Size, Size], within: tuple[int, int]) -> list[Stmt]:
        """Zeros in a box [rows, columns, channels] of scratch, but for rows `inside` and columns `within`: (first, how many)."""
        (down, across, channels), (low, rows), (start, count) = box, inside, within
        line = across * channels
        statements: list[Stmt] = []

        def zeros(many: Size, begin: Size, length: int) -> None:
            if length and many != 0:
                row, z = Dim.symbol("y", 0, below=many), Dim.symbol("z", 0, below=length)
                clear = Store(name, row * line + begin + z, self.zero)
                statements.append(For("y", many, "serial", (For("z", length, "vector", (clear,)),)))

        zeros(low, 0, line)
        zeros(down - low - rows, (low + rows) * line, line)
        zeros(rows, low * line, start * channels)
        zeros(rows, low * line + (start + count) * channels, (across - start - count) * channels)
        return statements

    def finished(self, extent: Size, body: Sequence[Stmt], work: float, note: str) -> Launch:
        """The launch of a body over the units ``p``."""
        riding = len(self.group.members) - 1
        nest = For("p", extent, "parallel", (*self.allocs.values(), *body))
        return finish(self.puller, nest, extent, work, self.group, note + (f", epilogue of {riding}" if riding else ""))


def convolution(group: Group, context: Context) -> list[Launch]:
    """[N, *sizes, C], panels [groups, P, kernel * C / groups, width] -> [N, *places, O]."""
    return [Convolution(group, context).lower()]


class Convolution(Tiles):
    """What a unit of a convolution on panels does."""

    def __init__(self, group: Group, context: Context) -> None:
        super().__init__(group, context)
        self.x, self.panels = self.node.inputs
        attrs = self.node.attrs
        self.groups: int = attrs["groups"]
        self.kernel, self.stride, self.dilation = (lifted(attrs[name], 1) for name in ("kernel", "stride", "dilation"))
        self.before = lifted(attrs["before"], 0)
        batch, *sizes, channels = fixed_inside("convolution", self.x.shape)
        self.sizes, self.channels, self.batch = lifted(sizes, 1), channels // self.groups, batch
        _, *places, outer = fixed_inside("convolution", self.out.shape)
        self.places, self.outer = lifted(places, 1), outer // self.groups
        _, self.count, self.depth, self.width = fixed("convolution", self.panels.shape)
        self.rank = len(sizes)
        self.high: Size = self.places[1]
        self.shape_tiles()
        self.shape_units()

    # ---- sizes -----------------------------------------------------------------------------------------------------

    def shape_tiles(self) -> None:
        """Places of a tile: a piece of a row, or a few whole rows that are short."""
        most = largest_tile(self.lanes, self.width)
        self.columns = most.columns if self.width % most.columns == 0 else self.width
        rows = most.rows if self.width <= panel_width(self.dtype) else most.rows // 2  # of twice the vectors
        _, high, across = self.places
        pieces = -(-across // rows)
        self.span = (max(1, min(high, rows // across)), -(-across // pieces))

    def under(self, rows: int) -> tuple[int, int, int]:
        """The planes, rows and columns of input under a band."""
        _, down, right = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))
        return self.kernel[0], (rows - 1) * self.stride[1] + down, (self.places[2] - 1) * self.stride[2] + right

    def shape_units(self) -> None:
        """Rows of a band and panels of a unit: the weights of one stay in the cache, and there are units enough."""
        high = self.places[1]
        size: int = self.dtype.itemsize
        panel = self.depth * self.width * size
        parts = -(-self.count // max(1, min(self.count, WEIGHT_NBYTES // panel)))
        self.share(-(-self.count // parts))
        alone = self.kernel == (1, 1, 1)  # a row has nothing under it that others have too
        least, fewest = (EVEN_UNITS, 1) if alone else (LEAST_UNITS, 2)

        def scratch(rows: int) -> int:
            planes, down, across = self.under(rows)
            elements: int = planes * down * across * self.channels
            return elements * size

        bands = 1
        while -(-high // bands) > 1:
            rows = -(-high // bands)
            if scratch(rows) <= SCRATCH_NBYTES and (self.others * bands >= least or rows <= fewest):
                break
            bands += 1
        rows = -(-high // bands)
        step = self.span[0]
        self.rows = min(high, -(-rows // step) * step)
        self.bands = -(-high // self.rows)
        while alone and self.each > 1 and self.others * self.bands < least:
            self.share(min(self.each - 1, -(-self.count // (self.parts + 1))))
        self.extent = self.batch * (self.groups * self.parts * self.places[0] * self.bands)

    def share(self, each: int) -> None:
        """Give a unit that many panels."""
        self.each, self.parts = each, -(-self.count // each)
        self.others = self.groups * self.parts * assumed(self.batch) * self.places[0]

    # ---- the unit --------------------------------------------------------------------------------------------------

    def lower(self) -> Launch:
        """The launch over all units."""
        p: Size = Dim.symbol("p", 0, below=self.extent)
        self.first: Size = (p % self.bands) * self.rows
        p = p // self.bands
        self.plane: Size = p % self.places[0]
        p = p // self.places[0]
        self.image: Size = p % self.batch
        p = p // self.batch
        self.panel: Size = (p % self.parts) * self.each
        self.block: Size = p // self.parts
        self.high = self.rows if self.places[1] % self.rows == 0 else minimum(self.rows, self.places[1] - self.first)
        body = self.results()
        work = self.rows * self.places[2] * self.each * self.width * (self.depth + 8) / 8
        return self.finished(self.extent, body, work, "convolution")

    def results(self) -> list[Stmt]:
        """All results of the unit: `high` rows from `first` on of one plane of an image, by the panels from `panel` on."""
        body = [] if self.reads_directly() else self.fill()
        self.direct = self.outer % self.width == 0 and self.depth <= SHORT and self.is_light()
        if not self.direct:
            self.alloc("result", self.span[0] * self.span[1] * self.columns)
        tiles = [made for column in range(0, self.width, self.columns) for made in self.band(column)]
        return [*body, *(tiles if self.is_near() else self.over_panels(tiles))]

    def reads_directly(self) -> bool:
        """Whether places see single elements of the input, all of them inside, that lie as they are read."""
        end = [(p - 1) * s - b for p, s, b in zip(self.places, self.stride, self.before, strict=True)]
        if self.kernel != (1, 1, 1) or any(self.before) or any(e >= n for e, n in zip(end, self.sizes, strict=True)):
            return False
        at = self.input_index(Dim.symbol("y"), Dim.symbol("x"), Dim.symbol("k"))
        place = self.loaded(self.x, at)
        return place is not None and coefficient(place[1], "k") == 1 and coefficient(place[1], "x") is not None

    def input_index(self, row: Size, column: Size, channel: Size, plane: Size = 0) -> Position:
        """The input at a plane, row and column of the kernel's reach, counted from where the band begins."""
        deep = self.plane * self.stride[0] - self.before[0] + plane
        return (self.image, *(deep, row, column)[3 - self.rank :], self.block * self.channels + channel)

    def fill(self) -> list[Stmt]:
        """What lies under the band, in scratch [planes, rows, columns, channels]."""
        planes, down, across = self.under(self.rows)
        self.alloc("under", planes * down * across * self.channels)
        top = self.first * self.stride[1] - self.before[1]
        start = self.plane * self.stride[0] - self.before[0]
        gap = self.dilation[0]
        low_plane = maximum(0, (gap - 1 - start) // gap)
        many = maximum(0, minimum(planes, (self.sizes[0] - 1 - start) // gap + 1) - low_plane)
        low = maximum(0, -top)
        rows = maximum(0, minimum(down, self.sizes[1] - top) - low)
        left = min(self.before[2], across)
        count = max(0, min(across, self.sizes[2] + self.before[2]) - left)
        statements = []
        inside = self.sizes[0] == 1 == planes and not self.before[0]
        ends = (self.places[1] - 1) * self.stride[1] + self.dilation[1] * (self.kernel[1] - 1) - self.before[1]
        whole = not any(self.before[1:]) and count == across and ends < self.sizes[1]
        if not (inside and whole):
            statements.append(self.clear("under", planes * down * across * self.channels))
        if count == 0:
            return statements
        plane, y = low_plane + Dim.symbol("d", 0, below=many), low + Dim.symbol("y", 0, below=rows)
        x, c = left + Dim.symbol("x", 0, below=count), Dim.symbol("c", 0, below=self.channels)
        index = self.input_index(top + y, x - self.before[2], c, plane * gap)
        there = ((plane * down + y) * across + x) * self.channels + c
        extents: dict[str, Size] = {"d": many, "y": rows, "x": count, "c": self.channels}
        return [*statements, self.copied(self.x, index, ("under", there), extents, "x", "c")]

    def is_near(self) -> bool:
        """Whether the weights of a unit stay in the nearest cache: a tile goes over all panels, and results come in long runs."""
        nbytes: int = self.each * self.depth * self.width * self.dtype.itemsize
        return nbytes <= NEAR_NBYTES

    def over_panels(self, tiles: Sequence[Stmt]) -> list[Stmt]:
        """Tiles for each panel of the unit."""
        panels: Size = self.each if self.count % self.each == 0 else minimum(self.each, self.count - self.panel)
        return [For("q", panels, "serial", tuple(tiles))]

    def band(self, column: int) -> list[Stmt]:
        """All places of the band by the columns of a panel from `column` on."""
        down, across = self.span
        high = self.high

        def tiles(tall: int, wide: int, row: Size, x: Size) -> Sequence[Stmt]:
            made = self.piece(tall, wide, row, x, column)
            return self.over_panels(made) if self.is_near() else made

        statements: list[Stmt] = []
        for rows, start, var in ((high // down, 0, "u"), (high % down, high // down * down, "v")):
            if rows == 0:
                continue
            tall = down if var == "u" else 1
            at = start + Dim.symbol(var, 0, below=rows) * tall
            pieces, rest = divmod(self.places[2], across)
            inner: list[Stmt] = []
            if pieces:
                x = Dim.symbol("w", 0, below=pieces) * across
                inner.append(For("w", pieces, "serial", tuple(tiles(tall, across, at, x))))
            if rest:
                inner.extend(tiles(tall, rest, at, pieces * across))
            statements.append(For(var, rows, "serial", tuple(inner)))
        return statements

    def piece(self, tall: int, wide: int, row: Size, column: Size, channel: int) -> list[Stmt]:
        """One register tile of `tall` by `wide` places, and its epilogue."""
        panel = self.panel + Dim.symbol("q", 0, below=self.each)
        i = Dim.symbol("i", 0, high=tall * wide - 1)
        j = Dim.symbol("j", 0, high=self.columns - 1)
        y, x = row + (i // wide if tall > 1 else 0), column + (i % wide if tall > 1 else i)
        runs, k, a = self.operand(y, x)
        b = (self.panels, (self.block, panel, k, channel + j))
        ahead = self.next_panel((self.block, panel, k, channel))
        first = panel * self.width + channel
        if self.direct:
            whole = (self.plane, self.first + y, x)[3 - self.rank :]
            index = (self.image, *whole, self.block * self.outer + first + j)
            done = lambda total, block: self.epilogue(total, index, block)
            return self.tile(tall * wide, self.columns, a, b, runs, done, ahead=ahead)

        def kept(total: Load, block: Block) -> None:
            block.add(Store("result", i * self.columns + j, total))

        made = self.tile(tall * wide, self.columns, a, b, runs, kept, ahead=ahead)
        valid: Size = self.columns if self.outer % self.width == 0 else maximum(0, minimum(self.columns, self.outer - first))
        e, f, g = Dim.symbol("e", 0, below=tall), Dim.symbol("f", 0, below=wide), Dim.symbol("g", 0, below=valid)
        result = Load("result", (e * wide + f) * self.columns + g, self.dtype)
        place = (self.plane, self.first + row + e, column + f)[3 - self.rank :]
        block = Block(self.puller.names)
        self.epilogue(result, (self.image, *place, self.block * self.outer + first + g), block)
        stored = For("f", wide, "serial", (For("g", valid, "vector", tuple(block.statements)),))
        return [*made, For("e", tall, "serial", (stored,))]

    def next_panel(self, at: Position) -> list[Stmt]:
        """Ask for the same place of the panel after this one: few places are done with one before the next has come."""
        places = product(self.out.shape[:-1])
        place = self.loaded(self.panels, at) if isinstance(places, int) and places <= FEW_PLACES else None
        if place is None:
            return []
        following = place[1] + self.depth * self.width
        lines = range(0, self.columns, LINE_NBYTES // self.dtype.itemsize)
        return [Prefetch(place[0], following + line, self.dtype) for line in lines]

    def operand(self, y: Size, x: Size) -> tuple[list[Run], Size, tuple[str, Size]]:
        """(the runs of a chain, the element of the kernel in them, what it meets at place y, x of the band)."""
        if self.reads_directly():
            k = Dim.symbol("k", 0, below=self.channels)
            at = self.input_index((self.first + y) * self.stride[1], x * self.stride[2], k)
            place = self.loaded(self.x, at)
            assert place is not None
            return [("k", self.channels)], k, place
        _, down, across = self.under(self.rows)
        tall, wide = self.kernel[1:]
        d, r = Dim.symbol("d", 0, below=self.kernel[0]), Dim.symbol("r", 0, below=tall)
        runs = [("d", self.kernel[0]), ("r", tall)]
        if self.dilation[2] == 1:
            runs.append(("k", wide * self.channels))
            within = reach = Dim.symbol("k", 0, below=wide * self.channels)
        else:
            runs.extend((("s", wide), ("k", self.channels)))
            s, c = Dim.symbol("s", 0, below=wide), Dim.symbol("k", 0, below=self.channels)
            within, reach = s * self.channels + c, s * (self.dilation[2] * self.channels) + c
        under = (d * down + y * self.stride[1] + r * self.dilation[1]) * across + x * self.stride[2]
        return (
            runs,
            (d * tall + r) * wide * self.channels + within,
            (
                "under",
                under * self.channels + reach,
            ),
        )
