"""grouped_mm: matrix products of groups whose sizes are data.

Enters: matrices and where groups end.  Leaves: one operator.  Never here: a kernel that skips what lies outside a group; every
group multiplies the whole and masks it, so the work grows with the number of groups.
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import DType, int32
from graphc.ir.op import Bad
from graphc.ops.arguments import cast, constant, in_compute_dtype, of_type, require_floating, tensor
from graphc.ops.comparison import ge, logical_and, lt, where
from graphc.ops.contract import bmm, matmul
from graphc.ops.create import iota
from graphc.ops.declare import FLOATING, Shorthand, call, fill
from graphc.ops.joining import cat
from graphc.ops.movement import reshape, slice_, unsqueeze
from graphc.ops.reduce import fold, reduce_sum

_NAME = "grouped_mm"


def _members(offs: Any, size: Any) -> Any:
    """Which of `size` places belong to each group.  ints [G] -> bool [G, size]."""
    groups = offs.shape[0]
    before = slice_.run(offs, starts=(0,), stops=(groups - 1,), steps=(1,))
    starts = cat((constant(0, offs.dtype, (1,)), before))
    places = reshape.run(iota.run(size=size, dtype=offs.dtype), shape=(1, size))
    return logical_and(ge(places, unsqueeze.run(starts, dim=1)), lt(places, unsqueeze.run(offs, dim=1)))


def _masked(x: Any, mask: Any) -> Any:
    return where(mask, x, constant(0, x.dtype))


@in_compute_dtype
def _product(mat_a: Any, mat_b: Any, *offs: Any) -> Any:
    if not offs:
        return bmm(mat_a, mat_b)
    shared = mat_a.shape[-1]
    if mat_a.ndim == 2 and mat_b.ndim == 2:  # groups of the summed dim
        mask = _members(offs[0], shared)
        return matmul(_masked(unsqueeze.run(mat_a, dim=0), unsqueeze.run(mask, dim=1)), mat_b)
    every = matmul(mat_a, mat_b)
    if mat_a.ndim == 2:  # groups of rows
        mask = unsqueeze.run(_members(offs[0], mat_a.shape[0]), dim=2)
    else:  # groups of columns
        mask = unsqueeze.run(_members(offs[0], mat_b.shape[1]), dim=1)
    return fold(reduce_sum, _masked(every, mask), (0,), False)


def _grouped_mm(mat_a: Any, mat_b: Any, *, offs: Any = None, bias: Any = None, out_dtype: DType | None = None) -> Any:
    mat_a, mat_b = require_floating(_NAME, "mat_a", mat_a), tensor(_NAME, "mat_b", mat_b)
    shown = f"{of_type(mat_a)} and {of_type(mat_b)}"
    if mat_a.ndim not in (2, 3) or mat_b.ndim not in (2, 3):
        raise RuntimeError(f"{_NAME}: mat_a and mat_b have to be 2 or 3 dimensional tensors, got {shown}")
    if mat_a.dtype is not mat_b.dtype:
        raise RuntimeError(f"{_NAME}: mat_a and mat_b must have one dtype, got {shown}")
    if mat_a.shape[-1] != mat_b.shape[-2]:
        raise RuntimeError(f"{_NAME}: contraction dimension of mat_a and mat_b must match, got {shown}")
    if bias is not None:
        raise RuntimeError(f"{_NAME}: Bias not supported yet")
    jagged = mat_a.ndim == 2 or mat_b.ndim == 2
    if jagged != (offs is not None):
        raise RuntimeError(f"{_NAME}: Have to provide offsets if there is a 2d matrix, or no offset if both are 3d: {shown}")
    if offs is not None and (tensor(_NAME, "offs", offs).dtype is not int32 or offs.ndim != 1):
        raise RuntimeError(f"{_NAME}: Offsets have to be int32 of one dim, got {of_type(offs)}")
    out = _product(mat_a, mat_b) if offs is None else _product(mat_a, mat_b, offs)
    return out if out_dtype is None else cast(out, out_dtype)


_ENDS = fill(2, dtype=int32, low=1, high=3, grad=False)

grouped_mm = Shorthand(
    _NAME,
    doc="Products of groups of rows, columns or summed places, which end where `offs` says.  [m, k], [g, k, n] -> [m, n]; "
    "[g, m, k], [k, n] -> [m, n]; [m, k], [k, n] -> [g, m, n]; [g, m, k], [g, k, n] -> [g, m, n].",
    rule=_grouped_mm,
    dtypes=FLOATING,
    samples=(
        call(fill(4, 3), fill(2, 3, 5), offs=_ENDS),
        call(fill(4, 3), fill(3, 5), offs=_ENDS),
        call(fill(2, 4, 3), fill(3, 5), offs=_ENDS),
        call(fill(2, 4, 3), fill(2, 3, 5)),
    ),
    bad=(
        Bad((fill(4, 3), fill(2, 3, 5)), RuntimeError, "grouped_mm: Have to provide offsets"),
        Bad((fill(4, 3), fill(2, 4, 5)), RuntimeError, "grouped_mm: contraction dimension"),
    ),
    methods=(),
    functions=("nn.functional.grouped_mm",),
)
