"""Blocks of a matrix transposed in registers.

Enters: a `Transpose`, and what a kernel's text can refer to.  Leaves: loops of loads, shuffles and stores.  Never here: the size of
blocks that a schedule moves at once.

A square of `side` vectors is read row by row, exchanged within 16-byte lanes by unpacking, then lane by lane, and written column
by column.  Edges are narrower vectors where their size is known, else masked ones: rows beyond the last are the last again, and
columns beyond the last are written over by it, from the highest down.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.llvm.access import Access, Trip
from graphc.codegen.llvm.emit import Emitter, Value, integer
from graphc.codegen.llvm.functions import cast
from graphc.dims import Dim, Size, divides
from graphc.dtypes import bool_, int32, int64
from graphc.ir.loops import Transpose

_LANE_NBYTES = 16
_MOST = 16  # vectors of a square: more would not stay in registers


def transpose(emit: Emitter, access: Access, statement: Transpose, lanes: int) -> None:
    """The text of one statement, for vectors of `lanes` float32."""
    _Transposer(emit, access, statement, lanes).all_squares()


class _Transposer:
    def __init__(self, emit: Emitter, access: Access, statement: Transpose, lanes: int) -> None:
        self.emit, self.access, self.statement = emit, access, statement
        self.side = min(_MOST, max(2, lanes * 4 // max(4, statement.dtype.itemsize)))
        self.row, self.column = f"{statement.name}r", f"{statement.name}c"
        self.writes = frozenset({statement.target})

    def all_squares(self) -> None:
        """Whole squares, then the edges; where both are both ways, the text of one masked square serves all edges."""
        statement = self.statement
        rows, columns = (self.access.resolve(n) for n in (statement.rows, statement.columns))
        if self.ends_in_edge(rows) and self.ends_in_edge(columns):
            return self.either(rows, columns)
        self.along(rows, self.row, lambda r: self.along(columns, self.column, lambda c: self.square(r, c)))

    def ends_in_edge(self, extent: Size) -> bool:
        """Whether there may be both whole squares and narrower ones."""
        return not divides(self.side, extent) and (type(extent) is not int or extent > self.side)

    def either(self, rows: Size, columns: Size) -> None:
        """Every square, by the text for whole ones or by that for others."""
        emit, side = self.emit, self.side
        sizes = [self.access.scalar(n) for n in (rows, columns)]

        def within(var: str, size: Value, body: Callable[[Value], None]) -> None:
            def step(index: Value, _: list[Value]) -> list[Value]:
                left = emit.binary("sub", size, index)
                self.at(var, index, lambda: body(emit.intrinsic("smin", int64, left, integer(side))))
                return []

            emit.loop(integer(0), size, side, [], self.writes, step)

        def one(r: Value, c: Value) -> None:
            def branch(test: str, body: Callable[[], None]) -> None:
                def taken(_: list[Value]) -> list[Value]:
                    body()
                    return []

                both = emit.binary("add", r, c)
                emit.when(emit.binary(f"icmp {test}", both, integer(2 * side), bool_), [], taken)

            branch("eq", lambda: self.square(side, side))
            branch("ne", lambda: self.square(r, c))

        within(self.row, sizes[0], lambda r: within(self.column, sizes[1], lambda c: one(r, c)))

    def along(self, extent: Size, var: str, body: Callable[[int | Value], None]) -> None:
        """`body` for each whole step of `side` within `extent`, and once for what is left: with its count, known or not."""
        side, emit = self.side, self.emit

        def whole(index: Value, _: list[Value]) -> list[Value]:
            self.at(var, index, lambda: body(side))
            return []

        if type(extent) is int:
            end = extent // side * side
            emit.loop(integer(0), integer(end), side, [], self.writes, whole)
            if end < extent:
                self.at(var, integer(end), lambda: body(extent - end))
            return
        size = self.access.scalar(extent)
        last = emit.binary("and", size, integer(-side))
        emit.loop(integer(0), last, side, [], self.writes, whole)
        if divides(side, extent):
            return

        def left(_: list[Value]) -> list[Value]:
            self.at(var, last, lambda: body(emit.binary("sub", size, last)))
            return []

        emit.when(emit.binary("icmp slt", last, size, bool_), [], left)

    def at(self, var: str, index: Value, body: Callable[[], None]) -> None:
        """`body` with that variable at `index`."""
        self.access.values[var] = index
        body()
        del self.access.values[var]

    # ---- one square ------------------------------------------------------------------------------------------------

    def square(self, rows: int | Value, columns: int | Value) -> None:
        """`rows` by `columns` elements, at most `side` each, from the current row and column."""
        emit, access, statement, side = self.emit, self.access, self.statement, self.side
        r, c = Dim.symbol(self.row), Dim.symbol(self.column)
        vectors: list[Value | None] = [None] * side
        saved = access.trip
        access.trip = self._trip(self.column, columns)
        for i in range(side if isinstance(rows, Value) else rows):
            at = r + i
            if isinstance(rows, Value) and i:
                at = r + self._limited(i, rows)
            place = statement.source_at + at * statement.source_step + c
            vectors[i] = self._padded(access.load(statement.source, place, statement.source_dtype))
            if statement.ahead and rows == columns == side:
                access.prefetch(statement.source, place + statement.ahead, statement.source_dtype)
        access.trip = self._trip(self.row, rows)
        width = access.trip.width
        exchanged = self._exchanged([None if v is None else cast(emit, v, statement.dtype) for v in vectors])
        for i in reversed(range(side if isinstance(columns, Value) else columns)):
            at = c + i
            if isinstance(columns, Value) and i:
                at = c + self._limited(i, columns)
            value = emit.part(exchanged[i], 0, width)
            access.store(statement.target, statement.target_at + at * statement.target_step + r, value, statement.stream)
        access.trip = saved

    def _trip(self, var: str, count: int | Value) -> Trip:
        if not isinstance(count, Value):
            return Trip(var, count)
        narrow = self.emit.convert("trunc", count, int32)
        return Trip(var, self.side, self.emit.binary("icmp slt", self.emit.steps(1, self.side, int32), narrow, bool_))

    def _limited(self, i: int, count: Value) -> Size:
        """min(i, count - 1) as a symbol."""
        name = self.emit.fresh("edge")
        last = self.emit.add(count, integer(-1))
        self.access.values[name] = self.emit.intrinsic("smin", int64, integer(i), last)
        return Dim.symbol(name)

    def _padded(self, value: Value) -> Value:
        if value.width == self.side:
            return value
        if value.width == 1:
            return self.emit.splat(value, self.side)
        return self.emit.shuffle(value, None, [min(lane, value.width - 1) for lane in range(self.side)])

    def _exchanged(self, vectors: list[Value | None]) -> list[Value]:
        """The columns of a square of which `vectors` are the rows; absent rows give elements that nobody reads."""
        side = self.side
        per_lane = min(side, max(1, _LANE_NBYTES // self.statement.dtype.itemsize))
        known = next(v for v in vectors if v is not None)
        square: list[Value] = [known if v is None else v for v in vectors]
        step = 1
        while step < per_lane:
            for i in range(side):
                if not i & step:
                    a, b = square[i], square[i + step]
                    square[i], square[i + step] = self._unpacked(a, b, step, per_lane, 0), self._unpacked(a, b, step, per_lane, 1)
            step *= 2
        groups = side // per_lane
        step = 1
        while step < groups:
            for i in range(side):
                if not i & (step * per_lane):
                    a, b = square[i], square[i + step * per_lane]
                    square[i], square[i + step * per_lane] = self._alternate(a, b, per_lane, 0), self._alternate(a, b, per_lane, 1)
            step *= 2
        bits = per_lane.bit_length() - 1
        order = [sum((i >> b & 1) << (bits - 1 - b) for b in range(bits)) for i in range(per_lane)]
        return [square[i - i % per_lane + order[i % per_lane]] for i in range(side)]

    def _unpacked(self, a: Value, b: Value, step: int, per_lane: int, half: int) -> Value:
        """In every 16 bytes: groups of `step` elements of the lower or upper half of a and b in turn."""
        lanes = []
        for base in range(0, self.side, per_lane):
            for group in range(per_lane // (2 * step)):
                at = base + half * per_lane // 2 + group * step
                lanes += [*range(at, at + step), *range(self.side + at, self.side + at + step)]
        return self.emit.shuffle(a, b, lanes)

    def _alternate(self, a: Value, b: Value, per_lane: int, odd: int) -> Value:
        """Every second 16 bytes of a, then of b."""
        starts = range(odd * per_lane, 2 * self.side, 2 * per_lane)
        return self.emit.shuffle(a, b, [lane for start in starts for lane in range(start, start + per_lane)])
