"""Calls of compiled functions that machine code serves give what Python gives, notice what Python notices, and leak nothing."""

from __future__ import annotations

import gc
import sys
import threading
import warnings
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
from graphc import quick
from graphc.compiled import Compiled
from graphc.errors import CompileWarning
from graphc.native import sites

MADE = sites.made()
pytestmark = pytest.mark.skipif(MADE is None, reason="this interpreter is not one that machine code can serve")
SCALE = 2.0
Pair = namedtuple("Pair", ["low", "high"])


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are made at the second run."""
    monkeypatch.setattr(quick, "RUNS_IN_PYTHON", 2)


def entered(call: Callable[[], Any]) -> tuple[Any, int]:
    """What a call gives, and whether machine code gave it."""
    assert MADE is not None
    before = MADE.state.entered
    result = call()
    return result, MADE.state.entered - before


def warm(function: Any, *args: Any, **kwargs: Any) -> Compiled:
    """A compiled function that has a record for these arguments."""
    compiled: Compiled = graphc.compile(function)
    for _ in range(2):
        compiled(*args, **kwargs)
    assert entered(lambda: compiled(*args, **kwargs))[1] == 1
    return compiled


def add(a: Any, b: Any) -> Any:
    return a + b


def same(got: Any, wanted: Any) -> None:
    assert got.dtype is wanted.dtype
    assert got.shape == wanted.shape
    assert got.numpy().tobytes() == wanted.numpy().tobytes()


def test_results_are_those_of_python() -> None:
    a, b = graphc.randn(5, 7), graphc.randn(5, 7)
    compiled = warm(add, a, b)
    for _ in range(5):
        x, y = graphc.randn(5, 7), graphc.randn(5, 7)
        got, count = entered(lambda x=x, y=y: compiled(x, y))
        assert count == 1
        same(got, x + y)
        assert (type(got), got.requires_grad, got.grad_fn, got._base, got._chain) == (graphc.Tensor, False, None, None, ())
    x = graphc.randn(5, 7)
    same(compiled(x, x), x + x)


@pytest.mark.parametrize(
    "change",
    [
        lambda a, b: (a.double(), b.double()),
        lambda a, b: (a[:3], b[:3]),
        lambda a, b: (a.T, b.T),
        lambda a, b: (a[:, ::2], b[:, ::2]),
        lambda a, b: (a.clone().requires_grad_(), b),
        lambda a, b: (nn.Parameter(a), b),
        lambda a, b: (a, 3.0),
        lambda a, b: (a.int(), b.int()),
    ],
)
def test_other_arguments_are_noticed(change: Callable[..., Any]) -> None:
    a, b = graphc.randn(6, 6), graphc.randn(6, 6)
    compiled = warm(add, a, b)
    x, y = change(a, b)
    got = compiled(x, y)
    wanted = x + y
    same(got.detach(), wanted.detach())
    assert got.requires_grad is wanted.requires_grad
    assert entered(lambda: compiled(a, b))[1] == 1


def test_views_are_served() -> None:
    whole = graphc.randn(4, 6, 6)
    compiled = warm(add, graphc.randn(6, 6), graphc.randn(6, 6))
    got, count = entered(lambda: compiled(whole[1], whole[2]))
    assert count == 1
    same(got, whole[1] + whole[2])


@pytest.mark.parametrize("dynamic", [False, None])
def test_several_shapes_have_records(dynamic: bool | None) -> None:
    compiled = graphc.compile(add, dynamic=dynamic)
    tensors = [(graphc.randn(n), graphc.randn(n)) for n in (3, 5, 9)]
    for _ in range(2):
        for a, b in tensors:
            compiled(a, b)
    for a, b in tensors:
        got, count = entered(lambda a=a, b=b: compiled(a, b))
        assert count == 1
        same(got, a + b)
        assert dynamic is None or f"[{a.shape[0]}]" in compiled.explain(kernels=False)


def test_modes_are_noticed() -> None:
    a, b = graphc.randn(4).requires_grad_(), graphc.randn(4)
    with graphc.no_grad():
        compiled = warm(add, a, b)
    assert compiled(a, b).requires_grad
    with graphc.no_grad():
        got, count = entered(lambda: compiled(a, b))
        assert count == 1 and not got.requires_grad
        with graphc.autocast("cpu"):
            assert entered(lambda: compiled(a, b))[1] == 0
    number = warm(lambda x: x + graphc.tensor(1.5), graphc.ones(3, dtype=graphc.int32))
    graphc.set_default_dtype(graphc.float64)
    try:
        assert number(graphc.ones(3, dtype=graphc.int32)).dtype is graphc.float64
    finally:
        graphc.set_default_dtype(graphc.float32)
    assert number(graphc.ones(3, dtype=graphc.int32)).dtype is graphc.float32


def test_a_call_inside_a_trace_is_traced() -> None:
    a, b = graphc.randn(4), graphc.randn(4)
    inner = warm(add, a, b)
    outer = graphc.compile(lambda x, y: inner(x, y) * 2)
    same(outer(a, b), (a + b) * 2)
    assert entered(lambda: graphc.func.vmap(inner)(a, b))[1] == 0


def test_values_that_the_code_names_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    factor = 3.0

    def scaled(x: Any) -> Any:
        return x * SCALE * factor

    x = graphc.randn(4)
    compiled = warm(scaled, x)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 5.0)
    same(compiled(x), x * 5.0 * 3.0)
    factor = 7.0
    same(compiled(x), x * 5.0 * 7.0)


def test_modules_and_their_changes() -> None:
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(30)]).eval()
    x = graphc.randn(2, 4)
    with graphc.no_grad():
        compiled = warm(model, x)
        model[3].weight.mul_(2.0)
        same(compiled(x), model(x))
        model[4].weight.data = graphc.randn(4, 4)
        same(compiled(x), model(x))
        model[5] = nn.Linear(4, 4)
        same(compiled(x), model(x))
        model.load_state_dict({k: v * 0.5 for k, v in model.state_dict().items()})
        for _ in range(12):
            same(compiled(x), model(x))
        assert entered(lambda: compiled(x))[1] == 1
        model[6].weight.requires_grad_(False)
        same(compiled(x), model(x))
    assert compiled(x).requires_grad


def test_structures_keywords_and_constants() -> None:
    def many(pair: Any, *, scale: Any = None, mode: str = "sum") -> Any:
        a, (b, c) = pair
        s = a + b * scale
        return {"sum": s, "all": [s - c, (b * c, 3)]}, Pair(a - b, None), mode

    a, b, c, s = (graphc.randn(3) for _ in range(4))
    compiled = warm(many, (a, [b, c]), scale=s, mode="sum")
    for got, wanted in [(compiled((a, [b, c]), scale=s, mode="sum"), many((a, [b, c]), scale=s, mode="sum"))]:
        same(got[0]["sum"], wanted[0]["sum"])
        same(got[0]["all"][0], wanted[0]["all"][0])
        same(got[0]["all"][1][0], wanted[0]["all"][1][0])
        same(got[1].low, wanted[1].low)
        assert (got[0]["all"][1][1], got[1].high, got[2], type(got[1])) == (3, None, "sum", Pair)
        assert list(got[0]) == ["sum", "all"]
    for again in (lambda: compiled((a, [b, c]), mode="sum", scale=s), lambda: compiled((a, [b, c]), scale=s, mode="max")):
        assert again()[0]["sum"].numpy().tobytes() == (a + b * s).numpy().tobytes()
    assert compiled((a, [b, c]), scale=s, mode="max")[2] == "max"
    with pytest.raises(TypeError):
        compiled((a, [b, c]), wrong=s)


def test_results_that_are_held_are_not_written_again() -> None:
    for shape in ((8,), (64, 64), (700, 900)):
        a, b = graphc.randn(*shape), graphc.zeros(*shape)
        compiled = warm(add, a, b)
        held = []
        for i in range(10):
            y = compiled(a, graphc.full(shape, float(i)))
            held.append((y if i % 3 else y[0] if i % 2 else y.numpy()[1:], i))
        for y, i in held:
            wanted = (a + float(i)).numpy()
            found = y.numpy() if isinstance(y, graphc.Tensor) else y
            np.testing.assert_array_equal(found, wanted if i % 3 else wanted[0] if i % 2 else wanted[1:])
        addresses = {compiled(a, b).data_ptr() for _ in range(20)}
        assert len(addresses) <= 2


def test_what_was_done_to_a_result_does_not_come_back() -> None:
    a, b = graphc.randn(64, 64), graphc.randn(64, 64)
    compiled = warm(add, a, b)
    y = compiled(a, b)
    y.note = "mine"
    y.requires_grad_()
    y.grad = graphc.ones(64, 64)
    y.detach().resize_(2)
    del y
    again = compiled(a, b)
    assert not hasattr(again, "note")
    assert (again.requires_grad, again.grad) == (False, None)
    same(again, a + b)


def test_failed_checks_raise_and_the_next_call_works() -> None:
    table = graphc.randn(5, 3)
    compiled = warm(lambda i: table[i] * 2, graphc.tensor([1, 2]))
    for _ in range(3):
        with pytest.raises(IndexError):
            compiled(graphc.tensor([1, 7]))
        got, count = entered(lambda: compiled(graphc.tensor([4, 0])))
        assert count == 1
        same(got, table[graphc.tensor([4, 0])] * 2)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_training_steps(kind: str) -> None:
    def trained(compile_it: bool) -> tuple[list[Any], int]:
        graphc.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
        options = graphc.optim.Adam(model.parameters(), 0.1) if kind == "adam" else graphc.optim.SGD(model.parameters(), 0.1, 0.9)
        schedule = graphc.optim.lr_scheduler.StepLR(options, 5, 0.5)

        def step(x: Any, y: Any) -> Any:
            options.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            options.step()
            schedule.step()
            return loss

        run = graphc.compile(step) if compile_it else step
        x, y = graphc.randn(16, 6), graphc.randint(0, 3, (16,))
        losses, count = [], 0
        for i in range(16):
            loss, served = entered(lambda: run(x, y))
            count += served
            losses.append(loss.item())
            if i == 8:
                options.param_groups[0]["lr"] = 0.03
            if i == 11:
                model[0].weight.data.mul_(0.5)
        return [*losses, *(p.numpy(force=True).tobytes() for p in model.parameters()),
                *(p.grad.numpy().tobytes() for p in model.parameters()), schedule.last_epoch], count  # fmt: skip

    eager, _ = trained(False)
    compiled, count = trained(True)
    assert compiled == eager
    assert count >= 8


def test_an_argument_that_shares_memory_with_what_is_written() -> None:
    total = graphc.zeros(4)

    def accumulate(x: Any) -> Any:
        total.add_(x)
        return total * 2

    compiled = warm(accumulate, graphc.ones(4))
    before = total.clone()
    version = total._version
    same(compiled(graphc.ones(4)), (before + 1) * 2)
    assert total._version == version + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompileWarning)
        now = total.clone()
        same(compiled(total), (now + now) * 2)


def test_exceptions_of_what_a_call_asks_for() -> None:
    rate: dict[str, Any] = {"calls": 0}
    model = nn.Linear(3, 3)
    options = graphc.optim.SGD(model.parameters(), 0.1)

    class Failing(graphc.optim.lr_scheduler.LambdaLR):
        def step(self, *args: Any) -> None:
            rate["calls"] += 1
            if rate["calls"] > 7:  # the first is the schedule's own
                raise ValueError("no more")
            super().step(*args)

    schedule = Failing(options, lambda epoch: 0.9**epoch)

    def step(x: Any) -> Any:
        options.zero_grad()
        loss = model(x).sum()
        loss.backward()
        options.step()
        schedule.step()
        return loss

    compiled = graphc.compile(step)
    for _ in range(6):
        compiled(graphc.ones(2, 3))
    with pytest.raises(ValueError, match="no more"):
        compiled(graphc.ones(2, 3))


def test_threads() -> None:
    def chain(a: Any) -> Any:
        return graphc.softmax(a @ a, -1).sum(0)

    x = graphc.randn(160, 160)
    wanted = chain(x).numpy().tobytes()
    compiled = warm(chain, x)
    wrong: list[int] = []

    def work(grad: bool) -> None:
        for i in range(60):
            with graphc.set_grad_enabled(grad):
                if compiled(x).numpy().tobytes() != wanted:
                    wrong.append(i)

    workers = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    for count in (1, 2, 3):
        before = graphc.get_num_threads()
        graphc.set_num_threads(count)
        assert compiled(x).numpy().tobytes() == wanted
        graphc.set_num_threads(before)


def test_methods_and_wrong_numbers_of_arguments() -> None:
    class Scaler:
        def __init__(self, by: float) -> None:
            self.by = by

        @graphc.compile
        def scaled(self, x: Any) -> Any:
            return x * self.by

    x = graphc.randn(3)
    one, other = Scaler(2.0), Scaler(3.0)
    for _ in range(4):
        same(one.scaled(x), x * 2.0)
        same(other.scaled(x), x * 3.0)
    compiled = warm(add, x, x)
    for wrong in ((), (x,), (x, x, x)):
        with pytest.raises(TypeError):
            compiled(*wrong)
    with pytest.raises(TypeError):
        Compiled.__call__(3, x)  # type: ignore[arg-type]


def test_reference_counts_and_memory() -> None:
    def many(a: Any, b: list[Any]) -> Any:
        return {"x": a + b[0], "y": [a * 2.0]}

    a, b = graphc.randn(64, 64), graphc.randn(64, 64)
    compiled = warm(many, a, [b])
    table = graphc.randn(3, 2)
    failing = warm(lambda i: table[i], graphc.tensor([0, 1]))
    objects = (a, b, a._array, b._array, None, True, compiled)

    def count() -> list[int]:
        gc.collect()
        return [sys.getrefcount(x) for x in objects]

    def run(turns: int) -> None:
        for i in range(turns):
            compiled(a, [b])
            if i % 100 == 0:
                with pytest.raises(IndexError):
                    failing(graphc.tensor([9, 9]))

    run(200)
    before, blocks = count(), sys.getallocatedblocks()
    run(10_000)
    after = count()
    assert all(abs(x - y) <= 20 for x, y in zip(before, after, strict=True)), (before, after)
    assert sys.getallocatedblocks() - blocks < 2000


def test_steady_calls_fault_no_pages() -> None:
    resource = pytest.importorskip("resource")
    x = graphc.randn(1200, 1000)

    def chain(x: Any) -> Any:
        return graphc.softmax(x @ x[:1000], -1) + x, x.sum(0)

    compiled = warm(chain, x)
    for call in (compiled, chain):
        for _ in range(30):
            call(x)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            call(x)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before <= 20  # of some 12,000 that new memory would cost


def test_a_dropped_function_is_freed() -> None:
    model = nn.Linear(3, 3)
    weight = model.weight
    before = sys.getrefcount(weight)
    with graphc.no_grad():
        compiled = warm(model, graphc.randn(2, 3))
    assert sys.getrefcount(weight) > before
    del compiled
    gc.collect()
    assert sys.getrefcount(weight) == before
