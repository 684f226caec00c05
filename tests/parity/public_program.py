"""One public program on one backend, in a process of its own: ``public_program.py torch|graphc NAME FOLDER WEIGHTS RESULTS``.

torch writes the initial weights; graphc reads them.  Results: outputs, loss, gradients, five losses of training, the weights after.
"""

from __future__ import annotations

import importlib
import io
import re
import runpy
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import redirect

Arrays = dict[str, np.ndarray[Any, Any]]
STEPS = 5


class Case:
    """A model of the program, its inputs as arrays, and how a loss comes from both."""

    def __init__(self, model: Any, inputs: Arrays, run: Callable[..., tuple[Any, Any]], optimizer: Callable[[Any], Any]) -> None:
        self.model, self.inputs, self.run, self.optimizer = model, inputs, run, optimizer


def nanogpt(torch: Any, rng: np.random.Generator) -> Case:
    program = importlib.import_module("model")
    config = program.GPTConfig(block_size=32, vocab_size=65, n_layer=2, n_head=4, n_embd=64, dropout=0.0, bias=True)
    ids = rng.integers(0, 65, (4, 33))
    return Case(
        program.GPT(config),
        {"x": ids[:, :-1].copy(), "y": ids[:, 1:].copy()},
        lambda model, x, y: model(x, y),
        lambda model: model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), "cpu"),
    )


def mnist(torch: Any, rng: np.random.Generator) -> Case:
    net = importlib.import_module("main").Net()
    for name in ("dropout1", "dropout2"):
        getattr(net, name).p = 0.0  # masks are random

    def run(model: Any, x: Any, y: Any) -> tuple[Any, Any]:
        output = model(x)
        return output, torch.nn.functional.nll_loss(output, y)

    inputs = {"x": rng.standard_normal((8, 1, 28, 28), np.float32), "y": rng.integers(0, 10, 8)}
    return Case(net, inputs, run, lambda model: torch.optim.Adadelta(model.parameters(), lr=1.0))


def super_resolution(torch: Any, rng: np.random.Generator) -> Case:
    criterion = torch.nn.MSELoss()

    def run(model: Any, x: Any, y: Any) -> tuple[Any, Any]:
        output = model(x)
        return output, criterion(output, y)

    inputs = {"x": rng.random((2, 1, 16, 16), np.float32), "y": rng.random((2, 1, 48, 48), np.float32)}
    net = importlib.import_module("model").Net(upscale_factor=3)
    return Case(net, inputs, run, lambda model: torch.optim.Adam(model.parameters(), lr=1e-3))


def resnet(torch: Any, rng: np.random.Generator) -> Case:
    net = importlib.import_module("torchvision.models.resnet").resnet18(num_classes=10)
    criterion = torch.nn.CrossEntropyLoss()

    def run(model: Any, x: Any, y: Any) -> tuple[Any, Any]:
        output = model(x)
        return output, criterion(output, y)

    inputs = {"x": rng.standard_normal((4, 3, 64, 64), np.float32), "y": rng.integers(0, 10, 4)}
    return Case(net, inputs, run, lambda model: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4))


# program -> the folder below the one given, and how it is used
CASES: dict[str, tuple[str, Callable[[Any, np.random.Generator], Case]]] = {
    "nanogpt": ("nanoGPT", nanogpt),
    "mnist": ("examples/mnist", mnist),
    "super_resolution": ("examples/super_resolution", super_resolution),
    "resnet": ("", resnet),
}
SCRIPTS = {
    "autograd": "pytorch-examples/autograd/two_layer_net_autograd.py",
    "custom_function": "pytorch-examples/autograd/two_layer_net_custom_function.py",
}


def results(torch: Any, case: Case, weights: Path) -> Iterator[tuple[str, Any]]:
    """Names and tensors, as they come about."""
    model = case.model
    if torch.__name__ == "torch":
        np.savez(weights, **{name: x.numpy() for name, x in model.state_dict().items()})
    else:
        with np.load(weights) as held:
            model.load_state_dict({name: torch.from_numpy(held[name]) for name in held.files})
    inputs = {name: torch.from_numpy(x) for name, x in case.inputs.items()}
    model.eval()
    compiled = torch.__name__ == "graphc"
    with torch.no_grad():
        yield "eval", case.run(model, **inputs)[0]
        if compiled:
            yield "compiled eval", case.run(torch.compile(model), **inputs)[0]
    model.train()
    optimizer = case.optimizer(model)

    def step(**inputs: Any) -> Any:
        optimizer.zero_grad()
        loss = case.run(model, **inputs)[1]
        loss.backward()
        optimizer.step()
        return loss.detach()

    start = {name: x.clone() for name, x in model.state_dict().items()}
    for i in range(STEPS):
        yield f"loss {i}", step(**inputs)
        if i == 0:
            yield from ((f"gradient {name}", p.grad.clone()) for name, p in model.named_parameters())
    yield from ((f"trained {name}", x) for name, x in model.state_dict().items())
    if compiled:
        model.load_state_dict(start)
        optimizer = case.optimizer(model)
        whole = torch.compile(step)
        for i in range(STEPS):
            yield f"compiled loss {i}", whole(**inputs)
        yield from ((f"compiled trained {name}", x) for name, x in model.state_dict().items())


def script_results(torch: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """The losses that a script prints, its random numbers taken from NumPy on both backends."""
    rng = np.random.default_rng(0)

    def randn(*size: int, device: Any = None, dtype: Any = None, requires_grad: bool = False) -> Any:
        return torch.from_numpy(rng.standard_normal(size, np.float32)).requires_grad_(requires_grad)

    torch.randn = randn
    printed = io.StringIO()
    with redirect_stdout(printed):
        runpy.run_path(str(path), run_name="__main__")
    losses = [float(line.split()[1]) for line in printed.getvalue().splitlines() if re.match(r"\d+ ", line)]
    yield "losses", torch.tensor(losses)


def main(backend: str, name: str, folder: str, weights: str, out: str) -> None:
    if backend == "graphc":
        redirect.install()
    if name == "resnet":
        spec = importlib.machinery.PathFinder.find_spec("torchvision")
        assert spec is not None and spec.submodule_search_locations is not None, "torchvision is not installed"
        place = spec.submodule_search_locations[0]
        redirect.bare_package("torchvision", place)
        redirect.bare_package("torchvision.models", f"{place}/models")
    elif name == "mnist":
        redirect.bare_package("torchvision", datasets=types.ModuleType("datasets"), transforms=types.ModuleType("transforms"))
    torch: Any = importlib.import_module("torch")
    torch.manual_seed(0)
    if name in SCRIPTS:
        found = dict(script_results(torch, Path(folder) / SCRIPTS[name]))
    else:
        below, make = CASES[name]
        sys.path.insert(0, str(Path(folder) / below))
        found = dict(results(torch, make(torch, np.random.default_rng(0)), Path(weights)))
    np.savez(out, **{key: x.detach().numpy() for key, x in found.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
