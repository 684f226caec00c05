"""PyTorch's place of the sampler for several processes; no mechanism of its own (`graphc.data.sampler`)."""

from __future__ import annotations

from graphc.data import DistributedSampler

__all__ = ["DistributedSampler"]
