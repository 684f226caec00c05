"""Hand-built kernels through LLVM, compared bit for bit with NumPy or a plain Python rendering of the definition."""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Iterable

import numpy as np
import pytest

from graphc import dtypes
from graphc.codegen.llvm.program import FIRST_SLOT, Launch, Slot, render_program
from graphc.codegen.llvm.render import render
from graphc.codegen.llvm.target import host_lanes
from graphc.codegen.python import run
from graphc.dims import Dim, Size, minimum
from graphc.dtypes import DType, bool_, float32, float64, int32, int64
from graphc.errors import IRError
from graphc.ir.loops import (
    Acc,
    Alloc,
    Call,
    Check,
    Const,
    Expr,
    For,
    Index,
    Kernel,
    Let,
    Load,
    Param,
    Stmt,
    Store,
    Update,
    Var,
    identity,
)
from graphc.runtime.link import assemble, link

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
            text = render_program([Launch(name, arguments)], {name: kernel}, lanes)
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


# ---- pointwise -----------------------------------------------------------------------------------------------------


def pointwise(
    name: str, extent: Size, inputs: list[DType], out: DType, value: Expr, sizes: tuple[str, ...] = ()
) -> Kernel:
    """out[i] = value, where value reads inputs x0, x1 ... at i."""
    params = [Param(f"x{k}", "in", dtype, extent) for k, dtype in enumerate(inputs)]
    params += [Param("out", "out", out, extent), *(Param(s, "size", int64) for s in sizes)]
    return Kernel(name, tuple(params), (loop("i", extent, "vector", Store("out", sym("i"), value)),))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", [float32, float64, int32, int64], ids=str)
def test_pointwise_sizes(lanes: int, dtype: DType) -> None:
    i = sym("i")
    value = fn(
        "add", fn("mul", load("x0", i, dtype), load("x1", i, dtype)), fn("max", load("x0", i, dtype), Const(3, dtype))
    )
    module = Module([pointwise("dynamic", sym("n"), [dtype, dtype], dtype, value, ("n",))], lanes)
    static = [1, 2, 3, 5, 7, 8, 11, 15, 16, 17, 31, 33, 70]
    fixed = Module([pointwise(f"static{n}", n, [dtype, dtype], dtype, value) for n in static], lanes)
    for n in range(71):
        a, b = sample(n, dtype, 1), sample(n, dtype, 2)
        expected = a * b + np.maximum(a, dtype.numpy.type(3))
        whole, out = guarded(n, dtype)
        assert module("dynamic", a, b, whole, n) == 0
        same_bits(out, expected)
        intact(whole, n)
        if n in static:
            whole, out = guarded(n, dtype)
            fixed(f"static{n}", a, b, whole)
            same_bits(out, expected)
            intact(whole, n)


# ---- reductions ----------------------------------------------------------------------------------------------------

FOLDS = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "max": lambda a, b: np.where(np.isnan(a), a, np.where(a > b, a, b)),
    "min": lambda a, b: np.where(np.isnan(a), a, np.where(a < b, a, b)),
    "or": lambda a, b: a | b,
    "and": lambda a, b: a & b,
}
REDUCED = [0, 1, 2, 8, 9, 10, 31, 32, 33, 64, 100, 4095, 4096, 4097, 8192, 10000]


def tree(values: np.ndarray, name: str, dtype: DType) -> np.ndarray:
    """The documented reduction order, written plainly."""
    fold = FOLDS[name]
    start = np.asarray(identity(name, dtype).value, dtype.numpy)
    total = start
    for block in range(0, len(values), 4096):
        part = values[block : block + 4096]
        lanes = np.full(32, start)
        for k in range(0, len(part), 32):
            row = part[k : k + 32]
            lanes[: len(row)] = fold(lanes[: len(row)], row)
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = fold(lanes[:half], lanes[half:])
        total = lanes[0] if block == 0 else fold(total, lanes[0])
    return np.asarray(total, dtype.numpy).reshape(1)


def reduction(name: str, extent: Size, dtype: DType, fold: str, *, squares: bool = False) -> Kernel:
    """out[0] = fold of x; with `squares` the second accumulator folds x*x into out[1], and y[i] = -x[i] is stored."""
    i, x = sym("i"), load("x", sym("i"), dtype)
    body: list[Stmt] = [Update("total", x)]
    before: list[Stmt] = [Acc("total", fold, dtype)]
    after: list[Stmt] = [Store("out", 0, Var("total", dtype))]
    params = [Param("x", "in", dtype, extent), Param("out", "out", dtype, 2)]
    if squares:
        body = [
            Let("v", x),
            Update("total", Var("v", dtype)),
            Update("second", fn("mul", Var("v", dtype), Var("v", dtype))),
            Store("y", i, fn("neg", Var("v", dtype))),
        ]
        before.append(Acc("second", "add", dtype))
        after.append(Store("out", 1, Var("second", dtype)))
        params.append(Param("y", "out", dtype, extent))
    if not isinstance(extent, int):
        params.append(Param("n", "size", int64))
    return Kernel(name, tuple(params), (*before, loop("i", extent, "lanes", *body), *after))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(
    "dtype, fold",
    [
        (float32, "add"),
        (float64, "add"),
        (float32, "max"),
        (float32, "min"),
        (float32, "mul"),
        (int32, "add"),
        (int64, "max"),
        (bool_, "or"),
        (bool_, "and"),
    ],
    ids=lambda p: str(p),
)
def test_reduction_order(lanes: int, dtype: DType, fold: str) -> None:
    module = Module(
        [reduction("dynamic", sym("n"), dtype, fold), *(reduction(f"static{n}", n, dtype, fold) for n in REDUCED)],
        lanes,
    )
    for n in REDUCED:
        x = sample(n, dtype, n)
        if fold == "mul":
            x = (1 + x / 1000).astype(dtype.numpy)
        if n > 40 and dtype.kind == "f" and fold != "add":
            x[37] = np.nan
        expected = tree(x, fold, dtype)
        for name, extra in (("dynamic", (n,)), (f"static{n}", ())):
            out = np.zeros(2, dtype.numpy)
            module(name, x, out, *extra)
            same_bits(out[:1], expected)


@pytest.mark.parametrize("lanes", LANES)
def test_reduction_with_two_accumulators_and_a_store(lanes: int) -> None:
    kernels = [reduction("dynamic", sym("n"), float32, "add", squares=True)]
    kernels += [reduction(f"static{n}", n, float32, "add", squares=True) for n in REDUCED]
    module = Module(kernels, lanes)
    for n in REDUCED:
        x = sample(n, float32, n)
        for name, extra in (("dynamic", (n,)), (f"static{n}", ())):
            out = np.zeros(2, np.float32)
            whole, y = guarded(n, float32)
            module(name, x, out, whole, *extra)
            same_bits(out, np.concatenate([tree(x, "add", float32), tree(x * x, "add", float32)]))
            same_bits(y, -x)
            intact(whole, n)


def test_sum_of_negative_zeros_is_positive_zero() -> None:
    module = Module([reduction("short", 3, float32, "add"), reduction("dynamic", sym("n"), float32, "add")], 8)
    for name, extra in (("short", ()), ("dynamic", (3,))):
        out = np.ones(2, np.float32)
        module(name, np.full(3, -0.0, np.float32), out, *extra)
        same_bits(out[:1], np.zeros(1, np.float32))


@pytest.mark.parametrize("lanes", LANES)
def test_row_softmax_shape(lanes: int) -> None:
    """Rows over threads: a maximum, then a vector loop that uses it and a scratch row, then a sum of the scratch."""
    i, j, n = sym("i"), sym("j"), 37
    at = i * n + j
    body = (
        Alloc("row", float32, n),
        Acc("top", "max", float32),
        loop("j", n, "lanes", Update("top", load("x", at))),
        loop("j", n, "vector", Store("row", j, fn("sub", load("x", at), Var("top", float32)))),
        Acc("total", "add", float32),
        loop("j", n, "lanes", Update("total", load("row", j))),
        loop("j", n, "vector", Store("out", at, fn("div", load("row", j), Var("total", float32)))),
    )
    rows = sym("m")
    kernel = Kernel(
        "softmax",
        (Param("x", "in", float32, rows * n), Param("out", "out", float32, rows * n), Param("m", "size", int64)),
        (loop("i", rows, "parallel", *body),),
        grain=2,
    )
    module = Module([kernel], lanes)
    for m in (0, 1, 2, 5, 40):
        x = sample(m * n, float32, m).reshape(m, n)
        whole, out = guarded(m * n, float32)
        module("softmax", x, whole, m, threads=3)
        shifted = x - x.max(axis=1, keepdims=True) if m else x
        totals = np.concatenate([tree(row, "add", float32) for row in shifted] or [np.zeros(0, np.float32)])
        same_bits(out, (shifted / totals[:, None]).reshape(-1))
        intact(whole, m * n)
    assert chunk_counts[-1] == 12 and 3 in chunk_counts


# ---- scalar functions, against the Python renderer -----------------------------------------------------------------

SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1.5,
    2.5,
    -2.5,
    3.7,
    -3.7,
    127.5,
    128.0,
    255.5,
    256.0,
    -129.0,
    1e-40,
    -1e-40,
    1e-45,
    3e38,
    1e10,
    -1e10,
    65504.0,
    65520.0,
    6e-8,
    2.0**31,
    2.0**63,
    -(2.0**63),
    2.0**64,
    1e300,
    np.inf,
    -np.inf,
    np.nan,
    1.00390625,
    1.01171875,
]


def special(dtype: DType) -> np.ndarray:
    """Values at which conversions and comparisons go wrong."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.array(SPECIAL, np.float64).astype(dtype.numpy)
    if dtype.kind == "b":
        return np.arange(34) % 3 == 0
    info = np.iinfo(dtype.numpy)
    near = [info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 3, 7, 100]
    near += [-1, -2, -7, -100] if dtype.kind == "i" else [11, 12, 13, 14]
    return np.resize(np.array(near, dtype.numpy), 34)


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


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("source", dtypes.ALL, ids=lambda d: d.name)
def test_casts(lanes: int, source: DType) -> None:
    """One kernel casts to every dtype."""
    i, count = sym("i"), 34
    params = [Param("x", "in", source, count), *(Param(d.name, "out", d, count) for d in dtypes.ALL)]
    stores = [Store(d.name, i, Call("cast", (load("x", i, source),), d)) for d in dtypes.ALL]
    kernel = Kernel("casts", tuple(params), (loop("i", count, "vector", *stores),))
    against_python([kernel], lanes, {"casts": {"x": special(source)}})


@pytest.mark.parametrize("dtype", [d for d in dtypes.ALL if d.compute is d], ids=lambda d: d.name)
def test_functions(dtype: DType) -> None:
    """All functions that a dtype has, on every pair of special values."""
    i, n = sym("i"), 34 * 34
    a, b = load("a", i, dtype), load("b", i, dtype)
    arithmetic = ["add", "sub", "mul"] if dtype.kind != "b" else []
    binary = arithmetic + ["max", "min"] + (["div", "copysign"] if dtype.kind == "f" else ["and", "or", "xor"])
    unary = {
        "f": ["neg", "abs", "sqrt", "floor", "ceil", "trunc", "round"],
        "i": ["neg", "abs", "not", "round"],
        "u": ["not"],
        "b": ["not"],
    }
    values = {name: fn(name, a, b) for name in binary}
    values |= {name: fn(name, a) for name in unary[dtype.kind]}
    values |= {name: fn(name, a, b, dtype=bool_) for name in ("eq", "ne", "lt", "le", "gt", "ge")}
    values["select"] = fn("select", fn("lt", a, b, dtype=bool_), a, b)
    if dtype.kind == "f":
        values["fma"] = fn("fma", a, b, a)
    if dtype.kind in "iu":
        one, width = Const(1, dtype), Const(8 * dtype.itemsize - 1, dtype)
        values["idiv"] = fn("idiv", a, fn("select", fn("eq", b, Const(0, dtype), dtype=bool_), one, b))
        values["shl"], values["shr"] = fn("shl", a, fn("and", b, width)), fn("shr", a, fn("and", b, width))
    outs = {name: Param(f"out_{name}", "out", value.dtype, n) for name, value in values.items()}
    params = (Param("a", "in", dtype, n), Param("b", "in", dtype, n), *outs.values())
    kernel = Kernel(
        "functions", params, (loop("i", n, "vector", *(Store(f"out_{k}", i, v) for k, v in values.items())),)
    )
    x = special(dtype)
    against_python([kernel], 8, {"functions": {"a": np.repeat(x, 34), "b": np.tile(x, 34)}})


def test_bitcast_and_unknown_function() -> None:
    i = sym("i")
    to_float = pointwise("to_float", 11, [int32], float32, Call("bitcast", (load("x0", i, int32),), float32))
    to_unsigned = pointwise(
        "to_unsigned", 11, [float64], dtypes.uint64, Call("bitcast", (load("x0", i, float64),), dtypes.uint64)
    )
    against_python(
        [to_float, to_unsigned], 8, {"to_float": {"x0": sample(11, int32)}, "to_unsigned": {"x0": sample(11, float64)}}
    )
    with pytest.raises(IRError, match="exp is not a primitive"):
        Module([pointwise("bad", 4, [float32], float32, fn("exp", load("x0", i)))], 8)


@pytest.mark.parametrize("lanes", LANES)
def test_idiv_by_zero_in_masked_lanes_does_not_trap(lanes: int) -> None:
    value = fn("idiv", load("x0", sym("i"), int32), load("x1", sym("i"), int32))
    module = Module([pointwise("divide", sym("n"), [int32, int32], int32, value, ("n",))], lanes)
    x, y, out = sample(5, int32), np.full(5, 3, np.int32), np.zeros(5, np.int32)
    module("divide", x, y, out, 5)
    same_bits(out, np.trunc(x / 3).astype(np.int32))


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


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF objects")
@pytest.mark.parametrize("cpu", [None, "x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("lanes", LANES)
def test_no_library_calls(lanes: int, cpu: str | None) -> None:
    """Casts, rounding, division and 16-bit floats of every width become instructions."""
    i, n = sym("i"), sym("n")
    params, stores = [Param("n", "size", int64)], []
    for source in dtypes.ALL:
        params.append(Param(f"x_{source.short}", "in", source, n))
        for target in dtypes.ALL:
            params.append(Param(f"{source.short}_{target.short}", "out", target, n))
            stores.append(
                Store(
                    f"{source.short}_{target.short}", i, Call("cast", (load(f"x_{source.short}", i, source),), target)
                )
            )
    for dtype in (float32, float64):
        for name in ("sqrt", "floor", "ceil", "trunc", "round", "abs", "fma"):
            x = load(f"x_{dtype.short}", i, dtype)
            stores.append(Store(f"{dtype.short}_{dtype.short}", i, fn(name, *[x] * (3 if name == "fma" else 1))))
    for dtype in (dtypes.int8, int32, int64, dtypes.uint64):
        x = load(f"x_{dtype.short}", i, dtype)
        stores.append(Store(f"{dtype.short}_{dtype.short}", i, fn("idiv", x, fn("or", x, Const(1, dtype)))))
    text = render(Kernel("everything", tuple(params), (loop("i", n, "vector", *stores),)), lanes)
    code = assemble(text.replace("define internal", "define"), cpu=cpu)
    assert undefined_symbols(code) <= {"memset", "memcpy"}


# ---- memory: gathers, strides, flips -------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", [float32, bool_, dtypes.float16, float64], ids=lambda d: d.name)
def test_strided_flipped_and_reshaped(lanes: int, dtype: DType) -> None:
    """Loads and stores whose offset is 3i, n-1-i, or a function of i // 5 and i % 5; static and dynamic extents."""
    for n in (1, 5, 8, 15, 30, 35):
        for extent in (n, sym("n")):
            i = Dim.symbol("i", below=extent)
            kernel = Kernel(
                "moves",
                (
                    Param("x", "in", dtype, 3 * extent),
                    Param("strided", "out", dtype, 3 * extent),
                    Param("flipped", "out", dtype, extent),
                    Param("unflipped", "out", dtype, extent),
                    Param("shuffled", "out", dtype, 3 * extent),
                    Param("n", "size", int64),
                ),
                (
                    loop(
                        "i",
                        extent,
                        "vector",
                        Store("strided", 3 * i + 1, load("x", i, dtype)),
                        Store("flipped", i, load("x", extent - 1 - i, dtype)),
                        Store("unflipped", extent - 1 - i, load("x", 2 * i, dtype)),
                        Store("shuffled", (i % 5) + 5 * (i // 5), load("x", i // 5 + 2 * (i % 5), dtype)),
                    ),
                ),
            )
            x = np.resize(sample(90, dtype), max(3 * n, 16))
            outs = [np.zeros(3 * n + 64, dtype.numpy) for _ in range(4)]
            theirs = {
                "x": x,
                **{k: np.zeros(3 * n + 64, dtype.numpy) for k in ("strided", "flipped", "unflipped", "shuffled")},
            }
            assert Module([kernel], lanes)("moves", x, *outs, n) == run(kernel, theirs, {"n": n}) == 0
            for out, name in zip(outs, ("strided", "flipped", "unflipped", "shuffled"), strict=True):
                same_bits(out, theirs[name])


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("static", [False, True])
def test_gather_with_check(lanes: int, static: bool) -> None:
    """out[i] = table[clamped index[i] * 3 + 1], with a Check of the index."""
    for count in (1, 7, 16, 37):
        extent: Size = count if static else sym("n")
        i, raw = sym("i"), Var("raw", int64)
        inside = fn("and", fn("ge", raw, Const(0, int64), dtype=bool_), fn("lt", raw, Const(20, int64), dtype=bool_))
        body = (
            Let("raw", load("index", i, int64)),
            Check(inside, 5),
            Let("at", fn("max", fn("min", raw, Const(19, int64)), Const(0, int64))),
            Store("out", i, load("table", 3 * sym("at") + 1)),
        )
        kernel = Kernel(
            "gather",
            (
                Param("index", "in", int64, extent),
                Param("table", "in", float32, 60),
                Param("out", "out", float32, extent),
                Param("n", "size", int64),
            ),
            (loop("i", extent, "vector", *body),),
        )
        module = Module([kernel], lanes)
        table, rng = sample(60, float32), np.random.default_rng(count)
        index = rng.integers(0, 20, count)
        whole, out = guarded(count, float32)
        assert module("gather", index, table, whole, count) == 0
        same_bits(out, table[3 * index + 1])
        intact(whole, count)
        index[count // 2] = 99
        assert module("gather", index, table, whole, count) == 5
        same_bits(out, table[3 * np.clip(index, 0, 19) + 1])


@pytest.mark.parametrize("lanes", LANES)
def test_narrow_integer_let_as_index(lanes: int) -> None:
    i = sym("i")
    body = (Let("at", load("index", i, int32)), Store("out", i, load("table", sym("at") + i)))
    kernel = Kernel(
        "k",
        (Param("index", "in", int32, 13), Param("table", "in", float32, 40), Param("out", "out", float32, 13)),
        (loop("i", 13, "vector", *body),),
    )
    against_python(
        [kernel], lanes, {"k": {"index": np.arange(13, dtype=np.int32)[::-1] * 2, "table": sample(40, float32)}}
    )


@pytest.mark.parametrize("lanes", LANES)
def test_index_values(lanes: int) -> None:
    i, n = Dim.symbol("i", below=sym("n")), sym("n")
    for size in (i, 3 * i + 2, i * i, i // 3, (i + 1) % 4, minimum(i, 9), n - i, (i - 7) // 4, (i - 7) % 4, i * n):
        kernel = Kernel(
            "k",
            (Param("a", "out", int64, n), Param("b", "out", int32, n), Param("n", "size", int64)),
            (loop("i", n, "vector", Store("a", i, Index(size)), Store("b", i, Index(size, int32))),),
        )
        module = Module([kernel], lanes)
        for count in (1, 3, 19):
            ours, theirs = ([np.zeros(count, np.int64), np.zeros(count, np.int32)] for _ in range(2))
            module("k", *ours, count)
            run(kernel, {"a": theirs[0], "b": theirs[1]}, {"n": count})
            same_bits(ours[0], theirs[0])
            same_bits(ours[1], theirs[1])


def test_empty_sizes_do_not_trap_or_read() -> None:
    """A division by an empty size may be moved out of the loop that never runs."""
    i, n, m = sym("i"), sym("n"), sym("m")
    kernel = Kernel(
        "k",
        (
            Param("x", "in", float32, n),
            Param("out", "out", float32, n),
            Param("n", "size", int64),
            Param("m", "size", int64),
        ),
        (loop("i", n, "serial", Store("out", i, load("x", m // n))),),
    )
    assert Module([kernel], 8)("k", 0, 0, 0, 5) == 0


# ---- nests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", LANES)
def test_column_reduction_in_scratch(lanes: int) -> None:
    i, j, n = sym("i"), sym("j"), sym("n")
    width = 21
    body = (
        Alloc("column", float32, width),
        loop("j", width, "vector", Store("column", j, Const(0.0, float32))),
        loop(
            "i",
            n,
            "serial",
            loop("j", width, "vector", Store("column", j, fn("add", load("column", j), load("x", i * width + j)))),
        ),
        loop("j", width, "vector", Store("out", j, load("column", j))),
    )
    kernel = Kernel(
        "columns",
        (Param("x", "in", float32, n * width), Param("out", "out", float32, width), Param("n", "size", int64)),
        body,
    )
    module = Module([kernel], lanes)
    for rows in (0, 1, 50):
        x = sample(rows * width, float32).reshape(rows, width)
        whole, out = guarded(width, float32)
        module("columns", x, whole, rows)
        expected = np.zeros(width, np.float32)
        for row in x:
            expected = expected + row
        same_bits(out, expected)
        intact(whole, width)


def matmul(rows: int, columns: int, depth: Size) -> Kernel:
    """c[rows, columns] = a[rows, depth] @ b[depth, columns], the whole of c in registers."""
    r, j, k = sym("r"), sym("j"), sym("k")
    at = r * columns + j
    tile = loop(
        "j",
        columns,
        "tile",
        Store("acc", at, fn("fma", load("a", r * depth + k), load("b", k * columns + j), load("acc", at))),
    )
    body = (
        Alloc("acc", float32, rows * columns, "registers"),
        loop("r", rows, "unroll", loop("j", columns, "tile", Store("acc", at, Const(0.0, float32)))),
        loop("k", depth, "serial", loop("r", rows, "unroll", tile)),
        loop("r", rows, "unroll", loop("j", columns, "tile", Store("c", at, load("acc", at)))),
    )
    params = (
        Param("a", "in", float32, rows * depth),
        Param("b", "in", float32, depth * columns),
        Param("c", "out", float32, rows * columns),
    )
    return Kernel("matmul", params + (() if isinstance(depth, int) else (Param("K", "size", int64),)), body)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("rows, columns", [(6, 16), (3, 21), (1, 1)])
def test_matmul_register_tile(lanes: int, rows: int, columns: int) -> None:
    depth = 9
    a, b = sample(rows * depth, float32, 1), sample(depth * columns, float32, 2)
    expected = np.zeros(rows * columns, np.float32)
    run(matmul(rows, columns, depth), {"a": a, "b": b, "c": expected}, {})
    for kernel, extra in ((matmul(rows, columns, depth), ()), (matmul(rows, columns, sym("K")), (depth,))):
        whole, out = guarded(rows * columns, float32)
        Module([kernel], lanes)("matmul", a, b, whole, *extra)
        same_bits(out, expected)
        intact(whole, rows * columns)


@pytest.mark.parametrize("lanes", LANES)
def test_scratch_read_after_each_write(lanes: int) -> None:
    """A uniform load of scratch inside a loop is not taken for invariant when an outer loop writes it."""
    i, j = sym("i"), sym("j")
    body = (
        Alloc("one", float32, 1),
        loop(
            "i",
            5,
            "serial",
            Store("one", 0, load("x", i)),
            loop("j", 9, "vector", Store("out", i * 9 + j, fn("add", load("one", 0), load("x", j)))),
            Store("one", 0, fn("mul", load("one", 0), load("one", 0))),
            Store("last", i, load("one", 0)),
        ),
    )
    kernel = Kernel(
        "k", (Param("x", "in", float32, 9), Param("out", "out", float32, 45), Param("last", "out", float32, 5)), body
    )
    against_python([kernel], lanes, {"k": {"x": sample(9, float32)}})


# ---- programs ------------------------------------------------------------------------------------------------------


def chunked(name: str, value: Expr, grain: int) -> Kernel:
    """out[i] = value for i < n, 16 elements to a parallel iteration."""
    n, start = sym("n"), sym("c") * 16
    inner = loop("i", minimum(16, n - start), "vector", Store("out", start + sym("i"), value))
    return Kernel(
        name,
        (Param("x", "in", float32, n), Param("out", "out", float32, n), Param("n", "size", int64)),
        (loop("c", (n + 15) // 16, "parallel", inner),),
        grain,
    )


@pytest.mark.parametrize("lanes", LANES)
def test_program_of_three_launches(lanes: int) -> None:
    x = load("x", sym("c") * 16 + sym("i"))
    kernels = {"twice": chunked("twice", fn("add", x, x), 2), "square": chunked("square", fn("mul", x, x), 10**9)}
    a, b, c, d, size = (Slot(FIRST_SLOT + k) for k in range(5))
    launches = [Launch("twice", (a, b, size)), Launch("square", (b, c, 100)), Launch("twice", (c, d, size))]
    text = render_program(launches, kernels, lanes)
    assert text.count("define internal void @twice(") == 1
    entry = MAIN(link(assemble(text), ["graphc_main"])["graphc_main"])
    chunk_counts.clear()
    arrays = [sample(100, float32), *(np.zeros(100, np.float32) for _ in range(3))]
    assert call(entry, *arrays, 100, threads=3) == 0
    same_bits(arrays[3], 2 * (2 * arrays[0]) ** 2)
    assert chunk_counts == [4, 4]  # seven iterations, two to a chunk; the static one is below its grain


def test_program_stops_at_a_failed_check() -> None:
    positive = Kernel(
        "positive",
        (Param("x", "in", float32, 20),),
        (loop("i", 20, "vector", Check(fn("gt", load("x", sym("i")), Const(0.0, float32), dtype=bool_), 3)),),
    )
    copy = pointwise("copy", 20, [float32], float32, load("x0", sym("i")))
    x, out = Slot(FIRST_SLOT), Slot(FIRST_SLOT + 1)
    text = render_program([Launch("positive", (x,)), Launch("copy", (x, out))], {"positive": positive, "copy": copy}, 8)
    entry = MAIN(link(assemble(text), ["graphc_main"])["graphc_main"])
    data, copied = np.arange(1, 21, dtype=np.float32), np.zeros(20, np.float32)
    assert call(entry, data, copied) == 0
    same_bits(copied, data)
    data[19], copied[:] = -1, 0
    assert call(entry, data, copied) == 3
    assert not copied.any()


def test_program_refuses_arguments_that_do_not_fit() -> None:
    copy = pointwise("copy", 20, [float32], float32, load("x0", sym("i")))
    with pytest.raises(IRError, match="1 arguments for 2 parameters"):
        render_program([Launch("copy", (Slot(2),))], {"copy": copy}, 8)
    with pytest.raises(IRError, match="buffer out needs a slot"):
        render_program([Launch("copy", (Slot(2), 3))], {"copy": copy}, 8)


def test_broken_kernels_are_refused() -> None:
    inner = loop("j", 4, "vector", Store("out", sym("j"), Const(0.0, float32)))
    out = (Param("out", "out", float32, 4),)
    for body, message in (
        ((loop("i", 16, "vector", inner),), "inside a vector loop"),
        ((loop("i", 16, "vector", Alloc("s", float32, 4)),), "inside a vector loop"),
        ((loop("i", sym("n"), "unroll", inner),), "static extent"),
    ):
        with pytest.raises(IRError, match=message):
            Module([Kernel("k", out, body)], 8)
    with pytest.raises(IRError, match="outside its lanes loop"):
        Module([Kernel("k", out, (Acc("a", "add", float32), Update("a", Const(0.0, float32))))], 8)


def test_host_lanes() -> None:
    assert host_lanes() in LANES
