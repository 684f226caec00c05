"""Writing straight-line arithmetic down as loop IR: `Term`s are values, every operation on one appends a `Let`.

Enters: atoms of the loop IR.  Leaves: Lets of primitive functions (`ir.loops.FUNCTIONS`), each computed once per body.
Never here: a mathematical function.

`a * b + c` is two roundings, as written; `fma(a, b, c)` is one.  A Python number among the operands takes the dtype of
the first Term among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from graphc.dtypes import DType, bool_
from graphc.ir.loops import FUNCTIONS, Call, Const, Expr, Index, Let, Load, Var

Number = int | float
Key = tuple[object, ...]


def key_of(expr: Expr) -> Key:
    """What tells two pure expressions apart: unlike ``==`` it knows -0.0 from 0.0 and NaN from nothing else."""
    match expr:
        case Const(value, dtype):
            return "const", repr(value), dtype.short
        case Var(name, _):
            return "var", name
        case Index(value, dtype):
            return "index", value, dtype.short
        case Load(buffer, offset, dtype):
            return "load", buffer, offset, dtype.short
        case Call(fn, args, dtype):
            return fn, dtype.short, *map(key_of, args)


class Lets:
    """The Lets written into one body, numbered by value: the same operation on the same atoms is bound once.

    An inner body (`inside`) sees what its enclosing bodies have bound before it.
    """

    def __init__(self, name: Callable[[], str], known: dict[Key, Var]) -> None:
        self._name, self._known = name, known
        self.pending: list[Let] = []

    def inside(self) -> Lets:
        """The Lets of a loop's body."""
        return Lets(self._name, dict(self._known))

    def take(self) -> list[Let]:
        """The Lets bound since the last call."""
        taken, self.pending = self.pending, []
        return taken

    def forget_loads(self) -> None:
        """Buffers may have changed: what was loaded from them must be loaded again."""
        for key in [k for k in self._known if k[0] == "load"]:
            del self._known[key]

    def bind(self, value: Expr) -> Expr:
        """An atom equal to `value`."""
        if isinstance(value, Const | Var | Index):
            return value
        key = key_of(value)
        if key not in self._known:
            self._known[key] = Var(self._name(), value.dtype)
            self.pending.append(Let(self._known[key].name, value))
        return self._known[key]

    def known(self, key: Key) -> Var | None:
        """What `remember` was told for `key`, if anything."""
        return self._known.get(key)

    def remember(self, key: Key, value: Var) -> None:
        """Let `known` find `value` by `key`."""
        self._known[key] = value


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """An atom of the loop IR and the body its operations are written into."""

    expr: Expr
    lets: Lets

    @property
    def dtype(self) -> DType:
        return self.expr.dtype

    def __add__(self, other: Term | Number) -> Term:
        return call("add", self, other)

    def __sub__(self, other: Term | Number) -> Term:
        return call("sub", self, other)

    def __rsub__(self, other: Number) -> Term:
        return call("sub", other, self)

    def __mul__(self, other: Term | Number) -> Term:
        return call("mul", self, other)

    def __truediv__(self, other: Term | Number) -> Term:
        return call("div", self, other)

    def __rtruediv__(self, other: Number) -> Term:
        return call("div", other, self)

    def __neg__(self) -> Term:
        return call("neg", self)

    def __abs__(self) -> Term:
        return call("abs", self)

    def __and__(self, other: Term | Number) -> Term:
        return call("and", self, other)

    def __or__(self, other: Term | Number) -> Term:
        return call("or", self, other)

    def __xor__(self, other: Term | Number) -> Term:
        return call("xor", self, other)

    def __invert__(self) -> Term:
        return call("not", self)

    def __lshift__(self, other: Term | Number) -> Term:
        return call("shl", self, other)

    def __rshift__(self, other: Term | Number) -> Term:
        return call("shr", self, other)

    def __lt__(self, other: Term | Number) -> Term:
        return call("lt", self, other)

    def __le__(self, other: Term | Number) -> Term:
        return call("le", self, other)

    def __gt__(self, other: Term | Number) -> Term:
        return call("gt", self, other)

    def __ge__(self, other: Term | Number) -> Term:
        return call("ge", self, other)

    def cast(self, dtype: DType) -> Term:
        """The same value in another dtype."""
        return call("cast", self, dtype=dtype)

    def bitcast(self, dtype: DType) -> Term:
        """The same bits in another dtype of the same width."""
        return call("bitcast", self, dtype=dtype)

    def constant(self, value: Number) -> Term:
        """`value` in this Term's dtype."""
        number = float(value) if self.dtype.kind == "f" else value
        return Term(Const(number, self.dtype), self.lets)


_COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})


def call(fn: str, *args: Term | Number, dtype: DType | None = None) -> Term:
    """Apply a primitive function.  `dtype` is given for cast and bitcast alone."""
    assert FUNCTIONS[fn] == len(args)
    like = next(a for a in (args[1:] if fn == "select" else args) if isinstance(a, Term))
    atoms = tuple(a.expr if isinstance(a, Term) else like.constant(a).expr for a in args)
    result = dtype or (bool_ if fn in _COMPARISONS else like.dtype)
    return Term(like.lets.bind(Call(fn, atoms, result)), like.lets)


def fma(x: Term, y: Term | Number, z: Term | Number) -> Term:
    """x * y + z, rounded once."""
    return call("fma", x, y, z)


def select(condition: Term, then: Term | Number, other: Term | Number) -> Term:
    """`then` where `condition` holds, else `other`."""
    return call("select", condition, then, other)


def equal(x: Term, y: Term | Number) -> Term:
    """x == y, false for a NaN."""
    return call("eq", x, y)


def unequal(x: Term, y: Term | Number) -> Term:
    """x != y, true for a NaN."""
    return call("ne", x, y)


def scale(x: Term, n: Term) -> Term:
    """x * 2**n, rounded once; n whole, 1/4 <= abs(x) <= 4."""
    return call("scale", x, n)


def is_nan(x: Term) -> Term:
    """Whether x is a NaN."""
    return call("ne", x, x)


def copysign(x: Term | Number, sign: Term) -> Term:
    """|x| with the sign of `sign`."""
    return call("copysign", x, sign)


def at_most(x: Term, bound: Number) -> Term:
    """min(x, bound) that keeps a NaN: one instruction where `min` with its NaN rule takes three."""
    return select(x > bound, bound, x)


def at_least(x: Term, bound: Number) -> Term:
    """max(x, bound) that keeps a NaN."""
    return select(x < bound, bound, x)


def polynomial(x: Term, coefficients: Sequence[float]) -> Term:
    """sum(c * x**k) by Horner's rule, one fma a term."""
    total = fma(x, coefficients[-1], coefficients[-2])
    for coefficient in reversed(coefficients[:-2]):
        total = fma(total, x, coefficient)
    return total


# ---- the functions that are opened into primitives ------------------------------------------------------------------

Definition = TypeVar("Definition", bound=Callable[..., Term])
EXPANSIONS: dict[str, Callable[..., Term]] = {}


def function(name: str) -> Callable[[Definition], Definition]:
    """Register the definition of function `name`: Terms in, the result's Term out."""

    def register(definition: Definition) -> Definition:
        EXPANSIONS[name] = definition
        return definition

    return register
