"""exp, log and what is made of them: float32 and float64 definitions of one shape, with a table of constants for each.

Enters, leaves: Terms (see `terms`).  Never here: a choice by machine or vector width.

The largest errors found stand in tests/test_mathlib.py: below 2 ULP everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.codegen import polynomials as p
from graphc.codegen.terms import (
    Term,
    at_least,
    at_most,
    copysign,
    equal,
    fma,
    function,
    polynomial,
    scale,
    select,
)
from graphc.dtypes import DType, float32, float64, uint32, uint64
from graphc.errors import IRError

INF, NAN = math.inf, math.nan


@dataclass(frozen=True)
class Format:
    """What the definitions need to know of a floating dtype."""

    dtype: DType
    integer: DType  # unsigned, of the same width
    fraction_bits: int
    bias: int
    smallest_normal: float
    root_half_bits: int  # the bits of the number nearest sqrt(1/2)
    ln2: tuple[float, float]  # high and low part
    exp_range: tuple[float, float]  # beyond it exp is 0 or inf
    exp2_range: tuple[float, float]
    expm1_floor: float  # below it expm1 is -1
    tanh_ceiling: float  # above it tanh is 1
    sigmoid_ceiling: float  # above it sigmoid is 1
    exp: tuple[float, ...]
    exp2: tuple[float, ...]
    tanh: tuple[float, ...]
    sinh: tuple[float, ...]

    @property
    def shifter(self) -> float:
        """Adding it rounds to an integer, which then stands in the low bits (unlike a cast, NaN does no harm)."""
        return 1.5 * 2.0**self.fraction_bits


FLOAT32 = Format(
    float32, uint32, 23, 127, 2.0**-126, 0x3F3504F3, (float.fromhex("0x1.62e43p-1"), float.fromhex("-0x1.05c61p-29")),
    (-104.0, 89.0), (-151.0, 129.0), -25.0, 10.0, 30.0,
    p.EXP_FLOAT32, p.EXP2_FLOAT32, p.TANH_FLOAT32, p.SINH_FLOAT32,
)  # fmt: skip
FLOAT64 = Format(
    float64, uint64, 52, 1023, 2.0**-1022, 0x3FE6A09E667F3BCD,
    (float.fromhex("0x1.62e42fefa39efp-1"), float.fromhex("0x1.abc9e3b39803fp-56")),
    (-746.0, 710.0), (-1076.0, 1025.0), -50.0, 20.0, 60.0,
    p.EXP_FLOAT64, p.EXP2_FLOAT64, p.TANH_FLOAT64, p.SINH_FLOAT64,
)  # fmt: skip
ERF_CENTRE = 2.5  # about where ERF_LARGE_FLOAT32 is a power series
LOG2_E = 1.4426950408889634


def format_of(x: Term) -> Format:
    """The Format of x's dtype.  Raises IRError for a dtype that no floating arithmetic is done in."""
    if x.dtype is float32:
        return FLOAT32
    if x.dtype is float64:
        return FLOAT64
    raise IRError(f"mathlib computes in float32 and float64, not in {x.dtype}")


# ---- exp ------------------------------------------------------------------------------------------------------------


def power_of_two(biased: Term, to: Format) -> Term:
    """2**k from an integer whose low bits are k + bias (higher bits are shifted out)."""
    return (biased << to.fraction_bits).bitcast(to.dtype)


def reduced(x: Term, to: Format, bias: int) -> tuple[Term, Term, Term]:
    """n = x / ln 2 rounded, r = x - n ln 2, and an integer whose low bits are n + bias."""
    shifter = to.shifter + bias
    shifted = fma(x, LOG2_E, shifter)
    n = shifted - shifter
    r = fma(n, -to.ln2[1], fma(n, -to.ln2[0], x))  # the first fma is exact
    return n, r, shifted.bitcast(to.integer)


def expm1_reduced(r: Term, to: Format) -> Term:
    """exp(r) - 1 for abs(r) <= ln(2) / 2."""
    return fma(r * r, polynomial(r, to.exp), r)


def exp_times(x: Term, to: Format, exponent: int) -> Term:
    """exp(x) * 2**exponent for x in exp_range."""
    n, r, _ = reduced(x, to, 0)
    value = fma(r, fma(r, polynomial(r, to.exp), 1.0), 1.0)
    return scale(value, n + float(exponent) if exponent else n)


def exp_in_range(x: Term, to: Format) -> Term:
    """exp(x) where the result is a normal number."""
    _, r, biased = reduced(x, to, to.bias)
    return (expm1_reduced(r, to) + 1.0) * power_of_two(biased, to)


@function("exp")
def exp(x: Term) -> Term:
    """e**x."""
    to = format_of(x)
    low, high = to.exp_range
    return exp_times(at_least(at_most(x, high), low), to, 0)


@function("exp2")
def exp2(x: Term) -> Term:
    """2**x."""
    to = format_of(x)
    low, high = to.exp2_range
    x = at_least(at_most(x, high), low)
    n = (x + to.shifter) - to.shifter
    r = x - n
    return scale(fma(r, polynomial(r, to.exp2), 1.0), n)


@function("expm1")
def expm1(x: Term) -> Term:
    """e**x - 1 without cancellation."""
    to = format_of(x)
    n, r, biased = reduced(at_least(at_most(x, to.exp_range[1]), to.expm1_floor), to, to.bias - 1)
    small = expm1_reduced(r, to)
    half_scale = power_of_two(biased, to)  # 2**(n - 1): 2**n itself may overflow
    half = fma(small, half_scale, half_scale - 0.5)
    return copysign(select(equal(n, 0.0), small, half + half), x)


@function("sigmoid")
def sigmoid(x: Term) -> Term:
    """1 / (1 + exp(-x)) = s / (s + exp(-r)) with s = 2**n, n = x / ln 2 rounded, r = x - n ln 2.

    Nothing overflows, small results keep their digits, and what s + 1 loses by rounding is put back.
    """
    to = format_of(x)
    n, r, _ = reduced(at_least(at_most(x, to.sigmoid_ceiling), to.exp_range[0]), to, 0)
    s = scale(n.constant(1.0), n)
    total = s + 1.0
    return s / (total + (expm1_reduced(-r, to) + ((1.0 - total) + s)))


@function("tanh")
def tanh(x: Term) -> Term:
    """A polynomial below 0.625, 1 - 2 / (exp(2 abs(x)) + 1) above."""
    to = format_of(x)
    size = abs(x)
    square = x * x
    small = fma(square * polynomial(square, to.tanh), size, size)
    capped = at_most(size, to.tanh_ceiling)
    large = 1.0 - 2.0 / (exp_in_range(capped + capped, to) + 1.0)
    return copysign(select(size < 0.625, small, large), x)


@function("sinh")
def sinh(x: Term) -> Term:
    """A polynomial below 1, exp(abs(x)) / 2 less its reciprocal's share above."""
    to = format_of(x)
    size = abs(x)
    square = x * x
    small = fma(square * polynomial(square, to.sinh), x, x)
    half = exp_times(at_most(size, to.exp_range[1] + 1.0), to, -1)
    return select(size < 1.0, small, copysign(half - 0.25 / half, x))


@function("cosh")
def cosh(x: Term) -> Term:
    """exp(abs(x)) / 2 and its reciprocal's share."""
    to = format_of(x)
    half = exp_times(at_most(abs(x), to.exp_range[1] + 1.0), to, -1)
    return half + 0.25 / half


# ---- log ------------------------------------------------------------------------------------------------------------


def split(x: Term, to: Format) -> tuple[Term, Term]:
    """A whole e and f with x = 2**e * (1 + f), sqrt(1/2) <= 1 + f < sqrt(2), for positive finite x."""
    tiny = x < to.smallest_normal
    lift = to.fraction_bits + 1
    bits = select(tiny, x * 2.0**lift, x).bitcast(to.integer)
    one_bits = to.bias << to.fraction_bits
    moved = bits + (one_bits - to.root_half_bits)
    fraction = (moved & ((1 << to.fraction_bits) - 1)) + to.root_half_bits
    # the exponent field as a float: put it below the leading one of 2**fraction_bits
    origin = 2.0**to.fraction_bits
    origin_bits = (to.bias + to.fraction_bits) << to.fraction_bits
    field = ((moved >> to.fraction_bits) | origin_bits).bitcast(to.dtype)
    e = field - select(tiny, x.constant(origin + to.bias + lift), origin + to.bias)
    return e, fraction.bitcast(to.dtype) - 1.0


def log_of_positive(x: Term, to: Format, correction: Term | None = None) -> Term:
    """log(x) + correction for positive finite x; the correction is far smaller than the logarithm's first term."""
    e, f = split(x, to)
    half_square = f * f * 0.5
    if to is FLOAT32:
        tail = f * f * f * polynomial(f, p.LOG_FLOAT32)
    else:
        # with s = f / (2 + f): log(1 + f) = f - f*f/2 + s * (f*f/2 + s*s*P(s*s))
        s = f / (f + 2.0)
        square = s * s
        tail = s * fma(square, polynomial(square, p.LOG_FLOAT64), half_square)
    if correction is not None:
        tail = tail + correction
    tail = fma(e, to.ln2[1], tail)
    return fma(e, to.ln2[0], tail - half_square + f)


def with_log_limits(x: Term, value: Term) -> Term:
    """`value` for positive finite x, and what every logarithm is elsewhere."""
    value = select(equal(x, INF), INF, value)
    return select(x > 0.0, value, select(equal(x, 0.0), x.constant(-INF), NAN))


@function("log")
def log(x: Term) -> Term:
    """The natural logarithm."""
    return with_log_limits(x, log_of_positive(x, format_of(x)))


@function("log1p")
def log1p(x: Term) -> Term:
    """log(1 + x): what 1 + x loses by rounding comes back as a correction."""
    total = x + 1.0
    part = total - x
    lost = (x - (total - part)) + (1.0 - part)
    value = log_of_positive(total, format_of(x), lost / total)
    return copysign(with_log_limits(total, value), x)


# ---- erf ------------------------------------------------------------------------------------------------------------


@function("erf")
def erf(x: Term) -> Term:
    """The error function: one polynomial up to 1, and beyond it another (float32) or 1 - exp(-x*x) * P (float64)."""
    size = abs(x)
    square = x * x
    if format_of(x) is FLOAT32:
        small = fma(x, polynomial(square, p.ERF_SMALL_FLOAT32), x)
        large = polynomial(at_most(size, 4.0) - ERF_CENTRE, p.ERF_LARGE_FLOAT32)
        return select(size < 1.1, small, copysign(large, x))
    small = fma(x, polynomial(square, p.ERF_SMALL_FLOAT64), x)
    capped = at_most(size, 5.95)
    scaled_complement = polynomial((capped - 3.0) / (capped + 3.0), p.ERFCX_FLOAT64)
    large = fma(-exp_in_range(-(capped * capped), FLOAT64), scaled_complement, 1.0)
    return select(size < 1.0, small, copysign(large, x))
