"""Kernels that differ in numbers only become one, which takes those numbers as sizes: what is alike is translated once.

Enters: kernels.  Leaves: for each, the kernel that runs in its place and the numbers that it runs with.  Never here: text.

A number may become a size where no inner loop is laid out by it: extents of outermost, serial and long vector loops, and what is
added to variables or multiplies those of such loops.  What stands beside other variables stays as it is, as do 0 and 1 (neighbours
remain neighbours) and the divisors of vectors.  A float32 that is added or multiplied by, as in means over unlike counts, becomes a
size that holds its bits.  Kernels with register tiles stay apart: they run longest, and slower on sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from graphc.dims import Atom, Dim, Size, bounds, maximum, minimum
from graphc.dtypes import float32, int64, uint32
from graphc.ir.loops import (
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
    LoopKind,
    Param,
    Prefetch,
    Stmt,
    Store,
    Transpose,
    Update,
    walk,
)

Sizes = Mapping[str, Size]
Made = Callable[[Sizes, Iterator[Size]], Size]  # a size from its symbols and the next numbers
Level = Literal[0, 1]  # of a loop variable: in the lanes of a vector, outside of one
Opened = tuple[str, tuple[int, ...], Made]  # a size with holes, what stood in them, and how it is put together again

EVEN = 64  # a vector loop over a multiple of so many elements stays one
_ARITHMETIC = ("add", "sub", "mul")  # take as long with a number that is known late
_LEVELS: dict[LoopKind, Level] = {"parallel": 1, "serial": 1, "vector": 0, "lanes": 0, "tile": 0}


@dataclass(frozen=True)
class Instance:
    """A kernel, and a number for each of its last parameters."""

    kernel: Kernel
    numbers: tuple[int, ...] = ()


def shared(kernels: Iterable[Kernel]) -> dict[str, Instance]:
    """What runs in the place of each kernel, by its name."""
    outlines: dict[Hashable, list[Kernel]] = {}
    found: dict[str, Instance] = {}
    for kernel in kernels:
        if stays_apart(kernel):
            found[kernel.name] = Instance(kernel)
        else:
            outlines.setdefault(_outline(kernel), []).append(kernel)
    for similar in outlines.values():
        if len(similar) == 1:
            found[similar[0].name] = Instance(similar[0])
            continue
        forms: dict[Kernel, list[tuple[Kernel, list[int]]]] = {}
        for kernel in similar:
            reader = _Walk()
            forms.setdefault(reader.kernel(kernel), []).append((kernel, reader.numbers))
        for members in forms.values():
            found.update(_joined(members))
    return found


def stays_apart(kernel: Kernel) -> bool:
    """Whether a kernel runs itself, whatever others there are: one with register tiles."""
    return any(isinstance(s, For) and s.kind == "unroll" for s in walk(kernel.body))


def _outline(kernel: Kernel) -> Hashable:
    """What kernels of one form have in common, quickly found."""
    parts: list[Any] = [(p.role, p.dtype) for p in kernel.params]
    for statement in walk(kernel.body):
        if isinstance(statement, For):
            parts.append((statement.kind, statement.extent if statement.kind == "tile" else len(statement.body)))
        else:
            parts.append(type(statement))
    return tuple(parts)


def _joined(members: list[tuple[Kernel, list[int]]]) -> Iterator[tuple[str, Instance]]:
    """One kernel for kernels of one form: numbers in which they differ become parameters, equal ones the same."""
    columns = list(zip(*[numbers for _, numbers in members], strict=True))
    names = {column: f"shared_size{i}" for i, column in enumerate(dict.fromkeys(c for c in columns if len(set(c)) > 1))}
    first = members[0][0]
    sizes = [Dim.symbol(names[c], min(c), max(c)) if c in names else c[0] for c in columns]
    one = _Walk(iter(sizes)).kernel(first) if names else first
    params = (*one.params, *[Param(name, "size", int64) for name in names.values()])
    kernel = replace(one, name=first.name, params=params)
    for i, (member, _) in enumerate(members):
        yield member.name, Instance(kernel, tuple([column[i] for column in names]))


class _Walk:
    """A copy of a kernel with its sizes opened (as texts with holes) or, for given `sizes`, with those in the holes."""

    def __init__(self, sizes: Iterator[Size] | None = None) -> None:
        self.sizes = sizes
        self.numbers: list[int] = []
        self.levels: dict[str, Level] = {}  # of variables beside which numbers may be sizes
        self.symbols: dict[str, Size] = {}

    def kernel(self, kernel: Kernel) -> Kernel:
        self.levels = {p.name: 1 for p in kernel.params if p.role == "size"}
        params = tuple([replace(p, size=self.size(p.size)) for p in kernel.params])
        return Kernel("", params, self.body(kernel.body), 1 if self.sizes is None else kernel.grain)

    def size(self, size: Size, held: bool = False) -> Any:
        text, numbers, made = _opened(size, self.levels, held)
        if self.sizes is not None:
            return made(self.symbols, self.sizes)
        self.numbers.extend(numbers)
        return text

    def number(self, number: int) -> Any:
        """A hole whatever the number."""
        if self.sizes is not None:
            return next(self.sizes)
        self.numbers.append(number)
        return "#"

    def body(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple([self.statement(s) for s in body])

    def statement(self, statement: Stmt) -> Stmt:
        match statement:
            case Alloc(buffer, dtype, size, "stack"):
                most: Any = self.number(size)
                return Alloc(buffer, dtype, most if self.sizes is None else _most(most))
            case Let(name, value):
                return Let(name, self.expr(value))
            case Store(buffer, offset, value, stream):
                return Store(buffer, self.size(offset), self.expr(value), stream)
            case Update(name, value):
                return Update(name, self.expr(value))
            case Check(condition, code):
                return Check(self.expr(condition), code)
            case Prefetch(buffer, offset, dtype):
                return Prefetch(buffer, self.size(offset), dtype)
            case Transpose():
                places = ("target_at", "target_step", "source_at", "source_step", "rows", "columns")
                return replace(statement, **{name: self.size(getattr(statement, name)) for name in places})
            case For():
                return self.loop(statement)
        return statement

    def loop(self, loop: For) -> For:
        extent = self.extent(loop)
        saved, symbols = self.levels, self.symbols
        self.levels = {name: level for name, level in saved.items() if name != loop.var}
        if loop.kind in _LEVELS:
            self.levels[loop.var] = _LEVELS[loop.kind]
        if self.sizes is not None:
            self.symbols = {**symbols, loop.var: Dim.symbol(loop.var, 0, below=extent)}
        body = self.body(loop.body)
        self.levels, self.symbols = saved, symbols
        return For(loop.var, extent, loop.kind, body)

    def extent(self, loop: For) -> Any:
        extent = loop.extent
        if not isinstance(extent, int):
            return self.size(extent)
        if loop.kind in ("parallel", "serial"):
            return self.number(extent)
        if loop.kind != "vector" or extent < EVEN:
            return extent
        return self.number(extent) if extent % EVEN else self.size_of_even(extent)

    def size_of_even(self, extent: int) -> Any:
        count = self.number(extent // EVEN)
        return f"{count}*{EVEN}" if self.sizes is None else count * EVEN

    def expr(self, expr: Expr) -> Expr:
        match expr:
            case Index(value, dtype):
                return Index(self.size(value), dtype)
            case Load(buffer, offset, dtype):
                return Load(buffer, self.size(offset), dtype)
            case Call(fn, args, dtype):
                operand = self.operand if fn in _ARITHMETIC else self.expr
                return Call(fn, tuple([operand(a) for a in args]), dtype)
        return expr

    def operand(self, expr: Expr) -> Expr:
        """Of arithmetic: a float32 known before is a hole too."""
        if not isinstance(expr, Const) or expr.dtype is not float32:
            return self.expr(expr)
        bits = self.number(int(float32.numpy.type(expr.value).view("uint32")))
        if self.sizes is None:
            return Const(bits, float32)
        return expr if isinstance(bits, int) else Call("bitcast", (Index(bits, uint32),), float32)


def _most(size: Size) -> int:
    """The greatest value of a size that stands for known numbers."""
    most = bounds(size)[1]
    assert most is not None
    return most


def _opened(size: Size, levels: Mapping[str, Level], held: bool) -> Opened:
    """`size` with holes for its numbers.   levels: of the variables beside which they may be sizes.   held: none may."""
    if isinstance(size, int):
        if held or abs(size) < 2:
            return str(size), (), lambda symbols, numbers: size
        sign = -1 if size < 0 else 1
        return "-#" if size < 0 else "#", (abs(size),), lambda symbols, numbers: sign * next(numbers)
    parts = sorted((_opened_term(atoms, n, levels, held) for atoms, n in size.terms.items()), key=_order)

    def made(symbols: Sizes, numbers: Iterator[Size]) -> Size:
        total: Size = 0
        for _, _, part in parts:
            total = total + part(symbols, numbers)
        return total

    return "+".join([text for text, _, _ in parts]), _numbers(parts), made


def _order(opened: Opened) -> tuple[str, tuple[int, ...]]:
    return opened[0], opened[1]


def _numbers(parts: Iterable[Opened]) -> tuple[int, ...]:
    return tuple([n for _, numbers, _ in parts for n in numbers])


def _opened_term(atoms: tuple[Atom, ...], factor: int, levels: Mapping[str, Level], held: bool) -> Opened:
    least = min((levels.get(name, -1) for atom in atoms for name in atom.free), default=1)
    alone = len(atoms) == 1 and atoms[0].kind == "symbol"
    inside = held or least < 1
    scale = _opened(factor, levels, held or (inside and not (alone and least == 0)))
    parts = [scale, *sorted((_opened_atom(atom, levels, inside) for atom in atoms), key=_order)]

    def made(symbols: Sizes, numbers: Iterator[Size]) -> Size:
        product: Size = 1
        for _, _, part in parts:
            product = product * part(symbols, numbers)
        return product

    return "*".join([text for text, _, _ in parts]), _numbers(parts), made


def _opened_atom(atom: Atom, levels: Mapping[str, Level], held: bool) -> Opened:
    if atom.kind == "symbol":
        name = str(atom)
        low = None if atom.low is None or atom.low < 0 else 0
        return name, (), lambda symbols, numbers: symbols[name] if name in symbols else Dim.symbol(name, low)
    divides = atom.kind in ("//", "%")
    parts = [_opened(arg, levels, held) for arg in atom.args]
    if not divides:
        parts.sort(key=_order)

    def made(symbols: Sizes, numbers: Iterator[Size]) -> Size:
        x, y = (part(symbols, numbers) for _, _, part in parts)
        if divides:
            return x // y if atom.kind == "//" else x % y
        return minimum(x, y) if atom.kind == "min" else maximum(x, y)

    return f"{atom.kind}({parts[0][0]},{parts[1][0]})", _numbers(parts), made
