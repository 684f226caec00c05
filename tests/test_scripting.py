"""Scripts: what they accept, that they give what Python gives and come back from files, and that a file can name nothing else."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
from graphc import jit
from graphc.artifact import container
from graphc.errors import ArtifactError, ScriptError

SCALE = 0.5


def doubled(x: Any, times: int = 2) -> Any:
    for _ in range(times):
        x = x * 2
    return x


class Block(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.fc = nn.Linear(n, n)
        self.layers = nn.ModuleList([nn.Linear(n, n), nn.Sequential(nn.Linear(n, n), nn.Tanh())])
        self.tied = self.fc
        self.factor, self.sizes = 0.25, [1, 2, 3]
        self.register_buffer("offset", graphc.ones(n))

    def helper(self, x: Any, k: int = 2) -> Any:
        for i in range(k):
            x = F.relu(x) * self.factor + math.sqrt(2.0) + i
        return x

    @jit.export
    def other(self, x: Any) -> Any:
        return x - 1

    def forward(self, x: Any, flag: bool = False) -> Any:
        y = self.helper(self.fc(x)) + self.offset
        if flag or x.shape[0] > 3:
            y = doubled(y)
        elif not self.training:
            y = y * SCALE
        for i, layer in enumerate(self.layers):
            if i == 1:
                continue
            y = layer(y)
        total, *rest = y.sum(), len(self.sizes), max(self.sizes)
        return {"y": self.tied(y), "rest": [r + 1 for r in rest if r > 1], "total": total if flag else None}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, graphc.Tensor):
        return bool(np.array_equal(a.detach().numpy(), b.detach().numpy()))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return bool(a == b)


@pytest.mark.parametrize("flag", [False, True])
def test_a_module_gives_what_it_gives_scripted_and_loaded(tmp_path: Path, flag: bool) -> None:
    model = Block(4)
    model.eval()
    scripted = jit.script(model)
    scripted.save(tmp_path / "model.pt")
    loaded = jit.load(tmp_path / "model.pt")
    for rows in (2, 5):
        x = graphc.randn(rows, 4)
        expected = model(x, flag)
        assert same(expected, scripted(x, flag)) and same(expected, loaded(x, flag))
    assert same(loaded.other(x), x - 1)
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert loaded.tied.weight is loaded.fc.weight
    loaded.train()
    model.train()
    assert same(model(x[:2]), loaded(x[:2]))


def test_a_scripted_module_trains_the_original() -> None:
    model = Block(3)
    scripted = graphc.script(model)
    scripted(graphc.randn(2, 3))["y"].sum().backward()
    assert model.fc.weight.grad is not None


def test_modules_of_the_library_and_functions(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    jit.save(jit.script(net), tmp_path / "net.pt")
    x = graphc.randn(5, 4)
    assert same(net(x), graphc.load(tmp_path / "net.pt")(x))
    jit.script(doubled).save(tmp_path / "doubled.pt")
    assert same(jit.load(tmp_path / "doubled.pt")(x, times=3), x * 8)


@jit.script
def countdown(x: Any, n: int) -> Any:
    total = graphc.zeros_like(x)
    while n > 0:
        if x.sum() > 0:
            total += x * n
        else:
            total = total - 1
        n -= 1
        if n == 1:
            break
    assert n == 1, f"stopped at {n:d}"
    return total


def test_control_flow_follows_the_data(tmp_path: Path) -> None:
    countdown.save(tmp_path / "f.pt")
    for f in (countdown, jit.load(tmp_path / "f.pt")):
        assert f(graphc.tensor([1.0, 2.0]), 3).tolist() == [5.0, 10.0]
        assert f(graphc.tensor([-1.0, -2.0]), 3).tolist() == [-2.0, -2.0]
    with pytest.raises(AssertionError, match=r"stopped at 0\n  test_scripting.py:\d+\n    assert n == 1"):
        countdown(graphc.tensor([1.0]), 0)


def with_lambda(x: Any) -> Any:
    return (lambda y: y)(x)


def with_try(x: Any) -> Any:
    try:
        return x
    except ValueError:
        return None


def with_object(x: Any) -> Any:
    return Path(x)


def with_many(*xs: Any) -> Any:
    return xs


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (with_lambda, r"a script cannot hold a lambda\n  test_scripting.py:\d+\n    return \(lambda y: y\)\(x\)\n            \^"),
        (with_try, r"a script cannot hold try\n  test_scripting.py:\d+\n    try:"),
        (with_object, r"cannot hold 'Path', which is a type\n  test_scripting.py:\d+\n    return Path\(x\)\n           \^"),
        (with_many, "a variable number of arguments"),
    ],
)
def test_what_scripts_cannot_hold_is_refused_with_its_place(function: Any, match: str) -> None:
    with pytest.raises(ScriptError, match=match):
        jit.script(function)


def test_script_wants_a_function_or_a_module() -> None:
    with pytest.raises(TypeError, match="script: expected a function or a Module, got int"):
        jit.script(3)


HOSTILE = [
    "def f(x):\n    return x.numpy()",
    "def f(x):\n    return x.__class__",
    "def f(x):\n    return x._storage",
    "def f(x):\n    return open('secret')",
    "def f(x):\n    return __import__('os')",
    "def f(x):\n    return eval('1')",
    "def f(x):\n    return getattr(x, 'numpy')()",
    "def f(x):\n    return '{0.__class__}'.format(x)",
    "def f(x):\n    return [].append.__self__",
    "def f(x):\n    return torch.save(x, 'file')",
    "def f(x):\n    return torch.from_numpy(x)",
    "def f(x):\n    return torch.os",
    "def f(x):\n    return x.grad_fn.op",
    "def f(x):\n    return 10 ** 10 ** 10",
    "def f(x):\n    import os",
    "class f:\n    pass",
    "def f(x): return x\nprint(1)",
]


@pytest.mark.parametrize("source", HOSTILE)
def test_a_file_can_name_nothing_else(tmp_path: Path, source: str) -> None:
    jit.script(doubled).save(tmp_path / "f.pt")
    entries = container.read(tmp_path / "f.pt")
    entries.pop(container.MANIFEST, None)
    content = json.loads(entries[container.SCRIPT])
    content["functions"][0] |= {"name": "f", "source": source, "names": {"torch": {"name": "graphc"}}, "defaults": {}}
    entries[container.SCRIPT] = json.dumps(content).encode()
    container.write(tmp_path / "hostile.pt", entries)
    with pytest.raises((ArtifactError, ScriptError, OverflowError)):
        jit.load(tmp_path / "hostile.pt")(graphc.ones(2, requires_grad=True) * 1)


@pytest.mark.parametrize(
    "name", ["os", "graphc.save", "graphc.compile", "graphc.nn.Linear", "builtins.open", "math.__loader__", ""]
)
def test_a_file_can_name_only_what_is_public(tmp_path: Path, name: str) -> None:
    jit.script(doubled).save(tmp_path / "f.pt")
    entries = container.read(tmp_path / "f.pt")
    content = json.loads(entries[container.SCRIPT])
    content["functions"][0]["names"] = {"g": {"name": name}}
    container.write(tmp_path / "hostile.pt", {**entries, container.SCRIPT: json.dumps(content).encode()})
    with pytest.raises(ArtifactError, match="its script cannot be read"):
        jit.load(tmp_path / "hostile.pt")
