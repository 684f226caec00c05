"""Random programs give the same bits compiled at any vector width, by the Python renderer, and eagerly node by node."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

import graphc
from graph_cases import (
    TOLERANCE,
    Array,
    assert_close,
    assert_same_bits,
    parse_graph,
    print_graph,
    random_inputs,
    run_compiled,
    run_in_python,
    run_interpreted,
)
from graphc import dtypes
from graphc.ir.graph import Graph
from graphc.ir.verify import verify
from graphc.passes import PASSES
from graphc.runtime.threads import get_num_threads, set_num_threads
from op_checks import with_gradients
from random_programs import LONG, SIZES, RandomProgram


def run_eagerly(graph: Graph, arrays: Sequence[Array]) -> list[Array]:
    """Each node as an eager call."""
    values = {v: graphc.from_numpy(np.array(a, order="C")) for v, a in zip(graph.inputs, arrays, strict=True)}
    for node in graph.nodes:
        results = node.op.run(*(values[v] for v in node.inputs), **node.attrs)
        values.update(zip(node.outputs, results if isinstance(results, tuple) else (results,), strict=True))
    return [np.array(values[v].numpy_view()) for v in graph.outputs]


def assert_near(graph: Graph, results: Sequence[Array], wanted: Sequence[Array]) -> None:
    """Within the tolerance of the narrowest dtype that the graph computes in."""
    narrowest = max(TOLERANCE[v.dtype.name] for n in graph.nodes for v in n.outputs if v.dtype.kind == "f")
    for k, (got, expected) in enumerate(zip(results, wanted, strict=True)):
        own = TOLERANCE[dtypes.from_numpy(got.dtype).name]
        assert_close(got, expected, f"{graph}\nresult {k} against the references", scale=20.0 * narrowest / own)


def check(graph: Graph, arrays: Sequence[Array], *, in_python: bool) -> None:
    """Every way of running a graph agrees."""
    verify(graph)
    assert print_graph(parse_graph(print_graph(graph))) == print_graph(graph)
    compiled = run_compiled(graph, arrays, lanes=8)
    assert_near(graph, compiled, run_interpreted(graph, arrays))
    for lanes in (4, 16):
        assert_same_bits(run_compiled(graph, arrays, lanes=lanes), compiled, f"{graph}\n{lanes} lanes")
    assert_same_bits(run_eagerly(graph, arrays), compiled, f"{graph}\neager")
    if in_python:
        assert_same_bits(run_in_python(graph, arrays), compiled, f"{graph}\nPython renderer")


@pytest.mark.parametrize("seed", range(16))
def test_a_small_program(seed: int) -> None:
    program = RandomProgram(seed)
    check(program.graph, program.arrays(), in_python=True)


@pytest.mark.parametrize("seed", range(1000, 1006))
def test_a_program_with_long_dims(seed: int) -> None:
    program = RandomProgram(seed, steps=10, sizes=(*SIZES, *LONG), rank=2)
    arrays = program.arrays()
    check(program.graph, arrays, in_python=False)
    before = get_num_threads()
    try:
        set_num_threads(1)
        alone = run_compiled(program.graph, arrays)
        set_num_threads(3)
        assert_same_bits(run_compiled(program.graph, arrays), alone, f"{program.graph}\n3 threads")
    finally:
        set_num_threads(before)


@pytest.mark.parametrize("seed", range(2000, 2006))
def test_the_gradient_of_a_program(seed: int) -> None:
    program = RandomProgram(seed, steps=8)
    wanted = [v for v in program.graph.inputs if v.dtype.kind == "f"]
    graph = with_gradients(program.graph, wanted, seed)
    check(graph, program.arrays(), in_python=False)


N, M = 11, 13  # the sizes that become symbols; no other size is a multiple of either


def symbolic_text(text: str) -> str:
    """Graph text with every multiple of N and M written as a product of symbols, in types and shapes."""

    def named(match: re.Match[str]) -> str:
        number, factors = int(match.group()), []
        for name, size in (("N", N), ("M", M)):
            while number % size == 0 and number:
                number //= size
                factors.append(name)
        return "*".join([*factors, str(number)] if number != 1 or not factors else factors)

    def in_type(match: re.Match[str]) -> str:
        return re.sub(r"\d+", named, match.group())

    def in_attribute(match: re.Match[str]) -> str:
        quoted = re.sub(r"\d+", lambda n: n.group() if (t := named(n)) == n.group() else f"`{t}`", match.group())
        return quoted

    text = re.sub(r"\[[^\]]*\]", in_type, text)
    return re.sub(r"(?<=shape=\()[^)]*|(?<=stops=\()[^)]*", in_attribute, text)


@pytest.mark.parametrize("seed", range(3000, 3012))
def test_symbolic_sizes_give_the_bits_of_static_ones(seed: int) -> None:
    program = RandomProgram(seed, sizes=(1, 2, 3, N, M, N, M), rank=3, without=("slice",))
    arrays = program.arrays()
    graph = parse_graph(symbolic_text(print_graph(program.graph)))
    sizes = {"N": N, "M": M}
    assert_same_bits(run_compiled(graph, arrays, sizes=sizes), run_compiled(program.graph, arrays), str(graph))


@pytest.mark.parametrize("seed", range(4000, 4016))
def test_updates_give_the_bits_of_outputs(seed: int) -> None:
    """States written in place, or copied at the end, take the values that the same graph returns."""
    program = RandomProgram(seed, steps=16)
    graph, arrays = program.graph, program.arrays()
    made = [v for n in graph.nodes for v in n.outputs]
    updates = []
    for state in graph.inputs:
        fitting = [v for v in (*made, *graph.inputs) if v.type == state.type and v is not state]
        if fitting and program.rng.random() < 0.7:
            state.role = "state"
            updates.append((state, fitting[program.rng.integers(len(fitting))]))
    outputs = graph.outputs[: program.rng.integers(len(graph.outputs) + 1)]
    updating = Graph(graph.name, graph.inputs, graph.nodes, outputs, tuple(updates))
    returning = Graph(graph.name, graph.inputs, graph.nodes, (*outputs, *(new for _, new in updates)))
    verify(updating)
    assert_same_bits(run_compiled(updating, arrays), run_compiled(returning, arrays), str(updating))


FOUND = {
    "a reduction over part of what an expansion covers": """graph @g(%x: f32[3, 8]) {
      %0 = tanh(%x) : f32[3, 8]
      %1 = expand(%0, shape=(2, 3, 8)) : f32[2, 3, 8]
      %2 = reduce_max(%1, dim=2) : f32[2, 3]
      return %2
    }""",
    "a sign that is rounded twice": """graph @g(%x: f64[5], %y: f64[1]) {
      %0 = tanh(%x) : f64[5]
      %1 = cast(%0, dtype=f16) : f16[5]
      %2 = tanh(%y) : f64[1]
      %3 = cast(%2, dtype=f16) : f16[1]
      return %1, %3
    }""",
}


@pytest.mark.parametrize("case", FOUND)
def test_what_random_programs_found(case: str) -> None:
    graph = parse_graph(FOUND[case])
    check(graph, random_inputs(graph), in_python=True)


@pytest.mark.parametrize("seed", range(24))
def test_passes_keep_the_results(seed: int) -> None:
    program = RandomProgram(seed)
    arrays = program.arrays()
    graph, wanted = program.graph, run_interpreted(program.graph, arrays)
    for one in PASSES:
        graph = one(graph)
        verify(graph)
        assert_near(graph, run_interpreted(graph, arrays), wanted)
