"""Tensors put together or repeated: cat, stack, pad_constant, roll, repeat.

Enters: tensors of one dtype, or promoted to one.  Leaves: operators.  Never here: taking apart (`views`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.dims import product
from graphc.dtypes import int64
from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Element, Op, Shape, Size, TensorType, broadcast_shapes, shape_text
from graphc.ops.arguments import is_zero, number, of_type, one_dim, promoted, same_dtype, sizes, tensor, tensors
from graphc.ops.declare import EVERY_COMPLEX, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import both, clamped, select
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import size as size_value
from graphc.ops.movement import Index, expand, reshape, slice_
from graphc.ops.views import part

# More tensors than this are joined in groups first: a kernel nests a select for each.
_AT_ONCE = 32

# ---- cat -----------------------------------------------------------------------------------------------------------


def _cat_prepare(tensors_: Any, dim: Any = 0) -> Prepared:
    if isinstance(tensors_, list | tuple) and not tensors_:
        raise ValueError("cat: expected a non-empty list of Tensors")
    given = tensors("cat", "tensors", tensors_)
    # PyTorch lets empty one-dim tensors stand for nothing, whatever the others' rank
    kept = [x for x in given if not (x.ndim == 1 and is_zero(x.shape[0]))] or [given[0]]
    for i, x in enumerate(kept):
        if x.ndim == 0:
            raise RuntimeError(f"cat: zero-dimensional tensor (at position {i}) cannot be concatenated")
    inputs = promoted("cat", kept, [f"tensors[{i}]" for i in range(len(kept))])
    place = one_dim("cat", dim, kept[0].ndim)
    if len(inputs) > _AT_ONCE:
        _cat_infer(*map(of_type, inputs), dim=place)  # an error shows the tensors as they were given
    while len(inputs) > _AT_ONCE:
        inputs = tuple(cat.run(*inputs[i : i + _AT_ONCE], dim=place) for i in range(0, len(inputs), _AT_ONCE))
    return inputs, {"dim": place}


def _cat_infer(*types: TensorType, dim: int) -> TensorType:
    dtype = same_dtype("cat", types)
    first, total = types[0].shape, types[0].shape[dim]
    for other in types[1:]:
        rest = len(other.shape) == len(first) and all(
            a == b for k, (a, b) in enumerate(zip(first, other.shape, strict=True)) if k != dim
        )
        if not rest:
            raise RuntimeError(f"cat: sizes must match except in dim {dim}: {types[0]} and {other}")
        total = total + other.shape[dim]
    return TensorType(dtype, (*first[:dim], total, *first[dim + 1 :]))


def _cat_rule(load: Any, index: Index, in_types: Sequence[TensorType], out_type: TensorType, dim: int) -> Expr:
    """Nested selects; each input is read at an index forced inside it."""
    result: Expr | None = None
    here = size_value(index[dim])
    end: Size = out_type.shape[dim]
    for i in reversed(range(len(in_types))):
        size = in_types[i].shape[dim]
        start = end - size
        if not is_zero(size):
            place = index[dim] if size == out_type.shape[dim] else clamped(load, fn("sub", here, size_value(start)), size)
            value = load(i, (*index[:dim], place, *index[dim + 1 :]))
            result = value if result is None else select(fn("lt", here, size_value(end)), value, result)
        end = start
    return result if result is not None else literal(0, out_type.dtype)


def _cat_grad(g: Any, out: Any, *inputs: Any, dim: int) -> tuple[Any, ...]:
    gradients = []
    start: Size = 0
    for x in inputs:
        gradients.append(part(g, dim, start, start + x.shape[dim]))
        start = start + x.shape[dim]
    return tuple(gradients)


cat = Op(
    "cat",
    doc="Tensors joined along an existing dim, promoted to one dtype.  [..., n, ...] , [..., m, ...] -> [..., n + m, ...].",
    signature="(tensors, dim=0)",
    prepare=_cat_prepare,
    infer=_cat_infer,
    reference=lambda xp, *arrays, dim: xp.concatenate(arrays, axis=dim),
    grad=_cat_grad,
    lowering=Element(_cat_rule),
    attrs=("dim",),
    dtypes=EVERY_COMPLEX,
    samples=(
        call([fill(2, 3), fill(1, 3)]),
        call([fill(2, 3), fill(2, 33), fill(2, 1)], -1),
        call([fill(4)]),
        call([fill(0, 3), fill(2, 3)]),
        call([fill(2, 0), fill(2, 0)], 1),
        call([fill(0), fill(2, 3)], 1),
        call([fill(3), fill(2, dtype=int64, grad=False)]),
    ),
    bad=(
        Bad(([fill(2, 3), fill(2, 4)],), RuntimeError, "cat: sizes must match except in dim 0"),
        Bad(([],), ValueError, "cat: expected a non-empty list"),
        Bad(([fill(), fill()],), RuntimeError, "cat: zero-dimensional tensor"),
        Bad((fill(2, 3),), TypeError, "cat: argument 'tensors' must be a list or tuple"),
        Bad(([fill(2), 3],), TypeError, r"cat: argument 'tensors\[1\]' must be a Tensor"),
        Bad(([fill(2), fill(2)], 1), IndexError, "cat: Dimension out of range"),
    ),
    methods=(),
    functions=("cat", "concat", "concatenate"),
    renamed={"tensors": "input"},
)


def _stack_prepare(tensors_: Any, dim: Any = 0) -> Prepared:
    given = tensors("stack", "tensors", tensors_)
    for other in given[1:]:
        if tuple(other.shape) != tuple(given[0].shape):
            raise RuntimeError(f"stack: all tensors must be of one shape: {of_type(given[0])} and {of_type(other)}")
    return given, {"dim": one_dim("stack", dim, given[0].ndim + 1)}


def _stack(*inputs: Any, dim: int) -> Any:
    return cat([Op.table["unsqueeze"].run(x, dim=dim) for x in inputs], dim)


stack = Shorthand(
    "stack",
    doc="Tensors of one shape joined along a new dim.  n of [..., ...] -> [..., n, ...].",
    signature="(tensors, dim=0)",
    rule=_stack,
    prepare=_stack_prepare,
    attrs=("dim",),
    reference=lambda xp, *arrays, dim: xp.stack(arrays, axis=dim),
    dtypes=EVERY_COMPLEX,
    samples=(
        call([fill(2, 3), fill(2, 3)]),
        call([fill(33), fill(33), fill(33)], -1),
        call([fill(), fill()]),
        call([fill(0, 2), fill(0, 2)], 1),
    ),
    bad=(
        Bad(([fill(2), fill(3)],), RuntimeError, "stack: all tensors must be of one shape"),
        Bad(([fill(2)], 2), IndexError, "stack: Dimension out of range"),
    ),
    methods=(),
    renamed={"tensors": "input"},
)


# ---- pad -----------------------------------------------------------------------------------------------------------


def _pad_constant_rule(
    load: Any,
    index: Index,
    in_types: Sequence[TensorType],
    out_type: TensorType,
    starts: Shape,
    shape: Shape,
    value: Any,
) -> Expr:
    """x where the index lies in it, else value; the index into x is forced inside it."""
    (x,) = in_types
    outside = literal(value, out_type.dtype)
    condition: Expr | None = None
    inner: list[Size] = []
    for k, start in enumerate(starts):
        size = x.shape[k]
        if is_zero(size):
            return outside
        if size == shape[k]:
            inner.append(index[k])
            continue
        position = size_value(index[k] - start)
        inside = both(fn("ge", position, literal(0, int64)), fn("lt", position, size_value(size)))
        condition = inside if condition is None else both(condition, inside)
        inner.append(clamped(load, position, size))
    value_here: Expr = load(0, tuple(inner))
    return value_here if condition is None else select(condition, value_here, outside)


def _pad_constant_reference(xp: Any, x: Any, starts: Shape, shape: Shape, value: Any) -> Any:
    result = xp.empty(shape, x.dtype)
    result[...] = xp.asarray(value).astype(x.dtype)
    result[tuple(slice(b, b + n) for b, n in zip(starts, x.shape, strict=True))] = x
    return result


def _pad_constant_grad(g: Any, out: Any, x: Any, starts: Shape, shape: Shape, value: Any) -> tuple[Any]:
    stops = tuple(b + n for b, n in zip(starts, x.shape, strict=True))
    return (slice_.run(g, starts=starts, stops=stops, steps=(1,) * x.ndim),)


def _pad_constant_prepare(x: Any, starts: Any, shape: Any, value: Any = 0) -> Prepared:
    x = tensor("pad_constant", "x", x)
    starts, shape = sizes("pad_constant", (tuple(starts),), "starts"), sizes("pad_constant", (tuple(shape),), "shape")
    if not len(starts) == len(shape) == x.ndim:
        raise RuntimeError(f"pad_constant: starts and shape must give all {x.ndim} dims of {of_type(x)}")
    for start, size, whole in zip(starts, x.shape, shape, strict=True):
        if all(isinstance(v, int) for v in (start, size, whole)) and not 0 <= start <= whole - size:
            raise RuntimeError(f"pad_constant: {of_type(x)} at {shape_text(starts)} does not fit shape {shape_text(shape)}")
    return (x,), {"starts": starts, "shape": shape, "value": number("pad_constant", "value", value)}


pad_constant = Op(
    "pad_constant",
    doc="x at `starts` inside a tensor of one value.  [...] -> shape.",
    signature="(x, starts, shape, value=0)",
    prepare=_pad_constant_prepare,
    infer=lambda x, starts, shape, value: TensorType(x.dtype, shape),
    reference=_pad_constant_reference,
    grad=_pad_constant_grad,
    lowering=Element(_pad_constant_rule),
    attrs=("starts", "shape", "value"),
    dtypes=EVERY_COMPLEX,
    samples=(
        call(fill(2, 3), (1, 0), (4, 3)),
        call(fill(33), (2,), (40,), 1),
        call(fill(0, 2), (0, 1), (1, 4), 1),
        call(fill(), (), ()),
    ),
    bad=(Bad((fill(3), (2,), (4,)), RuntimeError, "pad_constant: .* does not fit shape"),),
    methods=(),
    functions=(),
)


# ---- roll, repeat --------------------------------------------------------------------------------------------------


def _roll(x: Any, shifts: Any, dims: Any = None) -> Any:
    x = tensor("roll", "x", x)
    if dims is None:
        flat = reshape.run(x, shape=(product(x.shape),))
        return reshape.run(_roll(flat, shifts, 0), shape=tuple(x.shape))
    amounts = tuple(shifts) if isinstance(shifts, tuple | list) else (shifts,)
    chosen = tuple(dims) if isinstance(dims, tuple | list) else (dims,)
    if len(amounts) != len(chosen):
        raise RuntimeError(f"roll: {len(amounts)} shifts but {len(chosen)} dims")
    given = x
    for amount, dim in zip(amounts, chosen, strict=True):
        k = one_dim("roll", dim, x.ndim)
        if x.ndim == 0:
            raise IndexError(f"roll: Dimension specified as {dim} but tensor has no dimensions")
        if is_zero(x.shape[k]):
            continue
        cut = -amount % x.shape[k]
        if cut != 0:
            x = cat.run(part(x, k, cut, x.shape[k]), part(x, k, 0, cut), dim=k)
    return Op.table["clone"].run(x) if x is given else x


roll = Shorthand(
    "roll",
    doc="Elements shifted along dims, what leaves comes back at the other end.  [...] -> [...].",
    rule=_roll,
    reference=lambda xp, x, shifts, dims=None: xp.roll(x, shifts, dims),
    dtypes=EVERY_COMPLEX,
    samples=(
        call(fill(3, 4), 1, 0),
        call(fill(33), -5, 0),
        call(fill(3, 4), (1, -2), (0, 1)),
        call(fill(3, 4), 5),
        call(fill(0, 2), 1, 0),
    ),
    bad=(
        Bad((fill(3), (1, 2), 0), RuntimeError, "roll: 2 shifts but 1 dims"),
        Bad((fill(3), 1, 1), IndexError, "roll: Dimension out of range"),
    ),
)


def _repeat(x: Any, repeats: Shape) -> Any:
    if len(repeats) < x.ndim:
        raise RuntimeError(f"repeat: {len(repeats)} repeats given for {of_type(x)} of rank {x.ndim}")
    if any(isinstance(r, int) and r < 0 for r in repeats):
        raise RuntimeError(f"repeat: negative repeat in {shape_text(repeats)}")
    shape = (1,) * (len(repeats) - x.ndim) + tuple(x.shape)
    split_up = tuple(s for size in shape for s in (1, size))
    grown = tuple(s for r, size in zip(repeats, shape, strict=True) for s in (r, size))
    wide = Op.table["clone"].run(expand.run(reshape.run(x, shape=split_up), shape=grown))  # never a view
    return reshape.run(wide, shape=tuple(r * size for r, size in zip(repeats, shape, strict=True)))


def _sized(name: str) -> Any:
    def prepare(x: Any, *repeats: Any) -> Prepared:
        return (tensor(name, "x", x),), {"repeats": sizes(name, repeats, "repeats")}

    return prepare


repeat = Shorthand(
    "repeat",
    doc="The whole tensor repeated along each dim.  [n, ...] -> [repeats[0] * n, ...].",
    signature="(x, *repeats)",
    rule=_repeat,
    prepare=_sized("repeat"),
    attrs=("repeats",),
    reference=lambda xp, x, repeats: xp.tile(x, repeats),
    dtypes=EVERY_COMPLEX,
    samples=(
        call(fill(2, 3), 2, 1),
        call(fill(3), (2, 2)),
        call(fill(), 3),
        call(fill(33), 0),
        call(fill(1, 2), 4, 3, 2),
    ),
    bad=(
        Bad((fill(2, 3), 2), RuntimeError, "repeat: 1 repeats given"),
        Bad((fill(2), -1), RuntimeError, "repeat: negative repeat"),
    ),
    functions=(),
    renamed={"repeats": "*"},
)

tile = Shorthand(
    "tile",
    doc="repeat, with missing leading repeats taken as 1.  [n, ...] -> [repeats[0] * n, ...].",
    signature="(x, *repeats)",
    rule=lambda x, repeats: _repeat(x, (1,) * (x.ndim - len(repeats)) + tuple(repeats)),
    prepare=_sized("tile"),
    attrs=("repeats",),
    reference=lambda xp, x, repeats: xp.tile(x, repeats),
    dtypes=EVERY_COMPLEX,
    samples=(call(fill(2, 3), 2), call(fill(3), (2, 2)), call(fill(), 3), call(fill(33), 0)),
    bad=(Bad((fill(2), 1.5), TypeError, "tile: argument 'repeats' must be ints"),),
    renamed={"dims": "*"},
)


def _meshgrid(*inputs: Any, indexing: str) -> tuple[Any, ...]:
    rank = len(inputs)
    flipped = indexing == "xy" and rank > 1
    places = [1, 0, *range(2, rank)] if flipped else list(range(rank))
    rows = [
        reshape.run(x, shape=tuple(x.shape[0] if k == place else 1 for k in range(rank)))
        for x, place in zip(inputs, places, strict=True)
    ]
    shape = broadcast_shapes("meshgrid", [tuple(r.shape) for r in rows])
    return tuple(expand.run(r, shape=shape) for r in rows)


def _meshgrid_prepare(*given: Any, indexing: str = "ij") -> Prepared:
    listed = given[0] if len(given) == 1 and isinstance(given[0], tuple | list) else given
    inputs = tensors("meshgrid", "tensors", list(listed))
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f"meshgrid: indexing must be 'ij' or 'xy', got {indexing!r}")
    for x in inputs:
        if x.ndim > 1:
            raise RuntimeError(f"meshgrid: expected tensors of rank 0 or 1, got {of_type(x)}")
    return tuple(x if x.ndim else reshape.run(x, shape=(1,)) for x in inputs), {"indexing": indexing}


meshgrid = Shorthand(
    "meshgrid",
    doc="Coordinates of a grid, one tensor a dim.  [n], [m] -> [n, m], [n, m].",
    signature="(*tensors, indexing='ij')",
    rule=_meshgrid,
    prepare=_meshgrid_prepare,
    attrs=("indexing",),
    reference=lambda xp, *arrays, indexing: tuple(xp.meshgrid(*arrays, indexing=indexing)),
    dtypes=EVERY_COMPLEX,
    samples=(call(fill(3), fill(4)), call(fill(2), fill(3), fill(1), indexing="xy"), call(fill(0), fill(2))),
    bad=(Bad((fill(2, 3), fill(2)), RuntimeError, "meshgrid: expected tensors of rank 0 or 1"),),
    methods=(),
)
