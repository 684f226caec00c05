"""Elementwise functions about the make of numbers: signs, neighbours, parts, greatest common divisors, and their like.

Enters: tensors.  Leaves: operators.  Never here: arithmetic, logarithms, special functions.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np

from graphc.dtypes import DType, bool_, int32, int64
from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Host, Op, TensorType, broadcast_shapes
from graphc.ops.arguments import constant, gradient_in_compute_dtype, number, promoted, same_dtype, tensor, zeros_like
from graphc.ops.arithmetic import div, kept, mul
from graphc.ops.comparison import cast, eq, ge, isfinite, isnan, le, logical_not, logical_or, ne, where
from graphc.ops.declare import EVERY, FLOATING, INTEGERS, NUMERIC, Shorthand, call, fill
from graphc.ops.elementwise import BINARY, UNARY, Prepared, binary_samples, elementwise
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import select
from graphc.ops.transcendental import exp2, pow_

# ---- signs ---------------------------------------------------------------------------------------------------------


def _is_negative(x: Expr) -> Expr:
    """Whether x carries a minus sign: of -0.0 and of NaN too."""
    if x.dtype.kind == "f":
        return fn("lt", fn("copysign", literal(1, x.dtype), x), literal(0, x.dtype))
    return fn("lt", x, literal(0, x.dtype)) if x.dtype.kind == "i" else literal(False, bool_)


signbit = elementwise(
    "signbit",
    ("x",),
    doc="Whether x carries a minus sign, of -0.0 too.  [...] -> bool [...].",
    rule=_is_negative,
    reference=lambda xp, x: xp.signbit(x) if x.dtype.kind == "f" else x < 0,
    grad=None,
    result="bool",
    dtypes=EVERY,
    samples=UNARY[:-1],
    functions=("signbit",),
)


def _one_infinity(name: str, value: float) -> Op:
    return elementwise(
        name,
        ("x",),
        doc=f"Whether x is {value}.  [...] -> bool [...].",
        rule=lambda x: fn("eq", x, literal(value, x.dtype)) if x.dtype.kind == "f" else literal(False, bool_),
        reference=lambda xp, x: x == value if x.dtype.kind == "f" else xp.zeros(x.shape, bool),
        grad=None,
        result="bool",
        dtypes=EVERY,
    )


isposinf = _one_infinity("isposinf", math.inf)
isneginf = _one_infinity("isneginf", -math.inf)


def _copysign_grad(g: Any, out: Any, x: Any, other: Any) -> tuple[Any, Any]:
    zero = eq(x, 0)
    ratio = div(out, where(zero, constant(1, x.dtype), x))
    return mul(g, where(zero, constant(0, x.dtype), ratio)), zeros_like(g)


copysign = elementwise(
    "copysign",
    ("x", "other"),
    doc="The size of x with the sign of other.  [...] , [...] -> broadcast.",
    rule="copysign",
    reference="copysign",
    grad=gradient_in_compute_dtype(_copysign_grad),
    kinds="f",
    promotion="float",
    samples=BINARY[:-1],
    inplace=True,
    strict=1,
)
heaviside = elementwise(
    "heaviside",
    ("x", "values"),
    doc="0 where x < 0, values where x == 0, 1 where x > 0.  [...] , [...] -> broadcast.",
    rule=lambda x, values: (
        select(
            fn("eq", x, literal(0, x.dtype)),
            values,
            select(fn("lt", x, literal(0, x.dtype)), literal(0, x.dtype), literal(1, x.dtype)),
        )
        if x.dtype is not bool_
        else fn("or", x, values)
    ),
    reference=lambda xp, x, values: xp.where(x == 0, values, xp.where(x < 0, 0, 1)).astype(x.dtype),
    grad=None,
    dtypes=NUMERIC,
    prepare=lambda x, values: (_of_one_dtype("heaviside", x, values), {}),
    signature="(x, values)",
    inplace=True,
    samples=BINARY[:-2],
)


def _of_one_dtype(name: str, x: Any, other: Any) -> tuple[Any, Any]:
    """Two tensors that PyTorch does not promote.  Raises RuntimeError."""
    x, other = tensor(name, "x", x), tensor(name, "values", other)
    if x.dtype is not other.dtype:
        raise RuntimeError(f"{name}: is not yet implemented for tensors with different dtypes, got {x.dtype} and {other.dtype}")
    return x, other


# ---- the greater and the lesser, NaN ignored -----------------------------------------------------------------------


def _ignoring_nan(name: str, primitive: str, doc: str) -> Op:
    beats = ge if primitive == "max" else le

    def rule(x: Expr, other: Expr) -> Expr:
        if x.dtype.kind == "b":
            return fn("or" if primitive == "max" else "and", x, other)
        chosen = fn(primitive, x, other)
        if x.dtype.kind != "f":
            return chosen
        return select(fn("ne", x, x), other, select(fn("ne", other, other), x, chosen))

    def grad(g: Any, out: Any, x: Any, other: Any) -> tuple[Any, Any]:
        chosen = logical_or(beats(x, other), isnan(other))
        return kept(chosen, g), kept(logical_not(chosen), g)

    return elementwise(
        name,
        ("x", "other"),
        doc=f"{doc}, the other where one is NaN.  [...] , [...] -> broadcast.",
        rule=rule,
        reference=name,
        grad=grad,
        dtypes=EVERY,
        strict=2,
    )


fmax = _ignoring_nan("fmax", "max", "The greater")
fmin = _ignoring_nan("fmin", "min", "The lesser")


def _hypot_grad(g: Any, out: Any, x: Any, other: Any) -> tuple[Any, Any]:
    return mul(g, div(x, out)), mul(g, div(other, out))


hypot = elementwise(
    "hypot",
    ("x", "other"),
    doc="sqrt(x*x + other*other) without overflow.  [...] , [...] -> broadcast.",
    rule=lambda x, other: fn("hypot", x, other),
    reference="hypot",
    grad=gradient_in_compute_dtype(_hypot_grad),
    kinds="f",
    dtypes=FLOATING,
    samples=binary_samples(0.3, 2.0),
    inplace=True,
    strict=2,
)

# ---- NaN and infinities replaced -----------------------------------------------------------------------------------


def _limits(dtype: DType) -> tuple[float, float]:
    info: Any = ml_dtypes.finfo(dtype.numpy)  # type: ignore[no-untyped-call]
    return float(info.max), float(info.min)


def _nan_to_num_prepare(x: Any, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Prepared:
    x = tensor("nan_to_num", "x", x)
    greatest, least = _limits(x.dtype) if x.dtype.kind == "f" else (0.0, 0.0)
    given = {"nan": 0.0 if nan is None else nan, "posinf": greatest if posinf is None else posinf}
    given["neginf"] = least if neginf is None else neginf
    return (x,), {k: float(number("nan_to_num", k, v)) for k, v in given.items()}


def _nan_to_num_rule(x: Expr, nan: float, posinf: float, neginf: float) -> Expr:
    if x.dtype.kind != "f":
        return x
    result = select(fn("eq", x, literal(math.inf, x.dtype)), literal(posinf, x.dtype), x)
    result = select(fn("eq", x, literal(-math.inf, x.dtype)), literal(neginf, x.dtype), result)
    return select(fn("ne", x, x), literal(nan, x.dtype), result)


def _nan_to_num_reference(xp: Any, x: Any, nan: float, posinf: float, neginf: float) -> Any:
    if x.dtype.kind != "f":
        return xp.array(x)
    result = xp.where(xp.isnan(x), nan, xp.where(x == math.inf, posinf, xp.where(x == -math.inf, neginf, x)))
    return result.astype(x.dtype)


nan_to_num = elementwise(
    "nan_to_num",
    ("x",),
    doc="NaN, inf and -inf replaced by numbers: 0 and the dtype's limits unless given.  [...] -> [...].",
    signature="(x, nan=0.0, posinf=None, neginf=None)",
    prepare=_nan_to_num_prepare,
    rule=_nan_to_num_rule,
    reference=_nan_to_num_reference,
    grad=lambda g, out, x, nan, posinf, neginf: (kept(isfinite(x), g),),
    attrs={"nan": 0.0, "posinf": 0.0, "neginf": 0.0},
    dtypes=EVERY,
    samples=(*UNARY, call(fill(33, special=True), 1.0, 2.0, -3.0)),
    bad=(Bad((fill(2), "a"), TypeError, "nan_to_num: argument 'nan'"),),
    inplace=True,
)

# ---- parts of a number ---------------------------------------------------------------------------------------------


def _part(name: str, doc: str, which: int, grad: Any) -> Op:
    return elementwise(
        name,
        ("x",),
        doc=f"{doc}  [...] -> [...].",
        rule=lambda x: fn(name, x),
        reference=lambda xp, x: _frexp_array(xp, x)[which],
        grad=grad,
        kinds="f",
        dtypes=FLOATING,
        methods=(),
        functions=(),
    )


def _frexp_array(xp: Any, x: Any) -> tuple[Any, Any]:
    mantissa, exponent = xp.frexp(x)
    return mantissa, xp.where(xp.isfinite(x), exponent, 0).astype(x.dtype)


frexp_exponent = _part("frexp_exponent", "The e of x = m * 2**e with 1/2 <= |m| < 1.", 1, None)
frexp_mantissa = _part(
    "frexp_mantissa",
    "The m of x = m * 2**e with 1/2 <= |m| < 1.",
    0,
    gradient_in_compute_dtype(lambda g, out, x: (div(g, exp2(frexp_exponent(x))),)),
)


def _frexp(x: Any) -> tuple[Any, Any]:
    x = tensor("frexp", "x", x)
    if x.dtype.kind != "f":
        raise RuntimeError(f"frexp: only supports floating-point dtypes, got {x.dtype}")
    return frexp_mantissa(x), cast(frexp_exponent(x), int32)


frexp = Shorthand(
    "frexp",
    doc="(m, e) with x = m * 2**e and 1/2 <= |m| < 1; e is int32.  [...] -> [...], [...].",
    rule=_frexp,
    dtypes=FLOATING,
    samples=(call(fill(3, 4)), call(fill(33, special=True))),
    bad=(Bad((fill(2, dtype=int64),), RuntimeError, "frexp: only supports floating-point"),),
)


def _ldexp(x: Any, other: Any) -> Any:
    return mul(tensor("ldexp", "x", x), pow_(2.0, tensor("ldexp", "other", other)))


ldexp = Shorthand(
    "ldexp",
    doc="x * 2**other.  [...] , [...] -> broadcast.",
    rule=_ldexp,
    dtypes=NUMERIC,
    samples=(call(fill(3, 4), fill(4, low=-3.0, high=3.0, dtype=int32)), call(fill(3), fill())),
    bad=(Bad((fill(2), 1.0), TypeError, "ldexp: argument 'other' must be a Tensor"),),
    inplace=True,
)

# ---- angles --------------------------------------------------------------------------------------------------------


def _scaled(name: str, doc: str, factor: float) -> Op:
    return elementwise(
        name,
        ("x",),
        doc=f"{doc}  [...] -> [...].",
        rule=lambda x: fn("mul", x, literal(factor, x.dtype)),
        reference=lambda xp, x: x * x.dtype.type(factor),
        grad=lambda g, out, x: (mul(g, factor),),
        kinds="f",
        promotion="float",
        inplace=True,
    )


deg2rad = _scaled("deg2rad", "Degrees as radians.", math.pi / 180.0)
rad2deg = _scaled("rad2deg", "Radians as degrees.", 180.0 / math.pi)

# ---- on the host: no kernel has a loop that long -------------------------------------------------------------------


def _on_host(
    name: str, doc: str, kinds: str, dtypes: tuple[DType, ...], samples: tuple[Any, ...], reference: Any, grad: Any = None
) -> Op:
    def prepare(x: Any, other: Any) -> Prepared:
        return promoted(name, (x, other), ("x", "other")), {}

    def infer(x: TensorType, other: TensorType) -> TensorType:
        dtype = same_dtype(name, (x, other))
        if dtype.kind not in kinds:
            raise RuntimeError(f"{name}: not implemented for {dtype}: {x}, {other}")
        return TensorType(dtype, broadcast_shapes(name, (x.shape, other.shape)))

    return Op(
        name,
        doc=f"{doc}  [...] , [...] -> broadcast.",
        signature="(x, other)",
        prepare=prepare,
        infer=infer,
        reference=reference,
        grad=grad,
        lowering=Host(),
        dtypes=dtypes,
        samples=samples,
        bad=(Bad((fill(2, 3), fill(4)), RuntimeError, f"{name}: shapes .* do not broadcast"),),
        inplace=True,
        strict=2,
    )


_WHOLE = (call(fill(3, 4, low=-30, high=30), fill(4, low=-30, high=30)), call(fill(low=0, high=9), fill(5, low=0, high=9)))
gcd = _on_host("gcd", "The greatest common divisor.", "iu", INTEGERS, _WHOLE, lambda xp, x, other: np.gcd(x, other))
lcm = _on_host("lcm", "The least common multiple.", "iu", INTEGERS, _WHOLE, lambda xp, x, other: np.lcm(x, other))
nextafter = _on_host(
    "nextafter",
    "The number next to x in the direction of other.",
    "f",
    FLOATING,
    (call(fill(3, 4), fill(4)), call(fill(33, special=True, grad=False), fill(33, grad=False))),
    lambda xp, x, other: np.nextafter(x, other),
    lambda g, out, x, other: (kept(ne(x, other), g), kept(eq(x, other), g)),
)
