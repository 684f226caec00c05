"""PyTorch's process: eager, channels_last, torch.compile, and Inductor's freezing.

Steps have the fused optimizer.  With torch.compile, forward and backward are compiled, and the optimizer's step by itself.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from bench.peers import Begin
from bench.prepare import arrays, fill, flat
from bench.workloads import Workload
from bench.workloads.steps import step_of


def runner(workload: Workload, folder: Path, mode: str, threads: int) -> tuple[Begin, Any]:
    """See `bench.peers`."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    inputs = [torch.from_numpy(x) for x in arrays(folder, "input")]
    model = workload.build(torch)
    with torch.no_grad():
        fill(model, folder, torch.from_numpy)
    if hasattr(model, "train"):
        model.train(workload.training)
    if mode == "channels_last":
        model = model.to(memory_format=torch.channels_last)
        inputs = [x.to(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs]
    if mode == "freezing":
        from torch._inductor import config

        config.freezing = True
    if not workload.training:
        torch.set_grad_enabled(False)

    def begin() -> Any:
        if workload.training:
            compiled = mode == "compiled"
            through: Any = functools.partial(torch.compile, dynamic=False) if compiled else lambda function: function
            fused = not compiled or workload.cosine > 0  # a compiled step would be compiled again for every rate
            run = step_of(torch, workload, model, through, fused=fused)
        else:
            run = torch.compile(model, dynamic=False) if mode in ("compiled", "freezing") else model
        return lambda: run(*inputs)

    return begin, lambda results: [part.detach().numpy() for part in flat(results)]
