"""`Adafactor`: Adam with the squares of a matrix's gradients kept as a row and a column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from graphc.dtypes import float64
from graphc.eager.creation import finfo
from graphc.eager.tensor import Tensor, wrap
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.optim.optimizer import ParameterGroup, step_dtype
from graphc.optim.rules import Numbers, WholeOptimizer


class Adafactor(WholeOptimizer):
    """Steps relative to the size of the parameter, clipped to a root mean square of `d`.

    Raises ValueError for hyperparameters out of range.
    Source: Shazeer and Stern 2018, Adafactor: adaptive learning rates with sublinear memory cost.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError(at_user_line("Tensor lr must be 1-element"))
        for name, value, fits in (
            ("Learning rate should be >= 0", lr, lr >= 0.0),
            ("beta2_decay should be <= 0", beta2_decay, beta2_decay <= 0.0),
            ("epsilon1 should be >= 0", eps[0], eps[0] is None or eps[0] >= 0.0),
            ("epsilon2 should be >= 0", eps[1], eps[1] >= 0.0),
            ("Clipping threshold d should be >= 1", d, d >= 1.0),
            ("weight_decay should be >= 0", weight_decay, weight_decay >= 0.0),
        ):
            if not fits:
                raise ValueError(at_user_line(f"{name} but is: {value}"))
        defaults = {
            "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def state_of(self, p: Any) -> dict[str, Any]:
        """The state of `p`, made where it is not there: a count and the squares of gradients, of a matrix as rows and columns."""
        state: dict[str, Any] = self.state[p]
        if not state:
            state["step"] = wrap(np.zeros((), step_dtype().numpy), step_dtype())
            shape = tuple(p.shape)
            shapes = {"variance": shape}
            if len(shape) > 1:
                shapes = {"row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, shape[-1])}
            state |= {name: wrap(np.zeros(of, p.dtype.numpy), p.dtype) for name, of in shapes.items()}
        return state

    def change(self, group: ParameterGroup, number: Numbers, p: Any, grad: Any) -> None:
        """The gradient over the root of the average of its squares, clipped, times lr and the size of `p`."""
        state, dtype = self.state_of(p), p.dtype.compute
        state["step"].add_(1)
        count = state["step"].to(float64)
        rise = (count ** number("beta2_decay")).to(dtype)
        rate = Op.table["minimum"](number("lr"), 1 / count.sqrt())
        value, grad = p.to(dtype), grad.to(dtype)
        if group["maximize"]:
            grad = -grad
        size = value.numel() ** 0.5
        step_size = (_norm(value) / size).to(float64).clamp(min=group["eps"][1]) * rate
        if group["weight_decay"]:
            value = value * (1 - number("lr") * number("weight_decay")).to(dtype)
        least = finfo(p.dtype).eps if group["eps"][0] is None else group["eps"][0]
        change = grad * _variance(state, grad, rise, least).clamp(min=least * least).rsqrt()
        clipped = (_norm(change) / (size * group["d"])).clamp(min=1.0).to(float64)
        p.copy_(value - change * (step_size / clipped).to(dtype))


def _norm(x: Any) -> Any:
    return (x * x).sum().sqrt()


def _variance(state: dict[str, Any], grad: Any, rise: Any, least: float) -> Any:
    """The average of squared gradients: kept whole, or the product of those of rows and columns."""
    if "variance" in state:
        found = state["variance"].to(grad.dtype)
        found = found + (grad * grad - found) * rise
        state["variance"].copy_(found)
        return found
    squares = grad * grad
    row, column = state["row_var"].to(grad.dtype), state["col_var"].to(grad.dtype)
    row = row + (squares.mean(-1, keepdim=True) - row) * rise
    column = column + (squares.mean(-2, keepdim=True) - column) * rise
    state["row_var"].copy_(row)
    state["col_var"].copy_(column)
    return row * column / row.mean(-2, keepdim=True).clamp(min=least)
