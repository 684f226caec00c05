"""Reductions: rows, columns and axes that are written out all follow one tree; streamed stores and wide vectors change nothing."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc.codegen.llvm.width import width
from graphc.dims import Dim
from graphc.dtypes import float32
from graphc.ir.loops import Kernel, Param, Store
from graphc.schedule import schedule as schedules
from llvm_kernels import Module, fn, guarded, intact, load, loop, same_bits, sample, sym

LENGTHS = (1, 3, 31, 32, 33, 64, 100, 128, 129, 290, 4096, 4097, 4300, 8192)


def bits(x: graphc.Tensor, y: graphc.Tensor) -> None:
    same_bits(x.numpy(), y.numpy())


# ---- columns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", LENGTHS)
def test_columns_are_folded_as_rows_are(length: int) -> None:
    x = graphc.tensor(sample(length * 19, float32, length).reshape(length, 19))
    rows = x.t().contiguous()

    def both(x: graphc.Tensor, rows: graphc.Tensor) -> tuple[graphc.Tensor, ...]:
        return x.sum(0), rows.sum(1), x.amax(0), rows.amax(1), x.var(0), rows.var(1)

    results = graphc.compile(both)(x, rows)
    for column, row in zip(results[::2], results[1::2], strict=True):
        bits(column, row)
    bits(results[0], x.sum(0))  # eager: a kernel for any number of rows


def test_one_program_folds_any_number_of_rows_and_columns() -> None:
    def both(x: graphc.Tensor, rows: graphc.Tensor) -> tuple[graphc.Tensor, ...]:
        return x.sum(0), rows.sum(1), x.amax(0), rows.amax(1), graphc.softmax(x, 0), graphc.softmax(rows, 1).t()

    compiled = graphc.compile(both, dynamic=True)
    for length in (2, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 96, 128, 129, 290, 4095, 4096, 4097, 8200):
        x = graphc.tensor(sample(length * 5, float32, length).reshape(length, 5))
        results = compiled(x, x.t().contiguous())
        for column, row in zip(results[::2], results[1::2], strict=True):
            bits(column, row.contiguous())
    assert compiled.stats()["traces"] == 1


def test_a_pass_over_columns_that_stores_rows() -> None:
    x = graphc.tensor(sample(70 * 300, float32).reshape(70, 300))

    def both(x: graphc.Tensor, dim: int) -> tuple[graphc.Tensor, ...]:
        spread = (x.var(dim, keepdim=True) + 1).sqrt()
        return (x - x.mean(dim, True)) / spread, graphc.nn.functional.softmax(x, dim)

    normal = graphc.compile(both)
    for column, row in zip(normal(x, 0), normal(x.t().contiguous(), 1), strict=True):
        bits(column, row.t())


# ---- short axes ----------------------------------------------------------------------------------------------------

FOLDS = {
    "sum": lambda x, c: (x[:, None] - c).sum(-1),
    "prod": lambda x, c: (x[:, None] * c).prod(-1),
    "amax": lambda x, c: (x[:, None] - c).amax(-1),
    "amin": lambda x, c: (x[:, None] - c).amin(-1),
    "all": lambda x, c: (x[:, None] > c).all(-1),
    "any": lambda x, c: (x[:, None] > c).any(-1),
    "middle": lambda x, c: ((x[:, :, None] - c.t()) ** 2).sum(1),
    "norm": lambda x, c: ((x[:, None] - c) ** 2).sum(-1).argmin(1),
    "columns": lambda x, c: (x.t()[:, :, None] * c.t()[:, None]).sum(0),
}


@pytest.mark.parametrize("name", FOLDS)
@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64, graphc.int32], ids=str)
def test_short_axes_are_folded_as_loops_are(name: str, dtype: graphc.dtype) -> None:
    for length in (2, 3, 8, 13, 16):
        x = graphc.tensor(sample(40 * length, float32, 1).reshape(40, length)).to(dtype)
        c = graphc.tensor(sample(33 * length, float32, 2).reshape(33, length)).to(dtype)
        if dtype is not graphc.int32:
            x[3, 1], x[4], c[5], x[6, 0] = float("nan"), 0.0, -0.0, float("inf")
            c[:, 0] = -0.0
        bits(graphc.compile(FOLDS[name])(x, c), FOLDS[name](x, c))


def test_short_axes_leave_loops_that_read_all() -> None:
    x = graphc.tensor(sample(500 * 12, float32).reshape(500, 12))
    for function, looped in ((lambda x: (x * x).sum(1), True), (lambda x: (x[:, None] * x[:40]).sum(2), False)):
        compiled = graphc.compile(function)
        compiled(x)
        assert ("reduce_sum" in str(compiled.explain())) == looped


# ---- stores past the caches, wide vectors --------------------------------------------------------------------------


def test_streamed_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "STREAM_NBYTES", 256)
    x = graphc.tensor(sample(37 * 96, float32).reshape(37, 96))

    def f(x: graphc.Tensor) -> tuple[graphc.Tensor, ...]:
        normal = graphc.nn.functional.layer_norm(x, (96,), x[0], x[1])
        return x + 1, normal, graphc.nn.functional.softmax(x, 1), x.t().contiguous(), x[:, 5:].relu()

    for got, expected in zip(graphc.compile(f)(x), f(x), strict=True):
        bits(got, expected)


@pytest.mark.parametrize("lanes", [8, 16, 32])
def test_streamed_stores_where_lines_begin_elsewhere(lanes: int) -> None:
    p, v = sym("p"), Dim.symbol("v", 0, high=69)
    body = loop("v", 70, "vector", Store("out", p * 80 + v, fn("add", load("x", p * 80 + v), load("x", p * 80 + v)), True))
    kernel = Kernel("k", (Param("x", "in", float32, 800), Param("out", "out", float32, 800)), (loop("p", 10, "parallel", body),))
    x = sample(800, float32)
    module = Module([kernel], lanes)
    assert "stream out" in str(kernel)
    for start in range(0, 17, 4):
        whole = np.full(900, 7, np.float32)
        out = whole[start : start + 800]
        module("k", x, out)
        expected = np.full(800, 7, np.float32)
        expected.reshape(10, 80)[:, :70] = 2 * x.reshape(10, 80)[:, :70]
        same_bits(out, expected)
        assert (whole[:start] == 7).all() and (whole[start + 800 :] == 7).all()


def test_widths() -> None:
    def kernel(extent: object, offset: object, live: int = 1) -> Kernel:
        value = load("x", offset)  # type: ignore[arg-type]
        for _ in range(live):
            value = fn("add", value, load("x", offset))  # type: ignore[arg-type, assignment]
        return Kernel("k", (), (loop("v", extent, "vector", Store("out", sym("v"), value)),))  # type: ignore[arg-type]

    v = sym("v")
    assert width(kernel(100, v), 8) == 16
    assert width(kernel(sym("n"), v), 16) == 32
    assert width(kernel(100, v), 32) == 32
    assert width(kernel(10, v), 8) == 8
    assert width(kernel(100, v * 3), 8) == 8
    whole, out = guarded(100, float32)
    assert Module([kernel_of_copies(100)], 8)("copies", sample(100, float32), whole) == 0
    intact(whole, 100)
    same_bits(out, 2 * sample(100, float32))


def kernel_of_copies(count: int) -> Kernel:
    value = fn("add", load("x", sym("v")), load("x", sym("v")))
    params = (Param("x", "in", float32, count), Param("out", "out", float32, count))
    return Kernel("copies", params, (loop("v", count, "vector", Store("out", sym("v"), value)),))
