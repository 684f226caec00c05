"""Memory for plans and outputs: one arena a plan, recycled aligned blocks for arrays that users receive.

Enters: sizes.  Leaves: addresses, and NumPy arrays with their addresses.  Never here: what goes where in an arena.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
from collections import deque
from sys import getrefcount
from typing import Any

import numpy as np

HUGE_PAGE = 2 << 20
ALIGNMENT = 64

# ---- arenas ----------------------------------------------------------------------------------------------------------


class Arena:
    """Private memory aligned to 2 MiB, on huge pages from that size on, that only ever grows.

    address: of the first byte; 0 before the first `reserve`.   nbytes: how much there is.
    """

    __slots__ = ("_memory", "address", "nbytes")

    def __init__(self) -> None:
        self.address = 0
        self.nbytes = 0
        self._memory: mmap.mmap | None = None

    def reserve(self, nbytes: int) -> int:
        """The address, after making sure that there are `nbytes` bytes.

        Growing gives a new address and loses the contents: nothing may be running in the arena meanwhile.
        Raises MemoryError where the system has no such room.
        """
        if nbytes > self.nbytes:
            unit = HUGE_PAGE if nbytes >= HUGE_PAGE else mmap.PAGESIZE
            capacity = -(-nbytes // unit) * unit
            self._memory = None  # given back first: the old and the new need not fit together
            self.address = self.nbytes = 0
            self._memory = _map_privately(capacity + HUGE_PAGE)
            start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
            offset = -start % HUGE_PAGE
            if unit == HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
                with contextlib.suppress(OSError):  # a kernel without huge pages: only slower
                    self._memory.madvise(mmap.MADV_HUGEPAGE, offset, capacity)
            self.address, self.nbytes = start + offset, capacity
        return self.address


def _map_privately(nbytes: int) -> mmap.mmap:
    try:
        if hasattr(mmap, "MAP_PRIVATE"):  # the default is shared memory, which has no huge pages and slower faults
            return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return mmap.mmap(-1, nbytes)
    except (OSError, OverflowError, ValueError) as error:
        raise MemoryError(f"no room for an arena of {nbytes} bytes: {error}") from error


# ---- output arrays ---------------------------------------------------------------------------------------------------
# A ring holds recently made blocks of one shape and dtype.  Every array made of a block, and every view, memoryview or
# DLPack capsule of it, holds a reference to the block's bytes: a reference count of _UNUSED says that nobody else does.

_Slot = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int]  # the bytes, the array laid over them, its address

_RING_SLOTS = 64
_TRIES = 3
_KEPT_NBYTES = 1 << 30  # blocks remembered, in use or not, before all are forgotten
_LARGEST_KEPT_NBYTES = _KEPT_NBYTES // 4
_rings: dict[tuple[tuple[int, ...], np.dtype[Any]], deque[_Slot]] = {}
_remembered_nbytes = 0


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[np.ndarray[Any, Any], int]:
    """A C-contiguous array of undefined contents, and its address, a multiple of 64.

    The memory is reused once no array, view or export of it is left.  Raises MemoryError.
    """
    ring = _rings.get((shape, dtype))
    if ring is not None:
        for _ in range(_TRIES):
            block, array, address = ring[0]
            ring.rotate(-1)
            # The local `block` is counted too, so of two threads that look at it at once at most one gets it.
            if getrefcount(block) == _UNUSED:
                return array.view(), address
    slot = _new_slot(shape, dtype)
    _remember(shape, dtype, slot)
    return slot[1].view(), slot[2]


def _new_slot(shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Slot:
    nbytes = math.prod(shape) * dtype.itemsize
    block = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = block.ctypes.data
    offset = -start % ALIGNMENT
    return block, np.ndarray(shape, dtype, block, offset), start + offset


def _remember(shape: tuple[int, ...], dtype: np.dtype[Any], slot: _Slot) -> None:
    """Keep the slot for reuse, at the ring's end; a full ring loses the slot last found in use."""
    global _remembered_nbytes
    nbytes = slot[0].nbytes
    if nbytes > _LARGEST_KEPT_NBYTES:
        return
    if _remembered_nbytes + nbytes > _KEPT_NBYTES:
        forget()
    ring = _rings.setdefault((shape, dtype), deque())
    if len(ring) >= _RING_SLOTS:
        _remembered_nbytes -= ring.pop()[0].nbytes
    _remembered_nbytes += nbytes
    ring.append(slot)


def forget() -> None:
    """Give back every block that nobody uses; those in use go when their users drop them."""
    global _remembered_nbytes
    _rings.clear()
    _remembered_nbytes = 0


def _references_when_unused() -> int:
    """What `aligned_empty` counts for a block that only its ring holds (it differs between Python versions)."""
    ring = deque([_new_slot((1,), np.dtype(np.uint8))])
    block, array, _ = ring[0]
    assert array.base is block
    return getrefcount(block)


_UNUSED = _references_when_unused()
