"""``x[...]`` and ``x[...] = y``: basic slicing as views, index tensors through `index_select`.

Enters: Python index expressions.  Leaves: operator calls.  Never here: kernels of gathers (`ops.index`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dims import Dim
from graphc.dtypes import bool_, int64
from graphc.eager.dispatch import assign, located
from graphc.eager.methods import ERRORS, attached
from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor, wrap, wrap_array
from graphc.errors import TraceError, at_user_line
from graphc.ir.op import Op, broadcast_shapes, shape_text
from graphc.ops.arguments import cast, constant
from graphc.ops.movement import permute, reshape, slice_


@attached
def __getitem__(self: Tensor, index: Any) -> Tensor:
    """A view for ints, slices, None and ``...``; a copy where an index is a tensor or list.  Raises IndexError, TypeError."""
    try:
        basic, advanced = _parts(self, index)
        x = _sliced(self, basic)
        return _gathered(x, advanced) if advanced else x
    except ERRORS as error:
        located(error)
        raise


@attached
def __setitem__(self: Tensor, index: Any, value: Any) -> None:
    """Overwrite the elements that ``self[index]`` gives with `value`, broadcast and converted to this dtype."""
    try:
        if not isinstance(value, Tensor):
            value = constant(value, self.dtype) if isinstance(value, bool | int | float) else wrap_array(np.asarray(value))
        value = cast(value, self.dtype)
        basic, advanced = _parts(self, index)
        target = _sliced(self, basic)
        if advanced:
            value = _scattered(target, advanced, value)
        elif value.ndim > target.ndim:
            value = _without_leading_ones(value, target)
        if value._storage is not target._storage or value._chain != target._chain:  # else ``x[i] += y`` has written already
            assign(target, value, "__setitem__", fresh=False)
    except ERRORS as error:
        located(error)
        raise


@attached
def masked_select(self: Tensor, mask: Tensor) -> Tensor:
    """The elements where a bool mask is True, as one dim.  Cannot be traced: how many there are depends on the elements."""
    try:
        shape = broadcast_shapes("masked_select", (tuple(self._array.shape), tuple(mask._array.shape)))
        expand = Op.table["expand"]
        return expand(self, shape)[expand(mask, shape)]  # type: ignore[no-any-return]
    except ERRORS as error:
        located(error)
        raise


@attached
def nonzero(self: Tensor, *, as_tuple: bool = False) -> Any:
    """The positions of elements that are not zero: int64 [count, rank], or one [count] for each dim.  Cannot be traced."""
    found = np.nonzero(self.numpy_view()) if self.ndim else (np.zeros(int(bool(self)), np.int64),)
    if as_tuple:
        return tuple(wrap(np.ascontiguousarray(p), int64) for p in found)
    return wrap(np.stack(found, axis=1) if self.ndim else np.zeros((len(found[0]), 0), np.int64), int64)


def _without_leading_ones(value: Tensor, target: Tensor) -> Tensor:
    """Leading dims of size 1 beyond the target's rank do not count."""
    extra = value.ndim - target.ndim
    if any(size != 1 for size in value.shape[:extra]):
        raise RuntimeError(f"__setitem__: value of shape {shape_text(value.shape)} does not fit {shape_text(target.shape)}")
    return reshape.run(value, shape=tuple(value.shape[extra:]))  # type: ignore[no-any-return]


# ---- reading an index expression -------------------------------------------------------------------------------------


def _parts(x: Tensor, index: Any) -> tuple[list[Any], dict[int, Tensor]]:
    """(an int, slice or None for each dim, the index tensors by the dim of what slicing gives)."""
    given = list(index) if isinstance(index, tuple) else [index]
    given = [_as_index(i) for i in given]
    taken = sum((i.ndim if i.dtype is bool_ else 1) if isinstance(i, Tensor) else i is not None and i is not ... for i in given)
    dots = [k for k, i in enumerate(given) if i is ...]
    if len(dots) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if taken > x.ndim:
        raise IndexError(f"too many indices for tensor of dimension {x.ndim}: got {taken}")
    rest = [slice(None)] * (x.ndim - taken)
    if dots:
        given[dots[0] : dots[0] + 1] = rest
    else:
        given.extend(rest)
    basic: list[Any] = []
    advanced: dict[int, Tensor] = {}
    out = axis = 0
    for i in given:
        if isinstance(i, Tensor):
            for part in _integer_indices(i, x, axis):
                advanced[out] = part
                basic.append(slice(None))
                out, axis = out + 1, axis + 1
            continue
        basic.append(i)
        out += not isinstance(i, int | Dim)
        axis += i is not None
    return basic, advanced


def _as_index(i: Any) -> Any:
    """An int, slice, None, ``...`` or tensor.  Raises TypeError."""
    if isinstance(i, bool | np.bool_):
        raise NotImplementedError("indexing with a Python bool")
    if i is None or i is ... or isinstance(i, int | slice | Dim):
        return i
    if isinstance(i, np.integer):
        return int(i)
    if isinstance(i, Tensor):
        if i.dtype.kind == "f":
            raise IndexError(f"tensors used as indices must be integer or bool tensors, not {i.dtype}")
        return int(i.item()) if not i.ndim and i.dtype is not bool_ and modes.tracer is None else i
    if isinstance(i, list | tuple | np.ndarray | range):
        array = np.asarray(i)
        if array.size == 0:
            array = array.astype(np.int64)
        if array.dtype.kind not in "iub":
            raise IndexError(f"indices must be integers or bools, not {array.dtype}")
        return wrap_array(array)
    raise TypeError(f"indices must be ints, slices, None, '...' or tensors, not {type(i).__name__}")


def _integer_indices(i: Tensor, x: Tensor, axis: int) -> tuple[Tensor, ...]:
    """An index tensor as int64 index tensors, one per dim it covers; a bool mask becomes the positions of its True elements."""
    if i.dtype is not bool_:
        return (cast(i, int64),)
    if i.ndim == 0:
        raise NotImplementedError("indexing with a 0-dim bool tensor")
    if tuple(x.shape[axis : axis + i.ndim]) != tuple(i.shape):
        raise IndexError(
            f"the shape of the mask {shape_text(i.shape)} does not match the indexed tensor {shape_text(x.shape)} at dim {axis}"
        )
    return tuple(wrap(np.ascontiguousarray(p), int64) for p in np.nonzero(i.numpy_view()))


# ---- basic slicing ---------------------------------------------------------------------------------------------------


def _sliced(x: Tensor, basic: list[Any]) -> Tensor:
    """The view that ints, slices and None give."""
    starts, stops, steps, shape = [], [], [], []
    axis = 0
    for i in basic:
        if i is None:
            shape.append(1)
            continue
        size = x._array.shape[axis]
        start, stop, step = _bounds(i, size, axis, x)
        starts.append(start)
        stops.append(stop)
        steps.append(step)
        if isinstance(i, slice):
            shape.append((stop - start + step - 1) // step)
        axis += 1
    if (starts, stops, steps) != ([0] * x.ndim, list(x._array.shape), [1] * x.ndim):
        x = slice_.run(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))
    elif tuple(shape) == tuple(x._array.shape):
        return slice_.run(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))  # type: ignore[no-any-return]
    return x if tuple(shape) == tuple(x._array.shape) else reshape.run(x, shape=tuple(shape))


def _bounds(i: Any, size: Any, axis: int, x: Tensor) -> tuple[Any, Any, int]:
    """Canonical start, stop and step of one index."""
    if not isinstance(i, slice):
        if isinstance(size, int) and isinstance(i, int):
            if not -size <= i < size:
                raise IndexError(f"index {i} is out of bounds for dimension {axis} with size {size}")
            i = i % size
        elif isinstance(i, int) and i < 0:
            i = size + i
        return i, i + 1, 1
    step = 1 if i.step is None else _integer(i.step)
    if step < 1:
        raise ValueError(f"step must be greater than zero, got {step}")
    if isinstance(size, int):
        bounds = (None if b is None else _integer(b) for b in (i.start, i.stop))
        start, stop, _ = slice(*bounds).indices(size)
        return start, max(start, stop), step
    start = 0 if i.start is None else i.start
    stop = size if i.stop is None else i.stop
    return (
        (size + start if isinstance(start, int) and start < 0 else start),
        (size + stop if isinstance(stop, int) and stop < 0 else stop),
        step,
    )


def _integer(value: Any) -> int:
    if isinstance(value, int | np.integer | Tensor):
        return int(value)
    raise TypeError(f"slice indices must be integers or None, not {type(value).__name__}")


# ---- index tensors ---------------------------------------------------------------------------------------------------


def _flattened(x: Tensor, advanced: dict[int, Tensor]) -> tuple[Tensor, Tensor, tuple[Any, ...], list[int]]:
    """x with its indexed dims merged into dim 0, flat positions along it, their shape, and the order its dims were put in."""
    dims = sorted(advanced)
    order = [*dims, *(d for d in range(x.ndim) if d not in advanced)]
    moved = x if order == list(range(x.ndim)) else permute.run(x, dims=tuple(order))
    sizes = [x._array.shape[d] for d in dims]
    flat: Tensor | None = None
    for d, size in zip(dims, sizes, strict=True):
        position = _wrapped(advanced[d], size, d)
        flat = position if flat is None else Op.table["add"](Op.table["mul"](flat, size), position)
    assert flat is not None
    total: Any = 1
    for size in sizes:
        total = total * size
    merged = reshape.run(moved, shape=(total, *moved.shape[len(dims) :]))
    return merged, flat, tuple(flat._array.shape), order


def _wrapped(index: Tensor, size: Any, dim: int) -> Tensor:
    """Negative positions counted from the end.  Raises IndexError for one out of range (while tracing, the kernel's check does)."""
    if modes.tracer is None and isinstance(index._array, np.ndarray):
        array = index._array
        if array.size and (array.min() < -size or array.max() >= size):
            wrong = int(array[(array < -size) | (array >= size)].flat[0])
            raise IndexError(f"index {wrong} is out of bounds for dimension {dim} with size {size}")
        return index if not array.size or array.min() >= 0 else wrap(np.where(array < 0, array + size, array), int64)
    negative = Op.table["lt"](index, 0)
    return Op.table["where"](negative, Op.table["add"](index, size), index)  # type: ignore[no-any-return]


def _gathered(x: Tensor, advanced: dict[int, Tensor]) -> Tensor:
    """Elements at index tensors, their dims in place of the indexed dims (in front where those are apart, as NumPy has it)."""
    merged, flat, shape, _ = _flattened(x, advanced)
    taken = Op.table["index_select"](merged, 0, reshape.run(flat, shape=(-1,)) if flat.ndim != 1 else flat)
    result = reshape.run(taken, shape=(*shape, *merged.shape[1:]))
    first, dims = min(advanced), sorted(advanced)
    if first and dims == list(range(first, first + len(dims))):
        rank = len(shape)
        order = (*range(rank, rank + first), *range(rank), *range(rank + first, result.ndim))
        result = permute.run(result, dims=order)
    return result  # type: ignore[no-any-return]


def _scattered(x: Tensor, advanced: dict[int, Tensor], value: Tensor) -> Tensor:
    """x with the elements at index tensors replaced by value: the position of the last write to each row decides."""
    merged, flat, shape, order = _flattened(x, advanced)
    if not isinstance(flat._array, np.ndarray) or modes.tracer is not None:
        raise TraceError(at_user_line("assignment to index tensors cannot be traced; use where() or scatter_add()"))
    picked = _gathered(x, advanced)
    value = Op.table["expand"](_without_leading_ones(value, picked) if value.ndim > picked.ndim else value, tuple(picked.shape))
    first, dims = min(advanced), sorted(advanced)
    if first and dims == list(range(first, first + len(dims))):
        rank = len(shape)
        value = permute.run(value, dims=(*range(first, first + rank), *range(first), *range(first + rank, value.ndim)))
    rows = reshape.run(value, shape=(flat._array.size, *merged.shape[1:]))
    source = np.full(merged.shape[0], -1, np.int64)
    source[flat._array.reshape(-1)] = np.arange(flat._array.size)
    taken = Op.table["index_select"](rows, 0, wrap(np.maximum(source, 0), int64)) if flat._array.size else merged
    mask = wrap((source >= 0).reshape((-1,) + (1,) * (merged.ndim - 1)), bool_)
    written = reshape.run(Op.table["where"].run(mask, taken, merged), shape=tuple(x.shape[d] for d in order))
    return permute.run(written, dims=tuple(sorted(range(x.ndim), key=order.__getitem__)))  # type: ignore[no-any-return]
