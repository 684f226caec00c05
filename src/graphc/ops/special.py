"""Special functions, element by element: the error function's family, gamma's, Bessel's, and what is written with logarithms.

Enters: floating tensors (integers become the default floating dtype).  Leaves: operators.
Never here: how a function is computed (`codegen.mathlib_special`); its NumPy reference (`special_arrays`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dtypes import bool_, int64
from graphc.ir.loops import Call, Expr
from graphc.ir.op import Bad, Op
from graphc.ops import special_arrays as arrays
from graphc.ops.arguments import constant, floating, gradient_in_compute_dtype, is_tensor, number, promoted, tensor
from graphc.ops.arithmetic import add, div, mul, neg, reciprocal, square, sub
from graphc.ops.comparison import eq, ge, le, logical_and, where
from graphc.ops.declare import Shorthand, call, fill
from graphc.ops.elementwise import Prepared, binary_samples, elementwise, unary_samples
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import select
from graphc.ops.transcendental import cos, exp, log, rsqrt, sin

ROOT_PI = math.sqrt(math.pi)
MOST_DERIVATIVES = 100  # of digamma, and dimensions of mvlgamma: their code grows with the number


def special(
    name: str,
    doc: str,
    derivative: Callable[[Any, Any], Any],
    *,
    reference: str | Callable[..., Any],
    domain: tuple[float, float] = (-2.0, 2.0),
    everywhere: bool = True,
    rule: str | Callable[..., Any] | None = None,
    functions: tuple[str, ...] | None = None,
    methods: tuple[str, ...] | None = None,
    inplace: bool = True,
    kinds: str = "f",
) -> Op:
    """A function of one floating operand; `derivative(out, x)` multiplies the gradient.

    everywhere: whether the reference holds for special values too.
    """
    samples = unary_samples(*domain)
    return elementwise(
        name,
        ("x",),
        doc=f"{doc}  [...] -> [...].",
        rule=rule or (lambda x: fn(name, x)),
        reference=reference,
        grad=gradient_in_compute_dtype(lambda g, out, x: (mul(g, derivative(out, x)),)),
        kinds=kinds,
        promotion="float",
        samples=samples if everywhere else samples[:-1],
        methods=(name,) if methods is None else methods,
        functions=(name, f"special.{name}") if functions is None else functions,
        inplace=inplace,
    )


# ---- inverse hyperbolic functions ----------------------------------------------------------------------------------

asinh = special(
    "asinh",
    "Inverse hyperbolic sine.",
    lambda out, x: rsqrt(add(square(x), 1)),
    reference="arcsinh",
    kinds="fc",
    functions=("asinh", "arcsinh"),
    methods=("asinh", "arcsinh"),
)
acosh = special(
    "acosh",
    "Inverse hyperbolic cosine.",
    lambda out, x: rsqrt(sub(square(x), 1)),
    reference="arccosh",
    domain=(1.1, 3.0),
    kinds="fc",
    functions=("acosh", "arccosh"),
    methods=("acosh", "arccosh"),
)
atanh = special(
    "atanh",
    "Inverse hyperbolic tangent.",
    lambda out, x: reciprocal(sub(1, square(x))),
    reference="arctanh",
    domain=(-0.9, 0.9),
    kinds="fc",
    functions=("atanh", "arctanh"),
    methods=("atanh", "arctanh"),
)

# ---- the error function's family -----------------------------------------------------------------------------------

erfc = special(
    "erfc",
    "1 - erf(x).",
    lambda out, x: mul(exp(neg(square(x))), -2.0 / ROOT_PI),
    reference=arrays.elementwise(math.erfc),
)
erfcx: Op = special(
    "erfcx",
    "exp(x*x) * erfc(x).",
    lambda out, x: sub(mul(mul(x, out), 2), 2.0 / ROOT_PI),
    reference=arrays.elementwise(arrays.scaled_complement),
    functions=("special.erfcx",),
    methods=(),
)
erfinv = special(
    "erfinv",
    "The inverse of erf.",
    lambda out, x: mul(exp(square(out)), ROOT_PI / 2),
    reference=arrays.elementwise(lambda x: arrays.inverse_normal((x + 1) / 2) / math.sqrt(2)),
    domain=(-0.9, 0.9),
    everywhere=False,
)
ndtr: Op = special(
    "ndtr",
    "The normal distribution function.",
    lambda out, x: mul(exp(mul(square(x), -0.5)), 1 / math.sqrt(math.tau)),
    reference=arrays.elementwise(arrays.normal),
    functions=("special.ndtr",),
    methods=(),
)
log_ndtr = special(
    "log_ndtr",
    "The logarithm of the normal distribution function.",
    lambda out, x: div(math.sqrt(2 / math.pi), erfcx(mul(x, -math.sqrt(0.5)))),
    reference=arrays.elementwise(arrays.log_normal),
    functions=("special.log_ndtr",),
    methods=(),
)
ndtri = special(
    "ndtri",
    "The inverse of the normal distribution function.",
    lambda out, x: mul(exp(mul(square(out), 0.5)), math.sqrt(math.tau)),
    reference=arrays.elementwise(arrays.inverse_normal),
    domain=(0.1, 0.9),
    everywhere=False,
    functions=("special.ndtri",),
    methods=(),
)

# ---- gamma's family ------------------------------------------------------------------------------------------------


def _polygamma_prepare(*args: Any, **kwargs: Any) -> Prepared:
    """``polygamma(n, x)``, or as a method ``x.polygamma(n)``."""
    if len(args) == 1 and is_tensor(args[0]):
        args = (kwargs.pop("n"), *args)
    elif len(args) == 2 and is_tensor(args[0]):
        args = args[::-1]
    elif len(args) == 1:
        args = (*args, kwargs.pop("x", None))
    if len(args) != 2 or kwargs:
        raise TypeError("polygamma: takes an order n and a Tensor")
    n, x = args[0], tensor("polygamma", "x", args[1])
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"polygamma: argument 'n' must be an int, not {type(n).__name__}")
    if n < 0:
        raise RuntimeError(f"polygamma(n, x) does not support negative n, got {n}")
    if n > MOST_DERIVATIVES:
        raise RuntimeError(f"polygamma: orders above {MOST_DERIVATIVES} are not supported, got {n}")
    return (floating("polygamma", "x", x),), {"n": n}


def _polygamma_rule(x: Expr, n: int) -> Expr:
    return Call("polygamma", (literal(n, int64), x), x.dtype)


polygamma: Op = elementwise(
    "polygamma",
    ("x",),
    doc="The n-th derivative of digamma.  [...] -> [...].",
    signature="(n, x)",
    prepare=_polygamma_prepare,
    rule=_polygamma_rule,
    reference=arrays.polygamma_array,
    grad=gradient_in_compute_dtype(lambda g, out, x, n: (mul(g, polygamma(n + 1, x)),)),
    kinds="f",
    promotion="float",
    attrs={"n": 0},
    samples=tuple(call(n, fill(3, 4, low=0.3, high=4.0)) for n in range(5)),
    bad=(
        Bad((-1, fill(2)), RuntimeError, "polygamma.* does not support negative n"),
        Bad((101, fill(2)), RuntimeError, "orders above 100"),
    ),
    functions=("polygamma", "special.polygamma"),
    inplace=True,
)
digamma = special(
    "digamma",
    "The derivative of log gamma.",
    lambda out, x: polygamma(1, x),
    reference=arrays.elementwise(arrays.harmonic),
    domain=(0.3, 4.0),
    functions=("digamma", "special.digamma", "special.psi"),
)
lgamma = special(
    "lgamma",
    "log(abs(gamma(x))).",
    lambda out, x: digamma(x),
    reference=arrays.elementwise(arrays.log_gamma),
    domain=(0.3, 4.0),
    functions=("lgamma", "special.gammaln"),
)


def _mvlgamma(x: Any, p: int) -> Any:
    x = tensor("mvlgamma", "x", x)
    if not isinstance(p, int) or not 1 <= p <= MOST_DERIVATIVES:
        raise RuntimeError(f"mvlgamma: p has to be greater than or equal to 1 (and at most {MOST_DERIVATIVES}), got {p}")
    total = lgamma(x)
    for k in range(1, p):
        total = add(total, lgamma(sub(x, k / 2)))
    return add(total, p * (p - 1) * math.log(math.pi) / 4)


mvlgamma = Shorthand(
    "mvlgamma",
    doc="The logarithm of the multivariate gamma function of dimension p.  [...] -> [...].",
    rule=_mvlgamma,
    dtypes=lgamma.dtypes,
    samples=(call(fill(3, 4, low=2.0, high=4.0), 3), call(fill(5, low=1.0), 1)),
    bad=(Bad((fill(2), 0), RuntimeError, "mvlgamma: p has to be"),),
    functions=("mvlgamma", "special.multigammaln"),
    inplace=True,
)

# ---- modified Bessel functions -------------------------------------------------------------------------------------


def _sign(x: Any) -> Any:
    return Op.table["sign"](x)


def _slope_of_first_order(leading: Any, out: Any, x: Any, more: Any) -> Any:
    """leading - out * more, where more has a pole at 0; 1/2 there."""
    zero = eq(x, 0)
    safe = where(zero, constant(1, x.dtype), x)
    return where(zero, constant(0.5, x.dtype), sub(leading, mul(out, more(safe))))


i0 = special(
    "i0",
    "Modified Bessel function of the first kind, order 0.",
    lambda out, x: i1(x),
    reference=arrays.bessel(0, False),
    everywhere=False,
)
i0e = special(
    "i0e",
    "exp(-abs(x)) * i0(x).",
    lambda out, x: sub(i1e(x), mul(_sign(x), out)),
    reference=arrays.bessel(0, True),
    functions=("special.i0e",),
    methods=(),
)
i1: Op = special(
    "i1",
    "Modified Bessel function of the first kind, order 1.",
    lambda out, x: _slope_of_first_order(i0(x), out, x, reciprocal),
    reference=arrays.bessel(1, False),
    everywhere=False,
    functions=("special.i1",),
    methods=(),
)
i1e: Op = special(
    "i1e",
    "exp(-abs(x)) * i1(x).",
    lambda out, x: _slope_of_first_order(i0e(x), out, x, lambda safe: add(_sign(safe), reciprocal(safe))),
    reference=arrays.bessel(1, True),
    functions=("special.i1e",),
    methods=(),
)

# ---- logarithms of probabilities -----------------------------------------------------------------------------------


def _entr_rule(x: Expr) -> Expr:
    zero = literal(0, x.dtype)
    inside = fn("neg", fn("mul", x, fn("log", x)))
    return select(
        fn("gt", x, zero), inside, select(fn("eq", x, zero), zero, select(fn("lt", x, zero), literal(-math.inf, x.dtype), x))
    )


entr = special(
    "entr",
    "-x * log(x); 0 at 0, -inf below.",
    lambda out, x: sub(neg(log(x)), 1),
    rule=_entr_rule,
    reference=lambda xp, x: xp.where(x > 0, -x * xp.log(xp.where(x > 0, x, 1)), xp.where(x == 0, 0, xp.where(x < 0, -np.inf, x))),
    domain=(0.2, 2.0),
    functions=("special.entr",),
    methods=(),
)


def _logit_rule(x: Expr, eps: float | None) -> Expr:
    one = literal(1, x.dtype)
    if eps is not None:
        low, high = literal(eps, x.dtype), fn("sub", one, literal(eps, x.dtype))
        x = select(fn("lt", x, low), low, select(fn("gt", x, high), high, x))
    return fn("log", fn("div", x, fn("sub", one, x)))


def _logit_reference(xp: Any, x: Any, eps: float | None) -> Any:
    one = x.dtype.type(1)
    if eps is not None:
        x = xp.clip(x, x.dtype.type(eps), one - x.dtype.type(eps))
    return xp.log(x / (one - x))


def _logit_grad(g: Any, out: Any, x: Any, eps: float | None) -> tuple[Any]:
    low = 0.0 if eps is None else eps
    inside = logical_and(ge(x, low), le(x, 1.0 - low))
    return (where(inside, div(g, mul(x, sub(1, x))), constant(math.nan if eps is None else 0.0, g.dtype)),)


def _logit_check(eps: Any) -> None:
    if eps is not None:
        number("logit", "eps", eps)


logit = elementwise(
    "logit",
    ("x",),
    doc="log(x / (1 - x)), x clamped to [eps, 1 - eps] where eps is given.  [...] -> [...].",
    rule=_logit_rule,
    reference=_logit_reference,
    grad=gradient_in_compute_dtype(_logit_grad),
    kinds="f",
    promotion="float",
    attrs={"eps": None},
    check=_logit_check,
    samples=(*unary_samples(0.1, 0.9), call(fill(33, low=-0.5, high=1.5), 0.2)),
    bad=(Bad((fill(2), "a"), TypeError, "logit: argument 'eps'"),),
    functions=("logit", "special.logit"),
    inplace=True,
)


def _times_log(name: str, doc: str, logarithm: str, low: float) -> Op:
    """x * logarithm(other), 0 where x is 0."""

    def rule(x: Expr, other: Expr) -> Expr:
        value = select(fn("eq", x, literal(0, x.dtype)), literal(0, x.dtype), fn("mul", x, fn(logarithm, other)))
        return select(fn("ne", other, other), other, value)

    def reference(xp: Any, x: Any, other: Any) -> Any:
        return xp.where(xp.isnan(other), other, xp.where(x == 0, x.dtype.type(0), x * getattr(xp, logarithm)(other)))

    def grad(g: Any, out: Any, x: Any, other: Any) -> tuple[Any, Any]:
        undefined = logical_and(eq(x, 0), le(other, low))
        shifted = other if logarithm == "log" else add(other, 1)
        return where(undefined, constant(0, g.dtype), Op.table[name](g, other)), div(mul(g, x), shifted)

    return elementwise(
        name,
        ("x", "other"),
        doc=f"{doc}; 0 where x is 0, NaN where other is.  [...] , [...] -> broadcast.",
        rule=rule,
        reference=reference,
        grad=gradient_in_compute_dtype(grad),
        kinds="f",
        promotion="float",
        samples=binary_samples(0.3, 2.0),
        methods=(name,) if name == "xlogy" else (),
        functions=(name, f"special.{name}") if name == "xlogy" else (f"special.{name}",),
        inplace=True,
    )


xlogy = _times_log("xlogy", "x * log(other)", "log", 0.0)
xlog1py = _times_log("xlog1py", "x * log(1 + other)", "log1p", -1.0)

# ---- sinc ----------------------------------------------------------------------------------------------------------


def _sinc_rule(x: Expr) -> Expr:
    turned = fn("mul", x, literal(math.pi, x.dtype))
    return select(fn("eq", x, literal(0, x.dtype)), literal(1, x.dtype), fn("div", fn("sin", turned), turned))


def _sinc_slope(out: Any, x: Any) -> Any:
    turned = mul(x, math.pi)
    bottom = mul(square(x), math.pi)
    zero = eq(bottom, 0)
    return where(zero, constant(0, x.dtype), div(sub(mul(turned, cos(turned)), sin(turned)), bottom))


def _sinc_reference(xp: Any, x: Any) -> Any:
    turned = x * x.dtype.type(math.pi)
    return xp.where(x == 0, x.dtype.type(1), xp.sin(turned) / turned)


sinc = special(
    "sinc", "sin(pi x) / (pi x); 1 at 0.", _sinc_slope, rule=_sinc_rule, reference=_sinc_reference, domain=(0.2, 2.0), kinds="fc"
)


# ---- log of sums of exponentials -----------------------------------------------------------------------------------


def _of_complex(op: Op, x: Any, other: Any) -> Any:
    """Complex numbers by way of log1p; the term of the greater real part is taken out."""
    if "c" not in (getattr(getattr(v, "dtype", None), "kind", "") for v in (x, other)):
        inputs, attrs = op.prepare(x, other)
        return op.run(*inputs, **attrs)
    x, other = promoted(op.name, (x, other), ("x", "other"))
    first = Op.table["ge"](*(Op.table["real"](v) for v in (x, other)))
    large, small = where(first, x, other), where(first, other, x)
    return add(large, Op.table["log1p"](exp(sub(small, large))))


def _logaddexp(name: str, base: str) -> Op:
    power, scale = ("exp", 1.0) if base == "e" else ("exp2", 1 / math.log(2.0))

    def rule(x: Expr, other: Expr) -> Expr:
        apart = fn("neg", fn("abs", fn("sub", x, other)))
        more = fn("log1p", fn(power, apart))
        more = more if base == "e" else fn("mul", more, literal(scale, x.dtype))
        same = select(fn("eq", fn("abs", x), literal(math.inf, x.dtype)), fn("eq", x, other), literal(False, bool_))
        return select(same, x, fn("add", fn("max", x, other), more))

    def grad(g: Any, out: Any, x: Any, other: Any) -> tuple[Any, Any]:
        weight = Op.table["sigmoid"](mul(sub(x, other), 1.0 if base == "e" else math.log(2.0)))
        return mul(g, weight), mul(g, sub(1, weight))

    return elementwise(
        name,
        ("x", "other"),
        doc=f"log(exp(x) + exp(other)), to base {base}, without overflow.  [...] , [...] -> broadcast.",
        rule=rule,
        reference=name,
        grad=gradient_in_compute_dtype(grad),
        kinds="f",
        promotion="float",
        samples=binary_samples(),
        route=_of_complex if base == "e" else None,
        strict=2,
    )


logaddexp = _logaddexp("logaddexp", "e")
logaddexp2 = _logaddexp("logaddexp2", "2")
