"""Losses of differences and of binary targets.

Enters: predictions and targets.  Leaves: operators.  Never here: classes (`classification`).

`reduction` is 'none', 'mean' or 'sum' everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dims import product
from graphc.ir.op import THROUGH, Bad, Composite, Op, TensorType, broadcast_shapes
from graphc.ops.arguments import (
    cast,
    constant,
    gradient_in_compute_dtype,
    in_compute_dtype,
    number,
    of_type,
    promoted,
    require_floating,
    rounded,
    tensor,
)
from graphc.ops.arithmetic import absolute, add, div, maximum, mul, neg, square, sub
from graphc.ops.comparison import le, lt, where
from graphc.ops.declare import FLOATING, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.movement import expand
from graphc.ops.reduce import fold, mean_of, reduce_sum
from graphc.ops.transcendental import exp, log1p, sigmoid, sigmoid_array


def reduced(x: Any, reduction: str) -> Any:
    """Losses of the elements, reduced."""
    if reduction == "none":
        return x
    dims = tuple(range(x.ndim))
    return mean_of(x, dims, False) if reduction == "mean" else fold(reduce_sum, x, dims, False)


def reduced_array(xp: Any, x: Any, reduction: str) -> Any:
    """The reference of `reduced`: all elements, their mean or their sum."""
    return x if reduction == "none" else getattr(xp, reduction)(x)


def check_reduction(name: str, reduction: Any, size_average: Any = None, reduce: Any = None) -> str:
    """A loss's `reduction`, or what PyTorch's two older arguments say.  Raises ValueError for what is none of the three."""
    if size_average is not None or reduce is not None:
        if reduce is False:
            return "none"
        return "sum" if size_average is False else "mean"
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{name}: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
    return str(reduction)


BAD_REDUCTION: dict[str, Any] = {"reduction": "median"}


# ---- regression ----------------------------------------------------------------------------------------------------


def _weighted(x: Any, weight: Any, reduction: str, by_weight: bool) -> Any:
    """Losses of the elements times their weights, reduced; a mean by the sum of weights where `by_weight`."""
    x = mul(x, weight)
    if reduction == "mean" and by_weight:
        return div(reduced(x, "sum"), reduced(weight, "sum"))
    return reduced(x, reduction)


_REGRESSION_SAMPLES = (
    call(fill(3, 4), fill(3, 4)),
    call(fill(3, 4), fill(3, 4), reduction="sum"),
    call(fill(33), fill(33), reduction="none"),
    call(fill(), fill()),
    call(fill(3, 4), fill(4)),
)


def _regression_prepare(name: str, defaults: dict[str, Any], extra: tuple[str, ...], positive: bool) -> Callable[..., Prepared]:
    """Public arguments -> (x, target[, weight]) of one dtype and attributes; `defaults` are in PyTorch's order."""

    def prepare(x: Any, target: Any, *args: Any, **given: Any) -> Prepared:
        x, target = promoted(name, (tensor(name, "x", x), tensor(name, "target", target)), ("x", "target"))
        require_inexact(name, x)
        if x.dtype.kind == "c" and name != "l1_loss":  # the one that is a distance
            raise NotImplementedError(f"{name}: not defined for complex tensors: {of_type(x)}, {of_type(target)}")
        chosen = {**dict(zip(defaults, args, strict=False)), **given}
        unknown = set(chosen) - set(defaults)
        if unknown or len(args) > len(defaults):
            raise TypeError(f"{name}: unexpected argument {sorted(unknown)}")
        chosen = {**defaults, **chosen}
        attrs = {k: float(number(name, k, chosen[k])) for k in extra}
        if any(v < 0 or (v == 0 and positive) for v in attrs.values()):
            raise RuntimeError(f"{name}: {extra[0]} must be {'positive' if positive else 'not negative'}")
        reduction = check_reduction(name, chosen["reduction"], chosen.get("size_average"), chosen.get("reduce"))
        inputs: tuple[Any, ...] = (x, target)
        if chosen.get("weight") is not None:
            weight = tensor(name, "weight", chosen["weight"])
            if tuple(weight.shape) != tuple(x.shape):
                raise ValueError(f"{name}: Weights and input must have the same size: {of_type(weight)} and {of_type(x)}")
            inputs = (x, target, cast(weight, x.dtype))
        return inputs, {"reduction": reduction, **attrs}

    return prepare


def _regression(
    name: str,
    doc: str,
    rule: Callable[..., Any],
    reference: Callable[..., Any],
    parameter: tuple[str, float] | None = None,
    *,
    order: tuple[str, ...] = ("size_average", "reduce", "reduction"),
    weights: bool = True,
    positive: bool = False,
) -> Op:
    """A loss of differences: rule(x, target) gives each element's.

    `order`: the arguments after the target; `weights`: whether the last one is a weight for each element.
    `positive`: whether the parameter must be above 0.
    """
    extra = {} if parameter is None else dict([parameter])
    defaults: dict[str, Any] = dict.fromkeys(order) | {"reduction": "mean"} | extra | ({"weight": None} if weights else {})

    def infer(x: TensorType, target: TensorType, *weight: TensorType, reduction: str, **_: Any) -> TensorType:
        shape = broadcast_shapes(name, (x.shape, target.shape))
        return TensorType(x.dtype.real, shape if reduction == "none" else ())

    def compute(x: Any, target: Any, weight: Any = None, *, reduction: str, **how: Any) -> Any:
        losses = rule(x, target, **how)
        return reduced(losses, reduction) if weight is None else _weighted(losses, weight, reduction, parameter is None)

    def array(xp: Any, x: Any, target: Any, weight: Any = None, *, reduction: str, **how: Any) -> Any:
        losses = reference(xp, x, target, **how)
        if weight is None:
            return reduced_array(xp, losses, reduction)
        if reduction == "mean" and parameter is None:
            return (losses * weight).sum() / weight.sum()
        return reduced_array(xp, losses * weight, reduction)

    return Op(
        name,
        doc=f"{doc}  [...] , [...] -> [] or broadcast.",
        signature="(x, target{})".format("".join(f", {k}={v!r}" for k, v in defaults.items())),
        prepare=_regression_prepare(name, defaults, tuple(extra), positive),
        infer=infer,
        reference=rounded(array),
        grad=THROUGH,
        lowering=Composite(in_compute_dtype(compute)),
        attrs=("reduction", *extra),
        dtypes=FLOATING,
        samples=(
            *_REGRESSION_SAMPLES,
            *((call(fill(3, 4), fill(3, 4), weight=fill(3, 4, low=0.5)),) if weights else ()),
            *(call(fill(9), fill(9), **{k: 0.5}) for k in extra),
        ),
        bad=(
            Bad((fill(3), fill(4)), RuntimeError, f"{name}: shapes .* do not broadcast"),
            Bad((fill(3), fill(3)), ValueError, f"{name}: reduction must be", BAD_REDUCTION),
            Bad((fill(3), 1.0), TypeError, f"{name}: argument 'target' must be a Tensor"),
        ),
        methods=(),
        functions=(f"nn.functional.{name}",),
        autocast="float32",
    )


def require_inexact(name: str, x: Any) -> None:
    """Raise RuntimeError for integers."""
    if x.dtype.kind not in "fc":
        raise RuntimeError(f"{name}: expected floating tensors, got {of_type(x)}")


mse_loss = _regression(
    "mse_loss",
    "Mean squared error.",
    lambda x, target: square(sub(x, target)),
    lambda xp, x, target: xp.square(x - target),
)
l1_loss = _regression(
    "l1_loss",
    "Mean absolute error.",
    lambda x, target: absolute(sub(x, target)),
    lambda xp, x, target: xp.abs(x - target),
)


def _smooth_l1(x: Any, target: Any, beta: float) -> Any:
    distance = absolute(sub(x, target))
    if beta == 0:
        return distance
    return where(lt(distance, beta), mul(square(distance), 0.5 / beta), sub(distance, 0.5 * beta))


def _smooth_l1_reference(xp: Any, x: Any, target: Any, beta: float) -> Any:
    distance = xp.abs(x - target)
    near = distance * distance * x.dtype.type(0.5 / beta) if beta else distance
    return xp.where(distance < beta, near, distance - x.dtype.type(0.5 * beta))


smooth_l1_loss = _regression(
    "smooth_l1_loss",
    "Squared below beta, absolute above (Girshick 2015).",
    _smooth_l1,
    _smooth_l1_reference,
    ("beta", 1.0),
    weights=False,
)


def _huber(x: Any, target: Any, delta: float) -> Any:
    distance = absolute(sub(x, target))
    return where(le(distance, delta), mul(square(distance), 0.5), mul(sub(distance, 0.5 * delta), delta))


def _huber_reference(xp: Any, x: Any, target: Any, delta: float) -> Any:
    distance, one = xp.abs(x - target), x.dtype.type
    return xp.where(distance <= delta, distance * distance * one(0.5), (distance - one(0.5 * delta)) * one(delta))


huber_loss = _regression(
    "huber_loss",
    "Half the square up to delta, delta times (the distance less half of delta) above (Huber 1964).",
    _huber,
    _huber_reference,
    ("delta", 1.0),
    order=("reduction",),
    positive=True,
)


# ---- binary cross entropy ------------------------------------------------------------------------------------------


def _bce_prepare(
    x: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Prepared:
    name = "binary_cross_entropy_with_logits"
    x = require_floating(name, "x", x)
    operands = [x, tensor(name, "target", target)]
    if tuple(operands[1].shape) != tuple(x.shape):
        raise ValueError(f"{name}: target must be of the shape of x: {of_type(x)} and {of_type(target)}")
    for extra, argument in ((weight, "weight"), (pos_weight, "pos_weight")):
        if extra is not None:
            operands.append(tensor(name, argument, extra))
    attrs = {"weighted": weight is not None, "reduction": check_reduction(name, reduction, size_average, reduce)}
    return tuple(cast(y, x.dtype) for y in operands), attrs


def _bce_parts(rest: tuple[Any, ...], weighted: bool) -> tuple[Any, Any]:
    """(weight, pos_weight), None where not given."""
    return rest[0] if weighted else None, rest[-1] if len(rest) > weighted else None


def _softplus_of_minus(x: Any) -> Any:
    """log(1 + exp(-x)) without overflow."""
    return add(log1p(exp(neg(absolute(x)))), maximum(neg(x), 0))


def _bce(x: Any, target: Any, *rest: Any, weighted: bool, reduction: str) -> Any:
    weight, pos_weight = _bce_parts(rest, weighted)
    tail = _softplus_of_minus(x)
    if pos_weight is not None:
        tail = mul(tail, add(mul(sub(pos_weight, 1), target), 1))
    loss = add(mul(sub(1, target), x), tail)
    return reduced(loss if weight is None else mul(loss, weight), reduction)


def _bce_grad(g: Any, out: Any, x: Any, target: Any, *rest: Any, weighted: bool, reduction: str) -> tuple[Any, ...]:
    weight, pos_weight = _bce_parts(rest, weighted)
    if reduction == "mean":
        g = div(g, constant(product(x.shape), g.dtype))
    g = g if reduction == "none" else expand.run(g, shape=tuple(x.shape))
    g = g if weight is None else mul(g, weight)
    if pos_weight is None:
        return (mul(g, sub(sigmoid(x), target)), mul(g, neg(x)), *(None for _ in rest))
    positive = mul(pos_weight, target)
    gx = mul(g, sub(mul(sub(add(positive, 1), target), sigmoid(x)), positive))
    gt = mul(g, sub(mul(sub(pos_weight, 1), _softplus_of_minus(x)), x))
    return (gx, gt, *(None for _ in rest))


def _bce_reference(xp: Any, x: Any, target: Any, *rest: Any, weighted: bool, reduction: str) -> Any:
    weight, pos_weight = _bce_parts(rest, weighted)
    p = sigmoid_array(xp, x.astype(np.float64))
    q = sigmoid_array(xp, -x.astype(np.float64))
    loss = -(target * (1 if pos_weight is None else pos_weight) * xp.log(p) + (1 - target) * xp.log(q))
    return reduced_array(xp, loss if weight is None else loss * weight, reduction).astype(x.dtype)


_UNIT = {"low": 0.0, "high": 1.0}
FIXED = {"low": 0.5, "high": 2.0, "grad": False}

binary_cross_entropy_with_logits = Op(
    "binary_cross_entropy_with_logits",
    doc="-(pos_weight * t * log(sigmoid(x)) + (1 - t) * log(1 - sigmoid(x))), times weight.  [...] , [...] -> [] or [...].",
    signature="(x, target, weight=None, size_average=None, reduce=None, reduction='mean', pos_weight=None)",
    prepare=_bce_prepare,
    infer=lambda x, target, *rest, weighted, reduction: TensorType(x.dtype, x.shape if reduction == "none" else ()),
    reference=rounded(_bce_reference),
    grad=gradient_in_compute_dtype(_bce_grad),
    lowering=Composite(in_compute_dtype(_bce)),
    attrs=("weighted", "reduction"),
    dtypes=FLOATING,
    samples=(
        call(fill(3, 4), fill(3, 4, **_UNIT)),
        call(fill(33), fill(33, **_UNIT), reduction="none"),
        call(fill(), fill(**_UNIT), reduction="sum"),
        call(fill(3, 4), fill(3, 4, **_UNIT), fill(4, **FIXED)),
        call(fill(3, 4), fill(3, 4, **_UNIT), pos_weight=fill(4, **FIXED)),
        call(fill(3, 4), fill(3, 4, **_UNIT), fill(3, 1, **FIXED), pos_weight=fill(4, **FIXED), reduction="none"),
    ),
    bad=(
        Bad((fill(3), fill(4)), ValueError, "target must be of the shape of x"),
        Bad((fill(3), fill(3)), ValueError, "reduction must be", BAD_REDUCTION),
    ),
    methods=(),
    functions=("nn.functional.binary_cross_entropy_with_logits", "binary_cross_entropy_with_logits"),
    autocast="float32",
)
