"""`RemovableHandle`: what registering a hook gives.

Enters: a dict of hooks.  Leaves: a number in it, and the way to take the hook away.  Never here: calling hooks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, MutableMapping
from typing import Any

_numbers = itertools.count()


class RemovableHandle:
    """The place of a hook in a dict of hooks; `remove()` (or the end of a ``with`` block) takes the hook away.

    id: its key in `hooks_dict` and in each of `extra_dict` (one dict or a list of them), where the owner put the hook.
    changed: called after a removal.
    """

    def __init__(self, hooks_dict: MutableMapping[int, Any], *, extra_dict: Any = None, changed: Callable[[], None] | None = None):
        extra = extra_dict if isinstance(extra_dict, list | tuple) else () if extra_dict is None else (extra_dict,)
        self.dicts: tuple[MutableMapping[int, Any], ...] = (hooks_dict, *extra)
        self.id = next(_numbers)
        self.changed = changed

    def remove(self) -> None:
        """Take the hook away; nothing happens where it is gone already."""
        found = [hooks for hooks in self.dicts if self.id in hooks]
        for hooks in found:
            del hooks[self.id]
        if found and self.changed is not None:
            self.changed()

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def hooked(hooks: MutableMapping[int, Any], entry: Any, changed: Callable[[], None] | None = None) -> RemovableHandle:
    """Put `entry` behind the other hooks and give its handle.   changed: called now and after a removal."""
    handle = RemovableHandle(hooks, changed=changed)
    hooks[handle.id] = entry
    if changed is not None:
        changed()
    return handle
