"""Which operators alias their input's memory, with what strides, and how a write goes back through each.

Enters: operators of views and their attributes.  Leaves: strides, and the whole tensor after a write to a view of it.
Never here: tensors (the functions below run public operators on whatever is running operators now).

A *chain* is how a tensor is reached from the root of its storage: links (operator, attributes), first applied first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphc.dims import Size
from graphc.ir.op import Op, Shape, TensorType
from graphc.ops.movement import expand, inverse, permute, reshape, slice_, slice_scatter, squeeze, unsqueeze

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


def _reshaped_back(whole: Any, part: Any, **_: Any) -> Any:
    return reshape.run(part, shape=tuple(whole.shape))


def _slice_write(whole: Any, part: Any, starts: Shape, stops: Shape, steps: Shape) -> Any:
    return slice_scatter.run(whole, part, starts=starts, stops=stops, steps=steps)


VIEWS: dict[Op, View] = {
    reshape: View(reshape_strides, _reshaped_back),
    permute: View(_permute_strides, lambda whole, part, dims: permute.run(part, dims=inverse(dims))),
    expand: View(_expand_strides, None),
    squeeze: View(_squeeze_strides, _reshaped_back),
    unsqueeze: View(_unsqueeze_strides, _reshaped_back),
    slice_: View(_slice_strides, _slice_write),
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
    wholes = [whole]
    for op, attrs in chain[:-1]:
        wholes.append(op.run(wholes[-1], **attrs))
    for (op, attrs), outer in zip(reversed(chain), reversed(wholes), strict=True):
        write_back = VIEWS[op].write_back
        if write_back is None:
            raise RuntimeError(SHARED_ELEMENTS)
        part = write_back(outer, part, **attrs)
    return part


SHARED_ELEMENTS = (
    "unsupported operation: more than one element of the written-to tensor refers to a single memory location; clone() it first"
)
