"""Reshapes moved in front of the elementwise chains they follow, so that a chain fuses through them.

Enters: a simplified Graph.  Leaves: an equal Graph.  Never here: reshapes of results that have other readers, or that
feed no elementwise operator or reduction (there the move would gain nothing).
"""

from __future__ import annotations

from graphc.ir.graph import Builder, Graph, Node, Value
from graphc.ir.op import Op, Reduce, Scalar, Shape
from graphc.passes.movement import movement_rules, reshaped


def hoist_reshape(graph: Graph) -> Graph:
    """``reshape(add(x, y))`` --> ``add(reshape(x), reshape(y))`` where only the reshape reads the sum."""
    wanted = _wanted_shapes(graph)
    if not wanted:
        return graph
    builder = Builder({"reshape": movement_rules()["reshape"]})
    new: dict[Value, Value] = {v: v for v in graph.inputs}
    for node in graph.nodes:
        builder.location = node.location
        shape = wanted.get(node.outputs[0])
        operands = tuple([new[v] for v in node.inputs])
        if shape is not None:
            operands = tuple([v if not v.shape else reshaped(builder, v, shape) for v in operands])
        new.update(zip(node.outputs, builder.again(node, operands), strict=True))
    updates = ((state, new[value]) for state, value in graph.updates)
    return builder.graph(graph.name, graph.inputs, (new[v] for v in graph.outputs), updates)


def _wanted_shapes(graph: Graph) -> dict[Value, Shape]:
    """Elementwise results -> the shape in which all their readers want them."""
    uses = graph.uses()
    read_by_loops = {v for n in graph.nodes if isinstance(n.lowering, Scalar | Reduce) for v in n.inputs}
    asked: dict[Value, list[Shape]] = {}
    wanted: dict[Value, Shape] = {}
    for node in reversed(graph.nodes):
        out = node.outputs[0]
        if node.op is Op.table["reshape"] and out in read_by_loops:
            asked.setdefault(node.inputs[0], []).append(out.shape)
        shapes = asked.get(out, [])
        agreed = len(shapes) == uses.get(out) and len({*shapes}) == 1 and shapes[0] != out.shape
        if not agreed or not _reshapes_with_operands(node):
            continue
        wanted[out] = shapes[0]
        for value in node.inputs:
            if value.shape:
                asked.setdefault(value, []).append(shapes[0])
    return wanted


def _reshapes_with_operands(node: Node) -> bool:
    """An elementwise node of which every operand has the full shape, which is not [], or is 0-d."""
    shape = node.outputs[0].shape
    return isinstance(node.lowering, Scalar) and shape != () and all(v.shape in (shape, ()) for v in node.inputs)
