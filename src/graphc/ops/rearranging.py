"""Channels and places exchanged: pixel_shuffle, pixel_unshuffle, channel_shuffle.

Enters: tensors [..., C, H, W].  Leaves: operators written with reshape and permute.  Never here: arithmetic on elements.
"""

from __future__ import annotations

from typing import Any

from graphc.dims import divides
from graphc.ir.op import Bad, Op, Size
from graphc.ops.arguments import is_zero, of_type, one_size, tensor
from graphc.ops.declare import EVERY, Shorthand, call, fill
from graphc.ops.movement import permute, reshape


def _factor(name: str, argument: str, value: Any) -> Size:
    size = one_size(name, argument, value)
    if isinstance(size, int) and not 0 < size < 1 << 31:
        raise RuntimeError(f"{name}: expected a positive {argument}, got {size}")
    return size


def _image(name: str, x: Any) -> Any:
    x = tensor(name, "input", x)
    if x.ndim < 3:
        raise RuntimeError(f"{name}: expects input to have at least 3 dimensions, got {of_type(x)}")
    return x


def _pixel_shuffle(input: Any, upscale_factor: Any) -> Any:
    x, r = _image("pixel_shuffle", input), _factor("pixel_shuffle", "upscale_factor", upscale_factor)
    *lead, c, h, w = x.shape
    if not divides(r * r, c):
        raise RuntimeError(f"pixel_shuffle: the channels of {of_type(x)} must be divisible by the square of upscale_factor {r}")
    n = len(lead)
    x = reshape.run(x, shape=(*lead, c // (r * r), r, r, h, w))
    x = permute.run(x, dims=(*range(n + 1), n + 3, n + 1, n + 4, n + 2))
    return reshape.run(Op.table["clone"].run(x), shape=(*lead, c // (r * r), h * r, w * r))


pixel_shuffle = Shorthand(
    "pixel_shuffle",
    doc="Channels spread over r x r places (Shi and others 2016).  [..., C * r * r, H, W] -> [..., C, H * r, W * r].",
    rule=_pixel_shuffle,
    reference=None,
    dtypes=EVERY,
    samples=(call(fill(2, 4, 3, 2), 2), call(fill(9, 2, 5), 3), call(fill(0, 4, 1, 1), 2)),
    bad=(
        Bad((fill(2, 3, 3), 2), RuntimeError, "pixel_shuffle: the channels of .* must be divisible"),
        Bad((fill(3, 3), 2), RuntimeError, "pixel_shuffle: expects input to have at least 3"),
        Bad((fill(4, 3, 3), 0), RuntimeError, "pixel_shuffle: expected a positive upscale_factor"),
    ),
    methods=(),
    functions=("pixel_shuffle", "nn.functional.pixel_shuffle"),
)


def _pixel_unshuffle(input: Any, downscale_factor: Any) -> Any:
    x, r = _image("pixel_unshuffle", input), _factor("pixel_unshuffle", "downscale_factor", downscale_factor)
    *lead, c, h, w = x.shape
    if not (divides(r, h) and divides(r, w)):
        raise RuntimeError(f"pixel_unshuffle: height and width of {of_type(x)} must be divisible by downscale_factor {r}")
    n = len(lead)
    x = reshape.run(x, shape=(*lead, c, h // r, r, w // r, r))
    x = permute.run(x, dims=(*range(n + 1), n + 2, n + 4, n + 1, n + 3))
    return reshape.run(Op.table["clone"].run(x), shape=(*lead, c * r * r, h // r, w // r))


pixel_unshuffle = Shorthand(
    "pixel_unshuffle",
    doc="r x r places gathered into channels.  [..., C, H * r, W * r] -> [..., C * r * r, H, W].",
    rule=_pixel_unshuffle,
    reference=None,
    dtypes=EVERY,
    samples=(call(fill(2, 1, 6, 4), 2), call(fill(2, 3, 6), 3)),
    bad=(
        Bad((fill(2, 3, 3), 2), RuntimeError, "pixel_unshuffle: height and width of .* must be divisible"),
        Bad((fill(3, 3), 2), RuntimeError, "pixel_unshuffle: expects input to have at least 3"),
    ),
    methods=(),
    functions=("pixel_unshuffle", "nn.functional.pixel_unshuffle"),
)


def _channel_shuffle(input: Any, groups: Any) -> Any:
    x, groups = _image("channel_shuffle", input), _factor("channel_shuffle", "groups", groups)
    n, c, *rest = x.shape
    if is_zero(c) or not divides(groups, c):
        raise RuntimeError(f"channel_shuffle: the channels of {of_type(x)} must be divisible by groups {groups}")
    x = permute.run(reshape.run(x, shape=(n, groups, c // groups, *rest)), dims=(0, 2, 1, *range(3, x.ndim + 1)))
    return reshape.run(Op.table["clone"].run(x), shape=(n, c, *rest))


channel_shuffle = Shorthand(
    "channel_shuffle",
    doc="Channels of `groups` groups dealt out in turn.  [N, C, ...] -> [N, C, ...].",
    rule=_channel_shuffle,
    reference=None,
    dtypes=EVERY,
    samples=(call(fill(2, 6, 3, 2), 3), call(fill(1, 4, 5), 2)),
    bad=(Bad((fill(2, 3, 3), 2), RuntimeError, "channel_shuffle: the channels of .* must be divisible"),),
    methods=(),
    functions=("channel_shuffle", "nn.functional.channel_shuffle"),
)
