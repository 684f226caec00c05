"""``python -m bench sizes [NAMES] [--sizes N,N] [--threads N] [--cpu]``: programs of open sizes beside those of one size.

Enters: programs by name, sizes.  Leaves: microseconds of a call by a program that serves every size and by one compiled for that
very size, in turns in one process, and their ratio.  Never here: other libraries.

Results are compared first, bit for bit.  Every size has a record of its own in both, as in a program that meets them all.
--cpu: the time of the processor instead of the clock's, on one thread; of use where other work is on the machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

SIZES = (2, 3, 5, 8, 13, 33, 64, 100, 257, 512)
TURN_S, TURNS, RECORDED = 4e-3, 14, 12
Case = tuple[Callable[[Any], Any], Callable[[int], tuple[int, ...]]]


def cases(t: Any) -> dict[str, Case]:
    """Functions of one tensor, and its shape for a size."""
    from bench.workloads.nets import lstm, mobilenet_v2, perceptron, resnet18

    nn = t.nn
    convolutions = nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2048, 10),
    )  # fmt: skip
    normed = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.LayerNorm(512), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    return {
        "pointwise": (lambda x: x * 2 + 1, lambda n: (n, 1000)),
        "sum_over_batch": (lambda x: x.sum(0), lambda n: (n, 1000)),
        "sum_of_rows": (lambda x: x.sum(1), lambda n: (n, 1000)),
        "softmax": (lambda x: t.nn.functional.softmax(x, -1), lambda n: (n, 1000)),
        "sum_of_open_rows": (lambda x: x.sum(1), lambda n: (1000, n)),
        "softmax_of_open_rows": (lambda x: t.nn.functional.softmax(x, -1), lambda n: (1000, n)),
        "mlp_small": (perceptron(t, (20, 32, 10)).eval(), lambda n: (n, 20)),
        "mlp": (normed.eval(), lambda n: (n, 256)),
        "convolutions": (convolutions.eval(), lambda n: (n, 3, 32, 32)),
        "lstm": (lstm(t).eval(), lambda n: (n, 16, 128)),
        "resnet18_32": (resnet18(t, 10, small=True).eval(), lambda n: (n, 3, 32, 32)),
        "resnet18_64": (resnet18(t).eval(), lambda n: (n, 3, 64, 64)),
        "mobilenet_v2_96": (mobilenet_v2(t).eval(), lambda n: (n, 3, 96, 96)),
    }


def timed(calls: Sequence[Callable[[], Any]], clock: Callable[[], float]) -> list[float]:
    """The median seconds of each call, in turns."""
    for call in calls:
        for _ in range(RECORDED):
            call()
    start = clock()
    calls[0]()
    count = max(2, min(2000, int(TURN_S / max(clock() - start, 1e-6))))
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(TURNS):
        for call, found in zip(calls, seconds, strict=True):
            start = clock()
            for _ in range(count):
                call()
            found.append((clock() - start) / count)
    return [statistics.median(found) for found in seconds]


def measure(t: Any, name: str, case: Case, sizes: Sequence[int], clock: Callable[[], float]) -> float:
    """Prints a line a size; gives the highest ratio.  Raises AssertionError where bits differ."""
    function, shape = case
    opened, single = t.compile(function), t.compile(function, dynamic=False)
    given = {n: t.randn(*shape(n)) for n in sorted({*sizes, 7, 9})}
    for n in (7, 9):
        opened(given[n])
    highest = 0.0
    for n in sizes:
        x = given[n]
        assert opened(x).numpy().tobytes() == single(x).numpy().tobytes(), f"{name} of {n}: other bits"
        alone, both = timed([lambda x=x: single(x), lambda x=x: opened(x)], clock)  # type: ignore[misc]  # mypy has no such lambdas
        highest = max(highest, both / alone)
        print(f"{name:16} {n:5} {1e6 * alone:12.1f} {1e6 * both:12.1f} {both / alone:8.2f}", flush=True)
    stats = opened.stats()
    print(f"{name:16} programs: {stats['compiles'] + stats['cache_hits']}, highest ratio {highest:.2f}\n", flush=True)
    return highest


def main(arguments: Sequence[str]) -> int:
    """Exit status 0."""
    import graphc

    known = cases(graphc)
    parser = argparse.ArgumentParser(prog="python -m bench sizes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"among {', '.join(known)}; all without any")
    parser.add_argument("--sizes", type=lambda text: [int(n) for n in text.split(",")], default=list(SIZES), metavar="N,N")
    parser.add_argument("--threads", type=int, default=2, help="threads (2)")
    parser.add_argument("--cpu", action="store_true", help="the processor's time, on one thread")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
    graphc.set_num_threads(1 if given.cpu else given.threads)
    graphc.set_grad_enabled(False)
    graphc.manual_seed(0)
    print(f"{'program':16} {'size':>5} {'one size, us':>12} {'open, us':>12} {'ratio':>8}")
    for name in given.names or known:
        measure(graphc, name, known[name], given.sizes, time.process_time if given.cpu else time.perf_counter)
    return 0
