"""Which operands of a traced node no gradient flows to: what was detached, and what was computed without a tape.

Enters: operators on traced tensors.  Leaves: nodes, and the operands that second derivatives must take as numbers.
Never here: the nodes' bits, which are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor
from graphc.ir.graph import Builder, Node, Value
from graphc.ir.op import Op

NOWHERE: frozenset[int] = frozenset()


class Stops:
    """of: the positions of such operands, by node.   apart: nodes that differ from an equal one in nothing else."""

    def __init__(self) -> None:
        self.of: dict[Node, frozenset[int]] = {}
        self.apart: dict[tuple[Node, frozenset[int]], Node] = {}

    def emit(
        self, builder: Builder, op: Op, values: Sequence[Value], attrs: dict[str, Any], operands: Sequence[Tensor]
    ) -> tuple[Value, ...]:
        """The results of a node, but not those of an equal one whose gradients go elsewhere.   values: the operands' values."""
        here = frozenset(i for i, x in enumerate(operands) if not (modes.grad and x.requires_grad))
        outputs = builder.emit(op, values, attrs)
        node = outputs[0].node
        if node is None or self.of.setdefault(node, here) == here:
            return outputs
        if (node, here) not in self.apart:
            other = Node(node.op, node.inputs, node.attrs, [v.type for v in node.outputs], builder.location)
            builder.nodes.append(other)
            self.apart[node, here], self.of[other] = other, here
        return self.apart[node, here].outputs
