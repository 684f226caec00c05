"""sin, cos, tan and their inverses.

Enters, leaves: Terms (see `terms`).  Never here: a table look-up or a branch: large arguments cost what small ones do.

The inverse functions and tan are computed in float64 for both dtypes, with short polynomials where the result is
float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from graphc.codegen import polynomials as p
from graphc.codegen.mathlib_exponential import FLOAT32, FLOAT64, format_of
from graphc.codegen.terms import Term, call, copysign, equal, fma, function, is_nan, polynomial, select, unequal
from graphc.dtypes import float32, float64, uint32, uint64

# pi/2 in parts of 53 bits
HALF_PI = tuple(map(float.fromhex, ("0x1.921fb54442d18p+0", "0x1.1a62633145c07p-54", "-0x1.f1976b7ed8fbcp-110")))
QUARTER_PI = HALF_PI[0] / 2, HALF_PI[1] / 2
PI = HALF_PI[0] * 2, HALF_PI[1] * 2
THREE_QUARTERS_PI = float.fromhex("0x1.2d97c7f3321d2p+1"), float.fromhex("0x1.a79394c9e8a0ap-54")

# doubles that are almost multiples of 2*pi, and by how much they are more (from continued fractions of 2**k / (2*pi))
NEAR_TURNS = (
    (float.fromhex("0x1.66bd5424e5655p+92"), float.fromhex("-0x1.7a6b2243e72f6p-56")),
    (float.fromhex("0x1.8577cec54ab80p+49"), float.fromhex("-0x1.2b04a1af8c362p-50")),
)

# the bits of 2/pi after eight zeros, most significant word first
TWO_OVER_PI = (
    0x00A2F9836E4E4415, 0x29FC2757D1F534DD, 0xC0DB6295993C4390, 0x41FE5163ABDEBBC5, 0x61B7246E3A424DD2,
    0xE006492EEA09D192, 0x1CFE1DEB1CB129A7, 0x3EE88235F52EBB44, 0x84E99C7026B45F7E, 0x413991D639835339,
    0xF49C845F8BBDF928, 0x3B1FF897FFDE0598, 0x0FEF2F118B5A0A6D, 0x1F6D367ECF27CB09, 0xB74F463F669E5FEA,
    0x2D7527BAC7EBE5F1, 0x7B3D0739F78A5292, 0xEA6BFB5FB11F8D5D, 0x0856033046FC7B6B,
)  # fmt: skip
EXACT_BELOW = 2.0**48  # where three parts of pi/2 are enough for a float64


# ---- reduction ------------------------------------------------------------------------------------------------------


def rounded_quotient(x: Term, divisor: float) -> tuple[Term, Term]:
    """x / divisor rounded to a whole number below 2**51, as a float64 and in the low bits of a uint64."""
    shifted = fma(x, 1.0 / divisor, FLOAT64.shifter)
    return shifted - FLOAT64.shifter, shifted.bitcast(uint64)


def reduced_float32(x: Term) -> tuple[Term, Term]:
    """r (float64) and q with x = r + q * pi/2 (mod 2*pi), abs(r) < pi/4 + 0.001: right for every float32.

    A whole number of near turns is taken off exactly (fma), and what those are more than turns is put back at the end.
    """
    rest = x.cast(float64)
    back = None
    for near_turn, excess in NEAR_TURNS:
        n, _ = rounded_quotient(rest, near_turn)
        rest = fma(n, -near_turn, rest)
        back = n * excess if back is None else fma(n, excess, back)
    assert back is not None
    n, q = rounded_quotient(rest, HALF_PI[0])
    return fma(n, -HALF_PI[1], fma(n, -HALF_PI[0], rest)) + back, q.cast(uint32)


def reduced_float64(x: Term) -> tuple[Term, Term, Term]:
    """r, its low part and q with x = r + low + q * pi/2 (mod 2*pi): right for every float64 x >= 0."""
    small, large = reduced_by_parts(x), reduced_by_bits(x)
    far = (x >= EXACT_BELOW) & (x < math.inf)
    r, low, q = (select(far, there, here) for here, there in zip(small, large, strict=True))
    return r, low, q


def reduced_by_parts(x: Term) -> tuple[Term, Term, Term]:
    """The reduction for x < EXACT_BELOW: pi/2 in three parts, the first step exact by fma (after Cody and Waite 1980)."""
    n, q = rounded_quotient(x, HALF_PI[0])
    first = fma(n, -HALF_PI[0], x)
    product = n * HALF_PI[1]
    excess = fma(n, HALF_PI[1], -product)
    second = first - product
    part = second - first
    lost = (first - (second - part)) - (product + part)
    low = fma(n, -HALF_PI[2], lost - excess)
    r = second + low
    return r, (second - r) + low, q


def reduced_by_bits(x: Term) -> tuple[Term, Term, Term]:
    """The reduction for EXACT_BELOW <= x < inf: x = m * 2**e meets only those 192 bits of 2/pi that count.

    Bits before them add whole turns, bits after them less than 2**-137.  Source: Payne and Hanek 1983.
    """
    bits = x.bitcast(uint64)
    m = bits & (1 << 52) - 1 | 1 << 52
    start = (bits >> 52) - (1023 + 52 - 6)  # e + 6: the first bit of TWO_OVER_PI that does not give multiples of four
    first, second, third = window(start)
    upper, lower = wide_product(m, second)
    carried = wide_product(m, third)[0]
    lower = lower + carried
    upper = m * first + upper + select(lower < carried, lower.constant(1), 0)
    # upper, lower: x / (pi/2) modulo 4 as a fixed-point number with two bits before the point; what is over q, signed:
    q = (upper + (1 << 61)) >> 62
    over, under = (upper << 2 | lower >> 62) ^ (1 << 63), lower << 2
    first_part = word_as_float(over >> 32) * 2.0**-32 - 0.5
    second_part = word_as_float(over & 0xFFFFFFFF) * 2.0**-64
    rest = fma(word_as_float(under & 0xFFFFFFFF), 2.0**-32, word_as_float(under >> 32)) * 2.0**-96
    head = first_part + second_part
    tail = (first_part - head + second_part) + rest
    r = head * HALF_PI[0]
    low = fma(head, HALF_PI[0], -r) + fma(head, HALF_PI[1], tail * HALF_PI[0])
    total = r + low
    return total, (r - total) + low, q


def window(start: Term) -> tuple[Term, Term, Term]:
    """192 bits of TWO_OVER_PI from bit `start` on, by halving what is left to choose from."""
    words = [start.constant(word) for word in TWO_OVER_PI]
    for step in (8, 4, 2, 1):
        onward = unequal(start & 64 * step, 0)
        words = [select(onward, words[i + step], words[i]) for i in range(3 + step)]
    shift = start & 63
    back = 63 - shift
    first, second, third = (a << shift | (b >> 1) >> back for a, b in pairwise(words))
    return first, second, third


def wide_product(x: Term, y: Term) -> tuple[Term, Term]:
    """The upper and the lower 64 bits of x * y, for x < 2**53."""
    low = 0xFFFFFFFF
    x_high, x_low, y_high, y_low = x >> 32, x & low, y >> 32, y & low
    lowest = x_low * y_low
    middle = x_high * y_low + (lowest >> 32)  # x_high < 2**21: no overflow
    cross = x_low * y_high + (middle & low)
    return x_high * y_high + (middle >> 32) + (cross >> 32), cross << 32 | lowest & low


def word_as_float(word: Term) -> Term:
    """A uint64 below 2**32 as float64, by its bits (vector units before AVX-512 convert no 64-bit integers)."""
    return (word | (1023 + 52) << 52).bitcast(float64) - 2.0**52


# ---- sin, cos, tan --------------------------------------------------------------------------------------------------


def sine_and_cosine(r: Term, sine: Sequence[float], cosine: Sequence[float]) -> tuple[Term, Term]:
    """sin(r) and cos(r) for abs(r) <= pi/4."""
    square = r * r
    sin_r = fma(r * square, polynomial(square, sine), r)
    cos_r = fma(square * square, polynomial(square, cosine), fma(square, -0.5, 1.0))
    return sin_r, cos_r


def sine_and_cosine_parts(r: Term, low: Term) -> tuple[tuple[Term, Term], tuple[Term, Term]]:
    """sin(r + low) and cos(r + low) in float64, each as an unevaluated sum of two parts."""
    square = r * r
    half = square * 0.5
    head = 1.0 - half
    sin_tail = fma(r * square, polynomial(square, p.SIN_FLOAT64), low * head)
    cos_tail = (1.0 - head - half) + fma(square * square, polynomial(square, p.COS_FLOAT64), -(r * low))
    return (r, sin_tail), (head, cos_tail)


def sign_place(x: Term) -> int:
    """Which bit of a floating Term is its sign."""
    return 31 if format_of(x) is FLOAT32 else 63


def odd_in(x: Term, value: Term) -> Term:
    """`value`, the function of abs(x), with the sign changed where x has one."""
    unsigned = format_of(x).integer
    sign = x.bitcast(unsigned) & 1 << sign_place(x)
    return (value.bitcast(unsigned) ^ sign).bitcast(x.dtype)


def wave(x: Term, quarter: int) -> Term:
    """sin(abs(x) + quarter * pi/2)."""
    size = abs(x)
    if format_of(x) is FLOAT32:
        r, q = reduced_float32(size)
        sin_r, cos_r = sine_and_cosine(r.cast(float32), p.SIN_FLOAT32, p.COS_FLOAT32)
    else:
        r, low, q = reduced_float64(size)
        (sin_head, sin_tail), (cos_head, cos_tail) = sine_and_cosine_parts(r, low)
        sin_r, cos_r = sin_head + sin_tail, cos_head + cos_tail
    q = q + quarter
    value = select(equal(q & 1, 0), sin_r, cos_r)
    negative = (q & 2) << sign_place(x) - 1
    return (value.bitcast(q.dtype) ^ negative).bitcast(x.dtype)


@function("sin")
def sin(x: Term) -> Term:
    """The sine of x radians."""
    return odd_in(x, wave(x, 0))


@function("cos")
def cos(x: Term) -> Term:
    """The cosine of x radians."""
    return wave(x, 1)


@function("tan")
def tan(x: Term) -> Term:
    """The tangent of x radians."""
    size = abs(x)
    if format_of(x) is FLOAT32:
        r, q = reduced_float32(size)
        sin_r, cos_r = sine_and_cosine(r, p.SIN_SHORT, p.COS_SHORT)
        odd = unequal(q & 1, 0)
        value = (select(odd, -cos_r, sin_r) / select(odd, sin_r, cos_r)).cast(float32)
    else:
        r, low, q = reduced_float64(size)
        odd = unequal(q & 1, 0)
        (s, s_tail), (c, c_tail) = map(normalised, sine_and_cosine_parts(r, low))
        top, top_tail = select(odd, -c, s), select(odd, -c_tail, s_tail)
        bottom, bottom_tail = select(odd, s, c), select(odd, s_tail, c_tail)
        quotient = top / bottom
        rest = fma(-quotient, bottom_tail, fma(-quotient, bottom, top) + top_tail)
        value = quotient + rest / bottom
    return odd_in(x, value)


def normalised(parts: tuple[Term, Term]) -> tuple[Term, Term]:
    """The same sum with its first part rounded; the first part is the larger."""
    head, tail = parts
    total = head + tail
    return total, (head - total) + tail


# ---- inverses -------------------------------------------------------------------------------------------------------


def half_angle(x: Term, series: Sequence[float]) -> tuple[Term, Term, Term]:
    """Whether abs(x) > 1/2; t = sqrt((1 - abs(x)) / 2) there, else abs(x); and asin(t) / t - 1."""
    size = abs(x)
    large = size > 0.5
    square = select(large, (1.0 - size) * 0.5, x * x)
    return large, select(large, call("sqrt", square), size), square * polynomial(square, series)


def asin_float64(x: Term, series: Sequence[float]) -> Term:
    """The arc sine of x: pi/2 - 2 asin(sqrt((1 - abs(x)) / 2)) beyond 1/2."""
    large, t, rest = half_angle(x, series)
    doubled = t + t
    above = HALF_PI[0] - (doubled + fma(doubled, rest, -HALF_PI[1]))
    return copysign(select(large, above, fma(t, rest, t)), x)


def acos_float64(x: Term, series: Sequence[float]) -> Term:
    """The arc cosine of x, from the same series as `asin_float64`."""
    large, t, rest = half_angle(x, series)
    doubled = t + t
    right = fma(doubled, rest, doubled)
    left = PI[0] - (doubled + fma(doubled, rest, -PI[1]))
    middle = HALF_PI[0] - (x + fma(x, rest, -HALF_PI[1]))
    return select(large, select(x < 0.0, left, right), middle)


@function("asin")
def asin(x: Term) -> Term:
    """The angle in [-pi/2, pi/2] whose sine is x; NaN beyond [-1, 1]."""
    if format_of(x) is FLOAT32:
        return asin_float64(x.cast(float64), p.ASIN_SHORT).cast(float32)
    return asin_float64(x, p.ASIN_FLOAT64)


@function("acos")
def acos(x: Term) -> Term:
    """The angle in [0, pi] whose cosine is x; NaN beyond [-1, 1]."""
    if format_of(x) is FLOAT32:
        return acos_float64(x.cast(float64), p.ASIN_SHORT).cast(float32)
    return acos_float64(x, p.ASIN_FLOAT64)


def arctangent(top: Term, bottom: Term, base: tuple[Term, Term], series: Sequence[float]) -> Term:
    """base + atan(top / bottom) for a quotient between -(sqrt(2) - 1) and sqrt(2) - 1 (float64)."""
    t = top / bottom
    square = t * t
    return base[0] + (t + fma(t * square, polynomial(square, series), base[1]))


def octants(y: Term, x: Term | float) -> tuple[Term, Term]:
    """For y, x >= 0: whether atan(y / x) is nearer to pi/4 than to 0, and whether it is nearest to pi/2."""
    narrow, wide = math.sqrt(2.0) - 1.0, math.sqrt(2.0) + 1.0
    return y > x * narrow, y > x * wide


def constants(like: Term, parts: tuple[float, float]) -> tuple[Term, Term]:
    """Two numbers as Terms of `like`'s dtype."""
    return like.constant(parts[0]), like.constant(parts[1])


def parts_where(condition: Term, then: Sequence[float], other: tuple[Term, Term]) -> tuple[Term, Term]:
    """The two parts of an angle, selected."""
    return select(condition, then[0], other[0]), select(condition, then[1], other[1])


@function("atan")
def atan(x: Term) -> Term:
    """The angle in [-pi/2, pi/2] whose tangent is x."""
    short = format_of(x) is FLOAT32
    size = abs(x.cast(float64) if short else x)
    middle, steep = octants(size, 1.0)
    base = parts_where(steep, HALF_PI, parts_where(middle, QUARTER_PI, constants(size, (0.0, 0.0))))
    top = select(steep, -1.0, select(middle, size - 1.0, size))
    bottom = select(steep, size, select(middle, size + 1.0, 1.0))
    value = arctangent(top, bottom, base, p.ATAN_SHORT if short else p.ATAN_FLOAT64)
    return copysign(value.cast(x.dtype) if short else value, x)


@function("atan2")
def atan2(y: Term, x: Term) -> Term:
    """The angle in [-pi, pi] of the point (x, y), with the special values of C99."""
    short = format_of(y) is FLOAT32
    up, right = abs(y.cast(float64) if short else y), x.cast(float64) if short else x
    across = abs(right)
    both_infinite = equal(up, math.inf) & equal(across, math.inf)
    up, across = select(both_infinite, 1.0, up), select(both_infinite, 1.0, across)
    if not short:  # neither may the sum overflow nor the comparisons be made among denormals
        larger = select(up > across, up, across)
        scale = select(larger > 2.0**1000, 2.0**-100, select(larger < 2.0**-900, up.constant(2.0**200), 1.0))
        up, across = up * scale, across * scale
    across = select(equal(up, 0.0), 1.0, across)
    middle, steep = octants(up, across)
    left = copysign(right.constant(1.0), right) < 0.0
    flat_base = parts_where(left, PI, constants(right, (0.0, 0.0)))
    middle_base = parts_where(left, THREE_QUARTERS_PI, constants(right, QUARTER_PI))
    nearer = select(middle, middle_base[0], flat_base[0]), select(middle, middle_base[1], flat_base[1])
    base = parts_where(steep, HALF_PI, nearer)
    # the quotient has x's sign: left of the axis it is counted back from pi
    top = select(steep, -copysign(across, right), select(middle, up - across, up))
    bottom = select(steep, up, copysign(select(middle, up + across, across), right))
    angle = arctangent(top, bottom, base, p.ATAN_SHORT if short else p.ATAN_FLOAT64)
    angle = copysign(angle.cast(y.dtype) if short else angle, y)
    return select(is_nan(x), x, angle)
