"""Layers and initialisers by what they promise: probabilities that sum to one, convolutions that change nothing, seeds."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc import nn


def test_adaptive_softmax_is_a_distribution() -> None:
    """Its classes' probabilities sum to one, and `forward` gives the target's; compiled too, with the same gradients."""
    graphc.manual_seed(0)
    layer = nn.AdaptiveLogSoftmaxWithLoss(12, 30, [5, 11], div_value=2.0)
    x, target = graphc.randn(8, 12), graphc.randint(0, 30, (8,))
    chances = layer.log_prob(x)
    np.testing.assert_allclose(chances.exp().sum(1).detach().numpy(), 1.0, rtol=1e-5)
    output, loss = layer(x, target)
    np.testing.assert_allclose(
        output.detach().numpy(), chances.gather(1, target.unsqueeze(1)).squeeze(1).detach().numpy(), rtol=1e-5
    )
    loss.backward()
    eager = [p.grad.numpy().copy() for p in layer.parameters()]
    layer.zero_grad()
    graphc.compile(layer)(x, target).loss.backward()
    assert all(p.grad.numpy().tobytes() == g.tobytes() for p, g in zip(layer.parameters(), eager, strict=True))
    with pytest.raises(RuntimeError, match=r"Target values should be in \[0, 29\]"):
        layer(x[:1], graphc.tensor([30]))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_dirac_convolutions_change_nothing(n: int) -> None:
    conv = getattr(nn, f"Conv{n}d")(4, 4, 3, padding="same", bias=False)
    nn.init.dirac_(conv.weight)
    x = graphc.randn(2, 4, *(5,) * n)
    assert (conv(x) == x).all()


def test_initialisers_keep_the_tape_out() -> None:
    """They write into parameters, give them back, and leave no history; compiled code draws what eager code draws."""
    weight = nn.Parameter(graphc.empty(20, 30))
    for name, args in {"orthogonal_": (), "sparse_": (0.2,), "trunc_normal_": (), "kaiming_normal_": (), "eye_": ()}.items():
        fill = getattr(nn.init, name)
        graphc.manual_seed(4)
        assert fill(weight, *args) is weight and weight.is_leaf and weight.grad_fn is None
        eager = weight.detach().numpy().copy()
        graphc.manual_seed(4)
        graphc.compile(lambda fill=fill, args=args: fill(weight, *args))()
        assert weight.detach().numpy().tobytes() == eager.tobytes(), name


def test_sparse_columns_have_their_share_of_zeros() -> None:
    zeros = (nn.init.sparse_(graphc.empty(40, 9), sparsity=0.31).numpy() == 0).sum(0)
    assert (zeros == 13).all()


def test_fractional_pools_look_where_they_say() -> None:
    """Values are the input's at the indices, and gradients go there."""
    graphc.manual_seed(0)
    x = graphc.randn(2, 3, 7, 8, requires_grad=True)
    found, places = nn.FractionalMaxPool2d(2, output_ratio=0.6, return_indices=True)(x)
    assert found.shape == (2, 3, 4, 4)
    flat = x.flatten(2).gather(2, places.flatten(2)).reshape(found.shape)
    assert (flat == found).all()
    found.sum().backward()
    counts = graphc.zeros(2, 3, 56).scatter_add_(2, places.flatten(2), graphc.ones(2, 3, 16)).reshape(x.shape)
    assert (x.grad == counts).all()
    for arguments in ({}, {"output_size": 3, "output_ratio": 0.5}, {"output_ratio": 1.5}):
        with pytest.raises(ValueError, match="FractionalMaxPool2d"):
            nn.FractionalMaxPool2d(2, **arguments)
    with pytest.raises(RuntimeError, match="do not fit"):
        nn.FractionalMaxPool2d(3, output_size=6)(x)


def test_a_bilinear_layer_needs_features() -> None:
    with pytest.raises(ValueError, match=r"in1_features must be > 0, but got \(in1_features=0\)"):
        nn.Bilinear(0, 2, 3)


@pytest.mark.parametrize("offsets", [[1], [0, -1], [0, 2, 1], [0, 5]])
def test_bags_begin_at_places_that_rise(offsets: list[int]) -> None:
    with pytest.raises(RuntimeError, match=r"embedding_bag: offsets"):
        nn.functional.embedding_bag(graphc.tensor([0, 1, 2]), graphc.ones(5, 3), graphc.tensor(offsets))
