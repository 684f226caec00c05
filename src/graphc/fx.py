"""``torch.fx`` as far as programs only mention it: marks for its tracer, and the types that they ask about.

Enters: functions.  Leaves: the same functions.  Never here: symbolic tracing into Python code (`graphc.compile` makes graphs).
"""

from __future__ import annotations

from typing import Any, NoReturn

from graphc.errors import at_user_line


def wrap(fn_or_name: Any) -> Any:
    """What is given: functions need no mark."""
    return fn_or_name


class Proxy:
    """The type of values of ``torch.fx``'s tracer, of which there are none: tensors that are traced are tensors."""


class Node:
    """The type of nodes of ``torch.fx``'s graphs, of which there are none."""


def symbolic_trace(root: Any, concrete_args: Any = None) -> NoReturn:
    """Raises NotImplementedError."""
    raise NotImplementedError(at_user_line("fx.symbolic_trace: use graphc.compile, whose graphs are graphc.ir.Graph"))


__all__ = ["Node", "Proxy", "symbolic_trace", "wrap"]
