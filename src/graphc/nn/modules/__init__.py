"""PyTorch's paths to modules: ``from graphc.nn.modules.batchnorm import _BatchNorm``.

Enters: the names of PyTorch's files.  Leaves: modules that find their names in this package's files.  Never here: classes.

There is no file for each: a module below answers from the files of `graphc.nn` that hold what PyTorch's file of that name holds.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

# PyTorch's file -> where its names are in graphc.nn.
_HOMES = {
    "activation": ("activations", "multihead"), "adaptive": ("vocabularies",), "batchnorm": ("normalization", "lazy"),
    "channelshuffle": ("resizing",), "container": ("containers", "parameter_containers"), "conv": ("convolution", "lazy"),
    "distance": ("margins",), "dropout": ("dropouts",), "flatten": ("layers", "resizing"), "fold": ("resizing",),
    "instancenorm": ("normalization", "lazy"), "lazy": ("lazy",), "linear": ("layers", "multihead", "lazy"),
    "linear_cross_entropy": ("vocabularies",), "linear_cross_entropy_options": ("linear_cross_entropy",),
    "loss": ("losses", "margins", "vocabularies"), "module": ("module", "module_hooks", "module_state"),
    "normalization": ("normalization", "layers"), "padding": ("padding",), "pixelshuffle": ("resizing",),
    "pooling": ("pooling", "fractional"), "rnn": ("recurrent", "recurrent_cells"), "sparse": ("tables",),
    "transformer": ("transformer",), "upsampling": ("resizing",), "utils": ("modules.sizes",),
}  # fmt: skip


class _Home(ModuleType):
    """A module whose names are those of other files."""

    def __init__(self, name: str, files: tuple[str, ...]) -> None:
        super().__init__(f"{__name__}.{name}", f"PyTorch's ``nn.modules.{name}``.")
        self.__dict__["_files"] = files

    def __getattr__(self, name: str) -> Any:
        if not (name.startswith("__") and name.endswith("__")):
            for file in self.__dict__["_files"]:
                found = importlib.import_module(f"graphc.nn.{file}")
                if hasattr(found, name):
                    value = self.__dict__[name] = getattr(found, name)
                    return value
        raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")

    def __dir__(self) -> list[str]:
        names = [dir(importlib.import_module(f"graphc.nn.{file}")) for file in self.__dict__["_files"]]
        return sorted({name for some in names for name in some})


for _name, _files in _HOMES.items():
    globals()[_name] = sys.modules[f"{__name__}.{_name}"] = _Home(_name, _files)


def __getattr__(name: str) -> Any:
    """Every module class, as in `graphc.nn`."""
    nn = importlib.import_module("graphc.nn")
    if not name.startswith("__") and name in vars(nn):
        return vars(nn)[name]
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
