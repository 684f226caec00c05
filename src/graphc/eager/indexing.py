"""``x[...]`` and ``x[...] = y``: basic slicing as views, index tensors through `index` and `index_put`.

Enters: Python index expressions.  Leaves: views, operator calls and, where nothing is recorded, NumPy's own reads and writes, which
only move elements.  Never here: kernels of gathers (`ops.indexed`).

An expression is read in two steps.  Ints, slices, None and ``...`` give a view; index tensors are then applied to dims of that
view.  A 0-dim integer tensor counts as an int, a bool as a mask over a new dim of size 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dims import Dim, product
from graphc.dtypes import bool_, int64, uint8
from graphc.eager.dispatch import NUMPY_LIMIT, assign
from graphc.eager.failures import ERRORS, located
from graphc.eager.methods import attached
from graphc.eager.modes import modes
from graphc.eager.tape import refresh
from graphc.eager.tensor import Tensor, place, wrap, wrap_array
from graphc.errors import at_user_line
from graphc.ir.op import Op, shape_text
from graphc.ops.arguments import cast, constant, of_type
from graphc.ops.indexed import broadcast_values, check_mask, index_put, indexed_shape, nonzero_columns, placed_at
from graphc.ops.indexed import index as index_
from graphc.ops.movement import expand, reshape, slice_

Advanced = dict[int, Tensor]  # index tensors by the first dim, of what slicing gives, that they index
NUMBERS = (bool, int, float, complex)
NESTED_INDEX_LIMIT = 32  # a list of fewer indices that holds lists, slices or tensors is read as a tuple


@attached
def __getitem__(self: Tensor, index: Any) -> Tensor:
    """A view for ints, slices, None and ``...``; a copy where an index is a tensor, list or bool.  Raises IndexError, TypeError."""
    if modes.tracer is None:
        quick = _quick_view(self, index)
        if quick is not None:
            return quick
    try:
        basic, advanced, picked = _parts(self, index)
        if advanced and _is_whole(basic):
            return _gathered(self, advanced, picked)
        x = _sliced(self, basic)
        return _gathered(x, advanced, picked) if advanced else x
    except ERRORS as error:
        located(error)
        raise


@attached
def __setitem__(self: Tensor, index: Any, value: Any) -> None:
    """Overwrite the elements that ``self[index]`` gives with `value`, broadcast and converted to this dtype.

    Of several writes to one element the last one stands, in row-major order of the index.  Raises IndexError, TypeError or
    RuntimeError.
    """
    try:
        if modes.tracer is None and _quick_write(self, index, value):
            return
        value = _value(self, value)
        if index is False:  # no element: any value fits
            return
        basic, advanced, picked = _parts(self, index)
        target = self if advanced and _is_whole(basic) else _sliced(self, basic)
        if advanced:
            if write_by_numpy(target, advanced, value):
                return
            value = _scattered(target, advanced, picked, value)
        elif value.ndim > target.ndim:
            value = broadcast_values("__setitem__", value, tuple(target._array.shape))
        if value._storage is not target._storage or value._chain != target._chain:  # else ``x[i] += y`` has written already
            assign(target, value, "__setitem__", fresh=False)
    except ERRORS as error:
        located(error)
        raise


def _value(x: Tensor, value: Any) -> Tensor:
    """What is assigned, as a tensor of x's dtype."""
    if isinstance(value, Tensor):
        return cast(value, x.dtype)  # type: ignore[no-any-return]
    if isinstance(value, NUMBERS):
        return constant(value, x.dtype)  # type: ignore[no-any-return]
    if isinstance(value, np.ndarray | np.generic | list | tuple):
        return cast(wrap_array(np.asarray(value)), x.dtype)  # type: ignore[no-any-return]
    raise TypeError(f"can't assign a {type(value).__name__} to a Tensor of {x.dtype}")


# ---- the quick way: nothing recorded, nothing traced -------------------------------------------------------------------


def recorded(x: Tensor) -> bool:
    """Whether operators on x are put on the tape now."""
    if not modes.grad:
        return False
    base = x._base
    if base is not None and base._epoch != x._epoch:
        refresh(x)
    return x._requires_grad


def _quick_view(x: Tensor, index: Any) -> Tensor | None:
    """The view that ints and slices give; None where the index is anything else, is wrong, or the view must be recorded."""
    given = index if type(index) is tuple else (index,)
    array = x._array
    canonical = _canonical(given, array.shape)
    if canonical is None or recorded(x):
        return None
    starts, stops, steps, shape, places = canonical
    chain = (*x._chain, (slice_, {"starts": starts, "stops": stops, "steps": steps}))
    if len(shape) != len(starts):
        chain = (*chain, (reshape, {"shape": shape}))
    base = x._base
    return place(array[places], x.dtype, x._storage, chain, x if base is None else base)


def _canonical(given: tuple[Any, ...], sizes: tuple[int, ...]) -> tuple[Any, ...] | None:
    """(starts, stops, steps, shape of the view, NumPy's index) of ints and slices; None for anything else and for errors."""
    if len(given) > len(sizes):
        return None
    starts, stops, steps, shape = [], [], [], []
    axis = 0
    for i in given:
        size = sizes[axis]
        if type(i) is int:
            if i < 0:
                i += size
            if not 0 <= i < size:
                return None
            starts.append(i)
            stops.append(i + 1)
            steps.append(1)
        elif type(i) is slice and _is_plain(i):
            start, stop, step = i.indices(size)
            if step < 1:
                return None
            stop = max(start, stop)
            starts.append(start)
            stops.append(stop)
            steps.append(step)
            shape.append((stop - start + step - 1) // step)
        else:
            return None
        axis += 1
    rest = sizes[axis:]
    count = len(rest)
    return (
        (*starts, *((0,) * count)), (*stops, *rest), (*steps, *((1,) * count)), (*shape, *rest), (*given, ...)
    )  # fmt: skip


def _is_plain(i: slice) -> bool:
    """Whether the bounds of a slice are ints or None."""
    return all(bound is None or type(bound) is int for bound in (i.start, i.stop, i.step))


def _quick_write(x: Tensor, index: Any, value: Any) -> bool:
    """Write at ints and slices with NumPy; False where that is not all there is to do, or would raise."""
    array = x._array
    given = index if type(index) is tuple else (index,)
    if x.dtype.compute is not x.dtype or recorded(x) or not array.flags.writeable:
        return False
    canonical = _canonical(given, array.shape)
    if canonical is None:
        return False
    if type(value) is Tensor:
        if value.dtype is not x.dtype or recorded(value):
            return False
        source = value._array
        shape = canonical[3]
        if source.shape != shape and source.ndim:
            return False
    elif (type(value) is float and x.dtype.kind == "f") or (type(value) is int and x.dtype.kind == "f" and abs(value) < 1 << 24):
        source = value
    else:
        return False
    array[canonical[4]] = source
    x._storage.version += 1
    return True


# ---- reading an index expression -------------------------------------------------------------------------------------


def _parts(x: Tensor, index: Any) -> tuple[list[Any], Advanced, Advanced]:
    """(an int, slice, None or bool for each dim, the index tensors by dim, the 0-dim integer tensors of a trace by dim).

    The dims are those of what the first of the three gives.
    """
    given = [_as_index(i) for i in (index if isinstance(index, tuple) else _opened(index))]
    taken = sum(_dims_of(i) for i in given)
    dots = [k for k, i in enumerate(given) if i is ...]
    if taken > x.ndim:
        if x.ndim == 0 and all(isinstance(i, int) for i in given):
            raise IndexError("invalid index of a 0-dim tensor. Use `tensor.item()` to convert a 0-dim tensor to a number")
        raise IndexError(f"too many indices for tensor of dimension {x.ndim}: got {taken}")
    rest = [slice(None)] * (x.ndim - taken)
    if dots:  # a second ellipsis stands for no dims
        given[dots[0] : dots[0] + 1] = rest
        given = [i for i in given if i is not ...]
    else:
        given.extend(rest)
    basic: list[Any] = []
    advanced: Advanced = {}
    picked: Advanced = {}
    out = axis = 0
    for i in given:
        if not isinstance(i, Tensor):
            basic.append(i)
            out += not isinstance(i, int | Dim)
            axis += i is not None
        elif i.ndim == 0 and i.dtype is bool_:
            basic.append(None)
            advanced[out] = i
            out += 1
        else:
            covered = i.ndim if i.dtype is bool_ else 1
            if i.dtype is bool_:
                check_mask("index", x, i, axis)
            (advanced if i.ndim else picked)[out] = i
            basic.extend([slice(None)] * covered)
            out, axis = out + covered, axis + covered
    return basic, advanced if not picked else {**advanced, **picked}, picked


def _dims_of(i: Any) -> int:
    """How many dims of the tensor an index takes."""
    if isinstance(i, Tensor):
        return i.ndim if i.dtype is bool_ else 1
    return i is not None and i is not ...


def _opened(index: Any) -> Sequence[Any]:
    """A list that holds lists, slices, tensors, None or ``...`` is read as a tuple."""
    if isinstance(index, list) and len(index) < NESTED_INDEX_LIMIT:
        if any(i is None or i is ... or isinstance(i, slice | list | tuple | range | Tensor | np.ndarray) for i in index):
            return index
    return (index,)


def _as_index(i: Any) -> Any:
    """An int, slice, None, ``...`` or tensor.  Raises IndexError or TypeError."""
    if isinstance(i, bool | np.bool_):
        return wrap(np.asarray(bool(i)), bool_)
    if isinstance(i, slice):
        for bound in (i.start, i.stop, i.step):
            if bound is not None and not hasattr(bound, "__index__") and not isinstance(bound, Dim):
                raise TypeError("slice indices must be integers or None or have an __index__ method")
        if i.step is not None and _integer(i.step) < 1:
            raise ValueError("step must be greater than zero")
        return i
    if i is None or i is ... or isinstance(i, int | Dim):
        return i
    if isinstance(i, np.integer):
        return int(i)
    if isinstance(i, list | tuple | np.ndarray | range):
        i = _from_sequence(i)
    if not isinstance(i, Tensor):
        if isinstance(i, str):
            raise TypeError("indices must be ints, slices, None, '...' or tensors, not str")
        raise IndexError(
            "only integers, slices (`:`), ellipsis (`...`), None and integer or bool tensors are valid indices "
            f"(got {type(i).__name__})"
        )
    if i.dtype is uint8:
        warnings.warn(at_user_line("indexing with a uint8 tensor reads it as a mask; use bool"), UserWarning, stacklevel=4)
        i = cast(i, bool_)
    if i.dtype.kind not in "iub":
        raise IndexError(f"tensors used as indices must be integer or bool tensors, not {i.dtype}")
    return int(i.item()) if not i.ndim and i.dtype is not bool_ and modes.tracer is None else i


def _from_sequence(given: Any) -> Tensor:
    """The tensor of a sequence of integers or bools."""
    if isinstance(given, list | tuple) and any(isinstance(i, Tensor) for i in given):
        return Op.table["stack"]([i if isinstance(i, Tensor) else wrap(np.asarray(i), int64) for i in given])  # type: ignore[no-any-return]
    array = np.asarray(given)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iub":
        raise IndexError(f"tensors used as indices must be integer or bool tensors, not {array.dtype}")
    return wrap_array(array)


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
        start, stop, step = _bounds(i, size, axis)
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


def _is_whole(basic: list[Any]) -> bool:
    """Whether the slices leave a tensor as it is."""
    return all(type(i) is slice and i.start is None and i.stop is None and i.step is None for i in basic)


def _bounds(i: Any, size: Any, axis: int) -> tuple[Any, Any, int]:
    """Canonical start, stop and step of one index."""
    if not isinstance(i, slice):
        if isinstance(size, int) and isinstance(i, int):
            if not -size <= i < size:
                raise IndexError(f"index {i} is out of bounds for dimension {axis} with size {size}")
            i = i + size if i < 0 else i
        elif isinstance(i, int) and i < 0:
            i = size + i
        return i, i + 1, 1
    step = 1 if i.step is None else _integer(i.step)
    if isinstance(size, int) and (type(size) is not int or isinstance(i.start, Dim) or isinstance(i.stop, Dim)):
        start = 0 if i.start is None else _clamped(i.start, size)
        stop = size if i.stop is None else _clamped(i.stop, size)
        return start, stop if stop >= start else start, step
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


def _clamped(bound: Any, size: Any) -> Any:
    """A bound of a slice within 0 .. size, as Python has it."""
    bound = bound if isinstance(bound, Dim) else _integer(bound)
    if bound < 0:
        bound = bound + size
    return 0 if bound < 0 else size if bound > size else bound


def _integer(value: Any) -> int:
    return int(value.__index__())


# ---- index tensors ---------------------------------------------------------------------------------------------------


def _numpy_index(x: Tensor, advanced: Advanced) -> tuple[Any, ...] | None:
    """The index tensors and full slices between them as NumPy takes them; None in a trace and for 0-dim masks."""
    if modes.tracer is not None:
        return None
    index: list[Any] = []
    position = 0
    for dim in sorted(advanced):
        i = advanced[dim]
        if i.ndim == 0:
            return None
        index.extend([slice(None)] * (dim - position))
        index.append(i._array)
        position = dim + _dims_of(i)
    return tuple(index)


def _gathered(x: Tensor, advanced: Advanced, picked: Advanced) -> Tensor:
    """Elements at index tensors, their dims in place of the indexed dims (in front where those are apart)."""
    numpy_index = None if modes.readers or recorded(x) else _numpy_index(x, advanced)
    if numpy_index is not None:
        masked = any(i.dtype is bool_ for i in advanced.values())
        if masked or not x._array.flags.c_contiguous or _gathered_size(x, advanced) <= NUMPY_LIMIT:
            try:
                taken = x._array[numpy_index]
            except IndexError as error:
                raise _out_of_bounds(error) from None
            return wrap(np.ascontiguousarray(taken).reshape(taken.shape), x.dtype)
    dims, indices = _as_integers(advanced)
    result = index_.run(x, *indices, dims=dims, at=_at(dims, picked))
    if len(picked) == len(advanced):  # a view, were the numbers known
        note = getattr(modes.tracer, "note_copy_of_view", None)
        if note is not None:
            note(result, x)
    return result  # type: ignore[no-any-return]


def _gathered_size(x: Tensor, advanced: Advanced) -> int:
    """About how many elements a gather gives: exactly, for one index tensor."""
    count: Any = product([n for d, n in enumerate(x._array.shape) if d not in advanced])
    return int(count) * max(i._array.size for i in advanced.values())


def _out_of_bounds(error: IndexError) -> IndexError:
    """NumPy's error in PyTorch's words."""
    return IndexError(str(error).replace("for axis", "for dimension").replace("indexing arrays", "indexing tensors"))


def _at(dims: tuple[int, ...], picked: Advanced) -> int:
    """Where the dims of index tensors come in the result; 0-dim integer tensors, which stand for ints, do not take part."""
    wide = [d for d in dims if d not in picked]
    if not wide:
        return 0
    rank_before = {d: d - sum(p < d for p in picked) for d in wide}
    return placed_at([rank_before[d] for d in wide])


def _as_integers(advanced: Advanced) -> tuple[tuple[int, ...], tuple[Tensor, ...]]:
    """The indexed dims, and an integer tensor for each; a mask becomes the positions of its True elements.

    How many there are depends on the elements of a mask, which code that is traced has to ask for.
    """
    dims: list[int] = []
    indices: list[Tensor] = []
    for dim in sorted(advanced):
        i = advanced[dim]
        if i.dtype is not bool_:
            dims.append(dim)
            indices.append(i)
            continue
        opened = nonzero_columns(i if i.ndim else reshape.run(i, shape=(1,)))
        dims.extend(range(dim, dim + len(opened)))
        indices.extend(opened)
    return tuple(dims), tuple(indices)


# ---- writing at index tensors ------------------------------------------------------------------------------------------


def write_by_numpy(x: Tensor, advanced: Advanced, value: Tensor) -> bool:
    """Write straight into x's memory with NumPy, which keeps the order of writes; False where something else is to be done."""
    if modes.tracer is not None or recorded(x) or recorded(value) or not x._array.flags.writeable:
        return False
    numpy_index = _numpy_index(x, advanced)
    if numpy_index is None:
        return False
    rank = x.ndim - sum(map(_dims_of, advanced.values())) + max(1 if i.dtype is bool_ else i.ndim for i in advanced.values())
    source = value._array
    while source.ndim > rank and source.shape[0] == 1:
        source = source[0]
    try:
        x._array[numpy_index] = source
    except IndexError as error:
        raise _out_of_bounds(error) from None
    except (TypeError, ValueError) as error:
        raise RuntimeError(f"__setitem__: {error}") from None
    x._storage.version += 1
    return True


def _scattered(x: Tensor, advanced: Advanced, picked: Advanced, value: Tensor) -> Tensor:
    """x with the elements at index tensors replaced by value."""
    masked = _masked(x, advanced, value)
    if masked is not None:
        return masked
    dims, indices = _as_integers(advanced)
    at = _at(dims, picked)
    shape = indexed_shape("__setitem__", of_type(x), [of_type(i) for i in indices], dims, at)
    value = broadcast_values("__setitem__", value, shape)
    return index_put.run(x, value, *indices, dims=dims, at=at, accumulate=False)  # type: ignore[no-any-return]


def _masked(x: Tensor, advanced: Advanced, value: Tensor) -> Tensor | None:
    """One mask, and a value that is the same for all its elements, is a choice by the mask; None for anything else."""
    if len(advanced) != 1:
        return None
    ((dim, mask),) = advanced.items()
    if mask.dtype is not bool_:
        return None
    covered = max(mask.ndim, 1)
    after = x.ndim - dim - covered
    before = value.ndim - after - 1  # dims of the value beyond that of the mask's elements
    if before >= 0 and value.shape[before] != 1:
        return None
    while before > dim and value.shape[0] == 1:
        value = reshape.run(value, shape=tuple(value.shape[1:]))
        before -= 1
    if before > dim:
        raise RuntimeError(f"__setitem__: value of shape {shape_text(value.shape)} does not fit {shape_text(x.shape)} and its mask")
    if before >= 0:
        value = reshape.run(value, shape=(*value.shape[:before], *((1,) * covered), *value.shape[before + 1 :]))
    try:
        value = expand.run(value, shape=tuple(x._array.shape))
    except RuntimeError:
        raise RuntimeError(f"__setitem__: value of shape {shape_text(value.shape)} does not fit {shape_text(x.shape)}") from None
    mask = reshape.run(mask, shape=(*mask.shape, *((1,) * (covered - mask.ndim + after))))
    return Op.table["where"].run(mask, value, x)  # type: ignore[no-any-return]
