"""Dirichlet distributions.  Never here: checks of parameters and values (`distribution`)."""

from __future__ import annotations

from typing import Any

from graphc.distributions import constraints
from graphc.distributions.distribution import ExponentialFamily
from graphc.distributions.gamma import standard_gamma
from graphc.distributions.parameters import op
from graphc.errors import at_user_line


class Dirichlet(ExponentialFamily):
    """Distributions over vectors of probabilities, of `concentration` [..., k].  Raises ValueError for a 0-dim concentration."""

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True
    _parameters = ("concentration",)

    def __init__(self, concentration: Any, validate_args: bool | None = None) -> None:
        if concentration.dim() < 1:
            raise ValueError(at_user_line("`concentration` parameter must be at least one-dimensional."))
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args=validate_args)

    def rsample(self, sample_shape: Any = ()) -> Any:
        parts = standard_gamma(self.concentration.expand(self._extended_shape(sample_shape)))
        return parts / parts.sum(-1, True)

    def log_prob(self, value: Any) -> Any:
        """The logarithm of the density, or probability, of a value."""
        if self._validate_args:
            self._validate_sample(value)
        alpha = self.concentration
        return (alpha - 1.0).xlogy(value).sum(-1) + alpha.sum(-1).lgamma() - alpha.lgamma().sum(-1)

    @property
    def mean(self) -> Any:
        return self.concentration / self.concentration.sum(-1, True)

    @property
    def mode(self) -> Any:
        """The most likely value."""
        above = (self.concentration - 1).clamp(min=0.0)
        mode = above / above.sum(-1, True)
        nowhere = (self.concentration < 1).all(-1, True)
        corner = op("one_hot")(mode.argmax(-1), self.concentration.shape[-1]).to(mode.dtype)
        return op("where")(nowhere, corner, mode)

    @property
    def variance(self) -> Any:
        total = self.concentration.sum(-1, True)
        return self.concentration * (total - self.concentration) / (total.pow(2) * (total + 1))

    def entropy(self) -> Any:
        """The entropy in nats."""
        alpha, k = self.concentration, self.concentration.size(-1)
        total = alpha.sum(-1)
        normalizer = alpha.lgamma().sum(-1) - total.lgamma()
        return normalizer - (k - total) * total.digamma() - ((alpha - 1.0) * alpha.digamma()).sum(-1)


__all__ = ["Dirichlet"]
