"""`Live`: a Python number that traced code has in hand and that may be another one at the next call.

Enters: numbers and who wants to know what is asked of them.  Leaves: numbers that remember how they were made.
Never here: tensors, where the numbers come from.

Sums, differences and products with plain numbers stay live and are computed anew at every call.  Whatever else is done with one
asks what it is: an answer that the trace then holds for.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from graphc.dtypes import DType
from graphc.trees import flatten

Number = int | float
Step = tuple[Callable[..., Any], tuple[Any, ...], bool]  # a function, its other operand if it has one, whether that comes first


class Answer:
    """What a trace was told of a number: ``question(number after steps, *operands)`` gave `answer`."""

    __slots__ = ("answer", "operands", "question", "steps")

    def __init__(self, steps: tuple[Step, ...], question: Callable[..., Any], operands: tuple[Any, ...], answer: Any) -> None:
        self.steps, self.question, self.operands, self.answer = steps, question, operands, answer

    def holds(self, number: Number) -> bool:
        """Whether the same is true of another number."""
        now = self.question(applied(self.steps, number), *self.operands)
        return type(now) is type(self.answer) and same_number(now, self.answer)


def same_number(a: Any, b: Any) -> bool:
    """Whether two numbers of one type are the same: NaN is itself, and 0.0 is not -0.0."""
    if isinstance(a, float):
        return (a == b and math.copysign(1.0, a) == math.copysign(1.0, b)) or (a != a and b != b)
    return bool(a == b)


def applied(steps: tuple[Step, ...], number: Any) -> Any:
    """The number that `steps` make of another."""
    for function, operands, reflected in steps:
        number = function(*operands, number) if reflected else function(number, *operands)
    return number


class Live:
    """A number of type `int` or `float` that is asked for only where it matters.

    source: an attribute or a tensor; has ``ask(steps, question, operands)``, which gives the answer of this call and remembers it.
    kind: the number's type.
    """

    __slots__ = ("kind", "source", "steps")

    def __init__(self, source: Any, kind: type, steps: tuple[Step, ...] = ()) -> None:
        self.source, self.kind, self.steps = source, kind, steps

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """What `isinstance` looks at."""
        return self.kind

    def plain(self) -> Any:
        """The number of this call: from now on the trace holds for this number only."""
        return self.source.ask(self.steps, itself, ())


def itself(number: Any) -> Any:
    """A question: what the number is."""
    return number


def is_live(x: Any) -> bool:
    """Whether x is such a number."""
    return type(x) is Live


def plain_numbers(value: Any, which: Callable[[Any], bool] = is_live) -> Any:
    """A nested value with plain numbers for the live ones, or for those of them `which` chooses."""
    found, tree = flatten(value, is_live)
    return tree.unflatten([x.plain() if which(x) else x for x in found]) if found else value


def elements_of(number: Any, dtype: DType) -> Any:
    """The tensor whose element a live number is, where that becomes the same element of `dtype` as the number does; else None."""
    floating = is_live(number) and not number.steps and number.kind is float and dtype.kind == "f"
    return number.source.value if floating else None


def _kept(function: Callable[..., Any], reflected: bool = False) -> Callable[[Live, Any], Any]:
    """An operator that cannot fail: what it gives stays live."""

    def method(self: Live, other: Any) -> Any:
        fits = type(other) is self.kind or type(other) is bool or (self.kind is float and type(other) is int and abs(other) < 2**53)
        if fits:
            return Live(self.source, self.kind, (*self.steps, (function, (other,), reflected)))
        a, b = self.plain(), other.plain() if is_live(other) else other
        return function(b, a) if reflected else function(a, b)

    return method


def _asked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A comparison with a plain number, which is answered; with anything else the number is asked for."""

    def method(self: Live, other: Any) -> Any:
        if type(other) in (bool, int, float):
            return self.source.ask(self.steps, function, (other,))
        return function(self.plain(), other.plain() if is_live(other) else other)

    return method


def _plainly(name: str) -> Callable[..., Any]:
    """A method of plain numbers."""

    def method(self: Live, *args: Any) -> Any:
        return getattr(self.plain(), name)(*plain_numbers(args))

    return method


def _remainder(self: Live, other: Any) -> Any:
    if self.kind is int and type(other) is int and other:
        return Live(self.source, int, (*self.steps, (operator.mod, (other,), False)))
    return self.plain() % (other.plain() if is_live(other) else other)


_METHODS: dict[str, Callable[..., Any]] = {
    **{f"__{name}__": _kept(getattr(operator, name)) for name in ("add", "sub", "mul")},
    **{f"__r{name}__": _kept(getattr(operator, name), reflected=True) for name in ("add", "sub", "mul")},
    **{f"__{name}__": _asked(getattr(operator, name)) for name in ("lt", "le", "eq", "ne", "gt", "ge")},
    **{
        f"__{name}__": _plainly(f"__{name}__")
        for name in (
            "abs", "and", "ceil", "divmod", "float", "floor", "floordiv", "format", "hash", "index", "int", "invert", "lshift",
            "neg", "or", "pos", "pow", "rand", "rdivmod", "repr", "rfloordiv", "rlshift", "rmod", "ror", "round", "rpow", "rrshift",
            "rshift", "rtruediv", "rxor", "str", "truediv", "trunc", "xor",
        )
    },
    "__mod__": _remainder,
    "__bool__": lambda self: self.source.ask(self.steps, operator.truth, ()),
    "__getattr__": lambda self, name: getattr(self.plain() if hasattr(self.kind, name) else self.kind, name),
}  # fmt: skip
for _name, _method in _METHODS.items():
    setattr(Live, _name, _method)
