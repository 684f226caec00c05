"""A tensor cut into several along one dim: tensor_split, hsplit, vsplit, dsplit, split_with_sizes and the unsafe names of split.

Enters: a tensor, and how many parts or where to cut.  Leaves: views of it, opened at the call.
Never here: split and chunk (`views`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from graphc.dtypes import int64
from graphc.ir.op import Bad
from graphc.ops.arguments import is_tensor, of_type, one_dim, one_size, sizes, tensor
from graphc.ops.declare import EVERY_COMPLEX, Shorthand, call, fill
from graphc.ops.views import chunk, number_of, part, split

# ---- tensor_split ----------------------------------------------------------------------------------------------------


def _equal_cuts(name: str, size: int, sections: Any) -> list[int]:
    """Where to cut `size` elements into `sections` parts, the first of which may be one longer.  Raises RuntimeError."""
    if not 0 < sections < 1 << 31:
        raise RuntimeError(f"{name}: number of sections must be larger than 0 (and below 2**31), got {sections}")
    least, longer = divmod(size, sections)
    return [k * least + min(k, longer) for k in range(1, sections)]


def cuts_of(name: str, given: Any, size: int) -> list[int]:
    """Cuts for a number of sections or a sequence of indices, each in 0..size."""
    if not isinstance(given, tuple | list):
        return _equal_cuts(name, size, one_size(name, "sections", given))
    cuts: list[int] = []
    for cut in sizes(name, (tuple(given),), "indices"):
        assert isinstance(cut, int)
        cuts.append(min(max(cut + size if cut < 0 else cut, 0), size))
    return cuts


def parts_at(x: Any, cuts: list[int], dim: int) -> tuple[Any, ...]:
    """The parts of a dim between 0, the cuts and its end; empty where a cut lies before the one in front of it."""
    bounds = [0, *cuts, number_of("tensor_split", x, dim)]
    return tuple(part(x, dim, a, max(a, b)) for a, b in pairwise(bounds))


def _in_python(x: Any, given: Any) -> Any:
    """Sections or indices given as a tensor of at most one dim, as Python's.  Raises RuntimeError."""
    if not is_tensor(given):
        return given
    if given.dtype is not int64 or given.ndim > 1:
        raise RuntimeError(f"tensor_split: expected indices to be an int64 tensor of rank 0 or 1, got {of_type(given)}")
    return given.tolist()


def _tensor_split(
    x: Any, indices_or_sections: Any = None, dim: int = 0, *, sections: Any = None, indices: Any = None,
    tensor_indices_or_sections: Any = None,
) -> tuple[Any, ...]:  # fmt: skip
    x = tensor("tensor_split", "x", x)
    if x.ndim == 0:
        raise RuntimeError("tensor_split: expected at least a 1-dimensional tensor, got one of 0 dims")
    k = one_dim("tensor_split", dim, x.ndim)
    forms = (indices_or_sections, sections, indices, tensor_indices_or_sections)
    given = [v for v in forms if v is not None]
    if len(given) != 1:
        raise TypeError("tensor_split: expected one argument 'indices_or_sections'")
    return parts_at(x, cuts_of("tensor_split", _in_python(x, given[0]), number_of("tensor_split", x, k)), k)


def _split_array(xp: Any, x: Any, indices_or_sections: Any, dim: int = 0) -> tuple[Any, ...]:
    given = indices_or_sections
    return tuple(xp.array_split(x, given if isinstance(given, int) else list(given), axis=dim))


tensor_split = Shorthand(
    "tensor_split",
    doc="Parts of a dim: so many of nearly equal size, or cut at indices.  [..., n, ...] -> parts.",
    rule=_tensor_split,
    reference=_split_array,
    dtypes=EVERY_COMPLEX,
    samples=(call(fill(7, 2), 3), call(fill(2, 33), (1, 30), -1), call(fill(4), (1, 9)), call(fill(4), [-1]), call(fill(2), 3)),
    bad=(
        Bad((fill(), 2), RuntimeError, "tensor_split: expected at least a 1-dimensional tensor"),
        Bad((fill(3), 0), RuntimeError, "tensor_split: number of sections must be larger than 0"),
        Bad((fill(3), 2, 1), IndexError, "tensor_split: Dimension out of range"),
    ),
)


def _direction(name: str, rank: int, dim: int, doc: str) -> Shorthand:
    """hsplit, vsplit or dsplit: parts of equal size, or cut at indices."""

    def rule(x: Any, indices_or_sections: Any = None, *, sections: Any = None, indices: Any = None) -> tuple[Any, ...]:
        x = tensor(name, "x", x)
        if x.ndim < rank:
            raise RuntimeError(f"{name}: requires a tensor with at least {rank} dims, got {of_type(x)}")
        k = 0 if x.ndim == 1 else dim
        given = next((v for v in (indices_or_sections, sections, indices) if v is not None), None)
        size = number_of(name, x, k)
        if isinstance(given, int) and (given <= 0 or size % given):
            raise RuntimeError(f"{name}: dim {k} of {of_type(x)} cannot be divided into {given} equal parts")
        return parts_at(x, cuts_of(name, given, size), k)

    wide = (4, 4, 4)
    return Shorthand(
        name,
        doc=doc,
        rule=rule,
        reference=lambda xp, x, indices_or_sections: _split_array(xp, x, indices_or_sections, 0 if x.ndim == 1 else dim),
        dtypes=EVERY_COMPLEX,
        samples=(call(fill(*wide), 2), call(fill(*wide), (1, 3)), call(fill(*wide[:rank]), 4)),
        bad=(
            Bad((fill(*wide), 3), RuntimeError, f"{name}: dim {dim} of .* cannot be divided into 3 equal parts"),
            Bad((fill(*wide[: rank - 1]), 2), RuntimeError, f"{name}: requires a tensor with at least {rank} dims"),
        ),
    )


hsplit = _direction("hsplit", 1, 1, "Columns (of a vector, elements) in equal parts or cut at indices.  [n, m, ...] -> parts.")
vsplit = _direction("vsplit", 2, 0, "Rows in equal parts or cut at indices.  [n, m, ...] -> parts.")
dsplit = _direction("dsplit", 3, 2, "The third dim in equal parts or cut at indices.  [n, m, k, ...] -> parts.")


# ---- other names of split --------------------------------------------------------------------------------------------


def _split_with_sizes(x: Any, split_sizes: Any, dim: int = 0) -> tuple[Any, ...]:
    if not isinstance(split_sizes, tuple | list):
        raise TypeError(f"split_with_sizes: argument 'split_sizes' must be a tuple of ints, not {type(split_sizes).__name__}")
    return split(x, split_sizes, dim)  # type: ignore[no-any-return]


split_with_sizes = Shorthand(
    "split_with_sizes",
    doc="Parts of one dim, of given sizes.  [..., n, ...] -> parts.",
    rule=_split_with_sizes,
    reference=lambda xp, x, split_sizes, dim=0: split.reference(xp, x, split_sizes, dim),
    dtypes=EVERY_COMPLEX,
    samples=(call(fill(6), [1, 2, 3]), call(fill(2, 5), (4, 1), -1), call(fill(4), (4, 0))),
    bad=(
        Bad((fill(5), [2, 2]), RuntimeError, r"split: sizes \[2, 2\] must sum to 5"),
        Bad((fill(5), 2), TypeError, "split_with_sizes: argument 'split_sizes'"),
    ),
)


def _unsafe(target: Shorthand, argument: str, parts: Any) -> Shorthand:
    """A name for parts that are no views in PyTorch; here it is the same as the safe one."""
    return Shorthand(
        f"unsafe_{target.name}",
        doc=f"{target.name}, under the name that promises no sharing.  [..., n, ...] -> parts.",
        rule=lambda x, parts, dim=0: target(x, parts, dim),
        reference=lambda xp, x, parts, dim=0: target.reference(xp, x, parts, dim),
        dtypes=EVERY_COMPLEX,
        samples=(call(fill(5, 3), parts), call(fill(3, 5), parts, -1)),
        bad=(Bad((fill(5), parts, 1), IndexError, r"\w+: Dimension out of range"),),
        renamed={argument: "parts"},
    )


unsafe_split = _unsafe(split, "split_size", 2)
unsafe_split_with_sizes = _unsafe(split_with_sizes, "split_sizes", [2, 3])
unsafe_chunk = _unsafe(chunk, "chunks", 3)
