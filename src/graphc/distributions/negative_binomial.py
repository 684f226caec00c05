"""Negative binomial distributions.  Never here: checks of parameters and values (`distribution`)."""

from __future__ import annotations

from typing import Any

from graphc.distributions import constraints
from graphc.distributions.distribution import Distribution
from graphc.distributions.gamma import Gamma
from graphc.distributions.parameters import broadcast_all, lazy_property, logits_to_probs, one_of, op, probs_to_logits
from graphc.eager.modes import no_grad
from graphc.eager.sampling import poisson


class NegativeBinomial(Distribution):
    """How many trials of probability `probs` succeed before `total_count` of them fail.

    Raises ValueError unless exactly one of `probs` and `logits` is given.
    """

    arg_constraints = {
        "total_count": constraints.greater_than_eq(0), "probs": constraints.half_open_interval(0.0, 1.0),
        "logits": constraints.real,
    }  # fmt: skip
    support = constraints.nonnegative_integer
    _parameters = ("total_count", "probs", "logits", "_param")

    def __init__(self, total_count: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        name, given = one_of(probs, logits)
        self.total_count, self._param = broadcast_all(total_count, given)
        self.total_count = self.total_count.type_as(self._param)
        setattr(self, name, self._param)
        super().__init__(self._param.size(), validate_args=validate_args)

    @lazy_property
    def logits(self) -> Any:
        """Log odds."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Any:
        """Probabilities of success."""
        return logits_to_probs(self.logits, is_binary=True)

    @property
    def param_shape(self) -> Any:
        """The parameter's shape."""
        return self._param.size()

    @property
    def mean(self) -> Any:
        return self.total_count * self.logits.exp()

    @property
    def mode(self) -> Any:
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0.0)

    @property
    def variance(self) -> Any:
        return self.mean / (-self.logits).sigmoid()

    def sample(self, sample_shape: Any = ()) -> Any:
        with no_grad():
            rates = Gamma(self.total_count, (-self.logits).exp(), validate_args=False).sample(sample_shape)
            return poisson(rates)

    def log_prob(self, value: Any) -> Any:
        """The logarithm of the density, or probability, of a value."""
        if self._validate_args:
            self._validate_sample(value)
        logsigmoid = op("logsigmoid")
        found = self.total_count * logsigmoid(-self.logits) + value * logsigmoid(self.logits)
        choices = (1.0 + value).lgamma() + self.total_count.lgamma() - (self.total_count + value).lgamma()
        return found - op("where")(self.total_count + value == 0.0, 0.0, choices)


__all__ = ["NegativeBinomial"]
