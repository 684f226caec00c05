"""Built programs -> one file.

Enters: for each program its graph, plan, code and description; arrays and their structure.  Leaves: a file.  Never here: reading.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphc.artifact import container, signing, weights
from graphc.artifact.load import SIGNATURE, WEIGHTS
from graphc.artifact.program import GRAPH, NATIVE_FACTS, Description, Parts, native_content
from graphc.runtime.link import machine_signature
from graphc.trees import Tree


class Written(NamedTuple):
    """One program to write."""

    graph_text: str
    parts: Parts
    description: Description


class Structure(NamedTuple):
    """How arrays are handed out: the leaves of `tree` are the arrays `names`, of which `numbers` are Python's numbers."""

    tree: Tree
    names: Sequence[str]
    numbers: Collection[str] = ()


def save(
    path: str | os.PathLike[str],
    *,
    name: str,
    programs: Sequence[Written],
    arrays: Mapping[str, np.ndarray[Any, Any]],
    structure: Structure | None,
) -> None:
    """Write the artifact beside `path` and rename it; an existing file stays whole on any error.

    programs: the first is that of the mode in which a loaded one begins.   arrays: those that programs name as states, and others.
    structure: that of the state dict; None for a flat one of all arrays.  Raises OSError, TypeError.
    """
    machine, entries, described = machine_signature(), dict[str, bytes](), []
    for i, (graph_text, parts, description) in enumerate(programs):
        own = {GRAPH: graph_text.encode(), **parts.entries()}
        facts = {"machine": machine, "signature": signing.sign(native_content(own, machine))}
        own[NATIVE_FACTS] = json.dumps(facts).encode()
        folder = f"programs/{i}/"
        entries |= {folder + entry: data for entry, data in own.items()}
        described.append({"folder": folder, **description.to_json()})
    signature: dict[str, Any] = {"name": name, "programs": described}
    if structure is not None:
        tree, names, numbers = structure
        signature["state"] = {"tree": tree.to_json(), "names": list(names), "numbers": sorted(numbers)}
    entries |= {SIGNATURE: json.dumps(signature, indent=1).encode(), WEIGHTS: weights.to_bytes(arrays)}
    container.write(path, entries)
