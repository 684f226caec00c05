"""Schedules of graphs that are called one after the other, as one: that of equal layers is made once and written down for each.

Enters: calls of graphs.  Leaves: a schedule of all of them.  Never here: which graphs there are.

What lies between calls has places of its own.  What lies within one is forgotten after it, so all calls share the memory of the
largest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphc.ir.graph import Call, Graph, Value
from graphc.schedule.host import HostLaunch
from graphc.schedule.lower import Launch
from graphc.schedule.partition import partition
from graphc.schedule.pull import Checks
from graphc.schedule.schedule import Found, Place, Schedule, place_rest, schedule
from graphc.schedule.together import Step


def chain(whole: Graph, calls: Sequence[Call], lanes: int, found: Found | None = None) -> Schedule:
    """The schedule of `whole`, whose inputs, outputs and updates count, and not its nodes: they are those of the calls.
    lanes, found: as in `schedule`."""
    checks = Checks()
    read = {value for call in calls for value in call.inputs}
    passed: dict[Graph, set[Value]] = {}
    for call in calls:
        pairs = zip(call.graph.outputs, call.outputs, strict=True)
        passed.setdefault(call.graph, set()).update(mine for mine, value in pairs if value in read)
    return joined(whole, calls, {graph: schedule(graph, lanes, checks, passed[graph], found) for graph in passed})


def joined(whole: Graph, calls: Sequence[Call], schedules: Mapping[Graph, Schedule]) -> Schedule:
    """`schedules` of the graphs that are called, call by call."""
    places = {v: Place("input", i) for i, v in enumerate(whole.inputs)}
    places |= {v: Place("output", i) for i, v in enumerate(whole.outputs)}
    first: dict[Value, int] = {}
    last: dict[Value, int] = {}
    for step, call in enumerate(calls):
        for value in (*call.inputs, *call.outputs):
            if value not in places:
                first.setdefault(value, step)
                last[value] = step
    used = list(schedules.values())
    scratch = max((made.arena_nbytes for made in used), default=0)
    nbytes, temporaries = place_rest(first, last, places, scratch)
    for made in used:
        for value, place in made.places.items():
            if place.kind in ("arena", "temporary"):
                places[value] = replace(place, index=place.index + (len(temporaries) if place.kind == "temporary" else 0))
        temporaries += made.temporaries
    launches: list[Step] = []
    together: set[int] = set()
    written = []
    for call in calls:
        made = schedules[call.graph]
        together.update(len(launches) + i for i in made.joined)
        launches += _called(call, made)
        written += [places[call.inputs[i]].index for i in made.written]
    groups = [group for call in calls for group in schedules[call.graph].groups]
    unfused = [edge for made in used for edge in made.unfused]
    messages = used[0].messages if used else []
    return Schedule(
        whole, launches, places, nbytes, temporaries, tuple(sorted(written)), messages, unfused, groups, frozenset(together)
    )


def _called(call: Call, made: Schedule) -> list[Step]:
    """The launches of a graph's schedule on the values of a call."""
    there = {"input": call.inputs, "output": call.outputs}
    new = {v: there[p.kind][p.index] for v, p in made.places.items() if p.kind in there}
    launches: list[Step] = []
    for launch in made.launches:
        if isinstance(launch, HostLaunch):
            inputs, outputs = (tuple([new.get(v, v) for v in side]) for side in (launch.inputs, launch.outputs))
            launches.append(replace(launch, inputs=inputs, outputs=outputs))
        elif isinstance(launch, Launch):
            launches.append(replace(launch, buffers=tuple([new.get(v, v) for v in launch.buffers])))
    return launches


def costs_fusion(call: Call, following: Call) -> bool:
    """Whether a kernel of a call and one that reads its result in the next call of the same graph could have been one."""
    groups = partition(call.graph).groups
    for given, value in zip(call.graph.inputs, following.inputs, strict=True):
        if value not in call.outputs:
            continue
        result = call.graph.outputs[call.outputs.index(value)]
        home = next((g for g in groups if result in g.outputs), None)
        readers = [g for g in groups if given in g.reads and g.anchor is None]
        if home is None or any(home.anchor is None or g.reduced is None for g in readers):
            return True
    return False
