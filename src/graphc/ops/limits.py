"""Elements held inside limits: clamp and its one-sided forms.

Enters: tensors, with limits that are numbers or tensors.  Leaves: operators.  Never here: `maximum` and `minimum` (`arithmetic`).
"""

from __future__ import annotations

from typing import Any

from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Op
from graphc.ops.arguments import promoted, tensor, zeros_like
from graphc.ops.arithmetic import kept
from graphc.ops.declare import NUMERIC, Shorthand, call, fill
from graphc.ops.elementwise import Prepared, elementwise
from graphc.ops.expressions import call as fn


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


def _one_sided(name: str, limit: str, doc: str) -> Shorthand:
    def prepare(x: Any, *given: Any, **named: Any) -> Prepared:
        x = tensor(name, "x", x)
        if len(given) + len(named) != 1 or (named and limit not in named):
            raise TypeError(f"{name}: expected one argument '{limit}'")
        value = given[0] if given else named[limit]
        return promoted(name, (x, value), ("x", limit)), {}

    def rule(x: Any, bound: Any) -> Any:
        return clamp.run(x, bound, low=limit == "min", high=limit == "max")

    return Shorthand(
        name,
        doc=f"{doc}; NaN stays.  [...] , [...] -> broadcast.",
        signature=f"(x, {limit})",
        rule=rule,
        prepare=prepare,
        attrs=(),
        reference=lambda xp, x, bound: xp.maximum(x, bound) if limit == "min" else xp.minimum(x, bound),
        dtypes=NUMERIC,
        samples=(call(fill(3, 4), 0), call(fill(3, 4), fill(4)), call(fill(0, 2), 1), call(fill(), fill(2, 1))),
        bad=(
            Bad((fill(2),), TypeError, f"{name}: expected one argument '{limit}'"),
            Bad((fill(2, 3), fill(4)), RuntimeError, "clamp: shapes .* do not broadcast"),
        ),
        inplace=True,
    )


clamp_min = _one_sided("clamp_min", "min", "max(x, min)")
clamp_max = _one_sided("clamp_max", "max", "min(x, max)")
