"""Branches and loops of traced code as regions: both ways of a branch, and the body of a loop, traced as graphs of their own.

Enters: traced tensors that decide, functions that do what the code does.  Leaves: traced tensors, with a `cond` or `while_loop`
in the graph; `NoRegion` where the code cannot be one, and then nothing is changed.  Never here: what code looks like.

While a region's graph is traced the tracer emits into a builder of its own.  What it reads of the graph around it becomes an
operand; tensors of the code around it that it writes to become results.  Nothing in it may ask for elements, set attributes of
modules or carry gradients: code that does is compiled path by path (`capture.reads`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.capture.tracer import Cell, Tracer
from graphc.dtypes import bool_
from graphc.eager.dispatch import traced as traced_tensor
from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor
from graphc.errors import TracedAgain, TraceError, at_user_line
from graphc.ir.graph import Builder, Graph, Value
from graphc.ir.op import Op, TensorType

MOST_ROUNDS = 8  # of finding out what a loop's body writes to


class NoRegion(Exception):
    """Why code cannot be a region."""


class SizesAreNumbers(TraceError):
    """A size in a region is a symbol: the code is traced again with numbers."""


def _refuse(node: Any) -> None:
    """A watcher of the tape."""
    raise NoRegion("gradients flow through it")


def _effects(tracer: Tracer) -> tuple[int, ...]:
    """How often a trace has met gradients: every tensor that it touched, but for arguments, and what it does after the call."""
    return len(tracer.snapshots) - len(tracer.arguments), len(tracer.deferred), len(tracer.grad_reads)


class Inner:
    """What is traced of one graph of a region.   written: tensors of the code around it that it wrote to, and what they were.
    left: what they became."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer, self.builder = tracer, Builder(tracer.builder.rules)
        self.written: dict[Cell, Value] = {}
        self.left: dict[Cell, Value] = {}

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """While inside, what is traced is this.  Raises NoRegion for whatever fails in it and for what a region does not have."""
        tracer, attributes = self.tracer, self.tracer.attributes
        builder, region, reads = tracer.builder, tracer.region, tracer.reads
        counts = _effects(tracer)
        state = attributes.state()
        watchers = modes.watchers
        modes.watchers = (_refuse, *watchers)
        tracer.builder, tracer.region, tracer.reads = self.builder, self, None
        self.builder.location = builder.location
        if reads is not None:
            reads.closed = True
        try:
            yield
            if counts != _effects(tracer):
                raise NoRegion("it reads or changes gradients")
            if attributes.restore(state):
                raise NoRegion("it sets an attribute of a module")
        except (NoRegion, TracedAgain, SizesAreNumbers):
            raise
        except Exception as error:
            raise NoRegion(str(error).partition("\n")[0]) from error
        finally:
            tracer.builder, tracer.region, tracer.reads = builder, region, reads
            modes.watchers = watchers
            if reads is not None:
                reads.closed = False
            attributes.restore(state)
            for cell, value in self.written.items():
                self.left[cell], cell.value = cell.value, value

    def tensor(self, value: Value) -> Tensor:
        """A traced tensor of its own for an input of the graph."""
        return traced_tensor(value.dtype, value.shape, Cell(self.tracer, value))

    def finished(self, name: str, outputs: Sequence[Value]) -> Graph:
        """What `outputs` need; its inputs are values of the graph around it."""
        graph = self.builder.graph(name, (), outputs)
        made = {v for node in graph.nodes for v in node.outputs}
        read = (*(v for node in graph.nodes for v in node.inputs), *outputs)
        return Graph(name, tuple(dict.fromkeys(v for v in read if v not in made)), graph.nodes, graph.outputs)


def _closed(graph: Graph, operands: Sequence[Value]) -> Graph:
    """The same graph with inputs of its own for `operands`; numbers that the graph around it has are written into it."""
    builder = Builder()
    inputs = tuple(Value(v.type, None, f"in{i}") for i, v in enumerate(operands))
    new = dict(zip(operands, inputs, strict=True))
    for value in graph.inputs:
        if value not in new:
            assert value.node is not None
            new.update(zip(value.node.outputs, builder.again(value.node, ()), strict=True))
    for node in graph.nodes:
        builder.location = node.location
        made = builder.again(node, tuple([new[v] for v in node.inputs]))
        new.update(zip(node.outputs, made, strict=True))
    return builder.graph(graph.name, inputs, [new[v] for v in graph.outputs])


def _operands(graphs: Sequence[Graph], known: Sequence[Value] = ()) -> list[Value]:
    """What graphs read of the graph around them, but for numbers that are written there."""
    read = dict.fromkeys(v for graph in graphs for v in graph.inputs if v not in set(known))
    return [v for v in read if v.node is None or v.node.inputs or v.node.op.name != "full"]


def truth(x: Tensor) -> Tensor:
    """A traced tensor of one element as a bool without dims."""
    shaped = x if not x._array.shape else Op.table["reshape"].run(x, shape=())
    if shaped.dtype is bool_:
        return shaped
    return Op.table["ne"].run(shaped, Op.table["full"].run(value=0, shape=(), dtype=shaped.dtype))


# ---- branches --------------------------------------------------------------------------------------------------------


class Branch:
    """One way of a branch.   result: what its function gives."""

    def __init__(self, tracer: Tracer, function: Callable[[], Any]) -> None:
        self.inner = Inner(tracer)
        with self.inner.tracing():
            self.result = function()

    def value(self, x: Tensor) -> Value:
        """The value of a tensor at the branch's end."""
        with self.inner.tracing():
            for cell, value in self.inner.left.items():
                self.inner.tracer.assign(cell, value)
            return self.inner.tracer.value_of(x)


def joined(
    tracer: Tracer,
    pred: Tensor,
    branches: tuple[Branch, Branch],
    pairs: Sequence[tuple[Tensor, Tensor]],
    again: Callable[[], TraceError] | None = None,
) -> list[Tensor]:
    """A `cond` of two branches: for every pair, the tensor that is the first where `pred` is true, else the second.

    What the branches wrote to is what either left.   again: raised where it shows later that results are tensors of their own.
    Raises NoRegion for a pair of two types, and tensors that require grad; SizesAreNumbers.
    """
    for a, b in pairs:
        if a.requires_grad or b.requires_grad:
            raise NoRegion("gradients flow through it")
        if (a.dtype, a._array.shape) != (b.dtype, b._array.shape):
            raise NoRegion(f"a tensor is {_typed(a)} or {_typed(b)}")
    first, second = (branch.inner for branch in branches)
    cells = list(dict.fromkeys((*first.left, *second.left)))
    values = [(branches[0].value(a), branches[1].value(b)) if a is not b else (tracer.value_of(a),) * 2 for a, b in pairs]
    values += [(first.left.get(cell, cell.value), second.left.get(cell, cell.value)) for cell in cells]
    differ = [i for i, (a, b) in enumerate(values) if a is not b]
    made = dict(zip(differ, _cond(tracer, pred, branches, [values[i] for i in differ]), strict=True))
    results = [made.get(i, a) for i, (a, _) in enumerate(values)]
    for cell, value in zip(cells, results[len(pairs) :], strict=True):
        if value is not cell.value:
            tracer.assign(cell, value)
    joint = [a if a is b else _wrapped(tracer, v) for (a, b), v in zip(pairs, results, strict=False)]
    _note_shared(tracer, joint, pairs, (first, second), again)
    return joint


def _typed(x: Tensor) -> TensorType:
    return TensorType(x.dtype, tuple(x._array.shape))


def _wrapped(tracer: Tracer, value: Value) -> Tensor:
    return traced_tensor(value.dtype, value.shape, Cell(tracer, value))


def _cond(tracer: Tracer, pred: Tensor, branches: Sequence[Branch], values: Sequence[tuple[Value, Value]]) -> tuple[Value, ...]:
    if not values:
        return ()
    names = ("true", "false")
    graphs = [b.inner.finished(name, [v[i] for v in values]) for i, (b, name) in enumerate(zip(branches, names, strict=True))]
    operands = _operands(graphs)
    _check_sizes((*operands, *(v for pair in values for v in pair)))
    attrs = {f"{name}_graph": _closed(graph, operands) for name, graph in zip(names, graphs, strict=True)}
    return tracer.builder.emit(Op.table["cond"], (tracer.value_of(pred), *operands), attrs)


def _check_sizes(values: Sequence[Value]) -> None:
    for value in values:
        if not all(type(size) is int for size in value.shape):  # a symbol answers as an int
            raise SizesAreNumbers(at_user_line(f"a region has sizes that are numbers, not {value.type}"))


def _note_shared(
    tracer: Tracer,
    joint: Sequence[Tensor],
    pairs: Sequence[tuple[Tensor, ...]],
    inner: tuple[Inner, Inner],
    again: Callable[[], TraceError] | None,
) -> None:
    """What is a tensor of its own here may share memory in Python: with one of the code around, or with another of `joint`."""
    sources = [list(map(tracer.cell_of, pair)) for pair in pairs]
    known: dict[Cell, list[int]] = {}
    for i, cells in enumerate(sources):
        for cell in cells:
            known.setdefault(cell, []).append(i)
    for i, (x, cells) in enumerate(zip(joint, sources, strict=True)):
        mine = tracer.cell_of(x)
        if mine in cells:
            continue
        others = [tracer.cell_of(joint[j]) for cell in cells for j in known[cell] if j != i]
        around = [cell for cell in cells if cell.region not in inner]
        mine.viewed = tuple((cell, cell.value) for cell in dict.fromkeys((*around, *others)))
        mine.again = again


# ---- loops -----------------------------------------------------------------------------------------------------------


def repeated(
    tracer: Tracer,
    starts: Sequence[Tensor],
    test: Callable[[list[Tensor]], Tensor],
    body: Callable[[list[Tensor]], list[Tensor]],
    again: Callable[[], TraceError] | None = None,
) -> list[Tensor]:
    """A `while_loop`: what becomes of `starts` by `body`, over and over, while `test` of them gives a tensor of one true element.

    Raises NoRegion for a tensor that changes its type, is written to in place while it is carried, or requires grad;
    SizesAreNumbers.
    """
    if any(x.requires_grad for x in starts):
        raise NoRegion("gradients flow through it")
    cells: list[Cell] = []
    for _ in range(MOST_ROUNDS):
        loop = _Loop(tracer, starts, cells)
        loop.trace(test, body)
        new = [cell for cell in loop.body.left if cell not in cells]
        if not new:
            results = loop.emitted()
            joint = [_wrapped(tracer, value) for value in results[: len(starts)]]
            for cell, value in zip(cells, results[len(starts) :], strict=True):
                tracer.assign(cell, value)
            shared = list(zip(starts, loop.stand_ins, loop.results, strict=True))
            _note_shared(tracer, joint, shared, (loop.condition, loop.body), again)
            return joint
        cells += new
    raise NoRegion("its body writes to new tensors in every round")


class _Loop:
    """One attempt.   cells: tensors of the code around it that the body writes to, as far as that is known."""

    def __init__(self, tracer: Tracer, starts: Sequence[Tensor], cells: Sequence[Cell]) -> None:
        self.tracer, self.cells = tracer, cells
        self.starts = [*map(tracer.value_of, starts), *(cell.value for cell in cells)]
        self.inputs = [Value(v.type, None, f"carried{i}") for i, v in enumerate(self.starts)]
        self.condition, self.body = Inner(tracer), Inner(tracer)
        self.results: list[Tensor] = []
        self.stand_ins: list[Tensor] = []

    def trace(self, test: Callable[[list[Tensor]], Tensor], body: Callable[[list[Tensor]], list[Tensor]]) -> None:
        """Trace condition and body once."""
        with self.condition.tracing():
            given = self._given(self.condition)
            self.asked = self.tracer.value_of(truth(test(given)))
            self._expect_untouched(given, self.condition)
        with self.body.tracing():
            self.stand_ins = self._given(self.body)
            self.results = body(list(self.stand_ins))
            self._expect_untouched(self.stand_ins)
            self.outputs = [self.tracer.value_of(x) for x in self.results]
            for old, x in zip(self.inputs, self.results, strict=False):
                if x.requires_grad:
                    raise NoRegion("gradients flow through it")
                if _typed(x) != old.type:
                    raise NoRegion(f"a tensor is {old.type} before a round and {_typed(x)} after it")

    def _given(self, inner: Inner) -> list[Tensor]:
        """Tensors that stand for what is carried, those that are written to in their places."""
        count = len(self.inputs) - len(self.cells)
        for cell, value in zip(self.cells, self.inputs[count:], strict=True):
            self.tracer.assign(cell, value)
        return [inner.tensor(value) for value in self.inputs[:count]]

    def _expect_untouched(self, given: Sequence[Tensor], whole: Inner | None = None) -> None:
        cells = [x._storage.cell for x in given] + ([] if whole is None else list(self.cells))
        values = self.inputs[: len(given)] + ([] if whole is None else self.inputs[len(given) :])
        if any(cell.value is not value for cell, value in zip(cells, values, strict=True)):
            raise NoRegion("a tensor that is carried from round to round is written to in place")
        if whole is not None and len(whole.written) > len(self.cells):
            raise NoRegion("its condition writes to a tensor")

    def emitted(self) -> tuple[Value, ...]:
        """The node."""
        outputs = [*self.outputs, *(self.body.left[cell] for cell in self.cells)]
        graphs = self.condition.finished("condition", [self.asked]), self.body.finished("body", outputs)
        captured = _operands(graphs, self.inputs)
        _check_sizes((*self.starts, *captured))
        given = (*self.inputs, *captured)
        attrs = {name: _closed(graph, given) for name, graph in zip(("cond_graph", "body_graph"), graphs, strict=True)}
        return self.tracer.builder.emit(Op.table["while_loop"], (*self.starts, *captured), attrs)
