"""Capture programs: the tape around and inside compiled code, and transforms of functions."""

from __future__ import annotations

import graphc
from capture.harness import Compile, leaf, mlp, normal, outcome, program
from graphc import nn
from graphc.utils.checkpoint import checkpoint

F = nn.functional
grad = graphc.autograd.grad


def smooth(x, w):
    """Something with second derivatives."""
    return (x @ w).tanh() * x.exp().sum()


@program()
def second_derivatives(compile: Compile):
    call = compile(smooth)
    for _ in range(3):
        x, w = leaf(2, 3), leaf(3, 2)
        first = grad(call(x, w).sum(), [x, w], create_graph=True)
        sum((g * g).sum() for g in first).backward()
        yield [g.detach() for g in first], x, w


@program()
def third_derivatives(compile: Compile):
    call = compile(lambda x: (x.sin() * x).sum())
    for _ in range(2):
        y = x = leaf(3)
        y = call(x)
        for _ in range(3):
            (y,) = grad(y.sum(), [x], create_graph=True)
            yield y.detach()


@program()
def second_derivatives_past_detach(compile: Compile):
    call = compile(lambda x: (x * x.detach() + x.exp() * x.mean().detach()).sum())
    for _ in range(2):
        x = leaf(3)
        (g,) = grad(call(x), [x], create_graph=True)
        g.sum().backward()
        yield g.detach(), x


@program()
def second_derivatives_past_no_grad(compile: Compile):
    def f(x):
        with graphc.no_grad():
            scale = x.square().sum()
        return (x.sin() * scale).sum()

    call = compile(f)
    for _ in range(2):
        x = leaf(3)
        (g,) = grad(call(x), [x], create_graph=True)
        g.sum().backward()
        yield g.detach(), x


@program()
def a_gradient_inside(compile: Compile):
    def f(x):
        (g,) = grad((x**3).sum(), [x], create_graph=True)
        return (g * x).sum()

    call = compile(f)
    for _ in range(3):
        x = leaf(3)
        call(x).backward()
        yield x


@program(2)
def backward_twice(compile: Compile):
    call = compile(lambda x: (x * x).exp().sum())
    x = leaf(3)
    y = call(x)
    y.backward(retain_graph=True)
    yield x
    y.backward()
    yield x
    yield outcome(y.backward)


@program()
def some_results_backward(compile: Compile):
    call = compile(lambda x, y: (x * y, y.exp(), x.detach() * 2, (x > 0)))
    for i in range(4):
        x, y = leaf(3), leaf(3)
        results = call(x, y)
        results[i % 2].sum().backward()
        yield [r.requires_grad for r in results], x, y


@program()
def backward_of_results_one_by_one(compile: Compile):
    call = compile(lambda x: (x.sin(), x.cos() * 2, x.sum()))
    for _ in range(2):
        x = leaf(3)
        for y in call(x):
            y.sum().backward(retain_graph=True)
            yield x


@program(2)
def only_some_inputs_need_gradients(compile: Compile):
    call = compile(lambda x, y: (x * y).tanh().sum())
    for needs in ((True, False), (False, True), (True, False)):
        x, y = (normal(3).requires_grad_(flag) for flag in needs)
        call(x, y).backward()
        yield x, y


@program()
def gradients_for_outside_tensors(compile: Compile):
    w = leaf(3)
    call = compile(lambda x: (x * w).sum())
    for i in range(4):
        call(normal(3)).backward()
        yield w
        if i == 1:
            w.grad = None


@program(3)
def hooks_of_tensors(compile: Compile):
    def f(x):
        y = x * 2
        y.register_hook(lambda g: g * 3)
        return (y * y).sum()

    call = compile(f)
    for _ in range(3):
        x = leaf(3)
        handle = x.register_hook(lambda g: g + 1)
        call(x).backward()
        handle.remove()
        yield x


@program()
def hooks_of_results(compile: Compile):
    seen = []
    call = compile(lambda x: x.exp())
    for _ in range(3):
        x = leaf(3)
        y = call(x)
        y.register_hook(lambda g: seen.append(g.clone()) or g * 2)
        (y * y).sum().backward()
        yield x, list(seen)


@program()
def retained_gradients(compile: Compile):
    call = compile(lambda x: x * 3)
    for _ in range(3):
        x = leaf(3)
        y = call(x)
        y.retain_grad()
        (y * y).sum().backward()
        yield y.grad, x


class Clipped(graphc.autograd.Function):
    """The identity with gradients between -1 and 1."""

    @staticmethod
    def forward(ctx, x, limit):
        ctx.save_for_backward(x)
        ctx.limit = limit
        return x * 1

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g.clamp(-ctx.limit, ctx.limit) * x.sign(), None


@program()
def a_function_of_ones_own(compile: Compile):
    call = compile(lambda x: (Clipped.apply(x, 0.5) * x).sum())
    for _ in range(3):
        x = leaf(3)
        call(x).backward()
        yield x


@program()
def checkpoints(compile: Compile):
    model = mlp()
    call = compile(lambda x: checkpoint(model, x, use_reentrant=False).sum())
    for _ in range(3):
        x = leaf(2, 4)
        call(x).backward()
        yield x, model


@program()
def checkpoints_with_dropout(compile: Compile):
    model = mlp(nn.Dropout(0.5))
    call = compile(lambda x: checkpoint(model, x, use_reentrant=False).square().sum())
    for _ in range(3):
        x = leaf(2, 4)
        call(x).backward()
        yield x, model


@program()
def compiled_under_checkpoint(compile: Compile):
    call = compile(lambda x: x.exp().sin())
    for _ in range(3):
        x = leaf(3)
        checkpoint(call, x, use_reentrant=False).sum().backward()
        yield x


@program()
def no_grad_inside(compile: Compile):
    def f(x):
        with graphc.no_grad():
            scale = x.abs().max()
        return (x / scale).sum()

    call = compile(f)
    for _ in range(3):
        x = leaf(3)
        call(x).backward()
        yield x


@program()
def inference_mode_inside(compile: Compile):
    def f(x):
        with graphc.inference_mode():
            return x.exp()

    call = compile(f)
    for _ in range(3):
        yield call(leaf(3))


@program()
def gradients_enabled_inside(compile: Compile):
    def f(x):
        with graphc.enable_grad():
            y = x.detach().requires_grad_()
            (g,) = grad((y**3).sum(), [y])
        return g

    call = compile(f)
    with graphc.no_grad():
        for _ in range(3):
            yield call(normal(3))


@program()
def detached_parts(compile: Compile):
    call = compile(lambda x: (x * x.detach()).sum() + x.detach().exp().sum())
    for _ in range(3):
        x = leaf(3)
        call(x).backward()
        yield x


@program()
def the_straight_through_estimator(compile: Compile):
    call = compile(lambda x: ((x.round() - x).detach() + x).square().sum())
    for _ in range(3):
        x = leaf(3)
        call(x).backward()
        yield x


@program()
def gradients_that_accumulate(compile: Compile):
    call = compile(lambda x: (x * x).sum())
    x = leaf(3)
    for _ in range(4):
        call(x).backward()
        yield x


@program()
def what_backward_needs_is_changed(compile: Compile):
    call = compile(lambda x, y: (x * y).sum())
    for _ in range(2):
        x, y = leaf(3), normal(3)
        loss = call(x, y)
        y.add_(1)
        yield outcome(loss.backward)


@program(4)
def backward_that_would_fail(compile: Compile):
    def f(x):
        y = x.sqrt()
        z = y * 2
        y.mul_(3)
        return z

    call = compile(f)
    for _ in range(2):
        x = (normal(3).abs() + 1).requires_grad_()
        z = call(x)
        yield z.detach()
        yield outcome(z.sum().backward)


@program(4)
def a_chain_of_compiled_functions(compile: Compile):
    first, second = compile(lambda x: x.tanh() * 2), compile(lambda x, y: (x * y).sum())
    for _ in range(3):
        x = leaf(3)
        second(first(x), first(x * 2)).backward()
        yield x


# ---- transforms ----------------------------------------------------------------------------------------------------


@program()
def grad_of_compiled(compile: Compile):
    call = compile(lambda x: (x.sin() * x).sum())
    for _ in range(3):
        yield graphc.func.grad(call)(normal(3))


@program()
def compiled_grad(compile: Compile):
    call = compile(graphc.func.grad(lambda x: (x.sin() * x).sum()))
    for _ in range(3):
        yield call(normal(3))


@program()
def vmap_of_compiled(compile: Compile):
    call = compile(lambda x, y: (x * y).sum() + x.max())
    for _ in range(3):
        yield graphc.func.vmap(call)(normal(4, 3), normal(4, 3)), call(normal(3), normal(3))


@program()
def compiled_vmap(compile: Compile):
    call = compile(graphc.func.vmap(lambda x, y: (x @ y).tanh(), in_dims=(0, None)))
    for _ in range(3):
        yield call(normal(4, 3), normal(3))


@program()
def gradients_of_each_example(compile: Compile):
    model = nn.Linear(3, 1)
    parameters = {k: v.detach() for k, v in model.named_parameters()}

    def loss(parameters, x):
        return graphc.func.functional_call(model, parameters, (x,)).square().sum()

    call = compile(graphc.func.vmap(graphc.func.grad(loss), in_dims=(None, 0)))
    for _ in range(3):
        yield call(parameters, normal(4, 3))


@program()
def jacobians_and_hessians(compile: Compile):
    call = compile(lambda x: (graphc.func.jacrev(graphc.sin)(x), graphc.func.hessian(lambda y: (y**3).sum())(x)))
    for _ in range(3):
        yield call(normal(3))


@program()
def a_hessian_of_compiled(compile: Compile):
    call = compile(lambda x: (x.exp() * x).sum())
    for _ in range(2):
        yield graphc.func.hessian(call)(normal(3))


@program()
def products_with_jacobians(compile: Compile):
    call = compile(lambda x: graphc.func.vjp(graphc.tanh, x)[1](x * 2)[0] + graphc.func.jvp(graphc.sin, (x,), (x,))[1])
    for _ in range(3):
        yield call(normal(3))


@program()
def gradients_added_to_others(compile: Compile):
    call = compile(lambda x, w: x.sin() * w + x.exp() * 1.3 + w * 0.7)
    x, w = leaf(40), leaf(40)
    for i in range(3):
        loss = (call(x, w) * call(x * 0.5, w)).sum() + (x * 0.77 - w * 0.3).sum() * i
        yield graphc.autograd.grad(loss, (x, w))
        (call(x, w).sum() + (w * 0.11).sum()).backward()
        yield x, w


@program()
def what_one_gradient_needs_alone(compile: Compile):
    class Both(graphc.autograd.Function):
        @staticmethod
        def forward(ctx, x, noise):
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(noise)
            return x * noise, x + noise

        @staticmethod
        def backward(ctx, a, b):
            (noise,) = ctx.saved_tensors
            return a * noise.exp().sum() if b is None else b * b.sum(), None

    def f(x):
        return Both.apply(x * 1.5, graphc.rand(5))

    call = compile(f)
    for i in range(4):
        x = leaf(5)
        results = call(x)
        (results[i % 2].sum() if i < 3 else sum(r.sum() for r in results)).backward()
        yield x
