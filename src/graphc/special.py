"""Special functions under the names of PyTorch's ``special``.

Enters: `Op.table`.  Leaves: its functions.  Never here: what an operator computes.
"""

from __future__ import annotations

from typing import Any

from graphc import namespace  # noqa: F401  which installs the operators
from graphc.eager.methods import functions
from graphc.eager.replay import offer

globals().update(functions("special"))
offer(globals())


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'graphc.special' has no attribute {name!r}")
