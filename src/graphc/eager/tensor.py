"""`Tensor`: an array on shared storage, with a place on the tape.

Enters: arrays.  Leaves: tensors.  Methods that run operators are attached by `methods`, `inplace` and `indexing`.
Never here: what operators compute, and how.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphc.dims import Dim
from graphc.dims import Size as DimSize
from graphc.dtypes import DType, from_numpy
from graphc.eager import tape
from graphc.eager.hooks import RemovableHandle, hooked
from graphc.eager.modes import modes
from graphc.eager.storage import Phantom, Storage, array_address
from graphc.eager.views import Chain
from graphc.errors import at_user_line
from graphc.ir.op import canonical_dim
from graphc.leases import lend

_new = object.__new__
_sized: Any = tuple.__new__  # sizes of an array need no check


class Size(tuple[DimSize, ...]):
    """A shape: a tuple that prints as ``graphc.Size([2, 3])``."""

    __slots__ = ()

    def __new__(cls, sizes: Any = ()) -> Size:
        made = tuple.__new__(cls, sizes)
        for i, size in enumerate(made):
            if not isinstance(size, int | Dim):
                if not hasattr(size, "__index__"):
                    raise TypeError(at_user_line(f"Size: takes an iterable of ints, but item {i} is {type(size).__name__}"))
                return Size([s if isinstance(s, Dim) else int(s) for s in made])
        return made

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

    def __radd__(self, other: Any) -> Any:
        return Size(tuple.__add__(other, self)) if isinstance(other, tuple) else NotImplemented  # a list is extended in place

    def __mul__(self, count: Any) -> Any:
        return Size(tuple.__mul__(self, count))

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"graphc.Size([{', '.join(map(str, self))}])"


class Tensor:
    """A multi-dimensional array of one dtype.  Made by `graphc.tensor` and the other creation functions, and by operators."""

    # _array: NumPy array or Phantom.  _chain: how _array is reached from _storage's root.  _base: the tensor this is a view of,
    # for the tape; _epoch: of a base, how often its history was rewritten; of a view, its base's epoch when its own was made.
    # _index: which output of _grad_fn this is.  _hooks: of a leaf.  _pointer: (an array, its address): good while it is _array.
    # __dict__: what programs note on a tensor.
    __slots__ = (
        "__dict__", "__weakref__", "_array", "_base", "_chain", "_epoch", "_grad", "_grad_fn", "_hooks", "_index", "_pointer",
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
    _hooks: dict[int, tuple[int, Any]] | None
    _index: int
    _pointer: tuple[Any, int] | None
    _requires_grad: bool
    _retained: bool
    dtype: DType

    # ---- type

    @property
    def shape(self) -> Size:
        return _sized(Size, self._array.shape)  # type: ignore[no-any-return]

    def size(self, dim: int | None = None) -> Any:
        if dim is None:
            return _sized(Size, self._array.shape)
        return self._array.shape[canonical_dim("size", dim, self._array.ndim) if type(dim) is int else dim]

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
        if type(self._array) is Phantom:
            Phantom.refuse(self._array, "storage_offset()")
        return (address_of(self) - array_address(self._storage.array)) // self.dtype.itemsize

    def data_ptr(self) -> int:
        """The address of the first element.  From now on compiled code expects writes to this memory that nothing tells it of."""
        self.numpy_view()
        self._storage.lent = True
        return address_of(self)

    def is_floating_point(self) -> bool:
        return self.dtype.kind == "f"

    def is_complex(self) -> bool:
        return self.dtype.kind == "c"

    def is_signed(self) -> bool:
        return self.dtype.is_signed

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
        if not isinstance(value, bool):
            raise RuntimeError(at_user_line("requires_grad must be a bool"))
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set whether operators on this leaf are recorded.

        Raises TypeError for what is no bool, RuntimeError for no leaf, and for integers and bools.
        """
        if not isinstance(requires_grad, bool):
            shown = type(requires_grad).__name__
            raise TypeError(at_user_line(f"requires_grad_(): argument 'requires_grad' (position 1) must be bool, not {shown}"))
        if requires_grad and self.dtype.kind not in "fc":
            raise RuntimeError(at_user_line(
                f"only Tensors of floating point and complex dtype can require gradients, not {self.dtype}"
            ))  # fmt: skip
        if not requires_grad and self.grad_fn is not None:
            raise RuntimeError(at_user_line("you can only change requires_grad flags of leaf variables; use detach()"))
        self._requires_grad = requires_grad or self._grad_fn is not None
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

    def as_subclass(self, cls: type[Tensor]) -> Any:
        """This tensor, history included, as an instance of a subclass, on the same memory."""
        if not (isinstance(cls, type) and issubclass(cls, Tensor)):
            raise TypeError(at_user_line(f"as_subclass: cls must be a subclass of Tensor, not {cls!r}"))
        x = share(self, cls)
        x._requires_grad, x._grad_fn, x._index = self.requires_grad, self._grad_fn, self._index
        return x

    @staticmethod
    def _make_subclass(cls: type[Tensor], data: Tensor, require_grad: bool = False) -> Any:
        """A leaf of a subclass on the memory of `data`."""
        return share(data, cls).requires_grad_(require_grad)

    def retain_grad(self) -> None:
        """Keep `.grad` of this tensor though it is not a leaf."""
        node = self.grad_fn
        if not self._requires_grad:
            raise RuntimeError(at_user_line("can't retain_grad on a Tensor that has requires_grad=False"))
        if node is None or self._retained:
            return
        self._retained = True
        node.retained = [*(node.retained or ()), (self._index, weakref.ref(self))]  # a tensor holds its node: no cycle

    @property
    def retains_grad(self) -> bool:
        return self._retained and self.grad_fn is not None

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call `hook(gradient)` when the gradient of this tensor is known; what it gives, if anything, replaces the gradient."""
        node = self.grad_fn
        if not self._requires_grad:
            raise RuntimeError(at_user_line("cannot register a hook on a tensor that doesn't require gradient"))
        if node is None:
            if self._hooks is None:
                self._hooks = {}
            return hooked(self._hooks, (tape.BEFORE, hook), _changed)
        if node.hooks is None:
            node.hooks = {}
        return hooked(node.hooks, (self._index, hook))

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Call `hook(tensor)` after backward added to `.grad` of this leaf.  Raises RuntimeError for a tensor that is no leaf."""
        if not self.requires_grad:
            raise RuntimeError(at_user_line("cannot register a hook on a tensor that doesn't require gradient"))
        if self._grad_fn is not None:
            raise RuntimeError(at_user_line("post accumulate grad hooks cannot be registered on non-leaf tensors"))
        if self._hooks is None:
            self._hooks = {}
        return hooked(self._hooks, (tape.AFTER, hook), _changed)

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
        if self._requires_grad and value.dtype.kind not in "fc":
            raise RuntimeError(at_user_line(f"data set to a tensor that requires gradients must be floating, not {value.dtype}"))
        if self._storage.aliased or (self._array.shape, self.dtype) != (value._array.shape, value.dtype):
            from graphc.eager import dispatch

            dispatch.epoch[0] += 1  # compiled code looks for the memory again
        if value._storage is not self._storage:
            self._base = None  # no view any more
        self._array, self._storage, self._chain, self.dtype = value._array, value._storage, value._chain, value.dtype

    # ---- out of tensors

    def numpy_view(self) -> np.ndarray[Any, Any]:
        """The array itself, only to be read.  Raises TraceError in a trace."""
        array = self._array
        if type(array) is Phantom or (modes.tracer is not None and modes.tracer.collects):
            Phantom.refuse(array, "numpy()")
        for read in modes.readers:
            read(self)
        return array  # type: ignore[no-any-return]

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """A NumPy array that shares memory.  Raises RuntimeError for a tensor that requires grad unless `force`."""
        if not force and self.requires_grad:
            message = "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
            raise RuntimeError(at_user_line(message))
        return lend(self._storage, self.numpy_view())

    def tolist(self) -> Any:
        """Nested lists of Python numbers, or one number."""
        reads = None if modes.tracer is None else self._reads()
        if reads is not None:
            return reads.lists(self)
        array = self.numpy_view()
        return (array.astype(np.float32) if self.dtype.compute is not self.dtype else array).tolist()

    def _reads(self) -> Any:
        """Who answers, in a trace, what the elements are; None where nobody does."""
        return getattr(modes.tracer, "reads", None) if modes.tracer.collects else None

    def item(self) -> Any:
        """The one element as a Python number.  Raises RuntimeError for more or fewer elements."""
        reads = None if modes.tracer is None else self._reads()
        array = self.numpy_view() if reads is None else self._array
        if array.size != 1:
            raise RuntimeError(at_user_line(f"a Tensor with {array.size} elements cannot be converted to Scalar"))
        if reads is not None:
            return reads.number(self)
        value = array.reshape(()).item()
        return value if isinstance(value, bool | int | float | complex) else float(value)

    def __bool__(self) -> bool:
        array = self._array
        if array.size != 1:
            what = "no values" if array.size == 0 else "more than one value"
            raise RuntimeError(at_user_line(f"Boolean value of Tensor with {what} is ambiguous"))
        return bool(self.item())

    def is_nonzero(self) -> bool:
        """`bool` of the one element.  Raises RuntimeError for more or fewer elements."""
        return bool(self)

    def _one(self) -> Any:
        """`item`, for Python's conversions.  Raises ValueError for more or fewer elements."""
        if self._array.size != 1:
            raise ValueError(at_user_line("only one element tensors can be converted to Python scalars"))
        return self.item()

    def _real(self) -> Any:
        value = self._one()
        if isinstance(value, complex):
            if value.imag:
                raise RuntimeError(at_user_line(f"{value} cannot be converted to a real number"))
            return value.real
        return value

    def __float__(self) -> float:
        return float(self._real())

    def __int__(self) -> int:
        return int(self._real())

    def __complex__(self) -> complex:
        return complex(self._one())

    def __index__(self) -> int:
        if self.dtype.kind in "fc" or self._array.ndim and self._array.size != 1:
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

    def __reversed__(self) -> Tensor:
        return self.flip(0) if self._array.ndim else self  # type: ignore[attr-defined,no-any-return]

    def __contains__(self, value: Any) -> bool:
        if not isinstance(value, Tensor | bool | int | float | complex | np.generic):
            raise RuntimeError(at_user_line(f"Tensor.__contains__ only supports Tensor or scalar, not {type(value).__name__}"))
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
        x = share(self, type(self))
        x._requires_grad = self._requires_grad and self.is_leaf
        if hasattr(self, "__dict__"):
            x.__dict__.update(self.__dict__)
        return x

    def __dir__(self) -> list[str]:
        return sorted(name for name in set(object.__dir__(self)) if not name.startswith("_") or name.startswith("__"))


def _changed() -> None:
    """Compiled code that runs backward has a leaf's hooks in it: it is traced again."""
    from graphc.eager import dispatch

    dispatch.epoch[0] += 1


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
    view = place(x._array, x.dtype, x._storage, x._chain, None, kind)
    if modes.tracer is not None:
        x._storage.aliased = True
        if modes.tracer.collects:
            modes.tracer.note_view(view)
    return view


def wrap_array(array: np.ndarray[Any, Any], kind: type[Tensor] = Tensor) -> Tensor:
    """A tensor on memory that others may hold.  Raises TypeError for a dtype graphc does not have."""
    return place(array, from_numpy(array.dtype), Storage(array, lent=True), (), None, kind)
