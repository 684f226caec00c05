"""Traces: the graph does what the code does, writes what it writes, sets the gradients it sets; nothing outside changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.capture.histories import Histories
from graphc.capture.traced import Traced
from graphc.capture.tracer import trace, trace_joint
from graphc.eager.creation import host_scalar
from graphc.errors import TraceError


def call(traced: Traced, *leaves: graphc.Tensor) -> Any:
    """One call of a traced function: the graph by reference, then its updates and gradients."""
    values = {}
    scalars = [np.asarray(getter(), dtype.numpy) for getter, dtype in traced.scalars]
    arrays = [*(x.detach().numpy() for x in leaves), *(s.array for s in traced.states), *scalars]
    values.update(zip(traced.graph.inputs, arrays, strict=True))
    for node in traced.graph.nodes:
        made = node.op.reference(np, *(values[v] for v in node.inputs), **node.attrs)
        values.update(zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True))
    outputs = [graphc.from_numpy(np.array(values[v])) for v in traced.graph.outputs]
    new = [np.array(values[v]) for _, v in traced.graph.updates]
    for position, array in zip(traced.updates, new, strict=True):
        target = leaves[position]._array if position < len(leaves) else traced.states[position - len(leaves)].array
        np.copyto(target, array)
    for target, position in traced.grad_effects:
        Traced.target(target, leaves)._grad = None if position is None else outputs[position]
    return traced.rebuild(outputs)


def close(a: graphc.Tensor, b: graphc.Tensor) -> bool:
    """Equal but for the rounding of NumPy's functions, which depends on where an array lies in memory."""
    return np.allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6) and a.shape == b.shape


def same(a: graphc.Tensor, b: graphc.Tensor) -> bool:
    return a.detach().numpy().tobytes() == b.detach().numpy().tobytes() and a.shape == b.shape


# ---- results ---------------------------------------------------------------------------------------------------------


def test_arguments_results_and_structure() -> None:
    def f(pair: tuple[Any, ...], *, scale: float, table: dict[str, Any]) -> dict[str, Any]:
        a, b = pair
        return {"sum": [a + b * scale, "label"], "other": table["x"].exp(), "none": None}

    args, kwargs = ((graphc.ones(2), graphc.tensor([3.0, 4.0])),), {"scale": 2.0, "table": {"x": graphc.zeros(2, 2)}}
    traced = trace(f, args, kwargs)
    result = call(traced, args[0][0], args[0][1], kwargs["table"]["x"])
    assert result["sum"][0].tolist() == [7, 9]
    assert (result["sum"][1], result["none"]) == ("label", None)
    assert result["other"].tolist() == [[1, 1], [1, 1]]
    assert [v.role for v in traced.graph.inputs] == ["input"] * 3
    assert traced.graph.name == "f"


def test_nodes_know_the_users_line() -> None:
    def f(x: Any) -> Any:
        return x * 2

    (node,) = (n for n in trace(f, (graphc.ones(1),)).graph.nodes if n.op.name == "mul")
    assert node.location is not None
    assert node.location[0].endswith("test_tracer.py")
    assert node.location[1] == f.__code__.co_firstlineno + 1


def test_outside_tensors_are_read_at_every_call() -> None:
    weight = graphc.ones(2)
    traced = trace(lambda x: x + weight, (graphc.zeros(2),))
    assert [v.role for v in traced.graph.inputs] == ["input", "state"]
    weight.add_(1)
    assert call(traced, graphc.zeros(2)).tolist() == [2, 2]
    weight.data = graphc.tensor([5.0, 6.0])
    assert call(traced, graphc.zeros(2)).tolist() == [5, 6]


def test_tensors_of_python_data_are_constants() -> None:
    def f(x: Any) -> Any:
        table = graphc.tensor([1.0, 2.0])
        table.add_(1)
        return x * table * graphc.tensor(2.0) * graphc.tensor(1.0, dtype=graphc.bfloat16)

    traced = trace(f, (graphc.ones(2),))
    assert traced.updates == []
    assert call(traced, graphc.ones(2)).tolist() == call(traced, graphc.ones(2)).tolist() == [4, 6]


def test_host_scalars_are_asked_at_every_call() -> None:
    rate = [0.5]
    getter = lambda: rate[0]
    f = lambda x: x * host_scalar(getter, graphc.float32) + host_scalar(getter, graphc.float32)
    assert f(graphc.ones(1)).item() == 1
    traced = trace(f, (graphc.ones(1),))
    assert len(traced.scalars) == 1
    rate[0] = 3.0
    assert call(traced, graphc.ones(1)).item() == 6


# ---- writes ----------------------------------------------------------------------------------------------------------


def writes(x: Any, buffer: Any) -> Any:
    y = x * 1
    y[0] += 10
    y.t()[1:].mul_(2)
    view = y.view(-1)[::2]
    view.copy_(graphc.arange(view.numel()).float())
    buffer.add_(y.sum())
    y.unsqueeze(0).squeeze().permute(1, 0)[0, 1] = -1.0
    z = y.detach()
    z.sub_(1)
    return y, view, z.reshape(3, 2), buffer * 2


def test_writes_become_values() -> None:
    x = graphc.arange(6).reshape(2, 3).float()
    buffer, other = graphc.zeros(2), graphc.zeros(2)
    traced = trace(lambda x: writes(x, other), (x,))
    assert other.tolist() == [0, 0]
    assert (other._version, x._version) == (0, 0)
    for _ in range(2):
        for a, b in zip(writes(x, buffer), call(traced, x), strict=True):
            assert same(a, b)
        assert same(buffer, other)


def test_written_arguments_are_updates() -> None:
    def f(x: Any) -> Any:
        x[1] = 7.0
        return x.sum()

    traced = trace(f, (graphc.zeros(3),))
    assert traced.updates == [0]
    assert traced.graph.inputs[0].role == "state"
    x = graphc.ones(3)
    assert call(traced, x).item() == 9
    assert x.tolist() == [1, 7, 1]


def test_views_of_one_memory_see_each_others_writes() -> None:
    base = graphc.zeros(4)
    left, right = base[:3], base[2:]

    def f() -> Any:
        left.add_(1)
        right.mul_(5)
        return left + 0, base + 0

    traced = trace(f)
    assert len(traced.states) == 1
    a, b = call(traced)
    assert a.tolist() == [1, 1, 5]
    assert b.tolist() == [1, 1, 5, 0]
    assert base.tolist() == [1, 1, 5, 0]


def test_random_numbers_advance_the_generator() -> None:
    traced = trace(lambda: graphc.rand(3))
    graphc.manual_seed(1)
    first = [graphc.rand(3), graphc.rand(3)]
    graphc.manual_seed(1)
    assert [same(a, call(traced)) for a in first] == [True, True]


def test_what_cannot_be_written_back_is_refused() -> None:
    with pytest.raises(RuntimeError, match="single memory location"):
        trace(lambda x: x.expand(3).add_(1), (graphc.ones(1),))


# ---- gradients -------------------------------------------------------------------------------------------------------


class Network:
    """Two layers, with momentum."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        shapes = [(4, 5), (5,), (5, 3), (3,)]
        self.parameters = [graphc.tensor(rng.standard_normal(s).astype(np.float32), requires_grad=True) for s in shapes]
        self.momentum = [graphc.zeros(*s) for s in shapes]
        self.steps = graphc.zeros(1)

    def step(self, x: Any, y: Any) -> Any:
        for p in self.parameters:
            p.grad = None
        a, b, c, d = self.parameters
        loss = (((x @ a + b).tanh() @ c + d - y) ** 2).mean()
        loss.backward()
        with graphc.no_grad():
            for p, m in zip(self.parameters, self.momentum, strict=True):
                m.mul_(0.9).add_(p.grad)
                p.sub_(m * 0.1)
            self.steps += 1
        return loss


def test_a_training_step_traces() -> None:
    rng = np.random.default_rng(1)
    x, y = (graphc.tensor(rng.standard_normal(s).astype(np.float32)) for s in ((6, 4), (6, 3)))
    eager, compiled = Network(), Network()
    traced = trace(compiled.step, (x, y))
    assert all(p.grad is None and p.is_leaf and p._version == 0 for p in compiled.parameters)
    for _ in range(3):
        assert close(eager.step(x, y), call(traced, x, y))
        for a, b in zip(eager.parameters, compiled.parameters, strict=True):
            assert close(a, b)
            assert close(a.grad, b.grad)
    assert compiled.steps.item() == 3
    assert len(traced.updates) == 9
    assert traced.none_grads == []


def test_accumulation_reads_the_gradient_of_before() -> None:
    weight = graphc.ones(2, requires_grad=True)
    f = lambda x: (x * weight).sum().backward()
    first = trace(f, (graphc.ones(2),))
    assert first.none_grads == [(weight, True)]
    call(first, graphc.ones(2))
    second = trace(f, (graphc.ones(2),))
    assert second.none_grads == [(weight, False)]
    assert second.grad_effects == []
    call(second, graphc.ones(2))
    weight.grad = graphc.tensor([10.0, 20.0])
    call(second, graphc.ones(2))
    assert weight.grad.tolist() == [11, 21]


def test_gradients_of_arguments() -> None:
    def f(x: Any) -> Any:
        (x * x).sum().backward()
        return x.grad * 2

    x = graphc.tensor([3.0], requires_grad=True)
    traced = trace(f, (x,))
    assert x.grad is None
    assert call(traced, x).item() == 12
    assert x.grad.item() == 6


def test_joint_traces_give_gradients_of_results() -> None:
    weight = graphc.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    unused = graphc.ones(1, requires_grad=True)
    f = lambda x: ((x @ weight).exp(), x.detach() + unused.detach(), (x * 2).sum())
    x = graphc.tensor([[0.1, 0.2]], requires_grad=True)
    traced = trace_joint(f, (x,))
    assert traced.gradient_positions == (0, 2)
    assert traced.sources([x]) == [x, weight] or traced.sources([x]) == [weight, x]
    given = [graphc.tensor([[1.0, -2.0]]), None, graphc.tensor(5.0)]
    outputs = f(x)
    expected = graphc.autograd.grad([outputs[0], outputs[2]], traced.sources([x]), [given[0], given[2]])
    replayed = traced.replay_gradients([x], given, known={}, changed=())
    for a, b in zip(expected, replayed, strict=True):
        assert close(a, b)
    (second,) = graphc.autograd.grad(replayed[0].sum(), weight)
    assert second.shape == (2, 2)


def test_results_of_a_whole_step_have_no_gradient_left() -> None:
    network = Network()
    traced = trace_joint(network.step, (graphc.ones(2, 4), graphc.ones(2, 3)))
    assert traced.histories == Histories(spent=(0,))
    assert traced.differentiated == []


# ---- what cannot be traced -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "read", [bool, float, int, lambda t: t.item(), lambda t: t.tolist(), lambda t: t.numpy(), np.asarray, range]
)
def test_reading_elements_is_a_trace_error_at_the_users_line(read: Callable[[Any], Any]) -> None:
    outside = graphc.ones(1, dtype=graphc.int64)
    for f in (lambda x: read((x * 2).sum()), lambda x: read(outside.sum())):
        with pytest.raises(TraceError, match=r"\(test_tracer.py:\d+\)"):
            trace(f, (graphc.ones(1, dtype=graphc.int64),))


def test_everything_is_put_back_after_an_error() -> None:
    weight = graphc.ones(2, requires_grad=True)
    buffer = graphc.zeros(2)
    view = graphc.zeros(2, 3)

    def f(x: Any) -> None:
        weight.grad = graphc.ones(2)
        buffer.add_((x * weight).detach())
        buffer.copy_(x * weight)
        view.transpose_(0, 1)
        graphc.set_grad_enabled(False)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trace(f, (graphc.ones(2),))
    assert weight.grad is None
    assert buffer.tolist() == [0, 0]
    assert buffer._version == 0
    assert not buffer.requires_grad
    assert view.shape == (2, 3)
    assert graphc.is_grad_enabled()
    assert (weight + 1).sum().item() == 4


def test_a_traced_tensor_is_useless_after_the_trace() -> None:
    kept: list[Any] = []
    trace(lambda x: kept.append(x * 2), (graphc.ones(2),))
    with pytest.raises(TraceError, match="used after the trace ended"):
        kept[0] + 1
    with pytest.raises(TraceError, match="used after the trace ended"):
        trace(lambda x: x + kept[0], (graphc.ones(2),))
    assert "traced as f32[2]" in repr(kept[0])


def test_traces_do_not_nest() -> None:
    with pytest.raises(RuntimeError, match="already going on"):
        trace(lambda x: trace(lambda y: y, (x,)), (graphc.ones(1),))


def test_backward_stops_at_the_edge_of_the_trace() -> None:
    weight = graphc.ones(2, requires_grad=True)
    outside = weight * 2
    with pytest.raises(RuntimeError, match="computed outside the code being traced"):
        trace(lambda x: (x * outside).sum().backward(), (graphc.ones(2),))
    with pytest.raises(RuntimeError, match="argument 0, which was computed outside"):
        trace(lambda x: (x * x).sum().backward(), (outside,))
    traced = trace_joint(lambda x: x * outside, (graphc.ones(2),))
    assert traced.sources([]) == [outside]
