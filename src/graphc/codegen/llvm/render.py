"""A kernel as LLVM text with explicit vectors.

Enters: a `Kernel` of primitive functions (`mathlib.expand` has run) and the vector width.  Leaves: the text of one
function ``void @name(ptr args, i64 begin, i64 end)``.  Never here: choices of schedule; every loop kind has one form.

`args` holds one 8-byte slot per parameter (buffer address or size), then the address of the status word.  A vector loop
of static extent ends in one narrower trip, one of dynamic extent in one masked trip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from graphc.codegen.llvm.access import Access, Trip
from graphc.codegen.llvm.emit import Emitter, Value, integer, literal, memory_type
from graphc.codegen.llvm.functions import apply, cast
from graphc.codegen.llvm.transpose import transpose
from graphc.dims import Dim, Size, bounds, divides
from graphc.dtypes import bool_, int32, int64
from graphc.errors import IRError
from graphc.ir.loops import (
    BLOCK,
    LANES,
    Acc,
    Alloc,
    Call,
    Check,
    Const,
    Expr,
    For,
    Index,
    Kernel,
    Let,
    Load,
    Prefetch,
    Stmt,
    Store,
    Transpose,
    Update,
    Var,
    identity,
    walk,
)


def render(kernel: Kernel, lanes: int, scales: bool = False, piece: int | None = None) -> str:
    """The LLVM function of `kernel`, `lanes` elements to a vector: a divisor of 32.  scales: as in `Emitter`.

    piece: elements to a vector in what is left of a loop of dynamic extent; a divisor of `lanes`.

    Raises IRError for a kernel that breaks a rule of its IR, or calls a function that is not primitive.
    """
    return _Renderer(kernel, lanes, piece or lanes, Emitter(scales)).text()


class _Renderer:
    def __init__(self, kernel: Kernel, lanes: int, piece: int, emit: Emitter) -> None:
        self.kernel = kernel
        self.lanes, self.piece = lanes, piece
        self.emit = emit
        self.access = Access(self.emit)
        self.allocas: list[str] = []
        self.accumulators: dict[str, Acc] = {}
        self.parts: dict[str, Value] = {}  # accumulator -> the vector that Updates of this trip fold into

    def text(self) -> str:
        for slot, param in enumerate(self.kernel.params):
            loaded = self._argument(slot, "i64" if param.role == "size" else "ptr")
            (self.access.values if param.role == "size" else self.access.buffers)[param.name] = loaded
        self._body(self.kernel.body)
        streams = any(isinstance(s, Store | Transpose) and s.stream for s in walk(self.kernel.body))
        last = ["  fence seq_cst"] if streams else []  # streamed stores are not in order with those that say that they are done
        lines = ["entry:", *self.allocas, *self.emit.scopes[0].lines, *last, "  ret void", "}", ""]
        head = f"define internal void @{self.kernel.name}(ptr noalias %args, i64 %begin, i64 %end) nounwind {{"
        return "\n".join([head, *lines])

    def _argument(self, slot: int, kind: str) -> Value:
        args = Value("%args", int64, 1, 0)
        address = self.emit.op(f"getelementptr i64, ptr %args, i64 {slot}", int64, 1, (args,))
        return self.emit.op(f"load {kind}, ptr {address.text}, align 8", int64, 1, (address,))

    # ---- statements ------------------------------------------------------------------------------------------------

    def _body(self, body: tuple[Stmt, ...]) -> None:
        saved = dict(self.access.values)
        for statement in body:
            self._statement(statement)
        self.access.values = saved

    def _statement(self, statement: Stmt) -> None:
        match statement:
            case Let(name, value):
                bound = self._expr(value)
                self.access.values[name] = bound
                (self.access.trip.varying.add if bound.width > 1 else self.access.trip.varying.discard)(name)
            case Store(buffer, offset, value, stream):
                self.access.store(buffer, offset, self._expr(value), stream)
            case Update(name, value):
                self._update(name, self._expr(value))
            case Acc(name, _, _):
                self.accumulators[name] = statement
            case Alloc():
                self._alloc(statement)
            case Check(condition, code):
                self._check(self._expr(condition), code)
            case Prefetch(buffer, offset, dtype):
                self.access.prefetch(buffer, offset, dtype)
            case Transpose():
                transpose(self.emit, self.access, statement, self.lanes)
            case For():
                self._for(statement)

    def _for(self, loop: For) -> None:
        if self.access.trip.width > 1:
            raise IRError(f"{self.kernel.name}: loop {loop.var} inside a vector loop")
        match loop.kind:
            case "parallel":
                if len(self.kernel.body) != 1 or self.kernel.body[0] is not loop:
                    raise IRError(f"{self.kernel.name}: parallel loop {loop.var} is not the only top-level statement")
                begin, end = (Value(name, int64, 1, 0) for name in ("%begin", "%end"))
                self._counted(loop, begin, end)
            case "serial":
                self._serial(loop)
            case "unroll":
                for step in range(self._static_extent(loop)):
                    with self._substituted(loop.var, step):
                        self._body(loop.body)
            case "tile":
                extent = self._static_extent(loop)
                for start in range(0, extent, self.lanes):
                    self._trip(loop, integer(start), min(self.lanes, extent - start))
            case "vector":
                self._vector(loop)
            case "lanes":
                self._lanes(loop)

    def _extent(self, loop: For) -> Value:
        return self.access.scalar(self.access.resolve(loop.extent))

    def _static_extent(self, loop: For) -> int:
        extent = self.access.resolve(loop.extent)
        if type(extent) is not int:
            raise IRError(f"{self.kernel.name}: {loop.kind} loop {loop.var} needs a static extent, not {extent}")
        return extent

    def _serial(self, loop: For) -> None:
        extent = self._extent(loop)
        if extent.is_literal or bounds(self.access.resolve(loop.extent))[1] != 1:
            self._counted(loop, integer(0), extent)
            return

        def once(_: list[Value]) -> list[Value]:
            self._bound(loop, integer(0))
            return []

        self.emit.when(self.emit.binary("icmp sgt", extent, integer(0), bool_), [], once)

    def _counted(self, loop: For, begin: Value, end: Value) -> None:
        def trip(index: Value, _: list[Value]) -> list[Value]:
            self._bound(loop, index)
            return []

        self.emit.loop(begin, end, 1, [], _writes(loop), trip)

    def _bound(self, loop: For, index: Value) -> None:
        """The body with the loop variable at `index`."""
        saved = self.access.values.get(loop.var)
        self.access.values[loop.var] = index
        self._body(loop.body)
        if saved is None:
            del self.access.values[loop.var]
        else:
            self.access.values[loop.var] = saved

    @contextmanager
    def _substituted(self, var: str, size: Size) -> Iterator[None]:
        saved = self.access.substitution
        self.access.substitution = {**saved, var: size}
        yield
        self.access.substitution = saved

    def _trip(self, loop: For, index: Value, width: int, mask: Value | None = None) -> None:
        """`width` neighbouring iterations at once."""
        saved, self.access.trip = self.access.trip, Trip(loop.var, width, mask)
        self._bound(loop, index)
        self.access.trip = saved

    def _vector(self, loop: For) -> None:
        extent = self._extent(loop)

        def full(index: Value, _: list[Value]) -> list[Value]:
            self._trip(loop, index, self.lanes)
            return []

        if extent.is_literal:
            main = int(extent.text) // self.lanes * self.lanes
            self.emit.loop(integer(0), integer(main), self.lanes, [], _writes(loop), full)
            if main < int(extent.text):
                self._trip(loop, integer(main), int(extent.text) - main)
            return
        if (few := self._few(loop)) is not None:
            self._trip(loop, integer(0), few, self._mask(extent, few))
            return
        whole = divides(self.lanes, self.access.resolve(loop.extent))
        end = extent if whole else self.emit.binary("and", extent, integer(-self.lanes))
        self.emit.loop(integer(0), end, self.lanes, [], _writes(loop), full)
        if whole:
            return

        def piece(shift: int, mask: Value, _: list[Value]) -> list[Value]:
            self._shifted(loop, end, shift, self.piece, mask)
            return []

        self._pieces(self.emit.binary("sub", extent, end), self.lanes, [], piece)

    def _pieces(
        self,
        left: Value,
        most: int,
        carried: list[Value],
        piece: Callable[[int, Value, list[Value]], list[Value]],
        shift: int = 0,
    ) -> list[Value]:
        """carried = piece(shift, mask, carried) for every piece of the `left` elements, fewer than `most`, that has one."""

        def masked(values: list[Value]) -> list[Value]:
            values = piece(shift, self._mask(self.emit.add(left, integer(-shift)), self.piece), values)
            following = shift + self.piece
            return self._pieces(left, most, values, piece, following) if following < most else values

        return self.emit.when(self.emit.binary("icmp sgt", left, integer(shift), bool_), carried, masked)

    def _mask(self, count: Value, width: int) -> Value:
        """The first `count` of `width` lanes; `count` is below 2**31."""
        count = self.emit.convert("trunc", count, int32)
        return self.emit.binary("icmp slt", self.emit.steps(1, width, int32), count, bool_)

    def _few(self, loop: For) -> int | None:
        """Lanes that hold all iterations of a loop of dynamic extent, if there is one iteration at least and few at most."""
        low, high = bounds(self.access.resolve(loop.extent))
        if low is None or low < 1 or high is None or high > self.piece or low == high:
            return None
        return max(2, 1 << (high - 1).bit_length())

    def _shifted(self, loop: For, index: Value, shift: int, width: int, mask: Value | None) -> None:
        """A trip from index + shift."""
        if index.is_literal or not shift:
            self._trip(loop, self.emit.add(index, integer(shift)), width, mask)
        else:
            with self._substituted(loop.var, Dim.symbol(loop.var) + shift):
                self._trip(loop, index, width, mask)

    def _alloc(self, alloc: Alloc) -> None:
        if self.access.trip.width > 1:
            raise IRError(f"{self.kernel.name}: scratch {alloc.buffer} inside a vector loop")
        name = self.emit.fresh("%scratch")
        self.allocas.append(f"  {name} = alloca [{alloc.size} x {memory_type(alloc.dtype)}], align 64")
        self.access.buffers[alloc.buffer] = Value(name, int64, 1, 0)

    def _check(self, condition: Value, code: int) -> None:
        mask = self.access.trip.mask
        if condition.width > 1:
            if mask is not None:
                condition = self.emit.binary("or", condition, self.emit.binary("xor", mask, literal(True, bool_)))
            text = f"call i1 @llvm.vector.reduce.and.v{condition.width}i1({condition.type} {condition.text})"
            condition = self.emit.op(text, bool_, 1, (condition,))
        failed, after = self.emit.fresh("failed"), self.emit.fresh("checked")
        status = self._argument(len(self.kernel.params), "ptr")
        self.emit.here(f"br i1 {condition.text}, label %{after}, label %{failed}")
        self.emit.block(failed)
        self.emit.here(f"atomicrmw umax ptr {status.text}, i64 {code} monotonic")
        self.emit.here(f"br label %{after}")
        self.emit.block(after)

    # ---- reductions ------------------------------------------------------------------------------------------------

    def _lanes(self, loop: For) -> None:
        names = list(dict.fromkeys(s.name for s in loop.body if isinstance(s, Update)))
        extent = self._extent(loop)
        most = bounds(self.access.resolve(loop.extent))[1]
        if (few := self._few(loop)) is not None:
            parts = [self.emit.splat(self._identity(name), few) for name in names]
            self._way(loop, names, parts, integer(0), 0, few, self._mask(extent, few))
            results = [self._tree(name, [part]) for name, part in zip(names, parts, strict=True)]
        elif most is not None and most <= BLOCK:
            results = self._block(loop, names, integer(0), extent)
        else:

            def block(start: Value, totals: list[Value]) -> list[Value]:
                whole = extent.is_literal and int(extent.text) % BLOCK == 0
                left = self.emit.binary("sub", extent, start)
                count = integer(BLOCK) if whole else self.emit.intrinsic("smin", int64, left, integer(BLOCK))
                return [self._fold(n, t, r) for n, t, r in zip(names, totals, self._block(loop, names, start, count), strict=True)]

            first, begun = integer(0), [self._identity(name) for name in names]
            if not extent.is_literal:  # mostly there is no more than one block, of which much is the same for all rows
                begun = self._block(loop, names, first, self.emit.intrinsic("smin", int64, extent, integer(BLOCK)))
                first = integer(BLOCK)
            results = self.emit.loop(first, extent, BLOCK, begun, _writes(loop), block)
        self.access.values.update(zip(names, results, strict=True))

    def _block(self, loop: For, names: list[str], start: Value, count: Value) -> list[Value]:
        """The folded results of elements [start, start + count) of one block, count <= BLOCK."""
        emit, ways = self.emit, LANES // self.lanes
        parts = [emit.splat(self._identity(name), self.lanes) for name in names for _ in range(ways)]

        def step(index: Value, carried: list[Value]) -> list[Value]:
            for way in range(ways):
                self._way(loop, names, carried, index, way, self.lanes)
            return carried

        static = count.is_literal
        whole = integer(int(count.text) // LANES * LANES) if static else emit.binary("and", count, integer(-LANES))
        end = emit.add(start, whole)
        positive = static and int(whole.text) > 0
        parts = emit.loop(start, end, LANES, parts, _writes(loop), step, positive)
        used = ways
        if static:
            left = int(count.text) % LANES
            for way in range(-(-left // self.lanes)):
                self._way(loop, names, parts, end, way, min(self.lanes, left - way * self.lanes))
            used = ways if positive else -(-left // self.lanes)
        else:
            parts = self._left_over(loop, names, parts, end, emit.binary("sub", count, whole))
        return [self._tree(name, parts[i * ways : i * ways + used]) for i, name in enumerate(names)]

    def _left_over(self, loop: For, names: list[str], parts: list[Value], start: Value, left: Value) -> list[Value]:
        """The last `left` < LANES elements from `start`; gives the `parts` that they and others are folded into."""
        if divides(LANES, self.access.resolve(loop.extent)):
            return parts
        each = self.lanes // self.piece

        def piece(shift: int, mask: Value, carried: list[Value]) -> list[Value]:
            carried = list(carried)
            self._way(loop, names, carried, start, shift // self.piece, self.piece, mask)
            return carried

        pieces = [self.emit.part(part, i * self.piece, self.piece) for part in parts for i in range(each)]
        pieces = self._pieces(left, LANES, pieces, piece)
        return [self.emit.joined(pieces[i : i + each]) for i in range(0, len(pieces), each)]

    def _way(
        self,
        loop: For,
        names: list[str],
        parts: list[Value],
        index: Value,
        way: int,
        width: int,
        mask: Value | None = None,
    ) -> None:
        """Fold `width` elements into the way-th part of every accumulator: those of its place from `index` on."""
        ways = len(parts) // len(names)
        saved = self.parts
        self.parts = {name: self.emit.part(parts[i * ways + way], 0, width) for i, name in enumerate(names)}
        self._shifted(loop, index, way * (LANES // ways), width, mask)
        for i, name in enumerate(names):
            parts[i * ways + way] = self.emit.overlay(parts[i * ways + way], self.parts[name])
        self.parts = saved

    def _update(self, name: str, value: Value) -> None:
        if name not in self.parts:
            raise IRError(f"{self.kernel.name}: update of {name} outside its lanes loop")
        before, mask = self.parts[name], self.access.trip.mask
        after = self._fold(name, before, self.emit.splat(value, before.width))
        self.parts[name] = after if mask is None else self.emit.select(mask, after, before)

    def _identity(self, name: str) -> Value:
        start = identity(self.accumulators[name].fn, self.accumulators[name].dtype)
        return literal(start.value, start.dtype)

    def _fold(self, name: str, a: Value, b: Value) -> Value:
        accumulator = self.accumulators[name]
        return apply(self.emit, accumulator.fn, (a, b), accumulator.dtype)

    def _tree(self, name: str, parts: list[Value]) -> Value:
        """All 32 lanes folded in halves.  Parts beyond those given hold the identity, which folds without a trace."""
        if not parts:
            return self._identity(name)
        ways = LANES // self.lanes
        while ways > 1:
            ways //= 2
            upper = parts[ways:]
            parts = [self._fold(name, p, upper[i]) if i < len(upper) else p for i, p in enumerate(parts[:ways])]
        (result,) = parts
        while result.width > 1:
            half = result.width // 2
            result = self._fold(name, self.emit.part(result, 0, half), self.emit.part(result, half, half))
        return result

    # ---- expressions -----------------------------------------------------------------------------------------------

    def _expr(self, expr: Expr) -> Value:
        match expr:
            case Const(value, dtype):
                return literal(value, dtype)
            case Var(name, _):
                return self.access.values[name]
            case Index(value, dtype):
                size = self.access.resolve(value)
                index = self.access.scalar(size) if self.access.is_uniform(size) else self.access.vector(size)
                return cast(self.emit, index, dtype)
            case Load(buffer, offset, dtype):
                return self.access.load(buffer, offset, dtype)
            case Call(fn, args, dtype):
                return apply(self.emit, fn, tuple(self._expr(a) for a in args), dtype)


def _writes(loop: For) -> frozenset[str]:
    stored = (s.buffer if isinstance(s, Store) else s.target for s in walk(loop.body) if isinstance(s, Store | Transpose))
    return frozenset(stored)
