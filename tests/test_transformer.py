"""Attention and transformer layers: what a position may see, masks, the functions behind them, copies."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.nn import functional as F
from graphc.nn.attention import SDPBackend, _cur_sdpa_kernel_backends, sdpa_kernel

S, T, N, E = 6, 4, 3, 8


def model(**how: Any) -> Any:
    graphc.manual_seed(0)
    return nn.Transformer(E, 2, 1, 1, 16, dropout=0.0, batch_first=True, **how)


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_causal_decoder_sees_nothing_behind_a_position(norm_first: bool) -> None:
    transformer, source, target = model(norm_first=norm_first), graphc.randn(N, S, E), graphc.randn(N, T, E)
    mask = nn.Transformer.generate_square_subsequent_mask(T)
    whole = transformer(source, target, tgt_mask=mask, tgt_is_causal=True)
    changed = target.clone()
    changed[:, 2:] = 5.0
    assert graphc.equal(transformer(source, changed, tgt_mask=mask)[:, :2], whole[:, :2])
    assert not graphc.equal(transformer(source, changed)[:, :2], transformer(source, target)[:, :2])


def test_padding_is_not_seen() -> None:
    transformer, source, target = model(), graphc.randn(N, S, E), graphc.randn(N, T, E)
    padding = graphc.arange(S) >= graphc.tensor([[S], [4], [2]])
    masks = {"src_key_padding_mask": padding, "memory_key_padding_mask": padding}
    y = transformer(source, target, **masks)
    filled = source.masked_fill(padding.unsqueeze(-1), 1e3)
    assert graphc.equal(transformer(filled, target, **masks), y)
    alone = transformer(source[1:2, :4], target[1:2])
    np.testing.assert_allclose(alone.detach().numpy(), y[1:2].detach().numpy(), rtol=1e-5, atol=1e-6)


def test_attention_is_its_definition() -> None:
    graphc.manual_seed(0)
    layer = nn.MultiheadAttention(E, 2, batch_first=True)
    x = graphc.randn(N, S, E)
    out, weights = layer(x, x, x, average_attn_weights=False)
    packed, bias = layer.in_proj_weight.detach().numpy(), layer.in_proj_bias.detach().numpy()
    q, k, v = ((x.numpy() @ w.T + b).reshape(N, S, 2, E // 2) for w, b in zip(np.split(packed, 3), np.split(bias, 3), strict=True))
    scores = np.exp(np.einsum("nshe,nthe->nhst", q, k) / np.sqrt(E / 2))
    shares = scores / scores.sum(-1, keepdims=True)
    np.testing.assert_allclose(weights.detach().numpy(), shares, rtol=1e-4, atol=1e-6)
    mixed = np.einsum("nhst,nthe->nshe", shares, v).reshape(N, S, E)
    wanted = mixed @ layer.out_proj.weight.detach().numpy().T
    np.testing.assert_allclose(out.detach().numpy(), wanted, rtol=1e-4, atol=1e-6)
    assert layer(x, x, x, need_weights=False)[1] is None


def test_groups_of_queries_share_keys() -> None:
    q, k, v = graphc.randn(2, 6, S, E), graphc.randn(2, 3, S, E), graphc.randn(2, 3, S, E)
    repeated = (x.repeat_interleave(2, 1) for x in (k, v))
    assert graphc.equal(F.scaled_dot_product_attention(q, k, v, enable_gqa=True), F.scaled_dot_product_attention(q, *repeated))
    with pytest.raises(RuntimeError, match="scaled_dot_product_attention"):
        F.scaled_dot_product_attention(q, k, v)


def test_stacks_are_copies_and_dropout_is_drawn_in_training_alone() -> None:
    layer = nn.TransformerEncoderLayer(E, 2, 16, dropout=0.5)
    encoder = nn.TransformerEncoder(layer, 2)
    assert encoder.layers[0].linear1.weight is not encoder.layers[1].linear1.weight
    assert graphc.equal(encoder.layers[0].linear1.weight, encoder.layers[1].linear1.weight)
    x = graphc.randn(S, N, E)
    assert not graphc.equal(encoder(x), encoder(x))
    encoder.eval()
    y = encoder(x)
    assert graphc.equal(encoder(x), y)
    for other in (copy.deepcopy(encoder), graphc.compile(encoder)):
        assert graphc.equal(other(x), y)


def test_custom_parts() -> None:
    class Sum(nn.Module):
        def forward(self, tgt: Any, memory: Any, **masks: Any) -> Any:
            return tgt + memory.sum()

    transformer = nn.Transformer(E, 2, num_encoder_layers=1, dim_feedforward=8, custom_decoder=Sum())
    assert [name for name, _ in transformer.named_children()] == ["encoder", "decoder"]
    assert transformer(graphc.zeros(S, N, E), graphc.zeros(T, N, E)).shape == (T, N, E)


def test_backends_are_a_hint() -> None:
    before = _cur_sdpa_kernel_backends()
    with sdpa_kernel([SDPBackend.MATH, SDPBackend.FLASH_ATTENTION], set_priority=True):
        assert _cur_sdpa_kernel_backends(with_priority=True) == [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]
        with sdpa_kernel(SDPBackend.MATH):
            assert _cur_sdpa_kernel_backends() == [SDPBackend.MATH]
    assert _cur_sdpa_kernel_backends() == before
    with pytest.raises(AssertionError, match="Backend must be an instance of SDPBackend"), sdpa_kernel("math"):  # type: ignore[arg-type]
        pass
