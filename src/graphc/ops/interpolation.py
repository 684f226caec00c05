"""nn.functional.interpolate and upsample: PyTorch's arguments made strict.

Enters: tensors [N, C, *sizes] and PyTorch's arguments.  Leaves: operators written with `resample`, one dim after the other.
Never here: what is interpolated.
"""

from __future__ import annotations

import math
from typing import Any

from graphc.dtypes import float64, uint8
from graphc.ir.op import Bad, Op, Size
from graphc.ops.arguments import cast, number, of_type, one_size, tensor
from graphc.ops.declare import FLOATING, Shorthand, call, fill
from graphc.ops.resample import resample
from graphc.ops.windows import Ints, fixed

_RULES = {"linear": ("linear", 1), "bilinear": ("linear", 2), "trilinear": ("linear", 3), "bicubic": ("cubic", 2)}
_PLAIN = ("nearest", "nearest-exact", "area")


def _given(name: str, what: str, value: Any, x: Any, check: Any) -> tuple[Any, ...]:
    """One value a spatial dim.  Raises ValueError."""
    n = x.ndim - 2
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * n
    if len(values) != n:
        raise ValueError(f"{name}: input and {what} must have the same number of spatial dims, got {of_type(x)} and {list(values)}")
    return tuple(check(name, what, v) for v in values)


def _target(name: str, x: Any, size: Any, scale_factor: Any, recompute: Any, mode: str) -> tuple[Ints, tuple[float | None, ...]]:
    """(sizes of the result, factors that the positions are computed with)."""
    n = x.ndim - 2
    if (size is None) == (scale_factor is None):
        told = "only one of size or scale_factor should" if size is not None else "either size or scale_factor should"
        raise ValueError(f"{name}: {told} be defined")
    if size is not None:
        if recompute:
            raise ValueError(f"{name}: recompute_scale_factor is not meaningful with an explicit size")
        return fixed(name, _given(name, "size", size, x, one_size)), (None,) * n
    factors = tuple(map(float, _given(name, "scale_factor", scale_factor, x, number)))
    if any(not math.isfinite(f) or f * s >= 1 << 62 for f, s in zip(factors, x.shape[2:], strict=True)):
        raise RuntimeError(f"{name}: scale_factor {list(factors)} is too large for {of_type(x)}")
    sizes = tuple(int(s * f) for s, f in zip(x.shape[2:], factors, strict=True))
    return sizes, (None,) * n if recompute or mode == "area" else factors


def _rule_of(name: str, x: Any, mode: str, align_corners: Any, antialias: Any) -> str:
    """The way of `resample`.  Raises ValueError or NotImplementedError as PyTorch does."""
    if mode in _PLAIN and align_corners is not None:
        raise ValueError(f"{name}: align_corners can only be set with the interpolating modes linear, bilinear, bicubic, trilinear")
    if antialias and not (mode in ("bilinear", "bicubic") and x.ndim == 4):
        raise ValueError(f"{name}: antialias is restricted to bilinear and bicubic and a 4D input, got {mode!r} and {of_type(x)}")
    if mode in _PLAIN and x.ndim in (3, 4, 5):
        return mode
    if mode not in _RULES or x.ndim != _RULES[mode][1] + 2:
        raise NotImplementedError(f"{name}: mode {mode!r} is not defined for {of_type(x)}; sizes follow N and C")
    return _RULES[mode][0] + ("-aa" if antialias else "")


def _interpolate(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: Any = False,
) -> Any:
    return _resized("interpolate", input, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)


def _resized(
    name: str, input: Any, size: Any, scale_factor: Any, mode: str, align_corners: Any, recompute: Any, antialias: Any
) -> Any:
    x = tensor(name, "input", input)
    rule = _rule_of(name, x, mode, align_corners, antialias)
    sizes, factors = _target(name, x, size, scale_factor, recompute, mode)
    known: tuple[Size, ...] = fixed(name, x.shape[2:])
    if 0 in (*known, x.shape[1]) or any(s < 1 for s in sizes):
        raise RuntimeError(f"{name}: input and output sizes must be greater than 0, got {of_type(x)} and {list(sizes)}")
    for dim in reversed(range(2, x.ndim)):
        target, factor = sizes[dim - 2], factors[dim - 2]
        if rule == "nearest" and target == x.shape[dim] and factor is None:
            continue
        how = {"dim": dim, "size": target, "align": bool(align_corners), "factor": factor}
        if x.dtype is uint8:
            way = f"{rule}-bytes" if rule in ("linear", "cubic") else rule
            x = _bytes(resample.run(cast(x, float64), mode=way, **how))
        else:
            x = resample.run(x, mode=rule, **how)
    return Op.table["clone"].run(x) if x is input else x


def _bytes(x: Any) -> Any:
    """Rounded to bytes, halves up: PyTorch does so after every dim."""
    return cast(Op.table["clamp"](Op.table["floor"](Op.table["add"](x, 0.5)), 0, 255), uint8)


def _declared(name: str, doc: str, rule: Any, samples: Any, bad: Any) -> Shorthand:
    return Shorthand(
        name,
        doc=doc,
        rule=rule,
        reference=None,
        dtypes=FLOATING,
        samples=samples,
        bad=bad,
        methods=(),
        functions=(f"nn.functional.{name}",),
    )


_BAD = (
    Bad((fill(1, 2, 3),), ValueError, "either size or scale_factor"),
    Bad((fill(1, 2, 3), 4, 2.0), ValueError, "only one of size or scale_factor"),
    Bad((fill(1, 2, 3), (4, 4)), ValueError, "the same number of spatial dims"),
    Bad((fill(1, 2, 3), 0), RuntimeError, "must be greater than 0"),
    Bad((fill(2, 3), 4), NotImplementedError, "mode 'nearest' is not defined"),
)

interpolate = _declared(
    "interpolate",
    "The spatial dims resampled to `size` or by `scale_factor`: nearest, nearest-exact, linear, bilinear, trilinear, bicubic, "
    "area.  [N, C, ...] -> [N, C, ...].",
    _interpolate,
    (
        call(fill(1, 2, 5), 8),
        call(fill(1, 2, 4, 3), scale_factor=2.0, mode="bilinear"),
        call(fill(1, 2, 4, 5), (3, 7), mode="bicubic", align_corners=True),
        call(fill(1, 1, 9, 8), (3, 5), mode="bilinear", antialias=True),
    ),
    (
        *_BAD,
        Bad((fill(1, 2, 3), 4), ValueError, "align_corners can only be set", {"align_corners": True}),
        Bad((fill(1, 2, 3), 4), ValueError, "antialias is restricted", {"antialias": True, "mode": "linear"}),
    ),
)


def _upsample(input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: Any = None) -> Any:
    return _resized("upsample", input, size, scale_factor, mode, align_corners, None, False)


upsample = _declared(
    "upsample",
    "interpolate without its newest options.  [N, C, ...] -> [N, C, ...].",
    _upsample,
    (call(fill(1, 2, 5), 8), call(fill(1, 2, 4, 3), scale_factor=2.0, mode="bilinear")),
    _BAD,
)


def _upsample_nearest(input: Any, size: Any = None, scale_factor: Any = None) -> Any:
    return _resized("upsample_nearest", input, size, scale_factor, "nearest", None, None, False)


upsample_nearest = _declared(
    "upsample_nearest",
    "interpolate by the nearest element.  [N, C, ...] -> [N, C, ...].",
    _upsample_nearest,
    (call(fill(1, 2, 5), 8), call(fill(1, 2, 4, 3), scale_factor=2.0)),
    _BAD,
)


def _upsample_bilinear(input: Any, size: Any = None, scale_factor: Any = None) -> Any:
    return _resized("upsample_bilinear", input, size, scale_factor, "bilinear", True, None, False)


upsample_bilinear = _declared(
    "upsample_bilinear",
    "interpolate bilinearly with corners aligned.  [N, C, H, W] -> [N, C, H', W'].",
    _upsample_bilinear,
    (call(fill(1, 2, 4, 3), (7, 5)), call(fill(1, 2, 4, 3), scale_factor=2.0)),
    (Bad((fill(1, 2, 3), 4), NotImplementedError, "mode 'bilinear' is not defined"),),
)
