"""Windows for spectra have PyTorch's elements, dtypes and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

WINDOWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("hann_window", {}),
    ("hamming_window", {}),
    ("hamming_window", {"alpha": 0.6, "beta": 0.3}),
    ("blackman_window", {}),
    ("bartlett_window", {}),
    ("kaiser_window", {}),
    ("kaiser_window", {"beta": 5.0}),
)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize(("name", "options"), WINDOWS)
def test_a_window_has_the_elements_of_pytorchs(name: str, options: dict[str, Any], periodic: bool) -> None:
    for length in (0, 1, 2, 5, 16):
        for dtype in ("float32", "float64"):
            expected = getattr(torch, name)(length, periodic=periodic, **options, dtype=getattr(torch, dtype))
            found = getattr(graphc, name)(length, periodic=periodic, **options, dtype=getattr(graphc, dtype))
            assert found.shape == tuple(expected.shape) and str(found.dtype) == f"graphc.{dtype}"
            np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("name", sorted({name for name, _ in WINDOWS}))
def test_a_window_without_a_size_or_a_floating_dtype_is_refused(name: str) -> None:
    for library in (torch, graphc):
        with pytest.raises(RuntimeError):
            getattr(library, name)(-1)
        with pytest.raises(RuntimeError):
            getattr(library, name)(4, dtype=library.int64)


def test_windows_are_made_in_compiled_code_too() -> None:
    def spectrum(x: Any) -> Any:
        return x * graphc.hann_window(8)

    x = graphc.arange(8.0)
    assert graphc.compile(spectrum)(x).numpy().tobytes() == spectrum(x).numpy().tobytes()
