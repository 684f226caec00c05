"""Public programs run with nothing changed but the import, and give PyTorch's outputs, losses, gradients and trained weights.

torchvision's resnet comes from its package; the others are read from the folder ``$GRAPHC_PUBLIC_PROGRAMS`` with checkouts of
karpathy/nanoGPT, pytorch/examples and jcjohnson/pytorch-examples in it, named as the repositories are.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import public_program
import pytest

pytest.importorskip("torch")

HERE = Path(__file__).parent
FOLDER = os.environ.get("GRAPHC_PUBLIC_PROGRAMS", "")


def outcome(backend: str, name: str, folder: Path) -> dict[str, np.ndarray]:
    """What the program gives in a process of its own, where a fallback to eager is an error."""
    out = folder / f"{backend}.npz"
    arguments = [str(HERE / "public_program.py"), backend, name, FOLDER, str(folder / "weights.npz"), str(out)]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "CompileWarning" not in done.stderr, done.stderr[-3000:]
    with np.load(out) as held:
        return {key: held[key] for key in held.files}


@pytest.mark.parametrize("name", [*public_program.CASES, *public_program.SCRIPTS])
def test_a_public_program_gives_what_it_gives_on_torch(name: str, tmp_path: Path) -> None:
    if name == "resnet":
        if importlib.util.find_spec("torchvision") is None:
            pytest.skip("torchvision is not installed")
    elif not FOLDER:
        pytest.skip("GRAPHC_PUBLIC_PROGRAMS names no folder of checkouts")
    expected, found = outcome("torch", name, tmp_path), outcome("graphc", name, tmp_path)
    assert expected.keys() == {key for key in found if not key.startswith("compiled ")}
    for key, value in found.items():
        reference = expected[key.removeprefix("compiled ")]
        # Adam makes steps of the size of lr out of gradients that are nothing but rounding: the bias of attention's keys
        atol = 1e-5 + 2e-4 * np.abs(reference).max(initial=0)
        np.testing.assert_allclose(value, reference, rtol=1e-3, atol=atol, err_msg=f"{name}: {key}")
