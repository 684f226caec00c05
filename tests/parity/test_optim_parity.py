"""Optimizers and schedules follow PyTorch's step by step, and each side goes on from the other's state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

SHAPES = [(4, 3), (5,), ()]
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd decay": ("SGD", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    "sgd momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "sgd dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    "sgd nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": ("Adam", {}),
    "adam decay": ("Adam", {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}),
    "adam amsgrad": ("Adam", {"lr": 0.01, "amsgrad": True, "maximize": True}),
    "adamw": ("AdamW", {"lr": 0.01}),
    "adamw amsgrad": ("AdamW", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.3}),
}


class Pair:
    """The same parameters and optimizer on both sides."""

    def __init__(self, kind: str) -> None:
        name, how = KINDS[kind]
        rng = np.random.default_rng(0)
        self.values = [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]
        self.mine = [graphc.nn.Parameter(graphc.tensor(v)) for v in self.values]
        self.theirs = [torch.nn.Parameter(torch.tensor(v)) for v in self.values]
        self.my_optimizer = getattr(graphc.optim, name)(self.mine, **how)
        self.their_optimizer = getattr(torch.optim, name)(self.theirs, **how)

    def step(self, t: int) -> None:
        """One step with the same gradients; the second parameter has none in the first two steps."""
        rng = np.random.default_rng(100 + t)
        for i, (p, q, shape) in enumerate(zip(self.mine, self.theirs, SHAPES, strict=True)):
            g = rng.standard_normal(shape).astype(np.float32)
            skipped = i == 1 and t < 2
            p.grad = None if skipped else graphc.tensor(g)
            q.grad = None if skipped else torch.tensor(g)
        self.my_optimizer.step()
        self.their_optimizer.step()

    def check(self) -> None:
        """Parameters and state are equal to rounding."""
        for p, q in zip(self.mine, self.theirs, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=3e-6, atol=1e-6)
            for name, value in self.their_optimizer.state[q].items():
                if value is not None:
                    np.testing.assert_allclose(self.my_optimizer.state[p][name].numpy(), value.numpy(), rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_steps(kind: str) -> None:
    pair = Pair(kind)
    for t in range(12):
        pair.step(t)
        pair.check()


@pytest.mark.parametrize("kind", KINDS)
def test_state_goes_from_torch_to_graphc(kind: str) -> None:
    pair, fresh = Pair(kind), Pair(kind)
    for t in range(4):
        pair.step(t)
    with graphc.no_grad(), torch.no_grad():
        for p, q, source in zip(fresh.mine, fresh.theirs, pair.theirs, strict=True):
            p.copy_(graphc.tensor(source.detach().numpy()))
            q.copy_(source)
    fresh.my_optimizer.load_state_dict(pair.their_optimizer.state_dict())
    fresh.their_optimizer.load_state_dict(pair.their_optimizer.state_dict())
    for t in range(4, 8):
        fresh.step(t)
        fresh.check()


def in_torch(value: Any) -> Any:
    """A state dict with PyTorch's tensors."""
    if isinstance(value, dict):
        return {k: in_torch(v) for k, v in value.items()}
    if isinstance(value, list):
        return [in_torch(v) for v in value]
    return torch.tensor(value.numpy()) if isinstance(value, graphc.Tensor) else value


@pytest.mark.parametrize("kind", KINDS)
def test_state_goes_from_graphc_to_torch(kind: str) -> None:
    pair = Pair(kind)
    for t in range(4):
        pair.step(t)
    pair.their_optimizer = type(pair.their_optimizer)(pair.theirs, **KINDS[kind][1])
    pair.their_optimizer.load_state_dict(in_torch(pair.my_optimizer.state_dict()))
    for t in range(4, 8):
        pair.step(t)
        for p, q in zip(pair.mine, pair.theirs, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=3e-6, atol=2e-6)


SCHEDULES: dict[str, Callable[[Any, Any], Any]] = {
    "step": lambda s, o: s.StepLR(o, step_size=3, gamma=0.5),
    "lambda": lambda s, o: s.LambdaLR(o, lambda epoch: 0.9**epoch),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, T_max=6, eta_min=0.01),
}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str) -> None:
    pair = Pair("sgd")
    mine = SCHEDULES[name](graphc.optim.lr_scheduler, pair.my_optimizer)
    theirs = SCHEDULES[name](torch.optim.lr_scheduler, pair.their_optimizer)
    for _ in range(8):
        np.testing.assert_allclose(mine.get_last_lr(), theirs.get_last_lr(), rtol=1e-12)
        pair.step(5)
        pair.check()
        mine.step()
        theirs.step()
