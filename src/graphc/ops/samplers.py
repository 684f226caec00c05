"""Samplers whose draws take an unknown count of random numbers, and the check that numbers are probabilities.

Enters: a generator's state and parameters.  Leaves: operators giving (values, new state).
Never here: what has a formula of one uniform number (`eager.sampling`).

Poisson, binomial and gamma numbers come on the host from NumPy's generators on its Philox stream, whose key is the state: they
depend on the state alone, in eager and compiled code alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dtypes import float16, float32, float64, uint64
from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Host, Op, TensorType, broadcast_shapes
from graphc.ops.arguments import number, require_floating, tensor
from graphc.ops.arithmetic import mul
from graphc.ops.declare import FLOATING, call, fill
from graphc.ops.elementwise import elementwise
from graphc.ops.expressions import both
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.random import STATE, check_state, state_of
from graphc.ops.special_arrays import elementwise as of_each
from graphc.ops.special_arrays import harmonic

# ---- probabilities -------------------------------------------------------------------------------------------------


def _checked_interval(x: Expr, high: float, message: str) -> tuple[Expr, str]:
    return both(fn("ge", x, literal(0, x.dtype)), fn("le", x, literal(high, x.dtype))), f"RuntimeError: {message}"


def _checked_array(xp: Any, x: Any, high: float, message: str) -> Any:
    if not ((x >= 0) & (x <= high)).all():
        raise RuntimeError(message)
    return xp.array(x)


within = elementwise(
    "within",
    ("x",),
    doc="x, all of whose elements must be in [0, high]: RuntimeError with `message` where one is not, or is NaN.  [...] -> [...].",
    rule=lambda x, high, message: x,
    failing=_checked_interval,
    reference=_checked_array,
    grad=lambda g, out, x, high, message: (g,),
    kinds="f",
    attrs={"high": 1.0, "message": "expected probabilities"},
    dtypes=FLOATING,
    samples=(call(fill(3, 4, low=0.0, high=1.0)), call(fill(5, low=0.0, high=9.0), 10.0)),
    bad=(Bad((fill(3, low=2.0, high=3.0),), RuntimeError, "expected probabilities"),),
    methods=(),
    functions=(),
)

# ---- on the host ---------------------------------------------------------------------------------------------------


def _stream(state: Any) -> np.random.Generator:
    """NumPy's generator for a state (seed, offset)."""
    return np.random.Generator(np.random.Philox(key=np.asarray(state, np.uint64)))


def _after(state: Any) -> Any:
    return state + np.asarray([0, 1], np.uint64)


def _sampler(
    name: str,
    doc: str,
    parameters: tuple[str, ...],
    sample: Callable[..., Any],
    grad: Callable[..., Any] | None,
    samples: tuple[Any, ...],
) -> Op:
    """An operator of a state and floating parameters that broadcast."""

    def prepare(state: Any, *given: Any) -> Any:
        given = tuple(require_floating(name, k, x) for k, x in zip(parameters, given, strict=True))
        return (state_of(name, state), *given), {}

    def infer(state: TensorType, *types: TensorType) -> tuple[TensorType, TensorType]:
        check_state(name, state)
        if any(t.dtype is not types[0].dtype for t in types):
            raise RuntimeError(f"{name}: parameters must have one dtype, got {', '.join(map(str, types))}")
        return TensorType(types[0].dtype, broadcast_shapes(name, [t.shape for t in types])), state

    def reference(xp: Any, state: Any, *arrays: Any) -> tuple[Any, Any]:
        values = sample(_stream(state), *(a.astype(np.float64) for a in arrays))
        return np.asarray(values).astype(arrays[0].dtype), _after(state)

    return Op(
        name,
        doc=f"{doc}  u64 [2], [...] -> [...], u64 [2].",
        signature=f"(state, {', '.join(parameters)})",
        prepare=prepare,
        infer=infer,
        reference=reference,
        grad=grad,
        lowering=Host(),
        dtypes=(uint64,),
        samples=samples,
        bad=(Bad((fill(3, dtype=uint64, low=0), *(fill(2, dtype=float32),) * len(parameters)), RuntimeError, "generator's state"),),
        methods=(),
        functions=(),
    )


def _poisson(stream: np.random.Generator, rate: Any) -> Any:
    if not (rate >= 0).all():
        raise RuntimeError("poisson: rates must not be negative")
    return stream.poisson(rate)


def _binomial(stream: np.random.Generator, count: Any, prob: Any) -> Any:
    if not ((count >= 0).all() and ((prob >= 0) & (prob <= 1)).all()):
        raise RuntimeError("binomial: counts must not be negative, and probabilities in [0, 1]")
    return stream.binomial(count.astype(np.int64), prob)


def _params(*ranges: tuple[float, float]) -> tuple[Any, ...]:
    return tuple(
        call(STATE, *(fill(*shape, dtype=dtype, low=low, high=high, grad=False) for low, high in ranges))
        for shape, dtype in (((3, 5), float32), ((), float64), ((4,), float16))
    )


poisson = _sampler(
    "poisson",
    "Poisson numbers of a rate.",
    ("rate",),
    _poisson,
    lambda g, out, state, rate: (None, mul(rate, 0)),
    _params((0.1, 9.0)),
)
binomial = _sampler(
    "binomial", "How many of `count` trials succeed.", ("count", "prob"), _binomial, None, _params((1.0, 9.0), (0.1, 0.9))
)


def _gamma_grad(g: Any, out: Any, state: Any, alpha: Any) -> tuple[Any, Any]:
    return None, mul(g[0], gamma_slope.run(alpha, out[0])) if g[0] is not None else None


standard_gamma = _sampler(
    "standard_gamma",
    "Gamma numbers of shape alpha and rate 1; the gradient moves a draw at its fixed probability.",
    ("alpha",),
    lambda stream, alpha: np.maximum(stream.standard_gamma(alpha), np.finfo(np.float32).tiny),
    _gamma_grad,
    _params((0.5, 9.0)),
)

LARGE_SHAPE = 1000.0  # from here on a gamma number moves as a normal one does


def _gamma_slope(xp: Any, alpha: Any, x: Any) -> Any:
    """d x / d alpha at a fixed value of the distribution function F: -(dF / d alpha) / density, F by its power series."""
    a, y = alpha.astype(np.float64), x.astype(np.float64)
    small = np.minimum(a, LARGE_SHAPE)
    point = np.minimum(y, small + 40 * np.sqrt(small) + 40)
    logarithm, digamma = np.log(point), of_each(harmonic)(np, small + 1)
    term, total = point / small, np.zeros_like(point)
    for k in range(1, int(point.max(initial=0) + 10 * math.sqrt(point.max(initial=0)) + 80)):
        total -= term * (logarithm - digamma)
        term = term * point / (small + k)
        digamma = digamma + 1 / (small + k)
    normal = 1 + (y - a) / (2 * a)
    return np.where(a < LARGE_SHAPE, total, normal).astype(alpha.dtype)


gamma_slope = Op(
    "gamma_slope",
    doc="How a gamma number x moves with its shape alpha (Figurnov and others 2018).  [...], [...] -> [...].",
    signature="(alpha, x)",
    prepare=lambda alpha, x: ((tensor("gamma_slope", "alpha", alpha), tensor("gamma_slope", "x", x)), {}),
    infer=lambda alpha, x: TensorType(alpha.dtype, broadcast_shapes("gamma_slope", (alpha.shape, x.shape))),
    reference=_gamma_slope,
    grad=None,
    lowering=Host(),
    dtypes=FLOATING,
    samples=(call(fill(3, 4, low=0.5, high=5.0), fill(3, 4, low=0.1, high=9.0)),),
    bad=(Bad((1.0, fill(3)), TypeError, "gamma_slope: argument 'alpha' must be a Tensor"),),
    methods=(),
    functions=("_standard_gamma_grad",),
)


def positive_number(name: str, argument: str, value: Any, zero: bool = False) -> float:
    """A number above 0 (or, with `zero`, not below).  Raises RuntimeError."""
    value = number(name, argument, value)
    if not (value >= 0 if zero else value > 0):
        bound = ">= 0.0" if zero else "> 0.0"
        raise RuntimeError(f"{name} expects {argument} {bound}, but found {argument} {value}")
    return float(value)
