"""Content-addressed disk cache of compiled objects, shared safely between processes.

Enters: a key (text that names everything the data depends on) and bytes.  Leaves: those bytes, or None.
Never here: what the bytes mean, or how keys are made.

One file an entry, named by the key's hash, written beside and renamed, so readers see whole files only.  Each carries a
SHA-256 of key and data; a damaged file counts as absent and is removed.  The least recently read files go when the
folder is over its limit.  A folder that cannot be used costs one CompileWarning; the cache then lives in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import time

from graphc.errors import warn

_MAGIC = b"graphc cache 1\n\0"
_DIGEST_NBYTES = 32
_SUFFIX, _PART_SUFFIX = ".bin", ".part"
_ABANDONED_S = 3600.0  # a part file this old belongs to a process that died
_EVICT_TO = 0.9  # evict below the limit, so that not every write after that evicts
DEFAULT_LIMIT_NBYTES = 1 << 30


class Cache:
    """Bytes by key, in `folder` (None: in memory only), kept below `limit_nbytes` on disk.

    The folder is made on the first write, readable by its owner alone.  One that belongs to another user, or that
    others may write to, is refused: what is read from it gets executed.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, limit_nbytes: int = DEFAULT_LIMIT_NBYTES) -> None:
        self.folder = None if folder is None else os.fspath(folder)
        self.limit_nbytes = limit_nbytes
        self._memory: dict[str, bytes] = {}
        self._stored_nbytes: int | None = None  # an estimate: other processes write too
        self._checked = False

    def get(self, key: str) -> bytes | None:
        """The data last put under `key`; None where there is none, or where it was damaged."""
        if self.folder is None or key in self._memory:
            return self._memory.get(key)
        try:
            if not self._usable(make=False):
                return None
            path = self._path(key)
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._leave_disk(error)
            return None
        data = _verified(key, content)
        # Either may fail where another process has just removed the file: nothing is lost.
        with contextlib.suppress(OSError):
            if data is None:
                os.unlink(path)
            else:
                os.utime(path)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`, replacing what was there."""
        content = _MAGIC + _digest(key, data) + data
        if self.folder is None or len(content) > self.limit_nbytes:
            self._memory[key] = data
            return
        try:
            if self._usable(make=True):
                self._write(self.folder, self._path(key), content)
                self._make_room(self.folder, len(content))
                return
        except OSError as error:
            self._leave_disk(error)
        self._memory[key] = data

    def _path(self, key: str) -> str:
        assert self.folder is not None
        return os.path.join(self.folder, hashlib.sha256(key.encode()).hexdigest() + _SUFFIX)

    def _usable(self, make: bool) -> bool:
        """Whether the folder is there and safe to use.  Raises OSError where it cannot be made."""
        assert self.folder is not None
        if self._checked:
            return True
        if make:
            if not os.path.isabs(self.folder):
                raise OSError("not an absolute path")
            os.makedirs(os.path.dirname(self.folder), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.folder, 0o700)
        elif not os.path.lexists(self.folder):
            return False
        _require_private(self.folder)
        self._checked = True
        return True

    def _write(self, folder: str, path: str, content: bytes) -> None:
        handle, part = tempfile.mkstemp(suffix=_PART_SUFFIX, dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise

    def _make_room(self, folder: str, written_nbytes: int) -> None:
        """Count what was written; over the limit, remove the files that were read longest ago."""
        if self._stored_nbytes is not None:
            self._stored_nbytes += written_nbytes
            if self._stored_nbytes <= self.limit_nbytes:
                return
        entries = sorted(_entries(folder))
        stored = sum(nbytes for _, nbytes, _ in entries)
        if stored > self.limit_nbytes:
            for _, nbytes, path in entries[:-1]:  # the newest is what was just written
                if stored <= _EVICT_TO * self.limit_nbytes:
                    break
                with contextlib.suppress(FileNotFoundError):  # another process evicted it first
                    os.unlink(path)
                stored -= nbytes
        self._stored_nbytes = stored

    def _leave_disk(self, error: OSError) -> None:
        folder, self.folder = self.folder, None
        reason = error.strerror or str(error)
        message = f"the compile cache {folder} cannot be used ({reason}); going on without it"
        warn(f"{message} (GRAPHC_CACHE_DIR names another folder)")


_caches: dict[tuple[str | None, int], Cache] = {}


def default_cache() -> Cache:
    """The cache that the environment asks for; the same object as long as the environment is the same.

    GRAPHC_CACHE=0 keeps everything in memory.  The folder is GRAPHC_CACHE_DIR, else graphc in XDG_CACHE_HOME, else
    ~/.cache/graphc; GRAPHC_CACHE_LIMIT_MB (1024) is its limit in MiB.  Raises ValueError for one that is not a number.
    """
    limit_nbytes = DEFAULT_LIMIT_NBYTES
    if asked := os.environ.get("GRAPHC_CACHE_LIMIT_MB", "").strip():
        try:
            limit_nbytes = int(float(asked) * (1 << 20))
        except (ValueError, OverflowError):
            raise ValueError(f"GRAPHC_CACHE_LIMIT_MB must be a number of MiB, got {asked!r}") from None
    where = (_default_folder(), limit_nbytes)
    return _caches.get(where) or _caches.setdefault(where, Cache(*where))


def _default_folder() -> str | None:
    if os.environ.get("GRAPHC_CACHE", "").strip() == "0":
        return None
    if named := os.environ.get("GRAPHC_CACHE_DIR"):
        return os.path.abspath(os.path.expanduser(named))
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(shared):  # the XDG specification has relative paths ignored
        shared = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(shared, "graphc")


def _require_private(folder: str) -> None:
    """Raises OSError unless `folder` is a folder of this user's that nobody else may write to."""
    for status in (os.lstat(folder), os.stat(folder)):  # the link, if it is one, and what it points to
        if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
            raise OSError("it belongs to another user")
    if not stat.S_ISDIR(status.st_mode):
        raise OSError("it is not a folder")
    if hasattr(os, "geteuid") and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError("other users may write to it; chmod go-w makes it usable")


def _digest(key: str, data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(key.encode()).digest() + data).digest()


def _verified(key: str, content: bytes) -> bytes | None:
    start = len(_MAGIC) + _DIGEST_NBYTES
    data = content[start:]
    return data if content[:start] == _MAGIC + _digest(key, data) else None


def _entries(folder: str) -> list[tuple[int, int, str]]:
    """(time of last use in ns, bytes, path) of every entry; removes part files of dead processes on the way."""
    found: list[tuple[int, int, str]] = []
    oldest_part_ns = int((time.time() - _ABANDONED_S) * 1e9)
    with os.scandir(folder) as files:
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # another process removed it meanwhile
                status = file.stat(follow_symlinks=False)
                if file.name.endswith(_SUFFIX):
                    found.append((status.st_mtime_ns, status.st_size, file.path))
                elif file.name.endswith(_PART_SUFFIX) and status.st_mtime_ns < oldest_part_ns:
                    os.unlink(file.path)
    return found
