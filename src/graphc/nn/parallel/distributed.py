"""`DistributedDataParallel`: needs a group of processes, and there is none.

Enters: a module.  Leaves: an error.  Never here: communication.
"""

from __future__ import annotations

from typing import Any

from graphc.errors import at_user_line
from graphc.nn.module import Module


class DistributedDataParallel(Module):
    """A module whose gradients are averaged over processes.  Raises ValueError: there is no process group."""

    def __init__(self, module: Module, *args: Any, **kwargs: Any) -> None:
        raise ValueError(
            at_user_line("Default process group has not been initialized, please make sure to call init_process_group.")
        )


__all__ = ["DistributedDataParallel"]
