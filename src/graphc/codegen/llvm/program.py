"""A whole module: kernels and the function that launches them in order.

Enters: `Launch`es, the kernels they name, the vector width.  Leaves: LLVM text with the function
``i64 graphc_main(ptr table, ptr pool_run, ptr pool)``.  Never here: who owns the buffers, how threads wait.

`table` has 8-byte slots: 0 the address of the status word, 1 the number of threads, then buffer addresses and sizes.
``pool_run(pool, fn, data, chunks)`` calls ``fn(data, chunk, chunks)`` for every chunk and returns when all are done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.codegen.llvm.access import Access
from graphc.codegen.llvm.emit import Emitter, Value, integer
from graphc.codegen.llvm.render import render
from graphc.dims import Size, substitute
from graphc.dtypes import int64
from graphc.errors import IRError
from graphc.ir.loops import ENTRY, STATUS_SLOT, THREADS_SLOT, Check, For, HostStep, Kernel, walk

CHUNKS_PER_THREAD = 4


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the table: a buffer's address or a size known at call time."""

    index: int


@dataclass(frozen=True, slots=True)
class Launch:
    """One run of a kernel: for each parameter its `Slot`, or (sizes only) an int."""

    kernel: str
    arguments: tuple[Slot | int, ...]


# One launch: directly where one chunk is enough, else over the pool in at most CHUNKS_PER_THREAD chunks a thread.
_RUNTIME = f"""
define internal void @graphc_chunk(ptr %data, i64 %chunk, i64 %chunks) nounwind {{
  %argsp = getelementptr i64, ptr %data, i64 1
  %extentp = getelementptr i64, ptr %data, i64 2
  %kernel = load ptr, ptr %data
  %args = load ptr, ptr %argsp
  %extent = load i64, ptr %extentp
  %next = add i64 %chunk, 1
  %low = mul i64 %extent, %chunk
  %high = mul i64 %extent, %next
  %begin = udiv i64 %low, %chunks
  %end = udiv i64 %high, %chunks
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
  %chunks = call i64 @llvm.smin.i64(i64 %wanted, i64 %most)
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


def render_program(
    launches: Sequence[Launch | HostStep], kernels: Mapping[str, Kernel], lanes: int, callback: Slot | None = None
) -> str:
    """The module text of `launches`, in order, of `kernels` (each written once, if launched).

    callback: where the table holds the address of ``void callback(table, number)``, which runs the host's steps.
    Raises IRError for a launch whose arguments do not fit its kernel's parameters.
    """
    used = dict.fromkeys(launch.kernel for launch in launches if isinstance(launch, Launch))
    texts = [render(kernels[name].renamed(name), lanes) for name in used]
    return "\n".join([*texts, _RUNTIME, _main(launches, kernels, callback)])


def parallel_extent(kernel: Kernel) -> Size:
    """The extent of the kernel's parallel loop, over its size parameters; 1 where it has none."""
    if len(kernel.body) == 1 and isinstance(kernel.body[0], For) and kernel.body[0].kind == "parallel":
        return kernel.body[0].extent
    return 1


def _main(launches: Sequence[Launch | HostStep], kernels: Mapping[str, Kernel], callback: Slot | None) -> str:
    emit = Emitter()
    slots = 1 + max((len(launch.arguments) for launch in launches if isinstance(launch, Launch)), default=0)
    checked = False
    for number, launch in enumerate(launches):
        if isinstance(launch, HostStep):
            assert callback is not None
            address = _slot(emit, callback.index, "ptr")
            emit.here(f"call void {address.text}(ptr %table, i64 {launch.number})")
            may_fail = True
        else:
            kernel = kernels[launch.kernel]
            _fill(emit, kernel, launch)
            _start(emit, kernel, launch)
            may_fail = any(isinstance(s, Check) for s in walk(kernel.body))
        if may_fail:
            checked = True
            failed = _status(emit, number)
            emit.here(f"br i1 {failed}, label %stop, label %next{number}")
            emit.block(f"next{number}")
    lines = ["entry:", f"  %args = alloca [{slots} x i64], align 8", *emit.scopes[0].lines]
    lines += ["  br label %stop", "stop:"] if checked else []
    lines += [
        "  %statusp = load ptr, ptr %table, align 8",
        "  %status = load i64, ptr %statusp, align 8",
        "  ret i64 %status",
    ]
    head = f"define i64 @{ENTRY}(ptr %table, ptr %pool_run, ptr %pool) nounwind {{"
    return "\n".join([head, *lines, "}", ""])


def _slot(emit: Emitter, index: int, kind: str = "i64") -> Value:
    """The table's slot `index`, loaded."""
    table = Value("%table", int64, 1, 0)
    address = emit.op(f"getelementptr i64, ptr %table, i64 {index}", int64, 1, (table,))
    return emit.op(f"load {kind}, ptr {address.text}, align 8", int64, 1, (address,))


def _fill(emit: Emitter, kernel: Kernel, launch: Launch) -> None:
    """Write the kernel's argument slots: its parameters, then the status word's address."""
    if len(launch.arguments) != len(kernel.params):
        raise IRError(f"launch of {kernel.name}: {len(launch.arguments)} arguments for {len(kernel.params)} parameters")
    values = []
    for param, argument in zip(kernel.params, launch.arguments, strict=True):
        if isinstance(argument, Slot):
            values.append(_slot(emit, argument.index).text)
        elif param.role == "size":
            values.append(str(argument))
        else:
            raise IRError(f"launch of {kernel.name}: buffer {param.name} needs a slot, not {argument}")
    values.append(_slot(emit, STATUS_SLOT).text)
    args = Value("%args", int64, 1, 0)
    for position, value in enumerate(values):
        address = emit.op(f"getelementptr i64, ptr %args, i64 {position}", int64, 1, (args,))
        emit.here(f"store i64 {value}, ptr {address.text}, align 8")


def _start(emit: Emitter, kernel: Kernel, launch: Launch) -> None:
    access = Access(emit)
    static: dict[str, Size] = {}
    for param, argument in zip(kernel.params, launch.arguments, strict=True):
        if isinstance(argument, int):
            static[param.name] = argument
        elif param.role == "size":
            access.values[param.name] = _slot(emit, argument.index)
    extent = substitute(parallel_extent(kernel), static)
    if type(extent) is int and extent <= kernel.grain:
        emit.here(f"call void @{launch.kernel}(ptr %args, i64 0, i64 {extent})")
        return
    threads = _slot(emit, THREADS_SLOT)
    count, grain = access.scalar(extent), integer(max(kernel.grain, 1))
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
