"""The rules of the tensor IR, checked.

Enters: a Graph.  Leaves: nothing, or IRError naming the node.  Never here: repair.
"""

from __future__ import annotations

from graphc.errors import IRError
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Host


def verify(graph: Graph) -> None:
    """Defined before use, defined once, types as the operators' rules give them, updates to states of equal type.

    Regions follow the same rules, and see nothing of the graph around them.

    Raises IRError.
    """
    seen: set[Value] = set(graph.inputs)
    if len(seen) != len(graph.inputs):
        raise IRError(f"graph @{graph.name}: an input stands twice")
    for value in graph.inputs:
        if value.node is not None:
            raise IRError(f"graph @{graph.name}: input {value.name} is a node's result")
    for position, node in enumerate(graph.nodes):
        where = f"graph @{graph.name}, node {position} ({node.op.name})"
        if not seen.issuperset(node.inputs):
            raise IRError(f"{where}: an operand is not defined before it")
        if not seen.isdisjoint(node.outputs):
            raise IRError(f"{where}: it is defined twice")
        _verify_node(node, where)
        seen.update(node.outputs)
    if not seen.issuperset(graph.outputs):
        raise IRError(f"graph @{graph.name} returns a value that is not defined")
    _verify_updates(graph, seen)


def _verify_node(node: Node, where: str) -> None:
    if set(node.attrs) != set(node.op.attrs):
        raise IRError(f"{where}: attributes {sorted(node.attrs)} are not its declaration's {sorted(node.op.attrs)}")
    if isinstance(node.lowering, Host) and node.lowering.sized_by_data:
        raise IRError(f"{where}: the shapes of its results depend on elements, so it cannot stand in a graph")
    for attribute in node.attrs.values():
        if isinstance(attribute, Graph):
            verify(attribute)
    try:
        types = node.op.infer_types([v.type for v in node.inputs], node.attrs)
    except Exception as error:
        raise IRError(f"{where}: {error}") from error
    stated = tuple(v.type for v in node.outputs)
    if types != stated:
        raise IRError(f"{where}: states {', '.join(map(str, stated))}, its rule gives {', '.join(map(str, types))}")


def _verify_updates(graph: Graph, seen: set[Value]) -> None:
    states = [state for state, _ in graph.updates]
    if len(set(states)) != len(states):
        raise IRError(f"graph @{graph.name} updates a state twice")
    for state, new in graph.updates:
        if state not in graph.inputs or state.role != "state":
            raise IRError(f"graph @{graph.name} updates {state!r}, which is not a state input")
        if new not in seen:
            raise IRError(f"graph @{graph.name}: the update of {state.name} is not defined")
        if new.type != state.type:
            raise IRError(f"graph @{graph.name}: the update of {state.name} has type {new.type}, not {state.type}")
