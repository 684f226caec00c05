"""One traced and compiled specialisation of a function, and its runs.

Enters: a `Traced`, linked programs, tensors.  Leaves: tensors, with updates and gradients put where eager code would have put them.
Never here: which specialisation a call takes (compiled.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.pipeline import Built
from graphc.eager import dispatch
from graphc.eager.modes import modes
from graphc.eager.tape import Node, Step, edge
from graphc.eager.tensor import Tensor, wrap
from graphc.ir.graph import Graph, Value
from graphc.ir.loops import Size
from graphc.passes.split_joint import Split
from graphc.runtime.memory import aligned_empty
from graphc.runtime.program import Program
from graphc.trace.tracer import Traced
from graphc.trees import Tree

Array = np.ndarray[Any, Any]


def address_of(array: Array) -> int:
    """The address of an array's first element."""
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


class Variant:
    """A specialisation.  `split` None: no gradients flow through it."""

    def __init__(
        self,
        traced: Traced,
        forward: tuple[Built, Program],
        backward: tuple[Built, Program] | None,
        split: Split | None,
        arguments: Tree,
    ) -> None:
        self.traced, self.split, self.arguments = traced, split, arguments
        self.built, self.program = forward
        self.backward = backward
        self.epoch = dispatch.epoch[0]
        self.outputs = [(tuple(s.shape), s.dtype) for s in self.built.plan.outputs]
        self.written = {i - len(traced.arguments) for i in self.built.plan.written}

    def builts(self) -> list[Built]:
        return [self.built] if self.backward is None else [self.built, self.backward[0]]

    def holds(self) -> bool:
        """Whether what the trace assumed about the world besides the arguments is still so."""
        return self.epoch == dispatch.epoch[0] and all((t._grad is None) is was_none for t, was_none in self.traced.none_grads)

    def state_arrays(self) -> list[Array]:
        """The current memory of every state input."""
        return [storage.array for storage in self.traced.states]

    # ---- running ---------------------------------------------------------------------------------------------------

    def run(self, leaves: list[Tensor]) -> Any:
        """Results for argument tensors `leaves`."""
        states = self.state_arrays()
        held: list[Array] = []
        addresses: list[int] = []
        for x in leaves:
            array = x._array
            if not array.flags.c_contiguous:
                array = np.ascontiguousarray(array)
            held.append(array)
            addresses.append(address_of(array))
        back: list[tuple[Array, Array]] = []
        for i, array in enumerate(states):
            if not array.flags.c_contiguous:
                copy = np.ascontiguousarray(array)
                if i in self.written:
                    back.append((array, copy))
                array = copy
            held.append(array)
            addresses.append(address_of(array))
        if self.written:
            self.separate(addresses, held, len(leaves))
        for getter, dtype in self.traced.scalars:
            array = np.asarray(getter(), dtype.numpy)
            held.append(array)
            addresses.append(address_of(array))
        made = [aligned_empty(shape, dtype.numpy) for shape, dtype in self.outputs]  # type: ignore[arg-type]
        self.program(addresses, [address for _, address in made])
        for array, copy in back:
            np.copyto(array, copy)
        for i in self.written:
            self.traced.states[i].version += 1
        return self.deliver(leaves, [array for array, _ in made])

    def separate(self, addresses: list[int], held: list[Array], count: int) -> None:
        """Arguments that lie in memory about to be written are read from a copy."""
        for i in range(count):
            if any(np.may_share_memory(held[i], held[count + j]) for j in self.written):
                held[i] = held[i].copy()
                addresses[i] = address_of(held[i])

    def deliver(self, leaves: list[Tensor], arrays: list[Array]) -> Any:
        """Wrap outputs, set gradients, and put the call on the tape if gradients flow through it."""
        tensors = [wrap(array, dtype) for array, (_, dtype) in zip(arrays, self.outputs, strict=True)]
        for tensor, position in self.traced.grad_effects:
            tensor._grad = None if position is None else tensors[position]
        if self.split is not None:
            self.record(leaves, tensors)
        return self.traced.rebuild(tensors)

    def record(self, leaves: list[Tensor], tensors: list[Tensor]) -> None:
        split, traced = self.split, self.traced
        assert split is not None and self.backward is not None
        sources = traced.sources(leaves)
        results = tensors[: len(tensors) - split.saved]
        saved = [t._array for t in tensors[len(results) :]]
        inputs = [*(x._array for x in leaves), *self.state_arrays(), *(np.asarray(g(), d.numpy) for g, d in traced.scalars)]
        step = Step("compiled", _Gradient(self, saved, inputs, leaves))
        node = Node(step, {}, tuple(map(edge, sources)), tuple((t._array.shape, t.dtype) for t in results))
        node.saved = tuple((x, x._storage.version) for x in sources)
        for i, (tensor, required) in enumerate(zip(results, traced.requires_grad, strict=False)):
            if required:
                tensor._requires_grad, tensor._grad_fn, tensor._index = True, node, i


class _Gradient:
    """The gradient rule of a compiled call: runs the backward program."""

    def __init__(self, variant: Variant, saved: list[Array], inputs: list[Array], leaves: list[Tensor]) -> None:
        self.variant, self.saved, self.inputs, self.leaves = variant, saved, inputs, leaves

    def __call__(self, g: Any, out: Any, *inputs: Any) -> tuple[Tensor | None, ...]:
        variant = self.variant
        assert variant.backward is not None and variant.split is not None
        given = g if isinstance(g, tuple) else (g,)
        if modes.grad:
            return variant.traced.replay_gradients(self.leaves, given)
        built, program = variant.backward
        held = []
        for kind, i in variant.split.reads:
            if kind == "gradient":
                position = variant.traced.gradient_positions[i]
                tensor = given[position]
                shape, dtype = variant.outputs[position]
                array = np.zeros(shape, dtype.numpy) if tensor is None else np.ascontiguousarray(tensor._array)  # type: ignore[arg-type]
            else:
                array = self.saved[i] if kind == "saved" else np.ascontiguousarray(self.inputs[i])
            held.append(array)
        made = [aligned_empty(tuple(s.shape), s.dtype.numpy) for s in built.plan.outputs]  # type: ignore[arg-type]
        program([address_of(a) for a in held], [address for _, address in made])
        return tuple(wrap(array, spec.dtype) for (array, _), spec in zip(made, built.plan.outputs, strict=True))
