"""Parametrizations: orthogonal, spectral norm, weight norm.

Enters: modules, names of their tensors.  Leaves: parametrized modules.  Never here: what parametrizing is (`parametrize`).
"""

from __future__ import annotations

from typing import Any

from graphc.eager.modes import no_grad
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.nn import functional as F
from graphc.nn.module import Module
from graphc.nn.utils.derived import norm_except_dim
from graphc.nn.utils.parametrize import register_parametrization
from graphc.nn.utils.spectral_norm import as_matrix, rows_of

# ---- weight norm ---------------------------------------------------------------------------------------------------------------


class _WeightNorm(Module):
    """A length for each index of a dim, and a direction -> a weight."""

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Any, weight_v: Any) -> Any:
        return weight_v * (weight_g / norm_except_dim(weight_v, 2, self.dim))

    def right_inverse(self, weight: Any) -> tuple[Any, Any]:
        """The lengths, and the weight itself as the direction."""
        return norm_except_dim(weight, 2, self.dim), weight


def weight_norm(module: Any, name: str = "weight", dim: int | None = 0) -> Any:
    """Give a module's tensor as a length for each index of `dim` (None: one length) and a direction.

    State dicts of the older `weight_norm` (``<name>_g``, ``<name>_v``) load too.
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def accept_older(state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        for i, part in enumerate(("g", "v")):
            old = f"{prefix}{name}_{part}"
            if old in state_dict:
                state_dict[f"{prefix}parametrizations.{name}.original{i}"] = state_dict.pop(old)

    module._register_load_state_dict_pre_hook(accept_older)
    return module


# ---- spectral norm -------------------------------------------------------------------------------------------------------------


class _SpectralNorm(Module):
    """A weight -> the weight divided by its greatest singular value, which power iterations estimate."""

    def __init__(self, weight: Any, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        if dim >= weight.ndim or dim < -weight.ndim:
            text = f"Dimension out of range (expected to be in range of [-{weight.ndim}, {weight.ndim - 1}] but got {dim})"
            raise IndexError(at_user_line(text))
        if n_power_iterations <= 0:
            text = f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}"
            raise ValueError(at_user_line(text))
        self.dim, self.eps = dim if dim >= 0 else dim + weight.ndim, eps
        if weight.ndim > 1:
            self.n_power_iterations = n_power_iterations
            matrix = as_matrix(weight.detach(), self.dim)
            u = matrix.new_empty(matrix.shape[0]).normal_(0, 1)
            v = matrix.new_empty(matrix.shape[1]).normal_(0, 1)
            self.register_buffer("_u", F.normalize(u, dim=0, eps=eps))
            self.register_buffer("_v", F.normalize(v, dim=0, eps=eps))
            self._iterate(matrix, 15)

    @no_grad()
    def _iterate(self, matrix: Any, count: int) -> None:
        for _ in range(count):
            self._u.copy_(F.normalize(matrix.mv(self._v), dim=0, eps=self.eps))
            self._v.copy_(F.normalize(matrix.mH.mv(self._u), dim=0, eps=self.eps))

    def forward(self, weight: Any) -> Any:
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            self._iterate(matrix, self.n_power_iterations)
        u, v = self._u.clone(), self._v.clone()
        return weight / Op.table["vdot"](u, matrix.mv(v))

    def right_inverse(self, value: Any) -> Any:
        """The value: it is normed already, or will be."""
        return value


def spectral_norm(
    module: Any, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Any:
    """Divide a module's tensor by its greatest singular value.   dim: that of the outputs.

    Raises ValueError for a name that is no tensor of the module.
    """
    weight = _tensor_of(module, name)
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, rows_of(module, name, dim), eps))


def _tensor_of(module: Any, name: str) -> Any:
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(at_user_line(f"Module '{module}' has no parameter or buffer with name '{name}'"))
    return weight


# ---- orthogonal ----------------------------------------------------------------------------------------------------------------

_MAPS = ("matrix_exp", "cayley", "householder")


def _is_orthogonal(q: Any) -> bool:
    n, k = q.shape[-2], q.shape[-1]
    identity = Op.table["eye"](k, dtype=q.dtype)
    limit = 10.0 * n * float(_epsilon(q.dtype))
    return bool(((q.mH @ q - identity).abs() <= limit).all())


def _epsilon(dtype: Any) -> float:
    from graphc.eager.creation import finfo

    return finfo(dtype).eps  # type: ignore[no-any-return]


def _make_orthogonal(a: Any) -> Any:
    """The orthogonal factor of ``a = q r`` for the r with a positive diagonal."""
    from graphc.ops.products import geqrf, householder_product

    packed, tau = geqrf(a)
    q = householder_product(packed, tau)
    return q * packed.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)


class _Orthogonal(Module):
    """Any matrix -> one with orthonormal columns (rows, where those are fewer).  [..., n, k] -> [..., n, k]."""

    base: Any

    def __init__(self, weight: Any, orthogonal_map: str, *, use_trivialization: bool = True) -> None:
        super().__init__()
        if weight.is_complex() and orthogonal_map == "householder":
            raise ValueError(at_user_line("The householder parametrization does not support complex tensors."))
        self.shape, self.orthogonal_map = weight.shape, orthogonal_map
        self.trivial = use_trivialization
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Any) -> Any:
        n, k = X.shape[-2], X.shape[-1]
        wide = n < k
        if wide:
            X, n, k = X.mT, k, n
        if self.orthogonal_map == "householder":
            Q = self._householder(X)
        else:
            Q = self._of_skew(X, n, k)
        if self.trivial and self.base is not None:
            Q = self.base @ Q
        return Q.mT if wide else Q

    def _of_skew(self, X: Any, n: int, k: int) -> Any:
        """The exponential, or Cayley's transform, of a skew matrix."""
        X = X.tril()
        if n != k:
            X = Op.table["cat"]([X, X.new_zeros(n, n - k).expand(*X.shape[:-2], -1, -1)], -1)
        A = X - X.mH
        if self.orthogonal_map == "matrix_exp":
            Q = Op.table["matrix_exp"](A)
        else:
            from graphc.ops.solvers import solve

            identity = Op.table["eye"](n, dtype=A.dtype)
            Q = solve(identity - A * 0.5, identity + A * 0.5)
        return Q[..., :k] if n != k else Q

    @staticmethod
    def _householder(X: Any) -> Any:
        from graphc.ops.products import householder_product

        A = X.tril(-1)
        tau = 2.0 / (1.0 + (A * A).sum(-2))
        signs = X.diagonal(dim1=-2, dim2=-1).int()  # 1 and -1, which are not learned
        return householder_product(A, tau) * signs.unsqueeze(-2)

    @no_grad()
    def right_inverse(self, Q: Any) -> Any:
        """A matrix that gives `Q`.  Raises ValueError for another shape, NotImplementedError where the map has no inverse."""
        if Q.shape != self.shape:
            text = f"Expected a matrix or batch of matrices of shape {self.shape}. Got a tensor of shape {Q.shape}."
            raise ValueError(at_user_line(text))
        given = Q
        n, k = Q.shape[-2], Q.shape[-1]
        wide = n < k
        if wide:
            Q, n, k = Q.mT, k, n
        if not self.trivial:
            return self._inverse(Q, wide)
        if n == k:
            Q = Q.clone() if _is_orthogonal(Q) else _make_orthogonal(Q)
        else:  # columns that complete it
            more = Q.new_empty(*Q.shape[:-2], n, n - k).normal_()
            Q = _make_orthogonal(Op.table["cat"]([Q, more], -1))
        self.base = Q
        identity = Op.table["zeros_like"](given)
        identity.diagonal(dim1=-2, dim2=-1).fill_(-1.0)
        return identity

    def _inverse(self, Q: Any, wide: bool) -> Any:
        if self.orthogonal_map != "householder":
            raise NotImplementedError(
                "It is not possible to assign to the matrix exponential or the Cayley parametrizations "
                "when use_trivialization=False."
            )
        from graphc.ops.products import geqrf

        A, tau = geqrf(Q)
        diagonal = A.diagonal(dim1=-2, dim2=-1)
        signs = diagonal.sign()  # so that the triangular factor has a positive diagonal
        diagonal.copy_(Op.table["where"](tau == 0, -signs, signs))  # no reflection there
        return A.mT if wide else A


def orthogonal(module: Any, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True) -> Any:
    """Make a module's matrix orthogonal: of orthonormal columns (rows, where those are fewer).

    orthogonal_map: ``matrix_exp``, ``cayley`` or ``householder``; the first for square and complex matrices, else the last.
    use_trivialization: keep the matrix as it is now beside the parameters, so that it is where training starts.
    Raises ValueError for a name that is no tensor, fewer than two dims, or another map.
    """
    weight = _tensor_of(module, name)
    if weight.ndim < 2:
        raise ValueError(at_user_line(f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions."))
    if orthogonal_map is None:
        square = weight.shape[-2] == weight.shape[-1]
        orthogonal_map = "matrix_exp" if square or weight.is_complex() else "householder"
    if orthogonal_map not in _MAPS:
        text = f'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: {orthogonal_map}'
        raise ValueError(at_user_line(text))
    parametrization = _Orthogonal(weight, orthogonal_map, use_trivialization=use_trivialization)
    return register_parametrization(module, name, parametrization, unsafe=True)


__all__ = ["orthogonal", "spectral_norm", "weight_norm"]
