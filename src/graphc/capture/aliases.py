"""Results that share memory with an argument, an outside tensor or another result, as eager code gives them.

Enters: the results of traced code; later, the tensors of one call.  Leaves: `Alias`es; the results with views in their places.
Never here: graphs (which compute such a result too, for files that hold no tensors to share with).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.eager.tensor import Tensor
from graphc.eager.views import Chain

Source = int | Tensor  # the position of a result, or a tensor from outside


class Alias:
    """A result that is a view of something.

    position: which result.   argument: whether `source` is an argument's position.
    chain: the view's operators, none for all of it.
    """

    __slots__ = ("argument", "chain", "position", "source")

    def __init__(self, position: int, source: Source, argument: bool, chain: Chain) -> None:
        self.position, self.source, self.argument, self.chain = position, source, argument, chain

    def of(self, x: Tensor) -> Tensor:
        """The view of x, off the tape."""
        if x.requires_grad:
            x = x.detach()
        for op, attrs in self.chain:
            x = op.run(x, **attrs)
        return x


def find_aliases(results: Sequence[Tensor], arguments: Mapping[int, int], captured: Mapping[int, Tensor]) -> list[Alias]:
    """What each result that has its memory from elsewhere is a view of.

    A result that requires grad is not among them: its gradient would be added in another order than in the code that was traced.

    arguments: position of an argument by the id of its storage.   captured: an outside tensor by the id of its storage.
    """
    first: dict[int, int] = {}
    for i, x in enumerate(results):
        if not x._chain:
            first.setdefault(id(x._storage), i)
    found = []
    for i, x in enumerate(results):
        key = id(x._storage)
        if x.requires_grad:
            continue
        if key in arguments:
            found.append(Alias(i, arguments[key], True, x._chain))
        elif key in captured:
            owner = captured[key]
            count = len(owner._chain)
            if x._chain[:count] == owner._chain:
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
