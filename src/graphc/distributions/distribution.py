"""`Distribution`: what all distributions share.

Enters: batch and event shapes, parameters.  Leaves: their checks, shapes of samples, and what follows from other methods.
Never here: a particular distribution.
"""

from __future__ import annotations

from typing import Any

from graphc.distributions import constraints
from graphc.distributions.parameters import elements_known, lazy_property
from graphc.eager.modes import no_grad
from graphc.eager.tensor import Size, Tensor
from graphc.errors import at_user_line, warn


class Distribution:
    """A batch of distributions of events.  A sample of shape `s` is a tensor [*s, *batch_shape, *event_shape].

    has_rsample: samples are differentiable functions of the parameters (`rsample`).   has_enumerate_support: all values can be
    listed.   validate_args: whether parameters and values are looked at; by default they are.  In traced code, where elements are
    not known, nothing is looked at.
    Raises ValueError for parameters that break a constraint.
    """

    has_rsample = False
    has_enumerate_support = False
    _validate_args = __debug__
    _parameters: tuple[str, ...] = ()  # tensors [*batch_shape, ...] that `expand` expands, where there is no other way

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether parameters and values are looked at where a distribution does not say.  Raises ValueError for no bool."""
        if value not in (True, False):
            raise ValueError
        Distribution._validate_args = value

    def __init__(self, batch_shape: Any = (), event_shape: Any = (), validate_args: bool | None = None) -> None:
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args and elements_known():
            self._check_parameters()
        super().__init__()

    def _check_parameters(self) -> None:
        try:
            limits = self.arg_constraints
        except NotImplementedError:
            warn(
                f"{type(self)} does not define `arg_constraints`. Please set `arg_constraints = {{}}` or initialize the "
                "distribution with `validate_args=False` to turn off validation.",
                UserWarning,
            )
            return
        for name, constraint in limits.items():
            if constraints.is_dependent(constraint):
                continue
            if name not in self.__dict__ and isinstance(getattr(type(self), name, None), lazy_property):
                continue
            value = getattr(self, name)
            if not constraint.check(value).all():
                shown = f"Expected parameter {name} ({type(value).__name__} of shape {tuple(value.shape)})"
                limit = f"of distribution {self!r} to satisfy the constraint {constraint!r}"
                raise ValueError(at_user_line(f"{shown} {limit}, but found invalid values:\n{value}"))

    # ---- shapes

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distributions over a larger batch.  Raises NotImplementedError where a distribution does not say how."""
        owner = next((c for c in type(self).__mro__ if vars(c).get("_parameters")), None)
        if owner is None:
            raise NotImplementedError
        new, shape = self._get_checked_instance(owner, _instance), Size(batch_shape)
        rank = len(self._batch_shape)
        for name in self._parameters:
            if name in self.__dict__:
                value = self.__dict__[name]
                setattr(new, name, value.expand((*shape, *value.shape[rank:])))
        new._finish_expansion(self, shape)
        Distribution.__init__(new, shape, self._event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _finish_expansion(self, source: Any, shape: Any) -> None:
        """Take over from `source` what `expand` does not expand."""

    @property
    def batch_shape(self) -> Any:
        """The shape of the parameters' batch."""
        return self._batch_shape

    @property
    def event_shape(self) -> Any:
        """The shape of one event."""
        return self._event_shape

    def _extended_shape(self, sample_shape: Any = ()) -> Any:
        """The shape of a sample."""
        return Size((*tuple(sample_shape), *self._batch_shape, *self._event_shape))

    # ---- what a distribution says

    @property
    def arg_constraints(self) -> dict[str, Any]:
        """The constraint of each parameter."""
        raise NotImplementedError

    @property
    def support(self) -> Any:
        """The constraint of values."""
        raise NotImplementedError

    @property
    def mean(self) -> Any:
        """The mean."""
        raise NotImplementedError

    @property
    def mode(self) -> Any:
        """The most likely value."""
        raise NotImplementedError(f"{type(self)} does not implement mode")

    @property
    def variance(self) -> Any:
        """The variance."""
        raise NotImplementedError

    def rsample(self, sample_shape: Any = ()) -> Any:
        """A sample through which gradients flow to the parameters."""
        raise NotImplementedError

    def log_prob(self, value: Any) -> Any:
        """The logarithm of the density, or probability, of a value.  Raises ValueError for a value outside the support."""
        raise NotImplementedError

    def cdf(self, value: Any) -> Any:
        """The probability of at most a value."""
        raise NotImplementedError

    def icdf(self, value: Any) -> Any:
        """The value of which `cdf` is this probability."""
        raise NotImplementedError

    def enumerate_support(self, expand: bool = True) -> Any:
        """All values along dim 0: [n, *batch_shape, *event_shape], or with dims of 1 for the batch."""
        raise NotImplementedError

    def entropy(self) -> Any:
        """The entropy in nats."""
        raise NotImplementedError

    # ---- what follows

    def sample(self, sample_shape: Any = ()) -> Any:
        """A sample, of which nothing is recorded."""
        with no_grad():
            return self.rsample(sample_shape)

    def sample_n(self, n: int) -> Any:
        """``sample((n,))``, by its deprecated name."""
        warn("sample_n will be deprecated. Use .sample((n,)) instead", FutureWarning)
        return self.sample((n,))

    @property
    def stddev(self) -> Any:
        """The square root of the variance."""
        return self.variance.sqrt()

    def perplexity(self) -> Any:
        """exp of the entropy."""
        return self.entropy().exp()

    # ---- checks

    def _validate_sample(self, value: Any) -> None:
        """Raise ValueError for a value whose shape or elements do not fit."""
        if not isinstance(value, Tensor):
            raise ValueError(at_user_line("The value argument to log_prob must be a Tensor"))
        event, shape = tuple(self._event_shape), tuple(value.shape)
        if len(shape) < len(event) or shape[len(shape) - len(event) :] != event:
            message = f"The right-most size of value must match event_shape: {Size(shape)} vs {self._event_shape}."
            raise ValueError(at_user_line(message))
        wanted = tuple(self._batch_shape) + event
        for i, j in zip(reversed(shape), reversed(wanted), strict=False):
            if i != 1 and j != 1 and i != j:
                message = f"Value is not broadcastable with batch_shape+event_shape: {Size(shape)} vs {Size(wanted)}."
                raise ValueError(at_user_line(message))
        if not elements_known():
            return
        try:
            support = self.support
        except NotImplementedError:
            warn(
                f"{type(self)} does not define `support` to enable sample validation. Please initialize the distribution with "
                "`validate_args=False` to turn off validation.",
                UserWarning,
            )
            return
        if not support.check(value).all():
            shown = f"Expected value argument ({type(value).__name__} of shape {tuple(value.shape)}) to be within the support"
            raise ValueError(
                at_user_line(f"{shown} ({support!r}) of the distribution {self!r}, but found invalid values:\n{value}")
            )

    def _get_checked_instance(self, cls: type, _instance: Any = None) -> Any:
        """A new object of this class without parameters.  Raises NotImplementedError for a subclass that must make its own."""
        if _instance is None and type(self).__init__ != cls.__init__:  # type: ignore[misc]
            raise NotImplementedError(
                f"Subclass {type(self).__name__} of {cls.__name__} that defines a custom __init__ method must also define a custom "
                ".expand() method."
            )
        return self.__new__(type(self)) if _instance is None else _instance

    def __repr__(self) -> str:
        names = [name for name in self.arg_constraints if name in self.__dict__]
        shown = []
        for name in names:
            value = self.__dict__[name]
            shown.append(f"{name}: {value if value.numel() == 1 and elements_known() else value.size()}")
        return f"{type(self).__name__}({', '.join(shown)})"


class ExponentialFamily(Distribution):
    """Distributions of the form ``exp(<natural parameters, statistics> - log normalizer)``."""


__all__ = ["Distribution", "ExponentialFamily"]
