"""Matrices cut into panels of columns, and products with them.

Enters: matrices [..., K, N].  Leaves: panels [..., ceil(N / width), K, width], the order in which a product reads its right
operand, so that nothing is left to copy.  Never here: which matrices are worth it (passes.prepare).

A product with panels has the bits of `matmul`: they hold the same elements, and the zeros beyond the last column are not read.
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import DType, bfloat16, bool_, float16, float32, int8
from graphc.ir.op import Anchor, Bad, Op, Size, TensorType, broadcast_shapes
from graphc.ops.arguments import rounded, same_dtype, tensor
from graphc.ops.declare import FLOATING, call, fill
from graphc.ops.movement import permute, reshape

NARROW = (bfloat16, float16, int8)  # what panels may be of where the other operand is float32
FEW_ROWS = 4  # of the other operand, up to which a product reads columns as they lie nearly as fast as panels
PANEL_NBYTES = 128  # two of the widest registers there are: their sums fit into registers for 12 rows


def panel_width(dtype: DType, columns: Size | None = None) -> int:
    """The columns of a panel of which products are made in `dtype`; fewer where most of the last panel would be empty."""
    width = int(PANEL_NBYTES // dtype.compute.itemsize)
    if not isinstance(columns, int) or columns > 4 * width:
        return width
    if columns <= width // 4:
        return width // 4
    return width // 2 if -(-columns * 2 // width) % 2 else width


def _panels_infer(w: TensorType, width: int) -> TensorType:
    if w.rank < 2 or width < 1 or w.dtype is bool_:
        raise RuntimeError(f"panels: expected numbers of rank 2 or more and a width of at least 1, got {w} and {width}")
    *batch, k, n = w.shape
    return TensorType(w.dtype, (*batch, (n + width - 1) // width, k, width))


def _panels_reference(xp: Any, w: Any, width: int) -> Any:
    *batch, k, n = w.shape
    count = -(-n // width)
    padded = xp.zeros((*batch, k, count * width), w.dtype)
    padded[..., :n] = w
    return xp.ascontiguousarray(xp.moveaxis(padded.reshape(*batch, k, count, width), -2, -3))


def _side_by_side(p: Any) -> Any:
    """[..., P, K, width] -> [..., K, P * width]."""
    *batch, count, k, width = p.shape
    rank = len(batch)
    rows = permute.run(p, dims=(*range(rank), rank + 1, rank, rank + 2))
    return reshape.run(rows, shape=(*batch, k, count * width))


def columns_of(p: Any, columns: Size) -> Any:
    """The matrix [..., K, columns] of which `p` are the panels."""
    rows = _side_by_side(p)
    stops = (*rows.shape[:-1], columns)
    return Op.table["slice"].run(rows, starts=(0,) * len(stops), stops=stops, steps=(1,) * len(stops))


panels: Op = Op(
    "panels",
    doc="Columns in panels of `width`, zeros beyond the last.  [..., K, N] -> [..., ceil(N / width), K, width].",
    signature="(w, width)",
    prepare=lambda w, width: ((tensor("panels", "w", w),), {"width": width}),
    infer=_panels_infer,
    reference=_panels_reference,
    grad=lambda g, out, w, width: (columns_of(g, w.shape[-1]),),
    lowering=Anchor("panels"),
    attrs=("width",),
    dtypes=FLOATING,
    samples=(
        call(fill(3, 4), 4),
        call(fill(5, 7), 4),
        call(fill(2, 3, 33), 32),
        call(fill(70, 40), 32),
        call(fill(1, 1), 16),
    ),
    bad=(Bad((fill(3), 4), RuntimeError, "panels: expected numbers of rank 2 or more"),),
    methods=(),
    functions=(),
)


def _product_infer(a: TensorType, p: TensorType, columns: int) -> TensorType:
    dtype = a.dtype if a.dtype is float32 and p.dtype in NARROW else same_dtype("matmul_panels", (a, p))
    if a.rank < 2 or p.rank < 3 or a.shape[-1] != p.shape[-2]:
        raise RuntimeError(f"matmul_panels: {a} and panels {p} do not fit")
    *batch, count, _, width = p.shape
    if not isinstance(width, int):
        raise RuntimeError(f"matmul_panels: panels must be of a fixed width: {p}")
    if (columns + width - 1) // width != count:
        raise RuntimeError(f"matmul_panels: {columns} columns are not in panels {p}")
    return TensorType(dtype, (*broadcast_shapes("matmul_panels", (a.shape[:-2], tuple(batch))), a.shape[-2], columns))


def _product_reference(xp: Any, a: Any, p: Any, columns: int) -> Any:
    *batch, count, k, width = p.shape
    rows = xp.moveaxis(p, -3, -2).reshape(*batch, k, count * width)
    return xp.matmul(a, rows[..., :columns])


_of_one_dtype = rounded(_product_reference)


def _mixed_reference(xp: Any, a: Any, p: Any, columns: int) -> Any:
    return _of_one_dtype(xp, a, p.astype(a.dtype), columns=columns)


def _product_grad(g: Any, out: Any, a: Any, p: Any, columns: int) -> tuple[Any, Any]:
    from graphc.ops.arguments import cast
    from graphc.ops.contract import matmul, swapped
    from graphc.ops.movement import summed_to

    whole = cast(columns_of(p, columns), a.dtype)
    if p.dtype is not a.dtype:
        return summed_to(matmul.run(g, swapped(whole)), tuple(a.shape)), None
    to_whole = summed_to(matmul.run(swapped(a), g), tuple(whole.shape))
    return summed_to(matmul.run(g, swapped(whole)), tuple(a.shape)), panels.run(to_whole, width=p.shape[-1])


matmul_panels: Op = Op(
    "matmul_panels",
    doc="The product with a matrix of that many columns given as panels.  [..., M, K], [..., P, K, width] -> [..., M, columns].  "
    "Panels of fewer bits are read as float32.",
    signature="(a, p, columns)",
    prepare=lambda a, p, columns: (
        (tensor("matmul_panels", "a", a), tensor("matmul_panels", "p", p)),
        {"columns": columns},
    ),
    infer=_product_infer,
    reference=_mixed_reference,
    grad=_product_grad,
    lowering=Anchor("matmul_panels"),
    attrs=("columns",),
    dtypes=FLOATING,
    samples=(
        call(fill(3, 4), fill(2, 4, 4), 7),
        call(fill(2, 33), fill(2, 33, 32), 64),
        call(fill(2, 5, 3), fill(1, 3, 32), 9),
        call(fill(1, 3), fill(4, 2, 3, 16), 32),
        call(fill(1, 1), fill(1, 1, 8), 1),
    ),
    bad=(
        Bad((fill(3, 5), fill(2, 4, 4), 7), RuntimeError, "matmul_panels: .* do not fit"),
        Bad((fill(3, 4), fill(2, 4, 4), 9), RuntimeError, "matmul_panels: 9 columns are not in panels"),
    ),
    methods=(),
    functions=(),
)
