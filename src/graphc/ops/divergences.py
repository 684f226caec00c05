"""Losses of probabilities and rates: binary cross entropy, Kullback-Leibler divergence, Poisson and Gaussian likelihoods.

Enters: predictions and targets.  Leaves: operators.  Never here: regression (`loss`), classes (`classification`), margins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphc.errors import warn
from graphc.ir.loops import Expr
from graphc.ir.op import Autocast, Bad, broadcast_shapes
from graphc.ops.arguments import cast, constant, gradient_in_compute_dtype, is_tensor, number, of_type, require_floating, tensor
from graphc.ops.arithmetic import add, div, maximum, mul, square, sub
from graphc.ops.comparison import gt, where
from graphc.ops.declare import FLOATING, Shorthand, call, fill
from graphc.ops.elementwise import elementwise
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import select
from graphc.ops.loss import BAD_REDUCTION, FIXED, check_reduction, reduced
from graphc.ops.movement import expand, unsqueeze
from graphc.ops.special import xlogy
from graphc.ops.transcendental import exp, log

_UNIT = {"low": 0.05, "high": 0.95}
_ROWS = (call(fill(3, 4), fill(3, 4)), call(fill(33), fill(33), reduction="none"), call(fill(3, 4), fill(3, 4), reduction="sum"))


def loss(
    name: str,
    doc: str,
    rule: Callable[..., Any],
    samples: tuple[Any, ...],
    bad: tuple[Bad, ...] = (),
    arguments: int = 2,
    *,
    autocast: Autocast | None = "float32",
) -> Shorthand:
    """A loss written in other operators, in ``nn.functional``; its last argument is `reduction`."""
    return Shorthand(
        name,
        doc=doc,
        rule=rule,
        dtypes=FLOATING,
        samples=samples,
        bad=(
            *bad,
            *(
                (Bad((fill(3, 4, **_UNIT),) * arguments, ValueError, f"{name}: reduction must be", BAD_REDUCTION),)
                * (arguments > 0)
            ),
        ),
        methods=(),
        functions=(f"nn.functional.{name}",),
        autocast=autocast,
    )


# ---- binary cross entropy ------------------------------------------------------------------------------------------

LEAST_LOGARITHM = -100.0  # PyTorch's: a certain prediction that is wrong costs this much, not inf


def _in_unit_interval(x: Expr, target: Expr) -> tuple[Expr, str]:
    """The run-time check that predictions are probabilities; NaN passes."""
    outside = fn("or", fn("lt", x, literal(0, x.dtype)), fn("gt", x, literal(1, x.dtype)))
    return fn("not", outside), "RuntimeError: binary_cross_entropy: all elements of input should be between 0 and 1"


def _surprise_rule(x: Expr, target: Expr) -> Expr:
    one, least = literal(1, x.dtype), literal(LEAST_LOGARITHM, x.dtype)
    hit = fn("max", fn("log", x), least)
    miss = fn("max", fn("log1p", fn("neg", x)), least)
    return fn("sub", fn("mul", fn("sub", target, one), miss), fn("mul", target, hit))


def _surprise_array(xp: Any, x: Any, target: Any) -> Any:
    if ((x < 0) | (x > 1)).any():
        raise RuntimeError("binary_cross_entropy: all elements of input should be between 0 and 1")
    hit, miss = (xp.maximum(xp.log(p), LEAST_LOGARITHM) for p in (x, 1 - x))
    return ((target - 1) * miss - target * hit).astype(x.dtype)


def _surprise_grad(g: Any, out: Any, x: Any, target: Any) -> tuple[Any, Any]:
    spread = maximum(mul(x, sub(1, x)), 1e-12)
    return mul(g, div(sub(x, target), spread)), mul(g, sub(log(sub(1, x)), log(x)))


surprise = elementwise(
    "surprise",
    ("x", "target"),
    doc="-(target * log(x) + (1 - target) * log(1 - x)), logarithms at least -100.  [...] , [...] -> broadcast.",
    rule=_surprise_rule,
    failing=_in_unit_interval,
    reference=_surprise_array,
    grad=gradient_in_compute_dtype(_surprise_grad),
    kinds="f",
    dtypes=FLOATING,
    samples=(call(fill(3, 4, **_UNIT), fill(3, 4, **_UNIT)), call(fill(33, **_UNIT), fill(**_UNIT))),
    methods=(),
    functions=(),
)


def _binary_cross_entropy(
    x: Any, target: Any, weight: Any = None, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Any:
    name = "binary_cross_entropy"
    x, target = require_floating(name, "x", x), tensor(name, "target", target)
    reduction = check_reduction(name, reduction, size_average, reduce)
    if tuple(x.shape) != tuple(target.shape):
        raise ValueError(f"{name}: target must be of the shape of x: {of_type(x)} and {of_type(target)}")
    losses = surprise(x, cast(target, x.dtype))
    if weight is not None:
        weight = tensor(name, "weight", weight)
        shape = broadcast_shapes(name, (tuple(target.shape), tuple(weight.shape)))
        losses = mul(losses, expand.run(weight, shape=shape))
    return reduced(losses, reduction)


binary_cross_entropy = loss(
    "binary_cross_entropy",
    "-(t * log(x) + (1 - t) * log(1 - x)) of probabilities x, times weight.  [...] , [...] -> [] or [...].",
    _binary_cross_entropy,
    (
        call(fill(3, 4, **_UNIT), fill(3, 4, **_UNIT)),
        call(fill(33, **_UNIT), fill(33, **_UNIT), reduction="none"),
        call(fill(3, 4, **_UNIT), fill(3, 4, **_UNIT), fill(4, **FIXED), reduction="sum"),
    ),
    (
        Bad((fill(3, low=2.0, high=3.0), fill(3)), RuntimeError, "all elements of input should be between 0 and 1"),
        Bad((fill(3), fill(4)), ValueError, "binary_cross_entropy: target must be of the shape of x"),
    ),
)

# ---- Kullback-Leibler ----------------------------------------------------------------------------------------------


def _kl_div(
    x: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean", log_target: bool = False
) -> Any:
    x, target = tensor("kl_div", "x", x), tensor("kl_div", "target", target)
    losses = mul(exp(target), sub(target, x)) if log_target else sub(xlogy(target, target), mul(target, x))
    if reduction == "batchmean" and size_average is None and reduce is None:
        total = reduced(losses, "sum")
        return div(total, constant(x.shape[0], total.dtype)) if x.ndim else total
    reduction = check_reduction("kl_div", reduction, size_average, reduce)
    if reduction == "mean":
        warn("kl_div: reduction 'mean' divides by all elements; 'batchmean' gives the divergence itself", UserWarning)
    return reduced(losses, reduction)


kl_div = loss(
    "kl_div",
    "target * (log(target) - x), x being logarithms; 'batchmean' sums and divides by the first size.  [...] , [...] -> [].",
    _kl_div,
    (
        call(fill(3, 4), fill(3, 4, **_UNIT), reduction="batchmean"),
        call(fill(3, 4), fill(3, 4), reduction="sum", log_target=True),
        call(fill(33), fill(33, **_UNIT), reduction="none"),
    ),
)

# ---- Poisson, Gauss ------------------------------------------------------------------------------------------------


def _poisson_nll_loss(
    x: Any,
    target: Any,
    log_input: bool = True,
    full: bool = False,
    size_average: Any = None,
    eps: float = 1e-8,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    name = "poisson_nll_loss"
    x, target = tensor(name, "x", x), tensor(name, "target", target)
    reduction = check_reduction(name, reduction, size_average, reduce)
    losses = sub(exp(x), mul(target, x)) if log_input else sub(x, mul(target, log(add(x, eps))))
    if full:  # Stirling's formula for the logarithm of target's factorial
        many = gt(target, 1)
        safe = where(many, target, constant(1, target.dtype))
        stirling = add(sub(mul(safe, log(safe)), safe), mul(log(mul(safe, 2 * math.pi)), 0.5))
        losses = add(losses, where(many, stirling, constant(0, stirling.dtype)))
    return reduced(losses, reduction)


poisson_nll_loss = loss(
    "poisson_nll_loss",
    "exp(x) - target * x (or x - target * log(x + eps)), with `full` Stirling's term too.  [...] , [...] -> [] or [...].",
    _poisson_nll_loss,
    (*_ROWS, call(fill(3, 4, low=0.2), fill(3, 4, low=0.2, high=5.0), log_input=False, full=True)),
)


def _no_negative(x: Expr, eps: float) -> tuple[Expr, str]:
    negative = fn("lt", x, literal(0, x.dtype))
    return fn("not", negative), "ValueError: gaussian_nll_loss: var has negative entry/entries"


def _raised_array(xp: Any, x: Any, eps: float) -> Any:
    if (x < 0).any():
        raise ValueError("gaussian_nll_loss: var has negative entry/entries")
    return xp.where(x < eps, x.dtype.type(eps), x)


raised = elementwise(
    "raised",
    ("x",),
    doc="Variances of at least eps; the gradient passes as if nothing had been raised, as in PyTorch.  [...] -> [...].",
    rule=lambda x, eps: select(fn("lt", x, literal(eps, x.dtype)), literal(eps, x.dtype), x),
    failing=_no_negative,
    reference=_raised_array,
    grad=lambda g, out, x, eps: (g,),
    kinds="f",
    attrs={"eps": 1e-6},
    dtypes=FLOATING,
    samples=(call(fill(3, 4, low=0.1)), call(fill(5, low=0.1), 0.01)),
    methods=(),
    functions=(),
)


def _gaussian_nll_loss(x: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> Any:
    name = "gaussian_nll_loss"
    x, target = tensor(name, "x", x), tensor(name, "target", target)
    reduction = check_reduction(name, reduction)
    if not is_tensor(var):
        if number(name, "var", var) < 0:
            raise ValueError(f"{name}: var has negative entry/entries")
        var = constant(var, x.dtype, tuple(x.shape))
    if tuple(var.shape) != tuple(x.shape):
        if tuple(x.shape[:-1]) == tuple(var.shape):
            var = unsqueeze.run(var, dim=var.ndim)
        elif not (var.ndim == x.ndim and [v for s, v in zip(x.shape, var.shape, strict=True) if s != v] == [1]):
            raise ValueError(f"{name}: var is of incorrect size: {of_type(x)} and {of_type(var)}")
    var = raised(var, eps)
    losses = mul(add(log(var), div(square(sub(x, target)), var)), 0.5)
    return reduced(add(losses, 0.5 * math.log(2 * math.pi)) if full else losses, reduction)


gaussian_nll_loss = loss(
    "gaussian_nll_loss",
    "(log(var) + (x - target)**2 / var) / 2, var at least eps.  [..., n], [..., n], [..., n], [...] or one dim 1 -> [].",
    _gaussian_nll_loss,
    (
        call(fill(3, 4), fill(3, 4), fill(3, 4, low=0.5)),
        call(fill(3, 4), fill(3, 4), fill(3, low=0.5), True, reduction="none"),
        call(fill(3, 4), fill(3, 4), fill(1, 4, low=0.5)),
        call(fill(3, 4), fill(3, 4), 0.5),
    ),
    (Bad((fill(3, 4), fill(3, 4), fill(4, low=0.5)), ValueError, "gaussian_nll_loss: var is of incorrect size"),),
    arguments=3,
    autocast=None,
)
