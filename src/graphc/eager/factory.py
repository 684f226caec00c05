"""What all creation functions share: ``device=``, ``requires_grad=``, ``out=``, and errors that name the user's line.

Enters: functions that make tensors.  Leaves: the public functions.  Never here: elements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.dtypes import as_dtype
from graphc.eager.devices import check_device, check_layout
from graphc.eager.failures import ERRORS, located
from graphc.eager.memory import formatted
from graphc.eager.outputs import into
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line


def check_pinned(pin_memory: bool) -> None:
    """Raise RuntimeError where pinned memory is asked for."""
    if pin_memory:
        raise RuntimeError(at_user_line("pin_memory: pinned memory belongs to accelerators, and there is none"))


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
            if "input" in kwargs:
                args = (kwargs.pop("input"), *args)
            check_device(device)
            check_layout(layout)
            check_pinned(pin_memory)
            if kwargs.get("dtype") is not None:
                kwargs["dtype"] = as_dtype(kwargs["dtype"])
            if out is not None and kwargs.get("dtype") is None:
                kwargs["dtype"] = out.dtype
            x = make(*args, **kwargs)
            x = finished(x if memory_format is None else formatted(x, memory_format), requires_grad)
            return x if out is None else into(out, x, name)  # type: ignore[no-any-return]
        except ERRORS as error:
            located(error, name, (*args, *kwargs.values()))
            raise

    function.__name__ = function.__qualname__ = name
    function.__doc__ = make.__doc__
    return function
