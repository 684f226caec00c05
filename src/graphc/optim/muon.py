"""`Muon`: momentum made orthogonal, for matrices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from graphc.dtypes import bfloat16
from graphc.eager.tensor import Tensor, wrap
from graphc.errors import at_user_line
from graphc.optim.optimizer import ParameterGroup
from graphc.optim.rules import Numbers, WholeOptimizer


class Muon(WholeOptimizer):
    """Steps along the nearest orthogonal matrix to the momentum, found by Newton-Schulz iterations in bfloat16, as PyTorch's.

    Raises ValueError for hyperparameters out of range and for parameters that are no matrices.
    Source: Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError(at_user_line("Tensor lr must be 1-element"))
        for name, value in (("Learning rate", lr), ("momentum", momentum), ("weight decay", weight_decay)):
            if not value >= 0.0:
                raise ValueError(at_user_line(f"{name} should be >= 0 but is: {value}"))
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(at_user_line(f"Adjust learning rate function {adjust_lr_fn} is not supported"))
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn,
        }  # fmt: skip
        super().__init__(params, defaults)
        for p in (p for group in self.param_groups for p in group["params"]):
            if p.ndim != 2:
                message = f"Muon only supports 2D parameters whereas we found a parameter with size: {p.shape}"
                raise ValueError(at_user_line(message))

    def change(self, group: ParameterGroup, number: Numbers, p: Any, grad: Any) -> None:
        """The average of gradients, made orthogonal, times lr.  Raises ValueError for 100 iterations or more."""
        state, dtype = self.state[p], p.dtype.compute
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = wrap(np.zeros(tuple(p.shape), p.dtype.numpy), p.dtype)
        grad, momentum = grad.to(dtype), number("momentum")
        buffer = state["momentum_buffer"].to(dtype)
        buffer = buffer + (grad - buffer) * (1 - momentum).to(dtype)
        state["momentum_buffer"].copy_(buffer)
        change = grad + (buffer - grad) * momentum.to(dtype) if group["nesterov"] else buffer
        change = orthogonalized(change, group["ns_coefficients"], group["ns_steps"], group["eps"]).to(dtype)
        rows, columns = p.shape
        scale = max(1.0, rows / columns) ** 0.5
        if group["adjust_lr_fn"] == "match_rms_adamw":
            scale = 0.2 * max(rows, columns) ** 0.5
        value = p.to(dtype) * (1 - number("lr") * number("weight_decay")).to(dtype)
        p.copy_(value - change * (number("lr") * scale).to(dtype))


def orthogonalized(x: Any, coefficients: tuple[float, float, float], steps: int, eps: float) -> Any:
    """About the nearest matrix to `x` with singular values of 1.  [m, n] -> [m, n] in bfloat16.

    Raises ValueError for 100 steps or more, and for other than three coefficients.
    """
    if steps >= 100:
        raise ValueError(at_user_line("Number of steps must be less than 100 for computational efficiency"))
    if len(coefficients) != 3:
        raise ValueError(at_user_line("Coefficients must be a tuple of exactly 3 values"))
    a, b, c = coefficients
    x = x.to(bfloat16)
    is_tall = x.shape[0] > x.shape[1]
    x = x.t() if is_tall else x
    x = x / (x * x).sum().sqrt().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.t()
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.t() if is_tall else x
