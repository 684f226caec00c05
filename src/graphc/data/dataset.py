"""Data sets: samples by index, or one after another.

Enters: tensors, other data sets.  Leaves: samples.  Never here: the order of reading (`sampler`), batches (`loader`).
"""

from __future__ import annotations

import bisect
import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from graphc.data.collate import chosen_rows
from graphc.eager.generator import randperm
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line, warn

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """A data set: subclasses define ``__getitem__(index)`` and, for most samplers, ``__len__()``.

    One that can read many samples at once defines ``__getitems__(indices)`` too, giving a list.  ``a + b`` is both, one after the
    other.
    """

    def __getitem__(self, index: Any) -> T_co:
        raise NotImplementedError(
            at_user_line(f"Subclasses of Dataset should implement __getitem__; {type(self).__name__} has none")
        )

    def __add__(self, other: Dataset[Any]) -> Dataset[Any]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co], Iterable[T_co]):
    """A data set that is read from its beginning: subclasses define ``__iter__()``.  Every worker reads all of it, unless
    ``__iter__`` asks `get_worker_info` for its part."""

    @abstractmethod
    def __iter__(self) -> Iterator[T_co]: ...

    def __add__(self, other: Any) -> Any:
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Sample i is row i of every tensor.  Raises AssertionError for tensors of different lengths."""

    tensors: tuple[Tensor, ...]

    def __init__(self, *tensors: Tensor) -> None:
        if any(len(x) != len(tensors[0]) for x in tensors):
            lengths = [len(x) for x in tensors]
            raise AssertionError(at_user_line(f"Size mismatch between tensors: TensorDataset needs one length, got {lengths}"))
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple([x[index] for x in self.tensors])  # type: ignore[index]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def _rows(self, indices: Sequence[int]) -> list[Tensor]:
        """The samples at `indices` as one batch, in one step a tensor."""
        return [chosen_rows(x, indices) for x in self.tensors]


class StackDataset(Dataset[Any]):
    """Sample i is sample i of every data set, as a tuple, or as a dict for data sets given by name.

    Raises ValueError for data sets of different lengths, for none, and for both kinds at once.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args and kwargs:
            message = "Supported either ``tuple``- (via ``args``) or``dict``- (via ``kwargs``) like input/output, "
            raise ValueError(at_user_line(f"{message}but both types are given."))
        if not args and not kwargs:
            raise ValueError(at_user_line("At least one dataset should be passed"))
        self.datasets: Any = args or kwargs
        every = list(self._each())
        self._length = len(every[0])
        if any(len(dataset) != self._length for dataset in every):
            raise ValueError(at_user_line(f"Size mismatch between datasets: {[len(dataset) for dataset in every]}"))

    def _each(self) -> Iterable[Any]:
        return self.datasets.values() if isinstance(self.datasets, dict) else self.datasets  # type: ignore[no-any-return]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple([dataset[index] for dataset in self.datasets])

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """The samples at `indices`.  Raises ValueError where a data set gives another number of them."""
        columns = [read_many(dataset, indices) for dataset in self._each()]
        if isinstance(self.datasets, dict):
            return [dict(zip(self.datasets, sample, strict=True)) for sample in zip(*columns, strict=True)]
        return list(zip(*columns, strict=True))

    def __len__(self) -> int:
        return self._length


class ConcatDataset(Dataset[T_co]):
    """Data sets one after the other.  Raises AssertionError for none, and for iterable ones."""

    datasets: list[Dataset[T_co]]
    cumulative_sizes: list[int]

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise AssertionError(at_user_line("datasets should not be an empty iterable"))
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise AssertionError(at_user_line("ConcatDataset does not support IterableDataset"))
        self.cumulative_sizes = self.cumsum(self.datasets)

    @staticmethod
    def cumsum(sequence: Iterable[Any]) -> list[int]:
        """Where each of the sequences ends."""
        return list(itertools.accumulate(len(part) for part in sequence))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T_co:
        if index < 0:
            if -index > len(self):
                raise ValueError(at_user_line("absolute value of index should not exceed dataset length"))
            index += len(self)
        which = bisect.bisect_right(self.cumulative_sizes, index)
        if which == len(self.datasets):
            raise IndexError(at_user_line(f"list index out of range: ConcatDataset has {len(self)} samples, asked for {index}"))
        return self.datasets[which][index - (self.cumulative_sizes[which - 1] if which else 0)]

    @property
    def cummulative_sizes(self) -> list[int]:
        """`cumulative_sizes`, as it was misspelt."""
        warn("cummulative_sizes attribute is renamed to cumulative_sizes", DeprecationWarning)
        return self.cumulative_sizes


class ChainDataset(IterableDataset[T_co]):
    """Iterable data sets one after the other.  Raises AssertionError, when read, for one that is not iterable."""

    def __init__(self, datasets: Iterable[Any]) -> None:
        super().__init__()
        self.datasets = datasets

    def __iter__(self) -> Iterator[T_co]:
        for dataset in self.datasets:
            yield from _iterable(dataset)

    def __len__(self) -> int:
        return sum(len(_iterable(dataset)) for dataset in self.datasets)


def _iterable(dataset: Any) -> Any:
    if not isinstance(dataset, IterableDataset):
        raise AssertionError(at_user_line(f"ChainDataset only supports IterableDataset, not {type(dataset).__name__}"))
    return dataset


class Subset(Dataset[T_co]):
    """Some samples of another data set."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return read_many(self.dataset, [self.indices[i] for i in indices])

    def __len__(self) -> int:
        return len(self.indices)


def read_many(dataset: Any, indices: list[int]) -> list[Any]:
    """The samples at `indices`: in one call where the data set has one, else one by one.

    An error says in a note which index was being read.  Raises ValueError where one call gives another number of samples.
    """
    at_once = getattr(dataset, "__getitems__", None)
    if at_once:
        samples: list[Any] = at_once(indices)
        if len(samples) != len(indices):
            message = f"Nested dataset's output size mismatch. Expected {len(indices)}, got {len(samples)}"
            raise ValueError(at_user_line(f"{message} (from {type(dataset).__name__}.__getitems__)"))
        return samples
    samples, index = [], None
    add = samples.append
    try:
        for index in indices:
            add(dataset[index])
    except Exception as error:
        where = f"while reading index {index!r} of {type(dataset).__name__}, for a batch of indices {shown(indices)}"
        if isinstance(error, StopIteration):  # it would end the epoch
            raise RuntimeError(at_user_line(f"the data set raised StopIteration {where}")) from error
        error.add_note(where)
        raise
    return samples


def batch_reader(dataset: Any) -> Callable[[list[int]], list[Tensor]] | None:
    """How to read a whole batch of `dataset`, collated, without its samples; None where what a sample is may be the user's code."""
    kind = type(dataset)
    if isinstance(dataset, TensorDataset) and kind.__getitem__ is TensorDataset.__getitem__ and not hasattr(kind, "__getitems__"):
        return dataset._rows
    if isinstance(dataset, Subset) and (kind.__getitem__, kind.__getitems__) == (Subset.__getitem__, Subset.__getitems__):
        inner, places = batch_reader(dataset.dataset), dataset.indices
        if inner is not None:
            return lambda indices: inner([places[i] for i in indices])
    return None


def shown(indices: Any) -> str:
    """Indices of a batch as text for messages, cut where they are many."""
    if not isinstance(indices, list | tuple) or len(indices) <= 64:
        return repr(indices)
    return f"[{', '.join(map(repr, indices[:64]))}, ... {len(indices)} in all]"


def random_split(dataset: Any, lengths: Sequence[int | float], generator: Any = None) -> list[Subset[Any]]:
    """Disjoint random subsets of the given lengths, or of fractions that add up to 1.

    Raises ValueError where the lengths do not add up to the data set's.  Warns of empty ones made by fractions.
    """
    count = len(dataset)
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        parts = list(_fractions(lengths, count))
        for i, part in enumerate(parts):
            if part == 0:
                warn(f"Length of split at index {i} is 0. This might result in an empty dataset.", UserWarning)
    else:
        parts = [int(length) for length in lengths]
    if sum(parts) != count:
        raise ValueError(at_user_line("Sum of input lengths does not equal the length of the input dataset!"))
    order = randperm(count, generator=generator).tolist()
    return [Subset(dataset, order[end - part : end]) for part, end in zip(parts, itertools.accumulate(parts), strict=True)]


def _fractions(fractions: Sequence[float], count: int) -> Iterator[int]:
    """Lengths of fractions of `count`, rounded down; what is left goes to the first parts, one each."""
    lengths = []
    for i, fraction in enumerate(fractions):
        if not 0 <= fraction <= 1:
            raise ValueError(at_user_line(f"Fraction at index {i} is not between 0 and 1"))
        lengths.append(math.floor(count * fraction))
    left = count - sum(lengths)
    return (length + (i < left) for i, length in enumerate(lengths))
