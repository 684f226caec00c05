"""Fourier transforms under the names of PyTorch's ``fft``.

Enters: `Op.table`.  Leaves: its functions.  Never here: what an operator computes.
"""

from __future__ import annotations

from typing import Any

from graphc import namespace  # noqa: F401  which installs the operators
from graphc.eager.methods import functions

globals().update(functions("fft"))


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'graphc.fft' has no attribute {name!r}")
