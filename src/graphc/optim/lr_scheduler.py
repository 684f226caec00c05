"""Learning rates as functions of the epoch.

Enters: an optimizer.  Leaves: its groups' ``lr``.  A compiled step reads it at each call, so nothing is compiled anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from graphc.eager.modes import modes
from graphc.errors import at_user_line
from graphc.optim.optimizer import Optimizer


class LRScheduler:
    """What schedules share: call `step` once an epoch, after the optimizer's steps.

    Differs from torch: the rate is computed from the initial rate and the epoch alone, whatever else has set ``lr`` since.
    Raises TypeError for what is not an Optimizer.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(at_user_line(f"{type(optimizer).__name__} is not an Optimizer"))
        self.optimizer, self.last_epoch = optimizer, last_epoch
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group["initial_lr"] = group["lr"]
            elif "initial_lr" not in group:
                raise KeyError(f"param 'initial_lr' is not specified in param_groups[{i}] when resuming an optimizer")
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.step()

    def rate(self, base_lr: float, group: int) -> float:
        """The rate at `last_epoch` of the group that began with `base_lr`."""
        raise NotImplementedError(f"{type(self).__name__} has no rate")

    def step(self) -> None:
        """Go on to the next epoch.  In compiled code: after each call."""
        if modes.tracer is not None:
            modes.tracer.defer(self.step)
            return
        self.last_epoch += 1
        for i, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self.rate(self.base_lrs[i], i)

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and functions."""
        return {name: value for name, value in vars(self).items() if name not in ("optimizer", "lr_lambdas")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, and set the rates."""
        vars(self).update({name: value for name, value in state_dict.items() if name in vars(self)})
        for i, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self.rate(self.base_lrs[i], i)


class StepLR(LRScheduler):
    """The rate times `gamma` after every `step_size` epochs."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, group: int) -> float:
        return base_lr * self.gamma ** (self.last_epoch // self.step_size)


class LambdaLR(LRScheduler):
    """The rate times ``lr_lambda(epoch)``; one function, or one for each group.  Raises ValueError for another number of them."""

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]], last_epoch: int = -1
    ) -> None:
        groups = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ValueError(at_user_line(f"Expected {groups} lr_lambdas, but got {len(self.lr_lambdas)}"))
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, group: int) -> float:
        return base_lr * self.lr_lambdas[group](self.last_epoch)


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial rate to `eta_min` in `T_max` epochs.

    Source: Loshchilov and Hutter 2017, SGDR: stochastic gradient descent with warm restarts.
    """

    def __init__(self, optimizer: Optimizer, T_max: float, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, group: int) -> float:
        return self.eta_min + (base_lr - self.eta_min) * (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
