"""PyTorch's place of the loader's parts; no mechanism of its own (`graphc.data`)."""

from __future__ import annotations

from graphc.utils.data._utils import collate, worker

__all__ = ["collate", "worker"]
