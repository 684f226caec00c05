"""log2, log10 and pow: logarithms to base two in more digits than the result has.

Enters, leaves: Terms (see `terms`).  Never here: a choice by machine or vector width.

float32 is computed in float64 with short polynomials and rounded once at the end.  float64 carries the logarithm as an
unevaluated sum of two parts (Dekker 1971), which pow needs: an error in log2(x) is multiplied by up to 1075.
"""

from __future__ import annotations

import math

from graphc.codegen import polynomials as p
from graphc.codegen.mathlib_exponential import (
    FLOAT32,
    FLOAT64,
    INF,
    NAN,
    format_of,
    power_of_two,
    split,
    with_log_limits,
)
from graphc.codegen.terms import Term, at_least, at_most, call, equal, fma, function, polynomial, scale, select, unequal
from graphc.dtypes import float32, float64

LOG10_2 = float.fromhex("0x1.34413509f79ffp-2"), float.fromhex("-0x1.9dc1da994fd21p-59")
TWO_LOG2_E = float.fromhex("0x1.71547652b82fep+1"), float.fromhex("0x1.777d0ffda0d24p-55")  # 2 / ln 2
TWO_THIRDS_LOG2_E = float.fromhex("0x1.ec709dc3a03fdp-1"), float.fromhex("0x1.d27f05548af0cp-55")  # 2 / (3 ln 2)

Parts = tuple[Term, Term]


# ---- log2 -----------------------------------------------------------------------------------------------------------


def log2_short(x: Term) -> Term:
    """log2(x) for positive finite x (float64), good to 40 bits."""
    e, f = split(x, FLOAT64)
    s = f / (f + 2.0)
    return fma(s, polynomial(s * s, p.LOG2_SHORT), e)


def product(x: Parts, y: Parts) -> Parts:
    """x * y; the parts' squares are dropped."""
    head = x[0] * y[0]
    return head, fma(x[0], y[0], -head) + fma(x[0], y[1], x[1] * y[0])


def larger_plus(large: Term | float, small: Term, tail: Term | float) -> Parts:
    """large + small + tail, where `large` is not the smaller of the first two, or is 0."""
    head = small + large
    return head, (small - (head - large)) + tail


def log2_parts(x: Term) -> Parts:
    """log2(x) for positive finite x (float64) to about 66 bits: s = f / (2 + f), then s * (C1 + s*s*(C3 + s*s*Q(s*s)))."""
    e, f = split(x, FLOAT64)
    bottom = f + 2.0
    bottom_tail = f - (bottom - 2.0)
    s_head = f / bottom
    s = s_head, fma(-s_head, bottom_tail, fma(-s_head, bottom, f)) / bottom
    square = product(s, s)
    rest = square[0] * polynomial(square[0], p.LOG2_REST)
    inner = product(square, larger_plus(TWO_THIRDS_LOG2_E[0], rest, TWO_THIRDS_LOG2_E[1]))
    log = product(s, larger_plus(TWO_LOG2_E[0], inner[0], inner[1] + TWO_LOG2_E[1]))
    return larger_plus(e, log[0], log[1])


@function("log2")
def log2(x: Term) -> Term:
    """The logarithm to base 2, exact for powers of two."""
    if format_of(x) is FLOAT32:
        return with_log_limits(x, log2_short(x.cast(float64)).cast(float32))
    head, tail = log2_parts(x)
    return with_log_limits(x, head + tail)


@function("log10")
def log10(x: Term) -> Term:
    """The logarithm to base 10, exact for powers of ten."""
    if format_of(x) is FLOAT32:
        return with_log_limits(x, (log2_short(x.cast(float64)) * LOG10_2[0]).cast(float32))
    parts = log2_parts(x)
    unit = x.constant(LOG10_2[0]), x.constant(LOG10_2[1])
    head, tail = product(parts, unit)
    return with_log_limits(x, head + tail)


# ---- pow ------------------------------------------------------------------------------------------------------------


def power_float32(size: Term, y: Term) -> Term:
    """size**y for size >= 0."""
    log = magnitude_limits(size.cast(float64), log2_short(size.cast(float64)))
    exponent = at_least(at_most(y.cast(float64) * log, 200.0), -200.0)
    shifter = FLOAT64.shifter + FLOAT64.bias
    shifted = exponent + shifter
    r = exponent - (shifted - shifter)
    value = fma(r, polynomial(r, p.EXP2_SHORT), 1.0) * power_of_two(shifted.bitcast(FLOAT64.integer), FLOAT64)
    return value.cast(float32)


def power_float64(size: Term, y: Term) -> Term:
    """size**y for size >= 0."""
    log, log_tail = log2_parts(size)
    log = magnitude_limits(size, log)
    whole = y * log
    low, high = FLOAT64.exp2_range
    exponent = at_least(at_most(whole, high), low)
    tail = select(equal(exponent, whole), fma(y, log, -whole) + y * log_tail, 0.0)
    n = (exponent + FLOAT64.shifter) - FLOAT64.shifter
    r = (exponent - n) + tail
    return scale(fma(r, polynomial(r, p.EXP2_FLOAT64), 1.0), n)


def magnitude_limits(size: Term, log: Term) -> Term:
    """`log` for positive finite size; -inf for 0, inf for inf, NaN for NaN."""
    return select(equal(size, 0.0), -INF, select(size < INF, log, size))


def power(x: Term, y: Term) -> Term:
    """x**y of floating numbers, with the special values of C99."""
    size = abs(x)
    raised = power_float32(size, y) if format_of(x) is FLOAT32 else power_float64(size, y)
    raised = select(equal(size, 1.0), 1.0, raised)  # 1**inf
    whole = equal(call("trunc", y), y)
    half = y * 0.5
    odd = whole & unequal(call("trunc", half), half)
    negative = call("copysign", x.constant(1.0), x) < 0.0
    raised = select(negative & odd, -raised, raised)
    undefined = (x < 0.0) & ~whole & (size < math.inf)
    raised = select(undefined, NAN, raised)
    raised = select(unequal(y, y), y, raised)
    return select(equal(y, 0.0) | equal(x, 1.0), 1.0, raised)
