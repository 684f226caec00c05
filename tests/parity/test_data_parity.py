"""Data sets, samplers, loaders and collating beside PyTorch's: the same batches in the same order, the same errors."""

from __future__ import annotations

import importlib
import itertools
import random
import warnings
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402

LIBRARIES = (graphc, torch)
Point = namedtuple("Point", "x y")
pytestmark = pytest.mark.filterwarnings("ignore:.*worker processes in total", "ignore:.*multi-threaded", "ignore:.*pin_memory")


def part(lib: Any, path: str) -> Any:
    """``utils.data`` of a library, or a module below."""
    return importlib.import_module(f"{lib.__name__}.utils.data{path}")


def plain(x: Any) -> Any:
    """What both libraries must agree on, as text and numbers."""
    if isinstance(x, graphc.Tensor | torch.Tensor):
        return str(x.dtype).split(".")[-1], list(x.shape), x.tolist()
    if isinstance(x, dict | UserDict):
        return type(x).__name__, {key: plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return type(x).__name__, [plain(value) for value in x]
    return type(x).__name__, str(x)


def outcome(call: Callable[[], Any]) -> Any:
    """The result, or the class and first words of the error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return plain(call())
        except Exception as error:
            return type(error).__name__, str(error)


def agree(call: Callable[[Any, Any], Any]) -> None:
    """Both give the same result; or the same class of error, graphc's message beginning with PyTorch's."""
    ours, theirs = (outcome(lambda lib=lib: call(lib, part(lib, ""))) for lib in LIBRARIES)
    if isinstance(theirs[1], str) and ours[0] == theirs[0]:
        assert ours[1].startswith(theirs[1].rstrip(".")), (ours, theirs)
    else:
        assert ours == theirs


# ---- errors ----------------------------------------------------------------------------------------------------------


def stream(data: Any, count: int = 5, length: int | None = None) -> Any:
    """An iterable data set of a library: every worker gives its share."""

    class Stream(data.IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Iterator[int]:
            info = data.get_worker_info()
            return iter(range(count) if info is None else range(info.id * 100, info.id * 100 + count * (1 + info.id)))

        def __len__(self) -> int:
            if length is None:
                raise TypeError("object of type 'Stream' has no len()")
            return length

    return Stream()


ERRORS: dict[str, Callable[[Any, Any], Any]] = {
    "num_workers": lambda lib, d: d.DataLoader([1], num_workers=-1),
    "num_workers of another type": lambda lib, d: d.DataLoader([1], num_workers="2"),
    "timeout": lambda lib, d: d.DataLoader([1], timeout=-1),
    "timeout without workers": lambda lib, d: list(d.DataLoader([1], timeout=1)),
    "prefetch without workers": lambda lib, d: d.DataLoader([1], prefetch_factor=2),
    "negative prefetch": lambda lib, d: d.DataLoader([1], num_workers=1, prefetch_factor=-2),
    "persistent without workers": lambda lib, d: d.DataLoader([1], persistent_workers=True),
    "iterable, shuffle": lambda lib, d: d.DataLoader(stream(d), shuffle=True),
    "iterable, sampler": lambda lib, d: d.DataLoader(stream(d), sampler=[1]),
    "iterable, batch_sampler": lambda lib, d: d.DataLoader(stream(d), batch_sampler=[[1]]),
    "sampler and shuffle": lambda lib, d: d.DataLoader([1], sampler=[0], shuffle=True),
    "batch_sampler and batch_size": lambda lib, d: d.DataLoader([1], batch_sampler=[[0]], batch_size=2),
    "no batches, drop_last": lambda lib, d: d.DataLoader([1], batch_size=None, drop_last=True),
    "batch_size 0": lambda lib, d: d.DataLoader([1], batch_size=0),
    "batch_size 1.5": lambda lib, d: d.DataLoader([1], batch_size=1.5),
    "batch_size True": lambda lib, d: d.DataLoader([1], batch_size=True),
    "drop_last 3": lambda lib, d: d.DataLoader([1], drop_last=3),
    "context without workers": lambda lib, d: d.DataLoader([1], multiprocessing_context="fork"),
    "unknown context": lambda lib, d: d.DataLoader([1], num_workers=1, multiprocessing_context="x"),
    "no context": lambda lib, d: d.DataLoader([1], num_workers=1, multiprocessing_context=3),
    **{
        f"{name} assigned": lambda lib, d, name=name: setattr(d.DataLoader([1]), name, None)
        for name in ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")
    },
    "shuffled nothing": lambda lib, d: d.DataLoader([], shuffle=True),
    "nothing": lambda lib, d: list(d.DataLoader([])),
    "no data set": lambda lib, d: list(d.DataLoader(None, sampler=[0])),
    "length of what has none": lambda lib, d: len(d.DataLoader(stream(d))),
    "replacement": lambda lib, d: d.RandomSampler([1], replacement=1),
    "num_samples -1": lambda lib, d: d.RandomSampler([1], num_samples=-1),
    "num_samples 1.5": lambda lib, d: d.RandomSampler([1], num_samples=1.5),
    "weighted, no samples": lambda lib, d: d.WeightedRandomSampler([1.0], 0),
    "weighted, replacement": lambda lib, d: d.WeightedRandomSampler([1.0], 1, replacement=1),
    "weighted, two dims": lambda lib, d: d.WeightedRandomSampler([[1.0]], 1),
    "batch sampler's drop_last": lambda lib, d: d.BatchSampler([1], 2, 1),
    "tensors of two lengths": lambda lib, d: d.TensorDataset(lib.ones(2), lib.ones(3)),
    "concat of nothing": lambda lib, d: d.ConcatDataset([]),
    "concat of a stream": lambda lib, d: d.ConcatDataset([stream(d)]),
    "concat, far negative": lambda lib, d: d.ConcatDataset([[1, 2]])[-5],
    "concat, far": lambda lib, d: d.ConcatDataset([[1, 2]])[5],
    "chain of a list": lambda lib, d: list(d.ChainDataset([[1]])),
    "stack of two lengths": lambda lib, d: d.StackDataset([1], [1, 2]),
    "stack of nothing": lambda lib, d: d.StackDataset(),
    "stack of both kinds": lambda lib, d: d.StackDataset([1], a=[1]),
    "split of another sum": lambda lib, d: d.random_split([1, 2], [1, 2]),
    "split of bad fractions": lambda lib, d: d.random_split([1, 2], [1.5, -0.5]),
    "data set without samples": lambda lib, d: d.Dataset()[0],
    "length of a data set": lambda lib, d: len(d.Dataset()),
    "length of a sampler": lambda lib, d: len(d.Sampler()),
    "iterating no sampler": lambda lib, d: iter(d.Sampler()),
    "rank": lambda lib, d: d.DistributedSampler([1], num_replicas=2, rank=2),
    "collate: lengths": lambda lib, d: d.default_collate([(1,), (1, 2)]),
    "collate: object": lambda lib, d: d.default_collate([object]),
    "collate: None": lambda lib, d: d.default_collate([None]),
    "collate: array of text": lambda lib, d: d.default_collate([np.array(["a"])]),
    "collate: shapes": lambda lib, d: d.default_collate([lib.ones(2), lib.ones(3)]),
    "collate: shapes of arrays": lambda lib, d: d.default_collate([np.ones(2), np.ones(3)]),
    "collate: keys": lambda lib, d: d.default_collate([{"a": 1}, {"b": 1}]),
    "collate: nothing": lambda lib, d: d.default_collate([]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_the_same_errors(name: str) -> None:
    agree(ERRORS[name])


# ---- results ---------------------------------------------------------------------------------------------------------

VALUES: dict[str, Callable[[Any, Any], Any]] = {
    "ints": lambda lib, d: [1, 2],
    "bools": lambda lib, d: [True, False],
    "mixed": lambda lib, d: [True, 2],
    "floats": lambda lib, d: [1.5, 2],
    "text": lambda lib, d: ["a", "b"],
    "bytes": lambda lib, d: [b"a", b"b"],
    "tensors": lambda lib, d: [lib.ones(2, 3), lib.zeros(2, 3)],
    "0-d tensors": lambda lib, d: [lib.tensor(1.5), lib.tensor(2.5)],
    "tensors of two dtypes": lambda lib, d: [lib.ones(2), lib.ones(2, dtype=lib.int64)],
    "bfloat16": lambda lib, d: [lib.ones(2, dtype=lib.bfloat16), lib.zeros(2, dtype=lib.bfloat16)],
    "transposed": lambda lib, d: [lib.arange(6).reshape(2, 3).t(), lib.zeros(3, 2, dtype=lib.int64)],
    "empty tensors": lambda lib, d: [lib.ones(0, 3), lib.ones(0, 3)],
    "arrays": lambda lib, d: [np.ones(3, np.float32), np.zeros(3, np.float32)],
    "0-d arrays": lambda lib, d: [np.array(3), np.array(4)],
    "numpy scalars": lambda lib, d: [np.float32(1), np.float32(2)],
    "numpy ints": lambda lib, d: [np.int16(1), np.int16(2)],
    "numpy bools": lambda lib, d: [np.bool_(1), np.bool_(0)],
    "dicts": lambda lib, d: [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
    "ordered dicts": lambda lib, d: [OrderedDict(b=1, a=2.0), OrderedDict(b=2, a=3.0)],
    "user dicts": lambda lib, d: [UserDict(b=1), UserDict(b=2)],
    "tuples": lambda lib, d: [(1, "a", 2.5), (2, "b", 3.5)],
    "lists": lambda lib, d: [[1, [2, "a"]], [2, [3, "b"]]],
    "named tuples": lambda lib, d: [Point(1, {"k": 2.0}), Point(3, {"k": 4.0})],
    "ranges": lambda lib, d: [range(3), range(3)],
    "empty tuples": lambda lib, d: [(), ()],
    "a tuple of samples": lambda lib, d: (lib.ones(2), lib.ones(2)),
}


@pytest.mark.parametrize("name", VALUES)
def test_the_same_batches(name: str) -> None:
    agree(lambda lib, d: d.default_collate(VALUES[name](lib, d)))
    agree(lambda lib, d: d.default_convert(VALUES[name](lib, d)))
    agree(lambda lib, d: d.default_convert(tuple(VALUES[name](lib, d))))


class Pair:
    """A type that only a registered function collates."""

    def __init__(self, a: int) -> None:
        self.a = a


def test_registered_types() -> None:
    def collated(lib: Any, d: Any) -> Any:
        c = part(lib, "._utils.collate")

        def pairs(batch: Any, *, collate_fn_map: Any = None) -> Any:
            return c.collate([x.a for x in batch], collate_fn_map=collate_fn_map)

        return c.collate([(Pair(1), 2), (Pair(3), 4)], collate_fn_map={Pair: pairs, **c.default_collate_fn_map})

    agree(collated)
    agree(lambda lib, d: d.default_collate([Pair]))
    ours, theirs = (list(map(str, part(lib, "._utils.collate").default_collate_fn_map)) for lib in LIBRARIES)
    assert len(ours) == len(theirs)


DATA_SETS: dict[str, Callable[[Any, Any], Any]] = {
    "tensors": lambda lib, d: d.TensorDataset(lib.arange(10), lib.arange(20.0).reshape(10, 2)),
    "no tensors": lambda lib, d: [1, 2, 3],
    "subset": lambda lib, d: d.Subset(d.TensorDataset(lib.arange(10)), [7, -1, 3, 3, 0]),
    "subset of a subset": lambda lib, d: d.Subset(d.Subset(d.TensorDataset(lib.arange(10)), [7, 1, 3]), [2, 0]),
    "subset of a list": lambda lib, d: d.Subset(list("abcdef"), [5, 2, 1]),
    "stack": lambda lib, d: d.StackDataset([1, 2, 3], d.TensorDataset(lib.ones(3))),
    "named stack": lambda lib, d: d.StackDataset(x=[1, 2, 3], y=list("abc")),
    "concat": lambda lib, d: d.ConcatDataset([[1, 2], [3], [4, 5, 6]]),
    "sum": lambda lib, d: d.TensorDataset(lib.arange(3)) + d.TensorDataset(lib.arange(2)),
    "chain": lambda lib, d: stream(d) + stream(d, 3),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"batch_size": 2},
    {"batch_size": 2, "drop_last": True},
    {"batch_size": None},
    {"batch_size": 3, "pin_memory": True},
    {"batch_size": 2, "collate_fn": list},
]


@pytest.mark.parametrize("name", DATA_SETS)
def test_the_same_epochs(name: str) -> None:
    for options in OPTIONS:
        agree(lambda lib, d, options=options: list(d.DataLoader(DATA_SETS[name](lib, d), **options)))
    if name != "chain":
        agree(lambda lib, d: len(d.DataLoader(DATA_SETS[name](lib, d), batch_size=2)))
        agree(lambda lib, d: list(d.DataLoader(DATA_SETS[name](lib, d), batch_sampler=[[0, 1], [1]])))
        agree(lambda lib, d: list(d.DataLoader(DATA_SETS[name](lib, d), batch_size=2, sampler=[1, 0, 1])))


def test_samplers_without_chance() -> None:
    for rank, replicas, drop_last, count in itertools.product((0, 1, 2), (3, 5), (False, True), (0, 1, 7, 10)):
        agree(lambda lib, d, a=(range(count), replicas, rank, False, 0, drop_last): list(d.DistributedSampler(*a)))
        agree(lambda lib, d, a=(range(count), replicas, rank, False, 0, drop_last): len(d.DistributedSampler(*a)))
    for count, size, drop_last in itertools.product((0, 1, 5, 6), (1, 2, 3, 7), (False, True)):
        agree(lambda lib, d, a=(range(count), size, drop_last): [list(d.BatchSampler(*a)), len(d.BatchSampler(*a))])
    agree(lambda lib, d: sorted(d.RandomSampler(range(9))))
    agree(lambda lib, d: sorted(d.SubsetRandomSampler([3, 1, 8])))
    agree(lambda lib, d: sorted(d.WeightedRandomSampler([0.0, 1.0, 2.0], 2, replacement=False)))
    agree(lambda lib, d: [len(x) for x in d.random_split(range(11), [0.5, 0.25, 0.25])])
    agree(lambda lib, d: [len(x) for x in d.random_split(range(11), [4, 7])])
    agree(lambda lib, d: [d.ConcatDataset([[1], [2, 3]]).cumulative_sizes, d.ConcatDataset([[1], [2]])[-1]])


def test_attributes() -> None:
    names = (
        "batch_size drop_last num_workers prefetch_factor pin_memory pin_memory_device timeout worker_init_fn generator in_order"
    )
    names += " persistent_workers multiprocessing_context _auto_collation _dataset_kind"
    for options in ({}, {"batch_size": None}, {"batch_sampler": [[0]]}, {"num_workers": 2}, {"num_workers": 2, "in_order": False}):
        agree(lambda lib, d, o=options: [str(getattr(d.DataLoader([1], **o), name)) for name in names.split()])
    agree(lambda lib, d: str(d.get_worker_info()))
    agree(
        lambda lib, d: [kind.__name__ for kind in (type(d.DataLoader([1], shuffle=True).sampler), type(d.DataLoader([1]).sampler))]
    )


# ---- workers ---------------------------------------------------------------------------------------------------------


def seeds(info: Any) -> list[int]:
    """What a worker's generators give first, and what they were seeded with."""
    return [info.id, info.num_workers, random.getrandbits(32), int(np.random.randint(1 << 30))]


def test_the_same_streams_of_workers() -> None:
    for workers, batch_size, drop_last in ((2, 2, False), (3, 3, True), (2, None, False)):
        options = {"num_workers": workers, "batch_size": batch_size, "drop_last": drop_last}
        agree(lambda lib, d, o=options: list(d.DataLoader(stream(d, 4), **o)))
    agree(
        lambda lib, d: [len(list(d.DataLoader(stream(d, 4, 4), num_workers=2, batch_size=2))), len(d.DataLoader(stream(d, 4, 5)))]
    )


def test_workers_are_seeded_by_one_formula() -> None:
    def drawn(lib: Any, d: Any) -> Any:
        class Seeds(d.Dataset):  # type: ignore[misc]
            def __len__(self) -> int:
                return 4

            def __getitem__(self, index: int) -> Any:
                info = d.get_worker_info()
                assert info.seed - info.id == lib.initial_seed() - info.id and info.dataset is self
                return [info.seed - info.id, *seeds(info)]

        iterator = iter(d.DataLoader(Seeds(), num_workers=2, batch_size=None))
        found = list(iterator)
        base = iterator._base_seed
        assert all(row[0] == base for row in found)
        for row in found[:2]:
            random.seed(base + row[1])
            np.random.seed(np.array(np.random.SeedSequence([row[1], base & 0xFFFFFFFF, base >> 32, 0]).generate_state(4)))
            assert row[3:] == [random.getrandbits(32), int(np.random.randint(1 << 30))]
        return [row[1:3] for row in found]

    state = random.getstate(), np.random.get_state()
    agree(drawn)
    random.setstate(state[0])
    np.random.set_state(state[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_of_samples(workers: int) -> None:
    class Needs(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(a, b)

    def failing(lib: Any, d: Any, error: Any) -> Any:
        class Bad(d.Dataset):  # type: ignore[misc]
            def __len__(self) -> int:
                return 8

            def __getitem__(self, index: int) -> Any:
                if index == 5:
                    raise error
                return index

        batches = []
        try:
            batches.extend(d.DataLoader(Bad(), batch_size=2, num_workers=workers))
        except Exception as found:
            return [batches, type(found).__name__, str(found).splitlines()[:1]]
        return [batches]

    for error in (KeyError("k"),) if workers else (ValueError("no"), KeyError("k"), IndexError("i")):
        agree(lambda lib, d, error=error: failing(lib, d, error))
    if workers == 0:
        agree(lambda lib, d: failing(lib, d, Needs(1, 2)))


def test_more_samples_than_were_announced() -> None:
    texts = []
    for lib in LIBRARIES:
        d = part(lib, "")
        loader = d.DataLoader(stream(d, 4, 2), batch_size=1)
        assert len(loader) == 2
        with pytest.warns(UserWarning, match="was reported to be 2") as caught:
            list(loader)
        texts.append(str(caught[0].message).split("(when")[1])  # PyTorch's come with every batch
    assert texts[0] == texts[1]
