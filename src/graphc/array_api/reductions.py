"""Reductions and running totals by the array API standard.

Enters: arrays.  Leaves: arrays.  Never here: what an operator computes.
"""

from __future__ import annotations

import graphc
from graphc import Tensor
from graphc.array_api.types import promoted
from graphc.dtypes import DType

Axis = int | tuple[int, ...] | None


def _axes(x: Tensor, axis: Axis) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim))
    return axis if isinstance(axis, tuple) else (axis,)


def total_dtype(x: Tensor, dtype: DType | None) -> DType:
    """The dtype of sums and products: of integers at least 64 bits wide, of the same sign."""
    if dtype is not None:
        return dtype
    return {"b": graphc.int64, "i": graphc.int64, "u": graphc.uint64}.get(x.dtype.kind, x.dtype)


def sum(x: Tensor, /, *, axis: Axis = None, dtype: DType | None = None, keepdims: bool = False) -> Tensor:
    """`graphc.sum` in `total_dtype`."""
    wanted = total_dtype(x, dtype)
    axes = _axes(x, axis)
    return graphc.sum(x.to(wanted), axes, keepdims, dtype=wanted) if axes else x.to(wanted, copy=True)  # type: ignore[attr-defined,no-any-return]


def prod(x: Tensor, /, *, axis: Axis = None, dtype: DType | None = None, keepdims: bool = False) -> Tensor:
    """`graphc.prod` in `total_dtype`, over several axes too."""
    wanted = total_dtype(x, dtype)
    x = x.to(wanted, copy=True)  # type: ignore[attr-defined]
    for k in sorted((a % x.ndim for a in _axes(x, axis)), reverse=True):
        x = graphc.prod(x, k, keepdims, dtype=wanted)
    return x


def max(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """`graphc.amax`."""
    axes = _axes(x, axis)
    return graphc.amax(x, axes, keepdims) if axes else x.clone()  # type: ignore[attr-defined,no-any-return]


def min(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """`graphc.amin`."""
    axes = _axes(x, axis)
    return graphc.amin(x, axes, keepdims) if axes else x.clone()  # type: ignore[attr-defined,no-any-return]


def mean(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """`graphc.mean`."""
    axes = _axes(x, axis)
    return graphc.mean(x, axes, keepdims) if axes else x.clone()  # type: ignore[attr-defined,no-any-return]


def var(x: Tensor, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The mean squared distance from the mean, over N - correction elements."""
    axes = _axes(x, axis)
    if not axes:
        return x - x  # type: ignore[operator,no-any-return]  # NaN where x is
    return graphc.var(x, axes, correction=correction, keepdim=keepdims)  # type: ignore[no-any-return]


def std(x: Tensor, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The square root of `var`."""
    return graphc.sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))  # type: ignore[no-any-return]


def all(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether all elements are not zero."""
    x = x.to(graphc.bool)  # type: ignore[attr-defined]
    for k in sorted((a % x.ndim for a in _axes(x, axis)), reverse=True):
        x = graphc.all(x, k, keepdims)
    return x


def any(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether any element is not zero."""
    x = x.to(graphc.bool)  # type: ignore[attr-defined]
    for k in sorted((a % x.ndim for a in _axes(x, axis)), reverse=True):
        x = graphc.any(x, k, keepdims)
    return x


def _running(name: str, start: int, x: Tensor, axis: int | None, dtype: DType | None, include_initial: bool) -> Tensor:
    if axis is None:
        if x.ndim > 1:
            raise ValueError(f"cumulative_{name[3:]}: axis is needed for an array of {x.ndim} dims")
        axis = 0
    wanted = total_dtype(x, dtype)
    x = x.to(wanted)  # type: ignore[attr-defined]
    result = getattr(graphc, name)(x, axis, dtype=wanted)
    if include_initial:
        shape = list(x.shape)
        shape[axis] = 1
        result = graphc.cat([graphc.full(shape, start, dtype=wanted), result], axis)
    return result  # type: ignore[no-any-return]


def cumulative_sum(x: Tensor, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False) -> Tensor:
    """Running sums, with the 0 that they begin from if asked for.  Raises ValueError without axis for several dims."""
    return _running("cumsum", 0, x, axis, dtype, include_initial)


def cumulative_prod(x: Tensor, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False) -> Tensor:
    """Running products, with the 1 that they begin from if asked for.  Raises ValueError without axis for several dims."""
    return _running("cumprod", 1, x, axis, dtype, include_initial)


def diff(x: Tensor, /, *, axis: int = -1, n: int = 1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:
    """Differences of neighbours, n times."""
    parts = [part for part in (prepend, x, append) if part is not None]
    x = graphc.cat(promoted("diff", *parts), axis) if len(parts) > 1 else x
    for _ in range(n):
        size = x.shape[axis]
        if size == 0:
            break
        x = graphc.narrow(x, axis, 1, size - 1) - graphc.narrow(x, axis, 0, size - 1)
    return x
