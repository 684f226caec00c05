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

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graphc.dims import evaluate, product
from graphc.ir.graph import Graph, Node, Value, pruned
from graphc.ir.op import Composite, Host, Movement, Op, Scalar
from graphc.passes.decompose import decompose


@dataclass(frozen=True)
class Split:
    """`saved`: how many of forward's last outputs are kept for backward.   `shared`: which results are kept too, behind those.

    `reads`: for each backward input, ``("saved", i)``, ``("input", i)`` of the joint graph's inputs, or ``("gradient", i)``.
    """

    forward: Graph
    backward: Graph
    saved: int
    reads: tuple[tuple[str, int], ...]
    shared: tuple[int, ...] = ()

    def kept(self, outputs: Sequence[Any]) -> list[Any]:
        """What ``("saved", i)`` means, of forward's outputs."""
        return [*outputs[len(outputs) - self.saved :], *(outputs[i] for i in self.shared)]


def split_joint(
    graph: Graph,
    gradients_at: range,
    gradients_of_results: Sequence[Value],
    sizes: Mapping[str, int] | None = None,
    unsteady: Collection[Value] = (),
    steady_results: Collection[int] = (),
    others_from: int | None = None,
) -> Split:
    """The outputs at positions `gradients_at` are backward's, the others forward's; updates stay with forward.

    gradients_of_results: the inputs that only backward has.   sizes: of symbols, by which bytes are counted.
    unsteady: inputs that may have changed when backward runs.   steady_results: positions of results that may not, and so cost
    nothing to keep.   others_from: outputs from there on are no results, but what other backward programs begin with.
    """
    results = (*graph.outputs[: gradients_at.start], *graph.outputs[gradients_at.stop : others_from])
    late: set[Value] = set(gradients_of_results)
    early_nodes: list[Node] = []
    late_nodes: list[Node] = []
    live = set(_needed_again((*results, *(new for _, new in graph.updates)), set()))
    for node in graph.nodes:
        if any(v in late for v in node.inputs) or (node not in live and _may_fail(node)):
            late.update(node.outputs)
            late_nodes.append(node)
        else:
            early_nodes.append(node)
    gradients = graph.outputs[gradients_at.start : gradients_at.stop]
    read = [v for v in (*(v for n in late_nodes for v in n.inputs), *gradients) if v not in late]
    others = [] if others_from is None else [v for v in graph.outputs[others_from:] if v not in late]
    moving = {*unsteady, *(state for state, new in graph.updates if new is not state)}
    here = {graph.outputs[i]: i for i in steady_results}
    kept = _least_kept(early_nodes, list(dict.fromkeys((*read, *others))), moving, sizes or {}, here)
    saved, shared = [v for v in kept if v not in here], [v for v in kept if v in here]
    again = _needed_again(list(dict.fromkeys(read)), set(kept))
    inputs = [v for v in graph.inputs if v not in set(gradients_of_results)]
    forward = pruned(graph.name, inputs, early_nodes, (*results, *saved), graph.updates)
    split = _backward(graph, gradients, [*again, *late_nodes], [*saved, *shared], inputs, list(gradients_of_results), forward)
    return replace(split, saved=len(saved), shared=tuple(here[v] for v in shared))


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


def _least_kept(
    nodes: Sequence[Node],
    needed: Sequence[Value],
    moving: Collection[Value],
    sizes: Mapping[str, int],
    here: Collection[Value],
) -> list[Value]:
    """The values of forward to keep: a minimum cut, in bytes, between what cannot be computed twice and `needed`.

    Nothing is computed twice from an input in `moving`: backward would find its new value.   here: what is kept anyway.
    """
    import networkx as nx

    network = nx.DiGraph()

    for node in nodes:
        for value in node.outputs:
            nbytes = 0.0 if value in here else float(evaluate(product(value.shape), sizes)) * value.dtype.itemsize
            network.add_edge((value, "made"), (value, "read"), capacity=nbytes + 1.0)  # of equal cuts the one with fewer values
            repeatable = isinstance(node.lowering, Scalar | Movement) and not any(v in moving for v in node.inputs)
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
