"""Compiles rendered kernels with g++ and runs them on the CPU under cuda_on_cpu.h."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cuda.absent import absent
from graphc.codegen.cuda.mapping import map_kernel, parallel_extent
from graphc.codegen.cuda.program import Program
from graphc.dims import evaluate
from graphc.ir.loops import Kernel
from graphc.runtime.plan import Plan

HERE = Path(__file__).parent
SHIM = HERE / "cuda_on_cpu.h"
FLAGS = (
    *("-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE"),
    *(
        "-Wall",
        "-Werror",
        "-Wno-unknown-pragmas",
        "-Wno-unused-function",
        "-Wno-unused-variable",
        "-Wno-maybe-uninitialized",
    ),
    "-fsanitize=alignment,bounds,shift,integer-divide-by-zero,signed-integer-overflow",
    "-fsanitize-undefined-trap-on-error",
)
SCHEDULES = (0, 1)  # forwards, backwards
PROCESSORS = 2  # of the pretended device
MARGIN = 256  # bytes around every buffer that must stay as they were


class KernelFailure(AssertionError):
    """What the shim found: a barrier not met by all, a wild address, undefined behaviour, a write outside a buffer."""


def build(source: str, names: list[str], cache: Path) -> ctypes.CDLL:
    """The shared library of `source`, compiled unless `cache` holds it; `names`: its kernels."""
    compiler = shutil.which("g++")
    if compiler is None:
        absent("g++", "it compiles rendered CUDA for the CPU")
    text = "#define GRAPHC_CPU_SHIM\n" + source + "\n".join(f"CUDA_ON_CPU_ENTRY({name})" for name in names) + "\n"
    key = hashlib.sha256("\0".join((text, SHIM.read_text(), *FLAGS)).encode()).hexdigest()[:24]
    library = cache / f"{key}.so"
    if not library.exists():
        unfinished = cache / f"{key}.{os.getpid()}"
        command = [compiler, *FLAGS, f"-I{HERE}", "-x", "c++", "-", "-o", str(unfinished)]
        done = subprocess.run(command, input=text, text=True, capture_output=True)
        if done.returncode:
            raise AssertionError(f"g++: {done.stderr[:4000]}")
        os.replace(unfinished, library)
    return ctypes.CDLL(str(library))


class Guarded:
    """A copy of an array between margins, 16-byte aligned plus `skew` elements."""

    def __init__(self, array: np.ndarray, skew: int = 0) -> None:
        self.raw = np.full(array.nbytes + 2 * MARGIN + 64, 0xFF, np.uint8)
        self.start = MARGIN + (-(self.raw.ctypes.data + MARGIN)) % 16 + skew * array.itemsize
        self.end = self.start + array.nbytes
        self.array = self.raw[self.start : self.end].view(array.dtype)
        self.array[:] = array.reshape(-1)
        self.shape = array.shape
        self.address = self.raw.ctypes.data + self.start

    @property
    def shaped(self) -> np.ndarray:
        """The copy, in the array's shape."""
        return self.array.reshape(self.shape)

    def check(self, name: str) -> None:
        """Raises KernelFailure if a byte of the margins was written."""
        if not ((self.raw[: self.start] == 0xFF).all() and (self.raw[self.end :] == 0xFF).all()):
            raise KernelFailure(f"a write outside of buffer {name}")


def launch(
    library: ctypes.CDLL,
    name: str,
    arguments: Sequence[int],
    grid: tuple[int, int],
    block: tuple[int, int],
    schedule: int,
) -> None:
    """One run of kernel `name` over half of `grid`, so that it strides; raises KernelFailure for what the shim finds.

    `arguments`: addresses and i64 values, 8 bytes each.
    """
    values = (ctypes.c_longlong * len(arguments))(*arguments)
    pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(values) + 8 * i for i in range(len(arguments))))
    function = getattr(library, f"launch_{name}")
    function.restype = ctypes.c_char_p
    sizes = [(ctypes.c_uint * 2)(*size) for size in ((-(-grid[0] // 2), grid[1]), block)]
    found = function(pointers, *sizes, ctypes.c_int(schedule))
    if found is not None:
        raise KernelFailure(f"{name}, schedule {schedule}: {found.decode()}")


def run(
    library: ctypes.CDLL,
    kernel: Kernel,
    buffers: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
    schedule: int,
    skew: int = 0,
    same: Mapping[str, str] | None = None,
) -> tuple[dict[str, np.ndarray], int]:
    """(buffers after the kernel, status); `same`: parameters that get the very buffer of another.

    Raises KernelFailure for what the shim finds.
    """
    guarded = {p.name: Guarded(buffers[p.name], skew) for p in kernel.params if p.role != "size"}
    guarded |= {name: guarded[other] for name, other in (same or {}).items()}
    status = (ctypes.c_longlong * 1)(0)
    extent = evaluate(parallel_extent(kernel), sizes)
    grid, block = map_kernel(kernel).launch(extent, sizes, PROCESSORS)
    arguments = [sizes[p.name] if p.role == "size" else guarded[p.name].address for p in kernel.params]
    launch(library, kernel.name, [*arguments, ctypes.addressof(status), extent], grid, block, schedule)
    for name, buffer in guarded.items():
        buffer.check(name)
    return {name: buffer.shaped for name, buffer in guarded.items()}, status[0]


def run_program(
    library: ctypes.CDLL,
    program: Program,
    plan: Plan,
    inputs: Sequence[np.ndarray],
    schedule: int,
    sizes: Mapping[str, int] | None = None,
) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """(outputs, inputs as the program leaves them, status), in buffers laid out by `plan` for `sizes`.

    Raises KernelFailure for what the shim finds.
    """
    sizes, status = sizes or {}, (ctypes.c_longlong * 1)(0)
    held = [Guarded(np.asarray(array)) for array in inputs]
    outputs = [unwritten([evaluate(d, sizes) for d in spec.shape], spec.dtype.numpy) for spec in plan.outputs]
    arena = unwritten([plan.arena_nbytes], np.dtype(np.uint8))
    temporaries = [unwritten([evaluate(nbytes, sizes)], np.dtype(np.uint8)) for nbytes in plan.temporaries]
    table = [ctypes.addressof(status), 0, *(buffer.address for buffer in (*held, *outputs))]
    table += [arena.address + offset for offset in plan.arena_offsets]
    table += [*(buffer.address for buffer in temporaries), *(sizes[name] for name in plan.sizes)]
    for one in program.launches:
        extent, grid, block = one.geometry(sizes, PROCESSORS)
        launch(library, one.function, [*(table[slot] for slot in one.slots), table[0], extent], grid, block, schedule)
        if one.checks and status[0]:
            break
    for number, buffer in enumerate((*held, *outputs, arena, *temporaries)):
        buffer.check(f"{number}: {len(held)} inputs, {len(outputs)} outputs, the arena, {len(temporaries)} temporaries")
    return [buffer.shaped for buffer in outputs], [buffer.shaped for buffer in held], status[0]


def unwritten(shape: list[int], dtype: np.dtype) -> Guarded:
    """A buffer that is NaN until it is written."""
    buffer = Guarded(np.empty(shape, dtype))
    buffer.array.view(np.uint8)[:] = 0xFF
    return buffer
