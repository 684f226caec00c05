"""The tape: what backward needs to know of every recorded operator.

Enters: operator calls.  Leaves: `Node`s reached from tensors by edges.  Never here: running backward (`autograd`).

An edge says where an input's gradient goes: (node, which of its outputs) or, for a leaf, (the tensor, 0).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from graphc.dtypes import DType
from graphc.eager.gradients import program
from graphc.eager.hooks import RemovableHandle, hooked
from graphc.eager.modes import modes
from graphc.eager.node_names import node_name
from graphc.eager.views import Chain, follow, written
from graphc.ir.op import Op, Shape

Edge = tuple[Any, int]
BEFORE, AFTER = 0, 1  # hooks of a leaf: on its gradient, and on the leaf when its `.grad` was added to
_sequence = itertools.count(1)


def next_sequence() -> int:
    """A number greater than that of every node so far."""
    return next(_sequence)


class Step:
    """What a node needs of an operator, for the nodes that no public operator makes."""

    __slots__ = ("grad", "name")

    def __init__(self, name: str, grad: Callable[..., Any]) -> None:
        self.name, self.grad = name, grad


class CallStep(Step):
    """A `Step` whose rule is called with the node and its gradients, and reads by itself what was saved."""

    __slots__ = ()


class Adding(Step):
    """A `Step` whose rule gets, in the place of the node's outputs, what has come so far to the ends of the edges `adds` (None
    elsewhere), and gives the sums of that and its gradients."""

    __slots__ = ("adds",)

    def __init__(self, name: str, grad: Callable[..., Any], adds: tuple[int, ...]) -> None:
        super().__init__(name, grad)
        self.adds = adds


class Node:
    """One recorded operator call.

    edges: where each input's gradient goes, or None.   in_types, metas: (shape, dtype) of each input and each output.
    saved: each input with its version, or None where no wanted gradient reads it.   saved_outputs: the same, detached.
    sequence: greater than that of every node this one depends on, so descending order is a topological order.
    hooks: number -> (which output, hook on its gradient).   retained: (which output, weak reference to who keeps `.grad`).
    extras: what few nodes have (hooks on the node, metadata, the forward line), made when first asked for.
    """

    __slots__ = (
        "__weakref__",
        "attrs",
        "edges",
        "extras",
        "hooks",
        "in_types",
        "metas",
        "op",
        "retained",
        "saved",
        "saved_outputs",
        "sequence",
    )

    def __init__(
        self, op: Op | Step, attrs: dict[str, Any], edges: tuple[Edge | None, ...], metas: tuple[tuple[Shape, DType], ...]
    ) -> None:
        self.op, self.attrs, self.edges, self.metas = op, attrs, edges, metas
        self.sequence = next(_sequence)
        self.in_types: tuple[tuple[Shape, DType], ...] = ()
        self.saved: tuple[Any, ...] | None = ()
        self.saved_outputs: tuple[Any, ...] = ()
        self.hooks: dict[int, tuple[int, Callable[[Any], Any]]] | None = None
        self.retained: list[tuple[int, Any]] | None = None
        self.extras: Extras | None = None

    def name(self) -> str:
        """As PyTorch names nodes: ``AddBackward0``."""
        return node_name(self.op.name, self.in_types, self.attrs)

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """Where each input's gradient goes: (a node or an `AccumulateGrad`, which of its outputs), or (None, 0) for nowhere."""
        ends = [(None, 0) if e is None else (e[0] if type(e[0]) is Node else AccumulateGrad(e[0]), e[1]) for e in self.edges]
        return tuple(ends)

    @property
    def metadata(self) -> dict[Any, Any]:
        """A dict for the user's notes."""
        return self.more().metadata

    def register_prehook(self, fn: Callable[[tuple[Any, ...]], Any]) -> RemovableHandle:
        """Call ``fn(grad_outputs)`` before this node's rule runs; a tuple that it gives replaces them."""
        return hooked(self.more().before, fn)

    def register_hook(self, fn: Callable[[tuple[Any, ...], tuple[Any, ...]], Any]) -> RemovableHandle:
        """Call ``fn(grad_inputs, grad_outputs)`` after this node's rule ran; a tuple that it gives replaces the former."""
        return hooked(self.more().after, fn)

    def more(self) -> Extras:
        """`extras`, made now if there were none."""
        if self.extras is None:
            self.extras = Extras()
        return self.extras

    @property
    def freed(self) -> bool:
        return self.saved is None

    def free(self) -> None:
        """Let go of what was saved for backward, if anything was."""
        if any(s is not None for s in (*(self.saved or ()), *self.saved_outputs)):
            self.saved, self.saved_outputs = None, ()

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"


class Extras:
    """What few nodes have.  before, after: hooks by number.   line, trace: where the forward operator was called (anomaly mode)."""

    __slots__ = ("after", "before", "line", "metadata", "trace")

    def __init__(self) -> None:
        self.before: dict[int, Callable[..., Any]] = {}
        self.after: dict[int, Callable[..., Any]] = {}
        self.metadata: dict[Any, Any] = {}
        self.line = self.trace = ""


class AccumulateGrad:
    """Stands for a leaf at the end of an edge.  Two of the same leaf are equal."""

    __slots__ = ("variable",)
    next_functions = ()

    def __init__(self, variable: Any) -> None:
        self.variable = variable

    def name(self) -> str:
        return "AccumulateGrad"

    def register_hook(self, fn: Callable[[tuple[Any, ...], tuple[Any, ...]], Any]) -> RemovableHandle:
        """Call ``fn((), (gradient,))`` after the leaf's `.grad` was added to."""
        return self.variable.register_post_accumulate_grad_hook(lambda x: fn((), (x.grad,)))  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccumulateGrad) and self.variable is other.variable

    def __hash__(self) -> int:
        return hash(("AccumulateGrad", id(self.variable)))

    def __repr__(self) -> str:
        return f"<AccumulateGrad object at {id(self.variable):#x}>"


class Packed(NamedTuple):
    """A saved tensor as `saved_tensors_hooks` packed it.   source: where its gradient goes."""

    value: Any
    unpack: Callable[[Any], Any]
    source: Edge | None


# ---- edges -----------------------------------------------------------------------------------------------------------


def edge(x: Any) -> Edge | None:
    """Where the gradient of tensor `x` goes, or None if it does not require one."""
    base = x._base
    if base is not None and base._epoch != x._epoch:
        refresh(x)
    if not x._requires_grad:
        return None
    node = x._grad_fn
    tracer = modes.tracer
    if tracer is not None and (node is None or node.sequence < tracer.sequence):
        tracer.note_source(x)
        return x, 0
    return (x, 0) if node is None else (node, x._index)


def record(op: Op | Step, inputs: tuple[Any, ...], attrs: dict[str, Any], outputs: tuple[Any, ...]) -> None:
    """Put one operator call on the tape: its floating and complex outputs then require grad."""
    edges = tuple(map(edge, inputs))
    out_types = tuple([(y._array.shape, y.dtype) for y in outputs])
    node = Node(op, attrs, edges, out_types)
    if not isinstance(op, Step):
        in_types = tuple([(x._array.shape, x.dtype) for x in inputs])
        node.in_types = in_types
        needed = tuple([e is not None for e in edges])
        uses = program(op, in_types, out_types, attrs, needed, (True,) * len(outputs))
        node.saved = tuple([(x, x._storage.version) if used else None for x, used in zip(inputs, uses.uses_inputs, strict=True)])
        node.saved_outputs = tuple(
            [(y.detach(), y._storage.version) if used else None for y, used in zip(outputs, uses.uses_outputs, strict=True)]
        )
    for watch in modes.watchers:
        watch(node)
    for i, y in enumerate(outputs):
        if y.dtype.kind in "fc":
            y._requires_grad, y._grad_fn, y._index = True, node, i


# ---- history after writes --------------------------------------------------------------------------------------------


def rebase(x: Any, y: Any, fresh: bool) -> None:
    """After `x` was overwritten with `y`: gradients of x now go where y's go; those of x's base and its other views follow.

    `fresh`: y is nobody else's, so that its node may become x's own.
    """
    if modes.tracer is not None:
        modes.tracer.touch(x if x._base is None else x._base)
    base = x._base
    source = edge(y)
    if fresh and source is not None and type(source[0]) is Node:
        node, index = source
    else:
        node, index = Node(Step("copy", lambda g, out, *_: (g,)), {}, (source,), _meta(x)), 0
    if base is None:
        x._requires_grad, x._grad_fn, x._index = True, node, index
        x._epoch += 1
        return
    chain = x._chain[len(base._chain) :]
    before, shape = edge(base), tuple(x._array.shape)

    def split(g: Any, out: Any, *_: Any) -> tuple[Any, Any]:
        hole = Op.table["full"].run(value=0, shape=shape, dtype=g.dtype)
        return (None if before is None else written(g, chain, hole)), follow(g, chain)

    base._grad_fn = Node(Step("copy_slices", split), {}, (before, (node, index)), _meta(base))
    base._requires_grad, base._index = True, 0
    base._epoch += 1
    refresh(x)


def refresh(x: Any) -> None:
    """The history of a view whose base was written to since: a view of what the base is now."""
    base = x._base
    x._epoch = base._epoch
    source = edge(base)
    if source is None:
        x._requires_grad, x._grad_fn = False, None
        return
    chain: Chain = x._chain[len(base._chain) :]
    shape = tuple(base._array.shape)

    def scattered(g: Any, out: Any, *_: Any) -> tuple[Any]:
        return (scatter(g, shape, chain),)

    name = chain[-1][0].name if chain else "view"
    x._grad_fn = Node(Step(name, scattered), {}, (source,), _meta(x))
    x._requires_grad, x._index = True, 0


def scatter(g: Any, shape: Shape, chain: Chain) -> Any:
    """The gradient of a base of `shape` from that of its view along `chain`: each link's own gradient rule, last first."""
    if not chain:
        return g
    wholes = [Op.table["full"].run(value=0, shape=shape, dtype=g.dtype)]
    for op, attrs in chain[:-1]:
        wholes.append(op.run(wholes[-1], **attrs))
    for (op, attrs), whole in zip(reversed(chain), reversed(wholes), strict=True):
        assert op.grad is not None
        g = op.grad(g, None, whole, **attrs)[0]
    return g


def _meta(x: Any) -> tuple[tuple[Shape, DType], ...]:
    return ((x._array.shape, x.dtype),)
