"""A script's control flow: Python's, or while it is traced a region where a tensor decides and that can be.

Enters: a frame's branches, loops and conditions.  Leaves: what they do.  Never here: other statements; how a region is made
(`scripting.regions`).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor
from graphc.errors import TracedAgain
from graphc.scripting import numbers
from graphc.scripting.jumps import Loop, is_range, leaves, own, straight
from graphc.scripting.regions import Attempt, NoRegion, asked, bound_names, fits, tracer

if TYPE_CHECKING:
    from graphc.scripting.language import Code


class Returned(Exception):
    """``return``."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Broken(Exception):
    """``break``."""


class Continued(Exception):
    """``continue``."""


class Flow:
    """The part of a frame that decides what runs.   loops: those that Python goes round in now."""

    def __init__(self, code: Code, values: dict[str, Any]) -> None:
        self.code, self.values = code, values
        self.loops: list[Loop] = []

    def value(self, node: ast.AST) -> Any:
        """What an expression gives."""
        raise NotImplementedError

    def assign(self, target: ast.AST, value: Any) -> None:
        """Bind a target."""
        raise NotImplementedError

    def block(self, statements: Sequence[ast.stmt], ends: bool = False) -> None:
        """Run statements in order.   ends: they are the last of the function."""
        raise NotImplementedError

    def tried(self, node: ast.AST, run: Callable[[Attempt], Any], fit: bool = True) -> bool:
        """Whether a statement or expression has become a region.   fit: whether it has only what one may have."""
        found = tracer()
        reasons, key = self.code.no_regions, (node, modes.grad)
        if found is None:
            return False
        if key not in reasons:
            try:
                if not fit:
                    raise NoRegion("it returns, prints or leaves a loop")
                run(Attempt(self, node))
                return True
            except NoRegion as reason:
                if found.region is not None:  # what is around this one is none either
                    raise
                reasons[key] = str(reason)
        where = self.code.place(node).split("\n")[0].strip()
        found.notes.append(f"compiled path by path, not as a region: {reasons[key]} ({where})")
        return False

    # ---- conditions

    def test(self, node: ast.expr) -> Any:
        """What an expression gives of which only the truth matters."""
        return self._either(node.values, isinstance(node.op, ast.Or)) if isinstance(node, ast.BoolOp) else self.value(node)

    def _either(self, parts: Sequence[ast.expr], wanted: bool) -> Any:
        """``a or b or ..``, or where `wanted` is false ``and``: the first part whose truth that is, or the last."""
        first, rest = self.test(parts[0]), parts[1:]
        pred = asked(first)
        if rest and pred is not None:
            found: list[Any] = []
            ways = [lambda: wanted, lambda: self._truth(rest, wanted)]
            if self.tried(rest[0], lambda attempt: found.append(attempt.expression(pred, ways if wanted else ways[::-1]))):
                return found[0]
        if not rest or bool(numbers.plain(first)) is wanted:
            return first
        return self._either(rest, wanted)

    def _truth(self, parts: Sequence[ast.expr], wanted: bool) -> Any:
        """The truth of `_either` as a bool."""
        found = self._either(parts, wanted)
        pred = asked(found)
        return bool(found) if pred is None else numbers.Number(bool, pred)

    def _of_IfExp(self, node: ast.IfExp) -> Any:
        test = self.test(node.test)
        pred = asked(test)
        found: list[Any] = []
        ways = (lambda: self.value(node.body)), (lambda: self.value(node.orelse))
        if pred is not None and self.tried(node, lambda attempt: found.append(attempt.expression(pred, ways))):
            return found[0]
        return self.value(node.body if numbers.plain(test) else node.orelse)

    # ---- branches

    def branch(self, node: ast.If, rest: Sequence[ast.stmt] | None = None) -> None:
        """An ``if``.   rest: what follows it up to the end of the function, where that is known.  Raises Returned."""
        test = self.test(node.test)
        pred = asked(test)
        if rest is not None and any(isinstance(s, ast.Return) for s in own([node])):
            ways = [*node.body, *rest], [*node.orelse, *rest]
            found: list[Any] = []
            results = [lambda way=way: self.result(way) for way in ways]
            fit = any(
                part and isinstance(part[-1], ast.Return) for part in (node.body, node.orelse)
            )  # else the rest is twice there
            if pred is not None and self.tried(node, lambda attempt: found.append(attempt.expression(pred, results)), fit):
                raise Returned(found[0])
            raise Returned(self.result(ways[0] if numbers.plain(test) else ways[1]))
        if pred is not None and leaves([node]) and self.loops:
            self._as_region(self.loops[-1])
        fit = fits([node]) and not leaves([node])
        if pred is None or not self.tried(node, lambda attempt: attempt.statement(pred, (node.body, node.orelse)), fit):
            self.block(node.body if numbers.plain(test) else node.orelse)

    _do_If = branch

    def result(self, statements: Sequence[ast.stmt]) -> Any:
        """What the function returns by its last statements."""
        try:
            self.block(statements, ends=True)
        except Returned as result:
            return result.value
        return None

    def _as_region(self, loop: Loop) -> None:
        """A tensor decides when a loop ends or skips: it is to be traced as a region, if that was not tried."""
        key = loop, modes.grad
        if key not in self.code.no_regions and key not in self.code.loops and (isinstance(loop, ast.While) or is_range(loop)):
            self.code.loops.add(key)
            raise TracedAgain("a loop is to be a region")

    # ---- loops

    def _do_While(self, node: ast.While) -> None:
        while True:
            test = self.test(node.test)
            if asked(test) is not None or (node, modes.grad) in self.code.loops:
                if self._rounds(node):
                    return
            if not numbers.plain(test):
                break
            if not self._round(node):
                return
        self.block(node.orelse)

    def _do_For(self, node: ast.For) -> None:
        items = self._range(node) if tracer() is not None and is_range(node) else self.value(node.iter)
        if items is None:
            return
        for item in items:
            self.assign(node.target, item)
            if not self._round(node):
                return
        self.block(node.orelse)

    def _round(self, node: Loop) -> bool:
        """One round of Python's; whether another one may follow."""
        self.loops.append(node)
        try:
            self.block(node.body)
        except Broken:
            return False
        except Continued:
            pass
        finally:
            self.loops.pop()
        return True

    def _range(self, node: ast.For) -> Iterable[Any] | None:
        """The numbers of a ``for``; None where a tensor decides, and a region has gone through all of them."""
        assert isinstance(node.iter, ast.Call)
        if "range" in self.values or "range" in self.code.names:
            return self.value(node.iter)  # type: ignore[no-any-return]
        given = [self.value(argument) for argument in node.iter.args]
        given = [numbers.element(x) or x if isinstance(x, Tensor) else x for x in given]
        start, stop, step = (given[0], given[1], *given[2:], 1)[:3] if len(given) > 1 else (0, *given, 1)
        decides = any(map(numbers.is_number, (start, stop))) or (node, modes.grad) in self.code.loops
        if decides and type(step) is int and step and self._rounds(node, (start, stop), step):
            return None
        return range(*numbers.plain(given))

    def _rounds(self, node: Loop, bounds: tuple[Any, ...] = (), step: int = 1) -> bool:
        """Whether a loop, with its ``else``, has become a region.   bounds: where the counter of a ``for`` starts and stops."""
        if (node, step) not in self.code.straight:
            self.code.straight[node, step] = straight(node, step)
        made = self.code.straight[node, step]
        if made is None:
            return self.tried(node, lambda _: None, fit=False)
        self.values.update({**made.names, **dict(zip(made.names, bounds, strict=False))})
        names, loops = bound_names(made.body), self.loops
        self.loops = []
        try:
            done = self.tried(
                node,
                lambda attempt: attempt.loop(lambda: self.block(made.body), lambda: self.test(made.test), names),
                fits(made.body),
            )
            if done:
                self.block(made.orelse)
        finally:
            self.loops = loops
        self.values = {name: value for name, value in self.values.items() if name not in made.names}
        return done
