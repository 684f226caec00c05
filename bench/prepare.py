"""``python -m bench.prepare NAME FOLDER [onnx]``: what every library needs for a row, written to a folder by a process of its own.

Enters: a row's name.  Leaves: inputs, weights, results in float64, an ONNX file, and what work the row is (`meta.json`).
Never here: timing.

The results are PyTorch's in float64, or, where it is not installed, NumPy's or graphc's.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.workloads import WORKLOADS, Array, Missing, Workload, inputs_of, weights_of
from bench.workloads.steps import step_of

CHECKED_STEPS = 3  # of training
OPSET = 20


def installed(name: str) -> bool:
    """Whether a library can be imported."""
    return importlib.util.find_spec(name) is not None


def digest(workload: Workload) -> str:
    """Changes with the sources of the row and with what is installed."""
    made = hashlib.sha256(workload.name.encode())
    module = sys.modules[workload.build.__module__]
    used = {str(getattr(value, "__module__", "")) for value in vars(module).values()}
    for name in sorted({module.__name__, *(name for name in used if name.startswith("bench.workloads"))}):
        made.update(Path(str(sys.modules[name].__file__)).read_bytes())
    made.update(Path(__file__).read_bytes())
    made.update(str([name for name in ("torch", "onnx", "onnxscript") if installed(name)]).encode())
    return made.hexdigest()


def arrays(folder: Path, kind: str) -> list[Array]:
    """The inputs (``input``) or true results (``truth``) in a folder."""
    count = json.loads((folder / "meta.json").read_text())[f"{kind}s"]
    return [np.load(folder / f"{kind}_{i}.npy") for i in range(count)]


def fill(model: Any, folder: Path, from_numpy: Any) -> None:
    """Give the parameters and buffers of a module of PyTorch or graphc the weights in a folder, one after another."""
    if hasattr(model, "state_dict"):
        for name, value in model.state_dict().items():
            value.copy_(from_numpy(np.load(folder / "weights" / f"{name}.npy")))


def flat(results: Any) -> Iterator[Any]:
    """The tensors among results, in order."""
    if isinstance(results, (tuple, list)):
        for part in results:
            yield from flat(part)
    else:
        yield results


def _write(folder: Path, kind: str, values: Sequence[Array]) -> None:
    for i, value in enumerate(values):
        np.save(folder / f"{kind}_{i}.npy", value)


def _write_weights(workload: Workload, model: Any, folder: Path) -> int:
    """Gives the bytes that a call must read of them."""
    (folder / "weights").mkdir(exist_ok=True)
    nbytes = 0
    for name, array in weights_of(workload, model):
        np.save(folder / "weights" / f"{name}.npy", array)
        embedded = any(part in name for part in ("words", "word_embeddings", "places", "position"))
        nbytes += 0 if embedded else array.nbytes
    return nbytes


def _truth(workload: Workload, t: Any, model: Any, inputs: Sequence[Array], folder: Path) -> list[Array]:
    """Results in float64; of a training step the losses of the first steps."""
    given = [t.from_numpy(x.astype(np.float64) if x.dtype == np.float32 else x) for x in inputs]
    if workload.optimizer:
        step = step_of(t, workload, model.double().train())
        return [np.array([step(*given).item() for _ in range(CHECKED_STEPS)])]
    if workload.numpy and not hasattr(model, "state_dict"):
        results = workload.numpy(*[x.numpy() for x in given])
        return [np.asarray(part) for part in flat(results)]
    model = model.double().eval() if hasattr(model, "state_dict") else model
    with t.no_grad():
        return [part.numpy() for part in flat(model(*given))]


def _flops(workload: Workload, t: Any, model: Any, inputs: Sequence[Array]) -> float | None:
    """Of products and convolutions, as PyTorch counts them."""
    if workload.flops is not None or t.__name__ != "torch":
        return workload.flops
    from torch.utils.flop_counter import FlopCounterMode

    given = [t.from_numpy(x) for x in inputs]
    if "LSTM" in repr(model):  # PyTorch counts none there: a product for input and for state, again for each gradient
        parts = [p.numel() * 2.0 * inputs[0].size for p in model.parameters() if p.dim() == 2]
        return 3 * sum(parts[1:])  # without the embedding
    with FlopCounterMode(display=False) as counter:
        if workload.training:
            model(*given).backward()
        else:
            with t.no_grad():
                model(*given)
    return float(counter.get_total_flops())


def _export(t: Any, model: Any, inputs: Sequence[Array], folder: Path) -> str:
    """Write ``model.onnx``.  Gives why there is none, if so."""
    if t.__name__ != "torch" or not installed("onnx") or not installed("onnxscript"):
        return "exporting needs torch, onnx and onnxscript"

    class Function(t.nn.Module):  # type: ignore[misc]
        def forward(self, *given: Any) -> Any:
            return model(*given)

    net = model if hasattr(model, "state_dict") else Function()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr), t.no_grad():
            warnings.simplefilter("ignore")
            given = tuple(t.from_numpy(x) for x in inputs)
            t.onnx.export(net.eval(), given, str(folder / "model.onnx"), opset_version=OPSET, dynamo=True, verbose=False)
    except Exception as error:
        return f"torch.onnx.export: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""


def _library(workload: Workload, onnx: bool) -> Any:
    """PyTorch, if it is installed and of use."""
    import graphc

    by_numpy = workload.numpy and not hasattr(workload.build(graphc), "state_dict")
    return importlib.import_module("torch") if installed("torch") and (onnx or not by_numpy) else graphc


def prepare(workload: Workload, folder: Path, onnx: bool) -> None:
    """Write everything; `onnx`: also the exported model.  Raises Missing."""
    t = _library(workload, onnx)
    inputs = inputs_of(workload)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, "input", inputs)
    model = workload.build(t)
    weights_nbytes = _write_weights(workload, model, folder)
    with t.no_grad():
        fill(model, folder, t.from_numpy)
    if hasattr(model, "train"):
        model.train(workload.training)
    flops = _flops(workload, t, model, inputs)
    why_not = _export(t, model, inputs, folder) if onnx and not workload.training else None
    with t.no_grad():
        fill(model, folder, t.from_numpy)  # statistics of batch norms may have moved
    truth = _truth(workload, t, model, inputs, folder)
    _write(folder, "truth", truth)
    outside = sum(x.nbytes for x in inputs) + sum(
        x.nbytes // (2 if x.dtype == np.float64 else 1) for x in ([] if workload.training else truth)
    )
    meta = {
        "digest": digest(workload), "inputs": len(inputs), "truths": len(truth), "onnx": why_not, "flops": flops,
        "nbytes": outside + workload.weight_passes * weights_nbytes, "by": t.__name__,
    }  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(meta))


def ready(workload: Workload, folder: Path, onnx: bool) -> bool:
    """Whether the folder holds this row as it is now, and the exported model where it is asked for."""
    path = folder / "meta.json"
    meta = json.loads(path.read_text()) if path.exists() else {}
    return meta.get("digest") == digest(workload) and (not onnx or workload.training or meta["onnx"] is not None)


if __name__ == "__main__":
    try:
        prepare(WORKLOADS[sys.argv[1]], Path(sys.argv[2]), "onnx" in sys.argv[3:])
    except Missing as missing:
        print(missing)
        sys.exit(3)
