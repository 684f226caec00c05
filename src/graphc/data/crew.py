"""The worker processes of a loader, as the parent sees them.

Enters: tasks.  Leaves: answers, or one error for a worker that ended.  Never here: the order of batches.

Workers are daemons of `multiprocessing`; each has a socket to the parent, whose end tells it to stop.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any

from graphc.data.dataset import shown
from graphc.data.interrupts import uninterrupted
from graphc.data.transport import Listener
from graphc.data.worker import Work, run
from graphc.errors import at_user_line
from graphc.settings import get_num_threads

GRACE_S = 5.0  # a worker that was told to stop may finish what it reads
_LOOK_S = 1.0  # how often processes are looked at while nothing comes


class Crew:
    """`count` workers of a loader.  Raises what starting a process raises (then none is left)."""

    def __init__(self, context: Any, work: Work) -> None:
        self.owner = os.getpid()
        self.processes: list[Any] = []
        self.listeners: list[Listener] = []
        self.tasks: list[dict[tuple[int, int], Any]] = []  # of each worker: (epoch, number) -> indices
        context = multiprocessing.get_context() if context is None else context
        get_num_threads()  # imports here what every forked worker would have to
        try:
            with _quiet_start(context.get_start_method()):
                for number in range(work.num_workers):
                    self._start(context, number, work)
        except BaseException:
            self.stop(grace_s=0)
            raise
        self._poll = select.poll() if hasattr(select, "poll") else None
        self._numbers = {listener.socket.fileno(): i for i, listener in enumerate(self.listeners)}
        if self._poll is not None:
            for descriptor in self._numbers:
                self._poll.register(descriptor, select.POLLIN)

    def __del__(self) -> None:
        self.stop(destructor=True)

    def _start(self, context: Any, number: int, work: Work) -> None:
        ours, theirs = socket.socketpair()
        self.listeners.append(Listener(ours))
        with theirs:
            process = context.Process(target=run, args=(number, theirs, work), daemon=True)
            process.start()
        self.processes.append(process)
        self.tasks.append({})

    def send(self, worker: int, epoch: int, number: int, indices: Any) -> None:
        """Give a worker a task.  Raises what pickling the indices raises."""
        self.listeners[worker].send(epoch, number, indices)
        self.tasks[worker][epoch, number] = indices

    def receive(self, timeout_s: float) -> Iterator[tuple[int, tuple[int, int, str], Any]]:
        """(worker, (epoch, task, kind of answer), how to make the result) of what has come; waits for the first, at most so long
        (0: for ever).  Nothing where the time is over.

        Raises RuntimeError where a worker ended: which, how, and what it was doing.
        """
        end = time.monotonic() + timeout_s if timeout_s else None
        while True:
            left = _LOOK_S if end is None else min(_LOOK_S, max(0.0, end - time.monotonic()))
            ready = self._ready(left)
            if ready:
                break
            for listener in self.listeners:
                listener.flush()
            self._look()
            if end is not None and time.monotonic() >= end:
                return
        for worker in ready:
            try:
                about, make = self.listeners[worker].receive()
            except EOFError:
                self._lost([worker])
            self.tasks[worker].pop(about[:2], None)
            self.listeners[worker].flush()
            yield worker, about, make

    def _ready(self, timeout_s: float) -> list[int]:
        if self._poll is not None:
            return [self._numbers[descriptor] for descriptor, _ in self._poll.poll(timeout_s * 1000)]
        return [self._numbers[descriptor] for descriptor in select.select(list(self._numbers), [], [], timeout_s)[0]]

    def _look(self) -> None:
        """Raise for workers that ended though their socket stays open: a process that they started may hold it."""
        ended = [i for i, process in enumerate(self.processes) if process.exitcode is not None]
        if ended and not self._ready(0):
            self._lost(ended)

    def _lost(self, workers: list[int]) -> None:
        """Raise the one error that tells which workers ended, how, and what they were reading."""
        deadline = time.monotonic() + _LOOK_S
        stories, pids = [], []
        for worker, process in enumerate(self.processes):
            if worker in workers or process.exitcode is not None:
                process.join(max(0.0, deadline - time.monotonic()))
                stories.append(self._story(worker, process))
                pids.append(str(process.pid))
        message = f"DataLoader worker (pid(s) {', '.join(pids)}) exited unexpectedly: {'; '.join(stories)}"
        raise RuntimeError(at_user_line(message)) from None

    def _story(self, worker: int, process: Any) -> str:
        code = process.exitcode
        if code is None:
            how = "closed its connection"
        elif code < 0:
            how = f"was killed by signal {-code} ({_signal_name(-code)})"
        else:
            how = f"ended with exit code {code}"
        pending = self.tasks[worker]
        if not pending:
            return f"worker {worker} {how} while it had nothing to do"
        (_, number), indices = next(iter(pending.items()))
        return f"worker {worker} {how} while it was working on batch {number}, indices {shown(indices)}"

    def stop(self, grace_s: float = GRACE_S, destructor: bool = False) -> None:
        """End all workers and wait for them: told first, terminated after `grace_s`, killed a second later."""
        if os.getpid() != self.owner:  # a forked process that inherited this: they are not its own
            return
        with uninterrupted(destructor) as interrupts:
            for listener in self.listeners:
                listener.close()
            _join(self.processes, grace_s, interrupts)
            for end in ("terminate", "kill"):
                living = [process for process in self.processes if process.is_alive()]
                for process in living:
                    getattr(process, end)()
                _join(living, 1.0)
            self.processes, self.listeners, self.tasks = [], [], []


def _join(processes: list[Any], seconds: float, interrupts: Sequence[Any] = ()) -> None:
    """Wait for processes to end: at most so long, and not after Ctrl-C."""
    deadline = time.monotonic() + seconds
    for process in processes:
        while process.is_alive() and time.monotonic() < deadline and not interrupts:
            process.join(min(0.1, max(0.0, deadline - time.monotonic())))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


@contextlib.contextmanager
def _quiet_start(method: str) -> Iterator[None]:
    """No Ctrl-C until workers are there, who ignore it from their first line on.

    No warning of a fork among threads: compiled code's threads are made anew in a child, and nothing else here has any.
    """
    if method != "fork" and hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # else the first worker starts it, which takes the mask away
    with uninterrupted(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        yield
