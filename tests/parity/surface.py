"""Which names of PyTorch graphc must have, what of each is checked, and the page that says what fails.

``python tests/parity/surface.py`` runs every check of every name and writes ``docs/coverage.md``; the tests run a smaller spread
of the samples and expect the failures that the page lists.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import opinfo
import torch
from surface_cases import CASES

import graphc

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "coverage.md"
ROW = re.compile(r"^\| `([^`]+)` \| (\w+) \| (\d+) of (\d+) \| (.*) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Failure:
    """One check of one name that does not pass."""

    name: str
    check: str
    passed: int
    tried: int
    example: str


@cache
def listed() -> dict[str, list[str]]:
    """The names by section: ``core`` (the 150 most used operators), ``rest`` (other operators), ``other`` (not operators)."""
    sections: dict[str, list[str]] = {}
    for line in (HERE / "surface.txt").read_text().splitlines():
        if line.startswith("["):
            names = sections.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            names.append(line)
    return sections


def pairs() -> Iterator[tuple[str, str]]:
    """Every (name, check)."""
    sections = listed()
    for name in (*sections["core"], *sections["rest"]):
        for check in opinfo.CHECKS:
            yield name, check
    for name in sections["other"]:
        yield name, "case"


def run(name: str, check: str, limit: int = 12) -> opinfo.Outcome:
    """One check of one name."""
    if check != "case":
        return opinfo.check(name, check, limit=limit)
    outcome = opinfo.Outcome(tried=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opinfo.compare(CASES[name](graphc), CASES[name](torch))
    except Exception as error:
        outcome.failures.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return outcome


def known() -> dict[tuple[str, str], Failure]:
    """The failures that the page lists."""
    found = (Failure(n, c, int(p), int(t), e) for n, c, p, t, e in ROW.findall(PAGE.read_text() if PAGE.exists() else ""))
    return {(f.name, f.check): f for f in found}


# ---- the page ----------------------------------------------------------------------------------------------------------


def _measured(pair: tuple[str, str], limit: int = 12) -> tuple[str, str, int, list[str]]:
    outcome = run(*pair, limit=limit)
    return *pair, outcome.tried, outcome.failures


def page(results: list[tuple[str, str, int, list[str]]]) -> str:
    """The text of ``docs/coverage.md``."""
    failed = {name for name, _, _, failures in results if failures}
    lines = [
        "# Coverage of PyTorch's names",
        "",
        "Written by `python tests/parity/surface.py`, which runs PyTorch's own samples of every operator on graphc: the function",
        "for every dtype (`eager`), methods, in-place forms, operators and `out=` (`forms`), gradients and second gradients,",
        "compiled code against eager to the bit (`compiled`), and calls that must fail (`errors`). Names that are no operators",
        "have one `case` each.",
        f"The names are the most used ones, counted over 2,316 public files. PyTorch {torch.__version__.split('+')[0]}.",
        "",
        "| names | all checks pass | of |",
        "|---|---|---|",
    ]
    titles = {"core": "the 150 most used operators", "rest": "other operators", "other": "not operators"}
    for section, title in titles.items():
        names = listed()[section]
        lines.append(f"| {title} | {sum(n not in failed for n in names)} | {len(names)} |")
    tried = sum(r[2] for r in results)
    lines += ["", f"{tried} comparisons, {sum(len(r[3]) for r in results)} differences.", "", "## What differs", ""]
    lines += ["| name | check | pass | example |", "|---|---|---|---|"]
    for name, check, count, failures in results:
        if failures:
            example = failures[0].replace("|", "\\|").replace("`", "'")[:220]
            lines.append(f"| `{name}` | {check} | {count - len(failures)} of {count} | {example} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> int:
    """Run everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(argv)
    with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=60) as pool:
        results = pool.map(_measured, list(pairs()), chunksize=6)
    PAGE.write_text(page(results))
    print("\n".join(page(results).splitlines()[8:16]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
