"""The benchmark's command: a tiny row through it, and what its figures become."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import history, limits, report, turns  # noqa: E402
from bench.workloads import GROUPS, WORKLOADS, generator  # noqa: E402


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_tiny_row(tmp_path: Path) -> None:
    """graphc and NumPy, checked, timed and written down; the run of before is merged."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    quick = ["--threads", "1", "--seconds", "0.02", "--rounds", "1", "--folder", str(tmp_path / "rows")]
    ended = bench("tiny_call", *quick, "--libraries", "graphc", "numpy", "--json", str(first))
    assert ended.returncode == 0, ended.stderr
    record = json.loads(first.read_text())
    row = record["rows"]["tiny_call"]
    assert set(row["cells"]) == {"graphc", "graphc eager", "numpy"} and row["group"] == "tiny"
    for cell in row["cells"].values():
        assert cell["ms"] > 0 and cell["rss_mb"] > 1 and cell["faults"] >= 0 and len(cell["rounds"]) == 1
    assert row["cells"]["graphc"]["cold_s"] > 0 and row["cells"]["graphc"]["warm_s"] > 0
    assert row["cells"]["graphc"]["hash"] == row["cells"]["graphc eager"]["hash"]
    assert record["peak_gflops"] > 1 and len(record["gbs"]) == len(limits.SIZES)

    ended = bench("--report", "--merge", str(first), str(first), "--json", str(second))
    assert ended.returncode == 0 and "page faults of a call" in ended.stdout, ended.stderr
    assert json.loads(second.read_text())["rows"] == record["rows"]


def test_calls_of_a_module() -> None:
    """graphc alone; its results are right, and every kind of call is timed."""
    ended = bench("calls", "--libraries", "graphc", "--parameters", "6", "--seconds", "0.05", "--threads", "1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = ended.stdout.splitlines()
    assert told[0].startswith("6 parameters") and len(told) == 5
    assert all(float(line.split()[-1]) > 0 for line in told[1:])


def test_bits_of_rows() -> None:
    """A row as it is and, having one sample, with several; status 0."""
    ended = bench("bits", "tiny", "mlp_784_512_512_10_b1", "--threads", "2", "--lanes", "8")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = [line.split(" (")[0] for line in ended.stdout.splitlines()]
    names = {"tiny_call": 8, "mlp_784_512_512_10_b1": 4, "mlp_784_512_512_10_b1 x 4": 8}
    assert told == [f"{name}: the same bits in all {count} configurations" for name, count in names.items()]


def test_every_row_can_be_compared() -> None:
    """Inputs that hold samples agree on how many; training rows have none, for they give one loss."""
    assert not any(workload.training and workload.samples for workload in WORKLOADS.values())
    for workload in (workload for workload in WORKLOADS.values() if len(workload.samples) > 1):
        lengths = {len(workload.inputs(generator(workload))[i]) for i in workload.samples}
        assert len(lengths) == 1, workload.name


def test_failures_are_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that fails, and one that does not answer, have a remark for figures; the others are timed."""
    monkeypatch.setattr(turns, "ANSWER_S", 0.3)
    script = "import json, sys, time\nfor _ in sys.stdin:\n    {}"
    answers = {"slow": "time.sleep(60)", "ended": "sys.exit(3)", "good": "print(json.dumps({'ms': [1.0]}), flush=True)"}
    settings = turns.Settings(1, 0.01, 3, tmp_path)
    for name, answer in answers.items():
        worker = turns.Worker(name, "tiny_call", settings, tmp_path)
        worker.command = [sys.executable, "-I", "-S", "-c", script.format(answer)]
        told = worker.ask("time", seconds=0.01)
        worker.end()
        wanted = {"slow": "no answer within", "ended": "status 3"}
        assert wanted[name] in told["error"] if name in wanted else told == {"ms": [1.0]}


def test_rounds_end_where_times_agree() -> None:
    assert turns.spread([]) == 1.0 and turns.spread([2.0, 1.0, 9.0, 1.5]) == 2.0

    class Steady(turns.Worker):
        def __init__(self, times: list[float]) -> None:
            self.times = times

        def ask(self, do: str, **request: Any) -> dict[str, Any]:
            return {"ms": [self.times.pop(0)], "rss_mb": 1.0, "faults": 0.0}

    for times, rounds in (([1.0] * 9, 3), ([1.0, 2.0, 1.5, 1.0, 1.0, 1.0], 5)):
        cells: dict[str, dict[str, Any]] = {"a": {}}
        turns.take_turns({"a": Steady(list(times))}, cells, turns.Settings(1, 0.0, 6, Path()))
        assert len(cells["a"]["rounds"]) == rounds and cells["a"]["ms"] == 1.0 and not cells["a"]["noisy"]


def test_unknown_names() -> None:
    ended = bench("no_such_row")
    assert ended.returncode == 2 and "no_such_row" in ended.stderr


def _record(**cells: dict[str, Any]) -> report.Record:
    row = {"group": "rows", "flops": 0.0, "nbytes": 1e6, "bound_ms": 0.1, "peak_gflops": 1.0, "cells": cells}
    run = {
        "date": "2026-01-01 00:00",
        "threads": 1,
        "machine": "m",
        "versions": {"python": "3.11"},
        "peak_gflops": 1.0,
        "gbs": [1.0],
    }
    return {**run, "rows": {"softmax": row}}


def _cell(ms: float, **more: Any) -> dict[str, Any]:
    return {"ms": ms, "rss_mb": 1.0, "faults": 0.0, "hash": "a", **more}


def test_targets() -> None:
    """Ratios are to the best peer; what is off is left out; a merge keeps what only the older run has."""
    record = _record(graphc=_cell(1.0, cold_s=0.1), torch=_cell(3.0), jax=_cell(2.0), onnxruntime={"error": "off by 1"})
    assert report.ratios(record) == {"softmax": 2.0} and report.ratios(record, peer="torch") == {"softmax": 3.0}
    checks = {what: (value, met) for what, value, _, met in report.speed(record)}
    assert checks["rows and pointwise (1 rows)"] == ("2.00", True) and checks["LSTM (0 rows)"][1] is None
    assert "off by 1" in report.table(record)
    both = report.merged(record, _record(graphc=_cell(4.0)))
    assert both["rows"]["softmax"]["cells"]["graphc"] == _cell(4.0, cold_s=0.1)
    with pytest.raises(ValueError, match="threads"):
        report.merged(record, {**record, "threads": 2})


def test_history(tmp_path: Path) -> None:
    """Rows are added below those of before, and what follows the table stays."""
    page = tmp_path / "page.md"
    page.write_text("# Page\n")
    record = _record(graphc=_cell(1.0), torch=_cell(2.0))
    history.add(record, page)
    page.write_text(page.read_text() + "\n## After\n")
    history.add(record, page)
    lines = page.read_text().splitlines()
    rows = [line for line in lines if line.startswith("| 2026-01-01")]
    assert len(rows) == 2 and lines.index("## After") == lines.index(rows[0]) + 3
    assert rows[0].count("|") == lines[lines.index(rows[0]) - 1].count("|")


def test_bounds() -> None:
    """The slower of arithmetic and memory, the bandwidth being that of the working set."""
    limit = limits.Limits(100.0, (100.0, 50.0, 40.0, 30.0, 20.0))
    assert limit.bound_ms(1e9, 8.0) == pytest.approx(10.0)
    assert limit.bound_ms(0.0, 1e9) == pytest.approx(50.0)
    assert limit.bandwidth(4 << 20) == pytest.approx(50.0) and 30 < limit.bandwidth(32 << 20) < 40
    assert limit.bound_ms(None, 1.0) is None


def test_rows_have_targets() -> None:
    assert set(report.TARGETS) <= set(GROUPS)
    assert all(workload.name == name for name, workload in WORKLOADS.items())
