"""`GradScaler` for CUDA by its deprecated name: it warns and is off.  Never here: what a scaler does (`graphc.amp`)."""

from __future__ import annotations

from graphc import amp
from graphc.amp.grad_scaler import OptState
from graphc.errors import warn


class GradScaler(amp.GradScaler):
    """``graphc.amp.GradScaler('cuda', ...)``.  Warns that this name is deprecated, and that there is no CUDA."""

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        message = (
            "`graphc.cuda.amp.GradScaler(args...)` is deprecated. Please use `graphc.amp.GradScaler('cuda', args...)` instead."
        )
        warn(message, FutureWarning)
        super().__init__("cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled)


__all__ = ["GradScaler", "OptState"]
