"""PyTorch's place of checkpoints; no mechanism of its own."""

from __future__ import annotations

from graphc.autograd.checkpoint import checkpoint, checkpoint_sequential

__all__ = ["checkpoint", "checkpoint_sequential"]
