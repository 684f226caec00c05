"""Learn to write like the King James Bible: a transformer that predicts the next character, trained as one compiled step.

The text is the Psalms and the Proverbs.  What comes out, beside a page of what it writes: in build/char_transformer, a checkpoint
that training could go on from (char_transformer.pth), the trained model as a program that needs none of this code
(char_transformer.gc; it writes the page), and a picture of the loss.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from king_james import PROVERBS, PSALMS, verses
from rich.console import Console
from rich.panel import Panel
from tqdm import tqdm

import graphc
from graphc import nn, optim

LAYERS, WIDTH, HEADS, CONTEXT = 4, 128, 4, 64
STEPS, BATCH, EVERY = 800, 16, 50  # the held-out text is read every so many steps
LEARNING_RATE, HELD_OUT = 3e-3, 0.05
WRITTEN, TEMPERATURE = 400, 0.6
GOAL = 2.0  # nats for a character of the held-out text; the characters' frequencies alone give 3.0

Losses = list[tuple[int, float]]  # (step, nats for a character)


# ---- text and model --------------------------------------------------------------------------------------------------------


def text() -> str:
    """Psalms and Proverbs, a verse a line."""
    return "\n".join(verse for (book, _, _), verse in verses().items() if book in (PSALMS, PROVERBS))


class Block(nn.Module):
    """Attention to what came before, and a perceptron, each behind a layer norm and added on.  [B, L, WIDTH] -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(WIDTH)
        self.to_heads = nn.Linear(WIDTH, 3 * WIDTH)
        self.from_heads = nn.Linear(WIDTH, WIDTH)
        self.before_perceptron = nn.LayerNorm(WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        batch, length, _ = x.shape
        heads = self.to_heads(self.before_attention(x)).view(batch, length, 3, HEADS, WIDTH // HEADS)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.from_heads(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.perceptron(self.before_perceptron(x))


class Writer(nn.Module):
    """Characters, int64 [B, L], to scores of the character after each, [B, L, characters]; L is at most CONTEXT."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.character = nn.Embedding(characters, WIDTH)
        self.place = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.scores = nn.Linear(WIDTH, characters, bias=False)
        for embedding in (self.character, self.place):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, characters: graphc.Tensor) -> graphc.Tensor:
        x = self.character(characters) + self.place(graphc.arange(characters.shape[1]))
        return self.scores(self.norm(self.blocks(x)))


def surprise(model: Writer, windows: graphc.Tensor) -> graphc.Tensor:
    """Mean loss, in nats, of every character after the first of the windows, int64 [B, CONTEXT + 1]."""
    scores = model(windows[:, :-1])
    return nn.functional.cross_entropy(scores.flatten(0, 1), windows[:, 1:].flatten())


# ---- training --------------------------------------------------------------------------------------------------------------


def windows(data: graphc.Tensor, begins: graphc.Tensor) -> graphc.Tensor:
    """CONTEXT + 1 characters from each beginning, int64 [B, CONTEXT + 1]."""
    return data[begins.unsqueeze(1) + graphc.arange(CONTEXT + 1)]


def train(model: Writer, data: graphc.Tensor, held_out: graphc.Tensor) -> tuple[optim.Optimizer, Losses, Losses]:
    """Train; gives the optimizer, the loss of every step, and that of the held-out text every so often."""
    optimizer = optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS, pct_start=0.1)

    @graphc.compile
    def step(batch: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = surprise(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.detach()

    unseen = windows(held_out, graphc.linspace(0, len(held_out) - CONTEXT - 1, 64).long())
    read = graphc.compile(lambda: surprise(model, unseen))
    seen: Losses = []
    judged: Losses = []
    progress = tqdm(range(1, STEPS + 1), unit="step")
    for i in progress:
        seen.append((i, step(windows(data, graphc.randint(0, len(data) - CONTEXT, (BATCH,)))).item()))
        if i < STEPS:
            schedule.step()
        if i % EVERY == 0 or i == 1:
            with graphc.no_grad():
                judged.append((i, read().item()))
            progress.set_postfix(loss=f"{seen[-1][1]:.2f}", held_out=f"{judged[-1][1]:.2f}")
    return optimizer, seen, judged


# ---- writing ---------------------------------------------------------------------------------------------------------------


def written(scores: Callable[[Any], Any], alphabet: list[str], start: str) -> str:
    """What `scores` (characters [1, CONTEXT] to scores of the next, [1, characters]) goes on with after `start`."""
    line = [alphabet.index(c) for c in start]
    for _ in tqdm(range(WRITTEN), desc="writing", unit="character"):
        likely = (scores(graphc.tensor([line[-CONTEXT:]])) / TEMPERATURE).softmax(dim=-1)
        line.append(graphc.multinomial(likely[0], 1).item())
    return "".join(alphabet[i] for i in line[len(start) :])


def draw(seen: Losses, judged: Losses, path: Path) -> None:
    """The loss in training and on the held-out text."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    axes.plot(*zip(*seen, strict=True), color="lightsteelblue", label="training")
    axes.plot(*zip(*judged, strict=True), color="navy", marker="o", label="held-out text")
    axes.set(xlabel="step", ylabel="nats for a character", title="Next character of Psalms and Proverbs")
    axes.legend()
    figure.savefig(path, dpi=120)


def main(folder: Path) -> None:
    """Train, save, write with the saved program, draw.  Fails where the model learnt too little or a file is not what was saved."""
    folder.mkdir(parents=True, exist_ok=True)
    graphc.manual_seed(0)
    whole = text()
    alphabet = sorted(set(whole))
    data = graphc.tensor([alphabet.index(c) for c in whole])
    border = int(len(data) * (1 - HELD_OUT))
    model = Writer(len(alphabet))
    optimizer, seen, judged = train(model, data[:border], data[border:])

    checkpoint, program = folder / "char_transformer.pth", folder / "char_transformer.gc"
    graphc.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "alphabet": alphabet}, checkpoint)
    again = Writer(len(alphabet))
    again.load_state_dict(graphc.load(checkpoint)["model"])
    next_scores = graphc.compile(lambda characters: again(characters)[:, -1])
    verse = whole.index("\n", border + CONTEXT) + 1
    start = whole[verse - CONTEXT : verse]
    with graphc.no_grad():
        first = graphc.tensor([[alphabet.index(c) for c in start]])
        eager, compiled = model(first)[:, -1], next_scores(first)
    next_scores.save(program)
    loaded = graphc.load(program)
    same = eager.numpy().tobytes() == compiled.numpy().tobytes() == loaded(first).numpy().tobytes()

    page = written(loaded, alphabet, start)
    Console().print(Panel(f"[dim]{start}[/dim]{page}", title="What it writes after a line it never saw", width=100))
    draw(seen, judged, folder / "char_transformer.png")
    late, size = statistics.fmean(loss for _, loss in seen[-EVERY:]), sum(p.numel() for p in model.parameters())
    print(f"{size:,} parameters, {len(alphabet)} characters; a guess costs {math.log(len(alphabet)):.2f} nats")
    print(f"nats for a character: {late:.3f} in training, {judged[-1][1]:.3f} in the held-out text")
    print(f"same bits, eager, compiled and loaded: {'yes' if same else 'NO'}")
    print(f"{checkpoint}: the checkpoint\n{program}: the model as a program\n{folder / 'char_transformer.png'}: the loss")
    if judged[-1][1] > GOAL or not same:
        sys.exit("the model learnt too little, or the bits differ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path("build/char_transformer"), help="folder for what is written")
    main(parser.parse_args().output)
