"""Schedules made of others, and the one that follows a metric: `SequentialLR`, `ChainedScheduler`, `ReduceLROnPlateau`.

Enters: an optimizer, schedules of it.  Leaves: its groups' ``lr``.  Never here: what schedules share.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

from graphc.errors import at_user_line, warn
from graphc.optim.optimizer import Optimizer
from graphc.optim.schedule import EPOCH_GIVEN, LRScheduler, checked, set_value, values_of


class _Combined(LRScheduler):
    """A schedule of schedules."""

    _schedulers: Sequence[LRScheduler]

    def _check(self, optimizer: Any, schedulers: Sequence[LRScheduler], purpose: str = "") -> None:
        """Raise ValueError for no schedules, those of another optimizer and those of a metric, TypeError for what is none."""
        name = type(self).__name__
        if not schedulers:
            raise ValueError(at_user_line(f"{name} expects at least one scheduler{purpose}, but got no scheduler."))
        for i, scheduler in enumerate(schedulers):
            if not hasattr(scheduler, "optimizer"):
                raise TypeError(at_user_line(f"{name} at index {i} should have `optimizer` as its attribute."))
            if isinstance(scheduler, ReduceLROnPlateau):
                message = f"{name} does not support `ReduceLROnPlateau` scheduler as it requires additional kwargs to be specified"
                raise ValueError(
                    at_user_line(f"{message} when calling `step`, but got one at index {i} in the given schedulers sequence.")
                )
            if (optimizer or schedulers[0].optimizer) is not scheduler.optimizer:
                message = (
                    f"{name} expects all schedulers to belong to the same optimizer, but got scheduler {type(scheduler).__name__}"
                )
                own = type(optimizer or schedulers[0].optimizer).__name__
                raise ValueError(at_user_line(f"{message} at index {i} has {scheduler.optimizer}, which is different from {own}."))

    def _not_state(self) -> tuple[str, ...]:
        return ("optimizer", "_schedulers")

    def state_dict(self) -> dict[str, Any]:
        """As `LRScheduler.state_dict`, with the state of every schedule in order."""
        return {**super().state_dict(), "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As `LRScheduler.load_state_dict`, of every schedule.  Raises ValueError for another number of them."""
        states = state_dict["_schedulers"]
        for scheduler, state in [*zip(self._schedulers, states, strict=True)]:
            scheduler.load_state_dict(state)
        super().load_state_dict(state_dict)


class SequentialLR(_Combined):
    """Schedules one after the other: the next one begins at each of the epochs `milestones`.

    Raises ValueError for no schedules, other numbers of milestones, schedules of another optimizer, and `ReduceLROnPlateau`.
    """

    def __init__(self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int], last_epoch: int = -1) -> None:
        self._check(optimizer, schedulers)
        if len(milestones) != len(schedulers) - 1:
            message = (
                "Sequential Schedulers expects number of schedulers provided to be one more than the number of milestone points"
            )
            found = f"got number of schedulers {len(schedulers)} and the number of milestones to be equal to {len(milestones)}"
            raise ValueError(at_user_line(f"{message}, but {found}"))
        self._schedulers, self._milestones = schedulers, milestones
        self.last_epoch, self.optimizer = last_epoch + 1, optimizer
        for group in optimizer.param_groups:
            set_value(group, "lr", group["initial_lr"])
        self.recursive_undo()
        first = schedulers[bisect_right(milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def recursive_undo(self, sched: Any = None) -> None:
        """Take back the step that every schedule did when it was made."""
        whole = self if sched is None else sched
        for scheduler in getattr(whole, "_schedulers", ()):
            self.recursive_undo(scheduler)
        if not hasattr(whole, "_schedulers") and hasattr(whole, "last_epoch"):
            whole.last_epoch -= 1

    def step(self) -> None:  # type: ignore[override]
        """Go on to the next epoch, with the schedule whose turn it is.  In compiled code: after each call."""
        self.last_epoch += 1
        number = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[number]
        if number and self._milestones[number - 1] == self.last_epoch:
            scheduler._update_lr(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


class ChainedScheduler(_Combined):
    """Schedules that step together, each from the rates that the one before has set.

    Raises ValueError for no schedules, schedules of another optimizer, and `ReduceLROnPlateau`.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        self._check(optimizer, schedulers, " to be chained")
        self._schedulers, self.optimizer = schedulers, optimizer or schedulers[0].optimizer
        self._last_lr = values_of(self.optimizer, "lr")

    def step(self) -> None:  # type: ignore[override]
        """Go on to the next epoch, with every schedule.  In compiled code: after each call."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = values_of(self.optimizer, "lr")


class ReduceLROnPlateau(LRScheduler):
    """The rate times `factor` where a metric has not become better for more than `patience` epochs: ``step(metric)``.

    Better is smaller (mode ``min``) or greater (``max``) than the best by more than `threshold`, a part of the best (``rel``) or a
    number (``abs``).  After a reduction `cooldown` epochs do not count.
    Raises ValueError for a factor of 1 or more, other modes, and another number of `min_lr`, TypeError for no Optimizer.
    In compiled code the metric must be a number: one that is traced makes the code run eagerly.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: list[float] | float = 0,
        eps: float = 1e-8,
    ) -> None:
        if factor >= 1.0:
            raise ValueError(at_user_line("Factor should be < 1.0."))
        self.factor, self.optimizer = factor, checked(optimizer)
        groups, several = len(optimizer.param_groups), isinstance(min_lr, list | tuple)
        self.default_min_lr = None if several else min_lr
        self.min_lrs: list[Any] = list(min_lr) if isinstance(min_lr, list | tuple) else [min_lr] * groups
        if len(self.min_lrs) != groups:
            raise ValueError(at_user_line(f"expected {groups} min_lrs, got {len(self.min_lrs)}"))
        self.patience, self.cooldown, self.eps, self.last_epoch = patience, cooldown, eps, 0
        self._last_lr = values_of(optimizer, "lr")
        if mode not in ("min", "max"):
            raise ValueError(at_user_line(f"mode {mode} is unknown!"))
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(at_user_line(f"threshold mode {threshold_mode} is unknown!"))
        self.mode_worse = math.inf if mode == "min" else -math.inf
        self.mode, self.threshold, self.threshold_mode = mode, threshold, threshold_mode
        self._reset()

    def _reset(self) -> None:
        """Forget the metrics seen."""
        self.best, self.cooldown_counter, self.num_bad_epochs = self.mode_worse, 0, 0

    @property
    def in_cooldown(self) -> bool:
        """Whether epochs do not count for a while."""
        return self.cooldown_counter > 0

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]
        """Go on to the next epoch, in which the metric was `metrics`.

        Raises RuntimeError where the optimizer has got other groups and there is no one least rate.
        """
        current = float(metrics)
        if epoch is not None:
            warn(EPOCH_GIVEN, UserWarning)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(current, self.best):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce_lr()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = values_of(self.optimizer, "lr")

    def _is_better(self, value: float, best: float) -> bool:
        sign = -1.0 if self.mode == "min" else 1.0
        if self.threshold_mode == "rel":
            return sign * value > sign * (best * (1.0 + sign * self.threshold))
        return sign * value > sign * (best + sign * self.threshold)

    def _reduce_lr(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.min_lrs):
            if self.default_min_lr is None:
                message = f"The number of param groups in the `optimizer` ({len(groups)}) differs from when `ReduceLROnPlateau` was"
                cause = "usually due to a new param group being added to the optimizer"
                advice = "Please modify the `min_lrs` field to match the length of the `optimizer` param groups."
                raise RuntimeError(at_user_line(f"{message} initialized ({len(self.min_lrs)}), {cause}. {advice}"))
            self.min_lrs = [self.default_min_lr] * len(groups)
        for group, least in zip(groups, self.min_lrs, strict=True):
            old = float(group["lr"])
            new = max(old * self.factor, least)
            if old - new > self.eps:
                set_value(group, "lr", new)
