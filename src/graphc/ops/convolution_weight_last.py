"""The gradient of a convolution's weight where channels are the last dim of input and gradient.

Enters: gradients [N, *places, O], inputs [N, *sizes, C].  Leaves: `convolution_weight_sums`, which has a nest of its own.
Never here: groups, PyTorch's order of dims (`convolution`), tiling.

The batch is cut into parts.  An element of a part's sum is the sum, over blocks of its places in order from zero, of one chain of
fma over the block's places in row-major order, also from zero.  A block is as many whole images as have `BLOCK` places, or as many
rows of one.  Places where the input's side of a product would lie in its padding take no part.  Where the result is small beside
what is read, there are several parts: each is gone through once, by one thread, with its sums at hand.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dims import Size, maximum, minimum
from graphc.ir.op import Anchor, Bad, Op, TensorType
from graphc.ops.arguments import rounded, same_dtype
from graphc.ops.convolution_last import declare
from graphc.ops.declare import FLOATING, call, fill
from graphc.ops.windows import Ints, fixed_inside

BLOCK = 512  # places whose products are summed in one chain
PARTS = 8  # of a batch whose sums are small
SMALL = 1 << 16  # elements of a result that stays in the second cache
LARGE = 1 << 21  # elements of input and gradient that do not
LEAST_OF_ONE = 2 * BLOCK  # elements of a result, below which a batch is always cut


def block_of(batch: Size, high: int, across: int) -> tuple[int, int]:
    """(most images, rows of each) of a block."""
    if high * across <= BLOCK:
        most = BLOCK // (high * across)
        return max(1, min(batch, most)) if isinstance(batch, int) else most, high
    return 1, max(1, BLOCK // across)


def parts_of(g: Any, x: Any, kernel: Ints) -> tuple[int, Size]:
    """(how many parts a batch is cut into, how many images each has; the last may have fewer).

    Of a batch of symbolic size there are `PARTS`, of which the last may have none: zeros that are added change no sum.
    """
    elements: int = math.prod(kernel) * x.shape[-1] * g.shape[-1]
    batch = g.shape[0]
    if elements > SMALL:
        return 1, batch
    most = LARGE // (math.prod(g.shape[1:]) + math.prod(x.shape[1:]))  # images that make one part
    images = (batch + PARTS - 1) // PARTS
    if type(batch) is int:
        return (1, batch) if batch <= most and elements > LEAST_OF_ONE else (-(-batch // -(-batch // PARTS)), images)
    few = minimum(1, maximum(0, most + 1 - batch)) if elements > LEAST_OF_ONE else 0  # 1 where they do
    return PARTS, maximum(images, few * batch)


def _infer(g: TensorType, x: TensorType, kernel: Ints, parts: int, **_: Any) -> TensorType:
    dtype = same_dtype("convolution_weight_sums", (g, x))
    fixed_inside("convolution_weight_sums", (*g.shape, *x.shape[1:]))
    if g.rank != x.rank or g.rank != len(kernel) + 2 or g.shape[0] != x.shape[0] or not 1 <= len(kernel) <= 2:
        raise RuntimeError(f"convolution_weight_sums: {g} is not of a convolution of {x} with a kernel of {list(kernel)}")
    return TensorType(dtype, (parts, *kernel, x.shape[-1], g.shape[-1]))


def _met(places: int, size: int, k: int, s: int, b: int, d: int) -> tuple[slice, slice]:
    """The places at which an element of the kernel meets the input, and what it meets there."""
    low = max(0, -((k * d - b) // s))
    count = max(0, min(places, (size - 1 + b - k * d) // s + 1) - low)
    start = low * s + k * d - b
    return slice(low, low + count), slice(start, start + (count - 1) * s + 1 if count else start, s)


def _reference(xp: Any, g: Any, x: Any, kernel: Ints, stride: Ints, before: Ints, dilation: Ints, parts: int, images: int) -> Any:
    out = xp.zeros((parts, *kernel, x.shape[-1], g.shape[-1]), g.dtype)
    for part, *j in np.ndindex(parts, *kernel):
        these = slice(part * images, (part + 1) * images)
        dims = zip(g.shape[1:-1], x.shape[1:-1], j, stride, before, dilation, strict=True)
        pairs = [_met(*dim) for dim in dims]
        left = g[(these, *(p for p, _ in pairs))].reshape(-1, g.shape[-1])
        right = x[(these, *(q for _, q in pairs))].reshape(-1, x.shape[-1])
        out[(part, *j)] = right.T @ left
    return out


# gradient, input, kernel, stride, before, dilation, parts, images
_SAMPLES: tuple[tuple[Any, ...], ...] = (
    ((2, 5, 4), (2, 6, 3), (2,), (1,), (0,), (1,), 1, 2),
    ((1, 7, 6, 6), (1, 7, 6, 4), (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
    ((2, 5, 4, 3), (2, 9, 8, 2), (3, 2), (2, 2), (1, 0), (1, 2), 2, 1),
    ((3, 2, 3, 35), (3, 2, 3, 15), (1, 1), (1, 1), (0, 0), (1, 1), 4, 1),
    ((1, 3, 40, 2), (1, 5, 42, 1), (3, 3), (1, 1), (0, 0), (1, 1), 1, 1),
    ((1, 2, 600, 2), (1, 2, 600, 2), (2, 3), (1, 1), (1, 1), (1, 1), 1, 1),
)

convolution_weight_sums: Op = declare(
    "convolution_weight_sums",
    "The gradient of a convolution's weight, channels last, from each part of the batch.  [N, *places, O], [N, *sizes, C] -> "
    "[parts, *kernel, C, O].",
    ("kernel", "stride", "before", "dilation", "parts", "images"),
    infer=_infer,
    reference=rounded(_reference),
    lowering=Anchor("convolution_weight"),
    dtypes=tuple(dtype for dtype in FLOATING if dtype.compute is dtype),
    samples=tuple(call(fill(*g), fill(*x), *how) for g, x, *how in _SAMPLES),
    bad=(
        Bad(
            (fill(1, 4, 3), fill(2, 5, 2), (2,), (1,), (0,), (1,), 1, 1),
            RuntimeError,
            "convolution_weight_sums: .* is not of a convolution",
        ),
    ),
)
