"""Kernels lowered from graphs, rendered as CUDA and run by the shim: each the same bits as the Python renderer."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from cuda import shim
from cuda.nvrtc import Nvrtc
from graph_cases import random_array, same_bits
from graphc.codegen import python
from graphc.codegen.cuda.prelude import NVRTC_OPTIONS
from graphc.codegen.cuda.render import source
from graphc.dims import evaluate
from graphc.ir.loops import Kernel
from graphc.ir.text import parse_graph
from graphc.pipeline import optimise
from graphc.schedule.schedule import schedule

# Sizes that are no multiple of 32, 64 or 4096, and some that are; rows, columns, tiles that do not fill.
GRAPHS = {
    "pointwise": """
        graph @g(%x: f32[37, 130], %b: f32[130], %c: bf16[37, 1]) {
          %0 = mul(%x, %b) : f32[37, 130]
          %1 = sigmoid(%0) : f32[37, 130]
          %2 = cast(%c, dtype=f32) : f32[37, 1]
          %3 = add(%1, %2) : f32[37, 130]
          return %3
        }""",
    "flat": """
        graph @g(%x: f32[70, 130], %y: f32[70, 130]) {
          %0 = mul(%x, %y) : f32[70, 130]
          %1 = add(%0, %x) : f32[70, 130]
          return %1
        }""",
    "transposed": """
        graph @g(%x: f32[37, 65], %y: f32[65, 37]) {
          %0 = permute(%x, dims=(1, 0)) : f32[65, 37]
          %1 = add(%0, %y) : f32[65, 37]
          return %1
        }""",
    "softmax": """
        graph @g(%x: f32[5, 133]) {
          %0 = amax(%x, dims=(1,), keepdim=true) : f32[5, 1]
          %1 = sub(%x, %0) : f32[5, 133]
          %2 = exp(%1) : f32[5, 133]
          %3 = sum(%2, dims=(1,), keepdim=true) : f32[5, 1]
          %4 = div(%2, %3) : f32[5, 133]
          return %4
        }""",
    "softmax_of_columns": """
        graph @g(%x: f32[35, 70]) {
          %0 = amax(%x, dims=(0,), keepdim=true) : f32[1, 70]
          %1 = sub(%x, %0) : f32[35, 70]
          %2 = exp(%1) : f32[35, 70]
          %3 = sum(%2, dims=(0,), keepdim=true) : f32[1, 70]
          %4 = div(%2, %3) : f32[35, 70]
          return %4
        }""",
    "sums": """
        graph @g(%x: f32[40, 100], %y: f32[33, 10]) {
          %0 = sum(%x, dims=(1,), keepdim=false) : f32[40]
          %1 = sum(%x, dims=(0,), keepdim=false) : f32[100]
          %2 = sum(%y, dims=(0,), keepdim=false) : f32[10]
          %3 = sum(%x, dims=(0, 1), keepdim=false) : f32[]
          return %0, %1, %2, %3
        }""",
    "running_sums": """
        graph @g(%x: f32[9, 100], %y: i64[3, 50]) {
          %0 = cumsum(%x, dim=0) : f32[9, 100]
          %1 = cumsum(%y, dim=1) : i64[3, 50]
          return %0, %1
        }""",
    "recurrent": """
        graph @g(%x: f32[3, 7, 15], %h: f32[7, 5], %w: f32[15, 5], %b: f32[5], %n: i64[7]) {
          %0, %1 = gru_sequence(%x, %h, %w, %b, %n, reverse=false, projected=false, masked=true) : f32[4, 7, 5], f32[3, 7, 20]
          return %0, %1
        }""",
    "recurrent_backward": """
        graph @g(%d: f32[3, 7, 3], %e: f32[3, 7, 5], %s: f32[3, 7, 3], %t: f32[3, 7, 5], %k: f32[2, 7, 25], %x: f32[2, 7, 20],
                 %h: f32[7, 3], %w: f32[20, 3], %c: f32[7, 5], %p: f32[3, 5]) {
          %0, %1, %2 = lstm_sequence_backward(%d, %e, %s, %t, %k, %x, %h, %w, %c, %p, reverse=true, projected=true,
            masked=false) : f32[2, 7, 25], f32[3, 7, 3], f32[7, 5]
          return %0, %1, %2
        }""",
    "attention": """
        graph @g(%q: f32[2, 2, 19, 8], %k: f32[2, 1, 37, 8], %v: f32[37, 6], %r: f32[2, 1, 1, 8]) {
          %0, %1 = attention(%q, %k, %v, is_causal=true, scale=0.5) : f32[2, 2, 19, 6], f32[2, 2, 19, 2]
          %2, %3 = attention(%r, %k, %v, is_causal=false, scale=0.5) : f32[2, 1, 1, 6], f32[2, 1, 1, 2]
          %4, %5, %6 = attention_backward(%0, %0, %1, %q, %k, %v, is_causal=true, scale=0.5)
            : f32[2, 2, 19, 8], f32[2, 1, 37, 8], f32[2, 1, 37, 6]
          return %0, %2, %4, %5, %6
        }""",
    "indices": """
        graph @g(%x: f32[7, 40], %i: i64[5]) {
          %0 = index_select(%x, %i, dim=0) : f32[5, 40]
          return %0
        }""",
    "scatter": """
        graph @g(%x: f32[7, 40], %j: i64[7, 40], %y: f32[7, 40]) {
          %0 = scatter_add(%x, %j, %y, dim=0) : f32[7, 40]
          return %0
        }""",
    "matmul": """
        graph @g(%x: f32[13, 600], %y: f32[600, 35]) {
          %0 = matmul(%x, %y) : f32[13, 35]
          %1 = tanh(%0) : f32[13, 35]
          return %1
        }""",
    "matmul_batch": """
        graph @g(%x: f32[3, 7, 20], %y: f32[3, 20, 32]) {
          %0 = matmul(%x, %y) : f32[3, 7, 32]
          return %0
        }""",
    **{
        f"{short}_integers": """
        graph @g(%x: i8[37, 70], %y: i8[37, 70], %f: f32[37, 70]) {
          %0 = add(%x, %y) : i8[37, 70]
          %1 = mul(%0, %y) : i8[37, 70]
          %2 = sub(%1, %x) : i8[37, 70]
          %3 = floor_divide(%2, %y) : i8[37, 70]
          %4 = remainder(%2, %y) : i8[37, 70]
          %5 = fmod(%2, %y) : i8[37, 70]
          %6 = bitwise_left_shift(%x, %y) : i8[37, 70]
          %7 = bitwise_right_shift(%x, %y) : i8[37, 70]
          %8 = bitwise_xor(%6, %7) : i8[37, 70]
          %9 = bitwise_not(%8) : i8[37, 70]
          %10 = abs(%2) : i8[37, 70]
          %11 = neg(%10) : i8[37, 70]
          %12 = sign(%11) : i8[37, 70]
          %13 = pow(%x, %y) : i8[37, 70]
          %14 = maximum(%3, %4) : i8[37, 70]
          %15 = lt(%x, %y) : bool[37, 70]
          %16 = where(%15, %5, %14) : i8[37, 70]
          %17 = cast(%f, dtype=i8) : i8[37, 70]
          %18 = cast(%x, dtype=f32) : f32[37, 70]
          %19 = cast(%x, dtype=i64) : i64[37, 70]
          %20 = sum(%19, dims=(1,), keepdim=false) : i64[37]
          %21 = amax(%x, dims=(0,), keepdim=false) : i8[70]
          %22 = sum(%y, dims=(0, 1), keepdim=false) : i8[]
          return %9, %12, %13, %16, %17, %18, %20, %21, %22
        }""".replace("i8", short)
        for short in ("i8", "u8", "i16")
    },
}


def lowered(text: str) -> list[Kernel]:
    return [launch.kernel for launch in schedule(optimise(parse_graph(text))).launches]


@pytest.fixture(scope="module", params=GRAPHS)
def kernels(request: pytest.FixtureRequest) -> list[Kernel]:
    return lowered(GRAPHS[request.param])


@pytest.fixture(scope="module")
def library(kernels: list[Kernel], request: pytest.FixtureRequest) -> ctypes.CDLL:
    assert request.config.cache is not None
    cache: Path = request.config.cache.mkdir("cuda_shim")
    return shim.build(source(kernels), [kernel.name for kernel in kernels], cache)


def filled(kernel: Kernel) -> dict[str, np.ndarray]:
    """Inputs of a kernel of static sizes, edge values among them; outputs full of a pattern."""
    generator = np.random.default_rng(7)
    made = {}
    for param in kernel.params:
        assert param.role != "size"
        special = param.dtype.kind == "f" or param.dtype.itemsize < 4  # wider integers may be indices
        array = random_array(generator, param.dtype, (evaluate(param.size, {}),), special)
        if param.role == "out":
            array.view(np.uint8)[:] = 1
        made[param.name] = array
    return made


@pytest.mark.parametrize("schedule", shim.SCHEDULES)
def test_lowered_kernels_have_the_same_bits_as_in_python(library: ctypes.CDLL, kernels: list[Kernel], schedule: int) -> None:
    for kernel in kernels:
        expected = filled(kernel)
        status = python.run(kernel, expected, {})
        found, found_status = shim.run(library, kernel, filled(kernel), {}, schedule)
        for parameter, array in expected.items():
            assert same_bits(found[parameter], array), f"{parameter} of\n{kernel}"
        assert found_status == status


def test_lowered_kernels_compile_without_a_word(kernels: list[Kernel]) -> None:
    nvrtc = Nvrtc()
    for architecture in ("sm_80", "sm_90a"):
        _, log = nvrtc.compile(source(kernels), architecture, NVRTC_OPTIONS)
        assert log.strip() == ""
