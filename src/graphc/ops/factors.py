"""Factors of matrices: Cholesky, LU, QR, eigenvalues and singular values, computed by LAPACK on the host.

Enters: batches of matrices.  Leaves: operators of ``graphc.linalg``.  Never here: solving (`solvers`), what is written with these
(`linalg`).

Sources of the gradients: cholesky, I. Murray, "Differentiation of the Cholesky decomposition" (2016); lu, F. de Hoog, R. Anderssen
and M. Lukas, "Differentiation of matrix functionals using triangular factorization" (2011); qr, S. Walter, L. Lehmann, R. Lamour,
"On evaluating higher-order derivatives of the QR decomposition" (2012), wide matrices by D. Roberts and L. Roberts, "QR and LQ
decomposition matrix backpropagation algorithms" (2020); eig, C. Boeddeker et al., "On the computation of complex-valued gradients"
(2017); svd, J. Townsend, "Differentiating the singular value decomposition" (2016), its imaginary part by Z. Wan and S. Zhang,
"Automatic differentiation for complex valued SVD" (2019).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dtypes import int32
from graphc.errors import LinAlgError
from graphc.ir.op import Bad, Host, Op, TensorType
from graphc.ops.arguments import index_tensor, of_type, one_size
from graphc.ops.arithmetic import add, div, mul, sub
from graphc.ops.complex import conj, is_complex, real
from graphc.ops.contract import swapped
from graphc.ops.declare import COMPLEX, call, fill
from graphc.ops.declare import FLOATING as _FLOATING
from graphc.ops.elementwise import Prepared
from graphc.ops.matrices import (
    Array,
    adjoint,
    batch_text,
    by_matrix,
    column,
    diagonal,
    guarded,
    identity,
    least,
    lower,
    matrices,
    on_diagonal,
    part,
    row,
    scaled,
    times,
    upper,
)

DTYPES = (*_FLOATING[:2], *COMPLEX)


def bad_matrices(name: str, square: bool = True) -> tuple[Bad, ...]:
    """Calls with what are no matrices of numbers."""
    wrong = Bad((fill(2, 3),), RuntimeError, f"{name}: A must be batches of square matrices, but they are 2 by 3 matrices")
    return (
        Bad((fill(3),), RuntimeError, f"{name}: The input tensor A must have at least 2 dimensions"),
        Bad((fill(3, 3, dtype=int32),), RuntimeError, f"{name}: Expected a floating point or complex tensor as input"),
        Bad((2.0,), TypeError, f"{name}: argument 'A' must be a Tensor"),
        *((wrong,) if square else ()),
    )


def _solve(triangle: Any, x: Any, is_upper: bool, unit: bool = False) -> Any:
    return Op.table["linalg_solve_triangular"].run(triangle, x, upper=is_upper, unitriangular=unit)


# ---- cholesky ------------------------------------------------------------------------------------------------------


def refuse(name: str, info: Array, message: str) -> None:
    """Raise LinAlgError for the first matrix of which `info` is not 0."""
    for at in np.ndindex(*info.shape):
        if info[at]:
            raise LinAlgError(f"{name}: {batch_text(at)}{message.format(int(info[at]))}")


_NOT_POSITIVE = (
    "The factorization could not be completed because the input is not positive-definite (the leading minor of order {} is not "
    "positive-definite)."
)


def _cholesky_reference(xp: Any, x: Array, upper: bool, check: bool) -> tuple[Array, Array]:
    """The factor from its triangle; info: the order of the first leading minor that is not positive, or 0."""
    if upper:
        factors, info = _cholesky_reference(xp, np.swapaxes(x, -1, -2).conj(), False, check)
        return np.swapaxes(factors, -1, -2).conj(), info
    factors, info = np.zeros_like(x), np.zeros(x.shape[:-2], np.int32)
    for at, matrix in by_matrix(x):
        below = np.tril(matrix)
        whole = below + np.tril(matrix, -1).conj().T
        try:
            factors[at] = np.linalg.cholesky(whole)
        except np.linalg.LinAlgError:
            info[at] = next(k for k in range(1, len(whole) + 1) if not _is_positive(whole[:k, :k]))
            factors[at] = below
    if check:
        refuse("linalg.cholesky", info, _NOT_POSITIVE)
    return factors, info


def _is_positive(matrix: Array) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


def _cholesky_grad(g: Any, out: Any, x: Any, upper: bool, check: bool) -> tuple[Any]:
    """L^-H (P + P^H without its diagonal) L^-1 / 2, where P is the lower triangle of L^H g."""
    if g[0] is None:
        return (None,)
    factor, given = (adjoint(out[0]), adjoint(g[0])) if upper else (out[0], g[0])
    product = times(adjoint(factor), given)
    middle = add(lower(product), adjoint(lower(product, -1)))
    left = _solve(adjoint(factor), middle, True)
    return (scaled(adjoint(_solve(adjoint(factor), adjoint(left), True)), 0.5),)


cholesky_ex: Op = Op(
    "cholesky_factor",
    doc="The lower (or upper) Cholesky factor of Hermitian matrices, from that triangle of them, and 0 or the order of the minor "
    "that is not positive (an error with `check`).  [..., n, n] -> [..., n, n], int32 [...].",
    signature="(A, upper=False, check=False)",
    prepare=lambda A, upper=False, check=False: (
        (matrices("cholesky_factor", "A", A, True),),
        {"upper": bool(upper), "check": bool(check)},
    ),
    infer=lambda x, upper, check: (x, TensorType(int32, x.shape[:-2])),
    reference=_cholesky_reference,
    grad=_cholesky_grad,
    holomorphic=False,
    lowering=Host(),
    attrs=("upper", "check"),
    dtypes=DTYPES,
    samples=(call(fill(0, 0)), call(fill(3, 3, grad=False)), call(fill(2, 1, 1, low=0.5, grad=False))),
    bad=(
        *bad_matrices("cholesky_factor"),
        Bad((fill(2, 2, low=-2, high=-1), False, True), LinAlgError, "linalg.cholesky: The factorization could not be completed"),
    ),
    methods=(),
    functions=(),
)

# ---- lu ------------------------------------------------------------------------------------------------------------


def _lu_reference(xp: Any, x: Array, pivot: bool, check: bool = False) -> tuple[Array, Array, Array]:
    """Gaussian elimination by columns with the largest element below as pivot (the first of equal ones)."""
    lu = np.array(x)
    count = min(x.shape[-2:])
    pivots = np.zeros((*x.shape[:-2], count), np.int32)
    info = np.zeros(x.shape[:-2], np.int32)
    for at, matrix in by_matrix(lu):
        for k in range(count):
            sizes = np.abs(matrix[k:, k].real) + np.abs(matrix[k:, k].imag)
            best = k + int(np.argmax(sizes)) if pivot else k
            pivots[(*at, k)] = best + 1
            if best != k:
                matrix[[k, best]] = matrix[[best, k]]
            if matrix[k, k] == 0:
                info[at] = info[at] or k + 1
                continue
            matrix[k + 1 :, k] /= matrix[k, k]
            matrix[k + 1 :, k + 1 :] -= np.outer(matrix[k + 1 :, k], matrix[k, k + 1 :])
    if check:
        refuse("linalg.lu_factor", info, "U[{0},{0}] is zero and using it on lu_solve would result in a division by zero.")
    return lu, pivots, info


def _lu_infer(x: TensorType, pivot: bool, check: bool) -> tuple[TensorType, ...]:
    *batch, m, n = x.shape
    return x, TensorType(int32, (*batch, least(m, n))), TensorType(int32, tuple(batch))


def _lu_grad(g: Any, out: Any, x: Any, pivot: bool, check: bool) -> tuple[Any]:
    if g[0] is None:
        return (None,)
    factors, pivots, _ = out
    m, n = x.shape[-2:]
    k = least(m, n)
    corner, given = part(factors, slice(0, k), slice(0, k)), part(g[0], slice(0, k), slice(0, k))
    below = add(lower(corner, -1), identity(k, x))
    above = upper(corner)
    inner = add(
        lower(
            _less(times(swapped(below), lower(given, -1)), m < n, lambda: times(_right(g[0], k), swapped(_right(factors, k)))), -1
        ),
        upper(_less(times(upper(given), swapped(above)), m > n, lambda: times(swapped(_bottom(factors, k)), _bottom(g[0], k)))),
    )
    if m > n:
        inner = Op.table["cat"]([_solve(swapped(below), inner, True, True), _bottom(g[0], k)], -2)
        result = swapped(_solve(above, swapped(inner), True))
    else:
        inner = swapped(_solve(above, swapped(inner), True))
        inner = Op.table["cat"]([inner, _right(g[0], k)], -1) if m < n else inner
        result = _solve(swapped(below), inner, True, True)
    return (times(permutation.run(pivots, size=m, dtype=x.dtype), result) if pivot else result,)


def _less(x: Any, wanted: bool, other: Any) -> Any:
    return sub(x, other()) if wanted else x


def _right(x: Any, start: Any) -> Any:
    return part(x, columns=slice(start, None))


def _bottom(x: Any, start: Any) -> Any:
    return part(x, rows=slice(start, None))


lu_factor: Op = Op(
    "lu_factors",
    doc="LU factors of matrices in one matrix, the rows exchanged (counted from 1), and 0 or the number of the first pivot that is "
    "0 (an error with `check`).  [..., m, n] -> [..., m, n], int32 [..., min(m, n)], int32 [...].",
    signature="(A, *, pivot=True, check=False)",
    prepare=lambda A, *, pivot=True, check=False: (
        (matrices("lu_factors", "A", A),),
        {"pivot": bool(pivot), "check": bool(check)},
    ),
    infer=_lu_infer,
    reference=_lu_reference,
    grad=_lu_grad,
    lowering=Host(),
    attrs=("pivot", "check"),
    dtypes=DTYPES,
    samples=(call(fill(3, 3)), call(fill(2, 3, 4)), call(fill(4, 2)), call(fill(0, 3)), call(fill(2, 2, low=1.0), pivot=False)),
    bad=bad_matrices("lu_factors", square=False),
    methods=(),
    functions=(),
)


def _permutation_reference(xp: Any, pivots: Array, size: int, dtype: Any) -> Array:
    if pivots.size and not 1 <= pivots.min() <= pivots.max() <= size:
        raise RuntimeError(f"lu_unpack: pivots must lie in 1..{size}, got {pivots.min()} to {pivots.max()}")
    result = np.zeros((*pivots.shape[:-1], size, size), dtype.numpy)
    for at in np.ndindex(*pivots.shape[:-1]):
        order = np.arange(size)
        for k, p in enumerate(pivots[at]):
            order[[k, p - 1]] = order[[p - 1, k]]
        result[at][order, np.arange(size)] = 1
    return result


def _permutation_prepare(pivots: Any, size: Any, dtype: Any) -> Prepared:
    pivots = index_tensor("lu_unpack", "pivots", pivots)
    if not pivots.ndim:
        raise RuntimeError(f"lu_unpack: pivots must have at least one dimension, got {of_type(pivots)}")
    return (pivots,), {"size": one_size("lu_permutation", "size", size), "dtype": dtype}


permutation: Op = Op(
    "lu_permutation",
    doc="P of P L U from the rows that were exchanged.  int32 [..., k] -> [..., size, size].",
    signature="(pivots, size, dtype)",
    prepare=_permutation_prepare,
    infer=lambda pivots, size, dtype: TensorType(dtype, (*pivots.shape[:-1], size, size)),
    reference=_permutation_reference,
    grad=None,
    lowering=Host(),
    attrs=("size", "dtype"),
    dtypes=(int32,),
    samples=(call(fill(2, 3, low=3, high=4), 3, int32), call(fill(1, low=1, high=2), 1, int32)),
    bad=(Bad((fill(3), 2.5, int32), TypeError, "lu_permutation: argument 'size' must be ints"),),
    methods=(),
    functions=(),
)

# ---- qr ------------------------------------------------------------------------------------------------------------


def _qr_infer(x: TensorType, mode: str) -> tuple[TensorType, TensorType]:
    *batch, m, n = x.shape
    k = m if mode == "complete" else least(m, n)
    q = (0,) if mode == "r" else (*batch, m, k)
    return TensorType(x.dtype, q), TensorType(x.dtype, (*batch, k, n))


def _qr_reference(xp: Any, x: Array, mode: str) -> tuple[Array, Array]:
    if mode == "r":
        return np.zeros(0, x.dtype), np.asarray(np.linalg.qr(x, "r"))
    q, r = np.linalg.qr(x, "complete" if mode == "complete" else "reduced")
    return q, r


def _qr_grad(g: Any, out: Any, x: Any, mode: str) -> tuple[Any]:
    if mode == "r":
        raise RuntimeError("linalg.qr: The derivative depends on Q, which is not computed when mode='r'; use mode='reduced'")
    m, n = x.shape[-2:]
    if mode == "complete" and m > n:
        raise RuntimeError("linalg.qr: The QR decomposition is not differentiable when mode='complete' and nrows > ncols")
    q, r = out
    gq, gr = g
    if m >= n:
        return (_square_qr_grad(q, r, gq, gr),)
    if gr is None:
        first = _square_qr_grad(q, part(r, columns=slice(0, m)), gq, None)
        return (Op.table["cat"]([first, mul(_right(x, m), 0)], -1),)
    last = _right(gr, m)
    through = times(_right(x, m), adjoint(last))
    gq = through if gq is None else add(gq, through)
    first = _square_qr_grad(q, part(r, columns=slice(0, m)), gq, part(gr, columns=slice(0, m)))
    return (Op.table["cat"]([first, times(q, last)], -1),)


def _square_qr_grad(q: Any, r: Any, gq: Any, gr: Any) -> Any:
    """[gQ + Q (T + T^H without its diagonal)] R^-H, where T is the upper triangle of gR R^H - Q^H gQ."""
    inner = None if gr is None else times(gr, adjoint(r))
    if gq is not None:
        turned = times(adjoint(q), gq)
        inner = scaled(turned, -1) if inner is None else sub(inner, turned)
    top = upper(inner)
    whole = sub(add(top, adjoint(top)), on_diagonal(Op.table["cast"].run(real(diagonal(top)), dtype=q.dtype)))
    result = times(q, whole)
    result = result if gq is None else add(gq, result)
    return adjoint(_solve(r, adjoint(result), True))


def _mode(mode: Any) -> str:
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(
            f"linalg.qr: qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', or 'complete'"
        )
    return str(mode)


qr: Op = Op(
    "linalg_qr",
    doc="A = Q R with orthonormal columns Q and upper triangular R; mode: 'reduced', 'complete' or 'r' (Q is empty).  [..., m, n] "
    "-> [..., m, k], [..., k, n].",
    signature="(A, mode='reduced')",
    prepare=lambda A, mode="reduced": ((matrices("linalg.qr", "A", A),), {"mode": _mode(mode)}),
    infer=_qr_infer,
    reference=guarded("linalg.qr", _qr_reference),
    grad=_qr_grad,
    holomorphic=False,
    lowering=Host(),
    attrs=("mode",),
    dtypes=DTYPES,
    samples=(call(fill(3, 3)), call(fill(2, 4, 3)), call(fill(2, 4)), call(fill(4, 3, grad=False), "complete"), call(fill(0, 3))),
    bad=(
        *bad_matrices("linalg.qr", square=False),
        Bad((fill(3, 3), "all"), RuntimeError, "linalg.qr: qr received unrecognized mode"),
    ),
    methods=(),
    functions=("linalg.qr",),
    autocast="float32",
)

# ---- eigenvalues ---------------------------------------------------------------------------------------------------


def _gaps(values: Any) -> Any:
    """values[j] - values[i], 1 on the diagonal."""
    apart = sub(row(values), column(values))
    return add(apart, identity(values.shape[-1], values))


def _without_diagonal(x: Any) -> Any:
    return sub(x, on_diagonal(diagonal(x)))


def _eigh_grad(g: Any, out: Any, x: Any, UPLO: str) -> tuple[Any]:
    """V (diag(gL) + the Hermitian part of (V^H gV) / gaps) V^H."""
    values, vectors = out
    inner = None
    if g[1] is not None:
        turned = div(_without_diagonal(times(adjoint(vectors), g[1])), _gaps(values))
        inner = scaled(add(turned, adjoint(turned)), 0.5)
    if g[0] is not None:
        straight = on_diagonal(Op.table["cast"].run(g[0], dtype=x.dtype))
        inner = straight if inner is None else add(inner, straight)
    return (None if inner is None else times(vectors, inner, adjoint(vectors)),)


def _uplo(UPLO: Any) -> str:
    if str(UPLO).upper() not in ("L", "U"):
        raise RuntimeError(f"linalg.eigh: Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    return str(UPLO).upper()


eigh: Op = Op(
    "linalg_eigh",
    doc="Eigenvalues in ascending order and eigenvectors of Hermitian matrices, from the triangle UPLO.  [..., n, n] -> real "
    "[..., n], [..., n, n].",
    signature="(A, UPLO='L')",
    prepare=lambda A, UPLO="L": ((matrices("linalg.eigh", "A", A, True),), {"UPLO": _uplo(UPLO)}),
    infer=lambda x, UPLO: (TensorType(x.dtype.real, x.shape[:-1]), x),
    reference=guarded("linalg.eigh", lambda xp, x, UPLO: tuple(np.linalg.eigh(x, UPLO))),
    grad=_eigh_grad,
    holomorphic=False,
    lowering=Host(),
    attrs=("UPLO",),
    dtypes=DTYPES,
    samples=(call(fill(0, 0)), call(fill(3, 3, grad=False)), call(fill(2, 4, 4, grad=False), "U")),
    bad=(*bad_matrices("linalg.eigh"), Bad((fill(3, 3), "M"), RuntimeError, "linalg.eigh: Expected UPLO argument")),
    methods=(),
    functions=("linalg.eigh",),
    autocast="float32",
)


def _eig_reference(xp: Any, x: Array) -> tuple[Array, Array]:
    values, vectors = np.linalg.eig(x)
    wide = np.complex64 if x.real.dtype == np.float32 else np.complex128
    return values.astype(wide), vectors.astype(wide)


def _eig_grad(g: Any, out: Any, x: Any) -> tuple[Any]:
    """V^-H (diag(gL) + (V^H gV - V^H V diag(Re V^H gV)) / conj(gaps)) V^H."""
    values, vectors = out
    turned = adjoint(vectors)
    inner = None
    if g[1] is not None:
        product = times(turned, g[1])
        sizes = Op.table["cast"].run(real(diagonal(product)), dtype=values.dtype)
        rest = sub(product, mul(times(turned, vectors), row(sizes)))
        inner = div(_without_diagonal(rest), conj(_gaps(values)))
    if g[0] is not None:
        inner = on_diagonal(g[0]) if inner is None else add(inner, on_diagonal(g[0]))
    if inner is None:
        return (None,)
    result = Op.table["linalg_solve_matrix"].run(turned, times(inner, turned))
    return (result if is_complex(x) else real(result),)


eig: Op = Op(
    "linalg_eig",
    doc="Eigenvalues and eigenvectors of square matrices.  [..., n, n] -> complex [..., n], complex [..., n, n].",
    signature="(A)",
    prepare=lambda A: ((matrices("linalg.eig", "A", A, True),), {}),
    infer=lambda x: (TensorType(x.dtype.to_complex(), x.shape[:-1]), TensorType(x.dtype.to_complex(), x.shape)),
    reference=guarded("linalg.eig", _eig_reference),
    grad=_eig_grad,
    holomorphic=False,
    lowering=Host(),
    dtypes=DTYPES,
    samples=(call(fill(0, 0)), call(fill(3, 3, grad=False)), call(fill(2, 4, 4, grad=False))),
    bad=bad_matrices("linalg.eig"),
    methods=(),
    functions=("linalg.eig",),
    autocast="float32",
)

# ---- singular values -----------------------------------------------------------------------------------------------


def _svd_infer(x: TensorType, full_matrices: bool) -> tuple[TensorType, ...]:
    *batch, m, n = x.shape
    k = least(m, n)
    left, right = (m, n) if full_matrices else (k, k)
    return (TensorType(x.dtype, (*batch, m, left)), TensorType(x.dtype.real, (*batch, k)), TensorType(x.dtype, (*batch, right, n)))


def _svd_reference(xp: Any, x: Array, full_matrices: bool) -> tuple[Array, ...]:
    if not np.isfinite(x).all():
        raise LinAlgError("linalg.svd: The algorithm failed to converge because the input matrix contained non-finite values.")
    return tuple(np.linalg.svd(x, full_matrices))


def _svd_grad(g: Any, out: Any, x: Any, full_matrices: bool) -> tuple[Any]:
    m, n = x.shape[-2:]
    k = least(m, n)
    u, s, vh = part(out[0], columns=slice(0, k)), out[1], part(out[2], rows=slice(0, k))
    gu = None if g[0] is None else part(g[0], columns=slice(0, k))
    gvh = None if g[2] is None else part(g[2], rows=slice(0, k))
    wide = Op.table["cast"].run(s, dtype=x.dtype)
    straight = None if g[1] is None else on_diagonal(Op.table["cast"].run(g[1], dtype=x.dtype))
    if gu is None and gvh is None:
        return (None if straight is None else times(u, straight, vh),)
    apart = _gaps(mul(s, s))
    terms = [] if straight is None else [straight]
    turned = None
    if gu is not None:
        turned = _skew(times(adjoint(u), gu))
        terms.append(mul(div(turned, apart), row(wide)))
    if gvh is not None:
        terms.append(mul(column(wide), div(_skew(times(vh, adjoint(gvh))), apart)))
    if gu is not None and gvh is not None and is_complex(x):
        terms.append(on_diagonal(div(diagonal(turned), scaled(s, 2))))
    inner = terms[0]
    for term in terms[1:]:
        inner = add(inner, term)
    result = times(u, inner)
    if gu is not None and m > k:
        outside = div(gu, row(s))
        result = add(result, sub(outside, times(u, adjoint(u), outside)))
    result = times(result, vh)
    if gvh is not None and n > k:
        outside = div(gvh, column(s))
        result = add(result, times(u, sub(outside, times(outside, adjoint(vh), vh))))
    return (result,)


def _skew(x: Any) -> Any:
    return sub(x, adjoint(x))


svd: Op = Op(
    "linalg_svd",
    doc="A = U diag(S) Vh with orthonormal columns of U and rows of Vh, S descending.  [..., m, n] -> [..., m, k], real "
    "[..., min(m, n)], [..., k, n], where k is min(m, n) or, of full_matrices, the whole size.",
    signature="(A, full_matrices=True, *, driver=None)",
    prepare=lambda A, full_matrices=True, *, driver=None: _svd_prepare(A, full_matrices, driver),
    infer=_svd_infer,
    reference=guarded("linalg.svd", _svd_reference),
    grad=_svd_grad,
    holomorphic=False,
    lowering=Host(),
    attrs=("full_matrices",),
    dtypes=DTYPES,
    samples=(call(fill(3, 3, grad=False)), call(fill(2, 4, 3, grad=False), False), call(fill(2, 4, grad=False)), call(fill(0, 3))),
    bad=(
        *bad_matrices("linalg.svd", square=False),
        Bad((fill(3, 3),), RuntimeError, "linalg.svd: keyword argument `driver=`", {"driver": "gesvd"}),
    ),
    methods=(),
    functions=("linalg.svd",),
    autocast="float32",
)


def _svd_prepare(A: Any, full_matrices: bool, driver: str | None) -> Prepared:
    if driver is not None:
        raise RuntimeError("linalg.svd: keyword argument `driver=` is only supported on CUDA inputs with cuSOLVER backend.")
    return (matrices("linalg.svd", "A", A),), {"full_matrices": bool(full_matrices)}


__all__ = ["cholesky_ex", "eig", "eigh", "lu_factor", "permutation", "qr", "svd"]
