"""Arenas and recycled outputs: alignment, growth, and never memory that somebody still holds."""

from __future__ import annotations

import ctypes
import random
import sys
import threading
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest

from graphc.runtime import memory
from graphc.runtime.memory import Arena, aligned_empty

F32 = np.dtype(np.float32)


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    memory.forget()
    yield
    memory.forget()


def test_arena_grows_and_stays_aligned() -> None:
    arena = Arena()
    assert (arena.address, arena.nbytes) == (0, 0)
    assert arena.reserve(0) == 0
    previous = 0
    for nbytes in (1, 5000, 3 << 20, (3 << 20) - 1, 9 << 20):
        address = arena.reserve(nbytes)
        assert address == arena.address
        assert address % memory.HUGE_PAGE == 0
        assert arena.nbytes >= max(nbytes, previous)
        ctypes.memset(address, 0x5A, arena.nbytes)
        previous = arena.nbytes
    kept = arena.address
    assert arena.reserve(10) == kept
    assert ctypes.string_at(kept, 4) == b"\x5a" * 4


def test_arenas_do_not_overlap() -> None:
    first, second = Arena(), Arena()
    nbytes = 3 << 20
    ctypes.memset(first.reserve(nbytes), 1, nbytes)
    ctypes.memset(second.reserve(nbytes), 2, nbytes)
    assert ctypes.string_at(first.address, nbytes) == b"\1" * nbytes


def test_arena_too_large_raises() -> None:
    arena = Arena()
    for nbytes in (1 << 55, 1 << 80):
        with pytest.raises(MemoryError, match="no room for"):
            arena.reserve(nbytes)
    assert arena.nbytes == 0
    assert arena.reserve(100) != 0


@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 0, 2), (7, 3), (2, 3, 4, 5), (1 << 20,)])
@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.float32, np.float64, ml_dtypes.bfloat16])
def test_arrays_are_aligned_and_ordinary(shape: tuple[int, ...], dtype: type) -> None:
    for _ in range(3):
        array, address = aligned_empty(shape, np.dtype(dtype))
        assert type(array) is np.ndarray
        assert array.shape == shape
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert address % 64 == 0
        assert address == array.ctypes.data
        array[...] = 1


def test_dropped_memory_is_reused() -> None:
    address = aligned_empty((1000,), F32)[1]
    assert {aligned_empty((1000,), F32)[1] for _ in range(20)} == {address}


def test_what_a_user_did_to_an_array_does_not_come_back() -> None:
    array, address = aligned_empty((4, 6), F32)
    array.shape = (24,)
    array.flags.writeable = False
    del array
    again, address_again = aligned_empty((4, 6), F32)
    assert address_again == address
    assert again.shape == (4, 6)
    assert again.flags.writeable


@pytest.mark.parametrize(
    "hold",
    [
        lambda array: array,
        lambda array: array[2:, ::2],
        lambda array: array.T[1:].reshape(-1, 2, 3),
        lambda array: memoryview(array),
        lambda array: array.view(np.uint8)[1:2],
        lambda array: array.view(np.matrix)[0],
        lambda array: np.from_dlpack(array),
        lambda array: array.__dlpack__(),
        lambda array: array.flat,
        lambda array: array.ctypes,
        lambda array: np.frombuffer(array.data, np.float32),
        lambda array: np.lib.stride_tricks.as_strided(array, (2,), (4,)),
        lambda array: array.base,
    ],
)
def test_held_memory_is_not_reused(hold: object) -> None:
    array, address = aligned_empty((6, 8), F32)
    held = hold(array)  # type: ignore[operator]
    del array
    others = [aligned_empty((6, 8), F32) for _ in range(10)]
    assert address not in [other for _, other in others]
    del held
    others += [aligned_empty((6, 8), F32) for _ in range(10)]
    assert address in [other for _, other in others]


def test_random_holding_never_overlaps() -> None:
    generator = random.Random(0)
    held: list[tuple[np.ndarray, float]] = []
    for turn in range(5000):
        shape = generator.choice([(16,), (4, 4), (3, 5)])
        array, _ = aligned_empty(shape, F32)
        array[...] = turn
        held.append((array[generator.randrange(len(array)) :], turn))
        while len(held) > generator.choice([5, 50, 200]):
            view, value = held.pop(generator.randrange(len(held)))
            assert (view == value).all()
    for view, value in held:
        assert (view == value).all()


def test_threads_never_get_the_same_memory() -> None:
    failures: list[int] = []
    start = threading.Barrier(4)

    def work(mark: int) -> None:
        start.wait()
        for turn in range(3000):
            array, _ = aligned_empty((32,), F32)
            array[...] = mark * 10_000 + turn
            if (array != mark * 10_000 + turn).any():
                failures.append(turn)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=work, args=(mark,)) for mark in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []


def test_kept_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_KEPT_NBYTES", 1 << 20)
    monkeypatch.setattr(memory, "_LARGEST_KEPT_NBYTES", 1 << 18)
    held = aligned_empty((100,), F32)[0]
    held[...] = 3
    for size in range(1, 3000):
        aligned_empty((size,), F32)
        assert memory._kept_nbytes == sum(nbytes for _, nbytes in memory._blocks.values()) <= 1 << 20
    before = memory._kept_nbytes
    assert aligned_empty((1 << 18,), F32)[0].size == 1 << 18
    assert memory._kept_nbytes == before
    many = [aligned_empty((7,), F32)[0] for _ in range(500)]
    assert len({array.ctypes.data for array in many}) == 500
    assert (held == 3).all()


def test_too_large_raises() -> None:
    with pytest.raises(MemoryError):
        aligned_empty((1 << 55,), F32)
