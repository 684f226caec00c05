"""Symbolic integers: tensor sizes, loop indices, and the arithmetic on them.

Enters: ints and named symbols.  Leaves: `Size`, an int or a canonical `Dim`.  Never here: anything but integers.

Here are the functions of whole expressions and every public name; graphc.dim_rules says what a `Dim` is and how its
operators simplify.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

from graphc.dim_rules import Dim, Size, bounds, compound, depends, divides, free, known_less, made, same_form
from graphc.dim_terms import Atom, Kind, Terms

__all__ = [
    "Atom", "Dim", "Size",
    "bounds", "divides", "free", "known_equal", "known_less",
    "coefficient", "evaluate", "is_equal", "maximum", "minimum", "parse", "product", "split", "substitute",
]  # fmt: skip

_TEXT_LIMIT = 20_000


def known_equal(a: Size, b: Size) -> bool:
    """Whether a == b for all values of the symbols, as far as the canonical form tells."""
    if same_form(a, b):
        return True
    difference = a - b
    return type(difference) is int and difference == 0


def minimum(a: Size, b: Size) -> Size:
    """The smaller of two sizes; one of them where bounds decide."""
    if type(a) is int and type(b) is int:
        return a if a <= b else b
    if same_form(a, b) or known_less(a, b + 1):
        return a
    if known_less(b, a + 1):
        return b
    a, b = _ordered(a, b)
    (low, high), (low_b, high_b) = bounds(a), bounds(b)
    low = None if low is None or low_b is None else min(low, low_b)
    highs = [h for h in (high, high_b) if h is not None]
    return compound(f"min({a}, {b})", "min", (a, b), low, min(highs, default=None), a + 1)


def maximum(a: Size, b: Size) -> Size:
    """The larger of two sizes; one of them where bounds decide."""
    if type(a) is int and type(b) is int:
        return a if a >= b else b
    if same_form(a, b) or known_less(b, a + 1):
        return a
    if known_less(a, b + 1):
        return b
    a, b = _ordered(a, b)
    (low, high), (low_b, high_b) = bounds(a), bounds(b)
    lows = [v for v in (low, low_b) if v is not None]
    high = None if high is None or high_b is None else max(high, high_b)
    return compound(f"max({a}, {b})", "max", (a, b), max(lows, default=None), high, None)


def is_equal(size: Size, number: int) -> Size:
    """1 where `size` is that number, else 0."""
    return maximum(0, 1 - maximum(size - number, number - size))


def _ordered(a: Size, b: Size) -> tuple[Size, Size]:
    """Symbolic before constant, then by text: one text for either order of arguments."""
    return (a, b) if (type(a) is int, str(a)) <= (type(b) is int, str(b)) else (b, a)


def product(sizes: Iterable[Size]) -> Size:
    """The product of `sizes`; 1 for none."""
    result: Size = 1
    for size in sizes:
        result = result * size
    return result


def split(size: Size, name: str) -> tuple[Size, Size] | None:
    """(c, r) with size == c * name + r and neither using `name`; None where `size` is not affine in it."""
    if name not in free(size):
        return 0, size
    assert type(size) is Dim
    factor: Terms = {}
    rest: Terms = {}
    for monomial, coefficient in size.terms.items():
        uses = [a for a in monomial if name in a.free]
        if not uses:
            rest[monomial] = coefficient
        elif len(uses) == 1 and uses[0] == name:
            factor[tuple(a for a in monomial if a != name)] = coefficient
        else:
            return None
    return made(factor, size.mods), made(rest, size.mods)


def coefficient(size: Size, name: str) -> Size | None:
    """The factor of symbol `name` in `size`: 0 where absent, None where `size` is not affine in it."""
    if name not in free(size):
        return 0
    assert type(size) is Dim
    factor: Terms = {}
    for monomial, coefficient in size.terms.items():
        if monomial == (name,):  # nearly always
            factor[()] = coefficient
            continue
        for atom in monomial:
            if name in atom.free:
                if atom != name or monomial.count(atom) > 1:
                    return None
                factor[tuple(a for a in monomial if a != name)] = coefficient
    return made(factor, size.mods)


def substitute(size: Size, values: Mapping[str, Size]) -> Size:
    """`size` with each symbol named in `values` replaced, all at once, also in the bounds of the symbols that stay."""
    if type(size) is int or depends(size).isdisjoint(values):
        return size
    assert type(size) is Dim
    result: Size = 0
    for monomial, factor in size.terms.items():
        term: Size = factor
        for atom in monomial:
            term = term * _substituted(atom, values)
        result = result + term
    return result


def _substituted(atom: Atom, values: Mapping[str, Size]) -> Size:
    if atom.kind == "symbol":
        value = values.get(atom)
        if value is not None:
            return value
        if atom.below is None or depends(atom.below).isdisjoint(values):
            return Dim({(atom,): 1}, False)
        return Dim.symbol(str(atom), atom.low, atom.high, substitute(atom.below, values))
    a, b = (substitute(arg, values) for arg in atom.args)
    return _applied(atom.kind, a, b)


def _applied(kind: Kind, a: Size, b: Size) -> Size:
    if kind == "//":
        return a // b
    if kind == "%":
        return a % b
    return minimum(a, b) if kind == "min" else maximum(a, b)


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """The number that `size` is for given values of its symbols.  Raises KeyError for a symbol without one."""
    if type(size) is int:
        return size
    assert type(size) is Dim
    total = 0
    for monomial, factor in size.terms.items():
        for atom in monomial:
            if atom.kind == "symbol":
                factor *= values[atom]
            else:
                value = _applied(atom.kind, evaluate(atom.args[0], values), evaluate(atom.args[1], values))
                assert type(value) is int
                factor *= value
        total += factor
    return total


def parse(text: str, symbols: Mapping[str, Size] | None = None) -> Size:
    """The size that `str` wrote as `text`.  Names in `symbols` stand for those sizes, others are new symbols from 0 up.

    Raises ValueError for text that is not an integer expression.
    """
    if text.isdecimal() and text.isascii() and len(text) < 19 and (text[0] != "0" or text == "0"):
        return int(text)  # nearly every size
    if len(text) > _TEXT_LIMIT:
        raise ValueError(f"size expression of {len(text)} characters is longer than {_TEXT_LIMIT}")
    try:
        return _parsed(ast.parse(text.strip(), mode="eval").body, symbols or {})
    except (SyntaxError, RecursionError, MemoryError, ZeroDivisionError) as error:
        raise ValueError(f"not a size expression: {text[:80]!r}") from error


def _parsed(node: ast.expr, symbols: Mapping[str, Size]) -> Size:
    match node:
        case ast.Constant(value=int(value)) if type(value) is int:
            return value
        case ast.Name(id=name):
            return symbols[name] if name in symbols else Dim.symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_parsed(operand, symbols)
        case ast.BinOp(left=left, op=operator, right=right):
            a, b = _parsed(left, symbols), _parsed(right, symbols)
            match operator:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.FloorDiv():
                    return a // b
                case ast.Mod():
                    return a % b
        case ast.Call(func=ast.Name(id="min" | "max" as name), args=[left, right], keywords=[]):
            return _applied("min" if name == "min" else "max", _parsed(left, symbols), _parsed(right, symbols))
    raise ValueError(f"not a size expression: {ast.unparse(node)[:80]!r}")
