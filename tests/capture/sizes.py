"""Capture programs: batches of thirty sizes, 0 and 1 among them, and sizes in Python's hands."""

from __future__ import annotations

import graphc
from capture.harness import Compile, leaf, mlp, normal, outcome, program
from capture.inference import named
from graphc import nn, optim

F = nn.functional
THIRTY = (3, 5, 0, 1, 2, 4, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 19, 23, 31, 32, 33, 40, 48, 63, 64, 65, 3, 1, 0)


@program(4)
def thirty_batches_of_inference(compile: Compile):
    model = mlp()
    call = compile(model)
    with graphc.no_grad():
        for n in THIRTY:
            yield call(normal(n, 4))


@program(4)
def thirty_batches_with_gradients(compile: Compile):
    model = mlp()
    call = compile(model)
    for n in THIRTY:
        model.zero_grad()
        x = leaf(n, 4)
        call(x).square().sum().backward()
        yield x, model


@program(6)
def thirty_batches_of_training(compile: Compile):
    model = mlp()
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def step(x, classes):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), classes, reduction="sum")
        loss.backward()
        optimizer.step()
        return loss.detach()

    call = compile(step)
    for n in THIRTY:
        yield call(normal(n, 4), graphc.randint(0, 2, (n,))), model


def _sized(function, traces, *shape):
    def body(compile: Compile):
        call = compile(function)
        for n in (3, 5, 1, 4, 0, 2, 3):
            yield call(normal(n, *shape))

    return body


for _name, _function, _traces, _shape in (
    ("flattened_rows", lambda x: x.reshape(x.size(0), 4).sum(1) + x.flatten(1).mean(1), 4, (2, 2)),
    ("softmax_over_the_batch", lambda x: x.softmax(0) + x.mean(0), 4, (3,)),
    ("a_batch_doubled", lambda x: graphc.cat([x, x * 2]) - 1, 4, (2,)),
    ("a_batch_paired_with_itself", lambda x: x @ x.T, 4, (3,)),
    ("positions_of_a_batch", lambda x: x + graphc.arange(x.shape[0])[:, None], 4, (2,)),
    ("divided_by_the_batch", lambda x: x.sum() / max(len(x), 1), 7, (2,)),
    ("a_batch_of_images", lambda x: F.avg_pool2d(x, 2).flatten(1), 7, (1, 4, 4)),
    ("sorted_rows", lambda x: x.sort(0)[0].cumsum(0), 4, (2,)),
    ("rolled_rows", lambda x: x.roll(1, 0) * x.flip(0), 6, (2,)),
    ("padded_rows", lambda x: F.pad(x, (1, 1)) * 2, 4, (2,)),
    ("expanded_rows", lambda x: x[:, None].expand(-1, x.shape[0], -1).sum(1), 4, (2,)),
    ("a_triangle", lambda x: graphc.ones(x.shape[0], x.shape[0]).tril() @ x, 7, (2,)),
):
    named(_name, _sized(_function, _traces, *_shape), _traces)


@program(7)
def odd_and_even_batches(compile: Compile):
    call = compile(lambda x: x.view(-1, 2) * 2 if x.shape[0] % 2 == 0 else x + 1)
    for n in (4, 6, 3, 5, 8, 1, 0):
        yield call(normal(n))


@program(7)
def a_loop_over_the_batch(compile: Compile):
    def f(x):
        h = x.new_zeros(2)
        for i in range(x.shape[0]):
            h = (h + x[i]).tanh()
        return h

    call = compile(f)
    for n in (3, 4, 1, 0, 3, 4):
        yield call(normal(n, 2))


@program(5)
def two_sizes_that_agree(compile: Compile):
    call = compile(lambda x, y: (x * y).sum(1))
    for n in (2, 3, 4, 1):
        yield call(normal(n, 2), normal(n, 2))
    yield outcome(call, normal(3, 2), normal(4, 2))


@program(5)
def two_sizes_by_themselves(compile: Compile):
    call = compile(lambda x, y: x.sum(0) + y.mean(0))
    for n, m in ((2, 3), (4, 5), (3, 3), (5, 1), (2, 2), (7, 8)):
        yield call(normal(n, 2), normal(m, 2))


@program(3)
def a_size_that_is_marked(compile: Compile):
    call = compile(lambda x: (x * 2).sum(0))
    for n in (3, 4, 5, 6):
        x = normal(n, 2)
        graphc._dynamo.mark_dynamic(x, 0)
        yield call(x)


@program(6)
def sizes_without_symbols(compile: Compile):
    call = compile(lambda x: x.exp().sum(), dynamic=False)
    for n in (3, 4, 5, 3, 0, 1):
        yield call(normal(n, 2))


@program(5)
def lengths_of_sequences(compile: Compile):
    layer = nn.LSTM(2, 3)
    call = compile(lambda x: layer(x)[0])
    with graphc.no_grad():
        for n in (2, 3, 4, 1):
            yield call(normal(n, 1, 2))
