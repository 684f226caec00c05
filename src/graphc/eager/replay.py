"""Which functions machine code may stand for (`graphc.native`): an eager call that comes again and again then skips Python.

Enters: functions, modules.  Leaves: `functions`, `modules`.  Never here: how a call is served.

A function may be named here if what it gives follows from its arguments' types, the values of its other arguments, and the
operators that it calls.  Whether one call of it is so is found out when it is learned; what reads elements, writes to arguments
or uses tensors from elsewhere is never replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]
functions: dict[Function, None] = {}  # in the order in which they came
modules: list[dict[str, Any]] = []  # whose public functions are replaced
told: list[Callable[[dict[str, Any]], None]] = []  # called with every module that is offered later


def replayable(function: Function) -> Function:
    """Let machine code stand for a function."""
    functions[function] = None
    return function


def offer(module: dict[str, Any], *names: str) -> None:
    """Let machine code stand for the functions of a module (its globals): those that are replayable, and those of `names`."""
    for name in names:
        replayable(module[name])
    modules.append(module)
    for tell in told:
        tell(module)
