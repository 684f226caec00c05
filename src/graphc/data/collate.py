"""Samples as batches.

Enters: lists of samples.  Leaves: tensors in the structure that the samples have.  Never here: reading samples, processes.

`memory` says where batches are written: in a worker it is what the parent process can read without a copy.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType, bfloat16, float64, from_numpy, int64
from graphc.eager.creation import as_tensor, tensor
from graphc.eager.modes import modes
from graphc.eager.storage import Phantom
from graphc.eager.tensor import Tensor, wrap
from graphc.errors import at_user_line
from graphc.ir.op import Op

Collate = Callable[..., Any]
memory: list[Callable[[tuple[int, ...], Any], np.ndarray[Any, Any]]] = [np.empty]

# both names are PyTorch's: collating functions import them
default_collate_err_msg_format = "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {}"
np_str_obj_array_pattern = re.compile(r"[SaUO]")


def collate(batch: Any, *, collate_fn_map: dict[Any, Collate] | None = None) -> Any:
    """One batch of many samples of one structure, by a function for each type of leaf.

    collate_fn_map: type, or tuple of types -> function ``(samples, *, collate_fn_map)``; a subclass finds its parent's.
    Raises TypeError for leaves of another type, RuntimeError for sequences of different lengths.
    """
    first = batch[0]
    kind = type(first)
    if collate_fn_map is not None:
        function = collate_fn_map.get(kind)
        if function is None:
            function = next((f for types, f in collate_fn_map.items() if isinstance(first, types)), None)
        if function is not None:
            return function(batch, collate_fn_map=collate_fn_map)
    if isinstance(first, Mapping):
        parts = {key: collate([sample[key] for sample in batch], collate_fn_map=collate_fn_map) for key in first}
        return _mapping_like(first, parts)
    if isinstance(first, Sequence):
        if len({len(sample) for sample in batch}) > 1:
            lengths = [len(sample) for sample in batch]
            raise RuntimeError(at_user_line(f"each element in list of batch should be of equal size, got sizes {lengths}"))
        columns = [collate(column, collate_fn_map=collate_fn_map) for column in zip(*batch, strict=True)]
        if hasattr(first, "_fields"):
            return kind(*columns)
        return columns if isinstance(first, tuple) else _sequence_like(first, columns)
    raise TypeError(default_collate_err_msg_format.format(kind))


def _mapping_like(first: Mapping[Any, Any], parts: dict[Any, Any]) -> Any:
    """`parts` in a mapping like the first sample, extra attributes included; in a dict where its class cannot be made."""
    if type(first) is dict:
        return parts
    try:
        if isinstance(first, MutableMapping):
            clone = copy.copy(first)
            clone.update(parts)
            return clone
        return type(first)(parts)  # type: ignore[call-arg]
    except TypeError:
        return parts


def _sequence_like(first: Sequence[Any], parts: list[Any]) -> Any:
    """`parts` in a sequence like the first sample; in a list where its class cannot be made."""
    if type(first) is list:
        return parts
    try:
        if isinstance(first, MutableSequence):
            clone = copy.copy(first)
            for i, part in enumerate(parts):
                clone[i] = part
            return clone
        return type(first)(parts)  # type: ignore[call-arg]
    except TypeError:
        return parts


# ---- leaves ----------------------------------------------------------------------------------------------------------


def collate_tensor_fn(batch: Sequence[Tensor], *, collate_fn_map: Any = None) -> Tensor:
    """Tensors of one shape, stacked.  Raises RuntimeError that lists shapes where they differ."""
    arrays = _plain_arrays(batch)
    if arrays is not None:
        return stacked(arrays, batch[0].dtype)
    shapes = [tuple(x.shape) for x in batch if isinstance(x, Tensor)]
    if len(shapes) == len(batch):
        _check_shapes(shapes)
    return Op.table["stack"](list(batch))  # type: ignore[no-any-return]


def _plain_arrays(batch: Sequence[Any]) -> list[Any] | None:
    """The arrays of tensors of one dtype and shape, where stacking their elements is all that is to be done; else None."""
    if modes.tracer is not None or modes.readers:
        return None
    first = batch[0]
    dtype, shape, arrays = first.dtype, first._array.shape, []
    for x in batch:
        if not isinstance(x, Tensor) or x.requires_grad or x.dtype is not dtype:
            return None
        array = x._array
        if type(array) is Phantom or array.shape != shape:
            return None
        arrays.append(array)
    return arrays


def stacked(arrays: list[Any], dtype: DType) -> Tensor:
    """Arrays of one dtype and shape as rows of one tensor in `memory`."""
    shape = arrays[0].shape
    out = memory[0]((len(arrays), *shape), arrays[0].dtype)
    if shape:
        np.concatenate(arrays, out=out.reshape(len(arrays) * shape[0], *shape[1:]))
    else:
        out[...] = [array[()] for array in arrays] if dtype is bfloat16 else np.fromiter(arrays, arrays[0].dtype, len(arrays))
    return wrap(out, dtype)


def _check_shapes(shapes: list[Any]) -> None:
    for i, shape in enumerate(shapes):
        if shape != shapes[0]:
            message = (
                f"stack expects each tensor to be equal size, but got {list(shapes[0])} at entry 0 and {list(shape)} at entry {i}"
            )
            if len(shapes) <= 64:
                message += f"; shapes are {', '.join(str(list(s)) for s in shapes)}"
            raise RuntimeError(at_user_line(message))


def collate_numpy_array_fn(batch: Sequence[Any], *, collate_fn_map: Any = None) -> Any:
    """Arrays as tensors, stacked.  Raises TypeError for arrays of strings and objects."""
    first = batch[0]
    if first.dtype.kind in "SUOMm" or (first.dtype.kind == "V" and first.dtype != bfloat16.numpy):
        raise TypeError(default_collate_err_msg_format.format(first.dtype))
    tensors = (collate_fn_map or {}).get(Tensor)
    if tensors is collate_tensor_fn and modes.tracer is None and len({(type(x), x.dtype, x.shape) for x in batch}) == 1:
        return stacked(list(batch), from_numpy(first.dtype))
    return collate([as_tensor(np.asarray(x)) for x in batch], collate_fn_map=collate_fn_map)


def collate_numpy_scalar_fn(batch: Sequence[Any], *, collate_fn_map: Any = None) -> Tensor:
    """NumPy scalars as one tensor of their dtype."""
    return as_tensor(np.array(batch))


def collate_float_fn(batch: Sequence[Any], *, collate_fn_map: Any = None) -> Tensor:
    """Floats as one tensor of float64."""
    return tensor(list(batch), dtype=float64) if modes.tracer is not None else wrap(np.array(batch, np.float64), float64)


def collate_int_fn(batch: Sequence[Any], *, collate_fn_map: Any = None) -> Tensor:
    """Ints as one tensor of int64; bools as one of bool."""
    if modes.tracer is None and {type(x) for x in batch} == {int}:
        try:
            return wrap(np.array(batch, np.int64), int64)
        except OverflowError as error:
            raise ValueError(at_user_line(f"default_collate: an int of the batch does not fit into int64 ({error})")) from None
    return tensor(list(batch))


def collate_str_fn(batch: Sequence[Any], *, collate_fn_map: Any = None) -> Any:
    """Strings and bytes as they are."""
    return batch


default_collate_fn_map: dict[Any, Collate] = {
    Tensor: collate_tensor_fn,
    np.ndarray: collate_numpy_array_fn,
    (np.bool_, np.number, np.object_): collate_numpy_scalar_fn,
    float: collate_float_fn,
    int: collate_int_fn,
    str: collate_str_fn,
    bytes: collate_str_fn,
}


def default_collate(batch: Any) -> Any:
    """Samples as one batch: tensors and arrays are stacked, numbers become a tensor, containers are collated item by item.

    More types of leaves can be put into `default_collate_fn_map`.  Raises TypeError for samples of another kind, RuntimeError for
    tensors of different shapes and sequences of different lengths.
    """
    return collate(batch, collate_fn_map=default_collate_fn_map)


def default_convert(data: Any) -> Any:
    """A sample with its NumPy arrays and scalars as tensors (a tuple becomes a list, as in batches); everything else as it is."""
    kind = type(data)
    if isinstance(data, Tensor):
        return data
    if isinstance(data, np.ndarray | np.generic) and not isinstance(data, np.str_ | np.bytes_):
        if data.dtype.kind in "SUO":
            return data
        return as_tensor(data if isinstance(data, np.ndarray) else np.array(data))
    if isinstance(data, Mapping):
        return _mapping_like(data, {key: default_convert(data[key]) for key in data})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return kind(*[default_convert(part) for part in data])
    if isinstance(data, tuple):
        return [default_convert(part) for part in data]
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return _sequence_like(data, [default_convert(part) for part in data])
    return data


# ---- rows ------------------------------------------------------------------------------------------------------------


def chosen_rows(x: Tensor, indices: Sequence[int]) -> Tensor:
    """Rows of a tensor by their indices: what collating them one by one gives, in one step.  Raises IndexError."""
    array = x._array
    if modes.tracer is not None or modes.readers or x.requires_grad or type(array) is Phantom or not array.ndim:
        return Op.table["stack"]([x[i] for i in indices])  # type: ignore[no-any-return,index]
    chosen = np.array(indices, np.int64)
    count = len(array)
    if chosen.size and not -count <= chosen.min() <= chosen.max() < count:
        wrong = next(i for i in indices if not -count <= i < count)
        raise IndexError(at_user_line(f"index {wrong} is out of bounds for dimension 0 with size {count}"))
    out = memory[0]((len(chosen), *array.shape[1:]), array.dtype)
    np.take(array, chosen, 0, out, "wrap")
    return wrap(out, x.dtype)
