"""One group of nodes -> one kernel.

Enters: a `Group`.  Leaves: a `Launch` (kernel, buffers, extent).  Never here: which nodes belong together; hand-laid nests
(schedule.nest).

A group with a reduced axis runs in phases: phase q is one pass over the reduced axis and ends with the reductions whose operands
needed the results of phases before q.  Row orientation: the reduced axis is innermost (32 lanes), one row per parallel iteration.
Column orientation: a tile of a kept axis is innermost and the 32 lanes of each column's accumulator lie in scratch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from graphc.dims import Dim, bounds, free, maximum, minimum, product, substitute
from graphc.dtypes import int64
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.loops import (
    FUNCTIONS,
    Acc,
    Alloc,
    Check,
    Expr,
    For,
    Kernel,
    Let,
    Load,
    Param,
    Size,
    Stmt,
    Store,
    Update,
    Var,
    walk,
)
from graphc.ir.op import Reduce, Scalar
from graphc.schedule.partition import Axes, Group, Source, is_stored, resolve
from graphc.schedule.pull import Block, Checks, Position, Puller, cast, delinear, free_symbols
from graphc.schedule.tiles import TILE, read_across, tiles

CHUNK = 4096  # elements of a flat pointwise kernel per parallel iteration
COLUMN_TILE = 128  # columns whose 32 lanes (16 KiB of float32) stay in the first-level cache
SPILL_LIMIT = 16384  # elements of a row kept in scratch rather than computed twice
WORTH_KEEPING = 4.0  # cost (in simple operations) above which a value is kept rather than computed again
GRAIN_WORK = 16_000  # element operations that are worth waking a thread for
HEAVY = 8.0
FEW = 8  # elements of a row of open length that are in one short vector
ASSUMED = 4


@dataclass(frozen=True)
class Launch:
    """One kernel call.  `buffers`: stored values in the order of the kernel's buffer parameters."""

    kernel: Kernel
    buffers: tuple[Value, ...]
    extent: Size
    checks: bool
    members: tuple[Node, ...] = ()
    note: str = ""


class Context:
    """What lowering needs to know of the whole graph, and of the machine: how many float32 its vectors hold."""

    def __init__(self, graph: Graph, lanes: int = 32) -> None:
        self.graph, self.lanes = graph, lanes
        self.checks = Checks()
        self.sources: dict[Value, Source] = {}
        self.streamed: set[Value] = set()  # stored values that are too large for the caches, and that no kernel reads

    def source(self, value: Value) -> Source:
        """What `value` really reads, seen through movement; each value is resolved once."""
        found = self.sources.get(value)
        if found is None:
            found = self.sources[value] = resolve(value)
        return found


def assumed(size: Size) -> int:
    """The number that units are cut for: where a size is open, one of which there are units enough for a few threads."""
    return size if isinstance(size, int) else ASSUMED


def parted(*sizes: Size) -> tuple[int, Size]:
    """The product of the sizes that are known, and of those that are open."""
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known), product(size for size in sizes if not isinstance(size, int))


def finish(puller: Puller, body: Stmt, extent: Size, work: float, group: Group, note: str, times: Size = 1) -> Launch:
    """Wrap a body into a kernel with its parameters; name it by its text so that equal kernels are one.

    work: element operations of one iteration, for each of `times`.
    """
    statements = (body,)
    buffers = puller.params()
    grain = maximum(1, max(1, int(GRAIN_WORK / max(work, 1.0))) // maximum(1, times))
    names = set(free(grain))
    for statement in walk(statements):
        names |= free_symbols(statement)
    for param in buffers:
        names |= free(param.size)
    bound = {s.var for s in walk(statements) if isinstance(s, For)} | {s.name for s in walk(statements) if isinstance(s, Let)}
    sizes = tuple(Param(name, "size", int64) for name in sorted(names - bound))
    kernel = named(Kernel("kernel", buffers + sizes, statements, grain))
    checks = any(isinstance(s, Check) for s in walk(statements))
    return Launch(kernel, tuple(value for value, _ in puller.buffers), extent, checks, tuple(group.members), note)


def store_copy(value: Value, target: Value, context: Context, pulled: bool = False) -> Launch:
    """A kernel that copies `value` into the buffer of `target`, from its own buffer or (`pulled`) through movement."""
    puller = Puller(context.checks, lambda _: False)
    total = product(value.shape)
    chunks = (total + CHUNK - 1) // CHUNK
    p = Dim.symbol("p", 0, below=chunks)
    width = minimum(CHUNK, total - p * CHUNK)
    flat = p * CHUNK + Dim.symbol("v", 0, below=width)
    block = Block(puller.names)
    if pulled:
        element = block.let(puller.pull(value, delinear(flat, value.shape), block))
    else:
        element = block.let(Load(puller.buffer(value, "in"), flat, value.dtype))
    block.add(Store(puller.buffer(target, "out"), flat, block.let(cast(element, target.dtype))))
    nest = For("p", chunks, "parallel", (For("v", width, "vector", tuple(block.statements)),))
    return finish(puller, nest, chunks, CHUNK / 2, Group(list(value.shape)), "copy")


def named(kernel: Kernel) -> Kernel:
    """The kernel under a name made from its text."""
    import hashlib

    return kernel.renamed("k" + hashlib.sha256(str(kernel).encode()).hexdigest()[:16])


def may_overwrite(group: Group, state: Value, new: Value, context: Context) -> bool:
    """May `new` be stored over `state`, which this group reads too?  Not where a later part of the kernel still reads it."""
    if group.reduced is None:
        return True
    region = Region(group, context)
    if region.is_full(new):
        return False
    readers = [n for n in group.members if any(context.source(v).base is state for v in n.inputs)]
    return all(not region.is_full(n.outputs[0]) and region.phase_of[n.outputs[0]] <= region.phase_of[new] for n in readers)


def lower_region(group: Group, context: Context) -> Launch:
    """Lower a group without an anchor."""
    return Region(group, context).lower()


class Region:
    """A group without an anchor, and what its lowering has to know of it."""

    def __init__(self, group: Group, context: Context) -> None:
        self.group, self.context = group, context
        self.puller = Puller(context.checks, lambda value: value in group.value_axes)
        self.outputs = set(group.outputs)
        self.names = count()
        self.phase_of: dict[Value, int] = {}
        self.reduces: list[tuple[Node, int]] = []
        self.cost: dict[Value, float] = {}
        self.last_use: dict[Value, int] = {}
        self.parked: dict[Value, Value] = {}  # the value that an output's buffer holds until the output is stored
        self.later: list[tuple[Value, Callable[[Position], Expr]]] = []  # what is to be read back from the next pass on
        self.analyse()

    # ---- analysis --------------------------------------------------------------------------------------------------

    def analyse(self) -> None:
        """Which pass makes each value, what that costs, and which passes read it."""
        for node in self.group.members:
            bases = [self.context.source(v).base for v in node.inputs]
            phase = max((self.phase_of[b] for b in bases if b in self.phase_of), default=0)
            reduces = isinstance(node.lowering, Reduce)
            if reduces:
                self.reduces.append((node, phase))
            for base in bases:
                if base in self.phase_of:
                    self.last_use[base] = max(self.last_use.get(base, 0), phase)
            for out in node.outputs:
                self.phase_of[out] = phase + 1 if reduces else phase
                self.cost[out] = 0.5 if reduces else self.node_cost(node) + sum(self.cost.get(b, 0.0) for b in set(bases))
        passes = [q for _, q in self.reduces] + [q for v, q in self.phase_of.items() if v in self.outputs and self.is_full(v)]
        self.passes = max(passes, default=-1 if self.group.members else 0) + 1
        self.work_per_element = 1.0 + sum(self.node_cost(n) for n in self.group.members)

    @staticmethod
    def node_cost(node: Node) -> float:
        """What one element of a node costs, in simple operations."""
        rule = getattr(node.lowering, "rule", None)
        if isinstance(rule, str):
            return HEAVY if rule not in FUNCTIONS else 4.0 if rule in ("div", "sqrt", "idiv") else 1.0
        return HEAVY / 2

    def is_full(self, value: Value) -> bool:
        return self.group.reduced is None or self.group.reduced in self.group.value_axes[value]

    def axes(self, value: Value) -> Axes:
        return self.group.value_axes[value]

    def index_of(self, value: Value, axis_index: dict[int, Size]) -> Position:
        return tuple(0 if a is None else axis_index[a] for a in self.axes(value))

    def innermost_votes(self) -> dict[int, int]:
        """How many buffers are contiguous along each axis."""
        votes: dict[int, int] = {}

        def vote(axes: Axes) -> None:
            if axes and axes[-1] is not None:
                votes[axes[-1]] = votes.get(axes[-1], 0) + 1

        for value in self.group.outputs:
            vote(self.axes(value))
        for node in self.group.members:
            if not isinstance(node.lowering, Scalar | Reduce):
                continue  # the operands' dims are not those of the result
            out_axes = self.operand_template(node)
            for value in node.inputs:
                source = self.context.source(value)
                if source.base in self.group.value_axes or not source.base.shape:
                    continue
                for dim in source.inner:
                    vote((out_axes[dim + len(out_axes) - len(source.dims)],))
        return votes

    def operand_template(self, node: Node) -> Axes:
        """The axes of `node`'s operand dims (for a reduction: its output's with the reduced axis put back)."""
        out = self.axes(node.outputs[0])
        if not isinstance(node.lowering, Reduce):
            return out
        dim = node.attrs["dim"]
        return (*out[:dim], self.group.reduced, *out[dim:])

    # ---- orientation -----------------------------------------------------------------------------------------------

    def lower(self) -> Launch:
        """The launch, in the orientation in which most buffers are contiguous."""
        group = self.group
        votes = self.innermost_votes()
        if group.reduced is None:
            return self.pointwise(votes)
        columns = {a: n for a, n in votes.items() if a != group.reduced}
        best = max(columns, key=lambda a: columns[a], default=None)
        if best is None or votes.get(group.reduced, 0) >= columns[best] or _small(group.axes[best]):
            return self.rows()
        from graphc.schedule.columns import Columns

        return Columns(self, best).lower()

    # ---- pointwise -------------------------------------------------------------------------------------------------

    def pointwise(self, votes: dict[int, int]) -> Launch:
        """A group without a reduced axis."""
        from graphc.schedule import draws

        group = self.group
        count_axes = [a for a in range(len(group.axes)) if group.axes[a] != 1]
        if self.is_flat(count_axes):
            total = product(group.axes)
            if any(map(draws.is_draw, group.members)):
                return draws.drawn_first(self, total)
            flat, loops = self.chunked(total)
            return self.store_all(self.flat_index(flat), loops, "pointwise")
        inner = max(count_axes, key=lambda a: (votes.get(a, 0), a), default=None)
        if inner is None:
            return self.store_all(dict.fromkeys(range(len(group.axes)), 0), [("p", 1), ("v", 1)], "pointwise")
        across = read_across(self.read(), group.axes, inner)
        if across is not None:
            blocks, extents, axis_index = tiles(group.axes, inner, across)
            tile = For("s", extents[across], "serial", (For("v", extents[inner], "vector", self.stores(axis_index)),))
            work = self.work_per_element * TILE * TILE
            return finish(self.puller, For("p", blocks, "parallel", (tile,)), blocks, work, group, "pointwise")
        outer = [a for a in range(len(group.axes)) if a != inner]
        length = group.axes[inner]
        chunks = 1 if isinstance(length, int) and length <= CHUNK else (length + CHUNK - 1) // CHUNK
        outer_sizes = tuple(group.axes[a] for a in outer)
        rows = product(outer_sizes)
        p = Dim.symbol("p", 0, below=rows * chunks)
        block = 0 if chunks == 1 else p % chunks
        extent = length if chunks == 1 else minimum(CHUNK, length - block * CHUNK)
        axis_index = dict(zip(outer, delinear(p if chunks == 1 else p // chunks, outer_sizes), strict=True))
        axis_index[inner] = block * CHUNK + Dim.symbol("v", 0, below=extent)
        return self.store_all(axis_index, [("p", rows * chunks), ("v", extent)], "pointwise")

    def flat_index(self, flat: Size) -> dict[int, Size]:
        """The place of every axis, of an element of a group whose buffers are walked in one order."""
        axes = self.group.axes
        index = dict(enumerate(delinear(flat, tuple(axes))))
        longer = [a for a in index if axes[a] != 1]
        if longer and self.places_do_not_show():  # then offsets need not be put together again from their parts
            index = {**dict.fromkeys(index, 0), longer[-1]: flat}
        return index

    def places_do_not_show(self) -> bool:
        """Whether no element is made from its index."""
        bases = (self.context.source(v).base for node in self.group.members for v in node.inputs)
        return all(is_stored(base) or product(base.shape) == 1 for base in bases)

    def read(self) -> Iterator[Axes]:
        """The axes that each buffer walks which elementwise members read or, where there are none, which is copied."""
        if not self.group.members:
            yield from (self.walked(self.context.source(v), self.axes(v)) for v in self.group.outputs)
        for node in self.group.members:
            if isinstance(node.lowering, Scalar):
                yield from (self.walked(self.context.source(v), self.axes(node.outputs[0])) for v in node.inputs)

    def chunked(self, total: Size) -> tuple[Size, list[tuple[str, Size]]]:
        """A flat index as p * CHUNK + v."""
        if isinstance(total, int) and total <= CHUNK:
            return Dim.symbol("v", 0, below=total), [("p", 1), ("v", total)]
        blocks = (total + CHUNK - 1) // CHUNK
        p = Dim.symbol("p", 0, below=blocks)
        whole = isinstance(total, int) and total % CHUNK == 0
        extent = CHUNK if whole else minimum(CHUNK, total - p * CHUNK)
        return p * CHUNK + Dim.symbol("v", 0, below=extent), [("p", blocks), ("v", extent)]

    def is_flat(self, axes: list[int]) -> bool:
        """Does every buffer hold one element per iteration in the same order (or one element in all)?"""
        from graphc.schedule.draws import is_draw

        wanted = tuple(axes)
        layouts = [tuple(a for a in self.axes(v) if a is not None) for v in self.group.outputs]
        for node in self.group.members:
            if is_draw(node):
                layouts.append(tuple(a for a in self.axes(node.outputs[0]) if a in axes))
                continue
            if not isinstance(node.lowering, Scalar):
                return False
            template = self.axes(node.outputs[0])
            for value in node.inputs:
                source = self.context.source(value)
                if source.base in self.group.value_axes:
                    if tuple(a for a in self.walked(source, template) if a is not None) != wanted:
                        return False
                elif product(source.base.shape) != 1:
                    if not source.regular:
                        return False
                    layouts.append(tuple(a for a in self.walked(source, template) if a is not None))
        return bool(self.group.members) and all(layout == wanted for layout in layouts)

    def walked(self, source: Source, template: Axes) -> Axes:
        """The axis that each dim of the source's base walks."""
        by_base: dict[int, int | None] = {}
        for dim, base_dim in enumerate(source.dims):
            if base_dim is not None and source.base.shape[base_dim] != 1:  # else it stays on its one element
                by_base[base_dim] = template[dim + len(template) - len(source.dims)]
        return tuple(by_base.get(d) for d in range(len(source.base.shape)))

    def store_all(self, axis_index: dict[int, Size], loops: list[tuple[str, Size]], note: str) -> Launch:
        """Loops over `stores`."""
        (p, outer), (v, extent) = loops
        nest = For(p, outer, "parallel", (For(v, extent, "vector", self.stores(axis_index)),))
        times = extent if isinstance(extent, int) else minimum(CHUNK // 4, substitute(extent, {p: 0}))
        return finish(self.puller, nest, outer, self.work_per_element, self.group, note, times)

    def stores(self, axis_index: dict[int, Size]) -> tuple[Stmt, ...]:
        """One element of every output."""
        block = Block(self.puller.names)
        for value in self.group.outputs:  # every load comes before any store: an output may lie over an input
            block.let(self.puller.pull(value, self.index_of(value, axis_index), block))
        for value in self.group.outputs:
            self.store(value, axis_index, block)
        return tuple(block.statements)

    def store(self, value: Value, axis_index: dict[int, Size], block: Block) -> None:
        """Write an element of an output."""
        index = self.index_of(value, axis_index)
        element = block.let(self.puller.pull(value, index, block))
        stream = value in self.context.streamed and not self.read_back(value) and self.cost_now(value) < HEAVY
        block.add(Store(self.puller.buffer(value, "out"), self.puller.offset(value, index), element, stream))

    def read_back(self, value: Value) -> bool:
        return value in self.phase_of and self.is_full(value) and self.worth_keeping(value, self.phase_of[value])

    def cost_now(self, value: Value) -> float:
        """What making an element costs where others are kept or reduced already."""
        node = value.node
        if node is None or value in self.puller.reload or isinstance(node.lowering, Reduce):
            return 0.0
        bases = {self.context.source(v).base for v in node.inputs} & self.phase_of.keys()
        return self.node_cost(node) + sum(self.cost_now(b) for b in bases if self.is_full(value) == self.is_full(b))

    # ---- rows ------------------------------------------------------------------------------------------------------

    def rows(self) -> Launch:
        """Row orientation: the reduced axis is innermost."""
        group = self.group
        assert group.reduced is not None
        kept = group.kept()
        sizes = tuple(group.axes[a] for a in kept)
        rows, length = product(sizes), group.axes[group.reduced]
        p = Dim.symbol("p", 0, below=rows)
        axis_index = dict(zip(kept, delinear(p, sizes), strict=True))
        axis_index[group.reduced] = Dim.symbol("r", 0, below=length)
        row = Block(self.puller.names)
        for phase in range(self.passes):
            self.row_level(phase, axis_index, row)
            self.pass_over(phase, axis_index, row, length)
        self.row_level(self.passes, axis_index, row)
        nest = For("p", rows, "parallel", tuple(self.few_apart(row.statements, length)))
        note = f"rows, {self.passes} pass{'es' if self.passes != 1 else ''}"
        return finish(self.puller, nest, rows, self.work_per_element, group, note, length)

    def few_apart(self, row: Sequence[Stmt], length: Size) -> Sequence[Stmt]:
        """A row of open length, twice: where it is of so few elements that a short vector holds them, code for that is apart."""
        low, _ = bounds(length)
        if isinstance(length, int) or low is None or not 1 <= low <= FEW:
            return row
        within = minimum(length, FEW)
        short = [replace(s, extent=within) if isinstance(s, For) and s.extent == length else s for s in row]
        few = maximum(0, minimum(1, FEW + 1 - length))
        return For("w", few, "serial", tuple(short)), For("w", 1 - few, "serial", tuple(row))

    def row_level(self, phase: int, axis_index: dict[int, Size], row: Block) -> None:
        """Kept-level values that become known before pass `phase`; all are computed before any is stored."""
        known = [v for n in self.group.members for v in n.outputs if not self.is_full(v) and self.phase_of[v] == phase]
        for value in known:
            self.puller.pull(value, self.index_of(value, axis_index), row)
        for value in known:
            if value in self.outputs:
                self.store(value, axis_index, row)

    def pass_over(self, phase: int, axis_index: dict[int, Size], row: Block, length: Size) -> None:
        """One pass over the reduced axis, with what it keeps for later ones."""
        inner = row.inner()
        folded: list[tuple[Node, str]] = []
        for node, at in self.reduces:
            if at == phase:
                name = f"a{next(self.names)}"
                folded.append((node, name))
                assert isinstance(node.lowering, Reduce)
                row.add(Acc(name, node.lowering.fn, node.outputs[0].dtype.compute))
                inner.add(Update(name, inner.let(self.reduced_operand(node, axis_index, inner))))
        kept: list[tuple[Value, str]] = []
        for value, at in self.phase_of.items():
            if at != phase or not self.is_full(value):
                continue
            if value in self.outputs:
                if value in self.parked:  # this pass may read the row after the output is stored over it
                    inner.let(self.puller.pull(self.parked[value], self.index_of(self.parked[value], axis_index), inner))
                self.store(value, axis_index, inner)
                if self.worth_keeping(value, phase):
                    kept.append((value, ""))
            elif self.worth_keeping(value, phase) and isinstance(length, int) and length <= SPILL_LIMIT:
                kept.append((value, self.spill(value, axis_index, inner, row, length)))
            elif self.worth_keeping(value, phase) and not isinstance(length, int):
                self.park(value, phase, axis_index, inner)
        if inner.statements:
            row.add(For("r", length, "lanes" if folded else "vector", tuple(inner.statements)))
        for node, name in folded:
            out = node.outputs[0]
            var = row.let(cast(Var(name, out.dtype.compute), out.dtype))
            row.memo[out, self.index_of(out, axis_index)] = var
        self.reload_later(kept)

    def reduced_operand(self, node: Node, axis_index: dict[int, Size], inner: Block) -> Expr:
        """The element that a reduction folds."""
        assert self.group.reduced is not None
        operand, dim = node.inputs[0], node.attrs["dim"]
        index = list(self.index_of(node.outputs[0], axis_index))
        index.insert(dim, 0 if operand.shape[dim] == 1 else axis_index[self.group.reduced])
        return cast(self.puller.pull(operand, tuple(index), inner), node.outputs[0].dtype.compute)

    def worth_keeping(self, value: Value, phase: int) -> bool:
        return self.last_use.get(value, -1) > phase and self.cost[value] >= WORTH_KEEPING

    def spill(self, value: Value, axis_index: dict[int, Size], inner: Block, row: Block, length: int) -> str:
        """Keep a value in scratch; gives its name."""
        name = f"s{next(self.names)}"
        row.statements.insert(0, Alloc(name, value.dtype, length))
        element = inner.let(self.puller.pull(value, self.index_of(value, axis_index), inner))
        inner.add(Store(name, axis_index[self.group.reduced], element))  # type: ignore[index]
        return name

    def park(self, value: Value, phase: int, axis_index: dict[int, Size], inner: Block) -> None:
        """Keep a row of no known size where an output will be that is stored when nobody reads the row any more, if there is one.

        (Its buffer is nobody's input.)
        """
        fits = (
            v for v in self.group.outputs
            if self.phase_of.get(v, 0) >= self.last_use[value] and v.type == value.type and self.axes(v) == self.axes(value)
            and v not in self.parked
        )  # fmt: skip
        place = next(fits, None)
        if place is None:
            return
        self.parked[place] = value
        index = self.index_of(value, axis_index)
        element = inner.let(self.puller.pull(value, index, inner))
        inner.add(Store(self.puller.buffer(place, "out"), self.puller.offset(place, index), element))
        self.cost[value] = 0.5
        self.later.append((value, self.output_load(place)))

    def reload_later(self, kept: list[tuple[Value, str]]) -> None:
        """Later passes read what this one stored."""
        for value, load in self.later:
            self.puller.reload[value] = load
        self.later.clear()
        for value, name in kept:
            self.cost[value] = 0.5
            if name:
                self.puller.reload[value] = _spilled(name, self.axes(value).index(self.group.reduced), value)
            else:
                self.puller.reload[value] = self.output_load(value)

    def output_load(self, value: Value) -> Callable[[Position], Expr]:
        name = self.puller.buffer(value, "out")
        return lambda index: Load(name, self.puller.offset(value, index), value.dtype)


def _spilled(name: str, dim: int, value: Value) -> Callable[[Position], Expr]:
    """A row kept in scratch: whoever reads one place of it (``x[:, 0]``) stands outside the loop over its dim."""
    return lambda index: Load(name, index[dim], value.dtype)


def _small(size: Size) -> bool:
    return isinstance(size, int) and size < 4
