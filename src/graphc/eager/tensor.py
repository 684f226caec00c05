"""`Tensor`: an array on shared storage, with a place on the tape.

Enters: arrays.  Leaves: tensors.  Methods that run operators are attached by `methods`, `inplace` and `indexing`.
Never here: what operators compute, and how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphc.dims import Size as DimSize
from graphc.dtypes import DType, from_numpy
from graphc.eager import tape
from graphc.eager.modes import modes
from graphc.eager.storage import Phantom, Storage, array_address
from graphc.eager.views import Chain
from graphc.errors import at_user_line

_new = object.__new__


class Size(tuple[DimSize, ...]):
    """A shape: a tuple that prints as ``graphc.Size([2, 3])``."""

    __slots__ = ()

    def numel(self) -> DimSize:
        """The product of the sizes."""
        count: DimSize = 1
        for size in self:
            count = count * size
        return count

    def __getitem__(self, index: Any) -> Any:
        found = tuple.__getitem__(self, index)
        return Size(found) if isinstance(index, slice) else found

    def __add__(self, other: Any) -> Any:
        return Size(tuple.__add__(self, tuple(other)))

    def __repr__(self) -> str:
        return f"graphc.Size([{', '.join(map(str, self))}])"


class device:
    """Where a tensor's memory is.  Only ``cpu``.  Raises RuntimeError for another."""

    __slots__ = ("index", "type")

    def __init__(self, type: str | device = "cpu", index: int | None = None) -> None:
        name, _, number = str(type).partition(":")
        if name != "cpu":
            raise RuntimeError(at_user_line(f"device: expected cpu, got {type!r}"))
        self.type = name
        self.index = int(number) if number else index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and self.type == other.type

    def __hash__(self) -> int:
        return hash(self.type)

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device(type='{self.type}')" if self.index is None else f"device(type='{self.type}', index={self.index})"


CPU = device("cpu")


class Tensor:
    """A multi-dimensional array of one dtype.  Made by `graphc.tensor` and the other creation functions, and by operators."""

    # _array: NumPy array or Phantom.  _chain: how _array is reached from _storage's root.  _base: the tensor this is a view of,
    # for the tape; _epoch: of a base, how often its history was rewritten; of a view, its base's epoch when its own was made.
    # _index: which output of _grad_fn this is.  _hooks: of a leaf.  _pointer: (an array, its address): good while it is _array.
    __slots__ = (
        "__weakref__", "_array", "_base", "_chain", "_epoch", "_grad", "_grad_fn", "_hooks", "_index", "_pointer",
        "_requires_grad", "_retained", "_storage", "dtype",
    )  # fmt: skip
    __array_priority__ = 1000.0

    _array: Any
    _storage: Storage
    _chain: Chain
    _base: Tensor | None
    _epoch: int
    _grad: Tensor | None
    _grad_fn: Any
    _hooks: list[tuple[int, Any]] | None
    _index: int
    _pointer: tuple[Any, int] | None
    _requires_grad: bool
    _retained: bool
    dtype: DType

    def __new__(cls, *args: Any, **kwargs: Any) -> Tensor:
        raise TypeError("a Tensor is made by graphc.tensor(data), graphc.zeros(...) and the other creation functions")

    # ---- type

    @property
    def shape(self) -> Size:
        return Size(self._array.shape)

    def size(self, dim: int | None = None) -> Any:
        return Size(self._array.shape) if dim is None else self._array.shape[dim]

    @property
    def ndim(self) -> int:
        return self._array.ndim  # type: ignore[no-any-return]

    dim = ndimension = lambda self: self._array.ndim

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> Any:
        return self._array.size * self.dtype.itemsize

    def numel(self) -> Any:
        return self._array.size

    nelement = numel

    def element_size(self) -> int:
        return self.dtype.itemsize

    def stride(self, dim: int | None = None) -> Any:
        """Strides in elements, or that of one dim."""
        strides = tuple(s // self.dtype.itemsize for s in self._array.strides)
        return strides if dim is None else strides[dim]

    def storage_offset(self) -> int:
        """Elements from the storage's first to this tensor's first."""
        address = self.numpy_view().__array_interface__["data"][0]
        root = self._storage.array.__array_interface__["data"][0]
        return (address - root) // self.dtype.itemsize  # type: ignore[no-any-return]

    def data_ptr(self) -> int:
        return self.numpy_view().__array_interface__["data"][0]  # type: ignore[no-any-return]

    def is_contiguous(self) -> bool:
        """Whether elements lie in row-major order without gaps."""
        array = self._array
        return array.contiguous if type(array) is Phantom else array.flags.c_contiguous  # type: ignore[no-any-return]

    def is_floating_point(self) -> bool:
        return self.dtype.kind == "f"

    def is_complex(self) -> bool:
        return False

    def is_signed(self) -> bool:
        return self.dtype.is_signed

    @property
    def device(self) -> device:
        return CPU

    @property
    def is_cuda(self) -> bool:
        return False

    def get_device(self) -> int:
        return -1

    # ---- autograd

    @property
    def requires_grad(self) -> bool:
        """Whether operators on this tensor are recorded for backward."""
        base = self._base
        if base is not None and base._epoch != self._epoch:
            tape.refresh(self)
        return self._requires_grad  # type: ignore[no-any-return]

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set whether operators on this leaf are recorded.  Raises RuntimeError for a tensor that is not a leaf or not floating."""
        if requires_grad and self.dtype.kind != "f":
            raise RuntimeError(at_user_line(f"only Tensors of floating point dtype can require gradients, not {self.dtype}"))
        if not requires_grad and self.grad_fn is not None:
            raise RuntimeError(at_user_line("you can only change requires_grad flags of leaf variables; use detach()"))
        self._requires_grad = bool(requires_grad) or self._grad_fn is not None
        return self

    @property
    def grad_fn(self) -> Any:
        """The node that made this tensor, or None for a leaf."""
        base = self._base
        if base is not None and base._epoch != self._epoch:
            tape.refresh(self)
        return self._grad_fn

    @property
    def is_leaf(self) -> bool:
        return self.grad_fn is None

    @property
    def output_nr(self) -> int:
        return self._index

    @property
    def _version(self) -> int:
        return self._storage.version

    @property
    def grad(self) -> Tensor | None:
        tracer = modes.tracer
        return self._grad if tracer is None else tracer.read_grad(self)  # type: ignore[no-any-return]

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(at_user_line(f"assigned grad must be a Tensor or None, not {type(value).__name__}"))
            if value._array.shape != self._array.shape or value.dtype is not self.dtype:
                mine, given = (f"{t.dtype.short}{list(t._array.shape)}" for t in (self, value))
                raise RuntimeError(at_user_line(f"assigned grad must have the tensor's dtype and shape {mine}, got {given}"))
        if modes.tracer is not None:
            modes.tracer.set_grad(self)
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self.grad = None

    def retain_grad(self) -> None:
        """Keep `.grad` of this tensor though it is not a leaf."""
        node = self.grad_fn
        if not self._requires_grad:
            raise RuntimeError(at_user_line("can't retain_grad on a Tensor that has requires_grad=False"))
        if node is None or self._retained:
            return
        self._retained = True
        node.retained = [*(node.retained or ()), (self._index, self)]

    @property
    def retains_grad(self) -> bool:
        return self._retained and self.grad_fn is not None

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHook:
        """Call `hook(gradient)` when the gradient of this tensor is known; what it gives, if anything, replaces the gradient."""
        node = self.grad_fn
        if not self._requires_grad:
            raise RuntimeError(at_user_line("cannot register a hook on a tensor that doesn't require gradient"))
        if node is None:
            self._hooks = hooks = self._hooks if self._hooks is not None else []
            entry: tuple[int, Any] = (0, hook)
        else:
            node.hooks = hooks = node.hooks if node.hooks is not None else []
            entry = (self._index, hook)
        hooks.append(entry)
        return RemovableHook(hooks, entry)

    def detach(self) -> Tensor:
        """The same memory, off the tape.  In-place writes to either are seen by both (and by the version check of backward)."""
        return share(self, Tensor)

    @property
    def data(self) -> Tensor:
        """`detach()`; assigning makes this tensor another array."""
        return share(self, Tensor)

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(at_user_line(f"data must be a Tensor, not {type(value).__name__}"))
        if modes.tracer is not None:
            raise RuntimeError(at_user_line("assigning .data cannot be traced; use copy_()"))
        if self._requires_grad and value.dtype.kind != "f":
            raise RuntimeError(at_user_line(f"data set to a tensor that requires gradients must be floating, not {value.dtype}"))
        if self._storage.aliased or (self._array.shape, self.dtype) != (value._array.shape, value.dtype):
            from graphc.eager import dispatch

            dispatch.epoch[0] += 1  # compiled code looks for the memory again
        self._array, self._storage, self._chain, self.dtype = value._array, value._storage, value._chain, value.dtype

    # ---- out of tensors

    def numpy_view(self) -> np.ndarray[Any, Any]:
        """The array itself.  Raises TraceError in a trace."""
        array = self._array
        if type(array) is Phantom or modes.tracer is not None:
            Phantom.refuse(array, "numpy()")
        return array  # type: ignore[no-any-return]

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """A NumPy array that shares memory.  Raises RuntimeError for a tensor that requires grad unless `force`."""
        if self.requires_grad and not force:
            raise RuntimeError(at_user_line("can't call numpy() on Tensor that requires grad; use tensor.detach().numpy()"))
        return self.numpy_view()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        if dtype is not None and array.dtype != np.dtype(dtype):
            return array.astype(dtype)
        return array.copy() if copy else array

    def tolist(self) -> Any:
        """Nested lists of Python numbers, or one number."""
        array = self.numpy_view()
        return (array.astype(np.float32) if self.dtype.compute is not self.dtype else array).tolist()

    def item(self) -> Any:
        """The one element as a Python number.  Raises RuntimeError for more or fewer elements."""
        array = self.numpy_view()
        if array.size != 1:
            raise RuntimeError(at_user_line(f"a Tensor with {array.size} elements cannot be converted to Scalar"))
        value = array.reshape(()).item()
        return value if isinstance(value, bool | int | float) else float(value)

    def __bool__(self) -> bool:
        array = self.numpy_view()
        if array.size != 1:
            what = "no values" if array.size == 0 else "more than one value"
            raise RuntimeError(at_user_line(f"Boolean value of Tensor with {what} is ambiguous"))
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind == "f" or self._array.ndim and self._array.size != 1:
            raise TypeError(at_user_line("only integer tensors of a single element can be converted to an index"))
        return int(self.item())

    def __len__(self) -> int:
        if not self._array.ndim:
            raise TypeError(at_user_line("len() of a 0-d tensor"))
        return self._array.shape[0]  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Tensor]:
        if not self._array.ndim:
            raise TypeError(at_user_line("iteration over a 0-d tensor"))
        return (self[i] for i in range(self._array.shape[0]))  # type: ignore[index]

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())  # type: ignore[attr-defined]

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        from graphc.eager.printing import text

        return text(self)

    def __format__(self, spec: str) -> str:
        return (
            format(self.item(), spec)
            if not self._array.ndim and type(self._array) is not Phantom
            else object.__format__(self, spec)
        )

    def __copy__(self) -> Tensor:
        return share(self, type(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """A copy of the elements; the gradient is copied too.  Raises RuntimeError for a tensor that is not a leaf."""
        if not self.is_leaf:
            raise RuntimeError(at_user_line("only Tensors created by the user (leaves) can be deep-copied; use detach()"))
        copy = wrap(np.array(self.numpy_view(), order="C"), self.dtype, type(self))
        copy._requires_grad = self._requires_grad
        memo[id(self)] = copy
        copy._grad = None if self._grad is None else self._grad.__deepcopy__(memo)
        return copy

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not self.is_leaf:
            raise RuntimeError(at_user_line("only Tensors created by the user (leaves) can be pickled; use detach()"))
        return _unpickled, (type(self), self.numpy_view().tobytes(), self.dtype, tuple(self._array.shape), self._requires_grad)

    def __dir__(self) -> list[str]:
        return sorted(name for name in set(object.__dir__(self)) if not name.startswith("_") or name.startswith("__"))


class RemovableHook:
    """What `register_hook` gives; `remove()` takes the hook away."""

    __slots__ = ("entry", "hooks")

    def __init__(self, hooks: list[Any], entry: Any) -> None:
        self.hooks, self.entry = hooks, entry

    def remove(self) -> None:
        if self.entry in self.hooks:
            self.hooks.remove(self.entry)


# ---- making tensors --------------------------------------------------------------------------------------------------


def wrap(array: Any, dtype: DType, kind: type[Tensor] = Tensor) -> Tensor:
    """A tensor that is the root of its own storage."""
    return place(array, dtype, Storage(array), (), None, kind)


def place(array: Any, dtype: DType, storage: Storage, chain: Chain, base: Tensor | None, kind: type[Tensor] = Tensor) -> Tensor:
    """A tensor off the tape from all its parts."""
    x: Tensor = _new(kind)
    x._array = array
    x.dtype = dtype
    x._storage = storage
    x._chain = chain
    x._base = base
    x._epoch = 0 if base is None else base._epoch
    x._requires_grad = x._retained = False
    x._grad = x._grad_fn = x._hooks = x._pointer = None
    x._index = 0
    return x


def address_of(x: Tensor) -> int:
    """The address of a tensor's first element, remembered while its array stays the same."""
    pointer = x._pointer
    array = x._array
    if pointer is None or pointer[0] is not array:
        pointer = x._pointer = (array, array_address(array))
    return pointer[1]  # type: ignore[no-any-return]


def share(x: Tensor, kind: type[Tensor]) -> Tensor:
    """The same memory as another tensor, off the tape."""
    if modes.tracer is not None:
        x._storage.aliased = True
    return place(x._array, x.dtype, x._storage, x._chain, None, kind)


def wrap_array(array: np.ndarray[Any, Any], kind: type[Tensor] = Tensor) -> Tensor:
    """A tensor that shares the memory of a NumPy array.  Raises TypeError for a dtype graphc does not have."""
    return wrap(array, from_numpy(array.dtype), kind)


def _unpickled(kind: type[Tensor], data: bytes, dtype: DType, shape: tuple[int, ...], requires_grad: bool) -> Tensor:
    x = wrap(np.frombuffer(bytearray(data), dtype.numpy).reshape(shape), dtype, kind)
    x._requires_grad = requires_grad
    return x
