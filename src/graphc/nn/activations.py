"""Activations as modules.  [...] -> [...].

Never here: what an operator computes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from graphc.dtypes import DType
from graphc.eager.creation import empty
from graphc.errors import at_user_line
from graphc.nn import functional as F
from graphc.nn.init import constant_
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter


def _marked(text: str, inplace: bool) -> str:
    """`text` as a layer shows it that overwrites its input, or does not."""
    return f"{text}, inplace=True" if inplace else text


class _Inplace(Module):
    """What activations of no other argument share: whether they overwrite their input."""

    function: Callable[..., Any]
    shown = True  # PyTorch's repr leaves it out for some

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        return type(self).function(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace and self.shown else ""


class ReLU(_Inplace):
    """``max(x, 0)``."""

    function = F.relu


class SiLU(_Inplace):
    """``x * sigmoid(x)``."""

    function = F.silu


class SELU(_Inplace):
    """Scaled exponential linear unit."""

    function = F.selu


class Mish(_Inplace):
    """``x * tanh(softplus(x))``."""

    function = F.mish


class Hardswish(_Inplace):
    """``x * relu6(x + 3) / 6``."""

    function, shown = F.hardswish, False


class Hardsigmoid(_Inplace):
    """``relu6(x + 3) / 6``."""

    function, shown = F.hardsigmoid, False


class ELU(Module):
    """x where positive, else ``alpha * (exp(x) - 1)``."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha, self.inplace = alpha, inplace

    def forward(self, input: Any) -> Any:
        return F.elu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        return _marked(f"alpha={self.alpha}", self.inplace)


class CELU(Module):
    """``max(0, x) + min(0, alpha * (exp(x / alpha) - 1))``."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha, self.inplace = alpha, inplace

    def forward(self, input: Any) -> Any:
        return F.celu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        return _marked(f"alpha={self.alpha}", self.inplace)


class Hardtanh(Module):
    """x clamped to [min_val, max_val].  `min_value` and `max_value` are older names of the bounds.

    Raises AssertionError unless max_val is above min_val.
    """

    def __init__(
        self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False, min_value: Any = None, max_value: Any = None
    ) -> None:
        super().__init__()
        for name, old in (("min", min_value), ("max", max_value)):
            if old is not None:
                text = f"keyword argument `{name}_value` is deprecated and rename to `{name}_val`"
                warnings.warn(text, FutureWarning, stacklevel=2)
        self.min_val = min_val if min_value is None else min_value
        self.max_val = max_val if max_value is None else max_value
        self.inplace = inplace
        if not self.max_val > self.min_val:
            raise AssertionError(at_user_line(f"Hardtanh: max_val {self.max_val} must be above min_val {self.min_val}"))

    def forward(self, input: Any) -> Any:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        return _marked(f"min_val={self.min_val}, max_val={self.max_val}", self.inplace)


class ReLU6(Hardtanh):
    """x clamped to [0, 6]."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Threshold(Module):
    """x where above `threshold`, else `value`."""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold, self.value, self.inplace = threshold, value, inplace

    def forward(self, input: Any) -> Any:
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        return _marked(f"threshold={self.threshold}, value={self.value}", self.inplace)


class RReLU(Module):
    """x where positive, else a slope times x: drawn from [lower, upper) while training, else their mean (Xu and others 2015)."""

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower, self.upper, self.inplace = lower, upper, inplace

    def forward(self, input: Any) -> Any:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return _marked(f"lower={self.lower}, upper={self.upper}", self.inplace)


class _Shrink(Module):
    """What shrinkages share: `lambd`, the half width of what becomes 0."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Hardshrink(_Shrink):
    """x where its magnitude is above `lambd`, else 0."""

    def forward(self, input: Any) -> Any:
        return F.hardshrink(input, self.lambd)


class Softshrink(_Shrink):
    """x moved towards 0 by `lambd`, and 0 where it is nearer than that."""

    def forward(self, input: Any) -> Any:
        return F.softshrink(input, self.lambd)


class Tanhshrink(Module):
    """``x - tanh(x)``."""

    def forward(self, input: Any) -> Any:
        return F.tanhshrink(input)


class Softsign(Module):
    """``x / (1 + |x|)``."""

    def forward(self, input: Any) -> Any:
        return F.softsign(input)


class LogSigmoid(Module):
    """``log(1 / (1 + exp(-x)))``."""

    def forward(self, input: Any) -> Any:
        return F.logsigmoid(input)


class LeakyReLU(Module):
    """x where positive, else ``negative_slope * x``."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, input: Any) -> Any:
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        return _marked(f"negative_slope={self.negative_slope}", self.inplace)


class PReLU(Module):
    """x where positive, else weight times x: one learned slope, or one a channel (dim 1)."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: DType | None = None) -> None:
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        self.weight = Parameter(empty(num_parameters, dtype=dtype, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Every slope `init`."""
        constant_(self.weight, self.init)

    def forward(self, input: Any) -> Any:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class Softplus(Module):
    """``log(1 + exp(beta * x)) / beta``; x itself where ``beta * x > threshold``."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Any) -> Any:
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class GLU(Module):
    """The first half along `dim` times the sigmoid of the second."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Any:
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class GELU(Module):
    """``x * Phi(x)``, Phi exact or (`approximate` = ``tanh``) by tanh."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Any) -> Any:
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, input: Any) -> Any:
        return F.tanh(input)


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``."""

    def forward(self, input: Any) -> Any:
        return F.sigmoid(input)


class _OverDim(Module):
    """What softmax and its kin share: `dim`.  Without it PyTorch's guess is taken, with its warning."""

    function: Callable[..., Any]

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Any:
        return type(self).function(input, dim=self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_OverDim):
    """Exponentials divided by their sum over `dim`."""

    function = F.softmax


class LogSoftmax(_OverDim):
    """Logarithm of softmax over `dim`."""

    function = F.log_softmax


class Softmin(_OverDim):
    """Softmax of ``-x`` over `dim`."""

    function = F.softmin


class Softmax2d(Module):
    """Softmax over channels at every place.  [N, C, H, W] or [C, H, W] -> the same.  Raises ValueError for another rank."""

    def forward(self, input: Any) -> Any:
        if input.ndim not in (3, 4):
            raise ValueError(at_user_line(f"Softmax2d: expected input to be 3D or 4D, got a {input.ndim}D input instead"))
        return F.softmax(input, -3)
