"""What autocast does to a call: floating tensors among its arguments become the dtype that the operator says.

Enters: calls of operators that say how they autocast (`Op.autocast`), while a thread has autocast on.  Leaves: the same calls, of
cast tensors.  Never here: which operators those are; the context manager (`graphc.amp`).

Casts are operators like others: they are recorded, so gradients arrive in the dtype of the tensor that was cast, and traced, so
compiled code holds them.  float64 is never cast.  While such a call runs, nothing inside it is cast again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Any

from graphc.dtypes import DType, bfloat16, float16, float32, float64, promote_types
from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor
from graphc.ir.op import Op, casting
from graphc.ops.arguments import cast

LOWER = (bfloat16, float16)  # what the CPU's autocast can cast to
_BFLOAT16_DEVICES = ("cpu", "hpu", "ipu", "maia", "xla")


class Settings(threading.local):
    """What this thread has set, by device type: whether autocast is on, and to which dtype.   `nesting`: how many contexts deep."""

    def __init__(self) -> None:
        self.enabled: dict[str, bool] = {}
        self.dtypes: dict[str, DType] = {}
        self.cache = True
        self.nesting = 0

    def dtype(self, device: str) -> DType:
        """The dtype that a device's autocast casts to."""
        return self.dtypes.get(device, bfloat16 if device in _BFLOAT16_DEVICES else float16)

    def set(self, device: str, enabled: bool | None = None, dtype: DType | None = None) -> None:
        """Change what is not None.  What is set for the CPU, where all tensors are, is what operators do from now on."""
        if enabled is not None:
            self.enabled[device] = enabled
        if dtype is not None:
            self.dtypes[device] = dtype
        now = self.dtype("cpu") if self.enabled.get("cpu", False) else None
        if now is not modes.autocast:
            modes.autocast = now
        casting.begin(None if now is None else _call)


settings = Settings()


def eligible(x: Any) -> bool:
    """Whether autocast casts an argument."""
    return isinstance(x, Tensor) and x.dtype.kind == "f" and x.dtype is not float64


def cast_all(x: Any, dtype: DType) -> Any:
    """An argument with the floating tensors in it, also those in lists and tuples, as `dtype`."""
    if eligible(x):
        return cast(x, dtype)
    return type(x)([cast_all(member, dtype) for member in x]) if type(x) in (list, tuple) else x


def _members(x: Any) -> Iterator[Any]:
    if isinstance(x, list | tuple):
        for member in x:
            yield from _members(member)
    else:
        yield x


def _widest(arguments: Iterable[Any]) -> DType | None:
    """The dtype that all floating tensors among `arguments` can become; None where there are none."""
    found = [x.dtype for x in _members(tuple(arguments)) if eligible(x)]
    return reduce(promote_types, found) if found else None


def _call(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``op(*args, **kwargs)`` on tensors of the dtype that `op` says."""
    policy = op.autocast(*args, **kwargs) if callable(op.autocast) else op.autocast
    with casting(None):
        dtype = {"lower": modes.autocast, "float32": float32}.get(policy or "keep")
        if policy == "widest":
            dtype = _widest((*args, *kwargs.values()))
        if dtype is None:
            return op(*args, **kwargs)
        return op(*cast_all(args, dtype), **{name: cast_all(x, dtype) for name, x in kwargs.items()})
