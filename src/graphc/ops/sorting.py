"""Order along a dim: sort, topk, the k-th smallest, medians, the most frequent.

Enters: tensors.  Leaves: operators.  Never here: what the whole tensor's elements are (`counting`), quantiles (`quantile`).

Sorting runs on the host, and only to find places: the values are then gathered by a kernel, so that their gradients are those of
gather.  Every sort is stable.  NaN counts as greater than anything, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dims import Dim, product
from graphc.dtypes import bool_, int64
from graphc.ir.op import Bad, Host, Op, Shape, Size, TensorType, canonical_dim
from graphc.ops.arguments import cast, constant, is_zero, of_type, one_dim, one_size, tensor
from graphc.ops.comparison import eq, isnan, logical_and, logical_or, where
from graphc.ops.declare import EVERY, NUMERIC, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.movement import squeeze
from graphc.ops.scatter import gather

# ---- places, found on the host ---------------------------------------------------------------------------------------


def comparable(x: Any) -> Any:
    """Elements that NumPy orders with NaN last: 16-bit floats as float32."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind not in "iub" else x


def order(x: Any, descending: bool = False) -> Any:
    """The stable order of the last dim; NaN last, or first where descending."""
    x = comparable(x)
    if x.dtype.itemsize <= 4:
        return np.sort(_keys(x, descending), axis=-1).astype(np.uint32).astype(np.int64)  # the low words: places
    if not descending:
        return np.argsort(x, axis=-1, kind="stable")
    return x.shape[-1] - 1 - np.argsort(x[..., ::-1], axis=-1, kind="stable")[..., ::-1]


def _keys(x: Any, descending: bool) -> Any:
    """Elements of at most 4 bytes as numbers of 8 that have their order, the place in the last dim below: no two are equal."""
    if x.dtype.kind == "f":
        bits = (x + np.float32(0)).view(np.int32)  # one zero
        rank = (bits ^ (bits >> 31 | np.int32(-(2**31)))).view(np.uint32)
        rank[np.isnan(x)] = 0xFFFFFFFF
    else:
        rank = x.astype(np.int64).astype(np.uint32) ^ np.uint32(0 if x.dtype.kind in "ub" else 0x80000000)
    wide = (~rank if descending else rank).astype(np.uint64) << np.uint64(32)
    return wide | np.arange(x.shape[-1], dtype=np.uint64)


def _sort_places(xp: Any, x: Any, dim: int, descending: bool) -> Any:
    return np.moveaxis(order(np.moveaxis(x, dim, -1), descending), -1, dim)


def _top_places(xp: Any, x: Any, k: int, dim: int, largest: bool) -> Any:
    """The k greatest or least in order; of equal ones the first."""
    x = np.moveaxis(comparable(x), dim, -1)
    if x.dtype.itemsize <= 4 and 0 < k < x.shape[-1]:
        keys = np.partition(_keys(x, largest), k - 1, axis=-1)[..., :k]
        return np.moveaxis(np.sort(keys, axis=-1).astype(np.uint32).astype(np.int64), -1, dim)
    return np.moveaxis(order(x, largest)[..., :k], -1, dim)


def _rank_place(xp: Any, x: Any, k: int, dim: int) -> Any:
    """The place of the k-th smallest, counted from 0."""
    return np.take(order(np.moveaxis(x, dim, -1)), k, axis=-1)


def _median_place(xp: Any, x: Any, dim: int, ignore_nan: bool) -> Any:
    """The place of the lower median; of the first NaN if there is one, unless they are left out."""
    x = np.moveaxis(x, dim, -1)
    nan = x != x
    ordered = order(x)
    count = x.shape[-1] - nan.sum(-1) if ignore_nan else np.full(x.shape[:-1], x.shape[-1])
    middle = np.maximum(count - 1, 0) // 2
    found = np.take_along_axis(ordered, middle[..., None], -1)[..., 0]
    return found if ignore_nan else np.where(nan.any(-1), nan.argmax(-1), found)


def _mode_place(xp: Any, x: Any, dim: int) -> Any:
    """The last place of the most frequent element, the least of several."""
    x = np.moveaxis(comparable(x), dim, -1)
    n = x.shape[-1]
    ordered = order(x)
    found = np.empty(x.shape[:-1], np.int64)
    for row in np.ndindex(x.shape[:-1]):
        places = ordered[row]
        line = x[row][places]
        ends = np.append(np.flatnonzero(line[1:] != line[:-1]), n - 1)
        counts = np.diff(ends, prepend=-1)
        found[row] = places[ends[int(counts.argmax())]]
    return found


def _places(
    name: str, doc: str, reference: Callable[..., Any], attrs: tuple[str, ...], shape: Callable[..., Shape], *samples: Any
) -> Op:
    """An operator of places as int64; no public name."""

    def infer(x: TensorType, **given: Any) -> TensorType:
        if x.dtype.kind == "c":
            raise RuntimeError(f"{name}: complex numbers have no order: {x}")
        canonical_dim(name, given["dim"], x.rank)
        return TensorType(int64, shape(x.shape, **given))

    return Op(
        name,
        doc=doc,
        signature=f"(x, {', '.join(attrs)})",
        infer=infer,
        reference=lambda xp, x, **given: np.asarray(reference(xp, x, **given), np.int64),
        grad=None,
        lowering=Host(),
        attrs=attrs,
        dtypes=EVERY,
        samples=samples,
        bad=(Bad((fill(3),), IndexError, f"{name}: Dimension out of range", {**dict.fromkeys(attrs, 0), "dim": 3}),),
        methods=(),
        functions=(),
    )


def _without(shape: Shape, dim: int) -> Shape:
    return (*shape[:dim], *shape[dim + 1 :])


sort_places = _places(
    "sort_places",
    "The places of a dim's elements in order.  [..., n, ...] -> int64 [..., n, ...].",
    _sort_places,
    ("dim", "descending"),
    lambda shape, dim, descending: shape,
    call(fill(3, 4), 0, False),
    call(fill(3, 4), 1, True),
    call(fill(2, 33, special=True), 1, True),
    call(fill(0, 3), 0, False),
)
top_places = _places(
    "top_places",
    "The places of a dim's k greatest or least elements in order.  [..., n, ...] -> int64 [..., k, ...].",
    _top_places,
    ("k", "dim", "largest"),
    lambda shape, k, dim, largest: (*shape[:dim], k, *shape[dim + 1 :]),
    call(fill(3, 4), 2, 0, True),
    call(fill(3, 33), 5, 1, False),
    call(fill(3, 4), 0, 1, True),
)
rank_place = _places(
    "rank_place",
    "The place of a dim's k-th smallest element, counted from 0.  [..., n, ...] -> int64 [..., ...].",
    _rank_place,
    ("k", "dim"),
    lambda shape, k, dim: _without(shape, dim),
    call(fill(3, 4), 2, 0),
    call(fill(33), 5, 0),
)
median_place = _places(
    "median_place",
    "The place of a dim's lower median.  [..., n, ...] -> int64 [..., ...].",
    _median_place,
    ("dim", "ignore_nan"),
    lambda shape, dim, ignore_nan: _without(shape, dim),
    call(fill(3, 4), 0, False),
    call(fill(5, 33, special=True), 1, True),
    call(fill(5, 33, special=True), 1, False),
)
mode_place = _places(
    "mode_place",
    "The last place of a dim's most frequent element.  [..., n, ...] -> int64 [..., ...].",
    _mode_place,
    ("dim",),
    lambda shape, dim: _without(shape, dim),
    call(fill(3, 4), 0),
    call(fill(33, low=0, high=4), 0),
)


# ---- values with their places ----------------------------------------------------------------------------------------


def _picked(x: Any, places: Any, dim: int) -> Any:
    """The values at places of a dim."""
    return gather.run(x, places, dim=dim)


def _reduced(x: Any, place: Any, dim: int, keepdim: bool) -> tuple[Any, Any]:
    """Value and place of one element a line."""
    kept = Op.table["unsqueeze"].run(place, dim=dim)
    value = _picked(x, kept, dim)
    return (value, kept) if keepdim else (squeeze.run(value, dims=(dim,)), place)


def _scalar(x: Any) -> tuple[Any, Any]:
    return Op.table["clone"].run(x), constant(0, int64)


def _orderable(name: str, x: Any) -> Any:
    x = tensor(name, "input", x)
    if x.dtype.kind == "c":
        raise RuntimeError(f"{name}: complex numbers have no order: {of_type(x)}")
    return x


def _sort(x: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> tuple[Any, Any]:
    x = _orderable("sort", x)
    k = one_dim("sort", dim, x.ndim)
    if not x.ndim:
        return _scalar(x)
    places = sort_places.run(x, dim=k, descending=bool(descending))
    return _picked(x, places, k), places


def _sort_reference(xp: Any, x: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> tuple[Any, Any]:
    if not x.ndim:
        return x, np.int64(0)
    places = _sort_places(xp, x, dim % x.ndim, descending)
    return xp.take_along_axis(x, places, dim), places


def _flexible(name: str) -> Callable[..., Prepared]:
    """``sort(x, dim, descending)`` and ``sort(x, stable=True)``."""

    def prepare(x: Any, dim: Any = -1, descending: bool = False, *, stable: bool = False) -> Prepared:
        if isinstance(dim, bool):
            dim, descending = -1, dim
        return (_orderable(name, x),), {"dim": dim, "descending": bool(descending), "stable": bool(stable)}

    return prepare


_SORTED = (
    call(fill(3, 4)),
    call(fill(3, 4), 0, True),
    call(fill(2, 33, 2), 1),
    call(fill()),
    call(fill(0, 3), 0),
    call(fill(4, 5), descending=True, stable=True),
)

sort = Shorthand(
    "sort",
    doc="A dim's elements in order, and where each was; always stable, NaN last.  [..., n, ...] -> values, int64 places.",
    signature="(x, dim=-1, descending=False, *, stable=False)",
    rule=_sort,
    prepare=_flexible("sort"),
    reference=_sort_reference,
    dtypes=EVERY,
    samples=_SORTED,
    bad=(Bad((fill(3), 1), IndexError, "sort: Dimension out of range"),),
)
argsort = Shorthand(
    "argsort",
    doc="Where a dim's elements in order were; always stable, NaN last.  [..., n, ...] -> int64 [..., n, ...].",
    signature="(x, dim=-1, descending=False, *, stable=False)",
    rule=lambda x, dim=-1, descending=False, stable=False: _sort(x, dim, descending)[1],
    prepare=_flexible("argsort"),
    reference=lambda xp, x, dim=-1, descending=False, stable=False: _sort_reference(xp, x, dim, descending)[1],
    grad=None,
    dtypes=EVERY,
    samples=_SORTED,
    bad=(Bad((fill(3), 1), IndexError, "sort: Dimension out of range"),),
)
msort = Shorthand(
    "msort",
    doc="The first dim in order.  [n, ...] -> [n, ...].",
    rule=lambda x: _sort(x, 0)[0],
    reference=lambda xp, x: _sort_reference(xp, x, 0)[0],
    dtypes=EVERY,
    samples=(call(fill(3, 4)), call(fill()), call(fill(33))),
    bad=(Bad((2,), TypeError, "sort: argument 'input' must be a Tensor"),),
)


def _topk(x: Any, k: Any, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Any, Any]:
    x = _orderable("topk", x)
    d, k = one_dim("topk", dim, x.ndim), one_size("topk", "k", k)
    size: Size = x.shape[d] if x.ndim else 1
    if isinstance(k, Dim) or k < 0 or (isinstance(size, int) and k > size):
        raise RuntimeError(f"topk: selected index k out of range: {k} of {of_type(x)} at dim {d}")
    if not x.ndim:
        return _scalar(x)
    places = top_places.run(x, k=k, dim=d, largest=bool(largest))
    return _picked(x, places, d), places


def _topk_reference(xp: Any, x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Any, Any]:
    if not x.ndim:
        return x, np.int64(0)
    places = _top_places(xp, x, k, dim % x.ndim, largest)
    return xp.take_along_axis(x, places, dim), places


topk = Shorthand(
    "topk",
    doc="A dim's k greatest (or least) elements in order, and where they were.  [..., n, ...] -> [..., k, ...] , int64 places.",
    rule=_topk,
    reference=_topk_reference,
    dtypes=NUMERIC,
    samples=(call(fill(3, 4), 2), call(fill(3, 4), 1, 0, False), call(fill(33), 33), call(fill(2, 3), 0), call(fill(), 1)),
    bad=(
        Bad((fill(3), 4), RuntimeError, "topk: selected index k out of range"),
        Bad((fill(3), 1, 1), IndexError, "topk: Dimension out of range"),
    ),
)


def _line(name: str, x: Any, dim: Any) -> int:
    """The canonical dim of a reduction to one element.  Raises IndexError for an empty one."""
    d = one_dim(name, dim, x.ndim)
    if x.ndim and is_zero(x.shape[d]):
        raise IndexError(f"{name}: Expected reduction dim {d} to have non-zero size: {of_type(x)}")
    return d


def _kthvalue(x: Any, k: Any, dim: int = -1, keepdim: bool = False) -> tuple[Any, Any]:
    x = _orderable("kthvalue", x)
    d, k = _line("kthvalue", x, dim), one_size("kthvalue", "k", k)
    size: Size = x.shape[d] if x.ndim else 1
    if isinstance(k, Dim) or k < 1 or (isinstance(size, int) and k > size):
        raise RuntimeError(f"kthvalue: selected number k out of range for dimension {d}: {k} of {of_type(x)}")
    return _reduced(x, rank_place.run(x, k=k - 1, dim=d), d, keepdim) if x.ndim else _scalar(x)


def _reduced_reference(find: Callable[..., Any]) -> Callable[..., Any]:
    def reference(xp: Any, x: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        place, dim, keepdim = find(xp, x, *args, **kwargs)
        if not x.ndim:
            return x, np.int64(0)
        kept = np.expand_dims(place, dim)
        value = np.take_along_axis(x, kept, dim)
        return (value, kept) if keepdim else (value.squeeze(dim), place)

    return reference


def _kth_found(xp: Any, x: Any, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Any, int, bool]:
    return _rank_place(xp, x, k - 1, dim) if x.ndim else None, dim, keepdim


kthvalue = Shorthand(
    "kthvalue",
    doc="A dim's k-th smallest element, counted from 1, and where it was.  [..., n, ...] -> [..., ...], int64 [..., ...].",
    rule=_kthvalue,
    reference=_reduced_reference(_kth_found),
    dtypes=NUMERIC,
    samples=(call(fill(3, 4), 2), call(fill(3, 4), 1, 0, True), call(fill(33), 33), call(fill(), 1)),
    bad=(
        Bad((fill(3), 4), RuntimeError, "kthvalue: selected number k out of range"),
        Bad((fill(0), 1), IndexError, "kthvalue: Expected reduction dim"),
    ),
)


# ---- median, mode ------------------------------------------------------------------------------------------------------


def _whole_median(name: str, x: Any) -> Any:
    """The median of all elements, whose gradient is shared by the elements that are it."""
    if is_zero(product(x.shape)):
        if x.dtype.kind == "f":
            return constant(float("nan"), x.dtype)
        raise RuntimeError(f"{name}: the median of no elements is not defined for {of_type(x)}")
    return Op.table[f"{name}_of_all"].run(x)


def _median_of_all(name: str, ignore_nan: bool) -> Op:
    def whole_grad(g: Any, out: Any, x: Any) -> tuple[Any]:
        chosen = logical_or(eq(x, out), logical_and(isnan(x), isnan(out)))
        shares = cast(chosen, x.dtype)
        share = Op.table["div"](g, Op.table["sum"](shares))
        return (where(chosen, share, constant(0, g.dtype)),)

    def infer(x: TensorType) -> TensorType:
        if x.dtype.kind in "bc":
            raise RuntimeError(f"{name}: not implemented for {x}")
        return TensorType(x.dtype, ())

    def whole(xp: Any, x: Any) -> Any:
        flat = x.reshape(-1)
        return flat[_median_place(xp, flat, 0, ignore_nan)]

    return Op(
        f"{name}_of_all",
        doc="The lower median of all elements.  [...] -> [].",
        signature="(x)",
        infer=infer,
        reference=whole,
        grad=whole_grad,
        lowering=Host(),
        dtypes=NUMERIC,
        samples=(call(fill(3, 4)), call(fill()), call(fill(33))),
        bad=(Bad((fill(3, dtype=bool_),), RuntimeError, f"{name}: not implemented for"),),
        methods=(),
        functions=(),
    )


def _median(name: str) -> Shorthand:
    ignore_nan = name == "nanmedian"
    of_all = _median_of_all(name, ignore_nan)

    def rule(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        x = _orderable(name, x)
        if x.dtype is bool_:
            raise RuntimeError(f"{name}: not implemented for bool tensors")
        if dim is None:
            return _whole_median(name, x)
        d = _line(name, x, dim)
        return _reduced(x, median_place.run(x, dim=d, ignore_nan=ignore_nan), d, keepdim) if x.ndim else _scalar(x)

    def reference(xp: Any, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        if dim is None:
            return of_all.reference(xp, x)
        found = _reduced_reference(lambda xp, x: (_median_place(xp, x, dim, ignore_nan) if x.ndim else None, dim, keepdim))
        return found(xp, x)

    nan = "NaNs are left out" if ignore_nan else "NaN if there is one"
    return Shorthand(
        name,
        doc=f"The lower median of all elements, or of a dim with its place; {nan}.  [..., n, ...] -> [..., ...], int64 [..., ...].",
        rule=rule,
        reference=reference,
        dtypes=NUMERIC,
        samples=(
            call(fill(3, 4)),
            call(fill(3, 4), 0),
            call(fill(2, 33), -1, True),
            call(fill(), 0),
            call(fill(4, 6, special=True, grad=False), 1),
        ),
        bad=(
            Bad((fill(3), 1), IndexError, f"{name}: Dimension out of range"),
            Bad((fill(0), 0), IndexError, f"{name}: Expected reduction dim"),
        ),
    )


median, nanmedian = _median("median"), _median("nanmedian")


def _mode(x: Any, dim: int = -1, keepdim: bool = False) -> tuple[Any, Any]:
    x = _orderable("mode", x)
    d = _line("mode", x, dim)
    return _reduced(x, mode_place.run(x, dim=d), d, keepdim) if x.ndim else _scalar(x)


mode = Shorthand(
    "mode",
    doc="A dim's most frequent element, the least of several, and its last place.  [..., n, ...] -> [..., ...], int64 [..., ...].",
    rule=_mode,
    reference=_reduced_reference(lambda xp, x, dim=-1, keepdim=False: (_mode_place(xp, x, dim) if x.ndim else None, dim, keepdim)),
    dtypes=EVERY,
    samples=(call(fill(3, 4)), call(fill(33, 2, low=0, high=3), 0, True), call(fill())),
    bad=(Bad((fill(3), 1), IndexError, "mode: Dimension out of range"),),
)
