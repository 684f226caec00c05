"""Transposed copies through LLVM, bit for bit as the loops they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.python import run
from graphc.dims import Dim, Size, minimum
from graphc.dtypes import DType, bfloat16, float16, float32, float64, int8, int64
from graphc.ir.loops import Kernel, Param, Stmt, Transpose
from llvm_kernels import LANES, Module, loop, same_bits, sym

SHAPES = [(16, 16), (8, 8), (32, 64), (1, 1), (1, 20), (20, 1), (5, 3), (12, 33), (17, 16), (31, 47), (3, 100)]


def copied(body: tuple[Stmt, ...], source: np.ndarray, source_dtype: DType, dtype: DType, lanes: int, **sizes: int) -> np.ndarray:
    """What a kernel of `body` makes of x, the same by LLVM and by Python."""
    params = (Param("x", "in", source_dtype, source.size), Param("y", "out", dtype, 2 * source.size))
    kernel = Kernel("k", (*params, *(Param(name, "size", int64) for name in sizes)), body)
    results = []
    for ours in (True, False):
        y = np.full(2 * source.size, 77).astype(dtype.numpy)
        if ours:
            assert Module([kernel], lanes)("k", source, y, *sizes.values()) == 0
        else:
            run(kernel, {"x": source, "y": y}, sizes)
        results.append(y)
    same_bits(*results)
    return results[0]


def matrix(rows: int, columns: int, dtype: DType) -> np.ndarray:
    return np.random.default_rng(0).integers(-100, 100, (rows, columns)).astype(dtype.numpy)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", [float32, float64, float16, int8], ids=str)
def test_known_sizes(dtype: DType, lanes: int) -> None:
    for rows, columns in SHAPES if dtype is float32 else SHAPES[2::3]:
        x = matrix(rows, columns, dtype)
        step = rows + 1
        statement = Transpose("t", "y", 0, step, "x", 0, columns, rows, columns, dtype, dtype)
        y = copied((statement,), x, dtype, dtype, lanes) if columns * step <= 2 * x.size else None
        if y is not None:
            wanted = np.full((columns, step), 77).astype(dtype.numpy)
            wanted[:, :rows] = x.T
            same_bits(y[: columns * step], wanted.ravel())
            assert (y[columns * step :] == np.asarray(77).astype(dtype.numpy)).all()


@pytest.mark.parametrize("lanes", LANES)
def test_sizes_known_at_run_time(lanes: int) -> None:
    for rows, columns in SHAPES:
        x = matrix(rows, columns, float32)
        statement = Transpose("t", "y", 0, sym("m"), "x", 0, sym("n"), sym("m"), sym("n"), float32, float32)
        y = copied((statement,), x, float32, float32, lanes, m=rows, n=columns)
        same_bits(y[: x.size], x.T.ravel())
        assert (y[x.size :] == 77).all()


@pytest.mark.parametrize("lanes", LANES)
def test_blocks_in_a_loop(lanes: int) -> None:
    x = matrix(70, 50, float32)
    first: Size = Dim.symbol("p", 0, below=5) * 16
    rows = minimum(16, 70 - first)
    statement = Transpose("t", "y", first, 70, "x", first * 50, 50, rows, 50, float32, float32)
    y = copied((loop("p", 5, "parallel", statement),), x, float32, float32, lanes)
    same_bits(y[: x.size], x.T.ravel())


@pytest.mark.parametrize("source", [float16, bfloat16], ids=str)
def test_elements_are_converted(source: DType) -> None:
    x = matrix(20, 18, source)
    statement = Transpose("t", "y", 0, 20, "x", 0, 18, 20, 18, float32, source)
    for lanes in LANES:
        same_bits(copied((statement,), x, source, float32, lanes)[: x.size], x.T.astype(np.float32).ravel())
