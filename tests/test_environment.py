"""Devices, settings and the namespaces of runtimes that are not there: honest answers under PyTorch's names."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.backends.cudnn as cudnn
import graphc.nn as nn


def test_devices_are_values() -> None:
    device = graphc.device("cuda", 1)
    assert (
        str(device) == "cuda:1" and repr(device) == "device(type='cuda', index=1)" and device.type == "cuda" and device.index == 1
    )
    assert graphc.device("cuda:1") == device == graphc.device(device) and {device: 1}[graphc.device("cuda:1")] == 1
    assert graphc.device("cpu") != graphc.device("cpu", 0) and graphc.device("cpu") != "cpu"
    assert str(graphc.device("meta")) == "meta" and pickle.loads(pickle.dumps(device)) == device
    for wrong in ("gpu", "cuda:x", "cuda:"):
        with pytest.raises(RuntimeError):
            graphc.device(wrong)
    with pytest.raises(RuntimeError, match="no accelerator"):
        graphc.device(0)
    with graphc.device("cpu"):
        assert graphc.get_default_device() == graphc.device("cpu")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: x.cuda(), AssertionError),
        (lambda x: x.to("cuda:0"), AssertionError),
        (lambda x: x.to("xpu"), AssertionError),
        (lambda x: x.to("mps"), RuntimeError),
        (lambda x: x.to(device="meta"), RuntimeError),
        (lambda x: x.to(0), RuntimeError),
        (lambda x: graphc.zeros(1, device="cuda"), AssertionError),
        (lambda x: graphc.tensor(1, device="mps"), RuntimeError),
        (lambda x: nn.Linear(1, 1).to("cuda"), AssertionError),
        (lambda x: nn.Linear(1, 1).cuda(), AssertionError),
        (lambda x: graphc.set_default_device("cuda"), AssertionError),
        (lambda x: graphc.cuda.synchronize(), AssertionError),
        (lambda x: graphc.cuda.Event(), AssertionError),
        (lambda x: graphc.cuda.FloatTensor(2), TypeError),
        (lambda x: graphc.zeros(1, layout=graphc.sparse_coo), RuntimeError),
    ],
)
def test_a_tensor_is_only_on_the_cpu(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        call(graphc.ones(1))


def test_all_forms_of_to() -> None:
    x = graphc.ones(2)
    assert x.to("cpu") is x.to(graphc.device("cpu")) is x.to(graphc.float32) is x.to(x) is x.cpu() is x.to(None) is x
    for y in (
        x.to(graphc.float64), x.to("cpu", graphc.float64), x.to("cpu", graphc.float64, True), x.to(device="cpu", dtype=float),
        x.to(graphc.ones(1, dtype=graphc.float64)), x.to(float), x.to(dtype=float, non_blocking=True, copy=True), x.double(),
        x.type(graphc.DoubleTensor), x.type("graphc.DoubleTensor"), x.type(graphc.float64),
    ):  # fmt: skip
        assert y.dtype is graphc.float64 and y.tolist() == [1, 1]
    assert x.to(graphc.float32, False, True) is not x and x.to("cpu", copy=True).data_ptr() != x.data_ptr()
    for wrong in ("float32", object()):
        with pytest.raises((TypeError, RuntimeError)):
            x.to(wrong)
    with pytest.raises(TypeError, match="unexpected argument 'dtyp'"):
        x.to(dtyp=graphc.float64)


def test_old_constructors() -> None:
    assert graphc.Tensor(2, 3).shape == (2, 3) and graphc.Tensor([1, 2]).dtype is graphc.float32 and graphc.Tensor().shape == (0,)
    assert graphc.LongTensor([1.5, 2]).tolist() == [1, 2] and graphc.ByteTensor(3).dtype is graphc.uint8
    assert graphc.Tensor(np.ones(2)).tolist() == [1, 1] and graphc.Tensor(graphc.Size([2, 3])).shape == (2, 3)
    x = graphc.FloatTensor([1.0])
    assert isinstance(x, graphc.FloatTensor) and isinstance(x, graphc.Tensor)
    assert not isinstance(x, graphc.LongTensor) and not isinstance(x, graphc.cuda.FloatTensor)
    assert x.type() == "graphc.FloatTensor" == graphc.typename(x) and x.new([1, 2]).dtype is graphc.float32
    with pytest.raises(TypeError, match="use to"):
        graphc.LongTensor(x)


def test_subclasses_keep_working() -> None:
    class Named(graphc.Tensor):
        pass

    x = Named([1.0, 2.0])
    x.label = "x"
    assert type(x) is Named and x.label == "x" and (x + 1).tolist() == [2, 3]
    y = graphc.ones(2, requires_grad=True)
    (y * 2).as_subclass(Named).sum().backward()
    assert y.grad.tolist() == [2, 2] and repr(x) == "Named([1., 2.])"
    with pytest.raises(TypeError, match="must be a subclass of Tensor"):
        y.as_subclass(int)  # type: ignore[arg-type]


def test_facts() -> None:
    x = graphc.ones(2, 3)
    assert x.layout is graphc.strided and x.is_cpu and x.device == graphc.device("cpu") and x.get_device() == -1
    assert not any((x.is_cuda, x.is_mps, x.is_xpu, x.is_meta, x.is_sparse, x.is_quantized, x.is_mkldnn)) and x.name is None
    assert (x.ndimension(), x.nelement(), x.element_size(), x.itemsize, x.nbytes) == (2, 6, 4, 4, 24)
    assert x.is_same_size(graphc.zeros(2, 3)) and graphc.numel(x) == 6
    three = (3,)
    assert graphc.Size([2]) + three == (2, *graphc.Size([3])) == graphc.Size([2, 3]) and graphc.Size([2, 3]).numel() == 6
    assert isinstance(three + graphc.Size([2]), graphc.Size) and isinstance(graphc.Size([2]) * 2, graphc.Size)
    with pytest.raises(TypeError, match="item 1 is float"):
        graphc.Size([1, 2.5])
    assert graphc.is_tensor(x) and not graphc.is_complex(x) and graphc.is_floating_point(x) and graphc.is_nonzero(x[0, 0])
    assert graphc.result_type(graphc.ones(2, dtype=graphc.int32), 1.5) is graphc.float32
    assert graphc.can_cast(graphc.int32, graphc.float32) and not graphc.can_cast(graphc.float32, graphc.int32)
    assert graphc.finfo(graphc.complex64).bits == 32 and graphc.iinfo(graphc.uint8).max == 255
    with pytest.raises(AssertionError, match="why"):
        graphc._assert(graphc.tensor(False), "why")


def test_python_types_are_dtypes() -> None:
    assert graphc.zeros(1, dtype=int).dtype is graphc.int64 and graphc.tensor([1], dtype=float).dtype is graphc.float64
    assert (
        graphc.as_tensor([0, 2], dtype=bool).tolist() == [False, True] and graphc.ones(1, dtype=complex).dtype is graphc.complex128
    )


def test_settings() -> None:
    graphc.set_float32_matmul_precision("high")
    assert graphc.get_float32_matmul_precision() == "high"
    graphc.set_float32_matmul_precision("highest")
    with pytest.raises(ValueError, match="expected 'highest'"):
        graphc.set_float32_matmul_precision("low")
    graphc.use_deterministic_algorithms(True, warn_only=True)
    assert (
        graphc.are_deterministic_algorithms_enabled() and not graphc.is_autocast_enabled() and graphc.get_num_interop_threads() == 1
    )
    before = graphc.get_num_threads()
    graphc.set_num_threads(1)
    assert graphc.get_num_threads() == 1
    graphc.set_num_threads(before)
    with pytest.raises(RuntimeError, match="positive number of threads"):
        graphc.set_num_threads(0)
    assert graphc.set_flush_denormal(True) is False
    graphc.set_default_tensor_type("graphc.DoubleTensor")
    assert graphc.get_default_dtype() is graphc.float64
    graphc.set_default_tensor_type(graphc.FloatTensor)


def test_runtimes_that_are_not_there() -> None:
    assert not graphc.cuda.is_available() and graphc.cuda.device_count() == 0 and graphc.cuda.max_memory_allocated() == 0
    assert not graphc.mps.is_available() and not graphc.xpu.is_available() and not graphc.backends.mps.is_built()
    assert not graphc.accelerator.is_available() and graphc.accelerator.current_accelerator() is None
    assert graphc.version.cuda is None and graphc.version.__version__ == graphc.__version__
    graphc.cuda.manual_seed_all(0)
    graphc.cuda.empty_cache()
    cudnn.benchmark = True
    assert graphc.backends.cudnn.benchmark and not cudnn.is_available()
    with cudnn.flags(enabled=False):
        assert not cudnn.enabled
    assert cudnn.enabled
    cudnn.benchmark = False
    assert graphc.get_device_module("cuda") is graphc.cuda and graphc.get_device_module().current_device() == "cpu"
    assert graphc.backends.cpu.get_cpu_capability() in ("AVX512", "AVX2", "DEFAULT")
    with graphc.cuda.device(None), graphc.cuda.stream(None):
        pass


def test_compiler_marks() -> None:
    @graphc.compiler.disable
    def plain(x: graphc.Tensor) -> graphc.Tensor:
        assert not graphc.compiler.is_compiling()
        return x + 1

    seen: list[bool] = []

    @graphc.compile
    def compiled(x: graphc.Tensor) -> graphc.Tensor:
        seen.append(graphc.compiler.is_compiling())
        return plain(x) * 2

    with pytest.warns(graphc.errors.CompileWarning, match=r"plain is not compiled: graphc\.compiler\.disable"):
        assert compiled(graphc.ones(1)).item() == 4.0
    assert True in seen and False in seen and not graphc.compiler.is_compiling()
    assert graphc.jit.ignore(plain) is plain and graphc.jit.unused(plain) is plain and not graphc.jit.is_scripting()
    assert graphc.jit.ignore(drop=True)(plain) is plain
