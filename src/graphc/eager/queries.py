"""Questions about tensors and dtypes, as functions.

Enters: tensors, dtypes, numbers.  Leaves: answers.  Never here: elements computed from elements.
"""

from __future__ import annotations

from typing import Any

from graphc import dtypes
from graphc.dtypes import DType
from graphc.eager.creation import as_tensor
from graphc.eager.failures import guarded
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line


def is_tensor(obj: object, /) -> bool:
    """Whether `obj` is a Tensor."""
    return isinstance(obj, Tensor)


@guarded
def is_floating_point(input: Tensor) -> bool:
    """Whether a tensor's dtype is floating."""
    return input.dtype.kind == "f"


@guarded
def is_complex(input: Tensor) -> bool:
    """Whether a tensor's dtype is complex."""
    return input.dtype.kind == "c"


def is_conj(input: Tensor) -> bool:
    """False: conjugates are computed, never pending."""
    return False


def is_neg(input: Tensor) -> bool:
    """False: negations are computed, never pending."""
    return False


@guarded
def is_signed(input: Tensor) -> bool:
    """Whether a tensor's dtype has negative numbers."""
    return input.dtype.is_signed


@guarded
def is_nonzero(input: Tensor) -> bool:
    """`bool` of a tensor of one element.  Raises RuntimeError for more or fewer elements."""
    return bool(input)


@guarded
def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have one shape."""
    return tuple(input.shape) == tuple(other.shape)


@guarded
def numel(input: Tensor) -> Any:
    """How many elements a tensor has."""
    return input.numel()


def is_inference(input: Tensor) -> bool:
    """False: inference mode leaves no mark on tensors."""
    return False


def result_type(tensor1: Any, tensor2: Any) -> DType:
    """The dtype that arithmetic on two tensors or numbers gives."""
    groups: tuple[list[DType], list[DType], list[Any]] = ([], [], [])
    for x in (tensor1, tensor2):
        if isinstance(x, Tensor):
            groups[0 if x.ndim else 1].append(x.dtype)
        elif isinstance(x, bool | int | float | complex):
            groups[2].append(x)
        else:
            raise TypeError(at_user_line(f"result_type: expected tensors or numbers, got {type(x).__name__}"))
    return dtypes.result_type(*groups)


def _assert(condition: Any, message: str) -> None:
    """Raises AssertionError with the message where the condition (a tensor of one element or a bool) is false."""
    if not condition:
        raise AssertionError(message)


def _assert_async(condition: Any, message: str = "") -> None:
    """Raises RuntimeError where the condition (a tensor of one element) is false: at once, there is no queue."""
    if not condition:
        raise RuntimeError(at_user_line(message or "Expected Tensor with single nonzero value, but got zero"))


def _check_with(error: type[Exception]) -> Any:
    def check(cond: Any, message: Any = None) -> None:
        """Raises where `cond` is false; `message` is a function of none."""
        if not cond:
            raise error(at_user_line(message() if callable(message) else "Expected cond to be True, but got False."))

    return check


_check, _check_index = _check_with(RuntimeError), _check_with(IndexError)
_check_value, _check_type = _check_with(ValueError), _check_with(TypeError)


def _shape_as_tensor(input: Tensor) -> Tensor:
    """The sizes as an int64 tensor.  [...] -> [number of dims]."""
    return as_tensor(list(input.shape), dtype=dtypes.int64)


Tensor.is_inference = is_inference  # type: ignore[attr-defined]
