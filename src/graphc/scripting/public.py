"""What scripts may name: graphc's operators and creation functions, `math`, and some of Python's own functions.

Enters: names, or objects.  Leaves: objects, or the names of objects.  Never here: files, tensors' insides, anything with an
underscore.  A script in a file can reach nothing that is not listed here.
"""

from __future__ import annotations

import builtins
import math
import types
from functools import cache
from typing import Any

import graphc.nn as nn
from graphc import fft, linalg, namespace, special
from graphc.dtypes import DType
from graphc.eager import creation, generator, methods
from graphc.eager.devices import device
from graphc.eager.tensor import Size, Tensor

BUILTINS = {
    name: getattr(builtins, name)
    for name in ("len", "range", "int", "float", "bool", "str", "min", "max", "abs", "sum", "round", "enumerate", "zip", "reversed",
                 "list", "tuple", "dict", "sorted", "isinstance", "any", "all", "divmod", "print", "ValueError", "RuntimeError",
                 "TypeError", "IndexError", "KeyError", "AssertionError", "NotImplementedError", "Exception", "True", "False")
    if hasattr(builtins, name)
}  # fmt: skip
TYPES: dict[type, tuple[str, ...]] = {
    list: ("append", "extend", "pop", "insert", "index", "count", "reverse", "sort", "copy", "clear", "remove"),
    dict: ("keys", "values", "items", "get", "pop", "update", "setdefault", "copy", "clear"),
    str: ("join", "startswith", "endswith", "lower", "upper", "split", "strip", "replace"),
    Size: ("numel", "index", "count"),
    DType: ("is_floating_point", "is_complex", "is_signed", "itemsize"),
    device: ("type", "index"),
}
# Functions that take memory of others.
OUTSIDE = {"from_numpy", "frombuffer", "from_dlpack", "from_file"}
# Methods of tensors that hand out memory, or call back into Python that a script does not have.
WITHHELD = {"numpy", "numpy_view", "data_ptr", "storage", "untyped_storage", "register_hook", "share_memory_", "apply_", "map_"}


class Namespace:
    """A module as scripts see it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, name: str) -> Any:
        if f"{self.name}.{name}" in _modules():
            return Namespace(f"{self.name}.{name}")
        try:
            return _names(self.name)[name]
        except KeyError:
            raise AttributeError(f"{self.name}.{name} is not part of what scripts may use") from None


@cache
def _modules() -> dict[str, types.ModuleType]:
    import graphc

    return {
        "graphc": graphc, "graphc.nn": nn, "graphc.nn.functional": nn.functional, "graphc.linalg": linalg, "graphc.fft": fft,
        "graphc.special": special, "math": math,
    }  # fmt: skip


@cache
def _names(module: str) -> dict[str, Any]:
    if module == "math":
        return {name: value for name, value in vars(math).items() if not name.startswith("_")}
    if module == "graphc.nn":
        return {"Module": nn.Module}
    if module == "graphc":
        return _names_of_graphc()
    place = _modules()[module]
    names = methods.functions(module.removeprefix("graphc."))
    own = {n: v for n, v in vars(place).items() if isinstance(v, types.FunctionType) and v.__module__ == module}
    return {name: vars(place).get(name, value) for name, value in {**names, **own}.items() if not name.startswith("_")}


def _names_of_graphc() -> dict[str, Any]:
    names: dict[str, Any] = {name: getattr(namespace, name) for name in methods.functions()}
    for room in (creation, generator):
        made = {n: v for n, v in vars(room).items() if isinstance(v, types.FunctionType) and not n.startswith("_")}
        names |= {n: v for n, v in made.items() if vars(namespace).get(n) is v and n not in OUTSIDE}
    names |= {name: value for name, value in vars(namespace).items() if isinstance(value, DType)}
    for name in ("pi", "e", "inf", "nan", "Size", "device", "Tensor", "is_tensor", "is_floating_point", "no_grad", "enable_grad"):
        names[name] = getattr(namespace, name)
    return names


def named(name: str) -> Any:
    """The object of a dotted name.  Raises AttributeError for one that scripts may not use."""
    module, _, last = name.rpartition(".")
    if name in _modules():
        return Namespace(name)
    if module not in _modules():
        raise AttributeError(f"{name} is not part of what scripts may use")
    return getattr(Namespace(module), last)


def name_of(value: Any) -> str | None:
    """The dotted name of a module, function or type that scripts may use; None for another object."""
    for name, module in _modules().items():
        if value is module:
            return name
    for name in _modules():
        for last, found in _names(name).items():
            if found is value and not isinstance(value, bool | int | float):
                return f"{name}.{last}"
    return None


def attribute(value: Any, name: str) -> Any:
    """``value.name`` where a script may ask for it.  Raises AttributeError."""
    if not name.startswith("_"):
        if isinstance(value, Tensor):
            if name not in WITHHELD:
                return getattr(value, name)
        elif isinstance(value, Namespace | nn.Module) or isinstance(value, tuple) and name in getattr(value, "_fields", ()):
            return getattr(value, name)
        else:
            for kind, names in TYPES.items():
                if isinstance(value, kind) and name in names:
                    return getattr(value, name)
    raise AttributeError(f"a script may not ask a {type(value).__name__} for '{name}'")
