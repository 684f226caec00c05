"""The three convolutions that are each other's gradients: of an input, back to the input, and of the weight.

Enters: inputs [N, C, *sizes], weights [O, C / groups, *kernel].  Leaves: operators on canonical attributes.
Never here: the public conv1d .. conv_transpose3d (`convolutions`); tiling.

A convolution is one of images with their channels last (`convolution_last`) between permutations, which `passes.layout` moves out
of the way.  One that is depthwise (one channel a group) is `depthwise`, or a product and a sum over the window where that is too
large.  The gradient of the input is made of convolutions with the flipped weight (`convolution_back`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.ir.op import Bad, Composite, Op, TensorType
from graphc.ops.arguments import constant, in_compute_dtype, rounded, same_dtype, tensor
from graphc.ops.arithmetic import add, mul
from graphc.ops.contract import matmul
from graphc.ops.convolution_back import input_gradient, weight_gradient
from graphc.ops.convolution_last import convolution_last, row_major
from graphc.ops.declare import FLOATING, call, fill
from graphc.ops.depthwise import depthwise, depthwise_input, depthwise_weight, fits
from graphc.ops.elementwise import Prepared
from graphc.ops.joining import pad_constant
from graphc.ops.movement import flip, permute, reshape, slice_, slice_scatter
from graphc.ops.reduce import fold, reduce_sum
from graphc.ops.windows import Ints, fixed_inside, window_count, windows

_ATTRS = ("stride", "before", "after", "dilation", "groups")


def output_sizes(sizes: Any, kernel: Any, stride: Ints, before: Ints, after: Ints, dilation: Ints) -> tuple[Any, ...]:
    """The sizes of a convolution's result."""
    grown = (s + b + a for s, b, a in zip(sizes, before, after, strict=True))
    return tuple(map(window_count, grown, kernel, stride, dilation))


def _checked(name: str, x: TensorType, weight: TensorType, before: Ints, groups: int) -> None:
    """Raises RuntimeError unless input and weight fit each other and have fixed sizes."""
    same_dtype(name, (x, weight))
    n = len(before)
    fixed_inside(name, (*x.shape, *weight.shape))
    if x.rank != n + 2 or weight.rank != n + 2 or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise RuntimeError(f"{name}: input {x} and weight {weight} do not fit with groups={groups}")


# ---- shared by the rules -----------------------------------------------------------------------------------------------


def _padded(x: Any, before: Ints, after: Ints) -> Any:
    """x with zeros around its last dims; a negative `after` takes elements off, as the result of an output padding needs."""
    lead = x.ndim - len(before)
    if min(after) < 0:
        stops = (*x.shape[:lead], *(s + min(a, 0) for s, a in zip(x.shape[lead:], after, strict=True)))
        x = slice_.run(x, starts=(0,) * x.ndim, stops=stops, steps=(1,) * x.ndim)
        after = tuple(max(a, 0) for a in after)
    if not any(before) and not any(after):
        return x
    sizes = (s + b + a for s, b, a in zip(x.shape[lead:], before, after, strict=True))
    return pad_constant.run(x, starts=(*(0,) * lead, *before), shape=(*x.shape[:lead], *sizes), value=0)


def _under(x: Any, kernel: Ints, stride: Ints, dilation: Ints, groups: int) -> tuple[Any, Ints]:
    """What lies under the kernel, [N, groups, C / groups, *kernel, *places], and how many places each dim has."""
    n = len(kernel)
    view = windows.run(x, kernel=kernel, stride=stride, dilation=dilation)
    places = tuple(view.shape[2 : 2 + n])
    view = permute.run(view, dims=(0, 1, *range(2 + n, 2 + 2 * n), *range(2, 2 + n)))
    return reshape.run(view, shape=(x.shape[0], groups, x.shape[1] // groups, *kernel, *places)), places


# ---- convolution -------------------------------------------------------------------------------------------------------


def _convolution(x: Any, weight: Any, *bias: Any, stride: Ints, before: Ints, after: Ints, dilation: Ints, groups: int) -> Any:
    kernel = tuple(weight.shape[2:])
    places = output_sizes(x.shape[2:], kernel, stride, before, after, dilation)
    shape = (x.shape[0], weight.shape[0], *places)
    if 0 in (*shape, *weight.shape, *x.shape):
        out = constant(0, x.dtype, shape)
        return add.run(out, reshape.run(bias[0], shape=(shape[1], *(1,) * len(places)))) if bias else out
    if _has_nest(weight, groups, places, stride, dilation):
        how = {"stride": _flat(stride, 1), "before": _flat(before, 0), "dilation": _flat(dilation, 1)}
        out = depthwise.run(_as_image(x), _as_kernels(weight), places=_flat(places, 1), **how)
        return _biased(reshape.run(out, shape=shape), bias, (shape[1], *(1,) * len(places)))
    if groups > 1 and weight.shape[1] == 1:
        return reshape.run(_depthwise(_padded(x, before, after), weight, stride, dilation, *bias), shape=shape)
    n = len(kernel)
    spaced = {"stride": stride, "before": before, "after": after, "dilation": dilation}
    out = convolution_last.run(channels_last(x), permute.run(weight, dims=(*range(2, n + 2), 1, 0)), **spaced, groups=groups)
    return channels_second(_biased(out, bias, (shape[1],)))


def channels_last(x: Any) -> Any:
    """[N, C, *sizes] -> [N, *sizes, C]."""
    return permute.run(x, dims=(0, *range(2, x.ndim), 1))


def channels_second(x: Any) -> Any:
    """[N, *sizes, C] -> [N, C, *sizes]."""
    return permute.run(x, dims=(0, x.ndim - 1, *range(1, x.ndim - 1)))


def _flat(sizes: Any, missing: int) -> Ints:
    """One or two numbers as two: a line is an image of one row."""
    return (*(missing,) * (2 - len(sizes)), *sizes)


def _as_image(x: Any) -> Any:
    return reshape.run(x, shape=(*x.shape[:2], *_flat(x.shape[2:], 1)))


def _as_kernels(weight: Any) -> Any:
    return reshape.run(weight, shape=(weight.shape[0], *_flat(weight.shape[2:], 1)))


def _has_nest(weight: Any, groups: int, places: Any, stride: Ints, dilation: Ints) -> bool:
    """Whether the convolution is one of those that `depthwise` is for."""
    kernel = weight.shape[2:]
    if groups == 1 or weight.shape[1] != 1 or len(kernel) > 2:
        return False
    return fits(places[-1], _flat(kernel, 1), _flat(stride, 1), _flat(dilation, 1))


def _biased(out: Any, bias: tuple[Any, ...], shape: Ints) -> Any:
    """Plus one number an output channel; `shape` says where the channels are."""
    return add.run(out, reshape.run(bias[0], shape=shape)) if bias else out


def _depthwise(x: Any, weight: Any, stride: Ints, dilation: Ints, *bias: Any) -> Any:
    """[N, groups, O / groups, *places]: products with each channel's own kernel, summed over the kernel; x is padded."""
    n, channels, kernel = weight.ndim - 2, x.shape[1], tuple(weight.shape[2:])
    view = windows.run(x, kernel=kernel, stride=stride, dilation=dilation)
    places, many, depth = tuple(view.shape[2 : 2 + n]), weight.shape[0] // channels, math.prod(kernel)
    view = reshape.run(view, shape=(x.shape[0], channels, 1, *places, depth))
    weights = reshape.run(weight, shape=(1, channels, many, *(1,) * n, depth))
    return _biased(reduce_sum.run(mul.run(view, weights), dim=n + 3), bias, (channels, many, *(1,) * n))


def _convolution_infer(x: TensorType, weight: TensorType, *bias: TensorType, **how: Any) -> TensorType:
    _checked("convolution", x, weight, how["before"], how["groups"])
    if bias and (bias[0].dtype is not x.dtype or bias[0].shape != weight.shape[:1]):
        raise RuntimeError(f"convolution: bias must be one {x.dtype.short} an output channel of {weight}, got {bias[0]}")
    sizes = output_sizes(x.shape[2:], weight.shape[2:], how["stride"], how["before"], how["after"], how["dilation"])
    if any(s < 0 for s in sizes):
        raise RuntimeError(f"convolution: the kernel of {weight} is larger than the padded input {x}")
    return TensorType(x.dtype, (x.shape[0], weight.shape[0], *sizes))


def _convolution_reference(
    xp: Any, x: Any, weight: Any, *bias: Any, stride: Ints, before: Ints, after: Ints, dilation: Ints, groups: int
) -> Any:
    kernel = weight.shape[2:]
    x = xp.pad(x, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    places = tuple(map(window_count, x.shape[2:], kernel, stride, dilation))
    out = xp.zeros((x.shape[0], groups, weight.shape[0] // groups, *places), x.dtype)
    x = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    weight = (
        weight.reshape(groups, -1, *weight.shape[1:])
        if weight.size
        else xp.zeros((groups, out.shape[2], *weight.shape[1:]), x.dtype)
    )
    for j in np.ndindex(*kernel):
        under = x[(..., *_under_tap(j, places, stride, dilation))]
        out = out + xp.einsum("ngc...,goc->ngo...", under, weight[(..., *j)]).astype(x.dtype)
    out = out.reshape(out.shape[0], groups * out.shape[2], *places)
    return out + bias[0].reshape(-1, *(1,) * len(places)) if bias else out


def _under_tap(j: Any, places: Any, stride: Ints, dilation: Ints) -> tuple[slice, ...]:
    """What one element of the kernel sees of a padded input."""
    return tuple(slice(k * d, k * d + s * (p - 1) + 1, s) for k, d, s, p in zip(j, dilation, stride, places, strict=True))


def _convolution_grad(g: Any, out: Any, x: Any, weight: Any, *bias: Any, **how: Any) -> tuple[Any, ...]:
    gx = convolution_input.run(g, weight, shape=tuple(x.shape[2:]), **how)
    gw = convolution_weight.run(g, x, kernel=tuple(weight.shape[2:]), **how)
    return (gx, gw, Op.table["sum"].run(g, dims=(0, *range(2, g.ndim)), keepdim=False)) if bias else (gx, gw)


def _prepare(name: str, attrs: tuple[str, ...]) -> Any:
    def prepare(x: Any, y: Any, *given: Any) -> Prepared:
        inputs = tuple(
            tensor(name, a, t) for a, t in zip(("x", "y", "bias"), (x, y, *given[: len(given) - len(attrs)]), strict=False)
        )
        return inputs, dict(zip(attrs, given[len(given) - len(attrs) :], strict=True))

    return prepare


def _declare(name: str, doc: str, attrs: tuple[str, ...], rule: Any, **more: Any) -> Op:
    return Op(
        name,
        doc=doc,
        signature=f"(x, y, {', '.join(attrs)})",
        prepare=_prepare(name, attrs),
        lowering=Composite(in_compute_dtype(rule)),
        attrs=attrs,
        dtypes=FLOATING,
        methods=(),
        functions=(),
        **more,
    )


# input, weight, (stride, before, after, dilation, groups)
_SAMPLES: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[Any, ...]], ...] = (
    ((2, 3, 6), (4, 3, 2), ((1,), (0,), (0,), (1,), 1)),
    ((1, 4, 7, 6), (6, 2, 3, 3), ((1, 1), (1, 1), (1, 1), (1, 1), 2)),
    ((2, 2, 9, 8), (3, 2, 3, 2), ((2, 2), (1, 0), (1, 1), (1, 2), 1)),
    ((2, 3, 6, 5), (6, 1, 3, 3), ((1, 1), (1, 1), (1, 1), (1, 1), 3)),
    ((1, 3, 9), (3, 1, 4), ((2,), (3,), (0,), (1,), 3)),
    ((2, 2, 3, 4, 3), (2, 2, 2, 2, 2), ((1, 1, 1), (0, 0, 0), (0, 0, 0), (1, 1, 1), 1)),
    ((1, 33, 3, 3), (2, 33, 1, 1), ((1, 1), (0, 0), (0, 0), (1, 1), 1)),
)


def _places(x: Any, w: Any, how: Any) -> tuple[int, ...]:
    return (x[0], w[0], *output_sizes(x[2:], w[2:], *how[:4]))


convolution: Op = _declare(
    "convolution",
    "Cross-correlation with zero padding `before` and `after`.  [N, C, *sizes], [O, C / groups, *kernel] -> [N, O, *places].",
    _ATTRS,
    _convolution,
    infer=_convolution_infer,
    reference=rounded(_convolution_reference),
    grad=_convolution_grad,
    samples=(
        *(call(fill(*x), fill(*w), *how) for x, w, how in _SAMPLES),
        *(call(fill(*x), fill(*w), fill(w[0]), *how) for x, w, how in _SAMPLES[1::2]),
    ),
    bad=(
        Bad((fill(1, 3, 4), fill(2, 2, 2), (1,), (0,), (0,), (1,), 1), RuntimeError, "convolution: input .* do not fit"),
        Bad((fill(1, 2, 4), fill(2, 2, 6), (1,), (0,), (0,), (1,), 1), RuntimeError, "convolution: the kernel of .* is larger"),
    ),
)

# ---- the input from the result -----------------------------------------------------------------------------------------


def _convolution_input(
    g: Any, weight: Any, shape: Ints, stride: Ints, before: Ints, after: Ints, dilation: Ints, groups: int
) -> Any:
    channels = weight.shape[1] * groups
    result = (g.shape[0], channels, *shape)
    if 0 in (*g.shape, *weight.shape, *result):
        return constant(0, g.dtype, result)
    if _has_nest(weight, groups, g.shape[2:], stride, dilation):
        how = {"stride": _flat(stride, 1), "before": _flat(before, 0), "dilation": _flat(dilation, 1)}
        each = depthwise_input.run(_as_image(g), _as_kernels(weight), shape=_flat(shape, 1), **how)
        if weight.shape[0] == groups:
            return reshape.run(each, shape=result)
        return reduce_sum.run(reshape.run(each, shape=(g.shape[0], groups, weight.shape[0] // groups, *shape)), dim=2)
    if weight.shape[1] == 1 and groups > 1:
        return _by_flipped_weight(g, weight, shape, stride, before, dilation, groups)
    return input_gradient(g, weight, shape, stride, before, dilation, groups)


def _by_flipped_weight(g: Any, weight: Any, shape: Ints, stride: Ints, before: Ints, dilation: Ints, groups: int) -> Any:
    """A depthwise convolution of g, its elements set apart by the stride, with the flipped weight."""
    n, kernel, outer = len(shape), tuple(weight.shape[2:]), weight.shape[0] // groups
    weights = flip.run(weight, dims=tuple(range(2, 2 + n)))
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    low = [max(0, span - b) for span, b in zip(spans, before, strict=True)]
    cut = [max(0, b - span) for span, b in zip(spans, before, strict=True)]
    sizes = [s + c + span for s, c, span in zip(shape, cut, spans, strict=True)]
    kept = [min(p, max(0, -(-(z - a) // s))) for p, z, a, s in zip(g.shape[2:], sizes, low, stride, strict=True)]
    if 0 in kept:
        return constant(0, g.dtype, (g.shape[0], groups, *shape))
    g = slice_.run(g, starts=(0,) * (n + 2), stops=(*g.shape[:2], *kept), steps=(1,) * (n + 2))
    stops = [a + (k - 1) * s + 1 for a, k, s in zip(low, kept, stride, strict=True)]
    apart = slice_scatter.run(
        constant(0, g.dtype, (*g.shape[:2], *sizes)), g, starts=(0, 0, *low), stops=(*g.shape[:2], *stops), steps=(1, 1, *stride)
    )
    apart = slice_.run(apart, starts=(0, 0, *cut), stops=tuple(apart.shape), steps=(1,) * (n + 2))
    each = reshape.run(_depthwise(apart, weights, (1,) * n, dilation), shape=(g.shape[0], groups, outer, *shape))
    return reduce_sum.run(each, dim=2) if outer > 1 else reshape.run(each, shape=(g.shape[0], groups, *shape))


def _convolution_input_infer(g: TensorType, weight: TensorType, shape: Ints, **how: Any) -> TensorType:
    name, groups = "convolution_input", how["groups"]
    same_dtype(name, (g, weight))
    fixed_inside(name, (*g.shape, *weight.shape))
    places = output_sizes(shape, weight.shape[2:], how["stride"], how["before"], how["after"], how["dilation"])
    if g.rank != len(shape) + 2 or g.shape[1] != weight.shape[0] or g.shape[2:] != places:
        raise RuntimeError(f"{name}: {g} and weight {weight} do not come from sizes {list(shape)} with groups={groups}")
    return TensorType(g.dtype, (g.shape[0], weight.shape[1] * groups, *shape))


def _convolution_input_reference(
    xp: Any, g: Any, weight: Any, shape: Ints, stride: Ints, before: Ints, after: Ints, dilation: Ints, groups: int
) -> Any:
    kernel, places = weight.shape[2:], g.shape[2:]
    grown = tuple(s + b + a for s, b, a in zip(shape, before, after, strict=True))
    out = xp.zeros((g.shape[0], groups, weight.shape[1], *grown), g.dtype)
    if g.size and weight.size:
        split = g.reshape(g.shape[0], groups, -1, *places)
        weight = weight.reshape(groups, -1, *weight.shape[1:])
        for j in np.ndindex(*kernel):
            part = xp.einsum("ngo...,goc->ngc...", split, weight[(..., *j)]).astype(g.dtype)
            out[(..., *_under_tap(j, places, stride, dilation))] += part
    out = out[(..., *(slice(b, b + s) for b, s in zip(before, shape, strict=True)))]
    return out.reshape(g.shape[0], groups * out.shape[2], *shape)


def _convolution_input_grad(gg: Any, out: Any, g: Any, weight: Any, shape: Ints, **how: Any) -> tuple[Any, Any]:
    return convolution.run(gg, weight, **how), convolution_weight.run(g, gg, kernel=tuple(weight.shape[2:]), **how)


convolution_input = _declare(
    "convolution_input",
    "The gradient of a convolution's input of `shape`.  [N, O, *places], [O, C / groups, *kernel] -> [N, C, *shape].",
    ("shape", *_ATTRS),
    _convolution_input,
    infer=_convolution_input_infer,
    reference=rounded(_convolution_input_reference),
    grad=_convolution_input_grad,
    samples=tuple(call(fill(*_places(x, w, how)), fill(*w), x[2:], *how) for x, w, how in _SAMPLES),
    bad=(
        Bad(
            (fill(1, 2, 4), fill(2, 2, 2), (9,), (1,), (0,), (0,), (1,), 1), RuntimeError, "convolution_input: .* do not come from"
        ),
    ),
)

# ---- the weight from input and result ----------------------------------------------------------------------------------


def _convolution_weight(g: Any, x: Any, kernel: Ints, stride: Ints, before: Ints, after: Ints, dilation: Ints, groups: int) -> Any:
    n, batch, inner = len(kernel), x.shape[0], x.shape[1] // groups
    result = (g.shape[1], inner, *kernel)
    if 0 in (*g.shape, *x.shape, *result):
        return constant(0, g.dtype, result)
    weight_type = TensorType(x.dtype, result)
    if _has_nest(weight_type, groups, g.shape[2:], stride, dilation):
        how = {"stride": _flat(stride, 1), "before": _flat(before, 0), "dilation": _flat(dilation, 1)}
        return reshape.run(depthwise_weight.run(_as_image(g), _as_image(x), kernel=_flat(kernel, 1), **how), shape=result)
    if groups == 1 and n <= 2:
        return weight_gradient(g, x, kernel, stride, before, after, dilation)
    x = _padded(x, before, after)
    used = (d * (k - 1) + 1 + s * (p - 1) for d, k, s, p in zip(dilation, kernel, stride, g.shape[2:], strict=True))
    x = slice_.run(x, starts=(0,) * (n + 2), stops=(*x.shape[:2], *used), steps=(1,) * (n + 2))
    view, places = _under(x, kernel, stride, dilation, groups)
    if inner == 1 and groups > 1:
        return reshape.run(_depthwise_weight(g, view, kernel, places, groups), shape=result)
    count = math.prod(places)
    rows = permute.run(reshape.run(g, shape=(batch, groups, g.shape[1] // groups, count)), dims=(1, 2, 0, 3))
    rows = reshape.run(row_major.run(rows), shape=(groups, g.shape[1] // groups, batch * count))
    # [N, groups, C / groups, *kernel, *places] -> [groups, N, places, C / groups, kernel]
    view = permute.run(view, dims=(1, 0, *range(3 + n, 3 + 2 * n), 2, *range(3, 3 + n)))
    columns = reshape.run(view, shape=(groups, batch * count, inner * math.prod(kernel)))
    return reshape.run(matmul.run(rows, columns), shape=result)


def _depthwise_weight(g: Any, view: Any, kernel: Ints, places: Ints, groups: int) -> Any:
    """Products summed along the last dim first, where memory is contiguous, then over the rest and the batch."""
    n, batch, many = len(kernel), g.shape[0], g.shape[1] // groups
    view = reshape.run(view, shape=(batch, groups, 1, math.prod(kernel), *places))
    each = mul.run(view, reshape.run(g, shape=(batch, groups, many, 1, *places)))
    lines = reduce_sum.run(each, dim=n + 3)
    return fold(reduce_sum, lines, (0, *range(4, n + 3)), False)


def _convolution_weight_infer(g: TensorType, x: TensorType, kernel: Ints, **how: Any) -> TensorType:
    name, groups = "convolution_weight", how["groups"]
    same_dtype(name, (g, x))
    fixed_inside(name, (*g.shape, *x.shape[1:]))
    places = output_sizes(x.shape[2:], kernel, how["stride"], how["before"], how["after"], how["dilation"])
    if g.rank != x.rank or g.shape[0] != x.shape[0] or g.shape[2:] != places or g.shape[1] % groups or x.shape[1] % groups:
        raise RuntimeError(f"{name}: {g} is not of a convolution of {x} with a kernel of {list(kernel)} and groups={groups}")
    return TensorType(g.dtype, (g.shape[1], x.shape[1] // groups, *kernel))


def _convolution_weight_reference(
    xp: Any, g: Any, x: Any, kernel: Ints, stride: Ints, before: Ints, after: Ints, dilation: Ints, groups: int
) -> Any:
    places = g.shape[2:]
    out = xp.zeros((groups, g.shape[1] // groups, x.shape[1] // groups, *kernel), g.dtype)
    if g.size and x.size:
        x = xp.pad(x, [(0, 0), (0, 0), *zip(before, after, strict=True)])
        x = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
        g = g.reshape(g.shape[0], groups, -1, int(np.prod(places)))
        for j in np.ndindex(*kernel):
            under = x[(..., *_under_tap(j, places, stride, dilation))]
            under = under.reshape(*under.shape[:3], -1)
            out[(..., *j)] = xp.einsum("ngol,ngcl->goc", g, under)
    return out.reshape(groups * out.shape[1], *out.shape[2:])


def _convolution_weight_grad(gg: Any, out: Any, g: Any, x: Any, kernel: Ints, **how: Any) -> tuple[Any, Any]:
    return convolution.run(x, gg, **how), convolution_input.run(g, gg, shape=tuple(x.shape[2:]), **how)


convolution_weight = _declare(
    "convolution_weight",
    "The gradient of a convolution's weight.  [N, O, *places], [N, C, *sizes] -> [O, C / groups, *kernel].",
    ("kernel", *_ATTRS),
    _convolution_weight,
    infer=_convolution_weight_infer,
    reference=rounded(_convolution_weight_reference),
    grad=_convolution_weight_grad,
    samples=tuple(call(fill(*_places(x, w, how)), fill(*x), w[2:], *how) for x, w, how in _SAMPLES),
    bad=(Bad((fill(1, 2, 4), fill(2, 2, 9), (2,), (1,), (0,), (0,), (1,), 1), RuntimeError, "convolution_weight: .* is not of"),),
)
