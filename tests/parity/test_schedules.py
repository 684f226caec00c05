"""Learning rate schedules follow PyTorch's epoch by epoch: rates, momentum, state dicts, warnings, errors; averages too."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:Detected call")

EPOCHS = 30
Make = Callable[[Any, Any], Any]  # the module of schedules, an optimizer -> a schedule


def half(epoch: int) -> float:
    return 0.5 if epoch % 4 == 3 else 1.01


class Falling:
    """A callable object: state dicts hold its attributes."""

    def __init__(self) -> None:
        self.rate = 0.97

    def __call__(self, epoch: float) -> float:
        return self.rate**epoch


SCHEDULES: dict[str, Make] = {
    "lambda": lambda s, o: s.LambdaLR(o, lambda epoch: 0.95**epoch),
    "lambda of each group": lambda s, o: s.LambdaLR(o, [lambda epoch: 0.95**epoch, Falling()]),
    "multiplicative": lambda s, o: s.MultiplicativeLR(o, half),
    "step": lambda s, o: s.StepLR(o, 4, gamma=0.3),
    "milestones": lambda s, o: s.MultiStepLR(o, [7, 3, 3, 20], gamma=0.5),
    "constant": lambda s, o: s.ConstantLR(o, factor=0.25, total_iters=6),
    "linear": lambda s, o: s.LinearLR(o, start_factor=0.2, end_factor=0.9, total_iters=9),
    "exponential": lambda s, o: s.ExponentialLR(o, 0.9),
    "polynomial": lambda s, o: s.PolynomialLR(o, total_iters=12, power=2.5),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, T_max=8, eta_min=0.001),
    "restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 5, eta_min=0.001),
    "longer restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, T_mult=2),
    "triangles": lambda s, o: s.CyclicLR(o, 0.01, 0.2, step_size_up=4, step_size_down=6),
    "falling triangles": lambda s, o: s.CyclicLR(o, [0.01, 0.02], [0.2, 0.3], step_size_up=5, mode="triangular2"),
    "exponential triangles": lambda s, o: s.CyclicLR(o, 0.01, 0.2, step_size_up=5, mode="exp_range", gamma=0.95),
    "own triangles": lambda s, o: s.CyclicLR(o, 0.01, 0.2, 5, scale_fn=Falling(), scale_mode="iterations", cycle_momentum=False),
    "one cycle": lambda s, o: s.OneCycleLR(o, 0.3, total_steps=EPOCHS),
    "one linear cycle": lambda s, o: s.OneCycleLR(o, [0.3, 0.2], epochs=5, steps_per_epoch=7, anneal_strategy="linear"),
    "three phases": lambda s, o: s.OneCycleLR(o, 0.3, total_steps=EPOCHS + 1, pct_start=0.4, three_phase=True, div_factor=10.0),
    "sequence": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, total_iters=5), s.CosineAnnealingLR(o, 10), s.ExponentialLR(o, 0.9)], [5, 17]
    ),
    "sequence of sequences": lambda s, o: s.SequentialLR(
        o, [s.SequentialLR(o, [s.ConstantLR(o), s.StepLR(o, 2)], [3]), s.CosineAnnealingWarmRestarts(o, 4)], [9]
    ),
    "chain": lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.5, 7), s.ExponentialLR(o, 0.93), s.StepLR(o, 6)]),
    "swa": lambda s, o: swa_of(s).SWALR(o, swa_lr=0.05, anneal_epochs=6),
    "linear swa": lambda s, o: swa_of(s).SWALR(o, swa_lr=[0.5, 0.01], anneal_epochs=6, anneal_strategy="linear"),
}
PLATEAUS: dict[str, dict[str, Any]] = {
    "plain": {"patience": 2},
    "greatest": {"mode": "max", "patience": 1, "factor": 0.5, "threshold": 0.01},
    "absolute": {"threshold_mode": "abs", "threshold": 0.3, "cooldown": 3, "patience": 0, "min_lr": [0.001, 0.01]},
    "absolute greatest": {"mode": "max", "threshold_mode": "abs", "patience": 1, "min_lr": 1e-4},
}


def swa_of(schedules: Any) -> Any:
    return graphc.optim.swa_utils if schedules is graphc.optim.lr_scheduler else torch.optim.swa_utils


class Side:
    """Two groups of parameters, an optimizer and a schedule, of one library."""

    def __init__(self, library: Any, make: Make | None = None, kind: str = "SGD", **more: Any) -> None:
        self.library, self.kind = library, kind
        self.parameters = [library.nn.Parameter(library.tensor([1.0, -2.0])), library.nn.Parameter(library.tensor([0.5]))]
        groups = [{"params": [self.parameters[0]], **more}, {"params": [self.parameters[1]], "lr": 0.2, **more}]
        options = {"momentum": 0.9} if kind == "SGD" else {}
        self.optimizer = getattr(library.optim, kind)(groups, lr=0.1, **options)
        if make is not None:
            self.schedule = make(library.optim.lr_scheduler, self.optimizer)

    def step(self) -> None:
        for p in self.parameters:
            p.grad = p.detach() * 0.3
        self.optimizer.step()

    def seen(self) -> list[list[float]]:
        """Every number that a schedule may set, and what it says of the rates."""
        group_values = [
            [float(group["lr"]), float(group.get("momentum", 0)), float(group.get("betas", (0,))[0])]
            for group in self.optimizer.param_groups
        ]
        return [*group_values, [*map(float, self.schedule.get_last_lr()), 0.0][:3]]

    def weights(self) -> list[float]:
        return [x for p in self.parameters for x in p.detach().numpy().tolist()]


def agree(mine: Side, theirs: Side) -> None:
    np.testing.assert_allclose(mine.seen(), theirs.seen(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str, kind: str) -> None:
    mine, theirs = (Side(library, SCHEDULES[name], kind) for library in (graphc, torch))
    agree(mine, theirs)
    for epoch in range(EPOCHS):
        if kind == "SGD" and epoch % 3 == 0:
            mine.step()
            theirs.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mine.schedule.step()
            theirs.schedule.step()
        agree(mine, theirs)
    np.testing.assert_allclose(mine.weights(), theirs.weights(), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("name", [name for name in SCHEDULES if not name.startswith(("sequence", "chain"))])
def test_steps_to_an_epoch(name: str) -> None:
    mine, theirs = (Side(library, SCHEDULES[name]) for library in (graphc, torch))
    for epoch in (5, 0, 11, 12, None, 3, 2.5 if "restarts" in name else 29):
        mine.schedule.step(epoch)
        theirs.schedule.step(epoch)
        agree(mine, theirs)
        assert mine.schedule.last_epoch == theirs.schedule.last_epoch


@pytest.mark.parametrize("name", PLATEAUS)
def test_plateaus(name: str) -> None:
    make: Make = lambda s, o: s.ReduceLROnPlateau(o, **PLATEAUS[name])
    mine, theirs = (Side(library, make) for library in (graphc, torch))
    for value in np.random.default_rng(0).normal(3.0, 1.0, EPOCHS):
        mine.schedule.step(graphc.tensor(float(value), dtype=graphc.float64))
        theirs.schedule.step(float(value))
        agree(mine, theirs)
    assert mine.schedule.state_dict() == theirs.schedule.state_dict()


def plain(state: Any) -> Any:
    """A state dict whose floats are rounded, for comparison."""
    if isinstance(state, dict):
        return {name: plain(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return [plain(value) for value in state]
    return float(f"{state:.11e}") if isinstance(state, float) else state


@pytest.mark.parametrize("name", SCHEDULES)
def test_state_dicts_go_both_ways(name: str) -> None:
    mine, theirs = (Side(library, SCHEDULES[name]) for library in (graphc, torch))
    for _ in range(4):
        mine.schedule.step()
        theirs.schedule.step()
    state, their_state = mine.schedule.state_dict(), theirs.schedule.state_dict()
    if "swa" in name:  # bookkeeping of a bound method
        their_state.pop("_anneal_func", None)
    assert list(state) == list(their_state)
    assert plain(state) == plain(their_state)
    for side, given in ((mine, their_state), (theirs, state)):
        other = Side(side.library, SCHEDULES[name])
        other.optimizer.load_state_dict(side.optimizer.state_dict())
        other.schedule.load_state_dict(copy.deepcopy(given))
        for _ in range(8):
            side.schedule.step()
            other.schedule.step()
            agree(other, side)


OF_EPOCHS = [name for name in SCHEDULES if not any(part in name for part in ("sequence", "chain", "triangles", "cycle", "phases"))]


@pytest.mark.parametrize("name", OF_EPOCHS)
def test_going_on_from_an_epoch(name: str) -> None:
    """``last_epoch``: the groups know their first rates."""
    sides = []
    for library in (graphc, torch):
        side = Side(library, initial_lr=0.4)
        wrapped = _Resuming(library.optim.lr_scheduler, swa_of(library.optim.lr_scheduler))
        side.schedule = SCHEDULES[name](wrapped, side.optimizer) if "swa" not in name else wrapped.SWALR(side.optimizer, 0.05)
        sides.append(side)
    for _ in range(5):
        agree(*sides)
        for side in sides:
            side.step()
            side.schedule.step()


class _Resuming:
    """The schedules of a module, made with ``last_epoch=6``."""

    def __init__(self, *modules: Any) -> None:
        self.modules = modules

    def __getattr__(self, name: str) -> Callable[..., Any]:
        found = next(getattr(module, name) for module in self.modules if hasattr(module, name))
        return lambda *args, **kwargs: found(*args, **kwargs, last_epoch=6)


def raised(library: Any, make: Make) -> tuple[str, str]:
    side = Side(library)
    with pytest.raises((ValueError, TypeError, KeyError, RuntimeError)) as info:
        make(library.optim.lr_scheduler, side.optimizer)
    text = str(info.value).rpartition(" (test_schedules.py:")[0] or str(info.value)
    return type(info.value).__name__, re.split("(?<=last_epoch >= 0)[.:]", text)[0]  # what to do then is said in other words


ERRORS: dict[str, Make] = {
    "no optimizer": lambda s, o: s.StepLR(3, 2),
    "no optimizer for a cycle": lambda s, o: s.OneCycleLR([], 0.1, 3),
    "no initial_lr": lambda s, o: s.StepLR(o, 2, last_epoch=3),
    "lambdas": lambda s, o: s.LambdaLR(o, [half] * 3),
    "no lambda": lambda s, o: s.MultiplicativeLR(o, 0.5),
    "constant": lambda s, o: s.ConstantLR(o, 1.5),
    "start": lambda s, o: s.LinearLR(o, 0.0),
    "end": lambda s, o: s.LinearLR(o, 0.5, 2.0),
    "restart": lambda s, o: s.CosineAnnealingWarmRestarts(o, 0),
    "restart factor": lambda s, o: s.CosineAnnealingWarmRestarts(o, 2, 0),
    "restart rate": lambda s, o: s.CosineAnnealingWarmRestarts(o, 2, eta_min="0"),
    "negative epoch": lambda s, o: s.CosineAnnealingWarmRestarts(o, 2).step(-1),
    "cyclic rates": lambda s, o: s.CyclicLR(o, [0.1], 0.2),
    "cyclic mode": lambda s, o: s.CyclicLR(o, 0.1, 0.2, mode="square"),
    "one cycle without steps": lambda s, o: s.OneCycleLR(o, 0.1, epochs=3),
    "one cycle of no steps": lambda s, o: s.OneCycleLR(o, 0.1, total_steps=0),
    "one cycle of no epochs": lambda s, o: s.OneCycleLR(o, 0.1, epochs=0, steps_per_epoch=3),
    "one cycle part": lambda s, o: s.OneCycleLR(o, 0.1, 5, pct_start=1),
    "one cycle strategy": lambda s, o: s.OneCycleLR(o, 0.1, 5, anneal_strategy="sine"),
    "one cycle too long": lambda s, o: [schedule.step() for schedule in [s.OneCycleLR(o, 0.1, 2)] * 4],
    "plateau factor": lambda s, o: s.ReduceLROnPlateau(o, factor=1.0),
    "plateau mode": lambda s, o: s.ReduceLROnPlateau(o, mode="mean"),
    "plateau threshold": lambda s, o: s.ReduceLROnPlateau(o, threshold_mode="none"),
    "plateau rates": lambda s, o: s.ReduceLROnPlateau(o, min_lr=[0.1]),
    "empty sequence": lambda s, o: s.SequentialLR(o, [], []),
    "milestones": lambda s, o: s.SequentialLR(o, [s.StepLR(o, 2)], [3]),
    "sequence of a plateau": lambda s, o: s.SequentialLR(o, [s.StepLR(o, 2), s.ReduceLROnPlateau(o)], [3]),
    "sequence of nothing": lambda s, o: s.SequentialLR(o, [3], []),
    "empty chain": lambda s, o: s.ChainedScheduler([]),
    "chain of a plateau": lambda s, o: s.ChainedScheduler([s.ReduceLROnPlateau(o)]),
    "swa strategy": lambda s, o: swa_of(s).SWALR(o, 0.1, anneal_strategy="sine"),
    "swa epochs": lambda s, o: swa_of(s).SWALR(o, 0.1, anneal_epochs=-1),
    "swa decay": lambda s, o: swa_of(s).get_ema_avg_fn(2.0),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    assert raised(graphc, ERRORS[name]) == raised(torch, ERRORS[name])


def test_warnings() -> None:
    for make in (lambda side: side.schedule.step(), lambda side: side.schedule.get_lr(), lambda side: side.schedule.step(3)):
        told = []
        for library in (graphc, torch):
            side = Side(library, SCHEDULES["step"])
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                make(side)
            told.append([(w.category, set(re.findall("`.*?`", str(w.message)))) for w in caught])  # the functions they name
            assert library is torch or all(w.filename == __file__ for w in caught)
        assert told[0] == told[1]
        assert told[0]


AVERAGES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "equal": lambda swa: {},
    "equal with buffers": lambda swa: {"use_buffers": True},
    "one by one": lambda swa: {"avg_fn": swa.get_swa_avg_fn()},
    "exponential": lambda swa: {"avg_fn": swa.get_ema_avg_fn(0.9), "use_buffers": True},
    "exponential lists": lambda swa: {"multi_avg_fn": swa.get_ema_multi_avg_fn(0.9)},
}


@pytest.mark.parametrize("name", AVERAGES)
def test_averaged_models(name: str) -> None:
    models, averages, states = [], [], []
    for library in (torch, graphc):
        model = library.nn.Sequential(library.nn.Linear(3, 4), library.nn.BatchNorm1d(4))
        models.append(model)
        averages.append(library.optim.swa_utils.AveragedModel(model, **AVERAGES[name](library.optim.swa_utils)))
    for t in range(4):
        values = np.random.default_rng(t).normal(size=(5, 3)).astype(np.float32)
        with torch.no_grad():
            for p in models[0].parameters():
                p += torch.from_numpy(np.random.default_rng(t).normal(size=tuple(p.shape)).astype(np.float32))
        models[0](torch.from_numpy(values))
        models[1].load_state_dict({key: graphc.tensor(value.numpy()) for key, value in models[0].state_dict().items()})
        for model, average in zip(models, averages, strict=True):
            average.update_parameters(model)
    for average in averages:
        states.append({key: value.numpy() for key, value in average.state_dict().items()})
    assert list(states[0]) == list(states[1])
    for key, value in states[0].items():
        np.testing.assert_allclose(states[1][key], value, rtol=1e-5, atol=1e-6, err_msg=key)


def test_batch_norm_statistics() -> None:
    batches = [np.random.default_rng(t).normal(t, 1 + t, size=(5, 3)).astype(np.float32) for t in range(3)]
    found = []
    for library in (torch, graphc):
        model = library.nn.Sequential(library.nn.BatchNorm1d(3, momentum=0.2))
        model.eval()
        library.optim.swa_utils.update_bn([(library.tensor(batch), 0) for batch in batches], model)
        assert not model.training and model[0].momentum == 0.2
        found.append([model[0].running_mean.numpy(), model[0].running_var.numpy()])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
