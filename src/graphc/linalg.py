"""Linear algebra under the names of PyTorch's ``linalg``.

Enters: `Op.table`.  Leaves: its functions.  Never here: what an operator computes.
"""

from __future__ import annotations

from typing import Any

from graphc import errors, namespace  # noqa: F401  namespace installs the operators
from graphc.eager.methods import functions
from graphc.eager.replay import offer

globals().update(functions("linalg"))
offer(globals())
LinAlgError = errors.LinAlgError


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'graphc.linalg' has no attribute {name!r}")
