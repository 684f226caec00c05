"""`autograd.Function`, as PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest

import graphc
from graphc.autograd import Function, gradcheck, gradgradcheck
from graphc.autograd.function import once_differentiable


def leaf(*data: float, dtype: Any = None) -> Any:
    return graphc.tensor(list(data), dtype=dtype, requires_grad=True)


class Product(Function):
    @staticmethod
    def forward(ctx: Any, a: Any, b: Any, scale: float = 1.0) -> Any:
        ctx.save_for_backward(a, b)
        ctx.scale = scale
        return a * b * scale

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        a, b = ctx.saved_tensors
        return g * b * ctx.scale, g * a * ctx.scale, None


class Square(Function):
    """The form with `setup_context`; its output is saved."""

    @staticmethod
    def forward(x: Any, power: int = 2) -> Any:
        return x**power, x.exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.power = inputs
        ctx.save_for_backward(x, output[1])

    @staticmethod
    def backward(ctx: Any, g: Any, h: Any) -> Any:
        x, e = ctx.saved_tensors
        return g * ctx.power * x ** (ctx.power - 1) + h * e, None


def test_gradients_and_second_gradients() -> None:
    a, b = leaf(1.0, 2.0, dtype=graphc.float64), leaf(3.0, -1.0, dtype=graphc.float64)
    assert gradcheck(lambda x, y: Product.apply(x, y, 3.0), (a, b))
    assert gradgradcheck(lambda x, y: Product.apply(x, y, 3.0), (a, b))
    assert gradcheck(Square.apply, (a,)) and gradgradcheck(Square.apply, (a, 3))


def test_what_forward_sees_and_leaves() -> None:
    seen = []

    class Look(Function):
        @staticmethod
        def forward(ctx: Any, a: Any, b: Any, text: str) -> Any:
            seen.append((graphc.is_grad_enabled(), ctx.needs_input_grad))
            return a + b, None, text, a > 0

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            seen.append([None if g is None else g.tolist() for g in gradients])
            return gradients[0], None, None

    y, nothing, text, mask = Look.apply(leaf(1.0), graphc.tensor([2.0]), "x")
    assert seen == [(False, (True, False, False))] and nothing is None and text == "x"
    assert y.grad_fn.name() == "LookBackward" and "LookBackward" in repr(y) and not mask.requires_grad
    y.sum().backward()
    assert seen[1][0] == [1.0] and seen[1][1:3] == [None, None]
    assert Product.apply(leaf(2.0), b=leaf(3.0), scale=2.0).item() == 12
    with graphc.no_grad():
        assert not Look.apply(leaf(1.0), leaf(1.0), "")[0].requires_grad


def test_non_differentiable_and_unmaterialized() -> None:
    seen = []

    class Two(Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            first, second, third = a * 2, a * 3, a * 4
            ctx.mark_non_differentiable(first)
            ctx.set_materialize_grads(False)
            return first, second, third

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            seen.append([g is None for g in gradients])
            return gradients[1] * 3

    a = leaf(1.0)
    first, second, _ = Two.apply(a)
    assert not first.requires_grad and second.requires_grad
    second.sum().backward()
    assert seen == [[True, False, True]] and a.grad.item() == 3


def test_in_place() -> None:
    class AddOne(Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            a.add_(1)
            ctx.mark_dirty(a)
            return a

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2

    x = leaf(1.0, 2.0)
    z = x * 1
    y = AddOne.apply(z)
    assert y is z and z.tolist() == [2, 3] and z.grad_fn.name() == "AddOneBackward"
    y.sum().backward()
    assert x.grad.tolist() == [2, 2]
    base = x * 1
    AddOne.apply(base[0:1])  # a view: its base's history follows
    base.sum().backward()
    assert x.grad.tolist() == [4, 3]
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad has been used in an in-place operation"):
        AddOne.apply(leaf(1.0))

    class Liar(AddOne):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            ctx.mark_dirty(a)
            return a * 2

    with pytest.raises(RuntimeError, match="marked as dirty during the forward method were not returned"):
        Liar.apply(x * 1)


def test_an_argument_returned_is_another_tensor() -> None:
    class Double(Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            return a

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2

    x = leaf(1.0)
    y = Double.apply(x)
    assert y is not x and x.grad_fn is None
    y.sum().backward()
    assert x.grad.item() == 2


@pytest.mark.parametrize(
    ("gradients", "match"),
    [
        (lambda g: g, r"function WrongBackward returned an incorrect number of gradients \(expected 2, got 1\)"),
        (lambda g: (g, 3), r"returned a gradient different than None at position 2, but the corresponding forward input was not a"),
        (lambda g: (3, None), r"expected Variable or None \(got int\)"),
        (lambda g: (g.sum(), None), r"returned an invalid gradient at index 0 - got \[\] but expected shape compatible with \[2\]"),
    ],
)
def test_wrong_gradients(gradients: Any, match: str) -> None:
    class Wrong(Function):
        @staticmethod
        def forward(ctx: Any, a: Any, n: int) -> Any:
            return a * n

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return gradients(g)

    with pytest.raises(RuntimeError, match=match):
        Wrong.apply(leaf(1.0, 2.0), 2).sum().backward()


def test_other_errors() -> None:
    class Half(Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            return a * a

    with pytest.raises(NotImplementedError, match="You must implement either the backward or vjp method"):
        Half.apply(leaf(1.0)).backward()
    with pytest.raises(NotImplementedError, match="You must implement the forward function"):
        Function.apply(leaf(1.0))
    with pytest.raises(RuntimeError, match="apply"):
        Half()(leaf(1.0))

    class Saves(Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            ctx.save_for_backward(3)
            return a

    with pytest.raises(TypeError, match="save_for_backward can only save variables, but argument 0 is of type int"):
        Saves.apply(leaf(1.0))
    x = leaf(2.0)
    y = Product.apply(x, x)
    y.backward()
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        y.backward()
    z = x * 1
    y = Product.apply(z, x)
    z.add_(1)
    with pytest.raises(RuntimeError, match=r"has been modified by an inplace operation.*version 1; expected version 0"):
        y.backward()


def test_once_differentiable() -> None:
    class Once(Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            ctx.save_for_backward(a)
            return a * a

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            (a,) = ctx.saved_tensors
            return graphc.from_numpy(2 * a.detach().numpy() * g.detach().numpy())

    x, seed = leaf(3.0), leaf(1.0)
    (g,) = graphc.autograd.grad(Once.apply(x), x, seed, create_graph=True)
    assert g.item() == 6
    with pytest.raises(RuntimeError, match="differentiate twice a function that was marked with @once_differentiable"):
        g.backward()


def test_compiled_gives_the_same_bits() -> None:
    def step(a: Any, b: Any) -> Any:
        return (Product.apply(a, b, 2.0).sin() + Square.apply(a)[0]).sum()

    a, b = graphc.randn(5, requires_grad=True), graphc.randn(5, requires_grad=True)
    step(a, b).backward()
    eager = a.grad.numpy().copy(), b.grad.numpy().copy()
    a.grad = b.grad = None
    compiled = graphc.compile(step)
    compiled(a, b).backward()
    assert compiled.stats()["fallbacks"] == []
    assert (a.grad.numpy() == eager[0]).all() and (b.grad.numpy() == eager[1]).all()


def test_a_tape_of_functions_makes_no_cycles() -> None:
    import gc
    import weakref

    gc.disable()
    try:
        y = Square.apply(leaf(1.0) * 1)[1]
        node = weakref.ref(y.grad_fn)
        del y
        assert node() is None
    finally:
        gc.enable()
