"""Copies of a module on several devices: there are none to put them on.

Enters: a module, devices.  Leaves: errors.  Never here: copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import at_user_line
from graphc.nn.module import Module


def replicate(network: Module, devices: Sequence[Any], detach: bool = False) -> list[Module]:
    """One copy of `network` for each device.  Raises AssertionError where it holds a tensor: those of a CPU are not broadcast."""
    if any(True for _ in (*network.parameters(), *network.buffers())):
        raise AssertionError(at_user_line("Broadcast function not implemented for CPU tensors"))
    return [network._replicate_for_data_parallel() for _ in devices]


__all__ = ["replicate"]
