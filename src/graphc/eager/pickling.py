"""Tensors through `pickle` and `copy`: what shares memory still does on the other side.

Enters: tensors.  Leaves: what pickle writes, copies.  Never here: files (`graphc.save` writes no pickles).
"""

from __future__ import annotations

import copy
from typing import Any, cast

from graphc.dtypes import DType
from graphc.eager.methods import attached
from graphc.eager.storage import Storage, memory_of
from graphc.eager.tensor import Tensor, place
from graphc.eager.views import Chain, is_contiguous
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.ops.strided import as_strided


def _check_leaf(x: Tensor, what: str) -> None:
    if not x.is_leaf:
        raise RuntimeError(at_user_line(f"only Tensors created explicitly by the user (graph leaves) can be {what}; use detach()"))


@attached
def __reduce_ex__(self: Tensor, protocol: Any) -> Any:
    """Storages are pickled as objects of their own, so tensors that share one share it again.  Raises RuntimeError for no leaf."""
    _check_leaf(self, "pickled")
    self.numpy_view()
    offset = self.storage_offset() if self._array.size else 0
    parts = (type(self), self._storage, self.dtype, offset, tuple(self._array.shape), self.stride(), self._requires_grad)
    return rebuilt, parts, getattr(self, "__dict__", None) or None


def rebuilt(kind: type[Tensor], storage: Storage, dtype: DType, offset: int, size: Any, stride: Any, requires_grad: bool) -> Tensor:
    """A leaf on a storage."""
    root, chain = storage.array, cast(Chain, ())
    if root.dtype != dtype.numpy:  # a view of the bytes
        root, chain = root.reshape(-1).view(dtype.numpy), ((Op.table["view_dtype"], {"dtype": dtype}),)
    if offset or root.shape != size or chain or not is_contiguous(size, stride):
        link = {"size": size, "stride": stride, "offset": offset}
        root, chain = as_strided.reference(None, root, **link), (*chain, (as_strided, link))
    x = place(root, dtype, storage, chain, None, kind)
    x._requires_grad = requires_grad
    return x


# Pickles name this function where loading it brings the operators too: a tensor may be the first of graphc that a process sees.
rebuilt.__module__, rebuilt.__qualname__ = "graphc.namespace", "_rebuilt"


@attached
def __deepcopy__(self: Tensor, memo: dict[int, Any]) -> Tensor:
    """A copy with its gradient and attributes; tensors copied together that share memory share the copy of it.

    Raises RuntimeError for a tensor that is not a leaf.
    """
    _check_leaf(self, "deep-copied")
    self.numpy_view()
    storage = memo.get(id(self._storage))
    if storage is None:
        array = self._storage.array
        storage = memo[id(self._storage)] = Storage((array if array.flags.c_contiguous else memory_of(array)).copy())
    offset = self.storage_offset() if self._array.size else 0
    x = rebuilt(type(self), storage, self.dtype, offset, tuple(self._array.shape), self.stride(), self._requires_grad)
    memo[id(self)] = x
    x._grad = copy.deepcopy(self._grad, memo)
    attributes = getattr(self, "__dict__", None)
    if attributes:
        x.__dict__.update(copy.deepcopy(attributes, memo))
    return x
