"""Losses that ask for a margin: hinge, ranking, embeddings, triplets, several labels.

Enters: scores or embeddings, and targets.  Leaves: operators.  Never here: probabilities (`divergences`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.dtypes import get_default_dtype, int64
from graphc.ir.op import Bad, Op
from graphc.ops.arguments import cast, constant, number, of_type, tensor
from graphc.ops.arithmetic import add, div, minimum, mul, neg, square, sub
from graphc.ops.bounds import places
from graphc.ops.classification import hits, pick_class
from graphc.ops.comparison import eq, ge, logical_and, logical_not, ne, where
from graphc.ops.create import iota
from graphc.ops.declare import call, fill
from graphc.ops.distances import pairwise_distance
from graphc.ops.divergences import loss
from graphc.ops.index import index_select
from graphc.ops.loss import FIXED, check_reduction, reduced
from graphc.ops.movement import reshape, unsqueeze
from graphc.ops.rectifiers import logsigmoid
from graphc.ops.reduce import any_, fold, mean, reduce_sum
from graphc.ops.transcendental import exp, log1p, sqrt

_SIGNS = {"low": -2, "high": 2, "grad": False}


def _clipped(x: Any) -> Any:
    """max(x, 0), with the gradient 1 at 0 as PyTorch's clamp_min."""
    return where(ge(x, 0), x, mul(x, 0))


def _hinge_embedding_loss(
    x: Any, target: Any, margin: float = 1.0, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Any:
    name = "hinge_embedding_loss"
    x, target = tensor(name, "x", x), tensor(name, "target", target)
    reduction = check_reduction(name, reduction, size_average, reduce)
    zero = constant(0, x.dtype)
    apart = where(ne(target, 1), _clipped(sub(margin, x)), zero)
    return reduced(add(apart, where(ne(target, -1), x, zero)), reduction)


hinge_embedding_loss = loss(
    "hinge_embedding_loss",
    "x where target is 1, max(0, margin - x) where it is -1.  [...] , [...] -> [] or [...].",
    _hinge_embedding_loss,
    (call(fill(3, 4), fill(3, 4, dtype=int64, **_SIGNS)), call(fill(5), fill(5, dtype=int64, **_SIGNS), 0.5, reduction="none")),
)


def _margin_ranking_loss(
    input1: Any,
    input2: Any,
    target: Any,
    margin: float = 0.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    name = "margin_ranking_loss"
    given = [tensor(name, k, v) for k, v in (("input1", input1), ("input2", input2), ("target", target))]
    reduction = check_reduction(name, reduction, size_average, reduce)
    if len({x.ndim for x in given}) > 1:
        raise RuntimeError(f"{name}: All input tensors should have same dimension, got {', '.join(str(of_type(x)) for x in given)}")
    return reduced(_clipped(add(mul(neg(given[2]), sub(given[0], given[1])), margin)), reduction)


margin_ranking_loss = loss(
    "margin_ranking_loss",
    "max(0, -target * (input1 - input2) + margin).  [...] , [...] , [...] -> [] or [...].",
    _margin_ranking_loss,
    (call(fill(3, 4), fill(3, 4), fill(3, 4, **_SIGNS), 0.5), call(fill(5), fill(5), fill(5, **_SIGNS), reduction="none")),
    (Bad((fill(3), fill(3), fill(3, 1)), RuntimeError, "All input tensors should have same dimension"),),
    arguments=3,
)


def _soft_margin_loss(x: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> Any:
    name = "soft_margin_loss"
    reduction = check_reduction(name, reduction, size_average, reduce)
    return reduced(log1p(exp(mul(neg(tensor(name, "target", target)), tensor(name, "x", x)))), reduction)


soft_margin_loss = loss(
    "soft_margin_loss",
    "log(1 + exp(-target * x)).  [...] , [...] -> [] or [...].",
    _soft_margin_loss,
    (call(fill(3, 4), fill(3, 4, **_SIGNS)), call(fill(5), fill(5, **_SIGNS), reduction="none")),
)

# ---- classes -------------------------------------------------------------------------------------------------------


def _rows(name: str, x: Any, target: Any) -> tuple[Any, Any]:
    """Scores [N, C] and their target with a leading dim, from [C] too.  Raises RuntimeError."""
    if x.ndim == 0:
        return reshape.run(x, shape=(1, 1)), reshape.run(target, shape=(1,))
    if x.ndim > 2 or not x.shape[-1]:
        raise RuntimeError(f"{name}: Expected non-empty vector or matrix with optional 0-dim batch size, but got: {of_type(x)}")
    return (unsqueeze.run(x, dim=0), reshape.run(target, shape=(1, *target.shape[:1]))) if x.ndim == 1 else (x, target)


def _multi_margin_loss(
    x: Any,
    target: Any,
    p: int = 1,
    margin: float = 1.0,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    name = "multi_margin_loss"
    x, target = tensor(name, "x", x), tensor(name, "target", target)
    reduction = check_reduction(name, reduction, size_average, reduce)
    if p not in (1, 2):
        raise ValueError(f"{name}: only p == 1 and p == 2 supported, got {p}")
    number(name, "margin", margin)
    single = x.ndim < 2
    scores = _rows(name, x, target)[0]
    rows, classes = scores.shape
    count = target.shape[0] if target.ndim else 1
    if target.ndim > 1 or count != rows:
        raise RuntimeError(f"{name}: inconsistent target size: expected {rows} classes, got {of_type(target)}")
    if weight is not None and tensor(name, "weight", weight).ndim != 1:
        raise ValueError(f"{name}: weight must be one-dimensional, got {of_type(weight)}")
    if weight is not None and tuple(weight.shape) != (classes,):
        raise RuntimeError(f"{name}: inconsistent weight size: expected {classes} but got {of_type(weight)}")
    labels = reshape.run(target, shape=(rows,))
    right = pick_class.run(scores, labels, ignore_index=-(2**62))
    short = _clipped(add(sub(scores, unsqueeze.run(right, dim=1)), margin))
    short = short if p == 1 else square(short)
    if weight is not None:
        short = mul(short, unsqueeze.run(index_select.run(weight, cast(labels, int64), dim=0), dim=1))
    wrong = where(hits(scores, labels, -(2**62)), constant(0, short.dtype), short)
    losses = div(fold(reduce_sum, wrong, (1,), False), constant(classes, short.dtype))
    losses = reshape.run(losses, shape=()) if single and (reduction != "none" or not target.ndim) else losses
    return reduced(losses, reduction)


multi_margin_loss = loss(
    "multi_margin_loss",
    "The mean over other classes of max(0, margin - x[target] + x)**p, times the target's weight.  [N, C], ints [N] -> [] or [N].",
    _multi_margin_loss,
    (
        call(fill(3, 4), places(4, 3)),
        call(fill(3, 4), places(4, 3), 2, 0.5, fill(4, **FIXED), reduction="none"),
        call(fill(4), places(4)),
    ),
    (
        Bad((fill(3, 4), places(4, 3), 3), ValueError, "only p == 1 and p == 2 supported"),
        Bad((fill(3, 4), places(4, 2)), RuntimeError, "inconsistent target size"),
    ),
)


def _multilabel_margin_loss(x: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> Any:
    name = "multilabel_margin_loss"
    x, target = tensor(name, "x", x), tensor(name, "target", target)
    reduction = check_reduction(name, reduction, size_average, reduce)
    if x.ndim and tuple(target.shape) != tuple(x.shape):
        raise RuntimeError(f"{name}: inconsistent target size: {of_type(target)} for {of_type(x)}")
    shape = (1,) * (2 - x.ndim)
    scores, labels = (reshape.run(y, shape=(*shape, *y.shape)) if shape else y for y in (x, target))
    if not scores.shape[-1]:
        raise RuntimeError(f"{name}: Expected non-empty vector or matrix with optional 0-dim batch size, but got: {of_type(x)}")
    classes = scores.shape[1]
    counted = _before_first_negative(labels)
    labels = where(counted, cast(labels, int64), constant(0, int64))
    every = reshape.run(iota.run(size=classes, dtype=int64), shape=(1, 1, classes))
    hit = logical_and(eq(unsqueeze.run(labels, dim=2), every), unsqueeze.run(counted, dim=2))
    is_target = any_.run(hit, dims=(1,), keepdim=False)
    right = Op.table["gather"](scores, 1, labels)
    short = _clipped(add(sub(unsqueeze.run(scores, dim=1), unsqueeze.run(right, dim=2)), 1))
    asked = logical_and(unsqueeze.run(counted, dim=2), logical_not(unsqueeze.run(is_target, dim=1)))
    total = fold(reduce_sum, where(asked, short, constant(0, short.dtype)), (1, 2), False)
    losses = div(total, constant(classes, total.dtype))
    return reduced(reshape.run(losses, shape=()) if x.ndim < 2 else losses, reduction)


def _before_first_negative(labels: Any) -> Any:
    """Which labels of each row stand before its first negative one.  [N, C] -> bool [N, C]."""
    ended = Op.table["cumsum"](cast(Op.table["lt"](labels, 0), int64), 1)
    return eq(ended, 0)


multilabel_margin_loss = loss(
    "multilabel_margin_loss",
    "The sum over target classes and others of max(0, 1 - x[target] + x[other]), over C; targets end at the first -1.  "
    "[N, C], ints [N, C] -> [] or [N].",
    _multilabel_margin_loss,
    (
        call(fill(3, 4), fill(3, 4, dtype=int64, low=-1, high=4, grad=False)),
        call(fill(4), fill(4, dtype=int64, low=-1, high=4, grad=False), reduction="none"),
    ),
    (Bad((fill(3, 4), fill(3, 3, dtype=int64)), RuntimeError, "inconsistent target size"),),
)


def _multilabel_soft_margin_loss(
    x: Any, target: Any, weight: Any = None, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Any:
    name = "multilabel_soft_margin_loss"
    x, target = tensor(name, "x", x), tensor(name, "target", target)
    reduction = check_reduction(name, reduction, size_average, reduce)
    losses = neg(add(mul(target, logsigmoid(x)), mul(sub(1, target), logsigmoid(neg(x)))))
    losses = losses if weight is None else mul(losses, weight)
    return reduced(mean(losses, -1) if x.ndim else losses, reduction)


multilabel_soft_margin_loss = loss(
    "multilabel_soft_margin_loss",
    "The mean over classes of binary cross entropies of logits.  [..., C], [..., C] -> [] or [...].",
    _multilabel_soft_margin_loss,
    (
        call(fill(3, 4), fill(3, 4, low=0.0, high=1.0)),
        call(fill(3, 4), fill(3, 4, low=0.0, high=1.0), fill(4, **FIXED), reduction="none"),
    ),
    autocast=None,
)

# ---- embeddings ----------------------------------------------------------------------------------------------------


def _cosine_embedding_loss(
    input1: Any,
    input2: Any,
    target: Any,
    margin: float = 0.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    name = "cosine_embedding_loss"
    x, y, target = (tensor(name, k, v) for k, v in (("input1", input1), ("input2", input2), ("target", target)))
    reduction = check_reduction(name, reduction, size_average, reduce)
    if target.ndim not in (0, 1):
        raise RuntimeError(f"{name}: 0D or 1D target tensor expected, multi-target not supported, got {of_type(target)}")
    if x.ndim != target.ndim + 1 or y.ndim != target.ndim + 1:
        raise RuntimeError(f"{name}: {target.ndim}D target tensor expects {target.ndim + 1}D input tensors, but found inputs "
                           f"{of_type(x)} and {of_type(y)}")  # fmt: skip
    dim = (target.ndim,)
    if x.dtype.kind in "biu" and y.dtype.kind in "biu":
        x, y = cast(x, get_default_dtype()), cast(y, get_default_dtype())
    squares = [add(fold(reduce_sum, mul(z, z), dim, False), 1e-12) for z in (x, y)]
    cosine = div(fold(reduce_sum, mul(x, y), dim, False), sqrt(mul(*squares)))
    zero = constant(0, cosine.dtype)
    losses = add(
        where(eq(target, 1), sub(1, cosine), zero),
        where(eq(target, -1), _clipped(sub(cosine, margin)), zero),
    )
    return reduced(losses, reduction)


cosine_embedding_loss = loss(
    "cosine_embedding_loss",
    "1 - cosine where target is 1, max(0, cosine - margin) where it is -1.  [N, D], [N, D], [N] -> [] or [N].",
    _cosine_embedding_loss,
    (
        call(fill(3, 4), fill(3, 4), fill(3, dtype=int64, low=1, high=2, grad=False)),
        call(fill(3, 4), fill(3, 4), fill(3, dtype=int64, low=-1, high=0, grad=False), 0.1, reduction="none"),
    ),
    (Bad((fill(3), fill(3), fill(3)), RuntimeError, "1D target tensor expects 2D input tensors"),),
    arguments=0,
)


def _triplet(name: str, given: tuple[Any, ...], distance: Callable[..., Any], margin: Any, swap: bool, reduction: str) -> Any:
    """max(0, margin + distance(anchor, positive) - distance(anchor, negative))."""
    if number(name, "margin", margin) <= 0:
        raise ValueError(f"{name}: margin must be greater than 0, got {margin}")
    anchor, positive, negative = given
    near, far = distance(anchor, positive), distance(anchor, negative)
    far = minimum(far, distance(positive, negative)) if swap else far
    return reduced(_clipped(add(sub(near, far), margin)), reduction)


def _triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    name = "triplet_margin_loss"
    given = tuple(tensor(name, k, v) for k, v in (("anchor", anchor), ("positive", positive), ("negative", negative)))
    reduction = check_reduction(name, reduction, size_average, reduce)
    if len({x.ndim for x in given}) > 1:
        shown = ", ".join(str(of_type(x)) for x in given)
        raise RuntimeError(f"{name}: The anchor, positive, and negative must have the same number of dimensions, but got: {shown}")
    return _triplet(name, given, lambda x, y: pairwise_distance(x, y, p, eps), margin, swap, reduction)


triplet_margin_loss = loss(
    "triplet_margin_loss",
    "max(0, margin + |anchor - positive| - |anchor - negative|), p-norms (Balntas and others 2016).  [N, D] three times -> [].",
    _triplet_margin_loss,
    (call(fill(3, 4), fill(3, 4), fill(3, 4)), call(fill(3, 4), fill(3, 4), fill(3, 4), 0.5, 1.0, swap=True, reduction="none")),
    (Bad((fill(3, 4), fill(3, 4), fill(3, 4), 0.0), ValueError, "margin must be greater than 0"),),
    arguments=3,
)


def _triplet_margin_with_distance_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    *,
    distance_function: Callable[..., Any] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Any:
    name = "triplet_margin_with_distance_loss"
    given = tuple(tensor(name, k, v) for k, v in (("anchor", anchor), ("positive", positive), ("negative", negative)))
    reduction = check_reduction(name, reduction)
    return _triplet(name, given, distance_function or pairwise_distance, margin, swap, reduction)


triplet_margin_with_distance_loss = loss(
    "triplet_margin_with_distance_loss",
    "triplet_margin_loss with a distance function of one's own.  [N, D] three times -> [] or [N].",
    _triplet_margin_with_distance_loss,
    (call(fill(3, 4), fill(3, 4), fill(3, 4)), call(fill(3, 4), fill(3, 4), fill(3, 4), swap=True)),
    arguments=3,
    autocast=None,
)
