"""Graph -> launches in order, and where every stored value lives.

Enters: a decomposed Graph.  Leaves: a `Schedule`.  Never here: code, addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from graphc.dims import Dim, Size, known_less, product
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.loops import Kernel
from graphc.ir.op import Host, Region, Scalar
from graphc.schedule.alike import Alike
from graphc.schedule.control import lower_control
from graphc.schedule.host import HostLaunch, copy_on_host, lower_host
from graphc.schedule.lower import Context, Launch, lower_region, may_overwrite, store_copy
from graphc.schedule.memory import Interval, assign_offsets
from graphc.schedule.nest import lower_anchor
from graphc.schedule.partition import Group, Partition, Unfused, partition
from graphc.schedule.pull import Checks
from graphc.schedule.together import Step, results_last, stages, together
from graphc.schedule.transposed import transposed_copy

Found = Callable[[Kernel], None]
STREAM_NBYTES = 1 << 24  # about half of a last-level cache: an output of that size is gone from it before it is read


@dataclass(frozen=True)
class Place:
    """input/output: position in the graph's signature.  arena: byte offset.  temporary: number, sized at call time."""

    kind: Literal["input", "output", "arena", "temporary"]
    index: int


@dataclass
class Schedule:
    """`written`: inputs that the launches overwrite with their updates.  `temporaries`: sizes in bytes, symbolic.
    `joined`: launches that run while the one before them does."""

    graph: Graph
    launches: list[Step]
    places: dict[Value, Place]
    arena_nbytes: int
    temporaries: list[Size]
    written: tuple[int, ...]
    messages: list[str]
    unfused: list[Unfused]
    groups: list[Group] = field(default_factory=list)
    joined: frozenset[int] = frozenset()


def schedule(
    graph: Graph, lanes: int = 32, checks: Checks | None = None, passed: Collection[Value] = (), found: Found | None = None
) -> Schedule:
    """Partition, lower and place.  `lanes`: the vector width that register tiles are made for; it shows in no bit.
    checks: those of the graph around this one, where it is a region's or a call's.   passed: outputs that later calls read.
    found: told of every kernel, before there is a schedule.

    Updates are written over their state where nothing can read the old value any more, and copied at the very end otherwise,
    so that a failed check leaves every state as it was.
    """
    parts = partition(graph)
    context = Context(graph, lanes)
    context.checks = checks or context.checks
    context.streamed = _streamed(graph, parts, passed)
    launches: list[Step] = []
    alike = Alike(context.streamed)
    for group in parts.groups:
        if group.outputs and all(0 in value.shape for value in group.outputs):
            continue  # nothing to compute, and sizes of 0 would be divided by
        made = _lowered(group, context, alike)
        launches.extend(made)
        for launch in made if found is not None else ():
            if isinstance(launch, Launch):
                found(launch.kernel)  # type: ignore[misc]
    places: dict[Value, Place] = {v: Place("input", i) for i, v in enumerate(graph.inputs)}
    in_place = _in_place(graph, parts, launches, context, inside=checks is not None)
    written = []
    copies: list[Step] = []
    kept: list[Step] = []
    states = {state for state, new in graph.updates if new is not state}
    taken: set[Value] = set()
    for state, new in graph.updates:
        if new is state:
            continue
        written.append(graph.inputs.index(state))
        if state in in_place:
            places[new] = places[state]
        elif new in states:  # it may be overwritten before it is copied
            kept.append(_copy(new, Value(new.type, None, f"old {new.name}"), context))
            copies.append(_copy(kept[-1].buffers[1], state, context))
        else:
            copies.append(_copy(new, state, context))
    copies = kept + copies
    for i, value in enumerate(graph.outputs):
        if value not in places and value not in taken:
            places[value] = places[parts.reshaped.get(value, value)] = Place("output", i)
            taken.add(value)
        else:
            copies.insert(0, _copy(value, Value(value.type, None, f"output {i}"), context))
            places[copies[0].buffers[1]] = Place("output", i)
    launches.extend(copies)
    launches = results_last(launches, places)
    joined = together(launches, places)
    arena, temporaries = _place_rest(launches, places, stages(len(launches), joined))
    overwritten, messages = tuple(sorted(written)), context.checks.messages
    return Schedule(graph, launches, places, arena, temporaries, overwritten, messages, parts.unfused, parts.groups, joined)


def _streamed(graph: Graph, parts: Partition, passed: Collection[Value]) -> set[Value]:
    """Outputs that would push everything else out of the caches, where nothing reads them."""
    given = [value for value in graph.outputs if value not in passed]
    stored = {parts.reshaped.get(value, value) for value in given} - {new for _, new in graph.updates}
    read = set().union(*(group.reads for group in parts.groups))
    sizes = {value: product(value.shape) * value.dtype.itemsize for value in stored - read}
    return {value for value, nbytes in sizes.items() if isinstance(nbytes, int) and nbytes >= STREAM_NBYTES}


def _lowered(group: Group, context: Context, alike: Alike) -> Sequence[Step]:
    if group.anchor is not None and isinstance(group.anchor.lowering, Host):
        return [lower_host(group.anchor, context)]
    if group.anchor is not None and isinstance(group.anchor.lowering, Region):
        return _control(group.anchor, context)
    return alike.launches(group, lambda g: lower_anchor(g, context) if g.anchor is not None else [_region(g, context)])


def _control(node: Node, context: Context) -> list[Step]:
    """A region: of a loop, first copies of what it carries into the buffers that it goes through its rounds in."""
    launch = lower_control(node, lambda graph: schedule(graph, context.lanes, context.checks))
    return [*(_copy(old, new, context) for old, new in launch.starts), launch]


def _region(group: Group, context: Context) -> Launch:
    return transposed_copy(group, context) or lower_region(group, context)


def _copy(value: Value, target: Value, context: Context) -> Launch | HostLaunch:
    """A copy of a stored value into the buffer of `target`."""
    return copy_on_host(value, target, context) if value.dtype.kind == "c" else store_copy(value, target, context)


def _in_place(graph: Graph, parts: Partition, launches: list[Step], context: Context, inside: bool) -> set[Value]:
    """States whose new value may be written straight over the old one.   inside: of a region, where a failure leaves nothing."""
    group_of = {v: g for g in parts.groups for v in g.outputs}
    position = {g: i for i, g in enumerate(parts.groups)}
    checked = set() if inside else {launch.members for launch in launches if launch.checks}
    checking = (i for i, g in enumerate(parts.groups) if tuple(g.members) in checked)
    last_check = max(checking, default=-1)
    wanted: dict[Value, int] = {}
    for _, new in graph.updates:
        wanted[new] = wanted.get(new, 0) + 1
    found: set[Value] = set()
    for state, new in graph.updates:
        group = group_of.get(new)
        if group is None or new.node is None or (group.anchor is not None and new in group.anchor.outputs):
            continue
        if wanted[new] > 1 or state in wanted or new in graph.outputs or state in graph.outputs or new.type != state.type:
            continue
        if position[group] <= last_check or any(state in g.reads for g in parts.groups[position[group] + 1 :]):
            continue
        if _reads_in_step(group, state, new, context) and may_overwrite(group, state, new, context):
            found.add(state)
    return found


def _reads_in_step(group: Group, state: Value, new: Value, context: Context) -> bool:
    """Is every element of `state` read only where `new`'s element of the same place is written?"""
    axes = group.value_axes[new]
    if not group.members and state in group.reads:
        return False
    for node in group.members:
        for value in node.inputs:
            source = context.source(value)
            if source.base is not state:
                continue
            if not isinstance(node.lowering, Scalar) or not source.regular or node.outputs[0] not in group.value_axes:
                return False
            template = group.value_axes[node.outputs[0]]
            walked = {b: template[d + len(template) - len(source.dims)] for d, b in enumerate(source.dims) if b is not None}
            if any(walked.get(d) != axes[d] for d in range(len(axes)) if axes[d] is not None):
                return False
    return all(value.node is not None for value in group.outputs)


def _place_rest(launches: list[Step], places: dict[Value, Place], stages: list[int]) -> tuple[int, list[Size]]:
    """Give every other buffer an arena offset (static size) or a temporary that is free then and large enough (symbolic size).

    stages: when each launch runs.
    """
    first: dict[Value, int] = {}
    last: dict[Value, int] = {}
    for step, launch in zip(stages, launches, strict=True):
        for value in launch.buffers:
            if value not in places:
                first.setdefault(value, step)
                last[value] = step
    return place_rest(first, last, places)


def place_rest(
    first: dict[Value, int], last: dict[Value, int], places: dict[Value, Place], start: int = 0
) -> tuple[int, list[Size]]:
    """Places for values that are needed from one step to another; those in the arena lie from byte `start` on."""
    intervals, static = [], []
    temporaries: list[Size] = []
    busy: dict[int, int] = {}  # until when somebody needs a temporary
    for value in first:
        nbytes = product(value.shape) * value.dtype.itemsize
        if isinstance(nbytes, Dim):
            free = (i for i, size in enumerate(temporaries) if busy[i] < first[value] and known_less(nbytes, size + 1))
            number = next(free, len(temporaries))
            if number == len(temporaries):
                temporaries.append(nbytes)
            busy[number] = last[value]
            places[value] = Place("temporary", number)
        else:
            static.append(value)
            intervals.append(Interval(nbytes, first[value], last[value]))
    offsets, total = assign_offsets(intervals)
    for value, offset in zip(static, offsets, strict=True):
        places[value] = Place("arena", start + offset)
    return start + total, temporaries
