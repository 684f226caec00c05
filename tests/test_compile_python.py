"""What Python code does besides tensor operators, in compiled code: the same as in eager code, or eager code with a warning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.errors import CompileWarning


def training(compiled: bool) -> tuple[Callable[..., Any], Any, Any, Any]:
    """A step that schedules its own rate, and what it changes."""
    graphc.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    schedule = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss.detach()

    return (graphc.compile(step) if compiled else step), model, optimizer, schedule


def test_a_schedule_steps_once_a_call(tmp_path: Path) -> None:
    (eager, *eager_parts), (step, *parts) = training(False), training(True)
    for i in range(4):
        x = graphc.full((2, 3), 0.1 * (i + 1))
        assert eager(x).numpy().tobytes() == step(x).numpy().tobytes()
        assert parts[1].param_groups[0]["lr"] == eager_parts[1].param_groups[0]["lr"] == 0.5 ** (i + 2)
        assert parts[2].last_epoch == eager_parts[2].last_epoch == i + 1
    assert eager_parts[0].weight.detach().numpy().tobytes() == parts[0].weight.detach().numpy().tobytes()
    assert step.stats()["traces"] <= 2
    assert not step.stats()["fallbacks"]
    with pytest.raises(RuntimeError, match="save: the compiled code steps a schedule"):
        step.save(tmp_path / "step.gc")
    assert not list(tmp_path.iterdir())


def test_a_rate_that_the_code_reads_is_seen_when_it_changes() -> None:
    w = nn.Parameter(graphc.ones(2))
    optimizer = optim.SGD([w], lr=0.25)

    @graphc.compile
    def scaled(x: Any) -> Any:
        return x * optimizer.param_groups[0]["lr"]

    assert scaled(graphc.ones(1)).item() == 0.25
    optimizer.param_groups[0]["lr"] = 0.5
    assert scaled(graphc.ones(1)).item() == 0.5


def test_setting_a_rate_runs_eagerly() -> None:
    w = nn.Parameter(graphc.ones(1))
    optimizer = optim.SGD([w], lr=1.0)

    @graphc.compile
    def step() -> None:
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] /= 2

    with pytest.warns(CompileWarning, match=r"setting an optimizer's lr cannot be traced .*test_compile_python.py:\d+"):
        step()
    step()
    step()
    assert w.item() == 1 - 1 - 0.5 - 0.25


def test_a_rate_read_after_the_schedules_step_runs_eagerly() -> None:
    w = nn.Parameter(graphc.ones(1))
    optimizer = optim.SGD([w], lr=1.0)
    schedule = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)

    @graphc.compile
    def step() -> Any:
        schedule.step()
        return schedule.get_last_lr()[0]

    with pytest.warns(CompileWarning, match="after a schedule's step"):
        rates = [step(), step(), step()]
    assert rates == [0.5, 0.25, 0.125]


def test_train_and_eval_inside_compiled_code() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))

    @graphc.compile
    def both(x: Any) -> Any:
        model.eval()
        y = model(x)
        model.train()
        return y

    with graphc.no_grad():
        x = graphc.ones(1, 2)
        wanted = model[0](x).numpy().tobytes()
        assert all(both(x).numpy().tobytes() == wanted for _ in range(3))
    assert model.training


def write_through(x: Any, w: Any) -> Any:
    """In place, with a gradient that goes on into the caller's tensor."""
    x.mul_(w)
    return None


@pytest.mark.parametrize("computed", [False, True])
def test_writes_that_carry_gradients_out_run_eagerly(computed: bool) -> None:
    w = graphc.tensor([5.0, 7.0], requires_grad=True)
    leaf = graphc.tensor([2.0, 3.0], requires_grad=computed)
    compiled = graphc.compile(write_through)
    x = leaf * 1
    with pytest.warns(CompileWarning, match="gradients (would )?flow"):
        compiled(x, w)
    x.sum().backward()
    x = leaf * 1
    compiled(x, w)
    x.sum().backward()
    assert w.grad.tolist() == [4, 6]
    assert not computed or leaf.grad.tolist() == [10, 14]


def test_results_share_memory_as_eager_results_do() -> None:
    total = graphc.zeros(2)

    @graphc.compile
    def accumulate(x: Any) -> Any:
        total.add_(x)
        y = x + 1
        return total, x, x.view(2, 1), y, y[0], y.detach()

    with graphc.no_grad():
        accumulate(graphc.ones(2))
        x = graphc.ones(2)
        same, argument, column, y, first, detached = accumulate(x)
    assert same is total
    assert argument is x
    column.fill_(7)
    first.fill_(9)
    assert x.tolist() == [7, 7]
    assert y.tolist() == detached.tolist() == [9, 2]
    total.zero_()
    assert same.tolist() == [0, 0]


@pytest.mark.parametrize("read", [lambda w: w, lambda w: w.t(), lambda w: w[0], lambda w: w.detach(), lambda w: w.detach().t()])
def test_data_that_is_assigned_is_seen(read: Callable[[Any], Any]) -> None:
    w = nn.Parameter(graphc.ones(2, 2))
    doubled = graphc.compile(lambda: (read(w) * 2).sum())
    for value, shape in ((1.0, (2, 2)), (3.0, (2, 2)), (5.0, (3, 3)), (2.0, (1, 1))):
        w.data = graphc.full(shape, value)
        with graphc.no_grad():
            assert doubled().item() == (read(w) * 2).sum().item()


Rule = Callable[[Any, Any], Any]
IN_PLACE: dict[str, tuple[Rule, Rule]] = {
    "mul_": (lambda y, x: y.mul_(x), lambda y, x: y * x),
    "mul_ itself": (lambda y, x: y.mul_(y), lambda y, x: y * y),
    "div_": (lambda y, x: y.div_(x), lambda y, x: y / x),
    "sin_": (lambda y, x: y.sin_(), lambda y, x: y.sin()),
    "square_": (lambda y, x: y.square_(), lambda y, x: y.square()),
    "clamp_": (lambda y, x: y.clamp_(0, 5), lambda y, x: y.clamp(0, 5)),
    "rows": (lambda y, x: y[1:].mul_(x[1:]), lambda y, x: graphc.cat([y[:1], y[1:] * x[1:]])),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_backward_reads_what_an_in_place_operator_overwrote(name: str) -> None:
    def gradients(in_place: bool) -> tuple[np.ndarray, np.ndarray]:
        x = graphc.tensor([0.5, 2.0, 3.0], requires_grad=True)
        y = x * 2
        result = IN_PLACE[name][not in_place](y, x)
        y = y if in_place else result
        (g,) = graphc.autograd.grad((y * y).sum(), x, create_graph=True)
        (h,) = graphc.autograd.grad(g.sum(), x)
        return g.detach().numpy(), h.numpy()

    for got, wanted in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_a_compiled_method() -> None:
    class Scale(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.weight = nn.Parameter(graphc.full((2,), by))

        @graphc.compile
        def forward(self, x: Any) -> Any:
            return x * self.weight

    double, triple = Scale(2.0), Scale(3.0)
    for _ in range(2):
        assert double(graphc.ones(2)).tolist() == [2, 2]
        assert triple(graphc.ones(2)).tolist() == [3, 3]
    double(graphc.ones(2)).sum().backward()
    assert double.weight.grad.tolist() == [1, 1]
    assert triple.weight.grad is None
    assert not Scale.forward.stats()["fallbacks"]
    assert repr(graphc.compile(double)) == f"graphc.compile({double!r})"
