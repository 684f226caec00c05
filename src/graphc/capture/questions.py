"""What a trace asked of one call, in order: elements, sizes that depend on elements, and sizes of arguments.

Enters: one call's tensors.  Leaves: its answers, and what each leads to.  Never here: who asks (`capture.reads`), compilation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from graphc.capture.live import Step as Arithmetic
from graphc.capture.live import applied
from graphc.capture.sizes import LEAST, Fact, settled
from graphc.dims import Size, evaluate
from graphc.dtypes import DType
from graphc.eager.storage import array_address
from graphc.eager.tensor import Tensor, wrap
from graphc.ir.host import on_host
from graphc.ir.op import COUNT, Op, TensorType

Question = Callable[..., Any]
Found = tuple[np.ndarray[Any, Any], int]  # an array and its address


class Source(NamedTuple):
    """Where a call has a tensor.   kind: ``argument``, ``found`` (`at`: the place), ``state`` (`at`: a `Capture`)."""

    kind: str
    at: Any
    dtype: DType


class Call:
    """What is known of one call.   leaves: its arguments.   sizes: of symbols.   values: what programs found, by place."""

    def __init__(self, leaves: list[Tensor], sizes: Mapping[str, int] | None = None) -> None:
        self.leaves, self.sizes = leaves, dict(sizes or {})
        self.values: list[Found] = []
        self._elements: dict[tuple[Source, bool], Any] = {}

    def run(self, stage: Any) -> None:
        """Have a program (a `Variant`) find more."""
        self.values += stage.compute(stage.traced.all_leaves(self.leaves), self.values, self.sizes)

    def tensor(self, source: Source) -> Tensor:
        """The tensor that is there."""
        if source.kind == "argument":
            return self.leaves[source.at]
        if source.kind == "state":
            return source.at.root()  # type: ignore[no-any-return]
        return wrap(self.values[source.at][0], source.dtype)

    def elements(self, source: Source, all_of_them: bool) -> Any:
        """One number, or nested lists."""
        key = source, all_of_them
        if key not in self._elements:
            tensor = self.tensor(source)
            self._elements[key] = tensor.tolist() if all_of_them else tensor.item()
        return self._elements[key]


class Step:
    """A question.   place: where in the code it is asked, and what; equal for equal questions.   line: of the user's code.
    stage: what finds the values it is about, a `Variant`; None where all of them are there."""

    def __init__(self, place: tuple[Any, ...], line: str = "", stage: Any = None) -> None:
        self.place, self.line, self.stage = place, line, stage

    def way(self, call: Call, ways: Mapping[str, Any]) -> Any:
        """What the answer of a call leads to; None for a new one."""
        raise NotImplementedError


class Asked(Step):
    """``question(the elements at source after arithmetic, *operands)``."""

    def __init__(
        self,
        place: tuple[Any, ...],
        line: str,
        stage: Any,
        source: Source,
        arithmetic: tuple[Arithmetic, ...],
        question: Question,
        operands: tuple[Any, ...],
    ) -> None:
        super().__init__(place, line, stage)
        self.source, self.arithmetic, self.question, self.operands = source, arithmetic, question, operands

    def of(self, call: Call) -> Any:
        """The answer of a call."""
        elements = call.elements(self.source, self.question is listed)
        return self.question(applied(self.arithmetic, elements), *self.operands)

    def way(self, call: Call, ways: Mapping[str, Any]) -> Any:
        """By what the answer reads as: 0.0 and -0.0 are two, and NaN is itself."""
        return ways.get(repr(self.of(call)))


def listed(elements: Any) -> Any:
    """A question: all elements in nested lists, which are the caller's own."""
    return list(map(listed, elements)) if isinstance(elements, list) else elements


class Sized(Step):
    """An operator whose results have a size, called `name`, that depends on elements.

    The answer is that size, or, where that has no answer of its own, that it is another one that was there before, or a multiple of
    something.   is_number: whether the code needs the very number.   equals: the other sizes, by answer.
    """

    def __init__(
        self,
        place: tuple[Any, ...],
        line: str,
        stage: Any,
        sources: tuple[Source, ...],
        op: Op,
        attrs: dict[str, Any],
        types: tuple[TensorType, ...],
        name: str,
    ) -> None:
        super().__init__(place, line, stage)
        self.sources, self.op, self.attrs, self.types, self.name = sources, op, attrs, types, name
        self.dim = types[0].shape.index(COUNT)
        self.is_number = False
        self.equals: dict[str, Size] = {}

    def run(self, call: Call) -> int:
        """Have the results of a call found: the size.  Raises what the operator raises."""
        arrays = [call.tensor(source).numpy_view() for source in self.sources]
        dtypes = [t.dtype for t in self.types]
        results = on_host(self.op, arrays, {name: settled(x, call.sizes) for name, x in self.attrs.items()}, dtypes)
        size = results[0].shape[self.dim]
        for result in results:
            alone = result.base is None and result.flags.c_contiguous and not any(result is a for a in arrays)
            own = result if alone else np.array(result, order="C", copy=True)
            call.values.append((own, array_address(own)))
        return size  # type: ignore[no-any-return]

    def way(self, call: Call, ways: Mapping[str, Any]) -> Any:
        """By the size: the very number first, then an equal size, then the largest factor."""
        size = self.run(call)
        if str(size) in ways:
            return ways[str(size)]
        for answer, equal in self.equals.items():
            if answer in ways and size >= LEAST and evaluate(equal, call.sizes) == size:
                return ways[answer]
        fitting = [f for f in map(_factor, ways) if f and size >= LEAST and size % f == 0]
        if not fitting:
            return None
        factor = max(fitting)
        call.sizes[self.name] = size // factor
        return ways[multiple(factor)]


def multiple(factor: int) -> str:
    """The answer of all sizes with a factor."""
    return f"{LEAST} or more" if factor == 1 else f"a multiple of {factor}"


@cache
def _factor(answer: str) -> int:
    """The factor that an answer tells of; 0 for a number or an equal size."""
    if answer == multiple(1):
        return 1
    start = multiple(0).removesuffix("0")
    return int(answer.removeprefix(start)) if answer.startswith(start) else 0


class SizeFact(Step):
    """Whether a size that the code asked about is more than 0, or 0."""

    def __init__(self, size: Size, positive: bool, line: str) -> None:
        super().__init__((SizeFact, str(size), positive), line)
        self.size, self.positive = size, positive

    @classmethod
    def of(cls, fact: Fact) -> SizeFact:
        """The question that a fact answers."""
        return cls(fact.size, fact.relation != "!=", fact.line)

    def answer(self, call: Call) -> str:
        """The answer of a call."""
        number = evaluate(self.size, call.sizes)
        return str(number > 0 if self.positive else number == 0)

    def way(self, call: Call, ways: Mapping[str, Any]) -> Any:
        """By the answer."""
        return ways.get(self.answer(call))


class Fork:
    """A question, and what each answer leads to: another one, or a specialisation."""

    __slots__ = ("step", "ways")

    def __init__(self, step: Step) -> None:
        self.step = step
        self.ways: dict[str, Any] = {}


__all__ = ["Asked", "Call", "Fork", "Found", "Question", "SizeFact", "Sized", "Source", "Step", "listed", "multiple"]
