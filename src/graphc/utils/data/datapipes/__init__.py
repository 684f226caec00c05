"""PyTorch's place of data pipes; no mechanism of its own (`graphc.data.datapipes`)."""

from __future__ import annotations

from graphc.utils.data.datapipes import datapipe, iter, map

__all__ = ["datapipe", "iter", "map"]
