"""Cut a joint graph (results and gradients) into one program for forward and one for backward.

Enters: a Graph, which of its outputs are gradients, and the inputs that stand for the results' gradients.
Leaves: forward (results, then what backward needs) and backward (gradients).  Never here: kernels.

What is kept for backward is a minimum cut: the fewest bytes from which backward can compute the rest again, where only
elementwise and movement nodes may run twice.  The same operators on the same operands give the same bits, so this never shows
in a result.
Source of the formulation: Horace He and Shangdi Yu, "Transcending runtime-memory tradeoffs in checkpointing by being fusion aware"
(MLSys 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.dims import evaluate, product
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Composite, Host, Movement, Op, Scalar
from graphc.passes.decompose import decompose


@dataclass(frozen=True)
class Split:
    """`saved`: how many of forward's last outputs are kept for backward.

    `reads`: for each backward input, ``("saved", i)``, ``("input", i)`` of the joint graph's inputs, or ``("gradient", i)``.
    """

    forward: Graph
    backward: Graph
    saved: int
    reads: tuple[tuple[str, int], ...]


def split_joint(
    graph: Graph, gradients_at: range, gradients_of_results: Sequence[Value], sizes: Mapping[str, int] | None = None
) -> Split:
    """The outputs at positions `gradients_at` are backward's, the others forward's; updates stay with forward.

    gradients_of_results: the inputs that only backward has.   sizes: of symbols, by which bytes are counted.
    """
    late: set[Value] = set(gradients_of_results)
    early_nodes: list[Node] = []
    late_nodes: list[Node] = []
    kept = (*graph.outputs[: gradients_at.start], *graph.outputs[gradients_at.stop :], *(new for _, new in graph.updates))
    live = set(_needed_again(kept, set()))
    for node in graph.nodes:
        if any(v in late for v in node.inputs) or (node not in live and _may_fail(node)):
            late.update(node.outputs)
            late_nodes.append(node)
        else:
            early_nodes.append(node)
    gradients = graph.outputs[gradients_at.start : gradients_at.stop]
    results = (*graph.outputs[: gradients_at.start], *graph.outputs[gradients_at.stop :])
    needed = dict.fromkeys(v for v in (*(v for n in late_nodes for v in n.inputs), *gradients) if v not in late)
    written = {state for state, new in graph.updates if new is not state}
    saved = _least_kept(early_nodes, list(needed), written, sizes or {})
    again = _needed_again(list(needed), set(saved))
    inputs = [v for v in graph.inputs if v not in set(gradients_of_results)]
    forward = _pruned(graph.name, inputs, early_nodes, (*results, *saved), graph.updates)
    return _backward(graph, gradients, [*again, *late_nodes], saved, inputs, list(gradients_of_results), forward)


_composites_that_fail: dict[Op, bool] = {}


def _may_fail(node: Node) -> bool:
    """Whether the host runs a part of it: what backward alone needs may raise in backward only."""
    if not isinstance(node.lowering, Composite):
        return isinstance(node.lowering, Host)
    if node.op not in _composites_that_fail:
        opened = decompose(Graph("opened", tuple(dict.fromkeys(node.inputs)), (node,), tuple(node.outputs)))
        _composites_that_fail[node.op] = any(isinstance(part.lowering, Host) for part in opened.nodes)
    return _composites_that_fail[node.op]


def _backward(
    graph: Graph,
    gradients: Sequence[Value],
    nodes: Sequence[Node],
    saved: list[Value],
    inputs: list[Value],
    gradients_of_results: list[Value],
    forward: Graph,
) -> Split:
    """Copy `nodes` into a graph of its own, reading what is kept, the inputs and the results' gradients."""
    made = {v for n in nodes for v in n.outputs}
    read = dict.fromkeys(v for v in (*(v for n in nodes for v in n.inputs), *gradients) if v not in made)
    new: dict[Value, Value] = {}
    reads: list[tuple[str, int]] = []
    for kind, values in (("saved", saved), ("input", inputs), ("gradient", gradients_of_results)):
        for position, value in enumerate(values):
            if value in read and value not in new:
                new[value] = Value(value.type, None, f"{kind}{position}")
                reads.append((kind, position))
    backward_inputs = tuple(new.values())
    copied = []
    for node in nodes:
        copy = Node(node.op, tuple(new[v] for v in node.inputs), node.attrs, [v.type for v in node.outputs], node.location)
        new.update(zip(node.outputs, copy.outputs, strict=True))
        copied.append(copy)
    backward = Graph(f"{graph.name}_backward", backward_inputs, tuple(copied), tuple(new[v] for v in gradients))
    return Split(forward, backward, len(saved), tuple(reads))


def _least_kept(nodes: Sequence[Node], needed: Sequence[Value], written: set[Value], sizes: Mapping[str, int]) -> list[Value]:
    """The values of forward to keep: a minimum cut, in bytes, between what cannot be computed twice and `needed`.

    Nothing is computed twice from an input in `written`: backward would find its new value.
    """
    import networkx as nx

    network = nx.DiGraph()

    for node in nodes:
        for value in node.outputs:
            nbytes = float(evaluate(product(value.shape), sizes)) * value.dtype.itemsize
            network.add_edge((value, "made"), (value, "read"), capacity=nbytes + 1.0)  # of equal cuts the one with fewer values
            repeatable = isinstance(node.lowering, Scalar | Movement) and not any(v in written for v in node.inputs)
            if node.inputs and not repeatable:
                network.add_edge("source", (value, "made"))  # an edge without a capacity is never cut
            else:
                for operand in node.inputs:
                    if operand.node is not None:
                        network.add_edge((operand, "read"), (value, "made"))
    for value in needed:
        if value.node is not None:
            network.add_edge((value, "read"), "sink")
    if "source" not in network or "sink" not in network:
        return []
    _, (kept_side, _) = nx.minimum_cut(network, "source", "sink")
    return [v for n in nodes for v in n.outputs if (v, "made") in kept_side and (v, "read") not in kept_side]


def _needed_again(needed: Sequence[Value], saved: set[Value]) -> list[Node]:
    """The forward nodes that backward runs itself to get `needed` from what is kept, in order of definition before use."""
    order: dict[Node, None] = {}
    stack = [(v.node, False) for v in reversed(needed) if v not in saved]
    while stack:
        node, ready = stack.pop()
        if node is None or node in order:
            continue
        if ready:
            order[node] = None
            continue
        stack.append((node, True))
        stack.extend((v.node, False) for v in reversed(node.inputs) if v not in saved)
    return list(order)


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
