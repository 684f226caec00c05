"""Kernels by hand, compiled and run through LLVM: what the tests of the LLVM renderer share."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable

import numpy as np

from graphc.codegen.llvm.program import Launch, Slot, render_program
from graphc.codegen.python import run
from graphc.dims import Dim, Size
from graphc.dtypes import DType, float32, int64
from graphc.ir.loops import (
    FIRST_SLOT,
    Call,
    Expr,
    For,
    Kernel,
    Load,
    Param,
    Stmt,
    Store,
)
from graphc.runtime.link import assemble, link, vector_nbytes

LANES = (4, 8, 16)
POOL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
CHUNK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
MAIN = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
chunk_counts: list[int] = []


@POOL
def backward_pool(_pool: int, function: int, data: int, chunks: int) -> None:
    """A pool of one thread that takes the chunks last to first."""
    chunk_counts.append(chunks)
    for chunk in reversed(range(chunks)):
        CHUNK(function)(data, chunk, chunks)


class Module:
    """Kernels compiled together; each may then be run on its own."""

    def __init__(self, kernels: Iterable[Kernel], lanes: int) -> None:
        self.kernels = {k.name: k for k in kernels}
        self.entries = {}
        for name, kernel in self.kernels.items():
            arguments = tuple(Slot(FIRST_SLOT + i) for i in range(len(kernel.params)))
            text = render_program([Launch(name, arguments)], {name: kernel}, lanes, scales=vector_nbytes() == 64)
            self.entries[name] = MAIN(link(assemble(text), ["graphc_main"])["graphc_main"])

    def __call__(self, name: str, *arguments: np.ndarray | int, threads: int = 1) -> int:
        return call(self.entries[name], *arguments, threads=threads)


def call(entry: object, *arguments: np.ndarray | int, threads: int = 1) -> int:
    """Run a program on a table of `arguments`; the status word."""
    status = ctypes.c_int64(0)
    values = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    table = (ctypes.c_int64 * (FIRST_SLOT + len(values)))(ctypes.addressof(status), threads, *values)
    result = entry(ctypes.addressof(table), ctypes.cast(backward_pool, ctypes.c_void_p), None)  # type: ignore[operator]
    assert result == status.value
    return result


def sym(name: str) -> Dim:
    return Dim.symbol(name)


def load(buffer: str, offset: Size, dtype: DType = float32) -> Load:
    return Load(buffer, offset, dtype)


def fn(name: str, *args: Expr, dtype: DType | None = None) -> Call:
    return Call(name, args, dtype or args[-1].dtype)


def loop(var: str, extent: Size, kind: str, *body: Stmt) -> For:
    return For(var, extent, kind, body)  # type: ignore[arg-type]


def same_bits(a: np.ndarray, b: np.ndarray) -> None:
    """Equal, sign of zero included; any NaN equals any NaN."""
    assert a.dtype == b.dtype and a.shape == b.shape
    if a.dtype.kind in "fV":
        nan = np.isnan(a.astype(np.float64))
        np.testing.assert_array_equal(nan, np.isnan(b.astype(np.float64)))
        a, b = (np.where(nan, np.zeros((), x.dtype), x) for x in (a, b))
    np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8))


def sample(count: int, dtype: DType, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.kind == "b":
        return rng.integers(0, 2, count).astype(bool)
    if dtype.kind in "iu":
        return rng.integers(0 if dtype.kind == "u" else -100, 100, count).astype(dtype.numpy)
    return (rng.standard_normal(count) * 10).astype(dtype.numpy)


def guarded(count: int, dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    """An output of `count` elements followed by some that must stay as they are."""
    whole = np.full(count + 64, 7, dtype.numpy)
    return whole, whole[:count]


def intact(whole: np.ndarray, count: int) -> None:
    same_bits(whole[count:], np.full(len(whole) - count, 7, whole.dtype))


def pointwise(name: str, extent: Size, inputs: list[DType], out: DType, value: Expr, sizes: tuple[str, ...] = ()) -> Kernel:
    """out[i] = value, where value reads inputs x0, x1 ... at i."""
    params = [Param(f"x{k}", "in", dtype, extent) for k, dtype in enumerate(inputs)]
    params += [Param("out", "out", out, extent), *(Param(s, "size", int64) for s in sizes)]
    return Kernel(name, tuple(params), (loop("i", extent, "vector", Store("out", sym("i"), value)),))


def against_python(kernels: list[Kernel], lanes: int, inputs: dict[str, dict[str, np.ndarray]]) -> None:
    """Every kernel, run by LLVM and by the Python renderer on its own inputs, writes the same bits."""
    for kernel in kernels:
        ours = {p.name: inputs[kernel.name].get(p.name, np.zeros(int(p.size), p.dtype.numpy)) for p in kernel.params}  # type: ignore[call-overload]
        theirs = {name: array.copy() for name, array in ours.items()}
        status = Module([kernel], lanes)(kernel.name, *ours.values())
        assert status == run(kernel, theirs, {}), kernel.name
        for p in kernel.params:
            if p.role != "in":
                same_bits(ours[p.name], theirs[p.name])


def undefined_symbols(code: bytes) -> set[str]:
    """The names that a 64-bit little-endian ELF object leaves to the linker."""
    at, size, count = struct.unpack_from("<Q", code, 40)[0], *struct.unpack_from("<HH", code, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, at + size * k) for k in range(count)]
    (_, _, _, _, start, length, names, _, _, _) = next(s for s in sections if s[1] == 2)
    found = set()
    for symbol in range(start + 24, start + length, 24):
        name, _, _, section = struct.unpack_from("<IBBH", code, symbol)
        text = code[sections[names][4] + name :]
        if section == 0:
            found.add(text[: text.index(0)].decode())
    return found
