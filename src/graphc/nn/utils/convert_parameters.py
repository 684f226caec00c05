"""Parameters as one vector and back.

Enters: parameters.  Leaves: a vector; parameters on its memory.  Never here: order (it is that of the parameters).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op


def parameters_to_vector(parameters: Iterable[Tensor]) -> Any:
    """All elements of all parameters.  [...] each -> [total]."""
    return Op.table["cat"]([parameter.reshape(-1) for parameter in parameters])  # type: ignore[attr-defined]


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Put consecutive parts of a vector into the place of the parameters' elements.

    Raises TypeError for what is no tensor, RuntimeError for a vector that is too short.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(at_user_line(f"expected graphc.Tensor, but got: {type(vec)}"))
    start = 0
    for parameter in parameters:
        count = parameter.numel()
        parameter.data = vec[start : start + count].view_as(parameter).data  # type: ignore[index]
        start += count


__all__ = ["parameters_to_vector", "vector_to_parameters"]
