"""The outer file: named entries, each with its hash, written whole or not at all.

Enters: entries as bytes, or a path.  Leaves: a file, or verified entries; ArtifactError for anything that is not exactly
what `write` wrote.  Never here: what the entries mean.

Layout: a zip of stored (uncompressed) entries, the last one ``manifest.json`` with format, version, and size and SHA-256
of every other.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO

from graphc.artifact import zips
from graphc.errors import ArtifactError

FORMAT = "graphc"
VERSION = 2  # of what is written
READ = (1, 2)  # version 1 has no list of programs, and no structure of state
MANIFEST = "manifest.json"
SCRIPT = "script.json"  # only a script has it
ENTRY_LIMIT = 10_000
# What zipfile and json raise, besides their own errors, for bytes that are not what they expect.
DAMAGE = (
    zipfile.BadZipFile, zipfile.LargeZipFile, struct.error, EOFError, OSError, ValueError, KeyError, TypeError,
    AttributeError, IndexError, OverflowError, NotImplementedError, RuntimeError,
)  # fmt: skip
_DATE = (1980, 1, 1, 0, 0, 0)  # no clock in the file: equal contents are equal bytes


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write beside `path` and renamed over it at the end; on any error `path` stays as it was.

    Raises OSError (disk full, no permission, a folder or device in its place).
    """
    path = os.path.realpath(os.fspath(path))  # through a link: the file it names is replaced, not the link
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EISDIR if os.path.isdir(path) else errno.EINVAL, "not a regular file", path)
    folder = os.path.dirname(path)
    handle, beside = tempfile.mkstemp(prefix=os.path.basename(path) + ".", suffix=".tmp", dir=folder)
    try:
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(handle, 0o666 & ~mask)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


Place = str | os.PathLike[str] | IO[bytes]


def write(path: Place, entries: Mapping[str, bytes]) -> None:
    """Write `entries` and their manifest to a path or an open file.  Raises OSError and leaves an existing file whole."""
    listed = {name: {"nbytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in entries.items()}
    manifest = json.dumps({"format": FORMAT, "version": VERSION, "entries": listed}, indent=1).encode()
    entries = {**entries, MANIFEST: manifest}
    if not isinstance(path, str | os.PathLike):
        whole = io.BytesIO()
        _zip(whole, entries)
        path.write(whole.getbuffer())
        return
    with replacing(path) as file:
        _zip(file, entries)


def _zip(file: IO[bytes], entries: Mapping[str, bytes]) -> None:
    """The one form that these entries have in a file."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system, info.external_attr = 3, 0o600 << 16
            archive.writestr(info, data)


def name_of(path: Place) -> str:
    """How messages name a file."""
    return os.path.basename(os.fspath(path)) if isinstance(path, str | os.PathLike) else str(getattr(path, "name", "the file"))


def read(path: Place) -> dict[str, bytes]:
    """The entries of a path or an open file, verified.  Raises ArtifactError, or OSError where the file cannot be read at all."""
    if isinstance(path, str | os.PathLike):
        with open(path, "rb") as file:
            data = file.read()
    else:
        data = path.read()
    return verified(data, name_of(path))


def verified(data: bytes, name: str) -> dict[str, bytes]:
    """The entries of a file's bytes.  Raises ArtifactError, which calls the file `name`."""
    try:
        return _read(data)
    except ArtifactError as error:
        raise ArtifactError(f"{name}: {error}") from None
    except DAMAGE as error:
        raise ArtifactError(f"{name}: not a whole graphc artifact ({error})") from None


def _read(data: bytes) -> dict[str, bytes]:
    view = memoryview(data)
    found = zips.entries(view)
    if MANIFEST not in found or len(found) > ENTRY_LIMIT:
        raise ArtifactError("no manifest, or too many entries: not a graphc artifact, or cut short")
    whole = {name: bytes(view[entry.start : entry.start + entry.size]) for name, entry in found.items()}
    manifest = json.loads(whole[MANIFEST])
    if manifest.get("format") != FORMAT:
        raise ArtifactError("the manifest is not graphc's")
    if manifest.get("version") not in READ:
        raise ArtifactError(f"format version {manifest.get('version')} is none of those that this graphc reads: {READ}")
    listed = manifest["entries"]
    if set(listed) != set(whole) - {MANIFEST}:
        raise ArtifactError("the entries are not those of the manifest")
    for entry, facts in listed.items():
        if len(whole[entry]) != facts["nbytes"] or hashlib.sha256(whole[entry]).hexdigest() != facts["sha256"]:
            raise ArtifactError(f"entry {entry} was altered")
    again = io.BytesIO()
    _zip(again, whole)
    if again.getbuffer() != data:
        raise ArtifactError("bytes outside its entries were altered")
    return {name: whole[name] for name in listed}
