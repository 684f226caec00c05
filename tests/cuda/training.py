"""A small network and its optimizer, whose whole training step is compiled; the same step with the shim as the device."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import graphc
from cuda.lowered import Lowered, library_of, lower
from graph_cases import Array
from graphc import nn
from graphc.capture.tracer import trace
from graphc.compiled import Compiled
from graphc.ir.graph import Graph
from graphc.pipeline import Built, Options
from graphc.runtime.plan import Spec


class Training:
    """A classifier of rows of 9 numbers into 4 classes, and Adam."""

    def __init__(self, seed: int = 0) -> None:
        graphc.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(9, 33), nn.GELU(), nn.LayerNorm(33), nn.Dropout(0.25), nn.Linear(33, 4))
        self.optimizer = graphc.optim.Adam(self.model.parameters(), lr=0.01)

    def step(self, x: Any, classes: Any) -> Any:
        """Forward, loss, backward, clip, Adam."""
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(x), classes)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
        self.optimizer.step()
        return loss

    def everything(self) -> list[Array]:
        """Parameters, gradients, the optimizer's state."""
        kept = [s[name] for s in self.optimizer.state_dict()["state"].values() for name in sorted(s)]
        gradients = [p.grad for p in self.model.parameters()]
        return [x.detach().numpy().copy() for x in (*self.model.state_dict().values(), *gradients, *kept)]


def batch(seed: int) -> tuple[graphc.Tensor, graphc.Tensor]:
    """21 rows and their classes."""
    rng = np.random.default_rng(seed)
    return graphc.tensor(rng.standard_normal((21, 9)).astype(np.float32)), graphc.tensor(rng.integers(0, 4, 21))


def training_program() -> Lowered:
    """The whole step."""
    return lower(trace(Training().step, batch(0)).graph)


class DeviceProgram:
    """What a `runtime.program.Program` is to a compiled call, with a copy to the device and back around every run."""

    def __init__(self, lowered: Lowered, library: ctypes.CDLL, order: int) -> None:
        self.lowered, self.shim, self.order = lowered, library, order
        self.runs = 0

    def __call__(self, inputs: Sequence[int], outputs: Sequence[int], sizes: Sequence[int] = ()) -> None:
        """Run on host addresses.  Raises IndexError where a check failed."""
        plan = self.lowered.plan
        assert not sizes
        held = [memory(address, spec) for address, spec in zip(inputs, plan.inputs, strict=True)]
        made, left, status = self.lowered.run(self.shim, held, self.order)
        for address, spec, array in zip(outputs, plan.outputs, made, strict=True):
            memory(address, spec)[...] = array
        for i in plan.written:
            held[i][...] = left[i]
        self.runs += 1
        if status:
            raise IndexError(plan.messages[status - 1])


def memory(address: int, spec: Spec) -> Array:
    """The array that lies at `address`."""
    shape = [int(d) for d in spec.shape]  # type: ignore[arg-type]
    nbytes = int(np.prod(shape)) * spec.dtype.itemsize
    return np.frombuffer((ctypes.c_char * nbytes).from_address(address), spec.dtype.numpy).reshape(shape)


class OnDevice(Compiled):
    """`graphc.compile` with the shim as the device."""

    def __init__(self, target: Callable[..., Any], cache: Path, order: int) -> None:
        super().__init__(target, Options())
        self.cache, self.order = cache, order
        self.devices: list[DeviceProgram] = []

    def _program(self, graph: Graph, fixed: Sequence[int] = ()) -> tuple[Built, Any]:
        built, _ = super()._program(graph)  # nothing is prepared ahead
        lowered = lower(graph)
        assert lowered.plan == built.plan
        self.devices.append(DeviceProgram(lowered, library_of([lowered], self.cache), self.order))
        return built, self.devices[-1]
