"""Clipping of gradients in place: PyTorch's ``nn.utils``.

Enters: parameters with gradients.  Leaves: the same gradients, smaller.  All in public operators, so it traces.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from graphc.eager.creation import tensor
from graphc.eager.modes import no_grad
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op


def _gradients(parameters: Any) -> list[Any]:
    listed: Iterable[Tensor] = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p.grad for p in listed if p.grad is not None]


def _norm(x: Any, norm_type: float) -> Any:
    if norm_type == math.inf:
        return x.abs().max()
    if norm_type == 2.0:
        return (x * x).sum().sqrt()
    return (x.abs() ** norm_type).sum() ** (1.0 / norm_type)


@no_grad()
def get_total_norm(tensors: Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Any:
    """The norm of all tensors seen as one vector, from the norms of each.  [...] each -> [].

    Raises RuntimeError for one that is not finite, if asked to.
    """
    norms = [_norm(x, float(norm_type)) for x in tensors]
    if not norms:
        return tensor(0.0)
    total = _norm(Op.table["stack"](norms), float(norm_type))
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            at_user_line(f"The total norm of order {norm_type} for gradients is {total.item()}, so it cannot be clipped")
        )
    return total


@no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Any:
    """Scale all gradients so that their norm together is at most `max_norm`.  Gives the norm before."""
    gradients = _gradients(parameters)
    total = get_total_norm(gradients, norm_type, error_if_nonfinite)
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)
    return total


@no_grad()
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clamp every element of every gradient to ±`clip_value`."""
    for gradient in _gradients(parameters):
        gradient.copy_(gradient.clamp(min=-clip_value, max=clip_value))
