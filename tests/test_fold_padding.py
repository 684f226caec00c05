"""Padding in front of convolutions: what the pass folds, and what stays."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graph_cases import check_pass
from graphc import nn
from graphc.passes.fold_padding import fold_padding

F = nn.functional
HALVED = "kernel=(3, 3), stride=(2, 2), before=(0, 0), places=(2, 2), dilation=(1, 1), groups=1, columns=4"
CASES = {
    "zeros become padding of a depthwise convolution": (
        """
            graph @g(%x: f32[2, 5, 6, 4], %w: f32[3, 3, 4]) {
              %0 = pad_constant(%x, starts=(0, 0, 1, 0), shape=(2, 6, 8, 4), value=0) : f32[2, 6, 8, 4]
              %1 = depthwise_last(%0, %w, places=(3, 4), stride=(2, 2), before=(1, 0), dilation=(1, 1)) : f32[2, 3, 4, 4]
              return %1
            }
        """,
        """
            graph @g(%x: f32[2, 5, 6, 4], %w: f32[3, 3, 4]) {
              %0 = depthwise_last(%x, %w, places=(3, 4), stride=(2, 2), before=(1, 1), dilation=(1, 1)) : f32[2, 3, 4, 4]
              return %0
            }
        """,
    ),
    "a permutation between moves on": (
        f"""
            graph @g(%x: f32[1, 3, 5, 5], %p: f32[1, 1, 27, 4]) {{
              %0 = pad_constant(%x, starts=(0, 0, 0, 0), shape=(1, 3, 6, 6), value=0) : f32[1, 3, 6, 6]
              %1 = permute(%0, dims=(0, 2, 3, 1)) : f32[1, 6, 6, 3]
              %2 = convolution_panels(%1, %p, {HALVED}) : f32[1, 2, 2, 4]
              return %2
            }}
        """,
        f"""
            graph @g(%x: f32[1, 3, 5, 5], %p: f32[1, 1, 27, 4]) {{
              %0 = permute(%x, dims=(0, 2, 3, 1)) : f32[1, 5, 5, 3]
              %1 = convolution_panels(%0, %p, {HALVED}) : f32[1, 2, 2, 4]
              return %1
            }}
        """,
    ),
    "so does Winograd's form, whose squares reach beyond the padding": (
        """
            graph @g(%x: f32[1, 3, 3, 2], %f: f32[1, 16, 1, 2, 4]) {
              %0 = pad_constant(%x, starts=(0, 1, 2, 0), shape=(1, 5, 5, 2), value=0) : f32[1, 5, 5, 2]
              %1 = winograd(%0, %f, before=(0, 0), places=(3, 3), groups=1, columns=4) : f32[1, 3, 3, 4]
              return %1
            }
        """,
        """
            graph @g(%x: f32[1, 3, 3, 2], %f: f32[1, 16, 1, 2, 4]) {
              %0 = winograd(%x, %f, before=(1, 2), places=(3, 3), groups=1, columns=4) : f32[1, 3, 3, 4]
              return %0
            }
        """,
    ),
}
KEPT = {
    "ones": ("(0, 1, 1, 0)", "(1, 6, 6, 4)", "1"),
    "channels": ("(0, 0, 0, 1)", "(1, 4, 4, 4)", "0"),
    "wide": ("(0, 3, 0, 0)", "(1, 7, 4, 4)", "0"),
}


@pytest.mark.parametrize("name", CASES)
def test_pass(name: str) -> None:
    check_pass(fold_padding, *CASES[name])


@pytest.mark.parametrize("name", KEPT)
def test_other_padding_stays(name: str) -> None:
    starts, shape, value = KEPT[name]
    channels = 3 if name == "channels" else 4
    size = [int(part) for part in shape.strip("()").split(",")]
    places = f"{size[1] - 2}, {size[2] - 2}"
    text = f"""
        graph @g(%x: f32[1, 4, 4, {channels}], %w: f32[3, 3, 4]) {{
          %0 = pad_constant(%x, starts={starts}, shape={shape}, value={value}) : f32[{shape.strip("()")}]
          %1 = depthwise_last(%0, %w, places=({places}), stride=(1, 1), before=(0, 0), dilation=(1, 1)) : f32[1, {places}, 4]
          return %1
        }}
    """
    check_pass(fold_padding, text, text)


@pytest.mark.parametrize("groups, kernel, stride, pad", [(1, 3, 1, (2, 0, 1, 2)), (8, 5, 2, (1, 2, 1, 2))])
def test_bits_of_padded_convolutions(groups: int, kernel: int, stride: int, pad: tuple[int, ...]) -> None:
    x, widen = graphc.randn(2, 8, 17, 15), graphc.randn(8, 8, 1, 1)
    weight = graphc.randn(8, 8 // groups, kernel, kernel)

    def net(x: graphc.Tensor) -> graphc.Tensor:
        inner = F.relu(F.conv2d(x, widen))
        return F.conv2d(F.conv2d(F.pad(inner, pad), weight, stride=stride, groups=groups), widen)

    np.testing.assert_array_equal(graphc.compile(net)(x).numpy(), net(x).numpy())
