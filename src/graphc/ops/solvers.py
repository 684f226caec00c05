"""Inverses, solutions and determinants of matrices, computed by LAPACK on the host.

Enters: batches of matrices.  Leaves: operators of ``graphc.linalg``.  Never here: factors (`factors`), what is written with these
(`linalg`).

Sources of the gradients: M. Giles, "An extended collection of matrix derivative results for forward and reverse mode algorithmic
differentiation" (2008); pinv, G. Golub and V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares problems
whose variables separate" (1973); matrix_exp, N. Higham, "Functions of matrices" (2008), theorem 3.6.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dtypes import int32, int64
from graphc.errors import LinAlgError
from graphc.ir.op import Bad, Host, Op, TensorType, broadcast_shapes
from graphc.ops.arguments import cast, tensor
from graphc.ops.arithmetic import add, div, mul, sub
from graphc.ops.complex import complex_, conj, is_complex
from graphc.ops.contract import swapped
from graphc.ops.declare import Routed, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.factors import DTYPES, bad_matrices
from graphc.ops.matrices import (
    Array,
    adjoint,
    batch_text,
    by_matrix,
    column,
    guarded,
    least,
    lower,
    matrices,
    part,
    same_dtype,
    scaled,
    times,
    upper,
)
from graphc.ops.movement import summed_to

_EPSILON = {"f4": 2.0**-23, "f8": 2.0**-52}


def _square(name: str) -> Any:
    def prepare(A: Any) -> Prepared:
        return (matrices(name, "A", A, True),), {}

    return prepare


def _zero_pivot(x: Array) -> tuple[tuple[int, ...], int]:
    """Of which matrix, and which, is the first pivot that is 0."""
    _, _, info = Op.table["lu_factors"].reference(np, x, pivot=True)
    at = next(index for index in np.ndindex(*info.shape) if info[index])
    return at, int(info[at])


# ---- inverse -------------------------------------------------------------------------------------------------------


def _inv_ex_reference(xp: Any, x: Array) -> tuple[Array, Array]:
    result, info = np.zeros_like(x), np.zeros(x.shape[:-2], np.int32)
    try:
        return np.linalg.inv(x), info
    except np.linalg.LinAlgError:
        for at, matrix in by_matrix(x):
            try:
                result[at] = np.linalg.inv(matrix)
            except np.linalg.LinAlgError:
                info[at] = _zero_pivot(matrix)[1]
    return result, info


def _inv_ex_grad(g: Any, out: Any, x: Any) -> tuple[Any]:
    turned = swapped(out[0])
    return (None if g[0] is None else scaled(times(turned, g[0], turned), -1),)


inv_ex = Op(
    "inverse",
    doc="The inverse of square matrices, and 0 or the number of the pivot that is 0 (the inverse is then 0).  [..., n, n] -> "
    "[..., n, n], int32 [...].",
    signature="(A)",
    prepare=_square("inverse"),
    infer=lambda x: (x, TensorType(int32, x.shape[:-2])),
    reference=_inv_ex_reference,
    grad=_inv_ex_grad,
    lowering=Host(),
    dtypes=DTYPES,
    samples=(call(fill(3, 3)), call(fill(2, 4, 4)), call(fill(0, 0)), call(fill(2, 0, 0))),
    bad=bad_matrices("inverse"),
    methods=(),
    functions=(),
)


def _inv_reference(xp: Any, x: Array) -> Array:
    try:
        return np.linalg.inv(x)
    except np.linalg.LinAlgError:
        at, pivot = _zero_pivot(x)
        raise LinAlgError(
            f"linalg.inv: {batch_text(at)}The diagonal element {pivot} is zero, the inversion could not be completed because the "
            "input matrix is singular."
        ) from None


inv: Op = Op(
    "linalg_inv",
    doc="The inverse of square matrices.  [..., n, n] -> [..., n, n].",
    signature="(A)",
    prepare=_square("linalg.inv"),
    infer=lambda x: x,
    reference=_inv_reference,
    grad=lambda g, out, x: (scaled(times(swapped(out), g, swapped(out)), -1),),
    lowering=Host(),
    dtypes=DTYPES,
    samples=(call(fill(3, 3)), call(fill(2, 4, 4)), call(fill(0, 0))),
    bad=bad_matrices("linalg.inv"),
    methods=("inverse",),
    functions=("linalg.inv", "inverse"),
    autocast="float32",
)

# ---- solutions -----------------------------------------------------------------------------------------------------


def _pair(name: str) -> Any:
    def prepare(A: Any, B: Any) -> Prepared:
        A, B = matrices(name, "A", A, True), matrices(name, "B", B)
        same_dtype(name, A, B)
        return (A, B), {}

    return prepare


def _solution_infer(name: str) -> Any:
    def infer(a: TensorType, b: TensorType, **_: Any) -> TensorType:
        if a.shape[-1] != b.shape[-2]:
            raise RuntimeError(f"{name}: Incompatible shapes of A and B for the equation AX = B: {a} and {b}")
        return TensorType(a.dtype, (*broadcast_shapes(name, (a.shape[:-2], b.shape[:-2])), *b.shape[-2:]))

    return infer


def _solve_reference(xp: Any, a: Array, b: Array) -> Array:
    try:
        return np.linalg.solve(a, b)
    except np.linalg.LinAlgError:
        at, _ = _zero_pivot(a)
        message = f"{batch_text(at)}The solver failed because the input matrix is singular."
        raise LinAlgError(f"linalg.solve: {message}") from None


def _solve_grad(g: Any, out: Any, a: Any, b: Any) -> tuple[Any, Any]:
    gb = solve.run(swapped(a), g)
    return summed_to(scaled(times(gb, swapped(out)), -1), tuple(a.shape)), summed_to(gb, tuple(b.shape))


solve: Op = Op(
    "linalg_solve_matrix",
    doc="X of A X = B for matrices B.  [..., n, n], [..., n, k] -> [..., n, k].",
    signature="(A, B)",
    prepare=_pair("linalg_solve_matrix"),
    infer=_solution_infer("linalg.solve"),
    reference=_solve_reference,
    grad=_solve_grad,
    lowering=Host(),
    dtypes=DTYPES,
    samples=(call(fill(3, 3), fill(3, 2)), call(fill(2, 3, 3), fill(3, 1)), call(fill(0, 0), fill(0, 2))),
    bad=(Bad((fill(3, 3), 1.0), TypeError, "argument 'B' must be a Tensor"),),
    methods=(),
    functions=(),
)


def _solution_reference(xp: Any, a: Array, b: Array) -> tuple[Array, Array]:
    try:
        return np.linalg.solve(a, b), np.zeros(a.shape[:-2], np.int32)
    except np.linalg.LinAlgError:
        _, _, info = Op.table["lu_factors"].reference(np, a, pivot=True)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    works, left, right = (np.broadcast_to(x, (*batch, *x.shape[len(x.shape) - k :])) for x, k in ((info == 0, 0), (a, 2), (b, 2)))
    result = np.full(right.shape, np.nan, a.dtype)
    result[works] = np.linalg.solve(left[works], right[works])
    return result, info


def _solution_grad(g: Any, out: Any, a: Any, b: Any) -> tuple[Any, Any]:
    if g[0] is None:
        return None, None
    gb = solve_ex.run(swapped(a), g[0])[0]
    return summed_to(scaled(times(gb, swapped(out[0])), -1), tuple(a.shape)), summed_to(gb, tuple(b.shape))


solve_ex: Op = Op(
    "solution",
    doc="X of A X = B for matrices B, and 0 or the number of the pivot that is 0 (X is then NaN).  [..., n, n], [..., n, k] -> "
    "[..., n, k], int32 [...].",
    signature="(A, B)",
    prepare=_pair("linalg.solve_ex"),
    infer=lambda a, b: (_solution_infer("linalg.solve_ex")(a, b), TensorType(int32, a.shape[:-2])),
    reference=_solution_reference,
    grad=_solution_grad,
    lowering=Host(),
    dtypes=DTYPES,
    samples=(call(fill(3, 3), fill(3, 2)), call(fill(2, 3, 3), fill(3, 1)), call(fill(0, 0), fill(0, 2))),
    bad=(Bad((fill(3, 3), 1.0), TypeError, "argument 'B' must be a Tensor"),),
    methods=(),
    functions=(),
)


def _triangle_of(x: Any, is_upper: bool, unit: bool) -> Any:
    return (upper if is_upper else lower)(x, (1 if is_upper else -1) if unit else 0)


def _triangular_reference(xp: Any, a: Array, b: Array, upper: bool, unitriangular: bool) -> Array:
    """By substitution, from the last row of an upper triangle or the first of a lower one; a 0 on the diagonal gives infinities."""
    n = a.shape[-1]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    x = np.array(np.broadcast_to(b, (*batch, *b.shape[-2:])))
    for i in range(n - 1, -1, -1) if upper else range(n):
        known = slice(i + 1, n) if upper else slice(0, i)
        x[..., i : i + 1, :] -= a[..., i : i + 1, known] @ x[..., known, :]
        if not unitriangular:
            x[..., i, :] /= a[..., i, i, None]
    return x


def _triangular_grad(g: Any, out: Any, a: Any, b: Any, upper: bool, unitriangular: bool) -> tuple[Any, Any]:
    gb = solve_triangular.run(swapped(a), g, upper=not upper, unitriangular=unitriangular)
    ga = _triangle_of(scaled(times(gb, swapped(out)), -1), upper, unitriangular)
    return summed_to(ga, tuple(a.shape)), summed_to(gb, tuple(b.shape))


solve_triangular: Op = Op(
    "linalg_solve_triangular",
    doc="X of A X = B for a triangle A (with ones on the diagonal if unitriangular).  [..., n, n], [..., n, k] -> [..., n, k].",
    signature="(A, B, *, upper, unitriangular=False)",
    prepare=lambda A, B, *, upper, unitriangular=False: (
        _pair("linalg.solve_triangular")(A, B)[0],
        {"upper": bool(upper), "unitriangular": bool(unitriangular)},
    ),
    infer=_solution_infer("linalg.solve_triangular"),
    reference=_triangular_reference,
    grad=_triangular_grad,
    lowering=Host(),
    attrs=("upper", "unitriangular"),
    dtypes=DTYPES,
    samples=(
        call(fill(3, 3, low=0.5), fill(3, 2), upper=True),
        call(fill(2, 3, 3, low=0.5), fill(3, 1), upper=False),
        call(fill(3, 3), fill(3, 3), upper=True, unitriangular=True),
    ),
    bad=(Bad((fill(3, 3), 1.0), TypeError, "argument 'B' must be a Tensor", {"upper": True}),),
    methods=(),
    functions=(),
)

# ---- determinants --------------------------------------------------------------------------------------------------


def _cofactors_reference(xp: Any, x: Array) -> Array:
    """det(U V^H) U diag(products of the other singular values) V^H, conjugated: right for singular matrices too."""
    u, s, vh = np.linalg.svd(x)
    n = s.shape[-1]
    others = np.stack([np.prod(np.delete(s, i, -1), -1) for i in range(n)], -1) if n else s
    unit = (np.linalg.det(u) * np.linalg.det(vh))[..., None, None]
    return np.asarray((unit.conj() * (u * others[..., None, :]) @ vh).conj())


def _cofactors_grad(g: Any, out: Any, x: Any) -> tuple[Any]:
    """(C sum(g C) - C g^T C) / det, for matrices that are not singular."""
    whole = column(column(Op.table["sum"](mul(g, out), (-2, -1))))
    return (div(sub(mul(out, whole), times(out, swapped(g), out)), column(column(det.run(x)))),)


cofactors: Op = Op(
    "cofactors",
    doc="The derivative of the determinant.  [..., n, n] -> [..., n, n].",
    signature="(A)",
    prepare=_square("cofactors"),
    infer=lambda x: x,
    reference=guarded("linalg.det", _cofactors_reference),
    grad=_cofactors_grad,
    lowering=Host(),
    dtypes=DTYPES,
    samples=(call(fill(3, 3)), call(fill(2, 4, 4)), call(fill(0, 0))),
    bad=bad_matrices("cofactors"),
    methods=(),
    functions=(),
)

det: Op = Op(
    "linalg_det",
    doc="Determinants.  [..., n, n] -> [...].",
    signature="(A)",
    prepare=_square("linalg.det"),
    infer=lambda x: TensorType(x.dtype, x.shape[:-2]),
    reference=lambda xp, x: np.linalg.det(x),
    grad=lambda g, out, x: (mul(column(column(g)), cofactors.run(x)),),
    lowering=Host(),
    dtypes=DTYPES,
    samples=(call(fill(3, 3)), call(fill(2, 4, 4)), call(fill(0, 0))),
    bad=bad_matrices("linalg.det"),
    methods=("det",),
    functions=("linalg.det", "det"),
)


def _slogdet_grad(g: Any, out: Any, x: Any) -> tuple[Any]:
    """(g_log - i Im(conj(g_sign) sign)) A^-H."""
    whole = g[1]
    if is_complex(x) and g[0] is not None:
        around = scaled(Op.table["imag"](mul(conj(g[0]), out[0])), -1)
        whole = complex_(mul(around, 0) if whole is None else whole, around)
    if whole is None:
        return (None,)
    return (mul(column(column(whole)), adjoint(inv.run(x))),)


slogdet: Op = Op(
    "linalg_slogdet",
    doc="The sign (or unit complex number) of determinants, and the logarithm of their absolute values.  [..., n, n] -> [...], "
    "real [...].",
    signature="(A)",
    prepare=_square("linalg.slogdet"),
    infer=lambda x: (TensorType(x.dtype, x.shape[:-2]), TensorType(x.dtype.real, x.shape[:-2])),
    reference=lambda xp, x: tuple(np.linalg.slogdet(x)),
    grad=_slogdet_grad,
    holomorphic=False,
    lowering=Host(),
    dtypes=DTYPES,
    samples=(call(fill(3, 3)), call(fill(2, 4, 4)), call(fill(0, 0))),
    bad=bad_matrices("linalg.slogdet"),
    methods=("slogdet",),
    functions=("linalg.slogdet", "slogdet"),
)

# ---- pseudoinverse, least squares, rank ----------------------------------------------------------------------------


def _cutoff(s: Array, x: Array, atol: Any, rtol: Any) -> Array:
    """Below which a singular value counts as 0: the larger of atol and rtol times the largest."""
    if rtol is None:
        relative = max(x.shape[-2:]) * _EPSILON[s.dtype.str[1:]] if atol is None or np.all(np.asarray(atol) == 0) else 0.0
    else:
        relative = rtol
    absolute = 0.0 if atol is None else atol
    largest = s.max(-1) if s.shape[-1] else np.zeros(s.shape[:-1], s.dtype)
    return np.asarray(np.maximum(absolute, relative * largest))


def _tolerances(x: Array, tolerances: tuple[Array, ...], atol: Any, rtol: Any) -> tuple[Any, Any]:
    """Numbers, or the arrays that stand for them as operands (`atol`, `rtol` then are their numbers)."""
    known = [tolerances[int(t[1:])] if isinstance(t, str) else t for t in (atol, rtol)]
    return known[0], known[1]


def _pinv_reference(xp: Any, x: Array, *tolerances: Array, atol: Any, rtol: Any, hermitian: bool) -> Array:
    atol, rtol = _tolerances(x, tolerances, atol, rtol)
    if not x.size:
        return np.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)
    if hermitian:
        values, u = np.linalg.eigh(x)
        s, vh = np.abs(values), np.sign(values)[..., None] * np.swapaxes(u, -1, -2).conj()
    else:
        u, s, vh = np.linalg.svd(x, full_matrices=False)
    kept = s > _cutoff(s, x, atol, rtol)[..., None]
    inverse = np.where(kept, 1 / np.where(kept, s, 1), 0).astype(s.dtype)
    return np.asarray(np.swapaxes(vh, -1, -2).conj() @ (inverse[..., None] * np.swapaxes(u, -1, -2).conj()))


def _pinv_grad(g: Any, out: Any, x: Any, *tolerances: Any, **_: Any) -> tuple[Any, ...]:
    return (_pinv_gradient(g, out, x), *(None for _ in tolerances))


def _pinv_gradient(g: Any, p: Any, x: Any) -> Any:
    """Golub and Pereyra's formula, of matrices of any rank that stays the same."""
    turned = adjoint(g)
    m, n = x.shape[-2:]
    if m <= n:
        k = times(turned, p)
        outer = times(k, adjoint(p))
        rest = sub(outer, times(x, p, outer))
        tail = times(adjoint(p), p, sub(turned, times(k, x)))
        return add(sub(rest, adjoint(times(p, k))), tail)
    k = times(p, turned)
    outer = times(adjoint(p), k)
    rest = sub(outer, times(outer, p, x))
    head = times(sub(turned, times(x, k)), p, adjoint(p))
    return add(sub(head, adjoint(times(k, p))), rest)


pinv: Op = Op(
    "pseudoinverse",
    doc="The Moore-Penrose inverse; singular values up to max(atol, rtol * the largest) count as 0 (numbers, or '#0', '#1' for "
    "the operands after A).  [..., m, n] -> [..., n, m].",
    signature="(A, *tolerances, atol=None, rtol=None, hermitian=False)",
    prepare=lambda A, *tolerances, atol=None, rtol=None, hermitian=False: (
        (matrices("pseudoinverse", "A", A, hermitian), *tolerances),
        {"atol": atol, "rtol": rtol, "hermitian": bool(hermitian)},
    ),
    infer=lambda x, *_, **__: TensorType(x.dtype, (*x.shape[:-2], x.shape[-1], x.shape[-2])),
    reference=guarded("linalg.pinv", _pinv_reference),
    grad=_pinv_grad,
    holomorphic=False,
    lowering=Host(),
    attrs=("atol", "rtol", "hermitian"),
    dtypes=DTYPES,
    samples=(call(fill(3, 3)), call(fill(2, 4, 3)), call(fill(2, 4), rtol=0.01), call(fill(0, 3))),
    bad=bad_matrices("pseudoinverse", square=False),
    methods=(),
    functions=(),
)


def _rank_reference(xp: Any, x: Array, *tolerances: Array, atol: Any, rtol: Any, hermitian: bool) -> Array:
    atol, rtol = _tolerances(x, tolerances, atol, rtol)
    if not x.size:
        return np.zeros(x.shape[:-2], np.int64)
    s = np.abs(np.linalg.eigvalsh(x)) if hermitian else np.linalg.svd(x, compute_uv=False)
    return np.asarray((s > _cutoff(s, x, atol, rtol)[..., None]).sum(-1), np.int64)


rank: Op = Op(
    "rank",
    doc="How many singular values are greater than max(atol, rtol * the largest).  [..., m, n] -> int64 [...].",
    signature="(A, *tolerances, atol=None, rtol=None, hermitian=False)",
    prepare=lambda A, *tolerances, atol=None, rtol=None, hermitian=False: (
        (matrices("rank", "A", A, hermitian), *tolerances),
        {"atol": atol, "rtol": rtol, "hermitian": bool(hermitian)},
    ),
    infer=lambda x, *tolerances, **_: TensorType(
        int64, broadcast_shapes("linalg.matrix_rank", (x.shape[:-2], *(t.shape for t in tolerances)))
    ),
    reference=guarded("linalg.matrix_rank", _rank_reference),
    grad=None,
    lowering=Host(),
    attrs=("atol", "rtol", "hermitian"),
    dtypes=DTYPES,
    samples=(call(fill(3, 3)), call(fill(2, 4, 3)), call(fill(2, 4), rtol=0.01)),
    bad=bad_matrices("rank", square=False),
    methods=(),
    functions=(),
)


plain_svdvals = Op(
    "plain_svdvals",
    doc="Singular values without a gradient.  [..., m, n] -> real [..., k].",
    signature="(A)",
    prepare=lambda A: ((matrices("plain_svdvals", "A", A),), {}),
    infer=lambda x: TensorType(x.dtype.real, (*x.shape[:-2], least(*x.shape[-2:]))),
    reference=guarded("linalg.svd", lambda xp, x: np.linalg.svd(x, compute_uv=False)),
    grad=None,
    lowering=Host(),
    dtypes=DTYPES,
    samples=(call(fill(3, 3)), call(fill(2, 4, 3))),
    bad=bad_matrices("plain_svdvals", square=False),
    methods=(),
    functions=(),
)


def _least_squares_reference(xp: Any, a: Array, b: Array, rcond: float | None) -> Array:
    m, n = a.shape[-2:]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    result = np.zeros((*batch, n, b.shape[-1]), a.dtype)
    left, right = np.broadcast_to(a, (*batch, m, n)), np.broadcast_to(b, (*batch, *b.shape[-2:]))
    epsilon = _EPSILON[a.real.dtype.str[1:]] * max(m, n) if rcond is None else rcond
    if m and n:
        for at, matrix in by_matrix(left):
            result[at] = np.linalg.lstsq(matrix, right[at], epsilon)[0]
    return result


def _least_squares_grad(g: Any, out: Any, a: Any, b: Any, rcond: float | None) -> tuple[Any, Any]:
    p = pinv.run(a, atol=None, rtol=rcond, hermitian=False)
    ga = _pinv_gradient(times(g, adjoint(b)), p, a)
    return summed_to(ga, tuple(a.shape)), summed_to(times(adjoint(p), g), tuple(b.shape))


least_squares: Op = Op(
    "least_squares",
    doc="X of least norm among those with the least norm of A X - B.  [..., m, n], [..., m, k] -> [..., n, k].",
    signature="(A, B, rcond=None)",
    prepare=lambda A, B, rcond=None: ((matrices("least_squares", "A", A), matrices("least_squares", "B", B)), {"rcond": rcond}),
    infer=lambda a, b, rcond: TensorType(
        a.dtype, (*broadcast_shapes("linalg.lstsq", (a.shape[:-2], b.shape[:-2])), a.shape[-1], b.shape[-1])
    ),
    reference=guarded("linalg.lstsq", _least_squares_reference),
    grad=_least_squares_grad,
    holomorphic=False,
    lowering=Host(),
    attrs=("rcond",),
    dtypes=DTYPES,
    samples=(call(fill(4, 3), fill(4, 2)), call(fill(2, 3, 3), fill(2, 3, 1)), call(fill(2, 4), fill(2, 1))),
    bad=(Bad((fill(3, 3), 1.0), TypeError, "argument 'B' must be a Tensor"),),
    methods=(),
    functions=(),
)

# ---- exponential ---------------------------------------------------------------------------------------------------

_PADE = [
    64764752532480000, 32382376266240000, 7771770303897600, 1187353796428800, 129060195264000, 10559470521600, 670442572800,
    33522128640, 1323241920, 40840800, 960960, 16380, 182, 1,
]  # fmt: skip


def _exp_reference(xp: Any, x: Array) -> Array:
    """Scaling and squaring with the Pade approximant of order 13 (Higham 2005), in float64."""
    result = np.zeros_like(x)
    for at, matrix in by_matrix(x):
        wide = matrix.astype(np.complex128 if np.iscomplexobj(x) else np.float64)
        result[at] = _exp_of(wide) if len(wide) else wide
    return result


def _exp_of(a: Array) -> Array:
    size = np.linalg.norm(a, 1)
    if not np.isfinite(size):
        return np.full_like(a, np.nan)
    squarings = max(0, int(np.ceil(np.log2(size / 5.371920351148152)))) if size else 0
    a = a / 2.0**squarings
    one, a2 = np.eye(len(a)), a @ a
    a4 = a2 @ a2
    a6 = a4 @ a2
    b = _PADE
    u = a @ (a6 @ (b[13] * a6 + b[11] * a4 + b[9] * a2) + b[7] * a6 + b[5] * a4 + b[3] * a2 + b[1] * one)
    v = a6 @ (b[12] * a6 + b[10] * a4 + b[8] * a2) + b[6] * a6 + b[4] * a4 + b[2] * a2 + b[0] * one
    result = np.linalg.solve(v - u, v + u)
    for _ in range(squarings):
        result = result @ result
    return result


def _exp_grad(g: Any, out: Any, x: Any) -> tuple[Any]:
    """The corner of the exponential of [[A^T, g], [0, A^T]]."""
    n = x.shape[-1]
    turned, cat = swapped(x), Op.table["cat"]
    whole = cat([cat([turned, g], -1), cat([mul(turned, 0), turned], -1)], -2)
    return (part(matrix_exp.run(whole), slice(0, n), slice(n, None)),)


def _exp_route(op: Op, A: Any) -> Any:
    """16-bit floats are computed in float32."""
    A = tensor("matrix_exp", "A", A)
    inputs, _ = op.prepare(cast(A, A.dtype.compute))
    return cast(op.run(*inputs), A.dtype)


matrix_exp: Op = Routed(
    "matrix_exp",
    doc="The exponential of square matrices.  [..., n, n] -> [..., n, n].",
    route=_exp_route,
    signature="(A)",
    prepare=_square("matrix_exp"),
    infer=lambda x: x,
    reference=guarded("matrix_exp", _exp_reference),
    grad=_exp_grad,
    lowering=Host(),
    dtypes=DTYPES,
    samples=(call(fill(3, 3)), call(fill(2, 4, 4)), call(fill(0, 0))),
    bad=bad_matrices("matrix_exp"),
    functions=("matrix_exp", "linalg.matrix_exp"),
)
