"""Hand-laid loop nests: scan, scatter, put, and the table of all of them.

Enters: a group whose anchor is such a node.  Leaves: `Launch`es.  Never here: which scalar nodes ride along (partition), and any
target's instructions.  The nests have holes that `Puller` fills: operands are pulled at the indices the nest asks for.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.dims import Dim, minimum, product
from graphc.dtypes import bool_, int64
from graphc.ir.graph import Node
from graphc.ir.loops import Alloc, Call, Check, Const, Expr, For, Index, Load, Size, Stmt, Store, identity
from graphc.ir.op import Anchor, broadcast_shapes
from graphc.schedule.attention import attention
from graphc.schedule.attention_backward import attention_backward
from graphc.schedule.convolution import convolution
from graphc.schedule.convolution_weight import convolution_weight
from graphc.schedule.depthwise import depthwise, depthwise_input, depthwise_weight
from graphc.schedule.depthwise_last import depthwise_last
from graphc.schedule.lower import COLUMN_TILE, Context, Launch, finish, store_copy
from graphc.schedule.matmul import matmul
from graphc.schedule.panels import panels
from graphc.schedule.partition import Group, is_stored
from graphc.schedule.pull import Block, Puller, cast, delinear
from graphc.schedule.recurrent import recurrent, recurrent_backward
from graphc.schedule.taps import taps
from graphc.schedule.winograd import winograd, winograd_filters


def lower_anchor(group: Group, context: Context) -> list[Launch]:
    """The launches of a group with an anchor."""
    assert group.anchor is not None
    lowering = group.anchor.lowering
    assert isinstance(lowering, Anchor)
    return _NESTS[lowering.nest](group, context)


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
    return [finish(puller, nest, extent, 2.0 * tile, group, "scan", shape[dim])]


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
    return finish(puller, nest, extent, 4.0 * (1 if vector is None else tile), group, "scatter: in order", shape[dim])


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
    work = 4.0 * (1 if vector is None else COLUMN_TILE)
    return finish(puller, For("p", extent, "parallel", body), extent, work, group, "put: in order", product(common))


_NESTS: dict[str, Callable[[Group, Context], list[Launch]]] = {
    "matmul": matmul,
    "matmul_panels": matmul,
    "panels": panels,
    "scan": _scan,
    "scatter": _scatter,
    "put": _put,
    "convolution": convolution,
    "convolution_weight": convolution_weight,
    "taps": taps,
    "depthwise": depthwise,
    "depthwise_input": depthwise_input,
    "depthwise_last": depthwise_last,
    "depthwise_weight": depthwise_weight,
    "attention": attention,
    "attention_backward": attention_backward,
    "recurrent": recurrent,
    "recurrent_backward": recurrent_backward,
    "winograd": winograd,
    "winograd_filters": winograd_filters,
}
