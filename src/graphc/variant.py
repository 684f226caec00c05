"""One traced and compiled specialisation of a function, and its runs.

Enters: a `Traced`, linked programs, tensors.  Leaves: tensors, with updates and gradients put where eager code would have put them.
Never here: which specialisation a call takes (compiled.py).
"""

from __future__ import annotations

import copy
import functools
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphc.backwards import Backward, Backwards
from graphc.capture.guards import NamedValue
from graphc.capture.questions import Found
from graphc.capture.sizes import Pattern, settled
from graphc.capture.traced import Traced
from graphc.constants import Constants
from graphc.dtypes import DType
from graphc.eager import dispatch
from graphc.eager.dispatch import has_own_elements
from graphc.eager.modes import modes
from graphc.eager.storage import array_address
from graphc.eager.tape import Adding, Edge, Node, edge
from graphc.eager.tensor import Tensor, address_of, wrap
from graphc.ir.graph import Value
from graphc.passes.split_joint import Split
from graphc.pipeline import Built
from graphc.runtime.memory import aligned_empty
from graphc.runtime.program import Program
from graphc.trees import Tree

Array = np.ndarray[Any, Any]
Edges = tuple[Edge | None, ...]


class SharedMemory(Exception):
    """An argument shares memory with an input that the program writes: the trace knew them as two.  Nothing has been written."""


class Forward(NamedTuple):
    """A program, and what its last inputs are: the results of `constants`, if there is something that is done once."""

    built: Built
    program: Program
    constants: Constants | None = None


class Variant:
    """A specialisation.  `split` None: no gradients flow through it.   forward: what runs; may be replaced by its equal."""

    def __init__(
        self,
        traced: Traced,
        forward: Forward,
        backward: Backwards | None,
        split: Split | None,
        arguments: Tree,
        values: list[NamedValue],
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.traced, self.split, self.arguments, self.values = traced, split, arguments, values
        self.sizes = sizes or {}
        self.pattern: Pattern | None = None  # of its arguments, where sizes are open
        self._of: Variant | None = None  # the one that this is `at` some sizes
        self.paths: Any = None  # the `Paths` of its key, where the code asks for elements
        self.stages: list[Variant] = []  # programs of questions on its path that have constants
        self.originals: Mapping[Value, Value] = {}  # what values of the graph were in the trace, where that is another graph
        self.forward = forward
        self.backward = backward
        self.epoch = dispatch.epoch[0]
        self.outputs = self.outputs_at(self.sizes)
        self.written = frozenset(self.built.plan.written)
        self.state_memory: list[list[Any]] = [[None, 0, False] for _ in traced.states]  # array, address, contiguous
        self.written_starts: list[int] = []
        self.written_ends: list[int] = []
        self.writes_arguments = any(i < len(traced.arguments) for i in self.written)
        self.state_flags = [bool(state.tensor._requires_grad) for state in traced.states]
        self.leaf_arguments = [target for target, _ in traced.grad_effects if isinstance(target, int)]
        self.moved = len(traced.aliases) + (0 if split is None else len(traced.differentiated))

    def at(self, sizes: Mapping[str, int]) -> Variant:
        """The same programs for calls whose symbolic sizes are `sizes`."""
        made = copy.copy(self)
        made._of = self.whole
        made.traced, made.sizes, made.outputs = self.traced.at(sizes), sizes, self.outputs_at(sizes)
        made.state_memory = [[None, 0, False] for _ in self.state_memory]  # what is not known to it has moved
        return made

    @property
    def whole(self) -> Variant:
        """The specialisation for all sizes that its programs serve."""
        return self._of or self

    @staticmethod
    def sizes_of(built: Built, sizes: Mapping[str, int]) -> list[int]:
        """What a program is told of sizes."""
        return [sizes[name] for name in built.plan.sizes]

    @property
    def built(self) -> Built:
        """What was compiled of the forward graph."""
        return self.forward.built

    @property
    def program(self) -> Program:
        """The same, linked."""
        return self.forward.program

    @property
    def constants(self) -> Constants | None:
        """What the program reads beside arguments and states.  Whoever runs it by a way of its own puts ``held().addresses`` behind
        the states' and scalars' addresses, keeps what `held` gave until the run is over, and before every run makes sure that it
        still is ``constants.now`` and ``is_current()``."""
        return self.forward.constants

    def builts(self) -> list[Built]:
        """What was compiled: forward, and backward where there is one."""
        return [self.built] if self.backward is None else [self.built, *self.backward.builts()]

    def holds(self, leaves: list[Tensor]) -> bool:
        """Whether what the trace assumed about the world besides the arguments' types is still so."""
        return self.change(leaves) is None

    def change(self, leaves: list[Tensor]) -> str | None:
        """What is not as the trace assumed, in words; None where everything is."""
        traced = self.traced
        if self.epoch != dispatch.epoch[0]:
            return "a module: an attribute, a parameter, a buffer, a hook or train and eval"
        for read in traced.reads:
            if (change := read.change()) is not None:
                return change
        leaves = traced.all_leaves(leaves)
        if any(leaves[i]._grad_fn is not None for i in self.leaf_arguments):
            return "whether an argument is a leaf"
        for value in self.values:
            if not value.holds():
                return f"{'the value of' if value.is_plain else 'the object called'} '{value.name}'"
        for state, flag in zip(traced.states, self.state_flags, strict=True):
            if state.tensor._requires_grad is not flag:
                return "whether a tensor from outside requires grad"
        for owner, name, number in traced.numbers:
            if dict.get(owner, name) != number:
                return f"the hyperparameter '{name}'"
        if any((Traced.target(t, leaves)._grad is None) is not was_none for t, was_none in traced.none_grads):
            return "whether a .grad is None"
        return None

    # ---- running ---------------------------------------------------------------------------------------------------

    def run(self, leaves: list[Tensor], found: Sequence[Found] = ()) -> Any:
        """The function's results for argument tensors `leaves`.   found: what questions' programs found for this call.

        Raises SharedMemory where only eager code gives them.
        """
        leaves = self.traced.all_leaves(leaves)
        return self.deliver(leaves, self.compute(leaves, found, self.sizes), found)

    def compute(self, leaves: list[Tensor], found: Sequence[Found], sizes: Mapping[str, int]) -> list[Found]:
        """The program's outputs.  Arguments and states that it writes are written."""
        given = [leaves[i] for i in self.traced.arguments]
        arrays = [x._array for x in given]
        addresses = [address_of(x) for x in given]
        moved = False
        for state, known in zip(self.traced.states, self.state_memory, strict=True):
            array = state.array
            if array is not known[0]:
                known[:] = array, array_address(array), bool(array.flags.c_contiguous)
                moved = True
            arrays.append(array)
            addresses.append(known[1])
        for getter, dtype in self.traced.scalars:
            arrays.append(np.asarray(getter(), dtype.numpy))
            addresses.append(array_address(arrays[-1]))
        for place in self.traced.found:
            arrays.append(found[place][0])
            addresses.append(found[place][1])
        forward = self.forward
        held = self.contiguous(given, arrays, addresses, moved)
        prepared = None if forward.constants is None else forward.constants.held()
        if prepared is not None:
            addresses += prepared.addresses
        outputs = self.outputs if sizes == self.sizes else self.outputs_at(sizes)
        made = [aligned_empty(shape, dtype.numpy) for shape, dtype in outputs]
        forward.program(addresses, [address for _, address in made], self.sizes_of(forward.built, sizes) if sizes else ())
        for i in self.written:
            if held[i] is not arrays[i]:
                np.copyto(arrays[i], held[i])
            owner = given[i]._storage if i < len(given) else self.traced.states[i - len(given)]
            owner.version += 1
        return made

    def outputs_at(self, sizes: Mapping[str, int]) -> list[tuple[tuple[int, ...], DType]]:
        """The shapes and dtypes of the program's outputs."""
        return [(settled(s.shape, sizes), s.dtype) for s in self.built.plan.outputs]

    def contiguous(self, leaves: list[Tensor], arrays: list[Array], addresses: list[int], moved: bool) -> list[Array]:
        """The arrays that the program reads and writes: copies where one has gaps.  Raises SharedMemory."""
        held = list(arrays)
        for i, x in enumerate(leaves):
            if not x._array.flags.c_contiguous:
                held[i] = np.ascontiguousarray(x._array)
        for i, known in enumerate(self.state_memory, start=len(leaves)):
            if not known[2]:
                held[i] = np.ascontiguousarray(arrays[i])
        if self.written:
            if moved or self.writes_arguments:
                self.find_written(arrays)
            self.refuse_shared(arrays, len(leaves))
        for i, array in enumerate(held):
            if array is not arrays[i]:
                addresses[i] = array_address(array)
        return held

    def refuse_shared(self, arrays: list[Array], count: int) -> None:
        """Raise SharedMemory where one of the `count` arguments shares memory with another input that is written, or elements of
        one that is written share memory."""
        for i in self.written:
            if not has_own_elements(arrays[i]):
                raise SharedMemory
        for j in range(count):
            start, end = np.lib.array_utils.byte_bounds(arrays[j])
            at = bisect_left(self.written_ends, start + 1)
            if at < len(self.written_starts) and self.written_starts[at] < end:
                for i in self.written:
                    if i != j and np.shares_memory(arrays[i], arrays[j]):
                        raise SharedMemory

    def find_written(self, arrays: list[Array]) -> None:
        """Remember where the inputs to be written lie, in order of address (no two of them overlap)."""
        spans = sorted(np.lib.array_utils.byte_bounds(arrays[i]) for i in self.written)
        self.written_starts, self.written_ends = [s for s, _ in spans], [e for _, e in spans]

    def deliver(self, leaves: list[Tensor], made: list[Found], found: Sequence[Found]) -> Any:
        """Wrap outputs, set gradients, and put the call on the tape if gradients flow through it."""
        tensors = []
        for (array, address), (_, dtype) in zip(made, self.outputs, strict=True):
            tensor = wrap(array, dtype)
            tensor._pointer = (array, address)
            tensors.append(tensor)
        for target, position in self.traced.grad_effects:
            Traced.target(target, leaves)._grad = None if position is None else tensors[position - self.moved]
        results = self.traced.results(tensors, leaves)
        self.record(leaves, tensors, results, found, _edges(self.traced.sources(leaves)))
        for function in self.traced.deferred:
            function()
        return self.traced.rebuild(results)

    def finisher(self) -> Callable[[Sequence[Tensor], Sequence[Tensor]], Any]:
        """What does the rest of `deliver` for tensors that machine code made, and the arguments of a call."""
        traced = self.traced
        fixed = len(self.outside_sources()) == len(traced.differentiated)  # leaves, while machine code serves calls
        edges = _edges(self.outside_sources()) if fixed else ()

        def finish(tensors: Sequence[Tensor], leaves: Sequence[Tensor]) -> Any:
            results = traced.results(tensors, leaves)
            self.record(leaves, tensors, results, (), edges if fixed else _edges(traced.sources(leaves)))
            return traced.rebuild(results)

        return finish

    def outside_sources(self) -> list[Tensor]:
        """The tensors from outside that gradients are with respect to."""
        return [x for x in self.traced.differentiated if isinstance(x, Tensor)]

    def record(
        self,
        leaves: Sequence[Tensor],
        tensors: Sequence[Tensor],
        results: Sequence[Tensor],
        found: Sequence[Found],
        edges: Edges,
    ) -> None:
        """Put results on the tape; one node stands for the whole call.   tensors: the program's outputs."""
        node = None
        if self.split is not None:
            saved = [t._array for t in self.split.kept(tensors)]
            metas = tuple([(x._array.shape, x.dtype) for x in results])
            node = Node(Adding("compiled", _Gradient(self, saved, leaves, found), self.traced.adding), {}, edges, metas)
            node.saved = self.traced.saved.tensors(leaves, results)
        self.traced.histories.give(results, node)

    @functools.cached_property
    def kept_places(self) -> list[int]:
        """What questions' programs found and backward may read again: in the program, or as a value to begin with."""
        assert self.split is not None
        traced = self.traced
        first = len(traced.arguments) + len(traced.states) + len(traced.scalars)
        read = {traced.found[i - first] for kind, i in self.split.reads if kind == "input" and i >= first}
        alone = traced.independent(list(traced.known))
        return sorted(read | {place for place, free in zip(traced.known.values(), alone, strict=True) if free})


def _edges(sources: Sequence[Tensor]) -> Edges:
    return tuple([edge(x) for x in sources])


class _Gradient:
    """The gradient rule of a compiled call: runs the backward program."""

    def __init__(self, variant: Variant, saved: list[Array], leaves: Sequence[Tensor], found: Sequence[Found]) -> None:
        self.variant, self.saved, self.leaves = variant, saved, leaves
        self.found = {place: found[place] for place in variant.kept_places} if found else {}
        self.versions = self.versions_now()

    def versions_now(self) -> list[int]:
        """How often the memory of arguments and outside tensors was written to."""
        states = self.variant.traced.states
        return [*[x._storage.version for x in self.leaves], *[0 if s.of_grad else s.tensor._storage.version for s in states]]

    def __call__(self, g: Any, begun: Mapping[int, Tensor], *_: Any) -> tuple[Tensor | None, ...]:
        variant, traced = self.variant, self.variant.traced
        given = g if isinstance(g, tuple) else (g,)
        if modes.grad or (modes.tracer is not None and modes.tracer.batches):
            return self.replay(given, begun)
        backward = self.backward(given, begun)
        built, held = backward.built, []
        for (kind, i), spec in zip(backward.reads, built.plan.inputs, strict=True):
            if kind == "saved":
                array = self.saved[i]
            elif kind == "input":
                array = self.input(i)
            elif kind == "found":
                array = self.found[i][0]
            elif kind == "begun":
                array = begun[i]._array
            else:
                gradient = given[traced.gradient_positions[i]]
                shape = settled(spec.shape, variant.sizes)
                array = np.zeros(shape, spec.dtype.numpy) if gradient is None else gradient._array
            held.append(np.ascontiguousarray(array))
        made = [aligned_empty(settled(s.shape, variant.sizes), s.dtype.numpy) for s in built.plan.outputs]
        sizes = variant.sizes_of(built, variant.sizes)
        backward.program([array_address(a) for a in held], [address for _, address in made], sizes)
        results = [wrap(array, spec.dtype) for (array, _), spec in zip(made, built.plan.outputs, strict=True)]
        return tuple(None if place is None else results[place] for place in backward.places)

    def backward(self, given: tuple[Tensor | None, ...], begun: Mapping[int, Tensor]) -> Backward:
        """The program for the gradients that have come."""
        assert self.variant.backward is not None
        positions = self.variant.traced.gradient_positions
        return self.variant.backward.of(tuple(i for i, at in enumerate(positions) if given[at] is not None), tuple(begun))

    def replay(self, given: tuple[Tensor | None, ...], begun: Mapping[int, Tensor]) -> tuple[Tensor | None, ...]:
        """Gradients that can be differentiated again."""
        variant, traced = self.variant, self.variant.traced
        assert variant.split is not None
        kept = [variant.originals.get(v, v) for v in variant.split.kept(variant.split.forward.outputs)]
        arrays = dict(zip(kept, self.saved, strict=True))
        arrays.update((v, self.found[place][0]) for v, place in traced.known.items() if place in self.found)
        alone = traced.independent(list(arrays))
        known = {v: wrap(array, v.dtype) for (v, array), free in zip(arrays.items(), alone, strict=True) if free}
        changed = {i for i, (a, b) in enumerate(zip(self.versions, self.versions_now(), strict=True)) if a != b} | variant.written
        backward = self.backward(given, begun)
        found = traced.replay_gradients(self.leaves, given, known, sorted(changed), backward.graph, tuple(begun.values()))
        return tuple(None if place is None else found[place] for place in backward.places)

    def input(self, position: int) -> Array:
        traced = self.variant.traced
        if position < len(self.leaves):
            return self.leaves[position]._array  # type: ignore[no-any-return]
        position -= len(self.leaves)
        if position < len(traced.states):
            return traced.states[position].array
        position -= len(traced.states)
        if position < len(traced.scalars):
            getter, dtype = traced.scalars[position]
            return np.asarray(getter(), dtype.numpy)
        return self.found[traced.found[position - len(traced.scalars)]][0]
