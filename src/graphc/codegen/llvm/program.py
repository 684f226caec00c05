"""A whole module: kernels and the function that launches them in order.

Enters: `Launch`es, the kernels they name, the vector width.  Leaves: LLVM text with the function
``i64 graphc_main(ptr table, ptr pool_run, ptr pool)``.  Never here: who owns the buffers, how threads wait.

`table` has 8-byte slots: 0 the address of the status word, 1 the number of threads, then buffer addresses and sizes.
``pool_run(pool, fn, data, chunks)`` calls ``fn(data, chunk, chunks)`` for every chunk and returns when all are done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.codegen.llvm.access import STREAMED, Access
from graphc.codegen.llvm.emit import Emitter, Value
from graphc.codegen.llvm.records import FILL, RECORDS, TOGETHER_WORDS, constant, record
from graphc.codegen.llvm.render import render
from graphc.codegen.llvm.width import width
from graphc.dims import Size, bounds, substitute
from graphc.dtypes import int64
from graphc.errors import IRError
from graphc.ir.loops import ENTRY, STATUS_SLOT, THREADS_SLOT, Check, ControlStep, For, HostStep, Kernel, walk

CHUNKS_PER_THREAD = 4
SINGLES_PER_THREAD = 16  # so few iterations are a chunk each: an uneven share of them would show
LEAST_CHUNK = 0.02  # grains that running a chunk costs by itself
LEAST_RECORDS = 8  # launches in a row; fewer are quicker as text
MODULE_CHARACTERS = 30_000  # of a module that keeps a thread busy for long enough
_METADATA = f"{STREAMED} = !{{i32 1}}\n"


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the table: a buffer's address or a size known at call time."""

    index: int


@dataclass(frozen=True, slots=True)
class Launch:
    """One run of a kernel: for each parameter its `Slot`, or (sizes only) an int.   joins: it may run while the one before does.

    grain: least number of parallel iterations worth a thread of its own, where the kernel's does not hold.
    """

    kernel: str
    arguments: tuple[Slot | int, ...]
    joins: bool = False
    grain: Size | None = None

    def least(self, kernel: Kernel) -> Size:
        """The grain of this launch, over the sizes that are known at call time."""
        return substitute(kernel.grain if self.grain is None else self.grain, self.known(kernel))

    def known(self, kernel: Kernel) -> dict[str, Size]:
        """The numbers among its arguments, by parameter."""
        return {p.name: a for p, a in zip(kernel.params, self.arguments, strict=True) if isinstance(a, int)}


Step = Launch | HostStep | ControlStep

# Where a chunk begins: those that have one iteration more come first, so that the last to end are the short ones.
_START = """
define internal i64 @graphc_start_of(i64 %extent, i64 %chunk, i64 %chunks) nounwind {
  %each = udiv i64 %extent, %chunks
  %longer = urem i64 %extent, %chunks
  %before = mul i64 %each, %chunk
  %more = call i64 @llvm.smin.i64(i64 %chunk, i64 %longer)
  %start = add i64 %before, %more
  ret i64 %start
}
"""

# One launch: directly where one chunk is enough, else over the pool in a few chunks a thread, as many for each.
_RUNTIME = f"""
define internal void @graphc_chunk(ptr %data, i64 %chunk, i64 %chunks) nounwind {{
  %argsp = getelementptr i64, ptr %data, i64 1
  %extentp = getelementptr i64, ptr %data, i64 2
  %kernel = load ptr, ptr %data
  %args = load ptr, ptr %argsp
  %extent = load i64, ptr %extentp
  %begin = call i64 @graphc_start_of(i64 %extent, i64 %chunk, i64 %chunks)
  %next = add i64 %chunk, 1
  %end = call i64 @graphc_start_of(i64 %extent, i64 %next, i64 %chunks)
  call void %kernel(ptr %args, i64 %begin, i64 %end)
  ret void
}}

define internal void @graphc_launch(ptr %kernel, ptr %args, i64 %extent, i64 %grain, i64 %threads,
                                    ptr %pool_run, ptr %pool) nounwind {{
  %data = alloca [3 x i64], align 8
  %rounded = add i64 %extent, %grain
  %last = sub i64 %rounded, 1
  %wanted = sdiv i64 %last, %grain
  %most = mul i64 %threads, {CHUNKS_PER_THREAD}
  %singles = mul i64 %threads, {SINGLES_PER_THREAD}
  %short = icmp sle i64 %extent, %singles
  %limit = select i1 %short, i64 %extent, i64 %most
  %worth = call i64 @llvm.smin.i64(i64 %wanted, i64 %limit)
  %over = srem i64 %worth, %threads
  %missing = sub i64 %threads, %over
  %grown = add i64 %worth, %missing
  %uneven = icmp ne i64 %over, 0
  %several = icmp sgt i64 %worth, %threads
  %grows = and i1 %uneven, %several
  %rounds = select i1 %grows, i64 %grown, i64 %worth
  %chunks = call i64 @llvm.smin.i64(i64 %rounds, i64 %extent)
  %few = icmp sle i64 %chunks, 1
  %alone = icmp sle i64 %threads, 1
  %direct = or i1 %few, %alone
  br i1 %direct, label %one, label %many
one:
  call void %kernel(ptr %args, i64 0, i64 %extent)
  ret void
many:
  %argsp = getelementptr i64, ptr %data, i64 1
  %extentp = getelementptr i64, ptr %data, i64 2
  store ptr %kernel, ptr %data
  store ptr %args, ptr %argsp
  store i64 %extent, ptr %extentp
  call void %pool_run(ptr %pool, ptr @graphc_chunk, ptr %data, i64 %chunks)
  ret void
}}
"""


# Several launches at once.
_TOGETHER = f"""
define internal void @graphc_chunk_of_several(ptr %entries, i64 %chunk, i64 %chunks) nounwind {{
entry:
  br label %look
look:
  %at = phi ptr [ %entries, %entry ], [ %next, %skip ]
  %first = phi i64 [ 0, %entry ], [ %end, %skip ]
  %endp = getelementptr i64, ptr %at, i64 4
  %end = load i64, ptr %endp
  %found = icmp slt i64 %chunk, %end
  br i1 %found, label %run, label %skip
skip:
  %next = getelementptr i64, ptr %at, i64 {TOGETHER_WORDS}
  br label %look
run:
  %argsp = getelementptr i64, ptr %at, i64 1
  %extentp = getelementptr i64, ptr %at, i64 2
  %kernel = load ptr, ptr %at
  %args = load ptr, ptr %argsp
  %extent = load i64, ptr %extentp
  %parts = sub i64 %end, %first
  %part = sub i64 %chunk, %first
  %begin = call i64 @graphc_start_of(i64 %extent, i64 %part, i64 %parts)
  %after = add i64 %part, 1
  %stop = call i64 @graphc_start_of(i64 %extent, i64 %after, i64 %parts)
  call void %kernel(ptr %args, i64 %begin, i64 %stop)
  ret void
}}

define internal void @graphc_launch_several(ptr %entries, i64 %count, i64 %threads, ptr %pool_run, ptr %pool) nounwind {{
entry:
  %most = mul i64 %threads, {CHUNKS_PER_THREAD}
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i.more, %next ]
  %at = phi ptr [ %entries, %entry ], [ %at.more, %next ]
  %total = phi i64 [ 0, %entry ], [ %total.more, %next ]
  %extentp = getelementptr i64, ptr %at, i64 2
  %grainp = getelementptr i64, ptr %at, i64 3
  %endp = getelementptr i64, ptr %at, i64 4
  %extent = load i64, ptr %extentp
  %grain = load i64, ptr %grainp
  %rounded = add i64 %extent, %grain
  %last = sub i64 %rounded, 1
  %wanted = sdiv i64 %last, %grain
  %few = call i64 @llvm.smin.i64(i64 %wanted, i64 %most)
  %parts = call i64 @llvm.smax.i64(i64 %few, i64 1)
  %total.more = add i64 %total, %parts
  store i64 %total.more, ptr %endp
  %i.more = add i64 %i, 1
  %at.more = getelementptr i64, ptr %at, i64 {TOGETHER_WORDS}
  %more = icmp slt i64 %i.more, %count
  br i1 %more, label %next, label %start
start:
  call void %pool_run(ptr %pool, ptr @graphc_chunk_of_several, ptr %entries, i64 %total.more)
  ret void
}}
"""


# What may be called from the entry or from those before it.
_HELPERS = {
    "graphc_run": RECORDS,
    "graphc_fill": FILL,
    "graphc_launch_several": _TOGETHER,
    "graphc_launch": _RUNTIME,
    "graphc_start_of": _START,
}


def render_program(
    launches: Sequence[Step],
    kernels: Mapping[str, Kernel],
    lanes: int,
    callback: Slot | None = None,
    scales: bool = False,
) -> str:
    """The text of `launches`, in order, of `kernels` (each written once, if launched), as one module.

    callback: where the table holds the address of ``void callback(table, number)``, which runs the host's steps.
    scales: as in `Emitter`.
    Raises IRError for a launch whose arguments do not fit its kernel's parameters.
    """
    return next(render_modules(launches, kernels, lanes, callback, scales, most=None))


def render_modules(
    launches: Sequence[Step],
    kernels: Mapping[str, Kernel],
    lanes: int,
    callback: Slot | None = None,
    scales: bool = False,
    most: int | None = MODULE_CHARACTERS,
) -> Iterator[str]:
    """`render_program` as several modules that refer to each other, of at least `most` characters each but for the last."""
    modules = Modules(lanes, scales, most)
    for name in dict.fromkeys(launch.kernel for launch in launches if isinstance(launch, Launch)):
        yield from modules.add(kernels[name].renamed(name))
    yield modules.last(launches, kernels, callback)


class Modules:
    """The modules of a program, while its kernels are found: `add` each, then write the `last` module.

    lanes, scales, most: as in `render_modules`.
    """

    def __init__(self, lanes: int, scales: bool = False, most: int | None = MODULE_CHARACTERS) -> None:
        self.lanes, self.scales, self.most = lanes, scales, most
        self._here: dict[str, str] = {}
        self._elsewhere: list[str] = []

    def add(self, kernel: Kernel) -> Iterator[str]:
        """Write a kernel, if it is new; gives the module before it, where that is full."""
        if kernel.name in self._here or kernel.name in self._elsewhere:
            return
        if self.most is not None and sum(map(len, self._here.values())) >= self.most:
            texts = [text.replace("define internal", "define", 1) for text in self._here.values()]
            self._elsewhere.extend(self._here)
            self._here.clear()
            yield "\n".join([*texts, _METADATA])
        self._here[kernel.name] = render(kernel, width(kernel, self.lanes), self.scales, self.lanes)

    def last(self, launches: Sequence[Step], kernels: Mapping[str, Kernel], callback: Slot | None = None) -> str:
        """The module with the entry."""
        main = _main(launches, kernels, callback)
        declared = [f"declare void @{name}(ptr, i64, i64)" for name in self._elsewhere]
        helpers = ""
        for name, text in _HELPERS.items():
            if f"@{name}(" in main + helpers:
                helpers += text
        return "\n".join([*self._here.values(), *declared, helpers, main, _METADATA])


def parallel_extent(kernel: Kernel) -> Size:
    """The extent of the kernel's parallel loop, over its size parameters; 1 where it has none."""
    if len(kernel.body) == 1 and isinstance(kernel.body[0], For) and kernel.body[0].kind == "parallel":
        return kernel.body[0].extent
    return 1


def _main(launches: Sequence[Step], kernels: Mapping[str, Kernel], callback: Slot | None) -> str:
    emit = Emitter()
    runs = _together(launches, kernels)
    slots = max((sum(_words(launch) for launch in run) for run in runs), default=1)
    most = max(map(len, runs), default=1)
    checked = False
    constants: list[str] = []
    control = _Control(emit)
    for number, run in enumerate(_in_a_row(runs, kernels)):
        first = run[0]
        if isinstance(first, _Row):
            name = f"records{number}"
            constants.append(constant(name, [[_record(launch, kernels) for launch in each] for each in first.runs]))
            given = f"ptr %table, ptr @{name}, i64 {len(first.runs)}, ptr %args, ptr %entries, ptr %pool_run, ptr %pool"
            emit.here(f"call void @graphc_run({given})")
            may_fail = False
        elif isinstance(first, ControlStep):
            control(first)
            may_fail = False
        elif isinstance(first, HostStep):
            assert callback is not None
            address = _slot(emit, callback.index, "ptr")
            emit.here(f"call void {address.text}(ptr %table, i64 {first.number})")
            may_fail = True
        elif len(run) == 1:
            kernel = kernels[first.kernel]
            _fill(emit, kernel, first)
            _start(emit, kernel, first)
            may_fail = any(isinstance(s, Check) for s in walk(kernel.body))
        else:
            _start_several(emit, run, kernels)
            may_fail = False
        if may_fail:
            checked = True
            failed = _status(emit, number)
            emit.here(f"br i1 {failed}, label %stop, label %next{number}")
            emit.block(f"next{number}")
    lines = ["entry:", f"  %args = alloca [{slots} x i64], align 8", f"  %entries = alloca [{5 * most} x i64], align 8"]
    lines += emit.scopes[0].lines
    lines += ["  br label %stop", "stop:"] if checked else []
    lines += [
        "  %statusp = load ptr, ptr %table, align 8",
        "  %status = load i64, ptr %statusp, align 8",
        "  ret i64 %status",
    ]
    head = f"define i64 @{ENTRY}(ptr %table, ptr %pool_run, ptr %pool) nounwind {{"
    return "\n".join([*constants, head, *lines, "}", ""])


class _Control:
    """Writes the branches and loops of the entry."""

    def __init__(self, emit: Emitter) -> None:
        self.emit = emit
        self.open: list[str] = []  # labels begin with these
        self.count = 0

    def __call__(self, step: ControlStep) -> None:
        """Write one step."""
        emit = self.emit
        if step.kind in ("if", "loop"):
            self.count += 1
            self.open.append(f"region{self.count}")
        label = self.open[-1]
        if step.kind in ("if", "while"):
            taken, other = (f"{label}.true", f"{label}.false") if step.kind == "if" else (f"{label}.body", f"{label}.end")
            emit.here(f"br i1 {_truth(emit, step.slot)}, label %{taken}, label %{other}")
            emit.block(taken)
        elif step.kind == "else":
            emit.here(f"br label %{label}.end")
            emit.block(f"{label}.false")
        elif step.kind == "loop":
            emit.here(f"br label %{label}.again")
            emit.block(f"{label}.again")
        else:
            emit.here(f"br label %{label}.{'end' if step.kind == 'end if' else 'again'}")
            emit.block(f"{label}.end")
            self.open.pop()
        emit.scopes[0].cache.clear()  # what was loaded before may not have been loaded on the way here


def _truth(emit: Emitter, slot: int) -> str:
    """The name of an i1: the bool in the buffer of a slot."""
    address = _slot(emit, slot, "ptr")
    name = emit.fresh("%truth")
    emit.here(f"{name}.byte = load i8, ptr {address.text}, align 1")
    emit.here(f"{name} = icmp ne i8 {name}.byte, 0")
    return name


@dataclass(frozen=True, slots=True)
class _Row:
    """Runs that are written down as records."""

    runs: Sequence[Sequence[Launch]]


def _in_a_row(runs: Sequence[list[Any]], kernels: Mapping[str, Kernel]) -> Iterator[list[Any]]:
    """The runs, with a row in the place of many launches one after the other."""
    row: list[list[Any]] = []

    def ended() -> Iterator[list[Any]]:
        yield from [[_Row(tuple(row))]] if sum(map(len, row)) >= LEAST_RECORDS else row
        row.clear()

    checking = {name for name, kernel in kernels.items() if any(isinstance(s, Check) for s in walk(kernel.body))}
    for run in runs:
        if all(isinstance(each, Launch) and each.kernel not in checking and _is_known(each, kernels) for each in run):
            row.append(run)
        else:
            yield from ended()
            yield run
    yield from ended()


def _is_known(launch: Launch, kernels: Mapping[str, Kernel]) -> bool:
    """Whether a launch can be written down before the call."""
    kernel = kernels[launch.kernel]
    _arguments(kernel, launch)
    known = type(_extent(kernel, launch)) is int and type(launch.least(kernel)) is int
    return known and all(isinstance(a, Slot) or a >= 0 for a in launch.arguments)


def _record(launch: Launch, kernels: Mapping[str, Kernel]) -> list[str]:
    kernel = kernels[launch.kernel]
    extent = _extent(kernel, launch)
    grain = launch.least(kernel)
    assert type(extent) is int and type(grain) is int
    values = _arguments(kernel, launch)
    words = [value.index if isinstance(value, Slot) else -1 - value for value in values]
    return record(launch.kernel, extent, grain, words)


def _arguments(kernel: Kernel, launch: Launch) -> list[Slot | int]:
    """What a kernel is given: its parameters, then the status word's address."""
    if len(launch.arguments) != len(kernel.params):
        raise IRError(f"launch of {kernel.name}: {len(launch.arguments)} arguments for {len(kernel.params)} parameters")
    for param, argument in zip(kernel.params, launch.arguments, strict=True):
        if isinstance(argument, int) and param.role != "size":
            raise IRError(f"launch of {kernel.name}: buffer {param.name} needs a slot, not {argument}")
    return [*launch.arguments, Slot(STATUS_SLOT)]


def _words(launch: Step) -> int:
    """How many argument slots a launch needs: its parameters, and the status word's address."""
    return 1 + len(launch.arguments) if isinstance(launch, Launch) else 1


def _together(launches: Sequence[Step], kernels: Mapping[str, Kernel]) -> list[list[Any]]:
    """Launches that run at once; alone where all of them are too little work for two threads."""
    runs: list[list[Any]] = []
    for launch in launches:
        if runs and isinstance(launch, Launch) and launch.joins:
            runs[-1].append(launch)
        else:
            runs.append([launch])
    found: list[list[Any]] = []
    for run in runs:
        worth = len(run) > 1 and sum(_grains(kernels[launch.kernel], launch) for launch in run) >= 2.0
        found += [run] if worth else [[launch] for launch in run]
    return found


def _grains(kernel: Kernel, launch: Launch) -> float:
    """How many threads the work of a launch is worth; at least the cost of a chunk."""
    extent = _extent(kernel, launch)
    return max(extent / (bounds(launch.least(kernel))[0] or 1), LEAST_CHUNK) if type(extent) is int else 1.0


def _extent(kernel: Kernel, launch: Launch) -> Size:
    return substitute(parallel_extent(kernel), launch.known(kernel))


def _start_several(emit: Emitter, run: Sequence[Launch], kernels: Mapping[str, Kernel]) -> None:
    """Write down every launch's arguments and its record, and launch all of them."""
    entries, args = Value("%entries", int64, 1, 0), Value("%args", int64, 1, 0)
    at = 0
    for i, launch in enumerate(run):
        kernel = kernels[launch.kernel]
        _fill(emit, kernel, launch, at)
        mine = emit.op(f"getelementptr i64, ptr %args, i64 {at}", int64, 1, (args,))
        extent = _extent(kernel, launch)
        assert type(extent) is int
        grain = _sizes(emit, kernel, launch).scalar(launch.least(kernel))
        words = (f"ptr @{launch.kernel}", f"ptr {mine.text}", f"i64 {extent}", f"i64 {grain.text}")
        for position, word in enumerate(words, start=TOGETHER_WORDS * i):
            address = emit.op(f"getelementptr i64, ptr %entries, i64 {position}", int64, 1, (entries,))
            emit.here(f"store {word}, ptr {address.text}, align 8")
        at += _words(launch)
    threads = _slot(emit, THREADS_SLOT)
    several = f"ptr %entries, i64 {len(run)}, i64 {threads.text}"
    emit.here(f"call void @graphc_launch_several({several}, ptr %pool_run, ptr %pool)")


def _slot(emit: Emitter, index: int, kind: str = "i64") -> Value:
    """The table's slot `index`, loaded."""
    table = Value("%table", int64, 1, 0)
    address = emit.op(f"getelementptr i64, ptr %table, i64 {index}", int64, 1, (table,))
    return emit.op(f"load {kind}, ptr {address.text}, align 8", int64, 1, (address,))


def _fill(emit: Emitter, kernel: Kernel, launch: Launch, start: int = 0) -> None:
    """Write the kernel's argument slots, from `start` on: its parameters, then the status word's address."""
    values = [_slot(emit, a.index).text if isinstance(a, Slot) else str(a) for a in _arguments(kernel, launch)]
    args = Value("%args", int64, 1, 0)
    for position, value in enumerate(values, start=start):
        address = emit.op(f"getelementptr i64, ptr %args, i64 {position}", int64, 1, (args,))
        emit.here(f"store i64 {value}, ptr {address.text}, align 8")


def _sizes(emit: Emitter, kernel: Kernel, launch: Launch) -> Access:
    """The sizes among a launch's arguments that are in the table."""
    access = Access(emit)
    for param, argument in zip(kernel.params, launch.arguments, strict=True):
        if param.role == "size" and isinstance(argument, Slot):
            access.values[param.name] = _slot(emit, argument.index)
    return access


def _start(emit: Emitter, kernel: Kernel, launch: Launch) -> None:
    extent, least = _extent(kernel, launch), launch.least(kernel)
    if type(extent) is int and extent <= (bounds(least)[0] or 1):
        emit.here(f"call void @{launch.kernel}(ptr %args, i64 0, i64 {extent})")
        return
    threads = _slot(emit, THREADS_SLOT)
    access = _sizes(emit, kernel, launch)
    count, grain = access.scalar(extent), access.scalar(least)
    emit.here(
        f"call void @graphc_launch(ptr @{launch.kernel}, ptr %args, i64 {count.text}, i64 {grain.text}, "
        f"i64 {threads.text}, ptr %pool_run, ptr %pool)"
    )


def _status(emit: Emitter, number: int) -> str:
    """The name of an i1: the status word is not 0."""
    emit.here(f"%word{number} = load i64, ptr {_pointer(emit)}, align 8")
    emit.here(f"%bad{number} = icmp ne i64 %word{number}, 0")
    return f"%bad{number}"


def _pointer(emit: Emitter) -> str:
    return _slot(emit, STATUS_SLOT, "ptr").text
