"""Importing all that eager code needs is less work than importing NumPy, counted in function calls: no load changes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import sys
calls = 0
def count(frame, event, argument):
    global calls
    calls += event in ("call", "c_call")
sys.setprofile(count)
import numpy
numpy_calls, calls = calls, 0
import graphc
graphc.tensor
sys.setprofile(None)
print(calls, numpy_calls)
assert not {"llvmlite", "networkx", "graphc.pipeline", "graphc.native.sites"} & set(sys.modules)
"""


def test_importing_graphc_calls_less_than_importing_numpy(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the second process finds bytecode, as an installed package does
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", CODE], check=True, capture_output=True, text=True, timeout=120, env=environment
        )
    ours, numpy = map(int, done.stdout.split())
    assert ours < 0.75 * numpy, f"importing graphc makes {ours} calls, NumPy {numpy}"
