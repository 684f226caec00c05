"""Ctrl-C at the right time.

Enters: nothing.  Leaves: a block of code that is run as a whole.  Never here: what is done in it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

_LATER_S = 0.02


@contextlib.contextmanager
def uninterrupted(destructor: bool = False) -> Iterator[list[Any]]:
    """Ctrl-C is noted in the list that this gives, and has its effect at the end; of a destructor, where Python would drop it, a
    moment later.

    Processes that are started meanwhile ignore it until they say otherwise: the mask passes to those that `spawn` starts.
    """
    seen: list[Any] = []
    handler = signal.getsignal(signal.SIGINT)
    ours = callable(handler) and threading.current_thread() is threading.main_thread()
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if hasattr(signal, "pthread_sigmask") else None
    if ours:
        signal.signal(signal.SIGINT, lambda *given: seen.append(given))
    try:
        yield seen
    finally:
        if old is not None:  # what came meanwhile is noted now
            signal.pthread_sigmask(signal.SIG_SETMASK, old)
        if ours:
            signal.signal(signal.SIGINT, handler)
            if seen and destructor:
                again = threading.Timer(_LATER_S, os.kill, (os.getpid(), signal.SIGINT))
                again.daemon = True
                with contextlib.suppress(RuntimeError):  # Python is ending anyway
                    again.start()
            elif seen and callable(handler):
                handler(*seen[0])
