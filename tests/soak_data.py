"""Loaders for long: ``python tests/soak_data.py [--epochs 10000] [--crashes 100] [--interrupts 100]``.

Epochs of a tiny data set, here and with persistent workers; workers killed in different ways; Ctrl-C at random moments.  After each
there is no process, no shared memory, no open file and no file more than before.  `tests/test_data_workers.py` runs a few of each.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import graphc
from graphc.data import DataLoader, Dataset, TensorDataset

ENDS = ("SIGKILL", "SIGSEGV", "exit code 3")


class Large(Dataset[Any]):
    """Samples large enough for shared memory; `end` says how the worker that reads sample `at` ends."""

    def __init__(self, at: int = -1, end: str = "") -> None:
        self.at, self.end = at, end

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        if index == self.at:
            if self.end.startswith("SIG"):
                if self.end != "SIGKILL":
                    signal.signal(signal.Signals[self.end], signal.SIG_DFL)  # not pytest's fault handler
                os.kill(os.getpid(), signal.Signals[self.end])
                time.sleep(5)
            os._exit(int(self.end.rpartition(" ")[2]))
        return graphc.full((3, 64, 64), float(index)), index


def children() -> set[int]:
    """The processes that this one started and that have not been waited for."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(status.parent.name))
    return found


def shared_maps() -> int:
    """How many pieces of batches are mapped into this process."""
    return Path("/proc/self/maps").read_text().count("graphc-batch")


def left() -> tuple[set[int], int, int, set[str]]:
    """Child processes, maps, open files, names of temporary and shared files (others use /dev/shm too)."""
    gc.collect()
    names = {*Path(tempfile.gettempdir()).glob("*"), *Path("/dev/shm").glob("*graphc*")}
    return children(), shared_maps(), len(os.listdir("/proc/self/fd")), {str(name) for name in names}


@contextlib.contextmanager
def nothing_left(what: str) -> Iterator[None]:
    """Check that what runs inside leaves nothing."""
    outer = tempfile.gettempdir()
    with tempfile.TemporaryDirectory() as tempfile.tempdir:
        try:
            before = left()
            yield
            after = left()
        finally:
            tempfile.tempdir = outer
    assert after[0] <= before[0], f"{what}: processes {after[0] - before[0]}"
    assert after[1] == before[1], f"{what}: {after[1] - before[1]} pieces of shared memory"
    assert after[2] <= before[2], f"{what}: {after[2] - before[2]} open files"
    assert after[3] <= before[3], f"{what}: files {after[3] - before[3]}"


def run_epochs(count: int, **options: Any) -> None:
    """So many epochs of 16 samples."""
    data = TensorDataset(graphc.arange(16), graphc.ones(16, 4))
    loader = DataLoader(data, batch_size=4, shuffle=True, **options)
    for _ in range(count):
        seen = [i for labels, _ in loader for i in labels.tolist()]
        assert sorted(seen) == list(range(16))


def run_crashes(count: int, **options: Any) -> None:
    """So many workers that end while they read; the error says which sample and how."""
    for i in range(count):
        end, at = ENDS[i % len(ENDS)], (7 * i) % 64
        loader = DataLoader(Large(at, end), batch_size=8, num_workers=2, persistent_workers=bool(i % 2), **options)
        try:
            for _ in loader:
                pass
        except RuntimeError as error:
            text = str(error)
            first = at // 8 * 8
            assert "exited unexpectedly" in text and end in text and f"indices [{first}, {first + 1}" in text, text
        else:
            raise AssertionError("the loader did not notice")


def run_interrupts(count: int, seed: int = 0) -> None:
    """So many Ctrl-C at random moments of reading, to this process and its workers as a terminal sends it."""
    delays = random.Random(seed)
    for i in range(count):
        over = threading.Event()
        thread = threading.Thread(target=_interrupt, args=(0.005 + 0.08 * delays.random(), over))
        iterator: Any = None
        try:
            thread.start()
            while True:
                iterator = iter(DataLoader(Large(), batch_size=8, num_workers=2, persistent_workers=bool(i % 2)))
                for _ in iterator:
                    pass
        except KeyboardInterrupt:
            over.set()
        finally:
            del iterator
        thread.join()


def _interrupt(delay_s: float, over: threading.Event) -> None:
    time.sleep(delay_s)
    while not over.is_set():  # Python drops one that comes in a destructor
        for process in {*children(), os.getpid()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGINT)
        over.wait(1.0)


def main() -> int:
    """Exit status 0; an AssertionError says what was left."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10000)
    parser.add_argument("--crashes", type=int, default=100)
    parser.add_argument("--interrupts", type=int, default=100)
    given = parser.parse_args()
    run_epochs(3)
    run_epochs(3, num_workers=2)
    parts = {
        f"{given.epochs} epochs here": lambda: run_epochs(given.epochs),
        f"{given.epochs} epochs with persistent workers": lambda: run_epochs(given.epochs, num_workers=2, persistent_workers=True),
        f"{given.epochs // 100} epochs with new workers": lambda: run_epochs(given.epochs // 100, num_workers=2),
        f"{given.crashes} crashes": lambda: run_crashes(given.crashes),
        f"{given.interrupts} interrupts": lambda: run_interrupts(given.interrupts),
    }
    for what, part in parts.items():
        start = time.perf_counter()
        with nothing_left(what):
            part()
        print(f"{what}: nothing left, {time.perf_counter() - start:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
