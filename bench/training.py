"""``python -m bench training [models] [--seconds S] [--threads N] [--compiled]``: eager training steps beside PyTorch's.

Enters: names of models.  Leaves: milliseconds per training step, PyTorch's time over graphc's (above 1 is faster than PyTorch), and
the geometric mean of the ratios.  Never here: single operators (`bench.eager`).

Every model is written once, over the namespace `nn` of either library, and starts from the same weights.  The losses of the first
steps are compared before anything is timed.  The libraries take turns; a time is the median of their samples.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CHECKED_STEPS = 3
TOLERANCE = 2e-4  # of a loss, relative
WARMUP_STEPS = 30
LEAST_ROUNDS = 6
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Training:
    """`model`: made of a library's `nn`; called with a batch's arrays as tensors it gives the loss.   batch: made of a generator of
    random numbers.   optimizer: made of a library's `optim` and the parameters."""

    model: Callable[[Any], Any]
    batch: Callable[[np.random.Generator], tuple[Array, ...]]
    optimizer: Callable[[Any, Any], Any]


def _normal(random: np.random.Generator, *shape: int) -> Array:
    return random.standard_normal(shape, np.float32)


# ---- models ------------------------------------------------------------------------------------------------------------


def digits_cnn(nn: Any) -> Any:
    """Two convolutions, a pool and a linear layer on scans of 8 x 8."""

    class Classifier(nn.Module):  # type: ignore[misc]  # the base is of either library
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Flatten(), nn.Linear(64 * 4 * 4, 10),
            )  # fmt: skip

        def forward(self, scans: Any, classes: Any) -> Any:
            return nn.functional.cross_entropy(self.layers(scans), classes)

    return Classifier()


def _attention(nn: Any, width: int, heads: int, causal: bool) -> Any:
    class Attention(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
            self.out = nn.Linear(width, width)

        def forward(self, x: Any) -> Any:
            batch, length, _ = x.shape
            parts = (
                layer(x).view(batch, length, heads, width // heads).transpose(1, 2) for layer in (self.query, self.key, self.value)
            )
            y = nn.functional.scaled_dot_product_attention(*parts, is_causal=causal)
            return self.out(y.transpose(1, 2).reshape(batch, length, width))

    return Attention()


CHARACTERS, CONTEXT = 65, 64


def character_transformer(nn: Any, width: int = 128, heads: int = 4, layers: int = 4) -> Any:
    """A language model of characters: causal attention, normalisation before each part."""

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.attention = _attention(nn, width, heads, causal=True)
            self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
            self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x: Any) -> Any:
            x = x + self.attention(self.before(x))
            return x + self.feed_forward(self.between(x))

    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.characters, self.places = nn.Embedding(CHARACTERS, width), nn.Embedding(CONTEXT, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CHARACTERS)

        def forward(self, text: Any, places: Any, following: Any) -> Any:
            x = self.characters(text) + self.places(places)
            scores = self.head(self.norm(self.blocks(x)))
            return nn.functional.cross_entropy(scores.view(-1, CHARACTERS), following.view(-1))

    return Model()


PIXELS, LATENT = 784, 20


def autoencoder(nn: Any, hidden: int = 400) -> Any:
    """A variational autoencoder of two perceptrons; its noise comes with the batch, so that both libraries get the same."""

    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Linear(PIXELS, hidden)
            self.mean, self.deviation = nn.Linear(hidden, LATENT), nn.Linear(hidden, LATENT)
            self.decode = nn.Sequential(nn.Linear(LATENT, hidden), nn.ReLU(), nn.Linear(hidden, PIXELS), nn.Sigmoid())

        def forward(self, images: Any, noise: Any) -> Any:
            x = nn.functional.relu(self.encode(images))
            mean, log_variance = self.mean(x), self.deviation(x)
            y = self.decode(mean + noise * (0.5 * log_variance).exp())
            missed = nn.functional.binary_cross_entropy(y, images, reduction="sum")
            return missed - 0.5 * (1 + log_variance - mean.pow(2) - log_variance.exp()).sum()

    return Model()


WORDS = 30522


def sentence_encoder(nn: Any, width: int = 384, heads: int = 12, layers: int = 6) -> Any:
    """The shape of MiniLM-L6 with two classes on the mean of its words: 30522 words, normalisation after each part."""

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.attention = _attention(nn, width, heads, causal=False)
            self.middle, self.after = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
            self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x: Any) -> Any:
            x = self.middle(x + self.attention(x))
            return self.after(x + self.feed_forward(x))

    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(WORDS, width), nn.Embedding(512, width)
            self.norm = nn.LayerNorm(width, eps=1e-12)
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.head = nn.Linear(width, 2)

        def forward(self, text: Any, places: Any, classes: Any) -> Any:
            x = self.norm(self.words(text) + self.places(places))
            return nn.functional.cross_entropy(self.head(self.blocks(x).mean(dim=1)), classes)

    return Model()


STAGES = (  # EfficientNet-Lite0: growth, channels, blocks, stride, kernel
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip


def efficientnet_lite(nn: Any, classes: int = 1000) -> Any:
    """EfficientNet-Lite0: inverted bottlenecks of depthwise convolutions, batch normalisation, ReLU6."""

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, clipped: bool = True) -> list[Any]:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [layer, nn.BatchNorm2d(outputs), *([nn.ReLU6()] if clipped else [])]

    class Bottleneck(nn.Module):  # type: ignore[misc]
        def __init__(self, inputs: int, outputs: int, growth: int, stride: int, kernel: int) -> None:
            super().__init__()
            wide = inputs * growth
            self.layers = nn.Sequential(
                *(conv(inputs, wide, 1) if growth > 1 else ()),
                *conv(wide, wide, kernel, stride, groups=wide),
                *conv(wide, outputs, 1, clipped=False),
            )
            self.skips = stride == 1 and inputs == outputs

        def forward(self, x: Any) -> Any:
            return x + self.layers(x) if self.skips else self.layers(x)

    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            parts, inputs = conv(3, 32, 3, 2), 32
            for growth, outputs, count, stride, kernel in STAGES:
                for i in range(count):
                    parts.append(Bottleneck(inputs, outputs, growth, stride if i == 0 else 1, kernel))
                    inputs = outputs
            self.layers = nn.Sequential(*parts, *conv(inputs, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head = nn.Linear(1280, classes)

        def forward(self, images: Any, wanted: Any) -> Any:
            return nn.functional.cross_entropy(self.head(self.layers(images)), wanted)

    return Model()


TRAININGS: dict[str, Training] = {
    "digits_cnn": Training(
        digits_cnn,
        lambda r: (_normal(r, 64, 1, 8, 8), r.integers(0, 10, 64)),
        lambda optim, parameters: optim.SGD(parameters, lr=0.05, momentum=0.9),
    ),
    "character_transformer": Training(
        character_transformer,
        lambda r: (r.integers(0, CHARACTERS, (32, CONTEXT)), np.arange(CONTEXT), r.integers(0, CHARACTERS, (32, CONTEXT))),
        lambda optim, parameters: optim.AdamW(parameters, lr=3e-4),
    ),
    "autoencoder": Training(
        autoencoder,
        lambda r: (r.random((128, PIXELS), np.float32), _normal(r, 128, LATENT)),
        lambda optim, parameters: optim.Adam(parameters, lr=1e-3),
    ),
    "sentence_encoder": Training(
        sentence_encoder,
        lambda r: (r.integers(0, WORDS, (16, 64)), np.arange(64), r.integers(0, 2, 16)),
        lambda optim, parameters: optim.AdamW(parameters, lr=2e-5),
    ),
    "efficientnet_lite": Training(
        efficientnet_lite,
        lambda r: (_normal(r, 4, 3, 128, 128), r.integers(0, 1000, 4)),
        lambda optim, parameters: optim.SGD(parameters, lr=1e-4, momentum=0.9),
    ),
}


# ---- steps -------------------------------------------------------------------------------------------------------------


def weights_of(training: Training) -> dict[str, Array]:
    """Initial weights by name: PyTorch's own, from a fixed seed."""
    import torch

    torch.manual_seed(0)
    return {name: value.detach().numpy().copy() for name, value in training.model(torch.nn).state_dict().items()}


def step_of(library: Any, training: Training, weights: dict[str, Array], batch: tuple[Array, ...]) -> Callable[[], Any]:
    """One training step of a model that starts from `weights`; gives the loss."""
    model = training.model(library.nn)
    model.load_state_dict({name: library.tensor(value) for name, value in weights.items()})
    optimizer = training.optimizer(library.optim, model.parameters())
    given = [library.tensor(part) for part in batch]

    def step() -> Any:
        optimizer.zero_grad()
        loss = model(*given)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def wrong(steps: Sequence[Callable[[], Any]]) -> str:
    """How far the losses of the first steps are apart, if too far: the last of `steps` is PyTorch's."""
    for count in range(CHECKED_STEPS):
        *ours, theirs = (float(step()) for step in steps)
        for loss in ours:
            if not abs(loss - theirs) <= TOLERANCE * max(1.0, abs(theirs)):
                return f"step {count + 1}: loss {loss:.6f} for {theirs:.6f}"
    return ""


def measure(steps: Sequence[Callable[[], Any]], seconds: float) -> list[float]:
    """Median milliseconds of a step of each.  They take turns; the first third of a turn is not counted, as it falls into the time
    that the threads of the library before go on spinning."""
    for step in steps:
        begin = time.perf_counter()
        for count in range(WARMUP_STEPS):  # also what is made once: kernels, recipes
            if count >= CHECKED_STEPS and time.perf_counter() > begin + seconds:
                break
            step()
    samples: list[list[float]] = [[] for _ in steps]
    turn = seconds / LEAST_ROUNDS
    for _ in range(LEAST_ROUNDS):
        for step, times in zip(steps, samples, strict=True):
            begin = time.perf_counter()
            for count in itertools.count():
                start = time.perf_counter()
                if count > 1 and start > begin + turn:
                    break
                step()
                if count and (start > begin + turn / 3 or count == 1):
                    times.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(times) for times in samples]


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 where no loss is wrong and the mean of the ratios is at least 1."""
    parser = argparse.ArgumentParser(prog="python -m bench training", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="MODEL", help=f"among {', '.join(TRAININGS)}; all without any")
    parser.add_argument("--seconds", type=float, default=6.0, help="time for each library and model (6)")
    parser.add_argument("--threads", type=int, default=2, help="threads of both libraries (2)")
    parser.add_argument("--compiled", action="store_true", help="also graphc's step compiled as a whole")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(TRAININGS)):
        parser.error(f"there is no model {', '.join(unknown)}; there are {', '.join(TRAININGS)}")
    import torch

    import graphc
    from graphc.runtime.threads import set_num_threads

    torch.set_num_threads(given.threads)
    set_num_threads(given.threads)
    kinds = [
        "eager ms",
        *(["compiled ms"] if given.compiled else []),
        "torch ms",
        "ratio",
        *(["compiled"] if given.compiled else []),
    ]
    print(f"{'model':24}" + "".join(f"{kind:>12}" for kind in kinds))
    ratios: list[float] = []
    failed = False
    for name in given.names or TRAININGS:
        training = TRAININGS[name]
        weights, batch = weights_of(training), training.batch(np.random.default_rng(0))
        steps = [step_of(library, training, weights, batch) for library in (graphc, torch)]
        if given.compiled:
            steps.insert(1, graphc.compile(step_of(graphc, training, weights, batch)))
        if problem := wrong(steps):
            print(f"{name:24} {problem}")
            failed = True
            continue
        gc.collect()
        *ours, theirs = measure(steps, given.seconds)
        ratios.append(theirs / ours[0])
        cells = [*ours, theirs, *(theirs / time_ms for time_ms in ours)]
        print(f"{name:24}" + "".join(f"{cell:12.2f}" for cell in cells), flush=True)
    mean = math.exp(statistics.fmean(map(math.log, ratios))) if ratios else math.nan
    print(f"geometric mean of {len(ratios)} ratios: {mean:.2f}")
    return 0 if mean >= 1 and not failed else 1
