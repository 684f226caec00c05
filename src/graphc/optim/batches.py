"""Eager steps over many parameters: a rule compiled for flat arrays of any size, run over all of them in one call.

Enters: an optimizer's groups.  Leaves: parameters and state, changed in place.  Never here: rules; what a traced step does.

What is known of a group (which parameters have gradients, where everything is) is kept from step to step and compared with what is
so now: all that changes as a rule is where the gradients are.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.dtypes import DType, complex64, complex128, float32, float64
from graphc.eager.tensor import Tensor, address_of
from graphc.ops.strided import overlaps
from graphc.optim.optimizer import ParameterGroup, truth

if TYPE_CHECKING:
    from graphc.optim.rules import RuleOptimizer
    from graphc.sweeps import Rows, Sweep

Array = np.ndarray[Any, Any]
_sweeps: dict[tuple[Any, ...], Any] = {}


class Batches:
    """The batches of each group of an optimizer, as they were at its last step."""

    def __init__(self) -> None:
        self.known: dict[int, _Group] = {}

    def step(self, optimizer: RuleOptimizer, group: ParameterGroup) -> bool:
        """One step of a group; False, and nothing done, where only the rule's operators one by one do it right."""
        known = self.known.get(id(group))
        if known is None or not known.holds(optimizer, group):
            known = self.known[id(group)] = _Group(optimizer, group)
        if known.batches is None:
            return False
        for batch in known.batches:
            batch.run()
        return True


class _Group:
    """Which parameters of a group had gradients, and the batches of those.   batches: None where there can be none."""

    def __init__(self, optimizer: RuleOptimizer, group: ParameterGroup) -> None:
        self.group = group
        self.truths = _truths(optimizer, group)
        self.params = list(group["params"])
        self.idle = [p for p in self.params if p._grad is None]
        kinds: dict[Any, list[tuple[Any, dict[str, Any]]]] = {}
        usual = True
        for p in self.params:
            if p._grad is not None:
                kept = optimizer.state_of(group, p)
                usual = usual and _is_usual(optimizer, group, p)
                kinds.setdefault((p.dtype, *((name, x.dtype) for name, x in kept.items())), []).append((p, kept))
        self.batches: list[_Batch] | None = None
        if usual and not _tangled(self.params):
            self.batches = [_Batch(optimizer, group, self.truths, members) for members in kinds.values()]

    def holds(self, optimizer: RuleOptimizer, group: ParameterGroup) -> bool:
        """Whether all is as it was; then the batches know where this step's gradients are."""
        params = group["params"]
        if self.group is not group or len(params) != len(self.params) or not all(map(is_, params, self.params)):
            return False
        if self.truths != _truths(optimizer, group) or self.batches is None:
            return False
        return all(p._grad is None for p in self.idle) and all(batch.holds() for batch in self.batches)


def _truths(optimizer: RuleOptimizer, group: ParameterGroup) -> tuple[bool, ...]:
    """What of the hyperparameters decides which operators a rule runs."""
    return tuple([truth(group.get(name)) for name in optimizer.defaults])


def _is_usual(optimizer: RuleOptimizer, group: ParameterGroup, p: Any) -> bool:
    """Whether a batch may hold a parameter: its gradient and state have its sizes, and it and they can be written to."""
    shape = p._array.shape
    if p.dtype.kind not in "fc" or p._grad.dtype is not p.dtype or p._grad._array.shape != shape:
        return False
    sized = [(p, shape), *((holder[name], shape if how.whole else ()) for holder, name, how in optimizer.places(group, p))]
    return all(x._array.shape == size and x._array.flags.writeable and x._array.flags.aligned for x, size in sized)


def _tangled(params: Sequence[Any]) -> bool:
    """Whether an array with gaps shares memory with another, or its elements do: what is written must then be read in between."""
    arrays = [p._array for p in params]
    for i, array in enumerate(arrays):
        if not array.flags.c_contiguous:
            if overlaps(array.shape, array.strides):
                return True
            if any(np.may_share_memory(array, other) for other in (*arrays[:i], *arrays[i + 1 :])):
                return True
    return False


class _Batch:
    """Parameters of one group with the same dtypes throughout, as rows of a sweep.

    checks: state that must be where it was.   gapped: arrays that are copied in and out, with the copies.
    """

    def __init__(
        self, optimizer: RuleOptimizer, group: ParameterGroup, truths: tuple[bool, ...], members: list[tuple[Any, dict[str, Any]]]
    ) -> None:
        from graphc.sweeps import Rows

        self.group = group
        self.members = [(p, p._array, p._array.shape, p.dtype) for p, _ in members]
        self.gapped: list[tuple[Array, Array]] = []
        self.sweep: Sweep = _sweep(optimizer, group, truths, *members[0])
        self.rows: Rows = Rows(self.sweep, [p._array.size * (2 if p.dtype.kind == "c" else 1) for p, _ in members])
        starts = [self.address(p) for p, _ in members]
        self.rows.place(0, starts)
        for i, name in enumerate(members[0][1]):
            self.rows.place(2 + i, [self.address(kept[name]) for _, kept in members])
        self.starts = np.array(starts, np.int64)
        self.nbytes = np.array([p._array.nbytes for p, _ in members], np.int64)
        self.storages = [x._storage for p, kept in members for x in (p, *kept.values())]
        placed = [place for p, _ in members for place in optimizer.places(group, p)]
        self.checks: list[tuple[dict[str, Any], str, Any, Array]] = [
            (holder, name, holder[name], holder[name]._array) for holder, name, _ in placed
        ]
        self.gradients: list[int] = []
        self.copies: list[Array] = []
        self.holds()

    def address(self, x: Tensor) -> int:
        """Where a row finds `x`: a copy of it where it has gaps."""
        if x._array.flags.c_contiguous:
            return address_of(x)
        copy = np.empty(x._array.shape, x._array.dtype)
        self.gapped.append((x._array, copy))
        return int(copy.ctypes.data)

    def holds(self) -> bool:
        """Whether parameters and state are where they were; notes where their gradients are now."""
        for holder, name, x, held in self.checks:
            if x._array is not held or holder.get(name) is not x:
                return False
        found = self.gradients = []
        for p, array, shape, dtype in self.members:
            g = p._grad
            if g is None or p._array is not array or g.dtype is not dtype:
                return False
            gradient = g._array
            if gradient.shape != shape:
                return False
            if gradient.flags.c_contiguous:
                pointer = g._pointer
                found.append(pointer[1] if pointer is not None and pointer[0] is gradient else address_of(g))
            else:
                found.append(self.copied(gradient))
        return True

    def copied(self, array: Array) -> int:
        """The address of a row-major copy that lives until the step is over."""
        copy = np.array(array, order="C")
        self.copies.append(copy)
        return int(copy.ctypes.data)

    def run(self) -> None:
        """One step: `holds` was asked just before."""
        starts = np.array(self.gradients, np.int64)
        shared = (starts < self.starts + self.nbytes) & (self.starts < starts + self.nbytes)
        if shared.any():  # what is written would be read
            for row in np.flatnonzero(shared):
                starts[row] = self.copied(self.members[row][0]._grad._array)
        self.rows.place(1, starts)
        for i, (name, index) in enumerate(self.sweep.keys):
            value = self.group.live(name)
            self.rows.numbers[i] = float(value if index is None else value[index])
        for array, copy in self.gapped:
            np.copyto(copy, array)
        self.rows.run()
        for array, copy in self.gapped:
            np.copyto(array, copy)
        for storage in self.storages:
            storage.version += 1
        self.copies = []


_REAL = {complex64: float32, complex128: float64}


def _sweep(optimizer: RuleOptimizer, group: ParameterGroup, truths: tuple[bool, ...], p: Any, kept: dict[str, Any]) -> Sweep:
    """The compiled rule for parameters like `p`, whose state is `kept`."""
    operands: list[tuple[DType, bool]] = [(_REAL.get(p.dtype, p.dtype), True)] * 2
    whole = {name: how.whole for _, name, how in optimizer.places(group, p)}
    operands += [(_REAL.get(x.dtype, x.dtype), whole[name]) for name, x in kept.items()]
    key = (type(optimizer), truths, tuple(kept), tuple(operands))
    found = _sweeps.get(key)
    if found is None:
        from graphc.sweeps import Sweep

        names = tuple(kept)

        def function(number: Any, tensors: Sequence[Tensor]) -> None:
            optimizer.apply(group, lambda name, index=None: number((name, index)), names, tensors)

        found = _sweeps[key] = Sweep(type(optimizer).__name__.lower(), function, operands)
    return found  # type: ignore[no-any-return]
