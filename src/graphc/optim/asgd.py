"""`ASGD`: gradient descent that keeps the average of its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphc.dtypes import float64
from graphc.ir.op import Op
from graphc.optim.optimizer import ParameterGroup
from graphc.optim.rules import COUNT, ZEROS, Kept, Number, RuleOptimizer, check_positive, check_rate


class ASGD(RuleOptimizer):
    """Averaged gradient descent: from step `t0` on, ``state[p]["ax"]`` is the average of the parameters.

    Raises ValueError for a negative rate or weight decay.
    Source: Polyak and Juditsky 1992, Acceleration of stochastic approximation by averaging.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_rate(lr)
        check_positive(("weight_decay value", weight_decay))
        defaults = {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def kept(self, group: ParameterGroup) -> dict[str, Kept]:
        """A count, the rate and the weight of the average at the next step, and the average."""
        rate = Kept(whole=False, value=float(group.live("lr")))
        return {"step": COUNT, "eta": rate, "mu": Kept(whole=False, value=1.0), "ax": ZEROS}

    def rule(self, group: Mapping[str, Any], number: Number, p: Any, grad: Any, state: dict[str, Any]) -> Any:
        """p = p * (1 - lambd * eta) - eta * grad;  ax += (p - ax) * mu."""
        dtype, kind = p.dtype, state["eta"].dtype
        eta, mu, lr, fall = state["eta"].to(float64), state["mu"].to(dtype), number("lr"), number("lambd")
        state["step"] = state["step"] + 1
        count = state["step"].to(float64)
        if group["weight_decay"]:
            grad = grad + p * number("weight_decay").to(dtype)
        p = p * (1 - fall * eta).to(dtype) - grad * eta.to(dtype)
        state["ax"] = Op.table["where"](mu == 1, p, state["ax"] + (p - state["ax"]) * mu)
        state["eta"] = (lr / (1 + fall * lr * count) ** number("alpha")).to(kind)
        state["mu"] = (1 / (count - number("t0")).clamp(min=1.0)).to(kind)
        return p
