"""Elements arranged anew: turned and mirrored, repeated by counts, combined, written into a slice.

Enters: tensors.  Leaves: operators that are short for others.  Never here: index arithmetic (`movement`), index tensors
(`indexed`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dims import Size, product
from graphc.dtypes import int64
from graphc.ir.op import COUNT, Bad, Host, Op, TensorType
from graphc.ops.arguments import constant, is_tensor, of_type, one_dim, one_size, rounded, tensor, tensors
from graphc.ops.create import iota
from graphc.ops.declare import EVERY, Shorthand, call, fill
from graphc.ops.movement import expand, flip, permute, reshape, slice_scatter, unsqueeze
from graphc.ops.views import part

# ---- mirrored and turned ---------------------------------------------------------------------------------------------


def _mirror(name: str, dim: int, rank: int) -> Shorthand:
    def rule(x: Any) -> Any:
        x = tensor(name, "input", x)
        if x.ndim < rank:
            raise RuntimeError(f"{name}: Input must be >= {rank}-d, got {of_type(x)}")
        return flip.run(x, dims=(dim,))

    return Shorthand(
        name,
        doc=f"Dim {dim} in reverse.  [...] -> [...].",
        rule=rule,
        reference=lambda xp, x: xp.flip(x, dim),
        dtypes=EVERY,
        samples=(call(fill(3, 4)), call(fill(2, 33, 2)), call(fill(0, 3))),
        bad=(Bad((fill(),), RuntimeError, f"{name}: Input must be >= {rank}-d"),),
    )


fliplr, flipud = _mirror("fliplr", 1, 2), _mirror("flipud", 0, 1)


def _rot90(x: Any, k: int = 1, dims: Any = (0, 1)) -> Any:
    x = tensor("rot90", "input", x)
    given = tuple(dims)
    if len(given) != 2:
        raise RuntimeError(f"rot90: expected total rotation dims == 2, but got dims = {len(given)}")
    if x.ndim < 2:
        raise RuntimeError(f"rot90: expected total dims >= 2, but got total dims = {x.ndim}")
    if given[0] == given[1] or abs(given[0] - given[1]) == x.ndim:
        raise RuntimeError(f"rot90: expected rotation dims to be different, but got {given}")
    a, b = (one_dim("rot90", d, x.ndim) for d in given)
    turns = one_size("rot90", "k", k) % 4
    if turns == 2:
        return flip.run(x, dims=tuple(sorted((a, b))))
    if turns == 0:
        return Op.table["clone"].run(x)
    order = list(range(x.ndim))
    order[a], order[b] = b, a
    if turns == 1:
        return permute.run(flip.run(x, dims=(b,)), dims=tuple(order))
    return flip.run(permute.run(x, dims=tuple(order)), dims=(b,))


rot90 = Shorthand(
    "rot90",
    doc="Turned k times by a quarter, in the plane of two dims, from the first to the second.  [..., n, m] -> [..., m, n].",
    rule=_rot90,
    reference=lambda xp, x, k=1, dims=(0, 1): xp.rot90(x, k, dims),
    dtypes=EVERY,
    samples=(call(fill(3, 4)), call(fill(3, 4), 2), call(fill(2, 3, 4), -1, [1, 2]), call(fill(3, 33), 4)),
    bad=(
        Bad((fill(3),), RuntimeError, "rot90: expected total dims >= 2"),
        Bad((fill(3, 3), 1, (0,)), RuntimeError, "rot90: expected total rotation dims == 2"),
        Bad((fill(3, 3), 1, (0, 0)), RuntimeError, "rot90: expected rotation dims to be different"),
    ),
)


# ---- repeated by counts ------------------------------------------------------------------------------------------------


def _repeated_reference(xp: Any, repeats: Any) -> Any:
    if repeats.size and repeats.min() < 0:
        raise RuntimeError("repeat_interleave: repeats can not be negative")
    return np.repeat(np.arange(repeats.size), repeats)


repeated_places = Op(
    "repeated_places",
    doc="Each place as often as its count says.  integers [n] -> int64 [sum of counts].",
    signature="(repeats)",
    infer=lambda repeats: TensorType(int64, (COUNT,)),
    reference=_repeated_reference,
    grad=None,
    lowering=Host(sized_by_data=True),
    dtypes=(int64,),
    samples=(call(fill(5, low=0, high=4)), call(fill(0, low=0))),
    bad=(Bad((fill(3, low=-3, high=-1),), RuntimeError, "repeat_interleave: repeats can not be negative"),),
    methods=(),
    functions=(),
)


def _repeat_counts(x: Any, repeats: Any, dim: int, output_size: Any) -> Any:
    """Slices repeated by a vector of counts: the place of each result, then one gather."""
    name = "repeat_interleave"
    if repeats.ndim > 1:
        raise RuntimeError(f"{name}: repeats must be 0-dim or 1-dim tensor, got {of_type(repeats)}")
    if repeats.dtype.kind not in "iu":
        raise RuntimeError(f"{name}: repeats has to be Long or Int tensor, got {of_type(repeats)}")
    repeats = expand.run(repeats, shape=(x.shape[dim],)) if repeats.ndim == 0 or repeats.shape[0] == 1 else repeats
    if repeats.shape[0] != x.shape[dim]:
        raise RuntimeError(f"{name}: repeats must have the same size as input along dim {dim}: {of_type(repeats)}, {of_type(x)}")
    if output_size is None:
        places = repeated_places.run(repeats)
    else:
        ends = Op.table["cumsum"](repeats, 0)
        places = Op.table["sorted_places"].run(ends, iota.run(size=output_size, dtype=int64), right=True, narrow=False)
    return Op.table["index_select"].run(x, places, dim=dim)


def _repeat_interleave(x: Any, repeats: Any = None, dim: Any = None, *, output_size: Any = None) -> Any:
    x = tensor("repeat_interleave", "input", x)
    if repeats is None:
        return repeated_places.run(x)
    if dim is None:
        x, dim = reshape.run(x, shape=(product(x.shape),)), 0
    k = one_dim("repeat_interleave", dim, x.ndim)
    x = x if x.ndim else reshape.run(x, shape=(1,))
    if is_tensor(repeats):
        return _repeat_counts(x, repeats, k, output_size)
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 0:
        raise RuntimeError(f"repeat_interleave: repeats must be a non-negative int, got {repeats!r}")
    shape = tuple(x.shape)
    wide = expand.run(unsqueeze.run(x, dim=k + 1), shape=(*shape[: k + 1], repeats, *shape[k + 1 :]))
    return reshape.run(Op.table["clone"].run(wide), shape=(*shape[:k], shape[k] * repeats, *shape[k + 1 :]))


repeat_interleave = Shorthand(
    "repeat_interleave",
    doc="Each element of a dim repeated in place, all as often or each by its own count; `output_size` is the sum of the "
    "counts, which compiled code cannot know.  [..., n, ...] -> [..., n * repeats, ...].",
    rule=_repeat_interleave,
    reference=lambda xp, x, repeats, dim=None: xp.repeat(x, repeats, axis=dim),
    dtypes=EVERY,
    samples=(call(fill(2, 3), 2, 0), call(fill(2, 3), 3), call(fill(33), 2, -1), call(fill(2), 0, 0)),
    bad=(
        Bad((fill(2), -1), RuntimeError, "repeat_interleave: repeats must be a non-negative int"),
        Bad((fill(2), fill(3, dtype=int64), 0), RuntimeError, "repeat_interleave: repeats must have the same size"),
    ),
)


# ---- combined ----------------------------------------------------------------------------------------------------------


def _cartesian_prod(*given: Any) -> Any:
    columns = [tensor("cartesian_prod", "tensors", x) for x in given]
    for x in columns:
        if x.ndim != 1:
            raise RuntimeError(f"cartesian_prod: Expect a 1D vector, but got {of_type(x)}")
    if len(columns) == 1:
        return columns[0]
    grids = Op.table["meshgrid"](list(columns), indexing="ij")
    return Op.table["stack"]([reshape.run(g, shape=(product(g.shape),)) for g in grids], 1)


cartesian_prod = Shorthand(
    "cartesian_prod",
    doc="Every choice of one element from each vector, the last changing fastest.  [n], [m] -> [n * m, 2].",
    signature="(*tensors)",
    rule=_cartesian_prod,
    prepare=lambda *given: (tensors("cartesian_prod", "tensors", list(given)), {}),
    attrs=(),
    reference=lambda xp, *columns: (
        columns[0] if len(columns) == 1 else np.stack([g.reshape(-1) for g in np.meshgrid(*columns, indexing="ij")], axis=1)
    ),
    dtypes=EVERY,
    samples=(call(fill(3), fill(4)), call(fill(3)), call(fill(2), fill(0), fill(2))),
    bad=(Bad((fill(2, 2), fill(2)), RuntimeError, "cartesian_prod: Expect a 1D vector"),),
    methods=(),
)


def _chosen(x: Any, r: Any, again: bool) -> Any:
    """Rows of r elements in order: each first element before all choices of the others."""
    size = x.shape[0]
    if r == 1:
        return reshape.run(x, shape=(size, 1))
    rows = []
    for k in range(size):
        rest = _chosen(part(x, 0, k if again else k + 1, size), r - 1, again)
        if rest.shape[0]:
            first = expand.run(reshape.run(part(x, 0, k, k + 1), shape=(1, 1)), shape=(rest.shape[0], 1))
            rows.append(Op.table["cat"]([first, rest], 1))
    return Op.table["cat"](rows, 0) if rows else expand.run(part(reshape.run(x, shape=(size, 1)), 0, 0, 0), shape=(0, r))


MOST_CHOSEN = 64  # PyTorch's limit too: it makes a grid of so many dims


def _combinations(x: Any, r: Any = 2, with_replacement: bool = False) -> Any:
    x, r = tensor("combinations", "input", x), one_size("combinations", "r", r)
    if x.ndim != 1:
        raise RuntimeError(f"combinations: Expect a 1D vector, but got {of_type(x)}")
    if isinstance(r, int) and r < 0:
        raise RuntimeError(f"combinations: Expect a non-negative number, but got {r}")
    if r == 0:
        return constant(0, x.dtype, (0,))
    if not with_replacement and isinstance(r, int) and isinstance(x.shape[0], int) and r > x.shape[0]:
        return constant(0, x.dtype, (0, r))
    if isinstance(r, int) and r > MOST_CHOSEN:
        raise RuntimeError(f"combinations: r must be at most {MOST_CHOSEN}, got {r}")
    return _chosen(x, int(r), with_replacement)


def _combinations_reference(xp: Any, x: Any, r: int = 2, with_replacement: bool = False) -> Any:
    import itertools

    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    places = np.array(list(choose(range(len(x)), r)), np.int64).reshape(-1, r)
    return x[places]


combinations = Shorthand(
    "combinations",
    doc="Every choice of r elements of a vector, in order.  [n] -> [count, r].",
    rule=_combinations,
    reference=_combinations_reference,
    dtypes=EVERY,
    samples=(call(fill(5)), call(fill(4), 3), call(fill(4), 2, True), call(fill(1), 2)),
    bad=(Bad((fill(2, 2),), RuntimeError, "combinations: Expect a 1D vector"),),
)


def _vander(x: Any, N: Any = None, increasing: bool = False) -> Any:
    x = tensor("vander", "x", x)
    if x.ndim != 1:
        raise RuntimeError(f"vander: x must be a one-dimensional tensor, got {of_type(x)}")
    return _powers("vander", x, N, increasing, x.shape[0])


def _linalg_vander(x: Any, *, N: Any = None) -> Any:
    x = tensor("linalg.vander", "x", x)
    x = x if x.ndim else reshape.run(x, shape=(1,))
    return _powers("linalg.vander", x, N, True, x.shape[-1])


def _powers(name: str, x: Any, count: Any, increasing: bool, default: Size) -> Any:
    """x to the powers 0, 1, ... as a new last dim: running products, so that bools and integers stay as they are."""
    n = default if count is None else one_size(name, "N", count)
    if isinstance(n, int) and n < (0 if name == "vander" else 2) and count is not None:
        raise RuntimeError(f"{name}: N must be {'non-negative' if name == 'vander' else 'greater than 1'}, got {n}")
    dtype = int64 if x.dtype.kind in "biu" else x.dtype
    ones = constant(1, dtype, (*x.shape, 1))
    column = unsqueeze.run(Op.table["cast"].run(x, dtype=dtype), dim=x.ndim)
    if isinstance(n, int) and n < 2:
        return part(ones, x.ndim, 0, n)
    rest = Op.table["cumprod"](expand.run(column, shape=(*x.shape, n - 1)), x.ndim)
    powers = Op.table["cat"]([ones, rest], x.ndim)
    return powers if increasing else flip.run(powers, dims=(x.ndim,))


def _powers_reference(xp: Any, x: Any, N: Any = None, increasing: bool = False) -> Any:
    x = x.astype(np.int64) if x.dtype.kind in "biu" else x
    count = x.shape[-1] if N is None else N
    powers = np.stack([x**k for k in range(count)], -1) if count else np.zeros((*x.shape, 0), x.dtype)
    return powers if increasing else powers[..., ::-1]


vander = Shorthand(
    "vander",
    doc="Powers of a vector's elements as rows, falling or rising, N of them (as many as elements).  [n] -> [n, N].",
    rule=_vander,
    reference=rounded(_powers_reference),
    dtypes=EVERY,
    samples=(call(fill(3)), call(fill(4), 2, True), call(fill(3), 0)),
    bad=(Bad((fill(2, 2),), RuntimeError, "vander: x must be a one-dimensional tensor"),),
    methods=(),
)
linalg_vander = Shorthand(
    "linalg_vander",
    doc="Rising powers of the last dim's elements as a new last dim.  [..., n] -> [..., n, N].",
    rule=_linalg_vander,
    reference=rounded(lambda xp, x, N=None: _powers_reference(xp, x, N, True)),
    dtypes=EVERY,
    samples=(call(fill(3)), call(fill(2, 4), N=3)),
    bad=(Bad((fill(3),), RuntimeError, "linalg.vander: N must be greater than 1", {"N": 1}),),
    methods=(),
    functions=("linalg.vander",),
)


# ---- written into a slice ------------------------------------------------------------------------------------------------


def _bounds(size: Any, start: Any, end: Any) -> tuple[Size, Size]:
    """Python's bounds of a slice of a dim."""
    first, last, _ = slice(start, end).indices(size)
    return first, max(first, last)


def _slice_scatter(x: Any, src: Any, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1) -> Any:
    x, src = tensor("slice_scatter", "input", x), tensor("slice_scatter", "src", src)
    k, step = one_dim("slice_scatter", dim, x.ndim), one_size("slice_scatter", "step", step)
    if isinstance(step, int) and step < 1:
        raise RuntimeError(f"slice_scatter: step must be positive, got {step}")
    first, last = _bounds(x.shape[k], start, end)
    starts: list[Size] = [0] * x.ndim
    stops, steps = list(x.shape), [1] * x.ndim
    starts[k], stops[k], steps[k] = first, last, step
    return slice_scatter.run(x, src, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def _slice_scatter_reference(xp: Any, x: Any, src: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    result = xp.array(x)
    result[(slice(None),) * (dim % x.ndim) + (slice(start, end, step),)] = src
    return result


slice_scatter_along = Shorthand(
    "slice_scatter_along",
    doc="x with start:end:step of a dim replaced by src.  [..., n, ...] , [..., m, ...] -> [..., n, ...].",
    rule=_slice_scatter,
    reference=_slice_scatter_reference,
    dtypes=EVERY,
    samples=(call(fill(5, 4), fill(2, 4), 0, 1, 3), call(fill(3, 33), fill(3, 11), -1, 0, 33, 3), call(fill(3), fill(3))),
    bad=(Bad((fill(3), fill(2)), RuntimeError, "slice_scatter: the slice is"),),
    methods=("slice_scatter",),
    functions=("slice_scatter",),
)


def _select_scatter(x: Any, src: Any, dim: int, index: Any) -> Any:
    x, src = tensor("select_scatter", "input", x), tensor("select_scatter", "src", src)
    k, index = one_dim("select_scatter", dim, x.ndim), one_size("select_scatter", "index", index)
    size = x.shape[k] if x.ndim else 0
    if isinstance(size, int) and isinstance(index, int) and not -size <= index < size:
        raise IndexError(f"select_scatter: index {index} out of range for dim {k} of {of_type(x)}")
    index = index % size
    if tuple(src.shape) != (*x.shape[:k], *x.shape[k + 1 :]):
        raise RuntimeError(f"select_scatter: expected src to have the shape of the slice of {of_type(x)}, got {of_type(src)}")
    return _slice_scatter(x, unsqueeze.run(src, dim=k), k, index, index + 1)


def _select_scatter_reference(xp: Any, x: Any, src: Any, dim: int, index: int) -> Any:
    result = xp.array(x)
    result[(slice(None),) * (dim % x.ndim) + (index,)] = src
    return result


select_scatter = Shorthand(
    "select_scatter",
    doc="x with one place of a dim replaced by src.  [..., n, ...] , [..., ...] -> [..., n, ...].",
    rule=_select_scatter,
    reference=_select_scatter_reference,
    dtypes=EVERY,
    samples=(call(fill(3, 4), fill(4), 0, 1), call(fill(3, 33), fill(3), -1, -2), call(fill(3), fill(), 0, 0)),
    bad=(
        Bad((fill(3), fill(2), 0, 1), RuntimeError, "select_scatter: expected src to have the shape"),
        Bad((fill(3), fill(), 0, 3), IndexError, "select_scatter: index 3 out of range"),
    ),
)
