"""Autocast and GradScaler: in eager and compiled code the same bits, in threads, and nothing left behind."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

import graphc
from graphc import nn, optim
from graphc.amp import GradScaler, autocast
from graphc.autograd.checkpoint import checkpoint


@pytest.fixture(autouse=True)
def _nothing_left() -> Any:
    yield
    assert not graphc.is_autocast_enabled("cpu")
    assert (graphc.ones(1, 1) @ graphc.ones(1, 1)).dtype is graphc.float32


def model_of(seed: int = 0) -> Any:
    graphc.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2))


def test_contexts_nest_and_decorate() -> None:
    x = graphc.ones(2, 2)

    @autocast("cpu", dtype=graphc.float16)
    def inside(depth: int) -> list[Any]:
        return [(x @ x).dtype, *(inside(depth - 1) if depth else [])]

    with autocast("cpu"):
        assert (x @ x).dtype is graphc.bfloat16
        with autocast("cpu", enabled=False):
            assert (x @ x).dtype is graphc.float32
            assert inside(2) == [graphc.float16] * 3
        assert (x @ x).dtype is graphc.bfloat16
        with pytest.raises(RuntimeError):
            (x @ graphc.ones(3, 3)).sum()
    with pytest.raises(ZeroDivisionError), autocast("cpu"):
        raise ZeroDivisionError


def test_what_writes_keeps_its_dtype() -> None:
    x, out = graphc.ones(2, 2), graphc.zeros(2, 2)
    with autocast("cpu"):
        assert graphc.mm(x, x, out=out).dtype is graphc.float32
        assert x.clone().addmm_(x, x + 0.001).dtype is graphc.float32
        assert x.double().matmul(x.double()).dtype is graphc.float64
    assert out.tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_threads_have_their_own() -> None:
    seen: list[Any] = []

    def work() -> None:
        seen.append((graphc.ones(1, 1) @ graphc.ones(1, 1)).dtype)

    with autocast("cpu"):
        other = threading.Thread(target=work)
        other.start()
        other.join()
        work()
    assert seen == [graphc.float32, graphc.bfloat16]


def test_calls_that_come_often() -> None:
    """Machine code stands for calls that come again and again (`graphc.native`): not for those under autocast."""
    x = graphc.ones(3, 3)
    for _ in range(40):
        for _ in range(8):
            assert (x @ x).dtype is graphc.float32
        with autocast("cpu"):
            assert (x @ x).dtype is graphc.bfloat16


def test_compiled_code_is_keyed_by_autocast() -> None:
    model, x = model_of(), graphc.randn(3, 4)
    compiled = graphc.compile(model)
    for dtype in (None, graphc.bfloat16, None, graphc.float16, graphc.bfloat16):
        with autocast("cpu", dtype=dtype, enabled=dtype is not None), graphc.no_grad():
            for _ in range(2):  # the second time the short way
                assert compiled(x).numpy_view().tobytes() == model(x).numpy_view().tobytes()
                assert compiled(x).dtype is (dtype or graphc.float32)
    assert compiled.stats()["traces"] == 3


def step_of(model: Any, scaled: bool, dtype: Any) -> tuple[Callable[[Any, Any], Any], Any, GradScaler]:
    optimizer = optim.AdamW(model.parameters(), lr=0.05)
    scaler = GradScaler("cpu", init_scale=16.0, growth_interval=2, enabled=scaled)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        with autocast("cpu", dtype=dtype):
            loss = nn.functional.mse_loss(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return step, optimizer, scaler


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("dtype", [graphc.bfloat16, graphc.float16])
def test_training_steps_compile(dtype: Any, scaled: bool) -> None:
    """The same bits, also where a gradient overflows and the step is left out."""
    found = []
    for transform in (lambda f: f, graphc.compile):
        model = model_of()
        step, optimizer, scaler = step_of(model, scaled, dtype)
        run = transform(step)
        graphc.manual_seed(3)
        losses = []
        for t in range(5):
            y = graphc.full((3, 2), float("inf") if scaled and t == 2 else 0.5)
            losses.append(run(graphc.randn(3, 4), y).item())
            losses.append(scaler.get_scale())
        states = [value for p in model.parameters() for value in optimizer.state[p].values()]
        found.append((losses, [x.detach().numpy().tobytes() for x in (*model.parameters(), *states)], scaler.state_dict()))
        if transform is graphc.compile:
            assert run.stats()["traces"] <= 2 and not run.stats()["fallbacks"]
    assert found[0] == found[1]
    assert not scaled or found[0][0][1::2] == [16.0, 32.0, 16.0, 16.0, 32.0]


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_run_again_under_the_same_autocast(reentrant: bool) -> None:
    gradients = []
    for part in (lambda f, x: f(x), lambda f, x: checkpoint(f, x, use_reentrant=reentrant)):
        model, x = model_of(), graphc.ones(2, 4, requires_grad=True)
        with autocast("cpu"):
            part(model, x).float().sum().backward()
        gradients.append([g.numpy().tobytes() for g in (x.grad, *(p.grad for p in model.parameters()))])
    assert gradients[0] == gradients[1]


def test_backward_under_autocast_is_backward_outside() -> None:
    gradients = []
    for inside in (False, True):
        model = model_of()
        with autocast("cpu"):
            loss = nn.functional.mse_loss(model(graphc.ones(2, 4)), graphc.zeros(2, 2))
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        gradients.append([p.grad.numpy().tobytes() for p in model.parameters()])
    assert gradients[0] == gradients[1]


def test_scalers_are_copied_and_resumed() -> None:
    model = model_of()
    step, _, scaler = step_of(model, True, graphc.bfloat16)
    for _ in range(3):
        step(graphc.ones(2, 4), graphc.ones(2, 2))
    resumed = GradScaler("cpu")
    resumed.load_state_dict(scaler.state_dict())
    for other in (resumed, copy.deepcopy(scaler), pickle.loads(pickle.dumps(scaler))):
        assert other.state_dict() == scaler.state_dict()
        assert other.scale(graphc.ones(())).item() == scaler.get_scale() == 32.0
