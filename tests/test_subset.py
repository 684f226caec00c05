"""The subset of Python that becomes LLVM text: what each construct computes, and what is refused."""

from __future__ import annotations

import ctypes
import textwrap
from typing import Any

import pytest

from graphc.codegen.subset import render_module
from graphc.runtime.link import assemble, link


def made(source: str, *names: str, fields: tuple[str, ...] = (), **constants: int) -> list[Any]:
    """The functions `names` of a module, callable with integers."""
    external = {"labs": "i64", "abs": "i32"}
    text = render_module(textwrap.dedent(source), constants, fields, external, names)
    found = link(assemble(text), names)
    return [_callable(found[name]) for name in names]


def _callable(address: int) -> Any:
    def call(*arguments: int) -> int:
        return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(arguments))(address)(*arguments)  # type: ignore[no-any-return]

    return call


def test_arithmetic_and_choices() -> None:
    f, g = made(
        """
        def f(a, b):
            c = a * 3 - b
            c += 1
            return (c if c > 10 and not b == 2 or a < 0 else -c) ^ MASK

        def twice(a, b):
            return a * 2 + b

        def g(a):
            return call(address(twice), 3, 9 // 4) - 8 + (a >> 60) + (a << 1) + (a & 12 | 1)
        """,
        "f", "g", MASK=5,
    )  # fmt: skip
    for a in (-4, 0, 3, 7):
        for b in (1, 2, 9):
            c = a * 3 - b + 1
            assert f(a, b) == (c if (c > 10 and b != 2) or a < 0 else -c) ^ 5
    assert g(-1) == 15 - 2 + 13


def test_loops() -> None:
    (primes,) = made(
        """
        def is_prime(n):
            at = 2
            while at * at <= n:
                rest = n
                while rest >= at:
                    rest = rest - at
                if rest == 0:
                    return 0
                at = at + 1
            return 1

        def primes(n):
            found = 0
            for i in range(n):
                if i < 2:
                    continue
                if i > 50:
                    break
                found = found + is_prime(i)
            return found
        """,
        "primes",
    )
    assert primes(10) == 4
    assert primes(1000) == 15


def test_memory_and_c_functions() -> None:
    total, half, far = made(
        """
        def total(values, n):
            copied = words(8)
            copy(copied, values, 8 * n)
            sum = 0
            for i in range(n):
                store(copied + 8 * i, labs(load(copied + 8 * i)))
                sum = sum + load(copied + 8 * i)
            state.last = sum
            return state.last

        def half(at):
            store32(at + 4, load32(at))
            return abs(load32(at + 4))

        def far(function, x):
            return call(function, x) + 1
        """,
        "total", "half", "far", fields=("first", "last"),
    )  # fmt: skip
    values = (ctypes.c_int64 * 3)(-5, 7, -1)
    assert total(ctypes.addressof(values), 3) == 13
    assert list(values) == [-5, 7, -1]
    pair = (ctypes.c_int32 * 2)(-9, 0)
    assert half(ctypes.addressof(pair)) == 9
    assert list(pair) == [-9, -9]
    double = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(lambda x: 2 * x)
    assert far(ctypes.cast(double, ctypes.c_void_p).value or 0, 21) == 43


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("return unknown", "unknown is unknown"),
        ("return missing(a)", "missing is unknown"),
        ("return state.missing", "state.missing is unknown"),
        ("return 1 < a < 3", "one comparison"),
        ("for i in (1, 2): a = i", "only ``for name in range"),
        ("import os", "Import is not in the subset"),
        ("a.b = 1", "a.b is unknown"),
        ("return 'text'", "not in the subset"),
        ("return f(a, a)", "takes 1 arguments"),
    ],
)
def test_what_is_refused(line: str, message: str) -> None:
    with pytest.raises(SyntaxError, match=message):
        render_module(f"def f(a):\n    {line}\n", {}, ("known",), {}, ["f"])
