"""Runs programs written for torch on graphc with nothing changed: every import of torch gives graphc's module of the same name."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


class TorchIsGraphc(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``torch`` and what lies below it in graphc."""

    def __init__(self) -> None:
        self.specs: dict[str, Any] = {}

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        is_torch = fullname == "torch" or fullname.startswith("torch.")
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if is_torch else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module("graphc" + spec.name.removeprefix("torch"))
        self.specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.specs[module.__spec__.name]  # type: ignore[union-attr]  the module is graphc's own


def install() -> None:
    """From now on, in this process, torch is graphc.  Its version is that of the PyTorch beside it: programs ask for 2.0 by it."""
    sys.meta_path.insert(0, TorchIsGraphc())
    vars(importlib.import_module("graphc"))["__version__"] = importlib.metadata.version("torch")


def bare_package(name: str, path: str | None = None, **attributes: Any) -> ModuleType:
    """A package whose ``__init__`` does not run: what lies below it is found, and what it needs of C++ is not."""
    module = ModuleType(name)
    module.__path__ = [] if path is None else [path]
    vars(module).update(attributes)
    sys.modules[name] = module
    parent, _, own = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], own, module)
    return module
