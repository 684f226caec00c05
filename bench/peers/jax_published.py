"""The examples' models over `bench.peers.jax_names`, with the published names of weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bench.peers.jax_names import (
    BatchNorm2d,
    Conv2d,
    Embedding,
    LayerNorm,
    Linear,
    Module,
    Sequential,
    scaled_dot_product_attention,
)

WIDTH, HEADS, LAYERS, INNER, EPSILON = 384, 12, 6, 1536, 1e-12
STAGES = (  # blocks, kernel, stride of the first block, expansion, channels out
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip


def tree(**parts: Module) -> Module:
    """A module of named parts."""
    made = Module()
    vars(made).update(parts)
    return made


class MiniLM(Module):
    """all-MiniLM-L6-v2: tokens and mask to points of length one."""

    def __init__(self) -> None:
        self.embeddings = tree(
            word_embeddings=Embedding(0, 0), position_embeddings=Embedding(0, 0), token_type_embeddings=Embedding(0, 0),
            LayerNorm=LayerNorm(WIDTH, EPSILON),
        )  # fmt: skip
        output = lambda: tree(dense=Linear(0, 0), LayerNorm=LayerNorm(WIDTH, EPSILON))
        layer = lambda: tree(
            attention=tree(self=tree(query=Linear(0, 0), key=Linear(0, 0), value=Linear(0, 0)), output=output()),
            intermediate=tree(dense=Linear(0, 0)), output=output(),
        )  # fmt: skip
        self.encoder = tree(layer=Sequential(*(layer() for _ in range(LAYERS))))

    def forward(self, tokens: Any, mask: Any) -> Any:
        (batch, length), e = tokens.shape, vars(self.embeddings)
        x = e["word_embeddings"].weight[tokens] + e["position_embeddings"].weight[:length] + e["token_type_embeddings"].weight[0]
        x, seen = e["LayerNorm"](x), mask[:, None, None, :].astype(bool)
        heads = lambda y: jnp.swapaxes(y.reshape(batch, length, HEADS, WIDTH // HEADS), 1, 2)
        for layer in vars(self.encoder)["layer"]:
            looking, beside = vars(vars(layer.attention)["self"]), layer.attention.output
            query, key, value = (heads(looking[name](x)) for name in ("query", "key", "value"))
            mixed = scaled_dot_product_attention(query, key, value, attn_mask=seen)
            x = beside.LayerNorm(beside.dense(jnp.swapaxes(mixed, 1, 2).reshape(batch, length, WIDTH)) + x)
            inner = jax.nn.gelu(layer.intermediate.dense(x), approximate=False)
            x = layer.output.LayerNorm(layer.output.dense(inner) + x)
        share = mask[..., None].astype(x.dtype)
        mean = (x * share).sum(1) / jnp.maximum(share.sum(1), 1e-9)
        return mean / jnp.maximum(jnp.sqrt((mean * mean).sum(1, keepdims=True)), 1e-12)


def _conv(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> Conv2d:
    return Conv2d(channels, out, kernel, stride, "SAME", groups, bias=False)


class Block(Module):
    """Widen, filter each channel on its own, narrow."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        inner = channels * expansion
        self.widens, self.adds = expansion > 1, stride == 1 and channels == out
        if self.widens:
            self._expand_conv, self._bn0 = _conv(channels, inner, 1), BatchNorm2d(inner, 1e-3)
        self._depthwise_conv, self._bn1 = _conv(inner, inner, kernel, stride, inner), BatchNorm2d(inner, 1e-3)
        self._project_conv, self._bn2 = _conv(inner, out, 1), BatchNorm2d(out, 1e-3)

    def forward(self, x: Any) -> Any:
        inner = jax.nn.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        inner = self._bn2(self._project_conv(jax.nn.relu6(self._bn1(self._depthwise_conv(inner)))))
        return inner + x if self.adds else inner


class EfficientNet(Module):
    """EfficientNet-Lite0: pictures to scores."""

    def __init__(self) -> None:
        self._conv_stem, self._bn0 = _conv(3, 32, 3, 2), BatchNorm2d(32, 1e-3)
        blocks, channels = [], 32
        for count, kernel, stride, expansion, out in STAGES:
            for i in range(count):
                blocks.append(Block(channels, out, kernel, stride if i == 0 else 1, expansion))
                channels = out
        self._blocks = Sequential(*blocks)
        self._conv_head, self._bn1, self._fc = _conv(320, 1280, 1), BatchNorm2d(1280, 1e-3), Linear(1280, 1000)

    def forward(self, x: Any) -> Any:
        x = self._blocks(jax.nn.relu6(self._bn0(self._conv_stem(x))))
        return self._fc(jax.nn.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))
