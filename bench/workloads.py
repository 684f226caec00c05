"""What is timed: each workload once for every library, and once in float64 NumPy as the truth.

Enters: nothing.  Leaves: `WORKLOADS`: name -> `Workload`.  Never here: clocks, tables.

A peer that is not installed gives no runner.  All libraries get the same float32 inputs and compute without conversions or copies.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Runner = Callable[[], Any]  # computes, and gives something that NumPy can read


@dataclass(frozen=True)
class Workload:
    """`truth`: the result in float64.  `runners`: library -> what is timed, for those installed.  `inner`: calls in one sample."""

    truth: Array
    runners: dict[str, Runner]
    inner: int = 1
    tolerance: float = 1e-5


def installed(name: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(name) is not None


def _random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _functions(
    arrays: tuple[Array, ...],
    graphc_function: Callable[..., Any],
    torch_function: Callable[..., Any],
    numpy_function: Callable[..., Any],
    jax_function: Callable[..., Any] | None = None,
) -> dict[str, Runner]:
    """A runner for each library of one function of arrays."""
    import graphc

    runners: dict[str, Runner] = {}
    tensors = [graphc.tensor(a) for a in arrays]
    compiled = graphc.compile(graphc_function)
    runners["graphc"] = lambda: compiled(*tensors)
    runners["graphc eager"] = lambda: graphc_function(*tensors)
    if installed("torch"):
        import torch

        given = [torch.from_numpy(a) for a in arrays]
        runners["torch eager"] = lambda: torch_function(*given)
        if _torch_compiles():
            compiled_torch = torch.compile(torch_function)
            runners["torch.compile"] = lambda: compiled_torch(*given)
    if jax_function is not None and installed("jax"):
        import jax

        on_device = [jax.numpy.asarray(a) for a in arrays]
        jitted = jax.jit(jax_function)
        runners["jax.jit"] = lambda: jax.block_until_ready(jitted(*on_device))
    runners["numpy"] = lambda: numpy_function(*arrays)
    return runners


def _torch_compiles() -> bool:
    """torch.compile needs a C++ compiler."""
    import shutil

    return any(map(shutil.which, ("c++", "g++", "clang++")))


def tiny_call() -> Workload:
    """The cost of a call: 8 elements and 8 elements."""
    a, b = _random(8), _random(8, seed=1)
    add = lambda x, y: x + y
    return Workload(a.astype(np.float64) + b, _functions((a, b), add, add, add, add), inner=1000)


def _gelu64(x: Array) -> Array:
    from math import erf

    return x * 0.5 * (1 + np.vectorize(erf)(x / 2**0.5))


def pointwise_gelu() -> Workload:
    """gelu(x) * y + x, half a million elements."""
    x, y = _random(512, 1024), _random(512, 1024, seed=1)

    def in_torch(x: Any, y: Any) -> Any:
        import torch

        return torch.nn.functional.gelu(x) * y + x

    def in_jax(x: Any, y: Any) -> Any:
        import jax

        return jax.nn.gelu(x, approximate=False) * y + x

    def in_graphc(x: Any, y: Any) -> Any:
        from graphc.nn import functional

        return functional.gelu(x) * y + x

    double = x.astype(np.float64)
    runners = _functions((x, y), in_graphc, in_torch, lambda x, y: None, in_jax)
    del runners["numpy"]  # NumPy has no erf
    return Workload(_gelu64(double) * y + double, runners)


def _softmax(x: Array) -> Array:
    shifted = np.exp(x - x.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)  # type: ignore[no-any-return]


def softmax() -> Workload:
    """512 rows of 1000."""
    x = _random(512, 1000)

    def in_jax(x: Any) -> Any:
        import jax

        return jax.nn.softmax(x, -1)

    by_method = lambda x: x.softmax(-1)
    return Workload(_softmax(x.astype(np.float64)), _functions((x,), by_method, by_method, _softmax, in_jax))


def _layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5) * weight + bias  # type: ignore[no-any-return]


def layernorm() -> Workload:
    """512 rows of 768, with weight and bias."""
    x, weight, bias = _random(512, 768), _random(768, seed=1), _random(768, seed=2)

    def in_graphc(x: Any, weight: Any, bias: Any) -> Any:
        from graphc.nn import functional

        return functional.layer_norm(x, (768,), weight, bias)

    def in_torch(x: Any, weight: Any, bias: Any) -> Any:
        import torch

        return torch.nn.functional.layer_norm(x, (768,), weight, bias)

    def in_jax(x: Any, weight: Any, bias: Any) -> Any:
        import jax

        mean = x.mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias

    truth = _layer_norm(x.astype(np.float64), weight, bias)
    return Workload(truth, _functions((x, weight, bias), in_graphc, in_torch, _layer_norm, in_jax))


def _sum(axis: int) -> Workload:
    x = _random(1024, 1024)
    total = lambda x: x.sum(axis)
    return Workload(x.astype(np.float64).sum(axis), _functions((x,), total, total, total, total), tolerance=1e-4)


def _gemm(size: int) -> Workload:
    a, b = _random(size, size), _random(size, size, seed=1)
    product = lambda a, b: a @ b
    truth = a.astype(np.float64) @ b.astype(np.float64)
    return Workload(
        truth, _functions((a, b), product, product, product, product), inner=max(1, 64**3 * 20 // size**3), tolerance=1e-4
    )


MLP = (784, 256, 256, 10)
LEARNING_RATE = 0.1


@functools.cache
def _layers() -> list[tuple[Array, Array]]:
    sizes = list(itertools.pairwise(MLP))
    return [(_random(n, k, seed=10 + i) / np.float32(k**0.5), _random(n, seed=20 + i)) for i, (k, n) in enumerate(sizes)]


def _module(library: Any) -> Any:
    """The same perceptron with the same weights, for graphc and torch alike."""
    nn = library.nn
    parts: list[Any] = []
    for weight, bias in _layers():
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        with library.no_grad():
            linear.weight.copy_(library.tensor(weight))
            linear.bias.copy_(library.tensor(bias))
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def _forward(x: Array) -> tuple[Array, list[Array]]:
    """Scores, and the input of every layer."""
    inputs = []
    for i, (weight, bias) in enumerate(_layers()):
        x = np.maximum(x, 0) if i else x
        inputs.append(x)
        x = x @ weight.T.astype(x.dtype, copy=False) + bias
    return x, inputs


def _libraries() -> Iterator[tuple[str, Any]]:
    import graphc

    yield "graphc", graphc
    if installed("torch"):
        import torch

        yield "torch", torch


def mlp_b32() -> Workload:
    """Inference of a 784-256-256-10 perceptron, 32 rows."""
    x = _random(32, MLP[0])
    runners: dict[str, Runner] = {"numpy": lambda: _forward(x)[0]}
    for name, library in _libraries():
        model, given = _module(library), library.tensor(x)

        def eager(model: Any = model, given: Any = given, library: Any = library) -> Any:
            with library.no_grad():
                return model(given)

        runners[f"{name} eager"] = eager
        if name == "graphc" or _torch_compiles():
            compiled = library.compile(model)
            runners["graphc" if name == "graphc" else "torch.compile"] = lambda run=eager, compiled=compiled: run(compiled)
    return Workload(_forward(x.astype(np.float64))[0], runners, inner=10)


def train_mlp() -> Workload:
    """One SGD step of the same perceptron with cross entropy, 64 rows.  What is checked is the first step's loss."""
    x = _random(64, MLP[0])
    target = np.random.default_rng(3).integers(0, MLP[-1], 64)
    scores = _forward(x.astype(np.float64))[0]
    losses = np.log(np.exp(scores).sum(-1)) - scores[np.arange(64), target]
    runners: dict[str, Runner] = {}
    for name, library in _libraries():
        runners[f"{name} eager"] = _training_step(library, x, target, lambda model: model, lambda step: step)
        if name == "graphc":
            runners[name] = _training_step(library, x, target, lambda model: model, library.compile)
        elif _torch_compiles():
            runners["torch.compile"] = _training_step(library, x, target, library.compile, lambda step: step)
    return Workload(losses.mean(), runners)


def _training_step(
    library: Any, x: Array, target: Array, around_model: Callable[[Any], Any], around_step: Callable[[Any], Any]
) -> Runner:
    """A step on a perceptron of its own; graphc compiles the whole of it, torch.compile the model."""
    model = _module(library)
    called, optimizer = around_model(model), library.optim.SGD(model.parameters(), lr=LEARNING_RATE)

    def step(given: Any, wanted: Any) -> Any:
        optimizer.zero_grad()
        loss = library.nn.functional.cross_entropy(called(given), wanted)
        loss.backward()
        optimizer.step()
        return loss.detach()

    run, given, wanted = around_step(step), library.tensor(x), library.tensor(target)
    return lambda: run(given, wanted)


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "tiny_call": tiny_call,
    "pointwise_gelu": pointwise_gelu,
    "softmax": softmax,
    "layernorm": layernorm,
    "sum_axis0": lambda: _sum(0),
    "sum_axis1": lambda: _sum(1),
    "gemm_64": lambda: _gemm(64),
    "gemm_256": lambda: _gemm(256),
    "gemm_512": lambda: _gemm(512),
    "mlp_b32": mlp_b32,
    "train_mlp": train_mlp,
}
