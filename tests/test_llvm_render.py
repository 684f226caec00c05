"""Scalar functions and memory accesses through LLVM, bit for bit as NumPy and the Python renderer have them."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from graphc import dtypes
from graphc.codegen.llvm.render import render
from graphc.codegen.mathlib import NAMES, expand
from graphc.codegen.python import run
from graphc.dims import Dim, Size, minimum
from graphc.dtypes import DType, bool_, float32, float64, int8, int16, int32, int64, uint8
from graphc.errors import IRError
from graphc.ir.loops import (
    Call,
    Check,
    Const,
    Index,
    Kernel,
    Let,
    Param,
    Store,
    Var,
)
from graphc.runtime.link import assemble
from llvm_kernels import (
    LANES,
    Module,
    against_python,
    fn,
    guarded,
    intact,
    load,
    loop,
    pointwise,
    same_bits,
    sample,
    sym,
    undefined_symbols,
)

# ---- pointwise -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", [float32, float64, int32, int64, int8, uint8, int16], ids=str)
def test_pointwise_sizes(lanes: int, dtype: DType) -> None:
    i = sym("i")
    value = fn("add", fn("mul", load("x0", i, dtype), load("x1", i, dtype)), fn("max", load("x0", i, dtype), Const(3, dtype)))
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


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("source", dtypes.REAL, ids=lambda d: d.name)
def test_casts(lanes: int, source: DType) -> None:
    """One kernel casts to every dtype."""
    i, count = sym("i"), 34
    params = [Param("x", "in", source, count), *(Param(d.name, "out", d, count) for d in dtypes.REAL)]
    stores = [Store(d.name, i, Call("cast", (load("x", i, source),), d)) for d in dtypes.REAL]
    kernel = Kernel("casts", tuple(params), (loop("i", count, "vector", *stores),))
    against_python([kernel], lanes, {"casts": {"x": special(source)}})


@pytest.mark.parametrize("dtype", [d for d in dtypes.REAL if d.compute is d], ids=lambda d: d.name)
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
        sized = fn("select", fn("eq", fn("abs", b), Const(0.0, dtype), dtype=bool_), Const(1.0, dtype), Const(-1.75, dtype))
        most = Const(200.0 if dtype is float32 else 2000.0, dtype)
        whole = fn("min", fn("max", fn("round", a), fn("neg", most)), most)
        values["scale"] = fn("scale", fn("select", fn("ne", a, a, dtype=bool_), a, sized), whole)
    if dtype.kind in "iu":
        one, width = Const(1, dtype), Const(8 * dtype.itemsize - 1, dtype)
        values["idiv"] = fn("idiv", a, fn("select", fn("eq", b, Const(0, dtype), dtype=bool_), one, b))
        values["shl"], values["shr"] = fn("shl", a, fn("and", b, width)), fn("shr", a, fn("and", b, width))
    outs = {name: Param(f"out_{name}", "out", value.dtype, n) for name, value in values.items()}
    params = (Param("a", "in", dtype, n), Param("b", "in", dtype, n), *outs.values())
    kernel = Kernel("functions", params, (loop("i", n, "vector", *(Store(f"out_{k}", i, v) for k, v in values.items())),))
    x = special(dtype)
    against_python([kernel], 16, {"functions": {"a": np.repeat(x, 34), "b": np.tile(x, 34)}})


def test_bitcast_and_unknown_function() -> None:
    i = sym("i")
    to_float = pointwise("to_float", 11, [int32], float32, Call("bitcast", (load("x0", i, int32),), float32))
    to_unsigned = pointwise("to_unsigned", 11, [float64], dtypes.uint64, Call("bitcast", (load("x0", i, float64),), dtypes.uint64))
    against_python([to_float, to_unsigned], 8, {"to_float": {"x0": sample(11, int32)}, "to_unsigned": {"x0": sample(11, float64)}})
    with pytest.raises(IRError, match="exp is not a primitive"):
        Module([pointwise("bad", 4, [float32], float32, fn("exp", load("x0", i)))], 8)


@pytest.mark.parametrize("lanes", LANES)
def test_idiv_by_zero_in_masked_lanes_does_not_trap(lanes: int) -> None:
    value = fn("idiv", load("x0", sym("i"), int32), load("x1", sym("i"), int32))
    module = Module([pointwise("divide", sym("n"), [int32, int32], int32, value, ("n",))], lanes)
    x, y, out = sample(5, int32), np.full(5, 3, np.int32), np.zeros(5, np.int32)
    module("divide", x, y, out, 5)
    same_bits(out, np.trunc(x / 3).astype(np.int32))


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF objects")
@pytest.mark.parametrize("cpu", [None, "x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("lanes", LANES)
def test_no_library_calls(lanes: int, cpu: str | None) -> None:
    """Casts, rounding, division and 16-bit floats of every width become instructions."""
    i, n = sym("i"), sym("n")
    params, stores = [Param("n", "size", int64)], []
    for source in dtypes.REAL:
        params.append(Param(f"x_{source.short}", "in", source, n))
        for target in dtypes.REAL:
            params.append(Param(f"{source.short}_{target.short}", "out", target, n))
            stores.append(Store(f"{source.short}_{target.short}", i, Call("cast", (load(f"x_{source.short}", i, source),), target)))
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


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("lanes", LANES)
def test_opened_mathematical_functions(lanes: int, dtype: DType) -> None:
    """Every function that mathlib opens: the Python renderer's bits, and nothing left to a library."""
    i, n = sym("i"), 94
    arities = {"atan2": 2, "floor_divide": 2, "fmod": 2, "hypot": 2, "pow": 2, "remainder": 2}
    operands = (load("x", i, dtype), load("y", i, dtype))
    names = sorted(NAMES - {"philox", "polygamma"})
    outs = [Param(f"out_{name}", "out", dtype, n) for name in names]
    stores = [Store(f"out_{name}", i, Call(name, operands[: arities.get(name, 1)], dtype)) for name in names]
    params = (Param("x", "in", dtype, n), Param("y", "in", dtype, n), *outs)
    kernel = expand(Kernel("functions", params, (loop("i", n, "vector", *stores),)))
    x = np.concatenate([special(dtype), (10.0 ** np.arange(-30, 30)).astype(dtype.numpy)])
    against_python([kernel], lanes, {"functions": {"x": x, "y": np.roll(x, 7)}})
    if sys.platform == "linux":
        code = assemble(render(kernel, lanes).replace("define internal", "define"))
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
    against_python([kernel], lanes, {"k": {"index": np.arange(13, dtype=np.int32)[::-1] * 2, "table": sample(40, float32)}})


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
