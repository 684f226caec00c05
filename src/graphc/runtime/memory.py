"""Memory for plans and outputs: arenas that calls borrow, recycled aligned blocks for arrays that users receive.

Enters: sizes.  Leaves: addresses, and NumPy arrays with their addresses.  Never here: what goes where in an arena.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
from collections.abc import Callable
from typing import Any
from weakref import finalize

import numpy as np

HUGE_PAGE = 2 << 20
ALIGNMENT = 64

# ---- arenas ----------------------------------------------------------------------------------------------------------


class Arena:
    """Private memory aligned to 2 MiB, on huge pages from that size on, that only ever grows.

    address: of the first byte; 0 before the first `reserve`.   nbytes: how much there is.
    """

    __slots__ = ("address", "memory", "nbytes")

    def __init__(self) -> None:
        self.address = 0
        self.nbytes = 0
        self.memory: mmap.mmap | None = None

    def reserve(self, nbytes: int) -> int:
        """The address, after making sure that there are `nbytes` bytes.

        Growing gives a new address and loses the contents: nothing may be running in the arena meanwhile.
        Raises MemoryError where the system has no such room.
        """
        if nbytes > self.nbytes:
            unit = HUGE_PAGE if nbytes >= HUGE_PAGE else mmap.PAGESIZE
            capacity = -(-nbytes // unit) * unit
            self.memory = None  # given back first: the old and the new need not fit together
            self.address = self.nbytes = 0
            self.memory = _map_privately(capacity + HUGE_PAGE)
            start = _start(self.memory)
            offset = -start % HUGE_PAGE
            if unit == HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
                with contextlib.suppress(OSError):  # a kernel without huge pages: only slower
                    self.memory.madvise(mmap.MADV_HUGEPAGE, offset, capacity)
            self.address, self.nbytes = start + offset, capacity
        return self.address


def _map_privately(nbytes: int) -> mmap.mmap:
    try:
        if hasattr(mmap, "MAP_PRIVATE"):  # the default is shared memory, which has no huge pages and slower faults
            return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return mmap.mmap(-1, nbytes)
    except (OSError, OverflowError, ValueError) as error:
        raise MemoryError(f"no room for {nbytes} bytes: {error}") from error


# ---- arenas that programs borrow -------------------------------------------------------------------------------------

_idle_arenas: list[Arena] = []


def borrow_arena() -> Arena:
    """An arena that no call is using: the one used last, so that programs which run one after the other share one."""
    try:
        return _idle_arenas.pop()
    except IndexError:
        return Arena()


def return_arena(arena: Arena) -> None:
    """The end of a borrowing."""
    _idle_arenas.append(arena)


class Need:
    """Someone needs an arena of so many bytes, as long as this object lives.  Larger ones than anybody needs are given back."""

    __slots__ = ("__weakref__", "nbytes")

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        _needed[nbytes] = _needed.get(nbytes, 0) + 1
        finalize(self, _need_less, nbytes).atexit = False  # not __del__, which may find itself without its defaults and globals


def _need_less(nbytes: int) -> None:
    left = _needed[nbytes] - 1
    if left:
        _needed[nbytes] = left
        return
    del _needed[nbytes]
    most = largest_need()
    if nbytes > most:
        _idle_arenas[:] = [arena for arena in _idle_arenas if arena.nbytes <= most + HUGE_PAGE]
        for tell in told:
            tell(most)


_needed: dict[int, int] = {}  # how many need an arena of so many bytes
told: list[Callable[[int], None]] = []  # called with the most bytes that anybody needs when those are fewer than before


def largest_need() -> int:
    """The bytes of the largest arena that anybody may need."""
    return max(list(_needed), default=0)


# ---- output arrays ---------------------------------------------------------------------------------------------------
# A block is memory that an array is laid over.  The array, and every view, memoryview or DLPack capsule of it, holds a reference
# to a lease; when the last is gone the lease puts the block's address on its stack, where the next array of that size finds it.

_KEPT_NBYTES = 1 << 30  # in blocks, before those that nobody uses are given back
_LARGEST_KEPT_NBYTES = _KEPT_NBYTES // 4
_MAPPED_NBYTES = 1 << 20  # blocks from this size on are mapped one by one
_IDLE_NBYTES = 64 << 20  # what may lie idle, or a quarter of what is used, while more is asked of the system

_known: dict[tuple[tuple[int, ...], np.dtype[Any]], Stack] = {}
_KNOWN_LIMIT = 4096
_stacks: dict[int, Stack] = {}  # by capacity
_blocks: dict[int, tuple[Any, int]] = {}  # what every block's memory belongs to, by address, and its bytes
_kept_nbytes = 0
_keep: Any = ctypes.pythonapi.Py_IncRef
_keep.argtypes, _keep.restype = [ctypes.py_object], None
_keep(_blocks)  # arrays may outlive this module


class Stack:
    """The idle blocks of one capacity.   addresses: the block used last, which may still be in a cache, is at the end.
    lease: the type of what gives one back."""

    __slots__ = ("addresses", "capacity", "lease")

    def __init__(self, capacity: int) -> None:
        self.capacity, self.addresses = capacity, list[int]()
        push, addressof = self.addresses.append, ctypes.addressof

        def give_back(lease: Any) -> None:
            push(addressof(lease))

        _keep(self.addresses)  # leases that end while the interpreter does still go there
        self.lease = type("Lease", (ctypes.c_char * capacity,), {"__slots__": (), "__del__": give_back})

    def new_block(self) -> int:
        """The address of one block more.  Raises MemoryError."""
        global _kept_nbytes
        if _kept_nbytes + self.capacity > _KEPT_NBYTES:
            forget()
        elif self.capacity >= _MAPPED_NBYTES:
            _forget_surplus()
        memory, address = _aligned_memory(self.capacity)
        _blocks[address] = memory, self.capacity
        _kept_nbytes += self.capacity
        return address


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[np.ndarray[Any, Any], int]:
    """A C-contiguous array of undefined contents, and its address, a multiple of 64.

    The memory is reused once no array, view or export of it is left.  Raises MemoryError.
    """
    stack = _known.get((shape, dtype))
    if stack is None:
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes > _LARGEST_KEPT_NBYTES:
            memory, address = _aligned_memory(nbytes)
            return np.ndarray(shape, dtype, memory, address - _start(memory)), address
        if len(_known) >= _KNOWN_LIMIT:
            _known.clear()
        stack = _known[(shape, dtype)] = stack_for(nbytes)
    try:
        address = stack.addresses.pop()
    except IndexError:
        address = stack.new_block()
    return np.ndarray(shape, dtype, stack.lease.from_address(address)), address  # type: ignore[attr-defined]


def stack_for(nbytes: int) -> Stack:
    """The stack of blocks for arrays of `nbytes` bytes; sizes that differ by less than an eighth share one."""
    step = max(ALIGNMENT, 1 << max(nbytes.bit_length() - 4, 0))
    capacity = max(-(-nbytes // step), 1) * step
    return _stacks.get(capacity) or _stacks.setdefault(capacity, Stack(capacity))


def _aligned_memory(nbytes: int) -> tuple[Any, int]:
    """Writable memory and an address in it with `nbytes` bytes behind it: on huge pages where those fit."""
    if nbytes < _MAPPED_NBYTES:
        small = bytearray(nbytes + ALIGNMENT)
        start = _start(small)
        return small, start + -start % ALIGNMENT
    if nbytes < HUGE_PAGE:
        mapped = _map_privately(nbytes)
        return mapped, _start(mapped)
    arena = Arena()
    address = arena.reserve(nbytes)
    return arena.memory, address


def _start(memory: Any) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def forget(most: int = 0) -> None:
    """Give back blocks that nobody uses, the largest first, until no more than `most` bytes lie idle."""
    global _kept_nbytes
    stacks = sorted(_stacks.values(), key=lambda stack: -stack.capacity)
    idle = sum(stack.capacity * len(stack.addresses) for stack in stacks)
    for stack in stacks:
        while idle > most:
            try:
                address = stack.addresses.pop()
            except IndexError:  # none is left, or another thread has just taken the last
                break
            _, nbytes = _blocks.pop(address)
            _kept_nbytes -= nbytes
            idle -= nbytes


def _forget_surplus() -> None:
    """Before more is mapped: a model that is being made leaves as much behind as it keeps, in sizes that never come again."""
    idle = sum(stack.capacity * len(stack.addresses) for stack in list(_stacks.values()))
    most = max(_IDLE_NBYTES, (_kept_nbytes - idle) // 4)
    if idle > most:
        forget(most)
