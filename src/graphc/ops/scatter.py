"""Reading and writing along one dim at an index of the tensor's own rank: gather, scatter and their kin.

Enters: tensors and integer tensors.  Leaves: operators.  Never here: index vectors (`index`), several indices at once (`indexed`).

Writes go in row-major order of the index: of several to one place the last one wins.  An index out of range is reported with
RuntimeError, as in PyTorch, when the call ends; what is read in its place is inside the tensor.  A 0-dim operand counts as a vector
of one element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.dims import product
from graphc.dtypes import DType, bool_, float32
from graphc.ir.loops import Expr, identity
from graphc.ir.op import Anchor, Bad, Element, Op, TensorType, broadcast_shapes
from graphc.ops.arguments import (
    cast,
    constant,
    index_tensor,
    is_tensor,
    is_zero,
    number,
    of_type,
    one_dim,
    rounded,
    tensor,
    zeros_like,
)
from graphc.ops.arithmetic import add, div, floor_divide, mul
from graphc.ops.bounds import check_range, checked, out_of_range, places
from graphc.ops.comparison import eq, logical_and, lt, where
from graphc.ops.declare import EVERY, NUMERIC, Routed, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import call as fn
from graphc.ops.movement import Index, expand, reshape, slice_


def _indexed(name: str, x: TensorType, index: TensorType, dim: int) -> None:
    """Raises RuntimeError unless index is of integers and fits x in every other dim."""
    if index.dtype.kind not in "iu":
        raise RuntimeError(f"{name}: index must be an integer tensor, got {index}")
    if x.rank == 0 or index.rank != x.rank:
        raise RuntimeError(f"{name}: index must have as many dims as x: {x} and {index}")
    for k, (have, want) in enumerate(zip(x.shape, index.shape, strict=True)):
        if k != dim and isinstance(have, int) and isinstance(want, int) and want > have:
            raise RuntimeError(f"{name}: index {index} is larger than x {x} at dim {k}")
    if is_zero(x.shape[dim]) and not any(map(is_zero, index.shape)):
        raise RuntimeError(f"{name}: index is out of bounds for dimension {dim} with size 0")


def _vectors(*operands: Any) -> tuple[Any, ...]:
    """0-dim operands as vectors of one element."""
    return tuple(reshape.run(x, shape=(1,)) if x.ndim == 0 else x for x in operands)


# ---- gather --------------------------------------------------------------------------------------------------------


def _gather_infer(x: TensorType, index: TensorType, dim: int) -> TensorType:
    _indexed("gather", x, index, dim)
    return TensorType(x.dtype, index.shape)


def _gather_rule(load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, dim: int) -> Expr:
    place = checked(load, load(1, index), in_types[0].shape[dim], out_of_range("gather", RuntimeError))
    value: Expr = load(0, (*index[:dim], place, *index[dim + 1 :]))
    return value


def _gather_reference(xp: Any, x: Any, index: Any, dim: int) -> Any:
    check_range("gather", index, x.shape[dim], RuntimeError)
    x = x[tuple(slice(None) if k == dim else slice(n) for k, n in enumerate(index.shape))]
    return xp.take_along_axis(x, index.astype(np.int64), axis=dim)


def _gather_prepare(x: Any, dim: Any, index: Any, *, sparse_grad: bool = False) -> Prepared:
    x, index = tensor("gather", "input", x), index_tensor("gather", "index", index)
    return (x, index), {"dim": one_dim("gather", dim, x.ndim)}


def _gather_route(op: Op, x: Any, dim: Any, index: Any, *, sparse_grad: bool = False) -> Any:
    (x, index), attrs = op.prepare(x, dim, index)
    if any(map(is_zero, index.shape)) and index.ndim != x.ndim:
        nothing = reshape.run(x, shape=(product(x.shape),))
        return reshape.run(slice_.run(nothing, starts=(0,), stops=(0,), steps=(1,)), shape=tuple(index.shape))
    if x.ndim and index.ndim:
        return op.run(x, index, **attrs)
    x, vector = _vectors(x, index)
    return reshape.run(op.run(x, vector, **attrs), shape=tuple(index.shape))


gather = Routed(
    "gather",
    doc="out[i, j] = x[index[i, j], j] for dim 0, and so on.  `sparse_grad` is taken and changes nothing.  [...] , "
    "integers [...] -> shape of index.",
    signature="(x, dim, index, *, sparse_grad=False)",
    prepare=_gather_prepare,
    route=_gather_route,
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
        Bad((fill(3), 0, places(9, 4, low=5)), RuntimeError, "gather: index out of range"),
        Bad((fill(3), 0, fill(3, dtype=float32)), RuntimeError, "gather: argument 'index' must be an integer tensor"),
        Bad((fill(3, 4), 0, places(3, 2)), RuntimeError, "gather: index must have as many dims"),
        Bad((fill(3, 4), 0, places(3, 2, 5)), RuntimeError, "gather: index .* is larger than x"),
        Bad((fill(3), 1, places(3, 3)), IndexError, "gather: Dimension out of range"),
        Bad((fill(0, 3), 0, places(1, 1, 3)), RuntimeError, "gather: index is out of bounds .* size 0"),
    ),
)


def _take_along_dim(x: Any, indices: Any, dim: Any = None) -> Any:
    x, indices = tensor("take_along_dim", "input", x), index_tensor("take_along_dim", "indices", indices)
    if dim is None:
        x, indices, dim = reshape.run(x, shape=(product(x.shape),)), reshape.run(indices, shape=(product(indices.shape),)), 0
    k = one_dim("take_along_dim", dim, x.ndim)
    if x.ndim != indices.ndim:
        raise RuntimeError(f"take_along_dim: x and indices must have as many dims: {of_type(x)} and {of_type(indices)}")
    rest = [(*s[:k], 1, *s[k + 1 :]) for s in (tuple(x.shape), tuple(indices.shape))]
    common = broadcast_shapes("take_along_dim", rest)
    indices = where(lt(indices, 0), add(indices, x.shape[k]), indices)
    x, indices = (expand.run(y, shape=(*common[:k], y.shape[k], *common[k + 1 :])) for y in (x, indices))
    return gather.run(x, indices, dim=k)


take_along_dim = Shorthand(
    "take_along_dim",
    doc="gather with the other dims broadcast and negative indices counted from the end; of the flattened tensor without dim.  "
    "[...] , integers [...] -> [...].",
    rule=_take_along_dim,
    reference=lambda xp, x, indices, dim=None: (
        xp.take_along_axis(x, indices, axis=dim) if dim is not None else x.ravel()[indices.ravel()]
    ),
    dtypes=EVERY,
    samples=(
        call(fill(3, 4), places(3, 2, 1, low=-3), 0),
        call(fill(3, 4), places(12, 5)),
        call(fill(1, 33), places(33, 2, 5), -1),
    ),
    bad=(Bad((fill(3, 4), places(3, 2), 0), RuntimeError, "take_along_dim: x and indices must have as many dims"),),
)


# ---- scatter, scatter_add: the kernels -----------------------------------------------------------------------------


def _scatter_operands(name: str, x: Any, dim: Any, index: Any, src: Any) -> tuple[tuple[Any, ...], int]:
    """x, index and the part that index covers of src, which may be larger; and the canonical dim.  Raises RuntimeError."""
    x, index, src = tensor(name, "input", x), index_tensor(name, "index", index), tensor(name, "src", src)
    if src.dtype is not x.dtype:
        raise RuntimeError(f"{name}: expected input and src to have one dtype, got {of_type(x)} and {of_type(src)}")
    k = one_dim(name, dim, x.ndim)
    if any(map(is_zero, index.shape)):
        return (x, index, src), k
    x, index, src = _vectors(x, index, src)
    _indexed(name, of_type(x), of_type(index), k)
    pairs = [] if src.ndim != index.ndim else list(zip(index.shape, src.shape, strict=True))
    if src.ndim != index.ndim or any(isinstance(a, int) and isinstance(b, int) and a > b for a, b in pairs):
        raise RuntimeError(f"{name}: index {of_type(index)} does not fit src {of_type(src)}")
    if tuple(src.shape) != tuple(index.shape):
        src = slice_.run(src, starts=(0,) * src.ndim, stops=tuple(index.shape), steps=(1,) * src.ndim)
    return (x, index, src), k


def _scattered(op: Op, name: str, x: Any, dim: Any, index: Any, src: Any, **attrs: Any) -> Any:
    """`op` run on operands made strict; x itself (as a copy) where the index is empty."""
    shape = tuple(x.shape)
    (x, index, src), k = _scatter_operands(name, x, dim, index, src)
    if any(map(is_zero, index.shape)):
        return Op.table["clone"].run(x)
    result = op.run(x, index, src, dim=k, **attrs)
    return result if tuple(result.shape) == shape else reshape.run(result, shape=shape)


def _scatter_infer(name: str) -> Callable[..., TensorType]:
    def infer(x: TensorType, index: TensorType, src: TensorType, dim: int, reduce: str = "") -> TensorType:
        _indexed(name, x, index, dim)
        if src.dtype is not x.dtype or src.shape != index.shape:
            raise RuntimeError(f"{name}: src must be of the dtype of x and the shape of index: {x}, {index}, {src}")
        return x

    return infer


def _scatter_reference(name: str) -> Callable[..., Any]:
    def reference(xp: Any, x: Any, index: Any, src: Any, dim: int, reduce: str = "add") -> Any:
        check_range(name, index, x.shape[dim], RuntimeError)
        result = xp.array(x)
        there = list(xp.indices(index.shape))
        there[dim] = index.astype(np.int64)
        if reduce == "replace":
            for place, value in zip(zip(*(t.ravel() for t in there), strict=True), src.ravel(), strict=True):
                result[place] = value
            return result
        folds = {"add": xp.add, "multiply": xp.multiply, "amax": xp.maximum, "amin": xp.minimum}
        if x.dtype == np.bool_:
            folds = {"add": xp.logical_or, "multiply": xp.logical_and, "amax": xp.logical_or, "amin": xp.logical_and}
        folds[reduce].at(result, tuple(there), src)
        return result

    return rounded(reference)


_STEPS = {"add": ("add", "or"), "multiply": ("mul", "and"), "amax": ("max", "or"), "amin": ("min", "and")}


def _step(old: Expr, new: Expr, dim: int, reduce: str = "add") -> Expr:
    return new if reduce == "replace" else fn(_STEPS[reduce][old.dtype is bool_], old, new)


scatter_add: Op = Routed(
    "scatter_add",
    doc="x with src[i, j] added at [index[i, j], j] for dim 0, and so on, in row-major order of index.  [...] , "
    "[...] , [...] -> [...].",
    signature="(x, dim, index, src)",
    prepare=lambda x, dim, index, src: _as_prepared(_scatter_operands("scatter_add", x, dim, index, src)),
    route=lambda op, x, dim, index, src: _scattered(op, "scatter_add", x, dim, index, src),
    infer=_scatter_infer("scatter_add"),
    reference=_scatter_reference("scatter_add"),
    grad=lambda g, out, x, index, src, dim: (g, None, gather.run(g, index, dim=dim)),
    lowering=Anchor("scatter", _step),
    attrs=("dim",),
    dtypes=EVERY,
    samples=(
        call(fill(3, 4), 0, places(3, 5, 4), fill(5, 4)),
        call(fill(3, 4), -1, places(4, 3, 6), fill(3, 6)),
        call(fill(5), 0, places(5, 33), fill(33)),
        call(fill(2, 3), 1, places(3, 1, 2), fill(2, 5)),
        call(fill(3), 0, places(3, 0), fill(0)),
    ),
    bad=(
        Bad((fill(3), 0, places(9, 4, low=5), fill(4)), RuntimeError, "scatter_add: index out of range"),
        Bad((fill(3), 0, places(3, 4), fill(2)), RuntimeError, "scatter_add: index .* does not fit src"),
        Bad((fill(3), 0, places(3, 2), fill(2, dtype=bool_)), RuntimeError, "scatter_add: expected input and src"),
    ),
    inplace=True,
)


def _as_prepared(operands: tuple[tuple[Any, ...], int]) -> Prepared:
    inputs, dim = operands
    return inputs, {"dim": dim}


# ---- scatter -------------------------------------------------------------------------------------------------------


def _extremum_gradients(g: Any, out: Any, x: Any, index: Any, src: Any, dim: int) -> tuple[Any, Any]:
    """The gradient shared equally among the elements that are the extremum."""
    from_x, from_src = cast(eq(x, out), g.dtype), cast(eq(src, gather.run(out, index, dim=dim)), g.dtype)
    share = div(g, scatter_add.run(from_x, index, from_src, dim=dim))
    return mul(from_x, share), mul(from_src, gather.run(share, index, dim=dim))


def _product_gradients(g: Any, out: Any, x: Any, index: Any, src: Any, dim: int) -> tuple[Any, Any]:
    """A product without one of its factors: the whole divided by it, or made anew where it is the only zero."""
    ones = constant(1, x.dtype)
    whole = constant(1, x.dtype, tuple(x.shape))
    into_x = mul(g, scatter.run(whole, index, src, dim=dim, reduce="multiply"))
    zero = eq(src, constant(0, src.dtype))
    zeros = gather.run(scatter_add.run(zeros_like(x), index, cast(zero, x.dtype), dim=dim), index, dim=dim)
    alone = logical_and(zero, eq(zeros, ones))
    without = scatter.run(x, index, where.run(alone, ones, src), dim=dim, reduce="multiply")
    divided = div(gather.run(mul(g, out), index, dim=dim), where.run(zero, ones, src))
    return into_x, where.run(alone, gather.run(mul(g, without), index, dim=dim), divided)


def _scatter_grad(g: Any, out: Any, x: Any, index: Any, src: Any, dim: int, reduce: str) -> tuple[Any, None, Any]:
    if reduce == "replace":
        into_x = scatter.run(g, index, zeros_like(src), dim=dim, reduce=reduce)
        return into_x, None, gather.run(g, index, dim=dim)
    rule = _product_gradients if reduce == "multiply" else _extremum_gradients
    into_x, into_src = rule(g, out, x, index, src, dim)
    return into_x, None, into_src


def _scatter_source(x: Any, index: Any, src: Any, value: Any) -> Any:
    """The tensor that is written; a number becomes one."""
    given = value if src is None else src
    if is_tensor(given):
        return given
    index = index_tensor("scatter", "index", index)
    filler = constant(number("scatter", "src", given), x.dtype)
    return expand.run(filler, shape=tuple(index.shape))


def _scatter_prepare(x: Any, dim: Any, index: Any, src: Any = None, *, value: Any = None, reduce: Any = None) -> Prepared:
    if reduce not in (None, "add", "multiply"):
        raise RuntimeError(f"scatter: reduce argument must be either add or multiply, got {reduce!r}")
    operands, k = _scatter_operands("scatter", x, dim, index, _scatter_source(tensor("scatter", "input", x), index, src, value))
    return operands, {"dim": k, "reduce": reduce or "replace"}


def _scatter_route(op: Op, x: Any, dim: Any, index: Any, src: Any = None, *, value: Any = None, reduce: Any = None) -> Any:
    if reduce not in (None, "add", "multiply"):
        raise RuntimeError(f"scatter: reduce argument must be either add or multiply, got {reduce!r}")
    src = _scatter_source(tensor("scatter", "input", x), index, src, value)
    if reduce == "add":
        return _scattered(scatter_add, "scatter", x, dim, index, src)
    return _scattered(op, "scatter", x, dim, index, src, reduce=reduce or "replace")


scatter: Op = Routed(
    "scatter",
    doc="x with src (a tensor or a number) written at [index[i, j], j] for dim 0, and so on; `reduce` add or multiply combines "
    "with what is there.  The last write wins, in row-major order of index.  [...] , integers [...] , [...] -> [...].",
    signature="(x, dim, index, src, *, reduce=None)",
    prepare=_scatter_prepare,
    route=_scatter_route,
    infer=_scatter_infer("scatter"),
    reference=_scatter_reference("scatter"),
    grad=_scatter_grad,
    lowering=Anchor("scatter", _step),
    attrs=("dim", "reduce"),
    dtypes=EVERY,
    samples=(
        call(fill(3, 4), 0, places(3, 1, 4), fill(1, 4)),
        call(fill(3, 4), -1, places(4, 3, 1), fill(3, 6)),
        call(fill(5), 0, places(5, 33), 3),
        call(fill(3, 4), 1, places(4, 3, 6), fill(3, 6), reduce="multiply"),
        call(fill(3, 4), 0, places(3, 5, 4), fill(5, 4), reduce="add"),
        call(fill(3), 0, places(3, 0), fill(0)),
    ),
    bad=(
        Bad((fill(3), 0, places(9, 4, low=5), fill(4)), RuntimeError, "scatter: index out of range"),
        Bad((fill(3), 0, places(3, 2), fill(2)), RuntimeError, "scatter: reduce argument", {"reduce": "max"}),
        Bad((fill(3), 0, places(3, 2), fill(2, dtype=bool_)), RuntimeError, "scatter: expected input and src to have one dtype"),
    ),
    inplace=True,
)


# ---- scatter_reduce ------------------------------------------------------------------------------------------------

_FOLDS = {"sum": "add", "prod": "multiply", "mean": "add", "amax": "amax", "amin": "amin"}


def _neutral(fold: str, dtype: DType) -> Any:
    name = _STEPS[fold][dtype is bool_] if dtype is bool_ else {"add": "add", "multiply": "mul", "amax": "max", "amin": "min"}[fold]
    return identity(name, dtype).value


def reduced_at(name: str, x: Any, dim: Any, index: Any, src: Any, reduce: str, include_self: bool) -> Any:
    """x with the elements of src combined at each place, with x's own (`include_self`) or without."""
    if reduce not in _FOLDS:
        raise RuntimeError(f"{name}: reduce argument must be one of {', '.join(_FOLDS)}, got {reduce!r}")
    shape = tuple(tensor(name, "input", x).shape)
    (x, index, src), k = _scatter_operands(name, x, dim, index, src)
    if any(map(is_zero, index.shape)):
        return Op.table["clone"].run(x)
    fold = _FOLDS[reduce]

    def at(base: Any, values: Any, how: str) -> Any:
        return scatter_add.run(base, index, values, dim=k) if how == "add" else scatter.run(base, index, values, dim=k, reduce=how)

    def emptied(base: Any, value: Any) -> Any:
        return base if include_self else at(base, constant(value, base.dtype, tuple(index.shape)), "replace")

    result = at(emptied(x, _neutral(fold, x.dtype)), src, fold)
    if reduce == "mean":
        ones = constant(1, x.dtype, tuple(x.shape))
        counts = at(emptied(ones, 0), constant(1, x.dtype, tuple(index.shape)), "add")
        result = (div if x.dtype.kind in "fc" else floor_divide)(result, counts)
    return result if tuple(result.shape) == shape else reshape.run(result, shape=shape)


def _reduced_reference(xp: Any, x: Any, index: Any, src: Any, dim: int, reduce: str, include_self: bool) -> Any:
    check_range("scatter_reduce", index, x.shape[dim], RuntimeError)
    result = xp.array(x)
    seen: dict[tuple[int, ...], list[Any]] = {}
    for place in np.ndindex(index.shape):
        there = (*place[:dim], int(index[place]), *place[dim + 1 :])
        seen.setdefault(there, [x[there]] if include_self else []).append(src[place])
    folds: dict[str, Any] = {"sum": np.sum, "prod": np.prod, "mean": np.mean, "amax": np.max, "amin": np.min}
    for there, values in seen.items():
        value = folds[reduce](np.asarray(values, x.dtype))
        result[there] = np.floor(value) if x.dtype.kind in "iu" else value
    return result


scatter_reduce = Shorthand(
    "scatter_reduce",
    doc="x with the elements of src combined at [index[i, j], j] for dim 0, and so on: sum, prod, mean, amax or amin, together "
    "with x's own element or (`include_self` False) without it.  [...] , integers [...] , [...] -> [...].",
    signature="(x, dim, index, src, reduce, *, include_self=True)",
    rule=lambda x, index, src, dim, reduce, include_self: reduced_at("scatter_reduce", x, dim, index, src, reduce, include_self),
    prepare=lambda x, dim, index, src, reduce, *, include_self=True: (
        (x, index, src),
        {"dim": dim, "reduce": reduce, "include_self": include_self},
    ),
    reference=rounded(_reduced_reference),
    attrs=("dim", "reduce", "include_self"),
    dtypes=NUMERIC,
    samples=(
        call(fill(3, 4), 0, places(3, 5, 4), fill(5, 4), "sum"),
        call(fill(3, 4), 1, places(4, 3, 6), fill(3, 6), "prod", include_self=False),
        call(fill(3, 4), 0, places(3, 5, 4), fill(5, 4), "mean"),
        call(fill(3, 4), 0, places(3, 5, 4), fill(5, 4), "mean", include_self=False),
        call(fill(5), 0, places(5, 33), fill(33), "amax"),
        call(fill(5), 0, places(5, 3), fill(3), "amin", include_self=False),
    ),
    bad=(
        Bad((fill(3), 0, places(3, 2), fill(2), "max"), RuntimeError, "scatter_reduce: reduce argument must be one of"),
        Bad((fill(3), 0, places(9, 4, low=5), fill(4), "sum"), RuntimeError, "scatter_(add|reduce): index out of range"),
        Bad((fill(3, 4), 0, places(3, 2, 5), fill(2, 5), "sum"), RuntimeError, "scatter_reduce: index .* is larger than x"),
    ),
    inplace=True,
)
