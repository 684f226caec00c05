"""Memory shared with other libraries: NumPy's protocol and DLPack.

Enters: objects that export memory; tensors.  Leaves: tensors; arrays and capsules.  Never here: copies that nobody asked for.

Memory is NumPy's, so NumPy makes and reads the capsules.  It has no name for bfloat16 in DLPack: such memory goes through it as
uint16 and the capsule's type field says bfloat16 (the layout of capsules is that of DLPack 1.0's header, dlpack.h).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from graphc.dtypes import DType, bfloat16, get_default_dtype
from graphc.eager.devices import check_device
from graphc.eager.methods import attached
from graphc.eager.storage import memory_of
from graphc.eager.tensor import Tensor, wrap, wrap_array
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.ops.arguments import cast

Array = np.ndarray[Any, Any]
CPU_DEVICE = (1, 0)  # kDLCPU
_BFLOAT_CODE, _UNSIGNED_CODE = 4, 1  # kDLBfloat, kDLUInt
# capsule name -> where in the managed tensor the type's code is
_CODE_OFFSETS = {b"dltensor": 20, b"dltensor_versioned": 52}

# ---- NumPy ------------------------------------------------------------------------------------------------------------


@attached
def __array__(self: Tensor, dtype: Any = None, copy: bool | None = None) -> Array:
    """The elements as an array, sharing memory unless another dtype or a copy is asked for.

    Raises RuntimeError for a tensor that requires grad, ValueError where ``copy=False`` cannot be.
    """
    array = self.numpy()
    if dtype is not None and array.dtype != np.dtype(dtype):
        if copy is False:
            raise ValueError(at_user_line(f"a {self.dtype} tensor cannot be an array of {np.dtype(dtype)} without a copy"))
        return array.astype(dtype)
    return array.copy() if copy else array


@attached
def __array_wrap__(self: Tensor, array: Array, context: Any = None, return_scalar: bool = False) -> Any:
    """What NumPy's functions of tensors give: tensors."""
    return wrap_array(np.asarray(array))


def asarray(
    obj: Any, *, dtype: DType | None = None, device: Any = None, copy: bool | None = None, requires_grad: bool = False
) -> Tensor:
    """`obj` as a tensor, sharing memory with tensors, arrays, and what exports DLPack or a buffer, unless `copy`.

    Raises ValueError where ``copy=False`` cannot be, TypeError for what is not numbers.
    """
    from graphc.eager.creation import tensor

    check_device(device)
    shared: Tensor | None = None
    if isinstance(obj, Tensor):
        shared = obj
    elif isinstance(obj, np.ndarray):
        shared = wrap_array(obj)
    elif not isinstance(obj, np.generic | list | tuple) and hasattr(obj, "__dlpack__"):
        shared = from_dlpack(obj)
    elif isinstance(obj, bytes | bytearray | memoryview) or (hasattr(obj, "__buffer__") and not isinstance(obj, np.generic)):
        shared = frombuffer(obj, dtype=get_default_dtype() if dtype is None else dtype)
    if copy is False and (shared is None or (dtype is not None and dtype is not shared.dtype)):
        raise ValueError(at_user_line("asarray: this object cannot be a tensor of this dtype without a copy"))
    if shared is None:
        return tensor(obj, dtype=dtype, requires_grad=requires_grad)
    if requires_grad or (shared.requires_grad and not isinstance(obj, Tensor)):
        shared = shared.detach()
    if dtype is not None and dtype is not shared.dtype:
        result = cast(shared, dtype)
    else:
        result = Op.table["clone"].run(shared) if copy else shared
    return result.requires_grad_() if requires_grad and not result.requires_grad else result  # type: ignore[no-any-return]


def frombuffer(buffer: Any, *, dtype: DType, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """The elements in a buffer, as one dim, sharing its memory.  Raises ValueError for a count or offset that does not fit."""
    memory = memoryview(buffer).cast("B")
    left = len(memory) - offset
    if offset < 0 or left <= 0 or count == 0:
        raise ValueError(at_user_line(f"frombuffer: offset {offset} and count {count} leave nothing of {len(memory)} bytes"))
    if count < 0:
        if left % dtype.itemsize:
            raise ValueError(at_user_line(f"frombuffer: {left} bytes are not a multiple of {dtype.itemsize}, the size of {dtype}"))
        count = left // dtype.itemsize
    if count * dtype.itemsize > left:
        raise ValueError(at_user_line(f"frombuffer: {count} elements of {dtype} do not fit in {left} bytes"))
    x = wrap(np.frombuffer(memory[offset : offset + count * dtype.itemsize], np.uint8).view(dtype.numpy), dtype)
    x._storage.lent = True
    return x.requires_grad_() if requires_grad else x


# ---- DLPack -----------------------------------------------------------------------------------------------------------


@attached
def __dlpack_device__(self: Tensor) -> tuple[int, int]:
    """The CPU, in DLPack's numbers."""
    return CPU_DEVICE


@attached
def __dlpack__(
    self: Tensor, *, stream: Any = None, max_version: tuple[int, int] | None = None, dl_device: Any = None, copy: bool | None = None
) -> Any:
    """A capsule of this tensor's memory: versioned if the consumer knows DLPack 1.0 (`max_version`).

    Raises BufferError for a tensor that requires grad, for another device, and for memory that the consumer's version cannot
    describe as read-only.
    """
    if stream is not None:
        raise BufferError(at_user_line("__dlpack__: stream must be None on the CPU"))
    if dl_device is not None and tuple(int(v) for v in dl_device) != CPU_DEVICE:
        raise BufferError(at_user_line(f"__dlpack__: cannot export to device {tuple(dl_device)}: the memory is the CPU's"))
    if self.requires_grad:
        raise BufferError(at_user_line("Can't export tensors that require gradient, use tensor.detach()"))
    array = self.numpy()
    plain = array.view(np.uint16) if self.dtype is bfloat16 else array
    wanted: dict[str, Any] = {"max_version": max_version, "copy": copy}
    capsule = plain.__dlpack__(**{k: v for k, v in wanted.items() if v is not None})
    if self.dtype is bfloat16:
        _type_code(capsule).value = _BFLOAT_CODE
    return capsule


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor on the memory of an object with ``__dlpack__``, or of a capsule.

    Raises BufferError for memory that is not the CPU's, ValueError where ``copy=False`` cannot be.
    """
    check_device(device)
    if hasattr(ext_tensor, "__dlpack__"):
        where = ext_tensor.__dlpack_device__()
        if int(where[0]) != CPU_DEVICE[0]:
            raise BufferError(at_user_line(f"from_dlpack: the memory is of device {tuple(where)}, not the CPU's"))
        asked = {} if copy is None else {"copy": copy}
        try:
            capsule = ext_tensor.__dlpack__(max_version=(1, 0), **asked)
        except TypeError:  # an exporter from before DLPack 1.0, which the standard says to ask again
            capsule = ext_tensor.__dlpack__()
            copy = copy and not asked
    else:
        capsule = ext_tensor
    return _imported(capsule, bool(copy))


def to_dlpack(tensor: Tensor) -> Any:
    """The capsule of a tensor's memory, of the version before 1.0."""
    return tensor.__dlpack__()  # type: ignore[attr-defined]


class _Exporter:
    """A capsule as NumPy takes it."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU_DEVICE


def _imported(capsule: Any, copy: bool) -> Tensor:
    versioned = _name(capsule) == b"dltensor_versioned"
    code = _type_code(capsule)
    is_bfloat = code.value == _BFLOAT_CODE
    if is_bfloat:
        code.value = _UNSIGNED_CODE
    array = np.from_dlpack(_Exporter(capsule))  # type: ignore[arg-type]
    if not versioned:  # NumPy marks it read-only, for such a capsule cannot say; PyTorch takes it as writable
        array = _writable(array)
    if is_bfloat:
        array = array.view(ml_dtypes.bfloat16)
    return wrap_array(array.copy() if copy else array)


def _writable(array: Array) -> Array:
    """The same memory, writable."""
    row = memory_of(array)
    if not row.size:
        return np.empty(array.shape, array.dtype)
    buffer = (ctypes.c_char * row.nbytes).from_address(array.__array_interface__["data"][0])
    buffer.owner = array  # type: ignore[attr-defined]  # keeps the exporter's memory alive
    return np.ndarray(array.shape, array.dtype, buffer, 0, array.strides)  # type: ignore[arg-type]  # any buffer will do


def _pointer_function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_capsule_name = _pointer_function("PyCapsule_GetName", ctypes.c_char_p, ctypes.py_object)
_capsule_pointer = _pointer_function("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)


def _name(capsule: Any) -> bytes:
    """A capsule's name.  Raises TypeError for what is no capsule that was not taken yet."""
    if type(capsule).__name__ != "PyCapsule" or (name := _capsule_name(capsule)) not in _CODE_OFFSETS:
        raise TypeError(at_user_line(f"from_dlpack: expected an object with __dlpack__ or a fresh capsule, not {capsule!r}"))
    return name  # type: ignore[no-any-return]


def _type_code(capsule: Any) -> ctypes.c_uint8:
    """The code of the element type, inside the capsule."""
    name = _name(capsule)
    return ctypes.c_uint8.from_address(_capsule_pointer(capsule, name) + _CODE_OFFSETS[name])


@attached
def __array_namespace__(self: Tensor, *, api_version: str | None = None) -> Any:
    """The functions of the Python array API standard.  Raises ValueError for a version that is not supported."""
    import importlib

    namespace = importlib.import_module("graphc.array_api")
    if api_version not in (None, *namespace.SUPPORTED_VERSIONS):
        raise ValueError(at_user_line(f"array API version {api_version} is not supported, only {namespace.SUPPORTED_VERSIONS}"))
    return namespace


@attached
def to_device(self: Tensor, device: Any, /, *, stream: Any = None) -> Tensor:
    """`to` by the array API's name.  Raises as `to` for a device other than the CPU, ValueError for a stream."""
    if stream is not None:
        raise ValueError(at_user_line("to_device: the CPU has no streams"))
    return self.to(device)  # type: ignore[attr-defined,no-any-return]


__all__ = ["asarray", "from_dlpack", "frombuffer", "to_dlpack"]
