"""Scripts under PyTorch's names, and the questions and marks of code that is written for them.

Enters: functions, modules.  Leaves: scripts, or the same functions.  Never here: how scripts are made (`scripting`), traces
(`graphc.compile` is the compiler).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

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
    """The function itself.  Also a decorator with arguments."""
    return drop if callable(drop) else lambda fn: fn


def unused(fn: Any) -> Any:
    """The function itself."""
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
    hint = "; use graphc.compile and its save()" if name in ("trace", "freeze") else ""
    raise AttributeError(f"module 'graphc.jit' has no attribute {name!r}{hint}")


__all__ = [
    "Final", "ScriptFunction", "ScriptModule", "annotate", "export", "ignore", "interface", "is_scripting",
    "is_tracing", "load", "save",
    "script", "script_if_tracing", "unused",
]  # fmt: skip
