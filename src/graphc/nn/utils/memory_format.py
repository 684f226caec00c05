"""Weights of convolutions in another order of memory.

Enters: modules, memory formats.  Leaves: the same modules.  Never here: the orders.
"""

from __future__ import annotations

from typing import Any

from graphc.eager.memory import formatted
from graphc.nn.convolution import Conv2d, Conv3d, ConvTranspose2d, ConvTranspose3d


def _converted(module: Any, memory_format: Any, kinds: tuple[type[Any], ...]) -> Any:
    for one in module.modules():
        if isinstance(one, kinds):
            one.weight.data = formatted(one.weight.detach(), memory_format)
    return module


def convert_conv2d_weight_memory_format(module: Any, memory_format: Any) -> Any:
    """Put the weights of all 2-d convolutions into a memory format.  The module."""
    return _converted(module, memory_format, (Conv2d, ConvTranspose2d))


def convert_conv3d_weight_memory_format(module: Any, memory_format: Any) -> Any:
    """Put the weights of all 3-d convolutions into a memory format.  The module."""
    return _converted(module, memory_format, (Conv3d, ConvTranspose3d))


__all__ = ["convert_conv2d_weight_memory_format", "convert_conv3d_weight_memory_format"]
