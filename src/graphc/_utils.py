"""What public programs import of PyTorch's internals: several tensors as one flat one, and back.

Enters: tensors.  Leaves: tensors.  Never here: anything else of PyTorch's file of that name.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.eager.tensor import Tensor
from graphc.namespace import cat, reshape, split


def _flatten_dense_tensors(tensors: Sequence[Tensor]) -> Tensor:
    """The elements of all tensors, one after another.  Raises as `graphc.cat`."""
    flat: Tensor = cat([reshape(x, (-1,)) for x in tensors])
    return flat


def _unflatten_dense_tensors(flat: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Views of the flat tensor with the shapes of `tensors`.  Raises RuntimeError where it is too short."""
    parts = split(flat, [x.numel() for x in tensors] + [flat.numel() - sum(x.numel() for x in tensors)])
    return tuple(reshape(part, x.shape) for part, x in zip(parts, tensors, strict=False))


__all__: list[str] = []
