"""``torch.distributed`` of a build without it: programs ask whether it is there, and are told that it is not.

Enters: questions.  Leaves: answers, or RuntimeError.  Never here: processes that talk to one another.
"""

from __future__ import annotations

from typing import Any, NoReturn

from graphc.errors import at_user_line


def is_available() -> bool:
    """False."""
    return False


def is_initialized() -> bool:
    """False: there are no process groups."""
    return False


def is_nccl_available() -> bool:
    """False."""
    return False


def is_gloo_available() -> bool:
    """False."""
    return False


def is_mpi_available() -> bool:
    """False."""
    return False


def is_torchelastic_launched() -> bool:
    """False."""
    return False


def _refusing(name: str) -> Any:
    def call(*_: Any, **__: Any) -> NoReturn:
        """Raises RuntimeError: there are no process groups."""
        raise RuntimeError(at_user_line(f"distributed.{name}: graphc runs in one process; there are no process groups"))

    call.__name__ = call.__qualname__ = name
    return call


def __getattr__(name: str) -> Any:
    if name in _ABSENT:
        return _refusing(name)
    raise AttributeError(f"module 'graphc.distributed' has no attribute {name!r}; there are no process groups")


# what programs name at their top, to call it where `is_available` or `is_initialized` is true
_ABSENT = {
    "all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "all_to_all", "barrier", "broadcast",
    "broadcast_object_list", "destroy_process_group", "gather", "get_backend", "get_rank", "get_world_size", "init_process_group",
    "irecv", "isend", "new_group", "recv", "reduce", "reduce_scatter", "reduce_scatter_tensor", "scatter", "send",
}  # fmt: skip


class ProcessGroup:
    """The type of process groups, of which there are none."""


class ReduceOp:
    """Ways to combine what processes have."""

    SUM, AVG, PRODUCT, MIN, MAX, BAND, BOR, BXOR = range(8)


class group:
    """Process groups that are always there: none."""

    WORLD = None


GroupMember = group

__all__ = [
    "GroupMember", "ProcessGroup", "ReduceOp", "group", "is_available", "is_gloo_available", "is_initialized", "is_mpi_available",
    "is_nccl_available", "is_torchelastic_launched",
]  # fmt: skip
