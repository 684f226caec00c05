"""scaled_dot_product_attention.

Enters: query, key, value, an optional mask, and a generator state where there is dropout.  Leaves: one operator.
Never here: the algorithm a target may choose for it.
"""

from __future__ import annotations

import math
from typing import Any

from graphc.dims import Dim
from graphc.dtypes import bool_, float32, int64
from graphc.ir.op import THROUGH, Bad, Composite, Op, TensorType, broadcast_shapes
from graphc.ops.activation import total
from graphc.ops.arguments import (
    cast,
    constant,
    gradient_in_compute_dtype,
    in_compute_dtype,
    is_zero,
    number,
    of_type,
    require_floating,
    rounded,
    tensor,
)
from graphc.ops.arithmetic import add, div, mul, sub
from graphc.ops.arrangement import repeat_interleave
from graphc.ops.comparison import eq, le, where
from graphc.ops.contract import matmul, swapped
from graphc.ops.create import iota
from graphc.ops.declare import FLOATING, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.movement import reshape
from graphc.ops.random import STATE, check_state, dropped, rand_array, state_of
from graphc.ops.reduce import fold, reduce_max
from graphc.ops.transcendental import exp, rsqrt

_NAME = "scaled_dot_product_attention"


def _prepare(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Any = None,
    enable_gqa: bool = False,
    *,
    state: Any = None,
) -> Prepared:
    query = require_floating(_NAME, "query", query)
    key, value = tensor(_NAME, "key", key), tensor(_NAME, "value", value)
    dropout_p = float(number(_NAME, "dropout_p", dropout_p))
    if not 0.0 <= dropout_p <= 1.0:
        raise ValueError(f"{_NAME}: dropout_p has to be between 0 and 1, got {dropout_p}")
    if is_causal and attn_mask is not None:
        raise RuntimeError(f"{_NAME}: attn_mask and is_causal cannot both be given")
    if dropout_p and state is None:
        raise RuntimeError(f"{_NAME}: dropout needs the generator's state")
    if enable_gqa and query.ndim >= 3:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (x if groups == 1 else repeat_interleave(x, groups, -3) for x in (key, value))
    inputs = [query, key, value]
    if attn_mask is not None:
        mask = tensor(_NAME, "attn_mask", attn_mask)
        if mask.dtype not in (bool_, float32, query.dtype):
            raise RuntimeError(
                f"{_NAME}: attn_mask must be bool, float32 or of the dtype of query: {of_type(query)} and {of_type(mask)}"
            )
        inputs.append(mask if mask.dtype is bool_ else cast(mask, query.dtype))
    if dropout_p:
        inputs.append(state_of(_NAME, state))
    if scale is None:
        size = query.shape[-1] if query.ndim else 1
        scale = None if isinstance(size, Dim) else 1.0 / math.sqrt(max(size, 1))  # None: 1 / sqrt of the symbolic size
    else:
        scale = float(number(_NAME, "scale", scale))
    attrs = {"masked": attn_mask is not None, "dropout_p": dropout_p, "is_causal": bool(is_causal), "scale": scale}
    return tuple(inputs), attrs


def _infer(
    query: TensorType, key: TensorType, value: TensorType, *rest: TensorType, masked: bool, dropout_p: float, **_: Any
) -> Any:
    shown = f"{query}, {key}, {value}"
    if not query.dtype is key.dtype is value.dtype:
        raise RuntimeError(f"{_NAME}: query, key and value must be of one dtype: {shown}")
    if min(query.rank, key.rank, value.rank) < 2:
        raise RuntimeError(f"{_NAME}: query, key and value must have at least 2 dims: {shown}")
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise RuntimeError(f"{_NAME}: query and key must have one feature size, key and value one length: {shown}")
    batch = broadcast_shapes(_NAME, (query.shape[:-2], key.shape[:-2], value.shape[:-2]))
    if masked:
        scores = (*batch, query.shape[-2], key.shape[-2])
        if broadcast_shapes(_NAME, (scores, rest[0].shape)) != scores:
            raise RuntimeError(f"{_NAME}: attn_mask {rest[0]} does not fit {shown}")
    if dropout_p:
        check_state(_NAME, rest[-1])
    out = TensorType(query.dtype, (*batch, query.shape[-2], value.shape[-1]))
    return (out, rest[-1]) if dropout_p else out


def _causal(rows: Any, columns: Any) -> Any:
    """Where a query may look: at keys up to its own position."""
    return le(iota.run(size=columns, dtype=int64), reshape.run(iota.run(size=rows, dtype=int64), shape=(rows, 1)))


def _weights(scores: Any) -> Any:
    """softmax along the last dim; zeros for rows that are all -inf; nothing where there are no keys."""
    dim = scores.ndim - 1
    if is_zero(scores.shape[dim]):
        return scores
    best = fold(reduce_max, scores, (dim,), True)
    e = exp(sub(scores, where(eq(best, float("-inf")), constant(0, scores.dtype), best)))
    denominator = total(e, dim)
    return div(e, where(eq(denominator, 0), constant(1, scores.dtype), denominator))


def _scored(query: Any, key: Any, mask: tuple[Any, ...], is_causal: bool, scale: float | None) -> tuple[Any, Any]:
    """(softmax of the masked scores, what the scores were multiplied by)."""
    factor = rsqrt(constant(query.shape[-1], query.dtype)) if scale is None else scale
    scores = mul(matmul.run(query, swapped(key)), factor)
    lowest = constant(float("-inf"), scores.dtype)
    if is_causal:
        scores = where(_causal(query.shape[-2], key.shape[-2]), scores, lowest)
    for m in mask:
        scores = where(m, scores, lowest) if m.dtype is bool_ else add(scores, m)
    return _weights(scores), factor


def _plain(query: Any, key: Any, value: Any, *mask: Any, is_causal: bool, scale: float | None) -> Any:
    return matmul.run(_scored(query, key, mask, is_causal, scale)[0], value)


def _plain_grad(
    g: Any, out: Any, query: Any, key: Any, value: Any, *mask: Any, is_causal: bool, scale: float | None
) -> tuple[Any, ...]:
    """The weights are computed again: they are many times the size of everything else."""
    weights, factor = _scored(query, key, mask, is_causal, scale)
    weighted = mul(matmul.run(g, swapped(value)), weights)
    g_masked = weighted if is_zero(weights.shape[-1]) else sub(weighted, mul(weights, total(weighted, weights.ndim - 1)))
    g_scores = mul(g_masked, factor)
    g_mask = (None if m.dtype is bool_ else g_masked for m in mask)
    return matmul.run(g_scores, key), matmul.run(swapped(g_scores), query), matmul.run(swapped(weights), g), *g_mask


def _attention(
    query: Any, key: Any, value: Any, *rest: Any, masked: bool, dropout_p: float, is_causal: bool, scale: float | None
) -> Any:
    if not dropout_p:
        return attention.run(query, key, value, *rest, is_causal=is_causal, scale=scale)
    weights, state = dropped(rest[-1], _scored(query, key, rest[:masked], is_causal, scale)[0], dropout_p)
    return matmul.run(weights, value), state


def _reference(
    xp: Any,
    query: Any,
    key: Any,
    value: Any,
    *rest: Any,
    masked: bool,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> Any:
    scores = xp.matmul(query, xp.swapaxes(key, -1, -2)) * query.dtype.type(query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        scores = xp.where(xp.tri(query.shape[-2], key.shape[-2], dtype=bool), scores, -xp.inf)
    if masked:
        scores = xp.where(rest[0], scores, -xp.inf) if rest[0].dtype == bool else scores + rest[0]
    best = scores.max(axis=-1, keepdims=True, initial=-xp.inf)
    e = xp.exp(scores - xp.where(best == -xp.inf, 0, best))
    denominator = e.sum(axis=-1, keepdims=True)
    weights = e / xp.where(denominator == 0, 1, denominator)
    state = None
    if dropout_p:
        u, state = rand_array(xp, rest[-1], weights.shape, float32)
        factor = 1.0 / (1.0 - dropout_p) if dropout_p < 1.0 else 1.0
        weights = xp.where(u < xp.float32(1.0 - dropout_p), weights * factor, 0)
    out = xp.matmul(weights.astype(query.dtype), value)
    return out if state is None else (out, state)


_QKV = (fill(2, 3, 4), fill(2, 5, 4), fill(2, 5, 6))
_MASK = fill(3, 5, low=0, high=2, dtype=bool_, grad=False)

attention = Op(
    "attention",
    doc="softmax(query @ key.T * scale + mask) @ value, without dropout.  [..., n, e], [..., m, e], [..., m, v] -> [..., n, v].",
    signature="(query, key, value, *mask, is_causal, scale)",
    prepare=lambda *given: (given[:-2], dict(zip(("is_causal", "scale"), given[-2:], strict=True))),
    infer=lambda *types, **how: _infer(*types, masked=len(types) > 3, dropout_p=0.0, **how),
    reference=rounded(
        lambda xp, *arrays, **how: _reference(xp, *arrays, masked=len(arrays) > 3, dropout_p=0.0, **how),
    ),
    grad=gradient_in_compute_dtype(_plain_grad),
    lowering=Composite(in_compute_dtype(_plain)),
    attrs=("is_causal", "scale"),
    dtypes=FLOATING,
    samples=(call(*_QKV, False, 0.5), call(*_QKV, fill(2, 3, 5), True, 0.5), call(*_QKV, _MASK, False, 0.3)),
    bad=(Bad((fill(3, 4), fill(3, 5), fill(3, 4), False, 1.0), RuntimeError, "query and key must have one feature size"),),
    methods=(),
    functions=(),
)

scaled_dot_product_attention = Op(
    _NAME,
    doc=(
        "softmax(query @ key.T * scale + mask) @ value; rows with nothing to look at give 0.  "
        "[..., n, e], [..., m, e], [..., m, v] (, mask [..., n, m]) -> [..., n, v]; with dropout also the new state."
    ),
    signature=("(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False, *, state=None)"),
    prepare=_prepare,
    infer=_infer,
    reference=rounded(_reference),
    grad=THROUGH,
    lowering=Composite(in_compute_dtype(_attention)),
    attrs=("masked", "dropout_p", "is_causal", "scale"),
    autocast="lower",
    dtypes=FLOATING,
    samples=(
        call(*_QKV),
        call(fill(3, 4), fill(3, 4), fill(3, 4), is_causal=True),
        call(*_QKV, _MASK),
        call(*_QKV, fill(2, 3, 5)),
        call(fill(2, 4, 3, 8), fill(2, 2, 3, 8), fill(2, 2, 3, 8), enable_gqa=True),
        call(*_QKV, scale=0.5),
        call(*_QKV, dropout_p=0.4, state=STATE),
        call(fill(1, 33, 2), fill(1, 33, 2), fill(1, 33, 1), is_causal=True),
        call(fill(2, 3, 4), fill(2, 0, 4), fill(2, 0, 4)),
    ),
    bad=(
        Bad((fill(3, 4), fill(3, 5), fill(3, 4)), RuntimeError, "query and key must have one feature size"),
        Bad((fill(4), fill(3, 4), fill(3, 4)), RuntimeError, "must have at least 2 dims"),
        Bad((*_QKV, fill(7, 5)), RuntimeError, f"{_NAME}: "),
        Bad(_QKV, RuntimeError, "dropout needs the generator's state", {"dropout_p": 0.5}),
        Bad((*_QKV, _MASK), RuntimeError, "cannot both be given", {"is_causal": True}),
    ),
    methods=(),
    functions=("nn.functional.scaled_dot_product_attention",),
)
