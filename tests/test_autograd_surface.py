"""Grad modes, `autograd.grad` in full, gradcheck, checkpoints, the profiler and the namespaces that belong to them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.autograd import GradcheckError, Variable, gradcheck, gradgradcheck, profiler
from graphc.utils import _pytree
from graphc.utils.checkpoint import checkpoint, checkpoint_sequential


def leaf(*data: float, dtype: Any = None) -> Any:
    return graphc.tensor(list(data), dtype=dtype, requires_grad=True)


# ---- grad modes ------------------------------------------------------------------------------------------------------


def test_modes_nest() -> None:
    enabled = graphc.is_grad_enabled
    with graphc.no_grad():
        with graphc.enable_grad():
            assert enabled()
            with graphc.set_grad_enabled(False):
                assert not enabled()
        with graphc.inference_mode():
            assert graphc.is_inference_mode_enabled() and not enabled()
            with graphc.inference_mode(False):
                assert enabled() and not graphc.is_inference_mode_enabled()
        assert not enabled()
    assert enabled() and isinstance(graphc.no_grad(), graphc.no_grad)
    graphc.set_grad_enabled(False)
    assert not enabled()
    graphc.set_grad_enabled(True)


@pytest.mark.parametrize("made", [
    graphc.no_grad, lambda: graphc.no_grad, graphc.inference_mode, lambda: graphc.inference_mode,
    lambda: graphc.set_grad_enabled(False),
])  # fmt: skip
def test_modes_decorate(made: Any) -> None:
    @made()
    def function(n: int) -> list[bool]:
        """Documented."""
        return [graphc.is_grad_enabled(), *(function(n - 1) if n else [])]

    assert function(2) == [False] * 3 and function.__doc__ == "Documented." and graphc.is_grad_enabled()

    @made()
    def generator() -> Any:
        try:
            received = yield graphc.is_grad_enabled()
            yield received, graphc.is_grad_enabled()
        except KeyError:
            yield "caught", graphc.is_grad_enabled()
        return 5

    steps = generator()
    assert next(steps) is False and graphc.is_grad_enabled()
    assert steps.send("sent") == ("sent", False)
    assert steps.throw(KeyError()) == ("caught", False) and graphc.is_grad_enabled()
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == 5
    steps = generator()
    next(steps)
    steps.close()

    @made()
    async def coroutine() -> tuple[bool, bool]:
        before = graphc.is_grad_enabled()
        await asyncio.sleep(0)
        return before, graphc.is_grad_enabled()

    async def both() -> list[Any]:
        async def other() -> bool:
            await asyncio.sleep(0)
            return graphc.is_grad_enabled()

        return await asyncio.gather(coroutine(), other())

    assert asyncio.run(both()) == [(False, False), True]


# ---- grad ------------------------------------------------------------------------------------------------------------


def test_variable() -> None:
    x = Variable(graphc.ones(2), requires_grad=True)
    assert type(x) is graphc.Tensor and x.requires_grad and isinstance(x, Variable) and not isinstance(3, Variable)
    with pytest.raises(TypeError, match="Variable data has to be a tensor"):
        Variable([1.0])


def test_batched_and_materialized_gradients() -> None:
    x, unused = leaf(1.0, 2.0, dtype=graphc.float64), leaf(1.0, dtype=graphc.float64)
    y = (x * x).exp()
    jacobian = graphc.autograd.grad(y, x, graphc.eye(2, dtype=graphc.float64), is_grads_batched=True, retain_graph=True)[0]
    assert graphc.allclose(jacobian, graphc.diag(2 * x * y).detach())
    seeds = graphc.eye(2, dtype=graphc.float64)
    (first,) = graphc.autograd.grad(y, x, seeds, is_grads_batched=True, create_graph=True)
    assert first.requires_grad
    (second,) = graphc.autograd.grad(first.sum(), x, retain_graph=True)
    assert graphc.allclose(second, ((2 + 4 * x * x) * y).detach())
    found = graphc.autograd.grad(y.sum(), [x, unused], materialize_grads=True, retain_graph=True)
    assert found[1].tolist() == [0]
    assert graphc.autograd.grad(y.sum(), [x, unused], allow_unused=True, retain_graph=True)[1] is None
    with pytest.raises(ValueError, match="Expected allow_unused to be True or not passed when materialize_grads=True"):
        graphc.autograd.grad(y.sum(), x, allow_unused=False, materialize_grads=True)
    with pytest.raises(RuntimeError, match=r"The differentiated Tensor at index 1 .* appears to not have been used in the graph"):
        graphc.autograd.grad(y.sum(), [x, unused])
    with pytest.raises(RuntimeError, match="One of the differentiated Tensors does not require grad"):
        graphc.autograd.grad((x * 2).sum(), graphc.ones(2))
    with pytest.raises(RuntimeError, match="element 1 of tensors does not require grad"):
        graphc.autograd.backward([(x * 2).sum(), graphc.ones(())])


# ---- gradcheck -------------------------------------------------------------------------------------------------------


class Wrong(graphc.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * ctx.saved_tensors[0]


def test_gradcheck() -> None:
    x, y = leaf(0.5, 2.0, dtype=graphc.float64), leaf(1.5, dtype=graphc.float64)

    def f(a: Any, b: Any) -> Any:
        return a.sin() * b, (a.prod() * b).exp(), a > 0

    assert gradcheck(f, (x, y), check_batched_grad=True, check_forward_ad=True) and gradgradcheck(f, (x, y))
    assert gradcheck(lambda a, k: a * k, (x, 3), fast_mode=True)
    with pytest.raises(GradcheckError, match="Jacobian mismatch for output 0 with respect to input 0"):
        gradcheck(Wrong.apply, x)
    assert gradcheck(Wrong.apply, x, raise_exception=False) is False
    with pytest.raises(ValueError, match="expects at least one input tensor to require gradient"):
        gradcheck(f, (x.detach(), y.detach()))
    with pytest.warns(UserWarning, match="not double precision"):
        gradcheck(lambda a: a * 2, leaf(1.0), atol=0.1, eps=1e-2)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(reentrant: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 4), nn.Tanh())
    x = graphc.randn(3, 4, requires_grad=True)

    def gradients(run: Any) -> list[Any]:
        graphc.manual_seed(3)
        x.grad = None
        model.zero_grad()
        run().square().sum().backward()
        return [x.grad, *(p.grad.clone() for p in model.parameters())]

    expected = gradients(lambda: model(x))
    runs = []

    def counted(*args: Any) -> Any:
        runs.append(1)
        return model(*args)

    for found in (
        gradients(lambda: checkpoint(counted, x, use_reentrant=reentrant)),
        gradients(lambda: checkpoint_sequential(model, 2, x, use_reentrant=reentrant)),
        gradients(lambda: checkpoint_sequential(model, 5, x, use_reentrant=reentrant)),
    ):
        assert all((a == b).all() for a, b in zip(found, expected, strict=True))
    assert len(runs) == 2
    compiled = graphc.compile(lambda v: checkpoint(model, v, use_reentrant=reentrant).square().sum())
    model.eval()
    (wanted,) = graphc.autograd.grad(model(x).square().sum(), x)
    assert reentrant or (graphc.autograd.grad(compiled(x), x)[0] == wanted).all()


def test_checkpoints_without_reentrance() -> None:
    x = leaf(1.0, 2.0, dtype=graphc.float64)

    def f(v: Any, *, k: float) -> Any:
        return {"y": (v * v).sin() * k}

    y = checkpoint(f, x, k=2.0, use_reentrant=False)["y"]
    (g,) = graphc.autograd.grad(y.sum(), x, create_graph=True)
    assert graphc.allclose(g, 4 * x * (x * x).cos())
    (h,) = graphc.autograd.grad(g.sum(), x, retain_graph=True)
    assert graphc.allclose(h, 4 * (x * x).cos() - 8 * x * x * (x * x).sin())
    assert graphc.allclose(graphc.autograd.grad(y.sum(), x)[0], g)
    with graphc.no_grad():
        assert not checkpoint(f, x, k=1.0, use_reentrant=False)["y"].requires_grad
    times = []

    def changing(v: Any) -> Any:
        times.append(1)
        return v.exp() if len(times) == 1 else v * 2

    with pytest.raises(RuntimeError, match="A different number of tensors was saved during the original forward and recomputation"):
        checkpoint(changing, x, use_reentrant=False).sum().backward()
    with pytest.raises(ValueError, match="Unexpected keyword arguments: k"):
        checkpoint(f, x, k=2.0, use_reentrant=True)
    with pytest.warns(UserWarning, match="use_reentrant parameter should be passed explicitly"):
        checkpoint(lambda v: v * 2, x)
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad=True"):
        checkpoint(lambda v: v * 2, x.detach(), use_reentrant=True)


# ---- profiler, trees -------------------------------------------------------------------------------------------------


def test_profiler() -> None:
    x = graphc.randn(4, 4, requires_grad=True)
    with profiler.profile(record_shapes=True, use_cuda=False) as one:
        with profiler.record_function("block"):
            y = (x @ x).exp()
        y.sum().backward()
    found = {e.key: e for e in one.key_averages()}
    assert found["exp"].count == 1 and found["matmul"].count == 3 and found["block"].count == 1
    assert found["block"].cpu_time_total >= found["exp"].cpu_time_total > 0
    table = one.key_averages().table(sort_by="self_cpu_time_total", row_limit=2)
    assert "# of Calls" in table and len(table.splitlines()) == 7
    (x + 1).sum()
    assert {e.key for e in one.key_averages()} == set(found)


Point = namedtuple("Point", ("x", "y"))


class Output(OrderedDict):  # type: ignore[type-arg]
    """As model outputs are in libraries: a dict with attributes."""


def test_trees() -> None:
    value = {"b": [1, (2, None)], "a": Point(3, OrderedDict(k=4)), "c": defaultdict(list, {"z": 5})}
    leaves, spec = _pytree.tree_flatten(value)
    assert leaves == [1, 2, None, 3, 4, 5]
    again = _pytree.tree_unflatten(leaves, spec)
    assert again == value and type(again["a"]) is Point and type(again["c"]) is defaultdict
    assert _pytree.tree_map(lambda a, b: (a, b), [1, {"k": 2}], [3, {"k": 4}]) == [(1, 3), {"k": (2, 4)}]
    assert _pytree.tree_map_only(int, lambda n: n + 1, [1, "a", (2,)]) == [2, "a", (3,)]
    assert _pytree.tree_structure([1, 2]) == _pytree.tree_structure([3, 4]) != _pytree.tree_structure((3, 4))
    assert isinstance(_pytree.tree_structure(1), _pytree.LeafSpec) and _pytree._get_node_type(Point(1, 2)) is namedtuple
    assert _pytree._broadcast_to_and_flatten((0, 1), _pytree.tree_structure((1, [2, 3]))) == [0, 1, 1]
    with pytest.raises(ValueError, match="`leaves` has length 1 but the spec refers to a pytree that holds 6"):
        spec.unflatten([1])


def test_registered_classes_go_through_transforms_and_compile() -> None:
    if Output not in _pytree.SUPPORTED_NODES:
        _pytree.register_pytree_node(
            Output, lambda d: (list(d.values()), list(d)), lambda v, keys: Output(zip(keys, v, strict=True))
        )
    with pytest.raises(ValueError, match="is already registered"):
        _pytree.register_pytree_node(Output, lambda d: ([], None), lambda v, keys: Output())

    def f(x: Any) -> Any:
        return Output(loss=x.sum(), rows=x * 2)

    x = graphc.randn(3, 2)
    for found in (graphc.compile(f)(x), f(x)):
        assert type(found) is Output and (found["rows"] == x * 2).all()
    mapped = graphc.vmap(f)(x)
    assert type(mapped) is Output and np.allclose(mapped["loss"].numpy(), x.sum(1).numpy())
