"""Hand-laid nests of recurrent cells: a loop over time in each of a few rows of the batch.

Enters: a group whose anchor is a sequence (`ops.recurrent`) or its gradient.  Leaves: `Launch`es: a copy of each weight in panels,
then the loop.  Never here: the cells' formulas (`ops.recurrent_cells`).

Rows of a batch do not meet, so a unit is a block of rows that goes through all times: a product with the weight, which stays in the
cache, then the cell, element by element.  States and gates are where the results are stored; there is no other memory.  An
element of a product is one fma chain in order of k from zero.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from graphc.dims import Dim, is_equal, minimum
from graphc.dtypes import DType, bool_
from graphc.ir.graph import Node, Value
from graphc.ir.loops import Alloc, Call, Const, Expr, For, Index, Load, Size, Stmt, Store
from graphc.ir.op import TensorType
from graphc.ops.expressions import select
from graphc.ops.recurrent import Operands, cell_of
from graphc.ops.recurrent_cells import ELEMENTS
from graphc.schedule.lower import Context, Launch, finish, parted
from graphc.schedule.panels import Element, panels_launch
from graphc.schedule.partition import Group
from graphc.schedule.pull import Block, Puller, cast

LEAST_ROWS = 4  # fewer chains of fma than this leave the machine waiting for each
PANEL_BYTES = 64

Place = tuple[Size, ...]


def rows_of_block(lanes: int) -> int:
    """Rows of a block and of a register tile: enough sums to keep the machine busy, in some of its registers."""
    return 8 if lanes >= 16 else 6


def recurrent(group: Group, context: Context) -> list[Launch]:
    """A sequence."""
    return _Forward(group, context).launches()


def recurrent_backward(group: Group, context: Context) -> list[Launch]:
    """The gradient of a sequence."""
    return _Backward(group, context).launches()


class _Steps:
    """What both directions have: the unit of rows, loads and stores of whole results, products."""

    def __init__(self, group: Group, context: Context) -> None:
        assert group.anchor is not None
        self.group, self.context, self.node = group, context, group.anchor
        self.dtype: DType = self.node.outputs[0].dtype.compute
        self.puller = Puller(context.checks, lambda _: False)
        self.width = PANEL_BYTES // self.dtype.itemsize
        self.packed: list[Launch] = []
        self.allocs: list[Stmt] = []
        self.tile_names = count()

    def begin(self, node: Node, inputs: tuple[Value, ...]) -> None:
        """The operands of the sequence, and the block of rows."""
        self.cell = cell_of(node.op)
        self.given = Operands.of(self.cell, inputs, **node.attrs)
        self.hidden: Size = self.given.hidden
        self.steps, self.batch = self.given.x.shape[:2]
        self.size = self.given.h0.shape[1]
        batch = self.batch
        most = rows_of_block(self.context.lanes)
        self.block: int = most
        if isinstance(batch, int):
            even = [n for n in range(most, LEAST_ROWS - 1, -1) if batch % n == 0]
            self.block = max(1, batch) if batch < most else next(iter(even), most)
        self.units = (batch + self.block - 1) // self.block
        self.first_row = Dim.symbol("p", 0, below=self.units) * self.block
        whole = isinstance(batch, int) and batch % self.block == 0
        self.rows: Size = self.block if whole else minimum(self.block, batch - self.first_row)
        self.turn = Dim.symbol("t", 0, below=self.steps)

    def finished(self, before: list[Stmt], step: list[Stmt], note: str) -> list[Launch]:
        loop = For("t", self.steps, "serial", tuple(step))
        nest = For("p", self.units, "parallel", (*self.allocs, *before, loop))
        known, times = parted(self.steps, self.size, self.hidden)
        work = self.block * known * self.cell.weights / 8
        return [*self.packed, finish(self.puller, nest, self.units, work, self.group, note, times)]

    # ---- elements ----------------------------------------------------------------------------------------------------

    def pull(self, value: Value, index: Place, block: Block) -> Expr:
        """An element of an operand in the compute dtype."""
        return block.let(cast(self.puller.pull(value, index, block), self.dtype))

    def load(self, value: Value, index: Place, block: Block) -> Expr:
        """An element of a result, stored before, in the compute dtype."""
        stored = Load(self.puller.buffer(value, "inout"), self.puller.offset(value, index), value.dtype)
        return block.let(cast(block.let(stored), self.dtype))

    def store(self, value: Value, index: Place, element: Expr, block: Block) -> None:
        name = self.puller.buffer(value, "inout")
        block.add(Store(name, self.puller.offset(value, index), block.let(cast(element, value.dtype))))

    def over(self, columns: Size, body: Callable[[Size, Size, Block, Block], None]) -> Stmt:
        """Every row of the unit and every column: ``body(row, column, statements of the element, those of the row)``."""
        i, j = Dim.symbol("i", 0, below=self.rows), Dim.symbol("j", 0, below=columns)
        row = Block(self.puller.names)
        element = row.inner()
        body(self.first_row + i, j, element, row)
        return For("i", self.rows, "serial", (*row.statements, For("j", columns, "vector", tuple(element.statements))))

    def going(self, time: Size, row: Size, block: Block) -> Expr | None:
        """Whether a row's sequence has not ended; None where all are of one length."""
        if self.given.lengths is None:
            return None
        length = block.let(self.puller.pull(self.given.lengths, (row,), block))
        return block.let(Call("lt", (block.let(Index(time)), length), bool_))

    # ---- products ----------------------------------------------------------------------------------------------------

    def panels(self, weight: Value, transposed: bool) -> Value:
        """A copy of a matrix [depth, columns], or of its transpose, as [panels, depth, width], zeros beyond the last column."""
        depth, columns = weight.shape[::-1] if transposed else weight.shape
        shape = ((columns + self.width - 1) // self.width, depth, self.width)
        target = Value(TensorType(weight.dtype, shape), None, f"panels of {weight.name}")

        def source(puller: Puller) -> Callable[[Place], Element]:
            def element(row: Size, column: Size, block: Block) -> Expr:
                return block.let(puller.pull(weight, (column, row) if transposed else (row, column), block))

            return lambda _: element

        self.packed.append(panels_launch(self.context, Group(list(shape)), target, columns, source))
        return target

    def product(
        self,
        left: Callable[[Size, Size, Block], Expr],
        panels: Value,
        columns: Size,
        done: Callable[[Expr, Size, Size, Block], None],
    ) -> Stmt:
        """left[row, k] times a matrix in panels; ``done(sum, row, column, statements)`` for every element."""
        q = Dim.symbol("q", 0, below=panels.shape[0])
        whole = isinstance(columns, int) and columns % self.width == 0
        name = f"acc{next(self.tile_names)}"
        body: list[Stmt] = []
        if not whole:
            self.allocs.append(Alloc(f"{name}p", self.dtype, self.block * self.width))

        def tile(rows: int, base: Size, suffix: str) -> tuple[Stmt, ...]:
            acc = name + suffix
            self.allocs.append(Alloc(acc, self.dtype, rows * self.width, "registers"))
            i, j = Dim.symbol("i", 0, high=rows - 1), Dim.symbol("j", 0, high=self.width - 1)
            k, at = Dim.symbol("k", 0, below=panels.shape[1]), i * self.width + j
            clear = self.over_tile(rows, (Store(acc, at, Const(0.0, self.dtype)),))
            outer = Block(self.puller.names)
            a = left(self.first_row + base + i, k, outer)
            inner = outer.inner()
            b = self.pull(panels, (q, k, j), inner)
            inner.add(Store(acc, at, Call("fma", (a, b, Load(acc, at, self.dtype)), self.dtype)))
            both = For("i", rows, "unroll", (*outer.statements, For("j", self.width, "tile", tuple(inner.statements))))
            block, total = Block(self.puller.names), Load(acc, at, self.dtype)
            if whole:
                done(block.let(total), self.first_row + base + i, q * self.width + j, block)
            else:
                block.add(Store(f"{name}p", (base + i) * self.width + j, total))
            return clear, For("k", panels.shape[1], "serial", (both,)), self.over_tile(rows, tuple(block.statements))

        if isinstance(self.rows, int):
            body.extend(tile(self.rows, 0, "a"))
        else:
            for rows in range(self.block, 0, -1):  # each by itself: of few rows none may wait for the one before it
                name_of_rows = "a" if rows == self.block else f"b{rows}"
                body.append(For("it", is_equal(self.rows, rows), "serial", tile(rows, 0, name_of_rows)))
        if not whole:
            body.append(self.from_scratch(f"{name}p", q, columns, done))
        return For("q", panels.shape[0], "serial", tuple(body))

    def over_tile(self, rows: int, body: tuple[Stmt, ...]) -> Stmt:
        return For("i", rows, "unroll", (For("j", self.width, "tile", body),))

    def from_scratch(self, scratch: str, q: Size, columns: Size, done: Callable[[Expr, Size, Size, Block], None]) -> Stmt:
        width = minimum(self.width, columns - q * self.width)
        i, j = Dim.symbol("i", 0, below=self.rows), Dim.symbol("j", 0, below=width)
        block = Block(self.puller.names)
        total = block.let(Load(scratch, i * self.width + j, self.dtype))
        done(total, self.first_row + i, q * self.width + j, block)
        return For("i", self.rows, "serial", (For("j", width, "vector", tuple(block.statements)),))


class _Forward(_Steps):
    def __init__(self, group: Group, context: Context) -> None:
        super().__init__(group, context)
        self.begin(self.node, self.node.inputs)
        self.hs, *memory, self.kept = self.node.outputs
        self.cs = memory[0] if memory else None
        self.scratch = self.kept not in group.outputs  # nobody reads what is kept of each step: one step's memory serves all
        if self.scratch:
            self.allocs.append(Alloc("kept", self.kept.dtype, self.block * self.kept_width()))
        reverse = self.given.reverse
        self.time: Size = self.steps - 1 - self.turn if reverse else self.turn
        self.old: Size = self.time + 1 if reverse else self.time
        self.new: Size = self.time if reverse else self.time + 1
        self.first: Size = self.steps if reverse else 0

    def launches(self) -> list[Launch]:
        given = self.given
        weight = self.panels(given.weight, transposed=True)
        before = [self.copied(given.h0, self.hs)]
        if self.cs is not None:
            before.append(self.copied(given.c0, self.cs))
        step: list[Stmt] = [
            self.product(
                lambda row, k, block: self.load(self.hs, (self.old, row, k), block),
                weight,
                self.hidden * self.cell.weights,
                self.keep,
            ),
            self.over(self.hidden, self.element),
        ]
        if given.projection is not None:
            projection = self.panels(given.projection, transposed=True)
            step.append(
                self.product(
                    lambda row, k, block: self.kept_at(row, self.hidden * self.cell.kept + k, block),
                    projection,
                    self.size,
                    self.projected,
                )
            )
        return self.finished(before, step, f"{self.cell.name}: {self.block} rows over time")

    def kept_width(self) -> int:
        width = self.kept.shape[-1]
        assert isinstance(width, int), "the sizes of cells are known when they are compiled"
        return width

    def keep(self, element: Expr, row: Size, column: Size, block: Block) -> None:
        """Store what is kept of this step."""
        if not self.scratch:
            return self.store(self.kept, (self.time, row, column), element, block)
        at = (row - self.first_row) * self.kept_width() + column
        block.add(Store("kept", at, block.let(cast(element, self.kept.dtype))))

    def kept_at(self, row: Size, column: Size, block: Block) -> Expr:
        """What `keep` stored."""
        if not self.scratch:
            return self.load(self.kept, (self.time, row, column), block)
        stored = Load("kept", (row - self.first_row) * self.kept_width() + column, self.kept.dtype)
        return block.let(cast(block.let(stored), self.dtype))

    def copied(self, source: Value, target: Value) -> Stmt:
        """The first state."""

        def body(row: Size, column: Size, block: Block, _: Block) -> None:
            self.store(target, (self.first, row, column), self.pull(source, (row, column), block), block)

        return self.over(source.shape[1], body)

    def element(self, row: Size, j: Size, block: Block, outer: Block) -> None:
        """The cell of one hidden unit."""
        given, cell, at = self.given, self.cell, (self.time, row)
        going = self.going(self.time, row, outer)
        x, raw = [], []
        for k in range(cell.weights):
            x.append(self.pull(given.x, (*at, k * self.hidden + j), block))
            raw.append(self.kept_at(row, k * self.hidden + j, block))
        bias = None if given.bias is None else self.pull(given.bias, (j,), block)
        gates = [block.let(g) for g in cell.gates(ELEMENTS, x, raw, bias)]
        if going is not None:
            idle = [Const(value, self.dtype) for value in cell.idle]
            gates = [block.let(select(going, g, rest)) for g, rest in zip(gates, idle, strict=True)]
        old = self.load(self.hs if self.cs is None else self.cs, (self.old, row, j), block)
        memory, new = cell.state(ELEMENTS, gates, old)
        memory, new = None if memory is None else block.let(memory), block.let(new)
        for k, gate in enumerate(gates if not self.scratch else ()):
            self.keep(gate, row, k * self.hidden + j, block)
        if self.cs is not None and memory is not None:
            self.store(self.cs, (self.new, row, j), memory, block)
        if given.projection is not None:
            self.keep(new, row, cell.kept * self.hidden + j, block)
            return
        if going is not None and cell.carries:
            new = block.let(select(going, new, self.load(self.hs, (self.old, row, j), block)))
        self.store(self.hs, (self.new, row, j), new, block)

    def projected(self, total: Expr, row: Size, column: Size, block: Block) -> None:
        going = self.going(self.time, row, block)
        if going is not None:
            total = block.let(select(going, total, self.load(self.hs, (self.old, row, column), block)))
        self.store(self.hs, (self.new, row, column), total, block)


class _Backward(_Steps):
    def __init__(self, group: Group, context: Context) -> None:
        super().__init__(group, context)
        cell = cell_of(self.node.op)
        self.arriving, rest = list(self.node.inputs[: 1 + cell.has_memory]), self.node.inputs[1 + cell.has_memory :]
        self.hs, *memory, self.kept = rest[: 2 + cell.has_memory]
        self.memory = memory[0] if memory else self.hs
        self.begin(self.node, rest[2 + cell.has_memory :])
        self.slopes, self.dhs, *dc = self.node.outputs
        self.dc = dc[0] if dc else None
        reverse = self.given.reverse
        self.time: Size = self.turn if reverse else self.steps - 1 - self.turn
        self.old: Size = self.time + 1 if reverse else self.time
        self.new: Size = self.time if reverse else self.time + 1
        self.last: Size = 0 if reverse else self.steps

    def launches(self) -> list[Launch]:
        given, cell = self.given, self.cell
        before = [self.over(self.size, self.begun)]
        if self.dc is not None:
            before.append(self.over(self.hidden, self.memory_begun))
        step: list[Stmt] = []
        if given.projection is not None:
            step.append(
                self.product(
                    lambda row, k, block: self.load(self.dhs, (self.new, row, k), block),
                    self.panels(given.projection, transposed=False),
                    self.hidden,
                    lambda total, row, j, block: self.store(
                        self.slopes, (self.time, row, cell.kept * self.hidden + j), total, block
                    ),
                )
            )
        step.append(self.over(self.size, self.reached_directly))
        step.append(self.over(self.hidden, self.element))
        step.append(
            self.product(
                lambda row, k, block: self.load(self.slopes, (self.time, row, k), block),
                self.panels(given.weight, transposed=False),
                self.size,
                self.reached,
            )
        )
        return self.finished(before, step, f"{cell.name}: gradient, {self.block} rows back through time")

    def begun(self, row: Size, column: Size, block: Block, _: Block) -> None:
        at = (self.last, row, column)
        self.store(self.dhs, at, self.pull(self.arriving[0], at, block), block)

    def memory_begun(self, row: Size, column: Size, block: Block, _: Block) -> None:
        assert self.dc is not None
        self.store(self.dc, (row, column), self.pull(self.arriving[1], (self.last, row, column), block), block)

    def reached_directly(self, row: Size, column: Size, block: Block, outer: Block) -> None:
        """The gradient of the old output: what arrives from outside, and the new one's where the sequence has ended."""
        at = (self.old, row, column)
        total = self.pull(self.arriving[0], at, block)
        going = self.going(self.time, row, outer) if self.cell.carries else None
        if going is not None:
            carried = select(going, Const(0.0, self.dtype), self.load(self.dhs, (self.new, row, column), block))
            total = block.let(ELEMENTS.add(total, block.let(carried)))
        self.store(self.dhs, at, total, block)

    def element(self, row: Size, j: Size, block: Block, outer: Block) -> None:
        """The slopes of the cell of one hidden unit."""
        cell, at = self.cell, (self.time, row)
        kept = [self.pull(self.kept, (*at, k * self.hidden + j), block) for k in range(cell.kept)]
        if self.given.projection is None:
            dh = self.load(self.dhs, (self.new, row, j), block)
        else:
            dh = self.load(self.slopes, (*at, cell.kept * self.hidden + j), block)
        new, old = (self.pull(self.memory, (slot, row, j), block) for slot in (self.new, self.old))
        dc = None if self.dc is None else self.load(self.dc, (row, j), block)
        found, dc, direct = cell.slopes(ELEMENTS, dh, kept, new, old, dc)
        found = tuple(block.let(slope) for slope in found)
        if self.dc is not None:
            arriving = self.pull(self.arriving[1], (self.old, row, j), block)
            dc = block.let(ELEMENTS.add(arriving, block.let(dc)))
        if direct is not None:
            there = (self.old, row, j)
            total = block.let(ELEMENTS.add(self.load(self.dhs, there, block), block.let(direct)))
            self.store(self.dhs, there, total, block)
        for k, slope in enumerate(found):
            self.store(self.slopes, (*at, k * self.hidden + j), slope, block)
        if self.dc is not None:
            self.store(self.dc, (row, j), dc, block)

    def reached(self, total: Expr, row: Size, column: Size, block: Block) -> None:
        at = (self.old, row, column)
        self.store(self.dhs, at, block.let(ELEMENTS.add(self.load(self.dhs, at, block), total)), block)
