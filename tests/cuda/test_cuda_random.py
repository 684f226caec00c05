"""Random graphs, scheduled, rendered as CUDA and run launch by launch by the shim: the bits of the compiled CPU program and
of eager calls.

Both backends render the same loops from the same definitions, so nothing is compared by tolerance.  All kernels of all
programs are one source, compiled by g++ once.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import pytest

from cuda import shim
from cuda.lowered import Lowered, library_of, lower
from cuda.wide_programs import WideProgram
from graph_cases import Array, assert_same_bits, parse_graph, print_graph, run_compiled
from graphc.dims import evaluate
from graphc.ir.graph import Graph
from op_checks import with_gradients
from random_programs import RandomProgram
from test_random_programs import M, N, run_eagerly, symbolic_text

FORWARD = range(5000, 5016)
GRADIENTS = range(5100, 5104)
SYMBOLIC = range(5200, 5204)


@dataclass(frozen=True)
class Case:
    """A random graph, its inputs, its lowering."""

    graph: Graph
    inputs: list[Array]
    lowered: Lowered


def case(seed: int) -> Case:
    program = WideProgram(seed)
    graph = program.graph
    if seed in GRADIENTS:
        graph = with_gradients(graph, [v for v in graph.inputs if v.dtype.kind == "f"], seed)
    return Case(graph, program.arrays(), lower(graph))


def symbolic_case(seed: int) -> Case:
    program = RandomProgram(seed, steps=16, sizes=(1, 2, 3, N, M, N, M), without=("slice", "host"))
    graph = parse_graph(symbolic_text(print_graph(program.graph)))
    return Case(graph, program.arrays(), lower(graph))


@pytest.fixture(scope="module")
def cases() -> dict[int, Case]:
    made = {seed: case(seed) for seed in (*FORWARD, *GRADIENTS)}
    return made | {seed: symbolic_case(seed) for seed in SYMBOLIC}


@pytest.fixture(scope="module")
def library(cases: dict[int, Case], request: pytest.FixtureRequest) -> ctypes.CDLL:
    assert request.config.cache is not None
    return library_of([one.lowered for one in cases.values()], request.config.cache.mkdir("cuda_shim"))


@pytest.mark.parametrize("seed", [*FORWARD, *GRADIENTS])
def test_a_random_program_has_the_bits_of_the_cpu(cases: dict[int, Case], library: ctypes.CDLL, seed: int) -> None:
    graph, inputs = cases[seed].graph, cases[seed].inputs
    wanted = run_compiled(graph, inputs)
    assert_same_bits(run_eagerly(graph, inputs), wanted, f"{graph}\neager")
    for order in shim.SCHEDULES:
        outputs, left, status = cases[seed].lowered.run(library, inputs, order)
        assert status == 0
        assert_same_bits(outputs, wanted, f"{graph}\nschedule {order}")
        assert_same_bits(left, inputs, f"{graph}\nschedule {order}, inputs")


@pytest.mark.parametrize("larger", [1, 5])
@pytest.mark.parametrize("seed", SYMBOLIC)
def test_kernels_of_symbolic_sizes_have_the_bits_of_the_cpu(
    cases: dict[int, Case], library: ctypes.CDLL, seed: int, larger: int
) -> None:
    graph, lowered = cases[seed].graph, cases[seed].lowered
    sizes = {"N": N * larger, "M": M * larger}
    shapes = [[evaluate(d, sizes) for d in v.shape] for v in graph.inputs]
    inputs = [np.resize(a, shape) for a, shape in zip(cases[seed].inputs, shapes, strict=True)]
    wanted = run_compiled(graph, inputs, sizes=sizes)
    for order in shim.SCHEDULES:
        outputs, _, status = lowered.run(library, inputs, order, sizes)
        assert status == 0
        assert_same_bits(outputs, wanted, f"{graph}\nschedule {order}")


def test_the_programs_reach_what_they_are_for(cases: dict[int, Case]) -> None:
    """Operators and dtypes that some node of some program has, and kernels of every mapping."""
    nodes = [node for seed in FORWARD for node in cases[seed].graph.nodes]
    assert {node.op.name for node in nodes} >= {
        *("softmax", "layer_norm", "gelu", "matmul", "linear", "gather", "embedding", "cumsum", "scatter_add"),
        *("permute", "slice", "cat", "where", "floor_divide", "remainder", "index_select", "index", "index_put", "cummax"),
    }
    assert {value.dtype.short for node in nodes for value in (*node.inputs, *node.outputs)} >= {
        *("f32", "f64", "f16", "bf16", "i64", "bool"),
    }
    launches = [launch for one in cases.values() for launch in one.lowered.program.launches]
    assert {launch.mapping.shape for launch in launches} == {"thread", "rectangle", "warp"}
