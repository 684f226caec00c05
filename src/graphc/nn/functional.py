"""Operators under the names of PyTorch's ``nn.functional``.

Enters: operators' names.  Leaves: their public functions.  Never here: what an operator computes.
"""

from __future__ import annotations

from typing import Any

from graphc.eager.dispatch import assign, located
from graphc.eager.generator import default_generator, draw
from graphc.eager.methods import ERRORS, functions
from graphc.errors import at_user_line

_operators = functions("nn.functional")


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
    attention = _operators["scaled_dot_product_attention"]
    how = {"attn_mask": attn_mask, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    if dropout_p == 0.0:
        return attention(query, key, value, **how)
    result, state = attention(query, key, value, dropout_p=dropout_p, state=default_generator.state, **how)
    default_generator.set_state(state)
    return result


globals().update({name: function for name, function in _operators.items() if name not in globals()})


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'graphc.nn.functional' has no attribute {name!r}")
