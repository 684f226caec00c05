"""Steps scaled by squares of gradients alone: `Adagrad`, `Adadelta` and `RMSprop`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphc.dtypes import float64
from graphc.errors import at_user_line
from graphc.optim.optimizer import ParameterGroup
from graphc.optim.rules import COUNT, ZEROS, Kept, Number, RuleOptimizer, check_fused, check_positive, check_rate


def _decayed(group: Mapping[str, Any], number: Number, p: Any, grad: Any) -> Any:
    return grad + p * number("weight_decay").to(p.dtype) if group["weight_decay"] else grad


class Adagrad(RuleOptimizer):
    """Steps divided by the root of the sum of all squared gradients.  The state is made with the optimizer, as PyTorch's.

    Raises ValueError for negative hyperparameters.
    Source: Duchi et al. 2011, Adaptive subgradient methods for online learning and stochastic optimization.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_rate(lr)
        check_positive(
            ("lr_decay value", lr_decay), ("weight_decay value", weight_decay),
            ("initial_accumulator_value value", initial_accumulator_value), ("epsilon value", eps),
        )  # fmt: skip
        check_fused(fused, foreach, differentiable)
        defaults = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "fused": fused,
        }  # fmt: skip
        super().__init__(params, defaults)
        for group in self.param_groups:
            for p in group["params"]:
                self.state_of(group, p)

    def share_memory(self) -> None:
        """Move the sums to memory that processes share."""
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["sum"].share_memory_()

    def kept(self, group: ParameterGroup) -> dict[str, Kept]:
        """A count and the sum of squared gradients."""
        return {"step": COUNT, "sum": Kept(value=group.live("initial_accumulator_value"))}

    def rule(self, group: Mapping[str, Any], number: Number, p: Any, grad: Any, state: dict[str, Any]) -> Any:
        """p -= lr / (1 + (t - 1) * lr_decay) * grad / (sqrt(sum) + eps)."""
        dtype = p.dtype
        rate = number("lr") / (1 + state["step"].to(float64) * number("lr_decay"))
        state["step"] = state["step"] + 1
        grad = _decayed(group, number, p, grad)
        state["sum"] = state["sum"] + grad * grad
        return p - grad / (state["sum"].sqrt() + number("eps").to(dtype)) * rate.to(dtype)


class Adadelta(RuleOptimizer):
    """Steps scaled by the average of squared steps over that of squared gradients.

    Raises ValueError for hyperparameters out of range.
    Source: Zeiler 2012, ADADELTA: an adaptive learning rate method.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_rate(lr)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(at_user_line(f"Invalid rho value: {rho}"))
        check_positive(("epsilon value", eps), ("weight_decay value", weight_decay))
        defaults = {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize, "capturable": capturable,
            "foreach": foreach, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def kept(self, group: ParameterGroup) -> dict[str, Kept]:
        """A count, and the averages of squared gradients and squared steps."""
        return {"step": COUNT, "square_avg": ZEROS, "acc_delta": ZEROS}

    def rule(self, group: Mapping[str, Any], number: Number, p: Any, grad: Any, state: dict[str, Any]) -> Any:
        """p -= lr * sqrt(steps + eps) / sqrt(squares + eps) * grad."""
        dtype = p.dtype
        keep, rise, eps = number("rho").to(dtype), (1 - number("rho")).to(dtype), number("eps").to(dtype)
        state["step"] = state["step"] + 1
        grad = _decayed(group, number, p, grad)
        squares = state["square_avg"] = state["square_avg"] * keep + grad * grad * rise
        change = (state["acc_delta"] + eps).sqrt() / (squares + eps).sqrt() * grad
        state["acc_delta"] = state["acc_delta"] * keep + change * change * rise
        return p - change * number("lr").to(dtype)


class RMSprop(RuleOptimizer):
    """Steps divided by the root of the average of squared gradients, or of their variance (`centered`).

    Raises ValueError for negative hyperparameters.
    Source: Tieleman and Hinton 2012, lecture 6.5; centered: Graves 2013, Generating sequences with recurrent neural networks.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_rate(lr)
        check_positive(
            ("epsilon value", eps), ("momentum value", momentum), ("weight_decay value", weight_decay), ("alpha value", alpha)
        )
        defaults = {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered, "weight_decay": weight_decay,
            "capturable": capturable, "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def kept(self, group: ParameterGroup) -> dict[str, Kept]:
        """A count, the average of squared gradients, with momentum that of steps, and if centered that of gradients."""
        kept = {"step": COUNT, "square_avg": ZEROS}
        if group.live("momentum"):
            kept["momentum_buffer"] = ZEROS
        if group.live("centered"):
            kept["grad_avg"] = ZEROS
        return kept

    def rule(self, group: Mapping[str, Any], number: Number, p: Any, grad: Any, state: dict[str, Any]) -> Any:
        """p -= lr * grad / (sqrt(squares - average^2) + eps), or a moving sum of such steps."""
        dtype = p.dtype
        rise = (1 - number("alpha")).to(dtype)
        state["step"] = state["step"] + 1
        grad = _decayed(group, number, p, grad)
        squares = state["square_avg"] = state["square_avg"] * number("alpha").to(dtype) + grad * grad * rise
        if group["centered"]:
            average = state["grad_avg"] = state["grad_avg"] + (grad - state["grad_avg"]) * rise
            squares = squares - average * average
        change = grad / (squares.sqrt() + number("eps").to(dtype))
        if group["momentum"]:
            change = state["momentum_buffer"] = state["momentum_buffer"] * number("momentum").to(dtype) + change
        return p - change * number("lr").to(dtype)
