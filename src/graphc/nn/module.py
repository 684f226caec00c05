"""`Module`: parameters, buffers and submodules under names, as PyTorch's.

Enters: attributes assigned by subclasses.  Leaves: their names, their state, calls of `forward`.
Never here: what a layer computes.

Whatever changes what `forward` would do (an attribute, a registration, train or eval) counts up the epoch that compiled code
compares on every call.  Assigning the very object that is there already changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from graphc.dtypes import DType, bfloat16, float16, float32, float64
from graphc.eager import dispatch
from graphc.eager.conversions import placed
from graphc.eager.creation import as_tensor
from graphc.eager.devices import check_device
from graphc.eager.hooks import RemovableHandle
from graphc.eager.memory import formatted
from graphc.eager.modes import modes, no_grad
from graphc.eager.tensor import Tensor
from graphc.errors import TraceError, at_user_line
from graphc.nn import hooks
from graphc.nn.hooks import Hooks
from graphc.nn.parameter import Parameter

_ABSENT: Any = object()


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` gives: names the module has and the dict lacks, and the other way round."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        missing, unexpected = self
        if not missing and not unexpected:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={missing}, unexpected_keys={unexpected})"


class Module:
    """What every layer and model is: subclass it, assign parameters and submodules in ``__init__``, write ``forward``."""

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]
    _forward_hooks: Hooks
    _forward_pre_hooks: Hooks
    _backward_hooks: Hooks
    _backward_pre_hooks: Hooks

    def __init__(self) -> None:
        own = self.__dict__
        own["training"] = True
        own["_parameters"], own["_buffers"], own["_modules"] = {}, {}, {}
        own["_non_persistent_buffers_set"] = set()
        own["_forward_hooks"], own["_forward_pre_hooks"] = OrderedDict(), OrderedDict()
        own["_backward_hooks"], own["_backward_pre_hooks"] = OrderedDict(), OrderedDict()

    # ---- calling

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes.  Raises NotImplementedError where a subclass does not say."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`forward`, with the hooks around it."""
        if self._forward_hooks or self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks:
            return hooks.call(self, args, kwargs)
        return self.forward(*args, **kwargs)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after `forward`; what it gives, if anything, replaces the output.

        prepend: before the hooks that there are.   with_kwargs: ``hook(module, args, kwargs, output)``.   always_call: also where
        `forward` or another hook raised.
        """
        return hooks.registered(self._forward_hooks, hooks.Hook(hook, with_kwargs, always_call), prepend)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before `forward`; what it gives, if anything, replaces the arguments.

        prepend: before the hooks that there are.   with_kwargs: ``hook(module, args, kwargs)``, giving None or (args, kwargs).
        """
        return hooks.registered(self._forward_pre_hooks, hooks.Hook(hook, with_kwargs), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` when gradients of the arguments are known; a tuple that it gives replaces
        them."""
        return hooks.registered(self._backward_hooks, hooks.Hook(hook), prepend)

    register_backward_hook = register_full_backward_hook

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` before gradients go through the module; a tuple that it gives replaces them."""
        return hooks.registered(self._backward_pre_hooks, hooks.Hook(hook), prepend)

    # ---- attributes

    def __getattr__(self, name: str) -> Any:
        for place in ("_parameters", "_buffers", "_modules"):
            held = self.__dict__.get(place)
            if held is not None and name in held:
                return held[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if "_parameters" not in own:
            if isinstance(value, Parameter | Module):
                kind = "parameters" if isinstance(value, Parameter) else "module"
                raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
            object.__setattr__(self, name, value)
        elif isinstance(value, Parameter):
            self._forget(name, "_parameters")
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._forget(name, "_modules")
            self.add_module(name, value)
        elif name in own["_parameters"]:
            _require(value is None, value, f"as parameter '{name}' (graphc.nn.Parameter or None expected)")
            self.register_parameter(name, None)
        elif name in own["_modules"]:
            _require(value is None, value, f"as child module '{name}' (graphc.nn.Module or None expected)")
            self.add_module(name, None)
        elif name in own["_buffers"]:
            _require(value is None or isinstance(value, Tensor), value, f"as buffer '{name}' (graphc.Tensor or None expected)")
            _put(own["_buffers"], name, value)
        else:
            if own.get(name, _ABSENT) is not value:
                _check_outlives_trace(name, value)
                traced = modes.tracer is not None and modes.tracer.collects
                if traced and name in own and name != "training":  # a new one may be of a module made here
                    message = f"attribute '{name}' of a module was changed while tracing; keep what changes in a tensor"
                    raise TraceError(at_user_line(message))
                dispatch.epoch[0] += 1
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        dispatch.epoch[0] += 1
        for place in (self._parameters, self._buffers, self._modules):
            if name in place:
                del place[name]  # type: ignore[attr-defined]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._parameters, *self._buffers, *self._modules})

    def _forget(self, name: str, kept: str) -> None:
        """Whatever else is called `name` gives way to an entry of `kept`."""
        self.__dict__.pop(name, None)
        for place in {"_parameters", "_buffers", "_modules"} - {kept}:
            self.__dict__[place].pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter.  Raises KeyError for a bad or taken name, TypeError for what is not a `Parameter` or None."""
        self._check_name("parameter", name, self._parameters)
        fits = param is None or isinstance(param, Parameter)
        _require(fits, param, f"to parameter '{name}' (graphc.nn.Parameter or None required)")
        if param is not None and not param.is_leaf:
            raise ValueError(at_user_line(f"Cannot assign non-leaf Tensor to parameter '{name}'"))
        _put(self._parameters, name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but not a parameter; only a persistent one is in `state_dict`.

        Raises KeyError for a bad or taken name, TypeError for what is not a tensor or None.
        """
        self._check_name("buffer", name, self._buffers)
        _require(tensor is None or isinstance(tensor, Tensor), tensor, f"to buffer '{name}' (graphc.Tensor or None required)")
        _put(self._buffers, name, tensor)
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule.  Raises KeyError for a bad or taken name, TypeError for what is not a `Module` or None."""
        self._check_name("module", name, self._modules)
        _require(module is None or isinstance(module, Module), module, f"to module '{name}' (graphc.nn.Module or None required)")
        _put(self._modules, name, module)

    register_module = add_module

    def _check_name(self, kind: str, name: str, place: Mapping[str, Any]) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(at_user_line(f"{kind} name should be a string. Got {type(name).__name__}"))
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got: {name}')
        if name not in place and hasattr(self, name):
            raise KeyError(f"attribute '{name}' already exists")

    # ---- names

    def _named(self, place: str, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else ((prefix, self),)
        for path, module in modules:
            for name, value in module.__dict__[place].items():
                if value is None or id(value) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(value))
                yield f"{path}.{name}" if path else name, value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Direct submodules with their names, each once."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below it with their dotted names, each once (or once a name)."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def get_submodule(self, target: str) -> Module:
        """The submodule at a dotted path.  Raises AttributeError."""
        module: Module = self
        for name in target.split(".") if target else ():
            found = module._modules.get(name)
            if found is None:
                raise AttributeError(f"{type(module).__name__} has no submodule `{name}`")
            module = found
        return module

    # ---- state

    def state_dict(self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False) -> dict[str, Any]:
        """Parameters and persistent buffers by name, on the same memory, off the tape unless `keep_vars`."""
        destination = OrderedDict() if destination is None else destination
        for name, tensor in self._own_state(prefix):
            destination[name] = tensor if keep_vars else tensor.detach()
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        return destination

    def _own_state(self, prefix: str) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in (*self._parameters.items(), *self._buffers.items()):
            if tensor is not None and name not in self._non_persistent_buffers_set:
                yield prefix + name, tensor

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy tensors (or anything NumPy reads as an array) into the parameters and buffers of the same names.

        Raises RuntimeError for missing or unexpected names (where `strict`) and for shapes that differ, TypeError for what is not a
        mapping.  Differs from torch: where it raises, nothing has been copied.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(at_user_line(f"Expected state_dict to be dict-like, got {type(state_dict)}."))
        own = self.state_dict(keep_vars=True)
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        errors = []
        if strict and missing:
            errors.append(f"Missing key(s) in state_dict: {_quoted(missing)}. ")
        if strict and unexpected:
            errors.append(f"Unexpected key(s) in state_dict: {_quoted(unexpected)}. ")
        given = {name: _as_tensor(state_dict[name]) for name in own if name in state_dict}
        errors += [
            f"size mismatch for {name}: copying a param with shape {tensor.shape} from checkpoint, "
            f"the shape in current model is {own[name].shape}."
            for name, tensor in given.items()
            if tensor.shape != own[name].shape
        ]
        if errors:
            raise RuntimeError("\n\t".join([f"Error(s) in loading state_dict for {type(self).__name__}:", *errors]))
        with no_grad():
            for name, tensor in given.items():
                own[name].copy_(tensor)
        return IncompatibleKeys(missing, unexpected)

    # ---- changing everything below

    def train(self, mode: bool = True) -> Self:
        """Set training mode here and below.  Raises ValueError for what is not a bool."""
        if not isinstance(mode, bool):
            raise ValueError(at_user_line("training mode is expected to be boolean"))
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        return self.train(False)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every parameter's gradient, or make it zeros."""
        for parameter in self.parameters():
            clear_grad(parameter, set_to_none)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set `requires_grad` of every parameter."""
        dispatch.epoch[0] += 1
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on every module, the lowest first."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Convert floating parameters, their gradients and floating buffers to a dtype, and those of the right rank to a memory
        format, in place: the forms of ``Tensor.to``.  The device can only be the CPU.

        Raises TypeError for a dtype that is not floating, AssertionError or RuntimeError for another device.
        """
        given = placed("to", args, kwargs)
        check_device(given.get("device"))
        format = given.get("memory_format")
        if format is not None:
            for tensor in (*self.parameters(), *self.buffers()):
                if tensor.ndim in (4, 5):
                    tensor.data = formatted(tensor.detach(), format)
        dtype = given.get("dtype")
        return self if dtype is None else self._convert(dtype)

    def cpu(self) -> Self:
        """This module: all memory is the CPU's."""
        return self

    def cuda(self, device: Any = None) -> Self:
        """Raises AssertionError: there is no CUDA runtime."""
        check_device("cuda")
        return self

    def _convert(self, dtype: DType) -> Self:
        if not dtype.is_floating_point:
            raise TypeError(at_user_line(f"nn.Module.to only accepts floating point dtypes, but got desired dtype={dtype}"))
        dispatch.epoch[0] += 1
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.is_floating_point() and tensor.dtype is not dtype:
                grad, tensor.grad = tensor.grad, None
                tensor.data = tensor.detach().to(dtype)  # type: ignore[attr-defined]
                tensor.grad = None if grad is None else grad.to(dtype)  # type: ignore[attr-defined]
        return self

    def float(self) -> Self:
        return self._convert(float32)

    def double(self) -> Self:
        return self._convert(float64)

    def half(self) -> Self:
        return self._convert(float16)

    def bfloat16(self) -> Self:
        return self._convert(bfloat16)

    # ---- printing

    def extra_repr(self) -> str:
        """What stands between the parentheses before the submodules."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): {indented(repr(module))}" for name, module in self._modules.items()]
        if not children and len(lines) <= 1:
            return f"{type(self).__name__}({extra})"
        return "\n  ".join([f"{type(self).__name__}(", *lines, *children]) + "\n)"


def clear_grad(tensor: Tensor, set_to_none: bool) -> None:
    """Forget a tensor's gradient, or make it zeros (off the tape)."""
    if set_to_none or tensor.grad is None:
        tensor.grad = None
        return
    if tensor.grad.requires_grad:
        tensor.grad = tensor.grad.detach()
    tensor.grad.zero_()  # type: ignore[attr-defined]


def indented(text: str) -> str:
    """All lines but the first moved right by two."""
    return text.replace("\n", "\n  ")


def _put(place: dict[str, Any], name: str, value: Any) -> None:
    before = place.get(name, _ABSENT)
    if before is not value:
        if before is not _ABSENT:  # a module may be made inside traced code
            _check_outlives_trace(name, value)
        dispatch.epoch[0] += 1
    place[name] = value


def _check_outlives_trace(name: str, value: Any) -> None:
    """Raise TraceError for a tensor that only stands for one: later calls of compiled code would not assign it."""
    if isinstance(value, Tensor) and value._storage.cell is not None and value._storage.cell.tracer.collects:
        message = f"attribute '{name}' of a module was set to a tensor made while tracing"
        raise TraceError(at_user_line(f"{message}; write into a tensor that is there (copy_)"))


def _require(condition: bool, value: Any, role: str) -> None:
    if not condition:
        raise TypeError(at_user_line(f"cannot assign '{type(value).__name__}' {role}"))


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _as_tensor(value: Any) -> Any:
    return value if isinstance(value, Tensor) else as_tensor(np.asarray(value))


__all__ = ["IncompatibleKeys", "Module", "clear_grad", "indented"]
