"""`functional_call` under its older path.

Enters: a module, tensors by name.  Leaves: what it computes with them.  Never here: mechanism (`graphc.func`).
"""

from __future__ import annotations

import warnings
from typing import Any

from graphc.nn.module import Module


def functional_call(
    module: Module,
    parameters_and_buffers: dict[str, Any],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Deprecated: `graphc.func.functional_call`."""
    from graphc.func import functional_call as call

    text = "`nn.utils.stateless.functional_call` is deprecated in favor of `func.functional_call`."
    warnings.warn(text, FutureWarning, stacklevel=2)
    return call(module, parameters_and_buffers, args, kwargs, tie_weights=tie_weights, strict=strict)


__all__ = ["functional_call"]
