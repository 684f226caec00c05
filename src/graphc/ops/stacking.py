"""Tensors joined along the first dims, and made ready for it: hstack, vstack, dstack, column_stack, atleast_*, broadcast_tensors.

Enters: tensors.  Leaves: operators opened at the call.  Never here: cat and stack (`joining`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.dims import product
from graphc.ir.op import Bad, Shape, broadcast_shapes
from graphc.ops.arguments import is_tensor, of_type, sizes, tensor, tensors
from graphc.ops.declare import EVERY_COMPLEX, FLOATING, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.joining import cat
from graphc.ops.movement import expand, reshape
from graphc.ops.reduce import sum

# ---- at least so many dims -------------------------------------------------------------------------------------------


def grown(x: Any, rank: int) -> Any:
    """`x` with at least `rank` dims (1, 2 or 3), by NumPy's rules of where the new ones go."""
    shape = tuple(x.shape)
    if x.ndim >= rank:
        return x
    if rank < 3 or x.ndim == 0:
        return reshape.run(x, shape=(1,) * (rank - x.ndim) + shape)
    return reshape.run(x, shape=(1, *shape, 1) if x.ndim == 1 else (*shape, 1))


def _given(name: str) -> Callable[..., Prepared]:
    """prepare of ``f(*tensors)`` and ``f(tensors)``."""

    def prepare(*given: Any) -> Prepared:
        listed = given[0] if len(given) == 1 and not is_tensor(given[0]) else given
        return tuple(tensor(name, f"tensors[{i}]", x) for i, x in enumerate(listed)), {}

    return prepare


class _AtLeast(Shorthand):
    """One tensor in, one out; a sequence or several in, a tuple out."""

    def __call__(self, *args: Any) -> Any:
        single = len(args) == 1 and is_tensor(args[0])
        inputs, _ = self.prepare(*args)
        results = self._rule(*inputs)
        return results[0] if single else results


def _at_least(rank: int) -> Shorthand:
    name = f"atleast_{rank}d"

    def rule(*inputs: Any) -> tuple[Any, ...]:
        return tuple(grown(x, rank) for x in inputs)

    def reference(xp: Any, *arrays: Any) -> Any:
        results = tuple(getattr(xp, name)(x) for x in arrays)
        return results[0] if len(results) == 1 else results

    return _AtLeast(
        name,
        doc=f"Tensors with at least {rank} dims.  [...] -> [...].",
        signature="(*tensors)",
        rule=rule,
        prepare=_given(name),
        attrs=(),
        reference=reference,
        dtypes=EVERY_COMPLEX,
        samples=(call(fill()), call(fill(3)), call(fill(2, 3)), call(fill(2, 3, 4, 1)), call(fill(), fill(3))),
        bad=(Bad((fill(2), 3.0), TypeError, rf"{name}: argument 'tensors\[1\]' must be a Tensor"),),
        methods=(),
    )


atleast_1d, atleast_2d, atleast_3d = (_at_least(rank) for rank in (1, 2, 3))


# ---- joined along one of the first dims ------------------------------------------------------------------------------


def _stacked(name: str, ready: Callable[[Any], Any], dim_of: Callable[[Sequence[Any]], int], doc: str, *aliases: str) -> Shorthand:
    def prepare(tensors_: Any) -> Prepared:
        return tensors(name, "tensors", tensors_), {}

    def rule(*inputs: Any) -> Any:
        columns = [ready(x) for x in inputs]
        rank = columns[0].ndim
        if any(x.ndim != rank for x in columns):
            raise RuntimeError(f"{name}: tensors must have the same number of dims: {', '.join(str(of_type(x)) for x in inputs)}")
        return cat(columns, dim_of(columns))

    return Shorthand(
        name,
        doc=doc,
        signature="(tensors)",
        rule=rule,
        prepare=prepare,
        attrs=(),
        reference=lambda xp, *arrays: getattr(xp, name)(arrays),
        dtypes=EVERY_COMPLEX,
        samples=(call([fill(3), fill(3)]), call([fill(2, 3), fill(2, 3)]), call([fill(), fill()]), call([fill(0, 2), fill(0, 2)])),
        bad=(
            Bad(([],), RuntimeError, f"{name}: expected a non-empty list"),
            Bad(([fill(2, 3), fill(3, 4)],), RuntimeError, "cat: sizes must match"),
            Bad((fill(2),), TypeError, f"{name}: argument 'tensors' must be a list or tuple"),
        ),
        methods=(),
        functions=(name, *aliases),
        renamed={"tensors": "input"},
    )


hstack = _stacked(
    "hstack",
    lambda x: grown(x, 1),
    lambda inputs: 0 if inputs[0].ndim == 1 else 1,
    "Joined along dim 1 (vectors along dim 0).  n of [a, ...] -> [a, n * ...].",
)
vstack = _stacked(
    "vstack", lambda x: grown(x, 2), lambda inputs: 0, "Joined along dim 0, vectors as rows.  n of [m] -> [n, m].", "row_stack"
)
dstack = _stacked(
    "dstack", lambda x: grown(x, 3), lambda inputs: 2, "Joined along dim 2.  n of [a, b] -> [a, b, n].",
)  # fmt: skip


def _column(x: Any) -> Any:
    return reshape.run(x, shape=(product(x.shape), 1)) if x.ndim < 2 else x


column_stack = _stacked(
    "column_stack", _column, lambda inputs: 1, "Joined along dim 1, vectors as columns.  n of [m] -> [m, n].",
)  # fmt: skip


# ---- broadcasting ----------------------------------------------------------------------------------------------------


def _broadcast(*inputs: Any) -> tuple[Any, ...]:
    shape = broadcast_shapes("broadcast_tensors", [tuple(x.shape) for x in inputs])
    return tuple(x if tuple(x.shape) == shape else expand.run(x, shape=shape) for x in inputs)


broadcast_tensors = Shorthand(
    "broadcast_tensors",
    doc="Every tensor expanded to the shape they broadcast to.  [...] , [...] -> [...], [...].",
    signature="(*tensors)",
    rule=_broadcast,
    prepare=_given("broadcast_tensors"),
    attrs=(),
    reference=lambda xp, *arrays: tuple(xp.broadcast_arrays(*arrays)),
    dtypes=EVERY_COMPLEX,
    samples=(call(fill(3), fill(2, 1)), call(fill(), fill(0, 2)), call(fill(1, 3), fill(2, 1), fill(3))),
    bad=(Bad((fill(2), fill(3)), RuntimeError, "broadcast_tensors: shapes .* do not broadcast"),),
    methods=(),
)


def _sum_to_size(x: Any, size: Shape) -> Any:
    shape = tuple(x.shape)
    lead = x.ndim - len(size)
    if lead < 0 or any(s not in (1, have) for s, have in zip(size, shape[lead:], strict=True)):
        raise RuntimeError(f"sum_to_size: size {list(size)} is not expandable to size {list(shape)}")
    reduced = (*range(lead), *(k for k in range(lead, x.ndim) if size[k - lead] != shape[k]))
    if size and not reduced:
        return x
    total = sum(x, reduced, keepdim=True) if reduced else sum(x)
    return reshape.run(total, shape=size)


sum_to_size = Shorthand(
    "sum_to_size",
    doc="Summed (integers as int64) over the dims that expanding from `size` would add or stretch.  [...] -> size.",
    signature="(x, *size)",
    rule=_sum_to_size,
    prepare=lambda x, *size: ((tensor("sum_to_size", "x", x),), {"size": sizes("sum_to_size", size, "size")}),
    attrs=("size",),
    reference=lambda xp, x, size: _summed_array(xp, x, size),
    dtypes=FLOATING,
    samples=(call(fill(2, 3), 1, 3), call(fill(2, 3), (3,)), call(fill(2, 3), ()), call(fill(4), 4)),
    bad=(Bad((fill(2, 3), 2), RuntimeError, r"sum_to_size: size \[2\] is not expandable"),),
    functions=(),
)


def _summed_array(xp: Any, x: Any, size: Shape) -> Any:
    wide = x.astype(xp.float32) if x.dtype.itemsize == 2 else x
    lead = x.ndim - len(size)
    stretched = tuple(k + lead for k, s in enumerate(size) if s != x.shape[k + lead])
    return xp.sum(wide, axis=(*range(lead), *stretched), keepdims=True).reshape(size).astype(x.dtype)
