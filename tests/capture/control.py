"""Capture programs: Python that asks tensors: branches, loops, returns, assertions, numbers, shapes that elements decide."""

from __future__ import annotations

import math

import graphc
from capture.harness import Compile, leaf, mlp, normal, outcome, program
from capture.inference import named
from graphc import nn, optim

F = nn.functional


def branch(x):
    """Two ways."""
    if x.sum() > 0:
        return x * 2
    return x - 1


def several_branches(x):
    """Four ways, nested."""
    if x.max() > 1:
        y = x.exp() if x.min() < -1 else x.tanh()
    elif x.mean() > 0:
        y = x * x
    else:
        y = -x
    return y + 1


def condition_expression(x):
    """``a if b else c`` with ``and`` and ``not``."""
    return (x * 2 if x[0] > 0 and not x[1] > 0 else x / 2).sum()


def while_loop(x):
    """Until it is large."""
    while x.abs().sum() < 10:
        x = x * 2
    return x


def for_with_break(x):
    """At most five times."""
    for _ in range(5):
        x = x + x.abs()
        if x.max() > 3:
            break
    return x


def for_with_continue(x):
    """Some rows."""
    total = x.new_zeros(())
    for row in x.unbind(0):
        if row < 0:
            continue
        total = total + row * row
    return total


def for_else(x):
    """Whether any is large."""
    for row in x:
        if row > 1:
            y = x * 3
            break
    else:
        y = x / 3
    return y


def early_return(x):
    """From the middle of a loop."""
    for i in range(4):
        if x[i] > 0.5:
            return x * i
    return x.sum()


def recursion(x, depth=0):
    """As deep as elements say."""
    return x if depth == 4 or x.abs().max() > 4 else recursion(x * 1.5, depth + 1)


def assertion(x):
    """That holds."""
    assert (x > -90).all(), "too small"
    return (x * x + 1).sqrt()


def caught_error(x):
    """Raised and caught."""
    try:
        if x.sum() > 0:
            raise ValueError("positive")
        return x * 2
    except ValueError:
        return -x
    finally:
        x = None


def item_of_float(x):
    """Returned, and computed with."""
    return x * x.detach().sum().item()


def item_that_decides(x):
    """A float that Python compares."""
    mean = x.mean().item()
    return x * 2 if mean > 0.1 else x + mean


def int_of_count(x):
    """An int from a count."""
    return x * int((x > 0).sum())


def float_of_norm(x):
    """A float from a norm."""
    return x / (float(x.detach().norm()) + 1)


def bool_of_all(x):
    """A bool."""
    return x * 1 if bool((x > -0.5).all()) else x.clamp(min=-0.5)


def list_of_elements(x):
    """All elements."""
    return x * sum(1 for value in x.tolist() if value > 0)


def maximum_index(x):
    """An index that elements decide."""
    return x[int(x.argmax())] * x


def length_of_slice(x):
    """A slice that elements decide."""
    return x[: int((x > 0).sum())].sum() + x.sum()


def nested_loops(x):
    """A loop in a loop, each until a condition."""
    for _ in range(2):
        while x.abs().max() < 1:
            x = x * 2
        x = x - 0.5
    return x


def newton(x):
    """Roots, as precise as asked for."""
    y = x.abs() + 1
    for _ in range(10):
        fresh = 0.5 * (y + x.abs() / y)
        if (fresh - y).abs().max() < 1e-3:
            return fresh
        y = fresh
    return y


def dispatch_table(x):
    """A function chosen by an element."""
    return [graphc.sin, graphc.tanh, graphc.exp][int(x.argmax()) % 3](x)


def matching(x):
    """``match`` on a number."""
    match int((x > 0).sum()):
        case 0 | 1:
            return x * 2
        case 2:
            return x.exp()
        case _:
            return x - x.mean()


CONTROL = [branch, several_branches, condition_expression, while_loop, for_with_break, for_with_continue, for_else, early_return,
           recursion, assertion, caught_error, item_of_float, item_that_decides, int_of_count, float_of_norm, bool_of_all,
           list_of_elements, maximum_index, length_of_slice, nested_loops, newton, dispatch_table, matching]  # fmt: skip


def _with_gradients(function):
    def body(compile: Compile):
        call = compile(function)
        for _ in range(6):
            x = leaf(4)
            y = call(x)
            y.square().sum().backward()
            yield y, x
        with graphc.no_grad():
            yield call(normal(4))

    return body


for _function in CONTROL:
    named(_function.__name__, _with_gradients(_function), 9)


@program(4)
def numbers_that_are_returned(compile: Compile):
    call = compile(lambda x: (x.sum().item(), int(x.argmax()), bool(x.any()), (x > 0).tolist(), x.mean().item() * 2 + 1))
    for value in (1.0, 2.0, 1.0, 2.0):
        yield call(graphc.tensor([value, -1.0, 0.5]))


@program(4)
def an_assertion_that_fails(compile: Compile):
    def checked(x):
        assert x.min() > 0, "not positive"
        return x.sqrt()

    call = compile(checked)
    for value in (1.0, -1.0, 2.0, -2.0, 3.0):
        yield outcome(call, graphc.tensor([value]))


@program(4)
def a_branch_in_a_module(compile: Compile):
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.small, self.large = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.small(x) if x.norm() < 1.7 else self.large(x).relu()

    module = Gated()
    call = compile(module)
    for _ in range(6):
        module.zero_grad()
        call(normal(3)).sum().backward()
        yield module


@program(4)
def a_branch_that_writes_state(compile: Compile):
    count = graphc.zeros(2)

    def f(x):
        if x.sum() > 0:
            count[0] += 1
            return x * count[0]
        count[1] += x.sum()
        return x

    call = compile(f)
    for _ in range(6):
        yield call(normal(3)), count


@program(4)
def random_numbers_on_some_paths(compile: Compile):
    def f(x):
        if x.sum() > 0:
            x = F.dropout(x, 0.5)
        return x + graphc.rand(3) if x.max() > 0 else x

    call = compile(f)
    for _ in range(6):
        yield call(normal(3))


@program(5)
def early_stopping(compile: Compile):
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.5)

    def step(x, best):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        if loss.item() > best:
            return best, False
        optimizer.step()
        return loss.item(), True

    call = compile(step)
    best, x = math.inf, normal(3, 4)
    for i in range(5):
        best, better = call(x * (3 if i == 2 else 1), best if math.isfinite(best) else 1e9)
        best = 1e9 if i % 2 == 0 else best
        yield better, model


@program(6)
def decoding_until_the_end(compile: Compile):
    table, out = nn.Embedding(5, 3), nn.Linear(3, 5)

    def decode(token):
        found = [token]
        while len(found) < 4 and found[-1].item() != 0:
            found.append(out(table(found[-1])).argmax(-1))
        return graphc.stack(found)

    call = compile(decode)
    with graphc.no_grad():
        for i in (1, 2, 3, 4, 1, 2):
            yield call(graphc.tensor(i))


# ---- shapes that elements decide ------------------------------------------------------------------------------------


def mask_of_positive(x):
    """A boolean mask."""
    return x[x > 0] * 2


def positions(x):
    """nonzero."""
    return graphc.nonzero(x > 0).float() * x.sum()


def unique_values(x):
    """unique."""
    return graphc.unique(x.round()) * x.sum()


def chosen_elements(x):
    """masked_select."""
    return x.masked_select(x < 0.5).sum() + x


def rows_of_where(x):
    """where with one argument."""
    return x[graphc.where(x > 0)[0]] * 3


def repeated_rows(x):
    """repeat_interleave by a tensor."""
    return x.repeat_interleave((x > 0).long() + 1) * 2


SIZED = [mask_of_positive, positions, unique_values, chosen_elements, rows_of_where, repeated_rows]


def _sized(function):
    def body(compile: Compile):
        call = compile(function)
        for _ in range(4):
            x = leaf(4)
            y = call(x)
            if y.requires_grad:
                y.square().sum().backward()
            yield y.detach(), x

    return body


for _function in SIZED:
    named(_function.__name__, _sized(_function), 12)


@program(6)
def a_mask_written_to(compile: Compile):
    def f(x):
        x = x.clone()
        x[x > 0] = 0
        x[x < -1] *= 2
        return x

    call = compile(f)
    for _ in range(4):
        yield call(normal(4))


@program(40)
def sizes_from_elements(compile: Compile):
    call = compile(lambda n, x: (graphc.zeros(int(n)) + x[: int(n)], x.reshape(int(n), -1)))
    for n in (1, 2, 4, 2, 1, 4):
        yield call(graphc.tensor(n), normal(4))
