"""Linear algebra under PyTorch's names: factors, solutions and determinants, written with `factors` and `solvers`.

Enters: tensors.  Leaves: operators of ``graphc.linalg``, and their older names in ``graphc``.  Never here: LAPACK, gradient rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.dtypes import int32, int64
from graphc.ir.op import Bad, Composite, Op
from graphc.ops.arguments import cast, constant, is_tensor, of_type, tensor
from graphc.ops.arithmetic import add, mul
from graphc.ops.complex import is_complex
from graphc.ops.contract import swapped
from graphc.ops.declare import Shorthand, call, fill, infer_through
from graphc.ops.elementwise import Prepared
from graphc.ops.factors import DTYPES, bad_matrices, cholesky_ex, eig, eigh, lu_factor, permutation, qr, svd
from graphc.ops.matrices import adjoint, expanded, identity, least, lower, matrices, part, same_dtype, scaled, times, upper
from graphc.ops.movement import squeeze, summed_to, unsqueeze
from graphc.ops.solvers import inv, inv_ex, least_squares, pinv, plain_svdvals, rank, slogdet, solve, solve_ex, solve_triangular

_ONE = (call(fill(3, 3)), call(fill(2, 3, 3)))
_APART = (call(fill(3, 3, grad=False)), call(fill(2, 3, 3, grad=False)))
_PAIR = (call(fill(3, 3), fill(3, 2)), call(fill(2, 3, 3), fill(2, 3, 1)))


def shorthand(name: str, doc: str, rule: Callable[..., Any], samples: Any, bad: Any, *functions: str, **how: Any) -> Op:
    """An operator of matrices written with others."""
    how.setdefault("methods", ())
    how.setdefault("dtypes", DTYPES)
    return Shorthand(name, doc=doc, rule=rule, samples=samples, bad=bad, functions=functions or (name,), **how)


# ---- cholesky ------------------------------------------------------------------------------------------------------


def _factored(A: Any, upper: bool, check: bool) -> tuple[Any, Any]:
    A = matrices("linalg.cholesky", "A", A, True)
    return cholesky_ex.run(A, upper=bool(upper), check=bool(check))  # type: ignore[no-any-return]


def _cholesky(A: Any, *, upper: bool = False) -> Any:
    return _factored(A, upper, True)[0]


def _old_cholesky(input: Any, upper: bool = False) -> Any:
    return _factored(input, upper, True)[0]


def _cholesky_ex(A: Any, *, upper: bool = False, check_errors: bool = False) -> tuple[Any, Any]:
    return _factored(A, upper, check_errors)


_CHOLESKY_BAD = bad_matrices("linalg.cholesky")
_EMPTY = (call(fill(0, 0)), call(fill(2, 0, 0)))
cholesky = shorthand(
    "linalg_cholesky",
    "L of A = L L^H for Hermitian positive-definite matrices, or U = L^H.  [..., n, n] -> [..., n, n].",
    _cholesky,
    _EMPTY,
    _CHOLESKY_BAD,
    "linalg.cholesky",
    autocast="float32",
)
shorthand(
    "linalg_cholesky_ex",
    "cholesky, and 0 or the order of the minor that is not positive.  [..., n, n] -> [..., n, n], int32 [...].",
    _cholesky_ex,
    _EMPTY,
    _CHOLESKY_BAD,
    "linalg.cholesky_ex",
    autocast="float32",
)
shorthand(
    "cholesky",
    "linalg.cholesky.  [..., n, n] -> [..., n, n].",
    _old_cholesky,
    _EMPTY,
    _CHOLESKY_BAD[:2],
    "cholesky",
    methods=("cholesky",),
    autocast="float32",
)


def _triangular(triangle: Any, x: Any, is_upper: bool, unit: bool = False) -> Any:
    return solve_triangular.run(triangle, x, upper=is_upper, unitriangular=unit)


def _cholesky_pair(B: Any, L: Any, upper: bool = False) -> Prepared:
    B, L = matrices("cholesky_solve", "B", B), matrices("cholesky_solve", "A", L, True)
    same_dtype("cholesky_solve", B, L)
    return (B, L), {"upper": bool(upper)}


def _cholesky_solution(B: Any, L: Any, upper: bool) -> Any:
    factor = adjoint(L) if upper else L
    return _triangular(adjoint(factor), _triangular(factor, B, False), True)


def _cholesky_solve_grad(g: Any, out: Any, B: Any, L: Any, upper: bool) -> tuple[Any, Any]:
    gb = cholesky_solve.run(g, L, upper=upper)
    both = times(gb, adjoint(out))
    both = scaled(add(both, adjoint(both)), -1)
    gl = times(L, both) if upper else times(both, L)
    return summed_to(gb, tuple(B.shape)), summed_to(gl, tuple(L.shape))


cholesky_solve: Op = Op(
    "cholesky_solve",
    doc="X of A X = B from the Cholesky factor of A.  [..., n, k], [..., n, n] -> [..., n, k].",
    signature="(B, L, upper=False)",
    prepare=_cholesky_pair,
    infer=infer_through(_cholesky_solution),
    reference=lambda xp, B, L, upper: xp.linalg.solve(_whole(xp, L, upper), B),
    grad=_cholesky_solve_grad,
    holomorphic=False,
    lowering=Composite(_cholesky_solution),
    attrs=("upper",),
    dtypes=DTYPES,
    samples=(call(fill(3, 2), fill(3, 3, low=0.5, grad=False)),),
    bad=(Bad((fill(3, 2), 1.0), TypeError, "argument 'A' must be a Tensor"),),
    renamed={"input2": "L"},
    autocast="float32",
)


def _whole(xp: Any, L: Any, upper: bool) -> Any:
    """The matrix of a Cholesky factor."""
    factor = xp.swapaxes(L, -1, -2).conj() if upper else L
    factor = xp.tril(factor)
    return factor @ xp.swapaxes(factor, -1, -2).conj()


def _cholesky_inverse(L: Any, upper: bool = False) -> Any:
    L = matrices("cholesky_inverse", "A", L, True)
    return cholesky_solve(expanded(identity(L.shape[-1], L), tuple(L.shape[:-2])), L, upper)


shorthand(
    "cholesky_inverse",
    "The inverse of A from its Cholesky factor.  [..., n, n] -> [..., n, n].",
    _cholesky_inverse,
    (call(fill(3, 3, low=0.5, grad=False)),),
    bad_matrices("cholesky_inverse")[:1],
    methods=("cholesky_inverse",),
    autocast="float32",
)

# ---- lu ------------------------------------------------------------------------------------------------------------


def _unpacked(factors: Any, pivots: Any, data: bool = True, exchanges: bool = True) -> tuple[Any, Any, Any]:
    """P, L, U; what is not wanted is empty."""
    m, n = factors.shape[-2:]
    k = least(m, n)
    empty = constant(0, factors.dtype, (0,))
    p = permutation.run(pivots, size=m, dtype=factors.dtype) if exchanges else empty
    if not data:
        return p, empty, empty
    below = lower(part(factors, columns=slice(0, k)), -1)
    ones = Op.table["eye"](m, k, dtype=factors.dtype)
    return p, Op.table["add"](below, ones), upper(part(factors, rows=slice(0, k)))


def _lu(A: Any, *, pivot: bool = True) -> tuple[Any, Any, Any]:
    factors, pivots, _ = lu_factor.run(matrices("linalg.lu", "A", A), pivot=bool(pivot), check=False)
    return _unpacked(factors, pivots, exchanges=bool(pivot))


def _lu_factor(A: Any, *, pivot: bool = True) -> tuple[Any, Any]:
    factors, pivots, _ = lu_factor.run(matrices("linalg.lu_factor", "A", A), pivot=bool(pivot), check=True)
    return factors, pivots


def _lu_factor_ex(A: Any, *, pivot: bool = True, check_errors: bool = False) -> tuple[Any, Any, Any]:
    return lu_factor.run(matrices("linalg.lu_factor_ex", "A", A), pivot=bool(pivot), check=bool(check_errors))  # type: ignore[no-any-return]


def _old_lu(A: Any, pivot: bool = True, get_infos: bool = False) -> tuple[Any, ...]:
    factors, pivots, info = lu_factor.run(matrices("lu", "A", A), pivot=bool(pivot), check=False)
    return (factors, pivots, info) if get_infos else (factors, pivots)


def _lu_unpack(LU_data: Any, LU_pivots: Any, unpack_data: bool = True, unpack_pivots: bool = True) -> tuple[Any, Any, Any]:
    if tensor("lu_unpack", "LU_pivots", LU_pivots).dtype is not int32:
        raise RuntimeError(f"lu_unpack: LU_pivots is expected to be a contiguous tensor of int32, got {of_type(LU_pivots)}")
    return _unpacked(matrices("lu_unpack", "A", LU_data), LU_pivots, unpack_data, unpack_pivots)


def _lu_solve(LU: Any, pivots: Any, B: Any, *, left: bool = True, adjoint: bool = False) -> Any:
    LU, B = matrices("linalg.lu_solve", "A", LU, True), matrices("linalg.lu_solve", "B", B)
    same_dtype("linalg.lu_solve", LU, B)
    if not left:
        return conjugate_transposed(_lu_solve(LU, pivots, conjugate_transposed(B), adjoint=not adjoint))
    p = permutation.run(pivots, size=LU.shape[-1], dtype=LU.dtype)
    if adjoint:
        turned = conjugate_transposed(LU)
        return times(p, _triangular(turned, _triangular(turned, B, False), True, True))
    return _triangular(LU, _triangular(LU, times(swapped(p), B), False, True), True)


conjugate_transposed = adjoint


def _old_lu_solve(b: Any, LU_data: Any, LU_pivots: Any) -> Any:
    return _lu_solve(LU_data, LU_pivots, b)


_LU_BAD = bad_matrices("linalg.lu_factor", square=False)
_WIDE_AND_TALL = (call(fill(3, 3)), call(fill(2, 3, 4)), call(fill(4, 2)))
shorthand(
    "linalg_lu",
    "A = P L U.  [..., m, n] -> [..., m, m], [..., m, k], [..., k, n].",
    _lu,
    _WIDE_AND_TALL,
    bad_matrices("linalg.lu", square=False),
    "linalg.lu",
)
shorthand(
    "linalg_lu_factor",
    "L and U in one matrix, and the rows that were exchanged.  [..., m, n] -> [..., m, n], int32 [..., k].",
    _lu_factor,
    _WIDE_AND_TALL,
    _LU_BAD,
    "linalg.lu_factor",
)
shorthand(
    "linalg_lu_factor_ex",
    "lu_factor, and 0 or the number of a pivot that is 0.  [..., m, n] -> [..., m, n], int32 [..., k], int32 [...].",
    _lu_factor_ex,
    _WIDE_AND_TALL,
    bad_matrices("linalg.lu_factor_ex", square=False),
    "linalg.lu_factor_ex",
)
shorthand(
    "lu",
    "linalg.lu_factor.  [..., m, n] -> [..., m, n], int32 [..., k].",
    _old_lu,
    _WIDE_AND_TALL,
    bad_matrices("lu", square=False),
    methods=("lu",),
    autocast="float32",
)
_PIVOTS = fill(3, dtype=int32, low=3, high=4)
shorthand(
    "lu_unpack",
    "P, L and U from what lu_factor gave.  [..., m, n], int32 [..., k] -> [..., m, m], [..., m, k], [..., k, n].",
    _lu_unpack,
    (call(fill(3, 3), _PIVOTS),),
    (Bad((fill(3, 3), fill(3)), RuntimeError, "lu_unpack: LU_pivots"),),
)
shorthand(
    "linalg_lu_solve",
    "X of A X = B (or X A = B, or of A^H) from what lu_factor gave.  [..., n, n], int32 [..., n], [..., n, k] -> [..., n, k].",
    _lu_solve,
    (call(fill(3, 3, low=0.5), _PIVOTS, fill(3, 2)),),
    (Bad((fill(3), 1, 1), RuntimeError, "at least 2 dimensions"),),
    "linalg.lu_solve",
)
shorthand(
    "lu_solve",
    "linalg.lu_solve.  [..., n, k], [..., n, n], int32 [..., n] -> [..., n, k].",
    _old_lu_solve,
    (call(fill(3, 2), fill(3, 3, low=0.5), _PIVOTS),),
    (Bad((1, fill(3), 1), RuntimeError, "at least 2"),),
    methods=("lu_solve",),
    autocast="float32",
)

# ---- qr, eigenvalues, singular values ------------------------------------------------------------------------------


def _old_qr(input: Any, some: bool = True) -> tuple[Any, Any]:
    return qr(input, "reduced" if some else "complete")  # type: ignore[no-any-return]


def _svdvals(A: Any, *, driver: str | None = None) -> Any:
    return svd(A, False, driver=driver)[1]


def _old_svd(input: Any, some: bool = True, compute_uv: bool = True) -> tuple[Any, Any, Any]:
    u, s, vh = svd(input, not some)
    if compute_uv:
        return u, s, adjoint(vh)
    m, n = input.shape[-2:]
    return (
        *(constant(0, input.dtype, (*input.shape[:-2], d, d)) for d in (m,)),
        s,
        constant(0, input.dtype, (*input.shape[:-2], n, n)),
    )


shorthand(
    "qr",
    "linalg.qr.  [..., m, n] -> [..., m, k], [..., k, n].",
    _old_qr,
    _APART,
    bad_matrices("linalg.qr", False)[:2],
    methods=("qr",),
    autocast="float32",
)
shorthand(
    "linalg_eigvals",
    "Eigenvalues of square matrices.  [..., n, n] -> complex [..., n].",
    lambda A: eig(A)[0],
    _APART,
    bad_matrices("linalg.eig"),
    "linalg.eigvals",
    autocast="float32",
)
shorthand(
    "linalg_eigvalsh",
    "Eigenvalues of Hermitian matrices in ascending order.  [..., n, n] -> real [..., n].",
    lambda A, UPLO="L": eigh(A, UPLO)[0],
    _APART,
    bad_matrices("linalg.eigh"),
    "linalg.eigvalsh",
    autocast="float32",
)
shorthand(
    "linalg_svdvals",
    "Singular values in descending order.  [..., m, n] -> real [..., k].",
    _svdvals,
    _APART,
    bad_matrices("linalg.svd", False),
    "linalg.svdvals",
    autocast="float32",
)
shorthand(
    "svd",
    "A = U diag(S) V^H.  [..., m, n] -> [..., m, k], real [..., k], [..., n, k].",
    _old_svd,
    _APART,
    bad_matrices("linalg.svd", False)[:2],
    methods=("svd",),
    autocast="float32",
)

# ---- solutions -----------------------------------------------------------------------------------------------------


def _vectors(A: Any, B: Any) -> bool:
    """Whether `B` holds vectors, by PyTorch's rule."""
    return B.ndim == 1 or (A.ndim - 1 == B.ndim and tuple(B.shape) == tuple(A.shape[:-1]))


def _solve(A: Any, B: Any, *, left: bool = True) -> Any:
    return _solved("linalg.solve", solve.run, A, B, left)


def _solve_ex(A: Any, B: Any, *, left: bool = True, check_errors: bool = False) -> tuple[Any, Any]:
    info: list[Any] = []

    def solution(A: Any, B: Any) -> Any:
        result, found = solve_ex.run(A, B)
        info.append(found)
        return solve.run(A, B) if check_errors else result

    return _solved("linalg.solve_ex", solution, A, B, left), info[0]


def _solved(name: str, solve: Callable[[Any, Any], Any], A: Any, B: Any, left: bool) -> Any:
    """X of A X = B, or X A = B, by what solves the first for matrices."""
    A, B = matrices(name, "A", A, True), tensor(name, "B", B)
    same_dtype(name, A, B)
    if not B.ndim:
        raise RuntimeError(f"{name}: The input tensor B must have at least 1 dimension, got {of_type(B)}")
    if _vectors(A, B):
        if not left:
            raise RuntimeError(f"{name}: Vector broadcasting of the left hand side is not supported for left=False")
        return squeeze.run(solve(A, unsqueeze.run(B, dim=B.ndim)), dims=(max(A.ndim - 2, B.ndim - 1) + 1,))
    return solve(A, B) if left else swapped(solve(swapped(A), swapped(B)))


def _inv_ex(A: Any, *, check_errors: bool = False) -> tuple[Any, Any]:
    A = matrices("linalg.inv_ex", "A", A, True)
    inverse, info = inv_ex.run(A)
    return (inv.run(A) if check_errors else inverse), info


def _solve_triangular(A: Any, B: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    A, B = matrices("linalg.solve_triangular", "A", A, True), matrices("linalg.solve_triangular", "B", B)
    same_dtype("linalg.solve_triangular", A, B)
    if left:
        return _triangular(A, B, bool(upper), bool(unitriangular))
    return swapped(_triangular(swapped(A), swapped(B), not upper, bool(unitriangular)))


def _old_triangular_solve(
    b: Any, A: Any, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> tuple[Any, Any]:
    A, b = matrices("triangular_solve", "A", A, True), matrices("triangular_solve", "B", b)
    same_dtype("triangular_solve", A, b)
    triangle, is_upper = (adjoint(A), not upper) if transpose else (A, bool(upper))
    batch = tuple(A.shape[:-2]) if A.ndim > b.ndim else tuple(b.shape[:-2])
    return _triangular(triangle, b, is_upper, bool(unitriangular)), Op.table["clone"].run(expanded(A, batch))


def _lstsq(A: Any, B: Any, rcond: float | None = None, *, driver: str | None = None) -> tuple[Any, Any, Any, Any]:
    A, B = matrices("linalg.lstsq", "A", A), tensor("linalg.lstsq", "B", B)
    same_dtype("linalg.lstsq", A, B)
    if driver not in (None, "gelsy", "gels", "gelsd", "gelss"):
        raise RuntimeError(f"linalg.lstsq: parameter `driver` should be one of (gels, gelsy, gelsd, gelss), got {driver}")
    if not B.ndim or (is_vector := _vectors(A, B)) is None:
        raise RuntimeError(f"linalg.lstsq: The input tensor B must have at least 1 dimension, got {of_type(B)}")
    right = unsqueeze.run(B, dim=B.ndim) if is_vector else B
    if A.shape[-2] != right.shape[-2]:
        raise RuntimeError(f"linalg.lstsq: input.size(-2) should match other.size(-2), got {of_type(A)} and {of_type(B)}")
    solution = least_squares.run(A, right, rcond=rcond)
    residuals = constant(0, A.dtype.real, (0,))
    if A.shape[-2] > A.shape[-1] and driver not in (None, "gelsy"):
        left = Op.table["abs"](Op.table["sub"](times(A, solution), right))
        residuals = Op.table["sum"](mul(left, left), -2)
        residuals = squeeze.run(residuals, dims=(residuals.ndim - 1,)) if is_vector else residuals
    empty = constant(0, int64, (0,))
    found = empty if driver == "gels" else rank.run(A, atol=None, rtol=rcond, hermitian=False)
    values = plain_svdvals.run(A) if driver in ("gelsd", "gelss") else constant(0, A.dtype.real, (0,))
    return (squeeze.run(solution, dims=(solution.ndim - 1,)) if is_vector else solution), residuals, found, values


_NO_MATRIX = (Bad((fill(3), fill(3)), RuntimeError, "at least 2 dimensions"),)
shorthand(
    "linalg_solve",
    "X of A X = B (or X A = B); vectors B where the shapes say so.  [..., n, n], [..., n, k] -> [..., n, k].",
    _solve,
    (*_PAIR, call(fill(3, 3), fill(3)), call(fill(3, 3), fill(2, 3), left=False)),
    _NO_MATRIX,
    "linalg.solve",
    autocast="float32",
)
shorthand(
    "linalg_solve_ex",
    "solve, and 0 or the number of a pivot that is 0 (X is then NaN).  [..., n, n], [..., n, k] -> [..., n, k], int32 [...].",
    _solve_ex,
    _PAIR,
    _NO_MATRIX,
    "linalg.solve_ex",
)
shorthand(
    "linalg_inv_ex",
    "inv, and 0 or the number of a pivot that is 0.  [..., n, n] -> [..., n, n], int32 [...].",
    _inv_ex,
    _ONE,
    bad_matrices("linalg.inv_ex"),
    "linalg.inv_ex",
    autocast="float32",
)
shorthand(
    "solve_triangle",
    "X of A X = B (or X A = B) for a triangle A.  [..., n, n], [..., n, k] -> [..., n, k].",
    _solve_triangular,
    (call(fill(3, 3, low=0.5), fill(3, 2), upper=True), call(fill(3, 3, low=0.5), fill(2, 3), upper=False, left=False)),
    (Bad((fill(3), fill(3)), RuntimeError, "at least 2 dimensions", {"upper": True}),),
    "linalg.solve_triangular",
)
shorthand(
    "triangular_solve",
    "linalg.solve_triangular, and A.  [..., n, k], [..., n, n] -> [..., n, k], [..., n, n].",
    _old_triangular_solve,
    (call(fill(3, 2), fill(3, 3, low=0.5)),),
    _NO_MATRIX,
    methods=("triangular_solve",),
    autocast="float32",
)
shorthand(
    "linalg_lstsq",
    "The solution of least squares, the squared residuals (where m > n, not of driver gelsy), the rank, and singular values (of "
    "drivers gelsd, gelss).  [..., m, n], [..., m, k] -> [..., n, k], [..., k], int64 [...], [..., k].",
    _lstsq,
    (call(fill(4, 3), fill(4, 2)), call(fill(2, 3, 3), fill(2, 3, 1)), call(fill(4, 3), fill(4))),
    _NO_MATRIX,
    "linalg.lstsq",
    autocast="float32",
)

# ---- determinants, pseudoinverse, rank, condition ------------------------------------------------------------------


def _logdet(input: Any) -> Any:
    sign, size = slogdet(input)
    if is_complex(sign):
        return Op.table["add"](Op.table["log"](sign), size)
    return Op.table["where"](Op.table["eq"](sign, -1), constant(float("nan"), size.dtype), size)


def _tolerances(x: Any, atol: Any, rtol: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Tolerances as attributes, or as operands where they are tensors."""
    operands: list[Any] = []
    attrs: dict[str, Any] = {}
    for name, value in (("atol", atol), ("rtol", rtol)):
        if is_tensor(value):
            if is_complex(value):
                raise RuntimeError(f"linalg: {name} tensor of complex type is not supported.")
            operands.append(cast(value, x.dtype.real))
            value = f"#{len(operands) - 1}"
        attrs[name] = value if value is None or isinstance(value, str) else float(value)
    return tuple(operands), attrs


def _pinv(A: Any, rcond: Any = None, *, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> Any:
    A = matrices("linalg.pinv", "A", A, hermitian)
    operands, attrs = _tolerances(A, atol, rcond if rtol is None else rtol)
    return pinv.run(A, *operands, **attrs, hermitian=bool(hermitian))


def _pinverse(input: Any, rcond: float = 1e-15) -> Any:
    return _pinv(input, rtol=rcond)


def _matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Any:
    A = matrices("linalg.matrix_rank", "A", A, hermitian)
    if tol is not None:
        atol, rtol = tol, 0.0
    operands, attrs = _tolerances(A, atol, rtol)
    return rank.run(A, *operands, **attrs, hermitian=bool(hermitian))


def _cond(A: Any, p: Any = None) -> Any:
    A = matrices("linalg.cond", "A", A)
    if p in (None, 2, -2):
        s = _svdvals(A)
        k = s.shape[-1]
        if k == 0:
            return constant(0, s.dtype, tuple(s.shape[:-1]))
        first, last = (Op.table["select"](s, -1, at) for at in (0, k - 1))
        return Op.table["div"](last, first) if p == -2 else Op.table["div"](first, last)
    A = matrices("linalg.cond", "A", A, True)
    norm = Op.table["matrix_norm"]
    inverse, info = inv_ex.run(A)
    size = mul(norm(A, p), norm(inverse, p))
    return Op.table["where"](Op.table["eq"](info, 0), size, constant(float("inf"), size.dtype))


shorthand(
    "logdet",
    "The logarithm of the determinant; NaN where it is negative.  [..., n, n] -> [...].",
    _logdet,
    _ONE,
    bad_matrices("linalg.slogdet")[:2],
    "logdet",
    methods=("logdet",),
)
shorthand(
    "linalg_pinv",
    "The Moore-Penrose inverse; singular values up to max(atol, rtol * the largest) count as 0.  [..., m, n] -> [..., n, m].",
    _pinv,
    (call(fill(3, 3)), call(fill(2, 4, 3)), call(fill(2, 4), rtol=0.01)),
    bad_matrices("linalg.pinv", False),
    "linalg.pinv",
)
shorthand(
    "pinverse",
    "linalg.pinv with rtol=rcond.  [..., m, n] -> [..., n, m].",
    _pinverse,
    (call(fill(3, 3)), call(fill(4, 3))),
    bad_matrices("linalg.pinv", False)[:2],
    methods=("pinverse",),
    autocast="float32",
)
shorthand(
    "matrix_rank",
    "How many singular values are greater than max(atol, rtol * the largest).  [..., m, n] -> int64 [...].",
    _matrix_rank,
    (call(fill(3, 3)), call(fill(2, 4, 3)), call(fill(2, 4), atol=0.01)),
    bad_matrices("linalg.matrix_rank", False),
    "linalg.matrix_rank",
    grad=None,
    autocast="float32",
)
shorthand(
    "linalg_cond",
    "The condition number in the norm p (None: 2).  [..., m, n] -> real [...].",
    _cond,
    (call(fill(3, 3, grad=False)), call(fill(2, 3, 3), "fro")),
    bad_matrices("linalg.cond", False),
    "linalg.cond",
    autocast="float32",
)
