"""Which operators alias their input's memory, with what strides, and how a write goes back through each.

Enters: operators of views and their attributes.  Leaves: strides, and the whole tensor after a write to a view of it.
Never here: tensors (the functions below run public operators on whatever is running operators now).

A *chain* is how a tensor is reached from the root of its storage: links (operator, attributes), first applied first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dims import Size
from graphc.dtypes import DType
from graphc.ir.op import Op, Shape, TensorType
from graphc.ops.comparison import clone
from graphc.ops.complex import view_as_complex, view_as_real
from graphc.ops.diagonals import diagonal, diagonal_scatter
from graphc.ops.movement import expand, inverse, permute, reshape, slice_, slice_scatter, squeeze, unsqueeze
from graphc.ops.reinterpret import view_dtype
from graphc.ops.strided import as_strided, overlaps, strided_scatter
from graphc.ops.windows import unfold

Strides = tuple[Size, ...]  # in elements
Link = tuple[Op, dict[str, Any]]
Chain = tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class View:
    """`strides(in_type, in_strides, out_type, **attrs)`: the view's strides, or None where the elements must be copied.
    `write_back(whole, part, **attrs)`: `whole` with its view replaced by `part`, in public operators; None where a write
    cannot go back (elements of the view share memory)."""

    strides: Callable[..., Strides | None]
    write_back: Callable[..., Any] | None


def contiguous_strides(shape: Shape) -> Strides:
    """Row-major strides in elements."""
    strides: list[Size] = []
    step: Size = 1
    for size in reversed(shape):
        strides.append(step)
        step = step * size if isinstance(size, int) and size > 1 or not isinstance(size, int) else step
    return tuple(reversed(strides))


def is_contiguous(shape: Shape, strides: Strides) -> bool:
    """Whether elements lie in row-major order without gaps; strides of sizes 0 and 1 do not matter."""
    if any(isinstance(size, int) and size == 0 for size in shape):
        return True
    return all(size == 1 or have == want for size, have, want in zip(shape, strides, contiguous_strides(shape), strict=True))


def reshape_strides(in_type: TensorType, strides: Strides, out_type: TensorType, shape: Shape) -> Strides | None:
    """Strides of a reshape that copies nothing, or None: runs of input dims that lie together are cut anew."""
    if is_contiguous(in_type.shape, strides):
        return contiguous_strides(out_type.shape)
    runs: list[tuple[Size, Size]] = []  # (elements, stride of the last dim), dims of size 1 left out
    for size, stride in zip(in_type.shape, strides, strict=True):
        if size == 1:
            continue
        if runs and runs[-1][1] == stride * size:
            runs[-1] = (runs[-1][0] * size, stride)
        else:
            runs.append((size, stride))
    result: list[Size] = []
    left: Size = 1  # elements of the run at the end of `runs` not yet covered, counted from its last dim
    step: Size = 1
    for size in reversed(out_type.shape):
        if size == 1:
            result.append(step)
            continue
        if left == 1:
            if not runs:
                return None
            left, step = runs.pop()
        if not isinstance(size, int) or not isinstance(left, int):
            if size != left:
                return None
            result.append(step)
            left, step = 1, step * size
            continue
        if left % size:
            return None
        result.append(step)
        left, step = left // size, step * size
    return tuple(reversed(result))


def _permute_strides(in_type: TensorType, strides: Strides, out_type: TensorType, dims: tuple[int, ...]) -> Strides:
    return tuple(strides[d] for d in dims)


def _expand_strides(in_type: TensorType, strides: Strides, out_type: TensorType, shape: Shape) -> Strides:
    lead = out_type.rank - in_type.rank
    kept = (0 if have != want else s for have, want, s in zip(in_type.shape, out_type.shape[lead:], strides, strict=True))
    return (*(0 for _ in range(lead)), *kept)


def _squeeze_strides(in_type: TensorType, strides: Strides, out_type: TensorType, dims: tuple[int, ...]) -> Strides:
    return tuple(s for k, s in enumerate(strides) if k not in dims)


def _unsqueeze_strides(in_type: TensorType, strides: Strides, out_type: TensorType, dim: int) -> Strides:
    step: Size = strides[dim] * in_type.shape[dim] if dim < in_type.rank else 1
    return (*strides[:dim], step, *strides[dim:])


def _slice_strides(
    in_type: TensorType, strides: Strides, out_type: TensorType, starts: Shape, stops: Shape, steps: Shape
) -> Strides:
    return tuple(s * step for s, step in zip(strides, steps, strict=True))


def _diagonal_strides(in_type: TensorType, strides: Strides, out_type: TensorType, offset: int, dim1: int, dim2: int) -> Strides:
    rest = (s for d, s in enumerate(strides) if d not in (dim1, dim2))
    return (*rest, strides[dim1] + strides[dim2])


def _strided_strides(
    in_type: TensorType, strides: Strides, out_type: TensorType, size: Shape, stride: Shape, offset: Size
) -> Strides | None:
    return stride if is_contiguous(in_type.shape, strides) else None


def _strided_write(whole: Any, part: Any, size: Shape, stride: Shape, offset: Size) -> Any:
    if overlaps(size, stride):
        raise RuntimeError(SHARED_ELEMENTS)
    return strided_scatter(whole, part, size, stride, offset)


def _unfold_strides(in_type: TensorType, strides: Strides, out_type: TensorType, dim: int, size: Size, step: Size) -> Strides:
    return (*strides[:dim], strides[dim] * step, *strides[dim + 1 :], strides[dim]) if strides else (1,)


def _unfold_write(whole: Any, part: Any, dim: int, size: Size, step: Size) -> Any:
    whole_type = TensorType(whole.dtype, tuple(whole.shape))
    steps = _unfold_strides(whole_type, contiguous_strides(whole_type.shape), whole_type, dim, size, step)
    return _strided_write(whole, part, tuple(part.shape), steps, 0)


def _real_strides(in_type: TensorType, strides: Strides, out_type: TensorType) -> Strides:
    return (*(2 * s for s in strides), 1)


def _complex_strides(in_type: TensorType, strides: Strides, out_type: TensorType) -> Strides:
    """Raises RuntimeError where pairs do not lie together."""
    if strides[-1] != 1 or any(isinstance(s, int) and s % 2 for s, n in zip(strides[:-1], in_type.shape, strict=False) if n != 1):
        raise RuntimeError(f"view_as_complex: Tensor must have a last dimension with stride 1, and even strides: {strides}")
    return tuple(s // 2 for s in strides[:-1])


def _reshaped_back(whole: Any, part: Any, **_: Any) -> Any:
    return reshape.run(part, shape=tuple(whole.shape))


def _expand_write(whole: Any, part: Any, shape: Shape) -> Any:
    """Raises RuntimeError where the view has an element twice."""
    before = (1,) * (len(part.shape) - len(whole.shape)) + tuple(whole.shape)
    if tuple(part.shape) != before:
        raise RuntimeError(SHARED_ELEMENTS)
    return reshape.run(part, shape=tuple(whole.shape))


def _slice_write(whole: Any, part: Any, starts: Shape, stops: Shape, steps: Shape) -> Any:
    return slice_scatter.run(whole, part, starts=starts, stops=stops, steps=steps)


def _dtype_strides(in_type: TensorType, strides: Strides, out_type: TensorType, dtype: DType) -> Strides | None:
    """In elements of the new size; None where the last dim has gaps, or others do not begin at whole elements."""
    have, want = in_type.dtype.itemsize, dtype.itemsize
    if have == want:
        return strides
    scaled = [step * have for step in strides[:-1]]
    if strides[-1] != 1 or any(isinstance(step, int) and step % want for step in scaled):
        return None
    return (*(step // want for step in scaled), 1)


VIEWS: dict[Op, View] = {
    reshape: View(reshape_strides, _reshaped_back),
    permute: View(_permute_strides, lambda whole, part, dims: permute.run(part, dims=inverse(dims))),
    expand: View(_expand_strides, _expand_write),
    squeeze: View(_squeeze_strides, _reshaped_back),
    unsqueeze: View(_unsqueeze_strides, _reshaped_back),
    slice_: View(_slice_strides, _slice_write),
    view_as_real: View(_real_strides, lambda whole, part: view_as_complex.run(clone.run(part))),
    view_as_complex: View(_complex_strides, lambda whole, part: view_as_real.run(part)),
    diagonal: View(_diagonal_strides, lambda whole, part, **where: diagonal_scatter.run(whole, part, **where)),
    as_strided: View(_strided_strides, _strided_write),
    unfold: View(_unfold_strides, _unfold_write),
    view_dtype: View(_dtype_strides, lambda whole, part, dtype: view_dtype.run(part, dtype=whole.dtype)),
}


def follow(whole: Any, chain: Chain) -> Any:
    """The view of `whole` that `chain` leads to."""
    for op, attrs in chain:
        whole = op.run(whole, **attrs)
    return whole


def written(whole: Any, chain: Chain, part: Any) -> Any:
    """`whole` with its view along `chain` replaced by `part`.  Raises RuntimeError where elements of the view share memory."""
    if not chain:
        return part
    past = _past_shared(tuple(whole.shape), chain)
    if past is not None:
        return strided_scatter(whole, part, *past)
    wholes = [whole]
    for op, attrs in chain[:-1]:
        wholes.append(op.run(wholes[-1], **attrs))
    for (op, attrs), outer in zip(reversed(chain), reversed(wholes), strict=True):
        write_back = VIEWS[op].write_back
        if write_back is None:
            raise RuntimeError(SHARED_ELEMENTS)
        part = write_back(outer, part, **attrs)
    return part


def _past_shared(shape: Shape, chain: Chain) -> tuple[Shape, Strides, int] | None:
    """Sizes, strides and offset of a view all of whose elements have places of their own, though those of a view on the way, as
    `unfold`, do not; else None."""
    if not any(op is unfold for op, _ in chain[:-1]) or not all(isinstance(n, int) for n in shape):
        return None
    if any(op in (view_dtype, view_as_real, view_as_complex) for op, _ in chain):
        return None
    places = np.arange(math.prod(shape)).reshape(shape)  # type: ignore[arg-type]  # sizes are ints
    shared = False
    for op, attrs in chain:
        shared = shared or overlaps(places.shape, places.strides)
        places = op.reference(np, places, **attrs)
    if not shared or not places.size or not places.flags.writeable or overlaps(places.shape, places.strides):
        return None
    return places.shape, tuple(s // places.itemsize for s in places.strides), int(places.flat[0])


SHARED_ELEMENTS = (
    "unsupported operation: more than one element of the written-to tensor refers to a single memory location; clone() it first"
)
