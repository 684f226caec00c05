"""Elements of traced tensors that the code asks for: ``if t:``, ``item()``, ``tolist()``, and results whose sizes depend on them.

Enters: traced tensors whose elements are needed.  Leaves: the elements that this call has, by a program of what was traced since
the last question; what was asked and answered, in order (`graphc.capture.questions`): the trace holds for calls with the same
answers.
Never here: compilation, which answers lead to which program (`graphc.paths`).

The programs change nothing.  So a call may run them one by one until it is known what the code will do, and only then do it.  Each
gives, beside what was asked, the values that the code can still reach: nothing is computed twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from graphc.capture.live import Live, itself
from graphc.capture.live import Step as Arithmetic
from graphc.capture.questions import Asked, Call, Fork, Question, Sized, SizeFact, Source, Step, listed, multiple
from graphc.capture.sizes import LEAST, Questions, Symbol
from graphc.capture.stages import computing, worth_keeping
from graphc.capture.traced import Traced
from graphc.capture.tracer import Cell, Tracer
from graphc.dim_answers import answer_from_now, answering, is_answered
from graphc.dims import Dim, Size, evaluate, substitute
from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor
from graphc.errors import TraceError, at_user_line
from graphc.ir.graph import Node, Value
from graphc.ir.op import COUNT, Op, TensorType
from graphc.ir.text import print_attributes
from graphc.trees import Tree

MOST_READS = 64  # of one call


class Reading:
    """One tensor that was read.   value: a traced tensor that stays what it was then."""

    def __init__(self, reads: Reads, value: Tensor) -> None:
        self.reads, self.value = reads, value

    def ask(self, steps: tuple[Arithmetic, ...], question: Question, operands: tuple[Any, ...]) -> Any:
        """The answer of this call.  Raises TraceError after the trace, and for too many questions."""
        return self.reads.ask(self.value, steps, question, operands)


class Reads:
    """All reads of one trace.   path: what was asked, in order.   started: whether anything was read, though perhaps nothing asked.

    make: compiles what gives values.   known: the paths that earlier traces of the same code took.   questions: who answers for
    sizes.   revisions: of sizes that depend on elements, by name (`Questions.revise`).   numbers: whether all of those are numbers.
    """

    def __init__(
        self,
        tracer: Tracer,
        make: Callable[[Traced], Any],
        known: Any = None,
        questions: Questions | None = None,
        revisions: Mapping[str, Size] | None = None,
        numbers: bool = False,
    ) -> None:
        self.tracer, self.make, self.known = tracer, make, known
        self.questions = Questions({}) if questions is None else questions
        self.revisions, self.numbers = revisions or {}, numbers
        self.path: list[tuple[Step, str]] = []
        self.call = Call(tracer.leaves[: tracer.given], self.questions.values)
        self.closed = self.started = False
        self.cells: WeakSet[Cell] = WeakSet()
        self.found: dict[Value, int] = {}  # what need not be computed again
        self.copies: dict[Value, int] = {}  # inputs of the graph, as they were
        self.order: dict[Node, int] = {}
        self._facts: set[tuple[Any, ...]] = set()
        self._answers: dict[tuple[Any, ...], Any] = {}
        self._sized: dict[tuple[Any, ...], list[Value]] = {}
        self._numbers: dict[Value, int] = {}
        self._constant: dict[Node, bool] = {}
        self._late: set[Value] = set()  # what depends on gradients that come after the call
        self._digest = hashlib.sha256()
        self._guarded = [0, 0, 0]

    # ---- what the code asks

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

    def ask(self, x: Tensor, arithmetic: tuple[Arithmetic, ...], question: Question, operands: tuple[Any, ...]) -> Any:
        """What a call's elements say."""
        (value,) = self._begin((x,))
        said = value, question, repr((arithmetic, operands))
        if self.closed and said in self._answers:
            return self._answers[said]
        self._refuse_late((value,))
        place = (Asked, self._place((value,)), *said[1:])
        known = self._known(place)
        stage, (source,) = self._run((value,), known)
        asked = known or Asked(place, at_user_line(""), stage, source, arithmetic, question, operands)
        with _outside(self.tracer):
            answer = asked.of(self.call)
        self._take(asked, repr(answer))
        self._answers[said] = answer
        return answer

    def sized(self, op: Op, inputs: Sequence[Tensor], attrs: dict[str, Any]) -> tuple[Tensor, ...]:
        """The results of an operator that sizes them by elements: further inputs of all later programs."""
        self.started = True
        values = self._begin(inputs)
        with answering(None):
            text = print_attributes(op, attrs)
        same = (op, values, text)
        if same in self._sized:
            return tuple(map(self.tracer.tensor, self._sized[same]))
        self._refuse_late(values)
        place = (Sized, self._place(values), op.name, text)
        known = self._known(place)
        stage, sources = self._run(values, known)
        types = op.infer_types([v.type for v in values], attrs)
        name = f"count{sum(type(step) is Sized for step, _ in self.path)}"
        step = known or Sized(place, at_user_line(""), stage, sources, op, attrs, types, name)
        first = len(self.call.values)
        with _outside(self.tracer):
            size: Any = step.run(self.call)
        wanted = self.revisions.get(name, 1)
        step.is_number |= type(wanted) is int and wanted < 0
        if size < LEAST or self.numbers or step.is_number or size == attrs.get("minlength"):
            wanted = 0
        if type(wanted) is Dim and evaluate(wanted, self.call.sizes) == size:
            size = step.equals[wanted.text] = wanted
            self._take(step, wanted.text)
        elif type(wanted) is int and wanted:
            self._take(step, multiple(wanted))
            size = self._open(Symbol(name, factor=wanted), size // wanted)
        else:
            self._take(step, str(size))
        shapes = [tuple(substitute(s, {COUNT.text: size}) for s in t.shape) for t in types]
        results = [Value(TensorType(t.dtype, shape), None, "found") for t, shape in zip(types, shapes, strict=True)]
        for place_of, value in enumerate(results, start=first):
            self.found[value], value.name = place_of, f"found{place_of}"
        self.tracer.sized += results
        self._sized[same] = results
        return tuple(map(self.tracer.tensor, results))

    def _open(self, symbol: Symbol, value: int) -> Any:
        """A new symbolic size."""
        self.questions.open(symbol.name, value)
        self.call.sizes[symbol.name] = value
        if not is_answered():
            answer_from_now(self.questions)
        return symbol.size()

    # ---- where in the code that is

    def end(self) -> Call:
        """The trace is done: what is known of the call.  Gradients that are traced once more get the same answers."""
        call, self.call = self.call, Call([])
        return call

    def _refuse_late(self, values: Sequence[Value]) -> None:
        if self.closed:
            raise TraceError(at_user_line("a number that was read while tracing was used after the trace ended"))
        if not self._late.isdisjoint(values):
            raise TraceError(at_user_line("backward reads elements of a gradient, which is not known when forward runs"))

    def _begin(self, inputs: Sequence[Tensor]) -> tuple[Value, ...]:
        level = modes.tracer
        while level is not None and level is not self.tracer:  # of vmap
            level = getattr(level, "outer", None)
        if level is None:
            raise TraceError(at_user_line("a number that was read while tracing was used after the trace ended"))
        values = tuple(map(self.tracer.value_of, inputs))
        if self.closed:
            return values
        if sum(type(step) is not SizeFact for step, _ in self.path) >= MOST_READS:
            raise TraceError(at_user_line(f"one call reads more than {MOST_READS} values into Python"))
        if self.questions.must_be_revised:
            raise TraceError("the code is traced again with a size as a number")
        self._late.update(self.tracer.gradients)
        with answering(None):
            for node in self.tracer.builder.nodes[len(self.order) :]:
                constant = all(v.node is not None and self._constant[v.node] for v in node.inputs)
                self.order[node], self._constant[node] = len(self.order), constant
                text = f"{node.op.name}{self._place(node.inputs)}{print_attributes(node.op, node.attrs)}"
                self._digest.update(text.encode())
                self._numbers.update((v, len(self._numbers)) for v in node.outputs)
                if not self._late.isdisjoint(node.inputs):
                    self._late.update(node.outputs)
        self.note_facts()
        return values

    def _place(self, values: Sequence[Value]) -> tuple[Any, ...]:
        """Which values they are, the same in every trace that did the same up to here."""
        return (*((self._numbers[v] if v in self._numbers else self._named(v)) for v in values), self._digest.hexdigest())

    def _named(self, value: Value) -> str:
        """Where an input's memory is."""
        tracer = self.tracer
        for v, capture in tracer.states:
            if v is value and v in tracer.constants:
                return f"{v.type} {hashlib.sha256(capture.array.tobytes()).hexdigest()}"
            if v is value:
                return f"{id(capture.tensor)} {capture.of_grad}"
        for v, getter, dtype in tracer.scalars:
            if v is value:
                return f"{id(getter)} {dtype}"
        return f"{value.name} {value.type}"

    def note_facts(self) -> None:
        """Put on the path what was answered of sizes since the last question."""
        for fact in list(self.questions.facts.values()):
            step = SizeFact.of(fact)
            if step.place not in self._facts:
                self._take(step, step.answer(self.call))
        while isinstance(self.known, Fork) and type(self.known.step) is SizeFact:  # that an earlier trace needed here
            self._take(self.known.step, self.known.step.answer(self.call))

    def _known(self, place: tuple[Any, ...]) -> Any:
        """The same question at the same place of an earlier trace."""
        return self.known.step if isinstance(self.known, Fork) and self.known.step.place == place else None

    def _take(self, step: Step, answer: str) -> None:
        if type(step) is SizeFact:
            self._facts.add(step.place)
        known = self._known(step.place)
        self.path.append((known or step, answer))
        self.known = None if known is None else self.known.ways.get(answer)

    # ---- programs

    def _run(self, values: Sequence[Value], known: Step | None) -> tuple[Any, tuple[Source, ...]]:
        """Have what gives `values` computed, if they are not found yet: by what, and where they are."""
        there = {**self._plain(), **{v: Source("found", i, v.dtype) for v, i in (*self.found.items(), *self.copies.items())}}
        missing = [v for v in values if v not in there]
        stage = known.stage if known is not None else self._compiled(missing) if missing else None
        if stage is not None:
            self._guard(stage)
            first = len(self.call.values)
            with _outside(self.tracer):
                self.call.run(stage)
            for place, given in enumerate(stage.traced.gives, start=first):
                value = self._given(given)
                there[value] = Source("found", place, value.dtype)
                (self.found if value.node is not None else self.copies)[value] = place
        self.note_facts()
        return stage, tuple(there[v] for v in values)

    def _given(self, what: tuple[int, int] | str) -> Value:
        """The value that a program gives: a node's result, or a copy of an input."""
        if isinstance(what, str):
            return next(v for v in self._inputs() if v.name == what)
        return self.tracer.builder.nodes[what[0]].outputs[what[1]]

    def _inputs(self) -> list[Value]:
        tracer = self.tracer
        return [*tracer.arguments, *(v for v, _ in tracer.states), *(v for v, _, _ in tracer.scalars)]

    def _plain(self) -> dict[Value, Source]:
        """Inputs whose elements can be read where they are."""
        tracer = self.tracer
        found = {v: Source("argument", i, v.dtype) for i, v in enumerate(tracer.arguments[: tracer.given])}
        found.update({v: Source("state", capture, v.dtype) for v, capture in tracer.states if not capture.of_grad})
        return found

    def _kept(self) -> Iterator[Value]:
        """The values that the code can still reach and that take time to make."""
        for cell in self.cells:
            if cell.value.node in self.order and cell.value not in self.found:
                value = worth_keeping(cell.value, self._constant)
                if value is not None and value not in self.found and value not in self._late:
                    yield value

    def _compiled(self, wanted: Sequence[Value]) -> Any:
        tracer = self.tracer
        computed = {v for v in (*wanted, *self._kept()) if v.node is not None}
        gives = {v: (self.order[v.node], v.node.outputs.index(v)) for v in computed if v.node is not None}
        outputs = sorted(gives, key=gives.__getitem__)
        copied = [v for v in wanted if v.node is None]
        graph, read = computing((*outputs, *copied), dict.fromkeys((*self._inputs(), *self.found)), self.order)
        among = set(read)
        traced = Traced(graph, Tree("leaf"), len(graph.outputs))
        traced.arguments = [i for i, v in enumerate(tracer.arguments) if v in among]
        traced.states = [capture for v, capture in tracer.states if v in among]
        traced.scalars = [(getter, dtype) for v, getter, dtype in tracer.scalars if v in among]
        traced.found = [place for v, place in self.found.items() if v in among]
        traced.lasting = [i for i, capture in enumerate(traced.states) if self._lasts(capture)]
        traced.gives = [*(gives[v] for v in outputs), *(v.name for v in copied)]
        return self.make(traced)

    def _lasts(self, capture: Any) -> bool:
        """Whether a state is no parameter that learns, and was not written to so far."""
        cell = self.tracer.cells.get(id(capture._storage))
        learns = capture.of_grad or (modes.grad and capture.tensor.requires_grad)
        return not learns and (cell is None or cell.value is cell.initial)

    def _guard(self, stage: Any) -> None:
        """Have a program look at what the trace assumed since the one before it."""
        tracer, traced = self.tracer, stage.traced
        grads, numbers, start = self._guarded
        traced.none_grads = list(tracer.grad_reads.values())[grads:]
        traced.numbers = tracer.numbers[numbers:]
        traced.reads = list(tracer.attributes.reads.values())
        if start:
            stage.values = []
        self._guarded = [len(tracer.grad_reads), len(tracer.numbers), 1]


@contextmanager
def _outside(tracer: Tracer) -> Iterator[None]:
    """While inside, nothing is traced, and tensors from outside are what they were before the trace."""
    during = [(s, {name: getattr(s.tensor, name) for name in s.FIELDS}) for s in tracer.snapshots.values()]
    before = modes.tracer, modes.grad
    for s, _ in during:
        s.restore()
    modes.tracer = None
    try:
        yield
    finally:
        modes.tracer, modes.grad = before
        for s, parts in during:
            for name, part in parts.items():
                setattr(s.tensor, name, part)
