"""PyTorch's place of the loader and what its iterators are; no mechanism of its own (`graphc.data.dataloader`)."""

from __future__ import annotations

from graphc.data import BatchSampler, Dataset, IterableDataset, RandomSampler, Sampler, SequentialSampler
from graphc.data.dataloader import (
    DataLoader,
    _BaseDataLoaderIter,
    _DatasetKind,
    _InfiniteConstantSampler,
    _MultiProcessingDataLoaderIter,
    _SingleProcessDataLoaderIter,
    default_collate,
    default_convert,
    get_worker_info,
)

__all__ = [
    "BatchSampler", "DataLoader", "Dataset", "IterableDataset", "RandomSampler", "Sampler", "SequentialSampler",
    "_BaseDataLoaderIter", "_DatasetKind", "_InfiniteConstantSampler", "_MultiProcessingDataLoaderIter",
    "_SingleProcessDataLoaderIter", "default_collate", "default_convert", "get_worker_info",
]  # fmt: skip
