"""Covariance and correlation of the rows of a matrix.

Enters: variables [n, observations] and weights of observations.  Leaves: operators.  Never here: variance of one variable.
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import bool_, int64
from graphc.ir.op import Bad, Op
from graphc.ops.arguments import constant, floating, of_type, tensor
from graphc.ops.arithmetic import div, maximum, mul, sub
from graphc.ops.contract import matmul, swapped
from graphc.ops.declare import FLOATING, INTEGERS, Shorthand, call, fill
from graphc.ops.elementwise import elementwise
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.limits import clamp
from graphc.ops.movement import reshape, unsqueeze
from graphc.ops.reduce import fold, reduce_sum
from graphc.ops.transcendental import sqrt


def _weights_array(xp: Any, x: Any, which: str) -> Any:
    if (x < 0).any():
        raise RuntimeError(f"cov(): {which} cannot be negative")
    return xp.array(x)


not_negative = elementwise(
    "not_negative",
    ("x",),
    doc="Weights, none of which may be negative.  [...] -> [...].",
    rule=lambda x, which: x,
    failing=lambda x, which: (fn("ge", x, literal(0, x.dtype)), f"RuntimeError: cov(): {which} cannot be negative"),
    reference=_weights_array,
    grad=lambda g, out, x, which: (g,),
    kinds="iuf",
    attrs={"which": "weights"},
    dtypes=(*FLOATING, *INTEGERS),
    samples=(call(fill(3, 4, low=0.0, high=5.0)),),
    methods=(),
    functions=(),
)


def _checked_weights(which: str, weights: Any, count: Any, integral: bool) -> Any:
    """Weights of observations.  Raises RuntimeError."""
    weights = tensor("cov", which, weights)
    if weights.ndim > 1:
        raise RuntimeError(f"cov(): expected {which} to have one or fewer dimensions but got {of_type(weights)}")
    if (weights.dtype.kind not in "iu") if integral else weights.dtype.kind != "f":
        wanted = "integral" if integral else "floating point"
        raise RuntimeError(f"cov(): expected {which} to have {wanted} dtype but got {of_type(weights)}")
    if (weights.shape[0] if weights.ndim else 1) != count:
        raise RuntimeError(f"cov(): expected {which} to have the same numel as there are observations, {count}: {of_type(weights)}")
    return not_negative(reshape.run(weights, shape=(count,)), which)


def _cov(x: Any, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Any:
    x = tensor("cov", "x", x)
    if x.ndim > 2:
        raise RuntimeError(f"cov(): expected input to have two or fewer dimensions but got an input with {x.ndim} dimensions")
    if x.dtype is bool_:
        raise RuntimeError("cov(): bool dtype is not supported for input")
    x = x if x.ndim == 2 else reshape.run(x, shape=(1, x.shape[0] if x.ndim else 1))
    x = x if x.dtype.kind in "fc" else floating("cov", "x", x)
    count = x.shape[1]
    weights: Any = None if fweights is None else _checked_weights("fweights", fweights, count, True)
    if aweights is not None:
        aweights = _checked_weights("aweights", aweights, count, False)
        weights = aweights if weights is None else mul(weights, aweights)
    total = constant(count, x.dtype.real) if weights is None else fold(reduce_sum, weights, (0,), False)
    weighted = x if weights is None else mul(x, weights)
    centred = sub(x, div(fold(reduce_sum, weighted, (1,), True), total))
    freedom = sub(total, correction)
    if aweights is not None and correction:
        squares = fold(reduce_sum, mul(weights, aweights), (0,), False)
        freedom = sub(total, mul(div(squares, total), correction))
    freedom = maximum(freedom, 0)
    turned = swapped(Op.table["conj"](centred) if x.dtype.kind == "c" else centred)
    products = matmul(centred if weights is None else mul(centred, weights), turned)
    return Op.table["squeeze"](div(products, freedom))


cov = Shorthand(
    "cov",
    doc="Covariances of variables (rows) over observations (columns), which may be weighted.  [n, m] -> [n, n]; [m] -> [].",
    rule=_cov,
    dtypes=FLOATING,
    samples=(
        call(fill(3, 5)),
        call(fill(5)),
        call(fill(3, 4), fweights=fill(4, dtype=int64, low=1, high=3, grad=False), aweights=fill(4, low=0.5, grad=False)),
    ),
    bad=(Bad((fill(2, 3, 4),), RuntimeError, r"cov\(\): expected input to have two or fewer dimensions"),),
)


def _corrcoef(x: Any) -> Any:
    x = tensor("corrcoef", "x", x)
    if x.ndim > 2:
        raise RuntimeError(f"corrcoef(): expected input to have two or fewer dimensions but got an input with {x.ndim} dimensions")
    c = _cov(x)
    if c.ndim == 0:
        return div(c, c)
    variances = Op.table["diagonal"](c)
    variances = Op.table["real"](variances) if c.dtype.kind == "c" else variances
    deviations = sqrt(variances)
    c = div(div(c, unsqueeze.run(deviations, dim=1)), unsqueeze.run(deviations, dim=0))
    if c.dtype.kind == "c":
        return Op.table["complex"](*(clamp(Op.table[part](c), -1, 1) for part in ("real", "imag")))
    return clamp(c, -1, 1)


corrcoef = Shorthand(
    "corrcoef",
    doc="Correlations of variables (rows) over observations (columns).  [n, m] -> [n, n]; [m] -> [].",
    rule=_corrcoef,
    dtypes=FLOATING,
    samples=(call(fill(3, 5)), call(fill(5))),
    bad=(Bad((fill(2, 3, 4),), RuntimeError, r"corrcoef\(\): expected input to have two or fewer dimensions"),),
)
