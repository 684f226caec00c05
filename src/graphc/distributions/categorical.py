"""Categorical distributions.  Never here: checks of parameters and values (`distribution`)."""

from __future__ import annotations

import math
from typing import Any

from graphc.distributions import constraints
from graphc.distributions.distribution import Distribution
from graphc.distributions.parameters import filled, lazy_property, logits_to_probs, one_of, op, probs_to_logits
from graphc.dtypes import int64
from graphc.eager.creation import arange, finfo
from graphc.eager.sampling import multinomial
from graphc.errors import at_user_line


class Categorical(Distribution):
    """One of k classes, of probabilities `probs` [..., k] (they need not sum to 1) or unnormalised logarithms `logits`.

    Raises ValueError unless exactly one of them is given, and for a 0-dim one.
    """

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True
    _parameters = ("probs", "logits", "_param")

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        name, given = one_of(probs, logits)
        if given.dim() < 1:
            raise ValueError(at_user_line(f"`{name}` parameter must be at least one-dimensional."))
        self._param = given / given.sum(-1, True) if name == "probs" else given - given.logsumexp(-1, True)
        setattr(self, name, self._param)
        self._num_events = given.size(-1)
        super().__init__(given.shape[:-1], validate_args=validate_args)

    def _finish_expansion(self, source: Any, shape: Any) -> None:
        self._num_events = source._num_events

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self._num_events - 1)

    @lazy_property
    def logits(self) -> Any:
        """Logarithms of probabilities."""
        return probs_to_logits(self.probs)

    @lazy_property
    def probs(self) -> Any:
        """Probabilities."""
        return logits_to_probs(self.logits)

    @property
    def param_shape(self) -> Any:
        """The parameter's shape."""
        return self._param.size()

    @property
    def mean(self) -> Any:
        return filled(self._extended_shape(), math.nan, self.probs.dtype)

    @property
    def mode(self) -> Any:
        return self.probs.argmax(-1)

    @property
    def variance(self) -> Any:
        return filled(self._extended_shape(), math.nan, self.probs.dtype)

    def sample(self, sample_shape: Any = ()) -> Any:
        """A sample, of which nothing is recorded."""
        count = math.prod(sample_shape)
        drawn = multinomial(self.probs.reshape((-1, self._num_events)), count, True).t() if count else self._no_sample()
        return drawn.reshape(self._extended_shape(sample_shape))

    def _no_sample(self) -> Any:
        return filled((0,), 0, int64)

    def log_prob(self, value: Any) -> Any:
        """The logarithm of the density, or probability, of a value."""
        if self._validate_args:
            self._validate_sample(value)
        value, logits = op("broadcast_tensors")(value.long().unsqueeze(-1), self.logits)
        return logits.gather(-1, value[..., :1]).squeeze(-1)

    def entropy(self) -> Any:
        return -(self.logits.clamp(min=finfo(self.logits.dtype).min) * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Any:
        """All values along dim 0."""
        values: Any = arange(self._num_events, dtype=int64)
        values = values.reshape((-1, *(1,) * len(self._batch_shape)))
        return values.expand((-1, *self._batch_shape)) if expand else values


__all__ = ["Categorical"]
