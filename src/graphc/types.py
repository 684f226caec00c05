"""Names for annotations, as ``torch.types`` has them.  Never here: anything that runs."""

from __future__ import annotations

import builtins
import os
from collections.abc import Sequence
from typing import Any

import graphc.namespace  # noqa: F401  tensors get their methods there
from graphc.dtypes import DType
from graphc.eager.devices import device
from graphc.eager.tensor import Tensor

Number = builtins.int | builtins.float | builtins.bool
Device = device | str | builtins.int | None
FileLike = str | os.PathLike[str] | Any
_TensorOrTensors = Tensor | Sequence[Tensor]
_dtype, _device = DType, device
_int, _float, _bool, _complex = builtins.int, builtins.float, builtins.bool, builtins.complex
_size = Sequence[builtins.int]

__all__ = ["Device", "FileLike", "Number"]
