"""``python -m bench [names or groups]``: graphc beside every installed library; see docs/performance.md.

Enters: names of rows, how long, which libraries.  Leaves: tables, JSON, a chart, a row of the history.  Never here: measuring.

``python -m bench load``, ``eager``, ``training``, ``dataloader``, ``bits``, ``calls``, ``sizes``: see those modules.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import limits, report, turns
from bench.peers import LIBRARIES, OURS
from bench.workloads import GROUPS, WORKLOADS, Missing, chosen

OTHERS = ("load", "eager", "training", "dataloader", "bits", "calls", "sizes")
DISTRIBUTIONS = ("graphc", "torch", "jax", "onnxruntime", "numpy", "llvmlite")


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    made.add_argument("names", nargs="*", metavar="NAME", help=f"rows, or groups: {', '.join(GROUPS)}; all without any")
    made.add_argument("--threads", type=int, default=2, help="threads of every library (2)")
    made.add_argument("--seconds", type=float, default=0.25, help="a turn's length (0.25)")
    made.add_argument("--rounds", type=int, default=5, help="most turns of each library in each row (5); 3 where times agree")
    made.add_argument("--libraries", "--peers", nargs="+", metavar="LIBRARY", help=f"among {', '.join(LIBRARIES)}; all without any")
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    made.add_argument("--merge", type=Path, nargs="+", default=[], metavar="FILE", help="JSON of runs before, later over earlier")
    made.add_argument("--report", action="store_true", help="run nothing: report what --merge has")
    made.add_argument("--chart", type=Path, metavar="FILE.png", help="draw the ratios (needs matplotlib)")
    made.add_argument("--history", action="store_true", help="add this run to the history in docs/performance.md")
    made.add_argument("--folder", type=Path, help="keep inputs and true results here, so that the next run need not make them")
    made.add_argument("--cache", type=Path, help="keep other libraries' compiled code here; cold times are of first runs alone")
    made.add_argument("--no-warm", action="store_true", help="leave out graphc's first calls from its disk cache")
    return made


def machine() -> str:
    """The processor and how many cores this process may use."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        model = next((l.split(":", 1)[1].strip() for l in info.read_text().splitlines() if l.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def versions() -> dict[str, str]:
    """Of what is installed."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def measured(
    given: argparse.Namespace, names: Sequence[str], folder: Path, older: report.Record | None
) -> tuple[report.Record, int]:
    """Run the rows, printing and writing each when it is done.  Gives the record, with `older` below it, and the exit status."""
    libraries = report.installed(given.libraries or LIBRARIES)
    limit, status = limits.measure(given.threads), 0
    record: report.Record = {
        "date": time.strftime("%Y-%m-%d %H:%M"), "threads": given.threads, "machine": machine(), "versions": versions(),
        "peak_gflops": limit.gflops, "gbs": list(limit.gbs), "seconds": given.seconds, "rounds": given.rounds,
        "missing": sorted({library.missing for library in LIBRARIES.values() if library.missing}), "rows": {},
    }  # fmt: skip
    settings = turns.Settings(given.threads, given.seconds, given.rounds, folder, given.cache, not given.no_warm)
    print(report.about(record), flush=True)
    begun = time.monotonic()
    turns.make_all_ready(names, settings, libraries)
    turns.run_first_programs(libraries, settings)
    print(f"inputs, true results, first programs: {time.monotonic() - begun:.0f} s\n", flush=True)
    for name in names:
        start = time.monotonic()
        try:
            row = turns.run_row(name, libraries, settings)
        except Missing as why:
            print(f"{name}: left out ({why})", flush=True)
            continue
        except RuntimeError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            status = 1
            continue
        row["took_s"] = time.monotonic() - start
        status |= any("error" in row["cells"].get(library, {}) for library in OURS)
        record["rows"][name] = row | bounds(row, limit)
        print(report.aligned([report.HEADER, *report.lines(name, record["rows"][name])]), flush=True)
        print(f"({row['took_s']:.0f} s)\n", flush=True)
        write(given.json, report.merged(older, record) if older else record)
    limit = limit.best(limits.measure(given.threads))  # a machine that was disturbed at the start has no low limit for it
    record |= {"peak_gflops": limit.gflops, "gbs": list(limit.gbs)}
    for row in record["rows"].values():
        row |= bounds(row, limit)
    return (report.merged(older, record) if older else record), status


def write(path: Path | None, record: report.Record) -> None:
    """A record to a file, at once."""
    if path:
        beside = path.with_name(path.name + ".new")
        beside.write_text(json.dumps(record, indent=1))
        beside.replace(path)


def bounds(row: report.Record, limit: limits.Limits) -> report.Record:
    """What the machine allows for a row."""
    return {"bound_ms": limit.bound_ms(row["flops"], row["nbytes"]), "peak_gflops": limit.gflops}


def main(arguments: Sequence[str]) -> int:
    """Exit status: 1 where a result of graphc is wrong or it failed."""
    if arguments and arguments[0] in OTHERS:
        return int(importlib.import_module(f"bench.{arguments[0]}").main(arguments[1:]))
    given = parser().parse_args(arguments)
    try:
        names = chosen(given.names)
    except KeyError as missing:
        parser().error(f"there is no row or group {missing}; rows: {', '.join(WORKLOADS)}")
    if unknown := [name for name in given.libraries or () if not report.named(name)]:
        parser().error(f"there is no library {', '.join(unknown)}; libraries: {', '.join(LIBRARIES)}")
    record: report.Record | None = None
    for path in given.merge:
        older = json.loads(path.read_text())
        record = report.merged(record, older) if record else older
    status = 0
    if not given.report:
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            record, status = measured(given, names, given.folder or Path(scratch), record)
    if record is None:
        parser().error("--report needs --merge")
    print(report.about(record), report.table(record), report.summary(record), sep="\n\n")
    write(given.json, record)
    if given.chart:
        from bench import chart

        chart.draw(record, given.chart)
    if given.history:
        from bench import history

        history.add(record)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
