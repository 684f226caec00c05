"""Python's `multiprocessing` with ``spawn``, under the names of ``torch.multiprocessing``.

Enters: functions, arguments.  Leaves: processes.  Never here: shared memory: tensors are pickled, so every process has its own copy
(`Tensor.share_memory_` shares with processes that are forked; a `DataLoader`'s workers share their batches).
"""

# ruff: noqa: F403  re-exported
from __future__ import annotations

import contextlib
import multiprocessing as _python
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing import *
from multiprocessing.connection import wait as _wait
from typing import Any


class ProcessException(Exception):
    """A process that `spawn` started failed: the `error_index`-th, of number `error_pid`."""

    def __init__(self, msg: str, error_index: int, pid: int | None) -> None:
        super().__init__(msg)
        self.msg, self.error_index, self.error_pid, self.pid = msg, error_index, pid, pid


class ProcessRaisedException(ProcessException):
    """A process that `spawn` started raised an error; its traceback is the message."""


class ProcessExitedException(ProcessException):
    """A process that `spawn` started ended without a result: with an exit code, or by a signal."""

    def __init__(self, msg: str, error_index: int, pid: int | None, exit_code: int, signal_name: str | None = None) -> None:
        super().__init__(msg, error_index, pid)
        self.exit_code, self.signal_name = exit_code, signal_name


class ProcessContext:
    """Processes that `start_processes` started."""

    def __init__(self, processes: list[Any], errors: list[Any]) -> None:
        self.processes, self._errors = processes, errors

    def pids(self) -> list[int | None]:
        """The processes' numbers."""
        return [process.pid for process in self.processes]

    def join(self, timeout: float | None = None, grace_period: float | None = None) -> bool:
        """Wait for one of them to end; whether all have ended.  When one fails the others are terminated, and killed after
        `grace_period` seconds (30).

        Raises ProcessRaisedException, ProcessExitedException.
        """
        # A process may end at any moment, and waiting for none of them would never return.
        if living := [process.sentinel for process in self.processes if process.is_alive()]:
            _wait(living, timeout)
        codes = [process.exitcode for process in self.processes]  # asked once: one may end between two questions
        failed = [i for i, code in enumerate(codes) if code]
        if not failed:
            return None not in codes
        self._stop(30.0 if grace_period is None else grace_period)
        first = failed[0]
        process = self.processes[first]
        if self._errors[first].poll():
            with contextlib.suppress(EOFError):  # it closed its end unused
                message = f"\n\n-- Process {first} terminated with the following error:\n{self._errors[first].recv()}"
                raise ProcessRaisedException(message, first, process.pid)
        code = codes[first]
        name = _signal_name(-code) if code < 0 else None
        how = f"exit code {code}" if name is None else f"signal {name}"
        raise ProcessExitedException(f"process {first} terminated with {how}", first, process.pid, code, name)

    def _stop(self, grace_s: float) -> None:
        for process in self.processes:
            process.terminate()
        end = time.monotonic() + grace_s
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


SpawnContext = ProcessContext


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"<Unknown signal {number}>"


def _call(fn: Callable[..., Any], i: int, args: tuple[Any, ...], error: Any) -> None:
    try:
        fn(i, *args)
    except KeyboardInterrupt:
        return
    except Exception:
        error.send(traceback.format_exc())
        raise SystemExit(1) from None


def start_processes(
    fn: Callable[..., Any],
    args: tuple[Any, ...] = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
) -> ProcessContext | None:
    """Run ``fn(i, *args)`` in `nprocs` processes; wait for them unless `join` is False.  Raises as `ProcessContext.join`."""
    context = _python.get_context(start_method)
    processes, errors = [], []
    for i in range(nprocs):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_call, args=(fn, i, args, there), daemon=daemon)  # type: ignore[attr-defined]
        process.start()
        there.close()
        processes.append(process)
        errors.append(here)
    started = ProcessContext(processes, errors)
    if not join:
        return started
    while not started.join():
        pass
    return None


def spawn(
    fn: Callable[..., Any],
    args: tuple[Any, ...] = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
) -> ProcessContext | None:
    """`start_processes`."""
    return start_processes(fn, args, nprocs, join, daemon, start_method)


def get_all_sharing_strategies() -> set[str]:
    """How a `DataLoader`'s workers share memory: by descriptors of files without a name."""
    return {"file_descriptor"}


def get_sharing_strategy() -> str:
    """``file_descriptor``."""
    return "file_descriptor"


def set_sharing_strategy(new_strategy: str) -> None:
    """Nothing changes: there is one way, which needs no file names.  Raises AssertionError for what no system has."""
    if new_strategy not in ("file_descriptor", "file_system"):
        raise AssertionError(f"invalid sharing strategy {new_strategy!r}")
