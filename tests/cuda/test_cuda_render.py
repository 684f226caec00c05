"""Rendered CUDA, run on the CPU by the shim: the same bits as the Python renderer, whatever order warps and lanes run
in."""

from __future__ import annotations

import ctypes
import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cuda import shim
from cuda.kernels import CASES, Case
from graphc.codegen import python
from graphc.codegen.cuda.mapping import map_kernel
from graphc.codegen.cuda.prelude import PRELUDE
from graphc.codegen.cuda.render import render, source
from graphc.codegen.mathlib import NAMES
from graphc.dims import Dim
from graphc.dtypes import bfloat16, float32, int64
from graphc.errors import IRError
from graphc.ir.loops import Acc, Alloc, Call, Const, For, Kernel, Load, Param, Stmt, Store, Update, Var, walk


@pytest.fixture(scope="session")
def cache(request: pytest.FixtureRequest) -> Path:
    assert request.config.cache is not None
    return request.config.cache.mkdir("cuda_shim")


@pytest.fixture(scope="session")
def library(cache: Path) -> ctypes.CDLL:
    """All cases' kernels, one compilation."""
    return shim.build(source([case.kernel for case in CASES.values()]), list(CASES), cache)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bit for bit; any NaN equals any other."""
    if a.dtype.kind in "fV" or a.dtype.name == "bfloat16":
        nan = np.isnan(a) & np.isnan(b)
        a, b = np.where(nan, np.zeros_like(a), a), np.where(nan, np.zeros_like(b), b)
    return a.tobytes() == b.tobytes()


def expect_as_python(library: ctypes.CDLL, case: Case, sizes: dict[str, int], schedule: int, skew: int = 0) -> None:
    expected = case.buffers(sizes)
    status = python.run(case.kernel, expected, sizes)
    found, found_status = shim.run(library, case.kernel, case.buffers(sizes), sizes, schedule, skew)
    for name, array in expected.items():
        assert same_bits(found[name], array), f"{case.kernel.name} {sizes}: buffer {name} differs"
    assert found_status == status


@pytest.mark.parametrize("schedule", shim.SCHEDULES)
@pytest.mark.parametrize("name", CASES)
def test_same_bits_as_the_python_renderer(library: ctypes.CDLL, name: str, schedule: int) -> None:
    for sizes in CASES[name].sizes:
        expect_as_python(library, CASES[name], sizes, schedule)


@pytest.mark.parametrize("name", ["pointwise_f32", "pointwise_bf16", "pointwise_mixed", "row_softmax"])
def test_buffers_that_are_not_aligned(library: ctypes.CDLL, name: str) -> None:
    expect_as_python(library, CASES[name], CASES[name].sizes[-1], 0, skew=1)


@pytest.mark.parametrize("schedule", shim.SCHEDULES)
@pytest.mark.parametrize("name", ["pointwise_f32", "row_softmax"])
def test_an_output_that_lies_over_an_input(library: ctypes.CDLL, name: str, schedule: int) -> None:
    case = CASES[name]
    for sizes in case.sizes:
        expected = case.buffers(sizes)
        expected["out"] = expected["x"]
        python.run(case.kernel, expected, sizes)
        found, _ = shim.run(library, case.kernel, case.buffers(sizes), sizes, schedule, same={"out": "x"})
        assert same_bits(found["out"], expected["out"])


@pytest.mark.parametrize(
    ("target", "value", "rounded"),
    [("f16", 1 + 2.0**-11 + 2.0**-40, 1.0), ("bf16", 1 + 2.0**-8 + 2.0**-40, 1.0), ("f16", 65519.9999999, np.inf)],
)
def test_float64_goes_to_sixteen_bits_through_float32(library: ctypes.CDLL, target: str, value: float, rounded: float) -> None:
    """Rounded at once, each would be the next number above, or below."""
    case = replace(CASES["conversions_f64"], fill=lambda generator, count, dtype: np.full(count, value, dtype.numpy))
    found, _ = shim.run(library, case.kernel, case.buffers({"n": 9}), {"n": 9}, 0)
    assert (found[f"cast_{target}"].astype(np.float64) == rounded).all()


def test_every_function_of_the_mathlib_is_among_the_cases() -> None:
    called = {
        value.fn
        for case in CASES.values()
        for statement in walk(case.kernel.body)
        if isinstance(statement, Store) and isinstance(value := statement.value, Call)
    }
    assert called >= NAMES


# ---- what the checks find --------------------------------------------------------------------------------------------

BARRIER = "warp_barrier();"


def without_barrier(text: str, which: int) -> str:
    parts = text.split(BARRIER)
    return BARRIER.join(parts[: which + 1]) + ";" + BARRIER.join(parts[which + 1 :])


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("reversal", [0, 1]),  # write before others read, read before others write again
        # the previous row's readers; lane 0's store.  Barriers 1 and 3 serve an output that lies over an input.
        ("row_norm", [0, 2]),
    ],
)
def test_a_removed_barrier_is_found(cache: Path, name: str, needed: list[int]) -> None:
    case = CASES[name]
    texts = {f"{name}_{which}": render(case.kernel.renamed(f"{name}_{which}")) for which in needed}
    mutants = [without_barrier(text, which) for which, text in zip(needed, texts.values(), strict=True)]
    library = shim.build(PRELUDE + "\n".join(mutants), list(texts), cache)
    for mutant in texts:
        broken = Case(case.kernel.renamed(mutant), case.sizes, case.fill)
        failures = 0
        for sizes, schedule in itertools.product(case.sizes, shim.SCHEDULES):
            try:
                expect_as_python(library, broken, sizes, schedule)
            except AssertionError:
                failures += 1
        assert failures, f"no schedule shows that {mutant} lacks a barrier"


WRONG = {
    "leaves_early": ("if (threadIdx.x == 3) return; warp_barrier();", "left the kernel"),
    "barrier_of_some": ("if (threadIdx.x < 5) warp_barrier();", "left the kernel|deadlock"),
    "different_meetings": ("if (threadIdx.x < 5) warp_barrier(); else shuffle_xor(1u, 1);", "different collectives"),
    "shared_overrun": ("__shared__ f32 row[4]; row[threadIdx.x] = 0; out[0] = row[0];", "undefined behaviour"),
    "misaligned": ("store_wide(out + 1, load_wide<4>(x));", "undefined behaviour"),
    "out_of_buffer": ("out[n + threadIdx.x % 8] = 0;", "outside of buffer out"),
    "wild": ("out[n << 40] = 0;", "wild address"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_shim_finds_what_is_wrong(cache: Path, name: str) -> None:
    head = 'extern "C" __global__ void {}(const f32* x, f32* out, i64 n, i64* status, i64 extent) {{ {} }}'
    text = "\n".join(head.format(wrong, body) for wrong, (body, _) in WRONG.items())
    library = shim.build(PRELUDE + text, list(WRONG), cache)
    wrong = CASES["row_softmax"].kernel
    broken = replace(wrong, name=name, params=tuple(p for p in wrong.params if p.name != "m"))
    buffers = {"x": np.ones(32, np.float32), "out": np.ones(32, np.float32)}
    with pytest.raises(shim.KernelFailure, match=WRONG[name][1]):
        shim.run(library, broken, buffers, {"n": 32, "m": 1}, 0)


def test_unwritten_shared_memory_is_nan(cache: Path) -> None:
    text = 'extern "C" __global__ void unwritten(const f32* x, f32* out, i64 n, i64* status, i64 extent) '
    text += "{ __shared__ f32 row[256]; out[threadIdx.x % 32] = row[threadIdx.x]; }"
    library = shim.build(PRELUDE + text, ["unwritten"], cache)
    model = CASES["row_softmax"].kernel
    broken = replace(model, name="unwritten", params=tuple(p for p in model.params if p.name != "m"))
    buffers = {"x": np.ones(32, np.float32), "out": np.ones(32, np.float32)}
    found, _ = shim.run(library, broken, buffers, {"n": 32, "m": 1}, 0)
    assert np.isnan(found["out"]).all()


# ---- text, errors, geometry ------------------------------------------------------------------------------------------


def test_the_text_of_a_reduction() -> None:
    p, k, m = Dim.symbol("p"), Dim.symbol("k"), Dim.symbol("m")
    x, total = Load("x", p * 8 + k, float32), Var("total", float32)
    body = (Acc("total", "add", float32), For("k", 8, "lanes", (Update("total", x),)), Store("out", p, total))
    params = (Param("x", "in", float32, m * 8), Param("out", "out", float32, m), Param("m", "size", int64))
    text = render(Kernel("sums", params, (For("p", m, "parallel", body),)))
    assert text.split("\n", 1)[0] == (
        'extern "C" __global__ void __launch_bounds__(256) sums(const f32* x, f32* out, i64 m, i64* gpu_status, i64 gpu_extent) {'
    )
    rest = """\
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (i64 p = blockIdx.x * (i64)8 + warp; p < gpu_extent; p += (i64)gridDim.x * 8) {
    f32 total = 0x0.0p+0f;
    for (i64 k_block = 0; k_block < 8; k_block += 4096) {
      const i64 k_end = minimum<i64>(k_block + 4096, 8);
      f32 total_lane = 0x0.0p+0f;
      for (i64 k = k_block + lane; k < k_end; k += 32) {
        total_lane = fold_add::of(total_lane, x[k + p * 8]);
      }
      total = fold_add::of(total, fold_lanes<fold_add>(total_lane));
    }
    warp_barrier();
    if (lane == 0) {
      out[p] = total;
    }
  }
}
"""
    assert text.split("\n", 1)[1] == rest


def test_no_source_includes_a_header_outside_of_the_shim() -> None:
    text = source([case.kernel for case in CASES.values()])
    assert re.findall(r"#include.*", text) == ['#include "cuda_on_cpu.h"']
    assert text.index("#ifdef GRAPHC_CPU_SHIM") < text.index("#include") < text.index("#else")


def test_names_that_c_plus_plus_has_are_changed() -> None:
    text = render(CASES["pointwise_f32"].kernel)
    assert "const f32 double_2 =" in text
    assert re.search(r"\bdouble\b", text) is None


def parallel(*body: Stmt, params: tuple[Param, ...] = ()) -> Kernel:
    return Kernel("broken", params, (For("p", 4, "parallel", body),))


HALF = Load("x", Dim.symbol("p"), bfloat16)


@pytest.mark.parametrize(
    ("kernel", "error", "message"),
    [
        (parallel(Alloc("s", float32, 16384), Store("s", 0, Const(0.0, float32)), For("v", 9, "vector", ())),
         NotImplementedError, "needs 65536 bytes of scratch"),
        (parallel(Store("x", 0, Call("add", (HALF, HALF), bfloat16))), IRError, "add of bf16"),
        (parallel(For("k", 9, "lanes", (Update("a", HALF),))), IRError, "not an accumulator"),
        (parallel(Acc("a", "add", bfloat16), For("k", 9, "lanes", (Update("a", HALF),))), IRError, "not accumulated"),
        (parallel(Store("x", 0, HALF), params=(Param("x", "in", bfloat16, 4),)), IRError, "stores to x"),
        (parallel(Update("a", HALF)), IRError, "not an accumulator"),
        (parallel(For("v", 9, "vector", (For("k", 9, "lanes", ()),))), IRError, "inside a loop of single lanes"),
        (parallel(Store("x", 0, Call("no_such", (Const(0.0, float32),), float32))), IRError, "no_such"),
    ],
)  # fmt: skip
def test_what_cannot_be_rendered_is_refused(kernel: Kernel, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        render(kernel)


@pytest.mark.parametrize(
    ("name", "extent", "sizes", "grid", "block"),
    [
        ("pointwise_f32", 1, {"n": 4}, (1, 1), (1, 256)),
        ("pointwise_f32", 4, {"n": 4096}, (4, 1), (256, 1)),
        ("pointwise_f32", 10**6, {"n": 1024 * 10**6}, (132 * 16, 1), (256, 1)),
        ("pointwise_rows", 1, {"m": 1, "n": 2**30}, (1, 132 * 16), (256, 1)),
        ("pointwise_rows", 1000, {"m": 1000, "n": 12}, (16, 1), (4, 64)),
        ("one_thread_each", 1000, {"m": 1000, "n": 9}, (4, 1), (256, 1)),
        ("row_softmax", 1000, {"m": 1000, "n": 9}, (125, 1), (256, 1)),
        ("row_softmax", 0, {"m": 0, "n": 9}, (1, 1), (256, 1)),
        ("long_row", 5, {"m": 5}, (1, 1), (256, 1)),
    ],
)
def test_launch_geometry(name: str, extent: int, sizes: dict[str, int], grid: tuple[int, int], block: tuple[int, int]) -> None:
    assert map_kernel(CASES[name].kernel).launch(extent, sizes, processors=132) == (grid, block)


def test_scratch_too_large_for_eight_warps_gets_fewer() -> None:
    reversed_row = Load("s", 2999 - Dim.symbol("v"), float32)
    body = (
        Alloc("s", float32, 3000),
        For("v", 3000, "vector", (Store("s", Dim.symbol("v"), Const(0.0, float32)),)),
        For("v", 3000, "vector", (Store("out", Dim.symbol("v"), reversed_row),)),
    )
    kernel = parallel(*body, params=(Param("out", "out", float32, 3000),))
    assert map_kernel(kernel).threads == 4 * 32
    assert "__shared__ f32 s_of_block[4][3000];" in render(kernel)
