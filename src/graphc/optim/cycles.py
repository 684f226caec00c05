"""Schedules that go up and down, of rates and of momentum with them: `CyclicLR`, `OneCycleLR`, `CosineAnnealingWarmRestarts`.

Enters: an optimizer.  Leaves: its groups' ``lr`` and ``momentum`` (or the first of ``betas``).  Never here: what schedules share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from graphc.errors import at_user_line
from graphc.optim.optimizer import Optimizer
from graphc.optim.schedule import LRScheduler, checked, for_each_group, set_value, state_of_function


def _uses_beta1(optimizer: Optimizer) -> bool:
    """Whether momentum is the first of ``betas``.  Raises ValueError for an optimizer without momentum."""
    if not {"momentum", "betas"} & set(optimizer.defaults):
        raise ValueError(at_user_line("optimizer must support momentum or beta1 with `cycle_momentum` option enabled"))
    return "betas" in optimizer.defaults


class _Cycling(LRScheduler):
    """A schedule that may turn momentum too."""

    cycle_momentum: bool
    use_beta1: bool

    def _set_momentum(self, group: dict[str, Any], momentum: float) -> None:
        if self.use_beta1:
            group["betas"] = (momentum, *group["betas"][1:])
        else:
            group["momentum"] = momentum

    def _begin_momentum(self, base: list[Any], greatest: list[Any]) -> None:
        """Set the first momentum of every group, and its bounds."""
        for group, low, high in zip(self.optimizer.param_groups, base, greatest, strict=True):
            self._set_momentum(group, high)
            group["max_momentum"], group["base_momentum"] = high, low


_SCALES: dict[str, str] = {"triangular": "cycle", "triangular2": "cycle", "exp_range": "iterations"}  # mode -> what scales it


class CyclicLR(_Cycling):
    """Rates from `base_lr` up to `max_lr` and down again, in straight lines; momentum the other way.

    mode: ``triangular``, ``triangular2`` (half the height in each cycle) or ``exp_range`` (gamma to the number of steps);
    `scale_fn` instead, of the cycle's or the step's number (`scale_mode`).
    Raises TypeError for what is not an Optimizer, ValueError for other modes, numbers of values, and optimizers without momentum.
    Source: Smith 2017, Cyclical learning rates for training neural networks.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = checked(optimizer)
        base_lrs = for_each_group("base_lr", optimizer, base_lr)
        if last_epoch == -1:
            for lr, group in zip(base_lrs, optimizer.param_groups, strict=True):
                set_value(group, "lr", lr)
        self.max_lrs = for_each_group("max_lr", optimizer, max_lr)
        up = float(step_size_up)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        if mode not in _SCALES and scale_fn is None:
            raise ValueError(at_user_line("mode is invalid and scale_fn is None"))
        self.mode, self.gamma, self._scale_fn_custom = mode, gamma, scale_fn
        self.scale_mode = scale_mode if scale_fn is not None else _SCALES[mode]
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.use_beta1 = _uses_beta1(optimizer)
            self.base_momentums = for_each_group("base_momentum", optimizer, base_momentum)
            self.max_momentums = for_each_group("max_momentum", optimizer, max_momentum)
            if last_epoch == -1:
                self._begin_momentum(self.base_momentums, self.max_momentums)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: float) -> float:
        """How high cycle or step `x` goes, of the whole height."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "exp_range":
            return self.gamma**x
        return 1.0 if self.mode == "triangular" else 1 / 2.0 ** (x - 1)

    def _rates(self) -> list[Any]:
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        place = 1.0 + self.last_epoch / self.total_size - cycle
        height = place / self.step_ratio if place <= self.step_ratio else (place - 1) / (self.step_ratio - 1)
        height *= self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            for group, low, high in zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True):
                self._set_momentum(group, high - (high - low) * height)
        return [low + (high - low) * height for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def _not_state(self) -> tuple[str, ...]:
        return ("optimizer", "_scale_fn_custom", "_scale_fn_ref")

    def state_dict(self) -> dict[str, Any]:
        """As `LRScheduler.state_dict`; of a callable object for `scale_fn`, its attributes."""
        custom = self._scale_fn_custom
        return {**super().state_dict(), "_scale_fn_custom": None if custom is None else state_of_function(custom)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As `LRScheduler.load_state_dict`; a callable object for `scale_fn` gets its attributes back."""
        super().load_state_dict(state_dict)
        if state_dict["_scale_fn_custom"] is not None:
            vars(self._scale_fn_custom).update(state_dict["_scale_fn_custom"])


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * part) + 1)


def _linear(start: float, end: float, part: float) -> float:
    return (end - start) * part + start


_ANNEALING: dict[str, Callable[[float, float, float], float]] = {"cos": _cosine, "linear": _linear}


def _phase(end_step: float, lr: tuple[str, str], momentum: tuple[str, str]) -> dict[str, Any]:
    """A part of a cycle: the step it ends at, and between which of a group's values it goes."""
    ends = {"start_lr": lr[0], "end_lr": lr[1], "start_momentum": momentum[0], "end_momentum": momentum[1]}
    return {"end_step": end_step, **ends}


class OneCycleLR(_Cycling):
    """Rates from `max_lr` / `div_factor` up to `max_lr`, then far down, in one cycle of all steps; momentum the other way.

    How many steps: `total_steps`, or `epochs` times `steps_per_epoch`; of them `pct_start` go up.  `three_phase`: down to the first
    rate first, as many steps as up.
    Raises TypeError for what is not an Optimizer, ValueError for other numbers of steps, strategies and optimizers without
    momentum, and for a step past the last one.
    Source: Smith and Topin 2018, Super-convergence.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = checked(optimizer)
        self.total_steps = _count_steps(total_steps, epochs, steps_per_epoch)
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ValueError(at_user_line(f"Expected float between 0 and 1 pct_start, but got {pct_start}"))
        self._schedule_phases = _phases(self.total_steps, pct_start, three_phase)
        if anneal_strategy not in _ANNEALING:
            message = f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            raise ValueError(at_user_line(message))
        self._anneal_func_type = anneal_strategy
        max_lrs = for_each_group("max_lr", optimizer, max_lr)
        if last_epoch == -1:
            for greatest, group in zip(max_lrs, optimizer.param_groups, strict=True):
                group["initial_lr"] = greatest / div_factor
                group["max_lr"] = greatest
                group["min_lr"] = group["initial_lr"] / final_div_factor
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.use_beta1 = _uses_beta1(optimizer)
            high = for_each_group("max_momentum", optimizer, max_momentum)
            low = for_each_group("base_momentum", optimizer, base_momentum)
            if last_epoch == -1:
                self._begin_momentum(low, high)
        super().__init__(optimizer, last_epoch)

    def _rates(self) -> list[Any]:
        step = self.last_epoch
        if step > self.total_steps:
            message = f"Tried to step {step} times. The specified number of total steps is {self.total_steps}"
            raise ValueError(at_user_line(message))
        phases = self._schedule_phases
        number = next((i for i, phase in enumerate(phases) if step <= phase["end_step"]), len(phases) - 1)
        start, phase = phases[number - 1]["end_step"] if number else 0.0, phases[number]
        part = (step - start) / (phase["end_step"] - start)
        anneal, rates = _ANNEALING[self._anneal_func_type], []
        for group in self.optimizer.param_groups:
            rates.append(anneal(group[phase["start_lr"]], group[phase["end_lr"]], part))
            if self.cycle_momentum:
                self._set_momentum(group, anneal(group[phase["start_momentum"]], group[phase["end_momentum"]], part))
        return rates


def _count_steps(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    """How many steps a cycle has.  Raises ValueError for what is not a positive integer."""
    if total_steps is not None:
        given = {"total_steps": total_steps}
    elif epochs is not None and steps_per_epoch is not None:
        given = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
    else:
        raise ValueError(at_user_line("You must define either total_steps OR (epochs AND steps_per_epoch)"))
    for name, value in given.items():
        if not isinstance(value, int) or value <= 0:
            raise ValueError(at_user_line(f"Expected positive integer {name}, but got {value}"))
    return math.prod(given.values())


def _phases(steps: int, up: float, three: bool) -> list[dict[str, Any]]:
    """The parts of one cycle."""
    falling, rising = ("max_momentum", "base_momentum"), ("base_momentum", "max_momentum")
    first = _phase(float(up * steps) - 1, ("initial_lr", "max_lr"), falling)
    if not three:
        return [first, _phase(steps - 1, ("max_lr", "min_lr"), rising)]
    back = _phase(float(2 * up * steps) - 2, ("max_lr", "initial_lr"), rising)
    return [first, back, _phase(steps - 1, ("initial_lr", "min_lr"), ("max_momentum", "max_momentum"))]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine from the initial rate to `eta_min` in `T_0` epochs, then anew, each time `T_mult` times as long.

    ``step(epoch)`` with a fraction of an epoch sets the rate between epochs.
    Raises ValueError for other counts, and for a negative epoch.
    Source: Loshchilov and Hutter 2017, SGDR: stochastic gradient descent with warm restarts.
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        if not isinstance(T_0, int) or T_0 <= 0:
            raise ValueError(at_user_line(f"Expected positive integer T_0, but got {T_0}"))
        if not isinstance(T_mult, int) or T_mult < 1:
            raise ValueError(at_user_line(f"Expected integer T_mult >= 1, but got {T_mult}"))
        if not isinstance(eta_min, float | int):
            message = f"Expected float or int eta_min, but got {eta_min} of type {type(eta_min)}"
            raise ValueError(at_user_line(message))
        self.T_0, self.T_i, self.T_mult, self.eta_min = T_0, T_0, T_mult, eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def _rates(self) -> list[Any]:
        part = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * part for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Go on to the next epoch, or to `epoch`, which may lie between two.  In compiled code: after each call."""
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur, self.T_i = self.T_cur % self.T_i, self.T_i * self.T_mult
        elif epoch < 0:
            raise ValueError(at_user_line(f"Expected non-negative epoch, but got {epoch}"))
        else:
            self._place(epoch)
        self.last_epoch = math.floor(epoch)
        self._set_rates(self.get_lr)

    def _place(self, epoch: float) -> None:
        """Find the restart before `epoch`, and how far it lies back."""
        if epoch < self.T_0:
            self.T_i, self.T_cur = self.T_0, epoch
        elif self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        else:
            restarts = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
            self.T_i = self.T_0 * self.T_mult**restarts
            self.T_cur = epoch - self.T_0 * (self.T_mult**restarts - 1) / (self.T_mult - 1)
