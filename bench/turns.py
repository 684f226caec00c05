"""Rows, timed: a process for each library, taking turns, one running at a time.

Enters: names of rows and libraries.  Leaves: cells, dicts of what was measured.  Never here: what figures mean (`bench.report`).

A process whose turn is over is stopped by a signal, so that its idle threads cannot spin in the turn of another.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import prepare
from bench.peers import CHANGED, LIBRARIES, OURS
from bench.workloads import WORKLOADS, Missing, Workload

REPOSITORY = Path(__file__).resolve().parents[1]
THREAD_VARIABLES = ("GRAPHC_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
DIFFERENT_PLACES = 1e-3  # share of integers that may differ: nearly equal distances round either way
CHANGED_TOLERANCE = 0.1  # of the greatest element, where weights are stored in fewer bits
COUNTED = 3  # rounds, the fastest
NOISY, SETTLED = 1.1, 1.03  # their medians differ by more; by less, and there is no need of more rounds
ROW_S = 20.0  # rounds beyond those counted begin only within this time
FREE_NBYTES = 512 << 20  # more than first calls take
ANSWER_S = 240.0  # a library that takes longer for its first call, compiling included, is given up


@dataclass(frozen=True)
class Settings:
    """How rows are timed.   folder: of inputs.   caches: of compiled code, kept between runs; None: a new one for each row."""

    threads: int
    seconds: float  # of a turn
    rounds: int  # at most
    folder: Path
    caches: Path | None = None
    warm: bool = True  # also the first call in a new process that finds compiled code on disk


def environment(threads: int, cache: Path) -> dict[str, str]:
    """Of a library's process: threads, and where compiled code is kept."""
    jax = {"JAX_COMPILATION_CACHE_DIR": str(cache / "jax"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    paths = [str(REPOSITORY), str(REPOSITORY / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **jax, "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3",
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"), "GRAPHC_CACHE_DIR": str(cache / "graphc"),
        "PYTHONPATH": os.pathsep.join(paths),
    }  # fmt: skip


class Worker:
    """A library's process, started when it is first asked; stopped except while it answers."""

    def __init__(self, library: str, name: str, settings: Settings, cache: Path) -> None:
        self.command = [sys.executable, "-m", "bench.worker", library, name, str(settings.folder / name), str(settings.threads)]
        self.environment, self.threads = environment(settings.threads, cache), settings.threads
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        """Start the process, on as many cores as it has threads."""
        process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL if quiet() else None, text=True,
            env=self.environment, start_new_session=True,
        )  # fmt: skip
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, sorted(os.sched_getaffinity(0))[-self.threads :])
        return process

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Let it run until it has answered; one that does not is ended."""
        process = self.process = self.process or self.start()
        assert process.stdin and process.stdout
        try:
            os.killpg(process.pid, signal.SIGCONT)
            print(json.dumps({"do": do, **request}), file=process.stdin, flush=True)
            if not select.select([process.stdout], [], [], ANSWER_S)[0]:
                os.killpg(process.pid, signal.SIGKILL)
                return {"error": f"no answer within {ANSWER_S:.0f} s"}
            line = process.stdout.readline()
            os.killpg(process.pid, signal.SIGSTOP)
        except (BrokenPipeError, ProcessLookupError):
            line = ""
        if not line:
            return {"error": f"the process ended with status {process.wait()}"}
        return json.loads(line)  # type: ignore[no-any-return]

    def end(self) -> None:
        """End the process and what it started."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def quiet() -> bool:
    """Whether what libraries print to standard error is hidden."""
    return not os.environ.get("BENCH_TRACEBACK")


def make_ready(workload: Workload, settings: Settings, libraries: Sequence[str]) -> dict[str, Any]:
    """Inputs, weights and true results on disk.  Gives what work the row is.  Raises Missing, RuntimeError."""
    folder, onnx = settings.folder / workload.name, "onnxruntime" in libraries
    if not prepare.ready(workload, folder, onnx):
        shutil.rmtree(folder, ignore_errors=True)
        ended = subprocess.run(
            [sys.executable, "-m", "bench.prepare", workload.name, str(folder), *(["onnx"] if onnx else [])],
            capture_output=True, text=True, env=environment(1, settings.folder),
        )  # fmt: skip
        if ended.returncode == 3:
            raise Missing(ended.stdout.strip())
        if ended.returncode:
            raise RuntimeError(f"{workload.name} could not be prepared:\n{ended.stderr[-2000:]}")
    return json.loads((folder / "meta.json").read_text())  # type: ignore[no-any-return]


def make_all_ready(names: Sequence[str], settings: Settings, libraries: Sequence[str]) -> None:
    """`make_ready` for several rows, as many at a time as there are cores; what fails is left for the row to say."""

    def make(name: str) -> None:
        with contextlib.suppress(Missing, RuntimeError):
            make_ready(WORKLOADS[name], settings, [library for library in libraries if LIBRARIES[library].applies(WORKLOADS[name])])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(make, names))


def run_first_programs(libraries: Sequence[str], settings: Settings) -> None:
    """Make the caches that cold ones are copies of; where that fails, as without a compiler, the rows say so."""
    for program in {LIBRARIES[library].first_program for library in libraries} - {""}:
        cache = primed(program, settings)
        if not cache.exists():
            cache.mkdir(parents=True)
            command = [sys.executable, "-c", program]
            subprocess.run(command, env=environment(settings.threads, cache), capture_output=True, check=False)


def primed(program: str, settings: Settings) -> Path:
    """Where what a first program compiled is."""
    return settings.folder / "primed" / hashlib.sha256(program.encode()).hexdigest()[:8]


def difference(workload: Workload, folder: Path, outputs: Sequence[str], tolerance: float) -> str:
    """How far the results are from the true ones, if too far."""
    truths = prepare.arrays(folder, "truth")
    if len(outputs) != len(truths):
        return f"{len(outputs)} results for {len(truths)}"
    for path, truth in zip(outputs, truths, strict=True):
        result = np.load(path)
        if result.shape != truth.shape and result.size != truth.size:
            return f"shape {result.shape} for {truth.shape}"
        result = result.reshape(truth.shape)
        if truth.dtype.kind in "iu":
            off, limit = float(np.mean(result != truth)), DIFFERENT_PLACES
        else:
            off, limit = float(np.max(np.abs(result - truth), initial=0) / max(1e-30, np.max(np.abs(truth), initial=0))), tolerance
        if not off <= limit:
            return f"off by {off:.1e}"
    return ""


def begin(workers: dict[str, Worker], workload: Workload, settings: Settings, fresh: dict[str, bool]) -> dict[str, dict[str, Any]]:
    """First calls and checks.  Gives a cell for each library; one with ``error`` is left out."""
    cells: dict[str, dict[str, Any]] = {}
    folder = settings.folder / workload.name
    for worker in workers.values():
        worker.process = worker.start()  # by this thread, for they end with the one that started them
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda worker: worker.ask("load"), workers.values()))
    for name, worker in workers.items():
        touch_memory()
        answer = worker.ask("first")
        error = answer.get("error", "")
        if not error:
            tolerance = CHANGED_TOLERANCE if name in CHANGED else workload.tolerance
            error = difference(workload, folder, answer["outputs"], tolerance)
            for path in answer["outputs"]:
                os.unlink(path)
        cells[name] = {"error": error} if error else {"hash": answer["hash"]}
        if not error and LIBRARIES[name].compiles and (fresh[name] or not LIBRARIES[name].keeps):
            cells[name] |= {"first_s": answer["seconds"], "first_cpu_s": answer["cpu_seconds"]}
    return cells


def touch_memory() -> None:
    """Free memory is at hand afterwards: a virtual machine may have left it to its host, and gets it back at up to 2 ms a MiB."""
    np.empty(FREE_NBYTES, np.uint8).fill(1)


def without_call(first_s: float, cell: dict[str, Any]) -> float:
    """What a first call took beyond a call in steady state: tracing, compiling, packing, memory."""
    return max(0.0, first_s - cell["ms"] / 1e3)


def run_row(name: str, libraries: Sequence[str], settings: Settings) -> dict[str, Any]:
    """A row's work and cells.  Raises Missing, RuntimeError."""
    workload = WORKLOADS[name]
    libraries = [library for library in libraries if LIBRARIES[library].applies(workload)]
    meta = make_ready(workload, settings, libraries)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        caches, fresh = {}, {}
        for library in libraries:
            kept = settings.caches if settings.caches and library not in OURS else Path(scratch)
            caches[library] = kept / name / library.replace(" ", "_")
            fresh[library] = not caches[library].exists()
            base = primed(LIBRARIES[library].first_program, settings)
            if fresh[library] and base.exists():
                shutil.copytree(base, caches[library])
            caches[library].mkdir(parents=True, exist_ok=True)
        workers = {library: Worker(library, name, settings, caches[library]) for library in libraries}
        try:
            cells = begin(workers, workload, settings, fresh)
            timed = [library for library in libraries if "error" not in cells[library]]
            take_turns({library: workers[library] for library in timed}, cells, settings)
        finally:
            for worker in workers.values():
                worker.end()
        for library in timed:
            if "first_s" in cells[library] and "ms" in cells[library]:
                cells[library]["cold_s"] = without_call(cells[library]["first_s"], cells[library])
        for library in timed if settings.warm else ():
            if library in OURS and LIBRARIES[library].compiles and "ms" in cells[library]:
                cells[library] |= from_cache(library, name, settings, caches[library], cells[library])
    work = {"group": workload.group, "aside": workload.aside, "truth": meta["by"]}
    return {**work, "flops": meta["flops"], "nbytes": meta["nbytes"], "cells": cells}


def from_cache(library: str, name: str, settings: Settings, cache: Path, cell: dict[str, Any]) -> dict[str, Any]:
    """What the first call takes beyond others in a new process that finds the code on disk, without imports; or what went wrong."""
    worker = Worker(library, name, settings, cache)
    try:
        worker.ask("load")
        touch_memory()
        answer = worker.ask("first")
        if "error" in answer:
            return {"error": answer["error"]}
        return {"warm_s": without_call(answer["seconds"], cell), "warm_first_s": answer["seconds"]}
    finally:
        worker.end()


def take_turns(workers: dict[str, Worker], cells: dict[str, dict[str, Any]], settings: Settings) -> None:
    """Time in rounds: the median of the medians of the three fastest rounds."""
    medians: dict[str, list[float]] = {library: [] for library in workers}
    start = time.monotonic()
    for done in range(settings.rounds):
        settled = all(spread(rounds) < SETTLED for library, rounds in medians.items() if "error" not in cells[library])
        if done >= COUNTED and (settled or time.monotonic() - start > ROW_S):
            break
        for library, worker in workers.items():
            if "error" in cells[library]:
                continue
            answer = worker.ask("time", seconds=settings.seconds)
            if "error" in answer:
                cells[library]["error"] = answer["error"]
                continue
            medians[library].append(statistics.median(answer["ms"]))
            cells[library] |= {"rss_mb": answer["rss_mb"], "faults": answer["faults"]}
    for library, rounds in medians.items():
        if rounds and "error" not in cells[library]:
            fastest = sorted(rounds)[:COUNTED]
            cells[library] |= {"ms": statistics.median(fastest), "noisy": spread(rounds) > NOISY, "rounds": rounds}


def spread(rounds: Sequence[float]) -> float:
    """The slowest of the rounds that count over the fastest."""
    fastest = sorted(rounds)[:COUNTED]
    return fastest[-1] / fastest[0] if fastest else 1.0
