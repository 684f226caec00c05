"""``python -m bench dataloader [names] [--rounds N]``: data loaders beside PyTorch's on the same data sets.

Enters: names of loads.  Leaves: microseconds per batch of both (the median of rounds), the median of the rounds' ratios (PyTorch's
time over graphc's: above 1 is faster than PyTorch), and their geometric mean.  Never here: models.

Each library has a process of its own.  They take turns of an epoch each, so that a slow second on a shared machine is slow for
both; batches are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

ROUNDS = 15
LEAST_S = 0.3  # of a turn


class Samples:
    """Rows of an array in the library's tensors, changed by `transform`, with their labels."""

    def __init__(self, lib: Any, array: np.ndarray[Any, Any], transform: Callable[[Any], Any] | None = None) -> None:
        self.rows, self.transform = lib.tensor(array), transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        row = self.rows[index]
        return row if self.transform is None else self.transform(row), index % 10


class Arrays:
    """Rows of an array as NumPy arrays, changed a little, with their labels."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.rows = array

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index] * np.float32(2) - np.float32(1), index % 10


def light(x: Any) -> Any:
    """A light transform, as of images."""
    return (x - 0.5) * 2.0


def _random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random(shape, np.float32)


def _tensors(lib: Any, data: Any, count: int) -> Any:
    return data.TensorDataset(lib.tensor(_random(count, 16)), lib.arange(count))


# name -> (data set of a library, arguments of the loader)
LOADS: dict[str, tuple[Callable[[Any, Any], Any], dict[str, Any]]] = {
    "images, 2 workers": (lambda lib, data: Samples(lib, _random(2048, 3, 64, 64), light), {"num_workers": 2, "batch_size": 64}),
    "NumPy images, 2 workers": (lambda lib, data: Arrays(_random(2048, 3, 64, 64)), {"num_workers": 2, "batch_size": 64}),
    "stored images, 2 workers": (
        lambda lib, data: Samples(lib, _random(2048, 3, 64, 64)),
        {"num_workers": 2, "batch_size": 64},
    ),
    "tiny samples, 2 workers": (lambda lib, data: Samples(lib, _random(16384, 8)), {"num_workers": 2, "batch_size": 64}),
    "tiny batches, 2 workers": (lambda lib, data: Samples(lib, _random(2048, 8)), {"num_workers": 2, "batch_size": 4}),
    "tensors, 2 workers": (lambda lib, data: _tensors(lib, data, 16384), {"num_workers": 2, "batch_size": 64}),
    "images, no worker": (lambda lib, data: Samples(lib, _random(512, 3, 64, 64), light), {"batch_size": 64}),
    "tiny samples, no worker": (lambda lib, data: Samples(lib, _random(4096, 8)), {"batch_size": 64}),
    "tensors, no worker": (lambda lib, data: _tensors(lib, data, 4096), {"batch_size": 64}),
    "epochs of 4 batches, no worker": (lambda lib, data: _tensors(lib, data, 16), {"batch_size": 4}),
    "shuffled epochs of 4 batches, no worker": (lambda lib, data: _tensors(lib, data, 16), {"batch_size": 4, "shuffle": True}),
    "epochs of 4 batches, 2 workers": (lambda lib, data: _tensors(lib, data, 16), {"num_workers": 2, "batch_size": 4}),
}


def serve(library: str) -> None:
    """A library's process: for every line ``name seconds`` on its input, a line of microseconds per batch on its output.

    A name's first line gives a checksum of the batches instead.
    """
    lib: Any = importlib.import_module(library)
    data: Any = importlib.import_module(f"{library}.utils.data")
    lib.set_num_threads(1)
    made: dict[str, Any] = {}
    for line in sys.stdin:
        name, seconds = line.rstrip("\n").rsplit(" ", 1)
        if name not in made:
            for old in list(made):
                del made[old]
            dataset, options = LOADS[name]
            made[name] = data.DataLoader(dataset(lib, data), persistent_workers="num_workers" in options, **options)
            total = sum(float(x.sum()) + float(y.sum()) for x, y in made[name])
            for _ in range(8):
                for _ in made[name]:
                    pass
            print(total, flush=True)
            continue
        batches, start = 0, time.perf_counter()
        while time.perf_counter() - start < float(seconds):
            for _ in made[name]:
                batches += 1
        print(1e6 * (time.perf_counter() - start) / batches, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 where every load is at least as fast as PyTorch's."""
    parser = argparse.ArgumentParser(prog="python -m bench dataloader", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="loads; all without any")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of each library ({ROUNDS})")
    parser.add_argument("--serve", metavar="LIBRARY", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.serve:
        serve(given.serve)
        return 0
    command = [sys.executable, "-m", "bench", "dataloader", "--serve"]
    processes = [
        subprocess.Popen([*command, library], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for library in ("graphc", "torch")
    ]

    def ask(process: subprocess.Popen[str], line: str) -> float:
        assert process.stdin and process.stdout
        print(line, file=process.stdin, flush=True)
        return float(process.stdout.readline())

    print(f"{'load':40} {'graphc us':>10} {'torch us':>10}  ratio")
    ratios = []
    for name in given.names or LOADS:
        ours, theirs = (ask(process, f"{name} 0") for process in processes)
        if not math.isclose(ours, theirs, rel_tol=1e-3):
            print(f"{name:40} batches differ: sums {ours}, {theirs}")
            continue
        rounds = [[ask(process, f"{name} {LEAST_S}") for process in processes] for _ in range(given.rounds)]
        ratios.append(statistics.median(b / a for a, b in rounds))
        ours, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{name:40} {ours:10.1f} {theirs:10.1f} {ratios[-1]:6.2f}", flush=True)
    for process in processes:
        assert process.stdin
        process.stdin.close()
        process.wait()
    print(f"geometric mean {math.exp(statistics.fmean(map(math.log, ratios))):.2f} of {len(ratios)} loads")
    return 0 if min(ratios) >= 1 and len(ratios) == len(given.names or LOADS) else 1
