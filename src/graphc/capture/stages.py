"""Programs for a part of what was traced: up to a question, or from what earlier ones found.

Enters: nodes, values that are to be computed, values that are known.  Leaves: graphs, with known values among their inputs.
Never here: what is asked (`capture.reads`), compilation.

A value is the same whoever computes it, for operators and operands are the same.  So a program may go on where another one ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Movement


def computing(outputs: Sequence[Value], inputs: Mapping[Value, object], order: Mapping[Node, int]) -> tuple[Graph, list[Value]]:
    """A graph of values of its own for `outputs`, from those among `inputs` that it reads; these, in the order that `inputs` has.

    order: where each node stands.
    """
    nodes: set[Node] = set()
    read: set[Value] = set()
    stack = list(outputs)
    while stack:
        value = stack.pop()
        if value in inputs:
            read.add(value)
        elif value.node is not None and value.node not in nodes:
            nodes.add(value.node)
            stack.extend(value.node.inputs)
    given = [v for v in inputs if v in read]
    new = {v: Value(v.type, None, f"in{i}") for i, v in enumerate(given)}
    copies = []
    for node in sorted(nodes, key=order.__getitem__):
        copy = Node(node.op, tuple(new[v] for v in node.inputs), node.attrs, [v.type for v in node.outputs], node.location)
        new.update((v, made) for v, made in zip(node.outputs, copy.outputs, strict=True) if v not in new)
        copies.append(copy)
    return Graph("read", tuple(new[v] for v in given), tuple(copies), tuple(new[v] for v in outputs)), given


def resumed(graph: Graph, found: Mapping[Value, int], gradients: int) -> tuple[Graph, list[int], dict[Value, Value]]:
    """The graph without what was found: such values that it needs are inputs, in front of the last `gradients` ones.

    Gives also the place of each, and which value of `graph` a new value stands for.
    """
    if not found:
        return graph, [], {}
    needed: set[Value] = {*graph.outputs, *(value for _, value in graph.updates)}
    nodes = []
    for node in reversed(graph.nodes):
        if any(v in needed and v not in found for v in node.outputs):
            nodes.append(node)
            needed.update(node.inputs)
    used = sorted((v for v in needed if v in found), key=found.__getitem__)
    new = {v: Value(v.type, None, f"found{i}") for i, v in enumerate(used)}
    originals = {made: v for v, made in new.items()}
    kept = []
    for node in reversed(nodes):
        if any(v in new for v in (*node.inputs, *node.outputs)):
            types = [v.type for v in node.outputs]
            copy = Node(node.op, tuple(new.get(v, v) for v in node.inputs), node.attrs, types, node.location)
            for v, made in zip(node.outputs, copy.outputs, strict=True):
                if v not in new:
                    new[v], originals[made] = made, v
            node = copy
        kept.append(node)
    plain = [v for v in graph.inputs if v not in found]
    cut = len(plain) - gradients
    inputs = (*plain[:cut], *(new[v] for v in used), *plain[cut:])
    updates = tuple((state, new.get(value, value)) for state, value in graph.updates)
    outputs = tuple(new.get(v, v) for v in graph.outputs)
    return Graph(graph.name, inputs, tuple(kept), outputs, updates), [found[v] for v in used], originals


def worth_keeping(value: Value, constant: Mapping[Node, bool]) -> Value | None:
    """What is kept of a value that the code may go on with: None where it is as quickly made again.   constant: nodes that read
    nothing from outside."""
    while value.node is not None and isinstance(value.node.lowering, Movement):
        (value,) = value.node.inputs
    return None if value.node is None or constant[value.node] else value
