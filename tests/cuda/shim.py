"""Compiles rendered kernels with g++ and runs them on the CPU under cuda_on_cpu.h."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from graphc.codegen.cuda.mapping import map_kernel
from graphc.dims import evaluate
from graphc.ir.loops import For, Kernel

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
        pytest.skip("g++ not found")
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
        self.pointer = ctypes.c_void_p(self.raw.ctypes.data + self.start)

    def check(self, name: str) -> None:
        """Raises KernelFailure if a byte of the margins was written."""
        if not ((self.raw[: self.start] == 0xFF).all() and (self.raw[self.end :] == 0xFF).all()):
            raise KernelFailure(f"a write outside of buffer {name}")


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
    (loop,) = kernel.body
    assert isinstance(loop, For)
    extent = evaluate(loop.extent, sizes)
    guarded = {p.name: Guarded(buffers[p.name], skew) for p in kernel.params if p.role != "size"}
    guarded |= {name: guarded[other] for name, other in (same or {}).items()}
    status = (ctypes.c_longlong * 1)(0)
    arguments = [
        ctypes.c_longlong(sizes[p.name]) if p.role == "size" else guarded[p.name].pointer for p in kernel.params
    ] + [ctypes.c_void_p(ctypes.addressof(status)), ctypes.c_longlong(extent)]  # fmt: skip
    pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
    (blocks, across), block = map_kernel(kernel).launch(extent, sizes, PROCESSORS)
    grid = (-(-blocks // 2), across)  # half of what it asks for, so that the grid strides
    launch = getattr(library, f"launch_{kernel.name}")
    launch.restype = ctypes.c_char_p
    found = launch(pointers, (ctypes.c_uint * 2)(*grid), (ctypes.c_uint * 2)(*block), ctypes.c_int(schedule))
    if found is not None:
        raise KernelFailure(f"{kernel.name}, schedule {schedule}: {found.decode()}")
    for name, buffer in guarded.items():
        buffer.check(name)
    return {name: buffer.array.reshape(buffers[name].shape) for name, buffer in guarded.items()}, status[0]
