"""``torch.backends.cuda`` without CUDA: its settings can be set and read, and change nothing.

`scaled_dot_product_attention` has one way, the one called math; nothing else is enabled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

matmul = SimpleNamespace(
    allow_tf32=False, allow_fp16_reduced_precision_reduction=True, allow_bf16_reduced_precision_reduction=True,
    allow_fp16_accumulation=False, fp32_precision="none",
)  # fmt: skip


def is_built() -> bool:
    """False."""
    return False


def math_sdp_enabled() -> bool:
    """True: it is the only way."""
    return True


def flash_sdp_enabled() -> bool:
    """False."""
    return False


def mem_efficient_sdp_enabled() -> bool:
    """False."""
    return False


def cudnn_sdp_enabled() -> bool:
    """False."""
    return False


def enable_math_sdp(enabled: bool) -> None:
    """Raises RuntimeError if it is to be disabled: it is the only way."""
    if not enabled:
        raise RuntimeError("enable_math_sdp: scaled_dot_product_attention has no other way")


def enable_flash_sdp(enabled: bool) -> None:
    """Nothing changes: there is no such way to enable."""


enable_mem_efficient_sdp = enable_cudnn_sdp = enable_flash_sdp


@contextlib.contextmanager
def sdp_kernel(
    enable_flash: bool = True, enable_math: bool = True, enable_mem_efficient: bool = True, enable_cudnn: bool = True
) -> Iterator[None]:
    """Nothing changes inside.  Raises RuntimeError if the way called math is disabled: it is the only one."""
    enable_math_sdp(enable_math)
    yield
