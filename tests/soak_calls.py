"""Compiled calls for long: ``python tests/soak_calls.py [--calls 10000] [--functions 1000]``.

Calls whose sizes, branches, dtypes and modes change, and compiled functions that are made, called and dropped.  Afterwards there is
no more memory, code or regions of memory than after half as many.  `tests/test_soak.py` runs a few of each.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import random
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
from graphc.runtime import link, memory


class Held(NamedTuple):
    """What a process holds: resident KiB, regions of memory, Python objects and blocks, libraries of code, bytes of idle arenas."""

    rss: int
    regions: int
    objects: int
    blocks: int
    libraries: int
    arenas: int


def held() -> Held:
    """What this process holds now."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what the C library keeps for itself is nobody's
    rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    regions = Path("/proc/self/maps").read_text().count("\n")
    arenas = sum(arena.nbytes for arena in memory._idle_arenas)
    return Held(rss, regions, len(gc.get_objects()), sys.getallocatedblocks(), sum(x.alive for x in link._linkers), arenas)


class Model(nn.Module):
    """A branch on elements, one on a size, one on a number, state that every call changes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 8)
        self.calls = 0
        self.last: Any = None
        self.register_buffer("seen", graphc.zeros(8))

    def forward(self, x: Any, scale: int = 1) -> Any:
        self.calls += 1
        h = F.gelu(self.first(x))
        y = self.second(h) * scale
        if x.shape[0] > 20:
            y = y.flip(0)
        if y.mean() > 0:
            y = y - 1.0
        self.seen.add_(y.detach().sum(0))
        self.last = y.detach()
        return y


def run_calls(count: int, seed: int = 0) -> Callable[[int], None]:
    """A loop over calls of compiled functions; `count` sizes are drawn from.  Gives what runs it so many times."""
    draw = random.Random(seed)
    model, twin = Model(), Model()
    twin.load_state_dict(model.state_dict())
    compiled = graphc.compile(model)
    plain = graphc.compile(lambda x, flag: (x.softmax(-1) if flag else x.cumsum(-1), x.double().sum()))
    optimizer = graphc.optim.AdamW(model.parameters(), 1e-3)
    pair = graphc.optim.AdamW(twin.parameters(), 1e-3)

    def run(turns: int) -> None:
        for turn in range(turns):
            x = graphc.randn(draw.randrange(count), 8)
            plain(x if turn % 7 else x.half().float(), bool(turn & 4))
            if turn % 3:
                with graphc.no_grad():
                    got, wanted = compiled(x, 1 + turn % 2), twin(x, 1 + turn % 2)
            else:
                got, wanted = compiled(x), twin(x)
                for y, step in ((got, optimizer), (wanted, pair)):
                    step.zero_grad()
                    y.sum().backward()
                    step.step()
            if turn % 50 == 0:
                model.train(turn % 100 == 0)
                assert got.detach().numpy().tobytes() == wanted.detach().numpy().tobytes()
                assert model.seen.numpy().tobytes() == twin.seen.numpy().tobytes()

    return run


def run_functions(count: int, size: int = 64) -> None:
    """So many compiled functions, of eight programs that are in the disk cache, called with and without gradients, and dropped."""
    for i in range(count):
        model = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))
        compiled = graphc.compile(lambda x, model=model, i=i: model(x) * float(i % 8))
        x = graphc.randn(4, size)
        compiled(x).sum().backward()
        with graphc.no_grad():
            for _ in range(10):
                compiled(x)
        gone = weakref.ref(model)
        del compiled, model
        if i % 50 == 0:
            gc.collect()
            assert gone() is None, "a dropped function's model is still there"


def grown(before: Held, after: Held) -> str:
    """Both, in words."""
    return ", ".join(f"{name} {a} -> {b}" for name, a, b in zip(Held._fields, before, after, strict=True))


def main() -> int:
    """Exit status: 1 where something grew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=10000)
    parser.add_argument("--functions", type=int, default=1000)
    given = parser.parse_args()
    run, status = run_calls(40), 0
    for what, part, count in (("calls", run, given.calls), ("functions", run_functions, given.functions)):
        part(count // 2)
        start, before = time.perf_counter(), held()
        part(count)
        after = held()
        print(f"{count} {what} in {time.perf_counter() - start:.0f} s: {grown(before, after)}", flush=True)
        status |= after.rss > 1.05 * before.rss + 4096 or after.libraries > before.libraries + 4
    return status


if __name__ == "__main__":
    sys.exit(main())
