"""The hand-laid nest of attention's gradient.

Enters: a group whose anchor is `ops.attention.attention_backward`.  Leaves: its `Launch`es.  Never here: the order of rounding
(`ops.attention`), the forward nests.

A unit has a head of keys and values, so that their gradients are its own, and every query that meets them.  For a block of keys, it
copies them and their values into panels, transposed; a block of queries at a time makes weights and their slopes in scratch, from
which follow a share of the gradients of keys and values, which stay in scratch, and of queries, which are added to in memory.
"""

from __future__ import annotations

from graphc.dims import Dim, maximum, minimum, product
from graphc.dtypes import bool_
from graphc.ir.graph import Value
from graphc.ir.loops import Alloc, Call, Const, Expr, For, Index, Load, Size, Stmt, Store
from graphc.ir.op import TensorType
from graphc.ops.attention import ROW_BLOCK, ROWS, keys_of_gradient
from graphc.ops.expressions import select
from graphc.schedule.attention import ROUND, Nest, rounded_up, upwards
from graphc.schedule.lower import Context, Launch, finish, parted, store_copy
from graphc.schedule.partition import Group
from graphc.schedule.pull import Block, cast, delinear


def attention_backward(group: Group, context: Context) -> list[Launch]:
    """The launches of an attention's gradient."""
    return _Backward(group, context).launches()


class _Backward(Nest):
    def __init__(self, group: Group, context: Context) -> None:
        assert group.anchor is not None
        self.g, self.out, self.kept, *inputs = group.anchor.inputs
        self.context = context
        super().__init__(group, context, tuple(inputs), self.out.shape)
        self.d_query, self.d_key, self.d_value = group.anchor.outputs
        self.in_blocks_of(keys_of_gradient(max(self.features, self.width)))
        self.total = self.d_query
        if not self.one_block and self.d_query.dtype is not self.dtype:
            self.total = Value(TensorType(self.dtype, self.d_query.shape), None, f"sum of {self.d_query.name}")

    def launches(self) -> list[Launch]:
        shared = self.shared()
        own = [d for d in range(len(self.batch)) if d not in shared]
        heads = product(self.batch[d] for d in own)
        many = product(self.batch[d] for d in shared)
        p, g = Dim.symbol("p", 0, below=heads), Dim.symbol("g", 0, below=many)
        for dims, i in ((own, p), (shared, g)):
            for d, at in zip(dims, delinear(i, tuple(self.batch[d] for d in dims)), strict=True):
                self.at[d] = at
        self.reserve()
        width = self.width
        blocks = (self.rows + ROW_BLOCK - 1) // ROW_BLOCK
        first: Size = minimum(blocks, self.first_key // ROW_BLOCK) if self.causal else 0
        rows = For("rb", blocks - first, "serial", tuple(self.rows_of(first + Dim.symbol("rb", 0, below=blocks - first))))
        body: list[Stmt] = [
            *self.transposed("panels", self.key, self.features, self.there, self.first_key),
            *self.transposed("values", self.value, width, self.there, self.first_key),
            self.copied("keys", self.key, self.features, self.there, self.first_key),
            *self.cleared("d_keys", self.features),
            *self.cleared("d_values", width),
            rows if not shared else For("g", many, "serial", (rows,)),
            *self.stored("d_keys", self.d_key, self.features),
            *self.stored("d_values", self.d_value, width),
        ]
        if not self.one_block:
            body = [For("q", (self.keys + self.block - 1) // self.block, "serial", tuple(body))]
        nest = For("p", heads, "parallel", (*self.allocs, *body))
        known, times = parted(self.rows, self.keys, many)
        work, note = known * (3 * self.features + 2 * width) / 8, f"attention: gradient, {ROW_BLOCK} queries at once"
        found = [finish(self.puller, nest, heads, work, self.group, note, times)]
        if self.total is not self.d_query and self.d_query in self.group.outputs:
            found.append(store_copy(self.total, self.d_query, self.context))
        return found

    def reserve(self) -> None:
        features, width, room = self.features, self.width, self.room
        self.pitch = room
        more = rounded_up(room, ROWS)  # gradients of keys are made ROWS at a time
        sizes = {
            "panels": features * room, "values": width * room, "keys": room * features, "d_keys": more * features,
            "d_values": more * width, "scaled": ROW_BLOCK * features, "arriving": ROW_BLOCK * width, "mean": ROW_BLOCK,
            "weights": ROW_BLOCK * room, "slopes": ROW_BLOCK * room,
        }  # fmt: skip
        for name, size in sizes.items():
            self.scratch(name, size)

    # ---- keys and values ---------------------------------------------------------------------------------------------

    def cleared(self, name: str, width: int) -> list[Stmt]:
        i, e = Dim.symbol("i", 0, below=upwards(self.there, ROWS)), Dim.symbol("e", 0, below=width)
        zero = For("e", width, "vector", (Store(name, i * width + e, self.zero),))
        return [For("i", upwards(self.there, ROWS), "serial", (zero,))]

    def stored(self, name: str, value: Value, width: int) -> list[Stmt]:
        """A finished gradient of this block's keys or values."""
        if value not in self.group.outputs:
            return []
        i, e = Dim.symbol("i", 0, below=self.there), Dim.symbol("e", 0, below=width)
        block = Block(self.puller.names)
        at = tuple(0 if size == 1 else place for size, place in zip(value.shape[:-2], self.at, strict=True))
        element = block.let(cast(self.load(name, i * width + e), value.dtype))
        there = (*at, self.first_key + i, e)
        block.add(Store(self.puller.buffer(value, "out"), self.puller.offset(value, there), element))
        return [For("i", self.there, "serial", (For("e", width, "vector", tuple(block.statements)),))]

    def added(self, name: str, value: Value, left: str, right: str, width: int, first: Size, count: Size) -> list[Stmt]:
        """The share of a block of queries: ``left`` [queries, keys] transposed, times ``right`` [queries, width]."""
        if value not in self.group.outputs:
            return []
        rows = self.tile_rows
        tiles = (self.there + rows - 1) // rows
        if self.causal:  # no later key is seen by these queries
            tiles = minimum(tiles, maximum(0, (upwards(first + count, ROWS) - self.first_key + rows - 1) // rows))
        key = Dim.symbol("jt", 0, below=tiles) * rows
        start: Size = 0
        if self.causal:
            start = minimum(count, maximum(0, (self.first_key + key) // ROWS * ROWS - first))

        def make(column: Size, columns: int, suffix: str) -> list[Stmt]:
            def done(total: Expr, i: Size, j: Size, block: Block) -> None:
                at = (key + i) * width + column + j
                block.add(Store(name, at, block.let(self.call("add", self.load(name, at), total))))

            return self.product(
                f"{name}_sums{suffix}",
                (rows, columns),
                count,
                lambda i, k, _: self.load(left, k * self.pitch + key + i),
                lambda k, j, _: self.load(right, k * width + column + j),
                done,
                start,
            )

        return [For("jt", tiles, "serial", tuple(self.across(width, make)))]

    # ---- a block of queries ------------------------------------------------------------------------------------------

    def rows_of(self, block: Size) -> list[Stmt]:
        """What one block of queries adds to every gradient."""
        first = block * ROW_BLOCK
        whole = isinstance(self.rows, int) and self.rows % ROW_BLOCK == 0
        count: Size = ROW_BLOCK if whole else minimum(ROW_BLOCK, self.rows - first)
        rounded = upwards(count, self.tile_rows)
        evenly = isinstance(self.rows, int) and self.rows % self.tile_rows == 0

        def row(i: Size) -> Size:
            return first + i if evenly else minimum(first + i, self.rows - 1)

        i = Dim.symbol("i", 0, below=rounded)
        fetched: list[Stmt] = []
        for name, value, width in (("scaled", self.query, self.features), ("arriving", self.g, self.width)):
            e = Dim.symbol("e", 0, below=width)
            body = Block(self.puller.names)
            element = self.element(value, row(i), e, body)
            if name == "scaled":
                element = body.let(self.call("mul", element, Const(self.scale, self.dtype)))
            body.add(Store(name, i * width + e, element))
            fetched.append(For("i", rounded, "serial", (For("e", width, "vector", tuple(body.statements)),)))
        mean = Block(self.puller.names)
        last = Dim.symbol("i", 0, below=rounded)

        def share(e: Size, inner: Block) -> Expr:
            return self.call("mul", self.load("arriving", last * self.width + e), self.element(self.out, row(last), e, inner))

        mean.add(Store("mean", last, self.folded("dot", "add", self.width, share, mean)))
        tiles = (count + self.tile_rows - 1) // self.tile_rows
        local = Dim.symbol("rt", 0, below=tiles) * self.tile_rows
        return [
            *fetched,
            For("i", rounded, "serial", tuple(mean.statements)),
            For("rt", tiles, "serial", tuple(self.tile(first, local, count))),
            *self.added("d_values", self.d_value, "weights", "arriving", self.width, first, count),
            *self.added("d_keys", self.d_key, "slopes", "scaled", self.features, first, count),
        ]

    def tile(self, base: Size, local: Size, count: Size) -> list[Stmt]:
        """A few rows of weights and slopes, and what follows for the queries."""
        first = base + local
        limit, edge = self.there, self.there // ROUND * ROUND
        if self.causal:
            limit = minimum(limit, (first // ROWS + 1) * ROWS - self.first_key)
            edge = minimum((first - self.first_key) // ROUND * ROUND, limit // ROUND * ROUND)
            if not self.one_block:
                limit, edge = maximum(0, limit), maximum(0, edge)
        evenly = isinstance(self.rows, int) and self.rows % self.tile_rows == 0
        i = Dim.symbol("i", 0, high=self.tile_rows - 1)
        row = first + i if evenly else minimum(first + i, self.rows - 1)
        seen: Size = minimum(row + 1 - self.first_key, self.there) if self.causal else self.there
        body = [
            *self.dots("dots", "weights", "scaled", "panels", self.features, local, limit),
            *self.dots("slants", "slopes", "arriving", "values", self.width, local, limit),
            For("i", self.tile_rows, "serial", tuple(self.sloped(row, local + i, limit, seen, edge))),
            *self.of_queries(first, local, limit, minimum(self.tile_rows, count - local)),
        ]
        if self.causal and not self.one_block:
            return [For("once", minimum(1, limit), "serial", tuple(body))]
        return body

    def dots(self, name: str, target: str, left: str, right: str, depth: int, local: Size, limit: Size) -> list[Stmt]:
        panels = (limit + self.panel - 1) // self.panel
        kt = Dim.symbol("kt", 0, below=panels)
        tile = self.product(
            name,
            (self.tile_rows, self.panel),
            depth,
            lambda i, k, _: self.load(left, (local + i) * depth + k),
            lambda k, j, _: self.load(right, (kt * depth + k) * self.panel + j),
            lambda total, i, j, block: block.add(Store(target, (local + i) * self.pitch + kt * self.panel + j, total)),
        )
        return [For("kt", panels, "serial", tuple(tile))]

    def sloped(self, row: Size, local: Size, limit: Size, seen: Size, edge: Size) -> list[Stmt]:
        """A row of scores becomes weights, and what arrives at them becomes their slopes."""
        base = local * self.pitch
        block = Block(self.puller.names)
        for statement in self.masked(row, "weights", base, limit, seen, edge):
            block.add(statement)
        best, factor = (self.element(self.kept, row, k, block) for k in (0, 1))
        mean = block.let(self.load("mean", local))
        j = Dim.symbol("j", 0, below=upwards(limit, ROUND))
        inner = block.inner()
        less = inner.let(self.call("sub", self.load("weights", base + j), best))
        weight = inner.let(self.call("mul", inner.let(self.call("exp", less)), factor))
        slope = self.call("mul", weight, inner.let(self.call("sub", self.load("slopes", base + j), mean)))
        inner.add(Store("weights", base + j, weight))
        inner.add(Store("slopes", base + j, inner.let(slope)))
        block.add(For("j", upwards(limit, ROUND), "vector", tuple(inner.statements)))
        return block.statements

    def of_queries(self, first: Size, local: Size, limit: Size, own: Size) -> list[Stmt]:
        """The share of this block of keys in the gradient of a few queries."""
        if self.d_query not in self.group.outputs:
            return []
        if "d_queries" not in {s.buffer for s in self.allocs if isinstance(s, Alloc)}:
            self.scratch("d_queries", self.tile_rows * self.features)

        def make(column: Size, columns: int, suffix: str) -> list[Stmt]:
            return self.product(
                f"d_query_sums{suffix}",
                (self.tile_rows, columns),
                limit,
                lambda i, k, _: self.load("slopes", (local + i) * self.pitch + k),
                lambda k, j, _: self.load("keys", k * self.features + column + j),
                lambda total, i, j, block: block.add(Store("d_queries", i * self.features + column + j, total)),
            )

        i, e = Dim.symbol("i", 0, below=own), Dim.symbol("e", 0, below=self.features)
        block = Block(self.puller.names)
        new: Expr = self.call("mul", self.load("d_queries", i * self.features + e), Const(self.scale, self.dtype))
        name = self.puller.buffer(self.total, "out" if self.one_block else "inout")
        at = self.puller.offset(self.total, (*self.at, first + i, e))
        if not self.one_block:
            new = block.let(new)
            more = block.let(self.call("add", block.let(Load(name, at, self.dtype)), new))
            is_first = Call("eq", (Index(Dim.symbol("q")), Index(0)), bool_)
            new = select(block.let(is_first), new, more)
        block.add(Store(name, at, block.let(cast(new, self.total.dtype))))
        store = For("i", own, "serial", (For("e", self.features, "vector", tuple(block.statements)),))
        return [*self.across(self.features, make), store]
