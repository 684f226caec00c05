"""What this thread is doing: recording gradients or not, tracing or not.

Enters: context managers.  Leaves: `modes`, read by every operator call.  Never here: what the modes mean.
"""

from __future__ import annotations

import functools
import inspect
import threading
import types
from collections.abc import Callable, Generator
from typing import Any, TypeVar, cast

from graphc.dtypes import DType
from graphc.ir.op import note_change

Function = TypeVar("Function", bound=Callable[..., Any])


class Modes(threading.local):
    """`grad`: operators are recorded on the tape.  `tracer`: who operators go to instead of kernels (a `Tracer`, a level of vmap),
    or None.   `inference`: inside `inference_mode`.   `watchers`: called with every node that is put on the tape.
    `check_nan`: anomaly mode looks for NaN.   `hooks_refused`: the message of who enters `saved_tensors_hooks`, or None.
    `autocast`: the dtype that lower operators are cast to, or None where autocast is off.
    `readers`: called with every tensor whose elements are read into Python; while there are any, nothing is
    done to tensors but by operators."""

    grad: bool = True
    tracer: Any = None
    inference: bool = False
    watchers: tuple[Callable[[Any], None], ...] = ()
    check_nan: bool = True
    hooks_refused: str | None = None
    readers: tuple[Callable[[Any], None], ...] = ()
    autocast: DType | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        note_change()


modes = Modes()


class _GradMode:
    """A context manager and decorator (of functions, generators and coroutines) that sets the grad mode."""

    enabled = True
    inference: bool | None = None  # None: stays as it is

    def __init__(self) -> None:
        self.previous: list[tuple[bool, bool]] = []

    def __enter__(self) -> None:
        self.previous.append((modes.grad, modes.inference))
        modes.grad = self.enabled
        if self.inference is not None:
            modes.inference = self.inference

    def __exit__(self, *_: object) -> None:
        modes.grad, modes.inference = self.previous.pop()

    def clone(self) -> _GradMode:
        """The same mode for another block: a decorated function may call itself."""
        return type(self)()

    def __call__(self, function: Function) -> Function:
        """`function` in this mode; the body of a generator or coroutine too, and nothing between its steps."""
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                return (yield from _stepped(function(*args, **kwargs), self.clone()))

            return cast(Function, generator)
        if inspect.iscoroutinefunction(function):

            @types.coroutine
            def steps(awaited: Any) -> Any:
                return (yield from _stepped(awaited.__await__(), self.clone()))

            @functools.wraps(function)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                return await steps(function(*args, **kwargs))

            return cast(Function, coroutine)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self.clone():
                return function(*args, **kwargs)

        return cast(Function, wrapped)


def _stepped(inner: Any, mode: _GradMode) -> Generator[Any, Any, Any]:
    """`inner`, each of whose steps runs in `mode`."""
    step: Callable[[], Any] = functools.partial(next, inner)
    while True:
        try:
            with mode:
                value = step()
        except StopIteration as end:
            return end.value
        try:
            sent = yield value
            step = functools.partial(inner.send, sent) if hasattr(inner, "send") else functools.partial(next, inner)
        except GeneratorExit:
            with mode:
                inner.close()
            raise
        except BaseException as error:
            step = functools.partial(inner.throw, error)


class _Switch(_GradMode):
    """A grad mode that may stand without parentheses before the function it decorates."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        return super().__new__(cls) if function is None else cls()(function)

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        super().__init__()


class no_grad(_Switch):
    """Nothing inside is recorded for backward.  A context manager and a decorator."""

    enabled = False


class enable_grad(_Switch):
    """Operators inside are recorded for backward.  A context manager and a decorator."""


class set_grad_enabled(_GradMode):
    """Sets the grad mode at once; as a context manager, puts it back at the end."""

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.enabled = bool(mode)
        self.before = modes.grad
        modes.grad = self.enabled

    def __enter__(self) -> None:
        self.previous.append((self.before, modes.inference))
        modes.grad = self.enabled

    def clone(self) -> set_grad_enabled:
        """The same mode for another block, not yet in force."""
        before = modes.grad
        copy = set_grad_enabled(self.enabled)
        modes.grad = before
        return copy

    def __call__(self, function: Function) -> Function:
        modes.grad = self.before
        return super().__call__(function)


class inference_mode(_GradMode):
    """`no_grad` by PyTorch's other name; ``inference_mode(False)`` records again.  A context manager and a decorator.

    Differs from torch: tensors made inside are tensors like others; they may be written to and recorded later.
    """

    def __new__(cls, mode: Any = True) -> Any:
        return super().__new__(cls) if isinstance(mode, bool) else cls()(mode)

    def __init__(self, mode: bool = True) -> None:
        super().__init__()
        self.enabled, self.inference = not mode, mode

    def clone(self) -> inference_mode:
        return inference_mode(bool(self.inference))


def is_grad_enabled() -> bool:
    """Whether operators are recorded for backward in this thread."""
    return modes.grad


def is_inference_mode_enabled() -> bool:
    """Whether this thread is inside `inference_mode`."""
    return modes.inference
