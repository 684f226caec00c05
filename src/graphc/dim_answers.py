"""What Python asks of a symbolic size: comparisons, truth, numbers.  Somebody answers while code is traced; else nobody knows.

Enters: questions about a `Dim`.  Leaves: bools and numbers.  Never here: what the answer is, or what follows from having given it
(graphc.capture.sizes); whether two expressions are the same by their form (`dim_rules`).
"""

from __future__ import annotations

import operator
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral, Number
from typing import Any, Protocol


class Answerer(Protocol):
    """Who knows the sizes at hand.  Every answer is one that the code's results may depend on."""

    @property
    def must_be_revised(self) -> bool:
        """Whether the code has to be asked again, with some sizes as numbers."""

    def knows(self, size: Any) -> bool:
        """Whether the symbols of a `Dim` are those that are asked about."""

    def is_positive(self, size: Any) -> bool:
        """Whether a `Size` is more than 0."""

    def is_zero(self, size: Any) -> bool:
        """Whether a `Size` is 0."""

    def number(self, size: Any) -> int:
        """The number that a `Size` is: what is made with it serves no other."""


class _Asked(threading.local):
    answerer: Answerer | None = None


_asked = _Asked()


@contextmanager
def answering(answerer: Answerer | None) -> Iterator[None]:
    """Questions that this thread asks go to `answerer`; with None they are errors, and only equal expressions are equal."""
    before, _asked.answerer = _asked.answerer, answerer
    try:
        yield
    finally:
        _asked.answerer = before


def answer_from_now(answerer: Answerer) -> None:
    """Questions that this thread asks go to `answerer`, until the `answering` ends that it is in."""
    _asked.answerer = answerer


def answerer_of(size: Any) -> Answerer | None:
    """Who answers questions about a `Dim` now."""
    answerer = _asked.answerer
    return answerer if answerer is not None and answerer.knows(size) else None


def current_answerer() -> Answerer | None:
    """Who answers this thread's questions now."""
    return _asked.answerer


def is_answered() -> bool:
    """Whether somebody answers this thread's questions now."""
    return _asked.answerer is not None


def numbers_of(size: Any) -> int:
    """The number that a `Dim` is.  Raises TypeError where nobody knows."""
    answerer = answerer_of(size)
    if answerer is None:
        raise TypeError(f"the symbolic size {size.text} is no number")
    return answerer.number(size)


def mixed(function: Callable[[Any, Any], Any], a: Any, b: Any) -> int:
    """``function(a, b)`` of two numbers of which one is a `Dim` and no size comes out; NotImplemented for what is no number."""
    if not isinstance(a, Number | Questions) or not isinstance(b, Number | Questions):
        return NotImplemented
    size = a if isinstance(a, Questions) else b
    if answerer_of(size) is None:
        return NotImplemented
    return function(_plain(a), _plain(b))  # type: ignore[no-any-return]  # or a float, which no size is


def _plain(x: Any) -> Any:
    return numbers_of(x) if isinstance(x, Questions) else x


def _from_outside() -> bool:
    """Whether the method that calls this was called by code that is not graphc's, of which somebody answers the questions."""
    return is_answered() and sys._getframe(2).f_globals.get("__name__", "").partition(".")[0] != "graphc"


def _ordered(function: Callable[[Any, Any], Any], difference: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The comparison `function`, which is so where the difference is positive."""

    def compare(self: Any, other: Any) -> Any:
        if not isinstance(other, Integral | Questions):
            return mixed(function, self, other)
        size = difference(self, other if isinstance(other, Questions) else int(other))
        if type(size) is int:
            return size > 0 if is_answered() else NotImplemented
        answerer = answerer_of(size)
        return NotImplemented if answerer is None else answerer.is_positive(size)

    return compare


def _number(function: Callable[[Any, Any], Any], swapped: bool = False) -> Callable[[Any, Any], Any]:
    def calculate(self: Any, other: Any) -> Any:
        return mixed(function, other, self) if swapped else mixed(function, self, other)

    return calculate


def _alone(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda self: function(numbers_of(self))


class Questions:
    """What a `Dim` can be asked beside its arithmetic.  Answers to code that is not graphc's are as an int would give them."""

    __slots__ = ()
    text: str

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # type: ignore[override]
        """What `isinstance` asks: where questions are answered a size is an int too, so that code for ints takes its usual way."""
        return type(self) if answerer_of(self) is None else int

    __lt__ = _ordered(operator.lt, lambda a, b: b - a)
    __gt__ = _ordered(operator.gt, lambda a, b: a - b)
    __le__ = _ordered(operator.le, lambda a, b: b - a + 1)
    __ge__ = _ordered(operator.ge, lambda a, b: a - b + 1)

    __index__ = __int__ = __trunc__ = __floor__ = __ceil__ = numbers_of
    __float__, __complex__, __invert__ = _alone(float), _alone(complex), _alone(operator.invert)
    __truediv__, __rtruediv__ = _number(operator.truediv), _number(operator.truediv, True)
    __rpow__ = _number(operator.pow, True)
    __divmod__, __rdivmod__ = _number(divmod), _number(divmod, True)
    __lshift__, __rlshift__ = _number(operator.lshift), _number(operator.lshift, True)
    __rshift__, __rrshift__ = _number(operator.rshift), _number(operator.rshift, True)
    __and__ = __rand__ = _number(operator.and_)
    __or__ = __ror__ = _number(operator.or_)
    __xor__ = __rxor__ = _number(operator.xor)

    def __bool__(self) -> bool:
        answerer = answerer_of(self)
        return answerer is None or not answerer.is_zero(self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self if self >= 0 else -self  # type: ignore[operator]

    def __pow__(self, exponent: Any) -> Any:
        if exponent == 2 and isinstance(exponent, int):
            return self * self  # type: ignore[operator]
        return mixed(operator.pow, self, exponent)

    def __round__(self, digits: int | None = None) -> Any:
        return self if digits is None else round(numbers_of(self), digits)

    def __str__(self) -> str:
        return str(numbers_of(self)) if _from_outside() and answerer_of(self) else self.text

    def __format__(self, form: str) -> str:
        if answerer_of(self) is None or (not form and not _from_outside()):
            return format(self.text, form)
        return format(numbers_of(self), form)

    def hash_of_number(self) -> int | None:
        """The hash of the number, where code that is not graphc's looks for it; else None.  Called by ``__hash__`` alone."""
        if not is_answered() or sys._getframe(2).f_globals.get("__name__", "").partition(".")[0] == "graphc":
            return None
        return None if answerer_of(self) is None else hash(numbers_of(self))


def same_number(size: Any, other: Any) -> bool:
    """``size == other`` of a `Dim` and something that is not the same by its form."""
    if not isinstance(other, Integral | Questions):
        return bool(mixed(operator.eq, size, other) is True)
    difference = size - (other if isinstance(other, Questions) else int(other))
    if type(difference) is int:
        return difference == 0
    answerer = answerer_of(difference)
    return answerer is not None and answerer.is_zero(difference)


def plain_if_short(size: Any) -> Any:
    """The size of a dim: a number where it is below 2, for which there are rules of its own."""
    if type(size) is int or answerer_of(size) is None or size > 1:
        return size
    return numbers_of(size)


def usable_divisor(d: Any) -> Any:
    """A divisor that is known to be positive, or a number."""
    answerer = None if type(d) is int else answerer_of(d)
    return d if answerer is None or answerer.is_positive(d) else answerer.number(d)


__all__ = [
    "Answerer", "Questions", "answer_from_now", "answerer_of", "answering", "current_answerer", "is_answered", "mixed",
    "numbers_of", "plain_if_short", "same_number", "usable_divisor",
]  # fmt: skip
