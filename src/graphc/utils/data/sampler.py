"""PyTorch's place of samplers; no mechanism of its own (`graphc.data.sampler`)."""

from __future__ import annotations

from graphc.data import BatchSampler, RandomSampler, Sampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler

__all__ = ["BatchSampler", "RandomSampler", "Sampler", "SequentialSampler", "SubsetRandomSampler", "WeightedRandomSampler"]
