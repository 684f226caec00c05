"""JAX's process: ``jax.jit`` of the row's source over `bench.peers.jax_names`, training steps as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.peers import Begin, jax_names
from bench.prepare import arrays, flat
from bench.workloads import Workload


def runner(workload: Workload, folder: Path, mode: str, threads: int) -> tuple[Begin, Any]:
    """See `bench.peers`.  The threads are the cores that the process may use."""
    inputs = [jnp.asarray(x) for x in arrays(folder, "input")]
    model = (workload.jax or workload.build)(jax_names)
    if not isinstance(model, jax_names.Module):

        def begin_function() -> Any:
            run = jax.jit(model)
            return lambda: jax.block_until_ready(run(*inputs))

        return begin_function, _arrays
    model.train(workload.training)
    weights = {path.stem: jax_names.taken(model, path.stem, np.load(path)) for path in sorted((folder / "weights").glob("*.npy"))}
    weights = {name: jnp.asarray(value) for name, value in weights.items() if value is not None}
    if workload.training:
        return _training(workload, model, weights, inputs), _arrays

    def begin() -> Any:
        run = jax.jit(lambda weights, *given: jax_names.called(model, weights, *given)[0])
        return lambda: jax.block_until_ready(run(weights, *inputs))

    return begin, _arrays


def _arrays(results: Any) -> list[Any]:
    return [np.asarray(part) for part in flat(results)]


def _training(workload: Workload, model: Any, weights: dict[str, Any], inputs: list[Any]) -> Begin:
    assert workload.optimizer
    kind, options = workload.optimizer
    statistics = {name: value for name, value in weights.items() if jax_names.is_statistic(name)}
    parameters = {name: value for name, value in weights.items() if name not in statistics}
    update: Any = {"SGD": _sgd, "Adam": _adam, "AdamW": _adam}[kind]
    zeros = lambda: {name: jnp.zeros_like(value) for name, value in parameters.items()}
    state: list[Any] = [parameters, statistics, (jnp.zeros((), jnp.float32), zeros(), zeros() if kind != "SGD" else {})]

    def loss_of(parameters: Any, statistics: Any, key: Any, *given: Any) -> Any:
        loss, moved = jax_names.called(model, {**parameters, **statistics}, *given, key=key)
        return loss / workload.pieces, moved

    def step(parameters: Any, statistics: Any, moments: Any, *given: Any) -> Any:
        count: Any = moments[0]
        loss: Any = 0.0
        gradients: dict[str, Any] = {}
        parts = zip(*[jax_names.split(x, x.shape[0] // workload.pieces, 0) for x in given], strict=True)
        for i, part in enumerate(parts):
            key = jax.random.fold_in(jax.random.key(i), count.astype(int))
            (more, statistics), added = jax.value_and_grad(loss_of, has_aux=True)(parameters, statistics, key, *part)
            loss, gradients = loss + more, jax.tree.map(jnp.add, gradients, added) if gradients else added
        if clip := workload.clip:
            gradients = _clipped(gradients, clip)
        rate, last = options["lr"], options["lr"] / 10
        if workload.cosine:
            rate = last + (rate - last) * (1 + jnp.cos(jnp.pi * count / workload.cosine)) / 2
        parameters, moments = update(parameters, gradients, moments, **{**options, "lr": rate})
        return loss, parameters, statistics, moments

    def begin() -> Any:
        run = jax.jit(step, donate_argnums=(0, 1, 2))

        def once() -> Any:
            loss, *state[:] = run(*state, *inputs)
            return jax.block_until_ready((loss, state))[0]

        return once

    return begin


def _clipped(gradients: Any, most: float) -> Any:
    """Scaled down to a norm of `most`."""
    norm = jnp.sqrt(sum((g * g).sum() for g in gradients.values()))
    return jax.tree.map(lambda g: g * jnp.minimum(1.0, most / (norm + 1e-6)), gradients)


def _sgd(parameters: Any, gradients: Any, moments: Any, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> Any:
    count, velocity, _ = moments
    gradients = {name: g + weight_decay * parameters[name] for name, g in gradients.items()}
    velocity = {name: momentum * velocity[name] + g for name, g in gradients.items()}
    return {name: p - lr * velocity[name] for name, p in parameters.items()}, (count + 1, velocity, {})


def _adam(parameters: Any, gradients: Any, moments: Any, lr: float, weight_decay: float = 0.0) -> Any:
    count, first, second = moments
    count = count + 1
    first = {name: 0.9 * first[name] + 0.1 * g for name, g in gradients.items()}
    second = {name: 0.999 * second[name] + 0.001 * g * g for name, g in gradients.items()}

    def moved(name: str, p: Any) -> Any:
        root = jnp.sqrt(second[name] / (1 - 0.999**count)) + 1e-8
        return p * (1 - lr * weight_decay) - lr * (first[name] / (1 - 0.9**count)) / root

    return {name: moved(name, p) for name, p in parameters.items()}, (count, first, second)
