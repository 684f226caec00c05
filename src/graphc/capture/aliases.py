"""Results that share memory with an argument, an outside tensor or another result, as eager code gives them.

Enters: the results of traced code; later, the tensors of one call.  Leaves: `Alias`es; the results with views in their places.
Never here: graphs (which compute such a result too, for files that hold no tensors to share with).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from graphc.eager.tensor import Tensor, place
from graphc.eager.views import Chain

Source = int | Tensor  # the position of a result, or a tensor from outside


class Alias:
    """A result that is a view of something.

    position: which result.   argument: whether `source` is an argument's position.
    chain: the view's operators, none for all of it.   same: whether it is that very tensor, and no other on the same memory.
    """

    __slots__ = ("argument", "chain", "position", "same", "source")

    def __init__(self, position: int, source: Source, argument: bool, chain: Chain, same: bool = False) -> None:
        self.position, self.source, self.argument, self.chain, self.same = position, source, argument, chain, same

    def of(self, x: Tensor) -> Tensor:
        """The view of x, off the tape; or x."""
        if self.same:
            return x
        if x.requires_grad or not self.chain:
            x = x.detach()
        for op, attrs in self.chain:
            x = op.run(x, **attrs)
        return x


def add_roots(results: list[Tensor], arguments: Collection[int]) -> None:
    """Where several results are views of one tensor that is no result: that tensor as a further one.

    arguments: ids of the storages of arguments.
    """
    groups: dict[int, dict[int, Tensor]] = {}
    for x in results:
        if not x.requires_grad and x._storage.cell is not None and id(x._storage) not in arguments:
            groups.setdefault(id(x._storage), {})[id(x)] = x
    for group in groups.values():
        if len(group) > 1 and all(x._chain for x in group.values()):
            storage = next(iter(group.values()))._storage
            results.append(place(storage.array, storage.array.element, storage, (), None))


def find_aliases(
    results: Sequence[Tensor], arguments: Mapping[int, int], stand_ins: Collection[int], captured: Mapping[int, Tensor]
) -> list[Alias]:
    """What each result that has its memory from elsewhere is a view of.

    A result that requires grad is not among them: its gradient would be added in another order than in the code that was traced.

    arguments: position of an argument by the id of its storage.   stand_ins: ids of the tensors that stand for arguments.
    captured: an outside tensor by the id of its storage.
    """
    first: dict[int, int] = {}
    seen: dict[int, int] = {}
    for i, x in enumerate(results):
        seen.setdefault(id(x), i)
        if not x._chain:
            first.setdefault(id(x._storage), i)
    found = []
    for i, x in enumerate(results):
        key = id(x._storage)
        if x.requires_grad:
            continue
        if seen[id(x)] != i:
            found.append(Alias(i, seen[id(x)], False, (), True))
            continue
        if key in arguments:
            found.append(Alias(i, arguments[key], True, x._chain, id(x) in stand_ins))
        elif key in captured:
            owner = captured[key]
            count = len(owner._chain)
            if x._storage.cell is None:
                found.append(Alias(i, x, False, (), True))
            elif x._chain[:count] == owner._chain:
                found.append(Alias(i, owner, False, x._chain[count:]))
        elif first.get(key, i) != i:
            found.append(Alias(i, first[key], False, x._chain))
    return found


def with_aliases(aliases: Sequence[Alias], results: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """This call's results, each alias a view of this call's tensors."""
    shared = list(results)
    for alias in aliases:
        source = alias.source
        of = source if isinstance(source, Tensor) else (leaves if alias.argument else shared)[source]
        shared[alias.position] = alias.of(of)
    return shared
