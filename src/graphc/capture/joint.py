"""The tape of a function that was traced together with its gradients, kept for calls some of whose results get no gradient.

Enters: results, gradients of them, what they are differentiated by.  Leaves: graphs of gradients.  Never here: compilation.

A gradient that does not arrive is no zero: what depends on it alone does not run, and is not added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from graphc.dim_answers import answering, current_answerer
from graphc.eager import autograd
from graphc.eager.modes import modes
from graphc.eager.tape import Node, Packed
from graphc.eager.tensor import Tensor
from graphc.errors import TraceError, at_user_line
from graphc.ir.graph import Graph, Value
from graphc.ir.op import TensorType


class Joint:
    """roots: traced results that gradients start from.   given: the traced gradient of each.   wanted: what they are
    differentiated by."""

    def __init__(self, tracer: Any, roots: list[Tensor], given: list[Tensor], wanted: list[Tensor]) -> None:
        self.tracer, self.roots, self.given, self.wanted = tracer, roots, given, wanted
        self.questions: Any = current_answerer()

    def _asked(self) -> tuple[Any, ...]:
        """How much the trace read and asked."""
        questions, tracer = self.questions, self.tracer
        sizes = () if questions is None else (questions.must_be_revised, len(questions.facts))
        return len(tracer.states), len(tracer.scalars), *sizes

    def gradients(self, present: Sequence[int], begun: Mapping[int, Tensor] | None = None) -> tuple[Tensor | None, ...]:
        """Traced gradients with respect to each of `wanted`, where these of the roots have one.  They are on the tape, which tells
        what second derivatives go through.   begun: what has come to some of `wanted` before, which theirs are added to.  Raises
        TraceError where backward fails."""
        begun = begun or {}
        roots = [*(self.wanted[i] for i in begun), *(self.roots[i] for i in present)]
        given = [*begun.values(), *(self.given[i] for i in present)]
        try:
            return autograd.grad(roots, self.wanted, given, create_graph=True, allow_unused=True)
        except TraceError:
            raise
        except Exception as error:  # eager code raises it when backward is called, if it ever is
            raise TraceError(f"backward from the results fails: {error}") from error

    def graph(self, present: Sequence[int], begun: Sequence[int], inputs: Sequence[Value]) -> tuple[Graph, list[int | None]]:
        """A graph of those gradients, with the joint graph's `inputs` and one for each of `begun`; which of its outputs is each,
        None for none.

        Raises TraceError where that reads tensors from outside, or asks of sizes, what the trace did not.
        """
        before = modes.tracer, modes.watchers
        modes.tracer, modes.watchers = self.tracer, ()
        known = self._asked()
        try:
            with answering(self.questions):
                come: list[Value] = []
                found = self.gradients(present, {i: gradient_of(self.tracer, self.wanted[i], come, "begun") for i in begun})
                outputs = [self.tracer.value_of(g) for g in found if g is not None]
        finally:
            modes.tracer, modes.watchers = before
        if known != self._asked():
            raise TraceError(at_user_line("gradients of some results alone depend on what the others do not"))
        places = iter(range(len(outputs)))
        graph = self.tracer.builder.graph("gradients", (*inputs, *come), outputs)
        return graph, [None if g is None else next(places) for g in found]


def gradient_of(tracer: Any, x: Tensor, among: list[Value], name: str) -> Tensor:
    """The traced gradient of a tensor, which is given: a graph input, put at the end of `among`."""
    g: Tensor = tracer.tensor(tracer.input(among, name, TensorType(x.dtype, tuple(x._array.shape)), "input"))
    g._requires_grad = True
    return g


class Differentiated(NamedTuple):
    """sources: what results are differentiated by.   gradients: of each.   joint: what makes other gradients.   saved: what the
    tape keeps for backward, as it is at the end."""

    sources: list[Any]
    gradients: list[Tensor]
    joint: Joint
    saved: list[Tensor]


def differentiated(tracer: Any, results: list[Tensor]) -> Differentiated:
    """What results that gradients flow through are differentiated by.

    Raises TraceError where they depend on no tensor from outside.
    """
    targets = dict(tracer.sources)
    tensors = {id(t): t for t in tracer.kept}
    wanted = [tensors[key] for key in targets]
    if not wanted:
        raise TraceError(at_user_line("gradients would flow to a tensor that the code makes"))
    joint = Joint(tracer, results, [gradient_of(tracer, x, tracer.gradients, "gradient") for x in results], wanted)
    saved = list(_saved_by(tracer, results))
    found = joint.gradients(range(len(results)))
    used = [i for i, g in enumerate(found) if g is not None]
    joint.wanted = [wanted[i] for i in used]
    sources = list(targets.values())
    return Differentiated([sources[i] for i in used], [g for g in found if g is not None], joint, saved)


def _nodes_behind(results: Sequence[Tensor]) -> Iterator[Node]:
    """The nodes that backward from results meets."""
    stack = [x.grad_fn for x in results]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if type(node) is Node and id(node) not in seen:
            yield node
            seen.add(id(node))
            stack.extend(e[0] for e in node.edges if e is not None)


def _saved_by(tracer: Any, results: Sequence[Tensor]) -> Iterator[Tensor]:
    """The tensors of the trace, or from outside, that the tape keeps for backward from results."""
    for node in _nodes_behind(results):
        for saved in (*(node.saved or ()), *node.saved_outputs):
            if saved is not None and type(saved) is not Packed:
                x, version = saved
                cell = x._storage.cell
                if x._storage.version == version and (cell is None or cell.tracer is tracer):
                    yield x


def is_freed(x: Tensor) -> bool:
    """Whether backward from x would meet a node that was freed."""
    return any(node.freed for node in _nodes_behind([x]))
