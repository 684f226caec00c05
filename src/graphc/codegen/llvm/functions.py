"""The scalar functions of the loop IR as LLVM instructions, on scalars and vectors alike.

Enters: a name of `loops.FUNCTIONS` and operand values.  Leaves: the result value.  Never here: memory, control flow.

Exactly the semantics written there: no fast-math flag, no library call, no trap.
"""

from __future__ import annotations

from graphc.codegen.llvm.emit import Emitter, Value, integer, literal, mangled
from graphc.dtypes import DType, bool_, float16, float32, int16, int32, int64
from graphc.errors import IRError

_ARITHMETIC = {"add": ("fadd", "add"), "sub": ("fsub", "sub"), "mul": ("fmul", "mul"), "div": ("fdiv", "")}
_BITWISE = {"and": "and", "or": "or", "xor": "xor"}
_ROUNDING = {"sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "roundeven"}
_COMPARISONS = {"eq": ("oeq", "eq"), "ne": ("une", "ne"), "lt": ("olt", "lt"), "le": ("ole", "le"), "gt": ("ogt", "gt"),
                "ge": ("oge", "ge")}  # fmt: skip


def apply(emit: Emitter, fn: str, args: tuple[Value, ...], dtype: DType) -> Value:
    """The value of ``fn(*args)`` as `dtype`.  Raises IRError for a function that is not primitive."""
    a = args[0]
    floating = a.dtype.kind == "f"
    if fn in _ARITHMETIC:
        return emit.binary(_ARITHMETIC[fn][0 if floating else 1], a, args[1])
    if fn == "fma":
        return emit.intrinsic("fma", a.dtype, *args)
    if fn in ("max", "min"):
        return _extremum(emit, fn, a, args[1])
    if fn in _COMPARISONS:
        return emit.binary(_comparison(fn, a.dtype), a, args[1], bool_)
    if fn == "select":
        return emit.select(a, args[1], args[2])
    if fn == "cast":
        return cast(emit, a, dtype)
    if fn == "bitcast":
        return a._replace(dtype=dtype) if _same_register(a.dtype, dtype) else emit.convert("bitcast", a, dtype)
    if fn in _BITWISE:
        return emit.binary(_BITWISE[fn], a, args[1])
    if fn == "not":
        return emit.binary("xor", a, literal(True, bool_) if a.dtype is bool_ else literal(-1, a.dtype))
    if fn in ("shl", "shr"):
        opcode = "shl" if fn == "shl" else "ashr" if a.dtype.kind == "i" else "lshr"
        return emit.binary(opcode, a, args[1])
    if fn == "idiv":
        return divide(emit, a, args[1])
    if fn == "neg":
        return _negate(emit, a)
    if fn == "abs":
        return _absolute(emit, a)
    if fn == "copysign":
        return _copysign(emit, a, args[1])
    if fn == "scale":
        return _scale(emit, a, args[1])
    if fn in _ROUNDING:
        return emit.intrinsic(_ROUNDING[fn], a.dtype, a) if floating else a
    raise IRError(f"llvm: {fn} is not a primitive function (mathlib.expand opens the others)")


def _copysign(emit: Emitter, a: Value, b: Value) -> Value:
    """By bits: LLVM moves a rounding to float16 into both operands of its own, and no routine rounds the float64 sign."""
    integers, sign = (int32, -(1 << 31)) if a.dtype.itemsize == 4 else (int64, -(1 << 63))
    magnitude = emit.binary("and", emit.convert("bitcast", a, integers), literal(~sign, integers))
    signed = emit.binary("and", emit.convert("bitcast", b, integers), literal(sign, integers))
    return emit.convert("bitcast", emit.binary("or", magnitude, signed), a.dtype)


def _scale(emit: Emitter, a: Value, n: Value) -> Value:
    """a * 2**n: one instruction, or two factors that are normal numbers, of which the second rounds."""
    a, n = emit.widen(a, n)
    native = 64 // a.dtype.itemsize
    if emit.scales and a.width % native == 0:
        return emit.joined([_scale_vector(emit, *(emit.part(v, at, native) for v in (a, n))) for at in range(0, a.width, native)])
    integers, bits, bias = (int32, 23, 127) if a.dtype.itemsize == 4 else (int64, 52, 1023)
    shifted = emit.binary("fadd", n, literal(1.5 * 2.0**bits + 2 * bias, a.dtype))  # the low bits are n + 2 * bias
    biased = emit.convert("bitcast", shifted, integers)
    half = emit.binary("lshr", biased, literal(1, integers))
    for part in (half, emit.binary("sub", biased, half)):
        power = emit.convert("bitcast", emit.binary("shl", part, literal(bits, integers)), a.dtype)
        a = emit.binary("fmul", a, power)
    return a


def _scale_vector(emit: Emitter, a: Value, n: Value) -> Value:
    suffix, mask = ("ps", "i16") if a.dtype.itemsize == 4 else ("pd", "i8")
    operands = f"{a.type} {a.text}, {n.type} {n.text}, {a.type} zeroinitializer, {mask} -1, i32 4"
    return emit.op(f"call {a.type} @llvm.x86.avx512.mask.scalef.{suffix}.512({operands})", a.dtype, a.width, (a, n))


def _same_register(a: DType, b: DType) -> bool:
    return a is b or (a.itemsize == b.itemsize and all(d.kind in "iu" or d.itemsize == 2 for d in (a, b)))


def _comparison(fn: str, dtype: DType) -> str:
    if dtype.kind == "f":
        return f"fcmp {_COMPARISONS[fn][0]}"
    sign = "" if fn in ("eq", "ne") else "s" if dtype.kind == "i" else "u"
    return f"icmp {sign}{_COMPARISONS[fn][1]}"


def _extremum(emit: Emitter, fn: str, a: Value, b: Value) -> Value:
    if a.dtype.kind == "b":
        return emit.binary("or" if fn == "max" else "and", a, b)
    if a.dtype.kind != "f":
        return emit.intrinsic(("s" if a.dtype.kind == "i" else "u") + fn, a.dtype, a, b)
    # The inner select is one maxps/minps: it gives b where either is NaN.
    chosen = emit.select(emit.binary(f"fcmp {'ogt' if fn == 'max' else 'olt'}", a, b, bool_), a, b)
    return emit.select(emit.binary("fcmp uno", a, a, bool_), a, chosen)


def _negate(emit: Emitter, a: Value) -> Value:
    if a.dtype.kind == "f":
        return emit.op(f"fneg {a.type} {a.text}", a.dtype, a.width, (a,))
    return emit.binary("sub", literal(0, a.dtype), a)


def _absolute(emit: Emitter, a: Value) -> Value:
    if a.dtype.kind == "f":
        return emit.intrinsic("fabs", a.dtype, a)
    return emit.intrinsic("abs", a.dtype, a, extra=", i1 false") if a.dtype.kind == "i" else a


def divide(emit: Emitter, a: Value, b: Value) -> Value:
    """Truncating a / b; never traps: b = 0 gives a, and min / -1 wraps."""
    opcode = "sdiv" if a.dtype.kind == "i" else "udiv"
    if b.is_literal and b.width == 1 and b.text not in ("0", "-1"):
        return emit.binary(opcode, a, b)
    zero, one = literal(0, b.dtype), literal(1, b.dtype)
    unsafe = emit.binary("icmp eq", b, zero, bool_)
    if a.dtype.kind != "i":
        return emit.binary(opcode, a, emit.select(unsafe, one, b))
    minus = emit.binary("icmp eq", b, literal(-1, b.dtype), bool_)
    quotient = emit.binary(opcode, a, emit.select(emit.binary("or", unsafe, minus), one, b))
    return emit.select(minus, emit.binary("sub", zero, a), quotient)


# ---- conversions ---------------------------------------------------------------------------------------------------


def cast(emit: Emitter, a: Value, dtype: DType) -> Value:
    """Value conversion; to and from 16-bit floats it goes through float32."""
    source = a.dtype
    if source is dtype:
        return a
    if source.kind == "f" and source.itemsize == 2:
        return cast(emit, _widen_half(emit, a), dtype)
    if dtype.kind == "b":
        zero = literal(0, source)
        return emit.binary("fcmp une" if source.kind == "f" else "icmp ne", a, zero, bool_)
    if dtype.kind == "f" and dtype.itemsize == 2:
        return _narrow_half(emit, cast(emit, a, float32), dtype)
    if source.kind == "f":
        if dtype.kind == "f":
            return emit.convert("fpext" if dtype.itemsize > source.itemsize else "fptrunc", a, dtype)
        return _saturate(emit, a, dtype)
    if dtype.kind == "f":
        return emit.convert("sitofp" if source.kind == "i" else "uitofp", a, dtype)
    if source.kind != "b" and dtype.itemsize == source.itemsize:
        return a._replace(dtype=dtype)
    if source.kind != "b" and dtype.itemsize < source.itemsize:
        return emit.convert("trunc", a, dtype)
    return emit.convert("sext" if source.kind == "i" else "zext", a, dtype)


def _saturate(emit: Emitter, a: Value, dtype: DType) -> Value:
    result = a._replace(dtype=dtype).type
    sign = "s" if dtype.kind == "i" else "u"
    names = ".".join(mangled(t) for t in (result, a.type))
    return emit.op(f"call {result} @llvm.fpto{sign}i.sat.{names}({a.type} {a.text})", dtype, a.width, (a,))


def _half_type(width: int) -> str:
    return "half" if width == 1 else f"<{width} x half>"


def _widen_half(emit: Emitter, a: Value) -> Value:
    if a.dtype is float16:
        bits = emit.op(f"bitcast {a.type} {a.text} to {_half_type(a.width)}", a.dtype, a.width, (a,))
        wide = a._replace(dtype=float32).type
        return emit.op(f"fpext {_half_type(a.width)} {bits.text} to {wide}", float32, a.width, (bits,))
    wide_bits = emit.binary("shl", emit.convert("zext", a, int32), literal(16, int32))
    return emit.convert("bitcast", wide_bits, float32)


def _narrow_half(emit: Emitter, a: Value, dtype: DType) -> Value:
    if dtype is float16:
        half = emit.op(f"fptrunc {a.type} {a.text} to {_half_type(a.width)}", dtype, a.width, (a,))
        result = a._replace(dtype=dtype).type
        return emit.op(f"bitcast {_half_type(a.width)} {half.text} to {result}", dtype, a.width, (half,))
    # bfloat16: round to nearest even on the bits; a NaN keeps its upper half, made quiet.
    bits = emit.convert("bitcast", a, int32)
    upper = emit.binary("lshr", bits, literal(16, int32))
    odd = emit.binary("and", upper, literal(1, int32))
    rounded = emit.binary("add", emit.binary("add", bits, literal(0x7FFF, int32)), odd)
    rounded = emit.binary("lshr", rounded, literal(16, int32))
    quiet = emit.binary("or", upper, literal(0x40, int32))
    chosen = emit.select(emit.binary("fcmp uno", a, a, bool_), quiet, rounded)
    return emit.convert("trunc", chosen, int16)._replace(dtype=dtype)


def floor_divide(emit: Emitter, a: Value, b: Value, nonnegative: bool) -> Value:
    """floor(a / b) of 64-bit indices, b > 0; b = 0 (an empty size) does not trap."""
    b = _positive(emit, b)
    if nonnegative:
        return emit.binary("udiv", a, b)
    quotient = emit.binary("sdiv", a, b)
    below = emit.binary("icmp slt", emit.binary("srem", a, b), integer(0), bool_)
    return emit.binary("add", quotient, emit.convert("sext", below, int64))


def floor_modulo(emit: Emitter, a: Value, b: Value, nonnegative: bool) -> Value:
    """a - b * floor(a / b) of 64-bit indices, b > 0."""
    b = _positive(emit, b)
    if nonnegative:
        return emit.binary("urem", a, b)
    remainder = emit.binary("srem", a, b)
    below = emit.binary("icmp slt", remainder, integer(0), bool_)
    return emit.select(below, emit.binary("add", remainder, b), remainder)


def _positive(emit: Emitter, b: Value) -> Value:
    return b if b.is_literal else emit.intrinsic("smax", int64, b, integer(1))
