"""What a trace leaves: a pure graph, and how its inputs are found and its results handed out.

Enters: a graph and what the tracer knows of it; later, the tensors of one call.  Leaves: results as the code itself gives them.
Never here: tracing, compilation.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.capture.aliases import Alias, with_aliases
from graphc.capture.attributes import ModeWrite, Read, Write
from graphc.capture.histories import Histories, Saved
from graphc.capture.live import Step, applied
from graphc.capture.outside import Capture, Target
from graphc.capture.sizes import settled, settled_tree
from graphc.capture.stops import NOWHERE, Stops
from graphc.dtypes import DType
from graphc.eager.tensor import Tensor, wrap
from graphc.eager.views import follow
from graphc.errors import at_user_line
from graphc.ir.graph import Builder, Graph, Value, pruned
from graphc.ir.op import Op
from graphc.trees import Tree


class Traced:
    """What a trace leaves.

    graph: inputs are arguments, states, scalars, what was found (`found`) and, of a joint trace, gradients of results, in that
      order; outputs are the results, then gradients of the sources (joint), then what `.grad` is set to: `own_count`; then, where
      gradients may be of some results alone, what the tape saves.
    states: where each state input's memory is.   scalars: (getter, dtype) of each scalar input, called at every call.
    updates: for each of ``graph.updates``, which graph input it writes (an argument that is written has role ``state`` too).
    grad_effects: (tensor or argument position, output position or None): what `.grad` is set to after a call.
    none_grads: (tensor or argument position, whether `.grad` was None) of every `.grad` that was read: guards.
    numbers: (dict, name, value) of every hyperparameter that the code read as a Python number: guards.
    deferred: what to call after every run, such as the step of a learning rate's schedule.
    aliases: results that share memory with an argument, an outside tensor or another result.
    reads, writes: the attributes of modules that the code reads or sets and that move.  The tensors in those that are read are the
      last arguments; those in what is set are among the results, of which the first `returned` are the function's.
    reads_elements: whether the code asks for elements.   path: what it asked, in order, and what the answers were
      (`capture.reads`): the trace is one of a call with the same answers.
    found: the places (`capture.questions.Call`) of inputs that questions' programs found.   known: the places of all values that
      they found.   gives: of a question's program, what its outputs are to `capture.reads`.
    returned_numbers: which results the function gives as Python numbers, and what is made of each.
    lasting: which states (their positions) the code neither writes nor differentiates by: parameters at inference, buffers.
    histories: what results are to the tape.   saved: what it saves of tensors that others see.   joint: what makes gradients of
      some results alone, or adds them to others (`capture.joint.Joint`).
    notes: what `explain` tells of the trace.   sizes: of the symbols, in a call that `at` is for.
    """

    def __init__(self, graph: Graph, tree: Tree, count: int) -> None:
        self.graph, self.output_tree, self.result_count, self.returned = graph, tree, count, count
        self.returned_numbers: dict[int, tuple[Step, ...]] = {}
        self.path: list[tuple[Any, str]] = []
        self.reads_elements = False
        self.found: list[int] = []
        self.known: dict[Value, int] = {}
        self.gives: list[Any] = []
        self.reads: list[Read] = []
        self.writes: list[Write | ModeWrite] = []
        self.notes: list[str] = []
        self.arguments: list[int] = []
        self.states: list[Capture] = []
        self.scalars: list[tuple[Callable[[], float], DType]] = []
        self.updates: list[int] = []
        self.grad_effects: list[tuple[Target, int | None]] = []
        self.none_grads: list[tuple[Target, bool]] = []
        self.numbers: list[tuple[dict[str, Any], str, Any]] = []
        self.deferred: list[Callable[[], None]] = []
        self.aliases: list[Alias] = []
        self.lasting: list[int] = []
        self.histories, self.saved, self.own_count = Histories(), Saved(), len(graph.outputs)
        self.differentiated: list[Target] = []
        self.joint: Any = None
        self.stops = Stops()
        self.sizes: Mapping[str, int] = {}

    def at(self, sizes: Mapping[str, int]) -> Traced:
        """The same trace for a call whose symbolic sizes are `sizes`."""
        made = copy.copy(self)
        made.sizes, made.output_tree = sizes, settled_tree(self.output_tree, sizes)
        made.aliases = [alias.with_attributes(lambda attrs: _settled_attrs(attrs, sizes)) for alias in self.aliases]
        return made

    @property
    def gradient_positions(self) -> tuple[int, ...]:
        """Which result each gradient input belongs to."""
        return self.histories.flowing

    @functools.cached_property
    def adding(self) -> tuple[int, ...]:
        """Which gradients are sums, so that it shows whether those that came before are their beginning."""
        gradients = self.graph.outputs[self.result_count : self.result_count + len(self.differentiated)]
        return tuple(i for i, v in enumerate(gradients) if v.node is not None and v.node.op.name == "add")

    @property
    def made_count(self) -> int:
        """How many results a program makes: those that are no aliases."""
        return self.result_count - len(self.aliases)

    def program(self) -> Graph:
        """The graph without results that are aliases."""
        graph, aliases = self.graph, {alias.position for alias in self.aliases}
        if not aliases:
            return graph
        outputs = [v for i, v in enumerate(graph.outputs) if i not in aliases]
        return pruned(graph.name, graph.inputs, graph.nodes, outputs, graph.updates)

    def steady_results(self) -> list[int]:
        """Of what a program makes, the positions of results that the tape saves."""
        aliases = {alias.position for alias in self.aliases}
        made = [i for i in range(self.result_count) if i not in aliases]
        return [made.index(i) for i in self.saved.results]

    def values(self, graph: Graph, builder: Builder) -> list[Value]:
        """All results in terms of a program's graph, for who has no tensors to share memory with: aliases are views of copies."""
        now = dict(graph.updates)
        inputs = [now.get(v, v) for v in graph.inputs]
        outside = {id(state._storage): inputs[i] for i, state in enumerate(self.states, len(self.arguments))}
        made = iter(graph.outputs)
        aliases = {alias.position: alias for alias in self.aliases}
        values: list[Any] = [None if i in aliases else next(made) for i in range(self.result_count)]
        with builder.running():
            for alias in sorted(self.aliases, key=lambda alias: alias.same):
                kind, which = alias.source
                if kind == "outside":
                    values[alias.position] = follow(outside[id(which._storage)], which._chain if alias.same else alias.chain)
                else:
                    values[alias.position] = follow((inputs if kind == "argument" else values)[which], alias.chain)
        return values

    def results(self, outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
        """All results from the outputs of `program`, sharing memory as eager results do with tensor arguments `leaves`."""
        made = outputs[: self.made_count]
        return with_aliases(self.aliases, made, leaves) if self.aliases else list(made)

    def rebuild(self, results: Sequence[Any]) -> Any:
        """What the function gives, from its results.  Sets the attributes that the code sets."""
        for write, value in [(write, write.value(results)) for write in self.writes]:
            write.put(value)
        if self.returned_numbers:
            numbers = {i: applied(steps, results[i].item()) for i, steps in self.returned_numbers.items()}
            results = [numbers.get(i, x) for i, x in enumerate(results)]
        return self.output_tree.unflatten(results)

    def all_leaves(self, leaves: list[Tensor]) -> list[Tensor]:
        """The arguments of a call with those that no caller writes down: tensors in attributes."""
        return leaves if not self.reads else [*leaves, *(x for read in self.reads for x in read.tensors())]

    def sources(self, leaves: Sequence[Tensor]) -> list[Tensor]:
        """The tensors that the gradients of a joint trace are with respect to, in order; `leaves`: this call's arguments."""
        return [self.target(t, leaves) for t in self.differentiated]

    @staticmethod
    def target(target: Target, leaves: Sequence[Tensor]) -> Tensor:
        """The tensor that `target` stands for in a call with arguments `leaves`."""
        return leaves[target] if isinstance(target, int) else target

    def replay_gradients(
        self,
        leaves: Sequence[Tensor],
        given: Sequence[Tensor | None],
        known: Mapping[Value, Tensor],
        changed: Sequence[int],
        graph: Graph | None = None,
        begun: Sequence[Tensor] = (),
    ) -> tuple[Tensor, ...]:
        """The gradients of a joint trace computed by eager operators, so that they can be differentiated again.

        known: values kept from the call that depend on nothing differentiated.   changed: positions of graph inputs that are not
        what they were at the call.   graph: of other gradients, which are added to `begun`.  Raises RuntimeError where a gradient
        needs an input that has changed.
        """
        first, last = (self.result_count, self.result_count + len(self.differentiated)) if graph is None else (0, None)
        graph = graph or self.graph
        wanted = graph.outputs[first:last]
        values = {**known, **self._inputs_again(leaves, given)}
        values.update(zip(graph.inputs[len(self.graph.inputs) :], begun, strict=True))
        needed = {v for v in wanted if v not in known}
        nodes = []
        for node in reversed(graph.nodes):
            if any(v in needed for v in node.outputs):
                nodes.append(node)
                needed.update(v for v in node.inputs if v not in known)
        for i in changed:
            if self.graph.inputs[i] in needed:
                message = "create_graph: a tensor that gradients through compiled code are computed from has been modified since"
                raise RuntimeError(at_user_line(f"{message}: {self.graph.inputs[i].type}"))
        for node in reversed(nodes):
            off = self.stops.of.get(node, NOWHERE)
            operands = [values[v].detach() if i in off else values[v] for i, v in enumerate(node.inputs)]
            outputs = node.op.run(*operands, **_settled_attrs(node.attrs, self.sizes))
            values.update(zip(node.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))
        return tuple(values[v] for v in wanted)

    def _inputs_again(self, leaves: Sequence[Tensor], given: Sequence[Tensor | None]) -> dict[Value, Tensor]:
        scalars = [wrap(np.asarray(getter(), dtype.numpy), dtype) for getter, dtype in self.scalars]
        inputs = [*leaves, *(s.root() for s in self.states), *scalars]
        values: dict[Value, Tensor] = dict(zip(self.graph.inputs, inputs, strict=False))
        gradients = self.graph.inputs[len(self.graph.inputs) - len(self.gradient_positions) :]
        for position, value in zip(self.gradient_positions, gradients, strict=True):
            g = given[position]
            shape = settled(value.shape, self.sizes)
            values[value] = Op.table["full"].run(value=0, shape=shape, dtype=value.dtype) if g is None else g
        return values

    def independent(self, values: Sequence[Value]) -> list[bool]:
        """Whether each value depends on nothing that gradients are with respect to."""
        storages = {id(t._storage) for t in self.differentiated if isinstance(t, Tensor)}
        count = len(self.arguments)
        reached = {self.graph.inputs[t] for t in self.differentiated if isinstance(t, int)}
        reached |= {self.graph.inputs[count + i] for i, s in enumerate(self.states) if id(s._storage) in storages}
        for node in self.graph.nodes:
            if any(v in reached for v in node.inputs):
                reached.update(node.outputs)
        return [v not in reached for v in values]


def _settled_attrs(attrs: dict[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    return {name: settled(value, sizes) for name, value in attrs.items()} if sizes else attrs
