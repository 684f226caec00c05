"""What the results of compiled code are to the tape, as eager code has it.

Enters: the results of traced code; later, those of one call and the node that stands for it.  Leaves: results with their histories.
Never here: gradients (`capture.joint`), memory (`capture.aliases`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from graphc.eager.tape import Node, Step
from graphc.eager.tensor import Tensor
from graphc.eager.views import Chain, follow, written
from graphc.ir.graph import Value
from graphc.ir.op import Op


class Root(NamedTuple):
    """A tensor that results are views of, which is no result itself.   views: the position of each, and how it is reached."""

    position: int
    views: tuple[tuple[int, Chain], ...]


class Histories(NamedTuple):
    """By position among the results.   flowing: gradients flow through them into the call.   spent: backward has been through them.
    leaves: the code made them to be differentiated by.   roots: what some of `flowing` are views of."""

    flowing: tuple[int, ...] = ()
    spent: tuple[int, ...] = ()
    leaves: tuple[int, ...] = ()
    roots: tuple[Root, ...] = ()

    def give(self, results: Sequence[Tensor], node: Node | None) -> None:
        """Put the results of a call on the tape.   node: what stands for the call, where gradients flow through it."""
        for i in self.leaves:
            results[i]._requires_grad = True
        if self.spent:
            over = Node(Step("compiled", _never), {}, (), tuple([(x._array.shape, x.dtype) for x in results]))
            over.saved = None
            for i in self.spent:
                _put(results[i], over, i)
        for i in self.flowing:
            _put(results[i], node, i)
        for at in self.roots:
            root = results[at.position]
            edges = tuple((node, position) for position, _ in at.views)
            _put(root, Node(Step("views", _to_views(at.views)), {}, edges, ((root._array.shape, root.dtype),)), 0)


def _put(x: Tensor, node: Node | None, index: int) -> None:
    x._requires_grad, x._grad_fn, x._index = True, node, index


def _never(*_: Any) -> None:
    raise AssertionError("a node that was freed has no gradients")


def _to_views(views: Sequence[tuple[int, Chain]]) -> Any:
    """The gradient rule of a root: each element's goes to the first view that has it."""

    def rule(g: Tensor, *_: Any) -> tuple[Tensor, ...]:
        parts = []
        for _position, chain in views:
            part = follow(g, chain)
            parts.append(part)
            g = written(g, chain, Op.table["full"].run(value=0, shape=tuple(part.shape), dtype=part.dtype))
        return tuple(parts)

    return rule


class Saved(NamedTuple):
    """What the tape keeps for backward as it is, so that nobody may write to it meanwhile.

    arguments, results: positions.   outside: tensors.   others: inputs of the graph that anybody may write to.
    """

    arguments: tuple[int, ...] = ()
    results: tuple[int, ...] = ()
    outside: tuple[Tensor, ...] = ()
    others: tuple[Value, ...] = ()

    def tensors(self, leaves: Sequence[Tensor], results: Sequence[Tensor]) -> tuple[tuple[Tensor, int], ...]:
        """Those of a call, each with its version."""
        kept = [*(leaves[i] for i in self.arguments), *self.outside, *(results[i].detach() for i in self.results)]
        return tuple([(x, x._storage.version) for x in kept])


def saved_of(tracer: Any, results: Sequence[Tensor], made: Collection[int], saved: Sequence[Tensor]) -> Saved:
    """`saved` as seen from outside.   made: the results that have memory of their own."""
    storages = {id(x._storage) for x in saved}
    arguments = {i: tracer.arguments[i] for key, i in tracer.argument_storages.items() if key in storages}
    outside = {
        value: capture.tensor for value, capture in tracer.states if not capture.of_grad and id(capture._storage) in storages
    }
    steady = {*arguments.values(), *outside, *tracer.constants}
    inputs = (*tracer.arguments, *(v for v, _ in tracer.states), *(v for v, _, _ in tracer.scalars))
    return Saved(
        tuple(arguments),
        tuple(i for i in made if id(results[i]._storage) in storages),
        tuple(outside.values()),
        tuple(v for v in inputs if v not in steady),
    )


def histories_of(results: Sequence[Tensor], shown: int, flowing: Sequence[int], spent: Sequence[int], known: Any) -> Histories:
    """Of traced results, of which the first `shown` are not there for others.   known: positions that are found elsewhere."""
    leaves = tuple(i for i in range(shown) if i not in known and results[i].requires_grad and results[i].is_leaf)
    roots = []
    for position in range(shown, len(results)):
        root = results[position]
        views = tuple((i, results[i]._chain[len(root._chain) :]) for i in flowing if results[i]._base is root)
        if root.requires_grad and views:
            roots.append(Root(position, views))
    return Histories(tuple(flowing), tuple(spent), leaves, tuple(roots))
