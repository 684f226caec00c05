"""Pipes that are read from their beginning.

Enters: pipes and functions.  Leaves: pipes.  Never here: processes; a pipe in a worker reads all, but behind a `ShardingFilter`.
"""

from __future__ import annotations

import copy
import fnmatch
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from graphc.data.collate import default_collate
from graphc.data.datapipes.functional import DataChunk, IterDataPipe, column_function, functional_datapipe
from graphc.data.sampler import SequentialSampler
from graphc.data.worker import get_worker_info
from graphc.eager.generator import Generator, randperm
from graphc.errors import at_user_line


class IterableWrapper(IterDataPipe[Any]):
    """The items of any iterable; of a deep copy of it, where it can be copied, unless `deepcopy` is False."""

    def __init__(self, iterable: Iterable[Any], deepcopy: bool = True) -> None:
        self.iterable, self.deepcopy = iterable, deepcopy

    def __iter__(self) -> Iterator[Any]:
        items = self.iterable
        if self.deepcopy:
            try:
                items = copy.deepcopy(items)
            except TypeError:  # generators and the like
                items = self.iterable
        yield from items

    def __len__(self) -> int:
        return len(self.iterable)  # type: ignore[arg-type]


@functional_datapipe("map")
class Mapper(IterDataPipe[Any]):
    """`fn` of every sample, or of the columns `input_col` of it."""

    def __init__(self, datapipe: Any, fn: Callable[..., Any], input_col: Any = None, output_col: Any = None) -> None:
        self.datapipe, self.fn = datapipe, fn
        self.input_col, self.output_col = input_col, output_col
        column_function(fn, input_col, output_col)

    def __iter__(self) -> Iterator[Any]:
        return map(column_function(self.fn, self.input_col, self.output_col), self.datapipe)

    def __len__(self) -> int:
        return len(self.datapipe)


@functional_datapipe("collate")
class Collator(Mapper):
    """Every batch collated, by `default_collate` or the given function."""

    def __init__(self, datapipe: Any, conversion: Any = default_collate, collate_fn: Any = None) -> None:
        super().__init__(datapipe, fn=conversion if collate_fn is None else collate_fn)


@functional_datapipe("filter")
class Filter(IterDataPipe[Any]):
    """The samples for which `filter_fn` is true."""

    def __init__(self, datapipe: Any, filter_fn: Callable[..., Any], input_col: Any = None) -> None:
        self.datapipe, self.filter_fn, self.input_col = datapipe, filter_fn, input_col

    def __iter__(self) -> Iterator[Any]:
        columns = self.input_col
        for sample in self.datapipe:
            given = (
                (sample,) if columns is None else [sample[c] for c in (columns if isinstance(columns, list | tuple) else [columns])]
            )
            if self.filter_fn(*given):
                yield sample


@functional_datapipe("batch")
class Batcher(IterDataPipe[Any]):
    """Lists of `batch_size` samples; a shorter last one unless `drop_last`.  Raises AssertionError for a size below 1."""

    def __init__(self, datapipe: Any, batch_size: int, drop_last: bool = False, wrapper_class: Any = DataChunk) -> None:
        if batch_size <= 0:
            raise AssertionError(at_user_line("Batch size is required to be larger than 0!"))
        self.datapipe, self.batch_size, self.drop_last, self.wrapper_class = datapipe, batch_size, drop_last, wrapper_class

    def __iter__(self) -> Iterator[Any]:
        samples = iter(self.datapipe)
        while batch := list(itertools.islice(samples, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield self.wrapper_class(batch)

    def __len__(self) -> int:
        count = len(self.datapipe)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)


@functional_datapipe("unbatch")
class UnBatcher(IterDataPipe[Any]):
    """The samples of batches, `unbatch_level` deep; -1 opens all lists."""

    def __init__(self, datapipe: Any, unbatch_level: int = 1) -> None:
        if unbatch_level < -1:
            raise ValueError(at_user_line("unbatch_level must be -1 or >= 0"))
        self.datapipe, self.unbatch_level = datapipe, unbatch_level

    def __iter__(self) -> Iterator[Any]:
        for item in self.datapipe:
            yield from self._opened(item, self.unbatch_level)

    def _opened(self, item: Any, level: int) -> Iterator[Any]:
        if level == 0 or (level < 0 and not isinstance(item, list)):
            yield item
            return
        if not isinstance(item, list):
            raise IndexError(at_user_line(f"unbatch_level {self.unbatch_level} exceeds the depth of the DataPipe"))
        for part in item:
            yield from self._opened(part, level - 1 if level > 0 else level)


@functional_datapipe("shuffle")
class Shuffler(IterDataPipe[Any]):
    """The samples in random order: each is drawn from the next `buffer_size` of them."""

    def __init__(self, datapipe: Any, *, buffer_size: int = 10000, unbatch_level: int = 0) -> None:
        if buffer_size <= 0:
            raise ValueError(at_user_line("buffer_size should be larger than 0"))
        self.datapipe = datapipe if unbatch_level == 0 else datapipe.unbatch(unbatch_level=unbatch_level)
        self.buffer_size, self._rounds = buffer_size, 0

    def __iter__(self) -> Iterator[Any]:
        samples, info = iter(self.datapipe), get_worker_info()
        # All workers draw the same order, so that what they take of it in turn (`ShardingFilter`) is everything once.
        generator = None if info is None else Generator(seed=info.seed - info.id + self._rounds)
        self._rounds += 1
        while buffer := list(itertools.islice(samples, self.buffer_size)):
            yield from [buffer[i] for i in randperm(len(buffer), generator=generator).tolist()]

    def __len__(self) -> int:
        return len(self.datapipe)


@functional_datapipe("concat")
class Concater(IterDataPipe[Any]):
    """Pipes one after the other.  Raises ValueError for none."""

    def __init__(self, *datapipes: Any) -> None:
        if not datapipes:
            raise ValueError(at_user_line("Expected at least one DataPipe, but got nothing"))
        self.datapipes = datapipes

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(self.datapipes)

    def __len__(self) -> int:
        return sum(len(pipe) for pipe in self.datapipes)


@functional_datapipe("zip")
class Zipper(IterDataPipe[Any]):
    """Tuples of one sample of every pipe, until the first is at its end."""

    def __init__(self, *datapipes: Any) -> None:
        super().__init__()
        self.datapipes = datapipes

    def __iter__(self) -> Iterator[Any]:
        return zip(*self.datapipes, strict=False)

    def __len__(self) -> int:
        return min(len(pipe) for pipe in self.datapipes)


@functional_datapipe("mux")
class Multiplexer(IterDataPipe[Any]):
    """One sample of every pipe in turn, until the first is at its end."""

    def __init__(self, *datapipes: Any) -> None:
        self.datapipes = datapipes

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(zip(*self.datapipes, strict=False))

    def __len__(self) -> int:
        return min(len(pipe) for pipe in self.datapipes) * len(self.datapipes)


class Sampler(IterDataPipe[Any]):
    """The indices that a sampler class gives for the pipe."""

    def __init__(
        self, datapipe: Any, sampler: Any = SequentialSampler, sampler_args: Any = None, sampler_kwargs: Any = None
    ) -> None:
        self.datapipe = datapipe
        self.sampler = sampler(*(sampler_args or ()), data_source=datapipe, **(sampler_kwargs or {}))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)


@functional_datapipe("sharding_filter")
class ShardingFilter(IterDataPipe[Any]):
    """In a worker, every num_workers-th sample; elsewhere all."""

    def __init__(self, source_datapipe: Any, sharding_group_filter: Any = None) -> None:
        self.source_datapipe = source_datapipe

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        start, step = (0, 1) if info is None else (info.id, info.num_workers)
        return itertools.islice(self.source_datapipe, start, None, step)

    def __len__(self) -> int:
        info = get_worker_info()
        start, step = (0, 1) if info is None else (info.id, info.num_workers)
        return len(range(start, len(self.source_datapipe), step))


@functional_datapipe("list_files")
class FileLister(IterDataPipe[str]):
    """The paths of the files in folders, by name; of subfolders too where `recursive`."""

    def __init__(
        self, root: Any = ".", masks: Any = "", *, recursive: bool = False, abspath: bool = False, length: int = -1
    ) -> None:
        self.datapipe = IterableWrapper([root] if isinstance(root, str) else root)
        self.masks = [masks] if isinstance(masks, str) else list(masks)
        self.recursive, self.abspath, self.length = recursive, abspath, length

    def __iter__(self) -> Iterator[str]:
        for root in self.datapipe:
            top = os.path.abspath(root) if self.abspath else root
            for folder, folders, names in os.walk(top):
                folders[:] = sorted(folders) if self.recursive else []
                for name in sorted(names):
                    if not any(self.masks) or any(fnmatch.fnmatch(name, mask) for mask in self.masks):
                        yield os.path.join(folder, name)


@functional_datapipe("open_files")
class FileOpener(IterDataPipe[Any]):
    """(path, open file) of every path."""

    def __init__(self, datapipe: Iterable[str], mode: str = "r", encoding: str | None = None, length: int = -1) -> None:
        if mode not in ("b", "t", "rb", "rt", "r"):
            raise ValueError(at_user_line(f"Invalid mode {mode}"))
        self.datapipe, self.encoding, self.length = datapipe, encoding, length
        self.mode = mode if mode.startswith("r") else f"r{mode}"

    def __iter__(self) -> Iterator[Any]:
        for path in self.datapipe:
            yield path, open(path, self.mode, encoding=self.encoding)  # noqa: SIM115  whoever takes it closes it

    def __len__(self) -> int:
        if self.length < 0:
            raise TypeError(at_user_line(f"{type(self).__name__} instance doesn't have valid length"))
        return self.length
