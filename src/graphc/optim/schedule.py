"""`LRScheduler`: what every schedule of learning rates shares.

Enters: an optimizer.  Leaves: its groups' ``lr``, changed by `step`.  A compiled step reads it at each call, so nothing is compiled
anew; a schedule's `step` inside compiled code is done after every call.  Never here: a particular schedule.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any
from weakref import ref

from graphc.capture.live import is_live
from graphc.eager.modes import modes, no_grad
from graphc.eager.tensor import Tensor
from graphc.errors import TraceError, at_user_line, warn
from graphc.optim.optimizer import Optimizer

OVERRIDDEN = (
    "`optimizer.step()` was replaced after the schedule was made, so that the schedule cannot see steps; take care that "
    "`optimizer.step()` comes before `lr_scheduler.step()`."
)
WRONG_ORDER = "Detected call of `lr_scheduler.step()` before `optimizer.step()`: the schedule's first value is never used."
EPOCH_GIVEN = "The epoch of `scheduler.step()` is deprecated. Where a schedule has a closed form, it gives the epoch's value."
USE_LAST = "To get the last learning rate computed by the scheduler, please use `get_last_lr()`."
NO_INITIAL = (
    "param 'initial_lr' is not specified in param_groups[{}] when resuming scheduler with last_epoch >= 0: load "
    "the optimizer's state first, or leave last_epoch out in a new training."
)


def checked(optimizer: Any) -> Optimizer:
    """`optimizer`.  Raises TypeError for what is none."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(at_user_line(f"{type(optimizer).__name__} is not an Optimizer"))
    return optimizer


def for_each_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """A value for each group: those given, or one for all.  Raises ValueError for another number of them."""
    count = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [copy_of(value) for _ in range(count)]
    if len(value) != count:
        message = f"{name} must have the same length as optimizer.param_groups. {name} has {len(value)} values"
        raise ValueError(at_user_line(f"{message}, param_groups has {count}."))
    return list(map(copy_of, value))


def copy_of(value: Any) -> Any:
    """A tensor's copy, so that writing to one does not change the other; a number itself."""
    return value.detach().clone() if isinstance(value, Tensor) else value  # type: ignore[attr-defined]


def values_of(optimizer: Optimizer, name: str) -> list[Any]:
    """A hyperparameter of every group, as it is now."""
    return [copy_of(group[name]) for group in optimizer.param_groups]


def set_value(group: dict[str, Any], name: str, value: Any) -> None:
    """Set a hyperparameter; a tensor keeps its memory."""
    held = group[name]
    if isinstance(held, Tensor):
        with no_grad():
            held.fill_(float(value))  # type: ignore[attr-defined]
    else:
        group[name] = value


def state_of_function(function: Any) -> dict[str, Any] | None:
    """What a state dict holds of a function that a schedule was given: the attributes of a callable object."""
    return None if isinstance(function, FunctionType) else dict(vars(function))


def _deferred(step: Callable[..., None]) -> Callable[..., None]:
    """`step`, which in traced code is done after every call.  A metric that is traced ends the trace (TraceError)."""

    @functools.wraps(step)
    def stepped(self: Any, *args: Any, **kwargs: Any) -> None:
        if modes.tracer is None:
            step(self, *args, **kwargs)
            return
        if any(isinstance(x, Tensor) or is_live(x) for x in (*args, *kwargs.values())):
            raise TraceError(at_user_line("a schedule's step that is given what the traced code computed cannot be traced"))
        modes.tracer.defer(functools.partial(step, self, *args, **kwargs))

    return stepped


def _note_steps(optimizer: Optimizer) -> None:
    """Have the optimizer remember that it has stepped: schedules warn where they come first."""
    step: Any = optimizer.step
    if hasattr(step, "_wrapped_by_lr_sched"):
        return
    own, function = ref(optimizer), step.__func__

    @functools.wraps(function)
    def stepped(*args: Any, **kwargs: Any) -> Any:
        optimizer: Any = own()
        optimizer._opt_called = True
        return function(optimizer, *args, **kwargs)

    stepped._wrapped_by_lr_sched = True  # type: ignore[attr-defined]
    optimizer.step = stepped  # type: ignore[method-assign]


class LRScheduler:
    """What schedules share: call `step` once an epoch, after the optimizer's steps.

    A schedule says what the next rates are (`get_lr`, or `_rates`), mostly from the rates of now, so that schedules can be chained;
    ``step(epoch)`` takes the closed form where there is one (`_get_closed_form_lr`).

    last_epoch: -1 to begin; otherwise training goes on, and every group has its ``initial_lr``.
    Raises TypeError for what is not an Optimizer, KeyError where ``initial_lr`` is missing.
    """

    _get_lr_called_within_step: bool = False
    _is_initial: bool = False
    _last_lr: list[Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in vars(cls):
            cls.step = _deferred(vars(cls)["step"])  # type: ignore[method-assign]

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = checked(optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", copy_of(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(NO_INITIAL.format(i))
        self.base_lrs = values_of(optimizer, "initial_lr")
        self.last_epoch = last_epoch
        _note_steps(optimizer)
        self._initial_step()

    def _initial_step(self) -> None:
        """The step that sets the rates of the first epoch."""
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    # ---- what a schedule says

    def _rates(self) -> list[Any]:
        raise NotImplementedError

    def get_lr(self) -> list[Any]:
        """The rates that `step` is about to set; `get_last_lr` gives those it set."""
        if not self._get_lr_called_within_step:
            warn(USE_LAST, UserWarning)
        return self._rates()

    def _scaled(self, factor: float | None) -> list[Any]:
        """The rates of now times `factor`; None: as they are."""
        if factor is None:
            return values_of(self.optimizer, "lr")
        return [group["lr"] * factor for group in self.optimizer.param_groups]

    # ---- steps

    @_deferred
    def step(self, epoch: int | None = None) -> None:
        """Go on to the next epoch, or to `epoch` (deprecated; warns).  In compiled code: after each call.

        Warns where the optimizer has not stepped before.
        """
        if self._step_count == 1:
            if not hasattr(self.optimizer.step, "_wrapped_by_lr_sched"):
                warn(OVERRIDDEN, UserWarning)
            elif not getattr(self.optimizer, "_opt_called", False):
                warn(WRONG_ORDER, UserWarning)
        self._step_count += 1
        if epoch is not None:
            warn(EPOCH_GIVEN, UserWarning)
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        """Set the rates of the next epoch, or in closed form those of `epoch`."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        closed = None if epoch is None else getattr(self, "_get_closed_form_lr", None)
        self._set_rates(closed or self.get_lr)

    def _set_rates(self, rates: Callable[[], list[Any]]) -> None:
        """Set what `rates` gives, and remember it."""
        with self._in_step():
            values = rates()
        for group, rate in zip(self.optimizer.param_groups, values, strict=True):
            set_value(group, "lr", rate)
        self._last_lr = values_of(self.optimizer, "lr")

    @contextmanager
    def _in_step(self) -> Iterator[None]:
        self._get_lr_called_within_step = True
        try:
            yield
        finally:
            self._get_lr_called_within_step = False

    def get_last_lr(self) -> list[Any]:
        """The rates that the last step set.  Traced code that asks holds for those rates only."""
        if modes.tracer is not None:
            values_of(self.optimizer, "lr")
        return self._last_lr

    # ---- state

    def _not_state(self) -> tuple[str, ...]:
        """Attributes that are no part of the state dict as they stand."""
        return ("optimizer",)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, in PyTorch's form; of callable objects their attributes, of functions nothing."""
        return {name: value for name, value in vars(self).items() if name not in self._not_state()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` of this schedule, or of PyTorch's, gave.  The optimizer's rates are in its own state."""
        vars(self).update({name: value for name, value in state_dict.items() if name not in self._not_state()})


class _LRScheduler(LRScheduler):
    """`LRScheduler` by its former name."""
