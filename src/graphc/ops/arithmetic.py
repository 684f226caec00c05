"""Arithmetic, rounding and selection, element by element.

Enters: tensors and numbers.  Leaves: operators.  Never here: `transcendental`, `comparison`.

Integer division and remainder by zero raise RuntimeError("ZeroDivisionError"), as PyTorch does on a CPU.
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import bool_, int64
from graphc.ir.loops import Const, Expr
from graphc.ir.op import Bad, Op
from graphc.ops.arguments import cast, constant, gradient_in_compute_dtype, number, of_type, promoted, rounded, tensor, zeros_like
from graphc.ops.declare import EVERY, EVERY_COMPLEX, FLOATING, FLOATING_COMPLEX, NUMERIC, NUMERIC_COMPLEX, Shorthand, call, fill
from graphc.ops.elementwise import BINARY, Prepared, binary_samples, elementwise, unary_samples
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import select

_BOOL_FORM = {"add": "or", "mul": "and", "max": "or", "min": "and"}


def _with_bool_form(name: str) -> Any:
    """`name`, or its logical form for bools."""
    return lambda x, y: fn(_BOOL_FORM[name] if x.dtype is bool_ else name, x, y)


def _scaled_by_alpha(name: str) -> Any:
    """``name(x, other, *, alpha=1)``: other is multiplied by alpha first."""

    def prepare(x: Any, other: Any, *, alpha: Any = 1) -> Prepared:
        x, other = promoted(name, (x, other), ("x", "other"))
        if alpha != 1:
            if isinstance(number(name, "alpha", alpha), complex) and x.dtype.kind != "c":
                raise RuntimeError(
                    f"{name}: For non-complex input tensors, argument alpha must not be a complex number, got {alpha}"
                )
            if isinstance(alpha, float) and x.dtype.kind not in "fc":
                raise RuntimeError(f"{name}: alpha must not be a float for integer tensors, got {alpha}")
            other = mul.run(other, constant(alpha, x.dtype))
        return (x, other), {}

    return prepare


add = elementwise(
    "add",
    ("x", "other"),
    doc="x + alpha * other; logical or of bools.  [...] , [...] -> broadcast.",
    signature="(x, other, *, alpha=1)",
    prepare=_scaled_by_alpha("add"),
    rule=_with_bool_form("add"),
    reference="add",
    kinds="buifc",
    grad=lambda g, out, x, y: (g, g),
    dtypes=EVERY_COMPLEX,
    samples=(*BINARY, call(fill(2, 3), fill(3), alpha=2), call(3, fill(2))),
    bad=(Bad((fill(2, dtype=int64), fill(2, dtype=int64)), RuntimeError, "add: alpha must not be", {"alpha": 0.5}),),
    inplace=True,
)


def _no_bools(name: str) -> Bad:
    return Bad((fill(2, dtype=bool_), fill(2, dtype=bool_)), RuntimeError, f"{name}: not defined for bool tensors")


sub = elementwise(
    "sub",
    ("x", "other"),
    doc="x - alpha * other.  [...] , [...] -> broadcast.",
    signature="(x, other, *, alpha=1)",
    prepare=_scaled_by_alpha("sub"),
    rule="sub",
    reference="subtract",
    grad=lambda g, out, x, y: (g, neg(g)),
    kinds="uifc",
    samples=(*BINARY, call(fill(2, 3), fill(3), alpha=2), call(3, fill(2))),
    bad=(_no_bools("sub"),),
    methods=("sub", "subtract"),
    functions=("sub", "subtract"),
    inplace=True,
)

rsub = Shorthand(
    "rsub",
    doc="other - alpha * x.  [...] , [...] -> broadcast.",
    rule=lambda x, other, *, alpha=1: sub(other, tensor("rsub", "x", x), alpha=alpha),
    reference=rounded(lambda xp, x, other, alpha=1: other - x.dtype.type(alpha) * x),
    dtypes=NUMERIC,
    samples=(call(fill(2, 3), fill(3)), call(fill(33), fill(1)), call(fill(2, 3), fill(3), alpha=2)),
    bad=(Bad((fill(2, dtype=bool_), fill(2, dtype=bool_)), RuntimeError, "sub: not defined for bool tensors"),),
    methods=(),
)

mul: Op = elementwise(
    "mul",
    ("x", "other"),
    doc="x * other; logical and of bools.  [...] , [...] -> broadcast.",
    rule=_with_bool_form("mul"),
    reference="multiply",
    kinds="buifc",
    grad=lambda g, out, x, y: (mul(g, y), mul(g, x)),
    dtypes=EVERY_COMPLEX,
    wide_numbers=True,
    methods=("mul", "multiply"),
    functions=("mul", "multiply"),
    inplace=True,
)


def _div_route(op: Op, x: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    if rounding_mode is None:
        inputs, attrs = op.prepare(x, other)
        return op.run(*inputs, **attrs)
    if rounding_mode == "floor":
        return floor_divide(x, other)
    if rounding_mode == "trunc":
        x, other = promoted("div", (x, other), ("x", "other"))
        if x.dtype.kind == "f":
            return trunc(op.run(x, other))
        return floor_divide(sub(x, fmod(x, other)), other)
    raise RuntimeError(f"div: rounding_mode must be None, 'trunc' or 'floor', got {rounding_mode!r}")


def _div_grad(g: Any, out: Any, x: Any, y: Any) -> tuple[Any, Any]:
    gx = div(g, y)
    return gx, neg(mul(gx, out))


div = elementwise(
    "div",
    ("x", "other"),
    doc="x / other; integers become the default floating dtype.  rounding_mode: None, 'trunc', 'floor'.  [...] , "
    "[...] -> broadcast.",
    signature="(x, other, *, rounding_mode=None)",
    route=_div_route,
    rule="div",
    reference="true_divide",
    grad=gradient_in_compute_dtype(_div_grad),
    kinds="fc",
    promotion="float",
    dtypes=NUMERIC_COMPLEX,
    samples=binary_samples(-2.0, 2.0, 0.5, 2.5),
    wide_numbers=True,
    bad=(Bad((fill(2), fill(2)), RuntimeError, "div: rounding_mode", {"rounding_mode": "up"}),),
    methods=("div", "divide", "true_divide"),
    functions=("div", "divide", "true_divide"),
    inplace=True,
)


# ---- division with a remainder -------------------------------------------------------------------------------------


def _remainder_grad(g: Any, out: Any, x: Any, y: Any) -> tuple[Any, Any]:
    return g, neg(mul(g, floor_divide(x, y)))


def _no_division_by_zero(name: str) -> Any:
    """The run-time check that no integer divisor is 0."""
    message = f"RuntimeError: {name}: ZeroDivisionError"

    def failing(x: Expr, y: Expr) -> tuple[Expr, str] | None:
        if y.dtype.kind == "f" or (isinstance(y, Const) and y.value != 0):
            return None
        return fn("ne", y, literal(0, y.dtype)), message

    return failing


def _quotient_reference(name: str) -> Any:
    """NumPy's function of that name; raises RuntimeError where an integer divisor is 0."""

    def reference(xp: Any, x: Any, y: Any) -> Any:
        if x.dtype.kind in "iu" and x.size and (y == 0).any():
            raise RuntimeError(f"{name}: ZeroDivisionError")
        return getattr(xp, name)(x, y)

    return reference


_DIVISION = (
    *binary_samples(-9.0, 9.0, 1.0, 5.0)[:-1],
    call(fill(7, special=True, low=1, high=9), fill(5, 1, special=True, low=1, high=5)),
    call(fill(4, low=-9, high=9), fill(4, low=-5, high=-1)),
)


def _by_zero(name: str) -> tuple[Bad, ...]:
    """Integer division by a constant 0 and by a tensor that holds one."""
    zero = fill(3, dtype=int64, low=0, high=1)
    return tuple(Bad((fill(3, dtype=int64), divisor), RuntimeError, f"{name}: ZeroDivisionError") for divisor in (zero, 0))


floor_divide = elementwise(
    "floor_divide",
    ("x", "other"),
    doc="Division rounded down.  [...] , [...] -> broadcast.",
    rule="floor_divide",
    failing=_no_division_by_zero("floor_divide"),
    reference=_quotient_reference("floor_divide"),
    grad=lambda g, out, x, y: (zeros_like(g), zeros_like(g)),
    kinds="uif",
    samples=_DIVISION,
    bad=(_no_bools("floor_divide"), *_by_zero("floor_divide")),
    wide_numbers=True,
    inplace=True,
)

remainder = elementwise(
    "remainder",
    ("x", "other"),
    doc="Remainder of floor division, of the sign of the divisor (Python's %).  [...] , [...] -> broadcast.",
    rule="remainder",
    failing=_no_division_by_zero("remainder"),
    reference=_quotient_reference("remainder"),
    grad=_remainder_grad,
    kinds="uif",
    samples=_DIVISION,
    bad=(_no_bools("remainder"), *_by_zero("remainder")),
    inplace=True,
)

fmod = elementwise(
    "fmod",
    ("x", "other"),
    doc="Remainder of truncating division, of the sign of x (C's fmod).  [...] , [...] -> broadcast.",
    rule="fmod",
    failing=_no_division_by_zero("fmod"),
    reference=_quotient_reference("fmod"),
    grad=lambda g, out, x, y: (g, neg(mul(g, trunc(div(x, y))))),
    kinds="uif",
    samples=_DIVISION,
    bad=(_no_bools("fmod"), *_by_zero("fmod")),
    strict=1,
    inplace=True,
)


# ---- one operand ---------------------------------------------------------------------------------------------------

neg: Op = elementwise(
    "neg",
    ("x",),
    doc="-x.  [...] -> [...].",
    rule="neg",
    reference="negative",
    grad=lambda g, out, x: (neg(g),),
    kinds="uifc",
    bad=(Bad((fill(2, dtype=bool_),), RuntimeError, "neg: not defined for bool tensors"),),
    methods=("neg", "negative"),
    functions=("neg", "negative"),
    inplace=True,
)


def _positive(x: Any) -> Any:
    x = tensor("positive", "x", x)
    if x.dtype is bool_:
        raise RuntimeError(f"positive: not defined for bool tensors: {of_type(x)}")
    return x


positive = Shorthand(
    "positive",
    doc="x itself.  [...] -> [...].",
    rule=_positive,
    reference=lambda xp, x: x,
    dtypes=NUMERIC,
    samples=(call(fill(2, 3)), call(fill())),
    bad=(
        Bad((1.0,), TypeError, "positive: argument 'x'"),
        Bad((fill(2, dtype=bool_),), RuntimeError, "positive: not defined for bool tensors"),
    ),
)

absolute = elementwise(
    "abs",
    ("x",),
    doc="|x|.  [...] -> [...].",
    rule=lambda x: x if x.dtype.kind == "u" else fn("abs", x),
    reference="abs",
    grad=lambda g, out, x: (mul(g, sgn(x)),),
    kinds="uifc",
    result="real",
    holomorphic=False,
    dtypes=NUMERIC_COMPLEX,
    methods=("abs", "absolute"),
    functions=("abs", "absolute"),
    inplace=True,
)


def _sign_reference(xp: Any, x: Any) -> Any:
    return x if x.dtype == bool else (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)


def _sgn_reference(xp: Any, x: Any) -> Any:
    if x.dtype.kind != "c":
        return _sign_reference(xp, x)
    size = xp.abs(x)
    return xp.where(size == 0, 0, x / xp.where(size == 0, 1, size)).astype(x.dtype)


def _sgn_grad(g: Any, out: Any, x: Any) -> tuple[Any]:
    """Of a complex x, the part of g across the direction of x, over |x|."""
    if x.dtype.kind != "c":
        return (zeros_like(g),)
    along = Op.table["real"](mul(Op.table["conj"](out), g))
    size = absolute(x)
    still = Op.table["eq"](size, 0)
    across = div(sub(g, mul(out, along)), Op.table["masked_fill"](size, still, 1))
    return (Op.table["masked_fill"](across, still, 0),)


def _signum(name: str, **how: Any) -> Op:
    return elementwise(
        name,
        ("x",),
        rule=lambda x: x if x.dtype is bool_ else fn("sign", x),
        inplace=True,
        **how,
    )


sign = _signum(
    "sign",
    doc="-1, 0 or 1; 0 for NaN; a bool itself.  [...] -> [...].",
    reference=_sign_reference,
    grad=lambda g, out, x: (zeros_like(g),),
    dtypes=EVERY,
)
sgn: Op = _signum(
    "sgn",
    doc="-1, 0 or 1; of complex numbers x / |x|, or 0.  [...] -> [...].",
    reference=_sgn_reference,
    grad=_sgn_grad,
    kinds="buifc",
    dtypes=EVERY_COMPLEX,
    holomorphic=False,
)


def _bools_to_int64(name: str, x: Any) -> Any:
    x = tensor(name, "x", x)
    return cast(x, int64) if x.dtype is bool_ else x


square = elementwise(
    "square",
    ("x",),
    doc="x * x; of bools as int64.  [...] -> [...].",
    prepare=lambda x: ((_bools_to_int64("square", x),), {}),
    rule=lambda x: fn("mul", x, x),
    reference="square",
    grad=lambda g, out, x: (mul(g, mul(x, 2)),),
    kinds="uifc",
    inplace=True,
)

reciprocal = elementwise(
    "reciprocal",
    ("x",),
    doc="1 / x.  [...] -> [...].",
    rule=lambda x: fn("div", literal(1, x.dtype), x),
    reference=lambda xp, x: xp.divide(x.dtype.type(1), x),
    grad=lambda g, out, x: (neg(mul(g, mul(out, out))),),
    kinds="fc",
    promotion="float",
    samples=unary_samples(0.5, 2.0),
    inplace=True,
)


# ---- rounding ------------------------------------------------------------------------------------------------------


def _rounding(name: str, doc: str, reference: str) -> Op:
    return elementwise(
        name,
        ("x",),
        doc=f"{doc}  [...] -> [...].",
        rule=lambda x: fn(name, x) if x.dtype.kind == "f" else x,
        reference=lambda xp, x: getattr(xp, reference)(x) if x.dtype.kind == "f" else x,
        grad=lambda g, out, x: (zeros_like(g),),
        kinds="uif",
        samples=unary_samples(-5.0, 5.0),
        methods=(name, "fix") if name == "trunc" else (name,),
        functions=(name, "fix") if name == "trunc" else (name,),
        inplace=True,
    )


floor = _rounding("floor", "Rounded down.", "floor")
ceil = _rounding("ceil", "Rounded up.", "ceil")
trunc: Op = _rounding("trunc", "Rounded towards zero.", "trunc")


def _round_rule(x: Expr, decimals: int) -> Expr:
    if x.dtype.kind != "f":
        return x
    if not decimals:
        return fn("round", x)
    scale = literal(10.0 ** abs(decimals), x.dtype)
    there, back = ("mul", "div") if decimals > 0 else ("div", "mul")
    return fn(back, fn("round", fn(there, x, scale)), scale)


def _round_reference(xp: Any, x: Any, decimals: int) -> Any:
    if x.dtype.kind != "f":
        return x
    scale = x.dtype.type(10.0 ** abs(decimals))
    return xp.rint(x * scale) / scale if decimals >= 0 else xp.rint(x / scale) * scale


def _check_decimals(decimals: Any) -> None:
    if not isinstance(decimals, int) or isinstance(decimals, bool):
        raise TypeError(f"round: argument 'decimals' must be an int, not {type(decimals).__name__}")


round_ = elementwise(
    "round",
    ("x",),
    doc="Rounded to `decimals`, halves to even.  [...] -> [...].",
    rule=_round_rule,
    reference=_round_reference,
    grad=lambda g, out, x, decimals: (zeros_like(g),),
    kinds="uif",
    attrs={"decimals": 0},
    check=_check_decimals,
    samples=(*unary_samples(-5.0, 5.0), call(fill(4, 5), decimals=1), call(fill(4, low=-99, high=99), decimals=-1)),
    bad=(Bad((fill(2),), TypeError, "round: argument 'decimals'", {"decimals": 0.5}),),
    functions=("round", "special.round"),
    inplace=True,
)

frac = elementwise(
    "frac",
    ("x",),
    doc="x - trunc(x).  [...] -> [...].",
    rule=lambda x: fn("sub", x, fn("trunc", x)),
    reference=lambda xp, x: x - xp.trunc(x),
    grad=lambda g, out, x: (g,),
    kinds="f",
    dtypes=FLOATING,
    samples=unary_samples(-5.0, 5.0),
    inplace=True,
)


# ---- selection -----------------------------------------------------------------------------------------------------


def kept(mask: Any, g: Any) -> Any:
    """g where mask, else 0."""
    return Op.table["where"].run(mask, g, constant(0, g.dtype))


def _extremum_grad(beats: str) -> Any:
    """The winner takes the gradient; equal operands share it; beside a NaN both have it, as in PyTorch."""

    def grad(g: Any, out: Any, x: Any, y: Any) -> tuple[Any, Any]:
        half, none = mul(g, 0.5), zeros_like(g)
        equal, won, lost = Op.table["eq"](x, y), Op.table[beats](x, y), Op.table[beats](y, x)
        where = Op.table["where"]
        return where(equal, half, where(lost, none, g)), where(equal, half, where(won, none, g))

    return grad


maximum = elementwise(
    "maximum",
    ("x", "other"),
    doc="The larger; NaN if either is.  [...] , [...] -> broadcast.",
    rule=_with_bool_form("max"),
    reference="maximum",
    strict=2,
    grad=_extremum_grad("gt"),
    dtypes=EVERY,
)

minimum = elementwise(
    "minimum",
    ("x", "other"),
    doc="The smaller; NaN if either is.  [...] , [...] -> broadcast.",
    rule=_with_bool_form("min"),
    reference="minimum",
    strict=2,
    grad=_extremum_grad("lt"),
    dtypes=EVERY,
)


# ---- three operands ------------------------------------------------------------------------------------------------


def _three(*more: Any) -> tuple[Any, ...]:
    return (
        call(fill(3, 4), fill(3, 4), fill(3, 4, low=0.5)),
        call(fill(2, 1, 3), fill(4, 1), fill(low=0.5)),
        call(fill(), fill(33), fill(1, low=0.5)),
        call(fill(0, 3), fill(3), fill(1, 1, low=0.5)),
        *more,
    )


def _lerp_rule(x: Expr, end: Expr, weight: Expr) -> Expr:
    """From the nearer end, so that weights 0 and 1 are exact."""
    one, half = literal(1, x.dtype), literal(0.5, x.dtype)
    step = fn("sub", end, x)
    near = fn("add", x, fn("mul", weight, step))
    return select(fn("lt", fn("abs", weight), half), near, fn("sub", end, fn("mul", step, fn("sub", one, weight))))


lerp = elementwise(
    "lerp",
    ("x", "end", "weight"),
    doc="x + weight * (end - x).  [...] , [...] , [...] -> broadcast.",
    rule=_lerp_rule,
    reference=lambda xp, x, end, weight: xp.where(xp.abs(weight) < 0.5, x + weight * (end - x), end - (end - x) * (1 - weight)),
    grad=lambda g, out, x, end, weight: (mul(g, sub(1, weight)), mul(g, weight), mul(g, sub(end, x))),
    kinds="fc",
    dtypes=FLOATING_COMPLEX,
    samples=_three(call(fill(3), fill(3), 0.25), call(fill(3), fill(3), 1.0)),
    inplace=True,
)


def _check_value(name: str) -> Any:
    def check(value: Any) -> None:
        number(name, "value", value)

    return check


def _addcmul_grad(g: Any, out: Any, x: Any, y: Any, z: Any, value: Any) -> tuple[Any, ...]:
    scaled = mul(g, value)
    return g, mul(scaled, z), mul(scaled, y)


addcmul = elementwise(
    "addcmul",
    ("x", "tensor1", "tensor2"),
    doc="x + value * tensor1 * tensor2.  [...] , [...] , [...] -> broadcast.",
    signature="(x, tensor1, tensor2, *, value=1)",
    rule=lambda x, y, z, value: fn("add", x, fn("mul", fn("mul", literal(value, x.dtype), y), z)),
    reference=lambda xp, x, y, z, value: x + x.dtype.type(value) * y * z,
    grad=gradient_in_compute_dtype(_addcmul_grad),
    kinds="uifc",
    attrs={"value": 1},
    check=_check_value("addcmul"),
    dtypes=FLOATING_COMPLEX,
    samples=_three(call(fill(3), fill(3), fill(3), value=0.5)),
    inplace=True,
)


def _addcdiv_grad(g: Any, out: Any, x: Any, y: Any, z: Any, value: Any) -> tuple[Any, ...]:
    scaled = div(mul(g, value), z)
    return g, scaled, neg(mul(scaled, div(y, z)))


addcdiv = elementwise(
    "addcdiv",
    ("x", "tensor1", "tensor2"),
    doc="x + value * tensor1 / tensor2.  [...] , [...] , [...] -> broadcast.",
    signature="(x, tensor1, tensor2, *, value=1)",
    rule=lambda x, y, z, value: fn("add", x, fn("div", fn("mul", literal(value, x.dtype), y), z)),
    reference=lambda xp, x, y, z, value: x + x.dtype.type(value) * y / z,
    grad=gradient_in_compute_dtype(_addcdiv_grad),
    kinds="fc",
    attrs={"value": 1},
    check=_check_value("addcdiv"),
    dtypes=FLOATING_COMPLEX,
    samples=_three(call(fill(3), fill(3), fill(3, low=0.5), value=0.5)),
    inplace=True,
)
