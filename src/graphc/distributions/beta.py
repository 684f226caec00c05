"""Beta distributions.  Never here: checks of parameters and values (`distribution`)."""

from __future__ import annotations

from typing import Any

from graphc.distributions import constraints
from graphc.distributions.dirichlet import Dirichlet
from graphc.distributions.distribution import ExponentialFamily
from graphc.distributions.gamma import standard_gamma
from graphc.distributions.parameters import broadcast_all, op


class Beta(ExponentialFamily):
    """Beta distributions of `concentration1` (alpha) and `concentration0` (beta)."""

    arg_constraints = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        alpha, beta = broadcast_all(concentration1, concentration0)
        self._dirichlet = Dirichlet(op("stack")([alpha, beta], -1), validate_args=validate_args)
        super().__init__(self._dirichlet._batch_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distributions over a larger batch."""
        new = self._get_checked_instance(Beta, _instance)
        new._dirichlet = self._dirichlet.expand(batch_shape)
        super(Beta, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def concentration1(self) -> Any:
        """The first concentration, alpha."""
        return self._dirichlet.concentration[..., 0]

    @property
    def concentration0(self) -> Any:
        """The second concentration, beta."""
        return self._dirichlet.concentration[..., 1]

    @property
    def mean(self) -> Any:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> Any:
        return self._dirichlet.mode[..., 0]

    @property
    def variance(self) -> Any:
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total.pow(2) * (total + 1))

    def rsample(self, sample_shape: Any = ()) -> Any:
        """A sample through which gradients flow to the parameters."""
        shape = (*self._extended_shape(sample_shape), 2)
        first, second = standard_gamma(self._dirichlet.concentration.expand(shape)).unbind(-1)
        return first / (first + second)

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        return self._dirichlet.log_prob(op("stack")([value, 1.0 - value], -1))

    def entropy(self) -> Any:
        return self._dirichlet.entropy()


__all__ = ["Beta"]
