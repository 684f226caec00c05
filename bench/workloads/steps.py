"""Training steps: forward, loss, backward, optimizer.

Enters: a namespace.  Leaves: modules that give a loss.  Never here: how a library takes a step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.workloads.nets import MLP, block_of, perceptron, resnet18
from bench.workloads.workload import Array, Workload

LETTERS, TEXT, WIDTH, HEADS, LAYERS = 96, 128, 256, 8, 4  # mini-GPT
MOMENTUM, ADAM = 4.0, 6.0  # passes over the weights: they and each state are read and written


def classifier(t: Any, net: Any) -> Any:
    """`net` with cross entropy on its scores, of every row."""

    class Classifier(t.nn.Module):  # type: ignore[misc]  # the base is of any library
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Any, wanted: Any) -> Any:
            scores = self.net(x)
            return t.nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), wanted.reshape(-1))

    return Classifier()


def lenet(t: Any) -> Any:
    """LeNet as Caffe has it: 20 and 50 filters of 5 x 5 with pools, 500 and 10 units, on 28 x 28 pixels."""
    nn = t.nn
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


def mini_gpt(t: Any, dropout: float = 0.0) -> Any:
    """A small GPT over letters."""

    class MiniGPT(t.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.letters, self.places = t.nn.Embedding(LETTERS, WIDTH), t.nn.Embedding(TEXT, WIDTH)
            self.blocks = t.nn.Sequential(*[block_of(t, WIDTH, HEADS, dropout) for _ in range(LAYERS)])
            self.drop = t.nn.Dropout(dropout) if dropout else t.nn.Identity()
            self.norm, self.head = t.nn.LayerNorm(WIDTH), t.nn.Linear(WIDTH, LETTERS, bias=False)

        def forward(self, text: Any) -> Any:
            return self.head(self.norm(self.blocks(self.drop(self.letters(text) + self.places.weight))))

    return MiniGPT()


def char_rnn(t: Any) -> Any:
    """An LSTM over letters."""

    class CharRNN(t.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.letters, self.head = t.nn.Embedding(LETTERS, 128), t.nn.Linear(256, LETTERS)
            self.layer = t.nn.LSTM(128, 256, batch_first=True)

        def forward(self, text: Any) -> Any:
            return self.head(self.layer(self.letters(text))[0])

    return CharRNN()


def _batch(shape: tuple[int, ...], classes: int = 10) -> Any:
    def make(random: np.random.Generator) -> tuple[Array, ...]:
        return random.standard_normal(shape, np.float32), random.integers(0, classes, shape[0])

    return make


def _texts(*shape: int) -> Any:
    return lambda random: (random.integers(0, LETTERS, shape), random.integers(0, LETTERS, shape))


def step_of(t: Any, workload: Workload, model: Any, run: Any = lambda function: function, **more: Any) -> Any:
    """A step over a namespace that is PyTorch's, which gives the loss.

    run: what the model goes through, and the optimizer's step where its rate is a constant.   more: of the optimizer.
    """
    assert workload.optimizer
    kind, options = workload.optimizer
    optimizer, schedule = getattr(t.optim, kind)(model.parameters(), **options, **more), None
    if workload.cosine:
        schedule = t.optim.lr_scheduler.CosineAnnealingLR(optimizer, workload.cosine, options["lr"] / 10)
    called, update = run(model), optimizer.step if schedule else run(optimizer.step)

    def accumulated(*given: Any) -> Any:
        total = 0.0
        for parts in zip(*[t.split(x, x.shape[0] // workload.pieces, 0) for x in given], strict=True):
            loss = called(*parts) / workload.pieces
            loss.backward()
            total = total + loss.detach()
        return total

    def step(*given: Any) -> Any:
        optimizer.zero_grad()
        if workload.pieces > 1:
            loss = accumulated(*given)
        else:
            loss = called(*given)
            loss.backward()
        if workload.clip:
            t.nn.utils.clip_grad_norm_(model.parameters(), workload.clip)
        update()
        if schedule:
            schedule.step()
        return loss.detach()

    return step


def _step(
    name: str, net: Any, inputs: Any, passes: float, optimizer: str, rate: float, how: dict[str, Any] | None = None, **options: Any
) -> Workload:
    how = {"tolerance": 5e-4, **(how or {})}
    return Workload(
        name, "steps", lambda t: classifier(t, net(t)), inputs, None, passes,
        optimizer=(optimizer, {"lr": rate, **options}), **how,
        cold_target_s=2.0 if "resnet" in name else 1.0,
    )  # fmt: skip


STEPS = [
    _step("train_mlp_mnist_adam_b64", lambda t: perceptron(t, MLP), _batch((64, 784)), ADAM, "Adam", 1e-3),
    _step("train_lenet_sgdm_b64", lenet, _batch((64, 1, 28, 28)), MOMENTUM, "SGD", 1e-2, momentum=0.9),
    _step(
        "train_cifar_resnet18_sgd_b32", lambda t: resnet18(t, 10, small=True), _batch((32, 3, 32, 32)), MOMENTUM, "SGD", 1e-2,
        momentum=0.9, weight_decay=5e-4,
    ),
    _step("train_minigpt_adamw_b8", mini_gpt, _texts(8, TEXT), ADAM, "AdamW", 3e-4, weight_decay=0.01),
    _step(
        "train_nanogpt_adamw_b8", lambda t: mini_gpt(t, 0.1), _texts(8, TEXT), ADAM, "AdamW", 3e-4,
        {"pieces": 2, "clip": 1.0, "cosine": 200, "tolerance": 0.02}, weight_decay=0.1,  # each library drops other elements
    ),
    _step("train_charrnn_lstm_adam_b32", char_rnn, _texts(32, 64), ADAM, "Adam", 1e-3),
]  # fmt: skip
