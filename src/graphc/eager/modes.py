"""What this thread is doing: recording gradients or not, tracing or not.

Enters: context managers.  Leaves: `modes`, read by every operator call.  Never here: what the modes mean.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any


class Modes(threading.local):
    """`grad`: operators are recorded on the tape.  `tracer`: the tracer that operators go to, or None."""

    grad: bool = True
    tracer: Any = None


modes = Modes()


class _GradMode:
    """A context manager and decorator that sets the grad mode."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.previous: list[bool] = []

    def __enter__(self) -> None:
        self.previous.append(modes.grad)
        modes.grad = self.enabled

    def __exit__(self, *_: object) -> None:
        modes.grad = self.previous.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with _GradMode(self.enabled):
                return function(*args, **kwargs)

        return wrapped


def no_grad(function: Callable[..., Any] | None = None) -> Any:
    """Nothing inside is recorded for backward.  A context manager and a decorator."""
    mode = _GradMode(False)
    return mode if function is None else mode(function)


def enable_grad(function: Callable[..., Any] | None = None) -> Any:
    """Operators inside are recorded for backward.  A context manager and a decorator."""
    mode = _GradMode(True)
    return mode if function is None else mode(function)


class set_grad_enabled(_GradMode):
    """Sets the grad mode at once; as a context manager, puts it back at the end."""

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)
        self.before = modes.grad
        modes.grad = mode

    def __enter__(self) -> None:
        self.previous.append(self.before)
        modes.grad = self.enabled

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        modes.grad = self.before
        return super().__call__(function)


def inference_mode(mode: Any = True) -> Any:
    """`no_grad` by PyTorch's other name; ``inference_mode(False)`` changes nothing.  A context manager and a decorator."""
    if callable(mode):
        return _GradMode(False)(mode)
    return _GradMode(modes.grad and not mode)


def is_grad_enabled() -> bool:
    """Whether operators are recorded for backward in this thread."""
    return modes.grad
