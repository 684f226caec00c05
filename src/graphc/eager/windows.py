"""Windows for spectra: hann, hamming, blackman, bartlett, kaiser.

Enters: lengths and the parameters of a window.  Leaves: tensors.  Never here: transforms (`graphc.ops.spectra`).
"""

from __future__ import annotations

import math
from typing import Any

from graphc.dtypes import DType, float64, get_default_dtype
from graphc.eager.factory import creation
from graphc.eager.tensor import Tensor
from graphc.ir.op import Op
from graphc.ops.arguments import cast, one_size


def _angles(name: str, window_length: Any, periodic: bool, dtype: DType | None) -> tuple[Any, DType]:
    """Angles from 0 to 2 pi in float64: of a periodic window the last of one more is left out.

    Raises TypeError for a length that is no int, RuntimeError for a negative one and for a dtype that is not floating.
    """
    length = one_size(name, "window_length", window_length)
    if not isinstance(length, int) or length < 0:
        raise RuntimeError(f"{name}: requires a non-negative window_length, got {length}")
    dtype = get_default_dtype() if dtype is None else dtype
    if dtype.kind != "f":
        raise RuntimeError(f"{name}: expects a floating point dtype, got {dtype}")
    step = 2 * math.pi / max(length - (0 if periodic else 1), 1)
    return Op.table["mul"](Op.table["arange"](length, dtype=float64), step), dtype


def _cosines(angles: Any, *factors: float) -> Any:
    """The sum of (-1)^k factor_k cos(k angle)."""
    result: Any = Op.table["full_like"](angles, factors[0])
    for k, factor in enumerate(factors[1:], 1):
        result = result + Op.table["cos"](angles * k) * (factor if k % 2 == 0 else -factor)
    return result


def _given(window: Any, dtype: DType) -> Tensor:
    """A window as a tensor of its dtype; that of one element is 1."""
    if window.shape[0] == 1:
        window = Op.table["full_like"](window, 1.0)
    return cast(window, dtype)  # type: ignore[no-any-return]


@creation
def hann_window(window_length: Any, periodic: bool = True, *, dtype: DType | None = None) -> Tensor:
    """(1 - cos) / 2 over a period.  () -> [window_length].

    Raises RuntimeError for a negative length and for a dtype that is not floating.
    """
    angles, dtype = _angles("hann_window", window_length, periodic, dtype)
    return _given(_cosines(angles, 0.5, 0.5), dtype)


@creation
def hamming_window(
    window_length: Any, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *, dtype: DType | None = None
) -> Tensor:
    """alpha - beta cos over a period.  () -> [window_length].  Raises as `hann_window`."""
    angles, dtype = _angles("hamming_window", window_length, periodic, dtype)
    return _given(_cosines(angles, alpha, beta), dtype)


@creation
def blackman_window(window_length: Any, periodic: bool = True, *, dtype: DType | None = None) -> Tensor:
    """0.42 - 0.5 cos + 0.08 cos of twice the angle.  () -> [window_length].  Raises as `hann_window`."""
    angles, dtype = _angles("blackman_window", window_length, periodic, dtype)
    return _given(_cosines(angles, 0.42, 0.5, 0.08), dtype)


@creation
def bartlett_window(window_length: Any, periodic: bool = True, *, dtype: DType | None = None) -> Tensor:
    """From 0 up to 1 and down again in straight lines.  () -> [window_length].  Raises as `hann_window`."""
    angles, dtype = _angles("bartlett_window", window_length, periodic, dtype)
    return _given(1.0 - Op.table["abs"](angles * (1 / math.pi) - 1.0), dtype)


@creation
def kaiser_window(window_length: Any, periodic: bool = True, beta: float = 12.0, *, dtype: DType | None = None) -> Tensor:
    """I0(beta sqrt(1 - x^2)) / I0(beta) for x from -1 to 1.  () -> [window_length].  Raises as `hann_window`."""
    angles, dtype = _angles("kaiser_window", window_length, periodic, dtype)
    x = angles * (1 / math.pi) - 1.0
    inside = Op.table["sqrt"](Op.table["clamp"](1.0 - x * x, min=0.0)) * beta
    i0 = Op.table["i0"]
    return _given(i0(inside) / i0(Op.table["full_like"](angles, beta)), dtype)
