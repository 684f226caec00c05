"""The tensor IR: SSA, typed, ordered, immutable once emitted.

Enters: operators and values.  Leaves: `Graph`.  Never here: rewriting rules, execution, scheduling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from graphc.dtypes import DType
from graphc.ir.op import Lowering, Op, Shape, TensorType, effective_lowering, running

Role = Literal["input", "state"]
Location = tuple[str, int]


class Value:
    """One tensor of a graph: an input (node None, with a name and a role) or an output of a node."""

    __slots__ = ("name", "node", "role", "type")

    def __init__(self, type: TensorType, node: Node | None = None, name: str = "", role: Role = "input") -> None:
        self.type, self.node, self.name, self.role = type, node, name, role

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def ndim(self) -> int:
        return len(self.type.shape)

    def __repr__(self) -> str:
        made = self.node.op.name if self.node is not None else self.name
        return f"<{made}: {self.type}>"


class Node:
    """One operator application.  `location`: the user's (file, line), where known.  `lowering`: how it becomes code."""

    __slots__ = ("attrs", "inputs", "location", "lowering", "op", "outputs")

    def __init__(
        self, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any], types: Sequence[TensorType], location: Location | None
    ) -> None:
        self.op, self.inputs, self.attrs, self.location = op, inputs, attrs, location
        self.outputs = tuple([Value(t, self) for t in types])
        self.lowering: Lowering = effective_lowering(op.lowering, [v.type.dtype for v in (*inputs, *self.outputs)])

    def __repr__(self) -> str:
        return f"<node {self.op.name}>"


class Graph:
    """A pure function of its inputs.  `updates`: (state input, its new value) pairs, committed when the call ends."""

    __slots__ = ("inputs", "name", "nodes", "outputs", "updates")

    def __init__(
        self,
        name: str,
        inputs: tuple[Value, ...],
        nodes: tuple[Node, ...],
        outputs: tuple[Value, ...],
        updates: tuple[tuple[Value, Value], ...] = (),
    ) -> None:
        self.name, self.inputs, self.nodes, self.outputs, self.updates = name, inputs, nodes, outputs, updates

    def __str__(self) -> str:
        from graphc.ir.text import print_graph

        return print_graph(self)

    def uses(self) -> dict[Value, int]:
        """How many times each value is read (by nodes, as an output or as an update)."""
        count: dict[Value, int] = {}
        for node in self.nodes:
            for value in node.inputs:
                count[value] = count.get(value, 0) + 1
        for value in (*self.outputs, *(new for _, new in self.updates)):
            count[value] = count.get(value, 0) + 1
        return count


def every_node(graph: Graph) -> Iterator[Node]:
    """The nodes of a graph and of the graphs in its regions, in order."""
    for node in graph.nodes:
        yield node
        for attribute in node.attrs.values():
            if isinstance(attribute, Graph):
                yield from every_node(attribute)


@dataclass(frozen=True)
class Call:
    """`graph` on values of another one: its inputs, and what its outputs are there."""

    graph: Graph
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


# A local rewrite: sees final operands, returns the replacement outputs or None.
Rule = Callable[["Builder", Op, tuple[Value, ...], dict[str, Any]], "Sequence[Value] | None"]


class Builder:
    """The one emission point: infers types, applies local rewrites, numbers values (equal nodes are one node).

    As a runner of operators (``with builder.running():``) it lets gradient and decomposition rules, written in public
    operators, emit into it.
    """

    def __init__(self, rules: Mapping[str, Sequence[Rule]] | None = None) -> None:
        self.rules = rules or {}
        self.nodes: list[Node] = []
        self.location: Location | None = None
        self._numbered: dict[tuple[Any, ...], tuple[Value, ...]] = {}

    def emit(self, op: Op, inputs: Sequence[Value], attrs: dict[str, Any]) -> tuple[Value, ...]:
        """Emit one node (or the node it is equal to) and give its outputs."""
        return self._emit(op, tuple(inputs), attrs, None)

    def again(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        """`emit` of what `node` does, on operands that stand for its own.  It is kept as it is where these are the same."""
        return self._emit(node.op, inputs, node.attrs, node)

    def _emit(self, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any], known: Node | None) -> tuple[Value, ...]:
        for rule in self.rules.get(op.name, ()):
            replaced = rule(self, op, inputs, attrs)
            if replaced is not None:
                return tuple(replaced)
        key = (op, inputs, *[(name, *attribute_key(attrs[name])) for name in op.attrs])
        found = self._numbered.get(key)
        if found is None:
            node = known
            if node is None or node.inputs != inputs:
                node = Node(op, inputs, attrs, self._types(op, inputs, attrs, known), self.location)
            self.nodes.append(node)
            found = self._numbered[key] = node.outputs
        return found

    @staticmethod
    def _types(op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any], known: Node | None) -> Sequence[TensorType]:
        """The types of results; those of `known` where its operands are of the same types."""
        if known is not None and [v.type for v in known.inputs] == [v.type for v in inputs]:
            return [v.type for v in known.outputs]
        return op.infer_types([v.type for v in inputs], attrs)

    def run(self, op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """As a runner: outputs as public operators give them (one value, or a tuple)."""
        outputs = self.emit(op, inputs, attrs)
        return outputs[0] if len(outputs) == 1 else outputs

    def running(self) -> running:
        return running(self.run)

    def graph(
        self, name: str, inputs: Iterable[Value], outputs: Iterable[Value], updates: Iterable[tuple[Value, Value]] = ()
    ) -> Graph:
        """The graph of everything that `outputs` and `updates` need; dead nodes are left out."""
        return pruned(name, inputs, self.nodes, outputs, updates)


def pruned(
    name: str,
    inputs: Iterable[Value],
    nodes: Sequence[Node],
    outputs: Iterable[Value],
    updates: Iterable[tuple[Value, Value]] = (),
) -> Graph:
    """The graph of those of `nodes`, which are in order, that `outputs` and `updates` need."""
    outputs, updates = tuple(outputs), tuple(updates)
    live = {v.node for v in (*outputs, *(new for _, new in updates))}
    kept: list[Node] = []
    for node in reversed(nodes):
        if node in live:
            kept.append(node)
            live.update(v.node for v in node.inputs)
    return Graph(name, tuple(inputs), tuple(reversed(kept)), outputs, updates)


_PLAIN = frozenset((int, bool, str, type(None)))  # equal where type and value are


def attribute_key(value: Any) -> tuple[Any, ...]:
    """Equality of attributes for value numbering: 0.0, -0.0, 0 and False are four different attributes."""
    if isinstance(value, tuple):
        kinds = tuple(map(type, value))
        return (kinds, value) if _PLAIN.issuperset(kinds) else ("tuple", *[attribute_key(v) for v in value])
    if isinstance(value, float):
        return ("float", value.hex())
    if isinstance(value, complex):
        return ("complex", value.real.hex(), value.imag.hex())
    return (type(value).__name__, value)


def _fits(stated: TensorType, made: TensorType) -> bool:
    """Whether two types are one, as far as their sizes are known."""
    if stated is made:
        return True
    if stated.dtype is not made.dtype or stated.rank != made.rank:
        return False
    return all(a == b for a, b in zip(stated.shape, made.shape, strict=True) if isinstance(a, int) and isinstance(b, int))


def rewrite(graph: Graph, rules: Mapping[str, Sequence[Rule]]) -> Graph:
    """Re-emit every node in order with `rules` active; operands are already rewritten when a rule sees them."""
    builder = Builder(rules)
    new: dict[Value, Value] = {v: v for v in graph.inputs}
    with builder.running():
        for node in graph.nodes:
            builder.location = node.location
            outputs = builder.again(node, tuple([new[v] for v in node.inputs]))
            for stated, made in zip(node.outputs, outputs, strict=True):
                if not _fits(stated.type, made.type):  # it would be written past the end of the memory that was stated
                    operands = ", ".join(str(v.type) for v in node.inputs)
                    raise RuntimeError(f"{node.op}: not defined for {operands}: it gives {made.type}, its type rule {stated.type}")
                new[stated] = made
    updates = ((state, new[value]) for state, value in graph.updates)
    return builder.graph(graph.name, graph.inputs, (new[v] for v in graph.outputs), updates)
