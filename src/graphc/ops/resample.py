"""One dim of a tensor sampled anew: nearest, linear, cubic, the mean of an area, and the filters that avoid aliasing.

Enters: floating tensors and canonical attributes.  Leaves: `resample` and its adjoint.  Never here: PyTorch's arguments
(`interpolation`, `adaptive_pooling`).

Every result is a weighted sum of few neighbours.  Each rule is written once, over `_Exprs` for kernels and `_Arrays` for
references and for finding out, before a kernel is made, how many neighbours there are.  Source of the cubic: Keys, "Cubic
convolution interpolation for digital image processing" (1981), with A = -0.75, and -0.5 where aliasing is avoided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from graphc.dims import Dim
from graphc.dtypes import DType, float32, float64, int64
from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Composite, Element, Op, TensorType
from graphc.ops.arguments import in_compute_dtype, rounded, tensor
from graphc.ops.arithmetic import div
from graphc.ops.declare import FLOATING, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import clamped, converted
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import size as size_value
from graphc.ops.movement import Index, reshape
from graphc.ops.reduce import reduce_sum
from graphc.ops.windows import fixed

UNROLLED = 16  # neighbours up to which the sum is written out in the expression of the result
MODES = ("nearest", "nearest-exact", "linear", "cubic", "area", "linear-aa", "cubic-aa", "linear-bytes", "cubic-bytes")
_FEW = {"nearest": 1, "nearest-exact": 1, "linear": 2, "cubic": 4, "linear-bytes": 2, "cubic-bytes": 4}


@dataclass(frozen=True)
class Sampling:
    """How a dim of `source` elements becomes one of `target`.  factor: what the user says each element grows to, or None."""

    mode: str
    source: int
    target: int
    align: bool
    factor: float | None

    @property
    def scale(self) -> float:
        """The distance of two results in the source."""
        if self.align:
            return (self.source - 1) / (self.target - 1) if self.target > 1 else 0.0
        return 1.0 / self.factor if self.factor else self.source / self.target


class _Exprs:
    """The rules' arithmetic as expressions of the loop IR."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype

    def number(self, value: float) -> Expr:
        return literal(value, self.dtype)

    def integer(self, value: Any) -> Expr:
        return size_value(value) if isinstance(value, int | Dim) else value

    def real(self, value: Any) -> Expr:
        return converted(self.integer(value), self.dtype)

    def whole(self, value: Expr) -> Expr:
        return converted(fn("floor", value), int64)

    def __call__(self, name: str, *args: Any) -> Expr:
        return fn(name, *args)


class _Arrays:
    """The same arithmetic on NumPy arrays."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype.numpy

    def number(self, value: float) -> Any:
        return np.asarray(value, self.dtype)

    def integer(self, value: Any) -> Any:
        return np.asarray(value, np.int64)

    def real(self, value: Any) -> Any:
        return np.asarray(value).astype(self.dtype)

    def whole(self, value: Any) -> Any:
        return np.floor(value).astype(np.int64)

    def __call__(self, name: str, *args: Any) -> Any:
        return _NUMPY[name](*args)


_NUMPY: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "abs": np.abs, "min": np.minimum, "max": np.maximum, "floor": np.floor,
    "select": np.where, "lt": np.less, "le": np.less_equal, "ge": np.greater_equal, "eq": np.equal, "and": np.logical_and,
}  # fmt: skip

# ---- which neighbours, with what weights -------------------------------------------------------------------------------


def _position(do: Any, how: Sampling, o: Any, clip: bool) -> Any:
    """Where result o lies in the source."""
    scale = do.number(how.scale)
    if how.align:
        return do("mul", scale, do.real(o))
    at = do("sub", do("mul", scale, do("add", do.real(o), do.number(0.5))), do.number(0.5))
    return do("max", at, do.number(0.0)) if clip else at


def _inside(do: Any, index: Any, how: Sampling) -> Any:
    return do("max", do("min", index, do.integer(how.source - 1)), do.integer(0))


def _tap(do: Any, how: Sampling, o: Any, t: int) -> tuple[Any, Any]:
    """The t-th neighbour of result o and its weight, of the modes that have a fixed number of neighbours."""
    if how.mode.startswith("nearest"):
        at = do.real(o) if how.mode == "nearest" else do("add", do.real(o), do.number(0.5))
        return _inside(do, do.whole(do("mul", at, do.number(how.scale))), how), do.number(1.0)
    if how.mode.endswith("bytes"):
        return _byte_tap(do, how, o, t)
    return (_linear if how.mode == "linear" else _cubic)(do, how, o, t)


def _between(do: Any, how: Sampling, o: Any, clip: bool) -> tuple[Any, Any]:
    """(the element before result o, how far behind it the result lies)."""
    at = _position(do, how, o, clip)
    first = do("min", do.whole(at), do.integer(how.source - 1))
    return first, do("min", do("max", do("sub", at, do.real(first)), do.number(0.0)), do.number(1.0))


def _linear(do: Any, how: Sampling, o: Any, t: int) -> tuple[Any, Any]:
    first, part = _between(do, how, o, True)
    return _inside(do, do("add", first, do.integer(t)), how), part if t else do("sub", do.number(1.0), part)


def _cubic(do: Any, how: Sampling, o: Any, t: int) -> tuple[Any, Any]:
    first, part = _between(do, how, o, False)
    distance = do("add", part, do.number(1.0 - t)) if t < 2 else do("add", do("sub", do.number(1.0), part), do.number(t - 2.0))
    return _inside(do, do("add", first, do.integer(t - 1)), how), _keys(do, distance, -0.75, t in (1, 2))


def _byte_tap(do: Any, how: Sampling, o: Any, t: int) -> tuple[Any, Any]:
    """As PyTorch has it for bytes: a neighbour's whole weight is rounded to binary places, halves away from zero."""
    plain = replace(how, mode=how.mode.removesuffix("-bytes"))
    index, _ = _tap(do, plain, o, t)
    weight, zero, bits = _weight(do, plain, o, index), do.number(0.0), _weight_bits(how)
    size = do("floor", do("add", do("mul", do("abs", weight), do.number(2.0**bits)), do.number(0.5)))
    size = do("mul", size, do.number(0.5**bits))
    weight = do("select", do("lt", weight, zero), do("sub", zero, size), size)
    for earlier in range(t):
        weight = do("select", do("eq", _tap(do, plain, o, earlier)[0], index), zero, weight)
    return index, weight


@lru_cache(maxsize=1024)
def _weight_bits(how: Sampling) -> int:
    """Binary places with which the largest weight still fits 16 bits with its sign."""
    plain = replace(how, mode=how.mode.removesuffix("-bytes"))
    largest = float(np.max(_table(plain, float64)))
    return next((bits for bits in range(22) if int(0.5 + largest * (1 << (bits + 1))) >= 1 << 15), 22)


def _keys(do: Any, x: Any, a: float, near: bool) -> Any:
    """Keys' cubic at distance x, below 1 where `near`, else in 1 .. 2."""
    if near:
        inner = do("sub", do("mul", do.number(a + 2.0), x), do.number(a + 3.0))
        return do("add", do("mul", do("mul", inner, x), x), do.number(1.0))
    inner = do("sub", do("mul", do.number(a), x), do.number(5.0 * a))
    inner = do("add", do("mul", inner, x), do.number(8.0 * a))
    return do("sub", do("mul", inner, x), do.number(4.0 * a))


def _span(do: Any, how: Sampling, o: Any) -> tuple[Any, Any]:
    """(first, how many) neighbours of result o, of the modes whose neighbours are a range."""
    if how.mode == "area":
        first = o * how.source // how.target
        return do.integer(first), do.integer(((o + 1) * how.source + how.target - 1) // how.target - first)
    reach = (1.0 if how.mode == "linear-aa" else 2.0) * max(how.scale, 1.0)
    centre = do("mul", do.number(how.scale), do("add", do.real(o), do.number(0.5)))
    low = do.whole(do("add", do("sub", centre, do.number(reach)), do.number(0.5)))
    high = do.whole(do("add", do("add", centre, do.number(reach)), do.number(0.5)))
    first = do("max", low, do.integer(0))
    return first, do("sub", do("min", high, do.integer(how.source)), first)


def _filter(do: Any, how: Sampling, o: Any, index: Any) -> Any:
    """The weight, not yet divided by the sum of weights, of element `index` in result o."""
    if how.mode == "area":
        return do.number(1.0)
    centre = do("mul", do.number(how.scale), do("add", do.real(o), do.number(0.5)))
    x = do("add", do("sub", do.real(index), centre), do.number(0.5))
    x = do("abs", do("mul", x, do.number(1.0 / max(how.scale, 1.0))))
    zero, one = do.number(0.0), do.number(1.0)
    if how.mode == "linear-aa":
        return do("select", do("lt", x, one), do("sub", one, x), zero)
    far = do("select", do("lt", x, do.number(2.0)), _keys(do, x, -0.5, False), zero)
    return do("select", do("lt", x, one), _keys(do, x, -0.5, True), far)


def _neighbour(do: Any, how: Sampling, o: Any, t: Any) -> tuple[Any, Any]:
    """The t-th neighbour of result o, and its weight: 0 beyond the last."""
    if how.mode in _FEW:
        return _tap(do, how, o, t)
    first, count = _span(do, how, o)
    index = _inside(do, do("add", first, do.integer(t)), how)
    weight = _filter(do, how, o, index)
    return index, do("select", do("lt", do.integer(t), count), weight, do.number(0.0))


def _weight(do: Any, how: Sampling, o: Any, i: Any) -> Any:
    """The weight of element i in result o."""
    zero = do.number(0.0)
    if how.mode not in _FEW:
        first, count = _span(do, how, o)
        place = do.integer(i)
        within = do("and", do("ge", place, first), do("lt", place, do("add", first, count)))
        return do("select", within, _filter(do, how, o, place), zero)
    total = None
    for t in range(_FEW[how.mode]):
        index, weight = _tap(do, how, o, t)
        weight = do("select", do("eq", index, do.integer(i)), weight, zero)
        total = weight if total is None else do("add", total, weight)
    return total


# ---- how many ----------------------------------------------------------------------------------------------------------


def _compute(dtype: DType) -> DType:
    return float64 if dtype is float64 else float32


@lru_cache(maxsize=1024)
def _neighbours(how: Sampling, dtype: DType) -> int:
    """How many neighbours a result has at most."""
    if how.mode in _FEW:
        return _FEW[how.mode]
    return max(1, int(np.max(_span(_Arrays(dtype), how, np.arange(how.target))[1], initial=1)))


@lru_cache(maxsize=1024)
def _readers(how: Sampling, dtype: DType) -> tuple[int, int]:
    """(slack, count): the results that element i is in are among i * target // source - slack and the `count` from there."""
    o = np.arange(how.target)
    low, high = np.full(how.source, how.target), np.full(how.source, -1)
    for t in range(_neighbours(how, dtype)):
        index, _ = _neighbour(_Arrays(dtype), how, o, t)
        np.minimum.at(low, index, o)
        np.maximum.at(high, index, o)
    used = high >= 0
    if not used.any():
        return 0, 1
    base = (np.arange(how.source) * how.target // how.source)[used]
    slack = int(np.max(base - low[used]))
    return slack, int(np.max(high[used] - base)) + slack + 1


def _table(how: Sampling, dtype: DType) -> Any:
    """All weights as a matrix [target, source], each row divided by its sum where it is a filter."""
    do, o = _Arrays(dtype), np.arange(how.target)
    matrix = np.zeros((how.target, how.source), do.dtype)
    for t in range(_neighbours(how, dtype)):
        index, weight = _neighbour(do, how, o, t)
        np.add.at(matrix, (o, np.broadcast_to(index, o.shape)), np.broadcast_to(weight, o.shape))
    return matrix if how.mode in _FEW else matrix / matrix.sum(axis=1, keepdims=True)


# ---- the sums ----------------------------------------------------------------------------------------------------------


def _how(mode: str, source: Any, target: Any, align: bool, factor: float | None) -> Sampling:
    source, target = fixed("resample", (source, target))
    return Sampling(mode, source, target, align, factor)


def _terms_infer(
    x: TensorType, dim: int, source: int, target: int, mode: str, align: bool, factor: float | None, back: bool
) -> TensorType:
    if not 0 <= dim < x.rank or x.shape[dim] != (target if back else source):
        raise RuntimeError(f"resample: dim {dim} of {x} does not have {target if back else source} elements")
    how = _how(mode, source, target, align, factor)
    count = _readers(how, _compute(x.dtype))[1] if back else _neighbours(how, _compute(x.dtype))
    size = source if back else target
    return TensorType(x.dtype, (*x.shape[:dim], size, *x.shape[dim + 1 :], *((count,) if count > UNROLLED else ())))


def _terms_rule(
    load: Any,
    index: Index,
    in_types: Sequence[TensorType],
    out_type: TensorType,
    dim: int,
    source: int,
    target: int,
    mode: str,
    align: bool,
    factor: float | None,
    back: bool,
) -> Expr:
    """One neighbour's share of a result, or their sum in order where they are few."""
    how, do = Sampling(mode, source, target, align, factor), _Exprs(out_type.dtype)
    here, rank = index[dim], in_types[0].rank

    def share(t: Any) -> Expr:
        if back:
            slack, _ = _readers(how, out_type.dtype)
            o = here * target // source - slack + t
            valid = do("and", do("ge", do.integer(o), do.integer(0)), do("lt", do.integer(o), do.integer(target)))
            weight = do("select", valid, _weight(do, how, o, here), do.number(0.0))
            place = clamped(load, do.integer(o), target)
        else:
            found, weight = _neighbour(do, how, here, t)
            place = clamped(load, found, source)
        value: Expr = load(0, (*index[:dim], place, *index[dim + 1 : rank]))
        return do("select", do("eq", weight, do.number(0.0)), do.number(0.0), do("mul", weight, value))

    if out_type.rank > rank:
        return share(index[-1])
    count = _readers(how, out_type.dtype)[1] if back else _neighbours(how, out_type.dtype)
    total = share(0)
    for t in range(1, count):
        total = load.let(do("add", total, share(t)))
    return total


_TERMS = ("dim", "source", "target", "mode", "align", "factor", "back")


def _terms_reference(
    xp: Any, x: Any, dim: int, source: int, target: int, mode: str, align: bool, factor: float | None, back: bool
) -> Any:
    how, dtype = Sampling(mode, source, target, align, factor), float64 if x.dtype == np.float64 else float32
    do = _Arrays(dtype)
    count = _readers(how, dtype)[1] if back else _neighbours(how, dtype)
    terms = []
    for t in range(count):
        if back:
            o = np.arange(source) * target // source - _readers(how, dtype)[0] + t
            index, weight = np.clip(o, 0, target - 1), _weight(do, how, o, np.arange(source))
            weight = np.where((o >= 0) & (o < target), weight, 0)
        else:
            index, weight = _neighbour(do, how, np.arange(target), t)
        size = source if back else target
        shape = tuple(size if k == dim else 1 for k in range(x.ndim))
        share = xp.take(x, np.broadcast_to(index, (size,)), axis=dim) * np.broadcast_to(weight, (size,)).reshape(shape)
        terms.append(share.astype(x.dtype))
    return np.stack(terms, axis=-1) if count > UNROLLED else np.sum(terms, axis=0, dtype=x.dtype)


def _attrs_prepare(name: str, attrs: tuple[str, ...]) -> Any:
    def prepare(x: Any, *given: Any) -> Prepared:
        return (tensor(name, "x", x),), dict(zip(attrs, given, strict=True))

    return prepare


_terms = Op(
    "resample_terms",
    doc="Shares of neighbours in what a dim is resampled to, or `back` from it: their sum where they are few.  [..., n, ...] -> "
    "[..., m, ...] or [..., m, ..., neighbours].",
    signature=f"(x, {', '.join(_TERMS)})",
    prepare=_attrs_prepare("resample_terms", _TERMS),
    infer=_terms_infer,
    reference=_terms_reference,
    grad=None,
    lowering=Element(_terms_rule),
    attrs=_TERMS,
    dtypes=(float32, float64),
    samples=(call(fill(2, 5, 3), 1, 5, 8, "linear", False, None, False), call(fill(2, 7), 1, 40, 7, "area", False, None, True)),
    bad=(Bad((fill(2, 5), 1, 6, 8, "linear", False, None, False), RuntimeError, "resample: dim 1 of .* does not have 6 elements"),),
    methods=(),
    functions=(),
)


def _summed(x: Any, **how: Any) -> Any:
    rank = x.ndim
    terms = _terms.run(x, **how)
    return reduce_sum.run(terms, dim=rank) if terms.ndim > rank else terms


def _divided(x: Any, dim: int, source: int, target: int, mode: str, align: bool, factor: float | None) -> Any:
    """x, of which `dim` has `target` elements, divided by each one's sum of weights, where that is not 1 anyway."""
    if mode in _FEW:
        return x
    ones = Op.table["full"].run(value=1, shape=(source,), dtype=x.dtype)
    sums = _summed(ones, dim=0, source=source, target=target, mode=mode, align=align, factor=factor, back=False)
    return div.run(x, reshape.run(sums, shape=(target, *(1,) * (x.ndim - 1 - dim))))


def _resample(x: Any, dim: int, size: int, mode: str, align: bool, factor: float | None) -> Any:
    how: dict[str, Any] = {"dim": dim, "source": int(x.shape[dim]), "target": size, "mode": mode, "align": align, "factor": factor}
    return _divided(_summed(x, **how, back=False), **how)


def _resample_input(g: Any, dim: int, size: int, mode: str, align: bool, factor: float | None) -> Any:
    how: dict[str, Any] = {"dim": dim, "source": size, "target": int(g.shape[dim]), "mode": mode, "align": align, "factor": factor}
    return _summed(_divided(g, **how), **how, back=True)


def _infer(x: TensorType, dim: int, size: int, mode: str, align: bool, factor: float | None) -> TensorType:
    if mode not in MODES or not 0 <= dim < x.rank or 0 in fixed("resample", (x.shape[dim], size)):
        raise RuntimeError(f"resample: dim {dim} of {x} cannot be resampled to {size} by {mode!r}")
    return TensorType(x.dtype, (*x.shape[:dim], size, *x.shape[dim + 1 :]))


def _by_matrix(back: bool) -> Any:
    def reference(xp: Any, x: Any, dim: int, size: int, mode: str, align: bool, factor: float | None) -> Any:
        source, target = (size, x.shape[dim]) if back else (x.shape[dim], size)
        matrix = _table(Sampling(mode, source, target, align, factor), float64 if x.dtype == np.float64 else float32)
        matrix = matrix if back else matrix.T
        return xp.moveaxis(xp.moveaxis(x, dim, -1) @ matrix.astype(x.dtype), -1, dim)

    return rounded(reference)


_SAMPLES: tuple[tuple[tuple[int, ...], tuple[Any, ...]], ...] = (
    ((2, 5, 3), (1, 8, "linear", False, None)),
    ((2, 5), (1, 3, "linear", True, None)),
    ((3, 5), (0, 7, "nearest", False, None)),
    ((2, 6), (1, 9, "cubic", False, 1.6)),
    ((2, 7, 2), (1, 3, "area", False, None)),
    ((2, 40), (1, 2, "area", False, None)),
    ((2, 9), (1, 4, "cubic-aa", False, None)),
    ((2, 4), (1, 9, "linear-aa", False, None)),
)


def _declare(name: str, doc: str, rule: Any, grad: Any, back: bool) -> Op:
    samples = [(s, h) if not back else ((*s[: h[0]], h[1], *s[h[0] + 1 :]), (h[0], s[h[0]], *h[2:])) for s, h in _SAMPLES]
    return Op(
        name,
        doc=doc,
        signature="(x, dim, size, mode, align, factor)",
        prepare=_attrs_prepare(name, ("dim", "size", "mode", "align", "factor")),
        infer=_infer,
        reference=_by_matrix(back),
        grad=grad,
        lowering=Composite(in_compute_dtype(rule)),
        attrs=("dim", "size", "mode", "align", "factor"),
        dtypes=FLOATING,
        samples=tuple(call(fill(*shape), *how) for shape, how in samples),
        bad=(Bad((fill(2, 5), 1, 6, "square", False, None), RuntimeError, "resample: dim 1 of .* cannot be resampled"),),
        methods=(),
        functions=(),
    )


resample: Op = _declare(
    "resample",
    "A dim sampled at `size` places.  [..., n, ...] -> [..., size, ...].",
    _resample,
    lambda g, out, x, dim, size, **how: (resample_input.run(g, dim=dim, size=x.shape[dim], **how),),
    False,
)
resample_input: Op = _declare(
    "resample_input",
    "The gradient of resample's input, whose dim has `size` elements.  [..., n, ...] -> [..., size, ...].",
    _resample_input,
    lambda gg, out, g, dim, size, **how: (resample.run(gg, dim=dim, size=g.shape[dim], **how),),
    True,
)
