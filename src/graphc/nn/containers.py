"""Modules of modules: `Sequential`, `ModuleList`, `ModuleDict`.

Enters: modules.  Leaves: modules that hold them under numbers or names.  Never here: what a layer computes.
"""

from __future__ import annotations

import itertools
import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from graphc.errors import at_user_line
from graphc.nn.module import Module, indented


class _Numbered(Module):
    """What `Sequential` and `ModuleList` share: submodules called 0, 1, ..."""

    _modules: dict[str, Module]  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __getitem__(self, index: Any) -> Any:
        values = list(self._modules.values())
        if isinstance(index, slice):
            return type(self)(values[index])  # type: ignore[call-arg]
        return values[position(index, len(values))]

    def __setitem__(self, index: int, module: Module) -> None:
        name = list(self._modules)[position(index, len(self))]
        setattr(self, name, module)

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)
        chosen = names[index] if isinstance(index, slice) else [names[position(index, len(names))]]
        kept = [self._modules[name] for name in names if name not in chosen]
        _renumber(self, kept)

    def append(self, module: Module) -> Self:
        """Add a module at the end.  Raises TypeError for what is none."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end.  Raises TypeError for what cannot be iterated over."""
        if not isinstance(modules, Iterable):
            name = type(self).__name__
            raise TypeError(at_user_line(f"{name}.extend should be called with an iterable, but got {type(modules).__name__}"))
        for module in list(modules):
            self.append(module)
        return self

    def pop(self, index: Any) -> Module:
        """Take a module out.  Raises IndexError."""
        module: Module = self[index]
        del self[index]
        return module


class Sequential(_Numbered):
    """Calls modules one after another, each with what the one before gave.

    ``Sequential(a, b)`` numbers them, ``Sequential(OrderedDict(first=a, second=b))`` names them.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            named: Iterable[tuple[str, Module]] = args[0].items()
        else:
            named = ((str(i), module) for i, module in enumerate(args))
        for name, module in named:
            self.add_module(name, module)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)

    def insert(self, index: int, module: Module) -> Self:
        """Add a module before the one numbered `index`.  Raises AssertionError for no module, IndexError."""
        if not isinstance(module, Module):
            raise AssertionError(at_user_line(f"module should be of type: {Module}"))
        if not -len(self) <= index <= len(self):
            raise IndexError(at_user_line(f"Index out of range: {index}"))
        _insert(self, index, module)
        return self

    def __add__(self, other: Sequential) -> Sequential:
        """The modules of both.  Raises ValueError for anything else."""
        return Sequential(*self, *_other(other))

    def __iadd__(self, other: Sequential) -> Self:
        return self.extend(list(_other(other)))

    def __mul__(self, other: int) -> Sequential:
        """The same modules several times over.  Raises TypeError, ValueError for what is no positive int."""
        return Sequential(*(module for _ in range(_count(self, other)) for module in self))

    __rmul__ = __mul__

    def __imul__(self, other: int) -> Self:
        modules = list(self)
        for _ in range(_count(self, other) - 1):
            self.extend(modules)
        return self

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            input = module(input)
        return input


class ModuleList(_Numbered):
    """A list of modules, for `forward` of whoever holds it to use."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self += modules

    def _get_abs_string_index(self, idx: Any) -> str:
        """The name of the module numbered `idx`, as subclasses written for PyTorch ask for it.  Raises IndexError."""
        return str(position(idx, len(self)))

    def insert(self, index: int, module: Module) -> None:
        """Add a module before the one numbered `index`."""
        _insert(self, index, module)

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList(itertools.chain(self, other))

    def __repr__(self) -> str:
        """Equal neighbours are shown once, with their numbers."""
        lines = []
        texts = [(i, repr(module)) for i, module in enumerate(self)]
        for text, run in itertools.groupby(texts, key=operator.itemgetter(1)):
            numbers = [i for i, _ in run]
            first, last, count = numbers[0], numbers[-1], len(numbers)
            shown = f"({first}): {text}" if count == 1 else f"({first}-{last}): {count} x {text}"
            lines.append("\n  " + indented(shown))
        return f"{self._get_name()}({''.join(lines)}{chr(10) if lines else ''})"


class ModuleDict(Module):
    """A dict of modules, for `forward` of whoever holds it to use."""

    _modules: dict[str, Module]  # type: ignore[assignment]

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def __getitem__(self, key: str) -> Module:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def pop(self, key: str) -> Module:
        """Take a module out.  Raises KeyError."""
        module = self[key]
        del self[key]
        return module

    def clear(self) -> None:
        """Take every module out."""
        self._modules.clear()

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> Iterable[Module]:
        """The modules."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Module]]:
        """(name, module) of each."""
        return self._modules.items()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add modules under their names, replacing those of the same names.

        Raises TypeError, ValueError for what is neither a mapping nor an iterable of pairs.
        """
        for key, module in pairs_of("ModuleDict", modules):
            self[key] = module


def _renumber(owner: Module, modules: Iterable[Module]) -> None:
    """Hold these modules and no others, as 0, 1, ..."""
    owner._modules.clear()
    for i, module in enumerate(list(modules)):
        owner.add_module(str(i), module)


def _insert(owner: Any, index: int, module: Module) -> None:
    modules = list(owner._modules.values())
    modules.insert(index, module)
    _renumber(owner, modules)


def _other(given: Any) -> Sequential:
    if not isinstance(given, Sequential):
        text = f"add operator supports only objects of Sequential class, but {type(given)} is given."
        raise ValueError(at_user_line(text))
    return given


def _count(owner: Sequential, given: Any) -> int:
    if not isinstance(given, int):
        raise TypeError(at_user_line(f"unsupported operand type(s) for *: {type(owner)} and {type(given)}"))
    if given <= 0:
        raise ValueError(at_user_line(f"Non-positive multiplication factor {given} for {type(owner)}"))
    return given


def pairs_of(name: str, given: Any) -> list[tuple[str, Any]]:
    """(key, value) of a mapping or an iterable of pairs, as ``update`` of a dict takes them.  Raises TypeError, ValueError."""
    if not isinstance(given, Iterable):
        text = f"{name}.update should be called with an iterable of key/value pairs, but got {type(given).__name__}"
        raise TypeError(at_user_line(text))
    if isinstance(given, Mapping) or hasattr(given, "items"):
        return list(given.items())  # type: ignore[union-attr]
    found = []
    for i, pair in enumerate(given):
        if not isinstance(pair, Iterable):
            raise TypeError(at_user_line(f"{name} update sequence element #{i} should be Iterable; is {type(pair).__name__}"))
        pair = tuple(pair)
        if len(pair) != 2:
            raise ValueError(at_user_line(f"{name} update sequence element #{i} has length {len(pair)}; 2 is required"))
        found.append(pair)
    return found


def position(index: Any, count: int) -> int:
    """An index from either end as one from the front.  Raises IndexError."""
    number = operator.index(index)
    if not -count <= number < count:
        raise IndexError(at_user_line(f"index {number} is out of range"))
    return number % count


__all__ = ["ModuleDict", "ModuleList", "Sequential", "pairs_of", "position"]
