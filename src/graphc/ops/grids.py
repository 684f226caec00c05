"""Sampling at places that a tensor names: grid_sample, and affine_grid, which makes such places.

Enters: images and grids of normalised coordinates.  Leaves: operators written with public ones.
Never here: sampling at regular places (`resample`).

Coordinates -1 and 1 are the centres of the outermost elements (align_corners) or their outer edges.  Source: Jaderberg and others,
"Spatial transformer networks" (2015).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from graphc.dtypes import float32, float64, int64
from graphc.ir.op import THROUGH, Bad, Composite, Op, Shape, TensorType
from graphc.ops.arguments import (
    cast,
    constant,
    in_compute_dtype,
    number,
    of_type,
    one_size,
    require_floating,
    rounded,
    same_dtype,
    tensor,
)
from graphc.ops.arithmetic import add, mul, sub
from graphc.ops.comparison import where
from graphc.ops.contract import matmul, swapped
from graphc.ops.create import iota
from graphc.ops.declare import Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.joining import cat
from graphc.ops.movement import expand, reshape, slice_, squeeze
from graphc.ops.pooling import take_at
from graphc.ops.windows import Ints, fixed

_MODES = ("bilinear", "nearest", "bicubic")
_PADDING = ("zeros", "border", "reflection")


def _op(name: str, *args: Any) -> Any:
    return Op.table[name](*args)


# ---- from coordinates to places ----------------------------------------------------------------------------------------


def _unnormalised(x: Any, size: int, align: bool) -> Any:
    """Coordinates in elements."""
    if align:
        return mul(add(x, 1.0), (size - 1) / 2)
    return mul(sub(mul(add(x, 1.0), float(size)), 1.0), 0.5)


def _reflected(x: Any, low: float, high: float) -> Any:
    """x mirrored at low and high until it lies between."""
    if low == high:
        return mul(x, 0.0)
    span = high - low
    distance = _op("abs", sub(x, low))
    turns = _op("floor", mul(distance, 1.0 / span))
    rest = sub(distance, mul(turns, span))
    odd = _op("ne", _op("remainder", turns, 2.0), 0.0)
    return add(where(odd, sub(constant(span, x.dtype), rest), rest), low)


def _kept_in(x: Any, size: int, padding: str, align: bool) -> Any:
    """Coordinates as the padding mode has them."""
    if padding == "reflection":
        x = _reflected(x, 0.0, size - 1.0) if align else _reflected(x, -0.5, size - 0.5)
    if padding != "zeros":
        x = _op("clamp", x, 0.0, size - 1.0)
    return x


def _places_of(x: Any, size: int) -> tuple[Any, Any]:
    """(index inside the dim, whether it was there before) of whole coordinates; NaN and what int64 cannot hold are outside."""
    inside = _op("logical_and", _op("ge", x, 0.0), _op("le", x, size - 1.0))
    return cast(where(inside, x, constant(0, x.dtype)), int64), inside


def _fetched(image: Any, whole: list[Any], sizes: Ints) -> Any:
    """[N, C, *grid] elements at whole coordinates, 0 outside."""
    position: Any = None
    inside: Any = None
    for x, size in zip(whole, sizes, strict=True):
        index, here = _places_of(x, size)
        position = index if position is None else add(mul(position, size), index)
        inside = here if inside is None else _op("logical_and", inside, here)
    batch, channels, *_ = image.shape
    grid = tuple(position.shape[1:])
    spread = expand.run(reshape.run(position, shape=(batch, 1, *grid)), shape=(batch, channels, *grid))
    flat = reshape.run(image, shape=(batch, channels, math.prod(sizes)))
    values = take_at(flat, spread, 1) if len(grid) == 1 else _taken(flat, spread)
    return where(reshape.run(inside, shape=(batch, 1, *grid)), values, constant(0, image.dtype))


def _taken(flat: Any, places: Any) -> Any:
    batch, channels, *grid = places.shape
    lined = reshape.run(places, shape=(batch, channels, math.prod(grid)))
    return reshape.run(take_at(flat, lined, 1), shape=(batch, channels, *grid))


# ---- the three modes ---------------------------------------------------------------------------------------------------


def _linear(image: Any, at: list[Any], sizes: Ints) -> Any:
    """The corners around each place, weighted by how near they are."""
    low = [_op("floor", x) for x in at]
    part = [sub(x, f) for x, f in zip(at, low, strict=True)]
    total = None
    for corner in itertools.product((0, 1), repeat=len(sizes)):
        weight = None
        for k, p in zip(corner, part, strict=True):
            share = p if k else sub(constant(1, p.dtype), p)
            weight = share if weight is None else mul(weight, share)
        value = _fetched(image, [add(f, float(k)) for f, k in zip(low, corner, strict=True)], sizes)
        value = mul(value, _beside_channels(weight))
        total = value if total is None else add(total, value)
    return total


def _beside_channels(weight: Any) -> Any:
    return reshape.run(weight, shape=(weight.shape[0], 1, *weight.shape[1:]))


def _cubic_weights(t: Any) -> list[Any]:
    """Keys' cubic with A = -0.75 for the four neighbours of a place that lies t behind the second."""

    def near(x: Any) -> Any:
        return add(mul(mul(sub(mul(x, 1.25), 2.25), x), x), 1.0)

    def far(x: Any) -> Any:
        return add(mul(add(mul(add(mul(x, -0.75), 3.75), x), -6.0), x), 3.0)

    rest = sub(constant(1, t.dtype), t)
    return [far(add(t, 1.0)), near(t), near(rest), far(add(rest, 1.0))]


def _cubic(image: Any, at: list[Any], sizes: Ints, padding: str, align: bool) -> Any:
    low = [_op("floor", x) for x in at]
    weights = [_cubic_weights(sub(x, f)) for x, f in zip(at, low, strict=True)]
    rows = None
    for i in range(4):
        row = None
        y = _kept_in(add(low[0], i - 1.0), sizes[0], padding, align)
        for j in range(4):
            x = _kept_in(add(low[1], j - 1.0), sizes[1], padding, align)
            value = mul(_fetched(image, [y, x], sizes), _beside_channels(weights[1][j]))
            row = value if row is None else add(row, value)
        row = mul(row, _beside_channels(weights[0][i]))
        rows = row if rows is None else add(rows, row)
    return rows


def _sampled(image: Any, grid: Any, mode: str, padding: str, align: bool) -> Any:
    n = grid.shape[-1]
    sizes = fixed("grid_sample", image.shape[2:])
    last = grid.ndim - 1
    at = []
    for k in reversed(range(n)):  # the grid names the last dim first
        starts, stops = [0] * grid.ndim, list(grid.shape)
        starts[last], stops[last] = k, k + 1
        x = squeeze.run(slice_.run(grid, starts=tuple(starts), stops=tuple(stops), steps=(1,) * grid.ndim), dims=(last,))
        at.append(_unnormalised(x, sizes[n - 1 - k], align))
    if mode == "bicubic":
        return _cubic(image, at, sizes, padding, align)
    at = [_kept_in(x, size, padding, align) for x, size in zip(at, sizes, strict=True)]
    if mode == "nearest":
        return _fetched(image, [_op("round", x) for x in at], sizes)
    return _linear(image, at, sizes)


# ---- grid_sample -------------------------------------------------------------------------------------------------------


def _sample_prepare(
    input: Any, grid: Any, mode: Any = "bilinear", padding_mode: Any = "zeros", align_corners: Any = None
) -> Prepared:
    x, grid = require_floating("grid_sample", "input", input), tensor("grid_sample", "grid", grid)
    if mode not in _MODES:
        raise ValueError(f"grid_sample: expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: {mode!r}")
    if padding_mode not in _PADDING:
        raise ValueError(f"grid_sample: expected padding_mode to be 'zeros', 'border', or 'reflection', but got: {padding_mode!r}")
    return (x, grid), {"mode": mode, "padding": padding_mode, "align": bool(align_corners)}


def _sample_infer(x: TensorType, grid: TensorType, mode: str, padding: str, align: bool) -> TensorType:
    same_dtype("grid_sample", (x, grid))
    n = x.rank - 2
    if n not in (2, 3) or grid.rank != x.rank or grid.shape[-1] != n or grid.shape[0] != x.shape[0]:
        raise RuntimeError(f"grid_sample: expected a 4D or 5D input and a grid [N, ..., {n}] of its rank, got {x} and {grid}")
    if mode == "bicubic" and n != 2:
        raise RuntimeError(f"grid_sample: bicubic interpolation only supports 4D input, got {x}")
    if 0 in fixed("grid_sample", x.shape[2:]):
        raise RuntimeError(f"grid_sample: expected input to have non-empty spatial dims, got {x}")
    return TensorType(x.dtype, (x.shape[0], x.shape[1], *grid.shape[1:-1]))


def _array_places(xp: Any, x: Any, size: int, padding: str, align: bool) -> Any:
    """`_kept_in` for arrays."""
    if padding == "reflection":
        low, high = (0.0, size - 1.0) if align else (-0.5, size - 0.5)
        span = max(high - low, 1e-30)
        rest = xp.mod(xp.abs(x - low), 2 * span)
        x = low + xp.where(rest > span, 2 * span - rest, rest) if high > low else x * 0
    return x if padding == "zeros" else xp.clip(x, 0, size - 1)


def _array_weights(xp: Any, x: Any, mode: str) -> list[tuple[Any, Any]]:
    """(place, weight) of every neighbour of x along its dim."""
    if mode == "nearest":
        return [(xp.round(x), xp.ones_like(x))]
    low = xp.floor(x)
    t = x - low
    if mode == "bilinear":
        return [(low, 1 - t), (low + 1, t)]
    near = [(1.25 * u - 2.25) * u * u + 1 for u in (t, 1 - t)]
    far = [((-0.75 * u + 3.75) * u - 6) * u + 3 for u in (1 + t, 2 - t)]
    weights = (far[0], *near, far[1])
    return [(low + k - 1, w) for k, w in enumerate(weights)]


def _sample_reference(xp: Any, x: Any, grid: Any, mode: str, padding: str, align: bool) -> Any:
    n = grid.shape[-1]
    dims = []
    for k, size in enumerate(x.shape[2:]):
        at = grid[..., n - 1 - k]
        at = (at + 1) * (size - 1) / 2 if align else ((at + 1) * size - 1) / 2
        at = at if mode == "bicubic" else _array_places(xp, at, size, padding, align)
        found = _array_weights(xp, at, mode)
        dims.append([(_array_places(xp, p, size, padding, align) if mode == "bicubic" else p, w) for p, w in found])
    out = xp.zeros((x.shape[0], x.shape[1], *grid.shape[1:-1]), x.dtype)
    for corner in itertools.product(*dims):
        inside, weight, index = xp.ones((), bool), xp.ones((), x.dtype), []
        for (place, w), size in zip(corner, x.shape[2:], strict=True):
            here = (place >= 0) & (place <= size - 1)
            inside = inside & here
            weight = weight * w
            index.append(xp.where(here, place, 0).astype(xp.int64))
        members = xp.arange(x.shape[0]).reshape(-1, *(1,) * n)
        values = xp.moveaxis(x[(members, slice(None), *index)], -1, 1)
        out = out + weight[:, None] * xp.where(inside[:, None], values, 0)
    return out.astype(x.dtype)


_GRID = fill(2, 3, 4, 2, low=-1.4, high=1.4)
_VOLUME = fill(1, 2, 2, 3, 3, low=-1.4, high=1.4)

grid_sample = Op(
    "grid_sample",
    doc="An image sampled at the places of a grid of coordinates in -1 .. 1, last dim first.  [N, C, *sizes], "
    "[N, *places, dims] -> [N, C, *places].",
    signature="(input, grid, mode='bilinear', padding_mode='zeros', align_corners=None)",
    prepare=_sample_prepare,
    infer=_sample_infer,
    reference=rounded(_sample_reference),
    grad=THROUGH,
    lowering=Composite(in_compute_dtype(_sampled)),
    attrs=("mode", "padding", "align"),
    dtypes=(float32, float64),
    samples=(
        call(fill(2, 2, 4, 5), _GRID),
        call(fill(2, 2, 4, 5), _GRID, "bicubic", "border"),
        call(fill(2, 2, 4, 5), _GRID, "bilinear", "reflection", True),
        call(fill(2, 1, 4, 5), _GRID, "nearest", "border"),
        call(fill(1, 2, 3, 4, 2), _VOLUME, "bilinear", "zeros"),
    ),
    bad=(
        Bad((fill(2, 1, 4, 5), _GRID, "cubic"), ValueError, "grid_sample: expected mode"),
        Bad((fill(2, 1, 4, 5), _GRID, "nearest", "wrap"), ValueError, "grid_sample: expected padding_mode"),
        Bad((fill(1, 1, 4, 5), _GRID, "nearest"), RuntimeError, "grid_sample: expected a 4D or 5D input"),
    ),
    methods=(),
    functions=("nn.functional.grid_sample",),
    autocast="float32",
)


def _grid_sampler(name: str, rank: int) -> Shorthand:
    def rule(input: Any, grid: Any, interpolation_mode: Any, padding_mode: Any, align_corners: Any) -> Any:
        modes = [number(name, "interpolation_mode", interpolation_mode), number(name, "padding_mode", padding_mode)]
        if modes[0] not in (0, 1, 2) or modes[1] not in (0, 1, 2) or tensor(name, "input", input).ndim != rank:
            raise RuntimeError(f"{name}: expected a {rank}D input and modes 0, 1 or 2, got {of_type(input)} and {modes}")
        return grid_sample(input, grid, _MODES[modes[0]], _PADDING[modes[1]], align_corners)

    return Shorthand(
        name,
        doc=f"grid_sample of a {rank}D input, its modes as numbers.  [N, C, *sizes], [N, *places, {rank - 2}] -> [N, C, *places].",
        rule=rule,
        reference=None,
        dtypes=(float32,),
        samples=(call(*((fill(2, 2, 4, 5), _GRID) if rank == 4 else (fill(1, 2, 3, 4, 2), _VOLUME)), 0, 1, False),),
        bad=(Bad((fill(2, 2, 4), _GRID, 0, 0, False), RuntimeError, f"{name}: expected a {rank}D input"),),
        methods=(),
        autocast="float32",
    )


grid_sampler_2d, grid_sampler_3d = _grid_sampler("grid_sampler_2d", 4), _grid_sampler("grid_sampler_3d", 5)

# ---- affine_grid -------------------------------------------------------------------------------------------------------


def _axis(count: int, align: bool, dtype: Any) -> Any:
    """The coordinates of a dim's elements."""
    if count == 1 and align:
        return constant(0, dtype, (1,))
    steps = cast(iota.run(size=count, dtype=int64), dtype)
    if align:
        return sub(mul(steps, 2.0 / (count - 1)), 1.0)
    return sub(mul(add(mul(steps, 2.0), 1.0), 1.0 / count), 1.0)


def _affine_grid(theta: Any, size: Any, align_corners: Any = None) -> Any:
    name = "affine_grid"
    theta = require_floating(name, "theta", theta)
    shape: Shape = tuple(one_size(name, "size", s) for s in size)
    n = len(shape) - 2
    if n not in (2, 3):
        raise NotImplementedError(f"{name}: only 4D and 5D sizes are supported, got {list(shape)}")
    if theta.ndim != 3 or tuple(theta.shape) != (shape[0], n, n + 1):
        wanted = f"[{shape[0]}, {n}, {n + 1}]"
        raise ValueError(f"{name}: expected a batch of {n}x{n + 1} affine matrices of shape {wanted}, got {of_type(theta)}")
    if any(s < 1 for s in fixed(name, shape)):
        raise ValueError(f"{name}: expected non-zero, positive output size, got {list(shape)}")
    places = fixed(name, shape[2:])
    axes = []
    for k in reversed(range(n)):
        axis = _axis(places[k], bool(align_corners), theta.dtype.compute)
        axis = reshape.run(axis, shape=tuple(places[k] if j == k else 1 for j in range(n + 1)))
        axes.append(expand.run(axis, shape=(*places, 1)))
    base = cat([*axes, constant(1, theta.dtype.compute, (*places, 1))], n)
    base = reshape.run(cast(base, theta.dtype), shape=(1, math.prod(places), n + 1))
    return reshape.run(matmul.run(base, swapped(theta)), shape=(shape[0], *places, n))


affine_grid = Shorthand(
    "affine_grid",
    doc="The places that an affine map gives each element of an image of `size`.  [N, 2, 3] -> [N, H, W, 2], [N, 3, 4] -> "
    "[N, D, H, W, 3].",
    rule=_affine_grid,
    reference=None,
    dtypes=(float32,),
    samples=(call(fill(2, 2, 3), (2, 1, 3, 4)), call(fill(1, 3, 4), (1, 2, 2, 3, 4), True)),
    bad=(
        Bad((fill(2, 2, 3), (2, 3, 4)), NotImplementedError, "affine_grid: only 4D and 5D"),
        Bad((fill(2, 3), (2, 1, 3, 4)), ValueError, "affine_grid: expected a batch of"),
    ),
    methods=(),
    functions=("nn.functional.affine_grid",),
)
