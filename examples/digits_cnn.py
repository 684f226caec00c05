"""Read handwritten digits with a convolutional network: batches from a loader, a learning-rate schedule, a checkpoint.

The data are scikit-learn's 1,797 scans of 8 x 8 pixels.  What comes out, beside the table: in build/digits_cnn, the trained network
as a checkpoint (digits_cnn.pth), which PyTorch reads too, and a picture of the training, of the hardest digits and of the filters.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from tqdm import tqdm

import graphc
from graphc import nn, optim
from graphc.utils.data import DataLoader, Subset, TensorDataset, random_split

EPOCHS, BATCH, HELD_OUT = 15, 32, 360
LEARNING_RATE, WEIGHT_DECAY, SMOOTHING = 1e-2, 1e-2, 0.05
GOAL = 0.97  # of the held-out digits


# ---- data and model --------------------------------------------------------------------------------------------------------


def scans() -> TensorDataset:
    """All scans, float32 [1797, 1, 8, 8] in [0, 1], with their labels, int64 [1797]."""
    digits = load_digits()
    images = graphc.tensor(digits.images / 16.0, dtype=graphc.float32).unsqueeze(1)
    return TensorDataset(images, graphc.tensor(digits.target, dtype=graphc.int64))


class Network(nn.Module):
    """Three convolutions, each with a batch norm, and two poolings.  [N, 1, 8, 8] -> scores [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, padding=1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(48, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.scores = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64 * 2 * 2, 10))

    def forward(self, images: graphc.Tensor) -> graphc.Tensor:
        return self.scores(self.features(images))


# ---- training --------------------------------------------------------------------------------------------------------------


@graphc.no_grad()
def read(model: nn.Module, held_out: Subset) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n, 10] of what the held-out scans show by the model, and what they do show, [n]."""
    model.eval()
    batches = [(model(images).softmax(dim=1), labels) for images, labels in DataLoader(held_out, batch_size=120)]
    model.train()
    probabilities, labels = (graphc.cat(parts).numpy() for parts in zip(*batches, strict=True))
    return probabilities, labels


def train(model: Network, loader: DataLoader, held_out: Subset, path: Path) -> dict[str, list[float]]:
    """Train, and write the checkpoint.  Gives the mean loss, the learning rate and the held-out accuracy of each epoch."""
    optimizer = optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, epochs=EPOCHS, steps_per_epoch=len(loader))
    criterion = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)

    @graphc.compile
    def step(images: graphc.Tensor, labels: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    curves: dict[str, list[float]] = {"loss": [], "rate": [], "accuracy": []}
    progress = tqdm(range(EPOCHS), unit="epoch")
    for epoch in progress:
        losses = []
        for images, labels in loader:
            losses.append(step(images, labels).item())
            schedule.step()
        probabilities, labels = read(model, held_out)
        curves["loss"].append(statistics.fmean(losses))
        curves["rate"].append(schedule.get_last_lr()[0])
        curves["accuracy"].append(float((probabilities.argmax(axis=1) == labels).mean()))
        parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
        graphc.save({"epoch": epoch, **{name: part.state_dict() for name, part in parts.items()}}, path)
        progress.set_postfix(loss=f"{curves['loss'][-1]:.4f}", held_out=f"{curves['accuracy'][-1]:.1%}")
    return curves


# ---- what people look at ---------------------------------------------------------------------------------------------------


def draw(curves: dict[str, list[float]], model: Network, held_out: Subset, path: Path) -> None:
    """The curves, the held-out digits that were read with least confidence, and what the first convolution looks for."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    probabilities, labels = read(model, held_out)
    found = probabilities.argmax(axis=1)
    right_one = probabilities[np.arange(len(labels)), labels]
    figure = plt.figure(figsize=(12, 4.2), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=(1.3, 1, 1))
    cells = left.subplots(3, 1, sharex=True)
    epochs = range(1, EPOCHS + 1)
    cells[0].semilogy(epochs, curves["loss"])
    cells[1].plot(epochs, [100 * a for a in curves["accuracy"]])
    cells[2].plot(epochs, curves["rate"])
    for cell, name in zip(cells, ("training loss", "held out, % right", "learning rate"), strict=True):
        cell.set_ylabel(name)
    cells[2].set_xlabel("epoch")
    middle.suptitle(f"the hardest of {len(labels)} held out; {(found != labels).sum()} misread")
    for cell, i in zip(middle.subplots(3, 3).flat, right_one.argsort(), strict=False):
        cell.imshow(held_out[int(i)][0][0].numpy(), cmap="gray_r")
        cell.set_title(f"{labels[i]}, read as {found[i]}", fontsize=9, color="black" if found[i] == labels[i] else "crimson")
        cell.axis("off")
    right.suptitle("filters of the first convolution")
    filters = model.features[0].weight.detach().numpy()
    for cell, weights in zip(right.subplots(4, 6).flat, filters, strict=True):
        cell.imshow(weights[0], cmap="coolwarm", vmin=-abs(weights).max(), vmax=abs(weights).max())
        cell.axis("off")
    figure.savefig(path, dpi=120)


def main(folder: Path) -> None:
    """Train, load what was saved, report, draw.  Fails unless enough held-out digits are read right."""
    folder.mkdir(parents=True, exist_ok=True)
    graphc.manual_seed(0)
    data = scans()
    training, held_out = random_split(data, [len(data) - HELD_OUT, HELD_OUT])
    loader = DataLoader(training, batch_size=BATCH, shuffle=True, drop_last=True)
    model, checkpoint = Network(), folder / "digits_cnn.pth"
    curves = train(model, loader, held_out, checkpoint)

    loaded = Network()
    loaded.load_state_dict(graphc.load(checkpoint)["model"])
    (trained, labels), (again, _) = read(model, held_out), read(loaded, held_out)
    correct, same = float((again.argmax(axis=1) == labels).mean()), trained.tobytes() == again.tobytes()
    draw(curves, loaded, held_out, folder / "digits_cnn.png")
    table = Table(title="Handwritten digits, convolutional", show_header=False)
    table.add_row("parameters", f"{sum(p.numel() for p in model.parameters()):,}")
    table.add_row("training loss, first and last epoch", f"{curves['loss'][0]:.3f}, {curves['loss'][-1]:.3f}")
    table.add_row("held-out digits read right", f"{correct:.1%}")
    table.add_row("same bits from the loaded checkpoint", "yes" if same else "[bold red]NO")
    Console().print(table)
    print(f"{checkpoint}: the checkpoint\n{folder / 'digits_cnn.png'}: training, hardest digits, filters")
    if correct < GOAL or not same:
        sys.exit("too few digits were read right, or the loaded network differs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path("build/digits_cnn"), help="folder for what is written")
    main(parser.parse_args().output)
