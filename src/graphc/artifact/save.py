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
from graphc.artifact.load import GRAPH, NATIVE, NATIVE_FACTS, PLAN, SIGNATURE, WEIGHTS, native_content
from graphc.runtime.link import machine_signature
from graphc.runtime.plan import Plan
from graphc.trees import Tree


def save(
    path: str | os.PathLike[str],
    *,
    name: str,
    graph_text: str,
    plan: Plan,
    code: bytes,
    arguments: Tree,
    results: Tree,
    result_count: int,
    states: list[str],
    arrays: Mapping[str, np.ndarray[Any, Any]],
) -> None:
    """Write the artifact beside `path` and rename it; an existing file stays whole on any error.

    states: for each state input of the plan, in order, the name of its array.  Raises OSError, TypeError.
    """
    graph = graph_text.encode()
    plan_json = json.dumps(plan.to_json()).encode()
    machine = machine_signature()
    facts = {"machine": machine, "signature": signing.sign(native_content(graph, plan_json, machine, code))}
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
            GRAPH: graph,
            PLAN: plan_json,
            SIGNATURE: json.dumps(signature, indent=1).encode(),
            NATIVE_FACTS: json.dumps(facts).encode(),
            NATIVE: code,
            WEIGHTS: weights.to_bytes(arrays),
        },
    )
