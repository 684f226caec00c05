"""Loops without ``break`` and ``continue``, so that they can be regions.

Enters: loops.  Leaves: loops that do the same without jumping.  Never here: values.

``if p: break`` becomes ``if p: broken = True``, and what follows stands under ``if not broken``.  A ``for`` over a range counts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Loop = ast.While | ast.For


@dataclass(frozen=True)
class Straight:
    """``names = ..; while test: body; orelse``.   names: those that the loop needs, with what they are at first; of a ``for`` the
    first two are its counter and where it stops."""

    names: dict[str, bool]
    test: ast.expr
    body: list[ast.stmt]
    orelse: list[ast.stmt]


def own(statements: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements in `statements`, but for those in loops."""
    for statement in statements:
        yield statement
        if not isinstance(statement, Loop):
            yield from own([*getattr(statement, "body", []), *getattr(statement, "orelse", [])])


def leaves(statements: Sequence[ast.stmt]) -> bool:
    """Whether statements jump within the loop around them."""
    return any(isinstance(s, ast.Break | ast.Continue) for s in own(statements))


def is_range(loop: Loop) -> bool:
    """Whether a loop gives a name the numbers of ``range(..)``."""
    call = getattr(loop, "iter", None)
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range" and not call.keywords):
        return False
    return 0 < len(call.args) < 4 and not any(isinstance(a, ast.Starred) for a in call.args) and isinstance(loop.target, ast.Name)  # type: ignore[union-attr]


def straight(loop: Loop, step: int = 1) -> Straight | None:
    """A loop without jumps; None where one stands in a ``with``.   step: of a range."""
    statements = list(own(loop.body))
    if any(isinstance(s, ast.With) and leaves(s.body) for s in statements):
        return None
    mark = f" {loop.lineno}:{loop.col_offset}"  # no name of a script has a space
    counter, stop, broken, skipped = (f"{word}{mark}" for word in ("counter", "stop", "broken", "skipped"))
    flags = [n for n, kind in ((broken, ast.Break), (skipped, ast.Continue)) if any(isinstance(s, kind) for s in statements)]
    body = _without_jumps(loop.body, broken, skipped, flags, loop)
    if skipped in flags:
        body.insert(0, _assigned(skipped, ast.Constant(False)))
    if isinstance(loop, ast.While):
        names, test = {}, loop.test
    else:
        names = {counter: False, stop: False}
        test = ast.Compare(_read(counter), [ast.Lt() if step > 0 else ast.Gt()], [_read(stop)])
        body.insert(0, ast.Assign([loop.target], _read(counter)))
        body.append(ast.AugAssign(ast.Name(counter, ast.Store()), ast.Add(), ast.Constant(step)))
    orelse = loop.orelse
    if broken in flags:
        names[broken] = False
        test = ast.BoolOp(ast.And(), [ast.UnaryOp(ast.Not(), _read(broken)), test])
        orelse = [_unless([broken], orelse)] if orelse else orelse
    for part in (test, *body, *orelse):
        _locate(part, loop)
    return Straight(names, test, body, orelse)


def _without_jumps(statements: Sequence[ast.stmt], broken: str, skipped: str, flags: list[str], loop: Loop) -> list[ast.stmt]:
    made: list[ast.stmt] = []
    for i, statement in enumerate(statements):
        if isinstance(statement, ast.Break | ast.Continue):
            return [*made, _assigned(broken if isinstance(statement, ast.Break) else skipped, ast.Constant(True))]
        if isinstance(statement, ast.If) and leaves([statement]):
            body, orelse = (_without_jumps(part, broken, skipped, flags, loop) for part in (statement.body, statement.orelse))
            made.append(ast.copy_location(ast.If(statement.test, body, orelse), statement))
            rest = _without_jumps(statements[i + 1 :], broken, skipped, flags, loop)
            return [*made, _unless(flags, rest)] if rest else made
        made.append(statement)
    return made


def _unless(names: Sequence[str], body: list[ast.stmt]) -> ast.stmt:
    """``if not (a or b): body``."""
    read: list[ast.expr] = [_read(name) for name in names]
    return ast.If(ast.UnaryOp(ast.Not(), read[0] if len(read) == 1 else ast.BoolOp(ast.Or(), read)), body, [])


def _read(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())


def _assigned(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _locate(node: ast.AST, loop: Loop) -> None:
    """Give new nodes the loop's place."""
    for part in ast.walk(node):
        if "lineno" in part._attributes and not hasattr(part, "lineno"):
            ast.copy_location(part, loop)
