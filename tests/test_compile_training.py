"""Compiled modules, gradients through them, and whole training steps: everything as after eager code, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graph_cases import assert_same_bits
from graphc import nn
from graphc.errors import CompileWarning
from test_compile import arrays, leaf, normal

F = nn.functional


def classifier(seed: int = 0) -> nn.Module:
    graphc.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))


def batch(seed: int = 0, size: int = 5) -> tuple[graphc.Tensor, graphc.Tensor]:
    classes = np.random.default_rng(seed).integers(0, 3, size)
    return normal(size, 6, seed=seed), graphc.tensor(classes)


def state(model: nn.Module) -> list[np.ndarray]:
    return arrays(list(model.state_dict().values()))


def gradients(model: nn.Module) -> list[np.ndarray]:
    return arrays([p.grad for p in model.parameters() if p.grad is not None])


# ---- modules ---------------------------------------------------------------------------------------------------------


def test_a_module_compiles_and_its_attributes_stay_in_reach() -> None:
    model = classifier()
    compiled = graphc.compile(model)
    x, _ = batch()
    assert_same_bits(arrays(compiled(x)), arrays(model(x)))
    assert next(iter(compiled.parameters())) is model[0].weight
    assert compiled.training
    assert set(compiled.state_dict()) == set(model.state_dict())
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        compiled.missing  # noqa: B018


def test_changes_of_parameters_are_seen_without_a_new_trace() -> None:
    model, other = classifier(), classifier(1)
    compiled = graphc.compile(model)
    x, _ = batch()
    compiled(x)
    model.load_state_dict(other.state_dict())
    assert_same_bits(arrays(compiled(x)), arrays(other(x)))
    with graphc.no_grad():
        model[0].weight.mul_(2)
        model[3].bias[1] = 7
    assert_same_bits(arrays(compiled(x)), arrays(model(x)))
    model[0].weight.data = normal(8, 6, seed=9)
    assert_same_bits(arrays(compiled(x)), arrays(model(x)))
    assert compiled.stats()["traces"] == 1


def test_changes_of_attributes_are_seen() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor, self.inner = 2.0, nn.Linear(3, 3)

        def forward(self, x: Any) -> Any:
            return self.inner(x) * self.factor if self.training else x

    model = Scaled()
    compiled = graphc.compile(model)
    x = normal(2, 3)

    def agrees() -> None:
        assert_same_bits(arrays(compiled(x)), arrays(model(x)))

    agrees()
    model.factor = 3.0
    agrees()
    model.eval()
    agrees()
    model.train()
    model.inner = nn.Linear(3, 3, bias=False)
    agrees()
    model.inner.weight = nn.Parameter(normal(3, 3, seed=4))
    agrees()
    model.inner.weight.requires_grad_(False)
    assert not compiled(x).requires_grad
    traces = compiled.stats()["traces"]
    agrees()
    assert compiled.stats()["traces"] == traces


class Averaging(nn.Module):
    """Keeps an average of its results, written in place or as a new tensor."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place, self.linear = in_place, nn.Linear(6, 3)
        self.register_buffer("average", graphc.zeros(3))

    def forward(self, x: Any) -> Any:
        y = self.linear(x)
        fresh = self.average * 0.9 + y.detach().mean(0) * 0.1
        if self.in_place:
            self.average.copy_(fresh)
        else:
            self.average = fresh
        return y * 2


def averages(wrap: Callable[..., Any], in_place: bool) -> list[np.ndarray]:
    graphc.manual_seed(0)
    model = Averaging(in_place)
    call = wrap(model)
    for seed in range(3):
        call(batch(seed)[0]).sum().backward()
    return [*state(model), *gradients(model)]


def test_buffers_written_in_place_are_kept() -> None:
    assert_same_bits(averages(graphc.compile, True), averages(lambda model: model, True))


def test_buffers_assigned_in_forward_are_kept() -> None:
    assert_same_bits(averages(graphc.compile, False), averages(lambda model: model, False))


def test_dropout_draws_the_same_numbers() -> None:
    graphc.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 40), nn.Dropout(0.4))
    compiled = graphc.compile(model)
    x, _ = batch()
    seen = []
    for function in (model, compiled):
        graphc.manual_seed(11)
        seen.append(arrays([function(x), function(x), graphc.rand(3)]))
        assert not np.array_equal(*seen[-1][:2])
    assert_same_bits(seen[1], seen[0])
    model.eval()
    assert_same_bits(arrays(compiled(x)), arrays(model(x)))


@pytest.mark.parametrize("draw", [lambda: graphc.randn(3, 5), lambda: graphc.rand(7), lambda: graphc.randint(0, 9, (11,))])
def test_random_numbers_drawn_inside_are_eagers(draw: Callable[[], Any]) -> None:
    compiled = graphc.compile(lambda: draw())
    seen = []
    for function in (draw, compiled):
        graphc.manual_seed(5)
        seen.append(arrays([function(), function(), draw()]))
    assert_same_bits(seen[1], seen[0])


# ---- gradients through compiled modules ------------------------------------------------------------------------------


def test_gradients_through_a_compiled_module_in_an_eager_loop() -> None:
    results = []
    for wrap in (lambda model: model, graphc.compile):
        model = classifier()
        call = wrap(model)
        optimizer = graphc.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        losses = []
        for seed in range(3):
            x, classes = batch(seed)
            optimizer.zero_grad()
            loss = F.cross_entropy(call(x), classes)
            loss.backward()
            optimizer.step()
            losses.append(loss)
        results.append([*arrays(losses), *gradients(model), *state(model)])
    assert_same_bits(results[1], results[0])


def test_gradients_accumulate_and_the_graph_is_freed() -> None:
    f = graphc.compile(lambda x: (x * x).sum())
    x = leaf(normal(3))
    f(x).backward()
    f(x).backward()
    assert_same_bits(arrays(x.grad), arrays(x * 4))
    y = f(x)
    y.backward(retain_graph=True)
    y.backward()
    assert_same_bits(arrays(x.grad), arrays(x * 8))
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_second_derivatives_through_compiled_code() -> None:
    def f(x: Any, w: Any) -> Any:
        return ((x @ w).tanh() * x.exp().sum(1, keepdim=True)).sum()

    results = []
    for function in (f, graphc.compile(f)):
        x, w = leaf(normal(3, 4)), leaf(normal(4, 2, seed=1))
        first = graphc.autograd.grad(function(x, w), [x, w], create_graph=True)
        (sum((g * g).sum() for g in first)).backward()
        results.append(arrays([*first, x.grad, w.grad]))
    assert_same_bits(results[1], results[0])


def test_gradient_penalties_through_compiled_modules() -> None:
    """Dropout: the numbers drawn in forward are those that the second derivative sees."""
    x, results = normal(5, 6), []
    for wrap in (lambda model: model, graphc.compile):
        graphc.manual_seed(2)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1))
        source = leaf(x)
        (first,) = graphc.autograd.grad(wrap(model)(source).sum(), [source], create_graph=True)
        (first * first).sum().backward()
        results.append([*arrays(first), *gradients(model)])
    assert_same_bits(results[1], results[0])


def test_second_derivatives_of_what_was_modified_are_refused() -> None:
    outside = normal(3, seed=2)

    x = leaf(normal(3))
    y = graphc.compile(lambda x: (x + outside).cumsum(0).exp().sum())(x)
    outside.add_(1)
    graphc.autograd.grad(y, [x], retain_graph=True)
    with pytest.raises(RuntimeError, match=r"create_graph: .*modified since: f32\[3\] \(test_compile_training.py"):
        graphc.autograd.grad(y, [x], create_graph=True)


def test_only_some_arguments_and_results_require_grad() -> None:
    f = graphc.compile(lambda x, y: (x * y, y * 2, x.detach() + 1, (x > 0)))
    x, y = leaf(normal(3)), normal(3, seed=1)
    product, doubled, detached, positive = f(x, y)
    assert [t.requires_grad for t in (product, doubled, detached, positive)] == [True, False, False, False]
    product.sum().backward()
    assert_same_bits(arrays(x.grad), arrays(y))


def test_unused_results_and_unused_arguments() -> None:
    f = graphc.compile(lambda x, y: (x.exp(), x.sin()))
    x, y = leaf(normal(3)), leaf(normal(3, seed=1))
    f(x, y)[1].sum().backward()
    assert_same_bits(arrays(x.grad), arrays(x.cos()))
    assert y.grad is None


def test_writing_to_what_backward_needs_is_an_error() -> None:
    f = graphc.compile(lambda x, y: (x * y).sum())
    x, y = leaf(normal(3)), normal(3, seed=1)
    loss = f(x, y)
    y.add_(1)
    with pytest.raises(RuntimeError, match=r"modified by an in-?place operation"):
        loss.backward()


def test_writing_to_what_backward_does_not_need_is_fine() -> None:
    outside = normal(3, seed=2)
    f = graphc.compile(lambda x, y: (x * 2 + y + outside).sum())
    x, y = leaf(normal(3)), normal(3, seed=1)
    loss = f(x, y)
    y.add_(1)
    outside.zero_()
    loss.backward()
    assert x.grad.tolist() == [2, 2, 2]


def test_backward_sees_states_as_forward_read_them() -> None:
    def run(wrap: Callable[..., Any]) -> list[np.ndarray]:
        count, x = graphc.zeros(3), leaf(normal(3))

        def f(x: Any) -> Any:
            y = (x * (count + 1)).sum()
            count.add_(1)
            return y

        call = wrap(f)
        for _ in range(3):
            call(x).backward()
        return arrays([x.grad, count])

    assert_same_bits(run(graphc.compile), run(lambda f: f))


def test_writing_to_an_outside_tensor_that_backward_needs_is_an_error() -> None:
    outside = normal(3, seed=2)
    loss = graphc.compile(lambda x: (x * outside).sum())(leaf(normal(3)))
    outside.zero_()
    with pytest.raises(RuntimeError, match=r"modified by an in-?place operation"):
        loss.backward()


# ---- training steps --------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda parameters: graphc.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "Adam": lambda parameters: graphc.optim.Adam(parameters, lr=0.01),
    "AdamW": lambda parameters: graphc.optim.AdamW(parameters, lr=0.01, weight_decay=0.1, amsgrad=True),
}


class Training:
    """A model, an optimizer and one step of theirs."""

    def __init__(self, name: str, set_to_none: bool = True, clip: bool = True) -> None:
        self.model = classifier()
        self.optimizer = OPTIMIZERS[name](self.model.parameters())
        self.set_to_none, self.clip = set_to_none, clip

    def step(self, x: Any, classes: Any) -> Any:
        self.optimizer.zero_grad(set_to_none=self.set_to_none)
        loss = F.cross_entropy(self.model(x), classes)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 0.5) if self.clip else None
        self.optimizer.step()
        return loss, norm

    def everything(self) -> list[np.ndarray]:
        kept = [s[name] for s in self.optimizer.state_dict()["state"].values() for name in sorted(s)]
        return [*state(self.model), *gradients(self.model), *arrays(kept)]


@pytest.mark.parametrize("set_to_none", [True, False], ids=["none", "zeros"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_step_is_eagers(name: str, set_to_none: bool) -> None:
    eager, compiled = (Training(name, set_to_none, clip=set_to_none) for _ in range(2))
    step = graphc.compile(compiled.step)
    for seed in range(4):
        if seed == 2:
            for training in (eager, compiled):
                training.optimizer.param_groups[0]["lr"] = 0.003
        wanted, got = eager.step(*batch(seed)), step(*batch(seed))
        assert_same_bits(arrays(got), arrays(wanted), f"step {seed}: loss and norm")
        assert_same_bits(compiled.everything(), eager.everything(), f"step {seed}")
        if seed == 1:
            before = step.stats()["traces"]
    assert step.stats()["traces"] == before <= 2
    assert step.stats()["fallbacks"] == []


def test_eager_and_compiled_steps_may_alternate() -> None:
    eager, mixed = Training("Adam"), Training("Adam")
    step = graphc.compile(mixed.step)
    for seed in range(5):
        eager.step(*batch(seed))
        (step if seed % 2 else mixed.step)(*batch(seed))
    assert_same_bits(mixed.everything(), eager.everything())


def test_a_failed_step_leaves_everything_as_it_was() -> None:
    graphc.manual_seed(0)
    table = nn.Embedding(4, 3)
    optimizer = graphc.optim.Adam(table.parameters(), lr=0.1)

    @graphc.compile
    def step(tokens: Any) -> Any:
        optimizer.zero_grad()
        loss = table(tokens).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    def everything() -> list[np.ndarray]:
        kept = optimizer.state_dict()["state"][0]
        return [a.copy() for a in arrays([table.weight, table.weight.grad, *kept.values()])]

    step(graphc.tensor([1, 1, 2]))
    step(graphc.tensor([1, 1, 2]))
    before, version = everything(), table.weight._version
    for bad in ([1, 9, 2], [-5, 0, 1]):
        with pytest.raises(IndexError, match=r"embedding: index out of range.*test_compile_training.py:\d+|embedding.*layers.py"):
            step(graphc.tensor(bad))
        assert_same_bits(everything(), before)
        assert table.weight._version == version
    step(graphc.tensor([3, 3, 3]))
    assert not np.array_equal(everything()[0], before[0])


def test_a_loss_kept_from_an_earlier_step_stays() -> None:
    training = Training("SGD")
    step = graphc.compile(training.step)
    losses = [step(*batch(seed))[0] for seed in range(4)]
    values = [x.item() for x in losses]
    gradient = training.model[0].weight.grad
    kept = gradient.numpy().copy()
    step(*batch(9))
    assert [x.item() for x in losses] == values
    assert len(set(values)) == 4
    assert np.array_equal(gradient.numpy(), kept)


def test_a_parameter_as_an_argument_of_the_step() -> None:
    def run(wrap: Callable[..., Any]) -> list[np.ndarray]:
        training = Training("SGD")
        weight = training.model[0].weight

        def step(x: Any, classes: Any, shared: Any) -> Any:
            loss, _ = training.step(x, classes)
            return loss + (shared * 2).sum().detach()

        call = wrap(step)
        losses = [call(*batch(seed), weight.detach()) for seed in range(2)]
        return [*arrays(losses), *training.everything()]

    wanted = run(lambda f: f)
    with pytest.warns(CompileWarning, match="step runs eagerly: an argument shares memory"):
        assert_same_bits(run(graphc.compile), wanted)


def test_gradients_accumulated_over_two_calls() -> None:
    def run(wrap: Callable[..., Any]) -> list[np.ndarray]:
        model = classifier()

        def accumulate(x: Any, classes: Any) -> Any:
            loss = F.cross_entropy(model(x), classes) / 2
            loss.backward()
            return loss

        call = wrap(accumulate)
        losses = [call(*batch(seed)) for seed in range(3)]
        return [*arrays(losses), *gradients(model)]

    assert_same_bits(run(graphc.compile), run(lambda f: f))


def test_a_copied_model_is_another() -> None:
    model = classifier()
    x, _ = batch()
    compiled = graphc.compile(model)
    twin = copy.deepcopy(model)
    with graphc.no_grad():
        twin[0].weight.zero_()
    assert_same_bits(arrays(compiled(x)), arrays(model(x)))
    assert_same_bits(arrays(graphc.compile(twin)(x)), arrays(twin(x)))


# ---- gradients that do not arrive ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 4, 5])
@pytest.mark.parametrize("present", [(0,), (1,), (2,), (3,), (0, 2), (1, 3), (0, 1, 2, 3)], ids=str)
def test_results_without_a_gradient_add_nothing(present: tuple[int, ...], size: int) -> None:
    def function(x: Any, w: Any) -> Any:
        a = x * w
        return a.sum(), a.log().sum(), x + 0.0, w * 2

    def gradients(f: Any, again: bool) -> list[Any]:
        found: list[Any] = []
        for n in (3, size):  # the second with symbolic sizes
            x = graphc.tensor([0.0, -0.0, 2.0, 1.0, 1.0][:n]).requires_grad_()
            w = graphc.tensor([-0.0, 0.0, 3.0, 0.0, 1.0][:n]).requires_grad_()
            results = f(x, w)
            given = [graphc.full_like(results[i], -0.0, requires_grad=True) for i in present]
            made = graphc.autograd.grad([results[i] for i in present], (x, w), given, create_graph=again, allow_unused=True)
            found += [g if g is None else g.detach().numpy().tobytes() for g in made]
        return found

    for again in (False, True):
        assert gradients(graphc.compile(function), again) == gradients(function, again)


def test_a_backward_that_reads_elements() -> None:
    class Scaled(graphc.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return g * 2 if (g if of_gradient else x).sum() > 0 else g

    of_gradient = True
    x = graphc.ones(2, requires_grad=True)
    with pytest.warns(CompileWarning, match="runs eagerly: backward reads elements of a gradient"):
        graphc.compile(Scaled.apply)(x).sum().backward()
    assert x.grad.tolist() == [2, 2]
    of_gradient = False
    compiled = graphc.compile(lambda x: (Scaled.apply(x), x * 3))
    for value in (1.0, -1.0, 2.0):
        x = graphc.full((2,), value, requires_grad=True)
        compiled(x)[0].sum().backward()
        assert x.grad.tolist() == ([2, 2] if value > 0 else [1, 1])
