"""The thread pool: every chunk exactly once whoever calls; idling, signals, forks; the default thread count."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from graphc.runtime import link, pool_llvm, threads

SOURCE = Path(__file__).resolve().parents[1] / "src"
LINUX = platform.system() == "Linux" and platform.machine() in ("x86_64", "aarch64")
linux_only = pytest.mark.skipif(not LINUX, reason="the threaded pool is for Linux on x86-64 and aarch64")

CHUNKS_TEXT = """
declare i32 @sched_getcpu()
declare i64 @pthread_self()

define void @count(ptr %data, i64 %chunk, i64 %chunks) {
  %at = getelementptr i64, ptr %data, i64 %chunk
  %old = atomicrmw add ptr %at, i64 1 monotonic
  ret void
}

; data: the number of steps, then one sum a chunk
define void @work(ptr %data, i64 %chunk, i64 %chunks) {
entry:
  %steps = load i64, ptr %data
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %loop ]
  %sum = phi i64 [ %chunk, %entry ], [ %sum.next, %loop ]
  %square = mul i64 %sum, %sum
  %sum.next = add i64 %square, %i
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %steps
  br i1 %more, label %loop, label %out
out:
  %slot = add i64 %chunk, 1
  %at = getelementptr i64, ptr %data, i64 %slot
  store i64 %sum.next, ptr %at
  ret void
}

; data: one thread handle a chunk
define void @who(ptr %data, i64 %chunk, i64 %chunks) {
  %at = getelementptr i64, ptr %data, i64 %chunk
  %self = call i64 @pthread_self()
  store i64 %self, ptr %at
  ret void
}

; data: pool, pool_run, who, then one row of `chunks` thread handles a chunk
define void @nest(ptr %data, i64 %chunk, i64 %chunks) {
  %pool = load ptr, ptr %data
  %run.at = getelementptr i64, ptr %data, i64 1
  %run = load ptr, ptr %run.at
  %row = mul i64 %chunk, %chunks
  %offset = add i64 %row, 3
  %inner = getelementptr i64, ptr %data, i64 %offset
  call void %run(ptr %pool, ptr @who, ptr %inner, i64 %chunks)
  ret void
}

; data: one float a chunk: the smallest normal number, halved
define void @halve(ptr %data, i64 %chunk, i64 %chunks) {
  %at = getelementptr float, ptr %data, i64 %chunk
  %x = load float, ptr %at
  %half = fmul float %x, 0.5
  store float %half, ptr %at
  ret void
}
"""
NAMES = ("count", "work", "who", "nest", "halve")


@pytest.fixture(scope="module")
def chunk() -> dict[str, int]:
    return link.link(link.assemble(CHUNKS_TEXT), NAMES)


@pytest.fixture(autouse=True)
def restored_thread_count() -> Iterator[None]:
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


def counted(function: int, chunks: int, times: int = 1) -> np.ndarray:
    counts = np.zeros(max(chunks, 1), np.int64)
    for _ in range(times):
        threads.pool().run(function, counts.ctypes.data, chunks)
    return counts


def worker_ids() -> list[int]:
    """Kernel thread ids of this process beyond those that Python started."""
    python = {thread.native_id for thread in threading.enumerate()}
    return [int(name) for name in os.listdir("/proc/self/task") if int(name) not in python]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_chunk_runs_exactly_once(chunk: dict[str, int], count: int) -> None:
    threads.set_num_threads(count)
    assert threads.get_num_threads() == count
    for chunks in (1, 2, 3, 7, 8, 9, 64, 1000, 4099):
        assert (counted(chunk["count"], chunks, times=5) == 5).all()
    assert (counted(chunk["count"], 5, times=2000) == 2000).all()


def test_no_chunks_run_nothing(chunk: dict[str, int]) -> None:
    for count in (1, 2):
        threads.set_num_threads(count)
        assert counted(chunk["count"], 0).tolist() == [0]
        assert counted(chunk["count"], -3).tolist() == [0]


def test_chunks_of_all_threads_are_visible_to_the_caller(chunk: dict[str, int]) -> None:
    expected = None
    for count in (1, 3):
        threads.set_num_threads(count)
        data = np.zeros(65, np.int64)
        for steps in (1, 100, 20_000):
            data[0] = steps
            threads.pool().run(chunk["work"], data.ctypes.data, 64)
        expected = data.copy() if expected is None else expected
        assert (data == expected).all()


@linux_only
def test_workers_take_part(chunk: dict[str, int]) -> None:
    threads.set_num_threads(3)
    data = np.zeros(8, np.int64)
    seen: set[int] = set()
    deadline = time.monotonic() + 60
    # a caller may have run all chunks before a worker wakes: ask again until one was there
    while len(seen) < 2 and time.monotonic() < deadline:
        threads.pool().run(chunk["who"], data.ctypes.data, 8)
        seen.update(data.tolist())
    assert len(seen) >= 2


def test_several_python_threads_call_at_once(chunk: dict[str, int]) -> None:
    threads.set_num_threads(3)
    failures: list[int] = []

    def call() -> None:
        wrong = counted(chunk["count"], 16, times=2000) != 2000
        failures.append(int(wrong.sum()))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert failures == [0, 0, 0, 0]


def test_thread_count_changes_while_regions_run(chunk: dict[str, int]) -> None:
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for count in (1, 4, 2, 6, 3):
                threads.set_num_threads(count)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        counts = counted(chunk["count"], 12, times=5000)
    finally:
        stop.set()
        changer.join()
    assert (counts == 5000).all()


def test_region_inside_a_chunk_runs_serially(chunk: dict[str, int]) -> None:
    threads.set_num_threads(3)
    pool, chunks = threads.pool(), 6
    data = np.zeros(3 + chunks * chunks, np.int64)
    data[:3] = pool.address, pool.run_address, chunk["who"]
    for _ in range(50):
        data[3:] = 0
        pool.run(chunk["nest"], data.ctypes.data, chunks)
        rows = data[3:].reshape(chunks, chunks)
        assert (rows != 0).all()
        assert (rows == rows[:, :1]).all()


@linux_only
def test_idle_workers_use_no_cpu(chunk: dict[str, int]) -> None:
    threads.set_num_threads(8)
    counted(chunk["count"], 64, times=10)
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05


@linux_only
def test_workers_stay_off_the_callers_cpu_and_block_signals() -> None:
    code = """
        import os, numpy as np
        from graphc.runtime import link, threads
        address = link.link(link.assemble("define void @f(ptr %p, i64 %i, i64 %n) {{ ret void }}"), ["f"])["f"]
        os.sched_setaffinity(0, {cpus})
        tasks = set(os.listdir("/proc/self/task"))
        threads.set_num_threads(3)
        threads.pool().run(address, 0, 8)
        workers = set(os.listdir("/proc/self/task")) - tasks
        assert len(workers) == 2, workers
        import time
        time.sleep(0.3)
        for worker in workers:
            status = open(f"/proc/self/task/{{worker}}/status").read()
            blocked = int(status.split("SigBlk:")[1].split()[0], 16)
            assert blocked >> 1 & 1 and blocked >> 14 & 1 and not blocked >> 10 & 1, hex(blocked)  # INT, TERM; SEGV
            print(sorted(os.sched_getaffinity(int(worker))))
    """
    cpus = sorted(os.sched_getaffinity(0))
    assert run_python(code.format(cpus={cpus[0]})).split() == [f"[{cpus[0]}]"] * 2
    if len(cpus) > 1:
        for line in run_python(code.format(cpus=set(cpus[:2]))).splitlines():
            assert line in (f"[{cpus[0]}]", f"[{cpus[1]}]")


@linux_only
def test_forked_child_makes_its_own_workers() -> None:
    code = """
        import os, numpy as np
        from graphc.runtime import link, threads
        text = '''define void @count(ptr %data, i64 %chunk, i64 %chunks) {
          %at = getelementptr i64, ptr %data, i64 %chunk
          %old = atomicrmw add ptr %at, i64 1 monotonic
          ret void
        }'''
        count = link.link(link.assemble(text), ["count"])["count"]
        threads.set_num_threads(3)

        def works():
            counts = np.zeros(100, np.int64)
            for _ in range(200):
                threads.pool().run(count, counts.ctypes.data, 100)
            tasks = len(os.listdir("/proc/self/task"))
            return (counts == 200).all() and threads.get_num_threads() == 3 and tasks

        tasks = works()
        assert tasks >= 3
        for depth in range(3):
            child = os.fork()
            if child:
                _, status = os.waitpid(child, 0)
                assert works() == tasks
                os._exit(os.waitstatus_to_exitcode(status))
            assert len(os.listdir("/proc/self/task")) == 1
            tasks = works()
            assert tasks == 3, tasks
            assert link.link(link.assemble(text), ["count"])["count"] != count
        os._exit(7)
    """
    run_python(code, expected=7)


def run_python(code: str, expected: int = 0) -> str:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "OPENBLAS_NUM_THREADS": "1",
    }  # its threads are not ours to count
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert result.returncode == expected, result.stderr
    return result.stdout


@linux_only
def test_interrupt_reaches_the_main_thread(chunk: dict[str, int]) -> None:
    threads.set_num_threads(4)
    counted(chunk["count"], 64)
    received: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda *_: received.append(threading.get_ident()))
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        deadline = time.monotonic() + 10
        while not received and time.monotonic() < deadline:
            time.sleep(0.001)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert received == [threading.main_thread().ident]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="sets the x86 control register")
def test_workers_use_the_callers_floating_point_mode(chunk: dict[str, int]) -> None:
    text = """
    declare void @llvm.x86.sse.ldmxcsr(ptr)
    define void @set_mode(ptr %mode) {
      call void @llvm.x86.sse.ldmxcsr(ptr %mode)
      ret void
    }"""
    set_mode = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(link.link(link.assemble(text), ["set_mode"])["set_mode"])
    default, flush = ctypes.c_uint32(0x1F80), ctypes.c_uint32(0x9FC0)
    threads.set_num_threads(3)
    smallest = np.finfo(np.float32).tiny
    for mode, expected in ((default, smallest / 2), (flush, 0.0), (default, smallest / 2)):
        for _ in range(50):
            data = np.full(400, smallest, np.float32)
            set_mode(ctypes.addressof(mode))
            try:
                threads.pool().run(chunk["halve"], data.ctypes.data, data.size)
            finally:
                set_mode(ctypes.addressof(default))
            assert (data == np.float32(expected)).all()


def test_serial_module_runs_chunks_in_order() -> None:
    code = link.link(link.assemble(pool_llvm.text("Plan9", "vax")), ("pool_run", "pool_limit"))
    seen: list[tuple[int, int]] = []
    signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    note = signature(lambda _, index, chunks: seen.append((index, chunks)))
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(code["pool_run"])
    run(0, ctypes.cast(note, ctypes.c_void_p).value, 0, 4)
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4)]
    limit = ctypes.c_int32(1)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)(code["pool_limit"])(ctypes.addressof(limit), 5)
    assert limit.value == 5


def test_thread_count_out_of_range_is_refused() -> None:
    for count in (0, -1, 65536):
        with pytest.raises(RuntimeError, match=f"set_num_threads: expected 1 to 65535 threads, got {count}"):
            threads.set_num_threads(count)


def test_environment_limits_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    available = threads.available_cpus()
    for asked, expected in (("", available), ("1", 1), ("100000", available)):
        monkeypatch.setenv("GRAPHC_NUM_THREADS", asked)
        assert threads.default_threads() == expected
    for asked in ("0", "-2", "many"):
        monkeypatch.setenv("GRAPHC_NUM_THREADS", asked)
        with pytest.raises(ValueError, match=f"GRAPHC_NUM_THREADS must be a positive integer, got '{asked}'"):
            threads.default_threads()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
            },
            0.5,
        ),
        ({"proc/self/cgroup": "0::/host/only\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3.0),
        (
            {
                "proc/self/cgroup": "4:memory:/m\n1:cpu,cpuacct:/c\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_cgroup_quota(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert threads.cgroup_cpus(tmp_path) == expected
