"""What a user sees of a call that failed: PyTorch's exception classes, the operator's name, and the user's own line.

Enters: exceptions, with the operator's name and what it was given.  Leaves: the same, or the exception that says what was wrong
with the call where Python or NumPy complained about it first.  Never here: which arguments an operator takes.
"""

from __future__ import annotations

import dis
import functools
import os
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from graphc.eager.tensor import Tensor
from graphc.errors import OutOfMemoryError, at_user_line, is_users

# What operators raise for a wrong call; all but the first four only where Python or NumPy meet the argument before a check does.
ERRORS = (
    RuntimeError, TypeError, ValueError, IndexError, MemoryError, OverflowError, ZeroDivisionError, AttributeError, KeyError,
)  # fmt: skip
SIGNATURE = re.compile(r"^[\w.<>]+\(\) (?=got |missing |takes )")  # how Python begins a message about a call's arguments
_RAISES = {dis.opmap["RAISE_VARARGS"], dis.opmap["RERAISE"]}
_ABOUT_TYPES = (TypeError, AttributeError, KeyError)
_ABOUT_VALUES = (IndexError, ValueError, OverflowError, ZeroDivisionError, RuntimeError)
F = TypeVar("F", bound=Callable[..., Any])


def guarded(function: F) -> F:
    """`function` with errors as operators raise them, for functions that are none."""

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ERRORS as error:
            located(error, function.__name__, (*args, *kwargs.values()))
            raise

    return checked  # type: ignore[return-value]  # it has the signature of what it wraps


def located(error: Exception, name: str = "", given: Iterable[Any] | None = None) -> Exception:
    """`error` with the user's line at the end of its message, put there once.

    name: the operator, which a message about its signature names in place of the function that prepares its arguments.
    given: its arguments, where all of them are known.  Raises another exception in place of one that graphc did not raise itself.
    """
    if getattr(error, "_located", False):
        return error
    if isinstance(error, MemoryError) or not _is_own(error) and not (type(error) is TypeError and SIGNATURE.match(str(error))):
        _translate(error, name, given)
    if error.args and isinstance(error.args[0], str):
        message, line = error.args[0], at_user_line("")
        if name and type(error) is TypeError:
            message = SIGNATURE.sub(f"{name}() ", message, count=1)
        error.args = (message if message.endswith(line) else message + line, *error.args[1:])
        error._located = True  # type: ignore[attr-defined]
    return error


def _translate(error: Exception, name: str, given: Iterable[Any] | None) -> None:
    """Raise what PyTorch raises in place of an exception of Python or NumPy; return where that is the exception itself.

    A complaint about types stays as it is where nothing but tensors was given: then it is not the caller's mistake.
    """
    begin = f"{name}: " if name else ""
    if isinstance(error, MemoryError):
        raise _marked(OutOfMemoryError(f"{begin}not enough memory: you tried to allocate more than there is. {error}")) from None
    if isinstance(error, RecursionError):
        return
    if isinstance(error, _ABOUT_TYPES):
        kinds = None if given is None else [type(x).__name__ for x in given]
        if kinds is not None and any(kind != Tensor.__name__ for kind in kinds):
            shown = f"{name}(): received an invalid combination of arguments - got ({', '.join(kinds)})"
            raise _marked(TypeError(shown)) from error
        return
    kind = next(kind for kind in _ABOUT_VALUES if isinstance(error, kind))
    if type(error) is kind and kind is not RuntimeError or type(error).__module__.startswith("numpy"):
        raise _marked(kind(f"{begin}{error}")) from error


def _marked(error: Exception) -> Exception:
    """A new exception with the user's line."""
    error.args = (at_user_line(str(error)),)
    error._located = True  # type: ignore[attr-defined]
    return error


def _is_own(error: Exception) -> bool:
    """Whether a ``raise`` of graphc (or one that we cannot see) raised the exception, rather than Python or NumPy inside a call."""
    trace = error.__traceback__
    if trace is None:
        return True
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    if is_users(code.co_filename):
        return f"{os.sep}numpy{os.sep}" not in code.co_filename
    return code.co_code[trace.tb_lasti] in _RAISES
