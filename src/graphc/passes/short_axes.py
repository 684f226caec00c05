"""Reductions of a short axis written out: their tree becomes elementwise nodes, which fuse with what reads them.

Enters: a simplified Graph.  Leaves: an equal Graph, in every bit.  Never here: long axes; operands that are read from end to
end, which a loop over the axis does best.

``sum((x[:, None] - c) ** 2, -1)`` over 16 elements, 64 to a row, has rows that are too short for vectors.  Written out, the
vectors lie along the 64, and ``argmin`` takes the sums as they come.  Operands that would be read across are stored the other way
round first.
"""

from __future__ import annotations

from graphc.dims import product
from graphc.ir.cost import is_cheap
from graphc.ir.graph import Builder, Graph, Node, Value
from graphc.ir.loops import LANES, identity
from graphc.ir.op import Op, Reduce, Scalar
from graphc.passes.fold import full
from graphc.passes.movement import movement_rules, reshaped

LONGEST = 16  # elements of an axis
MOST_NODES = 72  # of one tree with what it reads: it has to fit into one kernel
LEAST_REUSE = 8  # elements of the operand for each one that is read


def write_out_short_axes(graph: Graph) -> Graph:
    """Every reduction of a short axis over elementwise nodes that read far fewer elements than they make."""
    chosen = {node: chain for node in graph.nodes if (chain := _chain(node)) is not None}
    if not chosen:
        return graph
    builder = Builder(movement_rules())
    new: dict[Value, Value] = {v: v for v in graph.inputs}
    for node in graph.nodes:
        builder.location = node.location
        if node in chosen:
            new[node.outputs[0]] = _Written(builder, node, chosen[node], new).tree()
        else:
            new.update(zip(node.outputs, builder.again(node, tuple([new[v] for v in node.inputs])), strict=True))
    updates = ((state, new[value]) for state, value in graph.updates)
    return builder.graph(graph.name, graph.inputs, (new[v] for v in graph.outputs), updates)


def _chain(node: Node) -> list[Node] | None:
    """The elementwise nodes under a reduction that is worth writing out, in order; None for any other node."""
    if not isinstance(node.lowering, Reduce) or node.inputs[0].dtype.compute is not node.outputs[0].dtype:
        return None
    operand, dim = node.inputs[0], node.attrs["dim"]
    length, total = operand.shape[dim], product(operand.shape)
    if operand.dtype.compute is not operand.dtype or not isinstance(total, int):
        return None
    if not isinstance(length, int) or not 2 <= length <= LONGEST:
        return None
    chain: list[Node] = []
    leaves: dict[Value, None] = {}

    def visit(value: Value) -> bool:
        made = value.node
        if made is None or not isinstance(made.lowering, Scalar) or not _may_be_written_out(made):
            leaves[value] = None
            return True
        if made in chain:
            return True
        if len(chain) * length > MOST_NODES or not all(map(visit, made.inputs)):
            return False
        chain.append(made)
        return True

    if not visit(operand) or not chain or (len(chain) + 1) * length > MOST_NODES:
        return None
    read = sum(size for v in leaves if isinstance(size := product(v.shape), int))
    return chain if read * LEAST_REUSE <= total else None


def _may_be_written_out(node: Node) -> bool:
    return is_cheap(node) and node.outputs[0].dtype.compute is node.outputs[0].dtype


class _Written:
    """One reduction: `chain` made anew for each element of the axis, of slices of what it reads."""

    def __init__(self, builder: Builder, node: Node, chain: list[Node], new: dict[Value, Value]) -> None:
        self.builder, self.node, self.chain, self.new = builder, node, chain, new
        operand = node.inputs[0]
        self.from_end = len(operand.shape) - node.attrs["dim"]  # the axis, counted as broadcasting counts
        others = [len(operand.shape) - d for d, size in enumerate(operand.shape) if size != 1 and d != node.attrs["dim"]]
        self.inner = min(others, default=None)  # the axis that vectors will lie along

    def tree(self) -> Value:
        """Elements in halves of 32 lanes, as a loop of the reduction folds them."""
        (operand,), lowering = self.node.inputs, self.node.lowering
        assert isinstance(lowering, Reduce)
        length = operand.shape[self.node.attrs["dim"]]
        assert isinstance(length, int)
        lanes = [self.element(k) for k in range(length)]
        half = LANES // 2
        while half:
            upper = lanes[half:]
            lanes = [self.folded(lane, upper[i]) if i < len(upper) else lane for i, lane in enumerate(lanes[:half])]
            half //= 2
        start = identity(lowering.fn, operand.dtype)
        if lowering.fn == "add" and operand.dtype.kind == "f":  # a sum of nothing but -0.0 is 0.0
            return self.folded(full(self.builder, start.value, (), operand.dtype), lanes[0])
        return lanes[0]

    def folded(self, a: Value, b: Value) -> Value:
        assert isinstance(self.node.lowering, Reduce)
        return self.builder.emit(Op.table[_FOLDS[self.node.lowering.fn]], (a, b), {})[0]

    def element(self, k: int) -> Value:
        made: dict[Value, Value] = {}
        for node in self.chain:
            operands = [made[v] if v in made else self.sliced(v, k) for v in node.inputs]
            made[node.outputs[0]] = self.builder.emit(node.op, operands, node.attrs)[0]
        return made[self.node.inputs[0]]

    def sliced(self, value: Value, k: int) -> Value:
        """Element `k` of the axis, which is gone then."""
        dim, x = value.ndim - self.from_end, self.new[value]
        if dim < 0:
            return x
        rest = (*value.shape[:dim], *value.shape[dim + 1 :])
        if value.shape[dim] == 1:
            return reshaped(self.builder, x, rest)
        emit, dims = self.builder.emit, range(value.ndim)
        inner = -1 if self.inner is None else value.ndim - self.inner
        if inner >= 0 and value.shape[inner] != 1 and dim > inner:
            order = (dim, *(d for d in dims if d != dim))
            turned = emit(Op.table["permute"], (x,), {"dims": order})[0]
            x, dim = emit(Op.table["row_major"], (turned,), {})[0], 0
        starts = tuple(k if d == dim else 0 for d in dims)
        stops = tuple(k + 1 if d == dim else size for d, size in enumerate(x.shape))
        part = emit(Op.table["slice"], (x,), {"starts": starts, "stops": stops, "steps": (1,) * value.ndim})[0]
        return reshaped(self.builder, part, rest)


_FOLDS = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum", "and": "logical_and", "or": "logical_or"}
