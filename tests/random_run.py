"""Many random programs: ``python tests/random_run.py FIRST COUNT [LOG]``.  Findings are shrunk and written to the log."""

from __future__ import annotations

import sys
import time
import traceback

from code_checks import Counts, finding, shrunk
from random_growth import Growing


def main(first: int, count: int, log: str | None = None, most: int = 6) -> None:
    """Run the programs of `count` seeds from `first` on."""
    counts, found, start = Counts(), 0, time.process_time()
    with open(log, "a", buffering=1) if log else sys.stdout as out:
        for seed in range(first, first + count):
            code = Growing(seed, most).code()
            try:
                problem = finding(code, counts)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                problem = f"crash: {''.join(traceback.format_exception(error)[-6:])}"
            if problem is not None:
                found += 1
                small, problem = shrunk(code, problem) if not problem.startswith("crash") else (code, problem)
                print(f"==== seed {seed}\n{small}\n{problem[:3000]}", file=out)
            if (seed - first) % 500 == 499:
                print(
                    f"-- {seed - first + 1} programs, {found} findings, {time.process_time() - start:.0f} s of CPU, {counts}",
                    file=out,
                )
        print(f"-- {count} programs, {found} findings, {time.process_time() - start:.0f} s of CPU, {counts}", file=out)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:4], *map(int, sys.argv[4:5]))
