"""Reductions, loop nests and whole programs through LLVM, bit for bit as their definition has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc import dtypes
from graphc.codegen.llvm.program import Launch, Slot, render_program
from graphc.codegen.python import fma32, run
from graphc.dims import Dim, Size, maximum, minimum
from graphc.dtypes import DType, bool_, float32, float64, int32, int64
from graphc.errors import IRError
from graphc.ir.loops import (
    FIRST_SLOT,
    Acc,
    Alloc,
    Check,
    Const,
    Expr,
    Index,
    Kernel,
    Let,
    Param,
    Stmt,
    Store,
    Update,
    Var,
    identity,
)
from graphc.runtime.link import assemble, link
from llvm_kernels import (
    LANES,
    MAIN,
    Module,
    against_python,
    call,
    chunk_counts,
    fn,
    guarded,
    intact,
    load,
    loop,
    pointwise,
    same_bits,
    sample,
    sym,
)

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
    assert chunk_counts[-1] == 21 and 3 in chunk_counts


@pytest.mark.parametrize("lanes", LANES)
def test_a_few_elements_are_one_vector(lanes: int) -> None:
    """Loops whose extent is known to be small; threads are asked for where the sizes of a call make enough work."""
    i, j, n, rows = sym("i"), sym("j"), Dim.symbol("n", 1), sym("m")
    few = minimum(n, 6)
    body = (
        Acc("total", "add", float32),
        loop("j", few, "lanes", Update("total", load("x", i * n + j))),
        loop("j", few, "vector", Store("out", i * n + j, fn("div", load("x", i * n + j), Var("total", float32)))),
    )
    params = (Param("x", "in", float32, rows * n), Param("out", "out", float32, rows * n))
    sizes = (Param("n", "size", int64), Param("m", "size", int64))
    kernel = Kernel("few", (*params, *sizes), (loop("i", rows, "parallel", *body),), grain=maximum(1, 12 // n))
    module = Module([kernel], lanes)
    for n, m in ((1, 5), (2, 5), (3, 7), (6, 4)):
        x = sample(m * n, float32, m).reshape(m, n)
        whole, out = guarded(m * n, float32)
        before = len(chunk_counts)
        module("few", x, whole, n, m, threads=3)
        totals = np.concatenate([tree(row, "add", float32) for row in x])
        same_bits(out, (x / totals[:, None]).reshape(-1))
        intact(whole, m * n)
        assert len(chunk_counts) - before == (m > 12 // n)


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
    kernel = Kernel("k", (Param("x", "in", float32, 9), Param("out", "out", float32, 45), Param("last", "out", float32, 5)), body)
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
    assert chunk_counts == [6, 6]  # seven iterations in two chunks a thread; the static one is below its grain


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_launches_that_join_run_in_one_region(threads: int) -> None:
    x = load("x", sym("c") * 16 + sym("i"))
    values = {"twice": fn("add", x, x), "square": fn("mul", x, x), "tiny": fn("sub", x, Const(1.0, float32))}
    kernels = {name: chunked(name, value, 10**9 if name == "tiny" else 2) for name, value in values.items()}
    slots = [Slot(FIRST_SLOT + k) for k in range(9)]
    (a, *outs), sizes = slots, (100, 100, 3, 100, 96, 40, 100)
    names = ("twice", "square", "tiny", "square", "twice", "square", "twice")
    joins = (False, True, True, True, False, True, False)  # two regions, and one launch alone
    launches = [Launch(n, (a, out, size), j) for n, out, size, j in zip(names, outs, sizes, joins, strict=False)]
    entry = MAIN(link(assemble(render_program(launches, kernels, 8)), ["graphc_main"])["graphc_main"])
    chunk_counts.clear()
    arrays = [sample(100, float32), *(np.zeros(100, np.float32) for _ in range(8))]
    assert call(entry, *arrays, threads=threads) == 0
    for name, out, size in zip(names, arrays[1:], sizes, strict=False):
        given = arrays[0][:size]
        wanted = {"twice": given + given, "square": given * given, "tiny": given - np.float32(1)}[name]
        same_bits(out[:size], wanted)
        assert not out[size:].any()
    assert chunk_counts == ([13, 5] if threads == 1 else [13, 5, 4])  # a thread alone needs no region for one launch


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
        ((inner, loop("i", 2, "parallel", inner)), "only top-level statement"),
    ):
        with pytest.raises(IRError, match=message):
            Module([Kernel("k", out, body)], 8)
    with pytest.raises(IRError, match="outside its lanes loop"):
        Module([Kernel("k", out, (Acc("a", "add", float32), Update("a", Const(0.0, float32))))], 8)


@pytest.mark.parametrize("lanes", LANES)
def test_matmul_as_scheduled(lanes: int) -> None:
    """One unit of a scheduled matmul: blocks of k, a packed panel, whole and left-over tiles, sums in scratch."""
    m, n, depth = 14, 13, 1030
    rows, width = 6, 16
    q, it, i, j, k = (sym(name) for name in ("q", "it", "i", "j", "k"))
    length = minimum(512, depth - 512 * q)
    at = i * width + j

    def tile(base: Size, count: int, name: str) -> list[Stmt]:
        there = (base + i) * width + j
        step = loop(
            "i", count, "unroll",
            Let("left", load("a", (base + i) * depth + 512 * q + k)),
            loop("j", width, "tile",
                 Store(name, at, fn("fma", Var("left", float32), load("panel", k * width + j), load(name, at)))),
        )  # fmt: skip
        return [
            loop("i", count, "unroll", loop("j", width, "tile", Store(name, at, Const(0.0, float32)))),
            loop("k", length, "serial", step),
            loop("i", count, "unroll",
                 loop("j", width, "tile", Store("partial", there, fn("add", load("partial", there), load(name, at))))),
        ]  # fmt: skip

    body = (
        Alloc("panel", float32, 512 * width), Alloc("partial", float32, m * width),
        Alloc("acc", float32, rows * width, "registers"), Alloc("rest", float32, 2 * width, "registers"),
        loop("i", m, "serial", loop("j", width, "vector", Store("partial", at, Const(0.0, float32)))),
        loop("q", 3, "serial",
             loop("k", length, "serial",
                  loop("j", n, "vector", Store("panel", k * width + j, load("b", (512 * q + k) * n + j)))),
             loop("it", m // rows, "serial", *tile(it * rows, rows, "acc")),
             *tile(12, 2, "rest")),
        loop("i", m, "serial", loop("j", n, "vector", Store("c", i * n + j, load("partial", at)))),
    )  # fmt: skip
    params = (
        Param("a", "in", float32, m * depth),
        Param("b", "in", float32, depth * n),
        Param("c", "out", float32, m * n),
    )
    kernel = Kernel("unit", params, (loop("p", 1, "parallel", *body),))
    a, b = sample(m * depth, float32, 1), sample(depth * n, float32, 2)
    whole, out = guarded(m * n, float32)
    Module([kernel], lanes)("unit", a, b, whole)
    chain_step, expected = np.frompyfunc(fma32, 3, 1), np.zeros((m, n), np.float32)
    for start in range(0, depth, 512):
        chain = np.zeros((m, n), np.float32)
        for row in range(start, min(start + 512, depth)):
            chain = chain_step(a[row::depth, None], b[row * n : row * n + n], chain).astype(np.float32)
        expected = expected + chain
    same_bits(out, expected.reshape(-1))
    intact(whole, m * n)


def test_constants_of_every_dtype() -> None:
    i = sym("i")
    for dtype in dtypes.REAL:
        value = {"b": True, "u": np.iinfo(dtype.numpy).max if dtype.kind == "u" else 0, "i": -5, "f": -1.7}[dtype.kind]
        kernel = Kernel("k", (Param("out", "out", dtype, 9),), (loop("i", 9, "vector", Store("out", i, Const(value, dtype))),))
        out = np.zeros(9, dtype.numpy)
        Module([kernel], 8)("k", out)
        same_bits(out, np.full(9, value, dtype.numpy))


# ---- any nest ------------------------------------------------------------------------------------------------------


@st.composite
def nests(draw: st.DrawFn) -> tuple[Kernel, int]:
    """Two loops around loads of odd offsets, stores along either axis and a reduction; and the value of n."""
    rows, n = draw(st.integers(1, 4)), draw(st.integers(0, 70))
    kind = draw(st.sampled_from(["vector", "vector", "lanes", "lanes", "tile", "serial"]))
    extent: Size = n if kind == "tile" or draw(st.booleans()) else sym("n")
    dtype = draw(st.sampled_from([float32, float64, int64, int32]))
    i, j = Dim.symbol("i", high=rows - 1), Dim.symbol("j", below=extent)
    offsets = [
        j,
        i + j,
        i * extent + j,
        2 * j + i,
        extent + 3 - j,
        i,
        3 * i + 2,
        (j + i) % 7,
        j // 3 + i,
        minimum(j, 5),
        i * j,
    ]

    def value(depth: int) -> Expr:
        if depth == 0 or draw(st.integers(0, 3)) == 0:
            leaf = draw(st.integers(0, 5))
            if leaf == 0:
                return Const(draw(st.integers(-3, 3)), dtype)
            if leaf == 1:
                return Index(draw(st.sampled_from(offsets)), dtype)
            return load("x", draw(st.sampled_from(offsets)), dtype)
        name = draw(st.sampled_from(["add", "sub", "mul", "max", "min", "select"]))
        if name == "select":
            return fn("select", fn("lt", value(depth - 1), value(depth - 1), dtype=bool_), value(depth - 1), value(depth - 1))
        return fn(name, value(depth - 1), value(depth - 1))

    along = draw(st.sampled_from([i * extent + j, j * rows + i]))
    body: list[Stmt] = [
        Let("v", value(2)),
        Store("a", along, Var("v", dtype)),
        Store("b", i * extent + j, fn("add", value(1), Var("v", dtype))),
    ]
    around: list[Stmt] = [loop("j", extent, kind, *body)]
    if kind == "lanes":
        fold = draw(st.sampled_from(["add", "max"]))
        body.append(Update("r", value(1)))
        around = [Acc("r", fold, dtype), loop("j", extent, kind, *body), Store("c", i, Var("r", dtype))]
    outer = loop("i", rows, draw(st.sampled_from(["serial", "unroll", "parallel"])), *around)
    params = [Param(name, "out", dtype, size) for name, size in (("a", rows * extent), ("b", rows * extent), ("c", rows))]
    kernel = Kernel("nest", (Param("x", "in", dtype, 500), *params, Param("n", "size", int64)), (outer,))
    return kernel, n


@given(nests(), st.sampled_from(LANES))
def test_any_nest_agrees_with_the_python_renderer(case: tuple[Kernel, int], lanes: int) -> None:
    kernel, n = case
    dtype = kernel.params[0].dtype
    x = sample(500, dtype, n)
    ours = {p.name: np.full(4 * 70 + 8, 7, dtype.numpy) for p in kernel.params[1:4]}
    theirs = {name: array.copy() for name, array in ours.items()}
    Module([kernel], lanes)("nest", x, *ours.values(), n, threads=2)
    run(kernel, {"x": x, **theirs}, {"n": n})
    for name, array in ours.items():
        same_bits(array, theirs[name])
