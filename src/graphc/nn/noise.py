"""Functions of ``nn.functional`` that draw random numbers: kinds of dropout, rrelu, gumbel_softmax, attention.

Enters: tensors.  Leaves: tensors; numbers come from the default generator.  Never here: modules.
"""

from __future__ import annotations

import warnings
from typing import Any

from graphc.eager.dispatch import assign
from graphc.eager.failures import ERRORS, located
from graphc.eager.generator import default_generator, draw
from graphc.eager.sampling import exponential_like
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.ops.arguments import constant

SELU_FLOOR = -1.7580993408473766  # what selu tends to at -inf


def _op(name: str) -> Any:
    return Op.table[name]


def _probability(p: float) -> None:
    """Raises ValueError for a p outside [0, 1]."""
    if not 0 <= p <= 1:
        raise ValueError(at_user_line(f"dropout probability has to be between 0 and 1, but got {p}"))


def _into(input: Tensor, result: Tensor, inplace: bool, name: str) -> Tensor:
    return assign(input, result, name) if inplace else result


def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """While training, zeros with probability p and the rest divided by 1 - p; drawn from the default generator.  [...] -> [...].

    Raises ValueError for a p outside [0, 1].
    """
    _probability(p)
    if not training or p == 0:
        return input
    try:
        return _into(input, draw(None, "dropout", input, p), inplace, "dropout")
    except ERRORS as error:
        located(error)
        raise


def _kept(shape: tuple[Any, ...], p: float, dtype: Any) -> Tensor:
    """1 with probability 1 - p, else 0."""
    return draw(None, "bernoulli", constant(1 - p, dtype, shape))


def _channels(input: Tensor) -> tuple[Any, ...]:
    """The shape of one number a sample and channel."""
    return (*input.shape[:2], *(1 for _ in input.shape[2:]))


def _feature_dropout(name: str, input: Tensor, p: float, training: bool, inplace: bool, unbatched: int | None) -> Tensor:
    """Whole channels dropped; an input of `unbatched` dims has no batch dim."""
    _probability(p)
    if not training or p == 0:
        return input
    try:
        alone = input.ndim == unbatched
        shape = (input.shape[0], *(1 for _ in input.shape[1:])) if alone else _channels(input)
        mask = _op("mul")(_kept(shape, p, input.dtype), 1 / (1 - p) if p < 1 else 0.0)
        return _into(input, _op("mul")(input, mask), inplace, name)
    except ERRORS as error:
        located(error)
        raise


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels dropped.  [N, C, L] or [C, L].  Raises RuntimeError for another rank."""
    if input.ndim not in (2, 3):
        raise RuntimeError(at_user_line(f"dropout1d: Expected 2D or 3D input, but received a {input.ndim}D input."))
    return _feature_dropout("dropout1d", input, p, training, inplace, 2)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels dropped.  [N, C, H, W]; the first two of three dims count as [N, C], as in PyTorch."""
    if input.ndim not in (3, 4):
        warnings.warn(f"dropout2d: Received a {input.ndim}-D input, where 4-D is expected", stacklevel=2)
    return _feature_dropout("dropout2d", input, p, training, inplace, None)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels dropped.  [N, C, D, H, W] or [C, D, H, W]."""
    if input.ndim not in (4, 5):
        warnings.warn(f"dropout3d: Received a {input.ndim}-D input, where 5-D is expected", stacklevel=2)
    return _feature_dropout("dropout3d", input, p, training, inplace, 4)


def feature_dropout(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Whole channels dropped.  [N, C, ...] -> [N, C, ...]."""
    return _feature_dropout("feature_dropout", input, p, training, False, None)


def _alpha_dropped(name: str, input: Tensor, p: float, training: bool, inplace: bool, shape: tuple[Any, ...]) -> Tensor:
    """What is dropped becomes selu's floor, and all is scaled and moved so that mean and variance stay."""
    _probability(p)
    if not training or p == 0:
        return input
    try:
        if p == 1:
            return _into(input, _op("mul")(input, 0), inplace, name)
        keep = _kept(shape, p, input.dtype)
        scale = ((SELU_FLOOR**2 * p + 1) * (1 - p)) ** -0.5
        moved = _op("add")(_op("mul")(_op("sub")(keep, 1), SELU_FLOOR * scale * -1), -SELU_FLOOR * scale * p)
        return _into(input, _op("add")(_op("mul")(input, _op("mul")(keep, scale)), moved), inplace, name)
    except ERRORS as error:
        located(error)
        raise


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout that keeps mean 0 and variance 1 (Klambauer and others 2017).  [...] -> [...]."""
    return _alpha_dropped("alpha_dropout", input, p, training, inplace, tuple(input.shape))


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """alpha_dropout of whole channels.  [N, C, ...] -> [N, C, ...]."""
    return _alpha_dropped("feature_alpha_dropout", input, p, training, inplace, _channels(input))


def rrelu(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False) -> Tensor:
    """x where positive, else a slope times x: uniform in [lower, upper) while training, else their mean.  [...] -> [...]."""
    if lower > upper:
        raise RuntimeError(at_user_line(f"rrelu: lower bound {lower} must not be greater than upper {upper}"))
    try:
        if not training:
            return _into(input, _op("leaky_relu")(input, (lower + upper) / 2), inplace, "rrelu")
        u = draw(None, "rand", tuple(input.shape), input.dtype)
        slope = _op("add")(_op("mul")(u, upper - lower), lower)
        return _into(input, _op("where")(_op("le")(input, 0), _op("mul")(input, slope), input), inplace, "rrelu")
    except ERRORS as error:
        located(error)
        raise


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """softmax((logits + Gumbel noise) / tau); `hard`: one-hot forward, the soft gradient backward (Jang and others 2016)."""
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=2)
    try:
        noise = _op("neg")(_op("log")(exponential_like(tuple(logits.shape), logits.dtype, None)))
        soft: Tensor = _op("softmax")(_op("div")(_op("add")(logits, noise), tau), dim)
        if not hard:
            return soft
        chosen = _op("argmax")(soft, dim, True)
        zeros, ones = constant(0, soft.dtype, tuple(soft.shape)), constant(1, soft.dtype, tuple(chosen.shape))
        exact = _op("scatter")(zeros, dim, chosen, ones)
        return _op("add")(_op("sub")(exact, soft.detach()), soft)  # type: ignore[no-any-return,attr-defined]
    except ERRORS as error:
        located(error)
        raise


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
    attention = _op("scaled_dot_product_attention")
    how = {"attn_mask": attn_mask, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    try:
        if dropout_p == 0.0:
            return attention(query, key, value, **how)
        result, state = attention(query, key, value, dropout_p=dropout_p, state=default_generator.state, **how)
        default_generator.set_state(state)
        return result
    except ERRORS as error:
        located(error)
        raise
