"""Several results of one walk, and reductions that leave elements out: aminmax, std_mean, var_mean, nansum, nanmean, count_nonzero.

Enters: tensors.  Leaves: operators opened into the reductions of `reduce` and `statistics`.  Never here: folds of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dtypes import DType, bool_, int64
from graphc.ir.op import Bad, Op
from graphc.ops.arguments import cast, constant, is_zero, of_type, one_dim, tensor
from graphc.ops.arguments import dims as canonical_dims
from graphc.ops.arithmetic import div
from graphc.ops.comparison import isnan, logical_not, ne, where
from graphc.ops.declare import EVERY, EVERY_COMPLEX, FLOATING, Shorthand, call, fill
from graphc.ops.reduce import EMPTY, SHAPES, amax, amin, bad_dims, mean, sum
from graphc.ops.statistics import std, var

# ---- both extrema ----------------------------------------------------------------------------------------------------


def _aminmax(x: Any, *, dim: Any = None, keepdim: bool = False) -> tuple[Any, Any]:
    x = tensor("aminmax", "x", x)
    dims = tuple(range(x.ndim)) if dim is None else (one_dim("aminmax", dim, x.ndim),)[: x.ndim]
    if any(is_zero(x.shape[d]) for d in dims):
        kind = RuntimeError if dim is None else IndexError
        raise kind(f"aminmax: expected reduction dims {list(dims)} of {of_type(x)} to have non-zero size")
    return amin.run(x, dims=dims, keepdim=keepdim), amax.run(x, dims=dims, keepdim=keepdim)


def _both_extrema(xp: Any, x: Any, dim: Any = None, keepdim: bool = False) -> tuple[Any, Any]:
    dim = dim if x.ndim else None
    return xp.min(x, axis=dim, keepdims=keepdim), xp.max(x, axis=dim, keepdims=keepdim)


aminmax = Shorthand(
    "aminmax",
    doc="Smallest and largest element of all, or of one dim (NaN if any is).  [...] -> min [...], max [...].",
    rule=_aminmax,
    reference=_both_extrema,
    dtypes=EVERY,
    samples=(
        call(fill(3, 4)),
        call(fill(3, 4), dim=0),
        call(fill(2, 3, 5), dim=-1, keepdim=True),
        call(fill()),
        call(fill(4, 5, special=True), dim=1),
    ),
    bad=(
        Bad((fill(3),), IndexError, "aminmax: Dimension out of range", {"dim": 1}),
        Bad((fill(0),), RuntimeError, "aminmax: expected reduction dims"),
    ),
)


# ---- with the mean ---------------------------------------------------------------------------------------------------


def _with_mean(name: str, measure: Op, doc: str) -> Shorthand:
    def rule(
        x: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
    ) -> tuple[Any, Any]:
        spread = measure(x, dim, unbiased, keepdim, correction=correction)
        return spread, mean(x, None if isinstance(dim, bool) else dim, keepdim)

    def reference(xp: Any, x: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, correction: Any = None) -> Any:
        dims = canonical_dims(name, None if isinstance(dim, bool) else dim, x.ndim)
        if isinstance(dim, bool):
            unbiased = dim
        correction = (1 if unbiased is None else int(unbiased)) if correction is None else correction
        how = {"dims": dims, "keepdim": keepdim}
        return measure.reference(xp, x, correction=correction, **how), mean.reference(xp, x, **how)

    return Shorthand(
        name,
        doc=f"{doc} and mean over dims (all by default).  [...] -> [...], [...].",
        rule=rule,
        reference=reference,
        dtypes=FLOATING,
        samples=(
            *SHAPES[:6],
            call(fill(3, 4), 0, correction=0),
            call(fill(3, 4), 0, False, True),
            call(fill(3, 4), False),
        ),
        bad=bad_dims(measure.name),
    )


std_mean = _with_mean("std_mean", std, "Standard deviation")
var_mean = _with_mean("var_mean", var, "Variance")


# ---- without NaNs ----------------------------------------------------------------------------------------------------


def _nansum(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None) -> Any:
    x = tensor("nansum", "x", x)
    if x.dtype.kind == "f":
        x = where(isnan(x), constant(0, x.dtype), x)
    return sum(x, dim, keepdim, dtype=dtype)


def _nansum_reference(xp: Any, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """In float32 for 16-bit floats, in int64 for integers."""
    if x.dtype.kind in "iub":
        return xp.sum(x, axis=dim, keepdims=keepdim, dtype=xp.int64)
    wide = x.astype(xp.float32) if x.dtype.itemsize == 2 else x
    return xp.asarray(xp.nansum(wide, axis=dim, keepdims=keepdim)).astype(x.dtype)


nansum = Shorthand(
    "nansum",
    doc="Sum over dims (all by default) with NaN taken for 0.  [...] -> [...].",
    rule=_nansum,
    reference=_nansum_reference,
    dtypes=EVERY,
    samples=(*SHAPES, *EMPTY, call(fill(4, 5, special=True, low=0, high=1, grad=False), 1)),
    bad=(*bad_dims("sum")[:3], Bad(([1.0],), TypeError, "nansum: argument 'x' must be a Tensor")),
)


def _nanmean(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None) -> Any:
    x = tensor("nanmean", "x", x)
    if x.dtype.kind != "f":
        raise RuntimeError(f"nanmean: expected a floating tensor, got {of_type(x)}")
    if dtype is not None:
        x = cast(x, dtype)
    count = sum(logical_not(isnan(x)), dim, keepdim)
    narrow = x.dtype
    wide = cast(x, narrow.compute)
    return cast(div(_nansum(wide, dim, keepdim), cast(count, narrow.compute)), narrow)


def _nanmean_reference(xp: Any, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    wide = x.astype(xp.float32) if x.dtype.itemsize == 2 else x
    total = xp.asarray(xp.nansum(wide, axis=dim, keepdims=keepdim))
    count = xp.asarray(xp.sum(~xp.isnan(wide), axis=dim, keepdims=keepdim)).astype(wide.dtype)
    return (total / count).astype(x.dtype)


nanmean = Shorthand(
    "nanmean",
    doc="Mean over dims (all by default) of the elements that are no NaN; NaN where there is none.  [...] -> [...].",
    rule=_nanmean,
    reference=_nanmean_reference,
    dtypes=FLOATING,
    samples=(*SHAPES, call(fill(2, 0), 0), call(fill(0, 3))),
    bad=(
        Bad((fill(3, dtype=int64),), RuntimeError, "nanmean: expected a floating tensor"),
        Bad(([1.0],), TypeError, "nanmean: argument 'x' must be a Tensor"),
    ),
)


# ---- counting --------------------------------------------------------------------------------------------------------


def _count_nonzero(x: Any, dim: Any = None) -> Any:
    x = tensor("count_nonzero", "x", x)
    return sum(x if x.dtype is bool_ else ne(x, 0), dim)


count_nonzero = Shorthand(
    "count_nonzero",
    doc="How many elements over dims (all by default) are not 0.  [...] -> int64 [...].",
    rule=_count_nonzero,
    reference=lambda xp, x, dim=None: xp.asarray(xp.sum(x != 0, axis=dim, dtype=np.int64)),
    grad=None,
    dtypes=EVERY_COMPLEX,
    samples=(call(fill(3, 4)), call(fill(3, 4), 0), call(fill(2, 3, 5), (0, -1)), call(fill()), call(fill(0, 3), 1)),
    bad=(Bad((fill(3), 1), IndexError, "sum: Dimension out of range"),),
)
