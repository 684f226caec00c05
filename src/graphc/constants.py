"""What a compiled program made of tensors that hardly ever change, and whether it still holds.

Enters: the program over constants, the tensors it reads.  Leaves: addresses of its results.  Never here: which work that is
(passes.prepare).

A result holds while every tensor has the storage, the storage the array, and its version and `lent` are the very objects they were.
Every write raises the version, so nothing else needs to be told of a write.  Memory that NumPy or another library may hold is
written to unseen; while it may be, the work is done again at every call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from sys import getrefcount
from typing import Any

import numpy as np

from graphc.eager.storage import array_address
from graphc.eager.tensor import Tensor
from graphc.leases import is_out
from graphc.runtime.memory import Arena
from graphc.runtime.prepared import PreparedMemory
from graphc.runtime.program import Program

FEWEST_RUNS = 4
LARGEST_SHARE = 0.25  # of the time, for work that was meant to be done once
Source = tuple[Tensor, Any, Any, Any, Any]  # a tensor, its storage, and the storage's array, version and `lent`


class Held:
    """Results, and what they were made from.   steady: False where a tensor is lent out, so that they hold for one call only."""

    __slots__ = ("memory", "sources", "steady")

    def __init__(self, sources: list[Source], memory: PreparedMemory) -> None:
        self.sources, self.memory = sources, memory
        self.steady = not any(is_out(lent) for *_, lent in sources)

    @property
    def addresses(self) -> list[int]:
        """One for each of the program's last inputs; good as long as this object lives."""
        return self.memory.addresses

    def is_current(self) -> bool:
        """Whether nothing has changed since.  Machine code may compare the same words of the same objects instead."""
        if not self.steady:
            return False
        for tensor, storage, array, version, lent in self.sources:
            if (
                tensor._storage is not storage
                or storage.version is not version
                or storage.array is not array
                or storage.lent is not lent
            ):
                return False
        return True


class Constants:
    """now: the latest results.  A call takes `held()` once and keeps it until it is over; a change makes new results and leaves
    the old to the calls that run.

    unsteady: which tensors change so often that preparing costs more than it saves; whoever sees it compiles again without them.
    """

    def __init__(self, program: Program, tensors: Sequence[Tensor]) -> None:
        self.program, self.tensors = program, list(tensors)
        self.now: Held | None = None
        self.unsteady: list[int] = []
        self._lock = threading.Lock()
        self._changes = [0] * len(self.tensors)
        self._runs, self._seconds, self._since = 0, 0.0, 0.0

    def held(self) -> Held:
        """Results of the tensors as they are.  Raises what the program raises."""
        now = self.now
        if now is not None and now.is_current():
            return now
        with self._lock:
            now = self.now
            if now is not None and now.is_current():
                return now
            start = time.perf_counter()
            self.now = None
            arena = None
            if now is not None:
                self._count(now)
                if getrefcount(now) == 2:  # this function alone: no call reads it, and none can get it any more
                    arena = now.memory.arena
            self.now = now = self._made(arena)
            self._judge(start)
            return now

    def _made(self, arena: Arena | None) -> Held:
        # Versions first: what is written while the program runs makes the next call run it again.
        sources: list[Source] = []
        for tensor in self.tensors:
            storage = tensor._storage
            sources.append((tensor, storage, storage.array, storage.version, storage.lent))
        arrays = [np.ascontiguousarray(array) for _, _, array, _, _ in sources]
        return Held(sources, PreparedMemory(self.program, [array_address(a) for a in arrays], arena))

    def _count(self, before: Held) -> None:
        for i, (tensor, storage, array, version, lent) in enumerate(before.sources):
            now = tensor._storage
            changed = now is not storage or now.version is not version or now.array is not array or is_out(lent)
            self._changes[i] += changed or now.lent is not lent

    def _judge(self, start: float) -> None:
        """Find out what changes all the time."""
        end = time.perf_counter()
        self._since = self._since or end
        self._runs, self._seconds = self._runs + 1, self._seconds + (end - start if self._runs else 0.0)
        if self._runs > FEWEST_RUNS and self._seconds > LARGEST_SHARE * (end - self._since):
            self.unsteady = [i for i, count in enumerate(self._changes) if 2 * count >= self._runs - 1]


def may_hold(storage: Any) -> bool:
    """Whether the tensors of a storage may be constants at all: not where nothing could ever tell that they changed."""
    return storage.lent is not True
