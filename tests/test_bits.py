"""``graphc verify bits``: that it finds equal bits equal, and that it can find bits that are not."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from graphc.artifact import container
from graphc.cli import main
from graphc.explain import bits

ROOT = Path(__file__).resolve().parents[1]
TRANSFORMER = str(ROOT / "examples/bits_transformer.py")

SMALL = """
import graphc
from graphc import nn
from graphc.runtime.threads import get_num_threads

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(7, 3)

    def forward(self, x):
        return {forward}

def build():
    graphc.manual_seed(1)
    return {{
        "model": Model(),
        "inputs": (graphc.randn(5, 7),),
        "loss": lambda model, x: model(x).square().mean(),
        "optimizer": lambda parameters: graphc.optim.SGD(parameters, lr=0.1, momentum=0.9),
    }}
"""


@pytest.fixture(autouse=True)
def package_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers are processes of their own."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))


def script(tmp_path: Path, forward: str) -> str:
    path = tmp_path / "small.py"
    path.write_text(SMALL.format(forward=forward))
    return str(path)


def test_transformer_has_the_same_bits_everywhere() -> None:
    rows = bits.verify(TRANSFORMER, threads=(1, 3), lanes=(4, 16))
    assert {(row.mode, row.threads, row.lanes) for row in rows} == {
        (mode, threads, lanes) for mode in (*bits.HERE, bits.LOADED) for threads in (1, 3) for lanes in (4, 16)
    }
    assert {row.hashes for row in rows} == {rows[0].hashes}
    assert len(set(rows[0].hashes)) == len(bits.COLUMNS)  # three different things were hashed
    assert bits.verdict(rows) == (True, "the same bits in all 16 configurations")


def test_widths_are_different_code(tmp_path: Path) -> None:
    codes = []
    for lanes in (4, 16):
        folder = tmp_path / str(lanes)
        folder.mkdir()
        command = [sys.executable, "-m", "graphc.explain.bits", "here", "--threads", "1", "--steps", "2", "--folder", str(folder)]
        target = ["--target", script(tmp_path, "self.linear(x).tanh()")]
        subprocess.run([*command, *target], env={**os.environ, "GRAPHC_LANES": str(lanes)}, check=True, capture_output=True)
        codes.append(container.read(folder / "training.gc")["programs/0/native/code.o"])
    assert codes[0] != codes[1]


def test_different_bits_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = script(tmp_path, "self.linear(x) * (1 + 2.0**-20 * get_num_threads())")
    assert main(["verify", "bits", target, "--threads", "1,2", "--lanes", "8", "--steps", "2"]) == 1
    out = capsys.readouterr().out
    assert "different bits in 4 of 8 configurations" in out
    starred = [line for line in out.splitlines() if "* " in line]
    assert len(starred) == 4
    assert all(line.count("*") == len(bits.COLUMNS) for line in starred)


FUNCTION = """
import graphc
from graphc import nn

class Model(nn.Module):
    def forward(self, x, y):
        return x.tanh() + y, {second}

def build():
    graphc.manual_seed(1)
    inputs = (graphc.randn(13, 7), graphc.randn(7))
    return {{"model": Model(), "inputs": inputs, "outputs": lambda model, *given: model(*given), "samples": (0,)}}
"""


@pytest.mark.parametrize(("second", "different"), [("x.sum(1)", 0), ("x - x.mean(0)", 4)], ids=["same", "mixed"])
def test_samples_in_batches_of_other_sizes(tmp_path: Path, second: str, different: int) -> None:
    """Without a loss outputs alone are compared; a sample that sees the others of its batch is found."""
    path = tmp_path / "samples.py"
    path.write_text(FUNCTION.format(second=second))
    rows = bits.verify(str(path), threads=(2,), lanes=(8,))
    ways = ("", ", in ones", ", in parts")
    assert [row.mode for row in rows] == [*(f"eager{w}" for w in ways), "module", *(f"compiled{w}" for w in ways), "loaded"]
    assert all(row.hashes[0] and row.hashes[1:] == ("", "") for row in rows)
    assert sum(row.hashes != rows[0].hashes for row in rows) == different
    assert bits.verdict(rows)[0] == (not different)


def test_partitions() -> None:
    assert bits.partitions(1) == {} and bits.partitions(2) == {"in ones": [1, 1]}
    assert bits.partitions(4) == {"in ones": [1, 1, 1, 1], "in parts": [2, 2]}
    assert bits.partitions(32) == {"in ones": [1] * 6 + [26], "in parts": [2, 3, 5, 9, 13]}


@pytest.mark.parametrize(
    ("forward", "message"),
    [("graphc.compiler.disable(self.linear)(x)", "did not compile"), ("self.linear(x @ x)", "inner sizes differ")],
    ids=["falls back to eager", "raises"],
)
def test_what_cannot_be_compared_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], forward: str, message: str
) -> None:
    assert main(["verify", "bits", script(tmp_path, forward), "--threads", "1", "--lanes", "8"]) == 2
    error = capsys.readouterr().err
    assert message in error and "1 threads, 8 lanes" in error


def test_module_names_work_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "x")
    (tmp_path / "small.py").rename(tmp_path / "bits_small_module.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    assert bits.import_script("bits_small_module").build()["inputs"][0].shape == (5, 7)


def test_one_step_is_too_few(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "bits", TRANSFORMER, "--steps", "1"]) == 2
    assert "at least 2 training steps" in capsys.readouterr().err


@pytest.mark.parametrize("counts", ["0", "1,1", "a", ""])
def test_bad_counts_are_a_usage_error(counts: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["verify", "bits", TRANSFORMER, "--threads", counts])
    assert stopped.value.code == 2
    assert "list of different positive integers" in capsys.readouterr().err


def test_hash_tells_apart_everything_but_nans() -> None:
    quiet, payload = np.array([0x7FC00000, 0xFFC00123], np.uint32).view(np.float32)[:, None]
    assert bits.hash_arrays([quiet]) == bits.hash_arrays([payload])
    one = np.ones((2, 3), np.float32)
    others = [one.T, one.astype(np.float64), one.view(np.int32), one * np.float32(1 + 2**-23), one[:1], None]
    assert len({bits.hash_arrays([x]) for x in (one, *others)}) == 1 + len(others)
    assert bits.hash_arrays([np.zeros(1)]) != bits.hash_arrays([-np.zeros(1)])
    assert bits.hash_arrays([np.float32(2.0)]) == bits.hash_arrays([np.array(2.0, np.float32)])
    assert json.dumps(bits.hash_arrays([np.zeros(0)]))


def test_table_without_rich(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(name: str) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    same, other = ("a" * 64, "b" * 64, "c" * 64), ("a" * 64, "d" * 64, "c" * 64)
    bits.show([bits.Row("eager", 1, 4, same), bits.Row("loaded", 3, 16, other)], 3)
    assert capsys.readouterr().out.splitlines() == [
        "mode    threads  lanes  outputs        gradients      3 training steps",
        "------  -------  -----  -------------  -------------  ----------------",
        "eager   1        4      aaaaaaaaaaaa   bbbbbbbbbbbb   cccccccccccc",
        "loaded  3        16     aaaaaaaaaaaa   dddddddddddd*  cccccccccccc",
    ]
