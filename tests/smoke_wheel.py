"""What a user's first minute must do, run in a clean environment that has the wheel and nothing else of the project."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import graphc


def residual(x: graphc.Tensor, w: graphc.Tensor) -> graphc.Tensor:
    """A small function with a product, a reduction and arithmetic around them."""
    return (x @ w).tanh().softmax(dim=-1) * 2.0 + 1.0


def main() -> None:
    """Add two tensors, differentiate, compile, save and load; every step must give the same bits."""
    assert "site-packages" in str(Path(graphc.__file__)), f"not the installed wheel: {graphc.__file__}"
    assert (Path(graphc.__file__).parent / "py.typed").exists()
    assert (graphc.tensor([1.0, 2.0]) + graphc.tensor([3.0, 4.0])).tolist() == [4.0, 6.0]

    x = graphc.tensor([3.0], requires_grad=True)
    (x * x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [6.0]

    graphc.manual_seed(0)
    x, w = graphc.randn(4, 8), graphc.randn(8, 3)
    expected = residual(x, w).numpy().tobytes()
    compiled = graphc.compile(residual)
    assert compiled(x, w).numpy().tobytes() == expected
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "residual.gc")
        compiled.save(path)
        assert graphc.load(path)(x, w).numpy().tobytes() == expected
    print("wheel: import, add, backward, compile, save and load work")


if __name__ == "__main__":
    main()
