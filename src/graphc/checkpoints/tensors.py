"""Tensors on stored memory, as files describe them: a storage, an offset, sizes and strides.

Enters: bytes of storages, geometry.  Leaves: tensors that share memory where their descriptions do.  Never here: layouts of files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dtypes import DType
from graphc.eager.devices import check_device
from graphc.eager.memory import TypedStorage, UntypedStorage
from graphc.eager.pickling import rebuilt
from graphc.eager.storage import Storage
from graphc.eager.tensor import Tensor
from graphc.eager.views import contiguous_strides, is_contiguous
from graphc.errors import CheckpointError, at_user_line
from graphc.ops.strided import check_strided
from graphc.runtime.memory import aligned_empty

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
MapLocation = Callable[[Any, str], Any] | Any
MAX_RANK = 64
_REPEATED_LIMIT = 2**31  # elements of a view whose elements share places


class CallersError(Exception):
    """Carries an error of the caller's own function through the reading of a damaged file: it is not the file's."""


def place_of(map_location: MapLocation) -> Callable[[Bytes, str], Bytes]:
    """What `map_location` makes of a storage's bytes and the location that its file names: PyTorch's forms of the argument.

    Raises as ``Tensor.to`` for a device that no tensor can be on.
    """
    if map_location is None or not callable(map_location):
        for where in map_location.values() if isinstance(map_location, dict) else (map_location,):
            check_device(where)
        return lambda row, location: row

    def place(row: Bytes, location: str) -> Bytes:
        given = UntypedStorage(Storage(row))
        try:
            made = map_location(given, location)
            if made is not None and not isinstance(made, UntypedStorage | TypedStorage):
                raise TypeError(at_user_line(f"load: map_location must give a storage or None, got a {type(made).__name__}"))
        except Exception as error:
            raise CallersError from error
        if made is None or made is given:
            return row
        return made.untyped()._bytes if isinstance(made, TypedStorage) else made._bytes

    return place


def owned(data: memoryview) -> Bytes:
    """A copy in memory of its own."""
    row, _ = aligned_empty((len(data),), np.dtype(np.uint8))
    row[:] = np.frombuffer(data, np.uint8)
    return row


class Stored:
    """One storage of a file.  Its `dtype` is that of the tensors that name it; the memory is made when the first of them is."""

    __slots__ = ("_fetch", "_storage", "dtype", "nbytes")

    def __init__(self, dtype: DType, nbytes: int, fetch: Callable[[], Bytes] | None) -> None:
        self.dtype, self.nbytes, self._fetch = dtype, nbytes, fetch
        self._storage: Storage | None = None

    def storage(self, dtype: DType, size: tuple[int, ...], whole: bool) -> Storage:
        """The memory; the first tensor to ask gives it its dtype and, where that is all of it, its shape."""
        if self._storage is None:
            if self._fetch is None:
                raise CheckpointError("a tensor names a storage whose bytes come later in the file")
            row = self._fetch()
            if dtype.kind == "b":
                row = (row != 0).view(np.uint8)  # other bytes than 0 and 1 are no bools
            if row.ctypes.data % dtype.itemsize and row.size:
                row = owned(row.data)
            root = row[: row.size // dtype.itemsize * dtype.itemsize].view(dtype.numpy)
            self._storage = Storage(root.reshape(size) if whole else root)
        return self._storage


def tensor(stored: Any, dtype: DType, offset: Any, size: Any, stride: Any, requires_grad: Any) -> Tensor:
    """The tensor of elements ``offset + i*stride[0] + ...`` of a storage.

    Raises CheckpointError for what is no geometry, and for places outside of the storage.
    """
    if not isinstance(stored, Stored) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise CheckpointError("a tensor of it has no storage, sizes or strides")
    numbers = (offset, *size, *stride)
    if len(size) > MAX_RANK or any(type(n) is not int or n.bit_length() > 63 for n in numbers):
        raise CheckpointError(f"a tensor of it has more than {MAX_RANK} dims, or sizes that are no integers of 64 bits")
    count = stored.nbytes // dtype.itemsize
    try:
        check_strided("a tensor of it", size, stride, offset, count)
    except RuntimeError as error:
        raise CheckpointError(str(error)) from None
    elements = 1
    for n in size:
        elements *= n
    if elements > max(count, _REPEATED_LIMIT) or (0 in size and max(size) > _REPEATED_LIMIT):
        raise CheckpointError(f"a tensor of it claims sizes {list(size)} on a storage of {count} elements")
    regular = is_contiguous(size, stride)
    storage = stored.storage(dtype, size, whole=regular and not offset and elements == count)
    if regular:
        stride = contiguous_strides(size)  # strides of sizes 0 and 1 are anything in a file
    made = rebuilt(Tensor, storage, dtype, offset if elements else 0, tuple(size), stride, False)
    if requires_grad:
        if dtype.kind not in "fc":
            raise CheckpointError(f"a tensor of {dtype} in it requires gradients")
        made.requires_grad_()
    return made
