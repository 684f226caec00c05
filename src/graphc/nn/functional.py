"""Operators under the names of PyTorch's ``nn.functional``.

Enters: operators' names.  Leaves: their public functions.  Never here: what an operator computes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dtypes import bool_
from graphc.eager.methods import functions
from graphc.eager.modes import modes, no_grad
from graphc.eager.replay import offer, replayable
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.nn.fractional import (  # noqa: F401  functions that draw random numbers
    fractional_max_pool2d,
    fractional_max_pool2d_with_indices,
    fractional_max_pool3d,
    fractional_max_pool3d_with_indices,
)
from graphc.nn.heads import multi_head_attention_forward  # noqa: F401
from graphc.nn.linear_cross_entropy import linear_cross_entropy  # noqa: F401
from graphc.nn.noise import (  # noqa: F401  functions that draw random numbers
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
    gumbel_softmax,
    rrelu,
    scaled_dot_product_attention,
)
from graphc.nn.running_norms import batch_norm, instance_norm  # noqa: F401  functions that write running statistics
from graphc.ops.arguments import constant

_operators = functions("nn.functional")


# ---- tables --------------------------------------------------------------------------------------------------------


def _shortened(weight: Any, used: Any, max_norm: float, norm_type: float) -> None:
    """Scale down, in place, the rows of weight that `used` names and whose norm is above max_norm."""
    with no_grad():
        none = constant(False, bool_, (weight.shape[0],))
        named = Op.table["index_fill"](none, 0, used.reshape(-1), True)
        weight.copy_(Op.table["where"](named.unsqueeze(1), Op.table["renorm"](weight, norm_type, 0, max_norm), weight))


def embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """Rows of weight; the row padding_idx gets no gradient.  With max_norm the rows used are first scaled down in weight itself.

    integers [...], [n, d] -> [..., d].  `sparse` is taken and ignored: gradients are dense.
    """
    if max_norm is not None:
        _shortened(weight, input, max_norm, norm_type)
    return _operators["embedding"](input, weight, padding_idx, scale_grad_by_freq, sparse)


def embedding_bag(
    input: Any,
    weight: Any,
    offsets: Any = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """The sum, mean or max of the rows of weight that each bag of indices names.  max_norm and sparse as `embedding`.

    ints [B, N] or [L] with offsets [B], [n, d] -> [B, d].
    Raises RuntimeError for offsets that do not begin at 0, fall, or pass the last index; compiled code does not look at them.
    """
    if max_norm is not None:
        _shortened(weight, input, max_norm, norm_type)
    if isinstance(offsets, Tensor) and modes.tracer is None and offsets.ndim == 1 and offsets.dtype.kind in "iu":
        _check_offsets(offsets.numpy(), len(input))
    return _operators["embedding_bag"](
        input, weight, offsets, scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset, padding_idx
    )


def _check_offsets(offsets: np.ndarray[Any, Any], count: int) -> None:
    if offsets.size and offsets[0] != 0:
        raise RuntimeError(at_user_line(f"embedding_bag: offsets[0] has to be 0, got {offsets[0]}"))
    if (offsets[1:] < offsets[:-1]).any() or (offsets > count).any():
        text = f"embedding_bag: offsets have to rise to at most the number of indices, {count}, got {offsets.tolist()}"
        raise RuntimeError(at_user_line(text))


def one_hot(tensor: Any, num_classes: int = -1) -> Any:
    """1 at the class, 0 elsewhere.  integers [...] -> int64 [..., num_classes]; by default one more than the largest class.

    That default reads the elements, so code with it runs eagerly.
    """
    if num_classes == -1 and tensor.numel():
        num_classes = int(tensor.max()) + 1
    return _operators["one_hot"](tensor, num_classes)


# ---- other names and layouts ---------------------------------------------------------------------------------------

native_channel_shuffle = _operators["channel_shuffle"]


def conv_tbc(input: Any, weight: Any, bias: Any, pad: int = 0) -> Any:
    """conv1d of times first and channels last.  [T, N, C], weight [k, C, O], bias [O] -> [T', N, O]."""
    convolved = _operators["conv1d"](input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, 1, pad)
    return convolved.permute(2, 0, 1)


# ---- in place ------------------------------------------------------------------------------------------------------

# How many arguments of their own activations have before PyTorch's positional `inplace`.
_BEFORE_INPLACE = {
    "relu": 0, "relu6": 0, "selu": 0, "hardswish": 0, "hardsigmoid": 0, "mish": 0, "silu": 0, "elu": 1, "celu": 1, "leaky_relu": 1,
    "hardtanh": 2, "threshold": 2,
}  # fmt: skip


def _with_inplace(name: str, count: int) -> Any:
    function = _operators[name]

    def activation(input: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) == count + 1:
            kwargs["inplace"], args = args[count], args[:count]
        return function(input, *args, **kwargs)

    activation.__name__ = activation.__qualname__ = name
    activation.__doc__ = function.__doc__
    return replayable(activation)


def _always_inplace(name: str) -> Any:
    def activation(input: Any, *args: Any, **kwargs: Any) -> Any:
        return globals()[name](input, *args, **kwargs, inplace=True)

    activation.__name__ = activation.__qualname__ = f"{name}_"
    activation.__doc__ = f"`{name}` that overwrites its input."
    return activation


globals().update({name: _with_inplace(name, count) for name, count in _BEFORE_INPLACE.items()})
globals().update(
    {f"{name}_": _always_inplace(name) for name in ("relu", "elu", "selu", "celu", "leaky_relu", "hardtanh", "threshold", "rrelu")}
)
globals().update({name: function for name, function in _operators.items() if name not in globals()})
offer(globals(), "embedding", "embedding_bag", "scaled_dot_product_attention")


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'graphc.nn.functional' has no attribute {name!r}")
