"""A plan with its code linked: addresses in, results out.

Enters: a `Plan`, the entry's address, buffer addresses.  Leaves: filled output buffers; IndexError with the check's message when the
program recorded a failure.  Never here: tensors, shapes checks, compilation.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence

import numpy as np

from graphc import dims
from graphc.runtime import threads
from graphc.runtime.memory import Arena
from graphc.runtime.plan import FIRST_SLOT, Plan


class Program:
    """Callable compiled code.  Safe to call from several threads (each concurrent call gets its own table and arena)."""

    def __init__(self, plan: Plan, entry: int) -> None:
        self.plan = plan
        self._entry = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(entry)
        self._idle: list[_Frame] = []
        self._lock = threading.Lock()
        self._outputs_at = FIRST_SLOT + len(plan.inputs)

    def __call__(self, inputs: Sequence[int], outputs: Sequence[int], sizes: Sequence[int] = ()) -> None:
        """Run.  `inputs`/`outputs`: addresses of whole contiguous buffers; `sizes`: values of plan.sizes.

        Raises IndexError where a run-time check failed; no state has been written then.
        """
        try:
            frame = self._idle.pop()
        except IndexError:
            frame = _Frame(self.plan)
        pool = threads.pool()
        table = frame.table
        table[1] = pool.threads
        table[FIRST_SLOT : self._outputs_at] = inputs
        table[self._outputs_at : self._outputs_at + len(outputs)] = outputs
        held = frame.size_for(self.plan, sizes) if sizes else None
        frame.status.value = 0
        failed = self._entry(frame.address, pool.run_address, pool.address)
        self._idle.append(frame)
        del held
        if failed:
            raise IndexError(self.plan.messages[failed - 1])


class _Frame:
    """One table, its status word and its arena."""

    def __init__(self, plan: Plan) -> None:
        self.status = ctypes.c_int64(0)
        self.table = (ctypes.c_int64 * plan.slots)()
        self.address = ctypes.addressof(self.table)
        self.table[0] = ctypes.addressof(self.status)
        self.arena = Arena()
        at = FIRST_SLOT + len(plan.inputs) + len(plan.outputs)
        if plan.arena_nbytes:
            self.arena.reserve(plan.arena_nbytes)
            for i, offset in enumerate(plan.arena_offsets):
                self.table[at + i] = self.arena.address + offset
        self.temporaries_at = at + len(plan.arena_offsets)

    def size_for(self, plan: Plan, sizes: Sequence[int]) -> list[np.ndarray]:
        """Fill in sizes and fresh temporaries; the arrays returned keep the temporaries alive."""
        named = dict(zip(plan.sizes, sizes, strict=True))
        held = []
        for i, nbytes in enumerate(plan.temporaries):
            buffer = np.empty(max(dims.evaluate(nbytes, named), 1) + 64, np.uint8)
            held.append(buffer)
            self.table[self.temporaries_at + i] = (buffer.ctypes.data + 63) // 64 * 64
        at = self.temporaries_at + len(plan.temporaries)
        self.table[at : at + len(sizes)] = sizes
        return held
