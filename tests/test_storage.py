"""Memory as PyTorch shows it: storages, strides, memory formats, pickles and copies."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn as nn

HERE = r" \(test_storage\.py:\d+\)$"


def counted(*shape: int, dtype: graphc.dtype = graphc.float32) -> graphc.Tensor:
    return graphc.arange(int(np.prod(shape))).to(dtype).reshape(shape)


# ---- storages ----------------------------------------------------------------------------------------------------------


def test_views_share_a_storage() -> None:
    x = counted(3, 4)
    part = x[1:, ::2]
    assert part.untyped_storage() == x.untyped_storage() and part.untyped_storage().data_ptr() == x.data_ptr()
    assert part.data_ptr() == x.data_ptr() + 16 and part.storage_offset() == 4 and part.stride() == (4, 2)
    assert x.untyped_storage().nbytes() == len(x.untyped_storage()) == 48 and x.storage().size() == 12
    assert x.storage().tolist() == list(range(12)) and x.storage()[3] == 3.0
    assert graphc.is_storage(x.storage()) and not graphc.is_storage(x)
    x.untyped_storage().fill_(0)
    assert part.sum().item() == 0
    assert x.clone().untyped_storage() != x.untyped_storage()


def test_numpy_shares_both_ways() -> None:
    array = np.zeros((2, 3), np.float32)
    x = graphc.from_numpy(array)
    x[0, 0] = 1
    array[1, 1] = 2
    assert array[0, 0] == 1 and x[1, 1].item() == 2 and np.shares_memory(x.numpy(), array)
    assert np.shares_memory(graphc.as_tensor(array).numpy(), array) and np.shares_memory(graphc.asarray(array).numpy(), array)
    assert not np.shares_memory(graphc.tensor(array).numpy(), array)
    assert not np.shares_memory(graphc.asarray(array, copy=True).numpy(), array)
    with pytest.raises(ValueError, match="without a copy"):
        graphc.asarray([1.0], copy=False)
    strided = graphc.from_numpy(np.arange(10)[::3])
    assert strided.stride() == (3,) and strided.storage().size() == 10


def test_bytes_seen_as_another_dtype() -> None:
    x = graphc.ones(4)
    bits = x[1:].view(graphc.int32)
    assert bits.storage_offset() == 1 and bits.untyped_storage() == x.untyped_storage()
    assert bits.as_strided((2,), (1,), 0).tolist() == [0x3F800000] * 2
    a, b = pickle.loads(pickle.dumps([x, bits]))
    b.zero_()
    assert a.tolist() == [1, 0, 0, 0] and copy.deepcopy(bits).tolist() == [0x3F800000] * 3
    assert bits.resize_(4).tolist()[:3] == [0x3F800000] * 3


def test_writes_to_shared_places_are_refused() -> None:
    x = graphc.ones(3)
    for view in (x.expand(2, 3), x.as_strided((2, 2), (1, 1))):
        with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
            view.add_(1)
    x.as_strided((3, 1), (1, 5)).zero_()
    assert x.tolist() == [0, 0, 0]


# ---- as_strided --------------------------------------------------------------------------------------------------------


def test_as_strided_is_a_view_of_the_storage() -> None:
    x = counted(3, 4)
    assert x.as_strided((2, 2), (4, 1), 1).tolist() == [[1, 2], [5, 6]]
    assert x.t().as_strided((2, 3), (1, 2)).tolist() == [[0, 2, 4], [1, 3, 5]]
    assert x[2].as_strided((2,), (1,), 0).tolist() == [0, 1]  # beside the tensor, in the storage
    assert x[1].as_strided((2,), (1,)).tolist() == [4, 5]  # from where it begins
    graphc.as_strided(x, (2,), (5,)).fill_(-1)
    assert x.flatten().tolist() == [-1, 1, 2, 3, 4, -1, 6, 7, 8, 9, 10, 11]
    y = counted(6)
    assert y.as_strided_((2, 2), (3, 1)) is y and y.tolist() == [[0, 1], [3, 4]]


@pytest.mark.parametrize(
    ("size", "stride", "offset", "message"),
    [
        ((7,), (1,), 0, "out of bounds for storage of size 6"),
        ((2,), (1,), 5, "out of bounds for storage of size 6"),
        ((2, 2), (1,), 0, "mismatch in length"),
        ((2,), (-1,), 3, "Negative strides"),
        ((-2,), (1,), 0, "negative size"),
        ((2,), (1,), -1, "invalid storage offset"),
        ((2**62,), (2**62,), 0, "out of bounds"),
    ],
)
def test_as_strided_stays_in_the_storage(size: Any, stride: Any, offset: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        counted(6).as_strided(size, stride, offset)


def test_as_strided_has_gradients_and_compiles() -> None:
    x = counted(3, 4, dtype=graphc.float64).requires_grad_()
    windows = lambda x: x.as_strided((3, 3), (4, 1)).square() + x.as_strided((3, 3), (1, 4), 1)
    assert graphc.autograd.gradcheck(windows, (x,)) and graphc.autograd.gradgradcheck(windows, (x,))
    transposed = lambda x: x.t().as_strided((2, 2), (1, 5))
    assert graphc.autograd.gradcheck(transposed, (x,))
    with graphc.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert graphc.equal(graphc.compile(windows)(x), windows(x))
        outside = x.t()
        compiled = graphc.compile(lambda y: outside.as_strided((2, 2), (1, 5)) + y)
        assert graphc.equal(compiled(graphc.ones(1)), outside.as_strided((2, 2), (1, 5)) + 1)
    part = lambda x, y: graphc.as_strided_scatter(x, y, (2, 2), (4, 1), 1)
    y = graphc.ones(2, 2, dtype=graphc.float64, requires_grad=True)
    assert graphc.autograd.gradcheck(part, (x, y))
    written = x.detach().clone().requires_grad_()
    z = written * 1
    z.as_strided((4,), (3,)).mul_(3.0)
    z.sum().backward()
    assert written.grad.flatten().tolist() == [3, 1, 1, 3, 1, 1, 3, 1, 1, 3, 1, 1]


@pytest.mark.parametrize("dtype", [graphc.bfloat16, graphc.float16, graphc.bool, graphc.uint8, graphc.complex128])
def test_as_strided_of_every_width(dtype: graphc.dtype) -> None:
    x = counted(6, dtype=dtype)
    assert x.as_strided((2, 2), (3, 2)).tolist() == [[x[0].item(), x[2].item()], [x[3].item(), x[5].item()]]


# ---- memory formats ----------------------------------------------------------------------------------------------------


def test_channels_last() -> None:
    x = counted(2, 3, 4, 5)
    y = x.to(memory_format=graphc.channels_last)
    assert y.stride() == (60, 1, 15, 3) and graphc.equal(x, y)
    assert y.is_contiguous(memory_format=graphc.channels_last) and not y.is_contiguous()
    assert y.contiguous(memory_format=graphc.channels_last) is y and y.contiguous().is_contiguous()
    assert graphc.ones(2, 3, 4, 5, 6).to(memory_format=graphc.channels_last_3d).stride() == (360, 1, 90, 18, 3)
    with pytest.raises(RuntimeError, match="required rank 4 tensor to use channels_last"):
        graphc.ones(3).contiguous(memory_format=graphc.channels_last)
    assert not graphc.ones(3).is_contiguous(memory_format=graphc.channels_last)
    assert x.clone(memory_format=graphc.channels_last).stride() == y.stride()
    assert graphc.empty(2, 3, 4, 5, memory_format=graphc.channels_last).stride() == y.stride()
    conv = nn.Conv2d(3, 2, 1).to(memory_format=graphc.channels_last)
    assert conv(y).shape == (2, 2, 4, 5)


def test_empty_with_strides() -> None:
    assert graphc.empty_strided((2, 3), (1, 2)).stride() == (1, 2)
    assert graphc.empty_permuted((2, 3, 4), (2, 0, 1)).stride() == (3, 1, 6)
    assert graphc.ones(1, dtype=graphc.int8).new_empty_strided((2,), (4,)).dtype is graphc.int8
    with pytest.raises(RuntimeError, match="no order of the dims"):
        graphc.empty_permuted((2, 3), (0, 0))


# ---- memory that changes -----------------------------------------------------------------------------------------------


def test_resize_and_set() -> None:
    x = counted(6)
    assert x.resize_(2, 2).tolist() == [[0, 1], [2, 3]]
    assert x.resize_(6).tolist() == [0, 1, 2, 3, 4, 5]  # the memory was there all along
    assert x.resize_(8).tolist()[:6] == [0, 1, 2, 3, 4, 5]
    assert x.resize_as_(graphc.ones(2, 3)).shape == (2, 3)
    with pytest.raises(RuntimeError, match="cannot resize variables that require grad"):
        graphc.ones(2, requires_grad=True).resize_(3)
    y = graphc.empty(0)
    y.set_(x.untyped_storage(), 1, (2,), (2,))
    assert y.tolist() == [1, 3] and y.untyped_storage() == x.untyped_storage()
    y.set_(x)
    assert y.is_set_to(x)
    assert y.set_().shape == (0,)


def test_shared_memory_is_seen_by_forked_processes() -> None:
    x = graphc.zeros(4)
    assert not x.is_shared() and x.share_memory_() is x and x.is_shared()
    child = os.fork()
    if not child:
        x.numpy()[1] = 7
        os._exit(0)
    os.waitpid(child, 0)
    assert x.tolist() == [0, 7, 0, 0]


def test_pinned_memory_needs_an_accelerator() -> None:
    assert not graphc.ones(1).is_pinned()
    with pytest.raises(RuntimeError, match="accelerator"):
        graphc.ones(1).pin_memory()
    with pytest.raises(RuntimeError, match="accelerator"):
        graphc.zeros(2, pin_memory=True)


# ---- pickles and copies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_keep_sharing(protocol: int) -> None:
    x = counted(3, 4)
    a, b, c = pickle.loads(pickle.dumps([x, x.t()[1:], graphc.ones(2, dtype=graphc.bfloat16)], protocol))
    assert graphc.equal(a, x) and graphc.equal(b, x.t()[1:]) and c.dtype is graphc.bfloat16
    b.zero_()
    assert a.tolist() == [[0, 0, 0, 0], [4, 0, 0, 0], [8, 0, 0, 0]]
    assert b.stride() == (1, 4) and a.untyped_storage() == b.untyped_storage()


def test_a_pickle_brings_its_operators() -> None:
    code = f"import pickle; print((pickle.loads({pickle.dumps(graphc.ones(2))!r}) + 1).tolist())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[2.0, 2.0]"
    assert pickle.loads(pickle.dumps(graphc.empty(2, 0), 5)).shape == (2, 0)
    assert pickle.loads(pickle.dumps(graphc.tensor(3))).item() == 3


def test_pickles_of_parameters_and_large_memory() -> None:
    weight = nn.Parameter(graphc.ones(2))
    weight.note = "mine"
    again = pickle.loads(pickle.dumps(weight))
    assert type(again) is nn.Parameter and again.requires_grad and again.note == "mine"
    buffers: list[Any] = []
    x = counted(1000)
    text = pickle.dumps(x, 5, buffer_callback=buffers.append)
    assert len(text) < 1000 and pickle.loads(text, buffers=buffers).data_ptr() == x.data_ptr()
    with pytest.raises(RuntimeError, match="only Tensors created explicitly by the user"):
        pickle.dumps(weight * 2)
    file = io.BytesIO()
    pickle.dump(nn.Linear(2, 3), file)
    assert pickle.loads(file.getvalue()).weight.shape == (3, 2)


def test_deep_copies() -> None:
    x = counted(2, 3).requires_grad_()
    x.sum().backward()
    both = copy.deepcopy({"x": x.detach(), "t": x.detach().t()})
    both["t"].fill_(9)
    assert both["x"].tolist() == [[9, 9, 9], [9, 9, 9]] and x[0, 1].item() == 1
    y = copy.deepcopy(x)
    assert y.requires_grad and y.grad.tolist() == x.grad.tolist() and y.grad is not x.grad
    shallow = copy.copy(x)
    assert shallow.requires_grad and shallow.data_ptr() == x.data_ptr()
    square = counted(3, 3)
    for again in (copy.deepcopy(square.t()), pickle.loads(pickle.dumps(square.t()))):
        assert again.stride() == (1, 3) and graphc.equal(again, square.t())
    view = graphc.from_numpy(np.arange(10)[::2])
    assert copy.deepcopy(view).stride() == (2,) and pickle.loads(pickle.dumps(view)).tolist() == [0, 2, 4, 6, 8]
