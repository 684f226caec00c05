"""Hand-laid nests of attention: many queries forward, one query (decoding).

Enters: a group whose anchor is `ops.attention.attention`.  Leaves: its `Launch`.  Never here: the order of rounding
(`ops.attention`), the gradient (`schedule.attention_backward`).

A unit has a head's keys and some of its queries.  It copies a block of keys into panels, transposed, and the block's values beside
them; then a few rows of queries at a time make their scores, weights and results, which stay in the nearest cache.  Where all keys
are one block, query heads that share them share the copies, and nothing is kept between blocks.  A single query reads keys and
values where they are.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.dims import Dim, maximum, minimum, product
from graphc.dtypes import DType, bool_
from graphc.ir.graph import Value
from graphc.ir.loops import Acc, Alloc, Call, Const, Expr, For, Index, Load, Size, Stmt, Store, Update, Var
from graphc.ops.attention import ROWS, keys_of_block
from graphc.ops.expressions import select
from graphc.schedule.lower import Context, Launch, finish, parted
from graphc.schedule.panels import copied as copied_panel
from graphc.schedule.partition import Group
from graphc.schedule.pull import Block, Puller, cast, delinear

CHUNK_ROWS = 256  # queries for which one copy of keys and values is made
LEAST_ROWS = 64
UNITS = 8  # where there are fewer heads, chunks are smaller
SHARED = 64  # query heads that a unit takes one after the other
ROUND = 32  # columns of scores are a multiple of it

Place = tuple[Size, ...]


def attention(group: Group, context: Context) -> list[Launch]:
    """The launch of an attention."""
    assert group.anchor is not None
    return [(_One if group.anchor.inputs[0].shape[-2] == 1 else _Many)(group, context).lower()]


def rounded_up(size: int, step: int) -> int:
    """The least multiple of `step` that is not smaller."""
    return -(-size // step) * step


def upwards(size: Size, step: int) -> Size:
    """`rounded_up` of a size that may be symbolic."""
    return (size + step - 1) // step * step


class Nest:
    """What attention's nests have in common: operands, blocks of keys, softmax of a row."""

    def __init__(self, group: Group, context: Context, inputs: tuple[Value, ...], whole: Place) -> None:
        assert group.anchor is not None
        self.group, self.node = group, group.anchor
        self.query, self.key, self.value, *self.mask = inputs
        self.dtype: DType = self.node.outputs[0].dtype.compute
        self.puller = Puller(context.checks, lambda _: False)
        *batch, self.rows, width = whole
        self.batch: Place = tuple(batch)
        self.keys: Size = self.key.shape[-2]
        features = self.query.shape[-1]
        assert isinstance(features, int) and isinstance(width, int)
        self.features, self.width = features, width
        self.causal, self.scale = bool(self.node.attrs["is_causal"]), float(self.node.attrs["scale"])
        self.tile_rows = ROWS if context.lanes >= 16 else ROWS // 2
        self.panel = max(8, min(context.lanes, 16) * 8 // self.dtype.itemsize)
        self.in_blocks_of(keys_of_block(max(self.features, self.width)))
        self.allocs: list[Stmt] = []
        self.at: list[Size] = [0] * len(self.batch)
        self.zero, self.lowest = Const(0.0, self.dtype), Const(float("-inf"), self.dtype)

    def in_blocks_of(self, keys: int) -> None:
        """Keys are taken so many at a time.   room: columns of keys in scratch."""
        self.block = keys
        self.one_block = isinstance(self.keys, int) and self.keys <= keys
        self.first_key: Size = 0 if self.one_block else Dim.symbol("q", 0) * keys
        self.room: int = keys
        if isinstance(self.keys, int) and self.one_block:
            self.room = rounded_up(self.keys, ROUND)
        self.there: Size = self.keys if self.one_block else minimum(keys, self.keys - self.first_key)

    def shared(self) -> list[int]:
        """Dims of the batch along which keys and values are the same."""
        found = []
        for d, size in enumerate(self.batch):
            back = d - len(self.batch) - 2
            if size != 1 and all(len(x.shape) < -back or x.shape[back] == 1 for x in (self.key, self.value)):
                found.append(d)
        return found

    def scratch(self, name: str, size: int, kind: str = "stack") -> str:
        self.allocs.append(Alloc(name, self.dtype, max(1, size), "registers" if kind == "registers" else "stack"))
        return name

    def load(self, buffer: str, offset: Size) -> Expr:
        return Load(buffer, offset, self.dtype)

    def element(self, value: Value, row: Size, column: Size, block: Block) -> Expr:
        """value[batch, row, column]; size-1 dims are broadcast, numbers in the compute dtype."""
        index = (*self.at, row, column)[len(self.at) + 2 - len(value.shape) :]
        place = tuple(0 if isinstance(d, int) and d == 1 else i for i, d in zip(index, value.shape, strict=True))
        found = self.puller.pull(value, place, block)
        return block.let(found if value.dtype is bool_ else cast(found, self.dtype))

    def put(self, value: Value, row: Size, column: Size, element: Expr, block: Block) -> None:
        """Store into a result, if anyone reads it."""
        if value in self.group.outputs:
            place = (*self.at, row, column)
            name = self.puller.buffer(value, "out")
            block.add(Store(name, self.puller.offset(value, place), block.let(cast(element, value.dtype))))

    def call(self, fn: str, *args: Expr) -> Expr:
        return Call(fn, args, self.dtype)

    # ---- copies ------------------------------------------------------------------------------------------------------

    def transposed(self, panels: str, source: Value, width: int, count: Size, first: Size = 0) -> list[Stmt]:
        """Rows [first, first + count) of an operand as panels [width, panel]; what lies behind the last row is undefined."""

        def panel(number: Size, extent: Size) -> list[Stmt]:
            def element(e: Size, j: Size, block: Block) -> Expr:
                return self.element(source, first + number * self.panel + j, e, block)

            target = (panels, number * width * self.panel, self.panel)
            return copied_panel(self.puller, element, target, width, extent, self.dtype)

        full, left = count // self.panel, count % self.panel
        statements: list[Stmt] = []
        if full != 0:
            statements.append(For("kt", full, "serial", tuple(panel(Dim.symbol("kt", 0, below=full), self.panel))))
        return statements + (panel(full, left) if left != 0 else [])

    def copied(self, target: str, source: Value, width: int, count: Size, first: Size = 0) -> Stmt:
        """Rows [first, first + count) of an operand, one after the other."""
        i, e = Dim.symbol("i", 0, below=count), Dim.symbol("e", 0, below=width)
        block = Block(self.puller.names)
        block.add(Store(target, i * width + e, self.element(source, first + i, e, block)))
        return For("i", count, "serial", (For("e", width, "vector", tuple(block.statements)),))

    def scaled(self, target: str, count: int, row: Callable[[Size], Size]) -> Stmt:
        """Queries times the scale."""
        i, e = Dim.symbol("i", 0, high=count - 1), Dim.symbol("e", 0, below=self.features)
        block = Block(self.puller.names)
        element = self.element(self.query, row(i), e, block)
        scale = Const(self.scale, self.dtype)
        block.add(Store(target, i * self.features + e, block.let(self.call("mul", element, scale))))
        return For("i", count, "serial", (For("e", self.features, "vector", tuple(block.statements)),))

    # ---- products ----------------------------------------------------------------------------------------------------

    def product(
        self,
        name: str,
        size: tuple[int, int],
        depth: Size,
        left: Callable[[Size, Size, Block], Expr],
        right: Callable[[Size, Size, Block], Expr],
        done: Callable[[Expr, Size, Size, Block], None],
        start: Size = 0,
    ) -> list[Stmt]:
        """A register tile: ``sum over k of left(i, k) * right(k, j)`` as chains of fma from zero, then ``done(sum, i, j)``."""
        rows, columns = size
        acc = self.scratch(name, rows * columns, "registers")
        i, j = Dim.symbol("i", 0, high=rows - 1), Dim.symbol("j", 0, high=columns - 1)
        k, at = start + Dim.symbol("k", 0, below=depth - start), i * columns + j

        def over(body: Block, before: tuple[Stmt, ...] = ()) -> Stmt:
            return For("i", rows, "unroll", (*before, For("j", columns, "tile", tuple(body.statements))))

        clear, step, flush = Block(self.puller.names), Block(self.puller.names), Block(self.puller.names)
        clear.add(Store(acc, at, self.zero))
        a = step.let(left(i, k, step))
        inner = step.inner()
        b = inner.let(right(k, j, inner))
        inner.add(Store(acc, at, self.call("fma", a, b, self.load(acc, at))))
        done(flush.let(self.load(acc, at)), i, j, flush)
        return [over(clear), For("k", depth - start, "serial", (over(inner, tuple(step.statements)),)), over(flush)]

    def across(self, width: int, make: Callable[[Size, int, str], list[Stmt]]) -> list[Stmt]:
        """Tiles over `width` columns: whole panels, then what is left.  ``make(first column, columns, suffix of names)``."""
        full, left = divmod(width, self.panel)
        statements: list[Stmt] = []
        if full:
            first = Dim.symbol("ct", 0, below=full) * self.panel
            statements.append(For("ct", full, "serial", tuple(make(first, self.panel, ""))))
        return statements + (make(full * self.panel, left, "_rest") if left else [])

    # ---- one row of scores -------------------------------------------------------------------------------------------

    def masked(self, row: Size, scores: str, base: Size, limit: Size, seen: Size, edge: Size) -> list[Stmt]:
        """The mask put on scores[base ...limit], and -inf on those from `seen` on, which lie behind `edge`."""
        statements: list[Stmt] = []
        for mask in self.mask:
            j = Dim.symbol("j", 0, below=limit)
            block = Block(self.puller.names)
            score = block.let(self.load(scores, base + j))
            element = self.element(mask, row, self.first_key + j, block)
            new = select(element, score, self.lowest) if mask.dtype is bool_ else self.call("add", score, element)
            block.add(Store(scores, base + j, block.let(new)))
            statements.append(For("j", limit, "vector", tuple(block.statements)))
        columns = upwards(limit, ROUND)
        count = columns - edge
        if count != 0:
            column = edge + Dim.symbol("j", 0, below=count)
            block = Block(self.puller.names)
            score = block.let(self.load(scores, base + column))
            visible = block.let(Call("lt", (block.let(Index(column)), block.let(Index(seen))), bool_))
            block.add(Store(scores, base + column, block.let(select(visible, score, self.lowest))))
            statements.append(For("j", count, "vector", tuple(block.statements)))
        return statements

    def folded(self, name: str, fn: str, count: Size, element: Callable[[Size, Block], Expr], block: Block) -> Var:
        """A reduction in the tree order."""
        inner = block.inner()
        block.add(Acc(name, fn, self.dtype))
        value = inner.let(element(Dim.symbol("j", 0, below=count), inner))
        inner.add(Update(name, value))
        block.add(For("j", count, "lanes", tuple(inner.statements)))
        return Var(name, self.dtype)

    def finite(self, greatest: Expr, block: Block) -> Expr:
        """What is taken off a row's scores: its greatest, or 0 where all are -inf."""
        return block.let(select(Call("eq", (greatest, self.lowest), bool_), self.zero, greatest))

    def weighted(self, scores: str, base: Size, limit: Size, best: Expr, block: Block) -> Expr:
        """Scores become their exponentials; gives the sum."""

        def exponential(j: Size, inner: Block) -> Expr:
            less = inner.let(self.call("sub", self.load(scores, base + j), best))
            weight = inner.let(self.call("exp", less))
            inner.add(Store(scores, base + j, weight))
            return weight

        return self.folded("sum", "add", upwards(limit, ROUND), exponential, block)

    def inverse(self, total: Expr, block: Block) -> Expr:
        """One over the sum of a row's weights; 1 where there are none."""
        one = Const(1.0, self.dtype)
        nothing = Call("eq", (total, self.zero), bool_)
        return block.let(self.call("div", one, block.let(select(nothing, one, total))))


class _Forward(Nest):
    """What both forward nests have: state between blocks of keys, and results."""

    def __init__(self, group: Group, context: Context) -> None:
        assert group.anchor is not None
        self.out, self.kept = group.anchor.outputs
        super().__init__(group, context, group.anchor.inputs, self.out.shape)

    def reserve(self, rows: int, slots: int, pitch: int) -> None:
        """rows: of queries that make scores at once; slots: those whose state is kept between blocks."""
        self.pitch = pitch
        for name, size in (("scaled", self.features), ("scores", pitch), ("result", self.width)):
            self.scratch(name, rows * size)
        for name in ("best", "total", "factor"):
            self.scratch(name, rows if self.one_block else slots)
        if not self.one_block:
            self.scratch("state", slots * self.width)

    def begun(self, slots: Size) -> list[Stmt]:
        """The state before the first block: adding to -0.0 changes nothing."""
        if self.one_block:
            return []
        i, e = Dim.symbol("i", 0, below=slots), Dim.symbol("e", 0, below=self.width)
        nothing = For("e", self.width, "vector", (Store("state", i * self.width + e, Const(-0.0, self.dtype)),))
        return [For("i", slots, "serial", (Store("best", i, self.lowest), Store("total", i, self.zero), nothing))]

    def softmax(self, row: Size, i: Size, slot: Size, limit: Size, seen: Size, edge: Size) -> list[Stmt]:
        """Row i of the scores becomes weights; what the state is multiplied by is noted."""
        base = i * self.pitch
        block = Block(self.puller.names)
        for statement in self.masked(row, "scores", base, limit, seen, edge):
            block.add(statement)
        columns = upwards(limit, ROUND)
        best: Expr = self.folded("greatest", "max", columns, lambda j, inner: self.load("scores", base + j), block)
        old = None
        if not self.one_block:
            old = block.let(self.load("best", slot))
            best = block.let(self.call("max", old, best))
        safe = self.finite(best, block)
        total = self.weighted("scores", base, limit, safe, block)
        if old is not None:
            factor = block.let(self.call("exp", block.let(self.call("sub", old, safe))))
            before = block.let(self.call("mul", block.let(self.load("total", slot)), factor))
            total = block.let(self.call("add", before, total))
            block.add(Store("factor", slot, factor))
        block.add(Store("best", slot, safe if self.one_block else best))
        block.add(Store("total", slot, total))
        return block.statements

    def gathered(self, i: Size, slot: Size) -> Stmt:
        """What a block gave, added to the state."""
        e = Dim.symbol("e", 0, below=self.width)
        block = Block(self.puller.names)
        at = slot * self.width + e
        new = self.call("fma", self.load("state", at), self.load("factor", slot), self.load("result", i * self.width + e))
        block.add(Store("state", at, block.let(new)))
        return For("e", self.width, "vector", tuple(block.statements))

    def finished(self, row: Size, slot: Size, buffer: str, at: Size) -> list[Stmt]:
        """The results of a query: what is in `buffer` from `at` on, over the sum of its weights."""
        block = Block(self.puller.names)
        factor = self.inverse(block.let(self.load("total", slot)), block)
        best = block.let(self.load("best", slot))
        self.put(self.kept, row, 0, best if self.one_block else self.finite(best, block), block)
        self.put(self.kept, row, 1, factor, block)
        e = Dim.symbol("e", 0, below=self.width)
        inner = block.inner()
        self.put(self.out, row, e, inner.let(self.call("mul", self.load(buffer, at + e), factor)), inner)
        block.add(For("e", self.width, "vector", tuple(inner.statements)))
        return block.statements

    def launch(self, body: list[Stmt], extent: Size, rows: int, note: str) -> Launch:
        nest = For("p", extent, "parallel", (*self.allocs, *body))
        known, times = parted(rows, self.keys)
        work = known * (self.features + self.width) / 8
        return finish(self.puller, nest, extent, work, self.group, note, times)


class _Many(_Forward):
    """Rows of queries in register tiles."""

    def lower(self) -> Launch:
        chunk = self.chunk()
        chunks = (self.rows + chunk - 1) // chunk
        shared = self.shared() if self.one_block else []
        many = product(self.batch[d] for d in shared)
        if not isinstance(many, int) or many > SHARED:
            shared, many = [], 1
        own = [d for d in range(len(self.batch)) if d not in shared]
        heads = product(self.batch[d] for d in own)
        p = Dim.symbol("p", 0, below=heads * chunks)
        for d, i in zip(own, delinear(p % heads, tuple(self.batch[d] for d in own)), strict=True):
            self.at[d] = i
        among = delinear(Dim.symbol("g", 0, below=many), tuple(self.batch[d] for d in shared))
        for d, i in zip(shared, among, strict=True):
            self.at[d] = i
        self.first_row = (chunks - 1 - p // heads) * chunk  # the longest first, where later queries see more
        count: Size = minimum(chunk, self.rows - self.first_row)
        if isinstance(self.rows, int) and self.rows % chunk == 0:
            count = chunk
        self.scratch("panels", self.features * self.room)
        self.scratch("values", self.room * self.width)
        self.reserve(self.tile_rows, rounded_up(chunk, self.tile_rows), self.room)
        tiles = (count + self.tile_rows - 1) // self.tile_rows
        rt = Dim.symbol("rt", 0, below=tiles)
        needed = self.there
        if self.causal:
            needed = minimum(needed, upwards(self.first_row + count, ROWS) - self.first_key)
        copies = [
            *self.transposed("panels", self.key, self.features, needed, self.first_key),
            self.copied("values", self.value, self.width, needed, self.first_key),
        ]
        over: Stmt = For("rt", tiles, "serial", tuple(self.tile(rt * self.tile_rows, count)))
        if self.one_block:
            body = [*copies, over if not shared else For("g", many, "serial", (over,))]
        else:
            last = minimum(self.keys, upwards(self.first_row + count, ROWS)) if self.causal else self.keys
            i = Dim.symbol("i", 0, below=count)
            end = For("i", count, "serial", tuple(self.finished(self.first_row + i, i, "state", i * self.width)))
            blocks = For("q", (last + self.block - 1) // self.block, "serial", (*copies, over))
            body = [*self.begun(chunk), blocks, end]
        note = f"attention: {chunk} queries, " + ("all keys" if self.one_block else f"{self.block} keys at once")
        return self.launch(body, heads * chunks, chunk * many, note)

    def chunk(self) -> int:
        """Queries of a unit: a multiple of `ROWS`, chunks as even as can be."""
        if not isinstance(self.rows, int):
            return CHUNK_ROWS
        most = CHUNK_ROWS
        heads = product(self.batch)
        while isinstance(heads, int) and most > LEAST_ROWS and heads * -(-self.rows // most) < UNITS:
            most //= 2
        return rounded_up(-(-self.rows // -(-self.rows // most)), ROWS)

    def tile(self, local: Size, count: Size) -> list[Stmt]:
        """A few rows of queries and one block of keys."""
        rows = self.tile_rows
        first = self.first_row + local
        whole = isinstance(self.rows, int) and self.rows % rows == 0
        limit, edge = self.there, (self.there // ROUND) * ROUND
        if self.causal:
            limit = minimum(limit, (first // ROWS + 1) * ROWS - self.first_key)
            edge = minimum((first - self.first_key) // ROUND * ROUND, limit // ROUND * ROUND)
        if self.causal and not self.one_block:
            limit, edge = maximum(0, limit), maximum(0, edge)

        def row(i: Size) -> Size:
            return first + i if whole else minimum(first + i, self.rows - 1)

        i = Dim.symbol("i", 0, high=rows - 1)
        seen: Size = minimum(row(i) + 1 - self.first_key, self.there) if self.causal else self.there
        slot = i if self.one_block else local + i
        own: Size = rows if whole else minimum(rows, count - local)
        last = Dim.symbol("i", 0, below=own)
        if self.one_block:
            end = self.finished(first + last, last, "result", last * self.width)
        else:
            end = [self.gathered(last, local + last)]
        body: list[Stmt] = [
            self.scaled("scaled", rows, row),
            *self.scores(limit),
            For("i", rows, "serial", tuple(self.softmax(row(i), i, slot, limit, seen, edge))),
            *self.results(limit),
            For("i", own, "serial", tuple(end)),
        ]
        if self.causal and not self.one_block:
            return [For("once", minimum(1, limit), "serial", tuple(body))]
        return body

    def scores(self, limit: Size) -> list[Stmt]:
        """Scores of every panel that holds a key which takes part."""
        panels = (limit + self.panel - 1) // self.panel
        kt = Dim.symbol("kt", 0, below=panels)

        def done(total: Expr, i: Size, j: Size, block: Block) -> None:
            block.add(Store("scores", i * self.pitch + kt * self.panel + j, total))

        tile = self.product(
            "dots",
            (self.tile_rows, self.panel),
            self.features,
            lambda i, k, _: self.load("scaled", i * self.features + k),
            lambda k, j, _: self.load("panels", (kt * self.features + k) * self.panel + j),
            done,
        )
        return [For("kt", panels, "serial", tuple(tile))]

    def results(self, limit: Size) -> list[Stmt]:
        """Weights times values."""

        def make(first: Size, columns: int, suffix: str) -> list[Stmt]:
            return self.product(
                f"sums{suffix}",
                (self.tile_rows, columns),
                limit,
                lambda i, k, _: self.load("scores", i * self.pitch + k),
                lambda k, j, _: self.load("values", k * self.width + first + j),
                lambda total, i, j, block: block.add(Store("result", i * self.width + first + j, total)),
            )

        return self.across(self.width, make)


class _One(_Forward):
    """A single query: keys and values are read once, where they are."""

    def lower(self) -> Launch:
        shared = self.shared()
        many = product(self.batch[d] for d in shared)
        if not isinstance(many, int) or many > SHARED:
            shared, many = [], 1
        own = [d for d in range(len(self.batch)) if d not in shared]
        heads = product(self.batch[d] for d in own)
        p = Dim.symbol("p", 0, below=heads)
        for d, i in zip(own, delinear(p, tuple(self.batch[d] for d in own)), strict=True):
            self.at[d] = i
        self.sharing = (shared, tuple(self.batch[d] for d in shared))
        if self.causal:
            self.there, self.one_block, self.first_key = minimum(self.keys, ROWS), True, 0
            self.room = ROUND
        self.reserve(many, many, self.room)
        g = self.head("g", many)
        body: list[Stmt] = [*self.begun(many), self.queries(many)]
        block = [
            self.dots(many),
            For("g", many, "serial", tuple(self.softmax(0, g, g, self.there, 1 if self.causal else self.there, self.edge()))),
            *self.results(many),
        ]
        if self.one_block:
            body += [*block, For("g", many, "serial", tuple(self.finished(0, g, "result", g * self.width)))]
        else:
            gather = For("g", many, "serial", (self.gathered(g, g),))
            body.append(For("q", (self.keys + self.block - 1) // self.block, "serial", (*block, gather)))
            body.append(For("g", many, "serial", tuple(self.finished(0, g, "state", g * self.width))))
        return self.launch(body, heads, many, "attention: one query")

    def head(self, name: str, many: int) -> Size:
        """Walk the query heads of a unit by a loop variable."""
        g = Dim.symbol(name, 0, below=many)
        dims, sizes = self.sharing
        for d, i in zip(dims, delinear(g, sizes), strict=True):
            self.at[d] = i
        return g

    def edge(self) -> Size:
        return 0 if self.causal else self.there // ROUND * ROUND

    def queries(self, many: int) -> Stmt:
        """The queries of the unit, times the scale."""
        g, e = self.head("g", many), Dim.symbol("e", 0, below=self.features)
        block = Block(self.puller.names)
        element = self.element(self.query, 0, e, block)
        new = block.let(self.call("mul", element, Const(self.scale, self.dtype)))
        block.add(Store("scaled", g * self.features + e, new))
        return For("g", many, "serial", (For("e", self.features, "vector", tuple(block.statements)),))

    def dots(self, many: int) -> Stmt:
        """A key meets every query while it is at hand."""
        k, g = Dim.symbol("k", 0, below=self.there), Dim.symbol("g", 0, below=many)
        block = Block(self.puller.names)

        def element(j: Size, inner: Block) -> Expr:
            mine = inner.let(self.load("scaled", g * self.features + j))
            return self.call("mul", mine, self.element(self.key, self.first_key + k, j, inner))

        dot = self.folded("dot", "add", self.features, element, block)
        block.add(Store("scores", g * self.pitch + k, dot))
        return For("k", self.there, "serial", (For("g", many, "serial", tuple(block.statements)),))

    def results(self, many: int) -> list[Stmt]:
        rows = next(n for n in (4, 3, 2, 1) if many % n == 0)
        base = Dim.symbol("gt", 0, below=many // rows) * rows

        def make(first: Size, columns: int, suffix: str) -> list[Stmt]:
            return self.product(
                f"sums{suffix}",
                (rows, columns),
                self.there,
                lambda i, k, _: self.load("scores", (base + i) * self.pitch + k),
                lambda k, j, block: self.element(self.value, self.first_key + k, first + j, block),
                lambda total, i, j, block: block.add(Store("result", (base + i) * self.width + first + j, total)),
            )

        return [For("gt", many // rows, "serial", tuple(self.across(self.width, make)))]
