"""Checkpoints: what is written comes back, with the memory it shares; what is damaged, hostile or foreign is one clear error.

PyTorch's side of it is in `tests/parity/test_checkpoints_parity.py`.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import pickle
import random
import subprocess
import sys
import zipfile
import zlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.safetensors as st
from graphc import dtypes, nn
from graphc.artifact import zips
from graphc.checkpoints import pickles
from graphc.errors import ArtifactError, CheckpointError

SOURCE = Path(__file__).resolve().parents[1] / "src"
LAYOUTS = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])


def saved(value: Any, new: bool = True) -> bytes:
    file = io.BytesIO()
    graphc.save(value, file, _use_new_zipfile_serialization=new)
    return file.getvalue()


def loaded(data: bytes, **how: Any) -> Any:
    return graphc.load(io.BytesIO(data), **how)


# ---- values ----------------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    None, True, 0, 255, 256, 65535, 65536, -1, 2**31, -(2**31), 2**63, -(2**100), 0.5, -0.0, 1e300, float("inf"), "", "é", "\ud800",
    b"", b"\x00\xff", bytearray(b"ab"), 1 + 2j, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1, [2, [3]]],
    {}, {"a": {1: 2.5, (1, "x"): None}},
    {1, 2}, frozenset({"a"}), OrderedDict(b=1, a=2), Counter("aab"), defaultdict(list, {"a": [1]}), defaultdict(None, {1: 2}),
    argparse.Namespace(lr=0.1, names=["x"]), graphc.float32, graphc.bfloat16, graphc.device("cuda", 1), graphc.device("cpu"),
    graphc.Size([2, 3]),
    graphc.strided, np.float64(2.5), np.int32(-3), np.bool_(True), np.str_("é"), list(range(3000)),
    {str(i): i for i in range(3000)},
]  # fmt: skip


@LAYOUTS
@pytest.mark.parametrize("value", VALUES, ids=lambda v: f"{type(v).__name__}{len(repr(v))}")
def test_values_come_back(value: Any, new: bool) -> None:
    back = loaded(saved(value, new))
    assert type(back) is type(value) and repr(back) == repr(value)


def test_the_attributes_of_a_state_dict_come_back() -> None:
    state = OrderedDict(a=1)
    state._metadata = OrderedDict({"": {"version": 2}})  # type: ignore[attr-defined]
    assert loaded(saved(state))._metadata == {"": {"version": 2}}


@pytest.mark.parametrize("dtype", ["bool", "u1", "i8", "f2", "f4", "f8", "c16", "U3", "S2"])
def test_numpy_arrays_come_back(dtype: str) -> None:
    array = np.array([[1, 0, 1], [0, 1, 1]]).astype(dtype)
    for given in (array, array.T, array[:, 1], array[0, 0], array[:0]):
        back = loaded(saved({"a": given}))["a"]
        assert type(back) is type(given) and back.dtype == given.dtype and back.shape == given.shape and np.array_equal(back, given)


def views(x: graphc.Tensor) -> list[graphc.Tensor]:
    return [x, x.t(), x[1:], x[:, 1], x[1, 2], x[:0], x.expand(2, 3, 4), x.flatten()[1::3], x.unsqueeze(0).transpose(0, 2)]


@LAYOUTS
@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_tensors_of_every_dtype_share_memory_again(dtype: dtypes.DType, new: bool) -> None:
    given = views(graphc.arange(12).reshape(3, 4).to(dtype))
    data = saved(given, new)
    assert len(data) < 4096 + 12 * dtype.itemsize  # one storage
    back = loaded(data)
    for mine, original in zip(back, given, strict=True):
        assert mine.dtype is dtype and mine.shape == original.shape and mine.numpy().tobytes() == original.numpy().tobytes()
        assert not original.numel() or mine.stride() == original.stride() and mine.storage_offset() == original.storage_offset()
        assert mine.untyped_storage() == back[0].untyped_storage()
    back[0][1, 2] = 0
    assert not back[4].item() and not back[1][2, 1].item()


def test_parameters_and_what_requires_grad() -> None:
    layer = nn.Linear(3, 2)
    given = {"p": layer.weight, "same": layer.weight, "g": graphc.ones(2, requires_grad=True),
        "made": graphc.ones(2, requires_grad=True) * 2,
             "frozen": nn.Parameter(graphc.ones(1), requires_grad=False)}  # fmt: skip
    layer.weight.note = "kept"
    back = loaded(saved(given))
    assert type(back["p"]) is nn.Parameter and back["p"] is back["same"] and back["p"].requires_grad and back["p"].note == "kept"
    assert back["g"].requires_grad and back["made"].requires_grad and back["made"].is_leaf
    assert type(back["frozen"]) is nn.Parameter and not back["frozen"].requires_grad


def test_loaded_tensors_work_compiled() -> None:
    x = graphc.arange(12.0).reshape(3, 4)
    state = loaded(saved({"w": x, "t": x.t(), "p": nn.Parameter(x)}))
    step = graphc.compile(lambda v: (v @ state["t"] + state["w"].sum()) * state["p"].sum())
    assert step(x).detach().numpy().tobytes() == ((x @ x.t() + x.sum()) * x.sum()).numpy().tobytes()
    state["w"].mul_(2)
    assert step(x).detach().numpy().tobytes() == ((x @ (2 * x).t() + (2 * x).sum()) * (2 * x).sum()).numpy().tobytes()


@LAYOUTS
def test_training_goes_on(new: bool, tmp_path: Path) -> None:
    def made() -> tuple[nn.Module, Any]:
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        return model, graphc.optim.Adam(model.parameters(), lr=0.05)

    def steps(model: nn.Module, optimizer: Any, count: int) -> list[float]:
        losses = []
        for k in range(count):
            optimizer.zero_grad()
            loss = (model(graphc.sin(graphc.arange(24.0).reshape(6, 4) + k)) - 1).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    model, optimizer = made()
    steps(model, optimizer, 3)
    graphc.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt", _use_new_zipfile_serialization=new
    )
    other, its = made()
    state = graphc.load(tmp_path / "c.pt")
    other.load_state_dict(state["model"])
    its.load_state_dict(state["optimizer"])
    assert steps(model, optimizer, 5) == steps(other, its, 5)


# ---- the file --------------------------------------------------------------------------------------------------------


def test_the_zip_file_is_whole_aligned_and_the_same_each_time(tmp_path: Path) -> None:
    state = {"a": graphc.ones(5), "b": graphc.ones(3, dtype=graphc.int8), "e": graphc.ones(0)}
    graphc.save(state, tmp_path / "net.v1.pt")
    data = (tmp_path / "net.v1.pt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {"net.v1/data.pkl", "net.v1/version", "net.v1/byteorder", "net.v1/data/0"} <= set(archive.namelist())
    assert all(entry.start % 64 == 0 for entry in zips.entries(memoryview(data)).values())
    graphc.save(state, tmp_path / "net.v1.pt")
    assert (tmp_path / "net.v1.pt").read_bytes() == data


def test_many_entries_take_the_wide_form(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    zips.write(file, [(f"{i}", b"") for i in range(70_000)])
    assert len(zips.entries(memoryview(file.getvalue()))) == len(zipfile.ZipFile(file).infolist()) == 70_000
    monkeypatch.setattr(zips, "_FULL", 50)  # as if 32 bits ended there: sizes and offsets beyond take 64
    file = io.BytesIO()
    parts = [("a", b"x" * 49), ("b", b"y" * 1000), ("c", b"z")]
    zips.write(file, parts)
    wide = memoryview(file.getvalue())
    assert [(name, bytes(zips.content(wide, entry))) for name, entry in zips.entries(wide).items()] == parts
    assert b"PK\6\6" in bytes(wide) and b"PK\6\7" in bytes(wide)


def test_a_file_of_the_layout_before(tmp_path: Path) -> None:
    """What `graphc.save` wrote at first: JSON and safetensors in an artifact."""
    (tmp_path / "state.gc").write_bytes(zlib.decompress(base64.b85decode(FIRST_LAYOUT)))
    back = graphc.load(tmp_path / "state.gc", map_location="cpu")
    assert list(back) == ["weight", "half", "list", "tuple", "array", "c"]
    assert (
        back["weight"].tolist() == [[1, 2], [3, 4.5]] and back["half"].dtype is graphc.bfloat16 and back["c"].tolist() == [1 + 2j]
    )
    assert back["list"] == [1, None, "é", True] and back["tuple"] == (0.5,) and isinstance(back["array"], np.ndarray)


FIRST_LAYOUT = (
    "c-oCr&u`N(6i(N{VG<{H;uOq<Lsi9&6DM3YahQg7>4j5QRgQnGL1{WAE-+P<_9wuJ3!D&t0sMI!cy_XubRD9t<M%$l_vQ0@c1IWe!(*@cJomo+{(8RZd7d3d"
    "fYgQ?HGEeu$`vw|Qs|XGMlu%$4Z!%I@~fFO(To?`&P853-z={SWer|c{KgsrO(12A3dL<?xhx9sCl=g~HB2owMpj8K0KuD(4b(~8py+ZL1S&=MS4_234sGx|"
    "vG?B<45Po|{ztk+QOW13cBQ&sp>9EtQDwcTTyUeRd1_wNtutAVIxYJ0^4Vtt?Xlx2AT7hN=32FO(rbcOXgZxM!zDL-I)!(vkXX!Nvme1m<4Yti(FCnGs%(HX"
    "H`lh!=uJ$m%zDP1KMt*2$F$J8R>o-#20o#awcAc7`z$1#Z0H)<M?mPn4~b)FYxPeW@&HW;3p8;wuFxHl*Jn8Hvh1Uv$-s|5$=dhZT6=97y@NZzyFG!&>2^Ma"
    "@#*yT<o2Z7q_^V5PXg(7JOO0R%UrA4G*{`!M|x4sx!o+fs`&K`4jX{)RaNJU5>RYiRhlYy2MIEKw7rWh0tYR-F)kov>A)edM-s)BmqbaRgbt*nEW=5P1*4kL"
    "fF%NFG$m=42_|F~u}sUD@i5M4Bqi2_Qz;onz_+%fXwM1Tr-1A#5JYN{F%^VVNSX#Q$x=pXn5L9U%(#q*3=<p)tVE(Ii&UU-Op_!GFrkTd3Xb3hH=uWL+<*9Q"
    "YSSLqv2CGt^LFpfHt&0H?@ihz*zN0<;Jm-n<<Z5X$9Aa?-(N8QIJDj$2Nhpy"
)


def test_places(tmp_path: Path) -> None:
    value = {"a": graphc.arange(6.0), "b": graphc.ones(2)}
    path = tmp_path / "x.pt"
    graphc.save(value, path)
    seen = []

    def double(storage: Any, location: str) -> Any:
        seen.append((storage.nbytes(), location))
        return storage.clone() if storage.nbytes() == 8 else None

    assert graphc.load(str(path), double)["b"].tolist() == [1, 1] and sorted(seen) == [(8, "cpu"), (24, "cpu")]
    with pytest.raises(ZeroDivisionError):
        graphc.load(path, lambda storage, location: 1 // 0)
    with pytest.raises(TypeError, match="map_location must give a storage or None, got a int"):
        graphc.load(path, lambda storage, location: 3)
    with pytest.raises(AssertionError, match="no CUDA runtime"):
        graphc.load(path, map_location={"cpu": "cuda:0"})
    with pytest.raises(FileNotFoundError):
        graphc.load(tmp_path / "none.pt")
    with pytest.raises(IsADirectoryError):
        graphc.load(tmp_path)
    with open(path) as text, pytest.raises((TypeError, UnicodeDecodeError)):
        graphc.load(text)
    with pytest.raises(AttributeError, match="'int' object has no attribute 'read'"):
        graphc.load(3)  # type: ignore[arg-type]


def test_mapped_memory_is_this_process_own(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    graphc.save({"a": graphc.arange(6.0), "mask": graphc.tensor([True, False])}, path)
    before = path.read_bytes()
    state = graphc.load(path, mmap=True)
    assert state["a"].tolist() == [0, 1, 2, 3, 4, 5] and state["mask"].tolist() == [True, False]
    assert not state["a"].is_shared()
    state["a"].add_(1)
    assert state["a"].tolist() == [1, 2, 3, 4, 5, 6] and path.read_bytes() == before
    graphc.save({"a": graphc.zeros(6)}, path)  # a new file in its place: the mapped one stays
    assert state["a"].tolist() == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="f must be a file path"):
        graphc.load(io.BytesIO(before), mmap=True)
    graphc.save({"a": graphc.zeros(6)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="mmap needs a zip file"):
        graphc.load(path, mmap=True)


def test_several_in_one_open_file() -> None:
    file = io.BytesIO()
    for k in range(3):
        graphc.save({"k": k, "t": graphc.full((3,), k)}, file, _use_new_zipfile_serialization=False)
    file.seek(0)
    for k in range(3):
        state = graphc.load(file)
        assert state["k"] == k and state["t"].tolist() == [k] * 3


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    graphc.save([1], path)
    with pytest.raises(TypeError, match=r"save: model\.f is a function; only tensors and plain values can be saved"):
        graphc.save({"t": graphc.ones(3), "model": {"f": lambda: 0}}, path)
    x = graphc.ones(4)
    with pytest.raises(RuntimeError, match=r"views as graphc\.int32 what another tensor views as another dtype"):
        graphc.save([x, x.view(graphc.int32)], path)
    assert graphc.load(path) == [1] and os.listdir(tmp_path) == ["x.pt"]


class Config:
    """A class of a user's."""

    def __init__(self, size: int) -> None:
        self.size = size


def test_classes_that_the_user_allows() -> None:
    serialization = graphc.serialization
    config = Config(3)
    config.weights = graphc.ones(2)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"Config.*add_safe_globals"):
        saved(config)
    with serialization.safe_globals([Config]):
        assert serialization.get_safe_globals() == [Config]
        data, legacy = saved({"c": config}), saved({"c": config}, new=False)
        for each in (data, legacy):
            back = loaded(each)["c"]
            assert type(back) is Config and back.size == 3 and back.weights.tolist() == [1, 1]
    with pytest.raises(CheckpointError, match=r"it holds .*Config, which is not data"):
        loaded(data, weights_only=False)
    serialization.add_safe_globals([(Config, f"{Config.__module__}.Config")])
    assert type(loaded(data)["c"]) is Config
    serialization.clear_safe_globals()
    assert serialization.get_safe_globals() == []
    with pytest.raises(TypeError, match="safe globals are classes"):
        serialization.add_safe_globals([3])


# ---- safetensors -----------------------------------------------------------------------------------------------------

WRITTEN = [d for d in dtypes.ALL if d is not dtypes.complex128]


def test_safetensors_come_back(tmp_path: Path) -> None:
    tensors = {d.name: graphc.arange(6).reshape(2, 3).to(d).t() for d in WRITTEN} | {
        "empty": graphc.ones(0, 3),
        "number": graphc.tensor(2.5),
    }
    path = tmp_path / "m.safetensors"
    st.save_file(tensors, path, {"format": "pt"})
    for back in (st.load_file(path), st.load(path.read_bytes()), graphc.load(path), graphc.load(path, mmap=True)):
        assert back.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert back[name].dtype is tensor.dtype and back[name].shape == tensor.shape
            assert back[name].numpy().tobytes() == tensor.numpy().tobytes()
    assert st.save(tensors, {"format": "pt"}) == path.read_bytes()
    graphc.save(tensors, tmp_path / "n.safetensors")
    assert st.load_file(tmp_path / "n.safetensors")["float32"].tolist() == tensors["float32"].tolist()
    reader = pytest.importorskip("safetensors")
    assert {name for name, _ in reader.deserialize(path.read_bytes())} == set(tensors)


def test_safetensors_part_by_part(tmp_path: Path) -> None:
    st.save_file(
        {"b": graphc.arange(12.0).reshape(3, 4), "a": graphc.ones(2, dtype=graphc.int8)}, tmp_path / "m.safetensors", {"k": "v"}
    )
    with st.safe_open(tmp_path / "m.safetensors", framework="pt", device="cpu") as file:
        assert file.keys() == ["a", "b"] and file.offset_keys() == ["b", "a"] and file.metadata() == {"k": "v"}
        part = file.get_slice("b")
        assert part.get_shape() == [3, 4] and part.get_dtype() == "F32"
        assert part[1:, ::2].tolist() == [[4, 6], [8, 10]] and part[2].tolist() == [8, 9, 10, 11] and part[...].shape == (3, 4)
        whole = file.get_tensor("b")
        whole.zero_()
        assert file.get_tensor("b")[0, 1].item() == 1
        with pytest.raises(CheckpointError, match="does not contain tensor 'c'"):
            file.get_tensor("c")
    with pytest.raises(CheckpointError, match="closed"):
        file.get_tensor("a")


def test_safetensors_that_cannot_be_written(tmp_path: Path) -> None:
    x = graphc.ones(4)
    bad: list[tuple[Any, type[Exception], str]] = [
        ({"a": x, "b": x[1:]}, RuntimeError, r"share memory, .*\[\['a', 'b'\]\]"),
        ({"a": 3}, TypeError, "'a' is a int"),
        ([x], TypeError, "not a list"),
        ({"a": x.to(graphc.complex128)}, TypeError, "no complex128: tensor 'a'"),
        ({"__metadata__": x}, ValueError, "__metadata__"),
    ]
    for value, kind, message in bad:
        with pytest.raises(kind, match=message):
            st.save_file(value, tmp_path / "m.safetensors")
    with pytest.raises(TypeError, match="dict of strings"):
        st.save_file({"a": x}, tmp_path / "m.safetensors", {"k": 3})  # type: ignore[dict-item]
    st.save_file({"a": x[:2], "b": x[2:]}, tmp_path / "m.safetensors")  # one storage, but no place twice
    assert os.listdir(tmp_path) == ["m.safetensors"]


class Tied(nn.Module):
    """Two names for one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("limit", [None, 1, "30B", "1KB"])
def test_modules_in_safetensors(tmp_path: Path, limit: Any) -> None:
    model, other = Tied(), Tied()
    st.save_model(model, tmp_path / "model.safetensors", max_shard_size=limit)
    written = sorted(os.listdir(tmp_path))
    if limit in (1, "30B"):
        assert written == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
        index = json.loads((tmp_path / written[2]).read_text())
        assert index["metadata"]["total_size"] == 4 * (15 + 5) and len(index["weight_map"]) == 2
        assert len(graphc.load(tmp_path / written[2])) == 2
    else:
        assert written == ["model.safetensors"]
    for place in (tmp_path, tmp_path / written[-1]):
        with graphc.no_grad():
            other.embed.weight.zero_()
        assert st.load_model(other, place) == ([], [])
        assert other.head.weight.tolist() == model.embed.weight.tolist() and other.head.bias.tolist() == model.head.bias.tolist()


def test_modules_and_files_that_do_not_fit(tmp_path: Path) -> None:
    st.save_file({"weight": graphc.ones(2, 3), "other": graphc.ones(1)}, tmp_path / "m.safetensors")
    layer = nn.Linear(3, 2)
    before = layer.weight.tolist()
    with pytest.raises(RuntimeError, match=r"Missing key\(s\): \['bias'\](.|\n)*Unexpected key\(s\): \['other'\]"):
        st.load_model(layer, tmp_path / "m.safetensors")
    assert layer.weight.tolist() == before
    assert st.load_model(layer, tmp_path / "m.safetensors", strict=False) == (["bias"], ["other"])
    assert layer.weight.tolist() == [[1] * 3] * 2
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        st.load_model(nn.Linear(2, 2), tmp_path / "m.safetensors", strict=False)


def test_shards_of_pytorch_files(tmp_path: Path) -> None:
    graphc.save({"a": graphc.ones(2), "spare": graphc.ones(1)}, tmp_path / "one.bin")
    graphc.save({"b": graphc.zeros(2)}, tmp_path / "two.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"b": "two.bin", "a": "one.bin"}}))
    assert list(graphc.load(index)) == ["b", "a"]
    for table, message in [
        ({"a": "../one.bin"}, "no file beside it"), ({"a": "/etc/passwd"}, "no file beside it"),
        ({"a": index.name}, "no file beside it"),
        ({"a": 3}, "no file beside it"), ({}, "without a weight_map"), ({"a": "two.bin"}, "does not hold every tensor"),
    ]:  # fmt: skip
        index.write_text(json.dumps({"weight_map": table}))
        with pytest.raises(CheckpointError, match=message):
            graphc.load(index)
        if "two" not in str(table):
            with pytest.raises(CheckpointError, match=message):
                st.load_file(index)
    for text in ("{", "{}", '{"weight_map": 3}', '{"a":' * 100_000):
        index.write_text(text)
        with pytest.raises(CheckpointError, match=r"index\.json: "):
            graphc.load(index)


# ---- hostile files ---------------------------------------------------------------------------------------------------


def zipped(parts: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    zips.write(file, parts)
    return file.getvalue()


def pth(opcodes: bytes, *storages: bytes) -> bytes:
    """A file of PyTorch whose pickle is these opcodes."""
    numbered = [(f"x/data/{i}", storage) for i, storage in enumerate(storages)]
    return zipped([("x/data.pkl", b"\x80\x02" + opcodes), *numbered, ("x/version", b"3\n")])


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def geometry(offset: int, size: tuple[int, ...], stride: tuple[int, ...], numel: int = 4, kind: bytes = b"FloatStorage") -> bytes:
    """A pickle of one tensor on a storage of 16 bytes."""
    named = b"(X\x07\0\0\0storagectorch\n" + kind + b"\nX\x01\0\0\0" + b"0X\x03\0\0\0cpu" + number(numel) + b"tQ"
    tuples = b"".join(b"(" + b"".join(map(number, numbers)) + b"t" for numbers in (size, stride))
    return pth(b"ctorch._utils\n_rebuild_tensor_v2\n(" + named + number(offset) + tuples + b"\x89NtR.", bytes(16))


def tensors_header(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def st_file(header: dict[str, Any], size: int) -> bytes:
    return tensors_header(json.dumps(header).encode(), bytes(size))


def deflated() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02]" + b"N0" * 10_000_000 + b".")
    return file.getvalue()


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "the file is empty"),
    "text": (lambda: b"hello, world", "neither a checkpoint"),
    "web page": (lambda: b"<!DOCTYPE html>", "a web page"),
    "lfs": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    "npy": (lambda: b"\x93NUMPY\x01\0v\0{'descr'", "numpy.load"),
    "tar": (lambda: b"x" * 257 + b"ustar" + b"\0" * 250, "a tar archive"),
    "other zip": (lambda: zipped([("readme", b"x")]), "has one data.pkl, this one has 0"),
    "script": (lambda: zipped([("x/data.pkl", b"\x80\x02N."), ("x/constants.pkl", b"")]), "TorchScript"),
    "big-endian": (lambda: zipped([("x/data.pkl", b"\x80\x02N."), ("x/byteorder", b"big")]), "byteorder is not one"),
    "future": (lambda: zipped([("x/data.pkl", b"\x80\x02N."), ("x/version", b"99\n")]), "version is not one"),
    "zip bomb": (deflated, "is compressed"),
    "traversal": (lambda: zipped([("x/data.pkl", b"\x80\x02N."), ("x/../../y", b"")]), "named like a path"),
    "absolute": (lambda: zipped([("/x/data.pkl", b"\x80\x02N.")]), "named like a path"),
    "same name twice": (lambda: zipped([("x/data.pkl", b"\x80\x02N.")] * 2), "stands twice"),
    "storage missing": (lambda: geometry(0, (4,), (1,)).replace(b"x/data/0", b"x/data/1"), "missing"),
    "storage with another size": (lambda: geometry(0, (4,), (1,), numel=5), "not 20 bytes"),
    "2**62 elements": (lambda: geometry(0, (4,), (1,), numel=2**62), "missing from it, or not"),
    "size": (lambda: geometry(0, (5,), (1,)), "out of bounds for storage of size 4"),
    "2**63 - 1": (lambda: geometry(0, (2**63 - 1,), (1,)), "out of bounds"),
    "2**63": (lambda: geometry(0, (2**63,), (1,)), "no integers of 64 bits"),
    "product that wraps": (lambda: geometry(0, (2**32, 2**32), (0, 0)), "claims sizes"),
    "repeated": (lambda: geometry(0, (2**40,), (0,)), "claims sizes"),
    "empty and great": (lambda: geometry(0, (2**62, 0, 2**62), (1, 1, 1)), "claims sizes"),
    "stride": (lambda: geometry(0, (2, 2), (2**62, 1)), "out of bounds"),
    "negative stride": (lambda: geometry(3, (4,), (-1,)), "Negative strides"),
    "negative size": (lambda: geometry(0, (-1,), (1,)), "negative size"),
    "offset": (lambda: geometry(1, (4,), (1,)), "out of bounds"),
    "negative offset": (lambda: geometry(-1, (4,), (1,)), "invalid storage offset"),
    "rank": (lambda: geometry(0, (1,) * 65, (1,) * 65), "more than 64 dims"),
    "strides missing": (lambda: geometry(0, (2, 2), (1,)), "mismatch in length"),
    "kind": (lambda: geometry(0, (4,), (1,), kind=b"QInt8Storage"), "it holds torch.QInt8Storage"),
    "no pickle": (lambda: pth(b""), "cut short"),
    "opcode": (lambda: pth(b"I1\n."), "has an opcode"),
    "pop": (lambda: pth(b"0."), "stack is empty"),
    "pop below a mark": (lambda: pth(b"N(0t."), "stack is empty"),
    "stop": (lambda: pth(b"."), "stack is empty"),
    "memo": (lambda: pth(b"h\x07."), "memo index"),
    "string": (lambda: pth(b"X\xff\xff\xff\xffabc."), "cut short"),
    "2**63 bytes": (lambda: pth(b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc."), "cut short"),
    "protocol": (lambda: pth(b"\x80\x09N."), "newer than 5"),
    "a name alone": (lambda: pth(b"ccollections\nOrderedDict\n."), "holds a name or a storage"),
    "append": (lambda: pth(b"}Na."), "appends to a dict"),
    "items": (lambda: pth(b"]NNs."), "sets items of a list"),
    "key": (lambda: pth(b"}]Ns."), "a key that is a list"),
    "deep key": (lambda: pth(b"}N" + b"\x85" * 10_000 + b"Ns."), "too large"),
    "wide key": (lambda: pth(b"}" + b"N" + b"2\x86" * 60 + b"Ns."), "too large"),
    "chosen hash": (lambda: pth(b"}" + b"\x8a\x0a" + b"\x7f" * 10 + b"Ns."), "too large"),
    "state": (lambda: pth(b"]}b."), "gives a state to a list"),
    "call of a value": (lambda: pth(b"K\x05)R."), "calls a int"),
    "object array": (lambda: pth(b"cnumpy\ndtype\nX\x02\0\0\0O8\x85R."), "only numbers and strings"),
    "module": (lambda: pth(b"ctorch.nn.modules.linear\nLinear\n)\x81."), r"it holds torch\.nn\.modules\.linear\.Linear"),
    "sparse": (lambda: pth(b"ctorch._utils\n_rebuild_sparse_tensor\n."), "_rebuild_sparse_tensor"),
    "float8": (lambda: pth(b"ctorch\nfloat8_e5m2\n."), "float8_e5m2"),
    "legacy cut": (lambda: saved({"a": graphc.ones(9)}, new=False)[:-1], "cut short"),
    "legacy key": (
        lambda: saved({"a": graphc.ones(9)}, new=False).replace(b"\x09" + b"\0" * 7, b"\xff" * 8),
        "cut short, or has another size",
    ),
    "st: no header": (lambda: tensors_header(b"{" + b" " * 20), "header is damaged"),
    "st: hole": (lambda: st_file({"a": entry("U8", [4], 4, 8)}, 8), "leaves a hole"),
    "st: overlap": (lambda: st_file({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 2, 6)}, 6), "overlaps another"),
    "st: rest": (lambda: st_file({"a": entry("U8", [4], 0, 4)}, 5), "have 4 bytes, the file has 5"),
    "st: beyond": (lambda: st_file({"a": entry("U8", [4], 0, 4)}, 3), "have 4 bytes, the file has 3"),
    "st: bytes": (lambda: st_file({"a": entry("F32", [4], 0, 4)}, 4), "does not have the 4 bytes"),
    "st: 2**62": (lambda: st_file({"a": entry("F32", [2**62], 0, 4)}, 4), "no sizes"),
    "st: wraps": (lambda: st_file({"a": entry("U8", [2**32, 2**32], 0, 0)}, 0), "does not have the 0 bytes"),
    "st: empty and great": (lambda: st_file({"a": entry("U8", [2**61, 2**61, 0], 0, 0)}, 0), "has shape"),
    "st: negative": (lambda: st_file({"a": entry("U8", [-4, -1], 0, 4)}, 4), "no sizes"),
    "st: true": (lambda: st_file({"a": entry("U8", [True], 0, 1)}, 1), "no sizes"),
    "st: dtype": (lambda: st_file({"a": entry("F128", [1], 0, 16)}, 16), "which the format does not have"),
    "st: float8": (lambda: st_file({"a": entry("F8_E4M3", [1], 0, 1)}, 1), "which graphc does not have"),
    "st: twice": (lambda: tensors_header(b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"a":{}}', b"1"), "stands twice"),
    "st: metadata": (lambda: tensors_header(b'{"__metadata__":{"a":3}}'), "not text"),
    "st: deep": (lambda: tensors_header(b'{"a":' + b"[" * 100_000), "header is damaged"),
    "st: infinite": (lambda: tensors_header(b'{"a":{"dtype":"U8","shape":[Infinity],"data_offsets":[0,0]}}'), "no sizes"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_hostile_files(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(CheckpointError, match=f"^the file: .*({message})") as caught:
        loaded(make())
    assert isinstance(caught.value, RuntimeError) and isinstance(caught.value, pickle.UnpicklingError)


class Runs:
    """Pickled, it runs a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> Any:
        return self.parts


@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_in_a_file_is_run(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "ran"
    harmful = [
        Runs(os.system, f"touch {mark}"), Runs(eval, f"open({str(mark)!r}, 'w')"), Runs(exec, f"open({str(mark)!r}, 'w')"),
        Runs(open, str(mark), "w"), Runs(getattr, os, "system"), Runs(__import__, "antigravity"),
        Runs(subprocess.call, ["touch", str(mark)]),
        Runs(saved, 3), nn.Linear(2, 2), OrderedDict(a=Runs(os.mkdir, str(mark))),
    ]  # fmt: skip
    magic = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    for value in harmful:
        if isinstance(value, Runs) and value.parts[0] is getattr:
            opcodes = b"\x80\x02cbuiltins\ngetattr\ncos\nenviron\nX\x06\0\0\0system\x86R."
        else:
            opcodes = pickle.dumps(value, protocol)
        for data in (zipped([("x/data.pkl", opcodes)]), magic + opcodes + pickle.dumps([], 2)):
            for weights_only in (True, False, None):
                with pytest.raises(CheckpointError, match="which is not data that graphc reads"):
                    loaded(data, weights_only=weights_only)
    assert not mark.exists()


BOMBS = """
import io, resource, struct, sys
sys.path.insert(0, {tests!r})
import graphc
import test_checkpoints as t
t.loaded(t.saved({{"a": graphc.ones(2)}}))
pages = int(open("/proc/self/statm").read().split()[0])
view = b"ctorch._utils\\n_rebuild_tensor_v2\\nq\\x010((X\\x07\\0\\0\\0storagectorch\\nFloatStorage\\n"
view += b"X\\x01\\0\\0\\0" + b"0X\\x03\\0\\0\\0cpuK\\x04tQK\\0K\\x04\\x85K\\x01\\x85\\x89Ntq\\x020"
text = b"c_codecs\\nencode\\nq\\x010X" + struct.pack("<I", 4_000_000) + b"a" * 4_000_000 + b"\\x85q\\x020"
bombs = {{
    "sets": lambda: t.pth(b"(" + b"\\x8f" * 2_000_000 + b"t."),
    "dicts": lambda: t.pth(b"(" + b"}}" * 2_000_000 + b"t."),
    "ordered": lambda: t.pth(b"(" + b"ccollections\\nOrderedDict\\n)R" * 300_000 + b"t."),
    "marks": lambda: t.pth(b"(" * 2_000_000 + b"."),
    "lists in lists": lambda: t.pth(b"]" * 800_000 + b"a" * 799_999 + b"."),
    "memo": lambda: t.pth(b"Nr\\xff\\xff\\xff\\xff" * 1_000_000 + b"."),
    "tensors": lambda: t.pth(view + b"(" + b"h\\x01h\\x02R" * 300_000 + b"t.", bytes(16)),
    "bytes": lambda: t.pth(text + b"(" + b"h\\x01h\\x02R" * 1000 + b"t."),
    "wide string": lambda: t.pth(b"X" + struct.pack("<I", 40_000_000) + "\\U0001F600".encode() + b"a" * 39_999_996 + b"."),
    "header": lambda: t.tensors_header(b"{{" + b",".join(b'"%d":{{}}' % i for i in range(400_000)) + b"}}"),
    "header of lists": lambda: t.tensors_header(b'{{"a":[' + b"[]," * 1_000_000 + b"[]]}}"),
    "directory": lambda: t.zipped([("%d" % i, b"") for i in range(200_001)]),
    "deflated": t.deflated,
}}
for name, make in bombs.items():
    data = make()
    extra = len(data) + (300 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + extra, resource.RLIM_INFINITY))
    try:
        graphc.load(io.BytesIO(data))
        print(name, "was loaded")
    except graphc.errors.CheckpointError as error:
        print(name, "refused")
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    del data
# many names for one value: small, and stays so
laughs = t.pth(b"]q\\x00" + b"".join(b"](" + b"h%c" % i * 10 + b"eq%c" % (i + 1) for i in range(50)) + b".")
graphc.load(io.BytesIO(laughs))
"""


def test_bombs_within_300_megabytes() -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "GRAPHC_NUM_THREADS": "1"}
    code = BOMBS.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 13 and [line for line in lines if not line.endswith("refused")] == []


def damaged(data: bytes, generator: random.Random) -> Iterator[bytes]:
    for _ in range(60):
        yield data[: generator.randrange(len(data))]
        at = generator.randrange(len(data))
        yield data[:at] + bytes([data[at] ^ 1 << generator.randrange(8)]) + data[at + 1 :]
        at, count = generator.randrange(len(data)), generator.randrange(1, 9)
        yield data[:at] + generator.randbytes(count) + data[at + count :]
        yield data[:at] + data[at + count :]


def test_damage_is_an_error_or_harmless(tmp_path: Path) -> None:
    """Cut, flipped and overwritten files: what is raised is the one error (what a checksum covers always is)."""
    state = {"w": graphc.arange(4.0), "n": {"a": [1, (2.5, "x")], "p": nn.Parameter(graphc.ones(2, 2).t())}, "b": np.ones(2)}
    st.save_file({"a": graphc.ones(2, 3), "b": graphc.arange(3)}, tmp_path / "m.safetensors")
    files = [
        saved(state),
        saved(state, new=False),
        (tmp_path / "m.safetensors").read_bytes(),
        zlib.decompress(base64.b85decode(FIRST_LAYOUT)),
    ]
    parts = {name: bytes(zips.content(memoryview(files[0]), e)) for name, e in zips.entries(memoryview(files[0])).items()}
    opcodes = parts.pop("archive/data.pkl")
    generator = random.Random(4)
    refused = 0
    for whole in (*files, opcodes):
        for data in damaged(whole, generator):
            try:
                # a damaged pickle within a whole zip file: past the checksum
                repr(loaded(data if whole is not opcodes else zipped([("archive/data.pkl", data), *parts.items()])))
            except ArtifactError:
                refused += 1
    assert refused > 900  # the rest: bytes of tensors without a checksum, padding, numbers


def test_a_flipped_weight_in_a_zip_file_is_found() -> None:
    data = saved({"w": graphc.full((64,), 0.1234)})
    at = data.index(np.float32(0.1234).tobytes() * 2)
    with pytest.raises(CheckpointError, match="a CRC-32 is wrong"):
        loaded(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])


def test_the_limit_of_a_pickle_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(list(range(1000)))
    monkeypatch.setattr(pickles, "LIMIT", 10_000)
    with pytest.raises(CheckpointError, match=r"more than 10000 bytes of objects \(graphc\.checkpoints\.pickles\.LIMIT\)"):
        loaded(data)


# ---- whole modules ---------------------------------------------------------------------------------------------------


class Whole(nn.Module):
    """One of each kind of thing that modules hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.attention = nn.MultiheadAttention(4, 2)
        self.activation, self.norm_layer = nn.functional.relu, nn.BatchNorm2d
        self.register_buffer("steps", graphc.arange(3), persistent=False)


@LAYOUTS
def test_whole_modules(new: bool) -> None:
    model = Whole()
    data = saved({"model": model, "epoch": 3}, new)
    with pytest.raises(CheckpointError, match=r"weights_only=False where its class is imported"):
        loaded(data)
    with graphc.serialization.safe_globals(
        [Whole, nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.MultiheadAttention, type(model.attention.out_proj), nn.functional.relu]
    ):
        allowed = loaded(data)["model"]
    for back in (allowed, loaded(data, weights_only=False)["model"]):
        assert type(back) is Whole and repr(back) == repr(model)
        assert back.norm_layer is nn.BatchNorm2d and back.activation.__name__ == "relu" and back.steps.tolist() == [0, 1, 2]
        assert all(graphc.equal(back.state_dict()[name], x) for name, x in model.state_dict().items())
    model.forward_lambda = lambda x: x  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"save: forward_lambda is a function"):
        saved(model)


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"cposix\nsystem\nX\x04\0\0\0true\x85R.", "posix.system"),
        (b"cgraphc.testing\nload\n.", "graphc.testing.load"),
        (b"ctorch.nn\nLinear\nK\x01K\x02\x86R.", "with arguments"),
        (b"ctorch.nn\nLinear\n)\x81]b.", "no dict of attributes"),
        (b"ctorch.nn\nnever\n)\x81.", "torch.nn.never"),
    ],
)
def test_hostile_modules(pickled: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        loaded(pth(pickled), weights_only=False)
