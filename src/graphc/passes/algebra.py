"""Algebraic identities, one a line of `IDENTITIES`, and the pass that applies them (and movement and constant rules).

Enters: any Graph.  Leaves: an equal Graph, bit for bit by default and up to rounding with ``mode="fast"``.
Never here: identities of operators with attributes (`movement`), arithmetic on constants (`fold`).

An identity reads ``pattern = replacement`` (every bit, on every input) or ``pattern ~ replacement`` (fast mode only),
and may end in a condition like ``if x is integer``.  Letters are values, the same letter the same value; a number is a
tensor of that constant, of the same sign of zero.  It applies where the replacement has the type of what it replaces.
"""

from __future__ import annotations

import ast
import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from graphc.ir.graph import Builder, Graph, Rule, Value, rewrite
from graphc.ir.op import Op
from graphc.passes.fold import constant_of, fold_rules, held
from graphc.passes.movement import movement_rules

Mode = Literal["exact", "fast"]
_KINDS = {"integer": "iu", "floating": "f", "signed": "if", "bool": "b"}

IDENTITIES = """
    neg(neg(x)) = x
    abs(neg(x)) = abs(x) if x is signed
    abs(abs(x)) = abs(x)
    square(neg(x)) = square(x)
    square(abs(x)) = square(x)
    mul(neg(x), neg(y)) = mul(x, y)
    div(neg(x), neg(y)) = div(x, y)
    add(x, neg(y)) = sub(x, y)
    add(neg(x), y) = sub(y, x)
    sub(x, neg(y)) = add(x, y)

    add(x, -0.0) = x if x is floating
    add(-0.0, x) = x if x is floating
    add(x, 0) = x if x is integer
    add(0, x) = x if x is integer
    add(x, 0) ~ x
    add(0, x) ~ x
    sub(x, 0) = x
    sub(0, x) = neg(x) if x is integer
    sub(0, x) ~ neg(x)
    mul(x, 1) = x
    mul(1, x) = x
    mul(x, -1) = neg(x)
    mul(-1, x) = neg(x)
    div(x, 1) = x
    div(x, -1) = neg(x)

    maximum(x, x) = x
    minimum(x, x) = x
    where(c, x, x) = x
    where(logical_not(c), x, y) = where(c, y, x) if c is bool
    logical_not(eq(x, y)) = ne(x, y)
    logical_not(ne(x, y)) = eq(x, y)
    logical_not(logical_not(x)) = x
    logical_and(x, x) = x
    logical_or(x, x) = x
    bitwise_not(bitwise_not(x)) = x
    clone(x) = x

    floor(floor(x)) = floor(x)
    ceil(ceil(x)) = ceil(x)
    trunc(trunc(x)) = trunc(x)

    mul(exp(x), exp(y)) ~ exp(add(x, y))
    exp(log(x)) ~ x
    log(exp(x)) ~ x
    sqrt(square(x)) ~ abs(x)
    square(sqrt(x)) ~ x
    reciprocal(sqrt(x)) ~ rsqrt(x)
    reciprocal(reciprocal(x)) ~ x
    div(x, sqrt(y)) ~ mul(x, rsqrt(y))
"""


# ---- the text of identities ------------------------------------------------------------------------------------------

# A letter, a number, or (operator, terms).
Term = str | int | float | tuple[Op, tuple[Any, ...]]


@dataclass(frozen=True)
class Identity:
    """One line of the table.  `kinds`: what the dtype kind of some letters must be."""

    text: str
    pattern: tuple[Op, tuple[Term, ...]]
    replacement: Term
    exact: bool
    kinds: tuple[tuple[str, str], ...] = ()


def parse_identity(text: str) -> Identity:
    """The identity that `text` states.  Raises ValueError for other text, or an operator that has attributes."""
    match = re.fullmatch(r"\s*([^=~]+?)\s*([=~])\s*([^=~]+?)(?:\s+if (\w+) is (\w+))?\s*", text)
    if match is None:
        raise ValueError(f"not an identity: {text!r}")
    left, sign, right, letter, kind = match.groups()
    try:
        pattern, replacement = (_term(ast.parse(side, mode="eval").body) for side in (left, right))
    except SyntaxError:
        raise ValueError(f"not an identity: {text!r}") from None
    if not isinstance(pattern, tuple):
        raise ValueError(f"the left side of an identity must be an operator: {text!r}")
    unknown = (letters(replacement) | ({letter} if letter else set())) - letters(pattern)
    if unknown:
        raise ValueError(f"{min(unknown)} does not stand on the left side: {text!r}")
    if letter and kind not in _KINDS:
        raise ValueError(f"a kind is one of {', '.join(_KINDS)}: {text!r}")
    return Identity(text.strip(), pattern, replacement, sign == "=", ((letter, _KINDS[kind]),) if letter else ())


def parse_identities(text: str) -> tuple[Identity, ...]:
    """One identity a line; empty lines separate.  Raises ValueError."""
    return tuple(parse_identity(line) for line in text.splitlines() if line.strip())


def _term(node: ast.expr) -> Term:
    match node:
        case ast.Name(id=letter):
            return letter
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            op = Op.table.get(name)
            if op is None or op.attrs:
                raise ValueError(f"an identity is about operators without attributes, not {name}")
            return op, tuple(map(_term, arguments))
    raise ValueError(f"not a term of an identity: {ast.unparse(node)}")


def letters(term: Term) -> set[str]:
    """The values that a term names."""
    if isinstance(term, tuple):
        return set().union(*map(letters, term[1]))
    return {term} if isinstance(term, str) else set()


# ---- identities as rewrite rules -------------------------------------------------------------------------------------


def rule_of(identity: Identity) -> Rule:
    """The identity as a rule of `ir.graph.rewrite`, to be registered under its pattern's operator."""
    terms = identity.pattern[1]

    def rule(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value] | None:
        if any(v.dtype.kind == "c" for v in inputs):
            return None  # x * 1 is not x for a complex x with an infinite part
        found: dict[str, Value] = {}
        if not _matches(terms, inputs, found) or any(found[x].dtype.kind not in kinds for x, kinds in identity.kinds):
            return None
        wanted = op.infer_types([v.type for v in inputs], attrs)[0]
        made = _made(identity.replacement, found, builder)
        return (made,) if made.type == wanted else None

    return rule


def _matches(terms: tuple[Term, ...], values: tuple[Value, ...], found: dict[str, Value]) -> bool:
    return len(terms) == len(values) and all(_matches_one(t, v, found) for t, v in zip(terms, values, strict=True))


def _matches_one(term: Term, value: Value, found: dict[str, Value]) -> bool:
    if isinstance(term, str):
        return found.setdefault(term, value) is value
    if isinstance(term, tuple):
        op, terms = term
        return value.node is not None and value.node.op is op and _matches(terms, value.node.inputs, found)
    return is_constant(value, term)


def is_constant(value: Value, number: int | float) -> bool:
    """Whether a value is `number` everywhere; of a floating value the sign of zero counts too."""
    constant = constant_of(value)
    if constant is None or (value.dtype.kind == "b" and number not in (0, 1)):
        return False
    same_sign = value.dtype.kind != "f" or math.copysign(1.0, constant) == math.copysign(1.0, number)
    return same_sign and constant == held(number, value.dtype)


def _made(term: Term, found: dict[str, Value], builder: Builder) -> Value:
    if isinstance(term, str):
        return found[term]
    assert isinstance(term, tuple)
    op, terms = term
    return builder.emit(op, [_made(t, found, builder) for t in terms], {})[0]


def rules_of(identities: Sequence[Identity]) -> dict[str, tuple[Rule, ...]]:
    """Operator name -> the rules of the identities about it, in their order."""
    rules: dict[str, tuple[Rule, ...]] = {}
    for identity in identities:
        name = identity.pattern[0].name
        rules[name] = (*rules.get(name, ()), rule_of(identity))
    return rules


# ---- the pass --------------------------------------------------------------------------------------------------------


def simplify(graph: Graph, mode: Mode = "exact") -> Graph:
    """``%1 = mul(%0, 1); %2 = permute(permute(%1))`` --> ``%0``: identities, movement and constants in one sweep."""
    return rewrite(graph, _all_rules(mode))


@functools.cache
def _all_rules(mode: Mode) -> dict[str, tuple[Rule, ...]]:
    chosen = [i for i in parse_identities(IDENTITIES) if i.exact or mode == "fast"]
    rules: dict[str, tuple[Rule, ...]] = {}
    for more in (movement_rules(), rules_of(chosen), fold_rules()):
        for name, those in more.items():
            rules[name] = (*rules.get(name, ()), *those)
    return rules
