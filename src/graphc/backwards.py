"""The backward programs of a compiled call: one for each pattern of gradients that comes up.

Enters: a `Traced`, its `Split`, which results have a gradient.  Leaves: programs, and what they read.  Never here: runs of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from graphc.capture.stages import computing
from graphc.capture.traced import Traced
from graphc.dim_answers import answering, current_answerer
from graphc.errors import TraceError
from graphc.ir.graph import Graph, Value
from graphc.passes.split_joint import Split
from graphc.pipeline import Built
from graphc.runtime.program import Program


class Backward(NamedTuple):
    """A program.   reads: what each of its inputs is (`Split.reads`, or ``("begun", i)``).   places: for each source of
    gradients the output that is its gradient, or None.   graph: what was traced, where that is not the joint graph."""

    built: Built
    program: Program
    reads: tuple[tuple[str, int], ...]
    places: list[int | None]
    graph: Graph | None = None


class Backwards:
    """All of one specialisation, each compiled when it is first needed.   make: compiles a graph.   originals: what values of the
    split graph were in the trace.   written: positions of inputs that the call writes.

    Where sizes are symbols, the one for all gradients is compiled at once: if it does not get through, numbers will.
    """

    def __init__(
        self,
        traced: Traced,
        split: Split,
        originals: Mapping[Value, Value],
        written: Collection[int],
        make: Callable[[Graph], tuple[Built, Program]],
    ) -> None:
        self.traced, self.split, self.originals, self.written, self.make = traced, split, originals, written, make
        self._made: dict[tuple[tuple[int, ...], tuple[int, ...]], Backward] = {}
        if current_answerer() is not None:
            self._made[tuple(range(len(traced.gradient_positions))), ()] = self._full()

    def builts(self) -> list[Built]:
        """What was compiled so far."""
        return [backward.built for backward in self._made.values()]

    def of(self, present: tuple[int, ...], begun: tuple[int, ...]) -> Backward:
        """The program where these results have a gradient, of those that can have one, and gradients of these sources are added to
        what came before.  Raises RuntimeError where that was not foreseen."""
        found = self._made.get((present, begun))
        if found is None:
            every = len(present) == len(self.traced.gradient_positions) and not begun
            found = self._made[present, begun] = self._full() if every else self._other(present, begun)
        return found

    def _full(self) -> Backward:
        return Backward(*self.make(self.split.backward), self.split.reads, list(range(len(self.traced.differentiated))))

    def _other(self, present: tuple[int, ...], begun: tuple[int, ...]) -> Backward:
        traced = self.traced
        try:
            graph, places = traced.joint.graph(present, begun, traced.graph.inputs)
        except TraceError as error:
            raise RuntimeError(f"backward through compiled code, with gradients of some results alone: {error}") from error
        known = {**self._known(), **{v: ("begun", i) for i, v in zip(begun, graph.inputs[len(traced.graph.inputs) :], strict=True)}}
        order = {node: i for i, node in enumerate(graph.nodes)}
        backward, read = computing(graph.outputs, known, order)
        reads = tuple(known[v] for v in read)
        lost = [what for what in reads if what[0] == "input" and what[1] in self.written]
        if lost:
            raise AssertionError(f"backward of results {present} reads inputs that the call wrote: {lost}")
        with answering(traced.joint.questions):
            return Backward(*self.make(backward), reads, places, graph)

    def _known(self) -> dict[Value, tuple[str, int]]:
        """What backward programs can read."""
        forward, traced = self.split.forward, self.traced
        gradients = traced.graph.inputs[len(traced.graph.inputs) - len(traced.gradient_positions) :]
        known = {self.originals.get(v, v): ("input", i) for i, v in enumerate(forward.inputs)}
        known.update((self.originals.get(v, v), ("saved", i)) for i, v in enumerate(self.split.kept(forward.outputs)))
        known.update((v, ("gradient", i)) for i, v in enumerate(gradients))
        return {**{v: ("found", place) for v, place in traced.known.items()}, **known}
