"""LLVM text to relocatable objects, and objects to addresses in this process.

Enters: LLVM IR as text, or object bytes.  Leaves: object bytes (fit for the disk cache), or addresses by symbol name, which are
good until the `Code` that has them is gone.
Never here: what the text means, the cache, calling the code.  llvmlite is imported on first use.

llvmlite lets one thread at a time into LLVM.  Nearly all the time goes into making machine code of a module, so that one function
of its library is called without llvmlite's lock: modules have contexts of their own and threads machines of their own.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import finalize

from graphc.errors import IRError
from graphc.runtime import regions

if TYPE_CHECKING:
    import llvmlite.binding as llvm

# Who works in LLVM holds one of these; taking all of them around a fork leaves LLVM whole in the child.
_lock = threading.Lock()
_benches = [threading.Lock() for _ in range(8)]  # of threads that make objects
_library_numbers = itertools.count()
_apart: list[int] = []  # an address in each library whose memory is not merged yet
_MERGED_TOGETHER = 64  # libraries
_LIBRARIES = 64  # of one linker: a new one takes a millisecond
_linkers: list[_Linker] = []  # the last one takes libraries
_libraries: dict[int, _Library] = {}  # by number: a collector that finds a `Code` in a cycle must not find its library
_unused: list[int] = []  # to be unloaded
_for_good: list[Code] = []  # sleeping threads and handed-out addresses point into it
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_linkers))  # code runs until the process ends
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_libraries))
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_for_good))
if hasattr(os, "register_at_fork"):
    for _each in (_lock, *_benches):
        os.register_at_fork(before=_each.acquire, after_in_parent=_each.release, after_in_child=_each.release)
_SEVERAL = b"graphc objects\n"  # then their count, their lengths, and they themselves


def assemble(text: str, *, optimise: int = 1, features: str | None = None, cpu: str | None = None, hasty: bool = False) -> bytes:
    """The relocatable object (position independent, small code model) of the LLVM module `text`.

    optimise: 0 no passes (hand-scheduled text), 1 sroa and simplifycfg, 2 the same and codegen level 2 instead of 1.
    features: LLVM feature string (``+avx2,+fma``); None means this machine's.
    cpu: LLVM CPU name; None means this machine's, or the baseline of its architecture where `features` is given.
    hasty: codegen level 0: done in a quarter of the time, and slow code with the same results.

    Raises IRError for text that LLVM refuses (its message included).
    """
    llvm = _llvm()
    if features is None and cpu is None:
        cpu, features = _host()
    with _bench() as bench:
        machine = _target_machine(cpu or "", features or "", 0 if hasty else 2 if optimise >= 2 else 1, bench)
        try:
            module = llvm.parse_assembly(text, llvm.create_context())
            module.verify()
        except RuntimeError as error:
            raise IRError(f"LLVM refused a module: {str(error).strip()}") from error
        with module:
            module.triple = llvm.get_process_triple()
            module.data_layout = str(machine.target_data)
            if optimise >= 1:
                _run_lean_passes(module, machine)
            return _emitted(module, machine)


def joined(objects: Sequence[bytes]) -> bytes:
    """Objects that refer to each other, in one piece for `link`."""
    if len(objects) == 1:
        return objects[0]
    lengths = struct.pack(f"<{len(objects) + 1}Q", len(objects), *map(len, objects))
    return b"".join([_SEVERAL, lengths, *objects])


def _objects(code: bytes) -> Iterator[bytes]:
    """What `joined` put together, or the one object that `code` is."""
    if not code.startswith(_SEVERAL):
        yield code
        return
    at = len(_SEVERAL)
    (count,) = struct.unpack_from("<Q", code, at)
    lengths = struct.unpack_from(f"<{count}Q", code, at + 8)
    at += 8 * (count + 1)
    for length in lengths:
        yield code[at : at + length]
        at += length


class Code:
    """Linked functions.   addresses: by name; they are good as long as this object lives."""

    __slots__ = ("__weakref__", "addresses")

    def __init__(self, addresses: dict[str, int], library: int) -> None:
        self.addresses = addresses
        finalize(self, _no_more, library).atexit = False  # at the end threads may still run


def _no_more(library: int) -> None:
    _unused.append(library)
    if _lock.acquire(blocking=False):  # else by whoever links next: this may be a search for garbage inside of LLVM
        try:
            _unload()
        finally:
            _lock.release()


class _Linker:
    """One of LLVM's linkers, which keeps some 10 KiB of each of its libraries until it is closed.   count: of libraries it ever
    had.   alive: of those that are not unloaded."""

    def __init__(self) -> None:
        # JITLink lays one library out in one block, so the small code model's 32-bit distances always reach.
        self.jit = _llvm().create_lljit_compiler(_target_machine(*_host(), 1, -1), use_jit_link=True)
        self.count = self.alive = 0


class _Library(NamedTuple):
    linker: _Linker
    tracker: Any


def linked(object: bytes, names: Sequence[str]) -> Code:
    """The functions `names` of an object, or of several `joined`, until nobody has what this gives any more.

    Symbols that the objects lack are looked up in the process (libc, libm).
    Raises RuntimeError for a name or symbol that is nowhere.
    """
    with _lock:
        _unload()
        if not _linkers or _linkers[-1].count >= _LIBRARIES:
            _linkers.append(_Linker())
        linker = _linkers[-1]
        builder = _llvm().JITLibraryBuilder()
        for each in _objects(object):
            builder.add_object_img(each)
        builder.add_current_process()
        for name in names:
            builder.export_symbol(name)
        number = next(_library_numbers)
        tracker = builder.link(linker.jit, f"graphc{number}")
        addresses = {name: int(tracker[name]) for name in names}
        linker.count += 1
        linker.alive += 1
        _apart.extend(list(addresses.values())[:1])
        if len(_apart) >= _MERGED_TOGETHER:
            regions.merge(_apart)
            _apart.clear()
        _libraries[number] = _Library(linker, tracker)
        return Code(addresses, number)


def link(object: bytes, names: Sequence[str]) -> dict[str, int]:
    """The addresses of the functions `names`, linked for good.  Raises as `linked`."""
    code = linked(object, names)
    _for_good.append(code)
    return code.addresses


def _unload() -> None:
    """Give back the memory of libraries that nobody uses, and the linkers that have no others."""
    while _unused:
        linker, tracker = _libraries.pop(_unused.pop())
        tracker.close()
        linker.alive -= 1
        if not linker.alive and linker.count >= _LIBRARIES:
            linker.jit.close()
            _linkers.remove(linker)


@functools.cache
def machine_signature() -> str:
    """What an object depends on besides its text, for cache keys: triple, CPU, features, llvmlite and LLVM versions."""
    import llvmlite

    with _lock:
        llvm = _llvm()
        cpu, features = _host()
        version = ".".join(map(str, llvm.llvm_version_info))
        return f"{llvm.get_process_triple()} {cpu} {features} llvmlite {llvmlite.__version__} llvm {version}"


@functools.cache
def vector_nbytes() -> int:
    """The width of this machine's widest vector registers, at least 32."""
    with _lock:
        return 64 if "+avx512f" in _host()[1].split(",") else 32


@functools.cache
def _llvm() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@functools.cache
def _host() -> tuple[str, str]:
    llvm = _llvm()
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


@functools.cache
def _target_machine(cpu: str, features: str, level: int, bench: int) -> llvm.TargetMachine:
    """One for each bench: they change while they are used."""
    target = _llvm().Target.from_default_triple()
    return target.create_target_machine(cpu=cpu, features=features, opt=level, reloc="pic", codemodel="default")


@contextmanager
def _bench() -> Iterator[int]:
    """The number of a bench that nobody else works at."""
    taken = next((i for i, lock in enumerate(_benches) if lock.acquire(blocking=False)), None)
    if taken is None:
        taken = 0
        _benches[0].acquire()
    try:
        yield taken
    finally:
        _benches[taken].release()


@functools.cache
def _emit() -> Any:
    ffi = _llvm().ffi
    function = ctypes.CDLL(ffi.lib._name).LLVMPY_TargetMachineEmitToMemory
    function.argtypes = [ffi.LLVMTargetMachineRef, ffi.LLVMModuleRef, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
    function.restype = ffi.LLVMMemoryBufferRef
    return function


def _emitted(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> bytes:
    """What ``machine.emit_object(module)`` gives, while others may do the same."""
    ffi = _llvm().ffi
    with ffi.OutputString() as message:
        buffer = _emit()(machine, module, 1, message)
        if not buffer:
            raise RuntimeError(str(message))
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def _run_lean_passes(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    llvm = _llvm()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1))
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, builder)
