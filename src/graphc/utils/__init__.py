"""PyTorch's namespace of that name, for programs that import from it.  Never here: anything but names of other rooms."""

from __future__ import annotations

import graphc.namespace  # noqa: F401  tensors get their methods there
from graphc.utils import _pytree, checkpoint, data, dlpack, hooks

__all__ = ["_pytree", "checkpoint", "data", "dlpack", "hooks"]
