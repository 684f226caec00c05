"""``python -m bench load [names]``: how much slower calls become when other processes keep the machine busy.

Enters: names of rows.  Leaves: medians and 99th percentiles of single calls, alone and beside busy processes, and whether graphc's
median suffers no more than the best peer's and its 99th percentile is at most half of PyTorch's.  Never here: rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench import report, turns
from bench.peers import LIBRARIES
from bench.workloads import WORKLOADS, Missing

ROWS = ("softmax", "gemm_512", "mlp_784_512_512_10_b32", "gpt2_block_b1", "mobilenet_v2_b1")
BUSY = 2
OPENMP = ("torch", "torch channels_last", "torch.compile", "torch.compile freezing")
SPIN = "while True: pass"


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that use a core each, for as long as the block lasts."""
    processes = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    time.sleep(0.2)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def calls(workers: dict[str, turns.Worker], seconds: float, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of single calls, in turns."""
    samples: dict[str, list[float]] = {library: [] for library in workers}
    for _ in range(rounds):
        for library, worker in workers.items():
            samples[library] += worker.ask("time", seconds=seconds, single=True).get("ms", [])
    return samples


def run_row(name: str, libraries: Sequence[str], settings: turns.Settings) -> dict[str, dict[str, float]]:
    """Library -> what was measured.  Raises Missing, RuntimeError."""
    workload = WORKLOADS[name]
    libraries = [library for library in libraries if LIBRARIES[library].applies(workload)]
    turns.make_ready(workload, settings, libraries)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        cache = settings.caches or Path(scratch)
        workers = {l: turns.Worker(l, name, settings, cache / name / l.replace(" ", "_")) for l in libraries}
        try:
            started = turns.begin(workers, workload, settings, dict.fromkeys(libraries, False))
            timed = {library: workers[library] for library in libraries if "error" not in started[library]}
            alone = calls(timed, settings.seconds, settings.rounds)
            with busy(BUSY):
                beside = calls(timed, settings.seconds, settings.rounds)
        finally:
            for worker in workers.values():
                worker.end()
    cells = {}
    for library in timed:
        quiet, loud = np.percentile(alone[library], (50, 99)), np.percentile(beside[library], (50, 99))
        cells[library] = {
            "ms": float(quiet[0]), "p99_ms": float(quiet[1]), "busy_ms": float(loud[0]), "busy_p99_ms": float(loud[1]),
            "slower": float(loud[0] / quiet[0]), "p99_slower": float(loud[1] / quiet[1]),
        }  # fmt: skip
    return cells


def verdict(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """The targets beside geometric means over the rows."""
    columns = {library for cells in rows.values() for library in cells}
    over = lambda library, key: report.mean(cells[library][key] for cells in rows.values() if library in cells)
    slower = {library: over(library, "slower") for library in columns}
    peers = {library: value for library, value in slower.items() if library not in turns.OURS and library != "numpy"}
    made: list[tuple[str, ...]] = []
    if "graphc" in slower and peers:
        best = min(peers, key=lambda library: peers[library])
        made.append(("median, times slower when busy", f"{slower['graphc']:.2f}", f"<= {peers[best]:.2f} {best}"))
        made[-1] += ("pass" if slower["graphc"] <= peers[best] else "FAIL",)
    for library in OPENMP:
        both = [cells for cells in rows.values() if library in cells and "graphc" in cells]
        if both:
            share = report.mean(cells["graphc"]["busy_p99_ms"] / cells[library]["busy_p99_ms"] for cells in both)
            made.append((f"p99 when busy / {library}'s", f"{share:.2f}", "<= 0.5", "pass" if share <= 0.5 else "FAIL"))
    return report.aligned(made, 1) if made else ""


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0."""
    parser = argparse.ArgumentParser(prog="python -m bench load", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=ROWS, help=f"rows ({', '.join(ROWS)})")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="a turn's length (1)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each library, alone and busy (3)")
    parser.add_argument("--libraries", "--peers", nargs="+", default=["graphc", "torch", "torch.compile", "jax", "onnxruntime"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="JSON of runs before")
    parser.add_argument("--folder", type=Path, help="keep inputs and true results here")
    parser.add_argument("--cache", type=Path, help="keep compiled code here")
    given = parser.parse_args(arguments)
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for path in given.merge:
        rows |= json.loads(path.read_text())["rows"]
    libraries = [library for library in report.installed(given.libraries) if library in given.libraries]
    head = ("workload", "library", "ms", "p99", "busy ms", "busy p99", "slower", "p99 slower")
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        settings = turns.Settings(given.threads, given.seconds, given.rounds, given.folder or Path(scratch), given.cache)
        for name in given.names:
            try:
                rows[name] = run_row(name, libraries, settings)
            except Missing as why:
                print(f"{name}: left out ({why})")
                continue
            lines = [(name, l, *(f"{value:.4g}" for value in cell.values())) for l, cell in rows[name].items()]
            print(report.aligned([head, *lines]), "\n", flush=True)
    print(verdict(rows))
    if given.json:
        record: dict[str, Any] = {"date": time.strftime("%Y-%m-%d %H:%M"), "threads": given.threads, "rows": rows}
        given.json.write_text(json.dumps(record, indent=1))
    return 0
