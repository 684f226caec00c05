"""What the names that are no operators do, as one expression of either library: ``CASES[name](library)`` gives values or tensors.

A case that gives True compares nothing between the libraries: the expression itself says what must hold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np


def _values(t: Any) -> Any:
    return t.tensor([[1.0, -2.0, 3.5], [0.0, 4.0, -1.0]])


def _saved(t: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        t.save({"weight": _values(t), "step": 3}, f"{folder}/state.pth")
        loaded = t.load(f"{folder}/state.pth", map_location="cpu", weights_only=True)
    return loaded["weight"], loaded["step"]


def _backward(t: Any) -> Any:
    x = _values(t).requires_grad_()
    (x * x).sum().backward()
    return x.grad, x.grad.requires_grad, x.is_leaf


def _accumulate_hook(t: Any) -> Any:
    seen = []
    x = _values(t).requires_grad_()
    x.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.sum().item()))
    (x * 2).sum().backward()
    return seen


def _subclass(t: Any) -> Any:
    class Named(t.Tensor):  # type: ignore[misc]
        pass

    x = _values(t).as_subclass(Named)
    return type(x) is Named and isinstance(x, t.Tensor) and (x + 0).sum().item()


def _generator(t: Any) -> bool:
    first, second = t.Generator().manual_seed(5), t.Generator()
    second.manual_seed(5)
    return bool((t.randn(4, generator=first) == t.randn(4, generator=second)).all()) and first.initial_seed() == 5


def _seeded(t: Any) -> bool:
    t.manual_seed(3)
    x = t.rand(4)
    t.manual_seed(3)
    return bool((x == t.rand(4)).all()) and bool(((x >= 0) & (x < 1)).all())


def _permutation(t: Any) -> Any:
    x = t.randperm(9)
    return x.dtype == t.int64 and sorted(x.tolist()) == list(range(9))


def _random(t: Any) -> Any:
    x = t.empty(50).random_(2, 7)
    return bool(((x >= 2) & (x < 7)).all()) and x.dtype == t.float32


def _asserted(t: Any) -> Any:
    t._assert(True, "fine")
    try:
        t._assert(False, "wrong")
    except AssertionError as error:
        return str(error)


def _gumbel(t: Any) -> Any:
    y = t.nn.functional.gumbel_softmax(_values(t), tau=0.5, hard=True, dim=-1)
    return bool((y.sum(-1) == 1).all()) and tuple(y.shape)


def _detached(t: Any) -> Any:
    x = _values(t).requires_grad_()
    y = (x * 2).detach_()
    z = x.detach()
    z[0, 0] = 9.0
    return y.requires_grad, y.is_leaf, z.requires_grad, x[0, 0].item()


def _grouped(t: Any) -> Any:
    a = t.arange(128, dtype=t.bfloat16).reshape(2, 8, 8) % 5
    return t.nn.functional.grouped_mm(a, a.transpose(1, 2).contiguous())


def _needs_a_gpu(t: Any) -> bool:
    """Where there is no GPU, moving to one fails with one of these."""
    try:
        _values(t).cuda()
    except (RuntimeError, AssertionError):
        return not t.cuda.is_available()
    return bool(t.cuda.is_available())


CASES: dict[str, Callable[[Any], Any]] = {
    "torch.tensor": lambda t: [t.tensor(v) for v in (1, 2.0, True, [1, 2], [[1.0], [2]], [])] + [t.tensor([1, 2], dtype=t.float16)],
    "torch.Tensor": lambda t: [
        t.Tensor([1, 2]),
        tuple(t.Tensor(2, 3).shape),
        t.Tensor().dtype == t.float32,
        isinstance(_values(t), t.Tensor),
    ],
    "torch.device": lambda t: [
        str(t.device("cpu")),
        t.device("cuda:1").index,
        t.device("cuda", 1).type,
        t.device("cpu") == t.device("cpu"),
    ],
    "torch.manual_seed": _seeded,
    "torch.from_numpy": lambda t: [
        t.from_numpy(np.arange(6, dtype=d).reshape(2, 3)) for d in ("float32", "int64", "uint8", "int16")
    ],
    "torch.rand": _seeded,
    "torch.finfo": lambda t: (
        [
            getattr(t.finfo(d), k)
            for d in (t.float32, t.float64, t.float16, t.bfloat16)
            for k in ("eps", "max", "min", "tiny", "bits", "smallest_normal", "resolution")
        ]
        + [t.iinfo(t.int8).max, t.iinfo(t.uint8).min, t.iinfo(t.int64).bits]
    ),
    "torch.as_tensor": lambda t: [t.as_tensor([1.5, 2]), t.as_tensor(np.ones(3)), t.as_tensor(3, dtype=t.float64)],
    "torch.FloatTensor": lambda t: [t.FloatTensor([1, 2]), tuple(t.FloatTensor(2, 3).shape)],
    "torch.is_tensor": lambda t: [t.is_tensor(_values(t)), t.is_tensor(np.ones(2)), t.is_tensor(3)],
    "torch.Generator": _generator,
    "torch.randperm": _permutation,
    "torch.LongTensor": lambda t: [t.LongTensor([1, 2]), t.LongTensor([[3]])],
    "torch.is_floating_point": lambda t: [t.is_floating_point(_values(t)), t.is_floating_point(t.tensor(1))],
    "torch.__version__": lambda t: isinstance(t.__version__, str) and t.__version__[0].isdigit(),
    "torch.pi": lambda t: t.pi,
    "torch.dtype": lambda t: [isinstance(t.float32, t.dtype), t.float32.is_floating_point, t.int64.itemsize, t.float16.is_complex],
    "torch.is_autocast_enabled": lambda t: t.is_autocast_enabled(),
    "torch.contiguous_format": lambda t: _values(t).t().contiguous(memory_format=t.contiguous_format),
    "torch.get_autocast_gpu_dtype": lambda t: str(t.get_autocast_gpu_dtype()).split(".")[-1],
    "torch._assert": _asserted,
    "torch.get_default_dtype": lambda t: str(t.get_default_dtype()).split(".")[-1],
    "torch.IntTensor": lambda t: t.IntTensor([1, 2]),
    "torch.channels_last": lambda t: t.zeros(2, 3, 4, 5).contiguous(memory_format=t.channels_last).stride(),
    "torch.preserve_format": lambda t: t.zeros(2, 3).t().clone(memory_format=t.preserve_format).stride(),
    "torch.get_device_module": lambda t: t.get_device_module("cpu").__name__.split(".")[-1],
    "torch.set_float32_matmul_precision": lambda t: [
        t.set_float32_matmul_precision("high"),
        t.get_float32_matmul_precision(),
        t.set_float32_matmul_precision("highest"),
    ],
    "torch.inf": lambda t: t.inf,
    "torch.Size": lambda t: [
        tuple(t.Size([2, 3])),
        t.Size([2, 3]).numel(),
        isinstance(_values(t).shape, t.Size),
        t.Size((1,)) == (1,),
    ],
    "torch.are_deterministic_algorithms_enabled": lambda t: isinstance(t.are_deterministic_algorithms_enabled(), bool),
    "torch.ByteTensor": lambda t: t.ByteTensor([1, 2]),
    "torch.DoubleTensor": lambda t: t.DoubleTensor([1, 2]),
    "torch.vmap": lambda t: t.vmap(lambda x, y: (x * y).sum(), in_dims=(0, None))(_values(t), t.ones(3)),
    "torch.nn.functional.gumbel_softmax": _gumbel,
    "torch.nn.functional.grouped_mm": _grouped,
    "Tensor.size": lambda t: [tuple(_values(t).size()), _values(t).size(1), _values(t).size(-1), _values(t).size(dim=0)],
    "Tensor.backward": _backward,
    "Tensor.cpu": lambda t: _values(t).cpu(),
    "Tensor.numpy": lambda t: [_values(t).numpy().tolist(), _values(t).requires_grad_().numpy(force=True).tolist()],
    "Tensor.detach": _detached,
    "Tensor.numel": lambda t: _values(t).numel(),
    "Tensor.values": lambda t: _values(t).max(dim=1).values,
    "Tensor.copy_": lambda t: [
        t.zeros(2, 3).copy_(_values(t)),
        t.zeros(2, 3, dtype=t.int64).copy_(_values(t)),
        t.zeros(2, 3).copy_(t.ones(3), non_blocking=True),
    ],
    "Tensor.tolist": lambda t: [_values(t).tolist(), t.tensor(3).tolist(), t.tensor([True]).tolist()],
    "Tensor.dim": lambda t: [_values(t).dim(), t.tensor(1).dim()],
    "Tensor.type": lambda t: [_values(t).type(t.int64), _values(t).type().split(".")[-1]],
    "Tensor.type_as": lambda t: _values(t).type_as(t.tensor(1)),
    "Tensor.stride": lambda t: [
        _values(t).stride(),
        _values(t).t().stride(),
        _values(t).stride(0),
        t.zeros(1, 3).expand(4, 3).stride(),
    ],
    "Tensor.index": lambda t: _values(t).max(dim=1).indices,
    "Tensor.indices": lambda t: _values(t).sort(dim=1).indices,
    "Tensor.requires_grad_": lambda t: [_values(t).requires_grad_().requires_grad, _values(t).requires_grad_(False).requires_grad],
    "Tensor.is_contiguous": lambda t: [
        _values(t).is_contiguous(),
        _values(t).t().is_contiguous(),
        t.zeros(2, 3, 4, 5).is_contiguous(memory_format=t.channels_last),
    ],
    "Tensor.element_size": lambda t: [_values(t).element_size(), t.tensor(1).element_size(), t.tensor(True).element_size()],
    "Tensor.is_floating_point": lambda t: [_values(t).is_floating_point(), t.tensor(1).is_floating_point()],
    "Tensor.as_subclass": _subclass,
    "Tensor.new_tensor": lambda t: [
        _values(t).new_tensor([1, 2]),
        _values(t).double().new_tensor(3.0),
        _values(t).new_tensor([1], dtype=t.int32),
    ],
    "Tensor.data_ptr": lambda t: (lambda x: x[1:].data_ptr() - x.data_ptr())(_values(t)),
    "Tensor.random_": _random,
    "Tensor.nelement": lambda t: _values(t).nelement(),
    "Tensor.detach_": _detached,
    "Tensor.new": lambda t: [tuple(_values(t).new(2, 3).shape), _values(t).new([1, 2])],
    "Tensor.pin_memory": lambda t: callable(_values(t).pin_memory),
    "Tensor.register_post_accumulate_grad_hook": _accumulate_hook,
    "Tensor.storage": lambda t: [len(_values(t).storage()), _values(t).untyped_storage().nbytes()],
    "Tensor.is_complex": lambda t: _values(t).is_complex(),
    "Tensor.shape": lambda t: tuple(_values(t).shape),
    "Tensor.device": lambda t: [str(_values(t).device), _values(t).device.type],
    "Tensor.dtype": lambda t: str(_values(t).dtype).split(".")[-1],
    "Tensor.data": lambda t: [_values(t).requires_grad_().data.requires_grad, _values(t).data],
    "Tensor.ndim": lambda t: _values(t).ndim,
    "Tensor.requires_grad": lambda t: [_values(t).requires_grad, (_values(t).requires_grad_() * 2).requires_grad],
    "Tensor.name": lambda t: _values(t).name,
    "Tensor.grad": lambda t: [_values(t).grad is None, _backward(t)[0]],
    "Tensor.is_cuda": lambda t: _values(t).is_cuda,
    "Tensor.is_sparse": lambda t: _values(t).is_sparse,
    "Tensor.layout": lambda t: [str(_values(t).layout).split(".")[-1], _values(t).layout == t.strided],
    "Tensor.itemsize": lambda t: _values(t).itemsize,
    "Tensor.nbytes": lambda t: _values(t).nbytes,
    "Tensor.is_quantized": lambda t: _values(t).is_quantized,
    "Tensor.is_cpu": lambda t: _values(t).is_cpu,
    "Tensor.is_xpu": lambda t: _values(t).is_xpu,
    "Tensor.is_meta": lambda t: _values(t).is_meta,
    "Tensor.is_mps": lambda t: _values(t).is_mps,
    "Tensor._backward_hooks": lambda t: _values(t)._backward_hooks,
    "Tensor.cuda": _needs_a_gpu,
    "Tensor.dequantize": lambda t: _values(t).dequantize(),
    "Tensor.resize": lambda t: _values(t).resize(3, 2),
    "Tensor._cdata": lambda t: [isinstance(_values(t)._cdata, int), (lambda x: x._cdata == x._cdata)(_values(t))],
    "torch.save": _saved,
    "torch.load": _saved,
}
