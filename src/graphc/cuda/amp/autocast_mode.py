"""`autocast` for CUDA by its deprecated name: it warns and is off.  Never here: what autocast does (`graphc.amp`)."""

from __future__ import annotations

import functools
from typing import Any

from graphc import amp
from graphc.dtypes import DType, float16
from graphc.errors import warn


class autocast(amp.autocast):
    """``graphc.amp.autocast('cuda', ...)``.  Warns that this name is deprecated, and that there is no CUDA."""

    def __init__(self, enabled: bool = True, dtype: DType = float16, cache_enabled: bool = True) -> None:
        message = "`graphc.cuda.amp.autocast(args...)` is deprecated. Please use `graphc.amp.autocast('cuda', args...)` instead."
        warn(message, FutureWarning)
        super().__init__("cuda", enabled=enabled, dtype=dtype, cache_enabled=cache_enabled)


def custom_fwd(fwd: Any = None, *, cast_inputs: DType | None = None) -> Any:
    """`graphc.amp.custom_fwd` for CUDA.  Warns that this name is deprecated."""
    message = "`graphc.cuda.amp.custom_fwd(args...)` is deprecated. Please use `graphc.amp.custom_fwd(args..., device_type='cuda')`"
    warn(f"{message} instead.", FutureWarning)
    return functools.partial(amp.custom_fwd, device_type="cuda")(fwd, cast_inputs=cast_inputs)


def custom_bwd(bwd: Any) -> Any:
    """`graphc.amp.custom_bwd` for CUDA.  Warns that this name is deprecated."""
    message = "`graphc.cuda.amp.custom_bwd(args...)` is deprecated. Please use `graphc.amp.custom_bwd(args..., device_type='cuda')`"
    warn(f"{message} instead.", FutureWarning)
    return amp.custom_bwd(bwd, device_type="cuda")


__all__ = ["autocast", "custom_bwd", "custom_fwd"]
