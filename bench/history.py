"""The dated table in ``docs/performance.md``: a row for each run, a column for each mean.

Enters: a record (`bench.report`).  Leaves: the page with one row more.  Never here: anything else of the page.
"""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

from bench import report

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
HEADING = "## History"
GROUPS = tuple(report.TARGETS)


def _git(*words: str) -> str:
    return subprocess.run(("git", *words), cwd=PAGE.parent, capture_output=True, text=True, check=True).stdout.strip()


def commit() -> str:
    """The checkout's, short; with a plus where files were changed."""
    try:
        return _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain", "../src") else "")
    except (OSError, subprocess.CalledProcessError):
        return "-"


def cells(record: report.Record) -> list[str]:
    """Of one row: date, commit, threads, rows, means against the best peer, torch.compile, torch, eager, and of every group."""
    means = [
        report.mean(report.ratios(record).values()),
        report.mean(report.ratios(record, peer="torch.compile").values()),
        report.mean(report.ratios(record, peer="torch").values()),
        report.mean(report.ratios(record, "graphc eager", "torch").values()),
        *(report.mean(report.ratios(record, group=group).values()) for group in GROUPS),
    ]
    return [
        record["date"].split()[0], commit(), str(record["threads"]), str(len(report.ratios(record))),
        *("" if math.isnan(value) else f"{value:.2f}" for value in means),
    ]  # fmt: skip


def add(record: report.Record, page: Path = PAGE) -> None:
    """Add a row under the heading, which is made where it is not there yet, with the table, at the end."""
    text = page.read_text()
    head = ["date", "commit", "threads", "rows", "best peer", "torch.compile", "torch", "eager / torch", *GROUPS]
    row = lambda parts: f"| {' | '.join(parts)} |\n"
    if HEADING not in text:
        about = (
            "Each row is one run: geometric means of other libraries' time over graphc's (above 1, graphc is faster), against the\n"
            "best peer of every row, against `torch.compile` and PyTorch eager, graphc eager against PyTorch eager; then against\n"
            "the best peer by group.\n"
        )
        text = f"{text.rstrip()}\n\n{HEADING}\n\n{about}\n{row(head)}{row(['---'] * len(head))}"
    before, _, after = text.partition(HEADING)
    lines = after.splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if line.startswith("|"))
    lines.insert(last + 1, row(cells(record)))
    page.write_text(before + HEADING + "".join(lines))
