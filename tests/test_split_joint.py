"""What a compiled forward keeps for its backward."""

from __future__ import annotations

import numpy as np

import graphc.ops  # noqa: F401  the table that graph text names
from graphc.ir.interp import interpret
from graphc.ir.text import parse_graph
from graphc.ir.verify import verify
from graphc.passes.split_joint import Split, split_joint

JOINT = """
graph @f(%x: f32[4, 6], %w: f32[6, 5], %g: f32[4, 5]) {
  %0 = matmul(%x, %w) : f32[4, 5]
  %1 = tanh(%0) : f32[4, 5]
  %2 = exp(%1) : f32[4, 5]
  %3 = mul(%g, %2) : f32[4, 5]
  %4 = mul(%1, %1) : f32[4, 5]
  %5 = full(value=1.0, shape=(), dtype=f32) : f32[]
  %6 = sub(%5, %4) : f32[4, 5]
  %7 = mul(%3, %6) : f32[4, 5]
  %8 = permute(%x, dims=(1, 0)) : f32[6, 4]
  %9 = matmul(%8, %7) : f32[6, 5]
  return %2, %9
}
"""


def split() -> tuple[Split, list[np.ndarray], list[np.ndarray]]:
    graph = parse_graph(JOINT)
    cut = split_joint(graph, range(1, 2), [graph.inputs[2]])
    verify(cut.forward)
    verify(cut.backward)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(tuple(v.shape)).astype(np.float32) for v in graph.inputs]
    wanted, _ = interpret(graph, inputs)
    return cut, inputs, list(wanted)


def test_forward_and_backward_together_are_the_joint_graph() -> None:
    cut, inputs, (result, gradient) = split()
    outputs, _ = interpret(cut.forward, inputs[:2])
    np.testing.assert_array_equal(outputs[0], result)
    saved = outputs[len(outputs) - cut.saved :]
    where = {"saved": saved, "input": inputs[:2], "gradient": inputs[2:]}
    (again,), _ = interpret(cut.backward, [where[kind][i] for kind, i in cut.reads])
    np.testing.assert_array_equal(again, gradient)


def test_one_value_is_kept_and_the_rest_is_computed_again() -> None:
    cut, _, _ = split()
    assert cut.saved == 1
    kept = cut.forward.outputs[-1].node
    assert kept is not None and kept.op.name in ("matmul", "tanh", "exp")
    assert "matmul(%x" not in str(cut.backward)


def test_inputs_are_never_kept_twice() -> None:
    graph = parse_graph(
        "graph @f(%x: f32[3], %g: f32[3]) {\n  %0 = exp(%x) : f32[3]\n  %1 = neg(%x) : f32[3]\n"
        "  %2 = mul(%g, %1) : f32[3]\n  return %0, %2\n}"
    )
    cut = split_joint(graph, range(1, 2), [graph.inputs[1]])
    assert cut.saved == 0 and ("input", 0) in cut.reads
