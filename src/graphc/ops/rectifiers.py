"""More activations: the rest of PyTorch's pointwise nonlinearities, prelu, glu and softmin.

Enters: tensors.  Leaves: operators.  Never here: those most used (`activation`), those that draw random numbers (`nn.noise`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.dtypes import DType, int64, uint8
from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Op
from graphc.ops.activation import numbers, softmax, softplus
from graphc.ops.arguments import constant, gradient_in_compute_dtype, number, of_type, one_dim, same_dtype, tensor
from graphc.ops.arithmetic import absolute, add, div, kept, mul, neg, square, sub
from graphc.ops.comparison import ge, gt, le, logical_and, logical_or, where
from graphc.ops.declare import FLOATING, INTEGERS, Shorthand, call, fill
from graphc.ops.elementwise import elementwise, unary_samples
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import select
from graphc.ops.movement import reshape, slice_
from graphc.ops.transcendental import exp, sigmoid, tanh


def rectifier(
    name: str,
    doc: str,
    rule: Callable[..., Expr],
    reference: Callable[..., Any],
    grad: Callable[..., Any],
    attrs: dict[str, Any] | None = None,
    *,
    integers: bool = False,
    places: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
    inplace: bool = True,
    check: Callable[..., None] | None = None,
    bad: tuple[Bad, ...] = (),
    route: Callable[..., Any] | None = None,
    dtypes: tuple[DType, ...] | None = None,
) -> Op:
    """A pointwise nonlinearity in ``nn.functional`` (and at `places`); its attributes are numbers."""
    refused = () if integers else (Bad((fill(3, dtype=int64),), RuntimeError, f"{name}: not defined for integer tensors"),)
    return elementwise(
        name,
        ("x",),
        doc=f"{doc}  [...] -> [...].",
        rule=rule,
        reference=reference,
        grad=gradient_in_compute_dtype(grad),
        kinds="uif" if integers else "f",
        attrs=attrs,
        check=check or (numbers(name) if attrs else None),
        dtypes=dtypes or ((*FLOATING, *INTEGERS) if integers else FLOATING),
        route=route,
        samples=unary_samples(-5.0, 5.0),
        bad=(*refused, *bad),
        methods=methods,
        functions=(f"nn.functional.{name}", *places),
        inplace=inplace,
    )


# ---- exponential below 0 -------------------------------------------------------------------------------------------

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def _positive(x: Expr) -> Expr:
    return fn("gt", x, literal(0, x.dtype))


selu = rectifier(
    "selu",
    "scale * (x where positive, else alpha * (exp(x) - 1)), fixed numbers (Klambauer and others 2017).",
    lambda x: select(
        _positive(x),
        fn("mul", x, literal(SELU_SCALE, x.dtype)),
        fn("mul", fn("expm1", x), literal(SELU_ALPHA * SELU_SCALE, x.dtype)),
    ),
    lambda xp, x: xp.where(x > 0, x, xp.expm1(x) * x.dtype.type(SELU_ALPHA)) * x.dtype.type(SELU_SCALE),
    lambda g, out, x: (where(gt(x, 0), mul(g, SELU_SCALE), mul(g, mul(exp(Op.table["minimum"](x, 0)), SELU_ALPHA * SELU_SCALE))),),
    places=("selu",),
)


def _check_celu(alpha: Any) -> None:
    if number("celu", "alpha", alpha) == 0:
        raise RuntimeError("celu: alpha cannot be 0: ZeroDivisionError")


celu = rectifier(
    "celu",
    "x where positive, else alpha * (exp(x / alpha) - 1) (Barron 2017).",
    lambda x, alpha: select(
        _positive(x), x, fn("mul", fn("expm1", fn("mul", x, literal(1.0 / alpha, x.dtype))), literal(alpha, x.dtype))
    ),
    lambda xp, x, alpha: xp.where(x > 0, x, xp.expm1(x * x.dtype.type(1.0 / alpha)) * x.dtype.type(alpha)),
    lambda g, out, x, alpha: (where(gt(x, 0), g, mul(g, exp(mul(Op.table["minimum"](x, 0), 1.0 / alpha)))),),
    {"alpha": 1.0},
    places=("celu",),
    check=_check_celu,
    bad=(Bad((fill(3), 0.0), RuntimeError, "celu: alpha cannot be 0"),),
)

# ---- straight pieces -----------------------------------------------------------------------------------------------


def _clamped(x: Expr, low: float, high: float) -> Expr:
    """x between two numbers; NaN stays."""
    bottom, top = literal(low, x.dtype), literal(high, x.dtype)
    return select(fn("lt", x, bottom), bottom, select(fn("gt", x, top), top, x))


def _between(g: Any, x: Any, low: float, high: float) -> Any:
    """g where low < x < high, else 0."""
    return where(logical_or(le(x, low), ge(x, high)), constant(0, g.dtype), g)


def _check_limits(min_val: Any, max_val: Any) -> None:
    if number("hardtanh", "min_val", min_val) > number("hardtanh", "max_val", max_val):
        raise ValueError(f"hardtanh: min_val cannot be greater than max_val, got {min_val} and {max_val}")


def _refuse_unsigned(op: Op, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Raises RuntimeError for limits below 0 of unsigned integers."""
    inputs, attrs = op.prepare(x, *args, **kwargs)
    if inputs[0].dtype.kind == "u" and min(attrs["min_val"], attrs["max_val"]) < 0:
        raise RuntimeError("hardtanh: cannot do hardtanh on an unsigned type with negative limits")
    return op.run(*inputs, **attrs)


hardtanh = rectifier(
    "hardtanh",
    "x clamped to [min_val, max_val].",
    lambda x, min_val, max_val: _clamped(x, min_val, max_val),
    lambda xp, x, min_val, max_val: xp.where(x < min_val, min_val, xp.where(x > max_val, max_val, x)).astype(x.dtype),
    lambda g, out, x, min_val, max_val: (_between(g, x, min_val, max_val),),
    {"min_val": -1.0, "max_val": 1.0},
    integers=True,
    check=_check_limits,
    bad=(
        Bad((fill(3), 2.0, 1.0), ValueError, "hardtanh: min_val cannot be greater"),
        Bad((fill(3, low=0, dtype=uint8),), RuntimeError, "hardtanh: cannot do hardtanh on an unsigned type"),
    ),
    route=_refuse_unsigned,
    dtypes=(*FLOATING, *(d for d in INTEGERS if d is not uint8)),
)
relu6 = rectifier(
    "relu6",
    "x clamped to [0, 6].",
    lambda x: _clamped(x, 0.0, 6.0),
    lambda xp, x: xp.where(x < 0, 0, xp.where(x > 6, 6, x)).astype(x.dtype),
    lambda g, out, x: (_between(g, x, 0.0, 6.0),),
    integers=True,
)


def _sixth(x: Expr) -> Expr:
    """relu6(x + 3) / 6."""
    return fn("div", _clamped(fn("add", x, literal(3, x.dtype)), 0.0, 6.0), literal(6, x.dtype))


hardsigmoid = rectifier(
    "hardsigmoid",
    "relu6(x + 3) / 6.",
    _sixth,
    lambda xp, x: xp.clip(x + 3, 0, 6) / 6,
    lambda g, out, x: (mul(_between(g, x, -3.0, 3.0), 1.0 / 6.0),),
)
hardswish = rectifier(
    "hardswish",
    "x * relu6(x + 3) / 6 (Howard and others 2019).",
    lambda x: fn("mul", x, _sixth(x)),
    lambda xp, x: x * (xp.clip(x + 3, 0, 6) / 6),
    lambda g, out, x: (where(ge(x, 3), g, where(le(x, -3), constant(0, g.dtype), mul(g, add(mul(x, 1.0 / 3.0), 0.5)))),),
)
threshold = rectifier(
    "threshold",
    "x where greater than threshold, else value.",
    lambda x, threshold, value: select(fn("le", x, literal(threshold, x.dtype)), literal(value, x.dtype), x),
    lambda xp, x, threshold, value: xp.where(x <= threshold, x.dtype.type(value), x),
    lambda g, out, x, threshold, value: (where(le(x, threshold), constant(0, g.dtype), g),),
    {"threshold": 0, "value": 0},
    integers=True,
    places=("threshold",),
)


def _inside(x: Any, lambd: float) -> Any:
    return logical_and(ge(x, -lambd), le(x, lambd))


hardshrink = rectifier(
    "hardshrink",
    "x where |x| > lambd, else 0.",
    lambda x, lambd: select(fn("le", fn("abs", x), literal(lambd, x.dtype)), literal(0, x.dtype), x),
    lambda xp, x, lambd: xp.where(xp.abs(x) <= lambd, x.dtype.type(0), x),
    lambda g, out, x, lambd: (where(_inside(x, lambd), constant(0, g.dtype), g),),
    {"lambd": 0.5},
    places=("hardshrink",),
    methods=("hardshrink",),
    inplace=False,
)


def _softshrink_rule(x: Expr, lambd: float) -> Expr:
    step = literal(lambd, x.dtype)
    low = select(fn("lt", x, fn("neg", step)), fn("add", x, step), fn("mul", x, literal(0, x.dtype)))
    return select(fn("gt", x, step), fn("sub", x, step), low)


def _check_softshrink(lambd: Any) -> None:
    if number("softshrink", "lambd", lambd) < 0:
        raise RuntimeError(f"softshrink: lambda must be greater or equal to 0, but found to be {lambd}.")


softshrink = rectifier(
    "softshrink",
    "x moved towards 0 by lambd, 0 where |x| <= lambd.",
    _softshrink_rule,
    lambda xp, x, lambd: xp.where(x > lambd, x - x.dtype.type(lambd), xp.where(x < -lambd, x + x.dtype.type(lambd), x * 0)),
    lambda g, out, x, lambd: (where(_inside(x, lambd), constant(0, g.dtype), g),),
    {"lambd": 0.5},
    inplace=False,
    check=_check_softshrink,
    bad=(Bad((fill(3), -1.0), RuntimeError, "softshrink: lambda must be"),),
)

# ---- smooth --------------------------------------------------------------------------------------------------------


def _logsigmoid_rule(x: Expr) -> Expr:
    tail = fn("log1p", fn("exp", fn("neg", fn("abs", x))))
    return fn("sub", fn("min", x, literal(0, x.dtype)), tail)


logsigmoid = rectifier(
    "logsigmoid",
    "log(sigmoid(x)) without overflow.",
    _logsigmoid_rule,
    lambda xp, x: xp.minimum(x, 0) - xp.log1p(xp.exp(-xp.abs(x))),
    lambda g, out, x: (mul(g, sigmoid(neg(x))),),
    inplace=False,
)


def _mish_grad(g: Any, out: Any, x: Any) -> tuple[Any]:
    t = tanh(softplus(x))
    return (mul(g, add(t, mul(mul(x, sigmoid(x)), sub(1, square(t))))),)


mish = rectifier(
    "mish",
    "x * tanh(log(1 + exp(x))) (Misra 2019).",
    lambda x: fn("mul", x, fn("tanh", fn("log1p", fn("exp", x)))),
    lambda xp, x: x * xp.tanh(xp.log1p(xp.exp(x))),
    _mish_grad,
)


def _of_floats(name: str, doc: str, rule: Callable[[Any], Any]) -> Shorthand:
    return Shorthand(
        name,
        doc=f"{doc}  [...] -> [...].",
        rule=rule,
        dtypes=FLOATING,
        samples=(call(fill(3, 4)), call(fill())),
        bad=(Bad((2.0,), TypeError, f"{name}: argument 'x' must be a Tensor"),),
        methods=(),
        functions=(f"nn.functional.{name}",),
    )


def _softsign(x: Any) -> Any:
    return div(tensor("softsign", "x", x), add(absolute(x), 1))


def _tanhshrink(x: Any) -> Any:
    return sub(tensor("tanhshrink", "x", x), tanh(x))


softsign = _of_floats("softsign", "x / (1 + |x|).", _softsign)
tanhshrink = _of_floats("tanhshrink", "x - tanh(x).", _tanhshrink)

# ---- with a weight, or halves of a tensor --------------------------------------------------------------------------

leak = elementwise(
    "leak",
    ("x", "weight"),
    doc="x where positive, else weight * x.  [...] , [...] -> broadcast.",
    rule=lambda x, weight: select(_positive(x), x, fn("mul", weight, x)),
    reference=lambda xp, x, weight: xp.where(x > 0, x, weight * x),
    grad=lambda g, out, x, weight: (where(gt(x, 0), g, mul(g, weight)), kept(le(x, 0), mul(g, x))),
    kinds="f",
    dtypes=FLOATING,
    methods=(),
    functions=(),
)


def _prelu(x: Any, weight: Any) -> Any:
    x, weight = tensor("prelu", "x", x), tensor("prelu", "weight", weight)
    if weight.ndim > 1:
        raise RuntimeError(f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {weight.ndim}")
    same_dtype("prelu", (of_type(x), of_type(weight)))
    if weight.ndim == 1 and weight.shape[0] != 1:
        channels = x.shape[1] if x.ndim > 1 else 1
        if x.ndim == 0 or weight.shape[0] != channels:
            raise RuntimeError(f"prelu: weight must be one number or one a channel ({channels}): {of_type(x)}, {of_type(weight)}")
        weight = reshape.run(weight, shape=(1, channels, *(1 for _ in range(x.ndim - 2))))
    else:
        weight = reshape.run(weight, shape=(1,) * x.ndim)
    return leak(x, weight)


prelu = Shorthand(
    "prelu",
    doc="x where positive, else weight * x; weight is one number, or one a channel (dim 1).  [N, C, ...], [C] -> [N, C, ...].",
    rule=_prelu,
    dtypes=FLOATING,
    samples=(call(fill(3, 4), fill(4)), call(fill(2, 3, 5), fill(1)), call(fill(5), fill())),
    bad=(Bad((fill(3, 4), fill(3)), RuntimeError, "prelu: weight must be one number or one a channel"),),
    functions=("prelu", "nn.functional.prelu"),
    autocast="lower",
)


def _glu(x: Any, dim: int = -1) -> Any:
    x = tensor("glu", "x", x)
    if x.ndim == 0:
        raise RuntimeError("glu: does not support 0-dimensional tensors")
    dim = one_dim("glu", dim, x.ndim)
    size = x.shape[dim]
    if isinstance(size, int) and size % 2:
        raise RuntimeError(f"glu: Halving dimension must be even, but dimension {dim} is size {size}")
    halves = []
    half = size // 2
    for start, stop in ((0, half), (half, half + half)):
        starts = tuple(start if k == dim else 0 for k in range(x.ndim))
        stops = tuple(stop if k == dim else s for k, s in enumerate(x.shape))
        halves.append(slice_.run(x, starts=starts, stops=stops, steps=(1,) * x.ndim))
    return mul(halves[0], sigmoid(halves[1]))


glu = Shorthand(
    "glu",
    doc="The first half along dim times the sigmoid of the second (Dauphin and others 2017).  [..., 2n, ...] -> [..., n, ...].",
    rule=_glu,
    dtypes=FLOATING,
    samples=(call(fill(3, 4)), call(fill(2, 6), 1), call(fill(4, 3), dim=0)),
    bad=(Bad((fill(3),), RuntimeError, "Halving dimension must be even"),),
    methods=(),
    functions=("nn.functional.glu",),
)


def _softmin(x: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    return softmax(neg(tensor("softmin", "x", x)), dim, dtype)


softmin = Shorthand(
    "softmin",
    doc="softmax(-x) along dim.  [...] -> [...].",
    rule=_softmin,
    dtypes=FLOATING,
    samples=(call(fill(3, 4), 1), call(fill(3), dim=0)),
    bad=(Bad((fill(3), 2), IndexError, "softmax: Dimension out of range"),),
    methods=(),
    functions=("nn.functional.softmin",),
)
