"""Normalisation of channels: over the batch, over groups of channels, over each channel alone, and by neighbouring channels.

Enters: tensors [N, C, *sizes].  Leaves: `channel_norm`, which gives the statistics too, group_norm and local_response_norm.
Never here: running statistics (`graphc.nn.functional` writes them); normalisation over the last dims (`norm`).

Sources: Ioffe and Szegedy, "Batch normalization" (2015); Wu and He, "Group normalization" (2018); Ulyanov and others, "Instance
normalization" (2016); Krizhevsky and others, "ImageNet classification" (2012).
"""

from __future__ import annotations

import math
from typing import Any

from graphc.dims import Size, product
from graphc.ir.op import THROUGH, Bad, Composite, Op, TensorType
from graphc.ops.arguments import cast, constant, number, of_type, one_size, require_floating, tensor, wide
from graphc.ops.arithmetic import add, div, mul, sub
from graphc.ops.declare import FLOATING, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.joining import pad_constant
from graphc.ops.movement import expand, reshape
from graphc.ops.pooling import avg_pool
from graphc.ops.reduce import element_count, fold, mean_of, reduce_sum
from graphc.ops.transcendental import rsqrt
from graphc.ops.windows import fixed_inside

# ---- views of the input ------------------------------------------------------------------------------------------------


def _grouped(x: Any, groups: Size) -> Any:
    """[N, C, *sizes] as [N, groups, elements]."""
    return reshape.run(x, shape=(x.shape[0], groups, product(x.shape[1:]) // groups))


def _by_channel(p: Any, x: Any, groups: Size) -> Any:
    """One number a channel, of the shape of a grouped x or one that broadcasts to it."""
    channels = x.shape[1]
    if groups == channels:
        return reshape.run(p, shape=(channels, 1))
    each, count = channels // groups, product(x.shape[2:])
    lined = expand.run(reshape.run(p, shape=(groups, each, 1)), shape=(groups, each, count))
    return reshape.run(lined, shape=(groups, each * count))


def _per_channel_sum(y: Any, x: Any) -> Any:
    """A grouped tensor summed to one number a channel."""
    lined = reshape.run(y, shape=(x.shape[0], x.shape[1], product(x.shape[2:])))
    return fold(reduce_sum, lined, (0, 2), False)


def _statistics(x: Any, dims: tuple[int, ...], eps: float) -> tuple[Any, Any, Any]:
    """(mean, variance, 1 / sqrt(variance + eps)) of a grouped x."""
    mean = mean_of(x, dims, True)
    rest = sub(x, mean)
    variance = mean_of(mul(rest, rest), dims, True)
    return mean, variance, rsqrt(add(variance, eps))


def _standardised(x: Any, dims: tuple[int, ...], eps: float) -> tuple[Any, Any, Any, Any]:
    """((x - mean) * scale, scale, mean, variance) of a grouped x, scale = 1 / sqrt(variance + eps)."""
    mean, variance, scale = _statistics(x, dims, eps)
    return mul(sub(x, mean), scale), scale, mean, variance


def _in_channels(p: Any, x: Any) -> Any:
    """One number a channel, of a shape that broadcasts to that of x, so that neighbours before and after are of one shape."""
    return reshape.run(p, shape=(x.shape[1], *(1,) * (x.ndim - 2)))


# ---- channel_norm ------------------------------------------------------------------------------------------------------

_ATTRS = ("groups", "over_batch", "eps")


def _dims(over_batch: bool) -> tuple[int, ...]:
    return (0, 2) if over_batch else (2,)


def _norm(x: Any, *parameters: Any, groups: Size, over_batch: bool, eps: float) -> tuple[Any, Any, Any]:
    given = x
    x = wide(x)
    if over_batch and groups == x.shape[1]:
        mean, variance, scale = _statistics(_grouped(x, groups), (0, 2), eps)
        y = mul(sub(x, _in_channels(mean, x)), _in_channels(scale, x))
        by_channel = [_in_channels(wide(p), x) for p in parameters]
    else:
        y, _, mean, variance = _standardised(_grouped(x, groups), _dims(over_batch), eps)
        by_channel = [_by_channel(wide(p), x, groups) for p in parameters]
    if parameters:
        y = add(mul(y, by_channel[0]), by_channel[1])
    shape = (groups,) if over_batch else (x.shape[0], groups)
    out = cast(reshape.run(y, shape=tuple(given.shape)), given.dtype)
    return out, reshape.run(mean, shape=shape), reshape.run(variance, shape=shape)


def _infer(x: TensorType, *parameters: TensorType, groups: Size, over_batch: bool, eps: float) -> tuple[TensorType, ...]:
    for p in parameters:
        if p.dtype not in (x.dtype, x.dtype.compute) or p.shape != (x.shape[1],):
            shown = ", ".join(map(str, (x, *parameters)))
            raise RuntimeError(f"channel_norm: weight and bias must be one {x.dtype.short} a channel: {shown}")
    fixed_inside("channel_norm", x.shape)
    shape = (groups,) if over_batch else (x.shape[0], groups)
    return x, TensorType(x.dtype.compute, shape), TensorType(x.dtype.compute, shape)


def _grad(g: Any, out: Any, x: Any, *parameters: Any, **how: Any) -> tuple[Any, ...]:
    """Through the result by `channel_norm_input`; through the statistics, where they have gradients, in public operators."""
    g_out, g_mean, g_variance = g
    found: tuple[Any, ...] = (None,) * (1 + len(parameters))
    if g_out is not None:
        gradients = channel_norm_input.run(g_out, x, *parameters[:1], **how)
        found = tuple(cast(d, p.dtype) for d, p in zip(gradients[: len(found)], (x, *parameters), strict=True))
    if g_mean is None and g_variance is None:
        return found
    y = _grouped(wide(x), how["groups"])
    dims = _dims(how["over_batch"])
    count = constant(element_count(y, dims), y.dtype)
    kept = tuple(1 if k in dims else s for k, s in enumerate(y.shape))
    total = constant(0, y.dtype, tuple(y.shape))
    if g_mean is not None:
        total = add(total, div(reshape.run(g_mean, shape=kept), count))
    if g_variance is not None:
        rest = sub(y, mean_of(y, dims, True))
        total = add(total, mul(mul(rest, 2.0), div(reshape.run(g_variance, shape=kept), count)))
    through = cast(reshape.run(total, shape=tuple(x.shape)), x.dtype)
    return (through if found[0] is None else add(found[0], through), *found[1:])


def _norm_reference(xp: Any, x: Any, *parameters: Any, groups: int, over_batch: bool, eps: float) -> tuple[Any, ...]:
    compute = xp.float64 if x.dtype == xp.float64 else xp.float32
    y = x.astype(compute).reshape(x.shape[0], groups, math.prod(x.shape[1:]) // groups)
    dims = _dims(over_batch)
    mean, variance = y.mean(axis=dims), y.var(axis=dims)
    centre, width = (xp.expand_dims(s, -1) for s in (mean, variance))
    out = ((y - centre) / xp.sqrt(width + compute(eps))).reshape(x.shape)
    if parameters:
        weight, bias = (p.astype(compute).reshape(-1, *(1,) * (x.ndim - 2)) for p in parameters)
        out = out * weight + bias
    return out.astype(x.dtype), mean, variance


def _prepare(x: Any, *rest: Any) -> Prepared:
    x = require_floating("channel_norm", "x", x)
    parameters = tuple(tensor("channel_norm", "parameter", p) for p in rest[: len(rest) - len(_ATTRS)])
    return (x, *parameters), dict(zip(_ATTRS, rest[len(rest) - len(_ATTRS) :], strict=True))


_SAMPLES = (
    (fill(3, 4, 5), 4, True, 1e-5),
    (fill(3, 4, 2, 3), fill(4), fill(4), 4, True, 1e-3),
    (fill(2, 6, 5), fill(6), fill(6), 2, False, 1e-5),
    (fill(2, 4, 3, 3), 1, False, 1e-5),
    (fill(2, 3, 33), fill(3), fill(3), 3, False, 1e-5),
    (fill(4, 3), fill(3), fill(3), 3, True, 1e-5),
)

channel_norm: Op = Op(
    "channel_norm",
    doc="Mean 0 and variance 1 of each group of channels, of the whole batch or each of its members, times weight plus bias; with "
    "the means and variances.  [N, C, ...] -> [N, C, ...], [groups] or [N, groups] twice.",
    signature="(x, *weight_and_bias, groups, over_batch, eps)",
    prepare=_prepare,
    infer=_infer,
    reference=_norm_reference,
    grad=_grad,
    lowering=Composite(_norm),
    attrs=_ATTRS,
    dtypes=FLOATING,
    samples=tuple(call(*sample) for sample in _SAMPLES),
    bad=(Bad((fill(3, 4, 5), fill(3), fill(3), 4, True, 1e-5), RuntimeError, "channel_norm: weight and bias must be one"),),
    methods=(),
    functions=(),
)


def _norm_input(g: Any, x: Any, *weight: Any, groups: Size, over_batch: bool, eps: float) -> tuple[Any, Any, Any]:
    g, x = wide(g), wide(x)
    dims = _dims(over_batch)
    if over_batch and groups == x.shape[1]:
        return _whole_channels(g, x, eps, tuple(map(wide, weight)))
    y, scale, _, _ = _standardised(_grouped(x, groups), dims, eps)
    g = _grouped(g, groups)
    weighted = mul(g, _by_channel(wide(weight[0]), x, groups)) if weight else g
    centre = sub(weighted, mean_of(weighted, dims, True))
    gx = mul(sub(centre, mul(y, mean_of(mul(weighted, y), dims, True))), scale)
    return reshape.run(gx, shape=tuple(x.shape)), _per_channel_sum(mul(g, y), x), _per_channel_sum(g, x)


def _whole_channels(g: Any, x: Any, eps: float, weight: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """Where a mean is of one channel, its weight can wait: the sums for weight and bias are those that the input needs."""
    mean, _, scale = _statistics(_grouped(x, x.shape[1]), (0, 2), eps)
    y = mul(sub(x, _in_channels(mean, x)), _in_channels(scale, x))
    lined, steps = _grouped(g, x.shape[1]), mul(sub(_grouped(x, x.shape[1]), mean), scale)
    g_weight, g_bias = _per_channel_sum(mul(lined, steps), x), _per_channel_sum(lined, x)
    count = constant(element_count(lined, (0, 2)), g.dtype)
    along, across = (_in_channels(div(total, count), x) for total in (g_weight, g_bias))
    factor = _in_channels(scale, x)
    factor = mul(factor, _in_channels(weight[0], x)) if weight else factor
    return mul(sub(sub(g, across), mul(y, along)), factor), g_weight, g_bias


def _norm_input_reference(xp: Any, g: Any, x: Any, *weight: Any, groups: int, over_batch: bool, eps: float) -> tuple[Any, ...]:
    compute = xp.float64 if x.dtype == xp.float64 else xp.float32
    dims, rest = _dims(over_batch), math.prod(x.shape[1:]) // groups
    y, g = (a.astype(compute) for a in (x, g))
    wide_g = g * weight[0].astype(compute).reshape(-1, *(1,) * (x.ndim - 2)) if weight else g
    grouped, wide_g = (a.reshape(x.shape[0], groups, rest) for a in (y, wide_g))
    scale = 1 / xp.sqrt(grouped.var(axis=dims, keepdims=True) + compute(eps))
    unit = (grouped - grouped.mean(axis=dims, keepdims=True)) * scale
    gx = wide_g - wide_g.mean(axis=dims, keepdims=True) - unit * (wide_g * unit).mean(axis=dims, keepdims=True)
    others = (0, *range(2, x.ndim))
    return (gx * scale).reshape(x.shape), (g * unit.reshape(x.shape)).sum(axis=others), g.sum(axis=others)


def _norm_input_infer(g: TensorType, x: TensorType, *weight: TensorType, **_: Any) -> tuple[TensorType, ...]:
    if g.shape != x.shape:
        raise RuntimeError(f"channel_norm_input: expected a gradient of the shape of {x}, got {g}")
    channel = TensorType(x.dtype.compute, fixed_inside("channel_norm", x.shape)[1:2])
    return TensorType(x.dtype.compute, x.shape), channel, channel


channel_norm_input = Op(
    "channel_norm_input",
    doc="The gradients of channel_norm's input, weight and bias, as computed.  [N, C, ...] twice -> [N, C, ...], [C] twice.",
    signature="(g, x, *weight, groups, over_batch, eps)",
    prepare=_prepare,
    infer=_norm_input_infer,
    reference=_norm_input_reference,
    grad=THROUGH,
    lowering=Composite(_norm_input),
    attrs=_ATTRS,
    dtypes=FLOATING,
    bad=(Bad((fill(2, 3), fill(2, 4), 4, True, 1e-5), RuntimeError, "channel_norm_input: expected a gradient"),),
    samples=tuple(call(sample[0], *(sample[:2] if len(sample) > 4 else sample[:1]), *sample[-3:]) for sample in _SAMPLES),
    methods=(),
    functions=(),
)

# ---- with statistics that are given ------------------------------------------------------------------------------------


def _fixed_norm(x: Any, mean: Any, variance: Any, *parameters: Any, eps: float) -> Any:
    shape = (x.shape[1], *(1,) * (x.ndim - 2))
    mean, variance = wide(mean), wide(variance)
    factor = rsqrt(add(variance, eps))
    if parameters:
        factor = mul(factor, wide(parameters[0]))
    offset = mul(mean, factor)
    offset = sub(wide(parameters[1]), offset) if parameters else Op.table["neg"](offset)
    y = add(mul(wide(x), reshape.run(factor, shape=shape)), reshape.run(offset, shape=shape))
    return cast(y, x.dtype)


def _fixed_reference(xp: Any, x: Any, *rest: Any, eps: float) -> Any:
    compute = xp.float64 if x.dtype == xp.float64 else xp.float32
    mean, variance, *parameters = (a.astype(compute).reshape(-1, *(1,) * (x.ndim - 2)) for a in rest)
    out = (x.astype(compute) - mean) / xp.sqrt(variance + compute(eps))
    return (out * parameters[0] + parameters[1] if parameters else out).astype(x.dtype)


def _fixed_infer(x: TensorType, *rest: TensorType, eps: float) -> TensorType:
    for p in rest:
        if p.shape != (x.shape[1],) or p.dtype.compute is not x.dtype.compute:
            raise RuntimeError(f"fixed_norm: statistics, weight and bias must be one number a channel: {x} and {p}")
    return x


def _fixed_prepare(x: Any, *rest: Any) -> Prepared:
    return (require_floating("fixed_norm", "x", x), *(tensor("fixed_norm", "statistics", p) for p in rest[:-1])), {"eps": rest[-1]}


fixed_norm = Op(
    "fixed_norm",
    doc="(x - mean) / sqrt(variance + eps), times weight plus bias, one of each a channel.  [N, C, ...] -> [N, C, ...].",
    signature="(x, mean, variance, *weight_and_bias, eps)",
    prepare=_fixed_prepare,
    infer=_fixed_infer,
    reference=_fixed_reference,
    grad=THROUGH,
    lowering=Composite(_fixed_norm),
    attrs=("eps",),
    dtypes=FLOATING,
    samples=(
        call(fill(3, 4, 5), fill(4), fill(4, low=0.5), 1e-5),
        call(fill(3, 4, 2, 3), fill(4), fill(4, low=0.5), fill(4), fill(4), 1e-3),
        call(fill(3, 4), fill(4), fill(4, low=0.5), 1e-5),
    ),
    bad=(Bad((fill(3, 4), fill(3), fill(4), 1e-5), RuntimeError, "fixed_norm: statistics, weight and bias"),),
    methods=(),
    functions=(),
)

# ---- PyTorch's names ---------------------------------------------------------------------------------------------------


def channel_parameters(name: str, x: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
    """() or (weight, bias), what is missing filled in.  Raises RuntimeError unless each is one number a channel."""
    for argument, p in (("weight", weight), ("bias", bias)):
        if p is not None and (tensor(name, argument, p).ndim != 1 or p.shape[0] != x.shape[1]):
            shown = f"{of_type(x)}, got {of_type(p)}"
            raise RuntimeError(f"{name}: expected {argument} to be a vector of the {x.shape[1]} channels of {shown}")
    if weight is None and bias is None:
        return ()
    dtype, shape = (bias if weight is None else weight).dtype, (x.shape[1],)
    return (constant(1, dtype, shape) if weight is None else weight, constant(0, dtype, shape) if bias is None else bias)


def _group_norm(input: Any, num_groups: Any, weight: Any = None, bias: Any = None, eps: Any = 1e-05) -> Any:
    x = require_floating("group_norm", "input", input)
    groups = one_size("group_norm", "num_groups", num_groups)
    if x.ndim < 2:
        raise RuntimeError(f"group_norm: expected at least 2 dimensions for input tensor but received {x.ndim}: {of_type(x)}")
    if isinstance(groups, int) and groups < 1 or x.shape[1] % groups != 0:
        raise RuntimeError(
            f"group_norm: expected number of channels in input to be divisible by num_groups {groups}, got {of_type(x)}"
        )
    parameters = channel_parameters("group_norm", x, weight, bias)
    if product(x.shape) == 0:
        return x
    how = {"groups": groups, "over_batch": False, "eps": float(number("group_norm", "eps", eps))}
    return channel_norm.run(x, *parameters, **how)[0]


group_norm = Shorthand(
    "group_norm",
    doc="Mean 0 and variance 1 of every group of channels of every member of the batch, times weight plus bias.  [N, C, ...] -> "
    "[N, C, ...].",
    rule=_group_norm,
    reference=None,
    dtypes=FLOATING,
    samples=(call(fill(2, 6, 3), 2), call(fill(2, 6, 3, 3), 3, fill(6), fill(6)), call(fill(2, 4), 2, None, fill(4))),
    bad=(
        Bad((fill(2, 6, 3), 4), RuntimeError, "group_norm: expected number of channels"),
        Bad((fill(2, 6, 3), 2, fill(5)), RuntimeError, "group_norm: expected weight to be a vector"),
        Bad((fill(6), 2), RuntimeError, "group_norm: expected at least 2 dimensions"),
    ),
    methods=(),
    functions=("group_norm", "nn.functional.group_norm"),
)


def _local_response_norm(input: Any, size: Any, alpha: Any = 1e-4, beta: Any = 0.75, k: Any = 1.0) -> Any:
    name = "local_response_norm"
    x = tensor(name, "input", input)
    if x.ndim < 3:
        raise ValueError(f"{name}: expected 3D or higher dimensionality input (got {of_type(x)})")
    size = one_size(name, "size", size)
    if not isinstance(size, int) or not 1 <= size < 1 << 31:
        raise RuntimeError(f"{name}: size must be positive, got {size}")
    n, c, rest = x.shape[0], x.shape[1], product(x.shape[2:])
    if product(x.shape) == 0:
        return x
    squares = reshape.run(mul(x, x), shape=(n, c, rest))
    squares = pad_constant.run(squares, starts=(0, size // 2, 0), shape=(n, c + size - 1, rest), value=0)
    how = {"kernel": (size, 1), "stride": (1, 1), "padding": (0, 0), "ceil": False, "include_pad": True, "divisor": None}
    mean = reshape.run(avg_pool.run(squares, **how), shape=tuple(x.shape))
    return div(x, Op.table["pow"](add(mul(mean, number(name, "alpha", alpha)), number(name, "k", k)), number(name, "beta", beta)))


local_response_norm = Shorthand(
    "local_response_norm",
    doc="x divided by a power of the mean square of `size` neighbouring channels.  [N, C, ...] -> [N, C, ...].",
    rule=_local_response_norm,
    reference=None,
    dtypes=FLOATING,
    samples=(call(fill(2, 5, 3), 3), call(fill(2, 4, 3, 2), 2, 0.1, 0.5, 2.0)),
    bad=(Bad((fill(2, 5), 3), ValueError, "local_response_norm: expected 3D or higher"),),
    methods=(),
    functions=("nn.functional.local_response_norm",),
)
