"""Kernels written by hand, one for each family of loop nests that lowering makes, with input that shows mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphc.codegen.mathlib import NAMES
from graphc.dims import Dim, Size, evaluate, minimum
from graphc.dtypes import REAL, DType, bfloat16, bool_, float32, float64, int32, int64, uint8, uint32, uint64
from graphc.ir.loops import (
    FUNCTIONS,
    LANES,
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
)

Fill = Callable[[np.random.Generator, int, DType], np.ndarray]


@dataclass(frozen=True)
class Case:
    """A kernel, the sizes to run it with, and how to fill its inputs."""

    kernel: Kernel
    sizes: tuple[dict[str, int], ...]
    fill: Fill

    def buffers(self, sizes: dict[str, int], seed: int = 0) -> dict[str, np.ndarray]:
        """Inputs filled, outputs full of a pattern nobody computes."""
        generator = np.random.default_rng(seed)
        made = {}
        for param in self.kernel.params:
            if param.role == "size":
                continue
            count = evaluate(param.size, sizes)
            made[param.name] = self.fill(generator, count, param.dtype)
            if param.role == "out":
                made[param.name] = np.full(count, 0x01, np.uint8).repeat(param.dtype.itemsize).view(param.dtype.numpy)
        return made


_EDGES = (
    *(0.0, -0.0, np.inf, -np.inf, np.nan, 0.5, 1.5, 2.5, -2.5, 65519.0, 65520.0, 3.4e38, 1e-45),
    *(2.0**31, -(2.0**31), 2.0**63, 1 + 2.0**-11, 1 + 2.0**-8 + 2.0**-9),
    *(1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-8 + 2.0**-40),  # a tie of 16 bits, but only once it is float32
)


def special(generator: np.random.Generator, count: int, dtype: DType) -> np.ndarray:
    """Random values of all magnitudes, with zeros, infinities, NaN and the ends of integer ranges among them."""
    if dtype is bool_:
        return generator.integers(0, 2, count).astype(np.bool_)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype.numpy)
        values = generator.integers(limits.min, limits.max, count, dtype.numpy, endpoint=True)
        edges = np.array([limits.min, limits.max, 0, 1, limits.max // 2], dtype.numpy)
    else:
        with np.errstate(over="ignore"):
            values = (generator.standard_normal(count) * 10.0 ** generator.integers(-12, 12, count)).astype(dtype.numpy)
            edges = np.array(_EDGES).astype(dtype.numpy)
    chosen = generator.random(count) < 0.4
    values[chosen] = generator.choice(edges, int(chosen.sum()))
    return values


def ordinary(generator: np.random.Generator, count: int, dtype: DType) -> np.ndarray:
    """Numbers about 1, small integers, either truth."""
    if dtype is bool_:
        return generator.integers(0, 2, count).astype(np.bool_)
    if dtype.kind in "iu":
        return generator.integers(0, 7, count).astype(dtype.numpy)
    return generator.standard_normal(count).astype(dtype.numpy)


# ---- words for writing kernels ---------------------------------------------------------------------------------------

m, n, q = Dim.symbol("m", 1), Dim.symbol("n", 1), Dim.symbol("q", 1)
p, v, r, k, i, j = (Dim.symbol(name) for name in "pvrkij")


def call(fn: str, *args: Expr, dtype: DType | None = None) -> Expr:
    comparison = fn in ("eq", "ne", "lt", "le", "gt", "ge")
    return Call(fn, args, dtype or (bool_ if comparison else args[-1].dtype))


def f32(value: float) -> Const:
    return Const(value, float32)


def buffer(name: str, role: str, dtype: DType, size: Size) -> Param:
    return Param(name, role, dtype, size)  # type: ignore[arg-type]


def kernel(name: str, params: list[Param], extent: Size, *body: Stmt, sizes: str = "") -> Kernel:
    return Kernel(name, (*params, *(Param(s, "size", int64) for s in sizes)), (For("p", extent, "parallel", body),))


# ---- pointwise -------------------------------------------------------------------------------------------------------

CHUNK = 1024
FLAT = (n + CHUNK - 1) // CHUNK
CHUNK_WIDTH = minimum(CHUNK, n - p * CHUNK)
AT = p * CHUNK + v
FLAT_SIZES = ({"n": 1}, {"n": 3}, {"n": 1027}, {"n": 4096})


def flat(name: str, params: list[Param], *body: Stmt) -> Kernel:
    """A pointwise kernel over n elements, in chunks."""
    return kernel(name, params, FLAT, For("v", CHUNK_WIDTH, "vector", body), sizes="n")


def pointwise_f32() -> Kernel:
    x, y = Load("x", AT, float32), Load("y", AT, float32)
    product = call("mul", x, y)
    return flat(
        "pointwise_f32",
        [buffer("x", "in", float32, n), buffer("y", "in", float32, n), buffer("out", "out", float32, n)],
        Let("double", call("max", call("add", product, f32(0.1)), f32(-0.0))),  # C++ keeps this name for itself
        Store("out", AT, call("fma", Var("double", float32), x, call("div", y, x))),
    )


def pointwise_bf16() -> Kernel:
    x = call("cast", Load("x", AT, bfloat16), dtype=float32)
    y = call("cast", Load("y", AT, bfloat16), dtype=float32)
    return flat(
        "pointwise_bf16",
        [buffer("x", "in", bfloat16, n), buffer("y", "in", bfloat16, n), buffer("out", "out", bfloat16, n)],
        Store("out", AT, call("cast", call("add", call("mul", x, y), f32(1.25)), dtype=bfloat16)),
    )


def pointwise_mixed() -> Kernel:
    """Comparison of integers to bool, in place integer arithmetic, a broadcast row, all in one loop."""
    a, b = Load("a", AT, int64), Load("b", AT, int64)
    return flat(
        "pointwise_mixed",
        [
            buffer("a", "in", int64, n),
            buffer("b", "inout", int64, n),
            buffer("less", "out", bool_, n),
            buffer("x", "in", uint8, 5),
        ],
        Let("quotient", call("idiv", a, call("select", call("eq", b, Const(0, int64)), Const(7, int64), b))),
        Store("less", AT, call("or", call("lt", a, b), call("not", call("ge", Load("x", AT % 5, uint8), Const(9, uint8))))),
        Store(
            "b",
            AT,
            call("sub", call("mul", Var("quotient", int64), a), call("cast", Load("x", AT % 5, uint8), dtype=int64)),
        ),
    )


def pointwise_rows() -> Kernel:
    """Broadcast of a column, a row and a transposed operand; the vector loop is one row."""
    return kernel(
        "pointwise_rows",
        [buffer("x", "in", float32, m * n), buffer("bias", "in", float32, m), buffer("t", "in", float32, n * m),
         buffer("out", "out", float32, m * n)],
        m,
        Let("b", Load("bias", p, float32)),
        For("v", n, "vector", (
            Store("out", p * n + v, call("add", call("mul", Load("x", p * n + v, float32), Var("b", float32)),
                                         Load("t", v * m + p, float32))),
        )),
        sizes="mn",
    )  # fmt: skip


def one_thread_each() -> Kernel:
    """No loop to spread: a running product along each row, kept in scratch of two elements."""
    return kernel(
        "one_thread_each",
        [buffer("x", "in", float64, m * n), buffer("out", "out", float64, m * n)],
        m,
        Alloc("two", float64, 2),
        Store("two", 0, Const(1.0, float64)),
        For("r", n, "serial", (
            Let("now", call("mul", Load("two", r % 2, float64), Load("x", p * n + r, float64))),
            Store("two", (r + 1) % 2, Var("now", float64)),
            Store("out", p * n + r, Var("now", float64)),
        )),
        sizes="mn",
    )  # fmt: skip


# ---- rows ------------------------------------------------------------------------------------------------------------

ROW_SIZES = ({"m": 1, "n": 1}, {"m": 5, "n": 33}, {"m": 19, "n": 7})
AT_K = p * n + k
AT_V = p * n + v


def row_softmax() -> Kernel:
    x, out = Load("x", AT_K, float32), Load("out", AT_V, float32)
    return kernel(
        "row_softmax",
        [buffer("x", "in", float32, m * n), buffer("out", "out", float32, m * n)],
        m,
        Acc("top", "max", float32),
        For("k", n, "lanes", (Update("top", x),)),
        Acc("total", "add", float32),
        For("k", n, "lanes", (
            Let("e", call("exp", call("sub", x, Var("top", float32)))),
            Store("out", AT_K, Var("e", float32)),
            Update("total", Var("e", float32)),
        )),
        For("v", n, "vector", (Store("out", AT_V, call("div", out, Var("total", float32))),)),
        sizes="mn",
    )  # fmt: skip


def row_norm() -> Kernel:
    """Two accumulators of one loop, a value of the row stored apart, the row reversed through scratch."""
    x = call("cast", Load("x", AT_K, bfloat16), dtype=float32)
    count = call("cast", Index(n), dtype=float32)
    mean = call("div", Var("total", float32), count)
    of_mean = call("mul", Var("mean", float32), Var("mean", float32))
    spread = call("sub", call("div", Var("squares", float32), count), of_mean)
    return kernel(
        "row_norm",
        [buffer("x", "in", bfloat16, m * n), buffer("means", "out", float32, m), buffer("out", "out", float32, m * n)],
        m,
        Alloc("row", float32, 64),
        Acc("total", "add", float32),
        Acc("squares", "add", float32),
        For("k", n, "lanes", (
            Let("a", x),
            Store("row", k, Var("a", float32)),
            Update("total", Var("a", float32)),
            Update("squares", call("mul", Var("a", float32), Var("a", float32))),
        )),
        Let("mean", mean),
        Let("deviation", call("sqrt", call("add", spread, f32(1e-5)))),
        Store("means", p, Var("mean", float32)),
        Let("again", Load("means", p, float32)),
        For("v", n, "vector", (
            Let("centred", call("sub", Load("row", n - 1 - v, float32), Var("again", float32))),
            Store("out", AT_V, call("div", Var("centred", float32), Var("deviation", float32))),
        )),
        sizes="mn",
    )  # fmt: skip


def long_row() -> Kernel:
    """A row kept in scratch too large for shared memory: each lane holds its own elements."""
    x = Load("x", p * 16384 + k, float32)
    return kernel(
        "long_row",
        [buffer("x", "in", float32, m * 16384), buffer("out", "out", float32, m * 16384)],
        m,
        Alloc("row", float32, 16384),
        Acc("total", "add", float32),
        For("k", 16384, "lanes", (
            Let("a", call("mul", x, x)),
            Store("row", k, Var("a", float32)),
            Update("total", Var("a", float32)),
        )),
        For("v", 16384, "vector", (
            Store("out", p * 16384 + v, call("div", Load("row", v, float32), Var("total", float32))),
        )),
        sizes="m",
    )  # fmt: skip


def folds() -> Kernel:
    """Every fold function, over one long row."""
    plans: list[tuple[str, DType]] = [(fn, float32) for fn in ("add", "mul", "max", "min")]
    plans += [("add", int64), ("mul", int32), ("max", int32), ("min", int64), ("max", uint8)]
    plans += [("and", bool_), ("or", bool_), ("add", float64)]
    params, before, inside, after = [], [], [], []
    for fn, dtype in plans:
        name = f"{fn}_{dtype.short}"
        params += [buffer(f"x_{name}", "in", dtype, n), buffer(f"out_{name}", "out", dtype, 1)]
        before.append(Acc(name, fn, dtype))
        inside.append(Update(name, Load(f"x_{name}", k, dtype)))
        after.append(Store(f"out_{name}", 0, Var(name, dtype)))
    return kernel("folds", params, 1, *before, For("k", n, "lanes", tuple(inside)), *after, sizes="n")


# ---- columns, matmul, scan, gather -----------------------------------------------------------------------------------

TILE = 40
COLUMN = p * TILE + v
COLUMN_WIDTH = minimum(TILE, n - p * TILE)


def column_sum() -> Kernel:
    """32 virtual lanes of every column in scratch, folded in halves."""

    def folded(half: int) -> Stmt:
        low = Load("sums", r * TILE + v, float32)
        total = call("add", low, Load("sums", (r + half) * TILE + v, float32))
        return For("r", half, "serial", (For("v", COLUMN_WIDTH, "vector", (Store("sums", r * TILE + v, total),)),))

    at = (r % LANES) * TILE + v
    return kernel(
        "column_sum",
        [buffer("x", "in", float32, m * n), buffer("out", "out", float32, n)],
        (n + TILE - 1) // TILE,
        Alloc("sums", float32, LANES * TILE),
        For("r", LANES, "serial", (For("v", COLUMN_WIDTH, "vector", (Store("sums", r * TILE + v, f32(0.0)),)),)),
        For("r", m, "serial", (
            For("v", COLUMN_WIDTH, "vector", (
                Store("sums", at, call("add", Load("sums", at, float32), Load("x", r * n + COLUMN, float32))),
            )),
        )),
        *map(folded, (16, 8, 4, 2, 1)),
        For("v", COLUMN_WIDTH, "vector", (Store("out", COLUMN, Load("sums", v, float32)),)),
        sizes="mn",
    )  # fmt: skip


def matmul() -> Kernel:
    """out[m, 16 q] = a[m, n] @ b[n, 16 q]: tiles of 4 rows by 16 columns, b's panel copied to scratch first."""
    rows, width, depth = 4, 16, 48
    at = i * width + j
    row, column = (p // q) * rows + i, (p % q) * width + j
    panel = Load("panel", k * width + j, float32)
    a = Load("a", minimum(row, m - 1) * n + k, float32)

    def tile(*body: Stmt) -> Stmt:
        return For("i", rows, "unroll", (For("j", width, "tile", body),))

    keep = call("select", call("lt", Index(row), Index(m)), Load("acc", at, float32), f32(0.0))
    return kernel(
        "matmul",
        [buffer("a", "in", float32, m * n), buffer("b", "in", float32, n * q * width),
         buffer("out", "out", float32, ((m + rows - 1) // rows) * rows * q * width)],
        ((m + rows - 1) // rows) * q,
        Alloc("acc", float32, rows * width, "registers"),
        Alloc("panel", float32, depth * width),
        For("k", n, "serial", (
            For("j", width, "vector", (Store("panel", k * width + j, Load("b", k * q * width + column, float32)),)),
        )),
        tile(Store("acc", at, f32(0.0))),
        For("k", n, "serial", (tile(Store("acc", at, call("fma", a, panel, Load("acc", at, float32)))),)),
        tile(Store("out", row * q * width + column, keep)),
        sizes="mnq",
    )  # fmt: skip


def scan() -> Kernel:
    """Running sums down the columns, the total of each column in scratch."""
    total = call("add", Load("total", v, int32), Load("x", r * n + p * 64 + v, int32))
    width = minimum(64, n - p * 64)
    return kernel(
        "scan",
        [buffer("x", "in", int32, m * n), buffer("out", "out", int32, m * n)],
        (n + 63) // 64,
        Alloc("total", int32, 64),
        For("v", width, "vector", (Store("total", v, Const(0, int32)),)),
        For("r", m, "serial", (
            For("v", width, "vector", (
                Let("sum", total),
                Store("total", v, Var("sum", int32)),
                Store("out", r * n + p * 64 + v, Var("sum", int32)),
            )),
        )),
        sizes="mn",
    )  # fmt: skip


def reversal() -> Kernel:
    """Every row reversed through scratch: lanes read what other lanes wrote, then write what others read."""
    return kernel(
        "reversal",
        [buffer("x", "in", float32, m * TILE * n), buffer("out", "out", float32, m * TILE * n)],
        m,
        Alloc("row", float32, TILE),
        For("r", n, "serial", (
            For("v", TILE, "vector", (Store("row", v, Load("x", (p * n + r) * TILE + v, float32)),)),
            For("v", TILE, "vector", (Store("out", (p * n + r) * TILE + v, Load("row", TILE - 1 - v, float32)),)),
        )),
        sizes="mn",
    )  # fmt: skip


def wide_tiles() -> Kernel:
    """Registers of more than 32 elements a row: a lane holds two of each."""
    at = i * TILE + v

    def tile(*body: Stmt) -> Stmt:
        return For("i", 3, "unroll", (For("v", TILE, "tile", body),))

    total = call("add", Load("acc", at, int32), Load("x", (p * n + r) * TILE + v, int32))
    return kernel(
        "wide_tiles",
        [buffer("x", "in", int32, m * TILE * n), buffer("out", "out", int32, m * TILE * 3)],
        m,
        Alloc("acc", int32, 3 * TILE, "registers"),
        tile(Store("acc", at, call("cast", Index(i + v), dtype=int32))),
        For("r", n, "serial", (tile(Store("acc", at, total)),)),
        tile(Store("out", p * TILE * 3 + at, Load("acc", at, int32))),
        sizes="mn",
    )


def gather() -> Kernel:
    """out[p, v] = x[index[p], v], the index checked and clamped."""
    low, high = Const(0, int64), Index(q)
    index = Var("index_of_row", int64)
    inside = call("and", call("ge", index, low), call("lt", index, high))
    clamped = call("max", call("min", index, call("sub", high, Const(1, int64))), low)
    return kernel(
        "gather",
        [buffer("x", "in", float32, q * n), buffer("index", "in", int64, m), buffer("out", "out", float32, m * n)],
        m,
        Let("index_of_row", Load("index", p, int64)),
        Check(inside, 3),
        Let("at", clamped),
        For("v", n, "vector", (Store("out", AT_V, Load("x", Dim.symbol("at") * n + v, float32)),)),
        sizes="mnq",
    )


def indices(generator: np.random.Generator, count: int, dtype: DType) -> np.ndarray:
    """Numbers about 1; integers from -1 to 6."""
    if dtype.kind == "i":
        return generator.integers(-1, 7, count).astype(dtype.numpy)
    return ordinary(generator, count, dtype)


# ---- every function, every conversion --------------------------------------------------------------------------------


def conversions(source: DType) -> Kernel:
    """Casts from `source` to everything, and bitcasts to everything of its width."""
    x = Load("x", AT, source)
    targets = [("cast", d) for d in REAL]
    if source is not bool_:
        targets += [("bitcast", d) for d in REAL if d.itemsize == source.itemsize and d is not bool_]
    params = [buffer(f"{fn}_{d.short}", "out", d, n) for fn, d in targets]
    body = [Store(f"{fn}_{d.short}", AT, call(fn, x, dtype=d)) for fn, d in targets]
    return flat(f"conversions_{source.short}", [buffer("x", "in", source, n), *params], *body)


_FLOATING = {"div", "sqrt", "fma", "copysign", "scale", "floor", "ceil", "trunc", "round"}
_INTEGER = {"and", "or", "xor", "not", "shl", "shr", "idiv"}


def functions(dtype: DType) -> Kernel:
    """Every primitive function that `dtype` has."""
    x, y, z = (Load(name, AT, dtype) for name in "xyz")
    names = [fn for fn in FUNCTIONS if fn not in ("cast", "bitcast", "select")]
    if dtype.kind != "f":
        names = [fn for fn in names if fn not in _FLOATING]
    if dtype.kind == "f":
        names = [fn for fn in names if fn not in _INTEGER]
    if dtype is bool_:
        names = ["eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "max", "min"]
    body: list[Stmt] = []
    params = [buffer(name, "in", dtype, n) for name in "xyz"]
    for fn in names:
        args: tuple[Expr, ...] = (x, y, z)[: FUNCTIONS[fn]]
        if fn in ("shl", "shr"):
            args = (x, call("and", y, Const(7, dtype)))
        if fn == "scale":
            args = (Const(1.25, dtype), call("min", call("max", call("round", y), Const(-200.0, dtype)), Const(200.0, dtype)))
            args = (call("select", call("eq", y, y), args[0], y), args[1])
        if fn == "idiv":
            args = (x, call("select", call("eq", y, Const(0, dtype)), z, y))
            args = (x, call("select", call("eq", args[1], Const(0, dtype)), Const(3, dtype), args[1]))
        value = call(fn, *args)
        params.append(buffer(f"out_{fn}", "out", value.dtype, n))
        body.append(Store(f"out_{fn}", AT, value))
    return flat(f"functions_{dtype.short}", params, *body)


_OF_TWO = ("atan2", "floor_divide", "fmod", "hypot", "pow", "remainder")
_OF_INTEGERS = ("floor_divide", "fmod", "pow", "remainder", "sign")
_OF_FLOATS = tuple(sorted(NAMES - {"philox"}))


def mathematics(dtype: DType) -> Kernel:
    """Functions that mathlib opens into primitives."""
    names = _OF_FLOATS if dtype.kind == "f" else _OF_INTEGERS
    x, y = Load("x", AT, dtype), Load("y", AT, dtype)
    operands = {**dict.fromkeys(_OF_TWO, (x, y)), "polygamma": (Const(2, int64), x)}
    body = [Store(f"out_{fn}", AT, call(fn, *operands.get(fn, (x,)))) for fn in names]
    params = [buffer("x", "in", dtype, n), buffer("y", "in", dtype, n)]
    params += [buffer(f"out_{fn}", "out", dtype, n) for fn in names]
    return flat(f"mathematics_{dtype.short}", params, *body)


def philox() -> Kernel:
    """All four words of Philox4x32-10 for keys and counters of all sizes."""
    key0, key1 = Load("key0", AT, uint32), Load("key1", AT, uint32)
    counter = Load("counter", AT, uint64)
    words = [call("philox", key0, key1, counter, Const(word, uint32)) for word in range(4)]
    return flat(
        "philox",
        [buffer("key0", "in", uint32, n), buffer("key1", "in", uint32, n), buffer("counter", "in", uint64, n),
         *(buffer(f"word{word}", "out", uint32, n) for word in range(4))],
        *(Store(f"word{word}", AT, value) for word, value in enumerate(words)),
    )  # fmt: skip


CASES: dict[str, Case] = {
    case.kernel.name: case
    for case in [
        Case(pointwise_f32(), FLAT_SIZES, special),
        Case(pointwise_bf16(), FLAT_SIZES, special),
        Case(pointwise_mixed(), FLAT_SIZES, special),
        Case(pointwise_rows(), ({"m": 1, "n": 1}, {"m": 37, "n": 12}, {"m": 3, "n": 301}), special),
        Case(one_thread_each(), ({"m": 1, "n": 4}, {"m": 300, "n": 5}), ordinary),
        Case(row_softmax(), (*ROW_SIZES, {"m": 2, "n": 4129}), ordinary),
        Case(row_norm(), ROW_SIZES, ordinary),
        Case(long_row(), ({"m": 1},), ordinary),
        Case(folds(), ({"n": 1}, {"n": 50}, {"n": 4096}, {"n": 9001}), special),
        Case(column_sum(), ({"m": 1, "n": 1}, {"m": 33, "n": 47}, {"m": 70, "n": 120}), ordinary),
        Case(matmul(), ({"m": 1, "n": 1, "q": 1}, {"m": 9, "n": 48, "q": 2}), ordinary),
        Case(scan(), ({"m": 1, "n": 1}, {"m": 6, "n": 100}), ordinary),
        Case(reversal(), ({"m": 1, "n": 3}, {"m": 9, "n": 2}), ordinary),
        Case(wide_tiles(), ({"m": 9, "n": 2},), ordinary),
        Case(gather(), ({"m": 1, "n": 1, "q": 7}, {"m": 20, "n": 33, "q": 6}), indices),
        Case(mathematics(float32), ({"n": 150},), special),
        Case(mathematics(float64), ({"n": 50},), special),
        *(Case(mathematics(dtype), ({"n": 150},), special) for dtype in (int64, int32, uint8)),
        Case(philox(), ({"n": 150},), special),
        *(Case(conversions(dtype), ({"n": 301},), special) for dtype in REAL),
        *(Case(functions(dtype), ({"n": 301},), special) for dtype in REAL if dtype.compute is dtype),
    ]
}
