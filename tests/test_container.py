"""The container: whole, unaltered files are read; every other file is one clear error; writing is all or nothing."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphc.artifact import container
from graphc.errors import ArtifactError

ENTRIES = {"graph.gct": b"graph @f() {\n  return\n}", "native/code.o": bytes(range(256)) * 5, "empty": b""}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "x.gc"
    container.write(file, ENTRIES)
    return file


Parts = list[tuple[zipfile.ZipInfo, bytes]]


def rewritten(path: Path, change: Callable[[Parts], None], manifest: dict[str, object] | None = None) -> None:
    """Write the zip again after `change` of its (info, content) list; `manifest` updates fields of the manifest."""
    with zipfile.ZipFile(path) as archive:
        parts = [(info, archive.read(info)) for info in archive.infolist()]
    if manifest is not None:
        info, content = parts.pop()
        parts.append((info, json.dumps({**json.loads(content), **manifest}).encode()))
    change(parts)
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in parts:
            archive.writestr(info, content)


def test_entries_come_back(path: Path) -> None:
    assert container.read(path) == ENTRIES
    assert container.read(str(path)) == ENTRIES


def test_equal_entries_are_equal_bytes(path: Path, tmp_path: Path) -> None:
    container.write(tmp_path / "y.gc", ENTRIES)
    assert (tmp_path / "y.gc").read_bytes() == path.read_bytes()


def test_a_file_cut_short(path: Path) -> None:
    data = path.read_bytes()
    for twentieth in range(20):
        path.write_bytes(data[: len(data) * twentieth // 20])
        with pytest.raises(ArtifactError, match=r"x\.gc"):
            container.read(path)
    path.write_bytes(data[:-1])
    with pytest.raises(ArtifactError, match=r"x\.gc"):
        container.read(path)


@pytest.mark.parametrize("entry", [*(name for name, content in ENTRIES.items() if content), container.MANIFEST])
def test_a_byte_flipped_in_an_entry(path: Path, entry: str) -> None:
    with zipfile.ZipFile(path) as archive:
        content = archive.read(entry)
        at = path.read_bytes().index(content) + len(content) // 2
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"x\.gc"):
        container.read(path)


def test_any_byte_flipped_is_an_error_or_harmless(path: Path) -> None:
    """Zip has bytes without meaning (times, attributes): then the entries are the very same.  Nothing else is ever raised."""
    data = path.read_bytes()
    refused = 0
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        try:
            assert container.read(path) == ENTRIES
        except ArtifactError as error:
            refused += str(error).startswith("x.gc: ")
    assert refused > len(data) // 2


def test_an_entry_whose_checksum_was_made_to_fit(path: Path) -> None:
    """The zip's own CRC is right; the manifest's hash is what counts."""

    def change(parts: Parts) -> None:
        parts[0] = (parts[0][0], parts[0][1].replace(b"@f", b"@g"))

    rewritten(path, change)
    with pytest.raises(ArtifactError, match=r"x\.gc: entry graph\.gct was altered"):
        container.read(path)


def test_entries_added_removed_or_doubled(path: Path) -> None:
    data = path.read_bytes()
    rewritten(path, lambda parts: parts.insert(0, (zipfile.ZipInfo("more"), b"")))
    with pytest.raises(ArtifactError, match="not those of the manifest"):
        container.read(path)
    path.write_bytes(data)
    rewritten(path, lambda parts: parts.__delitem__(1))
    with pytest.raises(ArtifactError, match="not those of the manifest"):
        container.read(path)
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="Duplicate name"):
        rewritten(path, lambda parts: parts.insert(0, parts[0]))
    with pytest.raises(ArtifactError, match="stands twice"):
        container.read(path)
    path.write_bytes(data)
    rewritten(path, lambda parts: parts.__delitem__(-1))
    with pytest.raises(ArtifactError, match="no manifest"):
        container.read(path)


def test_too_many_entries(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "ENTRY_LIMIT", len(ENTRIES))
    with pytest.raises(ArtifactError, match="too many"):
        container.read(path)


def test_a_compressed_entry(path: Path) -> None:
    def change(parts: Parts) -> None:
        parts[1][0].compress_type = zipfile.ZIP_DEFLATED

    rewritten(path, change)
    with pytest.raises(ArtifactError, match=r"native/code\.o is compressed"):
        container.read(path)


def test_entries_that_overlap(path: Path) -> None:
    """A zip bomb's trick: many directory records of one and the same data."""
    data = path.read_bytes()
    directory = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", directory + 4)
    first_offset = data[directory + 42 : directory + 46]
    path.write_bytes(data[: second + 42] + first_offset + data[second + 46 :])
    with pytest.raises(ArtifactError, match=r"x\.gc"):
        container.read(path)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"version": container.VERSION + 1}, r"format version 3 is none of those that this graphc reads"),
        ({"version": None}, r"format version None"),
        ({"format": "other"}, r"not graphc's"),
        ({"entries": []}, r"not those of the manifest"),
        ({"entries": 3}, r"not a whole graphc artifact"),
        ({"entries": dict.fromkeys(ENTRIES, 1)}, r"not a whole graphc artifact"),
        ({"entries": {name: {"nbytes": 0, "sha256": hashlib.sha256().hexdigest()} for name in ENTRIES}}, r"was altered"),
    ],
)
def test_a_manifest_that_says_something_else(path: Path, manifest: dict[str, object], message: str) -> None:
    rewritten(path, lambda parts: None, manifest)
    with pytest.raises(ArtifactError, match=rf"x\.gc: .*{message}"):
        container.read(path)


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b"{", b"\xff", b"[" * 100_000], ids=range(6))
def test_a_manifest_that_is_not_one(path: Path, content: bytes) -> None:
    rewritten(path, lambda parts: parts.__setitem__(-1, (parts[-1][0], content)))
    with pytest.raises(ArtifactError, match=r"x\.gc"):
        container.read(path)


def other_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "a")
    return buffer.getvalue()


@pytest.mark.parametrize("content", [b"", b"graphc", b"PK\x03\x04", b"\x80\x04K\x01.", other_zip()], ids=range(5))
def test_a_file_of_another_kind(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"x\.gc"):
        container.read(path)


def test_a_path_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        container.read(tmp_path / "none.gc")
    with pytest.raises(IsADirectoryError):
        container.read(tmp_path)


# ---- writing ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB (skipped where this user may not mount one: the next test covers the same path by force)."""
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)  # the system calls: PATH may be empty
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=64k"):
        pytest.skip(f"this user may not mount a file system ({os.strerror(ctypes.get_errno())})")
    yield folder
    assert libc.umount2(os.fsencode(folder), 0) == 0


def test_a_full_disk_leaves_the_old_file(small_disk: Path) -> None:
    path = small_disk / "x.gc"
    container.write(path, ENTRIES)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        container.write(path, {"large": bytes(1 << 17)})
    assert container.read(path) == ENTRIES
    assert os.listdir(small_disk) == ["x.gc"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_error_while_writing_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        container.write(path, {"other": b"1"})
    monkeypatch.undo()
    assert container.read(path) == ENTRIES
    assert os.listdir(path.parent) == ["x.gc"]


def test_an_error_in_the_middle_of_writing(path: Path) -> None:
    def interrupted() -> None:
        with container.replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert container.read(path) == ENTRIES
    assert os.listdir(path.parent) == ["x.gc"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        container.write(tmp_path / "none" / "x.gc", ENTRIES)


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        container.write(tmp_path / "x.gc", ENTRIES)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "x.gc").stat().st_mode) == 0o640


def test_a_link_keeps_pointing_to_the_file(path: Path) -> None:
    link = path.parent / "link.gc"
    link.symlink_to("x.gc")
    container.write(link, {"new": b"2"})
    assert link.is_symlink()
    assert container.read(path) == {"new": b"2"}


def test_every_byte_of_the_file_counts(path: Path) -> None:
    """Headers and the directory too, though no entry is in them, and bytes after the end."""
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ArtifactError, match=r"^x\.gc: "):
            container.read(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ArtifactError, match="bytes at the end of the zip file were altered"):
        container.read(path)


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a regular file"):
        container.write(pipe, ENTRIES)
    with pytest.raises(IsADirectoryError):
        container.write(tmp_path, ENTRIES)
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)
    assert os.listdir(tmp_path) == ["pipe"]
