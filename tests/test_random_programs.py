"""Random programs give the same bits compiled at any vector width, by the Python renderer, and eagerly node by node."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from graph_cases import (
    Array,
    assert_close,
    assert_same_bits,
    parse_graph,
    print_graph,
    run_compiled,
    run_in_python,
    run_interpreted,
)
from op_checks import with_gradients
from random_programs import LONG, SIZES, RandomProgram

from graphc.eager.creation import from_numpy
from graphc.ir.graph import Graph
from graphc.ir.verify import verify
from graphc.passes import PASSES


def run_eagerly(graph: Graph, arrays: Sequence[Array]) -> list[Array]:
    """Each node as an eager call."""
    values = {v: from_numpy(np.array(a, order="C")) for v, a in zip(graph.inputs, arrays, strict=True)}
    for node in graph.nodes:
        results = node.op.run(*(values[v] for v in node.inputs), **node.attrs)
        values.update(zip(node.outputs, results if isinstance(results, tuple) else (results,), strict=True))
    return [np.array(values[v].numpy_view()) for v in graph.outputs]


def check(graph: Graph, arrays: Sequence[Array], *, in_python: bool) -> None:
    """Every way of running a graph agrees."""
    verify(graph)
    assert print_graph(parse_graph(print_graph(graph))) == print_graph(graph)
    compiled = run_compiled(graph, arrays, lanes=8)
    for k, (got, wanted) in enumerate(zip(compiled, run_interpreted(graph, arrays), strict=True)):
        assert_close(got, wanted, f"{graph}\nresult {k} against the references", scale=20.0)
    for lanes in (4, 16):
        assert_same_bits(run_compiled(graph, arrays, lanes=lanes), compiled, f"{graph}\n{lanes} lanes")
    assert_same_bits(run_eagerly(graph, arrays), compiled, f"{graph}\neager")
    if in_python:
        assert_same_bits(run_in_python(graph, arrays), compiled, f"{graph}\nPython renderer")


@pytest.mark.parametrize("seed", range(40))
def test_a_small_program(seed: int) -> None:
    program = RandomProgram(seed)
    check(program.graph, program.arrays(), in_python=True)


@pytest.mark.parametrize("seed", range(1000, 1012))
def test_a_program_with_long_dims(seed: int) -> None:
    program = RandomProgram(seed, steps=10, sizes=(*SIZES, *LONG), rank=2)
    check(program.graph, program.arrays(), in_python=False)


@pytest.mark.parametrize("seed", range(2000, 2020))
def test_the_gradient_of_a_program(seed: int) -> None:
    program = RandomProgram(seed, steps=8)
    wanted = [v for v in program.graph.inputs if v.dtype.kind == "f"]
    graph = with_gradients(program.graph, wanted, seed)
    check(graph, program.arrays(), in_python=False)


@pytest.mark.parametrize("seed", range(40))
def test_passes_keep_the_results(seed: int) -> None:
    program = RandomProgram(seed)
    arrays = program.arrays()
    graph, wanted = program.graph, run_interpreted(program.graph, arrays)
    for one in PASSES:
        graph = one(graph)
        verify(graph)
        for got, expected in zip(run_interpreted(graph, arrays), wanted, strict=True):
            assert_close(got, expected, f"{one.__name__}\n{graph}", scale=20.0)
