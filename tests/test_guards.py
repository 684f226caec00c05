"""Compiled code notices changes of what it reads, and only those; `guards()` tells what it holds under."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
from graphc.capture.guards import guarded_values
from graphc.eager.epoch import epoch

SCALE = 2.0
NAME = ("twice", 3)
WEIGHT = graphc.ones(2)


def scaled(x: graphc.Tensor) -> graphc.Tensor:
    return x * SCALE


def through(x: graphc.Tensor) -> graphc.Tensor:
    return scaled(x) + len(NAME)


def test_globals_are_found_through_the_functions_that_are_called() -> None:
    assert {v.name: v.value for v in guarded_values(through)} == {"SCALE": 2.0, "NAME": ("twice", 3), "scaled": scaled}


def test_a_changed_global_traces_again() -> None:
    global SCALE
    compiled = graphc.compile(through)
    x = graphc.tensor([1.0, 2.0])
    assert compiled(x).tolist() == [4.0, 6.0]
    SCALE = 3.0
    try:
        assert compiled(x).tolist() == [5.0, 8.0]
        assert compiled(x).tolist() == [5.0, 8.0]
    finally:
        SCALE = 2.0
    assert compiled(x).tolist() == [4.0, 6.0]
    assert compiled.stats()["traces"] == 2 and compiled.stats()["compiles"] + compiled.stats()["cache_hits"] == 2


def test_a_changed_closure_cell_traces_again() -> None:
    shift = 1.0

    def f(x: graphc.Tensor) -> graphc.Tensor:
        return x + shift

    compiled = graphc.compile(f)
    x = graphc.tensor([1.0])
    assert compiled(x).tolist() == [2.0]
    shift = 10.0
    assert compiled(x).tolist() == [11.0]


def test_an_equal_value_of_another_type_is_a_change() -> None:
    power = 1

    def f(x: graphc.Tensor) -> graphc.Tensor:
        return x * power

    compiled = graphc.compile(f)
    x = graphc.tensor([3])
    assert compiled(x).dtype is graphc.int64
    power = 1.0
    assert compiled(x).dtype is graphc.float32


# ---- names that mean other objects


def doubled(x: Any) -> Any:
    return x * 2


class Inner(nn.Module):
    def forward(self, x: Any) -> Any:
        return self.moved(x) * SCALE

    def moved(self, x: Any) -> Any:
        return doubled(x) + WEIGHT

    def unused(self, x: Any) -> Any:
        return x + len(NAME)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Any) -> Any:
        return self.inner(x)


def test_names_are_found_in_submodules_and_the_methods_they_call() -> None:
    assert {v.name for v in guarded_values(Outer())} == {"SCALE", "WEIGHT", "doubled"}


@pytest.mark.parametrize(("name", "value"), [("WEIGHT", graphc.zeros(2)), ("SCALE", 5.0), ("doubled", lambda x: x - 1)])
def test_a_name_that_means_something_else_traces_again(monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    model, x = Outer(), graphc.ones(2)
    compiled, function = graphc.compile(model), graphc.compile(lambda x: doubled(x) * SCALE + WEIGHT)
    for _ in range(2):
        assert compiled(x).tolist() == model(x).tolist()
        assert function(x).tolist() == (doubled(x) * SCALE + WEIGHT).tolist()
        monkeypatch.setitem(globals(), name, value)
    assert compiled.stats()["traces"] == 2


def test_a_name_that_is_only_set_is_no_guard() -> None:
    count, other = 0, 1

    def f(x: Any) -> Any:
        nonlocal count
        count = other
        return x + other

    compiled = graphc.compile(f)
    for _ in range(3):
        compiled(graphc.ones(2))
    assert compiled.stats()["traces"] == 1


# ---- the epoch


class Noisy(nn.Module):
    """Sets attributes and assigns a buffer at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.last, self.mode = 0, None, "a"
        self.register_buffer("held", graphc.zeros(2))

    def forward(self, x: Any) -> Any:
        self.calls += 1
        self.last = x + 1
        self.held = graphc.ones(2) * self.calls
        return x


def test_an_eager_module_that_sets_attributes_does_not_disturb_compiled_code() -> None:
    noisy, x = Noisy(), graphc.ones(2)
    compiled = graphc.compile(nn.Linear(2, 2))
    for _ in range(6):
        noisy(x)
        compiled(x)
    traces = compiled.stats()["traces"]
    for _ in range(20):
        noisy(x)
        compiled(x)
    assert compiled.stats()["traces"] == traces < 6
    assert noisy.calls == 26
    assert noisy.state_dict()["held"].tolist() == [26.0, 26.0]
    assert noisy.last.tolist() == [2.0, 2.0]


def test_hooks_that_come_and_go_do_not_disturb_compiled_code() -> None:
    eager, x, seen = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), graphc.ones(2), []
    compiled, watched = graphc.compile(nn.Linear(2, 2)), graphc.compile(eager)
    for _ in range(5):
        handles = [layer.register_forward_hook(lambda *_: seen.append(1)) for layer in eager]
        eager(x)
        for handle in reversed(handles):
            handle.remove()
        compiled(x)
        assert watched(x).tolist() == eager(x).tolist()
    assert len(seen) == 10
    assert compiled.stats()["traces"] == watched.stats()["traces"] == 1
    first = eager[0].register_forward_hook(lambda module, args, result: result * 2)
    assert watched(x).tolist() == eager(x).tolist()
    second = eager[0].register_forward_hook(lambda module, args, result: result + 1)
    first.remove()
    assert watched(x).tolist() == eager(x).tolist()
    second.remove()
    assert watched(x).tolist() == eager(x).tolist()


def test_code_that_reads_such_an_attribute_notices() -> None:
    noisy, x = Noisy(), graphc.ones(2)
    other = graphc.compile(nn.Linear(2, 2))
    for i in range(8):
        noisy.mode, noisy.held = "ab"[i % 2], graphc.full((2,), float(i))
        noisy(x)
        other(x)
    reading = graphc.compile(lambda x: (x * 2 if noisy.mode == "a" else x - 1) + noisy.held)
    for i in range(12):
        noisy.mode, noisy.held = "ab"[i % 2], graphc.full((2,), float(i))
        assert reading(x).tolist() == ((x * 2 if noisy.mode == "a" else x - 1) + i).tolist()
    assert reading.stats()["traces"] == 2


def test_nothing_moves_where_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = Noisy()
    for _ in range(20):
        noisy(graphc.ones(2))
    assert "calls" in vars(noisy)


CHANGES: list[Callable[[Any], Any]] = [
    lambda m: m.eval(),
    lambda m: setattr(m, "factor", 3.0),
    lambda m: setattr(m.linear, "weight", nn.Parameter(graphc.zeros(2, 2))),
    lambda m: m.register_buffer("shift", graphc.full((2,), 7.0)),
    lambda m: setattr(m, "shift", graphc.full((2,), 9.0)),
    lambda m: m.linear.register_forward_hook(lambda module, args, result: result * 2),
    lambda m: setattr(m, "linear", nn.Linear(2, 2)),
    lambda m: m.linear.requires_grad_(False),
]


class Changing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop, self.factor = nn.Linear(2, 2), nn.Dropout(1.0), 2.0
        self.register_buffer("shift", graphc.ones(2))

    def forward(self, x: Any) -> Any:
        return self.drop(self.linear(x) * self.factor) + self.shift


def test_every_change_of_a_module_is_noticed() -> None:
    model, x = Changing(), graphc.ones(2)
    compiled = graphc.compile(model)
    for change in CHANGES:
        compiled(x)
        change(model)
        got, wanted = compiled(x), model(x)
        assert got.tolist() == wanted.tolist()
        assert got.requires_grad == wanted.requires_grad


def test_training_and_evaluation_take_turns_without_a_new_trace() -> None:
    model, x = nn.Sequential(nn.Linear(2, 2), nn.Dropout(1.0)), graphc.ones(2)
    bystander = graphc.compile(nn.Linear(2, 2))
    compiled = graphc.compile(model)
    for i in range(12):
        model.train(i % 2 == 0)
        got = compiled(x)
        assert got.tolist() == model(x).tolist()
        bystander(x)
    assert compiled.stats()["traces"] == bystander.stats()["traces"] == 2
    before = epoch[0]
    model.eval().train()
    model.train()
    assert epoch[0] != before
    model.eval()
    assert epoch[0] is before
    model[0].note = 1  # a new attribute is for good
    model.train().eval()
    assert epoch[0] != before


# ---- what people look at


def test_guards_tells_what_holds() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = graphc.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    optimizer.step()

    def step(x: Any, mode: str = "mean") -> Any:
        loss = F.mse_loss(model(x), x[:, :2], reduction=mode) * SCALE
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    compiled = graphc.compile(step)
    for n in (4, 4, 5, 6):
        compiled(graphc.randn(n, 3), mode="sum")
    text = compiled.guards()
    assert text.count("variant ") == 2 + (compiled.stats()["traces"] - 2)
    for line in (
        "argument 0: f32[4, 3], requires_grad=False",
        "argument 0: f32[dim0, 3], requires_grad=False",
        "argument mode is 'sum'",
        "grad mode is on, autocast off",
        "size 2 <= dim0",
        f"global of {__name__}: SCALE is 2.0",
        "closure: model is the same Sequential",
        "tensor from outside model.0.weight: f32[4, 3], requires_grad=True",
        "tensor from outside optimizer.state[model.1.bias].momentum_buffer: f32[2], requires_grad=False",
        ".grad of model.0.weight is None",
    ):
        assert line in text, (line, text)
    stats = compiled.stats()
    assert stats["graphs"] == stats["compiles"] + stats["cache_hits"] and stats["fallbacks"] == []


def test_guards_tells_attributes_and_paths() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return x * 2 if self.calls % 2 == 0 and x.sum() > 0 else x

    compiled = graphc.compile(Counting())
    for _ in range(4):
        compiled(graphc.ones(2))
    text = compiled.guards()
    assert "attribute 'calls' of a module: an int" in text
    assert "is True" in text and "is False" in text
    assert "path: what is asked (test_guards.py:" in text


@graphc.no_grad()
def test_modes_that_the_code_sets_are_set_by_every_call() -> None:
    model, twin = (nn.Sequential(nn.BatchNorm1d(2)) for _ in range(2))
    twin.load_state_dict(model.state_dict())

    def step(model: Any, x: Any, train: bool) -> Any:
        y = model(x)
        model.train(train)
        z = model(x)
        model.eval()
        model.train(train)
        return y + z

    compiled = graphc.compile(lambda x, train: step(model, x, train))
    for i, train in enumerate([True, False, False, True, True, False, True, True, False, False]):
        x = graphc.randn(3, 2)
        got, wanted = compiled(x, train), step(twin, x, train)
        assert got.tolist() == wanted.tolist(), i
        assert model.training is twin.training is train and model[0].training is train
    assert compiled.stats()["fallbacks"] == []
    assert compiled.stats()["traces"] <= 8
