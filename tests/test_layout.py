"""Channels last inside graphs: what the pass moves, and the gradients that meet it there."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graph_cases import assert_same_bits, check_pass, parse_graph, random_inputs, run_compiled, run_in_python
from graphc import nn, pipeline
from graphc.codegen.python import fma32
from graphc.ops.convolution_weight_last import BLOCK, block_of
from graphc.passes.layout import channels_last, to_first, to_last

DENSE = "stride=(1, 1), dilation=(1, 1)"
HALVED = "places=(2, 2), kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1)"
CASES = {
    "permutations on both sides of an elementwise chain meet": (
        """
            graph @g(%x: f32[2, 4, 4, 3], %b: f32[3, 1, 1]) {
              %0 = permute(%x, dims=(0, 3, 1, 2)) : f32[2, 3, 4, 4]
              %1 = add(%0, %b) : f32[2, 3, 4, 4]
              %2 = relu(%1) : f32[2, 3, 4, 4]
              %3 = permute(%2, dims=(0, 2, 3, 1)) : f32[2, 4, 4, 3]
              return %3
            }
        """,
        """
            graph @g(%x: f32[2, 4, 4, 3], %b: f32[3, 1, 1]) {
              %0 = reshape(%b, shape=(1, 1, 1, 3)) : f32[1, 1, 1, 3]
              %1 = add(%x, %0) : f32[2, 4, 4, 3]
              %2 = relu(%1) : f32[2, 4, 4, 3]
              return %2
            }
        """,
    ),
    "one permutation after a sum instead of two before it": (
        """
            graph @g(%x: f32[2, 4, 4, 3], %y: f32[2, 4, 4, 3]) {
              %0 = permute(%x, dims=(0, 3, 1, 2)) : f32[2, 3, 4, 4]
              %1 = permute(%y, dims=(0, 3, 1, 2)) : f32[2, 3, 4, 4]
              %2 = add(%0, %1) : f32[2, 3, 4, 4]
              return %2
            }
        """,
        """
            graph @g(%x: f32[2, 4, 4, 3], %y: f32[2, 4, 4, 3]) {
              %0 = add(%x, %y) : f32[2, 4, 4, 3]
              %1 = permute(%0, dims=(0, 3, 1, 2)) : f32[2, 3, 4, 4]
              return %1
            }
        """,
    ),
    "every reader wants channels last": (
        """
            graph @g(%x: f32[2, 3, 4, 4]) {
              %0 = neg(%x) : f32[2, 3, 4, 4]
              %1 = permute(%0, dims=(0, 2, 3, 1)) : f32[2, 4, 4, 3]
              return %1
            }
        """,
        """
            graph @g(%x: f32[2, 3, 4, 4]) {
              %0 = permute(%x, dims=(0, 2, 3, 1)) : f32[2, 4, 4, 3]
              %1 = neg(%0) : f32[2, 4, 4, 3]
              return %1
            }
        """,
    ),
    "a sum over the places of each channel": (
        """
            graph @g(%x: f32[2, 4, 4, 3]) {
              %0 = permute(%x, dims=(0, 3, 1, 2)) : f32[2, 3, 4, 4]
              %1 = reshape(%0, shape=(2, 3, 16)) : f32[2, 3, 16]
              %2 = reduce_sum(%1, dim=2) : f32[2, 3]
              %3 = reshape(%2, shape=(2, 3, 1, 1)) : f32[2, 3, 1, 1]
              %4 = sub(%0, %3) : f32[2, 3, 4, 4]
              return %4
            }
        """,
        """
            graph @g(%x: f32[2, 4, 4, 3]) {
              %0 = reshape(%x, shape=(2, 16, 3)) : f32[2, 16, 3]
              %1 = reduce_sum(%0, dim=1) : f32[2, 3]
              %2 = reshape(%1, shape=(2, 1, 1, 3)) : f32[2, 1, 1, 3]
              %3 = sub(%x, %2) : f32[2, 4, 4, 3]
              %4 = permute(%3, dims=(0, 3, 1, 2)) : f32[2, 3, 4, 4]
              return %4
            }
        """,
    ),
    "over any dim": (
        """
            graph @g(%x: f32[2, 4, 5, 3]) {
              %0 = permute(%x, dims=(0, 3, 1, 2)) : f32[2, 3, 4, 5]
              %1 = reduce_sum(%0, dim=0) : f32[3, 4, 5]
              %2 = reduce_max(%0, dim=1) : f32[2, 4, 5]
              %3 = reduce_sum(%0, dim=2) : f32[2, 3, 5]
              return %1, %2, %3
            }
        """,
        """
            graph @g(%x: f32[2, 4, 5, 3]) {
              %0 = reduce_sum(%x, dim=0) : f32[4, 5, 3]
              %1 = permute(%0, dims=(2, 0, 1)) : f32[3, 4, 5]
              %2 = reduce_max(%x, dim=3) : f32[2, 4, 5]
              %3 = reduce_sum(%x, dim=1) : f32[2, 5, 3]
              %4 = permute(%3, dims=(0, 2, 1)) : f32[2, 3, 5]
              return %1, %2, %4
            }
        """,
    ),
    "windows slide over dims in the middle; a result is flattened": (
        """
            graph @g(%x: f32[2, 4, 4, 3], %w: f32[12, 5]) {
              %0 = permute(%x, dims=(0, 3, 1, 2)) : f32[2, 3, 4, 4]
              %1 = window_max(%0, HALVED, trailing=0) : f32[2, 3, 2, 2]
              %2 = reshape(%1, shape=(2, 12)) : f32[2, 12]
              %3 = matmul(%2, %w) : f32[2, 5]
              %4 = window_which(%0, HALVED, trailing=0) : u8[2, 3, 2, 2]
              %5 = window_max_input(%1, %4, sizes=(4, 4), HALVED, trailing=0) : f32[2, 3, 4, 4]
              return %3, %5
            }
        """,
        """
            graph @g(%x: f32[2, 4, 4, 3], %w: f32[12, 5]) {
              %0 = window_max(%x, HALVED, trailing=1) : f32[2, 2, 2, 3]
              %1 = window_which(%x, HALVED, trailing=1) : u8[2, 2, 2, 3]
              %2 = permute(%0, dims=(0, 3, 1, 2)) : f32[2, 3, 2, 2]
              %3 = reshape(%2, shape=(2, 12)) : f32[2, 12]
              %4 = matmul(%3, %w) : f32[2, 5]
              %5 = window_max_input(%0, %1, sizes=(4, 4), HALVED, trailing=1) : f32[2, 4, 4, 3]
              %6 = permute(%5, dims=(0, 3, 1, 2)) : f32[2, 3, 4, 4]
              return %4, %6
            }
        """,
    ),
    "numbers a dim follow their dims": (
        """
            graph @g(%x: f32[2, 4, 4, 3], %y: f32[2, 4, 4, 3]) {
              %0 = permute(%x, dims=(0, 3, 1, 2)) : f32[2, 3, 4, 4]
              %1 = permute(%y, dims=(0, 3, 1, 2)) : f32[2, 3, 4, 4]
              %2 = cat(%0, %1, dim=1) : f32[2, 6, 4, 4]
              %3 = pad_constant(%2, starts=(0, 0, 1, 0), shape=(2, 6, 6, 5), value=0) : f32[2, 6, 6, 5]
              %4 = slice(%3, starts=(0, 1, 0, 0), stops=(2, 5, 6, 4), steps=(1, 2, 1, 1)) : f32[2, 2, 6, 4]
              %5 = flip(%4, dims=(2,)) : f32[2, 2, 6, 4]
              %6 = permute(%5, dims=(0, 2, 3, 1)) : f32[2, 6, 4, 2]
              return %6
            }
        """,
        """
            graph @g(%x: f32[2, 4, 4, 3], %y: f32[2, 4, 4, 3]) {
              %0 = cat(%x, %y, dim=3) : f32[2, 4, 4, 6]
              %1 = pad_constant(%0, starts=(0, 1, 0, 0), shape=(2, 6, 5, 6), value=0) : f32[2, 6, 5, 6]
              %2 = slice(%1, starts=(0, 0, 0, 1), stops=(2, 6, 4, 5), steps=(1, 1, 1, 2)) : f32[2, 6, 4, 2]
              %3 = flip(%2, dims=(1,)) : f32[2, 6, 4, 2]
              return %3
            }
        """,
    ),
    "what is small does not decide": (
        """
            graph @g(%x: f32[2, 1, 1, 3], %y: f32[2, 3, 4, 4], %z: f32[2, 4, 4, 3]) {
              %0 = permute(%x, dims=(0, 3, 1, 2)) : f32[2, 3, 1, 1]
              %1 = expand(%0, shape=(2, 3, 4, 4)) : f32[2, 3, 4, 4]
              %2 = add(%1, %y) : f32[2, 3, 4, 4]
              %3 = permute(%z, dims=(0, 3, 1, 2)) : f32[2, 3, 4, 4]
              return %2, %3
            }
        """,
        """
            graph @g(%x: f32[2, 1, 1, 3], %y: f32[2, 3, 4, 4], %z: f32[2, 4, 4, 3]) {
              %0 = reshape(%x, shape=(2, 3, 1, 1)) : f32[2, 3, 1, 1]
              %1 = expand(%0, shape=(2, 3, 4, 4)) : f32[2, 3, 4, 4]
              %2 = add(%1, %y) : f32[2, 3, 4, 4]
              %3 = permute(%z, dims=(0, 3, 1, 2)) : f32[2, 3, 4, 4]
              return %2, %3
            }
        """,
    ),
    "a transposition in a graph without images stays": (
        """
            graph @g(%x: f32[2, 5, 3]) {
              %0 = permute(%x, dims=(0, 2, 1)) : f32[2, 3, 5]
              %1 = neg(%0) : f32[2, 3, 5]
              return %1
            }
        """,
        """
            graph @g(%x: f32[2, 5, 3]) {
              %0 = permute(%x, dims=(0, 2, 1)) : f32[2, 3, 5]
              %1 = neg(%0) : f32[2, 3, 5]
              return %1
            }
        """,
    ),
    "a copy of what lies in order is none": (
        """
            graph @g(%x: f32[2, 4, 4, 3]) {
              %0 = permute(%x, dims=(0, 3, 1, 2)) : f32[2, 3, 4, 4]
              %1 = neg(%0) : f32[2, 3, 4, 4]
              %2 = permute(%1, dims=(0, 2, 3, 1)) : f32[2, 4, 4, 3]
              %3 = row_major(%2) : f32[2, 4, 4, 3]
              %4 = permute(%1, dims=(1, 0, 2, 3)) : f32[3, 2, 4, 4]
              %5 = row_major(%4) : f32[3, 2, 4, 4]
              return %3, %5
            }
        """,
        """
            graph @g(%x: f32[2, 4, 4, 3]) {
              %0 = neg(%x) : f32[2, 4, 4, 3]
              %1 = permute(%0, dims=(3, 0, 1, 2)) : f32[3, 2, 4, 4]
              %2 = row_major(%1) : f32[3, 2, 4, 4]
              return %0, %2
            }
        """,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_channels_last(case: str) -> None:
    before, after = (text.replace("HALVED", HALVED) for text in CASES[case])
    check_pass(channels_last, before, after)


@pytest.mark.parametrize("rank", [3, 4, 5])
def test_orders_are_inverse(rank: int) -> None:
    assert [to_last(rank)[d] for d in to_first(rank)] == list(range(rank))


# ---- what is left of permutations ------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """A convolution with a stride, a residual pair with batch norms, two pools and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm, self.pool = nn.BatchNorm2d(8), nn.MaxPool2d(3, 2, 1)
        self.linear = nn.Linear(8, 3)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        x = self.pool(self.first(x).relu())
        x = (self.norm(self.second(x)) + x).relu()
        return self.linear(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def residual_step(compiled: bool) -> list[np.ndarray]:
    """Losses, parameters and statistics of a few training steps."""
    graphc.manual_seed(0)
    model = Residual()
    x, wanted = graphc.randn(4, 2, 13, 11), graphc.tensor([0, 2, 1, 0])
    optimizer = graphc.optim.SGD(model.parameters(), 0.1, momentum=0.9)

    def step(x: graphc.Tensor, wanted: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), wanted)
        loss.backward()
        optimizer.step()
        return loss

    run = graphc.compile(step) if compiled else step
    losses = [run(x, wanted).detach().numpy() for _ in range(3)]
    return [*losses, *(p.detach().numpy() for p in model.state_dict().values())]


def test_a_training_step_has_the_same_bits() -> None:
    assert_same_bits(residual_step(True), residual_step(False))


def test_values_between_convolutions_are_stored_with_channels_last() -> None:
    graph = parse_graph(
        """
        graph @g(%x: f32[2, 3, 9, 9], %v: f32[8, 3, 3, 3], %w: f32[8, 8, 3, 3], %b: f32[8]) {
          %0 = convolution(%x, %v, %b, stride=(1, 1), before=(1, 1), after=(1, 1), dilation=(1, 1), groups=1) : f32[2, 8, 9, 9]
          %1 = relu(%0) : f32[2, 8, 9, 9]
          %2 = max_pool(%1, kernel=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1), ceil=false) : f32[2, 8, 5, 5]
          %3 = convolution(%2, %w, stride=(1, 1), before=(1, 1), after=(1, 1), dilation=(1, 1), groups=1) : f32[2, 8, 5, 5]
          %4 = add(%3, %2) : f32[2, 8, 5, 5]
          return %4
        }
        """
    )
    made = pipeline.optimise(graph)
    permuted = [n.outputs[0].shape for n in made.nodes if n.op.name == "permute" and n.inputs[0].shape[0] == 2]
    assert permuted == [(2, 9, 9, 3), (2, 8, 5, 5)]  # what comes in and what goes out
    inputs = random_inputs(graph)
    assert_same_bits(run_compiled(graph, inputs, 4), run_compiled(graph, inputs, 16))


# ---- the gradient of a weight ------------------------------------------------------------------------------------------------


def test_blocks_are_images_or_rows() -> None:
    assert block_of(8, 10, 10) == (5, 10)
    assert block_of(3, 4, 4) == (3, 4)
    assert block_of(8, 30, 40) == (1, BLOCK // 40)
    assert block_of(8, 2, 5 * BLOCK) == (1, 1)


def test_weight_gradient_is_chains_over_blocks_added_in_order() -> None:
    graph = parse_graph(
        f"""
        graph @g(%g: f32[3, 12, 40, 2], %x: f32[3, 13, 41, 3]) {{
          %0 = convolution_weight_sums(%g, %x, kernel=(3, 2), {DENSE}, before=(1, 0), parts=2, images=2) : f32[2, 3, 2, 3, 2]
          return %0
        }}
        """
    )
    g, x = random_inputs(graph)
    wanted = np.zeros((2, 3, 2, 3, 2), np.float32)
    images, high = block_of(2, 12, 40)
    for part, r, s, c, o in np.ndindex(*wanted.shape):
        total = np.float32(0)
        for n in range(2 * part, min(3, 2 * part + 2), images):
            for row in range(0, 12, high):
                chain = np.float32(0)
                for m, y, q in np.ndindex(min(images, min(3, 2 * part + 2) - n), min(high, 12 - row), 40):
                    if 0 <= row + y + r - 1 < 13:
                        chain = np.float32(fma32(x[n + m, row + y + r - 1, q + s, c], g[n + m, row + y, q, o], chain))
                total = total + chain
        wanted[part, r, s, c, o] = total
    for lanes in (4, 8, 16, 32):
        assert_same_bits(run_compiled(graph, [g, x], lanes), [wanted])


@pytest.mark.parametrize("before, size", [((0, 0), 6), ((1, 1), 4), ((1, 2), 5)])
def test_weight_gradient_in_python(before: tuple[int, int], size: int) -> None:
    sizes = [size + 3 - 1 - 2 * b for b in before]
    graph = parse_graph(
        f"""
        graph @g(%g: f32[2, {size}, {size}, 5], %x: f32[2, {sizes[0]}, {sizes[1]}, 2]) {{
          %0 = convolution_weight_sums(%g, %x, kernel=(3, 3), {DENSE}, before={before}, parts=1, images=2) : f32[1, 3, 3, 2, 5]
          return %0
        }}
        """
    )
    inputs = random_inputs(graph)
    assert_same_bits(run_in_python(graph, inputs), run_compiled(graph, inputs))


@pytest.mark.parametrize("stride, dilation, kernel", [((2, 2), (1, 1), (3, 3)), ((3, 1), (2, 1), (2, 3)), ((2, 4), (1, 2), (1, 5))])
def test_input_gradient_of_strides_is_put_together_of_phases(
    stride: tuple[int, int], dilation: tuple[int, int], kernel: tuple[int, int]
) -> None:
    x, w = graphc.randn(2, 3, 11, 12), graphc.randn(4, 3, *kernel)
    x.requires_grad_()
    out = nn.functional.conv2d(x, w, None, stride, 1, dilation)
    g = graphc.randn(*out.shape)
    out.backward(g)
    expected = np.zeros((2, 3, 13, 14))
    for r, s in np.ndindex(*kernel):
        part = np.einsum("nohw,oc->nchw", g.numpy().astype(float), w.numpy()[:, :, r, s].astype(float))
        steps = zip((r, s), dilation, stride, out.shape[2:], strict=True)
        high, across = (slice(k * d, k * d + (n - 1) * t + 1, t) for k, d, t, n in steps)
        expected[:, :, high, across] += part
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), expected[:, :, 1:-1, 1:-1], rtol=1e-4, atol=1e-4)
