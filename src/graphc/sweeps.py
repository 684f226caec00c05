"""A function of flat tensors, compiled once for all sizes and run over many tuples of arrays in one call.

Enters: a function of tensors that writes to some of them, addresses.  Leaves: the arrays at those addresses, changed in place.
Never here: what the function computes, whose arrays they are.

The program is the function's trace over tensors of one symbolic size, so its bits are those of the same operators run eagerly.
It is kept in the disk cache as every program is.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import dims
from graphc.capture.tracer import Cell, Tracer
from graphc.codegen import subset
from graphc.dims import Dim
from graphc.dtypes import DType, float64
from graphc.eager.dispatch import traced
from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor, address_of
from graphc.ir.graph import Graph, Value
from graphc.ir.loops import FIRST_SLOT, STATUS_SLOT, THREADS_SLOT
from graphc.ir.op import TensorType, casting
from graphc.native import rows
from graphc.pipeline import build
from graphc.runtime import threads
from graphc.runtime.cache import default_cache
from graphc.runtime.link import assemble, link, machine_signature
from graphc.runtime.memory import Arena, aligned_empty

Number = Callable[[Any], Tensor]
Function = Callable[[Number, Sequence[Tensor]], None]

_WORD = ctypes.sizeof(ctypes.c_int64)
_NONE = 64  # bytes that an empty array is said to have, so that there is an address


class Sweep:
    """`function(number, tensors)` as a program over arrays of any one size.

    name: of the graph.   operands: the dtype of each tensor, and whether it has the common size (else it has no dims).
    The function writes in place to what it changes; ``number(key)`` gives a number, as a float64 tensor without dims, that is
    handed in at every run under that key (`keys`, in the order of first use).  It must not need the size itself.
    """

    def __init__(self, name: str, function: Function, operands: Sequence[tuple[DType, bool]]) -> None:
        self.keys: list[Any] = []
        self.program = build(self._graph(name, function, operands)).link()
        self.plan = self.program.plan
        self.flat = [flat for _, flat in operands]
        self.pool = threads.pool()

    def _graph(self, name: str, function: Function, operands: Sequence[tuple[DType, bool]]) -> Graph:
        tracer, size = Tracer(), Dim.symbol("n", 1)
        numbers: dict[Any, tuple[Value, Tensor]] = {}

        def stand_in(value: Value) -> Tensor:
            x = traced(value.dtype, value.shape, None)
            x._storage.cell = Cell(tracer, value, value, x._storage)
            return x

        def number(key: Any) -> Tensor:
            if key not in numbers:
                value = Value(TensorType(float64, ()), None, f"number{len(numbers)}")
                numbers[key] = value, stand_in(value)
            return numbers[key][1]

        inputs = [
            Value(TensorType(dtype, (size,) if flat else ()), None, f"x{i}", "state") for i, (dtype, flat) in enumerate(operands)
        ]
        tensors = [stand_in(value) for value in inputs]
        before = modes.tracer, modes.grad
        modes.tracer, modes.grad = tracer, False
        try:
            with casting(None):
                function(number, tensors)
        finally:
            modes.tracer, modes.grad = before
        self.keys = list(numbers)
        ends = [(value, x._storage.cell.value) for value, x in zip(inputs, tensors, strict=True)]
        updates = [(value, end) for value, end in ends if end is not value]
        written = {value for value, _ in updates}
        for value in inputs:
            value.role = "state" if value in written else "input"
        return tracer.builder.graph(name, [*inputs, *(value for value, _ in numbers.values())], (), updates)


class Rows:
    """What a sweep runs over: one row for each tuple of arrays.

    numbers: what the function's `number`s are at the next run, in the order of the sweep's `keys`.
    """

    def __init__(self, sweep: Sweep, sizes: Sequence[int]) -> None:
        plan, count = sweep.plan, len(sizes)
        self.sweep, self.count = sweep, count
        self.table, self._address = aligned_empty((max(count, 1), plan.slots), np.dtype(np.int64))
        self.numbers = np.zeros(max(len(sweep.keys), 1), np.float64)
        self._status = ctypes.c_int64(0)
        self._nothing, nowhere = aligned_empty((_NONE,), np.dtype(np.uint8))
        self._arena = Arena()
        self._held: list[Any] = []
        self.table[:, STATUS_SLOT] = ctypes.addressof(self._status)
        first = FIRST_SLOT + len(sweep.flat)
        self.table[:, FIRST_SLOT:first] = nowhere
        for i in range(len(sweep.keys)):
            self.table[:, first + i] = self.numbers.ctypes.data + i * self.numbers.itemsize
        at = first + len(sweep.keys)
        self._arena.reserve(max(plan.arena_nbytes, 1))
        for offset in plan.arena_offsets:  # rows run one after the other, so they share it
            self.table[:, at] = self._arena.address + offset
            at += 1
        largest = max([1, *sizes])
        for nbytes in plan.temporaries:
            held, address = aligned_empty((max(dims.evaluate(nbytes, {"n": largest}), 1),), np.dtype(np.uint8))
            self._held.append(held)
            self.table[:, at] = address
            at += 1
        self._empty = [i for i, size in enumerate(sizes) if not size]
        self._nowhere = nowhere
        if plan.sizes:
            self.table[:, at] = [max(size, 1) for size in sizes]

    def place(self, operand: int, addresses: Sequence[int] | np.ndarray[Any, Any]) -> None:
        """Say where the arrays of an operand are, one for each row.  An empty one is anywhere."""
        column = self.table[: self.count, FIRST_SLOT + operand]
        column[:] = addresses
        if self._empty and self.sweep.flat[operand]:
            column[self._empty] = self._nowhere

    def run(self) -> None:
        """Run every row, in order."""
        sweep = self.sweep
        program, pool = sweep.program, sweep.pool
        self.table[:, THREADS_SLOT] = pool.threads
        nbytes = _WORD * sweep.plan.slots
        failed = _run_rows()(program.address, self._address, nbytes, self.count, pool.run_address, pool.address)
        if failed:
            self._status.value = 0
            raise program.failure(self._address, failed)


_known: dict[tuple[Any, ...], Sweep] = {}


def fits(tensors: Sequence[Tensor]) -> bool:
    """Whether a sweep may run over tensors as they are: eagerly, without autocast, of one floating dtype, row-major, not empty."""
    if not tensors or modes.tracer is not None or modes.readers or modes.autocast is not None:
        return False
    dtype = tensors[0].dtype
    if dtype.kind != "f":
        return False
    for x in tensors:
        flags = x._array.flags
        if x.dtype is not dtype or not x._array.size or not (flags.c_contiguous and flags.aligned and flags.writeable):
            return False
    return True


def run_over(key: tuple[Any, ...], function: Function, tensors: Sequence[Tensor], results: Tensor | None, **numbers: float) -> None:
    """Run `function` on each of `tensors`, which `fits`, and on the element of `results` with its number; they may be written to.

    key: names what the function does, its first item the program.
    """
    dtype = tensors[0].dtype
    operands = [(dtype, True)] if results is None else [(dtype, True), (results.dtype, False)]
    found = _known.get((*key, *operands))
    if found is None:
        found = _known[*key, *operands] = Sweep(key[0], function, operands)
    rows = Rows(found, [x._array.size for x in tensors])
    rows.place(0, [address_of(x) for x in tensors])
    if results is not None:
        rows.place(1, address_of(results) + np.arange(len(tensors)) * results.dtype.itemsize)
    rows.numbers[: len(found.keys)] = [numbers[name] for name in found.keys]
    rows.run()
    for x in tensors if 0 in found.plan.written else ():
        x._storage.version += 1
    if results is not None:
        results._storage.version += 1


@functools.cache
def _run_rows() -> Callable[..., int]:
    """The machine code of `rows.run_rows`, from the disk cache where it is there."""
    source = inspect.getsource(rows)
    parts = (machine_signature(), source, inspect.getsource(subset))
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    found = default_cache().get(key)
    if found is None:
        found = assemble(subset.render_module(source, {}, (), {}, ["run_rows"]), optimise=2)
        default_cache().put(key, found)
    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 6)(link(found, ["run_rows"])["run_rows"])
