"""``index_put_``, ``index_copy_`` and ``index_fill_`` straight into memory: no copy of a large tensor for a few elements.

Enters: tensors.  Leaves: the same tensors, overwritten with NumPy, which only moves elements and keeps their order.  Never here:
writes that are traced or recorded, and sums: those go the way of every in-place operator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.eager.failures import ERRORS, located
from graphc.eager.indexing import Advanced, recorded, write_by_numpy
from graphc.eager.methods import inplace_method
from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor
from graphc.ir.op import Op
from graphc.ops.arguments import cast, constant, is_tensor, number
from graphc.ops.index import vector

Parts = tuple[Advanced, Tensor] | None  # index tensors by dim and what is written there; None where it goes the usual way


def _put(x: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Parts:
    if accumulate:
        return None
    (_, values, *given), attrs = Op.table["index_put"].prepare(x, indices, values)
    return dict(zip(attrs["dims"], given, strict=True)), values


def _copy(x: Tensor, dim: int, index: Any, source: Any) -> Parts:
    (_, index, source), attrs = Op.table["index_copy"].prepare(x, dim, index, source)
    return ({attrs["dim"]: index}, source) if x.ndim else None


def _fill(x: Tensor, dim: int, index: Any, value: Any) -> Parts:
    if not x.ndim or is_tensor(value) and value.ndim:
        return None
    value = cast(value, x.dtype) if is_tensor(value) else constant(number("index_fill", "value", value), x.dtype)
    return {dim % x.ndim: vector("index_fill", index)}, value


def _direct(name: str, parts: Callable[..., Parts]) -> None:
    """Attach ``name_``."""
    usual = inplace_method(Op.table[name], f"{name}_")

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if modes.tracer is not None or kwargs or recorded(self):
            return usual(self, *args, **kwargs)  # type: ignore[no-any-return]
        try:
            found = parts(self, *args)
            if found is not None and write_by_numpy(self, *found):
                return self
        except ERRORS as error:
            located(error, name, (self, *args))
            raise
        return usual(self, *args)  # type: ignore[no-any-return]

    method.__name__ = method.__qualname__ = f"{name}_"
    method.__doc__ = usual.__doc__
    setattr(Tensor, f"{name}_", method)


_WRITES: dict[str, Callable[..., Parts]] = {"index_put": _put, "index_copy": _copy, "index_fill": _fill}
for _name, _parts in _WRITES.items():
    _direct(_name, _parts)
