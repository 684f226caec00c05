"""What a pickle of PyTorch may name, and what each name means here.

Enters: names, and classes that the user allows.  Leaves: `Name`s and values.  Never here: imports, or anything else that a file
could have run.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from graphc import dtypes
from graphc.checkpoints import pickles
from graphc.checkpoints.pickles import Name
from graphc.checkpoints.tensors import tensor
from graphc.dtypes import DType
from graphc.eager import devices
from graphc.eager.tensor import Size, Tensor, wrap_array
from graphc.errors import CheckpointError, warn
from graphc.nn.parameter import Parameter

STORAGES: dict[str, DType] = {
    "FloatStorage": dtypes.float32, "DoubleStorage": dtypes.float64, "HalfStorage": dtypes.float16,
    "BFloat16Storage": dtypes.bfloat16, "LongStorage": dtypes.int64, "IntStorage": dtypes.int32, "ShortStorage": dtypes.int16,
    "CharStorage": dtypes.int8, "ByteStorage": dtypes.uint8, "BoolStorage": dtypes.bool_,
    "ComplexFloatStorage": dtypes.complex64, "ComplexDoubleStorage": dtypes.complex128,
}  # fmt: skip
_NUMPY_TYPE = re.compile(r"(b1|i[1248]|u[1248]|f[248]|c8|c16|[SU]\d{1,6})")


class Kind:
    """A class of storages: the dtype of their elements."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype


def refused(name: str) -> CheckpointError:
    """The error for a name that is not data."""
    return CheckpointError(
        f"it holds {name}, which is not data that graphc reads; nothing in a file is ever run, whatever weights_only says.  "
        "Of a module, save state_dict(), or load it with weights_only=False where its class is imported; a class "
        "of your own can be allowed with graphc.serialization.add_safe_globals"
    )


# ---- classes that the user allows ------------------------------------------------------------------------------------

user_globals: dict[str, Any] = {}  # full name -> a class or function


def full_name(thing: Any) -> str:
    """How pickles name a class or function."""
    return f"{thing.__module__}.{thing.__qualname__}"


def fill(target: Any, state: Any) -> bool:
    """Give `target` the state that a pickle has for it; False where it takes none."""
    if type(target) is np.ndarray:
        return _fill_array(target, state)
    if isinstance(target, np.dtype):
        return _check_order(state)
    if type(target) is argparse.Namespace and isinstance(state, dict) and all(type(name) is str for name in state):
        target.__dict__.update(state)
        return True
    if not any(type(target) is allowed for allowed in user_globals.values()):
        return False
    if hasattr(target, "__setstate__"):
        target.__setstate__(state)
        return True
    own, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    for name, value in {**(own or {}), **(slots or {})}.items():
        setattr(target, name, value)
    return True


# ---- tensors ---------------------------------------------------------------------------------------------------------


def _tensor_1(stored: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    return _tensor_3(stored, offset, size, stride, False, None, getattr(stored, "dtype", None))


def _tensor_2(stored: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, metadata: Any = None) -> Tensor:
    return _tensor_3(stored, offset, size, stride, grad, hooks, getattr(stored, "dtype", None), metadata)


def _tensor_3(stored: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, metadata: Any = None) -> Tensor:
    if not isinstance(dtype, DType):
        raise CheckpointError("a tensor of it has no dtype")
    made = tensor(stored, dtype, offset, size, stride, grad)
    if isinstance(metadata, dict):  # lazy conjugates and negatives
        for name in ("conj", "neg"):
            if metadata.get(name):
                made = getattr(made.detach(), name)().clone().requires_grad_(made.requires_grad)
    return made


def _parameter(data: Any, requires_grad: Any = True, hooks: Any = None) -> Parameter:
    if not isinstance(data, Tensor) or (requires_grad and data.dtype.kind not in "fc"):
        raise CheckpointError("a parameter of it is no floating tensor")
    return Parameter(data.detach(), bool(requires_grad))


def _parameter_with_state(data: Any, requires_grad: Any, hooks: Any, state: Any) -> Parameter:
    made = _parameter(data, requires_grad, hooks)
    for name, value in (state if isinstance(state, dict) else {}).items():
        if type(name) is str and not hasattr(Parameter, name):
            made.__dict__[name] = value
    return made


def _of_type(rebuild: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor with Python attributes, or of a subclass (refused where it is named)."""
    if not isinstance(rebuild, Name) or rebuild.make is None or not isinstance(kind, Name) or kind.value is not Tensor:
        raise CheckpointError("a tensor of it is of a class that graphc does not have")
    if state:
        warn("load: Python attributes of a tensor in the file were left out", UserWarning)
    return rebuild.make(*arguments)


def _from_device(data: Any, dtype: Any, device: Any, requires_grad: Any) -> Tensor:
    """A tensor of a device with storages of its own kind (XLA, Gaudi): its elements stand in the pickle, or in a tensor."""
    made = data.detach() if isinstance(data, Tensor) else wrap_array(data)
    return made.to(dtype).requires_grad_(bool(requires_grad))  # type: ignore[attr-defined,no-any-return]


def _device(type: Any = "cpu", index: Any = None) -> devices.device:
    return devices.device(type, index)


def _layout(name: Any) -> devices.layout:
    found = getattr(devices, str(name).removeprefix("torch."), None)
    if not isinstance(found, devices.layout):
        raise CheckpointError("a layout of it does not exist")
    return found


def _size(sizes: Any = ()) -> Size:
    if not isinstance(sizes, (tuple, list)) or any(type(n) is not int for n in sizes):
        raise CheckpointError("a torch.Size of it has sizes that are no integers")
    return Size(sizes)


# ---- Python's containers ---------------------------------------------------------------------------------------------


def _keyed(kind: Callable[..., Any]) -> Callable[..., Any]:
    """A dict of a class, whose keys are checked."""

    def make(items: Any = ()) -> Any:
        pairs = list(items.items() if isinstance(items, dict) else items)
        return kind([(pickles.key(name), value) for name, value in pairs])

    return make


def _counter(counts: Any = ()) -> Counter[Any]:
    return Counter(_keyed(dict)(counts))


def _defaultdict(factory: Any = None, items: Any = ()) -> defaultdict[Any, Any]:
    if factory is not None and (not isinstance(factory, Name) or factory.value is None):
        raise CheckpointError("a defaultdict of it has a factory that is not data")
    return defaultdict(None if factory is None else factory.value, _keyed(dict)(items))


def _set(kind: Callable[..., Any]) -> Callable[..., Any]:
    return lambda items=(): kind(map(pickles.key, items))


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if type(text) is not str or encoding not in ("latin1", "utf-8"):
        raise CheckpointError("bytes of it are not written as PyTorch writes them")
    return text.encode(encoding)


def _bytes(data: Any = b"", encoding: Any = None) -> bytes:
    if type(data) is not bytes:
        raise CheckpointError("bytes of it are not written as PyTorch writes them")
    return data


def _bytearray(data: Any = b"", encoding: Any = None) -> bytearray:
    return bytearray(_encode(data, encoding) if isinstance(data, str) else _bytes(data))


def _complex(real: Any, imag: Any) -> complex:
    return complex(float(real), float(imag))


# ---- NumPy's arrays --------------------------------------------------------------------------------------------------


def _numpy_type(code: Any, align: Any = False, copy: Any = True) -> np.dtype[Any]:
    if isinstance(code, Name) and code.value is ml_dtypes.bfloat16:
        return dtypes.bfloat16.numpy
    if type(code) is not str or not _NUMPY_TYPE.fullmatch(code):
        raise CheckpointError(f"a NumPy dtype of it is {code!r}: only numbers and strings are read")
    made: np.dtype[Any] = np.dtype(code)
    return made


def _check_order(state: Any) -> bool:
    if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|", "="):
        raise CheckpointError("a NumPy dtype of it is big-endian, or has fields")
    return True


def _empty_array(kind: Any, shape: Any, code: Any) -> np.ndarray[Any, Any]:
    return np.empty(0, np.int8)


def _fill_array(target: np.ndarray[Any, Any], state: Any) -> bool:
    _, shape, dtype, by_columns, data = state
    order = "F" if by_columns else "C"
    array = _array_of(data, dtype, shape, order)
    whole: Any = (1, array.shape, array.dtype, bool(by_columns), array.tobytes("F" if by_columns else "C"))
    target.__setstate__(whole)  # the array that other places of the pickle may hold already
    return True


def _array_of(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    if not isinstance(data, (bytes, bytearray)) or not isinstance(dtype, np.dtype) or order not in ("C", "F"):
        raise CheckpointError("a NumPy array of it has no bytes or dtype")
    flat = np.frombuffer(data, dtype) if data else np.empty(0, dtype)
    made: np.ndarray[Any, Any] = flat.reshape(_size(shape), order=order)
    return made


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> np.ndarray[Any, Any]:
    return _array_of(data, dtype, shape, order).copy()


def _scalar(dtype: Any, data: Any) -> Any:
    return _array_of(data, dtype, (), "C")[()]


# ---- the list --------------------------------------------------------------------------------------------------------

_CALLED: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor_1,
    "torch._utils._rebuild_tensor_v2": _tensor_2,
    "torch._utils._rebuild_tensor_v3": _tensor_3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter_with_state,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_device_tensor_from_numpy": _from_device,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _from_device,
    "torch.serialization._get_layout": _layout,
    "torch.device": _device,
    "torch.Size": _size,
    "collections.Counter": _counter,
    "collections.defaultdict": _defaultdict,
    "builtins.set": _set(set),
    "builtins.frozenset": _set(frozenset),
    "builtins.complex": _complex,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytearray,
    "_codecs.encode": _encode,
    "argparse.Namespace": argparse.Namespace,
    "numpy.dtype": _numpy_type,
    "numpy._core.multiarray._reconstruct": _empty_array,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _frombuffer,
}
_VALUES: dict[str, Any] = {
    "torch.Tensor": Tensor,
    "numpy.ndarray": np.ndarray,
    "ml_dtypes.bfloat16": ml_dtypes.bfloat16,
    **{f"builtins.{kind.__name__}": kind for kind in (list, dict, int, float, str)},
}
_NAMES: dict[str, Name] = {
    **{text: Name(text, make) for text, make in _CALLED.items()},
    **{text: Name(text, None, value) for text, value in _VALUES.items()},
    "collections.OrderedDict": Name("collections.OrderedDict", _keyed(OrderedDict), OrderedDict),
}
_RENAMED = {
    "__builtin__": "builtins",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
}


def find(module: str, name: str) -> Any:
    """What a pickle means by a name.  Raises CheckpointError for one that is not data."""
    module = _RENAMED.get(module, module)
    text = f"{module}.{name}"
    found = _NAMES.get(text)
    if found is not None:
        return found
    if text in user_globals:
        return Name(text, user_globals[text], user_globals[text])
    if module in ("torch", "torch.cuda", "torch.storage"):
        if name in STORAGES:
            return Kind(STORAGES[name])
        if name in ("UntypedStorage", "_UntypedStorage"):
            return Kind(dtypes.uint8)
        named = {dtype.name: dtype for dtype in dtypes.ALL}.get(name)
        if module == "torch" and named is not None:
            return named
    raise refused(text)
