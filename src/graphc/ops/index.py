"""Index vectors along one dim, and rows of a table.

Enters: tensors and integer tensors.  Leaves: operators.  Never here: an index of the tensor's own rank (`scatter`), several indices
at once (`indexed`).

Writes go in the order of the vector: of several to one place the last one wins.  An index out of range is reported with IndexError
when the call ends; what is read in its place is inside the tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dims import product
from graphc.dtypes import bool_, float32, int32, int64
from graphc.ir.loops import Expr, Size
from graphc.ir.op import Bad, Element, Op, TensorType
from graphc.ops.arguments import (
    constant,
    index_tensor,
    is_tensor,
    is_zero,
    number,
    of_type,
    one_dim,
    one_size,
    rounded,
    tensor,
    zeros_like,
)
from graphc.ops.arithmetic import kept, mul
from graphc.ops.bounds import check_range, checked, out_of_range, places
from graphc.ops.comparison import where
from graphc.ops.declare import EVERY, NUMERIC, Routed, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import converted
from graphc.ops.expressions import size as size_value
from graphc.ops.indexed import index_put
from graphc.ops.movement import Index, expand, reshape
from graphc.ops.scatter import reduced_at


def along(index: Any, dim: int, shape: Any) -> Any:
    """A vector of indices as a tensor of `shape` that varies along `dim` only."""
    column = reshape.run(index, shape=tuple(index.shape[0] if k == dim else 1 for k in range(len(shape))))
    return expand.run(column, shape=tuple(shape))


def vector(name: str, index: Any) -> Any:
    """An index tensor of rank 1; rank 0 counts as one element."""
    index = index_tensor(name, "index", index)
    if index.ndim > 1:
        raise IndexError(f"{name}: index must be a vector, got {of_type(index)}")
    return reshape.run(index, shape=(1,)) if index.ndim == 0 else index


def _slices(name: str, x: Any, dim: Any, index: Any, source: Any) -> tuple[Any, Any, Any, int]:
    """x, the vector and the slices that it has a place for, all of rank 1 or more, and the canonical dim.  Raises RuntimeError."""
    x, index, source = tensor(name, "input", x), vector(name, index), tensor(name, "source", source)
    k = one_dim(name, dim, x.ndim)
    if source.dtype is not x.dtype:
        raise RuntimeError(f"{name}: input and source must have one dtype, got {of_type(x)} and {of_type(source)}")
    shape = tuple(x.shape) or (1,)
    wanted = (*shape[:k], index.shape[0], *shape[k + 1 :])
    if (tuple(source.shape) or (1,)) != wanted:
        raise RuntimeError(f"{name}: source {of_type(source)} does not fit x {of_type(x)} and index {of_type(index)} at dim {k}")
    return reshape.run(x, shape=shape), index, reshape.run(source, shape=wanted), k


# ---- writing at a vector -------------------------------------------------------------------------------------------


def index_add_along(x: Any, index: Any, source: Any, dim: int, alpha: Any = 1) -> Any:
    """x with the slices of source along a canonical dim added at the places of the vector `index`."""
    if alpha != 1:
        source = mul(source, alpha)
    return index_put.run(x, source, index, dims=(dim,), at=dim, accumulate=True)


def _written(name: str, doc: str, write: Any, reference: Any, extra: str = "", **more: Any) -> Shorthand:
    """An operator ``name(x, dim, index, source)`` that writes the slices of source at the places of index."""

    def prepare(x: Any, dim: Any, index: Any, source: Any, *args: Any, **kwargs: Any) -> Prepared:
        if args or set(kwargs) - set(more_attrs):
            raise TypeError(f"{name}() got an unexpected argument")
        shape = tuple(tensor(name, "input", x).shape)
        x, index, source, k = _slices(name, x, dim, index, source)
        return (x, index, source), {"dim": k, "shape": shape, **more_attrs, **kwargs}

    def rule(x: Any, index: Any, source: Any, dim: int, shape: Any, **attrs: Any) -> Any:
        result = write(x, index, source, dim, **attrs)
        return result if tuple(result.shape) == shape else reshape.run(result, shape=shape)

    more_attrs: dict[str, Any] = more.pop("defaults", {})
    return Shorthand(
        name,
        doc=doc,
        signature=f"(x, dim, index, source{extra})",
        rule=rule,
        prepare=prepare,
        attrs=("dim", "shape", *more_attrs),
        reference=rounded(
            lambda xp, x, index, source, dim, shape, **attrs: reference(xp, x, index, source, dim, **attrs).reshape(shape)
        ),
        inplace=True,
        **more,
    )


def _added(x: Any, index: Any, source: Any, dim: int, alpha: Any) -> Any:
    alpha = number("index_add", "alpha", alpha)
    if isinstance(alpha, float) and x.dtype.kind in "biu":
        raise RuntimeError(f"index_add: for integral input tensors, alpha must not be a floating point number: {alpha}")
    return index_add_along(x, index, source, dim, alpha)


def _index_add_reference(xp: Any, x: Any, index: Any, source: Any, dim: int, alpha: Any = 1) -> Any:
    result = xp.array(x)
    add_ = xp.logical_or if x.dtype == np.bool_ else xp.add
    add_.at(result, (slice(None),) * dim + (index,), source * source.dtype.type(alpha))
    return result


index_add = _written(
    "index_add",
    "x with alpha * source[i] added at [index[i]] along dim.  [..., n, ...] , integers [m], [..., m, ...] -> [..., n, ...].",
    _added,
    _index_add_reference,
    ", *, alpha=1",
    defaults={"alpha": 1},
    dtypes=NUMERIC,
    samples=(
        call(fill(3, 4), 0, places(3, 5), fill(5, 4)),
        call(fill(3, 4), 1, places(4, 6), fill(3, 6), alpha=2),
        call(fill(5), 0, places(5, 33), fill(33)),
        call(fill(3), 0, places(3, 0), fill(0)),
        call(fill(), 0, places(1, 1), fill()),
    ),
    bad=(
        Bad((fill(3), 0, places(3, 2), fill(3)), RuntimeError, "index_add: source .* does not fit"),
        Bad((fill(3), 0, places(3, 2, 2), fill(3)), IndexError, "index_add: index must be a vector"),
        Bad((fill(3), 0, places(9, 4, low=5), fill(4)), IndexError, "index .* is out of bounds"),
    ),
)


def _copied(x: Any, index: Any, source: Any, dim: int) -> Any:
    return index_put.run(x, source, index, dims=(dim,), at=dim, accumulate=False)


def _copied_reference(xp: Any, x: Any, index: Any, source: Any, dim: int) -> Any:
    result = xp.array(x)
    for k, place in enumerate(index):
        result[(slice(None),) * dim + (int(place),)] = source[(slice(None),) * dim + (k,)]
    return result


index_copy = _written(
    "index_copy",
    "x with source[i] written at [index[i]] along dim.  [..., n, ...] , integers [m], [..., m, ...] -> [..., n, ...].",
    _copied,
    _copied_reference,
    dtypes=EVERY,
    samples=(
        call(fill(3, 4), 0, places(3, 1), fill(1, 4)),
        call(fill(3, 4), 1, places(4, 1), fill(3, 1)),
        call(fill(), 0, places(1, 1), fill()),
        call(fill(3), 0, places(3, 0), fill(0)),
    ),
    bad=(
        Bad((fill(3), 0, places(3, 2), fill(3)), RuntimeError, "index_copy: source .* does not fit"),
        Bad((fill(3), 0, places(9, 4, low=5), fill(4)), IndexError, "index .* is out of bounds"),
    ),
    autocast="widest",
)


def _reduced(x: Any, index: Any, source: Any, dim: int, reduce: str, include_self: bool) -> Any:
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise RuntimeError(f"index_reduce: reduce argument must be one of prod, mean, amax, amin, got {reduce!r}")
    return reduced_at("index_reduce", x, dim, along(index, dim, source.shape), source, reduce, include_self)


def _index_reduce_prepare(x: Any, dim: Any, index: Any, source: Any, reduce: str, *, include_self: bool = True) -> Prepared:
    shape = tuple(tensor("index_reduce", "input", x).shape)
    x, index, source, k = _slices("index_reduce", x, dim, index, source)
    return (x, index, source), {"dim": k, "shape": shape, "reduce": reduce, "include_self": include_self}


def _index_reduce(x: Any, index: Any, source: Any, dim: int, shape: Any, reduce: str, include_self: bool) -> Any:
    return reshape.run(_reduced(x, index, source, dim, reduce, include_self), shape=shape)


def _index_reduce_reference(xp: Any, x: Any, index: Any, source: Any, dim: int, shape: Any, reduce: str, include_self: bool) -> Any:
    x, source = np.moveaxis(x, dim, 0), np.moveaxis(source, dim, 0)
    result = xp.array(x)
    folds: dict[str, Any] = {"prod": np.prod, "mean": np.mean, "amax": np.max, "amin": np.min}
    for place in np.unique(index):
        rows = source[index == place]
        rows = np.concatenate([x[place][None], rows]) if include_self else rows
        folded = folds[reduce](rows, axis=0)
        result[place] = np.floor(folded) if x.dtype.kind in "iu" else folded
    return np.moveaxis(result, 0, dim).reshape(shape)


index_reduce = Shorthand(
    "index_reduce",
    doc="x with the slices of source combined at [index[i]] along dim: prod, mean, amax or amin, together with x's own slice or "
    "(`include_self` False) without it.  [..., n, ...] , integers [m], [..., m, ...] -> [..., n, ...].",
    signature="(x, dim, index, source, reduce, *, include_self=True)",
    rule=_index_reduce,
    prepare=_index_reduce_prepare,
    attrs=("dim", "shape", "reduce", "include_self"),
    reference=rounded(_index_reduce_reference),
    dtypes=NUMERIC,
    samples=(
        call(fill(3, 4), 0, places(3, 5), fill(5, 4), "mean"),
        call(fill(3, 4), 1, places(4, 6), fill(3, 6), "prod", include_self=False),
        call(fill(5), 0, places(5, 33), fill(33), "amax"),
    ),
    bad=(
        Bad((fill(3), 0, places(3, 2), fill(2), "sum"), RuntimeError, "index_reduce: reduce argument must be one of"),
        Bad((fill(3), 0, places(3, 2), fill(3), "mean"), RuntimeError, "index_reduce: source .* does not fit"),
    ),
    inplace=True,
)


def _index_fill(x: Any, dim: Any, index: Any, value: Any) -> Any:
    name = "index_fill"
    x, index = tensor(name, "input", x), vector(name, index)
    k = one_dim(name, dim, x.ndim)
    if is_tensor(value):
        if value.ndim:
            raise RuntimeError(f"{name}: only supports a 0-dimensional value tensor, got {of_type(value)}")
        value = Op.table["cast"].run(value, dtype=x.dtype)
    else:
        value = constant(number(name, "value", value), x.dtype)
    size = x.shape[k] if x.ndim else 1
    true = constant(True, bool_, tuple(index.shape))
    chosen = index_put.run(constant(False, bool_, (size,)), true, index, dims=(0,), at=0, accumulate=False)
    chosen = reshape.run(chosen, shape=tuple(size if d == k else 1 for d in range(x.ndim)))
    return where.run(chosen, value, x)


def _index_fill_reference(xp: Any, x: Any, index: Any, dim: int, value: Any) -> Any:
    result = xp.array(x)
    result[(slice(None),) * dim + (index,)] = value
    return result


index_fill = Shorthand(
    "index_fill",
    doc="x with a number or 0-dim tensor written to the slices that a vector names along dim.  [..., n, ...] , "
    "integers [m] -> [..., n, ...].",
    signature="(x, dim, index, value)",
    rule=_index_fill,
    reference=lambda xp, x, index, *more, dim, value=None: _index_fill_reference(xp, x, index, dim, more[0] if more else value),
    dtypes=EVERY,
    samples=(
        call(fill(3, 4), 0, places(3, 5), 1),
        call(fill(3, 4), 1, places(4, 2), fill()),
        call(fill(3), 0, places(3, 0), 1),
    ),
    bad=(
        Bad((fill(3), 0, places(3, 2), fill(2)), RuntimeError, "index_fill: only supports a 0-dimensional value"),
        Bad((fill(3), 0, places(9, 4, low=5), 1), IndexError, "index .* is out of bounds"),
    ),
    inplace=True,
)


# ---- index_select, embedding ---------------------------------------------------------------------------------------


def _index_select_infer(x: TensorType, index: TensorType, dim: int) -> TensorType:
    if index.rank != 1 or index.dtype.kind not in "iu" or x.rank == 0:
        raise RuntimeError(f"index_select: expected x of rank 1 or more and a vector of integers, got {x} and {index}")
    if is_zero(x.shape[dim]) and not is_zero(index.shape[0]):
        raise IndexError(f"index_select: index out of range in dim {dim} of {x}")
    return TensorType(x.dtype, (*x.shape[:dim], index.shape[0], *x.shape[dim + 1 :]))


def _index_select_rule(load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, dim: int) -> Expr:
    place = checked(load, load(1, (index[dim],)), in_types[0].shape[dim], out_of_range("index_select"))
    value: Expr = load(0, (*index[:dim], place, *index[dim + 1 :]))
    return value


def _index_select_reference(xp: Any, x: Any, index: Any, dim: int) -> Any:
    check_range("index_select", index, x.shape[dim])
    return xp.take(x, index.astype(np.int64), axis=dim)


def _index_select_route(op: Op, x: Any, dim: Any, index: Any) -> Any:
    (x, index), attrs = op.prepare(x, dim, index)
    if x.ndim:
        return op.run(x, index, **attrs)
    if not isinstance(index.shape[0], int) or index.shape[0] != 1:
        raise IndexError(f"index_select: index to scalar can have only 1 value, got {of_type(index)}")
    return reshape.run(op.run(reshape.run(x, shape=(1,)), index, dim=0), shape=())


index_select = Routed(
    "index_select",
    doc="The slices of x along dim that a vector names.  [..., n, ...] , integers [m] -> [..., m, ...].",
    signature="(x, dim, index)",
    route=_index_select_route,
    prepare=lambda x, dim, index: (
        (tensor("index_select", "x", x), vector("index_select", index)),
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


def _embedding_prepare(
    x: Any, weight: Any, padding_idx: Any = None, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Prepared:
    x, weight = index_tensor("embedding", "x", x), tensor("embedding", "weight", weight)
    if padding_idx is not None:
        padding_idx = one_size("embedding", "padding_idx", padding_idx)
        rows = weight.shape[0] if weight.ndim else 0
        if isinstance(padding_idx, int) and isinstance(rows, int) and not -rows <= padding_idx < rows:
            raise AssertionError(f"embedding: padding_idx {padding_idx} must be within the {rows} rows of weight")
        padding_idx = padding_idx + rows if padding_idx < 0 else padding_idx
    return (x, weight), {"padding_idx": padding_idx, "scale_grad_by_freq": bool(scale_grad_by_freq)}


def _embedding_infer(x: TensorType, weight: TensorType, padding_idx: Size | None, scale_grad_by_freq: bool) -> TensorType:
    if weight.rank != 2 or x.dtype.kind not in "iu":
        raise RuntimeError(f"embedding: expected integers and a matrix, got {x} and {weight}")
    return TensorType(weight.dtype, (*x.shape, weight.shape[1]))


def _embedding_rule(load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, **_: Any) -> Expr:
    place = checked(load, load(0, index[:-1]), in_types[1].shape[0], out_of_range("embedding"))
    value: Expr = load(1, (place, index[-1]))
    return value


def _embedding_reference(xp: Any, x: Any, weight: Any, **_: Any) -> Any:
    check_range("embedding", x, weight.shape[0])
    return weight[x.astype(np.int64)]


def _embedding_grad(g: Any, out: Any, x: Any, weight: Any, padding_idx: Any, scale_grad_by_freq: bool) -> tuple[Any, Any]:
    if padding_idx is not None:
        g = kept(Op.table["unsqueeze"].run(Op.table["ne"](x, padding_idx), dim=x.ndim), g)
    count = product(x.shape)
    rows, places_ = reshape.run(g, shape=(count, weight.shape[1])), reshape.run(x, shape=(count,))
    if scale_grad_by_freq:
        ones, none = (constant(v, g.dtype, (n,)) for v, n in ((1, count), (0, weight.shape[0])))
        often = index_select.run(index_add_along(none, places_, ones, 0), places_, dim=0)
        rows = Op.table["div"](rows, Op.table["unsqueeze"].run(often, dim=1))
    return None, index_add_along(zeros_like(weight), places_, rows, 0)


embedding = Op(
    "embedding",
    doc="Rows of weight; the row padding_idx gets no gradient, with scale_grad_by_freq the others their mean.  "
    "integers [...], [n, d] -> [..., d].",
    signature="(x, weight, padding_idx=None, scale_grad_by_freq=False, sparse=False)",
    prepare=_embedding_prepare,
    infer=_embedding_infer,
    reference=_embedding_reference,
    grad=_embedding_grad,
    lowering=Element(_embedding_rule),
    attrs=("padding_idx", "scale_grad_by_freq"),
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
