"""Loaders with worker processes: what comes over, in which order, and what is left when anything ends.

`soak_data` does the last part for long.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.data import DataLoader, Dataset, IterableDataset, TensorDataset, get_worker_info
from graphc.data.datapipes.iter import IterableWrapper

sys.path.insert(0, str(Path(__file__).parent))
from soak_data import Large, left, nothing_left, run_crashes, run_epochs, run_interrupts, shared_maps

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="workers are looked for in /proc"),
    pytest.mark.filterwarnings("ignore:.*worker processes in total"),
]


class Structures(Dataset[Any]):
    """Samples of many kinds, small and large."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> Any:
        large = np.full((50, 50), i, np.float32)
        return {
            "large": large,
            "small": graphc.tensor([i]),
            "half": graphc.full((90, 90), i, dtype=graphc.bfloat16),
            "text": str(i),
        }, i


def keep_samples(samples: list[Any]) -> Any:
    """Tensors that share memory, arrays, views, other objects."""
    whole = graphc.arange(5000).float() + samples[0][1]
    return [
        whole,
        whole[2:5],
        whole.reshape(50, 100).t(),
        np.arange(9000).reshape(90, 100).T,
        {1, 2},
        graphc.nn.Parameter(graphc.ones(2)),
    ]


def many_arrays(samples: list[Any]) -> Any:
    """More arrays than descriptors go into a message, none of them in shared memory."""
    return [np.full(5000, i) for i in range(300)]


def test_every_structure_comes_over() -> None:
    here, there = (list(DataLoader(Structures(), batch_size=2, num_workers=n)) for n in (0, 2))
    for (a, numbers), (b, same_numbers) in zip(here, there, strict=True):
        assert numbers.tolist() == same_numbers.tolist() and a["text"] == b["text"]
        for name in ("large", "small", "half"):
            assert a[name].dtype is b[name].dtype and a[name].tolist() == b[name].tolist()
    assert shared_maps() > 0
    whole, row, turned, array, others, parameter = next(iter(DataLoader(Structures(), num_workers=1, collate_fn=keep_samples)))
    assert whole.tolist() == list(range(5000)) and turned.shape == (100, 50) and turned[1, 2].item() == 201.0
    row.zero_()
    assert whole[1:6].tolist() == [1.0, 0.0, 0.0, 0.0, 5.0]
    assert array.shape == (100, 90) and array[3, 2] == 203 and others == {1, 2}
    assert isinstance(parameter, graphc.nn.Parameter) and parameter.requires_grad
    for arrays in DataLoader(Structures(), num_workers=1, collate_fn=many_arrays):
        assert [int(a.sum()) for a in arrays] == [5000 * i for i in range(300)]


def test_batches_are_kept_while_workers_go_on() -> None:
    loader = DataLoader(Large(), batch_size=8, num_workers=2, persistent_workers=True)
    kept = list(loader)
    view = kept[3][0][2].numpy()
    for _ in range(3):
        assert [x[1, 0, 0, 0].item() for x, _ in loader] == [8.0 * i + 1 for i in range(8)]
    assert [x[:, 0, 5, 5].tolist() for x, _ in kept] == [[float(8 * i + j) for j in range(8)] for i in range(8)]
    del kept, loader
    assert (view == 26).all()
    view += 1
    assert (view == 27).all()


def test_memory_that_a_forked_process_sees_is_not_written_again() -> None:
    loader = DataLoader(Large(), batch_size=8, num_workers=1, persistent_workers=True)
    iterator = iter(loader)
    batch = next(iterator)[0]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0 if bool((batch[3] == 3).all()) else 1)
        finally:
            os._exit(2)
    del batch
    for _ in range(3):
        for _ in loader:
            pass
    os.close(reader)
    os.close(writer)
    assert os.waitpid(child, 0)[1] == 0


def test_memory_is_used_again() -> None:
    loader = DataLoader(Large(), batch_size=8, num_workers=2, persistent_workers=True)
    counts = []
    for _ in range(6):
        for _batch in loader:
            pass
        counts.append(shared_maps())
    assert max(counts) <= 12
    kept = [list(loader) for _ in range(3)]
    assert shared_maps() >= 24
    del kept
    for _ in range(3):
        for _batch in loader:
            pass
    assert shared_maps() <= 16


def test_many_batches_need_few_open_files() -> None:
    before = left()[2]
    loader = DataLoader(Large(), batch_size=1, num_workers=2, persistent_workers=True)
    kept = [list(loader) for _ in range(2)]
    assert left()[2] - before < 24 and len(kept[0]) == 64


class Slow(Dataset[Any]):
    """Sample 0 takes long."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        time.sleep(0.6 if index == 0 else 0.0)
        return index


def test_orders_and_timeout() -> None:
    options: dict[str, Any] = {"batch_size": None, "num_workers": 2, "prefetch_factor": 1}
    assert list(DataLoader(Slow(), **options)) == [0, 1, 2, 3, 4, 5]
    assert list(DataLoader(Slow(), in_order=False, **options)) == [1, 2, 3, 4, 5, 0]
    iterator = iter(DataLoader(Slow(), timeout=0.1, **options))
    with pytest.raises(RuntimeError, match=r"DataLoader timed out after 0.1 seconds"):
        next(iterator)


class Part(IterableDataset[Any]):
    """Every worker its part."""

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        assert info is not None
        return iter(range(info.id, 9, info.num_workers))


def test_persistent_workers_stay_and_begin_again() -> None:
    loader = DataLoader(Part(), batch_size=2, num_workers=2, persistent_workers=True)
    first = iter(loader)
    assert isinstance(first, graphc.utils.data.dataloader._MultiProcessingDataLoaderIter)
    processes = [process.pid for process in first._workers]
    next(first)
    for _ in range(3):
        assert [batch.tolist() for batch in loader] == [[0, 2], [1, 3], [4, 6], [5, 7], [8]]
    assert [process.pid for process in loader._iterator._workers] == processes  # type: ignore[union-attr]
    del loader, first
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes)


def begin(worker: int) -> None:
    """Sets something that samples show."""
    assert get_worker_info() is not None and get_worker_info().id == worker  # type: ignore[union-attr]
    os.environ["GRAPHC_TEST_WORKER"] = str(worker)
    if worker > 7:
        raise ValueError("too many")


@graphc.compile
def compiled(x: Any) -> Any:
    """Enough work for threads."""
    return (x @ x).relu().sum(0)


class Compiled(Dataset[Any]):
    """Samples that operators, compiled code and the threads make."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        x = graphc.full((64, 64), float(index))
        return compiled(x), (x * 2).sum(), graphc.get_num_threads(), int(os.environ["GRAPHC_TEST_WORKER"])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_compiled_code_runs_in_workers(method: str) -> None:
    compiled(graphc.ones(64, 64))
    loader = DataLoader(Compiled(), num_workers=2, worker_init_fn=begin, multiprocessing_context=method)
    for i, (x, total, threads, worker) in enumerate(loader):
        assert x.tolist() == [[64.0 * 64 * i * i] * 64] and total.item() == 2 * 64 * 64 * i
        assert (threads.item(), worker.item()) == (1, i % 2)


def test_workers_are_seeded_apart_and_repeatably() -> None:
    class Drawn(Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return graphc.rand(1).item(), np.random.rand()

    runs = []
    for generator in (None, None, graphc.Generator(seed=5)):
        graphc.manual_seed(3)
        runs.append(list(DataLoader(Drawn(), num_workers=2, batch_size=None, generator=generator)))
    assert runs[0] == runs[1] != runs[2]
    assert len({value for sample in runs[0] for value in sample}) == 8


def test_shuffled_pipes_are_shared_out() -> None:
    pipe = IterableWrapper(range(20)).shuffle().sharding_filter().batch(3)
    loader = DataLoader(pipe, batch_size=None, num_workers=3, persistent_workers=True)
    epochs = [[x for batch in loader for x in batch] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20)) and epochs[0] != epochs[1] != list(range(20))


class Failing(Dataset[Any]):
    """Sample 5 raises; a batch of 6 and 7 is ragged; sample 8 cannot be sent."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        if index == 5:
            raise KeyError("five")
        return {6: graphc.ones(2), 7: graphc.ones(3), 8: lambda: 0}.get(index, index)


def test_errors_of_workers_are_raised_here_and_reading_goes_on() -> None:
    loader = DataLoader(Failing(), batch_sampler=[[0, 1], [4, 5], [6, 7], [2, 3]], num_workers=2)
    iterator = iter(loader)
    assert next(iterator).tolist() == [0, 1]
    with pytest.raises(KeyError) as found:
        next(iterator)
    text = str(found.value)
    assert text.startswith("Caught KeyError in DataLoader worker process 1.\nIt was working on batch 1, indices [4, 5].\n")
    assert "in __getitem__" in text and "while reading index 5 of Failing" in text
    with pytest.raises(RuntimeError, match=r"got \[2\] at entry 0 and \[3\] at entry 1.*collating the batch of indices \[6, 7\]"):
        next(iterator)
    assert next(iterator).tolist() == [2, 3]
    with pytest.raises(StopIteration):
        next(iterator)
    with pytest.raises(Exception, match=r"Caught \w+ in DataLoader worker process 0.(.|\n)*(P|p)ickle"):
        list(DataLoader(Failing(), sampler=[8], batch_size=None, num_workers=1))
    with pytest.raises(ValueError, match=r"Caught ValueError in DataLoader worker process 8.(.|\n)*too many"):
        list(DataLoader(Slow(), sampler=[1] * 9, batch_size=None, num_workers=9, worker_init_fn=begin))


# ---- nothing is left -------------------------------------------------------------------------------------------------


def test_epochs_leave_nothing() -> None:
    run_epochs(1, num_workers=2)
    with nothing_left("epochs"):
        run_epochs(50)
        run_epochs(100, num_workers=2, persistent_workers=True)
        run_epochs(2, num_workers=2)
        iterator = iter(DataLoader(Large(), batch_size=8, num_workers=2))
        next(iterator)
        del iterator


def test_crashes_leave_nothing() -> None:
    with nothing_left("crashes"):
        run_crashes(20)


def test_interrupts_leave_nothing() -> None:
    with nothing_left("interrupts"):
        run_interrupts(5)


PROGRAM = """
import sys, time
sys.path.insert(0, {folder!r})
from soak_data import Large
from graphc.data import DataLoader
loader = DataLoader(Large(), batch_size=8, num_workers=2, persistent_workers=True)
iterator = iter(loader)
batch = next(iterator)
print(*[process.pid for process in iterator._workers], flush=True)
{then}
"""


@pytest.mark.parametrize("end", ["exit", "interrupt", "kill"])
def test_the_parents_end_ends_its_workers(end: str) -> None:
    then = "" if end == "exit" else "while True: [None for _ in loader]"
    code = PROGRAM.format(folder=str(Path(__file__).parent), then=then)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True, **pipes) as process:
        assert process.stdout and process.stderr
        workers = [int(pid) for pid in process.stdout.readline().split()]
        if end == "interrupt":
            os.killpg(process.pid, signal.SIGINT)
        elif end == "kill":
            process.kill()
        errors = process.stderr.read()  # to the end: no process has it open any more
        code_found = process.wait(20)
    assert code_found == {"exit": 0, "interrupt": -signal.SIGINT, "kill": -signal.SIGKILL}[end]
    assert errors.count("Traceback") == (end == "interrupt"), errors
    assert len(workers) == 2
    while any(_lives(pid) for pid in workers):  # its files are closed a moment before it is gone
        time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_thread_of_its_own_may_read() -> None:
    from concurrent.futures import ThreadPoolExecutor

    data = TensorDataset(graphc.arange(8))
    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(lambda: [x.tolist() for (x,) in DataLoader(data, batch_size=4, num_workers=1)]) for _ in range(2)]
        assert [load.result(30) for load in loads] == [[[0, 1, 2, 3], [4, 5, 6, 7]]] * 2
