"""Equal layers one after another: a graph as calls of smaller graphs, of which one is called for every layer.

Enters: a traced Graph.  Leaves: `Call`s in order, each of a graph on values of the given one: what is before the layers, one graph
for each layer, what is after them.  Never here: what becomes of the calls, whether cutting there costs anything.

Composites are whole yet, so a layer is few nodes.  Layers are equal where their nodes are, in operators, attributes, types and the
user's lines, and where their operands are made at the same places of the same layer; operands from outside may be any values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from graphc.dims import product
from graphc.ir.graph import Builder, Call, Graph, Node, Value, attribute_key
from graphc.ir.op import Movement, Region

LEAST_LAYERS = 4
LEAST_SAVED = 48  # nodes of all layers but one
MOST_CROSSING = 2  # values that are made between two layers' starts and read by later layers
MOST_PERIODS = 3  # distances that are tried
MOST_BORDERS = 3  # ways to cut

Updates = Sequence[tuple[Value, Value]]


@dataclass(frozen=True)
class _Run:
    """Layers of `period` nodes each, `count` of them, from node `start` on."""

    start: int
    period: int
    count: int


def cuts(graph: Graph) -> Iterator[list[Call]]:
    """``a = f(x, w0); b = f(a, w1); ...`` --> ``f`` and the calls of it; nothing where no layers are equal.

    There are several ways where a layer may begin at several places: the one that leaves the least between layers is the first.
    Every update is made by the last call.
    """
    nodes = [node for node in graph.nodes if node.inputs]  # the others are written again wherever they are read
    run = None if any(isinstance(node.lowering, Region) for node in nodes) else _longest(nodes)
    if run is not None:
        for border in _borders(nodes, run):
            whole = _whole(nodes, border)
            calls = None if whole is None else _cut(graph, nodes, whole)
            if calls is not None:
                yield calls


# ---- finding layers --------------------------------------------------------------------------------------------------


def _kinds(nodes: Sequence[Node]) -> list[int]:
    """A number for each node, the same for those that differ in nothing but their operands."""
    numbers: dict[object, int] = {}
    kinds = []
    for node in nodes:
        attributes = tuple([attribute_key(a) for a in node.attrs.values()])
        key = (id(node.op), attributes, tuple([v.type for v in node.inputs]), node.location)
        kinds.append(numbers.setdefault(key, len(numbers)))
    return kinds


def _longest(nodes: Sequence[Node]) -> _Run | None:
    """The layers that are the most nodes."""
    if len(nodes) <= LEAST_SAVED:
        return None
    kinds = _kinds(nodes)
    last: dict[int, int] = {}
    distances: Counter[int] = Counter()
    for i, kind in enumerate(kinds):
        if kind in last:
            distances[i - last[kind]] += 1
        last[kind] = i
    best: _Run | None = None
    for period, often in distances.most_common(MOST_PERIODS):
        if often < LEAST_SAVED:
            break
        begun = None
        for i in range(period, len(kinds) + 1):
            if i < len(kinds) and kinds[i] == kinds[i - period]:
                begun = i if begun is None else begun
            elif begun is not None:
                run = _Run(begun - period, period, (i - begun) // period + 1)
                if _is_worth_it(run) and (best is None or run.count * run.period > best.count * best.period):
                    best = run
                begun = None
    return best


def _is_worth_it(run: _Run) -> bool:
    return run.count >= LEAST_LAYERS and (run.count - 1) * run.period >= LEAST_SAVED


def _borders(nodes: Sequence[Node], run: _Run) -> list[_Run]:
    """The run with layers that begin at other nodes, by what is read across the borders."""
    last_read: dict[Value, int] = {value: i for i, node in enumerate(nodes) for value in node.inputs}
    found = []
    end = run.start + run.period * run.count
    for start in range(run.start, run.start + run.period):
        count = (end - start) // run.period
        border = start + run.period * (count - 1)  # the last: whatever earlier layers leave for later ones crosses it
        across = [v for node in nodes[run.start : border] for v in node.outputs if last_read.get(v, 0) >= border]
        plain = all(v.node is not None and not isinstance(v.node.lowering, Movement) for v in across)
        if len(across) <= MOST_CROSSING and plain:
            sizes = [product(v.shape) for v in across]
            nbytes = sum(n * v.dtype.itemsize for n, v in zip(sizes, across, strict=True) if isinstance(n, int))
            found.append((len(across), nbytes, start, _Run(start, run.period, count)))
    return [border for _, _, _, border in sorted(found, key=lambda f: f[:3])[:MOST_BORDERS]]


def _whole(nodes: Sequence[Node], run: _Run) -> _Run | None:
    """The run up to the first layer whose inner operands are not those of the first; None where that leaves too little."""
    place = {value: (i, o) for i, node in enumerate(nodes) for o, value in enumerate(node.outputs)}
    count = 1
    while count < run.count and _is_alike(nodes, place, run, count):
        count += 1
    whole = _Run(run.start, run.period, count)
    return whole if _is_worth_it(whole) else None


def _is_alike(nodes: Sequence[Node], place: dict[Value, tuple[int, int]], run: _Run, layer: int) -> bool:
    first, shift = run.start, layer * run.period
    wired: dict[Value, Value] = {}
    for i in range(first, first + run.period):
        for a, b in zip(nodes[i].inputs, nodes[i + shift].inputs, strict=True):
            at, there = place.get(a, (-1, 0)), place.get(b, (-1, 0))
            if at[0] >= first:
                if there != (at[0] + shift, at[1]):
                    return False
            elif there[0] >= first + shift or wired.setdefault(a, b) is not b or (not _is_given(a) and a is not b):
                return False
    return True


def _is_given(value: Value) -> bool:
    """Whether a layer gets a value, and does not write it down itself."""
    return value.node is None or bool(value.node.inputs)


# ---- cutting ---------------------------------------------------------------------------------------------------------


def _cut(graph: Graph, nodes: Sequence[Node], run: _Run) -> list[Call] | None:
    """The calls; None for a graph whose results are not each made by one node that has operands, or that updates too early."""
    end = run.start + run.period * run.count
    made = {value for node in nodes for value in node.outputs}
    late = {value for node in nodes[end:] for value in node.outputs}
    if len(set(graph.outputs)) < len(graph.outputs) or not made.issuperset(graph.outputs):
        return None
    if not late.issuperset(new for _, new in graph.updates):
        return None
    layers = [nodes[at : at + run.period] for at in range(run.start, end, run.period)]
    number = dict.fromkeys(nodes[: run.start], 0) | dict.fromkeys(nodes[end:], len(layers) + 1)
    number |= {node: i for i, layer in enumerate(layers, 1) for node in layer}
    read_elsewhere = {v for node in nodes for v in node.inputs if v.node in number and number[v.node] != number[node]}
    kept = read_elsewhere | set(graph.outputs)
    calls = [_call(f"{graph.name}_before", nodes[: run.start], kept)] if run.start else []
    calls += _calls_of_layers(f"{graph.name}_layer", layers, kept)
    return [*calls, _call(f"{graph.name}_after", nodes[end:], kept, graph.updates)] if end < len(nodes) else calls


def _call(name: str, part: Sequence[Node], kept: Collection[Value], updates: Updates = ()) -> Call:
    """Nodes that are called once.   kept: what others read."""
    results = [v for node in part for v in node.outputs if v in kept]
    given = list(dict.fromkeys([*_given(part), *(state for state, _ in updates)]))
    return Call(_graph(name, part, given, results, updates), tuple(given), tuple(results))


def _calls_of_layers(name: str, layers: Sequence[Sequence[Node]], kept: Collection[Value]) -> list[Call]:
    first = layers[0]
    given = _given(first)
    slots = {v: (i, k) for i, node in reversed(list(enumerate(first))) for k, v in enumerate(node.inputs)}
    results = [
        (i, o) for i, node in enumerate(first) for o in range(len(node.outputs))
        if any(layer[i].outputs[o] in kept for layer in layers)
    ]  # fmt: skip
    graph = _graph(name, first, given, [first[i].outputs[o] for i, o in results])
    calls = []
    for layer in layers:
        operands = [layer[i].inputs[k] for i, k in map(slots.__getitem__, given)]
        calls.append(Call(graph, tuple(operands), tuple([layer[i].outputs[o] for i, o in results])))
    return calls


def _given(part: Sequence[Node]) -> list[Value]:
    """What nodes read that they do not make, in order."""
    own = {value for node in part for value in node.outputs}
    return list(dict.fromkeys(v for node in part for v in node.inputs if v not in own and _is_given(v)))


def _graph(name: str, part: Sequence[Node], given: Sequence[Value], results: Sequence[Value], updates: Updates = ()) -> Graph:
    """Nodes as a graph of their own, with `given` as inputs and `results` as outputs."""
    builder = Builder()
    new = {v: Value(v.type, None, v.name or f"given{i}", v.role) for i, v in enumerate(given)}
    for node in part:
        builder.location = node.location
        for value in node.inputs:
            if value not in new:
                assert value.node is not None
                new.update(zip(value.node.outputs, builder.emit(value.node.op, (), value.node.attrs), strict=True))
        made = builder.again(node, tuple([new[v] for v in node.inputs]))
        new.update(zip(node.outputs, made, strict=True))
    changed = [(new[state], new[value]) for state, value in updates]
    return builder.graph(name, [new[v] for v in given], [new[v] for v in results], changed)
