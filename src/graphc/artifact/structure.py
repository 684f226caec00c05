"""Structures of arguments, results and state: what their leaves are, and how they are read from a file.

Enters: values, parsed JSON.  Leaves: a `Tree` that is sure to unflatten.  Never here: the tensors themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import ArtifactError
from graphc.trees import Tree


def is_array(x: object) -> bool:
    """Whether `x` is a NumPy array or a graphc tensor (known by what it can do: this room has no tensors)."""
    return isinstance(x, np.ndarray) or (hasattr(x, "detach") and hasattr(x, "numpy") and hasattr(x, "dtype"))


def read_tree(data: Any, leaves: int) -> Tree:
    """The tree that `data` says, with exactly `leaves` leaves.  Raises ArtifactError."""
    try:
        tree = Tree.from_json(data)
        count = leaf_count(tree)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"a structure in it cannot be read ({error})") from None
    if count != leaves:
        raise ArtifactError(f"a structure in it has {count} leaves for {leaves} values")
    return tree


def leaf_count(tree: Tree) -> int:
    """How many leaves; raises ValueError or TypeError for a tree that `unflatten` would trip over."""
    if tree.kind == "leaf":
        return 1
    if tree.kind == "dict" and not len(set(tree.value)) == len(tree.value) == len(tree.children):
        raise ValueError("a dict with another number of keys than values")
    return sum(map(leaf_count, tree.children))
