"""Pretrained weights by address and models by ``hubconf.py``, under the names of ``torch.hub``.

Enters: addresses, folders.  Leaves: files in the cache folder, what they hold, what a hubconf makes.  Never here: code from the
network: only a folder on this machine is a source of models.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
import tempfile
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlparse

from graphc.saving import load as _load

HASH_REGEX = re.compile(r"-([a-f0-9]*)\.")
_BLOCK = 1 << 20  # bytes read at once
_chosen: list[str] = []


def _get_torch_home() -> str:
    """The folder of downloaded files: ``$TORCH_HOME``, or ``torch`` in the user's cache folder."""
    cache = os.getenv("XDG_CACHE_HOME", "~/.cache")
    return os.path.expanduser(os.getenv("TORCH_HOME", os.path.join(cache, "torch")))


def get_dir() -> str:
    """The folder of downloads: what `set_dir` said, or ``hub`` in PyTorch's own cache folder, so that files are there once."""
    return _chosen[-1] if _chosen else os.path.join(_get_torch_home(), "hub")


def set_dir(d: str | os.PathLike[str]) -> None:
    """Use another folder of downloads."""
    _chosen[:] = [os.path.expanduser(d)]


def download_url_to_file(url: str, dst: str, hash_prefix: str | None = None, progress: bool = True) -> None:
    """Write what is at an address to a file, which appears only when it is whole.

    hash_prefix: what the SHA-256 of the content must begin with.   progress: accepted; no bar is shown.
    Raises OSError where the address or file fails, RuntimeError for another hash.
    """
    place = Path(dst).expanduser()
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as part:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers={"User-Agent": "graphc.hub"})) as answer:
                while block := answer.read(_BLOCK):
                    part.write(block)
                    digest.update(block)
            found = digest.hexdigest()[: len(hash_prefix or "")]
            if hash_prefix and found != hash_prefix:
                raise RuntimeError(f'invalid hash value (expected "{hash_prefix}", got "{found}")')
            part.close()
            os.replace(part.name, place)
        except BaseException:
            part.close()
            os.unlink(part.name)
            raise


def load_state_dict_from_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
    weights_only: bool = True,
) -> Any:
    """`graphc.load` of the file of that address, downloaded unless the folder has it.

    check_hash: the file's name ends in ``-<first digits of its SHA-256>``, which the content must have.
    Raises as `download_url_to_file` and `graphc.load`.
    """
    folder = Path(model_dir if model_dir is not None else os.path.join(get_dir(), "checkpoints"))
    folder.mkdir(parents=True, exist_ok=True)
    name = file_name or os.path.basename(urlparse(url).path)
    place = folder / name
    if not place.exists():
        sys.stderr.write(f'Downloading: "{url}" to {place}\n')
        match = HASH_REGEX.search(name) if check_hash else None
        download_url_to_file(url, str(place), match[1] if match else None, progress)
    return _load(place, map_location=map_location, weights_only=weights_only)


def _hubconf(repo_or_dir: str, source: str) -> ModuleType:
    """The module ``hubconf.py`` of a folder.  Raises NotImplementedError for a repository, RuntimeError for what it lacks."""
    if source != "local":
        raise NotImplementedError(
            f"hub: models are made from a folder on this machine only (source='local'), not from {source}:{repo_or_dir}"
        )
    sys.path.insert(0, repo_or_dir)
    try:
        spec = importlib.util.spec_from_file_location("hubconf", os.path.join(repo_or_dir, "hubconf.py"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(repo_or_dir)
    missing = [name for name in getattr(module, "dependencies", ()) if name != "torch" and importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(f"Missing dependencies: {', '.join(missing)}")
    return module


def _entry(module: ModuleType, name: str) -> Any:
    found = getattr(module, name, None)
    if not callable(found):
        raise RuntimeError(f"Cannot find callable {name} in hubconf")
    return found


def list(github: str, *_: Any, source: str = "github", **__: Any) -> Any:  # PyTorch's name
    """The names of the callables of a folder's ``hubconf.py``.  Raises NotImplementedError for repositories."""
    module = _hubconf(github, source)
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


def help(github: str, model: str, *_: Any, source: str = "github", **__: Any) -> Any:  # PyTorch's name
    """The docstring of an entry.  Raises NotImplementedError for repositories, RuntimeError for a name that is not there."""
    return _entry(_hubconf(github, source), model).__doc__


def load(repo_or_dir: str, model: str, *args: Any, source: str = "github", **kwargs: Any) -> Any:
    """What an entry of a folder's ``hubconf.py`` makes of the arguments.

    Raises NotImplementedError for repositories, RuntimeError for a name that is not there.
    """
    options = ("trust_repo", "force_reload", "verbose", "skip_validation")
    return _entry(_hubconf(repo_or_dir, source), model)(*args, **{k: v for k, v in kwargs.items() if k not in options})


__all__ = ["download_url_to_file", "get_dir", "help", "list", "load", "load_state_dict_from_url", "set_dir"]


def __getattr__(name: str) -> Any:
    """``tqdm``, which programs import from here: the bar of that package.  Raises AttributeError where it is not installed."""
    if name == "tqdm" and importlib.util.find_spec("tqdm") is not None:
        return importlib.import_module("tqdm").tqdm
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
