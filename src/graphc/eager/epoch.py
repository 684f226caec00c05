"""The epoch: one number that says which state modules, optimizers and hooks are in, as far as compiled code depends on it.

Enters: changes.  Leaves: `epoch`, which code compiled at another epoch does not hold for.  Never here: who compares.

A change counts up.  A change between two states that is undone (training mode, a hook) gives the very epoch that was before it, so
what was compiled in either state holds again.  What traced code read is not known, so whatever it may have read counts, but for
attributes that change all the time: those move to where every read is seen (`graphc.nn.moving`).
"""

from __future__ import annotations

epoch = [0]  # one element, changed in place, for machine code looks there; below `_COUNTED` changes, above it flips
traces = [0]  # how many traces there have been
_COUNTED = 1 << 64
_MOST_KNOWN = 4096
_MOST_CHANGES = 3
_known: dict[int, int] = {}  # machine code compares objects: epochs that may come again are the same ones
_changed: dict[tuple[int, str], tuple[int, int]] = {}


def flipped(thing: object, name: str | int) -> None:
    """One of the two states that `name` of a thing has became the other one."""
    before = epoch[0]
    after = before ^ (hash((id(thing), name)) & (_COUNTED - 1)) << 64
    if len(_known) > _MOST_KNOWN:
        _known.clear()
    _known.setdefault(before, before)
    epoch[0] = _known.setdefault(after, after)


def may_return(before: int) -> bool:
    """Whether the epoch may be `before` again: it is, or all that has changed since can be undone."""
    return (before ^ epoch[0]) % _COUNTED == 0


def changes_often(thing: object, name: str) -> bool:
    """Note that a thing's attribute changes.  Whether that has made code that was traced meanwhile useless several times."""
    if not traces[0]:
        return False
    key = id(thing), name
    at, count = _changed.get(key, (traces[0], 0))
    if len(_changed) > _MOST_KNOWN:
        _changed.clear()
    count += at != traces[0]
    _changed[key] = traces[0], count
    return count >= _MOST_CHANGES


__all__ = ["changes_often", "epoch", "flipped", "may_return", "traces"]
