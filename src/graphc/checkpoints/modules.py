"""Whole modules in files: `save(model)`, and `load(file, weights_only=False)` or their classes in `safe_globals`.

Enters: names in pickles, modules and the functions they hold.  Leaves: module classes that the program itself has imported,
functions of ``nn.functional``, modules given their state.  Never here: imports by name, constructors, other classes.

A file says which classes its modules are of and what their attributes are.  A class is looked up among those that the program has;
it is not called, only an empty object of it is made, and its ``__setstate__`` or ``__dict__`` takes the attributes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from graphc import nn
from graphc.checkpoints import allowed
from graphc.checkpoints.pickles import Name
from graphc.errors import CheckpointError
from graphc.nn import functional, modules
from graphc.nn.module import Module

_FUNCTIONAL = "torch.nn.functional"


def class_name(kind: type) -> tuple[str, str]:
    """(module, name) by which PyTorch finds a class, or the class's own."""
    name = kind.__qualname__
    room, _, file = kind.__module__.rpartition(".")
    if room.partition(".")[0] != "graphc":
        return kind.__module__, name
    if getattr(nn, name, None) is kind:
        return "torch.nn", name
    homes = [home for home, held in vars(modules).items() if isinstance(held, ModuleType) and file in vars(held).get("_files", ())]
    return next((f"torch.nn.modules.{home}" for home in homes), f"torch{room.removeprefix('graphc')}.{file}"), name


def function_name(value: Any) -> tuple[str, str] | None:
    """(module, name) of a function of ``nn.functional``, in whose place machine code may be by now; None for anything else."""
    name, room = (getattr(value, part, None) or "" for part in ("__name__", "__module__"))
    offered = getattr(functional, str(name), None)
    if offered is None or isinstance(value, type | ModuleType):
        return None
    ours = isinstance(value, FunctionType) and room.partition(".")[0] == "graphc"
    return (_FUNCTIONAL, name) if ours or value is offered else None


def _class_of(module: str, name: str) -> type[Module] | None:
    """A module class that the program has under that name."""
    if module.partition(".")[0] == "torch":
        module = "graphc" + module.removeprefix("torch")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None) if isinstance(found, ModuleType | type) else None
    return found if isinstance(found, type) and issubclass(found, Module) else None


def _maker(text: str, kind: type[Module]) -> Callable[..., Module]:
    def make(*arguments: Any) -> Module:
        if arguments:
            raise CheckpointError(f"it calls {text} with arguments, which is not how PyTorch writes modules")
        return kind.__new__(kind)

    return make


def find(module: str, name: str, whole: bool) -> Any:
    """`allowed.find`, and the names of module classes and their functions: any of them, or those that the user allowed.

    Raises CheckpointError.
    """
    try:
        return allowed.find(module, name)
    except CheckpointError:
        kind = _class_of(module, name)
        function = getattr(functional, name, None) if module == _FUNCTIONAL else None
        if kind is not None and (whole or kind in allowed.user_globals.values()):
            return Name(f"{module}.{name}", _maker(f"{module}.{name}", kind), kind)
        if function_name(function) is not None and (whole or function in allowed.user_globals.values()):
            return function
        raise


def fill(target: Any, state: Any) -> bool:
    """`allowed.fill`, and a module's attributes."""
    if not isinstance(target, Module):
        return allowed.fill(target, state)
    if not isinstance(state, dict) or any(type(name) is not str for name in state):
        raise CheckpointError(f"it gives a {type(target).__name__} a state that is no dict of attributes")
    target.__setstate__({name: _attribute(value) for name, value in state.items()})
    return True


def _attribute(value: Any) -> Any:
    """An attribute; classes that a module holds (``norm_layer``) are no longer only named."""
    return value.value if isinstance(value, Name) and isinstance(value.value, type) else value
