"""Backward: accumulation, graph lifetime, in-place operators, views, higher order, errors."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import graphc
from graphc.eager import gradients
from graphc.ir.op import Op


def leaf(*values: float) -> graphc.Tensor:
    return graphc.tensor(list(values), requires_grad=True)


# ---- the basics ------------------------------------------------------------------------------------------------------


def test_gradients_of_a_small_program() -> None:
    x, y = leaf(1.0, 2.0, 3.0), leaf(4.0, 5.0, 6.0)
    ((x * y + x) / 2).sum().backward()
    assert x.grad.tolist() == [2.5, 3, 3.5]
    assert y.grad.tolist() == [0.5, 1, 1.5]
    assert x.grad.grad_fn is None
    assert not x.grad.requires_grad


def test_broadcast_dims_are_summed() -> None:
    x, y, z = leaf(1.0, 2.0), graphc.ones(3, 1, requires_grad=True), graphc.tensor(2.0, requires_grad=True)
    (x * y * z).sum().backward()
    assert x.grad.tolist() == [6, 6]
    assert y.grad.tolist() == [[6], [6], [6]]
    assert z.grad.item() == 9
    assert z.grad.shape == ()


def test_gradients_accumulate() -> None:
    x = leaf(1.0, 2.0)
    (x * 3).sum().backward()
    first = x.grad
    (x * 4).sum().backward()
    assert x.grad is first
    assert x.grad.tolist() == [7, 7]
    x.grad = None
    (x + x + x).sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_gradients_never_share_memory() -> None:
    x, y = leaf(1.0), leaf(2.0)
    seed = graphc.ones(1)
    (x + y).backward(seed)
    x.grad.mul_(5)
    assert (x.grad.item(), y.grad.item(), seed.item()) == (5, 1, 1)
    z = leaf(1.0, 1.0)
    z.sum().backward()
    z.grad[0] = 3
    assert z.grad.tolist() == [3, 1]


def test_mixed_dtypes_give_gradients_of_each_inputs_dtype() -> None:
    x, y = leaf(1.0), graphc.ones(1, dtype=graphc.float64, requires_grad=True)
    (x * y).sum().backward()
    assert (x.grad.dtype, y.grad.dtype) == (graphc.float32, graphc.float64)


def test_integers_and_comparisons_do_not_require_grad() -> None:
    x = leaf(1.0, 2.0)
    assert not (x > 1).requires_grad
    assert not x.argmax().requires_grad
    assert not x.long().requires_grad
    assert (x > 1).is_leaf
    values, indices = x.max(0)
    assert values.requires_grad
    assert not indices.requires_grad
    values.backward()
    assert x.grad.tolist() == [0, 1]


def test_what_is_a_leaf() -> None:
    x = leaf(1.0)
    y = x * 2
    assert x.is_leaf
    assert not y.is_leaf
    assert y.grad_fn.name() == "MulBackward0"
    assert repr(y.grad_fn).startswith("<MulBackward0 object at ")
    assert y.detach().is_leaf
    assert not y.detach().requires_grad
    y.backward()
    assert y.grad is None
    z = x * 2
    z.retain_grad()
    (z * z).backward()
    assert z.retains_grad
    assert z.grad.item() == 4


def test_grad_modes() -> None:
    x = leaf(1.0)
    with graphc.no_grad():
        assert not (x * 2).requires_grad
        assert not graphc.is_grad_enabled()
        with graphc.enable_grad():
            assert (x * 2).requires_grad
    assert graphc.is_grad_enabled()

    @graphc.no_grad()
    def f() -> bool:
        return (x * 2).requires_grad

    @graphc.no_grad
    def h() -> bool:
        return (x * 2).requires_grad

    assert not f()
    assert not h()
    with graphc.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    with graphc.inference_mode():
        assert not (x * 2).requires_grad
    graphc.set_grad_enabled(False)
    assert not graphc.is_grad_enabled()
    graphc.set_grad_enabled(True)


def test_grad_modes_are_put_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), graphc.no_grad():
        raise ZeroDivisionError
    assert graphc.is_grad_enabled()


# ---- autograd.grad ---------------------------------------------------------------------------------------------------


def test_grad_touches_nothing_else() -> None:
    x, y = leaf(3.0), leaf(2.0)
    z = x * y
    gx, gz = graphc.autograd.grad(z * z, [x, z])
    assert (gx.item(), gz.item()) == (24, 12)
    assert x.grad is None
    assert y.grad is None


def test_unused_inputs_are_an_error_unless_allowed() -> None:
    x, y = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match=r"Tensor at index 0 \(f32\[1\]\) appears to not have been used in the graph"):
        graphc.autograd.grad(x * 2, y)
    assert graphc.autograd.grad(x * 2, [y, x], allow_unused=True)[0] is None
    assert graphc.autograd.grad(x * 2, y, materialize_grads=True)[0].item() == 0
    with pytest.raises(RuntimeError, match="One of the differentiated Tensors does not require grad"):
        graphc.autograd.grad(x * 2, graphc.ones(1))


def test_backward_to_chosen_inputs_only() -> None:
    x, y = leaf(1.0), leaf(2.0)
    (x * y).backward(inputs=[x])
    assert x.grad.item() == 2
    assert y.grad is None


def test_second_derivatives() -> None:
    x = leaf(2.0)
    (first,) = graphc.autograd.grad(x**3, x, create_graph=True)
    (second,) = graphc.autograd.grad(first, x, create_graph=True)
    (third,) = graphc.autograd.grad(second, x)
    assert (first.item(), second.item(), third.item()) == (12, 12, 6)
    y = leaf(0.5)
    y.exp().backward(create_graph=True)
    assert y.grad.requires_grad


# ---- lifetime of the graph -------------------------------------------------------------------------------------------


def test_backward_twice_needs_retain_graph() -> None:
    x = leaf(1.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 4
    with pytest.raises(
        RuntimeError, match=r"backward through the graph a second time .*retain_graph=True.*\(test_autograd.py:\d+\)"
    ):
        y.backward()


def test_deep_graphs_do_not_recurse() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + 1
    y.backward()
    assert x.grad.item() == 1


def test_a_graph_is_freed_with_its_result() -> None:
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0)
        y = (x.exp() * x).sigmoid()
        node = weakref.ref(y.grad_fn)
        y.backward(retain_graph=True)
        del y
        assert node() is None
    finally:
        gc.enable()


def test_only_what_gradients_need_is_saved() -> None:
    x, data = leaf(1.0, 2.0), graphc.ones(2)
    product = x * data
    assert [s is not None for s in product.grad_fn.saved] == [False, True]
    assert [s is not None for s in (x + data).grad_fn.saved] == [False, False]
    y = x.exp()
    assert [s is not None for s in y.grad_fn.saved_outputs] == [True]
    assert [s is not None for s in y.grad_fn.saved] == [False]


def test_gradients_nobody_wants_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, data = graphc.ones(3, 2, requires_grad=True), graphc.ones(4, 3)
    loss = (data @ weight).sum()
    calls: list[str] = []
    run = gradients.Program.run

    def counted(self: gradients.Program, values: list[object]) -> list[object]:
        calls.extend(op.name for op, _, _ in self.steps)
        return run(self, values)

    monkeypatch.setattr(gradients.Program, "run", counted)
    loss.backward()
    assert calls.count("matmul") == 1


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_a_gradient_is_needed_for_what_is_not_a_scalar() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(
        RuntimeError, match=r"grad can be implicitly created only for scalar outputs, not for f32\[2\] \(test_autograd.py"
    ):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match=r"Mismatch in shape: gradient f32\[3\] for output f32\[2\]"):
        (x * 2).backward(graphc.ones(3))
    (x * 2).backward(graphc.tensor([1.0, 10.0]))
    assert x.grad.tolist() == [2, 20]


def test_backward_from_nowhere() -> None:
    with pytest.raises(RuntimeError, match="does not require grad and does not have a grad_fn"):
        graphc.ones(1).backward()
    with pytest.raises(RuntimeError, match="only Tensors of floating point"):
        graphc.ones(1, dtype=graphc.int64).requires_grad_()
    with pytest.raises(RuntimeError, match=r"use detach\(\)"):
        (leaf(1.0) * 2).requires_grad_(False)


def test_assigned_gradients_are_checked() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"shape f32\[2\], got f32\[3\]"):
        x.grad = graphc.ones(3)
    with pytest.raises(TypeError, match="must be a Tensor or None"):
        x.grad = 1.0


# ---- in-place operators ----------------------------------------------------------------------------------------------


def test_a_saved_tensor_that_was_written_to_is_an_error() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    z = y * y
    y.add_(1)
    message = r"modified by an inplace operation: f32\[2\] is at version 1; expected version 0 instead"
    with pytest.raises(RuntimeError, match=message):
        z.sum().backward()


def test_a_written_tensor_that_is_not_needed_is_no_error() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    z = y + 1
    y.mul_(3)
    (z.sum() + y.sum()).backward()
    assert x.grad.tolist() == [8, 8]


def test_leaves_cannot_be_written_to() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(
        RuntimeError, match=r"add_: a leaf Variable that requires grad is being used in an in-place operation \(test_auto"
    ):
        x.add_(1)
    with pytest.raises(RuntimeError, match="a view of a leaf Variable that requires grad"):
        x[0] = 1.0
    with graphc.no_grad():
        x.add_(1)
        x[0] = 7
    assert x.tolist() == [7, 3]
    assert x.is_leaf


def test_in_place_operators_are_differentiated() -> None:
    x = leaf(1.0, 2.0)
    y = x * 1
    y.exp_()
    y.mul_(graphc.tensor([2.0, 3.0]))
    y += x
    y.sum().backward()
    assert np.allclose(x.grad.numpy(), [2 * np.e + 1, 3 * np.e**2 + 1], rtol=1e-6)


def test_writes_to_views_reach_the_base_and_other_views() -> None:
    x = leaf(1.0, 2.0, 3.0)
    y = x * 2
    first, last = y[:2], y[1:]
    last.mul_(10)
    assert y.grad_fn.name() == "CopySlices"
    (g,) = graphc.autograd.grad(first.sum(), x, retain_graph=True)
    assert g.tolist() == [2, 20, 0]
    (g,) = graphc.autograd.grad(y.sum(), x, retain_graph=True)
    assert g.tolist() == [2, 20, 20]
    (g,) = graphc.autograd.grad(last.sum(), x)
    assert g.tolist() == [0, 20, 20]


def test_writes_of_differentiable_values_into_plain_memory() -> None:
    x = leaf(1.0, 2.0)
    buffer = graphc.zeros(2, 2)
    row = buffer[1]
    row.copy_(x * 3)
    buffer[0, 0] = x[1]
    assert buffer.requires_grad
    (buffer * buffer).sum().backward()
    assert x.grad.tolist() == [18, 2 * 9 * 2 + 2 * 2]


def test_overwriting_cuts_the_history() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    y[0] = 5.0
    y.sum().backward()
    assert x.grad.tolist() == [0, 2]
    z = x * 2
    z.zero_()
    z.sum().backward()
    assert x.grad.tolist() == [0, 2]


def test_copied_tensors_keep_gradients_of_their_own() -> None:
    x = leaf(1.0)
    source = x * 2
    target = graphc.zeros(1)
    target.copy_(source)
    (g,) = graphc.autograd.grad(target * 3 + source, target)
    assert g.item() == 3


def test_detached_memory_is_guarded_by_the_version() -> None:
    x = leaf(2.0)
    y = x * 1
    z = y * y
    y.detach().fill_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


# ---- hooks -----------------------------------------------------------------------------------------------------------


def test_hooks_see_and_replace_gradients() -> None:
    x = leaf(1.0)
    y = x * 2
    seen: list[float] = []
    y.register_hook(lambda g: seen.append(g.item()))
    handle = y.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g + 1)
    (y * 3).backward(retain_graph=True)
    assert seen == [3]
    assert x.grad.item() == 61
    handle.remove()
    x.grad = None
    (y * 3).backward()
    assert x.grad.item() == 7


# ---- gradient programs -----------------------------------------------------------------------------------------------


def test_a_rule_with_a_wrong_number_of_gradients_is_found() -> None:
    op = Op.table["add"]
    types = (((2,), graphc.float32),) * 2
    broken = type("Broken", (), {"name": "broken", "gradients": staticmethod(lambda g, out, inputs, attrs: (g,))})()
    with pytest.raises(RuntimeError, match="broken: the gradient rule gives 1 gradients for 2 inputs"):
        gradients.program(broken, types, types[:1], {}, (True, True), (True,))
    assert gradients.program(op, types, types[:1], {}, (True, True), (True,)).steps == []
