"""Open composites into the operators they are made of, until none is left.

Enters: any Graph.  Leaves: an equal Graph of scalar, movement, element, reduce and anchor nodes.  Never here: which
composites a target keeps whole (none does so far: opening costs nothing in fusion).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.ir.graph import Builder, Graph, Value, rewrite
from graphc.ir.op import Composite, Op


def decompose(graph: Graph) -> Graph:
    """``%1 = softmax(%0)`` --> ``reduce_max, sub, exp, reduce_sum, div``."""
    present = (*Op.table.values(), *(node.op for node in graph.nodes))  # derived operators are not listed
    rules = {op.name: (_open,) for op in present if isinstance(op.lowering, Composite)}
    return rewrite(graph, rules)


def _open(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value]:
    assert isinstance(op.lowering, Composite)
    result = op.lowering.rule(*inputs, **attrs)
    return tuple(result) if isinstance(result, tuple | list) else (result,)
