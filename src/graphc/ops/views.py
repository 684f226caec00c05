"""Other ways of writing movement: view, transpose, flatten, narrow, split and their kin, each opened at the call.

Enters: tensors.  Leaves: operators that never stand in a graph.  Never here: index arithmetic (`movement`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dims import product
from graphc.dtypes import int64
from graphc.ir.op import Bad, Op, Shape, Size
from graphc.ops.arguments import is_tensor, of_type, one_dim, one_size, tensor
from graphc.ops.arguments import sizes as as_shape
from graphc.ops.declare import EVERY_COMPLEX, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.movement import expand, permute, reshape, resolved_shape, slice_, squeeze


def _sized(name: str, key: str = "shape") -> Any:
    """prepare of ``f(x, *sizes)``."""

    def prepare(x: Any, *given: Any) -> Prepared:
        return (tensor(name, "x", x),), {key: as_shape(name, given, key)}

    return prepare


def _shorthand(name: str, doc: str, rule: Any, reference: Any, samples: Any, bad: Any = (), **more: Any) -> Shorthand:
    return Shorthand(name, doc=doc, rule=rule, reference=reference, samples=samples, bad=bad, dtypes=EVERY_COMPLEX, **more)


view = _shorthand(
    "view",
    "reshape; the eager layer refuses what would need a copy.  [...] -> shape.",
    lambda x, shape: reshape.run(x, shape=resolved_shape("view", of_type(x), shape)),
    lambda xp, x, shape: x.reshape(shape),
    (call(fill(3, 4), 2, 6), call(fill(3, 4), (-1,)), call(fill(), 1), call(fill(0, 2), 2, 0)),
    (Bad((fill(3, 4), 5), RuntimeError, r"view: shape \[5\] is invalid for input of size 12"),),
    signature="(x, *shape)",
    prepare=_sized("view"),
    functions=(),
)


def _like(name: str, target: Op, doc: str, reference: Any) -> Shorthand:
    def rule(x: Any, other: Any) -> Any:
        return target(tensor(name, "x", x), tuple(tensor(name, "other", other).shape))

    return _shorthand(
        name,
        doc,
        rule,
        reference,
        (
            call(fill(2, 1, 3), fill(2, 1, 3, grad=False)),
            call(fill(), fill(1, 1, grad=False)),
            call(fill(1, 1), fill(1, 1, grad=False)),
        ),
        (Bad((fill(2), 3), TypeError, f"{name}: argument 'other' must be a Tensor"),),
        functions=(),
        grad=None,
    )


view_as = _like("view_as", reshape, "reshape to the shape of other.  [...] , [...] -> [...].", lambda xp, x, o: x.reshape(o.shape))
reshape_as = _like(
    "reshape_as",
    reshape,
    "reshape to the shape of other.  [...] , [...] -> [...].",
    lambda xp, x, o: x.reshape(o.shape),
)
expand_as = _like(
    "expand_as",
    expand,
    "expand to the shape of other.  [...] , [...] -> [...].",
    lambda xp, x, o: xp.broadcast_to(x, o.shape),
)
broadcast_to = _shorthand(
    "broadcast_to",
    "expand to a shape.  [...] -> shape.",
    lambda x, shape: expand(tensor("broadcast_to", "x", x), shape),
    lambda xp, x, shape: xp.broadcast_to(x, shape),
    (call(fill(3), (2, 3)), call(fill(), (4,)), call(fill(1, 3), (0, 3)), call(fill(33, 1), (33, 2))),
    (Bad((fill(3), (4,)), RuntimeError, "expand: size 4 at dim 0"),),
    signature="(x, *size)",
    prepare=_sized("broadcast_to"),
    renamed={"size": "*"},
)


# ---- order of dims -------------------------------------------------------------------------------------------------


def _transpose(x: Any, dim0: int, dim1: int) -> Any:
    x = tensor("transpose", "x", x)
    a, b = one_dim("transpose", dim0, x.ndim), one_dim("transpose", dim1, x.ndim)
    order = list(range(x.ndim))
    if order:
        order[a], order[b] = b, a
    return permute.run(x, dims=tuple(order))


transpose = _shorthand(
    "transpose",
    "Two dims exchanged.  [..., a, ..., b, ...] -> [..., b, ..., a, ...].",
    _transpose,
    lambda xp, x, dim0, dim1: xp.swapaxes(x, dim0, dim1) if x.ndim else x,
    (
        call(fill(3, 4), 0, 1),
        call(fill(2, 3, 5), -1, 0),
        call(fill(), 0, -1),
        call(fill(0, 3), 0, 1),
        call(fill(33), 0, 0),
    ),
    (Bad((fill(3), 0, 1), IndexError, "transpose: Dimension out of range"),),
    methods=("transpose", "swapaxes", "swapdims"),
    functions=("transpose", "swapaxes", "swapdims"),
    inplace=True,
    renamed={"axis0": "dim0", "axis1": "dim1"},
)


def _t(x: Any) -> Any:
    x = tensor("t", "x", x)
    if x.ndim > 2:
        raise RuntimeError(f"t: expected a tensor with at most 2 dims, got {of_type(x)}")
    return permute.run(x, dims=tuple(reversed(range(x.ndim))))


t = _shorthand(
    "t",
    "The transpose of a matrix.  [n, m] -> [m, n].",
    _t,
    lambda xp, x: x.T,
    (call(fill(3, 4)), call(fill(33)), call(fill()), call(fill(0, 2))),
    (Bad((fill(2, 3, 4),), RuntimeError, "t: expected a tensor with at most 2 dims"),),
    inplace=True,
)


def _adjoint(x: Any) -> Any:
    x = tensor("adjoint", "x", x)
    if x.ndim < 2:
        raise RuntimeError(f"adjoint: expected a matrix or a batch of matrices, got {of_type(x)}")
    return Op.table["conj"](_transpose(x, -2, -1)) if x.dtype.kind == "c" else _transpose(x, -2, -1)


adjoint = _shorthand(
    "adjoint",
    "The conjugate transpose of matrices.  [..., n, m] -> [..., m, n].",
    _adjoint,
    lambda xp, x: xp.conj(xp.swapaxes(x, -2, -1)) if x.dtype.kind == "c" else xp.swapaxes(x, -2, -1),
    (call(fill(3, 4)), call(fill(2, 3, 33)), call(fill(0, 2))),
    (Bad((fill(3),), RuntimeError, "adjoint: expected a matrix"),),
)


def _movedim(x: Any, source: Any, destination: Any) -> Any:
    x = tensor("movedim", "x", x)
    if isinstance(source, int) != isinstance(destination, int):
        raise TypeError("movedim: source and destination must both be ints or both be tuples of ints")
    from_, to = ([d] if isinstance(d, int) else list(d) for d in (source, destination))
    if len(from_) != len(to):
        raise RuntimeError(f"movedim: {len(from_)} source dims but {len(to)} destination dims")
    from_, to = ([one_dim("movedim", d, x.ndim) for d in given] for given in (from_, to))
    if len(set(from_)) != len(from_) or len(set(to)) != len(to):
        raise RuntimeError(f"movedim: repeated dim in {source} or {destination}")
    order = [d for d in range(x.ndim) if d not in from_]
    for destination_dim, source_dim in sorted(zip(to, from_, strict=True)):
        order.insert(destination_dim, source_dim)
    return permute.run(x, dims=tuple(order))


movedim = _shorthand(
    "movedim",
    "Dims moved to other places, the rest in order.  [...] -> [...].",
    _movedim,
    lambda xp, x, source, destination: xp.moveaxis(x, source, destination),
    (call(fill(2, 3, 4), 0, 2), call(fill(2, 3, 4), (0, 1), (-1, 0)), call(fill(0, 3), 1, 0), call(fill(33), 0, 0)),
    (
        Bad((fill(2, 3), (0, 1), (0,)), RuntimeError, "movedim: 2 source dims but 1"),
        Bad((fill(2, 3), (0, 1), 0), TypeError, "movedim: source and destination must both be"),
        Bad((fill(2, 3), 2, 0), IndexError, "movedim: Dimension out of range"),
    ),
    methods=("movedim", "moveaxis"),
    functions=("movedim", "moveaxis"),
)


# ---- merging and splitting dims ------------------------------------------------------------------------------------


def _flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    x = tensor("flatten", "x", x)
    start, end = one_dim("flatten", start_dim, x.ndim), one_dim("flatten", end_dim, x.ndim)
    if start > end:
        raise RuntimeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim} of {of_type(x)}")
    if x.ndim and start == end:
        return x
    return reshape.run(x, shape=(*x.shape[:start], product(x.shape[start : end + 1]), *x.shape[end + 1 :]))


def _flatten_reference(xp: Any, x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    rank = max(x.ndim, 1)
    start, end = start_dim % rank, end_dim % rank
    merged = int(np.prod(x.shape[start : end + 1]))
    return x.reshape((*x.shape[:start], merged, *x.shape[end + 1 :]))


flatten = _shorthand(
    "flatten",
    "Dims start_dim..end_dim merged into one.  [..., a, ..., b, ...] -> [..., a*...*b, ...].",
    _flatten,
    _flatten_reference,
    (
        call(fill(2, 3, 4)),
        call(fill(2, 3, 4), 1),
        call(fill(2, 3, 4), 0, 1),
        call(fill()),
        call(fill(0, 3)),
        call(fill(33)),
    ),
    (
        Bad((fill(2, 3), 1, 0), RuntimeError, "flatten: start_dim 1 comes after end_dim 0"),
        Bad((fill(2, 3), 2), IndexError, "flatten: Dimension out of range"),
    ),
)


ravel = _shorthand(
    "ravel",
    "All dims merged into one.  [...] -> [n].",
    lambda x: reshape.run(tensor("ravel", "x", x), shape=(product(x.shape),)),
    lambda xp, x: x.reshape(-1),
    (call(fill(2, 3)), call(fill()), call(fill(0, 3)), call(fill(33))),
    (Bad((3.0,), TypeError, "ravel: argument 'x' must be a Tensor"),),
)


def _unflatten(x: Any, dim: int, sizes: Any) -> Any:
    x = tensor("unflatten", "x", x)
    k = one_dim("unflatten", dim, x.ndim)
    given = as_shape("unflatten", (tuple(sizes),), "sizes")
    part = resolved_shape("unflatten", type(of_type(x))(x.dtype, (x.shape[k],)), given)
    return reshape.run(x, shape=(*x.shape[:k], *part, *x.shape[k + 1 :]))


def _unflatten_reference(xp: Any, x: Any, dim: int, sizes: Any) -> Any:
    k = dim % x.ndim
    return x.reshape((*x.shape[:k], *xp.empty(x.shape[k]).reshape(sizes).shape, *x.shape[k + 1 :]))


unflatten = _shorthand(
    "unflatten",
    "One dim split into several.  [..., a*b, ...] -> [..., a, b, ...].",
    _unflatten,
    _unflatten_reference,
    (call(fill(6, 2), 0, (2, 3)), call(fill(2, 33), -1, (-1, 11)), call(fill(0, 3), 0, (0, 2))),
    (Bad((fill(6), 0, (4, 2)), RuntimeError, "unflatten: shape .* is invalid for input of size 6"),),
    functions=("unflatten",),
)

# ---- parts of one dim ----------------------------------------------------------------------------------------------


def part(x: Any, dim: int, start: Size, stop: Size) -> Any:
    """x[start:stop] along a canonical dim."""
    starts: list[Size] = [0] * x.ndim
    stops: list[Size] = list(x.shape)
    starts[dim], stops[dim] = start, stop
    return slice_.run(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.ndim)


def _along(x: Any, dim: int, start: int, stop: int) -> Any:
    """`part` for arrays."""
    return x[(slice(None),) * (dim % x.ndim) + (slice(start, stop),)]


def _narrow(x: Any, dim: int, start: Any, length: Any) -> Any:
    x = tensor("narrow", "x", x)
    k = one_dim("narrow", dim, x.ndim)
    if x.ndim == 0:
        raise RuntimeError("narrow: cannot be applied to a 0-dim tensor")
    length, size = one_size("narrow", "length", length), x.shape[k]
    if is_tensor(start):
        return _narrow_from(x, k, start, length)
    start = one_size("narrow", "start", start)
    if isinstance(size, int) and isinstance(start, int):
        if not -size <= start <= size:
            raise IndexError(f"narrow: start {start} out of range (expected to be in range of [{-size}, {size}]) for {of_type(x)}")
        start = start + size if start < 0 else start
    known = all(isinstance(v, int) for v in (size, start, length))
    if known and (min(start, length) < 0 or start + length > size):
        raise RuntimeError(f"narrow: start {start} and length {length} exceed dim {k} of {of_type(x)}")
    return part(x, k, start, start + length)


def _narrow_from(x: Any, dim: int, start: Any, length: Size) -> Any:
    """`narrow` from a place that only the elements of a tensor know; a copy."""
    if start.ndim or start.dtype.kind not in "iu":
        raise RuntimeError(f"narrow: argument 'start' must be an integer tensor of 0 dims, got {of_type(start)}")
    start = Op.table["cast"].run(start, dtype=int64) if start.dtype is not int64 else start
    start = Op.table["where"](Op.table["lt"](start, 0), Op.table["add"](start, x.shape[dim]), start)
    places = Op.table["add"](Op.table["iota"].run(size=length, dtype=int64), start)
    return Op.table["index_select"].run(x, places, dim=dim)


narrow = _shorthand(
    "narrow",
    "`length` elements of one dim from `start`.  [..., n, ...] -> [..., length, ...].",
    _narrow,
    lambda xp, x, dim, start, length: _along(x, dim, start % x.shape[dim], start % x.shape[dim] + length),
    (call(fill(5, 3), 0, 1, 3), call(fill(3, 33), -1, 2, 31), call(fill(4), 0, -2, 2), call(fill(4, 2), 0, 0, 0)),
    (
        Bad((fill(5), 0, 3, 3), RuntimeError, "narrow: start 3 and length 3 exceed dim 0"),
        Bad((fill(5), 1, 0, 1), IndexError, "narrow: Dimension out of range"),
    ),
)


def _narrow_copy(x: Any, dim: int, start: Any, length: Any) -> Any:
    x = tensor("narrow_copy", "x", x)
    if dim >= x.ndim:
        raise RuntimeError(f"narrow_copy: dim {dim} is out of range for {of_type(x)}")
    return Op.table["clone"].run(_narrow(x, dim, start, length))


narrow_copy = _shorthand(
    "narrow_copy",
    "`narrow` with memory of its own.  [..., n, ...] -> [..., length, ...].",
    _narrow_copy,
    narrow.reference,
    (call(fill(5, 3), 0, 1, 3), call(fill(4), 0, 2, 2)),
    (Bad((fill(5), 0, 3, 3), RuntimeError, "narrow: start 3 and length 3 exceed dim 0"),),
)


def _select(x: Any, dim: int, index: Any) -> Any:
    x = tensor("select", "x", x)
    if x.ndim == 0:
        raise IndexError("select: cannot be applied to a 0-dim tensor")
    k, index = one_dim("select", dim, x.ndim), one_size("select", "index", index)
    size = x.shape[k]
    if isinstance(size, int) and isinstance(index, int) and not -size <= index < size:
        raise IndexError(f"select: index {index} out of range for dim {k} of {of_type(x)}")
    if isinstance(index, int) and index < 0:
        index = size + index
    return squeeze.run(part(x, k, index, index + 1), dims=(k,))


select = _shorthand(
    "select",
    "One element of a dim, which is removed; negative counts from the end.  [..., n, ...] -> [..., ...].",
    _select,
    lambda xp, x, dim, index: xp.squeeze(_along(x, dim, index % x.shape[dim], index % x.shape[dim] + 1), dim),
    (call(fill(3, 4), 0, 1), call(fill(3, 4), -1, -1), call(fill(33), 0, 32), call(fill(2, 0), 0, 1)),
    (
        Bad((fill(3), 0, 3), IndexError, "select: index 3 out of range for dim 0"),
        Bad((fill(), 0, 0), IndexError, "select: cannot be applied to a 0-dim tensor"),
    ),
)


def _unbind(x: Any, dim: int = 0) -> tuple[Any, ...]:
    x = tensor("unbind", "x", x)
    k = one_dim("unbind", dim, x.ndim)
    if x.ndim == 0:
        raise IndexError("unbind: Dimension specified as 0 but tensor has no dimensions")
    return tuple(_select(x, k, i) for i in range(number_of("unbind", x, k)))


def number_of(name: str, x: Any, dim: int) -> int:
    """The size of a dim that decides how many results there are.  Raises RuntimeError if it is symbolic."""
    size = x.shape[dim]
    if not isinstance(size, int):
        raise RuntimeError(f"{name}: dim {dim} of {of_type(x)} is symbolic, so the number of results is unknown")
    return int(size)


unbind = _shorthand(
    "unbind",
    "All elements of one dim as a tuple.  [..., n, ...] -> n of [..., ...].",
    _unbind,
    lambda xp, x, dim=0: tuple(xp.moveaxis(x, dim, 0)),
    (call(fill(3, 4)), call(fill(2, 3, 2), -1), call(fill(33)), call(fill(2, 0), 0)),
    (Bad((fill(),), IndexError, "unbind: Dimension specified as 0 but tensor has no dimensions"),),
)


def _split(x: Any, split_size_or_sections: Any, dim: int = 0) -> tuple[Any, ...]:
    x = tensor("split", "x", x)
    if x.ndim == 0:
        raise RuntimeError("split: cannot be applied to a 0-dim tensor")
    k = one_dim("split", dim, x.ndim)
    if isinstance(split_size_or_sections, tuple | list):
        lengths: Shape = as_shape("split", (tuple(split_size_or_sections),), "split_size")
        total: Size = 0
        for length in lengths:
            total = total + length
        if total != x.shape[k] or any(isinstance(n, int) and n < 0 for n in lengths):
            raise RuntimeError(f"split: sizes {list(lengths)} must sum to {x.shape[k]}, dim {k} of {of_type(x)}")
    else:
        length, size = one_size("split", "split_size", split_size_or_sections), number_of("split", x, k)
        if not isinstance(length, int) or length < 0 or (length == 0 and size):
            raise RuntimeError(f"split: split_size must be positive, got {length}")
        lengths = tuple(min(length, size - start) for start in range(0, size, length)) if size else (0,)
    results: list[Any] = []
    start: Size = 0
    for length in lengths:
        results.append(part(x, k, start, start + length))
        start = start + length
    return tuple(results)


def _split_reference(xp: Any, x: Any, split_size_or_sections: Any, dim: int = 0) -> tuple[Any, ...]:
    given = split_size_or_sections
    cuts = list(range(given, x.shape[dim], given)) if isinstance(given, int) else list(np.cumsum(given))[:-1]
    return tuple(xp.split(x, [int(c) for c in cuts], axis=dim))


split = _shorthand(
    "split",
    "Parts of one dim, of one size (the last may be smaller) or of given sizes.  [..., n, ...] -> parts.",
    _split,
    _split_reference,
    (
        call(fill(5, 3), 2),
        call(fill(3, 33), 11, -1),
        call(fill(6), [1, 2, 3]),
        call(fill(4), (4, 0)),
        call(fill(3, 2), 5),
    ),
    (
        Bad((fill(5), 0), RuntimeError, "split: split_size must be positive"),
        Bad((fill(5), [2, 2]), RuntimeError, r"split: sizes \[2, 2\] must sum to 5"),
        Bad((fill(5), 2, 1), IndexError, "split: Dimension out of range"),
    ),
    renamed={"tensor": "input", "split_size": "split_size_or_sections"},
)


def _chunk(x: Any, chunks: int, dim: int = 0) -> tuple[Any, ...]:
    x = tensor("chunk", "x", x)
    if x.ndim == 0:
        raise RuntimeError("chunk: cannot be applied to a 0-dim tensor")
    k = one_dim("chunk", dim, x.ndim)
    if not isinstance(chunks, int) or chunks < 1:
        raise RuntimeError(f"chunk: expects chunks to be greater than 0, got {chunks}")
    size = number_of("chunk", x, k)
    if size == 0:
        return tuple(part(x, k, 0, 0) for _ in range(chunks))
    return _split(x, -(-size // chunks), k)


def _chunk_reference(xp: Any, x: Any, chunks: int, dim: int = 0) -> tuple[Any, ...]:
    step = -(-x.shape[dim] // chunks)
    return tuple(xp.split(x, list(range(step, x.shape[dim], step)), axis=dim))


chunk = _shorthand(
    "chunk",
    "At most `chunks` parts of equal size, the last may be smaller.  [..., n, ...] -> parts.",
    _chunk,
    _chunk_reference,
    (call(fill(6, 2), 3), call(fill(2, 33), 4, -1), call(fill(5), 4), call(fill(1, 2), 2)),
    (Bad((fill(5), 0), RuntimeError, "chunk: expects chunks to be greater than 0"),),
)
