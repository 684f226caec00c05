"""Movement: the operators that only say where each element comes from, and basic slicing's inverse.

Enters: tensors.  Leaves: operators lowered to index arithmetic.  Never here: shorthands written with these (`views`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.dims import product
from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Element, Movement, Op, Shape, Size, TensorType, shape_text
from graphc.ops.arguments import constant, is_zero, of_type, one_dim, one_size, same_dtype, sizes, tensor, zeros_like
from graphc.ops.declare import EVERY_COMPLEX, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import both, clamped, select
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import size as size_value

Index = tuple[Size, ...]


# ---- reshape -------------------------------------------------------------------------------------------------------


def matched_groups(a: Sequence[Size], b: Sequence[Size]) -> list[tuple[range, range]]:
    """Split two shapes of equal element count into the smallest runs of dims of equal product, from the left."""
    groups: list[tuple[range, range]] = []
    i = j = 0
    while i < len(a) or j < len(b):
        i0, j0 = i, j
        left: Size = 1
        right: Size = 1
        if i < len(a) and j < len(b):
            left, right, i, j = a[i], b[j], i + 1, j + 1
            while left != right and (i < len(a) or j < len(b)):
                take_left = j == len(b) or (i < len(a) and (_less(left, right)))
                if take_left:
                    left, i = left * a[i], i + 1
                else:
                    right, j = right * b[j], j + 1
        else:
            i, j = len(a), len(b)
        groups.append((range(i0, i), range(j0, j)))
    return groups


def _less(a: Size, b: Size) -> bool:
    """Which side of a group to extend: the smaller; of symbolic sizes the one that divides the other."""
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    if isinstance(a, int) or isinstance(b, int):
        return isinstance(a, int)
    return len(a.terms) < len(b.terms) or len(str(a)) <= len(str(b))


def _reshape_index(index: Index, in_type: TensorType, out_type: TensorType, shape: Shape) -> Index:
    """Row-major position in the output, taken apart by the input's sizes, group by group, without dims of size 1."""
    result: list[Size] = [0] * in_type.rank
    if 0 in in_type.shape:
        return tuple(result)
    in_dims = [k for k, size in enumerate(in_type.shape) if size != 1]
    out_dims = [k for k, size in enumerate(out_type.shape) if size != 1]
    groups = matched_groups([in_type.shape[k] for k in in_dims], [out_type.shape[k] for k in out_dims])
    for ins, outs in groups:
        linear: Size = 0
        for k in outs:
            linear = linear * out_type.shape[out_dims[k]] + index[out_dims[k]]
        for k in reversed(ins):
            size = in_type.shape[in_dims[k]]
            result[in_dims[k]] = linear if k == ins[0] else linear % size
            linear = linear // size if k != ins[0] else linear
    return tuple(result)


def resolved_shape(name: str, x: TensorType, shape: Shape) -> Shape:
    """`shape` with its -1 worked out.  Raises RuntimeError where the element counts cannot agree."""
    unknown = [i for i, s in enumerate(shape) if isinstance(s, int) and s == -1]
    wrong = [s for s in shape if isinstance(s, int) and s < -1]
    if len(unknown) > 1 or wrong:
        reason = "only one dimension can be inferred" if len(unknown) > 1 else f"invalid size {wrong[0]}"
        raise RuntimeError(f"{name}: {reason}: {shape_text(shape)}")
    total = product(x.shape)
    if unknown:
        known = product(s for i, s in enumerate(shape) if i != unknown[0])
        if is_zero(known):
            raise RuntimeError(f"{name}: the -1 of shape {shape_text(shape)} is ambiguous for {x}")
        missing = total // known
        shape = (*shape[: unknown[0]], missing, *shape[unknown[0] + 1 :])
    if product(shape) != total:
        raise RuntimeError(f"{name}: shape {shape_text(shape)} is invalid for input of size {total}: {x}")
    return shape


def _reshape_prepare(x: Any, *shape: Any, **kwargs: Any) -> Prepared:
    x = tensor("reshape", "x", x)
    if set(kwargs) - {"shape"} or bool(kwargs) == bool(shape):
        raise TypeError("reshape: expected one argument 'shape'")
    given = sizes("reshape", (kwargs["shape"],) if kwargs else shape)
    return (x,), {"shape": resolved_shape("reshape", of_type(x), given)}


reshape: Op = Op(
    "reshape",
    doc="The same elements in row-major order with another shape; one size may be -1.  [...] -> shape.",
    signature="(x, *shape)",
    prepare=_reshape_prepare,
    infer=lambda x, shape: TensorType(x.dtype, resolved_shape("reshape", x, shape)),
    reference=lambda xp, x, shape: x.reshape(shape),
    grad=lambda g, out, x, shape: (reshape.run(g, shape=tuple(x.shape)),),
    lowering=Movement(_reshape_index),
    attrs=("shape",),
    dtypes=EVERY_COMPLEX,
    samples=(
        call(fill(3, 4), (2, 6)),
        call(fill(3, 4), -1),
        call(fill(), (1, 1)),
        call(fill(0, 4), (2, 0)),
        call(fill(2, 3, 5), 6, -1),
        call(fill(33), (3, 11)),
        call(fill(1), ()),
        call(fill(4, 6), (2, 2, 3, 2)),
    ),
    bad=(
        Bad((fill(3, 4), (5, 2)), RuntimeError, r"reshape: shape \[5, 2\] is invalid for input of size 12"),
        Bad((fill(3, 4), (-1, -1)), RuntimeError, "reshape: only one dimension can be inferred"),
        Bad((fill(3, 4), (-1, 5)), RuntimeError, "reshape: shape .* is invalid"),
        Bad((fill(3), 1.5), TypeError, "reshape: argument 'shape' must be ints"),
    ),
)


# ---- permute -------------------------------------------------------------------------------------------------------


def inverse(order: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes `order`."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def _permute_prepare(x: Any, *dims: Any) -> Prepared:
    x = tensor("permute", "x", x)
    given = dims[0] if len(dims) == 1 and isinstance(dims[0], tuple | list) else dims
    if len(given) != x.ndim:
        raise RuntimeError(f"permute: {len(given)} dims given for {of_type(x)} of rank {x.ndim}")
    order = tuple(one_dim("permute", d, x.ndim) for d in given)
    if len(set(order)) != len(order):
        raise RuntimeError(f"permute: duplicate dims are not allowed: {shape_text(order)}")
    return (x,), {"dims": order}


permute: Op = Op(
    "permute",
    doc="Dims in another order.  [d0, d1, ...] -> [d[dims[0]], d[dims[1]], ...].",
    signature="(x, *dims)",
    prepare=_permute_prepare,
    infer=lambda x, dims: TensorType(x.dtype, tuple(x.shape[d] for d in dims)),
    reference=lambda xp, x, dims: xp.transpose(x, dims),
    grad=lambda g, out, x, dims: (permute.run(g, dims=inverse(dims)),),
    lowering=Movement(lambda index, in_type, out_type, dims: tuple(index[k] for k in inverse(dims))),
    attrs=("dims",),
    dtypes=EVERY_COMPLEX,
    samples=(
        call(fill(3, 4), 1, 0),
        call(fill(2, 3, 5), (2, 0, 1)),
        call(fill(), ()),
        call(fill(0, 3), -1, 0),
        call(fill(33), 0),
    ),
    bad=(
        Bad((fill(3, 4), 0), RuntimeError, "permute: 1 dims given"),
        Bad((fill(3, 4), 0, 0), RuntimeError, "permute: duplicate dims"),
        Bad((fill(3, 4), 0, 2), IndexError, "permute: Dimension out of range"),
    ),
    renamed={"dims": "*"},
)


# ---- expand --------------------------------------------------------------------------------------------------------


def _expanded(x: TensorType, shape: Shape) -> Shape:
    """`shape` with -1 replaced with the input's sizes.  Raises RuntimeError."""
    lead = len(shape) - x.rank
    if lead < 0:
        raise RuntimeError(f"expand: {len(shape)} sizes given for {x} of rank {x.rank}")
    result: list[Size] = []
    for k, size in enumerate(shape):
        have = x.shape[k - lead] if k >= lead else None
        if isinstance(size, int) and size == -1 and have is not None:
            size = have
        if isinstance(size, int) and size < 0 or (have is not None and have != 1 and have != size):
            raise RuntimeError(f"expand: size {size} at dim {k} does not fit {x}: {shape_text(shape)}")
        result.append(size)
    return tuple(result)


def _expand_prepare(x: Any, *shape: Any) -> Prepared:
    x = tensor("expand", "x", x)
    return (x,), {"shape": _expanded(of_type(x), sizes("expand", shape))}


def _expand_index(index: Index, in_type: TensorType, out_type: TensorType, shape: Shape) -> Index:
    lead = out_type.rank - in_type.rank
    return tuple(0 if size == 1 else index[lead + k] for k, size in enumerate(in_type.shape))


def _expand_grad(g: Any, out: Any, x: Any, shape: Shape) -> tuple[Any]:
    return (summed_to(g, tuple(x.shape)),)


def summed_to(g: Any, shape: Shape) -> Any:
    """`g` summed over the dims that broadcasting from `shape` added or stretched."""
    lead = g.ndim - len(shape)
    stretched = [k + lead for k, size in enumerate(shape) if size == 1 and g.shape[k + lead] != 1]
    dims = (*range(lead), *stretched)
    if dims:
        g = Op.table["sum"].run(g, dims=dims, keepdim=False)
    return g if tuple(g.shape) == shape else reshape.run(g, shape=shape)


expand = Op(
    "expand",
    doc="Dims of size 1 repeated without copying; -1 keeps a size.  [...] -> shape.",
    signature="(x, *sizes)",
    prepare=_expand_prepare,
    infer=lambda x, shape: TensorType(x.dtype, _expanded(x, shape)),
    reference=lambda xp, x, shape: x if tuple(x.shape) == tuple(shape) else xp.broadcast_to(x, shape),
    grad=_expand_grad,
    lowering=Movement(_expand_index),
    attrs=("shape",),
    dtypes=EVERY_COMPLEX,
    samples=(
        call(fill(3, 1), 3, 4),
        call(fill(3), (2, -1)),
        call(fill(), (2, 2)),
        call(fill(1, 4), -1, 4),
        call(fill(1), 0),
        call(fill(2, 1, 3), (2, 33, 3)),
        call(fill(4), 4),
    ),
    bad=(
        Bad((fill(3, 4), 3, 5), RuntimeError, "expand: size 5 at dim 1 does not fit"),
        Bad((fill(3, 4), 4), RuntimeError, "expand: 1 sizes given"),
        Bad((fill(3), -1, 3), RuntimeError, "expand: size -1 at dim 0"),
    ),
    renamed={"size": "*"},
)


# ---- squeeze, unsqueeze --------------------------------------------------------------------------------------------


def _squeeze_prepare(x: Any, dim: Any = None) -> Prepared:
    x = tensor("squeeze", "x", x)
    if dim is None:
        chosen: tuple[int, ...] = tuple(range(x.ndim))
    else:
        given = dim if isinstance(dim, tuple | list) else (dim,)
        chosen = tuple(sorted({one_dim("squeeze", d, x.ndim) for d in given})) if x.ndim else ()
        if x.ndim == 0:
            for d in given:
                one_dim("squeeze", d, 0)
    return (x,), {"dims": tuple(d for d in chosen if x.shape[d] == 1)}


def _squeeze_infer(x: TensorType, dims: tuple[int, ...]) -> TensorType:
    for d in dims:
        if x.shape[d] != 1:
            raise RuntimeError(f"squeeze: dim {d} of {x} is not of size 1")
    return TensorType(x.dtype, tuple(s for k, s in enumerate(x.shape) if k not in dims))


def _squeeze_index(index: Index, in_type: TensorType, out_type: TensorType, dims: tuple[int, ...]) -> Index:
    kept = iter(index)
    return tuple(0 if k in dims else next(kept) for k in range(in_type.rank))


squeeze = Op(
    "squeeze",
    doc="Dims of size 1 removed: all, or those of `dim` that are.  [..., 1, ...] -> [..., ...].",
    signature="(x, dim=None)",
    prepare=_squeeze_prepare,
    infer=_squeeze_infer,
    reference=lambda xp, x, dims: xp.squeeze(x, axis=dims),
    grad=lambda g, out, x, dims: (reshape.run(g, shape=tuple(x.shape)),),
    lowering=Movement(_squeeze_index),
    attrs=("dims",),
    dtypes=EVERY_COMPLEX,
    samples=(
        call(fill(1, 3, 1)),
        call(fill(1, 3, 1), 0),
        call(fill(1, 3, 1), (0, -1)),
        call(fill(3), 0),
        call(fill()),
        call(fill(0, 1)),
    ),
    bad=(
        Bad((fill(3, 1), 2), IndexError, "squeeze: Dimension out of range"),
        Bad((fill(3), 1.0), TypeError, "squeeze: argument 'dim'"),
    ),
    inplace=True,
)


def _unsqueeze_prepare(x: Any, dim: Any) -> Prepared:
    x = tensor("unsqueeze", "x", x)
    return (x,), {"dim": one_dim("unsqueeze", dim, x.ndim + 1)}


unsqueeze = Op(
    "unsqueeze",
    doc="A dim of size 1 put in at `dim`.  [..., ...] -> [..., 1, ...].",
    signature="(x, dim)",
    prepare=_unsqueeze_prepare,
    infer=lambda x, dim: TensorType(x.dtype, (*x.shape[:dim], 1, *x.shape[dim:])),
    reference=lambda xp, x, dim: xp.expand_dims(x, dim),
    grad=lambda g, out, x, dim: (squeeze.run(g, dims=(dim,)),),
    lowering=Movement(lambda index, in_type, out_type, dim: (*index[:dim], *index[dim + 1 :])),
    attrs=("dim",),
    dtypes=EVERY_COMPLEX,
    samples=(call(fill(3, 4), 0), call(fill(3, 4), -1), call(fill(), 0), call(fill(0, 2), 1), call(fill(33), -2)),
    bad=(
        Bad((fill(3), 3), IndexError, "unsqueeze: Dimension out of range"),
        Bad((fill(3), None), TypeError, "unsqueeze: argument 'dim'"),
    ),
    inplace=True,
)


# ---- flip ----------------------------------------------------------------------------------------------------------


def _flip_prepare(x: Any, *dims: Any) -> Prepared:
    x = tensor("flip", "x", x)
    given = dims[0] if len(dims) == 1 and isinstance(dims[0], tuple | list) else dims
    chosen = tuple(sorted(one_dim("flip", d, x.ndim) for d in given))
    if len(set(chosen)) != len(chosen):
        raise RuntimeError(f"flip: a dim appears multiple times in {shape_text(tuple(given))}")
    return (x,), {"dims": chosen if x.ndim else ()}


flip: Op = Op(
    "flip",
    doc="Elements in reverse order along `dims`.  [...] -> [...].",
    signature="(x, *dims)",
    prepare=_flip_prepare,
    infer=lambda x, dims: x,
    reference=lambda xp, x, dims: xp.flip(x, dims),
    grad=lambda g, out, x, dims: (flip.run(g, dims=dims),),
    lowering=Movement(
        lambda index, in_type, out_type, dims: tuple(in_type.shape[k] - 1 - i if k in dims else i for k, i in enumerate(index))
    ),
    attrs=("dims",),
    dtypes=EVERY_COMPLEX,
    samples=(
        call(fill(3, 4), 0),
        call(fill(3, 4), (0, -1)),
        call(fill(33), 0),
        call(fill(0, 2), 1),
        call(fill(2, 3), ()),
        call(fill(), ()),
    ),
    bad=(
        Bad((fill(3), 1), IndexError, "flip: Dimension out of range"),
        Bad((fill(3, 4), 0, 0), RuntimeError, "flip: a dim appears multiple times"),
    ),
    renamed={"dims": "*"},
)


# ---- slice and its inverse -----------------------------------------------------------------------------------------


def _length(start: Size, stop: Size, step: Size) -> Size:
    """Elements of range(start, stop, step) for start <= stop, step > 0."""
    return (stop - start + step - 1) // step


def _canonical_slices(name: str, x: Any, starts: Any, stops: Any, steps: Any) -> dict[str, Shape]:
    """Starts, stops and steps of all dims.  Raises RuntimeError unless 0 <= start <= stop <= size and step > 0."""
    rank = x.ndim
    steps = (1,) * rank if steps is None else steps
    given = {"starts": starts, "stops": stops, "steps": steps}
    attrs = {k: tuple(one_size(name, k, v) for v in values) for k, values in given.items()}
    if any(len(v) != rank for v in attrs.values()):
        raise RuntimeError(f"{name}: starts, stops and steps must give all {rank} dims of {of_type(x)}")
    _check_slices(name, of_type(x), **attrs)
    return attrs


def _check_slices(name: str, x: TensorType, starts: Shape, stops: Shape, steps: Shape) -> None:
    for size, start, stop, step in zip(x.shape, starts, stops, steps, strict=True):
        wrong_order = isinstance(start, int) and isinstance(stop, int) and not 0 <= start <= stop
        outside = isinstance(stop, int) and isinstance(size, int) and stop > size
        if wrong_order or outside or (isinstance(step, int) and step < 1):
            raise RuntimeError(f"{name}: slice {start}:{stop}:{step} of size {size} is not canonical: {x}")


def _slice_infer(x: TensorType, starts: Shape, stops: Shape, steps: Shape) -> TensorType:
    _check_slices("slice", x, starts, stops, steps)
    return TensorType(x.dtype, tuple(map(_length, starts, stops, steps)))


def python_slices(starts: Shape, stops: Shape, steps: Shape) -> tuple[slice, ...]:
    """The attributes as Python slices."""
    return tuple(map(slice, starts, stops, steps))


def _slice_grad(g: Any, out: Any, x: Any, starts: Shape, stops: Shape, steps: Shape) -> tuple[Any]:
    return (slice_scatter.run(zeros_like(x), g, starts=starts, stops=stops, steps=steps),)


_SLICES = (
    ((3, 4), (0, 1), (3, 3), (1, 1)),
    ((33,), (2,), (31,), (3,)),
    ((2, 3), (1, 0), (1, 3), (1, 2)),
    ((), (), (), ()),
    ((4, 5), (1, 0), (4, 5), (2, 4)),
    ((0, 3), (0, 0), (0, 2), (1, 1)),
)

slice_ = Op(
    "slice",
    doc="Basic slicing of every dim with 0 <= start <= stop <= size and step > 0.  [...] -> [ceil((stop - start) / step), ...].",
    signature="(x, starts, stops, steps=None)",
    prepare=lambda x, starts, stops, steps=None: (
        (tensor("slice", "x", x),),
        _canonical_slices("slice", x, starts, stops, steps),
    ),
    infer=_slice_infer,
    reference=lambda xp, x, starts, stops, steps: x[python_slices(starts, stops, steps) or ...],
    grad=_slice_grad,
    lowering=Movement(
        lambda index, in_type, out_type, starts, stops, steps: tuple(
            b + i * s for i, b, s in zip(index, starts, steps, strict=True)
        )
    ),
    attrs=("starts", "stops", "steps"),
    dtypes=EVERY_COMPLEX,
    samples=tuple(call(fill(*shape), *how) for shape, *how in _SLICES),
    bad=(
        Bad((fill(3), (0,), (4,)), RuntimeError, "slice: slice 0:4:1 of size 3 is not canonical"),
        Bad((fill(3, 4), (0,), (2,)), RuntimeError, "slice: starts, stops and steps must give all 2 dims"),
        Bad((fill(3), (0,), (2,), (0,)), RuntimeError, "slice: slice 0:2:0"),
    ),
    methods=(),
    functions=(),
)


def _slice_scatter_infer(x: TensorType, src: TensorType, starts: Shape, stops: Shape, steps: Shape) -> TensorType:
    same_dtype("slice_scatter", (x, src))
    taken = tuple(map(_length, starts, stops, steps))
    _check_slices("slice_scatter", x, starts, stops, steps)
    if src.shape != taken:
        raise RuntimeError(f"slice_scatter: the slice is {shape_text(taken)}, src is {src}")
    return x


def _slice_scatter_rule(
    load: Any,
    index: Index,
    in_types: Sequence[TensorType],
    out_type: TensorType,
    starts: Shape,
    stops: Shape,
    steps: Shape,
) -> Expr:
    """src where the index lies in the slice, else x; the index into src is forced inside it."""
    condition: Expr | None = None
    inner: list[Size] = []
    for k, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
        size = in_types[1].shape[k]
        if is_zero(size):
            return load(0, index)  # type: ignore[no-any-return]
        if start == 0 and step == 1 and size == out_type.shape[k]:
            inner.append(index[k])
            continue
        here = size_value(index[k])
        tests = [fn("ge", here, size_value(start)), fn("lt", here, size_value(stop))]
        if step != 1:
            tests.append(fn("eq", size_value((index[k] - start) % step), literal(0, here.dtype)))
        for test in tests:
            condition = test if condition is None else both(condition, test)
        position = fn("sub", here, size_value(start)) if step == 1 else size_value((index[k] - start) // step)
        inner.append(clamped(load, position, size))
    taken: Expr = load(1, tuple(inner))
    return taken if condition is None else select(condition, taken, load(0, index))


def _slice_scatter_reference(xp: Any, x: Any, src: Any, starts: Shape, stops: Shape, steps: Shape) -> Any:
    result = xp.array(x)
    result[python_slices(starts, stops, steps) or ...] = src
    return result


def _slice_scatter_grad(g: Any, out: Any, x: Any, src: Any, starts: Shape, stops: Shape, steps: Shape) -> tuple[Any, Any]:
    where = {"starts": starts, "stops": stops, "steps": steps}
    hole = constant(0, g.dtype, tuple(src.shape))
    return slice_scatter.run(g, hole, **where), slice_.run(g, **where)


def _slice_scatter_prepare(x: Any, src: Any, starts: Any, stops: Any, steps: Any = None) -> Prepared:
    x, src = tensor("slice_scatter", "x", x), tensor("slice_scatter", "src", src)
    return (x, src), _canonical_slices("slice_scatter", x, starts, stops, steps)


slice_scatter = Op(
    "slice_scatter",
    doc="x with a basic slice of it replaced by src.  [...] , [slice] -> [...].",
    signature="(x, src, starts, stops, steps=None)",
    prepare=_slice_scatter_prepare,
    infer=_slice_scatter_infer,
    reference=_slice_scatter_reference,
    grad=_slice_scatter_grad,
    lowering=Element(_slice_scatter_rule),
    attrs=("starts", "stops", "steps"),
    dtypes=EVERY_COMPLEX,
    samples=tuple(
        call(fill(*shape), fill(*(len(range(a, b, s)) for a, b, s in zip(*how, strict=True))), *how) for shape, *how in _SLICES
    ),
    bad=(
        Bad((fill(3), fill(2), (0,), (1,)), RuntimeError, r"slice_scatter: the slice is \[1\], src is"),
        Bad((fill(3), fill(5), (0,), (5,)), RuntimeError, "slice_scatter: slice 0:5:1 of size 3"),
        Bad((fill(3), 2.0, (0,), (1,)), TypeError, "slice_scatter: argument 'src'"),
    ),
    methods=(),
    functions=(),
)
