"""Words for linear algebra on the last two dims: transposes, products, triangles, and checks of arguments.

Enters: tensors and types.  Leaves: tensors.  Never here: operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphc.dims import minimum
from graphc.dtypes import bfloat16, float16, int64
from graphc.errors import LinAlgError
from graphc.ir.op import Op, Shape, Size
from graphc.ops.arguments import of_type, tensor
from graphc.ops.complex import conj
from graphc.ops.contract import matmul, swapped
from graphc.ops.create import iota
from graphc.ops.movement import slice_, unsqueeze

Array = np.ndarray[Any, Any]


def adjoint(x: Any) -> Any:
    """Transposed and conjugated."""
    return conj(swapped(x))


def times(*factors: Any) -> Any:
    """The product of matrices, from the left."""
    result = factors[0]
    for factor in factors[1:]:
        result = matmul.run(result, factor)
    return result


def row(x: Any) -> Any:
    """A vector as a matrix of one row: to scale columns."""
    return unsqueeze.run(x, dim=x.ndim - 1)


def column(x: Any) -> Any:
    """A vector as a matrix of one column: to scale rows."""
    return unsqueeze.run(x, dim=x.ndim)


def diagonal(x: Any) -> Any:
    """The diagonal of each matrix."""
    return Op.table["diagonal"](x, 0, -2, -1)


def on_diagonal(x: Any) -> Any:
    """Matrices with vectors on the diagonal."""
    return Op.table["diag_embed"](x)


def lower(x: Any, diagonal: int = 0) -> Any:
    """What stands on and below a diagonal."""
    return Op.table["tril"](x, diagonal)


def upper(x: Any, diagonal: int = 0) -> Any:
    """What stands on and above a diagonal."""
    return Op.table["triu"](x, diagonal)


def identity(size: Size, like: Any) -> Any:
    """The identity of that size in the dtype of `like`, in one matrix."""
    k = iota.run(size=size, dtype=int64)
    return Op.table["cast"].run(Op.table["eq"](column(k), row(k)), dtype=like.dtype)


def part(x: Any, rows: slice = slice(None), columns: slice = slice(None)) -> Any:
    """Rows and columns start:stop of each matrix."""
    shape = tuple(x.shape)
    spans = []
    for size, wanted in zip(shape[-2:], (rows, columns), strict=True):
        spans.append((0 if wanted.start is None else wanted.start, size if wanted.stop is None else wanted.stop))
    lead = len(shape) - 2
    starts, stops = ((*at, *(span[i] for span in spans)) for i, at in enumerate(((0,) * lead, shape[:lead])))
    return slice_.run(x, starts=starts, stops=stops, steps=(1,) * len(shape))


def scaled(x: Any, number: float) -> Any:
    """x times a real number."""
    return Op.table["mul"](x, number)


def expanded(x: Any, batch: Shape) -> Any:
    """Matrices repeated over leading dims."""
    shape = (*batch, *x.shape[-2:])
    return x if tuple(x.shape) == shape else Op.table["expand"].run(x, shape=shape)


# ---- checks --------------------------------------------------------------------------------------------------------


def least(m: Size, n: Size) -> Size:
    """The smaller of two sizes."""
    return min(m, n) if isinstance(m, int) and isinstance(n, int) else minimum(m, n)


def matrices(name: str, argument: str, x: Any, square: bool = False) -> Any:
    """A tensor of floating or complex matrices.  Raises TypeError; RuntimeError for another dtype or shape."""
    x = tensor(name, argument, x)
    if x.dtype.kind not in "fc":
        raise RuntimeError(f"{name}: Expected a floating point or complex tensor as input. Got {of_type(x)}")
    if x.dtype in (float16, bfloat16):
        raise RuntimeError(f"{name}: Low precision dtypes not supported. Got {of_type(x)}")
    if x.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor {argument} must have at least 2 dimensions, got {of_type(x)}")
    if square and x.shape[-1] != x.shape[-2]:
        shown = f"{x.shape[-2]} by {x.shape[-1]} matrices"
        raise RuntimeError(f"{name}: {argument} must be batches of square matrices, but they are {shown}")
    return x


def same_dtype(name: str, x: Any, y: Any) -> None:
    """Raise RuntimeError unless two tensors have one dtype."""
    if x.dtype is not y.dtype:
        raise RuntimeError(f"{name}: Expected A and B to have the same dtype, but found {of_type(x)} and {of_type(y)}")


def by_matrix(x: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
    """(index of the batch, matrix) of every matrix of an array."""
    for at in np.ndindex(*x.shape[:-2]):
        yield at, x[at]


def batch_text(at: tuple[int, ...]) -> str:
    """How messages name a matrix of a batch."""
    return f"(Batch element {at[0]}): " if at else ""


def guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A reference whose NumPy errors are graphc's `LinAlgError`."""

    def reference(xp: Any, *arrays: Any, **attrs: Any) -> Any:
        try:
            return function(xp, *arrays, **attrs)
        except np.linalg.LinAlgError as error:
            raise LinAlgError(f"{name}: {error}") from None

    return reference
