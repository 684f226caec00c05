"""Elementwise functions by the array API standard.

Enters: arrays and, beside one, Python numbers.  Leaves: arrays.  Never here: what an operator computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphc
from graphc import Tensor
from graphc.array_api.types import promoted
from graphc.dtypes import DType
from graphc.ops.arguments import cast


def _kinds(name: str, dtype: DType, kinds: str) -> None:
    if dtype.kind not in kinds:
        raise TypeError(f"{name}: not defined for arrays of {dtype}")


def unary(name: str, function: str, kinds: str = "iufc") -> Callable[[Tensor], Tensor]:
    """The standard's function `name`: graphc's `function`, for dtypes of some kinds."""

    def call(x: Tensor, /) -> Tensor:
        _kinds(name, x.dtype, kinds)
        return getattr(graphc, function)(x)  # type: ignore[no-any-return]

    return _named(call, name, function)


def binary(name: str, function: str, kinds: str = "iufc") -> Callable[[Any, Any], Tensor]:
    """The standard's function `name`: graphc's `function` on operands of one dtype."""

    def call(x1: Any, x2: Any, /) -> Tensor:
        x1, x2 = promoted(name, x1, x2)
        _kinds(name, x1.dtype, kinds)
        return getattr(graphc, function)(x1, x2)  # type: ignore[no-any-return]

    return _named(call, name, function)


def _named(call: Any, name: str, function: str) -> Any:
    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"`graphc.{function}`.  Raises TypeError for other dtypes, RuntimeError for shapes that do not broadcast."
    return call


def _integers_whole(name: str) -> Callable[[Tensor], Tensor]:
    """A rounding function: integers are what they are."""

    def call(x: Tensor, /) -> Tensor:
        _kinds(name, x.dtype, "iuf" if name != "round" else "iufc")
        if x.dtype.kind in "iu":
            return x.clone()  # type: ignore[attr-defined,no-any-return]
        if x.dtype.kind == "c":
            return graphc.complex(graphc.round(x.real), graphc.round(x.imag))  # type: ignore[attr-defined,no-any-return]
        return getattr(graphc, name)(x)  # type: ignore[no-any-return]

    return _named(call, name, name)


abs = unary("abs", "abs")
acos, acosh, asin, asinh = (unary(n, n, "fc") for n in ("acos", "acosh", "asin", "asinh"))
atan, atanh, cos, cosh = (unary(n, n, "fc") for n in ("atan", "atanh", "cos", "cosh"))
exp, log, log1p = (unary(n, n, "fc") for n in ("exp", "log", "log1p"))
log2, log10, sin, sinh = (unary(n, n, "fc") for n in ("log2", "log10", "sin", "sinh"))
sqrt, tan, reciprocal = (unary(n, n, "fc") for n in ("sqrt", "tan", "reciprocal"))
square, negative, positive = (unary(n, n) for n in ("square", "negative", "positive"))
isfinite, isinf, isnan = (unary(n, n) for n in ("isfinite", "isinf", "isnan"))
signbit = unary("signbit", "signbit", "f")
logical_not = unary("logical_not", "logical_not", "b")
bitwise_invert = unary("bitwise_invert", "bitwise_not", "biu")
ceil, floor, round, trunc = (_integers_whole(n) for n in ("ceil", "floor", "round", "trunc"))

add, subtract, multiply = binary("add", "add"), binary("subtract", "sub"), binary("multiply", "mul")
divide, pow = binary("divide", "div", "fc"), binary("pow", "pow")
atan2, copysign, hypot, logaddexp, nextafter = (binary(n, n, "f") for n in ("atan2", "copysign", "hypot", "logaddexp", "nextafter"))
maximum, minimum = binary("maximum", "maximum", "iuf"), binary("minimum", "minimum", "iuf")
bitwise_and, bitwise_or, bitwise_xor = (binary(n, n, "biu") for n in ("bitwise_and", "bitwise_or", "bitwise_xor"))
bitwise_left_shift, bitwise_right_shift = (binary(n, n, "iu") for n in ("bitwise_left_shift", "bitwise_right_shift"))
equal, not_equal = binary("equal", "eq", "biufc"), binary("not_equal", "ne", "biufc")
less, less_equal = binary("less", "lt", "iuf"), binary("less_equal", "le", "iuf")
greater, greater_equal = binary("greater", "gt", "iuf"), binary("greater_equal", "ge", "iuf")
logical_and, logical_or, logical_xor = (binary(n, n, "b") for n in ("logical_and", "logical_or", "logical_xor"))


def expm1(x: Tensor, /) -> Tensor:
    """`graphc.expm1`; on the real axis and at infinities of complex numbers what the standard says."""
    _kinds("expm1", x.dtype, "fc")
    result: Tensor = graphc.expm1(x)
    if x.dtype.kind == "f":
        return result
    re, im = x.real, x.imag  # type: ignore[attr-defined]
    result = graphc.where((im == 0) & (re != 0), graphc.complex(graphc.expm1(re), im), result)
    edge = graphc.complex(graphc.where(re > 0, re, -1.0), graphc.where(re > 0, graphc.nan, graphc.zeros_like(re)))
    return graphc.where(graphc.isinf(re) & ~graphc.isfinite(im), edge, result)  # type: ignore[no-any-return]


def tanh(x: Tensor, /) -> Tensor:
    """`graphc.tanh`; at infinities of complex numbers 1 or -1 with a zero of the imaginary part's sign."""
    _kinds("tanh", x.dtype, "fc")
    result: Tensor = graphc.tanh(x)
    if x.dtype.kind == "f":
        return result
    re, im = x.real, x.imag  # type: ignore[attr-defined]
    edge = graphc.complex(graphc.copysign(graphc.ones_like(re), re), graphc.copysign(graphc.zeros_like(im), im))
    return graphc.where(graphc.isinf(re), edge, result)  # type: ignore[no-any-return]


def sign(x: Tensor, /) -> Tensor:
    """-1, 0 or 1, or the direction of a complex number; NaN where x is."""
    _kinds("sign", x.dtype, "iufc")
    if x.dtype.kind in "iu":
        return graphc.sign(x)  # type: ignore[no-any-return]
    return graphc.where(graphc.isnan(x), x, graphc.sgn(x))  # type: ignore[attr-defined,no-any-return]


def floor_divide(x1: Any, x2: Any, /) -> Tensor:
    """The largest whole number not above x1 / x2.  Of infinities what the standard says: the floor of their quotient."""
    x1, x2 = promoted("floor_divide", x1, x2)
    _kinds("floor_divide", x1.dtype, "iuf")
    result: Tensor = graphc.floor_divide(x1, x2)
    if x1.dtype.kind != "f":
        return result
    infinite = graphc.isinf(x1) | graphc.isinf(x2)
    return graphc.where(infinite, graphc.floor(graphc.div(x1, x2)), result)  # type: ignore[no-any-return]


def remainder(x1: Any, x2: Any, /) -> Tensor:
    """What `floor_divide` leaves, with the sign of x2, zeros included."""
    x1, x2 = promoted("remainder", x1, x2)
    _kinds("remainder", x1.dtype, "iuf")
    result: Tensor = graphc.remainder(x1, x2)
    return graphc.where(result == 0, graphc.copysign(result, x2), result) if x1.dtype.kind == "f" else result  # type: ignore[no-any-return]


def conj(x: Tensor, /) -> Tensor:
    """The complex conjugate in memory of its own; real arrays are what they are."""
    return graphc.conj(x).resolve_conj() if x.dtype.kind == "c" else x  # type: ignore[attr-defined,no-any-return]


def real(x: Tensor, /) -> Tensor:
    """The real part; real arrays are what they are."""
    return x.real  # type: ignore[attr-defined,no-any-return]


def imag(x: Tensor, /) -> Tensor:
    """The imaginary part; zeros of real arrays."""
    return x.imag if x.dtype.kind == "c" else graphc.zeros_like(x)  # type: ignore[attr-defined]


def clip(x: Tensor, /, min: Any = None, max: Any = None) -> Tensor:
    """x between bounds, in x's dtype; NaN where x or a bound is."""
    _kinds("clip", x.dtype, "iuf")
    for bound, function in ((min, graphc.maximum), (max, graphc.minimum)):
        if bound is not None:
            bound = cast(bound, x.dtype) if isinstance(bound, Tensor) else graphc.full((), bound, dtype=x.dtype)
            x = function(x, bound)
    return x.clone() if min is None and max is None else x  # type: ignore[attr-defined]


def where(condition: Tensor, x1: Any, x2: Any, /) -> Tensor:
    """x1 where the condition holds, else x2."""
    x1, x2 = promoted("where", x1, x2)
    return graphc.where(condition, x1, x2)  # type: ignore[no-any-return]
