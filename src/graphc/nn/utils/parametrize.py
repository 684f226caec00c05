"""Parametrizations: parameters that are functions of other parameters, by modules put in front of them.

Enters: a module, the name of one of its tensors, a module that computes it.  Leaves: the same module, of a class with a property of
that name.  Never here: particular parametrizations (`parametrizations`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.eager.modes import modes, no_grad
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.nn.containers import ModuleDict, ModuleList
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter

_cached = [0]  # how many `cached` blocks are open
_cache: dict[Any, Tensor] = {}


@contextmanager
def cached() -> Iterator[None]:
    """While inside, a parametrized tensor is computed once and kept.  What it is computed from must not change meanwhile."""
    _cached[0] += 1
    try:
        yield
    finally:
        _cached[0] -= 1
        if not _cached[0]:
            _cache.clear()


def _register(module: Module, name: str, tensor: Tensor) -> None:
    if isinstance(tensor, Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)


def _require_alike(what: str, found: Any, wanted: Any, shape: bool = True) -> None:
    """Raise ValueError unless `found` is a tensor of the dtype and shape of `wanted`."""
    if not isinstance(found, Tensor):
        raise ValueError(at_user_line(f"{what} must return a tensor. Got {type(found).__name__}"))
    if found.dtype is not wanted.dtype:
        text = f"{what} may not change the dtype of the tensor: it is {wanted.dtype}, and became {found.dtype}"
        raise ValueError(at_user_line(f"{text}. Registering with `unsafe=True` leaves this check out."))
    if shape and found.shape != wanted.shape:
        text = f"{what} may not change the shape of the tensor: it is {wanted.shape}, and became {found.shape}"
        raise ValueError(at_user_line(f"{text}. Registering with `unsafe=True` leaves this check out."))


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, and what it is computed from: ``original``, or ``original0``, ``original1``, ...

    modules: the first is applied first.   unsafe: dtype and shape may change.   Raises ValueError for none, and for those whose
    `right_inverse` does not fit.
    """

    original: Tensor
    unsafe: bool

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if not modules:
            raise ValueError(at_user_line("ParametrizationList requires one or more modules."))
        super().__init__(modules)
        self.unsafe = unsafe
        new: Any = original
        with no_grad():
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    try:
                        new = module.right_inverse(new)
                    except NotImplementedError:
                        continue  # then the tensor is taken as the inner one
        if not isinstance(new, Tensor | Sequence):
            text = f"'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got {type(new).__name__}"
            raise ValueError(at_user_line(text))
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if isinstance(new, Tensor) else len(new)
        if isinstance(new, Tensor):
            self._hold(original, new)
        else:
            self._hold_several(original, new)
        if not unsafe:
            _require_alike("A parametrization", self(), original)

    def _hold(self, original: Tensor, new: Tensor) -> None:
        if original.dtype is not new.dtype:
            text = f"When `right_inverse` outputs one tensor, it may not change the dtype: {original.dtype} became {new.dtype}"
            raise ValueError(at_user_line(text))
        if new is not original:
            with no_grad():
                original.data = new.detach()
        _register(self, "original", original)

    def _hold_several(self, original: Tensor, parts: Sequence[Any]) -> None:
        for i, part in enumerate(parts):
            if not isinstance(part, Tensor):
                text = (
                    f"'right_inverse' must return a Tensor or a Sequence of tensors. Got element {i} of type {type(part).__name__}"
                )
                raise ValueError(at_user_line(text))
            kept: Tensor = Parameter(part.detach(), original.requires_grad) if isinstance(original, Parameter) else part.detach()
            _register(self, f"original{i}", kept.requires_grad_(original.requires_grad))

    def forward(self) -> Any:
        """The tensor."""
        originals = [self.original] if self.is_tensor else [getattr(self, f"original{i}") for i in range(self.ntensors)]
        first, *others = self
        x = first(*originals)
        for module in others:
            x = module(x)
        return x

    @no_grad()
    def right_inverse(self, value: Tensor) -> None:
        """Change the originals so that the tensor becomes `value`.  Raises RuntimeError where a parametrization cannot tell how,
        ValueError for what does not fit."""
        new: Any = value
        for module in reversed(list(self)):
            if not hasattr(module, "right_inverse"):
                raise RuntimeError(at_user_line(f"parametrization {type(module).__name__} does not implement right_inverse."))
            new = module.right_inverse(new)
        if self.is_tensor:
            _require_alike("`right_inverse`", new, self.original, shape=False)
            self.original.data = new.detach()
            return
        if not isinstance(new, Sequence) or len(new) != self.ntensors:
            count = len(new) if isinstance(new, Sequence) else type(new).__name__
            text = f"'right_inverse' must return a sequence of tensors of length {self.ntensors}. Got {count}."
            raise ValueError(at_user_line(text))
        for i, part in enumerate(new):
            original = getattr(self, f"original{i}")
            _require_alike("`right_inverse`", part, original, shape=False)
            original.data = part.detach()


# ---- classes with properties -------------------------------------------------------------------------------------------------


def _parametrized_class(cls: type[Any]) -> type[Any]:
    """A subclass for one module, to hold its properties."""

    def refuse(self: Any) -> Any:
        """Raises RuntimeError."""
        text = "Serialization of parametrized modules is only supported through state_dict()."
        raise RuntimeError(at_user_line(text))

    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        """A copy of a class of its own."""
        replica = memo[id(self)] = object.__new__(cls)
        replica.__dict__.update(copy.deepcopy(self.__dict__, memo))
        replica.__class__ = _parametrized_class(cls)
        for name in replica.parametrizations:
            _inject_property(replica, name)
        return replica

    members: dict[str, Any] = {"__getstate__": refuse, "__module__": cls.__module__}
    if not hasattr(cls, "__deepcopy__"):
        members["__deepcopy__"] = deepcopy
    return type(f"Parametrized{cls.__name__}", (cls,), members)


def _inject_property(module: Module, name: str) -> None:
    """A property that computes the tensor, and sets it through `right_inverse`."""

    def get(self: Any) -> Any:
        parametrization = self.parametrizations[name]
        if not _cached[0]:
            return parametrization()
        key = (id(self), name, id(modes.tracer))
        found = _cache.get(key)
        if found is None:
            found = _cache[key] = parametrization()
        return found

    def put(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    setattr(type(module), name, property(get, put))


# ---- registering -------------------------------------------------------------------------------------------------------------


def register_parametrization(module: Any, tensor_name: str, parametrization: Module, *, unsafe: bool = False) -> Any:
    """From now on a module's parameter or buffer is ``parametrization(original)``.

    unsafe: it may change dtype and shape.   Raises ValueError for a name that is no parameter or buffer, and for a parametrization
    that does not fit it.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        chain = module.parametrizations[tensor_name]
        if not unsafe:
            _check_further(parametrization, getattr(module, tensor_name))
        chain.append(parametrization)
        chain.unsafe = chain.unsafe or unsafe
    elif tensor_name in module._buffers or tensor_name in module._parameters:
        chain = ParametrizationList([parametrization], getattr(module, tensor_name), unsafe)
        delattr(module, tensor_name)
        if not is_parametrized(module):
            module.__class__ = _parametrized_class(type(module))
            module.parametrizations = ModuleDict()
        _inject_property(module, tensor_name)
        module.parametrizations[tensor_name] = chain
    else:
        text = f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name '{tensor_name}'"
        raise ValueError(at_user_line(text))
    return module


def _check_further(parametrization: Any, present: Tensor) -> None:
    """Raise ValueError where one more parametrization does not fit."""
    made = parametrization(present)
    _require_alike("A parametrization", made, present)
    if hasattr(parametrization, "right_inverse"):
        try:
            back = parametrization.right_inverse(made)
        except NotImplementedError:
            return
        _require_alike("parametrization.right_inverse", back, present)


def is_parametrized(module: Any, tensor_name: str | None = None) -> bool:
    """Whether a module, or one tensor of it, is parametrized."""
    parametrizations = getattr(module, "parametrizations", None)
    if not isinstance(parametrizations, ModuleDict):
        return False
    return len(parametrizations) > 0 if tensor_name is None else tensor_name in parametrizations


def remove_parametrizations(module: Any, tensor_name: str, leave_parametrized: bool = True) -> Any:
    """Make a tensor an ordinary one again: with the value it has, or (leave_parametrized=False) the original one.

    Raises ValueError where there is no parametrization, or several originals and not `leave_parametrized`.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(at_user_line(f"Module {module} does not have a parametrization on {tensor_name}"))
    chain = module.parametrizations[tensor_name]
    original: Any
    if chain.is_tensor:
        original = chain.original
        if leave_parametrized:
            with no_grad():
                original.data = getattr(module, tensor_name).detach()
    elif leave_parametrized:
        value = getattr(module, tensor_name)
        original = Parameter(value.detach()) if value.requires_grad else value
    else:
        what = "a tensor that is parametrized in terms of a sequence of tensors."
        text = f"Cannot leave unparametrized (`leave_parametrized=False`) {what}"
        raise ValueError(at_user_line(text))
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    _register(module, tensor_name, original)
    if not is_parametrized(module):
        delattr(module, "parametrizations")
        module.__class__ = type(module).__bases__[0]
    return module


def type_before_parametrizations(module: Any) -> type[Any]:
    """The class that a module had before it was parametrized."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(from_module: Any, to_module: Any, tensor_name: str | None = None) -> Any:
    """Parametrize `to_module` as `from_module` is, with the same parametrizations and copies of the originals.

    tensor_name: only this tensor.   Raises AssertionError where `from_module` is not parametrized so.
    """
    if not is_parametrized(from_module, tensor_name):
        raise AssertionError(at_user_line(f"{type(from_module).__name__} is not parametrized"))
    for name in from_module.parametrizations if tensor_name is None else [tensor_name]:
        chain = from_module.parametrizations[name]
        if not hasattr(to_module, name):
            setattr(to_module, name, Parameter(getattr(from_module, name).detach()))
        for parametrization in chain:
            register_parametrization(to_module, name, parametrization, unsafe=chain.unsafe)
        target = to_module.parametrizations[name]
        names = ["original"] if chain.is_tensor else [f"original{i}" for i in range(chain.ntensors)]
        with no_grad():
            for held in names:
                getattr(target, held).copy_(getattr(chain, held))
    return to_module


__all__ = [
    "ParametrizationList", "cached", "is_parametrized", "register_parametrization", "remove_parametrizations",
    "transfer_parametrizations_and_params", "type_before_parametrizations",
]  # fmt: skip
