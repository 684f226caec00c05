"""Optimizers and schedules follow PyTorch's step by step, and each side goes on from the other's state."""

from __future__ import annotations

import copy
import inspect
import re
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


# ---- every optimizer, with the options PyTorch tests its own with --------------------------------------------------------


def inputs_of(name: str) -> list[dict[str, Any]]:
    """Keyword arguments from PyTorch's table of optimizers."""
    db = pytest.importorskip("torch.testing._internal.common_optimizers")
    (info,) = [info for info in db.optim_db if info.name == name]
    return [one.kwargs for one in info.optim_inputs_func(device="cpu")]


OPTIMIZERS = [
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon", "NAdam", "RAdam", "RMSprop", "Rprop",
    "SGD",
]  # fmt: skip
EXTRA: dict[str, list[dict[str, Any]]] = {
    "Adafactor": [{"eps": (1e-8, 1e-2), "lr": 0.1}],
    "ASGD": [{"t0": 3, "lambd": 0.1, "lr": 0.1}],
    "LBFGS": [{"line_search_fn": "strong_wolfe", "max_iter": 5, "history_size": 3}],
    "Muon": [{"nesterov": False, "adjust_lr_fn": "match_rms_adamw"}],
    "RAdam": [{"betas": (0.5, 0.6), "lr": 0.02}],
    "SGD": [{"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1, "lr": 0.05}],
}
CLOSE = {"Muon": 2e-2, "LBFGS": 1e-4}  # bfloat16 matmuls are rounded at other places; up to 20 iterations a step


class Twins:
    """One small model on both sides, in float64, and an optimizer of each; `names`: parameters come with their names."""

    def __init__(self, name: str, how: dict[str, Any], names: bool = False) -> None:
        rng = np.random.default_rng(3)
        self.name = name
        self.values = [rng.standard_normal(shape) * 0.5 for shape in ((3, 5), (5, 4))]
        if name != "Muon":
            self.values += [rng.standard_normal(shape) * 0.1 for shape in ((5,), ())]
        mine = {k: graphc.tensor(v.numpy()) if isinstance(v, torch.Tensor) else v for k, v in how.items()}
        self.mine = [graphc.nn.Parameter(graphc.tensor(v)) for v in self.values]
        self.theirs = [torch.nn.Parameter(torch.tensor(v)) for v in self.values]
        given = [[(f"p{i}", p) for i, p in enumerate(side)] if names else side for side in (self.mine, self.theirs)]
        self.optimizer = getattr(graphc.optim, name)(given[0], **mine)
        self.other = getattr(torch.optim, name)(given[1], **how)
        self.run: Callable[..., Any] = self.step

    def batch(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0 if self.name == "LBFGS" else t)
        return rng.standard_normal((6, 3)), rng.standard_normal((6, 4))

    @staticmethod
    def step(library: Any, parameters: Any, optimizer: Any, x: Any, y: Any) -> Any:
        def closure() -> Any:
            optimizer.zero_grad()
            hidden = library.tanh(x @ parameters[0] + (parameters[2] if len(parameters) > 2 else 0))
            loss = ((hidden @ parameters[1] + (parameters[3] if len(parameters) > 3 else 0) - y) ** 2).mean()
            loss.backward()
            return loss

        return optimizer.step(closure)

    def steps(self, first: int, count: int) -> None:
        """Steps on both sides; parameters and state stay equal."""
        for t in range(first, first + count):
            x, y = self.batch(t)
            self.run(graphc, self.mine, self.optimizer, graphc.tensor(x), graphc.tensor(y))
            self.step(torch, self.theirs, self.other, torch.tensor(x), torch.tensor(y))
        tolerance = CLOSE.get(self.name, 1e-5)
        for p, q in zip(self.mine, self.theirs, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=tolerance, atol=tolerance * 0.1)
            kept, wanted = list(self.optimizer.state.get(p, ())), list(self.other.state.get(q, ()))
            assert kept == wanted or self.name == "LBFGS" and set(kept) == set(wanted)
            for name, value in self.other.state.get(q, {}).items():
                if isinstance(value, torch.Tensor):
                    held = self.optimizer.state[p][name]
                    if name == "t":  # LBFGS's length of a step is a number here
                        assert held == pytest.approx(value.item(), rel=tolerance)
                        continue
                    assert str(held.dtype).split(".")[1] == str(value.dtype).split(".")[1]
                    np.testing.assert_allclose(held.numpy(), value.numpy(), rtol=tolerance * 10, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_steps(name: str) -> None:
    for how in [*inputs_of(name), *EXTRA.get(name, [])]:
        twins = Twins(name, how)
        twins.steps(0, 4 if name in CLOSE else 20)
        group, other = twins.optimizer.param_groups[0], twins.other.param_groups[0]
        assert list(group) == list(other)
        plain = [{k: float(v) if hasattr(v, "item") else v for k, v in g.items() if k != "params"} for g in (group, other)]
        assert plain[0] == plain[1]
        assert repr(twins.optimizer).split("\n")[-2] == repr(twins.other).split("\n")[-2]


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "LBFGS"])
def test_twenty_compiled_steps(name: str) -> None:
    twins = Twins(name, (EXTRA.get(name) or inputs_of(name))[-1])
    compiled = graphc.compile(lambda x, y: twins.step(graphc, twins.mine, twins.optimizer, x, y))
    twins.run = lambda library, parameters, optimizer, x, y: compiled(x, y)
    twins.steps(0, 20)
    assert compiled.stats()["fallbacks"] == [] and compiled.stats()["traces"] <= 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_dicts_are_exchanged_in_the_middle(name: str) -> None:
    how = (EXTRA.get(name) or inputs_of(name))[-1]
    twins = Twins(name, how, names=True)
    twins.steps(0, 4)
    mine, theirs = twins.optimizer.state_dict(), twins.other.state_dict()
    assert mine["param_groups"][0]["param_names"] == theirs["param_groups"][0]["param_names"]
    assert list(mine["param_groups"][0]) == list(theirs["param_groups"][0])
    assert {k: set(v) for k, v in mine["state"].items()} == {k: set(v) for k, v in theirs["state"].items()}
    mine, theirs = copy.deepcopy(in_torch(mine)), copy.deepcopy(theirs)
    fresh = Twins(name, how)
    with graphc.no_grad(), torch.no_grad():
        for p, q, a, b in zip(fresh.mine, fresh.theirs, twins.mine, twins.theirs, strict=True):
            p.copy_(a)
            q.copy_(b)
    fresh.optimizer.load_state_dict(theirs)
    fresh.other.load_state_dict(mine)
    fresh.steps(4, 6)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("Adafactor", "LBFGS", "Muon")])
def test_complex_parameters(name: str) -> None:
    """As pairs of real numbers, in state of the complex dtype."""
    rng = np.random.default_rng(1)
    values = rng.standard_normal((6, 3, 2)) + 1j * rng.standard_normal((6, 3, 2))
    p, q = graphc.nn.Parameter(graphc.tensor(values[0])), torch.nn.Parameter(torch.tensor(values[0]))
    mine, theirs = getattr(graphc.optim, name)([p]), getattr(torch.optim, name)([q])
    for g in values:
        p.grad, q.grad = graphc.tensor(g), torch.tensor(g)
        mine.step()
        theirs.step()
    np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-6)
    for key, value in theirs.state[q].items():
        np.testing.assert_allclose(mine.state[p][key].numpy(), value.numpy(), rtol=1e-6)
        assert mine.state[p][key].numpy().dtype == value.numpy().dtype


# ---- refusals --------------------------------------------------------------------------------------------------------------

ALL = [*OPTIMIZERS, "SparseAdam"]
NEGATIVE = (
    "lr", "eps", "weight_decay", "momentum", "lambd", "alpha", "lr_decay", "initial_accumulator_value", "momentum_decay", "rho",
)  # fmt: skip
REFUSED: list[dict[str, Any]] = [
    *({key: -1.0} for key in NEGATIVE), {"betas": (-1.0, 0.9)}, {"betas": (0.9, 1.0)}, {"fused": True, "foreach": True},
    {"fused": True, "differentiable": True}, {"nesterov": True, "momentum": 0.0}, {"rho": 2.0}, {"etas": (2, 1)},
    {"beta2_decay": 1.0}, {"eps": (-1.0, 1.0)}, {"eps": (None, -1.0)}, {"d": 0.0}, {"adjust_lr_fn": "x"},
]  # fmt: skip


def outcome(library: Any, action: Callable[[Any], Any]) -> tuple[str, str]:
    """How an action on a library ends: the kind of error and its text, without graphc's line."""
    try:
        action(library)
    except Exception as error:  # whatever kind: it is what is compared
        return type(error).__name__, re.sub(r" \(test_optim_parity.py:\d+\)$", "", str(error))
    return "", ""


@pytest.mark.parametrize("name", ALL)
def test_arguments(name: str) -> None:
    """Names, kinds and defaults of arguments, and what is refused."""
    parameters = [inspect.signature(getattr(library.optim, name).__init__).parameters for library in (graphc, torch)]
    mine, theirs = [[(p.name, p.kind, p.default) for p in given.values()] for given in parameters]
    assert mine == theirs
    for how in REFUSED:
        if set(how) <= set(parameters[0]) and isinstance(how.get("eps"), tuple) == ("eps" in how and name == "Adafactor"):

            def make(library: Any, how: dict[str, Any] = how) -> Any:
                return getattr(library.optim, name)([library.nn.Parameter(library.ones(2, 2))], **how)

            assert outcome(graphc, make) == outcome(torch, make), how


def leaf(library: Any, *shape: int) -> Any:
    return library.nn.Parameter(library.ones(*shape or (2,)))


def stepped(library: Any, kind: str, p: Any) -> Any:
    p.grad = library.ones_like(p)
    return getattr(library.optim, kind)([p]).step()


MISUSES: dict[str, Callable[[Any], Any]] = {
    "no parameters": lambda t: t.optim.SGD([]),
    "a number": lambda t: t.optim.SGD([1]),
    "no leaf": lambda t: t.optim.SGD([leaf(t) * 2]),
    "a set": lambda t: t.optim.SGD([{"params": {leaf(t)}}]),
    "no dict": lambda t: t.optim.SGD([leaf(t)]).add_param_group([leaf(t)]),
    "two groups": lambda t: t.optim.SGD([{"params": p} for p in [leaf(t)] * 2]),
    "a rate of two": lambda t: t.optim.SGD([leaf(t)], lr=t.ones(2)),
    "a rate and foreach": lambda t: t.optim.Adam([leaf(t)], lr=t.tensor(0.1), foreach=True),
    "betas of two kinds": lambda t: t.optim.Adam([leaf(t)], betas=(0.9, t.tensor(0.9))),
    "names of some": lambda t: t.optim.SGD([("a", leaf(t)), leaf(t)]),
    "names of one group": lambda t: t.optim.SGD([{"params": [("a", leaf(t))]}, {"params": [leaf(t)]}]),
    "names of the other": lambda t: t.optim.SGD([{"params": [leaf(t)]}, {"params": [("a", leaf(t))]}]),
    "groups of LBFGS": lambda t: t.optim.LBFGS([{"params": [leaf(t)]}, {"params": [leaf(t)]}]),
    "no such search": lambda t: t.optim.LBFGS([leaf(t)], line_search_fn="x"),
    "dense gradients": lambda t: stepped(t, "SparseAdam", leaf(t)),
    "complex Adafactor": lambda t: stepped(t, "Adafactor", t.nn.Parameter(t.ones(2, 2, dtype=t.complex64))),
    "complex Muon": lambda t: stepped(t, "Muon", t.nn.Parameter(t.ones(2, 2, dtype=t.complex64))),
    "fewer groups": lambda t: t.optim.SGD([leaf(t)]).load_state_dict({"state": {}, "param_groups": []}),
    "more parameters": lambda t: t.optim.SGD([leaf(t)]).load_state_dict(t.optim.SGD([leaf(t), leaf(t)]).state_dict()),
    "differentiable leaf": lambda t: t.optim.Adam([leaf(t) * 2]),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuses(misuse: str) -> None:
    assert outcome(graphc, MISUSES[misuse]) == outcome(torch, MISUSES[misuse])


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
