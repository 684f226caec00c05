"""What a row of the benchmark is.

Enters: a source written against a namespace (`torch`, `graphc`, or `bench.peers.jax_names`), shapes, what work must be done.
Leaves: `Workload`, inputs and weights.  Never here: libraries other than NumPy.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Workload:
    """`build(t)` gives a function, or a module, over the namespace `t`; called with the inputs it gives a tensor or several.

    The module of a training step gives the loss.
    """

    name: str
    group: str
    build: Callable[[Any], Any]
    inputs: Callable[[np.random.Generator], tuple[Array, ...]]
    flops: float | None = 0.0  # that no implementation can do without; None: counted by PyTorch
    weight_passes: float = 1.0  # how often the weights must be read or written
    numpy: Callable[..., Any] | None = None
    jax: Callable[[Any], Any] | None = None  # instead of `build`, where JAX is written another way
    optimizer: tuple[str, dict[str, Any]] | None = None  # class and hyperparameters: makes the row a training step
    pieces: int = 1  # of a step's batch, whose gradients are added up
    clip: float | None = None  # of the gradients' norm
    cosine: int = 0  # steps in which the rate falls to a tenth along a cosine; 0: it is a constant
    samples: tuple[int, ...] = ()  # inputs that hold one sample at each index of dim 0, as the results do
    images: bool = False  # a convolution net: PyTorch is also run channels_last
    tolerance: float = 1e-4  # of the greatest element
    weights: Callable[[], dict[str, Array]] | None = None  # published ones; raises `Missing`
    cold_target_s: float = 1.0
    aside: tuple[str, ...] = ()  # libraries that are timed and do not count as peers
    ours_only: bool = False  # times compilation alone, without peers

    @property
    def training(self) -> bool:
        """Whether a call is a step that changes the weights."""
        return self.optimizer is not None


class Missing(Exception):
    """What a row needs is not installed."""


def inputs_of(workload: Workload) -> tuple[Array, ...]:
    """The inputs, the same in every run."""
    return workload.inputs(generator(workload))


def generator(workload: Workload) -> np.random.Generator:
    """The same in every run."""
    return np.random.default_rng(zlib.crc32(workload.name.encode()))


def weight(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A parameter or buffer of a model, by its name and shape alone; of a size that keeps activations near one."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    last = name.rpartition(".")[2]
    if dtype.kind in "iub":
        return np.zeros(shape, dtype)
    if last == "running_var":
        return random.uniform(0.5, 1.5, shape).astype(dtype)
    values = random.standard_normal(shape, np.float32)
    if len(shape) > 1:
        values *= np.float32((1.6 / np.prod(shape[1:])) ** 0.5)
    else:
        values *= np.float32(0.1)
        values += np.float32(last == "weight")  # a norm's
    return values.astype(dtype, copy=False)


def weights_of(workload: Workload, model: Any) -> Iterator[tuple[str, Array]]:
    """Of a module of PyTorch or graphc, by name: published ones, else made.  Of a function none."""
    published = workload.weights() if workload.weights else {}
    for name, value in model.state_dict().items() if hasattr(model, "state_dict") else ():
        given = value.detach().numpy()
        array = published[name] if name in published else weight(name, given.shape, given.dtype)
        yield name, array.reshape(given.shape)


def normal(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], tuple[Array, ...]]:
    """Inputs of normal numbers."""
    return lambda random: tuple(random.standard_normal(shape, np.float32) for shape in shapes)
