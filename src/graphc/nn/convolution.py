"""Convolution layers.

Enters: sizes.  Leaves: modules with PyTorch's names, defaults and initial distributions.  Never here: what an operator computes.
"""

from __future__ import annotations

import math
from typing import Any

from graphc.dtypes import DType
from graphc.eager.creation import empty
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.nn import functional as F
from graphc.nn import init
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter

Sizes = int | tuple[int, ...]
_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def each_dim(value: Any, n: int) -> tuple[Any, ...]:
    """One value for each of n dims."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * n


def weight_shape(layer: Any) -> tuple[int, ...]:
    """[O, C / groups, *kernel] of a convolution layer, [C, O / groups, *kernel] of a transposed one."""
    ends = (layer.in_channels, layer.out_channels) if layer.transposed else (layer.out_channels, layer.in_channels)
    return (ends[0], ends[1] // layer.groups, *layer.kernel_size)


class _ConvNd(Module):
    """What all convolution layers share; sizes are tuples, one number a dim of the kernel."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Any
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int
    padding_mode: str

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        padding: str | tuple[int, ...],
        dilation: tuple[int, ...],
        transposed: bool,
        output_padding: tuple[int, ...],
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.transposed, self.output_padding, self.padding_mode = transposed, output_padding, padding_mode
        self._check()
        self._reversed_padding_repeated_twice = self._sides()
        self.weight = Parameter(empty(*weight_shape(self), dtype=dtype, device=device))
        self.register_parameter("bias", Parameter(empty(out_channels, dtype=dtype, device=device)) if bias else None)
        self.reset_parameters()

    def _check(self) -> None:
        name = type(self).__name__
        if self.groups <= 0:
            raise ValueError(at_user_line(f"{name}: groups must be a positive integer, got {self.groups}"))
        if self.in_channels % self.groups != 0:
            raise ValueError(at_user_line(f"{name}: in_channels must be divisible by groups ({self.in_channels}, {self.groups})"))
        if self.out_channels % self.groups != 0:
            raise ValueError(at_user_line(f"{name}: out_channels must be divisible by groups ({self.out_channels}, {self.groups})"))
        if isinstance(self.padding, str):
            if self.padding not in ("same", "valid"):
                raise ValueError(at_user_line(f"Invalid padding string {self.padding!r}, should be one of 'same', 'valid'"))
            if self.padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError(at_user_line("padding='same' is not supported for strided convolutions"))
        if self.padding_mode not in _PADDING_MODES:
            shown = f"padding_mode must be one of {_PADDING_MODES}, but got padding_mode='{self.padding_mode}'"
            raise ValueError(at_user_line(shown))

    def reset_parameters(self) -> None:
        """Uniform in ±1/sqrt(inputs of one output), weight and bias."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        fan = init.fans(self.weight)[0]
        if self.bias is not None and fan != 0:
            init.uniform_(self.bias, -1 / math.sqrt(fan), 1 / math.sqrt(fan))

    def _sides(self) -> Any:
        """The padding as nn.functional.pad takes it, from the last dim."""
        if self.padding == "valid":
            return [0, 0] * len(self.kernel_size)
        if self.padding == "same":
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return [side for t in reversed(total) for side in (t // 2, t - t // 2)]
        return tuple(p for p in reversed(self.padding) for _ in range(2))

    def extra_repr(self) -> str:
        n = len(self.kernel_size)
        words = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if self.padding != (0,) * n:
            words.append(f"padding={self.padding}")
        if self.dilation != (1,) * n:
            words.append(f"dilation={self.dilation}")
        if self.output_padding != (0,) * n:
            words.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            words.append(f"groups={self.groups}")
        if self.bias is None:
            words.append("bias=False")
        if self.padding_mode != "zeros":
            words.append(f"padding_mode={self.padding_mode}")
        return ", ".join(words)


class _Conv(_ConvNd):
    """`_dims`: how many dims the kernel has."""

    _dims = 0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: str | Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        n = self._dims
        kernel, steps, apart = (each_dim(v, n) for v in (kernel_size, stride, dilation))
        sides = padding if isinstance(padding, str) else each_dim(padding, n)
        how = (groups, bias, padding_mode, device, dtype)
        super().__init__(in_channels, out_channels, kernel, steps, sides, apart, False, (0,) * n, *how)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode), 0
        convolve = getattr(F, f"conv{self._dims}d")
        return convolve(input, weight, bias, self.stride, padding, self.dilation, self.groups)  # type: ignore[no-any-return]


class Conv1d(_Conv):
    """Cross-correlation over one dim.  [N, C, L] -> [N, O, L']."""

    _dims = 1


class Conv2d(_Conv):
    """Cross-correlation over two dims.  [N, C, H, W] -> [N, O, H', W']."""

    _dims = 2


class Conv3d(_Conv):
    """Cross-correlation over three dims.  [N, C, D, H, W] -> [N, O, D', H', W']."""

    _dims = 3


class _ConvTransposeNd(_ConvNd):
    """`_dims`: how many dims the kernel has.  Raises ValueError for another padding mode than zeros."""

    _dims = 0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(at_user_line(f'Only "zeros" padding mode is supported for {type(self).__name__}'))
        kernel, steps, sides, apart, extra = (
            each_dim(v, self._dims) for v in (kernel_size, stride, padding, dilation, output_padding)
        )
        how = (groups, bias, padding_mode, device, dtype)
        super().__init__(in_channels, out_channels, kernel, steps, sides, apart, True, extra, *how)

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        convolve = getattr(F, f"conv_transpose{self._dims}d")
        how = (self.stride, self.padding, self.kernel_size, self._dims, self.dilation)
        extra = self._output_padding(input, output_size, *how)
        return convolve(  # type: ignore[no-any-return]
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )

    def _output_padding(
        self,
        input: Tensor,
        output_size: Any,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        kernel_size: tuple[int, ...],
        num_spatial_dims: int,
        dilation: tuple[int, ...] | None = None,
    ) -> Any:
        """The output padding that gives `output_size`; without one, the layer's.  Raises ValueError where none does."""
        if output_size is None:
            return self.output_padding
        n, wanted = num_spatial_dims, tuple(output_size)
        wanted = wanted[input.ndim - n :] if len(wanted) == input.ndim else wanted
        if len(wanted) != n:
            raise ValueError(
                at_user_line(f"{type(self).__name__}: output_size must have {n} or {input.ndim} elements (got {len(wanted)})")
            )
        apart = (1,) * n if dilation is None else dilation
        sizes = zip(input.shape[input.ndim - n :], stride, padding, apart, kernel_size, strict=True)
        least = [(size - 1) * s - 2 * p + d * (k - 1) + 1 for size, s, p, d, k in sizes]
        most = [low + s - 1 for low, s in zip(least, stride, strict=True)]
        if any(not low <= size <= high for low, size, high in zip(least, wanted, most, strict=True)):
            raise ValueError(
                at_user_line(f"requested an output size of {list(wanted)}, but valid sizes range from {least} to {most}")
            )
        return [size - low for size, low in zip(wanted, least, strict=True)]


class ConvTranspose1d(_ConvTransposeNd):
    """The gradient of a convolution over one dim.  [N, C, L] -> [N, O, L']."""

    _dims = 1


class ConvTranspose2d(_ConvTransposeNd):
    """The gradient of a convolution over two dims.  [N, C, H, W] -> [N, O, H', W']."""

    _dims = 2


class ConvTranspose3d(_ConvTransposeNd):
    """The gradient of a convolution over three dims.  [N, C, D, H, W] -> [N, O, D', H', W']."""

    _dims = 3
