"""PyTorch's newer place of the profiler; no mechanism of its own (`graphc.autograd.profiler`)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from graphc.autograd.profiler import ProfilerActivity, profile, record_function


class ProfilerAction(Enum):
    """What a profiler does at a step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0, skip_first_wait: int = 0
) -> Callable[[int], ProfilerAction]:
    """What to do at each step: `wait` of nothing, `warmup`, `active` of recording, and again; a `profile` here records all steps.

    skip_first: steps before the first cycle.   skip_first_wait: the first cycle does not wait.   repeat: how many cycles.
    """

    def action(step: int) -> ProfilerAction:
        step -= skip_first
        if step >= 0 and skip_first_wait:
            step += wait
        cycle, at = divmod(step, wait + warmup + active)
        if step < 0 or (repeat and cycle >= repeat) or at < wait:
            return ProfilerAction.NONE
        if at < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD_AND_SAVE if at == wait + warmup + active - 1 else ProfilerAction.RECORD

    return action


__all__ = ["ProfilerAction", "ProfilerActivity", "profile", "record_function", "schedule"]
