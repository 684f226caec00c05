"""Calls that machine code serves give what Python gives: the same bits, objects, tape and errors; and nothing leaks."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.eager.tape import Node
from graphc.eager.tensor import Tensor
from graphc.ir.op import Fill, Op
from graphc.native import sites
from op_checks import filled, fills, flat, mapped

assert graphc.tensor  # loads what there is to replace
sites.install()
INSTALLED = sites._installed
pytestmark = pytest.mark.skipif(not INSTALLED, reason="this interpreter is not one that machine code can serve")


@pytest.fixture(autouse=True)
def eagerly_learned() -> Iterator[None]:
    """Recipes are made at a call's second time."""
    state = INSTALLED[0].state
    before, state.threshold = state.threshold, 1
    yield
    state.threshold = before


def served(run: Any) -> tuple[Any, int]:
    """What a call gives, and whether machine code gave it."""
    state = INSTALLED[0].state
    before = state.served
    result = run()
    return result, state.served - before


def shown(x: Any) -> Any:
    """All that can be seen of a tensor but its identity."""
    if not isinstance(x, Tensor):
        return x
    array = x._array
    node = x._grad_fn
    history = None
    if node is not None:
        history = (
            node.name(), repr(node.attrs), node.metas, node.in_types, [e is not None for e in node.edges],
            [s is not None and (s[1], s[0]._array.tobytes()) for s in node.saved],
            [s is not None and (s[1], s[0]._array.tobytes()) for s in node.saved_outputs], node.hooks, node.retained, node.extras,
        )  # fmt: skip
    return (
        type(x), x.dtype, array.shape, array.strides, array.tobytes(), array.flags.num & 0x700, x._requires_grad, x._index,
        [(op.name, repr(attrs)) for op, attrs in x._chain], x._base is None, x._epoch, x._storage.version, x._hooks, x._retained,
        history,
    )  # fmt: skip


def made(value: Any, seed: int, grad: bool) -> Any:
    """A sample's argument with tensors in place of `Fill`s."""
    rng = np.random.default_rng(seed)

    def change(fill: Fill) -> Tensor:
        x = graphc.tensor(filled(fill, graphc.float32, rng))
        return x.requires_grad_() if grad and fill.grad and x.dtype is graphc.float32 else x

    return mapped(value, change)


CASES = [(name, i) for name, op in list(Op.table.items()) for i, _ in enumerate(op.samples)]


@pytest.mark.parametrize("name", list(dict.fromkeys(name for name, _ in CASES)))
def test_operators_as_python(name: str) -> None:
    """Every sample of an operator, with and without gradients: machine code's results are Python's."""
    op = Op.table[name]
    if graphc.float32 not in op.dtypes:
        return
    from graphc.eager.methods import public_function

    function = public_function(op)
    native = INSTALLED[0].site(function, name)
    for grad in (False, True):
        for sample in op.samples:
            if not any(True for _ in fills((sample.args, sample.kwargs))):
                continue
            for seed in range(4):
                args, kwargs = made(sample.args, seed, grad), made(sample.kwargs, seed, grad)
                try:
                    wanted = function(*args, **kwargs)
                except Exception as error:
                    with pytest.raises(type(error)):
                        native(*args, **kwargs)
                    continue
                found = native(*args, **kwargs)
                assert type(found) is type(wanted)
                assert [shown(y) for y in flat(found)] == [shown(y) for y in flat(wanted)], (name, sample, seed)


def test_most_calls_are_served() -> None:
    x = graphc.tensor(np.ones((4, 4), np.float32))
    for run in (lambda: x + x, lambda: x.exp(), lambda: x @ x, lambda: x[0], lambda: x.t(), lambda: x.sum(), lambda: x * 2.0):
        for _ in range(3):
            _, count = served(run)
        assert count == 1


def test_one_tensor_twice_is_not_two() -> None:
    """A call learned with one tensor in both places is not one for two tensors."""
    x, y = graphc.tensor([1.0, 2.0]), graphc.tensor([3.0, 5.0])
    for _ in range(3):
        assert (x - x).tolist() == [0.0, 0.0]
    for _ in range(3):
        assert (x - y).tolist() == [-2.0, -3.0]


def test_modes_are_noticed() -> None:
    x = graphc.tensor([1.0, 2.0], requires_grad=True)
    for _ in range(3):
        assert (x * x).requires_grad
    with graphc.no_grad():
        for _ in range(3):
            assert not (x * x).requires_grad
    assert (x * x).requires_grad
    assert graphc.compile(lambda a: a * a)(x).requires_grad


def test_default_dtype_is_noticed() -> None:
    x = graphc.tensor([1, 2])
    for _ in range(3):
        assert (x / 2).dtype is graphc.float32
    graphc.set_default_dtype(graphc.float64)
    try:
        assert (x / 2).dtype is graphc.float64
    finally:
        graphc.set_default_dtype(graphc.float32)


def test_subclasses_and_numbers_that_are_not_plain_go_to_python() -> None:
    class Mine(Tensor):
        pass

    x = graphc.tensor([1.0, 2.0])
    mine = x.as_subclass(Mine)
    for _ in range(3):
        assert served(lambda: mine + x)[1] == 0
        assert served(lambda: x + np.float64(2))[1] == 0
    assert (x + 2**70).tolist() == [2.0**70, 2.0**70]


def test_failed_checks_raise_as_before() -> None:
    x, good, bad = graphc.ones(3, 2), graphc.tensor([0, 2]), graphc.tensor([0, 3])
    for _ in range(3):
        x.index_select(0, good)
    with pytest.raises(IndexError, match="index_select"):
        x.index_select(0, bad)
    assert x.index_select(0, good).shape == (2, 2)


def test_errors_while_learning_are_the_usual_ones() -> None:
    x, wrong = graphc.ones(3, 2), graphc.tensor([0, 3])
    messages = set()
    for _ in range(4):
        with pytest.raises(IndexError) as raised:
            x[wrong]
        messages.add(str(raised.value))
    assert len(messages) == 1


def test_what_reads_elements_is_never_replayed() -> None:
    """A call whose shape of result depends on elements stays in Python."""
    mask, x = graphc.tensor([True, False]), graphc.tensor([1.0, 2.0])
    for _ in range(3):
        assert x[mask].tolist() == [1.0]
    assert x[graphc.tensor([True, True])].tolist() == [1.0, 2.0]


def test_in_place_operators_write_and_count() -> None:
    x, y = graphc.zeros(4), graphc.ones(4)
    view = x[1:3]
    for k in range(1, 6):
        assert x.add_(y) is x
        assert x._version == k
        assert view.tolist() == [float(k)] * 2
    for _ in range(4):
        x[:2].add_(x[1:3])
    again = np.full(4, 5.0)
    for _ in range(4):
        again[:2] += again[1:3].copy()
    assert x.tolist() == again.tolist()


def test_backward_through_served_calls() -> None:
    x = graphc.tensor([1.0, 2.0, 3.0], requires_grad=True)
    for _ in range(5):
        x.grad = None
        y = (x * x).exp().sum()
        y.backward()
        np.testing.assert_allclose(x.grad.numpy(), 2 * x.detach().numpy() * np.exp(x.detach().numpy() ** 2), rtol=1e-5)
    z = x * x
    x.detach().add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@pytest.mark.parametrize("size", [1, 7, 32, 33, 70, 300])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_rows_in_order(size: int, dtype: str) -> None:
    """Places are those of a stable sort, with NaN greatest; the first of equal ones wins."""
    rng = np.random.default_rng(size)
    for seed in range(3):
        x = rng.integers(-20, 20, (40 if size > 40 else 3, size)).astype(dtype)  # many rows: on several threads
        if dtype == "float32":
            x = np.where(rng.integers(0, 9, x.shape) == 0, np.float32(np.nan), x * np.float32(0.5))
            x = np.where(rng.integers(0, 9, x.shape) == 0, np.float32(-0.0), x).astype(np.float32)
        t = graphc.tensor(x)
        up = np.argsort(x, axis=-1, kind="stable")
        down = size - 1 - np.argsort(x[:, ::-1], axis=-1, kind="stable")[:, ::-1]
        for wanted, descending in ((up, False), (down, True)):
            found = [t.sort(dim=1, descending=descending).indices.numpy() for _ in range(3)]
            picked = [t.topk(min(5, size), dim=1, largest=descending).indices.numpy() for _ in range(3)]
            assert all(np.array_equal(f, wanted) for f in found), (seed, descending)
            assert all(np.array_equal(p, wanted[:, :5]) for p in picked), (seed, descending)


def test_rows_of_any_number() -> None:
    """``x[i]``: one recipe for every number, with the view that Python makes; out of range it raises."""
    python = next(f for f in INSTALLED[0].functions if f.__name__ == "__getitem__")
    whole = graphc.tensor(np.arange(60, dtype=np.float32).reshape(5, 4, 3))
    for x in (whole, whole[1:4], whole[0], whole[0, 0], whole.permute(1, 0, 2), whole.detach().requires_grad_()):
        _ = x[0], x[0]
        before = INSTALLED[0].state.served
        for i in (*range(len(x)), *range(-len(x), 0)):
            assert shown(x[i]) == shown(python(x, i))
        assert x.requires_grad or INSTALLED[0].state.served == before + 2 * len(x)
        for i in (len(x), -len(x) - 1, 2**70):
            with pytest.raises((IndexError, OverflowError, RuntimeError)):
                x[i]
    whole[2].zero_()
    whole[-1][1].add_(100.0)
    assert float(whole.sum()) == float(sum(range(60)) - sum(range(24, 36)) + 300)
    assert whole._version == 2
    assert [float(row.sum()) for row in whole][2] == 0.0


def test_operands_read_transposed() -> None:
    x = graphc.tensor(np.arange(40 * 50, dtype=np.float32).reshape(40, 50), requires_grad=True)
    y = graphc.tensor(np.ones((50, 40), np.float32))
    for _ in range(4):
        assert np.array_equal(x.t().contiguous().detach().numpy(), x.detach().numpy().T)
        z = x.t() * y
        assert np.array_equal(z.detach().numpy(), x.detach().numpy().T)
        x.grad = None
        z.sum().backward()
        assert x.grad.shape == (40, 50) and bool((x.grad == 1).all())


def test_numbers_in_a_key_are_told_apart() -> None:
    x = graphc.tensor([1.0, 2.0, 3.0])
    for number in (2, 2.0, True, -0.0, 0.0, 3):
        for _ in range(3):
            assert repr((x * number).tolist()) == repr([v * number for v in (1.0, 2.0, 3.0)])
            assert x[int(number) % 3].item() == 1.0 + int(number) % 3


def test_functions_are_pickled_by_name() -> None:
    relu = graphc.nn.functional.relu
    for function in (relu, graphc.exp, graphc.cat):
        assert pickle.loads(pickle.dumps(function)) is function
        assert copy.deepcopy(function) is function
    assert "relu" in (relu.__doc__ or "") and relu.__name__ == "relu"


def test_threads_have_modes_of_their_own() -> None:
    x = graphc.tensor([1.0, 2.0], requires_grad=True)
    wrong: list[bool] = []

    def work(enabled: bool) -> None:
        with graphc.set_grad_enabled(enabled):
            for _ in range(3000):
                if (x * x).requires_grad is not enabled:
                    wrong.append(enabled)

    workers = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_long_kernels_in_several_threads() -> None:
    x = graphc.rand(200, 300)
    wanted = x.softmax(-1).sum(0).numpy()
    wrong: list[int] = []

    def work() -> None:
        for i in range(60):
            if not np.array_equal(x.softmax(-1).sum(0).numpy(), wanted):
                wrong.append(i)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def _step(x: Any, weight: Any) -> Any:
    y = ((x @ weight).relu() * 2.0 + x).softmax(-1)
    part = y[0, 1:3].view(-1, 1).t()
    return part.sum() + y.max(dim=1).values.sum()


LEAK = """
import gc, resource, sys
import numpy as np
import graphc
sys.path[:0] = {path!r}
from test_native_calls import _step
x, weight = graphc.rand(4, 4), graphc.rand(4, 4).requires_grad_()
def calls(count):
    for _ in range(count):
        weight.grad = None
        _step(x, weight).backward()
    gc.collect()
    return sys.getallocatedblocks(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
calls(300)
blocks, peak = calls(200)
more_blocks, more_peak = calls({count})
assert more_blocks - blocks < 100, (blocks, more_blocks)
assert more_peak - peak < 4096, (peak, more_peak)
"""


def _leaks(count: int) -> None:
    code = LEAK.format(path=sys.path, count=count)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=280)


def test_nothing_leaks() -> None:
    """Thousands of small operators with gradients: no object, no memory stays behind."""
    _leaks(1000)


@pytest.mark.slow
def test_a_million_operators_leak_nothing() -> None:
    _leaks(30_000)


def test_reference_counts() -> None:
    """Arguments, constants and types are referred to as often after many calls as before."""
    x, y = graphc.rand(3, 3).requires_grad_(), graphc.rand(3, 3)
    watched: list[Any] = [x, y, x._array, y._array, x._storage, graphc.float32, np.dtype(np.float32)]
    watched += [Node, type(x._storage), np.ndarray]
    watched += [None, True, False, 0, 1, ()]
    for _ in range(5):
        _step(y, x), x.t(), y[0], x + y
    gc.collect()
    before = [sys.getrefcount(w) for w in watched]
    for _ in range(500):
        _step(y, x), x.t(), y[0], x + y
        y.add_(1.0)
    gc.collect()
    after = [sys.getrefcount(w) for w in watched]
    assert all(abs(a - b) < 60 for a, b in zip(after, before, strict=True)), list(zip(before, after, strict=True))


def test_the_machine_code_is_optional() -> None:
    code = "import graphc\nfor _ in range(600): graphc.ones(2) + 1\nfrom graphc.native import sites\nassert not sites._installed"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "GRAPHC_NATIVE_CALLS": "0"})


def test_unknown_layouts_switch_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites.layout, "_is_supported", lambda: False)
    assert sites.layout.measured() is None
