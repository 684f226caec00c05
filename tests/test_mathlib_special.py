"""mathlib's special functions: errors in ULP against mpmath, special values, and the order of polygamma."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import scipy.special

from graphc.codegen import python
from graphc.codegen.mathlib import expand
from graphc.dtypes import float64, int64
from graphc.errors import IRError
from graphc.ir.loops import Call, Const, Kernel, Let, Load, Param, Store
from mathlib_numpy import apply, evaluated, kernel_of

INF, NAN = math.inf, math.nan


def of_normal(x):
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def inverse_of_normal(x):
    return mpmath.findroot(lambda y: mpmath.log(of_normal(y)) - mpmath.log(x), scipy.special.ndtri(float(x)))


EXACT = {
    "erfc": mpmath.erfc,
    "erfcx": lambda x: mpmath.erfc(x) * mpmath.exp(x * x),
    "erfinv": mpmath.erfinv,
    "ndtr": of_normal,
    "ndtri": inverse_of_normal,
    "log_ndtr": lambda x: mpmath.log(of_normal(x)),
    "lgamma": lambda x: mpmath.re(mpmath.loggamma(x)),
    "digamma": mpmath.digamma,
    "i0": lambda x: mpmath.besseli(0, x),
    "i0e": lambda x: mpmath.besseli(0, x) * mpmath.exp(-abs(x)),
    "i1": lambda x: mpmath.besseli(1, x),
    "i1e": lambda x: mpmath.besseli(1, x) * mpmath.exp(-abs(x)),
    "asinh": mpmath.asinh,
    "acosh": mpmath.acosh,
    "atanh": mpmath.atanh,
}
# Where a function is tried, and the largest error in ULP of float64 that may be found; absolute near zeros of the function
CASES = [
    ("erfc", -6, 26, 8.0), ("erfcx", -26, 50, 8.0), ("erfinv", -1, 1, 4.0), ("ndtr", -37, 8, 8.0), ("ndtri", 0, 1, 8.0),
    ("log_ndtr", -50, 8, 8.0), ("lgamma", 0.01, 0.9, 4.0), ("lgamma", 2.1, 300, 4.0), ("digamma", 2, 300, 6.0),
    ("digamma", 0.01, 1.2, 12.0), ("i0", -30, 30, 8.0), ("i0e", -30, 30, 8.0), ("i1", -30, 30, 12.0), ("i1e", -30, 30, 12.0),
    ("asinh", -9, 9, 3.0), ("acosh", 1, 9, 3.0), ("atanh", -1, 1, 3.0),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "low", "high", "limit"), CASES)
def test_float64_error(fn, low, high, limit):
    xs = np.random.default_rng(3).uniform(low, high, 200)
    got = apply(fn, xs)
    with mpmath.workdps(40):
        exact = [EXACT[fn](mpmath.mpf(float(x))) for x in xs]
        worst = max(float(abs((mpmath.mpf(float(g)) - e) / e)) for g, e in zip(got, exact, strict=True)) * 2.0**52
    assert worst <= limit, worst


@pytest.mark.parametrize(("fn", "low", "high", "limit"), CASES)
def test_float32_is_rounded_once(fn, low, high, limit):
    xs = np.random.default_rng(3).uniform(low, high, 2000).astype(np.float32)
    wide = apply(fn, xs.astype(np.float64))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(apply(fn, xs), wide.astype(np.float32))


def test_log_gamma_near_its_zeros_and_of_negative_numbers():
    xs = np.concatenate([np.linspace(0.99, 1.01, 21), np.linspace(1.99, 2.01, 21), np.linspace(-5.97, -0.031, 101)])
    with mpmath.workdps(40):
        exact = np.array([float(EXACT["lgamma"](mpmath.mpf(float(x)))) for x in xs])
    np.testing.assert_allclose(apply("lgamma", xs), exact, rtol=1e-14, atol=1e-14)


def test_hypot_neither_overflows_nor_underflows():
    x, y = np.array([3e300, 3e-300, 0.0, INF, NAN, NAN]), np.array([4e300, 4e-300, 0.0, NAN, -INF, 1.0])
    np.testing.assert_allclose(apply("hypot", x, y), [5e300, 5e-300, 0, INF, INF, NAN], rtol=1e-15)


SPECIAL = np.array([0.0, -0.0, INF, -INF, NAN, 1.0, -1.0, 2.0, -2.0, 0.5, 1e308])
SCIPY = {
    "lgamma": scipy.special.gammaln, "digamma": scipy.special.psi, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
}  # fmt: skip


@pytest.mark.parametrize("fn", EXACT)
def test_special_values(fn):
    with np.errstate(all="ignore"):
        expected = SCIPY.get(fn, getattr(scipy.special, fn, None))(SPECIAL)
    if fn in ("i0", "i1"):
        expected[2:4] = [INF, INF if fn == "i0" else -INF]
    if fn == "lgamma":
        expected[3] = INF
    np.testing.assert_allclose(apply(fn, SPECIAL), expected, rtol=1e-13, atol=1e-300)


def polygamma(n, xs):
    """polygamma of a constant order, through `expand` and the primitives."""
    params = (Param("x0", "in", float64), Param("out", "out", float64))
    call = Call("polygamma", (Const(n, int64), Load("x0", 0, float64)), float64)
    values = {"x0": xs}
    with np.errstate(all="ignore"):
        for statement in expand(Kernel("k", params, (Store("out", 0, call),))).body:
            name = statement.name if isinstance(statement, Let) else statement.buffer
            values[name] = np.broadcast_to(evaluated(statement.value, values), xs.shape)
    return values["out"]


@pytest.mark.parametrize("n", range(7))
def test_polygamma(n):
    rng = np.random.default_rng(5)
    xs = np.concatenate([rng.uniform(0.05, 30, 60), rng.uniform(-7.9, -0.1, 60)])
    with mpmath.workdps(40):
        exact = [float(mpmath.polygamma(n, mpmath.mpf(float(x)))) for x in xs]
    np.testing.assert_allclose(polygamma(n, xs), exact, rtol=1e-11, atol=1e-11)


def test_polygamma_at_poles():
    poles = np.array([0.0, -1.0, -2.0])
    np.testing.assert_array_equal(polygamma(1, poles), [INF] * 3)
    np.testing.assert_array_equal(polygamma(2, poles), [-INF] * 3)


def test_the_order_of_polygamma_must_be_a_constant():
    with pytest.raises(IRError, match="the order must be a constant"):
        expand(kernel_of("polygamma", [int64, float64], float64))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_frexp(dtype):
    rng = np.random.default_rng(1)
    numbers = rng.standard_normal(99) * 10.0 ** rng.uniform(-30, 30, 99)
    x = np.concatenate([numbers, SPECIAL[:-1], [1e-40, -5e-324]]).astype(dtype)
    mantissa, exponent = np.frexp(x)
    np.testing.assert_array_equal(apply("frexp_mantissa", x), mantissa)
    np.testing.assert_array_equal(apply("frexp_exponent", x), np.where(np.isfinite(x), exponent, 0))


@pytest.mark.parametrize("fn", [*EXACT, "hypot", "frexp_mantissa"])
def test_the_python_renderer_gets_the_same_bits(fn):
    xs = np.random.default_rng(5).uniform(0.1, 0.9, 6)
    arrays = [xs, xs[::-1].copy()] if fn == "hypot" else [xs]
    program = python.compiled(kernel_of(fn, [float64] * len(arrays), float64))
    got = np.zeros(6)
    with np.errstate(all="ignore"):
        for k in range(6):
            assert program({**{f"x{i}": a[k : k + 1] for i, a in enumerate(arrays)}, "out": got[k : k + 1]}, {}) == 0
    np.testing.assert_array_equal(got, apply(fn, *arrays))
