"""Cheap values are computed again where they are read, so that they need no memory.

Enters: the groups of a partition.  Leaves: the same groups, some nodes members of several.  Never here: which nodes are fused.

A value is computed again if a few simple scalar functions give it, every kernel that reads it has it element by element, and none
of them then reads more memory than before.  A node computed twice gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.dims import product
from graphc.ir.cost import is_cheap
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Scalar
from graphc.schedule.partition import MEMBER_LIMIT, Axes, Group, is_stored, stands_alone, takes_epilogue


def compute_again(graph: Graph, groups: list[Group], kept: set[Value], base_of: Callable[[Value], Value]) -> None:
    """Put cheap nodes into every group that reads them; those in `kept` are stored in any case.  Groups without use are gone."""
    readers: dict[Value, list[Group]] = {}
    for group in groups:
        for value in group.reads:
            readers.setdefault(value, []).append(group)
    for node in reversed(graph.nodes):
        value = node.outputs[0]
        reading = readers.get(value, [])
        if not reading or value in kept or not _is_cheap(node):
            continue
        home = next((g for g in groups if g.anchor is None and value in g.value_axes), None)
        places = [_axes_in(group, value, node, base_of) for group in reading]
        if home is None or None in places:
            continue
        for group, axes in zip(reading, places, strict=True):
            assert axes is not None
            _join(graph, group, node, axes, base_of)
            for base in group.reads:
                if group not in readers.setdefault(base, []):
                    readers[base].append(group)
        del readers[value]
        if not any(v in readers or v in kept for n in home.members for v in n.outputs):
            groups.remove(home)
            home.reads.clear()
        elif not any(base_of(operand) is value for n in home.members for operand in n.inputs):
            _leave(home, node, base_of)
        for base, reading_base in readers.items():
            if home in reading_base and base not in home.reads:
                reading_base.remove(home)


def _leave(group: Group, node: Node, base_of: Callable[[Value], Value]) -> None:
    group.members.remove(node)
    del group.value_axes[node.outputs[0]]
    read = {base_of(operand) for member in group.members for operand in member.inputs}
    group.reads &= read


def _is_cheap(node: Node) -> bool:
    return is_cheap(node) and not stands_alone(node)


def _axes_in(group: Group, value: Value, node: Node, base_of: Callable[[Value], Value]) -> Axes | None:
    """The axes of `value` in a group that reads it; None where it cannot be computed there, or not without more reading."""
    axes = group.operand_axes.get(value)
    if axes is None or len(group.members) >= MEMBER_LIMIT or (group.anchor is not None and not takes_epilogue(group.anchor)):
        return None
    for member in group.members:
        for operand in member.inputs:
            if base_of(operand) is value and (operand is not value or not isinstance(member.lowering, Scalar)):
                return None
    wanted = {a for a in group.kept() if not (isinstance(group.axes[a], int) and group.axes[a] == 1)}
    if not wanted <= set(axes):
        return None
    size = product(value.shape)
    if not isinstance(size, int):
        return None
    large = {base for base in map(base_of, node.inputs) if _is_large(base, size)} - group.reads
    return axes if len(large) <= 1 else None


def _is_large(base: Value, size: int) -> bool:
    own = product(base.shape)
    return not isinstance(own, int) or 2 * own >= size


def _join(graph: Graph, group: Group, node: Node, axes: Axes, base_of: Callable[[Value], Value]) -> None:
    members = {*group.members, node}
    group.members = [n for n in graph.nodes if n in members]
    group.value_axes[node.outputs[0]] = axes
    for operand in node.inputs:
        there: Sequence[int | None] = axes[len(axes) - len(operand.shape) :]
        group.operand_axes[operand] = tuple(None if d == 1 else a for a, d in zip(there, operand.shape, strict=True))
        base = base_of(operand)
        if is_stored(base) and base not in group.value_axes:
            group.reads.add(base)
    group.reads.discard(node.outputs[0])
