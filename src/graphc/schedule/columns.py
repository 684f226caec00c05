"""Column orientation of a group with a reduced axis: a tile of a kept axis is innermost.

Enters: an analysed region and its innermost axis.  Leaves: a `Launch`.  Never here: which orientation a group has.

The 32 lanes of each column's accumulator lie in scratch, lane by lane; the tree is that of rows.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.dims import Dim, is_equal, known_less, maximum, minimum, product
from graphc.dtypes import DType
from graphc.ir.graph import Node, Value
from graphc.ir.loops import BLOCK, LANES, Alloc, Call, Expr, For, Load, Size, Stmt, Store, identity
from graphc.ir.op import Reduce
from graphc.schedule.lower import COLUMN_TILE, Launch, Region, finish
from graphc.schedule.pull import Block, Position, cast, delinear

WIDE_TILE = 256  # columns where there are enough of them: longer pieces of a row come from memory faster
ENOUGH_TILES = 4  # for the threads
ROWS_TOGETHER = 4  # rows that a lane takes between one load and one store of its accumulator
CHEAP_ROW = 4.0  # cost of an element at which that many rows are written out; fewer of costlier ones


class Columns:
    """Column orientation of a region: axis `column` innermost, in tiles."""

    def __init__(self, region: Region, column: int) -> None:
        self.region, self.column = region, column
        self.group, self.puller = region.group, region.puller
        length = self.group.axes[column]
        self.others = [a for a in self.group.kept() if a != column]
        sizes = tuple(self.group.axes[a] for a in self.others)
        columns = product(sizes) * length
        tile = WIDE_TILE if isinstance(columns, int) and columns >= ENOUGH_TILES * WIDE_TILE else COLUMN_TILE
        self.tile = length if isinstance(length, int) and length <= tile else tile
        tiles = (length + self.tile - 1) // self.tile
        self.extent = product(sizes) * tiles
        p = Dim.symbol("p", 0, below=self.extent)
        start = (p % tiles) * self.tile
        whole = isinstance(length, int) and length % self.tile == 0
        self.width: Size = self.tile if whole else minimum(self.tile, length - start)
        self.at = Dim.symbol("v", 0, below=self.width)
        self.axis_index = dict(zip(self.others, delinear(p // tiles, sizes), strict=True))
        self.axis_index[column] = start + self.at
        self.length = self.group.axes[self.group.reduced]  # type: ignore[index]
        self.lanes = max(1, min(LANES, self.length)) if isinstance(self.length, int) else LANES
        self.reached: Size = self.lanes  # lanes that have a row
        self.body = Block(self.puller.names)
        self.allocs: list[Stmt] = []
        self.kept_rows: list[Value] = []  # outputs of the pass that later ones read back

    def lower(self) -> Launch:
        """The launch."""
        region = self.region
        for phase in range(region.passes):
            self.kept_level(phase, [])
            folded = self.pass_over(phase)
            region.reload_later([(value, "") for value in dict.fromkeys(self.kept_rows)])
            self.kept_rows.clear()
            self.kept_level(phase + 1, folded)
        nest = For("p", self.extent, "parallel", (*self.allocs, *self.body.statements))
        work, note = self.region.work_per_element * self.tile, f"columns, {self.region.passes} passes"
        return finish(self.puller, nest, self.extent, work, self.group, note, self.length)

    def vector(self, block: Block) -> For:
        return For("v", self.width, "vector", tuple(block.statements))

    def alloc(self, dtype: DType, size: int) -> str:
        """Scratch of the kernel; gives its name."""
        name = f"s{next(self.region.names)}"
        self.allocs.append(Alloc(name, dtype, size))
        return name

    def kept_level(self, phase: int, folded: list[tuple[Node, str]]) -> None:
        """Kept-level values known before pass `phase`: stored where they are outputs, and in scratch for later passes."""
        region, block = self.region, Block(self.puller.names, self.body)
        for node, name in folded:
            out = node.outputs[0]
            total = block.let(cast(Load(name, self.at, out.dtype.compute), out.dtype))
            block.memo[out, region.index_of(out, self.axis_index)] = total
        fresh: list[tuple[Value, str]] = []
        stores: list[Stmt] = []
        done = {n for n, _ in folded}
        for node in self.group.members:
            for value in node.outputs:
                if region.is_full(value) or region.phase_of[value] != phase or value in self.puller.reload:
                    continue
                if isinstance(node.lowering, Reduce) and node not in done:
                    continue
                index = region.index_of(value, self.axis_index)
                element = block.let(self.puller.pull(value, index, block))
                if value in region.outputs:
                    stores.append(Store(self.puller.buffer(value, "out"), self.puller.offset(value, index), element))
                if value in region.last_use:
                    name = self.alloc(value.dtype, self.tile)
                    block.add(Store(name, self.at, element))
                    fresh.append((value, name))
        block.statements.extend(stores)  # after every load: an output may lie over an input
        if block.statements:
            self.body.add(self.vector(block))
        for value, name in fresh:
            self.puller.reload[value] = _scratch(name, self.at, value)

    def pass_over(self, phase: int) -> list[tuple[Node, str]]:
        """One pass over the rows; gives the reductions that it ends with, and the scratch that holds each."""
        region = self.region
        nodes = [n for n, at in region.reduces if at == phase]
        accumulators = [(n, self.alloc(n.outputs[0].dtype.compute, self.lanes * self.tile)) for n in nodes]
        together = max(1, min(ROWS_TOGETHER, int(ROWS_TOGETHER * CHEAP_ROW / region.work_per_element)))
        if not nodes:
            row = Dim.symbol("r", 0, below=self.length)
            self.add(For("r", self.length, "serial", self.rows(phase, [], [row], 0, False)))
        elif isinstance(self.length, int) and self.length <= BLOCK:
            self.add(*self.known_rows(phase, accumulators, 0, self.length, together), *self.folds(accumulators))
        else:
            self.blocks(phase, accumulators, together)
        return accumulators

    def add(self, *statements: For) -> None:
        for statement in statements:
            if statement.body:
                self.body.add(statement)

    def blocks(self, phase: int, accumulators: list[tuple[Node, str]], together: int) -> None:
        """Rows of which there may be several blocks; where their number is open and they are one block, code for one."""
        count = (self.length + BLOCK - 1) // BLOCK
        start = Dim.symbol("q") * BLOCK
        if isinstance(self.length, int) and self.length % BLOCK == 0:
            loops = self.known_rows(phase, accumulators, start, BLOCK, together)
        else:
            fills = [self.fill(n, name, self.lanes) for n, name in accumulators]
            loops = [*fills, *self.following_rows(phase, accumulators, start, minimum(BLOCK, self.length - start), together)]
        if isinstance(self.length, int) or not known_less(0, self.length):
            self.add(*self.blocked(accumulators, [*loops, *self.folds(accumulators)], count))
            return
        alone = is_equal(count, 1)
        several = self.blocked(accumulators, [*loops, *self.folds(accumulators)], count)
        first = self.first_rows(phase, accumulators, together)
        self.reached = minimum(LANES, self.length)
        self.add(For("o", alone, "serial", (*first, *self.folds(accumulators))))
        self.add(For("o", 1 - alone, "serial", tuple(several)))

    def known_rows(self, phase: int, accumulators: list[tuple[Node, str]], start: Size, length: Size, together: int) -> list[For]:
        """A block of `length` rows, a number: each lane takes `together` of its rows at a time, beginning with its first ones."""
        assert isinstance(length, int)
        step = LANES * together
        loops: list[For] = []
        groups = length // step
        if groups:
            loops.append(self.lane_loop(phase, accumulators, start, 0, LANES, together, fresh=True))
        if groups > 1:
            g = Dim.symbol("g", 0, below=groups - 1)
            following = self.lane_loop(phase, accumulators, start + (g + 1) * step, 0, LANES, together)
            loops.append(For("g", groups - 1, "serial", (following,)))
        rest, at = length - groups * step, start + groups * step
        for low, high, rows in ((0, rest % LANES, rest // LANES + 1), (rest % LANES, LANES, rest // LANES)):
            if low < high and rows:
                loops.append(self.lane_loop(phase, accumulators, at, low, high, rows, fresh=not groups))
        return loops or [self.fill(n, name, self.lanes) for n, name in accumulators]

    def first_rows(self, phase: int, accumulators: list[tuple[Node, str]], together: int) -> list[For]:
        """The only block, of an open number of rows: a first step, such that whole ones are left, and those."""
        loops: list[For] = []
        first = (maximum(1, self.length // LANES) - 1) % together
        for rows in range(1, together + 1):
            lanes = minimum(LANES, self.length) if rows == 1 else LANES
            begun = self.lane_loop(phase, accumulators, 0, 0, lanes, rows, fresh=True)
            loops.append(For("f", is_equal(first, rows - 1), "serial", (begun,)))
        done = (first + 1) * LANES
        return [*loops, *self.following_rows(phase, accumulators, done, maximum(0, self.length - done), together)]

    def following_rows(
        self, phase: int, accumulators: list[tuple[Node, str]], start: Size, length: Size, together: int
    ) -> list[For]:
        """`length` rows from `start`, which is the first lane's: each lane takes `together` of its rows at a time, then one."""
        loops: list[For] = []
        done: Size = 0
        if together > 1:
            step = LANES * together
            groups = length // step
            g, done = Dim.symbol("g", 0, below=groups), groups * step
            body = self.lane_loop(phase, accumulators, start + g * step, 0, LANES, together)
            loops.append(For("g", groups, "serial", (body,)))
        row = Dim.symbol("r", 0, below=length - done)
        loops.append(For("r", length - done, "serial", self.rows(phase, accumulators, [start + done + row], row % LANES, False)))
        return loops

    def lane_loop(
        self, phase: int, accumulators: list[tuple[Node, str]], start: Size, low: int, high: Size, rows: int, fresh: bool = False
    ) -> For:
        """Lanes low to high each take the next `rows` of their rows from `start`; fresh: their first ones."""
        lane = Dim.symbol("l", 0, below=high - low) + low
        body = self.rows(phase, accumulators, [start + lane + LANES * i for i in range(rows)], lane, fresh)
        return For("l", high - low, "serial", body)

    def rows(self, phase: int, accumulators: list[tuple[Node, str]], rows: list[Size], lane: Size, fresh: bool) -> tuple[Stmt, ...]:
        """`rows` are folded into one lane, in order."""
        region, inner = self.region, Block(self.puller.names, self.body)
        kept: list[Value] = []
        totals: dict[str, Expr] = {}
        at = lane * self.tile + self.at
        for row in rows:
            self.axis_index[self.group.reduced] = row  # type: ignore[index]
            for node, name in accumulators:
                assert isinstance(node.lowering, Reduce)
                dtype = node.outputs[0].dtype.compute
                operand = inner.let(region.reduced_operand(node, self.axis_index, inner))
                before = totals.get(name) or (identity(node.lowering.fn, dtype) if fresh else Load(name, at, dtype))
                totals[name] = inner.let(Call(node.lowering.fn, (before, operand), dtype))
            for value, at_phase in region.phase_of.items():
                if at_phase == phase and region.is_full(value) and value in region.outputs:
                    region.store(value, self.axis_index, inner)
                    if region.worth_keeping(value, phase):
                        kept.append(value)
        for name, total in totals.items():
            inner.add(Store(name, at, total))
        self.kept_rows += kept
        return (self.vector(inner),) if inner.statements else ()

    def blocked(self, accumulators: list[tuple[Node, str]], one_block: list[For], count: Size) -> list[For]:
        """Several blocks of rows: each is folded by itself, the results are folded in order, and go where that of one would."""
        totals = [self.alloc(node.outputs[0].dtype.compute, self.tile) for node, _ in accumulators]
        gather: list[For] = []
        last: list[For] = []
        for (node, name), total in zip(accumulators, totals, strict=True):
            dtype = node.outputs[0].dtype.compute
            fn = node.lowering.fn  # type: ignore[union-attr]
            value = Call(fn, (Load(total, self.at, dtype), Load(name, self.at, dtype)), dtype)
            gather.append(For("v", self.width, "vector", (Store(total, self.at, value),)))
            last.append(For("v", self.width, "vector", (Store(name, self.at, Load(total, self.at, dtype)),)))
        begin = [self.fill(node, total, 1) for (node, _), total in zip(accumulators, totals, strict=True)]
        return [*begin, For("q", count, "serial", (*one_block, *gather)), *last]

    def fill(self, node: Node, name: str, lanes: int) -> For:
        """Every lane's accumulator at the start of its fold."""
        dtype = node.outputs[0].dtype.compute
        start = identity(node.lowering.fn, dtype)  # type: ignore[union-attr]
        at = Dim.symbol("l", 0, high=lanes - 1) * self.tile + self.at
        return For("l", lanes, "serial", (For("v", self.width, "vector", (Store(name, at, start),)),))

    def folds(self, accumulators: list[tuple[Node, str]]) -> list[For]:
        return [loop for node, name in accumulators for loop in self.fold(node, name)]

    def fold(self, node: Node, name: str) -> list[For]:
        """Halve the lanes: l with l+16, +8, +4, +2, +1 (lanes that no row reached hold the identity and are left out)."""
        dtype = node.outputs[0].dtype.compute
        fn = node.lowering.fn  # type: ignore[union-attr]
        statements: list[For] = []
        half = LANES // 2
        while half:
            pairs = maximum(0, minimum(half, self.reached - half))
            if pairs != 0:
                lane = Dim.symbol("l", 0, below=pairs)
                here, there = lane * self.tile + self.at, (lane + half) * self.tile + self.at
                value = Call(fn, (Load(name, here, dtype), Load(name, there, dtype)), dtype)
                statements.append(For("l", pairs, "serial", (For("v", self.width, "vector", (Store(name, here, value),)),)))
            half //= 2
        return statements


def _scratch(name: str, position: Size, value: Value) -> Callable[[Position], Expr]:
    return lambda index: Load(name, position, value.dtype)
