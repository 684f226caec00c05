"""The process's thread pool for kernels, and how many threads it uses.

Enters: a compiled function's address and a number of chunks.  Leaves: every chunk run, on this thread and the workers.
Never here: splitting work into chunks, Python threads.

Workers are made when a region first needs them, by the region's caller.  A forked child makes its own.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import mmap
import os
import platform
from pathlib import Path

from graphc.runtime import pool_llvm
from graphc.runtime.cache import default_cache
from graphc.runtime.link import assemble, link, machine_signature

_MADV_WIPEONFORK = 18
_MAX_THREADS = 65535
# Spin hints before sleeping: about 50 microseconds, or next to none where threads have to share cores.
_SPINS, _SPINS_SHARED = 1000, 20


class Pool:
    """Fork-join workers.

    address: the pool's state, first argument of ``pool_run``.
    run_address: ``void pool_run(ptr pool, ptr fn, ptr data, i64 chunks)``, calls
    ``fn(ptr data, i64 chunk, i64 chunks)`` once for every chunk and returns when all have returned.
    It runs them serially on the caller where the pool has one thread, is busy with another thread's region, or is
    entered from inside a chunk.
    """

    def __init__(self, threads: int) -> None:
        addresses = link(_object(), ("pool_run", "pool_limit"))
        self._memory = _forgetful_memory()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._memory))  # workers look at it for as long as the process lives
        anchor = ctypes.c_char.from_buffer(self._memory)
        self.address = ctypes.addressof(anchor)
        self.run_address = addresses["pool_run"]
        pointer = ctypes.c_void_p
        self._limit = ctypes.c_int32.from_address(self.address + pool_llvm.LIMIT)
        self._run = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, ctypes.c_int64)(self.run_address)
        self._set_limit = ctypes.CFUNCTYPE(None, pointer, ctypes.c_int32)(addresses["pool_limit"])
        self.threads = threads

    @property
    def threads(self) -> int:
        """How many threads a region may use, the caller's included."""
        return self._limit.value

    @threads.setter
    def threads(self, count: int) -> None:
        spins = _SPINS if count <= available_cpus() else _SPINS_SHARED
        ctypes.c_int32.from_address(self.address + pool_llvm.SPIN).value = spins
        self._set_limit(self.address, count)

    def run(self, function: int, data: int, chunks: int) -> None:
        """Call the compiled function at `function` with ``(data, chunk, chunks)`` for every chunk, without the GIL."""
        self._run(self.address, function, data, chunks)


_pools: dict[str, Pool] = {}
_settings: dict[str, int] = {}


def pool() -> Pool:
    """The process's pool, made on first use."""
    # dict.setdefault is atomic: of two threads that get here at once, one pool stays and the other never had a worker.
    return _pools.get("process") or _pools.setdefault("process", Pool(get_num_threads()))


def get_num_threads() -> int:
    """How many threads a CPU kernel may use.

    At first the smallest of: the CPUs this process may run on, its cgroup's CPU quota rounded up, GRAPHC_NUM_THREADS.
    """
    if "process" in _pools:
        return _pools["process"].threads
    return _settings.get("threads") or default_threads()


def set_num_threads(threads: int) -> None:
    """Let CPU kernels use `threads` threads (more than there are CPUs is allowed, and slow).  Results keep their bits.

    Raises RuntimeError for a count outside 1 to 65535.
    """
    if not 1 <= threads <= _MAX_THREADS:
        raise RuntimeError(f"set_num_threads: expected 1 to {_MAX_THREADS} threads, got {threads}")
    _settings["threads"] = threads
    if "process" in _pools:
        _pools["process"].threads = threads


def available_cpus() -> int:
    """The CPUs this process can keep busy: its affinity, cut to its cgroup's quota rounded up."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_cpus()
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def cgroup_cpus(root: Path = Path("/")) -> float | None:
    """The CPU quota of this process's cgroup (v2 or v1) and of those around it, in CPUs; None where there is none."""
    quotas: list[float] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts, quota_of = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"], _quota_v2
        elif "cpu" in controllers.split(","):
            mounts, quota_of = [root / "sys/fs/cgroup/cpu", root / "sys/fs/cgroup" / controllers], _quota_v1
        else:
            continue
        # Inside a container the path may be the host's; the mount itself is then this process's own cgroup.
        inner = Path(path.lstrip("/"))
        folders = [mount / folder for mount in mounts for folder in (inner, *inner.parents)]
        quotas += [quota for folder in folders if (quota := quota_of(folder)) is not None]
    return min(quotas, default=None)


def _quota_v2(folder: Path) -> float | None:
    fields = _read(folder / "cpu.max").split()
    return int(fields[0]) / int(fields[1]) if len(fields) == 2 and fields[0] != "max" else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # not a cgroup of this kind
        return ""


def default_threads() -> int:
    """The thread count at first (see `get_num_threads`).  Raises ValueError for a bad GRAPHC_NUM_THREADS."""
    asked = os.environ.get("GRAPHC_NUM_THREADS", "").strip()
    if not asked:
        return available_cpus()
    if not asked.isdecimal() or int(asked) < 1:
        raise ValueError(f"GRAPHC_NUM_THREADS must be a positive integer, got {asked!r}")
    return min(available_cpus(), int(asked))


def _object() -> bytes:
    """The pool's object file, from the disk cache where it is there."""
    text = pool_llvm.text(platform.system(), platform.machine())
    key = hashlib.sha256(f"{machine_signature()}\n{text}".encode()).hexdigest()
    cache = default_cache()
    found = cache.get(key)
    if found is None:
        found = assemble(text, optimise=2)
        cache.put(key, found)
    return found


def _forgetful_memory() -> mmap.mmap:
    """Zeroed memory for the pool: settings, then state that reads as zeros again in a forked child."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, pool_llvm.STATE + pool_llvm.STATE_NBYTES)
    memory = mmap.mmap(-1, pool_llvm.STATE + pool_llvm.STATE_NBYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory.madvise(_MADV_WIPEONFORK, pool_llvm.STATE, pool_llvm.STATE_NBYTES)
    except OSError:  # not Linux, or one older than 4.14: cover at least the forks that Python makes

        def wipe() -> None:
            memory[pool_llvm.STATE :] = bytes(pool_llvm.STATE_NBYTES)

        os.register_at_fork(after_in_child=wipe)
    return memory
