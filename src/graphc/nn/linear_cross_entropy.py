"""linear_cross_entropy: a projection to classes and its cross entropy in one call.

Enters: tensors.  Leaves: a tensor.  Never here: modules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from graphc.dtypes import DType, int64, uint8
from graphc.eager.failures import ERRORS, located
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op

_NAME = "linear_cross_entropy"
_POLICIES = ("accurate", "balanced", "compact", "auto")


@dataclass
class LinearCrossEntropyOptions:
    """How PyTorch would take the batch in pieces.  Taken and checked; results are those of the whole batch.

    Raises ValueError for values that PyTorch does not know.
    """

    allow_retain_graph: bool = False
    batch_chunk_size: int | None = None
    chunking_method: str | None = "auto"
    acc_policy: str = "auto"
    acc_dtype: DType | None = None

    def __post_init__(self) -> None:
        if self.acc_policy not in _POLICIES:
            raise ValueError(at_user_line(f"invalid acc_policy: {self.acc_policy!r}, expected one of {_POLICIES}"))
        if self.chunking_method is not None and not re.fullmatch(r"auto|aspect_ratio:\d+(\.\d+)?", self.chunking_method):
            raise ValueError(at_user_line(f"invalid chunking_method: {self.chunking_method!r}"))
        if self.batch_chunk_size is not None and self.batch_chunk_size <= 0:
            raise ValueError(at_user_line(f"batch_chunk_size must be positive int or None, got {self.batch_chunk_size}"))


def _check(input: Any, linear_weight: Any, target: Any, linear_bias: Any, ignore_index: int | None) -> None:
    """Raises ValueError for batches of two sizes, RuntimeError for other shapes and dtypes that do not fit."""
    x, w = tuple(input.shape), tuple(linear_weight.shape)
    if len(w) < 2:
        raise RuntimeError(f"{_NAME}: expected linear_weight with dimensionality at least 2, got {len(w)}")
    if len(x) not in (1, 2):
        raise RuntimeError(f"{_NAME}: expected input with dimensionality 1 or 2, got {len(x)}")
    if x[-1] != w[-1]:
        raise RuntimeError(f"{_NAME}: expected equal last dimensions (in_features) of input and linear_weight, got {x} and {w}")
    if len(w) > 2 and len(x) == 1:
        raise RuntimeError(f"{_NAME}: K-dimensional loss defined by linear_weight shape {w} requires batched input, got {x}")
    if linear_bias is not None and tuple(linear_bias.shape) != w[:-1]:
        raise RuntimeError(f"{_NAME}: expected linear_bias shape {w[:-1]}, got {tuple(linear_bias.shape)}")
    if len(x) == 2 and target.ndim and target.shape[0] != x[0]:
        raise ValueError(f"{_NAME}: Expected input batch_size ({x[0]}) to match target batch_size ({target.shape[0]}).")
    probabilities = tuple(target.shape) == (*x[:-1], *w[:-1])
    if not (probabilities and target.is_floating_point()) and target.dtype not in (int64, uint8):
        raise RuntimeError(f"{_NAME}: expected target dtype to be Long or Byte, but got {target.dtype}")
    if ignore_index is not None and target.is_floating_point():
        raise RuntimeError(f"{_NAME}: ignore_index cannot be specified when target contains probabilities")


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: LinearCrossEntropyOptions | None = None,
) -> Tensor:
    """``cross_entropy(linear(input, linear_weight, linear_bias), target)``.  [N, D], [C, ..., D], integers [N, ...] -> [].

    Raises RuntimeError for shapes and dtypes that do not fit.  Differs from torch: `options` change nothing.
    """
    try:
        _check(input, linear_weight, target, linear_bias, ignore_index)
        rows = Op.table["reshape"](linear_weight, (-1, linear_weight.shape[-1]))
        bias = None if linear_bias is None else Op.table["flatten"](linear_bias)
        logits = Op.table["reshape"](Op.table["linear"](input, rows, bias), (*input.shape[:-1], *linear_weight.shape[:-1]))
        how = {"weight": weight, "reduction": reduction, "label_smoothing": label_smoothing}
        ignored = -100 if ignore_index is None else ignore_index
        return Op.table["cross_entropy"](logits, target, ignore_index=ignored, **how)  # type: ignore[no-any-return]
    except ERRORS as error:
        raise located(error) from None
