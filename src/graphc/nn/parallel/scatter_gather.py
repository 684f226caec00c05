"""Splitting arguments over devices and putting results together: there are no devices to do it on.

Enters: nested tensors, devices.  Leaves: nothing but errors, and arguments for no device.  Never here: copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from graphc.eager.devices import check_device, device
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.trees import flatten


def scatter(inputs: Any, target_gpus: Sequence[Any], dim: int = 0) -> list[Any]:
    """Split the tensors in `inputs` over devices along `dim`.  What holds no tensor is repeated for each device.

    Raises AssertionError where there is a tensor and a device to put it on: there is no CUDA runtime.
    """
    if target_gpus and flatten(inputs, lambda x: isinstance(x, Tensor))[0]:
        check_device(device("cuda"))
    return [inputs for _ in target_gpus]


def scatter_kwargs(inputs: Any, kwargs: dict[str, Any] | None, target_gpus: Sequence[Any], dim: int = 0) -> tuple[Any, Any]:
    """`scatter` of positional and of keyword arguments."""
    return tuple(scatter(inputs, target_gpus, dim)), tuple(scatter(kwargs or {}, target_gpus, dim))


def gather(outputs: Any, target_device: Any, dim: int = 0) -> NoReturn:
    """Put tensors of several devices together.  Raises AssertionError: those of a CPU are not gathered."""
    raise AssertionError(at_user_line("Gather function not implemented for CPU tensors"))


__all__ = ["gather", "scatter", "scatter_kwargs"]
