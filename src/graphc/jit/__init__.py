"""Scripts and traces under PyTorch's names, and the questions and marks of code that is written for them.

Enters: functions, modules.  Leaves: scripts, traced functions, or the same functions.  Never here: how scripts are made
(`scripting`), the compiler (`graphc.compile`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from graphc.jit.traced import TracedFunction, trace, trace_module
from graphc.saving import load
from graphc.scripting import ScriptFunction, ScriptModule, script

Function = Callable[..., Any]


def is_scripting() -> bool:
    """False: this is Python."""
    return False


def is_tracing() -> bool:
    """False: `graphc.compiler.is_compiling` says whether `graphc.compile` is tracing."""
    return False


def ignore(drop: Any = False, **_: Any) -> Any:
    """The function itself, marked: scripts call it as Python code, and cannot be saved.  Also a decorator with arguments, of which
    ``drop=True`` is `unused`."""
    if callable(drop):
        drop._graphc_ignored = True
        return drop
    return unused if drop else ignore


def unused(fn: Any) -> Any:
    """The function itself, marked: a script that calls it raises RuntimeError there."""
    fn._graphc_unused = True
    return fn


def export(fn: Any) -> Any:
    """The function itself, marked: scripts of its module keep it though ``forward`` does not call it."""
    fn._graphc_export = True
    return fn


def script_if_tracing(fn: Any) -> Any:
    """The function itself: code that is traced needs no script."""
    return fn


def interface(obj: Any) -> Any:
    """The class itself: scripts check what they call."""
    return obj


_script_if_tracing = script_if_tracing
_overload_method = _overload = interface


def save(m: Any, f: Any) -> None:
    """Write a script.  Raises TypeError for what no file holds, OSError."""
    m.save(f)


def annotate(the_type: Any, the_value: Any) -> Any:
    """The value itself."""
    return the_value


def __getattr__(name: str) -> Any:
    hint = "; use graphc.compile and its save()" if name == "freeze" else ""
    raise AttributeError(f"module 'graphc.jit' has no attribute {name!r}{hint}")


__all__ = [
    "Final", "ScriptFunction", "ScriptModule", "TracedFunction", "annotate", "export", "ignore", "interface", "is_scripting",
    "is_tracing", "load", "save",
    "script", "script_if_tracing", "trace", "trace_module", "unused",
]  # fmt: skip
