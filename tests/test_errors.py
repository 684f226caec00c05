"""Bad input: one clear error each, with the operator, the argument, the shapes and the user's line; nothing half done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graph_cases import assert_same_bits
from graphc import nn
from test_compile import arrays, leaf, normal

F = nn.functional
o, i64 = graphc.ones, graphc.int64
HERE = r" \(test_errors.py:\d+\)$"

Case = tuple[Callable[[], Any], type[Exception], str]

RANKS_AND_SIZES: list[Case] = [
    (lambda: o(3) @ o(4), RuntimeError, r"matmul: inner sizes differ: f32\[3\] @ f32\[4\]"),
    (lambda: o(2, 3) @ o(4, 5), RuntimeError, r"matmul: inner sizes differ: f32\[2, 3\] @ f32\[4, 5\]"),
    (lambda: graphc.mm(o(3), o(3, 2)), RuntimeError, r"mm: expected tensors of rank 2 and 2, got f32\[3\] and f32\[3, 2\]"),
    (lambda: graphc.bmm(o(2, 3), o(3, 2)), RuntimeError, r"bmm: expected tensors of rank 3 and 3, got f32\[2, 3\] and f32\[3, 2\]"),
    (lambda: F.linear(o(2, 3), o(4, 5)), RuntimeError, r"linear: x has 3 features, weight takes 5: f32\[2, 3\], f32\[4, 5\]"),
    (lambda: nn.Linear(3, 4)(o(2, 5)), RuntimeError, r"linear: x has 5 features, weight takes 3: f32\[2, 5\], f32\[4, 3\]"),
    (lambda: o(2) + o(3), RuntimeError, r"add: shapes \[2\] and \[3\] do not broadcast: 2 against 3 at dim -1"),
    (lambda: graphc.cat([o(2, 3), o(2, 4)]), RuntimeError, r"cat: sizes must match except in dim 0: f32\[2, 3\] and f32\[2, 4\]"),
    (lambda: graphc.stack([o(2), o(3)]), RuntimeError, r"stack: all tensors must be of one shape: f32\[2\] and f32\[3\]"),
    (lambda: o(2, 3).view(4), RuntimeError, r"view: shape \[4\] is invalid for input of size 6: f32\[2, 3\]"),
    (lambda: o(2, 3).reshape(-1, -1), RuntimeError, r"reshape: only one dimension can be inferred: \[-1, -1\]"),
    (lambda: o(2).expand(3), RuntimeError, r"expand: size 3 at dim 0 does not fit f32\[2\]"),
    (lambda: o(4).split([1, 2]), RuntimeError, r"split: sizes \[1, 2\] must sum to 4, dim 0 of f32\[4\]"),
    (lambda: o(2, 3).narrow(1, 2, 5), RuntimeError, r"narrow: start 2 and length 5 exceed dim 1 of f32\[2, 3\]"),
    (lambda: F.layer_norm(o(2, 3), (4,)), RuntimeError, r"layer_norm: normalized_shape \[4\] must be the last dims.*f32\[2, 3\]"),
    (lambda: F.mse_loss(o(2), o(3)), RuntimeError, r"mse_loss: shapes \[2\] and \[3\] do not broadcast"),
    (
        lambda: F.scaled_dot_product_attention(o(2, 3), o(2, 4), o(2, 3)),
        RuntimeError,
        r"scaled_dot_product_attention: query and key must have one feature size.*f32\[2, 3\], f32\[2, 4\], f32\[2, 3\]",
    ),
    (
        lambda: F.cross_entropy(o(2, 3), graphc.tensor([0, 1, 2])),
        ValueError,
        r"cross_entropy: target must be of the shape of x without dim 1: f32\[2, 3\] and i64\[3\]",
    ),
    (lambda: o(0).max(), RuntimeError, r"max: expected a non-empty tensor, got f32\[0\]"),
]
DIMS: list[Case] = [
    (lambda: o(2, 3).sum(2), IndexError, r"sum: Dimension out of range \(expected to be in range of \[-2, 1\], but got 2\)"),
    (lambda: o(2, 3).softmax(5), IndexError, r"softmax: Dimension out of range .*but got 5"),
    (lambda: o(2, 3).transpose(0, 2), IndexError, r"transpose: Dimension out of range .*but got 2"),
    (lambda: o(2, 3).permute(0, 0), RuntimeError, r"permute: duplicate dims are not allowed: \[0, 0\]"),
    (lambda: o(2, 3).flip(3), IndexError, r"flip: Dimension out of range .*but got 3"),
    (lambda: o(2, 2).cumsum(3), IndexError, r"cumsum: Dimension out of range .*but got 3"),
]
DTYPES: list[Case] = [
    (lambda: o(2, dtype=i64) @ o(2), RuntimeError, r"matmul: expected both operands to have one dtype, got i64\[2\] @ f32\[2\]"),
    (lambda: o(2) & o(2), NotImplementedError, r"bitwise_and: not defined for floating tensors: f32\[2\], f32\[2\]"),
    (lambda: o(2).masked_fill(o(2), 1), RuntimeError, r"masked_fill: argument 'mask' must be a bool tensor, got f32\[2\]"),
    (lambda: F.embedding(o(2), o(3, 2)), RuntimeError, r"embedding: argument 'x' must be an integer tensor.*got f32\[2\]"),
    (
        lambda: graphc.tensor([1], requires_grad=True),
        RuntimeError,
        "only Tensors of floating point and complex dtype can require gradients",
    ),
]
NOT_TENSORS: list[Case] = [
    (lambda: graphc.exp([1.0]), TypeError, "exp: argument 'x' must be a Tensor, not list"),
    (lambda: graphc.add(o(2), None), TypeError, "add: argument 'other' must be a Tensor or a number, not NoneType"),
    (lambda: graphc.matmul(o(2, 2), 3), TypeError, "matmul: argument 'other' must be a Tensor, not int"),
    (lambda: o(2).pow("x"), TypeError, "pow: argument 'exponent' must be a Tensor or a number, not str"),
    (lambda: graphc.cat([]), ValueError, "cat: expected a non-empty list of Tensors"),
]
NUMBERS: list[Case] = [
    (lambda: F.dropout(o(2), 1.5), ValueError, "dropout probability has to be between 0 and 1, but got 1.5"),
    (lambda: graphc.arange(0, 1, 0), RuntimeError, "arange: step must be nonzero"),
    (lambda: graphc.zeros(2, -1), RuntimeError, r"zeros: negative size in size \[2, -1\]"),
    (lambda: graphc.randint(5, 2, (2,)), RuntimeError, "randint: expects 'low' to be less than 'high', got 5 >= 2"),
    (lambda: o(2, 3).chunk(0), RuntimeError, "chunk: expects chunks to be greater than 0, got 0"),
    (lambda: o(2).clamp(), RuntimeError, "clamp: at least one of 'min' or 'max' must not be None"),
]
SIGNATURES: list[Case] = [
    (lambda: o(2).sum(foo=1), TypeError, r"sum\(\) got an unexpected keyword argument 'foo'"),
    (lambda: graphc.matmul(o(2)), TypeError, r"matmul\(\) missing 1 required positional argument: 'other'"),
    (lambda: o(2).add_(), TypeError, r"add\(\) missing 1 required positional argument: 'other'"),
    (lambda: graphc.zeros(2, foo=3), TypeError, r"zeros\(\) got an unexpected keyword argument 'foo'"),
    (lambda: graphc.exp(o(2), 1, 2), TypeError, "exp: takes 1 arguments but 3 were given"),
]
INDICES: list[Case] = [
    (lambda: F.embedding(graphc.tensor([5]), o(3, 2)), IndexError, r"embedding: index out of range: i64\[1\], f32\[3, 2\]"),
    (lambda: F.cross_entropy(o(2, 3), graphc.tensor([0, 7])), IndexError, r"target class out of range: f32\[2, 3\], i64\[2\]"),
    (lambda: o(3, 2).gather(0, graphc.tensor([[9, 0]])), RuntimeError, r"gather: index out of range: f32\[3, 2\], i64\[1, 2\]"),
    (lambda: o(3).index_select(0, graphc.tensor([3])), IndexError, r"index_select: index out of range: f32\[3\], i64\[1\]"),
    (lambda: o(3).scatter_add(0, graphc.tensor([-1]), o(1)), RuntimeError, r"scatter_add: index out of range: f32\[3\], i64\[1\]"),
]
ALL = RANKS_AND_SIZES + DIMS + DTYPES + NOT_TENSORS + NUMBERS + SIGNATURES + INDICES


@pytest.mark.parametrize(("call", "error", "message"), ALL, ids=[message.split(":")[0][:20] for _, _, message in ALL])
def test_the_error_names_everything_eagerly_and_compiled(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message + ".*" + HERE) as eager:
        call()
    with pytest.raises(error, match=message + ".*" + HERE) as compiled:
        graphc.compile(call)()
    assert type(compiled.value) is type(eager.value) is error
    assert str(eager.value).count("test_errors.py") == 1


# ---- compiled code --------------------------------------------------------------------------------


def test_errors_of_arguments_of_compiled_code_come_at_the_call() -> None:
    compiled = graphc.compile(lambda x, y: x @ y)
    assert compiled(o(2, 3), o(3, 2)).shape == (2, 2)
    with pytest.raises(RuntimeError, match=r"matmul: inner sizes differ: f32\[2, 3\] @ f32\[4, 5\]" + HERE):
        compiled(o(2, 3), o(4, 5))
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
        compiled(o(2, 3))
    with pytest.raises(RuntimeError, match=r"matmul: .*f32\[2, 3\] @ f64\[3, 2\].*" + HERE):
        compiled(o(2, 3), np.ones((3, 2)))  # an array is a tensor of its own dtype
    assert compiled(o(2, 3), o(3, 2)).tolist() == [[3, 3], [3, 3]]


TAKE: list[Callable[[Any, Any], Any]] = [
    lambda table, index: table.index_select(0, index),
    lambda table, index: table.index_select(0, index),
]


def test_the_line_is_that_of_the_code_although_equal_programs_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    hits = 0
    for f in TAKE:
        compiled = graphc.compile(f)
        line = f.__code__.co_firstlineno
        for _ in range(2):
            with pytest.raises(IndexError, match=rf"index_select: index out of range: .* \(test_errors.py:{line}\)$"):
                compiled(o(3, 2), graphc.tensor([3]))
        hits += compiled.stats()["cache_hits"]
    assert hits == 1


def test_a_failed_call_writes_nothing() -> None:
    table, count, index = normal(4, 3), graphc.zeros(4), graphc.tensor([0, 2])

    @graphc.compile
    def step(index: Any, source: Any) -> Any:
        source.mul_(2)
        count.add_(1)
        table.copy_(table * 0.5)
        count.copy_(count.scatter_add(0, index, graphc.ones(2)))
        return table.index_select(0, index)

    source = normal(3)
    step(index, source)
    before = [a.copy() for a in arrays([table, count, source])]
    versions = table._version, count._version, source._version
    for bad in ([0, 4], [-1, 1]):
        with pytest.raises(RuntimeError, match=r"out of range: .*\(test_errors.py:\d+\)$"):
            step(graphc.tensor(bad), source)
    assert_same_bits(arrays([table, count, source]), before)
    assert (table._version, count._version, source._version) == versions
    step(index, source)
    assert count.tolist() == [4, 2, 4, 2]


# ---- gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda f: f, graphc.compile], ids=["eager", "compiled"])
def test_gradients_that_cannot_be(wrap: Callable[..., Any]) -> None:
    f = wrap(lambda x: x * x)
    x = leaf(normal(3))
    with pytest.raises(RuntimeError, match=r"grad can be implicitly created only for scalar outputs, not for f32\[3\]" + HERE):
        f(x).backward()
    with pytest.raises(RuntimeError, match=r"does not require grad and does not have a grad_fn" + HERE):
        f(x.detach()).sum().backward()
    with pytest.raises(RuntimeError, match=r"\[2\].*\[3\]|shape.*" + HERE):
        f(x).backward(o(2))
    y = f(x).sum()
    y.backward()
    gradient = x.grad.numpy().copy()
    with pytest.raises(RuntimeError, match=r"backward through the graph a second time .*retain_graph=True.*" + HERE):
        y.backward()
    assert np.array_equal(x.grad.numpy(), gradient)
    with pytest.raises(RuntimeError, match=r"a leaf Variable that requires grad .*in-place.*" + HERE):
        x.add_(1)


def test_backward_inside_and_outside_of_compiled_code() -> None:
    @graphc.compile
    def step(x: Any) -> Any:
        loss = (x * x).sum()
        loss.backward()
        return loss

    x = leaf(normal(3))
    loss = step(x)
    assert_same_bits(arrays(x.grad), arrays(x * 2))
    with pytest.raises(RuntimeError, match=r"second time|does not require grad"):
        loss.backward()
    with pytest.raises(RuntimeError, match=r"argument 0, which was computed outside" + r".*" + HERE):
        step(x * 2)


def test_a_function_that_fails_while_it_is_traced_leaves_no_trace() -> None:
    weight, model = leaf(normal(3)), nn.Linear(3, 2)

    def f(x: Any) -> Any:
        model.weight.grad = o(2, 3)
        with graphc.no_grad():
            weight.mul_(5)
        model(x).sum().backward()
        raise ValueError("mine")

    before = weight.tolist()
    with pytest.raises(ValueError, match="mine"):
        graphc.compile(f)(o(1, 3))
    assert weight.tolist() == before
    assert model.weight.grad is None
    assert (weight._version, graphc.is_grad_enabled()) == (0, True)
    assert (weight * 2).requires_grad
