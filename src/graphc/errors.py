"""Error types and the one place that says where in the user's code something happened.

Never here: logic of any room.  Errors are raised with PyTorch's classes (RuntimeError, IndexError, TypeError, ValueError);
the classes below exist only where a caller must tell them apart.
"""

from __future__ import annotations

import os
import pickle
import sys
import warnings

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class IRError(Exception):
    """A graph or kernel that breaks a rule of its IR: a bug in a pass, or a damaged file."""


class ArtifactError(Exception):
    """A file that is not a whole, unaltered graphc artifact, or data that its signature does not allow."""


class CheckpointError(ArtifactError, pickle.UnpicklingError, RuntimeError):
    """A file of tensors that is damaged, holds more than data, or is none; PyTorch raises one of its other base classes."""


class TraceError(Exception):
    """Python code that asked for the elements of a tensor whose operators are being traced."""


class TracedAgain(TraceError):
    """What was traced is of no use, and what was learned meanwhile makes another trace come out differently."""


class CheckError(RuntimeError):
    """A checked call of a compiled function (`graphc.compile(check=N)`) that did something else than the Python code."""


class ScriptError(RuntimeError):
    """Python code that a script cannot hold, or that asked for what scripts may not use; says file, line and place."""


class OutOfMemoryError(RuntimeError):
    """A result for which there is no memory."""


class LinAlgError(RuntimeError):
    """A matrix without the inverse, factor or solution that was asked for, or an algorithm that did not converge."""


class CompileWarning(UserWarning):
    """Compiled code that could not be used as asked (a fallback, an unwritable cache): never silent."""


def failed_check(message: str) -> Exception:
    """What a run-time check raises: IndexError, unless its message begins with another class (``RuntimeError: ``)."""
    for kind in (RuntimeError, ValueError):
        marked = message.removeprefix(f"{kind.__name__}: ")
        if marked != message:
            return kind(marked)
    return IndexError(message)


def is_users(filename: str) -> bool:
    """Whether a file of code lies outside graphc."""
    return not filename.startswith(_HERE)


def user_location() -> tuple[str, int]:
    """File name and line of the nearest calling frame outside graphc (for error texts and IR locations)."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def at_user_line(message: str) -> str:
    """`message` followed by the user's ``(file.py:line)``."""
    return message + line_text(user_location())


def warn(message: str, category: type[Warning] = CompileWarning) -> None:
    """A warning at the user's line."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def line_text(location: tuple[str, int] | None) -> str:
    """`` (file.py:line)``, as it ends a message; nothing for what has no place."""
    return f" ({os.path.basename(location[0])}:{location[1]})" if location else ""
