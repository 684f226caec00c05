"""Python's `multiprocessing` with ``spawn``, under the names of ``torch.multiprocessing``.

Enters: functions, arguments.  Leaves: processes.  Never here: shared memory: tensors are pickled, so every process has its own copy
(`Tensor.share_memory_` shares with processes that are forked).
"""

# ruff: noqa: F403  re-exported
from __future__ import annotations

import multiprocessing as _python
import traceback
from collections.abc import Callable
from multiprocessing import *
from typing import Any


class ProcessRaisedException(Exception):
    """A process that `spawn` started raised an error; its traceback is the message."""

    def __init__(self, message: str, error_index: int) -> None:
        super().__init__(message)
        self.error_index = error_index


class ProcessExitedException(Exception):
    """A process that `spawn` started ended without a result."""

    def __init__(self, message: str, error_index: int, exit_code: int) -> None:
        super().__init__(message)
        self.error_index, self.exit_code = error_index, exit_code


class SpawnContext:
    """Processes that `spawn` started."""

    def __init__(self, processes: list[Any], errors: list[Any]) -> None:
        self.processes, self._errors = processes, errors

    def pids(self) -> list[int | None]:
        """The processes' numbers."""
        return [process.pid for process in self.processes]

    def join(self, timeout: float | None = None) -> bool:
        """Wait for all; whether all have ended.  When one fails the others are stopped.

        Raises ProcessRaisedException, ProcessExitedException.
        """
        from multiprocessing.connection import wait

        wait([process.sentinel for process in self.processes if process.is_alive()], timeout)
        failed = [i for i, process in enumerate(self.processes) if process.exitcode]
        if not failed:
            return all(not process.is_alive() for process in self.processes)
        for process in self.processes:
            process.terminate()
            process.join()
        first = failed[0]
        if self._errors[first].poll():
            message = f"\n\n-- Process {first} terminated with the following error:\n{self._errors[first].recv()}"
            raise ProcessRaisedException(message, first)
        code = self.processes[first].exitcode
        raise ProcessExitedException(f"process {first} terminated with exit code {code}", first, code)


def _call(fn: Callable[..., Any], i: int, args: tuple[Any, ...], error: Any) -> None:
    try:
        fn(i, *args)
    except KeyboardInterrupt:
        return
    except BaseException:
        error.send(traceback.format_exc())
        raise SystemExit(1) from None


def spawn(
    fn: Callable[..., Any],
    args: tuple[Any, ...] = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
) -> SpawnContext | None:
    """Run ``fn(i, *args)`` in `nprocs` processes; wait for them unless `join` is False.  Raises as `SpawnContext.join`."""
    context = _python.get_context(start_method)
    processes, errors = [], []
    for i in range(nprocs):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_call, args=(fn, i, args, there), daemon=daemon)  # type: ignore[attr-defined]
        process.start()
        processes.append(process)
        errors.append(here)
    spawned = SpawnContext(processes, errors)
    if not join:
        return spawned
    while not spawned.join():
        pass
    return None
