"""Compiled code whose shapes depend on elements, with or without open sizes: eager results, gradients and errors at every count."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import graphc
import graphc.nn.functional as F
from graphc import nn, optim
from graphc.capture.stages import computing, resumed
from graphc.errors import CompileWarning
from graphc.ir.text import parse_graph, print_graph


def bits(x: Any) -> Any:
    return (x.dtype, tuple(x.shape), x.detach().numpy().tobytes()) if isinstance(x, graphc.Tensor) else repr(x)


def parts(result: Any) -> list[Any]:
    return [bits(x) for x in graphc.utils._pytree.tree_flatten(result)[0]]


def programs(compiled: Any) -> int:
    stats = compiled.stats()
    return int(stats["compiles"] + stats["cache_hits"])


def of_counts(size: int = 8) -> list[Any]:
    """Vectors with 3, 0, 5, 1, ... positive elements."""
    graphc.manual_seed(0)
    order = [3, 0, 5, 1, 4, 2, size, 3, 0, 1, 6]
    return [(graphc.rand(size) + 0.25) * graphc.where(graphc.randperm(size) < k, 2.0, -1.0) for k in order]


def unique(x: Any) -> Any:
    values, inverse, counts = graphc.unique(x.round(), return_inverse=True, return_counts=True)
    return values * 2, inverse + 1, counts, values[inverse] - x


def pooled(x: Any) -> Any:
    values, group = graphc.unique(x.round(), return_inverse=True)
    return graphc.zeros(values.shape[0]).index_add(0, group, x) / graphc.bincount(group)  # whose sizes are the same


def written(x: Any) -> Any:
    y = x * 1
    y[x > 0] = x[x > 0] * 3
    y[y < 0] *= -1
    return y


def branch_on_count(x: Any) -> Any:
    places = x.gt(0).nonzero()
    return x[places[:, 0]] * 2 if places.shape[0] > 2 else x


def parity(x: Any) -> Any:
    y = x[x > 0]
    return y * 2 if y.shape[0] % 2 == 0 else y.sum()


def all_of_them(x: Any) -> Any:
    y = x[x > 0]
    return y + 1 if y.shape == x.shape else y * 2


def read_too(x: Any) -> Any:
    y = x[x > 0]
    return y.softmax(0) if y.sum() > 6 else (y.sum(), x)


def nested(x: Any) -> Any:
    y = x[x > 0]
    return graphc.cat([y, y[y > 1.0], x])


CASES: list[Any] = [
    pytest.param(lambda x: x[x > 0] * 2, 8, id="mask"),
    pytest.param(lambda x: x.relu().nonzero() + 1, 6, id="nonzero"),
    pytest.param(lambda x: x[graphc.where(x > 0)[0]] * x.sum(), 9, id="where"),
    pytest.param(lambda x: graphc.masked_select(x, x > 0.5).sum(), 8, id="masked_select"),
    pytest.param(lambda x: graphc.argwhere(x > 0)[:, 0] * 2, 6, id="argwhere"),
    pytest.param(lambda x: graphc.unique_consecutive(x.round()) + 1, 4, id="unique_consecutive"),
    pytest.param(lambda x: x.repeat_interleave((x > 0).long() + 1) * 2, 6, id="repeat_interleave"),
    pytest.param(lambda x: graphc.bincount((x.abs() * 2).long()) * 2, 4, id="bincount"),
    pytest.param(lambda x: graphc.bincount((x > 0).long(), minlength=2) * x[:2], 3, id="a least length"),
    pytest.param(lambda x: x[x > 0].unsqueeze(1) @ x[x > 0].unsqueeze(0), 9, id="product"),
    pytest.param(unique, 4, id="unique"),
    pytest.param(pooled, 2, id="two equal counts"),
    pytest.param(written, 14, id="written"),
    pytest.param(branch_on_count, 8, id="branch"),
    pytest.param(parity, 12, id="parity"),
    pytest.param(all_of_them, 14, id="all"),
    pytest.param(read_too, 14, id="read"),
    pytest.param(nested, 20, id="nested"),
]


@pytest.mark.parametrize(("function", "most"), CASES)
def test_every_count_is_eagers(function: Callable[..., Any], most: int) -> None:
    compiled = graphc.compile(function, fullgraph=True)
    for x in of_counts():
        assert parts(compiled(x.clone())) == parts(function(x.clone()))
    assert programs(compiled) <= most  # those of counts 0 and 1 among them


@pytest.mark.parametrize("function", [CASES[i].values[0] for i in (0, 9, 12, 16)])
def test_gradients_at_every_count(function: Callable[..., Any]) -> None:
    compiled = graphc.compile(function, fullgraph=True)
    for x in of_counts()[:5]:
        found = []
        for f in (compiled, function):
            leaf = x.clone().requires_grad_()
            result = f(leaf)
            last = result if isinstance(result, graphc.Tensor) else result[-1] if len(result) == 4 else result[0]
            last.square().sum().backward()
            found.append(bits(leaf.grad))
        assert found[0] == found[1]


def test_counts_and_batch_sizes_share_a_program() -> None:
    model = nn.Linear(4, 3)

    def function(x: Any) -> Any:
        y = model(x)
        if y.max() > 0.4:
            y = y.softmax(-1)
        chosen = y[y.sum(1) > 0.2]
        return chosen.square().sum() if chosen.shape[0] else y.sum()

    graphc.manual_seed(1)
    compiled = graphc.compile(function, fullgraph=True)
    for size in (5, 8, 17, 33, 2, 64):
        x, found = graphc.randn(size, 4), []
        for f in (compiled, function):
            model.zero_grad()
            leaf = x.clone().requires_grad_()
            result = f(leaf)
            result.backward()
            found.append([bits(t) for t in (result, leaf.grad, *(p.grad for p in model.parameters()))])
        assert found[0] == found[1], size
    assert compiled.stats()["traces"] <= 5 and not compiled.stats()["numbers"]


def test_two_compilations_a_path_serve_30_batch_sizes() -> None:
    compiled = graphc.compile(lambda x: x * 2 if x.sum() > 0 else x - 1)
    for size in range(2, 32):
        for sign in (1.0, -1.0):
            x = graphc.full((size, 3), sign)
            assert bits(compiled(x)) == bits(x * 2 if sign > 0 else x - 1)
    assert programs(compiled) == 6  # for the first size and for all: the question, and a program for each answer
    assert compiled.stats()["traces"] == 4


def test_sizes_that_the_code_asks_about_are_questions_too() -> None:
    def function(x: Any) -> Any:
        y = x * 2 if x.shape[0] > 8 else x + 1
        if y.sum() > 0:
            return y - x.shape[0]
        return y.reshape(-1, 2) if x.shape[0] % 2 == 0 else y

    compiled = graphc.compile(function, fullgraph=True)
    for size in (4, 12, 5, 20, 6, 7, 30, 8, 9, 15):
        for sign in (1.0, -2.0):
            x = graphc.full((size, 3), sign)
            assert bits(compiled(x)) == bits(function(x))
    assert not compiled.stats()["numbers"] and compiled.stats()["traces"] <= 12


def test_a_long_loop_computes_nothing_twice() -> None:
    def function(x: Any, w: Any) -> Any:
        steps = 0
        while steps < 30 and x.abs().max() > 0.1:
            x = (x @ w).tanh()
            steps += 1
        return x, steps

    compiled = graphc.compile(function, fullgraph=True)
    x, w = graphc.ones(4, 4), graphc.eye(4)
    for scale in (1.0, 0.5, 1.0, 0.9):
        assert parts(compiled(x, w * scale)) == parts(function(x, w * scale))
    assert programs(compiled) <= 8  # one for all questions but the first, not one for each
    found = []
    for f in (compiled, function):
        leaf = (w * 0.9).requires_grad_()
        f(x, leaf)[0].sum().backward()
        found.append(bits(leaf.grad))
    assert found[0] == found[1]


def test_training_steps_on_chosen_rows() -> None:
    def made() -> tuple[nn.Module, Callable[..., Any]]:
        graphc.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
        optimizer = optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)

        def step(x: Any, t: Any) -> Any:
            optimizer.zero_grad()
            y = model(x)
            loss = F.cross_entropy(y[t >= 0], t[t >= 0])
            loss.backward()
            if not graphc.isfinite(loss):
                return None
            optimizer.step()
            return loss.item()

        return model, step

    (first, step), (second, eager) = made(), made()
    compiled, results = graphc.compile(step, fullgraph=True), []
    for f in (compiled, eager):
        graphc.manual_seed(5)
        results.append([parts(f(graphc.randn(10, 6), graphc.randint(-1, 3, (10,)))) for _ in range(5)])
    assert results[0] == results[1]
    assert [bits(x) for x in first.state_dict().values()] == [bits(x) for x in second.state_dict().values()]


def test_second_derivatives_through_what_was_found() -> None:
    def function(x: Any) -> Any:
        y = F.dropout(x, 0.5, True) ** 3
        z = y * x if y.sum() > 0 else y - x
        return (z[z > 0] ** 2).sum()

    found = []
    for f in (function, graphc.compile(function, fullgraph=True)):
        graphc.manual_seed(3)
        for _ in range(4):
            x = graphc.randn(9, requires_grad=True)
            (g,) = graphc.autograd.grad(f(x), x, create_graph=True)
            found.append((bits(g), bits(graphc.autograd.grad(g.sum(), x)[0])))
    assert found[:4] == found[4:]


def test_state_is_written_after_all_questions() -> None:
    total = graphc.zeros(3)

    def function(x: Any) -> Any:
        total.add_(x.sum())
        y = total * x[x > 0].sum()
        if y.sum() > 4:
            total.mul_(0.5)
            if x[0] > 8:
                raise ValueError("large")
        return y

    compiled = graphc.compile(function, fullgraph=True)
    found = []
    for f in (compiled, function):
        total.fill_(0)
        for values in ([1.0, 2, -1], [3.0, -1, -1], [1.0, 2, 3], [9.0, 1, 1], [1.0, -1, 1]):
            before = bits(total)
            try:
                found.append((bits(f(graphc.tensor(values))), bits(total)))
            except ValueError as error:  # eager code has written by then
                found.append((str(error), before if f is compiled else None))
                total.copy_(graphc.tensor([2.0, 2.0, 2.0]))
    assert [x[0] for x in found[:5]] == [x[0] for x in found[5:]]
    assert all(a == b for a, b in zip(found[:5], found[5:], strict=True) if a[0] != "large")


def test_errors_are_those_of_eager_code() -> None:
    def function(x: Any, y: Any) -> Any:
        places = x.nonzero()[:, 0]
        if places.shape[0] > 3:
            raise ValueError("many")
        return y[places] + graphc.bincount(x.long())[1]

    compiled = graphc.compile(function, fullgraph=True)
    y = graphc.arange(4) * 1.0
    rows = ([1, 0, 0, 0, 1], [1, 1, 0, 0, 0], [1] * 5, [1, 1, 1, 0, 0], [0, 0, 1, 1, 0], [-1, 0, 0, 0, 0], [0, 1, 0, 0, 0])

    def outcome(f: Callable[..., Any], row: list[int]) -> Any:
        try:
            return bits(f(graphc.tensor(row), y))
        except (ValueError, IndexError, RuntimeError) as error:
            return type(error)

    for row in (*rows, *rows):
        assert outcome(compiled, row) == outcome(function, row), row


def test_numbers_of_counts_end_in_eager_code() -> None:
    def function(x: Any) -> Any:
        return x[x > 0] / sum(range(x[x > 0].shape[0]))

    compiled = graphc.compile(function)
    given = [(graphc.arange(24) < count) * 1.0 for count in range(2, 20)]
    with pytest.warns(CompileWarning, match="was more than 16 different ones"):
        found = [bits(compiled(x)) for x in given]
    assert found == [bits(function(x)) for x in given]


def test_counts_in_results_attributes_and_constants() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", graphc.zeros(()))

        def forward(self, x: Any) -> Any:
            weights = graphc.tensor([1.0, 2.0, 3.0, 4.0])
            chosen = (x * weights)[x > 0]
            self.seen += chosen.shape[0]
            self.last = chosen
            return chosen.shape[0], chosen.shape, chosen.numel() * 2

    eager, module = Counting(), Counting()
    compiled = graphc.compile(module, fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for row in ([1.0, 1, 1, -1], [1.0, 1, -1, -1], [1.0] * 4, [-1.0] * 4, [1.0, -1, 1, 1]):
            x = graphc.tensor(row)
            (count, shape, double), wanted = compiled(x), eager(x)
            assert (count, shape, double) == wanted and type(count) is int and type(double) is int
            assert bits(module.seen) == bits(eager.seen) and bits(module.last) == bits(eager.last)


def test_code_that_reads_arrays_runs_eagerly() -> None:
    compiled = graphc.compile(lambda x: x * float(x.detach().numpy().sum()))
    with pytest.warns(CompileWarning, match="elements of a tensor are not known"):
        assert compiled(graphc.ones(3)).tolist() == [3, 3, 3]


# ---- the parts -----------------------------------------------------------------------------------------------------------

PROGRAM = """\
graph @f(%x: f32[4], state %w: f32[4], %g: f32[4]) {
  %0 = exp(%x) : f32[4]
  %1 = mul(%0, %w) : f32[4]
  %2 = mul(%1, %g) : f32[4]
  return %1, %2; update %w = %0
}"""


def test_a_graph_goes_on_from_what_was_found() -> None:
    graph = parse_graph(PROGRAM)
    (made, *_) = graph.nodes[0].outputs
    rest, places, originals = resumed(graph, {made: 5}, 1)
    assert (
        print_graph(rest)
        == """\
graph @f(%x: f32[4], state %w: f32[4], %found0: f32[4], %g: f32[4]) {
  %0 = mul(%found0, %w) : f32[4]
  %1 = mul(%0, %g) : f32[4]
  return %0, %1; update %w = %found0
}"""
    )
    assert places == [5] and originals[rest.outputs[0]] is graph.outputs[0] and originals[rest.inputs[2]] is made


def test_a_program_for_a_question_reads_what_it_needs() -> None:
    graph = parse_graph(PROGRAM)
    order = {node: i for i, node in enumerate(graph.nodes)}
    (made, *_), (asked, *_) = graph.nodes[0].outputs, graph.nodes[1].outputs
    part, read = computing([asked], {**dict.fromkeys(graph.inputs), made: None}, order)
    assert (
        print_graph(part)
        == """\
graph @read(%in0: f32[4], %in1: f32[4]) {
  %0 = mul(%in1, %in0) : f32[4]
  return %0
}"""
    )
    assert read == [graph.inputs[1], made]
