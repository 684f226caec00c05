"""`DataParallel`: a module over several GPUs; where there is none, the module itself.

Enters: a module.  Leaves: the same under the name ``module``.  Never here: copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.eager.devices import check_device
from graphc.nn.module import Module


class DataParallel(Module):
    """A module whose batch is split over GPUs.  There is none: calls go to `module`, and its names begin with ``module.``.

    Whatever `device_ids` says is passed over, as PyTorch does on a machine without GPUs.
    """

    def __init__(self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None, dim: int = 0) -> None:
        super().__init__()
        self.module = module
        self.device_ids: list[int] = []

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)


def data_parallel(
    module: Module,
    inputs: Any,
    device_ids: Sequence[Any] | None = None,
    output_device: Any = None,
    dim: int = 0,
    module_kwargs: dict[str, Any] | None = None,
) -> Any:
    """``module(*inputs, **module_kwargs)``.  Raises AssertionError for devices: there is no CUDA runtime."""
    if device_ids:
        check_device("cuda")
    return module(*(inputs if isinstance(inputs, tuple) else (inputs,)), **(module_kwargs or {}))


__all__ = ["DataParallel", "data_parallel"]
