"""The results of a program over constants: kept in one piece of memory for as long as anybody reads them.

Enters: a linked `Program`, addresses.  Leaves: addresses.  Never here: when constants change.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc import dims
from graphc.runtime.memory import ALIGNMENT, Arena, forget
from graphc.runtime.plan import Plan
from graphc.runtime.program import Program

LARGE_NBYTES = 1 << 26  # from here on, memory that nobody uses is given back first


class PreparedMemory:
    """addresses: of each output.   arena: what they lie in; they are good as long as this object lives."""

    __slots__ = ("__weakref__", "addresses", "arena")

    def __init__(self, program: Program, inputs: Sequence[int], arena: Arena | None = None) -> None:
        """Run the program.  arena: one to use again.  Raises what the program raises."""
        offsets, total = layout(program.plan)
        self.arena = arena or Arena()
        if total > max(self.arena.nbytes, LARGE_NBYTES):
            forget()  # what was made while parameters were initialised, often as much as they are
        start = self.arena.reserve(max(total, 1))
        self.addresses = [start + offset for offset in offsets]
        program(inputs, self.addresses)


def layout(plan: Plan) -> tuple[list[int], int]:
    """Where each output of a plan of static sizes is, and how many bytes there are."""
    offsets, total = [], 0
    for spec in plan.outputs:
        offsets.append(total)
        nbytes = int(dims.product(spec.shape)) * spec.dtype.itemsize
        total += -(-nbytes // ALIGNMENT) * ALIGNMENT
    return offsets, total
