"""The parts of a size: atoms, monomials, and polynomials as plain dictionaries.

Enters: dictionaries from monomial to coefficient.  Leaves: the same, their text and their range.  Never here: a rule
that knows what a division or a remainder means (graphc.dim_rules), and zero coefficients.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from graphc.dim_rules import Size

Kind = Literal["symbol", "//", "%", "min", "max"]
Bound = int | None


class Atom(str):
    """A factor of a monomial.  Its string is its text; `below`: an exclusive symbolic upper bound, where known."""

    __slots__ = ("args", "below", "depends", "free", "high", "kind", "low", "quotient")

    args: tuple[Size, ...]
    below: Size | None
    depends: frozenset[str]  # names in the text and in the bounds
    free: frozenset[str]  # names in the text
    high: Bound
    kind: Kind
    low: Bound
    quotient: Size | None  # of e % d: d * (e // d), made when first asked for

    def __deepcopy__(self, memo: object) -> Atom:
        return self


Monomial = tuple[Atom, ...]
Terms = dict[Monomial, int]


def accumulate(terms: Terms, more: Terms, factor: Monomial, scale: int) -> None:
    """terms += scale * factor * more, in place."""
    for monomial, coefficient in more.items():
        key = tuple(sorted(monomial + factor)) if factor else monomial
        total = terms.get(key, 0) + scale * coefficient
        if total:
            terms[key] = total
        else:
            terms.pop(key, None)


def without(monomial: Monomial, factor: Monomial) -> Monomial | None:
    """monomial / factor, or None where factor does not divide it."""
    if not factor:
        return monomial
    left = list(monomial)
    for atom in factor:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def degree(monomial: Monomial) -> tuple[int, Monomial]:
    """What monomials are ordered by: how many factors, then their names."""
    return len(monomial), monomial


def text_of(terms: Terms) -> str:
    """Infix text: terms by falling degree, then by name; the constant last."""
    parts: list[str] = []
    for monomial in sorted(terms, key=lambda m: (-len(m), m)):
        coefficient = terms[monomial]
        size = abs(coefficient)
        if len(monomial) == 1 and size == 1 and coefficient > 0:
            text = str(monomial[0])
        else:
            factors = [a if a.kind in ("symbol", "min", "max") else f"({a})" for a in monomial]
            text = "*".join([*factors, str(size)] if size != 1 or not factors else factors)
        sign = "-" if coefficient < 0 else "+"
        parts.append(f" {sign} {text}" if parts else f"-{text}" if coefficient < 0 else text)
    return "".join(parts)


def interval(terms: Terms) -> tuple[Bound, Bound]:
    """(lowest, highest) value of a polynomial by interval arithmetic; None where there is no limit."""
    low: Bound = 0
    high: Bound = 0
    for monomial, coefficient in terms.items():
        least: Bound = coefficient
        most: Bound = coefficient
        for atom in monomial:
            least, most = _interval_product(least, most, atom.low, atom.high)
        low = None if low is None or least is None else low + least
        high = None if high is None or most is None else high + most
    return low, high


def _interval_product(a: Bound, b: Bound, low: Bound, high: Bound) -> tuple[Bound, Bound]:
    """[a, b] * [low, high]."""
    left = (-inf if a is None else a, inf if b is None else b)
    right = (-inf if low is None else low, inf if high is None else high)
    corners = [x * y if x and y else 0 for x in left for y in right]
    least, most = min(corners), max(corners)
    return least if type(least) is int else None, most if type(most) is int else None
