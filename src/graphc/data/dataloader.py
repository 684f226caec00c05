"""`DataLoader`: batches of a data set, read here or in worker processes.

Enters: data sets, samplers.  Leaves: batches.  Never here: collating (`collate`), processes (`crew`, `worker`), how batches come
over (`transport`).
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from graphc.data.collate import default_collate, default_convert
from graphc.data.crew import Crew
from graphc.data.dataset import Dataset, IterableDataset
from graphc.data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler
from graphc.data.worker import BATCH, END, ERROR, Failure, Work, get_worker_info
from graphc.dtypes import int64
from graphc.eager.generator import randint
from graphc.errors import at_user_line, warn

T_co = TypeVar("T_co", covariant=True)

__all__ = ["DataLoader", "default_collate", "default_convert", "get_worker_info"]


class _DatasetKind:
    """How a data set is read."""

    Map = 0
    Iterable = 1


class _InfiniteConstantSampler(Sampler[None]):
    """None, for ever: the order of a data set that has its own."""

    def __iter__(self) -> Iterator[None]:
        return itertools.repeat(None)


class DataLoader(Generic[T_co]):
    """Batches of `dataset`, collated; with ``batch_size=None``, samples as they are.

    num_workers: how many processes read; 0 reads in this one.  prefetch_factor: batches that each worker may be ahead (2).
    timeout: seconds to wait for a batch of workers; 0 is for ever.  persistent_workers: workers live as long as the loader.
    multiprocessing_context: a start method's name or a context of `multiprocessing`.  in_order: batches come in the sampler's
    order, else as workers finish them.  pin_memory changes nothing on the CPU.

    Raises ValueError and TypeError for arguments that exclude one another or are none; ValueError where one is assigned later.
    Iterating raises AssertionError for a `timeout` without workers, and what the data set raises; of a worker, an error of the same
    class that shows the worker's traceback and the batch's indices; RuntimeError where a worker is killed or a batch takes longer
    than `timeout`.
    """

    dataset: Dataset[T_co]
    batch_size: int | None
    sampler: Any
    _iterator: _Iteration | None = None
    __initialized = False

    def __init__(
        self,
        dataset: Dataset[T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers)
        self.dataset, self.num_workers, self.timeout, self.generator = dataset, num_workers, timeout, generator
        self.prefetch_factor = 2 if num_workers > 0 and prefetch_factor is None else prefetch_factor
        self.pin_memory, self.pin_memory_device, self.worker_init_fn = pin_memory, pin_memory_device, worker_init_fn
        self.in_order, self.persistent_workers = in_order, persistent_workers
        self.multiprocessing_context = multiprocessing_context
        iterable = isinstance(dataset, IterableDataset)
        self._dataset_kind = _DatasetKind.Iterable if iterable else _DatasetKind.Map
        _check_order(iterable, batch_size, shuffle, sampler, batch_sampler, drop_last)
        if batch_sampler is not None:
            batch_size, drop_last = None, False
        if sampler is None:
            if iterable:
                sampler = _InfiniteConstantSampler()
            else:
                sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)  # type: ignore[arg-type]
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size, self.drop_last, self.sampler, self.batch_sampler = batch_size, drop_last, sampler, batch_sampler
        if collate_fn is None:
            collate_fn = default_collate if self._auto_collation else default_convert
        self.collate_fn = collate_fn
        self._IterableDataset_len_called: int | None = None
        self.__initialized = True
        self.check_worker_number_rationality()

    @property
    def multiprocessing_context(self) -> Any:
        """The context that workers are started with; None is Python's default."""
        return self.__context

    @multiprocessing_context.setter
    def multiprocessing_context(self, context: Any) -> None:
        if context is not None:
            context = _checked_context(context, self.num_workers)
        self.__context = context

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__initialized and name in ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"):
            message = f"{name} attribute should not be set after {type(self).__name__} is initialized"
            raise ValueError(at_user_line(message))
        super().__setattr__(name, value)

    @property
    def _auto_collation(self) -> bool:
        return self.batch_sampler is not None

    @property
    def _index_sampler(self) -> Any:
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def _get_iterator(self) -> _Iteration:
        if self.num_workers == 0:
            return _HereIteration(self)
        self.check_worker_number_rationality()
        return _WorkersIteration(self)

    def __iter__(self) -> _Iteration:
        if not self.persistent_workers:
            return self._get_iterator()
        if self._iterator is None or self._iterator._stopped:
            self._iterator = self._get_iterator()
        else:
            self._iterator._reset(self)
        return self._iterator

    def __len__(self) -> int:
        if self._dataset_kind == _DatasetKind.Map:
            return len(self._index_sampler)
        count = self._IterableDataset_len_called = len(self.dataset)  # type: ignore[arg-type]
        if self.batch_size is None:
            return count
        return count // self.batch_size if self.drop_last else (count + self.batch_size - 1) // self.batch_size

    def check_worker_number_rationality(self) -> None:
        """Warn (UserWarning) of more workers than CPUs that this process may use."""
        if not self.num_workers:
            return
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        if cpus is not None and self.num_workers > cpus:
            warn(
                f"This DataLoader will create {self.num_workers} worker processes in total. Our suggested max number of worker in "
                f"current system is {cpus}, which is smaller than what this DataLoader is going to create. Workers that share CPUs "
                "read no faster.",
                UserWarning,
            )


def _check_workers(num_workers: int, timeout: float, prefetch_factor: int | None, persistent_workers: bool) -> None:
    message = ""
    if num_workers < 0:
        message = "num_workers option should be non-negative; use num_workers=0 to disable multiprocessing."
    elif timeout < 0:
        message = "timeout option should be non-negative"
    elif num_workers == 0 and prefetch_factor is not None:
        message = "prefetch_factor option could only be specified in multiprocessing."
        message += "let num_workers > 0 to enable multiprocessing, otherwise set prefetch_factor to None."
    elif prefetch_factor is not None and prefetch_factor < 0:
        message = "prefetch_factor option should be non-negative"
    elif persistent_workers and num_workers == 0:
        message = "persistent_workers option needs num_workers > 0"
    if message:
        raise ValueError(at_user_line(message))


def _check_order(iterable: bool, batch_size: Any, shuffle: Any, sampler: Any, batch_sampler: Any, drop_last: Any) -> None:
    message = ""
    if iterable:
        given = {"shuffle": shuffle or None, "sampler": sampler, "batch_sampler": batch_sampler}
        for name, value in given.items():
            if value is not None:
                message = f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={value}"
                raise ValueError(at_user_line(message))
    if sampler is not None and shuffle:
        message = "sampler option is mutually exclusive with shuffle"
    elif batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
        message = "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
    elif batch_sampler is None and batch_size is None and drop_last:
        message = "batch_size=None option disables auto-batching and is mutually exclusive with drop_last"
    if message:
        raise ValueError(at_user_line(message))


def _checked_context(context: Any, num_workers: int) -> Any:
    if num_workers == 0:
        message = "multiprocessing_context can only be used with multi-process loading (num_workers > 0), but got num_workers=0"
        raise ValueError(at_user_line(message))
    if isinstance(context, str):
        valid = multiprocessing.get_all_start_methods()
        if context not in valid:
            message = "multiprocessing_context option should specify a valid start method in "
            raise ValueError(at_user_line(f"{message}{valid}, but got multiprocessing_context={context!r}"))
        return multiprocessing.get_context(context)
    if not isinstance(context, multiprocessing.context.BaseContext):
        message = (
            "multiprocessing_context option should be a valid context object or a string specifying the start method, but got "
        )
        raise TypeError(at_user_line(f"{message}multiprocessing_context={context}"))
    return context


# ---- iterating -------------------------------------------------------------------------------------------------------


class _Iteration:
    """One pass over a loader's data.  ``len()`` is how many batches it has in all."""

    _stopped = False

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._index_sampler = loader._index_sampler
        self._work = Work(
            loader.dataset, loader._dataset_kind == _DatasetKind.Iterable, loader._auto_collation, loader.collate_fn,
            loader.drop_last, loader.num_workers, _drawn_seed(loader.generator), loader.worker_init_fn,
            max(1, loader.prefetch_factor or 1),
        )  # fmt: skip
        self._base_seed = self._work.base_seed
        self._orders: Iterator[Any] = iter(self._index_sampler)
        self._announced, self._yielded, self._warned = loader._IterableDataset_len_called, 0, False
        if loader.pin_memory:
            message = "'pin_memory' argument is set as true but no accelerator is found, then device pinned memory won't be used."
            warn(message, UserWarning)

    def __iter__(self) -> _Iteration:
        return self

    def __next__(self) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._index_sampler)

    def _reset(self, loader: DataLoader[Any]) -> None:
        """Begin again, with what a new iteration of the loader begins with."""
        raise NotImplementedError

    def _count(self) -> None:
        """Warn where an iterable data set gives more batches than ``len(loader)`` said."""
        self._yielded += 1
        said = self._announced
        if said is None or self._warned or not self._work.iterable or self._yielded <= said:
            return
        self._warned = True
        message = f"Length of IterableDataset {self._work.dataset} was reported to be {said} (when accessing len(dataloader)), but "
        message += f"{self._yielded} samples have been fetched. "
        if self._work.num_workers > 0:
            message += "Every worker reads a whole IterableDataset unless its __iter__ asks get_worker_info() for its part."
        warn(message, UserWarning)


def _drawn_seed(generator: Any) -> int:
    """A new seed for an iteration's workers, drawn whether there are any or not, so that both leave the generator the same."""
    return int(randint(0, 2**63 - 1, (1,), generator=generator, dtype=int64).item())


class _HereIteration(_Iteration):
    """Batches read in this process."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        if loader.timeout:
            raise AssertionError(at_user_line("_SingleProcessDataLoaderIter requires timeout == 0: only workers can be late"))
        self._fetch = self._work.fetcher()

    def __next__(self) -> Any:
        batch = self._fetch(next(self._orders))
        if self._work.iterable:
            self._count()
        return batch


class _WorkersIteration(_Iteration):
    """Batches read by worker processes.

    Tasks are numbered; workers get them in turn, each a few ahead.  Every task has one answer: a batch, an error, or that the
    worker's iterable data set is at its end.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        self._timeout, self._in_order, self._persistent = loader.timeout, loader.in_order, loader.persistent_workers
        self._crew = Crew(loader.multiprocessing_context, self._work)
        self._finalizer = weakref.finalize(
            self, self._crew.stop, destructor=True
        )  # when nothing refers to this any more, or Python ends
        self._epoch = -1
        self._begin()

    @property
    def _workers(self) -> list[Any]:
        return self._crew.processes

    def _reset(self, loader: DataLoader[Any]) -> None:
        self._base_seed = _drawn_seed(loader.generator)
        self._orders = iter(self._index_sampler)
        self._announced, self._yielded, self._warned = loader._IterableDataset_len_called, 0, False
        self._begin()

    def _begin(self) -> None:
        count = self._work.num_workers
        self._epoch += 1
        self._sent, self._next, self._outstanding = 0, 0, 0
        self._active = [True] * count
        self._loads = [0] * count  # tasks that a worker has
        self._turn = 0
        self._answers: dict[int, tuple[str, Any]] = {}  # by task
        self._arrived: deque[int] = deque()  # answered tasks, as they came; used where any order will do
        self._guarded(self._fill)

    def _guarded(self, function: Callable[[], Any]) -> Any:
        """Call it; end the workers if anything but the end of the data or a batch's own error comes out."""
        try:
            return function()
        except BaseException:
            self._shutdown_workers()
            raise

    def _fill(self) -> None:
        for _ in range(self._work.prefetch * self._work.num_workers):
            self._give()

    def _give(self) -> None:
        """Give the next task to the next worker that may have one."""
        count, most = self._work.num_workers, self._work.prefetch
        if self._outstanding >= most * count:
            return
        for step in range(count):
            worker = (self._turn + step) % count
            if self._active[worker] and (self._in_order or self._loads[worker] < most):
                break
        else:
            return
        try:
            indices = next(self._orders)
        except StopIteration:
            return
        self._turn = (worker + 1) % count
        self._crew.send(worker, self._epoch, self._sent, indices)
        self._loads[worker] += 1
        self._sent += 1
        self._outstanding += 1

    def _wait(self) -> bool:
        """Note what has come; whether anything came in `timeout` seconds."""
        came = False
        for worker, (epoch, task, kind), make in self._crew.receive(self._timeout):
            came = True
            if epoch != self._epoch:
                continue  # of an iteration that was given up
            self._loads[worker] -= 1
            self._answers[task] = kind, make
            if not self._in_order:
                self._arrived.append(task)
            if kind == END:
                self._active[worker] = False
        return came

    def _arrived_task(self) -> int | None:
        """The answered task that is to come next; None where it has to be waited for."""
        if not self._in_order:
            return self._arrived.popleft() if self._arrived else None
        return self._next if self._next in self._answers else None

    def __next__(self) -> Any:
        if self._stopped:
            raise StopIteration
        while self._outstanding:
            task = self._arrived_task()
            if task is None:
                if not self._guarded(self._wait):
                    raise RuntimeError(at_user_line(f"DataLoader timed out after {self._timeout} seconds"))
                continue
            kind, make = self._answers.pop(task)
            self._outstanding -= 1
            self._next += 1
            self._guarded(self._give)
            if kind == END:
                continue
            result = self._guarded(make)
            if kind == ERROR:
                assert isinstance(result, Failure)
                result.reraise()
            assert kind == BATCH
            if self._work.iterable:
                self._count()
            return result
        if not self._persistent:
            self._shutdown_workers()
        raise StopIteration

    def _shutdown_workers(self) -> None:
        """End the workers; iterating is over."""
        self._stopped = True
        self._finalizer.detach()
        self._crew.stop()


# PyTorch's names of them, for annotations and `isinstance`
_BaseDataLoaderIter, _SingleProcessDataLoaderIter, _MultiProcessingDataLoaderIter = _Iteration, _HereIteration, _WorkersIteration
