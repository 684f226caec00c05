"""`Adam` and `AdamW`: steps scaled by averages of gradients and of their squares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphc.dtypes import DType, float64
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.optim.optimizer import Member, Optimizer, ParameterGroup, number


class Adam(Optimizer):
    """Adam in PyTorch's form; weight decay is added to the gradient.

    Raises ValueError for hyperparameters out of range.
    Source: Kingma and Ba 2015, Adam: a method for stochastic optimization; amsgrad: Reddi et al. 2018.
    """

    decoupled = False  # weight decay shrinks parameters instead of being added to gradients

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        super().__init__(params, {**defaults, "maximize": maximize, "decoupled_weight_decay": self.decoupled})

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError for hyperparameters out of range."""
        for name, shown in (("lr", "learning rate"), ("eps", "epsilon value"), ("weight_decay", "weight_decay value")):
            if not group[name] >= 0.0:
                raise ValueError(at_user_line(f"Invalid {shown}: {group[name]}"))
        for i, beta in enumerate(group["betas"]):
            if not 0.0 <= beta < 1.0:
                raise ValueError(at_user_line(f"Invalid beta parameter at index {i}: {beta}"))

    def state_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """A count, the average of gradients, that of their squares, and with amsgrad the greatest of the latter."""
        names = ("step", "exp_avg", "exp_avg_sq")
        return (*names, "max_exp_avg_sq") if group["amsgrad"] else names

    def update(self, group: ParameterGroup, dtype: DType, members: list[Member]) -> None:
        """p -= lr / (1 - beta1^t) * average / (sqrt(square / (1 - beta2^t)) + eps)."""
        dtype = dtype.compute
        lr, beta1, beta2 = (
            number(get, float64) for get in (lambda: group.live("lr"), lambda: group["betas"][0], lambda: group["betas"][1])
        )
        eps = number(lambda: group["eps"], dtype)
        rise1, keep2, rise2 = ((1 - beta1).to(dtype), beta2.to(dtype), (1 - beta2).to(dtype))
        decay = None
        if group["weight_decay"]:
            decay = number(lambda: group["weight_decay"], float64)
            decay = (1 - lr * decay if self.decoupled else decay).to(dtype)
        for p, grad, state in members:
            count = state["step"].add_(1).to(float64)
            step_size = (lr / (1 - beta1**count)).to(dtype)
            correction = (1 - beta2**count).sqrt().to(dtype)
            value, grad = p.to(dtype), grad.to(dtype)
            if group["maximize"]:
                grad = -grad
            if decay is not None:
                if self.decoupled:
                    value = value * decay
                else:
                    grad = grad + value * decay
            average, square = state["exp_avg"].to(dtype), state["exp_avg_sq"].to(dtype)
            average = average + (grad - average) * rise1
            square = square * keep2 + grad * grad * rise2
            state["exp_avg"].copy_(average)
            state["exp_avg_sq"].copy_(square)
            if group["amsgrad"]:
                square = Op.table["maximum"](state["max_exp_avg_sq"].to(dtype), square)
                state["max_exp_avg_sq"].copy_(square)
            p.copy_(value - average / (square.sqrt() / correction + eps) * step_size)


class AdamW(Adam):
    """Adam whose weight decay shrinks parameters instead of being added to gradients.

    Source: Loshchilov and Hutter 2019, Decoupled weight decay regularization.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
