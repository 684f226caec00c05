"""Optimizers against their formulas in NumPy, compiled against eager in every bit, their state, and learning rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.eager import dispatch
from graphc.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, StepLR

Array = np.ndarray

# ---- formulas: (parameter, gradient, number of the step from 1, memory) -> new parameter, in float64 ---------------------


def sgd(
    p: Array, g: Array, t: int, m: dict[str, Array], *, lr: float, momentum: float = 0.0, dampening: float = 0.0,
    weight_decay: float = 0.0, nesterov: bool = False, maximize: bool = False,
) -> Array:  # fmt: skip
    g = (-g if maximize else g) + weight_decay * p
    if momentum:
        m["b"] = g if t == 1 else momentum * m["b"] + (1 - dampening) * g
        g = g + momentum * m["b"] if nesterov else m["b"]
    return p - lr * g


def adam(
    p: Array, g: Array, t: int, m: dict[str, Array], *, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8, weight_decay: float = 0.0, amsgrad: bool = False, maximize: bool = False, decoupled: bool = False,
) -> Array:  # fmt: skip
    g = -g if maximize else g
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    m["a"] = betas[0] * m.get("a", 0.0 * p) + (1 - betas[0]) * g
    m["s"] = betas[1] * m.get("s", 0.0 * p) + (1 - betas[1]) * g * g
    m["x"] = np.maximum(m.get("x", 0.0 * p), m["s"])
    square = m["x"] if amsgrad else m["s"]
    return p - lr / (1 - betas[0] ** t) * m["a"] / (np.sqrt(square / (1 - betas[1] ** t)) + eps)


RULES: dict[str, tuple[type[optim.Optimizer], Callable[..., Array], dict[str, Any]]] = {
    "sgd": (optim.SGD, sgd, {"lr": 0.1}),
    "sgd decay maximize": (optim.SGD, sgd, {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    "sgd momentum": (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9}),
    "sgd dampening": (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "dampening": 0.4}),
    "sgd nesterov": (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": (optim.Adam, adam, {"lr": 0.05}),
    "adam decay maximize": (optim.Adam, adam, {"lr": 0.05, "weight_decay": 0.3, "maximize": True}),
    "adam amsgrad": (optim.Adam, adam, {"lr": 0.05, "amsgrad": True, "betas": (0.5, 0.7)}),
    "adamw": (optim.AdamW, lambda *a, **k: adam(*a, decoupled=True, **k), {"lr": 0.05, "weight_decay": 0.3}),
    "adamw amsgrad": (optim.AdamW, lambda *a, **k: adam(*a, decoupled=True, **k), {"amsgrad": True, "weight_decay": 0.0}),
}


def gradient(t: int, shape: tuple[int, ...]) -> Array:
    return np.cos(np.arange(math.prod(shape), dtype=np.float64).reshape(shape) * (t + 1) + t)


@pytest.mark.parametrize("rule", RULES)
def test_steps_follow_the_formula(rule: str) -> None:
    kind, formula, how = RULES[rule]
    values = [np.linspace(-1, 1, 6).reshape(2, 3), np.array([0.5])]
    parameters = [nn.Parameter(graphc.tensor(v, dtype=graphc.float64)) for v in values]
    memory: list[dict[str, Array]] = [{}, {}]
    optimizer = kind(parameters, **how)  # type: ignore[call-arg]
    for t in range(1, 8):
        for i, p in enumerate(parameters):
            p.grad = graphc.tensor(gradient(t, values[i].shape))
            values[i] = formula(values[i], gradient(t, values[i].shape), t, memory[i], **how)
        optimizer.step()
    for p, value in zip(parameters, values, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), value, rtol=1e-12, atol=1e-14)


# ---- compiled steps --------------------------------------------------------------------------------------------------------


def learner(kind: type[optim.Optimizer], how: dict[str, Any]) -> tuple[nn.Module, optim.Optimizer, Callable[[Any, Any], Any]]:
    graphc.manual_seed(11)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    optimizer = kind(model.parameters(), **how)  # type: ignore[call-arg]

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, optimizer, step


def state_bytes(model: nn.Module, optimizer: optim.Optimizer) -> list[bytes]:
    kept = [x for p in model.parameters() for x in optimizer.state[p].values()]
    return [x.detach().numpy().tobytes() for x in (*model.parameters(), *kept)]


@pytest.mark.parametrize("rule", RULES)
def test_compiled_steps_have_the_eager_bits(rule: str) -> None:
    kind, _, how = RULES[rule]
    graphc.manual_seed(1)
    batches = [(graphc.randn(4, 3), graphc.randn(4, 2)) for _ in range(6)]
    (eager, eager_optimizer, eager_step), (model, optimizer, step) = learner(kind, how), learner(kind, how)
    compiled = graphc.compile(step)
    for t, (x, y) in enumerate(batches):
        if t == 3:  # hyperparameters are read at every call
            for one in (eager_optimizer, optimizer):
                one.param_groups[0]["lr"] = 0.02
        assert eager_step(x, y).item() == compiled(x, y).item()
    assert state_bytes(eager, eager_optimizer) == state_bytes(model, optimizer)
    assert compiled.stats()["traces"] == 1 and not compiled.stats()["fallbacks"]


def test_a_hyperparameter_that_changes_the_operators_is_traced_again() -> None:
    x, y = graphc.ones(4, 3), graphc.ones(4, 2)
    (eager, eager_optimizer, eager_step), (model, optimizer, step) = (learner(optim.SGD, {"lr": 0.1}) for _ in range(2))
    compiled = graphc.compile(step)
    for t in range(4):
        if t == 2:
            for one in (eager_optimizer, optimizer):
                one.param_groups[0]["momentum"] = 0.5
        eager_step(x, y)
        compiled(x, y)
    assert state_bytes(eager, eager_optimizer) == state_bytes(model, optimizer)
    assert len(state_bytes(model, optimizer)) == 8
    assert compiled.stats()["traces"] == 2


def test_clipping_and_a_schedule_compile() -> None:
    graphc.manual_seed(1)
    batches = [(graphc.randn(4, 3), graphc.randn(4, 2)) for _ in range(5)]
    trained = []
    for transform in (lambda f: f, graphc.compile):
        model, optimizer, _ = learner(optim.AdamW, {"lr": 0.1})
        schedule = CosineAnnealingLR(optimizer, T_max=5)

        def step(x: Any, y: Any, model: nn.Module = model, optimizer: optim.Optimizer = optimizer) -> Any:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            return norm

        run = transform(step)
        norms = []
        for x, y in batches:
            norms.append(run(x, y).item())
            schedule.step()
        trained.append((norms, state_bytes(model, optimizer)))
    assert trained[0] == trained[1]


# ---- groups and state ------------------------------------------------------------------------------------------------------


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(graphc.tensor(values))


def test_groups_have_their_own_hyperparameters() -> None:
    a, b, idle = parameter(1.0), parameter(1.0), parameter(1.0)
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 1.0}], lr=0.5)
    optimizer.add_param_group({"params": [idle], "momentum": 0.9})
    a.grad, b.grad = graphc.ones(1), graphc.ones(1)
    optimizer.step()
    assert [p.item() for p in (a, b, idle)] == [0.5, 0.0, 1.0]
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 1.0, 0.5]
    optimizer.zero_grad(set_to_none=False)
    assert a.grad.tolist() == [0.0] and idle.grad is None
    optimizer.zero_grad()
    assert a.grad is None
    assert repr(optimizer).startswith("SGD (\nParameter Group 0\n    dampening: 0.0\n    lr: 0.5\n")


def test_state_is_the_same_made_early_or_late() -> None:
    early, late = parameter(1.0, 2.0), parameter(1.0, 2.0)
    first, second = optim.Adam([early]), optim.Adam([late])
    assert not second.state_dict()["state"]
    first.initialize_state()
    assert first.state[early]["step"].shape == () and first.state[early]["exp_avg"].tolist() == [0.0, 0.0]
    for p, optimizer in ((early, first), (late, second)):
        p.grad = graphc.tensor([0.3, -0.2])
        optimizer.step()
    assert early.detach().numpy().tobytes() == late.detach().numpy().tobytes()
    assert first.state[early]["step"].item() == 1.0 and first.state[early]["step"].dtype is graphc.float32


def test_closure_is_called_with_gradients_on() -> None:
    p = parameter(2.0)
    optimizer = optim.SGD([p], lr=0.25)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with graphc.no_grad():
        assert optimizer.step(closure).item() == 4.0
    assert p.item() == 1.0


def test_half_parameters_are_updated_in_float32() -> None:
    p = nn.Parameter(graphc.ones(3, dtype=graphc.float16))
    optimizer = optim.Adam([p], lr=0.1)
    for _ in range(3):
        p.grad = graphc.ones(3, dtype=graphc.float16)
        optimizer.step()
    assert p.dtype is graphc.float16 and optimizer.state[p]["exp_avg"].dtype is graphc.float16
    np.testing.assert_allclose(p.detach().float().numpy(), 0.7, rtol=2e-3)


def test_state_dict_round_trip_keeps_memory() -> None:
    source, target = parameter(1.0, 2.0), parameter(1.0, 2.0)
    first, second = optim.AdamW([source], lr=0.1), optim.AdamW([target], lr=0.3)
    for _ in range(2):
        source.grad = graphc.tensor([0.3, -0.2])
        first.step()
    second.initialize_state()
    held = second.state[target]["exp_avg"]
    saved = first.state_dict()
    assert set(saved) == {"state", "param_groups"} and saved["param_groups"][0]["params"] == [0]
    second.load_state_dict(saved)
    assert second.state[target]["exp_avg"] is held
    assert second.state[target]["step"].item() == 2.0 and second.param_groups[0]["lr"] == 0.1
    first.step()
    assert second.state[target]["step"].item() == 2.0  # copied, not shared
    before = dispatch.epoch[0]
    second.load_state_dict(first.state_dict())
    assert dispatch.epoch[0] == before


def test_bad_state_dicts_change_nothing() -> None:
    p = parameter(1.0, 2.0)
    optimizer = optim.Adam([p], lr=0.1)
    optimizer.initialize_state()
    saved = optimizer.state_dict()
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict({**saved, "param_groups": []})
    with pytest.raises(ValueError, match="doesn't match the size"):
        optimizer.load_state_dict({**saved, "param_groups": [{**saved["param_groups"][0], "params": [0, 1]}]})
    wrong = {0: {**saved["state"][0], "exp_avg": graphc.ones(3)}}
    with pytest.raises(ValueError, match=r"'exp_avg' has shape \[3\], the parameter needs \[2\]"):
        optimizer.load_state_dict({"state": wrong, "param_groups": [{**saved["param_groups"][0], "lr": 5.0}]})
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_bad_arguments() -> None:
    p = parameter(1.0)
    with pytest.raises(ValueError, match="empty parameter list"):
        optim.SGD([])
    with pytest.raises(TypeError, match="iterable of Tensors or dicts"):
        optim.SGD(p)
    with pytest.raises(TypeError, match="one of the params is int"):
        optim.SGD([1])
    with pytest.raises(ValueError, match="non-leaf"):
        optim.SGD([p * 2])
    with pytest.raises(ValueError, match="more than one parameter group"):
        optim.SGD([{"params": [p]}, {"params": [p]}])
    with pytest.raises(ValueError, match=r"Invalid learning rate: -1"):
        optim.Adam([p], lr=-1)
    with pytest.raises(ValueError, match=r"Invalid beta parameter at index 1: 1.0"):
        optim.AdamW([p], betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="Nesterov momentum requires"):
        optim.SGD([p], nesterov=True)
    p.grad = graphc.ones(1)
    with pytest.raises(NotImplementedError, match="has no update rule"):
        optim.Optimizer([p], {}).step()


# ---- schedules -------------------------------------------------------------------------------------------------------------


def rates(make: Callable[[optim.Optimizer], Any], count: int) -> list[float]:
    optimizer = optim.SGD([parameter(1.0)], lr=0.8)
    schedule = make(optimizer)
    found = []
    for _ in range(count):
        found += schedule.get_last_lr()
        schedule.step()
    return found


def test_schedules() -> None:
    assert rates(lambda o: StepLR(o, 2, gamma=0.5), 5) == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2])
    assert rates(lambda o: LambdaLR(o, lambda epoch: 1 / (epoch + 1)), 3) == pytest.approx([0.8, 0.4, 0.8 / 3])
    expected = [0.1 + 0.7 * (1 + math.cos(math.pi * t / 4)) / 2 for t in range(5)]
    assert rates(lambda o: CosineAnnealingLR(o, 4, eta_min=0.1), 5) == pytest.approx(expected)


def test_schedules_are_saved_and_resumed() -> None:
    optimizer = optim.SGD([parameter(1.0)], lr=0.8)
    schedule = StepLR(optimizer, 2)
    for _ in range(3):
        schedule.step()
    other = optim.SGD([parameter(1.0)], lr=0.8)
    resumed = StepLR(other, 7)
    resumed.load_state_dict(schedule.state_dict())
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == pytest.approx(0.08)
    resumed.step()
    schedule.step()
    assert resumed.get_last_lr() == schedule.get_last_lr() == pytest.approx([0.008])
    with pytest.raises(TypeError, match="type is not an Optimizer"):
        StepLR(optim.SGD, 2)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="initial_lr"):
        StepLR(optim.SGD([parameter(1.0)]), 2, last_epoch=3)
    with pytest.raises(ValueError, match="Expected 1 lr_lambdas, but got 2"):
        LambdaLR(other, [lambda _: 1.0] * 2)
