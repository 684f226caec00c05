"""PyTorch's place of data sets; no mechanism of its own (`graphc.data.dataset`)."""

from __future__ import annotations

from graphc.data import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from graphc.data.dataset import T_co

__all__ = [
    "ChainDataset", "ConcatDataset", "Dataset", "IterableDataset", "StackDataset", "Subset", "T_co", "TensorDataset",
    "random_split",
]  # fmt: skip
