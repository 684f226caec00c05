"""Padding layers.

Enters: pad sizes.  Leaves: modules with PyTorch's names.  Never here: what an operator computes.
"""

from __future__ import annotations

from typing import Any

from graphc.errors import at_user_line
from graphc.nn import functional as F
from graphc.nn.convolution import Sizes, each_dim
from graphc.nn.module import Module


class _Pad(Module):
    """`padding`: one size for all sides, or two a dim from the last."""

    _dims = 0
    _mode = ""

    def __init__(self, padding: Sizes) -> None:
        super().__init__()
        self.padding = each_dim(padding, 2 * self._dims)

    def forward(self, input: Any) -> Any:
        return F.pad(input, self.padding, self._mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPadNd(_Pad):
    def __init__(self, padding: Sizes, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Any) -> Any:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPadNd):
    """The last dim grown with `value`."""

    _dims = 1


class ConstantPad2d(_ConstantPadNd):
    """The last two dims grown with `value`."""

    _dims = 2


class ConstantPad3d(_ConstantPadNd):
    """The last three dims grown with `value`."""

    _dims = 3


class _ZeroPad(_ConstantPadNd):
    def __init__(self, padding: Sizes) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad, ConstantPad1d):
    """The last dim grown with zeros."""


class ZeroPad2d(_ZeroPad, ConstantPad2d):
    """The last two dims grown with zeros."""


class ZeroPad3d(_ZeroPad, ConstantPad3d):
    """The last three dims grown with zeros."""


class _ReflectionPadNd(_Pad):
    _mode = "reflect"


class ReflectionPad1d(_ReflectionPadNd):
    """The last dim grown with its mirror image."""

    _dims = 1


class ReflectionPad2d(_ReflectionPadNd):
    """The last two dims grown with their mirror images."""

    _dims = 2


class ReflectionPad3d(_ReflectionPadNd):
    """The last three dims grown with their mirror images."""

    _dims = 3


class _ReplicationPadNd(_Pad):
    _mode = "replicate"


class ReplicationPad1d(_ReplicationPadNd):
    """The last dim grown with its outermost elements."""

    _dims = 1


class ReplicationPad2d(_ReplicationPadNd):
    """The last two dims grown with their outermost elements."""

    _dims = 2


class ReplicationPad3d(_ReplicationPadNd):
    """The last three dims grown with their outermost elements."""

    _dims = 3


class _CircularPadNd(_Pad):
    _mode = "circular"

    def _check_input_dim(self, input: Any) -> None:
        n = self._dims
        if input.ndim not in (n + 1, n + 2):
            raise ValueError(at_user_line(f"{type(self).__name__}: expected {n + 1}D or {n + 2}D input (got {input.ndim}D input)"))

    def forward(self, input: Any) -> Any:
        self._check_input_dim(input)
        return super().forward(input)


class CircularPad1d(_CircularPadNd):
    """The last dim grown with its other end."""

    _dims = 1


class CircularPad2d(_CircularPadNd):
    """The last two dims grown with their other ends."""

    _dims = 2


class CircularPad3d(_CircularPadNd):
    """The last three dims grown with their other ends."""

    _dims = 3
