"""Read handwritten digits: train a classifier eagerly, train it again as one compiled step, and compare.

The data are scikit-learn's 1,797 scans of 8 x 8 pixels.  What comes out, beside the table: in build/demo, the trained classifier as
one file (digits.gc), which a fresh process loads and runs, and a picture of the learning curves and of the digits misread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from tqdm import tqdm

import graphc
from graphc import nn, optim
from graphc.data import DataLoader, TensorDataset, random_split

EPOCHS, BATCH, HELD_OUT = 20, 32, 360
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-2
TIMED_ROUNDS = 5

Step = Callable[[Any, Any], Any]  # (images, labels) -> loss


# ---- data and model ----------------------------------------------------------------------------------------------------


def scans() -> TensorDataset:
    """All scans, float32 [1797, 64] in [0, 1], with their labels, int64 [1797]."""
    digits = load_digits()
    images = graphc.tensor(digits.data / 16.0, dtype=graphc.float32)
    return TensorDataset(images, graphc.tensor(digits.target, dtype=graphc.int64))


def classifier() -> nn.Module:
    """64 pixels -> 10 scores."""
    return nn.Sequential(
        nn.Linear(64, 128),
        nn.LayerNorm(128),
        nn.GELU(),
        nn.Linear(128, 64),
        nn.LayerNorm(64),
        nn.GELU(),
        nn.Linear(64, 10),
    )


def training(weights: dict[str, graphc.Tensor]) -> tuple[nn.Module, Step]:
    """A model that starts from `weights`, and one step of its training written as anyone would."""
    model = classifier()
    model.load_state_dict(weights)
    optimizer = optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def step(images: graphc.Tensor, labels: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step


def start() -> tuple[dict[str, graphc.Tensor], list[list[Any]], TensorDataset]:
    """From one seed: initial weights, the batches of every epoch, the held-out scans."""
    graphc.manual_seed(0)
    data = scans()
    train, held_out = random_split(data, [len(data) - HELD_OUT, HELD_OUT])
    loader = DataLoader(train, batch_size=BATCH, shuffle=True, drop_last=True)
    batches = [list(loader) for _ in range(EPOCHS)]
    return classifier().state_dict(), batches, TensorDataset(*held_out.rows(list(range(HELD_OUT))))


# ---- training --------------------------------------------------------------------------------------------------------------


def accuracy(model: nn.Module, held_out: TensorDataset) -> float:
    """The share of held-out scans read right."""
    images, labels = held_out.tensors
    with graphc.no_grad():
        right = model(images).argmax(dim=1) == labels
    return right.float().mean().item()


def train(name: str, model: nn.Module, step: Step, batches: list[list[Any]], held_out: TensorDataset) -> dict[str, list[float]]:
    """Run every step; gives the mean loss and the held-out accuracy of each epoch."""
    curves: dict[str, list[float]] = {"loss": [], "accuracy": []}
    progress = tqdm(batches, desc=f"{name:>8}", unit="epoch")
    for epoch in progress:
        losses = [step(images, labels) for images, labels in epoch]
        curves["loss"].append(statistics.fmean(loss.item() for loss in losses))
        curves["accuracy"].append(accuracy(model, held_out))
        progress.set_postfix(loss=f"{curves['loss'][-1]:.4f}", held_out=f"{curves['accuracy'][-1]:.1%}")
    return curves


def same_bits(a: dict[str, graphc.Tensor], b: dict[str, graphc.Tensor]) -> bool:
    """Whether two state dicts hold the same bytes."""
    return a.keys() == b.keys() and all(a[k].numpy().tobytes() == b[k].numpy().tobytes() for k in a)


# ---- time ------------------------------------------------------------------------------------------------------------------


def torch_training(weights: dict[str, graphc.Tensor]) -> Step | None:
    """The same training step in PyTorch, if it is installed; it takes graphc's batches."""
    try:
        import torch
    except ImportError:
        return None
    layers = [
        torch.nn.Linear(64, 128), torch.nn.LayerNorm(128), torch.nn.GELU(), torch.nn.Linear(128, 64), torch.nn.LayerNorm(64),
        torch.nn.GELU(), torch.nn.Linear(64, 10),
    ]  # fmt: skip
    model = torch.nn.Sequential(*layers)
    model.load_state_dict({name: torch.from_numpy(w.numpy().copy()) for name, w in weights.items()})
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def step_times_ms(weights: dict[str, graphc.Tensor], batches: list[list[Any]]) -> dict[str, float]:
    """Median milliseconds of a step of each kind; the kinds take turns, one epoch each, on the same batches."""
    steps: dict[str, Step] = {"eager": training(weights)[1], "compiled": graphc.compile(training(weights)[1])}
    data = dict.fromkeys(steps, batches)
    in_torch = torch_training(weights)
    if in_torch is not None:
        import torch

        steps["PyTorch eager"] = in_torch
        data["PyTorch eager"] = [[[torch.from_numpy(x.numpy()) for x in batch] for batch in epoch] for epoch in batches]
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in tqdm(range(TIMED_ROUNDS + 1), desc="  timing", unit="round"):
        for name, step in steps.items():
            taken = []
            for images, labels in data[name][i]:
                begin = time.perf_counter()
                step(images, labels)
                taken.append(1e3 * (time.perf_counter() - begin))
            if i:  # the first round warms up
                times[name] += taken
    return {name: statistics.median(taken) for name, taken in times.items()}


def first_call() -> dict[str, Any]:
    """Seconds that the first call of the compiled step takes in this process, imports apart."""
    import llvmlite.binding  # noqa: F401  the compiler would import it

    weights, batches, _ = start()
    _, step = training(weights)
    step(*batches[0][0])  # imports of the first eager step
    compiled = graphc.compile(training(weights)[1])
    begin = time.perf_counter()
    compiled(*batches[0][0])
    return {"seconds": time.perf_counter() - begin, **compiled.stats()}


def compile_seconds() -> tuple[float, float]:
    """The first call of the compiled step in two fresh processes: with an empty cache, and with what the first left there."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--first-call"]
        environment = {**os.environ, "GRAPHC_CACHE_DIR": folder}
        cold, warm = (
            json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout) for _ in range(2)
        )
    assert cold["compiles"] >= 1 and warm["compiles"] == 0, (cold, warm)
    return cold["seconds"], warm["seconds"]


# ---- saving and loading ----------------------------------------------------------------------------------------------------


def saved_and_loaded(model: nn.Module, held_out: TensorDataset, folder: Path) -> tuple[graphc.Tensor, bool]:
    """The eager scores of the held-out scans, and whether compiled and loaded in a fresh process they are the same bits."""
    images = held_out.tensors[0]
    compiled = graphc.compile(model.eval())
    with graphc.no_grad():
        eager, scores = model(images), compiled(images)
    compiled.save(folder / "digits.gc")
    np.save(folder / "scans.npy", images.numpy())
    predict = Path(__file__).with_name("digits_predict.py")
    files = [str(folder / name) for name in ("digits.gc", "scans.npy", "logits.npy")]
    subprocess.run([sys.executable, str(predict), *files], check=True)
    loaded = np.load(folder / "logits.npy")
    return eager, eager.numpy().tobytes() == scores.numpy().tobytes() == loaded.tobytes()


# ---- what people look at ---------------------------------------------------------------------------------------------------


def draw(curves: dict[str, dict[str, list[float]]], scores: graphc.Tensor, held_out: TensorDataset, path: Path) -> None:
    """Learning curves of both trainings, and every held-out digit that was misread."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    images, labels = (x.numpy() for x in held_out.tensors)
    read = scores.argmax(dim=1).numpy()
    wrong = np.flatnonzero(read != labels)
    figure = plt.figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subfigures(1, 2)
    above, below = left.subplots(2, 1, sharex=True)
    for (name, curve), style in zip(curves.items(), ("-", "--"), strict=True):
        above.semilogy(range(1, EPOCHS + 1), curve["loss"], style, label=name)
        below.plot(range(1, EPOCHS + 1), [100 * a for a in curve["accuracy"]], style, label=name)
    above.set_ylabel("training loss")
    below.set(xlabel="epoch", ylabel="held out, % right")
    below.xaxis.get_major_locator().set_params(integer=True)
    above.legend()
    right.suptitle(f"{len(wrong)} of {len(labels)} misread")
    columns = 5
    cells = right.subplots(max(2, -(-len(wrong) // columns)), columns, squeeze=False)
    for cell in cells.flat:
        cell.axis("off")
    for cell, i in zip(cells.flat, wrong, strict=False):
        cell.imshow(images[i].reshape(8, 8), cmap="gray_r")
        cell.set_title(f"{labels[i]} as {read[i]}", fontsize=9)
    figure.savefig(path, dpi=120)


def report(correct: float, times: dict[str, float], seconds: tuple[float, float], bits: dict[str, bool]) -> Table:
    """Everything measured, as one table."""
    table = Table(title="Handwritten digits", show_header=False)
    table.add_row("held-out digits read right", f"{correct:.1%}")
    for name, time_ms in times.items():
        ratio = "" if name == "compiled" else f"  ({time_ms / times['compiled']:.1f} x compiled)"
        table.add_row(f"step, {name}", f"{time_ms:.3f} ms{ratio}")
    if "PyTorch eager" not in times:
        table.add_row("step, PyTorch eager", "not installed")
    table.add_row("first call, nothing cached", f"{seconds[0]:.2f} s")
    table.add_row("first call, cached by another process", f"{1e3 * seconds[1]:.0f} ms")
    for name, equal in bits.items():
        table.add_row(f"same bits, {name}", "yes" if equal else "[bold red]NO")
    return table


def main(folder: Path) -> None:
    """Train twice, measure, save, load, draw.  Fails unless the bits are equal and 97 % of the held-out digits are read right."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, batches, held_out = start()
    model, step = training(weights)
    compiled_model, compiled_step = training(weights)
    curves = {
        "eager": train("eager", model, step, batches, held_out),
        "compiled": train("compiled", compiled_model, graphc.compile(compiled_step), batches, held_out),
    }
    trained = same_bits(model.state_dict(), compiled_model.state_dict())
    scores, predicted = saved_and_loaded(compiled_model, held_out, folder)
    bits = {
        f"weights after {EPOCHS} epochs, eager and compiled": trained,
        "scores, eager, compiled and loaded in a fresh process": predicted,
    }
    draw(curves, scores, held_out, folder / "digits.png")
    correct = curves["compiled"]["accuracy"][-1]
    Console().print(report(correct, step_times_ms(weights, batches), compile_seconds(), bits))
    print(f"{folder / 'digits.gc'}: the classifier, saved\n{folder / 'digits.png'}: learning curves and misread digits")
    if not all(bits.values()) or correct < 0.97:
        sys.exit("the bits differ, or too few digits were read right")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path("build/demo"), help="folder for what is written")
    parser.add_argument("--first-call", action="store_true", help="only time the first compiled step and print it as JSON")
    asked = parser.parse_args()
    if asked.first_call:
        print(json.dumps(first_call()))
    else:
        main(asked.output)
