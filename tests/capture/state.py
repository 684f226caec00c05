"""Capture programs: what the code reads besides its arguments, changed between calls; containers as arguments and results."""

from __future__ import annotations

import functools
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import graphc
from capture.harness import Compile, leaf, mlp, normal, program
from graphc import nn

F = nn.functional
FACTOR = 2.0
MODE = "double"


def set_globals(factor: float = 2.0, mode: str = "double") -> None:
    """Change what programs read."""
    global FACTOR, MODE
    FACTOR, MODE = factor, mode


@program(4)
def a_global_number(compile: Compile):
    call = compile(lambda x: x * FACTOR)
    for factor in (2.0, 3.0, 2.0, 3.0, 4.0):
        set_globals(factor)
        yield call(normal(3))
    set_globals()


@program(3)
def a_global_string(compile: Compile):
    call = compile(lambda x: x * 2 if MODE == "double" else x - 1)
    for mode in ("double", "other", "double", "third"):
        set_globals(mode=mode)
        yield call(normal(3))
    set_globals()


@program(3)
def a_closure_cell(compile: Compile):
    power = 1

    def f(x):
        return x**power

    call = compile(f)
    for power in (1, 2, 3, 1, 2):  # noqa: B007
        yield call(normal(3))


@program(3)
def a_closure_that_holds_tensors(compile: Compile):
    bias = normal(3)

    def f(x):
        return x + bias

    call = compile(f)
    for i in range(6):
        if i == 2:
            bias.mul_(2)
        if i == 4:
            bias = normal(3)
        yield call(normal(3))


@program(3)
def default_values(compile: Compile):
    def f(x, scale=2.0, shift=None):
        return x * scale if shift is None else x * scale + shift

    call = compile(f)
    for kwargs in ({}, {"scale": 3.0}, {"shift": normal(3)}, {}, {"shift": normal(3)}):
        yield call(normal(3), **kwargs)


@program(4)
def numbers_as_arguments(compile: Compile):
    call = compile(lambda x, n, flag: x * n if flag else x + n)
    for n, flag in ((2, True), (2, False), (2.0, True), (3, True), (2, True)):
        yield call(normal(3), n, flag)


@program(4)
def an_attribute(compile: Compile):
    model = mlp()
    model.scale = 2.0
    call = compile(lambda x: model(x) * model.scale)
    for scale in (2.0, 2.0, 3.0, 2.0, None):
        model.scale = 5.0 if scale is None else scale
        yield call(normal(2, 4)), model


@program(2)
def an_attribute_that_counts(compile: Compile):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x * 2

    module = Counting()
    call = compile(module)
    for _ in range(5):
        yield call(normal(3)), module.calls


@program(3)
def an_attribute_that_keeps(compile: Compile):
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.kept = nn.Linear(3, 3), None

        def forward(self, x):
            y = self.linear(x) if self.kept is None else self.linear(x) + self.kept
            self.kept = y.detach()
            return y

    module = Keeping()
    call = compile(module)
    for i in range(6):
        call(normal(2, 3)).sum().backward()
        yield module, module.kept
        if i == 3:
            module.kept = None


@program(4)
def running_statistics(compile: Compile):
    model = nn.BatchNorm1d(3, momentum=None)
    call = compile(model)
    for training in (True, True, False, True):
        model.train(training)
        yield call(normal(4, 3)).detach(), model


@program(2)
def buffers_assigned(compile: Compile):
    class Averaging(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", graphc.zeros(3))

        def forward(self, x):
            self.mean = self.mean * 0.5 + x.mean(0)
            return x - self.mean

    module = Averaging()
    call = compile(module)
    for _ in range(5):
        yield call(normal(2, 3)), module.mean, list(module.state_dict())


@program(4)
def hooks_added_and_removed(compile: Compile):
    model = mlp()
    call = compile(model)
    for i in range(6):
        if i == 2:
            handle = model[1].register_forward_hook(lambda module, args, y: y * 2)
        if i == 4:
            handle.remove()
        yield call(normal(2, 4))


@program(3)
def a_pre_hook(compile: Compile):
    model = mlp()
    model.register_forward_pre_hook(lambda module, args: (args[0] * 3,))
    call = compile(model)
    for _ in range(3):
        call(normal(2, 4)).sum().backward()
        yield model


@program(3)
def a_parameter_replaced(compile: Compile):
    model = mlp()
    call = compile(model)
    for i in range(5):
        if i == 2:
            model[0].weight = nn.Parameter(normal(5, 4))
        call(normal(2, 4)).sum().backward()
        yield model


@program(4)
def a_module_swapped_in_a_list(compile: Compile):
    layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])

    def f(x):
        for layer in layers:
            x = layer(x).tanh()
        return x

    call = compile(f)
    for i in range(5):
        if i == 2:
            layers.append(nn.Linear(3, 3))
        if i == 4:
            layers[0] = nn.Identity()
        yield call(normal(2, 3))


@program(4)
def requires_grad_switched(compile: Compile):
    model = mlp()
    call = compile(model)
    for flag in (True, False, True, False):
        model.requires_grad_(flag)
        y = call(normal(2, 4))
        yield y.requires_grad, y.detach()


@program(2)
def a_partial(compile: Compile):
    call = compile(functools.partial(lambda scale, x: x * scale, 3.0))
    other = compile(functools.partial(lambda scale, x: x * scale, 4.0))
    for _ in range(3):
        yield call(normal(3)), other(normal(3))


@program(2)
def a_callable_object(compile: Compile):
    class Scaling:
        def __init__(self, by):
            self.by = by

        def __call__(self, x):
            return x * self.by

    call = compile(Scaling(normal(3)))
    for _ in range(3):
        yield call(normal(2, 3))


@program()
def compiled_inside_compiled(compile: Compile):
    inner = compile(lambda x: x.tanh() * 2)
    outer = compile(lambda x: inner(x) + inner(x * 2))
    for _ in range(3):
        x = leaf(3)
        outer(x).sum().backward()
        yield x


@program(2)
def the_generator_reseeded(compile: Compile):
    call = compile(lambda: graphc.randn(3) + graphc.rand(3))
    for seed in (1, 2, 1):
        graphc.manual_seed(seed)
        yield call(), call()


@program(1)
def a_generator_of_its_own(compile: Compile):
    generator = graphc.Generator().manual_seed(3)
    call = compile(lambda x: x + graphc.rand(3, generator=generator))
    for _ in range(4):
        yield call(normal(3)), generator.get_state()


# ---- containers ----------------------------------------------------------------------------------------------------


Pair = namedtuple("Pair", "first second")


@dataclass
class Batch:
    """Inputs of a call."""

    x: Any
    mask: Any = None


@program(2)
def dicts_in_and_out(compile: Compile):
    call = compile(lambda d: {"sum": d["a"] + d["b"], "parts": [d["a"] * 2, None], "n": 3})
    for _ in range(3):
        yield call({"a": normal(3), "b": normal(3)})
    yield call({"b": normal(3), "a": normal(3)})


@program()
def an_ordered_dict(compile: Compile):
    call = compile(lambda d: OrderedDict((k, v * 2) for k, v in d.items()))
    for _ in range(3):
        yield call(OrderedDict(z=normal(2), a=normal(3)))


@program()
def named_tuples(compile: Compile):
    call = compile(lambda p: Pair(p.second * 2, (p.first, [p.second])))
    for _ in range(3):
        yield call(Pair(normal(3), normal(2)))


@program(4)
def dataclasses_as_results(compile: Compile):
    call = compile(lambda x: Batch(x * 2, mask=x > 0).mask & (x < 1))
    for _ in range(3):
        yield call(normal(3))


@program(3)
def optional_arguments(compile: Compile):
    call = compile(lambda x, mask=None: x if mask is None else x.masked_fill(mask, 0))
    for i in range(4):
        yield call(normal(3) * 2, None if i % 2 else normal(3) > 0)


@program(3)
def lists_of_different_lengths(compile: Compile):
    call = compile(lambda xs: graphc.cat([x * 2 for x in xs]))
    for n in (2, 3, 2, 1, 3):
        yield call([normal(2) for _ in range(n)])


@program()
def nested_structures(compile: Compile):
    def f(tree):
        (a, [b, table]), d = tree
        c = table["c"]
        return {"x": (a + b, [c * d, {"y": a}]), "none": None, "text": "text"}

    call = compile(f)
    for _ in range(3):
        yield call(((normal(2), [normal(2), {"c": normal(2)}]), normal(2)))


@program()
def gradients_through_containers(compile: Compile):
    call = compile(lambda d, *rest, **more: {"a": d["x"] * rest[0], "b": [more["y"].sum()]})
    for _ in range(3):
        x, r, y = leaf(3), leaf(3), leaf(2)
        out = call({"x": x}, r, y=y)
        (out["a"].sum() + out["b"][0]).backward()
        yield x, r, y


@program()
def star_arguments(compile: Compile):
    call = compile(lambda *xs, scale=1.0: sum(x * scale for x in xs))
    for _ in range(3):
        yield call(normal(2), normal(2), normal(2), scale=2.0)


@program()
def a_cache_of_keys_and_values(compile: Compile):
    def step(x, cache):
        k = graphc.cat([cache["k"], x]) if cache["k"] is not None else x
        return (x @ k.T).softmax(-1) @ k, {"k": k[-3:]}

    call = compile(step)
    cache = {"k": normal(3, 2)}
    for _ in range(4):
        y, cache = call(normal(1, 2), cache)
        yield y, cache


@program()
def the_same_tensor_twice(compile: Compile):
    call = compile(lambda a, b: (a * b, a is b, [a, a]))
    for _ in range(3):
        x, y = normal(3), normal(3)
        yield call(x, y)


@program(2)
def results_that_are_numbers(compile: Compile):
    call = compile(lambda x: (x.shape, x.ndim, len(x), x.dtype is graphc.float32, x.numel() * 2, "text", None, 1.5))
    for n in (3, 3, 3):
        yield call(normal(n, 2)), n
