"""The programs of `tests/golden`: files that every later version of graphc must read.

`python tests/golden_programs.py FOLDER` writes them in the format of today, without native code.  A file that is in the repository
is never written again: where the format grows, files of the next version are added.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import graphc
import graphc.nn as nn
from graphc.artifact import container


class Scores(nn.Module):
    """One size, keywords, nested results, a buffer that is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("calls", graphc.zeros(()))

    def forward(self, x: Any, *, shift: Any) -> Any:
        self.calls.add_(1.0)
        return {"scores": self.linear(x).softmax(-1), "rest": [x + shift, self.calls.clone()]}


def filled(module: Any) -> Any:
    """The module with elements that are the same everywhere."""
    with graphc.no_grad():
        for i, parameter in enumerate(module.parameters()):
            count = graphc.arange(float(parameter.numel())).reshape(parameter.shape)
            parameter.copy_(count / 7 - i)
    return module


def batch(size: int) -> Any:
    """Arguments of that many samples."""
    return graphc.from_numpy(np.arange(3.0 * size, dtype=np.float32).reshape(size, 3) % 5 / 4)


def scores() -> Any:
    """After one call."""
    compiled = graphc.compile(filled(Scores()))
    with graphc.no_grad():
        compiled(batch(4), shift=batch(4))
    return compiled


def normalised(compile: bool = True) -> Any:
    """Open sizes, both modes, an exported method; after calls in training and evaluation."""
    model: Any = filled(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh()))
    called, first = (graphc.compile(model), graphc.compile(model[0])) if compile else (model, model[0])
    with graphc.no_grad():
        for mode in (True, False):
            model.train(mode)
            for size in (4, 6):
                called(batch(size))
        first(batch(2))
    return called, first


def training(compile: bool = True) -> tuple[Any, Any, Any]:
    """The model, the optimizer, and their step of open size; after two steps."""
    model: Any = filled(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)))
    optimizer = graphc.optim.AdamW(model.parameters(), lr=0.01)
    graphc.manual_seed(5)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.detach(), {"loss": loss.item()}

    called = graphc.compile(step) if compile else step
    for size in (4, 6):
        called(batch(size))
    return model, optimizer, called


def doubled(x: Any, limit: float) -> Any:
    """Scripted: a loop that elements end."""
    count = 0
    while x.abs().sum() < limit:
        x = x * 2
        count += 1
    return x, count


def write(folder: Path) -> None:
    """The files of this version."""
    version = container.VERSION
    scores().save(folder / f"scores-{version}.gc")
    called, first = normalised()
    called.save(folder / f"normalised-{version}.gc", methods={"first": first})
    training()[2].save(folder / f"training-{version}.gc")
    graphc.jit.script(doubled).save(folder / f"doubled-{version}.gc")
    for path in folder.glob(f"*-{version}.gc"):
        entries = container.read(path)
        for name in entries:
            if name.endswith(".o"):
                entries[name] = b""
            elif name.endswith("native/code.json"):
                entries[name] = json.dumps({"machine": "another", "signature": None}).encode()
        container.write(path, entries)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
