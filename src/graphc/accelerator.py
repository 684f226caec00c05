"""``torch.accelerator`` on a machine without one.

Enters: nothing.  Leaves: answers.  Never here: a runtime.
"""

from __future__ import annotations

from typing import Any, NoReturn

from graphc.errors import at_user_line


def is_available() -> bool:
    """False."""
    return False


def current_accelerator(check_available: bool = False) -> None:
    """None: there is no accelerator."""


def device_count() -> int:
    """0."""
    return 0


def _refuse(name: str) -> NoReturn:
    raise RuntimeError(at_user_line(f"accelerator.{name}: there is no accelerator"))


def current_device_index() -> NoReturn:
    """Raises RuntimeError: there is no accelerator."""
    _refuse("current_device_index")


def set_device_index(device: Any) -> NoReturn:
    """Raises RuntimeError: there is no accelerator."""
    _refuse("set_device_index")


def synchronize(device: Any = None) -> NoReturn:
    """Raises RuntimeError: there is no accelerator."""
    _refuse("synchronize")
