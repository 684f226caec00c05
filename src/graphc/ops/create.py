"""Tensors from nothing: full and iota, and what is written with them.

Enters: sizes, numbers, dtypes.  Leaves: operators.  Never here: devices, requires_grad (the eager layer's business).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dims import Dim
from graphc.dtypes import DType, as_dtype, bool_, float32, float64, get_default_dtype, int32, int64
from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Composite, Element, Op, Shape, Size, TensorType
from graphc.ops.arguments import cast, constant, of_type, one_size, shape_of, sizes, tensor
from graphc.ops.arguments import number as as_number
from graphc.ops.declare import EVERY_COMPLEX, Shorthand, call, fill
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import converted
from graphc.ops.expressions import size as size_value


def require_dtype(name: str, dtype: Any) -> DType:
    """A dtype argument.  Raises TypeError."""
    try:
        return as_dtype(dtype)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None


def dtype_of_number(value: Any) -> DType:
    """The dtype PyTorch gives a fill value."""
    from graphc.dtypes import default_for_scalar

    return int64 if isinstance(value, Dim) else default_for_scalar(value)


# ---- full ----------------------------------------------------------------------------------------------------------


def _full_rule(load: Any, index: tuple[Size, ...], in_types: Any, out_type: TensorType, value: Any, **_: Any) -> Expr:
    if isinstance(value, Dim):
        return converted(size_value(value), out_type.dtype)
    return literal(value, out_type.dtype)


def _full_prepare(shape: Any, value: Any, dtype: DType | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    value = as_number("full", "fill_value", value)
    dtype = dtype_of_number(value) if dtype is None else require_dtype("full", dtype)
    return (), {"value": value, "shape": shape_of("full", shape, "size"), "dtype": dtype}


def _full_reference(xp: Any, value: Any, shape: Shape, dtype: DType) -> Any:
    value = value.real if isinstance(value, complex) and dtype.kind not in "cb" else value
    wrapped = np.asarray(value).astype(np.float32 if dtype.kind == "f" and dtype.itemsize == 2 else dtype.numpy)
    return xp.full(shape, wrapped.astype(dtype.numpy), dtype=dtype.numpy)


full = Op(
    "full",
    doc="A tensor of one value.  () -> shape.",
    signature="(size, fill_value, dtype=None)",
    prepare=_full_prepare,
    infer=lambda value, shape, dtype: TensorType(dtype, shape),
    reference=_full_reference,
    grad=None,
    lowering=Element(_full_rule),
    attrs=("value", "shape", "dtype"),
    dtypes=(float32,),
    samples=(call((2, 3), 1.5), call((), 7), call((0, 4), -0.0), call((3,), True), call(5, 2, dtype=float64)),
    bad=(
        Bad(((2, -1), 0.0), RuntimeError, "full: negative size"),
        Bad(((2,), "a"), TypeError, "full: argument 'fill_value'"),
        Bad(((2,), 1.0, "float"), TypeError, "full: argument 'dtype'"),
    ),
    methods=(),
    functions=(),
)


# ---- iota ----------------------------------------------------------------------------------------------------------


def _iota_prepare(size: Any, dtype: DType = int64) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (), {"size": one_size("iota", "size", size), "dtype": require_dtype("iota", dtype)}


iota = Op(
    "iota",
    doc="0, 1, ... size-1.  () -> [size].",
    signature="(size, dtype=int64)",
    prepare=_iota_prepare,
    infer=lambda size, dtype: TensorType(dtype, (size,)),
    reference=lambda xp, size, dtype: xp.arange(size).astype(dtype.compute.numpy).astype(dtype.numpy),
    grad=None,
    lowering=Element(lambda load, index, in_types, out_type, **_: converted(size_value(index[0]), out_type.dtype)),
    attrs=("size", "dtype"),
    dtypes=(int64,),
    samples=(call(5), call(0), call(1), call(33, dtype=float32), call(4, dtype=int32)),
    bad=(Bad((2.5,), TypeError, "iota: argument 'size' must be ints"),),
    methods=(),
    functions=(),
)


# ---- arange, linspace, eye -----------------------------------------------------------------------------------------


def _arange_prepare(
    start: Any, end: Any = None, step: Any = 1, *, dtype: DType | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    start, end, step = (None if v is None else as_number("arange", "start", v) for v in (start, end, step))
    if end is None:
        start, end = 0, start
    dtype = None if dtype is None else require_dtype("arange", dtype)
    if dtype is bool_:
        raise NotImplementedError("arange: not implemented for bool")
    if not all(isinstance(v, Dim) or math.isfinite(v) for v in (start, end)):
        raise RuntimeError(f"arange: unsupported range: {start} -> {end}")
    if dtype is int64 and step != 0:  # PyTorch counts the elements of other integer dtypes with fractions
        start, end, step = (v if isinstance(v, Dim) else int(v) for v in (start, end, step))
        if step == 0:
            raise ValueError("arange: step must be nonzero")
    if step == 0:
        raise RuntimeError("arange: step must be nonzero")
    if isinstance(start, Dim) or isinstance(end, Dim) or isinstance(step, Dim):
        if isinstance(step, Dim) or step < 0:
            raise RuntimeError("arange: a symbolic range needs a positive number as step")
        length = -((start - end) // step)
    else:
        if (end - start) * step < 0:
            raise RuntimeError(f"arange: upper bound and lower bound inconsistent with step sign: {start}, {end}, {step}")
        exact = all(isinstance(v, int) for v in (start, end, step))
        length = -((start - end) // step) if exact else math.ceil((end - start) / step)
    if dtype is None:
        dtype = get_default_dtype() if any(isinstance(v, float) for v in (start, end, step)) else int64
    if dtype.kind in "iu":
        start, step = (v if isinstance(v, Dim) else int(v) for v in (start, step))
    return (), {"start": start, "step": step, "size": length, "dtype": require_dtype("arange", dtype)}


def _arange(start: Any, step: Any, size: Size, dtype: DType) -> Any:
    exact = float64 if dtype.kind == "f" else int64
    result = iota.run(size=size, dtype=exact)
    if step != 1:
        result = Op.table["mul"].run(result, constant(step, exact))
    if start != 0:
        result = Op.table["add"].run(result, constant(start, exact))
    return cast(result, dtype)


def _arange_reference(xp: Any, start: Any, step: Any, size: int, dtype: DType) -> Any:
    exact = xp.arange(size, dtype=np.float64 if dtype.kind == "f" else np.int64)
    if dtype.kind != "f":
        start, step = int(start), int(step)
    return (exact * step + start).astype(dtype.compute.numpy).astype(dtype.numpy)


arange = Op(
    "arange",
    doc="start, start + step, ... below end; floating values are computed in float64 and rounded once.  () -> "
    "[ceil((end - start) / step)].",
    signature="(start, end=None, step=1, *, dtype=None)",
    prepare=_arange_prepare,
    infer=lambda start, step, size, dtype: TensorType(dtype, (size,)),
    reference=_arange_reference,
    grad=None,
    lowering=Composite(_arange),
    attrs=("start", "step", "size", "dtype"),
    dtypes=(int64,),
    samples=(call(5), call(2, 11, 3), call(5, 0, -2), call(0.0, 1.0, 0.1), call(3, 3), call(4, dtype=float32)),
    bad=(
        Bad((0, 5, 0), RuntimeError, "arange: step must be nonzero"),
        Bad((0, 5, -1), RuntimeError, "arange: upper bound"),
        Bad(("a",), TypeError, "arange: argument 'start'"),
    ),
    methods=(),
    functions=(),
)


def _ends(name: str, start: Any, end: Any, steps: Any, dtype: DType | None) -> dict[str, Any]:
    """What linspace and logspace share.  Integer dtypes begin and end at whole numbers.  Raises RuntimeError or TypeError."""
    steps = one_size(name, "steps", steps)
    if isinstance(steps, int) and steps < 0:
        raise RuntimeError(f"{name}: number of steps must be non-negative, got {steps}")
    dtype = get_default_dtype() if dtype is None else require_dtype(name, dtype)
    start, end = as_number(name, "start", start), as_number(name, "end", end)
    if dtype.kind in "iu":
        start, end = int(start), int(end)
    return {"start": float(start), "end": float(end), "size": steps, "dtype": dtype}


def _linspace_prepare(start: Any, end: Any, steps: Any, *, dtype: DType | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (), _ends("linspace", start, end, steps, dtype)


def _linspace(start: float, end: float, size: Size, dtype: DType) -> Any:
    """Counted from the nearer end, so that both ends are exact."""
    add, sub, mul = Op.table["add"].run, Op.table["sub"].run, Op.table["mul"].run
    steps = iota.run(size=size, dtype=int64)
    if isinstance(size, int) and size < 2:
        return cast(add(cast(steps, float64), constant(start, float64)), dtype)
    last = sub(constant(size, int64), constant(1, int64))
    step = Op.table["div"].run(constant(end - start, float64), cast(last, float64))
    left = add(mul(cast(steps, float64), step), constant(start, float64))
    right = sub(constant(end, float64), mul(cast(sub(last, steps), float64), step))
    near = Op.table["lt"].run(steps, constant(size // 2, int64))
    return cast(Op.table["where"].run(near, left, right), dtype)


linspace = Op(
    "linspace",
    doc="`steps` values evenly spaced from start to end, both included.  () -> [steps].",
    signature="(start, end, steps, *, dtype=None)",
    prepare=_linspace_prepare,
    infer=lambda start, end, size, dtype: TensorType(dtype, (size,)),
    reference=lambda xp, start, end, size, dtype: xp.linspace(start, end, size).astype(dtype.compute.numpy).astype(dtype.numpy),
    grad=None,
    lowering=Composite(_linspace),
    attrs=("start", "end", "size", "dtype"),
    dtypes=(float32,),
    samples=(call(0, 1, 5), call(-2.0, 3.0, 33), call(1, 2, 1), call(1, 2, 0), call(5, 0, 7, dtype=float64)),
    bad=(
        Bad((0, 1, -1), RuntimeError, "linspace: number of steps"),
        Bad((0, 1, 2.5), TypeError, "linspace: argument 'steps'"),
    ),
    methods=(),
    functions=(),
)


def _logspace(start: float, end: float, base: float, size: Size, dtype: DType) -> Any:
    exponents = _linspace(start, end, size, float64)
    return cast(Op.table["pow"].run(constant(base, float64), exponents), dtype)


def _logspace_prepare(
    start: Any, end: Any, steps: Any, base: Any = 10.0, *, dtype: DType | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (), {**_ends("logspace", start, end, steps, dtype), "base": float(as_number("logspace", "base", base))}


def _logspace_reference(xp: Any, start: float, end: float, base: float, size: int, dtype: DType) -> Any:
    powers = xp.power(base, xp.linspace(start, end, size))
    return Op.table["cast"].reference(xp, powers, dtype=dtype)


logspace = Op(
    "logspace",
    doc="base to the powers of `steps` values evenly spaced from start to end; computed in float64.  () -> [steps].",
    signature="(start, end, steps, base=10.0, *, dtype=None)",
    prepare=_logspace_prepare,
    infer=lambda start, end, base, size, dtype: TensorType(dtype, (size,)),
    reference=_logspace_reference,
    grad=None,
    lowering=Composite(_logspace),
    attrs=("start", "end", "base", "size", "dtype"),
    dtypes=(float32,),
    samples=(call(0, 1, 5), call(-2.0, 3.0, 33, 2.0), call(1, 2, 1), call(1, 2, 0), call(3, 0, 7, dtype=float64)),
    bad=(
        Bad((0, 1, -1), RuntimeError, "logspace: number of steps"),
        Bad((0, 1, 2.5), TypeError, "logspace: argument 'steps'"),
    ),
    methods=(),
    functions=(),
)


def _eye_prepare(n: Any, m: Any = None, *, dtype: DType | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    rows = one_size("eye", "n", n)
    columns = rows if m is None else one_size("eye", "m", m)
    shape_of("eye", (rows, columns), "size")
    return (), {"n": rows, "m": columns, "dtype": get_default_dtype() if dtype is None else require_dtype("eye", dtype)}


def _eye(n: Size, m: Size, dtype: DType) -> Any:
    rows = Op.table["reshape"].run(iota.run(size=n, dtype=int64), shape=(n, 1))
    return cast(Op.table["eq"].run(rows, iota.run(size=m, dtype=int64)), dtype)


eye = Op(
    "eye",
    doc="Ones on the diagonal, zeros elsewhere.  () -> [n, m].",
    signature="(n, m=None, *, dtype=None)",
    prepare=_eye_prepare,
    infer=lambda n, m, dtype: TensorType(dtype, (n, m)),
    reference=lambda xp, n, m, dtype: xp.eye(n, m).astype(dtype.numpy),
    grad=None,
    lowering=Composite(_eye),
    attrs=("n", "m", "dtype"),
    dtypes=(float32,),
    samples=(call(3), call(2, 5), call(0), call(5, 2, dtype=int64), call(1)),
    bad=(Bad((-1,), RuntimeError, "eye: negative size"), Bad((2.0,), TypeError, "eye: argument 'n'")),
    methods=(),
    functions=(),
)


# ---- shorthands ----------------------------------------------------------------------------------------------------


def _shape_prepare(name: str) -> Any:
    def prepare(*size: Any, dtype: DType | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {"size": shape_of(name, sizes(name, size, "size"), "size"), "dtype": dtype}

    return prepare


def _filled(name: str, value: int) -> Shorthand:
    def rule(size: Any, dtype: DType | None = None) -> Any:
        return constant(value, get_default_dtype() if dtype is None else require_dtype(name, dtype), size)

    def reference(xp: Any, size: Any, dtype: DType | None = None) -> Any:
        return xp.full(size, value).astype((dtype or get_default_dtype()).numpy)

    return Shorthand(
        name,
        doc=f"A tensor of {name}.  () -> size.",
        signature="(*size, dtype=None)",
        rule=rule,
        prepare=_shape_prepare(name),
        attrs=("size", "dtype"),
        reference=reference,
        grad=None,
        dtypes=(float32,),
        samples=(call(2, 3), call((4,)), call(()), call(0, 2), call(3, dtype=int64)),
        bad=(Bad((2, -3), RuntimeError, f"{name}: negative size"), Bad((2.5,), TypeError, f"{name}: argument 'size'")),
        methods=(),
        functions=(),
    )


zeros = _filled("zeros", 0)
ones = _filled("ones", 1)


def _like(name: str, value: int) -> Shorthand:
    def rule(x: Any, dtype: DType | None = None) -> Any:
        x = tensor(name, "x", x)
        return constant(value, x.dtype if dtype is None else require_dtype(name, dtype), tuple(x.shape))

    def reference(xp: Any, x: Any, dtype: DType | None = None) -> Any:
        return xp.full(x.shape, value).astype(x.dtype if dtype is None else dtype.numpy)

    return Shorthand(
        name,
        doc=f"A tensor of {name.removesuffix('_like')} of the shape (and dtype) of x.  [...] -> [...].",
        rule=rule,
        reference=reference,
        grad=None,
        dtypes=EVERY_COMPLEX,
        samples=(call(fill(2, 3)), call(fill()), call(fill(0, 3)), call(fill(2), dtype=int32)),
        bad=(Bad((3,), TypeError, f"{name}: argument 'x' must be a Tensor"),),
        methods=(),
        functions=(),
    )


zeros_like = _like("zeros_like", 0)
ones_like = _like("ones_like", 1)


def _full_like(x: Any, fill_value: Any, dtype: DType | None = None) -> Any:
    x = tensor("full_like", "x", x)
    value = as_number("full_like", "fill_value", fill_value)
    return constant(value, x.dtype if dtype is None else require_dtype("full_like", dtype), of_type(x).shape)


full_like = Shorthand(
    "full_like",
    doc="One value in the shape (and dtype) of x.  [...] -> [...].",
    rule=_full_like,
    reference=lambda xp, x, fill_value, dtype=None: xp.full(x.shape, fill_value).astype(x.dtype if dtype is None else dtype.numpy),
    grad=None,
    dtypes=EVERY_COMPLEX,
    samples=(call(fill(2, 3), 3), call(fill(), 1), call(fill(0, 3), 2), call(fill(2), 2.5, dtype=float64)),
    bad=(Bad((fill(2), "a"), TypeError, "full_like: argument 'fill_value'"),),
    methods=(),
    functions=(),
)


def _fill(x: Any, value: Any) -> Any:
    x = tensor("fill", "x", x)
    if isinstance(getattr(value, "dtype", None), DType):
        if value.ndim:
            raise RuntimeError(f"fill: only a tensor of 0 dims can fill, got {of_type(value)}")
        value = cast(value, x.dtype)
    else:
        value = constant(as_number("fill", "value", value), x.dtype)
    return Op.table["where"].run(constant(True, bool_), value, x)  # so that gradients find their way to x, as zeros


fill_like = Shorthand(
    "fill",
    doc="A tensor of the type of x filled with a number or a tensor of 0 dims.  [...] -> [...].",
    rule=_fill,
    reference=lambda xp, x, value: xp.full(x.shape, value).astype(x.dtype),
    dtypes=EVERY_COMPLEX,
    samples=(call(fill(2, 3), 3), call(fill(), 1), call(fill(0, 3), 2), call(fill(2), fill(low=1))),
    bad=(Bad((fill(2), fill(2)), RuntimeError, "fill: only a tensor of 0 dims can fill"),),
    methods=(),
)
