"""Averages of a model's weights over training, and the schedule that goes with them.

Enters: modules, optimizers.  Leaves: `AveragedModel`, whose parameters are averages; batch norm statistics; rates.
Never here: what schedules share (`schedule`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any

from graphc.dtypes import DType, int64
from graphc.eager.creation import zeros
from graphc.eager.modes import modes, no_grad
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.nn.module import Module
from graphc.nn.normalization import _BatchNorm
from graphc.optim.optimizer import Optimizer
from graphc.optim.schedule import LRScheduler, for_each_group

Average = Callable[[Any, Any, Any], Any]  # an average, the parameter of now, how many are in the average -> the next average
AverageAll = Callable[[Sequence[Any], Sequence[Any], Any], None]  # the same of lists, written over


def _check_decay(decay: float) -> None:
    if not 0.0 <= decay <= 1.0:
        raise ValueError(at_user_line(f"Invalid decay value {decay} provided. Please provide a value in [0,1] range."))


def get_ema_multi_avg_fn(decay: float = 0.999) -> AverageAll:
    """Exponential averages of lists of tensors: `decay` times the average.  Raises ValueError for a decay outside [0, 1]."""
    _check_decay(decay)

    @no_grad()
    def ema_update(ema_param_list: Sequence[Any], current_param_list: Sequence[Any], _: Any) -> None:
        for average, now in zip(ema_param_list, current_param_list, strict=True):
            if average.is_floating_point() or average.is_complex():
                average.lerp_(now, 1 - decay)
            else:
                average.copy_(average * decay + now * (1 - decay))

    return ema_update


def get_swa_multi_avg_fn() -> AverageAll:
    """Equal averages of lists of tensors."""

    @no_grad()
    def swa_update(averaged_param_list: Sequence[Any], current_param_list: Sequence[Any], num_averaged: Any) -> None:
        for average, now in zip(averaged_param_list, current_param_list, strict=True):
            part = 1 / (num_averaged + 1)
            if average.is_floating_point() or average.is_complex():
                average.lerp_(now, part if isinstance(part, float) else part.to(average.dtype))
            else:
                average.copy_(average + (now - average) * part)

    return swa_update


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """Exponential averages: `decay` times the average.  Raises ValueError for a decay outside [0, 1]."""
    _check_decay(decay)

    @no_grad()
    def ema_update(ema_param: Any, current_param: Any, num_averaged: Any) -> Any:
        return decay * ema_param + (1 - decay) * current_param

    return ema_update


def get_swa_avg_fn() -> Average:
    """Equal averages."""

    @no_grad()
    def swa_update(averaged_param: Any, current_param: Any, num_averaged: Any) -> Any:
        return averaged_param + (current_param - averaged_param) / (num_averaged + 1)

    return swa_update


class AveragedModel(Module):
    """A copy of a model whose parameters are averages over those the model had at each `update_parameters`.

    avg_fn: the next average of one parameter; multi_avg_fn: the same for lists, in place; equal averages without either.
    use_buffers: buffers are averaged too; otherwise they are copied.
    Raises AssertionError where both functions are given.
    Source: Izmailov et al. 2018, Averaging weights leads to wider optima and better generalization.
    """

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Average | None = None,
        multi_avg_fn: AverageAll | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", zeros((), dtype=int64, device=device))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The averaged model's result."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the parameters of `model` into the average; the first are copied.  Buffers that are not averaged are copied."""
        with no_grad():
            mine = [*self.module.parameters(), *(self.module.buffers() if self.use_buffers else ())]
            theirs = [*model.parameters(), *(model.buffers() if self.use_buffers else ())]
            pairs: list[tuple[Any, Any]] = [(p.detach(), q.detach()) for p, q in zip(mine, theirs, strict=False)]
            count: Any = self.n_averaged
            if modes.tracer is not None:  # the count is not known: both, and a choice between them
                averages = [p.clone() for p, _ in pairs]
                self._average([(copy, q) for copy, (_, q) in zip(averages, pairs, strict=True)], count)
                for average, (p, q) in zip(averages, pairs, strict=True):
                    p.copy_(Op.table["where"](count == 0, q, average))
            elif count.item() == 0:
                for p, q in pairs:
                    p.copy_(q)
            else:
                self._average(pairs, count)
            if not self.use_buffers:
                for mine_b, their_b in zip(self.module.buffers(), model.buffers(), strict=True):
                    mine_b.detach().copy_(their_b.detach())  # type: ignore[attr-defined]
            count.add_(1)

    def _average(self, pairs: list[tuple[Any, Any]], count: Any) -> None:
        """Write the next averages over the first tensors of `pairs`."""
        if self.avg_fn is not None:
            for p, q in pairs:
                p.copy_(self.avg_fn(p, q, count))
            return
        average = self.multi_avg_fn or get_swa_multi_avg_fn()
        alike: dict[DType, list[tuple[Any, Any]]] = {}
        for p, q in pairs:
            alike.setdefault(p.dtype, []).append((p, q))
        for members in alike.values():
            average([p for p, _ in members], [q for _, q in members], count)


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of batch norms anew from `loader`, whose items are batches or begin with one."""
    norms: dict[Any, Any] = {module: module.momentum for module in model.modules() if isinstance(module, _BatchNorm)}
    if not norms:
        return
    was_training = model.training
    model.train()
    with no_grad():
        for module in norms:
            module.reset_running_stats()
            module.momentum = None
        try:
            for batch in loader:
                x = batch[0] if isinstance(batch, list | tuple) else batch
                model(x if device is None else x.to(device))
        finally:
            for module, momentum in norms.items():
                module.momentum = momentum
            model.train(was_training)


def _cosine(part: float) -> float:
    return (1 - math.cos(math.pi * part)) / 2


def _linear(part: float) -> float:
    return part


class SWALR(LRScheduler):
    """Rates that go from what they are to `swa_lr` in `anneal_epochs` epochs, and stay there.

    Raises ValueError for other strategies than ``cos`` and ``linear``, other numbers of rates, and a negative number of epochs.
    """

    def __init__(
        self, optimizer: Optimizer, swa_lr: float, anneal_epochs: int = 10, anneal_strategy: str = "cos", last_epoch: int = -1
    ) -> None:
        for rate, group in zip(for_each_group("swa_lr", optimizer, swa_lr), optimizer.param_groups, strict=True):
            group["swa_lr"] = rate
        if anneal_strategy not in ("cos", "linear"):
            message = f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            raise ValueError(at_user_line(message))
        self._anneal_strategy = anneal_strategy
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(at_user_line(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}"))
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _rates(self) -> list[Any]:
        anneal = _cosine if self._anneal_strategy == "cos" else _linear
        step = self._step_count - 1 if self.anneal_epochs else max(1, self._step_count - 1)
        before, now = (anneal(max(0, min(1, s / max(1, self.anneal_epochs)))) for s in (step - 1, step))
        rates = []
        for group in self.optimizer.param_groups:
            swa, rate = group["swa_lr"], group["lr"]
            first = swa if before == 1 else (rate - before * swa) / (1 - before)
            rates.append(swa * now + first * (1 - now))
        return rates


__all__ = [
    "AveragedModel", "SWALR", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn", "get_swa_multi_avg_fn", "update_bn",
]  # fmt: skip
