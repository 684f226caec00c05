"""Files of safetensors, with the names of the package of that name: whole, lazily, in shards, and straight into modules.

Enters: tensors, paths.  Leaves: files, tensors.  Never here: the format (`artifact.weights`).
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from graphc.artifact import container, weights
from graphc.checkpoints.shards import checked_index, nbytes_of, split
from graphc.dtypes import from_numpy
from graphc.eager.devices import check_device
from graphc.eager.tensor import Tensor, wrap
from graphc.errors import CheckpointError, at_user_line
from graphc.nn.module import Module

Path = str | os.PathLike[str]
INDEX = ".index.json"
_WHOLE = "model.safetensors"


def tensors_of(data: memoryview, copy: bool = True) -> dict[str, Tensor]:
    """The tensors of a whole file's bytes, or on them.  Raises CheckpointError."""
    header = weights.read_header(data)
    return {name: _tensor(data, name, item, copy) for name, item in header.items.items()}


def _tensor(data: memoryview, name: str, item: weights.Item, copy: bool = True) -> Tensor:
    array = weights.array_of(data, name, item)
    aligned = array.ctypes.data % array.itemsize == 0
    return _alone(weights.copied(array) if copy or not aligned or array.dtype.kind == "b" else array)


def _alone(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor on memory that nobody else has."""
    return wrap(array, from_numpy(array.dtype))


def _mapped(path: Path) -> memoryview:
    """The bytes of a file, read when they are used."""
    with open(path, "rb") as file:
        if not os.path.isfile(path) or not os.fstat(file.fileno()).st_size:
            return memoryview(file.read())
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


# ---- reading ---------------------------------------------------------------------------------------------------------


def load_file(filename: Path, device: Any = "cpu") -> dict[str, Tensor]:
    """The tensors of a file, of the shards of an index (``model.safetensors.index.json``), or of a folder with either, by name.

    Raises CheckpointError for damaged files and dtypes that graphc does not have (float8), OSError, and as ``Tensor.to`` for
    another device.
    """
    check_device(device)
    return {name: _tensor(data, name, item) for name, (data, item) in _places(filename).items()}


def load(data: bytes) -> dict[str, Tensor]:
    """The tensors of a file's bytes, by name.  Raises CheckpointError."""
    return tensors_of(memoryview(data))


def _places(path: Path) -> dict[str, tuple[memoryview, weights.Item]]:
    """Where each tensor of a file, an index or a folder lies."""
    path = os.fspath(path)
    if os.path.isdir(path):
        whole = os.path.join(path, _WHOLE)
        path = whole if os.path.exists(whole) else whole + INDEX
    name = os.path.basename(path)
    try:
        if not name.endswith(".json"):
            data = _mapped(path)
            return {tensor: (data, item) for tensor, item in weights.read_header(data).items.items()}
        index = checked_index(weights.parsed(_mapped(path)))
        shards = {shard: _places(os.path.join(os.path.dirname(path), shard)) for shard in dict.fromkeys(index.values())}
        missing = [tensor for tensor, shard in index.items() if tensor not in shards[shard]]
        if missing:
            raise CheckpointError(f"shard {index[missing[0]]} does not hold {missing[0]!r}, as the index says")
        return {tensor: shards[shard][tensor] for tensor, shard in index.items()}
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name}: no index of shards ({error})") from None


class Slice:
    """One tensor of an open file; an index reads its part of it."""

    def __init__(self, data: memoryview, name: str, item: weights.Item) -> None:
        self._array, self._dtype = weights.array_of(data, name, item), item.dtype

    def get_shape(self) -> list[int]:
        """The tensor's sizes."""
        return list(self._array.shape)

    def get_dtype(self) -> str:
        """The format's name, such as ``F32``."""
        return self._dtype

    def __getitem__(self, index: Any) -> Tensor:
        return _alone(weights.copied(np.asarray(self._array[index])))


class safe_open:
    """An open file whose tensors are read one by one: ``with safe_open("model.safetensors", framework="pt") as f``.

    framework is accepted, tensors are graphc's.  Raises CheckpointError for a damaged file, OSError, and as ``Tensor.to`` for
    another device.
    """

    def __init__(self, filename: Path, framework: str = "pt", device: Any = "cpu") -> None:
        check_device(device)
        self._data: memoryview | None = _mapped(filename)
        try:
            self._header = weights.read_header(self._data)
        except CheckpointError as error:
            raise CheckpointError(f"{os.path.basename(os.fspath(filename))}: {error}") from None

    def __enter__(self) -> safe_open:
        return self

    def __exit__(self, *_: object) -> None:
        self._data = None

    def keys(self) -> list[str]:
        """The names of the tensors."""
        return sorted(self._header.items)

    def offset_keys(self) -> list[str]:
        """The names of the tensors in the order of their bytes."""
        return list(self._header.items)

    def metadata(self) -> dict[str, str] | None:
        """The file's notes, or None."""
        return self._header.metadata or None

    def get_tensor(self, name: str) -> Tensor:
        """One tensor, in memory of its own.  Raises CheckpointError for an unknown name, or a dtype graphc does not have."""
        return _tensor(*self._place(name))

    def get_slice(self, name: str) -> Slice:
        """One tensor, of which an index reads a part: ``f.get_slice(name)[:, :10]``.  Raises as `get_tensor`."""
        return Slice(*self._place(name))

    def _place(self, name: str) -> tuple[memoryview, str, weights.Item]:
        if self._data is None:
            raise CheckpointError(at_user_line("the file is closed"))
        if name not in self._header.items:
            raise CheckpointError(at_user_line(f"the file does not contain tensor {name!r}"))
        return self._data, name, self._header.items[name]


# ---- writing ---------------------------------------------------------------------------------------------------------


def _arrays(tensors: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of tensors by name.  Raises TypeError for anything else, RuntimeError for tensors that share memory."""
    if not isinstance(tensors, Mapping):
        raise TypeError(at_user_line(f"safetensors hold a dict of tensors by name, not a {type(tensors).__name__}"))
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TypeError(at_user_line(f"safetensors hold tensors by name, but {name!r} is a {type(tensor).__name__}"))
    shared = [names for names in _sharing(tensors) if len(names) > 1]
    if shared:
        raise RuntimeError(
            at_user_line(f"tensors share memory, which safetensors cannot say: {shared}; use save_model, or clone() all but one")
        )
    return {name: tensor.detach().numpy_view() for name, tensor in tensors.items()}


def _sharing(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Names in groups whose tensors overlap in memory."""
    groups: dict[int, list[list[str]]] = {}
    for name, tensor in tensors.items():
        found = groups.setdefault(id(tensor._storage), [])
        for group in found:
            if any(np.may_share_memory(tensors[other].numpy_view(), tensor.numpy_view()) for other in group):
                group.append(name)
                break
        else:
            found.append([name])
    return [group for found in groups.values() for group in found]


def _checked_metadata(metadata: Any) -> dict[str, str]:
    if any(type(text) is not str for pair in (metadata or {}).items() for text in pair):
        raise TypeError(at_user_line("metadata of safetensors is a dict of strings"))
    return dict(metadata or {})


def save_file(
    tensors: Mapping[str, Tensor], filename: Path, metadata: dict[str, str] | None = None, max_shard_size: int | str | None = None
) -> None:
    """Write tensors by name; with `max_shard_size` (bytes, ``"5GB"``) more than that as numbered shards with an index beside them.

    filename: ``model.safetensors`` becomes ``model-00001-of-00002.safetensors``, ... and ``model.safetensors.index.json``.
    Raises TypeError for what is no dict of tensors and for complex128, RuntimeError for tensors that share memory, OSError.
    Files are replaced as a whole.  Tensors need not be contiguous.
    """
    arrays, metadata, path = _arrays(tensors), _checked_metadata(metadata), os.fspath(filename)
    limit = None if max_shard_size is None else nbytes_of(max_shard_size)
    parts = split({name: array.nbytes for name, array in arrays.items()}, limit) if limit else [list(arrays)]
    if len(parts) == 1:
        _write(path, arrays, metadata)
        return
    stem, extension = os.path.splitext(path)
    places = [f"{stem}-{i + 1:05}-of-{len(parts):05}{extension}" for i in range(len(parts))]
    for place, names in zip(places, parts, strict=True):
        _write(place, {name: arrays[name] for name in names}, metadata)
    table = {name: os.path.basename(place) for place, names in zip(places, parts, strict=True) for name in names}
    total = sum(array.nbytes for array in arrays.values())
    text = json.dumps({"metadata": {**metadata, "total_size": total}, "weight_map": table}, indent=2)
    with container.replacing(path + INDEX) as file:
        file.write(text.encode() + b"\n")


def _write(path: str, arrays: Mapping[str, np.ndarray[Any, Any]], metadata: dict[str, str]) -> None:
    pieces = _pieces(arrays, metadata)
    with container.replacing(path) as file:
        for piece in pieces:
            file.write(piece)


def _pieces(arrays: Mapping[str, np.ndarray[Any, Any]], metadata: dict[str, str]) -> Iterable[bytes | memoryview]:
    try:
        return weights.pieces(arrays, metadata)
    except (TypeError, ValueError) as error:
        raise type(error)(at_user_line(str(error))) from None


def save(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a file of tensors by name.  Raises as `save_file`."""
    return b"".join(_pieces(_arrays(tensors), _checked_metadata(metadata)))


# ---- modules ---------------------------------------------------------------------------------------------------------


def save_model(
    model: Module, filename: Path, metadata: dict[str, str] | None = None, max_shard_size: int | str | None = None
) -> None:
    """Write a module's state dict; of tensors that share memory the largest is written, and the metadata says who it stands for.

    Raises RuntimeError for tensors that overlap without being the same elements, OSError.
    """
    state = model.state_dict()
    metadata = _checked_metadata(metadata)
    kept = {}
    for names in _sharing(state):
        first = max(names, key=lambda name: state[name].numel())
        for name in names:
            if name != first and not state[name].is_set_to(state[first]):
                raise RuntimeError(at_user_line(f"save_model: {name} and {first} overlap in memory but are not the same tensor"))
            if name != first:
                metadata[name] = first
        kept[first] = state[first]
    save_file({name: kept[name] for name in state if name in kept}, filename, metadata, max_shard_size)


def load_model(model: Module, filename: Path, strict: bool = True, device: Any = "cpu") -> tuple[list[str], list[str]]:
    """Copy the tensors of a file, an index or a folder into a module, straight from the file's memory.

    Gives the names that the module has and the file lacks (but for tensors tied to one that it has), and the other way round.
    Raises RuntimeError where there are such names and `strict`, and for shapes that differ; then nothing has been copied.
    CheckpointError, OSError as `load_file`.
    """
    check_device(device)
    given = {name: _tensor(data, name, item, copy=False) for name, (data, item) in _places(filename).items()}
    own = model.state_dict()
    tied = {name for names in _sharing(own) if any(name in given for name in names) for name in names}
    missing = [name for name in own if name not in given and name not in tied]
    unexpected = [name for name in given if name not in own]
    if strict and (missing or unexpected):
        listed = [f"\n    {what} key(s): {names}" for what, names in (("Missing", missing), ("Unexpected", unexpected)) if names]
        raise RuntimeError(at_user_line(f"Error(s) in loading state_dict for {type(model).__name__}:{''.join(listed)}"))
    model.load_state_dict(given, strict=False)
    return missing, unexpected


__all__ = [
    "load", "load_file", "load_model", "safe_open", "save", "save_file", "save_model",
]  # fmt: skip
