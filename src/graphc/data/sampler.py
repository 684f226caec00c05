"""Orders in which a data set is read.

Enters: data sets or their lengths.  Leaves: indices.  Never here: reading data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from typing import Any

from graphc.dtypes import int64
from graphc.eager.generator import randint, randperm
from graphc.errors import at_user_line


class SequentialSampler:
    """0, 1, 2, ..."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler:
    """Every index once, in a new random order each time; or `num_samples` of them, with replacement where asked to.

    Raises ValueError for a number of samples that is not positive.
    """

    def __init__(
        self, data_source: Sized, replacement: bool = False, num_samples: int | None = None, generator: Any = None
    ) -> None:
        if num_samples is not None and num_samples <= 0:
            raise ValueError(at_user_line(f"num_samples should be a positive integer value, but got num_samples={num_samples}"))
        self.data_source, self.replacement, self.generator = data_source, replacement, generator
        self._num_samples = num_samples

    @property
    def num_samples(self) -> int:
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        count = len(self.data_source)
        if self.replacement:
            drawn: Any = randint(0, count, (self.num_samples,), generator=self.generator, dtype=int64)
            yield from drawn.tolist()
            return
        left = self.num_samples
        while left > 0:
            order = randperm(count, generator=self.generator).tolist()[:left]
            left -= len(order)
            yield from order

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler:
    """Lists of `batch_size` indices of another sampler; a shorter last one unless `drop_last`.

    Raises ValueError for a size that is not a positive int.
    """

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(at_user_line(f"batch_size should be a positive integer value, but got batch_size={batch_size}"))
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        count = len(self.sampler) / self.batch_size
        return math.floor(count) if self.drop_last else math.ceil(count)
