"""Diagonals and triangles of matrices: views of them, writing to them, matrices made of them.

Enters: tensors.  Leaves: operators.  Never here: other movement (`movement`, `views`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from graphc.dims import Dim, product
from graphc.dtypes import DType, get_default_dtype, int64, promote_types
from graphc.ir.loops import Expr, Size
from graphc.ir.op import Bad, Composite, Element, Movement, Op, Shape, TensorType, shape_text
from graphc.ops.arguments import constant, is_zero, of_type, one_dim, one_size, same_dtype, tensor, zeros_like
from graphc.ops.comparison import where
from graphc.ops.create import iota
from graphc.ops.declare import EVERY, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import clamped, select
from graphc.ops.expressions import size as size_value
from graphc.ops.movement import Index, reshape

# ---- diagonal ------------------------------------------------------------------------------------------------------


def _planes(name: str, x: Any, offset: Any, dim1: Any, dim2: Any) -> dict[str, int]:
    """The attributes of a diagonal.  Raises IndexError or RuntimeError."""
    first, second = one_dim(name, dim1, x.ndim), one_dim(name, dim2, x.ndim)
    if first == second or x.ndim < 2:
        raise RuntimeError(f"{name}: diagonal dimensions cannot be identical {dim1}, {dim2} of {of_type(x)}")
    offset = one_size(name, "offset", offset)
    return {"offset": offset, "dim1": first, "dim2": second}


def _length(name: str, shape: Shape, offset: int, dim1: int, dim2: int) -> Size:
    """How many elements a diagonal has.  Raises RuntimeError where a size is symbolic and the offset is not 0."""
    rows, columns = shape[dim1], shape[dim2]
    if isinstance(rows, Dim) or isinstance(columns, Dim):
        if rows == columns and offset == 0:
            return rows
        raise RuntimeError(f"{name}: the sizes of {shape_text(shape)} must be known")
    return max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))


def _diagonal_infer(x: TensorType, offset: int, dim1: int, dim2: int) -> TensorType:
    rest = tuple(n for d, n in enumerate(x.shape) if d not in (dim1, dim2))
    return TensorType(x.dtype, (*rest, _length("diagonal", x.shape, offset, dim1, dim2)))


def _diagonal_index(index: Index, in_type: TensorType, out_type: TensorType, offset: int, dim1: int, dim2: int) -> Index:
    rest, k = iter(index[:-1]), index[-1]
    there = {dim1: k + max(-offset, 0), dim2: k + max(offset, 0)}
    return tuple(there[d] if d in there else next(rest) for d in range(in_type.rank))


def _diagonal_view(xp: Any, x: Any, offset: int, dim1: int, dim2: int) -> Any:
    found = xp.diagonal(x, offset, dim1, dim2)
    if x.flags.writeable:
        found.flags.writeable = True
    return found


def _diagonal_prepare(x: Any, offset: Any = 0, dim1: Any = 0, dim2: Any = 1) -> Prepared:
    x = tensor("diagonal", "input", x)
    return (x,), _planes("diagonal", x, offset, dim1, dim2)


_PLANES: tuple[tuple[tuple[int, ...], dict[str, int]], ...] = (
    ((3, 4), {}),
    ((4, 3), {"offset": 1}),
    ((33, 5), {"offset": -30}),
    ((2, 3, 4), {"offset": -1, "dim1": 2, "dim2": 0}),
    ((2, 3), {"offset": 9}),
)

diagonal: Op = Op(
    "diagonal",
    doc="The diagonal of the planes of two dims, a view: offset above or (negative) below the main one.  [..., n, m] -> [..., k].",
    signature="(x, offset=0, dim1=0, dim2=1)",
    prepare=_diagonal_prepare,
    infer=_diagonal_infer,
    reference=_diagonal_view,
    grad=lambda g, out, x, offset, dim1, dim2: (diagonal_scatter.run(zeros_like(x), g, offset=offset, dim1=dim1, dim2=dim2),),
    lowering=Movement(_diagonal_index),
    attrs=("offset", "dim1", "dim2"),
    dtypes=EVERY,
    samples=tuple(call(fill(*shape), **how) for shape, how in _PLANES),
    bad=(
        Bad((fill(3, 3), 0, 1, 1), RuntimeError, "diagonal: diagonal dimensions cannot be identical"),
        Bad((fill(3),), IndexError, "diagonal: Dimension out of range"),
    ),
)


def _diagonal_scatter_infer(x: TensorType, src: TensorType, offset: int, dim1: int, dim2: int) -> TensorType:
    same_dtype("diagonal_scatter", (x, src))
    wanted = _diagonal_infer(x, offset, dim1, dim2)
    if src.shape != wanted.shape:
        raise RuntimeError(f"diagonal_scatter: expected src to have the shape of the diagonal, {wanted}, got {src}")
    return x


def _diagonal_scatter_rule(
    load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, offset: int, dim1: int, dim2: int
) -> Expr:
    length = in_types[1].shape[-1]
    whole: Expr = load(0, index)
    if is_zero(length):
        return whole
    on_it = fn("eq", size_value(index[dim2]), size_value(index[dim1] + offset))
    place = clamped(load, size_value(index[dim1] - max(-offset, 0)), length)
    rest = tuple(i for d, i in enumerate(index) if d not in (dim1, dim2))
    return select(on_it, load(1, (*rest, place)), whole)


def _diagonal_scatter_reference(xp: Any, x: Any, src: Any, offset: int, dim1: int, dim2: int) -> Any:
    result = xp.array(x)
    _diagonal_view(xp, result, offset, dim1, dim2)[...] = src
    return result


def _diagonal_scatter_grad(g: Any, out: Any, x: Any, src: Any, **where_: int) -> tuple[Any, Any]:
    return diagonal_scatter.run(g, zeros_like(src), **where_), diagonal.run(g, **where_)


def _diagonal_scatter_prepare(x: Any, src: Any, offset: Any = 0, dim1: Any = 0, dim2: Any = 1) -> Prepared:
    x, src = tensor("diagonal_scatter", "input", x), tensor("diagonal_scatter", "src", src)
    return (x, src), _planes("diagonal_scatter", x, offset, dim1, dim2)


diagonal_scatter: Op = Op(
    "diagonal_scatter",
    doc="x with the diagonal of the planes of two dims replaced by src.  [..., n, m] , [..., k] -> [..., n, m].",
    signature="(x, src, offset=0, dim1=0, dim2=1)",
    prepare=_diagonal_scatter_prepare,
    infer=_diagonal_scatter_infer,
    reference=_diagonal_scatter_reference,
    grad=_diagonal_scatter_grad,
    lowering=Element(_diagonal_scatter_rule),
    attrs=("offset", "dim1", "dim2"),
    dtypes=EVERY,
    samples=(
        call(fill(3, 4), fill(3)),
        call(fill(4, 3), fill(2), offset=1),
        call(fill(33, 5), fill(3), offset=-30),
        call(fill(2, 3, 4), fill(3, 2), offset=0, dim1=2, dim2=0),
        call(fill(2, 3), fill(0), offset=9),
    ),
    bad=(Bad((fill(3, 3), fill(2)), RuntimeError, "diagonal_scatter: expected src to have the shape of the diagonal"),),
)


def _linalg_diagonal(x: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    return diagonal(x, offset, dim1, dim2)


linalg_diagonal = Shorthand(
    "linalg_diagonal",
    doc="The diagonal of the planes of the last two dims.  [..., n, m] -> [..., k].",
    rule=_linalg_diagonal,
    reference=lambda xp, x, offset=0, dim1=-2, dim2=-1: xp.diagonal(x, offset, dim1, dim2),
    dtypes=EVERY,
    samples=(call(fill(2, 3, 4)), call(fill(3, 4), offset=1)),
    bad=(Bad((fill(3),), IndexError, "diagonal: Dimension out of range"),),
    methods=(),
    functions=("linalg.diagonal",),
)


# ---- matrices made of diagonals ------------------------------------------------------------------------------------


def _diag_embed(x: Any, offset: Any = 0, dim1: int = -2, dim2: int = -1) -> Any:
    name = "diag_embed"
    x, offset = tensor(name, "input", x), one_size(name, "offset", offset)
    if x.ndim == 0:
        raise IndexError(f"{name}: Dimension out of range (expected to be in range of [-1, 0], but got {dim1})")
    rank = x.ndim + 1
    first, second = one_dim(name, dim1, rank), one_dim(name, dim2, rank)
    if first == second:
        raise RuntimeError(f"{name}: diagonal dimensions cannot be identical {dim1}, {dim2}")
    size = x.shape[-1] + abs(offset)
    rest = iter(x.shape[:-1])
    shape = tuple(size if d in (first, second) else next(rest) for d in range(rank))
    return diagonal_scatter.run(constant(0, x.dtype, shape), x, offset=offset, dim1=first, dim2=second)


def _diag_embed_reference(xp: Any, x: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    size = x.shape[-1] + abs(offset)
    result = xp.zeros((*x.shape[:-1], size, size), x.dtype)
    _diagonal_view(xp, result, offset, -2, -1)[...] = x
    return xp.moveaxis(result, (-2, -1), (dim1, dim2))


diag_embed = Shorthand(
    "diag_embed",
    doc="Matrices with the last dim as a diagonal and zeros elsewhere, as two new dims.  [..., n] -> [..., n + |offset|, "
    "n + |offset|].",
    rule=_diag_embed,
    reference=_diag_embed_reference,
    dtypes=EVERY,
    samples=(call(fill(3)), call(fill(2, 3), 1), call(fill(2, 3), -2, 0, 2), call(fill(2, 0))),
    bad=(
        Bad((fill(3), 0, 1, 1), RuntimeError, "diag_embed: diagonal dimensions cannot be identical"),
        Bad((fill(),), IndexError, "diag_embed: Dimension out of range"),
    ),
)


def _diag(x: Any, diagonal: int = 0) -> Any:
    x = tensor("diag", "input", x)
    if x.ndim == 1:
        return _diag_embed(x, diagonal)
    if x.ndim != 2:
        raise RuntimeError(f"diag: supports 1D or 2D tensors, got {of_type(x)}")
    return Op.table["clone"].run(Op.table["diagonal"](x, diagonal))


diag = Shorthand(
    "diag",
    doc="The diagonal of a matrix, or the matrix of a diagonal.  [n, m] -> [k]; [n] -> [n + |diagonal|, n + |diagonal|].",
    rule=_diag,
    reference=lambda xp, x, diagonal=0: xp.diag(x, diagonal),
    dtypes=EVERY,
    samples=(call(fill(3)), call(fill(3), -1), call(fill(3, 4)), call(fill(3, 4), 1), call(fill(33, 2))),
    bad=(Bad((fill(2, 2, 2),), RuntimeError, "diag: supports 1D or 2D tensors"),),
)
diagflat = Shorthand(
    "diagflat",
    doc="The matrix whose diagonal is all elements of x.  [...] -> [n, n].",
    rule=lambda x, offset=0: _diag_embed(reshape.run(tensor("diagflat", "input", x), shape=(product(x.shape),)), offset),
    reference=lambda xp, x, offset=0: xp.diagflat(x, offset),
    dtypes=EVERY,
    samples=(call(fill(3)), call(fill(2, 2), 1), call(fill())),
    bad=(Bad((2,), TypeError, "diagflat: argument 'input' must be a Tensor"),),
)
diagonal_copy = Shorthand(
    "diagonal_copy",
    doc="`diagonal` as a copy.  [..., n, m] -> [..., k].",
    rule=lambda x, offset=0, dim1=0, dim2=1: Op.table["clone"].run(diagonal(x, offset, dim1, dim2)),
    reference=lambda xp, x, offset=0, dim1=0, dim2=1: xp.diagonal(x, offset, dim1, dim2),
    dtypes=EVERY,
    samples=(call(fill(3, 4)), call(fill(2, 3, 4), 1, 0, 2)),
    bad=(Bad((fill(3),), IndexError, "diagonal: Dimension out of range"),),
    methods=(),
)


def _trace(x: Any) -> Any:
    x = tensor("trace", "input", x)
    if x.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, got {of_type(x)}")
    return Op.table["sum"](diagonal.run(x, offset=0, dim1=0, dim2=1))


trace = Shorthand(
    "trace",
    doc="The sum of the diagonal of a matrix (of integers as int64).  [n, m] -> [].",
    rule=_trace,
    reference=lambda xp, x: xp.trace(x.astype(np.int64) if x.dtype.kind in "iub" else x),
    dtypes=EVERY,
    samples=(call(fill(3, 4)), call(fill(33, 33)), call(fill(0, 2))),
    bad=(Bad((fill(2, 2, 2),), RuntimeError, "trace: expected a matrix"),),
    autocast="float32",
)


def _block_diag(*tensors: Any) -> Any:
    blocks = [tensor("block_diag", "tensors", t) for t in tensors]
    for block in blocks:
        if block.ndim > 2:
            raise RuntimeError(f"block_diag: input tensors must have 2 or fewer dimensions, got {of_type(block)}")
    if not blocks:
        return constant(0, get_default_dtype(), (1, 0))
    matrices = [reshape.run(b, shape=(1,) * (2 - b.ndim) + tuple(b.shape)) for b in blocks]
    width: Size = 0
    for m in matrices:
        width = width + m.shape[1]
    padded, before = [], 0
    dtype: DType = reduce(promote_types, (m.dtype for m in matrices))
    for m in matrices:
        m = Op.table["cast"].run(m, dtype=dtype)
        padded.append(Op.table["pad_constant"].run(m, starts=(0, before), shape=(m.shape[0], width), value=0))
        before = before + m.shape[1]
    return Op.table["cat"](padded, 0)


def _block_diag_reference(xp: Any, *blocks: Any) -> Any:
    matrices = [xp.atleast_2d(b) for b in blocks]
    result = xp.zeros((sum(m.shape[0] for m in matrices), sum(m.shape[1] for m in matrices)), blocks[0].dtype)
    row = column = 0
    for m in matrices:
        result[row : row + m.shape[0], column : column + m.shape[1]] = m
        row, column = row + m.shape[0], column + m.shape[1]
    return result


block_diag = Shorthand(
    "block_diag",
    doc="The matrix with the given ones along its diagonal and zeros elsewhere.  [n, m] ... -> [sum of n, sum of m].",
    signature="(*tensors)",
    rule=_block_diag,
    prepare=lambda *tensors: (tensors, {}),
    attrs=(),
    reference=_block_diag_reference,
    dtypes=EVERY,
    samples=(call(fill(2, 3), fill(1, 2)), call(fill(3), fill(), fill(2, 0)), call(fill(33, 1))),
    bad=(Bad((fill(2, 2, 2),), RuntimeError, "block_diag: input tensors must have 2 or fewer"),),
    methods=(),
)


# ---- triangles -----------------------------------------------------------------------------------------------------


def _triangle(name: str, keep: str, doc: str) -> Op:
    def prepare(x: Any, diagonal: Any = 0) -> Prepared:
        x = tensor(name, "x", x)
        return (x,), {"diagonal": one_size(name, "diagonal", diagonal)}

    def infer(x: TensorType, diagonal: Size) -> TensorType:
        if x.rank < 2:
            raise RuntimeError(f"{name}: x must have at least 2 dims, got {x}")
        return x

    def mask(x: Any, diagonal: Size) -> Any:
        rows = reshape.run(iota.run(size=x.shape[-2], dtype=int64), shape=(x.shape[-2], 1))
        limit = rows if diagonal == 0 else Op.table["add"](rows, diagonal)
        return Op.table[keep](iota.run(size=x.shape[-1], dtype=int64), limit)

    def masked(x: Any, diagonal: Size) -> Any:
        return where(mask(x, diagonal), x, constant(0, x.dtype))

    return Op(
        name,
        doc=f"{doc} of each matrix, 0 elsewhere.  [..., n, m] -> [..., n, m].",
        signature="(x, diagonal=0)",
        prepare=prepare,
        infer=infer,
        reference=lambda xp, x, diagonal: getattr(xp, name)(x, diagonal),
        grad=lambda g, out, x, diagonal: (Op.table[name].run(g, diagonal=diagonal),),
        lowering=Composite(masked),
        attrs=("diagonal",),
        dtypes=EVERY,
        samples=(call(fill(3, 4)), call(fill(4, 3), 1), call(fill(2, 33, 3), -2), call(fill(0, 3)), call(fill(1, 1))),
        bad=(Bad((fill(3),), RuntimeError, f"{name}: x must have at least 2 dims"),),
        inplace=True,
    )


tril = _triangle("tril", "le", "The part on and below a diagonal")
triu = _triangle("triu", "ge", "The part on and above a diagonal")
