"""What public programs call of PyTorch's C++ module.  Never here: anything else of it."""

from __future__ import annotations

from graphc.namespace import Generator, Size, device, dtype


def _log_api_usage_once(event: str) -> None:
    """Nothing is logged."""


def _get_tracing_state() -> None:
    """None: no script is being traced."""


__all__ = ["Generator", "Size", "device", "dtype"]
