"""The gradients of a convolution, with channels last.

Enters: gradients [N, O, *places], inputs [N, C, *sizes], weights [O, C / groups, *kernel].
Leaves: what `ops.convolution` makes its gradients of, the element operators `interleave` and `taps_added`, and
`taps_product`, which has a nest of its own.
Never here: the operators that have these rules; depthwise convolutions.

The gradient of an input is a convolution of the gradient with the flipped weight, its inputs and outputs exchanged.  Where a
stride lies between, elements of the input that are a stride apart are met by the same elements of the kernel: each such phase is a
dense convolution with a smaller kernel, and the phases are put together.  Where places are much fewer than elements of the input,
products with all of the kernel at each place are added where they belong: most of a convolution would meet zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product as tuples
from typing import Any

from graphc.dims import minimum
from graphc.dtypes import int64
from graphc.ir.loops import K_BLOCK, Expr
from graphc.ir.op import Anchor, Bad, Element, Op, TensorType
from graphc.ops.arguments import constant, rounded, same_dtype, tensor, tensors
from graphc.ops.contract import matmul
from graphc.ops.convolution_last import convolution_last, declare, row_major
from graphc.ops.convolution_weight_last import convolution_weight_sums, parts_of
from graphc.ops.declare import FLOATING, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import both, clamped, inside_tests, select
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import size as size_value
from graphc.ops.joining import pad_constant
from graphc.ops.movement import Index, flip, permute, reshape, slice_
from graphc.ops.panels import columns_of, panel_width, panels
from graphc.ops.reduce import reduce_sum
from graphc.ops.windows import Ints, fixed, fixed_inside

MOST_TAPS = 27  # elements of a kernel that are written out
LEAST_IMAGES = 8  # for a launch of a unit each
LEAST_PLACES = 12  # rows of a tile
NEAR = 1 << 16  # elements of products, or of a matrix, that stay in the second cache
FEW_CHANNELS = 8  # fewer are padded in front of a weight's gradient, so that rows of the kernel are beside them in memory

# ---- phases put together -----------------------------------------------------------------------------------------------


def _interleave_infer(*parts: TensorType, shape: Ints, stride: Ints) -> TensorType:
    dtype = same_dtype("interleave", parts)
    batch, channels = parts[0].shape[0], parts[0].shape[-1]
    for part, phase in zip(parts, tuples(*map(range, stride)), strict=True):
        counts = (-(-(size - i) // s) for size, i, s in zip(shape, phase, stride, strict=True))
        if fixed_inside("interleave", part.shape) != (batch, *(max(0, c) for c in counts), channels):
            raise RuntimeError(f"interleave: {part} is not phase {list(phase)} of sizes {list(shape)} with strides {list(stride)}")
    return TensorType(dtype, (batch, *shape, channels))


def _interleave_rule(
    load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, shape: Ints, stride: Ints
) -> Expr:
    at = index[1:-1]
    found: Expr | None = None
    for k, phase in enumerate(tuples(*map(range, stride))):
        counts = in_types[k].shape[1:-1]
        if 0 in counts:
            continue
        there = [minimum(a // s, c - 1) for a, s, c in zip(at, stride, counts, strict=True)]
        value: Expr = load(k, (index[0], *there, index[-1]))
        here: Expr | None = None
        for a, s, i in zip(at, stride, phase, strict=True):
            if s > 1:
                test = fn("eq", size_value(a % s), literal(i, int64))
                here = test if here is None else both(here, test)
        found = value if found is None or here is None else select(load.let(here), value, found)
    assert found is not None
    return found


def _interleave_reference(xp: Any, *parts: Any, shape: Ints, stride: Ints) -> Any:
    out = xp.empty((parts[0].shape[0], *shape, parts[0].shape[-1]), parts[0].dtype)
    for part, phase in zip(parts, tuples(*map(range, stride)), strict=True):
        out[(slice(None), *(slice(i, None, s) for i, s in zip(phase, stride, strict=True)))] = part
    return out


def _interleave_prepare(parts: Any, shape: Any, stride: Any) -> Prepared:
    return tensors("interleave", "parts", parts), {"shape": shape, "stride": stride}


interleave = Op(
    "interleave",
    doc="Every phase of a tensor whose elements a stride apart are one.  [N, *counts, C] a phase -> [N, *shape, C].",
    signature="(parts, shape, stride)",
    prepare=_interleave_prepare,
    infer=_interleave_infer,
    reference=_interleave_reference,
    grad=None,
    lowering=Element(_interleave_rule),
    attrs=("shape", "stride"),
    dtypes=FLOATING,
    samples=(
        call([fill(2, 3, 2), fill(2, 2, 2)], (5,), (2,)),
        call([fill(1, 2, 3, 33), fill(1, 2, 2, 33), fill(1, 1, 3, 33), fill(1, 1, 2, 33)], (3, 5), (2, 2)),
        call([fill(1, 1, 2, 2), fill(1, 0, 2, 2)], (1, 2), (2, 1)),
    ),
    bad=(Bad(([fill(2, 3, 2), fill(2, 3, 2)], (5,), (2,)), RuntimeError, "interleave: .* is not phase"),),
    methods=(),
    functions=(),
)

# ---- taps added --------------------------------------------------------------------------------------------------------


def _taps_infer(x: TensorType, shape: Ints, before: Ints, dilation: Ints) -> TensorType:
    n = len(shape)
    if x.rank != 2 * n + 2:
        raise RuntimeError(f"taps_added: {x} is not of places and kernel elements over {n} dims")
    fixed_inside("taps_added", x.shape)
    return TensorType(x.dtype, (x.shape[0], *shape, x.shape[-1]))


def _taps_rule(
    load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, shape: Ints, before: Ints, dilation: Ints
) -> Expr:
    n = len(shape)
    places, kernel = fixed("taps_added", in_types[0].shape[1 : 1 + n]), fixed("taps_added", in_types[0].shape[1 + n : -1])
    total: Expr = literal(0, out_type.dtype)
    for j in tuples(*map(range, kernel)):
        inside: Expr | None = None
        there = []
        for a, k, b, d, limit in zip(index[1:-1], j, before, dilation, places, strict=True):
            position = a + b - k * d
            tests = inside_tests(position, limit)
            for test in tests:
                inside = test if inside is None else both(inside, test)
            there.append(clamped(load, size_value(position), limit) if tests else position)
        term: Expr = load(0, (index[0], *there, *j, index[-1]))
        term = load.let(term if inside is None else select(load.let(inside), term, literal(0, out_type.dtype)))
        total = load.let(fn("add", total, term))
    return total


def _taps_reference(xp: Any, x: Any, shape: Ints, before: Ints, dilation: Ints) -> Any:
    n = len(shape)
    places, kernel = x.shape[1 : 1 + n], x.shape[1 + n : -1]
    spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    sizes = [max(p + span, b + s) for p, span, b, s in zip(places, spans, before, shape, strict=True)]
    out = xp.zeros((x.shape[0], *sizes, x.shape[-1]), x.dtype)
    for j in tuples(*map(range, kernel)):
        where = tuple(slice(k * d, k * d + p) for k, d, p in zip(j, dilation, places, strict=True))
        out[(slice(None), *where)] += x[(slice(None), *(slice(None),) * n, *j)]
    return out[(slice(None), *(slice(b, b + s) for b, s in zip(before, shape, strict=True)))]


taps_added = Op(
    "taps_added",
    doc="What each place gives to each element of the input under its kernel, added in row-major order of the kernel.  "
    "[N, *places, *kernel, C] -> [N, *shape, C].",
    signature="(x, shape, before, dilation)",
    prepare=lambda x, shape, before, dilation: (
        (tensor("taps_added", "x", x),),
        {"shape": shape, "before": before, "dilation": dilation},
    ),
    infer=_taps_infer,
    reference=_taps_reference,
    grad=None,
    lowering=Element(_taps_rule),
    attrs=("shape", "before", "dilation"),
    dtypes=tuple(dtype for dtype in FLOATING if dtype.compute is dtype),
    samples=(
        call(fill(2, 4, 3, 2), (6,), (0,), (1,)),
        call(fill(1, 3, 4, 3, 2, 5), (5, 5), (0, 1), (1, 2)),
        call(fill(1, 2, 2, 2, 2, 33), (5, 3), (0, 0), (2, 1)),
    ),
    bad=(Bad((fill(2, 3, 2), (6,), (0,), (1,)), RuntimeError, "taps_added: .* is not of places"),),
    methods=(),
    functions=(),
)


def _product_infer(g: TensorType, p: TensorType, kernel: Ints, shape: Ints, channels: int, **_: Any) -> TensorType:
    fixed_inside("taps_product", (*g.shape, *p.shape))
    columns = math.prod(kernel) * channels
    if p.rank != 3 or g.rank != len(kernel) + 2 or p.shape[1] != g.shape[-1] or -(-columns // p.shape[2]) != p.shape[0]:
        raise RuntimeError(f"taps_product: {g} and panels {p} are not of a kernel of {list(kernel)} by {channels} channels")
    return TensorType(same_dtype("taps_product", (g, p)), (g.shape[0], *shape, channels))


def _product_reference(xp: Any, g: Any, p: Any, kernel: Ints, shape: Ints, before: Ints, dilation: Ints, channels: int) -> Any:
    matrix = xp.moveaxis(p, 0, 1).reshape(p.shape[1], -1)[:, : math.prod(kernel) * channels]
    return _taps_reference(xp, xp.matmul(g, matrix).reshape(*g.shape[:-1], *kernel, channels), shape, before, dilation)


def products_added(g: Any, matrix: Any, kernel: Ints, shape: Ints, before: Ints, dilation: Ints, channels: int) -> Any:
    """`taps_product` of a matrix [O, *kernel * channels] as a product, and its elements added."""
    outer, count = matrix.shape
    grown = -(-count // panel_width(g.dtype)) * panel_width(g.dtype)  # whole panels: their tiles store results where they belong
    matrix = pad_constant.run(matrix, starts=(0, 0), shape=(outer, grown), value=0)
    rows = reshape.run(g, shape=(math.prod(g.shape[:-1]), outer))
    products = slice_.run(matmul.run(rows, matrix), starts=(0, 0), stops=(rows.shape[0], count), steps=(1, 1))
    each = reshape.run(products, shape=(*g.shape[:-1], *kernel, channels))
    return taps_added.run(each, shape=shape, before=before, dilation=dilation)


def taps_apart(g: Any, p: Any, kernel: Ints, channels: int, **how: Any) -> Any:
    """`taps_product` in operators."""
    return products_added(g, columns_of(p, math.prod(kernel) * channels), kernel=kernel, channels=channels, **how)


# gradient, panels, kernel, shape, before, dilation, channels
_PRODUCTS: tuple[tuple[Any, ...], ...] = (
    ((2, 4, 5), (1, 5, 8), (3,), (6,), (0,), (1,), 2),
    ((1, 3, 4, 7), (2, 7, 8), (3, 2), (5, 5), (0, 1), (1, 2), 2),
    ((1, 2, 9, 3), (5, 3, 32), (2, 2), (5, 10), (1, 0), (2, 1), 33),
)

taps_product: Op = declare(
    "taps_product",
    "`taps_added` of the products of each place's gradients with a matrix of kernel elements and channels, given as panels.  "
    "[N, *places, O], [P, O, width] -> [N, *shape, channels].",
    ("kernel", "shape", "before", "dilation", "channels"),
    infer=_product_infer,
    reference=rounded(_product_reference),
    lowering=Anchor("taps"),
    dtypes=tuple(dtype for dtype in FLOATING if dtype.compute is dtype),
    samples=tuple(call(fill(*g), fill(*p), *how) for g, p, *how in _PRODUCTS),
    bad=(Bad((fill(2, 4, 5), fill(1, 5, 8), (3,), (6,), (0,), (1,), 3), RuntimeError, "taps_product: .* are not of a kernel"),),
)

# ---- the input ---------------------------------------------------------------------------------------------------------


def last(x: Any) -> Any:
    """[N, C, *sizes] as [N, *sizes, C]."""
    return permute.run(x, dims=(0, *range(2, x.ndim), 1))


def first(x: Any) -> Any:
    """[N, *sizes, C] as [N, C, *sizes]."""
    return permute.run(x, dims=(0, x.ndim - 1, *range(1, x.ndim - 1)))


def _taps(kernel: int, phase: int, stride: int, before: int, dilation: int) -> tuple[int, int, int, int, int]:
    """Of one dim and phase: (first element of the kernel that meets it, how far apart they are, how many, how far apart what they
    meet is, where the first of what they meet lies after place 0)."""
    met = [k for k in range(kernel) if (phase + before - k * dilation) % stride == 0]
    if not met:
        return 0, 1, 0, 1, 0
    step = stride // math.gcd(stride, dilation)
    gap = step * dilation // stride
    return met[0], step, len(met), gap, (phase + before - met[-1] * dilation) // stride


def _phase(g: Any, weight: Any, sizes: Ints, taps: Sequence[tuple[int, int, int, int, int]], groups: int) -> Any:
    """The gradient of elements a stride apart, `sizes` of them.   g: [N, *places, O];  weight: [O, C / groups, *kernel]."""
    n, inner, outer = len(sizes), weight.shape[1], weight.shape[0] // groups
    shape = (g.shape[0], *sizes, inner * groups)
    skipped = [max(0, start) for _, _, _, _, start in taps]
    meets = all(count for _, _, count, _, _ in taps) and all(s < p for s, p in zip(skipped, g.shape[1:-1], strict=True))
    if 0 in shape or not meets:
        return constant(0, g.dtype, shape)
    dims = tuple(range(2, 2 + n))
    starts = (0, 0, *(low for low, *_ in taps))
    stops = (*weight.shape[:2], *(low + (count - 1) * step + 1 for low, step, count, _, _ in taps))
    part = slice_.run(weight, starts=starts, stops=stops, steps=(1, 1, *(step for _, step, *_ in taps)))
    part = reshape.run(flip.run(part, dims=dims), shape=(groups, outer, inner, *part.shape[2:]))
    part = permute.run(part, dims=(*range(3, 3 + n), 1, 0, 2))
    part = reshape.run(part, shape=(*part.shape[:n], outer, groups * inner))
    g = slice_.run(g, starts=(0, *skipped, 0), stops=tuple(g.shape), steps=(1,) * (n + 2))
    before = tuple(max(0, -start) for *_, start in taps)
    reach = (size + (count - 1) * gap for size, (_, _, count, gap, _) in zip(sizes, taps, strict=True))
    after = tuple(r - b - p for r, b, p in zip(reach, before, g.shape[1 : 1 + n], strict=True))
    how = {"stride": (1,) * n, "before": before, "after": after, "dilation": tuple(gap for _, _, _, gap, _ in taps)}
    return convolution_last.run(g, part, **how, groups=groups)


def input_gradient(g: Any, weight: Any, shape: Ints, stride: Ints, before: Ints, dilation: Ints, groups: int) -> Any:
    """[N, O, *places], [O, C / groups, *kernel] -> [N, C, *shape]."""
    g = last(g)
    taps = math.prod(weight.shape[2:])
    if groups == 1 and set(stride) == {1} and taps <= MOST_TAPS and 2 * math.prod(shape) > 3 * math.prod(g.shape[1:-1]):
        return first(_by_taps(g, weight, shape, before, dilation))
    parts = []
    for phase in tuples(*map(range, stride)):
        sizes = tuple(max(0, -(-(size - i) // s)) for size, i, s in zip(shape, phase, stride, strict=True))
        dims = zip(weight.shape[2:], phase, stride, before, dilation, strict=True)
        parts.append(_phase(g, weight, sizes, [_taps(*dim) for dim in dims], groups))
    return first(parts[0] if len(parts) == 1 else interleave.run(*parts, shape=shape, stride=stride))


def _by_taps(g: Any, weight: Any, shape: Ints, before: Ints, dilation: Ints) -> Any:
    """[N, *places, O], [O, C, *kernel] -> [N, *shape, C], by a product for every place."""
    outer, inner, *kernel = weight.shape
    columns = row_major.run(permute.run(weight, dims=(0, *range(2, 2 + len(kernel)), 1)))
    matrix = reshape.run(columns, shape=(outer, math.prod(kernel) * inner))
    how = {"kernel": tuple(kernel), "shape": shape, "before": before, "dilation": dilation, "channels": inner}
    if not _is_near(g, matrix):
        return products_added(g, matrix, **how)
    return taps_product.run(g, panels.run(matrix, width=panel_width(g.dtype)), **how)


def _is_near(g: Any, matrix: Any) -> bool:
    """Whether the products of an image, and the matrix, stay in the second cache, and there are images enough to share out."""
    batch, *places, outer = g.shape
    few = isinstance(batch, int) and batch < LEAST_IMAGES
    rows = math.prod(places)
    return not few and rows >= LEAST_PLACES and outer <= K_BLOCK and max(rows, outer) * matrix.shape[1] <= NEAR


# ---- the weight --------------------------------------------------------------------------------------------------------


def weight_gradient(g: Any, x: Any, kernel: Ints, stride: Ints, before: Ints, after: Ints, dilation: Ints) -> Any:
    """[N, O, *places], [N, C, *sizes] -> [O, C, *kernel], over one or two dims, in one group."""
    n = len(kernel)
    g, x = row_major.run(last(g)), last(x)
    if x.shape[-1] < FEW_CHANNELS and (any(before) or any(a > 0 for a in after)):
        sizes = tuple(s + b + max(0, a) for s, b, a in zip(x.shape[1:-1], before, after, strict=True))
        x = pad_constant.run(x, starts=(0, *before, 0), shape=(x.shape[0], *sizes, x.shape[-1]), value=0)
        before = (0,) * n
    parts, images = parts_of(g, x, kernel)
    how = {"kernel": kernel, "stride": stride, "before": before, "dilation": dilation}
    sums = convolution_weight_sums.run(g, row_major.run(x), **how, parts=parts, images=images)
    sums = reduce_sum.run(sums, dim=0) if parts > 1 else reshape.run(sums, shape=tuple(sums.shape[1:]))
    return row_major.run(permute.run(sums, dims=(n + 1, n, *range(n))))
