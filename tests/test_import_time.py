"""Importing everything that eager code needs takes little more than importing NumPy."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import time
start = time.process_time()
import numpy
numpy_s = time.process_time() - start
start = time.process_time()
import graphc
graphc.tensor
print(time.process_time() - start, numpy_s)
import sys
assert not {"llvmlite", "networkx", "graphc.pipeline", "graphc.native.sites"} & set(sys.modules)
"""
LIMIT_S, USUAL_NUMPY_S = 0.1, 0.08  # where NumPy takes longer, so may graphc: the machine is slow or busy


def test_importing_takes_less_than_numpy_and_a_tenth_of_a_second() -> None:
    """The least of several processes: other work on the machine only adds."""
    times = []
    for _ in range(8):
        done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True, timeout=60)
        ours, numpy = map(float, done.stdout.split())
        times.append(ours)
        if ours < LIMIT_S * max(1.0, numpy / USUAL_NUMPY_S):
            return
    raise AssertionError(f"importing graphc took {min(times):.3f} s beside NumPy")
