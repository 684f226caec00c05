"""Padding layers.

Enters: pad sizes.  Leaves: modules with PyTorch's names.  Never here: what an operator computes.
"""

from __future__ import annotations

from typing import Any

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


class _ConstantPad(_Pad):
    def __init__(self, padding: Sizes, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Any) -> Any:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """The last dim grown with `value`."""

    _dims = 1


class ConstantPad2d(_ConstantPad):
    """The last two dims grown with `value`."""

    _dims = 2


class ConstantPad3d(_ConstantPad):
    """The last three dims grown with `value`."""

    _dims = 3


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: Sizes) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad):
    """The last dim grown with zeros."""

    _dims = 1


class ZeroPad2d(_ZeroPad):
    """The last two dims grown with zeros."""

    _dims = 2


class ZeroPad3d(_ZeroPad):
    """The last three dims grown with zeros."""

    _dims = 3


class ReflectionPad1d(_Pad):
    """The last dim grown with its mirror image."""

    _dims, _mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """The last two dims grown with their mirror images."""

    _dims, _mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """The last three dims grown with their mirror images."""

    _dims, _mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """The last dim grown with its outermost elements."""

    _dims, _mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """The last two dims grown with their outermost elements."""

    _dims, _mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """The last three dims grown with their outermost elements."""

    _dims, _mode = 3, "replicate"


class CircularPad1d(_Pad):
    """The last dim grown with its other end."""

    _dims, _mode = 1, "circular"


class CircularPad2d(_Pad):
    """The last two dims grown with their other ends."""

    _dims, _mode = 2, "circular"


class CircularPad3d(_Pad):
    """The last three dims grown with their other ends."""

    _dims, _mode = 3, "circular"
