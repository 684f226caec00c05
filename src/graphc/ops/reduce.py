"""Reductions: one primitive per fold over a single dim, and the public operators over any dims.

Enters: tensors.  Leaves: operators.  Never here: the order of folding (ir.loops); `statistics`.

Adjacent dims are merged by reshape and reduced by one primitive; separate groups one after the other, innermost first.
float16 and bfloat16 accumulate in float32 inside a primitive and are rounded at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.dims import product
from graphc.dtypes import DType, bool_, float32, get_default_dtype, int64, uint8
from graphc.ir.op import Bad, Composite, Op, Reduce, Shape, Size, TensorType
from graphc.ops.arguments import (
    cast,
    constant,
    gradient_in_compute_dtype,
    in_compute_dtype,
    is_zero,
    of_type,
    one_dim,
    rounded,
    tensor,
)
from graphc.ops.arguments import dims as canonical_dims
from graphc.ops.arithmetic import div, kept, mul
from graphc.ops.comparison import eq, isnan, logical_and, logical_or, ne
from graphc.ops.create import require_dtype
from graphc.ops.declare import EVERY, EVERY_COMPLEX, FLOATING, NUMERIC_COMPLEX, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.movement import expand, flip, reshape, unsqueeze
from graphc.ops.scan import cumprod, shifted

# ---- primitives: one dim, removed ----------------------------------------------------------------------------------


def _without(shape: Shape, dim: int) -> Shape:
    return (*shape[:dim], *shape[dim + 1 :])


def spread(g: Any, x: Any, dim: int) -> Any:
    """`g` of a reduction of x over `dim`, expanded back over that dim."""
    return expand.run(unsqueeze.run(g, dim=dim), shape=tuple(x.shape))


def _primitive(name: str, fold: str, doc: str, reference: str, grad: Any, dtypes: Sequence[DType], empty_allowed: bool) -> Op:
    def infer(x: TensorType, dim: int) -> TensorType:
        if not 0 <= dim < x.rank:
            raise IndexError(f"{name}: Dimension out of range: {dim} of {x}")
        if not empty_allowed and is_zero(x.shape[dim]):
            raise IndexError(f"{name}: dim {dim} of {x} is empty: the operation has no identity")
        return TensorType(x.dtype, _without(x.shape, dim))

    def compute(xp: Any, x: Any, dim: int) -> Any:
        keep = {"dtype": x.dtype} if reference in ("sum", "prod") else {}
        return getattr(xp, reference)(x, axis=dim, **keep)

    return Op(
        name,
        doc=f"{doc} of one dim, which is removed.  [..., n, ...] -> [..., ...].",
        signature="(x, dim)",
        prepare=lambda x, dim: ((tensor(name, "x", x),), {"dim": one_dim(name, dim, x.ndim)}),
        infer=infer,
        reference=rounded(compute),
        grad=grad,
        lowering=Reduce(fold),
        attrs=("dim",),
        dtypes=dtypes,
        samples=(
            call(fill(3, 4), 0),
            call(fill(3, 4), -1),
            call(fill(33), 0),
            call(fill(2, 3, 5), 1),
            call(fill(1, 4), 0),
            call(fill(0, 3), 1),
            *((call(fill(2, 0), 1), call(fill(0), 0)) if empty_allowed else ()),
        ),
        bad=(
            Bad((fill(3), 1), IndexError, f"{name}: Dimension out of range"),
            Bad((2.0, 0), TypeError, f"{name}: argument 'x'"),
        ),
        methods=(),
        functions=(),
    )


@gradient_in_compute_dtype
def _product_gradient(g: Any, out: Any, x: Any, dim: int) -> tuple[Any]:
    """The product of all before times the product of all after: exact for zeros, in derivatives of every order."""
    before = shifted(cumprod.run(x, dim=dim), dim, 1)
    reversed_ = flip.run(x, dims=(dim,))
    after = flip.run(shifted(cumprod.run(reversed_, dim=dim), dim, 1), dims=(dim,))
    return (mul(spread(g, x, dim), mul(before, after)),)


def same_value(x: Any, y: Any) -> Any:
    """Where x equals y, and where both are NaN."""
    return eq(x, y) if x.dtype.kind != "f" else logical_or(eq(x, y), logical_and(isnan(x), isnan(y)))


def _extremum_gradient(g: Any, out: Any, x: Any, dim: int) -> tuple[Any]:
    """Shared evenly among equal extrema (NaNs too), as PyTorch's amax."""
    hit = same_value(x, spread(out, x, dim))
    share = div(g, cast(reduce_sum.run(cast(hit, int64), dim=dim), g.dtype))
    return (kept(hit, spread(share, x, dim)),)


reduce_sum = _primitive("reduce_sum", "add", "Sum", "sum", lambda g, out, x, dim: (spread(g, x, dim),), NUMERIC_COMPLEX, True)
reduce_prod = _primitive("reduce_prod", "mul", "Product", "prod", _product_gradient, NUMERIC_COMPLEX, True)
reduce_max = _primitive("reduce_max", "max", "Largest (NaN if any is)", "max", _extremum_gradient, EVERY, False)
reduce_min = _primitive("reduce_min", "min", "Smallest (NaN if any is)", "min", _extremum_gradient, EVERY, False)
reduce_any = _primitive("reduce_any", "or", "Logical or", "any", None, (bool_,), True)
reduce_all = _primitive("reduce_all", "and", "Logical and", "all", None, (bool_,), True)


# ---- over several dims ---------------------------------------------------------------------------------------------


def groups(dims: tuple[int, ...]) -> list[tuple[int, int]]:
    """(first, last) of each run of adjacent dims."""
    result: list[tuple[int, int]] = []
    for d in dims:
        if result and d == result[-1][1] + 1:
            result[-1] = (result[-1][0], d)
        else:
            result.append((d, d))
    return result


def reduced_shape(shape: Shape, dims: tuple[int, ...], keepdim: bool) -> Shape:
    """The shape after reducing `dims`."""
    if keepdim:
        return tuple(1 if k in dims else s for k, s in enumerate(shape))
    return tuple(s for k, s in enumerate(shape) if k not in dims)


def fold(primitive: Op, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
    """`x` reduced over sorted dims by a primitive; of a 0-d tensor, over its one element."""
    shape = reduced_shape(tuple(x.shape), dims, keepdim)
    if x.ndim == 0:
        return primitive.run(reshape.run(x, shape=(1,)), dim=0)
    for first, last in reversed(groups(dims)):
        if first != last:
            merged = product(x.shape[first : last + 1])
            x = reshape.run(x, shape=(*x.shape[:first], merged, *x.shape[last + 1 :]))
        x = primitive.run(x, dim=first)
    return reshape.run(x, shape=shape) if keepdim else x


def put_back(g: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
    """What a reduction over `dims` left, expanded to the shape of x."""
    if not keepdim and dims:
        g = reshape.run(g, shape=reduced_shape(tuple(x.shape), dims, True))
    return g if tuple(g.shape) == tuple(x.shape) else expand.run(g, shape=tuple(x.shape))


def element_count(x: Any, dims: tuple[int, ...]) -> Size:
    """How many elements each result of a reduction over `dims` folds."""
    return product(x.shape[d] for d in dims)


def folded_type(name: str, empty_allowed: bool, result: DType | None = None) -> Callable[..., TensorType]:
    """The type rule of reductions over `dims` with `keepdim`."""

    def infer(x: TensorType, dims: tuple[int, ...], keepdim: bool) -> TensorType:
        if not empty_allowed and x.dtype.kind == "c":  # only extrema have no value of nothing, and complex numbers have no order
            raise NotImplementedError(f"{name}: not defined for complex tensors: {x}")
        if not empty_allowed and any(is_zero(x.shape[d]) for d in dims):
            raise (RuntimeError if len(dims) == x.rank > 1 else IndexError)(
                f"{name}: expected reduction dims {list(dims)} of {x} to have non-zero size"
            )
        return TensorType(result or x.dtype, reduced_shape(x.shape, dims, keepdim))

    return infer


def _prepare_with_dtype(name: str, convert: Callable[[Any], DType]) -> Callable[..., Prepared]:
    def prepare(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None) -> Prepared:
        x = tensor(name, "x", x)
        x = cast(x, convert(x) if dtype is None else require_dtype(name, dtype))
        return (x,), {"dims": canonical_dims(name, dim, x.ndim), "keepdim": bool(keepdim)}

    return prepare


def _prepare(name: str) -> Callable[..., Prepared]:
    def prepare(x: Any, dim: Any = None, keepdim: bool = False) -> Prepared:
        x = tensor(name, "x", x)
        return (x,), {"dims": canonical_dims(name, dim, x.ndim), "keepdim": bool(keepdim)}

    return prepare


SHAPES = (
    call(fill(3, 4)),
    call(fill(3, 4), 0),
    call(fill(3, 4), -1, True),
    call(fill(2, 3, 5), (0, 2)),
    call(fill(2, 3, 5), (1, 2), keepdim=True),
    call(fill(33)),
    call(fill()),
    call(fill(1, 1), 0),
)
EMPTY = (call(fill(0, 3)), call(fill(0, 3), 0), call(fill(2, 0), 1, True))


def bad_dims(name: str) -> tuple[Bad, ...]:
    """Calls with dims that do not exist, repeat or are no ints."""
    return (
        Bad((fill(3, 4), 2), IndexError, f"{name}: Dimension out of range"),
        Bad((fill(3, 4), (0, 0)), RuntimeError, f"{name}: dim 0 appears multiple times"),
        Bad((fill(3, 4), 1.5), TypeError, f"{name}: argument 'dim' must be an int"),
        Bad(([1.0],), TypeError, f"{name}: argument 'x' must be a Tensor"),
    )


def _reference(function: str) -> Callable[..., Any]:
    def compute(xp: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        keep = {"dtype": x.dtype} if function in ("sum", "prod") else {}
        return getattr(xp, function)(x, axis=dims or None, keepdims=keepdim, **keep)

    return rounded(compute)


def _integers_to_int64(x: Any) -> DType:
    return x.dtype if x.dtype.kind in "fc" else int64


def _reduction(name: str, primitive: Op, doc: str, reference: str, **declaration: Any) -> Op:
    return Op(
        name,
        doc=f"{doc} over dims (all by default).  [...] -> [...] without those dims, or of size 1 with keepdim.",
        infer=folded_type(name, "sum" in reference or "prod" in reference),
        reference=_reference(reference),
        lowering=Composite(lambda x, dims, keepdim: fold(primitive, x, dims, keepdim)),
        attrs=("dims", "keepdim"),
        **declaration,
    )


sum = _reduction(
    "sum",
    reduce_sum,
    "Sum (of integers as int64)",
    "sum",
    signature="(x, dim=None, keepdim=False, *, dtype=None)",
    prepare=_prepare_with_dtype("sum", _integers_to_int64),
    grad=lambda g, out, x, dims, keepdim: (put_back(g, x, dims, keepdim),),
    dtypes=EVERY_COMPLEX,
    samples=(*SHAPES, *EMPTY, call(fill(3, 4), 0, dtype=float32)),
    bad=bad_dims("sum"),
)


def _prod_grad(g: Any, out: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> tuple[Any]:
    """As one dim: the reduced dims moved last and merged."""
    if x.ndim == 0:
        return (g,)
    order = (*(k for k in range(x.ndim) if k not in dims), *dims)
    moved = Op.table["permute"].run(x, dims=order)
    shape = tuple(moved.shape)
    rest = shape[: len(shape) - len(dims)]
    flat = reshape.run(moved, shape=(*rest, element_count(x, dims)))
    g = reshape.run(g, shape=rest)
    (partial,) = _product_gradient(g, out, flat, dim=len(rest))
    back = tuple(sorted(range(x.ndim), key=order.__getitem__))
    return (Op.table["permute"].run(reshape.run(partial, shape=shape), dims=back),)


prod = _reduction(
    "prod",
    reduce_prod,
    "Product (of integers as int64)",
    "prod",
    signature="(x, dim=None, keepdim=False, *, dtype=None)",
    prepare=_prepare_with_dtype("prod", _integers_to_int64),
    autocast="float32",
    grad=_prod_grad,
    dtypes=EVERY_COMPLEX,
    samples=(*SHAPES, *EMPTY),
    bad=bad_dims("prod"),
)


def _amax_grad(g: Any, out: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> tuple[Any]:
    """Shared evenly among equal extrema (NaNs too)."""
    hit = same_value(x, put_back(out, x, dims, keepdim))
    many = cast(fold(reduce_sum, cast(hit, int64), dims, keepdim), g.dtype)
    return (kept(hit, put_back(div(g, many), x, dims, keepdim)),)


def _extremum(name: str, primitive: Op, doc: str, reference: str) -> Op:
    return _reduction(
        name,
        primitive,
        doc,
        reference,
        signature="(x, dim=None, keepdim=False)",
        prepare=_prepare(name),
        grad=_amax_grad,
        dtypes=EVERY,
        samples=(*SHAPES, call(fill(2, 0), 0), call(fill(4, 5, special=True), 1)),
        bad=(*bad_dims(name), Bad((fill(2, 0), 1), IndexError, f"{name}: expected reduction dims .* non-zero size")),
    )


amax = _extremum("amax", reduce_max, "Largest element, NaN if any is,", "max")
amin = _extremum("amin", reduce_min, "Smallest element, NaN if any is,", "min")


# ---- any, all ------------------------------------------------------------------------------------------------------


def _truth(name: str, primitive: Op, doc: str) -> Op:
    def prepare(x: Any, dim: Any = None, keepdim: bool = False) -> Prepared:
        inputs, attrs = _prepare(name)(x, dim, keepdim)
        if isinstance(dim, tuple | list) and not dim:  # no dims here, all dims in other reductions, as in PyTorch
            attrs["dims"] = ()
        return inputs, attrs

    def reference(xp: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        found = xp.asarray(getattr(xp, name)(x != 0, axis=dims, keepdims=keepdim))
        return found.astype(x.dtype) if x.dtype == xp.uint8 else found

    def infer(x: TensorType, dims: tuple[int, ...], keepdim: bool) -> TensorType:
        return folded_type(name, True, uint8 if x.dtype is uint8 else bool_)(x, dims, keepdim)

    def rule(x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        found = fold(primitive, x if x.dtype is bool_ else ne(x, 0), dims, keepdim)
        return cast(found, uint8) if x.dtype is uint8 else found

    return Op(
        name,
        doc=f"Whether {doc} element over dims (all by default) is not 0.  [...] -> bool [...] (uint8 of uint8).",
        signature="(x, dim=None, keepdim=False)",
        prepare=prepare,
        infer=infer,
        reference=reference,
        grad=None,
        lowering=Composite(rule),
        attrs=("dims", "keepdim"),
        dtypes=EVERY_COMPLEX,
        samples=(*SHAPES, *EMPTY, call(fill(4, 5, special=True), 1)),
        bad=bad_dims(name),
    )


any_ = _truth("any", reduce_any, "any")
all_ = _truth("all", reduce_all, "every")


# ---- mean ----------------------------------------------------------------------------------------------------------


def mean_of(x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
    """Sum divided by count, in the dtype of x."""
    return div.run(fold(reduce_sum, x, dims, keepdim), constant(element_count(x, dims), x.dtype))


def _mean_grad(g: Any, out: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> tuple[Any]:
    return (put_back(div.run(g, constant(element_count(x, dims), g.dtype)), x, dims, keepdim),)


def floating_or_given(name: str) -> Callable[[Any], DType]:
    """The dtype of a floating tensor.  Raises RuntimeError for integers, as PyTorch does."""

    def dtype_of(x: Any) -> DType:
        if x.dtype.kind not in "fc":
            raise RuntimeError(
                f"{name}: expected a floating tensor, got {of_type(x)}; give dtype, for instance {get_default_dtype()}"
            )
        return x.dtype  # type: ignore[no-any-return]

    return dtype_of


mean = Op(
    "mean",
    doc="Arithmetic mean over dims (all by default).  [...] -> [...] without those dims, or of size 1 with keepdim.",
    signature="(x, dim=None, keepdim=False, *, dtype=None)",
    prepare=_prepare_with_dtype("mean", floating_or_given("mean")),
    infer=folded_type("mean", True),
    reference=rounded(
        lambda xp, x, dims, keepdim: (
            xp.sum(x, axis=dims or None, keepdims=keepdim, dtype=x.dtype) / x.dtype.type(product(x.shape[d] for d in dims))
        )
    ),
    grad=_mean_grad,
    lowering=Composite(in_compute_dtype(mean_of)),
    attrs=("dims", "keepdim"),
    dtypes=FLOATING,
    samples=(*SHAPES, call(fill(2, 0), 0), call(fill(5, dtype=int64, grad=False), dtype=float32)),
    bad=(*bad_dims("mean"), Bad((fill(3, dtype=int64),), RuntimeError, "mean: expected a floating tensor")),
)
