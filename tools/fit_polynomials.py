"""Reproduce the coefficient tables of `graphc.codegen.polynomials` (a developer's tool; needs mpmath, never shipped).

Enters: nothing.  Leaves: on standard output, the text of the tables.  Run `python tools/fit_polynomials.py [NAME ...]`.

Each table is a minimax fit: the exchange algorithm of Remez (1934) on a fixed grid of Chebyshev points, in 60 digits.
A coefficient is rounded to its dtype as soon as it is known, lowest power first, and the rest is fitted again around it
(on intervals around 0, where that is not possible, all are rounded at the end).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import mpmath
import numpy as np
from mpmath import mp, mpf

Function = Callable[[mpf], mpf]


@dataclass(frozen=True)
class Fit:
    """Approximate `function` on [low, high] by a polynomial of `degree`, keeping max |weight * error| least.

    bits: 24 or 53, what a coefficient is rounded to.
    """

    function: Function
    low: float | mpf
    high: float | mpf
    degree: int
    bits: int
    weight: Function = lambda x: mpf(1)


def rounded(value: mpf, bits: int) -> mpf:
    """`value` rounded to the nearest float32 (bits 24) or float64 (53)."""
    return mpf(float(np.float32(float(value)))) if bits == 24 else mpf(float(value))


def exchange(xs: list[mpf], ys: list[mpf], weights: list[mpf], powers: list[int]) -> tuple[list[mpf], mpf]:
    """Coefficients of `powers` and the largest weighted error on the grid `xs`."""
    count = len(powers) + 1
    last = len(xs) - 1
    unit = max(abs(xs[0]), abs(xs[-1]))  # keeps the matrix well scaled
    picks = [round(last * (1 - np.cos(np.pi * k / (count - 1))) / 2) for k in range(count)]
    for _ in range(30):
        matrix = mpmath.matrix(count, count)
        right = mpmath.matrix(count, 1)
        for row, i in enumerate(picks):
            for column, power in enumerate(powers):
                matrix[row, column] = weights[i] * (xs[i] / unit) ** power
            matrix[row, count - 1] = (-1) ** row
            right[row] = weights[i] * ys[i]
        solution = mp.lu_solve(matrix, right)
        coefficients = [c / unit**power for c, power in zip(list(solution)[:-1], powers, strict=True)]
        errors = [w * (value(coefficients, powers, x) - y) for x, y, w in zip(xs, ys, weights, strict=True)]
        worst = max(map(abs, errors))
        if worst <= abs(solution[count - 1]) * mpf("1.0001"):
            break
        picks = alternating_extrema(errors, count)
    return coefficients, worst


def value(coefficients: list[mpf], powers: list[int], x: mpf) -> mpf:
    """The polynomial at `x`; powers are consecutive."""
    total = mpf(0)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total * x ** powers[0]


def alternating_extrema(errors: list[mpf], count: int) -> list[int]:
    """Indices of `count` extrema of alternating sign, the largest errors among them."""
    picks: list[int] = []
    for i, error in enumerate(errors):
        if picks and (error > 0) == (errors[picks[-1]] > 0):
            if abs(error) > abs(errors[picks[-1]]):
                picks[-1] = i
        else:
            picks.append(i)
    while len(picks) > count:
        if len(picks) == count + 1:
            picks.pop(0 if abs(errors[picks[0]]) < abs(errors[picks[-1]]) else -1)
        else:  # take out the smallest extremum together with its smaller neighbour: signs go on alternating
            k = min(range(len(picks)), key=lambda j: abs(errors[picks[j]]))
            if k in (0, len(picks) - 1):
                picks.pop(k)
            else:
                neighbour = k - 1 if abs(errors[picks[k - 1]]) < abs(errors[picks[k + 1]]) else k + 1
                for j in sorted((k, neighbour), reverse=True):
                    picks.pop(j)
    if len(picks) < count:
        raise ArithmeticError("the error has too few extrema: the degree is more than the grid can tell")
    return picks


def solve(fit: Fit) -> tuple[list[float], float]:
    """The rounded coefficients, lowest power first, and the largest weighted error before the last rounding."""
    points = 40 * (fit.degree + 3)
    low, high = mpf(fit.low), mpf(fit.high)
    xs = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * (k + mpf(0.5)) / points) for k in range(points)]
    xs = [x for x in xs if x != 0]
    ys = [fit.function(x) for x in xs]
    weights = [fit.weight(x) for x in xs]
    coefficients, worst = exchange(xs, ys, weights, list(range(fit.degree + 1)))
    if low < 0:  # without the low powers the rest would be no Haar system here: round all at once
        return [float(rounded(c, fit.bits)) for c in coefficients], float(worst)
    done = [rounded(coefficients[0], fit.bits)]
    for power in range(1, fit.degree + 1):
        rest = [y - value(done, list(range(power)), x) for x, y in zip(xs, ys, strict=True)]
        coefficients, worst = exchange(xs, rest, weights, list(range(power, fit.degree + 1)))
        done.append(rounded(coefficients[0], fit.bits))
    return [float(c) for c in done], float(worst)


# ---- what is approximated -------------------------------------------------------------------------------------------
# `root` functions are even or odd ones written in the square of their argument; TINY keeps the fit off 0 / 0.

TINY = mpf(10) ** -12
ERF_CENTRE_FLOAT32, ERFCX_CENTRE = mpf(2.5), mpf(3)


def root(function: Function) -> Function:
    return lambda square: function(mp.sqrt(square))


def erfcx_at(v: mpf) -> mpf:
    """exp(x*x) * erfc(x) where v = (x - 3) / (x + 3)."""
    x = ERFCX_CENTRE * (1 + v) / (1 - v)
    return mp.erfc(x) * mp.exp(x * x)


def erfcx_weight(v: mpf) -> mpf:
    return mp.exp(-((ERFCX_CENTRE * (1 + v) / (1 - v)) ** 2))


def mapped(x: float) -> mpf:
    return (mpf(x) - ERFCX_CENTRE) / (mpf(x) + ERFCX_CENTRE)


def tables() -> dict[str, Fit]:
    """Every table: name -> fit."""
    half_ln2 = mp.log(2) / 2 * mpf("1.0005")
    octant_square = (mp.pi / 4 * mpf("1.003")) ** 2
    log_low, log_high = mp.sqrt(mpf(0.5)) - 1, mp.sqrt(mpf(2)) - 1
    atanh_square = mpf("0.1716") ** 2

    def identity(x: mpf) -> mpf:
        return x

    def square(x: mpf) -> mpf:
        return x * x

    def exp(r: mpf) -> mpf:
        return (mp.expm1(r) - r) / r**2

    def exp2(r: mpf) -> mpf:
        return mp.expm1(r * mp.log(2)) / r

    def log(f: mpf) -> mpf:
        return (mp.log1p(f) - f + f * f / 2) / f**3

    def log_quotient(z: mpf) -> mpf:
        return 2 * (mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z

    def log2_ratio(z: mpf) -> mpf:
        return 2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) / mp.log(2)

    def log2_rest(z: mpf) -> mpf:
        return (log2_ratio(z) - 2 / mp.log(2) * (1 + z / 3)) / z**2

    def cubic(function: Function) -> Function:
        """(function(x) / x - 1) / x**2 in x**2."""
        return root(lambda x: (function(x) / x - 1) / x**2)

    cosine = root(lambda x: (mp.cos(x) - 1 + x * x / 2) / x**4)
    erf_ratio = root(lambda x: mp.erf(x) / x - 1)
    erf_low, erf_high = mpf(1.1) - ERF_CENTRE_FLOAT32, mpf(4) - ERF_CENTRE_FLOAT32

    def erf_shifted(t: mpf) -> mpf:
        return mp.erf(t + ERF_CENTRE_FLOAT32)

    sine, arctangent, arcsine = cubic(mp.sin), cubic(mp.atan), cubic(mp.asin)
    return {
        "EXP_FLOAT32": Fit(exp, -half_ln2, half_ln2, 4, 24, square),
        "EXP_FLOAT64": Fit(exp, -half_ln2, half_ln2, 10, 53, square),
        "EXP2_FLOAT32": Fit(exp2, -0.5, 0.5, 5, 24, abs),
        "EXP2_FLOAT64": Fit(exp2, -0.5, 0.5, 11, 53, abs),
        "EXP2_SHORT": Fit(exp2, -0.5, 0.5, 6, 53, abs),
        "TANH_FLOAT32": Fit(cubic(mp.tanh), TINY, 0.625**2, 4, 24, identity),
        "TANH_FLOAT64": Fit(cubic(mp.tanh), TINY, 0.625**2, 11, 53, identity),
        "SINH_FLOAT32": Fit(cubic(mp.sinh), TINY, 1, 3, 24, identity),
        "SINH_FLOAT64": Fit(cubic(mp.sinh), TINY, 1, 6, 53, identity),
        "ERF_SMALL_FLOAT32": Fit(erf_ratio, TINY, mpf(1.1) ** 2, 6, 24),
        # tight at the end, where all larger arguments are put: erf is exactly 1 there
        "ERF_LARGE_FLOAT32": Fit(erf_shifted, erf_low, erf_high, 13, 24, lambda t: 1 + 3 * (t / erf_high) ** 16),
        "ERF_SMALL_FLOAT64": Fit(erf_ratio, TINY, 1, 11, 53),
        "ERFCX_FLOAT64": Fit(erfcx_at, mapped(1.0), mapped(5.95), 12, 53, erfcx_weight),
        "LOG_FLOAT32": Fit(log, log_low, log_high, 8, 24, square),
        "LOG_FLOAT64": Fit(log_quotient, TINY, atanh_square, 6, 53, identity),
        "LOG2_SHORT": Fit(log2_ratio, TINY, atanh_square, 5, 53),
        "LOG2_REST": Fit(log2_rest, mpf(10) ** -8, atanh_square, 7, 53, square),
        "SIN_FLOAT32": Fit(sine, TINY, octant_square, 2, 24, identity),
        "COS_FLOAT32": Fit(cosine, mpf(10) ** -10, octant_square, 2, 24, square),
        "SIN_SHORT": Fit(sine, TINY, octant_square, 3, 53, identity),
        "COS_SHORT": Fit(cosine, mpf(10) ** -10, octant_square, 2, 53, square),
        "SIN_FLOAT64": Fit(sine, TINY, octant_square, 5, 53, identity),
        "COS_FLOAT64": Fit(cosine, mpf(10) ** -10, octant_square, 5, 53, square),
        "ATAN_SHORT": Fit(arctangent, TINY, mpf("0.1717"), 4, 53, identity),
        "ATAN_FLOAT64": Fit(arctangent, TINY, mpf("0.1717"), 10, 53, identity),
        "ASIN_SHORT": Fit(arcsine, TINY, 0.25, 5, 53, identity),
        "ASIN_FLOAT64": Fit(arcsine, TINY, 0.25, 12, 53, identity),
    }


HEADER = '''"""Coefficients of the polynomials of `mathlib`, lowest power first, as exact hexadecimal floats.

Enters: nothing.  Leaves: one tuple a table.  Never here: arithmetic.  Written by tools/fit_polynomials.py, which says
what each one approximates and where; the comment is the largest weighted error.
"""

from __future__ import annotations


def _exact(text: str) -> tuple[float, ...]:
    return tuple(map(float.fromhex, text.split()))

'''


def text_of(name: str, coefficients: list[float], worst: float) -> str:
    """The lines of one table."""
    words = [short_hex(c) for c in coefficients]
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > 110:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    body = "\n    ".join(lines)
    return f'{name} = _exact(  # 2**{np.log2(worst):.1f}\n    """{body}"""\n)\n'


def short_hex(value: float) -> str:
    """`float.hex` without trailing zeros."""
    digits, exponent = value.hex().split("p")
    return f"{digits.rstrip('0').rstrip('.')}p{exponent}"


def main(names: list[str]) -> None:
    """Print the tables called `names`, or the whole file."""
    if not names:
        print(HEADER)
    for name, fit in tables().items():
        if not names or name in names:
            print(text_of(name, *solve(fit)), end="")


if __name__ == "__main__":
    mp.dps = 60
    main(sys.argv[1:])
