"""Tensors from data, numbers and sizes.

Enters: Python and NumPy data.  Leaves: tensors.  Never here: operators, how random numbers are drawn (`generator`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import ml_dtypes
import numpy as np

from graphc.dtypes import DType, as_dtype, default_for_scalar, get_default_dtype, int32, int64, promote_types
from graphc.dtypes import from_numpy as dtype_from_numpy
from graphc.eager.devices import check_device
from graphc.eager.factory import check_pinned, creation, finished
from graphc.eager.failures import located
from graphc.eager.generator import rand, rand_like, randint, randn, randn_like, randperm
from graphc.eager.methods import attached
from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor, wrap, wrap_array
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.ops.arguments import cast, sizes
from graphc.ops.movement import inverse, permute
from graphc.ops.strided import as_strided as strided
from graphc.ops.strided import check_strided, span


def tensor(
    data: Any, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """A new tensor with a copy of `data`: numbers, nested sequences, arrays, tensors.

    Without `dtype`: bool, int64 or the default floating dtype for Python numbers, the array's own dtype for arrays.
    Raises ValueError for ragged sequences and integers too large, TypeError for text, RuntimeError for other things.
    """
    check_device(device)
    check_pinned(pin_memory)
    dtype = _dtype(dtype)
    if isinstance(data, Tensor):
        x = data.detach() if dtype is None or dtype is data.dtype else cast(data.detach(), dtype)
        return finished(Op.table["clone"].run(x), requires_grad)
    if modes.tracer is not None and _holds_live_numbers(data):
        return finished(_of_live_numbers(data, dtype or reduce(promote_types, _dtypes_of(data))), requires_grad)
    array = _array(data, dtype)
    return finished(_constant(np.array(array, order="C")), requires_grad)


def _is_live(x: Any) -> bool:
    """Whether x only stands for a number: of another one at the next call (`capture.live`)."""
    return isinstance(x, int | float) and not issubclass(type(x), int | float)


def _holds_live_numbers(data: Any) -> bool:
    return any(map(_holds_live_numbers, data)) if isinstance(data, list | tuple) else _is_live(data)


def _dtypes_of(data: Any) -> set[DType]:
    found: set[DType] = set()
    _plain(data, found)
    return found


def _of_live_numbers(data: Any, dtype: DType) -> Tensor:
    """Nested sequences as operators that read such a number at every call."""
    if isinstance(data, list | tuple):
        return Op.table["stack"]([_of_live_numbers(d, dtype) for d in data])  # type: ignore[no-any-return]
    return Op.table["full"]((), data, dtype) if _is_live(data) else tensor(data, dtype=dtype)


def as_tensor(data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """`data` as a tensor, sharing memory with a tensor or array of that dtype."""
    check_device(device)
    dtype = _dtype(dtype)
    if isinstance(data, Tensor):
        return data if dtype is None else cast(data, dtype)
    if isinstance(data, np.ndarray):
        x = from_numpy(data)
        return x if dtype is None else cast(x, dtype)
    return tensor(data, dtype=dtype)


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor that shares the memory of `array`.  Raises TypeError for other objects and for dtypes graphc does not have."""
    if not isinstance(array, np.ndarray):
        raise TypeError(at_user_line(f"from_numpy: expected np.ndarray, got {type(array).__name__}"))
    if any(s < 0 for s in array.strides):
        raise ValueError(at_user_line("from_numpy: the array has a negative stride; make a copy with array.copy()"))
    try:
        return wrap_array(np.asarray(array))
    except TypeError as error:
        raise located(error) from None


def _dtype(given: Any) -> DType | None:
    try:
        return None if given is None else as_dtype(given)
    except TypeError as error:
        raise TypeError(at_user_line(f"tensor: {error}")) from None


def _not_numbers(data: Any) -> Exception:
    """What is wrong with data that NumPy takes for objects."""
    if isinstance(data, list | tuple):
        return next((_not_numbers(d) for d in data if not isinstance(d, float | complex) and d is not True), TypeError("tensor"))
    if isinstance(data, int):
        return ValueError(at_user_line(f"tensor: overflow: {data} does not fit in an integer of 64 bits"))
    return RuntimeError(at_user_line(f"tensor: could not infer dtype of {type(data).__name__}"))


def _constant(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor of data that is the same at each call of a traced function."""
    x = wrap(array, dtype_from_numpy(array.dtype))
    return x if modes.tracer is None else modes.tracer.constant(x)


def host_scalar(getter: Callable[[], float], dtype: DType) -> Tensor:
    """A 0-d tensor of a Python number.  In a trace: an input whose value every later call asks of `getter` anew."""
    if modes.tracer is not None:
        return modes.tracer.scalar(getter, dtype)  # type: ignore[no-any-return]
    return wrap(np.asarray(getter(), dtype.numpy), dtype)


def _array(data: Any, dtype: DType | None) -> np.ndarray[Any, Any]:
    """`data` as an array of `dtype`, or of the dtype PyTorch would give it."""
    if isinstance(data, np.ndarray | np.generic):
        array = np.asarray(data)
    else:
        found: set[DType] = set()
        data = _plain(data, found)
        try:
            array = np.asarray(data)
        except ValueError:
            raise ValueError(at_user_line("tensor: the nested sequences differ in length")) from None
        if dtype is None and found and array.size:
            dtype = reduce(promote_types, found)
    if array.dtype.kind == "O":
        raise _not_numbers(data)
    if array.dtype.kind in "USMm" or array.dtype.names:
        raise TypeError(at_user_line(f"tensor: could not make a tensor of {type(data).__name__} of {array.dtype} elements"))
    if dtype is None:
        if isinstance(data, np.ndarray | np.generic):
            dtype = dtype_from_numpy(array.dtype)
        else:
            dtype = default_for_scalar({"b": True, "i": 1, "u": 1, "c": 1j}.get(array.dtype.kind if array.size else "f", 1.0))
    if array.dtype == dtype.numpy:
        return array
    if array.dtype.kind == "f" and dtype.kind in "iu" and array.size:
        with np.errstate(all="ignore"):
            return np.asarray(Op.table["cast"].reference(np, array, dtype=dtype))
    with np.errstate(all="ignore"):
        return array.astype(dtype.numpy)


_NUMBERS = {bool, int, float, complex}


def _plain(data: Any, found: set[DType]) -> Any:
    """Nested sequences with arrays for tensors, one of a single element being a number; `found` gets the dtypes that are there."""
    if isinstance(data, list | tuple | range):
        kinds = set(map(type, data))
        if kinds <= _NUMBERS:
            found.update(default_for_scalar(kind(1)) for kind in kinds)
            return list(data) if isinstance(data, range) else data
        return [_plain(d, found) for d in data]
    if isinstance(data, Tensor):
        found.add(data.dtype)
        array: np.ndarray[Any, Any] = data.detach().numpy()
        return array.reshape(()) if array.size == 1 else array
    if isinstance(data, np.ndarray | np.generic) and not isinstance(data, float) and data.dtype.kind in "biufc":
        found.add(dtype_from_numpy(data.dtype))
    elif isinstance(data, bool | int | float | complex):
        found.add(default_for_scalar(data))
    return data


# ---- by size ---------------------------------------------------------------------------------------------------------


@creation
def empty(*sizes: Any, size: Any = None, dtype: DType | None = None) -> Tensor:
    """A tensor of `size` whose elements are zero (nothing is left undefined)."""
    return Op.table["zeros"](*(sizes if size is None else (size,)), dtype=dtype)  # type: ignore[no-any-return]


@creation
def empty_strided(size: Any, stride: Any, *, dtype: DType | None = None) -> Tensor:
    """Zeros of a size with these strides, in as little memory as they need.  Raises RuntimeError for negative sizes or strides."""
    size, stride = sizes("empty_strided", (tuple(size),), "size"), sizes("empty_strided", (tuple(stride),), "stride")
    check_strided("empty_strided", size, stride, 0, None)
    memory = Op.table["zeros"](span(size, stride), dtype=dtype)
    return strided.run(memory, size=size, stride=stride, offset=0)  # type: ignore[no-any-return]


@creation
def empty_permuted(size: Any, physical_layout: Any, *, dtype: DType | None = None) -> Tensor:
    """Zeros of a size whose dims lie in memory in this order, the outermost first.  Raises RuntimeError for no such order."""
    size, order = sizes("empty_permuted", (tuple(size),), "size"), tuple(physical_layout)
    if len(order) != len(size) or sorted(order) != list(range(len(size))):
        raise RuntimeError(f"empty_permuted: physical_layout {list(order)} is no order of the dims of {list(size)}")
    return permute.run(Op.table["zeros"](*(size[k] for k in order), dtype=dtype), dims=inverse(order))  # type: ignore[no-any-return]


@creation
def full(size: Any, fill_value: Any, *, dtype: DType | None = None) -> Tensor:
    """A tensor of `size` filled with a number (or a 0-d tensor)."""
    if isinstance(fill_value, Tensor):
        shape = tuple(size) if isinstance(size, list | tuple) else (size,)
        filled: Tensor = Op.table["clone"].run(Op.table["expand"](cast(fill_value, dtype or fill_value.dtype), shape))
        return filled
    return Op.table["full"](size, fill_value, dtype)  # type: ignore[no-any-return]


@creation
def arange(start: Any = None, end: Any = None, step: Any = 1, *, dtype: DType | None = None) -> Tensor:
    """start, start + step, ... below end; 0, 1, ... below its only argument."""
    start, end, step = (_number("arange", v) for v in (start, end, step))
    if start is None:
        start = 0 if end is not None else start
    return Op.table["arange"](start, end, step, dtype=dtype)  # type: ignore[no-any-return]


def _number(name: str, given: Any) -> Any:
    """A 0-d tensor's number; anything else as it is.  Raises RuntimeError for a tensor with dims."""
    if not isinstance(given, Tensor):
        return given
    if given.ndim:
        raise RuntimeError(f"{name}: only 0-dimensional tensors can stand for numbers, got {list(given.shape)}")
    return given.item()


@creation
def linspace(start: Any, end: Any, steps: Any, *, dtype: DType | None = None) -> Tensor:
    """`steps` values evenly spaced from start to end, both included; these are numbers or 0-d tensors."""
    start, end = _number("linspace", start), _number("linspace", end)
    return Op.table["linspace"](start, end, steps, dtype=dtype)  # type: ignore[no-any-return]


@creation
def logspace(start: Any, end: Any, steps: Any, base: Any = 10.0, *, dtype: DType | None = None) -> Tensor:
    """`base` to the powers of `steps` values evenly spaced from start to end; these are numbers or 0-d tensors."""
    start, end = _number("logspace", start), _number("logspace", end)
    return Op.table["logspace"](start, end, steps, base, dtype=dtype)  # type: ignore[no-any-return]


@creation
def empty_like(x: Tensor, *, dtype: DType | None = None) -> Tensor:
    """Zeros in the shape (and dtype) of x."""
    return Op.table["zeros_like"](x, dtype=dtype)  # type: ignore[no-any-return]


def _of_op(name: str) -> Callable[..., Tensor]:
    op = Op.table[name]

    def make(*args: Any, **kwargs: Any) -> Tensor:
        if "input" in kwargs:
            args = (kwargs.pop("input"), *args)
        if "size" in kwargs:
            args = (kwargs.pop("size"), *args)
        return op(*args, **kwargs)  # type: ignore[no-any-return]

    make.__name__, make.__doc__ = name, f"{name}{op.signature}\n\n{op.doc}"
    return creation(make)


zeros, ones, eye = (_of_op(name) for name in ("zeros", "ones", "eye"))
zeros_like, ones_like, full_like = (_of_op(name) for name in ("zeros_like", "ones_like", "full_like"))


@creation
def scalar_tensor(value: Any, *, dtype: DType | None = None) -> Tensor:
    """A 0-d tensor of a number."""
    return tensor(value, dtype=dtype or get_default_dtype())


# ---- new_* -----------------------------------------------------------------------------------------------------------


@attached
def new_tensor(self: Tensor, data: Any, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """`tensor(data)` with this tensor's dtype."""
    return tensor(data, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)


@attached
def new_zeros(self: Tensor, *size: Any, dtype: DType | None = None, **how: Any) -> Tensor:
    """`zeros` with this tensor's dtype."""
    return zeros(*size, dtype=dtype or self.dtype, **how)


@attached
def new_ones(self: Tensor, *size: Any, dtype: DType | None = None, **how: Any) -> Tensor:
    """`ones` with this tensor's dtype."""
    return ones(*size, dtype=dtype or self.dtype, **how)


@attached
def new_empty(self: Tensor, *size: Any, dtype: DType | None = None, **how: Any) -> Tensor:
    """`empty` with this tensor's dtype."""
    return empty(*size, dtype=dtype or self.dtype, **how)


@attached
def new_empty_strided(self: Tensor, size: Any, stride: Any, dtype: DType | None = None, **how: Any) -> Tensor:
    """`empty_strided` with this tensor's dtype."""
    return empty_strided(size, stride, dtype=dtype or self.dtype, **how)


@attached
def new_full(self: Tensor, size: Any, fill_value: Any, dtype: DType | None = None, **how: Any) -> Tensor:
    """`full` with this tensor's dtype."""
    return full(size, fill_value, dtype=dtype or self.dtype, **how)


# ---- facts about dtypes ----------------------------------------------------------------------------------------------


def _triangle(name: str, part: str, positions: Callable[..., Any]) -> Callable[..., Tensor]:
    def make(row: int, col: int, offset: int = 0, *, dtype: DType | None = None) -> Tensor:
        if min(row, col) < 0:
            raise RuntimeError(f"{name}: row and col must be non-negative, got {row} and {col}")
        if dtype not in (None, int64, int32):
            raise RuntimeError(f"{name}: dtype must be int64 or int32, got {dtype}")
        found = np.stack(positions(row, offset, col)).astype((dtype or int64).numpy)
        return _constant(found)

    make.__name__ = name
    make.__doc__ = f"The places of the {part} triangle of a matrix, in row-major order: int64 [2, count].  Raises RuntimeError."
    return creation(make)


tril_indices = _triangle("tril_indices", "lower", np.tril_indices)
triu_indices = _triangle("triu_indices", "upper", np.triu_indices)


class finfo:
    """Limits of a floating dtype, or of the parts of a complex one: bits, eps, max, min, tiny, smallest_normal, resolution.

    Raises TypeError for other dtypes.
    """

    def __init__(self, dtype: DType | None = None) -> None:
        dtype = (get_default_dtype() if dtype is None else as_dtype(dtype)).real
        if dtype.kind != "f":
            raise TypeError(at_user_line(f"finfo: requires a floating dtype, got {dtype}; use iinfo"))
        info: Any = ml_dtypes.finfo(dtype.numpy)
        self.dtype, self.bits = dtype.name, int(info.bits)
        self.eps, self.max, self.min = float(info.eps), float(info.max), float(info.min)
        self.tiny = self.smallest_normal = float(info.smallest_normal)
        self.resolution = 10.0 ** -int(info.precision)

    def __repr__(self) -> str:
        fields = ("resolution", "min", "max", "eps", "smallest_normal", "tiny")
        return f"finfo({', '.join(f'{k}={getattr(self, k):g}' for k in fields)}, dtype={self.dtype})"


class iinfo:
    """Limits of an integer dtype: bits, max, min.  Raises TypeError for other dtypes."""

    def __init__(self, dtype: DType) -> None:
        if as_dtype(dtype).kind not in "iu":
            raise TypeError(at_user_line(f"iinfo: requires an integer dtype, got {dtype}"))
        info = np.iinfo(dtype.numpy)
        self.dtype, self.bits, self.max, self.min = dtype.name, info.bits, int(info.max), int(info.min)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"


__all__ = [
    "arange", "as_tensor", "empty", "empty_like", "empty_permuted", "empty_strided", "eye", "finfo", "from_numpy", "full",
    "full_like", "host_scalar", "iinfo", "linspace", "logspace", "ones", "ones_like", "rand", "rand_like", "randint", "randn",
    "randn_like", "randperm", "scalar_tensor", "tensor", "tril_indices", "triu_indices", "zeros", "zeros_like",
]  # fmt: skip
