"""The ``fft`` extension of the array API standard.

Enters: arrays.  Leaves: arrays.  Never here: what an operator computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphc
import graphc.fft as _fft
from graphc import Tensor
from graphc.dtypes import DType


def _of_axis(name: str) -> Callable[..., Tensor]:
    def transform(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
        return getattr(_fft, name)(x, n=n, dim=axis, norm=norm)  # type: ignore[no-any-return]

    return _named(transform, name)


def _of_axes(name: str) -> Callable[..., Tensor]:
    def transform(x: Tensor, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Tensor:
        return getattr(_fft, name)(x, s=s, dim=axes, norm=norm)  # type: ignore[no-any-return]

    return _named(transform, name)


def _named(transform: Any, name: str) -> Any:
    transform.__name__ = transform.__qualname__ = name
    transform.__doc__ = f"`graphc.fft.{name}`."
    return transform


fft, ifft, rfft, irfft, hfft, ihfft = map(_of_axis, ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft"))
fftn, ifftn, rfftn, irfftn = map(_of_axes, ("fftn", "ifftn", "rfftn", "irfftn"))


def fftfreq(n: int, /, *, d: float = 1.0, dtype: DType | None = None, device: Any = None) -> Tensor:
    """The frequencies of a transform of n elements with spacing d."""
    graphc.get_device_module(device)
    return _fft.fftfreq(n, d, dtype=dtype)  # type: ignore[attr-defined,no-any-return]


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: DType | None = None, device: Any = None) -> Tensor:
    """The frequencies of a transform of n real elements with spacing d."""
    graphc.get_device_module(device)
    return _fft.rfftfreq(n, d, dtype=dtype)  # type: ignore[attr-defined,no-any-return]


def fftshift(x: Tensor, /, *, axes: int | tuple[int, ...] | None = None) -> Tensor:
    """Frequency 0 moved to the middle."""
    return _fft.fftshift(x, axes)  # type: ignore[attr-defined,no-any-return]


def ifftshift(x: Tensor, /, *, axes: int | tuple[int, ...] | None = None) -> Tensor:
    """`fftshift` undone."""
    return _fft.ifftshift(x, axes)  # type: ignore[attr-defined,no-any-return]


__all__ = [
    "fft", "fftfreq", "fftn", "fftshift", "hfft", "ifft", "ifftn", "ifftshift", "ihfft", "irfft", "irfftn", "rfft", "rfftfreq",
    "rfftn",
]  # fmt: skip
