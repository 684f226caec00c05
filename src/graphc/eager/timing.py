"""Operators called while a profile is on go through it.

Enters: profiles.  Leaves: calls of their `timed`.  Never here: tables.
"""

from __future__ import annotations

import threading
from typing import Any

from graphc.ir.op import Op, Runner, running


class _Profiles(threading.local):
    """Of this thread, in the order in which they began, with what made operators come to each."""

    def __init__(self) -> None:
        self.on: list[tuple[Any, running]] = []


_profiles = _Profiles()


def profiles() -> list[Any]:
    """The profiles that are on."""
    return [profile for profile, _ in _profiles.on]


def start(profile: Any) -> None:
    """From now on `profile.timed` runs every operator."""
    below = running.current()

    def timed(op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        return profile.timed(op.name, lambda: below(op, inputs, attrs))

    runner: Runner = timed
    entry = running(runner)
    entry.__enter__()
    _profiles.on.append((profile, entry))


def stop(profile: Any) -> None:
    """No more.  Raises RuntimeError where another profile began later and is still on."""
    last, entry = _profiles.on[-1]
    if last is not profile:
        raise RuntimeError("profile: profiles must end in the opposite order of their beginning")
    _profiles.on.pop()
    entry.__exit__()
