"""Where every stored value lives.

Enters: launches in order.  Leaves: for each stored value a `Place`: an input, an output, or an offset in one arena.
Never here: kernels.  Offsets by first fit over lifetimes, largest values first; source: Pisarchyk and Lee, "Efficient
memory management for deep neural net inference" (2020), greedy by size.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 64


@dataclass(frozen=True)
class Interval:
    """A value of `nbytes` bytes needed from step `start` to step `end`, both included."""

    nbytes: int
    start: int
    end: int


def assign_offsets(intervals: Sequence[Interval]) -> tuple[list[int], int]:
    """Byte offsets (64-byte aligned, never overlapping while both are needed) and the arena's size."""
    offsets = [0] * len(intervals)
    placed: list[int] = []  # by offset
    total = 0
    for i in sorted(range(len(intervals)), key=lambda i: -intervals[i].nbytes):
        mine = intervals[i]
        size = -(-mine.nbytes // ALIGNMENT) * ALIGNMENT
        at = 0
        for other in placed:
            theirs = intervals[other]
            if theirs.end < mine.start or mine.end < theirs.start:
                continue
            if at + size <= offsets[other]:
                break
            at = max(at, offsets[other] + -(-theirs.nbytes // ALIGNMENT) * ALIGNMENT)
        offsets[i] = at
        bisect.insort(placed, i, key=offsets.__getitem__)
        total = max(total, at + size)
    return offsets, total
