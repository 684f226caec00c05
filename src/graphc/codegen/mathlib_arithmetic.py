"""Functions made of a few exact steps: quotients and remainders, sign, rsqrt, integer powers, Philox.

Enters, leaves: Terms (see `terms`).  Never here: polynomials.
"""

from __future__ import annotations

import math

from graphc.codegen.mathlib_exponential import format_of
from graphc.codegen.mathlib_power import power
from graphc.codegen.terms import Term, call, copysign, equal, fma, function, select, unequal
from graphc.dtypes import float32, float64, uint32, uint64
from graphc.errors import IRError
from graphc.ir.loops import Const


@function("rsqrt")
def rsqrt(x: Term) -> Term:
    """1 / sqrt(x), both rounded."""
    return 1.0 / call("sqrt", x)


@function("sign")
def sign(x: Term) -> Term:
    """-1, 0 or 1; 0 for NaN, as PyTorch."""
    if x.dtype.kind in "ub":
        return select(unequal(x, 0), x.constant(1), 0)
    return select(x > 0, 1, select(x < 0, x.constant(-1), 0))


# ---- quotients and remainders ---------------------------------------------------------------------------------------


def integer_division(x: Term, y: Term) -> tuple[Term, Term]:
    """The truncated quotient and its remainder; a divisor of 0 is taken for 1."""
    divisor = select(equal(y, 0), 1, y)
    quotient = call("idiv", x, divisor)
    return quotient, x - quotient * divisor


@function("fmod")
def fmod(x: Term, y: Term) -> Term:
    """The remainder with x's sign, exact; integers: 0 where y is 0.  float64: NaN where abs(x / y) >= 2**200."""
    if x.dtype.kind != "f":
        return select(equal(y, 0), 0, integer_division(x, y)[1])
    if x.dtype is float32:
        rest = remainder_of_float32(abs(x.cast(float64)), abs(y.cast(float64))).cast(float32)
    else:
        rest = remainder_of_float64(abs(x), abs(y))
    rest = copysign(rest, x)
    return select(equal(abs(y), math.inf) & (abs(x) < math.inf), x, rest)


def remainder_of_float32(x: Term, y: Term) -> Term:
    """x modulo y for float32 values x >= 0, y > 0 held in float64.

    A pass takes off a multiple of y and leaves 2**-51 of x or about y.  With 24 bits in y the difference needs 27 and is
    exact; x / y is less than 2**277, so six passes are enough.
    """
    inverse = 1.0 / y
    for _ in range(6):
        x = fma(-call("trunc", x * inverse), y, x)
    x = select(x < 0.0, x + y, x)
    return select(x < y, x, x - y)


def remainder_of_float64(x: Term, y: Term) -> Term:
    """x modulo y for x >= 0, y > 0 with x / y < 2**200, else NaN.

    As above, but the quotient must be rounded to nearest: then x - quotient * y has no more than 53 bits.
    """
    first = x / y
    for _ in range(4):
        x = fma(-call("trunc", x / y), y, x)
    return select(first < 2.0**200, select(x < 0.0, x + y, x), math.nan)


@function("remainder")
def remainder(x: Term, y: Term) -> Term:
    """The remainder with y's sign, as PyTorch; integers: 0 where y is 0."""
    if x.dtype.kind == "f":
        rest = fmod(x, y)
    elif x.dtype.kind == "u":
        return fmod(x, y)
    else:
        rest = select(equal(y, 0), 0, integer_division(x, y)[1])
    return select(unequal(rest, 0) & ((rest < 0) ^ (y < 0)), rest + y, rest)


@function("floor_divide")
def floor_divide(x: Term, y: Term) -> Term:
    """The quotient rounded down, consistent with `remainder`; integers: 0 where y is 0; floats: x / y where y is 0."""
    if x.dtype.kind != "f":
        quotient, rest = integer_division(x, y)
        if x.dtype.kind == "i":
            quotient = select(unequal(rest, 0) & ((rest < 0) ^ (y < 0)), quotient - 1, quotient)
        return select(equal(y, 0), 0, quotient)
    rest = fmod(x, y)
    quotient = (x - rest) / y
    quotient = select(unequal(rest, 0) & ((rest < 0) ^ (y < 0)), quotient - 1.0, quotient)
    whole = call("floor", quotient)
    whole = select(quotient - whole > 0.5, whole + 1.0, whole)
    true_quotient = x / y
    whole = select(unequal(quotient, 0.0), whole, copysign(quotient.constant(0.0), true_quotient))
    return select(equal(y, 0.0), true_quotient, whole)


# ---- powers ---------------------------------------------------------------------------------------------------------


@function("pow")
def pow_(x: Term, y: Term) -> Term:
    """x**y.  Integers wrap; to a negative power 1 is 1, -1 is +-1 and any other 0, as PyTorch."""
    return power(x, y) if x.dtype.kind == "f" else integer_power(x, y)


def integer_power(x: Term, y: Term) -> Term:
    """Square and multiply over all bits of the exponent (without its sign): exact modulo 2**bits."""
    bits = 8 * x.dtype.itemsize
    signed = x.dtype.kind == "i"
    result, square = x.constant(1), x
    for bit in range(bits - 1 if signed else bits):
        if bit:
            square = square * square
        result = select(unequal(y & (1 << bit), 0), result * square, result)
    if not signed:
        return result
    unit = select(equal(x, 1), 1, select(equal(x, -1), select(equal(y & 1, 0), x.constant(1), -1), 0))
    return select(y < 0, unit, result)


# ---- random bits ----------------------------------------------------------------------------------------------------

PHILOX_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
PHILOX_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
PHILOX_ROUNDS = 10


@function("philox")
def philox(key0: Term, key1: Term, counter: Term, which: Term) -> Term:
    """Word `which` (a constant 0..3) of Philox4x32-10 for the counter words (low, high, 0, 0).

    key0, key1: uint32.  counter: uint64.  -> uint32.  Source: Salmon, Moraes, Dror and Shaw 2011.
    """
    if not isinstance(which.expr, Const) or which.expr.value not in range(4):
        raise IRError("philox: the word asked for must be a constant 0, 1, 2 or 3")
    zero = key0.constant(0)
    words = [counter.cast(uint32), (counter >> 32).cast(uint32), zero, zero]
    for step in range(PHILOX_ROUNDS):
        if step:
            key0, key1 = key0 + PHILOX_KEY_STEPS[0], key1 + PHILOX_KEY_STEPS[1]
        left, right = (w.cast(uint64) * m for w, m in zip(words[::2], PHILOX_MULTIPLIERS, strict=True))
        words = [
            (right >> 32).cast(uint32) ^ words[1] ^ key0,
            right.cast(uint32),
            (left >> 32).cast(uint32) ^ words[3] ^ key1,
            left.cast(uint32),
        ]
    return words[int(which.expr.value)]


# ---- fraction and exponent ------------------------------------------------------------------------------------------


def exponent_and_lift(x: Term) -> tuple[Term, Term]:
    """(x scaled up where it is denormal, the e with x = m * 2**e and 1/2 <= abs(m) < 1), for finite x that is not 0."""
    to = format_of(x)
    tiny = abs(x) < to.smallest_normal
    lift = float(to.fraction_bits + 1)
    lifted = select(tiny, x * 2.0**lift, x)
    field = (lifted.bitcast(to.integer) >> to.fraction_bits) & (2 * to.bias + 1)
    exponent = field.cast(to.dtype) - float(to.bias - 1)
    return lifted, select(tiny, exponent - lift, exponent)


def has_fraction(x: Term) -> Term:
    """Whether x is finite and not 0."""
    return (abs(x) < math.inf) & unequal(x, 0.0)


@function("frexp_exponent")
def frexp_exponent(x: Term) -> Term:
    """The whole e with x = m * 2**e and 1/2 <= abs(m) < 1, as a number of x's dtype; 0 for 0, inf and NaN."""
    return select(has_fraction(x), exponent_and_lift(x)[1], 0.0)


@function("frexp_mantissa")
def frexp_mantissa(x: Term) -> Term:
    """The m of `frexp_exponent`; x itself for 0, inf and NaN."""
    to = format_of(x)
    lifted, _ = exponent_and_lift(x)
    fraction = lifted.bitcast(to.integer) & ((1 << to.fraction_bits) - 1)
    mantissa = (fraction | ((to.bias - 1) << to.fraction_bits)).bitcast(to.dtype)
    return select(has_fraction(x), copysign(mantissa, x), x)
