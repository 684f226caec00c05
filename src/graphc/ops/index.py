"""Reading and adding at places that tensors of indices name.

Enters: tensors and integer tensors.  Leaves: operators.  Never here: negative indices (basic indexing's business).

An index out of range is reported with IndexError when the call ends; what is read in its place is inside the tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dims import product
from graphc.dtypes import bool_, float32, int32, int64
from graphc.ir.loops import Expr, Size
from graphc.ir.op import Anchor, Bad, Composite, Element, Op, TensorType, broadcast_shapes
from graphc.ops.arguments import constant, index_tensor, number, of_type, one_dim, one_size, rounded, tensor, zeros_like
from graphc.ops.arithmetic import kept, mul
from graphc.ops.comparison import where
from graphc.ops.create import iota
from graphc.ops.declare import EVERY, NUMERIC, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import both, clamped, converted
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import size as size_value
from graphc.ops.movement import Index, expand, reshape, slice_


def places(high: int, *shape: int, low: int = 0) -> Any:
    """Sample indices in low..high-1."""
    return fill(*shape, low=low, high=high, dtype=int64, grad=False)


def checked(load: Any, position: Expr, limit: Size, message: str) -> Size:
    """`position`, forced into 0..limit-1; a place outside is recorded as a failure of the call."""
    position = converted(position, int64)
    load.check(both(fn("ge", position, literal(0, int64)), fn("lt", position, size_value(limit))), message)
    return clamped(load, position, limit)


def check_range(name: str, index: Any, limit: int) -> None:
    """The reference's check.  Raises IndexError."""
    if index.size and (index.min() < 0 or index.max() >= limit):
        raise IndexError(f"{name}: index out of range")


def _out_of_range(name: str) -> str:
    return f"{name}: index out of range"


# ---- gather --------------------------------------------------------------------------------------------------------


def _indexed(name: str, x: TensorType, index: TensorType, dim: int) -> None:
    """Raises RuntimeError unless index is of integers and fits x in every other dim."""
    if index.dtype.kind not in "iu":
        raise RuntimeError(f"{name}: index must be an integer tensor, got {index}")
    if x.rank == 0 or index.rank != x.rank:
        raise RuntimeError(f"{name}: index must have as many dims as x, at least 1: {x} and {index}")
    for k, (have, want) in enumerate(zip(x.shape, index.shape, strict=True)):
        if k != dim and isinstance(have, int) and isinstance(want, int) and want > have:
            raise RuntimeError(f"{name}: index {index} is larger than x {x} at dim {k}")


def _gather_infer(x: TensorType, index: TensorType, dim: int) -> TensorType:
    _indexed("gather", x, index, dim)
    return TensorType(x.dtype, index.shape)


def _gather_rule(load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, dim: int) -> Expr:
    place = checked(load, load(1, index), in_types[0].shape[dim], _out_of_range("gather"))
    value: Expr = load(0, (*index[:dim], place, *index[dim + 1 :]))
    return value


def _gather_reference(xp: Any, x: Any, index: Any, dim: int) -> Any:
    check_range("gather", index, x.shape[dim])
    x = x[tuple(slice(None) if k == dim else slice(n) for k, n in enumerate(index.shape))]
    return xp.take_along_axis(x, index.astype(np.int64), axis=dim)


gather = Op(
    "gather",
    doc="out[i, j] = x[index[i, j], j] for dim 0, and so on.  [...] , integers [...] -> shape of index.",
    signature="(x, dim, index)",
    prepare=lambda x, dim, index: (
        (tensor("gather", "x", x), index_tensor("gather", "index", index)),
        {"dim": one_dim("gather", dim, x.ndim)},
    ),
    infer=_gather_infer,
    reference=_gather_reference,
    grad=lambda g, out, x, index, dim: (scatter_add.run(zeros_like(x), index, g, dim=dim), None),
    lowering=Element(_gather_rule),
    attrs=("dim",),
    dtypes=EVERY,
    samples=(
        call(fill(3, 4), 0, places(3, 2, 4)),
        call(fill(3, 4), -1, places(4, 3, 6)),
        call(fill(33), 0, places(33, 5)),
        call(fill(2, 3, 4), 1, places(3, 1, 2, 3)),
        call(fill(3, 4), 0, places(3, 0, 4)),
        call(fill(1), 0, places(1, 4)),
    ),
    bad=(
        Bad((fill(3), 0, places(9, 4, low=5)), IndexError, "gather: index out of range"),
        Bad((fill(3), 0, fill(3, dtype=float32)), RuntimeError, "gather: argument 'index' must be an integer tensor"),
        Bad((fill(3, 4), 0, places(3, 2)), RuntimeError, "gather: index must have as many dims"),
        Bad((fill(3, 4), 0, places(3, 2, 5)), RuntimeError, "gather: index .* is larger than x"),
        Bad((fill(3), 1, places(3, 3)), IndexError, "gather: Dimension out of range"),
    ),
)


def _take_along_dim(x: Any, indices: Any, dim: Any = None) -> Any:
    x, indices = tensor("take_along_dim", "x", x), index_tensor("take_along_dim", "indices", indices)
    if dim is None:
        flat = reshape.run(x, shape=(product(x.shape),))
        return gather.run(flat, reshape.run(indices, shape=(product(indices.shape),)), dim=0)
    k = one_dim("take_along_dim", dim, x.ndim)
    if x.ndim != indices.ndim:
        raise RuntimeError(f"take_along_dim: x and indices must have as many dims: {of_type(x)} and {of_type(indices)}")
    rest = [(*s[:k], 1, *s[k + 1 :]) for s in (tuple(x.shape), tuple(indices.shape))]
    common = broadcast_shapes("take_along_dim", rest)
    x, indices = (expand.run(y, shape=(*common[:k], y.shape[k], *common[k + 1 :])) for y in (x, indices))
    return gather.run(x, indices, dim=k)


take_along_dim = Shorthand(
    "take_along_dim",
    doc="gather with the other dims broadcast; of the flattened tensor without dim.  [...] , integers [...] -> [...].",
    rule=_take_along_dim,
    reference=lambda xp, x, indices, dim=None: (
        xp.take_along_axis(x, indices, axis=dim) if dim is not None else x.ravel()[indices.ravel()]
    ),
    dtypes=EVERY,
    samples=(
        call(fill(3, 4), places(3, 2, 1), 0),
        call(fill(3, 4), places(12, 5)),
        call(fill(1, 33), places(33, 2, 5), -1),
    ),
    bad=(Bad((fill(3, 4), places(3, 2), 0), RuntimeError, "take_along_dim: x and indices must have as many dims"),),
)


# ---- scatter_add ---------------------------------------------------------------------------------------------------


def _scatter_add_prepare(x: Any, dim: Any, index: Any, src: Any) -> Prepared:
    """src may be larger than index; the rest of it is not used."""
    name = "scatter_add"
    x, index, src = tensor(name, "x", x), index_tensor(name, "index", index), tensor(name, "src", src)
    if src.dtype is not x.dtype:
        raise RuntimeError(f"{name}: x and src must have one dtype, got {of_type(x)} and {of_type(src)}")
    k = one_dim(name, dim, x.ndim)
    _indexed(name, of_type(x), of_type(index), k)
    pairs = [] if src.ndim != index.ndim else list(zip(index.shape, src.shape, strict=True))
    if src.ndim != index.ndim or any(isinstance(a, int) and isinstance(b, int) and a > b for a, b in pairs):
        raise RuntimeError(f"{name}: index {of_type(index)} does not fit src {of_type(src)}")
    if tuple(src.shape) != tuple(index.shape):
        src = slice_.run(src, starts=(0,) * src.ndim, stops=tuple(index.shape), steps=(1,) * src.ndim)
    return (x, index, src), {"dim": k}


def _scatter_add_infer(x: TensorType, index: TensorType, src: TensorType, dim: int) -> TensorType:
    _indexed("scatter_add", x, index, dim)
    if src.dtype is not x.dtype or src.shape != index.shape:
        raise RuntimeError(f"scatter_add: src must be of the dtype of x and the shape of index: {x}, {index}, {src}")
    return x


def _scatter_add_reference(xp: Any, x: Any, index: Any, src: Any, dim: int) -> Any:
    check_range("scatter_add", index, x.shape[dim])
    result = xp.array(x)
    where_ = list(xp.indices(index.shape))
    where_[dim] = index.astype(np.int64)
    if x.dtype == np.bool_:
        xp.logical_or.at(result, tuple(where_), src)
    else:
        xp.add.at(result, tuple(where_), src)
    return result


scatter_add: Op = Op(
    "scatter_add",
    doc="x with src[i, j] added at [index[i, j], j] for dim 0, and so on, in row-major order of index.  [...] , "
    "[...] , [...] -> [...].",
    signature="(x, dim, index, src)",
    prepare=_scatter_add_prepare,
    infer=_scatter_add_infer,
    reference=rounded(_scatter_add_reference),
    grad=lambda g, out, x, index, src, dim: (g, None, gather.run(g, index, dim=dim)),
    lowering=Anchor("scatter"),
    attrs=("dim",),
    dtypes=NUMERIC,
    samples=(
        call(fill(3, 4), 0, places(3, 5, 4), fill(5, 4)),
        call(fill(3, 4), -1, places(4, 3, 6), fill(3, 6)),
        call(fill(5), 0, places(5, 33), fill(33)),
        call(fill(2, 3), 1, places(3, 1, 2), fill(2, 5)),
        call(fill(3), 0, places(3, 0), fill(0)),
    ),
    bad=(
        Bad((fill(3), 0, places(9, 4, low=5), fill(4)), IndexError, "scatter_add: index out of range"),
        Bad((fill(3), 0, places(3, 4), fill(2)), RuntimeError, "scatter_add: index .* does not fit src"),
        Bad((fill(3), 0, places(3, 2), fill(2, dtype=bool_)), RuntimeError, "scatter_add: x and src must have one dtype"),
    ),
    inplace=True,
)


def along(index: Any, dim: int, shape: Any) -> Any:
    """A vector of indices as a tensor of `shape` that varies along `dim` only."""
    column = reshape.run(index, shape=tuple(index.shape[0] if k == dim else 1 for k in range(len(shape))))
    return expand.run(column, shape=tuple(shape))


def _vector(name: str, index: Any) -> Any:
    """An index tensor of rank 1; rank 0 counts as one element."""
    index = index_tensor(name, "index", index)
    if index.ndim > 1:
        raise IndexError(f"{name}: index must be a vector, got {of_type(index)}")
    return reshape.run(index, shape=(1,)) if index.ndim == 0 else index


def _index_add_prepare(x: Any, dim: Any, index: Any, source: Any, *, alpha: Any = 1) -> Prepared:
    name = "index_add"
    x, index, source = tensor(name, "x", x), _vector(name, index), tensor(name, "source", source)
    k = one_dim(name, dim, x.ndim)
    if source.dtype is not x.dtype:
        raise RuntimeError(f"{name}: x and source must have one dtype, got {of_type(x)} and {of_type(source)}")
    if tuple(source.shape) != (*x.shape[:k], index.shape[0], *x.shape[k + 1 :]):
        raise RuntimeError(f"{name}: source {of_type(source)} does not fit x {of_type(x)} and index {of_type(index)} at dim {k}")
    return (x, index, source), {"dim": k, "alpha": number(name, "alpha", alpha)}


def index_add_along(x: Any, index: Any, source: Any, dim: int, alpha: Any = 1) -> Any:
    """x with the slices of source along a canonical dim added at the places of the vector `index`."""
    if alpha != 1:
        source = mul(source, alpha)
    return scatter_add.run(x, along(index, dim, source.shape), source, dim=dim)


def _index_add_reference(xp: Any, x: Any, index: Any, source: Any, dim: int, alpha: Any = 1) -> Any:
    result = xp.array(x)
    xp.add.at(result, (slice(None),) * dim + (index,), source * source.dtype.type(alpha))
    return result


index_add = Shorthand(
    "index_add",
    doc="x with alpha * source[i] added at [index[i]] along dim.  [..., n, ...] , integers [m], [..., m, ...] -> [..., n, ...].",
    signature="(x, dim, index, source, *, alpha=1)",
    rule=index_add_along,
    prepare=_index_add_prepare,
    attrs=("dim", "alpha"),
    reference=rounded(_index_add_reference),
    dtypes=NUMERIC,
    samples=(
        call(fill(3, 4), 0, places(3, 5), fill(5, 4)),
        call(fill(3, 4), 1, places(4, 6), fill(3, 6), alpha=2),
        call(fill(5), 0, places(5, 33), fill(33)),
        call(fill(3), 0, places(3, 0), fill(0)),
    ),
    bad=(
        Bad((fill(3), 0, places(3, 2), fill(3)), RuntimeError, "index_add: source .* does not fit"),
        Bad((fill(3), 0, places(3, 2, 2), fill(3)), IndexError, "index_add: index must be a vector"),
    ),
    inplace=True,
)


# ---- index_select, embedding ---------------------------------------------------------------------------------------


def _index_select_infer(x: TensorType, index: TensorType, dim: int) -> TensorType:
    if index.rank != 1 or index.dtype.kind not in "iu" or x.rank == 0:
        raise RuntimeError(f"index_select: expected x of rank 1 or more and a vector of integers, got {x} and {index}")
    return TensorType(x.dtype, (*x.shape[:dim], index.shape[0], *x.shape[dim + 1 :]))


def _index_select_rule(load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, dim: int) -> Expr:
    place = checked(load, load(1, (index[dim],)), in_types[0].shape[dim], _out_of_range("index_select"))
    value: Expr = load(0, (*index[:dim], place, *index[dim + 1 :]))
    return value


def _index_select_reference(xp: Any, x: Any, index: Any, dim: int) -> Any:
    check_range("index_select", index, x.shape[dim])
    return xp.take(x, index.astype(np.int64), axis=dim)


index_select = Op(
    "index_select",
    doc="The slices of x along dim that a vector names.  [..., n, ...] , integers [m] -> [..., m, ...].",
    signature="(x, dim, index)",
    prepare=lambda x, dim, index: (
        (tensor("index_select", "x", x), _vector("index_select", index)),
        {"dim": one_dim("index_select", dim, x.ndim)},
    ),
    infer=_index_select_infer,
    reference=_index_select_reference,
    grad=lambda g, out, x, index, dim: (index_add_along(zeros_like(x), index, g, dim), None),
    lowering=Element(_index_select_rule),
    attrs=("dim",),
    dtypes=EVERY,
    samples=(
        call(fill(3, 4), 0, places(3, 5)),
        call(fill(3, 4), -1, places(4, 2)),
        call(fill(33), 0, places(33)),
        call(fill(2, 3, 4), 1, places(3, 7)),
        call(fill(3, 4), 0, places(3, 0)),
    ),
    bad=(
        Bad((fill(3), 0, places(9, 4, low=5)), IndexError, "index_select: index out of range"),
        Bad((fill(3), 0, places(3, 2, 2)), IndexError, "index_select: index must be a vector"),
        Bad(
            (fill(3), 0, fill(2, dtype=float32)),
            RuntimeError,
            "index_select: argument 'index' must be an integer tensor",
        ),
    ),
)


def _embedding_prepare(x: Any, weight: Any, padding_idx: Any = None) -> Prepared:
    x, weight = index_tensor("embedding", "x", x), tensor("embedding", "weight", weight)
    if padding_idx is not None:
        padding_idx = one_size("embedding", "padding_idx", padding_idx)
        rows = weight.shape[0] if weight.ndim else 0
        if isinstance(padding_idx, int) and isinstance(rows, int) and not -rows <= padding_idx < rows:
            raise AssertionError(f"embedding: padding_idx {padding_idx} must be within the {rows} rows of weight")
        padding_idx = padding_idx + rows if padding_idx < 0 else padding_idx
    return (x, weight), {"padding_idx": padding_idx}


def _embedding_infer(x: TensorType, weight: TensorType, padding_idx: Size | None) -> TensorType:
    if weight.rank != 2 or x.dtype.kind not in "iu":
        raise RuntimeError(f"embedding: expected integers and a matrix, got {x} and {weight}")
    return TensorType(weight.dtype, (*x.shape, weight.shape[1]))


def _embedding_rule(load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, padding_idx: Any) -> Expr:
    place = checked(load, load(0, index[:-1]), in_types[1].shape[0], _out_of_range("embedding"))
    value: Expr = load(1, (place, index[-1]))
    return value


def _embedding_reference(xp: Any, x: Any, weight: Any, padding_idx: Any) -> Any:
    check_range("embedding", x, weight.shape[0])
    return weight[x.astype(np.int64)]


def _embedding_grad(g: Any, out: Any, x: Any, weight: Any, padding_idx: Any) -> tuple[Any, Any]:
    if padding_idx is not None:
        g = kept(Op.table["unsqueeze"].run(Op.table["ne"](x, padding_idx), dim=x.ndim), g)
    count = product(x.shape)
    rows = reshape.run(g, shape=(count, weight.shape[1]))
    return None, index_add_along(zeros_like(weight), reshape.run(x, shape=(count,)), rows, 0)


embedding = Op(
    "embedding",
    doc="Rows of weight; the row padding_idx gets no gradient.  integers [...], [n, d] -> [..., d].",
    signature="(x, weight, padding_idx=None)",
    prepare=_embedding_prepare,
    infer=_embedding_infer,
    reference=_embedding_reference,
    grad=_embedding_grad,
    lowering=Element(_embedding_rule),
    attrs=("padding_idx",),
    dtypes=(int64, int32),
    samples=(
        call(places(5, 3), fill(5, 4, dtype=float32)),
        call(places(5, 2, 3), fill(5, 33, dtype=float32)),
        call(places(5), fill(5, 1, dtype=float32)),
        call(places(5, 0), fill(5, 2, dtype=float32)),
    ),
    bad=(
        Bad((places(9, 3, low=6), fill(5, 4, dtype=float32)), IndexError, "embedding: index out of range"),
        Bad(
            (fill(3, dtype=float32), fill(5, 4, dtype=float32)),
            RuntimeError,
            "embedding: argument 'x' must be an integer tensor",
        ),
        Bad((places(5, 3), fill(5, dtype=float32)), RuntimeError, "embedding: expected integers and a matrix"),
    ),
    methods=(),
    functions=("nn.functional.embedding", "embedding"),
)


# ---- one_hot, tril, triu -------------------------------------------------------------------------------------------


def _one_hot_prepare(x: Any, num_classes: Any = -1) -> Prepared:
    x = index_tensor("one_hot", "x", x)
    num_classes = one_size("one_hot", "num_classes", num_classes)
    if isinstance(num_classes, int) and num_classes < 1:
        raise ValueError("one_hot: num_classes must be given and positive: the result's shape cannot depend on the data")
    return (x,), {"num_classes": num_classes}


def _one_hot_rule(load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, num_classes: Size) -> Expr:
    place = checked(load, load(0, index[:-1]), num_classes, "one_hot: class out of range")
    return converted(fn("eq", size_value(place), size_value(index[-1])), int64)


def _one_hot_reference(xp: Any, x: Any, num_classes: int) -> Any:
    if x.size and (x.min() < 0 or x.max() >= num_classes):
        raise IndexError("one_hot: class out of range")
    return (x[..., None] == xp.arange(num_classes)).astype(np.int64)


one_hot = Op(
    "one_hot",
    doc="1 at each class, 0 elsewhere.  integers [...] -> int64 [..., num_classes].",
    signature="(x, num_classes)",
    prepare=_one_hot_prepare,
    infer=lambda x, num_classes: TensorType(int64, (*x.shape, num_classes)),
    reference=_one_hot_reference,
    grad=None,
    lowering=Element(_one_hot_rule),
    attrs=("num_classes",),
    dtypes=(int64, int32),
    samples=(
        call(fill(3, low=0, high=4), 4),
        call(fill(2, 3, low=0, high=4), 33),
        call(fill(low=0, high=1), 1),
        call(fill(0, low=0), 3),
    ),
    bad=(
        Bad((places(9, 3, low=6), 5), IndexError, "one_hot: class out of range"),
        Bad((places(5, 3), 0), ValueError, "one_hot: num_classes must be given"),
        Bad((fill(3, dtype=float32), 5), RuntimeError, "one_hot: argument 'x' must be an integer tensor"),
    ),
    methods=(),
    functions=("nn.functional.one_hot",),
)


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
