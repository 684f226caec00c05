"""Reading and writing at places that several index tensors name together: what ``x[i, :, j]`` and ``x[i, :, j] = v`` become.

Enters: tensors and integer tensors, negative indices counted from the end.  Leaves: `index` and `index_put`, one kernel each, and
the operators written with them.  Never here: Python index expressions (`eager.indexing`).

The definition of a write is serial: the values go in in row-major order of the indices, so of several writes to one place the
last one wins.  That holds for any number of threads.  An index out of range raises IndexError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dims import product
from graphc.dtypes import bool_, int64, uint8
from graphc.ir.loops import Expr
from graphc.ir.op import COUNT, Anchor, Bad, Element, Host, Op, Shape, TensorType, broadcast_shapes, shape_text
from graphc.ops.arguments import cast, constant, is_tensor, is_zero, of_type, one_size, rounded, same_dtype, tensor, zeros_like
from graphc.ops.bounds import places
from graphc.ops.comparison import where
from graphc.ops.declare import EVERY, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import both, clamped, converted, select
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import size as size_value
from graphc.ops.movement import Index, expand, reshape

# ---- what index tensors and dims mean ------------------------------------------------------------------------------


def indexed_shape(name: str, x: TensorType, indices: Sequence[TensorType], dims: tuple[int, ...], at: int) -> Shape:
    """The shape of x at `indices` of its `dims`: the dims that are not indexed, and from `at` on those of the indices.

    Raises IndexError or RuntimeError.
    """
    if len(dims) != len(indices) or not dims or sorted(set(dims)) != list(dims) or dims[-1] >= x.rank:
        raise RuntimeError(f"{name}: dims {dims} do not fit {x} and {len(indices)} indices")
    for index in indices:
        if index.dtype.kind not in "iu":
            raise IndexError(f"{name}: indices must be integer tensors, got {index}")
    try:
        common = broadcast_shapes(name, [i.shape for i in indices])
    except RuntimeError:
        shown = ", ".join(shape_text(i.shape) for i in indices)
        raise IndexError(f"{name}: shape mismatch: indexing tensors could not be broadcast together with shapes {shown}") from None
    if not any(map(is_zero, common)):
        for dim in dims:
            if is_zero(x.shape[dim]):
                raise IndexError(f"{name}: index is out of bounds for dimension {dim} with size 0")
    rest = tuple(n for d, n in enumerate(x.shape) if d not in dims)
    if not 0 <= at <= len(rest):
        raise RuntimeError(f"{name}: index dims cannot be put at {at} of {shape_text(rest)}")
    return (*rest[:at], *common, *rest[at:])


def check_bounds(name: str, shape: Shape, indices: Sequence[Any], dims: Sequence[int]) -> None:
    """The reference's check.  Raises IndexError naming the first index that is out of range."""
    for index, dim in zip(indices, dims, strict=True):
        size = shape[dim]
        if index.size and (index.min() < -size or index.max() >= size):
            wrong = int(index[(index < -size) | (index >= size)].flat[0])
            raise IndexError(f"{name}: index {wrong} is out of bounds for dimension {dim} with size {size}")


def _in_front(xp: Any, indices: Sequence[Any], dims: tuple[int, ...]) -> tuple[int, tuple[Any, ...]]:
    """The rank of the indices' common shape, and the indices as NumPy takes them."""
    rank = max(i.ndim for i in indices)
    return rank, tuple(i.astype(np.int64) for i in indices)


def _ranges(start: int, count: int) -> tuple[int, ...]:
    return tuple(range(start, start + count))


# ---- index ---------------------------------------------------------------------------------------------------------


def _index_rule(
    load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, dims: tuple[int, ...], at: int
) -> Expr:
    x, *indices = in_types
    rank = max(i.rank for i in indices)
    common = index[at : at + rank]
    rest = iter((*index[:at], *index[at + rank :]))
    there: list[Any] = []
    for dim, size in enumerate(x.shape):
        if dim not in dims:
            there.append(next(rest))
            continue
        k = dims.index(dim)
        shape = indices[k].shape
        here = common[rank - len(shape) :]
        here = tuple(0 if isinstance(n, int) and n == 1 else i for n, i in zip(shape, here, strict=True))
        given = load.let(converted(load(1 + k, here), int64))
        limit = size_value(size)
        from_start = load.let(select(fn("lt", given, literal(0, int64)), fn("add", given, limit), given))
        inside = both(fn("ge", from_start, literal(0, int64)), fn("lt", from_start, limit))
        load.check(inside, "index: index out of range")
        there.append(clamped(load, from_start, size))
    value: Expr = load(0, tuple(there))
    return value


def _index_reference(xp: Any, x: Any, *indices: Any, dims: tuple[int, ...], at: int) -> Any:
    check_bounds("index", x.shape, indices, dims)
    rank, given = _in_front(xp, indices, dims)
    if len(dims) == 1 and at == dims[0]:
        return xp.take(x, given[0], axis=dims[0])
    taken = xp.moveaxis(x, dims, range(len(dims)))[given]
    return xp.moveaxis(taken, _ranges(0, rank), _ranges(at, rank))


index = Op(
    "index",
    doc="x at index tensors of some of its dims, which broadcast together; their dims come in place `at` of the dims that are "
    "left.  [...] , integers [...] ... -> [...].",
    signature="(x, *indices, dims, at)",
    infer=lambda x, *indices, dims, at: TensorType(x.dtype, indexed_shape("index", x, indices, dims, at)),
    reference=_index_reference,
    grad=lambda g, out, x, *indices, dims, at: (
        index_put.run(zeros_like(x), g, *indices, dims=dims, at=at, accumulate=True),
        *(None for _ in indices),
    ),
    lowering=Element(_index_rule),
    attrs=("dims", "at"),
    dtypes=EVERY,
    samples=(
        call(fill(3, 4), places(3, 5, low=-3), dims=(0,), at=0),
        call(fill(3, 4, 2), places(4, 2, 3), dims=(1,), at=1),
        call(fill(3, 4), places(3, 33), places(4, 33), dims=(0, 1), at=0),
        call(fill(3, 4, 5), places(3, 2, 1), places(5, 3), dims=(0, 2), at=0),
        call(fill(3, 4, 5), places(3), dims=(1,), at=1),
        call(fill(3, 4), places(3, 0), dims=(0,), at=0),
    ),
    bad=(
        Bad((fill(3), places(9, 4, low=5)), IndexError, "index: index", {"dims": (0,), "at": 0}),
        Bad((fill(3, 4), places(3, 2), places(4, 3)), IndexError, "index: shape mismatch", {"dims": (0, 1), "at": 0}),
        Bad((fill(0, 4), places(1, 2)), IndexError, "index: index is out of bounds .* size 0", {"dims": (0,), "at": 0}),
    ),
    methods=(),
    functions=(),
)


# ---- index_put -----------------------------------------------------------------------------------------------------


def _index_put_infer(
    x: TensorType, values: TensorType, *indices: TensorType, dims: tuple[int, ...], at: int, accumulate: bool
) -> TensorType:
    same_dtype("index_put", (x, values))
    shape = indexed_shape("index_put", x, indices, dims, at)
    if values.shape != shape:
        raise RuntimeError(
            f"index_put: shape mismatch: value tensor {values} cannot be broadcast to indexing result of shape {shape_text(shape)}"
        )
    return x


def _index_put_reference(xp: Any, x: Any, values: Any, *indices: Any, dims: tuple[int, ...], at: int, accumulate: bool) -> Any:
    check_bounds("index_put", x.shape, indices, dims)
    rank, given = _in_front(xp, indices, dims)
    result = xp.array(x)
    moved = xp.moveaxis(result, dims, range(len(dims)))
    values = xp.moveaxis(values, _ranges(at, rank), _ranges(0, rank))
    if not accumulate:
        moved[given] = values
    elif x.dtype == np.bool_:
        xp.logical_or.at(moved, given, values)
    else:
        xp.add.at(moved, given, values)
    return result


def _index_put_grad(
    g: Any, out: Any, x: Any, values: Any, *indices: Any, dims: tuple[int, ...], at: int, accumulate: bool
) -> tuple[Any, ...]:
    where_ = {"dims": dims, "at": at}
    kept = g if accumulate else index_put.run(g, zeros_like(values), *indices, **where_, accumulate=False)
    return (kept, index.run(g, *indices, **where_), *(None for _ in indices))


def _put_step(old: Expr, new: Expr, dims: tuple[int, ...], at: int, accumulate: bool) -> Expr:
    if not accumulate:
        return new
    return fn("or" if old.dtype is bool_ else "add", old, new)


def _put_prepare(*args: Any, **kwargs: Any) -> Prepared:
    """``index_put(input, indices, values, accumulate=False)``, or the form that graphs hold."""
    if "dims" in kwargs:
        return args, kwargs
    return _index_put_prepare(*args, **kwargs)


def _index_put_prepare(x: Any, indices: Any, values: Any, accumulate: bool = False) -> Prepared:
    name = "index_put"
    x, values = tensor(name, "input", x), tensor(name, "values", values)
    if is_tensor(indices) or not isinstance(indices, list | tuple):
        raise TypeError(f"{name}: argument 'indices' must be a tuple of Tensors, not {type(indices).__name__}")
    if not indices:
        raise RuntimeError(f"{name}: at least one index is needed")
    if values.dtype is not x.dtype:
        raise RuntimeError(f"{name}: x and values must have one dtype, got {of_type(x)} and {of_type(values)}")
    dims, given = opened_indices(name, x, indices)
    at = placed_at(dims)
    shape = indexed_shape(name, of_type(x), [of_type(i) for i in given], dims, at)
    values = broadcast_values(name, values, shape)
    return (x, values, *given), {"dims": dims, "at": at, "accumulate": bool(accumulate)}


def opened_indices(name: str, x: Any, indices: Sequence[Any]) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """The dims that index tensors of x's first dims name and integer tensors for each; None passes a dim over, and a bool mask
    becomes the positions of its True elements.  Raises IndexError."""
    dims: list[int] = []
    given: list[Any] = []
    dim = 0
    for i in indices:
        if i is None:
            dim += 1
            continue
        i = tensor(name, "indices", i)
        if i.dtype is bool_ or i.dtype is uint8:
            if i.ndim == 0:
                raise IndexError(f"{name}: a 0-dim mask is no index; use where()")
            check_mask(name, x, i, dim)
            opened = nonzero_columns(i)
        else:
            opened = (i,)
        dims.extend(range(dim, dim + len(opened)))
        given.extend(opened)
        dim += len(opened)
    if dim > x.ndim:
        raise IndexError(f"{name}: too many indices for tensor of dimension {x.ndim} (got {dim})")
    return tuple(dims), tuple(given)


def check_mask(name: str, x: Any, mask: Any, dim: int) -> None:
    """Raise IndexError unless a mask has the sizes of x from `dim` on."""
    have = tuple(x.shape[dim : dim + mask.ndim])
    if have != tuple(mask.shape):
        raise IndexError(
            f"{name}: The shape of the mask {shape_text(tuple(mask.shape))} at index {dim} does not match the shape of the indexed "
            f"tensor {shape_text(tuple(x.shape))} at index {dim}"
        )


def placed_at(dims: Sequence[int]) -> int:
    """Where the dims of index tensors come in the result: in place of the indexed dims, in front where those are apart."""
    first = dims[0]
    return first if list(dims) == list(range(first, first + len(dims))) else 0


def broadcast_values(name: str, values: Any, shape: Shape) -> Any:
    """`values` as `shape`; leading dims of size 1 beyond its rank do not count.  Raises RuntimeError."""
    extra = values.ndim - len(shape)
    given = values
    if extra > 0 and all(isinstance(n, int) and n == 1 for n in values.shape[:extra]):
        values = reshape.run(values, shape=tuple(values.shape[extra:]))
    try:
        return values if tuple(values.shape) == shape else expand.run(values, shape=shape)
    except RuntimeError:
        message = f"{name}: shape mismatch: value tensor {of_type(given)} cannot be broadcast to indexing result of shape"
        raise RuntimeError(f"{message} {shape_text(shape)}") from None


index_put: Op = Op(
    "index_put",
    doc="x with the elements at index tensors replaced by values, or with values added to them.  The last write to a place wins, "
    "in row-major order of the indices.  [...] , integers [...] ... , [...] -> [...].",
    signature="(x, indices, values, accumulate=False)",
    prepare=_put_prepare,
    infer=_index_put_infer,
    reference=rounded(_index_put_reference),
    grad=_index_put_grad,
    lowering=Anchor("put", _put_step),
    attrs=("dims", "at", "accumulate"),
    dtypes=EVERY,
    samples=(
        call(fill(3, 4), (places(2, 1, low=1),), fill(1, 4)),
        call(fill(3, 4), (places(3, 5, low=-3),), fill(5, 4), accumulate=True),
        call(fill(3, 4), (places(3, 33), places(4, 33)), fill(33), accumulate=True),
        call(fill(2, 3, 4), (None, places(3, 2, 2)), fill(4), True),
        call(fill(3, 4, 5), (places(3, 2, 1), None, places(5, 3)), fill(), accumulate=True),
        call(fill(3, 4), (places(3, 0),), fill(4)),
        call(fill(3, 200), (places(1, 1),), fill(200)),
    ),
    bad=(
        Bad((fill(3), (places(9, 4, low=5),), fill(4)), IndexError, "index_put: index"),
        Bad((fill(3), (places(3, 4),), fill(2)), RuntimeError, "index_put: shape mismatch: value tensor"),
        Bad((fill(3), (places(3, 4), places(3, 4)), fill(4)), IndexError, "index_put: too many indices"),
        Bad((fill(3), places(3, 4), fill(4)), TypeError, "index_put: argument 'indices' must be a tuple"),
        Bad((fill(3), (), fill(4)), RuntimeError, "index_put: at least one index"),
    ),
    inplace=True,
)


# ---- where elements are not zero -----------------------------------------------------------------------------------


def _nonzero_reference(xp: Any, x: Any) -> Any:
    found = xp.nonzero(x) if x.ndim else (np.zeros(int(bool(x)), np.int64),)
    return np.stack(found, axis=1) if x.ndim else np.zeros((len(found[0]), 0), np.int64)


nonzero_places = Op(
    "nonzero_places",
    doc="The positions of elements that are not zero, in row-major order.  [...] -> int64 [count, rank].",
    signature="(x)",
    infer=lambda x: TensorType(int64, (COUNT, x.rank)),
    reference=_nonzero_reference,
    grad=None,
    lowering=Host(sized_by_data=True),
    dtypes=EVERY,
    samples=(call(fill(3, 4)), call(fill()), call(fill(0, 2)), call(fill(33))),
    bad=(Bad((2,), TypeError, "nonzero: argument 'input' must be a Tensor"),),
    prepare=lambda x: ((tensor("nonzero", "input", x),), {}),
    methods=(),
    functions=(),
)


def nonzero_columns(x: Any) -> tuple[Any, ...]:
    """The positions of elements that are not zero, one int64 vector for each dim."""
    found = nonzero_places.run(x)
    return tuple(Op.table["select"](found, 1, k) for k in range(x.ndim))


def _nonzero(x: Any, *, as_tuple: bool = False) -> Any:
    x = tensor("nonzero", "input", x)
    if not as_tuple:
        return nonzero_places.run(x)
    return nonzero_columns(x if x.ndim else reshape.run(x, shape=(1,)))


def _positions(name: str, rule: Any) -> Shorthand:
    return Shorthand(
        name,
        doc="The positions of elements that are not zero, in row-major order; `as_tuple`: one vector for each dim.  [...] -> int64 "
        "[count, rank].",
        rule=rule,
        reference=_nonzero_reference,
        grad=None,
        dtypes=EVERY,
        samples=(call(fill(3, 4)), call(fill()), call(fill(0, 2)), call(fill(33))),
        bad=(Bad((2,), TypeError, "nonzero: argument 'input' must be a Tensor"),),
    )


nonzero = _positions("nonzero", _nonzero)
argwhere = _positions("argwhere", lambda x: _nonzero(x))


def _nonzero_static_prepare(x: Any, *, size: Any, fill_value: Any = -1) -> Prepared:
    x, size = tensor("nonzero_static", "input", x), one_size("nonzero_static", "size", size)
    if isinstance(size, int) and size < 0:
        raise RuntimeError(f"nonzero_static: size must be non-negative, got {size}")
    return (x,), {"size": size, "fill_value": one_size("nonzero_static", "fill_value", fill_value)}


def _nonzero_static_reference(xp: Any, x: Any, size: int, fill_value: int) -> Any:
    found = _nonzero_reference(xp, x)[:size]
    return np.concatenate([found, np.full((size - len(found), x.ndim), fill_value, np.int64)])


nonzero_static = Op(
    "nonzero_static",
    doc="The first `size` positions of elements that are not zero, and `fill_value` where there are fewer: `nonzero` for compiled "
    "code.  [...] -> int64 [size, rank].",
    signature="(x, *, size, fill_value=-1)",
    prepare=_nonzero_static_prepare,
    infer=lambda x, size, fill_value: TensorType(int64, (size, x.rank)),
    reference=_nonzero_static_reference,
    grad=None,
    lowering=Host(),
    attrs=("size", "fill_value"),
    dtypes=EVERY,
    samples=(call(fill(3, 4), size=5), call(fill(3), size=9, fill_value=7), call(fill(), size=0)),
    bad=(Bad((fill(3),), RuntimeError, "nonzero_static: size must be non-negative", {"size": -1}),),
)


# ---- the whole tensor as one dim: take, put --------------------------------------------------------------------------


def _flat_index(name: str, given: Any) -> Any:
    given = tensor(name, "index", given)
    if given.dtype is not int64:
        raise RuntimeError(f"{name}: expected a long tensor for index, but got {of_type(given)}")
    return given


def _take(x: Any, index: Any) -> Any:
    x, given = tensor("take", "input", x), _flat_index("take", index)
    return Op.table["index"].run(reshape.run(x, shape=(product(x.shape),)), given, dims=(0,), at=0)


take = Shorthand(
    "take",
    doc="Elements of x as one dim at an index.  [...] , int64 [...] -> shape of index.",
    rule=_take,
    reference=lambda xp, x, index: xp.take(x, index),
    dtypes=EVERY,
    samples=(call(fill(3, 4), places(12, 5)), call(fill(3, 4), places(12, 2, 3, low=-12)), call(fill(), places(1))),
    bad=(
        Bad((fill(3), places(9, 4, low=5)), IndexError, "index .* out of"),
        Bad((fill(3), fill(3, dtype=bool_)), RuntimeError, "take: expected a long tensor for index"),
    ),
)


def _put(x: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    x, given, source = tensor("put", "input", x), _flat_index("put", index), tensor("put", "source", source)
    if source.dtype is not x.dtype:
        raise RuntimeError(f"put: input and source must have one dtype, got {of_type(x)} and {of_type(source)}")
    counts = product(given.shape), product(source.shape)
    if counts[0] != counts[1]:
        raise RuntimeError(f"put: source and index must have as many elements: {of_type(source)} and {of_type(given)}")
    flat, values = reshape.run(x, shape=(product(x.shape),)), reshape.run(source, shape=tuple(given.shape))
    return reshape.run(index_put.run(flat, values, given, dims=(0,), at=0, accumulate=bool(accumulate)), shape=tuple(x.shape))


def _put_reference(xp: Any, x: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    flat = _index_put_reference(xp, x.ravel(), source.ravel(), index.ravel(), dims=(0,), at=0, accumulate=accumulate)
    return flat.reshape(x.shape)


put = Shorthand(
    "put",
    doc="x with the elements of it as one dim replaced by source at an index, or source added.  [...] , int64 [k] , [k] -> [...].",
    rule=_put,
    reference=rounded(_put_reference),
    dtypes=EVERY,
    samples=(
        call(fill(3, 4), places(12, 1, 1), fill(1)),
        call(fill(3, 4), places(12, 2, 3, low=-12), fill(6), accumulate=True),
        call(fill(), places(1), fill()),
    ),
    bad=(
        Bad((fill(3), places(9, 4, low=5), fill(4)), IndexError, "index_put: index"),
        Bad((fill(3), places(3, 4), fill(3)), RuntimeError, "put: source and index must have as many elements"),
    ),
    inplace=True,
)


# ---- masks ---------------------------------------------------------------------------------------------------------


def mask_tensor(name: str, mask: Any) -> Any:
    """A bool tensor.  Raises RuntimeError."""
    mask = tensor(name, "mask", mask)
    if mask.dtype is not bool_:
        raise RuntimeError(f"{name}: expected mask to be a bool tensor, got {of_type(mask)}")
    return mask


def _together(name: str, x: Any, mask: Any) -> tuple[Any, Any]:
    shape = broadcast_shapes(name, (tuple(x.shape), tuple(mask.shape)))
    return expand.run(x, shape=shape), expand.run(mask, shape=shape)


def _masked_select(x: Any, mask: Any) -> Any:
    x, mask = _together("masked_select", tensor("masked_select", "input", x), mask_tensor("masked_select", mask))
    if not x.ndim:
        x, mask = reshape.run(x, shape=(1,)), reshape.run(mask, shape=(1,))
    return Op.table["index"].run(x, *nonzero_columns(mask), dims=tuple(range(x.ndim)), at=0)


def _masked_scatter(x: Any, mask: Any, source: Any) -> Any:
    name = "masked_scatter"
    x, mask, source = tensor(name, "input", x), mask_tensor(name, mask), tensor(name, "source", source)
    if source.dtype is not x.dtype:
        raise RuntimeError(f"{name}: expected input and source to have one dtype, got {of_type(x)} and {of_type(source)}")
    x, mask = _together(name, x, mask)
    count = product(source.shape)
    flat = reshape.run(source, shape=(count,))
    if is_zero(count):
        flat = constant(0, x.dtype, (1,))
    place = reshape.run(Op.table["cumsum"](reshape.run(cast(mask, int64), shape=(product(x.shape),)), 0), shape=tuple(x.shape))
    place = Op.table["where"].run(mask, Op.table["sub"](place, 1), constant(0, int64))
    if is_zero(count):  # any True element is then one too many
        place = Op.table["where"].run(mask, constant(1, int64), constant(0, int64))
    return where.run(mask, Op.table["index"].run(flat, place, dims=(0,), at=0), x)


def _masked_scatter_reference(xp: Any, x: Any, mask: Any, source: Any) -> Any:
    x, mask = np.broadcast_arrays(x, mask)
    result = xp.array(x)
    result[mask] = source.ravel()[: int(mask.sum())]
    return result


_MASK = {"dtype": bool_, "low": 0, "high": 2}

masked_scatter = Shorthand(
    "masked_scatter",
    doc="x with the elements where mask replaced by those of source, in row-major order.  [...] , bool [...] , [...] -> broadcast.",
    rule=_masked_scatter,
    reference=_masked_scatter_reference,
    dtypes=EVERY,
    samples=(
        call(fill(3, 4), fill(3, 4, **_MASK), fill(12)),
        call(fill(3, 4), fill(4, **_MASK), fill(4, 5)),
        call(fill(3), fill(2, 3, **_MASK), fill(33)),
    ),
    bad=(
        Bad((fill(3), fill(3, dtype=int64), fill(3)), RuntimeError, "masked_scatter: expected mask to be a bool tensor"),
        Bad((fill(3), fill(2, **_MASK), fill(3)), RuntimeError, "masked_scatter: shapes .* do not broadcast"),
    ),
    inplace=True,
)
masked_select = Shorthand(
    "masked_select",
    doc="The elements where mask, in row-major order.  [...] , bool [...] -> [count].",
    rule=_masked_select,
    reference=lambda xp, x, mask: np.broadcast_arrays(x, mask)[0][np.broadcast_arrays(x, mask)[1]],
    dtypes=EVERY,
    samples=(call(fill(3, 4), fill(3, 4, **_MASK)), call(fill(3, 4), fill(4, **_MASK)), call(fill(), fill(**_MASK))),
    bad=(Bad((fill(3), fill(3, dtype=int64)), RuntimeError, "masked_select: expected mask to be a bool tensor"),),
)
