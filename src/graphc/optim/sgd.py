"""`SGD`: gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphc.errors import at_user_line
from graphc.optim.optimizer import ParameterGroup
from graphc.optim.rules import ZEROS, Kept, Number, RuleOptimizer, check_fused, check_positive, check_rate


class SGD(RuleOptimizer):
    """Gradient descent with momentum, in PyTorch's form.

    Raises ValueError for negative hyperparameters and for nesterov without momentum.
    Source: Sutskever et al. 2013, On the importance of initialization and momentum in deep learning.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: Any = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_rate(lr)
        check_positive(("momentum value", momentum), ("weight_decay value", weight_decay))
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(at_user_line("Nesterov momentum requires a momentum and zero dampening"))
        check_fused(fused, foreach, differentiable)
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov,
            "maximize": maximize, "foreach": foreach, "differentiable": differentiable, "fused": fused,
        }  # fmt: skip
        self._begun: dict[Any, dict[str, Any]] = {}
        super().__init__(params, defaults)

    def kept(self, group: ParameterGroup) -> dict[str, Kept]:
        """With momentum, the average of gradients."""
        return {"momentum_buffer": ZEROS} if group.live("momentum") else {}

    def places(self, group: ParameterGroup, p: Any) -> list[tuple[dict[str, Any], str, Kept]]:
        """The first step is not dampened, so with dampening there is a tensor that says whether it is over; PyTorch's state dicts
        have none, so it is not in `state`: where there is a buffer, the first step is over."""
        placed = super().places(group, p)
        if placed and group.live("dampening"):
            begun = self._begun.setdefault(p, {})
            there = self.state[p].get("momentum_buffer") is not None
            placed.append((begun, "begun", Kept(whole=False, value=float(there))))
        return placed

    def rule(self, group: Mapping[str, Any], number: Number, p: Any, grad: Any, state: dict[str, Any]) -> Any:
        """buffer = momentum * buffer + (1 - dampening) * grad;  p -= lr * (buffer, or grad + momentum * buffer)."""
        dtype = p.dtype
        if group["weight_decay"]:
            grad = grad + p * number("weight_decay").to(dtype)
        if group["momentum"]:
            momentum, fresh = number("momentum").to(dtype), grad
            if "begun" in state:
                fresh = grad * (1 - number("dampening") * state["begun"]).to(dtype)
                state["begun"] = state["begun"] * 0 + 1
            buffer = state["momentum_buffer"] = state["momentum_buffer"] * momentum + fresh
            grad = grad + buffer * momentum if group["nesterov"] else buffer
        return p - grad * number("lr").to(dtype)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As `Optimizer.load_state_dict`."""
        super().load_state_dict(state_dict)
        for p, begun in self._begun.items():
            if "begun" in begun:
                begun["begun"].fill_(float(self.state[p].get("momentum_buffer") is not None) if p in self.state else 0.0)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_begun", {})
