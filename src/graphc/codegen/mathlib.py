"""Open mathematical functions into primitives: a renderer needs only `ir.loops.FUNCTIONS`, and all get the same bits.

Enters: a `Kernel` whose expressions may call any function of `NAMES`.  Leaves: the same kernel with those calls replaced
by Lets of primitives in front of the statement they stand in.  Never here: target code; the functions themselves
(`mathlib_exponential`, `mathlib_power`, `mathlib_trigonometric`, `mathlib_arithmetic`, `mathlib_special`, `mathlib_hyperbolic`).

Every function is branch free and right at +-0, +-inf, NaN and denormals.  Errors are stated where the functions are.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

# imported for what they register in EXPANSIONS
from graphc.codegen import (  # noqa: F401
    mathlib_arithmetic,
    mathlib_exponential,
    mathlib_hyperbolic,
    mathlib_power,
    mathlib_special,
    mathlib_trigonometric,
)
from graphc.codegen.terms import EXPANSIONS, Lets, Term, key_of
from graphc.errors import IRError
from graphc.ir.loops import FUNCTIONS, Acc, Alloc, Call, Check, Expr, For, Kernel, Let, Stmt, Store, Update, Var, walk

NAMES: frozenset[str] = frozenset(EXPANSIONS)
"""The functions `expand` opens."""


def expand(kernel: Kernel) -> Kernel:
    """`kernel` with every call of a function of NAMES opened into Lets of primitives, equal calls in a body once.

    Raises IRError for a function that is neither primitive nor in NAMES, or not defined for its argument's dtype.
    """
    if not any(_needs_opening(e) for s in walk(kernel.body) for e in _expressions(s)):
        return kernel
    return replace(kernel, body=_body(kernel.body, Lets(_fresh_names(kernel), {})))


def _needs_opening(expr: Expr) -> bool:
    return isinstance(expr, Call) and (expr.fn not in FUNCTIONS or any(map(_needs_opening, expr.args)))


def _expressions(statement: Stmt) -> tuple[Expr, ...]:
    match statement:
        case Let(_, value) | Store(_, _, value) | Update(_, value):
            return (value,)
        case Check(condition, _):
            return (condition,)
        case _:
            return ()


def _fresh_names(kernel: Kernel) -> Callable[[], str]:
    """A source of names m0, m1, ... with a prefix no name of the kernel begins with."""
    taken = {p.name for p in kernel.params} | set(_names(kernel.body))
    prefix = "m"
    while any(re.match(rf"{prefix}\d", name) for name in taken):
        prefix += "m"
    counter = itertools.count()
    return lambda: f"{prefix}{next(counter)}"


def _names(body: tuple[Stmt, ...]) -> Iterator[str]:
    for statement in walk(body):
        match statement:
            case Let(name, _) | Acc(name, _, _):
                yield name
            case Alloc(buffer, _, _, _):
                yield buffer
            case For(var, _, _, _):
                yield var


def _body(body: tuple[Stmt, ...], lets: Lets) -> tuple[Stmt, ...]:
    result: list[Stmt] = []
    for statement in body:
        match statement:
            case For():
                # what a later iteration stores may be what an earlier Load outside has read
                lets.forget_loads()
                statement = replace(statement, body=_body(statement.body, lets.inside()))
                lets.forget_loads()
            case Let(_, value) | Update(_, value) | Store(_, _, value):
                statement = replace(statement, value=_open(value, lets))
            case Check(condition, _):
                statement = replace(statement, condition=_open(condition, lets))
        result += lets.take()
        result.append(statement)
        if isinstance(statement, Store):
            lets.forget_loads()
    return tuple(result)


def _open(expr: Expr, lets: Lets) -> Expr:
    """`expr` without calls of NAMES; what they need is bound in `lets`."""
    if not _needs_opening(expr):
        return expr
    assert isinstance(expr, Call)
    args = tuple(_open(a, lets) for a in expr.args)
    if expr.fn in FUNCTIONS:
        return replace(expr, args=args)
    atoms = [lets.bind(a) for a in args]
    key = (expr.fn, expr.dtype.short, *map(key_of, atoms))
    known = lets.known(key)
    if known is not None:
        return known
    definition = EXPANSIONS.get(expr.fn)
    if definition is None:
        raise IRError(f"no renderer has the function {expr.fn!r} and mathlib does not define it")
    result = definition(*(Term(a, lets) for a in atoms)).expr
    if result.dtype is not expr.dtype:
        raise IRError(f"{expr.fn}: the call says {expr.dtype}, its definition gives {result.dtype}")
    if isinstance(result, Var):
        lets.remember(key, result)
    return result
