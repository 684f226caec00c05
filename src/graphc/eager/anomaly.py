"""Anomaly mode: which operator of the forward code gave a gradient that is NaN or failed.

Enters: nodes as they are recorded, gradients as they are found.  Leaves: errors that name the forward line.
Never here: the walk over the tape.
"""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphc.eager.modes import modes
from graphc.errors import at_user_line, is_users


def _note(node: Any) -> None:
    """Remember where the operator of `node` was called."""
    extras = node.more()
    frames = [f for f in traceback.extract_stack() if is_users(f.filename)]
    extras.trace = "".join(traceback.format_list(frames))
    extras.line = at_user_line("")


def is_anomaly_enabled() -> bool:
    """Whether nodes remember the forward line."""
    return _note in modes.watchers


def is_anomaly_check_nan_enabled() -> bool:
    """Whether gradients are looked at for NaN."""
    return is_anomaly_enabled() and modes.check_nan


class set_detect_anomaly:
    """Turn anomaly mode on or off at once; as a context manager, put it back at the end.

    In it every recorded operator remembers where it was called.  A backward rule that fails or (where `check_nan`) gives NaN names
    that line: RuntimeError for NaN, a UserWarning with the forward traceback in both cases.
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self.before = modes.watchers, modes.check_nan
        others = tuple(w for w in modes.watchers if w is not _note)
        modes.watchers = (*others, _note) if mode else others
        modes.check_nan = check_nan

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        modes.watchers, modes.check_nan = self.before


class detect_anomaly:
    """Anomaly mode inside a ``with`` block, as `set_detect_anomaly`."""

    def __init__(self, check_nan: bool = True) -> None:
        self.check_nan = check_nan
        warnings.warn(
            "Anomaly Detection has been enabled. It slows down every recorded operator; use it to find errors.", stacklevel=2
        )

    def __enter__(self) -> None:
        self.mode = set_detect_anomaly(True, self.check_nan)

    def __exit__(self, *_: object) -> None:
        self.mode.__exit__()


@contextlib.contextmanager
def watching(trace: str, name: str) -> Iterator[None]:
    """An error inside is preceded by a warning with the traceback of the forward call."""
    try:
        yield
    except Exception:
        if trace:
            _warn(trace, name)
        raise


def refuse_nan(name: str, gradients: Sequence[Any], line: str, trace: str) -> None:
    """Raise RuntimeError where one of the gradients that node `name` gave has a NaN."""
    if not modes.check_nan:
        return
    for i, g in enumerate(gradients):
        array = None if g is None else g._array
        if isinstance(array, np.ndarray) and g.dtype.kind in "fc" and bool(np.isnan(array).any()):
            _warn(trace, name)
            raise RuntimeError(
                at_user_line(f"Function '{name}' returned nan values in its {i}th output; its forward was called{line}")
            )


def _warn(trace: str, name: str) -> None:
    warnings.warn(f"Error detected in {name}. Traceback of forward call that caused the error:\n{trace}", stacklevel=2)


__all__ = ["detect_anomaly", "is_anomaly_check_nan_enabled", "is_anomaly_enabled", "refuse_nan", "set_detect_anomaly", "watching"]
