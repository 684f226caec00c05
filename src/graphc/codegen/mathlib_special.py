"""Special functions: the error function's family, gamma's, and modified Bessel functions.

Enters, leaves: Terms (see `terms`).  Never here: a choice by machine or vector width.

Each is defined in float64; float32 computes that and rounds once.  The errors found stand in tests/test_mathlib_special.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from graphc.codegen import polynomials_special as p
from graphc.codegen.mathlib_exponential import erf as erf_
from graphc.codegen.mathlib_exponential import exp, format_of, log, log1p
from graphc.codegen.mathlib_trigonometric import sin, tan
from graphc.codegen.terms import Term, at_least, at_most, call, copysign, equal, fma, function, polynomial, select
from graphc.dtypes import float32, float64
from graphc.errors import IRError
from graphc.ir.loops import Const

INF, NAN = math.inf, math.nan
Definition = Callable[..., Term]


def wide(definition: Definition) -> Definition:
    """`definition` in float64 for either dtype, rounded to the operand's."""

    def rounded(*operands: Term) -> Term:
        x = operands[-1]
        if format_of(x).dtype is float64:
            return definition(*operands)
        return definition(*(y.cast(float64) if y.dtype is float32 else y for y in operands)).cast(float32)

    rounded.__doc__ = definition.__doc__
    return rounded


# ---- the error function's family ------------------------------------------------------------------------------------


def scaled_complement(size: Term) -> Term:
    """exp(x*x) * erfc(x) for x >= 0 (Shepherd and Laframboise 1981)."""
    capped = at_most(size, 1e300)
    return polynomial((capped - 3.0) / (capped + 3.0), p.ERFCX_FACTOR) / (size + size + 1.0)


def exp_of_square(size: Term, factor: float) -> Term:
    """exp(factor * size * size), factor a power of two, with what the square loses by rounding put back."""
    square = size * size
    lost = fma(size, size, -square)
    value = exp(square * factor)
    return select(value < INF, fma(value, lost * factor, value), value)


def complement(x: Term) -> Term:
    """erfc(x)."""
    size = abs(x)
    capped = at_most(size, 28.0)
    tail = exp_of_square(capped, -1.0) * scaled_complement(capped)
    return select(size < 0.5, 1.0 - erf_(x), select(x < 0.0, 2.0 - tail, tail))


@function("erfc")
@wide
def erfc(x: Term) -> Term:
    """1 - erf(x), with the digits of small results."""
    return complement(x)


@function("erfcx")
@wide
def erfcx(x: Term) -> Term:
    """exp(x*x) * erfc(x)."""
    size = abs(x)
    value = scaled_complement(size)
    large = exp_of_square(at_most(size, 28.0), 1.0)
    return select(x < 0.0, large + large - value, value)


CENTRE = 0.5**0.5  # where the two approximations of erf's inverse meet
TAIL = -0.5661315347229774, 0.75  # what (v - 4) / (v + 4) runs over


def erfinv_centre(x: Term) -> Term:
    """The inverse of erf for abs(x) <= sqrt(1/2)."""
    return x * polynomial(fma(x * x, 4.0, x.constant(-1.0)), p.ERFINV_CENTRE)


def erfc_inverse_tail(q: Term) -> Term:
    """The inverse of erfc for 0 < q <= 1 - sqrt(1/2)."""
    v = call("sqrt", -log(q))
    w = (v - 4.0) / (v + 4.0)
    return v * polynomial((w - (TAIL[0] + TAIL[1]) / 2) * (2 / (TAIL[1] - TAIL[0])), p.ERFC_INVERSE_TAIL)


@function("erfinv")
@wide
def erfinv(x: Term) -> Term:
    """The inverse of erf; +-inf at +-1, NaN beyond."""
    size = abs(x)
    tail = select(equal(size, 1.0), INF, erfc_inverse_tail(at_least(1.0 - size, 2.0**-60)))
    value = select(size < CENTRE, erfinv_centre(x), copysign(tail, x))
    return select(size > 1.0, NAN, value)


@function("ndtri")
@wide
def ndtri(x: Term) -> Term:
    """The inverse of the normal distribution function; -inf at 0, inf at 1, NaN outside."""
    low = select(x > 0.5, 1.0 - x, x)
    doubled = low + low
    tail = select(equal(low, 0.0), INF, erfc_inverse_tail(select(low > 0.0, doubled, 1.0)))
    size = select(doubled > 1.0 - CENTRE, erfinv_centre(1.0 - doubled), tail) * math.sqrt(2.0)
    value = select(x < 0.5, -size, size)
    return select((x < 0.0) | (x > 1.0), NAN, select(equal(x, x), value, x))


def normal_tail(size: Term) -> Term:
    """The normal distribution function at -size, for size >= 0."""
    capped = at_most(size, 39.0)
    return exp_of_square(capped, -0.5) * scaled_complement(capped * math.sqrt(0.5)) * 0.5


@function("ndtr")
@wide
def ndtr(x: Term) -> Term:
    """The normal distribution function."""
    size = abs(x)
    tail = normal_tail(size)
    near = fma(erf_(x * math.sqrt(0.5)), 0.5, x.constant(0.5))
    return select(size < 0.7, near, select(x < 0.0, tail, 1.0 - tail))


@function("log_ndtr")
@wide
def log_ndtr(x: Term) -> Term:
    """The logarithm of the normal distribution function."""
    size = abs(x)
    left = fma(x * x, -0.5, log(scaled_complement(size * math.sqrt(0.5)) * 0.5))
    tail = normal_tail(size)
    return select(x < -1.0, left, log1p(select(x < 0.0, tail - 1.0, -tail)))


# ---- gamma's family -------------------------------------------------------------------------------------------------


def bernoulli_numbers(count: int) -> list[Fraction]:
    """B0, B1, ..., the first of them `count`."""
    found: list[Fraction] = []
    for m in range(count):
        total = sum((math.comb(m + 1, k) * b for k, b in enumerate(found)), Fraction(0))
        found.append(Fraction(m == 0) - total / (m + 1))
    return found


BERNOULLI = bernoulli_numbers(24)
STIRLING = tuple(float(BERNOULLI[2 * k] / (2 * k * (2 * k - 1))) for k in range(1, 11))
HALF_LOG_TAU = 0.5 * math.log(math.tau)


def turn_remainder(x: Term) -> Term:
    """pi * (x less the nearest integer)."""
    return (x - call("round", x)) * math.pi


def log_gamma_of_positive(y: Term) -> Term:
    """log(gamma(y)) for y >= 0: a polynomial on [1, 2], reached by the recurrence below 8; Stirling's series from 8."""
    inverse = 1.0 / y
    series = fma((y - 0.5), log(y), -y) + fma(inverse, polynomial(inverse * inverse, STIRLING), inverse.constant(HALF_LOG_TAU))
    series = select(equal(y, INF), INF, series)
    rest = y - call("floor", y)
    base = rest * (rest - 1.0) * polynomial(fma(rest, 2.0, rest.constant(-1.0)), p.LOG_GAMMA)
    factors = y.constant(1.0)
    for k in range(1, 7):
        factors = select(y >= float(k + 1), factors * (y - float(k)), factors)
    logarithm = log(select(y < 1.0, y, factors))
    near = base + select(y < 1.0, -logarithm, logarithm)
    return select(y < 8.0, near, series)


@function("lgamma")
@wide
def lgamma(x: Term) -> Term:
    """log(abs(gamma(x))); inf at 0, -1, -2, ..."""
    value = log_gamma_of_positive(select(x < 0.0, 1.0 - x, x))
    mirrored = log(math.pi / abs(sin(turn_remainder(x)))) - value
    return select(equal(abs(x), INF), INF, select(x < 0.0, mirrored, value))


def shifted(y: Term, to: float, steps: int, term: Callable[[Term], Term]) -> tuple[Term, Term]:
    """y raised by ones until it is at least `to`, and the sum of term(y) over what was passed."""
    total = y.constant(0.0)
    for _ in range(steps):
        below = y < to
        total = total + select(below, term(y), 0.0)
        y = select(below, y + 1.0, y)
    return y, total


DIGAMMA = tuple(float(-BERNOULLI[2 * k] / (2 * k)) for k in range(1, 9))


def psi(x: Term) -> Term:
    """The logarithmic derivative of gamma: the recurrence up to 10, then the asymptotic series."""
    y, passed = shifted(select(x < 0.0, 1.0 - x, x), 10.0, 10, lambda v: 1.0 / v)
    inverse = 1.0 / y
    square = inverse * inverse
    value = log(y) + fma(square, polynomial(square, DIGAMMA), inverse * -0.5) - passed
    mirrored = value - math.pi / tan(turn_remainder(x))
    value = select(x < 0.0, select(equal(call("trunc", x), x), NAN, mirrored), value)
    return select(equal(x, 0.0), copysign(x.constant(INF), -x), value)


@function("digamma")
@wide
def digamma(x: Term) -> Term:
    """The derivative of log gamma; NaN at -1, -2, ..."""
    return psi(x)


def cotangent_derivative(order: int) -> list[int]:
    """The derivative of cot of that order as a polynomial in cot, lowest power first."""
    powers = [0, 1]
    for _ in range(order):
        slopes = [k * c for k, c in enumerate(powers)][1:]
        powers = [0] * (len(slopes) + 2)
        for k, c in enumerate(slopes):
            powers[k] -= c
            powers[k + 2] -= c
    return powers


def power_of(x: Term, n: int) -> Term:
    """x**n for n >= 1, by squaring."""
    if n == 1:
        return x
    half = power_of(x, n // 2)
    return half * half * x if n % 2 else half * half


@function("polygamma")
@wide
def polygamma(n: Term, x: Term) -> Term:
    """The n-th derivative of digamma (n a constant): recurrence, asymptotic series, and reflection below 0.

    At 0, -1, -2, ...: inf for odd n, -inf for even n.
    """
    if not isinstance(n.expr, Const):
        raise IRError("polygamma: the order must be a constant")
    order = int(n.expr.value)
    if order == 0:
        return psi(x)
    y, passed = shifted(select(x < 0.0, 1.0 - x, x), 16.0, 16, lambda v: 1.0 / power_of(v, order + 1))
    inverse = 1.0 / y
    terms = [Fraction(math.factorial(order - 1)), Fraction(math.factorial(order), 2)]  # of y**-n, y**-(n + 1), then even steps
    terms += [BERNOULLI[2 * k] * math.factorial(2 * k + order - 1) / math.factorial(2 * k) for k in range(1, 11)]
    even = polynomial(inverse * inverse, [float(t) for t in (terms[0], *terms[2:])])
    series = power_of(inverse, order) * fma(inverse, even.constant(float(terms[1])), even)
    value = (series + passed * float(math.factorial(order))) * (1.0 if order % 2 else -1.0)
    cotangent = 1.0 / tan(turn_remainder(x))
    slope = polynomial(cotangent, [c * math.pi ** (order + 1) for c in cotangent_derivative(order)])
    mirrored = value * (-1.0 if order % 2 else 1.0) - slope
    pole = (x <= 0.0) & equal(call("trunc", x), x)
    return select(pole, x.constant(INF if order % 2 else -INF), select(x < 0.0, mirrored, value))


# ---- modified Bessel functions --------------------------------------------------------------------------------------


def scaled_bessel(size: Term, small: tuple[float, ...], large: tuple[float, ...]) -> tuple[Term, Term]:
    """The two approximations, up to 8 and from 8, of what the tables hold."""
    near = polynomial(fma(at_most(size, 8.0), 0.25, size.constant(-1.0)), small)
    far = at_least(size, 8.0)
    return near, polynomial(16.0 / far - 1.0, large) / call("sqrt", far)


def bessel_0(size: Term) -> Term:
    """exp(-x) I0(x) for x >= 0."""
    near, far = scaled_bessel(size, p.I0_SMALL, p.I0_LARGE)
    return select(size < 8.0, near, far)


def bessel_1(size: Term) -> Term:
    """exp(-x) I1(x) for x >= 0."""
    near, far = scaled_bessel(size, p.I1_SMALL, p.I1_LARGE)
    return select(size < 8.0, near * size, far)


def unscaled(size: Term, value: Term) -> Term:
    """exp(size) * value without overflow on the way."""
    half = exp(size * 0.5)
    return select(equal(size, INF), INF, half * value * half)


@function("i0e")
@wide
def i0e(x: Term) -> Term:
    """exp(-abs(x)) * I0(x)."""
    return bessel_0(abs(x))


@function("i0")
@wide
def i0(x: Term) -> Term:
    """The modified Bessel function of the first kind, order 0."""
    return unscaled(abs(x), bessel_0(abs(x)))


@function("i1e")
@wide
def i1e(x: Term) -> Term:
    """exp(-abs(x)) * I1(x)."""
    return copysign(bessel_1(abs(x)), x)


@function("i1")
@wide
def i1(x: Term) -> Term:
    """The modified Bessel function of the first kind, order 1."""
    return copysign(unscaled(abs(x), bessel_1(abs(x))), x)
