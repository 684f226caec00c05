"""What machine code can be entered through.

Enters: nothing.  Leaves: the type that compiled functions are made of.  Never here: machine code.
"""

from __future__ import annotations

from typing import Any


class Entered:
    """A callable whose calls machine code may serve.   _entry: the address of its first PROGRAM record and what keeps all of them
    alive, or None."""

    __slots__ = ("_entry",)

    _entry: tuple[int, Any] | None
