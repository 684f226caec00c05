"""`graphc.testing`: what is close passes, what is not says what differs, how much and where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.testing import assert_close, make_tensor

ONE = graphc.ones(2)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (ONE, ONE + 1e-6),
        (ONE.double(), ONE.double() + 1e-8),
        (ONE.bfloat16(), ONE.bfloat16() * 1.0078125),
        ([ONE, {"a": 1.0}], [ONE, {"a": 1.0 + 1e-9}]),
        (np.ones(2), np.ones(2)),
        (None, None),
        (3, 3),
        (ONE + 1j, ONE + 1j),
    ],
)
def test_what_is_close_passes(actual: Any, expected: Any) -> None:
    assert_close(actual, expected)


@pytest.mark.parametrize(
    ("actual", "expected", "text"),
    [
        (ONE, ONE * 1.5, r"Mismatched elements: 2 / 2 \(100.0%\)\nGreatest absolute difference: 0.5 at index \(0,\) \(up to 1e-05"),
        (graphc.tensor([1, 2]), graphc.tensor([1, 3]), r"not equal!\n\nMismatched elements: 1 / 2"),
        (graphc.tensor(1.0), graphc.tensor(2.0), "Expected 2.0 but got 1.0"),
        (ONE, graphc.ones(3), r"attribute 'shape' do not match: graphc.Size\(\[2\]\) != graphc.Size\(\[3\]\)"),
        (ONE, ONE.double(), "attribute 'dtype' do not match"),
        ([ONE, {"a": ONE}], [ONE, {"a": ONE + 1}], r"The failure occurred for item \[1\]\['a'\]"),
        ([1], [1, 2], "length of the sequences mismatch: 1 != 2"),
        ({"a": 1}, {"b": 1}, r"Missing keys in the actual mapping: \['b'\]"),
        (1, 1.0, r"\(d\)types do not match"),
        (True, False, "Booleans mismatch"),
        (None, 1, "None mismatch"),
        (float("nan"), float("nan"), "Expected nan but got nan"),
        (ONE * float("nan"), ONE * float("nan"), "Mismatched elements: 2 / 2"),
    ],
)
def test_what_differs_is_said(actual: Any, expected: Any, text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        assert_close(actual, expected)


def test_options_of_a_comparison() -> None:
    assert_close(ONE, ONE * 1.1, rtol=0.2, atol=0.0)
    assert_close(ONE * float("nan"), ONE * float("nan"), equal_nan=True)
    assert_close(ONE, ONE.double(), check_dtype=False)
    with pytest.raises(AssertionError, match=r"^that is it$"):
        assert_close(ONE, ONE + 1, msg="that is it")
    with pytest.raises(AssertionError, match=r"^see: Tensor-likes are not close!"):
        assert_close(ONE, ONE + 1, msg=lambda text: f"see: {text}")
    with pytest.raises(ValueError, match="but got no atol"):
        assert_close(ONE, ONE, rtol=1.0)
    for other in (1.0, ONE.numpy()):
        with pytest.raises(TypeError, match="No comparison pair was able to handle inputs of type"):
            assert_close(ONE, other)
    assert_close(np.float32(1), 1.0)


@pytest.mark.parametrize("wrap", [int, graphc.tensor, lambda n: graphc.tensor([n])], ids=["int", "0 dims", "1 dim"])
def test_integers_that_a_float_cannot_tell_apart(wrap: Any) -> None:
    assert_close(wrap(2**62), wrap(2**62))
    with pytest.raises(AssertionError, match="not equal"):
        assert_close(wrap(2**62), wrap(2**62 + 1))


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.bfloat16, graphc.int16, graphc.uint8, graphc.bool, graphc.complex64])
def test_random_tensors_of_every_kind(dtype: Any) -> None:
    x = make_tensor(64, 3, dtype=dtype, exclude_zero=True)
    assert x.dtype is dtype and x.shape == (64, 3) and bool((x != 0).all())
    assert float(x.abs().max() if dtype is not graphc.bool else 1) <= 13


def test_random_tensors_with_gaps() -> None:
    assert make_tensor(3, 4, dtype=graphc.float32, noncontiguous=True).stride() == (8, 2)
    with pytest.raises(ValueError, match="mutually exclusive"):
        make_tensor(3, 4, dtype=graphc.float32, noncontiguous=True, memory_format=graphc.contiguous_format)


def test_operators_on_lists_of_tensors() -> None:
    """``_foreach_*``: each tensor by itself, with an argument for all or one for each."""
    a, b = [graphc.tensor([1.0, 2.0]), graphc.tensor([3.0])], [graphc.tensor([0.5, 0.25]), graphc.tensor([2.0])]
    assert [x.tolist() for x in graphc._foreach_add(a, b, alpha=2)] == [[2.0, 2.5], [7.0]]
    assert [x.tolist() for x in graphc._foreach_mul(a, [2.0, 3.0])] == [[2.0, 4.0], [9.0]]
    assert [x.tolist() for x in graphc._foreach_addcdiv(a, b, b, value=0.5)] == [[1.5, 2.5], [3.5]]
    assert [x.tolist() for x in graphc._foreach_norm([graphc.tensor([3.0, 4.0])])] == [5.0]
    first = a[0]
    graphc._foreach_mul_(a, 2.0)
    graphc._foreach_addcmul_(a, b, b, [1.0, 2.0])
    assert first.tolist() == [2.25, 4.0625] and a[1].tolist() == [14.0]
    graphc._foreach_copy_(b, a)
    graphc._foreach_zero_(a)
    assert b[0].tolist() == [2.25, 4.0625] and first.tolist() == [0.0, 0.0]
    with pytest.raises(RuntimeError, match=r"_foreach_add: Tensor lists must have the same number of tensors, got 2 and 1"):
        graphc._foreach_add(a, b[:1])
    with pytest.raises(AttributeError, match="_foreach_nothing"):
        graphc._foreach_nothing(a)
