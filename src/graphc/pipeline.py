"""The pipeline, read top to bottom: Graph -> passes -> schedule -> LLVM text -> object -> Program.

Enters: a traced Graph.  Leaves: `Built` (plan, object code, what `explain` shows) and, linked, a `Program`.
Never here: tracing, guards, tensors.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from graphc.dim_answers import answering
from graphc.dims import free
from graphc.errors import line_text
from graphc.ir.graph import Graph, Value
from graphc.ir.host import resolve
from graphc.ir.loops import ENTRY, FIRST_SLOT, HostStep, Kernel
from graphc.ir.text import print_attributes, print_graph
from graphc.passes import PASSES
from graphc.passes.prepare import Prepared, prepare
from graphc.runtime.plan import HostCall, Plan, Spec
from graphc.runtime.program import Program
from graphc.schedule.host import HostLaunch
from graphc.schedule.schedule import Place, Schedule, schedule

if TYPE_CHECKING:
    from graphc.runtime.assembly import Assembly, Module

LONG_S = 1.0
MOST_THREADS = 4  # of a compilation: more would wait for the one that writes text
Step = tuple[str, tuple[int, ...]] | HostStep  # a kernel's name and the slot of each parameter, or an operator on the host


@dataclass(frozen=True)
class Options:
    """`lanes`: vector width of the generated code in elements, by default this machine's in float32.  Bits do not depend on it."""

    lanes: int = field(default_factory=lambda: _lanes())


def _lanes() -> int:
    from graphc.runtime.link import vector_nbytes

    return int(os.environ.get("GRAPHC_LANES", "0")) or vector_nbytes() // 4


@dataclass
class Built:
    """A compiled graph.  `schedule` and `kernels` are None when it came from the cache (explain() rebuilds them).

    fixed: positions of the graph's inputs that hardly ever change.   constants: the program of what depends on those alone, from
    the inputs at `sources`; its outputs are the last inputs of this one's plan.  None where nothing does.
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

    def link(self) -> Program:
        """The runnable program."""
        from graphc.runtime.link import link

        return Program(self.plan, link(self.code, [ENTRY])[ENTRY], resolve)


def build(graph: Graph, options: Options | None = None, *, fixed: Collection[int] = (), use_cache: bool = True) -> Built:
    """Compile `graph`, or fetch what an earlier process compiled from the very same text.

    fixed: positions of inputs that hardly ever change: what depends on them alone becomes a program of its own.
    Raises IRError for a graph that breaks the IR's rules.
    """
    with answering(None):  # what the compiler asks of sizes is not asked by the code that is being traced
        return _fetched_or_built(graph, options or Options(), tuple(sorted(fixed)), use_cache)


def _fetched_or_built(graph: Graph, options: Options, fixed: tuple[int, ...], use_cache: bool) -> Built:
    if not use_cache:
        return _build(graph, options, fixed)
    from graphc.runtime.cache import default_cache

    key = cache_key(graph, options, fixed)
    stored = default_cache().get(key)
    if stored is not None:
        return replace(_from_cache(stored, graph, fixed), lanes=options.lanes)
    built = _build(graph, options, fixed)
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
    for i, node in enumerate(graph.nodes):
        line = line_text(node.location)
        if line and message.endswith(line):
            return f"{message.removesuffix(line)} (@{i})"
    return message


def _with_line(message: str, graph: Graph) -> str:
    match = re.search(r" \(@(\d+)\)$", message)
    return message if match is None else message[: match.start()] + line_text(graph.nodes[int(match[1])].location)


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for cyclic garbage: what a compilation makes mostly stays, and looking at it again and again takes long."""
    searches = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searches:
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


@_uncollected()
def _build(graph: Graph, options: Options, fixed: tuple[int, ...] = ()) -> Built:
    from graphc.runtime.assembly import Assembly
    from graphc.runtime.threads import default_threads

    clock, apart = _Clock(), _Clock()
    with _told(graph), Assembly(min(default_threads(), MOST_THREADS)) as assembly:
        parts = clock("passes", parted, graph, fixed)
        if isinstance(parts, Graph):
            finish = _begun(parts, options, clock, assembly)
            clock("llvm", assembly.finish)
            return replace(finish(), graph=graph, fixed=fixed)
        constants = _begun(parts.constants, options, apart, assembly)
        clock.times_ms["constants"] = sum(apart.times_ms.values())
        finish = _begun(parts.main, options, clock, assembly)
        clock("llvm", assembly.finish)
    return replace(finish(), graph=graph, fixed=fixed, constants=constants(), sources=parts.sources)


def _begun(graph: Graph, options: Options, clock: _Clock, assembly: Assembly) -> Callable[[], Built]:
    """Begin with an optimised graph's program; what is returned gives it when the assembly is finished."""
    from graphc.runtime.assembly import code_of

    plan_of = clock("schedule", schedule, graph, options.lanes)
    kernels, steps, plan = clock("plan", lay_out, plan_of)
    modules = clock("render", _written, steps, kernels, plan, options.lanes, plan_of.joined, assembly)
    return lambda: Built(graph, plan, code_of(modules), clock.times_ms, schedule=plan_of, kernels=kernels, lanes=options.lanes)


def optimise(graph: Graph) -> Graph:
    """Every pass, in order."""
    for one in PASSES:
        graph = one(graph)
    return graph


def parted(graph: Graph, fixed: Collection[int] = ()) -> Graph | Prepared:
    """The optimised graph, or where something in it depends on inputs at `fixed` alone, the graph without that and that."""
    lowered = optimise(graph)
    return prepare(lowered, fixed) or lowered


def lay_out(made: Schedule) -> tuple[dict[str, Kernel], list[Step], Plan]:
    """Table slots for every buffer and size; launches as the steps of an entry."""
    graph = made.graph
    arena = sorted({p.index for p in made.places.values() if p.kind == "arena"})
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
        return first[place.kind] + (arena.index(place.index) if place.kind == "arena" else place.index)

    def host_call(launch: HostLaunch) -> HostCall:
        inputs, outputs = ([(slot(made.places[v]), _spec(v)) for v in side] for side in (launch.inputs, launch.outputs))
        attributes = print_attributes(launch.op, launch.attrs)
        return HostCall(launch.op.name, attributes, tuple(inputs), tuple(outputs), launch.line)

    kernels: dict[str, Kernel] = {}
    steps: list[Step] = []
    host_calls: list[HostCall] = []
    for launch in made.launches:
        if isinstance(launch, HostLaunch):
            steps.append(HostStep(launch.op.name, len(host_calls)))
            host_calls.append(host_call(launch))
            continue
        kernels.setdefault(launch.kernel.name, launch.kernel)
        arguments = [slot(made.places[v]) for v in launch.buffers]
        arguments += [plan.sizes_at + sizes.index(p.name) for p in launch.kernel.params if p.role == "size"]
        steps.append((launch.kernel.name, tuple(arguments)))
    return kernels, steps, replace(plan, host_calls=tuple(host_calls))


def _spec(value: Value) -> Spec:
    return Spec(value.dtype, value.shape)


def _written(
    steps: list[Step], kernels: dict[str, Kernel], plan: Plan, lanes: int, joined: Collection[int], assembly: Assembly
) -> list[Module]:
    """The modules of all steps.  Each becomes machine code on another thread while this one writes the next."""
    from graphc.codegen.llvm.program import Launch, Slot, render_modules
    from graphc.codegen.mathlib import expand
    from graphc.codegen.shared import shared
    from graphc.runtime.link import vector_nbytes

    instances = shared(kernels.values())
    opened = {instance.kernel.name: expand(instance.kernel) for instance in instances.values()}

    def launch(name: str, slots: tuple[int, ...], joins: bool) -> Launch:
        instance = instances[name]
        return Launch(instance.kernel.name, (*map(Slot, slots), *instance.numbers), joins, kernels[name].grain)

    launches = [step if isinstance(step, HostStep) else launch(*step, i in joined) for i, step in enumerate(steps)]
    texts = render_modules(launches, opened, lanes, Slot(plan.callback_slot), scales=vector_nbytes() == 64)
    return [assembly.add(text) for text in texts]


class _Clock:
    def __init__(self) -> None:
        self.times_ms: dict[str, float] = {}

    def __call__(self, stage: str, function: Callable[..., Any], *args: Any) -> Any:
        start = time.perf_counter()
        result = function(*args)
        self.times_ms[stage] = 1e3 * (time.perf_counter() - start)
        return result


def cache_key(graph: Graph, options: Options, fixed: tuple[int, ...] = ()) -> str:
    """What the objects depend on: the graph's text, the options, which inputs are fixed, this graphc, this machine, and which nodes
    share a line."""
    from graphc.runtime.link import machine_signature

    first: dict[tuple[str, int] | None, int] = {}
    lines = [first.setdefault(node.location, i) for i, node in enumerate(graph.nodes)]
    parts = (print_graph(graph), str(lines), repr(options), repr(fixed), source_fingerprint(), machine_signature())
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
