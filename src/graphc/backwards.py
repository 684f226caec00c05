"""The backward programs of a compiled call: one where every result has a gradient, and one for each other pattern that comes up.

Enters: a `Traced`, its `Split`, which results have a gradient.  Leaves: programs, and what they read.  Never here: runs of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from graphc.capture.stages import computing
from graphc.capture.tracer import Traced
from graphc.dim_answers import answering
from graphc.errors import TraceError, at_user_line, warn
from graphc.ir.graph import Graph, Value
from graphc.passes.split_joint import Split
from graphc.pipeline import Built
from graphc.runtime.program import Program


class Backward(NamedTuple):
    """A program.   reads: what each of its inputs is (`Split.reads`).   places: for each source of the gradients the output that
    is its gradient, or None.   graph: what was traced, where that is not the joint graph."""

    built: Built
    program: Program
    reads: tuple[tuple[str, int], ...]
    places: list[int | None]
    graph: Graph | None = None


class Backwards:
    """All of one specialisation.   make: compiles a graph.   originals: what values of the split graph were in the trace.
    written: positions of inputs that the call writes."""

    def __init__(
        self,
        traced: Traced,
        split: Split,
        originals: Mapping[Value, Value],
        written: Collection[int],
        make: Callable[[Graph], tuple[Built, Program]],
    ) -> None:
        self.traced, self.split, self.originals, self.written, self.make = traced, split, originals, written, make
        self.full = Backward(*make(split.backward), split.reads, list(range(len(traced.differentiated))))
        self._others: dict[tuple[int, ...], Backward] = {}

    def of(self, present: tuple[int, ...]) -> Backward:
        """The program where these results have a gradient, of those that can have one."""
        if len(present) == len(self.traced.gradient_positions):
            return self.full
        if present not in self._others:
            try:
                self._others[present] = self._made(present)
            except TraceError as error:
                warn(f"gradients that do not arrive are zeros in backward: {error}")
                self._others[present] = self.full
        return self._others[present]

    def _made(self, present: tuple[int, ...]) -> Backward:
        traced = self.traced
        graph, places = traced.joint.graph(present, traced.graph.inputs)
        known = self._known()
        order = {node: i for i, node in enumerate(graph.nodes)}
        backward, read = computing(graph.outputs, known, order)
        reads = tuple(known[v] for v in read)
        full = set(self.full.reads)
        if any(what not in full and (what[0] == "found" or (what[0] == "input" and what[1] in self.written)) for what in reads):
            raise TraceError(at_user_line("gradients of some results alone need what was not kept for them"))
        with answering(traced.joint.questions):
            return Backward(*self.make(backward), reads, places, graph)

    def _known(self) -> dict[Value, tuple[str, int]]:
        """What backward programs can read."""
        forward, traced = self.split.forward, self.traced
        gradients = traced.graph.inputs[len(traced.graph.inputs) - len(traced.gradient_positions) :]
        kept = forward.outputs[len(forward.outputs) - self.split.saved :]
        known = {self.originals.get(v, v): ("input", i) for i, v in enumerate(forward.inputs)}
        known.update((self.originals.get(v, v), ("saved", i)) for i, v in enumerate(kept))
        known.update((v, ("gradient", i)) for i, v in enumerate(gradients))
        return {**{v: ("found", place) for v, place in traced.known.items()}, **known}
