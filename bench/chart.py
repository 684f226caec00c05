"""A picture of a run: the best peer's time over graphc's, row by row, and how near both are to the machine's limit.

Enters: a record (`bench.report`).  Leaves: a PNG.  Never here: figures that the table does not have.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bench import report
from bench.workloads import WORKLOADS

SERIES = (("best peer", None, "#2b6cb0"), ("torch.compile", "torch.compile", "#a0aec0"), ("torch", "torch", "#ed8936"))


def draw(record: report.Record, path: Path) -> None:
    """Ratios to the best peer as bars, to PyTorch's two as dots, on a logarithmic axis; and the share of the bound."""
    try:
        import matplotlib as mpl
    except ImportError:
        sys.exit("--chart needs matplotlib: pip install matplotlib")
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in WORKLOADS if name in report.ratios(record)][::-1]
    if not names:
        sys.exit("there is no row to draw: none has both graphc and a peer")
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, 1.6 + 0.24 * len(names)), width_ratios=(3, 1), sharey=True, layout="constrained"
    )
    _ratios(left, record, names)
    _bounds(right, record, names)
    where = f"{record['machine']}, {record['threads']} threads, {record['date']}"
    figure.suptitle(f"graphc beside other libraries: {where}", fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _ratios(axes: Any, record: report.Record, names: list[str]) -> None:
    for place, (label, peer, colour) in enumerate(SERIES):
        found = report.ratios(record, peer=peer)
        if not found:
            continue
        values = [found.get(name) for name in names]
        if place == 0:
            axes.barh(
                names,
                [(v or 1) - 1 for v in values],
                left=1,
                color=colour,
                label=f"{label}: mean {report.mean(found.values()):.2f}",
            )
            for i, (name, value) in enumerate(zip(names, values, strict=True)):
                best = report.best_peer(record["rows"][name])
                axes.annotate(f" {value or 0:.2f} {best[0] if best else ''}", (max(value or 1, 1), i), va="center", fontsize=6)
        else:
            axes.plot(values, names, "o", ms=3.5, color=colour, label=f"{label}: mean {report.mean(found.values()):.2f}")
    axes.set_xscale("log")
    axes.axvline(1, color="black", lw=0.8)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel("their time / graphc's: right of 1, graphc is faster")
    axes.legend(fontsize=7, loc="lower right")


def _bounds(axes: Any, record: report.Record, names: list[str]) -> None:
    for place, (label, library) in enumerate((("graphc", "graphc"), ("best peer", ""))):
        shares = []
        for name in names:
            row = record["rows"][name]
            best = report.best_peer(row)
            ms = row["cells"][library]["ms"] if library else best[1] if best else 0
            shares.append(row["bound_ms"] / ms if row.get("bound_ms") and ms else 0.0)
        axes.plot(shares, names, "o", ms=4, color=("#2b6cb0", "#a0aec0")[place], label=label)
    axes.set_xlim(0, 1.1)
    axes.set_xlabel("share of the roofline bound")
    axes.legend(fontsize=7)
