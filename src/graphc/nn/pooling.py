"""Pooling layers.

Enters: window sizes.  Leaves: modules with PyTorch's names and defaults.  Never here: what an operator computes.
"""

from __future__ import annotations

from typing import Any

from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.nn import functional as F
from graphc.nn.convolution import Sizes, each_dim
from graphc.nn.module import Module


class _MaxPoolNd(Module):
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


class MaxPool1d(_MaxPoolNd):
    """Largest elements of windows.  [N, C, L] -> [N, C, L'], and where they are with return_indices."""

    _dims = 1


class MaxPool2d(_MaxPoolNd):
    """Largest elements of windows.  [N, C, H, W] -> [N, C, H', W'], and where they are with return_indices."""

    _dims = 2


class MaxPool3d(_MaxPoolNd):
    """Largest elements of windows.  [N, C, D, H, W] -> [N, C, D', H', W'], and where they are with return_indices."""

    _dims = 3


class _MaxUnpoolNd(Module):
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


class MaxUnpool1d(_MaxUnpoolNd):
    """What MaxPool1d left, put back among zeros.  [N, C, L], indices -> [N, C, L']."""

    _dims = 1


class MaxUnpool2d(_MaxUnpoolNd):
    """What MaxPool2d left, put back among zeros.  [N, C, H, W], indices -> [N, C, H', W']."""

    _dims = 2


class MaxUnpool3d(_MaxUnpoolNd):
    """What MaxPool3d left, put back among zeros.  [N, C, D, H, W], indices -> [N, C, D', H', W']."""

    _dims = 3


class _AvgPoolNd(Module):
    """What average pools share: windows, and what they divide by."""

    _dims = 0
    kernel_size: Any
    stride: Any
    padding: Any
    ceil_mode: bool
    count_include_pad: bool

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPoolNd):
    """Means of windows.  [N, C, L] -> [N, C, L']."""

    _dims = 1

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


class _DividedAvgPool(_AvgPoolNd):
    """Average pools that may divide by another number."""

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


class AvgPool2d(_DividedAvgPool):
    """Means of windows.  [N, C, H, W] -> [N, C, H', W']."""

    _dims = 2


class AvgPool3d(_DividedAvgPool):
    """Means of windows.  [N, C, D, H, W] -> [N, C, D', H', W']."""

    _dims = 3


class _LPPoolNd(Module):
    _dims = 0

    def __init__(self, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm_type, self.kernel_size, self.stride, self.ceil_mode = norm_type, kernel_size, stride, ceil_mode

    def forward(self, input: Any) -> Any:
        pool = getattr(F, f"lp_pool{self._dims}d")
        return pool(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, ceil_mode={self.ceil_mode}"


class LPPool1d(_LPPoolNd):
    """Power sums of windows, to the power 1 / norm_type.  [N, C, L] -> [N, C, L']."""

    _dims = 1


class LPPool2d(_LPPoolNd):
    """Power sums of windows, to the power 1 / norm_type.  [N, C, H, W] -> [N, C, H', W']."""

    _dims = 2


class LPPool3d(_LPPoolNd):
    """Power sums of windows, to the power 1 / norm_type.  [N, C, D, H, W] -> [N, C, D', H', W']."""

    _dims = 3


class _AdaptiveAvgPoolNd(Module):
    _dims = 0

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Any) -> Any:
        pool = getattr(F, f"adaptive_avg_pool{self._dims}d")
        return pool(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPoolNd):
    """Means of windows that share a dim out among output_size places.  [N, C, L] -> [N, C, L']."""

    _dims = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPoolNd):
    """Means of windows that share two dims out among output_size places; None keeps a dim.  [N, C, H, W] -> [N, C, H', W']."""

    _dims = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPoolNd):
    """Means of windows that share three dims out among output_size places.  [N, C, D, H, W] -> [N, C, D', H', W']."""

    _dims = 3


class _AdaptiveMaxPoolNd(Module):
    _dims = 0

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size, self.return_indices = output_size, return_indices

    def forward(self, input: Any) -> Any:
        pool = getattr(F, f"adaptive_max_pool{self._dims}d")
        return pool(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPoolNd):
    """Largest elements of windows that share a dim out among output_size places.  [N, C, L] -> [N, C, L']."""

    _dims = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPoolNd):
    """Largest elements of windows that share two dims out among output_size places.  [N, C, H, W] -> [N, C, H', W']."""

    _dims = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPoolNd):
    """Largest elements of windows that share three dims out among output_size places.  [N, C, D, H, W] -> [N, C, D', H', W']."""

    _dims = 3


class _FractionalMaxPool(Module):
    _dims = 0

    def __init__(
        self,
        kernel_size: Sizes,
        output_size: Sizes | None = None,
        output_ratio: float | tuple[float, ...] | None = None,
        return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ) -> None:
        super().__init__()
        name, n = type(self).__name__, self._dims
        self.kernel_size, self.return_indices = each_dim(kernel_size, n), return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = output_size if output_size is None else each_dim(output_size, n)
        self.output_ratio = output_ratio if output_ratio is None else each_dim(output_ratio, n)
        if output_size is None and output_ratio is None:
            raise ValueError(at_user_line(f"{name} requires specifying either an output size, or a pooling ratio"))
        if output_size is not None and output_ratio is not None:
            raise ValueError(at_user_line(f"{name}: only one of output_size and output_ratio may be specified"))
        if self.output_ratio is not None and not all(0 < ratio < 1 for ratio in self.output_ratio):
            raise ValueError(at_user_line(f"{name}: output_ratio must be between 0 and 1 (got {output_ratio})"))

    def forward(self, input: Any) -> Any:
        pool = getattr(F, f"fractional_max_pool{self._dims}d")
        how = (self.output_size, self.output_ratio, self.return_indices)
        return pool(input, self.kernel_size, *how, _random_samples=self._random_samples)


class FractionalMaxPool2d(_FractionalMaxPool):
    """Largest elements of windows at random places (Graham 2014).  [N, C, H, W] -> [N, C, H', W'].

    Raises ValueError unless exactly one of output_size and output_ratio says how many windows there are.
    """

    _dims = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """`FractionalMaxPool2d` over three dims.  [N, C, D, H, W] -> [N, C, D', H', W']."""

    _dims = 3
