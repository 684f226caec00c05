"""Padding with elements of the tensor itself: reflect, replicate, circular; and `pad`, which chooses among all modes.

Enters: tensors.  Leaves: `pad_mode` (movement) and nn.functional.pad.  Never here: padding with a constant (`joining`).
"""

from __future__ import annotations

from typing import Any

from graphc.dims import maximum, minimum
from graphc.ir.op import Bad, Movement, Op, Shape, Size, TensorType, shape_text
from graphc.ops.arguments import is_zero, number, of_type, sizes, tensor
from graphc.ops.arithmetic import add
from graphc.ops.declare import EVERY, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.joining import pad_constant
from graphc.ops.movement import Index, flip
from graphc.ops.reduce import reduce_sum
from graphc.ops.views import part

Pads = list[tuple[int, Size, Size]]  # dim, before, after
MODES = ("reflect", "replicate", "circular")

# ---- with the tensor's own elements ------------------------------------------------------------------------------------


def _mode_infer(x: TensorType, before: Shape, after: Shape, mode: str) -> TensorType:
    for dim, (size, b, a) in enumerate(zip(x.shape, before, after, strict=True)):
        if b == 0 and a == 0:
            continue
        limit = size - 1 if mode == "reflect" else size
        if mode != "replicate" and isinstance(limit, int) and any(isinstance(p, int) and p > limit for p in (b, a)):
            raise RuntimeError(f"pad: {mode} pads {b}, {a} are too large for dim {dim} of {x}")
        if is_zero(size):
            raise RuntimeError(f"pad: {mode} of an empty dim: {x}")
    grown = tuple(b + s + a for b, s, a in zip(before, x.shape, after, strict=True))
    if any(isinstance(n, int) and n < 0 for n in grown):
        raise RuntimeError(f"pad: pads {shape_text(before)}, {shape_text(after)} remove more than {x} has")
    return TensorType(x.dtype, grown)


def _place(i: Any, size: Size, before: Size, mode: str, low: Any, high: Any) -> Any:
    """Which element stands at i; `low` and `high` are the minimum and maximum of two."""
    at = i - before
    if mode == "replicate":
        return high(low(at, size - 1), 0)
    if mode == "circular":
        return (at + size) % size
    at = high(at, before - i)
    return low(at, (size - 1) * 2 - at)


def _mode_index(index: Index, in_type: TensorType, out_type: TensorType, before: Shape, after: Shape, mode: str) -> Index:
    dims = zip(index, in_type.shape, before, after, strict=True)
    return tuple(i if b == 0 and a == 0 else _place(i, size, b, mode, minimum, maximum) for i, size, b, a in dims)


def _mode_reference(xp: Any, x: Any, before: Shape, after: Shape, mode: str) -> Any:
    for dim, (size, b, a) in enumerate(zip(x.shape, before, after, strict=True)):
        if b != 0 or a != 0:
            x = xp.take(x, _place(xp.arange(b + size + a), size, b, mode, xp.minimum, xp.maximum), axis=dim)
    return x


def _mode_grad(g: Any, out: Any, x: Any, before: Shape, after: Shape, mode: str) -> tuple[Any]:
    """Dim by dim: what the two sides show goes back to where it came from."""
    for dim, (b, a) in enumerate(zip(before, after, strict=True)):
        if b != 0 or a != 0:
            g = _folded_back(g, dim, x.shape[dim], b, a, mode)
    return (g,)


def _folded_back(g: Any, dim: int, size: Size, before: Size, after: Size, mode: str) -> Any:
    have = g.shape[dim]
    low, high = minimum(maximum(before, 0), have), minimum(maximum(after, 0), have)

    def put(side: Any, at: Size) -> Any:
        shape = tuple(size if k == dim else n for k, n in enumerate(g.shape))
        starts = tuple(at if k == dim else 0 for k in range(g.ndim))
        return pad_constant.run(side, starts=starts, shape=shape, value=0)

    total = put(part(g, dim, low, have - high), maximum(0, -before))
    for width, start, first in ((low, 0, True), (high, have - high, False)):
        if width == 0:
            continue
        side = part(g, dim, start, start + width)
        if mode == "replicate":
            side = Op.table["unsqueeze"].run(reduce_sum.run(side, dim=dim), dim=dim)
            at = 0 if first else size - 1
        elif mode == "circular":
            at = size - width if first else 0
        else:
            side = flip.run(side, dims=(dim,))
            at = before - low + 1 if first else size - 1 - after
        total = add.run(total, put(side, at))
    return total


def _mode_prepare(x: Any, before: Any, after: Any, mode: str) -> Prepared:
    return (tensor("pad_mode", "x", x),), {"before": tuple(before), "after": tuple(after), "mode": mode}


pad_mode = Op(
    "pad_mode",
    doc="Dims grown at both ends with mirrored, border or wrapped elements.  [n, ...] -> [before + n + after, ...].",
    signature="(x, before, after, mode)",
    prepare=_mode_prepare,
    infer=_mode_infer,
    reference=_mode_reference,
    grad=_mode_grad,
    lowering=Movement(_mode_index),
    attrs=("before", "after", "mode"),
    dtypes=EVERY,
    samples=tuple(
        call(fill(*shape), *how, mode)
        for mode in MODES
        for shape, *how in (((2, 5), (0, 2), (0, 3)), ((3, 33), (2, 1), (1, 0)), ((2, 1, 4), (0, 0, 3), (0, 0, 3)))
    ),
    bad=(Bad((fill(3), (3,), (0,), "reflect"), RuntimeError, "pad: reflect pads 3, 0 are too large"),),
    methods=(),
    functions=(),
)

# ---- pad ---------------------------------------------------------------------------------------------------------------


def _pads(x: Any, pad: Any) -> Pads:
    """(dim, before, after) of PyTorch's flat list, which starts from the last dim.  Raises RuntimeError."""
    given = sizes("pad", (tuple(pad) if isinstance(pad, tuple | list) else pad,), "pad")
    if len(given) % 2 or len(given) // 2 > x.ndim:
        raise RuntimeError(f"pad: {len(given)} pad sizes do not fit {of_type(x)}: two a dim, from the last dim")
    if any(isinstance(p, int) and abs(p) >= 1 << 62 for p in given):
        raise RuntimeError(f"pad: pad sizes {list(given)} are too large for {of_type(x)}")
    return [(x.ndim - 1 - k, given[2 * k], given[2 * k + 1]) for k in range(len(given) // 2)]


def _cropped(x: Any, pads: Pads) -> tuple[Any, Pads]:
    """Negative pads taken off first."""
    result = []
    for dim, before, after in pads:
        cut = [-p if isinstance(p, int) and p < 0 else 0 for p in (before, after)]
        if any(cut):
            size = x.shape[dim]
            stop = size - cut[1]
            if isinstance(stop, int) and stop < cut[0]:
                raise RuntimeError(f"pad: pads {before}, {after} remove more than dim {dim} of {of_type(x)}")
            x = part(x, dim, cut[0], stop)
        result.append((dim, 0 if cut[0] else before, 0 if cut[1] else after))
    return x, result


def _checked_mode(x: Any, pads: Pads, mode: str) -> None:
    """PyTorch pads the last 1 to 3 dims, behind at least one that stays."""
    if mode not in MODES:
        raise NotImplementedError(f"pad: unrecognised mode {mode!r}; expected constant, reflect, replicate or circular")
    if not pads or len(pads) > 3 or x.ndim not in (len(pads) + 1, len(pads) + 2):
        raise NotImplementedError(f"pad: {mode} padding of {len(pads)} dims is not defined for {of_type(x)}")


def _pad(input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    x = tensor("pad", "input", input)
    pads = _pads(x, pad)
    if mode != "constant":
        _checked_mode(x, pads, mode)
        if value:
            raise ValueError(f"pad: padding mode {mode!r} doesn't take in value argument {value}")
    elif value is not None:
        number("pad", "value", value)
    if mode in ("constant", "circular"):
        x, pads = _cropped(x, pads)
    before: list[Size] = [0] * x.ndim
    after: list[Size] = [0] * x.ndim
    for dim, low, high in pads:
        before[dim], after[dim] = low, high
    if not any(before) and not any(after):
        return Op.table["clone"].run(x)
    if mode != "constant":
        return pad_mode.run(x, before=tuple(before), after=tuple(after), mode=mode)
    grown = tuple(b + s + a for b, s, a in zip(before, x.shape, after, strict=True))
    return pad_constant.run(x, starts=tuple(before), shape=grown, value=0 if value is None else value)


def _pad_reference(xp: Any, x: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    for k in range(len(pad) // 2):
        dim = x.ndim - 1 - k
        before, after = pad[2 * k], pad[2 * k + 1]
        x = x[(slice(None),) * dim + (slice(max(0, -before), x.shape[dim] - max(0, -after)),)]
        widths = [(0, 0)] * x.ndim
        widths[dim] = (max(0, before), max(0, after))
        how = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
        x = xp.pad(x, widths, how, **({"constant_values": value or 0} if mode == "constant" else {}))
    return x


pad = Shorthand(
    "pad",
    doc="Dims grown at both ends, pad sizes two a dim from the last dim; negative sizes crop.  [..., n] -> [..., "
    "before + n + after].",
    rule=_pad,
    reference=_pad_reference,
    dtypes=EVERY,
    samples=(
        call(fill(2, 3), (1, 2)),
        call(fill(2, 3), (1, 0, 0, 2), value=1),
        call(fill(2, 33), (-1, 2)),
        call(fill(0, 2), (1, 1)),
        call(fill(2, 5), (2, 3), mode="reflect"),
        call(fill(2, 5), (2, 3), mode="replicate"),
        call(fill(2, 5), (2, 3), mode="circular"),
        call(fill(3), ()),
    ),
    bad=(
        Bad((fill(3), (1,)), RuntimeError, "pad: 1 pad sizes do not fit"),
        Bad((fill(2, 3), (3, 0)), RuntimeError, "pad: reflect pads 3, 0 are too large", {"mode": "reflect"}),
        Bad((fill(3), (1, 1)), NotImplementedError, "pad: unrecognised mode", {"mode": "mirror"}),
        Bad((fill(3), (-2, -2)), RuntimeError, "pad: pads -2, -2 remove more"),
    ),
    methods=(),
    functions=("nn.functional.pad",),
    autocast=lambda input, pad, mode="constant", value=None: "float32" if mode in ("reflect", "replicate") else None,
)


def _constant_pad_nd(input: Any, pad: Any, value: Any = 0) -> Any:
    return _pad(input, pad, "constant", value)


constant_pad_nd = Shorthand(
    "constant_pad_nd",
    doc="Dims grown at both ends with one value, as pad.  [..., n] -> [..., before + n + after].",
    rule=_constant_pad_nd,
    reference=lambda xp, x, pad, value=0: _pad_reference(xp, x, pad, "constant", value),
    dtypes=EVERY,
    samples=(call(fill(2, 3), (1, 2)), call(fill(2, 3), (1, 0, -1, 2), 3)),
    bad=(Bad((fill(3), (1,)), RuntimeError, "pad: 1 pad sizes do not fit"),),
    methods=(),
)
