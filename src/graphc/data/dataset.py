"""Data sets: samples by index.

Enters: tensors, other data sets.  Leaves: samples.  Never here: the order of reading (`sampler`), batches (`loader`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from graphc.eager.creation import tensor
from graphc.eager.generator import randperm
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op


class Dataset:
    """A data set: subclasses define ``__getitem__(index)`` and ``__len__()``."""

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no __getitem__")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} has no __len__")


class TensorDataset(Dataset):
    """Sample i is row i of every tensor.  Raises ValueError for tensors of different lengths."""

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors or any(len(x) != len(tensors[0]) for x in tensors):
            raise ValueError(at_user_line(f"TensorDataset: tensors must have one length, got {[len(x) for x in tensors]}"))
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple(x[index] for x in self.tensors)  # type: ignore[index]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def rows(self, indices: list[int]) -> list[Tensor]:
        """The samples at `indices` as one batch, in one operation a tensor."""
        chosen = tensor(indices)
        return [Op.table["index_select"](x, 0, chosen) for x in self.tensors]


class Subset(Dataset):
    """Some samples of another data set."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices
        if hasattr(dataset, "rows"):
            self.rows = lambda chosen: dataset.rows([indices[i] for i in chosen])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(dataset: Any, lengths: Sequence[int | float], generator: Any = None) -> list[Subset]:
    """Disjoint random subsets of the given lengths, or of fractions that add up to 1.

    Raises ValueError where the lengths do not add up to the data set's.
    """
    count = len(dataset)
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1 + 1e-9:
        parts = list(_fractions(lengths, count))
    else:
        parts = [int(length) for length in lengths]
    if sum(parts) != count:
        raise ValueError(at_user_line("Sum of input lengths does not equal the length of the input dataset!"))
    order = randperm(count, generator=generator).tolist()
    starts = [sum(parts[:i]) for i in range(len(parts))]
    return [Subset(dataset, order[start : start + part]) for start, part in zip(starts, parts, strict=True)]


def _fractions(fractions: Sequence[float], count: int) -> Iterator[int]:
    """Lengths of fractions of `count`, rounded down; what is left goes to the first parts, one each."""
    lengths = []
    for i, fraction in enumerate(fractions):
        if not 0 <= fraction <= 1:
            raise ValueError(at_user_line(f"Fraction at index {i} is not between 0 and 1"))
        lengths.append(math.floor(count * fraction))
    left = count - sum(lengths)
    return (length + (i < left) for i, length in enumerate(lengths))
