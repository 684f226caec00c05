"""``python -m bench.worker LIBRARY ROW FOLDER THREADS``: one library's process for one row, fed over pipes.

Enters: a JSON request a line on standard input.  Leaves: a JSON answer a line on standard output.  Never here: other libraries.

Requests: ``load`` imports the library and makes the row, ``first`` begins the row and calls it, ``time`` times calls for some
seconds; the process ends with its input.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers import LIBRARIES, Unavailable
from bench.prepare import CHECKED_STEPS
from bench.workloads import WORKLOADS

SAMPLE_S = 2e-3  # calls shorter than this are timed several at a time
WARM_SHARE, MOST_SAMPLES = 0.2, 2000
WARM_CALLS, WARM_S = 30, 1.0  # before anything is timed: libraries may make code for what comes again, graphc's eager calls do
PR_SET_PDEATHSIG = 1
LARGE_BLOCK = 31 << 20  # the largest whose size glibc takes as its threshold is just below 32 MiB


class Imports:
    """Seconds spent importing modules while it is on: what a library imports at its first call is not compilation."""

    def __init__(self) -> None:
        self.seconds, self.depth = 0.0, 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count imports inside, in whatever function they happen."""
        machinery: Any = sys.modules["_frozen_importlib"]
        found = machinery._find_and_load

        def find_and_load(name: str, importer: Any) -> Any:
            self.depth += 1
            start = time.perf_counter()
            try:
                return found(name, importer)
            finally:
                self.depth -= 1
                if not self.depth:
                    self.seconds += time.perf_counter() - start

        machinery._find_and_load = find_and_load
        try:
            yield
        finally:
            machinery._find_and_load = found


def peak_mb() -> float:
    """The most memory this process has had.  (`ru_maxrss` begins with that of the process which started this one.)"""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def faults() -> int:
    """Minor page faults so far, of all threads."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


class Row:
    """A row in this process: loaded when made, begun by `first`."""

    def __init__(self, library: str, name: str, folder: Path, threads: int) -> None:
        self.workload, self.folder, self.label = WORKLOADS[name], folder, library
        self.begin, self.arrays = LIBRARIES[library].runner(self.workload, folder, threads)
        self.call: Any = None
        self.calls = 0

    def first(self) -> dict[str, Any]:
        """Begin and call once; results go to files, as losses of the first steps where it is training."""
        imports = Imports()
        with imports.counted():
            start, cpu = time.perf_counter(), time.process_time()
            self.call = self.begin()
            results = self.call()
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        if self.workload.training:
            losses = [float(self.arrays(results)[0])]
            losses += [float(self.arrays(self.call())[0]) for _ in range(CHECKED_STEPS - 1)]
            outputs = [np.array(losses)]
        else:
            outputs = self.arrays(results)
        made = hashlib.sha256()
        paths = []
        for i, part in enumerate(outputs):
            part = np.ascontiguousarray(part)
            made.update(part.data)
            paths.append(str(self.folder / f"{self.label.replace(' ', '_')}_{i}.npy"))
            np.save(paths[-1], part)
        return {
            "seconds": seconds - imports.seconds, "cpu_seconds": cpu_seconds, "import_seconds": imports.seconds,
            "outputs": paths, "hash": made.hexdigest(), "rss_mb": peak_mb(),
        }  # fmt: skip

    def time(self, seconds: float, single: bool = False) -> dict[str, Any]:
        """Milliseconds of calls, each the mean of as many as take `SAMPLE_S` (`single`: of one), and page faults of a call."""
        call, clock = self.call, time.perf_counter
        begun = clock()
        while self.calls < WARM_CALLS and clock() - begun < WARM_S:
            call()
            self.calls += 1
        end = clock() + seconds * WARM_SHARE
        calls, start = 0, clock()
        while not calls or clock() < end:
            call()
            calls += 1
        self.calls += calls
        each = (clock() - start) / calls
        inner = 1 if single else max(1, min(1000, int(SAMPLE_S / each)))
        samples: list[float] = []
        before, end = faults(), clock() + seconds * (1 - WARM_SHARE)
        while len(samples) < 2 or (clock() < end and len(samples) < MOST_SAMPLES):
            start = clock()
            for _ in range(inner):
                call()
            samples.append(1e3 * (clock() - start) / inner)
        return {"ms": samples, "faults": (faults() - before) / (len(samples) * inner), "rss_mb": peak_mb()}


def enlarge_heap() -> None:
    """Hold and free a large block, as most programs have: glibc then keeps memory below that size instead of handing it back to the
    system at every call, which costs the libraries that leave memory to `malloc` up to three times their time."""
    np.empty(LARGE_BLOCK, np.uint8).fill(0)


def serve(library: str, name: str, folder: Path, threads: int) -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    enlarge_heap()
    row: Row | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            row = row or Row(library, name, folder, threads)
            answer: dict[str, Any] = {}
            if request["do"] == "first":
                answer = row.first()
            elif request["do"] == "time":
                answer = row.time(request["seconds"], request.get("single", False))
        except Unavailable as error:
            answer = {"error": str(error), "unavailable": True}
        except Exception as error:
            text = str(error).strip().splitlines()
            answer = {"error": f"{type(error).__name__}: {text[0][:200] if text else ''}"}
            if os.environ.get("BENCH_TRACEBACK"):
                raise
        print(json.dumps(answer), file=answers, flush=True)


def die_with_parent() -> None:
    """A stopped process would outlive the one that stopped it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    die_with_parent()
    serve(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
