"""What a loader's worker process does: read, collate and send, batch by batch.

Enters: a socket and what to read.  Leaves: answers on that socket.  Never here: starting or ending workers.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from graphc.data import collate as collating
from graphc.data.dataset import shown
from graphc.data.fetch import Fetch, fetcher
from graphc.data.transport import CAN_LOOK, Speaker
from graphc.eager.generator import manual_seed
from graphc.errors import at_user_line
from graphc.settings import set_num_threads

WATCH_S = 5.0  # how often an idle worker looks whether its parent lives
BATCH, END, ERROR = "batch", "end", "error"  # kinds of answers


class WorkerInfo:
    """What `get_worker_info` gives in a worker: `id` (0 to num_workers - 1), `num_workers`, `seed`, `dataset` (this process's).

    Raises RuntimeError where an attribute is assigned.
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __setattr__(self, name: str, value: Any) -> None:
        raise RuntimeError(at_user_line("Cannot assign attributes to WorkerInfo objects"))

    def __repr__(self) -> str:
        return f"WorkerInfo({', '.join(f'{name}={value}' for name, value in self.__dict__.items())})"


_info: list[WorkerInfo] = []


def get_worker_info() -> WorkerInfo | None:
    """Which worker of a `DataLoader` this process is; None in any other process."""
    return _info[0] if _info else None


@dataclass(frozen=True)
class Work:
    """What every worker of a loader is told when it starts."""

    dataset: Any
    iterable: bool
    batched: bool
    collate_fn: Callable[[Any], Any]
    drop_last: bool
    num_workers: int
    base_seed: int
    init_fn: Callable[[int], Any] | None
    prefetch: int

    def fetcher(self) -> Fetch:
        """A function from indices to batches, from the beginning of the data set."""
        return fetcher(self.dataset, self.iterable, self.batched, self.collate_fn, self.drop_last)


@dataclass(frozen=True)
class Failure:
    """An error of a worker: its class and its text with the worker's traceback."""

    kind: type[Exception]
    text: str

    def reraise(self) -> NoReturn:
        """Raise an error of that class with the worker's traceback in its message; RuntimeError where the class takes no text."""
        try:
            text = _Lines(self.text) if issubclass(self.kind, KeyError) else self.text
            error = RuntimeError(self.text) if issubclass(self.kind, StopIteration) else self.kind(text)
        except Exception:
            error = RuntimeError(self.text)
        raise error from None


class _Lines(str):
    """A text whose repr is itself: a KeyError shows its message by repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@dataclass
class _State:
    """A worker between two tasks.  `failed`: why it could not begin."""

    number: int
    work: Work
    speaker: Speaker
    epoch: int = -1
    fetch: Fetch | None = None
    ended: bool = False
    failed: Exception | None = None
    queue: deque[Any] = field(default_factory=deque)


def run(number: int, theirs: socket.socket, work: Work) -> None:
    """A worker's life: until the parent closes its end of the socket, or is gone."""
    if hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its workers
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    state = _State(number, work, Speaker(theirs, work.prefetch + 1))
    parent = os.getppid()
    try:
        _begin(state)
        poll = select.poll() if hasattr(select, "poll") else None
        if poll is not None:
            poll.register(theirs, select.POLLIN)
        while True:
            if CAN_LOOK or not state.queue:
                tasks = state.speaker.tasks()
                if tasks is None:
                    return
                for *task, freed in tasks:
                    state.speaker.arena.freed(freed)
                    state.queue.append(task)
            while state.queue and state.queue[0][0] < state.queue[-1][0]:
                state.queue.popleft()  # of an iteration that was given up
            if state.queue:
                _do(state, *state.queue.popleft())
            elif poll is not None and not poll.poll(WATCH_S * 1000) and os.getppid() != parent:
                return
    except (ConnectionError, KeyboardInterrupt):
        return


def _begin(state: _State) -> None:
    """Seed every generator, say who this is, call the user's function."""
    work, seed = state.work, state.work.base_seed + state.number
    try:
        set_num_threads(1)
        random.seed(seed)
        manual_seed(seed)
        words = [state.number, work.base_seed & 0xFFFFFFFF, work.base_seed >> 32, 0]
        np.random.seed(np.random.SeedSequence(words).generate_state(4))
        collating.memory[0] = state.speaker.arena.empty
        _info[:] = [WorkerInfo(id=state.number, num_workers=work.num_workers, seed=seed, dataset=work.dataset)]
        if work.init_fn is not None:
            work.init_fn(state.number)
    except Exception as error:
        state.failed = error


def _do(state: _State, epoch: int, task: int, indices: Any) -> None:
    """Answer one task."""
    result: Any = None
    try:
        if state.failed is not None:
            raise state.failed
        if epoch != state.epoch:
            state.epoch, state.ended, state.fetch = epoch, False, None
        if state.fetch is None:
            state.fetch = state.work.fetcher()
        kind = END
        if not state.ended:
            try:
                result, kind = state.fetch(indices), BATCH
            except StopIteration:
                if not state.work.iterable:
                    raise
                state.ended = True
        state.speaker.arena.finish()
        state.speaker.answer((epoch, task, kind), result)
        return
    except ConnectionError:
        raise
    except Exception as error:
        failure = _failure(state, error, task, indices)
    state.speaker.arena.finish()
    try:
        state.speaker.answer((epoch, task, ERROR), failure)
    except ConnectionError:
        raise
    except Exception:  # a class that cannot be pickled
        state.speaker.answer((epoch, task, ERROR), Failure(RuntimeError, failure.text))


def _failure(state: _State, error: Exception, task: int, indices: Any) -> Failure:
    kind = type(error)
    where = f"batch {task}" if state.work.iterable else f"batch {task}, indices {shown(indices)}"
    text = "".join(traceback.format_exception(error)).rstrip("\n")
    message = f"Caught {kind.__name__} in DataLoader worker process {state.number}.\nIt was working on {where}.\nOriginal {text}"
    return Failure(kind, message)
