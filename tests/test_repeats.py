"""Equal layers: found in a graph's text, scheduled once, with the bits of the same layers compiled one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, pipeline
from graphc.ir.graph import Graph
from graphc.ir.text import parse_graph, print_graph
from graphc.passes.repeats import cuts
from graphc.pipeline import optimise, parted
from graphc.schedule.lower import Launch
from graphc.schedule.schedule import schedule

F = nn.functional
LAYERS = 14


def stack(layers: int = LAYERS, tail: str = "", changed: int = -1, returns: str = "") -> Graph:
    """Layers of four nodes between an exp and a sum.   changed: a layer with tanh instead of relu.   tail, returns: more text."""
    states = "".join(f", state %g{i}: f32[16], state %b{i}: f32[16], state %w{i}: f32[16, 16]" for i in range(layers))
    lines = ["%x0 = exp(%x) : f32[4, 16]"]
    for i in range(layers):
        lines += [
            f"%n{i} = layer_norm(%x{i}, %g{i}, %b{i}, normalized_shape=(16,), eps=1e-05) : f32[4, 16]",
            f"%m{i} = matmul(%n{i}, %w{i}) : f32[4, 16]",
            f"%r{i} = {'tanh' if i == changed else 'relu'}(%m{i}) : f32[4, 16]",
            f"%x{i + 1} = add(%x{i}, %r{i}) : f32[4, 16]",
        ]
    lines += [f"%s = reduce_sum(%x{layers}, dim=1) : f32[4]", *tail.splitlines(), f"return %s{returns}"]
    return parse_graph(f"graph @net(%x: f32[4, 16]{states}) {{\n" + "\n".join(lines) + "\n}")


def test_equal_layers_become_calls_of_one_graph() -> None:
    graph = stack()
    before, *layers, after = next(cuts(graph))
    assert len(layers) == LAYERS and len({call.graph for call in layers}) == 1
    assert print_graph(layers[0].graph) == (
        "graph @net_layer(%given0: f32[4, 16], state %g0: f32[16], state %b0: f32[16], state %w0: f32[16, 16]) {\n"
        "  %0 = layer_norm(%given0, %g0, %b0, normalized_shape=(16,), eps=1e-05) : f32[4, 16]\n"
        "  %1 = matmul(%0, %w0) : f32[4, 16]\n"
        "  %2 = relu(%1) : f32[4, 16]\n"
        "  %3 = add(%given0, %2) : f32[4, 16]\n"
        "  return %3\n"
        "}"
    )
    assert print_graph(before.graph) == "graph @net_before(%x: f32[4, 16]) {\n  %0 = exp(%x) : f32[4, 16]\n  return %0\n}"
    assert "reduce_sum" in print_graph(after.graph) and after.outputs == graph.outputs
    for i, (one, following) in enumerate(zip([before, *layers], [*layers, after], strict=True)):
        assert following.inputs[0] is one.outputs[0]
        if following is not after:
            assert [v.name for v in following.inputs[1:]] == [f"g{i}", f"b{i}", f"w{i}"]


def test_literals_belong_to_the_graph_that_reads_them() -> None:
    text = print_graph(stack()).replace("%0 = exp(%x)", "%c = full(value=0.5, shape=(), dtype=f32) : f32[]\n  %0 = exp(%x)")
    graph = parse_graph(text.replace("= relu(%", "= mul(%c, %"))
    call = next(cuts(graph))[1]
    assert "full(value=0.5" in print_graph(call.graph) and len(call.inputs) == 4


@pytest.mark.parametrize(
    "graph",
    [
        stack(3),  # too few
        stack(changed=7),  # seven layers and six
        stack(returns=", %s"),  # a result twice
        stack(returns=", %x"),  # an input as a result
        stack(returns="; update %g0 = %b1"),  # an update that no node after the layers makes
        stack(returns=", " + ", ".join(f"%m{i}" for i in range(LAYERS)), tail="%t = add(%m0, %m9) : f32[4, 16]"),
    ],
    ids=["few", "another", "twice", "input", "update", "matrices"],
)
def test_what_is_not_cut(graph: Graph) -> None:
    assert list(cuts(graph)) == []


def test_a_layer_that_differs_ends_the_row() -> None:
    calls = next(cuts(stack(30, changed=20)))
    assert Counter(call.graph.name for call in calls) == {"net_before": 1, "net_layer": 20, "net_after": 1}
    assert "tanh" in print_graph(calls[-1].graph)


def test_the_kernels_between_the_ends_are_those_of_the_whole_graph() -> None:
    graph = stack()
    parts = parted(graph)
    whole, made = schedule(optimise(graph)), parts.main.schedule(32)
    names = [Counter(launch.kernel.name for launch in s.launches if isinstance(launch, Launch)) for s in (whole, made)]
    assert parts.main.calls and (names[0] - names[1]).total() <= 2 and (names[1] - names[0]).total() <= 2
    assert made.arena_nbytes <= 2 * whole.arena_nbytes


def test_panels_of_every_layer_count(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = stack(tail=f"%p = matmul(%x{LAYERS}, %w0) : f32[4, 16]", returns=", %p")
    monkeypatch.setattr("graphc.passes.prepare.LEAST_PACKED", 1)
    for matrices, packed in ((LAYERS - 1, 1), (LAYERS, LAYERS), (LAYERS + 1, LAYERS + 1)):
        monkeypatch.setattr("graphc.passes.prepare.MOST_PANELS", matrices * 16 * 16 * 4)
        constants = parted(graph, range(1, len(graph.inputs))).constants
        assert constants is not None
        assert sum(node.op.name == "panels" for call in constants.calls for node in call.graph.nodes) == packed


def test_a_border_is_not_put_between_what_would_be_one_kernel() -> None:
    lines = ["%x0 = exp(%x) : f32[4, 16]"]
    for i in range(40):
        lines += [f"%m{i} = matmul(%x{i}, %w{i}) : f32[4, 16]", f"%x{i + 1} = relu(%m{i}) : f32[4, 16]"]
    states = "".join(f", state %w{i}: f32[16, 16]" for i in range(40))
    graph = parse_graph(f"graph @net(%x: f32[4, 16]{states}) {{\n" + "\n".join(lines) + "\nreturn %x40\n}")
    parts = parted(graph)
    assert parts.main.calls and len(parts.main.schedule(32).launches) == len(schedule(optimise(graph)).launches) == 41


# ---- bits ------------------------------------------------------------------------------------------------------------


class Block(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.wide, self.back = nn.LayerNorm(16), nn.Linear(16, 80), nn.Linear(80, 16)
        self.register_buffer("scale", graphc.rand(16))

    def forward(self, x: Any) -> Any:
        h = self.wide(self.norm(x))
        return x + self.back(F.gelu(h) * F.silu(h)) * (self.scale + 1).reciprocal()


class Net(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block() for _ in range(9)])

    def forward(self, x: Any, bias: Any) -> Any:
        kept = []
        shift = bias.exp() + 1
        for block in self.blocks:
            x = block(x) * shift
            kept.append(x.sum(-1))
        return x, kept


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many calls each compiled graph was made of."""
    counts: list[int] = []
    real: Callable[..., Any] = pipeline._layers

    def counted(*given: Any) -> Any:
        counts.append(len(made := real(*given)))
        return made

    monkeypatch.setattr(pipeline, "_layers", counted)
    return counts


def same(mine: Any, eager: Any) -> None:
    pairs = [(mine[0], eager[0]), *zip(mine[1], eager[1], strict=True)]
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs)


@graphc.no_grad()
def test_compiled_layers_have_eager_bits(cut: list[int]) -> None:
    graphc.manual_seed(0)
    net = Net()
    x, bias = graphc.randn(5, 16), graphc.randn(16)
    compiled = graphc.compile(net, use_cache=False)
    same(compiled(x, bias), net(x, bias))
    assert max(cut) in (10, 11)
    net.blocks[4].wide.weight.mul_(2)  # prepared for every layer, and made again
    net.blocks[7].scale.add_(1)
    same(compiled(x, bias), net(x, bias))
    assert "prepared8: " in compiled.explain()


@graphc.no_grad()
def test_layers_of_symbolic_sizes_have_eager_bits(cut: list[int]) -> None:
    graphc.manual_seed(1)
    net, bias = Net(), graphc.randn(16)
    compiled = graphc.compile(net, use_cache=False, dynamic=True)
    for rows in (5, 300, 2):
        x = graphc.randn(rows, 16)
        same(compiled(x, bias), net(x, bias))
    assert max(cut) > 9


@graphc.no_grad()
def test_layers_that_would_be_one_kernel_stay_together(cut: list[int]) -> None:
    factors = [graphc.randn(16) for _ in range(40)]

    def walk(x: Any) -> Any:
        for factor in factors:
            x = F.relu(x * factor)
        return x

    x = graphc.randn(3, 16)
    compiled = graphc.compile(walk, use_cache=False)
    assert np.array_equal(compiled(x).numpy(), walk(x).numpy())
    assert max(cut) == 0 and "1 launch of 1 kernel" in compiled.explain()


@graphc.no_grad()
def test_a_failed_check_in_a_layer_is_told(cut: list[int]) -> None:
    tables, square = [graphc.randn(6, 8) for _ in range(30)], graphc.randn(8, 8)

    def walk(x: Any, index: Any) -> Any:
        for table in tables:
            x = F.relu(x @ square + F.embedding(index, table))
        return x

    compiled = graphc.compile(walk, use_cache=False)
    x, index = graphc.randn(3, 8), graphc.tensor([0, 5, 2])
    assert np.array_equal(compiled(x, index).numpy(), walk(x, index).numpy())
    assert max(cut) > 25
    with pytest.raises(IndexError, match=r"test_repeats\.py"):
        compiled(x, graphc.tensor([0, 6, 2]))
