"""Tensors from outside that traced code reads or changes: where their memory is, and what they were.

Enters: tensors.  Leaves: `Capture`s, which find their memory at every call, and `Snapshot`s, which put them back.
Never here: the graph that is made of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dtypes import from_numpy
from graphc.eager.storage import Storage
from graphc.eager.tensor import Tensor, wrap

Target = int | Tensor  # an argument's position, or a tensor from outside


class Capture:
    """Outside memory that a graph reads: that of a tensor, or of its `.grad`.  Found anew at every call."""

    __slots__ = ("of_grad", "tensor")

    def __init__(self, tensor: Tensor, of_grad: bool = False) -> None:
        self.tensor, self.of_grad = tensor, of_grad

    @property
    def _storage(self) -> Storage:
        tensor = self.tensor._grad if self.of_grad else self.tensor
        return tensor._storage  # type: ignore[union-attr]

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """The root array as it is now."""
        return self._storage.array  # type: ignore[no-any-return]

    @property
    def version(self) -> int:
        return self._storage.version

    @version.setter
    def version(self, value: int) -> None:
        self._storage.version = value

    def root(self) -> Tensor:
        """A tensor of the whole memory: the captured tensor itself where it is that."""
        if not self.of_grad and not self.tensor._chain:
            return self.tensor
        return wrap(self.array, from_numpy(self.array.dtype))


class Snapshot:
    """What an outside tensor was before the trace."""

    __slots__ = ("grad_set", "parts", "target", "tensor")
    FIELDS = ("_array", "_chain", "_epoch", "_grad", "_grad_fn", "_index", "_requires_grad", "_retained")

    def __init__(self, tensor: Tensor, target: Target) -> None:
        self.tensor, self.target, self.grad_set = tensor, target, False
        self.parts = {name: getattr(tensor, name) for name in self.FIELDS}

    def restore(self) -> None:
        for name, value in self.parts.items():
            setattr(self.tensor, name, value)
