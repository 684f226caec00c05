"""Which nodes become one kernel.

Enters: a Graph of scalar, movement, element, reduce, anchor and host nodes.  Leaves: `Group`s in execution order, and the reason
for every producer-consumer edge that was not fused.  Never here: loops, indices of elements, buffers.

A group has axes (sizes) and at most one of them reduced.  A value in it covers all axes (full) or all but the reduced one
(kept), so one pass over the reduced axis serves every member.  Movement and constants belong to no group: whoever reads them pulls
through them.  Nodes join the latest group they can without making a cycle.  A host node or a region is a group of its own, and what
it reads is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from graphc.dims import Dim, coefficient
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.loops import Size
from graphc.ir.op import Anchor, Element, Host, Movement, Reduce, Region, Scalar

# A value's dims as axes of its group; None for a dim of size 1.
Axes = tuple[int | None, ...]

MEMBER_LIMIT = 96  # nodes in one kernel: beyond it registers spill and code generation time grows faster than traffic shrinks
SERIAL_REDUCTION = 1 << 15  # a reduction this long over fewer than MINIMUM_ROWS rows does not swallow its producers
MINIMUM_ROWS = 8


@dataclass(eq=False)
class Group:
    """Nodes that become one kernel, or one host node or region (its `anchor`).

    `outputs`: its values that others read, in node order.
    `operand_axes`: the axes that operands of its elementwise members walk.
    `before`: the convolution whose results the anchor takes from scratch; its members are among this group's too."""

    axes: list[Size]
    reduced: int | None = None
    anchor: Node | None = None
    members: list[Node] = field(default_factory=list)
    value_axes: dict[Value, Axes] = field(default_factory=dict)
    operand_axes: dict[Value, Axes] = field(default_factory=dict)
    outputs: list[Value] = field(default_factory=list)
    reads: set[Value] = field(default_factory=set)
    before: Group | None = None
    order: int = 0

    def kept(self) -> list[int]:
        return [axis for axis in range(len(self.axes)) if axis != self.reduced]


@dataclass(frozen=True)
class Unfused:
    """An edge that stayed in memory, and why."""

    value: Value
    consumer: str
    reason: str


@dataclass
class Partition:
    """The groups in execution order, and every producer-consumer edge that stayed in memory.

    `reshaped`: outputs of the graph that are a group's result in another shape -> that result, which is stored in their place.
    """

    groups: list[Group]
    unfused: list[Unfused]
    reshaped: dict[Value, Value] = field(default_factory=dict)


def is_inline(node: Node) -> bool:
    """Nodes that are pulled by whoever reads them and never stored for their own sake."""
    lowering = node.lowering
    return isinstance(lowering, Movement) or (isinstance(lowering, Element) and not node.inputs)


_OWN = {Host: "the host runs it", Region: "its graphs are scheduled by themselves"}
_WITH_EPILOGUE = frozenset({"matmul", "matmul_panels", "convolution", "depthwise_last", "winograd"})


def takes_epilogue(anchor: Node) -> bool:
    """Whether elementwise nodes may ride along with a group's anchor."""
    return isinstance(anchor.lowering, Anchor) and anchor.lowering.nest in _WITH_EPILOGUE


def stands_alone(node: Node) -> bool:
    """Whether a node is a copy in another order: its readers then walk memory in order, and would not if they were one with it."""
    return node.op.name == "row_major"


def is_stored(value: Value) -> bool:
    """Values that live in memory when another kernel reads them (everything but inline nodes' outputs)."""
    return value.node is None or not is_inline(value.node)


@dataclass(frozen=True)
class Source:
    """What an operand really reads: `base` seen through movement.  `dims[d]`: the base dim that operand dim d walks (None: not
    one).  `regular`: every base dim is walked by one operand dim or has size 1.  `inner`: operand dims along which neighbours in
    the base are neighbours in memory."""

    base: Value
    dims: tuple[int | None, ...]
    regular: bool
    inner: tuple[int, ...]


def resolve(value: Value) -> Source:
    """Look through movement nodes by running their index rules on symbols."""
    rank = len(value.shape)
    if value.node is None or not isinstance(value.node.lowering, Movement):
        return Source(value, tuple(range(rank)), True, tuple(range(rank))[-1:])
    symbols = [Dim.symbol(f"d{i}", 0, below=size) for i, size in enumerate(value.shape)]
    index: tuple[Size, ...] = tuple(symbols)
    base = value
    while base.node is not None and isinstance(base.node.lowering, Movement):
        node = base.node
        index = node.lowering.index(index, node.inputs[0].type, base.type, **node.attrs)  # type: ignore[union-attr]
        base = node.inputs[0]
    dims: list[int | None] = [None] * len(value.shape)
    regular = True
    for base_dim, expression in enumerate(index):
        if expression in symbols and isinstance(expression, Dim):
            at = symbols.index(expression)
            if dims[at] is not None or value.shape[at] != base.shape[base_dim]:
                regular = False
            dims[at] = base_dim
        elif expression != 0 or base.shape[base_dim] != 1:
            regular = False
    if regular:
        return Source(base, tuple(dims), True, tuple(d for d, at in enumerate(dims) if at == len(base.shape) - 1))
    offset: Size = 0
    for i, size in zip(index, base.shape, strict=True):
        offset = offset * size + i
    return Source(base, tuple(dims), False, tuple(d for d in range(len(symbols)) if coefficient(offset, f"d{d}") == 1))


def partition(graph: Graph) -> Partition:
    """Group every node that is not inline.  Source: greedy producer-consumer fusion with acyclicity by reachability."""
    return _Partitioner(graph).run()


class _Partitioner:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.groups: list[Group] = []
        self.group_of: dict[Value, Group] = {}
        self.sources: dict[Value, Source] = {}
        self.unfused: list[Unfused] = []
        self.reshaped: dict[Value, Value] = {}

    def run(self) -> Partition:
        for node in self.graph.nodes:
            if not is_inline(node):
                self.place(node)
        self.collect_outputs()
        groups = self.ordered()
        return Partition(groups, self.unfused, self.reshaped)

    def source(self, value: Value) -> Source:
        found = self.sources.get(value)
        if found is None:
            found = self.sources[value] = resolve(value)
        return found

    # ---- placing one node ------------------------------------------------------------------------------------------

    def place(self, node: Node) -> None:
        lowering = node.lowering
        reasons: dict[Value, str] = {}
        if isinstance(lowering, Scalar | Reduce) and not stands_alone(node):
            for group in self.candidates(node, reasons):
                axes = self.axes_in(group, node)
                if isinstance(axes, str):
                    reason = axes
                elif len(group.members) >= MEMBER_LIMIT:
                    reason = "the kernel is full"
                elif self.makes_cycle(group, node):
                    reason = "fusing would make a cycle"
                else:
                    self.join(group, node, axes)
                    self.merge_producers(group, node)
                    self.note_unfused(node, group, reasons)
                    return
                for value in node.inputs:
                    if self.group_of.get(self.source(value).base) is group:
                        reasons[value] = reason
        self.open(node)
        self.note_unfused(node, self.group_of[node.outputs[0]], reasons)

    def candidates(self, node: Node, reasons: dict[Value, str]) -> Iterator[Group]:
        found: list[Group] = []
        for value in node.inputs:
            source = self.source(value)
            group = self.group_of.get(source.base)
            if group is None:
                if isinstance(node.lowering, Reduce):  # a sum beside one that reads the same elements costs no pass of its own
                    found.extend(g for g in self.groups if g.reduced is not None and value in g.operand_axes and g not in found)
                continue
            if not source.regular:
                reasons[value] = "its elements are read in another order"
            elif group not in found:
                found.append(group)
        yield from sorted(found, key=self.precedence, reverse=True)

    def precedence(self, group: Group) -> tuple[bool, int]:
        """The latest first, but an anchor before the loops that make its epilogue's other operands: those it can take in."""
        return group.anchor is not None and takes_epilogue(group.anchor), self.groups.index(group)

    def open(self, node: Node) -> None:
        """A group of its own for `node`."""
        lowering = node.lowering
        out = node.outputs[0]
        if isinstance(lowering, Reduce):
            shape = node.inputs[0].shape
            dim = node.attrs["dim"]
            group = Group(list(shape), reduced=dim)
            group.value_axes[out] = tuple(None if shape[i] == 1 else i for i in range(len(shape)) if i != dim)
        else:
            group = Group(list(out.shape), anchor=node if isinstance(lowering, Anchor | Host | Region) else None)
            group.value_axes[out] = tuple(None if d == 1 else i for i, d in enumerate(out.shape))
        self.groups.append(group)
        self.add_member(group, node)

    def add_member(self, group: Group, node: Node) -> None:
        group.members.append(node)
        if isinstance(node.lowering, Scalar):
            axes = group.value_axes[node.outputs[0]]
            for value in node.inputs:
                there = axes[len(axes) - len(value.shape) :]
                group.operand_axes[value] = tuple(None if d == 1 else a for a, d in zip(there, value.shape, strict=True))
        for output in node.outputs:
            self.group_of[output] = group
        for value in node.inputs:
            base = self.source(value).base
            if is_stored(base) and (base not in group.value_axes or not self.source(value).regular):
                group.reads.add(base)

    # ---- axes ------------------------------------------------------------------------------------------------------

    def axes_in(self, group: Group, node: Node) -> Axes | str:
        """The axes of `node`'s output as a member of `group`, or why it cannot be one."""
        if group.anchor is not None and (isinstance(node.lowering, Reduce) or not takes_epilogue(group.anchor)):
            return f"{group.anchor.op.name} takes no such epilogue"
        if any(map(stands_alone, group.members)):
            return "a copy in another order stands alone"
        for value in node.inputs:
            source = self.source(value)
            if source.base in group.value_axes and not source.regular:
                return "its elements are read in another order"
        if isinstance(node.lowering, Reduce):
            return self.reduce_axes(group, node)
        return self.scalar_axes(group, node)

    def operand_axes(self, group: Group, value: Value) -> Axes | None:
        """The axes that `value`'s dims walk, when its base is in `group`."""
        source = self.source(value)
        base_axes = group.value_axes.get(source.base)
        if base_axes is None:
            return group.operand_axes.get(value) if source.base not in self.group_of else None
        return tuple(None if d is None else base_axes[d] for d in source.dims)

    def scalar_axes(self, group: Group, node: Node) -> Axes | str:
        shape = node.outputs[0].shape
        axes: list[int | None] = [None] * len(shape)
        for value in node.inputs:
            operand = self.operand_axes(group, value)
            if operand is None:
                continue
            for dim, axis in enumerate(operand, start=len(shape) - len(operand)):
                if axis is None:
                    continue
                if axes[dim] not in (None, axis):
                    return "operands disagree on the order of axes"
                axes[dim] = axis
        for dim, size in enumerate(shape):
            if axes[dim] is None and not (isinstance(size, int) and size == 1):
                free = [a for a in range(len(group.axes)) if a not in axes and group.axes[a] == size]
                if group.reduced in free:
                    free = [group.reduced]
                if len(free) != 1:
                    return "it covers other dims"
                axes[dim] = free[0]
        return self.covering(group, axes)

    def covering(self, group: Group, axes: list[int | None]) -> Axes | str:
        used = [a for a in axes if a is not None]
        wanted = {a for a in group.kept() if not (isinstance(group.axes[a], int) and group.axes[a] == 1)}
        if len(set(used)) != len(used) or not wanted <= set(used):
            return "it covers other dims"
        return tuple(axes)

    def reduce_axes(self, group: Group, node: Node) -> Axes | str:
        operand = self.operand_axes(group, node.inputs[0])
        assert operand is not None
        dim = node.attrs["dim"]
        axis = operand[dim]
        if axis is None or (group.reduced is not None and axis != group.reduced):
            return "it reduces another axis"
        if any(a is None and size != 1 for a, size in zip(operand, node.inputs[0].shape, strict=True)):
            return "it covers other dims"
        if group.reduced is None:
            rows = 1
            for other, size in enumerate(group.axes):
                rows = rows * size if other != axis and isinstance(size, int) else rows
            length = group.axes[axis]
            if isinstance(length, int) and length > SERIAL_REDUCTION and rows < MINIMUM_ROWS:
                return "a long reduction over few rows runs alone"
            if any(axis not in member for member in group.value_axes.values()):
                return "it reduces an axis that other members lack"
        axes = [a for i, a in enumerate(operand) if i != dim]
        previous, group.reduced = group.reduced, axis
        covered = self.covering(group, axes)
        group.reduced = previous
        return covered

    # ---- joining and merging ---------------------------------------------------------------------------------------

    def join(self, group: Group, node: Node, axes: Axes) -> None:
        if isinstance(node.lowering, Reduce) and group.reduced is None:
            operand = self.operand_axes(group, node.inputs[0])
            assert operand is not None
            group.reduced = operand[node.attrs["dim"]]
        group.value_axes[node.outputs[0]] = axes
        self.add_member(group, node)

    def merge_producers(self, group: Group, node: Node) -> None:
        """Take the groups of `node`'s other operands into `group` where axes agree and no cycle arises."""
        for value in node.inputs:
            source = self.source(value)
            other = self.group_of.get(source.base)
            if other is None or other is group or not source.regular or other.anchor is not None or group.anchor is not None:
                continue
            if any(map(stands_alone, other.members)):
                continue
            mapping = self.axis_mapping(group, other, node, value)
            if mapping is None or len(group.members) + len(other.members) > MEMBER_LIMIT:
                continue
            if self.reaches_through_third(other, group) or self.reads_between(group, other, node):
                continue
            self.absorb(group, other, mapping)

    def axis_mapping(self, group: Group, other: Group, node: Node, value: Value) -> dict[int, int] | None:
        """Axes of `other` as axes of `group`, if one kernel can serve both."""
        operand = self.operand_axes(other, value)
        out = group.value_axes[node.outputs[0]]
        if operand is None or len(other.axes) != len(group.axes):
            return None
        mapping: dict[int, int] = {}
        for mine, theirs in zip(out[len(out) - len(operand) :], operand, strict=True):
            if theirs is not None:
                if mine is None:
                    return None
                mapping[theirs] = mine
        spare = [a for a in range(len(group.axes)) if a not in mapping.values()]
        for axis in range(len(other.axes)):
            if axis not in mapping:
                match = [a for a in spare if group.axes[a] == other.axes[axis]]
                if len(match) != 1:
                    return None
                mapping[axis] = match[0]
                spare.remove(match[0])
        if any(group.axes[mapping[a]] != other.axes[a] for a in mapping):
            return None
        other_reduced = None if other.reduced is None else mapping[other.reduced]
        if None not in (other_reduced, group.reduced) and other_reduced != group.reduced:
            return None
        reduced = group.reduced if group.reduced is not None else other_reduced
        if reduced is not None:
            for axes in (*group.value_axes.values(), *(self.mapped(a, mapping) for a in other.value_axes.values())):
                kept = {a for a in range(len(group.axes)) if a != reduced and group.axes[a] != 1}
                if not kept <= set(axes):
                    return None
        return mapping

    @staticmethod
    def mapped(axes: Axes, mapping: dict[int, int]) -> Axes:
        return tuple(None if a is None else mapping[a] for a in axes)

    def absorb(self, group: Group, other: Group, mapping: dict[int, int]) -> None:
        if group.reduced is None and other.reduced is not None:
            group.reduced = mapping[other.reduced]
        for value, axes in other.value_axes.items():
            group.value_axes[value] = self.mapped(axes, mapping)
        for value, axes in other.operand_axes.items():
            group.operand_axes[value] = self.mapped(axes, mapping)
        members = {*group.members, *other.members}
        group.members = [n for n in self.graph.nodes if n in members]
        for value in list(other.value_axes):
            self.group_of[value] = group
        group.reads = {base for n in group.members for v in n.inputs if is_stored(base := self.source(v).base)}
        group.reads -= set(group.value_axes)
        self.groups.remove(other)

    def reads_between(self, group: Group, other: Group, joined: Node) -> bool:
        """Does a member of one read the other in a way that kept it apart (besides `joined`, which fits both)?"""
        for readers, produced in ((group, other), (other, group)):
            for node in readers.members:
                if node is not joined and any(self.source(v).base in produced.value_axes for v in node.inputs):
                    return True
        return False

    def note_unfused(self, node: Node, group: Group, reasons: dict[Value, str]) -> None:
        for value in node.inputs:
            base = self.source(value).base
            producer = self.group_of.get(base)
            if producer is not None and producer is not group:
                own = _OWN.get(type(node.lowering), "it starts a kernel of its own")
                self.unfused.append(Unfused(base, node.op.name, reasons.get(value, own)))

    # ---- reachability ----------------------------------------------------------------------------------------------

    def producers(self, group: Group) -> set[Group]:
        found = {self.group_of[v] for v in group.reads if v in self.group_of}
        found.discard(group)
        return found

    def needs(self, starts: set[Group], wanted: Group) -> bool:
        """Is `wanted` among the groups that `starts` are made from, or one of them?"""
        seen = set(starts)
        stack = list(starts)
        while stack:
            group = stack.pop()
            if group is wanted:
                return True
            for value in group.reads:
                producer = self.group_of.get(value)
                if producer is not None and producer not in seen:
                    seen.add(producer)
                    stack.append(producer)
        return False

    def makes_cycle(self, group: Group, node: Node) -> bool:
        """Would `node` in `group` need a result of a group that itself needs `group`?"""
        others = set()
        for value in node.inputs:
            source = self.source(value)
            producer = self.group_of.get(source.base)
            if producer is not None and producer is not group:
                others.add(producer)
        return self.needs(others, group)

    def reaches_through_third(self, first: Group, second: Group) -> bool:
        """Is there a path between the two that leaves them?"""
        return any(self.needs(self.producers(b) - {a}, a) for a, b in ((first, second), (second, first)))

    # ---- outputs and order -----------------------------------------------------------------------------------------

    def collect_outputs(self) -> None:
        from graphc.schedule.again import compute_again

        wanted: set[Value] = set()
        self.find_reshaped()
        for value in (*self.graph.outputs, *(new for _, new in self.graph.updates)):
            if value in self.reshaped:
                wanted.add(self.reshaped[value])
            elif not is_stored(value):
                self.copy_group(value)
            elif value.node is not None:
                wanted.add(value)
        for group in list(self.groups):
            if group.anchor is not None and isinstance(group.anchor.lowering, Host | Region):
                group.reads = set(group.anchor.inputs)
                for value in group.anchor.inputs:
                    if not is_stored(value):
                        self.copy_group(value)
        compute_again(self.graph, self.groups, wanted, lambda value: self.source(value).base)
        self.join_convolutions(wanted)
        for group in self.groups:
            wanted |= group.reads
        for group in self.groups:
            group.outputs = [v for n in group.members for v in n.outputs if v in wanted] or group.outputs

    def join_convolutions(self, wanted: set[Value]) -> None:
        """A convolution of one by one of which only a depthwise one reads anything becomes part of that one's kernel."""
        from graphc.schedule.expansion import bands_of

        for group in [g for g in self.groups if g.anchor is not None and g.anchor.op.name == "depthwise_last"]:
            assert group.anchor is not None
            between = group.anchor.inputs[0]
            before = self.group_of.get(between)
            if before is None or before.anchor is None or before.anchor.op.name != "convolution_panels":
                continue
            made = before.value_axes.keys()
            readers = [n for g in self.groups for n in g.members if any(self.source(v).base is between for v in n.inputs)]
            alone = {*before.members, group.anchor}.issuperset(readers) and not made & wanted and made & group.reads == {between}
            if alone and all(g is group or not made & g.reads for g in self.groups) and bands_of(before.anchor, group.anchor):
                before.outputs, group.before = [between], before
                group.members = [*before.members, *group.members]
                group.reads = (group.reads | before.reads) - {between}
                self.groups.remove(before)
                self.group_of.update(dict.fromkeys(made, group))
                self.unfused = [edge for edge in self.unfused if edge.value is not between]

    def find_reshaped(self) -> None:
        """Outputs that are a result in another shape need no copy: the result has no place of its own to be in."""
        others = {new for _, new in self.graph.updates}
        placed = {*self.graph.outputs, *others}
        for value in self.graph.outputs:
            base = value
            while base.node is not None and base.node.op.name == "reshape":
                base = base.node.inputs[0]
            if base is not value and base in self.group_of and is_stored(base) and base not in placed and value not in others:
                self.reshaped[value] = base
                placed.add(base)

    def copy_group(self, value: Value) -> None:
        """A group that only stores an inline value."""
        if value in self.group_of:
            return
        group = Group(list(value.shape))
        group.value_axes[value] = tuple(None if d == 1 else i for i, d in enumerate(value.shape))
        group.outputs = [value]
        base = self.source(value).base
        if is_stored(base):
            group.reads.add(base)
        self.group_of[value] = group
        self.groups.append(group)

    def ordered(self) -> list[Group]:
        position = {node: i for i, node in enumerate(self.graph.nodes)}
        for i, group in enumerate(self.groups):  # groups that only copy come last, in their order
            group.order = max((position[n] for n in group.members), default=len(position) + i)
        done: dict[Group, None] = {}

        def visit(start: Group) -> None:
            stack: list[tuple[Group, Any]] = [(start, iter(sorted(self.producers(start), key=lambda g: g.order)))]
            while stack:
                group, rest = stack[-1]
                following = next((g for g in rest if g not in done), None)
                if following is None:
                    done.setdefault(group)
                    stack.pop()
                else:
                    stack.append((following, iter(sorted(self.producers(following), key=lambda g: g.order))))

        for group in sorted(self.groups, key=lambda g: g.order):
            if group not in done:
                visit(group)
        return list(done)
