"""PyTorch's names for ways of computing attention.

Enters: nothing.  Leaves: `SDPBackend`, `sdpa_kernel`.  Never here: attention (`functional`), `MultiheadAttention` (`multihead`).

`scaled_dot_product_attention` is one operator whose fused form the compiler chooses, so a choice made here is a hint that changes
nothing: the results are the same in every bit.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from enum import IntEnum

from graphc.errors import at_user_line

__all__ = ["SDPBackend", "sdpa_kernel"]


class SDPBackend(IntEnum):
    """Ways of computing `scaled_dot_product_attention` in PyTorch."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4

    def __str__(self) -> str:
        return f"SDPBackend.{self.name}"


_LISTED = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH, SDPBackend.CUDNN_ATTENTION)


class _Allowed(threading.local):
    backends: tuple[SDPBackend, ...] = _LISTED


_allowed = _Allowed()


def _cur_sdpa_kernel_backends(with_priority: bool = False) -> list[SDPBackend]:
    """The backends that the innermost `sdpa_kernel` allows; `with_priority`: in the order in which it named them."""
    named = list(_allowed.backends)
    return named if with_priority else [backend for backend in (*_LISTED, SDPBackend.OVERRIDEABLE) if backend in named]


@contextlib.contextmanager
def sdpa_kernel(backends: SDPBackend | Iterable[SDPBackend], set_priority: bool = False) -> Iterator[dict[str, object]]:
    """Name the backends that attention may use inside: a hint that changes nothing here.

    Raises AssertionError for what is neither a backend nor several.
    """
    if not isinstance(backends, SDPBackend | list | tuple | set):
        kind = type(backends).__name__
        shown = f"Backend must be an instance of SDPBackend or a list of SDPBackend instances, got {kind}"
        raise AssertionError(at_user_line(shown))
    named = (backends,) if isinstance(backends, SDPBackend) else tuple(dict.fromkeys(backends))
    before, _allowed.backends = _allowed.backends, named
    try:
        yield {}
    finally:
        _allowed.backends = before
