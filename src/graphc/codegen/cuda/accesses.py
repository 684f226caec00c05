"""Which memory statements touch, and where a warp's lanes must wait for each other because of it.

Enters: statements of the loop IR, in the order in which a warp runs them.  Leaves: their loads; yes or no to a barrier.
Never here: text, the choice of a mapping.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graphc.dims import Size, bounds, coefficient, divides, substitute
from graphc.ir.loops import LANES, Acc, Alloc, Call, Check, Expr, For, Let, Load, Prefetch, Stmt, Store, Update, walk

PARAMETERS = "(parameters)"  # all buffer parameters are one place: an output may be the same memory as an input


def loads(body: tuple[Stmt, ...]) -> Iterator[Load]:
    """Every load of `body`, in order, at any depth."""
    for statement in walk(body):
        match statement:
            case Let(_, value) | Store(_, _, value) | Update(_, value):
                yield from loads_of(value)
            case Check(condition, _):
                yield from loads_of(condition)
            case Alloc() | Acc() | Prefetch() | For():
                pass


def loads_of(expr: Expr) -> Iterator[Load]:
    """Every load in `expr`, in order."""
    if isinstance(expr, Load):
        yield expr
    elif isinstance(expr, Call):
        for arg in expr.args:
            yield from loads_of(arg)


def stores(body: tuple[Stmt, ...]) -> Iterator[Store]:
    """Every store of `body`, in order, at any depth."""
    return (statement for statement in walk(body) if isinstance(statement, Store))


def accesses(body: tuple[Stmt, ...]) -> Iterator[Load | Store]:
    """Every load, then every store of `body`, at any depth."""
    yield from loads(body)
    yield from stores(body)


def lane_owned(body: tuple[Stmt, ...]) -> dict[str, int]:
    """Scratch of a warp of which every element is touched by one lane only, with a modulus m.

    Each access stands in a ``vector``, ``tile`` or ``lanes`` loop over v, where lane v % LANES works, at an offset v +
    m*(anything); m is LANES, or no loop is longer than m.  Either way element e belongs to lane (e % m) % LANES.
    """
    scratch = {s.buffer for s in walk(body) if isinstance(s, Alloc)}
    places: dict[str, list[tuple[For | None, Size]]] = {name: [] for name in scratch}
    _collect(body, None, places)
    return {name: modulus for name, found in places.items() if (modulus := _owner_modulus(found)) is not None}


def _collect(body: tuple[Stmt, ...], spread: For | None, into: dict[str, list[tuple[For | None, Size]]]) -> None:
    for statement in body:
        if isinstance(statement, For):
            _collect(statement.body, statement if statement.kind in ("vector", "tile", "lanes") else spread, into)
            continue
        for access in accesses((statement,)):
            if access.buffer in into:
                into[access.buffer].append((spread, access.offset))


def _owner_modulus(places: list[tuple[For | None, Size]]) -> int | None:
    rests: list[Size] = []
    longest: int | None = 0
    for loop, offset in places:
        if loop is None or coefficient(offset, loop.var) != 1:
            return None
        rests.append(substitute(offset, {loop.var: 0}))
        limit = bounds(loop.extent)[1]
        longest = None if longest is None or limit is None else max(longest, limit)
    candidates = (LANES,) if longest is None else (LANES, longest)
    return next((d for d in candidates if d and all(divides(d, rest) for rest in rests)), None)


@dataclass(slots=True)
class Hazards:
    """What a warp's lanes have read and stored since they last waited for each other.

    `scratch`: the scratch buffers of which lanes touch each other's elements.
    """

    scratch: frozenset[str]
    parameters: frozenset[str]
    _read: set[str] = field(default_factory=set)
    _stored: set[str] = field(default_factory=set)

    def barrier_before(self, statement: Stmt) -> bool:
        """Whether the lanes must meet before `statement`, which is then taken as done."""
        read, stored = self._touched((statement,))
        due = bool(stored & (self._read | self._stored) or read & self._stored)
        if due:
            self._read.clear()
            self._stored.clear()
        self._read |= read
        self._stored |= stored
        return due

    def enter_loop(self, body: tuple[Stmt, ...], parallel: bool = False) -> None:
        """Begin a loop: whatever `body` does may have been done by its previous iteration.

        Iterations of the parallel loop share nothing but scratch.
        """
        read, stored = self._touched(body)
        self._read |= read - {PARAMETERS} if parallel else read
        self._stored |= stored - {PARAMETERS} if parallel else stored

    def pending(self) -> tuple[set[str], set[str]]:
        """(read, stored) now: a loop that runs no iteration leaves them as they were."""
        return set(self._read), set(self._stored)

    def leave_loop(self, before: tuple[set[str], set[str]]) -> None:
        """End a loop entered when `before` was pending."""
        self._read |= before[0]
        self._stored |= before[1]

    def _touched(self, body: tuple[Stmt, ...]) -> tuple[set[str], set[str]]:
        read = {self._place(load.buffer) for load in loads(body)}
        stored = {self._place(store.buffer) for store in stores(body)}
        return read - {None}, stored - {None}  # type: ignore[return-value]

    def _place(self, buffer: str) -> str | None:
        if buffer in self.parameters:
            return PARAMETERS
        return buffer if buffer in self.scratch else None
