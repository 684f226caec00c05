"""The names that the rows' sources use, over JAX: modules hold arrays while a function is traced, and functions are pure.

Enters: what `bench.workloads` writes with ``t.nn``.  Leaves: JAX arrays.  Never here: tuning of one row.

Weights of linear and recurrent layers are stored (inputs, outputs): with few rows, JAX's products are ten times slower otherwise.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

erf, exp, log, sqrt, rsqrt, tanh = jax.scipy.special.erf, jnp.exp, jnp.log, jnp.sqrt, lax.rsqrt, jnp.tanh
logsumexp = jax.scipy.special.logsumexp


def transpose(x: Any, first: int, second: int) -> Any:
    """Two dims swapped."""
    return jnp.swapaxes(x, first, second)


def cat(parts: Any, dim: int = 0) -> Any:
    """Arrays one behind another."""
    return jnp.concatenate(parts, dim)


def split(x: Any, size: int, dim: int) -> Any:
    """Parts of `size`."""
    return jnp.split(x, x.shape[dim] // size, dim)


# ---- modules -----------------------------------------------------------------------------------------------------------


class Module:
    """Attributes are arrays or modules; `training` is of the whole tree."""

    training = False
    transposed: tuple[str, ...] = ()  # names of weights stored the other way round

    def children(self) -> Iterator[Module]:
        """The modules among the attributes."""
        return (value for value in vars(self).values() if isinstance(value, Module))

    def train(self, mode: bool = True) -> None:
        """Set `training` on this and all below."""
        self.training = mode
        for child in self.children():
            child.train(mode)

    def __call__(self, *given: Any, **options: Any) -> Any:
        return self.forward(*given, **options)  # type: ignore[attr-defined]


def _owner(model: Module, name: str) -> tuple[Module, str]:
    *path, last = name.split(".")
    for part in path:
        model = getattr(model, part)
    return model, last


def taken(model: Module, name: str, array: Any) -> Any:
    """A weight as the module wants it; None if it has no use for it."""
    try:
        owner, last = _owner(model, name)
    except AttributeError:
        return None
    if last in ("num_batches_tracked", "position_ids"):
        return None
    return array.T.copy() if last in owner.transposed else array


def is_statistic(name: str) -> bool:
    """Whether it is a buffer, which has no gradient."""
    return name.endswith(("running_mean", "running_var"))


def called(model: Module, weights: dict[str, Any], *given: Any, key: Any = None) -> tuple[Any, dict[str, Any]]:
    """The model's result with these weights, and its statistics after the call.   key: of what is dropped in training."""
    _random.key = key
    owners = {name: _owner(model, name) for name in weights}
    for name, (owner, last) in owners.items():
        setattr(owner, last, weights[name])
    result = model(*given)
    return result, {name: getattr(*owners[name]) for name in weights if is_statistic(name)}


class Sequential(Module):
    """One module after another; also a list of them."""

    def __init__(self, *parts: Module) -> None:
        for i, part in enumerate(parts):
            setattr(self, str(i), part)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def forward(self, x: Any) -> Any:
        for part in self:
            x = part(x)
        return x


class Linear(Module):
    """``x @ weight + bias``."""

    transposed = ("weight",)

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        self.weight = self.bias = None

    def forward(self, x: Any) -> Any:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class LayerNorm(Module):
    """Over the last dim."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        self.weight = self.bias = None
        self.eps = eps

    def forward(self, x: Any) -> Any:
        return layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


class Embedding(Module):
    """Rows of a table."""

    def __init__(self, count: int, width: int) -> None:
        self.weight: Any = None

    def forward(self, places: Any) -> Any:
        return self.weight[places]


def _pair(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


class Conv2d(Module):
    """A convolution of two dims."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: Any = 0, groups: int = 1, bias: bool = True
    ) -> None:
        self.weight: Any = None
        self.bias: Any = None
        self.stride, self.groups = _pair(stride), groups
        self.padding = padding if isinstance(padding, str) else [(p, p) for p in _pair(padding)]

    def forward(self, x: Any) -> Any:
        y = lax.conv_general_dilated(
            x, self.weight, self.stride, self.padding, feature_group_count=self.groups, dimension_numbers=("NCHW", "OIHW", "NCHW")
        )
        return y if self.bias is None else y + self.bias[:, None, None]


class ConvTranspose2d(Module):
    """A transposed convolution whose kernel is its stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        assert kernel == stride
        self.weight: Any = None
        self.bias: Any = None
        self.stride = stride

    def forward(self, x: Any) -> Any:
        (batch, _, high, wide), s = x.shape, self.stride
        y = jnp.einsum("bchw,coij->bohiwj", x, self.weight).reshape(batch, -1, high * s, wide * s)
        return y + self.bias[:, None, None]


class BatchNorm2d(Module):
    """With the batch's statistics in training, else the running ones."""

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        self.weight: Any = None
        self.bias = self.running_mean = self.running_var = self.weight
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Any) -> Any:
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            count = x.size // x.shape[1]
            unbiased = lax.stop_gradient(var) * (count / (count - 1))
            self.running_mean = self.running_mean + self.momentum * (lax.stop_gradient(mean) - self.running_mean)
            self.running_var = self.running_var + self.momentum * (unbiased - self.running_var)
        scale = self.weight * lax.rsqrt(var + self.eps)
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


class MaxPool2d(Module):
    """The greatest of a window."""

    def __init__(self, kernel: int, stride: int | None = None, padding: int = 0) -> None:
        self.kernel, self.stride, self.padding = kernel, stride or kernel, padding

    def forward(self, x: Any) -> Any:
        window, step, pad = (1, 1, *_pair(self.kernel)), (1, 1, *_pair(self.stride)), (self.padding, self.padding)
        return lax.reduce_window(x, -jnp.inf, lax.max, window, step, [(0, 0), (0, 0), pad, pad])


class LSTM(Module):
    """One layer, batch first."""

    transposed = ("weight_ih_l0", "weight_hh_l0")

    def __init__(self, inputs: int, hidden: int, batch_first: bool = True) -> None:
        self.weight_ih_l0: Any = None
        self.weight_hh_l0 = self.bias_ih_l0 = self.bias_hh_l0 = self.weight_ih_l0
        self.hidden = hidden

    def forward(self, x: Any) -> Any:
        gates = jnp.swapaxes(x @ self.weight_ih_l0 + (self.bias_ih_l0 + self.bias_hh_l0), 0, 1)
        start = jnp.zeros((x.shape[0], self.hidden), x.dtype)

        def cell(state: Any, given: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(given + h @ self.weight_hh_l0, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        state, states = lax.scan(cell, (start, start), gates)
        return jnp.swapaxes(states, 0, 1), state


class Dropout(Module):
    """In training, zeros with probability `p`, and the rest larger."""

    def __init__(self, p: float) -> None:
        self.p = p

    def forward(self, x: Any) -> Any:
        return dropout(x, self.p) if self.training else x


def _module_of(function: Any) -> Any:
    return type("Function", (Module,), {"forward": lambda self, x: function(x), "__init__": lambda self, *given, **options: None})


# ---- random numbers ----------------------------------------------------------------------------------------------------

_random = types.SimpleNamespace(key=None)  # of the call that is traced


def dropout(x: Any, p: float) -> Any:
    """Zeros with probability `p`, the rest divided by 1 - p."""
    _random.key, used = jax.random.split(_random.key)
    return jnp.where(jax.random.bernoulli(used, 1 - p, x.shape), x / (1 - p), 0)


# ---- functions ---------------------------------------------------------------------------------------------------------


def gelu(x: Any, approximate: str = "none") -> Any:
    """By erf, or by tanh."""
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def layer_norm(x: Any, shape: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
    """Over the last dim."""
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def scaled_dot_product_attention(
    q: Any, k: Any, v: Any, attn_mask: Any = None, is_causal: bool = False, dropout_p: float = 0.0
) -> Any:
    """Of heads, [B, H, T, D]."""
    scores = jnp.einsum("bhtd,bhsd->bhts", q, k) * q.shape[-1] ** -0.5
    if is_causal:
        attn_mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    if attn_mask is not None:
        scores = jnp.where(attn_mask, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, -1)
    return jnp.einsum("bhts,bhsd->bhtd", dropout(weights, dropout_p) if dropout_p else weights, v)


def cross_entropy(scores: Any, wanted: Any) -> Any:
    """The mean over rows."""
    return -jnp.take_along_axis(jax.nn.log_softmax(scores, -1), wanted[:, None], 1).mean()


functional = types.SimpleNamespace(
    gelu=gelu, relu=jax.nn.relu, softmax=jax.nn.softmax, layer_norm=layer_norm, cross_entropy=cross_entropy,
    scaled_dot_product_attention=scaled_dot_product_attention,
)  # fmt: skip
nn = types.SimpleNamespace(
    Module=Module, Sequential=Sequential, ModuleList=lambda parts: Sequential(*parts), Linear=Linear, LayerNorm=LayerNorm,
    Embedding=Embedding, Conv2d=Conv2d, ConvTranspose2d=ConvTranspose2d, BatchNorm2d=BatchNorm2d, MaxPool2d=MaxPool2d, LSTM=LSTM,
    Dropout=Dropout,
    ReLU=_module_of(jax.nn.relu), ReLU6=_module_of(jax.nn.relu6), Identity=_module_of(lambda x: x),
    Flatten=_module_of(lambda x: x.reshape(x.shape[0], -1)),
    AdaptiveAvgPool2d=_module_of(lambda x: x.mean((2, 3), keepdims=True)), functional=functional,
)  # fmt: skip


def published() -> Any:
    """The examples' models."""
    from bench.peers import jax_published

    return jax_published
