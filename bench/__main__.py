"""``python -m bench [names] [--seconds S] [--threads N]``: check, time, print one table.  (``dataloader``,
``eager`` and ``training``: see there.)

Enters: workload names.  Leaves: milliseconds per call (the median) and their ratio to the best other library.
Never here: workloads.

Libraries take turns, so that a slow second on a shared machine is slow for all of them.  The first sample of a turn is not
counted: it falls into the time that the threads of the library before go on spinning.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np

from bench import dataloader, eager, training
from bench.workloads import WORKLOADS, Runner, Workload, installed

OURS = ("graphc", "graphc eager")
FEWEST_TURNS, MOST_TURNS, SAMPLES_A_TURN = 3, 400, 5
THREAD_VARIABLES = ("GRAPHC_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def check(name: str, workload: Workload) -> dict[str, str]:
    """Run every library once against the truth (this also compiles).  Gives library -> why it cannot be timed.

    Raises AssertionError where graphc itself is wrong.
    """
    failed = {}
    for library, run in workload.runners.items():
        try:
            result = np.asarray(run())
        except Exception as error:
            if library in OURS:
                raise
            failed[library] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            continue
        difference = float(np.max(np.abs(result - workload.truth)) / max(1.0, float(np.max(np.abs(workload.truth)))))
        if not difference <= workload.tolerance:
            assert library not in OURS, f"{name}: {library} is off by {difference:.1e}"
            failed[library] = f"off by {difference:.1e}"
    return failed


def measure(workload: Workload, skip: Sequence[str], seconds: float) -> dict[str, float]:
    """Library -> median milliseconds of a call, sampled in turn for about `seconds` in all."""
    runners = {library: run for library, run in workload.runners.items() if library not in skip}
    samples: dict[str, list[float]] = {library: [] for library in runners}
    end = time.perf_counter() + seconds
    for turn in range(MOST_TURNS):
        if turn >= FEWEST_TURNS and time.perf_counter() > end:
            break
        for library, run in runners.items():
            samples[library] += [_sample(run, workload.inner) for _ in range(1 + SAMPLES_A_TURN)][1:]
    return {library: statistics.median(times) for library, times in samples.items()}


def _sample(run: Runner, inner: int) -> float:
    start = time.perf_counter()
    for _ in range(inner):
        run()
    return 1e3 * (time.perf_counter() - start) / inner


def lines(name: str, times_ms: dict[str, float]) -> list[tuple[str, ...]]:
    """Rows of the table; the ratio is a library's time over the best other library's: below 1 is faster than it."""
    peers = [time_ms for library, time_ms in times_ms.items() if library not in OURS]
    best = min(peers, default=None)
    rows = []
    for library, time_ms in sorted(times_ms.items(), key=lambda item: item[1]):
        rows.append((name, library, f"{time_ms:.4f}", "" if best is None else f"{time_ms / best:.2f}"))
    return rows


def main() -> int:
    """Exit status: 1 for an unknown workload or a wrong result of graphc."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"among {', '.join(WORKLOADS)}; all without any")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each workload (2)")
    parser.add_argument("--threads", type=int, help="threads of every library (each one's own choice)")
    for name, other in (("dataloader", dataloader), ("eager", eager), ("training", training)):
        if sys.argv[1:2] == [name]:
            return other.main(sys.argv[2:])
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(WORKLOADS)):
        parser.error(f"there is no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    if given.threads and any(os.environ.get(name) != str(given.threads) for name in THREAD_VARIABLES):
        # Libraries read these when they are imported, so the process starts again with them set.
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(given.threads))}
        os.execve(sys.executable, [sys.executable, "-m", "bench", *sys.argv[1:]], environment)
    missing = [name for name in ("torch", "jax") if not installed(name)]
    if missing:
        print(f"not installed, so not in the table: {', '.join(missing)}")
    rows: list[tuple[str, ...]] = [("workload", "library", "ms", "/ best peer")]
    for name in given.names or WORKLOADS:
        workload = WORKLOADS[name]()
        failed = check(name, workload)
        for library, reason in failed.items():
            print(f"{name}: {library} left out ({reason})")
        rows += lines(name, measure(workload, list(failed), given.seconds))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        texts = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(texts).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
