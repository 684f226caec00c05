"""Inverse hyperbolic functions and hypot, made of logarithms and square roots.

Enters, leaves: Terms (see `terms`).  Never here: polynomials.  float32 is computed in float64 and rounded once.
"""

from __future__ import annotations

import math

from graphc.codegen.mathlib_exponential import log, log1p
from graphc.codegen.mathlib_special import wide
from graphc.codegen.terms import Term, at_most, call, copysign, equal, fma, function, select

LARGE = 2.0**28  # beyond it x*x + 1 is x*x


@function("asinh")
@wide
def asinh(x: Term) -> Term:
    """log(x + sqrt(x*x + 1)), from log1p so that small arguments keep their digits."""
    size = abs(x)
    capped = at_most(size, LARGE)
    square = capped * capped
    near = log1p(capped + square / (call("sqrt", square + 1.0) + 1.0))
    return copysign(select(size > LARGE, log(size) + math.log(2.0), near), x)


@function("acosh")
@wide
def acosh(x: Term) -> Term:
    """log(x + sqrt(x*x - 1)); NaN below 1."""
    above = x - 1.0
    capped = at_most(above, LARGE)
    near = log1p(capped + call("sqrt", fma(capped, capped, capped + capped)))
    return select(x < 1.0, math.nan, select(above > LARGE, log(x) + math.log(2.0), near))


@function("atanh")
@wide
def atanh(x: Term) -> Term:
    """log((1 + x) / (1 - x)) / 2; +-inf at +-1, NaN beyond."""
    size = abs(x)
    return copysign(log1p((size + size) / (1.0 - size)) * 0.5, x)


@function("hypot")
@wide
def hypot(x: Term, y: Term) -> Term:
    """sqrt(x*x + y*y) without overflow; inf if either is infinite."""
    x, y = abs(x), abs(y)
    larger, smaller = select(x > y, x, y), select(x > y, y, x)
    ratio = smaller / select(equal(larger, 0.0), 1.0, larger)
    value = select(equal(larger, math.inf), larger, larger * call("sqrt", fma(ratio, ratio, ratio.constant(1.0))))
    return select(equal(x, math.inf) | equal(y, math.inf), math.inf, value)
