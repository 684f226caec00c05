"""The largest element of every small window, which of the window it is, and gradients put back to it.

Enters: tensors [*lead, *sizes, *trailing] and canonical window attributes; `trailing`: how many dims follow those that windows
slide over, so that channels may come last.  Leaves: four element operators that nothing is stored for.
Never here: PyTorch's arguments (`pools`); windows of more than `MOST` elements (`pooling`).

Every element of a window is written out.  The largest is found in the order of a reduction; the gradient of an element is the sum
over the windows that hold it, in row-major order of the windows, of what belongs to those whose first largest element it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product as tuples
from typing import Any

import numpy as np

from graphc.dtypes import DType, int32, int64, uint8
from graphc.ir.loops import Expr, identity
from graphc.ir.op import Bad, Element, Op, Sample, Size, TensorType
from graphc.ops.arguments import rounded, tensor
from graphc.ops.declare import FLOATING, NUMERIC, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import both, clamped, converted, inside_tests, select
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import size as size_value
from graphc.ops.movement import Index
from graphc.ops.windows import Ints, fixed

MOST = 25  # elements of a window: they are written out
_ATTRS = ("places", "kernel", "stride", "padding", "dilation", "trailing")


def _cut(shape: Sequence[Size], n: int, trailing: int) -> tuple[Any, Any, Any]:
    """A shape (or index) as leading dims, the `n` that windows slide over, and those behind."""
    at = len(shape) - trailing
    return tuple(shape[: at - n]), tuple(shape[at - n : at]), tuple(shape[at:])


def _reached(load: Any, at: Sequence[Size], sizes: Ints) -> tuple[list[Size], Expr | None]:
    """A position forced inside `sizes`, and whether it was inside (None: always)."""
    inside: Expr | None = None
    forced: list[Size] = []
    for position, size in zip(at, sizes, strict=True):
        tests = inside_tests(position, size)
        for test in tests:
            inside = test if inside is None else both(inside, test)
        forced.append(clamped(load, size_value(position), size) if tests else position)
    return forced, inside


def _elements(load: Any, index: Index, x: TensorType, how: dict[str, Any], source: int = 0) -> Iterator[tuple[Expr, Expr | None]]:
    """Each element of the window at `index` in row-major order, with whether it lies inside (None: it does)."""
    n = len(how["kernel"])
    lead, places, rest = _cut(index, n, how["trailing"])
    sizes = fixed("window_max", _cut(x.shape, n, how["trailing"])[1])
    for j in tuples(*map(range, how["kernel"])):
        steps = zip(places, j, how["stride"], how["padding"], how["dilation"], strict=True)
        at, inside = _reached(load, [q * s + k * d - p for q, k, s, p, d in steps], sizes)
        yield load.let(converted(load(source, (*lead, *at, *rest)), x.dtype.compute)), inside


def _largest(load: Any, index: Index, x: TensorType, how: dict[str, Any]) -> tuple[Expr, list[tuple[Expr, Expr | None]]]:
    """The largest element, NaN if any is, folded in halves as a reduction is, and all of them."""
    found = list(_elements(load, index, x, how))
    low = identity("max", x.dtype.compute)
    parts = [e if inside is None else load.let(select(inside, e, low)) for e, inside in found]
    half = 16
    while half:
        for k in range(max(0, min(half, len(parts) - half))):
            parts[k] = load.let(fn("max", parts[k], parts[k + half]))
        half //= 2
    return parts[0], found


def _max_rule(load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, **how: Any) -> Expr:
    return _largest(load, index, in_types[0], how)[0]


def _which_rule(load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, **how: Any) -> Expr:
    best, found = _largest(load, index, in_types[0], how)
    chosen: Expr = literal(0, int32)  # as wide as what is compared
    for k, (element, inside) in reversed(list(enumerate(found))):
        hit: Expr = fn("eq", element, best)
        if element.dtype.kind == "f":
            hit = fn("or", hit, fn("ne", element, element))
        hit = hit if inside is None else both(hit, inside)
        chosen = load.let(select(hit, literal(k, int32), chosen))
    return converted(chosen, uint8)


def _take_rule(load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, **how: Any) -> Expr:
    which = load.let(converted(load(1, index), int32))
    value: Expr = literal(0, out_type.dtype.compute)
    for k, (element, inside) in enumerate(_elements(load, index, in_types[0], how)):
        hit: Expr = fn("eq", which, literal(k, int32))
        value = load.let(select(hit if inside is None else both(hit, inside), element, value))
    return value


def _meeting(position: Size, limit: int, k: int, s: int, p: int, d: int) -> Iterator[tuple[Size, Size, list[Expr]]]:
    """Of one dim, the windows that may hold an element, first to last: (window, place within it, tests)."""
    if d == 1:
        for trial in reversed(range(-(-k // s))):
            q = (position + p) // s - trial
            j = position + p - q * s
            yield q, j, [*inside_tests(q, limit), *inside_tests(j, k)]
        return
    for j in reversed(range(k)):
        start = position + p - j * d
        even = [] if s == 1 else [fn("eq", size_value(start % s), literal(0, int64))]
        yield start // s, j, [*inside_tests(start // s, limit), *even]


def _input_rule(load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, sizes: Ints, **how: Any) -> Expr:
    """The sum over the windows that may hold the element, of what those have whose first largest element it is."""
    kernel, n = how["kernel"], len(how["kernel"])
    lead, at, rest = _cut(index, n, how["trailing"])
    steps = zip(at, how["places"], kernel, how["stride"], how["padding"], how["dilation"], strict=True)
    dtype = out_type.dtype.compute
    total: Expr | None = None
    for met in tuples(*(list(_meeting(*dim)) for dim in steps)):
        window, k = [], 0
        condition: Expr | None = None
        for (q, j, tests), limit, size in zip(met, how["places"], kernel, strict=True):
            for test in tests:
                condition = test if condition is None else both(condition, test)
            window.append(clamped(load, size_value(q), limit) if inside_tests(q, limit) else q)
            k = k * size + j
        there = (*lead, *window, *rest)
        hit: Expr = fn("eq", converted(load(1, there), int32), converted(size_value(k), int32))
        hit = hit if condition is None else both(load.let(condition), hit)
        term = load.let(select(hit, converted(load(0, there), dtype), literal(0, dtype)))
        total = term if total is None else load.let(fn("add", total, term))
    assert total is not None
    return total


# ---- types and references ------------------------------------------------------------------------------------------------


def _pooled(dtype: DType | None) -> Any:
    def infer(x: TensorType, *others: TensorType, places: Ints, kernel: Ints, trailing: int, **_: Any) -> TensorType:
        lead, sizes, rest = _cut(x.shape, len(kernel), trailing)
        shape = (*lead, *places, *rest)
        if x.rank < len(kernel) + trailing or len(sizes) != len(kernel) or math.prod(kernel) > MOST:
            raise RuntimeError(f"window_max: windows of {list(kernel)} do not fit {x}")
        if any(other.shape != shape or other.dtype is not uint8 for other in others):
            raise RuntimeError(f"window_take: the windows of {x} are {list(shape)}, got {others[0]}")
        fixed("window_max", sizes)
        return TensorType(dtype or x.dtype, shape)

    return infer


def _input_infer(g: TensorType, which: TensorType, sizes: Ints, places: Ints, trailing: int, **_: Any) -> TensorType:
    lead, have, rest = _cut(g.shape, len(sizes), trailing)
    if which.shape != g.shape or which.dtype is not uint8 or have != tuple(places):
        raise RuntimeError(f"window_max_input: {g} and {which} are not of windows {list(places)}")
    return TensorType(g.dtype, (*lead, *sizes, *rest))


def _turned(xp: Any, x: Any, trailing: int, back: bool = False) -> Any:
    """The trailing dims moved to the front, or home."""
    if not trailing:
        return x
    ends, fronts = range(x.ndim - trailing, x.ndim), range(trailing)
    return xp.moveaxis(x, fronts, ends) if back else xp.moveaxis(x, ends, fronts)


def _tap(j: Ints, how: dict[str, Any]) -> tuple[Any, ...]:
    """Where element j of every window lies in a padded array."""
    steps = zip(j, how["places"], how["stride"], how["dilation"], strict=True)
    return (..., *(slice(k * d, k * d + s * (p - 1) + 1, s) for k, p, s, d in steps))


def _padded(xp: Any, x: Any, how: dict[str, Any], value: Any) -> Any:
    n = len(how["kernel"])
    spans = zip(how["places"], how["stride"], how["dilation"], how["kernel"], how["padding"], x.shape[x.ndim - n :], strict=True)
    after = [(p, max(0, (q - 1) * s + d * (k - 1) + 1 - size - p)) for q, s, d, k, p, size in spans]
    return xp.pad(x, [(0, 0)] * (x.ndim - n) + after, constant_values=value)


def _seen(xp: Any, x: Any, how: dict[str, Any], value: Any) -> Any:
    """[..., *places, kernel elements] of an array whose trailing dims are in front."""
    grown = _padded(xp, x, how, value)
    return xp.stack([grown[_tap(j, how)] for j in np.ndindex(*how["kernel"])], axis=-1)


def _lowest(x: Any) -> Any:
    return np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf


def _max_reference(xp: Any, x: Any, **how: Any) -> Any:
    view = _seen(xp, _turned(xp, x, how["trailing"]), how, _lowest(x))
    return _turned(xp, view.max(axis=-1), how["trailing"], back=True)


def _which_reference(xp: Any, x: Any, **how: Any) -> Any:
    turned = _turned(xp, x, how["trailing"])
    view, real = _seen(xp, turned, how, _lowest(x)), _seen(xp, xp.ones(turned.shape, bool), how, False)
    hit = real & ((view == view.max(axis=-1, keepdims=True)) | (view != view))
    return _turned(xp, hit.argmax(axis=-1).astype(np.uint8), how["trailing"], back=True)


def _take_reference(xp: Any, x: Any, which: Any, **how: Any) -> Any:
    view = _seen(xp, _turned(xp, x, how["trailing"]), how, 0)
    at = _turned(xp, which, how["trailing"])[..., None] % math.prod(how["kernel"])
    return _turned(xp, xp.take_along_axis(view, at.astype(np.int64), axis=-1)[..., 0], how["trailing"], back=True)


def _input_reference(xp: Any, g: Any, which: Any, sizes: Ints, **how: Any) -> Any:
    turned, at = _turned(xp, g, how["trailing"]), _turned(xp, which, how["trailing"])
    n = len(sizes)
    out = _padded(xp, xp.zeros((*turned.shape[: turned.ndim - n], *sizes), g.dtype), how, 0)
    for k, j in enumerate(np.ndindex(*how["kernel"])):
        out[_tap(j, how)] += xp.where(at == k, turned, 0).astype(g.dtype)
    inside = (..., *(slice(p, p + size) for p, size in zip(how["padding"], sizes, strict=True)))
    return _turned(xp, out[inside], how["trailing"], back=True)


# ---- declarations ----------------------------------------------------------------------------------------------------------


def _prepare(name: str, count: int, attrs: tuple[str, ...]) -> Any:
    def prepare(*given: Any) -> Prepared:
        return tuple(tensor(name, "x", x) for x in given[:count]), dict(zip(attrs, given[count:], strict=True))

    return prepare


# shape, (places, kernel, stride, padding, dilation, trailing)
_SAMPLES: tuple[tuple[tuple[int, ...], tuple[Any, ...]], ...] = (
    ((2, 3, 6), ((3,), (2,), (2,), (0,), (1,), 0)),
    ((2, 5, 7, 3), ((3, 4), (3, 2), (2, 2), (1, 1), (1, 1), 1)),
    ((7, 18), ((5, 9), (3, 3), (1, 2), (1, 1), (1, 1), 0)),
    ((2, 7, 33), ((3, 16), (3, 3), (1, 2), (0, 1), (2, 1), 0)),
    ((2, 4, 3, 5, 2), ((2, 2, 2), (2, 1, 2), (2, 1, 2), (0, 0, 0), (1, 1, 1), 1)),
)


def _windowed(shape: tuple[int, ...], how: tuple[Any, ...]) -> tuple[int, ...]:
    lead, _, rest = _cut(shape, len(how[1]), how[-1])
    return (*lead, *how[0], *rest)


def _indices(shape: tuple[int, ...], how: tuple[Any, ...]) -> Any:
    return fill(*_windowed(shape, how), low=0, high=math.prod(how[1]), dtype=uint8, grad=False)


def _declare(name: str, doc: str, count: int, attrs: tuple[str, ...], rule: Any, **more: Any) -> Op:
    return Op(
        name,
        doc=doc,
        signature=f"({', '.join(('x', 'which')[:count])}, {', '.join(attrs)})",
        prepare=_prepare(name, count, attrs),
        lowering=Element(rule),
        attrs=attrs,
        methods=(),
        functions=(),
        **more,
    )


def _plain(samples: Any = _SAMPLES) -> tuple[Sample, ...]:
    return tuple(call(fill(*shape), *how) for shape, how in samples)


_MISFIT = (Bad((fill(3), (1,), (26,), (1,), (0,), (1,), 0), RuntimeError, "window_max: windows of .* do not fit"),)

window_which: Op = _declare(
    "window_which",
    "Which element of each window is its first largest, or its first NaN.  [..., *sizes, ...] -> uint8 [..., *places, ...].",
    1,
    _ATTRS,
    _which_rule,
    infer=_pooled(uint8),
    reference=_which_reference,
    grad=None,
    dtypes=NUMERIC,
    samples=_plain(),
    bad=_MISFIT,
)

window_max: Op = _declare(
    "window_max",
    "The largest element of each window, NaN if any is.  [..., *sizes, ...] -> [..., *places, ...].",
    1,
    _ATTRS,
    _max_rule,
    infer=_pooled(None),
    reference=rounded(_max_reference),
    grad=lambda g, out, x, **how: (
        window_max_input.run(
            g, window_which.run(x, **how), sizes=_cut(tuple(x.shape), len(how["kernel"]), how["trailing"])[1], **how
        ),
    ),
    dtypes=NUMERIC,
    samples=_plain(),
    bad=_MISFIT,
)

window_take: Op = _declare(
    "window_take",
    "The element of each window that `which` says.  [..., *sizes, ...], uint8 [..., *places, ...] -> [..., *places, ...].",
    2,
    _ATTRS,
    _take_rule,
    infer=_pooled(None),
    reference=_take_reference,
    grad=lambda g, out, x, which, **how: (
        window_max_input.run(g, which, sizes=_cut(tuple(x.shape), len(how["kernel"]), how["trailing"])[1], **how),
        None,
    ),
    dtypes=FLOATING,
    samples=tuple(call(fill(*s), _indices(s, how), *how) for s, how in (_SAMPLES[0], _SAMPLES[4])),
    bad=(Bad((fill(4), fill(3), (2,), (2,), (2,), (0,), (1,), 0), RuntimeError, "window_take: the windows of"),),
)

window_max_input: Op = _declare(
    "window_max_input",
    "The gradient of `window_max`'s input of `sizes`: to each element what the windows have whose first largest it is, in order.  "
    "[..., *places, ...], uint8 [..., *places, ...] -> [..., *sizes, ...].",
    2,
    ("sizes", *_ATTRS),
    _input_rule,
    infer=_input_infer,
    reference=rounded(_input_reference),
    grad=lambda gg, out, g, which, sizes, **how: (window_take.run(gg, which, **how), None),
    dtypes=FLOATING,
    samples=tuple(call(fill(*_windowed(s, how)), _indices(s, how), _cut(s, len(how[1]), how[-1])[1], *how) for s, how in _SAMPLES),
    bad=(Bad((fill(2), fill(2), (4,), (2,), (2,), (2,), (0,), (1,), 0), RuntimeError, "window_max_input: .* are not of windows"),),
)
