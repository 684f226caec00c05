"""What a compiled graph became, in words.

Enters: a `Built`.  Leaves: text: graph, kernels and what each fuses, edges that stayed in memory and why, bytes moved, time
per stage.  Never here: measuring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from graphc.dims import Dim, Size, product
from graphc.ir.graph import Value
from graphc.ir.text import print_graph
from graphc.pipeline import Built, parted
from graphc.schedule.control import ControlLaunch
from graphc.schedule.host import HostLaunch
from graphc.schedule.lower import Launch
from graphc.schedule.schedule import Schedule
from graphc.schedule.together import Step


def report(built: Built, *, kernels: bool = True, cuda: bool = False) -> str:
    """The whole report.  `kernels`: with their loops; `cuda`: with the CUDA source that the same loops render to."""
    made, once = _schedules(built)
    parts = [print_graph(built.graph, locations=True), _summary(built, made), _table(made), _unfused(made), _prepared(once)]
    if kernels:
        launches = [*_all(made), *(_all(once) if once else ())]
        seen = {launch.kernel.name: launch.kernel for launch in launches if isinstance(launch, Launch)}
        parts.extend(str(kernel) for kernel in seen.values())
        if cuda:
            from graphc.codegen.cuda.render import render

            parts.extend(render(kernel) for kernel in seen.values())
    return "\n\n".join(part for part in parts if part)


def _schedules(built: Built) -> tuple[Schedule, Schedule | None]:
    """What runs at every call, and what runs when constants changed."""
    if built.schedule is not None:
        return built.schedule, None if built.constants is None else built.constants.schedule
    parts = parted(built.graph, built.fixed)
    return parts.main.schedule(built.lanes), None if parts.constants is None else parts.constants.schedule(built.lanes)


def _prepared(once: Schedule | None) -> str:
    """What is kept of constants, the memory that takes, and how it is made."""
    if once is None:
        return ""
    values = once.graph.outputs
    nbytes = sum((product(v.shape) * v.dtype.itemsize for v in values), 0)
    head = f"prepared once, and again when a parameter or buffer changed: {_count(len(values), 'tensor')} in {_bytes(nbytes)}"
    return "\n".join([head, *(f"  prepared{i}: {_name(v)}" for i, v in enumerate(values)), _table(once)])


def _summary(built: Built, made: Schedule) -> str:
    launches = list(_all(made))
    names = {launch.kernel.name for launch in launches if isinstance(launch, Launch)}
    on_host = sum(isinstance(launch, HostLaunch) for launch in launches)
    regions = sum(isinstance(launch, ControlLaunch) for launch in launches)
    kernels = _count(len(names), "kernel") + (f" and {_count(on_host, 'call')} of the host" if on_host else "")
    kernels += f" in {_count(regions, 'region')} and around" if regions else ""
    nodes = sum(len(g.members) for g in made.groups)
    stages = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in built.times_ms.items())
    temporaries = sum(place.kind in ("arena", "temporary") for place in made.places.values())
    lines = [
        f"{_count(len(launches) - on_host - regions, 'launch', 'launches')} of {kernels} for {_count(nodes, 'node')}; "
        f"{_count(temporaries, 'temporary', 'temporaries')} in {_bytes(made.arena_nbytes)}",
        f"bytes moved: {_bytes(_moved(made.launches))}",
        f"compile time: {stages}",
        "mode: default (bits equal eager)",
    ]
    if built.hasty:
        lines.append(f"the budget was spent: {_count(built.hasty, 'module')} of machine code made in haste, which runs slowly")
    return "\n".join(lines)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _table(made: Schedule) -> str:
    return "\n".join(["kernels in order", *_lines(made, "  ")])


def _lines(made: Schedule, pad: str) -> Iterator[str]:
    for launch in made.launches:
        if isinstance(launch, ControlLaunch):
            yield f"{pad}{launch.op.name}  region"
            for name, part in zip(launch.op.attrs, launch.parts, strict=True):
                yield f"{pad}  {name}"
                yield from _lines(part.schedule, pad + "    ")
            continue
        counts = Counter(node.op.name for node in launch.members)
        fused = ", ".join(name if n == 1 else f"{name} x{n}" for name, n in counts.items())
        name = launch.kernel.name if isinstance(launch, Launch) else launch.op.name
        yield f"{pad}{name}  {launch.note}, {_bytes(_moved([launch]))}: {fused or 'copy'}"


def _all(made: Schedule) -> Iterator[Step]:
    """The launches, with regions before what is in them."""
    for launch in made.launches:
        yield launch
        if isinstance(launch, ControlLaunch):
            for part in launch.parts:
                yield from _all(part.schedule)


def _unfused(made: Schedule) -> str:
    if not made.unfused:
        return "every producer is fused into its consumer"
    lines = [f"  {_name(u.value)} -> {u.consumer}: {u.reason}" for u in made.unfused]
    return "edges through memory\n" + "\n".join(dict.fromkeys(lines))


def _name(value: Value) -> str:
    return f"{value.node.op.name if value.node else value.name} {value.type}"


def _moved(launches: Sequence[Step]) -> Size:
    total: Size = 0
    for launch in launches:
        for value in launch.buffers:
            total = total + product(value.shape) * value.dtype.itemsize
    return total


def _bytes(count: Size) -> str:
    if isinstance(count, Dim):
        return f"{count} B"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError
