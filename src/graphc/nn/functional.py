"""Operators under the names of PyTorch's ``nn.functional``.

Enters: operators' names.  Leaves: their public functions.  Never here: what an operator computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.eager.dispatch import assign, located
from graphc.eager.generator import default_generator, draw
from graphc.eager.methods import ERRORS, public_function
from graphc.errors import at_user_line
from graphc.ir.op import Op


def _operator(name: str) -> Callable[..., Any]:
    return public_function(Op.table[name])


def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """While training, zeros with probability p and the rest divided by 1 - p; drawn from the default generator.  [...] -> [...].

    Raises ValueError for a p outside [0, 1].
    """
    if not 0 <= p <= 1:
        raise ValueError(at_user_line(f"dropout probability has to be between 0 and 1, but got {p}"))
    if not training or p == 0:
        return input
    try:
        dropped = draw(None, "dropout", input, p)
        return assign(input, dropped, "dropout") if inplace else dropped
    except ERRORS as error:
        raise located(error) from None


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """``softmax(query @ key.T * scale + mask) @ value``; what is dropped is drawn from the default generator.

    [..., n, e], [..., m, e], [..., m, v] (, mask [..., n, m]) -> [..., n, v].
    """
    attention = _operator("scaled_dot_product_attention")
    how = {"attn_mask": attn_mask, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    if dropout_p == 0.0:
        return attention(query, key, value, **how)
    result, state = attention(query, key, value, dropout_p=dropout_p, state=default_generator.state, **how)
    default_generator.set_state(state)
    return result


linear = _operator("linear")
embedding = _operator("embedding")
one_hot = _operator("one_hot")

relu = _operator("relu")
gelu = _operator("gelu")
silu = _operator("silu")
tanh = _operator("tanh")
sigmoid = _operator("sigmoid")
softmax = _operator("softmax")
log_softmax = _operator("log_softmax")

layer_norm = _operator("layer_norm")
rms_norm = _operator("rms_norm")
pad = _operator("pad")

cross_entropy = _operator("cross_entropy")
nll_loss = _operator("nll_loss")
mse_loss = _operator("mse_loss")
l1_loss = _operator("l1_loss")
binary_cross_entropy_with_logits = _operator("binary_cross_entropy_with_logits")
