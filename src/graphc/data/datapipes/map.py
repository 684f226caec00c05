"""Pipes that are read by index.

Enters: pipes and functions.  Leaves: pipes.  Never here: the order of reading.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from graphc.data.datapipes.functional import DataChunk, MapDataPipe, functional_datapipe
from graphc.errors import at_user_line


class SequenceWrapper(MapDataPipe[Any]):
    """The items of any sequence or mapping; of a deep copy of it unless `deepcopy` is False."""

    def __init__(self, sequence: Any, deepcopy: bool = True) -> None:
        self.sequence = copy.deepcopy(sequence) if deepcopy else sequence

    def __getitem__(self, index: Any) -> Any:
        return self.sequence[index]

    def __len__(self) -> int:
        return len(self.sequence)


@functional_datapipe("map")
class Mapper(MapDataPipe[Any]):
    """`fn` of every sample."""

    def __init__(self, datapipe: Any, fn: Callable[[Any], Any]) -> None:
        self.datapipe, self.fn = datapipe, fn

    def __getitem__(self, index: Any) -> Any:
        return self.fn(self.datapipe[index])

    def __len__(self) -> int:
        return len(self.datapipe)


@functional_datapipe("batch")
class Batcher(MapDataPipe[Any]):
    """Lists of `batch_size` samples; a shorter last one unless `drop_last`.  Raises AssertionError for a size below 1."""

    def __init__(self, datapipe: Any, batch_size: int, drop_last: bool = False, wrapper_class: Any = DataChunk) -> None:
        if batch_size <= 0:
            raise AssertionError(at_user_line("Batch size is required to be larger than 0!"))
        self.datapipe, self.batch_size, self.drop_last, self.wrapper_class = datapipe, batch_size, drop_last, wrapper_class

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(at_user_line(f"Index {index} is out of bound."))
        start = index * self.batch_size
        return self.wrapper_class([self.datapipe[i] for i in range(start, min(start + self.batch_size, len(self.datapipe)))])

    def __len__(self) -> int:
        count = len(self.datapipe)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)


@functional_datapipe("concat")
class Concater(MapDataPipe[Any]):
    """Pipes one after the other.  Raises ValueError for none."""

    def __init__(self, *datapipes: Any) -> None:
        if not datapipes:
            raise ValueError(at_user_line("Expected at least one DataPipe, but got nothing"))
        self.datapipes = datapipes

    def __getitem__(self, index: int) -> Any:
        for pipe in self.datapipes:
            if index < len(pipe):
                return pipe[index]
            index -= len(pipe)
        raise IndexError(at_user_line(f"Index {index} is out of range."))

    def __len__(self) -> int:
        return sum(len(pipe) for pipe in self.datapipes)


@functional_datapipe("zip")
class Zipper(MapDataPipe[Any]):
    """Tuples of one sample of every pipe.  Raises ValueError for no pipe."""

    def __init__(self, *datapipes: Any) -> None:
        if not datapipes:
            raise ValueError(at_user_line("Expected at least one DataPipe, but got nothing"))
        self.datapipes = datapipes

    def __getitem__(self, index: int) -> Any:
        return tuple([pipe[index] for pipe in self.datapipes])

    def __len__(self) -> int:
        return min(len(pipe) for pipe in self.datapipes)
