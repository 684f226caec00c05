"""Elements of traced tensors that the code asks for in Python: ``if t:``, ``item()``, ``tolist()``.

Enters: traced tensors whose elements are needed.  Leaves: the elements that this call has, by a program of everything up to there;
what was asked and answered, in order: the trace holds for calls with the same answers.
Never here: compilation, which answers lead to which program (`graphc.paths`).

The programs change nothing.  So a call may run them one by one until it is known what the code will do, and only then do it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from graphc.capture.live import Live, Step, applied, itself
from graphc.capture.tracer import Traced, Tracer
from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor
from graphc.errors import TraceError, at_user_line
from graphc.ir.graph import Graph, Node, Value
from graphc.trees import Tree

MOST_READS = 64  # of one call
Question = Callable[..., Any]


class Asked(NamedTuple):
    """``question(what the probe gives after steps, *operands)`` gave `answer`, at `line` of the user's code.

    probe: gives a call's elements: ``run(leaves)`` is a tensor.
    """

    probe: Any
    steps: tuple[Step, ...]
    question: Question
    operands: tuple[Any, ...]
    answer: Any
    line: str

    @property
    def key(self) -> str:
        """What the answer reads as: 0.0 and -0.0 are two, and NaN is itself."""
        return repr(self.answer)

    def of(self, found: Tensor) -> Any:
        """The answer for other elements."""
        return self.question(applied(self.steps, _elements(found, self.question)), *self.operands)

    def is_like(self, other: Asked) -> bool:
        """Whether the same was asked of the same tensor."""
        mine, its = ([(id(s.tensor), s.of_grad) for s in asked.probe.traced.states] for asked in (self, other))
        same = self.probe.program is other.probe.program and mine == its and self.question is other.question
        return same and repr((self.steps, self.operands)) == repr((other.steps, other.operands))


def listed(elements: Any) -> Any:
    """A question: all elements in nested lists, which are the caller's own."""
    return list(map(listed, elements)) if isinstance(elements, list) else elements


def _elements(found: Tensor, question: Question) -> Any:
    return found.tolist() if question is listed else found.item()


class Reading:
    """One tensor that was read.   value: a traced tensor that stays what it was then."""

    def __init__(self, reads: Reads, value: Tensor) -> None:
        self.reads, self.value = reads, value
        self.probe: Any = None
        self.elements: Any = None  # one number or nested lists

    def ask(self, steps: tuple[Step, ...], question: Question, operands: tuple[Any, ...]) -> Any:
        """The answer of this call.  Raises TraceError after the trace, and for too many questions."""
        reads = self.reads
        if modes.tracer is None or reads.closed:
            raise TraceError(at_user_line("a number that was read while tracing was used after the trace ended"))
        if len(reads.path) >= MOST_READS:
            raise TraceError(at_user_line(f"one call reads more than {MOST_READS} values into Python"))
        if self.probe is None:
            self.probe, self.elements = reads.run(self.value, question)
        answer = question(applied(steps, self.elements), *operands)
        reads.path.append(Asked(self.probe, steps, question, operands, answer, at_user_line("")))
        return answer


class Reads:
    """All reads of one trace.   path: what was asked, in order.   started: whether anything was read, though perhaps nothing asked.
    make: compiles what gives a tensor's elements."""

    def __init__(self, tracer: Tracer, make: Callable[[Traced], Any]) -> None:
        self.tracer, self.make = tracer, make
        self.path: list[Asked] = []
        self.closed = self.started = False

    def number(self, x: Tensor) -> Any:
        """The one element of x as a Python number: a live one, where that can be."""
        reading = self._reading(x)
        if x.dtype.kind in "bc":
            return reading.ask((), itself, ())
        return Live(reading, float if x.dtype.kind == "f" else int)

    def lists(self, x: Tensor) -> Any:
        """All elements of x in nested lists."""
        return self._reading(x).ask((), listed, ())

    def _reading(self, x: Tensor) -> Reading:
        self.started = True
        return Reading(self, self.tracer.fresh(x))

    def run(self, x: Tensor, question: Question) -> tuple[Any, Any]:
        """A program for the elements of a traced tensor, and those that this call has."""
        tracer = self.tracer
        value = tracer.value_of(x)
        inputs = (*tracer.arguments, *(v for v, _ in tracer.states), *(v for v, _, _ in tracer.scalars))
        traced = Traced(_copied(tracer.builder.graph("read", inputs, (value,))), Tree("leaf"), 1)
        traced.arguments = list(range(len(tracer.arguments)))
        traced.states = [capture for _, capture in tracer.states]
        traced.scalars = [(getter, dtype) for _, getter, dtype in tracer.scalars]
        traced.none_grads, traced.numbers = list(tracer.grad_reads.values()), list(tracer.numbers)
        traced.reads, traced.requires_grad = list(tracer.attributes.reads.values()), [False]
        with _outside(tracer):
            probe = self.make(traced)
            return probe, _elements(probe.run(tracer.leaves[: tracer.given]), question)


@contextmanager
def _outside(tracer: Tracer) -> Iterator[None]:
    """While inside, nothing is traced, and tensors from outside are what they were before the trace."""
    during = [(s, {name: getattr(s.tensor, name) for name in s.FIELDS}) for s in tracer.snapshots.values()]
    grad = modes.grad
    for s, _ in during:
        s.restore()
    modes.tracer = None
    try:
        yield
    finally:
        modes.tracer, modes.grad = tracer, grad
        for s, parts in during:
            for name, part in parts.items():
                setattr(s.tensor, name, part)


def _copied(graph: Graph) -> Graph:
    """The same with values of its own: the trace goes on with the others."""
    new = {v: Value(v.type, None, v.name, "input") for v in graph.inputs}
    nodes = []
    for node in graph.nodes:
        copy = Node(node.op, tuple(new[v] for v in node.inputs), node.attrs, [v.type for v in node.outputs], node.location)
        new.update(zip(node.outputs, copy.outputs, strict=True))
        nodes.append(copy)
    return Graph(graph.name, tuple(new.values())[: len(graph.inputs)], tuple(nodes), tuple(new[v] for v in graph.outputs))
