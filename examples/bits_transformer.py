"""A small transformer classifier for ``graphc verify bits examples/bits_transformer.py``.

Sizes are odd on purpose: no vector width, tile or thread count divides them.
"""

from __future__ import annotations

from typing import Any

import graphc
from graphc import nn

BATCH, LENGTH, WIDTH, HEADS, CLASSES = 3, 17, 48, 3, 33


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a layer norm and beside a residual.  [B, L, WIDTH] -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(WIDTH)
        self.to_heads = nn.Linear(WIDTH, 3 * WIDTH)
        self.from_heads = nn.Linear(WIDTH, WIDTH)
        self.before_perceptron = nn.LayerNorm(WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH + 1), nn.GELU(), nn.Linear(2 * WIDTH + 1, WIDTH))

    def forward(self, x: Any) -> Any:
        batch, length, _ = x.shape
        heads = self.to_heads(self.before_attention(x)).reshape(batch, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        query, key, value = heads[0], heads[1], heads[2]
        weights = (query @ key.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5).softmax(dim=-1)
        x = x + self.from_heads((weights @ value).transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.perceptron(self.before_perceptron(x))


class Classifier(nn.Module):
    """Embedding, one block, and scores for every position.  Integers [B, L] -> [B, L, CLASSES]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, WIDTH)
        self.position = nn.Parameter(graphc.randn(LENGTH, WIDTH) * 0.02)
        self.block = Block()
        self.scores = nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens: Any) -> Any:
        return self.scores(self.block(self.embedding(tokens) + self.position))


def loss(model: Any, tokens: Any, targets: Any) -> Any:
    """Mean cross entropy over all positions."""
    return nn.functional.cross_entropy(model(tokens).reshape(-1, CLASSES), targets.reshape(-1))


def build() -> dict[str, Any]:
    """What ``graphc verify bits`` runs; equal at every call."""
    graphc.manual_seed(7)
    tokens = graphc.randint(0, CLASSES, (BATCH, LENGTH))
    targets = graphc.randint(0, CLASSES, (BATCH, LENGTH))
    return {
        "model": Classifier(),
        "inputs": (tokens, targets),
        "loss": loss,
        "optimizer": lambda parameters: graphc.optim.AdamW(parameters, lr=1e-2),
    }
