"""Regions: branches and loops in the tensor IR, from text to native code, and the public functions that make them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graph_cases import Array, assert_close, parse_graph, print_graph, run_compiled, run_interpreted
from graphc.errors import IRError
from graphc.ir.graph import Graph, every_node
from graphc.ops.regions import replayed
from graphc.passes.regions import in_regions
from graphc.pipeline import optimise
from graphc.schedule.control import ControlLaunch
from graphc.schedule.schedule import schedule

PROGRAM = """graph @program(%p: bool[], %x: f32[3, 4], %n: i64[]) {
  %0 = exp(%x) : f32[3, 4]
  %1, %2 = cond(%p, %0, true_graph={graph @yes(%a: f32[3, 4]) {
      %0 = softmax(%a, dim=1) : f32[3, 4]
      %1 = add(%0, %a) : f32[3, 4]
      return %1, %a
    }}, false_graph={graph @no(%a: f32[3, 4]) {
      %0 = reduce_sum(%a, dim=1) : f32[3]
      %1 = reshape(%0, shape=(3, 1)) : f32[3, 1]
      %2 = sub(%a, %1) : f32[3, 4]
      return %2, %2
    }}) : f32[3, 4], f32[3, 4]
  %3 = full(value=0, shape=(), dtype=i64) : i64[]
  %4, %5, %6 = while_loop(%3, %1, %1, %n, %2, cond_graph={graph @test(%i: i64[], %h: f32[3, 4], %o: f32[3, 4], %n: i64[], %w: f32[3, 4]) {
      %0 = lt(%i, %n) : bool[]
      return %0
    }}, body_graph={graph @body(%i: i64[], %h: f32[3, 4], %old: f32[3, 4], %n: i64[], %w: f32[3, 4]) {
      %0 = full(value=1, shape=(), dtype=i64) : i64[]
      %1 = add(%i, %0) : i64[]
      %2 = permute(%w, dims=(1, 0)) : f32[4, 3]
      %3 = matmul(%h, %2) : f32[3, 3]
      %4 = matmul(%3, %w) : f32[3, 4]
      %5 = nextafter(%4, %w) : f32[3, 4]
      %6 = tanh(%5) : f32[3, 4]
      return %1, %6, %h
    }}) : i64[], f32[3, 4], f32[3, 4]
  %7 = add(%5, %0) : f32[3, 4]
  return %7, %4, %6, %5
}"""  # noqa: E501


def eager(graph: Graph, inputs: list[Array]) -> list[Array]:
    """What the operators give one by one."""
    return [np.asarray(y) for y in replayed(graph, [graphc.tensor(a) for a in inputs])]


def inputs_of(p: bool, n: int) -> list[Array]:
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    return [np.array(p), x, np.array(n)]


def test_the_text_says_all() -> None:
    graph = parse_graph(PROGRAM)
    assert print_graph(parse_graph(print_graph(graph))) == print_graph(graph)
    assert [node.op.name for node in every_node(graph)].count("matmul") == 2


@pytest.mark.parametrize("p", [True, False])
def test_native_code_has_eager_bits(p: bool) -> None:
    graph = parse_graph(PROGRAM)
    for n in (0, 1, 2, 57):
        inputs = inputs_of(p, n)
        expected = eager(graph, inputs)
        for made, wanted in zip(run_compiled(graph, inputs), expected, strict=True):
            assert made.tobytes() == wanted.tobytes()
        for made, wanted in zip(run_interpreted(graph, inputs), expected, strict=True):
            assert_close(made, wanted)


def test_graphs_in_regions_go_through_every_pass() -> None:
    names = {node.op.name for node in every_node(optimise(parse_graph(PROGRAM)))}
    assert "softmax" not in names and "reduce_max" in names


BRANCH = """graph @f(%p: bool[], %x: f32[{n}]) {{
  %0, %1 = cond(%p, %x, true_graph={{graph @yes(%a: f32[{n}]) {{
      %0 = neg(%a) : f32[{n}]
      %1 = exp(%a) : f32[{n}]
      return %0, %1
    }}}}, false_graph={{graph @no(%a: f32[{n}]) {{
      %0 = abs(%a) : f32[{n}]
      return %a, %0
    }}}}) : f32[{n}], f32[{n}]
  return %0
}}"""


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (8, "graph @f(%p: bool[], %x: f32[8]) {\n  %0 = neg(%x) : f32[8]\n  %1 = where(%p, %0, %x) : f32[8]\n  return %1\n}"),
        (
            900,
            "graph @f(%p: bool[], %x: f32[900]) {\n  %0 = cond(%p, %x, true_graph={graph @yes(%a: f32[900]) {\n"
            "      %0 = neg(%a) : f32[900]\n      return %0\n    }}, false_graph={graph @no(%a: f32[900]) {\n      return %a\n"
            "    }}) : f32[900]\n  return %0\n}",
        ),
    ],
)
def test_results_that_nobody_reads_and_small_branches_go(n: int, expected: str) -> None:
    graph = parse_graph(BRANCH.format(n=n))
    made = in_regions(graph, lambda inner: inner)
    assert print_graph(made) == expected
    x = np.linspace(-2, 2, n, dtype=np.float32)
    for p in (True, False):
        assert run_interpreted(made, [np.array(p), x])[0].tobytes() == run_interpreted(graph, [np.array(p), x])[0].tobytes()


def test_a_loop_updates_what_it_carries_in_place_and_lends_memory_to_both_graphs() -> None:
    made = schedule(optimise(parse_graph(PROGRAM)))
    branch, loop = [launch for launch in made.launches if isinstance(launch, ControlLaunch)]
    assert branch.scratch.shape == (max(part.schedule.arena_nbytes for part in branch.parts),)
    test, body = (part.schedule for part in loop.parts)
    notes = [launch.note for launch in body.launches]
    assert (
        notes.count("copy") == 3
    )  # two results of a round, of which one is what the other was; the counter is counted where it is
    assert sorted(place.kind for value, place in body.places.items() if value in body.graph.inputs) == ["input"] * 5
    assert [place.kind for value, place in test.places.items() if value in test.graph.outputs] == ["output"]


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("%p, %0, true_graph", "%n, %0, true_graph", r"cond: the predicate must be bool\[\], got i64\[\]"),
        ("return %2, %2\n", "return %2, %1\n", r"true_graph gives \(f32\[3, 4\], .*\), false_graph \(f32\[3, 4\], f32\[3, 1\]\)"),
        ("return %1, %6, %h", "return %1, %6, %3", r"body_graph gives .*f32\[3, 3\]\), and what is carried is"),
        ("%0 = lt(%i, %n) : bool[]\n      return %0", "return %i", r"cond_graph must give one bool\[\], it gives \(i64\[\]\)"),
        ("while_loop(%3, %1, %1, %n, %2,", "while_loop(%3, %1, %1, %n,", r"cond_graph takes .* and the operands are"),
        ("return %1, %a\n", "return %1, %x\n", "%x is used before it is defined"),
    ],
)  # fmt: skip
def test_what_is_no_region_is_refused(old: str, new: str, match: str) -> None:
    assert PROGRAM.count(old) == 1
    with pytest.raises(IRError, match=match):
        parse_graph(PROGRAM.replace(old, new))


# ---- the public functions ----------------------------------------------------------------------------------------------


def chooses(x: Any, w: Any) -> Any:
    return graphc.cond(x.sum() > 0, lambda a: (a.sin() @ w, {"k": a}), lambda a: (a.cos() @ w, {"k": a + 1}), (x,))


def repeats(x: Any, w: Any) -> Any:
    total = graphc.zeros(4)

    def body(i: Any, h: Any) -> Any:
        total.add_(h.sum(0))
        return i + 1, graphc.cond(h.sum() > 0, lambda h: h - total, lambda h: graphc.tanh(h @ w), (h,))

    i, h = graphc.while_loop(lambda i, h: i < (x[0, 0] * 5), body, (graphc.tensor(0), x))
    return i, h, total


def writes(x: Any, w: Any) -> Any:
    def doubles() -> None:
        w.mul_(2)

    def subtracts() -> None:
        w[1:].sub_(x[0])

    graphc.cond(x.sum() > 0, doubles, subtracts)
    return w.sum()


@pytest.mark.parametrize("function", [chooses, repeats, writes])
def test_compiled_code_holds_every_way(function: Callable[..., Any]) -> None:
    compiled = graphc.compile(function, max_compiles=1)
    for seed in range(12):
        graphc.manual_seed(seed)
        x, w = graphc.randn(3, 4), graphc.randn(4, 4)
        mine, theirs = w.clone(), w.clone()
        found, expected = compiled(x, mine), function(x, theirs)
        assert repr(found) == repr(expected) and np.asarray(mine).tobytes() == np.asarray(theirs).tobytes()
    assert compiled.stats()["traces"] == 1 and "region" in compiled.explain(kernels=False)


def test_gradients_flow_path_by_path() -> None:
    w = graphc.randn(4, 4)
    compiled = graphc.compile(lambda x: chooses(x, w)[0].sum())
    for sign in (1.0, -1.0):
        x, y = (graphc.full((3, 4), sign, requires_grad=True) for _ in range(2))
        compiled(x).backward()
        chooses(y, w)[0].sum().backward()
        assert np.asarray(x.grad).tobytes() == np.asarray(y.grad).tobytes()
    assert "cond is no region: gradients flow through it" in compiled.explain(kernels=False)


def test_a_failed_check_in_a_region_leaves_state_as_it_was() -> None:
    table, state = graphc.arange(6.0), graphc.zeros(3)

    def f(i: Any, n: Any) -> Any:
        state.add_(1)
        return graphc.while_loop(lambda i, s: s < n, lambda i, s: (i + 1, s + table[i].sum()), (i, graphc.tensor(0.0)))

    compiled = graphc.compile(f)
    assert [y.item() for y in compiled(graphc.tensor(2), graphc.tensor(8.0))] == [5, 9.0] and state.tolist() == [1.0] * 3
    with pytest.raises(IndexError, match=r"index: index out of range: .*test_regions.py"):
        compiled(graphc.tensor(2), graphc.tensor(800.0))
    assert state.tolist() == [1.0] * 3 and compiled.stats()["traces"] == 1


def test_scan_gives_the_last_carry_and_every_output() -> None:
    xs = graphc.arange(6.0).reshape(2, 3)

    def f(xs: Any) -> Any:
        return graphc._higher_order_ops.scan(lambda c, x: (c + x, c * x), graphc.zeros(2), xs, dim=1, reverse=True)

    for g in (f, graphc.compile(f)):
        carry, ys = g(xs)
        assert carry.tolist() == [3.0, 12.0] and ys.tolist() == [[0.0, 27.0], [2.0, 20.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: graphc.cond(graphc.ones(2) > 0, abs, abs, (graphc.ones(2),)), r"pred must have one element, got shape \[2\]"),
        (lambda: graphc.cond(True, 1, abs), "cond: expected both branches to be callable"),
        (lambda: graphc.cond("a", abs, abs), "cond: pred must be a number or a tensor, got str"),
        (lambda: graphc.cond(True, abs, abs, graphc.ones(2)), "cond: operands must be a tuple or list, got Tensor"),
        (lambda: graphc.while_loop(abs, 3, ()), "while_loop: expected cond_fn and body_fn to be callable"),
        (lambda: graphc.while_loop(abs, abs, graphc.ones(2)), "while_loop: carried_inputs must be a tuple or list, got Tensor"),
        (lambda: graphc.while_loop(abs, abs, ("a",)), "while_loop: carried_inputs must hold tensors and ints, got str"),
        (lambda: graphc.while_loop(lambda x: x, abs, (graphc.ones(2),)), "cond_fn must give a bool or a tensor of one bool"),
        (lambda: graphc.while_loop(lambda x: True, lambda x: x, (graphc.ones(2),)), "while_loop: body_fn must give a tuple like"),
        (lambda: graphc._higher_order_ops.scan(abs, 0, graphc.ones(0)), r"xs must have one size along dim 0, not 0, got \[0\]"),
    ],
)  # fmt: skip
def test_bad_arguments(call: Callable[[], Any], match: str) -> None:
    with pytest.raises(RuntimeError, match=match):
        call()
