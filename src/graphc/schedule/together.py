"""Which launches run at the same time: small neighbours of which none reads or writes what another writes.

Enters: launches in order, the places known so far.  Leaves: the order they run in, which of them join those before.
Never here: threads, memory.

An optimizer's step is a kernel for each parameter.  One by one, each is too small to be shared out over threads, or pays for
waking and awaiting them; as one parallel region over all of them they cost that once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from graphc.dims import bounds
from graphc.ir.graph import Value
from graphc.schedule.control import ControlLaunch
from graphc.schedule.host import HostLaunch
from graphc.schedule.lower import Launch

Step = Launch | HostLaunch | ControlLaunch
MOST_TOGETHER = 128
MOST_GRAINS = 64  # a launch with more work than so many threads are worth waking for has nothing to gain


def results_last(launches: Sequence[Step], places: Mapping[Value, Hashable]) -> list[Step]:
    """The launches with the small ones that nothing waits for at the end, where they are neighbours."""
    touched = [_touched(launch, places) for launch in launches]
    last_read = {place: i for i, (reads, _) in enumerate(touched) for place in reads}
    last_written = {place: i for i, (_, writes) in enumerate(touched) for place in writes}
    first: list[Step] = []
    last: list[Step] = []
    for i, (launch, (reads, writes)) in enumerate(zip(launches, touched, strict=True)):
        waited = any(last_read.get(w, i) > i or last_written[w] > i for w in writes)
        changed = any(last_written.get(r, i) > i for r in reads)
        (last if _is_small(launch) and not waited and not changed else first).append(launch)
    return first + last


def together(launches: Sequence[Step], places: Mapping[Value, Hashable]) -> frozenset[int]:
    """The positions of the launches that may run while the one before them does, and all those that this one joined."""
    joined: set[int] = set()
    read: set[Any] = set()
    written: set[Any] = set()
    count = 0
    for i, launch in enumerate(launches):
        if not _is_small(launch):
            count = 0
            continue
        reads, writes = _touched(launch, places)
        if 0 < count < MOST_TOGETHER and not writes & (read | written) and not reads & written:
            joined.add(i)
            read, written, count = read | reads, written | writes, count + 1
        else:
            read, written, count = reads, writes, 1
    return frozenset(joined)


def stages(count: int, joined: frozenset[int]) -> list[int]:
    """The number of the region that each of `count` launches is in."""
    numbers: list[int] = []
    for i in range(count):
        numbers.append(numbers[-1] if i in joined else numbers[-1] + 1 if numbers else 0)
    return numbers


def _is_small(launch: Step) -> bool:
    """A launch of known and little work that cannot fail (after a failed check nothing may be written)."""
    if not isinstance(launch, Launch) or launch.checks or not isinstance(launch.extent, int):
        return False
    return launch.extent <= MOST_GRAINS * (bounds(launch.kernel.grain)[0] or 1)


def _touched(launch: Step, places: Mapping[Value, Hashable]) -> tuple[set[Any], set[Any]]:
    """What a launch reads, and what it writes: places, or values that have none yet."""
    if not isinstance(launch, Launch):
        return {places.get(v, v) for v in launch.inputs}, {places.get(v, v) for v in launch.outputs}
    reads: set[Any] = set()
    writes: set[Any] = set()
    buffers = [param for param in launch.kernel.params if param.role != "size"]
    for param, value in zip(buffers, launch.buffers, strict=True):
        where = places.get(value, value)
        if param.role != "out":
            reads.add(where)
        if param.role != "in":
            writes.add(where)
    return reads, writes
