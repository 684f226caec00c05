"""The pipeline, read top to bottom: Graph -> passes -> schedule -> LLVM text -> object -> Program.

Enters: a traced Graph.  Leaves: `Built` (plan, object code, what `explain` shows) and, linked, a `Program`.
Never here: tracing, guards, tensors.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from graphc.dim_answers import answering
from graphc.dims import free
from graphc.errors import line_text
from graphc.ir.graph import Call, Graph, Value, every_node
from graphc.ir.host import resolve
from graphc.ir.loops import ENTRY, FIRST_SLOT, ControlStep, HostStep, Kernel, KernelStep
from graphc.ir.text import print_attributes, print_graph
from graphc.logs import Stages, dumps, tell
from graphc.passes import PASSES
from graphc.passes.prepare import Known, Prepared, prepare
from graphc.passes.regions import in_regions
from graphc.passes.repeats import cuts
from graphc.runtime.plan import HostCall, Plan, Spec
from graphc.runtime.program import Program
from graphc.schedule.chain import chain, costs_fusion
from graphc.schedule.control import Placed, opened
from graphc.schedule.host import HostLaunch
from graphc.schedule.schedule import Found, Place, Schedule, schedule

if TYPE_CHECKING:
    from graphc.runtime.assembly import Assembly, Module

LONG_S = 1.0
MANY_OBJECTS = 100_000  # that a search looks at for some ten milliseconds
MOST_THREADS = 4  # of a compilation: more would wait for the one that writes text
Step = KernelStep | HostStep | ControlStep


@dataclass(frozen=True)
class Options:
    """`lanes`: vector width of the generated code in elements, by default this machine's in float32.  Bits do not depend on it.
    `budget_s`: seconds after which the rest of a program becomes machine code in haste."""

    lanes: int = field(default_factory=lambda: _lanes())
    budget_s: float = field(default=math.inf, repr=False)  # the text is part of a key


def _lanes() -> int:
    from graphc.runtime.link import vector_nbytes

    return int(os.environ.get("GRAPHC_LANES", "0")) or vector_nbytes() // 4


@dataclass
class Built:
    """A compiled graph.  `schedule` and `kernels` are None when it came from the cache (explain() rebuilds them).

    fixed: positions of the graph's inputs that hardly ever change.   constants: the program of what depends on those alone, from
    the inputs at `sources`; its outputs are the last inputs of this one's plan.  None where nothing does.
    hasty: how many modules were begun after the budget was spent; such code is not kept on disk.
    """

    graph: Graph
    plan: Plan
    code: bytes
    times_ms: dict[str, float]
    from_cache: bool = False
    schedule: Schedule | None = None
    kernels: dict[str, Kernel] | None = None
    fixed: tuple[int, ...] = ()
    constants: Built | None = None
    sources: tuple[int, ...] = ()
    lanes: int = 8
    hasty: int = 0

    def link(self) -> Program:
        """The runnable program."""
        from graphc.runtime.link import linked

        return Program(self.plan, linked(self.code, [ENTRY]), resolve)


def build(
    graph: Graph, options: Options | None = None, *, fixed: Collection[int] = (), use_cache: bool = True, text: str | None = None
) -> Built:
    """Compile `graph`, or fetch what an earlier process compiled from the very same text.

    fixed: positions of inputs that hardly ever change: what depends on them alone becomes a program of its own.
    text: what `print_graph` gives, if that is known.
    Raises IRError for a graph that breaks the IR's rules.
    """
    with answering(None):  # what the compiler asks of sizes is not asked by the code that is being traced
        return _fetched_or_built(graph, options or Options(), tuple(sorted(fixed)), use_cache, text)


def _fetched_or_built(graph: Graph, options: Options, fixed: tuple[int, ...], use_cache: bool, text: str | None) -> Built:
    if not use_cache:
        return _build(graph, options, fixed)
    from graphc.runtime.cache import default_cache

    key = cache_key(graph, options, fixed, text)
    stored = None if dumps() else default_cache().get(key)
    tell("cache", lambda: f"{'miss' if stored is None else 'hit'} {graph.name}: {key}")
    if stored is not None:
        return replace(_from_cache(stored, graph, fixed), lanes=options.lanes)
    built = _build(graph, options, fixed)
    if not (built.hasty or (built.constants is not None and built.constants.hasty)):
        default_cache().put(key, _for_cache(built))
    return built


def _for_cache(built: Built) -> bytes:
    """Plans as a line of JSON, then the code of each."""
    parts = [built] if built.constants is None else [built, built.constants]
    plans = [replace(b.plan, messages=tuple(_without_line(m, built.graph) for m in b.plan.messages)) for b in parts]
    header = {"plans": [p.to_json() for p in plans], "nbytes": [len(b.code) for b in parts], "sources": built.sources}
    return b"\n".join([json.dumps(header).encode(), b"".join(b.code for b in parts)])


def _from_cache(stored: bytes, graph: Graph, fixed: tuple[int, ...]) -> Built:
    start = time.perf_counter()
    line, code = stored.split(b"\n", 1)
    header = json.loads(line)
    plans = [Plan.from_json(plan) for plan in header["plans"]]
    plans = [replace(p, messages=tuple(_with_line(m, graph) for m in p.messages)) for p in plans]
    first = header["nbytes"][0]
    built = Built(graph, plans[0], code[:first], {}, from_cache=True, fixed=fixed, sources=tuple(header["sources"]))
    if len(plans) > 1:
        built.constants = Built(graph, plans[1], code[first:], {}, from_cache=True)
    built.times_ms["from cache"] = 1e3 * (time.perf_counter() - start)
    return built


def _without_line(message: str, graph: Graph) -> str:
    """`message` with the number of a node of that line instead of the line: equal programs stand in other places too."""
    for i, node in enumerate(every_node(graph)):
        line = line_text(node.location)
        if line and message.endswith(line):
            return f"{message.removesuffix(line)} (@{i})"
    return message


def _with_line(message: str, graph: Graph) -> str:
    match = re.search(r" \(@(\d+)\)$", message)
    return message if match is None else message[: match.start()] + line_text(list(every_node(graph))[int(match[1])].location)


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for cyclic garbage: most of what tracing and compiling make stays, and looking at it again and again takes long.
    Where that is very much, it counts as old at once."""
    searches = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searches:
            if gc.get_count()[0] >= MANY_OBJECTS and not gc.get_freeze_count():  # else unfreezing would free those of others
                gc.freeze()  # and back from there into the oldest generation
                gc.unfreeze()
            gc.enable()


@contextmanager
def _told(graph: Graph) -> Iterator[None]:
    """A line on the terminal, if there is one, about a compilation that takes long."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    start, shown = time.perf_counter(), []

    def show() -> None:
        shown.append(True)
        print(f"graphc: compiling {graph.name}, {len(graph.nodes)} operators ...", end="", file=sys.stderr, flush=True)

    timer = threading.Timer(LONG_S, show)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if shown:
            print(f" {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)


@uncollected()
def _build(graph: Graph, options: Options, fixed: tuple[int, ...] = ()) -> Built:
    from graphc.runtime.assembly import Assembly
    from graphc.runtime.threads import default_threads

    clock, apart, stages, end_s = _Clock(), _Clock(), Stages(graph.name), time.perf_counter() + options.budget_s
    with _told(graph), Assembly(min(default_threads(), MOST_THREADS), end_s) as assembly:
        parts = clock("passes", parted, graph, fixed, stages)
        if parts.constants is None:
            finish = _begun(parts.main, options, clock, assembly, stages)
            clock("llvm", assembly.finish)
            return replace(finish(), graph=graph, fixed=fixed)
        constants = _begun(parts.constants, options, apart, assembly, stages)
        clock.times_ms["constants"] = sum(apart.times_ms.values())
        finish = _begun(parts.main, options, clock, assembly, stages)
        clock("llvm", assembly.finish)
    return replace(finish(), graph=graph, fixed=fixed, constants=constants(), sources=parts.sources)


def _begun(work: Work, options: Options, clock: _Clock, assembly: Assembly, stages: Stages) -> Callable[[], Built]:
    """Begin with an optimised graph's program; what is returned gives it when the assembly is finished."""
    from graphc.runtime.assembly import code_of

    writer = _Writer(options.lanes, assembly, stages)
    graph, plan_of = work.graph, clock("schedule", work.schedule, options.lanes, writer.found)
    kernels, steps, plan = clock("plan", lay_out, plan_of)
    tell("kernels", lambda: f"{graph.name}\n" + _kernels_text(kernels))
    stages.write("kernels.loops", lambda: _kernels_text(kernels))
    stages.write("plan.json", lambda: json.dumps(plan.to_json(), indent=1))
    modules = clock("render", writer.finished, steps, kernels, plan)

    def finished() -> Built:
        code, hasty = code_of(modules), sum(module.hasty for module in modules)
        return Built(graph, plan, code, clock.times_ms, schedule=plan_of, kernels=kernels, lanes=options.lanes, hasty=hasty)

    return finished


def _kernels_text(kernels: dict[str, Kernel]) -> str:
    return "\n\n".join(map(str, kernels.values()))


def optimise(graph: Graph, stages: Stages | None = None) -> Graph:
    """Every pass, in order; on the graphs in regions too."""
    if stages:
        _write_graph(stages, "traced", graph)
    for one in PASSES:
        before, graph = graph, one(graph)
        if stages and graph is not before:
            _write_graph(stages, one.__name__, graph)
    return in_regions(graph, optimise)


def _write_graph(stages: Stages, name: str, graph: Graph) -> None:
    stages.write(f"{name}.gct", lambda: print_graph(graph, locations=True))


class Work(NamedTuple):
    """An optimised graph, or the `calls` of optimised graphs that do its work."""

    graph: Graph
    calls: tuple[Call, ...] = ()

    def schedule(self, lanes: int, found: Found | None = None) -> Schedule:
        """What the graph becomes.   found: told of every kernel, before there is a schedule."""
        return chain(self.graph, self.calls, lanes, found) if self.calls else schedule(self.graph, lanes, found=found)


class Parts(NamedTuple):
    """main: what runs at every call; its last inputs are the outputs of `constants`.   sources: where the inputs of
    `constants` are among those of the whole graph; it runs when one of them changed."""

    main: Work
    constants: Work | None = None
    sources: tuple[int, ...] = ()


def parted(graph: Graph, fixed: Collection[int] = (), stages: Stages | None = None) -> Parts:
    """The optimised graph, without what depends on inputs at `fixed` alone, and that.  Equal layers are optimised once."""
    calls = _layers(graph, fixed, stages)
    if calls:
        return _prepared(graph, calls, fixed)
    lowered = optimise(graph, stages)
    made = prepare(lowered, fixed)
    if made is None:
        return Parts(Work(lowered))
    if stages:
        _write_graph(stages, "constants", made.constants)
        _write_graph(stages, "main", made.main)
    return Parts(Work(made.main), Work(made.constants), made.sources)


def _layers(graph: Graph, fixed: Collection[int], stages: Stages | None) -> list[Call]:
    """The graph as calls of optimised graphs, where it has equal layers and to cut between them costs nothing."""
    known = Known.of_inputs(graph, fixed)
    for calls in cuts(graph):
        one, following = next(pair for pair in pairwise(calls) if pair[0].graph is pair[1].graph)
        optimised = {one.graph: optimise(one.graph)}
        if costs_fusion(replace(one, graph=optimised[one.graph]), following):
            continue
        if any(known(value.node) for call in calls for value in call.inputs):
            continue  # it is to be prepared, and a layer would not know
        for call in calls:
            if call.graph not in optimised:
                optimised[call.graph] = optimise(call.graph)
        if stages:
            for each in optimised.values():
                _write_graph(stages, each.name, each)
        return [replace(call, graph=optimised[call.graph]) for call in calls]
    return []


def _prepared(graph: Graph, calls: Sequence[Call], fixed: Collection[int]) -> Parts:
    """`prepare` of every graph that is called, and the calls of its parts."""
    constant = {graph.inputs[i] for i in fixed} - {state for state, _ in graph.updates}
    positions: dict[Graph, set[int]] = {}
    for call in calls:
        here = {i for i, value in enumerate(call.inputs) if value in constant}
        positions[call.graph] = positions.get(call.graph, here) & here
    made: dict[Graph, Prepared | None] = {}
    panels = 0
    for each, at in positions.items():
        times = sum(call.graph is each for call in calls)
        one = made[each] = prepare(each, at, times, panels)
        panels += times * (0 if one is None else one.panels)
    always, once = [], []
    kept: list[Value] = []
    for call in calls:
        parts = made[call.graph]
        if parts is None:
            always.append(call)
            continue
        results = tuple([Value(v.type, None, f"prepared{i}") for i, v in enumerate(parts.constants.outputs, len(kept))])
        once.append(Call(parts.constants, tuple([call.inputs[i] for i in parts.sources]), results))
        always.append(Call(parts.main, (*call.inputs, *results), call.outputs))
        kept += results
    whole = Graph(graph.name, (*graph.inputs, *kept), graph.nodes, graph.outputs, graph.updates)
    main = Work(whole, tuple(always))
    if not kept:
        return Parts(main)
    read = {value for call in once for value in call.inputs}
    sources = tuple([i for i, value in enumerate(graph.inputs) if value in read])
    constants = Graph(f"{graph.name}_constants", tuple([graph.inputs[i] for i in sources]), (), tuple(kept))
    return Parts(main, Work(constants, tuple(once)), sources)


def lay_out(made: Schedule) -> tuple[dict[str, Kernel], list[Step], Plan]:
    """Table slots for every buffer and size; launches as the steps of an entry."""
    graph, everything = made.graph, list(opened(made))
    tables = {id(table): table for table in (made.places, *(step.places for step in everything if isinstance(step, Placed)))}
    arena = sorted({p.index for table in tables.values() for p in table.values() if p.kind == "arena"})
    number = {offset: i for i, offset in enumerate(arena)}
    sizes = tuple(sorted({n for v in (*graph.inputs, *graph.outputs, *made.places) for d in v.shape for n in free(d)}))
    plan = Plan(
        inputs=tuple(_spec(v) for v in graph.inputs),
        outputs=tuple(_spec(v) for v in graph.outputs),
        arena_offsets=tuple(arena),
        arena_nbytes=made.arena_nbytes,
        temporaries=tuple(made.temporaries),
        sizes=sizes,
        written=made.written,
        messages=tuple(made.messages),
    )
    first = {"input": FIRST_SLOT, "output": FIRST_SLOT + len(plan.inputs)}
    first["arena"] = first["output"] + len(plan.outputs)
    first["temporary"] = first["arena"] + len(arena)

    def slot(place: Place) -> int:
        return first[place.kind] + (number[place.index] if place.kind == "arena" else place.index)

    def host_call(launch: HostLaunch, at: Mapping[Value, Place]) -> HostCall:
        inputs, outputs = ([(slot(at[v]), _spec(v)) for v in side] for side in (launch.inputs, launch.outputs))
        attributes = print_attributes(launch.op, launch.attrs)
        return HostCall(launch.op.name, attributes, tuple(inputs), tuple(outputs), launch.line)

    kernels: dict[str, Kernel] = {}
    steps: list[Step] = []
    host_calls: list[HostCall] = []
    for step in everything:
        if not isinstance(step, Placed):
            control, asked = step
            steps.append(control if asked is None else replace(control, slot=slot(asked)))
            continue
        launch = step.launch
        if isinstance(launch, HostLaunch):
            steps.append(HostStep(launch.op.name, len(host_calls)))
            host_calls.append(host_call(launch, step.places))
            continue
        kernels.setdefault(launch.kernel.name, launch.kernel)
        arguments = [slot(step.places[v]) for v in launch.buffers]
        arguments += [plan.sizes_at + sizes.index(p.name) for p in launch.kernel.params if p.role == "size"]
        steps.append(KernelStep(launch.kernel.name, tuple(arguments), step.joins))
    return kernels, steps, replace(plan, host_calls=tuple(host_calls))


def _spec(value: Value) -> Spec:
    return Spec(value.dtype, value.shape)


class _Writer:
    """Writes the modules of a program.  Each becomes machine code on another thread while this one goes on: kernels that are shared
    with no other as soon as they are `found`, the rest when all are known."""

    def __init__(self, lanes: int, assembly: Assembly, stages: Stages) -> None:
        from graphc.codegen.llvm.program import Modules
        from graphc.runtime.link import vector_nbytes

        self.texts = Modules(lanes, scales=vector_nbytes() == 64)
        self.assembly, self.stages = assembly, stages
        self.modules: list[Module] = []
        self.opened: dict[str, Kernel] = {}

    def found(self, kernel: Kernel) -> None:
        """There is a kernel."""
        from graphc.codegen.shared import stays_apart

        if kernel.name not in self.opened and stays_apart(kernel):
            self._add(kernel)

    def finished(self, steps: list[Step], kernels: dict[str, Kernel], plan: Plan) -> list[Module]:
        """The modules of all steps."""
        from graphc.codegen.llvm.program import Launch, Slot
        from graphc.codegen.shared import shared

        instances = shared(kernels.values())
        for instance in instances.values():
            if instance.kernel.name not in self.opened:
                self._add(instance.kernel)

        def launch(step: KernelStep) -> Launch:
            instance = instances[step.kernel]
            return Launch(instance.kernel.name, (*map(Slot, step.slots), *instance.numbers), step.joins, kernels[step.kernel].grain)

        launches = [launch(step) if isinstance(step, KernelStep) else step for step in steps]
        self._begin(self.texts.last(launches, self.opened, Slot(plan.callback_slot)))
        return self.modules

    def _add(self, kernel: Kernel) -> None:
        from graphc.codegen.mathlib import expand

        self.opened[kernel.name] = expand(kernel)
        for text in self.texts.add(self.opened[kernel.name]):
            self._begin(text)

    def _begin(self, text: str) -> None:
        self.stages.write("module.ll", lambda: text)
        self.modules.append(self.assembly.add(text))


class _Clock:
    def __init__(self) -> None:
        self.times_ms: dict[str, float] = {}

    def __call__(self, stage: str, function: Callable[..., Any], *args: Any) -> Any:
        start = time.perf_counter()
        result = function(*args)
        self.times_ms[stage] = 1e3 * (time.perf_counter() - start)
        return result


def cache_key(graph: Graph, options: Options, fixed: tuple[int, ...] = (), text: str | None = None) -> str:
    """What the objects depend on: the graph's text, the options, which inputs are fixed, this graphc, this machine, and which nodes
    share a line."""
    from graphc.runtime.link import machine_signature

    first: dict[tuple[str, int] | None, int] = {}
    lines = [first.setdefault(node.location, i) for i, node in enumerate(every_node(graph))]
    parts = (text or print_graph(graph), str(lines), repr(options), repr(fixed), source_fingerprint(), machine_signature())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@functools.cache
def source_fingerprint() -> str:
    """Name, size and modification time of every source file of this graphc: an edited compiler never reads old code."""
    root = os.path.dirname(os.path.abspath(__file__))
    stats = []
    for folder, _, files in sorted(os.walk(root)):
        for name in sorted(files):
            if name.endswith(".py"):
                status = os.stat(os.path.join(folder, name))
                stats.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(stats).encode()).hexdigest()
