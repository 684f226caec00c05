"""``torch.cpu.amp``: `graphc.amp` for the CPU, by deprecated names."""

from __future__ import annotations

from graphc.cpu.amp.autocast_mode import autocast
from graphc.cpu.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast"]
