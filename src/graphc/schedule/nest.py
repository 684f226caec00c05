"""Hand-laid loop nests: matmul, scan, scatter, put.

Enters: a group whose anchor is such a node.  Leaves: `Launch`es.  Never here: which scalar nodes ride along (partition), and any
target's instructions.  The nests have holes that `Puller` fills: operands are pulled at the indices the nest asks for,
and a matmul's epilogue is pulled with the accumulator in the matmul's place.

Matmul: C is cut into units of ROW_BLOCK rows by one panel of columns.  A unit copies its panel of B for one block of k into
scratch (unless B's rows are contiguous and fit), then runs register tiles of `TILE_ROWS` x panel over it.  Every element is one fma
chain over k inside blocks of K_BLOCK, blocks added in order from zero: tiles, threads and vector widths never show in the bits.
Source of the tiling: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008).
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.dims import Dim, coefficient, minimum, product
from graphc.dtypes import DType, bool_, int64
from graphc.ir.graph import Node, Value
from graphc.ir.loops import K_BLOCK, Alloc, Call, Check, Const, Expr, For, Index, Let, Load, Size, Stmt, Store, identity
from graphc.ir.op import Anchor, broadcast_shapes
from graphc.schedule.depthwise import depthwise, depthwise_input, depthwise_weight
from graphc.schedule.lower import COLUMN_TILE, Context, Launch, finish, store_copy
from graphc.schedule.partition import Group, is_stored
from graphc.schedule.pull import Block, Position, Puller, cast, delinear, multiply_add
from graphc.schedule.recurrent import recurrent, recurrent_backward

TILE_ROWS = 6
PANEL_BYTES = 64  # one panel of columns: two 32-byte vectors, or four of 16
ROW_BLOCK = 240
PACK_ROWS = 48  # from this many rows on, copying a contiguous but wide B pays for itself: its rows would fall into few cache sets
PACK_COLUMNS = 256


def lower_anchor(group: Group, context: Context) -> list[Launch]:
    """The launches of a group with an anchor."""
    assert group.anchor is not None
    lowering = group.anchor.lowering
    assert isinstance(lowering, Anchor)
    return _NESTS[lowering.nest](group, context)


# ---- matmul --------------------------------------------------------------------------------------------------------------


def _matmul(group: Group, context: Context) -> list[Launch]:
    return [_Matmul(group, context).lower()]


class _Matmul:
    def __init__(self, group: Group, context: Context) -> None:
        assert group.anchor is not None
        self.group, self.node = group, group.anchor
        self.left, self.right = self.node.inputs
        self.out = self.node.outputs[0]
        self.dtype: DType = self.out.dtype.compute
        self.puller = Puller(context.checks, lambda value: value in group.value_axes)
        *batch, self.m, self.n = self.out.shape
        self.k = self.left.shape[-1]
        self.width_limit = PANEL_BYTES // self.dtype.itemsize
        self.row_block = self.m if isinstance(self.m, int) and self.m <= ROW_BLOCK else ROW_BLOCK
        panels = (self.n + self.width_limit - 1) // self.width_limit
        row_blocks = (self.m + self.row_block - 1) // self.row_block if self.row_block is not self.m else 1
        self.extent = product(batch) * row_blocks * panels
        p = Dim.symbol("p", 0, below=self.extent)
        self.first_column = (p % panels) * self.width_limit
        self.first_row = ((p // panels) % row_blocks) * self.row_block
        self.batch = delinear(p // panels // row_blocks, tuple(batch))
        self.rows: Size = self.m if row_blocks == 1 else minimum(self.row_block, self.m - self.first_row)
        self.whole_panels = isinstance(self.n, int) and self.n % self.width_limit == 0
        self.width: Size = self.width_limit if self.whole_panels else minimum(self.width_limit, self.n - self.first_column)
        self.k_blocks: Size = 1 if isinstance(self.k, int) and self.k <= K_BLOCK else (self.k + K_BLOCK - 1) // K_BLOCK
        self.direct = self.whole_panels and self.k_blocks == 1
        self.allocs: list[Stmt] = []
        self.k_start: Size = 0 if self.k_blocks == 1 else Dim.symbol("q", 0) * K_BLOCK
        self.k_length: Size = self.k if self.k_blocks == 1 else minimum(K_BLOCK, self.k - self.k_start)

    def lower(self) -> Launch:
        body: list[Stmt] = []
        packed = self.must_pack()
        if packed:
            depth = self.k if self.k_blocks == 1 else K_BLOCK
            self.allocs.append(Alloc("panel", self.dtype, max(1, depth if isinstance(depth, int) else K_BLOCK) * self.width_limit))
        if not self.direct:
            rows = self.row_block if isinstance(self.row_block, int) else ROW_BLOCK
            self.allocs.append(Alloc("partial", self.dtype, max(1, rows) * self.width_limit))
            if self.k_blocks != 1:
                body.append(self.clear_partial())
        inner = [*([self.pack()] if packed else []), *self.tiles(packed)]
        body.extend(inner if self.k_blocks == 1 else [For("q", self.k_blocks, "serial", tuple(inner))])
        if not self.direct:
            body.append(self.epilogue_from_scratch())
        nest = For("p", self.extent, "parallel", (*self.allocs, *body))
        rows_static = self.rows if isinstance(self.rows, int) else ROW_BLOCK // 2
        depth_static = self.k if isinstance(self.k, int) else 256
        work = rows_static * depth_static * self.width_limit / 8
        note = (
            "matmul"
            + (", B packed" if packed else "")
            + (f", epilogue of {len(self.group.members) - 1}" if len(self.group.members) > 1 else "")
        )
        return finish(self.puller, nest, self.extent, work, self.group, note)

    # ---- operands --------------------------------------------------------------------------------------------------

    def operand(self, value: Value, row: Size, column: Size, block: Block) -> Expr:
        """value[batch, row, column] in the compute dtype; size-1 batch dims are broadcast."""
        sizes = value.shape[:-2]
        at = self.batch[len(self.batch) - len(sizes) :]
        batch = tuple(0 if d == 1 else b for b, d in zip(at, sizes, strict=True))
        return block.let(cast(self.puller.pull(value, (*batch, row, column), block), self.dtype))

    def must_pack(self) -> bool:
        if not self.whole_panels:
            return True
        if isinstance(self.m, int) and self.m >= PACK_ROWS and isinstance(self.n, int) and self.n >= PACK_COLUMNS:
            return True
        offset = self.right_offset()
        return offset is None or coefficient(offset, "j") != 1

    def right_offset(self) -> Size | None:
        """Where element (k, j) of B's panel lies, if B is read as it is stored."""
        trial = Block(iter(range(1 << 20)))
        buffers = dict(self.puller.buffers)
        self.operand(self.right, Dim.symbol("k"), self.first_column + Dim.symbol("j"), trial)
        self.puller.buffers = buffers
        match trial.statements:
            case [Let(_, Load(_, offset, dtype))] if dtype is self.dtype:
                return offset
        return None

    def pack(self) -> Stmt:
        """A written out loop over j lets what depends on j alone leave the loop over k.  Where columns do not lie evenly, those
        beyond the last are its copies, which nobody reads, so that this works for every panel."""
        block = Block(self.puller.names)
        offset = self.right_offset()
        uneven = offset is not None and coefficient(offset, "j") is None
        k = Dim.symbol("k", 0, below=self.k_length)
        j = Dim.symbol("j", 0, below=self.width_limit if uneven else self.width)
        column = self.first_column + j
        if uneven and not self.whole_panels:
            column = minimum(column, self.n - 1)
        value = self.operand(self.right, self.k_start + k, column, block)
        block.add(Store("panel", k * self.width_limit + j, value))
        body = tuple(block.statements)
        tiled = uneven or self.whole_panels
        over = For("j", self.width_limit, "tile", body) if tiled else For("j", self.width, "vector", body)
        return For("k", self.k_length, "serial", (over,))

    # ---- register tiles --------------------------------------------------------------------------------------------

    def tiles(self, packed: bool) -> list[Stmt]:
        """Full tiles of TILE_ROWS rows, then what is left."""
        statements: list[Stmt] = []
        full = self.rows // TILE_ROWS
        left = self.rows % TILE_ROWS
        if full != 0:
            base = Dim.symbol("it", 0, below=full) * TILE_ROWS
            statements.append(For("it", full, "serial", tuple(self.tile(TILE_ROWS, base, "acc", packed))))
        if isinstance(left, int):
            if left:
                statements.extend(self.tile(left, full * TILE_ROWS, "rest", packed))
        else:
            base = full * TILE_ROWS + Dim.symbol("ir", 0, below=left)
            statements.append(For("ir", left, "serial", tuple(self.tile(1, base, "rest", packed))))
        return statements

    def tile(self, rows: int, base: Size, name: str, packed: bool) -> list[Stmt]:
        width = self.width_limit
        self.allocs.append(Alloc(name, self.dtype, rows * width, "registers"))
        i, j = Dim.symbol("i", 0, high=rows - 1), Dim.symbol("j", 0, high=width - 1)
        at = i * width + j
        zero = Const(0.0 if self.dtype.kind == "f" else 0, self.dtype)
        clear = self.over_tile(rows, (Store(name, at, zero),))
        k = Dim.symbol("k", 0, below=self.k_length)
        step = Block(self.puller.names)
        a = self.operand(self.left, self.first_row + base + i, self.k_start + k, step)
        inner = step.inner()
        if packed:
            b: Expr = inner.let(Load("panel", k * width + j, self.dtype))
        else:
            b = self.operand(self.right, self.k_start + k, self.first_column + j, inner)
        inner.add(Store(name, at, multiply_add(a, b, Load(name, at, self.dtype))))
        multiply = For("i", rows, "unroll", (*step.statements, For("j", width, "tile", tuple(inner.statements))))
        chain = For("k", self.k_length, "serial", (multiply,))
        return [clear, chain, self.flush(rows, base, name, at)]

    def over_tile(self, rows: int, body: tuple[Stmt, ...]) -> Stmt:
        return For("i", rows, "unroll", (For("j", self.width_limit, "tile", body),))

    def flush(self, rows: int, base: Size, name: str, at: Size) -> Stmt:
        """The tile's results: to the outputs through the epilogue, or to scratch."""
        block = Block(self.puller.names)
        result: Expr = Load(name, at, self.dtype)
        i, j = Dim.symbol("i", 0, high=rows - 1), Dim.symbol("j", 0, high=self.width_limit - 1)
        if self.direct:
            self.epilogue(result, self.first_row + base + i, self.first_column + j, block)
        else:
            there = (base + i) * self.width_limit + j
            if self.k_blocks != 1:
                result = Call("add", (Load("partial", there, self.dtype), result), self.dtype)
            block.add(Store("partial", there, result))
        return self.over_tile(rows, tuple(block.statements))

    # ---- epilogue --------------------------------------------------------------------------------------------------

    def clear_partial(self) -> Stmt:
        zero = Const(0.0 if self.dtype.kind == "f" else 0, self.dtype)
        at = Dim.symbol("i") * self.width_limit + Dim.symbol("j")
        return For("i", self.rows, "serial", (For("j", self.width_limit, "vector", (Store("partial", at, zero),)),))

    def epilogue_from_scratch(self) -> Stmt:
        block = Block(self.puller.names)
        i, j = Dim.symbol("i", 0, below=self.rows), Dim.symbol("j", 0, below=self.width)
        self.epilogue(Load("partial", i * self.width_limit + j, self.dtype), self.first_row + i, self.first_column + j, block)
        return For("i", self.rows, "serial", (For("j", self.width, "vector", tuple(block.statements)),))

    def epilogue(self, result: Expr, row: Size, column: Size, block: Block) -> None:
        axis_index: dict[int, Size] = dict(enumerate((*self.batch, row, column)))
        group = self.group

        def index_of(value: Value) -> Position:
            return tuple(0 if a is None else axis_index[a] for a in group.value_axes[value])

        block.memo[self.out, index_of(self.out)] = block.let(cast(result, self.out.dtype))
        elements = [block.let(self.puller.pull(value, index_of(value), block)) for value in group.outputs]
        for value, element in zip(group.outputs, elements, strict=True):  # after every load: an output may lie over an input
            block.add(Store(self.puller.buffer(value, "out"), self.puller.offset(value, index_of(value)), element))


# ---- scan ----------------------------------------------------------------------------------------------------------------


def _scan(group: Group, context: Context) -> list[Launch]:
    """Running values along one dim, in order.  The last dim is vectorised when it is not the scanned one."""
    node, step, first = _anchored(group)
    out = node.outputs[0]
    dim, shape, dtype = node.attrs["dim"], out.shape, out.dtype.compute
    puller = Puller(context.checks, lambda value: value in group.value_axes)
    last = len(shape) - 1
    tile = 1 if dim == last else COLUMN_TILE
    others = [d for d in range(len(shape)) if d not in (dim, last)]
    tiles = 1 if dim == last else (shape[last] + tile - 1) // tile
    sizes = tuple(shape[d] for d in others)
    extent = product(sizes) * tiles
    p = Dim.symbol("p", 0, below=extent)
    index: dict[int, Size] = dict(zip(others, delinear(p // tiles, sizes), strict=True))
    start = (p % tiles) * tile
    width = 1 if dim == last else minimum(tile, shape[last] - start)
    v: Size = 0 if dim == last else Dim.symbol("v", 0, below=width)
    if dim != last:
        index[last] = start + v
    index[dim] = Dim.symbol("r", 0, below=shape[dim])
    at = tuple(index[d] for d in range(len(shape)))
    block = Block(puller.names)
    elements = [cast(puller.pull(x, at, block), dtype) for x in node.inputs]
    total = block.let(step(Load("total", v, dtype), *elements))
    block.add(Store("total", v, total))
    block.add(Store(puller.buffer(out, "out"), puller.offset(out, at), block.let(cast(total, out.dtype))))

    def over_columns(statements: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return statements if dim == last else (For("v", width, "vector", statements),)

    begin = Store("total", v, identity(first, dtype))
    loop = For("r", shape[dim], "serial", over_columns(tuple(block.statements)))
    nest = For("p", extent, "parallel", (Alloc("total", dtype, tile), *over_columns((begin,)), loop))
    rows = shape[dim] if isinstance(shape[dim], int) else 256
    return [finish(puller, nest, extent, 2.0 * tile * rows, group, "scan")]


def _anchored(group: Group) -> tuple[Node, Callable[..., Expr], str]:
    """The anchor of a group, its step and what it starts from."""
    node = group.anchor
    assert node is not None and isinstance(node.lowering, Anchor) and node.lowering.step is not None
    return node, node.lowering.step, node.lowering.start


# ---- scatter -------------------------------------------------------------------------------------------------------------


def _scatter(group: Group, context: Context) -> list[Launch]:
    """out = x; then src is folded into out[.., index, ..] in the order of the index, every line along `dim` by one thread."""
    node, step, _ = _anchored(group)
    return [_base(node, context), _fold_in_order(group, node, step, context)]


def _base(node: Node, context: Context) -> Launch:
    """What a scatter or put starts from: a copy of its first operand."""
    start = node.inputs[0]
    return store_copy(start, node.outputs[0], context, pulled=not is_stored(start))


def _fold_in_order(group: Group, node: Node, step: Callable[..., Expr], context: Context) -> Launch:
    _, index_value, source = node.inputs
    out = node.outputs[0]
    dim, shape, size = node.attrs["dim"], index_value.shape, node.outputs[0].shape[node.attrs["dim"]]
    puller = Puller(context.checks, lambda value: value in group.value_axes)
    last = len(shape) - 1
    vector = last if last != dim else None
    outer = [d for d in range(len(shape)) if d not in (dim, vector)]
    sizes = tuple(shape[d] for d in outer)
    tile = COLUMN_TILE
    tiles = 1 if vector is None else (shape[last] + tile - 1) // tile
    extent = product(sizes) * tiles
    p = Dim.symbol("p", 0, below=extent)
    at: dict[int, Size] = dict(zip(outer, delinear(p // tiles, sizes), strict=True))
    width: Size = 1
    if vector is not None:
        start = (p % tiles) * tile
        width = minimum(tile, shape[last] - start)
        at[last] = start + Dim.symbol("v", 0, below=width)
    at[dim] = Dim.symbol("r", 0, below=shape[dim])
    place = tuple(at[d] for d in range(len(shape)))
    block = Block(puller.names)
    target = _checked_index(puller.pull(index_value, place, block), size, node, context, block)
    there = tuple(target if d == dim else i for d, i in enumerate(place))
    name = puller.buffer(out, "inout")
    offset = puller.offset(out, there)
    compute = out.dtype.compute
    new = cast(puller.pull(source, place, block), compute)
    folded = step(cast(Load(name, offset, out.dtype), compute), new, **node.attrs)
    block.add(Store(name, offset, block.let(cast(folded, out.dtype))))
    body: tuple[Stmt, ...] = tuple(block.statements)
    if vector is not None:
        body = (For("v", width, "vector", body),)
    nest = For("p", extent, "parallel", (For("r", shape[dim], "serial", body),))
    rows = shape[dim] if isinstance(shape[dim], int) else 256
    return finish(puller, nest, extent, 4.0 * rows * (1 if vector is None else tile), group, "scatter: in order")


def _checked_index(raw: Expr, size: Size, node: Node, context: Context, block: Block, wraps: bool = False) -> Size:
    """`raw` as an index into `size` elements: recorded as a failure and clamped where it is outside.

    wraps: negative ones count from the end; the failure is then an IndexError, else a RuntimeError, as PyTorch has it.
    """
    error = "" if wraps else "RuntimeError: "
    index = block.let(cast(raw, int64))
    low, high = Const(0, int64), block.let(Index(size))
    if wraps:
        from_end = Call("add", (index, high), int64)
        index = block.let(Call("select", (Call("lt", (index, low), bool_), from_end, index), int64))
    inside = Call("and", (Call("ge", (index, low), bool_), Call("lt", (index, high), bool_)), bool_)
    block.add(Check(block.let(inside), context.checks.code(f"{error}{node.op.name}: index out of range", node)))
    top = Call("sub", (high, Const(1, int64)), int64)
    clamped = block.let(Call("max", (Call("min", (index, top), int64), low), int64))
    return clamped.value if isinstance(clamped, Const) else Dim.symbol(clamped.name)  # type: ignore[return-value]


# ---- put -----------------------------------------------------------------------------------------------------------------


def _put(group: Group, context: Context) -> list[Launch]:
    """out = x; then the values are folded into the places that the indices name, in row-major order of the indices.

    The dims that are not indexed are split over threads, so each place is written by one thread, in order.
    """
    node, step, _ = _anchored(group)
    return [_base(node, context), _put_in_order(group, node, step, context)]


def _put_in_order(group: Group, node: Node, step: Callable[..., Expr], context: Context) -> Launch:
    out, (_, values, *indices) = node.outputs[0], node.inputs
    dims, at = node.attrs["dims"], node.attrs["at"]
    common = broadcast_shapes("index_put", [i.shape for i in indices])
    rest = [d for d in range(len(out.shape)) if d not in dims]
    vector = rest[-1] if rest and rest[-1] == len(out.shape) - 1 else None
    outer = [d for d in rest if d != vector]
    tiles = 1 if vector is None else (out.shape[vector] + COLUMN_TILE - 1) // COLUMN_TILE
    sizes = tuple(out.shape[d] for d in outer)
    extent = product(sizes) * tiles
    p = Dim.symbol("p", 0, below=extent)
    there: dict[int, Size] = dict(zip(outer, delinear(p // tiles, sizes), strict=True))
    width: Size = 1
    if vector is not None:
        start = (p % tiles) * COLUMN_TILE
        width = minimum(COLUMN_TILE, out.shape[vector] - start)
        there[vector] = start + Dim.symbol("v", 0, below=width)
    turn = tuple(Dim.symbol(f"r{k}", 0, below=size) for k, size in enumerate(common))
    puller = Puller(context.checks, lambda value: value in group.value_axes)
    row = Block(puller.names)
    for dim, index in zip(dims, indices, strict=True):
        last = turn[len(turn) - len(index.shape) :]
        here = tuple(0 if isinstance(n, int) and n == 1 else t for n, t in zip(index.shape, last, strict=True))
        there[dim] = _checked_index(puller.pull(index, here, row), out.shape[dim], node, context, row, wraps=True)
    kept = tuple(there[d] for d in rest)
    block = row.inner()
    name, offset = puller.buffer(out, "inout"), puller.offset(out, tuple(there[d] for d in range(len(out.shape))))
    compute = out.dtype.compute
    new = cast(puller.pull(values, (*kept[:at], *turn, *kept[at:]), block), compute)
    folded = step(cast(Load(name, offset, out.dtype), compute), new, **node.attrs)
    block.add(Store(name, offset, block.let(cast(folded, out.dtype))))
    inner: tuple[Stmt, ...] = tuple(block.statements)
    body = (*row.statements, *(inner if vector is None else (For("v", width, "vector", inner),)))
    for k in reversed(range(len(common))):
        body = (For(f"r{k}", common[k], "serial", body),)
    count = product(common)
    work = 4.0 * (count if isinstance(count, int) else 256) * (1 if vector is None else COLUMN_TILE)
    return finish(puller, For("p", extent, "parallel", body), extent, work, group, "put: in order")


_NESTS: dict[str, Callable[[Group, Context], list[Launch]]] = {
    "matmul": _matmul,
    "scan": _scan,
    "scatter": _scatter,
    "put": _put,
    "depthwise": depthwise,
    "depthwise_input": depthwise_input,
    "depthwise_weight": depthwise_weight,
    "recurrent": recurrent,
    "recurrent_backward": recurrent_backward,
}
