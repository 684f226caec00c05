"""The short way through compiled calls: a variant as the PROGRAM record that machine code follows.

Enters: a `Variant` that ran.  Leaves: a `Record`, or None where only Python serves its calls.
Never here: what machine code does with a record (`graphc.native.programs`), anything that `Variant.run` does not do too.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.capture.histories import Histories
from graphc.constants import Constants, Held
from graphc.dtypes import DType
from graphc.eager import dispatch
from graphc.eager.epoch import may_return
from graphc.eager.modes import modes
from graphc.eager.storage import array_address
from graphc.eager.tensor import Tensor
from graphc.ir.loops import FIRST_SLOT, STATUS_SLOT
from graphc.native import layout, programs
from graphc.native.recipes import Recipe
from graphc.native.sites import Sites, made
from graphc.runtime.memory import Need
from graphc.runtime.plan import Plan
from graphc.runtime.program import Program
from graphc.trees import Tree
from graphc.variant import Variant

RUNS_IN_PYTHON = 8  # of a variant, before it gets a record
RUNS_AFTER_CHANGE = 2  # the same, after its constants changed
MOST_RECORDS = 128  # of one compiled function: a call looks at one after the other
MOST_COUNTED = 4096  # variants whose runs are counted
_WORD = layout.WORD


class Unservable(Exception):
    """Only Python serves the calls of this variant."""


class Record(Recipe):
    """The words of a PROGRAM record at `address`; everything they point to lives as long as this does."""

    def __init__(self, variant: Variant, sites: Sites) -> None:
        super().__init__(sites.offsets)
        self.variant = variant
        self.guards: list[int] = []
        self.differing: list[int] = []
        self.items: list[int] = []
        self.words_of: Any = None
        self.prepared: Held | None = None

    def chain(self, after: Record | None) -> None:
        """Have machine code try another record where this one does not hold."""
        self.words_of[programs.PROGRAM.index("next")] = 0 if after is None else after.address

    # ---- what must hold

    def guard(self, x: object, name: str, value: object, differs: bool = False) -> None:
        """The word of an object whose offset is called `name` is the address of `value`."""
        (self.differing if differs else self.guards).extend([self.reference(x) + self.offsets[name], self.reference(value)])

    def guard_first(self, listed: list[Any], value: object) -> None:
        """The first item of a list is `value`."""
        place = ctypes.c_int64.from_address(self.reference(listed) + self.offsets["LIST_ITEMS"]).value
        self.guards.extend([place, self.reference(value)])

    def guard_variant(self) -> None:
        """What `Variant.holds` looks at, and where the memory of outside tensors is."""
        variant, traced = self.variant, self.variant.traced
        if dispatch.epoch[0] != variant.epoch:  # the call itself has changed it
            raise Unservable
        self.guard_first(dispatch.epoch, dispatch.epoch[0])
        self.guard_first(dtypes._default, dtypes._default[0])
        for value in variant.values:
            if type(value.owner) is dict:
                self.guard_item(value.owner, value.name, value.owner[value.name])
            else:
                self.guard(value.owner, "CELL_CONTENTS", value.owner.cell_contents)  # type: ignore[union-attr]
        for owner, name, _ in traced.numbers:
            self.guard_item(owner, name, dict.__getitem__(owner, name))
        for source in variant.outside_sources():
            self.guard(source, "TENSOR_GRAD_FN", None)
        for target, was_none in traced.none_grads:
            if isinstance(target, int):
                raise Unservable
            self.guard(target, "TENSOR_GRAD", None, differs=not was_none)
        for state, flag in zip(traced.states, variant.state_flags, strict=True):
            tensor = state.tensor
            self.guard(tensor, "TENSOR_REQUIRES_GRAD", flag)
            if state.of_grad:
                self.guard(tensor, "TENSOR_GRAD", tensor._grad)
                tensor = tensor._grad  # type: ignore[assignment]
            self.guard(tensor, "TENSOR_STORAGE", tensor._storage)
            self.guard(tensor._storage, "STORAGE_ARRAY", tensor._storage.array)

    def guard_prepared(self, constants: Constants | None) -> list[int]:
        """The addresses of what was made of constants, which hold while nobody wrote to those and nobody outside may."""
        if constants is None:
            return []
        held = constants.now
        if held is None or not held.steady:
            raise Unservable
        for tensor, storage, array, version, lent in held.sources:
            self.guard(tensor, "TENSOR_STORAGE", storage)
            self.guard(storage, "STORAGE_ARRAY", array)
            self.guard(storage, "STORAGE_VERSION", version)
            self.guard(storage, "STORAGE_LENT", lent)
        self.prepared = held
        return held.addresses

    def guard_item(self, owner: dict[Any, Any], name: str, value: object) -> None:
        """A dict's item is `value`."""
        self.items.extend([self.reference(owner), self.reference(name), self.reference(value)])

    def wanted(self, tree: Tree, leaves: list[tuple[DType, tuple[int, ...], bool]]) -> list[int]:
        """A WANTED record of an argument; takes its tensors from the front of `leaves`."""
        words = dict.fromkeys(programs.WANTED, 0)
        if tree.kind == "leaf":
            dtype, shape, requires_grad = leaves.pop(0)
            words |= {
                "kind": programs.A_TENSOR,
                "type": id(Tensor),
                "dtype": self.reference(dtype),
                "descr": self.reference(dtype.numpy),
                "requires_grad": id(requires_grad),
                "rank": len(shape),
                "sizes": self.words(shape),
                "span": max(math.prod(shape), 1) * dtype.itemsize,
            }
        elif tree.kind == "static":
            words |= {"kind": programs.SAME, "type": self.reference(tree.value)}
        elif tree.kind == "list" or (tree.kind == "tuple" and tree.value is None):
            kind, of = (programs.ITEMS_OF_LIST, list) if tree.kind == "list" else (programs.ITEMS_OF_TUPLE, tuple)
            items = [word for child in tree.children for word in self.wanted(child, leaves)]
            words |= {"kind": kind, "type": id(of), "items": self.words(items), "count": len(tree.children)}
        else:
            raise Unservable
        return self.record(programs.WANTED, **words)

    # ---- what is delivered

    def part(self, tree: Tree, places: list[int]) -> list[int]:
        """A PART record; takes the places of its tensors from the front of `places`."""
        kind, value = programs.MADE, 0
        if tree.kind == "leaf":
            value = places.pop(0)
        elif tree.kind == "static":
            kind, value = programs.FIXED, self.reference(tree.value)
        elif tree.kind == "list" or (tree.kind == "tuple" and tree.value is None):
            kind = programs.A_LIST if tree.kind == "list" else programs.A_TUPLE
        elif tree.kind == "dict":
            kind, value = programs.A_DICT, self.reference(tree.value)
        elif tree.kind == "named":
            kind, value = programs.CALLED_WITH, self.reference(tree.value)
        else:
            raise Unservable
        parts = [word for child in tree.children for word in self.part(child, places)]
        return self.record(programs.PART, kind=kind, value=value, parts=self.words(parts), count=len(tree.children))

    def effects(self) -> dict[str, int]:
        """The words for what a call does besides giving results."""
        variant, traced = self.variant, self.variant.traced
        count = len(traced.arguments)
        written: list[int] = []
        spans: list[int] = []
        for i in sorted(variant.written):
            state = traced.states[i - count]
            written.append(self.reference(state._storage))
            spans += np.lib.array_utils.byte_bounds(state.array)
        grads = []
        for target, position in traced.grad_effects:
            if isinstance(target, int):
                raise Unservable
            grads += [self.reference(target), -1 if position is None else position - variant.moved]
        deferred = [self.reference(function) for function in traced.deferred]
        return {
            **self.stretch("spans", spans),
            **self.stretch("written", written),
            **self.stretch("grads", grads),
            **self.stretch("deferred", deferred),
        }

    def in_python(self, given_at: int) -> dict[str, int]:
        """The words for what Python has to say before and after a run, or for how machine code puts results together."""
        variant, traced = self.variant, self.variant.traced
        reads = traced.reads
        if any(read.types for read in reads):  # tensors that are other ones at every call
            raise Unservable
        ask = self.reference(lambda: all(read.change() is None for read in reads)) if reads else 0
        if traced.histories == Histories() and not traced.aliases and not traced.writes:
            parts = self.words(self.part(traced.output_tree, list(range(traced.result_count))))
            return {"ask": ask, "finish": 0, "given": 0, "result": parts}
        return {"ask": ask, "finish": self.reference(variant.finisher()), "given": _WORD * given_at, "result": 0}

    def stretch(self, name: str, words: Sequence[int]) -> dict[str, int]:
        """Where words begin and end."""
        start = self.words(words)
        return {name: start, f"{name}_end": start + _WORD * len(words)}

    def arguments(self, given: Sequence[Tensor]) -> dict[str, int]:
        """The words that say what the arguments of a call must be."""
        if not all(x._array.flags.c_contiguous for x in given):  # a variant of its own, which serves no row-major arguments
            raise Unservable
        positional, named = self.variant.arguments.children
        leaves = [(x.dtype, tuple(x._array.shape), bool(x._requires_grad)) for x in given]
        wanted = [word for child in (*positional.children, *named.children) for word in self.wanted(child, leaves)]
        names = named.value or ()
        return {
            "positional": len(positional.children),
            "names": self.words([self.reference(name) for name in names]),
            "name_count": len(names),
            "wanted": self.words(wanted),
        }

    def outputs(self) -> int:
        """Where the OUTPUT records are."""
        words = []
        for i, (shape, dtype) in enumerate(self.variant.outputs):
            sizes: Any = shape  # no symbols in a variant
            words += self.output(i, dtype, sizes, np.empty(sizes, dtype.numpy).strides)
        return self.words(words)

    def fill_inputs(self, table: Any, at: int, end: int, constants: Constants | None) -> int:
        """Write down the addresses of all inputs but the arguments.

        Gives what writes the numbers that the program reads anew at every call; 0 where it reads none.
        """
        traced = self.variant.traced
        scalars = traced.scalars
        held = [np.empty((), dtype.numpy) for _, dtype in scalars]
        arrays = [*(s.array for s in traced.states), *held]
        table[at:end] = [*map(array_address, arrays), *self.guard_prepared(constants)]
        if not scalars:
            return 0

        def fill() -> None:
            for (getter, _), array in zip(scalars, held, strict=True):
                array[...] = getter()

        return self.reference(fill)


class Records:
    """The records of one compiled function, the latest first."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.runs: dict[Variant, int] = {}  # that Python did
        self.last = ctypes.c_int64(0)  # the address of the record that served the last call, 0 where Python did

    def note_run(self, variant: Variant, leaves: Sequence[Tensor]) -> bool:
        """Python ran a variant with success.  Makes a record when that happened often enough: whether there are others now."""
        self.last.value = 0
        if variant.paths is not None:  # the code asks for elements
            return False
        if len(self.runs) > MOST_COUNTED:
            self.runs.clear()
        count = self.runs[variant] = self.runs.get(variant, 0) + 1
        if count < RUNS_IN_PYTHON or count & (count - 1):
            return False
        record = record_of(variant, leaves, ctypes.addressof(self.last))
        self.runs = {v: n for v, n in self.runs.items() if may_return(v.epoch)}
        if record is None:
            return False
        current = [r for r in self.records if r.variant is not variant and may_return(r.variant.epoch)]
        self._chain([record, *current][:MOST_RECORDS])
        return True

    def drop_outdated(self, variant: Variant) -> bool:
        """Let go of what was made of constants that have changed, so that its memory can be used again: whether a record did."""
        now = None if variant.constants is None else variant.constants.now
        if now is None or now.is_current():
            return False
        self.runs[variant] = min(self.runs.get(variant, 0), RUNS_IN_PYTHON - RUNS_AFTER_CHANGE)
        left = [r for r in self.records if r.prepared is not now]
        if len(left) == len(self.records):
            return False
        self._chain(left)
        return True

    def _chain(self, records: list[Record]) -> None:
        self.records = records
        for one, after in zip(records, [*records[1:], None], strict=False):
            one.chain(after)

    def entry(self) -> tuple[int, Any] | None:
        """What an `Entered` holds on to."""
        return (self.records[0].address, self.records) if self.records else None

    def last_variant(self) -> Variant | None:
        """The variant whose record served the last call; None where Python did."""
        return next((r.variant for r in self.records if r.address == self.last.value), None)


def enter_through(kind: type) -> None:
    """Have machine code serve calls of `kind`, whose ``__call__`` is in Python now."""
    sites = made()
    if sites is not None and not sites.state.long_way:
        sites.enter_through(kind, kind.__call__)  # type: ignore[operator]


def record_of(variant: Variant, leaves: Sequence[Tensor], last: int) -> Record | None:
    """The record for a variant that has just run with success on `leaves`, or None.   last: where it notes a call it served."""
    sites = made()
    if sites is None:
        return None
    try:
        return _written(variant, leaves, sites, last)
    except (Unservable, AttributeError, KeyError):
        return None


def _written(variant: Variant, given: Sequence[Tensor], sites: Sites, last: int) -> Record:
    forward, traced = variant.forward, variant.traced  # once: another thread may put its equal there
    plan, count = forward.built.plan, len(traced.arguments)
    _require_servable(variant, plan, sites)
    record = Record(variant, sites)
    record.guard_variant()
    table: Any = (ctypes.c_int64 * (plan.slots + 2 * count))()  # and the arrays of the arguments, and these
    record.kept += [table, forward.program, Need(plan.scratch(variant.sizes)[1])]
    base, output_at = ctypes.addressof(table), FIRST_SLOT + len(plan.inputs)
    table[STATUS_SLOT] = status = record.words([0])
    table[plan.sizes_at : plan.sizes_at + len(plan.sizes)] = variant.sizes_of(forward.built, variant.sizes)
    offsets, scratch_nbytes = plan.scratch(variant.sizes)
    fill = record.fill_inputs(table, FIRST_SLOT + count, output_at, forward.constants)
    words = record.record(
        programs.PROGRAM,
        next=0,
        busy=0,
        last=last,
        grad=id(modes.grad),
        **record.arguments(given),
        **record.stretch("guards", record.guards),
        **record.stretch("differing", record.differing),
        **record.stretch("items", record.items),
        table=base,
        held=_WORD * (plan.slots - FIRST_SLOT),
        tensor_count=count,
        entry=forward.program.address,
        long=int(Program.is_long(plan.nbytes(variant.sizes))),
        status=status,
        arena=record.words(offsets),
        arena_count=len(offsets),
        arena_slot=base + _WORD * (output_at + len(plan.outputs)),
        arena_nbytes=scratch_nbytes,
        arena_at=0,
        outputs=record.outputs(),
        output_count=len(plan.outputs),
        output_slot=base + _WORD * output_at,
        fill=fill,
        **record.in_python(plan.slots + count - FIRST_SLOT),
        **record.effects(),
    )
    record.address = record.words(words)
    record.words_of = record.kept[-1]
    return record


def _require_servable(variant: Variant, plan: Plan, sites: Sites) -> None:
    """Raises Unservable where machine code cannot do what `Variant.run` does, or has no memory for it."""
    traced = variant.traced
    if modes.autocast is not None:  # machine code serves calls without it, and does not look
        raise Unservable
    if traced.reads_elements or traced.found or plan.host_calls or len(plan.outputs) > programs.MOST_OUTPUTS:
        raise Unservable
    if any(i < len(traced.arguments) for i in variant.written) or not all(s.array.flags.c_contiguous for s in traced.states):
        raise Unservable
    nbytes = plan.scratch(variant.sizes)[1]
    if nbytes and not sites.reserve_scratch(nbytes):
        raise Unservable
