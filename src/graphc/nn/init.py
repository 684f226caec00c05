"""Initial values, written into tensors in place and off the tape.

Enters: tensors.  Leaves: the same tensors.  Random values come from the default generator (`graphc.manual_seed`) or `generator`.
"""

from __future__ import annotations

import math
from typing import Any

from graphc.dtypes import float64
from graphc.eager.generator import rand
from graphc.eager.modes import no_grad
from graphc.errors import at_user_line
from graphc.ir.op import Op

_GAINS = {"sigmoid": 1.0, "linear": 1.0, "tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 3.0 / 4}
_BISECTIONS = 42  # of an interval of at most 16 standard deviations: below float32's spacing everywhere


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a nonlinearity.  Raises ValueError for an unknown one."""
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else float(param)
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        raise ValueError(at_user_line(f"Unsupported nonlinearity {nonlinearity}"))
    return _GAINS[nonlinearity]


@no_grad()
def uniform_(tensor: Any, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Any:
    """Values uniform in [a, b)."""
    return tensor.uniform_(a, b, generator=generator)


@no_grad()
def normal_(tensor: Any, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Any:
    """Values of the normal distribution."""
    return tensor.normal_(mean, std, generator=generator)


@no_grad()
def trunc_normal_(tensor: Any, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Any = None) -> Any:
    """Values of the normal distribution between a and b: its inverse, by bisection, of uniform values.

    Raises ValueError where the distribution has nothing between a and b.
    """
    low, high = max((a - mean) / std, -8.0), min((b - mean) / std, 8.0)
    if not low < high:
        raise ValueError(at_user_line(f"trunc_normal_: nothing of the normal distribution lies between {a} and {b}"))
    erf, where = Op.table["erf"], Op.table["where"]
    bounds = math.erf(low / math.sqrt(2)), math.erf(high / math.sqrt(2))
    uniform: Any = rand(tuple(tensor.shape), generator=generator, dtype=float64)
    wanted = uniform * (bounds[1] - bounds[0]) + bounds[0]
    left, right = wanted * 0.0 + low, wanted * 0.0 + high
    for _ in range(_BISECTIONS):
        middle = (left + right) * 0.5
        below = erf(middle * math.sqrt(0.5)) < wanted
        left, right = where(below, middle, left), where(below, right, middle)
    return tensor.copy_((left * std + mean).clamp(min=a, max=b))


@no_grad()
def constant_(tensor: Any, val: float) -> Any:
    """One value everywhere."""
    return tensor.fill_(val)


def zeros_(tensor: Any) -> Any:
    """0 everywhere."""
    return constant_(tensor, 0.0)


def ones_(tensor: Any) -> Any:
    """1 everywhere."""
    return constant_(tensor, 1.0)


def fans(tensor: Any) -> tuple[int, int]:
    """How many inputs an output depends on and how many outputs an input goes to, of a weight [out, in, ...].

    Raises ValueError for fewer than two dims.
    """
    if tensor.ndim < 2:
        raise ValueError(at_user_line("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions"))
    outputs, inputs, *field = tuple(tensor.shape)
    return inputs * math.prod(field), outputs * math.prod(field)


def _fan(tensor: Any, mode: str) -> int:
    modes = ("fan_in", "fan_out")
    if mode.lower() not in modes:
        raise ValueError(at_user_line(f"Mode {mode} not supported, please use one of {list(modes)}"))
    return fans(tensor)[modes.index(mode.lower())]


def kaiming_uniform_(
    tensor: Any, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Any:
    """He's uniform values: bound gain * sqrt(3 / fan).  Source: He et al. 2015, Delving deep into rectifiers."""
    bound = math.sqrt(3.0) * calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Any, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Any:
    """He's normal values: standard deviation gain / sqrt(fan)."""
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)), generator)


def xavier_uniform_(tensor: Any, gain: float = 1.0, generator: Any = None) -> Any:
    """Glorot's uniform values: bound gain * sqrt(6 / (fan_in + fan_out)).

    Source: Glorot and Bengio 2010, Understanding the difficulty of training deep feedforward neural networks.
    """
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Any, gain: float = 1.0, generator: Any = None) -> Any:
    """Glorot's normal values: standard deviation gain * sqrt(2 / (fan_in + fan_out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))), generator)
