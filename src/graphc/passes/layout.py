"""Channels last inside a graph that convolves: permutations are moved to its edges, where most of them meet their inverse.

Enters: a simplified Graph in which convolutions stand between permutations.  Leaves: an equal Graph whose large values between
convolutions are stored as [N, *sizes, C].  Never here: how anything is computed; the order of elements within a reduction.

Every value of the old graph has one *native* form in the new one, as it was or with its channels last, and gets the other by a
permutation where it is asked for.  A node takes the form in which more bytes of its operands lie already; elementwise nodes of
which every reader wants channels last take that.  Operators without a rule here get their operands as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from graphc.dims import product
from graphc.ir.graph import Builder, Graph, Node, Value
from graphc.ir.op import Movement, Op, Reduce, Scalar, Size
from graphc.passes.movement import movement_rules, reshaped

Order = tuple[int, ...]
LEAST = 1 << 12  # elements: smaller operands are read across where they lie


def channels_last(graph: Graph) -> Graph:
    """``permute(relu(permute(convolution_last(..)))`` --> ``relu(convolution_last(..))``."""
    convolves = any(node.op.name.startswith(("convolution", "winograd")) or _to_channels(node) for node in graph.nodes)
    return _Layout(graph).run() if convolves else graph


def _to_channels(node: Node) -> bool:
    """Whether a node permutes images to or from channels last."""
    return node.op.name == "permute" and len(dims := node.attrs["dims"]) > 3 and dims in (to_last(len(dims)), to_first(len(dims)))


def to_last(rank: int) -> Order:
    """The permutation that puts dim 1 last."""
    return (0, *range(2, rank), 1)


def to_first(rank: int) -> Order:
    """The permutation that puts the last dim where dim 1 is."""
    return (0, rank - 1, *range(1, rank - 1))


def _turned(sizes: tuple[Size, ...]) -> tuple[Size, ...]:
    """One number a dim, channels last."""
    return tuple(sizes[d] for d in to_last(len(sizes)))


class _Layout:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.builder = Builder(movement_rules())
        self.forms: dict[tuple[Value, bool], Value] = {(v, False): v for v in graph.inputs}
        self.native: dict[Value, bool] = dict.fromkeys(graph.inputs, False)
        self.wanted = _wanted(graph)

    def run(self) -> Graph:
        for node in self.in_order():
            self.builder.location = node.location
            rule = _RULES.get(node.op.name)
            if rule is None:
                rule = _scalar if isinstance(node.lowering, Scalar) else _reduce if isinstance(node.lowering, Reduce) else None
            if rule is None or not rule(self, node):
                self.as_it_was(node)
        graph = self.graph
        updates = ((state, self.form(value, False)) for state, value in graph.updates)
        return self.builder.graph(graph.name, graph.inputs, [self.form(v, False) for v in graph.outputs], list(updates))

    def in_order(self) -> Iterator[Node]:
        """The nodes, but which elements are the largest right after the largest themselves, while the windows are at hand."""
        which = {n.inputs[0]: n for n in self.graph.nodes if n.op.name == "window_which"}
        done: set[Node] = set()
        for node in self.graph.nodes:
            if node not in done:
                yield node
            beside = which.get(node.inputs[0]) if node.op.name == "window_max" else None
            if beside is not None and beside not in done:
                done.add(beside)
                yield beside

    # ---- forms -----------------------------------------------------------------------------------------------------

    def keep(self, value: Value, made: Value, last: bool) -> bool:
        """Note the native form of a value of the old graph."""
        self.forms[value, last], self.native[value] = made, last
        return True

    def form(self, value: Value, last: bool) -> Value:
        """A value as it was, or with its channels last."""
        found = self.forms.get((value, last))
        if found is None:
            order = (to_last if last else to_first)(value.ndim)
            found = self.forms[value, last] = self.permuted(self.forms[value, not last], order)
        return found

    def permuted(self, x: Value, order: Order) -> Value:
        return self.builder.emit(Op.table["permute"], (x,), {"dims": order})[0]

    def gathered(self, value: Value, last: bool) -> Value:
        """`form`, stored where it is not native: for operators that read elements more than once, or in no order."""
        made = self.form(value, last)
        if self.native[value] is last or _count(value) < LEAST or not _is_across(made):
            return made
        return self.builder.emit(Op.table["row_major"], (made,), {})[0]

    def in_last(self, value: Value, rank: int) -> Value:
        """An operand that broadcasts to `rank` dims, with channels last."""
        if value.ndim == rank:
            return self.form(value, True)
        whole = reshaped(self.builder, self.form(value, False), (*(1,) * (rank - value.ndim), *value.shape))
        return self.permuted(whole, to_last(rank))

    def weight(self, value: Value) -> int:
        """How many bytes the native form of a value has to be read from."""
        made = self.forms[value, self.native[value]]
        least = _count(value) * value.dtype.itemsize
        while made.node is not None and isinstance(made.node.lowering, Movement):
            made = made.node.inputs[0]
            least = min(least, _count(made) * made.dtype.itemsize)
        return least if made.node is None or made.node.inputs else 0

    def prefers_last(self, values: list[Value]) -> bool:
        """Whether more bytes of those of rank 3 and above lie channels last than not."""
        large = [v for v in values if v.ndim >= 3]
        last = sum(self.weight(v) for v in large if self.native[v])
        return last > 0 and last >= sum(self.weight(v) for v in large if not self.native[v])

    # ---- nodes -----------------------------------------------------------------------------------------------------

    def as_it_was(self, node: Node) -> None:
        made = self.builder.again(node, tuple([self.form(v, False) for v in node.inputs]))
        for old, new in zip(node.outputs, made, strict=True):
            self.keep(old, new, False)

    def emit(self, node: Node, operands: list[Value], last: bool, **changed: object) -> bool:
        made = self.builder.emit(node.op, operands, {**node.attrs, **changed})
        return all(self.keep(old, new, last) for old, new in zip(node.outputs, made, strict=True))


def _count(value: Value) -> int:
    count = product(value.shape)
    return count if isinstance(count, int) else 1 << 20


def _is_across(value: Value) -> bool:
    """Whether a value is a permutation of what is stored."""
    while value.node is not None and value.node.op.name == "reshape":
        value = value.node.inputs[0]
    return value.node is not None and value.node.op.name == "permute"


def _wanted(graph: Graph) -> set[Value]:
    """Elementwise results that every reader wants with channels last."""
    uses = graph.uses()
    asked: dict[Value, int] = {}
    wanted: set[Value] = set()
    for node in reversed(graph.nodes):
        out = node.outputs[0]
        if node.op.name == "permute" and node.attrs["dims"] == to_last(out.ndim) and out.ndim > 3:
            asked[node.inputs[0]] = asked.get(node.inputs[0], 0) + 1
        if isinstance(node.lowering, Scalar) and out.ndim > 3 and asked.get(out) == uses.get(out):
            wanted.add(out)
            for value in node.inputs:
                if value.shape == out.shape:
                    asked[value] = asked.get(value, 0) + 1
    return wanted


# ---- rules: each gives the native forms of a node's results, or says that it does not apply ----------------------------------


def _scalar(layout: _Layout, node: Node) -> bool:
    out = node.outputs[0]
    full = [v for v in node.inputs if v.shape == out.shape]
    if out.ndim < 3 or not (layout.prefers_last(full) or out in layout.wanted):
        return False
    return layout.emit(node, [layout.in_last(v, out.ndim) for v in node.inputs], True)


def _reduce(layout: _Layout, node: Node) -> bool:
    (x,), out = node.inputs, node.outputs[0]
    if x.ndim < 3 or not layout.native[x]:
        return False
    order = to_last(x.ndim)
    (made,) = layout.builder.emit(node.op, (layout.form(x, True),), {"dim": order.index(node.attrs["dim"])})
    left = [d - (d > node.attrs["dim"]) for d in order if d != node.attrs["dim"]]  # of the result, as it is stored
    if out.ndim >= 3 and tuple(left) == to_last(out.ndim):
        return layout.keep(out, made, True)
    return layout.keep(out, layout.permuted(made, tuple(map(left.index, range(out.ndim)))), False)


def _permute(layout: _Layout, node: Node) -> bool:
    (x,), out, dims = node.inputs, node.outputs[0], node.attrs["dims"]
    stored = layout.forms[x, layout.native[x]]
    order = to_last(x.ndim) if layout.native[x] else tuple(range(x.ndim))
    now = tuple(order.index(d) for d in dims)  # dims of what is stored, in the order of the result
    if now == tuple(range(x.ndim)):
        return layout.keep(out, stored, False)
    if out.ndim >= 3 and _turned(now) == tuple(range(x.ndim)):
        return layout.keep(out, stored, True)
    return layout.keep(out, layout.permuted(stored, now), False)


def _row_major(layout: _Layout, node: Node) -> bool:
    """Nothing to do for what lies in that order."""
    made = layout.form(node.inputs[0], False)
    inline = made.node is not None and (isinstance(made.node.lowering, Movement) or not made.node.inputs)
    return not inline and layout.keep(node.outputs[0], made, False)


def _reshape(layout: _Layout, node: Node) -> bool:
    (x,), out = node.inputs, node.outputs[0]
    if x.ndim < 3 or not layout.native[x]:
        return False
    stored = layout.form(x, True)
    if out.ndim >= 3 and out.shape[:2] == x.shape[:2]:
        return layout.keep(out, reshaped(layout.builder, stored, _turned(out.shape)), True)
    if out.shape == x.shape[:2]:
        return layout.keep(out, reshaped(layout.builder, stored, out.shape), False)
    return layout.keep(out, reshaped(layout.builder, layout.gathered(x, False), out.shape), False)


def _with_sizes(*names: str) -> Callable[[_Layout, Node], bool]:
    """An operator with one number a dim in each of those attributes."""

    def rule(layout: _Layout, node: Node) -> bool:
        rank = node.outputs[0].ndim
        if rank < 3 or not layout.prefers_last(list(node.inputs)):
            return False
        changed = {name: _turned(node.attrs[name]) for name in names}
        return layout.emit(node, [layout.form(v, True) for v in node.inputs], True, **changed)

    return rule


def _flip(layout: _Layout, node: Node) -> bool:
    rank = node.outputs[0].ndim
    if rank < 3 or not layout.native[node.inputs[0]]:
        return False
    dims = tuple(sorted(to_last(rank).index(d) for d in node.attrs["dims"]))
    return layout.emit(node, [layout.form(node.inputs[0], True)], True, dims=dims)


def _cat(layout: _Layout, node: Node) -> bool:
    rank = node.outputs[0].ndim
    if rank < 3 or not layout.prefers_last(list(node.inputs)):
        return False
    return layout.emit(node, [layout.form(v, True) for v in node.inputs], True, dim=to_last(rank).index(node.attrs["dim"]))


def _window(layout: _Layout, node: Node) -> bool:
    """Windows over all dims but those of batch and channels, which are in front."""
    rank = node.outputs[0].ndim
    if rank < 3 or node.attrs["trailing"] or len(node.attrs["kernel"]) != rank - 2:
        return False
    if not (layout.native[node.inputs[-1]] or layout.prefers_last(list(node.inputs))):  # where the windows' maxima were found
        return False
    return layout.emit(node, [layout.gathered(v, True) for v in node.inputs], True, trailing=1)


def _depthwise(layout: _Layout, node: Node) -> bool:
    """One that finds its channels last has a nest of its own."""
    x, weight = node.inputs
    if not layout.native[x] or weight.shape[0] != x.shape[1]:
        return False
    turned = layout.permuted(layout.form(weight, False), (1, 2, 0))
    (kernels,) = layout.builder.emit(Op.table["row_major"], (turned,), {})
    (made,) = layout.builder.emit(Op.table["depthwise_last"], (layout.form(x, True), kernels), node.attrs)
    return layout.keep(node.outputs[0], made, True)


_RULES: dict[str, Callable[[_Layout, Node], bool]] = {
    "permute": _permute,
    "reshape": _reshape,
    "row_major": _row_major,
    "pad_constant": _with_sizes("starts", "shape"),
    "slice": _with_sizes("starts", "stops", "steps"),
    "slice_scatter": _with_sizes("starts", "stops", "steps"),
    "flip": _flip,
    "cat": _cat,
    "depthwise": _depthwise,
    "window_max": _window,
    "window_which": _window,
    "window_take": _window,
    "window_max_input": _window,
}
