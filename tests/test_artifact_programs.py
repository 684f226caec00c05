"""Files of several programs: open sizes, training steps with their state, modes; and files that earlier versions wrote."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import golden_programs
import graphc
import graphc.nn as nn
from graphc import _dynamo
from graphc.artifact import container
from graphc.artifact import load as loading
from graphc.artifact.program import Parts
from graphc.dim_patterns import Pattern, Symbol
from graphc.errors import ArtifactError
from graphc.runtime.plan import Plan

SOURCE = Path(__file__).resolve().parents[1] / "src"
FOLDER = "programs/0/"


def numbers(*shape: int) -> Any:
    """The same elements every time."""
    return graphc.from_numpy(np.random.default_rng(7).standard_normal(shape).astype(np.float32))


def bits(x: Any) -> bytes:
    return np.ascontiguousarray(x if isinstance(x, np.ndarray) else x.detach().numpy()).tobytes()


# ---- open sizes ------------------------------------------------------------------------------------------------------


def halves(x: Any) -> Any:
    """Asks of sizes whether they are even, and more than 7; gives sizes."""
    head = x[:5] if x.shape[0] > 7 else x
    return head.sum(), x.reshape(x.size(0) // 2, 2, -1).softmax(-1), {"size": x.shape[0], "shape": x[1:].shape}


@pytest.fixture(scope="module")
def open_sizes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Callable[..., Any]]:
    """A file of `halves`, whose size is open, and the compiled function."""
    compiled = graphc.compile(halves)
    for size in (10, 14, 20):
        compiled(numbers(size, 3))
    path = tmp_path_factory.mktemp("sizes") / "x.gc"
    compiled.save(path)
    return path, compiled


@pytest.mark.parametrize("signed", [True, False])
def test_sizes_stay_open(open_sizes: tuple[Path, Any], signed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path, compiled = open_sizes
    if not signed:
        monkeypatch.setenv("GRAPHC_SIGNING_KEY", "ab" * 32)
    loaded = graphc.load(path)
    assert repr(loaded) == "<graphc.Loaded halves(f32[dim0*2, 3]) where 2 <= dim0*2>"
    for size in (8, 10, 300):
        x = numbers(size, 3)
        found, expected = loaded(x), compiled(x)
        assert [bits(a) for a in found[:2]] == [bits(a) for a in expected[:2]]
        assert found[2] == {"size": size, "shape": (size - 1, 3)}
    needs = r"and needs dim0\*2 - 7 > 0 \(test_artifact_programs\.py:\d+\)"
    for size, reason in ((9, r"2 <= dim0\*2 \("), (0, r"2 <= dim0\*2 \("), (6, needs)):
        with pytest.raises(ArtifactError, match=rf"halves: called with \(f32\[{size}, 3\]\), the artifact serves .*{reason}"):
            loaded(np.zeros((size, 3), np.float32))


def test_ranges_and_single_sizes_are_programs_of_one_file(tmp_path: Path) -> None:
    compiled = graphc.compile(lambda x, y: (x @ y).relu() + x.shape[0])
    x, y = numbers(8, 4), numbers(4, 3)
    _dynamo.mark_dynamic(x, 0, graphc.Dim("batch", 1, 512))
    compiled(x, y)
    compiled(numbers(1, 4), y)
    compiled.save(tmp_path / "x.gc")
    loaded = graphc.load(tmp_path / "x.gc")
    for size in (1, 2, 512):
        assert bits(loaded(numbers(size, 4), y)) == bits(compiled(numbers(size, 4), y))
    assert "(f32[1, 4], f32[4, 3]) or" in repr(loaded) and "2 <= dim0_batch <= 512" in repr(loaded)
    for size in (0, 513):
        with pytest.raises(ArtifactError, match=rf"\(f32\[{size}, 4\], f32\[4, 3\]\), the artifact serves .* <= 512"):
            loaded(np.zeros((size, 4), np.float32), y.numpy())


def changed(path: Path, entry: str, change: Callable[[Any], Any]) -> None:
    """Write a file again, with right hashes, after a change of an entry's JSON."""
    entries = container.read(path)
    data = json.loads(entries[entry])
    made = change(data)
    container.write(path, {**entries, entry: json.dumps(data if made is None else made).encode()})


DAMAGED_SIZES: list[Callable[[Any], Any]] = [
    lambda s: s["pattern"].update(facts=[["dim0 // 0", ">", ""]]),
    lambda s: s["pattern"].update(facts=[["dim0", "=", ""]]),
    lambda s: s["pattern"].update(facts=[["other", ">", ""]]),
    lambda s: s["pattern"].update(facts=[["0 - dim0", ">", ""]]),
    lambda s: s["pattern"].update(shapes=[["dim0", 3, 3]]),
    lambda s: s["pattern"].update(shapes=[["dim0", -3]]),
    lambda s: s["pattern"].update(shapes=[["dim0", 4]]),
    lambda s: s["pattern"].update(shapes=[["dim0", 3], ["dim0"]]),
    lambda s: s["pattern"].update(shapes=[[10, 3]], symbols=[]),
    lambda s: s["pattern"].update(symbols=[["dim0", 2, None, 1]]),
    lambda s: s["pattern"].update(symbols=[["dim0", 2, None, 0]]),
    lambda s: s["pattern"].update(symbols=[["dim0", -2, None, 2]]),
    lambda s: s["pattern"].update(symbols=[["dim0", 2, 1, 2]]),
    lambda s: s["pattern"].update(symbols=[["dim 0", 2, None, 2]]),
    lambda s: s["pattern"].update(symbols=[["dim0", 2, None, 2], ["dim1", 2, None, 2]]),
    lambda s: s["pattern"].pop("facts"),
    lambda s: s.update(example={}),
    lambda s: s.update(example={"dim0": 3}),
    lambda s: s.update(example={"dim0": "7"}),
    lambda s: s.update(example={"dim0": 7, "dim1": 7}),
    lambda s: [],
    lambda s: 3,
]


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("change", range(len(DAMAGED_SIZES)))
def test_sizes_that_do_not_fit(
    open_sizes: tuple[Path, Any], change: int, trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where whoever wrote them had the key."""
    path = tmp_path / "x.gc"
    path.write_bytes(open_sizes[0].read_bytes())
    changed(path, FOLDER + "sizes.json", DAMAGED_SIZES[change])
    monkeypatch.setattr(loading, "_is_trusted", lambda entries: trusted)
    with pytest.raises(ArtifactError, match=r"x\.gc: "):
        graphc.load(path)


def test_facts_that_a_file_leaves_out_are_found_again(open_sizes: tuple[Path, Any], tmp_path: Path) -> None:
    """A file without them is not signed, and the graph's own operators say what they need."""
    path = tmp_path / "x.gc"
    path.write_bytes(open_sizes[0].read_bytes())
    changed(path, FOLDER + "sizes.json", lambda s: s["pattern"].update(facts=[]))
    loaded = graphc.load(path)
    assert bits(loaded(numbers(8, 3))[0]) == bits(halves(numbers(8, 3))[0])
    with pytest.raises(ArtifactError, match="and needs"):
        loaded(numbers(4, 3))


def test_patterns_come_back() -> None:
    a, b = Symbol("a", 2, 9), Symbol("b", 4, None, 4)
    pattern = Pattern([[a, 3], [b, a]])
    back = Pattern.from_json(json.loads(json.dumps(pattern.to_json())))
    assert back.places == pattern.places and back.values([(9, 3), (8, 9)]) == {"a": 9, "b": 2}
    assert back.values([(10, 3), (8, 10)]) is back.values([(9, 3), (6, 9)]) is None


# ---- training steps --------------------------------------------------------------------------------------------------


def training(set_to_none: bool = True) -> tuple[Any, Any, Any]:
    """A model, its optimizer, and a compiled step that drops out, normalises, clips and gives its loss as a number too."""
    graphc.manual_seed(1)
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 2))
    optimizer = graphc.optim.AdamW(model.parameters(), lr=0.01, amsgrad=True)

    def step(x: Any) -> Any:
        optimizer.zero_grad(set_to_none=set_to_none)
        loss = model(x).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.detach(), 2 * loss.item()

    return model, optimizer, graphc.compile(step)


def same_state(a: Any, b: Any) -> bool:
    """Whether two state dicts have the same numbers and, to the bit, the same arrays or tensors."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_state, a, b))
    return bits(a) == bits(b) if hasattr(a, "shape") else bool(a == b)


def test_a_step_goes_on_in_a_process_that_has_only_the_file(tmp_path: Path) -> None:
    """The same losses, parameters, statistics, averages, counts and random numbers as going on here, at other sizes too."""
    model, optimizer, step = training()
    for size in (4, 6, 5):
        step(numbers(size, 3))
    step.save(tmp_path / "step.gc")
    np.savez(tmp_path / "x.npz", *[numbers(size, 3).numpy() for size in (5, 8, 3)])
    code = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
import graphc, numpy as np
step = graphc.load({str(tmp_path / "step.gc")!r})
results = [step(x) for x in np.load({str(tmp_path / "x.npz")!r}).values()]
np.savez({str(tmp_path / "y.npz")!r}, *[x for pair in results for x in pair])
step.save({str(tmp_path / "later.gc")!r})
print(*sorted(name for name in sys.modules if name.startswith("graphc.")))
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not {"eager", "ops", "capture", "pipeline", "codegen", "optim"} & {name.split(".")[1] for name in done.stdout.split()}
    expected = [result for size in (5, 8, 3) for result in step(numbers(size, 3))]
    found = list(np.load(tmp_path / "y.npz").values())
    assert [bits(x) for x in found[::2]] == [bits(x) for x in expected[::2]]
    assert [float(x) for x in found[1::2]] == expected[1::2]
    state = graphc.load(tmp_path / "later.gc").state_dict()
    assert list(state) == ["model", "optimizer", "generator"]
    assert same_state(state["model"], dict(model.state_dict())) and same_state(state["optimizer"], optimizer.state_dict())
    assert bits(state["generator"]) == bits(graphc.get_rng_state())


def test_state_goes_both_ways(tmp_path: Path) -> None:
    model, optimizer, step = training()
    step(numbers(4, 3))
    step.save(tmp_path / "x.gc")
    loaded = graphc.load(tmp_path / "x.gc")
    optimizer.param_groups[0]["lr"] = 0.5
    step(numbers(4, 3))
    loaded.load_state_dict({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "generator": graphc.get_rng_state()})
    other, its_optimizer, its_step = training()
    other.load_state_dict(loaded.state_dict()["model"])
    its_optimizer.load_state_dict(loaded.state_dict()["optimizer"])
    graphc.set_rng_state(graphc.from_numpy(loaded.state_dict()["generator"].copy()))
    found, again = loaded(numbers(4, 3)), its_step(numbers(4, 3))
    assert bits(found[0]) == bits(again[0]) and found[1] == again[1]
    assert same_state(loaded.state_dict()["optimizer"], its_optimizer.state_dict())
    before = loaded.state_dict()["optimizer"]["param_groups"][0]
    loaded.load_state_dict({"optimizer": {"param_groups": [{"lr": 0.125}]}}, strict=False)
    assert loaded.state_dict()["optimizer"]["param_groups"][0] == {**before, "lr": 0.125}


WRONG_STATE: list[tuple[Callable[[Any], Any], str]] = [
    (lambda s: s.pop("model"), r"model is missing"),
    (lambda s: s["model"].pop("0.weight"), r"model\.0\.weight is missing"),
    (lambda s: s["model"].update(more=1), r"model\.more is nothing that the artifact has"),
    (lambda s: s["model"].update({"0.bias": np.zeros(5, np.float32)}), r"model\.0\.bias is f32\[5\], the artifact has f32\[4\]"),
    (lambda s: s["model"].update({"0.bias": np.zeros(4)}), r"model\.0\.bias is f64\[4\], the artifact has f32\[4\]"),
    (lambda s: s["model"].update({"0.bias": "no"}), r"model\.0\.bias is a str, not a tensor"),
    (lambda s: s.update(model=[]), r"model is a list, not a dict"),
    (lambda s: s["optimizer"]["param_groups"][0].update(amsgrad=False), r"amsgrad is False, and the program holds for True"),
    (lambda s: s["optimizer"]["param_groups"].append({}), r"optimizer\.param_groups\.1 is nothing that"),
]


def test_state_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    _, _, step = training(set_to_none=False)
    step(numbers(4, 3))
    with pytest.raises(RuntimeError, match=r"save: the last call found other gradients than it left behind"):
        step.save(tmp_path / "x.gc")
    step(numbers(4, 3))
    step.save(tmp_path / "x.gc")
    loaded = graphc.load(tmp_path / "x.gc")
    before = copy.deepcopy(loaded.state_dict())
    for change, message in WRONG_STATE:
        given = copy.deepcopy(before)
        given["model"]["3.weight"][:] = 9.0
        change(given)
        with pytest.raises(ValueError, match=rf"load_state_dict: .*{message}"):
            loaded.load_state_dict(given)
    assert same_state(loaded.state_dict(), before)
    assert bits(loaded(numbers(4, 3))[0]) == bits(step(numbers(4, 3))[0])


def test_gradients_that_add_up_are_state(tmp_path: Path) -> None:
    """Also of a method of a plain object, whose attributes say what things are called; and of tied parameters."""

    class Trainer:
        def __init__(self) -> None:
            self.model: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
            self.model[1].weight = self.model[0].weight
            self.scaler = graphc.amp.GradScaler("cpu")

        def add(self, x: Any) -> Any:
            loss = self.scaler.scale(self.model(x).square().mean())
            loss.backward()
            return self.model[0].weight.grad.clone()

    trainer = Trainer()
    add = graphc.compile(trainer.add)
    for _ in range(2):
        add(numbers(4, 3))
    add.save(tmp_path / "x.gc")
    loaded = graphc.load(tmp_path / "x.gc")
    for _ in range(3):
        assert bits(loaded(numbers(4, 3))) == bits(add(numbers(4, 3)))
    state = loaded.state_dict()
    assert list(state) == ["model", "scaler"] and state["scaler"] == trainer.scaler.state_dict()
    assert state["model"]["0.weight"].ctypes.data == state["model"]["1.weight"].ctypes.data


def test_parts_of_other_memory_are_not_written_to_a_file(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    model.register_buffer("seen", graphc.zeros(2, 3)[0])
    function = graphc.compile(lambda x: (model.seen.add_(1.0), model(x))[1])
    with graphc.no_grad():
        function(numbers(4, 3))
    with pytest.raises(RuntimeError, match=r"save: model\.seen is a part of other memory, which the program writes to"):
        function.save(tmp_path / "x.gc")


# ---- modes and methods -----------------------------------------------------------------------------------------------


class Codec(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)

    def encode(self, x: Any) -> Any:
        return self.norm(self.linear(x))

    def forward(self, x: Any) -> Any:
        return (self.encode(x) @ self.linear.weight).max(dim=1)


def test_modes_and_methods_share_one_state(tmp_path: Path) -> None:
    """What was captured with gradients is a program without them."""
    model = Codec()
    compiled, encode = graphc.compile(model), graphc.compile(model.encode)
    for size in (4, 6):
        compiled(numbers(size, 3)).values.sum().backward()
    model.eval()
    with graphc.no_grad():
        for size in (4, 6):
            compiled(numbers(size, 3))
        encode(numbers(5, 3))
        compiled.save(tmp_path / "x.gc", methods={"encode": encode})
        traces = compiled.stats()["traces"]
        compiled(numbers(6, 3))
    assert compiled.stats()["traces"] == traces and not model.training  # looking for the other mode left no trace
    loaded = graphc.load(tmp_path / "x.gc")
    assert loaded.training is False
    for training in (False, True, False):
        model.train(training)
        found, expected = loaded.train(training)(numbers(9, 3)), model(numbers(9, 3))
        assert bits(found.values) == bits(expected.values) and bits(found.indices) == bits(expected.indices)
    assert bits(loaded.encode(numbers(5, 3))) == bits(model.encode(numbers(5, 3)))
    model.load_state_dict(loaded.state_dict())
    assert loaded.state_dict()["norm.num_batches_tracked"] == 3
    with pytest.raises(ArtifactError, match=r"Codec\.encode: the artifact holds nothing of training mode"):
        loaded.train().encode(numbers(5, 3))
    with pytest.raises(AttributeError, match="no method or attribute 'decode'"):
        loaded.decode  # noqa: B018
    for methods, error in (({"train": encode}, ValueError), ({"a b": encode}, ValueError), ({"x": model}, TypeError)):
        with pytest.raises(error, match=r"save: .*method"):
            compiled.save(tmp_path / "y.gc", methods=methods)


def test_a_mode_that_was_not_captured(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    for target in (model, lambda x: x * 2):
        compiled = graphc.compile(target)
        compiled(numbers(4, 3))
        compiled.save(tmp_path / "x.gc")
        with pytest.raises(ArtifactError, match=r"holds nothing of evaluation mode; call .* after eval\(\) before save"):
            graphc.load(tmp_path / "x.gc").eval()


def test_what_is_made_of_weights_is_made_again(tmp_path: Path) -> None:
    """By `load_state_dict`, and where another program of the file writes them."""
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64))
    compiled, x = graphc.compile(model), numbers(4, 64)
    with graphc.no_grad():
        for training in (True, False):
            model.train(training)
            compiled(x)
        compiled.save(tmp_path / "x.gc")
        loaded = graphc.load(tmp_path / "x.gc")
        assert any(program._constants is not None for program in loaded._programs)
        assert bits(loaded(x)) == bits(model(x))
        model.train()
        assert bits(loaded.train()(x)) == bits(model(x))
        model.eval()
        assert bits(loaded.eval()(x)) == bits(model(x))
        model[0].weight.mul_(2.0)
        loaded.load_state_dict(model.state_dict())
        assert bits(loaded(x)) == bits(model(x))


# ---- files of every version ------------------------------------------------------------------------------------------

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.gc"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_files_of_every_version_are_read(path: Path) -> None:
    name, version = path.stem.split("-")
    loaded = graphc.load(path)
    x = golden_programs.batch(4)
    if name == "scores":
        model = golden_programs.filled(golden_programs.Scores())
        model(x, shift=x)
        found, expected = loaded(x, shift=x), model(x, shift=x)
        assert same_state([found["scores"], found["rest"]], [expected["scores"], expected["rest"]])
        assert same_state(loaded.state_dict(), dict(model.state_dict()))
    elif name == "normalised":
        model, first = golden_programs.normalised(compile=False)
        assert bits(loaded.first(x[:2])) == bits(first(x[:2]))
        for training in (False, True, False):
            model.train(training)
            assert bits(loaded.train(training)(batch := golden_programs.batch(9))) == bits(model(batch))
    elif name == "training":
        model, optimizer, step = golden_programs.training(compile=False)
        for size in (7, 2):
            found, expected = loaded(golden_programs.batch(size)), step(golden_programs.batch(size))
            assert bits(found[0]) == bits(expected[0]) and found[1] == expected[1]
        assert same_state(loaded.state_dict()["optimizer"], optimizer.state_dict())
    else:
        assert same_state(loaded(x, 100.0), golden_programs.doubled(x, 100.0))
    assert int(version) in container.READ


def test_every_version_has_files() -> None:
    assert {int(path.stem.split("-")[1]) for path in GOLDEN} == set(container.READ)


def test_plans_of_every_version_are_read() -> None:
    """Which only code with this user's signature needs."""
    for path in GOLDEN:
        entries = container.read(path)
        for plan in [name for name in entries if name.endswith("plan.json")]:
            folder = plan.removesuffix("plan.json")
            parts = Parts.of({name.removeprefix(folder): data for name, data in entries.items() if name.startswith(folder)})
            assert Plan.from_json(parts.plan.to_json()) == parts.plan
