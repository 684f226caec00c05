"""The same programs run on torch and on graphc: what autograd, its functional forms and ``torch.func`` give, and how they fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")
LIBRARIES = (torch, graphc)


def leaf(lib: Any, *shape: int, seed: int = 0) -> Any:
    array = np.random.default_rng(seed).uniform(0.2, 1.5, shape)
    return lib.tensor(array, requires_grad=True)


def numbers(value: Any) -> Any:
    """Tensors as arrays, through containers."""
    if isinstance(value, tuple | list):
        return [numbers(v) for v in value]
    if isinstance(value, dict):
        return {k: numbers(v) for k, v in value.items()}
    return value.detach().numpy().copy() if hasattr(value, "detach") else value


def compare(a: Any, b: Any) -> None:
    if isinstance(a, list):
        assert isinstance(b, list) and len(a) == len(b), (a, b)
        for x, y in zip(a, b, strict=True):
            compare(x, y)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for k in a:
            compare(a[k], b[k])
    elif isinstance(a, np.ndarray):
        assert a.shape == b.shape and a.dtype == b.dtype, (a, b)
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-11)
    else:
        assert a == b


PROGRAMS: list[Callable[[Any], Any]] = []


def program(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    PROGRAMS.append(function)
    return function


def f(lib: Any, x: Any, y: Any) -> Any:
    return (x * y.sum()).sin().sum() + (x.exp() * 2).prod() / y.pow(2).sum()


@program
def jacobians(lib: Any) -> Any:
    x, y = leaf(lib, 3), leaf(lib, 2, seed=1)
    functional = lib.autograd.functional

    def g(a: Any, b: Any) -> Any:
        return a * b.sum(), (a.unsqueeze(1) * b).exp()

    return [
        functional.jacobian(g, (x, y)),
        functional.jacobian(g, (x, y), vectorize=True),
        functional.jacobian(lambda a: a * a, x, create_graph=True).requires_grad,
        functional.hessian(lambda a, b: f(lib, a, b), (x, y)),
        functional.hessian(lambda a: (a**3).sum(), x, vectorize=True),
        functional.jacobian(lambda a: a.exp(), x, vectorize=True, strategy="forward-mode"),
        functional.hessian(lambda a: (a**3).sum(), x, vectorize=True, outer_jacobian_strategy="forward-mode"),
    ]


@program
def products(lib: Any) -> Any:
    x, y = leaf(lib, 3), leaf(lib, 2, seed=1)
    functional = lib.autograd.functional
    v = (leaf(lib, 3, seed=2).detach(), leaf(lib, 2, seed=3).detach())

    def g(a: Any, b: Any) -> Any:
        return a * b.sum()

    def scalar(a: Any, b: Any) -> Any:
        return f(lib, a, b)

    return [
        functional.vjp(g, (x, y), v[0]),
        functional.jvp(g, (x, y), v),
        functional.vhp(scalar, (x, y), v),
        functional.hvp(scalar, (x, y), v),
        functional.vjp(scalar, (x, y)),
        functional.jvp(g, (x, y), v, create_graph=True)[1].requires_grad,
    ]


@program
def transforms(lib: Any) -> Any:
    x, y = leaf(lib, 3).detach(), leaf(lib, 2, seed=1).detach()
    func = lib.func

    def g(a: Any, b: Any) -> Any:
        return f(lib, a, b)

    rows = leaf(lib, 4, 3, seed=4).detach()
    return [
        func.grad(g)(x, y),
        func.grad(g, argnums=(0, 1))(x, y),
        func.grad_and_value(g)(x, y),
        func.vjp(g, x, y)[1](lib.ones((), dtype=lib.float64)),
        func.jvp(g, (x, y), (x, y)),
        func.jacrev(lambda a: (a.exp(), {"s": a.sum()}))(x),
        func.jacfwd(lambda a: (a.exp(), {"s": a.sum()}))(x),
        func.hessian(g, argnums=(0, 1))(x, y),
        func.vmap(func.hessian(g), in_dims=(0, None))(rows, y),
        func.jacfwd(func.jacrev(lambda a: a * a.sum()))(x),
        func.vmap(lambda a: {"a": a.softmax(0), "b": a.sort()[0]}, out_dims={"a": 1, "b": 0})(rows),
        func.vmap(func.vmap(lambda a, b: a + b, in_dims=(None, 0)), in_dims=(0, None))(x, y),
        func.linearize(g, x, y)[1](x, y),
    ]


@program
def modules(lib: Any) -> Any:
    net = lib.nn.Sequential(lib.nn.Linear(3, 4), lib.nn.Tanh(), lib.nn.Linear(4, 2)).double()
    values = np.random.default_rng(1)
    parameters = {k: lib.tensor(values.standard_normal(tuple(p.shape))) for k, p in net.named_parameters()}
    x = leaf(lib, 5, 3).detach()
    target = lib.tensor([0, 1, 1, 0, 1])

    def loss(p: Any, a: Any, t: Any) -> Any:
        return lib.nn.functional.cross_entropy(lib.func.functional_call(net, p, (a.unsqueeze(0),)), t.unsqueeze(0))

    per_sample = lib.func.vmap(lib.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, target)
    return [
        per_sample,
        lib.func.functional_call(net, parameters, x),
        lib.func.hessian(lambda p: loss(p, x[0], target[0]))(parameters),
    ]


@program
def hooks(lib: Any) -> Any:
    seen: list[Any] = []
    x = leaf(lib, 2)
    x.register_hook(lambda g: seen.append(("leaf", numbers(g))))
    x.register_post_accumulate_grad_hook(lambda p: seen.append(("added", numbers(p.grad))))
    y = x * 3
    y.retain_grad()
    handle = y.register_hook(lambda g: g * 2)
    y.grad_fn.register_prehook(lambda given: seen.append(("before", numbers(given))))
    y.grad_fn.register_hook(lambda found, given: seen.append(("after", numbers(found[:1]), numbers(given))))
    z = y.exp().sum()
    lib.autograd.grad(z, x, retain_graph=True)
    z.backward(retain_graph=True)
    handle.remove()
    z.backward(inputs=[x])
    return [seen, y.grad, x.grad]


@program
def module_hooks(lib: Any) -> Any:
    seen: list[Any] = []
    net = lib.nn.Sequential(lib.nn.Linear(2, 2, bias=False), lib.nn.Tanh()).double()
    with lib.no_grad():
        net[0].weight.fill_(0.5)
    net[0].register_full_backward_hook(lambda m, found, given: seen.append(("linear", numbers(list(found)), numbers(list(given)))))
    net[1].register_full_backward_pre_hook(lambda m, given: (given[0] * 2,))
    net[1].register_full_backward_hook(lambda m, found, given: (found[0] * 10,))
    net.register_forward_hook(lambda m, args, out: out * 3)
    net.register_forward_pre_hook(lambda m, args: (args[0] + 1,))
    x = leaf(lib, 1, 2)
    net(x).sum().backward()
    return [seen, x.grad, net[0].weight.grad]


@program
def functions(lib: Any) -> Any:
    seen: list[Any] = []

    class Custom(lib.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any, k: float, y: Any) -> Any:
            ctx.save_for_backward(x, y)
            ctx.k = k
            seen.append((ctx.needs_input_grad, lib.is_grad_enabled()))
            return x * y * k, x.exp()

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any) -> Any:
            x, y = ctx.saved_tensors
            seen.append(numbers([g, h]))
            return g * y * ctx.k + h * x.exp(), None, g * x * ctx.k

    x, y = leaf(lib, 3), leaf(lib, 3, seed=1)
    a, b = Custom.apply(x, 2.0, y)
    first = lib.autograd.grad((a * a).sum(), [x, y], create_graph=True)
    second = lib.autograd.grad(first[0].sum(), [x, y])
    return [a, b, first, second, seen, a.grad_fn.name()]


@program
def names(lib: Any) -> Any:
    x = leaf(lib, 3)
    y = (x.exp() * 2).sum()
    found, node = [], y.grad_fn
    while node is not None:
        found.append(node.name().split("::")[-1])
        node = node.next_functions[0][0] if node.next_functions else None
    return found


@pytest.mark.parametrize("function", PROGRAMS, ids=lambda f: f.__name__)
def test_programs(function: Callable[[Any], Any]) -> None:
    compare(*(numbers(function(lib)) for lib in LIBRARIES))


FAILURES: dict[str, Callable[[Any], Any]] = {
    "second backward": lambda lib: [y.backward() for y in [leaf(lib, 2).exp().sum()] for _ in range(2)],
    "no scalar": lambda lib: leaf(lib, 2).exp().backward(),
    "no tape": lambda lib: lib.ones(1).backward(),
    "unused": lambda lib: lib.autograd.grad(leaf(lib, 2).sum(), leaf(lib, 2)),
    "not a leaf that requires grad": lambda lib: lib.autograd.grad(leaf(lib, 2).sum(), lib.ones(2)),
    "shape of seed": lambda lib: lib.autograd.grad(leaf(lib, 2).exp(), leaf(lib, 2), lib.ones(3)),
    "no inputs": lambda lib: leaf(lib, 2).sum().backward(inputs=[]),
    "materialize": lambda lib: lib.autograd.grad(leaf(lib, 2).sum(), leaf(lib, 2), allow_unused=False, materialize_grads=True),
    "saved and written": lambda lib: next((z.sin().sum(), z.mul_(2))[0] for z in [leaf(lib, 2) * 1]).backward(),
    "leaf in place": lambda lib: leaf(lib, 2).add_(1),
    "hook on constant": lambda lib: lib.ones(2).register_hook(print),
    "retain constant": lambda lib: lib.ones(2).retain_grad(),
    "jacobian of numbers": lambda lib: lib.autograd.functional.jacobian(lambda x: 3, leaf(lib, 2)),
    "hessian of many": lambda lib: lib.autograd.functional.hessian(lambda x: x, leaf(lib, 2)),
    "vector shape": lambda lib: lib.autograd.functional.vjp(lambda x: x * 2, leaf(lib, 2), lib.ones(3)),
    "strict": lambda lib: lib.autograd.functional.jacobian(lambda x: lib.ones(2), leaf(lib, 2), strict=True),
    "vmap sizes": lambda lib: lib.vmap(lambda a, b: a)(lib.ones(2), lib.ones(3)),
    "vmap item": lambda lib: lib.vmap(lambda a: a.item())(lib.ones(2)),
    "vmap in_dims": lambda lib: lib.vmap(lambda a: a, in_dims=3)(lib.ones(2)),
    "vmap numbers": lambda lib: lib.vmap(lambda a: 3)(lib.ones(2)),
    "vmap random": lambda lib: lib.vmap(lambda a: a + lib.rand(2))(lib.ones(2)),
    "func.grad of many": lambda lib: lib.func.grad(lambda a: a)(lib.ones(2)),
    "gradcheck": lambda lib: lib.autograd.gradcheck(lambda a: a.detach().requires_grad_() * 2, leaf(lib, 2)),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_are_of_the_same_class(name: str) -> None:
    errors = []
    for lib in LIBRARIES:
        with pytest.raises(Exception) as caught:  # noqa: PT011  the class is what is compared
            FAILURES[name](lib)
        errors.append(caught.type)
    assert errors[1].__name__ == errors[0].__name__, f"torch: {errors[0]}, graphc: {errors[1]}"
