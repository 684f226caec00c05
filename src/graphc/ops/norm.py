"""Normalisation over the last dims: layer_norm and rms_norm.

Enters: floating tensors of one dtype; weights may be float32 beside a 16-bit float.
Leaves: operators.  Never here: running statistics.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ir.op import Bad, Composite, Op, Shape, TensorType, shape_text
from graphc.ops.arguments import (
    constant,
    gradient_in_compute_dtype,
    in_compute_dtype,
    number,
    of_type,
    require_floating,
    rounded,
    shape_of,
    tensor,
)
from graphc.ops.arithmetic import add, mul, sub
from graphc.ops.declare import FLOATING, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.movement import summed_to
from graphc.ops.reduce import mean_of
from graphc.ops.statistics import centred
from graphc.ops.transcendental import rsqrt


def _last(rank: int, normalized_shape: Shape) -> tuple[int, ...]:
    return tuple(range(rank - len(normalized_shape), rank))


def _normalized(name: str, x: Any, normalized_shape: Any) -> Shape:
    shape = shape_of(name, normalized_shape, "normalized_shape")
    if not shape or tuple(x.shape[max(x.ndim - len(shape), 0) :]) != shape:
        raise RuntimeError(f"{name}: normalized_shape {shape_text(shape)} must be the last dims of x: {of_type(x)}")
    return shape


def _infer(name: str) -> Any:
    def infer(x: TensorType, *parameters: TensorType, normalized_shape: Shape, eps: float) -> TensorType:
        for p in parameters:
            if p.dtype not in (x.dtype, x.dtype.compute) or p.shape != normalized_shape:  # float32 beside 16 bits: autocast
                shown = ", ".join(map(str, (x, *parameters)))
                raise RuntimeError(f"{name}: weight and bias must be {x.dtype.short}{shape_text(normalized_shape)}: {shown}")
        return x

    return infer


# ---- layer_norm ----------------------------------------------------------------------------------------------------


def _layer_norm_prepare(x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-05) -> Prepared:
    x = require_floating("layer_norm", "x", x)
    shape = _normalized("layer_norm", x, normalized_shape)
    if weight is None and bias is not None:
        weight = constant(1, x.dtype, shape)
    given = [(p, a) for p, a in ((weight, "weight"), (bias, "bias")) if p is not None]
    parameters = tuple(tensor("layer_norm", a, p) for p, a in given)
    return (x, *parameters), {"normalized_shape": shape, "eps": float(number("layer_norm", "eps", eps))}


def _standardised(x: Any, dims: tuple[int, ...], eps: float) -> tuple[Any, Any]:
    """((x - mean) / deviation, 1 / deviation)."""
    rest = centred(x, dims)
    scale = rsqrt(add(mean_of(mul(rest, rest), dims, True), eps))
    return mul(rest, scale), scale


def _layer_norm(x: Any, *parameters: Any, normalized_shape: Shape, eps: float) -> Any:
    out, _ = _standardised(x, _last(x.ndim, normalized_shape), eps)
    if parameters:
        out = mul(out, parameters[0])
    return add(out, parameters[1]) if len(parameters) > 1 else out


def _layer_norm_grad(g: Any, out: Any, x: Any, *parameters: Any, normalized_shape: Shape, eps: float) -> tuple[Any, ...]:
    dims = _last(x.ndim, normalized_shape)
    y, scale = _standardised(x, dims, eps)
    weighted = mul(g, parameters[0]) if parameters else g
    centre = sub(weighted, mean_of(weighted, dims, True))
    gx = mul(sub(centre, mul(y, mean_of(mul(weighted, y), dims, True))), scale)
    gradients = (gx, summed_to(mul(g, y), normalized_shape), summed_to(g, normalized_shape))
    return gradients[: 1 + len(parameters)]


def _layer_norm_reference(xp: Any, x: Any, *parameters: Any, normalized_shape: Shape, eps: float) -> Any:
    dims = _last(x.ndim, normalized_shape)
    rest = x - xp.mean(x, axis=dims, keepdims=True)
    out = rest / xp.sqrt(xp.mean(rest * rest, axis=dims, keepdims=True) + x.dtype.type(eps))
    out = out * parameters[0] if parameters else out
    return out + parameters[1] if len(parameters) > 1 else out


_SHAPES_BAD = (
    Bad((fill(3, 4), (3,)), RuntimeError, r"normalized_shape \[3\] must be the last dims of x"),
    Bad((fill(3, 4), (4,), fill(3)), RuntimeError, "weight and bias must be"),
    Bad((fill(3, 4), 4.0), TypeError, "argument 'normalized_shape' must be ints"),
)

layer_norm = Op(
    "layer_norm",
    doc="(x - mean) / sqrt(variance + eps) over the last dims, times weight plus bias (Ba, Kiros and Hinton 2016).  "
    "[..., n] -> [..., n].",
    signature="(x, normalized_shape, weight=None, bias=None, eps=1e-05)",
    prepare=_layer_norm_prepare,
    infer=_infer("layer_norm"),
    reference=rounded(_layer_norm_reference),
    grad=gradient_in_compute_dtype(_layer_norm_grad),
    lowering=Composite(in_compute_dtype(_layer_norm)),
    attrs=("normalized_shape", "eps"),
    dtypes=FLOATING,
    samples=(
        call(fill(3, 4), 4),
        call(fill(3, 4), (4,), fill(4), fill(4)),
        call(fill(2, 3, 5), (3, 5), fill(3, 5), fill(3, 5)),
        call(fill(2, 33), (33,), fill(33)),
        call(fill(2, 33), (33,), None, fill(33), 0.1),
        call(fill(0, 4), (4,), fill(4), fill(4)),
        call(fill(5), 5),
    ),
    bad=_SHAPES_BAD,
    methods=(),
    functions=("layer_norm", "nn.functional.layer_norm"),
)


# ---- rms_norm ------------------------------------------------------------------------------------------------------


def _rms_norm_prepare(x: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Prepared:
    x = tensor("rms_norm", "x", x)
    x = x if x.dtype.kind == "c" else require_floating("rms_norm", "x", x)
    shape = _normalized("rms_norm", x, normalized_shape)
    inputs = (x,) if weight is None else (x, tensor("rms_norm", "weight", weight))
    eps = float(np.finfo(x.dtype.real.compute.numpy).eps) if eps is None else float(number("rms_norm", "eps", eps))
    return inputs, {"normalized_shape": shape, "eps": eps}


def _inverse_rms(x: Any, dims: tuple[int, ...], eps: float) -> Any:
    return rsqrt(add(mean_of(mul(x, x), dims, True), eps))


def _rms_norm(x: Any, weight: Any = None, *, normalized_shape: Shape, eps: float) -> Any:
    out = mul(x, _inverse_rms(x, _last(x.ndim, normalized_shape), eps))
    return out if weight is None else mul(out, weight)


def _rms_norm_grad(g: Any, out: Any, x: Any, weight: Any = None, *, normalized_shape: Shape, eps: float) -> tuple[Any, ...]:
    dims = _last(x.ndim, normalized_shape)
    scale = _inverse_rms(x, dims, eps)
    y = mul(x, scale)
    weighted = g if weight is None else mul(g, weight)
    gx = mul(sub(weighted, mul(y, mean_of(mul(weighted, y), dims, True))), scale)
    return (gx,) if weight is None else (gx, summed_to(mul(g, y), normalized_shape))


def _rms_norm_reference(xp: Any, x: Any, weight: Any = 1, *, normalized_shape: Shape, eps: float) -> Any:
    dims = _last(x.ndim, normalized_shape)
    return x / xp.sqrt(xp.mean(x * x, axis=dims, keepdims=True) + x.dtype.type(eps)) * weight


rms_norm = Op(
    "rms_norm",
    doc="x / sqrt(mean of squares + eps) over the last dims, times weight (Zhang and Sennrich 2019).  [..., n] -> [..., n].",
    signature="(x, normalized_shape, weight=None, eps=None)",
    prepare=_rms_norm_prepare,
    infer=_infer("rms_norm"),
    reference=rounded(_rms_norm_reference),
    grad=gradient_in_compute_dtype(_rms_norm_grad),
    lowering=Composite(in_compute_dtype(_rms_norm)),
    attrs=("normalized_shape", "eps"),
    dtypes=FLOATING,
    samples=(
        call(fill(3, 4), 4),
        call(fill(3, 4), (4,), fill(4)),
        call(fill(2, 3, 5), (3, 5), fill(3, 5), 0.1),
        call(fill(2, 33), (33,), fill(33)),
        call(fill(0, 4), (4,), fill(4)),
    ),
    bad=_SHAPES_BAD,
    methods=(),
    functions=("rms_norm", "nn.functional.rms_norm"),
)
