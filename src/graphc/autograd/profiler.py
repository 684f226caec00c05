"""How often operators are called, and how long they take: PyTorch's profiler as small real timers.

Enters: a ``with`` block.  Leaves: a table of names, counts and times.  Never here: hardware counters, other devices.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from graphc.eager import timing


class ProfilerActivity(Enum):
    """What PyTorch can profile.  Only the CPU has anything to say here."""

    CPU = 0
    CUDA = 1
    XPU = 2


class FunctionEventAvg:
    """All calls of one name.  Times are in microseconds; `self` ones leave out what was called inside."""

    def __init__(self, key: str) -> None:
        self.key = self.name = key
        self.count = 0
        self.cpu_time_total = self.self_cpu_time_total = 0.0

    @property
    def cpu_time(self) -> float:
        """The mean time of a call."""
        return self.cpu_time_total / self.count if self.count else 0.0

    def __repr__(self) -> str:
        return f"<FunctionEventAvg key={self.key} self_cpu_time={_time(self.self_cpu_time_total)} cpu_time={_time(self.cpu_time)}>"


class EventList(list[FunctionEventAvg]):
    """Averages by name."""

    def table(
        self,
        sort_by: str | None = None,
        row_limit: int = 100,
        header: str | None = None,
        top_level_events_only: bool = False,
        **_: Any,
    ) -> str:
        """A text table, sorted by one of the attributes, the greatest first."""
        rows = sorted(self, key=lambda e: getattr(e, sort_by), reverse=True) if sort_by else list(self)
        if row_limit >= 0:
            rows = rows[:row_limit]
        total = sum(e.self_cpu_time_total for e in self)
        width = max([4, *(len(e.key) for e in rows)])
        titles = ("Self CPU %", "Self CPU", "CPU total", "CPU time avg", "# of Calls")
        line = "  ".join("-" * n for n in (width, *(len(t) + 4 for t in titles)))
        lines = [] if header is None else [header]
        lines += [line, "  ".join(["Name".ljust(width), *(t.rjust(len(t) + 4) for t in titles)]), line]
        for e in rows:
            share = 100 * e.self_cpu_time_total / total if total else 0.0
            cells = (f"{share:.2f}%", _time(e.self_cpu_time_total), _time(e.cpu_time_total), _time(e.cpu_time), str(e.count))
            lines.append("  ".join([e.key.ljust(width), *(c.rjust(len(t) + 4) for c, t in zip(cells, titles, strict=True))]))
        return "\n".join([*lines, line, f"Self CPU time total: {_time(total)}", ""])

    def total_average(self) -> FunctionEventAvg:
        """All names together."""
        result = FunctionEventAvg("Total")
        for e in self:
            result.count += e.count
            result.cpu_time_total += e.cpu_time_total
            result.self_cpu_time_total += e.self_cpu_time_total
        return result

    def __str__(self) -> str:
        return self.table()


def _time(microseconds: float) -> str:
    for limit, unit in ((1e6, "s"), (1e3, "ms")):
        if microseconds >= limit:
            return f"{microseconds / limit:.3f}{unit}"
    return f"{microseconds:.3f}us"


class profile:
    """Times every operator called inside.  Arguments about other devices, shapes, memory and stacks are accepted and not used.

    on_trace_ready: called with this object at the end.
    """

    def __init__(self, enabled: bool = True, *_: Any, on_trace_ready: Callable[[Any], Any] | None = None, **__: Any) -> None:
        self.enabled = enabled if isinstance(enabled, bool) else True  # torch.profiler.profile takes the activities first
        self.on_trace_ready = on_trace_ready
        self.found: dict[str, FunctionEventAvg] = {}
        self.inside: list[float] = []  # time spent in calls inside, of each call that has begun

    def __enter__(self) -> profile:
        if self.enabled:
            timing.start(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self.enabled:
            timing.stop(self)
            if self.on_trace_ready is not None:
                self.on_trace_ready(self)

    start, stop = __enter__, __exit__

    def step(self) -> None:
        """Accepted: there is no schedule of steps."""

    def timed(self, name: str, function: Callable[[], Any]) -> Any:
        """The result of `function`, its time noted under `name`."""
        self.inside.append(0.0)
        begin = time.perf_counter()
        try:
            return function()
        finally:
            spent = (time.perf_counter() - begin) * 1e6
            within = self.inside.pop()
            if self.inside:
                self.inside[-1] += spent
            entry = self.found.setdefault(name, FunctionEventAvg(name))
            entry.count += 1
            entry.cpu_time_total += spent
            entry.self_cpu_time_total += spent - within

    def key_averages(self, *_: Any, **__: Any) -> EventList:
        """What was found, by name."""
        return EventList(self.found.values())

    def total_average(self) -> FunctionEventAvg:
        return self.key_averages().total_average()

    def table(self, *args: Any, **kwargs: Any) -> str:
        """`EventList.table` of what was found."""
        return self.key_averages().table(*args, **kwargs)

    @property
    def self_cpu_time_total(self) -> float:
        return sum(e.self_cpu_time_total for e in self.found.values())

    @property
    def function_events(self) -> EventList:
        return self.key_averages()


class record_function:
    """Times a block under a name, in every profile that is on.  A context manager and a decorator."""

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name = name

    def __enter__(self) -> record_function:
        self.begin = time.perf_counter()
        self.profiles = tuple(timing.profiles())
        for one in self.profiles:
            one.inside.append(0.0)
        return self

    def __exit__(self, *_: object) -> None:
        spent = (time.perf_counter() - self.begin) * 1e6
        for one in self.profiles:
            within = one.inside.pop()
            if one.inside:
                one.inside[-1] += spent
            entry = one.found.setdefault(self.name, FunctionEventAvg(self.name))
            entry.count += 1
            entry.cpu_time_total += spent
            entry.self_cpu_time_total += spent - within

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name):
                return function(*args, **kwargs)

        return wrapped


class emit_nvtx:
    """Accepted: there is no such profiler to speak to."""

    def __init__(self, enabled: bool = True, record_shapes: bool = False) -> None:
        self.enabled = enabled

    def __enter__(self) -> emit_nvtx:
        return self

    def __exit__(self, *_: object) -> None:
        return None


__all__ = ["EventList", "FunctionEventAvg", "ProfilerActivity", "emit_nvtx", "profile", "record_function"]
