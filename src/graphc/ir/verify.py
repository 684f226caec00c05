"""The rules of the tensor IR, checked.

Enters: a Graph.  Leaves: nothing, or IRError naming the node.  Never here: repair.
"""

from __future__ import annotations

from graphc.errors import IRError
from graphc.ir.graph import Graph, Value


def verify(graph: Graph) -> None:
    """Defined before use, defined once, stated types are what the operators' rules give, updates go to state inputs of equal type.

    Raises IRError.
    """
    seen: set[Value] = set(graph.inputs)
    if len(seen) != len(graph.inputs):
        raise IRError(f"graph @{graph.name}: an input stands twice")
    for position, node in enumerate(graph.nodes):
        where = f"graph @{graph.name}, node {position} ({node.op.name})"
        for value in node.inputs:
            if value not in seen:
                raise IRError(f"{where}: an operand is not defined before it")
        if set(node.attrs) != set(node.op.attrs):
            raise IRError(f"{where}: attributes {sorted(node.attrs)} are not its declaration's {sorted(node.op.attrs)}")
        try:
            types = node.op.infer_types([v.type for v in node.inputs], node.attrs)
        except Exception as error:
            raise IRError(f"{where}: {error}") from error
        stated = tuple(v.type for v in node.outputs)
        if types != stated:
            raise IRError(f"{where}: states {', '.join(map(str, stated))}, its rule gives {', '.join(map(str, types))}")
        seen.update(node.outputs)
    for value in graph.outputs:
        if value not in seen:
            raise IRError(f"graph @{graph.name} returns a value that is not defined")
    states = [state for state, _ in graph.updates]
    if len(set(states)) != len(states):
        raise IRError(f"graph @{graph.name} updates a state twice")
    for state, new in graph.updates:
        if state not in graph.inputs or state.role != "state":
            raise IRError(f"graph @{graph.name} updates {state!r}, which is not a state input")
        if new not in seen or new.type != state.type:
            raise IRError(f"graph @{graph.name}: the update of {state.name} has type {new.type}, the state has {state.type}")
