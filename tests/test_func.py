"""`graphc.func`: derivatives and `vmap`, nested in any order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.autograd import Function
from graphc.capture.tracer import trace
from graphc.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)
from graphc.ir.op import Op
from graphc.ir.text import parse_graph

F64 = graphc.float64


def numbers(*shape: int, requires_grad: bool = False) -> Any:
    rng = np.random.default_rng(sum(shape) + 7)
    return graphc.tensor(rng.standard_normal(shape), requires_grad=requires_grad)


def close(a: Any, b: Any) -> bool:
    return bool(a.shape == b.shape and graphc.allclose(a.detach(), b.detach(), rtol=1e-10, atol=1e-12))


def f(x: Any) -> Any:
    return (x * x).sin().sum()


def df(x: Any) -> Any:
    return (x * x).cos() * 2 * x


# ---- derivatives -----------------------------------------------------------------------------------------------------


def test_gradients_of_nested_arguments() -> None:
    x, y = numbers(3), numbers(2)

    def g(tree: dict[str, Any], z: Any, *, scale: float) -> Any:
        return (tree["a"][0] * scale).sum() * z.prod(), {"z": z * 2}

    gradient, aux = grad(g, argnums=(0, 1), has_aux=True)({"a": [x]}, y, scale=3.0)
    assert close(gradient[0]["a"][0], graphc.full((3,), 3.0, dtype=F64) * y.prod())
    assert close(gradient[1], 3 * x.sum() * y.flip(0)) and close(aux["z"], y * 2)
    found, (value, _) = grad_and_value(g, has_aux=True)({"a": [x]}, y, scale=3.0)
    assert close(value, 3 * x.sum() * y.prod()) and not value.requires_grad and not found["a"][0].requires_grad


def test_unused_arguments_have_zero_gradients() -> None:
    assert grad(lambda x, y: y.sum(), (0, 1))(numbers(2), numbers(3))[0].tolist() == [0, 0]


def test_higher_gradients_and_other_tapes() -> None:
    x = numbers()
    assert close(grad(grad(grad(lambda t: t**4)))(x), 24 * x)
    w = numbers(3, requires_grad=True)
    y = grad(lambda t: (t * w).sin().sum())(numbers(3))
    assert y.requires_grad  # w is outside
    y.sum().backward()
    t = numbers(3)
    assert close(w.grad, (t * w).cos() - t * w * (t * w).sin())
    with graphc.no_grad():
        assert not grad(lambda t: (t * w).sin().sum())(numbers(3)).requires_grad
    outer = grad(lambda a: a * grad(lambda b: (a * b).sin())(a))(x)  # perturbations do not mix
    assert close(outer, 2 * x * (x * x).cos() - 2 * x**3 * (x * x).sin())
    assert not grad(lambda t: (t**2).sum())(numbers(3)).requires_grad


def test_products_with_jacobians() -> None:
    x, y = numbers(3), numbers(2)

    def g(a: Any, b: Any) -> Any:
        return {"outer": a.unsqueeze(1) * b, "sum": a.exp()}

    value, pull = vjp(g, x, y)
    assert close(value["sum"], x.exp())
    ones = {"outer": graphc.ones(3, 2, dtype=F64), "sum": graphc.ones(3, dtype=F64)}
    a, b = pull(ones)
    assert close(a, y.sum() + x.exp()) and close(b, x.sum().expand(2)) and close(pull(ones)[0], a)
    _, tangent = jvp(g, (x, y), (graphc.ones(3, dtype=F64), graphc.zeros(2, dtype=F64)))
    assert close(tangent["outer"], y.expand(3, 2)) and close(tangent["sum"], x.exp())
    out, push = linearize(f, x)
    assert close(out, f(x)) and close(push(graphc.ones(3, dtype=F64)), df(x).sum())
    assert close(jvp(lambda t: jvp(f, (t,), (t,))[1], (x,), (x,))[1], (x * grad(lambda t: (df(t) * t).sum())(x)).sum())
    assert jvp(lambda t: graphc.ones(2), (x,), (x,))[1].tolist() == [0, 0]


def test_jacobians_and_hessians() -> None:
    x = numbers(3)

    def g(a: Any) -> Any:
        return a.unsqueeze(1) * a.exp(), a.sum()

    for jacobian in (jacrev, jacfwd):
        first, second = jacobian(g)(x)
        assert first.shape == (3, 3, 3) and close(second, graphc.ones(3, dtype=F64))
        eye = graphc.eye(3, dtype=F64)
        assert close(first, eye.unsqueeze(1) * x.exp().unsqueeze(1) + (x.unsqueeze(1) * x.exp()).unsqueeze(2) * eye)
    expected = graphc.diag(2 * (x * x).cos() - 4 * x * x * (x * x).sin())
    for nested in (hessian(f), jacrev(jacfwd(f)), jacrev(jacrev(f)), jacfwd(jacfwd(f)), jacrev(grad(f))):
        assert close(nested(x), expected)
    assert close(jacrev(f, chunk_size=2)(x), df(x))
    rows = jacrev(lambda a, b: a * b, argnums=(0, 1))(x, x)
    assert isinstance(rows, tuple) and close(rows[0], graphc.diag(x))
    assert jacrev(lambda a: (a, a.sum()), has_aux=True)(x)[1].item() == x.sum().item()


def test_the_hessian_of_a_small_network() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    x = numbers(5, 3)
    blocks = hessian(lambda p: functional_call(model, p, x).square().mean())(parameters)
    whole = graphc.autograd.functional.hessian(
        lambda *p: functional_call(model, dict(zip(parameters, p, strict=True)), x).square().mean(), tuple(parameters.values())
    )
    for i, a in enumerate(parameters):
        for j, b in enumerate(parameters):
            assert close(blocks[a][b], whole[i][j])


# ---- vmap ------------------------------------------------------------------------------------------------------------


def test_dims_in_and_out() -> None:
    x, y = numbers(3, 4), numbers(4, 3)
    assert close(vmap(graphc.dot)(x, y.T), (x * y.T).sum(1))
    assert close(vmap(lambda a, b: a * b, in_dims=(0, 1), out_dims=1)(x, y), x.T * y)
    assert close(vmap(lambda d: d["a"] + d["b"][0], in_dims=({"a": 0, "b": [None]},))({"a": x, "b": [x[0]]}), x + x[0])
    assert close(vmap(lambda a, n: a * n, in_dims=(0, None))(x, 3), x * 3)
    a, b = vmap(lambda v: (v, v.sum()), out_dims=(-1, 0))(x)
    assert close(a, x.T) and close(b, x.sum(1))
    assert close(vmap(lambda v, k: v + k)(x, k=x), x * 2)
    assert close(vmap(lambda v: x[0])(x), x[0].expand(3, 4))
    assert close(vmap(f, chunk_size=2)(x), vmap(f)(x)) and graphc.vmap is vmap


def test_nested_maps() -> None:
    x, y = numbers(3), numbers(4)
    outer = vmap(vmap(lambda a, b: a * b, in_dims=(None, 0)), in_dims=(0, None))(x, y)
    assert close(outer, x.unsqueeze(1) * y)
    z = numbers(2, 3, 4)
    assert close(vmap(vmap(f))(z), (z * z).sin().sum(2))
    assert close(vmap(vmap(grad(f)))(z), df(z))
    assert close(vmap(hessian(f))(numbers(2, 3))[1], hessian(f)(numbers(2, 3)[1]))
    assert close(vmap(jacfwd(lambda a: a.exp()))(x.unsqueeze(0))[0], graphc.diag(x.exp()))


def test_gradients_through_maps() -> None:
    x, w = numbers(3, 4), numbers(4, requires_grad=True)
    vmap(lambda v: (v * w).sin().sum())(x).sum().backward()
    assert close(w.grad, ((x * w).cos() * x).sum(0))

    def loss(p: Any) -> Any:
        return vmap(lambda v: grad(lambda q: (q * v).sin().sum())(p))(x).square().sum()

    expected = graphc.autograd.functional.jacobian(lambda p: ((x * p).cos() * x).square().sum(), w.detach())
    assert close(grad(loss)(w.detach()), expected)
    per_sample = vmap(grad(lambda q, v: (q * v).sin().sum()), in_dims=(None, 0))(w.detach(), x)
    assert close(per_sample, (x * w).cos() * x)


def test_per_sample_gradients_of_a_model() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    x, target = numbers(5, 3), graphc.tensor([0, 1, 1, 0, 1])

    def loss(p: Any, a: Any, t: Any) -> Any:
        return nn.functional.cross_entropy(functional_call(model, p, (a.unsqueeze(0),)), t.unsqueeze(0))

    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, target)
    for k in range(5):
        model.zero_grad()
        nn.functional.cross_entropy(model(x[k : k + 1]), target[k : k + 1]).backward()
        for name, p in model.named_parameters():
            assert close(found[name][k], p.grad)


def test_ensembles() -> None:
    models = [nn.Linear(3, 2).double() for _ in range(4)]
    parameters, buffers = stack_module_state(models)
    x = numbers(5, 3)
    assert parameters["weight"].shape == (4, 2, 3) and parameters["weight"].requires_grad and buffers == {}
    found = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(parameters, buffers)
    assert close(found, graphc.stack([m(x) for m in models]))
    with pytest.raises(RuntimeError, match="Expected at least one model"):
        stack_module_state([])
    with pytest.raises(RuntimeError, match="Unexpected key"):
        functional_call(models[0], {**dict(models[0].named_parameters()), "bad": x}, (x,), strict=True)
    assert close(functional_call(models[0], {"bad": x}, (x,)), models[0](x))
    with pytest.raises(RuntimeError, match=r"Missing key\(s\): 'bias'"):
        functional_call(models[0], {"weight": x}, (x,), strict=True)
    assert isinstance(models[0].weight, nn.Parameter)


def test_writes() -> None:
    x, w = numbers(3, 4), numbers(4)

    def g(v: Any) -> Any:
        z = v * 1
        z[0] = 0
        z[1:3].mul_(v[1:3])
        z += w
        return z

    expected = graphc.stack([g(v) for v in x])
    assert close(vmap(g)(x), expected) and close(vmap(grad(lambda v: g(v).sum()))(x)[0], grad(lambda v: g(v).sum())(x[0]))
    y = x.clone()
    vmap(lambda v: v.add_(1))(y)
    assert close(y, x + 1)
    total = graphc.zeros(4, dtype=F64)
    with pytest.raises(RuntimeError, match=r"inplace arithmetic .* is not possible"):
        vmap(lambda v: total.add_(v))(x)
    count = graphc.zeros(1)
    vmap(lambda v: (count.add_(1), v)[1])(x)
    assert count.item() == 1


def test_indices_and_places() -> None:
    x, i = numbers(3, 4), graphc.tensor([0, 3, 1])
    assert close(vmap(lambda v, k: v[k])(x, i), x[graphc.arange(3), i])
    assert close(vmap(lambda v, k: v.index_select(0, k.unsqueeze(0)))(x, i)[:, 0], x[graphc.arange(3), i])
    with pytest.raises(IndexError):
        vmap(lambda v, k: v[k])(x, i + 5)


def test_random_numbers() -> None:
    x = graphc.zeros(4)
    with pytest.raises(RuntimeError, match="called random operation while in randomness error mode"):
        vmap(lambda v: v + graphc.rand(3))(x)
    same = vmap(lambda v: v + graphc.rand(3), randomness="same")(x)
    assert (same == same[0]).all()
    different = vmap(lambda v: v + graphc.randn(3), randomness="different")(x)
    assert len({tuple(row) for row in different.tolist()}) == 4
    dropped = vmap(lambda v: nn.functional.dropout(v, 0.5), randomness="different")(graphc.ones(50, 50))
    assert 0.4 < (dropped == 0).float().mean().item() < 0.6 and not (dropped == dropped[0]).all()
    ones = graphc.ones(6, 8)
    gradient = vmap(grad(lambda v: nn.functional.dropout(v, 0.5).sum()), randomness="different")(ones)
    assert ((gradient == 0) | (gradient == 2)).all() and not (gradient == gradient[0]).all()


@pytest.mark.parametrize(
    "draw",
    [
        graphc.bernoulli,
        graphc.rand_like,
        nn.functional.gumbel_softmax,
        lambda v: nn.functional.dropout(v + 1),
        lambda v: v.clone().normal_(),
        lambda v: graphc.randint(0, 1000, (3,)),
        lambda v: graphc.multinomial(v, 2),
        lambda v: graphc.poisson(v * 50),
        lambda v: nn.functional.scaled_dot_product_attention(*[v.reshape(1, 9, 1)] * 3, dropout_p=0.5),
    ],
)
def test_every_kind_of_random_numbers(draw: Any) -> None:
    graphc.manual_seed(0)
    x = graphc.full((4, 9), 0.3)
    same, different = (vmap(draw, randomness=mode)(x) for mode in ("same", "different"))
    assert (same == same[0]).all() and not (different == different[0]).all()
    with pytest.raises(RuntimeError, match="randomness error mode"):
        vmap(draw)(x)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda x: vmap(f, in_dims=None)(x), ValueError, "expected `in_dims` to be int or a"),
        (lambda x: vmap(f, in_dims=(0, 1))(x), ValueError, "in_dims is not compatible with the structure of inputs"),
        (lambda x: vmap(f, in_dims=(None,))(x), ValueError, "at least one"),
        (
            lambda x: vmap(f, in_dims=5)(x),
            ValueError,
            "Got in_dim=5 for some input, but that input is a Tensor of dimensionality 2",
        ),
        (lambda x: vmap(lambda v, n: v)(x, 3), ValueError, "We cannot vmap over non-Tensor arguments"),
        (
            lambda x: vmap(lambda v, n: v)(x, x[:2]),
            ValueError,
            "Expected all tensors to have the same size in the mapped dimension",
        ),
        (lambda x: vmap(lambda v: 3)(x), ValueError, "must only return Tensors, got type <class 'int'>"),
        (lambda x: vmap(f, randomness="x")(x), RuntimeError, "Only allowed values for randomness"),
        (lambda x: vmap(lambda v: v.sum().item())(x), RuntimeError, "vmap: code that needs the elements"),
        (lambda x: vmap(lambda v: v if v.sum() > 0 else -v)(x), RuntimeError, "data-dependent control flow"),
        (lambda x: vmap(lambda v: v.nonzero())(x), RuntimeError, "shape of its result depends on the elements"),
        (lambda x: vmap(lambda v: v.sum().backward())(x), RuntimeError, "inside a functorch transform"),
        (lambda x: vmap(lambda v: v.reshape(7))(x), RuntimeError, "reshape"),
        (lambda x: grad(lambda v: v)(x), RuntimeError, "Expected f.* to return a scalar tensor"),
        (lambda x: grad(lambda v: 3)(x), RuntimeError, "to return a tensor"),
        (lambda x: grad(f, argnums=2)(x), RuntimeError, "got argnum=2, but only 1 positional inputs"),
        (lambda x: grad(f)(graphc.arange(3)), RuntimeError, "floating point"),
        (lambda x: jvp(f, (x,), (x[0],)), RuntimeError, "Expected tangents of shape"),
    ],
)
def test_errors(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call(numbers(3, 4))


# ---- with the rest ---------------------------------------------------------------------------------------------------


def test_compiled() -> None:
    x, w = numbers(3, 4), numbers(4)

    def g(a: Any, p: Any) -> Any:
        return vmap(grad(lambda q, v: (q * v).softmax(0)[1]), in_dims=(None, 0))(p, a), hessian(f)(p)

    compiled = graphc.compile(g)
    for found, expected in zip(compiled(x, w), g(x, w), strict=True):
        assert (found == expected).all()
    assert compiled.stats()["fallbacks"] == []


class Cube(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Any, w: Any) -> Any:
        y = x**3
        return y * w, y

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, g: Any, _: Any) -> Any:
        x, w, y = ctx.saved_tensors
        return g * 3 * x**2 * w, (g * y).sum()


def test_functions_of_users() -> None:
    x, w = numbers(3, 4), numbers()
    assert close(vmap(lambda v: Cube.apply(v, w)[0])(x), x**3 * w)
    per_sample = vmap(grad(lambda q, v: Cube.apply(v, q)[0].sum()), in_dims=(None, 0))(w, x)
    assert close(per_sample, (x**3).sum(1))
    a, p = x.clone().requires_grad_(), w.clone().requires_grad_()
    vmap(lambda v: Cube.apply(v, p)[0])(a).sum().backward()
    assert close(a.grad, 3 * x**2 * w) and close(p.grad, (x**3).sum())
    assert close(jacrev(lambda v: Cube.apply(v, w)[0])(x[0]), graphc.diag(3 * x[0] ** 2 * w))
    assert close(vmap(hessian(lambda v: Cube.apply(v, w)[0].sum()))(x)[0], graphc.diag(6 * x[0] * w))


def test_a_rule_of_a_user() -> None:
    seen = []

    class Scale(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, k: int) -> Any:
            ctx.k = k
            return x * k

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.k, None

        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Any, k: int) -> Any:
            seen.append((info.batch_size, in_dims))
            return Scale.apply(x, k), in_dims[0]

    x = numbers(3, 4)
    assert close(vmap(lambda v: Scale.apply(v, 3))(x), x * 3) and seen == [(3, (0, None))]
    assert close(vmap(grad(lambda v: Scale.apply(v, 3).sum()))(x), graphc.full((3, 4), 3.0, dtype=F64))


def test_functions_that_write_to_their_gradients() -> None:
    class Relu(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            g = g.clone()
            g[x < 0] = 0
            return g

    x = numbers(3, 4)
    expected = (x > 0).double()
    assert close(vmap(grad(lambda v: Relu.apply(v).sum()))(x), expected)
    y = x.clone().requires_grad_()
    vmap(lambda v: Relu.apply(v).sum())(y).sum().backward()
    assert close(y.grad, expected)


def test_modules_with_state_over_their_batch() -> None:
    models = [nn.BatchNorm1d(2).double() for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    x = numbers(3, 5, 2)
    found = vmap(lambda p, b, v: functional_call(models[0], (p, b), (v,)))(parameters, buffers, x)
    for k, model in enumerate(models):
        assert close(found[k], model(x[k])) and close(buffers["running_mean"][k], model.running_mean)


def test_compiled_functions_inside_transforms() -> None:
    x = numbers(3)

    def plain(v: Any) -> Any:
        return (v * v).sin() * v.sum()

    compiled = graphc.compile(plain)
    compiled(x.requires_grad_())
    x = x.detach()
    assert close(jacrev(compiled)(x), jacrev(plain)(x)) and close(jacfwd(compiled)(x), jacfwd(plain)(x))
    assert close(hessian(lambda v: compiled(v).sum())(x), hessian(lambda v: plain(v).sum())(x))
    assert close(vmap(compiled)(x.expand(2, 3)), plain(x).expand(2, 3))


def test_operators_over_batches_are_text() -> None:
    def f(x: Any, i: Any) -> Any:
        return vmap(lambda v, k: graphc.gather(v, 0, k).softmax(0))(x, i)

    graph = trace(f, (numbers(3, 4), graphc.zeros(3, 2, dtype=graphc.int64))).graph
    assert "batched_11_gather" in str(graph) and str(parse_graph(str(graph))) == str(graph)
    with pytest.raises(KeyError):
        Op.table["batched_12_gather"]
    assert not any(name.startswith("batched_") for name in Op.table)
