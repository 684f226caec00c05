"""Windows that slide over the last dims, what lies under each, and their sum put back.

Enters: tensors.  Leaves: `windows` (movement: nothing is stored), `overlap_add`, its adjoint, and the public operators that are no
more than these: unfold (a Tensor's method), nn.functional.unfold and fold.  Never here: padding rules, what is done with a window.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import int64
from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Composite, Element, Movement, Op, Shape, Size, TensorType, shape_text
from graphc.ops.arguments import in_compute_dtype, of_type, one_dim, one_size, rounded, tensor
from graphc.ops.declare import EVERY, NUMERIC, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import both, clamped, inside_tests, select
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import size as size_value
from graphc.ops.joining import pad_constant
from graphc.ops.movement import Index, permute, reshape, slice_
from graphc.ops.reduce import reduce_sum

Ints = tuple[int, ...]

# ---- sizes -----------------------------------------------------------------------------------------------------------


def fixed(name: str, sizes: Sequence[Size]) -> Ints:
    """Sizes that code is made for, one by one.  Raises RuntimeError for a symbolic one."""
    known = tuple(operator.index(size) for size in sizes if isinstance(size, int))
    if len(known) != len(sizes):
        raise RuntimeError(f"{name}: needs fixed sizes, got {shape_text(tuple(sizes))}")
    return known


def fixed_inside(name: str, sizes: Sequence[Size]) -> tuple[Any, ...]:
    """`fixed` of all sizes but the first, which is a batch's and may be symbolic."""
    return *sizes[:1], *fixed(name, sizes[1:])


def per_dim(name: str, argument: str, value: Any, count: int, least: int = 0) -> Ints:
    """One int for all, or one for each of `count` dims.  Raises TypeError or RuntimeError."""
    given = tuple(value) if isinstance(value, tuple | list) else (value,)
    ints = fixed(name, [one_size(name, argument, v) for v in given])
    if len(ints) == 1:
        ints *= count
    if len(ints) != count:
        raise RuntimeError(f"{name}: argument '{argument}' must be one int or {count}, got {list(given)}")
    if any(v < least for v in ints):
        least_text = "greater than zero" if least == 1 else "non-negative"
        raise RuntimeError(f"{name}: argument '{argument}' must be {least_text}, got {list(given)}")
    if any(v >= 1 << 62 for v in ints):
        raise RuntimeError(f"{name}: argument '{argument}' is too large: {list(given)}")
    return ints


def window_count(size: Size, kernel: int, stride: int, dilation: int) -> Size:
    """How many windows fit."""
    return (size - dilation * (kernel - 1) - 1) // stride + 1


# ---- windows -----------------------------------------------------------------------------------------------------------


def _windows_infer(x: TensorType, kernel: Ints, stride: Ints, dilation: Ints) -> TensorType:
    lead = x.rank - len(kernel)
    if lead < 0 or not len(kernel) == len(stride) == len(dilation):
        raise RuntimeError(f"windows: {len(kernel)} kernel sizes do not fit {x}")
    counts = tuple(map(window_count, x.shape[lead:], kernel, stride, dilation))
    if any(isinstance(c, int) and c < 0 for c in counts):
        raise RuntimeError(f"windows: a window of {list(kernel)} (dilation {list(dilation)}) does not fit {x}")
    return TensorType(x.dtype, (*x.shape[:lead], *counts, *kernel))


def _windows_index(
    index: Index, in_type: TensorType, out_type: TensorType, kernel: Ints, stride: Ints, dilation: Ints
) -> tuple[Size, ...]:
    lead, n = in_type.rank - len(kernel), len(kernel)
    at, within = index[lead : lead + n], index[lead + n :]
    return (*index[:lead], *(q * s + k * d for q, s, k, d in zip(at, stride, within, dilation, strict=True)))


def _windows_reference(xp: Any, x: Any, kernel: Ints, stride: Ints, dilation: Ints) -> Any:
    lead, spans = x.ndim - len(kernel), [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    shape = (*x.shape[:lead], *map(window_count, x.shape[lead:], kernel, stride, dilation), *kernel)
    if 0 in shape:
        return xp.empty(shape, x.dtype)
    views = np.lib.stride_tricks.sliding_window_view(x, spans, axis=tuple(range(lead, x.ndim)))
    steps = (*(slice(None) for _ in range(lead)), *(slice(None, None, s) for s in stride))
    return views[(*steps, *(slice(None, None, d) for d in dilation))]


def _windows_grad(g: Any, out: Any, x: Any, kernel: Ints, stride: Ints, dilation: Ints) -> tuple[Any]:
    return (overlap_add.run(g, shape=tuple(x.shape[x.ndim - len(kernel) :]), stride=stride, dilation=dilation),)


def _tensor_first(name: str, attrs: tuple[str, ...]) -> Any:
    """prepare of an operator whose attributes are given as they are."""

    def prepare(x: Any, *given: Any) -> Prepared:
        return (tensor(name, "x", x),), dict(zip(attrs, given, strict=True))

    return prepare


_WINDOWS = (
    ((2, 3, 6), (3,), (1,), (1,)),
    ((2, 7, 6), (3, 2), (2, 1), (1, 2)),
    ((1, 33), (2,), (2,), (1,)),
    ((4, 5), (1, 1), (2, 2), (1, 1)),
    ((2, 5), (3,), (2,), (2,)),
)

windows = Op(
    "windows",
    doc="What lies under every place of a window over the last dims.  [..., *sizes] -> [..., *counts, *kernel].",
    signature="(x, kernel, stride, dilation)",
    prepare=_tensor_first("windows", ("kernel", "stride", "dilation")),
    infer=_windows_infer,
    reference=_windows_reference,
    grad=_windows_grad,
    lowering=Movement(_windows_index),
    attrs=("kernel", "stride", "dilation"),
    dtypes=EVERY,
    samples=tuple(call(fill(*shape), *how) for shape, *how in _WINDOWS),
    bad=(
        Bad((fill(2, 3), (5,), (1,), (1,)), RuntimeError, "windows: a window of .* does not fit"),
        Bad((fill(3), (1, 1), (1, 1), (1, 1)), RuntimeError, "windows: 2 kernel sizes do not fit"),
    ),
    methods=(),
    functions=(),
)

# ---- overlap_add -------------------------------------------------------------------------------------------------------


def _terms_per_dim(kernel: Ints, stride: Ints, dilation: Ints) -> Ints:
    """How many windows of a dim may cover one element: their candidates are tried one by one."""
    return tuple(-(-k // s) if d == 1 else k for k, s, d in zip(kernel, stride, dilation, strict=True))


def _split(x: TensorType, shape: Shape) -> tuple[int, Shape, Ints]:
    """(leading dims, counts, kernel) of windows."""
    n = len(shape)
    lead = x.rank - 2 * n
    return lead, x.shape[lead : lead + n], fixed("overlap_add", x.shape[lead + n :])


def _overlap_infer(x: TensorType, shape: Shape, stride: Ints, dilation: Ints) -> TensorType:
    if x.rank < 2 * len(shape) or not len(shape) == len(stride) == len(dilation):
        raise RuntimeError(f"overlap_add: {len(shape)} sizes do not fit {x}")
    lead, counts, kernel = _split(x, shape)
    if counts != tuple(map(window_count, shape, kernel, stride, dilation)):
        raise RuntimeError(f"overlap_add: windows {x} are not those of {shape_text(shape)}")
    return TensorType(x.dtype, (*x.shape[:lead], *shape))


def _terms_infer(x: TensorType, shape: Shape, stride: Ints, dilation: Ints) -> TensorType:
    _overlap_infer(x, shape, stride, dilation)
    lead, _, kernel = _split(x, shape)
    return TensorType(x.dtype, (*x.shape[:lead], *shape, math.prod(_terms_per_dim(kernel, stride, dilation))))


def _terms_rule(
    load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, shape: Shape, stride: Ints, dilation: Ints
) -> Expr:
    """The t-th window that may cover an element gives what it has for it, or 0 where it does not cover it."""
    lead, counts, kernel = _split(in_types[0], shape)
    if 0 in counts:
        return literal(0, out_type.dtype)
    tries = _terms_per_dim(kernel, stride, dilation)
    rest = index[-1]
    condition: Expr | None = None
    at: list[Size] = []
    within: list[Size] = []
    for k in reversed(range(len(shape))):
        trial, rest = (rest % tries[k], rest // tries[k]) if k else (rest, 0)
        p, s, d = index[lead + k], stride[k], dilation[k]
        q = p // s - trial if d == 1 else (p - trial * d) // s
        j = p - q * s if d == 1 else trial
        tests = inside_tests(q, counts[k]) + (inside_tests(j, kernel[k]) if d == 1 else [])
        if d != 1 and s != 1:
            tests.append(fn("eq", size_value((p - trial * d) % s), literal(0, int64)))
        for test in tests:
            condition = test if condition is None else both(condition, test)
        at.insert(0, clamped(load, size_value(q), counts[k]) if inside_tests(q, counts[k]) else q)
        within.insert(0, clamped(load, size_value(j), kernel[k]) if d == 1 and inside_tests(j, kernel[k]) else j)
    value: Expr = load(0, (*index[:lead], *at, *within))
    return value if condition is None else select(condition, value, literal(0, out_type.dtype))


def _overlap_samples() -> Any:
    for shape, kernel, stride, dilation in _WINDOWS:
        lead = shape[: len(shape) - len(kernel)]
        sizes = shape[len(lead) :]
        counts = fixed("overlap_add", [*map(window_count, sizes, kernel, stride, dilation)])
        yield call(fill(*lead, *counts, *kernel), sizes, stride, dilation)


_MISFIT = (Bad((fill(2, 3, 3), (6,), (1,), (1,)), RuntimeError, "overlap_add: windows .* are not those of"),)

_terms = Op(
    "overlap_terms",
    doc="What each window that may cover an element has for it, 0 for one that does not.  [..., *counts, *kernel] -> "
    "[..., *shape, terms].",
    signature="(x, shape, stride, dilation)",
    prepare=_tensor_first("overlap_terms", ("shape", "stride", "dilation")),
    infer=_terms_infer,
    reference=lambda xp, x, shape, stride, dilation: _terms_reference(xp, x, shape, stride, dilation),
    grad=None,
    lowering=Element(_terms_rule),
    attrs=("shape", "stride", "dilation"),
    dtypes=NUMERIC,
    samples=tuple(_overlap_samples()),
    bad=_MISFIT,
    methods=(),
    functions=(),
)


def _terms_reference(xp: Any, x: Any, shape: Ints, stride: Ints, dilation: Ints) -> Any:
    n = len(shape)
    lead = x.ndim - 2 * n
    counts, kernel = x.shape[lead : lead + n], x.shape[lead + n :]
    tries = _terms_per_dim(kernel, stride, dilation)
    out = xp.zeros((*x.shape[:lead], *shape, math.prod(tries)), x.dtype)
    for place in np.ndindex(*shape):
        for t, trial in enumerate(np.ndindex(*tries)):
            q, j = [], []
            for p, s, d, r in zip(place, stride, dilation, trial, strict=True):
                q.append(p // s - r if d == 1 else (p - r * d) // s if (p - r * d) % s == 0 else -1)
                j.append(p - q[-1] * s if d == 1 else r)
            if all(0 <= a < c and 0 <= b < k for a, c, b, k in zip(q, counts, j, kernel, strict=True)):
                out[(..., *place, t)] = x[(..., *q, *j)]
    return out


def _overlap_add(x: Any, shape: Shape, stride: Ints, dilation: Ints) -> Any:
    terms = _terms.run(x, shape=shape, stride=stride, dilation=dilation)
    if terms.shape[-1] == 1:
        return reshape.run(terms, shape=tuple(terms.shape[:-1]))
    return reduce_sum.run(terms, dim=terms.ndim - 1)


def _overlap_reference(xp: Any, x: Any, shape: Ints, stride: Ints, dilation: Ints) -> Any:
    n = len(shape)
    lead = x.ndim - 2 * n
    counts, kernel = x.shape[lead : lead + n], x.shape[lead + n :]
    out = xp.zeros((*x.shape[:lead], *shape), x.dtype)
    for j in np.ndindex(*kernel):
        where = tuple(slice(k * d, k * d + s * (c - 1) + 1, s) for k, d, s, c in zip(j, dilation, stride, counts, strict=True))
        if 0 not in counts:
            out[(..., *where)] += x[(..., *j)]
    return out


def _overlap_grad(g: Any, out: Any, x: Any, shape: Shape, stride: Ints, dilation: Ints) -> tuple[Any]:
    return (windows.run(g, kernel=tuple(x.shape[x.ndim - len(shape) :]), stride=stride, dilation=dilation),)


overlap_add: Op = Op(
    "overlap_add",
    doc="Windows put back where they were taken, what overlaps added in order.  [..., *counts, *kernel] -> [..., *shape].",
    signature="(x, shape, stride, dilation)",
    prepare=_tensor_first("overlap_add", ("shape", "stride", "dilation")),
    infer=_overlap_infer,
    reference=rounded(_overlap_reference),
    grad=_overlap_grad,
    lowering=Composite(in_compute_dtype(_overlap_add)),
    attrs=("shape", "stride", "dilation"),
    dtypes=NUMERIC,
    samples=tuple(_overlap_samples()),
    bad=_MISFIT,
    methods=(),
    functions=(),
)

# ---- unfold, a Tensor's method -----------------------------------------------------------------------------------------


def _unfold_prepare(x: Any, dimension: Any, size: Any, step: Any) -> Prepared:
    x = tensor("unfold", "x", x)
    dim = one_dim("unfold", dimension, x.ndim)
    size, step = one_size("unfold", "size", size), one_size("unfold", "step", step)
    have = x.shape[dim] if x.ndim else 1
    if isinstance(size, int) and (size < 0 or (isinstance(have, int) and size > have)):
        raise RuntimeError(f"unfold: maximum size for dim {dim} of {of_type(x)} is {have} but size is {size}")
    if isinstance(step, int) and step < 1:
        raise RuntimeError(f"unfold: step is {step} but must be > 0")
    return (x,), {"dim": dim, "size": size, "step": step}


def _unfold_infer(x: TensorType, dim: int, size: Size, step: Size) -> TensorType:
    if not x.rank:
        return TensorType(x.dtype, (size,))
    return TensorType(x.dtype, (*x.shape[:dim], (x.shape[dim] - size) // step + 1, *x.shape[dim + 1 :], size))


def _unfold_index(index: Index, in_type: TensorType, out_type: TensorType, dim: int, size: Size, step: Size) -> Index:
    if not in_type.rank:
        return ()
    return (*index[:dim], index[dim] * step + index[-1], *index[dim + 1 : -1])


def _unfold_reference(xp: Any, x: Any, dim: int, size: int, step: int) -> Any:
    if not x.ndim:
        return xp.broadcast_to(x, (size,))
    count = (x.shape[dim] - size) // step + 1
    apart = x.strides[dim] * (step if count > 1 else 1)
    strides = (*x.strides[:dim], apart, *x.strides[dim + 1 :], x.strides[dim])
    shape = (*x.shape[:dim], count, *x.shape[dim + 1 :], size)
    return np.lib.stride_tricks.as_strided(x, shape, strides)


def _unfold_grad(g: Any, out: Any, x: Any, dim: int, size: int, step: int) -> tuple[Any]:
    """The unfolded dim and its windows moved last, put back, and the dim moved home."""
    if not x.ndim:
        return (reshape.run(reduce_sum.run(g, dim=0), shape=()),)
    if size == 0:
        return (Op.table["full"].run(value=0, shape=tuple(x.shape), dtype=x.dtype),)
    rest = [k for k in range(x.ndim) if k != dim]
    moved = permute.run(g, dims=(*rest, dim, x.ndim))
    summed = overlap_add.run(moved, shape=(x.shape[dim],), stride=(step,), dilation=(1,))
    home = (*rest, dim)
    return (permute.run(summed, dims=tuple(sorted(range(x.ndim), key=home.__getitem__))),)


unfold = Op(
    "unfold",
    doc="A view of all slices of `size` elements, `step` apart, of one dim.  [..., n, ...] -> [..., (n - size) // step + 1, ..., "
    "size].",
    signature="(x, dimension, size, step)",
    prepare=_unfold_prepare,
    infer=_unfold_infer,
    reference=_unfold_reference,
    grad=_unfold_grad,
    lowering=Movement(_unfold_index),
    attrs=("dim", "size", "step"),
    dtypes=EVERY,
    samples=(
        call(fill(7), 0, 3, 2),
        call(fill(3, 33), -1, 2, 1),
        call(fill(4, 3, 2), 0, 2, 2),
        call(fill(2, 3), 1, 3, 1),
    ),
    bad=(
        Bad((fill(3), 0, 4, 1), RuntimeError, "unfold: maximum size for dim 0"),
        Bad((fill(3), 0, 2, 0), RuntimeError, "unfold: step is 0"),
        Bad((fill(3), 1, 2, 1), IndexError, "unfold: Dimension out of range"),
    ),
    functions=(),
)

# ---- nn.functional.unfold and fold -------------------------------------------------------------------------------------


def _columns_attrs(name: str, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> dict[str, Ints]:
    return {
        "kernel": per_dim(name, "kernel_size", kernel_size, 2, 1),
        "dilation": per_dim(name, "dilation", dilation, 2, 1),
        "padding": per_dim(name, "padding", padding, 2),
        "stride": per_dim(name, "stride", stride, 2, 1),
    }


def _block_counts(name: str, shape: Shape, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints) -> Shape:
    """Places of the window over padded sizes.  Raises RuntimeError where there is none."""
    grown = tuple(s + 2 * p for s, p in zip(shape, padding, strict=True))
    counts = tuple(map(window_count, grown, kernel, stride, dilation))
    if any(isinstance(c, int) and c < 1 for c in counts):
        raise RuntimeError(
            f"{name}: with sizes {shape_text(shape)}, kernel_size {list(kernel)}, dilation {list(dilation)}, padding "
            f"{list(padding)} and stride {list(stride)} the windows have shape {shape_text(counts)}, too small"
        )
    return counts


def _im2col_prepare(x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Prepared:
    x = tensor("unfold", "input", x)
    if x.ndim not in (3, 4) or any(isinstance(s, int) and s == 0 for s in x.shape[-3:]):
        raise RuntimeError(f"unfold: expected a 3D or 4D tensor without empty dims but the batch, got {of_type(x)}")
    return (x,), _columns_attrs("unfold", kernel_size, dilation, padding, stride)


def _im2col_infer(x: TensorType, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints) -> TensorType:
    counts = _block_counts("unfold", x.shape[-2:], kernel, dilation, padding, stride)
    return TensorType(x.dtype, (*x.shape[:-3], x.shape[-3] * kernel[0] * kernel[1], counts[0] * counts[1]))


def _im2col(x: Any, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints) -> Any:
    lead, grown = x.ndim - 2, tuple(s + 2 * p for s, p in zip(x.shape[-2:], padding, strict=True))
    if any(padding):
        x = pad_constant.run(x, starts=(*(0,) * lead, *padding), shape=(*x.shape[:lead], *grown), value=0)
    view = windows.run(x, kernel=kernel, stride=stride, dilation=dilation)
    order = (*range(lead), lead + 2, lead + 3, lead, lead + 1)
    rows, columns = x.shape[-3] * kernel[0] * kernel[1], view.shape[lead] * view.shape[lead + 1]
    return reshape.run(permute.run(view, dims=order), shape=(*x.shape[: lead - 1], rows, columns))


def _im2col_reference(xp: Any, x: Any, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints) -> Any:
    x = xp.pad(x, [(0, 0)] * (x.ndim - 2) + [(p, p) for p in padding])
    view = xp.moveaxis(_windows_reference(xp, x, kernel, stride, dilation), (-2, -1), (-4, -3))
    return view.reshape(*x.shape[:-3], x.shape[-3] * kernel[0] * kernel[1], view.shape[-2] * view.shape[-1])


def _im2col_grad(g: Any, out: Any, x: Any, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints) -> tuple[Any]:
    how = {"kernel": kernel, "dilation": dilation, "padding": padding, "stride": stride}
    return (fold_columns.run(g, shape=tuple(x.shape[-2:]), **how),)


unfold_columns = Op(
    "unfold_columns",
    doc="Every place of a window as a column (im2col).  [N, C, H, W] -> [N, C * kernel elements, places]; also without N.",
    signature="(input, kernel_size, dilation=1, padding=0, stride=1)",
    prepare=_im2col_prepare,
    infer=_im2col_infer,
    reference=_im2col_reference,
    grad=_im2col_grad,
    lowering=Composite(_im2col),
    attrs=("kernel", "dilation", "padding", "stride"),
    dtypes=EVERY,
    samples=(
        call(fill(2, 3, 5, 6), 2),
        call(fill(1, 2, 5, 6), (3, 2), padding=1, stride=2),
        call(fill(2, 7, 8), 2, dilation=2),
    ),
    bad=(
        Bad((fill(2, 3), 2), RuntimeError, "unfold: expected a 3D or 4D tensor"),
        Bad((fill(2, 3, 4), 5), RuntimeError, "unfold: with sizes .* too small"),
        Bad((fill(2, 3, 4), 0), RuntimeError, "unfold: argument 'kernel_size' must be greater than zero"),
    ),
    methods=(),
    functions=("nn.functional.unfold",),
)


def _col2im_prepare(x: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Prepared:
    x = tensor("fold", "input", x)
    if x.ndim not in (2, 3):
        raise RuntimeError(f"fold: expected a 2D or 3D tensor, got {of_type(x)}")
    attrs = _columns_attrs("fold", kernel_size, dilation, padding, stride)
    return (x,), {"shape": per_dim("fold", "output_size", output_size, 2, 1), **attrs}


def _col2im_infer(x: TensorType, shape: Ints, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints) -> TensorType:
    counts = _block_counts("fold", shape, kernel, dilation, padding, stride)
    block = kernel[0] * kernel[1]
    rows, columns = x.shape[-2:]
    if isinstance(rows, int) and rows % block:
        raise RuntimeError(f"fold: {rows} rows of {x} are not a multiple of the kernel's {block} elements")
    if columns != counts[0] * counts[1]:
        raise RuntimeError(f"fold: {x} must have {counts[0] * counts[1]} columns, the places of the window in {list(shape)}")
    return TensorType(x.dtype, (*x.shape[:-2], rows // block, *shape))


def _col2im(x: Any, shape: Ints, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints) -> Any:
    counts = _block_counts("fold", shape, kernel, dilation, padding, stride)
    lead = (*x.shape[:-2], x.shape[-2] // (kernel[0] * kernel[1]))
    n = len(lead)
    view = permute.run(reshape.run(x, shape=(*lead, *kernel, *counts)), dims=(*range(n), n + 2, n + 3, n, n + 1))
    grown = tuple(s + 2 * p for s, p in zip(shape, padding, strict=True))
    out = overlap_add.run(view, shape=grown, stride=stride, dilation=dilation)
    if not any(padding):
        return out
    stops = (*lead, *(s + p for s, p in zip(shape, padding, strict=True)))
    return slice_.run(out, starts=(*(0,) * n, *padding), stops=stops, steps=(1,) * out.ndim)


def _col2im_reference(xp: Any, x: Any, shape: Ints, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints) -> Any:
    counts = _block_counts("fold", shape, kernel, dilation, padding, stride)
    view = x.reshape(*x.shape[:-2], x.shape[-2] // (kernel[0] * kernel[1]), *kernel, *counts)
    grown = tuple(s + 2 * p for s, p in zip(shape, padding, strict=True))
    out = _overlap_reference(xp, xp.moveaxis(view, (-2, -1), (-4, -3)), grown, stride, dilation)
    return out[(..., *(slice(p, p + s) for p, s in zip(padding, shape, strict=True)))]


def _col2im_grad(g: Any, out: Any, x: Any, shape: Ints, **how: Ints) -> tuple[Any]:
    return (unfold_columns.run(g, **how),)


fold_columns: Op = Op(
    "fold_columns",
    doc="Columns put back where unfold takes them, what overlaps added (col2im).  [N, C * kernel elements, places] -> "
    "[N, C, *output_size]; also without N.",
    signature="(input, output_size, kernel_size, dilation=1, padding=0, stride=1)",
    prepare=_col2im_prepare,
    infer=_col2im_infer,
    reference=rounded(_col2im_reference),
    grad=_col2im_grad,
    lowering=Composite(in_compute_dtype(_col2im)),
    attrs=("shape", "kernel", "dilation", "padding", "stride"),
    dtypes=NUMERIC,
    samples=(
        call(fill(2, 12, 20), (5, 6), 2),
        call(fill(12, 12), (5, 6), (3, 2), padding=1, stride=2),
        call(fill(2, 8, 30), (7, 8), 2, dilation=2),
    ),
    bad=(
        Bad((fill(2, 3, 4, 5), (2, 2), 1), RuntimeError, "fold: expected a 2D or 3D tensor"),
        Bad((fill(2, 3, 4), (3, 3), 2), RuntimeError, "fold: 3 rows"),
        Bad((fill(2, 4, 5), (3, 3), 2), RuntimeError, "fold: .* must have 4 columns"),
    ),
    methods=(),
    functions=("nn.functional.fold",),
)
