"""Dropout layers.  [...] -> [...], the input itself in eval mode.

Enters: a probability.  Leaves: modules with PyTorch's names and defaults.  Never here: how random numbers are drawn (`noise`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.errors import at_user_line
from graphc.nn import functional as F
from graphc.nn.module import Module


class _DropoutNd(Module):
    """What dropout layers share.  Raises ValueError for a probability outside [0, 1]."""

    function: Callable[..., Any]
    p: float
    inplace: bool

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if p < 0 or p > 1:
            raise ValueError(at_user_line(f"dropout probability has to be between 0 and 1, but got {p}"))
        self.p, self.inplace = p, inplace

    def forward(self, input: Any) -> Any:
        return type(self).function(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_DropoutNd):
    """While training, zeros with probability p and the rest divided by 1 - p.  [...] -> [...]."""

    function = F.dropout


class Dropout1d(_DropoutNd):
    """While training, whole channels become zeros with probability p.  [N, C, L] or [C, L] -> the same."""

    function = F.dropout1d


class Dropout2d(_DropoutNd):
    """While training, whole channels become zeros with probability p.  [N, C, H, W] -> the same."""

    function = F.dropout2d


class Dropout3d(_DropoutNd):
    """While training, whole channels become zeros with probability p.  [N, C, D, H, W] or [C, D, H, W] -> the same."""

    function = F.dropout3d


class AlphaDropout(_DropoutNd):
    """Dropout that keeps mean 0 and variance 1, for selu (Klambauer and others 2017).  [...] -> [...]."""

    def forward(self, input: Any) -> Any:
        return F.alpha_dropout(input, self.p, self.training)


class FeatureAlphaDropout(_DropoutNd):
    """`AlphaDropout` of whole channels.  [N, C, ...] -> the same."""

    def forward(self, input: Any) -> Any:
        return F.feature_alpha_dropout(input, self.p, self.training)
