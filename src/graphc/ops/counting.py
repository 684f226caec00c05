"""What the elements of a tensor are, and how often: unique, bincount; which lie in another tensor or where they would come in a
sorted one.

Enters: tensors.  Leaves: operators that run on the host.  Never here: order along a dim (`sorting`), bins (`histograms`).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from graphc.dtypes import bool_, float32, float64, int32, int64
from graphc.ir.op import COUNT, LARGEST, Bad, Host, Op, TensorType
from graphc.ops.arguments import cast, is_tensor, lifted, of_type, one_dim, ordered, promoted_dtype, same_dtype, tensor
from graphc.ops.declare import EVERY, NUMERIC, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.sorting import comparable

# ---- unique --------------------------------------------------------------------------------------------------------


def _unique_prepare(
    x: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: Any = None
) -> Prepared:
    x = tensor("unique", "input", x)
    return (x,), {"dim": _unique_dim("unique", x, dim), "inverse": bool(return_inverse), "counts": bool(return_counts)}


def _unique_dim(name: str, x: Any, dim: Any) -> int | None:
    if dim is None:
        return None
    k = one_dim(name, dim, x.ndim)
    if x.shape[k : k + 1] == (0,) and 0 in (*x.shape[:k], *x.shape[k + 1 :]):
        raise RuntimeError(f"{name}: There are 0 sized dimensions, and they aren't selected by `dim`: {of_type(x)}")
    if 0 in (*x.shape[:k], *x.shape[k + 1 :]):
        raise RuntimeError(f"{name}: There are 0 sized dimensions besides dim {k}, so it cannot be applied: {of_type(x)}")
    return k


def _wanted(values: Any, places: Any, counted: Any, inverse: bool, counts: bool) -> Any:
    """The results that were asked for, or their types: one, or a tuple."""
    results = (values, *((places,) if inverse else ()), *((counted,) if counts else ()))
    return results[0] if len(results) == 1 else results


def _unique_infer(x: TensorType, dim: int | None, inverse: bool, counts: bool) -> Any:
    shape = (COUNT,) if dim is None else (*x.shape[:dim], COUNT, *x.shape[dim + 1 :])
    places = TensorType(int64, x.shape if dim is None else (x.shape[dim],))
    return _wanted(TensorType(x.dtype, shape), places, TensorType(int64, (COUNT,)), inverse, counts)


def _unique_reference(xp: Any, x: Any, dim: int | None, inverse: bool, counts: bool) -> Any:
    keys = comparable(x)
    if dim is not None and x.shape[dim] == 0:
        return _wanted(x, np.zeros(0, np.int64), np.zeros(0, np.int64), inverse, counts)
    _, first, places, counted = np.unique(
        keys, return_index=True, return_inverse=True, return_counts=True, axis=dim, equal_nan=False
    )
    values = x.reshape(-1)[first] if dim is None else np.take(x, first, axis=dim)
    places = places.reshape(x.shape) if dim is None else places.reshape(-1)
    return _wanted(values, places.astype(np.int64), counted.astype(np.int64), inverse, counts)


unique = Op(
    "unique",
    doc="The distinct elements (or slices along dim) in order, where each element went, and how many of each there are.  [...] -> "
    "[count], int64 [...], int64 [count].",
    signature="(x, sorted=True, return_inverse=False, return_counts=False, dim=None)",
    prepare=_unique_prepare,
    infer=_unique_infer,
    reference=_unique_reference,
    grad=None,
    lowering=Host(sized_by_data=True),
    attrs=("dim", "inverse", "counts"),
    dtypes=EVERY,
    samples=(
        call(fill(3, 4)),
        call(fill(33, low=0, high=5), True, True, True),
        call(fill(4, 2, low=0, high=2), dim=0, return_counts=True),
    ),
    bad=(Bad((2,), TypeError, "unique: argument 'input' must be a Tensor"),),
)


def _consecutive_prepare(x: Any, return_inverse: bool = False, return_counts: bool = False, dim: Any = None) -> Prepared:
    x = tensor("unique_consecutive", "input", x)
    dim = _unique_dim("unique_consecutive", x, dim)
    return (x,), {"dim": dim, "inverse": bool(return_inverse), "counts": bool(return_counts)}


def _consecutive_reference(xp: Any, x: Any, dim: int | None, inverse: bool, counts: bool) -> Any:
    rows = x.reshape(-1, 1) if dim is None else np.moveaxis(x, dim, 0).reshape(x.shape[dim], x.size // max(x.shape[dim], 1))
    begins = np.ones(len(rows), bool)
    begins[1:] = (rows[1:] != rows[:-1]).any(1)
    starts = np.flatnonzero(begins)
    places = np.cumsum(begins) - 1
    values = x.reshape(-1)[starts] if dim is None else np.take(x, starts, axis=dim)
    places = (places.reshape(x.shape) if dim is None else places).astype(np.int64)
    return _wanted(values, places, np.diff(starts, append=len(rows)).astype(np.int64), inverse, counts)


unique_consecutive = Op(
    "unique_consecutive",
    doc="The elements (or slices along dim) without those equal to the one before, where each went, and how many there were.  "
    "[...] -> [count], int64 [...], int64 [count].",
    signature="(x, return_inverse=False, return_counts=False, dim=None)",
    prepare=_consecutive_prepare,
    infer=_unique_infer,
    reference=_consecutive_reference,
    grad=None,
    lowering=Host(sized_by_data=True),
    attrs=("dim", "inverse", "counts"),
    dtypes=EVERY,
    samples=(call(fill(3, 4)), call(fill(33, low=0, high=2), True, True)),
    bad=(Bad((2,), TypeError, "unique_consecutive: argument 'input' must be a Tensor"),),
)


# ---- bincount ------------------------------------------------------------------------------------------------------


def _bincount_prepare(x: Any, weights: Any = None, minlength: int = 0) -> Prepared:
    x = tensor("bincount", "input", x)
    if x.ndim != 1 or x.dtype.kind not in "iu":
        raise RuntimeError(f"bincount: only supports 1-d non-negative integral inputs, got {of_type(x)}")
    if weights is not None and tuple(tensor("bincount", "weights", weights).shape) != tuple(x.shape):
        raise RuntimeError(f"bincount: weights should be 1-d and have the same length as input, got {of_type(weights)}")
    if not isinstance(minlength, int) or minlength < 0:
        raise RuntimeError(f"bincount: minlength should be >= 0, got {minlength}")
    return (x,) if weights is None else (x, weights), {"minlength": int(minlength)}


def _bincount_reference(xp: Any, x: Any, weights: Any = None, minlength: int = 0) -> Any:
    if x.size and x.min() < 0:
        raise RuntimeError("bincount: only supports 1-d non-negative integral inputs")
    length = max(minlength, int(x.max()) + 1 if x.size else 0)
    if 8 * length > LARGEST:
        raise RuntimeError(f"bincount: {length} bins are more than any memory could hold")
    if weights is None:
        return np.bincount(x.astype(np.int64), minlength=minlength).astype(np.int64)
    dtype = np.float32 if weights.dtype == np.float32 else np.float64
    result = np.zeros(length, dtype)
    np.add.at(result, x.astype(np.int64), weights.astype(dtype))
    return result


def _bincount_infer(x: TensorType, *weights: TensorType, minlength: int) -> TensorType:
    dtype = int64 if not weights else float32 if weights[0].dtype is float32 else float64
    return TensorType(dtype, (COUNT,))


bincount = Op(
    "bincount",
    doc="How often each number from 0 on occurs, or the sum of its weights.  integers [n] , [n] -> [max + 1].",
    signature="(x, weights=None, minlength=0)",
    prepare=_bincount_prepare,
    infer=_bincount_infer,
    reference=_bincount_reference,
    grad=None,
    lowering=Host(sized_by_data=True),
    attrs=("minlength",),
    dtypes=(int64, int32),
    samples=(
        call(fill(33, low=0, high=5)),
        call(fill(33, low=0, high=5), fill(33, dtype=float32), 9),
        call(fill(0, low=0, high=5)),
    ),
    bad=(
        Bad((fill(3, 2, low=0),), RuntimeError, "bincount: only supports 1-d non-negative integral inputs"),
        Bad((fill(33, low=-3, high=-1),), RuntimeError, "bincount: only supports 1-d non-negative integral inputs"),
    ),
)


# ---- places in a sorted tensor -------------------------------------------------------------------------------------


def _search_reference(xp: Any, rows: Any, x: Any, right: bool, narrow: bool) -> Any:
    rows, x = comparable(rows), comparable(x)
    side: Literal["left", "right"] = "right" if right else "left"
    if rows.ndim == 1:
        found = np.searchsorted(rows, x, side=side)
    else:
        found = np.empty(x.shape, np.int64)
        for at in np.ndindex(x.shape[:-1]):
            found[at] = np.searchsorted(rows[at], x[at], side=side)
    return np.asarray(found, np.int32 if narrow else np.int64)


def _search_infer(rows: TensorType, x: TensorType, right: bool, narrow: bool) -> TensorType:
    same_dtype("sorted_places", (rows, x))
    if rows.rank == 0 or rows.rank > 1 and rows.shape[:-1] != x.shape[:-1]:
        raise RuntimeError(f"sorted_places: rows {rows} do not fit {x}")
    return TensorType(int32 if narrow else int64, x.shape)


sorted_places = Op(
    "sorted_places",
    doc="Where elements would come in sorted rows: before equal ones, or after them.  [..., n] , [..., m] -> int64 [..., m]; [n] , "
    "[...] -> int64 [...].",
    signature="(rows, x, right, narrow)",
    infer=_search_infer,
    reference=_search_reference,
    grad=None,
    lowering=Host(),
    attrs=("right", "narrow"),
    dtypes=NUMERIC,
    samples=(call(fill(1), fill(3, 4), False, False), call(fill(2, 1), fill(2, 3), True, True)),
    bad=(Bad((fill(2, 3), fill(3, 3), False, False), RuntimeError, "sorted_places: rows .* do not fit"),),
    methods=(),
    functions=(),
)


def _searched(name: str, rows: Any, x: Any, right: bool, out_int32: bool) -> Any:
    """Both in one dtype; a number gives a 0-dim result."""
    dtype = promoted_dtype(name, (rows, x), ("sorted_sequence", "input"), "same")
    rows, x = cast(rows, dtype), lifted(name, x, "input", dtype)
    return sorted_places.run(rows, x, right=right, narrow=bool(out_int32))


def _searchsorted(rows: Any, x: Any, *, out_int32: bool = False, right: bool = False, side: Any = None, sorter: Any = None) -> Any:
    name = "searchsorted"
    rows = ordered(name, "sorted_sequence", rows)
    if side not in (None, "left", "right"):
        raise RuntimeError(f"{name}: side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise RuntimeError(f"{name}: side and right can't be set to opposites, got side of left while right was True")
    if rows.ndim == 0:
        raise RuntimeError(f"{name}: input value can be a scalar only when boundaries tensor dimension is 1")
    if is_tensor(x):
        if x.dtype is not rows.dtype:
            raise RuntimeError(
                f"{name}: boundary tensor and input value tensor should have same dtype, got {of_type(rows)} {of_type(x)}"
            )
        if rows.ndim != 1 and (rows.ndim != x.ndim or tuple(rows.shape[:-1]) != tuple(x.shape[:-1])):
            raise RuntimeError(
                f"{name}: boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries tensor and input value "
                f"tensor must match: {of_type(rows)} and {of_type(x)}"
            )
    elif rows.ndim != 1:
        raise RuntimeError(f"{name}: input value can be a scalar only when boundaries tensor dimension is 1, got {of_type(rows)}")
    if sorter is not None:
        if tensor(name, "sorter", sorter).dtype is not int64 or tuple(sorter.shape) != tuple(rows.shape):
            raise RuntimeError(f"{name}: sorter must be int64 of the shape of boundaries, got {of_type(sorter)}")
        rows = Op.table["gather"].run(rows, sorter, dim=rows.ndim - 1)
    return _searched(name, rows, x, right or side == "right", out_int32)


def _places_reference(xp: Any, rows: Any, x: Any, **how: Any) -> Any:
    return _search_reference(xp, rows, np.asarray(x), how.get("right", False), how.get("out_int32", False))


searchsorted = Shorthand(
    "searchsorted",
    doc="Where elements would come in sorted rows: before equal ones (left) or after them (right).  [..., n] , [..., m] -> "
    "int64 [..., m]; [n] , [...] -> int64 [...].",
    rule=_searchsorted,
    reference=_places_reference,
    grad=None,
    dtypes=NUMERIC,
    samples=(call(fill(1), fill(3, 4)), call(fill(2, 1), fill(2, 3), right=True), call(fill(1), 2)),
    bad=(
        Bad((fill(2, 3), fill(3, 3)), RuntimeError, "searchsorted: boundaries tensor should be 1 dimension"),
        Bad((fill(3), fill(3)), RuntimeError, "searchsorted: side can only be", {"side": "up"}),
    ),
    methods=(),
)


def _bucketize(x: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False) -> Any:
    boundaries = ordered("bucketize", "boundaries", boundaries)
    if boundaries.ndim != 1:
        raise RuntimeError(f"bucketize: boundaries tensor must be 1 dimension, but got {of_type(boundaries)}")
    return _searched("bucketize", boundaries, x, bool(right), out_int32)


bucketize = Shorthand(
    "bucketize",
    doc="The bucket of each element, given their boundaries in order; right: a boundary belongs to the bucket after it.  [...] , "
    "[n] -> int64 [...].",
    rule=_bucketize,
    reference=lambda xp, x, boundaries, **how: _places_reference(xp, boundaries, x, **how),
    grad=None,
    dtypes=NUMERIC,
    samples=(call(fill(3, 4), fill(1)), call(fill(33), fill(1), right=True, out_int32=True)),
    bad=(Bad((fill(3), fill(2, 3)), RuntimeError, "bucketize: boundaries tensor must be 1 dimension"),),
    methods=(),
)


# ---- isin ----------------------------------------------------------------------------------------------------------


def _isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Any:
    if not is_tensor(elements) and not is_tensor(test_elements):
        raise TypeError("isin: at least one of elements and test_elements must be a Tensor")
    dtype = promoted_dtype("isin", (elements, test_elements), ("elements", "test_elements"), "same")
    x, tests = (lifted("isin", v, "elements", dtype) for v in (elements, test_elements))
    return is_among.run(x, tests, invert=bool(invert))


def _among_reference(xp: Any, x: Any, tests: Any, invert: bool) -> Any:
    return np.isin(comparable(x), comparable(tests), invert=invert)


def _among_infer(x: TensorType, tests: TensorType, invert: bool) -> TensorType:
    same_dtype("is_among", (x, tests))
    return TensorType(bool_, x.shape)


is_among = Op(
    "is_among",
    doc="Whether each element is one of another tensor's.  [...] , [...] -> bool [...].",
    signature="(x, tests, invert)",
    infer=_among_infer,
    reference=_among_reference,
    grad=None,
    lowering=Host(),
    attrs=("invert",),
    dtypes=EVERY,
    samples=(call(fill(3, 4), fill(2), False), call(fill(33), fill(), True)),
    bad=(Bad((fill(3), fill(3, dtype=bool_), False), RuntimeError, "is_among: operands must have one dtype"),),
    methods=(),
    functions=(),
)


def _isin_reference(xp: Any, elements: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False) -> Any:
    return _among_reference(xp, np.asarray(elements), np.asarray(test_elements), invert)


isin = Shorthand(
    "isin",
    doc="Whether each element is one of another tensor's.  [...] , [...] -> bool [...].",
    rule=_isin,
    reference=_isin_reference,
    grad=None,
    dtypes=EVERY,
    samples=(call(fill(3, 4), fill(2)), call(fill(33), fill(33), invert=True), call(fill(3), 1)),
    bad=(Bad((2, 3), TypeError, "isin: at least one"),),
    methods=(),
)
