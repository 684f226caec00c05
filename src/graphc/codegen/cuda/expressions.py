"""Values, sizes and names of the loop IR as CUDA C++ expressions.

Enters: `Expr` and `Size`.  Leaves: text whose C++ type is exactly the IR's dtype.  Every argument of a call is
evaluated, wherever a `select` stands, as in the other renderers.  Never here: statements, decisions about threads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import numpy as np

from graphc.codegen.cuda.prelude import PRELUDE
from graphc.dims import Atom, Dim, Size, bounds, substitute
from graphc.dtypes import DType, bool_, int64
from graphc.errors import IRError
from graphc.ir.loops import LANES, Call, Const, Expr, Index, Load, Var

_KEYWORDS = (
    "alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl const const_cast "
    "constexpr continue decltype default delete do double dynamic_cast else enum explicit export extern false "
    "float for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq "
    "private protected public register reinterpret_cast return short signed sizeof static static_assert "
    "static_cast struct switch template this thread_local throw true try typedef typeid typename union unsigned "
    "using virtual void volatile wchar_t while xor xor_eq main threadIdx blockIdx blockDim gridDim warpSize "
)

# What kernel text may name and not mean its own: the language's words, the prelude's macros, types and functions.
_DECLARED = r"#define (\w+)|struct (?:alignas\(.*?\) )?(\w+)|typedef .* (\w+);|DEVICE (?:[\w<>, ]+ )?(\w+)\("
_RESERVED = frozenset((*_KEYWORDS.split(), *(name for found in re.findall(_DECLARED, PRELUDE) for name in found if name)))

_FLOAT_OPERATORS = {"add": "+", "sub": "-", "mul": "*"}
_FLOAT_FUNCTIONS = {
    "div": "divide", "sqrt": "square_root", "fma": "multiply_add", "floor": "round_down", "ceil": "round_up",
    "trunc": "round_to_zero", "round": "round_to_even", "copysign": "copy_sign", "abs": "absolute", "scale": "scale",
}  # fmt: skip
_INTEGER_FUNCTIONS = {
    "add": "wrapping_add", "sub": "wrapping_sub", "mul": "wrapping_mul", "neg": "wrapping_neg", "abs": "wrapping_abs",
    "shl": "shift_left", "idiv": "truncated_quotient",
}  # fmt: skip
_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_BITWISE = {"and": "&", "or": "|", "xor": "^", "shr": ">>"}
_EXTREMA = {"max": "maximum", "min": "minimum"}


def own_count(size: int, modulus: int) -> int:
    """Elements that a lane keeps of `size` elements owned by lanes with `modulus` (see `accesses.lane_owned`)."""
    return -(-size // modulus) * -(-modulus // LANES)


class Names:
    """C++ identifiers for names of one kernel: the IR's own, unless C++ or the prelude has it."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}
        self._taken: set[str] = set(_RESERVED)

    def __getitem__(self, name: str) -> str:
        if name not in self._of:
            self._of[name] = self.fresh(name)
        return self._of[name]

    def claim(self, names: Iterable[str]) -> None:
        """Give `names` their identifiers before anything else may take them."""
        for name in names:
            self._of[name] = self._of.get(name) or self.fresh(name)

    def symbol(self, hint: str) -> str:
        """A fresh identifier that is also a name, to be used in sizes."""
        name = self.fresh(hint)
        self._of[name] = name
        return name

    def fresh(self, hint: str) -> str:
        """An identifier like `hint` that nothing else has."""
        base = re.sub(r"\W|^(?=\d)", "_", hint)
        name, count = base, 1
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name


def type_name(dtype: DType) -> str:
    """The C++ type of a value or element: the IR's short name."""
    return dtype.short


def literal(value: bool | int | float, dtype: DType) -> str:
    """`value` as a C++ constant of `dtype`, rounded to it once."""
    if dtype.kind == "b":
        return "true" if value else "false"
    if dtype.kind == "f":
        return _float_literal(value, dtype)
    number = int(value)
    if number == -(1 << 63):
        return "(-9223372036854775807ll - 1)"
    if dtype.itemsize < 4:
        return f"{dtype.short}({number})"
    text = f"{number}{'u' if dtype.kind == 'u' else ''}{'ll' if dtype.itemsize == 8 else ''}"
    if number == -(1 << 31) and dtype.itemsize == 4:
        text = "-2147483647 - 1"
    return f"({text})" if number < 0 else text


def _float_literal(value: bool | int | float, dtype: DType) -> str:
    rounded = dtype.numpy.type(value)
    if dtype.itemsize == 2:
        return f"{dtype.short}{{{int(rounded.view(np.uint16)):#06x}}}"
    if not math.isfinite(rounded):
        bits = int(rounded.view(f"u{dtype.itemsize}"))
        return f"bitcast<{dtype.short}>({bits:#x}u{'ll' if dtype.itemsize == 8 else ''})"
    text = float(rounded).hex() + ("f" if dtype.itemsize == 4 else "")
    return f"({text})" if text.startswith("-") else text


class Expressions:
    """Writes expressions of one kernel.  `narrow`: names of integer values that are not 64 bits wide.

    `replaced`: the text that stands for a load of (buffer, offset) where that value is already at hand.  `private`:
    scratch of which a lane holds only its own elements, with their modulus; `spread`: the variable of the loop whose
    iterations lanes share.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.narrow: set[str] = set()
        self.replaced: dict[tuple[str, Size], str] = {}
        self.private: dict[str, int] = {}
        self.spread: str | None = None

    # ---- sizes

    def size(self, size: Size) -> str:
        """`size` as an expression of type i64 (or a small constant)."""
        if type(size) is int:
            return str(size) if abs(size) < 1 << 31 else f"{size}ll"
        assert type(size) is Dim
        text = ""
        for monomial, factor in sorted(size.terms.items(), key=lambda term: (-len(term[0]), term[0])):
            factors = [self._atom(atom) for atom in monomial]
            if abs(factor) != 1 or not factors:
                factors.append(self.size(abs(factor)))
            sign = "-" if factor < 0 else "+"
            text += f" {sign} {' * '.join(factors)}" if text else ("-" if factor < 0 else "") + " * ".join(factors)
        return text

    def _atom(self, atom: Atom) -> str:
        if atom.kind == "symbol":
            name = self.names[str(atom)]
            return f"(i64){name}" if str(atom) in self.narrow else name
        a, b = atom.args
        left, right = self.size(a), self.size(b)
        if atom.kind in ("min", "max"):
            return f"{_EXTREMA[atom.kind]}<i64>({left}, {right})"
        if type(b) is Dim:
            right = f"at_least_one({right})"  # the divisor of an empty size is 0: nothing is read, but it may not trap
        low = bounds(a)[0]
        if low is not None and low >= 0:
            return f"(({left}) {'/' if atom.kind == '//' else '%'} {right})"
        return f"{'floor_divide' if atom.kind == '//' else 'floor_modulo'}({left}, {right})"

    # ---- values

    def value(self, expr: Expr) -> str:
        """`expr` as an expression of its dtype's type.  Raises IRError for a function that is not primitive."""
        match expr:
            case Const(value, dtype):
                return literal(value, dtype)
            case Var(name, _):
                return self.names[name]
            case Index(size, dtype):
                text = self.size(size)
                if dtype is int64:
                    return f"i64({text})"
                return f"cast<{dtype.short}>(i64({text}))"
            case Load(buffer, offset, _):
                found = self.replaced.get((buffer, offset))
                return found if found is not None else self.place(buffer, offset)
            case Call():
                return self._call(expr)

    def place(self, buffer: str, offset: Size) -> str:
        """The element of `buffer` at `offset`, to read or to assign."""
        modulus = self.private.get(buffer)
        if modulus is not None:
            return f"{self.names[buffer]}[{self._own_index(offset, modulus)}]"
        return f"{self.names[buffer]}[{self.size(offset)}]"

    def _own_index(self, offset: Size, modulus: int) -> str:
        """Where a lane keeps the element at `offset` among its own (see `accesses.lane_owned`)."""
        if modulus == LANES or self.spread is None:
            return f"(u64)({self.size(offset)}) / {LANES}"
        groups = substitute(offset, {self.spread: 0}) // modulus
        if modulus < LANES:
            return self.size(groups)
        return f"{self.size(groups * own_count(modulus, modulus))} + (u64){self.names[self.spread]} / {LANES}"

    def _call(self, call: Call) -> str:
        fn, operand = call.fn, call.args[-1].dtype
        args = [self.value(arg) for arg in call.args]
        if fn in ("cast", "bitcast"):
            return f"{fn}<{call.dtype.short}>({args[0]})"
        if fn == "select":
            return f"({args[0]} ? {args[1]} : {args[2]})"
        if operand.kind == "f" and operand.itemsize == 2:
            raise IRError(f"cuda: {fn} of {operand.short}: 16-bit floats are only converted, selected and moved")
        if fn in _COMPARISONS:
            return f"({args[0]} {_COMPARISONS[fn]} {args[1]})"
        if fn in _EXTREMA:
            return f"{_EXTREMA[fn]}({', '.join(args)})"
        text = self._float_call(fn, args) if operand.kind == "f" else self._integer_call(fn, args, operand)
        if text is None:
            raise IRError(f"cuda: {fn} of {operand.short} is not primitive (mathlib.expand opens other functions)")
        return text

    def _float_call(self, fn: str, args: list[str]) -> str | None:
        if fn in _FLOAT_OPERATORS:
            return f"({args[0]} {_FLOAT_OPERATORS[fn]} {args[1]})"
        if fn == "neg":
            return f"(-{args[0]})"
        return f"{_FLOAT_FUNCTIONS[fn]}({', '.join(args)})" if fn in _FLOAT_FUNCTIONS else None

    def _integer_call(self, fn: str, args: list[str], dtype: DType) -> str | None:
        if fn in _BITWISE:
            return f"({dtype.short})({args[0]} {_BITWISE[fn]} {args[1]})"
        if fn == "not":
            return f"(!{args[0]})" if dtype is bool_ else f"({dtype.short})(~{args[0]})"
        return f"{_INTEGER_FUNCTIONS[fn]}({', '.join(args)})" if fn in _INTEGER_FUNCTIONS else None
