"""Several modules, each on arguments of its own.

Enters: modules, arguments.  Leaves: their results in order.  Never here: devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.eager.devices import check_device
from graphc.errors import at_user_line
from graphc.nn.module import Module


def parallel_apply(
    modules: Sequence[Module], inputs: Sequence[Any], kwargs_tup: Sequence[dict[str, Any]] | None = None, devices: Any = None
) -> list[Any]:
    """The result of every module on its own arguments, one module after the other: the kernels themselves use all threads.

    inputs: for each module a tuple of arguments, or the one argument.   kwargs_tup: keyword arguments for each.
    Raises ValueError for lists of different lengths, AssertionError for a device that there is not.
    """
    keywords = [{}] * len(modules) if kwargs_tup is None else kwargs_tup
    for where in devices or ():
        check_device(where if not isinstance(where, int) else "cuda")
    if not len(modules) == len(inputs) == len(keywords) or (devices is not None and len(devices) != len(modules)):
        text = f"parallel_apply: {len(modules)} modules, {len(inputs)} inputs and {len(keywords)} dicts; they must be as many"
        raise ValueError(at_user_line(text))
    found = []
    for module, given, keyword in zip(modules, inputs, keywords, strict=True):
        arguments = tuple(given) if isinstance(given, tuple | list) else (given,)
        found.append(module(*arguments, **keyword))
    return found


__all__ = ["parallel_apply"]
