"""The matmul nest: panels of B, register tiles, epilogues.

Enters: a group whose anchor is a matmul, or one with panels.  Leaves: its `Launch`es.  Never here: other anchors, a target's
instructions.  Operands are pulled at the indices the nest asks for, and the epilogue with the accumulator in the matmul's place.

C is cut into units of a block of rows by one panel of columns, and register tiles of as many rows as the machine's registers hold
run over them.  Five ways to read B (`_Reading`): as it lies, where its rows are contiguous; as panels, which it is already or which
a launch of its own makes first, where many blocks of rows read them; from scratch, to which a unit copies its panel for one block
of k; or, where one tile is all the rows there are, in strips, which are copied, or in squares, which are not.  A product with few
columns is the transposed product.

Every element is one fma chain over k inside blocks of K_BLOCK, blocks added in order: tiles, threads and vector widths never show
in the bits.
Source of the tiling: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from graphc.dims import Dim, coefficient, free, is_equal, maximum, minimum, product, substitute
from graphc.dtypes import DType
from graphc.ir.graph import Value
from graphc.ir.loops import FUNCTIONS, K_BLOCK, Alloc, Call, Const, Expr, For, Let, Load, Prefetch, Size, Stmt, Store
from graphc.ir.op import Anchor, TensorType
from graphc.ops.panels import FEW_ROWS, panel_width
from graphc.schedule.lower import Context, Launch, finish, parted
from graphc.schedule.panels import Element, Place, clipped, copied, panels_launch, place_of
from graphc.schedule.partition import Group
from graphc.schedule.pull import Block, Position, Puller, cast, delinear, multiply_add

OPEN_ROWS = 12  # of tiles, where a program serves any number of rows; what is left has tiles of ever fewer
LOWER_TILE = 6  # the highest of tiles for what is left: of so few rows none may wait for the one before it
MOST_ROWS = 1024  # of a unit that copies its panel of B, for which it should have much use, or reads B where it lies
CACHED_ROWS = 240  # of one that reads panels: rows of A stay in the second cache while they go by; also of an unknown number
PACK_ROWS = 48  # from this many rows on, copying a contiguous but wide B pays for itself: its rows would fall into few cache sets
PACK_COLUMNS = 256
PACK_AHEAD = 3  # so many blocks of rows that read a panel pay for a launch that makes all panels
PACK_ELEMENTS = 1 << 19  # of B, from which on they do: it no longer stays in the second cache
PACKED_ELEMENTS = 1 << 21  # of A, from which on panels of it pay
ONE_SET_ELEMENTS = 1 << 20  # of an A' whose rows all fall into one cache set
COLUMN_AHEAD = 256  # elements of a column by which reading a strip or squares is ahead
STRIP = 128  # rows of a strip: what is copied is still in the nearest cache when it is read
PREFETCH_ROWS = 64  # up to this many rows, panels come from memory faster than they are asked for unless asked for early
ROWS_AHEAD = 24  # by which reading wide rows as they lie is ahead
DEEPEST = 2048  # rows of a panel that stays in the second cache while all tiles go over it
LEAST_UNITS = 8
EVEN_UNITS = 32  # below, units of many rows are cut, and those of a number that is no multiple of 4
LEAST_ROWS = 240  # of units that are cut for that
FEW_COLUMNS = 4
LINE_NBYTES = 64
LEFT_ROWS = 12  # of a panel of A
LEFT_TOGETHER = 8  # panels of A' that are made in one walk, so that whole lines of its rows are read
ONE_SET_NBYTES = 4096  # rows such a distance apart, or a multiple of it, all fall into one
SAME_SET_NBYTES = 1024  # rows such a distance apart, or a multiple of it, fall into few sets of the nearest cache


def matmul(group: Group, context: Context) -> list[Launch]:
    """The launches of a matmul with its epilogue."""
    return _Matmul(group, context).launches()


# ---- the shape of tiles --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tile:
    """Rows and columns of C whose sums are in registers at once."""

    rows: int
    columns: int


def largest_tile(lanes: int, width: int) -> Tile:
    """What the registers hold: 32 of 64 bytes take 14 rows of two, 16 of 32 bytes take 6 rows of two."""
    return Tile(14, width) if lanes >= 16 else Tile(6, max(1, width // 2))


def rows_of_tiles(rows: Size, most: int) -> int:
    """The height of tiles for `rows` rows: as even as can be, so that few rows are left over."""
    if not isinstance(rows, int):
        return min(6, most)
    if rows <= most:
        return max(1, rows)
    even = [h for h in range(most, most // 2, -1) if rows % h == 0]
    return even[0] if even else min(most, 12)


def lower_tiles(rest: Size, height: int, step: int = 1) -> Iterator[tuple[int, Size, Size]]:
    """The one or two tiles for what is left of tiles of a height, an open number of rows: (rows, how many, first row) of each
    there may be.   step: what the number is a multiple of."""
    several = height > LOWER_TILE + 1
    second: Size = rest // 2 * minimum(1, rest // (LOWER_TILE + 1)) if several else 0
    first = rest - second
    known = range(0, height, step)
    lower = {n // 2 if several and n > LOWER_TILE else 0 for n in known}
    upper = {n - (n // 2 if several and n > LOWER_TILE else 0) for n in known}
    for rows in sorted((lower | upper) - {0}, reverse=True):
        here = is_equal(first, rows) if rows in upper else 0
        count = here + (is_equal(second, rows) if rows in lower else 0)
        yield rows, count, (1 - here) * first


def wide_columns(rows: int, columns: int, sums: int, width: int) -> int:
    """The columns of a tile of at most so many sums that reads B as it lies: for few rows many, as memory likes long runs."""
    fits = [w for w in (256, 128, 64, 32) if width < w <= sums // max(1, rows) and columns % w == 0]
    return fits[0] if fits else width


_Reading = Literal["direct", "panels", "scratch", "strips", "squares"]
_NOTES: dict[_Reading, str] = {
    "direct": "", "panels": ", B in panels", "scratch": ", B packed", "strips": ", B in strips", "squares": ", B in squares"
}  # fmt: skip


class _Matmul:
    """One product C = A B, or its transposed C' = B' A' where C has few columns."""

    def __init__(self, group: Group, context: Context) -> None:
        assert group.anchor is not None
        self.group, self.node, self.context = group, group.anchor, context
        assert isinstance(self.node.lowering, Anchor)
        self.given = self.node.lowering.nest == "matmul_panels"
        self.out = self.node.outputs[0]
        self.dtype: DType = self.out.dtype.compute
        self.puller = Puller(context.checks, lambda value: value in group.value_axes)
        *batch, self.m, self.n = self.out.shape
        self.k = self.node.inputs[0].shape[-1]
        self.swapped = not self.given and isinstance(self.n, int) and self.n <= FEW_COLUMNS and self.n != self.m
        if self.swapped:
            self.m, self.n = self.n, self.m
        self.left, self.right = reversed(self.node.inputs) if self.swapped else self.node.inputs
        self.batch_shape = tuple(batch)
        self.batch: Position = (0,) * len(batch)
        self.allocs: list[Stmt] = []
        self.k_blocks: Size = 1 if isinstance(self.k, int) and self.k <= K_BLOCK else (self.k + K_BLOCK - 1) // K_BLOCK
        self.k_start: Size = 0 if self.k_blocks == 1 else Dim.symbol("q", 0) * K_BLOCK
        self.k_length = clipped(self.k, K_BLOCK, Dim.symbol("q", 0))
        self.left_panels: Value | None = None
        self.right_panels: Value | None = self.right if self.given else None
        self.reading = self._choose()
        if not self.given and self.reading != "strips" and self._left_falls_together():
            self._pack_left()
        self._cut()

    # ---- choices ---------------------------------------------------------------------------------------------------

    def _choose(self) -> _Reading:
        """How B is read, and with it the width of panels and the height of tiles."""
        lanes, m, n = self.context.lanes, self.m, self.n
        width = self.right.shape[-1] if self.given else panel_width(self.dtype, n)
        assert isinstance(width, int)
        self.width_limit, self.columns = width, min(width, largest_tile(lanes, width).columns)
        most = largest_tile(lanes, width).rows
        self.open = not isinstance(m, int) and isinstance(n, int) and isinstance(self.k, int)
        self.tile_rows = min(OPEN_ROWS, most) if self.open else rows_of_tiles(m, most)
        if self.given:
            return "panels"
        place = self._right_place()
        if not isinstance(m, int):
            return "scratch"
        if place is not None and place.along_rows and isinstance(n, int):
            wide = wide_columns(m, n, most * self.columns, width)
            if n % wide == 0 and not (m >= PACK_ROWS and n >= PACK_COLUMNS):
                self.width_limit, self.columns = wide, wide if wide > width else self.columns
                return "direct"
        if self._row_blocks_reading() >= PACK_AHEAD and _is_at_least(PACK_ELEMENTS, self.k, n):
            self._make_panels()
            return "panels"
        if m <= most and place is not None and place.along_columns:
            line = LINE_NBYTES // self.dtype.itemsize
            if m > FEW_ROWS or not isinstance(self.k, int) or not isinstance(n, int) or n < line:
                return "strips"
            self.width_limit = self.columns = line
            self.side = min(line, lanes * 4 // self.dtype.itemsize)
            return "squares"
        return "scratch"

    def _row_blocks_reading(self) -> int:
        """How many blocks of rows read each panel of B."""
        rows, matrices, kept = self.m, product(self.batch_shape), product(self.right.shape[:-2])
        if not (isinstance(rows, int) and isinstance(matrices, int) and isinstance(kept, int)):
            return 1
        block = CACHED_ROWS if _is_at_least(PACKED_ELEMENTS, self.m, self.k) else MOST_ROWS
        return matrices // max(1, kept) * -(-rows // block)

    def _make_panels(self) -> None:
        """Panels of B before the product."""
        *batch, _, _ = self.right.shape
        count = (self.n + self.width_limit - 1) // self.width_limit
        self.right_panels = Value(TensorType(self.dtype, (*batch, count, self.k, self.width_limit)), None, "panels")

    def _left_place(self) -> Place | None:
        """Where A' lies: along rows if neighbours in a column of A are neighbours in memory."""
        return place_of(self.puller, lambda k, j, block: self._left_element(j, k, block), self.k, self.m)

    def _left_falls_together(self) -> bool:
        """Whether what a tile reads of A would fall into the same cache sets: its rows, or, in A', a piece of a row for each k."""
        if not (_is_at_least(PACK_ROWS, self.m) and _is_at_least(ONE_SET_ELEMENTS, self.m, self.k)):
            return False
        place = self._left_place()
        if place is not None and place.along_rows:
            step = coefficient(place.offset, "k")
            return isinstance(step, int) and step * place.dtype.itemsize % ONE_SET_NBYTES == 0 and not self._is_narrow()
        if not _is_at_least(PACKED_ELEMENTS, self.m, self.k):
            return False
        distance = None if place is None else coefficient(place.offset, "j")
        near = place is not None and isinstance(distance, int) and distance * place.dtype.itemsize % SAME_SET_NBYTES != 0
        return self.right_panels is not None and not near

    def _is_narrow(self) -> bool:
        """Whether too few panels of columns would read a copy of A."""
        return isinstance(self.n, int) and self.n <= self.width_limit

    def _pack_left(self) -> None:
        """Panels of A before the product."""
        self.tile_rows = min(LEFT_ROWS, largest_tile(self.context.lanes, self.width_limit).rows)
        *batch, _, _ = self.left.shape
        tiles = (self.m + self.tile_rows - 1) // self.tile_rows
        self.left_panels = Value(TensorType(self.dtype, (*batch, tiles, self.k, self.tile_rows)), None, "panels")

    def _cut(self) -> None:
        """Units: a block of rows by one panel, for every matrix of the batch."""
        width = self.width_limit
        panels = (self.n + width - 1) // width
        self.row_block = self._row_block(product(self.batch_shape) * panels)
        row_blocks: Size = (self.m + self.row_block - 1) // self.row_block if self.row_block is not self.m else 1
        self.extent = product(self.batch_shape) * row_blocks * panels
        p = Dim.symbol("p", 0, below=self.extent)
        self.panel = p % panels
        self.first_column = self.read_column = self.panel * width
        if self.reading == "squares" and self.n % width != 0:  # the last panel is whole too: it begins in the one before
            self.read_column = minimum(self.first_column, self.n - width)
        self.block = (p // panels) % row_blocks
        self.first_row = self.block * self.row_block
        self.batch = delinear(p // panels // row_blocks, self.batch_shape)
        self.rows: Size = self.m if row_blocks == 1 else minimum(self.row_block, self.m - self.first_row)
        if isinstance(self.m, int) and isinstance(self.row_block, int) and self.m % self.row_block == 0:
            self.rows = self.row_block
        self.whole_panels = isinstance(self.n, int) and self.n % width == 0
        self.width: Size = width if self.whole_panels else clipped(self.n, width, self.panel)
        self.direct = self.whole_panels and self.k_blocks == 1
        self.by_tile = self.direct or self._is_by_tile()

    def _is_by_tile(self) -> bool:
        """Whether a tile goes through all blocks of k and its epilogue before the next one begins."""
        if not isinstance(self.m, int) or not isinstance(self.k, int) or self.k > DEEPEST:
            return False
        return self.k_blocks == 1 or not self._is_prefetched()

    def _row_block(self, others: Size) -> Size:
        """Rows of a unit: whole tiles, fewer where there would be few units."""
        tile = self.tile_rows
        if not isinstance(self.m, int):
            return CACHED_ROWS
        cached = self.reading == "panels" or self.left_panels is not None
        most = max(1, (CACHED_ROWS if cached else MOST_ROWS) // tile)
        tiles = -(-self.m // tile)
        wanted = -(-tiles // most)
        if isinstance(others, int):
            while wanted < tiles and _should_be_more(max(1, others) * wanted, self.m // wanted):
                wanted += 1
        return self.m if wanted <= 1 else -(-tiles // wanted) * tile

    # ---- launches --------------------------------------------------------------------------------------------------

    def launches(self) -> list[Launch]:
        """Panels that are not there yet, then the product."""
        found: list[Launch] = []
        if self.right_panels is not None and not self.given:
            found.append(self._packing(self.right_panels, self.right, self.n, self.swapped, whole=False))
        if self.left_panels is not None:
            together = LEFT_TOGETHER if (place := self._left_place()) is not None and place.along_rows else 1
            found.append(self._packing(self.left_panels, self.left, self.m, not self.swapped, whole=True, together=together))
        return [*found, self.product()]

    def _packing(self, out: Value, value: Value, columns: Size, transposed: bool, whole: bool, together: int = 1) -> Launch:
        def source(puller: Puller) -> Callable[[Position], Element]:
            def of_batch(at: Position) -> Element:
                def element(row: Size, column: Size, block: Block) -> Expr:
                    index = (column, row) if transposed else (row, column)
                    return block.let(puller.pull(value, (*at, *index), block))

                return element

            return of_batch

        return panels_launch(self.context, Group(list(out.shape)), out, columns, source, whole, together)

    def product(self) -> Launch:
        body: list[Stmt] = []
        packing = self.reading == "scratch"
        if packing:
            depth = self.k if self.by_tile or self.k_blocks == 1 else K_BLOCK
            self.allocs.append(Alloc("panel", self.dtype, max(1, depth if isinstance(depth, int) else K_BLOCK) * self.width_limit))
        elif self.reading == "strips":
            self.allocs.append(Alloc("panel", self.dtype, STRIP * self.columns))
        elif self.reading == "squares":
            self.allocs.append(Alloc("panel", self.dtype, self.side * self.side, "registers"))
        start, length = (0, self.k) if self.by_tile else (self.k_start, self.k_length)
        inner = [*(self.pack(start, length, 0, self.width) if packing else []), *self.tiles()]
        if self.by_tile:
            self.allocs += [] if self.direct else [Alloc("partial", self.dtype, self.tile_rows * self.columns)]
            body.extend(inner)
        else:
            most = self.row_block if isinstance(self.row_block, int) else CACHED_ROWS
            self.allocs.append(Alloc("partial", self.dtype, max(1, most) * self.width_limit))
            body += inner if self.k_blocks == 1 else [self.clear_partial(), For("q", self.k_blocks, "serial", tuple(inner))]
            body.append(self.epilogue_of_sums(self.rows, 0, 0, self.width_limit))
        nest = For("p", self.extent, "parallel", (*self.allocs, *body))
        rows = self.rows if isinstance(self.rows, int) else minimum(self.row_block, self.m)
        known, times = parted(rows, self.k)
        note = "matmul" + _NOTES[self.reading]
        note += f", epilogue of {len(self.group.members) - 1}" if len(self.group.members) > 1 else ""
        return finish(self.puller, nest, self.extent, known * self.width_limit / 16, self.group, note, times)

    # ---- operands --------------------------------------------------------------------------------------------------

    def element(self, value: Value, last: Position, block: Block) -> Expr:
        """value[batch, *last] in the compute dtype; size-1 batch dims are broadcast."""
        sizes = value.shape[: -len(last)]
        at = self.batch[len(self.batch) - len(sizes) :]
        batch = tuple(0 if d == 1 else b for b, d in zip(at, sizes, strict=True))
        return block.let(cast(self.puller.pull(value, (*batch, *last), block), self.dtype))

    def _left_element(self, row: Size, k: Size, block: Block) -> Expr:
        return self.element(self.left, (k, row) if self.swapped else (row, k), block)

    def _right_element(self, k: Size, column: Size, block: Block) -> Expr:
        return self.element(self.right, (column, k) if self.swapped else (k, column), block)

    def _right_place(self) -> Place | None:
        return place_of(self.puller, self._right_element, self.k, self.n)

    def pack(self, start: Size, rows: Size, first: Size, width: Size) -> list[Stmt]:
        """B from row `start` and column `first` of the panel on, into scratch."""
        place = self._right_place()
        last: Size | None = None
        if place is not None and place.uneven:  # columns beyond the last are its copies, which nobody reads: no masks
            width, last = self.width_limit, None if self.whole_panels else self.n - 1

        def element(k: Size, j: Size, block: Block) -> Expr:
            column = self.first_column + first + j
            return self._right_element(start + k, column if last is None else minimum(column, last), block)

        step = self.columns if self.reading == "strips" else self.width_limit
        ahead = COLUMN_AHEAD if self.reading == "strips" else 0
        return copied(self.puller, element, ("panel", 0, step), rows, width, self.dtype, ahead)

    # ---- register tiles --------------------------------------------------------------------------------------------

    def tiles(self) -> list[Stmt]:
        """Full tiles, then what is left: in one tile where it is known how many rows that can be, else in one or two."""
        statements: list[Stmt] = []
        height = self.tile_rows
        full = self.rows // height
        if full != 0:
            at = Dim.symbol("it", 0, below=full)
            statements.append(For("it", full, "serial", tuple(self.tile(height, at * height, at, "acc"))))
        left = self.m % height
        if isinstance(left, int):
            if left:
                last = tuple(self.tile(left, full * height, full, "rest"))
                blocks = (self.rows - full * height + height - 1) // height  # 0 where all rows are in full tiles
                statements.extend(last if blocks == 1 else [For("ir", blocks, "serial", last)])
        else:
            base, rest = full * height, self.rows % height
            if not self.open:
                row = base + Dim.symbol("ir", 0, below=rest)
                return [*statements, For("ir", rest, "serial", tuple(self.tile(1, row, 0, "rest1")))]
            for lower, count, start in lower_tiles(rest, height):
                row = base + start + Dim.symbol("ir", 0, below=count) * lower
                statements.append(For("ir", count, "serial", tuple(self.tile(lower, row, 0, f"rest{lower}"))))
        return statements

    def tile(self, rows: int, base: Size, number: Size, name: str) -> list[Stmt]:
        """The sums of `rows` rows from `base`, the tile of that number in its block, by parts of the panel that registers hold."""
        parts = self.width_limit // self.columns
        first: Size = 0 if parts == 1 else Dim.symbol("s", 0, below=parts) * self.columns
        self.allocs.append(Alloc(name, self.dtype, rows * self.columns, "registers"))
        i, j = Dim.symbol("i", 0, high=rows - 1), Dim.symbol("j", 0, high=self.columns - 1)
        at = i * self.columns + j
        zero = Const(0.0 if self.dtype.kind == "f" else 0, self.dtype)
        clear = For("j", self.columns, "tile", (Store(name, at, zero),))
        early = self.early(rows, base, first)
        sums = [*self.chain(rows, base, number, first, name, at), self.flush(rows, base, first, name, at)]
        statements: list[Stmt]
        if self.by_tile and self.k_blocks != 1:
            begin = For("j", self.columns, "tile", (Store("partial", at, zero),))
            block = For("q", self.k_blocks, "serial", (For("i", rows, "unroll", (clear,)), *sums))
            statements = [For("i", rows, "unroll", (*early, begin)), block]
        else:
            statements = [For("i", rows, "unroll", (*early, clear)), *sums]
        if self.by_tile and not self.direct:
            statements.append(self.epilogue_of_sums(rows, base, first, self.columns))
        return statements if parts == 1 else [For("s", parts, "serial", tuple(statements))]

    def chain(self, rows: int, base: Size, number: Size, first: Size, name: str, at: Size) -> list[Stmt]:
        """One step of every sum for each k of the block, in order."""
        if self.reading == "squares":
            return self.square_chain(rows, base, name)
        if self.reading != "strips":
            return [self.steps(rows, base, number, first, name, at, 0, self.k_length)]
        strips: Size = (self.k_length + STRIP - 1) // STRIP
        start = Dim.symbol("u", 0, below=strips) * STRIP
        length = clipped(self.k_length, STRIP, Dim.symbol("u", 0))
        width: Size = self.columns if self.whole_panels else maximum(0, minimum(self.columns, self.width - first))
        copy = self.pack(self.k_start + start, length, first, width)
        return [For("u", strips, "serial", (*copy, self.steps(rows, base, number, first, name, at, start, length)))]

    def square_chain(self, rows: int, base: Size, name: str) -> list[Stmt]:
        """The same for squares of B, and for what is left of K."""
        assert isinstance(self.k, int)
        full, left = self.k_length // self.side, self.k % self.side
        start = Dim.symbol("u", 0, below=full) * self.side
        statements: list[Stmt] = [For("u", full, "serial", self.squares(rows, base, name, start, self.side))]
        if left:
            more = (self.k_length + self.side - 1) // self.side - full  # 1 in the last block of k
            statements.append(For("v", more, "serial", self.squares(rows, base, name, full * self.side, left)))
        return statements

    def squares(self, rows: int, base: Size, name: str, start: Size, height: int) -> tuple[Stmt, ...]:
        """`height` steps of the sums of all columns: squares of B are transposed in registers and stay there."""
        side, begin = self.side, self.k_start + start
        first = Dim.symbol("t", 0, below=self.columns // side) * side

        def element(k: Size, j: Size, block: Block) -> Expr:
            return self._right_element(begin + k, self.read_column + first + j, block)

        copy = copied(self.puller, element, ("panel", 0, side), height, side, self.dtype)
        i, j, k = (Dim.symbol(symbol, 0, below=size) for symbol, size in (("i", rows), ("j", side), ("k", height)))
        step = Block(self.puller.names)
        a = self._left_element(self.first_row + base + i, begin + k, step)
        inner, at = step.inner(), i * self.columns + first + j
        inner.add(Store(name, at, multiply_add(a, Load("panel", k * side + j, self.dtype), Load(name, at, self.dtype))))
        multiply = For("i", rows, "unroll", (*step.statements, For("j", side, "tile", tuple(inner.statements))))
        parts = For("t", self.columns // side, "unroll", (*copy, For("k", height, "unroll", (multiply,))))
        return (*self.columns_ahead(begin), parts)

    def columns_ahead(self, begin: Size) -> list[Stmt]:
        """Ask for what is further on in every column, or, near their ends, at the beginning of columns that come after."""
        place = self._right_place()
        assert place is not None
        between, further = coefficient(place.offset, "j"), begin + COLUMN_AHEAD
        assert between is not None
        over = further // self.k
        at = substitute(place.offset, {"k": further - over * self.k, "j": self.read_column + over * self.columns})
        return [Prefetch(place.buffer, at + column * between, place.dtype) for column in range(self.columns)]

    def steps(self, rows: int, base: Size, number: Size, first: Size, name: str, at: Size, start: Size, length: Size) -> Stmt:
        i, j = Dim.symbol("i", 0, high=rows - 1), Dim.symbol("j", 0, high=self.columns - 1)
        k = Dim.symbol("k", 0, below=length)
        step = Block(self.puller.names)
        if self.left_panels is None:
            a = self._left_element(self.first_row + base + i, self.k_start + start + k, step)
        else:
            tile = self.block * (self.row_block // self.tile_rows) + number
            a = self.element(self.left_panels, (tile, self.k_start + k, i + self.tile_rows - rows), step)  # the last is full too
        inner = step.inner()
        b = self.from_panel(k, first, j, inner)
        inner.add(Store(name, at, multiply_add(a, b, Load(name, at, self.dtype))))
        multiply = For("i", rows, "unroll", (*step.statements, For("j", self.columns, "tile", tuple(inner.statements))))
        return For("k", length, "serial", (multiply, *self.ahead(k, first)))

    def from_panel(self, k: Size, first: Size, j: Size, block: Block) -> Expr:
        """Element (k, first + j) of B's panel, k counted from the start of the block or strip."""
        match self.reading:
            case "panels":
                assert self.right_panels is not None
                return self.element(self.right_panels, (self.panel, self.k_start + k, first + j), block)
            case "direct":
                return self._right_element(self.k_start + k, self.first_column + first + j, block)
            case "strips":
                return block.let(Load("panel", k * self.columns + j, self.dtype))
        if self.by_tile:
            k = self.k_start + k  # then all of it is there
        return block.let(Load("panel", k * self.width_limit + first + j, self.dtype))

    def _is_prefetched(self) -> bool:
        return isinstance(self.m, int) and self.m <= PREFETCH_ROWS

    def ahead(self, k: Size, first: Size) -> list[Stmt]:
        """Ask for the same place of the panel's next block of k, which the next panel follows, or for rows further on."""
        if not self._is_prefetched():
            return []
        if self.reading == "direct" and self.columns > panel_width(self.dtype):
            rows: Size = ROWS_AHEAD
        elif self.given and self.m > 1:
            rows = self.k if self.k_blocks == 1 else K_BLOCK
        else:
            return []

        def element(k: Size, j: Size, block: Block) -> Expr:
            return self.from_panel(k, 0, j, block)

        place = place_of(self.puller, element, self.k, self.width_limit)
        step = None if place is None else coefficient(place.offset, "k")
        if place is None or step is None:
            return []
        far = substitute(place.offset, {"k": k, "j": first}) + rows * step
        lines = range(0, self.columns, LINE_NBYTES // place.dtype.itemsize)
        return [Prefetch(place.buffer, far + line, place.dtype) for line in lines]

    def early(self, rows: int, base: Size, first: Size) -> list[Stmt]:
        """Ask for what the epilogue of a tile's row ``i`` reads and writes: it comes while the sums are made."""
        if self.open or not self.by_tile:
            return []
        trial, zero = Block(self.puller.names), Const(0.0 if self.dtype.kind == "f" else 0, self.dtype)
        i, j = Dim.symbol("i", 0, high=rows - 1), Dim.symbol("j", 0, high=self.columns - 1)
        self.epilogue(zero, self.first_row + base + i, self.first_column + first + j, trial)
        dtypes = {name: value.dtype for (value, _), name in self.puller.buffers.items()}
        found: list[Stmt] = []
        for statement in trial.statements:
            match statement:
                case Let(_, Load(buffer, offset, _)) | Store(buffer, offset, _):
                    if "i" in free(offset) and coefficient(offset, "j") == 1:
                        lines = range(0, self.columns, LINE_NBYTES // dtypes[buffer].itemsize)
                        found += [Prefetch(buffer, substitute(offset, {"j": column}), dtypes[buffer]) for column in lines]
        return found

    def over_tile(self, rows: int, body: tuple[Stmt, ...]) -> Stmt:
        return For("i", rows, "unroll", (For("j", self.columns, "tile", body),))

    def flush(self, rows: int, base: Size, first: Size, name: str, at: Size) -> Stmt:
        """The tile's results: to the outputs through the epilogue, or to scratch."""
        block = Block(self.puller.names)
        result: Expr = Load(name, at, self.dtype)
        i, j = Dim.symbol("i", 0, high=rows - 1), first + Dim.symbol("j", 0, high=self.columns - 1)
        if self.direct:
            self.epilogue(result, self.first_row + base + i, self.first_column + j, block)
        else:
            there = at if self.by_tile else (base + i) * self.width_limit + j
            if self.k_blocks != 1:
                result = Call("add", (Load("partial", there, self.dtype), result), self.dtype)
            block.add(Store("partial", there, result))
        return self.over_tile(rows, tuple(block.statements))

    # ---- epilogue --------------------------------------------------------------------------------------------------

    def clear_partial(self) -> Stmt:
        zero = Const(0.0 if self.dtype.kind == "f" else 0, self.dtype)
        at = Dim.symbol("i") * self.width_limit + Dim.symbol("j")
        return For("i", self.rows, "serial", (For("j", self.width_limit, "vector", (Store("partial", at, zero),)),))

    def epilogue_of_sums(self, rows: Size, base: Size, first: Size, columns: int) -> Stmt:
        """The results of a tile or of a whole unit, whose sums are in scratch in rows of so many columns."""
        block = Block(self.puller.names)
        width: Size = columns if self.whole_panels else minimum(columns, self.width - first)
        width = width if columns == self.width_limit else maximum(0, width)
        i, j = Dim.symbol("i", 0, below=rows), Dim.symbol("j", 0, below=width)
        total = Load("partial", i * columns + self.first_column - self.read_column + j, self.dtype)
        self.epilogue(total, self.first_row + base + i, self.first_column + first + j, block)
        short = all(_is_primitive(s.value) for s in block.statements if isinstance(s, Let | Store))
        if isinstance(rows, int) and self.by_tile and self.whole_panels and short:
            return self.over_tile(rows, tuple(block.statements))
        return For("i", rows, "serial", (For("j", width, "vector", tuple(block.statements)),))

    def epilogue(self, result: Expr, row: Size, column: Size, block: Block) -> None:
        place = (column, row) if self.swapped else (row, column)
        axis_index: dict[int, Size] = dict(enumerate((*self.batch, *place)))
        group = self.group

        def index_of(value: Value) -> Position:
            return tuple(0 if a is None else axis_index[a] for a in group.value_axes[value])

        block.memo[self.out, index_of(self.out)] = block.let(cast(result, self.out.dtype))
        elements = [block.let(self.puller.pull(value, index_of(value), block)) for value in group.outputs]
        for value, element in zip(group.outputs, elements, strict=True):  # after every load: an output may lie over an input
            block.add(Store(self.puller.buffer(value, "out"), self.puller.offset(value, index_of(value)), element))


def _should_be_more(units: int, rows: int) -> bool:
    """Whether so many units of so many rows would leave a few threads with unequal shares."""
    if units < LEAST_UNITS:
        return True
    return units < EVEN_UNITS and (rows >= 2 * LEAST_ROWS or (units % 4 != 0 and rows >= LEAST_ROWS))


def _is_primitive(expr: Expr) -> bool:
    return not isinstance(expr, Call) or (expr.fn in FUNCTIONS and all(map(_is_primitive, expr.args)))


def _is_at_least(least: int, *sizes: Size) -> bool:
    count = product(sizes)
    return isinstance(count, int) and count >= least
