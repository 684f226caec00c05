"""Mixtures of distributions of one family.  Never here: checks of parameters and values (`distribution`)."""

from __future__ import annotations

from typing import Any

from graphc.distributions import constraints
from graphc.distributions.categorical import Categorical
from graphc.distributions.distribution import Distribution
from graphc.eager.modes import no_grad
from graphc.errors import at_user_line


class MixtureSameFamily(Distribution):
    """One of the k distributions along the last batch dim of `component_distribution`, chosen by `mixture_distribution`.

    Raises ValueError for what are no distributions, batches that do not fit, and another number of components.
    """

    arg_constraints: dict[str, Any] = {}

    def __init__(self, mixture_distribution: Any, component_distribution: Any, validate_args: bool | None = None) -> None:
        self._mixture_distribution, self._component_distribution = mixture_distribution, component_distribution
        if not isinstance(mixture_distribution, Categorical):
            message = " The Mixture distribution needs to be an  instance of graphc.distributions.Categorical"
            raise ValueError(at_user_line(message))
        if not isinstance(component_distribution, Distribution):
            message = "The Component distribution need to be an instance of graphc.distributions.Distribution"
            raise ValueError(at_user_line(message))
        mixed = mixture_distribution.batch_shape
        batch = component_distribution.batch_shape[:-1]
        for a, b in zip(reversed(mixed), reversed(batch), strict=False):
            if a != 1 and b != 1 and a != b:
                shown = f"`mixture_distribution.batch_shape` ({mixed}) is not compatible with `component_distribution."
                raise ValueError(at_user_line(f"{shown}batch_shape`({batch})"))
        count, components = mixture_distribution.logits.shape[-1], component_distribution.batch_shape[-1]
        if count is not None and components is not None and count != components:
            shown = f"`mixture_distribution component` ({count}) does not equal `component_distribution.batch_shape[-1]`"
            raise ValueError(at_user_line(f"{shown} ({components})"))
        self._num_component, self._event_ndims = count, len(component_distribution.event_shape)
        super().__init__(batch, component_distribution.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distributions over a larger batch."""
        shape = tuple(batch_shape)
        new = self._get_checked_instance(MixtureSameFamily, _instance)
        new._component_distribution = self._component_distribution.expand((*shape, self._num_component))
        new._mixture_distribution = self._mixture_distribution.expand(shape)
        new._num_component, new._event_ndims = self._num_component, self._event_ndims
        super(MixtureSameFamily, new).__init__(shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property
    def support(self) -> Any:
        return constraints.MixtureSameFamilyConstraint(self._component_distribution.support)

    @property
    def mixture_distribution(self) -> Any:
        """Which component is chosen."""
        return self._mixture_distribution

    @property
    def component_distribution(self) -> Any:
        """The components."""
        return self._component_distribution

    @property
    def mean(self) -> Any:
        return (self._probs() * self.component_distribution.mean).sum(-1 - self._event_ndims)

    @property
    def variance(self) -> Any:
        """The variance."""
        probs, dim = self._probs(), -1 - self._event_ndims
        inside = (probs * self.component_distribution.variance).sum(dim)
        between = (probs * (self.component_distribution.mean - self._pad(self.mean)).pow(2.0)).sum(dim)
        return inside + between

    def cdf(self, x: Any) -> Any:
        found = self.component_distribution.cdf(self._pad(x))
        return (found * self.mixture_distribution.probs).sum(-1)

    def log_prob(self, value: Any) -> Any:
        """The logarithm of the density, or probability, of a value."""
        if self._validate_args:
            self._validate_sample(value)
        found = self.component_distribution.log_prob(self._pad(value))
        return (found + self.mixture_distribution.logits.log_softmax(-1)).logsumexp(-1)

    def sample(self, sample_shape: Any = ()) -> Any:
        with no_grad():
            rank = len(tuple(sample_shape)) + len(self.batch_shape)
            chosen = self.mixture_distribution.expand(self.batch_shape).sample(sample_shape)
            chosen = chosen.reshape((*chosen.shape, 1, *(1,) * self._event_ndims))
            samples = self.component_distribution.sample(sample_shape)
            chosen = chosen.expand((*chosen.shape[: rank + 1], *self.event_shape))
            return samples.gather(rank, chosen).squeeze(rank)

    def _pad(self, x: Any) -> Any:
        return x.unsqueeze(-1 - self._event_ndims)

    def _probs(self) -> Any:
        """The components' probabilities with dims of 1 for the event."""
        probs = self.mixture_distribution.probs
        return probs.reshape((*probs.shape, *(1,) * self._event_ndims))

    def __repr__(self) -> str:
        return f"MixtureSameFamily(\n  {self.mixture_distribution},\n  {self.component_distribution})"


__all__ = ["MixtureSameFamily"]
