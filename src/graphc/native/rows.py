"""Calls of one program with many tables, in the subset of Python that `graphc.codegen.subset` turns into machine code.

Enters: a program's entry, tables.  Leaves: what the program left in them.  Never here: what the tables hold (`graphc.sweeps`).
"""

# ruff: noqa: F821  `call` is a function of the subset
# mypy: ignore-errors
from __future__ import annotations


def run_rows(entry, tables, nbytes, count, pool_run, pool):
    """Call the entry with each of `count` tables, `nbytes` apart; gives the first status that is not 0."""
    for _ in range(count):
        failed = call(entry, tables, pool_run, pool)
        if failed:
            return failed
        tables = tables + nbytes
    return 0
