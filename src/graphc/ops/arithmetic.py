"""Arithmetic, rounding and selection, element by element.

Enters: tensors and numbers.  Leaves: operators.  Never here: `transcendental`, `comparison`.

Integer division and remainder by zero give 0 (PyTorch raises on CPU): an element cannot raise.
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import bool_, int64
from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Op
from graphc.ops.arguments import constant, gradient_in_compute_dtype, number, promoted, tensor, zeros_like
from graphc.ops.declare import EVERY, FLOATING, NUMERIC, Shorthand, call, fill
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
            if isinstance(number(name, "alpha", alpha), float) and x.dtype.kind != "f":
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
    grad=lambda g, out, x, y: (g, g),
    dtypes=EVERY,
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
    kinds="uif",
    samples=(*BINARY, call(fill(2, 3), fill(3), alpha=2), call(3, fill(2))),
    bad=(_no_bools("sub"),),
    methods=("sub", "subtract"),
    functions=("sub", "subtract"),
    inplace=True,
)

mul: Op = elementwise(
    "mul",
    ("x", "other"),
    doc="x * other; logical and of bools.  [...] , [...] -> broadcast.",
    rule=_with_bool_form("mul"),
    reference="multiply",
    grad=lambda g, out, x, y: (mul(g, y), mul(g, x)),
    dtypes=EVERY,
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
    kinds="f",
    promotion="float",
    dtypes=NUMERIC,
    samples=binary_samples(-2.0, 2.0, 0.5, 2.5),
    bad=(Bad((fill(2), fill(2)), RuntimeError, "div: rounding_mode", {"rounding_mode": "up"}),),
    methods=("div", "divide", "true_divide"),
    functions=("div", "divide", "true_divide"),
    inplace=True,
)


# ---- division with a remainder -------------------------------------------------------------------------------------


def _remainder_grad(g: Any, out: Any, x: Any, y: Any) -> tuple[Any, Any]:
    return g, neg(mul(g, floor_divide(x, y)))


def _integer_safe(function: str) -> Any:
    """NumPy's function with 0 where an integer divisor is 0."""

    def reference(xp: Any, x: Any, y: Any) -> Any:
        if x.dtype.kind not in "iu":
            return getattr(xp, function)(x, y)
        return xp.where(y == 0, xp.zeros((), x.dtype), getattr(xp, function)(x, xp.where(y == 0, xp.ones((), y.dtype), y)))

    return reference


_DIVISION = (*binary_samples(-9.0, 9.0, 1.0, 5.0), call(fill(4, low=-9, high=9), fill(4, low=-5, high=-1)))

floor_divide = elementwise(
    "floor_divide",
    ("x", "other"),
    doc="Division rounded down.  [...] , [...] -> broadcast.",
    rule="floor_divide",
    reference=_integer_safe("floor_divide"),
    grad=lambda g, out, x, y: (zeros_like(g), zeros_like(g)),
    kinds="uif",
    samples=_DIVISION,
    bad=(_no_bools("floor_divide"),),
    inplace=True,
)

remainder = elementwise(
    "remainder",
    ("x", "other"),
    doc="Remainder of floor division, of the sign of the divisor (Python's %).  [...] , [...] -> broadcast.",
    rule="remainder",
    reference=_integer_safe("remainder"),
    grad=_remainder_grad,
    kinds="uif",
    samples=_DIVISION,
    bad=(_no_bools("remainder"),),
    inplace=True,
)

fmod = elementwise(
    "fmod",
    ("x", "other"),
    doc="Remainder of truncating division, of the sign of x (C's fmod).  [...] , [...] -> broadcast.",
    rule="fmod",
    reference=_integer_safe("fmod"),
    grad=lambda g, out, x, y: (g, neg(mul(g, trunc(div(x, y))))),
    kinds="uif",
    samples=_DIVISION,
    bad=(_no_bools("fmod"),),
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
    kinds="uif",
    bad=(Bad((fill(2, dtype=bool_),), RuntimeError, "neg: not defined for bool tensors"),),
    methods=("neg", "negative"),
    functions=("neg", "negative"),
    inplace=True,
)

positive = Shorthand(
    "positive",
    doc="x itself.  [...] -> [...].",
    rule=lambda x: tensor("positive", "x", x),
    reference=lambda xp, x: x,
    dtypes=NUMERIC,
    samples=(call(fill(2, 3)), call(fill())),
    bad=(Bad((1.0,), TypeError, "positive: argument 'x'"),),
)

absolute = elementwise(
    "abs",
    ("x",),
    doc="|x|.  [...] -> [...].",
    rule=lambda x: x if x.dtype.kind == "u" else fn("abs", x),
    reference="abs",
    grad=lambda g, out, x: (mul(g, sign(x)),),
    kinds="uif",
    methods=("abs", "absolute"),
    functions=("abs", "absolute"),
    inplace=True,
)


sign: Op = elementwise(
    "sign",
    ("x",),
    doc="-1, 0 or 1; 0 for NaN.  [...] -> [...].",
    rule="sign",
    reference=lambda xp, x: (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype),
    grad=lambda g, out, x: (zeros_like(g),),
    kinds="uif",
    inplace=True,
)

square = elementwise(
    "square",
    ("x",),
    doc="x * x.  [...] -> [...].",
    rule=lambda x: fn("mul", x, x),
    reference="square",
    grad=lambda g, out, x: (mul(g, mul(x, 2)),),
    kinds="uif",
    inplace=True,
)

reciprocal = elementwise(
    "reciprocal",
    ("x",),
    doc="1 / x.  [...] -> [...].",
    rule=lambda x: fn("div", literal(1, x.dtype), x),
    reference=lambda xp, x: xp.divide(x.dtype.type(1), x),
    grad=lambda g, out, x: (neg(mul(g, mul(out, out))),),
    kinds="f",
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
    """The winner takes the gradient; equal operands share it."""

    def grad(g: Any, out: Any, x: Any, y: Any) -> tuple[Any, Any]:
        half = mul(g, 0.5)
        equal, won, lost = Op.table["eq"](x, y), Op.table[beats](x, y), Op.table[beats](y, x)
        where = Op.table["where"]
        return where(equal, half, kept(won, g)), where(equal, half, kept(lost, g))

    return grad


maximum = elementwise(
    "maximum",
    ("x", "other"),
    doc="The larger; NaN if either is.  [...] , [...] -> broadcast.",
    rule=_with_bool_form("max"),
    reference="maximum",
    grad=_extremum_grad("gt"),
    dtypes=EVERY,
)

minimum = elementwise(
    "minimum",
    ("x", "other"),
    doc="The smaller; NaN if either is.  [...] , [...] -> broadcast.",
    rule=_with_bool_form("min"),
    reference="minimum",
    grad=_extremum_grad("lt"),
    dtypes=EVERY,
)


def _clamp_prepare(x: Any, min: Any = None, max: Any = None) -> Prepared:
    x = tensor("clamp", "x", x)
    limits = [(v, a) for v, a in ((min, "min"), (max, "max")) if v is not None]
    if not limits:
        raise RuntimeError("clamp: at least one of 'min' or 'max' must not be None")
    operands = promoted("clamp", (x, *(v for v, _ in limits)), ("x", *(a for _, a in limits)))
    return operands, {"low": min is not None, "high": max is not None}


def _limits(operands: tuple[Any, ...], low: bool) -> tuple[Any, Any]:
    """(lower limit or None, upper limit or None) of clamp's inputs after x."""
    return operands[0] if low else None, operands[-1] if len(operands) > low else None


def _clamp_rule(x: Expr, *operands: Expr, low: bool, high: bool) -> Expr:
    least, most = _limits(operands, low)
    x = x if least is None else fn("max", x, least)
    return x if most is None else fn("min", x, most)


def _clamp_reference(xp: Any, x: Any, *operands: Any, low: bool, high: bool) -> Any:
    least, most = _limits(operands, low)
    x = x if least is None else xp.maximum(x, least)
    return x if most is None else xp.minimum(x, most)


def _clamp_grad(g: Any, out: Any, x: Any, *operands: Any, low: bool, high: bool) -> tuple[Any, ...]:
    lt, ge, le, where = Op.table["lt"], Op.table["ge"], Op.table["le"], Op.table["where"]
    least, most = _limits(operands, low)
    if least is None:
        return kept(le(x, most), g), kept(Op.table["gt"](x, most), g)
    if most is None:
        return kept(ge(x, least), g), kept(lt(x, least), g)
    crossed = lt(most, least)  # then the upper limit wins everywhere
    inside = kept(ge(x, least), kept(le(x, most), g))
    to_low = where(crossed, zeros_like(g), kept(lt(x, least), g))
    return inside, to_low, where(crossed, g, kept(Op.table["gt"](x, most), g))


clamp = elementwise(
    "clamp",
    ("x",),
    doc="min(max(x, min), max); limits are numbers or tensors; NaN stays.  [...] (, [...] , [...]) -> broadcast.",
    signature="(x, min=None, max=None)",
    prepare=_clamp_prepare,
    arity=lambda low, high: 1 + low + high,
    rule=_clamp_rule,
    reference=_clamp_reference,
    grad=_clamp_grad,
    attrs={"low": True, "high": True},
    samples=(
        call(fill(3, 4), -1, 1),
        call(fill(33), min=0),
        call(fill(0, 2), max=0),
        call(fill(), 0, 1),
        call(fill(5, special=True), 0, 1),
        call(fill(3, 4), fill(4), fill(3, 1)),
        call(fill(4), max=fill(4)),
        call(fill(4), 1, -1),
    ),
    bad=(
        Bad((fill(2),), RuntimeError, "clamp: at least one of"),
        Bad((fill(2), "a"), TypeError, "clamp: argument 'min'"),
        Bad((fill(2, 3), fill(4)), RuntimeError, "clamp: shapes .* do not broadcast"),
    ),
    methods=("clamp", "clip"),
    functions=("clamp", "clip"),
    inplace=True,
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
    kinds="f",
    dtypes=FLOATING,
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
    kinds="uif",
    attrs={"value": 1},
    check=_check_value("addcmul"),
    dtypes=FLOATING,
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
    kinds="f",
    attrs={"value": 1},
    check=_check_value("addcdiv"),
    dtypes=FLOATING,
    samples=_three(call(fill(3), fill(3), fill(3, low=0.5), value=0.5)),
    inplace=True,
)
