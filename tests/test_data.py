"""Data sets, samplers, loaders."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
    random_split,
)
from graphc.utils.data.datapipes.iter import IterableWrapper


class Squares(Dataset):
    """Sample i is (i, i squared as a tensor)."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, graphc.tensor([float(index**2)])


def pairs(count: int = 10) -> TensorDataset:
    return TensorDataset(graphc.arange(count), graphc.arange(2 * count).reshape(count, 2).float())


def test_tensor_dataset() -> None:
    data = pairs()
    assert len(data) == 10
    label, row = data[3]
    assert label.item() == 3 and row.tolist() == [6.0, 7.0]
    with pytest.raises(AssertionError, match=r"Size mismatch between tensors: .* got \[2, 3\]"):
        TensorDataset(graphc.ones(2), graphc.ones(3))


def test_split_is_disjoint_whole_and_repeatable() -> None:
    data = pairs()
    split = random_split(data, [7, 3], generator=graphc.Generator(seed=4))
    assert [len(part) for part in split] == [7, 3]
    assert sorted(i for part in split for i in part.indices) == list(range(10))
    again = random_split(data, [7, 3], generator=graphc.Generator(seed=4))
    assert [list(part.indices) for part in again] == [list(part.indices) for part in split]
    assert split[1][0][0].item() == split[1].indices[0]
    assert [len(part) for part in random_split(data, [0.5, 0.25, 0.25])] == [6, 2, 2]
    with pytest.raises(ValueError, match="Sum of input lengths"):
        random_split(data, [7, 2])
    with pytest.raises(ValueError, match="Fraction at index 0"):
        random_split(data, [1.5, -0.5])


def test_samplers() -> None:
    assert list(SequentialSampler("abc")) == [0, 1, 2]
    graphc.manual_seed(0)
    sampler = RandomSampler(range(50))
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(50)) and first != second != list(range(50))
    graphc.manual_seed(0)
    assert list(RandomSampler(range(50))) == first
    drawn = list(RandomSampler(range(3), replacement=True, num_samples=100))
    assert len(drawn) == 100 and set(drawn) == {0, 1, 2}
    assert len(list(RandomSampler(range(3), num_samples=7))) == 7
    assert list(BatchSampler(range(5), 2, False)) == [[0, 1], [2, 3], [4]]
    assert list(BatchSampler(range(5), 2, True)) == [[0, 1], [2, 3]]
    assert [len(BatchSampler(range(5), 2, drop)) for drop in (False, True)] == [3, 2]
    with pytest.raises(ValueError, match="num_samples"):
        RandomSampler(range(3), num_samples=0)
    for size in (0, True, 1.5):
        with pytest.raises(ValueError, match="batch_size should be a positive"):
            BatchSampler(range(5), size, False)  # type: ignore[arg-type]


def test_loader_batches() -> None:
    loader = DataLoader(pairs(), batch_size=4)
    assert len(loader) == 3
    batches = list(loader)
    assert [batch[0].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches[2][1].tolist() == [[16.0, 17.0], [18.0, 19.0]]
    assert len(list(DataLoader(pairs(), batch_size=4, drop_last=True))) == 2


def test_rows_are_what_collating_samples_gives() -> None:
    subset = Subset(pairs(), [9, 1, 4, 4])
    direct = list(DataLoader(subset, batch_size=3))
    collated = list(DataLoader(subset, batch_size=3, collate_fn=lambda samples: default_collate(samples)))
    assert [[x.tolist() for x in batch] for batch in direct] == [[x.tolist() for x in batch] for batch in collated]
    assert direct[0][0].dtype is graphc.int64 and direct[0][0].tolist() == [9, 1, 4]


def test_loader_over_any_data_set() -> None:
    (indices, squares), *_ = DataLoader(Squares(), batch_size=3)
    assert indices.tolist() == [0, 1, 2] and squares.tolist() == [[0.0], [1.0], [4.0]]
    shuffled = DataLoader(Squares(), batch_size=10, shuffle=True, generator=graphc.Generator(seed=1))
    ((order, values),) = shuffled
    assert sorted(order.tolist()) == list(range(10)) and order.tolist() != list(range(10))
    assert values.flatten().tolist() == [float(i**2) for i in order.tolist()]
    assert [len(batch) for batch in DataLoader([1, 2, 3], batch_size=2)] == [2, 1]
    assert list(DataLoader("abc", batch_size=None)) == ["a", "b", "c"]
    assert list(DataLoader("abcd", batch_sampler=[[3, 0], [1]])) == [["d", "a"], ["b"]]


def test_collate() -> None:
    Pair = namedtuple("Pair", "x y")
    both = default_collate([Pair(1, 2.5), Pair(3, 4.5)])
    assert isinstance(both, Pair) and both.x.dtype is graphc.int64 and both.y.dtype is graphc.float64
    mapped = default_collate([{"a": np.ones(2, np.float32), "b": "x"}, {"a": np.zeros(2, np.float32), "b": "y"}])
    assert mapped["a"].tolist() == [[1.0, 1.0], [0.0, 0.0]] and mapped["b"] == ["x", "y"]
    assert default_collate([True, False]).dtype is graphc.bool
    with pytest.raises(RuntimeError, match="equal size"):
        default_collate([(1,), (1, 2)])
    with pytest.raises(TypeError, match="found <class 'object'>"):
        default_collate([object()])


def test_rows_are_not_taken_where_samples_are_the_users_code() -> None:
    class Doubled(TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            return tuple(2 * x for x in super().__getitem__(index))

    class Marked(Subset[Any]):
        def __getitem__(self, index: Any) -> Any:
            return -1

        def __getitems__(self, indices: list[int]) -> list[Any]:
            return [-1 for _ in indices]

    for data in (Doubled(graphc.arange(4)), Subset(Doubled(graphc.arange(4)), range(4))):
        assert [batch[0].tolist() for batch in DataLoader(data, batch_size=2)] == [[0, 2], [4, 6]]
    assert [b.tolist() for b in DataLoader(Marked(TensorDataset(graphc.arange(4)), [1, 2]), batch_size=2)] == [[-1, -1]]
    with pytest.raises(IndexError, match="index 4 is out of bounds for dimension 0 with size 4"):
        list(DataLoader(TensorDataset(graphc.arange(4)), sampler=[4]))


def test_gradients_flow_through_collated_samples() -> None:
    weight = graphc.ones(3, requires_grad=True)
    for batch in (default_collate([weight * 2, weight]), next(iter(DataLoader(TensorDataset(weight), batch_size=3)))[0]):
        weight.grad = None
        batch.sum().backward()
        assert weight.grad is not None and weight.grad.sum().item() in (9.0, 3.0)


class _Ends(Squares):
    """Samples that end the wrong way."""

    def __getitem__(self, index: int) -> Any:
        return next(iter(range(1 - index)))


def test_errors_say_which_index() -> None:
    class Bad(Squares):
        def __getitem__(self, index: int) -> Any:
            if index == 4:
                raise LookupError("no such sample")
            return graphc.ones(index)

    with pytest.raises(LookupError, match="no such sample") as found:
        list(DataLoader(Bad(), batch_sampler=[[3, 4, 5]]))
    assert found.value.__notes__ == ["while reading index 4 of Bad, for a batch of indices [3, 4, 5]"]
    message = r"to be equal size, but got \[2\] at entry 0 and \[3\] at entry 1.*collating the batch of indices \[2, 3\]"
    with pytest.raises(RuntimeError, match="raised StopIteration while reading index 1 of _Ends"):
        list(DataLoader(_Ends(), batch_size=2))
    with pytest.raises(RuntimeError, match=message):
        list(DataLoader(Bad(), batch_sampler=[[2, 3]]))


def test_collate_in_a_compiled_function() -> None:
    @graphc.compile
    def batch(x: Any, y: Any) -> Any:
        return default_collate([(x, 1.5), (y * 2, 2.5)])

    tensors, numbers = batch(graphc.ones(2), graphc.ones(2))
    assert tensors.tolist() == [[1.0, 1.0], [2.0, 2.0]] and numbers.tolist() == [1.5, 2.5]


def test_pipes() -> None:
    pipe = IterableWrapper(range(10)).map(lambda x: 2 * x).filter(lambda x: x % 3).batch(4)
    assert [list(chunk) for chunk in pipe] == [[2, 4, 8, 10], [14, 16]]
    assert [b.tolist() for b in DataLoader(IterableWrapper(range(5)), batch_size=2)] == [[0, 1], [2, 3], [4]]
    assert sorted(IterableWrapper(range(20)).shuffle(buffer_size=7)) == list(range(20))
    assert list(IterableWrapper(range(3)).zip(IterableWrapper("abc"))) == [(0, "a"), (1, "b"), (2, "c")]
    assert list(IterableWrapper([[1, [2]], [3]]).unbatch(unbatch_level=-1)) == [1, 2, 3]
    with pytest.raises(AttributeError, match="nothing"):
        _ = IterableWrapper([]).nothing
