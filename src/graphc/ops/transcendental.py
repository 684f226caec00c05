"""Mathematical functions, element by element: exponentials, logarithms, trigonometry, powers.

Enters: floating tensors (integers become the default floating dtype).  Leaves: operators.
Never here: how a function is computed (every renderer's mathlib) or activations (`activation`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dtypes import bool_, complex128, float64
from graphc.ir.op import Bad, Op
from graphc.ops.arguments import cast, constant, gradient_in_compute_dtype, is_tensor, number
from graphc.ops.arithmetic import add, div, mul, neg, reciprocal, square, sub
from graphc.ops.declare import EVERY, NUMERIC, NUMERIC_COMPLEX, Shorthand, call, fill
from graphc.ops.elementwise import binary_samples, elementwise, unary_samples

# Further places that PyTorch has a function in.
_ELSEWHERE = {
    "tanh": ("nn.functional.tanh",),
    "sigmoid": ("nn.functional.sigmoid", "special.expit"),
    **{name: (f"special.{name}",) for name in ("erf", "exp2", "expm1", "log1p")},
}


def function(
    name: str,
    doc: str,
    derivative: Callable[[Any, Any], Any],
    *,
    domain: tuple[float, float] = (-2.0, 2.0),
    reference: str | Callable[..., Any] | None = None,
    rule: str | Callable[..., Any] | None = None,
    aliases: tuple[str, ...] = (),
    kinds: str = "fc",
) -> Op:
    """A function of one floating (or complex) operand; `derivative(out, x)` multiplies the gradient."""
    return elementwise(
        name,
        ("x",),
        doc=f"{doc}  [...] -> [...].",
        rule=rule or name,
        reference=reference or name,
        grad=gradient_in_compute_dtype(lambda g, out, x: (mul(g, derivative(out, x)),)),
        kinds=kinds,
        promotion="float",
        dtypes=(NUMERIC_COMPLEX if "c" in kinds else NUMERIC) if domain == (-2.0, 2.0) else None,
        samples=unary_samples(*domain),
        methods=(name, *aliases),
        functions=(name, *aliases, *_ELSEWHERE.get(name, ())),
        inplace=True,
    )


# ---- exponentials and logarithms -----------------------------------------------------------------------------------

exp = function("exp", "e to the x.", lambda out, x: out)
exp2 = function("exp2", "2 to the x.", lambda out, x: mul(out, math.log(2.0)))
expm1 = function("expm1", "exp(x) - 1, exact near 0.", lambda out, x: add(out, 1))
log = function("log", "Natural logarithm.", lambda out, x: reciprocal(x), domain=(0.2, 3.0))
log1p = function("log1p", "log(1 + x), exact near 0.", lambda out, x: reciprocal(add(x, 1)), domain=(-0.5, 2.0))
log2 = function("log2", "Logarithm to base 2.", lambda out, x: reciprocal(mul(x, math.log(2.0))), domain=(0.2, 3.0))
log10 = function("log10", "Logarithm to base 10.", lambda out, x: reciprocal(mul(x, math.log(10.0))), domain=(0.2, 3.0))
sqrt = function("sqrt", "Square root, correctly rounded.", lambda out, x: reciprocal(mul(out, 2)), domain=(0.2, 3.0))
rsqrt = function(
    "rsqrt",
    "1 / sqrt(x).",
    lambda out, x: mul(mul(out, square(out)), -0.5),
    domain=(0.2, 3.0),
    reference=lambda xp, x: xp.divide(x.dtype.type(1), xp.sqrt(x)),
)

# ---- trigonometry --------------------------------------------------------------------------------------------------

sin = function("sin", "Sine.", lambda out, x: cos(x))
cos: Op = function("cos", "Cosine.", lambda out, x: neg(sin(x)))
tan = function("tan", "Tangent.", lambda out, x: add(square(out), 1), domain=(-1.2, 1.2))
asin = function(
    "asin",
    "Inverse sine.",
    lambda out, x: rsqrt(sub(1, square(x))),
    domain=(-0.9, 0.9),
    reference="arcsin",
    aliases=("arcsin",),
)
acos = function(
    "acos",
    "Inverse cosine.",
    lambda out, x: neg(rsqrt(sub(1, square(x)))),
    domain=(-0.9, 0.9),
    reference="arccos",
    aliases=("arccos",),
)
atan = function("atan", "Inverse tangent.", lambda out, x: reciprocal(add(square(x), 1)), reference="arctan", aliases=("arctan",))
sinh = function("sinh", "Hyperbolic sine.", lambda out, x: cosh(x))
cosh: Op = function("cosh", "Hyperbolic cosine.", lambda out, x: sinh(x))
tanh = function("tanh", "Hyperbolic tangent.", lambda out, x: sub(1, square(out)))


def _atan2_grad(g: Any, out: Any, y: Any, x: Any) -> tuple[Any, Any]:
    squares = add(square(x), square(y))
    nowhere = Op.table["eq"](squares, 0)  # the angle of the origin has no slope
    scaled = Op.table["where"](nowhere, constant(0, g.dtype), div(g, squares))
    return mul(scaled, x), neg(mul(scaled, y))


atan2 = elementwise(
    "atan2",
    ("x", "other"),
    doc="The angle of the point (other, x), in (-pi, pi].  [...] , [...] -> broadcast.",
    rule="atan2",
    reference="arctan2",
    grad=gradient_in_compute_dtype(_atan2_grad),
    kinds="f",
    promotion="float",
    samples=binary_samples(0.3, 2.0, -2.0, -0.3),
    strict=2,
    methods=("atan2", "arctan2"),
    functions=("atan2", "arctan2"),
    inplace=True,
)

# ---- sigmoid, erf --------------------------------------------------------------------------------------------------


def sigmoid_array(xp: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)), of real numbers without overflow, as a reference."""
    if x.dtype.kind == "c":
        return 1 / (1 + xp.exp(-x))
    e = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


def erf_array(xp: Any, x: Any) -> Any:
    """erf of every element through the C library, as a reference."""
    values = np.asarray(x.get() if hasattr(x, "get") else x)
    return xp.asarray(np.vectorize(math.erf, otypes=[np.float64])(values).astype(values.dtype))


sigmoid = function("sigmoid", "1 / (1 + exp(-x)).", lambda out, x: mul(out, sub(1, out)), reference=sigmoid_array)
erf = function(
    "erf", "Error function.", lambda out, x: mul(exp(neg(square(x))), 2.0 / math.sqrt(math.pi)), reference=erf_array, kinds="f"
)

# ---- pow -----------------------------------------------------------------------------------------------------------

_SHORTCUTS: dict[float, Callable[[Any], Any]] = {
    0: lambda x: Op.table["fill"](x, 1),
    2: square,
    3: lambda x: mul(square(x), x),
    0.5: sqrt,
    -0.5: rsqrt,
    -1: reciprocal,
}


def _pow_route(op: Op, x: Any, exponent: Any) -> Any:
    """Small constant exponents are products and roots, as in PyTorch."""
    if is_tensor(x) and not is_tensor(exponent):
        exponent = number("pow", "exponent", exponent)
        integral = x.dtype.kind in "biu"
        if integral and isinstance(exponent, int) and exponent < 0:
            raise RuntimeError("pow: Integers to negative integer powers are not allowed.")
        if isinstance(exponent, int | float) and not (integral and (exponent not in (2, 3) or x.dtype is bool_)):
            shortcut = _SHORTCUTS.get(exponent)
            if shortcut is not None and not (integral and isinstance(exponent, float)):
                return shortcut(x)
    inputs, attrs = op.prepare(x, exponent)
    return op.run(*inputs, **attrs)


def _pow_reference(xp: Any, x: Any, y: Any) -> Any:
    if x.dtype.kind in "fc":
        return xp.power(x, y)
    magnitude = xp.power(x, xp.maximum(y, 0))  # NumPy refuses negative integer exponents
    unit = xp.where(x == 1, 1, xp.where(x == -1, xp.where(y % 2 == 0, 1, -1), 0))
    return xp.where(y < 0, unit, magnitude).astype(x.dtype)


def _pow_grad(g: Any, out: Any, x: Any, y: Any) -> tuple[Any, Any]:
    eq, where = Op.table["eq"], Op.table["where"]
    zero = constant(0, x.dtype)
    gx = where(eq(y, 0), zero, mul(g, mul(y, pow_(x, sub(y, 1)))))
    at_zero = Op.table["logical_and"](eq(x, 0), Op.table["ge"](Op.table["real"](y), 0))
    return gx, where(at_zero, zero, mul(g, mul(out, log(where(at_zero, constant(1, x.dtype), x)))))


pow_ = elementwise(
    "pow",
    ("x", "exponent"),
    doc="x to the power `exponent`.  [...] , [...] -> broadcast.",
    route=_pow_route,
    rule="pow",
    reference=_pow_reference,
    grad=gradient_in_compute_dtype(_pow_grad),
    kinds="uifc",
    samples=(
        *binary_samples(0.3, 2.0),
        call(fill(3, 4, low=0.2), 2),
        call(fill(3, 4, low=0.2), 3),
        call(fill(3, 4, low=0.2), 0.5),
        call(fill(5, low=0.3), 1.7),
        call(2, fill(5, low=0.0)),
        call(fill(4), 0),
    ),
    bad=(Bad((fill(2, dtype=bool_), fill(2, dtype=bool_)), RuntimeError, "pow: not defined for bool"),),
    methods=("pow",),
    functions=("pow",),
    inplace=True,
    renamed={"self": "input"},
)


def _float_power(x: Any, exponent: Any) -> Any:
    if not is_tensor(x) and not is_tensor(exponent):
        raise TypeError(f"float_power: argument 'x' must be a Tensor, not {type(x).__name__}")
    numbers = [v if is_tensor(v) else number("float_power", "exponent", v) for v in (x, exponent)]
    is_complex = any(isinstance(v, complex) or (is_tensor(v) and v.dtype.kind == "c") for v in numbers)
    wide = complex128 if is_complex else float64
    base, power = (cast(v, wide) if is_tensor(v) else v for v in numbers)
    return pow_(base, float(power) if isinstance(power, int) else power)


float_power = Shorthand(
    "float_power",
    doc="x to the power `exponent`, in float64 or complex128.  [...] , [...] -> broadcast.",
    rule=_float_power,
    reference=lambda xp, x, exponent: xp.float_power(x.astype(xp.float64), exponent),
    dtypes=EVERY,
    samples=(call(fill(3, 4, low=0.3), fill(4)), call(fill(3, 4, low=0.3), 2), call(fill(0, 2), fill(2)), call(fill(low=0.3), 1.5)),
    bad=(Bad((2.0, 3.0), TypeError, "float_power: argument 'x' must be a Tensor"),),
    inplace=True,
)
