"""ONNX Runtime's process: the model that PyTorch exported, in a session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime

from bench.peers import Begin, Unavailable
from bench.prepare import arrays
from bench.workloads import Workload


def runner(workload: Workload, folder: Path, mode: str, threads: int) -> tuple[Begin, Any]:
    """See `bench.peers`."""
    if why := json.loads((folder / "meta.json").read_text())["onnx"]:
        raise Unavailable(why)
    inputs = arrays(folder, "input")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3

    def begin() -> Any:
        session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]
        if len(names) != len(inputs):
            raise Unavailable(f"the exported model has {len(names)} inputs for {len(inputs)}")
        feeds = dict(zip(names, inputs, strict=True))
        return lambda: session.run(None, feeds)

    return begin, list
