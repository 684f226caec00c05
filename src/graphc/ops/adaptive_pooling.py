"""Pooling to a given size: windows that begin at floor(i * n / m) and end before ceil((i + 1) * n / m).

Enters: tensors [N, C, *sizes] or [C, *sizes], and PyTorch's arguments.  Leaves: operators.
Never here: windows of one size (`pooling`), which serve where the given size divides the tensor's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dims import minimum
from graphc.dtypes import DType, int64
from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Composite, Element, Movement, Op, Size, TensorType
from graphc.ops.arguments import constant, gradient_in_compute_dtype, of_type, one_size, rounded, tensor, zeros_like
from graphc.ops.declare import EVERY, FLOATING, NUMERIC, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import size as size_value
from graphc.ops.movement import Index
from graphc.ops.pooling import avg_pool, first_largest, max_pool, max_pool_indices, put_at
from graphc.ops.reduce import reduce_max
from graphc.ops.resample import resample
from graphc.ops.windows import Ints, fixed


def _widest(size: int, target: int) -> int:
    """How many elements the widest window has."""
    i = np.arange(target)
    return int(np.max(-(-(i + 1) * size // target) - i * size // target, initial=1))


def _element(i: Any, k: Any, size: Any, target: int, low: Any) -> Any:
    """The k-th element of window i; beyond its last, the last again."""
    return low(i * size // target + k, ((i + 1) * size + target - 1) // target - 1)


def _kernel(sizes: Sequence[Size], targets: Ints) -> Ints:
    """The widest window of each dim.  Raises RuntimeError unless there is a target for each."""
    if len(sizes) != len(targets):
        raise RuntimeError(f"adaptive_pool: {len(targets)} targets do not fit sizes {list(sizes)}")
    return tuple(map(_widest, fixed("adaptive_pool", sizes), targets))


def _elements(index: Index, sizes: Sequence[Size], targets: Ints, low: Any) -> tuple[Size, ...]:
    """Where each dim of a window's element stands; the last index counts the elements of a window."""
    rest = index[-1]
    kernel = _kernel(sizes, targets)
    within: list[Size] = []
    for k in reversed(range(len(kernel))):
        within.insert(0, rest % kernel[k] if k else rest)
        rest = rest // kernel[k]
    return tuple(_element(i, k, s, t, low) for i, k, s, t in zip(index[:-1], within, sizes, targets, strict=True))


def _windows_infer(x: TensorType, targets: Ints) -> TensorType:
    lead = max(0, x.rank - len(targets))
    return TensorType(x.dtype, (*x.shape[:lead], *targets, math.prod(_kernel(x.shape[lead:], targets))))


def _windows_index(index: Index, in_type: TensorType, out_type: TensorType, targets: Ints) -> Index:
    lead = in_type.rank - len(targets)
    return (*index[:lead], *_elements(index[lead:], in_type.shape[lead:], targets, minimum))


def _windows_reference(xp: Any, x: Any, targets: Ints) -> Any:
    lead = x.ndim - len(targets)
    kernel = _kernel(x.shape[lead:], targets)
    for dim, (target, k) in enumerate(zip(targets, kernel, strict=True)):
        places = _element(xp.arange(target)[:, None], xp.arange(k), x.shape[lead + 2 * dim], target, xp.minimum)
        x = xp.take(x, places, axis=lead + 2 * dim)
    n = len(targets)
    order = (*range(lead), *range(lead, lead + 2 * n, 2), *range(lead + 1, lead + 2 * n, 2))
    return x.transpose(order).reshape(*x.shape[:lead], *targets, math.prod(kernel))


_MISFIT = (Bad((fill(3), (2, 2)), RuntimeError, "2 targets do not fit sizes"),)

adaptive_windows = Op(
    "adaptive_windows",
    doc="The elements of windows that share the last dims out among `targets` places; short windows repeat their last.  "
    "[..., *sizes] -> [..., *targets, elements].",
    signature="(x, targets)",
    prepare=lambda x, targets: ((tensor("adaptive_windows", "x", x),), {"targets": tuple(targets)}),
    infer=_windows_infer,
    reference=_windows_reference,
    grad=None,
    lowering=Movement(_windows_index),
    attrs=("targets",),
    dtypes=EVERY,
    samples=(call(fill(2, 7), (3,)), call(fill(5, 6), (2, 9)), call(fill(2, 4, 3, 5), (3, 2, 2))),
    bad=_MISFIT,
    methods=(),
    functions=(),
)


def _positions_rule(
    load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, sizes: Ints, targets: Ints
) -> Expr:
    position: Size = 0
    for at, size in zip(_elements(index, sizes, targets, minimum), sizes, strict=True):
        position = position * size + at
    return size_value(position)


def _positions_prepare(sizes: Any, targets: Any) -> Prepared:
    return (), {"sizes": tuple(sizes), "targets": tuple(targets)}


adaptive_positions = Op(
    "adaptive_positions",
    doc="Where the elements of adaptive windows stand, in row-major order.  -> int64 [*targets, elements].",
    signature="(sizes, targets)",
    prepare=_positions_prepare,
    infer=lambda sizes, targets: TensorType(int64, (*targets, math.prod(_kernel(sizes, targets)))),
    reference=lambda xp, sizes, targets: _windows_reference(
        xp, xp.arange(math.prod(sizes), dtype=np.int64).reshape(sizes), targets
    ),
    grad=None,
    lowering=Element(_positions_rule),
    attrs=("sizes", "targets"),
    dtypes=(int64,),
    samples=(call((5, 6), (2, 9)),),
    bad=(Bad(((5,), (2, 9)), RuntimeError, "2 targets do not fit sizes"),),
    methods=(),
    functions=(),
)

# ---- largest -----------------------------------------------------------------------------------------------------------


def _largest(x: Any, targets: Ints) -> Any:
    view = adaptive_windows.run(x, targets=targets)
    return reduce_max.run(view, dim=view.ndim - 1)


def _largest_indices(x: Any, targets: Ints) -> Any:
    sizes = fixed("adaptive_max_pool", x.shape[x.ndim - len(targets) :])
    view = adaptive_windows.run(x, targets=targets)
    return first_largest(view, adaptive_positions.run(sizes=sizes, targets=targets), math.prod(sizes))


def _indices_reference(xp: Any, x: Any, targets: Ints) -> Any:
    sizes = x.shape[x.ndim - len(targets) :]
    view = _windows_reference(xp, x, targets)
    hit = (view == view.max(axis=-1, keepdims=True)) | (view != view)
    return xp.where(hit, adaptive_positions.reference(xp, sizes, targets), math.prod(sizes)).min(axis=-1)


def _largest_grad(g: Any, out: Any, x: Any, targets: Ints) -> tuple[Any]:
    if 0 in g.shape:
        return (zeros_like(x),)
    return (put_at(g, adaptive_max_indices.run(x, targets=targets), x, len(targets)),)


def _declare(name: str, doc: str, rule: Any, result: DType | None, reference: Any, grad: Any) -> Op:
    return Op(
        name,
        doc=doc,
        signature="(x, targets)",
        prepare=lambda x, targets: ((tensor(name, "x", x),), {"targets": tuple(targets)}),
        infer=lambda x, targets: TensorType(result or x.dtype, _windows_infer(x, targets).shape[:-1]),
        reference=reference,
        grad=grad,
        lowering=Composite(rule),
        attrs=("targets",),
        dtypes=NUMERIC,
        samples=(call(fill(2, 7), (3,)), call(fill(5, 6), (2, 9)), call(fill(2, 4, 3, 5), (3, 2, 2))),
        bad=_MISFIT,
        methods=(),
        functions=(),
    )


adaptive_max: Op = _declare(
    "adaptive_max",
    "The largest element of each adaptive window, NaN if any is.  [..., *sizes] -> [..., *targets].",
    _largest,
    None,
    rounded(lambda xp, x, targets: _windows_reference(xp, x, targets).max(axis=-1)),
    gradient_in_compute_dtype(_largest_grad),
)
adaptive_max_indices = _declare(
    "adaptive_max_indices",
    "Where the first largest element of each adaptive window stands, in row-major order.  [..., *sizes] -> int64 [..., *targets].",
    _largest_indices,
    int64,
    _indices_reference,
    None,
)

# ---- PyTorch's names ---------------------------------------------------------------------------------------------------


def _targets(name: str, input: Any, output_size: Any, n: int) -> tuple[Any, Ints]:
    """(input, size of every dim; None keeps one).  Raises TypeError or RuntimeError."""
    x = tensor(name, "input", input)
    if n > 1 and isinstance(output_size, tuple | list) and x.ndim <= len(output_size):
        raise ValueError(f"{name}: input dimension should be at least {len(output_size) + 1}, got {of_type(x)}")
    if x.ndim not in (n + 1, n + 2) or 0 in fixed(name, x.shape[x.ndim - n :]):
        raise RuntimeError(f"{name}: expected a {n + 1}D or {n + 2}D input with non-empty spatial dims, got {of_type(x)}")
    given = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size,) * n
    if len(given) != n:
        raise RuntimeError(f"{name}: output_size must be one int or {n}, got {list(given)}")
    sizes = x.shape[x.ndim - n :]
    targets = tuple(s if t is None else one_size(name, "output_size", t) for t, s in zip(given, sizes, strict=True))
    if any(t < 0 or t >= 1 << 62 for t in fixed(name, targets)):
        raise RuntimeError(f"{name}: elements of output_size must be greater than or equal to 0, got {list(given)}")
    return x, fixed(name, targets)


def _even(x: Any, targets: Ints) -> Ints | None:
    """The size of all windows where every target divides its size."""
    sizes = fixed("adaptive_pool", x.shape[x.ndim - len(targets) :])
    if any(s % t for s, t in zip(sizes, targets, strict=True)):
        return None
    return tuple(s // t for s, t in zip(sizes, targets, strict=True))


def _avg(name: str, n: int) -> Any:
    def pooled(input: Any, output_size: Any) -> Any:
        x, targets = _targets(name, input, output_size, n)
        if 0 in targets:
            return constant(0, x.dtype, (*x.shape[: x.ndim - n], *targets))
        kernel = _even(x, targets)
        if kernel is not None:
            how = {"padding": (0,) * n, "ceil": False, "include_pad": True, "divisor": None}
            return avg_pool.run(x, kernel=kernel, stride=kernel, **how)
        for dim, target in enumerate(targets, start=x.ndim - n):
            if target != x.shape[dim]:
                x = resample.run(x, dim=dim, size=target, mode="area", align=False, factor=None)
        return x

    return pooled


def _max(name: str, n: int, with_indices: bool) -> Any:
    def both(input: Any, output_size: Any) -> Any:
        return pooled(input, output_size, True)

    def pooled(input: Any, output_size: Any, return_indices: Any = False) -> Any:
        x, targets = _targets(name, input, output_size, n)
        kernel = None if 0 in targets else _even(x, targets)
        if kernel is not None:
            ones, none = (1,) * n, (0,) * n
            how: dict[str, Any] = {"kernel": kernel, "stride": kernel, "padding": none, "dilation": ones, "ceil": False}
            best, where = max_pool, max_pool_indices
        else:
            how, best, where = {"targets": targets}, adaptive_max, adaptive_max_indices
        if 0 in targets:
            empty = (*x.shape[: x.ndim - n], *targets)
            values, indices = constant(0, x.dtype, empty), constant(0, int64, empty)
            return (values, indices) if return_indices else values
        values = best.run(x, **how)
        return (values, where.run(x, **how)) if return_indices else values

    return both if with_indices else pooled


def _public(name: str, n: int, doc: str, rule: Any, samples: Any, functions: tuple[str, ...]) -> Shorthand:
    shape = (2, 6, 5, 7)[: n + 1]
    return Shorthand(
        name,
        doc=doc,
        rule=rule,
        reference=None,
        dtypes=FLOATING,
        samples=(call(fill(*shape), 3), call(fill(2, *shape), (2,) * n), *samples(shape)),
        bad=(
            Bad((fill(2), 2), RuntimeError, f"{name}: expected a {n + 1}D or {n + 2}D input"),
            Bad((fill(2, *shape), (1,) * (n + 1)), RuntimeError, f"{name}: output_size must be one int or {n}"),
            Bad((fill(*shape), -1), RuntimeError, f"{name}: elements of output_size"),
        ),
        methods=(),
        functions=functions,
        autocast="float32" if n == 3 else None,
    )


def _averages(n: int) -> Shorthand:
    name = f"adaptive_avg_pool{n}d"
    doc = f"Means of windows that share {n} dims out among output_size places; None keeps a dim.  [N, C, ...] -> [N, C, ...]."
    functions = (*((name,) if n == 1 else ()), f"nn.functional.{name}")
    return _public(name, n, doc, _avg(name, n), lambda shape: (call(fill(*shape), (None,) * n),), functions)


def _maxima(n: int, with_indices: bool) -> Shorthand:
    name = f"adaptive_max_pool{n}d" + ("_with_indices" if with_indices else "")
    doc = f"Largest elements of windows that share {n} dims out among output_size places{', and where they are' * with_indices}.  "
    functions = (*((name,) if n == 1 and not with_indices else ()), f"nn.functional.{name}")
    return _public(name, n, doc + "[N, C, ...] -> [N, C, ...].", _max(name, n, with_indices), lambda shape: (), functions)


adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = map(_averages, (1, 2, 3))
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = (_maxima(n, False) for n in (1, 2, 3))
adaptive_max_pool1d_with_indices, adaptive_max_pool2d_with_indices, adaptive_max_pool3d_with_indices = (
    _maxima(n, True) for n in (1, 2, 3)
)
