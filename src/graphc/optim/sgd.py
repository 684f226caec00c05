"""`SGD`: gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphc.dtypes import DType, float32
from graphc.eager.creation import ones
from graphc.errors import at_user_line
from graphc.optim.optimizer import Member, Optimizer, ParameterGroup, number


class SGD(Optimizer):
    """Gradient descent with momentum, in PyTorch's form.

    Raises ValueError for negative hyperparameters and for nesterov without momentum.
    Source: Sutskever et al. 2013, On the importance of initialization and momentum in deep learning.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "nesterov": nesterov, "maximize": maximize})

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError for hyperparameters out of range."""
        for name, shown in (("lr", "learning rate"), ("momentum", "momentum value"), ("weight_decay", "weight_decay value")):
            if group[name] < 0.0:
                raise ValueError(at_user_line(f"Invalid {shown}: {group[name]}"))
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(at_user_line("Nesterov momentum requires a momentum and zero dampening"))

    def state_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """The first step is not dampened, so with dampening there is a count."""
        if not group["momentum"]:
            return ()
        return ("momentum_buffer", "step") if group["dampening"] else ("momentum_buffer",)

    def update(self, group: ParameterGroup, dtype: DType, members: list[Member]) -> None:
        """buffer = momentum * buffer + (1 - dampening) * grad;  p -= lr * (buffer, or grad + momentum * buffer)."""
        dtype = dtype.compute
        lr = number(lambda: group.live("lr"), dtype)
        decay = number(lambda: group["weight_decay"], dtype) if group["weight_decay"] else None
        momentum = number(lambda: group["momentum"], dtype) if group["momentum"] else None
        dampening = number(lambda: group["dampening"], dtype) if momentum is not None and group["dampening"] else None
        for p, grad, state in members:
            value, change = p.to(dtype), grad.to(dtype)
            if group["maximize"]:
                change = -change
            if decay is not None:
                change = change + value * decay
            if momentum is not None:
                fresh = change
                if dampening is not None:
                    fresh = change * (1 - dampening * (state["step"] > 0))
                    state["step"].add_(1)
                buffer = state["momentum_buffer"].to(dtype) * momentum + fresh
                state["momentum_buffer"].copy_(buffer)
                change = change + buffer * momentum if group["nesterov"] else buffer
            p.copy_(value - change * lr)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As `Optimizer.load_state_dict`.  PyTorch keeps no count: where there is a buffer, the first step is over."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            for state in (self.state[p] for p in group["params"]):
                if "step" in self.state_names(group) and "step" not in state and state.get("momentum_buffer") is not None:
                    state["step"] = ones((), dtype=float32)
