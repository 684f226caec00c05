"""embedding_bag: sums, means or maxima of the rows of a table that each bag of indices names.

Enters: indices, a table, where bags begin.  Leaves: one operator.  Never here: single rows (`index.embedding`).
"""

from __future__ import annotations

import math
from typing import Any

from graphc.dtypes import bool_, int64
from graphc.ir.op import Bad, Op
from graphc.ops.arguments import cast, constant, of_type, tensor
from graphc.ops.arithmetic import div, maximum, mul, sub
from graphc.ops.bounds import places
from graphc.ops.comparison import eq, ne, where
from graphc.ops.declare import FLOATING, Shorthand, call, fill
from graphc.ops.index import embedding, index_add
from graphc.ops.movement import expand, slice_, unsqueeze
from graphc.ops.reduce import fold, reduce_max, reduce_sum

_NAME = "embedding_bag"


def _checked(x: Any, weight: Any, offsets: Any, mode: str, scaled: bool, sparse: bool, per_sample: Any) -> None:
    """Raises ValueError, NotImplementedError or RuntimeError."""
    if x.dtype.kind not in "iu" or weight.ndim != 2:
        raise RuntimeError(f"{_NAME}: expected integers and a matrix, got {of_type(x)} and {of_type(weight)}")
    if x.ndim not in (1, 2):
        raise ValueError(f"{_NAME}: input has to be 1D or 2D Tensor, but got Tensor of dimension {x.ndim}")
    if (x.ndim == 2) != (offsets is None):
        wanted = "None for a 2D input, which holds one bag a row" if x.ndim == 2 else "a 1D Tensor for a 1D input"
        raise ValueError(f"{_NAME}: offsets has to be {wanted}")
    if offsets is not None and offsets.ndim != 1:
        raise ValueError(f"{_NAME}: offsets has to be a 1D Tensor, got {of_type(offsets)}")
    if offsets is not None and offsets.dtype.kind not in "iu":
        raise RuntimeError(f"{_NAME}: expected integers as offsets, got {of_type(offsets)}")
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"{_NAME}: mode has to be one of sum, mean or max, got {mode!r}")
    if mode == "max" and (scaled or sparse):
        raise ValueError(f"{_NAME}: max mode does not support scaling the gradient by the frequency or sparse weights")
    if per_sample is not None and mode != "sum":
        raise NotImplementedError(f"{_NAME}: per_sample_weights was not None: only supported for mode='sum', got {mode!r}")
    if per_sample is not None and tuple(per_sample.shape) != tuple(x.shape):
        raise ValueError(f"{_NAME}: per_sample_weights must have the shape of input: {of_type(per_sample)} and {of_type(x)}")


def _embedding_bag(
    x: Any,
    weight: Any,
    offsets: Any = None,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    x, weight = tensor(_NAME, "input", x), tensor(_NAME, "weight", weight)
    _checked(x, weight, offsets, mode, scale_grad_by_freq, sparse, per_sample_weights)
    rows = embedding(x, weight, padding_idx, scale_grad_by_freq)
    narrow, rows = rows.dtype, cast(rows, rows.dtype.compute)
    if padding_idx is None:
        counted = constant(True, bool_, tuple(x.shape))
    else:
        counted = ne(x, padding_idx if padding_idx >= 0 else padding_idx + weight.shape[0])
    if per_sample_weights is not None:
        rows = mul(rows, unsqueeze.run(cast(per_sample_weights, rows.dtype), dim=x.ndim))
    if offsets is None:
        return cast(_of_rows(rows, counted, mode), narrow)
    return cast(_of_bags(rows, counted, *_bags(x.shape[0], offsets, include_last_offset), mode), narrow)


def _bags(count: Any, offsets: Any, include_last_offset: bool) -> tuple[Any, Any]:
    """(the bag of each of `count` indices, how many bags): bags begin at the offsets, and may be empty."""
    bags = offsets.shape[0] - int(include_last_offset)
    if isinstance(bags, int) and bags < 0:
        raise RuntimeError(f"{_NAME}: include_last_offset: number of offsets should be at least 1")
    starts = cast(offsets, int64)  # what stands after a last offset falls into one bag too many, which is dropped
    marks = index_add(constant(0, int64, (count + 1,)), 0, starts, constant(1, int64, tuple(starts.shape)))
    inside = slice_.run(marks, starts=(0,), stops=(count,), steps=(1,))
    return sub(Op.table["cumsum"](inside, 0), 1), bags


def _of_rows(rows: Any, counted: Any, mode: str) -> Any:
    """Bags [B, N] of rows [B, N, D] -> [B, D]."""
    mask = unsqueeze.run(counted, dim=2)
    if mode == "max":
        if rows.shape[1] == 0:
            return constant(0, rows.dtype, (rows.shape[0], rows.shape[2]))
        best = fold(reduce_max, where(mask, rows, constant(-math.inf, rows.dtype)), (1,), False)
        return where(eq(best, -math.inf), constant(0, best.dtype), best)
    total = fold(reduce_sum, where(mask, rows, constant(0, rows.dtype)), (1,), False)
    return total if mode == "sum" else _mean(total, fold(reduce_sum, cast(counted, rows.dtype), (1,), False))


def _mean(total: Any, counts: Any) -> Any:
    return div(total, unsqueeze.run(maximum(counts, 1), dim=1))


def _of_bags(rows: Any, counted: Any, ids: Any, bags: Any, mode: str) -> Any:
    """Rows [L, D], each in the bag `ids` says, -> [bags, D].  What does not count goes into one more bag."""
    ids = where(counted, ids, constant(bags, int64))
    width = rows.shape[1]
    empty = constant(0, rows.dtype, (bags + 1, width))
    if mode == "max":
        spread = expand.run(unsqueeze.run(ids, dim=1), shape=tuple(rows.shape))
        total = Op.table["scatter_reduce"](empty, 0, spread, rows, "amax", include_self=False)
    else:
        total = index_add(empty, 0, ids, rows)
    total = slice_.run(total, starts=(0, 0), stops=(bags, width), steps=(1, 1))
    if mode != "mean":
        return total
    ones = constant(1, rows.dtype, tuple(ids.shape))
    counts = index_add(constant(0, rows.dtype, (bags + 1,)), 0, ids, ones)
    return _mean(total, slice_.run(counts, starts=(0,), stops=(bags,), steps=(1,)))


embedding_bag = Shorthand(
    _NAME,
    doc="The sum, mean or max of the rows of weight that each bag of indices names: a bag is a row of a 2D input, or begins at "
    "an offset of a 1D one.  ints [B, N] or [L] with offsets [B], [n, d] -> [B, d].",
    rule=_embedding_bag,
    dtypes=FLOATING,
    samples=(
        call(places(5, 2, 3), fill(5, 4)),
        call(places(5, 6), fill(5, 4), places(1, 1), mode="sum"),
        call(places(5, 2, 3), fill(5, 4), mode="sum", per_sample_weights=fill(2, 3)),
        call(places(5, 2, 3), fill(5, 4), mode="max", padding_idx=1),
    ),
    bad=(
        Bad((places(5, 6), fill(5, 4)), ValueError, "embedding_bag: offsets has to be a 1D Tensor"),
        Bad((places(5, 6), fill(5, 4), fill(1)), RuntimeError, "embedding_bag: expected integers as offsets"),
        Bad((places(5, 2, 3), fill(5, 4)), ValueError, "embedding_bag: mode has to be", {"mode": "median"}),
    ),
    methods=(),
    functions=("nn.functional.embedding_bag",),
)
