"""Optimizers against their formulas in NumPy, compiled against eager in every bit, their state, and learning rate schedules."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim, sweeps
from graphc.eager import dispatch
from graphc.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, StepLR
from graphc.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from graphc.optim.rules import RuleOptimizer

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


def test_a_number_that_code_reads_is_compared_at_every_call() -> None:
    x, y = graphc.ones(4, 3), graphc.ones(4, 2)
    (eager, eager_optimizer, eager_step), (model, optimizer, step) = (learner(optim.Adafactor, {}) for _ in range(2))
    compiled = graphc.compile(step)
    before = state_bytes(model, optimizer)
    for t in range(4):
        if t == 2:
            for one in (eager_optimizer, optimizer):
                one.param_groups[0]["eps"] = (None, 0.5)
        eager_step(x, y)
        compiled(x, y)
    assert state_bytes(eager, eager_optimizer) == state_bytes(model, optimizer) != before
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


# ---- every rule, over many parameters at once ------------------------------------------------------------------------------

EVERY: list[tuple[type[optim.Optimizer], dict[str, Any]]] = [
    *((kind, how) for kind, _, how in RULES.values()),
    (optim.Adamax, {"weight_decay": 0.1}),
    (optim.NAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    (optim.RAdam, {"betas": (0.5, 0.6), "weight_decay": 0.1}),
    (optim.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    (optim.Adadelta, {"weight_decay": 0.1, "maximize": True}),
    (optim.RMSprop, {"centered": True, "momentum": 0.9}),
    (optim.Rprop, {}),
    (optim.ASGD, {"t0": 2, "lambd": 0.1}),
]
NAMED = [f"{kind.__name__}-{'-'.join(how)}" for kind, how in EVERY]


def assorted(dtype: graphc.dtype) -> list[nn.Parameter]:
    """Parameters of many sizes: none, one, no dims, more than a thread's share, with gaps."""
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal((*shape, 2)) @ [1, 1j] for shape in ((3, 4), (), (0, 3), (1,), (90, 100), (6, 5))]
    parameters = [graphc.tensor(a if dtype.is_complex else a.real, dtype=dtype) for a in arrays]
    return [nn.Parameter(p if i < 5 else p.t()) for i, p in enumerate(parameters)]


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.bfloat16, graphc.complex64], ids=str)
@pytest.mark.parametrize(("kind", "how"), EVERY, ids=NAMED)
def test_a_step_over_all_parameters_has_the_bits_of_operators_one_by_one(
    kind: type[RuleOptimizer], how: dict[str, Any], dtype: graphc.dtype
) -> None:
    sides = [assorted(dtype), assorted(dtype)]
    together, single = (kind(side, **how) for side in sides)  # type: ignore[call-arg]
    for t in range(4):
        rng = np.random.default_rng(t)
        for p, q in zip(*sides, strict=True):
            shape = tuple(p.shape)
            g = graphc.tensor(rng.standard_normal(shape) + (1j if dtype.is_complex else 0), dtype=dtype)
            p.grad, q.grad = g, g.clone()
        if t == 2:
            sides[0][1].grad = sides[1][1].grad = None
        versions = [p._version for p in sides[0]]
        together.step()
        assert [p._version - v for p, v in zip(sides[0], versions, strict=True)] == [1, t != 2, 1, 1, 1, 1]
        with graphc.no_grad():
            single.step_plainly(single.param_groups[0])
        for p, q in zip(*sides, strict=True):
            pairs = [(p.detach(), q.detach()), *((x, single.state[q][name]) for name, x in together.state[p].items())]
            assert all(x.contiguous().numpy().tobytes() == y.contiguous().numpy().tobytes() for x, y in pairs)
    assert together._batches is not None and all(group.batches for group in together._batches.known.values())
    assert single._batches is None


COMPILED = [*EVERY[len(RULES) :], (optim.Adafactor, {"weight_decay": 0.1})]


@pytest.mark.parametrize(("kind", "how"), COMPILED, ids=[kind.__name__ for kind, _ in COMPILED])
def test_the_other_rules_compile(kind: type[optim.Optimizer], how: dict[str, Any]) -> None:
    x, y = graphc.linspace(-1, 1, 12).reshape(4, 3), graphc.ones(4, 2)
    (eager, eager_optimizer, eager_step), (model, optimizer, step) = learner(kind, how), learner(kind, how)
    compiled = graphc.compile(step)
    for _ in range(4):
        assert eager_step(x, y).item() == compiled(x, y).item()
    assert state_bytes(eager, eager_optimizer) == state_bytes(model, optimizer)
    assert compiled.stats()["traces"] == 1 and not compiled.stats()["fallbacks"]


def test_what_moves_between_steps_is_found() -> None:
    """Other memory, other state, gradients with gaps, on the parameter itself or on its neighbour."""
    p = parameter(1.0, 2.0, 3.0)
    optimizer = optim.SGD([p], lr=0.5, momentum=0.5)
    p.grad = graphc.ones(3)
    optimizer.step()
    p.data = p.data.clone()
    optimizer.state[p]["momentum_buffer"] = graphc.zeros(3)
    optimizer.step()
    assert p.tolist() == [0.0, 1.0, 2.0]
    p.grad = graphc.tensor([[1.0, 9.0], [2.0, 9.0], [4.0, 9.0]])[:, 0]
    optimizer.step()
    assert p.tolist() == [-0.75, -0.25, -0.25]
    plain = optim.SGD([p], lr=0.5)
    p.grad = p.detach()
    plain.step()
    assert p.tolist() == [-0.375, -0.125, -0.125]
    memory = graphc.tensor([1.0, 2.0, 3.0, 4.0])
    p.data, p.grad = memory[1:], memory[:3]
    plain.step()
    assert memory.tolist() == [1.0, 1.5, 2.0, 2.5]
    p.data = graphc.zeros(1).expand(3)
    with pytest.raises(RuntimeError, match="single memory location"):
        plain.step()


@pytest.mark.parametrize("norm_type", [2.0, math.inf, 3.0])
@pytest.mark.parametrize("dtype", [graphc.float32, graphc.bfloat16], ids=str)
def test_clipping_all_gradients_has_the_bits_of_operators_one_by_one(
    dtype: graphc.dtype, norm_type: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for together in (True, False):
        parameters = [p for p in assorted(dtype) if p.numel() and p.is_contiguous()]
        for p in parameters:
            p.grad = (p.detach() * 3).sin()
        if not together:
            monkeypatch.setattr(sweeps, "fits", lambda tensors: False)
        assert sweeps.fits([p.grad for p in parameters]) is together
        norm = nn.utils.clip_grad_norm_(parameters, 0.5, norm_type)
        found.append([x.numpy().tobytes() for x in (norm, *(p.grad for p in parameters))])
        assert [p.grad._version for p in parameters] == [1] * len(parameters)
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", [optim.NAdam, optim.Adafactor, optim.Muon], ids=lambda kind: kind.__name__)
def test_autocast_does_not_change_a_step(kind: type[optim.Optimizer]) -> None:
    found = []
    for enabled in (False, True):
        p = nn.Parameter(graphc.linspace(-1, 1, 12).reshape(4, 3))
        p.grad = p.detach().cos()
        with graphc.autocast("cpu", dtype=graphc.bfloat16, enabled=enabled):
            kind([p], lr=0.1).step()  # type: ignore[call-arg]
        found.append(p.detach().numpy().tobytes())
    assert found[0] == found[1]


def test_parameters_that_share_memory_change_one_after_the_other() -> None:
    memory = graphc.ones(3, 4)
    parameters = [nn.Parameter(memory[:, ::2]), nn.Parameter(memory)]
    optimizer = optim.SGD(parameters, lr=0.5, weight_decay=1.0)
    for p in parameters:
        p.grad = graphc.zeros(*p.shape)
    optimizer.step()
    assert memory.tolist() == [[0.25, 0.5, 0.25, 0.5]] * 3


def test_a_step_is_noticed_by_autograd() -> None:
    p = parameter(1.0, 2.0)
    loss = (p * p).sum()
    p.grad = graphc.ones(2)
    optim.Adam([p]).step()
    with pytest.raises(RuntimeError, match=r"modified by an in-?place operation"):
        loss.backward()


def test_a_differentiable_step() -> None:
    start, rate = parameter(1.0, 2.0), 0.25
    p = start.clone()
    optimizer = optim.SGD([p], lr=rate, differentiable=True)
    (p.grad,) = graphc.autograd.grad((p * p).sum(), [p], create_graph=True)
    optimizer.step()
    (p * p).sum().backward()
    assert start.grad.tolist() == pytest.approx([2 * v * (1 - 2 * rate) ** 2 for v in (1.0, 2.0)])


class Counting(optim.Optimizer):
    """A user's optimizer, whose state holds a Python number (`kept` False) or a tensor."""

    def __init__(self, params: Any, kept: bool) -> None:
        self.kept = kept
        super().__init__(params, {"lr": 0.5})

    @graphc.no_grad()
    def step(self, closure: Any = None) -> None:
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            state.setdefault("sum", graphc.zeros_like(p)).add_(p.grad)
            if not self.kept:
                state["count"] = state.get("count", 0) + 1
            p.add_(state["sum"], alpha=-self.param_groups[0]["lr"] / state.get("count", 1))


@pytest.mark.parametrize("kept", [True, False])
def test_a_users_optimizer_is_traced_once_its_state_is_there(kept: bool) -> None:
    found = []
    for transform in (lambda f: f, graphc.compile):
        p = parameter(1.0, 2.0)
        optimizer = Counting([p], kept)

        def step(x: Any, p: Any = p, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            (p * x).square().sum().backward()
            optimizer.step()

        run = transform(step)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for t in range(5):
                run(graphc.tensor([0.5, 0.25]) * t)
        found.append(p.detach().numpy().tobytes())
    assert found[0] == found[1]
    assert {str(w.message).split(" (")[0] for w in caught} == {
        "step runs eagerly: a step that sets 'sum' in the optimizer's state cannot be traced",
        *(() if kept else ("step runs eagerly: a step that sets 'count' in the optimizer's state cannot be traced",)),
    }
    assert run.stats()["compiles"] + run.stats()["cache_hits"] == kept


def test_lbfgs_finds_the_minimum() -> None:
    p = parameter(-1.2, 1.0)
    optimizer = optim.LBFGS([p], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx(24.2)
    assert p.tolist() == pytest.approx([1.0, 1.0], abs=1e-3)
    assert optimizer.state[p]["func_evals"] >= optimizer.state[p]["n_iter"] > 5
    optimizer.param_groups[0]["line_search_fn"] = "armijo"
    p.data.fill_(3.0)
    with pytest.raises(RuntimeError, match="only 'strong_wolfe' is supported"):
        optimizer.step(closure)


# ---- hooks, names, copies --------------------------------------------------------------------------------------------------


def test_hooks_of_steps() -> None:
    p = parameter(1.0)
    p.grad = graphc.ones(1)
    optimizer, calls = optim.SGD([p], lr=0.25), []

    def note(name: str) -> Callable[..., None]:
        return lambda *given: calls.append((name, *given[1:]))

    handles = [
        register_optimizer_step_pre_hook(note("first")),
        optimizer.register_step_pre_hook(note("before")),
        optimizer.register_step_post_hook(note("after")),
        register_optimizer_step_post_hook(note("last")),
    ]
    optimizer.step()
    assert calls == [(name, (), {}) for name in ("first", "before", "after", "last")]
    for handle in handles:
        handle.remove()
    replaced = optimizer.register_step_pre_hook(lambda *_: ((lambda: 7,), {}))
    assert optimizer.step() == 7 and len(calls) == 4
    replaced.remove()
    optimizer.register_step_pre_hook(lambda *_: 3)
    with pytest.raises(RuntimeError, match=r"must return None or a tuple of \(new_args, new_kwargs\), but got 3"):
        optimizer.step()
    assert p.item() == 0.5


def test_a_hook_that_comes_later_is_in_the_next_compiled_step() -> None:
    _, optimizer, step = learner(optim.SGD, {"lr": 0.1})
    compiled, x, y, count = graphc.compile(step), graphc.ones(4, 3), graphc.ones(4, 2), graphc.zeros(())
    compiled(x, y)
    handle = optimizer.register_step_post_hook(lambda *_: count.add_(1))
    compiled(x, y)
    compiled(x, y)
    handle.remove()
    compiled(x, y)
    assert count.item() == 2


def test_hooks_of_state_dicts() -> None:
    p = parameter(1.0)
    optimizer, calls = optim.SGD([p], lr=0.25), []
    optimizer.register_state_dict_pre_hook(lambda o: calls.append("second"))
    optimizer.register_state_dict_pre_hook(lambda o: calls.append("first"), prepend=True)
    optimizer.register_state_dict_post_hook(lambda o, made: {**made, "more": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, given: {**given, "state": {}})
    optimizer.register_load_state_dict_post_hook(lambda o: calls.append("loaded"))
    saved = optimizer.state_dict()
    assert saved["more"] == 1 and calls == ["first", "second"]
    optimizer.load_state_dict({**saved, "state": {5: "nonsense"}})
    assert calls[2:] == ["loaded"] and not optimizer.state


def test_parameters_with_names() -> None:
    a, b = parameter(1.0), parameter(2.0)
    optimizer = optim.SGD([("a", a), ("b", b)])
    assert optimizer.param_groups[0]["param_names"] == ["a", "b"] and optimizer.param_groups[0]["params"] == [a, b]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["a", "b"]
    with pytest.raises(ValueError, match=r"with/without names\. cannot add param group without names"):
        optimizer.add_param_group({"params": [parameter(3.0)]})
    with pytest.raises(ValueError, match="Some param names are missing"):
        optim.SGD([("a", a), b])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("how", [(optim.AdamW, {}), (optim.SGD, {"momentum": 0.9, "dampening": 0.5}), (optim.LBFGS, {})])
def test_copies_go_on_by_themselves(copied: Any, how: Any) -> None:
    p = parameter(1.0, 2.0)
    optimizer = how[0]([p], **how[1])

    def step(o: Any) -> Any:
        (q,) = o.param_groups[0]["params"]

        def closure() -> Any:
            o.zero_grad()
            loss = (q**4).sum()
            loss.backward()
            return loss

        o.step(closure)
        return q.detach().numpy().tobytes()

    step(optimizer)
    twin = copied(optimizer)
    before = p.detach().numpy().tobytes()
    moved = step(twin)
    assert p.detach().numpy().tobytes() == before != moved
    assert step(optimizer) == moved


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
    assert repr(optimizer).startswith("SGD (\nParameter Group 0\n    dampening: 0\n    differentiable: False\n    foreach: None\n")


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


def test_state_that_is_no_dict() -> None:
    """A user's optimizer may keep anything for a parameter: tensors in it get the parameter's dtype, but counts."""

    class Own(optim.Optimizer):
        def step(self, closure: Any = None) -> Any:
            return None

    p, wide = parameter(1.0, 2.0), graphc.ones(2, dtype=graphc.float64)
    for state in (wide, {"deep": {"a": wide}}, {"deep": {"step": wide}}, None):
        optimizer = Own([p], {})
        optimizer.load_state_dict({"state": {0: state}, "param_groups": [{"params": [0]}]})
        found = optimizer.state_dict()["state"][0]
        if isinstance(state, dict):
            (name,) = state["deep"]
            assert found["deep"][name].dtype is (graphc.float64 if name == "step" else graphc.float32)
        else:
            assert found is None if state is None else found.dtype is graphc.float32


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
    with pytest.raises(ValueError, match=r"Invalid learning rate: 0"):
        optim.SparseAdam([p], lr=0)
    matrix = graphc.ones(2, 2, requires_grad=True)
    matrix.grad = graphc.ones(2, 2)
    for how, message in (({"ns_steps": 100}, "less than 100"), ({"ns_coefficients": (1.0, 2.0)}, "exactly 3")):
        with pytest.raises(ValueError, match=message):
            optim.Muon([matrix], **how).step()
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
    other.load_state_dict(optimizer.state_dict())
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
