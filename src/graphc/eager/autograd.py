"""Backward: gradients of tensors by walking the tape.

Enters: tensors with a history.  Leaves: gradients, in `.grad` or returned.
Never here: gradient rules (each operator's own, in public operators, so that a gradient can be differentiated again or traced).

Nodes are processed in descending order of `sequence`: a node's consumers were all recorded after it.  Gradients that meet are added
in the order in which they arrive, so the order of recording alone decides the bits.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Sequence
from typing import Any

from graphc.dtypes import DType
from graphc.eager.gradients import program
from graphc.eager.modes import enable_grad, inference_mode, is_grad_enabled, modes, no_grad, set_grad_enabled
from graphc.eager.tape import Node, Step, edge
from graphc.eager.tensor import Tensor, place, share
from graphc.errors import at_user_line
from graphc.ir.op import Op, Shape, shape_text
from graphc.ops.arguments import cast, constant
from graphc.ops.movement import summed_to


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add the gradients of the tensors to `.grad` of the leaves (or only of `inputs`).

    Raises RuntimeError for a non-scalar without gradient, a tensor off the tape, a graph already freed, and a saved tensor that was
    overwritten.
    """
    roots = _listed(tensors)
    seeds = _seeds(roots, grad_tensors, create_graph)
    keep = create_graph if retain_graph is None else retain_graph
    targets = None if inputs is None else _listed(inputs)
    if targets is not None and not targets:
        raise RuntimeError(at_user_line("backward: inputs cannot be empty"))
    run = _Backward(roots, seeds, keep, create_graph, targets)
    if targets is None:
        run.accumulate(run.leaves.values())
    else:
        run.accumulate([(x, g) for x, g in zip(targets, run.captured, strict=True) if g is not None])


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of the sum of `outputs` (weighted by `grad_outputs`) with respect to each of `inputs`; `.grad` is not touched.

    Raises RuntimeError as `backward`, and for an input that the outputs do not depend on unless `allow_unused`.
    """
    roots, targets = _listed(outputs), _listed(inputs)
    seeds = _seeds(roots, grad_outputs, create_graph)
    keep = create_graph if retain_graph is None else retain_graph
    for x in targets:
        if not x.requires_grad:
            raise RuntimeError(at_user_line("grad: one of the input tensors does not require grad"))
    found = _Backward(roots, seeds, keep, create_graph, targets).captured
    result: list[Tensor | None] = []
    for i, (x, g) in enumerate(zip(targets, found, strict=True)):
        if g is None and materialize_grads:
            g = constant(0, x.dtype, tuple(x._array.shape))
        if g is None and not (allow_unused or materialize_grads):
            message = f"grad: input {i} ({_shown(x)}) appears to not have been used in the graph"
            raise RuntimeError(at_user_line(message + "; set allow_unused=True if this is desired"))
        result.append(g)
    return tuple(result)


def _listed(tensors: Any) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _shown(x: Any) -> str:
    return f"{x.dtype.short}{shape_text(tuple(x.shape))}"


def _seeds(roots: Sequence[Tensor], given: Any, create_graph: bool) -> list[Tensor]:
    """The gradient that each root starts with."""
    gradients = [None] * len(roots) if given is None else _listed(given)
    if len(gradients) != len(roots):
        raise RuntimeError(at_user_line(f"backward: got {len(roots)} tensors and {len(gradients)} gradients"))
    seeds = []
    for x, g in zip(roots, gradients, strict=True):
        if not x.requires_grad:
            raise RuntimeError(at_user_line("element 0 of tensors does not require grad and does not have a grad_fn"))
        if g is None:
            if x._array.size != 1:
                raise RuntimeError(at_user_line(f"grad can be implicitly created only for scalar outputs, not for {_shown(x)}"))
            g = constant(1, x.dtype, tuple(x._array.shape))
        elif tuple(g._array.shape) != tuple(x._array.shape):
            raise RuntimeError(at_user_line(f"Mismatch in shape: gradient {_shown(g)} for output {_shown(x)}"))
        elif g.dtype.kind != "f":
            raise RuntimeError(at_user_line(f"gradient {_shown(g)} of output {_shown(x)} must be floating"))
        seeds.append(cast(g if create_graph else share(g, Tensor), x.dtype))
    return seeds


class _Backward:
    """One walk over the tape.  Leaves `leaves`: (tensor, gradient) of each leaf reached, or `captured`: one per target."""

    def __init__(
        self, roots: list[Tensor], seeds: list[Tensor], keep: bool, create_graph: bool, targets: list[Tensor] | None
    ) -> None:
        self.keep, self.create_graph = keep, create_graph
        self.buffers: dict[Node, list[Tensor | None]] = {}
        self.heap: list[tuple[int, Node]] = []
        self.leaves: dict[int, tuple[Tensor, Tensor]] = {}
        self.seeds = {id(s._storage) for s in seeds}
        self.goals = None if targets is None else [edge(x) for x in targets]
        self.found: dict[tuple[int, int], Tensor] = {}
        starts = [edge(x) for x in roots]
        self.needed = None if self.goals is None else _leading_to(self.goals, starts)
        before = modes.grad
        modes.grad = create_graph
        try:
            for start, seed in zip(starts, seeds, strict=True):
                assert start is not None
                self.arrive(start, seed)
            while self.heap:
                self.step(heapq.heappop(self.heap)[1])
        finally:
            modes.grad = before
        self.captured = [self.gradient_at(goal) for goal in self.goals or ()]

    def gradient_at(self, goal: Any) -> Tensor | None:
        if goal is None:
            return None
        place_, index = goal
        if type(place_) is Node:
            return self.found.get((id(place_), index))
        return self.leaves.get(id(place_), (None, None))[1]

    def arrive(self, where: tuple[Any, int], g: Tensor) -> None:
        """Add a gradient to what has come to an edge's end so far."""
        end, index = where
        if type(end) is not Node:
            g = _fitted(g, tuple(end._array.shape), end.dtype, "a leaf")
            _, old = self.leaves.get(id(end), (None, None))
            self.leaves[id(end)] = end, (g if old is None else add.run(old, g))
            return
        if self.needed is not None and end not in self.needed:
            return
        shape, dtype = end.metas[index]
        g = _fitted(g, tuple(shape), dtype, end.name)
        buffer = self.buffers.get(end)
        if buffer is None:
            buffer = self.buffers[end] = [None] * len(end.metas)
            heapq.heappush(self.heap, (-end.sequence, end))
        old = buffer[index]
        buffer[index] = g if old is None else add.run(old, g)

    def step(self, node: Node) -> None:
        """Hand a node's gradients to its inputs."""
        gradients = self.buffers.pop(node)
        if node.hooks:
            for index, hook in list(node.hooks):
                gradients[index] = _hooked(hook, gradients[index])
        if node.retained:
            for index, x in node.retained:
                self.retain(x, gradients[index])
        if self.goals is not None:
            for goal in self.goals:
                if goal is not None and goal[0] is node and (g := gradients[goal[1]]) is not None:
                    self.found[id(node), goal[1]] = g
            assert self.needed is not None
            if not self.needed[node]:
                return
        results = self.rule(node, gradients)
        if not self.keep:
            node.free()
        for where, g in zip(node.edges, results, strict=True):
            if where is not None and g is not None:
                self.arrive(where, g)

    def rule(self, node: Node, gradients: list[Tensor | None]) -> Sequence[Tensor | None]:
        """Run the node's gradient rule on what it saved."""
        if node.saved is None:
            raise RuntimeError(at_user_line(
                f"Trying to backward through the graph a second time: what {node.name} saved has already been freed; "
                "specify retain_graph=True the first time"
            ))  # fmt: skip
        op = node.op
        if isinstance(op, Step):
            g: Any = gradients[0] if len(gradients) == 1 else tuple(gradients)
            return op.grad(g, None, *[_unpacked(node, s) for s in node.saved])  # type: ignore[no-any-return]
        needed = tuple([e is not None for e in node.edges])
        given = tuple([g is not None for g in gradients])
        wanted = program(op, node.in_types, node.metas, node.attrs, needed, given)
        outputs: list[Any] = [None] * len(node.metas)
        for i, saved in enumerate(node.saved_outputs):
            y = _unpacked(node, saved)
            if y is not None and y.dtype.kind == "f":
                y = share(y, Tensor)
                y._requires_grad, y._grad_fn, y._index = True, node, i
            outputs[i] = y
        return wanted.run([*gradients, *outputs, *[_unpacked(node, s) for s in node.saved]])

    # ---- .grad

    def retain(self, x: Tensor, g: Tensor | None) -> None:
        if g is not None:
            x.grad = g if self.create_graph else share(g, Tensor)

    def accumulate(self, pairs: Any) -> None:
        """Add each gradient to its tensor's `.grad`."""
        taken: set[int] = set(self.seeds)
        for x, g in list(pairs):
            for _, hook in list(x._hooks or ()):
                g = _hooked(hook, g)
            if x._grad_fn is not None and not x._retained and self.goals is None:
                raise RuntimeError(at_user_line(f"backward reached {_shown(x)}, which was computed outside the code being traced"))
            old = x.grad
            if old is not None:
                if self.create_graph:
                    x.grad = add.run(old, g)
                else:
                    with no_grad():
                        old.add_(g)  # type: ignore[attr-defined]
                continue
            x.grad = g if self.create_graph else _own(g, taken)
            taken.add(id(x._grad._storage))  # type: ignore[union-attr]


add = Op.table["add"]


def _own(g: Tensor, taken: set[int]) -> Tensor:
    """The gradient as a tensor that shares memory with nobody: copied where it might."""
    if modes.tracer is not None:
        return modes.tracer.fresh(g)  # type: ignore[no-any-return]
    alone = sys.getrefcount(g._storage) == 2 and id(g._storage) not in taken
    if alone and not g._chain and g._array.flags.carray:
        return place(g._array, g.dtype, g._storage, (), None)
    with no_grad():
        return Op.table["clone"].run(g)  # type: ignore[no-any-return]


def _fitted(g: Tensor, shape: Shape, dtype: DType, name: str) -> Tensor:
    """A gradient in the shape and dtype of what it is the gradient of: broadcast dims are summed."""
    if g._array.shape != shape:
        if g._array.ndim < len(shape):
            raise RuntimeError(at_user_line(f"{name} got the gradient {_shown(g)} for a tensor of shape {shape_text(shape)}"))
        g = summed_to(g, shape)
    return g if g.dtype is dtype else cast(g, dtype)


def _hooked(hook: Any, g: Tensor | None) -> Tensor | None:
    if g is None:
        return None
    replaced = hook(g)
    return g if replaced is None else replaced


def _leading_to(goals: Sequence[Any], starts: Sequence[Any]) -> dict[Node, bool]:
    """Nodes reachable from the starts that are goals or lead to one -> whether they lead further to one."""
    ends = {(id(goal[0]), goal[1]) for goal in goals if goal is not None}
    owners = {key for key, _ in ends}
    reached: set[Node] = set()
    stack = [s[0] for s in starts if s is not None and type(s[0]) is Node]
    while stack:
        node = stack.pop()
        if node not in reached:
            reached.add(node)
            stack.extend(e[0] for e in node.edges if e is not None and type(e[0]) is Node)
    needed: dict[Node, bool] = {}
    for node in sorted(reached, key=lambda n: n.sequence):
        leads = any(e is not None and (e[0] in needed if type(e[0]) is Node else id(e[0]) in owners) for e in node.edges)
        if leads or id(node) in owners:
            needed[node] = leads
    return needed


# ---- saved tensors ---------------------------------------------------------------------------------------------------


def _unpacked(node: Node, saved: tuple[Any, int] | None) -> Any:
    """A saved tensor.  Raises RuntimeError if it was written to since."""
    if saved is None:
        return None
    x, version = saved
    now = x._storage.version
    if now != version:
        raise RuntimeError(at_user_line(
            f"one of the tensors needed for gradient computation has been modified by an inplace operation: {_shown(x)}, needed by "
            f"{node.name}, is at version {now}; expected version {version} instead"
        ))  # fmt: skip
    return x


__all__ = ["backward", "enable_grad", "grad", "inference_mode", "is_grad_enabled", "no_grad", "set_grad_enabled"]
