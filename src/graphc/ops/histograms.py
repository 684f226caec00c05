"""How many elements, or how much of their weights, lie in each bin.

Enters: floating tensors.  Leaves: operators that run on the host.  Never here: how often each element occurs (`counting`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dims import Dim
from graphc.dtypes import float32, float64, int64
from graphc.ir.op import Bad, Host, Op, TensorType
from graphc.ops.arguments import is_tensor, number, of_type, tensor
from graphc.ops.declare import FLOATING, Routed, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.sorting import comparable

# ---- histograms ----------------------------------------------------------------------------------------------------


def _limits(name: str, x: Any, low: float, high: float, growth: float) -> tuple[float, float]:
    """The range of the bins: the data's where none is given, grown both ways where it is one number.  Raises RuntimeError."""
    if low == high:
        low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 1.0)
    if not np.isfinite(low) or not np.isfinite(high):
        raise RuntimeError(f"{name}: range of [{low}, {high}] is not finite")
    return (low - growth, high + growth) if low == high else (low, high)


def _histc_prepare(x: Any, bins: Any = 100, min: Any = 0, max: Any = 0) -> Prepared:
    x = tensor("histc", "input", x)
    if not isinstance(bins, int) or isinstance(bins, Dim) or bins <= 0:
        raise RuntimeError(f"histc: bins must be > 0, got {bins}")
    low, high = number("histc", "min", min), number("histc", "max", max)
    if low > high:
        raise RuntimeError(f"histc: max must be larger than min, got {low} and {high}")
    if x.dtype.kind not in "f":
        raise RuntimeError(f"histc: not implemented for {x.dtype} tensors")
    return (x,), {"bins": bins, "low": float(low), "high": float(high)}


def _histc_reference(xp: Any, x: Any, bins: int, low: float, high: float) -> Any:
    flat = comparable(x).reshape(-1)
    low, high = _limits("histc", flat, low, high, 1.0)
    inside = flat[(flat >= low) & (flat <= high)]
    scaled = (inside - flat.dtype.type(low)) / flat.dtype.type(high - low) * bins
    places = np.minimum(scaled.astype(np.int64), bins - 1)
    return np.bincount(places, minlength=bins).astype(x.dtype)


histc = Op(
    "histc",
    doc="How many elements lie in each of equal bins between min and max (of the data, where both are equal).  [...] -> [bins].",
    signature="(x, bins=100, min=0, max=0)",
    prepare=_histc_prepare,
    infer=lambda x, bins, low, high: TensorType(x.dtype, (bins,)),
    reference=_histc_reference,
    grad=None,
    lowering=Host(),
    attrs=("bins", "low", "high"),
    dtypes=FLOATING,
    samples=(call(fill(3, 4), 5), call(fill(33), 7, -1, 1), call(fill(0), 3), call(fill(), 2)),
    bad=(
        Bad((fill(3), 0), RuntimeError, "histc: bins must be > 0"),
        Bad((fill(3), 3, 2, 1), RuntimeError, "histc: max must be larger than min"),
        Bad((fill(3, dtype=int64),), RuntimeError, "histc: not implemented for"),
    ),
)


def _edges_prepare(
    x: Any, bins: Any, *, range: Any = None, weight: Any = None, density: bool = False
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x = tensor("histogram", "input", x)
    if x.dtype not in (float32, float64):
        raise RuntimeError(f"histogram: not implemented for {x.dtype} tensors")
    inputs = [x]
    if is_tensor(bins):
        if bins.dtype is not x.dtype or bins.ndim != 1 or range is not None:
            raise RuntimeError(f"histogram: bins must be a vector of the dtype of input, and no range given: {of_type(bins)}")
        inputs.append(bins)
    elif not isinstance(bins, int) or bins < 1:
        raise RuntimeError(f"histogram: bins must be > 0, got {bins}")
    if weight is not None:
        if tuple(tensor("histogram", "weight", weight).shape) != tuple(x.shape) or weight.dtype is not x.dtype:
            raise RuntimeError(f"histogram: weight must be of the type of input {of_type(x)}, got {of_type(weight)}")
        inputs.append(weight)
    low, high = (0.0, 0.0) if range is None else range
    if low > high:
        raise RuntimeError(f"histogram: min should not exceed max, got {low} and {high}")
    how = {"bins": 0 if is_tensor(bins) else bins, "low": float(low), "high": float(high)}
    return tuple(inputs), {**how, "weighted": weight is not None, "density": bool(density)}


def _histogram_infer(x: TensorType, *more: TensorType, bins: int, low: float, high: float, weighted: bool, density: bool) -> Any:
    count = bins + 1 if bins else more[0].shape[0]
    return TensorType(x.dtype, (count - 1,)), TensorType(x.dtype, (count,))


def _histogram_reference(
    xp: Any, x: Any, *more: Any, bins: int, low: float, high: float, weighted: bool, density: bool
) -> tuple[Any, Any]:
    flat = x.reshape(-1)
    if bins:
        low, high = _limits("histogram", flat, low, high, 0.5)
        edges = np.linspace(low, high, bins + 1, dtype=x.dtype)
    else:
        edges = more[0]
    weights = more[-1].reshape(-1) if weighted else np.ones(flat.shape, x.dtype)
    inside = (flat >= edges[0]) & (flat <= edges[-1])
    places = np.minimum(np.searchsorted(edges, flat[inside], side="right") - 1, len(edges) - 2)
    found = np.zeros(len(edges) - 1, x.dtype)
    np.add.at(found, places, weights[inside])
    return (found / (found.sum() * np.diff(edges)) if density else found).astype(x.dtype), edges


histogram = Op(
    "histogram",
    doc="Sums of weights (or numbers of elements) in bins, and the bins' edges; `bins` is a number of equal bins or the edges.  "
    "[...] -> [bins], [bins + 1].",
    signature="(x, bins, *, range=None, weight=None, density=False)",
    prepare=_edges_prepare,
    infer=_histogram_infer,
    reference=_histogram_reference,
    grad=None,
    lowering=Host(),
    attrs=("bins", "low", "high", "weighted", "density"),
    dtypes=(float32, float64),
    samples=(call(fill(3, 4), 5), call(fill(33), 7, range=(-1.0, 1.0), density=True), call(fill(3), 2, weight=fill(3))),
    bad=(
        Bad((fill(3), 0), RuntimeError, "histogram: bins must be > 0"),
        Bad((fill(3, dtype=int64), 3), RuntimeError, "histogram: not implemented for"),
    ),
)


def _grid_prepare(x: Any, bins: Any, *, range: Any = None, weight: Any = None, density: bool = False) -> Prepared:
    x = tensor("histogramdd", "input", x)
    if x.ndim < 2 or x.dtype not in (float32, float64):
        raise RuntimeError(f"histogramdd: input tensor should have at least 2 dimensions and be float or double, got {of_type(x)}")
    rank = x.shape[-1]
    bins = (bins,) * int(rank) if isinstance(bins, int) else tuple(bins)
    if len(bins) != rank:
        raise RuntimeError(
            f"histogramdd: expected {rank} sequences of bin edges for a {rank}-dimensional histogram, got {len(bins)}"
        )
    edges = [b for b in bins if is_tensor(b)]
    if edges and (len(edges) != len(bins) or any(b.dtype is not x.dtype or b.ndim != 1 for b in edges)):
        raise RuntimeError("histogramdd: bins must be numbers, or vectors of the dtype of input")
    if weight is not None and (tuple(weight.shape) != tuple(x.shape[:-1]) or weight.dtype is not x.dtype):
        raise RuntimeError(f"histogramdd: weight {of_type(weight)} does not fit input {of_type(x)}")
    limits = (0.0,) * (2 * len(bins)) if range is None else tuple(map(float, range))
    if len(limits) != 2 * len(bins):
        raise RuntimeError(
            f"histogramdd: for a {rank}-dimensional histogram range should have {2 * len(bins)} elements, got {limits}"
        )
    counts = () if edges else bins
    inputs = (x, *edges, *(() if weight is None else (weight,)))
    return inputs, {"bins": counts, "limits": limits, "weighted": weight is not None, "density": bool(density)}


def _grid_infer(x: TensorType, *more: TensorType, bins: Any, limits: Any, weighted: bool, density: bool) -> Any:
    edges = more[: len(more) - weighted]
    sizes = tuple(n + 1 for n in bins) or tuple(e.shape[0] for e in edges)
    return TensorType(x.dtype, tuple(n - 1 for n in sizes)), *(TensorType(x.dtype, (n,)) for n in sizes)


def _grid_reference(xp: Any, x: Any, *more: Any, bins: Any, limits: Any, weighted: bool, density: bool) -> tuple[Any, ...]:
    points = x.reshape(-1, x.shape[-1])
    edges = list(more[: len(more) - weighted])
    for k, count in enumerate(bins):
        low, high = _limits("histogramdd", points[:, k], limits[2 * k], limits[2 * k + 1], 0.5)
        edges.append(np.linspace(low, high, count + 1, dtype=x.dtype))
    weights = more[-1].reshape(-1) if weighted else np.ones(len(points), x.dtype)
    found = np.zeros([len(e) - 1 for e in edges], x.dtype)
    inside = np.ones(len(points), bool)
    places = []
    for k, e in enumerate(edges):
        inside &= (points[:, k] >= e[0]) & (points[:, k] <= e[-1])
        places.append(np.clip(np.searchsorted(e, points[:, k], side="right") - 1, 0, len(e) - 2))
    np.add.at(found, tuple(p[inside] for p in places), weights[inside])
    if density:
        found = found / found.sum()
        for k, e in enumerate(edges):
            found = found / np.diff(e).reshape([-1 if d == k else 1 for d in range(len(edges))])
    return found.astype(x.dtype), *edges


def _grid_route(op: Op, *args: Any, **kwargs: Any) -> tuple[Any, tuple[Any, ...]]:
    inputs, attrs = op.prepare(*args, **kwargs)
    found, *edges = op.run(*inputs, **attrs)
    return found, tuple(edges)


histogramdd = Routed(
    "histogramdd",
    doc="Sums of weights (or numbers of points) in the cells of a grid, and the edges along each dim.  [..., d] -> [bins ...], "
    "d of [bins + 1].",
    signature="(x, bins, *, range=None, weight=None, density=False)",
    route=_grid_route,
    prepare=_grid_prepare,
    infer=_grid_infer,
    reference=_grid_reference,
    grad=None,
    lowering=Host(),
    attrs=("bins", "limits", "weighted", "density"),
    dtypes=(float32, float64),
    samples=(call(fill(9, 2), (3, 2)), call(fill(33, 1), 4, range=(-1.0, 1.0), density=True), call(fill(5, 2), 2, weight=fill(5))),
    bad=(Bad((fill(3), 2), RuntimeError, "histogramdd: input tensor should have at least 2 dimensions"),),
    methods=(),
)
