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
            return self._of(index)
        return values[_position(index, len(values))]

    def _of(self, index: slice) -> Module:
        return type(self)(list(self._modules.values())[index])  # type: ignore[call-arg]

    def __setitem__(self, index: int, module: Module) -> None:
        name = list(self._modules)[_position(index, len(self))]
        setattr(self, name, module)

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)
        chosen = names[index] if isinstance(index, slice) else [names[_position(index, len(names))]]
        kept = [self._modules[name] for name in names if name not in chosen]
        self._renumber(kept)

    def _renumber(self, modules: Iterable[Module]) -> None:
        for name in list(self._modules):
            delattr(self, name)
        for i, module in enumerate(modules):
            self.add_module(str(i), module)

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Add a module before the one numbered `index`."""
        modules = list(self._modules.values())
        modules.insert(index, module)
        self._renumber(modules)
        return self


class Sequential(_Numbered):
    """Calls modules one after another, each with what the one before gave.

    ``Sequential(a, b)`` numbers them, ``Sequential(OrderedDict(first=a, second=b))`` names them.
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named: Iterable[tuple[str, Module]] = modules[0].items()
        else:
            named = ((str(i), module) for i, module in enumerate(modules))
        for name, module in named:
            self.add_module(name, module)

    def _of(self, index: slice) -> Sequential:
        return type(self)(OrderedDict(list(self._modules.items())[index]))

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            input = module(input)
        return input


class ModuleList(_Numbered):
    """A list of modules, for `forward` of whoever holds it to use."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(() if modules is None else modules)

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
        return f"{type(self).__name__}({''.join(lines)}{chr(10) if lines else ''})"


class ModuleDict(Module):
    """A dict of modules, for `forward` of whoever holds it to use."""

    _modules: dict[str, Module]  # type: ignore[assignment]

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        self.update({} if modules is None else modules)

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
        delattr(self, key)

    def pop(self, key: str) -> Module:
        """Take a module out.  Raises KeyError."""
        module = self[key]
        del self[key]
        return module

    def clear(self) -> None:
        """Take every module out."""
        for key in list(self):
            del self[key]

    def keys(self) -> Iterable[str]:
        return self._modules.keys()

    def values(self) -> Iterable[Module]:
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Module]]:
        return self._modules.items()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add modules under their names, replacing those of the same names."""
        for key, module in dict(modules).items():
            self[key] = module


def _position(index: int, count: int) -> int:
    number = operator.index(index)
    if not -count <= number < count:
        raise IndexError(at_user_line(f"index {number} is out of range"))
    return number % count
