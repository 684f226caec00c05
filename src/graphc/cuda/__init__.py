"""``torch.cuda`` on a machine without its runtime: questions are answered, what needs a device raises AssertionError.

Enters: nothing.  Leaves: answers.  Never here: a CUDA runtime (kernels render to CUDA C++, but nothing launches them yet).
"""

from __future__ import annotations

from typing import Any, NoReturn

from graphc.eager.conversions import CUDA_KINDS
from graphc.errors import at_user_line
from graphc.settings import OutOfMemoryError


def is_available() -> bool:
    """False."""
    return False


def is_initialized() -> bool:
    """False."""
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """False."""
    return False


def is_current_stream_capturing() -> bool:
    """False."""
    return False


def device_count() -> int:
    """0."""
    return 0


def get_arch_list() -> list[str]:
    """Nothing."""
    return []


def manual_seed(seed: int) -> None:
    """Nothing to seed: there is no device."""


def manual_seed_all(seed: int) -> None:
    """Nothing to seed: there is no device."""


def seed() -> None:
    """Nothing to seed: there is no device."""


def seed_all() -> None:
    """Nothing to seed: there is no device."""


def empty_cache() -> None:
    """Nothing to give back: no memory was taken."""


def memory_allocated(device: Any = None) -> int:
    """0."""
    return 0


max_memory_allocated = memory_reserved = max_memory_reserved = memory_allocated


def memory_stats(device: Any = None) -> dict[str, int]:
    """Nothing."""
    return {}


def reset_peak_memory_stats(device: Any = None) -> None:
    """Nothing to reset: no memory was taken."""


reset_max_memory_allocated = reset_accumulated_memory_stats = reset_peak_memory_stats


class device:
    """A context in which a device is the current one.  None and negative numbers are no device; any other raises AssertionError."""

    def __init__(self, device: Any) -> None:
        self.idx = -1 if device is None else device

    def __enter__(self) -> None:
        if not isinstance(self.idx, int) or self.idx >= 0:
            refuse("device")

    def __exit__(self, *_: object) -> None:
        return None


class stream:
    """A context in which a stream is the current one.  None is no stream; any other raises AssertionError."""

    def __init__(self, stream: Any) -> None:
        if stream is not None:
            refuse("stream")

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def refuse(name: str) -> NoReturn:
    """Raise the error of a call that needs a device."""
    raise AssertionError(at_user_line(f"cuda.{name}: graphc has no CUDA runtime"))


_NEED_A_DEVICE = (
    "Event", "Stream", "can_device_access_peer", "current_blas_handle", "current_device", "current_stream", "default_stream",
    "get_device_capability", "get_device_name", "get_device_properties", "get_rng_state", "get_rng_state_all", "init",
    "initial_seed", "ipc_collect", "mem_get_info", "memory_snapshot", "memory_summary", "set_device",
    "set_per_process_memory_fraction", "set_rng_state", "set_rng_state_all", "set_stream", "synchronize", "utilization",
)  # fmt: skip


def _refusing(name: str) -> Any:
    def call(*_: Any, **__: Any) -> NoReturn:
        refuse(name)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = "Raises AssertionError: there is no CUDA runtime."
    return call


globals().update({name: _refusing(name) for name in _NEED_A_DEVICE})
globals().update(CUDA_KINDS)

__all__ = [
    "OutOfMemoryError", "device", "device_count", "empty_cache", "get_arch_list", "is_available", "is_bf16_supported",
    "is_current_stream_capturing", "is_initialized", "manual_seed", "manual_seed_all", "max_memory_allocated",
    "max_memory_reserved", "memory_allocated", "memory_reserved", "memory_stats", "reset_accumulated_memory_stats",
    "reset_max_memory_allocated", "reset_peak_memory_stats", "seed", "seed_all", "stream",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "amp":
        import importlib

        return importlib.import_module("graphc.cuda.amp")
    raise AttributeError(f"module 'graphc.cuda' has no attribute {name!r}")
