"""Tensors as other dtypes, on other devices, in other memory formats; the old constructors, one class for each dtype.

Enters: tensors, dtypes, devices, names.  Leaves: attributes of `Tensor`, and PyTorch's ``FloatTensor`` and its like.
Never here: how elements are converted (`ops`).
"""

from __future__ import annotations

from typing import Any

from graphc import dtypes
from graphc.dtypes import DType, as_dtype, get_default_dtype, set_default_dtype
from graphc.eager.devices import check_device, device, preserve_format
from graphc.eager.failures import guarded
from graphc.eager.memory import formatted, is_storage
from graphc.eager.methods import Function, attached
from graphc.eager.tensor import Tensor, wrap
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.ops.arguments import cast


def placed(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``to`` in any of its forms, by name: (device, dtype), (dtype), (other), then non_blocking and copy."""
    found: dict[str, Any] = dict(kwargs)
    flags = ["copy", "non_blocking"]
    for argument in args:
        if isinstance(argument, bool):
            if not flags:
                raise TypeError(at_user_line(f"{name}: too many arguments"))
            found[flags.pop()] = argument
        elif isinstance(argument, DType | type):
            found["dtype"] = argument
        elif isinstance(argument, Tensor):
            found["dtype"] = argument.dtype
        elif isinstance(argument, str | device | int):
            found["device"] = argument
        elif argument is not None:
            raise TypeError(at_user_line(f"{name}: expected a dtype, device or Tensor, got {type(argument).__name__}"))
    if "other" in found:
        found["dtype"] = found.pop("other").dtype
    for key in found:
        if key not in ("dtype", "device", "non_blocking", "copy", "memory_format"):
            raise TypeError(at_user_line(f"{name}: unexpected argument '{key}'"))
    if found.get("dtype") is not None:
        try:
            found["dtype"] = as_dtype(found["dtype"])
        except TypeError as error:
            raise TypeError(at_user_line(f"{name}: {error}")) from None
    return found


@attached
def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """As another dtype or memory format: ``to(dtype)``, ``to(device, dtype)``, ``to(other)``, with ``non_blocking=``, ``copy=``
    and ``memory_format=``.  This tensor itself where nothing changes and no copy is asked for.

    Raises AssertionError or RuntimeError for a device other than the CPU, TypeError for what is no such argument.
    """
    if len(args) == 1 and not kwargs:  # what almost every call is
        only = args[0]
        if isinstance(only, DType):
            return self if only is self.dtype else cast(self, only)  # type: ignore[no-any-return]
        if isinstance(only, str | device):
            check_device(only)
            return self
    given = placed("to", args, kwargs)
    check_device(given.get("device"))
    dtype = given.get("dtype")
    copy, format = bool(given.get("copy")), given.get("memory_format")
    if dtype is not None and dtype is not self.dtype:
        return formatted(cast(self, dtype), format)
    return formatted(self, format, copy)


@attached
def cpu(self: Tensor, memory_format: Any = preserve_format) -> Tensor:
    """This tensor: all memory is the CPU's."""
    return formatted(self, memory_format)


@attached
def cuda(self: Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = preserve_format) -> Tensor:
    """Raises AssertionError: there is no CUDA runtime."""
    check_device("cuda")
    raise AssertionError


@attached
def xpu(self: Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = preserve_format) -> Tensor:
    """Raises AssertionError: there is no XPU runtime."""
    check_device("xpu")
    raise AssertionError


_CONVERSIONS = {
    "float": dtypes.float32, "double": dtypes.float64, "half": dtypes.float16, "bfloat16": dtypes.bfloat16, "byte": dtypes.uint8,
    "char": dtypes.int8, "short": dtypes.int16, "int": dtypes.int32, "long": dtypes.int64, "bool": dtypes.bool_,
    "cfloat": dtypes.complex64, "cdouble": dtypes.complex128,
}  # fmt: skip


def _conversion(name: str, dtype: DType) -> Function:
    def convert(self: Tensor, memory_format: Any = preserve_format) -> Tensor:
        return formatted(self if self.dtype is dtype else cast(self, dtype), memory_format)

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"As {dtype.name}; this tensor itself if it is."
    return convert


for _name, _dtype in _CONVERSIONS.items():
    setattr(Tensor, _name, _conversion(_name, _dtype))


# ---- one class for each dtype ------------------------------------------------------------------------------------------


class TensorKind(type):
    """The class of ``FloatTensor`` and its like: calling one makes a tensor of its dtype; its instances are such tensors."""

    dtype: DType
    is_cuda: bool

    def __new__(cls, name: str, dtype: DType, is_cuda: bool = False) -> TensorKind:
        kind = super().__new__(cls, name, (), {})
        kind.dtype, kind.is_cuda = dtype, is_cuda
        kind.__module__ = "graphc.cuda" if is_cuda else "graphc"
        return kind

    def __init__(cls, name: str, dtype: DType, is_cuda: bool = False) -> None:
        super().__init__(name, (), {})

    def __call__(cls, *args: Any, **kwargs: Any) -> Tensor:
        """A tensor of sizes, of a sequence's elements, or empty.  Raises TypeError for a tensor of another dtype."""
        if cls.is_cuda:
            raise TypeError(at_user_line(f"type {cls.__module__}.{cls.__name__} not available: graphc has no CUDA runtime"))
        return constructed(cls.__name__, cls.dtype, *args, **kwargs)

    def __instancecheck__(cls, x: object) -> bool:
        return not cls.is_cuda and isinstance(x, Tensor) and x.dtype is cls.dtype

    def __repr__(cls) -> str:
        return f"<class '{cls.__module__}.{cls.__name__}'>"

    def __reduce__(cls) -> str:
        return cls.__name__


_KIND_NAMES = {
    "float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16", "uint8": "Byte", "int8": "Char",
    "int16": "Short", "int32": "Int", "int64": "Long", "bool": "Bool", "complex64": "ComplexFloat", "complex128": "ComplexDouble",
    "uint16": "UInt16", "uint32": "UInt32", "uint64": "UInt64",
}  # fmt: skip
_NAMED = ("float32", "float64", "float16", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool")
KINDS = {f"{_KIND_NAMES[d.name]}Tensor": TensorKind(f"{_KIND_NAMES[d.name]}Tensor", d) for d in dtypes.ALL if d.name in _NAMED}
CUDA_KINDS = {name: TensorKind(name, kind.dtype, is_cuda=True) for name, kind in KINDS.items()}


def constructed(name: str, dtype: DType, *args: Any, device: Any = None) -> Tensor:
    """What PyTorch's old constructors give: of sizes zeros, of a tensor of the dtype that tensor, of a sequence its elements."""
    from graphc.eager.creation import tensor

    check_device(device)
    if not args:
        return Op.table["zeros"](0, dtype=dtype)  # type: ignore[no-any-return]
    first = args[0]
    if len(args) == 1 and isinstance(first, Tensor):
        if first.dtype is not dtype and name != "Tensor":
            raise TypeError(at_user_line(f"{name}: expected a tensor of {dtype}, got {first.dtype}; use to()"))
        return first.detach()
    if len(args) == 1 and is_storage(first):
        return wrap(Op.table["zeros"](0, dtype=dtype)._array, dtype).set_(first)  # type: ignore[attr-defined,no-any-return]
    from graphc.eager.tensor import Size

    if isinstance(first, Size) or all(isinstance(n, int) and not isinstance(n, bool) for n in args):
        return Op.table["zeros"](*args, dtype=dtype)  # type: ignore[no-any-return]
    if len(args) > 1 or not (isinstance(first, list | tuple) or hasattr(first, "__array__") or hasattr(first, "__len__")):
        raise TypeError(at_user_line(f"{name}: data must be sizes, a sequence or a tensor, got {type(first).__name__}"))
    return tensor(first, dtype=dtype)


def _new(cls: type[Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """``Tensor(2, 3)``, ``Tensor([1.0, 2.0])``: of the default dtype; of a tensor its memory, as an instance of the class."""
    x = constructed("Tensor", get_default_dtype(), *args, device=kwargs.pop("device", None))
    return x if cls is Tensor else x.as_subclass(cls)  # type: ignore[attr-defined,no-any-return]


Tensor.__new__ = _new  # type: ignore[method-assign,assignment]


@attached
def new(self: Tensor, *args: Any, device: Any = None) -> Tensor:
    """The old constructor with this tensor's dtype."""
    return constructed("new", self.dtype, *args, device=device)


def as_type(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """As another dtype, which may be given as a class or by a class's name; without one, the name of this tensor's class."""
    if dtype is None:
        return f"graphc.{_KIND_NAMES[self.dtype.name]}Tensor"
    return to(self, _dtype_of(dtype))


Tensor.type = as_type  # type: ignore[attr-defined]


def _dtype_of(given: Any) -> DType:
    """The dtype that a dtype, a class or the name of a class says.  Raises TypeError, ValueError."""
    if isinstance(given, DType) or given in (float, int, bool, complex):
        return as_dtype(given)
    if isinstance(given, str):
        prefix, _, name = given.rpartition(".")
        kind = (CUDA_KINDS if prefix.endswith(".cuda") else KINDS).get(name)
        if prefix.split(".")[0] not in ("graphc", "torch"):  # a ported program's strings still say torch
            kind = None
        if kind is None:
            raise ValueError(at_user_line(f"invalid type: '{given}'"))
        given = kind
    if not isinstance(given, TensorKind):
        raise TypeError(at_user_line(f"dtype must be a dtype, a tensor class or its name, not {given.__class__.__name__}"))
    if given.is_cuda:
        check_device("cuda")
    return given.dtype


def set_default_tensor_type(t: Any) -> None:
    """The default dtype by a tensor class or its name.  Raises TypeError for a dtype that is not floating."""
    set_default_dtype(_dtype_of(t))


@attached
@guarded
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """As the dtype of another tensor."""
    return to(self, other.dtype)


def typename(obj: Any, /) -> str:
    """The name of an object's class with its module; of a tensor, that of the class of its dtype."""
    if isinstance(obj, Tensor):
        return as_type(obj)  # type: ignore[no-any-return]
    cls = obj if isinstance(obj, type) else type(obj)
    module = getattr(cls, "__module__", "")
    return cls.__qualname__ if module in ("", "builtins") else f"{module}.{cls.__qualname__}"


__all__ = ["CUDA_KINDS", "KINDS", "placed", "set_default_tensor_type", "typename"]
