"""graphc's process: eager and compiled.  Training steps are compiled whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graphc
from bench.peers import Begin
from bench.prepare import arrays, fill, flat
from bench.workloads import Workload
from bench.workloads.steps import step_of


def runner(workload: Workload, folder: Path, mode: str, threads: int) -> tuple[Begin, Any]:
    """See `bench.peers`."""
    graphc.set_num_threads(threads)
    graphc.manual_seed(0)
    inputs = [graphc.from_numpy(x) for x in arrays(folder, "input")]
    model = workload.build(graphc)
    with graphc.no_grad():
        fill(model, folder, graphc.from_numpy)
    if hasattr(model, "train"):
        model.train(workload.training)
    function = step_of(graphc, workload, model) if workload.training else model
    weights = mode if mode in ("int8", "bfloat16") else None
    if not workload.training:
        graphc.set_grad_enabled(False)

    def begin() -> Any:
        run = function if mode == "eager" else graphc.compile(function, weights=weights)
        return lambda: run(*inputs)

    return begin, lambda results: [part.numpy() for part in flat(results)]
