"""Capture programs: errors and the state after them, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import graphc
from capture.harness import Compile, leaf, mlp, normal, outcome, program
from graphc import nn, optim

F = nn.functional


@program(4)
def an_error_of_ones_own(compile: Compile):
    def f(x):
        raise KeyError("mine")

    call = compile(f)
    yield outcome(call, normal(3))
    yield outcome(call, normal(3)), normal(3) + 1


@program(4)
def an_error_of_shapes(compile: Compile):
    call = compile(lambda x, y: x @ y)
    yield call(normal(2, 3), normal(3, 2))
    yield outcome(call, normal(2, 3), normal(2, 3))
    yield call(normal(2, 3), normal(3, 2))


@program(2)
def an_index_out_of_range(compile: Compile):
    table = nn.Embedding(4, 3)
    call = compile(lambda tokens: table(tokens).sum())
    for tokens in ([1, 2], [1, 9], [-1, 0], [3, 3]):
        yield outcome(call, graphc.tensor(tokens))


@program(3)
def an_error_in_the_middle_of_a_step(compile: Compile):
    table = nn.Embedding(4, 3)
    optimizer = optim.Adam(table.parameters(), lr=0.1)

    def step(tokens):
        loss = table(tokens).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    call = compile(step)
    for tokens in ([1, 2], [1, 1], [1, 9], [0, 3]):
        yield outcome(call, graphc.tensor(tokens)), table, optimizer


@program(4)
def an_error_before_a_write(compile: Compile):
    state = normal(3)

    def f(x, index):
        y = x[index]
        state.add_(y.sum())
        return y

    call = compile(f)
    for index in ([0, 1], [0, 7], [2, 2]):
        yield outcome(call, normal(3), graphc.tensor(index)), state


@program(3)
def a_singular_matrix(compile: Compile):
    call = compile(lambda x: graphc.linalg.inv(x))
    for x in (graphc.eye(2) * 2, graphc.zeros(2, 2), graphc.eye(2)):
        yield outcome(call, x)


@program(4)
def an_error_on_one_path(compile: Compile):
    def f(x):
        if x.sum() > 0:
            raise ValueError("positive")
        return x * 2

    call = compile(f)
    for value in (-1.0, 1.0, -2.0, 2.0):
        yield outcome(call, graphc.full((2,), value))


@program(4)
def arguments_that_do_not_fit(compile: Compile):
    call = compile(lambda x, *, scale: x * scale)
    yield outcome(call, normal(3))
    yield call(normal(3), scale=2.0)
    yield outcome(call, normal(3), 2.0)


@program(4)
def an_error_of_dtypes(compile: Compile):
    call = compile(lambda x, y: x @ y)
    yield outcome(call, normal(2, 2), graphc.ones(2, 2, dtype=graphc.int64))
    yield call(normal(2, 2), normal(2, 2))


@program(3)
def an_error_in_backward(compile: Compile):
    class Failing(graphc.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            raise ZeroDivisionError

    call = compile(lambda x: Failing.apply(x).sum())
    for _ in range(2):
        y = call(leaf(3))
        yield y.detach(), outcome(y.backward)


@program(3)
def division_of_integers_by_zero(compile: Compile):
    call = compile(lambda x, y: x // y)
    for divisor in (2, 0, 3):
        yield outcome(call, graphc.tensor([4, 5]), graphc.tensor([1, divisor]))


# ---- threads -------------------------------------------------------------------------------------------------------


@program(4)
def threads_of_inference(compile: Compile):
    model = mlp().eval()
    call = compile(model)
    inputs = [normal(3, 4) for _ in range(12)]

    def infer(x):
        with graphc.no_grad():
            return call(x)

    yield infer(inputs[0])
    with ThreadPoolExecutor(4) as pool:
        yield list(pool.map(infer, inputs))


@program(24)
def threads_at_the_first_call(compile: Compile):
    call = compile(lambda x: (x.exp() * 2).sum(0))
    inputs = [normal(2, 3) for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        yield list(pool.map(call, inputs))
    yield call(inputs[0])


@program(24)
def threads_with_shapes_of_their_own(compile: Compile):
    call = compile(lambda x: x.tanh().sum(1))
    inputs = [normal(n % 4 + 2, 3) for n in range(12)]
    with ThreadPoolExecutor(3) as pool:
        yield list(pool.map(call, inputs))
        yield list(pool.map(call, inputs))


@program(24)
def threads_with_gradients(compile: Compile):
    call = compile(lambda x: (x.sin() * x).sum())
    inputs = [leaf(4) for _ in range(8)]

    def gradient(x):
        return graphc.autograd.grad(call(x), [x])[0]

    yield gradient(inputs[0])
    with ThreadPoolExecutor(4) as pool:
        yield list(pool.map(gradient, inputs))


@program(24)
def threads_on_branches(compile: Compile):
    call = compile(lambda x: x * 2 if x.sum() > 0 else x - 1)
    inputs = [normal(3) for _ in range(12)]
    with ThreadPoolExecutor(4) as pool:
        yield list(pool.map(call, inputs))
        yield list(pool.map(call, inputs))


@program(24)
def threads_over_several_functions(compile: Compile):
    calls = [compile(lambda x, k=k: x.exp() * k) for k in range(4)]
    x = normal(3)
    with ThreadPoolExecutor(4) as pool:
        yield list(pool.map(lambda call: call(x), calls * 3))
        yield list(pool.map(lambda call: call(x * 2), calls))
