"""Memory lent to NumPy's world: arrays that are handed out, and whether anybody may still hold one.

Enters: arrays.  Leaves: arrays on the same memory, and a `Debt`.  Never here: what is done about it.

An array that is lent has a `_Lease` as its base.  NumPy makes it the base of everything that is taken from it (views, memoryviews,
DLPack capsules), so a lease is gone when the last of those is, and with the last lease what it stands for.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class _Loan:
    """Alive while any array of one memory is out."""

    __slots__ = ("__weakref__",)


class _Lease:
    """The base of a lent array."""

    __slots__ = ("__array_interface__", "loan", "memory")

    def __init__(self, loan: _Loan, memory: Array) -> None:
        self.loan, self.memory, self.__array_interface__ = loan, memory, memory.__array_interface__


# None: never lent.  True: lent, and nothing can tell the end of it (an address, another process, memory that came from outside).
Debt = bool | weakref.ref[_Loan] | None

_lock = threading.Lock()


def lend(owner: Any, array: Array) -> Array:
    """`array`, which is memory of `owner`, to be handed out; ``owner.lent`` is a `Debt` and afterwards says so."""
    with _lock:
        debt = owner.lent
        if debt is True:
            return array
        loan = None if debt is None else debt()
        if loan is None:
            loan = _Loan()
            owner.lent = weakref.ref(loan)
    out: Array = np.asarray(_Lease(loan, array))
    return out if out.dtype == array.dtype else out.view(array.dtype)  # NumPy has no name for some dtypes


def is_out(debt: Debt) -> bool:
    """Whether somebody may still write to the memory unseen."""
    return debt is not None and (debt is True or debt() is not None)  # type: ignore[operator]
