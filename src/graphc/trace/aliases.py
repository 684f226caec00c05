"""Results that share memory with an argument, an outside tensor or another result, as eager code gives them.

Enters: the results of traced code; later, the tensors of one call.  Leaves: `Alias`es; the results with views in their places.
Never here: graphs (which compute such a result too, for files that hold no tensors to share with).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.eager.modes import no_grad
from graphc.eager.tensor import Tensor
from graphc.eager.views import Chain

Source = int | Tensor  # the position of a result, or a tensor from outside


class Alias:
    """A result that is a view of something.

    position: which result.   argument: whether `source` is an argument's position.   chain: the view's operators, none for all of it.
    requires_grad: whether gradients flow through the view.
    """

    __slots__ = ("argument", "chain", "position", "requires_grad", "source")

    def __init__(self, position: int, source: Source, argument: bool, chain: Chain, requires_grad: bool) -> None:
        self.position, self.source, self.argument = position, source, argument
        self.chain, self.requires_grad = chain, requires_grad

    def of(self, x: Tensor) -> Tensor:
        """The view of x."""
        if self.requires_grad or not x.requires_grad:
            return self.follow(x)
        with no_grad():
            return self.follow(x.detach())

    def follow(self, x: Tensor) -> Tensor:
        for op, attrs in self.chain:
            x = op.run(x, **attrs)
        return x


def find_aliases(results: Sequence[Tensor], arguments: Mapping[int, int], captured: Mapping[int, Tensor]) -> list[Alias]:
    """What each result that has its memory from elsewhere is a view of.

    arguments: position of an argument by the id of its storage.   captured: an outside tensor by the id of its storage.
    """
    first: dict[int, int] = {}
    for i, x in enumerate(results):
        if not x._chain:
            first.setdefault(id(x._storage), i)
    found = []
    for i, x in enumerate(results):
        key = id(x._storage)
        flag = x.requires_grad
        if key in arguments:
            found.append(Alias(i, arguments[key], True, x._chain, flag))
        elif key in captured:
            owner = captured[key]
            count = len(owner._chain)
            if x._chain[:count] == owner._chain:
                found.append(Alias(i, owner, False, x._chain[count:], flag))
        elif first.get(key, i) != i:
            found.append(Alias(i, first[key], False, x._chain, flag))
    return found


def with_aliases(aliases: Sequence[Alias], results: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """This call's results, each alias a view of this call's tensors."""
    shared = list(results)
    for alias in aliases:
        source = alias.source
        of = source if isinstance(source, Tensor) else (leaves if alias.argument else shared)[source]
        shared[alias.position] = alias.of(of)
    return shared
