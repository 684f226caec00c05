"""A plan with its code linked: addresses in, results out.

Enters: a `Plan`, the entry's address, buffer addresses.  Leaves: filled output buffers; the check's error and message
when the program recorded a failure, or what an operator on the host raised.  Never here: tensors, shapes checks, compilation.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import dims
from graphc.errors import failed_check
from graphc.ir.loops import ENTRY, FIRST_SLOT, HOST_FAILED, STATUS_SLOT, THREADS_SLOT
from graphc.runtime import threads
from graphc.runtime.host import HostCalls, Resolve
from graphc.runtime.link import Code
from graphc.runtime.memory import Need, aligned_empty, borrow_arena, return_arena
from graphc.runtime.plan import Plan

_BYTE = np.dtype(np.uint8)
HELD_NBYTES = 1 << 15  # a program over less memory than this runs without giving up the interpreter lock


class Program:
    """Callable compiled code.  Safe to call from several threads (each concurrent call gets a table and an arena).

    idle: frames that no call is using; `new_frame()` makes another.   pool: the threads it runs on.
    code: where the entry is; unloaded when the program is gone.
    resolve: finds what runs a host call; only a plan without any may go without.
    """

    def __init__(self, plan: Plan, code: Code, resolve: Resolve | None = None) -> None:
        self.plan, self.code = plan, code
        entry = code.addresses[ENTRY]
        if plan.host_calls and resolve is None:
            raise ValueError(f"{plan.host_calls[0].op} runs on the host, and nothing was given that runs it")
        self._host = HostCalls(plan, resolve) if plan.host_calls and resolve is not None else None
        self.address = entry
        self._entry = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(entry)
        self.idle: list[_Frame] = []
        self.pool = threads.pool()
        self._arena_nbytes = plan.arena_nbytes
        self._need = Need(plan.arena_nbytes)
        self._buffers_end = FIRST_SLOT + len(plan.inputs) + len(plan.outputs)

    def new_frame(self) -> _Frame:
        """A table with its status word, for one call at a time."""
        frame = _Frame(self.plan)
        if self._host is not None:
            frame.table[self.plan.callback_slot] = self._host.address
        return frame

    def failure(self, table_address: int, status: int) -> BaseException:
        """What to raise after a call whose entry returned a status other than 0."""
        if status == HOST_FAILED and self._host is not None:
            return self._host.failure(table_address)
        return failed_check(self.plan.messages[status - 1])

    @staticmethod
    def is_long(nbytes: int) -> bool:
        """Whether other Python threads should run meanwhile, and the pool's threads help."""
        return nbytes > HELD_NBYTES

    def entry_for(self, nbytes: int) -> Callable[[int, int, int], int]:
        """The entry as a Python callable for a call that touches `nbytes`: a short one keeps the interpreter lock (0.2 us less)."""
        if self.is_long(nbytes):
            return self._entry
        return ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(self.address)

    def __call__(self, inputs: Sequence[int], outputs: Sequence[int], sizes: Sequence[int] = ()) -> None:
        """Run.  `inputs`/`outputs`: addresses of whole contiguous buffers; `sizes`: values of plan.sizes.

        Raises as `failed_check` where a run-time check failed, or what an operator on the host raised; no state is written then.
        """
        try:
            frame = self.idle.pop()
        except IndexError:
            frame = self.new_frame()
        table = frame.table
        table[THREADS_SLOT] = self.pool.threads
        table[FIRST_SLOT : self._buffers_end] = [*inputs, *outputs]
        held = frame.size_for(self.plan, sizes) if sizes else None
        if self._arena_nbytes:
            arena = borrow_arena()
            frame.lay_over(arena.reserve(self._arena_nbytes))
            failed = self._entry(frame.address, self.pool.run_address, self.pool.address)
            return_arena(arena)
        else:
            failed = self._entry(frame.address, self.pool.run_address, self.pool.address)
        if failed:
            frame.status.value = 0  # an idle frame's status is always 0
        self.idle.append(frame)
        del held
        if failed:
            raise self.failure(frame.address, failed)


class _Frame:
    """One table and its status word."""

    def __init__(self, plan: Plan) -> None:
        self.status = ctypes.c_int64(0)
        self.table: Any = (ctypes.c_int64 * plan.slots)()  # slices take any sequence of integers
        self.address = ctypes.addressof(self.table)
        self.table[STATUS_SLOT] = ctypes.addressof(self.status)
        self.table[THREADS_SLOT] = 1
        self._arena_address = 0
        self._arena_at = FIRST_SLOT + len(plan.inputs) + len(plan.outputs)
        self._arena_offsets = plan.arena_offsets
        self.temporaries_at = self._arena_at + len(plan.arena_offsets)

    def lay_over(self, address: int) -> None:
        """Put the arena's values at `address`."""
        if address != self._arena_address:
            self._arena_address = address
            self.table[self._arena_at : self.temporaries_at] = [address + offset for offset in self._arena_offsets]

    def size_for(self, plan: Plan, sizes: Sequence[int]) -> list[np.ndarray[Any, Any]]:
        """Fill in sizes and fresh temporaries; the arrays returned keep the temporaries alive."""
        at = self.temporaries_at + len(plan.temporaries)
        self.table[at : at + len(sizes)] = sizes
        if not plan.temporaries:
            return []
        named = dict(zip(plan.sizes, sizes, strict=True))
        held = []
        for i, nbytes in enumerate(plan.temporaries):
            buffer, address = aligned_empty((max(dims.evaluate(nbytes, named), 1),), _BYTE)
            held.append(buffer)
            self.table[self.temporaries_at + i] = address
        return held
