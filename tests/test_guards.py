"""Compiled code notices changes of the plain values it reads."""

from __future__ import annotations

import graphc
from graphc.capture.guards import plain_values

SCALE = 2.0
NAME = ("twice", 3)


def scaled(x: graphc.Tensor) -> graphc.Tensor:
    return x * SCALE


def through(x: graphc.Tensor) -> graphc.Tensor:
    return scaled(x) + len(NAME)


def test_globals_are_found_through_the_functions_that_are_called() -> None:
    assert {v.name: v.value for v in plain_values(through)} == {"SCALE": 2.0, "NAME": ("twice", 3)}


def test_a_changed_global_traces_again() -> None:
    global SCALE
    compiled = graphc.compile(through)
    x = graphc.tensor([1.0, 2.0])
    assert compiled(x).tolist() == [4.0, 6.0]
    SCALE = 3.0
    try:
        assert compiled(x).tolist() == [5.0, 8.0]
        assert compiled(x).tolist() == [5.0, 8.0]
    finally:
        SCALE = 2.0
    assert compiled(x).tolist() == [4.0, 6.0]
    assert compiled.stats()["traces"] == 2 and compiled.stats()["compiles"] + compiled.stats()["cache_hits"] == 2


def test_a_changed_closure_cell_traces_again() -> None:
    shift = 1.0

    def f(x: graphc.Tensor) -> graphc.Tensor:
        return x + shift

    compiled = graphc.compile(f)
    x = graphc.tensor([1.0])
    assert compiled(x).tolist() == [2.0]
    shift = 10.0
    assert compiled(x).tolist() == [11.0]


def test_an_equal_value_of_another_type_is_a_change() -> None:
    power = 1

    def f(x: graphc.Tensor) -> graphc.Tensor:
        return x * power

    compiled = graphc.compile(f)
    x = graphc.tensor([3])
    assert compiled(x).dtype is graphc.int64
    power = 1.0
    assert compiled(x).dtype is graphc.float32
