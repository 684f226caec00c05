"""The parity run stays within a bound of memory: its caches of programs and signatures are bounded, and nothing leaks."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

LIMIT = 3.0  # GiB of one process at its peak; PyTorch with its samples is about half a GiB of it


@pytest.fixture(scope="session", autouse=True)
def bounded_memory() -> Iterator[None]:
    """Fails the run's last test where the process grew beyond the bound."""
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert peak < LIMIT, f"peak of {peak:.2f} GiB"
