"""`weight_norm`: a weight as a length and a direction.  T. Salimans, D. P. Kingma, "Weight normalization", 2016.

Enters: modules.  Leaves: the same with parameters ``<name>_g`` and ``<name>_v``.  Never here: the newer form (`parametrizations`).
"""

from __future__ import annotations

import warnings
from typing import Any

from graphc.errors import at_user_line
from graphc.nn.parameter import Parameter, is_lazy
from graphc.nn.utils.derived import DerivedWeight, found, norm_except_dim


class WeightNorm(DerivedWeight):
    """Makes ``<name>`` of ``<name>_g`` (lengths) and ``<name>_v`` (directions) before every call."""

    what = "weight_norm"

    def __init__(self, name: str, dim: int | None) -> None:
        super().__init__(name)
        self.dim = -1 if dim is None else dim

    def compute_weight(self, module: Any) -> Any:
        """``v * (g / |v|)``."""
        g, v = getattr(module, self.name + "_g"), getattr(module, self.name + "_v")
        return v * (g / norm_except_dim(v, 2, self.dim))


def weight_norm(module: Any, name: str = "weight", dim: int | None = 0) -> Any:
    """Deprecated (`parametrizations.weight_norm`): give a module's parameter as a length for each index of `dim` and a direction.

    dim: None for one length.  Raises RuntimeError where that is done already, ValueError for a parameter without a shape.
    """
    text = "`nn.utils.weight_norm` is deprecated in favor of `nn.utils.parametrizations.weight_norm`."
    warnings.warn(text, FutureWarning, stacklevel=2)
    weight = getattr(module, name)
    if is_lazy(weight):
        text = "The module passed to `WeightNorm` can't have uninitialized parameters. Make sure to run the dummy forward first"
        raise ValueError(at_user_line(text))
    hook = WeightNorm(name, dim)
    hook.hook_in(module)
    del module._parameters[name]
    data = weight.detach()
    module.register_parameter(name + "_g", Parameter(norm_except_dim(data, 2, hook.dim)))
    module.register_parameter(name + "_v", Parameter(data))
    module.__dict__[name] = hook.compute_weight(module)
    return module


def remove_weight_norm(module: Any, name: str = "weight") -> Any:
    """Make the parameter an ordinary one again.  Raises ValueError where there is no `weight_norm`."""
    hook = found(WeightNorm, module, name)
    weight = hook.compute_weight(module).detach()
    hook.take_out(module)
    del module._parameters[name + "_g"], module._parameters[name + "_v"]
    setattr(module, name, Parameter(weight))
    return module


__all__ = ["WeightNorm", "remove_weight_norm", "weight_norm"]
