"""The two layouts of PyTorch's files, read: the zip file, and the row of pickles from before version 1.6.

Enters: the bytes of a file.  Leaves: what `torch.save` was given, tensors as graphc's; CheckpointError for anything else.
Never here: opcodes (`pickles`), what names mean (`allowed`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from graphc.artifact import zips
from graphc.checkpoints import modules
from graphc.checkpoints.allowed import Kind, refused
from graphc.checkpoints.pickles import STORED, Find, Name, Unpickler
from graphc.checkpoints.tensors import Bytes, MapLocation, Stored, owned, place_of
from graphc.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
PICKLE = "data.pkl"
_ZIP_VERSIONS = range(1, 11)


def read_zip(
    data: memoryview, entries: Mapping[str, zips.Entry], map_location: MapLocation, mapped: bool, whole: bool = False
) -> Any:
    """What a zip file of PyTorch holds.

    mapped: tensors lie on the file's own (private) memory, which no checksum is made of.   whole: modules are read too.
    """
    pickles = [name for name in entries if name.rpartition("/")[2] == PICKLE and name.count("/") <= 1]
    if len(pickles) != 1:
        raise CheckpointError(f"a zip file of PyTorch has one {PICKLE}, this one has {len(pickles)}")
    root = pickles[0].removesuffix(PICKLE)
    if f"{root}constants.pkl" in entries:
        raise CheckpointError("a TorchScript archive holds code; save the state_dict() of its module")
    for name, fitting in (("byteorder", (b"little",)), ("version", tuple(b"%d\n" % v for v in _ZIP_VERSIONS))):
        found = entries.get(root + name)
        if found is not None and bytes(zips.content(data, found)).strip() not in [text.strip() for text in fitting]:
            raise CheckpointError(f"its {name} is not one that graphc reads")
    place = place_of(map_location)
    storages: dict[str, Stored] = {}

    def stored(identity: Any) -> Stored:
        kind, key, location, numel = _identity(identity, 5)
        entry = entries.get(f"{root}data/{key}")
        nbytes = numel * kind.dtype.itemsize
        if entry is None or entry.size != nbytes:
            raise CheckpointError(f"storage {key} is missing from it, or not {nbytes} bytes long")
        if key not in storages:
            reader.charge(-STORED)
            storages[key] = Stored(kind.dtype, nbytes, lambda: place(_row(data, entry, mapped), location))
        return storages[key]

    find = partial(modules.find, whole=whole)
    reader = Unpickler(zips.content(data, entries[pickles[0]]), 0, find, stored, modules.fill)
    return value_of(reader.load())


def _row(data: memoryview, entry: zips.Entry, mapped: bool) -> Bytes:
    if mapped:
        return np.frombuffer(data, np.uint8, entry.size, entry.start) if entry.size else np.empty(0, np.uint8)
    return owned(zips.content(data, entry))


def _identity(identity: Any, parts: int) -> tuple[Kind, str, str, int]:
    """(kind, key, location, number of elements) of a storage's persistent id."""
    if isinstance(identity, tuple) and identity and identity[0] == "module":
        raise refused("a whole module with its source")
    if not isinstance(identity, tuple) or len(identity) != parts or identity[0] != "storage":
        raise CheckpointError("its pickle names a storage in a way that PyTorch does not")
    _, kind, key, location, numel = identity[:5]
    if not isinstance(kind, Kind) or type(key) is not str or type(location) is not str or type(numel) is not int or numel < 0:
        raise CheckpointError("its pickle names a storage in a way that PyTorch does not")
    return kind, key, location, numel


def value_of(value: Any) -> Any:
    """The value of a whole pickle.  Raises CheckpointError for one that is only a name."""
    if isinstance(value, Name | Kind | Stored):
        raise CheckpointError("its pickle holds a name or a storage, and no tensors")
    return value


class _Views:
    """The storages of a file of the old layout: their bytes come after the pickle that names them, so tensors are made late."""

    def __init__(self, place: Callable[[Bytes, str], Bytes]) -> None:
        self.place = place
        self.readers: list[Unpickler] = []
        self.storages: dict[str, Stored] = {}
        self.rows: dict[str, Bytes] = {}

    def stored(self, identity: Any) -> Stored | Name:
        """A storage by its persistent id; what stands for a module's class, its source, is not read."""
        if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module" and isinstance(identity[1], Name):
            return identity[1]
        kind, key, location, numel = _identity(identity, 6)
        if identity[5] is not None:
            raise CheckpointError("its storages are views of others, as versions before 0.4 wrote them")
        nbytes = numel * kind.dtype.itemsize
        if key not in self.storages:
            for reader in self.readers:
                reader.charge(-STORED)
            self.storages[key] = Stored(kind.dtype, nbytes, lambda: self.place(self.rows[key], location))
        if self.storages[key].nbytes != nbytes:
            raise CheckpointError(f"storage {key} has two sizes")
        return self.storages[key]


def is_legacy(data: memoryview) -> bool:
    """Whether a file begins as those of the old layout do."""
    return bytes(data[:1]) == b"\x80" and MAGIC.to_bytes(10, "little") in bytes(data[:32])


def read_legacy(data: memoryview, map_location: MapLocation, whole: bool = False) -> tuple[Any, int]:
    """What a file of the old layout holds, and where it ends.

    The bytes of storages stand behind the pickle that needs them.  So it is read twice: once to find its end and the storages'
    types, with tensors left out, and again with the bytes there.
    """
    views = _Views(place_of(map_location))
    find = partial(modules.find, whole=whole)
    reader = Unpickler(data, 0, find, views.stored, modules.fill)
    if reader.load() != MAGIC or reader.load() != PROTOCOL:
        raise CheckpointError("not a file of PyTorch's old layout, or of another version of it")
    facts = reader.load()
    if not isinstance(facts, dict) or facts.get("little_endian") is not True:
        raise CheckpointError("its byte order is not little-endian")
    start = reader.at
    scan = Unpickler(data, start, _without_tensors(find), views.stored, lambda target, state: True)
    views.readers = [reader, scan]
    scan.load()
    keys = scan.load()
    if not isinstance(keys, list) or any(type(k) is not str for k in keys) or sorted(keys) != sorted(views.storages):
        raise CheckpointError("its storages are not those that its pickle names")
    at = scan.at
    for key in keys:
        nbytes = views.storages[key].nbytes
        count = int.from_bytes(data[at : at + 8], "little")
        if count * views.storages[key].dtype.itemsize != nbytes or at + 8 + nbytes > len(data):
            raise CheckpointError(f"storage {key} is cut short, or has another size than its pickle says")
        views.rows[key] = owned(data[at + 8 : at + 8 + nbytes])
        at += 8 + nbytes
    reader.at = start
    return value_of(reader.load()), at


def _without_tensors(find: Find) -> Find:
    """`find` for the first reading: what is called makes nothing, but for the dicts that items are put into."""

    def named(module: str, name: str) -> Any:
        found = find(module, name)
        if not isinstance(found, Name) or module == "collections":
            return found
        return Name(found.text, found.make and (lambda *_: None), found.value)

    return named
