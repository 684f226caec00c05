"""Random programs of views, in-place and ordinary operators: values and gradients are PyTorch's, eagerly and traced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.capture.tracer import trace

torch = pytest.importorskip("torch")


def program(xp: Any, seed: int, leaves: list[Any]) -> Any:
    """The same program for both libraries: `seed` decides every step."""
    rng = np.random.default_rng(seed)
    tensors = [x * 1.5 for x in leaves] + [xp.zeros(3, 4)]
    for _ in range(12):
        x = tensors[int(rng.integers(len(tensors)))]
        kind = int(rng.integers(9))
        assert (x.grad_fn is not None) == x.requires_grad  # asking makes PyTorch bring a view's history up to date
        if kind == 0:
            x = x.t() if x.ndim == 2 else x
        elif kind == 1 and x.shape[0] > 1:
            x = x[int(rng.integers(0, x.shape[0] - 1)) :]
        elif kind == 2:
            x = x[..., :: int(rng.integers(1, 3))]
        elif kind == 3 and x.is_contiguous():
            x = x.view(-1)
        elif kind == 4:
            x = x.unsqueeze(0) if x.ndim < 3 else x[0]
        elif kind == 5:
            other = tensors[int(rng.integers(len(tensors)))]
            x = x * 0.5 + other.sum() * 0.1
        elif kind == 6:
            x.mul_(float(rng.integers(1, 4)) / 2)
        elif kind == 7:
            other = tensors[int(rng.integers(len(tensors)))]
            x.add_(other.reshape(-1)[0].clone() * 2)
        else:
            x[..., 0] = float(rng.integers(5)) if rng.random() < 0.5 else (x[..., -1] * 2).clone()
        tensors.append(x)
    return sum((t * t * (i + 1) * 0.01).sum() for i, t in enumerate([*tensors[-6:], leaves[0]]))


def start() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s) for s in ((3, 4), (4,), (2, 3))]


@pytest.mark.parametrize("seed", range(150))
def test_values_and_gradients(seed: int) -> None:
    theirs = [torch.tensor(a, requires_grad=True) for a in start()]
    ours = [graphc.tensor(a, requires_grad=True) for a in start()]
    graphc.set_default_dtype(graphc.float64)
    torch.set_default_dtype(torch.float64)
    try:
        expected, got = program(torch, seed, theirs), program(graphc, seed, ours)
        np.testing.assert_allclose(got.item(), expected.item(), rtol=1e-10)
        want = torch.autograd.grad(expected, theirs, allow_unused=True)
        have = graphc.autograd.grad(got, ours, allow_unused=True)
        for w, h in zip(want, have, strict=True):
            np.testing.assert_allclose(0.0 if h is None else h.numpy(), 0.0 if w is None else w.numpy(), rtol=1e-9, atol=1e-12)

        def step(*leaves: Any) -> Any:
            for leaf in leaves:
                leaf.grad = None
            program(graphc, seed, list(leaves)).backward()
            return [leaf.grad for leaf in leaves]

        graph = trace(step, tuple(ours)).graph
        values: dict[Any, Any] = dict(zip(graph.inputs, start(), strict=True))
        for node in graph.nodes:
            made = node.op.reference(np, *(values[v] for v in node.inputs), **node.attrs)
            values.update(zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True))
        traced = [values[v] for v in graph.outputs]
        for w, t in zip((w for w in want if w is not None), traced, strict=False):
            np.testing.assert_allclose(t, w.numpy(), rtol=1e-9, atol=1e-12)
    finally:
        graphc.set_default_dtype(graphc.float32)
        torch.set_default_dtype(torch.float32)
