"""graphc: eager tensors, autograd and a graph compiler.  The names of PyTorch, the same bits eager, compiled, saved and loaded.

Importing costs almost nothing: a name brings its room with it when it is first used, so a program that only loads an artifact
never loads tensors, operators or the compiler.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphc.compiled import compile as compile
    from graphc.dynamic import Dim as Dim
    from graphc.namespace import *  # noqa: F403
    from graphc.saving import load as load
    from graphc.saving import save as save
    from graphc.scripting import script as script

__version__ = "0.1.0"

# names that are not in the namespace: name -> module
_PLACES = {
    "load": "graphc.saving", "save": "graphc.saving", "compile": "graphc.compiled", "script": "graphc.scripting",
    "vmap": "graphc.func", "Dim": "graphc.dynamic", "cond": "graphc._higher_order_ops", "while_loop": "graphc._higher_order_ops",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module 'graphc' has no attribute {name!r}")
    if name not in _PLACES and importlib.util.find_spec(f"graphc.{name}") is not None:
        return importlib.import_module(f"graphc.{name}")
    module = importlib.import_module(_PLACES.get(name, "graphc.namespace"))
    try:
        value = getattr(module, name)
    except AttributeError:
        raise AttributeError(f"module 'graphc' has no attribute {name!r}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    namespace = importlib.import_module("graphc.namespace")
    return sorted({*globals(), *_PLACES, *(n for n in vars(namespace) if not n.startswith("_"))})
