"""Draw handwritten digits that nobody wrote: a variational autoencoder with probabilities from ``graphc.distributions``.

The data are scikit-learn's 1,797 scans of 8 x 8 pixels.  A pixel's value counts the dark ones of 16 finer pixels, so the decoder
gives every pixel a binomial distribution.  What comes out: in build/vae, the decoder as a program (vae_decoder.gc), a checkpoint
(vae.pth), and a picture of held-out scans with their reconstructions, of drawn digits, and of where the scans lie among the codes.
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
from sklearn.decomposition import PCA
from tqdm import tqdm

import graphc
from graphc import nn, optim
from graphc.distributions import Binomial, Normal, kl_divergence
from graphc.utils.data import DataLoader, TensorDataset

PIXELS, SHADES, INNER, CODE = 64, 16, 256, 8
EPOCHS, BATCH, HELD_OUT, LEARNING_RATE = 100, 48, 297, 2e-3
SHOWN, DRAWN = 24, 48
GOAL = 0.5  # of the bound on a held-out scan's improbability that a model of independent pixels reaches

Array = np.ndarray


def perceptron(inputs: int, outputs: int) -> nn.Sequential:
    """Two hidden layers of INNER.  [N, inputs] -> [N, outputs]."""
    return nn.Sequential(nn.Linear(inputs, INNER), nn.SiLU(), nn.Linear(INNER, INNER), nn.SiLU(), nn.Linear(INNER, outputs))


class Autoencoder(nn.Module):
    """Counts, float32 [N, PIXELS], to a distribution of codes; codes, float32 [N, CODE], to one of counts."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = perceptron(PIXELS, 2 * CODE)
        self.decoder = perceptron(CODE, PIXELS)

    def codes(self, counts: graphc.Tensor) -> Normal:
        """Which codes may stand for these counts."""
        mean, scale = self.encoder(counts / SHADES).chunk(2, dim=-1)
        return Normal(mean, nn.functional.softplus(scale) + 1e-4, validate_args=False)

    def counts(self, codes: graphc.Tensor) -> Binomial:
        """Which counts these codes stand for."""
        return Binomial(SHADES, logits=self.decoder(codes), validate_args=False)

    def forward(self, counts: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        """Nats a scan: what the counts cost given a code drawn for them, and what the code costs; the sum bounds -log p(counts)."""
        codes = self.codes(counts)
        prior = Normal(graphc.zeros(CODE), graphc.ones(CODE), validate_args=False)
        lost = -self.counts(codes.rsample()).log_prob(counts).sum(dim=-1)
        return lost.mean(), kl_divergence(codes, prior).sum(dim=-1).mean()


def train(model: Autoencoder, training: graphc.Tensor, held_out: graphc.Tensor) -> tuple[optim.Optimizer, dict[str, list[float]]]:
    """Train; gives the optimizer and the bound of each epoch, in training and on the held-out scans."""
    loader = DataLoader(TensorDataset(training), batch_size=BATCH, shuffle=True, drop_last=True)
    optimizer = optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS, eta_min=LEARNING_RATE / 20)

    @graphc.compile
    def step(counts: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        lost, code = model(counts)
        (lost + code).backward()
        optimizer.step()
        return (lost + code).detach()

    curves: dict[str, list[float]] = {"training": [], "held out": []}
    progress = tqdm(range(EPOCHS), unit="epoch")
    for _ in progress:
        curves["training"].append(statistics.fmean(step(counts).item() for (counts,) in loader))
        schedule.step()
        with graphc.no_grad():
            curves["held out"].append(graphc.stack([sum(model(held_out)) for _ in range(4)]).mean().item())
        progress.set_postfix({name: f"{curve[-1]:.1f}" for name, curve in curves.items()})
    return optimizer, curves


def independent(training: graphc.Tensor, held_out: graphc.Tensor) -> float:
    """Nats a held-out scan where every pixel has a binomial distribution of its own, whatever the others are."""
    share = (training.sum(dim=0) + 0.5) / (SHADES * len(training) + 1)
    return -Binomial(SHADES, probs=share).log_prob(held_out).sum(dim=-1).mean().item()


# ---- what people look at ---------------------------------------------------------------------------------------------------


def sheet(pictures: Array) -> Array:
    """Pictures [n, PIXELS] as one array, eight to a row, with a pixel of white around each."""
    grid = np.pad(pictures.reshape(-1, 8, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
    return grid.transpose(0, 2, 1, 3).reshape(-1, 80)


def draw(curves: dict[str, list[float]], pairs: Array, drawn: Array, codes: Array, labels: Array, path: Path) -> None:
    """The bound, held-out scans over their reconstructions, drawn digits, and the plane of codes."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, ((bound, pair), (sample, map_)) = plt.subplots(2, 2, figsize=(11, 8.4), layout="constrained")
    for name, curve in curves.items():
        bound.plot(range(1, EPOCHS + 1), curve, label=name)
    bound.set(xlabel="epoch", ylabel="nats a scan", title="Bound on -log p(scan)")
    bound.legend()
    pair.imshow(sheet(pairs), cmap="gray_r")
    pair.set_title("Held-out scans; below each, its reconstruction")
    sample.imshow(sheet(drawn), cmap="gray_r")
    sample.set_title("Drawn: codes from the prior, decoded")
    for cell in (pair, sample):
        cell.axis("off")
    spots = map_.scatter(*PCA(2).fit_transform(codes).T, c=labels, cmap="tab10", s=7, vmin=-0.5, vmax=9.5)
    figure.colorbar(spots, ax=map_, ticks=range(10), label="digit")
    map_.set_title("Codes of all scans, on their widest plane")
    figure.savefig(path, dpi=120)


def main(folder: Path) -> None:
    """Train, save, draw digits with the saved decoder.  Fails where the bound is poor or the saved decoder's bits differ."""
    folder.mkdir(parents=True, exist_ok=True)
    graphc.manual_seed(0)
    digits = load_digits()
    scans = graphc.tensor(digits.data, dtype=graphc.float32)
    order = graphc.randperm(len(scans))
    training, held_out = scans[order[HELD_OUT:]], scans[order[:HELD_OUT]]
    model = Autoencoder()
    optimizer, curves = train(model, training, held_out)

    checkpoint, program = folder / "vae.pth", folder / "vae_decoder.gc"
    graphc.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint)
    decode = graphc.compile(lambda codes: model.decoder(codes).sigmoid())
    with graphc.no_grad():
        codes = graphc.randn(DRAWN, CODE)
        eager, compiled = model.counts(codes).probs, decode(codes)
        decode.save(program)
        drawn = graphc.load(program)(codes)
        seen = held_out[:SHOWN]
        rebuilt = model.counts(model.codes(seen).mean).probs
        where = model.codes(scans).mean
    same = eager.numpy().tobytes() == compiled.numpy().tobytes() == drawn.numpy().tobytes()

    pairs = np.stack([seen.numpy().reshape(-1, 8, PIXELS) / SHADES, rebuilt.numpy().reshape(-1, 8, PIXELS)], axis=1)
    draw(curves, pairs, drawn.numpy(), where.numpy(), digits.target, folder / "vae.png")
    flat = independent(training, held_out)
    table = Table(title="A variational autoencoder of digits", show_header=False)
    table.add_row("bound on -log p of a training scan", f"{curves['training'][-1]:.1f} nats")
    table.add_row("bound on -log p of a held-out scan", f"{curves['held out'][-1]:.1f} nats")
    table.add_row("the latter with independent pixels", f"{flat:.1f} nats")
    table.add_row("same bits, decoder eager, compiled, loaded", "yes" if same else "[bold red]NO")
    Console().print(table)
    print(f"{checkpoint}: the checkpoint\n{program}: the decoder as a program\n{folder / 'vae.png'}: scans, drawn digits, codes")
    if curves["held out"][-1] > GOAL * flat or not same:
        sys.exit("the bound is poor, or the bits differ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path("build/vae"), help="folder for what is written")
    main(parser.parse_args().output)
