"""Compiled code that reads tensors into Python: the same results, gradients and errors as eager code, on every path."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import graphc
from graphc import nn, optim
from graphc.errors import CompileWarning


def branch(x: Any) -> Any:
    if x.sum() > 0:
        return x * 2
    return x - 1


def loop(x: Any) -> Any:
    count = 0
    while x.abs().sum() < 10:
        x = x * 2
        count += 1
    return x, count


def number(x: Any) -> Any:
    y = x.exp()
    if (y.max() > 3).item():
        y = y / 2
    return y.sum().item() * 2 + 1, y


def length(x: Any) -> Any:
    count = int((x > 0).sum())
    return x[:count] * count


def leave(x: Any) -> Any:
    steps = []
    for _ in range(5):
        x = x + 1
        steps.append(x)
        if x.min() > 2:
            break
    return steps


def checked(x: Any) -> Any:
    assert (x > -9).all(), "too small"
    return (x * x).sqrt()


def flags(x: Any) -> Any:
    return x * sum((x > 0).tolist())


def scaled(x: Any) -> Any:
    return x * x.sum().item() + x.mean().item()


def recursive(x: Any, depth: int = 0) -> Any:
    return x if depth == 4 or x.max() > 4 else recursive(x * 1.5, depth + 1)


def caught(x: Any) -> Any:
    try:
        if x.sum() > 1:
            raise ValueError("large")
        return x
    except ValueError:
        return -x


PROGRAMS = [branch, loop, number, length, leave, checked, flags, scaled, recursive, caught]


def inputs() -> list[Any]:
    graphc.manual_seed(3)
    return [(graphc.randn(4).clamp(-2, 2) * (i % 3 + 1) * 0.5).round(decimals=1) + 0.05 for i in range(6)] * 2


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_every_path_is_eagers(program: Callable[..., Any]) -> None:
    compiled = graphc.compile(program)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in inputs():
            wanted, got = (graphc.utils._pytree.tree_flatten(f(x.clone()))[0] for f in (program, compiled))
            assert [type(a) for a in wanted] == [type(b) for b in got]
            for a, b in zip(wanted, got, strict=True):
                assert a.numpy().tobytes() == b.numpy().tobytes() if isinstance(a, graphc.Tensor) else repr(a) == repr(b)
    assert compiled.stats()["traces"] <= 6


@pytest.mark.parametrize("program", [branch, loop, leave, checked, flags, scaled, recursive, caught], ids=lambda f: f.__name__)
def test_gradients_on_every_path(program: Callable[..., Any]) -> None:
    compiled = graphc.compile(program)
    for x in inputs()[:4]:
        found = []
        for f in (program, compiled):
            leaf = x.clone().requires_grad_()
            result = f(leaf)
            last = result if isinstance(result, graphc.Tensor) else result[0] if f is loop or program is loop else result[-1]
            last.square().sum().backward()
            found.append(leaf.grad.numpy().tobytes())
        assert found[0] == found[1]


def test_known_paths_run_no_python() -> None:
    seen = []

    def f(x: Any) -> Any:
        seen_here = 0  # nothing that outlives the call
        if x.sum() > 0:
            return x + seen_here
        return x - 1

    compiled = graphc.compile(f)
    for value in (1.0, -1.0, 2.0, -2.0, 1.0):
        seen.append(compiled(graphc.full((2,), value)).tolist()[0])
    assert seen == [1, -2, 2, -3, 1] and compiled.stats()["traces"] == 2
    text = compiled.explain(kernels=False)
    assert "paths by what the code reads:\n  True (test_compile_reads.py:" in text
    (reason,) = compiled.stats()["recompiles"]
    assert reason.startswith("a value that the code reads (test_compile_reads.py:")


def test_state_is_written_once_on_every_path() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)
            self.calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            y = self.norm(x)
            if y.max() > 1.2:
                y = nn.functional.dropout(y, 0.5, True)
                self.kind = "large"
            else:
                self.kind = "small"
            self.norm.running_mean.mul_(0.5)
            return y.sum()

    def run(wrap: Callable[[Any], Any]) -> list[Any]:
        module = Gated()
        call = wrap(module)
        graphc.manual_seed(5)
        found: list[Any] = []
        for _ in range(8):
            y = call(graphc.randn(4, 3))
            y.backward()
            found += [y.item(), module.calls, module.kind, *(b.tolist() for b in module.buffers())]
            found += [p.grad.tolist() for p in module.parameters()]
        return found

    assert run(lambda module: module) == run(graphc.compile)


def test_a_training_step_that_skips_bad_gradients() -> None:
    def run(wrap: Callable[[Any], Any]) -> list[Any]:
        graphc.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = optim.AdamW(model.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            if graphc.isfinite(loss):
                norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                return loss.item(), norm
            return None

        call = wrap(step)
        found: list[Any] = []
        for i in range(6):
            result = call(graphc.full((2, 3), math.inf if i == 2 else 0.25 * i))
            found += [result if result is None else (result[0], result[1].item()), *(p.tolist() for p in model.parameters())]
        return found

    assert run(lambda step: step) == run(graphc.compile)


def test_errors_come_from_the_path_that_raises_them() -> None:
    compiled = graphc.compile(checked)
    for _ in range(2):
        assert compiled(graphc.ones(2)).tolist() == [1, 1]
        with pytest.raises(AssertionError, match="too small"):
            compiled(graphc.full((2,), -10.0))


def test_too_many_answers_end_in_eager_code() -> None:
    compiled = graphc.compile(lambda x: x[: int(x.sum())])
    with pytest.warns(CompileWarning, match=r"was more than 16 different ones"):
        assert [compiled(graphc.full((1,), float(i))).tolist() for i in range(18)] == [[i] if i else [] for i in range(18)]
    endless = graphc.compile(lambda x: [x for _ in range(70) if x.sum() > 0])
    with pytest.warns(CompileWarning, match="more than 64 values"):
        assert len(endless(graphc.ones(1))) == 70


def test_code_that_keeps_what_it_reads_runs_eagerly() -> None:
    losses: list[float] = []
    totals = {"n": 0}

    def keeping(x: Any) -> Any:
        losses.append(x.sum().item())
        return x

    def counting(x: Any) -> Any:
        totals["n"] += int(x.sum() > 0)
        return x

    first, second = graphc.compile(keeping), graphc.compile(counting)
    with pytest.warns(CompileWarning, match="reads tensors into Python and changes a list that outlives the call"):
        assert [first(graphc.ones(2)).tolist() for _ in range(3)] == [[1, 1]] * 3
    with pytest.warns(CompileWarning, match="reads tensors into Python and changes a dict that outlives the call"):
        assert [second(graphc.ones(2)).tolist() for _ in range(3)] == [[1, 1]] * 3
    assert losses == [2.0, 2.0, 2.0] and totals == {"n": 3}


def test_what_a_path_assumed_is_still_guarded() -> None:
    w = graphc.ones(2)
    scale = 2.0
    compiled = graphc.compile(lambda x: x * w * scale if (x + w).sum() > 0 else x)
    assert compiled(graphc.ones(2)).tolist() == [2, 2]
    w.fill_(3)
    assert compiled(graphc.ones(2)).tolist() == [6, 6]
    w.fill_(-3)
    assert compiled(graphc.ones(2)).tolist() == [1, 1]
    w.fill_(3)
    scale = 4.0
    assert compiled(graphc.ones(2)).tolist() == [12, 12]


def test_a_number_is_of_no_use_after_the_trace() -> None:
    class Holder:
        pass

    Holder.kept = None  # type: ignore[attr-defined]  # of a class, where nobody looks

    def f(x: Any) -> Any:
        Holder.kept = x.sum().item()  # type: ignore[attr-defined]
        return x

    graphc.compile(f)(graphc.ones(2))
    with pytest.raises(graphc.errors.TraceError, match="used after the trace ended"):
        float(Holder.kept)  # type: ignore[attr-defined]
