"""Where extrema are, and what is computed from several reductions: var, std, logsumexp.

Enters: tensors.  Leaves: operators.  Never here: the folds themselves (`reduce`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.dims import Dim, product
from graphc.dtypes import float64, int64
from graphc.ir.op import Bad, Composite, Op, TensorType
from graphc.ops.arguments import (
    cast,
    constant,
    floating,
    gradient_in_compute_dtype,
    in_compute_dtype,
    is_tensor,
    is_zero,
    number,
    of_type,
    one_dim,
    ordered,
    require_floating,
    rounded,
    tensor,
)
from graphc.ops.arguments import dims as canonical_dims
from graphc.ops.arithmetic import add, div, kept, maximum, minimum, mul, sub
from graphc.ops.comparison import eq, isnan, logical_or, where
from graphc.ops.create import iota
from graphc.ops.declare import EVERY, FLOATING, Routed, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.movement import reshape, unsqueeze
from graphc.ops.reduce import (
    SHAPES,
    amax,
    amin,
    bad_dims,
    element_count,
    fold,
    folded_type,
    mean_of,
    put_back,
    reduce_max,
    reduce_min,
    reduce_sum,
    spread,
)
from graphc.ops.transcendental import exp, log, sqrt

# ---- where the extremum is -----------------------------------------------------------------------------------------


def positions(x: Any, dim: int) -> Any:
    """0..n-1 along `dim`, of size 1 elsewhere."""
    n = x.shape[dim]
    return reshape.run(iota.run(size=n, dtype=int64), shape=tuple(n if k == dim else 1 for k in range(x.ndim)))


def extremum_with_index(primitive: Op, x: Any, dim: int) -> tuple[Any, Any]:
    """(extremum, index of its first occurrence) along `dim`; NaN counts as the extremum."""
    best = primitive.run(x, dim=dim)
    hit = eq(x, spread(best, x, dim))
    if x.dtype.kind == "f":
        hit = logical_or(hit, isnan(x))
    index = where(hit, positions(x, dim), constant(x.shape[dim], int64))
    return best, reduce_min.run(index, dim=dim)


def _arg_infer(name: str) -> Callable[..., TensorType]:
    def infer(x: TensorType, dim: int | None, keepdim: bool) -> TensorType:
        if is_zero(product(x.shape) if dim is None else (x.shape[dim] if x.rank else 1)):
            raise IndexError(f"{name}: expected reduction dim to have non-zero size: {x}")
        if dim is None or not x.rank:
            return TensorType(int64, (1,) * x.rank if keepdim else ())
        return TensorType(int64, (*x.shape[:dim], *((1,) if keepdim else ()), *x.shape[dim + 1 :]))

    return infer


def _arg(name: str, primitive: Op, doc: str) -> Op:
    def prepare(x: Any, dim: Any = None, keepdim: bool = False) -> Prepared:
        x = ordered(name, "x", x)
        return (x,), {"dim": None if dim is None else one_dim(name, dim, x.ndim), "keepdim": bool(keepdim)}

    def rule(x: Any, dim: int | None, keepdim: bool) -> Any:
        flat = dim is None or x.ndim == 0
        y = reshape.run(x, shape=(product(x.shape),)) if flat else x
        index = extremum_with_index(primitive, y, 0 if flat else dim)[1]  # type: ignore[arg-type]
        if not keepdim:
            return index
        return reshape.run(index, shape=(1,) * x.ndim) if flat else unsqueeze.run(index, dim=dim)

    def reference(xp: Any, x: Any, dim: int | None, keepdim: bool) -> Any:
        wide = x.astype(xp.float32) if x.dtype.itemsize == 2 else x
        if x.ndim == 0:
            return xp.zeros((), xp.int64)
        return xp.asarray(getattr(xp, name)(wide, axis=dim, keepdims=keepdim))

    return Op(
        name,
        doc=f"Index of the first {doc} of a dim, or of the flattened tensor; NaN counts as such.  [..., n, ...] -> "
        "int64 [..., ...].",
        signature="(x, dim=None, keepdim=False)",
        prepare=prepare,
        infer=_arg_infer(name),
        reference=reference,
        grad=None,
        lowering=Composite(rule),
        attrs=("dim", "keepdim"),
        dtypes=EVERY,
        samples=(
            call(fill(3, 4)),
            call(fill(3, 4), 0),
            call(fill(3, 4), -1, True),
            call(fill(33, low=0, high=3), 0),
            call(fill()),
            call(fill(2, 3, 5), 1),
            call(fill(4, 5, special=True), 1),
            call(fill(2, 3), keepdim=True),
            call(fill(0, 3), 1),
        ),
        bad=(
            Bad((fill(3), 1), IndexError, f"{name}: Dimension out of range"),
            Bad((fill(0),), IndexError, f"{name}: expected reduction dim to have non-zero size"),
        ),
    )


argmax = _arg("argmax", reduce_max, "largest element")
argmin = _arg("argmin", reduce_min, "smallest element")


def _extremum_pair(primitive: Op) -> Callable[..., tuple[Any, Any]]:
    """The decomposition of max_dim and min_dim."""

    def rule(x: Any, dim: int, keepdim: bool) -> tuple[Any, Any]:
        y = x if x.ndim else reshape.run(x, shape=(1,))
        values, index = extremum_with_index(primitive, y, dim)
        if keepdim and x.ndim:
            return unsqueeze.run(values, dim=dim), unsqueeze.run(index, dim=dim)
        return values, index

    return rule


def _extremum_pair_grad(g: Any, out: Any, x: Any, dim: int, keepdim: bool) -> tuple[Any]:
    """To the element that was chosen."""
    if g[0] is None or x.ndim == 0:
        return (g[0],)
    value, index = (g[0], out[1]) if keepdim else (unsqueeze.run(v, dim=dim) for v in (g[0], out[1]))
    return (kept(eq(positions(x, dim), index), value),)


def _with_index(name: str, primitive: Op, doc: str) -> Op:
    """The extremum of one dim and its index."""

    def prepare(x: Any, dim: Any, keepdim: bool = False) -> Prepared:
        x = tensor(name, "x", x)
        return (x,), {"dim": one_dim(name, dim, x.ndim), "keepdim": bool(keepdim)}

    def infer(x: TensorType, dim: int, keepdim: bool) -> tuple[TensorType, TensorType]:
        index = _arg_infer(name)(x, dim, keepdim)
        return TensorType(x.dtype, index.shape), index

    def reference(xp: Any, x: Any, dim: int, keepdim: bool) -> tuple[Any, Any]:
        wide = x.astype(xp.float32) if x.dtype.itemsize == 2 else x
        if x.ndim == 0:
            return xp.array(x), xp.zeros((), xp.int64)
        index = xp.expand_dims(getattr(xp, "arg" + name[:3])(wide, axis=dim), dim)
        values = xp.take_along_axis(x, index, axis=dim)
        return (values, index) if keepdim else (xp.squeeze(values, dim), xp.squeeze(index, dim))

    shapes = (((3, 4), 0), ((33,), 0), ((), 0), ((2, 3, 5), 1), ((0, 3), 1))
    return Op(
        name,
        doc=f"The {doc} element of one dim (NaN if any is) and the index of its first occurrence.  "
        "[..., n, ...] -> values, int64 indices.",
        signature="(x, dim, keepdim=False)",
        prepare=prepare,
        infer=infer,
        reference=reference,
        grad=_extremum_pair_grad,
        lowering=Composite(_extremum_pair(primitive)),
        attrs=("dim", "keepdim"),
        dtypes=EVERY,
        samples=(
            *(call(fill(*shape), dim) for shape, dim in shapes),
            call(fill(3, 4), -1, True),
            call(fill(4, 5, special=True), 1),
        ),
        bad=(
            Bad((fill(3), 1), IndexError, f"{name}: Dimension out of range"),
            Bad((fill(2, 0), 1), IndexError, f"{name}: expected reduction dim to have non-zero size"),
        ),
        methods=(),
        functions=(),
    )


max_dim = _with_index("max_dim", reduce_max, "largest")
min_dim = _with_index("min_dim", reduce_min, "smallest")


def _overloaded(name: str, everything: Op, with_index: Op, pairwise: Op, doc: str) -> Shorthand:
    def rule(x: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
        x = tensor(name, "x", x)
        other = dim if is_tensor(dim) else other
        if other is not None:
            return pairwise(x, other)
        if dim is not None:
            return with_index(x, dim, keepdim)
        if is_zero(product(x.shape)):
            raise RuntimeError(f"{name}: expected a non-empty tensor, got {of_type(x)}: the operation has no identity")
        return everything(x)

    def reference(xp: Any, x: Any, *others: Any, dim: Any = None, keepdim: bool = False) -> Any:
        if others:
            return pairwise.reference(xp, x, others[0])
        if dim is None:
            return everything.reference(xp, x, dims=tuple(range(x.ndim)), keepdim=False)
        return with_index.reference(xp, x, dim=dim % max(x.ndim, 1), keepdim=keepdim)

    return Shorthand(
        name,
        doc=f"The {doc} element of all; with dim, of that dim with its index; with another tensor, of each pair.  "
        "[...] -> [] or [...].",
        rule=rule,
        reference=reference,
        dtypes=EVERY,
        samples=(
            call(fill(3, 4)),
            call(fill(3, 4), 0),
            call(fill(3, 4), -1, True),
            call(fill(3, 4), fill(4)),
            call(fill()),
            call(fill(33)),
        ),
        bad=(
            Bad((fill(0),), RuntimeError, f"{name}: expected a non-empty tensor"),
            Bad((fill(3), 1), IndexError, f"{name}_dim: Dimension out of range"),
        ),
    )


max_ = _overloaded("max", amax, max_dim, maximum, "largest")
min_ = _overloaded("min", amin, min_dim, minimum, "smallest")


# ---- variance ------------------------------------------------------------------------------------------------------


def _freedom(x: Any, dims: tuple[int, ...], correction: Any) -> Any:
    """Element count less correction, at least 0, as a constant of the dtype of x; computed in float64 where it is symbolic."""
    n = element_count(x, dims)
    if isinstance(n, Dim):
        return cast(maximum(sub(constant(n, float64), correction), 0), x.dtype)
    return constant(max(n - correction, 0), x.dtype)


def centred(x: Any, dims: tuple[int, ...]) -> Any:
    """x less its mean over dims."""
    return sub(x, mean_of(x, dims, True))


def _variance(x: Any, dims: tuple[int, ...], correction: Any, keepdim: bool) -> Any:
    """Two passes: the mean, then the mean square of what is left."""
    rest = centred(x, dims)
    return div.run(fold(reduce_sum, mul(rest, rest), dims, keepdim), _freedom(x, dims, correction))


def _variance_grad(g: Any, out: Any, x: Any, dims: tuple[int, ...], correction: Any, keepdim: bool) -> tuple[Any]:
    scale = div.run(mul(g, 2), _freedom(x, dims, correction))
    return (mul(put_back(scale, x, dims, keepdim), centred(x, dims)),)


def _deviation_grad(g: Any, out: Any, x: Any, dims: tuple[int, ...], correction: Any, keepdim: bool) -> tuple[Any]:
    """0 where the deviation is 0."""
    none = eq(out, 0)
    half = div(g, where(none, constant(1, out.dtype), mul(out, 2)))
    half = where(none, constant(0, out.dtype), half)
    return _variance_grad(half, out, x, dims, correction, keepdim)


def _spread_measure(name: str, rule: Callable[..., Any], grad: Callable[..., Any], doc: str) -> Op:
    def prepare(
        x: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
    ) -> Prepared:
        x = require_floating(name, "x", x)
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        if correction is None:
            correction = 1 if unbiased is None or unbiased else 0
        correction = number(name, "correction", correction)
        return (x,), {"dims": canonical_dims(name, dim, x.ndim), "correction": correction, "keepdim": bool(keepdim)}

    def infer(x: TensorType, dims: tuple[int, ...], correction: Any, keepdim: bool) -> TensorType:
        return folded_type(name, True)(x, dims, keepdim)

    def reference(xp: Any, x: Any, dims: tuple[int, ...], correction: Any, keepdim: bool) -> Any:
        folded = product(x.shape[d] for d in dims)
        rest = x - xp.sum(x, axis=dims or None, keepdims=True) / x.dtype.type(folded)
        count = folded - correction
        result = xp.sum(rest * rest, axis=dims or None, keepdims=keepdim) / x.dtype.type(count if count > 0 else 0)
        return xp.sqrt(result) if name == "std" else result

    def route(op: Op, x: Any, *args: Any, **kwargs: Any) -> Any:
        """The variance of complex numbers is that of their parts, added."""
        if not (is_tensor(x) and x.dtype.kind == "c"):
            inputs, attrs = op.prepare(x, *args, **kwargs)
            return op.run(*inputs, **attrs)
        total = add(*(var(Op.table[part](x), *args, **kwargs) for part in ("real", "imag")))
        return total if name == "var" else sqrt(total)

    return Routed(
        name,
        route=route,
        doc=f"{doc} over dims (all by default), divided by n - correction.  [...] -> [...].",
        signature="(x, dim=None, unbiased=None, keepdim=False, *, correction=None)",
        prepare=prepare,
        infer=infer,
        reference=rounded(reference),
        grad=gradient_in_compute_dtype(grad),
        lowering=Composite(in_compute_dtype(rule)),
        attrs=("dims", "correction", "keepdim"),
        dtypes=FLOATING,
        samples=(
            *SHAPES[:6],
            call(fill(3, 4), 0, correction=0),
            call(fill(3, 4), unbiased=False),
            call(fill(3, 1, grad=False), 1),
            call(fill(0, 3)),
            call(fill(3, 4), False),
        ),
        bad=(*bad_dims(name), Bad((fill(3, dtype=int64),), RuntimeError, f"{name}: argument 'x' must be floating")),
    )


var = _spread_measure("var", _variance, _variance_grad, "Variance")
std = _spread_measure("std", lambda x, **how: sqrt(_variance(x, **how)), _deviation_grad, "Standard deviation")


# ---- logsumexp -----------------------------------------------------------------------------------------------------


def _logsumexp(x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
    """With the largest element (of complex numbers, the largest real part) taken out first, unless it is infinite."""
    if is_zero(element_count(x, dims)):
        return log(fold(reduce_sum, exp(x), dims, keepdim))
    best = cast(fold(reduce_max, Op.table["real"](x), dims, True), x.dtype)
    infinite = eq(Op.table["abs"](best), float("inf"))
    best = where(infinite, constant(0, x.dtype), best)
    total = log(fold(reduce_sum, exp(sub(x, best)), dims, keepdim))
    return add(total, best if keepdim else reshape.run(best, shape=tuple(total.shape)))


def _logsumexp_grad(g: Any, out: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> tuple[Any]:
    out = where(eq(out, float("-inf")), constant(0, out.dtype), out)
    return (mul(put_back(g, x, dims, keepdim), exp(sub(x, put_back(out, x, dims, keepdim)))),)


def _logsumexp_reference(xp: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
    if x.dtype.kind == "c":
        return xp.log(xp.sum(xp.exp(x), axis=dims or None, keepdims=keepdim))
    return xp.logaddexp.reduce(x, axis=dims or None, keepdims=keepdim, initial=-xp.inf) if x.ndim else x


def _logsumexp_prepare(x: Any, dim: Any, keepdim: bool = False) -> Prepared:
    x = floating("logsumexp", "x", x)
    return (x,), {"dims": canonical_dims("logsumexp", dim, x.ndim), "keepdim": bool(keepdim)}


logsumexp = Op(
    "logsumexp",
    doc="log(sum(exp(x))) over dims, without overflow; -inf for rows of -inf.  [...] -> [...].",
    signature="(x, dim, keepdim=False)",
    prepare=_logsumexp_prepare,
    infer=folded_type("logsumexp", True),
    reference=rounded(_logsumexp_reference),
    grad=gradient_in_compute_dtype(_logsumexp_grad),
    lowering=Composite(in_compute_dtype(_logsumexp)),
    attrs=("dims", "keepdim"),
    dtypes=FLOATING,
    samples=(
        call(fill(3, 4), 0),
        call(fill(3, 4), -1, True),
        call(fill(2, 3, 5), (0, 2)),
        call(fill(33, high=50.0), 0),
        call(fill(), 0),
        call(fill(2, 0), 1),
        call(fill(4, 6, special=True), 1),
    ),
    bad=(
        Bad((fill(3), 1), IndexError, "logsumexp: Dimension out of range"),
        Bad(([1.0], 0), TypeError, "logsumexp: argument 'x' must be a Tensor"),
    ),
    functions=("logsumexp", "special.logsumexp"),
)
