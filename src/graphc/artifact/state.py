"""State dicts as graphc wrote them before it wrote PyTorch's files: nested dicts, lists and tuples of tensors and plain values.

Enters: a file's entries.  Leaves: the nested value with arrays for its tensors.  Never here: pickles, tensors' classes, programs,
writing (`checkpoints.encode`).

The tensors are one safetensors entry, each named by its path (``model.linear.weight``); the rest is a JSON skeleton.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.artifact import weights
from graphc.artifact.structure import read_tree
from graphc.errors import ArtifactError
from graphc.trees import Tree

SKELETON, TENSORS = "state.json", "tensors.safetensors"


def state_from(entries: Mapping[str, bytes]) -> tuple[list[np.ndarray[Any, Any]], list[bool], Tree]:
    """The arrays of a state file, which of them were tensors, and the structure.  Raises ArtifactError."""
    try:
        skeleton = json.loads(entries[SKELETON])
        arrays = weights.from_bytes(entries[TENSORS])
        names, are_tensors = list(skeleton["names"]), [bool(t) for t in skeleton["tensors"]]
        if set(names) != set(arrays) or not len(names) == len(arrays) == len(are_tensors):
            raise ArtifactError("its skeleton does not fit its tensors")
        return [arrays[name] for name in names], are_tensors, read_tree(skeleton["tree"], len(names))
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"its parts do not fit together ({type(error).__name__}: {error})") from None
