"""`DataLoader`: batches of a data set.

Enters: data sets, samplers.  Leaves: batches.  Never here: worker processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.data.sampler import BatchSampler, RandomSampler, SequentialSampler
from graphc.dtypes import float64
from graphc.eager.creation import as_tensor, tensor
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op


def default_collate(batch: Sequence[Any]) -> Any:
    """Samples as one batch: tensors and arrays are stacked, numbers become a tensor, containers are collated item by item.

    Raises TypeError for samples of another kind, RuntimeError for containers of different sizes.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return Op.table["stack"](list(batch))
    if isinstance(first, np.ndarray | np.generic):
        return as_tensor(np.stack([np.asarray(x) for x in batch]))
    if isinstance(first, float):
        return tensor(list(batch), dtype=float64)
    if isinstance(first, int):
        return tensor(list(batch))
    if isinstance(first, str | bytes):
        return list(batch)
    if isinstance(first, Mapping):
        return {key: default_collate([sample[key] for sample in batch]) for key in first}
    if isinstance(first, tuple | list):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError(at_user_line("each element in list of batch should be of equal size"))
        parts = [default_collate(part) for part in zip(*batch, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else parts
    raise TypeError(
        f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {type(first).__name__}"
    )


class DataLoader:
    """Batches of `dataset`, collated; with ``batch_size=None``, samples as they are.

    Raises ValueError for arguments that exclude one another, NotImplementedError for ``num_workers > 0``.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        generator: Any = None,
    ) -> None:
        if num_workers != 0:
            raise NotImplementedError(f"DataLoader: data is read in this process only; num_workers must be 0, got {num_workers}")
        if sampler is not None and shuffle:
            raise ValueError(at_user_line("sampler option is mutually exclusive with shuffle"))
        if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
            raise ValueError(
                at_user_line("batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last")
            )
        if batch_size is None and drop_last:
            raise ValueError(at_user_line("batch_size=None option disables auto-batching and is mutually exclusive with drop_last"))
        if sampler is None:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        if batch_sampler is None and batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.dataset, self.sampler, self.batch_sampler = dataset, sampler, batch_sampler
        self.batch_size, self.drop_last, self.generator, self.num_workers = batch_size, drop_last, generator, num_workers
        self.collate_fn = default_collate if collate_fn is None else collate_fn

    def __iter__(self) -> Iterator[Any]:
        dataset = self.dataset
        if self.batch_sampler is None:
            yield from (dataset[i] for i in self.sampler)
        elif self.collate_fn is default_collate and hasattr(dataset, "rows"):
            yield from map(dataset.rows, self.batch_sampler)
        else:
            yield from (self.collate_fn([dataset[i] for i in indices]) for indices in self.batch_sampler)

    def __len__(self) -> int:
        return len(self.sampler if self.batch_sampler is None else self.batch_sampler)
