"""Settings of the whole process under PyTorch's names: threads, precision, determinism.

Enters: settings.  Leaves: settings.  Never here: anything that changes a result's bits.
"""

from __future__ import annotations

import types
from typing import Any

from graphc.eager.devices import device
from graphc.errors import OutOfMemoryError, at_user_line

_precision = ["highest"]


def get_num_threads() -> int:
    """How many threads run a parallel loop."""
    from graphc.runtime import threads  # when asked: what makes pools is long to import

    return threads.get_num_threads()


def set_num_threads(n: int) -> None:
    """Run parallel loops with `n` threads.  Raises TypeError, RuntimeError for what is no positive int."""
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(at_user_line(f"set_num_threads: expected an int, got {type(n).__name__}"))
    if n < 1:
        raise RuntimeError(at_user_line(f"set_num_threads: expected a positive number of threads, got {n}"))

    from graphc.runtime import threads

    threads.set_num_threads(n)


def get_num_interop_threads() -> int:
    """1: operators run one after another."""
    return 1


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` was given last."""
    return _precision[0]


def set_float32_matmul_precision(precision: str) -> None:
    """How little precision a matmul of float32 may have: all of it is kept, whatever is allowed.  Raises ValueError."""
    if precision not in ("highest", "high", "medium"):
        raise ValueError(at_user_line(f"set_float32_matmul_precision: expected 'highest', 'high' or 'medium', got {precision!r}"))
    _precision[0] = precision


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Nothing changes: every operator gives the same bits each time."""


def are_deterministic_algorithms_enabled() -> bool:
    """True: every operator gives the same bits each time."""
    return True


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """False: there is nothing to warn of."""
    return False


def set_flush_denormal(mode: bool) -> bool:
    """False: denormal numbers are never flushed, for that would change bits."""
    return False


# ---- devices ----------------------------------------------------------------------------------------------------------


def get_device_module(device_: Any = None, /, **named: Any) -> types.ModuleType:
    """``graphc.cpu``, ``graphc.cuda`` and so on.  Raises RuntimeError for a device without one."""
    import importlib

    kind = device(named.pop("device", device_) or "cpu").type
    if kind not in ("cpu", "cuda", "mps", "xpu"):
        raise RuntimeError(at_user_line(f"get_device_module: graphc has no module for device type '{kind}'"))
    return importlib.import_module(f"graphc.{kind}")


__all__ = [
    "OutOfMemoryError", "are_deterministic_algorithms_enabled", "get_device_module", "get_float32_matmul_precision",
    "get_num_interop_threads", "get_num_threads", "is_deterministic_algorithms_warn_only_enabled",
    "set_float32_matmul_precision", "set_flush_denormal", "set_num_threads", "use_deterministic_algorithms",
]  # fmt: skip
