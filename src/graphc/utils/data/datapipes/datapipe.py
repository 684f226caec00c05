"""PyTorch's place of what data pipes are; no mechanism of its own (`graphc.data.datapipes.functional`)."""

from __future__ import annotations

from graphc.data.datapipes.functional import DataChunk, IterDataPipe, MapDataPipe

__all__ = ["DataChunk", "IterDataPipe", "MapDataPipe"]
