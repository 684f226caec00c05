"""Cut a joint graph (results and gradients) into one program for forward and one for backward.

Enters: a Graph, which of its outputs are gradients, and the inputs that stand for the results' gradients.
Leaves: forward (results, then what backward needs) and backward (gradients).  Never here: recomputation (everything that
backward reads and forward computed is kept).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.graph import Graph, Node, Value


@dataclass(frozen=True)
class Split:
    """`saved`: how many of forward's last outputs are kept for backward.

    `reads`: for each backward input, ``("saved", i)``, ``("input", i)`` of the joint graph's inputs, or ``("gradient", i)``.
    """

    forward: Graph
    backward: Graph
    saved: int
    reads: tuple[tuple[str, int], ...]


def split_joint(graph: Graph, gradients_at: range, gradients_of_results: Sequence[Value]) -> Split:
    """The outputs at positions `gradients_at` are backward's, the others forward's; updates stay with forward.

    gradients_of_results: the inputs that only backward has.
    """
    late: set[Value] = set(gradients_of_results)
    forward_nodes: list[Node] = []
    backward_nodes: list[Node] = []
    for node in graph.nodes:
        if any(v in late for v in node.inputs):
            late.update(node.outputs)
            backward_nodes.append(node)
        else:
            forward_nodes.append(node)
    gradients = graph.outputs[gradients_at.start : gradients_at.stop]
    results = (*graph.outputs[: gradients_at.start], *graph.outputs[gradients_at.stop :])
    made_late = {v for n in backward_nodes for v in n.outputs}
    needed = [v for n in backward_nodes for v in n.inputs] + list(gradients)
    frontier = [v for v in dict.fromkeys(needed) if v not in made_late]
    # constants are cheaper to make again than to keep
    remade = [v.node for v in frontier if v.node is not None and not v.node.inputs]
    constants = {v for n in remade for v in n.outputs}
    saved = [v for v in frontier if v.node is not None and v not in constants]
    inputs = [v for v in graph.inputs if v not in set(gradients_of_results)]
    forward = _pruned(graph.name, inputs, forward_nodes, (*results, *saved), graph.updates)
    new: dict[Value, Value] = {}
    reads: list[tuple[str, int]] = []
    backward_inputs: list[Value] = []
    for value in frontier:
        if value in constants:
            continue
        kind, position = ("saved", saved.index(value)) if value.node is not None else ("input", inputs.index(value)) \
            if value in inputs else ("gradient", list(gradients_of_results).index(value))  # fmt: skip
        new[value] = Value(value.type, None, f"{kind}{position}")
        backward_inputs.append(new[value])
        reads.append((kind, position))
    copied = []
    for node in (*dict.fromkeys(remade), *backward_nodes):
        copy = Node(node.op, tuple(new[v] for v in node.inputs), node.attrs, [v.type for v in node.outputs], node.location)
        new.update(zip(node.outputs, copy.outputs, strict=True))
        copied.append(copy)
    backward = Graph(f"{graph.name}_backward", tuple(backward_inputs), tuple(copied), tuple(new[v] for v in gradients))
    return Split(forward, backward, len(saved), tuple(reads))


def _pruned(
    name: str, inputs: Sequence[Value], nodes: Sequence[Node], outputs: Sequence[Value], updates: Sequence[tuple[Value, Value]]
) -> Graph:
    live = {v.node for v in (*outputs, *(new for _, new in updates))}
    kept: list[Node] = []
    for node in reversed(nodes):
        if node in live:
            kept.append(node)
            live.update(v.node for v in node.inputs)
    return Graph(name, tuple(inputs), tuple(reversed(kept)), tuple(outputs), tuple(updates))
