"""Convolutions of three by three made of 16 products a square of four results: Winograd's F(2x2, 3x3).

Enters: images [N, H, W, C], filters [groups, 3, 3, C / groups, O / groups].  Leaves: operators that `convolution_last` is made of.
Never here: which convolutions are made this way (`convolution_last`), tiling.

With B, G and A of Lavin and Gray ("Fast algorithms for convolutional neural networks", 2016), a square of results is
At [ sum over channels of (G g Gt) * (Bt d B) ] A.  Columns are transformed before rows.  Of three numbers G makes g0,
((g0 + g2) + g1) / 2, ((g0 + g2) - g1) / 2 and g2; of four Bt makes d0 - d2, d1 + d2, d2 - d1 and d1 - d3, and At
(m0 + m1) + m2 and (m1 - m2) - m3.  The sum over channels is one chain of fma from zero.  Zeros around an image take part.
It errs less than the direct sum, whose chains are longer.
"""

from __future__ import annotations

from typing import Any

from graphc.ir.op import Anchor, Bad, Op, TensorType
from graphc.ops.arguments import rounded, same_dtype, tensor
from graphc.ops.declare import FLOATING, call, fill
from graphc.ops.panels import panels
from graphc.ops.windows import Ints, fixed, fixed_inside

_DTYPES = tuple(dtype for dtype in FLOATING if dtype.compute is dtype)
_TO_PATCH = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_TO_FILTER = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_TO_RESULT = ((1, 1, 1, 0), (0, 1, -1, -1))

# ---- filters -----------------------------------------------------------------------------------------------------------


def _filters_infer(weight: TensorType, width: int) -> TensorType:
    if weight.rank != 5 or weight.shape[1:3] != (3, 3):
        raise RuntimeError(f"winograd_filters: expected [groups, 3, 3, C, O], got {weight}")
    groups, _, _, inner, outer = fixed("winograd_filters", weight.shape)
    return TensorType(weight.dtype, (groups, 16, -(-outer // width), inner, width))


def _filters_reference(xp: Any, weight: Any, width: int) -> Any:
    matrix = xp.asarray(_TO_FILTER, dtype=weight.dtype)
    made = xp.einsum("ai,bj,gijco->gabco", matrix, matrix, weight).astype(weight.dtype)
    made = made.reshape(made.shape[0], 16, *made.shape[3:])
    short = -made.shape[-1] % width
    out = panels.reference(xp, made, width=width)
    if short:  # what lies beyond the last column is not read
        out[:, :, -1, :, width - short :] = out[:, :, -1, :, width - short - 1 : width - short]
    return out


winograd_filters = Op(
    "winograd_filters",
    doc="Filters transformed for `winograd`, as panels.  [groups, 3, 3, C, O] -> [groups, 16, ceil(O / width), C, width].",
    signature="(weight, width)",
    prepare=lambda weight, width: ((tensor("winograd_filters", "weight", weight),), {"width": width}),
    infer=_filters_infer,
    reference=rounded(_filters_reference),
    grad=None,
    lowering=Anchor("winograd_filters"),
    attrs=("width",),
    dtypes=_DTYPES,
    samples=(call(fill(1, 3, 3, 2, 5), 4), call(fill(2, 3, 3, 3, 16), 16), call(fill(1, 3, 3, 1, 40), 32)),
    bad=(Bad((fill(1, 3, 2, 4, 4), 4), RuntimeError, "winograd_filters: expected"),),
    methods=(),
    functions=(),
)

# ---- images ------------------------------------------------------------------------------------------------------------


def _infer(x: TensorType, filters: TensorType, before: Ints, places: Ints, groups: int, columns: int) -> TensorType:
    dtype = same_dtype("winograd", (x, filters))
    fixed_inside("winograd", (*x.shape, *filters.shape))
    fits = x.rank == 4 and filters.rank == 5 and filters.shape[:2] == (groups, 16) and x.shape[3] == filters.shape[3] * groups
    if not fits or -(-columns // groups // filters.shape[4]) != filters.shape[2]:
        raise RuntimeError(f"winograd: images {x} and filters {filters} of {columns} channels do not fit with groups={groups}")
    return TensorType(dtype, (x.shape[0], *places, columns))


def _reference(xp: Any, x: Any, filters: Any, before: Ints, places: Ints, groups: int, columns: int) -> Any:
    each, (batch, high, wide, channels) = columns // groups, x.shape
    down, across = (-(-p // 2) for p in places)
    padded = xp.zeros((batch, max(2 * down + 2, before[0] + high), max(2 * across + 2, before[1] + wide), channels), x.dtype)
    padded[:, before[0] : before[0] + high, before[1] : before[1] + wide] = x
    steps = [[padded[:, i : i + 2 * down : 2, j : j + 2 * across : 2] for j in range(4)] for i in range(4)]
    patches = xp.stack([xp.stack(line, -1) for line in steps], -2)  # [N, down, across, C, 4, 4]
    to_patch, to_result = (xp.asarray(m, dtype=x.dtype) for m in (_TO_PATCH, _TO_RESULT))
    patches = xp.einsum("ai,bj,nyxcij->nyxabc", to_patch, to_patch, patches)
    patches = patches.reshape(batch, down, across, 4, 4, groups, channels // groups)
    u = xp.moveaxis(filters, 2, 3).reshape(groups, 4, 4, channels // groups, -1)[..., :each]
    products = xp.einsum("nyxabgc,gabco->nyxabgo", patches, u)
    out = xp.einsum("ia,jb,nyxabgo->nyixjgo", to_result, to_result, products)
    return out.reshape(batch, 2 * down, 2 * across, columns)[:, : places[0], : places[1]].astype(x.dtype)


# x, filters, before, places, groups, columns
_SAMPLES: tuple[tuple[Any, ...], ...] = (
    ((2, 4, 4, 3), (1, 16, 1, 3, 4), (1, 1), (4, 4), 1, 4),
    ((1, 7, 5, 4), (2, 16, 2, 2, 4), (0, 1), (5, 5), 2, 12),
    ((3, 3, 6, 64), (1, 16, 1, 64, 32), (1, 1), (3, 6), 1, 32),
    ((1, 5, 70, 16), (1, 16, 1, 16, 16), (1, 1), (5, 70), 1, 16),
)

winograd = Op(
    "winograd",
    doc="Cross-correlation of three by three with transformed filters.  [N, H, W, C], [groups, 16, P, C / groups, width] -> "
    "[N, *places, columns].",
    signature="(x, filters, before, places, groups, columns)",
    prepare=lambda x, filters, before, places, groups, columns: (
        (tensor("winograd", "x", x), tensor("winograd", "filters", filters)),
        {"before": before, "places": places, "groups": groups, "columns": columns},
    ),
    infer=_infer,
    reference=rounded(_reference),
    grad=None,
    lowering=Anchor("winograd"),
    attrs=("before", "places", "groups", "columns"),
    dtypes=_DTYPES,
    samples=tuple(call(fill(*x), fill(*filters), *how) for x, filters, *how in _SAMPLES),
    bad=(Bad((fill(1, 4, 4, 3), fill(1, 16, 1, 2, 4), (1, 1), (4, 4), 1, 4), RuntimeError, "winograd: images .* do not fit"),),
    methods=(),
    functions=(),
)
