"""Convolution of images whose channels are their last dim, as compiled graphs have them.

Enters: inputs [N, *sizes, C], weights [*kernel, C / groups, O].  Leaves: `convolution_last`, a composite of a matmul, of Winograd's
form or of `convolution_panels`, which has a nest of its own.  Never here: PyTorch's order of dims (`convolution`), tiling.

An element of the result is one chain of fma over the kernel's elements in row-major order and, under each of them, the channels,
from zero; zeros around an input take part.  Which convolutions are made in Winograd's way depends on kernel, channels and places
alone (`by_winograd`); that form is told in `ops.winograd`.  One of very few places is `matmul`, with its blocks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.ir.op import Anchor, Bad, Composite, Op, TensorType
from graphc.ops.arguments import constant, in_compute_dtype, rounded, same_dtype, tensor
from graphc.ops.contract import matmul
from graphc.ops.declare import EVERY, FLOATING, call, fill
from graphc.ops.elementwise import Prepared, elementwise
from graphc.ops.joining import cat, pad_constant
from graphc.ops.movement import permute, reshape, slice_
from graphc.ops.panels import panel_width, panels
from graphc.ops.windows import Ints, fixed_inside, window_count, windows
from graphc.ops.winograd import winograd, winograd_filters

_ATTRS = ("stride", "before", "after", "dilation", "groups")
NARROWEST = 4  # columns of a panel
LEAST_CHANNELS = 16  # of input and output, for which transforms pay
WIDEST = 256  # columns of results that Winograd's nest has at hand
MOST_UNDER = 1 << 19  # elements of input under a row of results
MOST_PIECES = 64  # of an image too wide for scratch; a wider one becomes rows of one product
FEW_PLACES = 4  # below: too few for a tile, so those of all images are rows of one product


row_major = elementwise(
    "row_major",
    ("x",),
    doc="x, stored in row-major order before it is read.  [...] -> [...].",
    rule=lambda x: x,
    reference=lambda xp, x: xp.array(x),
    grad=lambda g, out, x: (g,),
    kinds="buifc",
    dtypes=EVERY,
    methods=(),
    functions=(),
)


def places_of(sizes: Any, kernel: Any, stride: Ints, before: Ints, after: Ints, dilation: Ints) -> tuple[Any, ...]:
    """The sizes of a convolution's result."""
    grown = (s + b + a for s, b, a in zip(sizes, before, after, strict=True))
    return tuple(map(window_count, grown, kernel, stride, dilation))


def width_for(columns: int, most: int) -> int:
    """The width of panels for that many columns: as few vectors of half of `most` as can be, then as few panels as can be."""
    vector = most // 2
    if columns <= vector:
        return next(w for w in (NARROWEST, 2 * NARROWEST, vector) if w >= min(columns, vector))
    if columns <= vector + vector // 2:
        return vector + vector // 2
    return min((most, vector), key=lambda w: (-(-columns // w) * (w // vector), -w))


def direct_width(columns: int, most: int) -> int:
    """`width_for`, or one wider panel, where half of its last vector is enough: half a vector is half the work on many machines."""
    halves = -(-4 * columns // most)
    return halves * most // 4 if most < columns <= 2 * most and halves % 2 else width_for(columns, most)


def by_winograd(kernel: Ints, places: Ints, stride: Ints, dilation: Ints, channels: Ints) -> bool:
    """Whether Winograd's form takes clearly fewer operations.   channels: (input channels, output channels, groups)."""
    inner, outer, groups = channels
    if kernel != (3, 3) or {*stride, *dilation} != {1} or groups != 1 or min(inner, outer) < LEAST_CHANNELS:
        return False
    return 9 * math.prod(places) >= 1.5 * 16 * math.prod(-(-p // 2) for p in places)


# ---- on panels ---------------------------------------------------------------------------------------------------------


def _panels_infer(x: TensorType, p: TensorType, kernel: Ints, places: Ints, groups: int, columns: int, **how: Any) -> TensorType:
    dtype = same_dtype("convolution_panels", (x, p))
    fixed_inside("convolution_panels", (*x.shape, *p.shape))
    depth = math.prod(kernel) * (x.shape[-1] // groups)
    fits = p.rank == 4 and p.shape[0] == groups and p.shape[2] == depth and columns % groups == 0
    if x.rank != len(kernel) + 2 or not fits or -(-columns // groups // p.shape[3]) != p.shape[1]:
        raise RuntimeError(f"convolution_panels: input {x} and panels {p} of {columns} channels do not fit with groups={groups}")
    return TensorType(dtype, (x.shape[0], *places, columns))


def _panels_reference(
    xp: Any, x: Any, p: Any, kernel: Ints, stride: Ints, before: Ints, places: Ints, dilation: Ints, groups: int, columns: int
) -> Any:
    each, inner = columns // groups, x.shape[-1] // groups
    weight = xp.moveaxis(p, 1, 2).reshape(groups, *kernel, inner, -1)[..., :each]
    weight = xp.moveaxis(weight, 0, -2).reshape(*kernel, inner, columns)
    return _sums(xp, x, weight, places, stride, before, dilation, groups)


def _sums(xp: Any, x: Any, weight: Any, places: Ints, stride: Ints, before: Ints, dilation: Ints, groups: int) -> Any:
    """[N, *sizes, C], [*kernel, C / groups, O] -> [N, *places, O]."""
    n, kernel = len(places), weight.shape[: len(places)]
    reach = [b + (p - 1) * s + d * (k - 1) + 1 for b, p, s, d, k in zip(before, places, stride, dilation, kernel, strict=True)]
    grown = xp.zeros(
        (x.shape[0], *(max(r, b + s) for r, b, s in zip(reach, before, x.shape[1:-1], strict=True)), x.shape[-1]), x.dtype
    )
    grown[(slice(None), *(slice(b, b + s) for b, s in zip(before, x.shape[1:-1], strict=True)))] = x
    grown = grown.reshape(*grown.shape[: n + 1], groups, -1)
    weight = weight.reshape(*weight.shape[: n + 1], groups, -1)
    out = xp.zeros((x.shape[0], *places, groups, weight.shape[-1]), x.dtype)
    for j in np.ndindex(*kernel):
        under = tuple(slice(k * d, k * d + s * (p - 1) + 1, s) for k, d, s, p in zip(j, dilation, stride, places, strict=True))
        out = out + xp.einsum("n...gc,cgo->n...go", grown[(slice(None), *under)], weight[j]).astype(x.dtype)
    return out.reshape(*out.shape[: n + 1], -1)


def _prepare(name: str, attrs: tuple[str, ...]) -> Any:
    def prepare(x: Any, y: Any, *given: Any) -> Prepared:
        return (tensor(name, "x", x), tensor(name, "y", y)), dict(zip(attrs, given, strict=True))

    return prepare


def declare(name: str, doc: str, attrs: tuple[str, ...], **more: Any) -> Op:
    """An operator of two tensors and attributes that no namespace has."""
    return Op(
        name,
        doc=doc,
        signature=f"(x, y, {', '.join(attrs)})",
        prepare=_prepare(name, attrs),
        grad=None,
        attrs=attrs,
        methods=(),
        functions=(),
        **more,
    )


# x, panels, kernel, stride, before, places, dilation, groups, columns
_PANELS: tuple[tuple[Any, ...], ...] = (
    ((2, 6, 3), (1, 1, 6, 4), (2,), (1,), (0,), (5,), (1,), 1, 4),
    ((1, 7, 6, 4), (2, 1, 18, 4), (3, 3), (1, 1), (1, 1), (7, 6), (1, 1), 2, 6),
    ((2, 9, 8, 2), (1, 2, 12, 32), (3, 2), (2, 2), (1, 0), (5, 4), (1, 2), 1, 40),
    ((1, 3, 35, 5), (1, 1, 45, 16), (3, 3), (1, 1), (1, 1), (3, 35), (1, 1), 1, 16),
    ((2, 3, 4, 3, 2), (1, 1, 16, 4), (2, 2, 2), (1, 2, 1), (1, 0, 1), (4, 2, 4), (1, 1, 1), 1, 3),
    ((1, 5, 5, 3), (1, 1, 3, 4), (1, 1), (2, 2), (0, 0), (3, 3), (1, 1), 1, 3),
)

convolution_panels: Op = declare(
    "convolution_panels",
    "`convolution_last` with the weight of each group as panels.  [N, *sizes, C], [groups, P, kernel * C / groups, width] -> "
    "[N, *places, columns].",
    ("kernel", "stride", "before", "places", "dilation", "groups", "columns"),
    infer=_panels_infer,
    reference=rounded(_panels_reference),
    lowering=Anchor("convolution"),
    dtypes=tuple(dtype for dtype in FLOATING if dtype.compute is dtype),
    samples=tuple(call(fill(*x), fill(*p), *how) for x, p, *how in _PANELS),
    bad=(
        Bad(
            (fill(1, 4, 3), fill(1, 1, 5, 4), (2,), (1,), (0,), (3,), (1,), 1, 4),
            RuntimeError,
            "convolution_panels: input .* do not fit",
        ),
    ),
)

# ---- on weights --------------------------------------------------------------------------------------------------------


def _convolution_last(x: Any, weight: Any, stride: Ints, before: Ints, after: Ints, dilation: Ints, groups: int) -> Any:
    n = len(stride)
    kernel, inner, outer = tuple(weight.shape[:n]), weight.shape[n], weight.shape[n + 1]
    places = places_of(x.shape[1:-1], kernel, stride, before, after, dilation)
    shape = (x.shape[0], *places, outer)
    if 0 in (*shape, *weight.shape, *x.shape):
        return constant(0, x.dtype, shape)
    simple = groups == 1 and min(after) >= 0
    if simple and math.prod(places) < FEW_PLACES:
        return reshape.run(_places_as_rows(x, weight, stride, before, after, dilation), shape=shape)
    depth, each = math.prod(kernel) * inner, outer // groups
    most_columns = panel_width(x.dtype)
    faster = by_winograd(kernel, places, stride, dilation, (inner, outer, groups))
    under = math.prod(d * (k - 1) + 1 for d, k in zip(dilation[:-1], kernel[:-1], strict=True)) * inner * stride[-1]
    most = WIDEST if faster else max(1, MOST_UNDER // under - dilation[-1] * kernel[-1])
    if places[-1] > most:
        if simple and places[-1] > most * MOST_PIECES:
            return reshape.run(_places_as_rows(x, weight, stride, before, after, dilation), shape=shape)
        how = {"stride": stride, "before": before, "after": after, "dilation": dilation, "groups": groups}
        return _in_pieces(x, weight, places[-1], most, how)
    if faster:
        filters = winograd_filters.run(reshape.run(weight, shape=(1, *weight.shape)), width=width_for(outer, most_columns))
        return winograd.run(x, filters, before=before, places=places, groups=1, columns=outer)
    columns = reshape.run(weight, shape=(depth, groups, each))
    columns = reshape.run(columns, shape=(1, depth, each)) if groups == 1 else permute.run(columns, dims=(1, 0, 2))
    packed = panels.run(columns, width=direct_width(each, most_columns))
    how = {"kernel": kernel, "stride": stride, "before": before, "places": places, "dilation": dilation}
    return convolution_panels.run(x, packed, **how, groups=groups, columns=outer)


def _in_pieces(x: Any, weight: Any, count: int, most: int, how: dict[str, Any]) -> Any:
    """Very wide images in pieces of at most that many columns of results, so that what lies under a row of them fits in scratch."""
    n, (stride, before, dilation) = len(how["stride"]), (how[name][-1] for name in ("stride", "before", "dilation"))
    wide, parts = x.shape[n], []
    for begin in range(0, count, most):
        end = min(count, begin + most)
        low, high = begin * stride - before, (end - 1) * stride + dilation * (weight.shape[n - 1] - 1) + 1 - before
        first, last = min(max(low, 0), wide), min(max(high, 0), wide)
        stops = (*x.shape[:n], last, x.shape[n + 1])
        piece = slice_.run(x, starts=(*(0,) * n, first, 0), stops=stops, steps=(1,) * x.ndim)
        sides = {"before": (*how["before"][:-1], first - low), "after": (*how["after"][:-1], high - last)}
        parts.append(convolution_last.run(piece, weight, **{**how, **sides}))
    return cat.run(*parts, dim=n)


def _places_as_rows(x: Any, weight: Any, stride: Ints, before: Ints, after: Ints, dilation: Ints) -> Any:
    """[N * places, O]: what lies under a place is a row."""
    n, (*kernel, inner, outer) = len(stride), weight.shape
    if any(before) or any(after):
        sizes = (s + b + a for s, b, a in zip(x.shape[1:-1], before, after, strict=True))
        x = pad_constant.run(x, starts=(0, *before, 0), shape=(x.shape[0], *sizes, inner), value=0)
    view = windows.run(permute.run(x, dims=(0, n + 1, *range(1, n + 1))), kernel=tuple(kernel), stride=stride, dilation=dilation)
    view = permute.run(view, dims=(0, *range(2, 2 + 2 * n), 1))
    depth = math.prod(kernel) * inner
    rows = reshape.run(row_major.run(view), shape=(math.prod(view.shape) // depth, depth))
    return matmul.run(rows, reshape.run(weight, shape=(depth, outer)))


def _infer(x: TensorType, weight: TensorType, **how: Any) -> TensorType:
    same_dtype("convolution_last", (x, weight))
    n, groups = len(how["stride"]), how["groups"]
    fixed_inside("convolution_last", (*x.shape, *weight.shape))
    if x.rank != n + 2 or weight.rank != n + 2 or x.shape[-1] != weight.shape[n] * groups or weight.shape[-1] % groups:
        raise RuntimeError(f"convolution_last: input {x} and weight {weight} do not fit with groups={groups}")
    sizes = places_of(x.shape[1:-1], weight.shape[:n], how["stride"], how["before"], how["after"], how["dilation"])
    if any(s < 0 for s in sizes):
        raise RuntimeError(f"convolution_last: the kernel of {weight} is larger than the padded input {x}")
    return TensorType(x.dtype, (x.shape[0], *sizes, weight.shape[-1]))


def _reference(xp: Any, x: Any, weight: Any, stride: Ints, before: Ints, after: Ints, dilation: Ints, groups: int) -> Any:
    places = places_of(x.shape[1:-1], weight.shape[: len(stride)], stride, before, after, dilation)
    if 0 in (*places, *x.shape, *weight.shape):
        return xp.zeros((x.shape[0], *places, weight.shape[-1]), x.dtype)
    return _sums(xp, x, weight, places, stride, before, dilation, groups)


# input, weight, (stride, before, after, dilation, groups)
_SAMPLES: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[Any, ...]], ...] = (
    ((2, 6, 3), (2, 3, 4), ((1,), (0,), (0,), (1,), 1)),
    ((1, 7, 6, 4), (3, 3, 2, 6), ((1, 1), (1, 1), (1, 1), (1, 1), 2)),
    ((2, 9, 8, 2), (3, 2, 2, 3), ((2, 2), (1, 0), (1, 1), (1, 2), 1)),
    ((1, 5, 4, 3), (1, 1, 3, 33), ((1, 1), (0, 0), (0, 0), (1, 1), 1)),
    ((1, 5, 4, 3), (1, 1, 3, 5), ((2, 2), (0, 0), (0, 0), (1, 1), 1)),
    ((1, 5, 5, 2), (3, 3, 2, 3), ((2, 2), (1, 1), (-1, 0), (1, 1), 1)),
    ((2, 6, 5, 16), (3, 3, 16, 24), ((1, 1), (1, 1), (1, 1), (1, 1), 1)),
    ((3, 3, 3, 2), (3, 3, 2, 3), ((2, 2), (0, 1), (0, 0), (1, 1), 1)),
    ((2, 3, 4, 3, 2), (2, 2, 2, 2, 2), ((1, 1, 1), (0, 0, 0), (0, 0, 0), (1, 1, 1), 1)),
)

convolution_last: Op = declare(
    "convolution_last",
    "Cross-correlation with zero padding `before` and `after`, channels last.  [N, *sizes, C], [*kernel, C / groups, O] -> "
    "[N, *places, O].",
    _ATTRS,
    infer=_infer,
    reference=rounded(_reference),
    lowering=Composite(in_compute_dtype(_convolution_last)),
    dtypes=FLOATING,
    samples=tuple(call(fill(*x), fill(*w), *how) for x, w, how in _SAMPLES),
    bad=(
        Bad((fill(1, 4, 3), fill(2, 2, 2), (1,), (0,), (0,), (1,), 1), RuntimeError, "convolution_last: input .* do not fit"),
        Bad(
            (fill(1, 4, 2), fill(6, 2, 2), (1,), (0,), (0,), (1,), 1), RuntimeError, "convolution_last: the kernel of .* is larger"
        ),
    ),
)
