"""Messages between a loader and its workers, with the memory of tensors beside them.

Enters: objects.  Leaves: equal objects in the other process, whose tensors and arrays lie where the worker wrote them.
Never here: processes, what messages mean.

A worker writes arrays into memory of files without a name (`Arena`), and sends the descriptor of each once over its socket; the
parent maps it.  So nothing has to be removed, however a process ends.  When nothing in the parent refers to a batch any more, its
memory's number goes back to the worker, which uses it again.  Memory that another forked process may see is never used again.
"""

from __future__ import annotations

import array
import contextlib
import copyreg
import ctypes
import errno
import io
import mmap
import os
import pickle
import socket
import struct
import tempfile
import weakref
from collections import deque
from collections.abc import Iterable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np

from graphc.data.interrupts import uninterrupted
from graphc.dtypes import DType
from graphc.eager.storage import Phantom, Storage, array_address
from graphc.eager.tensor import Tensor, place

CAN_SHARE = hasattr(socket, "SCM_RIGHTS") and hasattr(socket, "AF_UNIX")
CAN_LOOK = hasattr(socket, "MSG_DONTWAIT")  # elsewhere a read or write of a socket waits
_NOW = getattr(socket, "MSG_DONTWAIT", 0)
SMALL_NBYTES = 16384  # an array below this size is copied through the socket
INLINE_NBYTES = 65536  # as are the small ones of a message up to this sum
_ALIGNMENT = 64
_ANSWER = struct.Struct("<qqq")  # bytes of small arrays, bytes of the pickle, descriptors
_LENGTH = struct.Struct("<q")
_MOST_DESCRIPTORS = 64  # of a message
_FAILED = ctypes.c_void_p(-1).value

if CAN_SHARE:
    _libc = ctypes.CDLL(None, use_errno=True)
    _map, _unmap = _libc.mmap, _libc.munmap
    _map.restype = ctypes.c_void_p
    _map.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    _unmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class Memory:
    """The memory of a file: mapped now, unmapped with the last reference.  The descriptor may be closed afterwards.

    (Python's own maps keep a descriptor each, so a list of many batches would run out of them.)  Raises OSError.
    """

    __slots__ = ("__weakref__", "address", "nbytes")

    def __init__(self, descriptor: int, nbytes: int) -> None:
        self.address, self.nbytes = 0, nbytes
        found = _map(None, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, descriptor, 0)
        if found == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, f"DataLoader: cannot map {nbytes} bytes of shared memory: {os.strerror(number)}")
        self.address = found

    def __del__(self) -> None:
        if self.address and _unmap is not None:  # None while Python ends
            _unmap(self.address, self.nbytes)


class Lease:
    """What arrays on a `Memory` are based on, so that its end is the end of all of them; `number` is then put into `freed`
    (less than zero, ``~number``, where the memory must not be used again)."""

    __slots__ = ("__weakref__", "final", "freed", "memory", "number")

    def __init__(self, memory: Memory, number: int, freed: deque[int]) -> None:
        self.memory, self.number, self.freed, self.final = memory, number, freed, False

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"data": (self.memory.address, False), "shape": (self.memory.nbytes,), "typestr": "|u1", "version": 3}

    def __del__(self) -> None:
        self.freed.append(~self.number if self.final else self.number)


_leases: weakref.WeakSet[Lease] = weakref.WeakSet()  # of this process, as the parent of workers
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _before_fork() -> None:
    while True:
        try:
            for lease in list(_leases):
                lease.final = True
            return
        except RuntimeError:  # another thread received a batch
            continue


def _in_child() -> None:
    for ours in list(_sockets):  # else workers would not notice the end of their parent
        with contextlib.suppress(OSError):
            ours.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)


# ---- the worker's end ------------------------------------------------------------------------------------------------


class Segment:
    """Memory that a worker made: how many messages with it the parent still holds (`out`), how much of it the batch that is being
    made has taken (`used`), and what this process's arrays on it are based on (`hold`)."""

    __slots__ = ("hold", "memory", "number", "out", "used")

    def __init__(self, number: int, memory: Memory) -> None:
        self.number, self.memory, self.out, self.used = number, memory, 0, 0
        self.hold: weakref.ref[Lease] | None = None

    @property
    def idle(self) -> bool:
        return not self.out and (self.hold is None or self.hold() is None)


class Arena:
    """Shared memory that a worker writes batches into.

    keep: how many idle segments are kept for batches to come.
    """

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.segments: dict[int, Segment] = {}
        self.made: list[tuple[int, int, int]] = []  # number, bytes, descriptor: for the next message
        self.dropped: list[int] = []
        self._current: Segment | None = None
        self._base: np.ndarray[Any, Any] | None = None  # the whole of the current segment
        self._count, self._largest, self._taken = 0, 0, 0
        self._ends: deque[int] = deque(maxlen=0)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        """An array to be filled; in shared memory, unless it is small."""
        dtype = np.dtype(dtype)
        nbytes = dtype.itemsize
        for size in shape:
            nbytes *= size
        if nbytes < SMALL_NBYTES or not CAN_SHARE:
            return np.empty(shape, dtype)
        return self.reserve(nbytes).view(dtype).reshape(shape)

    def reserve(self, nbytes: int) -> np.ndarray[Any, Any]:
        """So many bytes of a segment that nobody else uses."""
        segment = self._current
        if segment is None or segment.used + nbytes > segment.memory.nbytes:
            segment = self._open(max(nbytes, self._largest - self._taken, self._taken))  # twice as much: few segments
        assert self._base is not None
        start = segment.used
        room = -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        segment.used += room
        self._taken += room
        return self._base[start : start + nbytes]

    def _open(self, nbytes: int) -> Segment:
        """The smallest idle segment that is large enough, or a new one, as the current one."""
        fitting = [s for s in self.segments.values() if s.memory.nbytes >= nbytes and s.idle and s is not self._current]
        segment = min(fitting, key=lambda s: s.memory.nbytes) if fitting else self._make(nbytes)
        lease = Lease(segment.memory, segment.number, self._ends)
        segment.hold, segment.used = weakref.ref(lease), 0
        self._current, self._base = segment, np.asarray(lease)
        return segment

    def _make(self, nbytes: int) -> Segment:
        step = max(mmap.PAGESIZE, 1 << (nbytes.bit_length() - 3))  # at most an eighth more, so that similar batches fit too
        nbytes = -(-nbytes // step) * step
        descriptor = unnamed_file(nbytes)
        try:
            segment = Segment(self._count, Memory(descriptor, nbytes))
        except OSError:
            os.close(descriptor)
            raise
        self._count += 1
        self.segments[segment.number] = segment
        self.made.append((segment.number, nbytes, descriptor))
        return segment

    def finish(self) -> None:
        """The batch is complete: the next one begins in another segment."""
        self._largest, self._taken = max(self._taken, self._largest * 15 // 16), 0
        self._current = self._base = None

    def freed(self, numbers: Iterable[int]) -> None:
        """The parent let go of messages with these segments."""
        for number in numbers:
            segment = self.segments.get(~number if number < 0 else number)
            if segment is None:  # dropped for another message of it
                continue
            segment.out -= 1
            if number < 0:
                del self.segments[segment.number]
                self.dropped.append(segment.number)
        idle = [s.number for s in self.segments.values() if s.idle and s is not self._current]
        for number in idle[: max(0, len(idle) - self.keep)]:
            del self.segments[number]
            self.dropped.append(number)

    def find(self, address: int) -> Segment | None:
        """The segment that an address lies in."""
        for segment in self.segments.values():
            if 0 <= address - segment.memory.address < segment.memory.nbytes:
                return segment
        return None


def unnamed_file(nbytes: int) -> int:
    """The descriptor of a new file of so many zeros that has no name.  Raises OSError."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("graphc-batch", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, nbytes)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _tensor(storage: Storage, dtype: DType) -> Tensor:
    return place(storage.array, dtype, storage, (), None)


def _reduced(x: Tensor) -> Any:
    """A tensor that is the whole of its storage, as its storage; any other as its own pickle."""
    storage = x._storage
    if x._array is storage.array and not x.requires_grad and type(x._array) is not Phantom:
        return _tensor, (storage, x.dtype)
    return x.__reduce_ex__(pickle.HIGHEST_PROTOCOL)


class Speaker:
    """A worker's side of its socket: tasks in, answers out."""

    def __init__(self, theirs: socket.socket, keep: int) -> None:
        self.socket, self.arena = theirs, Arena(keep)
        self._reducers = {**copyreg.dispatch_table, **ForkingPickler._extra_reducers, Tensor: _reduced}  # type: ignore[attr-defined]
        self._unread = bytearray()

    def tasks(self) -> list[Any] | None:
        """What came, without waiting; None after the parent's end of the socket was closed."""
        while True:
            try:
                data = self.socket.recv(1 << 16, _NOW)
            except BlockingIOError:
                break
            except ConnectionError:
                return None
            if not data:
                return None
            self._unread += data
            if len(data) < 1 << 16:
                break
        found, start = [], 0
        while len(self._unread) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._unread, start)
            end = start + _LENGTH.size + length
            if end > len(self._unread):
                break
            found.append(pickle.loads(memoryview(self._unread)[start + _LENGTH.size : end]))
            start = end
        if start:
            self._unread = self._unread[start:]
        return found

    def answer(self, about: Any, result: Any) -> None:
        """Send a pair: `about` is read by itself, before `result`.

        Raises what pickling raises (then nothing was sent), OSError.
        """
        stream, buffers = io.BytesIO(), list[Any]()
        pickler = pickle.Pickler(stream, 5, buffer_callback=buffers.append)
        pickler.dispatch_table = self._reducers
        pickler.dump(result)
        arena = self.arena
        places: list[tuple[int, int, int]] = []
        small: list[Any] = []
        small_nbytes, segments = 0, set[Segment]()
        for buffer in buffers:
            raw = buffer.raw()
            number, start, nbytes = -1, small_nbytes, raw.nbytes
            segment, start_there = self._shared(raw, nbytes, small_nbytes)
            if segment is not None:
                number, start = segment.number, start_there
                segments.add(segment)
            elif nbytes:
                padding = -nbytes % _ALIGNMENT
                small += (raw, bytes(padding))
                small_nbytes += nbytes + padding
            places.append((number, start, nbytes))
        made, arena.made = arena.made, []
        dropped, arena.dropped = arena.dropped, []
        outer = pickle.dumps((about, places, [m[:2] for m in made], dropped, stream.getbuffer().tobytes()), 5)
        for segment in segments:
            segment.out += 1
        header = _ANSWER.pack(small_nbytes, len(outer), len(made))
        self._send([header, *small, outer], [m[2] for m in made])

    def _shared(self, raw: Any, nbytes: int, small_nbytes: int) -> tuple[Segment | None, int]:
        """The segment and place of an array's memory: where it is already, or a copy of it; None for what goes with the message."""
        arena = self.arena
        if nbytes < SMALL_NBYTES and small_nbytes + nbytes <= INLINE_NBYTES or not CAN_SHARE:
            return None, 0
        data = np.frombuffer(raw, np.uint8)
        address = data.__array_interface__["data"][0]
        segment = arena.find(address)
        if segment is None:
            copy = arena.reserve(nbytes)
            copy[...] = data
            segment, address = arena._current, array_address(copy)
            assert segment is not None
        return segment, address - segment.memory.address

    def _send(self, parts: list[Any], descriptors: list[int]) -> None:
        try:
            self.socket.sendall(b"".join(parts))
            if descriptors:  # with one more byte: the parent must not be interrupted while it takes them
                self.socket.sendmsg([b"+"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


# ---- the parent's end ------------------------------------------------------------------------------------------------


class Listener:
    """The parent's side of a worker's socket: tasks out, answers in."""

    def __init__(self, ours: socket.socket) -> None:
        self.socket = ours
        self.memories: dict[int, Memory] = {}
        self.freed: deque[int] = deque()
        self.unsent = bytearray()
        _sockets.add(ours)

    def send(self, *task: Any) -> None:
        """Send a task, after the numbers of the segments that were freed; what does not fit into the socket now goes with `flush`.

        Raises what pickling raises.  A worker that is gone is noticed by `receive`.
        """
        freed = []
        while self.freed:
            freed.append(self.freed.popleft())
        data = pickle.dumps((*task, freed), 5)
        self.unsent += _LENGTH.pack(len(data)) + data
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes without waiting."""
        try:
            while self.unsent:
                del self.unsent[: self.socket.send(self.unsent, _NOW)]
        except BlockingIOError:
            return
        except OSError:
            self.unsent.clear()

    def receive(self) -> tuple[Any, Any]:
        """(about, how to make the result) of the next answer.  Raises EOFError where the worker is gone."""
        try:
            small_nbytes, outer_nbytes, count = _ANSWER.unpack(self._read(_ANSWER.size))
            small = self._read(small_nbytes) if small_nbytes else None
            about, places, made, dropped, result = pickle.loads(self._read(outer_nbytes))
            if count:
                self._map(made)
        except ConnectionError:
            raise EOFError from None
        buffers = self._buffers(places, small)
        for number in dropped:
            self.memories.pop(number, None)
        return about, lambda: pickle.loads(result, buffers=buffers)

    def _map(self, made: list[tuple[int, int]]) -> None:
        """Take the descriptors of new memory, and map it.  Raises OSError where this process has too many open files."""
        descriptors = array.array("i")
        with uninterrupted():
            try:
                last, passed, flags, _ = self.socket.recvmsg(1, socket.CMSG_SPACE(_MOST_DESCRIPTORS * descriptors.itemsize))
                for _, _, data in passed:
                    descriptors.frombytes(data)
                if not last:
                    raise EOFError
                if flags & socket.MSG_CTRUNC or len(descriptors) != len(made):
                    raise OSError(errno.EMFILE, "DataLoader: too many open files to receive a batch; raise the limit (ulimit -n)")
                for (number, nbytes), descriptor in zip(made, descriptors, strict=True):
                    self.memories[number] = Memory(descriptor, nbytes)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _buffers(self, places: list[tuple[int, int, int]], small: bytearray | None) -> list[Any]:
        """The memory of each array."""
        found, bases = [], dict[int, np.ndarray[Any, Any]]()
        for number, start, nbytes in places:
            base = bases.get(number)
            if base is None:
                if number < 0:
                    base = np.frombuffer(small, np.uint8) if small is not None else np.empty(0, np.uint8)
                else:
                    lease = Lease(self.memories[number], number, self.freed)
                    _leases.add(lease)
                    base = np.asarray(lease)
                bases[number] = base
            found.append(base[start : start + nbytes])
        return found

    def _read(self, count: int) -> bytearray:
        data = bytearray(count)
        self._fill(memoryview(data))
        return data

    def _fill(self, view: memoryview) -> None:
        while view:
            got = self.socket.recv_into(view)
            if not got:
                raise EOFError
            view = view[got:]

    def close(self) -> None:
        self.socket.close()
