"""Comparisons, logic, bits, choice and conversion, element by element.

Enters: tensors and numbers.  Leaves: operators.  Never here: arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dtypes import DType, bool_, float32, float64, int8, int32, int64, uint8, uint64
from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Op, Scalar, TensorType, broadcast_shapes
from graphc.ops.arguments import cast as to_dtype
from graphc.ops.arguments import is_tensor, lifted, of_type, promoted_dtype, quiet, same_dtype, tensor
from graphc.ops.arithmetic import absolute, add, kept, mul, sub
from graphc.ops.create import require_dtype
from graphc.ops.declare import EVERY, EVERY_COMPLEX, INTEGERS, INTEGRAL, NUMERIC, Routed, Shorthand, call, fill
from graphc.ops.elementwise import BINARY, UNARY, Prepared, elementwise
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import converted, through

# ---- comparisons ---------------------------------------------------------------------------------------------------

_EQUAL = call(fill(3, 4, low=0, high=3, dtype=int32), fill(3, 4, low=0, high=3, dtype=int32))


def _comparison(name: str, doc: str, reference: str, *aliases: str, kinds: str = "buif") -> Op:
    return elementwise(
        name,
        ("x", "other"),
        doc=f"{doc}  [...] , [...] -> bool broadcast.",
        rule=name,
        reference=reference,
        grad=None,
        kinds=kinds,
        result="bool",
        dtypes=EVERY_COMPLEX if "c" in kinds else EVERY,
        samples=(*BINARY, _EQUAL, call(fill(4), 0.5)),
        methods=(name, *aliases),
        functions=(name, *aliases),
        inplace=True,
        strict=1,
    )


eq = _comparison("eq", "x == other.", "equal", kinds="buifc")
ne = _comparison("ne", "x != other.", "not_equal", "not_equal", kinds="buifc")
lt = _comparison("lt", "x < other.", "less", "less")
le = _comparison("le", "x <= other.", "less_equal", "less_equal")
gt = _comparison("gt", "x > other.", "greater", "greater")
ge = _comparison("ge", "x >= other.", "greater_equal", "greater_equal")


# ---- logic ---------------------------------------------------------------------------------------------------------


def _truth(x: Expr) -> Expr:
    return x if x.dtype is bool_ else fn("ne", x, literal(0, x.dtype))


def _logical(name: str, primitive: str) -> Op:
    return elementwise(
        name,
        ("x", "other"),
        doc=f"{name.removeprefix('logical_')} of the operands' truth (not 0).  [...] , [...] -> bool broadcast.",
        rule=lambda x, y: fn(primitive, _truth(x), _truth(y)),
        reference=name,
        grad=None,
        kinds="buifc",
        result="bool",
        dtypes=EVERY_COMPLEX,
        inplace=True,
        strict=2,
    )


logical_and = _logical("logical_and", "and")
logical_or = _logical("logical_or", "or")
logical_xor = _logical("logical_xor", "xor")
logical_not = elementwise(
    "logical_not",
    ("x",),
    doc="Whether x is 0.  [...] -> bool [...].",
    rule=lambda x: fn("not", _truth(x)),
    reference="logical_not",
    kinds="buifc",
    grad=None,
    result="bool",
    dtypes=EVERY_COMPLEX,
    inplace=True,
)


# ---- bits ----------------------------------------------------------------------------------------------------------

_BITS = (
    call(fill(3, 4, low=-99, high=99), fill(3, 4, low=-99, high=99)),
    call(fill(2, 1, 3, low=-9, high=9), fill(4, 1, low=-9, high=9)),
    call(fill(), fill(33, low=0, high=99)),
    call(fill(0, 3), fill(3)),
    call(fill(5, low=-99, high=99), 1),
)


def _bitwise(name: str, primitive: str) -> Op:
    return elementwise(
        name,
        ("x", "other"),
        doc=f"Bitwise {primitive} of integers or bools.  [...] , [...] -> broadcast.",
        rule=primitive,
        reference=name,
        grad=None,
        kinds="bui",
        dtypes=INTEGRAL,
        samples=_BITS,
        bad=(
            Bad(
                (fill(2, dtype=float32), fill(2, dtype=float32)),
                RuntimeError,
                f"{name}: not defined for floating tensors",
            ),
        ),
        inplace=True,
    )


bitwise_and = _bitwise("bitwise_and", "and")
bitwise_or = _bitwise("bitwise_or", "or")
bitwise_xor = _bitwise("bitwise_xor", "xor")
bitwise_not = elementwise(
    "bitwise_not",
    ("x",),
    doc="Bitwise complement of integers, not of bools.  [...] -> [...].",
    rule="not",
    reference="invert",
    grad=None,
    kinds="bui",
    dtypes=INTEGRAL,
    samples=(call(fill(3, 4, low=-99, high=99)), call(fill()), call(fill(0, 2)), call(fill(33))),
    bad=(Bad((fill(2, dtype=float32),), RuntimeError, "bitwise_not: not defined for floating tensors"),),
    inplace=True,
)


def _shift_rule(primitive: str) -> Any:
    """Counts outside 0..bits-1 give what shifting by one so many times would: 0, or the sign for a right shift."""

    def rule(x: Expr, count: Expr) -> Expr:
        bits = 8 * x.dtype.itemsize
        zero, last = literal(0, x.dtype), literal(bits - 1, x.dtype)
        inside = fn("min", fn("max", count, zero), last)
        outside = fn("gt", count, last) if count.dtype.kind == "u" else fn("ne", inside, count)
        saturated = fn("shr", x, last) if primitive == "shr" and x.dtype.kind == "i" else zero
        return fn("select", outside, saturated, fn(primitive, x, inside))

    return rule


def _shift_reference(left: bool) -> Any:
    def reference(xp: Any, x: Any, count: Any) -> Any:
        bits = 8 * x.dtype.itemsize
        inside = (count >= 0) & (count < bits)
        safe = xp.where(inside, count, 0).astype(x.dtype)
        saturated = xp.zeros((), x.dtype) if left or x.dtype.kind == "u" else xp.right_shift(x, x.dtype.type(bits - 1))
        return xp.where(inside, xp.left_shift(x, safe) if left else xp.right_shift(x, safe), saturated).astype(x.dtype)

    return reference


def _shift(name: str, primitive: str, doc: str) -> Op:
    return elementwise(
        name,
        ("x", "other"),
        doc=f"{doc}  [...] , [...] -> broadcast.",
        rule=_shift_rule(primitive),
        reference=_shift_reference(primitive == "shl"),
        grad=None,
        kinds="ui",
        dtypes=INTEGERS,
        samples=(
            call(fill(3, 4, low=-99, high=99), fill(3, 4, low=0, high=8)),
            call(fill(33, low=-99, high=99), fill(low=0, high=70)),
            call(fill(0, 3), fill(3, low=0)),
            call(fill(5, low=-99, high=99), 2),
            call(fill(5, low=-99, high=99), fill(5, low=-3, high=70)),
        ),
        bad=(
            Bad(
                (fill(2, dtype=float32), fill(2, dtype=float32)),
                RuntimeError,
                f"{name}: not defined for floating tensors",
            ),
        ),
        inplace=True,
    )


bitwise_left_shift = _shift("bitwise_left_shift", "shl", "x * 2**other, wrapping.")
bitwise_right_shift = _shift("bitwise_right_shift", "shr", "x / 2**other rounded down.")


# ---- tests of floats -----------------------------------------------------------------------------------------------


def _float_test(name: str, doc: str, rule: Any, of_integers: bool) -> Op:
    def reference(xp: Any, x: Any) -> Any:
        return getattr(xp, name)(x)

    return elementwise(
        name,
        ("x",),
        doc=f"{doc}  [...] -> bool [...].",
        rule=lambda x: rule(x) if x.dtype.kind == "f" else literal(of_integers, bool_),
        reference=reference,
        grad=None,
        kinds="buifc",
        result="bool",
        dtypes=EVERY_COMPLEX,
    )


_INF = float("inf")
isnan = _float_test("isnan", "Whether x is NaN.", lambda x: fn("ne", x, x), False)
isinf = _float_test("isinf", "Whether x is +inf or -inf.", lambda x: fn("eq", fn("abs", x), literal(_INF, x.dtype)), False)
isfinite = _float_test(
    "isfinite", "Whether x is neither infinite nor NaN.", lambda x: fn("lt", fn("abs", x), literal(_INF, x.dtype)), True
)


def _isclose(x: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Any:
    x, other = tensor("isclose", "x", x), tensor("isclose", "other", other)
    if x.dtype is not other.dtype:
        raise RuntimeError(f"isclose: operands must have one dtype, got {of_type(x)} and {of_type(other)}")
    for argument, value in (("rtol", rtol), ("atol", atol)):
        if not value >= 0:
            raise RuntimeError(f"isclose: argument '{argument}' must be greater than or equal to zero, got {value}")
    close = eq(x, other)
    if x.dtype.kind != "f":
        x, other = to_dtype(x, float64), to_dtype(other, float64)
    allowed = add(absolute(mul(other, rtol)), atol)
    difference = absolute(sub(x, other))
    close = logical_or(close, logical_and(isfinite(difference), le(difference, allowed)))
    return logical_or(close, logical_and(isnan(x), isnan(other))) if equal_nan else close


isclose = Shorthand(
    "isclose",
    doc="Whether |x - other| <= atol + rtol * |other|.  [...] , [...] -> bool broadcast.",
    rule=_isclose,
    reference=lambda xp, x, other, rtol=1e-05, atol=1e-08, equal_nan=False: xp.isclose(
        x.astype(np.float64), other.astype(np.float64), rtol, atol, equal_nan
    ),
    grad=None,
    dtypes=NUMERIC,
    samples=(
        call(fill(3, 4), fill(3, 4)),
        call(fill(3), fill(3), rtol=0.5, atol=0.5),
        call(fill(5, special=True), fill(5, special=True)),
    ),
    bad=(Bad((fill(2), 1.0), TypeError, "isclose: argument 'other'"),),
)


# ---- where ---------------------------------------------------------------------------------------------------------


def _where_prepare(condition: Any, x: Any, other: Any) -> Prepared:
    condition = tensor("where", "condition", condition)
    if condition.dtype is not bool_:
        raise RuntimeError(f"where: expected condition to be a bool tensor, got {of_type(condition)}")
    dtype = promoted_dtype("where", (x, other), ("x", "other"), "same")
    return (condition, lifted("where", x, "x", dtype), lifted("where", other, "other", dtype)), {}


def _where_infer(condition: TensorType, x: TensorType, other: TensorType) -> TensorType:
    if condition.dtype is not bool_:
        raise RuntimeError(f"where: expected condition to be a bool tensor, got {condition}")
    dtype = same_dtype("where", (x, other))
    return TensorType(dtype, broadcast_shapes("where", (condition.shape, x.shape, other.shape)))


_MASK = {"dtype": bool_, "low": 0, "high": 2}


def _where_route(op: Op, condition: Any, x: Any = None, other: Any = None) -> Any:
    if x is None and other is None:
        return Op.table["nonzero"](condition, as_tuple=True)
    inputs, _ = op.prepare(condition, x, other)
    return op.run(*inputs)


where = Routed(
    "where",
    doc="x where condition, else other; of the condition alone, the positions where it is not zero, one vector for each dim.  bool "
    "[...] , [...] , [...] -> broadcast.",
    signature="(condition, x, other)",
    route=_where_route,
    prepare=_where_prepare,
    infer=_where_infer,
    reference=lambda xp, condition, x, other: xp.where(condition, x, other),
    grad=lambda g, out, condition, x, other: (None, kept(condition, g), kept(logical_not(condition), g)),
    lowering=Scalar(lambda condition, x, other: fn("select", condition, x, other)),
    dtypes=EVERY,
    samples=(
        call(fill(3, 4, **_MASK), fill(3, 4), fill(3, 4)),
        call(fill(4, **_MASK), fill(3, 1), fill()),
        call(fill(**_MASK), fill(33), 0),
        call(fill(0, 3, **_MASK), fill(3), fill(1)),
        call(fill(5, **_MASK), 1, fill(5)),
        call(fill(5, **_MASK), fill(5, special=True), 2),
    ),
    bad=(
        Bad((fill(2), fill(2, dtype=float32), fill(2)), RuntimeError, "where: expected condition to be a bool tensor"),
        Bad((fill(2, **_MASK), "a", fill(2)), TypeError, "where: argument 'x'"),
        Bad((fill(2, **_MASK), fill(3), fill(4)), RuntimeError, "where: shapes .* do not broadcast"),
    ),
    methods=(),
    renamed={"input": "x"},
)


def _masked_fill(x: Any, mask: Any, value: Any) -> Any:
    x, mask = tensor("masked_fill", "x", x), tensor("masked_fill", "mask", mask)
    if mask.dtype is not bool_:
        raise RuntimeError(f"masked_fill: argument 'mask' must be a bool tensor, got {of_type(mask)}")
    if is_tensor(value) and value.ndim:
        raise RuntimeError(f"masked_fill: only a value tensor of 0 dims can fill, got {of_type(value)}")
    if x.dtype.kind != "c" and (value.dtype.kind == "c" if is_tensor(value) else isinstance(value, complex)):
        raise RuntimeError(f"masked_fill: value cannot be converted to type {x.dtype} without overflow: {value}")
    return where.run(mask, lifted("masked_fill", value, "value", x.dtype), x)


masked_fill = Shorthand(
    "masked_fill",
    doc="value where mask, else x.  [...] , bool [...] -> broadcast.",
    rule=_masked_fill,
    reference=lambda xp, x, mask, value: xp.where(mask, xp.asarray(value).astype(x.dtype), x),
    dtypes=EVERY,
    samples=(
        call(fill(3, 4), fill(3, 4, **_MASK), 1),
        call(fill(3, 4), fill(4, **_MASK), 0),
        call(fill(0, 4), fill(4, **_MASK), 0),
    ),
    bad=(Bad((fill(2), fill(2, dtype=int32), 1.0), RuntimeError, "masked_fill: argument 'mask' must be a bool tensor"),),
    inplace=True,
)


# ---- conversion ----------------------------------------------------------------------------------------------------


def _cast_reference(xp: Any, x: Any, dtype: DType) -> Any:
    """To 16-bit floats through float32; floats to integers as `expressions.converted`, and to uint64 saturating, NaN to 0."""
    return quiet.copy().run(_converted_array, xp, x, dtype)


def _converted_array(xp: Any, x: Any, dtype: DType) -> Any:
    x = x.real if x.dtype.kind == "c" and dtype.kind not in "cb" else x
    if dtype.kind in "iu" and x.dtype.kind not in "iub":
        wide = (x.real if x.dtype.kind == "c" else x).astype(np.float64)
        holder = dtype if dtype is uint64 else through(dtype)
        limits = np.iinfo(holder.numpy)
        inside = (wide > float(limits.min) - 1) & (wide < float(limits.max) + (holder.itemsize == 4))
        outside = xp.where(wide > 0, limits.max, 0).astype(holder.numpy) if holder is uint64 else holder.numpy.type(limits.min)
        return xp.where(inside, xp.where(inside, wide, 0).astype(holder.numpy), outside).astype(dtype.numpy)
    if dtype.kind == "b":
        return x != 0
    return x.astype(dtype.compute.numpy).astype(dtype.numpy, copy=False)


cast = Op(
    "cast",
    doc="x as another dtype; floats are truncated to integers, and give the least one where they do not fit.  [...] -> [...].",
    signature="(x, dtype)",
    prepare=lambda x, dtype: ((tensor("cast", "x", x),), {"dtype": require_dtype("cast", dtype)}),
    infer=lambda x, dtype: TensorType(dtype, x.shape),
    reference=_cast_reference,
    grad=lambda g, out, x, dtype: (to_dtype(g, x.dtype) if x.dtype.kind in "fc" and g.dtype.kind in "fc" else None,),
    lowering=Scalar(lambda x, dtype: converted(x, dtype.compute)),
    attrs=("dtype",),
    dtypes=EVERY,
    samples=(
        call(fill(3, 4, low=-9, high=9), float32),
        call(fill(), float64),
        call(fill(0, 3), int32),
        call(fill(33, low=-9, high=9), int64),
        call(fill(5, low=-1, high=2), bool_),
        call(fill(8, special=True), float64),
        call(fill(8, special=True), int32),
        call(fill(8, special=True, low=-999, high=999), uint8),
        call(fill(8, special=True, low=-999, high=999), int8),
        call(fill(8, special=True), int64),
    ),
    bad=(
        Bad((fill(2), "float"), TypeError, "cast: argument 'dtype'"),
        Bad((2.0, float32), TypeError, "cast: argument 'x'"),
    ),
    methods=(),
    functions=(),
)

clone = elementwise(
    "clone",
    ("x",),
    doc="A copy.  [...] -> [...].",
    rule=lambda x: x,
    reference=lambda xp, x: xp.array(x),
    kinds="buifc",
    grad=lambda g, out, x: (g,),
    dtypes=EVERY_COMPLEX,
    samples=UNARY,
)
