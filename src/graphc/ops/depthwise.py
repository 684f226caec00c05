"""Depthwise convolutions over two dims, one channel at a time: forward, back to the input, back to the weight.

Enters: images [N, C, H, W], weights [O, *kernel] where O is a multiple of C.  Leaves: operators that `convolution` is made of.
Never here: gradients (those of `convolution`), padding of other values than zero.

A sum over the kernel is a chain of fma in row-major order of the kernel, from zero, in which zeros outside an image take part; a
gradient's chain has those elements of the kernel that a stride lets meet it.  A weight's gradient is, for each image and block of
rows (`rows_of_block`), a sum in the tree order along rows, a few zeros between them; those are added in order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.ir.op import Anchor, Bad, Op, TensorType
from graphc.ops.arguments import rounded, same_dtype, tensor
from graphc.ops.declare import FLOATING, call, fill
from graphc.ops.windows import Ints, fixed_inside

BLOCK_ELEMENTS = 1 << 13  # of an image's plane that are at hand at once
MOST_ELEMENTS = 1 << 15  # of one row's windows
MOST_KERNEL = 64  # elements of a kernel: they are written out


def rows_of_block(height: int, width: int, kernel: Ints, stride: Ints, dilation: Ints) -> int:
    """How many rows of results are made at once: blocks are as even as can be."""
    across = (width - 1) * stride[1] + dilation[1] * (kernel[1] - 1) + 1
    fits = (BLOCK_ELEMENTS // across - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    blocks = math.ceil(height / max(1, fits))
    return math.ceil(height / blocks)


def fits(width: int, kernel: Ints, stride: Ints, dilation: Ints) -> bool:
    """Whether a nest takes such a convolution: its kernel is small, and so is what lies under one row of results."""
    across, down = (width - 1) * stride[1] + dilation[1] * (kernel[1] - 1) + 1, dilation[0] * (kernel[0] - 1) + 1
    return math.prod(kernel) <= MOST_KERNEL and across * down <= MOST_ELEMENTS


def _grown(sizes: Ints, kernel: Ints, stride: Ints, dilation: Ints) -> Ints:
    """The sizes of what lies under that many windows."""
    return tuple((n - 1) * s + d * (k - 1) + 1 for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True))


def _under(j: Ints, places: Ints, stride: Ints, dilation: Ints) -> tuple[slice, ...]:
    return tuple(slice(k * d, k * d + s * (p - 1) + 1, s) for k, d, s, p in zip(j, dilation, stride, places, strict=True))


def _padded(xp: Any, x: Any, before: Ints, sizes: Ints) -> Any:
    """x with zeros before and after, of those sizes."""
    out = xp.zeros((*x.shape[:2], *sizes), x.dtype)
    inside = tuple(slice(b, b + max(0, min(n, s - b))) for b, n, s in zip(before, x.shape[2:], sizes, strict=True))
    out[(..., *inside)] = x[(..., *(slice(0, i.stop - i.start) for i in inside))]
    return out


# ---- forward -----------------------------------------------------------------------------------------------------------


def _reference(xp: Any, x: Any, weight: Any, places: Ints, stride: Ints, before: Ints, dilation: Ints) -> Any:
    kernel, many = weight.shape[1:], weight.shape[0] // x.shape[1]
    x = xp.repeat(_padded(xp, x, before, _grown(places, kernel, stride, dilation)), many, axis=1)
    out = xp.zeros((x.shape[0], weight.shape[0], *places), x.dtype)
    for j in np.ndindex(*kernel):
        out = out + x[(..., *_under(j, places, stride, dilation))] * weight[(slice(None), *j, None, None)]
    return out


def _infer(x: TensorType, weight: TensorType, places: Ints, **_: Any) -> TensorType:
    same_dtype("depthwise", (x, weight))
    fixed_inside("depthwise", (*x.shape, *weight.shape))
    if x.rank != 4 or weight.rank != 3 or weight.shape[0] % x.shape[1]:
        raise RuntimeError(f"depthwise: input {x} and weight {weight} do not fit")
    return TensorType(x.dtype, (x.shape[0], weight.shape[0], *places))


# ---- forward, channels last ---------------------------------------------------------------------------------------------


def _last_reference(xp: Any, x: Any, weight: Any, places: Ints, stride: Ints, before: Ints, dilation: Ints) -> Any:
    x, weight = xp.moveaxis(x, -1, 1), xp.moveaxis(weight, -1, 0)
    return xp.moveaxis(_reference(xp, x, weight, places, stride, before, dilation), 1, -1)


def _last_infer(x: TensorType, weight: TensorType, places: Ints, **_: Any) -> TensorType:
    same_dtype("depthwise_last", (x, weight))
    fixed_inside("depthwise_last", (*x.shape, *weight.shape))
    if x.rank != 4 or weight.rank != 3 or weight.shape[2] != x.shape[3]:
        raise RuntimeError(f"depthwise_last: input {x} and weight {weight} do not fit")
    return TensorType(x.dtype, (x.shape[0], *places, x.shape[3]))


# ---- back --------------------------------------------------------------------------------------------------------------


def _input_reference(xp: Any, g: Any, weight: Any, shape: Ints, stride: Ints, before: Ints, dilation: Ints) -> Any:
    kernel, places = weight.shape[1:], g.shape[2:]
    grown = tuple(max(a, s + b) for a, s, b in zip(_grown(places, kernel, stride, dilation), shape, before, strict=True))
    out = xp.zeros((*g.shape[:2], *grown), g.dtype)
    for j in np.ndindex(*kernel):
        out[(..., *_under(j, places, stride, dilation))] += g * weight[(slice(None), *j, None, None)]
    return out[(..., *(slice(b, b + s) for b, s in zip(before, shape, strict=True)))]


def _input_infer(g: TensorType, weight: TensorType, shape: Ints, **_: Any) -> TensorType:
    same_dtype("depthwise_input", (g, weight))
    fixed_inside("depthwise_input", (*g.shape, *weight.shape))
    if g.rank != 4 or weight.rank != 3 or weight.shape[0] != g.shape[1]:
        raise RuntimeError(f"depthwise_input: gradient {g} and weight {weight} do not fit")
    return TensorType(g.dtype, (*g.shape[:2], *shape))


def _weight_reference(xp: Any, g: Any, x: Any, kernel: Ints, stride: Ints, before: Ints, dilation: Ints) -> Any:
    places = g.shape[2:]
    x = xp.repeat(_padded(xp, x, before, _grown(places, kernel, stride, dilation)), g.shape[1] // x.shape[1], axis=1)
    out = xp.zeros((g.shape[1], *kernel), g.dtype)
    for j in np.ndindex(*kernel):
        out[(slice(None), *j)] = (x[(..., *_under(j, places, stride, dilation))] * g).sum(axis=(0, 2, 3))
    return out


def _weight_infer(g: TensorType, x: TensorType, kernel: Ints, **_: Any) -> TensorType:
    same_dtype("depthwise_weight", (g, x))
    fixed_inside("depthwise_weight", (*g.shape, *x.shape[1:]))
    if g.rank != 4 or x.rank != 4 or g.shape[0] != x.shape[0] or g.shape[1] % x.shape[1]:
        raise RuntimeError(f"depthwise_weight: gradient {g} and input {x} do not fit")
    return TensorType(g.dtype, (g.shape[1], *kernel))


# ---- declarations ------------------------------------------------------------------------------------------------------

_HOW = ("stride", "before", "dilation")


def _declare(name: str, doc: str, first: str, infer: Any, reference: Any, samples: Any, bad: Any) -> Op:
    attrs = (first, *_HOW)

    def prepare(x: Any, y: Any, *given: Any) -> Any:
        return (tensor(name, "x", x), tensor(name, "y", y)), dict(zip(attrs, given, strict=True))

    return Op(
        name,
        doc=doc,
        signature=f"(x, y, {', '.join(attrs)})",
        prepare=prepare,
        infer=infer,
        reference=rounded(reference),
        grad=None,
        lowering=Anchor(name),
        attrs=attrs,
        dtypes=tuple(dtype for dtype in FLOATING if dtype.compute is dtype),
        samples=samples,
        bad=bad,
        methods=(),
        functions=(),
    )


# [N, C, H, W], [O, *kernel], places, (stride, before, dilation)
_SAMPLES: tuple[tuple[tuple[int, ...], tuple[int, ...], Ints, tuple[Ints, Ints, Ints]], ...] = (
    ((2, 3, 6, 5), (3, 3, 3), (6, 5), ((1, 1), (1, 1), (1, 1))),
    ((1, 2, 9, 33), (4, 5, 5), (5, 17), ((2, 2), (2, 2), (1, 1))),
    ((1, 2, 7, 8), (2, 2, 3), (2, 3), ((3, 2), (0, 1), (2, 2))),
    ((2, 1, 4, 3), (2, 1, 1), (2, 2), ((2, 3), (0, 2), (1, 1))),
    ((1, 1, 300, 40), (1, 3, 3), (300, 40), ((1, 1), (1, 1), (1, 1))),
)
_MISFIT = (1, 1), (0, 0), (1, 1)

depthwise: Op = _declare(
    "depthwise",
    "Cross-correlation of each channel with kernels of its own.  [N, C, H, W], [O, *kernel] -> [N, O, *places].",
    "places",
    _infer,
    _reference,
    tuple(call(fill(*x), fill(*w), places, *how) for x, w, places, how in _SAMPLES),
    (Bad((fill(1, 2, 4, 4), fill(3, 2, 2), (3, 3), *_MISFIT), RuntimeError, "depthwise: input .* do not fit"),),
)
# [N, H, W, C], [*kernel, C], places, (stride, before, dilation)
_LAST: tuple[tuple[tuple[int, ...], tuple[int, ...], Ints, tuple[Ints, Ints, Ints]], ...] = (
    ((2, 6, 5, 3), (3, 3, 3), (6, 5), ((1, 1), (1, 1), (1, 1))),
    ((1, 9, 33, 20), (5, 5, 20), (5, 17), ((2, 2), (2, 2), (1, 1))),
    ((1, 7, 8, 2), (2, 3, 2), (2, 3), ((3, 2), (0, 1), (2, 2))),
    ((2, 4, 3, 1), (1, 1, 1), (2, 2), ((2, 3), (0, 2), (1, 1))),
    ((1, 3, 40, 33), (3, 3, 33), (3, 40), ((1, 1), (1, 1), (1, 1))),
)
depthwise_last: Op = _declare(
    "depthwise_last",
    "`depthwise` of as many channels as there are, which are last.  [N, H, W, C], [*kernel, C] -> [N, *places, C].",
    "places",
    _last_infer,
    _last_reference,
    tuple(call(fill(*x), fill(*w), places, *how) for x, w, places, how in _LAST),
    (Bad((fill(1, 4, 4, 2), fill(2, 2, 3), (3, 3), *_MISFIT), RuntimeError, "depthwise_last: input .* do not fit"),),
)
depthwise_input: Op = _declare(
    "depthwise_input",
    "The gradient of a depthwise convolution's input.  [N, C, *places], [C, *kernel] -> [N, C, *shape].",
    "shape",
    _input_infer,
    _input_reference,
    tuple(call(fill(x[0], w[0], *places), fill(*w), x[2:], *how) for x, w, places, how in _SAMPLES),
    (Bad((fill(1, 2, 4, 4), fill(3, 2, 2), (5, 5), *_MISFIT), RuntimeError, "depthwise_input: gradient .* do not fit"),),
)
depthwise_weight: Op = _declare(
    "depthwise_weight",
    "The gradient of a depthwise convolution's weight.  [N, O, *places], [N, C, H, W] -> [O, *kernel].",
    "kernel",
    _weight_infer,
    _weight_reference,
    tuple(call(fill(x[0], w[0], *places), fill(*x), w[1:], *how) for x, w, places, how in _SAMPLES),
    (Bad((fill(1, 3, 4, 4), fill(1, 2, 5, 5), (2, 2), *_MISFIT), RuntimeError, "depthwise_weight: gradient .* do not fit"),),
)
