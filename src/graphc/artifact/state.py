"""State dicts <-> file: nested dicts, lists and tuples of tensors and plain values.

Enters: a nested value, or a file's entries.  Leaves: a file, or the nested value with arrays for its tensors.  Never here: pickles,
tensors' classes, programs.

The tensors are one safetensors entry, each named by its path (``model.linear.weight``); the rest is a JSON skeleton.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from graphc.artifact import container, weights
from graphc.artifact.structure import is_array, read_tree
from graphc.errors import ArtifactError
from graphc.trees import Tree, flatten

SKELETON, TENSORS = "state.json", "tensors.safetensors"
_PLAIN = (bool, int, float, str, type(None))


def save_state(state: Any, path: container.Place) -> None:
    """Write a tensor, or nested dicts, lists and tuples of tensors, NumPy arrays, numbers, strings, bools and None as one file.

    Tensors that share memory are written once each; ``requires_grad`` is not written; a named tuple comes back as a tuple.
    Raises TypeError naming the place of anything else, OSError (an existing file stays whole).
    """
    try:
        leaves, tree = flatten(state, is_array)
    except RecursionError:
        raise ValueError("save: the value contains itself, or is nested too deep") from None
    if tree.kind == "static":
        raise TypeError(f"save: expected a dict, list or tuple of tensors and plain values, got {type(state).__name__}")
    names = list(_paths(tree, "", set()))
    arrays = {name: x if isinstance(x, np.ndarray) else x.detach().numpy() for name, x in zip(names, leaves, strict=True)}
    are_tensors = [not isinstance(x, np.ndarray) for x in leaves]
    skeleton = json.dumps({"tree": tree.to_json(), "names": names, "tensors": are_tensors}).encode()
    container.write(path, {SKELETON: skeleton, TENSORS: weights.to_bytes(arrays)})


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


def _paths(tree: Tree, prefix: str, taken: set[str]) -> Iterator[str]:
    """A name for every leaf, in order; raises TypeError for what a file cannot hold."""
    if tree.kind == "leaf":
        name = prefix or "tensor"
        while name in taken or name == "__metadata__":  # {"a": {"b": x}, "a.b": y}
            name += "_"
        taken.add(name)
        yield name
    elif tree.kind == "static":
        if not isinstance(tree.value, _PLAIN):
            raise TypeError(
                f"save: {prefix or 'the value'} is a {type(tree.value).__name__}; only tensors and plain values can be saved"
            )
    else:
        keys = tree.value if tree.kind == "dict" else range(len(tree.children))
        for key, child in zip(keys, tree.children, strict=True):
            if not isinstance(key, _PLAIN):
                raise TypeError(f"save: a key of {prefix or 'the dict'} is a {type(key).__name__}; keys must be strings or numbers")
            yield from _paths(child, f"{prefix}.{key}" if prefix else str(key), taken)
