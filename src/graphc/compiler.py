"""What code may ask and tell the compiler, under the names of ``torch.compiler``.

Enters: functions.  Leaves: functions.  Never here: compilation (`graphc.compile`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from graphc.eager.modes import modes
from graphc.errors import TraceError, at_user_line

Function = Callable[..., Any]


def is_compiling() -> bool:
    """Whether the code that asks is being traced by `graphc.compile`."""
    return modes.tracer is not None


is_dynamo_compiling = is_compiling


def is_exporting() -> bool:
    """False: what is saved is what `graphc.compile` traced."""
    return False


def reset() -> None:
    """Nothing to forget: compiled functions keep their own variants."""


def disable(fn: Function | None = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """A function that is never traced: compiled code that calls it runs eagerly, with a `CompileWarning`.  Also a decorator."""
    if fn is None:
        return functools.partial(disable, recursive=recursive, reason=reason)
    name = getattr(fn, "__name__", type(fn).__name__)

    @functools.wraps(fn)
    def untraced(*args: Any, **kwargs: Any) -> Any:
        if modes.tracer is not None:
            raise TraceError(at_user_line(f"{name} is not compiled: {reason or 'graphc.compiler.disable'}"))
        return fn(*args, **kwargs)

    return untraced


def allow_in_graph(fn: Any) -> Any:
    """`fn`: whatever runs while code is traced goes into the graph."""
    return fn


def assume_constant_result(fn: Any) -> Any:
    """`fn`: what Python computes while code is traced is constant anyway."""
    return fn


def cudagraph_mark_step_begin() -> None:
    """Nothing to mark: there are no CUDA graphs."""
