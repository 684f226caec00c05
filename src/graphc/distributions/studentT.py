"""Student's t-distributions.  Never here: checks of parameters and values (`distribution`)."""

from __future__ import annotations

import math
from typing import Any

from graphc.distributions import constraints
from graphc.distributions.chi2 import Chi2
from graphc.distributions.distribution import Distribution
from graphc.distributions.parameters import broadcast_all, filled, op
from graphc.eager.generator import randn


class StudentT(Distribution):
    """Student's t-distributions of `df` degrees of freedom around `loc`, of scale `scale`."""

    arg_constraints = {"df": constraints.positive, "loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True
    _parameters = ("df", "loc", "scale")

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        self._chi2 = Chi2(self.df)
        super().__init__(self.df.shape, validate_args=validate_args)

    def _finish_expansion(self, source: Any, shape: Any) -> None:
        self._chi2 = source._chi2.expand(shape)

    @property
    def mean(self) -> Any:
        return op("where")(self.df <= 1, math.nan, self.loc)

    @property
    def mode(self) -> Any:
        return self.loc

    @property
    def variance(self) -> Any:
        """The variance."""
        finite = self.scale.pow(2) * self.df / (self.df - 2)
        below = op("where")(self.df > 1, math.inf, filled((), math.nan, self.df.dtype))
        return op("where")(self.df > 2, finite, below)

    def rsample(self, sample_shape: Any = ()) -> Any:
        x = randn(*self._extended_shape(sample_shape), dtype=self.df.dtype)
        return self.loc + self.scale * (x * (self._chi2.rsample(sample_shape) / self.df).rsqrt())

    def log_prob(self, value: Any) -> Any:
        """The logarithm of the density, or probability, of a value."""
        if self._validate_args:
            self._validate_sample(value)
        y = (value - self.loc) / self.scale
        half = 0.5 * self.df
        normalizer = self.scale.log() + 0.5 * self.df.log() + 0.5 * math.log(math.pi) + half.lgamma() - (half + 0.5).lgamma()
        return -0.5 * (self.df + 1.0) * (y**2.0 / self.df).log1p() - normalizer

    def entropy(self) -> Any:
        """The entropy in nats."""
        half = 0.5 * self.df
        beta = half.lgamma() + math.lgamma(0.5) - (half + 0.5).lgamma()
        return self.scale.log() + (half + 0.5) * ((half + 0.5).digamma() - half.digamma()) + 0.5 * self.df.log() + beta


__all__ = ["StudentT"]
