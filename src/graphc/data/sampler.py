"""Orders in which a data set is read.

Enters: data sets or their lengths.  Leaves: indices.  Never here: reading data.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

from graphc.dtypes import float64, int64
from graphc.eager.creation import as_tensor
from graphc.eager.generator import Generator, randint, randperm
from graphc.eager.sampling import multinomial
from graphc.errors import at_user_line

T_co = TypeVar("T_co", covariant=True)


class Sampler(Generic[T_co]):
    """An order: subclasses define ``__iter__()``, which gives indices or lists of them, and often ``__len__()``."""

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(at_user_line(f"{type(self).__name__} should implement __iter__"))


class SequentialSampler(Sampler[int]):
    """0, 1, 2, ..."""

    data_source: Sized

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


_DRAWN = 4096  # random numbers at a time


class RandomSampler(Sampler[int]):
    """Every index once, in a new random order each time; or `num_samples` of them, with replacement where asked to.

    Raises TypeError for a `replacement` that is no bool, ValueError for a number of samples that is not positive.
    """

    data_source: Sized

    def __init__(
        self, data_source: Sized, replacement: bool = False, num_samples: int | None = None, generator: Any = None
    ) -> None:
        self.data_source, self.replacement, self.generator = data_source, replacement, generator
        self._num_samples = num_samples
        if not isinstance(replacement, bool):
            raise TypeError(at_user_line(f"replacement should be a boolean value, but got replacement={replacement}"))
        _check_count(self.num_samples)

    @property
    def num_samples(self) -> int:
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        count, left = len(self.data_source), self.num_samples
        if self.replacement:
            return self._draws(count, left)
        if left == count:
            return iter(randperm(count, generator=self.generator).tolist())
        return self._rounds(count, left)

    def _draws(self, count: int, left: int) -> Iterator[int]:
        while left > 0:  # some at a time: training loops ask for 10 ** 10 and stop when they like
            drawn: Any = randint(0, count, (min(left, _DRAWN),), generator=self.generator, dtype=int64)
            left -= _DRAWN
            yield from drawn.tolist()

    def _rounds(self, count: int, left: int) -> Iterator[int]:
        while left > 0:
            order = randperm(count, generator=self.generator).tolist()[:left]
            left -= len(order)
            yield from order

    def __len__(self) -> int:
        return self.num_samples


def _check_count(num_samples: Any) -> None:
    if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
        raise ValueError(at_user_line(f"num_samples should be a positive integer value, but got num_samples={num_samples}"))


class SubsetRandomSampler(Sampler[int]):
    """The given indices in a new random order each time."""

    indices: Sequence[int]

    def __init__(self, indices: Sequence[int], generator: Any = None) -> None:
        self.indices, self.generator = indices, generator

    def __iter__(self) -> Iterator[int]:
        indices = self.indices
        return iter([indices[i] for i in randperm(len(indices), generator=self.generator).tolist()])

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """`num_samples` indices of 0..len(weights)-1, each as likely as its weight says (weights need not add up to 1).

    Raises ValueError for wrong arguments; RuntimeError, when read, where weights allow no such draw.
    """

    def __init__(self, weights: Sequence[float], num_samples: int, replacement: bool = True, generator: Any = None) -> None:
        _check_count(num_samples)
        if not isinstance(replacement, bool):
            raise ValueError(at_user_line(f"replacement should be a boolean value, but got replacement={replacement}"))
        self.weights = as_tensor(weights, dtype=float64)
        if len(self.weights.shape) != 1:
            shape = tuple(self.weights.shape)
            raise ValueError(at_user_line(f"weights should be a 1d sequence but given weights have shape {shape}"))
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator

    def __iter__(self) -> Iterator[int]:
        drawn: Any = multinomial(self.weights, self.num_samples, self.replacement, generator=self.generator)
        return iter(drawn.tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of `batch_size` indices of another sampler; a shorter last one unless `drop_last`.

    Raises ValueError for a size that is not a positive int, and for a `drop_last` that is no bool.
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(at_user_line(f"batch_size should be a positive integer value, but got batch_size={batch_size}"))
        if not isinstance(drop_last, bool):
            raise ValueError(at_user_line(f"drop_last should be a boolean value, but got drop_last={drop_last}"))
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        while batch := list(itertools.islice(indices, self.batch_size)):
            if len(batch) < self.batch_size and self.drop_last:
                return
            yield batch

    def __len__(self) -> int:
        count = len(self.sampler)  # type: ignore[arg-type]
        return count // self.batch_size if self.drop_last else (count + self.batch_size - 1) // self.batch_size


class DistributedSampler(Sampler[Any]):
    """The part of a data set that process `rank` of `num_replicas` reads: every num_replicas-th of one order.

    The order is the same in every process; it is shuffled by `seed` and the number that `set_epoch` was given.  Indices are
    repeated, or with `drop_last` left out, so that all parts have one length.  Raises ValueError for a rank that is none,
    RuntimeError where `num_replicas` or `rank` is not given (there are no process groups to ask).
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            message = "Requires distributed package to be available: give DistributedSampler num_replicas and rank"
            raise RuntimeError(at_user_line(message))
        if not 0 <= rank < num_replicas:
            raise ValueError(at_user_line(f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]"))
        self.dataset, self.num_replicas, self.rank, self.epoch, self.drop_last = dataset, num_replicas, rank, 0, drop_last
        self.shuffle, self.seed = shuffle, seed
        rounding = math.floor if drop_last else math.ceil
        self.num_samples = rounding(len(dataset) / num_replicas)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[Any]:
        count = len(self.dataset)
        order = list(range(count))
        if self.shuffle:
            order = randperm(count, generator=Generator(seed=self.seed + self.epoch)).tolist()
        if count:
            order *= math.ceil(self.total_size / count)
        return iter(order[self.rank : self.total_size : self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """The order that follows is that of this epoch; without a call every epoch has the same."""
        self.epoch = epoch
