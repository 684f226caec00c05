"""Panels of a matrix: who copies what in which order.

Enters: how elements of an operand lie in memory.  Leaves: statements that copy a panel, and launches that make all panels of a
matrix.  Never here: products.

A panel holds `width` neighbouring columns, row after row.  Where neighbours in a column are neighbours in memory, squares are
transposed in registers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from graphc.dims import Dim, Size, coefficient, free, minimum, product, substitute
from graphc.dtypes import DType
from graphc.ir.graph import Value
from graphc.ir.loops import Call, Const, Expr, For, Let, Load, Stmt, Store, Transpose, Var
from graphc.schedule.lower import Context, Launch, finish
from graphc.schedule.partition import Group
from graphc.schedule.pull import Block, Position, Puller, cast, delinear

PANEL_ROWS = 256  # of a panel that are made at once

Element = Callable[[Size, Size, Block], Expr]  # (row, column) -> the element, in the dtype of the panel


def clipped(whole: Size, most: int, number: Size) -> Size:
    """min(most, whole - number * most), with what divides both taken out where it is known, so that loops see it."""
    if not isinstance(whole, int):
        return minimum(most, whole - number * most)
    if whole <= most:
        return whole
    factor = math.gcd(whole, most)
    return most if factor == most else factor * minimum(most // factor, whole // factor - number * (most // factor))


@dataclass(frozen=True)
class Place:
    """Where element (k, j) lies: an offset into a buffer over the symbols ``k`` and ``j``."""

    buffer: str
    offset: Size
    dtype: DType

    @property
    def along_rows(self) -> bool:
        """Whether neighbours in a row are neighbours in memory."""
        return coefficient(self.offset, "j") == 1

    @property
    def along_columns(self) -> bool:
        """Whether neighbours in a column are, and columns lie evenly."""
        step = coefficient(self.offset, "j")
        return coefficient(self.offset, "k") == 1 and step is not None and "k" not in free(step)

    @property
    def uneven(self) -> bool:
        return coefficient(self.offset, "j") is None


def place_of(puller: Puller, element: Element, rows: Size, columns: Size) -> Place | None:
    """Where a matrix lies, if its elements are loads, or loads converted.  The puller is left as it was."""
    buffers = dict(puller.buffers)
    place = _place(puller, element, rows, columns)
    puller.buffers = buffers
    return place


def _place(puller: Puller, element: Element, rows: Size, columns: Size) -> Place | None:
    trial = Block(iter(range(1 << 20)))
    result = element(Dim.symbol("k", 0, below=rows), Dim.symbol("j", 0, below=columns), trial)
    match trial.statements:
        case [Let(name, Load(buffer, offset, dtype))] if result == Var(name, dtype):
            return Place(buffer, offset, dtype)
        case [Let(name, Load(buffer, offset, dtype)), Let(_, Call("cast", (Var(loaded, _),), _))] if loaded == name:
            return Place(buffer, offset, dtype)
    return None


def copied(
    puller: Puller, element: Element, target: tuple[str, Size, int], rows: Size, width: Size, dtype: DType, ahead: int = 0
) -> list[Stmt]:
    """`rows` rows of a panel of `width` columns: element(k, j) to target[at + k * step + j] for a target (buffer, at, step).

    ahead: so many rows further on are read soon, where they are neighbours."""
    buffer, at, step = target
    buffers = dict(puller.buffers)
    place = _place(puller, element, rows, width)
    if place is not None and place.along_columns:
        between = coefficient(place.offset, "j")
        start = substitute(place.offset, {"k": 0, "j": 0})
        assert between is not None
        return [Transpose("x", buffer, at, step, place.buffer, start, between, width, rows, dtype, place.dtype, ahead)]
    puller.buffers = buffers
    block = Block(puller.names)
    k, j = Dim.symbol("k", 0, below=rows), Dim.symbol("j", 0, below=width)
    block.add(Store(buffer, at + k * step + j, element(k, j, block)))
    over = For("j", width, "tile" if isinstance(width, int) and width <= 64 else "vector", tuple(block.statements))
    return [For("k", rows, "serial", (over,))]


Matrices = Callable[[Puller], Callable[[Position], Element]]  # (puller)(index in the batch) -> a matrix


def panels_launch(
    context: Context, group: Group, out: Value, columns: Size, source: Matrices, whole: bool = False, together: int = 1
) -> Launch:
    """A kernel that stores all panels of matrices of so many columns, zeros beyond the last.

    whole: the last panel holds the last columns instead, so that all panels are full; there are as many columns as in one.
    together: so many panels are made in one walk over the rows.
    """
    *batch, count, k, width = out.shape
    assert isinstance(width, int)
    full = whole
    puller = Puller(context.checks, lambda _: False)
    matrix = source(puller)
    blocks = (k + PANEL_ROWS - 1) // PANEL_ROWS if not isinstance(k, int) or k > PANEL_ROWS else 1
    groups = (count + together - 1) // together
    extent = product(batch) * groups * blocks
    p = Dim.symbol("p", 0, below=extent)
    first, first_panel = (p % blocks) * PANEL_ROWS, (p // blocks) % groups * together
    panels = minimum(together, count - first_panel)
    panel = first_panel if together == 1 else first_panel + Dim.symbol("c", 0, below=panels)
    at_batch = delinear(p // blocks // groups, tuple(batch))
    element = matrix(at_batch)

    def here(row: Size, column: Size, block: Block) -> Expr:
        start = minimum(panel * width, columns - width) if full else panel * width
        return cast(element(first + row, start + column, block), out.dtype)

    rows: Size = k if blocks == 1 else PANEL_ROWS if isinstance(k, int) and k % PANEL_ROWS == 0 else minimum(PANEL_ROWS, k - first)
    whole = whole or (isinstance(columns, int) and columns % width == 0)
    present = width if whole else clipped(columns, width, panel)
    name = puller.buffer(out, "out")
    at = puller.offset(out, (*at_batch, panel, first, 0))
    body = copied(puller, here, (name, at, width), rows, present, out.dtype)
    if together != 1:
        body = [_across(statement, panels) for statement in body]
    if not whole:
        to = at + Dim.symbol("k") * width + present + Dim.symbol("z")
        zero = Store(name, to, Const(0.0 if out.dtype.kind == "f" else 0, out.dtype))
        body.append(For("k", rows, "serial", (For("z", width - present, "vector", (zero,)),)))
    nest = For("p", extent, "parallel", tuple(body))
    rows_known = rows if isinstance(rows, int) else PANEL_ROWS // 2
    return finish(puller, nest, extent, rows_known * width * together / 4, group, "panels")


def _across(copy: Stmt, panels: Size) -> Stmt:
    """A copy of one panel as one of several: row by row where a row of it is neighbours in memory."""
    if isinstance(copy, For):
        return For(copy.var, copy.extent, copy.kind, (For("c", panels, "serial", copy.body),))
    return For("c", panels, "serial", (copy,))


def panels(group: Group, context: Context) -> list[Launch]:
    """The launch of the operator `panels`."""
    assert group.anchor is not None
    (w,), out = group.anchor.inputs, group.anchor.outputs[0]

    def source(puller: Puller) -> Callable[[Position], Element]:
        return lambda at: lambda row, column, block: block.let(puller.pull(w, (*at, row, column), block))

    return [panels_launch(context, group, out, w.shape[-1], source)]
