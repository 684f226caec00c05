"""``torch.amp``: arithmetic in 16 bits where that is enough, and gradients kept from vanishing.  Names of other modules only."""

from __future__ import annotations

from graphc.amp.autocast_mode import autocast, custom_bwd, custom_fwd, is_autocast_available
from graphc.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
