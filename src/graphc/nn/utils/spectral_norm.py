"""`spectral_norm`: a weight divided by its greatest singular value.  T. Miyato et al., "Spectral normalization", 2018.

Enters: modules.  Leaves: the same with a parameter ``<name>_orig`` and buffers ``<name>_u``, ``<name>_v``.
Never here: the newer form (`parametrizations`).
"""

from __future__ import annotations

from typing import Any

from graphc.eager.modes import no_grad
from graphc.errors import at_user_line
from graphc.nn import functional as F
from graphc.nn.convolution import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from graphc.nn.parameter import Parameter, is_lazy
from graphc.nn.utils.derived import DerivedWeight, found


def as_matrix(weight: Any, dim: int) -> Any:
    """Rows for the indices of `dim`.  [..., n, ...] -> [n, the rest]."""
    return (weight if dim == 0 else weight.movedim(dim, 0)).flatten(1)


def rows_of(module: Any, name: str, dim: int | None) -> int:
    """The dim of outputs: 1 for transposed convolutions, else 0."""
    if dim is not None:
        return dim
    return 1 if isinstance(module, ConvTranspose1d | ConvTranspose2d | ConvTranspose3d) else 0


class SpectralNorm(DerivedWeight):
    """Makes ``<name>`` of ``<name>_orig`` before every call; while training, power iterations move ``<name>_u``, ``<name>_v``."""

    what = "spectral_norm"
    _version = 1

    def __init__(self, name: str = "weight", n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__(name)
        if n_power_iterations <= 0:
            text = f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}"
            raise ValueError(at_user_line(text))
        self.n_power_iterations, self.dim, self.eps = n_power_iterations, dim, eps

    def compute_weight(self, module: Any, do_power_iteration: bool | None = None) -> Any:
        """``weight / (u @ matrix @ v)``.  do_power_iteration: whether u and v move first (as the module is training)."""
        weight = getattr(module, self.name + "_orig")
        u, v = getattr(module, self.name + "_u"), getattr(module, self.name + "_v")
        matrix = as_matrix(weight, self.dim)
        if module.training if do_power_iteration is None else do_power_iteration:
            with no_grad():
                for _ in range(self.n_power_iterations):
                    v.copy_(F.normalize(matrix.t().mv(u), dim=0, eps=self.eps))
                    u.copy_(F.normalize(matrix.mv(v), dim=0, eps=self.eps))
                u, v = u.clone(), v.clone()  # the next call writes to them
        return weight / u.dot(matrix.mv(v))

    def note_version(self, module: Any, state_dict: Any, prefix: str, local_metadata: dict[str, Any]) -> None:
        """PyTorch's mark in the metadata of a state dict."""
        known = local_metadata.setdefault("spectral_norm", {})
        key = self.name + ".version"
        if key in known:
            raise RuntimeError(at_user_line(f"Unexpected key in metadata['spectral_norm']: {key}"))
        known[key] = self._version


def spectral_norm(
    module: Any, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Any:
    """Divide a module's parameter by its greatest singular value, which power iterations estimate.

    dim: that of the outputs.   Raises RuntimeError where that is done already, ValueError for a parameter that is None or lacks a
    shape, and for no iterations.
    """
    hook = SpectralNorm(name, n_power_iterations, rows_of(module, name, dim), eps)
    weight = module._parameters[name] if name in module._parameters else getattr(module, name)
    if weight is None:
        raise ValueError(at_user_line(f"`SpectralNorm` cannot be applied as parameter `{name}` is None"))
    if is_lazy(weight):
        text = "The module passed to `SpectralNorm` can't have uninitialized parameters. Make sure to run the dummy forward first"
        raise ValueError(at_user_line(text))
    hook.hook_in(module)
    with no_grad():
        matrix = as_matrix(weight.detach(), hook.dim)
        u = F.normalize(weight.new_empty(matrix.shape[0]).normal_(0, 1), dim=0, eps=eps)
        v = F.normalize(weight.new_empty(matrix.shape[1]).normal_(0, 1), dim=0, eps=eps)
    del module._parameters[name]
    module.register_parameter(name + "_orig", weight)
    module.__dict__[name] = weight.data
    module.register_buffer(name + "_u", u)
    module.register_buffer(name + "_v", v)
    module._register_state_dict_hook(hook.note_version)
    return module


def remove_spectral_norm(module: Any, name: str = "weight") -> Any:
    """Make the parameter an ordinary one again.  Raises ValueError where there is no `spectral_norm`."""
    hook = found(SpectralNorm, module, name)
    with no_grad():
        weight = hook.compute_weight(module, do_power_iteration=False).detach()
    hook.take_out(module)
    for part in ("_u", "_v", "_orig"):
        delattr(module, name + part)
    module.register_parameter(name, Parameter(weight))
    for key, other in list(module._state_dict_hooks.items()):
        if getattr(other, "__self__", None) is hook:
            del module._state_dict_hooks[key]
    return module


__all__ = ["SpectralNorm", "as_matrix", "remove_spectral_norm", "rows_of", "spectral_norm"]
