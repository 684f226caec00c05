"""The text of one LLVM function while it is being written: values, scopes, instructions, loops.

Enters: instructions.  Leaves: lines of LLVM text.  Never here: the loop IR.

A pure instruction goes to the outermost scope in which all its operands are known, and equal instructions of one scope
are written once; so loop-invariant code and repeated addresses need no pass.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from graphc.dtypes import DType, bool_, float32, float64, int64

# 16-bit floats are integers in registers: no arithmetic is asked of them, and their conversions are spelled out.
_REGISTER = {
    "b": "i1",
    "u1": "i8",
    "u2": "i16",
    "u4": "i32",
    "u8": "i64",
    "i1": "i8",
    "i2": "i16",
    "i4": "i32",
    "i8": "i64",
    "f2": "i16",
    "f4": "float",
    "f8": "double",
}
_MANGLED = {"float": "f32", "double": "f64"}


@functools.lru_cache(1024)
def register_type(dtype: DType, width: int = 1) -> str:
    """The LLVM type of `width` elements in a register."""
    element = _REGISTER["b" if dtype.kind == "b" else f"{dtype.kind}{dtype.itemsize}"]
    return element if width == 1 else f"<{width} x {element}>"


def memory_type(dtype: DType, width: int = 1) -> str:
    """The LLVM type of `width` elements in memory: a bool is one byte, 0 or 1."""
    if dtype.kind == "b":
        return "i8" if width == 1 else f"<{width} x i8>"
    return register_type(dtype, width)


def mangled(type_text: str) -> str:
    """The part of an intrinsic's name that stands for a type: ``<8 x float>`` is ``v8f32``."""
    if type_text.startswith("<"):
        count, element = type_text[1:-1].split(" x ")
        return f"v{count}{_MANGLED.get(element, element)}"
    return _MANGLED.get(type_text, type_text)


class Value(NamedTuple):
    """An operand: its text, element dtype, number of elements (1: scalar), depth of the scope that defines it."""

    text: str
    dtype: DType
    width: int
    depth: int

    @property
    def type(self) -> str:
        return register_type(self.dtype, self.width)

    @property
    def is_literal(self) -> bool:
        return not self.text.startswith("%")


def literal(value: bool | int | float, dtype: DType) -> Value:
    """A scalar constant, rounded to `dtype` once."""
    if dtype.kind == "b":
        text = "true" if value else "false"
    elif dtype is float64 or dtype is float32:
        exact = float(dtype.numpy.type(value))
        text = f"0x{struct.unpack('<Q', struct.pack('<d', exact))[0]:016X}"
    elif dtype.kind == "f":
        text = str(int(dtype.numpy.type(value).view("uint16")))
    else:
        text = str(int(value))
    return Value(text, dtype, 1, 0)


@functools.lru_cache(1024)
def integer(value: int) -> Value:
    """A 64-bit integer constant."""
    return Value(str(value), int64, 1, 0)


@dataclass(slots=True)
class Scope:
    """Straight-line text of one loop level.  `guard`: it may be skipped, so no memory access may move out of it."""

    label: str
    guard: bool = False
    writes: frozenset[str] = frozenset()
    lines: list[str] = field(default_factory=list)
    cache: dict[tuple[str, int], Value] = field(default_factory=dict)


class Emitter:
    """Writes one function body.   scales: the target is an x86 that multiplies by powers of two (AVX-512)."""

    def __init__(self, scales: bool = False) -> None:
        self.scales = scales
        self.scopes = [Scope("entry", guard=True)]
        self._count = 0

    @property
    def depth(self) -> int:
        return len(self.scopes) - 1

    def fresh(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    # ---- instructions ----------------------------------------------------------------------------------------------

    def op(self, text: str, dtype: DType, width: int, operands: Sequence[Value], floor: int = 0, version: int = 0) -> Value:
        """A pure instruction, no further out than scope `floor`; `version`: how often a loaded buffer was written."""
        depth = floor
        for operand in operands:
            if operand.depth > depth:
                depth = operand.depth
        scope = self.scopes[depth]
        key = (text, version)
        found = scope.cache.get(key)
        if found is None:
            found = Value(self.fresh("%v"), dtype, width, depth)
            scope.lines.append(f"  {found.text} = {text}")
            scope.cache[key] = found
        return found if found.dtype is dtype else found._replace(dtype=dtype)

    def here(self, line: str) -> None:
        """An instruction with an effect, in the innermost scope."""
        self.scopes[-1].lines.append(f"  {line}")

    def block(self, label: str) -> None:
        """Start a basic block in the innermost scope; the previous one must have been ended by its branch."""
        self.scopes[-1].lines.append(f"{label}:")
        self.scopes[-1].label = label

    def binary(self, opcode: str, a: Value, b: Value, dtype: DType | None = None) -> Value:
        """``opcode a, b`` on operands of equal dtype, widened to the wider of both."""
        if a.width != b.width:
            a, b = self.widen(a, b)
        return self.op(f"{opcode} {a.type} {a.text}, {b.text}", dtype or a.dtype, a.width, (a, b))

    def convert(self, opcode: str, a: Value, dtype: DType) -> Value:
        return self.op(f"{opcode} {a.type} {a.text} to {register_type(dtype, a.width)}", dtype, a.width, (a,))

    def intrinsic(self, name: str, dtype: DType, *args: Value, extra: str = "") -> Value:
        """``llvm.name`` overloaded on the type of its first argument; every argument of that width."""
        values = self.widen(*args)
        operands = ", ".join(f"{v.type} {v.text}" for v in values)
        result = register_type(dtype, values[0].width)
        text = f"call {result} @llvm.{name}.{mangled(values[0].type)}({operands}{extra})"
        return self.op(text, dtype, values[0].width, values)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """condition ? a : b; a scalar condition may choose between vectors."""
        a, b = self.widen(a, b)
        if condition.width > a.width:
            condition, a, b = self.widen(condition, a, b)
        text = f"select {condition.type} {condition.text}, {a.type} {a.text}, {b.type} {b.text}"
        return self.op(text, a.dtype, a.width, (condition, a, b))

    # ---- index arithmetic, folded where it is constant -------------------------------------------------------------

    def add(self, a: Value, b: Value) -> Value:
        """a + b of 64-bit integers."""
        if a.text == "0" and a.width == 1:
            return b
        if b.text == "0" and b.width == 1:
            return a
        if a.is_literal and b.is_literal and a.width == b.width == 1:
            return integer(int(a.text) + int(b.text))
        return self.binary("add", a, b)

    def multiply(self, a: Value, b: Value) -> Value:
        """a * b of 64-bit integers."""
        for one, other in ((a, b), (b, a)):
            if one.width == 1 and one.text in ("0", "1"):
                return other if one.text == "1" else integer(0)
        if a.is_literal and b.is_literal and a.width == b.width == 1:
            return integer(int(a.text) * int(b.text))
        return self.binary("mul", a, b)

    # ---- vectors ---------------------------------------------------------------------------------------------------

    def splat(self, a: Value, width: int) -> Value:
        """A scalar in every lane of a vector; a value of that width stays as it is."""
        if a.width == width:
            return a
        vector = register_type(a.dtype, width)
        if a.is_literal:
            return Value(f"splat ({a.type} {a.text})", a.dtype, width, 0)
        one = self.op(f"insertelement {vector} poison, {a.type} {a.text}, i64 0", a.dtype, width, (a,))
        text = f"shufflevector {vector} {one.text}, {vector} poison, <{width} x i32> zeroinitializer"
        return self.op(text, a.dtype, width, (one,))

    def widen(self, *values: Value) -> tuple[Value, ...]:
        """All values at the width of the widest."""
        width = max(v.width for v in values)
        return values if width == 1 else tuple(self.splat(v, width) for v in values)

    def steps(self, step: int, width: int, dtype: DType = int64) -> Value:
        """The constant vector 0, step, 2 step, ..."""
        element = register_type(dtype)
        return Value(f"<{', '.join(f'{element} {step * lane}' for lane in range(width))}>", dtype, width, 0)

    def extract(self, a: Value, lane: int) -> Value:
        if a.width == 1:
            return a
        return self.op(f"extractelement {a.type} {a.text}, i64 {lane}", a.dtype, 1, (a,))

    def insert(self, a: Value | None, part: Value, lane: int, width: int) -> Value:
        """`a` (or an undefined vector) with one element replaced."""
        vector = register_type(part.dtype, width)
        base = a.text if a else "poison"
        operands = (a, part) if a else (part,)
        return self.op(f"insertelement {vector} {base}, {part.type} {part.text}, i64 {lane}", part.dtype, width, operands)

    def shuffle(self, a: Value, b: Value | None, lanes: Sequence[int]) -> Value:
        """The named lanes of `a` followed by `b`, in that order."""
        picked = ", ".join(f"i32 {lane}" for lane in lanes)
        other = b.text if b else "poison"
        text = f"shufflevector {a.type} {a.text}, {a.type} {other}, <{len(lanes)} x i32> <{picked}>"
        return self.op(text, a.dtype, len(lanes), (a, b) if b else (a,))

    def part(self, a: Value, start: int, width: int) -> Value:
        """`width` neighbouring lanes of `a` from `start`."""
        if width == a.width:
            return a
        return self.extract(a, start) if width == 1 else self.shuffle(a, None, range(start, start + width))

    def overlay(self, a: Value, part: Value) -> Value:
        """`a` with its first lanes replaced by `part`."""
        if part.width == a.width:
            return part
        if part.width == 1:
            return self.insert(a, part, 0, a.width)
        padded = self.shuffle(part, None, [min(lane, part.width - 1) for lane in range(a.width)])
        return self.shuffle(padded, a, [lane if lane < part.width else a.width + lane for lane in range(a.width)])

    def joined(self, parts: Sequence[Value]) -> Value:
        """Vectors of equal width (their number a power of two) one after the other."""
        values = list(parts)
        while len(values) > 1:
            pairs = zip(values[::2], values[1::2], strict=True)
            values = [self.shuffle(a, b, range(2 * a.width)) for a, b in pairs]
        return values[0]

    def reverse(self, a: Value) -> Value:
        return a if a.width == 1 else self.shuffle(a, None, range(a.width - 1, -1, -1))

    # ---- control flow ----------------------------------------------------------------------------------------------

    def loop(
        self,
        start: Value,
        end: Value,
        step: int,
        carried: Sequence[Value],
        writes: frozenset[str],
        body: Callable[[Value, list[Value]], list[Value]],
        positive: bool = False,
    ) -> list[Value]:
        """for i in range(start, end, step): carried = body(i, carried).  Returns the last carried values.

        A trip count known to be one is written without a loop, one known to be `positive` without a guard.
        """
        static = start.is_literal and end.is_literal
        if static and int(end.text) - int(start.text) <= step:
            return body(start, list(carried)) if int(end.text) > int(start.text) else list(carried)
        if static or positive:
            return self._counted(start, end, step, carried, writes, body)
        return self.when(
            self.binary("icmp slt", start, end, bool_),
            carried,
            lambda values: self._counted(start, end, step, values, writes, body),
        )

    def when(self, condition: Value, carried: Sequence[Value], body: Callable[[list[Value]], list[Value]]) -> list[Value]:
        """if condition: carried = body(carried).  Returns the merged values."""
        taken, after = self.fresh("then"), self.fresh("endif")
        self.scopes.append(Scope(taken, guard=True))
        results = body(list(carried))
        inner = self.scopes.pop()
        outer = self.scopes[-1]
        outer.lines.append(f"  br i1 {condition.text}, label %{taken}, label %{after}")
        outer.lines += [f"{taken}:", *inner.lines, f"  br label %{after}", f"{after}:"]
        merged = []
        for before, result in zip(carried, results, strict=True):
            name = self.fresh("%v")
            outer.lines.append(f"  {name} = phi {result.type} [ {before.text}, %{outer.label} ], [ {result.text}, %{inner.label} ]")
            merged.append(Value(name, result.dtype, result.width, self.depth))
        outer.label = after
        return merged

    def _counted(
        self,
        start: Value,
        end: Value,
        step: int,
        carried: Sequence[Value],
        writes: frozenset[str],
        body: Callable[[Value, list[Value]], list[Value]],
    ) -> list[Value]:
        head, after, index = self.fresh("loop"), self.fresh("done"), self.fresh("%i")
        depth = len(self.scopes)
        self.scopes.append(Scope(head, writes=writes))
        phis = [Value(self.fresh("%p"), v.dtype, v.width, depth) for v in carried]
        results = body(Value(index, int64, 1, depth), list(phis))
        inner = self.scopes.pop()
        outer = self.scopes[-1]
        outer.lines += [
            f"  br label %{head}",
            f"{head}:",
            f"  {index} = phi i64 [ {start.text}, %{outer.label} ], [ {index}.n, %{inner.label} ]",
        ]
        for phi, first, result in zip(phis, carried, results, strict=True):
            outer.lines.append(f"  {phi.text} = phi {phi.type} [ {first.text}, %{outer.label} ], [ {result.text}, %{inner.label} ]")
        outer.lines += inner.lines
        outer.lines += [
            f"  {index}.n = add nuw nsw i64 {index}, {step}",
            f"  {index}.c = icmp slt i64 {index}.n, {end.text}",
            f"  br i1 {index}.c, label %{head}, label %{after}",
            f"{after}:",
        ]
        outer.label = after
        return [r._replace(depth=min(r.depth, depth - 1)) for r in results]
