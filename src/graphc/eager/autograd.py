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
from graphc.eager.anomaly import refuse_nan, watching
from graphc.eager.gradients import program
from graphc.eager.modes import enable_grad, inference_mode, is_grad_enabled, modes, no_grad, set_grad_enabled
from graphc.eager.tape import AFTER, BEFORE, Adding, CallStep, Node, Packed, Step, edge
from graphc.eager.tensor import Tensor, place, share
from graphc.errors import at_user_line
from graphc.ir.op import Op, Shape, casting, shape_text
from graphc.ops.arguments import cast, constant
from graphc.ops.movement import summed_to


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Any = None,
    inputs: Any = None,
) -> None:
    """Add the gradients of the tensors to `.grad` of the leaves (or only of `inputs`).   grad_variables: `grad_tensors` of old.

    Raises RuntimeError for a non-scalar without gradient, a tensor off the tape, a graph already freed, and a saved tensor that was
    overwritten.
    """
    if modes.tracer is not None and modes.tracer.batches:
        text = "backward() called inside a functorch transform. This is not supported, please use graphc.func.grad or vjp instead."
        raise RuntimeError(at_user_line(text))
    roots = _listed(tensors)
    seeds = _seeds(roots, grad_variables if grad_tensors is None else grad_tensors, create_graph)
    keep = create_graph if retain_graph is None else retain_graph
    targets = None if inputs is None else _listed(inputs)
    if targets is not None and not targets:
        raise RuntimeError(at_user_line("`inputs` argument to `backward()` cannot be empty."))
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
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of the sum of `outputs` (weighted by `grad_outputs`) with respect to each of `inputs`; `.grad` is not touched.

    is_grads_batched: the first dim of each of `grad_outputs` and of each result counts a batch of them.
    materialize_grads: zeros, not None, for an input that the outputs do not depend on.

    Raises RuntimeError as `backward`, and for an input that the outputs do not depend on unless `allow_unused`; ValueError for
    `allow_unused` False with `materialize_grads`.
    """
    if materialize_grads and allow_unused is False:
        text = "Expected allow_unused to be True or not passed when materialize_grads=True, but got: allow_unused=False."
        raise ValueError(at_user_line(text))
    roots, targets = _listed(outputs), _listed(inputs)
    if is_grads_batched:
        from graphc.eager.levels import batched_gradients

        return batched_gradients(roots, targets, _listed(grad_outputs), retain_graph, create_graph, allow_unused, materialize_grads)
    seeds = _seeds(roots, grad_outputs, create_graph)
    keep = create_graph if retain_graph is None else retain_graph
    for x in targets:
        if not x.requires_grad:
            raise RuntimeError(at_user_line("One of the differentiated Tensors does not require grad"))
    found = _Backward(roots, seeds, keep, create_graph, targets).captured
    result: list[Tensor | None] = []
    for i, (x, g) in enumerate(zip(targets, found, strict=True)):
        if g is None and materialize_grads:
            g = constant(0, x.dtype, tuple(x._array.shape))
        if g is None and not (allow_unused or materialize_grads):
            message = f"The differentiated Tensor at index {i} ({_shown(x)}) appears to not have been used in the graph."
            raise RuntimeError(at_user_line(message + " Set allow_unused=True if this is the desired behavior."))
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
    for i, (x, g) in enumerate(zip(roots, gradients, strict=True)):
        if not x.requires_grad:
            raise RuntimeError(at_user_line(f"element {i} of tensors does not require grad and does not have a grad_fn"))
        if g is None:
            if x._array.size != 1:
                raise RuntimeError(at_user_line(f"grad can be implicitly created only for scalar outputs, not for {_shown(x)}"))
            if x.dtype.kind == "c":
                message = f"grad can be implicitly created only for real scalar outputs but got {x.dtype}"
                raise RuntimeError(at_user_line(message))
            g = constant(1, x.dtype, tuple(x._array.shape))
        elif tuple(g._array.shape) != tuple(x._array.shape):
            raise RuntimeError(at_user_line(f"Mismatch in shape: gradient {_shown(g)} for output {_shown(x)}"))
        elif g.dtype.kind not in "fc":
            raise RuntimeError(at_user_line(f"gradient {_shown(g)} of output {_shown(x)} must be floating"))
        if modes.tracer is not None and modes.tracer.batches:
            g = modes.tracer.lift(g)  # examples may write different values over what becomes of it
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
        self.leaves: dict[int, tuple[Tensor, Any]] = {}
        self.seeds = {id(s._storage) for s in seeds}
        self.goals = None if targets is None else [edge(x) for x in targets]
        self.found: dict[tuple[int, int], Tensor] = {}
        starts = [edge(x) for x in roots]
        self.needed = None if self.goals is None else _leading_to(self.goals, starts)
        before, caster = modes.grad, casting.current()
        modes.grad = create_graph
        casting.begin(None)  # gradients have the dtypes of what they are gradients of, whatever autocast says
        try:
            for start, seed in zip(starts, seeds, strict=True):
                assert start is not None
                self.arrive(start, seed)
            while self.heap:
                self.step(heapq.heappop(self.heap)[1])
            wanted = None if self.goals is None else {id(goal[0]) for goal in self.goals if goal is not None}
            for key, (x, g) in self.leaves.items():
                if x._hooks and (wanted is None or key in wanted):
                    self.leaves[key] = x, _through_hooks(x, g)
        finally:
            modes.grad = before
            casting.begin(caster)
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
        g = _fitted(g, tuple(shape), dtype, end.name())
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
            for index, hook in list(node.hooks.values()):
                gradients[index] = hooked(hook, gradients[index])
        if node.retained:
            for index, tensor in node.retained:
                self.retain(tensor(), gradients[index])
        if self.goals is not None:
            for goal in self.goals:
                if goal is not None and goal[0] is node and (g := gradients[goal[1]]) is not None:
                    self.found[id(node), goal[1]] = g
            assert self.needed is not None
            if not self.needed[node]:
                return
        begun = self.begun(node)
        results = self.rule(node, gradients, begun) if node.extras is None else self.watched_rule(node, gradients)
        if not self.keep:
            node.free()
        for i, (where, g) in enumerate(zip(node.edges, results, strict=True)):
            if where is not None and g is not None:
                if i in begun:
                    self.forget(where)
                self.arrive(where, g)

    def begun(self, node: Node) -> dict[int, Tensor]:
        """What has come to the ends of edges that a node's rule adds to."""
        op = node.op
        if type(op) is not Adding or node.extras is not None:
            return {}
        ends = [(id(e[0]), e[1]) for e in node.edges if e is not None]
        found = {}
        for i in op.adds:
            where = node.edges[i]
            if where is not None and ends.count((id(where[0]), where[1])) == 1 and (g := self.come_to(where)) is not None:
                found[i] = g
        return found

    def come_to(self, where: tuple[Any, int]) -> Tensor | None:
        """What has come to an edge's end so far."""
        end, index = where
        if type(end) is not Node:
            return self.leaves.get(id(end), (None, None))[1]
        return self.buffers[end][index] if end in self.buffers else None

    def forget(self, where: tuple[Any, int]) -> None:
        """What has come to an edge's end is part of what comes next."""
        end, index = where
        if type(end) is Node:
            self.buffers[end][index] = None
        else:
            self.leaves[id(end)] = end, None

    def watched_rule(self, node: Node, gradients: list[Tensor | None]) -> Sequence[Tensor | None]:
        """`rule` between the node's own hooks, and looked at for NaN in anomaly mode."""
        extras = node.extras
        assert extras is not None
        given = tuple(gradients)
        for hook in list(extras.before.values()):
            given = _replaced(hook(given), given)
        with watching(extras.trace, node.name()):
            results = tuple(self.rule(node, list(given)))
        if extras.line:
            refuse_nan(node.name(), results, extras.line, extras.trace)
        for hook in list(extras.after.values()):
            results = _replaced(hook(results, given), results)
        return results

    def rule(self, node: Node, gradients: list[Tensor | None], begun: dict[int, Tensor] | None = None) -> Sequence[Tensor | None]:
        """Run the node's gradient rule on what it saved.   begun: of `begun`."""
        op = node.op
        if type(op) is CallStep:
            return op.grad(node, gradients)  # type: ignore[no-any-return]
        if node.saved is None:
            raise RuntimeError(at_user_line(FREED))
        if isinstance(op, Step):
            g: Any = gradients[0] if len(gradients) == 1 else tuple(gradients)
            return op.grad(g, begun, *[unpacked(s) for s in node.saved])  # type: ignore[no-any-return]
        needed = tuple([e is not None for e in node.edges])
        given = tuple([g is not None for g in gradients])
        wanted = program(op, node.in_types, node.metas, node.attrs, needed, given)
        outputs: list[Any] = [None] * len(node.metas)
        for i, saved in enumerate(node.saved_outputs):
            y = unpacked(saved)
            if y is not None and y.dtype.kind in "fc":
                y = share(y, Tensor)
                y._requires_grad, y._grad_fn, y._index = True, node, i
            outputs[i] = y
        return wanted.run([*gradients, *outputs, *[unpacked(s) for s in node.saved]])

    # ---- .grad

    def retain(self, x: Tensor | None, g: Tensor | None) -> None:
        if g is not None and x is not None:
            g = g if self.create_graph else share(g, Tensor)
            x.grad = g if x.grad is None else add.run(x.grad, g)

    def accumulate(self, pairs: Any) -> None:
        """Add each gradient to its tensor's `.grad`."""
        taken: set[int] = set(self.seeds)
        for x, g in list(pairs):
            if x._grad_fn is not None and not x._retained and self.goals is None:
                raise RuntimeError(at_user_line(f"backward reached {_shown(x)}, which was computed outside the code being traced"))
            old = x.grad
            if old is None:
                x.grad = g if self.create_graph else _own(g, taken)
                taken.add(id(x._grad._storage))  # type: ignore[union-attr]
            elif self.create_graph:
                x.grad = add.run(old, g)
            else:
                with no_grad():
                    old.add_(g)  # type: ignore[attr-defined]
            for when, hook in list((x._hooks or {}).values()):
                if when == AFTER:
                    hook(x)


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
    """A gradient in the shape and dtype of what it is the gradient of: broadcast dims are summed, of real numbers it is real."""
    if g._array.ndim != len(shape) or g._array.shape != shape:  # ranks first: sizes of other dims may be symbolic
        if g._array.ndim < len(shape):
            raise RuntimeError(at_user_line(f"{name} got the gradient {_shown(g)} for a tensor of shape {shape_text(shape)}"))
        g = summed_to(g, shape)
    return g if g.dtype is dtype else cast(g, dtype)


def hooked(hook: Any, g: Tensor | None) -> Tensor | None:
    """What a hook on gradient `g` makes of it.  Raises TypeError or RuntimeError for what cannot stand in its place."""
    if g is None:
        return None
    replaced = hook(g)
    if replaced is None:
        return g
    name = getattr(hook, "__name__", type(hook).__name__)
    if not isinstance(replaced, Tensor):
        raise TypeError(at_user_line(f"expected Variable, but hook '{name}' returned '{type(replaced).__name__}'"))
    if replaced._array.shape != g._array.shape or replaced.dtype is not g.dtype:
        raise RuntimeError(at_user_line(f"hook '{name}' has changed the type or size of value: {_shown(g)} to {_shown(replaced)}"))
    return replaced


def _through_hooks(x: Tensor, g: Tensor) -> Tensor:
    """The gradient of leaf x after its hooks."""
    for when, hook in list((x._hooks or {}).values()):
        if when == BEFORE:
            g = hooked(hook, g)  # type: ignore[assignment]
    return g


def _replaced(found: Any, before: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a hook on a node gives in place of gradients."""
    if found is None:
        return before
    found = found if isinstance(found, tuple) else (found,)
    if len(found) != len(before):
        raise RuntimeError(at_user_line(f"hook has returned an incorrect number of values: {len(found)}, expected {len(before)}"))
    return found


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


FREED = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already been freed); "
    "specify retain_graph=True the first time"
)


def unpacked(saved: Any) -> Any:
    """A saved tensor.  Raises RuntimeError if it was written to since."""
    if saved is None:
        return None
    if type(saved) is Packed:
        return _from_hook(saved)
    x, version = saved
    now = x._storage.version
    if now != version:
        raise RuntimeError(at_user_line(
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"{_shown(x)} is at version {now}; expected version {version} instead. "
            "Hint: enable anomaly detection to find the operation that failed to compute its gradient, with "
            "graphc.autograd.set_detect_anomaly(True)"
        ))  # fmt: skip
    return x


def _from_hook(saved: Packed) -> Tensor:
    """A tensor that `saved_tensors_hooks` packed, its history as it was."""
    x = saved.unpack(saved.value)
    if not isinstance(x, Tensor):
        raise TypeError(at_user_line(f"Output of saved tensor unpack_hook expected to be a Tensor, got {type(x).__name__}"))
    x = share(x, Tensor)
    if saved.source is not None:
        node = Node(Step("alias", lambda g, out, *_: (g,)), {}, (saved.source,), ((tuple(x._array.shape), x.dtype),))
        x._requires_grad, x._grad_fn = True, node
    return x


__all__ = ["backward", "enable_grad", "grad", "inference_mode", "is_grad_enabled", "no_grad", "set_grad_enabled"]
