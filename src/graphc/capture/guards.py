"""The plain Python values that a function reads, so that compiled code notices when they change.

Enters: a function or module.  Leaves: `PlainValue`s: numbers, strings, bools, None and tuples of them in globals and closure cells
that the code names, in it and in the user's functions it calls by such a name.
Never here: values inside lists, dicts and other objects (Python gives no way to notice a change there), module attributes (the
epoch).
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

_PLAIN = (bool, int, float, str, type(None))
_MISSING = object()


class PlainValue:
    """One value and where it was read: a global of `owner` called `name`, or a closure cell."""

    __slots__ = ("name", "owner", "value")

    def __init__(self, owner: dict[str, Any] | CellType, name: str, value: Any) -> None:
        self.owner, self.name, self.value = owner, name, value

    def holds(self) -> bool:
        """Whether the value is still the same (of the same type)."""
        owner = self.owner
        try:
            now = owner.get(self.name, _MISSING) if type(owner) is dict else owner.cell_contents  # type: ignore[union-attr]
        except ValueError:  # an emptied cell
            return False
        return now is self.value or (type(now) is type(self.value) and now == self.value)


def plain_values(target: Callable[..., Any]) -> list[PlainValue]:
    """Every plain value that `target` reads from outside, directly or through the functions it names."""
    found: list[PlainValue] = []
    seen: set[int] = set()
    stack: list[Any] = [target]
    while stack:
        function = _function_of(stack.pop())
        if function is None or id(function) in seen or _is_own(function):
            continue
        seen.add(id(function))
        for owner, name, value in named_values(function):
            if _is_plain(value):
                found.append(PlainValue(owner, name, value))
            elif isinstance(value, FunctionType | MethodType):
                stack.append(value)
    return found


def _function_of(target: Any) -> FunctionType | None:
    """The Python function behind a callable: a module's is its forward."""
    if isinstance(target, MethodType):
        target = target.__func__
    if not isinstance(target, FunctionType):
        forward = getattr(type(target), "forward", None)
        target = forward if isinstance(forward, FunctionType) else None
    while target is not None and hasattr(target, "__wrapped__"):
        inner = target.__wrapped__
        if not isinstance(inner, FunctionType):
            break
        target = inner
    return target  # type: ignore[no-any-return]


def _is_own(function: FunctionType) -> bool:
    return (function.__module__ or "").partition(".")[0] == "graphc"


def named_values(function: FunctionType) -> Iterator[tuple[dict[str, Any] | CellType, str, Any]]:
    """(where, name, value) of the globals and closure cells that a function's code names, and those of code nested in it."""
    for cell, name in zip(function.__closure__ or (), function.__code__.co_freevars, strict=True):
        try:
            yield cell, name, cell.cell_contents
        except ValueError:
            continue  # not filled yet
    for name in dict.fromkeys(_global_names(function.__code__)):
        if name in function.__globals__:
            yield function.__globals__, name, function.__globals__[name]


def _global_names(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(map(_is_plain, value)))
