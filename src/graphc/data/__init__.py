"""Data sets, samplers and batches under PyTorch's names; no mechanism of its own."""

from __future__ import annotations

import graphc.namespace  # noqa: F401  tensors get their methods there
from graphc.data.dataset import Dataset, Subset, TensorDataset, random_split
from graphc.data.loader import DataLoader, default_collate
from graphc.data.sampler import BatchSampler, RandomSampler, SequentialSampler

__all__ = [
    "BatchSampler", "DataLoader", "Dataset", "RandomSampler", "SequentialSampler", "Subset", "TensorDataset", "default_collate",
    "random_split",
]  # fmt: skip
