"""Calls that PyTorch refuses: graphc refuses them with the same class of error, or one that is a kind of it or whose kind it is.

One line is one expression of both libraries; `a` and `v` are floating, `b` bool and `i` integer tensors.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import graphc

torch = pytest.importorskip("torch")

DATA = {
    "a": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "v": [1.0, 2.0, 3.0],
    "b": [[True, False, True], [False, True, True]], "i": [[0, 1, 0], [1, 0, 1]],
}  # fmt: skip

REFUSED = """
    i.add_(1.5)
    i.div_(2)
    i.true_divide_(2)
    b.add_(1)
    i.floor_divide_(1.5)
    i.sub_(a)
    i.pow_(0.5)
    i.lerp_(i, 0.5)
    i.sqrt_()
    i.exp_()
    a.bitwise_and_(1)
    -b
    b-b
    torch.neg(b)
    torch.positive(b)
    torch.abs(b)
    torch.sub(b, b)
    torch.rsub(b, True)
    torch.floor(b)
    torch.bitwise_and(a, a)
    torch.bitwise_not(a)
    ~a
    a & a
    i ** -1
    torch.pow(i, -2)
    torch.add(i, i, alpha=0.5)
    torch.mean(i)
    torch.std(i)
    torch.var(b)
    torch.add(a, [1.0])
    torch.add(a, "x")
    a + "x"
    a + None
    a @ 2
    torch.matmul(a, 2)
    torch.sum(a, 5)
    torch.sum(a, (0, 0))
    a.sum(dim="x")
    torch.amax(torch.ones(0, 3), 0)
    torch.amax(torch.ones(0, 3))
    torch.max(torch.ones(0))
    torch.max(torch.ones(0, 3), 0)
    torch.argmax(torch.ones(0))
    torch.argmax(torch.ones(2, 0), 1)
    torch.median(torch.ones(2, 0), 1)
    a.view(5)
    a.view(-1, -1)
    a.reshape(4, 2)
    a.expand(3, 2)
    a.expand(2)
    a.permute(0)
    a.permute(0, 0)
    a.transpose(0, 2)
    a.t().view(6)
    torch.ones(2, 2, 2).t()
    a.squeeze(5)
    a.unsqueeze(5)
    a.flatten(1, 0)
    a.unflatten(1, (2, 2))
    a.narrow(1, 2, 5)
    a.select(1, 9)
    a.unbind(2)
    a.split(0)
    a.split([1, 1], 1)
    a.chunk(0)
    a.repeat(2)
    a.repeat(-1, 2)
    a.tile((-1,))
    a.movedim((0, 1), 0)
    a.roll(1, 5)
    a.flip(0, 0)
    a.flip(3)
    torch.cat([a, torch.ones(2, 2)])
    torch.cat([])
    torch.cat([torch.tensor(1.0)])
    torch.cat(a, 0)
    torch.stack([a, v])
    torch.stack([])
    torch.hstack([])
    torch.vstack([a, torch.ones(2, 2)])
    torch.meshgrid(a, a, indexing="ij")
    torch.meshgrid(v, v, indexing="zz")
    torch.broadcast_to(a, (2, 2))
    torch.broadcast_tensors(a, torch.ones(2))
    torch.broadcast_shapes((2,), (3,))
    torch.where(a, a, a)
    torch.where(b, a, "x")
    torch.clamp(a)
    torch.clamp_min(a)
    torch.masked_fill(a, i, 0)
    a.masked_fill(b, v)
    torch.zeros(-1)
    torch.zeros(2.5)
    torch.zeros("x")
    torch.full((2,), "x")
    torch.full((-2,), 1)
    torch.arange(0, 5, 0)
    torch.arange(0, 5, -1)
    torch.arange(float("inf"))
    torch.arange("x")
    torch.linspace(0, 1, -1)
    torch.linspace(0, 1, 2.5)
    torch.eye(-1)
    torch.eye(2.5)
    torch.ones(2, dtype="float")
    torch.tensor("x")
    torch.tensor([1.0, None])
    torch.zeros(2, device="nowhere")
    torch.ones(2, dtype=torch.int32, requires_grad=True)
    torch.ones_like(3)
    a.new_zeros(-1)
    a.new_full((2,), "x")
    a.add(a, alpha="x")
    a.div(2, rounding_mode="up")
    a.div(2, 3)
    a.sum(0, 1, 2, 3, 4)
    a.sum(dims=0)
    torch.round(a, decimals=0.5)
    torch.isclose(a, i)
    torch.isclose(a, a, rtol=-1)
    torch.allclose(a, i)
    torch.logical_and(a, 1)
    torch.maximum(a, 1)
    torch.eq(1, a)
    torch.mm(a, a)
    torch.mm(a, v)
    torch.mm(a, i)
    torch.bmm(a, a)
    torch.mv(a, torch.ones(2))
    torch.dot(a, a)
    torch.dot(v, torch.ones(2))
    torch.outer(a, a)
    torch.addmm(a, a, a)
    torch.matmul(a, i)
    torch.matmul(a, torch.ones(2))
    torch.std(a, 0, correction="x")
    torch.logsumexp(a, 3)
    torch.cumsum(a, 3)
    torch.cumsum(a)
    torch.fmod(2, a)
    torch.atan2(a, 2)
    torch.tensor_split(a, 0)
    torch.hsplit(a, 2)
    torch.dsplit(a, 2)
    torch.vsplit(v, 2)
    torch.aminmax(a, dim=3)
    torch.count_nonzero(a, 3)
    torch.float_power(2, 3)
    a.fill_(v)
    a.fill_("x")
    a.copy_(torch.ones(5))
    a.item()
    bool(a)
    int(a)
    float(v)
    len(torch.tensor(1))
    iter(torch.tensor(1))
    a.view_as(v)
    a.expand_as(torch.ones(3, 3))
    a.type("nothing")
    a.to("nothing")
    i.requires_grad_()
"""


def error_of(library: Any, expression: str) -> Exception | None:
    names = {name: library.tensor(data) for name, data in DATA.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            eval(expression, {**names, "torch": library})
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("expression", [line.strip() for line in REFUSED.strip().splitlines()])
def test_refused_as_by_pytorch(expression: str) -> None:
    wanted, got = error_of(torch, expression), error_of(graphc, expression)
    assert wanted is not None, "PyTorch takes it"
    assert got is not None, f"PyTorch raises {wanted!r}"
    assert isinstance(got, type(wanted)) or isinstance(wanted, type(got)), f"{got!r}, PyTorch raises {wanted!r}"
