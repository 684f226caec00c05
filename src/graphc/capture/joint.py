"""The tape of a function that was traced together with its gradients, kept for calls some of whose results get no gradient.

Enters: results, gradients of them, what they are differentiated by.  Leaves: graphs of gradients.  Never here: compilation.

A gradient that does not arrive is no zero: what depends on it alone does not run, and is not added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.dim_answers import answering, current_answerer
from graphc.eager import autograd
from graphc.eager.modes import modes
from graphc.eager.tape import Node
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

    def gradients(self, present: Sequence[int]) -> tuple[Tensor | None, ...]:
        """Traced gradients with respect to each of `wanted`, where these of the roots have one.  They are on the tape, which tells
        what second derivatives go through.  Raises TraceError where backward fails."""
        roots, given = ([listed[i] for i in present] for listed in (self.roots, self.given))
        try:
            return autograd.grad(roots, self.wanted, given, create_graph=True, allow_unused=True)
        except TraceError:
            raise
        except Exception as error:  # eager code raises it when backward is called, if it ever is
            raise TraceError(f"backward from the results fails: {error}") from error

    def graph(self, present: Sequence[int], inputs: Sequence[Value]) -> tuple[Graph, list[int | None]]:
        """A graph of those gradients, with the joint graph's `inputs`; which of its outputs is each, None for none.

        Raises TraceError where that reads tensors from outside, or asks of sizes, what the trace did not.
        """
        before = modes.tracer, modes.watchers
        modes.tracer, modes.watchers = self.tracer, ()
        known = self._asked()
        try:
            with answering(self.questions):
                found = self.gradients(present)
                outputs = [self.tracer.value_of(g) for g in found if g is not None]
        finally:
            modes.tracer, modes.watchers = before
        if known != self._asked():
            raise TraceError(at_user_line("gradients of some results alone depend on what the others do not"))
        places = iter(range(len(outputs)))
        return self.tracer.builder.graph("gradients", inputs, outputs), [None if g is None else next(places) for g in found]


def differentiated(tracer: Any, results: list[Tensor]) -> tuple[list[int], list[Any], list[Tensor], Joint | None]:
    """(results with a gradient, what it is with respect to, the gradients, what makes those of some results alone)."""
    positions = [i for i, x in enumerate(results) if x.requires_grad and not _is_freed(x)]
    tensors = {id(t): t for t in (*tracer.kept, *(results[i] for i in positions))}
    for i in positions:  # a result that is itself a source
        if results[i].is_leaf:
            tracer.note_source(results[i])
    targets = dict(tracer.sources)
    wanted = [tensors[key] for key in targets]
    if not positions or not wanted:
        return [], [], [], None
    given = []
    for i in positions:
        type_ = TensorType(results[i].dtype, tuple(results[i]._array.shape))
        given.append(tracer.tensor(tracer.input(tracer.gradients, "gradient", type_, "input")))
        given[-1]._requires_grad = True
    joint = Joint(tracer, [results[i] for i in positions], given, wanted)
    found = joint.gradients(range(len(positions)))
    used = [i for i, g in enumerate(found) if g is not None]
    joint.wanted = [wanted[i] for i in used]
    sources = list(targets.values())
    return positions, [sources[i] for i in used], [g for g in found if g is not None], joint if len(positions) > 1 else None


def _is_freed(x: Tensor) -> bool:
    """Whether backward from x would meet a node that was freed."""
    stack = [x.grad_fn]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if type(node) is Node and id(node) not in seen:
            if node.freed:
                return True
            seen.add(id(node))
            stack.extend(e[0] for e in node.edges if e is not None)
    return False
