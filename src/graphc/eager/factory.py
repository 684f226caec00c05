"""What all creation functions share: ``device=``, ``requires_grad=``, ``out=``, and errors that name the user's line.

Enters: functions that make tensors.  Leaves: the public functions.  Never here: elements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.eager.dispatch import located
from graphc.eager.methods import ERRORS
from graphc.eager.tensor import Tensor
from graphc.eager.tensor import device as Device


def check_device(device: Any) -> None:
    """Raise RuntimeError for a device other than the CPU."""
    if device is not None and not isinstance(device, Device):
        Device(device)


def finished(x: Tensor, requires_grad: bool) -> Tensor:
    """x, requiring grad if asked to."""
    return x.requires_grad_() if requires_grad else x


def creation(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`make` with ``device=``, ``requires_grad=``, ``out=`` and errors that name the user's line."""
    name = make.__name__.strip("_")

    def function(
        *args: Any, device: Any = None, requires_grad: bool = False, out: Tensor | None = None, pin_memory: bool = False,
        layout: Any = None, memory_format: Any = None, **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        try:
            check_device(device)
            x = finished(make(*args, **kwargs), requires_grad)
            return x if out is None else out.copy_(x)  # type: ignore[attr-defined]
        except ERRORS as error:
            located(error, name)
            raise

    function.__name__ = function.__qualname__ = name
    function.__doc__ = make.__doc__
    return function
