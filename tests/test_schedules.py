"""Schedules and averages of weights inside compiled training steps: the same bits as eager code, traced once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphc
from graphc import nn, optim
from graphc.optim import lr_scheduler as s
from graphc.optim.swa_utils import SWALR, AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn


class ThirdEpoch(s.LRScheduler):
    """A user's schedule, with a step of its own."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self.calls = 0
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        return [group["lr"] * (0.5 if self.last_epoch % 3 == 2 else 1.0) for group in self.optimizer.param_groups]

    def step(self, epoch: int | None = None) -> None:
        self.calls += 1
        super().step(epoch)


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "lambda": lambda o: s.LambdaLR(o, lambda epoch: 1 / (epoch + 1)),
    "one cycle": lambda o: s.OneCycleLR(o, 0.2, total_steps=8),
    "triangles": lambda o: s.CyclicLR(o, 0.05, 0.2, step_size_up=2),
    "sequence": lambda o: s.SequentialLR(o, [s.LinearLR(o, 0.1, total_iters=3), s.CosineAnnealingWarmRestarts(o, 2)], [3]),
    "chain": lambda o: s.ChainedScheduler([s.ConstantLR(o, 0.5, 2), s.ExponentialLR(o, 0.8)]),
    "swa": lambda o: SWALR(o, 0.01, anneal_epochs=3),
    "own": ThirdEpoch,
}
OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=0.1),
    "a tensor for a rate": lambda p: optim.SGD(p, lr=graphc.tensor(0.1), momentum=0.9),  # type: ignore[arg-type]
}


def trained(transform: Callable[..., Any], optimizer_name: str, make: Callable[[Any], Any], metric: bool = False) -> list[Any]:
    """Everything that six steps leave, and how often they were traced."""
    graphc.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    schedule = make(optimizer)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        if metric:
            schedule.step(1.0)
        else:
            schedule.step()
        return loss.detach()

    run, seen = transform(step), []
    for t in range(6):
        seen.append(run(graphc.full((2, 3), 0.1 * (t + 1))).numpy().tobytes())
        seen.append([float(rate) for rate in schedule.get_last_lr()])
        seen.append({name: float(v) for name, v in optimizer.param_groups[0].items() if name in ("lr", "momentum")})
        seen.append(getattr(schedule, "calls", 0))
    if transform is graphc.compile:
        assert run.stats()["traces"] == 1
    return [*seen, *[p.detach().numpy().tobytes() for p in model.parameters()]]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_compiled_steps_follow_a_schedule(name: str, optimizer: str) -> None:
    assert trained(graphc.compile, optimizer, SCHEDULES[name]) == trained(lambda f: f, optimizer, SCHEDULES[name])


def test_compiled_steps_follow_a_metric_that_is_a_number() -> None:
    make: Callable[[Any], Any] = lambda o: s.ReduceLROnPlateau(o, patience=1, factor=0.5)
    assert trained(graphc.compile, "sgd", make, metric=True) == trained(lambda f: f, "sgd", make, metric=True)


@pytest.mark.parametrize("options", [{}, {"avg_fn": get_ema_avg_fn(0.75)}, {"multi_avg_fn": get_ema_multi_avg_fn(0.75)}])
def test_averages_in_compiled_steps(options: dict[str, Any]) -> None:
    found = []
    for transform in (lambda f: f, graphc.compile):
        graphc.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        average = AveragedModel(model, use_buffers=bool(options), **options)
        optimizer = optim.SGD(model.parameters(), lr=0.5)

        def step(x: Any, model: Any = model, average: Any = average, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
            average.update_parameters(model)

        run = transform(step)
        for t in range(4):
            run(graphc.randn(4, 3) * (t + 1))
        found.append([value.numpy().tobytes() for value in average.state_dict().values()])
        assert average.n_averaged.item() == 4
    assert found[0] == found[1]
