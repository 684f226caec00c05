"""mathlib: errors in ULP against wider arithmetic, special values against C99, and the frame that opens calls."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import scipy.special

from graphc.codegen import python
from graphc.codegen.mathlib import NAMES, expand
from graphc.dims import Dim
from graphc.dtypes import bool_, float16, float32, float64, int8, int32, int64, uint8, uint32, uint64
from graphc.errors import IRError
from graphc.ir.loops import FUNCTIONS, Call, Check, Const, For, Kernel, Let, Load, Param, Store, Var, walk
from mathlib_numpy import apply, kernel_of
from test_mathlib_special import EXACT

INF, NAN = math.inf, math.nan
EXTENDED = np.finfo(np.longdouble).nmant >= 63  # else float64 results are compared with mpmath, at fewer points

# Largest error in ULP that a test may find.  Found by longer searches (every 97th float32; 10**6 float64):
LIMITS = {  # name: (float32, float64)       found
    "exp": (1.1, 1.1),  #                   1.03, 0.96
    "exp2": (1.1, 1.1),  #                  0.96, 0.88
    "expm1": (1.7, 1.9),  #                 1.54, 1.78
    "log": (0.9, 0.9),  #                   0.80, 0.80
    "log1p": (0.9, 0.9),  #                 0.82, 0.81
    "log2": (0.51, 0.51),  #                0.50, 0.50
    "log10": (0.51, 0.51),  #               0.50, 0.50
    "sin": (1.7, 0.9),  #                   1.57, 0.78
    "cos": (1.7, 0.9),  #                   1.58, 0.76
    "tan": (0.52, 1.0),  #                  0.51, 0.92
    "tanh": (1.4, 1.5),  #                  1.30, 1.31
    "sigmoid": (1.8, 1.8),  #               1.63, 1.69
    "erf": (1.3, 1.0),  #                   1.18, 0.85
    "rsqrt": (1.51, 1.51),  #               1.50, 1.50
    "asin": (0.52, 1.7),  #                 0.51, 1.57
    "acos": (0.52, 1.2),  #                 0.51, 1.05
    "atan": (0.52, 1.9),  #                 0.51, 1.82
    "sinh": (1.8, 1.8),  #                  1.62, 1.62
    "cosh": (1.6, 1.6),  #                  1.46, 1.40
    "pow": (0.52, 1.0),  #                  0.51, 0.98
    "atan2": (0.52, 1.9),  #                0.51, 1.82
}  # fmt: skip
ONE_ARGUMENT = [n for n in LIMITS if n not in ("pow", "atan2")]
NUMPY = {"asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "pow": np.power, "atan2": np.arctan2}
MPMATH = {
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "log2": lambda x: mpmath.log(x, 2),
    "log10": mpmath.log10,
    "exp2": lambda x: mpmath.power(2, x),
    "pow": mpmath.power,
}


def wide(fn, *arrays):
    """fn in a wider format than the arrays': float64 for float32, else long double."""
    if arrays[0].dtype == np.float64 and (not EXTENDED or fn == "erf"):
        return np.array([by_mpmath(fn, *map(float, row)) for row in zip(*arrays, strict=True)])
    with np.errstate(all="ignore"):
        arrays = [a.astype(np.float64 if a.dtype == np.float32 else np.longdouble) for a in arrays]
        match fn:
            case "rsqrt":
                return 1 / np.sqrt(arrays[0])
            case "sigmoid":
                e = np.exp(-np.abs(arrays[0]))
                return np.where(arrays[0] < 0, e, 1) / (1 + e)
            case "erf":
                return scipy.special.erf(arrays[0])
        return NUMPY.get(fn, getattr(np, fn, None))(*arrays)


def by_mpmath(fn, *args):
    """fn in 40 digits, as the nearest float and what that lacks: a long double, or float64 where that is all there is."""
    with mpmath.workdps(40), np.errstate(all="ignore"):
        if any(map(math.isnan, args)):
            return np.longdouble(NAN)
        value = MPMATH.get(fn, getattr(mpmath, fn, None))(*map(mpmath.mpf, args))
        if isinstance(value, mpmath.mpc):
            return np.longdouble(NAN)
        head = float(value)
        return np.longdouble(head) + np.longdouble(0 if math.isinf(head) else float(value - head))


def errors_in_ulp(got, expected):
    """|got - expected| in units of the last place of the expected value; inf where only one is NaN or infinite."""
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded = expected.astype(got.dtype)
        size = np.abs(np.where(np.isfinite(expected), expected, 1))
        exponent = np.maximum(np.frexp(size)[1] - 1, info.minexp)
        distance = np.ldexp(np.abs(got.astype(expected.dtype) - expected), info.nmant - exponent).astype(np.float64)
        exact = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
        finite = np.isfinite(got) & np.isfinite(rounded)
        # one step from the largest number to infinity is an error of about one ULP
        at_the_edge = (np.abs(got) >= info.max) & (np.abs(rounded) >= info.max) & (np.sign(got) == np.sign(rounded))
        return np.where(finite, distance, np.where(exact, 0.0, np.where(at_the_edge, 1.0, INF)))


def specials(dtype):
    info = np.finfo(dtype)
    positive = [0.0, 1.0, 0.5, 2.0, 1.5, 3.0, 0.625, 1.1, 10.0, 1000.0, 2.0**24 - 1, 2.0**30, 1e22, math.pi / 2, math.log(2) / 2]
    positive += [info.max, info.tiny, info.smallest_subnormal, info.tiny / 3, 1 - info.epsneg, 1 + info.eps, INF]
    positive += [88.72, 88.73, 87.4, 103.97, 104.0, 709.78, 709.79, 745.13, 745.14, 128, 149, 150, 1024, 1074, 1075, 89.4, 710.47]
    return np.array([sign * v for v in positive for sign in (1, -1)] + [NAN], dtype)


def bit_patterns(rng, count, dtype):
    unsigned = np.uint32 if dtype == np.float32 else np.uint64
    return rng.integers(0, 2 ** (8 * np.dtype(dtype).itemsize), count, dtype=np.uint64).astype(unsigned).view(dtype)


def points(fn, dtype, count):
    """All exponents alike, the middle of the range densely, and special values."""
    rng = np.random.default_rng(7)
    parts = [
        bit_patterns(rng, count, dtype),
        rng.uniform(-1.2, 1.2, count),
        rng.uniform(-20, 20, count),
        rng.uniform(0.5, 2.0, count),
        rng.uniform(-110, 110, count) if dtype == np.float32 else rng.uniform(-760, 760, count),
    ]
    with np.errstate(invalid="ignore"):  # signalling NaNs among the bit patterns
        return np.concatenate([*parts, specials(dtype)]).astype(dtype)


# ---- accuracy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fn", ONE_ARGUMENT)
def test_float32_error(fn):
    x = points(fn, np.float32, 40_000)
    errors = errors_in_ulp(apply(fn, x), wide(fn, x))
    worst = errors.argmax()
    assert errors[worst] <= LIMITS[fn][0], (x[worst], errors[worst])


@pytest.mark.parametrize("fn", ONE_ARGUMENT)
def test_float64_error(fn):
    x = points(fn, np.float64, 10_000 if EXTENDED and fn != "erf" else 300)
    errors = errors_in_ulp(apply(fn, x), wide(fn, x))
    worst = errors.argmax()
    assert errors[worst] <= LIMITS[fn][1], (x[worst], errors[worst])


def pairs(dtype, count):
    rng = np.random.default_rng(8)
    spread = 20 if dtype == np.float32 else 200
    grid = np.meshgrid(specials(dtype), specials(dtype))
    with np.errstate(all="ignore"):
        near, far = (np.exp(rng.normal(0, width, count)) for width in (2, spread))
        x = [bit_patterns(rng, count, dtype), near, far, rng.uniform(-4, 4, count), grid[0].ravel()]
        around = [rng.normal(0, spread / 2, count), rng.normal(0, 4, count), rng.integers(-8, 8, count)]
        y = [bit_patterns(rng, count, dtype), *around, grid[1].ravel()]
        return np.concatenate(x).astype(dtype), np.concatenate(y).astype(dtype)


@pytest.mark.parametrize("fn", ["pow", "atan2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_error_of_two_arguments(fn, dtype):
    x, y = pairs(dtype, 10_000 if EXTENDED or dtype == np.float32 else 300)
    got, expected = apply(fn, x, y), wide(fn, x, y)
    errors = errors_in_ulp(got, expected)
    worst = errors.argmax()
    assert errors[worst] <= LIMITS[fn][dtype == np.float64], (x[worst], y[worst], errors[worst])
    zero = expected == 0
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(expected[zero]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_signs_of_zero(dtype):
    zeros = np.array([0.0, -0.0], dtype)
    for fn in ("expm1", "log1p", "sin", "tan", "tanh", "erf", "asin", "atan", "sinh"):
        np.testing.assert_array_equal(apply(fn, zeros).view(np.uint8), zeros.view(np.uint8), fn)
    np.testing.assert_array_equal(apply("rsqrt", zeros), [INF, -INF])
    np.testing.assert_array_equal(apply("log", zeros), [-INF, -INF])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturated_functions_are_exact(dtype):
    x = np.array([20.0, 1e30, INF], dtype)
    for fn in ("tanh", "erf"):
        np.testing.assert_array_equal(apply(fn, x), np.ones(3, dtype))
        np.testing.assert_array_equal(apply(fn, -x), -np.ones(3, dtype))
    np.testing.assert_array_equal(apply("sigmoid", x * 2), np.ones(3, dtype))
    np.testing.assert_array_equal(apply("exp", -x * 100), np.zeros(3, dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounded_functions_stay_in_bounds(dtype):
    x = np.concatenate([np.linspace(-8, 8, 40_001), np.linspace(0.9, 1.3, 20_001)]).astype(dtype)
    for fn in ("tanh", "erf", "sin", "cos", "sigmoid"):
        assert np.abs(apply(fn, x)).max() <= 1, fn


def test_exact_logarithms():
    k = np.arange(-1074, 1024)
    np.testing.assert_array_equal(apply("log2", np.ldexp(1.0, k)), k)
    np.testing.assert_array_equal(apply("log10", 10.0 ** np.arange(23)), np.arange(23))
    np.testing.assert_array_equal(apply("log10", (10.0 ** np.arange(11)).astype(np.float32)), np.arange(11))
    np.testing.assert_array_equal(apply("exp2", k.astype(np.float64)), np.ldexp(1.0, k))


def test_sine_of_numbers_next_to_multiples_of_half_pi():
    """The hardest arguments: those whose reduction cancels most (float64: 6381956970095103 * 2**797)."""
    hard = np.array([6381956970095103 * 2.0**797, 1e22, 2.0**1023, 2.0**48, 2.0**48 - 1])
    for fn in ("sin", "cos", "tan"):
        expected = np.array([in_many_digits(fn, v) for v in hard])
        assert errors_in_ulp(apply(fn, hard), expected).max() <= 1
    hard32 = np.array([16367173 * 2.0**72, 13176795.0 * 2.0**-22, 3.4028235e38, 2.0**127, 1e10], np.float32)
    for fn in ("sin", "cos", "tan"):
        expected = np.array([in_many_digits(fn, v) for v in hard32])
        assert errors_in_ulp(apply(fn, hard32), expected).max() < 1.6


def in_many_digits(fn, value):
    with mpmath.workdps(400):
        return float(getattr(mpmath, fn)(mpmath.mpf(float(value))))


# ---- special values -------------------------------------------------------------------------------------------------

POW_CASES = [
    (0.0, 0.0, 1.0), (NAN, 0.0, 1.0), (INF, -0.0, 1.0), (1.0, NAN, 1.0), (1.0, INF, 1.0), (-1.0, INF, 1.0), (-1.0, -INF, 1.0),
    (-1.0, NAN, NAN), (NAN, 1.0, NAN), (2.0, NAN, NAN), (0.0, 3.0, 0.0), (-0.0, 3.0, -0.0), (-0.0, 2.0, 0.0), (-0.0, 0.5, 0.0),
    (0.0, -3.0, INF), (-0.0, -3.0, -INF), (-0.0, -2.0, INF), (0.0, INF, 0.0), (-0.0, -INF, INF), (INF, 2.0, INF), (INF, -2.0, 0.0),
    (-INF, 3.0, -INF), (-INF, 2.0, INF), (-INF, -3.0, -0.0), (-INF, 0.5, INF), (-INF, -0.5, 0.0), (0.5, INF, 0.0), (0.5, -INF, INF),
    (2.0, INF, INF), (-2.0, -INF, 0.0), (-2.0, 0.5, NAN), (-2.0, 3.0, -8.0), (-2.0, 1e30, INF), (-8.0, 1.0 / 3, NAN),
    (-1.0, 2.0**24 - 1, -1.0), (-1.0, 2.0**24, 1.0), (2.0, -2e3, 0.0), (-2.0, 2001.0, -INF), (10.0, 2.0, 100.0), (3.0, 4.0, 81.0),
]  # fmt: skip
ATAN2_CASES = [(y, x) for y in (0.0, -0.0, 1.0, -1.0, INF, -INF, NAN) for x in (0.0, -0.0, 1.0, -1.0, INF, -INF, NAN)]


def same(got, expected):
    """Equal values, zeros of equal sign, NaN where NaN is expected."""
    np.testing.assert_array_equal(got, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(expected)[number])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pow_special_values(dtype):
    x, y, expected = np.array(POW_CASES, dtype).T.copy()
    same(apply("pow", x, y), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_atan2_special_values(dtype):
    y, x = np.array(ATAN2_CASES, dtype).T.copy()
    same(apply("atan2", y, x), np.array([math.atan2(*case) for case in ATAN2_CASES]).astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sign(dtype):
    x = np.array([3.0, -2.0, 0.0, -0.0, INF, -INF, NAN, 1e-40], dtype)
    same(apply("sign", x), np.array([1, -1, 0, 0, 1, -1, 0, 1], dtype))


# ---- quotients and remainders ---------------------------------------------------------------------------------------


def float_pairs(dtype):
    x, y = pairs(dtype, 4_000)
    if dtype == np.float64:  # beyond, the result is NaN by definition
        with np.errstate(all="ignore"):
            near = ~(np.abs(x / y) >= 2.0**200) | (y == 0) | np.isinf(x)
        x, y = x[near], y[near]
    return x, y


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fmod_is_exact(dtype):
    x, y = float_pairs(dtype)
    with np.errstate(all="ignore"):
        same(apply("fmod", x, y), np.fmod(x.astype(np.float64), y.astype(np.float64)).astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_remainder_and_floor_divide(dtype):
    x, y = float_pairs(dtype)
    with np.errstate(all="ignore"):
        rest = np.fmod(x, y) if dtype == np.float64 else np.fmod(x.astype(np.float64), y).astype(dtype)
        moved = (rest != 0) & ((rest < 0) != (y < 0))
        same(apply("remainder", x, y), np.where(moved, rest + y, rest))
        quotient = (x - rest) / y - moved.astype(dtype)
        whole = np.floor(quotient)
        whole = np.where(quotient - whole > 0.5, whole + 1, whole)
        whole = np.where(quotient != 0, whole, np.copysign(dtype(0), x / y))
        same(apply("floor_divide", x, y), np.where(y == 0, x / y, whole).astype(dtype))


def test_fmod_of_float64_says_where_it_gives_up():
    assert np.isnan(apply("fmod", np.array([1e300]), np.array([7.0])))[0]
    x, y = 3.0 * 2.0**190, 7.1
    assert apply("fmod", np.array([x]), np.array([y]))[0] == float(Fraction(x) % Fraction(y))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_integer_quotients(dtype):
    rng = np.random.default_rng(3)
    info = np.iinfo(dtype)
    edges = np.array([0, 1, 2, 3, 7, info.max, info.min, info.max - 1, *([-1, -2, -7] if info.min else [])], dtype)
    grid = np.meshgrid(edges, edges)
    x = np.concatenate([rng.integers(info.min, info.max, 500, dtype, endpoint=True), grid[0].ravel()])
    divisors = rng.integers(info.min, info.max, 250, dtype, endpoint=True), rng.integers(1, 9, 250).astype(dtype)
    y = np.concatenate([*divisors, grid[1].ravel()])
    exact = [(int(a), int(b)) for a, b in zip(x, y, strict=True)]

    def wrapped(values):
        return np.array([(v - info.min) % 2 ** (8 * x.itemsize) + info.min for v in values], dtype)

    same(apply("floor_divide", x, y), wrapped(a // b if b else 0 for a, b in exact))
    same(apply("remainder", x, y), wrapped(a % b if b else 0 for a, b in exact))
    same(apply("fmod", x, y), wrapped(int(math.copysign(1, a)) * (abs(a) % abs(b)) if b else 0 for a, b in exact))
    same(apply("sign", x), wrapped((a > 0) - (a < 0) for a, _ in exact))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_integer_power_wraps(dtype):
    info = np.iinfo(dtype)
    bases = [0, 1, 2, 3, 5, 7, 10, info.max, info.min, *([-1, -2, -3] if info.min else [])]
    exponents = [0, 1, 2, 3, 7, 31, 62, 63, 64, 65, 100, info.max, info.max - 1, *([-1, -2, info.min] if info.min else [])]
    exponents = [e for e in exponents if info.min <= e <= info.max]
    cases = [(b, e) for b in bases for e in exponents]

    def expected(base, exponent):
        if exponent < 0:
            return {1: 1, -1: -1 if exponent % 2 else 1}.get(base, 0)
        value = pow(base, exponent, 2 ** (8 * np.dtype(dtype).itemsize))
        return value - 2 ** (8 * np.dtype(dtype).itemsize) if value > info.max else value

    x, y = (np.array(column, dtype) for column in zip(*cases, strict=True))
    same(apply("pow", x, y), np.array([expected(*case) for case in cases], dtype))


# ---- Philox ---------------------------------------------------------------------------------------------------------


def philox_by_hand(key, counter):
    words, keys = [counter & 0xFFFFFFFF, counter >> 32, 0, 0], list(key)
    for _ in range(10):
        first, second = 0xD2511F53 * words[0], 0xCD9E8D57 * words[2]
        words = [second >> 32 ^ words[1] ^ keys[0], second & 0xFFFFFFFF, first >> 32 ^ words[3] ^ keys[1], first & 0xFFFFFFFF]
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return words


def philox(key0, key1, counter):
    arrays = np.array([key0], np.uint32), np.array([key1], np.uint32), np.array([counter], np.uint64)
    return [int(apply("philox", *arrays, result=uint32, constants=(Const(w, int64),))[0]) for w in range(4)]


def test_philox():
    # the published answer for a zero key and counter
    assert philox(0, 0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    for case in ((1, 2, 3), (0xFFFFFFFF, 0xDEADBEEF, 2**64 - 1), (7, 0, 2**33 + 5)):
        assert philox(*case) == philox_by_hand(case[:2], case[2])


def test_philox_words_share_their_rounds():
    loads = Load("k", 0, uint32), Load("k", 1, uint32), Load("c", 0, uint64)

    def statements(words):
        params = Param("k", "in", uint32, 2), Param("c", "in", uint64), Param("out", "out", uint32, 4)
        body = tuple(Let(f"w{i}", Call("philox", (*loads, Const(i, int64)), uint32)) for i in words)
        return len(expand(Kernel("k", params, body)).body)

    assert statements([0, 1, 2, 3]) <= statements([0]) + 6


def test_philox_needs_a_constant_word():
    with pytest.raises(IRError, match="constant 0, 1, 2 or 3"):
        apply("philox", *(np.array([0], d) for d in (np.uint32, np.uint32, np.uint64, np.int64)), result=uint32)


# ---- expand ---------------------------------------------------------------------------------------------------------

N = Dim.symbol("N", 1)
I = Dim.symbol("i", below=N)
X = Load("x", I, float32)
PARAMS = (Param("x", "inout", float32, N), Param("y", "out", float32, N), Param("N", "size", int64))


def unary(fn, x):
    return Call(fn, (x,), x.dtype)


def loop(*body):
    return Kernel("k", PARAMS, (For("i", N, "vector", body),))


def calls(kernel, fn):
    """How many Lets and other statements call `fn` at their top."""
    values = (getattr(s, "value", None) for s in walk(kernel.body))
    return sum(isinstance(v, Call) and v.fn == fn for v in values)


def test_names_are_not_primitive():
    assert NAMES.isdisjoint(FUNCTIONS)
    others = {"fmod", "remainder", "floor_divide", "sign", "philox", "frexp_exponent", "frexp_mantissa", "hypot", "polygamma"}
    assert set(LIMITS) | others | set(EXACT) == NAMES


def test_a_kernel_of_primitives_is_left_as_it_is():
    kernel = loop(Store("y", I, unary("sqrt", X)))
    assert expand(kernel) is kernel


def test_expanding_twice_changes_nothing():
    kernel = expand(loop(Store("y", I, unary("exp", X))))
    assert expand(kernel) is kernel


def test_nested_calls_become_primitives_in_place():
    product = Call("mul", (unary("exp", X), unary("tanh", unary("exp", X))), float32)
    kernel = expand(loop(Let("a", product), Store("y", I, unary("log", Var("a", float32)))))
    body = kernel.body[0].body
    names = [s.name for s in body if isinstance(s, Let)]
    assert len(names) == len(set(names))
    assert body[names.index("a")].value.fn == "mul"
    assert isinstance(body[-1], Store)
    for statement in body:
        if isinstance(statement.value, Call):
            assert statement.value.fn in FUNCTIONS


def test_equal_calls_are_opened_once():
    once = expand(loop(Store("y", I, unary("exp", X))))
    twice = expand(loop(Store("y", I, Call("add", (unary("exp", X), unary("exp", X)), float32))))
    assert calls(twice, "fma") == calls(once, "fma")


def test_sine_and_cosine_share_the_reduction():
    both = expand(loop(Let("s", unary("sin", X)), Let("c", unary("cos", X))))
    one = expand(loop(Let("s", unary("sin", X))))
    assert calls(both, "fma") == calls(one, "fma")


def test_a_load_is_repeated_after_a_store():
    kernel = loop(Store("x", I, unary("exp", X)), Store("y", I, unary("exp", X)))
    x = np.array([0.5, 1.0], np.float32)
    expected = apply("exp", apply("exp", x))
    y = np.zeros(2, np.float32)
    assert python.run(expand(kernel), {"x": x, "y": y}, {"N": 2}) == 0
    np.testing.assert_array_equal(y, expected)


def test_an_inner_loop_uses_what_was_computed_outside():
    inner = For("j", 4, "serial", (Store("y", I, unary("exp", Var("a", float32))),))
    kernel = expand(loop(Let("a", X), Let("b", unary("exp", Var("a", float32))), inner))
    assert calls(kernel, "fma") == calls(expand(loop(Let("b", unary("exp", X)))), "fma")


def test_what_an_inner_loop_computed_is_not_used_after_it():
    inner = For("j", 4, "serial", (Let("b", unary("exp", X)),))
    kernel = expand(loop(inner, Store("y", I, unary("exp", X))))
    assert calls(kernel, "fma") == 2 * calls(expand(loop(Let("b", unary("exp", X)))), "fma")


def test_fresh_names_avoid_those_taken():
    kernel = expand(loop(Let("m0", X), Let("mm3", X), Store("y", I, unary("exp", Var("m0", float32)))))
    names = [s.name for s in walk(kernel.body) if isinstance(s, Let)]
    assert len(names) == len(set(names))
    assert "mmm0" in names


def test_checks_are_opened():
    kernel = loop(Check(Call("gt", (unary("exp", X), Const(0.0, float32)), bool_), 3), Store("y", I, X))
    check = expand(kernel).body[0].body[-2]
    assert isinstance(check, Check)
    assert isinstance(check.condition.args[0], Var)


def test_zeros_of_both_signs_are_two_constants():
    plus, minus = (Call("atan2", (Const(zero, float32), X), float32) for zero in (0.0, -0.0))
    kernel = loop(Store("y", I, plus), Store("x", I, minus))
    x, y = np.array([-1.0], np.float32), np.zeros(1, np.float32)
    assert python.run(kernel, {"x": x, "y": y}, {"N": 1}) == 0
    np.testing.assert_array_equal([y[0], x[0]], np.float32([math.pi, -math.pi]))


def test_unknown_functions_and_dtypes_are_refused():
    with pytest.raises(IRError, match="'gamma'"):
        expand(loop(Let("a", unary("gamma", X))))
    with pytest.raises(IRError, match="float16"):
        expand(kernel_of("exp", [float16], float16))
    with pytest.raises(IRError, match="exp: the call says"):
        expand(kernel_of("exp", [float32], float64))


def test_text_does_not_change_between_runs():
    first, second = (str(expand(loop(Store("y", I, unary("sin", X))))) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fn", sorted(LIMITS))
def test_the_python_renderer_gets_the_same_bits(fn, dtype):
    rng = np.random.default_rng(5)
    x, y = rng.uniform(-3, 3, 12).astype(dtype), rng.uniform(-3, 3, 12).astype(dtype)
    arrays = [x, y] if fn in ("pow", "atan2") else [x]
    element = float32 if dtype == np.float32 else float64
    program = python.compiled(kernel_of(fn, [element] * len(arrays), element))
    got = np.zeros(12, dtype)
    with np.errstate(all="ignore"):
        for k in range(12):
            buffers = {f"x{i}": a[k : k + 1] for i, a in enumerate(arrays)}
            assert program({**buffers, "out": got[k : k + 1]}, {}) == 0
    same(got, apply(fn, *arrays))


def test_integer_functions_by_the_python_renderer():
    cases = ("pow", int64, 3, 50), ("floor_divide", int32, -7, 2), ("remainder", int8, -7, 3), ("fmod", uint8, 200, 7)
    for fn, element, x, y in cases:
        arrays = [np.array([v], element.numpy) for v in (x, y)]
        out = np.zeros(1, element.numpy)
        with np.errstate(all="ignore"):
            python.run(kernel_of(fn, [element, element], element), {"x0": arrays[0], "x1": arrays[1], "out": out}, {})
        np.testing.assert_array_equal(out, apply(fn, *arrays))
