"""A tensor's memory as PyTorch shows it: storages, strides, memory formats, and tensors made to share or change memory.

Enters: tensors, sizes, strides.  Leaves: views of memory and attributes of `Tensor`.  Never here: elements computed from elements.

What differs from PyTorch: `resize_` beyond its memory and `share_memory_` give the tensor new memory, which tensors that shared the
old one do not follow; results of operators are row-major whatever the strides of their operands are.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from graphc.dtypes import DType
from graphc.eager.devices import CPU, contiguous_format, device, preserve_format, stored_order, strided
from graphc.eager.failures import ERRORS, guarded, located
from graphc.eager.methods import attached
from graphc.eager.modes import modes, no_grad
from graphc.eager.outputs import into
from graphc.eager.storage import Phantom, Storage, array_address, memory_of
from graphc.eager.tensor import Tensor, address_of, place, wrap
from graphc.errors import TraceError, at_user_line, warn
from graphc.ir.op import Op
from graphc.ops.arguments import sizes
from graphc.ops.movement import inverse, permute
from graphc.ops.strided import as_strided as strided_op
from graphc.ops.strided import check_strided, overlaps, span, strided_scatter

Array = np.ndarray[Any, Any]

# ---- storages ----------------------------------------------------------------------------------------------------------


class UntypedStorage:
    """The bytes that a tensor and its views share.  Two of the same memory are equal."""

    __slots__ = ("_bytes", "_root", "_shared")

    def __init__(self, storage: Storage) -> None:
        root = storage.array
        if type(root) is Phantom or modes.tracer is not None:
            Phantom.refuse(root, "untyped_storage()")
        # the array is kept too: it says that the memory is in use
        self._shared, self._root, self._bytes = storage, root, memory_of(root).view(np.uint8)

    @property
    def _cdata(self) -> int:
        return id(self._shared)

    @property
    def device(self) -> device:
        return CPU

    is_cuda = False

    def data_ptr(self) -> int:
        """The address of the first byte."""
        self._shared.lent = True
        return array_address(self._root)

    def nbytes(self) -> int:
        """How many bytes; `size` and `len` too."""
        return int(self._bytes.size)

    size = __len__ = nbytes

    def element_size(self) -> int:
        return 1

    def tolist(self) -> list[int]:
        return self._bytes.tolist()  # type: ignore[no-any-return]

    def __getitem__(self, index: Any) -> Any:
        found = self._bytes[index]
        if not isinstance(index, slice):
            return int(found)
        self._shared.lent = True  # a storage of its own: writes to it raise its own version
        return UntypedStorage(Storage(found, lent=True))

    def __setitem__(self, index: Any, value: int) -> None:
        self._bytes[index] = value
        self._shared.version += 1

    def fill_(self, value: int) -> UntypedStorage:
        """Overwrite every byte."""
        self._bytes[:] = value
        self._shared.version += 1
        return self

    def copy_(self, source: UntypedStorage) -> UntypedStorage:
        """Overwrite with the bytes of a storage of the same size.  Raises RuntimeError for another size."""
        if source.nbytes() != self.nbytes():
            raise RuntimeError(at_user_line(f"copy_: storages of {self.nbytes()} and {source.nbytes()} bytes"))
        self._bytes[:] = source._bytes
        self._shared.version += 1
        return self

    def clone(self) -> UntypedStorage:
        return UntypedStorage(Storage(self._bytes.copy()))

    def cpu(self) -> UntypedStorage:
        return self

    def is_shared(self) -> bool:
        """Whether processes forked from now on share the memory."""
        return _is_mapped(self._root)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UntypedStorage) and self._shared is other._shared

    def __hash__(self) -> int:
        return id(self._shared)

    def __repr__(self) -> str:
        lines = "".join(f" {v}\n" for v in self.tolist())
        return f"{lines}[graphc.storage.UntypedStorage(device=cpu) of size {self.nbytes()}]"


class TypedStorage:
    """The elements that a tensor and its views share, in the order of memory."""

    __slots__ = ("_elements", "_untyped", "dtype")

    def __init__(self, untyped: UntypedStorage, dtype: DType) -> None:
        self._untyped, self.dtype, self._elements = untyped, dtype, untyped._bytes.view(dtype.numpy)

    @property
    def device(self) -> device:
        return CPU

    is_cuda = False

    def untyped(self) -> UntypedStorage:
        return self._untyped

    _untyped_storage = property(untyped)

    def data_ptr(self) -> int:
        return self._untyped.data_ptr()

    def nbytes(self) -> int:
        return self._untyped.nbytes()

    def size(self) -> int:
        """How many elements."""
        return int(self._elements.size)

    __len__ = size

    def element_size(self) -> int:
        return self.dtype.itemsize

    def tolist(self) -> list[Any]:
        return wrap(self._elements, self.dtype).tolist()  # type: ignore[no-any-return]

    def __getitem__(self, index: Any) -> Any:
        found = wrap(self._elements, self.dtype)[index]  # type: ignore[index]
        if found.ndim:
            self._untyped._shared.lent = found._storage.lent = True
        return found.item() if not found.ndim else TypedStorage(found.untyped_storage(), self.dtype)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._elements[index] = value
        self._untyped._shared.version += 1

    def is_shared(self) -> bool:
        return self._untyped.is_shared()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TypedStorage) and (self._untyped, self.dtype) == (other._untyped, other.dtype)

    def __hash__(self) -> int:
        return hash(self._untyped)

    def __repr__(self) -> str:
        lines = "".join(f" {v}\n" for v in self.tolist())
        return f"{lines}[graphc.storage.TypedStorage(dtype={self.dtype}, device=cpu) of size {self.size()}]"


@attached
def untyped_storage(self: Tensor) -> UntypedStorage:
    """The bytes that this tensor shares with its views."""
    return UntypedStorage(self._storage)


@attached
def storage(self: Tensor) -> TypedStorage:
    """The elements that this tensor shares with its views, in the order of memory."""
    return TypedStorage(UntypedStorage(self._storage), self.dtype)


Tensor._typed_storage = storage  # type: ignore[attr-defined]


def is_storage(obj: object) -> bool:
    """Whether `obj` is a storage."""
    return isinstance(obj, UntypedStorage | TypedStorage)


# ---- views by strides -------------------------------------------------------------------------------------------------


def _dense_order(x: Tensor) -> tuple[int, ...] | None:
    """The order of dims in which the elements of x are row-major without gaps, or None."""
    strides = x.stride()
    order = tuple(sorted(range(x.ndim), key=lambda k: (-strides[k], k)))
    array = x._array
    moved = array if type(array) is Phantom else array.transpose(order)
    if type(moved) is Phantom:
        return order if moved.contiguous and order == tuple(range(x.ndim)) else None
    return order if moved.flags.c_contiguous else None


@attached
def as_strided(self: Tensor, size: Any, stride: Any, storage_offset: Any = None) -> Tensor:
    """A view of this tensor's storage with these sizes and strides (in elements); writes to it need places that differ.

    Gradients flow where every place is an element of this tensor or of the tensor that it is a view of.
    Raises RuntimeError for places outside the storage, lengths that differ, negative sizes, strides or offset.
    """
    try:
        size, stride = sizes("as_strided", (tuple(size),), "size"), sizes("as_strided", (tuple(stride),), "stride")
        order = _dense_order(self)
        if type(self._array) is Phantom:
            if order is None or (storage_offset is not None and self._chain):
                raise TraceError("as_strided of a tensor that is not row-major in its storage cannot be traced")
            return strided_op.run(self, size=size, stride=stride, offset=storage_offset or 0)  # type: ignore[no-any-return]
        first = self.storage_offset()
        offset = first if storage_offset is None else storage_offset
        row = memory_of(self._storage.array).view(self.dtype.numpy)
        check_strided("as_strided", size, stride, offset, row.size)
        inside = first <= offset and offset + span(size, stride) <= first + self._array.size
        if order is not None and (inside or 0 in size):
            dense = self if order == tuple(range(self.ndim)) else permute.run(self, dims=order)
            return strided_op.run(dense, size=size, stride=stride, offset=max(offset - first, 0))  # type: ignore[no-any-return]
        base = self if self._base is None else self._base
        if base._chain or not base._array.flags.c_contiguous or base.dtype is not self.dtype:
            if modes.grad and self.requires_grad:
                raise RuntimeError("as_strided: gradients cannot reach places outside of the tensor; use detach()")
            base = _whole(self, row)
        return strided_op.run(base, size=size, stride=stride, offset=offset)  # type: ignore[no-any-return]
    except ERRORS as error:
        located(error)
        raise


def _whole(x: Tensor, row: Array) -> Tensor:
    """A tensor of all of x's memory, off the tape; `row`: the elements in it."""
    root = x._storage.array
    same = root.dtype == row.dtype and root.flags.c_contiguous
    return place(root, x.dtype, x._storage, (), None) if same else _beside(x._storage, row, x.dtype)


def _beside(storage: Storage, row: Array, dtype: DType) -> Tensor:
    """A tensor on elements of a storage that does not share its versions."""
    storage.lent = True
    return place(row, dtype, Storage(row, lent=True), (), None)


@attached
def as_strided_(self: Tensor, size: Any, stride: Any, storage_offset: Any = None) -> Tensor:
    """`as_strided` of this tensor itself."""
    from graphc.eager.dispatch import reseat

    view = as_strided(self, size, stride, storage_offset)
    if view._storage is not self._storage:
        raise RuntimeError(at_user_line("as_strided_: the memory of this tensor is not row-major; use as_strided()"))
    return reseat(self, view)


def as_strided_copy(input: Tensor, size: Any, stride: Any, storage_offset: Any = None, *, out: Tensor | None = None) -> Tensor:
    """`as_strided` in memory of its own."""
    result: Tensor = Op.table["clone"].run(as_strided(input, size, stride, storage_offset))
    return result if out is None else into(out, result, "as_strided_copy")  # type: ignore[no-any-return]


@attached
def as_strided_scatter(self: Tensor, src: Tensor, size: Any, stride: Any, storage_offset: Any = None) -> Tensor:
    """A copy of this tensor in which ``as_strided(size, stride, storage_offset)`` is `src`.

    Raises RuntimeError as `as_strided`, for a `src` of another shape, and for places that are not all different.
    """
    try:
        size, stride = sizes("as_strided_scatter", (tuple(size),), "size"), sizes("as_strided_scatter", (tuple(stride),), "stride")
        whole = contiguous(self)
        offset = storage_offset or 0
        check_strided("as_strided_scatter", size, stride, offset, whole._array.size)
        if tuple(src.shape) != size:
            raise RuntimeError(f"as_strided_scatter: expected src of shape {list(size)}, got {list(src.shape)}")
        if overlaps(size, stride):
            raise RuntimeError("as_strided_scatter: more than one element refers to a single memory location")
        return strided_scatter(whole, src.to(self.dtype), size, stride, offset)  # type: ignore[attr-defined,no-any-return]
    except ERRORS as error:
        located(error)
        raise


# ---- memory formats ---------------------------------------------------------------------------------------------------


def _follows(x: Tensor, order: tuple[int, ...]) -> bool:
    """Whether the elements lie without gaps with the dims in this order, the outermost first."""
    array = x._array
    if type(array) is Phantom:
        moved = Phantom(array.element, tuple(array.shape[k] for k in order), tuple(array.steps[k] for k in order))
        return moved.contiguous
    return array.transpose(order).flags.c_contiguous  # type: ignore[no-any-return]


@attached
def is_contiguous(self: Tensor, memory_format: Any = contiguous_format) -> bool:
    """Whether elements lie without gaps, row-major or in the order of another memory format."""
    array = self._array
    if memory_format is contiguous_format:
        return array.contiguous if type(array) is Phantom else array.flags.c_contiguous  # type: ignore[no-any-return]
    if memory_format is preserve_format:
        raise RuntimeError(at_user_line("is_contiguous: preserve memory format is unsupported by the contiguous operator"))
    try:
        order = stored_order(memory_format, self.ndim)
    except RuntimeError:
        return False  # a rank that the format does not have
    assert order is not None
    return _follows(self, order)


@attached
def contiguous(self: Tensor, memory_format: Any = contiguous_format) -> Tensor:
    """This tensor, or a copy whose elements lie in the order of the memory format."""
    if memory_format is contiguous_format:
        return self if is_contiguous(self) else Op.table["clone"].run(self)
    if memory_format is preserve_format:
        raise RuntimeError(at_user_line("contiguous: preserve memory format is unsupported by the contiguous operator"))
    return formatted(self, memory_format)


def formatted(x: Tensor, memory_format: Any, copy: bool = False) -> Tensor:
    """x in a memory format: itself where it is, unless `copy`."""
    order = stored_order(memory_format, x.ndim)
    if order is None:
        return Op.table["clone"].run(x) if copy else x  # type: ignore[no-any-return]
    if not copy and _follows(x, order):
        return x
    if order == tuple(range(x.ndim)):
        return Op.table["clone"].run(x)  # type: ignore[no-any-return]
    moved = Op.table["clone"].run(permute.run(x, dims=order))
    return permute.run(moved, dims=inverse(order))  # type: ignore[no-any-return]


@attached
def clone(self: Tensor, *, memory_format: Any = preserve_format) -> Tensor:
    """A copy in memory of its own, row-major unless the memory format says otherwise."""
    return formatted(self, memory_format, copy=True)


# ---- tensors that change their memory ---------------------------------------------------------------------------------


@attached
def set_(self: Tensor, source: Any = None, storage_offset: int = 0, size: Any = None, stride: Any = None) -> Tensor:
    """Share the memory of a tensor or storage from now on; without one, have none.

    Raises RuntimeError for a storage that is too small, TypeError for other objects.
    """
    with no_grad():
        if source is None:
            self.data = wrap(np.empty(0, self.dtype.numpy), self.dtype)
        elif isinstance(source, Tensor):
            self.data = (
                source if size is None else as_strided(source, size, _row_major(size) if stride is None else stride, storage_offset)
            )
        elif is_storage(source):
            untyped = source if isinstance(source, UntypedStorage) else source.untyped()
            elements = untyped._bytes.view(self.dtype.numpy)
            same = untyped._root.dtype == self.dtype.numpy and untyped._root.flags.c_contiguous
            whole = place(untyped._root, self.dtype, untyped._shared, (), None) if same else None
            row = _beside(untyped._shared, elements, self.dtype) if whole is None else whole
            size = (elements.size - storage_offset,) if size is None else tuple(size)
            self.data = as_strided(row, size, _row_major(size) if stride is None else stride, storage_offset)
        else:
            raise TypeError(at_user_line(f"set_: expected a Tensor or a storage, got {type(source).__name__}"))
    return self


def _row_major(size: Any) -> tuple[int, ...]:
    from graphc.eager.views import contiguous_strides

    return contiguous_strides(tuple(size))  # type: ignore[return-value]


@attached
@guarded
def resize_(self: Tensor, *size: Any, memory_format: Any = contiguous_format) -> Tensor:
    """Another shape, row-major from where this tensor begins in its memory; new memory where that is too small.

    What is beyond the old elements is 0 or what the memory held.  Raises RuntimeError for a tensor that requires grad.
    """
    shape = sizes("resize_", size, "size")
    if self.requires_grad:
        raise RuntimeError(at_user_line("resize_: cannot resize variables that require grad"))
    if any(n < 0 for n in shape):  # type: ignore[operator]
        raise RuntimeError(at_user_line(f"resize_: negative size in {list(shape)}"))
    if stored_order(memory_format, len(shape)) not in (None, tuple(range(len(shape)))):
        raise NotImplementedError(at_user_line("resize_: only contiguous_format"))
    if shape == tuple(self._array.shape):
        return self
    row = memory_of(self._storage.array).view(self.dtype.numpy)
    first = self.storage_offset() if self._array.size else 0
    count = span(shape, _row_major(shape))
    if self._storage.cell is not None or modes.tracer is not None:
        raise TraceError(at_user_line("resize_: cannot be traced"))
    if first + count <= row.size:
        self.data = as_strided(_whole(self, row), shape, _row_major(shape), first)
        return self
    memory: Array = np.zeros(shape, self.dtype.numpy)  # type: ignore[type-var]  # an array's sizes are ints
    kept = row[first : first + memory.size]
    memory.reshape(-1)[: kept.size] = kept
    self.data = wrap(memory, self.dtype)
    return self


@attached
@guarded
def resize_as_(self: Tensor, the_template: Tensor, memory_format: Any = contiguous_format) -> Tensor:
    """`resize_` to the shape of another tensor."""
    return resize_(self, tuple(the_template.shape))


def _is_mapped(array: Array) -> bool:
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return isinstance(owner.obj if isinstance(owner, memoryview) else owner, mmap.mmap)


@attached
def is_shared(self: Tensor) -> bool:
    """Whether processes forked from now on share this tensor's memory."""
    return _is_mapped(self.numpy_view())


@attached
def share_memory_(self: Tensor) -> Tensor:
    """Move the elements to memory that processes forked from now on share.  This tensor."""
    array = self.numpy_view()
    if array.size and not _is_mapped(array):
        memory = np.frombuffer(mmap.mmap(-1, array.nbytes), np.uint8).view(array.dtype).reshape(array.shape)
        np.copyto(memory, array)
        with no_grad():
            self.data = wrap(memory, self.dtype)
    self._storage.lent = True
    return self


@attached
def is_pinned(self: Tensor, device: Any = None) -> bool:
    """False: pinned memory belongs to accelerators."""
    return False


@attached
def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """Raises RuntimeError: pinned memory belongs to accelerators, and there is none."""
    raise RuntimeError(at_user_line("pin_memory: cannot access accelerator device when none is available"))


@attached
@guarded
def resize(self: Tensor, *sizes: Any) -> Tensor:
    """`view` of the contiguous tensor, with PyTorch's warning that the name is deprecated."""
    warn("resize: non-inplace resize is deprecated; use reshape() or view()", UserWarning)
    return self.contiguous().view(*sizes)  # type: ignore[attr-defined, no-any-return]


@attached
def dequantize(self: Tensor) -> Tensor:
    """As float32: there are no quantized tensors."""
    return self.float()  # type: ignore[attr-defined, no-any-return]


# ---- facts ------------------------------------------------------------------------------------------------------------

_FACTS: dict[str, Any] = {
    "device": CPU, "layout": strided, "is_cpu": True, "is_cuda": False, "is_mps": False, "is_xpu": False, "is_meta": False,
    "is_sparse": False, "is_sparse_csr": False, "is_quantized": False, "is_mkldnn": False, "is_nested": False, "name": None,
}  # fmt: skip


def _fact(value: Any) -> property:
    return property(lambda self: value)


for _name, _value in _FACTS.items():
    setattr(Tensor, _name, _fact(_value))


_INTERNALS: dict[str, Any] = {
    "_backward_hooks": lambda self: None if not self._hooks else dict(self._hooks),
    "_cdata": id,  # what tells one tensor from another
}
for _name, _value in _INTERNALS.items():
    setattr(Tensor, _name, property(_value))


@attached
def get_device(self: Tensor) -> int:
    """-1: the CPU."""
    return -1


@attached
@guarded
def is_same_size(self: Tensor, other: Tensor) -> bool:
    """Whether another tensor has this tensor's shape."""
    return self._array.shape == other._array.shape  # type: ignore[no-any-return]


@attached
@guarded
def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Whether another tensor is the same memory with the same sizes and strides."""
    same = self._storage is tensor._storage and self.shape == tensor.shape and self.stride() == tensor.stride()
    return same and address_of(self) == address_of(tensor)


__all__ = [
    "TypedStorage", "UntypedStorage", "as_strided", "as_strided_copy", "as_strided_scatter", "formatted", "is_storage",
]  # fmt: skip
