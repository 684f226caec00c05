"""`Rprop`: steps of sizes that only the signs of gradients change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.optim.optimizer import ParameterGroup
from graphc.optim.rules import COUNT, ZEROS, Kept, Number, RuleOptimizer, check_rate


class Rprop(RuleOptimizer):
    """Every element has a step size: it grows while its gradient keeps its sign and shrinks when that changes.

    Raises ValueError for hyperparameters out of range.
    Source: Riedmiller and Braun 1993, A direct adaptive method for faster backpropagation learning: the RPROP algorithm.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_rate(lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(at_user_line(f"Invalid eta values: {etas[0]}, {etas[1]}"))
        defaults = {
            "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def kept(self, group: ParameterGroup) -> dict[str, Kept]:
        """A count, the last gradient, and the step sizes, at first the learning rate."""
        return {"step": COUNT, "prev": ZEROS, "step_size": Kept(value=float(group.live("lr")))}

    def rule(self, group: Mapping[str, Any], number: Number, p: Any, grad: Any, state: dict[str, Any]) -> Any:
        """p -= sign(grad) * size, but where the sign has just changed."""
        dtype, where, maximum, minimum = p.dtype, Op.table["where"], Op.table["maximum"], Op.table["minimum"]
        state["step"] = state["step"] + 1
        agree = grad * state["prev"]
        factor = where(agree < 0, number("etas", 0).to(dtype), where(agree > 0, number("etas", 1).to(dtype), agree * 0 + 1))
        size = maximum(state["step_size"] * factor, number("step_sizes", 0).to(dtype))
        size = state["step_size"] = minimum(size, number("step_sizes", 1).to(dtype))
        grad = state["prev"] = where(agree < 0, 0.0, grad)
        return p - grad.sign() * size
