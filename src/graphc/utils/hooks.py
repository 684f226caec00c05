"""PyTorch's place of the handles of hooks; no mechanism of its own."""

from __future__ import annotations

from graphc.eager.hooks import RemovableHandle

__all__ = ["RemovableHandle"]
