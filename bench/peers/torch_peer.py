"""PyTorch's process: eager, channels_last, torch.compile, and Inductor's freezing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bench.peers import Begin
from bench.prepare import arrays, fill, flat
from bench.workloads import Workload


def runner(workload: Workload, folder: Path, mode: str, threads: int) -> tuple[Begin, Any]:
    """See `bench.peers`."""
    torch.set_num_threads(threads)
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
            run = _step(workload, model, mode == "compiled")
        else:
            run = torch.compile(model, dynamic=False) if mode in ("compiled", "freezing") else model
        return lambda: run(*inputs)

    return begin, lambda results: [part.detach().numpy() for part in flat(results)]


def _step(workload: Workload, model: Any, compiled: bool) -> Any:
    """A step with the fused optimizer; `compiled`: forward and backward by torch.compile, and the optimizer's step by itself."""
    assert workload.optimizer
    kind, options = workload.optimizer
    optimizer = getattr(torch.optim, kind)(model.parameters(), fused=not compiled, **options)
    called: Any = torch.compile(model, dynamic=False) if compiled else model
    update: Any = torch.compile(optimizer.step, dynamic=False) if compiled else optimizer.step

    def step(*given: Any) -> Any:
        optimizer.zero_grad()
        loss = called(*given)
        loss.backward()
        update()
        return loss.detach()

    return step
