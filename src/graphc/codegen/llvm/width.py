"""How wide the vectors of one kernel are: one machine vector, or two where its registers hold them.

Enters: a `Kernel` of primitive functions, the machine's vector width.  Leaves: a width.  Never here: bits, which no width changes.

Two vectors side by side hide each other's latencies and share what is scalar.  It does not pay where lanes are loaded one by
one, nor where values spill.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphc.dims import coefficient, free
from graphc.ir.loops import LANES, Call, Expr, For, Index, Kernel, Let, Load, Size, Stmt, Store, Update, Var, walk

_FULL_WIDTH = 16  # float32 lanes of AVX-512, which comes with 32 registers; narrower machines are taken to have 16
_SHARE = 0.75  # of the registers: the rest holds constants and what the schedule moves ahead


def width(kernel: Kernel, lanes: int) -> int:
    """Elements to a vector of `kernel` on a machine of `lanes` float32 lanes."""
    wide = 2 * lanes
    if wide > LANES:
        return lanes
    loops = [s for s in walk(kernel.body) if isinstance(s, For)]
    if any(loop.kind in ("tile", "unroll") for loop in loops):
        return lanes  # laid out by hand
    inner = [loop for loop in loops if loop.kind in ("vector", "lanes")]
    registers = (32 if lanes >= _FULL_WIDTH else 16) * _SHARE
    return wide if inner and all(_fits(loop, wide, lanes, registers) for loop in inner) else lanes


def _fits(loop: For, wide: int, lanes: int, registers: float) -> bool:
    if isinstance(loop.extent, int) and loop.extent < wide:
        return False
    named = {s.name for s in loop.body if isinstance(s, Let)}
    if any(not _is_plain(offset, loop.var, named) for s in loop.body for offset in _offsets(s)):
        return False
    return most_alive(loop.body) * wide / (4 * lanes) <= registers


def _is_plain(offset: Size, var: str, named: set[str]) -> bool:
    """Whether neighbouring lanes access the same element or neighbours."""
    names = free(offset)
    return named.isdisjoint(names) and (var not in names or coefficient(offset, var) in (1, -1))


def _offsets(statement: Stmt) -> Iterator[Size]:
    if isinstance(statement, Store):
        yield statement.offset
    for expr in _inside(getattr(statement, "value", None)):
        if isinstance(expr, Load):
            yield expr.offset


def _inside(expr: Expr | None) -> Iterator[Expr]:
    if expr is not None:
        yield expr
    if isinstance(expr, Call):
        for arg in expr.args:
            yield from _inside(arg)


def most_alive(body: tuple[Stmt, ...]) -> int:
    """The most bytes per lane that Lets of one body hold at once, in the order in which they stand."""
    last: dict[str, int] = {}
    for position, statement in enumerate(body):
        for expr in _inside(getattr(statement, "value", None) or getattr(statement, "condition", None)):
            if isinstance(expr, Var):
                last[expr.name] = position
            elif isinstance(expr, Index | Load):
                for name in free(expr.value if isinstance(expr, Index) else expr.offset):
                    last[name] = position
    ends: dict[int, int] = {}
    alive = most = 4 * sum(isinstance(s, Update) for s in body)
    for position, statement in enumerate(body):
        if isinstance(statement, Let):
            nbytes = max(statement.value.dtype.itemsize, 4)
            alive += nbytes
            end = last.get(statement.name, position)
            ends[end] = ends.get(end, 0) + nbytes
        most = max(most, alive)
        alive -= ends.get(position, 0)
    return most
