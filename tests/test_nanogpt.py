"""A GPT trained as nanoGPT is, as one program: dropout, accumulated gradients, clipping, AdamW in two groups, a cosine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import graphc
import graphc.nn.functional as F
from graphc import nn

LETTERS, TEXT, WIDTH, HEADS, DROPOUT = 11, 8, 16, 2, 0.2
STEPS, WARM_UP, PIECES = 200, 10, 2


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wider, self.narrower = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, x: Any) -> Any:
        batch, length, _ = x.shape
        parts = self.qkv(self.before(x)).split(WIDTH, dim=2)
        q, k, v = (part.view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=DROPOUT if self.training else 0.0)
        x = x + self.drop(self.project(mixed.transpose(1, 2).contiguous().view(batch, length, WIDTH)))
        return x + self.drop(self.narrower(F.gelu(self.wider(self.between(x)))))


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.letters, self.places, self.drop = nn.Embedding(LETTERS, WIDTH), nn.Embedding(TEXT, WIDTH), nn.Dropout(DROPOUT)
        self.block, self.norm, self.head = Block(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, LETTERS, bias=False)
        self.letters.weight = self.head.weight  # tied

    def forward(self, text: Any, wanted: Any) -> Any:
        x = self.drop(self.letters(text) + self.places(graphc.arange(text.shape[1])))
        scores = self.head(self.norm(self.block(x)))
        return F.cross_entropy(scores.view(-1, LETTERS), wanted.view(-1))


def rate_at(step: int) -> float:
    """Of the highest: linear at first, then a cosine down to a tenth."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - WARM_UP) / (STEPS - WARM_UP)))


def training() -> tuple[nn.Module, Callable[..., Any], Any]:
    """(model, step, schedule)."""
    graphc.manual_seed(7)
    model = GPT()
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = graphc.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    schedule = graphc.optim.lr_scheduler.LambdaLR(optimizer, rate_at)

    def step(texts: Any, wanted: Any) -> Any:
        total = 0.0
        for i in range(PIECES):
            loss = model(texts[i], wanted[i]) / PIECES
            loss.backward()
            total = total + loss.detach()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        return total, norm

    return model, step, schedule


def test_two_hundred_steps_are_one_program() -> None:
    random = np.random.default_rng(0)
    batches = [graphc.from_numpy(random.integers(0, LETTERS, (PIECES, 3, TEXT + 1))) for _ in range(10)]
    pairs = [(b[:, :, :-1].contiguous(), b[:, :, 1:].contiguous()) for b in batches]
    found: list[Any] = []
    for compiled in (False, True):
        model, step, schedule = training()
        run: Any = graphc.compile(step) if compiled else step
        graphc.manual_seed(1)
        told = []
        for i in range(STEPS):
            loss, norm = run(*pairs[i % len(pairs)])
            told.append((loss.item(), norm.item(), schedule.get_last_lr()))
        found.append((told, [p.numpy().tobytes() for p in model.state_dict().values()]))
    assert found[0] == found[1]
    told = found[0][0]
    assert len({rates[0] for *_, rates in told}) > STEPS - 5 and told[-1][0] < told[0][0]
    stats = run.stats()
    assert stats["traces"] == 1 and stats["compiles"] + stats["cache_hits"] == 1 and not stats["fallbacks"]
