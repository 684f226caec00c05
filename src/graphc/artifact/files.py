"""What ``graphc.save`` and ``graphc.load`` do with a path.

Enters: a state dict, or a path.  Leaves: a file; a `Loaded` program or the state dict, by what the file holds.
Never here: formats; tensors and the compiler, which the caller hands in.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.artifact import container, state
from graphc.artifact.load import Rebuild, loaded_from
from graphc.artifact.state import save_state
from graphc.errors import ArtifactError

Wrap = Callable[[np.ndarray[Any, Any]], Any]


def save(obj: Any, path: str | os.PathLike[str]) -> None:
    """Write a state dict (see `save_state`).  Raises TypeError for anything but nested tensors and plain values, OSError."""
    if hasattr(obj, "save") and hasattr(obj, "explain"):
        raise TypeError("save: a compiled function writes itself: compiled.save(path)")
    save_state(obj, path)


def load(path: str | os.PathLike[str], *, wrap: Wrap | None = None, rebuild: Rebuild | None = None) -> Any:
    """The program that `Compiled.save` wrote, or the state dict that `save` wrote.

    wrap: array -> tensor (None: tensors come back as arrays).   rebuild: graph text -> plan and code, for native code that is not
    this user's or not for this machine (None: such a file is an error).
    Raises ArtifactError for a file that is neither, or not whole; OSError for one that cannot be read.
    """
    entries = container.read(path)
    name = os.path.basename(os.fspath(path))
    try:
        if state.SKELETON not in entries:
            return loaded_from(entries, wrap=wrap, rebuild=rebuild)
        arrays, are_tensors, tree = state.state_from(entries)
    except ArtifactError as error:
        raise ArtifactError(f"{name}: {error}") from error.__cause__
    return tree.unflatten([wrap(a) if is_tensor and wrap else a for a, is_tensor in zip(arrays, are_tensors, strict=True)])
