"""Clipping of gradients in place: PyTorch's ``nn.utils``.

Enters: parameters with gradients.  Leaves: the same gradients, smaller.  All in public operators, so it traces; eager norms and
products of all gradients are a call each (`graphc.sweeps`).
"""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from graphc.eager.creation import tensor
from graphc.eager.modes import no_grad
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.ops.distances import vector_norm
from graphc.ops.joining import stack

Parameters = Tensor | Iterable[Tensor]


def _gradients(parameters: Any) -> list[Any]:
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    listed = list(parameters)
    if not listed and isinstance(parameters, types.GeneratorType):
        warnings.warn("`parameters` is an empty generator: no gradient is clipped", stacklevel=3)
    return [p.grad for p in listed if p.grad is not None]


@no_grad()
def get_total_norm(
    tensors: Parameters, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Any:
    """The norm of all tensors seen as one vector, from the norms of each.  [...] each -> [].

    foreach: accepted.  Raises RuntimeError for one that is not finite, if asked to.
    """
    listed = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not listed:
        return tensor(0.0)
    total = vector_norm(_norms(listed, float(norm_type)), float(norm_type))
    if error_if_nonfinite and not math.isfinite(total.item()):
        text = f"The total norm of order {float(norm_type)} for gradients is non-finite ({total.item()}), so it cannot be clipped"
        raise RuntimeError(at_user_line(text))
    return total


@no_grad()
def clip_grads_with_norm_(parameters: Parameters, max_norm: float, total_norm: Any, foreach: bool | None = None) -> None:
    """Scale all gradients by ``max_norm / total_norm``, where that is less than 1."""
    _scale(_gradients(parameters), max_norm, total_norm)


def _norms(tensors: list[Any], norm_type: float) -> Any:
    """The norm of each tensor, in a row; in one call where that is possible."""
    from graphc import sweeps

    if not sweeps.fits(tensors):
        return stack([vector_norm(x, norm_type) for x in tensors])
    norms = Op.table["zeros"](len(tensors), dtype=tensors[0].dtype)

    def norm(_: Any, pair: Sequence[Any]) -> None:
        pair[1].copy_(vector_norm(pair[0], norm_type))

    sweeps.run_over(("norm", norm_type), norm, tensors, norms)
    return norms


def _multiply(number: Any, factors: Sequence[Any]) -> None:
    factors[0].copy_(factors[0] * number("factor").to(factors[0].dtype))


def _scale(gradients: list[Any], max_norm: float, total: Any) -> None:
    from graphc import sweeps

    if gradients:
        factor = (float(max_norm) / (total + 1e-6)).clamp(max=1.0)
        if sweeps.fits([*gradients, factor]):
            sweeps.run_over(("scale",), _multiply, gradients, None, factor=float(factor))
            return
        for gradient in gradients:
            gradient.mul_(factor)


@no_grad()
def clip_grad_norm_(
    parameters: Parameters,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Any:
    """Scale all gradients so that their norm together is at most `max_norm`.  Gives the norm before.  foreach: accepted.

    Raises RuntimeError for a norm that is not finite, if asked to.
    """
    gradients = _gradients(parameters)
    total = get_total_norm(gradients, norm_type, error_if_nonfinite)
    _scale(gradients, max_norm, total)
    return total


def clip_grad_norm(
    parameters: Parameters,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Any:
    """Deprecated: `clip_grad_norm_`."""
    text = "`nn.utils.clip_grad_norm` is now deprecated in favor of `nn.utils.clip_grad_norm_`."
    warnings.warn(text, FutureWarning, stacklevel=2)
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)


@no_grad()
def clip_grad_value_(parameters: Parameters, clip_value: float, foreach: bool | None = None) -> None:
    """Clamp every element of every gradient to ±`clip_value`.  foreach: accepted."""
    for gradient in _gradients(parameters):
        gradient.clamp_(min=-float(clip_value), max=float(clip_value))
