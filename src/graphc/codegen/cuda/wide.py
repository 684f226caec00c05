"""Which accesses of a vector loop can move several neighbours at once.

Enters: a ``vector`` or ``tile`` loop.  Leaves: `Wide`, or None.  Never here: text; whether addresses are aligned,
which the kernel asks when it runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.codegen.cuda.accesses import loads, loads_of
from graphc.dims import Size, coefficient, free
from graphc.ir.loops import Check, For, Let, Load, Store

WIDE_BYTES = 16  # the widest load and store of one thread


@dataclass(frozen=True, slots=True)
class Wide:
    """`step` neighbouring iterations; the loads and stores that are contiguous over them."""

    step: int
    loads: tuple[Load, ...]
    stores: tuple[Store, ...]


def wide(loop: For) -> Wide | None:
    """How `loop` may take several iterations at once: all its wide loads first, then the bodies, then the wide stores.

    None where fewer than two fit, nothing is contiguous, or a store's buffer is read in any other way than at the same
    offset and before the store.
    """
    if not all(isinstance(s, Let | Store | Check) for s in loop.body):
        return None
    inner = {s.name for s in loop.body if isinstance(s, Let)}

    def contiguous(offset: Size) -> bool:
        return coefficient(offset, loop.var) == 1 and inner.isdisjoint(free(offset))

    stored: dict[str, Size] = {}
    for statement in loop.body:
        if not isinstance(statement, Let | Store | Check):
            continue
        value = statement.condition if isinstance(statement, Check) else statement.value
        if any(load.buffer in stored for load in loads_of(value)):
            return None
        if isinstance(statement, Store):
            if statement.buffer in stored:
                return None
            stored[statement.buffer] = statement.offset
    every = tuple(dict.fromkeys(loads(loop.body)))
    if any(load.buffer in stored and stored[load.buffer] != load.offset for load in every):
        return None
    wide_loads = tuple(load for load in every if contiguous(load.offset))
    wide_stores = tuple(s for s in loop.body if isinstance(s, Store) and contiguous(s.offset))
    itemsizes = [load.dtype.itemsize for load in wide_loads] + [s.value.dtype.itemsize for s in wide_stores]
    step = WIDE_BYTES // max(itemsizes, default=WIDE_BYTES)
    if step < 2 or (type(loop.extent) is int and loop.extent < step):
        return None
    return Wide(step, wide_loads, wide_stores)
