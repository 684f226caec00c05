"""`autocast` for the CPU by its deprecated name.  Never here: what autocast does (`graphc.amp`)."""

from __future__ import annotations

from graphc import amp
from graphc.dtypes import DType, bfloat16
from graphc.errors import warn


class autocast(amp.autocast):
    """``graphc.amp.autocast('cpu', ...)``.  Warns that this name is deprecated."""

    def __init__(self, enabled: bool = True, dtype: DType = bfloat16, cache_enabled: bool = True) -> None:
        message = "`graphc.cpu.amp.autocast(args...)` is deprecated. Please use `graphc.amp.autocast('cpu', args...)` instead."
        warn(message, FutureWarning)
        super().__init__("cpu", enabled=enabled, dtype=dtype, cache_enabled=cache_enabled)


__all__ = ["autocast"]
