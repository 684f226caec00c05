"""`graphc.compile(check=N)`: what differs from the Python code is found, with its line; nothing happens twice."""

from __future__ import annotations

from typing import Any

import pytest

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
from graphc import pipeline
from graphc.errors import CheckError
from graphc.explain.world import World
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op


def trained(**options: Any) -> tuple[list[Any], Any]:
    """Losses and states of a training step with everything in it, and what `graphc.compile` gave, if it was used."""
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
    optimizer = graphc.optim.AdamW(model.parameters(), 0.1)
    schedule = graphc.optim.lr_scheduler.StepLR(optimizer, 2)
    seen = graphc.zeros(())

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        schedule.step()
        seen.add_(loss.detach())
        x.mul_(0.5)
        return loss

    run = graphc.compile(step, **options) if options else step
    found: list[Any] = []
    for _ in range(7):
        x, y = graphc.randn(6, 4), graphc.randint(0, 2, (6,))
        found += [run(x, y).item(), x.tolist()]
    found += [p.tolist() for p in model.state_dict().values()] + [p.grad.tolist() for p in model.parameters()]
    return [*found, seen.item(), schedule.last_epoch, graphc.get_rng_state().tolist()], run


def test_the_effects_of_a_checked_call_happen_once() -> None:
    wanted, _ = trained()
    got, run = trained(check=2)
    assert got == wanted
    assert run.stats()["fallbacks"] == [] and run.stats()["traces"] == 1


def test_a_list_that_was_changed_in_place_is_found() -> None:
    factors = [2.0, 3.0]

    def f(x: Any) -> Any:
        y = x * factors[0]
        return y + factors[1]

    compiled = graphc.compile(f, check=3)
    x = graphc.ones(2)
    for _ in range(3):
        compiled(x)
    factors[1] = 5.0
    with pytest.raises(CheckError) as error:
        compiled(x)
    text, line = str(error.value), f.__code__.co_firstlineno + 2
    assert "call 4 of f" in text
    assert "at [0] 5.0, eagerly 7.0" in text
    assert f"(test_checks.py:{line})" in text
    assert "then:" in text and "3.0" in text and "now:" in text
    assert compiled(x).tolist() == [5.0, 5.0]  # as told, what was compiled stays


def a_wrong_pass(graph: Graph) -> Graph:
    """Makes a cosine of every sine of something that was computed."""
    new: dict[Value, Value] = {}
    nodes = []
    for node in graph.nodes:
        wrong = node.op.name == "sin" and node.inputs[0].node is not None
        op = Op.table["cos"] if wrong else node.op
        made = Node(op, tuple(new.get(v, v) for v in node.inputs), node.attrs, [v.type for v in node.outputs], node.location)
        new.update(zip(node.outputs, made.outputs, strict=True))
        nodes.append(made)
    outputs = tuple(new.get(v, v) for v in graph.outputs)
    return Graph(graph.name, graph.inputs, tuple(nodes), outputs, tuple((s, new.get(v, v)) for s, v in graph.updates))


def test_a_program_that_is_wrong_is_found_at_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    def f(x: Any) -> Any:
        y = x.exp() - 1.0
        z = y.sin()
        return (z * 2.0).sqrt()

    monkeypatch.setattr(pipeline, "PASSES", (*pipeline.PASSES, a_wrong_pass))
    compiled = graphc.compile(f, check=1, use_cache=False)
    with pytest.raises(CheckError, match=rf"computed otherwise: sin : f32\[3\] \(test_checks.py:{f.__code__.co_firstlineno + 2}\)"):
        compiled(graphc.ones(3))


def test_python_objects_that_the_code_changes_are_told() -> None:
    log: list[int] = []

    def f(x: Any) -> Any:
        log.append(1)
        return x + 1

    compiled = graphc.compile(f, check=1)
    compiled(graphc.ones(1))
    with pytest.raises(CheckError, match=r"log: 1 items, eagerly 2 items(.|\n)*other Python objects"):
        compiled(graphc.ones(1))
    assert log == [1]


def test_an_exception_of_the_code_is_the_calls() -> None:
    state = graphc.zeros(2)

    def f(x: Any, bad: bool) -> Any:
        state.add_(1.0)
        if bad:
            raise KeyError("bad")
        return x + state

    compiled = graphc.compile(f, check=1)
    assert compiled(graphc.ones(2), False).tolist() == [2.0, 2.0]
    with pytest.raises(KeyError):
        compiled(graphc.ones(2), True)


def test_compiled_functions_that_the_code_calls_stay_compiled() -> None:
    inner = graphc.compile(lambda x: x.exp() * 2)

    def f(x: Any) -> Any:
        for _ in range(12):
            y = inner(x)
        return y

    compiled = graphc.compile(f, check=2)
    for i in range(4):
        x = graphc.full((3,), float(i))
        assert compiled(x).tolist() == f(x).tolist()
    assert inner.stats()["traces"] == 1


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, "2"])
def test_what_cannot_be_a_number_of_calls(bad: Any) -> None:
    with pytest.raises(ValueError, match="check"):
        graphc.compile(lambda x: x, check=bad)
    with pytest.raises(ValueError, match="weights"):
        graphc.compile(lambda x: x, check=1, weights="int8")


def test_a_world_is_put_back() -> None:
    class Thing:
        __slots__ = ("_grown", "names", "table")

        def __init__(self) -> None:
            self.names, self.table = [1, [2]], {"a": {3}}

    thing, model = Thing(), nn.Linear(2, 2)
    shared, cell = graphc.zeros(4), 1

    def f() -> None:
        nonlocal cell
        cell += 1
        thing.names.append(4)
        thing.names[1].clear()
        thing.table["a"].add(5)
        thing.table["b"] = 6
        thing._grown = True
        shared[1:3].add_(1.0)
        model.weight.sum().backward()
        model.extra = graphc.ones(1)
        model.register_buffer("more", shared)
        del model.bias

    before = shared._storage.version, dict(model._parameters), model.weight
    world = World(f)
    f()
    world.restore()
    assert (thing.names, thing.table, cell, hasattr(thing, "_grown")) == ([1, [2]], {"a": {3}}, 1, False)
    assert shared.tolist() == [0.0] * 4 and shared._storage.version == before[0]
    assert model.weight is before[2] and model.weight.grad is None and dict(model._parameters) == before[1]
    assert not hasattr(model, "extra") and not hasattr(model, "more")
