"""Index arithmetic, loads and stores of one kernel, at the vector width of the current trip.

Enters: sizes and buffer offsets of the loop IR.  Leaves: values and memory instructions.
Never here: statements, loops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter

from graphc.codegen.llvm.emit import Emitter, Value, integer, literal, mangled, memory_type
from graphc.codegen.llvm.functions import floor_divide, floor_modulo
from graphc.dim_rules import made
from graphc.dims import Atom, Dim, Size, bounds, coefficient, free, substitute
from graphc.dtypes import DType, bool_, int32, int64, uint8

_INT32_LIMIT = 1 << 31
LINE = 64  # bytes of memory that are fetched and written together
STREAMED = "!0"  # the name of the node `{i32 1}`, which a module with streamed stores defines
_depth = attrgetter("depth")


@dataclass(slots=True)
class Trip:
    """One pass of a vector body: `width` neighbouring iterations of loop variable `var`.

    mask: which lanes are active (at least the first); None: all.  varying: names of Lets that hold a vector.
    """

    var: str = ""
    width: int = 1
    mask: Value | None = None
    varying: set[str] = field(default_factory=set)


class Access:
    """What a kernel's text can refer to: symbols, named values and buffers."""

    def __init__(self, emit: Emitter) -> None:
        self.emit = emit
        self.values: dict[str, Value] = {}  # loop variables (their first lane), size parameters, Lets, results
        self.substitution: dict[str, Size] = {}
        self.buffers: dict[str, Value] = {}
        self.versions: dict[str, int] = {}  # one more with every store
        self.trip = Trip()

    # ---- sizes -----------------------------------------------------------------------------------------------------

    def resolve(self, size: Size) -> Size:
        return substitute(size, self.substitution) if self.substitution else size

    def is_uniform(self, size: Size) -> bool:
        """Whether all lanes of the trip have the same value of a resolved size."""
        names = free(size)
        return self.trip.width == 1 or (self.trip.var not in names and names.isdisjoint(self.trip.varying))

    def scalar(self, size: Size) -> Value:
        """A resolved size in the trip's first lane."""
        terms, constant = self._terms(size, self._symbol)
        return self.emit.add(self._sum(terms), integer(constant))

    def vector(self, size: Size) -> Value:
        """A resolved size in every lane of the trip."""
        trip = self.trip
        step = coefficient(size, trip.var) if free(size).isdisjoint(trip.varying) else None
        if type(step) is int:
            return self.emit.binary("add", self.scalar(size), self.emit.steps(step, trip.width))
        terms, constant = self._terms(size, self._lane_symbol)
        return self.emit.splat(self.emit.add(self._sum(terms), integer(constant)), trip.width)

    def _symbol(self, name: str) -> Value:
        value = self.values[name]
        if value.dtype.itemsize == 8:
            return value
        return self.emit.convert("sext" if value.dtype.kind == "i" else "zext", value, int64)

    def _lane_symbol(self, name: str) -> Value:
        value = self._symbol(name)
        return self.emit.binary("add", value, self.emit.steps(1, self.trip.width)) if name == self.trip.var else value

    def _terms(self, size: Size, symbol: Callable[[str], Value]) -> tuple[list[Value], int]:
        """The monomials of `size` from the outermost defined to the innermost, and the constant."""
        if type(size) is int:
            return [], size
        assert type(size) is Dim
        terms, constant = [], 0
        for monomial, factor in size.terms.items():
            if not monomial:
                constant += factor
                continue
            if len(monomial) == 1:
                value = self._atom(monomial[0], symbol)
            else:
                value, *others = sorted([self._atom(atom, symbol) for atom in monomial], key=_depth)
                for other in others:
                    value = self.emit.multiply(value, other)
            if factor != 1:
                value = self.emit.multiply(value, integer(factor))
            if value.is_literal and value.width == 1:
                constant += int(value.text)
            else:
                terms.append(value)
        return sorted(terms, key=_depth), constant

    def _sum(self, terms: list[Value]) -> Value:
        total = terms[0] if terms else integer(0)
        for term in terms[1:]:
            total = self.emit.add(total, term)
        return total

    def _size(self, size: Size, symbol: Callable[[str], Value]) -> Value:
        terms, constant = self._terms(size, symbol)
        return self.emit.add(self._sum(terms), integer(constant))

    def _atom(self, atom: Atom, symbol: Callable[[str], Value]) -> Value:
        if atom.kind == "symbol":
            return symbol(str(atom))
        a, b = (self._size(arg, symbol) for arg in atom.args)
        if atom.kind in ("min", "max"):
            return self.emit.intrinsic(f"s{atom.kind}", int64, a, b)
        low, high = bounds(atom.args[0])
        nonnegative = low is not None and low >= 0
        divide = floor_divide if atom.kind == "//" else floor_modulo
        if a.width > 1 and b.is_literal and nonnegative and high is not None and high < _INT32_LIMIT > int(b.text):
            # 32-bit vectors divide by a constant without leaving the vector unit
            narrow = divide(self.emit, self.emit.convert("trunc", a, int32), literal(int(b.text), int32), True)
            return self.emit.convert("zext", narrow, int64)
        return divide(self.emit, a, b, nonnegative)

    # ---- memory ----------------------------------------------------------------------------------------------------

    def pointer(self, buffer: str, offset: Size, dtype: DType) -> Value:
        """The address of a resolved offset's first lane: outer terms, then the innermost, then the constant."""
        terms, constant = self._terms(offset, self._symbol)
        address = self.buffers[buffer]
        if terms:
            innermost = terms[-1].depth
            for part in ([t for t in terms if t.depth < innermost], [t for t in terms if t.depth == innermost]):
                if part:
                    address = self._gep(address, self._sum(part), dtype)
        return self._gep(address, integer(constant), dtype) if constant else address

    def _gep(self, address: Value, offset: Value, dtype: DType) -> Value:
        text = f"getelementptr {memory_type(dtype)}, ptr {address.text}, {offset.type} {offset.text}"
        return self.emit.op(text, int64, offset.width, (address, offset))

    def load(self, buffer: str, offset: Size, dtype: DType) -> Value:
        """The elements of `buffer` at `offset`: a scalar where all lanes read the same one."""
        offset, trip = self.resolve(offset), self.trip
        if self.is_uniform(offset):
            return self._read(buffer, self.pointer(buffer, offset, dtype), dtype, 1)
        step = coefficient(offset, trip.var) if free(offset).isdisjoint(trip.varying) else None
        if step == 1:
            return self._read(buffer, self.pointer(buffer, offset, dtype), dtype, trip.width, trip.mask)
        if step == -1:
            last = self.pointer(buffer, offset - (trip.width - 1), dtype)
            mask = self.emit.reverse(trip.mask) if trip.mask else None
            return self.emit.reverse(self._read(buffer, last, dtype, trip.width, mask))
        if trip.mask is not None:
            return self._gathered(buffer, offset, dtype, trip.mask)
        result = None
        for lane, address in enumerate(self._lane_pointers(buffer, offset, dtype, step)):
            result = self.emit.insert(result, self._read(buffer, address, dtype, 1), lane, trip.width)
        assert result is not None
        return result

    def _lane_pointers(self, buffer: str, offset: Size, dtype: DType, step: Size | None) -> list[Value]:
        lanes = range(self.trip.width)
        if step is not None:
            return [self.pointer(buffer, offset + step * lane, dtype) for lane in lanes]
        common, own = self._parted(offset)
        address, offsets = self.pointer(buffer, common, dtype), self.vector(own)
        return [self._gep(address, self.emit.extract(offsets, lane), dtype) for lane in lanes]

    def _parted(self, offset: Size) -> tuple[Size, Size]:
        """(the terms that are the same in every lane, those that are not): each may leave other loops than the other."""
        if type(offset) is int:
            return offset, 0
        assert type(offset) is Dim
        names = {self.trip.var, *self.trip.varying}
        own = {m: factor for m, factor in offset.terms.items() if any(not names.isdisjoint(atom.free) for atom in m)}
        common = {m: factor for m, factor in offset.terms.items() if m not in own}
        return made(common, offset.mods), made(own, offset.mods)

    def _floor(self, buffer: str, operands: tuple[Value, ...]) -> int:
        """The outermost scope that a load from `buffer` may move to."""
        depth, least = self.emit.depth, max(v.depth for v in operands)
        while depth > least and not self.emit.scopes[depth].guard and buffer not in self.emit.scopes[depth].writes:
            depth -= 1
        return depth

    def _read(self, buffer: str, address: Value, dtype: DType, width: int, mask: Value | None = None) -> Value:
        stored = uint8 if dtype is bool_ else dtype
        memory = memory_type(dtype, width)
        text = f"load {memory}, ptr {address.text}, align {dtype.itemsize}"
        operands: tuple[Value, ...] = (address,)
        if mask is not None:
            text = (
                f"call {memory} @llvm.masked.load.{mangled(memory)}.p0(ptr align {dtype.itemsize} {address.text}, "
                f"{mask.type} {mask.text}, {memory} zeroinitializer)"
            )
            operands = (address, mask)
        floor, version = self._floor(buffer, operands), self.versions.get(buffer, 0)
        return self._from_memory(self.emit.op(text, stored, width, operands, floor, version), dtype)

    def _gathered(self, buffer: str, offset: Size, dtype: DType, mask: Value) -> Value:
        addresses = self._gep(self.buffers[buffer], self.vector(offset), dtype)
        memory = memory_type(dtype, mask.width)
        text = (
            f"call {memory} @llvm.masked.gather.{mangled(memory)}.v{mask.width}p0(<{mask.width} x ptr> align "
            f"{dtype.itemsize} {addresses.text}, {mask.type} {mask.text}, {memory} zeroinitializer)"
        )
        operands = (addresses, mask)
        stored = uint8 if dtype is bool_ else dtype
        floor, version = self._floor(buffer, operands), self.versions.get(buffer, 0)
        return self._from_memory(self.emit.op(text, stored, mask.width, operands, floor, version), dtype)

    def _from_memory(self, value: Value, dtype: DType) -> Value:
        return self.emit.binary("icmp ne", value, literal(0, uint8), bool_) if dtype is bool_ else value

    def store(self, buffer: str, offset: Size, value: Value, stream: bool = False) -> None:
        """Write `value` to `buffer` at `offset`, in order of lanes."""
        offset, trip, dtype = self.resolve(offset), self.trip, value.dtype
        self.versions[buffer] = self.versions.get(buffer, 0) + 1
        if dtype is bool_:
            value = self.emit.convert("zext", value, uint8)
        step = coefficient(offset, trip.var) if free(offset).isdisjoint(trip.varying) else None
        if trip.width == 1:
            return self._write(self.pointer(buffer, offset, dtype), value)
        value = self.emit.splat(value, trip.width)
        if step == 1:
            if stream and trip.mask is None and self._keeps_lines(offset, value):
                return self._stream(buffer, self.pointer(buffer, offset, dtype), value)
            return self._write(self.pointer(buffer, offset, dtype), value, trip.mask)
        if step == -1:
            last = self.pointer(buffer, offset - (trip.width - 1), dtype)
            mask = self.emit.reverse(trip.mask) if trip.mask else None
            return self._write(last, self.emit.reverse(value), mask)
        if trip.mask is not None:
            return self._scattered(buffer, offset, value, trip.mask)
        for lane, address in enumerate(self._lane_pointers(buffer, offset, dtype, step)):
            self._write(address, self.emit.extract(value, lane))

    def _write(self, address: Value, value: Value, mask: Value | None = None) -> None:
        alignment = value.dtype.itemsize
        if mask is None:
            self.emit.here(f"store {value.type} {value.text}, ptr {address.text}, align {alignment}")
        else:
            self.emit.here(
                f"call void @llvm.masked.store.{mangled(value.type)}.p0({value.type} {value.text}, "
                f"ptr align {alignment} {address.text}, {mask.type} {mask.text})"
            )

    def _keeps_lines(self, offset: Size, value: Value) -> bool:
        """Whether a vector at `offset` covers whole lines of memory where the buffer begins with one."""
        line = LINE // value.dtype.itemsize
        own = Dim.symbol(self.trip.var)
        rest = offset - own  # a trip starts at a multiple of its width
        factors = [rest] if type(rest) is int else list(rest.terms.values())  # type: ignore[union-attr]
        return value.width % line == 0 and all(factor % line == 0 for factor in factors)

    def _stream(self, buffer: str, address: Value, value: Value) -> None:
        """A store past the caches; an ordinary one where the buffer does not begin with a line of memory."""
        start = self.buffers[buffer]
        number = self.emit.op(f"ptrtoint ptr {start.text} to i64", int64, 1, (start,))
        rest = self.emit.binary("and", number, integer(LINE - 1))
        aligned = self.emit.binary("icmp eq", rest, integer(0), bool_)
        past, through, after = (self.emit.fresh(label) for label in ("past", "through", "stored"))
        self.emit.here(f"br i1 {aligned.text}, label %{past}, label %{through}")
        self.emit.block(past)
        self.emit.here(f"store {value.type} {value.text}, ptr {address.text}, align {LINE}, !nontemporal {STREAMED}")
        self.emit.here(f"br label %{after}")
        self.emit.block(through)
        self._write(address, value)
        self.emit.here(f"br label %{after}")
        self.emit.block(after)

    def prefetch(self, buffer: str, offset: Size, dtype: DType) -> None:
        """Bring the line of an offset's first lane into the second cache."""
        address = self.pointer(buffer, self.resolve(offset), dtype)
        self.emit.here(f"call void @llvm.prefetch.p0(ptr {address.text}, i32 0, i32 2, i32 1)")

    def _scattered(self, buffer: str, offset: Size, value: Value, mask: Value) -> None:
        addresses = self._gep(self.buffers[buffer], self.vector(offset), value.dtype)
        self.emit.here(
            f"call void @llvm.masked.scatter.{mangled(value.type)}.v{value.width}p0({value.type} {value.text}, "
            f"<{value.width} x ptr> align {value.dtype.itemsize} {addresses.text}, {mask.type} {mask.text})"
        )
