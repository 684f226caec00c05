"""Tensors as text: golden strings."""

from __future__ import annotations

import math

import pytest

import graphc


@pytest.mark.parametrize(
    ("data", "dtype", "shown"),
    [
        ([1.0, 2.5, -3.0], None, "tensor([ 1.0000,  2.5000, -3.0000])"),
        ([1.0, 2.0], None, "tensor([1., 2.])"),
        (1.5, None, "tensor(1.5000)"),
        (7, None, "tensor(7)"),
        (True, None, "tensor(True)"),
        ([True, False], None, "tensor([ True, False])"),
        ([1, -20, 300], None, "tensor([  1, -20, 300])"),
        ([1, 2], graphc.int32, "tensor([1, 2], dtype=graphc.int32)"),
        ([0.5], graphc.float64, "tensor([0.5000], dtype=graphc.float64)"),
        ([1e-5, 1.0], None, "tensor([1.0000e-05, 1.0000e+00])"),
        ([1.0, 1e9], None, "tensor([1.0000e+00, 1.0000e+09])"),
        ([math.nan, 1.0, math.inf], None, "tensor([nan, 1., inf])"),
        ([-math.inf, 0.5], None, "tensor([  -inf, 0.5000])"),
        ([0.0, -0.0], None, "tensor([0., -0.])"),
        ([], None, "tensor([])"),
        ([[], []], None, "tensor([], size=(2, 0))"),
        ([], graphc.int64, "tensor([], dtype=graphc.int64)"),
        ([[1, 2], [3, 4]], None, "tensor([[1, 2],\n        [3, 4]])"),
        ([[[1], [2]], [[3], [4]]], None, "tensor([[[1],\n         [2]],\n\n        [[3],\n         [4]]])"),
        ([0.1] * 3, graphc.bfloat16, "tensor([0.1001, 0.1001, 0.1001], dtype=graphc.bfloat16)"),
    ],
)
def test_elements(data: object, dtype: graphc.dtype | None, shown: str) -> None:
    assert repr(graphc.tensor(data, dtype=dtype)) == shown


def test_long_rows_are_broken_at_80_characters() -> None:
    lines = repr(graphc.arange(30)).splitlines()
    assert lines[0] == "tensor([ 0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14, 15, 16, 17,"
    assert lines[1] == "        18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29])"


def test_more_than_1000_elements_are_summarized() -> None:
    assert repr(graphc.arange(1001)) == "tensor([   0,    1,    2,  ...,  998,  999, 1000])"
    lines = repr(graphc.zeros(40, 40)).splitlines()
    assert lines[0] == "tensor([[0., 0., 0.,  ..., 0., 0., 0.],"
    assert lines[3] == "        ...,"
    assert len(lines) == 7


def test_history_is_shown_after_the_elements() -> None:
    x = graphc.ones(2, requires_grad=True)
    assert repr(x) == "tensor([1., 1.], requires_grad=True)"
    assert repr(x + 1) == "tensor([2., 2.], grad_fn=<AddBackward0>)"
    assert repr((x * 2).detach()) == "tensor([2., 2.])"
    long = graphc.ones(14, requires_grad=True) * 2
    assert repr(long).splitlines()[-1] == "       grad_fn=<MulBackward0>)"


def test_sizes_and_devices() -> None:
    assert repr(graphc.zeros(2, 3).shape) == "graphc.Size([2, 3])"
    assert repr(graphc.zeros(2).device) == "device(type='cpu')"
    assert repr(graphc.float32) == "graphc.float32"


def test_a_0d_tensor_formats_as_its_number() -> None:
    assert f"{graphc.tensor(1.5):.3f}" == "1.500"
    assert f"{graphc.tensor([1.0])}" == "tensor([1.])"


def test_print_options() -> None:
    x = graphc.tensor([1.23456, 1000.0])
    try:
        graphc.set_printoptions(precision=2)
        assert repr(x) == "tensor([   1.23, 1000.00])"
        graphc.set_printoptions(sci_mode=True)
        assert repr(x) == "tensor([1.23e+00, 1.00e+03])"
        graphc.set_printoptions(threshold=3, edgeitems=1)
        assert repr(graphc.arange(5)) == "tensor([0,  ..., 4])"
    finally:
        graphc.set_printoptions(profile="default")
    assert repr(x) == "tensor([   1.2346, 1000.0000])"


def test_values_with_their_positions() -> None:
    found = graphc.tensor([1.0, 2.0]).max(0)
    assert repr(found) == "graphc.return_types.max(\nvalues=tensor(2.),\nindices=tensor(1))"
