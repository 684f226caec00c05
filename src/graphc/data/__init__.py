"""Data sets, samplers and batches under PyTorch's names; no mechanism of its own."""

from __future__ import annotations

import graphc.namespace  # noqa: F401  tensors get their methods there
from graphc.data.collate import default_collate, default_convert
from graphc.data.dataloader import DataLoader, _DatasetKind
from graphc.data.datapipes.functional import IterDataPipe, MapDataPipe, functional_datapipe
from graphc.data.dataset import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from graphc.data.sampler import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from graphc.data.worker import get_worker_info

__all__ = [
    "BatchSampler", "ChainDataset", "ConcatDataset", "DataLoader", "Dataset", "DistributedSampler", "IterDataPipe",
    "IterableDataset", "MapDataPipe", "RandomSampler", "Sampler", "SequentialSampler", "StackDataset", "Subset",
    "SubsetRandomSampler", "TensorDataset", "WeightedRandomSampler", "_DatasetKind", "default_collate", "default_convert",
    "functional_datapipe", "get_worker_info", "random_split",
]  # fmt: skip
