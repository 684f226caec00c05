"""What the programs of a file need of the world: which arrays and numbers that is, and what each is called.

Enters: specialisations, and what their code names.  Leaves: arrays by name, and the structure of a state dict.
Never here: which specialisations (`storing`), files.

What code names are modules, optimizers, generators and tensors, also as attributes and items of other things.  Those of which the
programs need something go into the file whole, so that eager code can take them over.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from graphc.amp.grad_scaler import GradScaler
from graphc.artifact.save import Structure
from graphc.capture.outside import Capture
from graphc.dtypes import DType
from graphc.eager.generator import Generator, default_generator
from graphc.eager.storage import Storage
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.nn.module import Module
from graphc.optim.optimizer import Optimizer
from graphc.optim.rules import Hyperparameter
from graphc.trees import flatten
from graphc.variant import Variant

_MOST_ITEMS, _DEEPEST = 256, 2
_LITERALS = bool | int | float | str | None
Array = np.ndarray[Any, Any]


class _Leaf:
    """An array of the file in a state dict.   is_number: handed out as a number."""

    def __init__(self, name: str, is_number: bool = False) -> None:
        self.name, self.is_number = name, is_number


class Contents:
    """arrays: by name.   structure: that of the state dict; None for a flat one, where the caller gave names."""

    def __init__(self, targets: Sequence[Any], variants: Sequence[Variant], names: Mapping[str, Tensor] | None) -> None:
        """targets: what was compiled; the state dict is that of the first where it is a module."""
        self.arrays: dict[str, Array] = {}
        self.structure: Structure | None = None
        self._storages: dict[int, str] = {}  # the array of each storage, by id
        self._numbers: dict[tuple[Any, ...], str] = {}
        self._kept: list[Any] = []  # what is known by id
        states = [(state, i in v.written) for v in variants for i, state in enumerate(v.traced.states, len(v.traced.arguments))]
        self._needed = {id(state._storage) for state, _ in states}
        self._written = {id(state._storage) for state, is_written in states if is_written}
        self._asked = {_identity(getter): dtype for v in variants for getter, dtype in v.traced.scalars}
        if names is not None:
            for name, tensor in names.items():
                if id(tensor._storage) in self._needed:
                    self._storage(tensor._storage, name)
        elif isinstance(targets[0], Module):
            self._make_structure(self._held("", targets[0]))
        else:
            found: dict[str, Any] = {}
            for name, thing in things(targets, variants):
                if self._concerns(thing):
                    name = _free(name, found)
                    found[name] = self._held(name, thing)
            self._make_structure(found)
        if id(default_generator.state._storage) in self._needed:
            self._storage(default_generator.state._storage, "generator")

    def name_of(self, state: Capture) -> str:
        """The array of a state."""
        if not state.of_grad:
            return self._storage(state._storage, f"state{len(self.arrays)}")
        owner = self._storages.get(id(state.tensor._storage))
        return self._storage(state._storage, "gradient" if owner is None else f"{owner}.grad")

    def name_of_number(self, getter: Callable[[], float], dtype: DType) -> str:
        """The array of a number that is asked for at every call."""
        self._kept.append(getter)
        return self._number(_identity(getter), f"number{len(self._numbers)}", getter(), dtype)

    def _storage(self, storage: Storage, name: str) -> str:
        key = id(storage)
        if key not in self._storages:
            self._kept.append(storage)
            self._storages[key] = name = _free(name, self.arrays)
            self.arrays[name] = np.array(storage.array)
        return self._storages[key]

    def _number(self, key: tuple[Any, ...], name: str, number: Any, dtype: DType) -> str:
        if key not in self._numbers:
            self._numbers[key] = name = _free(name, self.arrays)
            self.arrays[name] = np.asarray(number, dtype.numpy)
        return self._numbers[key]

    # ---- structure

    def _make_structure(self, value: Any) -> None:
        leaves, tree = flatten(value, lambda x: isinstance(x, _Leaf))
        self.structure = Structure(tree, [x.name for x in leaves], {x.name for x in leaves if x.is_number})

    def _concerns(self, thing: Any) -> bool:
        """Whether the programs need something of it."""
        if isinstance(thing, Optimizer) and any(key[0] == id(g) for g in thing.param_groups for key in self._asked):
            return True
        return any(id(x._storage) in self._needed for x in _tensors(thing))

    def _held(self, name: str, thing: Any) -> Any:
        """A thing's state, with leaves of the file.  Raises TypeError for what no file holds."""
        if isinstance(thing, Optimizer):
            return self._leaves(name, self._optimizer(name, thing))
        if isinstance(thing, GradScaler):
            held = self._leaves(name, _state_of(thing))
            return {**thing.state_dict(), **{key: _Leaf(leaf.name, True) for key, leaf in held.items()}}
        return self._leaves(name, _state_of(thing))

    def _optimizer(self, name: str, optimizer: Optimizer) -> Any:
        """Its state dict, where hyperparameters that programs ask for are leaves."""
        held = optimizer.state_dict()
        for i, (group, written) in enumerate(zip(optimizer.param_groups, held["param_groups"], strict=True)):
            for key, dtype in self._asked.items():
                owner, hyperparameter, index = key
                if owner != id(group):
                    continue
                value, place = written[hyperparameter], f"{name}.param_groups.{i}.{hyperparameter}"
                if index is None:
                    written[hyperparameter] = _Leaf(self._number(key, place, value, dtype), True)
                else:
                    leaf = _Leaf(self._number(key, f"{place}.{index}", value[index], dtype), True)
                    written[hyperparameter] = (*value[:index], leaf, *value[index + 1 :])
        return held

    def _leaves(self, place: str, value: Any) -> Any:
        """`value` with leaves for its tensors."""
        if isinstance(value, Tensor):
            return self._leaf(place, value)
        if isinstance(value, dict):
            return {key: self._leaves(_under(place, key), part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            parts = [self._leaves(_under(place, i), part) for i, part in enumerate(value)]
            return parts if isinstance(value, list) else tuple(parts)
        if isinstance(value, _LITERALS | _Leaf):
            return value
        raise TypeError(at_user_line(f"save: {place} is a {type(value).__name__}, which a file cannot hold"))

    def _leaf(self, name: str, tensor: Tensor) -> _Leaf:
        if not tensor._chain:
            return _Leaf(self._storage(tensor._storage, name))
        if id(tensor._storage) in self._written:
            message = f"save: {name} is a part of other memory, which the program writes to; a file cannot hold that"
            raise RuntimeError(at_user_line(message))
        name = _free(name, self.arrays)
        self.arrays[name] = np.array(tensor.detach().numpy_view())
        return _Leaf(name)


def things(targets: Sequence[Any], variants: Sequence[Variant]) -> Iterator[tuple[str, Any]]:
    """(name, thing) of modules, optimizers, generators, scalers and tensors that code names, the nearest first."""
    waiting: deque[tuple[str, Any, int]] = deque()
    for target in targets:
        while isinstance(target, functools.partial):
            waiting += ((f"argument{i}", value, 0) for i, value in enumerate(target.args))
            waiting += ((name, value, 0) for name, value in target.keywords.items())
            target = target.func
        if isinstance(target, MethodType):
            waiting.append(("self", target.__self__, 0))
            waiting += ((name, value, 0) for name, value in vars(target.__self__).items() if not name.startswith("_"))
    waiting += ((value.name, value.value, 0) for v in variants for value in v.values)
    waiting.append(("generator", default_generator, 0))
    seen: set[int] = set()
    while waiting:
        name, value, depth = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Module | Optimizer | Generator | GradScaler | Tensor):
            yield name, value
        elif depth < _DEEPEST:
            waiting += ((f"{name}.{key}", part, depth + 1) for key, part in _parts(value))


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Items of a container, attributes of an object."""
    if isinstance(value, list | tuple | dict):
        if len(value) <= _MOST_ITEMS:
            yield from value.items() if isinstance(value, dict) else enumerate(value)
    elif not isinstance(value, type | ModuleType | FunctionType | MethodType):
        yield from getattr(value, "__dict__", {}).items()


def module_of(target: Any, variants: Sequence[Variant]) -> Module | None:
    """The module whose modes a compiled target has: itself, or the only one that it names."""
    if isinstance(target, Module):
        return target
    found = [thing for _, thing in things([target], variants) if isinstance(thing, Module)]
    return found[0] if len(found) == 1 else None


def _state_of(thing: Any) -> Any:
    """The tensors of a thing, in a structure that says which they are."""
    if isinstance(thing, Module):
        return dict(thing.state_dict(keep_vars=True))
    if isinstance(thing, GradScaler):  # no tensors before the first loss
        return {} if thing._scale is None else {"scale": thing._scale, "_growth_tracker": thing._growth_tracker}
    return thing.state if isinstance(thing, Optimizer | Generator) else thing


def _tensors(thing: Any) -> Iterator[Tensor]:
    """The tensors that a thing's state has."""
    stack = [_state_of(thing)]
    while stack:
        value = stack.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple | dict):
            stack += value.values() if isinstance(value, dict) else value


def _identity(getter: Callable[[], float]) -> tuple[Any, ...]:
    """What a number is that is asked for at every call."""
    if isinstance(getter, Hyperparameter):
        return id(getter.group), getter.name, getter.index
    return id(getter), "", None


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _under(place: str, key: Any) -> str:
    return f"{place}.{key}" if place else str(key)
