"""Linear algebra by the array API standard: its own names and the ``linalg`` extension.

Enters: arrays.  Leaves: arrays.  Never here: what an operator computes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import graphc
import graphc.linalg as _linalg
from graphc import Tensor
from graphc.array_api.elementwise import conj
from graphc.array_api.reductions import total_dtype
from graphc.array_api.types import promoted
from graphc.dtypes import DType


def matmul(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The matrix product."""
    return graphc.matmul(*promoted("matmul", x1, x2))  # type: ignore[no-any-return]


def matrix_transpose(x: Tensor, /) -> Tensor:
    """The last two axes exchanged."""
    return x.mT  # type: ignore[attr-defined,no-any-return]


def tensordot(x1: Tensor, x2: Tensor, /, *, axes: Any = 2) -> Tensor:
    """Products summed over several axes: the last of x1 with the first of x2, or given ones of each."""
    x1, x2 = promoted("tensordot", x1, x2)
    return graphc.tensordot(x1, x2, dims=axes)  # type: ignore[no-any-return]


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The dot products of vectors along an axis, x1 conjugated."""
    x1, x2 = promoted("vecdot", x1, x2)
    if x1.shape[axis] != x2.shape[axis]:
        raise ValueError(f"vecdot: sizes {x1.shape[axis]} and {x2.shape[axis]} of axis {axis} differ")
    return graphc.sum(conj(x1) * x2, axis, dtype=x1.dtype)  # type: ignore[operator,no-any-return]


def cholesky(x: Tensor, /, *, upper: bool = False) -> Tensor:
    """The triangular factor of a positive definite matrix."""
    return _linalg.cholesky(x, upper=upper)  # type: ignore[attr-defined,no-any-return]


def cross(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The cross products of vectors of 3 elements along an axis."""
    x1, x2 = graphc.broadcast_tensors(*promoted("cross", x1, x2))
    return _linalg.cross(x1, x2, dim=axis)  # type: ignore[attr-defined,no-any-return]


def det(x: Tensor, /) -> Tensor:
    """The determinant."""
    return _linalg.det(x)  # type: ignore[attr-defined,no-any-return]


def diagonal(x: Tensor, /, *, offset: int = 0) -> Tensor:
    """The diagonals of matrices."""
    return graphc.diagonal(x, offset, -2, -1)  # type: ignore[no-any-return]


class Eigh(NamedTuple):
    """Eigenvalues in order, and eigenvectors in columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def eigh(x: Tensor, /) -> Eigh:
    """Eigenvalues and eigenvectors of a symmetric or Hermitian matrix."""
    return Eigh(*_linalg.eigh(x))  # type: ignore[attr-defined]


def eigvalsh(x: Tensor, /) -> Tensor:
    """Eigenvalues of a symmetric or Hermitian matrix."""
    return _linalg.eigvalsh(x)  # type: ignore[attr-defined,no-any-return]


def inv(x: Tensor, /) -> Tensor:
    """The inverse."""
    return _linalg.inv(x)  # type: ignore[attr-defined,no-any-return]


def matrix_norm(x: Tensor, /, *, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    """A norm of matrices."""
    return _linalg.matrix_norm(x, "fro" if ord is None else ord, keepdim=keepdims)  # type: ignore[attr-defined,no-any-return]


def matrix_power(x: Tensor, n: int, /) -> Tensor:
    """A matrix times itself."""
    return _linalg.matrix_power(x, n)  # type: ignore[attr-defined,no-any-return]


def matrix_rank(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """How many singular values count."""
    return _linalg.matrix_rank(x, rtol=rtol)  # type: ignore[attr-defined,no-any-return]


def outer(x1: Tensor, x2: Tensor, /) -> Tensor:
    """Every product of an element of x1 and one of x2."""
    return graphc.outer(*promoted("outer", x1, x2))  # type: ignore[no-any-return]


def pinv(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """The pseudoinverse."""
    return _linalg.pinv(x, rtol=rtol)  # type: ignore[attr-defined,no-any-return]


class Qr(NamedTuple):
    """An orthonormal and a triangular factor."""

    Q: Tensor
    R: Tensor


def qr(x: Tensor, /, *, mode: str = "reduced") -> Qr:
    """The QR decomposition."""
    return Qr(*_linalg.qr(x, mode))  # type: ignore[attr-defined]


class Slogdet(NamedTuple):
    """The determinant's sign and the logarithm of its size."""

    sign: Tensor
    logabsdet: Tensor


def slogdet(x: Tensor, /) -> Slogdet:
    """The determinant in two parts."""
    return Slogdet(*_linalg.slogdet(x))  # type: ignore[attr-defined]


def solve(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The x for which x1 @ x is x2: a vector only where x2 is of rank 1."""
    x1, x2 = promoted("solve", x1, x2)
    if x2.ndim == 1:
        return _linalg.solve(x1, x2.unsqueeze(-1)).squeeze(-1)  # type: ignore[attr-defined,no-any-return]
    batch = graphc.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    x2 = x2.expand(*batch, *x2.shape[-2:])  # type: ignore[attr-defined]
    return _linalg.solve(x1.expand(*batch, *x1.shape[-2:]), x2)  # type: ignore[attr-defined,no-any-return]


class Svd(NamedTuple):
    """Left singular vectors, singular values, and right singular vectors in rows."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def svd(x: Tensor, /, *, full_matrices: bool = True) -> Svd:
    """The singular value decomposition."""
    return Svd(*_linalg.svd(x, full_matrices=full_matrices))  # type: ignore[attr-defined]


def svdvals(x: Tensor, /) -> Tensor:
    """The singular values."""
    return _linalg.svdvals(x)  # type: ignore[attr-defined,no-any-return]


def trace(x: Tensor, /, *, offset: int = 0, dtype: DType | None = None) -> Tensor:
    """The sums of diagonals of matrices."""
    wanted = total_dtype(x, dtype)
    return graphc.sum(diagonal(x, offset=offset).to(wanted), -1, dtype=wanted)  # type: ignore[attr-defined,no-any-return]


def vector_norm(x: Tensor, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Tensor:
    """A norm of vectors along axes, of all elements without."""
    if axis == ():
        return graphc.abs(x) if ord != 0 else (x != 0).to(x.dtype.real)  # type: ignore[attr-defined,no-any-return]
    return _linalg.vector_norm(x, ord, dim=axis, keepdim=keepdims)  # type: ignore[attr-defined,no-any-return]


__all__ = [
    "cholesky", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "matmul", "matrix_norm", "matrix_power", "matrix_rank",
    "matrix_transpose", "outer", "pinv", "qr", "slogdet", "solve", "svd", "svdvals", "tensordot", "trace", "vecdot",
    "vector_norm",
]  # fmt: skip
