"""Contractions: matmul and everything written with it.

Enters: tensors.  Leaves: operators.  Never here: tiling; normalisation and attention.

Each element of a matmul is one chain of fused multiply-adds in order of k inside fixed blocks (ir.loops); float16 and
bfloat16 accumulate in float32 and are rounded once.
"""

from __future__ import annotations

from typing import Any

from graphc.dims import product
from graphc.dtypes import DType, bool_
from graphc.ir.op import Anchor, Bad, Composite, Op, TensorType, broadcast_shapes, shape_text
from graphc.ops.arguments import constant, in_compute_dtype, number, of_type, promoted, rounded, same_dtype, tensor
from graphc.ops.arithmetic import add, mul
from graphc.ops.declare import FLOATING_COMPLEX, NUMERIC_COMPLEX, Routed, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.movement import permute, reshape, squeeze, summed_to, unsqueeze
from graphc.ops.reduce import fold, reduce_sum

# ---- matmul --------------------------------------------------------------------------------------------------------


def _matmul_infer(x: TensorType, y: TensorType) -> TensorType:
    dtype = same_dtype("matmul", (x, y))
    if dtype is bool_:
        raise RuntimeError(f"matmul: not defined for bool tensors: {x} @ {y}")
    if x.rank < 2 or y.rank < 2:
        raise RuntimeError(f"matmul: both operands must have at least 2 dims: {x} @ {y}")
    if x.shape[-1] != y.shape[-2]:
        raise RuntimeError(f"matmul: inner sizes differ: {x} @ {y}")
    batch = broadcast_shapes("matmul", (x.shape[:-2], y.shape[:-2]))
    return TensorType(dtype, (*batch, x.shape[-2], y.shape[-1]))


def swapped(x: Any) -> Any:
    """The last two dims exchanged."""
    return permute.run(x, dims=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def _matmul_grad(g: Any, out: Any, x: Any, y: Any) -> tuple[Any, Any]:
    return (
        summed_to(matmul.run(g, swapped(y)), tuple(x.shape)),
        summed_to(matmul.run(swapped(x), g), tuple(y.shape)),
    )


def matrices(name: str, x: Any, y: Any) -> tuple[Any, Any]:
    """Two tensors of one dtype.  Raises TypeError, or RuntimeError as PyTorch does for mixed dtypes."""
    x, y = tensor(name, "x", x), tensor(name, "other", y)
    if x.dtype is not y.dtype:
        raise RuntimeError(f"{name}: expected both operands to have one dtype, got {of_type(x)} @ {of_type(y)}")
    return x, y


def _matmul_route(op: Op, x: Any, other: Any) -> Any:
    """Vectors become matrices and the added dim is taken off the result."""
    x, other = matrices("matmul", x, other)
    if x.ndim == 0 or other.ndim == 0:
        raise RuntimeError(f"matmul: both operands must have at least 1 dim: {of_type(x)} @ {of_type(other)}")
    if x.shape[-1] != other.shape[-2 if other.ndim > 1 else 0]:
        raise RuntimeError(f"matmul: inner sizes differ: {of_type(x)} @ {of_type(other)}")
    row, column = x.ndim == 1, other.ndim == 1
    x = unsqueeze.run(x, dim=0) if row else x
    other = unsqueeze.run(other, dim=1) if column else other
    out = op.run(x, other)
    removed = (*((out.ndim - 2,) if row else ()), *((out.ndim - 1,) if column else ()))
    return squeeze.run(out, dims=removed) if removed else out


matmul = Routed(
    "matmul",
    doc="Matrix product; vectors count as a row or column, leading dims broadcast.  [..., n, k] @ [..., k, m] -> [..., n, m].",
    signature="(x, other)",
    route=_matmul_route,
    prepare=lambda x, other: (matrices("matmul", x, other), {}),
    infer=_matmul_infer,
    reference=rounded(lambda xp, x, y: xp.matmul(x, y)),
    grad=_matmul_grad,
    lowering=Anchor("matmul"),
    dtypes=NUMERIC_COMPLEX,
    samples=(
        call(fill(3, 4), fill(4, 5)),
        call(fill(2, 3, 4), fill(4, 2)),
        call(fill(2, 1, 3, 4), fill(5, 4, 2)),
        call(fill(33, 7), fill(7, 33)),
        call(fill(1, 1), fill(1, 1)),
        call(fill(0, 3), fill(3, 2)),
        call(fill(2, 0), fill(0, 3)),
        call(fill(4), fill(4)),
        call(fill(4), fill(4, 3)),
        call(fill(3, 4), fill(4)),
        call(fill(2, 3, 4), fill(4)),
        call(fill(3), fill(2, 3, 5)),
    ),
    bad=(
        Bad((fill(2, 3), fill(4, 5)), RuntimeError, r"matmul: inner sizes differ: .*\[2, 3\] @ .*\[4, 5\]"),
        Bad((fill(), fill(3)), RuntimeError, "matmul: both operands must have at least 1 dim"),
        Bad((fill(2, 3, 4), fill(5, 4, 2)), RuntimeError, "matmul: shapes .* do not broadcast"),
        Bad((fill(2, 3), 2.0), TypeError, "matmul: argument 'other' must be a Tensor"),
        Bad((fill(2, 3), fill(3, 4, dtype=bool_)), RuntimeError, "matmul: expected both operands to have one dtype"),
    ),
    functions=("matmul", "linalg.matmul"),
    autocast="lower",
)


# ---- strict ranks --------------------------------------------------------------------------------------------------


def _ranked(name: str, doc: str, ranks: tuple[int, int], samples: Any, bad: Any, **names: Any) -> Shorthand:
    def rule(x: Any, other: Any) -> Any:
        x, other = matrices(name, x, other)
        if (x.ndim, other.ndim) != ranks:
            raise RuntimeError(f"{name}: expected tensors of rank {ranks[0]} and {ranks[1]}, got {of_type(x)} and {of_type(other)}")
        if name == "bmm" and x.shape[0] != other.shape[0]:
            raise RuntimeError(f"{name}: batch sizes differ: {of_type(x)} @ {of_type(other)}")
        if x.shape[-1] != other.shape[-2 if ranks[1] > 1 else 0]:
            raise RuntimeError(f"{name}: inner sizes differ: {of_type(x)} @ {of_type(other)}")
        return matmul(x, other)

    return Shorthand(
        name,
        doc=doc,
        rule=rule,
        reference=rounded(lambda xp, x, other: xp.matmul(x, other)),
        dtypes=NUMERIC_COMPLEX,
        samples=samples,
        bad=bad,
        renamed={"mat2": "other", "vec": "other", "tensor": "other"},
        autocast="lower" if ranks[1] > 1 else "keep",
        **names,
    )


mm = _ranked(
    "mm",
    "Product of two matrices.  [n, k] @ [k, m] -> [n, m].",
    (2, 2),
    (call(fill(3, 4), fill(4, 5)), call(fill(1, 33), fill(33, 1)), call(fill(0, 2), fill(2, 3))),
    (
        Bad((fill(3), fill(3, 2)), RuntimeError, "mm: expected tensors of rank 2 and 2"),
        Bad((fill(2, 3), fill(2, 3)), RuntimeError, "mm: inner sizes differ"),
    ),
    functions=("mm", "spmm"),
)
bmm = _ranked(
    "bmm",
    "Products of matrices in a batch.  [b, n, k] @ [b, k, m] -> [b, n, m].",
    (3, 3),
    (call(fill(2, 3, 4), fill(2, 4, 5)), call(fill(1, 1, 33), fill(1, 33, 2)), call(fill(0, 2, 3), fill(0, 3, 1))),
    (
        Bad((fill(2, 3, 4), fill(3, 4, 5)), RuntimeError, "bmm: batch sizes differ"),
        Bad((fill(3, 4), fill(4, 5)), RuntimeError, "bmm: expected tensors of rank 3 and 3"),
    ),
)
mv = _ranked(
    "mv",
    "Matrix times vector.  [n, k] @ [k] -> [n].",
    (2, 1),
    (call(fill(3, 4), fill(4)), call(fill(33, 5), fill(5)), call(fill(0, 2), fill(2))),
    (Bad((fill(3, 4), fill(3)), RuntimeError, "mv: inner sizes differ"),),
)
dot = _ranked(
    "dot",
    "Inner product of two vectors.  [k] @ [k] -> [].",
    (1, 1),
    (call(fill(4), fill(4)), call(fill(33), fill(33)), call(fill(0), fill(0))),
    (
        Bad((fill(4), fill(3)), RuntimeError, "dot: inner sizes differ"),
        Bad((fill(2, 2), fill(2)), RuntimeError, "dot: expected tensors of rank 1 and 1"),
    ),
)


def _outer(x: Any, other: Any) -> Any:
    x, other = promoted("outer", (tensor("outer", "x", x), tensor("outer", "other", other)), ("x", "other"))
    if x.ndim != 1 or other.ndim != 1:
        raise RuntimeError(f"outer: expected two vectors, got {of_type(x)} and {of_type(other)}")
    return mul(unsqueeze.run(x, dim=1), unsqueeze.run(other, dim=0))


outer = Shorthand(
    "outer",
    doc="All products of the elements of two vectors.  [n], [m] -> [n, m].",
    rule=_outer,
    reference=rounded(lambda xp, x, other: xp.outer(x, other)),
    dtypes=NUMERIC_COMPLEX,
    samples=(call(fill(3), fill(4)), call(fill(33), fill(1)), call(fill(0), fill(2))),
    bad=(Bad((fill(2, 2), fill(2)), RuntimeError, "outer: expected two vectors"),),
    methods=("outer", "ger"),
    functions=("outer", "ger"),
    renamed={"vec2": "other"},
    autocast="keep",
)


# ---- with an addend ------------------------------------------------------------------------------------------------


def _coefficient(name: str, argument: str, value: Any, dtype: DType) -> Any:
    """A number that multiplies tensors of `dtype`; integers take its whole part."""
    value = number(name, argument, value)
    return int(value) if dtype.kind in "iu" else value


def _scaled_sum(name: str, x: Any, beta: Any, product_: Any, alpha: Any) -> Any:
    """beta * x + alpha * product, of the shape of the product; beta 0 leaves x out, NaN and all."""
    alpha, beta = (_coefficient(name, k, v, x.dtype) for k, v in (("alpha", alpha), ("beta", beta)))
    shape = tuple(product_.shape)
    if broadcast_shapes(name, (tuple(x.shape), shape)) != shape:
        raise RuntimeError(f"{name}: x of shape {shape_text(x.shape)} does not expand to {shape_text(shape)}")
    if x.dtype is bool_:
        every = constant(True, bool_)
        product_ = product_ if alpha else mul(product_, constant(False, bool_))
        return add(mul(x, every), product_) if beta else product_
    product_ = product_ if alpha == 1 else mul(product_, alpha)
    if beta == 0:
        return product_
    return add(x if beta == 1 else mul(x, beta), product_)


def _with_addend(name: str, product_of: Any, doc: str, samples: Any, dtypes: Any = NUMERIC_COMPLEX) -> Shorthand:
    """beta * x + alpha * product_of(first, second)."""

    def rule(x: Any, first: Any, second: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
        return compute(tensor(name, "x", x), tensor(name, "first", first), tensor(name, "second", second), beta=beta, alpha=alpha)

    @in_compute_dtype
    def compute(x: Any, first: Any, second: Any, beta: Any, alpha: Any) -> Any:
        return _scaled_sum(name, x, beta, product_of(first, second), alpha)

    return Shorthand(
        name,
        doc=doc,
        rule=rule,
        dtypes=dtypes,
        samples=samples,
        bad=(Bad((2.0, fill(2, 2), fill(2, 2)), TypeError, f"{name}: argument 'x' must be a Tensor"),),
        inplace=True,
        renamed={
            **dict.fromkeys(("mat1", "mat", "vec1", "batch1"), "first"),
            **dict.fromkeys(("mat2", "vec", "vec2", "batch2"), "second"),
        },
        autocast="lower" if "mm" in name else "keep",
    )


addmm = _with_addend(
    "addmm",
    mm,
    "beta * x + alpha * (first @ second).  [n, m], [n, k], [k, m] -> [n, m].",
    (
        call(fill(3, 5), fill(3, 4), fill(4, 5)),
        call(fill(5), fill(33, 4), fill(4, 5)),
        call(fill(2, 2), fill(2, 2), fill(2, 2), beta=2, alpha=3),
    ),
)
addmv = _with_addend(
    "addmv",
    mv,
    "beta * x + alpha * (first @ second).  [n], [n, k], [k] -> [n].",
    (call(fill(3), fill(3, 4), fill(4)), call(fill(1), fill(33, 4), fill(4), beta=0.5, alpha=2)),
    FLOATING_COMPLEX,
)
addr = _with_addend(
    "addr",
    outer,
    "beta * x + alpha * outer(first, second).  [n, m], [n], [m] -> [n, m].",
    (call(fill(3, 5), fill(3), fill(5)), call(fill(5), fill(33), fill(5), beta=2, alpha=3)),
)
baddbmm = _with_addend(
    "baddbmm",
    bmm,
    "beta * x + alpha * (first @ second).  [b, n, m], [b, n, k], [b, k, m] -> [b, n, m].",
    (call(fill(2, 3, 5), fill(2, 3, 4), fill(2, 4, 5)), call(fill(5), fill(1, 3, 4), fill(1, 4, 5), beta=2, alpha=3)),
)


def _sum_of_products(first: Any, second: Any) -> Any:
    return fold(reduce_sum, bmm(first, second), (0,), False)


addbmm = _with_addend(
    "addbmm",
    _sum_of_products,
    "beta * x + alpha * the sum over the batch of first @ second.  [n, m], [b, n, k], [b, k, m] -> [n, m].",
    (call(fill(3, 5), fill(2, 3, 4), fill(2, 4, 5)), call(fill(5), fill(1, 3, 4), fill(1, 4, 5), beta=2, alpha=3)),
)


# ---- linear --------------------------------------------------------------------------------------------------------


def _linear_prepare(x: Any, weight: Any, bias: Any = None) -> Prepared:
    x, weight = tensor("linear", "x", x), tensor("linear", "weight", weight)
    inputs = (x, weight) if bias is None else (x, weight, tensor("linear", "bias", bias))
    return inputs, {}


def _linear_infer(x: TensorType, weight: TensorType, bias: TensorType | None = None) -> TensorType:
    types = (x, weight) if bias is None else (x, weight, bias)
    shown = ", ".join(map(str, types))
    if any(t.dtype is not x.dtype for t in types):
        raise RuntimeError(f"linear: expected operands of one dtype, got {shown}")
    if x.rank < 1 or weight.rank != 2:
        raise RuntimeError(f"linear: expected x of rank 1 or more and weight of rank 2, got {shown}")
    if x.shape[-1] != weight.shape[1]:
        raise RuntimeError(f"linear: x has {x.shape[-1]} features, weight takes {weight.shape[1]}: {shown}")
    if bias is not None and bias.shape != (weight.shape[0],):
        raise RuntimeError(f"linear: bias must be of shape [{weight.shape[0]}]: {shown}")
    return TensorType(x.dtype, (*x.shape[:-1], weight.shape[0]))


def _flat(x: Any) -> Any:
    """All but the last dim merged."""
    return x if x.ndim == 2 else reshape.run(x, shape=(product(x.shape[:-1]), x.shape[-1]))


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    out = matmul.run(_flat(x), swapped(weight))
    if bias is not None:
        out = add.run(out, bias)
    return out if x.ndim == 2 else reshape.run(out, shape=(*x.shape[:-1], weight.shape[0]))


def _linear_grad(g: Any, out: Any, x: Any, weight: Any, bias: Any = None) -> tuple[Any, ...]:
    flat = _flat(g)
    gx = reshape.run(matmul.run(flat, weight), shape=tuple(x.shape)) if x.ndim != 2 else matmul.run(flat, weight)
    gw = matmul.run(swapped(flat), _flat(x))
    if bias is None:
        return gx, gw
    return gx, gw, Op.table["sum"].run(flat, dims=(0,), keepdim=False)


linear = Op(
    "linear",
    doc="x @ weight.T + bias.  [..., in], [out, in] (, [out]) -> [..., out].",
    signature="(x, weight, bias=None)",
    prepare=_linear_prepare,
    infer=_linear_infer,
    reference=rounded(lambda xp, x, weight, bias=0: xp.matmul(x, weight.T) + bias),
    grad=_linear_grad,
    lowering=Composite(_linear),
    dtypes=FLOATING_COMPLEX,
    samples=(
        call(fill(3, 4), fill(5, 4), fill(5)),
        call(fill(3, 4), fill(5, 4)),
        call(fill(4), fill(2, 4), fill(2)),
        call(fill(2, 3, 7), fill(33, 7), fill(33)),
        call(fill(0, 4), fill(5, 4), fill(5)),
        call(fill(1, 1), fill(1, 1), fill(1)),
    ),
    bad=(
        Bad((fill(3, 4), fill(4, 5)), RuntimeError, "linear: x has 4 features, weight takes 5"),
        Bad((fill(3, 4), fill(5, 4), fill(4)), RuntimeError, r"linear: bias must be of shape \[5\]"),
        Bad((fill(3, 4), [[1.0]]), TypeError, "linear: argument 'weight' must be a Tensor"),
    ),
    methods=(),
    functions=("nn.functional.linear",),
    autocast="lower",
)
