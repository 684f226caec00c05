"""`skip_init`: modules whose initial values are not asked for.

Enters: a class of modules and its arguments.  Leaves: a module.  Never here: initial values (`graphc.nn.init`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from graphc.eager.generator import default_generator
from graphc.errors import at_user_line
from graphc.nn.module import Module


def skip_init(module_cls: Callable[..., Module], *args: Any, **kwargs: Any) -> Module:
    """``module_cls(*args, **kwargs)`` with elements that nobody should count on, and without using up random numbers.

    Raises RuntimeError for what is no class of modules, or takes no `device`.
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise RuntimeError(at_user_line(f"Expected a Module; got {module_cls}"))
    if "device" not in inspect.signature(module_cls).parameters:
        raise RuntimeError(at_user_line("Module must support a 'device' arg to skip initialization"))
    state = default_generator.get_state()
    try:
        return module_cls(*args, **kwargs)
    finally:
        default_generator.set_state(state)


__all__ = ["skip_init"]
