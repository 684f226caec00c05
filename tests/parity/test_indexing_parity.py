"""``x[...]`` and ``x[...] = v`` against PyTorch: index expressions in every form that code writes them in, and what they raise.

A value of another dtype is converted at index tensors too, where PyTorch raises.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc

torch = pytest.importorskip("torch")

SHAPE = (2, 3, 4)
ARRAY = np.arange(24.0).reshape(SHAPE)
# an expression of `t` (the library) and `np`
EXPRESSIONS = (
    "[[0, 1], [1, 2]]", "[0, [1, 2]]", "[0, slice(None)]", "[t.tensor(0), t.tensor(1)]", "np.array([0, 1])",
    "np.array(1)", "np.array([0, 1], np.uint8)", "t.tensor([0, 1], dtype=t.uint8)", "t.tensor(1, dtype=t.uint8)",
    "True", "False", "(True, [0, 1])", "(slice(None), True, [0, 1])", "t.tensor(True)", "t.tensor(False)",
    "np.array(True)", "[]", "[True, False]", "((0, 1),)", "([0, 1], None, [1, 2])", "(0, slice(None), [1, 2])",
    "(t.tensor(0), slice(None), [1, 2])", "range(2)", "np.int64(1)", "None", "...", "()", "(None, ..., None, 0)",
    "slice(t.tensor(1), None)", "slice(np.int32(0), np.int64(1))", "slice(t.tensor([1]), None)",
    "t.tensor([[True, False, True], [True, True, True]])", "(0, t.tensor([True, False, True]))",
    "(..., t.tensor([3, -1]))", "(t.tensor([[True, False, True], [True, True, True]]), 0)",
    "(t.tensor([1, 0]), slice(1, None), t.tensor([3, 0]))", "(slice(None), t.tensor([[0], [2]]), t.tensor([1, 1, 3]))",
    "t.tensor([], dtype=t.int64)", "(t.tensor([1], dtype=t.int32), -1)", "slice(5, 1)", "slice(-1, None)",
    "slice(None, None, 2)", "(slice(0, 0), [0])", "t.zeros(0, 3, dtype=t.bool)", "slice(None, None, -1)", "5",
    "(0, 0, 0, 0)", "t.tensor([5])", "t.tensor([-3])", "(t.tensor([0, 1]), t.tensor([0, 1, 2]))", "t.tensor([0.5])",
    "1.0", "[True, False, True]", "slice(0, 2.0)", "'a'", "t.zeros(3, dtype=t.bool)", "(0, 1, 2, ..., 0)",
)  # fmt: skip


def of(library: Any, expression: str) -> Any:
    return eval(expression, {"t": library, "np": np, "slice": slice, "range": range})


def outcome(run: Any) -> Any:
    """The result as an array, or the class of what was raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return run().numpy()
        except Exception as error:
            return type(error)


def same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, type):
        assert ours is theirs
    else:
        assert not isinstance(ours, type), f"raises {ours.__name__}, PyTorch gives {theirs.shape}"
        assert ours.shape == theirs.shape and np.array_equal(ours, theirs)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_get(expression: str) -> None:
    same(
        outcome(lambda: graphc.from_numpy(ARRAY)[of(graphc, expression)]),
        outcome(lambda: torch.from_numpy(ARRAY)[of(torch, expression)]),
    )


@pytest.mark.parametrize("expression", ["None", "...", "()", "True", "False", "t.tensor(True)", "0", "t.tensor(0)", "(0, 0)"])
def test_get_from_no_dims(expression: str) -> None:
    same(outcome(lambda: graphc.tensor(3.0)[of(graphc, expression)]), outcome(lambda: torch.tensor(3.0)[of(torch, expression)]))


ONES = "t.ones({}, dtype=t.float64)"
VALUES = ("1.5", *map(ONES.format, ("()", "4", "1, 1, 1, 4", "5", "1")), "True", "None", "'a'")


WRITTEN = [e for e in EXPRESSIONS if "uint8" not in e]  # PyTorch reads with them only


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("expression", WRITTEN)
def test_set(expression: str, value: str) -> None:
    def written(library: Any) -> Any:
        x = library.from_numpy(ARRAY.copy())
        x[of(library, expression)] = of(library, value)
        return x

    same(outcome(lambda: written(graphc)), outcome(lambda: written(torch)))


@pytest.mark.parametrize("expression", WRITTEN)
def test_gradients(expression: str) -> None:
    def gradients(library: Any) -> Any:
        x = library.from_numpy(ARRAY.copy()).requires_grad_()
        y = x * 2
        y[of(library, expression)] = 3.0
        (y**2 + x[of(library, expression)].sum()).sum().backward()
        return x.grad

    same(outcome(lambda: gradients(graphc)), outcome(lambda: gradients(torch)))


PART = (
    st.integers(-3, 3).map(repr)
    | st.sampled_from(["None", "...", "slice(None)", "slice(1, None)", "slice(None, None, 2)", "True"])
    | st.lists(st.integers(-2, 1), min_size=2, max_size=2).map(lambda v: f"t.tensor({v})")
    | st.lists(st.integers(-2, 1), min_size=2, max_size=2).map(repr)
    | st.integers(0, 1).map(lambda v: f"t.tensor({v})")
)


@given(st.lists(PART, min_size=1, max_size=4).filter(lambda parts: parts.count("...") < 2))
def test_any_tuple(parts: list[str]) -> None:
    """What is read, where it is written and which class is raised are PyTorch's for any tuple of these."""
    expression = f"({', '.join(parts)},)"
    test_get(expression)
    test_set(expression, ONES.format(4))
    test_set(expression, "7.0")
