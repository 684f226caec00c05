"""Capture programs: writes, views, results that share memory, and memory that is given back."""

from __future__ import annotations

import gc
import weakref

import graphc
from capture.harness import Compile, leaf, mlp, normal, outcome, program
from capture.inference import named


def writes_a_row(x):
    """A row by number."""
    x[1] = 5
    return x.sum()


def writes_a_column(x):
    """A column in place."""
    x[:, 0] += x[:, 1]
    return x * 2


def writes_through_views(x):
    """A view of a view."""
    x.t()[1:].mul_(2)
    x.view(-1)[::2].add_(1)


def swaps_rows(x):
    """Two rows."""
    x[0], x[1] = x[1].clone(), x[0].clone()
    return x


def writes_an_overlap(x):
    """What it reads."""
    x[1:] += x[:-1].clone()
    return x.cumsum(0)


def fills_and_copies(x):
    """fill_, copy_, zero_."""
    y = x.clone()
    x.fill_(2)
    x[0].copy_(y[1])
    y.zero_()
    return x, y


def writes_by_index(x):
    """At index tensors."""
    x[graphc.tensor([0, 1, 0])] = x[1]
    x.index_add_(0, graphc.tensor([1, 1]), x[:2].clone())
    return x


def writes_what_out_names(x):
    """``out=``."""
    graphc.mul(x, 3, out=x)
    return graphc.add(x, 1, out=graphc.empty(3, 2))


def writes_chains(x):
    """Methods one after the other."""
    return x.add_(1).mul_(2).clamp_(-1, 3).neg_()


def writes_a_column_of_windows(x):
    """Views on the way have elements twice."""
    x.unfold(0, 2, 1)[..., 0].add_(1)
    x.view(-1).unfold(0, 4, 1)[1:].diagonal().mul_(3)
    return x


def writes_a_diagonal(x):
    """A strided view."""
    x[:2].diagonal().fill_(7)
    return x.sum(0)


def _writing(function):
    def body(compile: Compile):
        call = compile(function)
        for _ in range(4):
            x = normal(3, 2)
            yield call(x), x

    return body


for _function in (writes_a_row, writes_a_column, writes_through_views, swaps_rows, writes_an_overlap, fills_and_copies,
                  writes_by_index, writes_what_out_names, writes_chains, writes_a_column_of_windows,
                  writes_a_diagonal):  # fmt: skip
    named(_function.__name__, _writing(_function))


@program()
def results_that_are_views(compile: Compile):
    call = compile(lambda x: (x[0], x.t(), x.view(-1), x[1:, :1]))
    for _ in range(4):
        x = normal(3, 2)
        row, turned, flat, part = call(x)
        row.add_(1), turned[0].mul_(2), part.zero_()
        yield x, row, turned, flat, part


@program()
def results_that_share(compile: Compile):
    def f(x):
        y = x * 2
        return y[1:], y[:2], y.view(-1)

    call = compile(f)
    for _ in range(4):
        a, b, c = call(normal(3))
        a.add_(10), c[0].zero_()
        yield a, b, c


def _both(y, x):
    h, turned = y
    h.mul_(3)
    (h * turned).sum().backward()


def _second(y, x):
    first, second = y
    second.mul_(3)
    (first * second).sum().backward()


def _whole(y, x):
    y.add_(1)
    (y * y).sum().backward()


def _off_the_tape(y, x):
    with graphc.no_grad():
        y.add_(1)
    (y * 2).sum().backward()


def whole_and_view(x):
    """A result and a view of it."""
    h = x * 2
    return h, h.t()


def views_that_overlap(x):
    """Views of what is no result."""
    h = x * 2
    return h[:2], h[1:]


def a_turned_result(x):
    """Strides that are not row-major."""
    return (x * 2).t()


def a_part_of_a_result(x):
    """An offset."""
    return (x * 2)[1:, ::2]


def a_view_of_an_argument(x):
    """The argument's memory."""
    return x.view(-1)


def the_argument_itself(x):
    """The very same tensor."""
    return x


def a_saved_result(x):
    """What backward reads."""
    return x.exp()


def _sharing_on_the_tape(function, use):
    def body(compile: Compile):
        call = compile(function)
        for _ in range(3):
            x = leaf(3, 3)
            y = call(x)
            yield y, y is x, outcome(use, y, x), x

    return body


for _function, _use in ((whole_and_view, _both), (views_that_overlap, _second), (a_turned_result, _whole),
                        (a_part_of_a_result, _whole), (a_view_of_an_argument, _whole), (a_view_of_an_argument, _off_the_tape),
                        (the_argument_itself, _off_the_tape), (a_saved_result, _whole)):  # fmt: skip
    named(_function.__name__ + _use.__name__, _sharing_on_the_tape(_function, _use))


@program(2)
def results_that_are_spent(compile: Compile):
    model = mlp()

    def step(x):
        loss = model(x).square().sum()
        loss.backward()
        return loss

    call = compile(step)
    for _ in range(3):
        loss = call(normal(2, 4))
        yield loss, outcome(loss.backward), model


@program()
def views_of_state(compile: Compile):
    state = leaf(2, 3)
    call = compile(lambda x: (state.detach()[1], state, state.t(), x * state))
    for _ in range(3):
        part, same, turned, product = call(normal(2, 3))
        (turned.t() * product).sum().backward()
        yield part, same is state, turned, state


@program()
def arguments_given_back(compile: Compile):
    call = compile(lambda x, y: (x, y * 2, y.detach(), x))
    for _ in range(4):
        x, y = normal(2), normal(2)
        yield call(x, y), x, y


@program()
def state_given_back(compile: Compile):
    state = normal(3)

    def f(x):
        state.add_(x)
        return state, state[1:], state * 2

    call = compile(f)
    for _ in range(4):
        whole, part, double = call(normal(3))
        part.mul_(0.5)
        yield whole is state, whole, part, double


@program(2)
def results_kept_over_calls(compile: Compile):
    call = compile(lambda x: (x + 1, x.exp()))
    kept = []
    for _ in range(6):
        kept.append(call(normal(20)))
        kept[0][0].add_(1)
        yield list(kept)


@program(2)
def results_fed_back(compile: Compile):
    call = compile(lambda x, h: (x + h, h * 0.5 + x))
    h = normal(3)
    for _ in range(5):
        y, h = call(normal(3), h)
        h.mul_(2)
        yield y, h


@program(3)
def the_same_tensor_written(compile: Compile):
    def f(x, y):
        x.mul_(2)
        return y + 1

    call = compile(f)
    x = normal(3)
    yield call(x, normal(3)), x
    yield call(x, x), x
    yield call(x, x[1:].clone()), x


@program(4)
def arguments_that_overlap(compile: Compile):
    def f(x, y):
        x.add_(y)
        return x * y

    call = compile(f)
    for _ in range(2):
        both = normal(4)
        yield call(both[:2], both[2:]), both
        yield call(both[:3], both[1:]), both


@program(2)
def an_argument_that_is_state(compile: Compile):
    state = normal(3)

    def f(x):
        state.add_(1)
        return x * 2

    call = compile(f)
    yield call(normal(3)), state
    yield call(state), state
    yield call(state[:2]), state


@program(2)
def an_argument_that_overlaps_itself(compile: Compile):
    call = compile(lambda x: x.mul_(2))
    for _ in range(2):
        x = normal(3)
        yield outcome(call, x.expand(2, 3)), x


@program()
def buffers_of_history(compile: Compile):
    ring, at = graphc.zeros(3, 2), graphc.zeros((), dtype=graphc.int64)

    def push(x):
        ring[at % 3] = x
        at.add_(1)
        return ring.mean(0)

    call = compile(push)
    for _ in range(5):
        yield call(normal(2)), ring, at


@program()
def writes_of_leaves_without_grad(compile: Compile):
    model = mlp()

    def decay():
        with graphc.no_grad():
            for p in model.parameters():
                p.mul_(0.9).add_(0.1)

    call = compile(decay)
    for _ in range(3):
        call()
        yield model


@program()
def in_place_on_the_tape(compile: Compile):
    def f(x):
        y = x * 2
        y[0] = 0
        y[1:].mul_(x[1:])
        y.add_(1)
        return y

    call = compile(f)
    for _ in range(4):
        x = leaf(3)
        call(x).square().sum().backward()
        yield x


@program(2)
def a_leaf_that_is_written(compile: Compile):
    call = compile(lambda x: x.add_(1))
    x = leaf(3)
    yield outcome(call, x), x
    with graphc.no_grad():
        yield call(x).sum(), x


@program(3)
def gradients_into_an_argument(compile: Compile):
    def f(x, w):
        x.mul_(w)

    call = compile(f)
    for _ in range(2):
        x, w = normal(3), leaf(3)
        call(x, w)
        x.sum().backward()
        yield x.detach(), w


@program()
def memory_of_a_deleted_function(compile: Compile):
    def make():
        kept = normal(4)
        return compile(lambda x: x * kept), weakref.ref(kept)

    call, alive = make()
    y = call(normal(4))
    yield y, alive() is None
    del call
    gc.collect()
    yield y


@program()
def memory_of_a_step_that_ends(compile: Compile):
    model = mlp()
    call = compile(model)
    for _ in range(3):
        y = call(normal(2, 4))
        alive = weakref.ref(y)
        y.sum().backward()
        del y
        gc.collect()
        yield alive() is None, model


@program()
def a_detached_alias(compile: Compile):
    call = compile(lambda x: (x.detach(), x.data, x * 2))
    for _ in range(3):
        x = normal(3)
        a, b, c = call(x)
        a.add_(1)
        yield a is x, x, a, b, c


@program(2)
def a_tensor_resized_outside(compile: Compile):
    state = normal(3)
    call = compile(lambda x: (x + state.sum(), state * 2))
    for i in range(4):
        if i == 2:
            state.data = normal(5)
        yield call(normal(2))


@program()
def the_sign_of_zero(compile: Compile):
    def f(x):
        x.zero_()
        return x.neg()

    call = compile(f)
    for _ in range(3):
        x = normal(3)
        yield call(x), x
