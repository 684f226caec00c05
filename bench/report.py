"""Tables of what was measured, and the targets beside the means.

Enters: a run's record, a dict fit for JSON.  Leaves: text.  Never here: measuring.

record: ``threads``, ``machine``, ``date``, ``versions``, ``peak_gflops``, ``gbs``, and ``rows``: name -> ``group``, ``bound_ms``,
``peak_gflops`` and ``cells``: library -> ``ms``, ``cold_s``, ...; see `bench.turns`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench.peers import CHANGED, LIBRARIES, OURS
from bench.workloads import WORKLOADS

Record = dict[str, Any]
FAULTS = 0.05  # of a call: what the clock of the loop itself needs
PEAK_SHARE = 0.88
FROM_CACHE_S = 0.2
# group -> (what it is called, the least mean ratio to the best peer)
TARGETS: dict[str, tuple[str, float]] = {
    "rows": ("rows and pointwise", 1.6), "small": ("small and skinny matmul", 1.3), "square": ("square matmul >= 1024", 1.0),
    "mlp": ("MLPs", 1.15), "resnet": ("ResNet-18", 1.5), "mobilenet": ("MobileNetV2", 1.3), "unet": ("UNet", 1.4),
    "lstm": ("LSTM", 1.2), "attention": ("causal attention", 2.0), "transformer": ("GPT-2 block and MiniLM", 1.15),
    "efficientnet": ("EfficientNet-Lite0", 1.3), "decode": ("decode", 1.15), "steps": ("training steps", 1.5),
    "tiny": ("tiny call", 8.0),
}  # fmt: skip
HEADER = ("workload", "library", "ms", "ratio", "bound ms", "of bound", "cold s", "cached s", "RSS MB", "faults")


def mean(values: Iterable[float]) -> float:
    """The geometric mean; NaN of nothing."""
    logs = [math.log(value) for value in values if value > 0]
    return math.exp(statistics.fmean(logs)) if logs else math.nan


def best_peer(row: Record) -> tuple[str, float] | None:
    """The fastest library that is not graphc, and its milliseconds."""
    left_out = {*OURS, *row.get("aside", ())}
    times = [(cell["ms"], name) for name, cell in row["cells"].items() if name not in left_out and "ms" in cell]
    return (min(times)[1], min(times)[0]) if times else None


def ratio(row: Record, ours: str = "graphc", peer: str | None = None) -> float | None:
    """A peer's time, by default the best one's, over graphc's."""
    mine = row["cells"].get(ours, {}).get("ms")
    best = best_peer(row) if peer is None else (peer, row["cells"].get(peer, {}).get("ms"))
    return best[1] / mine if mine and best and best[1] else None


def ratios(record: Record, ours: str = "graphc", peer: str | None = None, group: str | None = None) -> dict[str, float]:
    """`ratio` of every row that has one."""
    found = {name: ratio(row, ours, peer) for name, row in record["rows"].items() if group in (None, row["group"])}
    return {name: value for name, value in found.items() if value is not None}


def _text(value: float | None, form: str = ".3g") -> str:
    return "" if value is None or math.isnan(value) else f"{value:{form}}"


def lines(name: str, row: Record) -> list[tuple[str, ...]]:
    """A row of the table for each library, the fastest first."""
    best, bound = best_peer(row), row.get("bound_ms")
    cells = sorted(row["cells"].items(), key=lambda item: item[1].get("ms", math.inf))
    made: list[tuple[str, ...]] = []
    for library, cell in cells:
        if "error" in cell or "ms" not in cell:
            made.append((name, library, "", cell.get("error", "not timed")))
            continue
        ms = cell["ms"]
        made.append((
            name, library, f"{'~' if cell.get('noisy') else ''}{ms:.4g}", _text(best[1] / ms if best else None, ".2f"),
            _text(bound), _text(bound / ms if bound else None, ".2f"), _text(cell.get("cold_s"), ".2f"),
            _text(cell.get("warm_s"), ".3f"), f"{cell['rss_mb']:.0f}", _text(cell["faults"], ".1f"),
        ))  # fmt: skip
    return made


def aligned(rows: Sequence[tuple[str, ...]], left: int = 2) -> str:
    """Columns as wide as they must be; a row with fewer cells ends in a remark."""
    full = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    text = []
    for row in rows:
        cells = [cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=False))]
        if len(row) < len(widths):
            cells[-1] = row[-1]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


# ---- targets -----------------------------------------------------------------------------------------------------------

Check = tuple[str, str, str, bool | None]  # what, measured, wanted, whether it is met (None: not measured)


def _least(what: str, value: float, wanted: float, count: int) -> Check:
    return f"{what} ({count} rows)", _text(value, ".2f") or "-", f">= {wanted:g}", value >= wanted if count else None


def _most(what: str, value: float | None, wanted: float, form: str = ".2f") -> Check:
    return what, _text(value, form) or "-", f"<= {wanted:g}", None if value is None or math.isnan(value) else value <= wanted


def speed(record: Record) -> list[Check]:
    """Against the best of all peers, against each kind, and by group."""
    everything, made = ratios(record), []
    made.append(_least("against the best peer", mean(everything.values()), 1.5, len(everything)))
    if everything:
        worst = min(everything, key=lambda name: everything[name])
        made.append(("slowest row", f"{everything[worst]:.2f} {worst}", ">= 1", everything[worst] >= 1))
    for peer, wanted in (("torch.compile", 2.2), ("torch", 2.2)):
        found = ratios(record, peer=peer)
        made.append(_least(f"against {peer}", mean(found.values()), wanted, len(found)))
    for group, (what, wanted) in TARGETS.items():
        found = ratios(record, group=group)
        made.append(_least(what, mean(found.values()), wanted, len(found)))
    for name, row in record["rows"].items():
        if row["group"] == "square" and "ms" in row["cells"].get("graphc", {}):
            share = row["flops"] / row["cells"]["graphc"]["ms"] / 1e6 / row["peak_gflops"]
            made.append((f"{name}: share of the FMA peak", f"{share:.2f}", f">= {PEAK_SHARE}", share >= PEAK_SHARE))
    lenet = ratios(record).get("train_lenet_sgdm_b64")
    made.append(_least("LeNet step", lenet or math.nan, 2.5, int(lenet is not None)))
    fewer = [value for name in CHANGED for value in ratios(record, name).values()]
    made.append(_least("decode, int8 or bfloat16 weights", max(fewer, default=math.nan), 2.0, len(fewer)))
    found = ratios(record, "graphc eager", "torch")
    made.append(_least("eager against PyTorch eager", mean(found.values()), 1.0, len(found)))
    return made


def _cells(record: Record, library: str, key: str) -> dict[str, Any]:
    return {name: row["cells"][library][key] for name, row in record["rows"].items() if key in row["cells"].get(library, {})}


def compilation(record: Record) -> list[Check]:
    """Cold and cached first calls."""
    cold, warm = _cells(record, "graphc", "cold_s"), _cells(record, "graphc", "warm_s")
    theirs = {name: seconds for name, seconds in _cells(record, "torch.compile", "cold_s").items() if name in cold}
    slow = {name: seconds / WORKLOADS[name].cold_target_s for name, seconds in cold.items() if name in WORKLOADS}
    worst = max(slow, key=lambda name: slow[name], default="")
    late = max(warm, key=lambda name: warm[name], default="")
    mine_s, theirs_s = sum(cold[name] for name in theirs), sum(theirs.values())
    sums = f"{mine_s:.1f} s / {theirs_s:.1f} s" if theirs else ""
    stacks = [cold.get(f"gpt_{n}_layers") for n in (12, 48)]
    growth = stacks[1] / stacks[0] if stacks[0] and stacks[1] else None
    target = WORKLOADS[worst].cold_target_s if worst else 1.0
    over, late_rows = sum(part > 1 for part in slow.values()), sum(seconds > FROM_CACHE_S for seconds in warm.values())
    return [
        _most(f"slowest cold compile, s: {worst} ({over} rows over)", cold.get(worst), target),
        _most(f"cold compile / torch.compile's, {len(theirs)} rows: {sums}", mine_s / theirs_s if theirs else None, 0.1, ".3f"),
        _most("cold compile of 48 layers / 12", growth, 1.5),
        _most(f"slowest first call from the cache, s: {late} ({late_rows} rows over)", warm.get(late), FROM_CACHE_S, ".3f"),
    ]


def memory(record: Record) -> list[Check]:
    """Peak RSS beside PyTorch eager's, and page faults."""
    mine, theirs = _cells(record, "graphc", "rss_mb"), _cells(record, "torch", "rss_mb")
    shares = {name: mine[name] / theirs[name] for name in mine if name in theirs}
    worst = max(shares, key=lambda name: shares[name], default="")
    faults = _cells(record, "graphc", "faults")
    most = max(faults, key=lambda name: faults[name], default="")
    compiled, eager = _cells(record, "graphc", "hash"), _cells(record, "graphc eager", "hash")
    failed = [name for name, row in record["rows"].items() if any("error" in row["cells"].get(library, {}) for library in OURS)]
    different = [name for name in compiled if eager.get(name, compiled[name]) != compiled[name]]
    return [
        _most(f"peak RSS / PyTorch eager's: {worst}", shares.get(worst), 1.0),
        _most(f"page faults of a call: {most} ({sum(f > FAULTS for f in faults.values())} rows)", faults.get(most), FAULTS),
        _most(f"rows where graphc failed: {', '.join(failed) or 'none'}", float(len(failed)), 0, ".0f"),
        _most(f"rows where compiled bits are not eager's: {', '.join(different) or 'none'}", float(len(different)), 0, ".0f"),
    ]


def summary(record: Record) -> str:
    """Every target with what was measured."""
    sections: list[tuple[str, Callable[[Record], list[Check]]]] = [
        ("speed: best peer's time / graphc's, geometric means", speed), ("compilation", compilation), ("memory and bits", memory),
    ]  # fmt: skip
    text = []
    for title, section in sections:
        checks = [(*check, "pass" if met else "FAIL") for *check, met in section(record) if met is not None]
        text += ["", title, aligned(checks, 1)] if checks else []
    return "\n".join(text).lstrip("\n")


def table(record: Record) -> str:
    """All rows."""
    made: list[tuple[str, ...]] = [HEADER]
    for name in (name for name in WORKLOADS if name in record["rows"]):
        made += lines(name, record["rows"][name])
    return aligned(made)


def about(record: Record) -> str:
    """One line for the run."""
    gbs = ", ".join(f"{value:.0f}" for value in record.get("gbs", ()))
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"{record['date']}, {record['machine']}, {record['threads']} threads; "
        f"FMA peak {record['peak_gflops']:.0f} GFLOP/s; GB/s at 0.5, 4, 16, 64, 512 MiB: {gbs}; {versions}"
        + (f"; not installed: {', '.join(record['missing'])}" if record.get("missing") else "")
    )


def merged(older: Record, newer: Record) -> Record:
    """`older` with the cells of `newer` put over it.  What only `older` has, as a cold compile that was not repeated, stays."""
    if older["threads"] != newer["threads"]:
        raise ValueError(f"{older['threads']} and {newer['threads']} threads do not belong into one table")
    rows = {name: {**row, "cells": dict(row["cells"])} for name, row in older["rows"].items()}
    for name, row in newer["rows"].items():
        cells = rows.get(name, row)["cells"]
        put = {}
        for library, cell in row["cells"].items():
            failed = "error" in cell or "error" in cells.get(library, {})
            put[library] = cell if failed else {**cells.get(library, {}), **cell}
        rows[name] = {**row, "cells": {**cells, **put}}
    return {**older, **newer, "rows": rows}


def named(name: str) -> list[str]:
    """Libraries of this name, or whose names begin with it and a space."""
    return [library for library in LIBRARIES if library == name or library.startswith(name + " ")]


def installed(names: Iterable[str]) -> list[str]:
    """The libraries so named that are installed, in the order of `LIBRARIES`."""
    wanted = {library for name in names for library in named(name)}
    return [library for library in LIBRARIES if library in wanted and not LIBRARIES[library].missing]
