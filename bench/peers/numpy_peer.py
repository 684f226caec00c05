"""NumPy's process, for rows that are one call or a few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.peers import Begin
from bench.prepare import arrays, flat
from bench.workloads import Workload


def runner(workload: Workload, folder: Path, mode: str, threads: int) -> tuple[Begin, Any]:
    """See `bench.peers`.  The threads are those of the environment."""
    assert workload.numpy
    function = workload.numpy
    weights = sorted((folder / "weights").glob("*.npy"))
    given = [*arrays(folder, "input"), *map(np.load, weights)]
    return (lambda: lambda: function(*given)), lambda results: [np.asarray(part) for part in flat(results)]
