"""Losses of classes: nll_loss and cross_entropy.

Enters: class scores [C], [N, C] or [N, C, d1, ...] and targets of the same shape without C.  Leaves: operators.
Never here: other losses (`loss`).  Classes are checked when the call ends, with IndexError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dims import product
from graphc.dtypes import float32, int64
from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Composite, Element, Op, Shape, TensorType
from graphc.ops.activation import log_softmax_of, total
from graphc.ops.arguments import (
    cast,
    constant,
    gradient_in_compute_dtype,
    in_compute_dtype,
    number,
    of_type,
    require_floating,
    rounded,
    tensor,
)
from graphc.ops.arithmetic import add, div, kept, mul, neg, sub
from graphc.ops.bounds import places
from graphc.ops.comparison import eq, logical_and, ne, where
from graphc.ops.declare import FLOATING, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import both, clamped, converted, select
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import size as size_value
from graphc.ops.index import index_select
from graphc.ops.loss import BAD_REDUCTION, FIXED, check_reduction, reduced, reduced_array
from graphc.ops.movement import Index, expand, reshape, unsqueeze
from graphc.ops.reduce import fold, reduce_sum
from graphc.ops.statistics import positions
from graphc.ops.transcendental import exp

# ---- the score of each sample's class ------------------------------------------------------------------------------


def class_dim(rank: int) -> int:
    """Where the classes are."""
    return 0 if rank == 1 else 1


def _pick_infer(x: TensorType, target: TensorType, ignore_index: int) -> TensorType:
    dim = class_dim(x.rank)
    if x.rank == 0 or target.dtype.kind not in "iu" or target.shape != (*x.shape[:dim], *x.shape[dim + 1 :]):
        raise RuntimeError(f"pick_class: target must be integers of the shape of x without dim {dim}: {x} and {target}")
    return TensorType(x.dtype, target.shape)


def _pick_rule(load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, ignore_index: int) -> Expr:
    dim, classes = class_dim(in_types[0].rank), in_types[0].shape
    target = load.let(converted(load(1, index), int64))
    ignored = fn("eq", target, literal(ignore_index, int64))
    inside = both(fn("ge", target, literal(0, int64)), fn("lt", target, size_value(classes[dim])))
    load.check(fn("or", ignored, inside), "nll_loss: target class out of range")
    place = clamped(load, target, classes[dim])
    return select(ignored, literal(0, out_type.dtype), load(0, (*index[:dim], place, *index[dim:])))


def _pick_reference(xp: Any, x: Any, target: Any, ignore_index: int) -> Any:
    dim = class_dim(x.ndim)
    kept_ = target != ignore_index
    if ((target < 0) | (target >= x.shape[dim]))[kept_].any():
        raise IndexError("nll_loss: target class out of range")
    safe = xp.where(kept_, target, 0).astype(np.int64)
    picked = xp.squeeze(xp.take_along_axis(x, xp.expand_dims(safe, dim), axis=dim), dim)
    return xp.where(kept_, picked, xp.zeros((), x.dtype))


def hits(x: Any, target: Any, ignore_index: int) -> Any:
    """Where, in class scores x, the class of a target that is not ignored stands."""
    dim = class_dim(x.ndim)
    mask = eq(positions(x, dim), unsqueeze.run(cast(target, int64), dim=dim))
    return logical_and(mask, unsqueeze.run(ne(target, ignore_index), dim=dim))


def _pick_grad(g: Any, out: Any, x: Any, target: Any, ignore_index: int) -> tuple[Any, Any]:
    return kept(hits(x, target, ignore_index), unsqueeze.run(g, dim=class_dim(x.ndim))), None


pick_class = Op(
    "pick_class",
    doc="The score of each sample's class; 0 where the class is ignore_index.  [N, C, ...], integers [N, ...] -> [N, ...].",
    signature="(x, target, ignore_index=-100)",
    prepare=lambda x, target, ignore_index=-100: (
        (tensor("pick_class", "x", x), tensor("pick_class", "target", target)),
        {"ignore_index": ignore_index},
    ),
    infer=_pick_infer,
    reference=_pick_reference,
    grad=_pick_grad,
    lowering=Element(_pick_rule),
    attrs=("ignore_index",),
    dtypes=FLOATING,
    samples=(
        call(fill(3, 4), places(4, 3)),
        call(fill(4), places(4)),
        call(fill(2, 33, 3), places(33, 2, 3)),
        call(fill(5, 3), places(3, 5), 1),
        call(fill(0, 3), places(3, 0)),
    ),
    bad=(
        Bad((fill(3, 4), places(9, 3, low=6)), IndexError, "target class out of range"),
        Bad((fill(3, 4), places(4, 2)), RuntimeError, "pick_class: target must be integers of the shape"),
    ),
    methods=(),
    functions=(),
)


def _per_sample_weight(x: Any, target: Any, weight: Any, ignore_index: int) -> Any:
    """The weight of each sample's class, 0 where ignored; of the shape of target."""
    counted = ne(target, ignore_index)
    if weight is None:
        return cast(counted, x.dtype)
    safe = where(counted, cast(target, int64), constant(0, int64))
    count = product(target.shape)
    picked = index_select.run(weight, reshape.run(safe, shape=(count,)), dim=0)
    return kept(counted, reshape.run(picked, shape=tuple(target.shape)))


def _everything(x: Any) -> Any:
    return fold(reduce_sum, x, tuple(range(x.ndim)), False)


def _nll_of(logp: Any, target: Any, weight: Any, ignore_index: int, reduction: str) -> Any:
    loss = neg(pick_class.run(logp, target, ignore_index=ignore_index))
    if weight is None and reduction != "mean":
        return reduced(loss, reduction)
    weights = _per_sample_weight(logp, target, weight, ignore_index)
    loss = loss if weight is None else mul(loss, weights)
    return div(_everything(loss), _everything(weights)) if reduction == "mean" else reduced(loss, reduction)


def _per_sample_gradient(g: Any, weights: Any, reduction: str) -> Any:
    """What each sample's (weighted) loss contributes, of the shape of its target."""
    if reduction == "none":
        return g
    if reduction == "mean":
        g = div(g, _everything(weights))
    return expand.run(g, shape=tuple(weights.shape))


def _nll_grad(g: Any, out: Any, x: Any, target: Any, weight: Any = None, *, ignore_index: int, reduction: str) -> tuple[Any, ...]:
    weights = _per_sample_weight(x, target, weight, ignore_index)
    each = neg(mul(_per_sample_gradient(g, weights, reduction), weights))
    gx = kept(hits(x, target, ignore_index), unsqueeze.run(each, dim=class_dim(x.ndim)))
    return (gx, None) if weight is None else (gx, None, None)


def _class_targets(name: str, x: Any, target: Any, weight: Any) -> tuple[Any, ...]:
    """(x, integer target[, weight]), checked.  Raises RuntimeError or ValueError."""
    dim = class_dim(x.ndim)
    if x.ndim == 0 or tuple(target.shape) != (*x.shape[:dim], *x.shape[dim + 1 :]):
        batched = x.ndim > 1 and target.ndim > 0 and target.shape[0] == x.shape[0]
        kind = RuntimeError if batched else ValueError  # PyTorch's
        raise kind(f"{name}: target must be of the shape of x without dim {dim}: {of_type(x)} and {of_type(target)}")
    return x, target, *_class_weight(name, x, weight)


def _class_weight(name: str, x: Any, weight: Any) -> tuple[Any, ...]:
    """() or (weight,), one number a class.  Raises RuntimeError."""
    if weight is None:
        return ()
    weight, classes = tensor(name, "weight", weight), x.shape[class_dim(x.ndim)]
    if tuple(weight.shape) != (classes,) or weight.dtype is not x.dtype:
        raise RuntimeError(f"{name}: weight must be one {x.dtype.short} a class, {classes}: {of_type(x)} and {of_type(weight)}")
    return (weight,)


def _nll_prepare(
    x: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
) -> Prepared:
    x, target = require_floating("nll_loss", "x", x), tensor("nll_loss", "target", target)
    if target.dtype.kind not in "iu":
        raise RuntimeError(f"nll_loss: target must be class indices (int64), got {of_type(target)}")
    inputs = _class_targets("nll_loss", x, target, weight)
    return inputs, {"ignore_index": ignore_index, "reduction": check_reduction("nll_loss", reduction, size_average, reduce)}


def _class_loss_infer(x: TensorType, target: TensorType, *rest: TensorType, reduction: str, **_: Any) -> TensorType:
    dim = class_dim(x.rank)
    shape: Shape = (*x.shape[:dim], *x.shape[dim + 1 :])
    return TensorType(x.dtype, shape if reduction == "none" else ())


def _nll_array(xp: Any, logp: Any, target: Any, weight: Any, ignore_index: int, reduction: str) -> Any:
    weights = (target != ignore_index).astype(logp.dtype)
    if weight is not None:
        weights = weights * weight[xp.where(target == ignore_index, 0, target)]
    loss = -_pick_reference(xp, logp, target, ignore_index) * weights
    return loss.sum() / weights.sum() if reduction == "mean" else reduced_array(xp, loss, reduction)


_CLASSES_SAMPLES = (
    call(fill(3, 4), places(4, 3)),
    call(fill(4), places(4)),
    call(fill(2, 33, 3), places(33, 2, 3)),
    call(fill(5, 3), places(3, 5), reduction="sum"),
    call(fill(5, 3), places(3, 5), reduction="none"),
    call(fill(9, 3), places(3, 9), ignore_index=1),
    call(fill(9, 3), places(3, 9), fill(3, **FIXED), ignore_index=2),
    call(fill(9, 3), places(3, 9), fill(3, **FIXED), reduction="none"),
    call(fill(1, 1), places(1, 1)),
)


def _bad_classes(name: str) -> tuple[Bad, ...]:
    return (
        Bad((fill(3, 4), places(9, 3, low=6)), IndexError, "target class out of range"),
        Bad((fill(3, 4), places(4, 2)), ValueError, f"{name}: target must be of the shape of x without dim 1"),
        Bad((fill(3, 4), places(4, 3, 4)), RuntimeError, f"{name}: target must be of the shape of x without dim 1"),
        Bad((fill(3, 4), places(4, 3), fill(3)), RuntimeError, f"{name}: weight must be one"),
        Bad((fill(3, 4), places(4, 3)), ValueError, f"{name}: reduction must be", BAD_REDUCTION),
    )


nll_loss = Op(
    "nll_loss",
    doc="Mean of minus the log probability of each sample's class, weighted by class.  [N, C, ...], integers [N, "
    "...] -> [] or [N, ...].",
    signature="(x, target, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction='mean')",
    prepare=_nll_prepare,
    infer=_class_loss_infer,
    reference=rounded(
        lambda xp, x, target, weight=None, *, ignore_index, reduction: _nll_array(xp, x, target, weight, ignore_index, reduction)
    ),
    grad=gradient_in_compute_dtype(_nll_grad),
    lowering=Composite(
        in_compute_dtype(
            lambda x, target, weight=None, *, ignore_index, reduction: _nll_of(x, target, weight, ignore_index, reduction)
        )
    ),
    attrs=("ignore_index", "reduction"),
    dtypes=FLOATING,
    samples=_CLASSES_SAMPLES,
    bad=(
        *_bad_classes("nll_loss"),
        Bad((fill(3, 4), fill(3, dtype=float32)), RuntimeError, "nll_loss: target must be class indices"),
    ),
    methods=(),
    functions=("nn.functional.nll_loss",),
    autocast="float32",
)


# ---- cross_entropy -------------------------------------------------------------------------------------------------


def _cross_entropy_prepare(
    x: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Prepared:
    name = "cross_entropy"
    x, target = require_floating(name, "x", x), tensor(name, "target", target)
    smoothing = float(number(name, "label_smoothing", label_smoothing))
    if not 0.0 <= smoothing <= 1.0:
        raise RuntimeError(f"{name}: label_smoothing must be between 0.0 and 1.0, got {smoothing}")
    reduction = check_reduction(name, reduction, size_average, reduce)
    attrs = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": smoothing}
    if target.dtype.kind in "iu":
        return _class_targets(name, x, target, weight), attrs
    if target.dtype.kind != "f" or tuple(target.shape) != tuple(x.shape) or x.ndim == 0:
        raise RuntimeError(
            f"{name}: target must be class indices, or probabilities of the shape of x: {of_type(x)} and {of_type(target)}"
        )
    if ignore_index >= 0:
        raise RuntimeError(f"{name}: ignore_index {ignore_index} is not supported for a floating point target")
    return (x, cast(target, x.dtype), *_class_weight(name, x, weight)), attrs


def _by_class(weight: Any, x: Any) -> Any:
    """A weight a class, shaped to broadcast over class scores."""
    dim = class_dim(x.ndim)
    return reshape.run(weight, shape=tuple(s if k == dim else 1 for k, s in enumerate(x.shape)))


def _smoothed(x: Any, probabilities: Any, weight: Any, smoothing: float) -> Any:
    """Target probabilities, smoothed towards uniform, times class weights."""
    if smoothing:
        uniform = div(constant(smoothing, x.dtype), constant(x.shape[class_dim(x.ndim)], x.dtype))
        probabilities = add(mul(probabilities, 1 - smoothing), uniform)
    return probabilities if weight is None else mul(probabilities, _by_class(weight, x))


def _sample_count(x: Any) -> Any:
    """How many samples class scores are of, as a constant."""
    dim = class_dim(x.ndim)
    return constant(product(s for k, s in enumerate(x.shape) if k != dim), x.dtype)


def _cross_entropy(x: Any, target: Any, weight: Any = None, *, ignore_index: int, reduction: str, label_smoothing: float) -> Any:
    dim = class_dim(x.ndim)
    logp = log_softmax_of(x, dim)
    if target.dtype.kind == "f":
        loss = neg(fold(reduce_sum, mul(logp, _smoothed(x, target, weight, label_smoothing)), (dim,), False))
        return div(_everything(loss), _sample_count(x)) if reduction == "mean" else reduced(loss, reduction)
    if not label_smoothing:
        return _nll_of(logp, target, weight, ignore_index, reduction)
    weights = _per_sample_weight(x, target, weight, ignore_index)
    exact = neg(mul(pick_class.run(logp, target, ignore_index=ignore_index), weights))
    every = logp if weight is None else mul(logp, _by_class(weight, x))
    smooth = kept(ne(target, ignore_index), neg(fold(reduce_sum, every, (dim,), False)))
    share = div(constant(label_smoothing, x.dtype), constant(x.shape[dim], x.dtype))
    loss = add(mul(exact, 1 - label_smoothing), mul(smooth, share))
    return div(_everything(loss), _everything(weights)) if reduction == "mean" else reduced(loss, reduction)


def _cross_entropy_grad(
    g: Any,
    out: Any,
    x: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> tuple[Any, ...]:
    """(softmax(x) * sum(q) - q) * g of each sample, where q is the weighted target distribution."""
    dim = class_dim(x.ndim)
    logp = log_softmax_of(x, dim)
    gt = None
    if target.dtype.kind == "f":
        q = _smoothed(x, target, weight, label_smoothing)
        each = div(g, _sample_count(x)) if reduction == "mean" else g
        each = unsqueeze.run(each, dim=dim) if reduction == "none" else expand.run(each, shape=(1,) * x.ndim)
        gt = mul(mul(neg(logp), each), 1 - label_smoothing)
        gt = gt if weight is None else mul(gt, _by_class(weight, x))
    else:
        weights = _per_sample_weight(x, target, weight, ignore_index)
        each = unsqueeze.run(_per_sample_gradient(g, weights, reduction), dim=dim)
        q = _target_distribution(x, target, weights, weight, ignore_index, label_smoothing)
    gx = mul(sub(mul(exp(logp), total(q, dim)), q), each)
    return (gx, gt) if weight is None else (gx, gt, None)


def _target_distribution(x: Any, target: Any, weights: Any, weight: Any, ignore_index: int, smoothing: float) -> Any:
    """The weighted, smoothed distribution that class indices stand for; zeros where ignored."""
    dim = class_dim(x.ndim)
    exact = unsqueeze.run(mul(weights, 1 - smoothing) if smoothing else weights, dim=dim)
    q = kept(hits(x, target, ignore_index), exact)
    if not smoothing:
        return q
    share = div(constant(smoothing, x.dtype), constant(x.shape[dim], x.dtype))
    share = share if weight is None else mul(_by_class(weight, x), share)
    return add(q, kept(unsqueeze.run(ne(target, ignore_index), dim=dim), share))


def _cross_entropy_reference(
    xp: Any, x: Any, target: Any, weight: Any = None, *, ignore_index: int, reduction: str, label_smoothing: float
) -> Any:
    dim = class_dim(x.ndim)
    rest = x - x.max(axis=dim, keepdims=True)
    logp = rest - xp.log(xp.exp(rest).sum(axis=dim, keepdims=True))
    classes = x.shape[dim]
    by_class = xp.ones(classes, x.dtype) if weight is None else weight
    by_class = by_class.reshape([classes if k == dim else 1 for k in range(x.ndim)])
    if target.dtype.kind not in "iu":
        smooth = target * (1 - label_smoothing) + label_smoothing / classes
        loss = -(logp * smooth * by_class).sum(axis=dim).astype(x.dtype)
        return reduced_array(xp, loss, reduction) if reduction != "mean" else (loss.sum() / max(loss.size, 1)).astype(x.dtype)
    exact = _nll_array(xp, logp, target, weight, ignore_index, reduction)
    if not label_smoothing:
        return exact
    smooth = xp.where(target == ignore_index, 0, -(logp * by_class).sum(axis=dim))
    if reduction == "mean":
        weights = (target != ignore_index) * (1 if weight is None else weight[xp.where(target == ignore_index, 0, target)])
        smooth = smooth.sum() / weights.sum()
    else:
        smooth = reduced_array(xp, smooth, reduction)
    return ((1 - label_smoothing) * exact + label_smoothing / classes * smooth).astype(x.dtype)


_UNIT = {"low": 0.0, "high": 1.0}

cross_entropy = Op(
    "cross_entropy",
    doc="nll_loss of log_softmax, for class indices or class probabilities.  [N, C, ...], [N, ...] or [N, C, ...] "
    "-> [] or [N, ...].",
    signature="(x, target, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction='mean', label_smoothing=0.0)",
    prepare=_cross_entropy_prepare,
    infer=_class_loss_infer,
    reference=rounded(_cross_entropy_reference),
    grad=gradient_in_compute_dtype(_cross_entropy_grad),
    lowering=Composite(in_compute_dtype(_cross_entropy)),
    attrs=("ignore_index", "reduction", "label_smoothing"),
    dtypes=FLOATING,
    samples=(
        *_CLASSES_SAMPLES,
        call(fill(3, 4), places(4, 3), label_smoothing=0.1),
        call(fill(9, 3), places(3, 9), fill(3, **FIXED), ignore_index=2, label_smoothing=0.2),
        call(fill(9, 3), places(3, 9), fill(3, **FIXED), reduction="none", label_smoothing=0.2),
        call(fill(3, 4), fill(3, 4, **_UNIT)),
        call(fill(2, 3, 5), fill(2, 3, 5, **_UNIT), fill(3, **FIXED), label_smoothing=0.1),
        call(fill(3, 4), fill(3, 4, **_UNIT), reduction="none"),
        call(fill(4), fill(4, **_UNIT), reduction="sum"),
    ),
    bad=(
        *_bad_classes("cross_entropy"),
        Bad((fill(3, 4), fill(3, 5)), RuntimeError, "cross_entropy: target must be class indices, or probabilities"),
        Bad(
            (fill(3, 4), places(4, 3)),
            RuntimeError,
            "cross_entropy: label_smoothing must be between",
            {"label_smoothing": 1.5},
        ),
    ),
    methods=(),
    functions=("nn.functional.cross_entropy",),
    autocast="float32",
)
