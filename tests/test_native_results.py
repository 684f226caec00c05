"""Compiled calls that machine code begins and Python ends: results with gradients or shared memory, attributes that are set."""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any

import pytest

import graphc
import graphc.nn as nn
from graphc import quick
from graphc.native import sites

MADE = sites.made()
pytestmark = pytest.mark.skipif(MADE is None, reason="this interpreter is not one that machine code can serve")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are made at the second run."""
    monkeypatch.setattr(quick, "RUNS_IN_PYTHON", 2)


def served(compiled: Any, *args: Any) -> Any:
    """What a call gives that machine code entered."""
    assert MADE is not None
    before = MADE.state.entered
    result = compiled(*args)
    assert MADE.state.entered == before + 1
    return result


def perceptron() -> Any:
    graphc.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def test_gradients_flow_through_calls_that_machine_code_serves() -> None:
    model, twin = perceptron(), perceptron()
    compiled = graphc.compile(model)
    for i in range(8):
        x = graphc.randn(5, 6).requires_grad_(i % 2 == 1)
        z = x.detach().clone().requires_grad_(i % 2 == 1)
        y = served(compiled, x) if i > 3 else compiled(x)
        w = twin(z)
        assert y.tolist() == w.tolist() and y.requires_grad and y.grad_fn is not None
        for result, argument, owner in ((y, x, model), (w, z, twin)):
            (result * result).sum().backward()
            with graphc.no_grad():
                for p in owner.parameters():
                    p.sub_(p.grad * 0.1)
            assert i % 2 == 0 or argument.grad is not None
        assert [p.tolist() for p in model.parameters()] == [p.tolist() for p in twin.parameters()]
        assert [p.grad.tolist() for p in model.parameters()] == [p.grad.tolist() for p in twin.parameters()]
        assert i % 2 == 0 or x.grad.tolist() == z.grad.tolist()


def test_arguments_that_were_computed_and_second_derivatives() -> None:
    def f(x: Any, w: Any) -> Any:
        return (x * w).sin()

    compiled = graphc.compile(f)
    w = graphc.randn(4).requires_grad_()
    for i in range(6):
        x = graphc.randn(4).requires_grad_()
        found = []
        for function in (compiled if i < 3 else lambda *args: served(compiled, *args), f):
            y = function(x * 2.0, w)
            (first,) = graphc.autograd.grad(y.sum(), x, create_graph=True)
            second = graphc.autograd.grad(first.sum(), (x, w))
            found.append([y.tolist(), first.tolist(), *(g.tolist() for g in second)])
        assert found[0] == found[1]


def test_a_source_that_is_no_leaf_any_more_is_noticed() -> None:
    w = graphc.ones(3).requires_grad_()
    compiled = graphc.compile(lambda x: x * w)
    x = graphc.ones(3)
    for _ in range(3):
        compiled(x)
    base = graphc.full((3,), 2.0).requires_grad_()
    served(compiled, x)
    with graphc.no_grad():
        w.zero_()
    w.requires_grad_(False)
    w.copy_(base)  # now computed
    compiled(x).sum().backward()
    assert base.grad is not None and base.grad.tolist() == [1.0, 1.0, 1.0]


def test_a_parameter_that_is_written_before_backward_is_refused() -> None:
    model = perceptron()
    compiled = graphc.compile(model)
    x = graphc.randn(5, 6)
    for _ in range(3):
        compiled(x)
    y = served(compiled, x)
    with graphc.no_grad():
        model[2].weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified"):
        y.sum().backward()


class Counting(nn.Module):
    """Counts its calls and keeps its last result."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls, self.last, self.mode = nn.Linear(3, 3), 0, None, "a"

    def forward(self, x: Any) -> Any:
        self.calls += 1
        self.last = self.linear(x)
        if self.calls == 9:
            self.mode = "b"
        return self.last * 2 if self.mode == "a" else self.last


def test_attributes_are_set_and_read() -> None:
    graphc.manual_seed(0)
    model = Counting()
    compiled = graphc.compile(model)
    x = graphc.randn(2, 3)
    entered = 0
    with graphc.no_grad():
        for i in range(1, 16):
            assert MADE is not None
            before = MADE.state.entered
            y = compiled(x * i)
            entered += MADE.state.entered - before
            wanted = model.linear(x * i)
            assert model.calls == i
            assert y.tolist() == (wanted * 2 if i < 9 else wanted).tolist()
            assert model.last.tolist() == wanted.tolist()
            assert model.mode == ("a" if i < 9 else "b")
            if i == 12:
                model.calls = 100
                model.mode = "b"
                model.calls = 12
    assert entered >= 8


def test_results_that_share_memory() -> None:
    state = graphc.zeros(4)

    def f(x: Any) -> Any:
        state.add_(1.0)
        return x, x[1:3], state, x + 1

    compiled = graphc.compile(f)
    for _ in range(3):
        compiled(graphc.zeros(4))
    x = graphc.zeros(4)
    whole, part, same, other = served(compiled, x)
    part.add_(5.0)
    assert x.tolist() == [0.0, 5.0, 5.0, 0.0] == whole.tolist()
    assert same.tolist() == [4.0] * 4 and other.tolist() == [1.0] * 4
    same.zero_()
    assert state.tolist() == [0.0] * 4


def test_threads_and_references() -> None:
    model = perceptron()
    compiled = graphc.compile(model)
    x = graphc.randn(5, 6)
    wanted = compiled(x).tolist()
    wrong: list[Any] = []

    def work() -> None:
        for _ in range(100):
            y = compiled(x)
            if y.tolist() != wanted or y.grad_fn is None:
                wrong.append(y)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    objects = (x, x._array, model[0].weight, compiled, None)

    def run(count: int) -> tuple[list[int], int]:
        for _ in range(count):
            compiled(x)
        gc.collect()
        return [sys.getrefcount(o) for o in objects], sys.getallocatedblocks()

    before, blocks = run(100)
    after, more = run(1000)
    assert all(abs(a - b) <= 20 for a, b in zip(before, after, strict=True)), (before, after)
    assert more - blocks < 500
