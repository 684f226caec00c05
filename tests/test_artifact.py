"""Files of programs and of state dicts: what comes back, what is refused, whose native code runs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import dtypes, saving
from graphc.artifact import container, files, load, signing, state, weights
from graphc.artifact import program as parts
from graphc.artifact.structure import read_tree
from graphc.errors import ArtifactError
from graphc.runtime.cache import default_cache

SOURCE = Path(__file__).resolve().parents[1] / "src"
OTHER_KEY = "ab" * 32
FOLDER = "programs/0/"


class Model(graphc.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = graphc.nn.Linear(5, 3)

    def forward(self, x: Any, *, scale: float = 1.0) -> Any:
        return {"scores": self.linear(x).softmax(dim=-1) * scale, "argmax": [self.linear(x).argmax(dim=-1)]}


@pytest.fixture(scope="module")
def x() -> Any:
    graphc.manual_seed(3)
    return graphc.randn(7, 5)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, x: Any) -> tuple[Path, Any, Any]:
    """A file, the model it was made from, and the model's result for `x`."""
    graphc.manual_seed(4)
    model = Model()
    compiled = graphc.compile(model)
    with graphc.no_grad():
        compiled(x)
    path = tmp_path_factory.mktemp("program") / "x.gc"
    compiled.save(path)
    return path, model, compiled(x)


@pytest.fixture
def copy(program: tuple[Path, Any, Any], tmp_path: Path) -> Path:
    path = tmp_path / "x.gc"
    path.write_bytes(program[0].read_bytes())
    return path


def same_bits(a: Any, b: Any) -> bool:
    a, b = np.asarray(a.detach() if hasattr(a, "detach") else a), np.asarray(b.detach() if hasattr(b, "detach") else b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def same_results(a: Any, b: Any) -> bool:
    return same_bits(a["scores"], b["scores"]) and same_bits(a["argmax"][0], b["argmax"][0])


def edited(path: Path, **changes: Any) -> None:
    """Write the file again, with right hashes, after `changes` (entry name with _ for / and . -> function of its bytes)."""
    entries = container.read(path)
    for name, change in changes.items():
        (entry,) = (e for e in entries if e.removeprefix(FOLDER).replace("/", "_").replace(".", "_") == name)
        entries[entry] = change(entries[entry])
    container.write(path, entries)


def edited_json(change: Any) -> Any:
    """`change` of parsed JSON in place, or to what it returns (a list or a number)."""

    def apply(content: bytes) -> bytes:
        data = json.loads(content)
        made = change(data)
        return json.dumps(made if isinstance(made, list | int) else data).encode()

    return apply


@pytest.fixture
def rebuilds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The graph texts that `load` has compiled again."""
    seen: list[str] = []
    original = saving._rebuild

    def rebuild(text: str, *sizes: Any) -> Any:
        seen.append(text)
        return original(text, *sizes)

    monkeypatch.setattr(saving, "_rebuild", rebuild)
    return seen


# ---- programs --------------------------------------------------------------------------------------------------------


def test_loaded_gives_the_same_bits(program: tuple[Path, Any, Any], x: Any, rebuilds: list[str]) -> None:
    path, model, expected = program
    loaded = saving.load(path)
    result = loaded(x)
    assert isinstance(result["scores"], graphc.Tensor)
    assert same_results(result, expected)
    assert same_results(loaded(x.numpy()), expected)
    assert isinstance(loaded(x.numpy())["scores"], np.ndarray)
    assert set(loaded.state_dict()) == {"linear.weight", "linear.bias"}
    assert same_bits(loaded.state_dict()["linear.weight"], model.linear.weight)
    assert rebuilds == []
    assert repr(loaded) == "<graphc.Loaded Model(f32[7, 5])>"


def test_any_layout_of_the_data(program: tuple[Path, Any, Any], x: Any) -> None:
    path, _, expected = program
    loaded, array = saving.load(path), x.numpy()
    unaligned = np.frombuffer(b"." + array.tobytes(), np.float32, offset=1).reshape(array.shape)
    for other in (np.asfortranarray(array), np.repeat(array, 2, 0)[::2], unaligned):
        assert same_results(loaded(other), expected)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((7, 4), np.float32), r"argument 0 is f32\[7, 4\], the artifact's signature says f32\[7, 5\]"),
        (np.zeros((7,), np.float32), r"argument 0 is f32\[7\]"),
        (np.zeros((7, 5)), r"argument 0 is f64\[7, 5\]"),
        (np.zeros((7, 5), np.complex64), r"argument 0 is c64\[7, 5\]"),
        (np.zeros((7, 5), ">f4"), r"argument 0 is .*\[7, 5\]"),
    ],
)
def test_data_that_is_not_what_the_signature_says(program: tuple[Path, Any, Any], array: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=rf"Model: {message}"):
        saving.load(program[0])(array)


def test_another_structure_of_arguments(program: tuple[Path, Any, Any], x: Any) -> None:
    loaded = saving.load(program[0])
    for args, kwargs in (((), {}), ((x, x), {}), (([x],), {}), ((x,), {"scale": 2.0}), ((3,), {}), ((object(),), {})):
        with pytest.raises(TypeError, match=r"Model: called with .*, the artifact was made for"):
            loaded(*args, **kwargs)


def test_keywords_in_any_order_and_named_tuples(tmp_path: Path, x: Any) -> None:
    pair = namedtuple("pair", "a b")
    compiled = graphc.compile(lambda p, *, c, d: p.a + p.b * c - d)
    expected = compiled(pair(x, x), c=x, d=x + 1)
    compiled.save(tmp_path / "x.gc")
    loaded = saving.load(tmp_path / "x.gc")
    assert same_bits(loaded(pair(x, x), d=x + 1, c=x), expected)
    assert same_bits(loaded((x, x), c=x, d=x + 1), expected)


def test_an_argument_that_the_program_writes_to(tmp_path: Path) -> None:
    def function(a: Any, b: Any) -> Any:
        a.mul_(2.0)
        return a + b

    compiled = graphc.compile(function)
    compiled(graphc.ones(4, 3), graphc.ones(4, 3))
    compiled.save(tmp_path / "x.gc")
    loaded = saving.load(tmp_path / "x.gc")
    for a in (np.ones((4, 3), np.float32), np.ones((3, 4), np.float32).T):
        assert same_bits(loaded(a, np.ones((4, 3), np.float32)), np.full((4, 3), 3, np.float32))
        assert (a == 2).all()
    fixed = np.ones((4, 3), np.float32)
    fixed.flags.writeable = False
    with pytest.raises(ArtifactError, match="argument 0 is read-only"):
        loaded(fixed, fixed)


def test_a_failed_check_in_the_program_is_an_index_error(tmp_path: Path) -> None:
    table = graphc.ones(4, 2)
    compiled = graphc.compile(lambda i: graphc.nn.functional.embedding(i, table))
    compiled(graphc.tensor([0, 3]))
    compiled.save(tmp_path / "x.gc")
    with pytest.raises(IndexError):
        saving.load(tmp_path / "x.gc")(graphc.tensor([0, 4]))


# ---- whose native code runs ------------------------------------------------------------------------------------------


def test_code_with_a_wrong_signature_is_not_run(copy: Path, program: tuple[Path, Any, Any], x: Any, rebuilds: list[str]) -> None:
    edited(copy, native_code_json=edited_json(lambda facts: facts.update(signature="0" * 64)))
    assert same_results(saving.load(copy)(x), program[2])
    assert len(rebuilds) == 1


@pytest.mark.parametrize("signature", [None, 3, "", [], "é"])
def test_a_signature_of_another_type(
    copy: Path, program: tuple[Path, Any, Any], x: Any, rebuilds: list[str], signature: Any
) -> None:
    edited(copy, native_code_json=edited_json(lambda facts: facts.update(signature=signature)))
    assert same_results(saving.load(copy)(x), program[2])
    assert len(rebuilds) == 1


def test_other_code_is_not_run(copy: Path, program: tuple[Path, Any, Any], x: Any, rebuilds: list[str]) -> None:
    edited(copy, native_code_o=lambda code: code[::-1])
    assert same_results(saving.load(copy)(x), program[2])
    assert len(rebuilds) == 1


def test_a_signature_covers_the_plan(copy: Path, program: tuple[Path, Any, Any], x: Any, rebuilds: list[str]) -> None:
    """Code that is right with sizes that are not would write anywhere."""
    edited(copy, plan_json=edited_json(lambda plan: plan.update(arena_nbytes=0)))
    assert same_results(saving.load(copy)(x), program[2])
    assert len(rebuilds) == 1


def test_another_machine_is_rebuilt_for(copy: Path, program: tuple[Path, Any, Any], x: Any, rebuilds: list[str]) -> None:
    edited(copy, native_code_json=edited_json(lambda facts: facts.update(machine="other")))
    assert same_results(saving.load(copy)(x), program[2])
    assert len(rebuilds) == 1


def test_another_users_key(
    program: tuple[Path, Any, Any], x: Any, rebuilds: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, _, expected = program
    monkeypatch.setenv("GRAPHC_SIGNING_KEY", OTHER_KEY)
    assert same_results(saving.load(path)(x), expected)
    monkeypatch.delenv("GRAPHC_SIGNING_KEY")
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "another"))
    assert same_results(saving.load(path)(x), expected)
    assert len(rebuilds) == 2


def test_without_a_compiler_unsigned_code_is_an_error(program: tuple[Path, Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_SIGNING_KEY", OTHER_KEY)
    with pytest.raises(ArtifactError, match=r"x\.gc: its native code is not for this machine or not signed"):
        files.load(program[0])


def test_altered_graph_text(copy: Path, rebuilds: list[str]) -> None:
    edited(copy, graph_gct=lambda text: text.replace(b"softmax(", b"sofdmax("))
    with pytest.raises(ArtifactError, match=r"x\.gc: its graph is not valid: .*sofdmax"):
        saving.load(copy)
    edited(copy, graph_gct=lambda text: b"\xff" + text)
    with pytest.raises(ArtifactError, match=r"x\.gc"):
        saving.load(copy)


def test_a_key_that_others_could_have_written_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "keys"))
    made = signing.sign(b"content")
    assert made is not None and signing.is_signed(b"content", made)
    assert not signing.is_signed(b"Content", made)
    key = Path(str(default_cache().folder)) / "signing.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    assert not signing.is_signed(b"content", made)
    assert signing.sign(b"content") is None


@pytest.mark.parametrize("key", ["xyz", "abcd"])
def test_a_bad_key_in_the_environment(monkeypatch: pytest.MonkeyPatch, program: tuple[Path, Any, Any], key: str) -> None:
    monkeypatch.setenv("GRAPHC_SIGNING_KEY", key)
    with pytest.raises(RuntimeError, match="GRAPHC_SIGNING_KEY must be at least 16 bytes in hex"):
        saving.load(program[0])


def test_content_of_a_signature_cannot_be_cut_elsewhere() -> None:
    one = {parts.GRAPH: b"a\0b", parts.PLAN: b"c", parts.NATIVE: b"d"}
    other = {parts.GRAPH: b"a", parts.PLAN: b"b\0c", parts.NATIVE: b"d"}
    assert parts.native_content(one, "m") != parts.native_content(other, "m")
    once = {parts.CONSTANTS: b"e", parts.NATIVE_CONSTANTS: b""}
    assert parts.native_content(one, "m") != parts.native_content(one | once, "m")


# ---- damaged programs with right hashes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["programs"][0].update(result_count=-1),
        lambda s: s["programs"][0].update(result_count=99),
        lambda s: s["programs"][0].update(result_count="1"),
        lambda s: s["programs"][0].update(states=s["programs"][0]["states"][:-1]),
        lambda s: s["programs"][0].update(states=s["programs"][0]["states"] * 9),
        lambda s: s["programs"][0].update(states=["none"]),
        lambda s: s["programs"][0].update(states={}),
        lambda s: s["programs"][0].update(states=list(reversed(s["programs"][0]["states"]))),
        lambda s: s["programs"][0].update(arguments=["leaf", None, []]),
        lambda s: s["programs"][0].update(arguments=3),
        lambda s: s["programs"][0].update(results=["tuple", None, []]),
        lambda s: s["programs"][0].update(results=["dict", [["a"]], [["leaf", None, []]]]),
        lambda s: s.pop("name"),
        lambda s: [],
        lambda s: 3,
    ],
)
def test_a_signature_that_does_not_fit(copy: Path, change: Any) -> None:
    edited(copy, signature_json=edited_json(change))
    with pytest.raises(ArtifactError, match=r"x\.gc: "):
        saving.load(copy)


@pytest.mark.parametrize("entry", [parts.GRAPH, parts.PLAN, load.SIGNATURE, load.WEIGHTS, parts.NATIVE, parts.NATIVE_FACTS])
def test_entries_missing_or_empty(copy: Path, entry: str) -> None:
    entries = container.read(copy)
    entry = entry if entry in entries else FOLDER + entry
    content = entries.pop(entry)
    container.write(copy, entries)
    with pytest.raises(ArtifactError, match=r"x\.gc: "):
        saving.load(copy)
    if not entry.endswith((parts.NATIVE, parts.PLAN)):  # without those the graph is compiled again
        for other in (b"", b"3", b"null", content[: len(content) // 2]):
            container.write(copy, {**entries, entry: other})
            with pytest.raises(ArtifactError, match=r"x\.gc: "):
                saving.load(copy)


def test_weights_of_another_type(copy: Path) -> None:
    arrays = {"linear.weight": np.zeros((3, 5), np.float64), "linear.bias": np.zeros(3, np.float32)}
    edited(copy, weights_safetensors=lambda _: weights.to_bytes(arrays))
    with pytest.raises(ArtifactError, match=r"weight linear\.weight does not have the type f32\[3, 5\]"):
        saving.load(copy)


# ---- what loading imports --------------------------------------------------------------------------------------------


def test_loading_imports_no_compiler(program: tuple[Path, Any, Any], x: Any, tmp_path: Path) -> None:
    """Nothing of the rooms that trace, optimise or compile is needed, nor tensors."""
    np.save(tmp_path / "x.npy", x.numpy())
    code = f"""
import sys
import numpy as np
import graphc
result = graphc.load({str(program[0])!r})(np.load({str(tmp_path / "x.npy")!r}))
np.save({str(tmp_path / "y.npy")!r}, result["scores"])
print(*sorted(name for name in sys.modules if name.startswith(("graphc.", "networkx"))))
"""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert same_bits(np.load(tmp_path / "y.npy"), program[2]["scores"])
    base = ("dtypes", "dims", "dim_answers", "dim_patterns", "dim_terms", "dim_rules", "errors", "leases", "trees")
    rooms = ("artifact", "runtime", "ir", "saving", *base)
    assert {name.split(".")[1] for name in done.stdout.split()} - set(rooms) == set()


# ---- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (4, 5)], ids=str)
def test_weights_come_back(dtype: dtypes.DType, shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(5)
    count = int(np.prod(shape)) * dtype.itemsize
    data = generator.integers(0, 2 if dtype.kind == "b" else 256, count, np.uint8).tobytes()
    array = np.frombuffer(data, dtype.numpy).reshape(shape)
    back = weights.from_bytes(weights.to_bytes({"a.b": array, "byte": np.ones(1, np.uint8)}))
    assert list(back) and same_bits(back["a.b"], array)
    assert back["a.b"].flags.writeable and back["a.b"].ctypes.data % 64 == 0


def test_weights_of_any_layout_in_a_fixed_order() -> None:
    a, b = np.arange(6.0).reshape(2, 3), np.ones(3, np.int8)
    assert weights.to_bytes({"a": a.T, "b": b}) == weights.to_bytes({"b": b, "a": a.T.copy()})
    assert same_bits(weights.from_bytes(weights.to_bytes({"a": a.T}))["a"], a.T)


def test_weights_are_safetensors() -> None:
    import safetensors.numpy

    arrays = {"byte": np.arange(3, dtype=np.uint8), "double": np.arange(4.0), "half": np.ones((2, 2), np.float16)}
    read = safetensors.numpy.load(weights.to_bytes(arrays))
    assert all(same_bits(read[name], array) for name, array in arrays.items())
    assert set(weights.from_bytes(safetensors.numpy.save(arrays))) == set(arrays)


def test_weights_that_cannot_be_written_or_read() -> None:
    with pytest.raises(TypeError, match="datetime64"):
        weights.to_bytes({"a": np.zeros(1, "datetime64[s]")})
    with pytest.raises(ValueError, match="__metadata__"):
        weights.to_bytes({"__metadata__": np.zeros(1)})
    data = weights.to_bytes({"a": np.zeros(3)})
    for bad in (b"", data[:-1], data + b"1", data.replace(b"F64", b"Q64"), data.replace(b"F64", b"F32")):
        with pytest.raises(ArtifactError, match="weights cannot be read"):
            weights.from_bytes(bad)
    with pytest.raises(ArtifactError, match="dtype F4"):
        weights.from_bytes(data.replace(b'"F64"', b'"F4" ').replace(b"[3]", b"[48]", 1).replace(b"[0, 24]}}  ", b"[0, 24]}} "))
    pairs = weights.to_bytes({"a": np.zeros(3, np.complex64)})
    with pytest.raises(ArtifactError, match="not pairs of floats"):
        weights.from_bytes(pairs.replace(b"[3, 2]", b"[2, 3]"))


# ---- state dicts -----------------------------------------------------------------------------------------------------


def test_state_dict_comes_back(tmp_path: Path) -> None:
    model = Model()
    optimizer = graphc.optim.Adam(model.parameters(), lr=0.25)
    model(graphc.ones(2, 5))["scores"].square().sum().backward()
    optimizer.step()
    saved = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "name": "é",
        "best": None,
        "done": (True, 1e-300),
    }
    saving.save(saved, tmp_path / "s.gc")
    back = saving.load(tmp_path / "s.gc")
    assert list(back) == list(saved) and back["epoch"] == 3 and back["done"] == (True, 1e-300) and back["best"] is None
    assert isinstance(back["model"]["linear.weight"], graphc.Tensor)
    other = Model()
    other.load_state_dict(back["model"])
    assert same_bits(other.linear.weight, model.linear.weight)
    again = graphc.optim.Adam(other.parameters(), lr=1.0)
    again.load_state_dict(back["optimizer"])
    assert again.param_groups[0]["lr"] == 0.25
    assert same_bits(again.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_state_of_every_dtype(tmp_path: Path, dtype: dtypes.DType) -> None:
    tensor = graphc.ones(3, 2).to(dtype)
    saving.save({"t": tensor, "scalar": tensor[0, 0], "array": tensor.numpy()[1:]}, tmp_path / "s.gc")
    back = saving.load(tmp_path / "s.gc")
    assert back["t"].dtype is dtype and same_bits(back["t"], tensor)
    assert tuple(back["scalar"].shape) == () and isinstance(back["array"], np.ndarray)


def test_state_with_names_that_collide(tmp_path: Path) -> None:
    value = {"a": {"b": np.zeros(1)}, "a.b": np.ones(1), "__metadata__": np.full(1, 2), 0: np.full(1, 3), "0": np.full(1, 4)}
    saving.save(value, tmp_path / "s.gc")
    back = saving.load(tmp_path / "s.gc")
    found = [back["a"]["b"], back["a.b"], back["__metadata__"], back[0], back["0"]]
    assert [int(value.item()) for value in found] == [0, 1, 2, 3, 4]


def test_open_files_single_tensors_and_places(tmp_path: Path) -> None:
    file = io.BytesIO()
    saving.save({"a": graphc.ones(2)}, file)
    file.seek(0)
    assert saving.load(file, map_location="cpu", weights_only=True)["a"].tolist() == [1, 1]
    saving.save(graphc.arange(3), tmp_path / "x.pth")
    for where in (graphc.device("cpu"), {"cuda:0": "cpu"}, lambda storage, place: storage):
        assert saving.load(tmp_path / "x.pth", map_location=where).tolist() == [0, 1, 2]
    with pytest.raises(AssertionError, match="no CUDA runtime"):
        saving.load(tmp_path / "x.pth", map_location="cuda")
    with pytest.raises(ArtifactError, match="the file: neither a checkpoint of PyTorch, nor safetensors, nor a graphc artifact"):
        saving.load(io.BytesIO(b"PK"))


def test_state_of_numbers_alone(tmp_path: Path) -> None:
    value = {"x": [1, -0.0, float("inf")], "e": {}, "t": ()}
    saving.save(value, tmp_path / "s.gc")
    assert repr(saving.load(tmp_path / "s.gc")) == repr(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, {"f": print}]}, r"save: a\.1\.f is a builtin_function_or_method"),
        ({"a": (1, {open: 2})}, r"save: a key of a\.1 is a builtin_function_or_method"),
        (range(3), r"save: the value is a range"),
        ({"z": np.zeros(1, "datetime64[s]")}, r"datetime64"),
    ],
)
def test_state_that_cannot_be_saved(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        saving.save(value, tmp_path / "s.gc")
    assert os.listdir(tmp_path) == []


def test_state_that_contains_itself(tmp_path: Path) -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = [loop]
    saving.save(loop, tmp_path / "s.gc")
    back = saving.load(tmp_path / "s.gc")
    assert back["loop"][0] is back
    pair: tuple[Any, Any] = ([], 1)
    pair[0].append(pair)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (pair, deep):
        with pytest.raises(ValueError, match="contains itself, or is nested too deep"):
            saving.save(value, tmp_path / "s.gc")


def test_a_compiled_function_is_not_a_state_dict(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"compiled\.save\(path\)"):
        saving.save(graphc.compile(lambda x: x), tmp_path / "s.gc")


@pytest.mark.parametrize(
    "skeleton",
    [
        b"",
        b"3",
        b"{}",
        b'{"tree": ["leaf", null, []], "names": ["b"], "tensors": [true]}',
        b'{"tree": ["leaf", null, []], "names": ["a", "a"], "tensors": [true, true]}',
        b'{"tree": ["tuple", null, []], "names": ["a"], "tensors": [true]}',
        b'{"tree": ["dict", [], [["leaf", null, []]]], "names": ["a"], "tensors": [true]}',
        b'{"tree": ["object", null, []], "names": ["a"], "tensors": [true]}',
    ],
    ids=range(8),
)
def test_a_damaged_state_file(tmp_path: Path, skeleton: bytes) -> None:
    path = tmp_path / "s.gc"
    container.write(path, {state.SKELETON: skeleton, state.TENSORS: weights.to_bytes({"a": np.zeros(1)})})
    with pytest.raises(ArtifactError, match=r"s\.gc: "):
        saving.load(path)


def test_a_structure_nested_too_deep() -> None:
    data: Any = ["leaf", None, []]
    for _ in range(100_000):
        data = ["list", None, [data]]
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_tree(data, 1)
