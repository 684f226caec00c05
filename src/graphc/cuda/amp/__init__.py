"""``torch.cuda.amp``: `graphc.amp` for CUDA, by deprecated names."""

from __future__ import annotations

from graphc.cuda.amp.autocast_mode import autocast, custom_bwd, custom_fwd
from graphc.cuda.amp.grad_scaler import GradScaler


def amp_definitely_not_available() -> bool:
    """True: there is no CUDA runtime."""
    return True


__all__ = ["GradScaler", "amp_definitely_not_available", "autocast", "custom_bwd", "custom_fwd"]
