"""Several modules made into objects at once, while their texts are still being written.

Enters: LLVM texts, one after the other.  Leaves: the objects of each, in one piece.  Never here: what becomes of one text (link).
"""

from __future__ import annotations

import math
import queue
import threading
import time
from types import TracebackType

from graphc.runtime.link import assemble, joined


class Assembly:
    """Threads that make objects: in ``with Assembly(n) as assembly`` at most n, the caller's included.

    The last text waits for the caller, so that a single one needs no other thread.  From `time_s` on (of `time.perf_counter`), what
    is begun is made in haste.
    """

    def __init__(self, threads: int, time_s: float = math.inf) -> None:
        self._time_s = time_s
        self._most = threads - 1
        self._waiting: queue.SimpleQueue[Module | None] = queue.SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._last: Module | None = None

    def __enter__(self) -> Assembly:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.finish()

    def add(self, text: str) -> Module:
        """Begin with a module."""
        if self._last is not None:
            self._waiting.put(self._last)
            if len(self._workers) < self._most:
                self._workers.append(threading.Thread(target=self._work, name="graphc-llvm"))
                self._workers[-1].start()
        self._last = Module(text)
        return self._last

    def finish(self) -> None:
        """Return when every module is made: this thread makes those that nobody has begun."""
        if self._last is not None:
            self._waiting.put(self._last)
            self._last = None
        for _ in range(len(self._workers) + 1):
            self._waiting.put(None)
        self._work()
        for worker in self._workers:
            worker.join()
        self._workers.clear()

    def _work(self) -> None:
        while (module := self._waiting.get()) is not None:
            module.make(hasty=time.perf_counter() >= self._time_s)


class Module:
    """A text, then its object or why there is none.   hasty: whether it was made in haste."""

    def __init__(self, text: str) -> None:
        self._text, self.hasty = text, False
        self._made: bytes | BaseException = b""

    def make(self, hasty: bool = False) -> None:
        self.hasty = hasty
        try:
            self._made = assemble(self._text, hasty=hasty)
        except BaseException as error:  # raised where the object is asked for
            self._made = error

    def object(self) -> bytes:
        if isinstance(self._made, BaseException):
            raise self._made
        return self._made


def code_of(modules: list[Module]) -> bytes:
    """The objects of modules that refer to each other, for `link`.  Raises what making one raised."""
    return joined([module.object() for module in modules])
