"""Reproduce the coefficient tables of `graphc.codegen.polynomials_special` (a developer's tool; needs mpmath, never shipped).

Enters: nothing.  Leaves: on standard output, the text of the tables.  Run `python tools/fit_special.py`.

Each table interpolates at Chebyshev points in 50 digits; the series is written out in powers of its argument t in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable

from mpmath import besseli, cos, erfc, erfinv, exp, log, loggamma, mp, mpf, pi, sqrt

mp.dps = 50
Function = Callable[[mpf], mpf]
ERFCX_CENTRE, TAIL_CENTRE = 3, mpf(4)
TAIL_LOW = sqrt(-log(1 - sqrt(mpf("0.5"))))  # where the centre of erfinv ends


def chebyshev(function: Function, degree: int) -> list[float]:
    """Coefficients of powers of t, lowest first, of the interpolating polynomial on [-1, 1]."""
    count = 2 * degree + 2
    points = [cos(pi * (k + mpf(0.5)) / count) for k in range(count)]
    values = [function(t) for t in points]
    series = [2 * sum(y * cos(j * pi * (k + mpf(0.5)) / count) for k, y in enumerate(values)) / count for j in range(degree + 1)]
    series[0] /= 2
    powers = [mpf(0)] * (degree + 1)
    before, now = [mpf(1)], [mpf(0), mpf(1)]  # T0, T1
    for term in series:
        for k, coefficient in enumerate(before):
            powers[k] += term * coefficient
        following = [mpf(0)] + [2 * c for c in now]
        for k, coefficient in enumerate(before):
            following[k] -= coefficient
        before, now = now, following
    return [float(c) for c in powers]


def erfcx_factor(t: mpf) -> mpf:
    """(1 + 2 x) exp(x*x) erfc(x) where t = (x - 3) / (x + 3) (Shepherd and Laframboise 1981)."""
    x = ERFCX_CENTRE * (1 + t) / (1 - t)
    if x < 1000:
        return (1 + 2 * x) * exp(x * x) * erfc(x)
    total, term = mpf(1), mpf(1)
    for k in range(1, 12):
        term *= -(2 * k - 1) / (2 * x * x)
        total += term
    return (1 + 2 * x) / (x * sqrt(pi)) * total


def log_gamma_factor(t: mpf) -> mpf:
    """log gamma(x) / ((x - 1) (x - 2)) where x = 1.5 + t / 2."""
    x = mpf(1.5) + t / 2
    return loggamma(x) / ((x - 1) * (x - 2))


def bessel_small(order: int) -> Function:
    """exp(-x) I_order(x) (over x for order 1) where x = 4 + 4 t."""

    def function(t: mpf) -> mpf:
        x = 4 + 4 * t
        return exp(-x) * besseli(order, x) / x**order

    return function


def bessel_large(order: int) -> Function:
    """sqrt(x) exp(-x) I_order(x) where 8 / x = (1 + t) / 2."""

    def function(t: mpf) -> mpf:
        x = 16 / (1 + t)
        if x < 2000:
            return exp(-x) * besseli(order, x) * sqrt(x)
        total, term = mpf(1), mpf(1)
        for k in range(1, 15):
            term *= -(mpf(4 * order * order) - (2 * k - 1) ** 2) / (k * 8 * x)
            total += term
        return total / sqrt(2 * pi)

    return function


def erfinv_centre(t: mpf) -> mpf:
    """erfinv(x) / x where x*x = (1 + t) / 4."""
    x = sqrt((1 + t) / 4)
    return erfinv(x) / x


def erfc_inverse_tail(t: mpf) -> mpf:
    """erfc's inverse at exp(-v*v), over v, where t runs over (v - 4) / (v + 4) for v from TAIL_LOW to 28."""
    low, high = ((v - TAIL_CENTRE) / (v + TAIL_CENTRE) for v in (TAIL_LOW, mpf(28)))
    w = low + (high - low) * (1 + t) / 2
    v = TAIL_CENTRE * (1 + w) / (1 - w)
    goal, y = -v * v, v
    for _ in range(60):  # Newton on the logarithm
        step = (log(erfc(y)) - goal) / (-2 / sqrt(pi) * exp(-y * y) / erfc(y))
        y -= step
        if abs(step) < mpf(10) ** -40:
            break
    return y / v


TABLES: dict[str, tuple[Function, int]] = {
    "ERFCX_FACTOR": (erfcx_factor, 25),
    "LOG_GAMMA": (log_gamma_factor, 21),
    "I0_SMALL": (bessel_small(0), 30),
    "I0_LARGE": (bessel_large(0), 23),
    "I1_SMALL": (bessel_small(1), 30),
    "I1_LARGE": (bessel_large(1), 23),
    "ERFINV_CENTRE": (erfinv_centre, 20),
    "ERFC_INVERSE_TAIL": (erfc_inverse_tail, 33),
}

HEADER = '''"""Coefficients of the polynomials of `mathlib_special`, lowest power of t in [-1, 1] first, as exact hexadecimals.

Enters: nothing.  Leaves: one tuple a table.  Never here: arithmetic.  Written by tools/fit_special.py, which says what each
one approximates; the comment is the largest relative error.
"""

from __future__ import annotations


def _exact(text: str) -> tuple[float, ...]:
    return tuple(map(float.fromhex, text.split()))

'''


def worst(function: Function, coefficients: list[float]) -> mpf:
    """The largest relative error over a grid."""
    found = mpf(0)
    for k in range(301):
        t = mpf("-0.999999") + mpf("1.999998") * k / 301
        value = mpf(0)
        for c in reversed(coefficients):
            value = value * t + c
        found = max(found, abs(value / function(t) - 1))
    return found


def main() -> None:
    """Print the file."""
    print(HEADER)
    for name, (function, degree) in TABLES.items():
        coefficients = chebyshev(function, degree)
        lines = [""]
        for word in (c.hex() for c in coefficients):
            if len(lines[-1]) + len(word) > 110:
                lines.append("")
            lines[-1] += f" {word}" if lines[-1] else word
        body = "\n    ".join(lines)
        print(f'{name} = _exact(  # 2**{float(log(worst(function, coefficients), 2)):.1f}\n    """{body}"""\n)')


if __name__ == "__main__":
    main()
