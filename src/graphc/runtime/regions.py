"""Linked code as few regions of this process's memory, of which Linux allows 65,530.

Enters: addresses of code.  Leaves: nothing; the regions around them are one where they were many.  Never here: what the code is.

LLVM's linker maps each object's constants (readable) beside its code (readable, executable), so neighbours never merge, and a
process that runs some 30,000 programs is ended by the kernel's refusal.  Constants that are executable too, and still not writable,
merge with the code around them.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_READ_EXECUTE = 1 | 4


def merge(addresses: Sequence[int]) -> None:
    """Merge the constants and the code of objects that have code at `addresses`.  Where the kernel refuses, they stay apart."""
    if sys.platform != "linux":
        return
    regions = list(_unnamed())
    protect = ctypes.CDLL(None).mprotect
    places = sorted(addresses)
    at = 0
    for i, (begin, end, access) in enumerate(regions):
        while at < len(places) and places[at] < begin:
            at += 1
        if access == "r-xp" and at < len(places) and places[at] < end:
            for other, edge in ((i - 1, begin), (i + 1, end)):
                if 0 <= other < len(regions) and regions[other][2] == "r--p" and edge in regions[other][:2]:
                    first, last, _ = regions[other]
                    protect(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _READ_EXECUTE)


def _unnamed() -> Iterator[tuple[int, int, str]]:
    """(begin, end, access) of the regions that are of no file, in order."""
    for line in _MAPS.read_text().splitlines():
        parts = line.split()
        if len(parts) == 5:
            begin, end = parts[0].split("-")
            yield int(begin, 16), int(end, 16), parts[1]


__all__ = ["merge"]
