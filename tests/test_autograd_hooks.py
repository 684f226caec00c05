"""Hooks on tensors, nodes, saved tensors and modules, anomaly mode, and what backward leaves behind."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import pytest

import graphc
from graphc import nn
from graphc.autograd.graph import (
    disable_saved_tensors_hooks,
    get_gradient_edge,
    register_multi_grad_hook,
    save_on_cpu,
    saved_tensors_hooks,
)
from graphc.utils.hooks import RemovableHandle


def leaf(*data: float) -> Any:
    return graphc.tensor(list(data), requires_grad=True)


# ---- tensors and nodes -----------------------------------------------------------------------------------------------


def test_the_order_of_hooks() -> None:
    seen: list[Any] = []
    x = leaf(1.0, 1.0)
    y = x * 3
    y.retain_grad()
    y.register_hook(lambda g: seen.append("tensor") or g * 2)
    y.register_hook(lambda g: seen.append(g.tolist()))
    y.grad_fn.register_prehook(lambda given: seen.append(("before", given[0].tolist())))
    y.grad_fn.register_hook(lambda found, given: seen.append(("after", found[0].tolist(), found[1])))
    x.register_hook(lambda g: seen.append(("leaf", g.tolist())))
    x.register_post_accumulate_grad_hook(lambda p: seen.append(("added", p.grad.tolist())))
    y.sum().backward()
    assert seen == ["tensor", [2, 2], ("before", [2, 2]), ("after", [6, 6], None), ("leaf", [6, 6]), ("added", [6, 6])]
    assert y.grad.tolist() == [2, 2]  # after the hooks, wherever retain_grad was called


def test_hooks_replace_gradients_and_are_removed() -> None:
    x = leaf(1.0)
    handle = x.register_hook(lambda g: g * 10)
    assert isinstance(handle, RemovableHandle)
    y = x * 2
    y.grad_fn.register_prehook(lambda given: (given[0] * 3,))
    with y.grad_fn.register_hook(lambda found, given: (found[0] + 1, None)):
        (g,) = graphc.autograd.grad(y, x, retain_graph=True)
        assert g.item() == 70  # a leaf's hooks run for autograd.grad too
    handle.remove()
    handle.remove()
    assert graphc.autograd.grad(y, x)[0].item() == 6


def test_wrong_hooks() -> None:
    x = leaf(1.0)
    x.register_hook(lambda g: graphc.ones(3))
    with pytest.raises(RuntimeError, match="has changed the type or size of value"):
        (x * 2).backward()
    y = leaf(1.0)
    y.register_hook(lambda g: 3)
    with pytest.raises(TypeError, match="expected Variable, but hook '<lambda>' returned 'int'"):
        (y * 2).backward()
    with pytest.raises(RuntimeError, match="post accumulate grad hooks cannot be registered on non-leaf tensors"):
        (x * 2).register_post_accumulate_grad_hook(print)
    with pytest.raises(RuntimeError, match="cannot register a hook on a tensor that doesn't require gradient"):
        graphc.ones(1).register_hook(print)


def test_nodes() -> None:
    x = leaf(1.0)
    node = (x.exp() * 2).grad_fn
    assert node.name() == "MulBackward0" and node.next_functions[1] == (None, 0)
    inner = node.next_functions[0][0]
    assert inner.name() == "ExpBackward0" and inner.next_functions[0][0].variable is x
    assert inner.next_functions[0][0] == x.exp().grad_fn.next_functions[0][0]
    node.metadata["note"] = 1
    assert node.metadata == {"note": 1} and isinstance(node, graphc.autograd.graph.Node)
    assert get_gradient_edge(x * 2).node.name() == "MulBackward0" and get_gradient_edge(x).node.variable is x


def test_a_hook_on_several_gradients() -> None:
    a, b = leaf(1.0), leaf(2.0)
    seen: list[Any] = []
    register_multi_grad_hook((a, b), lambda gradients: seen.append([g.item() for g in gradients]))
    handle = register_multi_grad_hook((a, b), lambda g: seen.append(g.item()), mode="any")
    (a * b).backward()
    assert [2.0, 1.0] in seen and len(seen) == 2
    handle.remove()
    (a * b).backward()
    assert len(seen) == 3


# ---- saved tensors ---------------------------------------------------------------------------------------------------


def test_saved_tensors_go_through_hooks() -> None:
    packed: list[Any] = []

    def pack(x: Any) -> Any:
        packed.append(x)
        return x.numpy().tolist()

    x = graphc.tensor([1.0, 2.0], dtype=graphc.float64, requires_grad=True)
    with saved_tensors_hooks(pack, lambda data: graphc.tensor(data, dtype=graphc.float64)):
        y = (x * x).exp().sum()
    assert len(packed) == 3 and not any(p.requires_grad for p in packed)  # x twice, and exp's result
    (g,) = graphc.autograd.grad(y, x, create_graph=True)
    (h,) = graphc.autograd.grad(g.sum(), x)
    e = (x * x).exp().detach()
    assert graphc.allclose(g, 2 * x * e) and graphc.allclose(h, (2 + 4 * x * x) * e)
    with save_on_cpu(pin_memory=True):
        assert graphc.autograd.grad((x * x).sum(), x)[0].tolist() == [2, 4]
    with disable_saved_tensors_hooks("not here"), pytest.raises(RuntimeError, match="not here"):
        with save_on_cpu():
            pass


# ---- anomaly mode ----------------------------------------------------------------------------------------------------


def test_anomaly_mode_names_the_forward_line() -> None:
    x = leaf(0.0)
    with graphc.autograd.set_detect_anomaly(True):
        y = x.sqrt()
        z = y * 0
        failing = pytest.raises(RuntimeError, match=r"'SqrtBackward0' returned nan values in its 0th output.*hooks.py:\d+")
        with failing, pytest.warns(UserWarning, match=r"(?s)Error detected in SqrtBackward0.*y = x.sqrt\(\)"):
            z.backward()
    assert not graphc.autograd.is_anomaly_enabled()
    with graphc.autograd.set_detect_anomaly(True, check_nan=False):
        (leaf(0.0).sqrt() * 0).backward()
    with pytest.warns(UserWarning, match="Anomaly Detection has been enabled"):
        mode = graphc.autograd.detect_anomaly()
    with mode:
        assert graphc.autograd.is_anomaly_enabled() and graphc.autograd.is_anomaly_check_nan_enabled()


# ---- modules ---------------------------------------------------------------------------------------------------------


def test_forward_hooks_of_modules() -> None:
    layer = nn.Linear(2, 2)
    seen: list[str] = []
    layer.register_forward_hook(lambda m, args, out: seen.append("second"))
    layer.register_forward_hook(lambda m, args, out: seen.append("first") or out * 0, prepend=True)
    layer.register_forward_hook(lambda m, args, kwargs, out: seen.append(str(sorted(kwargs))), with_kwargs=True)
    layer.register_forward_pre_hook(lambda m, args, kwargs: (args, {"input": kwargs["input"] + 1}), with_kwargs=True)
    handle = layer.register_forward_pre_hook(lambda m, args: seen.append("before"), prepend=True)
    assert layer(input=graphc.ones(1, 2)).tolist() == [[0, 0]]
    assert seen == ["before", "first", "second", "['input']"]
    handle.remove()
    layer.register_forward_hook(lambda m, args, out: seen.append("always"), always_call=True)
    seen.clear()
    with pytest.raises(RuntimeError):
        layer(input=graphc.ones(1, 3))
    assert seen == ["always"]
    layer.register_forward_pre_hook(lambda m, args, kwargs: 3, with_kwargs=True)
    with pytest.raises(RuntimeError, match="forward pre-hook must return None or a tuple of"):
        layer(input=graphc.ones(1, 2))


def test_backward_hooks_of_modules() -> None:
    layer = nn.Linear(2, 1, bias=False)
    graphc.nn.init.constant_(layer.weight, 2.0)
    seen: list[Any] = []
    layer.register_full_backward_pre_hook(lambda m, given: (given[0] * 10,))
    layer.register_full_backward_hook(lambda m, found, given: seen.append((found[0].tolist(), given[0].tolist())))
    layer.register_full_backward_hook(lambda m, found, given: (found[0] + 1,))
    x = graphc.ones(1, 2, requires_grad=True)
    layer(x).sum().backward()
    assert seen == [([[20, 20]], [[10]])] and x.grad.tolist() == [[21, 21]] and layer.weight.grad.tolist() == [[10, 10]]
    seen.clear()
    only = nn.Linear(2, 1)
    only.register_full_backward_hook(lambda m, found, given: seen.append((found, given[0].tolist())))
    only(graphc.ones(1, 2)).sum().backward()  # no argument requires grad
    assert seen == [((None,), [[1]])]


def test_hooks_of_compiled_modules() -> None:
    layer = nn.Linear(3, 3)
    layer.register_forward_hook(lambda m, args, out: out.relu() * 2)
    layer.register_full_backward_hook(lambda m, found, given: (found[0] * 3,))
    x = graphc.randn(2, 3, requires_grad=True)
    layer(x).sum().backward()
    wanted, x.grad = x.grad, None
    compiled = graphc.compile(layer)
    for _ in range(2):
        x.grad = None
        compiled(x).sum().backward()
        assert (x.grad == wanted).all()
    assert compiled.stats()["fallbacks"] == []


def test_a_hook_that_keeps_tensors_is_not_dropped_by_compile() -> None:
    layer, kept = nn.Linear(3, 3), {}
    layer.register_forward_hook(lambda m, args, out: kept.update(out=out.detach()))
    compiled = graphc.compile(layer)
    with pytest.warns(graphc.errors.CompileWarning, match="keeps a tensor that it was given"):
        compiled(graphc.ones(1, 3))
    y = compiled(graphc.ones(1, 3) * 2)
    assert (kept["out"] == y).all()


# ---- what backward leaves behind -------------------------------------------------------------------------------------


def test_very_deep_tapes() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + 1
    y.retain_grad()
    (g,) = graphc.autograd.grad(y, x, retain_graph=True)
    assert g.item() == 1
    y.backward()
    del y, g
    z = x
    for _ in range(100_000):
        z = z * 1.0  # never walked
    del z


def test_training_makes_no_cycles() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 1))
    model[0].register_full_backward_hook(lambda m, found, given: None)
    optimizer = graphc.optim.Adam(model.parameters())
    x = graphc.randn(3, 4)

    def step() -> None:
        hidden = model[0](x)
        hidden.retain_grad()
        hidden.register_hook(lambda g: g)
        hidden = hidden.relu() * 2
        hidden[0] = 0
        y = graphc.utils.checkpoint.checkpoint(model[2], hidden, use_reentrant=False)
        loss = model[3](y).square().mean()
        optimizer.zero_grad()
        loss.backward(create_graph=False)
        graphc.autograd.grad(model[3](y.detach().requires_grad_()).sum(), model[3].weight, create_graph=True)
        optimizer.step()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(5):  # quick ways of calls are made now, and keep constants
            step()
        gc.collect()
        gc.disable()
        try:
            before = sum(isinstance(o, graphc.Tensor) for o in gc.get_objects())
            for _ in range(10):
                step()
            after = sum(isinstance(o, graphc.Tensor) for o in gc.get_objects())
        finally:
            gc.enable()
    assert after - before < 10
