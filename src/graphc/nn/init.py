"""Initial values, written into tensors in place and off the tape.

Enters: tensors.  Leaves: the same tensors.  Random values come from the default generator (`graphc.manual_seed`) or `generator`.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

from graphc.dtypes import float64
from graphc.eager.generator import rand, randn
from graphc.eager.methods import functions
from graphc.eager.modes import no_grad
from graphc.errors import at_user_line
from graphc.ir.op import Op

_LINEAR = ("linear", *(f"conv{way}{n}d" for way in ("", "_transpose") for n in (1, 2, 3)))
_GAINS = {**dict.fromkeys(_LINEAR, 1.0), "sigmoid": 1.0, "tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 3.0 / 4}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a nonlinearity; `param` is leaky_relu's slope.

    Raises ValueError for an unknown one and for a slope that is no number.
    """
    if nonlinearity == "leaky_relu":
        if isinstance(param, bool) or not isinstance(param, int | float | None):
            raise ValueError(at_user_line(f"negative_slope {param} not a valid number"))
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
    """Values of the normal distribution between a and b: its inverse, in float64, of uniform values.

    Raises ValueError where the distribution has nothing between a and b, or nothing within 8 standard deviations.
    """
    low, high = max((a - mean) / std, -8.0), min((b - mean) / std, 8.0)
    if not low < high:
        raise ValueError(at_user_line(f"trunc_normal_: nothing of the normal distribution lies between {a} and {b}"))
    bounds = math.erf(low / math.sqrt(2)), math.erf(high / math.sqrt(2))
    uniform: Any = rand(tuple(tensor.shape), generator=generator, dtype=float64)
    inverse = Op.table["erfinv"](uniform * (bounds[1] - bounds[0]) + bounds[0])
    return tensor.copy_((inverse * (math.sqrt(2) * std) + mean).clamp(min=a, max=b))


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


def _require_dims(tensor: Any, fits: bool, wanted: str) -> None:
    if not fits:
        raise ValueError(at_user_line(f"Only tensors with {wanted} dimensions are supported, got {tensor.ndim}"))


@no_grad()
def eye_(tensor: Any) -> Any:
    """1 on the diagonal, else 0.  [n, m].  Raises ValueError for another rank."""
    _require_dims(tensor, tensor.ndim == 2, "2")
    tensor.fill_(0.0).diagonal().fill_(1.0)
    return tensor


@no_grad()
def dirac_(tensor: Any, groups: int = 1) -> Any:
    """1 at the middle of window i for input channel i of every group, else 0: a convolution that gives its input back.

    [out, in, ...] of 3 to 5 dims.  Raises ValueError for another rank and where `groups` does not divide dim 0.
    """
    _require_dims(tensor, tensor.ndim in (3, 4, 5), "3, 4, or 5")
    outputs, _, *field = tuple(tensor.shape)
    if outputs % groups != 0:
        raise ValueError(at_user_line(f"dim 0 must be divisible by groups, got {outputs} and {groups}"))
    tensor.fill_(0.0)
    channels = outputs // groups
    centre = tensor[(slice(None), slice(None), *(size // 2 for size in field))]
    for group in range(groups):
        centre[group * channels : (group + 1) * channels].diagonal().fill_(1.0)
    return tensor


@no_grad()
def orthogonal_(tensor: Any, gain: float = 1, generator: Any = None) -> Any:
    """Orthogonal rows, or columns where there are fewer of them, all of norm `gain`; dims after the first count as one.

    Raises ValueError for fewer than two dims.  Source: Saxe and others 2013, Exact solutions to the nonlinear dynamics of
    learning in deep linear neural networks; signs as in Mezzadri 2006, so that every orthogonal matrix is equally likely.
    """
    _require_dims(tensor, tensor.ndim >= 2, "2 or more")
    if tensor.numel() == 0:
        return tensor
    rows = tensor.shape[0]
    columns = tensor.numel() // rows
    drawn: Any = randn((max(rows, columns), min(rows, columns)), generator=generator, dtype=tensor.dtype.compute)
    q, r = functions("linalg")["qr"](drawn)
    q = q * r.diagonal().sign()
    return tensor.copy_(((q if rows >= columns else q.T) * gain).reshape(tensor.shape))


@no_grad()
def sparse_(tensor: Any, sparsity: float, std: float = 0.01, generator: Any = None) -> Any:
    """Normal values, of which the share `sparsity` in every column is made 0.  [n, m].  Raises ValueError for another rank.

    Source: Martens 2010, Deep learning via Hessian-free optimization.
    """
    _require_dims(tensor, tensor.ndim == 2, "2")
    tensor.normal_(0.0, std, generator=generator)
    zeros = math.ceil(sparsity * tensor.shape[0])
    order: Any = rand(tuple(tensor.shape), generator=generator, dtype=float64).argsort(0)  # type: ignore[attr-defined]
    return tensor.scatter_(0, order[:zeros], 0.0)


def fans(tensor: Any) -> tuple[int, int]:
    """How many inputs an output depends on and how many outputs an input goes to, of a weight [out, in, ...].

    Raises ValueError for fewer than two dims.
    """
    if tensor.ndim < 2:
        raise ValueError(at_user_line("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions"))
    outputs, inputs, *field = tuple(tensor.shape)
    return inputs * math.prod(field), outputs * math.prod(field)


def _calculate_correct_fan(tensor: Any, mode: str) -> int:
    """The one of `fans` that `mode` names: ``fan_in`` or ``fan_out``.  Raises ValueError for another."""
    modes = ("fan_in", "fan_out")
    if mode.lower() not in modes:
        raise ValueError(at_user_line(f"Mode {mode} not supported, please use one of {list(modes)}"))
    return fans(tensor)[modes.index(mode.lower())]


def _empty(tensor: Any) -> bool:
    """Whether there is nothing to write to, with PyTorch's warning."""
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
        return True
    return False


def kaiming_uniform_(
    tensor: Any, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Any:
    """He's uniform values: bound gain * sqrt(3 / fan).  Source: He et al. 2015, Delving deep into rectifiers."""
    if _empty(tensor):
        return tensor
    bound = math.sqrt(3.0) * calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Any, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Any:
    """He's normal values: standard deviation gain / sqrt(fan)."""
    if _empty(tensor):
        return tensor
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode)), generator)


def xavier_uniform_(tensor: Any, gain: float = 1.0, generator: Any = None) -> Any:
    """Glorot's uniform values: bound gain * sqrt(6 / (fan_in + fan_out)).

    Source: Glorot and Bengio 2010, Understanding the difficulty of training deep feedforward neural networks.
    """
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Any, gain: float = 1.0, generator: Any = None) -> Any:
    """Glorot's normal values: standard deviation gain * sqrt(2 / (fan_in + fan_out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))), generator)


# ---- older names -------------------------------------------------------------------------------------------------------

# names without effects of their own that programs take from here
_calculate_fan_in_and_fan_out = fans
_no_grad_uniform_, _no_grad_normal_, _no_grad_trunc_normal_ = uniform_, normal_, trunc_normal_
_no_grad_fill_, _no_grad_zero_ = constant_, zeros_


def _older(current: Callable[..., Any]) -> Callable[..., Any]:
    """`current` under its name without the underscore, with PyTorch's warning."""
    name = current.__name__.removesuffix("_")

    @functools.wraps(current)
    def initialiser(*args: Any, **kwargs: Any) -> Any:
        text = f"`nn.init.{name}` is now deprecated in favor of `nn.init.{name}_`."
        warnings.warn(text, FutureWarning, stacklevel=2)
        return current(*args, **kwargs)

    initialiser.__name__ = initialiser.__qualname__ = name
    initialiser.__doc__ = f"`{name}_` under its older name."
    return initialiser


uniform, normal, constant, eye, dirac = (_older(f) for f in (uniform_, normal_, constant_, eye_, dirac_))
xavier_uniform, xavier_normal = _older(xavier_uniform_), _older(xavier_normal_)
kaiming_uniform, kaiming_normal = _older(kaiming_uniform_), _older(kaiming_normal_)
orthogonal, sparse = _older(orthogonal_), _older(sparse_)
