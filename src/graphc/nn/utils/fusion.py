"""Batch norms folded into the layer before them, for inference.

Enters: layers in eval mode.  Leaves: copies of the layer that compute both.  Never here: searching models for such pairs.
"""

from __future__ import annotations

import copy
from typing import Any

from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.nn.parameter import Parameter


def _check_eval(*modules: Any) -> None:
    if any(module.training for module in modules):
        raise AssertionError(at_user_line("Fusion only for eval!"))


def _fused(weight: Any, bias: Any, bn: tuple[Any, ...], channel: int) -> tuple[Parameter, Parameter]:
    """bn: mean, variance, eps, weight, bias.   channel: the dim of the weight's outputs."""
    mean, variance, eps, bn_weight, bn_bias = bn
    like = Op.table["zeros_like"]
    bias = like(mean) if bias is None else bias
    scale = Op.table["rsqrt"](variance + eps)
    scale = scale if bn_weight is None else bn_weight * scale
    shape = [1] * weight.ndim
    shape[channel] = -1
    made = (weight * scale.reshape(shape)).to(weight.dtype)
    shifted = (bias - mean) * scale
    shifted = shifted if bn_bias is None else shifted + bn_bias
    return (
        Parameter(made.detach(), weight.requires_grad),
        Parameter(shifted.to(bias.dtype).detach(), bias.requires_grad),
    )


def fuse_conv_bn_weights(
    conv_w: Any, conv_b: Any, bn_rm: Any, bn_rv: Any, bn_eps: float, bn_w: Any, bn_b: Any, transpose: bool = False
) -> tuple[Parameter, Parameter]:
    """(weight, bias) of a convolution that also does the batch norm after it.   transpose: of a transposed convolution."""
    return _fused(conv_w, conv_b, (bn_rm, bn_rv, bn_eps, bn_w, bn_b), 1 if transpose else 0)


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A copy of a convolution that also does the batch norm after it.  Raises AssertionError for modules in training mode."""
    _check_eval(conv, bn)
    fused = copy.deepcopy(conv)
    assert bn.running_mean is not None and bn.running_var is not None, "a batch norm without running statistics"
    fused.weight, fused.bias = fuse_conv_bn_weights(
        fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, transpose
    )
    return fused


def fuse_linear_bn_weights(
    linear_w: Any, linear_b: Any, bn_rm: Any, bn_rv: Any, bn_eps: float, bn_w: Any, bn_b: Any
) -> tuple[Parameter, Parameter]:
    """(weight, bias) of a linear layer that also does the batch norm after it."""
    return _fused(linear_w, linear_b, (bn_rm, bn_rv, bn_eps, bn_w, bn_b), 0)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """A copy of a linear layer that also does the batch norm after it.

    Raises AssertionError for modules in training mode, and where the features are neither as many nor one.
    """
    _check_eval(linear, bn)
    if linear.out_features != bn.num_features and bn.num_features != 1:
        text = "To fuse, linear.out_features == bn.num_features or bn.num_features == 1"
        raise AssertionError(at_user_line(text))
    fused = copy.deepcopy(linear)
    assert bn.running_mean is not None and bn.running_var is not None, "a batch norm without running statistics"
    fused.weight, fused.bias = fuse_linear_bn_weights(
        fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )
    return fused


__all__ = ["fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights"]
