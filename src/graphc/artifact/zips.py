"""Zip files of stored entries: where each lies, and how they are written.

Enters: the bytes of a file, or named buffers.  Leaves: places of entries, or a file.  Never here: what entries mean, compression.

`zipfile` is not used for reading: it makes an object of a kilobyte for every 46 bytes of a directory, trusts sizes, and opens
entries that overlap.  Source of the layout: PKWARE's APPNOTE 6.3.10, sections 4.3.7 to 4.3.16 and 4.5.3.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

from graphc.errors import CheckpointError

ENTRY_LIMIT = 200_000
ALIGNMENT = 64
_LOCAL, _CENTRAL, _END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_END_64, _LOCATOR = b"PK\6\6", b"PK\6\7"
_LOCAL_FORM = struct.Struct("<4s5H3I2H")
_CENTRAL_FORM = struct.Struct("<4s6H3I5H2I")
_END_FORM = struct.Struct("<4s4H2IH")
_END_64_FORM = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_FORM = struct.Struct("<4sIQI")
_FULL, _FULL_SHORT = 0xFFFFFFFF, 0xFFFF  # the true value stands in the zip64 fields
_UTF_8 = 0x800
_DATE = 0x21  # 1980-01-01: equal contents are equal bytes


class Entry(NamedTuple):
    """Where an entry's bytes begin in the file, how many there are, and their CRC-32 (0 where the writer computed none)."""

    start: int
    size: int
    crc: int


def entries(data: memoryview) -> dict[str, Entry]:
    """The entries of a zip file, in the order of its directory.

    Raises CheckpointError for a file that is cut short, and for entries that are compressed, encrypted, twice there, overlapping,
    or named like a path out of the archive.
    """
    count, start, end = _directory(data)
    found: dict[str, Entry] = {}
    spans = []
    at = start
    for _ in range(count):
        if at + _CENTRAL_FORM.size > end:
            raise CheckpointError("the zip directory is damaged")
        name, entry, begin, at = _entry(data, at, start)
        if name in found:
            raise CheckpointError(f"entry {name!r} stands twice in the zip file")
        found[name] = entry
        spans.append((begin, entry.start + entry.size))
    if at != end:
        raise CheckpointError("the zip directory is damaged")
    spans.sort()
    if any(before[1] > after[0] for before, after in itertools.pairwise(spans)):
        raise CheckpointError("entries of the zip file overlap")
    return found


def _directory(data: memoryview) -> tuple[int, int, int]:
    """(number of entries, first byte, last byte + 1) of the central directory."""
    tail = bytes(data[-(_END_FORM.size + _FULL_SHORT) :])
    found = tail.rfind(_END)
    if found < 0 or len(tail) - found < _END_FORM.size:
        raise CheckpointError("the zip file is cut short: it has no directory")
    at = len(data) - len(tail) + found
    _, disk, first_disk, _, count, size, start, comment = _END_FORM.unpack_from(data, at)
    if at + _END_FORM.size + comment != len(data) or disk not in (0, _FULL_SHORT) or first_disk not in (0, _FULL_SHORT):
        raise CheckpointError("bytes at the end of the zip file were altered")
    end = at
    if at >= _LOCATOR_FORM.size and data[at - _LOCATOR_FORM.size : at][:4] == _LOCATOR:
        end = _LOCATOR_FORM.unpack_from(data, at - _LOCATOR_FORM.size)[2]
        if end > len(data) - _END_64_FORM.size or data[end : end + 4] != _END_64:
            raise CheckpointError("bytes at the end of the zip file were altered")
        count, size, start = _END_64_FORM.unpack_from(data, end)[-3:]
    if start + size != end or count > ENTRY_LIMIT or count * _CENTRAL_FORM.size > size:
        raise CheckpointError(f"the zip directory is damaged, or has more than {ENTRY_LIMIT} entries")
    return count, start, end


def _entry(data: memoryview, at: int, limit: int) -> tuple[str, Entry, int, int]:
    """One directory entry: its name, its place, where its local header begins, and where the next directory entry begins."""
    fields = _CENTRAL_FORM.unpack_from(data, at)
    flags, method, crc = fields[3], fields[4], fields[7]
    packed, size, name_size, extra_size, comment_size = fields[8:13]
    begin = fields[16]
    after = at + _CENTRAL_FORM.size + name_size
    if fields[0] != _CENTRAL:
        raise CheckpointError("the zip directory is damaged")
    name = str(data[after - name_size : after], "utf-8", "replace")
    if _FULL in (packed, size, begin):
        wide = _wide(bytes(data[after : after + extra_size]))
        size, packed, begin = [next(wide, 0) if value == _FULL else value for value in (size, packed, begin)]
    if method or flags & 1 or packed != size:
        raise CheckpointError(f"entry {name} is compressed or encrypted")
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
        raise CheckpointError(f"entry {name!r} is named like a path out of the zip file")
    if begin + _LOCAL_FORM.size > limit:
        raise CheckpointError(f"entry {name!r} lies outside of the zip file")
    local = _LOCAL_FORM.unpack_from(data, begin)
    start = begin + _LOCAL_FORM.size + local[9] + local[10]
    if local[0] != _LOCAL or start + size > limit or data[begin + _LOCAL_FORM.size :][: local[9]] != name.encode():
        raise CheckpointError(f"entry {name!r} lies outside of the zip file, or is not what its directory says")
    return name, Entry(start, size, crc), begin, after + extra_size + comment_size


def _wide(extra: bytes) -> Iterator[int]:
    """The zip64 values among the extra fields of a directory entry, in order."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == 1 and at + 4 + size <= len(extra):
            return iter(struct.unpack_from(f"<{size // 8}Q", extra, at + 4))
        at += 4 + size
    raise CheckpointError("the zip directory is damaged")


def content(data: memoryview, entry: Entry) -> memoryview:
    """The bytes of an entry.  Raises CheckpointError where they are not those that its CRC-32 is of."""
    found = data[entry.start : entry.start + entry.size]
    if entry.crc and zlib.crc32(found) != entry.crc:
        raise CheckpointError("its bytes were altered: a CRC-32 is wrong")
    return found


def write(file: IO[bytes], parts: Iterable[tuple[str, Any]]) -> None:
    """Write (name, buffer) pairs as stored entries, the bytes of each at a multiple of 64.  Only ``file.write`` is used."""
    directory, count, at = bytearray(), 0, 0
    for name, part in parts:
        view = memoryview(part).cast("B") if memoryview(part).nbytes else memoryview(b"")
        size, crc, encoded = view.nbytes, zlib.crc32(view), name.encode()
        big = struct.pack("<2H2Q", 1, 16, size, size) if size >= _FULL else b""
        short = _FULL if big else size
        head = at + _LOCAL_FORM.size + len(encoded) + len(big)
        gap = -(head + 4) % ALIGNMENT
        extra = big + struct.pack("<2sH", b"FB", gap) + b"Z" * gap  # the filler that PyTorch writes
        version = 45 if big else 20
        local = _LOCAL_FORM.pack(_LOCAL, version, _UTF_8, 0, 0, _DATE, crc, short, short, len(encoded), len(extra))
        for piece in (local, encoded, extra, view):
            file.write(piece)
        wide = [size, size] if big else []
        wide += [at] if at >= _FULL else []
        extra_wide = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        directory += _CENTRAL_FORM.pack(
            _CENTRAL, version, version, _UTF_8, 0, 0, _DATE, crc, short, short, len(encoded), len(extra_wide), 0, 0, 0, 0,
            min(at, _FULL),
        )  # fmt: skip
        directory += encoded + extra_wide
        at = head + 4 + gap + size
        count += 1
    file.write(directory)
    size = len(directory)
    if count >= _FULL_SHORT or at + size >= _FULL:
        file.write(_END_64_FORM.pack(_END_64, _END_64_FORM.size - 12, 45, 45, 0, 0, count, count, size, at))
        file.write(_LOCATOR_FORM.pack(_LOCATOR, 0, at + size, 1))
    shown = min(count, _FULL_SHORT)
    file.write(_END_FORM.pack(_END, 0, 0, shown, shown, min(size, _FULL), min(at, _FULL), 0))
