"""Pooling layers.

Enters: window sizes.  Leaves: modules with PyTorch's names and defaults.  Never here: what an operator computes.
"""

from __future__ import annotations

from typing import Any

from graphc.nn import functional as F
from graphc.nn.convolution import Sizes, each_dim
from graphc.nn.module import Module


class _MaxPool(Module):
    _dims = 0

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride if stride is not None else kernel_size
        self.padding, self.dilation, self.return_indices, self.ceil_mode = padding, dilation, return_indices, ceil_mode

    def forward(self, input: Any) -> Any:
        pool = getattr(F, f"max_pool{self._dims}d")
        return pool(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """Largest elements of windows.  [N, C, L] -> [N, C, L'], and where they are with return_indices."""

    _dims = 1


class MaxPool2d(_MaxPool):
    """Largest elements of windows.  [N, C, H, W] -> [N, C, H', W'], and where they are with return_indices."""

    _dims = 2


class MaxPool3d(_MaxPool):
    """Largest elements of windows.  [N, C, D, H, W] -> [N, C, D', H', W'], and where they are with return_indices."""

    _dims = 3


class _MaxUnpool(Module):
    _dims = 0

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> None:
        super().__init__()
        self.kernel_size = each_dim(kernel_size, self._dims)
        self.stride = each_dim(stride if stride is not None else kernel_size, self._dims)
        self.padding = each_dim(padding, self._dims)

    def forward(self, input: Any, indices: Any, output_size: Any = None) -> Any:
        unpool = getattr(F, f"max_unpool{self._dims}d")
        return unpool(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """What MaxPool1d left, put back among zeros.  [N, C, L], indices -> [N, C, L']."""

    _dims = 1


class MaxUnpool2d(_MaxUnpool):
    """What MaxPool2d left, put back among zeros.  [N, C, H, W], indices -> [N, C, H', W']."""

    _dims = 2


class MaxUnpool3d(_MaxUnpool):
    """What MaxPool3d left, put back among zeros.  [N, C, D, H, W], indices -> [N, C, D', H', W']."""

    _dims = 3


class AvgPool1d(Module):
    """Means of windows.  [N, C, L] -> [N, C, L']."""

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = each_dim(kernel_size, 1), each_dim(stride if stride is not None else kernel_size, 1)
        self.padding, self.ceil_mode, self.count_include_pad = each_dim(padding, 1), ceil_mode, count_include_pad

    def forward(self, input: Any) -> Any:
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Module):
    _dims = 0

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride if stride is not None else kernel_size
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, input: Any) -> Any:
        pool = getattr(F, f"avg_pool{self._dims}d")
        how = (self.ceil_mode, self.count_include_pad, self.divisor_override)
        return pool(input, self.kernel_size, self.stride, self.padding, *how)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPool):
    """Means of windows.  [N, C, H, W] -> [N, C, H', W']."""

    _dims = 2


class AvgPool3d(_AvgPool):
    """Means of windows.  [N, C, D, H, W] -> [N, C, D', H', W']."""

    _dims = 3


class _LPPool(Module):
    _dims = 0

    def __init__(self, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm_type, self.kernel_size, self.stride, self.ceil_mode = norm_type, kernel_size, stride, ceil_mode

    def forward(self, input: Any) -> Any:
        pool = getattr(F, f"lp_pool{self._dims}d")
        return pool(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, ceil_mode={self.ceil_mode}"


class LPPool1d(_LPPool):
    """Power sums of windows, to the power 1 / norm_type.  [N, C, L] -> [N, C, L']."""

    _dims = 1


class LPPool2d(_LPPool):
    """Power sums of windows, to the power 1 / norm_type.  [N, C, H, W] -> [N, C, H', W']."""

    _dims = 2


class LPPool3d(_LPPool):
    """Power sums of windows, to the power 1 / norm_type.  [N, C, D, H, W] -> [N, C, D', H', W']."""

    _dims = 3


class _AdaptiveAvgPool(Module):
    _dims = 0

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Any) -> Any:
        pool = getattr(F, f"adaptive_avg_pool{self._dims}d")
        return pool(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Means of windows that share a dim out among output_size places.  [N, C, L] -> [N, C, L']."""

    _dims = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Means of windows that share two dims out among output_size places; None keeps a dim.  [N, C, H, W] -> [N, C, H', W']."""

    _dims = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Means of windows that share three dims out among output_size places.  [N, C, D, H, W] -> [N, C, D', H', W']."""

    _dims = 3


class _AdaptiveMaxPool(Module):
    _dims = 0

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size, self.return_indices = output_size, return_indices

    def forward(self, input: Any) -> Any:
        pool = getattr(F, f"adaptive_max_pool{self._dims}d")
        return pool(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Largest elements of windows that share a dim out among output_size places.  [N, C, L] -> [N, C, L']."""

    _dims = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Largest elements of windows that share two dims out among output_size places.  [N, C, H, W] -> [N, C, H', W']."""

    _dims = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """Largest elements of windows that share three dims out among output_size places.  [N, C, D, H, W] -> [N, C, D', H', W']."""

    _dims = 3
