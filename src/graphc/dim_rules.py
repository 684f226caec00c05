"""The rules of size arithmetic: `Dim`, its operators, what they simplify, and what ranges prove.

Enters: ints and `Dim`.  Leaves: the canonical `Size` of a sum, product, quotient or remainder.  Never here: functions of
whole expressions (graphc.dims, which is also where the rest of the package imports all of this from).

A `Dim` is a polynomial: monomials (sorted tuples of atoms) with int coefficients.  An atom is a symbol, or a floor
division, remainder, minimum or maximum that no rule below could take apart.  Constants are always plain ints, so
``type(size) is int`` tells the two apart.  Divisors are positive and division rounds down.

Atoms are strings (their own text), so hashing, comparing and ordering them is what `str` does.  **Two symbols are equal
when their names are**; a symbol's range is a fact carried beside the name, and of two equal symbols the one met first
stays in an expression.  Hence one name must mean one range within an expression, and no result is cached under a Dim.
"""

from __future__ import annotations

import keyword
import operator
from math import gcd
from numbers import Integral

from graphc.dim_answers import Questions, is_answered, mixed, same_number, usable_divisor
from graphc.dim_terms import Atom, Bound, Kind, Monomial, Terms, accumulate, degree, interval, text_of, without

_NO_NAMES: frozenset[str] = frozenset()
_PROOF_STEPS = 8
_DIVISION_STEPS = 64


class Dim(Questions):
    """A canonical, immutable integer expression that is not constant.  Made by `Dim.symbol` and operators."""

    __slots__ = ("_bounds", "_depends", "_free", "_hash", "_text", "mods", "terms")
    __array_ufunc__ = None  # NumPy integers leave mixed arithmetic to the operators below

    def __init__(self, terms: Terms, mods: bool) -> None:
        self.terms = terms  # never changed after this
        self.mods = mods  # may hold a remainder atom
        self._hash: int | None = None
        self._bounds: tuple[Bound, Bound] | None = None
        self._free: frozenset[str] | None = None
        self._depends: frozenset[str] | None = None
        self._text: str | None = None

    @staticmethod
    def symbol(name: str, low: int | None = 0, high: int | None = None, below: Size | None = None) -> Dim:
        """The symbol `name` with low <= value <= high and value < below.

        Raises ValueError if `name` is not an identifier.
        """
        if not name.isidentifier() or keyword.iskeyword(name) or name in ("min", "max"):
            raise ValueError(f"a symbol's name must be an identifier, got {name!r}")
        if below is not None:
            limit = bounds(below)[1]
            if limit is not None and (high is None or limit - 1 < high):
                high = limit - 1
        free_names = frozenset((name,))
        atom = _atom(name, "symbol", (), low, high, None if type(below) is int else below)
        atom.free = free_names
        atom.depends = free_names if atom.below is None else free_names | depends(atom.below)
        return Dim({(atom,): 1}, False)

    # ---- arithmetic

    def __add__(self, other: Size) -> Size:
        if type(other) is Dim:
            return _sum(self, other, 1)
        if isinstance(other, Integral):
            return _shifted(self, int(other))
        return mixed(operator.add, self, other)

    __radd__ = __add__

    def __sub__(self, other: Size) -> Size:
        if type(other) is Dim:
            return _sum(self, other, -1)
        if isinstance(other, Integral):
            return _shifted(self, -int(other))
        return mixed(operator.sub, self, other)

    def __rsub__(self, other: Size) -> Size:
        if isinstance(other, Integral):
            return -self + int(other)
        return mixed(operator.sub, other, self)

    def __neg__(self) -> Dim:
        return Dim({m: -c for m, c in self.terms.items()}, self.mods)

    def __mul__(self, other: Size) -> Size:
        if type(other) is Dim:
            return _product(self, other)
        if isinstance(other, Integral):
            factor = int(other)
            return Dim({m: c * factor for m, c in self.terms.items()}, self.mods) if factor else 0
        return mixed(operator.mul, self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        if type(other) is Dim:
            return _floordiv(self, usable_divisor(other))
        if isinstance(other, Integral) and (other > 0 or not is_answered()):
            return _floordiv(self, int(other))
        return mixed(operator.floordiv, self, other)

    def __rfloordiv__(self, other: Size) -> Size:
        if isinstance(other, Integral):
            return _floordiv(int(other), usable_divisor(self))
        return mixed(operator.floordiv, other, self)

    def __mod__(self, other: Size) -> Size:
        if type(other) is Dim:
            return _mod(self, usable_divisor(other))
        if isinstance(other, Integral) and (other > 0 or not is_answered()):
            return _mod(self, int(other))
        return mixed(operator.mod, self, other)

    def __rmod__(self, other: Size) -> Size:
        if isinstance(other, Integral):
            return _mod(int(other), usable_divisor(self))
        return mixed(operator.mod, other, self)

    # ---- identity

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(other) is Dim and hash(self) == hash(other) and self.terms == other.terms:
            return True
        return is_answered() and same_number(self, other)

    def __hash__(self) -> int:
        found = self.hash_of_number() or self._hash
        if found is None:
            found = self._hash = hash(frozenset(self.terms.items()))
        return found

    @property
    def text(self) -> str:  # type: ignore[override]
        """Infix text, which `parse` reads."""
        if self._text is None:
            self._text = text_of(self.terms)
        return self._text

    def __repr__(self) -> str:
        return f"Dim({self.text!r})"

    def __reduce__(self) -> tuple[object, tuple[Terms, bool]]:
        return Dim, (self.terms, self.mods)  # without the cached hash: string hashes differ between processes

    def __copy__(self) -> Dim:
        return self

    def __deepcopy__(self, memo: object) -> Dim:
        return self


Size = int | Dim


# ---- polynomials -----------------------------------------------------------------------------------------------------


def made(terms: Terms, mods: bool) -> Size:
    """The Size of `terms` (no zero coefficients), with quotients and remainders put back together."""
    if mods and len(terms) > 1:
        terms = _recombined(terms)
    if len(terms) < 2:
        if not terms:
            return 0
        if () in terms:
            return terms[()]
    return Dim(terms, mods)


def _sum(x: Dim, y: Dim, scale: int) -> Size:
    terms = x.terms.copy()
    accumulate(terms, y.terms, (), scale)
    return made(terms, x.mods or y.mods)


def _shifted(x: Dim, constant: int) -> Dim:
    if not constant:
        return x
    terms = x.terms.copy()
    accumulate(terms, {(): constant}, (), 1)
    return Dim(terms, x.mods)


def _product(x: Dim, y: Dim) -> Size:
    terms: Terms = {}
    for monomial, coefficient in y.terms.items():
        accumulate(terms, x.terms, monomial, coefficient)
    return made(terms, x.mods or y.mods)


def terms_of(size: Size) -> Terms:
    """`size` as a polynomial; a Dim's own dictionary, not to be changed."""
    if type(size) is int:
        return {(): size} if size else {}
    return size.terms  # type: ignore[union-attr]


def _single(size: Size) -> tuple[int, Monomial] | None:
    """(coefficient, monomial) of a size of one term."""
    if type(size) is int:
        return size, ()
    terms = size.terms  # type: ignore[union-attr]
    if len(terms) != 1:
        return None
    ((monomial, coefficient),) = terms.items()
    return coefficient, monomial


def _sole_atom(size: Size) -> Atom | None:
    """The atom that `size` consists of, or None."""
    single = _single(size)
    return single[1][0] if single is not None and single[0] == 1 and len(single[1]) == 1 else None


def _recombined(terms: Terms) -> Terms:
    """d*(e // d) + e % d --> e,  and  a*((x // a) % b) + x % a --> x % (a*b),  each times any common factor."""
    while True:
        for monomial, coefficient in terms.items():
            for position, atom in enumerate(monomial):
                if atom.kind == "%":
                    rest = monomial[:position] + monomial[position + 1 :]
                    joined = _with_quotient(terms, coefficient, rest, atom)
                    if joined is None:
                        joined = _with_remainder(terms, coefficient, rest, atom)
                    if joined is not None:
                        break
            else:
                continue
            break
        else:
            return terms
        terms = joined


def _replaced(terms: Terms, old: Terms, factor: Monomial, scale: int, new: Size) -> Terms | None:
    """`terms` with scale*factor*old, every term of which must stand there just so (else None), replaced by `new`."""
    keys = []
    for monomial, coefficient in old.items():
        key = tuple(sorted(monomial + factor)) if factor else monomial
        if terms.get(key) != scale * coefficient:
            return None
        keys.append(key)
    result = {m: c for m, c in terms.items() if m not in keys}
    accumulate(result, terms_of(new), factor, scale)
    return result


def _with_quotient(terms: Terms, scale: int, rest: Monomial, atom: Atom) -> Terms | None:
    value, divisor = atom.args
    if atom.quotient is None:
        atom.quotient = divisor * (value // divisor)
    if type(atom.quotient) is int:
        return None
    old = terms_of(atom.quotient).copy()
    accumulate(old, {(atom,): 1}, (), 1)
    return _replaced(terms, old, rest, scale, value)


def _with_remainder(terms: Terms, scale: int, rest: Monomial, atom: Atom) -> Terms | None:
    value, outer = atom.args
    inner = _sole_atom(value)
    if inner is None or inner.kind != "//":
        return None
    numerator, divisor = inner.args
    single = _single(divisor)
    if single is None or scale % single[0]:
        return None
    factor = without(rest, single[1])
    if factor is None:
        return None
    old: Terms = {tuple(sorted((*single[1], atom))): single[0]}
    accumulate(old, terms_of(numerator % divisor), (), 1)
    return _replaced(terms, old, factor, scale // single[0], numerator % (divisor * outer))


# ---- division --------------------------------------------------------------------------------------------------------


def _floordiv(x: Size, d: Size) -> Size:
    """x // d.  Raises ZeroDivisionError for 0 and ValueError for a negative constant divisor."""
    if type(d) is int:
        _check_divisor(d)
        if d == 1:
            return x
    taken, rest = _taken_out(x, d)
    if type(rest) is int and rest == 0:
        return taken
    quotient = _constant_quotient(rest, d)
    return taken + (_reduced_quotient(rest, d) if quotient is None else quotient)


def _mod(x: Size, d: Size) -> Size:
    """x % d.  Raises as `_floordiv`."""
    if type(d) is int:
        _check_divisor(d)
        if d == 1:
            return 0
    rest = _taken_out(x, d)[1]
    if type(rest) is int and rest == 0:
        return 0
    quotient = _constant_quotient(rest, d)
    if quotient is not None:
        return rest - quotient * d
    atom = _sole_atom(rest)
    if atom is not None and atom.kind == "%" and divides(d, atom.args[1]):
        return atom.args[0] % d  # (x % (a*d)) % d = x % d
    parts = _common_factor(rest, d)
    if parts is not None:
        whole, small, factor, divisor = parts
        return factor * (whole % divisor) + small
    low, high = bounds(rest)
    limit = bounds(d)[1]
    top = None if limit is None else limit - 1
    if low is not None and low >= 0 and high is not None and (top is None or high < top):
        top = high
    return compound(f"{_operand(rest)} % {_operand(d)}", "%", (rest, d), 0, top, d if type(d) is Dim else None)


def _check_divisor(d: int) -> None:
    if d == 0:
        raise ZeroDivisionError("division of a size by zero")
    if d < 0:
        raise ValueError(f"sizes are divided by positive numbers only, got {d}")


def _taken_out(x: Size, d: Size) -> tuple[Size, Size]:
    """(q, r) with x == q*d + r, r of fewer terms than x where any term of x is divisible by d."""
    if type(x) is int:
        return (x // d, x % d) if type(d) is int else (0, x)
    assert type(x) is Dim
    if type(d) is int:
        return _taken_out_constant(x, d)
    assert type(d) is Dim
    whole: Size = 0
    left_over: Size = x
    for _ in range(_DIVISION_STEPS):
        step = _divided_once(left_over, d)
        if step is None:
            break
        whole, left_over = whole + step, left_over - step * d
    return (whole, left_over) if len(terms_of(left_over)) < len(x.terms) else (0, x)


def _taken_out_constant(x: Dim, d: int) -> tuple[Size, Size]:
    quotient: Terms = {}
    rest: Terms = {}
    for monomial, coefficient in x.terms.items():
        whole, left = divmod(coefficient, d)
        if left and monomial:  # only a constant is split
            whole, left = 0, coefficient
        if whole:
            quotient[monomial] = whole
        if left:
            rest[monomial] = left
    return (made(quotient, x.mods), made(rest, x.mods)) if quotient else (0, x)


def _divided_once(x: Size, d: Dim) -> Size | None:
    """One step of polynomial division: the greatest term of x that d's leading term divides, divided by it."""
    leading = max(d.terms, key=degree)
    scale = d.terms[leading]
    for monomial, coefficient in sorted(terms_of(x).items(), key=lambda term: degree(term[0]), reverse=True):
        left = without(monomial, leading)
        if left is not None and coefficient % scale == 0:
            return made({left: coefficient // scale}, True)
    return None


def _constant_quotient(x: Size, d: Size) -> int | None:
    """x // d where the ranges of the symbols decide it."""
    low, high = bounds(x)
    if type(d) is int:
        return low // d if low is not None and high is not None and low // d == high // d else None
    if known_less(x, d) and known_less(-1, x):
        return 0
    return -1 if high is not None and high < 0 and known_less(-1 - x, d) else None


def _reduced_quotient(x: Size, d: Size) -> Size:
    """x // d of an x that nothing could be taken out of."""
    atom = _sole_atom(x)
    if atom is not None and atom.kind == "//":
        return atom.args[0] // (atom.args[1] * d)  # (x // a) // d = x // (a*d)
    if atom is not None and atom.kind == "%" and divides(d, atom.args[1]):
        return (atom.args[0] // d) % (atom.args[1] // d)  # (x % (a*d)) // d = (x // d) % a
    parts = _common_factor(x, d)
    if parts is not None:
        return parts[0] // parts[3]
    (low, high), (smallest, most) = bounds(x), bounds(d)
    least = max(smallest or 1, 1)
    if low is not None:
        low = low // least if low < 0 else 0 if most is None else low // max(most, 1)
    if high is not None:
        high = high // least if high >= 0 else -1 if most is None else high // max(most, 1)
    below = None
    if atom is not None and atom.below is not None and divides(d, atom.below):
        below = atom.below // d
    text = f"{_operand(x)} // {_operand(d)}"
    return compound(text, "//", (x, d), low, high, None if type(below) is int else below)


def _common_factor(x: Size, d: Size) -> tuple[Size, Size, Size, Size] | None:
    """(a, r, g, b) with x == g*a + r, d == g*b, 0 <= r < g: then x // d = a // b and x % d = g*(a % b) + r."""
    single = _single(d)
    if single is None or type(x) is int:
        return None
    tried = set()
    for monomial, coefficient in terms_of(x).items():
        scale = gcd(coefficient, single[0])
        shared = tuple(a for a in dict.fromkeys(monomial) for _ in range(min(monomial.count(a), single[1].count(a))))
        if not monomial or (scale == 1 and not shared) or (scale, shared) in tried:
            continue
        tried.add((scale, shared))
        factor = made({shared: scale}, False)
        whole: Terms = {}
        rest: Terms = {}
        for m, c in terms_of(x).items():
            left = without(m, shared)
            if not m and not shared:
                whole[()], rest[()] = divmod(c, scale)
            elif left is not None and c % scale == 0:
                whole[left] = c // scale
            else:
                rest[m] = c
        small = made({m: c for m, c in rest.items() if c}, True)
        if known_less(small, factor) and known_less(-1, small):
            divisor = without(single[1], shared)
            assert divisor is not None
            quotient = made({m: c for m, c in whole.items() if c}, True)
            return quotient, small, factor, made({divisor: single[0] // scale}, False)
    return None


# ---- atoms -----------------------------------------------------------------------------------------------------------


def _atom(text: str, kind: Kind, args: tuple[Size, ...], low: Bound, high: Bound, below: Size | None) -> Atom:
    atom = Atom(text)
    atom.kind, atom.args, atom.low, atom.high, atom.below, atom.quotient = kind, args, low, high, below, None
    return atom


def compound(text: str, kind: Kind, args: tuple[Size, Size], low: Bound, high: Bound, below: Size | None) -> Dim:
    """The Dim of one new atom: a quotient, remainder, minimum or maximum that no rule could take apart."""
    atom = _atom(text, kind, args, low, high, below)
    atom.free = free(args[0]) | free(args[1])
    atom.depends = depends(args[0]) | depends(args[1])
    return Dim({(atom,): 1}, kind == "%")


def _operand(size: Size) -> str:
    text = str(size)
    return text if text.isalnum() or text.isidentifier() else f"({text})"


# ---- facts -----------------------------------------------------------------------------------------------------------


def bounds(size: Size) -> tuple[Bound, Bound]:
    """(lowest, highest) value by interval arithmetic; None where there is no limit."""
    if type(size) is int:
        return size, size
    assert type(size) is Dim
    if size._bounds is None:
        size._bounds = interval(size.terms)
    return size._bounds


def known_less(a: Size, b: Size) -> bool:
    """Whether a < b follows from the ranges of the symbols."""
    difference = b - a
    for _ in range(_PROOF_STEPS):
        if type(difference) is int:
            return difference > 0
        low = bounds(difference)[0]
        if low is not None and low > 0:
            return True
        weaker = _weakened(difference)
        if weaker is None:
            return False
        difference = weaker
    return False


def _weakened(size: Size) -> Size | None:
    """A size that is at most `size`: one atom of a negative term replaced with its symbolic upper bound."""
    for monomial, coefficient in terms_of(size).items():
        if coefficient > 0:
            continue
        for position, atom in enumerate(monomial):
            if atom.below is None:
                continue
            rest = monomial[:position] + monomial[position + 1 :]
            if all(a.low is not None and a.low >= 0 for a in rest):
                terms = {m: c for m, c in terms_of(size).items() if m != monomial}
                accumulate(terms, terms_of(atom.below - 1), rest, coefficient)
                return made(terms, True)
    return None


def divides(d: Size, size: Size) -> bool:
    """Whether d is a factor of `size`: of every coefficient (int d), or of the polynomial (Dim d)."""
    if type(d) is int:
        return d != 0 and all(c % d == 0 for c in terms_of(size).values())
    assert type(d) is Dim
    rest = _taken_out(size, d)[1] if type(size) is Dim else size
    return type(rest) is int and rest == 0


def same_form(a: Size, b: Size) -> bool:
    """Whether two sizes are one expression, whoever answers questions now."""
    return a is b or (type(a) is type(b) and terms_of(a) == terms_of(b))


def free(size: Size) -> frozenset[str]:
    """The names of the symbols in `size` (not those in their bounds)."""
    if type(size) is int:
        return _NO_NAMES
    assert type(size) is Dim
    if size._free is None:
        size._free = _NO_NAMES.union(*(atom.free for monomial in size.terms for atom in monomial))
    return size._free


def depends(size: Size) -> frozenset[str]:
    """The names of the symbols in `size` and in the bounds of its symbols."""
    if type(size) is int:
        return _NO_NAMES
    assert type(size) is Dim
    if size._depends is None:
        size._depends = _NO_NAMES.union(*(atom.depends for monomial in size.terms for atom in monomial))
    return size._depends
