"""`graphc.save` and `graphc.load`: the artifact room with tensors and the compiler handed to it, both only when a file needs them.

Enters: state dicts, paths.  Leaves: files, state dicts, loaded programs.  Never here: what a file holds.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from graphc.artifact import files
from graphc.runtime.plan import Plan


def save(obj: Any, path: str | os.PathLike[str]) -> None:
    """Write a state dict as one file without pickles.

    It may nest dicts, lists and tuples of tensors, arrays, numbers, strings, bools and None.  Tensors come back as
    copies that do not require grad.  (A compiled function is written by its own ``save``.)

    Raises TypeError naming the place of anything else; OSError, and an existing file stays whole.
    Differs from torch: no other Python objects.
    """
    files.save(obj, path)


def load(path: str | os.PathLike[str]) -> Any:
    """What is in the file: the program that ``compiled.save`` wrote, as a callable, or the state dict that `save` wrote.

    Raises ArtifactError for a damaged, altered or foreign file, OSError for one that cannot be read.
    """
    return files.load(path, wrap=_tensor, rebuild=_rebuild)


def _tensor(array: np.ndarray[Any, Any]) -> Any:
    from graphc.eager.tensor import wrap_array

    return wrap_array(array)


def _rebuild(graph_text: str) -> tuple[Plan, bytes]:
    import graphc.ops  # noqa: F401  the table that the text names
    from graphc.ir.text import parse_graph
    from graphc.pipeline import build

    built = build(parse_graph(graph_text))
    return built.plan, built.code
