"""Results that share memory with an argument, an outside tensor or another result, as eager code gives them.

Enters: the results of traced code; later, the tensors of one call.  Leaves: `Alias`es; all results, views in their places.
Never here: graphs, gradients.

A result that is a view of memory which no result is all of has that memory as a further result, a *root*.  So its strides, its
offset, and what a write to it changes are those of eager code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from graphc.dtypes import from_numpy
from graphc.eager.modes import no_grad
from graphc.eager.tensor import Tensor, place
from graphc.eager.views import Chain, follow


class Source(NamedTuple):
    """A tensor of a call.   kind: "argument" or "result", of which `which` is the position, or "outside", which it is."""

    kind: str
    which: Any

    def of(self, leaves: Sequence[Tensor], results: Sequence[Any]) -> Tensor:
        """The tensor."""
        if self.kind == "outside":
            return self.which  # type: ignore[no-any-return]
        return (leaves if self.kind == "argument" else results)[self.which]  # type: ignore[no-any-return]


class Alias(NamedTuple):
    """A result that is no memory of its own.

    position: which result.   source: whose memory it is.   chain: the view's operators, none for all of it.
    base: the tensor that it is a view of, for the tape; None where it is none.   same: whether it is `source` itself.
    """

    position: int
    source: Source
    chain: Chain = ()
    base: Source | None = None
    same: bool = False

    def with_attributes(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Alias:
        """The same with other attributes of its operators."""
        return self._replace(chain=tuple((op, change(attrs)) for op, attrs in self.chain))


def add_roots(results: list[Tensor], arguments: Collection[int]) -> None:
    """Put the memory that results are views of, and the tensors that they are views of for the tape, behind the results.

    arguments: ids of the storages of arguments.
    """
    ids = {id(x) for x in results}
    whole = {id(x._storage) for x in results if not x._chain}
    for x in tuple(results):
        if x._storage.cell is None or id(x._storage) in arguments:
            continue
        base = x._base
        if base is not None and id(base) not in ids:
            ids.add(id(base))
            results.append(base)
            if not base._chain:
                whole.add(id(x._storage))
        if id(x._storage) not in whole:
            whole.add(id(x._storage))
            storage = x._storage
            results.append(place(storage.array, storage.array.element, storage, (), None))


def find_aliases(
    results: Sequence[Tensor],
    arguments: Mapping[int, int],
    stand_ins: Mapping[int, int],
    captured: Mapping[int, Tensor],
    views: Collection[int],
) -> list[Alias]:
    """What each result that has its memory from elsewhere is a view of.

    arguments: position of an argument by the id of its storage.   stand_ins: the same by the id of the tensor that stands for it.
    captured: an outside tensor by the id of its storage.   views: ids of tensors that the code made on memory from outside.
    """
    places: dict[int, int] = {}
    whole: dict[int, int] = {}
    for i, x in enumerate(results):
        places.setdefault(id(x), i)
        if not x._chain:
            whole.setdefault(id(x._storage), i)

    def base_of(x: Tensor) -> Source | None:
        base = x._base
        if base is None or id(base) in views:
            return None
        if id(base) in stand_ins:
            return Source("argument", stand_ins[id(base)])
        if base._storage.cell is None:
            return Source("outside", base)
        return Source("result", places[id(base)]) if id(base) in places else None

    found = []
    for i, x in enumerate(results):
        key = id(x._storage)
        if places[id(x)] != i:
            found.append(Alias(i, Source("result", places[id(x)]), same=True))
        elif id(x) in stand_ins:
            found.append(Alias(i, Source("argument", stand_ins[id(x)]), same=True))
        elif key in arguments:
            found.append(Alias(i, Source("argument", arguments[key]), x._chain, base_of(x)))
        elif x._storage.cell is None and id(x) not in views:
            found.append(Alias(i, Source("outside", x), same=True))
        elif x._storage.cell is None:
            found.append(Alias(i, Source("outside", captured[key]), x._chain, base_of(x)))
        elif whole[key] != i:
            found.append(Alias(i, Source("result", whole[key]), x._chain, base_of(x)))
    return found


def with_aliases(aliases: Sequence[Alias], made: Iterable[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """All results of a call.   made: those that are no aliases, in order.   leaves: its arguments."""
    results: list[Any] = list(made)
    for alias in aliases:
        results.insert(alias.position, None)
    for alias in aliases:  # whose memory it is, is no view
        if not alias.same:
            results[alias.position] = _view(alias, alias.source.of(leaves, results))
    for alias in aliases:
        if alias.same:
            results[alias.position] = alias.source.of(leaves, results)
        elif alias.base is not None:
            x, base = results[alias.position], alias.base.of(leaves, results)
            x._base = base if base._base is None else base._base
            x._epoch = x._base._epoch
    return results


def _view(alias: Alias, x: Tensor) -> Tensor:
    """The view of x, or, of an outside tensor, of its storage; off the tape."""
    storage = x._storage
    x = place(storage.array, from_numpy(storage.array.dtype), storage, (), None) if alias.source.kind == "outside" else x.detach()
    with no_grad():
        view = follow(x, alias.chain)
    view._base = None
    return view  # type: ignore[no-any-return]
