"""Weights that are made anew from other parameters before every call of a module: what `weight_norm` and `spectral_norm` hook in.

Enters: a module, the name of one of its parameters.  Leaves: the module with that name as an ordinary attribute.
Never here: the formulas.
"""

from __future__ import annotations

from typing import Any

from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line


class DerivedWeight:
    """A hook before `forward` that sets ``module.<name>`` to `compute_weight(module)`.

    The attribute is written past the count of module changes: code compiled for other modules stays good.  What a trace writes
    there is taken away at the end of the call.
    """

    what = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def compute_weight(self, module: Any) -> Any:
        """The weight now."""
        raise NotImplementedError

    def hook_in(self, module: Any) -> None:
        """From now on, make the weight before every call.  Raises RuntimeError where a hook of this kind makes it already."""
        for hook in module._forward_pre_hooks.values():
            if type(hook) is type(self) and hook.name == self.name:
                text = f"Cannot register two {self.what} hooks on the same parameter {self.name}"
                raise RuntimeError(at_user_line(text))
        module.register_forward_pre_hook(self)
        module.register_forward_hook(_TakeAway(self), always_call=True)

    def take_out(self, module: Any) -> None:
        """Forget the hooks and the attribute."""
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key, hook in list(hooks.items()):
                if hook is self or (type(hook) is _TakeAway and hook.owner is self):
                    del hooks[key]
        module.__dict__.pop(self.name, None)

    def __call__(self, module: Any, inputs: Any) -> None:
        if modes.tracer is not None and modes.tracer.collects:
            self.before = module.__dict__.get(self.name)
        module.__dict__[self.name] = self.compute_weight(module)


class _TakeAway:
    """After `forward`: put back what the attribute was before a trace."""

    def __init__(self, owner: DerivedWeight) -> None:
        self.owner = owner

    def __call__(self, module: Any, inputs: Any, output: Any) -> None:
        owner = self.owner
        if "before" in owner.__dict__:
            module.__dict__[owner.name] = owner.__dict__.pop("before")


def found(kind: type[DerivedWeight], module: Any, name: str) -> Any:
    """The hook of a kind that makes the weight `name`.  Raises ValueError."""
    for hook in module._forward_pre_hooks.values():
        if type(hook) is kind and hook.name == name:
            return hook
    raise ValueError(at_user_line(f"{kind.what} of '{name}' not found in {module}"))


def norm_except_dim(v: Tensor, pow: float = 2, dim: int = 0) -> Any:
    """The norm over all dims but one, which stays; over all dims for -1.  [...] -> [1, ..., n, ..., 1] or []."""
    from graphc.ops.distances import vector_norm

    if dim == -1:
        return vector_norm(v, pow)
    return vector_norm(v, pow, [i for i in range(v.ndim) if i != dim % v.ndim], True)


__all__ = ["DerivedWeight", "found", "norm_except_dim"]
