"""Quantiles: the element, or the point between two elements, below which a fraction of a dim lies.

Enters: floating tensors.  Leaves: operators written with `sort`.  Never here: medians (`sorting`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dims import product
from graphc.dtypes import float32, float64, int64
from graphc.ir.op import Bad, Op
from graphc.ops.arguments import cast, constant, is_tensor, is_zero, number, of_type, one_dim, tensor
from graphc.ops.comparison import isnan, logical_not, where
from graphc.ops.declare import Shorthand, call, fill
from graphc.ops.movement import expand, permute, reshape, unsqueeze
from graphc.ops.scatter import gather
from graphc.ops.sorting import sort

_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _fractions(name: str, x: Any, q: Any) -> Any:
    """q as a tensor of the dtype of x and of rank 0 or 1.  Raises RuntimeError."""
    if is_tensor(q):
        if q.ndim > 1:
            raise RuntimeError(f"{name}: q must be a scalar or 1D tensor, got {of_type(q)}")
        if q.dtype is not x.dtype:
            raise RuntimeError(f"{name}: q tensor must be same dtype as the input tensor, got {of_type(q)} and {of_type(x)}")
        return q
    value = number(name, "q", q)
    if not 0 <= value <= 1:
        raise RuntimeError(f"{name}: q must be in the range [0, 1] but got {value}")
    return constant(float(value), x.dtype)


def _line(name: str, x: Any, dim: Any) -> tuple[Any, int]:
    """x with at least one dim, and the one that is reduced.  Raises RuntimeError."""
    if x.dtype not in (float32, float64):
        raise RuntimeError(f"{name}: input tensor must be either float or double dtype, got {of_type(x)}")
    if is_zero(product(x.shape)):
        raise RuntimeError(f"{name}: input tensor must be non-empty, got {of_type(x)}")
    if dim is None:
        return reshape.run(x, shape=(product(x.shape),)), 0
    k = one_dim(name, dim, x.ndim)
    return (x if x.ndim else reshape.run(x, shape=(1,))), k


def _ranks(ordered: Any, q: Any, ignore_nan: bool) -> Any:
    """Where among the ordered elements of the last dim each fraction falls: one more dim, of q's size."""
    table = Op.table
    nan = isnan(ordered)
    last = constant(ordered.shape[-1] - 1, ordered.dtype)
    if ignore_nan:
        counts = table["sum"](cast(logical_not(nan), ordered.dtype), -1, True)
        ranks = table["mul"](q, table["sub"](counts, 1))
        return where(table["lt"](ranks, 0), constant(0, ordered.dtype), ranks)
    return where(table["any"](nan, -1, True), last, table["mul"](q, last))


def _between(ordered: Any, ranks: Any, interpolation: str) -> Any:
    """The elements at ranks, or points between the two beside them."""
    table = Op.table

    def at(place: Any) -> Any:
        return gather.run(ordered, cast(place, int64), dim=ordered.ndim - 1)

    if interpolation == "nearest":
        return at(table["round"](ranks))
    below = table["floor"](ranks)
    if interpolation == "lower":
        return at(below)
    above = table["ceil"](ranks)
    if interpolation == "higher":
        return at(above)
    first, second = at(below), at(above)
    weight = constant(0.5, ordered.dtype) if interpolation == "midpoint" else table["sub"](ranks, below)
    return table["add"](first, table["mul"](weight, table["sub"](second, first)))


def _quantile(name: str) -> Shorthand:
    def rule(x: Any, q: Any, dim: Any = None, keepdim: bool = False, *, interpolation: str = "linear") -> Any:
        x = tensor(name, "input", x)
        if interpolation not in _INTERPOLATIONS:
            raise RuntimeError(f"{name}: interpolation must be one of {', '.join(_INTERPOLATIONS)}, but got {interpolation}")
        rank = x.ndim
        q = _fractions(name, x, q)
        line, k = _line(name, x, dim)
        last = line.ndim - 1
        ordered = sort(permute.run(line, dims=(*(d for d in range(line.ndim) if d != k), k)), last)[0]
        many = q if q.ndim else reshape.run(q, shape=(1,))
        ranks = _ranks(ordered, many, name == "nanquantile")
        ranks = expand.run(ranks, shape=(*ordered.shape[:-1], many.shape[0]))
        found = _between(ordered, ranks, interpolation)
        found = permute.run(found, dims=(last, *range(last)))  # the fractions come first
        if keepdim and rank:
            found = (
                unsqueeze.run(found, dim=k + 1) if dim is not None else reshape.run(found, shape=(many.shape[0], *((1,) * rank)))
            )
        return found if q.ndim else reshape.run(found, shape=tuple(found.shape[1:]))

    def reference(xp: Any, x: Any, *more: Any, q: Any = None, dim: Any = None, keepdim: bool = False, **how: Any) -> Any:
        fractions = more[0] if more else q
        return getattr(np, name)(x, fractions, axis=dim, keepdims=keepdim, method=how.get("interpolation", "linear"))

    return Shorthand(
        name,
        doc=f"The q-quantiles of all elements or of a dim; {'NaNs are left out' if name[0] == 'n' else 'NaN if there is one'}.  "
        "[..., n, ...] , [] -> [..., ...]; [..., n, ...] , [m] -> [m, ..., ...].",
        rule=rule,
        reference=reference,
        dtypes=(float32, float64),
        samples=(
            call(fill(3, 4), 0.3),
            call(fill(3, 4), fill(2, low=0, high=1, grad=False), 0),
            call(fill(2, 33), 0.75, 1, True),
            call(fill(2, 33), 0.4, 1, interpolation="lower"),
            call(fill(2, 33), 0.4, 1, interpolation="higher"),
            call(fill(2, 33), 0.4, 1, interpolation="midpoint"),
            call(fill(2, 33), 0.41, 1, interpolation="nearest"),
        ),
        bad=(
            Bad((fill(3), 1.5), RuntimeError, f"{name}: q must be in the range"),
            Bad((fill(3, dtype=int64), 0.5), RuntimeError, f"{name}: input tensor must be either float or double"),
            Bad((fill(3), 0.5), RuntimeError, f"{name}: interpolation must be one of", {"interpolation": "cubic"}),
        ),
        autocast="float32",
    )


quantile, nanquantile = _quantile("quantile"), _quantile("nanquantile")
