"""Hand-laid nests of depthwise convolutions: forward, back to the input, back to the weight.

Enters: a group whose anchor is one of `ops.depthwise`.  Leaves: its `Launch`.  Never here: what is computed (`ops.depthwise`).

A unit copies a plane of one image and channel into scratch, with zeros around it, so that no element of the kernel asks where the
plane ends.  A plane that a stride walks is cut into phases there: neighbours of a phase are a stride apart, so every load is of
neighbours.  Planes that are too large for the nearest caches are taken in blocks of rows.

A result's element is one fma chain over the kernel from zero.  An element of the weight's gradient is, for each image and block of
rows, a sum in the tree order over rows with the zeros between them; those are added in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product as pairs
from typing import Any

from graphc.dims import Dim, maximum, minimum
from graphc.dtypes import DType
from graphc.ir.graph import Value
from graphc.ir.loops import Acc, Alloc, Call, Const, Expr, For, Load, Size, Stmt, Store, Update, Var
from graphc.ops.depthwise import rows_of_block
from graphc.ops.windows import fixed, fixed_inside
from graphc.schedule.lower import Context, Launch, assumed, finish
from graphc.schedule.partition import Group
from graphc.schedule.pull import Block, Puller, multiply_add

Pair = tuple[int, int]


def _fixed(shape: tuple[Size, ...]) -> tuple[int, ...]:
    """Sizes, none of which is symbolic."""
    return fixed("depthwise", shape)


def _of_batch(shape: tuple[Size, ...]) -> tuple[Any, ...]:
    """Sizes of which the first may be symbolic."""
    return fixed_inside("depthwise", shape)


def _pair(shape: tuple[Size, ...]) -> Pair:
    first, second = _fixed(shape)
    return first, second


@dataclass(frozen=True)
class _Plane:
    """A plane in scratch as [row phases, column phases, rows, pitch].   column: of the source, at scratch column 0."""

    buffer: str
    phases: Pair
    rows: int
    pitch: int
    column: int

    @property
    def size(self) -> int:
        return self.phases[0] * self.phases[1] * self.rows * self.pitch

    def offset(self, row: int, column: int) -> int:
        """Of what lies `row` and `column` of the source after the first element."""
        (high, i), (across, j) = divmod(row, self.phases[0]), divmod(column, self.phases[1])
        return ((i * self.phases[1] + j) * self.rows + high) * self.pitch + across


class _Nest:
    def __init__(self, group: Group, context: Context) -> None:
        assert group.anchor is not None
        self.group, self.node = group, group.anchor
        self.out = self.node.outputs[0]
        self.dtype: DType = self.out.dtype
        self.puller = Puller(context.checks, lambda _: False)
        self.allocs: list[Stmt] = []
        self.zero = Const(0.0 if self.dtype.kind == "f" else 0, self.dtype)

    def finished(self, extent: Size, body: list[Stmt], work: float, note: str) -> list[Launch]:
        nest = For("p", extent, "parallel", (*self.allocs, *body))
        return [finish(self.puller, nest, extent, work, self.group, note)]

    def filled(self, plane: _Plane, source: Value, where: tuple[Size, Size], first: Size) -> list[Stmt]:
        """Zeros, then the rows of a source's plane from `first` on (negative: rows of zeros)."""
        height, width = _fixed(source.shape[2:])
        self.allocs.append(Alloc(plane.buffer, self.dtype, plane.size))
        clear = For("z", plane.size, "vector", (Store(plane.buffer, Dim.symbol("z"), self.zero),))
        statements: list[Stmt] = [clear]
        for i, j in pairs(*map(range, plane.phases)):
            high, across = plane.phases
            low = maximum(0, (high - 1 - first - i) // high)
            rows = maximum(0, minimum(plane.rows, (height - first - i + high - 1) // high) - low)
            start = max(0, -(-(-plane.column - j) // across))
            count = min(plane.pitch, -(-(width - plane.column - j) // across)) - start
            if count <= 0 or rows == 0:
                continue
            t, v = Dim.symbol("t", 0, below=rows), Dim.symbol("v", 0, below=count)
            block = Block(self.puller.names)
            there = (*where, first + i + (low + t) * high, plane.column + j + (start + v) * across)
            element = self.puller.pull(source, there, block)
            at = ((i * across + j) * plane.rows + low + t) * plane.pitch + start + v
            block.add(Store(plane.buffer, at, block.let(element)))
            statements.append(For("t", rows, "serial", (For("v", count, "vector", tuple(block.statements)),)))
        return statements

    def weights(self, weight: Value, channel: Size, body: Block) -> dict[Pair, Expr]:
        """The elements of a channel's kernel."""
        kernel = _pair(weight.shape[1:])
        return {(i, j): self.puller.pull(weight, (channel, i, j), body) for i, j in pairs(*map(range, kernel))}

    def chain(self, plane: str, row_offset: Size, terms: Iterator[tuple[int, Expr]], block: Block) -> Expr:
        """One fma after the other, from zero."""
        total: Expr = self.zero
        for offset, weight in terms:
            element = block.let(Load(plane, row_offset + offset + Dim.symbol("v"), self.dtype))
            total = block.let(multiply_add(element, weight, total))
        return total


def depthwise(group: Group, context: Context) -> list[Launch]:
    """[N, C, H, W], [O, *kernel] -> [N, O, *places]."""
    nest = _Nest(group, context)
    x, weight = nest.node.inputs
    stride, before, dilation = (nest.node.attrs[name] for name in ("stride", "before", "dilation"))
    batch, outer, height, width = _of_batch(nest.out.shape)
    kernel = _pair(weight.shape[1:])
    each = rows_of_block(height, width, kernel, stride, dilation)
    blocks = -(-height // each)
    plane = _windowed("plane", each, width, kernel, stride, dilation, before[1])
    p = Dim.symbol("p", 0, below=batch * outer * blocks)
    first = (p % blocks) * each
    channel, image = (p // blocks) % outer, p // blocks // outer
    body = Block(nest.puller.names)
    weights = nest.weights(weight, channel, body)
    many = outer // _of_batch(x.shape)[1]
    for statement in nest.filled(plane, x, (image, channel // many), first * stride[0] - before[0]):
        body.add(statement)
    inner = Block(nest.puller.names)
    row = Dim.symbol("r", 0, below=each)
    terms = ((plane.offset(i * dilation[0], j * dilation[1]), w) for (i, j), w in weights.items())
    total = nest.chain(plane.buffer, row * plane.pitch, terms, inner)
    there = (image, channel, first + row, Dim.symbol("v", 0, below=width))
    inner.add(Store(nest.puller.buffer(nest.out, "out"), nest.puller.offset(nest.out, there), total))
    rows: Size = each if height % each == 0 else minimum(each, height - first)
    body.add(For("r", rows, "serial", (For("v", width, "vector", tuple(inner.statements)),)))
    work = each * width * (len(weights) + 4) / 8
    return nest.finished(batch * outer * blocks, body.statements, work, "depthwise convolution")


def _windowed(name: str, rows: int, columns: int, kernel: Pair, stride: Pair, dilation: Pair, before: int) -> _Plane:
    """The plane under a kernel's windows for that many rows and columns of results."""
    sizes = [(n - 1) * s + d * (k - 1) + 1 for n, k, s, d in zip((rows, columns), kernel, stride, dilation, strict=True)]
    return _Plane(name, stride, -(-sizes[0] // stride[0]), -(-sizes[1] // stride[1]), -before)


def depthwise_input(group: Group, context: Context) -> list[Launch]:
    """[N, C, *places], [C, *kernel] -> [N, C, H, W].  Results a stride apart are of one phase: the same weights meet them."""
    nest = _Nest(group, context)
    g, weight = nest.node.inputs
    stride, before, dilation = (nest.node.attrs[name] for name in ("stride", "before", "dilation"))
    batch, channels, height, width = _of_batch(nest.out.shape)
    kernel = _pair(weight.shape[1:])
    # of each dim and phase of results: (element of the kernel, how far the place that it meets lies after the result's)
    met = [
        [[(k, (i + b - k * d) // s) for k in range(n) if (i + b - k * d) % s == 0] for i in range(s)]
        for n, s, b, d in zip(kernel, stride, before, dilation, strict=True)
    ]
    low, high = (tuple(pick(e for phase in dim for _, e in phase) for dim in met) for pick in (min, max))
    most = (-(-height // stride[0]), -(-width // stride[1]))
    span = (high[0] - low[0] + 1, high[1] - low[1] + 1)
    each = rows_of_block(most[0], most[1], span, (1, 1), (1, 1))
    blocks = -(-most[0] // each)
    plane = _Plane("plane", (1, 1), each + span[0] - 1, most[1] + span[1] - 1, low[1])
    p = Dim.symbol("p", 0, below=batch * channels * blocks)
    first = (p % blocks) * each
    channel, image = (p // blocks) % channels, p // blocks // channels
    body = Block(nest.puller.names)
    weights = nest.weights(weight, channel, body)
    for statement in nest.filled(plane, g, (image, channel), first + low[0]):
        body.add(statement)
    name = nest.puller.buffer(nest.out, "out")
    for i, j in pairs(range(min(stride[0], height)), range(min(stride[1], width))):
        inner = Block(nest.puller.names)
        row = Dim.symbol("r", 0, below=each)
        terms = ((plane.offset(a - low[0], b - low[1]), weights[k, m]) for (k, a), (m, b) in pairs(met[0][i], met[1][j]))
        total = nest.chain(plane.buffer, row * plane.pitch, terms, inner)
        count = -(-(width - j) // stride[1])
        there = (image, channel, (first + row) * stride[0] + i, Dim.symbol("v", 0, below=count) * stride[1] + j)
        inner.add(Store(name, nest.puller.offset(nest.out, there), total))
        of_phase = -(-(height - i) // stride[0])
        rows: Size = of_phase if blocks == 1 else maximum(0, minimum(each, of_phase - first))
        body.add(For("r", rows, "serial", (For("v", count, "vector", tuple(inner.statements)),)))
    work = each * stride[0] * width * (len(weights) / (stride[0] * stride[1]) + 4) / 8
    return nest.finished(batch * channels * blocks, body.statements, work, "depthwise convolution, its input")


def depthwise_weight(group: Group, context: Context) -> list[Launch]:
    """[N, O, *places], [N, C, H, W] -> [O, *kernel]: a unit is a channel of the result."""
    nest = _Nest(group, context)
    g, x = nest.node.inputs
    stride, before, dilation = (nest.node.attrs[name] for name in ("stride", "before", "dilation"))
    (outer,), kernel = _fixed(nest.out.shape[:1]), _pair(nest.out.shape[1:])
    batch, _, height, width = _of_batch(g.shape)
    each = rows_of_block(height, width, kernel, stride, dilation)
    blocks = -(-height // each)
    plane = _windowed("plane", each, width, kernel, stride, dilation, before[1])
    gradients = _Plane("gradients", (1, 1), each, plane.pitch, 0)
    channel = Dim.symbol("p", 0, below=outer)
    image, first = Dim.symbol("n", 0, below=batch), Dim.symbol("q", 0, below=blocks) * each
    nest.allocs.append(Alloc("total", nest.dtype, kernel[0] * kernel[1]))
    inner: list[Stmt] = [
        *nest.filled(plane, x, (image, channel // (outer // _of_batch(x.shape)[1])), first * stride[0] - before[0]),
        *nest.filled(gradients, g, (image, channel), first),
    ]
    r = Dim.symbol("r", 0, below=(each - 1) * plane.pitch + width)
    for i in range(kernel[0]):
        block = Block(nest.puller.names)
        factor = block.let(Load(gradients.buffer, r, nest.dtype))
        for j in range(kernel[1]):
            inner.append(Acc(f"a{i}_{j}", "add", nest.dtype))
            element = block.let(Load(plane.buffer, r + plane.offset(i * dilation[0], j * dilation[1]), nest.dtype))
            block.add(Update(f"a{i}_{j}", block.let(Call("mul", (factor, element), nest.dtype))))
        inner.append(For("r", (each - 1) * plane.pitch + width, "lanes", tuple(block.statements)))
        for j in range(kernel[1]):
            at = i * kernel[1] + j
            total = Call("add", (Load("total", at, nest.dtype), Var(f"a{i}_{j}", nest.dtype)), nest.dtype)
            inner.append(Store("total", at, total))
    count = kernel[0] * kernel[1]
    z = Dim.symbol("z", 0, below=count)
    store = Store(nest.puller.buffer(nest.out, "out"), channel * count + z, Load("total", z, nest.dtype))
    body: list[Stmt] = [
        For("z", count, "vector", (Store("total", z, nest.zero),)),
        For("n", batch, "serial", (For("q", blocks, "serial", tuple(inner)),)),
        For("z", count, "vector", (store,)),
    ]
    work = assumed(batch) * height * plane.pitch * count / 4
    return nest.finished(outer, body, work, "depthwise convolution, its weight")
