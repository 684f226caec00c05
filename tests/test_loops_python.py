"""The loop IR's definition, on hand-written kernels."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.codegen.python import compiled, fma32, fma64, function, run, source, tree_fold
from graphc.dims import Dim, minimum
from graphc.dtypes import bfloat16, bool_, float16, float32, float64, int8, int32, int64, uint8, uint32
from graphc.errors import IRError
from graphc.ir.loops import (
    Acc,
    Alloc,
    Call,
    Check,
    Const,
    For,
    Index,
    Kernel,
    Let,
    Load,
    Param,
    Store,
    Update,
    Var,
)

N, K = Dim.symbol("N", 1), Dim.symbol("K", 1)
i, j, k = Dim.symbol("i", below=N), Dim.symbol("j"), Dim.symbol("k", below=K)


def call(fn, *args, dtype=float32):
    return Call(fn, args, dtype)


def test_pointwise():
    a = Load("x", i, float32)
    body = (
        Let("a", a),
        Store("out", i, call("add", call("mul", Var("a", float32), Const(0.1, float32)), Const(1.0, float32))),
    )
    params = (Param("x", "in", float32, N), Param("out", "out", float32, N), Param("N", "size", int64))
    kernel = Kernel("pointwise", params, (For("i", N, "parallel", body),))
    x = np.linspace(-3, 3, 37, dtype=np.float32)
    out = np.zeros(37, np.float32)
    assert run(kernel, {"x": x, "out": out}, {"N": 37}) == 0
    np.testing.assert_array_equal(out, x * np.float32(0.1) + np.float32(1))
    assert "for n_i in range(n_N):" in source(kernel)


def reduction(fn, dtype):
    body = (
        Acc("total", fn, dtype),
        For("k", K, "lanes", (Update("total", Load("x", k, dtype)),)),
        Store("out", 0, Var("total", dtype)),
    )
    return Kernel("reduction", (Param("x", "in", dtype, K), Param("out", "out", dtype), Param("K", "size", int64)), body)


def lanes_sum(x):
    """The documented tree once more, on whole rows of lanes."""
    total = None
    for base in range(0, len(x), 4096):
        block = x[base : base + 4096]
        rows = np.concatenate([block, np.zeros(-len(block) % 32, x.dtype)]).reshape(-1, 32)
        lanes = np.zeros(32, x.dtype)
        for row in rows:
            lanes = lanes + row
        for width in (16, 8, 4, 2, 1):
            lanes = lanes[:width] + lanes[width : 2 * width]
        total = lanes[0] if total is None else total + lanes[0]
    return total


@pytest.mark.parametrize("size", [1, 31, 32, 33, 4096, 5000])
def test_lanes_reduction_is_the_documented_tree(size):
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    out = np.zeros(1, np.float32)
    assert run(reduction("add", float32), {"x": x, "out": out}, {"K": size}) == 0
    assert out[0] == lanes_sum(x) == tree_fold("add", list(x), float32)
    assert out[0].dtype == np.float32
    assert abs(float(out[0]) - math.fsum(map(float, x))) < 1e-2


@pytest.mark.parametrize(
    ("fn", "dtype", "expected"), [("add", float32, 0.0), ("mul", int32, 1), ("max", int8, -128), ("min", uint8, 255)]
)
def test_empty_reduction_is_the_identity(fn, dtype, expected):
    out = np.full(1, 7, dtype.numpy)
    run(reduction(fn, dtype), {"x": np.zeros(0, dtype.numpy), "out": out}, {"K": 0})
    assert out[0] == expected


def test_max_keeps_the_nan():
    x = np.array([1, np.nan, 3], np.float32)
    out = np.zeros(1, np.float32)
    run(reduction("max", float32), {"x": x, "out": out}, {"K": 3})
    assert np.isnan(out[0])


def test_column_reduction_with_scratch():
    """Rows are added to 8 columns of scratch at a time, the last tile cut short."""
    tile = Dim.symbol("tile")
    column, width = Dim.symbol("c"), minimum(8, N - tile * 8)
    inner = (
        Alloc("sums", float32, 8),
        For("c", width, "vector", (Store("sums", column, Const(0.0, float32)),)),
        For(
            "k",
            K,
            "serial",
            (
                For(
                    "c",
                    width,
                    "vector",
                    (
                        Store(
                            "sums",
                            column,
                            call("add", Load("sums", column, float32), Load("x", k * N + tile * 8 + column, float32)),
                        ),
                    ),
                ),
            ),
        ),
        For("c", width, "vector", (Store("out", tile * 8 + column, Load("sums", column, float32)),)),
    )
    params = (
        Param("x", "in", float32, K * N),
        Param("out", "out", float32, N),
        Param("N", "size", int64),
        Param("K", "size", int64),
    )
    kernel = Kernel("columns", params, (For("tile", (N + 7) // 8, "parallel", inner),))
    x = np.random.default_rng(0).standard_normal((5, 19)).astype(np.float32)
    out = np.zeros(19, np.float32)
    assert run(kernel, {"x": x, "out": out}, {"N": 19, "K": 5}) == 0
    expected = np.zeros(19, np.float32)
    for row in x:
        expected = expected + row
    np.testing.assert_array_equal(out, expected)


def test_scratch_starts_undefined():
    body = (Alloc("s", float32, 1), Store("out", 0, Load("s", 0, float32)))
    out = np.zeros(1, np.float32)
    run(Kernel("read", (Param("out", "out", float32),), body), {"out": out}, {})
    assert np.isnan(out[0])


def test_matmul_chain_is_one_rounding_a_step():
    m, n, depth = 2, 3, 17
    step = Store(
        "sum",
        0,
        call("fma", Load("a", i * K + k, float32), Load("b", k * 3 + j, float32), Load("sum", 0, float32)),
    )
    element = (
        Alloc("sum", float32, 1, "registers"),
        Store("sum", 0, Const(0.0, float32)),
        For("k", K, "serial", (step,)),
        Store("c", i * 3 + j, Load("sum", 0, float32)),
    )
    params = (
        Param("a", "in", float32, N * K),
        Param("b", "in", float32, K * 3),
        Param("c", "out", float32, N * 3),
        Param("N", "size", int64),
        Param("K", "size", int64),
    )
    kernel = Kernel("matmul", params, (For("i", N, "parallel", (For("j", n, "unroll", element),)),))
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((m, depth)).astype(np.float32), rng.standard_normal((depth, n)).astype(np.float32)
    c = np.zeros((m, n), np.float32)
    assert run(kernel, {"a": a, "b": b, "c": c}, {"N": m, "K": depth}) == 0
    for row in range(m):
        for column in range(n):
            total = np.float32(0)
            for step_index in range(depth):
                exact = Fraction(float(a[row, step_index])) * Fraction(float(b[step_index, column])) + Fraction(float(total))
                total = nearest_float32(exact)
            assert c[row, column] == total


def nearest_float32(exact):
    """Round a rational to float32, ties to even, by looking at the neighbours."""
    guess = np.float32(float(exact))
    candidates = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    return min(candidates, key=lambda f: (abs(Fraction(float(f)) - exact), int(f.view(np.uint32)) & 1))


finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**60), max_value=2.0**60)


@settings(max_examples=300, deadline=None)
@given(finite32, finite32, finite32)
def test_fma32_is_exact(a, b, c):
    result = fma32(np.float32(a), np.float32(b), np.float32(c))
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    assert result == nearest_float32(exact)
    wide = fma64(np.float64(a), np.float64(b), np.float64(c))
    assert wide == float(exact)


def test_fma_where_two_roundings_differ():
    one, tiny = np.float32(1), np.float32(2.0**-30)
    middle = np.float32(1 + 2.0**-12)
    # (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24 is a tie in float32; a tiny addend decides it
    assert fma32(middle, middle, tiny) == np.float32(1 + 2.0**-11 + 2.0**-23)
    assert fma32(middle, middle, np.float32(-(2.0**-60))) == np.float32(1 + 2.0**-11)
    assert fma64(np.float64(1e308), np.float64(10), np.float64(-np.inf)) == -np.inf
    assert fma64(np.float64(1e308), np.float64(10), np.float64(0)) == np.inf
    assert np.signbit(fma64(np.float64(-1), np.float64(0), np.float64(-0.0)))
    assert np.signbit(fma32(-one, np.float32(0), np.float32(-0.0)))
    assert not np.signbit(fma32(one, one, -one))
    assert np.isnan(fma32(np.float32(np.inf), np.float32(0), one))


def test_check_records_the_largest_code_and_goes_on():
    value = Index(i)
    body = (
        Check(Call("lt", (value, Const(3, int64)), bool_), 2),
        Check(Call("ne", (value, Const(1, int64)), bool_), 1),
        Store("out", i, value),
    )
    kernel = Kernel("check", (Param("out", "out", int64, N), Param("N", "size", int64)), (For("i", N, "serial", body),))
    program = compiled(kernel)
    for size, status in [(1, 0), (3, 1), (5, 2)]:
        out = np.zeros(size, np.int64)
        assert program({"out": out}, {"N": size}) == status
        np.testing.assert_array_equal(out, np.arange(size))


def test_let_bound_integer_in_an_offset():
    index = Dim.symbol("index")
    body = (Let("index", Load("indices", i, int64)), Store("out", i, Load("x", index * 2 + 1, float32)))
    params = (
        Param("indices", "in", int64, N),
        Param("x", "in", float32, 20),
        Param("out", "out", float32, N),
        Param("N", "size", int64),
    )
    kernel = Kernel("gather", params, (For("i", N, "vector", body),))
    x, out = np.arange(20, dtype=np.float32), np.zeros(3, np.float32)
    run(kernel, {"indices": np.array([4, 0, 9]), "x": x, "out": out}, {"N": 3})
    np.testing.assert_array_equal(out, [9, 1, 19])
    with pytest.raises(IndexError):
        run(kernel, {"indices": np.array([4, -1, 9]), "x": x, "out": out}, {"N": 3})


@pytest.mark.parametrize(
    ("source_type", "target", "value", "expected"),
    [
        (float32, int8, 300.7, 127),
        (float32, int8, -1e30, -128),
        (float32, int64, np.nan, 0),
        (float32, uint8, -3.0, 0),
        (float32, int32, -2.9, -2),
        (float64, int64, 1e19, 2**63 - 1),
        (float32, bool_, np.nan, True),
        (float32, bool_, -0.0, False),
        (int64, int8, 200, -56),
        (int64, uint32, -1, 2**32 - 1),
        (int32, bool_, 256, True),
        (bool_, float32, True, 1.0),
        (float64, float16, 65520.0, np.inf),
        (float32, bfloat16, 1.00390625, 1.0),
        (float32, bfloat16, 1.01171875, 1.015625),
        (int64, float32, 2**24 + 1, 2.0**24),
    ],
)
def test_cast(source_type, target, value, expected):
    with np.errstate(all="ignore"):
        result = function("cast", source_type, target)(source_type.numpy.type(value))
    assert result == expected
    assert result.dtype == target.numpy


@pytest.mark.parametrize(
    ("fn", "dtype", "args", "expected"),
    [
        ("idiv", int32, (-7, 2), -3),
        ("idiv", int32, (-(2**31), -1), -(2**31)),
        ("shr", int32, (-8, 1), -4),
        ("shr", uint32, (2**31, 31), 1),
        ("shl", uint8, (255, 1), 254),
        ("mul", int8, (100, 3), 44),
        ("neg", uint8, (1,), 255),
        ("not", bool_, (True,), False),
        ("not", uint8, (1,), 254),
        ("add", bfloat16, (1.0, 0.5), 1.5),
        ("round", float32, (2.5,), 2.0),
        ("round", float32, (-0.4,), -0.0),
        ("lt", float32, (np.nan, 1.0), False),
        ("ne", float32, (np.nan, 1.0), True),
        ("max", float32, (0.0, -0.0), -0.0),
        ("min", float32, (-0.0, 0.0), 0.0),
        ("copysign", float16, (2.0, -0.0), -2.0),
        ("abs", int8, (-128,), -128),
    ],
)
def test_scalar_functions(fn, dtype, args, expected):
    with np.errstate(all="ignore"):
        result = function(fn, dtype)(*(dtype.numpy.type(a) for a in args))
    assert result == expected
    assert np.signbit(np.float64(result)) == np.signbit(np.float64(expected))
    assert result.dtype == (np.bool_ if fn in ("lt", "ne") else dtype.numpy)


def test_bitcast():
    assert function("bitcast", float32, uint32)(np.float32(1)) == 0x3F800000
    assert function("bitcast", uint32, float32)(np.uint32(0x3F800000)) == 1.0


@pytest.mark.parametrize(
    "value",
    [
        Call("add", (Const(1.0, float32), Const(1.0, float64)), float32),
        Call("add", (Const(1, int32), Const(1, int32)), int64),
        Call("select", (Const(1, int32), Const(1.0, float32), Const(1.0, float32)), float32),
        Call("fma", (Const(1, int32),) * 3, int32),
        Call("and", (Const(1.0, float32),) * 2, float32),
        Call("neg", (Const(1.0, float32),) * 2, float32),
        Call("bitcast", (Const(1.0, float64),), float32),
    ],
)
def test_ill_typed_expression_is_an_error(value):
    kernel = Kernel("bad", (Param("out", "out", value.dtype),), (Store("out", 0, value),))
    with pytest.raises(IRError, match="loop IR"):
        run(kernel, {"out": np.zeros(1, value.dtype.numpy)}, {})


def test_buffer_that_does_not_fit_is_an_error():
    kernel = reduction("add", float32)
    out = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match="buffer x"):
        run(kernel, {"x": np.zeros(3, np.float32), "out": out}, {"K": 4})
    with pytest.raises(ValueError, match="buffer x"):
        run(kernel, {"x": np.zeros(4, np.float64), "out": out}, {"K": 4})
    with pytest.raises(ValueError, match="contiguous"):
        run(kernel, {"x": np.zeros(8, np.float32)[::2], "out": out}, {"K": 4})


def test_shared_and_deep_expressions_stay_small():
    value = Load("x", 0, float32)
    for _ in range(150):
        value = call("mul", value, value)
    params = (Param("x", "in", float32), Param("out", "out", float32))
    kernel = Kernel("deep", params, (Store("out", 0, value),))
    assert len(source(kernel).splitlines()) < 200
    out = np.zeros(1, np.float32)
    run(kernel, {"x": np.ones(1, np.float32), "out": out}, {})
    assert out[0] == 1.0
