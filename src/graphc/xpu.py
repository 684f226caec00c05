"""``torch.xpu`` on a machine without its runtime.

Enters: nothing.  Leaves: answers.  Never here: a runtime.
"""

from __future__ import annotations

from typing import NoReturn

from graphc.errors import at_user_line


def is_available() -> bool:
    """False."""
    return False


def device_count() -> int:
    """0."""
    return 0


def manual_seed(seed: int) -> None:
    """Nothing to seed: there is no device."""


def empty_cache() -> None:
    """Nothing to give back: no memory was taken."""


def synchronize() -> NoReturn:
    """Raises RuntimeError: there is no XPU runtime."""
    raise RuntimeError(at_user_line("xpu.synchronize: graphc has no XPU runtime"))
