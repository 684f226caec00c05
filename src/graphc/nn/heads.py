"""Multi-head attention as a function with PyTorch's arguments.

Enters: query [L, N, E], key and value [S, N, ...], or without N.  Leaves: [L, N, E] and, if wanted, the weights [N, L, S].
Never here: parameters (`attention`).
"""

from __future__ import annotations

import math
import warnings
from typing import Any

from graphc.dtypes import DType, bool_
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.nn.noise import dropout, scaled_dot_product_attention


def _op(name: str) -> Any:
    return Op.table[name]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(at_user_line(message))


def _none_or_dtype(input: Any) -> DType | None:
    """The dtype of a tensor; None of None."""
    return None if input is None else input.dtype  # type: ignore[no-any-return]


def canonical_mask(
    mask: Any, mask_name: str, other_type: DType | None, other_name: str, target_type: DType, check_other: bool = True
) -> Any:
    """A mask that is added to scores: -inf where a bool mask is True, else the mask itself.

    Warns where the other mask is of another dtype.  Raises AssertionError for what is neither bool nor floating.
    """
    if mask is None:
        return None
    _require(mask.dtype is bool_ or mask.dtype.kind == "f", f"only bool and floating types of {mask_name} are supported")
    if check_other and other_type is not None and mask.dtype is not other_type:
        shown = f"Support for mismatched {mask_name} and {other_name} is deprecated. Use same type for both instead."
        warnings.warn(shown, stacklevel=4)
    if mask.dtype is not bool_:
        return mask
    return _op("masked_fill")(_op("zeros_like")(mask, dtype=target_type), mask, -math.inf)


def _check_ranks(query: Any, key: Any, value: Any, key_padding_mask: Any, attn_mask: Any, heads: int) -> bool:
    """Whether there is a batch.  Raises AssertionError for ranks that do not fit."""
    rank = query.dim()
    shown = f"query should be unbatched 2D or batched 3D tensor but received {rank}-D query tensor"
    _require(rank in (2, 3), shown)
    which = f"For {'batched (3-D)' if rank == 3 else 'unbatched (2-D)'} `query`, expected"
    _require(
        key.dim() == rank == value.dim(),
        f"{which} `key` and `value` to be {rank}-D but found {key.dim()}-D and {value.dim()}-D tensors respectively",
    )
    if key_padding_mask is not None:
        found = key_padding_mask.dim()
        _require(found == rank - 1, f"{which} `key_padding_mask` to be `None` or {rank - 1}-D but found {found}-D tensor instead")
    if attn_mask is not None:
        found = attn_mask.dim()
        _require(found in (2, 3), f"{which} `attn_mask` to be `None`, 2-D or 3-D but found {found}-D tensor instead")
        if rank == 2 and found == 3:
            wanted = (heads, query.shape[0], key.shape[0])
            shown = f"Expected `attn_mask` shape to be {wanted} but got {attn_mask.shape}"
            _require(tuple(attn_mask.shape) == wanted, shown)
    return bool(rank == 3)


def _canonical_masks(key_padding_mask: Any, attn_mask: Any, is_causal: bool, dtype: DType) -> tuple[Any, Any]:
    """Both masks as masks that are added to scores.  Raises RuntimeError for a hint about a mask that is not given."""
    other = _none_or_dtype(attn_mask)
    key_padding_mask = canonical_mask(key_padding_mask, "key_padding_mask", other, "attn_mask", dtype)
    if is_causal and attn_mask is None:
        raise RuntimeError(
            at_user_line(
                "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
                "`generate_square_subsequent_mask` to create this mask."
            )
        )
    return key_padding_mask, canonical_mask(attn_mask, "attn_mask", None, "", dtype, check_other=False)


def _input_weights(separate: tuple[Any, ...] | None, packed: Any, key: Any, value: Any) -> Any:
    """The three input projections: their own weights, or the thirds of one."""
    if separate is None:
        _require(tuple(key.shape) == tuple(value.shape), f"key shape {key.shape} does not match value shape {value.shape}")
        _require(packed is not None, "use_separate_proj_weight is False but in_proj_weight is None")
        return _op("chunk")(packed, 3)
    for name, weight in zip("qkv", separate, strict=True):
        _require(weight is not None, f"use_separate_proj_weight is True but {name}_proj_weight is None")
    shown = f"key's sequence and batch dims {key.shape[:2]} do not match value's {value.shape[:2]}"
    _require(tuple(key.shape[:2]) == tuple(value.shape[:2]), shown)
    return separate


def _projected(query: Any, key: Any, value: Any, weights: Any, bias: Any) -> list[Any]:
    """Query, key and value through their three input projections."""
    biases = (None, None, None) if bias is None else _op("chunk")(bias, 3)
    return [_op("linear")(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]


def _by_head(x: Any, heads: int, batch: int) -> Any:
    """[L, N, E] -> [N * heads, L, E / heads]."""
    return _op("transpose")(x.reshape(x.shape[0], batch * heads, x.shape[2] // heads), 0, 1)


def _padded(mask: Any, more: int) -> Any:
    """A mask with more keys, which are seen."""
    return mask if mask is None or not more else _op("pad")(mask, (0, more))


def _with_bias(k: Any, v: Any, bias_k: Any, bias_v: Any, static_k: Any, static_v: Any, batch: Any) -> tuple[Any, Any, int]:
    """Keys and values with a learned one more, and how many were added."""
    if bias_k is None or bias_v is None:
        return k, v, 0
    _require(static_k is None, "bias cannot be added to static key.")
    _require(static_v is None, "bias cannot be added to static value.")
    k, v = (_op("cat")([x, _op("repeat")(b, 1, batch, 1)]) for x, b in ((k, bias_k), (v, bias_v)))
    return k, v, 1


def _checked_mask(attn_mask: Any, length: Any, source: Any, heads: int, batch: int) -> Any:
    """The mask with a leading dim.  Raises RuntimeError for a shape that does not fit."""
    if attn_mask is None:
        return None
    wanted = (length, source) if attn_mask.dim() == 2 else (batch * heads, length, source)
    if tuple(attn_mask.shape) != wanted:
        shown = f"The shape of the {attn_mask.dim()}D attn_mask is {attn_mask.shape}, but should be {wanted}."
        raise RuntimeError(at_user_line(shown))
    return attn_mask.unsqueeze(0) if attn_mask.dim() == 2 else attn_mask


def multi_head_attention_forward(
    query: Any,
    key: Any,
    value: Any,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Any,
    out_proj_bias: Any,
    training: bool = True,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Any, Any]:
    """Attention of every head on its slice of the projected query, key and value, projected once more (Vaswani and others 2017).

    query [L, N, E] (or [L, E]), key and value [S, N, ...] -> ([L, N, E], weights [N, L, S], [N, heads, L, S] or None).
    Raises AssertionError for sizes that do not fit, RuntimeError for masks.
    """
    batched = _check_ranks(query, key, value, key_padding_mask, attn_mask, num_heads)
    if not batched:
        query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    key_padding_mask, attn_mask = _canonical_masks(key_padding_mask, attn_mask, is_causal, query.dtype)
    length, batch, width = query.shape
    _require(width == embed_dim_to_check, f"was expecting embedding dimension of {embed_dim_to_check}, but got {width}")
    _require(width % num_heads == 0, f"embed_dim {width} not divisible by num_heads {num_heads}")
    separate = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    weights = _input_weights(separate, in_proj_weight, key, value)
    q, k, v = _projected(query, key, value, weights, in_proj_bias)
    attn_mask = _checked_mask(attn_mask, length, key.shape[0], num_heads, batch)
    k, v, more = _with_bias(k, v, bias_k, bias_v, static_k, static_v, batch)
    q, k, v = (
        _by_head(x, num_heads, batch) if static is None else static for x, static in ((q, None), (k, static_k), (v, static_v))
    )
    if add_zero_attn:
        k, v = (_op("cat")([x, _op("zeros")((x.shape[0], 1, x.shape[2]), dtype=x.dtype)], 1) for x in (k, v))
        more += 1
    attn_mask, key_padding_mask = _padded(attn_mask, more), _padded(key_padding_mask, more)
    mask = _merged(attn_mask, key_padding_mask, num_heads, batch, k.shape[1])
    out, shares = _attended(q, k, v, mask, dropout_p if training else 0.0, need_weights)
    out = _op("linear")(_op("transpose")(out, 0, 1).reshape(length * batch, width), out_proj_weight, out_proj_bias)
    out = out.reshape(length, batch, out.shape[1])
    return _results(out, shares, average_attn_weights, (batch, num_heads, length), batched)


def _results(out: Any, shares: Any, averaged: bool, sizes: tuple[Any, ...], batched: bool) -> tuple[Any, Any]:
    """The output and the weights by batch and head, averaged over heads if wanted, without the batch dim that was put in."""
    if shares is not None:
        shares = shares.reshape(*sizes, shares.shape[2])
        shares = shares.mean(1) if averaged else shares
    if batched:
        return out, shares
    return out.squeeze(1), None if shares is None else shares.squeeze(0)


def _merged(attn_mask: Any, key_padding_mask: Any, heads: int, batch: int, source: Any) -> Any:
    """Both masks as one that is added to scores [N * heads, L, S]."""
    if key_padding_mask is None:
        return attn_mask
    for k, wanted in enumerate((batch, source)):
        found = key_padding_mask.shape[k]
        _require(found == wanted, f"Expected key_padded_mask.shape[{k}] to be {wanted}, but got {found}")
    by_head = key_padding_mask.reshape(batch, 1, 1, source).expand(batch, heads, 1, source).reshape(batch * heads, 1, source)
    return by_head if attn_mask is None else attn_mask + by_head


def _attended(q: Any, k: Any, v: Any, mask: Any, dropout_p: float, need_weights: bool) -> tuple[Any, Any]:
    """([N * heads, L, width], the weights where they are wanted)."""
    if not need_weights:
        return scaled_dot_product_attention(q, k, v, mask, dropout_p), None
    scores = _op("matmul")(q * math.sqrt(1.0 / q.shape[-1]), _op("transpose")(k, -2, -1))
    shares = _op("softmax")(scores if mask is None else scores + mask, dim=-1)
    shares = dropout(shares, dropout_p) if dropout_p > 0.0 else shares
    return _op("matmul")(shares, v), shares
