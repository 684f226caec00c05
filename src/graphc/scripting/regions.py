"""Statements of scripts that become regions: ``if``, ``while`` and ``for .. in range`` that depend on a tensor's element.

Enters: a frame at such a statement, what it asks.  Leaves: the frame's names after it, with a region in the traced graph;
`NoRegion` with the reason where the code cannot be one, and then nothing is changed.  Never here: statements that depend on plain
values.

A name that both ways of a branch, or a round of a loop, bind to tensors of one type or numbers of one kind, alone or in tuples, is
what the region gives.  Any other name is *lost*: where it is read later, the statement is no region after all, and the code is
traced again.  So is code that writes in place to what is one tensor in Python and two here.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from graphc.capture.effects import Effects
from graphc.capture.live import same_number
from graphc.capture.regions import Branch, NoRegion, joined, repeated, truth
from graphc.capture.tracer import Tracer
from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor
from graphc.errors import TracedAgain, TraceError
from graphc.scripting.numbers import Number, is_number, lifted
from graphc.trees import Tree, flatten

if TYPE_CHECKING:
    from graphc.scripting.flow import Flow

_ABSENT: Any = object()
_LEAVES = (Tensor, Number, bool, int, float)


class Lost:
    """In place of a value that only one way has.   refuse: gives what is raised where it is read."""

    def __init__(self, refuse: Callable[[], Exception]) -> None:
        self.refuse = refuse


def tracer() -> Tracer | None:
    """Whose graph a region would be in."""
    return modes.tracer if isinstance(modes.tracer, Tracer) else None


def asked(value: Any) -> Tensor | None:
    """What a condition asks, as a traced tensor of one bool; None where it asks nothing of a tensor."""
    if tracer() is None:
        return None
    if is_number(value):
        return truth(value.tensor)
    return truth(value) if isinstance(value, Tensor) and value.numel() == 1 else None


def fits(statements: Sequence[ast.stmt]) -> bool:
    """Whether statements have only what a region may have."""
    return not any(isinstance(n, ast.Return) or _prints(n) for s in statements for n in ast.walk(s))


def _prints(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"


def bound_names(statements: Iterable[ast.stmt]) -> dict[str, bool]:
    """The names that statements bind -> whether only in ways that a tensor takes in place (``x += 1``)."""
    found: dict[str, bool] = {}
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                found.setdefault(node.target.id, True)
        for node in ast.walk(statement):
            stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            if stored and not _is_augmented(statement, node):
                found[node.id] = False  # type: ignore[attr-defined]
    return found


def _is_augmented(statement: ast.stmt, name: ast.AST) -> bool:
    return any(isinstance(node, ast.AugAssign) and node.target is name for node in ast.walk(statement))


class Attempt:
    """One statement of a frame, tried as a region.   Leaves the frame as it was where that fails."""

    def __init__(self, frame: Flow, node: ast.AST) -> None:
        found = tracer()
        assert found is not None
        self.frame, self.node, self.tracer = frame, node, found
        self.before = dict(frame.values)
        self.effects = Effects(lambda: None, (self.before, frame.code.names))

    def again(self, reason: str) -> TraceError:
        """The statement turned out not to be a region after it was traced as one."""
        self.frame.code.no_regions[self.node, modes.grad] = reason
        return TracedAgain(reason)

    def lost(self, name: str) -> Lost:
        """What a name is from now on that not every way binds alike."""
        return Lost(lambda: self.again(f"'{name}' is not of one type, or not always bound"))

    def settled(self) -> None:
        """Raise NoRegion where Python's objects were changed."""
        changed = self.effects.undone()
        if changed is not None or not self.effects.complete:
            raise NoRegion(f"it changes {changed or 'too many objects to watch'}")

    # ---- branches

    def branch(self, pred: Tensor, ways: Sequence[Callable[[], Any]]) -> tuple[Branch, Branch]:
        """Both ways, each from the frame as it is.   A way's result is what it gives."""
        branches = []
        for way in ways:
            try:
                self.frame.values = dict(self.before)
                branches.append(Branch(self.tracer, way))
            finally:
                self.frame.values = self.before
                self.settled()
        return branches[0], branches[1]

    def statement(self, pred: Tensor, ways: Sequence[Sequence[ast.stmt]]) -> None:
        """An ``if``."""

        def run(statements: Sequence[ast.stmt]) -> Callable[[], dict[str, Any]]:
            def way() -> dict[str, Any]:
                self.frame.block(statements)
                return self.frame.values

            return way

        branches = self.branch(pred, [run(w) for w in ways])
        names = [*bound_names([*ways[0], *ways[1]])]
        joint = _Joint()
        for name in names:
            joint.add(name, *(branch.result.get(name, _ABSENT) for branch in branches))
        found = joint.values(self.tracer, pred, branches, lambda: self.again("its results are written to in place"))
        self.before.update({name: found[name] if name in found else self.lost(name) for name in names if name not in joint.absent})

    def expression(self, pred: Tensor, ways: Sequence[Callable[[], Any]]) -> Any:
        """A conditional expression."""
        branches = self.branch(pred, ways)
        joint = _Joint()
        joint.add("", branches[0].result, branches[1].result)
        found = joint.values(self.tracer, pred, branches, lambda: self.again("its result is written to in place"))
        if "" not in found:
            raise NoRegion("its two values are not of one type")
        return found[""]

    # ---- loops

    def loop(self, body: Callable[[], None], test: Callable[[], Any], names: dict[str, bool]) -> None:
        """Go round while `test` is true.   names: what the body binds, as `bound_names` tells."""
        carried: dict[str, tuple[list[Any], Tree]] = {}
        for name, in_place in names.items():
            value = self.before.get(name, _ABSENT)
            if value is not _ABSENT and not (in_place and isinstance(value, Tensor)):
                self._carry(carried, name, value)
        while True:
            rounds = _Rounds(self, carried, names)
            try:
                results = repeated(self.tracer, rounds.starts, rounds.test(test), rounds.body(body), self._written)
                break
            except NoRegion:
                if rounds.unlike is None:
                    raise
                name, value = rounds.unlike, self.before[rounds.unlike]
                if name in carried or not self._carry(carried, name, value):
                    del carried[name]
                    names = {**names, name: False}
            finally:
                self.frame.values = self.before
                self.settled()
        values = rounds.values(results)
        lost = [name for name in names if name not in values and not rounds.stays(name)]
        self.before.update({**values, **{name: self.lost(name) for name in lost}})

    def _written(self) -> TraceError:
        return self.again("its results are written to in place")

    @staticmethod
    def _carry(carried: dict[str, tuple[list[Any], Tree]], name: str, value: Any) -> bool:
        """Have a name's value carried from round to round, if it can be."""
        leaves, tree = flatten(value, _is_leaf)
        if not _is_plain(tree) or not leaves or any(_lifted(x) is None for x in leaves):
            return False
        carried[name] = [_lifted(x) for x in leaves], tree
        return True


class _Rounds:
    """A loop with certain names carried.   unlike: a name that a round leaves as something else, where that was the trouble."""

    def __init__(self, attempt: Attempt, carried: dict[str, tuple[list[Any], Tree]], names: dict[str, bool]) -> None:
        self.attempt, self.carried, self.names = attempt, carried, names
        self.leaves = [leaf for leaves, _ in carried.values() for leaf in leaves]
        self.starts = [x.tensor if is_number(x) else x for x in self.leaves]
        self.unlike: str | None = None

    def values(self, tensors: Sequence[Tensor]) -> dict[str, Any]:
        """The carried names' values, made of tensors."""
        flat = iter(Number(leaf.kind, x) if is_number(leaf) else x for leaf, x in zip(self.leaves, tensors, strict=True))
        return {name: tree.unflatten([next(flat) for _ in leaves]) for name, (leaves, tree) in self.carried.items()}

    def stays(self, name: str) -> bool:
        """Whether a name that a round binds is what it was: it is written to in place."""
        return name not in self.carried and self.names[name] and name in self.attempt.before

    def _frame(self, tensors: Sequence[Tensor]) -> Flow:
        frame, before = self.attempt.frame, self.attempt.before
        frame.values = dict(before)
        for name in self.names:
            if name in before and not self.stays(name):
                frame.values[name] = Lost(functools.partial(NoRegion, f"'{name}' is not of one type from round to round"))
        frame.values.update(self.values(tensors))
        return frame

    def test(self, test: Callable[[], Any]) -> Callable[[list[Tensor]], Tensor]:
        """The condition on what is carried."""

        def asks(tensors: list[Tensor]) -> Tensor:
            self._frame(tensors)
            found = asked(test())
            if found is None:
                raise NoRegion("its condition is a plain value")
            return found

        return asks

    def body(self, body: Callable[[], None]) -> Callable[[list[Tensor]], list[Tensor]]:
        """One round."""

        def runs(tensors: list[Tensor]) -> list[Tensor]:
            frame = self._frame(tensors)
            body()
            return [x for name in self._checked(frame) for x in self._tensors(name, frame.values[name])]

        return runs

    def _checked(self, frame: Flow) -> Iterable[str]:
        for name in self.names:
            if self.stays(name) and frame.values.get(name) is not self.attempt.before[name]:
                self.unlike = name
                raise NoRegion(f"'{name}' is another tensor after a round")
        return self.carried

    def _tensors(self, name: str, value: Any) -> list[Tensor]:
        leaves, tree = self.carried[name]
        found, other = flatten(value, _is_leaf)
        new = [_lifted(x) for x in found]
        if tree != other or any(_kind(a) != _kind(b) for a, b in zip(leaves, new, strict=True)):
            self.unlike = name
            raise NoRegion(f"'{name}' is not of one type from round to round")
        return [x.tensor if is_number(x) else x for x in new]


class _Joint:
    """What names are after a branch.   absent: those that neither way binds."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.parts: dict[str, tuple[Tree, list[Any]]] = {}
        self.pairs: list[tuple[Tensor, Tensor]] = []
        self.absent: set[str] = set()

    def add(self, name: str, a: Any, b: Any) -> None:
        """A name's values, which make one if they are alike."""
        if a is _ABSENT and b is _ABSENT:
            self.absent.add(name)
        elif a is b:
            self.known[name] = a
        elif a is not _ABSENT and b is not _ABSENT:
            self._add(name, a, b)

    def _add(self, name: str, a: Any, b: Any) -> None:
        (first, tree), (second, other) = flatten(a, _is_leaf), flatten(b, _is_leaf)
        if tree != other or not _is_plain(tree):
            return
        pairs: list[tuple[Tensor, Tensor]] = []
        leaves: list[Any] = []
        for x, y in zip(first, second, strict=True):
            if type(x) is type(y) and not isinstance(x, Tensor | Number) and same_number(x, y):
                leaves.append(x)
                continue
            m, n = _lifted(x), _lifted(y)
            if m is None or n is None or _kind(m) != _kind(n):
                return
            leaves.append((len(self.pairs) + len(pairs), m))
            pairs.append((m.tensor, n.tensor) if is_number(m) else (m, n))
        self.pairs += pairs
        self.parts[name] = tree, leaves

    def values(
        self, tracer: Tracer, pred: Tensor, branches: tuple[Branch, Branch], again: Callable[[], TraceError]
    ) -> dict[str, Any]:
        """The region's results by name."""
        made = joined(tracer, pred, branches, self.pairs, again)

        def leaf(x: Any) -> Any:
            if not isinstance(x, tuple):
                return x
            at, like = x
            return Number(like.kind, made[at]) if is_number(like) else made[at]

        return {**self.known, **{name: tree.unflatten([leaf(x) for x in leaves]) for name, (tree, leaves) in self.parts.items()}}


def _is_leaf(x: Any) -> bool:
    return isinstance(x, _LEAVES)


def _is_plain(tree: Tree) -> bool:
    """Whether a structure has tuples only: another list is not the same list."""
    return tree.kind in ("leaf", "static", "tuple", "named") and all(map(_is_plain, tree.children))


def _lifted(x: Any) -> Any:
    return x if isinstance(x, Tensor) else lifted(x)


def _kind(x: Any) -> Any:
    return x.kind if is_number(x) else (x.dtype, x._array.shape)
