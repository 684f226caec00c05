"""``multiprocessing.spawn``: processes that run a function, and what becomes of their errors."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphc
import graphc.multiprocessing as mp


def write(i: int, folder: str, x: graphc.Tensor) -> None:
    Path(folder, str(i)).write_text(str((x + i).tolist()))


def fail(i: int) -> None:
    if i == 1:
        raise ValueError("the second one")


def test_spawn_runs_every_process(tmp_path: Path) -> None:
    mp.spawn(write, (str(tmp_path), graphc.ones(2)), nprocs=2)
    assert [(tmp_path / str(i)).read_text() for i in range(2)] == ["[1.0, 1.0]", "[2.0, 2.0]"]


def test_an_error_is_raised_here() -> None:
    with pytest.raises(mp.ProcessRaisedException, match="ValueError: the second one"):
        mp.spawn(fail, nprocs=2)


def test_python_names_are_there() -> None:
    assert mp.Process and mp.Queue and mp.get_context("fork") and mp.cpu_count()


class EndsWhileAsked:
    """A process that fails between two questions about its exit code."""

    sentinel = pid = 0

    def __init__(self, *codes: int | None) -> None:
        self.codes = list(codes)

    @property
    def exitcode(self) -> int | None:
        return self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]

    def is_alive(self) -> bool:
        return False


def test_a_process_that_fails_while_another_is_looked_at_is_not_taken_for_a_success() -> None:
    context = mp.ProcessContext([EndsWhileAsked(0), EndsWhileAsked(None, 1)], [None, None])
    assert not context.join()
