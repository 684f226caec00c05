"""The reference interpreter of tensor graphs.

Enters: a Graph and arrays.  Leaves: its outputs and updates as arrays, each node computed by its operator's reference.
Never here: speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.ir.graph import Graph, Value
from graphc.ir.host import on_host
from graphc.ir.op import Host


def interpret(graph: Graph, inputs: Sequence[Any], xp: Any = np) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(outputs, new values of the updated states, in order of graph.updates).  Shapes: as the graph's types say."""
    values: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))
    for node in graph.nodes:
        operands = [values[v] for v in node.inputs]
        if isinstance(node.lowering, Host) and xp is np:
            results = on_host(node.op, operands, node.attrs)
        else:
            result = node.op.reference(xp, *operands, **node.attrs)
            results = result if isinstance(result, tuple) else (result,)
        for value, array in zip(node.outputs, results, strict=True):
            values[value] = xp.asarray(array, dtype=value.dtype.numpy)
    return tuple(values[v] for v in graph.outputs), tuple(values[new] for _, new in graph.updates)
