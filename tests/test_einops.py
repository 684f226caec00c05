"""einops on graphc's tensors gives what it gives on NumPy's arrays, eagerly, compiled and through gradients."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import graphc

einops = pytest.importorskip("einops")


def pair(*shape: int) -> tuple[np.ndarray, graphc.Tensor]:
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return array, graphc.from_numpy(array.copy())


@pytest.mark.parametrize(
    ("pattern", "sizes"),
    [
        ("b h w c -> b c h w", {}),
        ("b h w c -> (b h) w c", {}),
        ("b (h p) (w q) c -> b (h w) (p q c)", {"p": 2, "q": 2}),
        ("b h w c -> b h w c 1", {}),
        ("... c -> c ...", {}),
    ],
)
def test_rearrange(pattern: str, sizes: dict[str, int]) -> None:
    array, x = pair(2, 4, 6, 3)
    np.testing.assert_array_equal(einops.rearrange(x, pattern, **sizes).numpy(), einops.rearrange(array, pattern, **sizes))
    compiled = graphc.compile(lambda x: einops.rearrange(x, pattern, **sizes))
    np.testing.assert_array_equal(compiled(x).numpy(), einops.rearrange(array, pattern, **sizes))


@pytest.mark.parametrize("reduction", ["min", "max", "sum", "mean", "prod"])
def test_reduce(reduction: str) -> None:
    array, x = pair(2, 4, 6, 3)
    ours, theirs = (einops.reduce(v, "b (h p) w c -> b h c", reduction, p=2) for v in (x, array))
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-6)


def test_repeat_pack_and_lists() -> None:
    array, x = pair(3, 5)
    np.testing.assert_array_equal(
        einops.repeat(x, "h w -> h (k w) n", k=2, n=3).numpy(), einops.repeat(array, "h w -> h (k w) n", k=2, n=3)
    )
    packed, shapes = einops.pack([x, x], "h *")
    assert tuple(packed.shape) == (3, 10)
    assert [tuple(part.shape) for part in einops.unpack(packed, shapes, "h *")] == [(3, 5), (3, 5)]
    assert tuple(einops.rearrange([x, x], "n h w -> h (n w)").shape) == (3, 10)
    np.testing.assert_allclose(einops.einsum(x, x, "i j, k j -> i k").numpy(), array @ array.T, rtol=1e-5, atol=1e-6)


def test_gradients_flow() -> None:
    x = graphc.ones(2, 6, requires_grad=True)
    einops.reduce(x, "a (b c) -> a b", "mean", b=2).sum().backward()
    assert x.grad.tolist() == [[pytest.approx(1 / 3)] * 6] * 2


@pytest.mark.parametrize("first", ["einops", "graphc"])
def test_either_may_be_imported_first(first: str) -> None:
    second = "graphc" if first == "einops" else "einops"
    code = f"import {first}\nimport {second}\nprint(tuple(einops.rearrange(graphc.ones(2, 3), 'a b -> b a').shape))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "(3, 2)"
