"""Random graphs, scheduled, rendered as CUDA and run launch by launch by the shim: the bits of the compiled CPU program and
of eager calls.

Both backends render the same loops from the same definitions, so nothing is compared by tolerance.  All kernels of all
programs are one source, compiled by g++ once.
"""

from __future__ import annotations

import ctypes

import pytest

from cuda import shim
from cuda.lowered import Lowered, library_of, lower
from cuda.wide_programs import WideProgram
from graph_cases import assert_same_bits, run_compiled
from op_checks import with_gradients
from test_random_programs import run_eagerly

SEEDS = range(5000, 5012)


@pytest.fixture(scope="module")
def random_programs() -> dict[int, tuple[WideProgram, Lowered]]:
    made = {}
    for seed in SEEDS:
        program = WideProgram(seed)
        made[seed] = program, lower(program.graph)
    return made


@pytest.fixture(scope="module")
def library(
    random_programs: dict[int, tuple[WideProgram, Lowered]], request: pytest.FixtureRequest
) -> ctypes.CDLL:
    assert request.config.cache is not None
    return library_of([lowered for _, lowered in random_programs.values()], request.config.cache.mkdir("cuda_shim"))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_program_has_the_bits_of_the_cpu(
    random_programs: dict[int, tuple[WideProgram, Lowered]], library: ctypes.CDLL, seed: int
) -> None:
    program, lowered = random_programs[seed]
    inputs = program.arrays()
    wanted = run_compiled(program.graph, inputs)
    assert_same_bits(run_eagerly(program.graph, inputs), wanted, f"{program.graph}\neager")
    for order in shim.SCHEDULES:
        assert_same_bits(lowered.run(library, inputs, order)[0], wanted, f"{program.graph}\nschedule {order}")


def test_the_programs_reach_what_they_are_for(random_programs: dict[int, tuple[WideProgram, Lowered]]) -> None:
    """Operators and dtypes that some node of some program has, and kernels of every mapping."""
    nodes = [node for program, _ in random_programs.values() for node in program.graph.nodes]
    assert {node.op.name for node in nodes} >= {
        *("softmax", "layer_norm", "gelu", "matmul", "linear", "gather", "embedding", "cumsum", "scatter_add"),
        *("permute", "slice", "cat", "where", "floor_divide", "remainder", "index_select"),
    }
    assert {value.dtype.short for node in nodes for value in (*node.inputs, *node.outputs)} >= {
        *("f32", "f64", "f16", "bf16", "i64", "bool"),
    }
    launches = [launch for _, lowered in random_programs.values() for launch in lowered.program.launches]
    assert {launch.mapping.shape for launch in launches} == {"thread", "rectangle", "warp"}
