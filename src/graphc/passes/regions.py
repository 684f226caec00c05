"""The graphs in regions, passed through what the graph around them passes through; small branches made straight.

Enters: a Graph, and what to do with those in its regions.  Leaves: an equal Graph.  Never here: any other pass.

Results of a branch that nobody reads are left out.  Where both ways are a few elements made by operators that cannot fail, both are
made and one is chosen, so that they fuse with what is around them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.dims import product
from graphc.ir.graph import Builder, Graph, Node, Value
from graphc.ir.op import Element, Movement, Op, Region, Scalar

MOST_ELEMENTS = 64  # of a result in a branch that is made straight
MOST_NODES = 8


def in_regions(graph: Graph, improve: Callable[[Graph], Graph]) -> Graph:
    """``cond(p, x, true_graph={G}, false_graph={H})`` --> the same with improve(G) and improve(H), or ``where(p, g, h)``."""
    if not any(isinstance(node.lowering, Region) for node in graph.nodes):
        return graph
    builder, uses = Builder(), graph.uses()
    new: dict[Value, Value] = {v: v for v in graph.inputs}
    for node in graph.nodes:
        builder.location = node.location
        inputs = tuple([new[v] for v in node.inputs])
        if not isinstance(node.lowering, Region):
            new.update(zip(node.outputs, builder.again(node, inputs), strict=True))
        elif node.op.name == "cond":
            read = [i for i, v in enumerate(node.outputs) if v in uses] or [0]
            attrs = {name: improve(_giving(inner, read)) for name, inner in node.attrs.items()}
            made = _cond(builder, node, inputs, attrs)
            new.update(zip([node.outputs[i] for i in read], made, strict=True))
        else:  # what a loop carries decides how often it runs
            attrs = {name: improve(inner) for name, inner in node.attrs.items()}
            new.update(zip(node.outputs, builder.emit(node.op, inputs, attrs), strict=True))
    updates = ((state, new[value]) for state, value in graph.updates)
    return builder.graph(graph.name, graph.inputs, (new[v] for v in graph.outputs), updates)


def _giving(graph: Graph, positions: list[int]) -> Graph:
    """The same with some of its outputs."""
    builder = Builder()
    builder.nodes = list(graph.nodes)
    return builder.graph(graph.name, graph.inputs, [graph.outputs[i] for i in positions])


def _cond(builder: Builder, node: Node, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value]:
    graphs = tuple(attrs.values())
    if not all(map(_is_slight, graphs)):
        return builder.emit(node.op, inputs, attrs)
    pred, *operands = inputs
    ways = [_inlined(builder, graph, operands) for graph in graphs]
    return [a if a is b else builder.emit(Op.table["where"], (pred, a, b), {})[0] for a, b in zip(*ways, strict=True)]


def _is_slight(graph: Graph) -> bool:
    """Whether all of a graph may as well be made where it is not needed."""
    return len(graph.nodes) <= MOST_NODES and all(map(_is_small, graph.outputs)) and all(map(_is_free, graph.nodes))


def _is_free(node: Node) -> bool:
    lowering = node.lowering
    cannot_fail = isinstance(lowering, Movement) or (isinstance(lowering, Scalar) and lowering.check is None)
    return (cannot_fail or (isinstance(lowering, Element) and not node.inputs)) and all(map(_is_small, node.outputs))


def _is_small(value: Value) -> bool:
    count = product(value.shape)
    return isinstance(count, int) and 0 < count <= MOST_ELEMENTS and value.dtype.kind != "c"


def _inlined(builder: Builder, graph: Graph, operands: Sequence[Value]) -> list[Value]:
    new = dict(zip(graph.inputs, operands, strict=True))
    for node in graph.nodes:
        builder.location = node.location
        new.update(zip(node.outputs, builder.again(node, tuple([new[v] for v in node.inputs])), strict=True))
    return [new[v] for v in graph.outputs]
