"""Compilation needs no compiler and nothing executable: empty PATH, noexec temporary and home directories."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import bad_machine

LAUNCHER = [sys.executable, str(Path(bad_machine.__file__))]
SOURCE = Path(__file__).resolve().parents[1] / "src"

IS_BAD = """
import os, pathlib, shutil, subprocess, sys, tempfile
assert os.environ["PATH"] == ""
assert shutil.which("cc") is None
program = pathlib.Path(tempfile.gettempdir(), "program")
program.write_text("#!/bin/sh")
program.chmod(0o755)
try:
    subprocess.run([program])
except PermissionError:
    sys.exit(0)
sys.exit("the program ran")
"""

COMPILE = """
import sys
sys.path.insert(0, {source!r})
import graphc

def f(x, w):
    return (x @ w).softmax(dim=-1).exp().sum(dim=0) * x.mean()

graphc.manual_seed(0)
x, w = graphc.randn(5, 16, requires_grad=True), graphc.randn(16, 7)
compiled = graphc.compile(f)
assert compiled(x, w).detach().numpy().tobytes() == f(x, w).detach().numpy().tobytes()
compiled(x, w).sum().backward()
assert x.grad is not None

def g(x, w):
    return graphc.nn.functional.gelu(x @ w)

inference = graphc.compile(g)
y = inference(x.detach(), w)
inference.save("g.gc")
assert graphc.load("g.gc")(x.detach(), w).numpy().tobytes() == y.numpy().tobytes()
"""


def run_on_bad_machine(code: str, folder: Path) -> None:
    command = [*LAUNCHER, sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if result.returncode == bad_machine.NO_BAD_MACHINE:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr


def test_the_machine_is_bad(tmp_path: Path) -> None:
    run_on_bad_machine(IS_BAD, tmp_path)


def test_compile_save_and_load_on_a_bad_machine(tmp_path: Path) -> None:
    run_on_bad_machine(COMPILE.format(source=str(SOURCE)), tmp_path)
