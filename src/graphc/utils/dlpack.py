"""Capsules of tensors' memory, under the names of ``torch.utils.dlpack``.

Enters: tensors, capsules, objects with ``__dlpack__``.  Leaves: capsules, tensors.  Never here: how (`eager.interop`).
"""

from __future__ import annotations

from graphc import namespace  # noqa: F401  tensors get their methods there
from graphc.eager.interop import from_dlpack, to_dlpack

__all__ = ["from_dlpack", "to_dlpack"]
