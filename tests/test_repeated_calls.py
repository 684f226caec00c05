"""What comes again and again in eager mode gets programs of its own: the same bits, and no more memory traffic than need be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import dtypes, kernels
from graphc.eager import gradients
from graphc.ir.op import Op, TensorType
from graphc.nn import functional
from graphc.pipeline import optimise
from graphc.schedule.schedule import Schedule, schedule


def given(*shape: int, seed: int = 0) -> Any:
    return graphc.tensor(np.random.default_rng(seed).standard_normal(shape, np.float32))


def scheduled(name: str, *shapes: tuple[int, ...], **attrs: Any) -> Schedule:
    types = [TensorType(dtypes.float32, shape) for shape in shapes]
    made = schedule(optimise(kernels.one_node(Op.table[name], types, attrs)))
    assert isinstance(made, Schedule)
    return made


CALLS: dict[str, tuple[Any, tuple[tuple[int, ...], ...]]] = {
    "layer norm": (lambda x, w, b: functional.layer_norm(x, (300,), w, b), ((64, 300), (300,), (300,))),
    "attention": (lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True), ((2, 4, 40, 32),) * 3),
    "relu6": (functional.relu6, ((4, 67, 8, 9),)),
}


@pytest.mark.parametrize("name", CALLS)
def test_gradients_keep_their_bits_when_steps_become_one(name: str) -> None:
    function, shapes = CALLS[name]
    inputs = [given(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    seen: list[list[bytes]] = []
    before = {id(p) for p in gradients._programs.values() if p.joined}
    for _ in range(kernels.SPECIALISED_RUNS + gradients.JOINED_RUNS + 1):
        y = function(*inputs)
        found = graphc.autograd.grad((y * y).sum(), inputs)
        seen.append([t.detach().numpy().tobytes() for t in (y, *found)])
    assert any(p.joined and id(p) not in before for p in gradients._programs.values())
    assert all(one == seen[0] for one in seen)


def test_products_for_sizes_that_come_again_keep_their_bits() -> None:
    inputs = [given(*shape, seed=i) for i, shape in enumerate(((70, 200), (90, 200), (90,)))]
    seen = [functional.linear(*inputs).numpy().tobytes() for _ in range(kernels.SPECIALISED_RUNS + 1)]
    assert all(one == seen[0] for one in seen)


def test_loops_for_sizes_that_come_again_keep_their_bits() -> None:
    """A short last axis along which elements are broadcast; axes that change places, in one copy."""
    places, table = given(90, 3), given(200, 130)
    calls = (lambda: places[None] - places[:, None], lambda: table.t().contiguous(), lambda: table.t().clone())
    wanted = (places.numpy()[None] - places.numpy()[:, None], *[np.ascontiguousarray(table.numpy().T)] * 2)
    for call, array in zip(calls, wanted, strict=True):
        for _ in range(kernels.SPECIALISED_RUNS + 1):
            made = call()
            assert made.numpy().tobytes() == array.tobytes() and made.is_contiguous()
            made.zero_()
    assert table.abs().sum().item() > 0


def test_a_joined_gradient_still_differentiates() -> None:
    x = given(130, 200).requires_grad_()
    for _ in range(gradients.JOINED_RUNS + 1):
        (g,) = graphc.autograd.grad(functional.gelu(x).sum(), x)
    (traced,) = graphc.autograd.grad(functional.gelu(x).sum(), x, create_graph=True)
    assert traced.detach().numpy().tobytes() == g.numpy().tobytes()
    (second,) = graphc.autograd.grad(traced.sum(), x)
    assert np.abs(second.numpy()).max() > 0.1


def test_batch_norm_stores_nothing_of_the_size_of_its_input() -> None:
    how = {"groups": 6, "over_batch": True, "eps": 1e-5}
    for name, shapes in (
        ("channel_norm", ((8, 6, 9, 10), (6,), (6,))),
        ("channel_norm_input", ((8, 6, 9, 10), (8, 6, 9, 10), (6,))),
    ):
        made = scheduled(name, *shapes, **how)
        assert made.arena_nbytes < 4 * 8 * 6 * 90, name


def test_offsets_of_flat_kernels_are_not_put_together_from_indices() -> None:
    made = scheduled("relu", (4, 672, 8, 8))
    (launch,) = made.launches
    assert "//" not in str(launch.kernel) and "%" not in str(launch.kernel).replace("%x", "")


CONVOLUTIONS = {
    "plain": ((2, 5, 9, 11), 5, 3, 1, 1, 1),
    "strided": ((2, 3, 12, 9), 6, 5, 2, 2, 1),
    "uneven": ((1, 4, 7, 10), 4, (2, 4), (3, 2), (1, 3), (2, 1)),
    "blocks of rows": ((1, 2, 150, 130), 2, 3, 1, 1, 1),
    "large kernel": ((1, 2, 12, 12), 2, 9, 1, 4, 1),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_depthwise_convolutions_have_one_result(name: str) -> None:
    """Eager and compiled to the bit, and the values of a convolution whose weight is zero between channels."""
    shape, outputs, kernel, stride, padding, dilation = CONVOLUTIONS[name]
    sizes = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    channels = shape[1]
    x, weight = given(*shape), given(outputs, 1, *sizes, seed=1)
    full = graphc.zeros(outputs, channels, *sizes)
    for o in range(outputs):
        full[o, o // (outputs // channels)] = weight[o, 0]

    def step(x: Any, weight: Any, groups: int) -> tuple[Any, ...]:
        x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
        y = functional.conv2d(x, weight, None, stride, padding, dilation, groups)
        return y, *graphc.autograd.grad((y * y).sum(), (x, weight))

    eager, wanted = step(x, weight, channels), step(x, full, 1)
    compiled = graphc.compile(lambda x, weight: functional.conv2d(x, weight, None, stride, padding, dilation, channels))(x, weight)
    assert compiled.numpy().tobytes() == eager[0].detach().numpy().tobytes()
    of_weight = [wanted[2].numpy()[o, o // (outputs // channels)] for o in range(outputs)]
    for have, want in zip(eager, (*wanted[:2], graphc.tensor(np.stack(of_weight)[:, None])), strict=True):
        np.testing.assert_allclose(have.detach().numpy(), want.detach().numpy(), rtol=1e-4, atol=2e-4)
