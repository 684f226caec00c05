"""Parameters of distributions: broadcast, and probabilities and logits made of each other.

Enters: numbers and tensors.  Leaves: tensors.  Never here: a distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from numbers import Number
from typing import Any

from graphc.dtypes import DType, get_default_dtype
from graphc.eager.creation import as_tensor, finfo, full
from graphc.eager.modes import enable_grad, modes
from graphc.eager.tensor import Size, Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op


def op(name: str) -> Any:
    """An operator by name."""
    return Op.table[name]


def broadcast_all(*values: Any) -> tuple[Any, ...]:
    """Numbers and tensors as tensors of one shape; numbers get the dtype of the first tensor, or the default one.

    Raises ValueError for anything else.
    """
    if not all(isinstance(value, Tensor | Number) for value in values):
        message = "Input arguments must all be instances of Number, graphc.Tensor or objects implementing __torch_function__."
        raise ValueError(at_user_line(message))
    dtype = next((value.dtype for value in values if isinstance(value, Tensor)), get_default_dtype())
    tensors = [value if isinstance(value, Tensor) else as_tensor(value, dtype=dtype) for value in values]  # type: ignore[arg-type]
    return tuple(op("broadcast_tensors")(*tensors))


def scalar_shape(*values: Any) -> bool:
    """Whether all parameters are numbers, so that a distribution is a single one."""
    return all(isinstance(value, Number) for value in values)


def one_of(probs: Any, logits: Any) -> tuple[str, Any]:
    """The name of the parameter that is given, and it.  Raises ValueError unless it is exactly one."""
    if (probs is None) == (logits is None):
        raise ValueError(at_user_line("Either `probs` or `logits` must be specified, but not both."))
    return ("logits", logits) if probs is None else ("probs", probs)


def elements_known() -> bool:
    """Whether elements can be looked at: not while code is traced."""
    return modes.tracer is None


def logits_to_probs(logits: Any, is_binary: bool = False) -> Any:
    """Probabilities of log odds (binary) or of unnormalised logarithms along the last dim."""
    return logits.sigmoid() if is_binary else logits.softmax(-1)


def clamp_probs(probs: Any) -> Any:
    """Probabilities kept off 0 and 1 by the dtype's epsilon."""
    eps = finfo(probs.dtype).eps
    return probs.clamp(eps, 1 - eps)


def probs_to_logits(probs: Any, is_binary: bool = False) -> Any:
    """Log odds (binary) or logarithms of probabilities, which are kept off 0 and 1."""
    clamped = clamp_probs(probs)
    return clamped.log() - (-clamped).log1p() if is_binary else clamped.log()


def sum_rightmost(value: Any, dims: int) -> Any:
    """The sum over the last `dims` dims."""
    if not dims:
        return value
    return value.sum(tuple(range(-dims, 0))) if value.ndim >= dims else value.sum()


def filled(shape: Any, value: float, dtype: DType) -> Any:
    """A tensor of one number."""
    return full(tuple(shape), value, dtype=dtype)


class lazy_property:
    """An attribute computed when it is first read, with gradients, and kept."""

    def __init__(self, wrapped: Callable[[Any], Any]) -> None:
        self.wrapped = wrapped
        update_wrapper(self, wrapped)  # type: ignore[arg-type]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        with enable_grad():
            value = self.wrapped(instance)
        if modes.tracer is None:  # what is traced would outlive its trace
            setattr(instance, self.wrapped.__name__, value)
        return value


__all__ = [
    "Size", "broadcast_all", "clamp_probs", "elements_known", "filled", "lazy_property", "logits_to_probs", "one_of", "op",
    "probs_to_logits", "scalar_shape", "sum_rightmost",
]  # fmt: skip
