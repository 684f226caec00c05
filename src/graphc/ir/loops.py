"""The loop IR: what one kernel does, element by element.  Five expressions, nine statements, all immutable.

Enters: nothing (nouns only).  Leaves: `Kernel`.  Never here: scheduling decisions, target code.

Integer arithmetic on sizes and loop indices is `int | Dim` (graphc.dims); a loop variable or a `Let` name of an
integer value may appear in a Dim as a symbol of that name.  Arithmetic on elements is `Expr`.  Every expression carries the
dtype of its value.  Buffers are flat: a `Load`/`Store` offset counts elements from the buffer's first.

Reduction order (the definition; every renderer keeps it bit for bit on CPU).  A ``lanes`` loop over n elements has
LANES = 32 virtual lanes and blocks of BLOCK = 4096 elements.  Within a block, element k is folded into lane k % 32 in
order of k, each lane starting at the accumulator's identity; then lanes are folded in halves (l with l+16, then +8, +4, +2, +1).
Block results are folded in order: ((b0 . b1) . b2) ...  A matmul element is one chain of fma in order of k from 0.0 inside
each block of K_BLOCK = 512, block results added in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from graphc.dims import Dim
from graphc.dtypes import DType, int64

LANES = 32
BLOCK = 4096
K_BLOCK = 512

Size = int | Dim


# ---- expressions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Const:
    """A literal.  Floats are exact Python floats, rounded to dtype once by the renderer."""

    value: bool | int | float
    dtype: DType

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and self.dtype is other.dtype and repr(self.value) == repr(other.value)  # 0.0 is not -0.0

    def __hash__(self) -> int:
        return hash((self.value, self.dtype))


@dataclass(frozen=True, slots=True)
class Var:
    """A `Let`-bound value or, after its loop, an accumulator's folded result."""

    name: str
    dtype: DType


@dataclass(frozen=True, slots=True)
class Index:
    """A size or loop index expression as an integer value."""

    value: Size
    dtype: DType = int64


@dataclass(frozen=True, slots=True)
class Load:
    """buffer[offset]; dtype is the buffer's storage dtype."""

    buffer: str
    offset: Size
    dtype: DType


@dataclass(frozen=True, slots=True)
class Call:
    """A scalar function of FUNCTIONS (or one that `codegen.mathlib.expand` opens into those)."""

    fn: str
    args: tuple[Expr, ...]
    dtype: DType


Expr = Const | Var | Index | Load | Call

# ---- statements -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Let:
    """Bind a value; visible in the rest of the enclosing body, bound once."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Alloc:
    """Thread-private scratch of `size` elements (static), contents undefined.  kind ``registers`` promises static offsets."""

    buffer: str
    dtype: DType
    size: int
    kind: Literal["stack", "registers"] = "stack"


@dataclass(frozen=True, slots=True)
class Store:
    """buffer[offset] = value; value.dtype is the buffer's storage dtype.

    stream: nothing reads it soon, so a renderer may keep it out of the caches.  It says nothing of what is stored.
    """

    buffer: str
    offset: Size
    value: Expr
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Acc:
    """Declare an accumulator, folded with `fn` (a key of IDENTITY) by `Update`s in the next ``lanes`` loop of this body."""

    name: str
    fn: str
    dtype: DType


@dataclass(frozen=True, slots=True)
class Update:
    """Fold `value` into accumulator `name`, in the tree order above.  Only directly inside a ``lanes`` loop."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Check:
    """Record failure `code` in the status word where `condition` is false; execution goes on (indices are clamped)."""

    condition: Expr
    code: int


@dataclass(frozen=True, slots=True)
class Prefetch:
    """buffer[offset] will be read soon.  It may lie beyond the buffer's end; nothing is computed."""

    buffer: str
    offset: Size
    dtype: DType


@dataclass(frozen=True, slots=True)
class Transpose:
    """target[target_at + c * target_step + r] = source[source_at + r * source_step + c] for all r < rows, c < columns,
    converted from `source_dtype` to `dtype`, in any order; `plain` writes the loops, whose variables begin with `name`.

    ahead: so many columns further on, rows will be read soon.  stream: as in a `Store`."""

    name: str
    target: str
    target_at: Size
    target_step: Size
    source: str
    source_at: Size
    source_step: Size
    rows: Size
    columns: Size
    dtype: DType
    source_dtype: DType
    ahead: int = 0
    stream: bool = False


LoopKind = Literal["parallel", "serial", "vector", "lanes", "unroll", "tile"]


@dataclass(frozen=True, slots=True)
class For:
    """for var in range(extent): body.

    parallel: iterations independent, split over threads; only as the single top-level statement of a kernel.
    serial:   in order.
    vector:   iterations independent and innermost (no loop inside); any lane count, any tail strategy.
    lanes:    innermost reduction loop with Updates (and independent Stores) in it.
    unroll:   serial, static extent, written out by the renderer.
    tile:     vector with a static extent, written out by the renderer (register tiles).
    """

    var: str
    extent: Size
    kind: LoopKind
    body: tuple[Stmt, ...]


Stmt = Let | Alloc | Store | Acc | Update | Check | Prefetch | Transpose | For

# ---- kernels ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Param:
    """A kernel argument.  role ``in``/``out``/``inout``: a flat buffer of `dtype`.  role ``size``: an integer, used in Dims by
    its name.  Distinct buffer parameters never overlap unless the very same buffer is both read and written at equal offsets."""

    name: str
    role: Literal["in", "out", "inout", "size"]
    dtype: DType
    size: Size = 1


@dataclass(frozen=True, slots=True)
class Kernel:
    """A named loop program.  `grain`: least number of parallel iterations worth a thread of its own, over the size parameters."""

    name: str
    params: tuple[Param, ...]
    body: tuple[Stmt, ...]
    grain: Size = 1

    def renamed(self, name: str) -> Kernel:
        return replace(self, name=name)

    def __str__(self) -> str:
        return "\n".join(_kernel_lines(self))


# ---- the table of a compiled program ------------------------------------------------------------------------------------
# A program's entry takes one table of 8-byte slots: the address of its status word, the number of threads, then buffer addresses
# and sizes, and last, where operators run on the host, the address of ``void callback(table, number)``.

ENTRY = "graphc_main"
STATUS_SLOT = 0
THREADS_SLOT = 1
FIRST_SLOT = 2
HOST_FAILED = -1  # the status that a host call leaves when it raised


@dataclass(frozen=True, slots=True)
class KernelStep:
    """A kernel's name and the slot of each parameter.   joins: it may run while the step before does."""

    kernel: str
    slots: tuple[int, ...]
    joins: bool = False


@dataclass(frozen=True, slots=True)
class HostStep:
    """Between the kernels of a program: the operator `op` is run by the host, as the plan's host call `number`."""

    op: str
    number: int


@dataclass(frozen=True, slots=True)
class ControlStep:
    """Between the kernels of a program: ``if SLOT``, ``else``, ``end if``, ``loop``, ``while SLOT``, ``end loop``.

    What stands after ``if`` runs where the bool in that buffer is true, what stands after ``else`` where it is not.  From ``loop``
    on everything is run again and again, until the bool of ``while`` is false: then what follows ``end loop`` is next.
    """

    kind: Literal["if", "else", "end if", "loop", "while", "end loop"]
    slot: int = 0


# ---- the scalar functions every renderer has, after mathlib.expand -------------------------------------------------------
# Arithmetic is IEEE-754 round-to-nearest-even and never contracted or reassociated; integers wrap.
# min/max of floats: the NaN operand if there is one (the first if both), else select(a OP b, a, b).

FUNCTIONS: dict[str, int] = {
    # name: number of arguments
    "add": 2, "sub": 2, "mul": 2, "div": 2, "neg": 1, "abs": 1, "sqrt": 1, "fma": 3,
    "floor": 1, "ceil": 1, "trunc": 1, "round": 1, "copysign": 2,
    "scale": 2,  # x * 2**n rounded once; n: whole, of x's dtype, within twice its exponents; 1/4 <= abs(x) <= 4
    "max": 2, "min": 2,
    "eq": 2, "ne": 2, "lt": 2, "le": 2, "gt": 2, "ge": 2,  # -> bool
    "and": 2, "or": 2, "xor": 2, "not": 1,  # bool and integers, bitwise
    "shl": 2, "shr": 2,  # shr: arithmetic for signed, logical for unsigned; shift counts in range
    "select": 3,  # bool, then, else
    "cast": 1,  # value conversion: float->int truncates and saturates, NaN -> 0; int wraps; float->bool: != 0
    "bitcast": 1,  # same width
    "idiv": 2,  # truncating integer division; divisor must not be 0 (callers select it away); min / -1 wraps
}  # fmt: skip

# fold functions of accumulators and their identities
IDENTITY: dict[str, float | int | bool] = {
    "add": 0, "mul": 1, "max": float("-inf"), "min": float("inf"), "and": True, "or": False,
}  # fmt: skip


def identity(fn: str, dtype: DType) -> Const:
    """The starting value of an accumulator: integer min/max use the dtype's range."""
    value = IDENTITY[fn]
    if fn in ("max", "min") and dtype.kind in "iu":
        bits, signed = 8 * dtype.itemsize, dtype.kind == "i"
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        value = low if fn == "max" else high
    elif fn in ("max", "min") and dtype.kind == "b":
        value = fn == "min"
    elif dtype.kind == "f":
        value = float(value)
    return Const(value, dtype)


def walk(body: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """Every statement of `body`, depth first."""
    stack = list(reversed(body))
    while stack:
        statement = stack.pop()
        yield statement
        if isinstance(statement, For):
            stack.extend(reversed(statement.body))


def plain(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """`body` with its transposed copies as loops, for renderers that have nothing better."""
    result: list[Stmt] = []
    for statement in body:
        if isinstance(statement, Transpose):
            r, c, moved = _one_element(statement)
            statement = For(r, statement.rows, "serial", (For(c, statement.columns, "vector", (moved,)),))
        elif isinstance(statement, For):
            statement = replace(statement, body=plain(statement.body))
        result.append(statement)
    return tuple(result)


def _one_element(statement: Transpose) -> tuple[str, str, Store]:
    """The loop variables of a transposed copy, and what it does with one element."""
    r, c = f"{statement.name}r", f"{statement.name}c"
    source = statement.source_at + Dim.symbol(r) * statement.source_step + Dim.symbol(c)
    value: Expr = Load(statement.source, source, statement.source_dtype)
    if statement.dtype is not statement.source_dtype:
        value = Call("cast", (value,), statement.dtype)
    target = statement.target_at + Dim.symbol(c) * statement.target_step + Dim.symbol(r)
    return r, c, Store(statement.target, target, value, statement.stream)


def show(expr: Expr) -> str:
    """One-line text of an expression."""
    match expr:
        case Const(value, dtype):
            text = ("true" if value else "false") if isinstance(value, bool) else repr(value)
            return f"{text}:{dtype.short}"
        case Var(name, _):
            return name
        case Index(value, dtype):
            return f"index({value}):{dtype.short}"
        case Load(buffer, offset, _):
            return f"{buffer}[{offset}]"
        case Call(fn, args, dtype):
            suffix = f":{dtype.short}" if fn in ("cast", "bitcast") else ""
            return f"{fn}({', '.join(map(show, args))}){suffix}"


def _kernel_lines(kernel: Kernel) -> Iterator[str]:
    params = ", ".join(f"{p.role} {p.name}: {p.dtype.short}" + ("" if p.role == "size" else f"[{p.size}]") for p in kernel.params)
    yield f"kernel @{kernel.name}({params}) {{"
    yield from _body_lines(kernel.body, "  ")
    yield "}"


def _body_lines(body: tuple[Stmt, ...], pad: str) -> Iterator[str]:
    for statement in body:
        match statement:
            case Let(name, value):
                yield f"{pad}{name} = {show(value)}"
            case Alloc(buffer, dtype, size, kind):
                yield f"{pad}{kind} {buffer}: {dtype.short}[{size}]"
            case Store(buffer, offset, value, stream):
                yield f"{pad}{'stream ' if stream else ''}{buffer}[{offset}] = {show(value)}"
            case Acc(name, fn, dtype):
                yield f"{pad}acc {name}: {dtype.short} = {fn}"
            case Update(name, value):
                yield f"{pad}{name} <- {show(value)}"
            case Check(condition, code):
                yield f"{pad}check {show(condition)} else {code}"
            case Prefetch(buffer, offset, _):
                yield f"{pad}prefetch {buffer}[{offset}]"
            case Transpose():
                r, c, moved = _one_element(statement)
                yield f"{pad}transpose {r} < {statement.rows}, {c} < {statement.columns} {{"
                yield from _body_lines((moved,), pad + "  ")
                yield f"{pad}}}"
            case For(var, extent, kind, inner):
                yield f"{pad}{kind} {var} < {extent} {{"
                yield from _body_lines(inner, pad + "  ")
                yield f"{pad}}}"
