"""Rendered CUDA, compiled by NVRTC: no complaint, wide memory accesses, nothing contracted.  No device needed."""

from __future__ import annotations

import re

import pytest

from cuda.kernels import CASES
from cuda.lowered import lower, source_of
from cuda.nvrtc import Nvrtc
from cuda.training import training_program
from cuda.wide_programs import WideProgram
from graphc.codegen.cuda.prelude import NVRTC_OPTIONS, PRELUDE
from graphc.codegen.cuda.render import render, source


@pytest.fixture(scope="module")
def nvrtc() -> Nvrtc:
    return Nvrtc()


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
def test_every_kernel_compiles_without_a_word(nvrtc: Nvrtc, architecture: str) -> None:
    cubin, log = nvrtc.compile(source([case.kernel for case in CASES.values()]), architecture, NVRTC_OPTIONS)
    assert log.strip() == ""
    assert cubin.startswith(b"\x7fELF")


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
def test_a_training_step_compiles_without_a_word(nvrtc: Nvrtc, architecture: str) -> None:
    cubin, log = nvrtc.compile(training_program().program.source, architecture, NVRTC_OPTIONS)
    assert log.strip() == ""
    assert cubin.startswith(b"\x7fELF")


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
def test_random_programs_compile_without_a_word(nvrtc: Nvrtc, architecture: str) -> None:
    programs = [lower(WideProgram(seed).graph) for seed in range(5000, 5004)]
    cubin, log = nvrtc.compile(source_of(programs)[0], architecture, NVRTC_OPTIONS)
    assert log.strip() == ""
    assert cubin.startswith(b"\x7fELF")


def ptx(nvrtc: Nvrtc, name: str) -> str:
    text, log = nvrtc.compile(PRELUDE + render(CASES[name].kernel), "compute_80", NVRTC_OPTIONS, "PTX")
    assert log.strip() == ""
    return text.decode()


@pytest.mark.parametrize("name", ["pointwise_f32", "pointwise_bf16", "pointwise_rows"])
def test_pointwise_kernels_load_and_store_sixteen_bytes(nvrtc: Nvrtc, name: str) -> None:
    text = ptx(nvrtc, name)
    assert re.search(r"ld\.global\.v4\.[bufs]32", text)
    assert re.search(r"st\.global\.v4\.[bufs]32", text)


def test_sixteen_bytes_are_asked_for_only_where_aligned(nvrtc: Nvrtc) -> None:
    assert ".v4." not in ptx(nvrtc, "row_softmax")


def test_fma_is_where_the_kernel_says_and_nowhere_else(nvrtc: Nvrtc) -> None:
    assert "fma.rn.f32" not in ptx(nvrtc, "pointwise_bf16")  # x*y + 1.25 stays two roundings
    assert "fma.rn.f32" in ptx(nvrtc, "matmul")


def test_register_tiles_stay_in_registers(nvrtc: Nvrtc) -> None:
    assert ".local" not in ptx(nvrtc, "matmul")
