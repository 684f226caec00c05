"""scaled_dot_product_attention, and the operators that its nests make: `attention` and its gradient.

Enters: query, key, value, an optional mask, and a generator state where there is dropout.  Leaves: operators.
Never here: the nests (`schedule.attention`).

Rounding, the same for every query.  Its elements times the scale are rounded; a score is one chain of fma over the features from
zero (where there is one query, a sum of products in the tree order), to which the mask is added.  Keys are taken in blocks of
`keys_of_block`.  In a block, the greatest score so far is taken off; weights are the exponentials, summed in the tree order; an
element of weights times values is one chain of fma over the keys from zero.  From the second block on, what was found before is
multiplied by the exponential of the old greatest score less the new one: the sum is then rounded twice, an element once (fma).  At
the end it is multiplied by one over the sum.  With `is_causal`, keys up to the end of the query's `ROWS` queries take part, hidden
ones with weight 0.

The gradient makes the weights again from what is kept of a query: its greatest score and one over its sum.  Products in it are
chains of fma in blocks of `keys_of_gradient` keys or `ROW_BLOCK` queries, the blocks added in order.
Source: Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018); Dao and others, "FlashAttention" (2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.dtypes import bool_, float32, int64
from graphc.ir.op import THROUGH, Anchor, Bad, Composite, Op, Sample, TensorType, broadcast_shapes
from graphc.ops.activation import total
from graphc.ops.arguments import (
    cast,
    constant,
    gradient_in_compute_dtype,
    in_compute_dtype,
    is_zero,
    number,
    of_type,
    quiet,
    require_floating,
    rounded,
    tensor,
    wide,
)
from graphc.ops.arithmetic import add, div, mul, sub
from graphc.ops.arrangement import repeat_interleave
from graphc.ops.comparison import eq, le, where
from graphc.ops.contract import matmul, swapped
from graphc.ops.create import iota
from graphc.ops.declare import FLOATING, Routed, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.movement import reshape, summed_to
from graphc.ops.pullback import pulled_back
from graphc.ops.random import STATE, check_state, dropped, rand_array, state_of
from graphc.ops.reduce import fold, reduce_max
from graphc.ops.transcendental import exp

_NAME = "scaled_dot_product_attention"
ROWS = 8  # queries whose hidden keys are skipped together
ROW_BLOCK = 64  # queries in one chain of a gradient of keys and values
MOST_FEATURES = 1024  # more are left to matrix products


def keys_of_block(features: int) -> int:
    """How many keys are taken at once: a block of keys and values stays in the cache."""
    return max(64, min(512, (1 << 16) // features // 64 * 64))


def keys_of_gradient(features: int) -> int:
    """How many keys a gradient takes at once: it holds more than twice as much of each."""
    return max(64, keys_of_block(features) // 2)


# ---- public arguments ----------------------------------------------------------------------------------------------------


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
    scale = _default_scale(query) if scale is None else float(number(_NAME, "scale", scale))
    grouped = bool(enable_gqa) and query.ndim >= 3 and key.ndim >= 3 and query.shape[-3] != key.shape[-3]
    attrs = {"masked": attn_mask is not None, "dropout_p": dropout_p, "is_causal": bool(is_causal), "scale": scale}
    return tuple(inputs), {**attrs, "grouped": grouped}


def _default_scale(query: Any) -> float:
    size = query.shape[-1] if query.ndim else 1
    if not isinstance(size, int):
        raise RuntimeError(f"{_NAME}: the size of a query must be a number: {of_type(query)}")
    return 1.0 / math.sqrt(max(size, 1))


def _infer(query: TensorType, key: TensorType, value: TensorType, *rest: TensorType, masked: bool, dropout_p: float,
           grouped: bool = False, **_: Any) -> Any:  # fmt: skip
    shown = f"{query}, {key}, {value}"
    if not query.dtype is key.dtype is value.dtype:
        raise RuntimeError(f"{_NAME}: query, key and value must be of one dtype: {shown}")
    if min(query.rank, key.rank, value.rank) < 2:
        raise RuntimeError(f"{_NAME}: query, key and value must have at least 2 dims: {shown}")
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise RuntimeError(f"{_NAME}: query and key must have one feature size, key and value one length: {shown}")
    if not isinstance(query.shape[-1], int) or not isinstance(value.shape[-1], int):
        raise RuntimeError(f"{_NAME}: feature sizes must be numbers: {shown}")
    shapes = [query.shape[:-2], key.shape[:-2], value.shape[:-2]]
    if grouped:
        if key.shape[-3] != value.shape[-3] or query.shape[-3] % key.shape[-3] != 0:
            raise RuntimeError(f"{_NAME}: the heads of query must be a multiple of those of key and value: {shown}")
        shapes = [shapes[0], *((*shape[:-1], query.shape[-3]) for shape in shapes[1:])]
    batch = broadcast_shapes(_NAME, shapes)
    if masked:
        scores = (*batch, query.shape[-2], key.shape[-2])
        if broadcast_shapes(_NAME, (scores, rest[0].shape)) != scores:
            raise RuntimeError(f"{_NAME}: attn_mask {rest[0]} does not fit {shown}")
    if dropout_p:
        check_state(_NAME, rest[-1])
    out = TensorType(query.dtype, (*batch, query.shape[-2], value.shape[-1]))
    return (out, rest[-1]) if dropout_p else out


# ---- written in operators ------------------------------------------------------------------------------------------------


def _causal(rows: Any, columns: Any) -> Any:
    """Where a query may look: at keys up to its own position."""
    return le(iota.run(size=columns, dtype=int64), reshape.run(iota.run(size=rows, dtype=int64), shape=(rows, 1)))


def _weights(scores: Any) -> Any:
    dim = scores.ndim - 1
    if is_zero(scores.shape[dim]):
        return scores
    best = fold(reduce_max, scores, (dim,), True)
    e = exp(sub(scores, where(eq(best, float("-inf")), constant(0, scores.dtype), best)))
    denominator = total(e, dim)
    return div(e, where(eq(denominator, 0), constant(1, scores.dtype), denominator))


def _weights_grad(g: Any, out: Any, scores: Any) -> tuple[Any]:
    if is_zero(scores.shape[-1]):
        return (g,)
    weighted = mul(g, out)
    return (sub(weighted, mul(out, total(weighted, out.ndim - 1))),)


def _weights_reference(xp: Any, scores: Any) -> Any:
    best = scores.max(axis=-1, keepdims=True, initial=-xp.inf)
    e = xp.exp(scores - xp.where(best == -xp.inf, scores.dtype.type(0), best))
    denominator = e.sum(axis=-1, keepdims=True)
    return e / xp.where(denominator == 0, scores.dtype.type(1), denominator)


attention_weights = Op(
    "attention_weights",
    doc="softmax along the last dim; zeros for rows that are all -inf, and nothing where there are no keys.  [..., n] -> [..., n].",
    signature="(scores)",
    prepare=lambda scores: ((require_floating("attention_weights", "scores", scores),), {}),
    infer=lambda scores: scores,
    reference=rounded(_weights_reference),
    grad=gradient_in_compute_dtype(_weights_grad),
    lowering=Composite(in_compute_dtype(_weights)),
    dtypes=FLOATING,
    samples=(call(fill(3, 5)), call(fill(2, 3, 33)), call(fill(4, 1)), call(fill(2, 0)), call(fill(0, 3))),
    bad=(Bad((fill(3, dtype=int64),), RuntimeError, "attention_weights: argument 'scores' must be floating"),),
    methods=(),
    functions=(),
)


def _scored(query: Any, key: Any, mask: Sequence[Any], is_causal: bool, scale: float) -> Any:
    """softmax of the masked scores."""
    scores = mul(matmul.run(query, swapped(key)), scale)
    lowest = constant(float("-inf"), scores.dtype)
    if is_causal:
        scores = where(_causal(query.shape[-2], key.shape[-2]), scores, lowest)
    for m in mask:
        scores = where(m, scores, lowest) if m.dtype is bool_ else add(scores, m)
    return attention_weights.run(scores)


def _scores_back(g: Any, query: Any, key: Any, value: Any, mask: Sequence[Any], is_causal: bool, scale: float) -> tuple[Any, Any]:
    """(the weights, the gradient of the masked scores)."""
    weights = _scored(query, key, mask, is_causal, scale)
    weighted = mul(matmul.run(g, swapped(value)), weights)
    return weights, sub(weighted, mul(weights, total(weighted, weights.ndim - 1)))


def _plain_grad(g: Any, query: Any, key: Any, value: Any, *mask: Any, is_causal: bool, scale: float) -> tuple[Any, ...]:
    weights, masked = _scores_back(g, query, key, value, mask, is_causal, scale)
    scores = mul(masked, scale)
    found = matmul.run(scores, key), matmul.run(swapped(scores), query), matmul.run(swapped(weights), g)
    types = _backward_infer(*map(of_type, (g, g, g, query, key, value, *mask)), is_causal=is_causal, scale=scale)
    return tuple([summed_to(x, t.shape) for x, t in zip(found, types, strict=True)])


def _is_fused(query: Any, key: Any, value: Any) -> bool:
    """Whether there is something to do that the nests take."""
    sizes = (query.shape[-1], value.shape[-1])
    return min(sizes) > 0 and max(sizes) <= MOST_FEATURES and not is_zero(query.shape[-2]) and not is_zero(key.shape[-2])


def _by_group(query: Any, key: Any, value: Any, mask: Sequence[Any]) -> list[Any]:
    """The operands of `attention`: the queries of one head of keys as a dim of their own, which that head is shared along."""
    heads, own = key.shape[-3], query.shape[-3]
    many = own // heads
    query = reshape.run(query, shape=(*query.shape[:-3], heads, many, *query.shape[-2:]))
    key, value = (reshape.run(x, shape=(*x.shape[:-2], 1, *x.shape[-2:])) for x in (key, value))
    masks = []
    for m in mask:
        if m.ndim > 2:
            split = (heads, many) if m.shape[-3] == own else (1, 1)
            m = reshape.run(m, shape=(*m.shape[:-3], *split, *m.shape[-2:]))
        masks.append(m)
    return [query, key, value, *masks]


def _attention(query: Any, key: Any, value: Any, *rest: Any, masked: bool, dropout_p: float, grouped: bool, **how: Any) -> Any:
    mask = rest[:masked]
    if dropout_p or not _is_fused(query, key, value):
        if grouped:
            key, value = (repeat_interleave(x, query.shape[-3] // key.shape[-3], -3) for x in (key, value))
        return _in_products(query, key, value, *rest, masked=masked, dropout_p=dropout_p, **how)
    if not grouped:
        return attention.run(query, key, value, *mask, **how)[0]
    shape = (*query.shape[:-1], value.shape[-1])
    if 0 in shape:
        return constant(0, query.dtype, shape)
    out = attention.run(*_by_group(query, key, value, mask), **how)[0]
    return reshape.run(out, shape=(*out.shape[:-4], *shape[-3:]))


@in_compute_dtype
def _in_products(
    query: Any, key: Any, value: Any, *rest: Any, masked: bool, dropout_p: float, is_causal: bool, scale: float
) -> Any:
    weights = _scored(query, key, rest[:masked], is_causal, scale)
    if not dropout_p:
        return matmul.run(weights, value)
    weights, state = dropped(rest[-1], weights, dropout_p)
    return matmul.run(weights, value), state


# ---- references ----------------------------------------------------------------------------------------------------------


def _exponentials(xp: Any, query: Any, key: Any, mask: Sequence[Any], is_causal: bool, scale: float) -> tuple[Any, Any, Any]:
    """(masked scores, their greatest, or 0 where that is -inf, one over the sum of their exponentials, or 1 where that is 0)."""
    scores = xp.matmul(query, xp.swapaxes(key, -1, -2)) * query.dtype.type(scale)
    if is_causal:
        scores = xp.where(xp.tri(query.shape[-2], key.shape[-2], dtype=bool), scores, query.dtype.type(-xp.inf))
    for m in mask:
        scores = xp.where(m, scores, query.dtype.type(-xp.inf)) if m.dtype == bool else scores + m
    best = scores.max(axis=-1, keepdims=True, initial=-xp.inf)
    best = xp.where(best == -xp.inf, query.dtype.type(0), best)
    denominator = xp.exp(scores - best).sum(axis=-1, keepdims=True)
    return scores, best, 1 / xp.where(denominator == 0, query.dtype.type(1), denominator)


def _reference(
    xp: Any, query: Any, key: Any, value: Any, *rest: Any, masked: bool, dropout_p: float, grouped: bool, **how: Any
) -> Any:
    if grouped:
        key, value = (xp.repeat(x, query.shape[-3] // key.shape[-3], axis=-3) for x in (key, value))
    scores, best, factor = _exponentials(xp, query, key, rest[:masked], **how)
    weights = xp.exp(scores - best) * factor
    state = None
    if dropout_p:
        u, state = rand_array(xp, rest[-1], weights.shape, float32)
        factor = 1.0 / (1.0 - dropout_p) if dropout_p < 1.0 else 1.0
        weights = xp.where(u < xp.float32(1.0 - dropout_p), weights * factor, 0)
    out = xp.matmul(weights.astype(query.dtype), value)
    return out if state is None else (out, state)


def _widened(xp: Any, arrays: Sequence[Any]) -> list[Any]:
    return [a.astype(xp.float32) if a.dtype.itemsize == 2 else a for a in arrays]


def _forward_reference(xp: Any, *arrays: Any, **how: Any) -> Any:
    def compute(query: Any, key: Any, value: Any, *mask: Any) -> Any:
        scores, best, factor = _exponentials(xp, query, key, mask, **how)
        weights = xp.exp(scores - best) * factor
        out = xp.matmul(weights, value)
        shape = (*out.shape[:-1], 1)
        kept = xp.concatenate([xp.broadcast_to(x, shape) for x in (best, factor)], axis=-1)
        return out.astype(arrays[0].dtype), kept

    return quiet.copy().run(compute, *_widened(xp, arrays))


def _backward_reference(xp: Any, *arrays: Any, is_causal: bool, scale: float) -> Any:
    def compute(g: Any, out: Any, kept: Any, query: Any, key: Any, value: Any, *mask: Any) -> Any:
        scores = _exponentials(xp, query, key, mask, is_causal, scale)[0]
        weights = xp.exp(scores - kept[..., :1]) * kept[..., 1:]
        slopes = xp.matmul(g, xp.swapaxes(value, -1, -2)) - (g * out).sum(axis=-1, keepdims=True)
        slopes = weights * slopes * g.dtype.type(scale)
        found = xp.matmul(slopes, key), xp.matmul(xp.swapaxes(slopes, -1, -2), query), xp.matmul(xp.swapaxes(weights, -1, -2), g)
        batch = _batch_of_keys(*(x.shape[:-2] for x in (out, key, value)))
        return tuple([_summed(x, batch if k else out.shape[:-2]).astype(arrays[0].dtype) for k, x in enumerate(found)])

    return quiet.copy().run(compute, *_widened(xp, arrays))


def _summed(x: Any, batch: tuple[int, ...]) -> Any:
    dims = tuple(d for d, size in enumerate(batch) if size == 1 and x.shape[d] != 1)
    return x.sum(axis=dims, keepdims=True)


# ---- the nests' operators ------------------------------------------------------------------------------------------------


def _forward_infer(*types: TensorType, **how: Any) -> tuple[TensorType, TensorType]:
    out = _infer(*types, masked=len(types) > 3, dropout_p=0.0, **how)
    return out, TensorType(out.dtype.compute, (*out.shape[:-1], 2))


def _batch_of_keys(whole: tuple[Any, ...], key: tuple[Any, ...], value: tuple[Any, ...]) -> tuple[Any, ...]:
    """The batch of the gradients of keys and values: as many dims as the whole batch has, of size 1 where all share them."""
    batch = broadcast_shapes("attention", (key, value))
    return (*(1,) * (len(whole) - len(batch)), *batch)


def _backward_infer(g: TensorType, out: TensorType, kept: TensorType, *types: TensorType, **how: Any) -> tuple[TensorType, ...]:
    query, key, value, *_ = types
    whole = _infer(*types, masked=len(types) > 3, dropout_p=0.0, **how).shape
    batch = _batch_of_keys(whole[:-2], key.shape[:-2], value.shape[:-2])
    shapes = (*whole[:-1], query.shape[-1]), (*batch, *key.shape[-2:]), (*batch, *value.shape[-2:])
    return tuple([TensorType(query.dtype, shape) for shape in shapes])


def _grad(g: Any, out: Any, query: Any, key: Any, value: Any, *mask: Any, **how: Any) -> tuple[Any, ...]:
    found = attention_backward.run(g[0], *out, query, key, value, *mask, **how)
    more: list[Any] = []
    for m in mask:  # made of operators: that of a mask is as large as the scores
        given, q, k, v = map(wide, (g[0], query, key, value))
        more.append(None if m.dtype is bool_ else cast(_scores_back(given, q, k, v, [wide(m)], **how)[1], m.dtype))
    return (*found, *more)


def _again(g: Any, out: Any, kept: Any, *inputs: Any, **how: Any) -> tuple[Any, ...]:
    """The gradient in operators, from nothing that is kept, so that it can be differentiated by everything it depends on."""
    return tuple([cast(x, inputs[0].dtype) for x in _plain_grad(*map(wide, (g, *inputs)), **how)])


def _backwards(op: Op, g: Any, *args: Any) -> Any:
    inputs, how = attention.prepare(*args)
    return op.run(g, *attention.run(*inputs, **how), *inputs, **how)


def _forwards(op: Op, *args: Any) -> Any:
    inputs, how = op.prepare(*args)
    return op.run(*inputs, **how)[0]


_QKV = (fill(2, 3, 4), fill(2, 5, 4), fill(2, 5, 6))
_MASK = fill(3, 5, low=0, high=2, dtype=bool_, grad=False)
_SAMPLES = (
    call(*_QKV, False, 0.5),
    call(*_QKV, fill(2, 3, 5), True, 0.5),
    call(fill(2, 2, 3, 4), fill(2, 1, 5, 4), fill(2, 1, 5, 6), _MASK, False, 0.3),
    call(fill(2, 1, 8), fill(2, 35, 8), fill(35, 5), False, 0.4),
    call(fill(1, 41, 3), fill(41, 3), fill(41, 2), True, 0.6),
)
_MISFIT = (fill(3, 4), fill(3, 5), fill(3, 4), False, 1.0)
_HOW = ("is_causal", "scale")

attention_backward = Routed(
    "attention_backward",
    doc="The gradients of `attention`.  g [..., n, v], and what it is given -> [..., n, e], [..., m, e], [..., m, v].",
    signature="(g, query, key, value, *mask, is_causal, scale)",
    route=_backwards,
    infer=_backward_infer,
    reference=_backward_reference,
    grad=pulled_back(_again),
    lowering=Anchor("attention_backward"),
    attrs=_HOW,
    dtypes=FLOATING,
    samples=tuple(Sample((fill(*s.args[0].shape[:-1], s.args[2].shape[-1]), *s.args)) for s in _SAMPLES),
    bad=(Bad((fill(3, 4), *_MISFIT), RuntimeError, "query and key must have one feature size"),),
    methods=(),
    functions=(),
    exact=lambda **_: ((-1,),) * 6,
)

attention = Routed(
    "attention",
    doc="softmax(query @ key.T * scale + mask) @ value, without dropout.  [..., n, e], [..., m, e], [..., m, v] -> [..., n, v].",
    signature="(query, key, value, *mask, is_causal, scale)",
    route=_forwards,
    prepare=lambda *given: (given[:-2], dict(zip(_HOW, given[-2:], strict=True))),
    infer=_forward_infer,
    reference=_forward_reference,
    grad=_grad,
    lowering=Anchor("attention"),
    attrs=_HOW,
    dtypes=FLOATING,
    samples=_SAMPLES,
    bad=(Bad(_MISFIT, RuntimeError, "query and key must have one feature size"),),
    methods=(),
    functions=(),
    exact=lambda **_: ((-1,),) * 3,
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
    lowering=Composite(_attention),
    attrs=("masked", "dropout_p", "is_causal", "scale", "grouped"),
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
    exact=lambda grouped, **_: ((-1, -3),) * 3 if grouped else ((-1,),) * 3,
)
