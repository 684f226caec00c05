"""What of a call's arguments is in its key, as `calls.describe` reads them.

Enters: arguments.  Leaves: the tensors among them; the objects that a key names by their address.  Never here: the keys' words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.dtypes import DType
from graphc.eager.gradients import Program
from graphc.eager.tensor import Tensor


def tensors_in(arguments: Sequence[Any]) -> list[Tensor]:
    """The tensors among arguments, in the order in which `calls.describe` finds them."""
    found: list[Tensor] = []
    for x in arguments:
        if isinstance(x, Tensor):
            found.append(x)
        elif isinstance(x, tuple | list):
            found += tensors_in(x)
        elif isinstance(x, slice):
            found += tensors_in((x.start, x.stop, x.step))
    return found


def identities(arguments: Sequence[Any]) -> list[Any]:
    """The arguments whose identity is in a key: they are kept, so that nothing else gets their address."""
    kept: list[Any] = []
    for x in arguments:
        if isinstance(x, tuple | list):
            kept += identities(x)
        elif isinstance(x, slice):
            kept += identities((x.start, x.stop, x.step))
        elif isinstance(x, str | DType | Program):
            kept.append(x)
    return kept
