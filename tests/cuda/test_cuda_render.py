"""Rendered CUDA, run on the CPU by the shim: the same bits as the Python renderer, whatever order warps and lanes run in."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path


import numpy as np
import pytest
from cuda import shim
from cuda.kernels import CASES, Case

from graphc.codegen import python
from graphc.codegen.cuda.mapping import map_kernel
from graphc.codegen.cuda.prelude import PRELUDE
from graphc.codegen.cuda.render import render, source


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
