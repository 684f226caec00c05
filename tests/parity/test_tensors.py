"""What a tensor is, in PyTorch and here: each expression gives the same text, or an error of the same class."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

EXPRESSIONS = """
np.exp(x) | x * np.ones(3) | x + np.float64(1) | np.float64(2) * x | np.float32(2) * x | x == None | x == 'a' | x != None
x < None | x == np.ones(3) | np.add(x, np.ones(3)) | torch.tensor(3) + np.int64(2) | [1, 2, 3] + x | x + [1, 2, 3]
np.array([torch.tensor(1.), torch.tensor(2.)]) | operator.index(torch.tensor(True)) | torch.tensor([3]).__index__()
torch.device('cpu') == torch.device('cpu', 0) | torch.device('cpu') == 'cpu' | torch.device(0) | torch.device('cuda', 1)
torch.device('meta') | torch.device('foo') | torch.device('cpu:1') | torch.device('cuda:x') | x.cuda() | x.to('cuda')
x.to('mps') | x.to('xpu') | torch.zeros(1, device='cuda') | x.to('foo') | x.to(None) | x.to(3)
x.to(torch.float64, True, True).dtype | x.to(device='cpu', dtype=torch.float64, non_blocking=True, copy=True)
x.to('cpu', torch.float64, False, True).dtype | x.type() | x.type(torch.DoubleTensor) | isinstance(x, torch.FloatTensor)
isinstance(x, torch.cuda.FloatTensor) | torch.cuda.FloatTensor(2) | torch.LongTensor([1.5, 2]) | torch.FloatTensor(2, 3).shape
torch.Tensor() | torch.Tensor([1, 2]) | torch.Tensor(3).shape | torch.Tensor(torch.ones(2)) | torch.Tensor((2, 3))
torch.Tensor(torch.ones(2, dtype=torch.float64)) | torch.LongTensor(x) | torch.IntTensor(np.ones(2)) | torch.Tensor(np.ones(2))
torch.Tensor(2.5) | torch.Tensor(torch.Size([2, 3])).shape | x.layout | torch.strided | torch.channels_last
torch.contiguous_format | x.is_pinned() | x.pin_memory() | x.is_shared() | x.name
(x.is_sparse, x.is_quantized, x.is_meta, x.is_mps, x.is_xpu, x.is_cpu, x.is_mkldnn, x.is_cuda) | x.share_memory_() is x
x.new(2, 3).shape | x.new([1, 2]) | x.new_tensor(3) | x.untyped_storage() | x.storage() | x.storage().size()
x.untyped_storage().nbytes() | x.untyped_storage().data_ptr() == x.data_ptr() | x[1:].untyped_storage().data_ptr() == x.data_ptr()
complex(torch.tensor(2)) | None in x | 'a' in x | 1.0 in x | torch.tensor([1., 2.]) in x | format(torch.tensor(2.5), '.2f')
format(x, '.2f') | x.is_same_size(x) | torch.typename(x) | torch.typename(3) | torch.is_storage(x.untyped_storage())
x.is_nonzero() | torch.is_nonzero(torch.tensor(0)) | torch.is_complex(x) | torch._assert(x.sum() == 3, 'm')
torch._assert(False, 'm') | torch.result_type(x, 1) | torch.can_cast(torch.float32, torch.int32) | torch.get_default_device()
torch.get_float32_matmul_precision() | torch.finfo(torch.float32) | torch.finfo(torch.complex64) | torch.finfo()
torch.iinfo(torch.bool) | torch.iinfo(3) | torch.iinfo(torch.int8).max | torch.Size([2, 3]).numel() | torch.Size([2]) + (3,)
(1,) + torch.Size([2]) | torch.Size([2]) * 2 | torch.Size([1, 2, 3])[1:] | torch.Size([2.5]) | torch.Size(3)
x.expand(2, 3).add_(1) | x.stride() | x.stride(0) | x.is_contiguous(memory_format=torch.channels_last)
torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last).stride() | x.contiguous(memory_format=torch.channels_last)
torch.is_autocast_enabled() | torch.cuda.is_available() | torch.cuda.device_count() | torch.cuda.current_device()
torch.cuda.synchronize() | torch.cuda.empty_cache() | torch.cuda.manual_seed_all(0) | torch.cuda.max_memory_allocated()
torch.cuda.get_device_name() | torch.cuda.is_bf16_supported() | torch.backends.mps.is_available()
torch.accelerator.is_available() | torch.version.cuda | torch.compiler.is_compiling() | torch.backends.cudnn.version()
torch.get_autocast_gpu_dtype() | torch.is_inference(x) | torch.numel(x) | float(x) | int(x) | bool(x) | x.item() | complex(x)
float(torch.tensor([2])) | int(torch.tensor(float('nan'))) | [1, 2, 3][torch.tensor(1)] | int(torch.tensor(float('inf')))
torch.tensor(1.5).__index__() | torch.tensor([[1]]).__index__() | float(torch.tensor(1 + 1j)) | reversed(x) | len(torch.tensor(1))
iter(torch.tensor(1)) | torch.ones(2, requires_grad=True).numpy() | str(torch.tensor(1.5)) | f'{torch.tensor(1.5)}'
f'{torch.tensor([1.5])}' | f'{torch.tensor(7):05d}' | f'{torch.tensor(True)}' | abs(-x) | sum([x, x]) | x in [x]
max(torch.tensor(1), torch.tensor(2)) | sorted([torch.tensor(2), torch.tensor(1)]) | {x: 1}[x] | x.tolist()
torch.tensor(3).tolist() | torch.empty(0).tolist() | torch.zeros(2, 0).tolist() | ~torch.tensor([True])
x.new_ones(2, dtype=torch.int32) | x._version | x.size(5) | x.expand(2, 3).stride() | x.expand(2, 3).contiguous().stride()
torch.as_tensor(x) is x | torch.asarray([1, 2.]) | torch.asarray(3) | torch.from_numpy(3)
torch.frombuffer(bytearray(b'1234'), dtype=torch.int32) | torch.tensor([x.sum(), 2]) | torch.tensor([[1, 2], [3]])
torch.tensor('a') | torch.tensor(None) | torch.tensor([None]) | torch.tensor([]) | torch.tensor([[]]) | torch.tensor(2**70)
torch.tensor([1, 2.5, True]) | torch.tensor([1 + 2j]) | torch.tensor([True, 2]) | torch.full((2,), True) | torch.full((2,), 3)
torch.set_default_dtype(torch.int32) | torch.scalar_tensor(3) | torch.empty(2, dtype=int).dtype
torch.zeros(2, dtype=float).dtype | x.to(float).dtype | x.to(int).dtype | torch.empty_strided((2, 3), (1, 2)).stride()
torch.empty_permuted((2, 3), (1, 0)).stride() | x.as_strided((2, 2), (1, 1)) | x.as_strided((4,), (1,))
x.as_strided((2,), (-1,)) | x.as_strided((2, 2), (1,)) | x.clone().resize_(2) | x.clone().set_(torch.ones(2))
x.clone().as_strided_((2,), (2,)) | torch.ones(2, 3)[1:].storage_offset() | x.requires_grad_().resize_(2)
torch.ones(2, 3).as_strided((3,), (2,), 1) | torch.as_strided(x, (3, 2), (0, 1)) | torch.is_tensor(x) | torch.is_floating_point(x)
"""


def outcome(library: Any, expression: str) -> str:
    """The text of a value, or the class of an error."""
    names = {"torch": library, "np": np, "operator": operator, "x": library.ones(3)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return repr(eval(expression, names)).replace("torch.", "graphc.")
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize("expression", [e.strip() for line in EXPRESSIONS.strip().splitlines() for e in line.split(" | ")])
def test_same(expression: str) -> None:
    assert outcome(graphc, expression) == outcome(torch, expression)
