"""The CPU as a device, under the names of ``torch.cpu``.

Enters: nothing.  Leaves: answers.  Never here: threads (`graphc.set_num_threads`).
"""

from __future__ import annotations

from typing import Any


def is_available() -> bool:
    """True."""
    return True


def is_initialized() -> bool:
    """True."""
    return True


def device_count() -> int:
    """1."""
    return 1


def current_device() -> str:
    """``cpu``."""
    return "cpu"


def synchronize(device: Any = None) -> None:
    """Nothing to wait for: an operator is done when its call returns."""


def __getattr__(name: str) -> Any:
    if name == "amp":
        import importlib

        return importlib.import_module("graphc.cpu.amp")
    raise AttributeError(f"module 'graphc.cpu' has no attribute {name!r}")
