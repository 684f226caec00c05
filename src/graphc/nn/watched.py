"""`Watched`: a dict that counts up the epoch when it changes, for what modules hold.

Enters: entries.  Leaves: the same, noticed by compiled code.  Never here: what the entries mean.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from graphc.eager import dispatch
from graphc.eager.epoch import flipped

_ABSENT: Any = object()
_SPAN = 1 << 40  # changes that may happen within one visit
_visits = itertools.count(-_SPAN, -_SPAN)


class Watched(OrderedDict[Any, Any]):
    """An ordered dict.  Every change counts up the epoch that compiled code compares, so user code may write to it directly.

    An entry under a number is a hook, and no other hook ever has that number: where the last one is taken out again, nothing has
    changed since before it was put in.
    """

    def __setitem__(self, key: Any, value: Any) -> None:
        before = self.get(key, _ABSENT)
        super().__setitem__(key, value)
        if before is _ABSENT and type(key) is int:
            flipped(self, key)
        elif before is not value:
            dispatch.epoch[0] += 1

    def __delitem__(self, key: Any) -> None:
        is_last = type(key) is int and key in self and key == next(reversed(self))
        super().__delitem__(key)
        if is_last:
            flipped(self, key)
        else:
            dispatch.epoch[0] += 1

    def clear(self) -> None:
        """Take every entry out."""
        super().clear()
        dispatch.epoch[0] += 1

    def move_to_end(self, key: Any, last: bool = True) -> None:
        """Put an entry last or first.  Raises KeyError."""
        super().move_to_end(key, last)
        dispatch.epoch[0] += 1


@contextmanager
def exchanged(entries: list[tuple[MutableMapping[Any, Any], Any, Any]]) -> Iterator[None]:
    """While inside, ``place[key]`` is `value` for each (place, key, value).

    Code compiled before is traced again only where it is called inside: outside, nothing has changed for it.
    """
    epoch = dispatch.epoch
    outside, inside = epoch[0], next(_visits)
    before = [(place, key, place[key]) for place, key, _ in entries]
    try:
        for place, key, value in entries:
            place[key] = value
        epoch[0] = inside
        yield
    finally:
        unchanged = epoch[0] == inside
        for place, key, value in reversed(before):
            place[key] = value
        epoch[0] = outside if unchanged else max(outside, epoch[0]) + 1


__all__ = ["Watched", "exchanged"]
