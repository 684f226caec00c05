"""`Module`: parameters, buffers and submodules under names, as PyTorch's.

Enters: attributes assigned by subclasses.  Leaves: their names, calls of `forward`, texts.
Never here: what a layer computes; hooks, state dicts and conversions, which are the three classes that `Module` is made of.

Whatever changes what `forward` would do (an attribute, a registration, train or eval) counts up the epoch that compiled code
compares on every call.  Assigning the very object that is there already changes nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Self

from graphc.eager import dispatch
from graphc.eager.conversions import typename
from graphc.eager.epoch import changes_often, flipped
from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor
from graphc.errors import TraceError, at_user_line
from graphc.nn import hooks
from graphc.nn.module_conversions import Convertible, clear_grad
from graphc.nn.module_hooks import Hookable, replaced
from graphc.nn.module_state import Stateful
from graphc.nn.moving import ATTRIBUTES, Moving, collector
from graphc.nn.parameter import Buffer, Parameter
from graphc.nn.watched import Watched

_ABSENT: Any = object()
_PLACES = ("_parameters", "_buffers", "_modules")
# What every module has, beside `training`: PyTorch's names, which programs read and write.
_HELD: dict[str, Callable[[], Any]] = {
    "_parameters": Watched, "_buffers": Watched, "_non_persistent_buffers_set": set, "_backward_pre_hooks": Watched,
    "_backward_hooks": Watched, "_is_full_backward_hook": lambda: None, "_forward_hooks": Watched,
    "_forward_hooks_with_kwargs": dict, "_forward_hooks_always_called": dict, "_forward_pre_hooks": Watched,
    "_forward_pre_hooks_with_kwargs": dict, "_state_dict_hooks": Watched, "_state_dict_pre_hooks": Watched,
    "_load_state_dict_pre_hooks": Watched, "_load_state_dict_post_hooks": Watched, "_modules": Watched,
}  # fmt: skip


class Module(Hookable, Stateful, Convertible):
    """What every layer and model is: subclass it, assign parameters and submodules in ``__init__``, write ``forward``."""

    dump_patches: bool = False
    training: bool
    call_super_init: bool = False
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]
    _compiled_call_impl: Callable[..., Any] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes no arguments, unless `call_super_init` sends them on to the next class."""
        if not self.call_super_init:
            name = type(self).__name__
            if kwargs:
                raise TypeError(at_user_line(f"{name}.__init__() got an unexpected keyword argument '{next(iter(kwargs))}'"))
            if args:
                text = f"{name}.__init__() takes 1 positional argument but {len(args) + 1} were given"
                raise TypeError(at_user_line(text))
        own = self.__dict__
        own["training"] = True
        for held, make in _HELD.items():
            own[held] = make()
        if modes.tracer is not None:
            tracer = collector()
            if tracer is not None:
                tracer.attributes.made[id(self)] = self
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    # ---- calling

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes.  Raises NotImplementedError where a subclass does not say."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`forward`, with the hooks around it."""
        if (
            self._forward_hooks
            or self._forward_pre_hooks
            or self._backward_hooks
            or self._backward_pre_hooks
            or hooks.everywhere
            or self._compiled_call_impl is not None
        ):
            return hooks.call(self, args, kwargs)
        return self.forward(*args, **kwargs)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile calls of this module in place: `graphc.compile`, with its arguments."""
        from graphc.compiled import compile

        def call(*args: Any, **kwargs: Any) -> Any:
            return hooks.around(self, args, kwargs)

        call.__name__ = type(self).__name__
        call.__wrapped__ = type(self).forward  # type: ignore[attr-defined]  # where compiled code looks for what forward reads
        self._compiled_call_impl = compile(call, *args, **kwargs)

    # ---- attributes

    def __getattr__(self, name: str) -> Any:
        for place in _PLACES:
            held = self.__dict__.get(place)
            if held is not None and name in held:
                return held[name]
        attributes = self.__dict__.get(ATTRIBUTES)
        if attributes is not None and name in attributes:
            return attributes[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if "_parameters" not in own:
            if isinstance(value, Parameter | Module | Buffer):
                kind = "parameters" if isinstance(value, Parameter) else "module" if isinstance(value, Module) else "buffer"
                raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
            object.__setattr__(self, name, value)
        elif isinstance(value, Parameter):
            _forget(self, name, "_parameters")
            self.register_parameter(name, value)
        elif name in own["_parameters"]:
            _require(value is None, value, f"as parameter '{name}' (graphc.nn.Parameter or None expected)")
            self.register_parameter(name, None)
        elif isinstance(value, Module):
            _forget(self, name, "_modules")
            self.add_module(name, value)
        elif name in own["_modules"]:
            _require(value is None, value, f"as child module '{name}' (graphc.nn.Module or None expected)")
            self.add_module(name, None)
        elif isinstance(value, Buffer):
            _forget(self, name, "_buffers")
            self.register_buffer(name, value, getattr(value, "persistent", True))
        elif name in own["_buffers"]:
            _require(
                value is None or isinstance(value, Tensor),
                value,
                f"as buffer '{name}' (graphc.nn.Buffer, graphc.Tensor or None expected)",
            )
            _put_buffer(self, name, replaced("buffer", self, name, value))
        elif ATTRIBUTES in own and name in own[ATTRIBUTES].moving:
            own[ATTRIBUTES][name] = value
        elif own.get(name, _ABSENT) is value:
            object.__setattr__(self, name, value)
        elif not _moves(self, name, value):
            _note_change(self, name, value)
            object.__setattr__(self, name, value)
        else:
            moving = own.setdefault(ATTRIBUTES, Moving())
            if name in own:
                moving.hold(name, own.pop(name))
            moving.move(name)
            moving[name] = value

    def __delattr__(self, name: str) -> None:
        for held in _PLACES:
            if name in self.__dict__[held]:
                del self.__dict__[held][name]
                self._non_persistent_buffers_set.discard(name)
                return
        if ATTRIBUTES in self.__dict__ and name in self.__dict__[ATTRIBUTES].moving:
            del self.__dict__[ATTRIBUTES][name]
            return
        object.__delattr__(self, name)
        dispatch.epoch[0] += 1

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter.  Raises KeyError for a bad or taken name, TypeError for what is not a `Parameter` or None."""
        _check_name(self, "parameter", name, "_parameters")
        fits = param is None or isinstance(param, Parameter)
        _require(fits, param, f"object to parameter '{name}' (graphc.nn.Parameter or None required)")
        if param is not None and not param.is_leaf:
            raise ValueError(at_user_line(f"Cannot assign non-leaf Tensor to parameter '{name}'"))
        _put(self._parameters, name, replaced("parameter", self, name, param))

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but not a parameter; only a persistent one is in `state_dict`.

        Raises KeyError for a bad or taken name, TypeError for what is not a tensor or None.
        """
        _check_name(self, "buffer", name, "_buffers")
        _require(
            tensor is None or isinstance(tensor, Tensor), tensor, f"object to buffer '{name}' (graphc.Tensor or None required)"
        )
        _put_buffer(self, name, replaced("buffer", self, name, tensor))
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule.  Raises KeyError for a bad or taken name, TypeError for what is not a `Module` or None."""
        _check_name(self, "module", name, "_modules")
        if module is not None and not isinstance(module, Module):
            raise TypeError(at_user_line(f"{typename(module)} is not a Module subclass"))
        _put(self._modules, name, replaced("module", self, name, module))

    def register_module(self, name: str, module: Module | None) -> None:
        """`add_module`."""
        self.add_module(name, module)

    # ---- names

    def _named_members(
        self, get_members_fn: Callable[[Any], Any], prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """What ``get_members_fn(module)`` lists as (name, value), of this module and of those below, with dotted names."""
        seen: set[int] = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else ((prefix, self),)
        for path, module in modules:
            for name, value in get_members_fn(module):
                if value is None or id(value) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(value))
                yield f"{path}.{name}" if path else name, value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Parameters with their dotted names, each once (or once a name)."""
        return self._named_members(lambda module: module._parameters.items(), prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The values of `named_parameters`."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Buffers with their dotted names, each once (or once a name)."""
        return self._named_members(lambda module: module._buffers.items(), prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The values of `named_buffers`."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Direct submodules with their names, each once."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """The values of `named_children`."""
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

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all below it, each once (or once a name)."""
        return (module for _, module in self.named_modules(remove_duplicate=remove_duplicate))

    def get_submodule(self, target: str) -> Module:
        """The submodule at a dotted path.  Raises AttributeError."""
        module: Module = self
        for name in target.split(".") if target else ():
            found = _held(module, name)
            if not isinstance(found, Module):
                raise AttributeError(at_user_line(f"`{name}` is not an nn.Module"))
            module = found
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put a module at a dotted path.  strict: only where there is one already.

        Raises ValueError for no path or no module, AttributeError for a path that leads to no module.
        """
        if not target:
            raise ValueError(at_user_line("Cannot set the submodule without a target name!"))
        if not isinstance(module, Module):
            raise ValueError(at_user_line(f"`module` is not an nn.Module, found {type(module)}"))
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if (strict or hasattr(owner, name)) and not isinstance(_held(owner, name), Module):
            raise AttributeError(at_user_line(f"`{name}` is not an nn.Module"))
        setattr(owner, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path.  Raises AttributeError."""
        path, _, name = target.rpartition(".")
        found = _held(self.get_submodule(path), name)
        if not isinstance(found, Parameter):
            raise AttributeError(at_user_line(f"`{name}` is not an nn.Parameter"))
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path.  Raises AttributeError."""
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        found = _held(owner, name)
        if name not in owner._buffers:
            raise AttributeError(at_user_line(f"`{name}` is not a buffer"))
        return found  # type: ignore[no-any-return]

    # ---- changing everything below

    def train(self, mode: bool = True) -> Self:
        """Set training mode here and below.  Raises ValueError for what is not a bool."""
        if not isinstance(mode, bool):
            raise ValueError(at_user_line("training mode is expected to be boolean"))
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Self:
        """`train(False)`."""
        return self.train(False)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every parameter's gradient, or make it zeros."""
        for parameter in self.parameters():
            clear_grad(parameter, set_to_none)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set `requires_grad` of every parameter."""
        for parameter in self.parameters():
            if parameter.requires_grad is not requires_grad:
                dispatch.epoch[0] += 1
            parameter.requires_grad_(requires_grad)
        return self

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on every module, the lowest first."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # ---- copies

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what was compiled; attributes that code sets while it is traced are ordinary ones again."""
        state = self.__dict__.copy()
        state.pop("_compiled_call_impl", None)
        state.update(state.pop(ATTRIBUTES, ()))
        if type(state.get("_buffers")) is Moving:
            state["_buffers"] = Watched(state["_buffers"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for held, make in _HELD.items():  # what an older pickle lacks
            if held not in self.__dict__:
                self.__dict__[held] = make()

    def _replicate_for_data_parallel(self) -> Self:
        """A shallow copy with places of its own for what it holds."""
        replica = self.__new__(type(self))
        replica.__dict__.update(Module.__getstate__(self))
        for place in _PLACES:
            replica.__dict__[place] = replica.__dict__[place].copy()
        return replica

    # ---- printing

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What stands between the parentheses before the submodules."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): {indented(repr(module))}" for name, module in self._modules.items()]
        if not children and len(lines) <= 1:
            return f"{self._get_name()}({extra})"
        return "\n  ".join([f"{self._get_name()}(", *lines, *children]) + "\n)"

    def __dir__(self) -> list[str]:
        names = {*object.__dir__(self), *self._parameters, *self._buffers, *self._modules, *self.__dict__.get(ATTRIBUTES, ())}
        return sorted(name for name in names if not name[:1].isdigit())


def indented(text: str) -> str:
    """All lines but the first moved right by two."""
    return text.replace("\n", "\n  ")


def _forget(module: Module, name: str, kept: str) -> None:
    """Whatever else of a module is called `name` gives way to an entry of `kept`."""
    own = module.__dict__
    if name in own:
        object.__delattr__(module, name)
    if ATTRIBUTES in own:
        own[ATTRIBUTES].drop(name)
    for place in _PLACES:
        if place != kept and name in own[place]:
            del own[place][name]
    own["_non_persistent_buffers_set"].discard(name)


def _check_name(module: Module, kind: str, name: str, place: str) -> None:
    """Raise AttributeError, TypeError or KeyError for what cannot be the name of a new entry of `place`."""
    if "_parameters" not in module.__dict__:
        raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
    if not isinstance(name, str):
        raise TypeError(at_user_line(f"{kind} name should be a string. Got {type(name).__name__}"))
    if name == "":
        raise KeyError(f'{kind} name can\'t be empty string ""')
    if "." in name:
        raise KeyError(f'{kind} name can\'t contain "."' + (f", got: {name}" if kind == "module" else ""))
    if name not in module.__dict__[place] and hasattr(module, name):
        raise KeyError(f"attribute '{name}' already exists")


def _put(place: dict[str, Any], name: str, value: Any) -> None:
    before = place.get(name, _ABSENT)
    if before is not value:
        if before is not _ABSENT:  # a module may be made inside traced code
            _check_outlives_trace(name, value)
        dispatch.epoch[0] += 1
    place[name] = value


def _moves(module: Module, name: str, value: Any) -> bool:
    """Whether an attribute that is being set moves: compiled code is to set it, for traced code does, which reads it again; or it
    changes so often that counting up the epoch would make all compiled code be traced again and again.

    Raises TraceError for a tensor that only stands for one where a later call could not assign it, and for a class's attribute.
    """
    tracer = collector()
    if name == "training":
        return False
    if tracer is None:
        often = modes.tracer is None and name in module.__dict__ and changes_often(module, name)
        return often and inspect.getattr_static(type(module), name, None) is None
    own_class = inspect.getattr_static(type(module), name, None)
    if hasattr(type(own_class), "__set__"):  # a property: what it sets is seen
        return False
    if id(module) in tracer.attributes.made:
        _check_outlives_trace(name, value)
        return False
    if own_class is not None:
        message = f"attribute '{name}' of a module, which its class has too, was changed while tracing"
        raise TraceError(at_user_line(f"{message}; set it in __init__ only"))
    tracer.attributes.restart = True
    return True


def _note_change(module: Module, name: str, value: Any) -> None:
    """An attribute is being set: whatever was compiled may have read another one."""
    if name == "training" and isinstance(value, bool) and isinstance(module.__dict__.get(name), bool):
        tracer = collector()
        if tracer is not None:
            tracer.attributes.note_mode(module)
        flipped(module, name)
    elif type(getattr(type(module), name, None)) is not property:  # what a property sets is seen
        dispatch.epoch[0] += 1


def _put_buffer(module: Module, name: str, tensor: Tensor | None) -> None:
    """Register a buffer.  One that traced code sets is set by compiled code too; that one and one that changes often move."""
    place = module.__dict__["_buffers"]
    tracer = collector()
    if type(place) is Moving and name in place.moving:
        place[name] = tensor
        return
    changes = name not in place or place[name] is not tensor
    if modes.tracer is None:
        moves = changes and name in place and changes_often(module, name)
    else:
        moves = changes and tracer is not None and id(module) not in tracer.attributes.made
    if not moves:
        _put(place, name, tensor)
        return
    if type(place) is not Moving:
        place = module.__dict__["_buffers"] = Moving(place)
    place.move(name)
    if tracer is not None:
        tracer.attributes.restart = True
    place[name] = tensor


def _check_outlives_trace(name: str, value: Any) -> None:
    """Raise TraceError for a tensor that only stands for one: later calls of compiled code would not assign it."""
    if isinstance(value, Tensor) and value._storage.cell is not None and value._storage.cell.tracer.collects:
        message = f"attribute '{name}' of a module was set to a tensor made while tracing"
        raise TraceError(at_user_line(f"{message}; write into a tensor that is there (copy_)"))


def _require(condition: bool, value: Any, role: str) -> None:
    if not condition:
        raise TypeError(at_user_line(f"cannot assign '{typename(value)}' {role}"))


def _held(owner: Module, name: str) -> Any:
    """An attribute.  Raises AttributeError."""
    if not hasattr(owner, name):
        raise AttributeError(at_user_line(f"{owner._get_name()} has no attribute `{name}`"))
    return getattr(owner, name)


__all__ = ["Module", "clear_grad", "indented"]
