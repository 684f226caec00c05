"""Normal distributions of vectors.  Never here: checks of parameters and values (`distribution`)."""

from __future__ import annotations

import math
from typing import Any

from graphc.distributions import constraints
from graphc.distributions.distribution import Distribution
from graphc.distributions.parameters import lazy_property, op
from graphc.eager.creation import eye
from graphc.eager.generator import randn
from graphc.eager.shapes import broadcast_shapes
from graphc.errors import at_user_line


def batch_mahalanobis(triangle: Any, x: Any) -> Any:
    """The squared length of ``triangle^-1 x``.  [..., n, n], [..., n] -> [...]."""
    return solve_triangular(triangle, x.unsqueeze(-1)).squeeze(-1).pow(2).sum(-1)


def solve_triangular(triangle: Any, x: Any) -> Any:
    """X of triangle X = x, for lower triangles.  [..., n, n], [..., n, k] -> [..., n, k]."""
    return op("solve_triangle")(triangle, x, upper=False)


def precision_to_scale_tril(precision: Any) -> Any:
    """The lower factor of a covariance whose inverse is `precision`: without inverting it."""
    flipped = op("linalg_cholesky")(precision.flip((-2, -1)))
    upper = flipped.flip((-2, -1)).transpose(-2, -1)
    return solve_triangular(upper, eye(precision.shape[-1], dtype=precision.dtype))


class MultivariateNormal(Distribution):
    """Normal distributions of vectors: mean `loc` [..., n] and a covariance, its inverse or its lower factor [..., n, n].

    Raises ValueError for a 0-dim mean, matrices of fewer dims, and unless exactly one matrix is given.
    """

    arg_constraints = {
        "loc": constraints.real_vector, "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite, "scale_tril": constraints.lower_cholesky,
    }  # fmt: skip
    support = constraints.real_vector
    has_rsample = True
    _parameters = ("loc", "_unbroadcasted_scale_tril", "covariance_matrix", "scale_tril", "precision_matrix")

    def __init__(
        self,
        loc: Any,
        covariance_matrix: Any = None,
        precision_matrix: Any = None,
        scale_tril: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        if loc.dim() < 1:
            raise ValueError(at_user_line("loc must be at least one-dimensional."))
        matrices = {"covariance_matrix": covariance_matrix, "scale_tril": scale_tril, "precision_matrix": precision_matrix}
        given = [(name, matrix) for name, matrix in matrices.items() if matrix is not None]
        if len(given) != 1:
            message = "Exactly one of covariance_matrix or precision_matrix or scale_tril may be specified."
            raise ValueError(at_user_line(message))
        name, matrix = given[0]
        if matrix.dim() < 2:
            message = f"{name} must be at least two-dimensional, with optional leading batch dimensions"
            raise ValueError(at_user_line(message))
        batch = broadcast_shapes(matrix.shape[:-2], loc.shape[:-1])
        setattr(self, name, matrix.expand((*batch, -1, -1)))
        self.loc = loc.expand((*batch, -1))
        super().__init__(batch, self.loc.shape[-1:], validate_args=validate_args)
        if name == "precision_matrix":
            self._unbroadcasted_scale_tril = precision_to_scale_tril(matrix)
        else:
            self._unbroadcasted_scale_tril = matrix if name == "scale_tril" else op("linalg_cholesky")(matrix)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distributions over a larger batch."""
        new = self._get_checked_instance(MultivariateNormal, _instance)
        shape = tuple(batch_shape)
        new.loc = self.loc.expand((*shape, *self.event_shape))
        new._unbroadcasted_scale_tril = self._unbroadcasted_scale_tril
        for name in ("covariance_matrix", "scale_tril", "precision_matrix"):
            if name in self.__dict__:
                setattr(new, name, getattr(self, name).expand((*shape, *self.event_shape, *self.event_shape)))
        super(MultivariateNormal, new).__init__(shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _whole(self, matrix: Any) -> Any:
        return matrix.expand((*self._batch_shape, *self._event_shape, *self._event_shape))

    @lazy_property
    def scale_tril(self) -> Any:
        """The lower factor of the covariance."""
        return self._whole(self._unbroadcasted_scale_tril)

    @lazy_property
    def covariance_matrix(self) -> Any:
        """The covariance."""
        return self._whole(self._unbroadcasted_scale_tril @ self._unbroadcasted_scale_tril.mT)

    @lazy_property
    def precision_matrix(self) -> Any:
        """The covariance's inverse."""
        return self._whole(op("cholesky_inverse")(self._unbroadcasted_scale_tril))

    @property
    def mean(self) -> Any:
        return self.loc

    @property
    def mode(self) -> Any:
        return self.loc

    @property
    def variance(self) -> Any:
        rows = self._unbroadcasted_scale_tril.pow(2).sum(-1)
        return rows.expand((*self._batch_shape, *self._event_shape))

    def rsample(self, sample_shape: Any = ()) -> Any:
        x: Any = randn(*self._extended_shape(sample_shape), dtype=self.loc.dtype)
        return self.loc + (self._unbroadcasted_scale_tril @ x.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Any) -> Any:
        """The logarithm of the density, or probability, of a value."""
        if self._validate_args:
            self._validate_sample(value)
        distance = batch_mahalanobis(self._unbroadcasted_scale_tril, value - self.loc)
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + distance) - self._half_log_det()

    def _half_log_det(self) -> Any:
        return self._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def entropy(self) -> Any:
        found = 0.5 * self._event_shape[0] * (1.0 + math.log(2 * math.pi)) + self._half_log_det()
        return found.expand(self._batch_shape) if self._batch_shape else found


__all__ = ["MultivariateNormal"]
