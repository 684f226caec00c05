"""Neighbours along a dim: differences, and areas under the line through the elements.

Enters: tensors.  Leaves: operators that are short for others.  Never here: running sums themselves (`scan`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dtypes import bool_
from graphc.ir.op import Bad, Op
from graphc.ops.arguments import is_zero, number, of_type, one_dim, one_size, rounded, tensor
from graphc.ops.arithmetic import add, div, mul, sub
from graphc.ops.comparison import ne
from graphc.ops.declare import EVERY, FLOATING, Shorthand, call, fill
from graphc.ops.movement import reshape
from graphc.ops.views import part


def _neighbours(x: Any, dim: int) -> tuple[Any, Any]:
    """All elements of a dim but the last, and all but the first."""
    size = x.shape[dim]
    return part(x, dim, 0, size - 1), part(x, dim, 1, size)


def _diff(x: Any, n: Any = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    x = tensor("diff", "input", x)
    if x.ndim == 0:
        raise RuntimeError("diff: expects input to be at least one-dimensional")
    k, n = one_dim("diff", dim, x.ndim), one_size("diff", "n", n)
    if isinstance(n, int) and n < 0:
        raise RuntimeError(f"diff: order must be non-negative but got {n}")
    for name, piece in (("prepend", prepend), ("append", append)):
        if piece is not None and tensor("diff", name, piece).ndim != x.ndim:
            raise RuntimeError(f"diff: expects {name} to have as many dims as input: {of_type(piece)} and {of_type(x)}")
    pieces = [p for p in (prepend, x, append) if p is not None]
    if n and len(pieces) > 1:
        x = Op.table["cat"](pieces, k)
    for _ in range(n):
        if is_zero(x.shape[k]):
            return x
        before, after = _neighbours(x, k)
        x = ne(after, before) if x.dtype is bool_ else sub(after, before)
    return x if n else Op.table["clone"].run(x)


def _diff_reference(xp: Any, *arrays: Any, n: int = 1, dim: int = -1, **_: Any) -> Any:
    return np.diff(arrays[0], n=n, axis=dim)


diff = Shorthand(
    "diff",
    doc="Each element less the one before along dim, n times; bools differ or not.  [..., m, ...] -> [..., m - n, ...].",
    rule=_diff,
    reference=_diff_reference,
    dtypes=EVERY,
    samples=(call(fill(3, 4)), call(fill(3, 4), dim=0), call(fill(2, 33), n=2), call(fill(3), n=0), call(fill(0, 2), dim=0)),
    bad=(
        Bad((fill(),), RuntimeError, "diff: expects input to be at least one-dimensional"),
        Bad((fill(3), -1), RuntimeError, "diff: order must be non-negative"),
        Bad((fill(3), 1, 1), IndexError, "diff: Dimension out of range"),
    ),
)


def _areas(name: str, y: Any, x: Any, dx: Any, dim: int) -> tuple[Any, int]:
    """The area between each two neighbours: the mean of both by how far they are apart.  Raises RuntimeError."""
    y = tensor(name, "y", y)
    if y.ndim == 0:
        raise IndexError(f"{name}: Dimension out of range: y has no dims")
    k = one_dim(name, dim, y.ndim)
    before, after = _neighbours(y, k) if not is_zero(y.shape[k]) else (y, y)
    if x is None:
        return div(mul(add(before, after), number(name, "dx", dx)), 2), k
    x = tensor(name, "x", x)
    if x.ndim == 1:
        if x.shape[0] != y.shape[k]:
            raise RuntimeError(f"{name}: There must be one x value for each sample point: {of_type(x)} and {of_type(y)}")
        x = reshape.run(x, shape=tuple(x.shape[0] if d == k else 1 for d in range(y.ndim)))
    elif x.ndim < y.ndim:
        x = reshape.run(x, shape=(1,) * (y.ndim - x.ndim) + tuple(x.shape))
    left, right = _neighbours(x, k + x.ndim - y.ndim) if not is_zero(y.shape[k]) else (x, x)
    return div(mul(sub(right, left), add(before, after)), 2), k


def _trapezoid(y: Any, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Any:
    areas, k = _areas("trapezoid", y, x, dx, dim)
    return Op.table["sum"](areas, k)


def _cumulative_trapezoid(y: Any, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Any:
    areas, k = _areas("cumulative_trapezoid", y, x, dx, dim)
    return Op.table["cumsum"](areas, k)


def _areas_reference(xp: Any, y: Any, x: Any, dx: Any, dim: int) -> Any:
    y = np.moveaxis(y, dim, -1)
    widths = dx if x is None else np.diff(x)
    return (y[..., 1:] + y[..., :-1]) * widths / 2


_AREAS: dict[str, Any] = {
    "dtypes": FLOATING,
    "samples": (call(fill(3, 4)), call(fill(3, 4), dx=0.5, dim=0), call(fill(2, 5), fill(5))),
    "methods": (),
}
trapezoid = Shorthand(
    "trapezoid",
    doc="The area under the line through the elements of a dim, `dx` apart or at the places x.  [..., n, ...] -> [..., ...].",
    rule=_trapezoid,
    reference=rounded(lambda xp, y, x=None, dx=1, dim=-1: _areas_reference(xp, y, x, dx, dim).sum(-1)),
    functions=("trapezoid", "trapz"),
    bad=(Bad((fill(3), fill(4)), RuntimeError, "trapezoid: There must be one x value"),),
    **_AREAS,
)
cumulative_trapezoid = Shorthand(
    "cumulative_trapezoid",
    doc="The area under the line through the elements of a dim up to each.  [..., n, ...] -> [..., n - 1, ...].",
    rule=_cumulative_trapezoid,
    reference=rounded(lambda xp, y, x=None, dx=1, dim=-1: np.moveaxis(np.cumsum(_areas_reference(xp, y, x, dx, dim), -1), -1, dim)),
    bad=(Bad((fill(3), fill(4)), RuntimeError, "cumulative_trapezoid: There must be one x value"),),
    **_AREAS,
)
