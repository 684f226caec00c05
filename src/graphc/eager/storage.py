"""Memory that tensors share, and what stands for it while there is none.

Enters: arrays, or the types of traced values.  Leaves: `Storage`, `Phantom`.  Never here: tensors, execution.
"""

from __future__ import annotations

from ctypes import addressof, c_char
from pickle import PickleBuffer
from typing import Any, NoReturn

import numpy as np

from graphc.dims import Size
from graphc.dtypes import DType, from_numpy
from graphc.eager.views import is_contiguous
from graphc.errors import TraceError, at_user_line
from graphc.ir.op import Shape
from graphc.leases import Debt, lend


class Storage:
    """What views of one another share: `array` (the root they are views of), `version` (how often it was written to) and, while
    traced, `cell` (its current value in the graph).  `aliased`: traced code made a tensor of it that is no view (`detach`).
    `lent`: whether somebody outside may hold the memory, and write to it without raising the version.

    Whoever writes to the memory raises the version, and does so afterwards: compiled code keeps what it made of a tensor for as
    long as the version is the same object.
    """

    __slots__ = ("__weakref__", "aliased", "array", "cell", "lent", "version")

    lent: Debt

    def __init__(self, array: Any, cell: Any = None, lent: Debt = None) -> None:
        self.array, self.cell, self.version, self.aliased, self.lent = array, cell, 0, False, lent

    def __reduce_ex__(self, protocol: Any) -> Any:
        row = np.ascontiguousarray(memory_of(self.array))
        data = PickleBuffer(lend(self, row).view(np.uint8).data) if protocol >= 5 else row.tobytes()
        shape = self.array.shape if self.array.flags.c_contiguous else row.shape
        return _unpickled, (data, from_numpy(row.dtype), shape)


def _unpickled(data: Any, dtype: DType, shape: tuple[int, ...]) -> Storage:
    """A storage of bytes: on their own memory where it is writable (pickle's out-of-band buffers), else on a copy."""
    row = np.frombuffer(data, np.uint8)
    shared = row.flags.writeable
    return Storage((row if shared else row.copy()).view(dtype.numpy).reshape(shape), lent=True if shared else None)


def memory_of(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The memory from an array's first element to its last as a row of elements.  Raises RuntimeError for negative strides."""
    if array.flags.c_contiguous:
        return array.reshape(-1)
    step = array.itemsize
    if any(s % step or s < 0 for s in array.strides):
        raise RuntimeError(at_user_line("an array with unaligned or negative strides is no storage; make a copy"))
    count = 1 + sum((n - 1) * s // step for n, s in zip(array.shape, array.strides, strict=True)) if array.size else 0
    return np.lib.stride_tricks.as_strided(array, (count,), (step,))


def array_address(array: np.ndarray[Any, Any]) -> int:
    """The address of an array's first element."""
    try:
        return addressof(c_char.from_buffer(array))  # type: ignore[arg-type]  # a quarter of the other's time
    except (TypeError, ValueError):  # not writable, with gaps, empty, or of a dtype without a buffer
        return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


class Phantom:
    """The array of a traced tensor: a type and strides (in elements), but no memory.  Reading it raises `TraceError`."""

    __slots__ = ("element", "shape", "steps")

    def __init__(self, element: DType, shape: Shape, steps: tuple[Size, ...]) -> None:
        self.element, self.shape, self.steps = element, shape, steps

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Size:
        """How many elements."""
        count: Size = 1
        for size in self.shape:
            count = count * size
        return count

    @property
    def strides(self) -> tuple[Size, ...]:
        """In bytes, as NumPy's."""
        return tuple(s * self.element.itemsize for s in self.steps)

    @property
    def contiguous(self) -> bool:
        return is_contiguous(self.shape, self.steps)

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        self.refuse("its elements")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self.refuse(name)

    def refuse(self, what: str) -> NoReturn:
        """Raise the error of data-dependent Python in a trace."""
        raise TraceError(at_user_line(f"{what}: the elements of a tensor are not known while its operators are being traced"))
