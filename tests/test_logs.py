"""What the compiler tells: logs by name, and texts of stages that parse back."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import graphc
import graphc.nn as nn
from graphc import logs
from graphc.ir.text import parse_graph, print_graph
from graphc.runtime.link import assemble
from graphc.runtime.plan import Plan


def test_loggers_say_what_happened(caplog: pytest.LogCaptureFixture) -> None:
    for name in logs.NAMES:
        caplog.set_level(logging.DEBUG, f"graphc.{name}")
    compiled = graphc.compile(lambda x: x.exp() * 3.25 - 1.75, use_cache=False)
    compiled(graphc.ones(3))
    told = {record.name.removeprefix("graphc."): record.getMessage() for record in caplog.records}
    assert "argument 0: f32[3], requires_grad=False" in told["guards"]
    assert "exp(" in told["graph"] and "test_logs.py:" in told["graph"]
    assert "kernel @" in told["kernels"]
    assert "recompiles" not in told
    compiled(graphc.ones(3, dtype=graphc.float64))
    told = {record.name: record.getMessage() for record in caplog.records}
    assert "is traced again for a change of arguments" in told["graphc.recompiles"]
    cached = graphc.compile(lambda x: x.exp() * 3.25 - 1.5)
    cached(graphc.ones(3))
    assert any(record.name == "graphc.cache" for record in caplog.records)


def test_nothing_is_told_without_being_asked(caplog: pytest.LogCaptureFixture) -> None:
    graphc.compile(lambda x: x.exp() * 3.25 - 1.25, use_cache=False)(graphc.ones(3))
    assert not [record for record in caplog.records if record.name.startswith("graphc")]


def test_names_of_logs() -> None:
    assert logs.chosen("") == ()
    assert logs.chosen("guards, cache") == ("guards", "cache")
    assert logs.chosen("all") == logs.NAMES
    with pytest.raises(ValueError, match=r"no log 'guard', 'x'; there are guards, recompiles, graph, kernels, cache and all"):
        logs.chosen("guard,cache,x")


def test_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path))
    program = "import graphc; f = graphc.compile(lambda x: x + 1); f(graphc.ones(2)); f(graphc.ones(2).double())"

    def run(asked: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("GRAPHC_LOGS", asked)
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    ended = run("recompiles,cache")
    assert ended.returncode == 0
    assert {line[: line.index("]")] for line in ended.stderr.splitlines()} == {"[graphc.recompiles", "[graphc.cache"}
    ended = run("kernel")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("ValueError: GRAPHC_LOGS: there is no log 'kernel'")


def test_stages_parse_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_DUMP", str(tmp_path))
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    with graphc.no_grad():
        graphc.compile(model)(graphc.ones(2, 1, 4, 4))
    folder = next(path for path in tmp_path.iterdir() if "Sequential" in path.name)
    names = sorted(path.name.split("-", 1)[1] for path in folder.iterdir())
    assert {"traced.gct", "decompose.gct", "main.gct", "constants.gct", "kernels.loops", "plan.json", "module.ll"} <= set(names)
    for path in folder.glob("*.gct"):
        graph = parse_graph(path.read_text())
        assert print_graph(parse_graph(print_graph(graph))) == print_graph(graph)
    for path in folder.glob("*.json"):
        plan = json.loads(path.read_text())
        assert json.loads(json.dumps(Plan.from_json(plan).to_json())) == plan
    for path in list(folder.glob("*.ll"))[:1]:
        assert assemble(path.read_text())
    assert all("kernel @" in path.read_text() for path in folder.glob("*.loops"))
