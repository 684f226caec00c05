"""PyTorch's namespace of that name: saving, loading, and the classes of the user's that files may hold.

Enters: classes.  Leaves: the list that pickles are read and written by.  Never here: files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc.checkpoints.allowed import full_name, user_globals
from graphc.errors import at_user_line
from graphc.saving import load, save

Global = Any


def _named(given: Iterable[Global]) -> dict[str, Any]:
    found = {}
    for one in given:
        thing, name = one if isinstance(one, tuple) and len(one) == 2 else (one, None)
        if not callable(thing) or not (name is None or isinstance(name, str)):
            raise TypeError(at_user_line(f"safe globals are classes, functions or (class, full name) pairs, not {one!r}"))
        found[name or full_name(thing)] = thing
    return found


def add_safe_globals(safe_globals: list[Global]) -> None:
    """Let files name these classes and functions: loading then calls them, and saving writes objects of the classes.

    safe_globals: each a class or function, or a pair of it and the full name that files have for it.  Raises TypeError.
    """
    user_globals.update(_named(safe_globals))


def get_safe_globals() -> list[Global]:
    """What `add_safe_globals` was given."""
    return [thing if full_name(thing) == name else (thing, name) for name, thing in user_globals.items()]


def clear_safe_globals() -> None:
    """Forget what `add_safe_globals` was given."""
    user_globals.clear()


class safe_globals:
    """As a context manager, `add_safe_globals` for what is loaded and saved inside."""

    def __init__(self, safe_globals: list[Global]) -> None:
        self._given = _named(safe_globals)
        self._before: dict[str, Any] = {}

    def __enter__(self) -> None:
        self._before = dict(user_globals)
        user_globals.update(self._given)

    def __exit__(self, *_: object) -> None:
        user_globals.clear()
        user_globals.update(self._before)


__all__ = ["add_safe_globals", "clear_safe_globals", "get_safe_globals", "load", "safe_globals", "save"]
