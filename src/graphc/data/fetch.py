"""Batches of a data set, one for each list of indices.

Enters: a data set, indices.  Leaves: batches.  Never here: which indices come when, processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from graphc.data.collate import default_collate
from graphc.data.dataset import batch_reader, read_many, shown

Fetch = Callable[[Any], Any]


def fetcher(dataset: Any, iterable: bool, batched: bool, collate_fn: Callable[[Any], Any], drop_last: bool) -> Fetch:
    """A function from what the sampler gives to a batch.  For an iterable data set it raises StopIteration at the end.

    Errors of the data set and of collating say in a note which indices were being read.
    """
    if iterable:
        return _of_iterator(dataset, batched, collate_fn, drop_last)
    if not batched:
        return lambda index: collate_fn(dataset[index])
    at_once = batch_reader(dataset) if collate_fn is default_collate else None
    if at_once is not None:
        return at_once

    def fetch(indices: list[Any]) -> Any:
        samples = read_many(dataset, indices)
        try:
            return collate_fn(samples)
        except Exception as error:
            located(error, collate_fn, f"collating the batch of indices {shown(indices)}")
            raise

    return fetch


def located(error: Exception, collate_fn: Any, what: str) -> None:
    """Say where it happened: in the message of our own `default_collate`, in a note of anybody else's error."""
    if collate_fn is default_collate and type(error) in (RuntimeError, TypeError, ValueError) and len(error.args) == 1:
        error.args = (f"{error.args[0]}; while {what}",)
    else:
        error.add_note(f"while {what}")


def _of_iterator(dataset: Any, batched: bool, collate_fn: Callable[[Any], Any], drop_last: bool) -> Fetch:
    samples, count = iter(dataset), itertools.count()
    if not batched:
        return lambda _: collate_fn(next(samples))

    def fetch(indices: list[Any]) -> Any:
        batch = list(itertools.islice(samples, len(indices)))
        number = next(count)
        if not batch or (drop_last and len(batch) < len(indices)):
            raise StopIteration
        try:
            return collate_fn(batch)
        except Exception as error:
            located(error, collate_fn, f"collating batch {number} ({len(batch)} samples) of {type(dataset).__name__}")
            raise

    return fetch
