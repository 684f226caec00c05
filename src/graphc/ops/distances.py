"""Norms of vectors and matrices, distances and similarities.

Enters: floating tensors.  Leaves: operators.  Never here: singular values (`linalg`), losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphc.dtypes import DType, float64, int64
from graphc.ir.op import Bad, Composite, Op, TensorType, broadcast_shapes
from graphc.ops.arguments import (
    cast,
    constant,
    gradient_in_compute_dtype,
    in_compute_dtype,
    is_zero,
    number,
    of_type,
    one_dim,
    tensor,
)
from graphc.ops.arguments import dims as canonical_dims
from graphc.ops.arithmetic import absolute, add, div, maximum, mul, neg, square, sub
from graphc.ops.comparison import eq, gt, logical_or, ne, where
from graphc.ops.contract import matmul, swapped
from graphc.ops.create import iota, require_dtype
from graphc.ops.declare import FLOATING, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.index import index_select
from graphc.ops.limits import clamp
from graphc.ops.movement import reshape, squeeze, summed_to, unsqueeze
from graphc.ops.reduce import fold, put_back, reduce_max, reduce_min, reduce_sum, reduced_shape
from graphc.ops.transcendental import pow_, sqrt

INF = math.inf

# ---- the norm of vectors -------------------------------------------------------------------------------------------


def _norm_of(x: Any, ord: float, dims: tuple[int, ...], keepdim: bool) -> Any:
    """(sum |x|**ord) ** (1 / ord) over dims."""
    if not dims:
        return absolute(x) if ord else cast(ne(x, 0), x.dtype)
    if ord == 0:
        return fold(reduce_sum, cast(ne(x, 0), x.dtype), dims, keepdim)
    if ord in (INF, -INF):
        return fold(reduce_max if ord > 0 else reduce_min, absolute(x), dims, keepdim)
    if ord == 1:
        return fold(reduce_sum, absolute(x), dims, keepdim)
    if ord == 2:
        return sqrt(fold(reduce_sum, mul(x, x), dims, keepdim))
    return pow_(fold(reduce_sum, pow_(absolute(x), ord), dims, keepdim), 1.0 / ord)


def _or_zero(zero: Any, value: Callable[[Any], Any], x: Any) -> Any:
    """value(x), 0 where `zero` (and value is not asked about those)."""
    return where(zero, constant(0, x.dtype), value(where(zero, constant(1, x.dtype), x)))


def norm_slope(x: Any, out: Any, ord: float, ties: Any) -> Any:
    """d norm / d x, for a norm `out` shaped to broadcast with x; `ties`: how many elements share an extreme value."""
    sign = Op.table["sgn"](x)
    if ord == 0:
        return mul(x, 0)
    if ord == 1:
        return sign
    if ord in (INF, -INF):
        chosen = logical_or(eq(absolute(x), out), ne(out, out))
        return mul(sign, ties(chosen))
    zero_norm, zero = eq(out, 0), eq(x, 0)
    if ord == 2:
        return mul(x, _or_zero(zero_norm, lambda n: div(1, n), out))
    power = _or_zero(zero, lambda y: pow_(absolute(y), ord - 1), x)
    return mul(mul(sign, power), _or_zero(zero_norm, lambda n: pow_(n, 1 - ord), out))


def _vector_norm_grad(g: Any, out: Any, x: Any, ord: float, dims: tuple[int, ...], keepdim: bool) -> tuple[Any]:
    def shared(chosen: Any) -> Any:
        hits = cast(chosen, x.dtype)
        return div(hits, put_back(fold(reduce_sum, hits, dims, False), x, dims, False)) if dims else hits

    g, out = (put_back(y, x, dims, keepdim) if dims else y for y in (g, out))
    return (mul(g, norm_slope(x, out, ord, shared)),)


def _vector_norm_array(xp: Any, x: Any, ord: float, dims: tuple[int, ...], keepdim: bool) -> Any:
    wide = xp.abs(x.astype(xp.float64))
    if not dims:
        return (wide if ord else wide != 0).astype(x.dtype)
    if ord == 0:
        result = (wide != 0).sum(axis=dims, keepdims=keepdim)
    elif ord in (INF, -INF):
        result = (wide.max if ord > 0 else wide.min)(axis=dims, keepdims=keepdim)
    else:
        result = (wide**ord).sum(axis=dims, keepdims=keepdim) ** (1 / ord)
    return xp.asarray(result).astype(x.dtype)


def _vector_norm_infer(x: TensorType, ord: float, dims: tuple[int, ...], keepdim: bool) -> TensorType:
    if (ord < 0 or ord == INF) and any(is_zero(x.shape[d]) for d in dims):
        raise RuntimeError(f"linalg.vector_norm: cannot compute the {ord} norm of {x} over dims {list(dims)}: it has no elements")
    return TensorType(x.dtype, reduced_shape(x.shape, dims, keepdim))


def real(name: str, x: Any, dtype: DType | None = None) -> Any:
    """A floating tensor with x's absolute values: x itself, or the sizes of complex numbers.  Raises RuntimeError."""
    x = tensor(name, "x", x)
    if dtype is not None:
        x = cast(x, require_dtype(name, dtype))
    if x.dtype.kind not in "fc":
        raise RuntimeError(f"{name}: Expected a floating point or complex tensor as input. Got {of_type(x)}")
    return absolute(x) if x.dtype.kind == "c" else x


def _vector_norm_prepare(x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None) -> Prepared:
    name = "linalg.vector_norm"
    x = real(name, x, dtype)
    attrs = {"ord": float(number(name, "ord", ord)), "dims": canonical_dims(name, dim, x.ndim), "keepdim": bool(keepdim)}
    return (x,), attrs


vector_norm = Op(
    "vector_norm",
    doc="(sum |x|**ord) ** (1 / ord) over dims; inf, -inf: the extremes of |x|; 0: how many are not 0.  [...] -> [...].",
    signature="(x, ord=2, dim=None, keepdim=False, *, dtype=None)",
    prepare=_vector_norm_prepare,
    infer=_vector_norm_infer,
    reference=_vector_norm_array,
    grad=gradient_in_compute_dtype(_vector_norm_grad),
    lowering=Composite(in_compute_dtype(_norm_of)),
    attrs=("ord", "dims", "keepdim"),
    dtypes=FLOATING,
    samples=(
        call(fill(3, 4)),
        call(fill(3, 4), 1, 0),
        call(fill(2, 3, 5), 3.5, (0, 2), True),
        call(fill(3, 4), INF, 1),
        call(fill(3, 4), -INF),
        call(fill(3, 4), 0, 1),
        call(fill(33), 0.5),
        call(fill(0, 3), 2, 0),
        call(fill()),
    ),
    bad=(
        Bad((fill(2, dtype=int64),), RuntimeError, "linalg.vector_norm: Expected a floating point"),
        Bad((fill(0, 3), INF, 0), RuntimeError, "linalg.vector_norm: cannot compute the inf norm"),
    ),
    methods=(),
    functions=("linalg.vector_norm",),
)

# ---- norms of matrices and of either -------------------------------------------------------------------------------


def _singular_values(x: Any, rows: int, columns: int) -> Any:
    """The singular values of matrices in two dims, last."""
    rest = [k for k in range(x.ndim) if k not in (rows, columns)]
    return Op.table["linalg_svdvals"](Op.table["permute"].run(x, dims=(*rest, rows, columns)))


def _extreme(x: Any, dim: int, largest: bool, keepdim: bool) -> Any:
    """The largest or smallest of non-negative numbers along dim; the largest of none is 0."""
    if largest and is_zero(x.shape[dim]):
        return constant(0, x.dtype, reduced_shape(tuple(x.shape), (dim % x.ndim,), keepdim))
    return Op.table["amax" if largest else "amin"](x, dim, keepdim)


def _matrix_norm(x: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: DType | None = None) -> Any:
    name = "linalg.matrix_norm"
    x = tensor(name, "x", x)
    x = x if dtype is None else cast(x, require_dtype(name, dtype))
    if x.dtype.kind not in "fc":
        raise RuntimeError(f"{name}: Expected a floating point or complex tensor as input. Got {of_type(x)}")
    if isinstance(dim, int) or len(dim) != 2:
        raise RuntimeError(f"{name}: dim must be a 2-tuple. Got {dim}")
    if x.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor must have at least 2 dimensions, got {of_type(x)}")
    rows, columns = (one_dim(name, d, x.ndim) for d in dim)
    if rows == columns:
        raise RuntimeError(f"{name}: dims must be different. Got ({dim[0]}, {dim[1]})")
    if ord == "fro":
        return vector_norm(x, 2, (rows, columns), keepdim)
    if ord == "nuc" or ord in (2, -2):
        values = _singular_values(x, rows, columns)
        out = Op.table["sum"](values, -1) if ord == "nuc" else _extreme(values, -1, ord > 0, False)
        return reshape.run(out, shape=reduced_shape(x.shape, (rows, columns), True)) if keepdim else out
    if isinstance(ord, str) or abs(ord) not in (1, INF):
        raise RuntimeError(f"{name}: Order {ord} not supported.")
    first, second = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = vector_norm(x, 1, first, True)
    out = _extreme(sums, second, ord > 0, True)
    return out if keepdim else squeeze.run(out, dims=tuple(sorted((rows, columns))))


matrix_norm = Shorthand(
    "matrix_norm",
    doc="The norm of matrices in two dims: 'fro', 'nuc', or the operator norms 1, 2, inf and their least counterparts.",
    rule=_matrix_norm,
    dtypes=FLOATING,
    samples=(call(fill(3, 4)), call(fill(2, 3, 4), 1), call(fill(2, 3, 4), INF, (0, 2), True), call(fill(3, 4), -1)),
    bad=(
        Bad((fill(3),), RuntimeError, "linalg.matrix_norm: The input tensor must have at least 2 dimensions"),
        Bad((fill(3, 3), 3), RuntimeError, "linalg.matrix_norm: Order 3 not supported"),
    ),
    methods=(),
    functions=("linalg.matrix_norm",),
    renamed={"A": "input"},
)


def _linalg_norm(x: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None) -> Any:
    name = "linalg.norm"
    x = tensor(name, "x", x)
    if isinstance(dim, tuple | list) and len(dim) == 1:
        dim = dim[0]
    if ord is None:
        return vector_norm(x, 2, dim, keepdim, dtype=dtype)
    if isinstance(dim, tuple | list) and len(dim) != 2:
        raise RuntimeError(f"{name}: If dim is specified, it must be of length 1 or 2. Got {list(dim)}")
    if dim is None and x.ndim not in (1, 2):
        raise RuntimeError(f"{name}: If dim is not specified but ord is, the input must be 1D or 2D. Got {x.ndim}D.")
    if isinstance(dim, tuple | list) or (dim is None and x.ndim == 2):
        return _matrix_norm(x, ord, (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
    if isinstance(ord, str):
        raise RuntimeError(f"{name}: Order {ord!r} needs a matrix: got dim {dim} of {of_type(x)}")
    return vector_norm(x, ord, dim, keepdim, dtype=dtype)


linalg_norm = Shorthand(
    "linalg_norm",
    doc="The norm of vectors (one dim) or matrices (two dims); of all elements without `ord`.",
    rule=_linalg_norm,
    dtypes=FLOATING,
    samples=(call(fill(3, 4)), call(fill(3, 4), 1), call(fill(2, 3, 4), 2, 1), call(fill(5), INF)),
    bad=(Bad((fill(2, 3, 4), 2), RuntimeError, "linalg.norm: If dim is not specified but ord is"),),
    methods=(),
    functions=("linalg.norm",),
    renamed={"A": "input"},
)


def _norm(x: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None) -> Any:
    x = tensor("norm", "x", x)
    if p == "nuc":
        return _matrix_norm(x, "nuc", (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
    if isinstance(p, str) and p != "fro":
        raise RuntimeError(f"norm: only valid string arguments are 'fro' and 'nuc', got {p!r}")
    dim = None if isinstance(dim, tuple | list) and not dim else dim
    return vector_norm(x, 2 if p is None or p == "fro" else p, dim, keepdim, dtype=dtype)


norm = Shorthand(
    "norm",
    doc="The p-norm of all elements or over dims; 'fro' is 2, 'nuc' the sum of singular values.  [...] -> [...].",
    rule=_norm,
    dtypes=FLOATING,
    samples=(call(fill(3, 4)), call(fill(3, 4), 1, 0), call(fill(2, 3, 4), p=3, dim=(0, 2), keepdim=True)),
    bad=(
        Bad((fill(3), "max"), RuntimeError, "norm: only valid string arguments"),
        Bad((fill(2, dtype=int64),), RuntimeError, "Expected a floating point"),
    ),
)


def _dist(x: Any, other: Any, p: Any = 2) -> Any:
    return vector_norm(sub(tensor("dist", "x", x), tensor("dist", "other", other)), p)


dist = Shorthand(
    "dist",
    doc="The p-norm of x - other.  [...] , [...] -> [].",
    rule=_dist,
    dtypes=FLOATING,
    samples=(call(fill(3, 4), fill(3, 4)), call(fill(3, 4), fill(4), 1)),
    bad=(Bad((fill(3), 1.0), TypeError, "dist: argument 'other' must be a Tensor"),),
)


def _normalize(x: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Any:
    x = tensor("normalize", "x", x)
    return div(x, clamp(vector_norm(x, p, dim, True), min=eps))


normalize = Shorthand(
    "normalize",
    doc="x / max(its p-norm along dim, eps).  [...] -> [...].",
    rule=_normalize,
    dtypes=FLOATING,
    samples=(call(fill(3, 4)), call(fill(3, 4), p=1, dim=0), call(fill(5), dim=0)),
    bad=(Bad((fill(3),), IndexError, "linalg.vector_norm: Dimension out of range"),),
    methods=(),
    functions=("nn.functional.normalize",),
)


def _renorm(x: Any, p: Any, dim: int, maxnorm: Any) -> Any:
    x = tensor("renorm", "x", x)
    if number("renorm", "p", p) <= 0:
        raise RuntimeError(f"renorm: non-positive-norm not supported, got p {p}")
    if x.ndim < 2:
        raise RuntimeError(f"renorm: input needs at least 2 dimensions, got {x.ndim} dimensions")
    if number("renorm", "maxnorm", maxnorm) < 0:
        raise RuntimeError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}")
    dim = one_dim("renorm", dim, x.ndim)
    size = vector_norm(x, p, tuple(k for k in range(x.ndim) if k != dim), True)
    return mul(x, where(gt(size, maxnorm), div(maxnorm, add(size, 1e-7)), constant(1, size.dtype)))


renorm = Shorthand(
    "renorm",
    doc="x with every slice along dim scaled down where its p-norm is above maxnorm.  [...] -> [...].",
    rule=_renorm,
    dtypes=FLOATING,
    samples=(call(fill(3, 4), 2, 0, 1.0), call(fill(2, 3, 4), 1, 1, 2.0)),
    bad=(Bad((fill(3), 2, 0, 1.0), RuntimeError, "renorm: input needs at least 2 dimensions"),),
    inplace=True,
)

# ---- distances between rows ----------------------------------------------------------------------------------------

MATMUL_ROWS = 25  # from more rows than this, Euclidean distances are made from a matrix product, as PyTorch does


def _cdist(x1: Any, x2: Any, p: float, by_matmul: bool) -> Any:
    if is_zero(x1.shape[-1]):
        batch = broadcast_shapes("cdist", (tuple(x1.shape[:-2]), tuple(x2.shape[:-2])))
        return constant(0, x1.dtype, (*batch, x1.shape[-2], x2.shape[-2]))
    if by_matmul:
        squares = [fold(reduce_sum, mul(x, x), (x.ndim - 1,), True) for x in (x1, x2)]
        apart = sub(add(squares[0], swapped(squares[1])), mul(matmul.run(x1, swapped(x2)), 2))
        return sqrt(maximum(apart, 0))
    difference = _differences(x1, x2)
    return _norm_of(difference, p, (difference.ndim - 1,), False)


def _differences(x1: Any, x2: Any) -> Any:
    """Rows of x1 less rows of x2.  [..., n, k], [..., m, k] -> [..., n, m, k]."""
    return sub(unsqueeze.run(x1, dim=x1.ndim - 1), unsqueeze.run(x2, dim=x2.ndim - 2))


def _cdist_grad(g: Any, out: Any, x1: Any, x2: Any, p: float, by_matmul: bool) -> tuple[Any, Any]:
    if p == 2:
        zero = eq(out, 0)
        ratio = where(zero, constant(0, g.dtype), div(g, where(zero, constant(1, out.dtype), out)))
        sums = [fold(reduce_sum, r, (r.ndim - 1,), True) for r in (ratio, swapped(ratio))]
        g1 = sub(mul(x1, sums[0]), matmul.run(ratio, x2))
        g2 = sub(mul(x2, sums[1]), matmul.run(swapped(ratio), x1))
    else:
        slope = norm_slope(_differences(x1, x2), unsqueeze.run(out, dim=out.ndim), p, lambda chosen: cast(chosen, x1.dtype))
        each = mul(slope, unsqueeze.run(g, dim=g.ndim))
        g1, g2 = fold(reduce_sum, each, (each.ndim - 2,), False), neg(fold(reduce_sum, each, (each.ndim - 3,), False))
    return summed_to(g1, tuple(x1.shape)), summed_to(g2, tuple(x2.shape))


def _cdist_array(xp: Any, x1: Any, x2: Any, p: float, by_matmul: bool) -> Any:
    difference = x1[..., :, None, :].astype(xp.float64) - x2[..., None, :, :].astype(xp.float64)
    if not difference.shape[-1]:
        return xp.zeros(difference.shape[:-1], x1.dtype)
    return _vector_norm_array(xp, difference, p, (difference.ndim - 1,), False).astype(x1.dtype)


_MODES = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")


def _cdist_prepare(x1: Any, x2: Any, p: Any = 2.0, compute_mode: Any = _MODES[0]) -> Prepared:
    x1, x2 = tensor("cdist", "x1", x1), tensor("cdist", "x2", x2)
    p = float(number("cdist", "p", p))
    if p < 0:
        raise RuntimeError(f"cdist: only supports non-negative p values, got {p}")
    if compute_mode not in (*_MODES, None, 0, 1, 2):
        raise ValueError(f"{compute_mode} is not a valid value for compute_mode")
    mode = compute_mode if compute_mode in _MODES else _MODES[compute_mode or 0]
    many = any(isinstance(x.shape[-2], int) and x.shape[-2] > MATMUL_ROWS for x in (x1, x2) if x.ndim > 1)
    return (x1, x2), {"p": p, "by_matmul": p == 2 and (mode == _MODES[1] or (mode == _MODES[0] and many))}


def _cdist_infer(x1: TensorType, x2: TensorType, p: float, by_matmul: bool) -> TensorType:
    if x1.dtype is not x2.dtype or x1.dtype.kind != "f":
        raise RuntimeError(f"cdist: X1 and X2 must be floating tensors of one dtype, got {x1} and {x2}")
    if x1.rank < 2 or x2.rank < 2:
        raise RuntimeError(f"cdist: X1 and X2 must have at least 2 dims, got {x1} and {x2}")
    if x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError(f"cdist: X1 and X2 must have the same number of columns, got {x1} and {x2}")
    return TensorType(x1.dtype, (*broadcast_shapes("cdist", (x1.shape[:-2], x2.shape[:-2])), x1.shape[-2], x2.shape[-2]))


cdist = Op(
    "cdist",
    doc="The p-norms of the differences between rows.  [..., n, k], [..., m, k] -> [..., n, m].",
    signature="(x1, x2, p=2.0, compute_mode='use_mm_for_euclid_dist_if_necessary')",
    prepare=_cdist_prepare,
    infer=_cdist_infer,
    reference=_cdist_array,
    grad=gradient_in_compute_dtype(_cdist_grad),
    lowering=Composite(in_compute_dtype(_cdist)),
    attrs=("p", "by_matmul"),
    dtypes=FLOATING,
    samples=(
        call(fill(3, 4), fill(5, 4)),
        call(fill(2, 3, 4), fill(5, 4), 1),
        call(fill(3, 4), fill(5, 4), 3.0),
        call(fill(3, 4), fill(5, 4), INF),
        call(fill(3, 4), fill(5, 4), compute_mode=_MODES[1]),
        call(fill(3, 4), fill(0, 4)),
    ),
    bad=(
        Bad((fill(3, 4), fill(3, 5)), RuntimeError, "cdist: X1 and X2 must have the same number of columns"),
        Bad((fill(3, 4), fill(3, 4), -1), RuntimeError, "cdist: only supports non-negative p"),
    ),
    methods=(),
    autocast="float32",
)


def _pdist(x: Any, p: float = 2.0) -> Any:
    x = tensor("pdist", "x", x)
    if x.ndim != 2 or x.dtype.kind != "f":
        raise RuntimeError(f"pdist: only supports 2D floating tensors, got {of_type(x)}")
    if number("pdist", "p", p) < 0:
        raise RuntimeError(f"pdist: only supports non-negative p values, got {p}")
    n = x.shape[0]
    count = n * (n - 1) // 2
    place = cast(iota.run(size=count, dtype=int64), float64)
    # of pair k the first row i is the greatest with i * (2n - i - 1) / 2 <= k; the root is exact where it matters
    width = constant(2 * n - 1, float64)
    first = cast(Op.table["floor"](mul(sub(width, sqrt(sub(square(width), mul(place, 8)))), 0.5)), int64)
    before = Op.table["floor_divide"](mul(first, sub(constant(2 * n - 1, int64), first)), 2)
    second = add(add(sub(cast(place, int64), before), first), 1)
    rows = [index_select.run(x, k, dim=0) for k in (first, second)]
    return vector_norm(sub(*rows), p, 1) if not is_zero(x.shape[1]) else constant(0, x.dtype, (count,))


pdist = Shorthand(
    "pdist",
    doc="The p-norms of the differences between every two rows.  [n, k] -> [n * (n - 1) / 2].",
    rule=_pdist,
    dtypes=FLOATING,
    samples=(call(fill(4, 3)), call(fill(5, 2), 1.0), call(fill(1, 2))),
    bad=(Bad((fill(3),), RuntimeError, "pdist: only supports 2D"),),
    methods=(),
    functions=("pdist", "nn.functional.pdist"),
)


def _pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    difference = add(sub(tensor("pairwise_distance", "x1", x1), tensor("pairwise_distance", "x2", x2)), eps)
    return vector_norm(difference, p, -1, keepdim)


pairwise_distance = Shorthand(
    "pairwise_distance",
    doc="The p-norm of x1 - x2 + eps along the last dim.  [..., k], [..., k] -> [...].",
    rule=_pairwise_distance,
    dtypes=FLOATING,
    samples=(call(fill(3, 4), fill(3, 4)), call(fill(4), fill(4), 1.0, keepdim=True)),
    bad=(Bad((fill(3), 1.0), TypeError, "pairwise_distance: argument 'x2' must be a Tensor"),),
    methods=(),
    functions=("pairwise_distance", "nn.functional.pairwise_distance"),
)


def _cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    name = "cosine_similarity"
    x1, x2 = tensor(name, "x1", x1), tensor(name, "x2", x2)
    if x1.dtype.kind not in "fc" and x2.dtype.kind not in "fc":
        raise RuntimeError(f"{name}: expected common dtype to be floating point, got {of_type(x1)} and {of_type(x2)}")
    shape = broadcast_shapes(name, (tuple(x1.shape), tuple(x2.shape)))
    dim = one_dim(name, dim, len(shape))
    units = []
    for x in (x1, x2):
        x = Op.table["expand"].run(x, shape=shape)
        units.append(div(x, clamp(vector_norm(x, 2, dim, True), min=eps)))
    out = mul(*units)
    return fold(reduce_sum, out, (dim,), False) if out.ndim else out


cosine_similarity = Shorthand(
    "cosine_similarity",
    doc="The inner product along dim of x1 and x2, each over its norm (at least eps).  [...] , [...] -> [...] without dim.",
    rule=_cosine_similarity,
    dtypes=FLOATING,
    samples=(call(fill(3, 4), fill(3, 4)), call(fill(2, 3, 4), fill(1, 3, 4), dim=2), call(fill(5), fill(5), 0)),
    bad=(Bad((fill(3), fill(4), 0), RuntimeError, "cosine_similarity: shapes .* do not broadcast"),),
    methods=(),
    functions=("cosine_similarity", "nn.functional.cosine_similarity"),
)
