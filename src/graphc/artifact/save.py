"""A built program -> one file.

Enters: graph, plan, code, state arrays, argument and result structure.  Leaves: a file.  Never here: reading.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.artifact import container, signing, weights
from graphc.artifact.load import GRAPH, NATIVE_FACTS, SIGNATURE, WEIGHTS, Parts, native_content
from graphc.runtime.link import machine_signature
from graphc.trees import Tree


def save(
    path: str | os.PathLike[str],
    *,
    name: str,
    graph_text: str,
    parts: Parts,
    arguments: Tree,
    results: Tree,
    result_count: int,
    states: list[str],
    arrays: Mapping[str, np.ndarray[Any, Any]],
) -> None:
    """Write the artifact beside `path` and rename it; an existing file stays whole on any error.

    states: for each state input of the plan, in order, the name of its array.  Raises OSError, TypeError.
    """
    entries = {GRAPH: graph_text.encode(), **parts.entries()}
    machine = machine_signature()
    facts = {"machine": machine, "signature": signing.sign(native_content(entries, machine))}
    signature = {
        "name": name,
        "arguments": arguments.to_json(),
        "results": results.to_json(),
        "result_count": result_count,
        "states": states,
    }
    container.write(
        path,
        {
            **entries,
            SIGNATURE: json.dumps(signature, indent=1).encode(),
            NATIVE_FACTS: json.dumps(facts).encode(),
            WEIGHTS: weights.to_bytes(arrays),
        },
    )
