"""Calls as users write them: PyTorch's keyword names, methods, in-place methods and Python operators, each against PyTorch.

One line is one expression of both libraries; `a`, `v`, `w` are floating, `b` bool and `i` integer tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

DATA = {
    "a": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "v": [1.0, 2.0, 3.0], "w": [3.0, 1.0, 2.0],
    "b": [[True, False, True], [False, True, True]], "i": [[0, 1, 0], [1, 0, 1]],
}  # fmt: skip

FUNCTIONS = """
    add(input=a, other=v, alpha=2)
    sub(input=a, other=v, alpha=2)
    mul(input=a, other=v)
    div(input=a, other=v, rounding_mode="floor")
    floor_divide(input=a, other=v)
    remainder(input=a, other=v)
    fmod(input=a, other=v)
    pow(input=a, exponent=2)
    pow(self=2, exponent=a)
    float_power(input=a, exponent=2)
    rsub(input=a, other=v)
    maximum(input=a, other=v)
    minimum(input=a, other=v)
    clamp(input=a, min=2, max=3)
    clamp_min(input=a, min=2)
    clamp_max(input=a, max=2)
    clip(input=a, min=2)
    lerp(input=a, end=v, weight=0.5)
    addcmul(input=a, tensor1=v, tensor2=w, value=2)
    addcdiv(input=a, tensor1=v, tensor2=w, value=2)
    eq(input=a, other=v)
    gt(input=a, other=2)
    isclose(input=a, other=v, rtol=1., atol=1., equal_nan=True)
    allclose(input=a, other=v, rtol=1., atol=1., equal_nan=True)
    equal(input=a, other=v)
    where(condition=b, input=a, other=v)
    where(b, a, other=v)
    logical_and(input=a, other=v)
    bitwise_and(input=i, other=i)
    bitwise_left_shift(input=i, other=1)
    sum(input=a, dim=1, keepdim=True, dtype=torch.float64)
    sum(a, axis=1, keepdims=True)
    mean(input=a, dim=1, keepdim=True, dtype=torch.float64)
    prod(input=a, dim=1, keepdim=True, dtype=torch.float64)
    nansum(input=a, dim=1, keepdim=True, dtype=torch.float64)
    nanmean(input=a, dim=1, keepdim=True, dtype=torch.float64)
    amax(input=a, dim=1, keepdim=True)
    amin(input=a, dim=(0, 1), keepdim=True)
    aminmax(input=a, dim=1, keepdim=True)
    argmax(input=a, dim=1, keepdim=True)
    argmin(input=a, dim=None, keepdim=False)
    max(input=a, dim=1, keepdim=True)
    max(input=a, other=v)
    min(input=a)
    std(input=a, dim=1, correction=0, keepdim=True)
    std(input=a, dim=1, unbiased=False, keepdim=True)
    var(input=a, unbiased=False)
    std_mean(input=a, dim=1, correction=0, keepdim=True)
    var_mean(input=a, unbiased=False)
    logsumexp(input=a, dim=1, keepdim=True)
    all(input=b, dim=1, keepdim=True)
    any(input=b, dim=(0, 1))
    count_nonzero(input=a, dim=1)
    cat(tensors=(a, a), dim=1)
    cat((a, a), axis=1)
    cat(tensors=[a, a])
    stack(tensors=(a, a), dim=1)
    hstack(tensors=(a, a))
    vstack(tensors=(a, a))
    dstack(tensors=(a, a))
    column_stack(tensors=(a, a))
    row_stack(tensors=(a, a))
    split(tensor=a, split_size_or_sections=1, dim=1)
    split(a, [1, 2], dim=1)
    chunk(input=a, chunks=2, dim=1)
    tensor_split(a, sections=2, dim=1)
    tensor_split(a, indices=(1, ), dim=1)
    hsplit(a, sections=3)
    vsplit(input=a, sections=2)
    unbind(input=a, dim=1)
    narrow(input=a, dim=1, start=0, length=2)
    select(input=a, dim=1, index=0)
    squeeze(input=a, dim=1)
    squeeze(a, dim=(0, 1))
    unsqueeze(input=a, dim=1)
    transpose(input=a, dim0=0, dim1=1)
    swapaxes(input=a, axis0=0, axis1=1)
    swapdims(input=a, dim0=0, dim1=1)
    movedim(input=a, source=0, destination=1)
    moveaxis(input=a, source=0, destination=1)
    permute(input=a, dims=(1, 0))
    t(input=a)
    flatten(input=a, start_dim=0, end_dim=1)
    unflatten(input=a, dim=1, sizes=(3, 1))
    reshape(input=a, shape=(3, 2))
    ravel(input=a)
    broadcast_to(input=v, size=(2, 3))
    broadcast_tensors(a, v)
    meshgrid(v, w, indexing="ij")
    meshgrid([v, w], indexing="xy")
    tile(input=a, dims=(2, 1))
    tile(a, (2, 2))
    flip(input=a, dims=(0, ))
    roll(input=a, shifts=1, dims=1)
    roll(a, (1, 1), (0, 1))
    atleast_2d(v)
    atleast_1d((v, w))
    mm(input=a, mat2=a.T)
    matmul(input=a, other=v)
    bmm(input=a[None], mat2=a.T[None])
    mv(input=a, vec=v)
    dot(input=v, tensor=w)
    outer(input=v, vec2=w)
    ger(input=v, vec2=w)
    addmm(input=v[:2], mat1=a, mat2=a.T, beta=2, alpha=3)
    baddbmm(input=v[:2], batch1=a[None], batch2=a.T[None])
    addmv(input=v[:2], mat=a, vec=v)
    addr(input=a, vec1=v[:2], vec2=v)
    addbmm(input=v[:2], batch1=a[None], batch2=a.T[None])
    round(input=a, decimals=1)
    sign(input=a)
    abs(input=a)
    neg(input=a)
    masked_fill(input=a, mask=b, value=3.)
    full(size=(2, 3), fill_value=2.)
    full((2, 3), 2, dtype=torch.float16)
    zeros(size=(2, 3))
    zeros(2, 3, dtype=torch.int8)
    ones((2, 3), dtype=torch.bool, device="cpu", requires_grad=False, layout=torch.strided, pin_memory=False)
    empty((2, 0), memory_format=torch.contiguous_format)
    arange(start=1, end=5, step=2)
    arange(end=5)
    arange(1, 5, dtype=torch.float32, requires_grad=True)
    linspace(start=0, end=1, steps=3)
    logspace(start=0, end=1, steps=3, base=2.)
    eye(n=2, m=3, dtype=torch.int64)
    zeros_like(input=a, dtype=torch.int8, memory_format=torch.preserve_format)
    full_like(input=a, fill_value=2)
    ones_like(a, device="cpu", layout=torch.strided, requires_grad=True)
    empty_like(input=b, dtype=torch.uint8)
    tensor(data=[1, 2], dtype=torch.float64, device="cpu", requires_grad=True)
    as_tensor(data=[1, 2], dtype=torch.float64)
    atan2(input=a, other=v)
    cumsum(input=a, dim=1, dtype=torch.float64)
    softmax(input=a, dim=1, dtype=torch.float64)
"""

METHODS = """
    a.sum(1, True)
    a.sum(dim=(0, 1), keepdim=True, dtype=torch.float64)
    a.sum((0, 1))
    a.mean(-1)
    a.view(3, 2)
    a.reshape(3, -1)
    a.permute(1, 0)
    a.permute((1, 0))
    a.permute(dims=(1, 0))
    a.expand(2, 2, 3)
    a.expand((2, 2, 3))
    a.expand(size=(2, 2, 3))
    a.repeat(2, 1)
    a.repeat((2, 1))
    a.repeat(repeats=(2, 1))
    a.split(2, 1)
    a.split(split_size=2, dim=1)
    a.flip(0, 1)
    a.flip((0, 1))
    a.tile(2, 1)
    a.tile((2, ))
    a.T.contiguous().flatten()
    a.transpose(0, 1)
    a.swapaxes(0, 1)
    a.unflatten(1, (3, 1))
    a.unflatten(-1, (-1, 3))
    a.new_zeros(2, 3)
    a.new_zeros((2, 3), dtype=torch.int8)
    a.new_zeros(size=(2, 3))
    a.new_full((2, 3), 5)
    a.new_full(size=(2, 3), fill_value=5)
    a.new_ones(2)
    a.new_empty((0, 3))
    a.new_tensor([1, 2])
    a.max(1)
    a.max(dim=1, keepdim=True)
    a.max(v)
    a.max(other=v)
    a.min()
    a.argmax(-1, keepdim=True)
    a.std(unbiased=False)
    a.std(1, False)
    a.std(1, correction=0)
    a.var(False)
    a.clamp(0, 2)
    a.clamp(min=2)
    a.clamp_(max=2)
    a.clamp(min=v)
    a.add(v, alpha=2)
    a.div(2, rounding_mode="trunc")
    a.pow(2)
    a.round(decimals=1)
    a.all()
    b.all(1)
    b.any(dim=1, keepdim=True)
    a.eq(a)
    a.masked_fill(b, 0)
    a.view_as(a)
    a.type_as(i)
    a.unbind(1)
    a.chunk(2, -1)
    a.narrow(1, 0, 2)
    a.select(1, 0)
    a.squeeze((0, 1))
    a.squeeze(-1)
    a.unsqueeze(0)
    a.movedim(0, 1)
    a.expand_as(a)
    a.lerp(v, 0.5)
    a.addcmul(v, v, value=2)
    a.addcmul_(v, v, value=2)
    a.mul_(2)
    a.true_divide(2)
    a.sub_(v, alpha=2)
    a.eq_(v)
    a.logical_not_()
    a.copy_(v)
    a.fill_(2)
    a.zero_()
    a.t_()
    a.squeeze_(0)
    a.unsqueeze_(0)
    a.transpose_(0, 1)
    a.swapaxes_(0, 1)
    a.swapdims_(0, 1)
    1+a
    1-a
    2*a
    2/a
    2**a
    7//a
    7%a
    a+True
    i&1
    1&i
    1|i
    1^i
    1<<i
    8>>i
    ~i
    ~b
    -a
    +a
    abs(a)
    a@v
    v@a.T
    a>2
    2>a
    a==2
    a!=v
    a.is_floating_point()
    a.dim()
    a.ndimension()
    a.nelement()
    a.element_size()
    a.stride()
    a.size(0)
    a.size()
    a.__rsub__(1)
    a.__rpow__(2)
    a.float_power(2)
    a.sum_to_size(1, 3)
    a.ravel()
    a.hsplit(3)
    a.tensor_split(2, dim=1)
    a.nansum()
    a.count_nonzero(dim=0)
    a.aminmax(dim=0)
    a.bool()
    a.long()
    a.rsqrt_()
    a.exp_()
    a.sgn()
    a.negative()
    a.absolute_()
    a.multiply_(2)
    a.divide_(2)
    a.subtract_(2)
    a.greater_(2)
    a.less_equal_(2)
    a.not_equal_(2)
    a.arccos()
    a.arctan2(a)
    a.clip_(1, 2)
    a.fix()
    a.moveaxis(0, 1)
    a.remainder_(2)
    a.fmod_(2)
    a.floor_divide_(2)
    a.double().float_power_(2)
    i.bitwise_and_(1)
    i.bitwise_not_()
    i.__iand__(1)
    i.__ilshift__(1)
    a.__itruediv__(2)
    a.__ifloordiv__(2)
    a.__imod__(2)
    a.__ipow__(2)
    a.__imul__(2)
    a+np.float64(2)
    np.float32(2)*a
    i*np.int64(3)
    a*np.float32(1.5)
    i/np.int32(2)
    np.int64(2)**i
"""


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def value(library: Any, expression: str) -> Any:
    names = {name: library.tensor(data) for name, data in DATA.items()}
    return eval(expression, {**names, "torch": library, "np": np})


def leaves(result: Any) -> list[Any]:
    if isinstance(result, tuple | list) and not isinstance(result, torch.Size | graphc.Size):
        return [leaf for member in result for leaf in leaves(member)]
    return [result]


@pytest.mark.parametrize("expression", [*(f"torch.{line}" for line in lines(FUNCTIONS)), *lines(METHODS)])
def test_as_pytorch(expression: str) -> None:
    wanted, got = value(torch, expression), value(graphc, expression)
    assert type(got).__name__ == type(wanted).__name__
    for ours, theirs in zip(leaves(got), leaves(wanted), strict=True):
        if not isinstance(theirs, torch.Tensor):
            assert ours == theirs
            continue
        assert ours.dtype.name == str(theirs.dtype).removeprefix("torch.")
        assert tuple(ours.shape) == tuple(theirs.shape) and ours.requires_grad == theirs.requires_grad
        if "empty" not in expression:
            np.testing.assert_allclose(ours.detach().double().numpy(), theirs.detach().double().numpy(), rtol=1e-6)
