"""The Python values that code names outside of itself, so that compiled code notices when they change.

Enters: a function or module.  Leaves: `NamedValue`s: globals and closure cells that the code names, in it and in the user's code
that it may call: functions, and methods of the modules and objects it reaches whose names it mentions.
Never here: values inside lists, dicts and other objects (Python gives no way to notice a change there), module attributes (the
epoch).

Of numbers, strings, bools, None and tuples of them the value counts; of everything else which object it is.
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

_PLAIN = (bool, int, float, str, type(None))
_LASTING = (type, ModuleType, BuiltinFunctionType)  # nobody makes those names mean something else
ON_HEAP = 1 << 9  # of a class: that it is written in Python
_READING = {
    "LOAD_GLOBAL": "GLOBAL", "LOAD_NAME": "GLOBAL", "LOAD_ATTR": "ATTR", "LOAD_METHOD": "ATTR", "LOAD_SUPER_ATTR": "ATTR",
    "LOAD_DEREF": "DEREF", "LOAD_CLASSDEREF": "DEREF", "LOAD_FROM_DICT_OR_DEREF": "DEREF",
}  # fmt: skip
_MISSING = object()
_MOST_REACHED, _MOST_ITEMS = 10_000, 256
_HOLDING = ("_modules", "_forward_hooks", "_forward_pre_hooks")  # of modules
_ALWAYS = {"forward", "__call__", "__getattr__"}  # methods that are called without their names


class NamedValue:
    """One value and where it was read: a global of `owner` called `name`, or a closure cell."""

    __slots__ = ("is_plain", "name", "owner", "value")

    def __init__(self, owner: dict[str, Any] | CellType, name: str, value: Any) -> None:
        self.owner, self.name, self.value = owner, name, value
        self.is_plain = _is_plain(value)

    def holds(self) -> bool:
        """Whether it is still the same object, or the same plain value of the same type."""
        owner = self.owner
        try:
            now = owner.get(self.name, _MISSING) if type(owner) is dict else owner.cell_contents  # type: ignore[union-attr]
        except ValueError:  # an emptied cell
            return False
        return now is self.value or (self.is_plain and type(now) is type(self.value) and bool(now == self.value))


def guarded_values(target: Callable[..., Any]) -> list[NamedValue]:
    """Every value outside of it that `target` names, directly or through the code it may call."""
    found: dict[tuple[int, str], NamedValue] = {}
    for function in _Reached(target).functions:
        read = _names(function.__code__).cells
        for owner, name, value in named_values(function):
            if not isinstance(value, _LASTING) and (isinstance(owner, dict) or name in read):
                found.setdefault((id(owner), name), NamedValue(owner, name, value))
    return list(found.values())


def reached(target: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """What `target` is and what its own code names: (name, value), nothing for its own name."""
    yield "", target
    function = _function_of(target)
    if function is not None and not is_own(function):
        for _, name, value in named_values(function):
            yield name, value


class _Reached:
    """The user's functions that a call of `target` may run."""

    def __init__(self, target: Any) -> None:
        self.functions: list[FunctionType] = []
        self._mentioned = set(_ALWAYS)
        self._waiting: dict[str, list[Any]] = {}  # methods of classes that were met, until their names are
        self._seen: set[int] = set()
        self._classes: set[type] = set()
        self._stack: list[Any] = [target]
        while self._stack and len(self._seen) < _MOST_REACHED:
            value = self._stack.pop()
            if id(value) in self._seen or isinstance(value, (*_PLAIN, ModuleType, BuiltinFunctionType)):
                continue
            self._seen.add(id(value))
            self._take(value)

    def _take(self, value: Any) -> None:
        if isinstance(value, functools.partial):
            self._stack += [value.func, *value.args, *value.keywords.values()]
        elif isinstance(value, MethodType):
            self._stack += [value.__func__, value.__self__]
        elif isinstance(value, FunctionType):
            self._take_function(value)
        elif isinstance(value, staticmethod | classmethod):
            self._stack.append(value.__func__)
        elif isinstance(value, property):
            self._stack += [f for f in (value.fget, value.fset) if f is not None]
        elif isinstance(value, type):
            self._take_class(value)
        elif isinstance(value, list | tuple | dict):
            if len(value) <= _MOST_ITEMS:
                self._stack += dict.values(value) if isinstance(value, dict) else value
        elif type(value).__flags__ & ON_HEAP:
            self._take_class(type(value))
            held = getattr(value, "__dict__", None)
            if isinstance(held, dict):
                self._stack += [x for name, x in held.items() if not name.startswith("_") or name in _HOLDING or callable(x)]

    def _take_function(self, function: FunctionType) -> None:
        inner = _unwrapped(function)
        if inner is not function:
            self._stack.append(inner)
        if is_own(function):
            self._stack += [value for cell, _, value in named_values(function) if isinstance(cell, CellType)]
            return
        self.functions.append(function)
        for _, _, value in named_values(function):
            self._stack.append(value)
        self._stack += function.__defaults__ or ()
        for name in _names(function.__code__).attributes - self._mentioned:
            self._mentioned.add(name)
            self._stack += self._waiting.pop(name, ())

    def _take_class(self, kind: type) -> None:
        for base in kind.__mro__:
            if base in self._classes or is_own(base) or not base.__flags__ & ON_HEAP:
                continue
            self._classes.add(base)
            for name, value in vars(base).items():
                if isinstance(value, FunctionType | staticmethod | classmethod | property):
                    (self._stack if name in self._mentioned else self._waiting.setdefault(name, [])).append(value)


def _function_of(target: Any) -> FunctionType | None:
    """The Python function behind a callable: a module's is its forward."""
    if isinstance(target, MethodType):
        target = target.__func__
    if not isinstance(target, FunctionType):
        forward = getattr(type(target), "forward", None)
        target = forward if isinstance(forward, FunctionType) else None
    return None if target is None else _unwrapped(target)


def _unwrapped(function: FunctionType) -> FunctionType:
    while isinstance(inner := getattr(function, "__wrapped__", None), FunctionType):
        function = inner
    return function


def is_own(thing: Any) -> bool:
    """Whether a function or class is graphc's."""
    return (getattr(thing, "__module__", None) or "").partition(".")[0] == "graphc"


def named_values(function: FunctionType) -> Iterator[tuple[dict[str, Any] | CellType, str, Any]]:
    """(where, name, value) of the globals and closure cells that a function's code names, and those of code nested in it."""
    for cell, name in zip(function.__closure__ or (), function.__code__.co_freevars, strict=True):
        try:
            yield cell, name, cell.cell_contents
        except ValueError:
            continue  # not filled yet
    for name in _names(function.__code__).globals:
        if name in function.__globals__:
            yield function.__globals__, name, function.__globals__[name]


class _Names(NamedTuple):
    """What code reads by name: globals, in order, attributes, cells; with what code nested in it reads."""

    globals: tuple[str, ...]
    attributes: frozenset[str]
    cells: frozenset[str]


@functools.lru_cache(4096)
def _names(code: CodeType) -> _Names:
    found: dict[str, dict[str, None]] = {"GLOBAL": {}, "ATTR": {}, "DEREF": {}}
    for instruction in dis.get_instructions(code):
        kind = _READING.get(instruction.opname)
        if kind is not None:
            found[kind][instruction.argval] = None
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            for names, inner in zip(found.values(), _names(constant), strict=True):
                names |= dict.fromkeys(inner)
    return _Names(tuple(found["GLOBAL"]), frozenset(found["ATTR"]), frozenset(found["DEREF"]))


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(map(_is_plain, value)))
