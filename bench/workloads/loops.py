"""Rows that are loops over elements and rows: pointwise chains, softmax, norms, sums, copies, small simulations.

Enters: a namespace.  Leaves: functions of tensors.  Never here: products and nets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.workloads.workload import Array, Workload, normal

BIG = (4096, 1024)
RATE, CARRY, VOLATILITY = 0.05, 0.02, 0.2
POINTS, FEATURES, CENTRES = 20000, 16, 64
BODIES, SOFTENING = 1024, 1e-3


def tiny(t: Any) -> Any:
    """Six operators on eight numbers: what calls cost."""
    return lambda a, b: t.tanh(a * b + 0.5) * a - b / 2


def gelu_chain(t: Any) -> Any:
    """``gelu(x * w + b) + r``."""
    return lambda x, w, b, r: t.nn.functional.gelu(x * w + b) + r


def layer_norm(t: Any) -> Any:
    """Over the last dim, with weight and bias."""
    return lambda x, w, b: t.nn.functional.layer_norm(x, (BIG[1],), w, b)


def black_scholes(t: Any) -> Any:
    """Prices of European calls and puts."""

    def price(spot: Any, strike: Any, years: Any) -> Any:
        spread = VOLATILITY * t.sqrt(years)
        high = (t.log(spot / strike) + (RATE + CARRY) * years) / spread
        low = high - spread
        share = lambda x: 0.5 * (1 + t.erf(x * 0.7071067811865476))
        discounted = strike * t.exp(-RATE * years)
        call = spot * share(high) - discounted * share(low)
        return call, call - spot + discounted

    return price


def kmeans(t: Any) -> Any:
    """The nearest centre of every point, by a product, as it is usually written."""
    transposed = lambda x: t.transpose(x, 0, 1)
    return lambda x, centres: ((x * x).sum(1)[:, None] - 2 * (x @ transposed(centres)) + (centres * centres).sum(1)).argmin(1)


def nbody(t: Any) -> Any:
    """The pull of all bodies on each."""

    def pull(places: Any, masses: Any) -> Any:
        apart = places[None] - places[:, None]
        inverse = t.rsqrt((apart * apart).sum(-1) + SOFTENING)
        return (apart * (inverse**3 * masses[None])[:, :, None]).sum(1)

    return pull


def _prices(random: np.random.Generator) -> tuple[Array, ...]:
    spot, strike, years = (random.random(10**6, np.float32) for _ in range(3))
    return spot * 50 + 50, strike * 50 + 50, years + np.float32(0.1)


def _bodies(random: np.random.Generator) -> tuple[Array, ...]:
    return random.standard_normal((BODIES, 3), np.float32), random.random(BODIES, np.float32)


def _numpy_softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)  # type: ignore[no-any-return]


def _numpy_layer_norm(x: Array, w: Array, b: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * w + b  # type: ignore[no-any-return]


def _numpy_logsumexp(x: Array) -> Array:
    m = x.max(-1, keepdims=True)
    return np.log(np.exp(x - m).sum(-1)) + m[..., 0]  # type: ignore[no-any-return]


def _sum(axis: int, **options: Any) -> Workload:
    total: Callable[[Array], Any] = lambda x: x.sum(axis)
    return Workload(f"sum_axis{axis}", "rows", lambda t: total, normal(BIG), numpy=total, **options)


LOOPS = [
    # NumPy's six calls of C functions are a floor, and no compiler's
    Workload("tiny_call", "tiny", tiny, normal((8,), (8,)), numpy=tiny(np), samples=(0, 1), aside=("numpy",)),
    Workload("pointwise_gelu", "rows", gelu_chain, normal(BIG, BIG[1:], BIG[1:], BIG), samples=(0, 3)),
    Workload(
        "softmax", "rows", lambda t: lambda x: t.nn.functional.softmax(x, -1), normal(BIG), numpy=_numpy_softmax, samples=(0,)
    ),
    Workload("layernorm", "rows", layer_norm, normal(BIG, BIG[1:], BIG[1:]), numpy=_numpy_layer_norm, samples=(0,)),
    Workload("logsumexp", "rows", lambda t: lambda x: t.logsumexp(x, -1), normal(BIG), numpy=_numpy_logsumexp, samples=(0,)),
    _sum(0),
    _sum(1, samples=(0,)),
    Workload("black_scholes_1e6", "rows", black_scholes, _prices, samples=(0, 1, 2)),
    Workload(
        "kmeans_argmin", "rows", kmeans, normal((POINTS, FEATURES), (CENTRES, FEATURES)), flops=2.0 * POINTS * FEATURES * CENTRES,
        samples=(0,),
    ),
    Workload("nbody_1024", "rows", nbody, _bodies, flops=20.0 * BODIES**2),
    Workload(
        "transposed_copy", "copy", lambda t: lambda x: t.transpose(x, 0, 1).contiguous(), normal(BIG),
        numpy=lambda x: np.ascontiguousarray(x.T), jax=lambda t: lambda x: x.T,
    ),
]  # fmt: skip
