"""NumPy references of the special functions, in float64 and by other ways than the kernels go.

Enters: arrays.  Leaves: arrays of their dtype.  Never here: operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def elementwise(function: Callable[[float], float]) -> Callable[[Any, Any], Any]:
    """A reference from a function of one float; NaN gives NaN, and what fails gives NaN."""

    def of(value: float) -> float:
        try:
            return math.nan if math.isnan(value) else function(value)
        except (ValueError, ZeroDivisionError):
            return math.nan
        except OverflowError:
            return math.inf

    def reference(xp: Any, x: Any) -> Any:
        values = np.asarray(x.get() if hasattr(x, "get") else x)
        return xp.asarray(np.vectorize(of, otypes=[np.float64])(values.astype(np.float64)).astype(values.dtype))

    return reference


def scaled_complement(x: float) -> float:
    """exp(x*x) * erfc(x)."""
    if x < 25:
        return math.inf if x < -26.7 else math.exp(x * x) * math.erfc(x)
    return 1 / (x * math.sqrt(math.pi)) * (1 - 1 / (2 * x * x)) if x < math.inf else 0.0


def normal(x: float) -> float:
    """The normal distribution function."""
    return math.erfc(-x / math.sqrt(2)) / 2


def log_normal(x: float) -> float:
    """Its logarithm."""
    if x > -5:
        return math.log1p(-normal(-x)) if x > 0 else math.log(normal(x))
    return math.log(scaled_complement(-x / math.sqrt(2)) / 2) - x * x / 2 if x > -math.inf else -math.inf


def inverse_normal(p: float) -> float:
    """The inverse of the normal distribution function."""
    from statistics import NormalDist  # it brings fractions and decimals with it

    ends = {0.0: -math.inf, 1.0: math.inf}
    return ends[p] if p in ends else NormalDist().inv_cdf(p)


def log_gamma(x: float) -> float:
    """log(abs(gamma(x)))."""
    pole = x <= 0 and x == math.floor(x)
    return math.inf if pole or math.isinf(x) else math.lgamma(x)


def harmonic(x: float) -> float:
    """Digamma: the recurrence up to 30, then the asymptotic series."""
    if x == 0:
        return math.copysign(math.inf, -x)
    if x < 0:
        return math.nan if math.isinf(x) or x == math.floor(x) else harmonic(1 - x) - math.pi / math.tan(math.pi * (x - round(x)))
    if x == math.inf:
        return x
    total = 0.0
    while x < 30:
        total -= 1 / x
        x += 1
    square = 1 / (x * x)
    return total + math.log(x) - 0.5 / x - square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240)))


def polygamma_array(xp: Any, x: Any, n: int) -> Any:
    """The n-th derivative of digamma for x > 0: n! times the Hurwitz zeta function, by Euler and Maclaurin."""
    if n == 0:
        return elementwise(harmonic)(xp, x)
    y = x.astype(np.float64)
    k = xp.arange(40, dtype=np.float64)
    total = ((y[..., None] + k) ** -(n + 1)).sum(axis=-1)
    end = y + 40
    total = total + end**-n / n + 0.5 * end ** -(n + 1) + (n + 1) / 12 * end ** -(n + 2)
    total = total - (n + 1) * (n + 2) * (n + 3) / 720 * end ** -(n + 4)
    return xp.asarray((-1) ** (n + 1) * math.factorial(n) * total).astype(x.dtype)


def bessel(order: int, scaled: bool) -> Callable[[Any, Any], Any]:
    """I of an order, times exp(-abs(x)) where `scaled`: the integral over an angle by the trapezoidal rule."""

    def reference(xp: Any, x: Any) -> Any:
        size = xp.abs(x.astype(np.float64))
        angle = (xp.arange(2000, dtype=np.float64) + 0.5) * (math.pi / 2000)
        finite = xp.minimum(size, 1e4)
        value = (xp.exp(finite[..., None] * (xp.cos(angle) - 1)) * xp.cos(order * angle)).mean(axis=-1)
        value = xp.where(size > 1e4, 1 / xp.sqrt(2 * math.pi * size), value)
        value = value if scaled else xp.where(size == math.inf, math.inf, value * xp.exp(size))
        value = xp.where(xp.isnan(size), size, value)
        return xp.asarray(xp.copysign(value, x.astype(np.float64)) if order else value).astype(x.dtype)

    return reference
