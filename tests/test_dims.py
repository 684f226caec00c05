"""Symbolic sizes: arithmetic is right for every value, and the forms that lowering relies on come out simple."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.dims import (
    Dim,
    Size,
    bounds,
    coefficient,
    divides,
    evaluate,
    free,
    known_equal,
    known_less,
    maximum,
    minimum,
    parse,
    product,
    split,
    substitute,
)

N = Dim.symbol("N", 1)
M = Dim.symbol("M", 1)
k = Dim.symbol("k")
i = Dim.symbol("i", below=M)
j = Dim.symbol("j", below=N)
B = Dim.symbol("B", 1)
C = Dim.symbol("C", 1)

# a random expression is a nested tuple; `built` makes a Size of it and `naive` a number
RANGES = {"a": (0, 5), "b": (0, 40), "n": (1, 7), "c": (-6, 9)}
leaves = st.one_of(st.integers(-9, 40), st.sampled_from(sorted(RANGES)))
divisors = st.one_of(st.integers(1, 12), st.sampled_from(["n", ("*", "n", 2), ("*", "n", "n"), ("+", "n", 1)]))
expressions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["+", "-", "*", "min", "max"]), inner, inner),
        st.tuples(st.sampled_from(["//", "%"]), inner, divisors),
        st.builds(lambda e, d, s: ("*", s, ("+", ("*", d, ("//", e, d)), ("%", e, d))), inner, divisors, leaves),
        st.builds(lambda e, d, r: ("%", ("+", ("*", d, e), r), ("*", d, 3)), inner, divisors, leaves),
    ),
    max_leaves=8,
)
values = st.fixed_dictionaries({name: st.integers(low, high) for name, (low, high) in RANGES.items()})
SYMBOLS: dict[str, Size] = {name: Dim.symbol(name, low, high) for name, (low, high) in RANGES.items()}


def applied(operator, a, b):
    match operator:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "//":
            return a // b
        case "%":
            return a % b
        case "min":
            return min(a, b) if type(a) is int and type(b) is int else minimum(a, b)
    return max(a, b) if type(a) is int and type(b) is int else maximum(a, b)


def built(tree, names):
    if isinstance(tree, tuple):
        return applied(tree[0], built(tree[1], names), built(tree[2], names))
    return names[tree] if isinstance(tree, str) else tree


@settings(max_examples=300, deadline=None)
@given(expressions, values)
def test_simplified_expression_has_the_naive_value(tree, numbers):
    size, expected = built(tree, SYMBOLS), built(tree, numbers)
    assert evaluate(size, numbers) == expected
    assert substitute(size, numbers) == expected
    low, high = bounds(size)
    assert low is None or low <= expected
    assert high is None or expected <= high


@settings(max_examples=300, deadline=None)
@given(expressions)
def test_text_reads_back(tree):
    size = built(tree, SYMBOLS)
    assert parse(str(size), SYMBOLS) == size


@settings(max_examples=200, deadline=None)
@given(expressions, expressions, values)
def test_sums_do_not_depend_on_order_and_facts_hold(left, right, numbers):
    a, b = built(left, SYMBOLS), built(right, SYMBOLS)
    assert known_equal(a + b, b + a)
    assert known_equal(a * b, b * a)
    x, y = evaluate(a, numbers), evaluate(b, numbers)
    assert not known_less(a, b) or x < y
    assert not known_equal(a, b) or x == y


def test_constants_collapse_to_int():
    assert type(N - N) is int
    assert N * 0 == 0
    assert type((N + 3) - N) is int
    assert type((k // 32) * 32 + k % 32 - k) is int
    negative = -N
    assert -negative == N
    assert product([]) == 1
    assert product([N, 2, M]) == 2 * M * N


def test_text():
    assert str(N * 784 + i + (k // 32) % 4) == "(k // 32) % 4 + N*784 + i"
    assert str(minimum(32, N - k)) == "min(N - k, 32)"
    assert str(3 - N) == "-N + 3"
    assert parse("min(a, 2 * b) // 3") == minimum(Dim.symbol("a"), Dim.symbol("b") * 2) // 3


@pytest.mark.parametrize("text", ["", "a +", "a / b", "a.b", "f(a)", "1.5", "a // 0", "a // -2", "True", "(" * 500])
def test_parse_refuses_other_text(text):
    with pytest.raises(ValueError, match="size"):
        parse(text)


@pytest.mark.parametrize("d", [784, N, B * C])
def test_terms_divisible_by_the_divisor_are_taken_out(d):
    assert (k * d + 3 * d) // d == k + 3
    assert (k * d) % d == 0
    assert (k * d + i) // d == k + i // d
    assert (k * d + i) % d == i % d


def test_index_below_a_symbolic_size_vanishes():
    assert (i * N + j) // N == i
    assert (i * N + j) % N == j
    assert (i * N + j) // (M * N) == 0
    assert (i * N + j) % (M * N) == i * N + j
    assert (M - 1 - i) // M == 0
    assert ((M - 1 - i) * N + j) // N == M - 1 - i
    assert (i * (N + 2) + j) // (N + 2) == i
    assert (i * (N + 2) + j) % (N + 2) == j
    assert ((N + 1) * (N + 2)) // (N + 1) == N + 2


def test_nested_divisions_merge():
    assert (k // 3) // 4 == k // 12
    assert (k // N) // M == k // (M * N)
    assert (k % 12) // 3 == (k // 3) % 4
    assert (k % (M * N)) // N == (k // N) % M
    assert (k % 12) % 4 == k % 4
    assert (k % (M * N)) % M == k % M
    q = Dim.symbol("q", 0, 3)
    assert (4 * k + q) // 8 == k // 2
    assert (4 * k + q) % 8 == 4 * (k % 2) + q
    assert (i * C + Dim.symbol("c", below=C)) // (B * C) == i // B


@pytest.mark.parametrize(("b", "c"), [(4, 3), (B, 3), (4, C), (B, C)])
@pytest.mark.parametrize("outer", [1, 5, N])
def test_delinearised_offset_is_the_index_again(b, c, outer):
    first, second, third = k // (b * c), (k // c) % b, k % c
    assert first * (b * c * outer) + second * (c * outer) + third * outer == k * outer
    assert third * outer + first * (b * c * outer) + second * (c * outer) + 7 == k * outer + 7
    assert second * c + third == k % (b * c)
    bounded = Dim.symbol("k", below=M * b * c)
    assert (bounded // (b * c)) % M * b * c + (bounded // c) % b * c + bounded % c == bounded


def test_four_deep_delinearisation():
    index = k // 210 * 210 + (k // 42) % 5 * 42 + (k // 7) % 6 * 7 + k % 7
    assert index == k


def test_minimum_and_maximum_fold_by_bounds():
    small = Dim.symbol("s", 0, 9)
    assert minimum(small, 10) == small
    assert maximum(small, 10) == 10
    assert minimum(j, N) == j
    assert maximum(N, j + 1) == N
    assert minimum(N, k) == minimum(k, N)
    tile = Dim.symbol("t", below=minimum(32, N - k * 32))
    assert known_less(k * 32 + tile, N)
    assert known_less(tile, 32)


def test_splitting_by_a_symbol():
    size = N * k * 3 + N + (j // 2)
    assert split(size, "k") == (3 * N, N + j // 2)
    assert coefficient(size, "N") == 3 * k + 1
    assert coefficient(size, "j") is None
    assert coefficient(size, "absent") == 0
    assert coefficient(k * k, "k") is None
    assert split(7, "k") == (0, 7)


def test_facts():
    assert free(N * k + j % 3) == {"N", "k", "j"}
    assert bounds(Dim.symbol("s", 2, 5) * -3 + 1) == (-14, -5)
    assert bounds(k % 8) == (0, 7)
    assert divides(4, N * 8 + 12)
    assert not divides(4, N * 8 + 2)
    assert divides(N, N * M + 2 * N)
    assert divides(N + 1, (N + 1) * (N + 2))
    assert not divides(N, M)
    assert not divides(N, 3)


def test_substitution_reaches_bounds_of_other_symbols():
    kept = substitute(i + j, {"N": 5, "M": 3})
    assert bounds(kept) == (0, 6)
    assert substitute(j // 5 + k, {"N": 5, "k": j * 10}) == 10 * j


def test_copies_and_numpy_integers():
    size = N * 784 + (k // 32) % 4
    for other in (pickle.loads(pickle.dumps(size)), copy.copy(size), copy.deepcopy({"s": size})["s"]):
        assert other == size
        assert hash(other) == hash(size)
        assert bounds(other) == bounds(size)
    assert np.int64(3) * size == size * np.int32(3) == 3 * size
    assert type(np.int64(3) + size) is Dim


def test_misuse_is_an_error():
    with pytest.raises(ZeroDivisionError):
        N // 0
    with pytest.raises(ValueError, match="positive"):
        N % -2
    with pytest.raises(TypeError):
        N + 1.5
    with pytest.raises(ValueError, match="identifier"):
        Dim.symbol("a b")
    with pytest.raises(KeyError):
        evaluate(N + 1, {})
