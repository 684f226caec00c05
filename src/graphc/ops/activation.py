"""Activations: pointwise nonlinearities of neural networks, softmax and log_softmax.

Enters: floating tensors.  Leaves: operators.  Never here: dropout (`random`), normalisation (`norm`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphc.dtypes import DType, int64
from graphc.errors import warn
from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Composite, Op, TensorType
from graphc.ops.arguments import (
    cast,
    constant,
    gradient_in_compute_dtype,
    in_compute_dtype,
    is_zero,
    number,
    one_dim,
    require_floating,
    rounded,
    tensor,
)
from graphc.ops.arithmetic import add, div, mul, square, sub
from graphc.ops.comparison import gt, le, where
from graphc.ops.create import require_dtype
from graphc.ops.declare import FLOATING, FLOATING_COMPLEX, NUMERIC, call, fill
from graphc.ops.elementwise import Prepared, elementwise, unary_samples
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import select
from graphc.ops.reduce import fold, reduce_max, reduce_sum
from graphc.ops.transcendental import erf, erf_array, exp, log, sigmoid, sigmoid_array, tanh

# ---- relu and its kin ----------------------------------------------------------------------------------------------


def _zero_below(g: Any, out: Any) -> Any:
    """g, but 0 where out <= 0."""
    return where(le(out, 0), constant(0, g.dtype), g)


relu = elementwise(
    "relu",
    ("x",),
    doc="max(x, 0); NaN stays.  [...] -> [...].",
    rule=lambda x: fn("max", x, literal(0, x.dtype)),
    reference=lambda xp, x: xp.maximum(x, x.dtype.type(0)),
    grad=lambda g, out, x: (_zero_below(g, out),),
    kinds="uif",
    dtypes=NUMERIC,
    functions=("relu", "nn.functional.relu"),
    inplace=True,
)


def numbers(name: str) -> Callable[..., None]:
    """Attributes that must all be numbers."""

    def check(**attrs: Any) -> None:
        for argument, value in attrs.items():
            number(name, argument, value)

    return check


def _activation(
    name: str,
    doc: str,
    rule: Any,
    reference: Any,
    grad: Any,
    attrs: dict[str, Any] | None = None,
    samples: Any = (),
    bad: Any = (),
    check: Any = None,
    kinds: str = "f",
    inplace: bool = False,
) -> Op:
    return elementwise(
        name,
        ("x",),
        doc=f"{doc}  [...] -> [...].",
        rule=rule,
        reference=reference,
        grad=gradient_in_compute_dtype(grad),
        kinds=kinds,
        attrs=attrs,
        check=check or (numbers(name) if attrs else None),
        dtypes=FLOATING_COMPLEX if "c" in kinds else FLOATING,
        samples=(*unary_samples(), *samples),
        bad=(Bad((fill(3, dtype=int64),), RuntimeError, f"{name}: not defined for integer tensors"), *bad),
        methods=(),
        functions=(f"nn.functional.{name}",),
        inplace=inplace,
    )


leaky_relu = _activation(
    "leaky_relu",
    "x where positive, else negative_slope * x.",
    lambda x, negative_slope: select(fn("gt", x, literal(0, x.dtype)), x, fn("mul", x, literal(negative_slope, x.dtype))),
    lambda xp, x, negative_slope: xp.where(x > 0, x, x * x.dtype.type(negative_slope)),
    lambda g, out, x, negative_slope: (where(gt(x, 0), g, mul(g, negative_slope)),),
    {"negative_slope": 0.01},
    (call(fill(5), 0.3), call(fill(5), negative_slope=0)),
    (Bad((fill(3), "a"), TypeError, "leaky_relu: argument 'negative_slope'"),),
    inplace=True,
)

elu = _activation(
    "elu",
    "x where positive, else alpha * (exp(x) - 1).",
    lambda x, alpha: select(fn("gt", x, literal(0, x.dtype)), x, fn("mul", fn("expm1", x), literal(alpha, x.dtype))),
    lambda xp, x, alpha: xp.where(x > 0, x, xp.expm1(x) * x.dtype.type(alpha)),
    lambda g, out, x, alpha: (where(gt(x, 0), g, mul(g, mul(exp(Op.table["minimum"](x, 0)), alpha))),),
    {"alpha": 1.0},
    (call(fill(5), 0.3),),
    (Bad((fill(3), "a"), TypeError, "elu: argument 'alpha'"),),
    inplace=True,
)


def _softplus_rule(x: Expr, beta: float, threshold: float) -> Expr:
    scaled = fn("mul", x, literal(beta, x.dtype))
    curve = fn("div", fn("log1p", fn("exp", scaled)), literal(beta, x.dtype))
    return select(fn("gt", scaled, literal(threshold, x.dtype)), x, curve)


def _softplus_reference(xp: Any, x: Any, beta: float, threshold: float) -> Any:
    scale = x.dtype.type(beta)
    return xp.where(x * scale > threshold, x, xp.log1p(xp.exp(x * scale)) / scale)


def _softplus_grad(g: Any, out: Any, x: Any, beta: float, threshold: float) -> tuple[Any]:
    scaled = mul(x, beta)
    return (where(gt(scaled, threshold), g, mul(g, sigmoid(scaled))),)


softplus = _activation(
    "softplus",
    "log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold.",
    _softplus_rule,
    _softplus_reference,
    _softplus_grad,
    {"beta": 1.0, "threshold": 20.0},
    (call(fill(5), 2.0), call(fill(5, low=-40.0, high=40.0))),
    (Bad((fill(3), "a"), TypeError, "softplus: argument 'beta'"),),
)

silu = _activation(
    "silu",
    "x * sigmoid(x).",
    lambda x: fn("mul", x, fn("sigmoid", x)),
    lambda xp, x: x * sigmoid_array(xp, x),
    lambda g, out, x: (_silu_gradient(g, x),),
    inplace=True,
    kinds="fc",
)


def _silu_gradient(g: Any, x: Any) -> Any:
    s = sigmoid(x)
    return mul(g, mul(s, add(mul(x, sub(1, s)), 1)))


# ---- gelu ----------------------------------------------------------------------------------------------------------

_SQRT_HALF = math.sqrt(0.5)
_TANH_SCALE = math.sqrt(2.0 / math.pi)
_TANH_CUBE = 0.044715


def _gelu_rule(x: Expr, approximate: str) -> Expr:
    def number_(value: float) -> Expr:
        return literal(value, x.dtype)

    if approximate == "tanh":
        cube = fn("mul", fn("mul", x, x), x)
        inner = fn("mul", number_(_TANH_SCALE), fn("add", x, fn("mul", number_(_TANH_CUBE), cube)))
        curve = fn("tanh", inner)
    else:
        curve = fn("erf", fn("mul", x, number_(_SQRT_HALF)))
    return fn("mul", fn("mul", number_(0.5), x), fn("add", number_(1), curve))


def _gelu_reference(xp: Any, x: Any, approximate: str) -> Any:
    wide = x.astype(xp.float64)
    curve = xp.tanh(_TANH_SCALE * (wide + _TANH_CUBE * wide**3)) if approximate == "tanh" else erf_array(xp, wide * _SQRT_HALF)
    return (0.5 * wide * (1 + curve)).astype(x.dtype)


def _gelu_grad(g: Any, out: Any, x: Any, approximate: str) -> tuple[Any]:
    if approximate == "tanh":
        squared = square(x)
        curve = tanh(mul(mul(x, _TANH_SCALE), add(mul(squared, _TANH_CUBE), 1)))
        slope = mul(add(mul(squared, 3 * _TANH_CUBE), 1), _TANH_SCALE)
        steep = mul(mul(mul(x, 0.5), sub(1, square(curve))), slope)
        return (mul(g, add(mul(add(curve, 1), 0.5), steep)),)
    density = mul(exp(mul(square(x), -0.5)), 1.0 / math.sqrt(2.0 * math.pi))
    cumulative = mul(add(erf(mul(x, _SQRT_HALF)), 1), 0.5)
    return (mul(g, add(cumulative, mul(x, density))),)


def _check_approximate(approximate: Any) -> None:
    if approximate not in ("none", "tanh"):
        raise RuntimeError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")


gelu = _activation(
    "gelu",
    "x * P(normal < x), exactly or by tanh (Hendrycks and Gimpel 2016).",
    _gelu_rule,
    _gelu_reference,
    _gelu_grad,
    {"approximate": "none"},
    tuple(call(*s.args, approximate="tanh") for s in unary_samples()[:-1]),
    (Bad((fill(3),), RuntimeError, "gelu: approximate must be", {"approximate": "sigmoid"}),),
    check=_check_approximate,
)


# ---- softmax -------------------------------------------------------------------------------------------------------


def shifted(x: Any, dim: int) -> Any:
    """x less its largest element along dim."""
    return sub(x, fold(reduce_max, x, (dim,), True))


def total(x: Any, dim: int) -> Any:
    """Sum along dim, kept as size 1."""
    return fold(reduce_sum, x, (dim,), True)


def _softmax(x: Any, dim: int) -> Any:
    if x.ndim == 0 or is_zero(x.shape[dim]):
        return constant(1, x.dtype, tuple(x.shape)) if x.ndim else exp(sub(x, x))
    e = exp(shifted(x, dim))
    return mul(e, div(constant(1, e.dtype), total(e, dim)))  # one division a row


def log_softmax_of(x: Any, dim: int) -> Any:
    """log(softmax(x)) without overflow, in the dtype of x."""
    if x.ndim == 0 or is_zero(x.shape[dim]):
        return constant(0, x.dtype, tuple(x.shape)) if x.ndim else sub(x, x)
    rest = shifted(x, dim)
    return sub(rest, log(total(exp(rest), dim)))


def _softmax_grad(g: Any, out: Any, x: Any, dim: int) -> tuple[Any]:
    if x.ndim == 0:
        return (mul(g, 0),)
    weighted = mul(g, out)
    return (sub(weighted, mul(out, total(weighted, dim))),)


def _log_softmax_grad(g: Any, out: Any, x: Any, dim: int) -> tuple[Any]:
    if x.ndim == 0:
        return (mul(g, 0),)
    return (sub(g, mul(exp(out), total(g, dim))),)


def _softmax_reference(xp: Any, x: Any, dim: int) -> Any:
    if x.ndim == 0 or x.shape[dim] == 0:
        return xp.ones(x.shape, x.dtype)
    e = xp.exp(x - x.max(axis=dim, keepdims=True))
    return e / e.sum(axis=dim, keepdims=True)


def _log_softmax_reference(xp: Any, x: Any, dim: int) -> Any:
    if x.ndim == 0 or x.shape[dim] == 0:
        return xp.zeros(x.shape, x.dtype)
    rest = x - x.max(axis=dim, keepdims=True)
    return rest - xp.log(xp.exp(rest).sum(axis=dim, keepdims=True))


def _legacy_dim(name: str, rank: int) -> int:
    """The dim PyTorch chooses where none is given, with its warning."""
    warn(f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an argument.", UserWarning)
    return 0 if rank in (0, 1, 3) else 1


def _normalised(name: str, doc: str, rule: Any, reference: Any, grad: Any) -> Op:
    def prepare(x: Any, dim: Any = None, dtype: DType | None = None, _stacklevel: int = 3) -> Prepared:
        x = tensor(name, "x", x)
        dim = _legacy_dim(name, x.ndim) if dim is None else dim
        x = require_floating(name, "x", x if dtype is None else cast(x, require_dtype(name, dtype)))
        return (x,), {"dim": one_dim(name, dim, x.ndim)}

    def infer(x: TensorType, dim: int) -> TensorType:
        return x

    return Op(
        name,
        doc=f"{doc} along dim.  [..., n, ...] -> [..., n, ...].",
        signature="(x, dim=None, dtype=None)",
        prepare=prepare,
        infer=infer,
        reference=rounded(reference),
        grad=gradient_in_compute_dtype(grad),
        lowering=Composite(in_compute_dtype(rule)),
        attrs=("dim",),
        dtypes=FLOATING,
        samples=(
            call(fill(3, 4), 1),
            call(fill(3, 4), 0),
            call(fill(2, 3, 33), -1),
            call(fill(5, low=-90.0, high=90.0), 0),
            call(fill(1, 1), 1),
            call(fill(2, 0), 1),
            call(fill(0, 2), 1),
            call(fill(4, 6, special=True), 1),
        ),
        bad=(
            Bad((fill(3), 1), IndexError, f"{name}: Dimension out of range"),
            Bad((fill(3, dtype=int64), 0), RuntimeError, f"{name}: argument 'x' must be floating"),
            Bad((fill(3), 1.5), TypeError, f"{name}: argument 'dim' must be an int"),
        ),
        functions=(name, f"nn.functional.{name}", f"special.{name}"),
    )


softmax = _normalised("softmax", "exp(x) / sum(exp(x))", _softmax, _softmax_reference, _softmax_grad)
log_softmax = _normalised("log_softmax", "x - log(sum(exp(x)))", log_softmax_of, _log_softmax_reference, _log_softmax_grad)
