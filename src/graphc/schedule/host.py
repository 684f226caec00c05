"""Host nodes between the kernels of a schedule.

Enters: a node that its reference runs.  Leaves: a `HostLaunch`.  Never here: which nodes those are (`ir.op.effective_lowering`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphc.ir.graph import Node, Value
from graphc.ir.op import Op
from graphc.schedule.lower import Context


@dataclass(frozen=True)
class HostLaunch:
    """One operator run by its reference.  `line`: the code under which the schedule's messages hold the user's line."""

    op: Op
    attrs: dict[str, Any]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    line: int
    members: tuple[Node, ...] = ()
    checks: bool = True  # it may raise
    note: str = "on the host"

    @property
    def buffers(self) -> tuple[Value, ...]:
        """Stored values: operands, then results."""
        return (*self.inputs, *self.outputs)


def lower_host(node: Node, context: Context) -> HostLaunch:
    """The launch of a host node."""
    return HostLaunch(node.op, node.attrs, node.inputs, node.outputs, context.checks.line(node), (node,))


def copy_on_host(value: Value, target: Value, context: Context) -> HostLaunch:
    """A copy of `value` into the buffer of `target`, for dtypes that no kernel knows."""
    return HostLaunch(Op.table["clone"], {}, (value,), (target,), context.checks.line(None))
