"""The Python renderer: the definition of the loop IR, and the oracle of every other renderer.  It needs no compiler.

Enters: a `Kernel`, NumPy buffers, sizes.  Leaves: the buffers written, and a status code.  Never here: a choice.

A kernel becomes one Python function over NumPy scalars: a line for each operation, loops as loops.  A ``lanes`` loop
lists what its Updates fold and hands the list to `tree_fold`.  Scratch starts as NaN (or the largest integer), and an
offset outside its buffer is an IndexError, so that what is undefined elsewhere shows here.
"""

from __future__ import annotations

import math
import operator
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from graphc.dims import evaluate
from graphc.dtypes import DType, bool_, float32, float64
from graphc.errors import IRError
from graphc.ir.loops import (
    BLOCK,
    FUNCTIONS,
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
    Size,
    Stmt,
    Store,
    Update,
    Var,
    identity,
    plain,
    walk,
)

Scalar = Any  # a NumPy scalar of some DType
Program = Callable[[Mapping[str, np.ndarray], Mapping[str, int]], int]

_COMPARISONS = {"eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt,
                "ge": operator.ge}  # fmt: skip
_INFIX: dict[str, Callable[[Scalar, Scalar], Scalar]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "and": operator.and_,
    "or": operator.or_, "xor": operator.xor, "shl": operator.lshift, "shr": operator.rshift, **_COMPARISONS,
}  # fmt: skip
_ROUNDING = {"floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": np.rint}


def run(kernel: Kernel, buffers: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> int:
    """Execute `kernel` on contiguous `buffers` (by parameter name, any shape), writing its outputs in place.

    Gives the largest code of a failed Check, or 0.  Raises IRError for a kernel that breaks a typing rule, ValueError
    for a buffer that does not fit its parameter, IndexError for an access outside a buffer, ZeroDivisionError for idiv
    by 0.
    """
    return compiled(kernel)(buffers, sizes)


def compiled(kernel: Kernel) -> Program:
    """`kernel` as a Python function of (buffers, sizes); raises as `run`."""
    if any(call.fn not in FUNCTIONS for call in _calls(kernel)):
        from graphc.codegen.mathlib import expand

        kernel = expand(kernel)
    writer = _Writer(kernel)
    names: dict[str, Any] = dict(writer.names)
    exec(compile("\n".join(writer.lines), f"<kernel {kernel.name}>", "exec"), names)
    body = names["kernel"]

    def program(buffers: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> int:
        arguments: list[int | np.ndarray] = []
        for param in kernel.params:
            if param.role == "size":
                arguments.append(int(sizes[param.name]))
            else:
                arguments.append(_flat(buffers[param.name], param.name, param.dtype, evaluate(param.size, sizes)))
        with np.errstate(all="ignore"):
            return int(body(*arguments))

    return program


def source(kernel: Kernel) -> str:
    """The Python text that `run` executes for a kernel of FUNCTIONS alone."""
    return "\n".join(_Writer(kernel).lines)


def tree_fold(fn: str, values: Sequence[Scalar], dtype: DType) -> Scalar:
    """Fold `values` with `fn` in the one order there is: LANES lanes a block, lanes in halves, blocks in order."""
    fold = function(fn, dtype)
    start = constant(identity(fn, dtype))
    result = start
    for base in range(0, len(values), BLOCK):
        lanes = [start] * LANES
        for k, value in enumerate(values[base : base + BLOCK]):
            lanes[k % LANES] = fold(lanes[k % LANES], value)
        width = LANES // 2
        while width:
            lanes = [fold(lanes[lane], lanes[lane + width]) for lane in range(width)]
            width //= 2
        result = fold(result, lanes[0]) if base else lanes[0]
    return result


# ---- scalars ---------------------------------------------------------------------------------------------------------


def constant(const: Const) -> Scalar:
    """The NumPy scalar of a literal, rounded once."""
    return const.dtype.numpy.type(const.value)


def function(fn: str, dtype: DType, result: DType | None = None) -> Callable[..., Scalar]:
    """`fn` of FUNCTIONS on NumPy scalars of `dtype` (for select, of its branches); `result`: of a cast or bitcast."""
    scalar = dtype.numpy.type
    infix = _INFIX.get(fn)
    if infix is not None:
        outcome = np.bool_ if fn in _COMPARISONS else scalar
        return lambda a, b: outcome(infix(a, b))
    match fn:
        case "neg" | "abs" | "sqrt":
            unary = {"neg": np.negative, "abs": np.absolute, "sqrt": np.sqrt}[fn]
            return lambda a: scalar(unary(a))
        case "floor" | "ceil" | "trunc" | "round":
            rounding = _ROUNDING[fn] if dtype.is_floating_point else np.positive
            return lambda a: scalar(rounding(a))
        case "not":
            return lambda a: scalar(~scalar(a))
        case "copysign":
            return lambda a, b: scalar(np.copysign(a, b))
        case "scale":
            return lambda a, n: scalar(a if n != n else np.ldexp(a, int(n)))
        case "max":
            return lambda a, b: a if a != a else b if b != b else a if a > b else b
        case "min":
            return lambda a, b: a if a != a else b if b != b else a if a < b else b
        case "select":
            return lambda condition, a, b: a if condition else b
        case "fma" if dtype is float32:
            return fma32
        case "fma" if dtype is float64:
            return fma64
        case "idiv":
            return lambda a, b: wrapped(_truncated_quotient(int(a), int(b)), dtype)
        case "cast":
            return _cast(dtype, result or dtype)
        case "bitcast":
            target = (result or dtype).numpy
            return lambda a: a.view(target)
    raise IRError(f"loop IR: no scalar function {fn} of {dtype}")


def wrapped(value: int, dtype: DType) -> Scalar:
    """An integer modulo 2 to the width of `dtype`."""
    bits = 8 * dtype.itemsize
    value &= (1 << bits) - 1
    if dtype.kind == "i" and value >> (bits - 1):
        value -= 1 << bits
    return dtype.numpy.type(value)


def _truncated_quotient(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _cast(source_type: DType, target: DType) -> Callable[[Scalar], Scalar]:
    """Value conversion.  To and from two-byte floats it goes through float32, from where it rounds once more."""
    scalar = target.numpy.type
    if target is bool_:
        return lambda a: np.bool_(a != 0)
    if target.kind == "f":
        if target.itemsize == 2 or (source_type.kind == "f" and source_type.itemsize == 2):
            return lambda a: scalar(np.float32(a))
        return lambda a: scalar(a)
    if source_type.kind != "f":
        return lambda a: wrapped(int(a), target)
    limits = np.iinfo(target.numpy)
    low, high = int(limits.min), int(limits.max)

    def saturated(a: Scalar) -> Scalar:
        value = float(a)
        if value != value:
            return scalar(0)
        return scalar(low if value <= low else high if value >= high else int(value))

    return saturated


def fma32(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    """a*b + c in float32, rounded once: exact product and sum rounded to odd in float64, then to float32.

    Source: S. Boldo, G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to
    odd", IEEE Transactions on Computers 57 (2008).
    """
    product, addend = float(a) * float(b), float(c)
    total = product + addend
    if not math.isfinite(total):
        return np.float32(total)
    part = total - product
    error = (product - (total - part)) + (addend - part)  # Knuth's TwoSum: product + addend == total + error
    if error and not struct.unpack("<q", struct.pack("<d", total))[0] & 1:
        total = math.nextafter(total, math.copysign(math.inf, error))
    return np.float32(total)


def fma64(a: np.float64, b: np.float64, c: np.float64) -> np.float64:
    """a*b + c in float64, rounded once, by rational arithmetic."""
    x, y, z = float(a), float(b), float(c)
    if not (math.isfinite(x) and math.isfinite(y)):
        return np.float64(x * y + z)
    if not math.isfinite(z):
        return np.float64(z)
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    if not exact:
        return np.float64(x * y + z)  # x*y is -z exactly: only the zero's sign is open, and IEEE addition knows it
    try:
        return np.float64(exact.numerator / exact.denominator)
    except OverflowError:
        return np.float64(math.inf if exact > 0 else -math.inf)


# ---- what generated code calls ---------------------------------------------------------------------------------------


def _flat(array: np.ndarray, name: str, dtype: DType, size: int) -> np.ndarray:
    if array.dtype != dtype.numpy or not array.flags.c_contiguous or array.size < size:
        raise ValueError(
            f"buffer {name}: need {size} contiguous elements of {dtype}, got {array.size} of {array.dtype}"
            + ("" if array.flags.c_contiguous else ", not contiguous")
        )
    return array.reshape(-1)


def _load(buffer: np.ndarray, offset: int) -> Scalar:
    if offset < 0:
        raise IndexError(f"load at offset {offset}")
    return buffer[offset]


def _store(buffer: np.ndarray, offset: int, value: Scalar) -> None:
    if offset < 0:
        raise IndexError(f"store at offset {offset}")
    buffer[offset] = value


def _scratch(size: int, dtype: DType) -> np.ndarray:
    undefined = math.nan if dtype.kind == "f" else True if dtype is bool_ else np.iinfo(dtype.numpy).max
    return np.full(size, undefined, dtype.numpy)


def _calls(kernel: Kernel) -> Iterator[Call]:
    """Every distinct Call object of a kernel."""
    seen: set[int] = set()
    stack: list[Expr] = []
    for statement in walk(kernel.body):
        match statement:
            case Let(_, value) | Store(_, _, value) | Update(_, value) | Check(value, _):
                stack.append(value)
    while stack:
        expr = stack.pop()
        if isinstance(expr, Call) and id(expr) not in seen:
            seen.add(id(expr))
            stack.extend(expr.args)
            yield expr


# ---- the text --------------------------------------------------------------------------------------------------------


class _Writer:
    """One kernel's text.  Values are named v_NAME, the integers that sizes may use n_NAME, buffers b_NAME."""

    def __init__(self, kernel: Kernel) -> None:
        self.names: dict[str, Any] = {
            "bool_": np.bool_, "load": _load, "scratch": _scratch, "store": _store, "tree_fold": tree_fold,
            "wrapped": wrapped,
        }  # fmt: skip
        self.lines: list[str] = []
        self.types: dict[str, DType] = {p.name: p.dtype for p in kernel.params if p.role != "size"}
        self.accumulators: dict[str, Acc] = {}
        self.pad = "    "
        self.count = 0
        arguments = ("n_" + p.name if p.role == "size" else "b_" + p.name for p in kernel.params)
        self.lines.append(f"def kernel({', '.join(arguments)}):")
        self.line("status = 0")
        self.body(plain(kernel.body))
        self.line("return status")

    def line(self, text: str) -> None:
        self.lines.append(self.pad + text)

    def new(self, text: str) -> str:
        """A line that names the value of `text`; gives the name."""
        self.count += 1
        self.line(f"t{self.count} = {text}")
        return f"t{self.count}"

    def named(self, prefix: str, value: object) -> str:
        """A name by which generated code sees `value`."""
        name = f"{prefix}{len(self.names)}"
        self.names[name] = value
        return name

    def dtype_name(self, dtype: DType) -> str:
        self.names[dtype.short] = dtype
        return dtype.short

    def body(self, statements: tuple[Stmt, ...]) -> None:
        if not statements:
            self.line("pass")
        for statement in statements:
            self.statement(statement)

    def statement(self, statement: Stmt) -> None:
        match statement:
            case Let(name, value):
                self.bind(name, self.expr(value, {}), value.dtype)
            case Alloc(buffer, dtype, size, _):
                self.types[buffer] = dtype
                self.line(f"b_{buffer} = scratch({size}, {self.dtype_name(dtype)})")
            case Store(buffer, offset, value):
                self.expect(value.dtype is self.types[buffer], f"store of {value.dtype} into {buffer}")
                text = self.expr(value, {})
                self.line(f"store(b_{buffer}, {_integer(offset)}, {text})")
            case Acc(name, _, _):
                self.accumulators[name] = statement
            case Update(name, value):
                self.expect(name in self.accumulators, f"update of undeclared accumulator {name}")
                self.expect(value.dtype is self.accumulators[name].dtype, f"update of {name} with {value.dtype}")
                text = self.expr(value, {})
                self.line(f"a_{name}.append({text})")
            case Check(condition, code):
                self.expect(condition.dtype is bool_, f"check of {condition.dtype}")
                text = self.expr(condition, {})
                self.line(f"if not {text}: status = max(status, {code})")
            case Prefetch():
                pass  # nothing is computed
            case For():
                self.loop(statement)

    def loop(self, loop: For) -> None:
        updates = [s for s in loop.body if isinstance(s, Update)]
        self.expect(not updates or loop.kind == "lanes", f"update in {loop.kind} loop {loop.var}")
        self.expect(len(updates) == len({u.name for u in updates}), f"two updates of one accumulator in loop {loop.var}")
        folded = dict(self.accumulators) if loop.kind == "lanes" else {}
        for name in folded:
            self.line(f"a_{name} = []")
        self.line(f"for n_{loop.var} in range({_integer(loop.extent)}):")
        self.pad += "    "
        self.body(loop.body)
        self.pad = self.pad[:-4]
        for name, acc in folded.items():
            self.bind(name, f"tree_fold({acc.fn!r}, a_{name}, {self.dtype_name(acc.dtype)})", acc.dtype)
            del self.accumulators[name]

    def bind(self, name: str, text: str, dtype: DType) -> None:
        self.line(f"v_{name} = {text}")
        if dtype.kind in "iu":
            self.line(f"n_{name} = int(v_{name})")

    def expr(self, expr: Expr, done: dict[int, str]) -> str:
        """A name or literal with the value of `expr`; `done`: what this statement has computed, by identity."""
        found = done.get(id(expr))
        if found is None:
            found = done[id(expr)] = self.value(expr, done)
        return found

    def value(self, expr: Expr, done: dict[int, str]) -> str:
        match expr:
            case Const():
                return self.named("c", constant(expr))
            case Var(name, _):
                return f"v_{name}"
            case Index(value, dtype):
                return self.new(f"wrapped({_integer(value)}, {self.dtype_name(dtype)})")
            case Load(buffer, offset, dtype):
                self.expect(dtype is self.types[buffer], f"load of {dtype} from {buffer}")
                return self.new(f"load(b_{buffer}, {_integer(offset)})")
            case Call(fn, args, dtype):
                self.expect_types(expr)
                texts = [self.expr(arg, done) for arg in args]
                called = self.named(f"{fn}_", function(fn, args[-1].dtype, dtype))
                return self.new(f"{called}({', '.join(texts)})")

    def expect_types(self, call: Call) -> None:
        """The typing rules of FUNCTIONS: operands of one dtype, also the result's but for comparisons and casts."""
        self.expect(FUNCTIONS.get(call.fn) == len(call.args), f"{call.fn} of {len(call.args)} arguments")
        types = [arg.dtype for arg in call.args]
        if call.fn == "select":
            self.expect(types.pop(0) is bool_, "select on something that is not bool")
        self.expect(all(t is types[0] for t in types), f"{call.fn} of {', '.join(map(str, types))}")
        if call.fn == "bitcast":
            self.expect(types[0].itemsize == call.dtype.itemsize, f"bitcast of {types[0]} to {call.dtype}")
        elif call.fn != "cast":
            expected = bool_ if call.fn in _COMPARISONS else types[0]
            self.expect(call.dtype is expected, f"{call.fn} of {types[0]} called {call.dtype}")
        if call.fn in ("div", "sqrt", "fma", "copysign", "scale"):
            self.expect(types[0].kind == "f", f"{call.fn} of {types[0]}")
        elif call.fn in ("and", "or", "xor", "not", "shl", "shr", "idiv"):
            self.expect(types[0].kind != "f", f"{call.fn} of {types[0]}")

    def expect(self, holds: bool, message: str) -> None:
        if not holds:
            raise IRError(f"loop IR: {message}")


def _integer(size: Size) -> str:
    """Python text of a size: the size's own text over the n_ names."""
    return re.sub(r"[^\W\d]\w*", lambda m: m[0] if m[0] in ("min", "max") else "n_" + m[0], str(size))
