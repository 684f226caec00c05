"""Products of matrices and vectors: powers, chains, cross products, Householder reflections, equations over several dims.

Enters: tensors.  Leaves: operators of ``graphc.linalg``, and their older names in ``graphc``.  Never here: how one is computed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from graphc.dims import product
from graphc.dtypes import bool_
from graphc.ir.op import Bad, Host, Op, Shape, TensorType
from graphc.ops.arguments import constant, of_type, one_dim, promoted, tensor, tensors
from graphc.ops.arithmetic import mul, sub
from graphc.ops.complex import conj
from graphc.ops.contract import matmul
from graphc.ops.declare import NUMERIC_COMPLEX, Shorthand, call, fill
from graphc.ops.factors import DTYPES, bad_matrices
from graphc.ops.matrices import Array, adjoint, expanded, identity, least, lower, matrices, part, times
from graphc.ops.movement import reshape, squeeze, unsqueeze
from graphc.ops.solvers import inv, solve


def instead(x: Any, y: Any) -> Any:
    """y, with a gradient of zero for x."""
    return Op.table["where"].run(constant(True, bool_), y, x)


# ---- powers and chains ---------------------------------------------------------------------------------------------


def _matrix_power(A: Any, n: int) -> Any:
    A = tensor("linalg.matrix_power", "A", A)
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise RuntimeError(f"linalg.matrix_power: A must be batches of square matrices, got {of_type(A)}")
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"linalg.matrix_power: argument 'n' must be an int, not {type(n).__name__}")
    if n < 0:
        A, n = inv.run(matrices("linalg.matrix_power", "A", A, True)), -n
    if n == 0:
        return instead(A, expanded(identity(A.shape[-1], A), tuple(A.shape[:-2])))
    result = None
    while n:  # the binary digits of n, lowest first
        if n % 2:
            result = A if result is None else matmul.run(result, A)
        n //= 2
        A = matmul.run(A, A) if n else A
    return result


matrix_power = Shorthand(
    "matrix_power",
    doc="The n-th power of square matrices; of negative n, of the inverse.  [..., m, m] -> [..., m, m].",
    rule=_matrix_power,
    dtypes=DTYPES,
    samples=(call(fill(3, 3), 3), call(fill(2, 3, 3), 0), call(fill(3, 3), -2), call(fill(3, 3), 1)),
    bad=(
        Bad((fill(2, 3), 2), RuntimeError, "linalg.matrix_power: A must be batches of square matrices"),
        Bad((fill(3, 3), 1.5), TypeError, "linalg.matrix_power: argument 'n' must be an int"),
    ),
    functions=("linalg.matrix_power", "matrix_power"),
    autocast=lambda A, n: "lower" if n > 1 else "keep",
)


def _cheapest(sizes: list[int]) -> dict[tuple[int, int], int]:
    """Where to cut each run of factors for the fewest multiplications (the textbook's dynamic program)."""
    count = len(sizes) - 1
    cost = {(i, i): 0 for i in range(count)}
    cuts: dict[tuple[int, int], int] = {}
    for length in range(2, count + 1):
        for i in range(count - length + 1):
            j = i + length - 1
            at = min(range(i, j), key=lambda k: cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1])
            cost[i, j] = cost[i, at] + cost[at + 1, j] + sizes[i] * sizes[at + 1] * sizes[j + 1]
            cuts[i, j] = at
    return cuts


def _multi_dot(given: Any) -> Any:
    factors = list(tensors("linalg.multi_dot", "tensors", given))
    if len(factors) < 2:
        raise RuntimeError(f"linalg.multi_dot: expected at least 2 tensors but got {len(factors)}")
    for k, x in enumerate(factors):
        ends = k in (0, len(factors) - 1)
        if x.ndim not in ((1, 2) if ends else (2,)):
            raise RuntimeError(f"linalg.multi_dot: tensor {k} must be {'1D or 2D' if ends else '2D'} but got {of_type(x)}")
        if x.dtype is not factors[0].dtype:
            raise RuntimeError(f"linalg.multi_dot: all tensors must have be the same dtype but got {of_type(x)}")
    is_row, is_column = factors[0].ndim == 1, factors[-1].ndim == 1
    if is_row:
        factors[0] = unsqueeze.run(factors[0], dim=0)
    if is_column:
        factors[-1] = unsqueeze.run(factors[-1], dim=1)
    for a, b in pairwise(factors):
        if a.shape[1] != b.shape[0]:
            raise RuntimeError(f"linalg.multi_dot: tensors {of_type(a)} and {of_type(b)} cannot be multiplied")
    sizes = [factors[0].shape[0], *(x.shape[1] for x in factors)]
    cuts = _cheapest(sizes) if all(isinstance(s, int) for s in sizes) else {}

    def chain(i: int, j: int) -> Any:
        if i == j:
            return factors[i]
        at = cuts.get((i, j), j - 1)
        return matmul.run(chain(i, at), chain(at + 1, j))

    result = chain(0, len(factors) - 1)
    removed = (*((0,) if is_row else ()), *((1,) if is_column else ()))
    return squeeze.run(result, dims=removed) if removed else result


multi_dot = Shorthand(
    "multi_dot",
    doc="The product of matrices (first and last may be vectors) in the order of fewest multiplications.  [n, k], ... -> [n, m].",
    rule=lambda *tensors: _multi_dot(tensors),
    prepare=lambda tensors: (tuple(tensors), {}),
    signature="(tensors)",
    attrs=(),
    dtypes=DTYPES,
    samples=(call((fill(2, 3), fill(3, 4), fill(4, 2))), call((fill(3), fill(3, 3), fill(3)))),
    bad=(
        Bad(((fill(2, 3),),), RuntimeError, "linalg.multi_dot: expected at least 2 tensors"),
        Bad(((fill(2, 3), fill(2, 3)),), RuntimeError, "linalg.multi_dot: tensors .* cannot be multiplied"),
    ),
    methods=(),
    functions=("linalg.multi_dot",),
    autocast="lower",
)

# ---- of vectors ----------------------------------------------------------------------------------------------------


def _linalg_cross(input: Any, other: Any, *, dim: int = -1) -> Any:
    name = "linalg.cross"
    x, other = promoted(name, (tensor(name, "input", input), tensor(name, "other", other)), ("input", "other"))
    if x.ndim != other.ndim:
        raise RuntimeError(f"{name}: inputs must have the same number of dimensions, got {of_type(x)} and {of_type(other)}")
    at = one_dim(name, dim, x.ndim)
    if x.shape[at] != 3 or other.shape[at] != 3:
        raise RuntimeError(f"{name}: inputs dimension {dim} must have length 3. Got {of_type(x)} and {of_type(other)}")

    def turned(v: Any, by: int) -> Any:
        return Op.table["roll"](v, by, at)

    return sub(mul(turned(x, -1), turned(other, -2)), mul(turned(x, -2), turned(other, -1)))


def _cross(input: Any, other: Any, dim: int | None = None) -> Any:
    """Along `dim`, or the first dim of size 3."""
    x = tensor("cross", "input", input)
    if dim is None:
        dim = next((k for k, size in enumerate(x.shape) if size == 3), None)
        if dim is None:
            raise RuntimeError(f"cross: no dimension of size 3 in input: {of_type(x)}")
    return _linalg_cross(x, other, dim=dim)


_CROSS = (call(fill(2, 3), fill(2, 3)), call(fill(3), fill(3)), call(fill(2, 1, 3), fill(1, 4, 3)))
linalg_cross = Shorthand(
    "linalg_cross",
    doc="Cross products of vectors of 3 elements along dim.  [..., 3], [..., 3] -> broadcast.",
    rule=_linalg_cross,
    dtypes=NUMERIC_COMPLEX,
    samples=_CROSS,
    bad=(Bad((fill(2, 4), fill(2, 4)), RuntimeError, "linalg.cross: inputs dimension -1 must have length 3"),),
    methods=(),
    functions=("linalg.cross",),
)
cross = Shorthand(
    "cross",
    doc="Cross products along dim, or the first dim of 3 elements.  [..., 3], [..., 3] -> broadcast.",
    rule=_cross,
    dtypes=NUMERIC_COMPLEX,
    samples=_CROSS[:2],
    bad=(Bad((fill(2, 4), fill(2, 4)), RuntimeError, "cross: no dimension of size 3"),),
)


def _vecdot(x: Any, y: Any, *, dim: int = -1) -> Any:
    x, y = promoted("linalg.vecdot", (tensor("linalg.vecdot", "x", x), tensor("linalg.vecdot", "y", y)), ("x", "y"))
    if x.dtype.kind not in "fc":
        raise RuntimeError(f"linalg.vecdot: Expected a floating point or complex tensor as input. Got {of_type(x)}")
    rank = max(x.ndim, y.ndim)
    return Op.table["sum"](mul(conj(x), y), one_dim("linalg.vecdot", dim, rank))


vecdot = Shorthand(
    "vecdot",
    doc="Inner products along dim, conjugate in x.  [..., n], [..., n] -> [...].",
    rule=_vecdot,
    dtypes=DTYPES,
    samples=(call(fill(2, 3), fill(2, 3)), call(fill(2, 3), fill(3)), call(fill(2, 3), fill(2, 3), dim=0)),
    bad=(Bad((fill(3), 1.0), TypeError, "linalg.vecdot: argument 'y'"),),
    methods=(),
    functions=("linalg.vecdot",),
    autocast="lower",
)


# ---- reflections ---------------------------------------------------------------------------------------------------


def _reflectors(name: str, A: Any, tau: Any) -> list[tuple[Any, Any]]:
    """(vector as a column, factor) of each Householder reflection."""
    A, tau = matrices(name, "A", A), tensor(name, "tau", tau)
    m, count = A.shape[-2], tau.shape[-1]
    if A.shape[-2] < A.shape[-1] and name.endswith("product"):
        raise RuntimeError(f"{name}: input.shape[-2] must be greater than or equal to input.shape[-1], got {of_type(A)}")
    if A.shape[-1] < count:
        raise RuntimeError(
            f"{name}: input.shape[-1] must be greater than or equal to tau.shape[-1], got {of_type(A)}, {of_type(tau)}"
        )
    if A.dtype is not tau.dtype:
        raise RuntimeError(f"{name}: tau dtype {tau.dtype} does not match input dtype {A.dtype}")
    below = lower(part(A, columns=slice(0, count)), -1)
    vectors = Op.table["add"](below, Op.table["eye"](m, count, dtype=A.dtype))
    return [
        (part(vectors, columns=slice(k, k + 1)), unsqueeze.run(Op.table["narrow"](tau, -1, k, 1), dim=tau.ndim))
        for k in range(count)
    ]


def _reflected(reflectors: list[tuple[Any, Any]], x: Any, turned: bool) -> Any:
    """H1 H2 ... x, or the adjoint of that product times x."""
    for v, factor in reflectors if turned else reversed(reflectors):
        factor = conj(factor) if turned else factor
        x = sub(x, mul(factor, times(v, times(adjoint(v), x))))
    return x


def _householder_product(A: Any, tau: Any) -> Any:
    reflectors = _reflectors("linalg.householder_product", A, tau)
    m, n = A.shape[-2:]
    start = expanded(part(identity(m, A), columns=slice(0, n)), tuple(A.shape[:-2]))
    return _reflected(reflectors, start, False) if reflectors else instead(A, start)


def _ormqr(input: Any, tau: Any, other: Any, left: bool = True, transpose: bool = False) -> Any:
    reflectors = _reflectors("ormqr", input, tau)
    other = matrices("ormqr", "other", other)
    if left:
        return _reflected(reflectors, other, transpose)
    return adjoint(_reflected(reflectors, adjoint(other), not transpose))


householder_product = Shorthand(
    "householder_product",
    doc="The first n columns of the product of the reflections I - tau v v^H of geqrf.  [..., m, n], [..., k] -> [..., m, n].",
    rule=_householder_product,
    dtypes=DTYPES,
    samples=(call(fill(4, 3), fill(3)), call(fill(2, 3, 3), fill(2, 2))),
    bad=(Bad((fill(2, 3), fill(2)), RuntimeError, "linalg.householder_product: input.shape"),),
    methods=("orgqr",),
    functions=("linalg.householder_product", "orgqr"),
    autocast="float32",
)
ormqr = Shorthand(
    "ormqr",
    doc="Q of geqrf, or its adjoint, times a matrix (or that times it).  [..., m, n], [..., k], [..., m, p] -> [..., m, p].",
    rule=_ormqr,
    dtypes=DTYPES,
    samples=(call(fill(4, 3), fill(3), fill(4, 2)), call(fill(3, 3), fill(2), fill(2, 3), left=False)),
    bad=(Bad((fill(3), fill(2), fill(3, 2)), RuntimeError, "ormqr: The input tensor A must have at least 2 dimensions"),),
    autocast="float32",
)


def _geqrf_reference(xp: Any, x: Array) -> tuple[Array, Array]:
    h, tau = np.linalg.qr(x, "raw")
    return np.swapaxes(h, -1, -2), tau


geqrf = Op(
    "geqrf",
    doc="R, below it the vectors of the reflections whose product is Q, and their factors.  [..., m, n] -> [..., m, n], [..., k].",
    signature="(input)",
    prepare=lambda input: ((matrices("geqrf", "A", input),), {}),
    infer=lambda x: (x, TensorType(x.dtype, (*x.shape[:-2], least(*x.shape[-2:])))),
    reference=_geqrf_reference,
    grad=None,
    lowering=Host(),
    dtypes=DTYPES,
    samples=(call(fill(3, 3)), call(fill(2, 4, 3)), call(fill(2, 4))),
    bad=bad_matrices("geqrf", False)[:2],
    autocast="float32",
)

# ---- over several dims ---------------------------------------------------------------------------------------------


def _tensorinv(A: Any, ind: int = 2) -> Any:
    A = tensor("linalg.tensorinv", "A", A)
    if ind <= 0:
        raise RuntimeError("linalg.tensorinv: Expected a strictly positive integer for 'ind'")
    first, last = tuple(A.shape[:ind]), tuple(A.shape[ind:])
    if product(first) != product(last):
        needed = "prod(A.shape[ind:]) == prod(A.shape[:ind])"
        raise RuntimeError(f"linalg.tensorinv: Expected self to satisfy the requirement {needed}, but got {of_type(A)}, ind {ind}")
    matrix = reshape.run(A, shape=(product(first), product(last)))
    return reshape.run(inv.run(matrices("linalg.tensorinv", "A", matrix)), shape=(*last, *first))


def _tensorsolve(A: Any, B: Any, dims: Any = None) -> Any:
    A, B = tensor("linalg.tensorsolve", "A", A), tensor("linalg.tensorsolve", "B", B)
    if dims is not None:
        moved = [one_dim("linalg.tensorsolve", d, A.ndim) for d in dims]
        A = Op.table["permute"].run(A, dims=(*(d for d in range(A.ndim) if d not in moved), *moved))
    rest: Shape = tuple(A.shape[B.ndim :])
    if product(rest) != product(B.shape):
        needed = "prod(A.shape[B.ndim:]) == prod(A.shape[:B.ndim])"
        raise RuntimeError(
            f"linalg.tensorsolve: Expected self to satisfy the requirement {needed}, but got {of_type(A)} and {of_type(B)}"
        )
    count = product(B.shape)
    matrix = matrices("linalg.tensorsolve", "A", reshape.run(A, shape=(count, product(rest))))
    return reshape.run(solve.run(matrix, reshape.run(B, shape=(count, 1))), shape=rest)


tensorinv = Shorthand(
    "tensorinv",
    doc="The inverse of the map that tensordot with A is.  [*first, *last] -> [*last, *first], where first has `ind` dims.",
    rule=_tensorinv,
    dtypes=DTYPES,
    samples=(call(fill(2, 3, 6)), call(fill(4, 2, 2), 1)),
    bad=(Bad((fill(2, 3, 5),), RuntimeError, "linalg.tensorinv: Expected self to satisfy"),),
    methods=(),
    functions=("linalg.tensorinv",),
    autocast="float32",
)
tensorsolve = Shorthand(
    "tensorsolve",
    doc="X of tensordot(A, X) = B; `dims` of A are moved to its end first.  [*b, *x], [*b] -> [*x].",
    rule=_tensorsolve,
    dtypes=DTYPES,
    samples=(call(fill(2, 3, 6), fill(2, 3)), call(fill(4, 2, 2), fill(4))),
    bad=(Bad((fill(2, 3, 5), fill(2, 3)), RuntimeError, "linalg.tensorsolve: Expected self to satisfy"),),
    methods=(),
    functions=("linalg.tensorsolve",),
    autocast="float32",
)
