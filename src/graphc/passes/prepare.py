"""Cut what depends on constants alone out of a program: it runs when a constant changed, not at every call.

Enters: an optimised Graph and the positions of its inputs that hardly ever change (parameters, buffers).
Leaves: `Prepared`: the graph without that work, and a second graph that does it.  Never here: when a constant has changed.

The right operand of a product becomes panels, the order in which the product reads it.  Of everything else the last result that
costs something is kept: a filter transformed, a per-channel factor; movement of it stays where it is read, for there it is free.
Every element is made by the same operators from the same operands, so the bits are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graphc.dims import Dim, product
from graphc.ir.graph import Builder, Graph, Node, Value, rewrite
from graphc.ir.op import Anchor, Movement, Op
from graphc.ops.panels import FEW_ROWS, panel_width
from graphc.passes.movement import holds

LARGEST_GROWTH = 2  # a result may be so many times as large as what it is made from; a mask made of two rows is larger
LARGEST_PADDING = 16  # the same, of what is laid out for a nest: filters are transformed, and few columns fill up a panel
LEAST_PACKED = 4096  # elements of a matrix from which on panels of it are worth a buffer of their own
MOST_PANELS = 1 << 30  # bytes of matrices that a program has panels of: there may be no room for a second copy of more
FEW_PANELS = 256 << 20  # the same, where few rows read columns as they lie; what caches hold is still read faster from panels


@dataclass(frozen=True)
class Prepared:
    """main: inputs as the given graph's, then one for each of `constants`' outputs.
    sources: which inputs of the given graph are the inputs of `constants`.   panels: bytes of the matrices that have panels."""

    main: Graph
    constants: Graph
    sources: tuple[int, ...]
    panels: int = 0


def prepare(graph: Graph, fixed: Collection[int], times: int = 1, before: int = 0) -> Prepared | None:
    """Cut `graph` where only its inputs at positions `fixed` matter; None where nothing is worth it.

    An input that the graph updates is not fixed, whatever is said.   times: how often a program calls the graph, with constants of
    its own at each.   before: bytes of matrices that have panels for other graphs of that program.
    """
    known = Known.of_inputs(graph, fixed)
    origins = known.inputs
    if not origins:
        return None
    packed, panels = _with_panels(graph, known, times, before)
    chosen: dict[Value, None] = {}
    for node in packed.nodes:
        if not known(node):
            _choose((v for v in node.inputs if known(v.node) or v in origins), known, chosen)
    _choose((v for v in (*packed.outputs, *(new for _, new in packed.updates)) if known(v.node)), known, chosen)
    return replace(_cut(packed, list(chosen), origins), panels=panels) if chosen else None


def _has_symbols(node: Node) -> bool:
    """Whether a node's results have sizes, or its attributes numbers, that every call has anew."""
    return any(isinstance(size, Dim) for v in node.outputs for size in v.shape) or any(map(_is_symbolic, node.attrs.values()))


def _is_symbolic(attribute: Any) -> bool:
    return any(map(_is_symbolic, attribute)) if isinstance(attribute, tuple) else isinstance(attribute, Dim)


class Known:
    """Whether nodes depend on fixed inputs and literals alone, and on which inputs."""

    def __init__(self, origins: dict[Value, frozenset[Value]]) -> None:
        self.inputs = origins
        self._found: dict[Node, frozenset[Value] | None] = {}

    @classmethod
    def of_inputs(cls, graph: Graph, fixed: Collection[int]) -> Known:
        """Of the inputs at positions `fixed`, but for those that the graph updates."""
        written = {state for state, _ in graph.updates}
        return cls({v: frozenset([v]) for v in (graph.inputs[i] for i in fixed) if v not in written})

    def of(self, node: Node) -> frozenset[Value] | None:
        """The fixed inputs that a node's results are made from; None where something else matters."""
        if node in self._found:
            return self._found[node]
        stack = [node]
        while stack:
            at = stack[-1]
            waiting = [v.node for v in at.inputs if v.node is not None and v.node not in self._found]
            if waiting and at not in self._found:
                stack.extend(waiting)
                continue
            stack.pop()
            parts = [self.inputs.get(v) if v.node is None else self._found[v.node] for v in at.inputs]
            changes = None in parts or _has_symbols(at)
            self._found[at] = None if changes else frozenset().union(*(p for p in parts if p))
        return self._found[node]

    def __call__(self, node: Node | None) -> bool:
        return node is not None and self.of(node) is not None

    def value(self, value: Value) -> frozenset[Value] | None:
        """As `of`, of one value."""
        return self.inputs.get(value) if value.node is None else self.of(value.node)


# ---- panels ----------------------------------------------------------------------------------------------------------


def _with_panels(graph: Graph, known: Known, times: int, before: int) -> tuple[Graph, int]:
    """``matmul(x, w)`` --> ``matmul_panels(x, panels(w))`` where w is fixed and the product is not, and the bytes of all w."""
    in_panels: dict[Value, int] = {}

    def rule(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value] | None:
        x, w = inputs
        if known.value(x) is not None or not known.value(w) or not is_packable(w):
            return None
        most = FEW_PANELS if _is_read_as_it_lies(x, w) else MOST_PANELS
        if w not in in_panels and before + times * (sum(in_panels.values()) + _nbytes(w)) > most:
            return None
        in_panels[w] = _nbytes(w)
        (packed,) = builder.emit(Op.table["panels"], (w,), {"width": panel_width(w.dtype, w.shape[-1])})
        return builder.emit(Op.table["matmul_panels"], (x, packed), {"columns": w.shape[-1]})

    return rewrite(graph, {"matmul": (rule,)}), sum(in_panels.values())


def _is_read_as_it_lies(x: Value, w: Value) -> bool:
    """Whether the nest of a product of few rows reads the columns of w, neighbours in memory, nearly as fast as panels."""
    if len(x.shape) != 2 or not isinstance(x.shape[0], int) or x.shape[0] > FEW_ROWS or w.dtype.compute is not w.dtype:
        return False
    return w.node is not None and w.node.op.name == "permute" and tuple(w.node.attrs["dims"]) == (1, 0)


def is_packable(w: Value) -> bool:
    """Whether panels of a matrix are worth it: floating, not tiny, not a matrix repeated over a batch."""
    count = product(w.shape)
    return w.dtype.kind == "f" and isinstance(count, int) and count >= LEAST_PACKED and not _is_repeated(w)


def _is_repeated(value: Value) -> bool:
    while value.node is not None and isinstance(value.node.lowering, Movement):
        if product(value.shape) != product(value.node.inputs[0].shape):
            return True
        value = value.node.inputs[0]
    return False


# ---- what is worth it ------------------------------------------------------------------------------------------------


def _choose(values: Iterable[Value], known: Known, chosen: dict[Value, None]) -> None:
    """Add the fixed values that are to be prepared so that `values` cost nothing more."""
    stack = list(values)
    seen: set[Value] = set()
    while stack:
        value = stack.pop()
        node = value.node
        if node is None or value in seen or value in chosen:
            continue
        seen.add(value)
        if _is_worth_it(node, value, known):
            chosen[value] = None
        else:
            stack.extend(node.inputs)


def _is_worth_it(node: Node, value: Value, known: Known) -> bool:
    """Whether a fixed value costs something to make and is not much larger than what it is made from."""
    origins = known.of(node)
    if not origins or isinstance(node.lowering, Movement) or _is_widening(node):
        return False
    nbytes, growth = _nbytes(value), LARGEST_PADDING if isinstance(node.lowering, Anchor) else LARGEST_GROWTH
    return isinstance(nbytes, int) and 0 < nbytes <= growth * sum(map(_nbytes, origins))


def _is_widening(node: Node) -> bool:
    """A cast that keeps every value: it is cheaper where it is read than its result would be to read."""
    return node.op.name == "cast" and holds(node.outputs[0].dtype, node.inputs[0].dtype)


def _nbytes(value: Value) -> Any:
    return product(value.shape) * value.dtype.itemsize


# ---- the cut ---------------------------------------------------------------------------------------------------------


def _cut(graph: Graph, chosen: list[Value], origins: dict[Value, frozenset[Value]]) -> Prepared:
    """The nodes that `chosen` need in a graph of their own, the rest with `chosen` as inputs."""
    before = Builder()
    used = [v for v in graph.inputs if v in origins]
    new: dict[Value, Value] = {v: Value(v.type, None, v.name) for v in used}
    _copy(_needed(graph, chosen, set()), new, before)
    constants = before.graph(f"{graph.name}_constants", (), [new[v] for v in chosen])
    read = {v for node in constants.nodes for v in node.inputs}
    sources = tuple(i for i, v in enumerate(graph.inputs) if v in new and new[v] in read)
    constants = Graph(constants.name, tuple(new[graph.inputs[i]] for i in sources), constants.nodes, constants.outputs)

    after = Builder()
    given = [Value(v.type, None, f"prepared{i}") for i, v in enumerate(chosen)]
    now: dict[Value, Value] = {v: v for v in graph.inputs} | dict(zip(chosen, given, strict=True))
    _copy(_needed(graph, [*graph.outputs, *(v for _, v in graph.updates)], set(chosen)), now, after)
    updates = ((state, now[v]) for state, v in graph.updates)
    main = after.graph(graph.name, (*graph.inputs, *given), [now[v] for v in graph.outputs], updates)
    return Prepared(main, constants, sources)


def _needed(graph: Graph, values: Iterable[Value], known: set[Value]) -> list[Node]:
    """The nodes that `values` need when those in `known` are there, in order."""
    live = {v.node for v in values if v not in known}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node in live:
            kept.append(node)
            live.update(v.node for v in node.inputs if v not in known)
    kept.reverse()
    return kept


def _copy(nodes: Iterable[Node], new: dict[Value, Value], builder: Builder) -> None:
    for node in nodes:
        builder.location = node.location
        made = builder.again(node, tuple([new[v] for v in node.inputs]))
        for value, copy in zip(node.outputs, made, strict=True):
            new.setdefault(value, copy)
