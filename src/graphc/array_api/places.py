"""Moving, searching, sorting and counting elements by the array API standard.

Enters: arrays.  Leaves: arrays.  Never here: what an operator computes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import graphc
from graphc import Tensor
from graphc.array_api.reductions import sum as total
from graphc.array_api.types import promoted

Axes = int | tuple[int, ...] | None

# ---- shapes -----------------------------------------------------------------------------------------------------------


def broadcast_arrays(*arrays: Tensor) -> list[Tensor]:
    """The arrays in one shape."""
    return list(graphc.broadcast_tensors(*arrays)) if arrays else []


def broadcast_to(x: Tensor, /, shape: Any) -> Tensor:
    """x in a shape that it broadcasts to."""
    return graphc.broadcast_to(x, tuple(shape))  # type: ignore[no-any-return]


def concat(arrays: Any, /, *, axis: int | None = 0) -> Tensor:
    """Arrays in a row along an axis; flattened ones without axis."""
    parts = promoted("concat", *arrays)
    return graphc.cat([p.flatten() for p in parts], 0) if axis is None else graphc.cat(list(parts), axis)  # type: ignore[attr-defined,no-any-return]


def stack(arrays: Any, /, *, axis: int = 0) -> Tensor:
    """Arrays along a new axis."""
    return graphc.stack(list(promoted("stack", *arrays)), axis)  # type: ignore[no-any-return]


def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts along an axis, which is removed."""
    return tuple(graphc.unbind(x, axis))


def expand_dims(x: Tensor, /, axis: int = 0) -> Tensor:
    """An axis of size 1 put in.  Raises IndexError for a place that is not there."""
    return graphc.unsqueeze(x, axis)  # type: ignore[no-any-return]


def squeeze(x: Tensor, /, axis: int | tuple[int, ...]) -> Tensor:
    """Axes of size 1 removed.  Raises ValueError for an axis of another size."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    for k in axes:
        if x.shape[k] != 1:
            raise ValueError(f"squeeze: axis {k} of {list(x.shape)} is not of size 1")
    return graphc.squeeze(x, axes) if axes else x  # type: ignore[no-any-return]


def flip(x: Tensor, /, *, axis: Axes = None) -> Tensor:
    """Elements in reverse order along axes, all if none are given."""
    axes = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return graphc.flip(x, axes)  # type: ignore[no-any-return]


def moveaxis(x: Tensor, source: Axes, destination: Axes, /) -> Tensor:
    """Axes moved to other places."""
    return graphc.moveaxis(x, source, destination)  # type: ignore[no-any-return]


def permute_dims(x: Tensor, /, axes: tuple[int, ...]) -> Tensor:
    """Axes in another order."""
    return graphc.permute(x, tuple(axes))  # type: ignore[no-any-return]


def reshape(x: Tensor, /, shape: tuple[int, ...], *, copy: bool | None = None) -> Tensor:
    """Another shape; a copy always, never or where it must be.  Raises ValueError where ``copy=False`` cannot be."""
    if copy is False:
        try:
            return x.view(tuple(shape))  # type: ignore[attr-defined,no-any-return]
        except RuntimeError as error:
            raise ValueError(f"reshape: {error}") from None
    return graphc.reshape(x.clone() if copy else x, tuple(shape))  # type: ignore[attr-defined,no-any-return]


def roll(x: Tensor, /, shift: int | tuple[int, ...], *, axis: Axes = None) -> Tensor:
    """Elements moved along axes, those that leave one end entering the other; flattened without axis."""
    return graphc.roll(x, shift, axis)  # type: ignore[no-any-return]


def tile(x: Tensor, repetitions: tuple[int, ...], /) -> Tensor:
    """x several times along each axis."""
    return graphc.tile(x, tuple(repetitions))  # type: ignore[no-any-return]


def repeat(x: Tensor, repeats: int | Tensor, /, *, axis: int | None = None) -> Tensor:
    """Each element several times along an axis; flattened without axis."""
    return graphc.repeat_interleave(x, repeats, dim=axis)  # type: ignore[no-any-return]


# ---- searching and sorting --------------------------------------------------------------------------------------------


def argmax(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The first place of the largest element."""
    return graphc.argmax(x, axis, keepdims)  # type: ignore[no-any-return]


def argmin(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The first place of the smallest element."""
    return graphc.argmin(x, axis, keepdims)  # type: ignore[no-any-return]


def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The elements in order along an axis."""
    return graphc.sort(x, dim=axis, descending=descending, stable=stable)[0]  # type: ignore[no-any-return]


def argsort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The places of the elements in order along an axis."""
    return graphc.sort(x, dim=axis, descending=descending, stable=stable)[1]  # type: ignore[no-any-return]


def searchsorted(x1: Tensor, x2: Tensor, /, *, side: str = "left", sorter: Tensor | None = None) -> Tensor:
    """Where elements of x2 go in the sorted vector x1."""
    x1, x2 = promoted("searchsorted", x1, x2)
    return graphc.searchsorted(x1, x2, side=side, sorter=sorter)  # type: ignore[no-any-return]


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """The places of elements that are not zero, one vector for each axis.  Raises ValueError for a 0-d array."""
    if not x.ndim:
        raise ValueError("nonzero: not defined for a 0-d array")
    return tuple(graphc.nonzero(x, as_tuple=True))


def count_nonzero(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """How many elements are not zero."""
    return total(x != 0, axis=axis, keepdims=keepdims, dtype=graphc.int64)  # type: ignore[arg-type]


def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """The parts of x along an axis that a vector names.  Raises ValueError without axis for several dims."""
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"take: axis is needed for an array of {x.ndim} dims")
        axis = 0
    indices = graphc.where(indices < 0, indices + x.shape[axis], indices)  # type: ignore[operator]
    return graphc.index_select(x, axis, indices)  # type: ignore[no-any-return]


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """Elements of x along an axis that an array of places names."""
    return graphc.take_along_dim(x, indices.to(graphc.int64), axis)  # type: ignore[attr-defined,no-any-return]


# ---- sets -------------------------------------------------------------------------------------------------------------


class UniqueAll(NamedTuple):
    """values, and where each first is; where in values each element is; how often each value is there."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """values, and how often each is there."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """values, and where in them each element is."""

    values: Tensor
    inverse_indices: Tensor


def unique_all(x: Tensor, /) -> UniqueAll:
    """The distinct elements in order, with all that is known of them."""
    values, inverse, counts = graphc.unique(x, return_inverse=True, return_counts=True)
    order = graphc.argsort(inverse.flatten(), stable=True)
    first = graphc.cumsum(counts, 0) - counts
    return UniqueAll(values, graphc.index_select(order, 0, first), inverse, counts)


def unique_counts(x: Tensor, /) -> UniqueCounts:
    """The distinct elements in order, and how often each is there."""
    return UniqueCounts(*graphc.unique(x, return_counts=True))


def unique_inverse(x: Tensor, /) -> UniqueInverse:
    """The distinct elements in order, and where in them each element is."""
    return UniqueInverse(*graphc.unique(x, return_inverse=True))


def unique_values(x: Tensor, /) -> Tensor:
    """The distinct elements in order."""
    return graphc.unique(x)  # type: ignore[no-any-return]


__all__ = [
    "argmax", "argmin", "argsort", "broadcast_arrays", "broadcast_to", "concat", "count_nonzero", "expand_dims",
    "flip", "moveaxis", "nonzero", "permute_dims", "repeat", "reshape", "roll", "searchsorted", "sort", "squeeze", "stack",
    "take", "take_along_axis", "tile", "unique_all", "unique_counts", "unique_inverse", "unique_values", "unstack",
]  # fmt: skip
