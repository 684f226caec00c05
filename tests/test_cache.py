"""The disk cache: what is put is got, across processes, or is absent; damage, limits and unusable folders."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.errors import CompileWarning
from graphc.runtime import cache as cache_module
from graphc.runtime.cache import Cache, default_cache

SOURCE = Path(__file__).resolve().parents[1] / "src"
needs_owner_checks = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no file owners on this system")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "above" / "cache"


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_what_is_put_is_got(folder: Path) -> None:
    cache = Cache(folder)
    assert cache.get("key") is None
    assert not folder.exists()
    cache.put("key", b"data")
    cache.put("other", b"")
    cache.put("../key with /\0 and ü", bytes(range(256)))
    for reader in (cache, Cache(folder)):
        assert reader.get("key") == b"data"
        assert reader.get("other") == b""
        assert reader.get("../key with /\0 and ü") == bytes(range(256))
        assert reader.get("absent") is None
    cache.put("key", b"new data")
    assert Cache(folder).get("key") == b"new data"
    assert len(files(folder)) == 3
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files(folder))


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255), cut=st.booleans())
def test_damage_is_absence(tmp_path_factory: pytest.TempPathFactory, position: int, flip: int, cut: bool) -> None:
    folder = tmp_path_factory.mktemp("damage") / "cache"
    cache = Cache(folder)
    cache.put("key", b"some data" * 20)
    (file,) = files(folder)
    content = bytearray(file.read_bytes())
    position %= len(content)
    if cut:
        del content[position:]
    else:
        content[position] ^= flip
    file.write_bytes(content)
    assert cache.get("key") is None
    assert files(folder) == []
    cache.put("key", b"again")
    assert cache.get("key") == b"again"


def test_data_of_another_key_is_absence(folder: Path) -> None:
    cache = Cache(folder)
    cache.put("a", b"data of a")
    (of_a,) = files(folder)
    cache.put("b", b"data of b")
    (of_b,) = set(files(folder)) - {of_a}
    os.replace(of_a, of_b)
    assert cache.get("b") is None


def test_least_recently_read_goes_first(folder: Path) -> None:
    cache = Cache(folder, limit_nbytes=10_000)
    for number in range(9):
        cache.put(f"key {number}", bytes(1000))
        newest = max(files(folder), key=lambda file: file.stat().st_ctime_ns)
        os.utime(newest, ns=(0, number))  # times far enough apart for any file system
    assert Cache(folder).get("key 0") is not None
    cache.put("key 9", bytes(1000))
    alive = [number for number in range(10) if Cache(folder).get(f"key {number}") is not None]
    assert alive == [0, 3, 4, 5, 6, 7, 8, 9]
    assert sum(file.stat().st_size for file in files(folder)) <= 10_000


def test_limit_holds_over_many_writers(folder: Path) -> None:
    writers = [Cache(folder, limit_nbytes=20_000) for _ in range(2)]
    for number in range(100):
        writers[number % 2].put(f"key {number}", bytes(1500))
        assert writers[number % 2].get(f"key {number}") == bytes(1500)
    # each writer counts its own writes between two looks at the folder
    assert sum(file.stat().st_size for file in files(folder)) <= 2 * 20_000


def test_data_beyond_the_limit_stays_in_memory(folder: Path) -> None:
    cache = Cache(folder, limit_nbytes=1000)
    cache.put("key", bytes(2000))
    assert cache.get("key") == bytes(2000)
    assert Cache(folder).get("key") is None


def test_parts_of_dead_writers_are_removed(folder: Path) -> None:
    Cache(folder).put("key", b"data")
    dead, live = folder / "dead.part", folder / "live.part"
    for part in (dead, live):
        part.write_bytes(b"half")
    os.utime(dead, (1, 1))
    Cache(folder).put("other", b"data")
    assert not dead.exists()
    assert live.exists()


def test_processes_share_the_folder(folder: Path) -> None:
    code = """
import sys
from graphc.runtime.cache import Cache
cache = Cache(sys.argv[1], limit_nbytes=60_000)
for turn in range(150):
    key = str(turn % 10)
    cache.put(key, key.encode() * 3000)
    for other in range(10):
        assert cache.get(str(other)) in (None, str(other).encode() * 3000)
"""
    command = [sys.executable, "-W", "error", "-c", code, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    writers = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    assert not [file for file in files(folder) if file.suffix != ".bin"]


def put_and_get_after_one_warning(cache: Cache, match: str) -> None:
    with pytest.warns(CompileWarning, match=match) as caught:
        cache.put("key", b"data")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.get("key") == b"data"
        assert cache.get("absent") is None
        cache.put("other", b"more")
        assert cache.get("other") == b"more"


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    folder = tmp_path / "file" / "cache"
    put_and_get_after_one_warning(Cache(folder), rf"the compile cache {folder} cannot be used \((Not a directory|File exists)\)")


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    put_and_get_after_one_warning(Cache(tmp_path / "file"), "it is not a folder")


def test_home_that_is_unknown() -> None:
    put_and_get_after_one_warning(Cache("~/.cache/graphc"), "not an absolute path")


def test_folder_that_is_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(folder)
    cache.put("early", b"data")

    def full(part: str, path: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.os, "replace", full)
    put_and_get_after_one_warning(cache, rf"{folder} cannot be used \(No space left on device\)")
    assert len(files(folder)) == 1


def test_folder_that_vanishes(folder: Path) -> None:
    cache = Cache(folder)
    cache.put("early", b"data")
    for file in files(folder):
        file.unlink()
    folder.rmdir()
    assert cache.get("early") is None
    put_and_get_after_one_warning(cache, "No such file or directory")


@needs_owner_checks
def test_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Cache(folder).put("key", b"planted")
    monkeypatch.setattr(cache_module.os, "geteuid", lambda: os.getuid() + 1)
    put_and_get_after_one_warning(Cache(folder), "it belongs to another user")
    reader = Cache(folder)
    with pytest.warns(CompileWarning, match="it belongs to another user"):
        assert reader.get("key") is None


@needs_owner_checks
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_folder_that_others_may_write_to_is_refused(folder: Path, mode: int) -> None:
    Cache(folder).put("key", b"planted")
    folder.chmod(mode)
    put_and_get_after_one_warning(Cache(folder), "other users may write to it")


def test_environment_chooses_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRAPHC_CACHE", "GRAPHC_CACHE_DIR", "GRAPHC_CACHE_LIMIT_MB", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache().folder == str(tmp_path / ".cache" / "graphc")
    assert default_cache().limit_nbytes == 1 << 30
    assert default_cache() is default_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache().folder == str(tmp_path / ".cache" / "graphc")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache().folder == str(tmp_path / "xdg" / "graphc")
    monkeypatch.setenv("GRAPHC_CACHE_DIR", "~/named")
    assert default_cache().folder == str(tmp_path / "named")
    monkeypatch.setenv("GRAPHC_CACHE_LIMIT_MB", "1.5")
    assert default_cache().limit_nbytes == 3 << 19
    monkeypatch.setenv("GRAPHC_CACHE_LIMIT_MB", "lots")
    with pytest.raises(ValueError, match="GRAPHC_CACHE_LIMIT_MB must be a number of MiB, got 'lots'"):
        default_cache()
    monkeypatch.delenv("GRAPHC_CACHE_LIMIT_MB")
    monkeypatch.setenv("GRAPHC_CACHE", "0")
    assert default_cache().folder is None
    default_cache().put("key", b"data")
    assert default_cache().get("key") == b"data"
    assert not (tmp_path / "named").exists()
