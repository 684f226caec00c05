"""Files between PyTorch and graphc, in both layouts and both directions: every dtype, layout and kind of value, and training that
goes on from the other's file."""

from __future__ import annotations

import argparse
import io
import warnings
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.safetensors as st
from graphc import dtypes
from graphc.errors import CheckpointError

torch = pytest.importorskip("torch")

LAYOUTS = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])


def through(value: Any, write: Any, read: Any, new: bool = True, **how: Any) -> Any:
    """`value` written by one side and read by the other."""
    file = io.BytesIO()
    write(value, file, _use_new_zipfile_serialization=new)
    file.seek(0)
    return read(file, **how)


def from_torch(value: Any, new: bool = True, **how: Any) -> Any:
    return through(value, torch.save, graphc.load, new, **how)


def to_torch(value: Any, new: bool = True, weights_only: bool = True) -> Any:
    return through(value, graphc.save, torch.load, new, weights_only=weights_only)


def same(mine: Any, theirs: Any) -> bool:
    """Whether a tensor of each side has the same dtype, shape, strides, offset and bytes."""
    dtype = str(mine.dtype).removeprefix("graphc.") == str(theirs.dtype).removeprefix("torch.")
    raw = theirs.detach().contiguous().reshape(-1).view(torch.uint8) if theirs.numel() else torch.empty(0, dtype=torch.uint8)
    strides = (
        tuple(mine.stride()) == tuple(theirs.stride()) and mine.storage_offset() == theirs.storage_offset() or not theirs.numel()
    )
    shape = tuple(mine.shape) == tuple(theirs.shape)
    return dtype and shape and strides and mine.detach().numpy().tobytes() == raw.numpy().tobytes()


def views(x: Any) -> list[Any]:
    return [
        x,
        x.t(),
        x[1:],
        x[:, 1],
        x[1, 2],
        x[:0],
        x.expand(2, 3, 4),
        x.flatten()[1::3],
        x.reshape(1, 3, 2, 2).permute(0, 3, 1, 2),
    ]


@LAYOUTS
@pytest.mark.parametrize("name", [d.name for d in dtypes.ALL])
def test_tensors_of_every_dtype(name: str, new: bool) -> None:
    mine = views(graphc.arange(12).reshape(3, 4).to(getattr(graphc, name)))
    theirs = views(torch.arange(12).reshape(3, 4).to(getattr(torch, name)))
    read = from_torch(theirs, new)
    assert all(map(same, read, theirs)) and len({id(x._storage) for x in read}) == 1
    written = to_torch(mine, new)
    assert all(map(same, mine, written)) and len({x.untyped_storage().data_ptr() for x in written}) == 1


def values(t: Any) -> list[Any]:
    """The same values with one side's classes."""
    return [
        None, True, 255, 65536, -1, 2**70, -(2**63), 0.5, "é", b"\x00\xff", bytearray(b"ab"), 1 + 2j, (), (1, (2,)), [1, [2]],
        {"a": {1: (2, None)}}, {1, 2}, OrderedDict(b=1, a=2), Counter("aab"), t.float32, t.uint16, t.bool,
        t.device("cuda", 1), t.device("cpu"),
        t.Size([2, 3]), t.strided, list(range(2500)), {str(i): i for i in range(2500)}, {(1, "x"): 3, None: 4},
    ]  # fmt: skip


@LAYOUTS
def test_values(new: bool) -> None:
    def shown(value: Any) -> str:
        return f"{type(value).__name__} {value!r}".replace("graphc.", "torch.").replace("DType ", "dtype ")

    for mine, theirs in zip(values(graphc), values(torch), strict=True):
        assert shown(from_torch(theirs, new)) == shown(mine)
        assert shown(to_torch(mine, new)) == shown(theirs)


def test_values_that_only_full_pickles_have() -> None:
    """PyTorch reads these with ``weights_only=False``; here they are data like any other."""
    values = [np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3).T, np.float64(2.5), np.bool_(True), np.array(["é", "ab"])]
    values += [argparse.Namespace(lr=0.1), defaultdict(list, a=[1]), frozenset({3}), np.random.RandomState(3).get_state()]
    for value in values:
        for back in (from_torch(value), to_torch(value, weights_only=False)):
            assert type(back) is type(value) and repr(back) == repr(value)


@LAYOUTS
def test_parameters(new: bool) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 3))
    noted = torch.nn.Parameter(torch.zeros(2), requires_grad=False)
    noted.note = "kept"
    back = from_torch({"w": weight, "same": weight, "noted": noted, "g": torch.ones(1, requires_grad=True)}, new)
    assert (
        back["w"] is back["same"] and type(back["w"]) is graphc.nn.Parameter and back["w"].requires_grad and back["g"].requires_grad
    )
    assert type(back["noted"]) is graphc.nn.Parameter and not back["noted"].requires_grad and back["noted"].note == "kept"
    again = to_torch(back, new)
    assert again["w"] is again["same"] and type(again["w"]) is torch.nn.Parameter and again["g"].requires_grad
    assert type(again["noted"]) is torch.nn.Parameter and again["noted"].note == "kept"


class Elsewhere:
    """Pickled as a tensor on a device that this build of PyTorch does not have."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return self.parts


def test_unusual_tensors() -> None:
    z = torch.tensor([1 + 2j, 3 - 1j])
    assert from_torch(z.conj()).tolist() == z.conj().tolist() and from_torch(z.conj().imag).tolist() == z.conj().imag.tolist()
    noted = torch.ones(2)
    noted.note = 3
    with pytest.warns(UserWarning, match="attributes of a tensor"):
        assert from_torch(noted).tolist() == [1, 1]
    x = torch.arange(4.0)
    for data, name in ((np.arange(3.0), "_rebuild_device_tensor_from_numpy"), (x[:3], "_rebuild_device_tensor_from_cpu_tensor")):
        elsewhere = Elsewhere(getattr(torch._utils, name), (data, torch.float32, "xla:0", True))
        back = from_torch(elsewhere)
        assert back.tolist() == [0, 1, 2] and back.dtype is graphc.float32 and back.requires_grad
    last = torch.ones(1, 3, 2, 2).to(memory_format=torch.channels_last)
    assert same(from_torch(last), last)
    assert from_torch({"a": x, "b": x.view(torch.float32)})["b"].tolist() == x.tolist()


@LAYOUTS
def test_what_is_refused_here_too(new: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused = {
            "_rebuild_sparse_tensor": torch.eye(3).to_sparse(),
            "_rebuild_qtensor": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
            "float8_e5m2": torch.ones(2).to(torch.float8_e5m2),
            "_rebuild_meta_tensor_no_storage": torch.empty(2, device="meta"),
        }
        for name, value in refused.items():
            file = io.BytesIO()
            torch.save({"x": value}, file, _use_new_zipfile_serialization=new)
            file.seek(0)
            with pytest.raises(CheckpointError, match=name):
                graphc.load(file, weights_only=False)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_other_protocols_and_no_checksums(protocol: int) -> None:
    value = {"a": torch.arange(3.0), "b": (b"xy", {1}, np.arange(3)), "c": bytearray(b"q")}
    before = torch.serialization.get_crc32_options()
    try:
        for checked in (True, False):
            torch.serialization.set_crc32_options(checked)
            file = io.BytesIO()
            torch.save(value, file, pickle_protocol=protocol)
            file.seek(0)
            back = graphc.load(file)
            assert back["a"].tolist() == [0, 1, 2] and back["b"][:2] == value["b"][:2] and back["c"] == value["c"]
            assert np.array_equal(back["b"][2], value["b"][2])
    finally:
        torch.serialization.set_crc32_options(before)


def test_places(tmp_path: Path) -> None:
    """`map_location` is called with the same bytes and locations; a mapped file has the same tensors."""
    torch.save({"a": torch.arange(4.0), "b": torch.ones(3, dtype=torch.int16)}, tmp_path / "x.pt")
    seen: dict[str, list[Any]] = {"mine": [], "theirs": []}
    for side, load in (("mine", graphc.load), ("theirs", torch.load)):
        load(tmp_path / "x.pt", lambda storage, place, side=side: seen[side].append((storage.nbytes(), place)))
        for where in ("cpu", {"cpu": "cpu", "cuda:0": "cpu"}, None):
            assert load(tmp_path / "x.pt", where)["a"].tolist() == [0, 1, 2, 3]
        mapped = load(tmp_path / "x.pt", mmap=True, weights_only=True)
        mapped["b"][0] = 7
        assert mapped["b"].tolist() == [7, 1, 1] and load(tmp_path / "x.pt")["b"].tolist() == [1, 1, 1]
        with pytest.raises(ValueError, match="f must be a"):
            load(io.BytesIO((tmp_path / "x.pt").read_bytes()), mmap=True)
    assert seen["mine"] == seen["theirs"] and len(seen["mine"]) == 2


def test_files_that_each_side_finds_by_path(tmp_path: Path) -> None:
    graphc.save({"a": graphc.arange(1000.0)}, tmp_path / "x.pth")
    assert torch.load(tmp_path / "x.pth", mmap=True)["a"].sum().item() == 499500
    names = torch._C.PyTorchFileReader(str(tmp_path / "x.pth")).get_all_records()
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "y.pth")
    assert set(names) <= set(torch._C.PyTorchFileReader(str(tmp_path / "y.pth")).get_all_records())


# ---- training that goes on --------------------------------------------------------------------------------------------


def trained(t: Any) -> tuple[Any, Any]:
    """A model with buffers and its optimizer, of one side."""
    t.manual_seed(0)
    layers = [
        t.nn.Conv2d(1, 4, 3),
        t.nn.BatchNorm2d(4),
        t.nn.ReLU(),
        t.nn.Flatten(),
        t.nn.Linear(64, 8),
        t.nn.LayerNorm(8),
        t.nn.Linear(8, 1),
    ]
    model = t.nn.Sequential(*layers)
    return model, t.optim.Adam(model.parameters(), lr=0.01)


def losses(t: Any, model: Any, optimizer: Any, first: int, last: int) -> list[float]:
    found = []
    for k in range(first, last):
        x = t.tensor(np.random.default_rng(k).standard_normal((8, 1, 6, 6)).astype(np.float32))
        optimizer.zero_grad()
        loss = (model(x) - x.mean(dim=(1, 2, 3)).reshape(8, 1)).square().mean()
        loss.backward()
        optimizer.step()
        found.append(float(loss.item()))
    return found


@LAYOUTS
@pytest.mark.parametrize("direction", ["from PyTorch", "to PyTorch"])
def test_training_goes_on_from_the_others_file(direction: str, new: bool, tmp_path: Path) -> None:
    first, second = (torch, graphc) if direction == "from PyTorch" else (graphc, torch)
    model, optimizer = trained(first)
    losses(first, model, optimizer, 0, 5)
    path = tmp_path / "checkpoint.pt"
    first.save(
        {"epoch": 5, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, path, _use_new_zipfile_serialization=new
    )
    other, its = trained(second)
    state = second.load(path, weights_only=True)
    assert list(other.state_dict()) == list(state["model"]) and state["epoch"] == 5
    other.load_state_dict(state["model"])
    its.load_state_dict(state["optimizer"])
    np.testing.assert_allclose(losses(second, other, its, 5, 25), losses(first, model, optimizer, 5, 25), rtol=1e-4)


# ---- safetensors -----------------------------------------------------------------------------------------------------


def test_safetensors_between_both(tmp_path: Path) -> None:
    theirs_of = pytest.importorskip("safetensors.torch")
    names = [d.name for d in dtypes.ALL if d is not dtypes.complex128]
    theirs = {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in names}
    theirs_of.save_file(theirs, tmp_path / "t.safetensors", {"format": "pt"})
    read = st.load_file(tmp_path / "t.safetensors")
    assert read.keys() == theirs.keys() and all(same(read[name], theirs[name]) for name in theirs)
    st.save_file(read, tmp_path / "m.safetensors", {"format": "pt"})
    again = theirs_of.load_file(tmp_path / "m.safetensors")
    assert again.keys() == theirs.keys() and all(same(read[name], again[name]) for name in theirs)
    model = torch.nn.Linear(3, 2)
    theirs_of.save_model(model, str(tmp_path / "model.safetensors"))
    mine = graphc.nn.Linear(3, 2)
    assert st.load_model(mine, tmp_path) == ([], []) and same(mine.weight, model.weight)
    st.save_model(mine, tmp_path / "back.safetensors")
    with torch.no_grad():
        model.weight.zero_()
    assert theirs_of.load_model(model, tmp_path / "back.safetensors") == (set(), []) and same(mine.weight, model.weight)


# ---- whole modules ---------------------------------------------------------------------------------------------------

WHOLE = {
    "a sequence": lambda nn: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)),
    "an LSTM": lambda nn: nn.LSTM(4, 6, 2),
    "attention": lambda nn: nn.TransformerEncoderLayer(4, 2, 8),
}


@LAYOUTS
@pytest.mark.parametrize("name", WHOLE)
def test_whole_modules(name: str, new: bool) -> None:
    theirs = WHOLE[name](torch.nn).eval()
    mine = from_torch(theirs, new, weights_only=False)
    assert repr(mine) == repr(theirs)
    x = np.random.default_rng(0).standard_normal((5, 4), np.float32)
    outputs = [out[0] if isinstance(out, tuple) else out for out in (mine(graphc.tensor(x)), theirs(torch.tensor(x)))]
    np.testing.assert_allclose(outputs[0].detach().numpy(), outputs[1].detach().numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(CheckpointError, match=r"weights_only=False where its class is imported"):
        from_torch(theirs, new)


@LAYOUTS
def test_whole_modules_written_here(new: bool) -> None:
    mine = WHOLE["a sequence"](graphc.nn).eval()
    theirs = to_torch(mine, new, weights_only=False)
    assert repr(theirs) == repr(mine)
    x = np.random.default_rng(0).standard_normal((5, 4), np.float32)
    np.testing.assert_allclose(
        theirs(torch.tensor(x)).detach().numpy(), mine(graphc.tensor(x)).detach().numpy(), rtol=1e-5, atol=1e-6
    )
