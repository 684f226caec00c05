"""Pooling over windows: averages and largest elements, with where they are.

Enters: tensors [..., *sizes] and canonical window attributes.  Leaves: operators.
Never here: PyTorch's arguments (`pools`); windows whose sizes vary (`adaptive_pooling`).

What is pooled is padded once, then read through `windows`, so that a sum or an extremum of a window is one reduction.  The largest
of few elements is found where they are read (`window_max`), in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType, int64
from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Composite, Element, Op, Size, TensorType
from graphc.ops.arguments import (
    cast,
    constant,
    gradient_in_compute_dtype,
    in_compute_dtype,
    rounded,
    tensor,
    zeros_like,
)
from graphc.ops.arithmetic import div
from graphc.ops.comparison import eq, isnan, logical_or, where
from graphc.ops.declare import FLOATING, NUMERIC, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import both, select
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import size as size_value
from graphc.ops.joining import pad_constant
from graphc.ops.movement import Index, expand, reshape, slice_
from graphc.ops.reduce import reduce_max, reduce_min, reduce_sum, spread
from graphc.ops.scatter import gather, scatter_add
from graphc.ops.window_max import MOST, window_max, window_max_input, window_which
from graphc.ops.windows import Ints, fixed, overlap_add, windows

# ---- where windows lie -------------------------------------------------------------------------------------------------


def pooled_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> int:
    """How many windows there are; rounded up, none starts in the padding at the end."""
    rest = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (rest + (stride - 1 if ceil else 0)) // stride + 1
    return count - 1 if ceil and (count - 1) * stride >= size + padding else count


def pooled_sizes(sizes: Sequence[Size], kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool) -> Ints:
    """`pooled_size` of every dim.  Raises RuntimeError for symbolic sizes."""
    known = fixed("pooling", sizes)
    if not len(known) == len(kernel) == len(stride) == len(padding) == len(dilation):
        raise RuntimeError(f"pooling: a kernel of {list(kernel)} does not fit sizes {list(known)}")
    how = zip(known, kernel, stride, padding, dilation, strict=True)
    return tuple(pooled_size(*dim, ceil) for dim in how)


def seen(x: Any, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool, around: Any) -> Any:
    """Windows of x padded with `around`, each as one dim.  [..., *sizes] -> [..., *places, kernel elements]."""
    n, lead = len(kernel), x.ndim - len(kernel)
    places = pooled_sizes(x.shape[lead:], kernel, stride, padding, dilation, ceil)
    reach = [(p - 1) * s + d * (k - 1) + 1 for p, s, d, k in zip(places, stride, dilation, kernel, strict=True)]
    after = [max(0, r - size - p) for r, size, p in zip(reach, x.shape[lead:], padding, strict=True)]
    if tuple(x.shape[lead:]) == tuple(kernel) and set(places) == {1} and not any(padding):  # one window is all there is
        return reshape.run(x, shape=(*x.shape[:lead], *places, math.prod(kernel)))
    if any(padding) or any(after):
        grown = (size + p + a for size, p, a in zip(x.shape[lead:], padding, after, strict=True))
        x = pad_constant.run(x, starts=(*(0,) * lead, *padding), shape=(*x.shape[:lead], *grown), value=around)
    view = windows.run(x, kernel=kernel, stride=stride, dilation=dilation)
    stops = (*view.shape[:lead], *places, *kernel)
    view = slice_.run(view, starts=(0,) * (lead + 2 * n), stops=stops, steps=(1,) * (lead + 2 * n))
    return reshape.run(view, shape=(*x.shape[:lead], *places, math.prod(kernel)))


def _seen_array(xp: Any, x: Any, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool, around: Any) -> Any:
    """`seen` of an array."""
    n, lead = len(kernel), x.ndim - len(kernel)
    places = pooled_sizes(x.shape[lead:], kernel, stride, padding, dilation, ceil)
    reach = [(p - 1) * s + d * (k - 1) + 1 for p, s, d, k in zip(places, stride, dilation, kernel, strict=True)]
    widths = [(p, max(0, r - size - p)) for p, r, size in zip(padding, reach, x.shape[lead:], strict=True)]
    x = xp.pad(x, [(0, 0)] * lead + widths, constant_values=around)
    view = windows.reference(xp, x, kernel, stride, dilation)
    view = view[(..., *(slice(0, p) for p in places), *(slice(None),) * n)]
    return view.reshape(*x.shape[:lead], *places, math.prod(kernel))


def lowest(dtype: DType) -> float | int:
    """What every element is at least as large as."""
    return float("-inf") if dtype.kind == "f" else int(np.iinfo(dtype.numpy).min)


def _none_prepare(name: str) -> Any:
    def prepare(**attrs: Any) -> Prepared:
        return (), attrs

    return prepare


def _positions_rule(
    load: Any,
    index: Index,
    in_types: Sequence[TensorType],
    out_type: TensorType,
    sizes: Ints,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    ceil: bool,
) -> Expr:
    """The row-major position of a window's element among the unpadded ones, their count for one in the padding."""
    rest, position = index[-1], 0
    condition: Expr | None = None
    within: list[Size] = []
    for k in reversed(range(len(kernel))):
        within.insert(0, rest % kernel[k] if k else rest)
        rest = rest // kernel[k]
    for q, j, size, s, p, d, k in zip(index[:-1], within, sizes, stride, padding, dilation, kernel, strict=True):
        at = q * s + j * d - p
        position = position * size + at
        if p or (out_type.shape[0] - 1) * s + d * (k - 1) - p >= size or ceil:
            inside = both(fn("ge", size_value(at), literal(0, int64)), fn("lt", size_value(at), size_value(size)))
            condition = inside if condition is None else both(condition, inside)
    found = size_value(position)
    return found if condition is None else select(condition, found, literal(math.prod(sizes), int64))


def _positions_array(xp: Any, sizes: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool) -> Any:
    numbers = xp.arange(math.prod(sizes), dtype=np.int64).reshape(sizes)
    return _seen_array(xp, numbers, kernel, stride, padding, dilation, ceil, math.prod(sizes))


_MISFIT, _ONE = "pooling: a kernel of .* does not fit sizes", (1, 1)

window_positions = Op(
    "window_positions",
    doc="Where the elements of pooling windows stand, in row-major order; the number of elements for padding.  -> "
    "int64 [*places, kernel elements].",
    signature="(*, sizes, kernel, stride, padding, dilation, ceil)",
    prepare=_none_prepare("window_positions"),
    infer=lambda sizes, kernel, stride, padding, dilation, ceil: TensorType(
        int64, (*pooled_sizes(sizes, kernel, stride, padding, dilation, ceil), math.prod(kernel))
    ),
    reference=_positions_array,
    grad=None,
    lowering=Element(_positions_rule),
    attrs=("sizes", "kernel", "stride", "padding", "dilation", "ceil"),
    dtypes=(int64,),
    samples=(call(sizes=(5, 4), kernel=(3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), ceil=True),),
    bad=(
        Bad(
            (),
            RuntimeError,
            _MISFIT,
            {"sizes": (5,), "kernel": (3, 2), "stride": _ONE, "padding": _ONE, "dilation": _ONE, "ceil": False},
        ),
    ),
    methods=(),
    functions=(),
)


def _divisor_rule(
    load: Any,
    index: Index,
    in_types: Sequence[TensorType],
    out_type: TensorType,
    sizes: Ints,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    ceil: bool,
    include_pad: bool,
) -> Expr:
    count: Expr = literal(1, int64)
    for q, size, k, s, p in zip(index, sizes, kernel, stride, padding, strict=True):
        start = size_value(q * s - p)
        end = fn("min", fn("add", start, literal(k, int64)), literal(size + p, int64))
        if not include_pad:
            start, end = fn("max", start, literal(0, int64)), fn("min", end, literal(size, int64))
        count = fn("mul", count, fn("sub", end, start))
    return count


def _divisor_array(xp: Any, sizes: Ints, kernel: Ints, stride: Ints, padding: Ints, ceil: bool, include_pad: bool) -> Any:
    places = pooled_sizes(sizes, kernel, stride, padding, (1,) * len(kernel), ceil)
    count = xp.ones((), np.int64)
    for n, size, k, s, p in zip(places, sizes, kernel, stride, padding, strict=True):
        start = xp.arange(n) * s - p
        end = xp.minimum(start + k, size + p)
        if not include_pad:
            start, end = xp.maximum(start, 0), xp.minimum(end, size)
        count = count[..., None] * (end - start)
    return count


window_sizes = Op(
    "window_sizes",
    doc="How many elements each pooling window counts, with or without padding.  -> int64 [*places].",
    signature="(*, sizes, kernel, stride, padding, ceil, include_pad)",
    prepare=_none_prepare("window_sizes"),
    infer=lambda sizes, kernel, stride, padding, ceil, include_pad: TensorType(
        int64, pooled_sizes(sizes, kernel, stride, padding, (1,) * len(kernel), ceil)
    ),
    reference=_divisor_array,
    grad=None,
    lowering=Element(_divisor_rule),
    attrs=("sizes", "kernel", "stride", "padding", "ceil", "include_pad"),
    dtypes=(int64,),
    samples=(call(sizes=(5, 4), kernel=(3, 2), stride=(2, 1), padding=(1, 1), ceil=True, include_pad=False),),
    bad=(
        Bad(
            (),
            RuntimeError,
            _MISFIT,
            {"sizes": (5,), "kernel": (3, 2), "stride": _ONE, "padding": _ONE, "ceil": False, "include_pad": True},
        ),
    ),
    methods=(),
    functions=(),
)

# ---- average -----------------------------------------------------------------------------------------------------------

_AVG = ("kernel", "stride", "padding", "ceil", "include_pad", "divisor")


def _divided(x: Any, sizes: Ints, kernel: Ints, stride: Ints, padding: Ints, ceil: bool, include_pad: bool, divisor: Any) -> Any:
    """x, one number a window, divided by how many elements the window counts; integers are truncated."""
    how: dict[str, Any] = {
        "sizes": sizes, "kernel": kernel, "stride": stride, "padding": padding, "ceil": ceil, "include_pad": include_pad,
    }  # fmt: skip
    if divisor is not None:
        count = constant(divisor, x.dtype)
    else:
        counts = np.unique(_divisor_array(np, **how))
        count = constant(int(counts[0]), x.dtype) if counts.size == 1 else cast(window_sizes.run(**how), x.dtype)
    return div.run(x, count) if x.dtype.kind == "f" else Op.table["div"](x, count, rounding_mode="trunc")


def _avg_pool(x: Any, kernel: Ints, stride: Ints, padding: Ints, ceil: bool, include_pad: bool, divisor: Any) -> Any:
    view = seen(x, kernel, stride, padding, (1,) * len(kernel), ceil, 0)
    sizes = fixed("avg_pool", x.shape[x.ndim - len(kernel) :])
    return _divided(reduce_sum.run(view, dim=view.ndim - 1), sizes, kernel, stride, padding, ceil, include_pad, divisor)


def _avg_infer(x: TensorType, kernel: Ints, stride: Ints, padding: Ints, ceil: bool, **_: Any) -> TensorType:
    lead = max(0, x.rank - len(kernel))
    return TensorType(x.dtype, (*x.shape[:lead], *pooled_sizes(x.shape[lead:], kernel, stride, padding, (1,) * len(kernel), ceil)))


def _avg_reference(xp: Any, x: Any, kernel: Ints, stride: Ints, padding: Ints, ceil: bool, include_pad: bool, divisor: Any) -> Any:
    total = _seen_array(xp, x, kernel, stride, padding, (1,) * len(kernel), ceil, 0).sum(axis=-1, dtype=x.dtype)
    counts = divisor if divisor else _divisor_array(xp, x.shape[x.ndim - len(kernel) :], kernel, stride, padding, ceil, include_pad)
    return (total / counts).astype(x.dtype) if x.dtype.kind == "f" else xp.trunc(total / counts).astype(x.dtype)


def _avg_grad(g: Any, out: Any, x: Any, **how: Any) -> tuple[Any]:
    return (avg_pool_input.run(g, sizes=tuple(x.shape[x.ndim - len(how["kernel"]) :]), **how),)


def _attrs_prepare(name: str, attrs: tuple[str, ...]) -> Any:
    def prepare(x: Any, *given: Any) -> Prepared:
        return (tensor(name, "x", x),), dict(zip(attrs, given, strict=True))

    return prepare


# sizes, (kernel, stride, padding, ceil, include_pad, divisor)
_AVG_SAMPLES: tuple[tuple[tuple[int, ...], tuple[Any, ...]], ...] = (
    ((2, 3, 6), ((2,), (2,), (0,), False, True, None)),
    ((2, 5, 7), ((3, 2), (2, 2), (1, 1), True, False, None)),
    ((1, 5, 7), ((3, 3), (1, 2), (1, 1), False, True, None)),
    ((2, 4, 3, 5), ((2, 2, 2), (2, 1, 2), (0, 1, 0), False, True, 3)),
)

avg_pool: Op = Op(
    "avg_pool",
    doc="The mean of each window.  [..., *sizes] -> [..., *places].",
    signature="(x, kernel, stride, padding, ceil, include_pad, divisor)",
    prepare=_attrs_prepare("avg_pool", _AVG),
    infer=_avg_infer,
    reference=rounded(_avg_reference),
    grad=_avg_grad,
    lowering=Composite(in_compute_dtype(_avg_pool)),
    attrs=_AVG,
    dtypes=FLOATING,
    samples=tuple(call(fill(*shape), *how) for shape, how in _AVG_SAMPLES),
    bad=(Bad((fill(3), _ONE, _ONE, (0, 0), False, True, None), RuntimeError, _MISFIT),),
    methods=(),
    functions=(),
)


def _avg_pool_input(
    g: Any, sizes: Ints, kernel: Ints, stride: Ints, padding: Ints, ceil: bool, include_pad: bool, divisor: Any
) -> Any:
    n, lead = len(kernel), g.ndim - len(kernel)
    if 0 in sizes:
        return constant(0, g.dtype, (*g.shape[:lead], *sizes))
    each = _divided(g, sizes, kernel, stride, padding, ceil, include_pad, divisor)
    if stride == kernel and not any(padding) and all(p * k == s for p, k, s in zip(g.shape[lead:], kernel, sizes, strict=True)):
        return _repeated(each, sizes, kernel)
    spread_out = expand.run(reshape.run(each, shape=(*g.shape, *(1,) * n)), shape=(*g.shape, *kernel))
    reach = tuple((p - 1) * s + k for p, s, k in zip(g.shape[lead:], stride, kernel, strict=True))
    whole = overlap_add.run(spread_out, shape=reach, stride=stride, dilation=(1,) * n)
    stops = tuple(min(r, p + size) for r, p, size in zip(reach, padding, sizes, strict=True))
    part = slice_.run(whole, starts=(*(0,) * lead, *padding), stops=(*g.shape[:lead], *stops), steps=(1,) * g.ndim)
    return pad_constant.run(part, starts=(0,) * g.ndim, shape=(*g.shape[:lead], *sizes), value=0)


def _repeated(each: Any, sizes: Ints, kernel: Ints) -> Any:
    """Every element as often as its window has elements, where windows share none and leave none out."""
    lead = each.ndim - len(kernel)
    if all(p == 1 for p in each.shape[lead:]):
        return expand.run(each, shape=(*each.shape[:lead], *sizes))
    apart = [n for p in each.shape[lead:] for n in (p, 1)]
    whole = [n for p, k in zip(each.shape[lead:], kernel, strict=True) for n in (p, k)]
    each = expand.run(reshape.run(each, shape=(*each.shape[:lead], *apart)), shape=(*each.shape[:lead], *whole))
    return reshape.run(each, shape=(*each.shape[:lead], *sizes))


def _avg_input_infer(g: TensorType, sizes: Ints, **how: Any) -> TensorType:
    places = pooled_sizes(sizes, how["kernel"], how["stride"], how["padding"], (1,) * len(sizes), how["ceil"])
    lead = g.rank - len(sizes)
    if fixed("avg_pool_input", g.shape[lead:]) != places:
        raise RuntimeError(f"avg_pool_input: {g} is not of an average of sizes {list(sizes)}, which has {list(places)}")
    return TensorType(g.dtype, (*g.shape[:lead], *sizes))


def _avg_input_reference(xp: Any, g: Any, sizes: Ints, kernel: Ints, stride: Ints, padding: Ints, ceil: bool, **how: Any) -> Any:
    lead = g.ndim - len(kernel)
    counts = how["divisor"] or _divisor_array(xp, sizes, kernel, stride, padding, ceil, how["include_pad"])
    places = _positions_array(xp, sizes, kernel, stride, padding, (1,) * len(kernel), ceil)
    flat = xp.zeros((*g.shape[:lead], math.prod(sizes) + 1), g.dtype)
    each = g / counts
    for place in np.ndindex(*places.shape[:-1]):
        for at in places[place]:
            flat[..., at] += each[(..., *place)]
    return flat[..., :-1].reshape(*g.shape[:lead], *sizes)


avg_pool_input = Op(
    "avg_pool_input",
    doc="The gradient of avg_pool's input of `sizes`.  [..., *places] -> [..., *sizes].",
    signature="(g, sizes, kernel, stride, padding, ceil, include_pad, divisor)",
    prepare=_attrs_prepare("avg_pool_input", ("sizes", *_AVG)),
    infer=_avg_input_infer,
    reference=rounded(_avg_input_reference),
    grad=lambda gg, out, g, sizes, **how: (avg_pool.run(gg, **how),),
    lowering=Composite(in_compute_dtype(_avg_pool_input)),
    attrs=("sizes", *_AVG),
    dtypes=FLOATING,
    samples=tuple(
        call(
            fill(*s[: len(s) - len(h[0])], *pooled_sizes(s[len(s) - len(h[0]) :], h[0], h[1], h[2], (1,) * len(h[0]), h[3])),
            s[len(s) - len(h[0]) :],
            *h,
        )
        for s, h in _AVG_SAMPLES
    ),
    bad=(Bad((fill(2, 4), (9,), (3,), (3,), (0,), False, True, 2), RuntimeError, "avg_pool_input: .* is not of an average"),),
    methods=(),
    functions=(),
)

# ---- largest -----------------------------------------------------------------------------------------------------------

_MAX = ("kernel", "stride", "padding", "dilation", "ceil")


def _written_out(x: Any, how: dict[str, Any]) -> dict[str, Any] | None:
    """The attributes of `window_max` where windows are small; None where it is not for them."""
    if math.prod(how["kernel"]) > MOST or 0 in x.shape:
        return None
    places = pooled_sizes(x.shape[x.ndim - len(how["kernel"]) :], **how)
    return {"places": places, **{name: how[name] for name in _MAX[:-1]}, "trailing": 0}


def _max_pool(x: Any, **how: Any) -> Any:
    small = _written_out(x, how)
    if small is not None:
        return window_max.run(x, **small)
    view = seen(x, **how, around=lowest(x.dtype))
    return reduce_max.run(view, dim=view.ndim - 1)


def _max_infer(result: DType | None) -> Any:
    def infer(x: TensorType, **how: Any) -> TensorType:
        lead = max(0, x.rank - len(how["kernel"]))
        return TensorType(result or x.dtype, (*x.shape[:lead], *pooled_sizes(x.shape[lead:], **how)))

    return infer


def first_largest(view: Any, positions: Any, count: int) -> Any:
    """The position of the first largest element (the first NaN if there is one) along the last dim."""
    dim = view.ndim - 1
    hit = eq(view, spread(reduce_max.run(view, dim=dim), view, dim))
    if view.dtype.kind == "f":
        hit = logical_or(hit, isnan(view))
    return reduce_min.run(where(hit, positions, constant(count, int64)), dim=dim)


def _max_indices(x: Any, **how: Any) -> Any:
    sizes = fixed("max_pool", x.shape[x.ndim - len(how["kernel"]) :])
    view = seen(x, **how, around=lowest(x.dtype))
    return first_largest(view, window_positions.run(sizes=sizes, **how), math.prod(sizes))


def _max_indices_array(xp: Any, x: Any, **how: Any) -> Any:
    sizes = x.shape[x.ndim - len(how["kernel"]) :]
    view = _seen_array(xp, x, **how, around=lowest_of(x))
    hit = (view == view.max(axis=-1, keepdims=True)) | (view != view)
    return xp.where(hit, _positions_array(xp, sizes, **how), math.prod(sizes)).min(axis=-1)


def lowest_of(x: Any) -> Any:
    """`lowest` for an array's dtype."""
    return np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf


def put_at(g: Any, indices: Any, x: Any, n: int) -> Any:
    """Zeros of the shape of x, with g added where `indices` say, in the order of g."""
    lead = tuple(x.shape[: x.ndim - n])
    flat = (*lead, math.prod(g.shape[len(lead) :]))
    zeros = reshape.run(zeros_like(x), shape=(*lead, math.prod(x.shape[len(lead) :])))
    added = scatter_add.run(zeros, reshape.run(indices, shape=flat), reshape.run(g, shape=flat), dim=len(lead))
    return reshape.run(added, shape=tuple(x.shape))


def take_at(x: Any, indices: Any, n: int) -> Any:
    """The elements of x at row-major positions in its last n dims."""
    lead = tuple(x.shape[: x.ndim - n])
    flat = reshape.run(x, shape=(*lead, math.prod(x.shape[len(lead) :])))
    places = reshape.run(indices, shape=(*lead, math.prod(indices.shape[len(lead) :])))
    return reshape.run(gather.run(flat, places, dim=len(lead)), shape=tuple(indices.shape))


def _max_grad(g: Any, out: Any, x: Any, **how: Any) -> tuple[Any]:
    if 0 in g.shape:
        return (zeros_like(x),)
    small = _written_out(x, how)
    if small is not None:
        sizes = tuple(x.shape[x.ndim - len(how["kernel"]) :])
        return (window_max_input.run(g, window_which.run(x, **small), sizes=sizes, **small),)
    return (put_at(g, max_pool_indices.run(x, **how), x, len(how["kernel"])),)


# sizes, (kernel, stride, padding, dilation, ceil)
_MAX_SAMPLES: tuple[tuple[tuple[int, ...], tuple[Any, ...]], ...] = (
    ((2, 3, 6), ((2,), (2,), (0,), (1,), False)),
    ((2, 5, 7), ((3, 2), (2, 2), (1, 1), (1, 1), True)),
    ((1, 7, 33), ((3, 3), (1, 2), (1, 1), (2, 1), False)),
    ((2, 4, 3, 5), ((2, 2, 2), (2, 1, 2), (0, 1, 0), (1, 1, 1), False)),
)


def _max_declared(name: str, doc: str, rule: Any, result: DType | None, reference: Any, grad: Any) -> Op:
    return Op(
        name,
        doc=doc,
        signature="(x, kernel, stride, padding, dilation, ceil)",
        prepare=_attrs_prepare(name, _MAX),
        infer=_max_infer(result),
        reference=reference,
        grad=grad,
        lowering=Composite(rule),
        attrs=_MAX,
        dtypes=NUMERIC,
        samples=tuple(call(fill(*shape), *how) for shape, how in _MAX_SAMPLES),
        bad=(Bad((fill(3), _ONE, _ONE, (0, 0), _ONE, False), RuntimeError, _MISFIT),),
        methods=(),
        functions=(),
    )


max_pool: Op = _max_declared(
    "max_pool",
    "The largest element of each window, NaN if any is.  [..., *sizes] -> [..., *places].",
    _max_pool,
    None,
    rounded(lambda xp, x, **how: _seen_array(xp, x, **how, around=lowest_of(x)).max(axis=-1)),
    gradient_in_compute_dtype(_max_grad),
)
max_pool_indices = _max_declared(
    "max_pool_indices",
    "Where the first largest element of each window stands among the last dims, in row-major order.  [..., *sizes] -> "
    "int64 [..., *places].",
    _max_indices,
    int64,
    _max_indices_array,
    None,
)
