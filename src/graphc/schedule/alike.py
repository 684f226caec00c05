"""Groups that are alike are lowered once: the layers of a model cost what one of them does.

Enters: a group and the function that lowers it.  Leaves: its launches, with the kernels of an earlier group where the two differ in
nothing but which buffers they read and write.  Never here: lowering.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import replace
from typing import Any

from graphc.ir.graph import Value, attribute_key
from graphc.schedule.lower import Launch
from graphc.schedule.partition import Group, is_inline

Lower = Callable[[Group], Sequence[Launch]]


class Alike:
    """The groups lowered so far, by description.   streamed: values that are stored past the caches."""

    def __init__(self, streamed: Collection[Value] = ()) -> None:
        self._streamed = streamed
        self._known: dict[Hashable, tuple[Sequence[Launch], list[Value]]] = {}

    def launches(self, group: Group, lower: Lower) -> Sequence[Launch]:
        """`lower(group)`, or what that gave for an equal group on the buffers of this one.

        Run-time checks name the user's line, so a group that has any is lowered for itself.
        """
        key, values = _described(group, self._streamed)
        known = self._known.get(key)
        if known is not None:
            return _moved(known[0], dict(zip(known[1], values, strict=True)), group)
        made = lower(group)
        if not any(launch.checks for launch in made):
            self._known[key] = made, values
        return made


def _described(group: Group, streamed: Collection[Value]) -> tuple[Hashable, list[Value]]:
    """What lowering sees of a group, with numbers for values, and the values by number."""
    members = set(group.members)
    numbers: dict[Value, int] = {}
    parts: list[Any] = []

    def number(value: Value) -> int:
        found = numbers.get(value)
        if found is not None:
            return found
        node = value.node
        if node is None or not (node in members or is_inline(node)):
            parts.append((value.dtype, value.shape))
            return numbers.setdefault(value, len(numbers))
        inputs = tuple([number(v) for v in node.inputs])
        attributes = tuple([(name, attribute_key(a)) for name, a in node.attrs.items()])
        parts.append((id(node.op), attributes, inputs, tuple([(v.dtype, v.shape) for v in node.outputs]), node in members))
        for output in node.outputs:
            numbers.setdefault(output, len(numbers))
        return numbers[value]

    for node in group.members:
        for output in node.outputs:
            number(output)
    outputs = tuple([(number(v), v in streamed) for v in group.outputs])
    axes = tuple([(number(v), a) for v, a in group.value_axes.items()])
    operands = tuple([(number(v), a) for v, a in group.operand_axes.items()])
    order = tuple([numbers[n.outputs[0]] for n in group.members])
    anchors = tuple([numbers[g.anchor.outputs[0]] for g in (group, group.before) if g is not None and g.anchor is not None])
    return (tuple(parts), tuple(group.axes), group.reduced, anchors, outputs, axes, operands, order), list(numbers)


def _moved(launches: Sequence[Launch], values: dict[Value, Value], group: Group) -> list[Launch]:
    """The launches on other buffers; memory of their own between them is made anew."""
    moved = []
    for launch in launches:
        for buffer in launch.buffers:
            if buffer not in values:
                values[buffer] = Value(buffer.type, None, buffer.name)
        moved.append(replace(launch, buffers=tuple([values[b] for b in launch.buffers]), members=tuple(group.members)))
    return moved
