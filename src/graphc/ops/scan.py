"""Running values along a dim: sums, products, extrema with their places, logarithms of sums of exponentials.

Enters: tensors.  Leaves: operators, each a kernel that goes along the dim in order.  Never here: folds to one value (`reduce`).

`recurrence` is the general linear one; the gradients of the others are written with it, without a division and without a case for
zeros, so they can be differentiated again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dtypes import DType, bool_, float32, int64
from graphc.ir.loops import Expr
from graphc.ir.op import Anchor, Bad, Composite, Op, TensorType, canonical_dim
from graphc.ops.arguments import (
    cast,
    constant,
    gradient_in_compute_dtype,
    is_zero,
    one_dim,
    ordered,
    rounded,
    same_dtype,
    tensor,
    zeros_like,
)
from graphc.ops.comparison import eq, logical_or, ne, where
from graphc.ops.create import iota, require_dtype
from graphc.ops.declare import EVERY, FLOATING, Routed, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import both, select
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.movement import expand, flip, reshape, slice_
from graphc.ops.scatter import scatter_add

# ---- along one dim -------------------------------------------------------------------------------------------------


def shifted(x: Any, dim: int, value: float, back: bool = False) -> Any:
    """x moved by one place along a canonical dim, towards the end or (`back`) towards the start; `value` fills the hole."""
    starts, stops = [0] * x.ndim, list(x.shape)
    if is_zero(x.shape[dim]):
        return x
    if back:
        starts[dim] = 1
    else:
        stops[dim] = stops[dim] - 1
    kept = slice_.run(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.ndim)
    offsets = tuple(1 if d == dim and not back else 0 for d in range(x.ndim))
    return Op.table["pad_constant"].run(kept, starts=offsets, shape=tuple(x.shape), value=value)


def _backwards(x: Any, dim: int) -> Any:
    return flip.run(x, dims=(dim,))


def _recurrence_from_end(x: Any, factor: Any, dim: int) -> Any:
    return _backwards(recurrence.run(_backwards(x, dim), _backwards(factor, dim), dim=dim), dim)


def _recurrence_grad(g: Any, out: Any, x: Any, factor: Any, dim: int) -> tuple[Any, Any]:
    into_x = _recurrence_from_end(g, shifted(factor, dim, 0, back=True), dim)
    return into_x, Op.table["mul"](into_x, shifted(out, dim, 0))


def _recurrence_reference(xp: Any, x: Any, factor: Any, dim: int) -> Any:
    x, factor = xp.moveaxis(x, dim, 0), xp.moveaxis(factor, dim, 0)
    out, running = xp.empty_like(x), xp.zeros(x.shape[1:], x.dtype)
    for k in range(x.shape[0]):
        running = x[k] + factor[k] * running
        out[k] = running
    return xp.moveaxis(out, 0, dim)


def _recurrence_infer(x: TensorType, factor: TensorType, dim: int) -> TensorType:
    same_dtype("recurrence", (x, factor))
    if x.shape != factor.shape or x.rank == 0:
        raise RuntimeError(f"recurrence: x and factor must be of one shape of rank 1 or more, got {x} and {factor}")
    return x


recurrence: Op = Op(
    "recurrence",
    doc="out[i] = x[i] + factor[i] * out[i - 1] along dim, from out[-1] = 0.  [...] , [...] -> [...].",
    signature="(x, factor, dim)",
    infer=_recurrence_infer,
    reference=rounded(_recurrence_reference),
    grad=gradient_in_compute_dtype(_recurrence_grad),
    lowering=Anchor("scan", lambda total, x, factor: fn("add", x, fn("mul", factor, total))),
    attrs=("dim",),
    dtypes=FLOATING,
    samples=(
        call(fill(3, 4), fill(3, 4, low=-1, high=1), 0),
        call(fill(3, 4), fill(3, 4, low=-1, high=1), 1),
        call(fill(33), fill(33, low=-1, high=1), 0),
        call(fill(0, 3), fill(0, 3), 0),
    ),
    bad=(Bad((fill(3), fill(4), 0), RuntimeError, "recurrence: x and factor must be of one shape"),),
    methods=(),
    functions=(),
)


# ---- declaring a scan ----------------------------------------------------------------------------------------------


def _accumulated(name: str) -> Callable[..., Any]:
    """NumPy's running form of a universal function, in the dtype of x."""

    def reference(xp: Any, x: Any, dim: int) -> Any:
        return getattr(xp, name).accumulate(x, axis=dim, dtype=x.dtype) if x.ndim else x

    return rounded(reference)


_SCANNED = (
    call(fill(3, 4), 0),
    call(fill(3, 4), -1),
    call(fill(33), 0),
    call(fill(2, 3, 5), 1),
    call(fill(0, 3), 0),
    call(fill(), 0),
)


def _scan(
    name: str,
    doc: str,
    reference: Callable[..., Any],
    step: Callable[..., Expr],
    start: str,
    grad: Callable[..., Any],
    **more: Any,
) -> Op:
    """A running value whose first argument becomes int64 where it is of integers and `dtype` does not say otherwise."""

    def prepare(x: Any, dim: Any, *, dtype: DType | None = None) -> Prepared:
        x = tensor(name, "input", x)
        wanted = (x.dtype if x.dtype.kind in "fc" else int64) if dtype is None else require_dtype(name, dtype)
        return (cast(x, wanted),), {"dim": one_dim(name, dim, x.ndim)}

    def route(op: Op, x: Any, dim: Any, *, dtype: DType | None = None) -> Any:
        (x,), attrs = op.prepare(x, dim, dtype=dtype)
        return op.run(x, **attrs) if x.ndim else x

    return Routed(
        name,
        doc=doc,
        signature="(x, dim, *, dtype=None)",
        route=route,
        prepare=prepare,
        infer=lambda x, dim: x,
        reference=reference,
        grad=grad,
        lowering=Anchor("scan", step, start),
        attrs=("dim",),
        dtypes=EVERY,
        samples=(
            *_SCANNED,
            call(fill(4, dtype=bool_, low=0, high=2, grad=False), 0),
            call(fill(4, grad=False), 0, dtype=float32),
        ),
        bad=(
            Bad((fill(3), 1), IndexError, f"{name}: Dimension out of range"),
            Bad(([1.0], 0), TypeError, f"{name}: argument 'input' must be a Tensor"),
        ),
        inplace=True,
        **more,
    )


# ---- sums and products ---------------------------------------------------------------------------------------------

cumsum: Op = _scan(
    "cumsum",
    "Sums of all elements up to each, along dim (of integers as int64).  [..., n, ...] -> [..., n, ...].",
    _accumulated("add"),
    lambda total, x: fn("add", total, x),
    "add",
    lambda g, out, x, dim: (_backwards(cumsum.run(_backwards(g, dim), dim=dim), dim),),
)


def _cumprod_grad(g: Any, out: Any, x: Any, dim: int) -> tuple[Any]:
    """The product of all before times what follows: h[i] = g[i] + x[i + 1] * h[i + 1]."""
    following = _recurrence_from_end(g, shifted(x, dim, 0, back=True), dim)
    return (Op.table["mul"](shifted(out, dim, 1), following),)


cumprod: Op = _scan(
    "cumprod",
    "Products of all elements up to each, along dim (of integers as int64).  [..., n, ...] -> [..., n, ...].",
    _accumulated("multiply"),
    lambda total, x: fn("mul", total, x),
    "mul",
    gradient_in_compute_dtype(_cumprod_grad),
)


# ---- logcumsumexp --------------------------------------------------------------------------------------------------


def _log_add_exp(total: Expr, x: Expr) -> Expr:
    """log(exp(total) + exp(x)) without overflow; infinite operands that are equal stay as they are."""
    high, low = fn("max", total, x), fn("min", total, x)
    added = fn("add", high, fn("log1p", fn("exp", fn("sub", low, high))))
    same = both(fn("eq", low, high), fn("eq", fn("abs", high), literal(float("inf"), high.dtype)))
    return select(same, high, added)


def _logcumsumexp_reference(xp: Any, x: Any, dim: int) -> Any:
    if x.dtype.kind != "c":
        return xp.logaddexp.accumulate(x, axis=dim, dtype=x.dtype)
    out = xp.moveaxis(xp.array(x), dim, 0)
    for k in range(1, len(out)):  # the one of the smaller real part is added to the other
        before, here = out[k - 1].copy(), out[k].copy()
        low, high = (xp.where((here.real < before.real) == first, here, before) for first in (True, False))
        out[k] = high + xp.log1p(xp.exp(low - high))
    return xp.moveaxis(out, 0, dim)


def _logcumsumexp_grad(g: Any, out: Any, x: Any, dim: int) -> tuple[Any]:
    """exp(x[i] - out[i]) * h[i] with h[i] = g[i] + exp(out[i] - out[i + 1]) * h[i + 1]; no exponent is above 0."""
    sub, exp, mul = Op.table["sub"], Op.table["exp"], Op.table["mul"]
    following = shifted(out, dim, math.inf, back=True)
    factor = exp(where(eq(out, following), zeros_like(out), sub(out, following)))
    kept = _recurrence_from_end(g, factor, dim)
    return (mul(exp(where(eq(x, out), zeros_like(x), sub(x, out))), kept),)


logcumsumexp: Op = Routed(
    "logcumsumexp",
    doc="log of the sums of exp of all elements up to each, along dim, without overflow.  [..., n, ...] -> [..., n, ...].",
    signature="(x, dim)",
    route=lambda op, x, dim: _floating_scan(op, x, dim),
    prepare=lambda x, dim: _logcumsumexp_prepare(x, dim),
    infer=lambda x, dim: x,
    reference=rounded(_logcumsumexp_reference),
    grad=gradient_in_compute_dtype(_logcumsumexp_grad),
    lowering=Anchor("scan", _log_add_exp, "max"),
    attrs=("dim",),
    dtypes=FLOATING,
    samples=(*_SCANNED, call(fill(3, 33, low=-99, high=99), 1)),
    bad=(
        Bad((fill(3), 1), IndexError, "logcumsumexp: Dimension out of range"),
        Bad((fill(3, dtype=int64), 0), RuntimeError, "logcumsumexp: not implemented for"),
    ),
    inplace=True,
)


def _logcumsumexp_prepare(x: Any, dim: Any) -> Prepared:
    x = tensor("logcumsumexp", "input", x)
    if x.dtype.kind not in "fc":
        raise RuntimeError(f"logcumsumexp: not implemented for {x.dtype} tensors")
    return (x,), {"dim": one_dim("logcumsumexp", dim, x.ndim)}


def _floating_scan(op: Op, x: Any, dim: Any) -> Any:
    (x,), attrs = op.prepare(x, dim)
    return op.run(x, **attrs) if x.ndim else x


# ---- cummax, cummin ------------------------------------------------------------------------------------------------


def _running_extremum(name: str, compare: str, start: str, ufunc: str) -> Op:
    """The values alone.  The later of equal elements stands, and a NaN once met."""

    def step(total: Expr, x: Expr) -> Expr:
        is_new = fn(compare, x, total)
        return select(fn("or", is_new, fn("ne", x, x)) if x.dtype.kind == "f" else is_new, x, total)

    def infer(x: TensorType, dim: int) -> TensorType:
        canonical_dim(name, dim, x.rank)
        return x

    return Op(
        name,
        doc=f"The {start}imum of all elements up to each, along dim.  [..., n, ...] -> [..., n, ...].",
        signature="(x, dim)",
        infer=infer,
        reference=_accumulated(ufunc),
        grad=None,
        lowering=Anchor("scan", step, start),
        attrs=("dim",),
        dtypes=EVERY,
        samples=tuple(s for s in _SCANNED if s.args[0].shape and s.args[1] >= 0),
        bad=(Bad((fill(3), 1), IndexError, f"{name}: Dimension out of range"),),
        methods=(),
        functions=(),
    )


def _cumulative_extremum(name: str, running: Op) -> Op:
    """Values and the places they were found at."""

    def prepare(x: Any, dim: Any) -> Prepared:
        x = ordered(name, "input", x)
        return (x,), {"dim": one_dim(name, dim, x.ndim)}

    def rule(x: Any, dim: int) -> tuple[Any, Any]:
        if not x.ndim:
            return Op.table["clone"].run(x), constant(0, int64)
        values = running.run(x, dim=dim)
        here = iota.run(size=x.shape[dim], dtype=int64)
        here = reshape.run(here, shape=tuple(n if d == dim else 1 for d, n in enumerate(x.shape)))
        here = expand.run(here, shape=tuple(x.shape))
        is_new = eq(x, values)
        if x.dtype.kind == "f":
            is_new = logical_or(is_new, ne(x, x))
        return values, running_max.run(where(is_new, here, constant(0, int64)), dim=dim)

    def grad(g: Any, out: Any, x: Any, dim: int) -> tuple[Any]:
        if not x.ndim:
            return (g[0],)
        return (None if g[0] is None else scatter_add.run(zeros_like(x), out[1], g[0], dim=dim),)

    def reference(xp: Any, x: Any, dim: int) -> tuple[Any, Any]:
        if not x.ndim:
            return x, np.int64(0)
        values = getattr(xp, "maximum" if name == "cummax" else "minimum").accumulate(x, axis=dim)
        shape = [1] * x.ndim
        shape[dim] = x.shape[dim]
        here = np.where((x == values) | (x != x), np.arange(x.shape[dim]).reshape(shape), 0)
        return values, xp.maximum.accumulate(here, axis=dim)

    return Op(
        name,
        doc=f"The {name[3:]}imum of all elements up to each, along dim, and its index: the last of equal ones.  [..., n, ...] -> "
        "[..., n, ...], int64 [..., n, ...].",
        signature="(x, dim)",
        prepare=prepare,
        infer=lambda x, dim: (x, TensorType(int64, x.shape)),
        reference=reference,
        grad=grad,
        lowering=Composite(rule),
        attrs=("dim",),
        dtypes=EVERY,
        samples=_SCANNED,
        bad=(
            Bad((fill(3), 1), IndexError, f"{name}: Dimension out of range"),
            Bad(([1.0], 0), TypeError, f"{name}: argument 'input' must be a Tensor"),
        ),
    )


running_max = _running_extremum("running_max", "ge", "max", "maximum")
running_min = _running_extremum("running_min", "le", "min", "minimum")
cummax = _cumulative_extremum("cummax", running_max)
cummin = _cumulative_extremum("cummin", running_min)
