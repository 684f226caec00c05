"""Geometric distributions.  Never here: checks of parameters and values (`distribution`)."""

from __future__ import annotations

from typing import Any

from graphc.distributions import constraints
from graphc.distributions.distribution import Distribution
from graphc.distributions.parameters import (
    broadcast_all,
    elements_known,
    lazy_property,
    logits_to_probs,
    one_of,
    op,
    probs_to_logits,
    scalar_shape,
)
from graphc.eager.creation import finfo
from graphc.eager.generator import rand
from graphc.eager.modes import no_grad
from graphc.errors import at_user_line


class Geometric(Distribution):
    """How many trials of probability `probs` (or of log odds `logits`) fail before one succeeds.

    Raises ValueError unless exactly one of them is given, and for a probability of 0.
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.nonnegative_integer
    _parameters = ("probs", "logits")

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        name, given = one_of(probs, logits)
        (value,) = broadcast_all(given)
        setattr(self, name, value)
        super().__init__(() if scalar_shape(given) else value.shape, validate_args=validate_args)
        if self._validate_args and probs is not None and elements_known() and not (self.probs > 0).all():
            found = f"Expected parameter probs (Tensor of shape {tuple(value.shape)}) of distribution {self!r} to be positive"
            raise ValueError(at_user_line(f"{found} but found invalid values:\n{value}"))

    @property
    def mean(self) -> Any:
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Any:
        return self.probs * 0

    @property
    def variance(self) -> Any:
        return (1.0 / self.probs - 1.0) / self.probs

    @lazy_property
    def logits(self) -> Any:
        """Log odds."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Any:
        """Probabilities of success."""
        return logits_to_probs(self.logits, is_binary=True)

    def sample(self, sample_shape: Any = ()) -> Any:
        tiny = finfo(self.probs.dtype).tiny
        with no_grad():
            u: Any = rand(*self._extended_shape(sample_shape), dtype=self.probs.dtype)
            return (u.clamp(min=tiny).log() / (-self.probs).log1p()).floor()

    def log_prob(self, value: Any) -> Any:
        """The logarithm of the density, or probability, of a value."""
        if self._validate_args:
            self._validate_sample(value)
        value, probs = broadcast_all(value, self.probs)
        # 0 times log 0 is 0 here: certain success without a failure
        probs_left = op("where")((probs == 1) & (value == 0), 0, probs)
        return value * (-probs_left).log1p() + self.probs.log()

    def entropy(self) -> Any:
        return op("binary_cross_entropy_with_logits")(self.logits, self.probs, reduction="none") / self.probs


__all__ = ["Geometric"]
