"""`Optimizer`: groups of parameters, their state, hooks, and state dicts that PyTorch reads and writes too.

Enters: parameters with gradients.  Leaves: the same parameters.
Never here: how a step changes them (`rules`, or a user's subclass).
"""

from __future__ import annotations

import copy
import functools
import itertools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from graphc.dtypes import DType, float32, float64, get_default_dtype
from graphc.eager import dispatch
from graphc.eager.creation import as_tensor
from graphc.eager.hooks import RemovableHandle, hooked
from graphc.eager.modes import enable_grad, modes, no_grad
from graphc.eager.tensor import Tensor
from graphc.errors import TraceError, at_user_line
from graphc.nn.module import clear_grad

Hook = Callable[..., Any]


class _Required:
    """The default of a hyperparameter that every group must state."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()
_ABSENT = object()
_global_pre_hooks: OrderedDict[int, Hook] = OrderedDict()
_global_post_hooks: OrderedDict[int, Hook] = OrderedDict()


def _changed() -> None:
    """Hooks run when a step is traced: it is traced again."""
    dispatch.epoch[0] += 1


def register_optimizer_step_pre_hook(hook: Hook) -> RemovableHandle:
    """Call ``hook(optimizer, args, kwargs)`` before every step of every optimizer; see `Optimizer.register_step_pre_hook`."""
    return hooked(_global_pre_hooks, hook, _changed)


def register_optimizer_step_post_hook(hook: Hook) -> RemovableHandle:
    """Call ``hook(optimizer, args, kwargs)`` after every step of every optimizer."""
    return hooked(_global_post_hooks, hook, _changed)


class ParameterGroup(dict[str, Any]):
    """Hyperparameters of some parameters, as PyTorch's dicts.

    Compiled code that reads a number with ``group[name]`` holds for that number only; setting one cannot be traced (TraceError).
    The rules here read them with `live`: which operators a rule runs depends on hyperparameters only through their truth (is there
    momentum, weight decay, amsgrad), so a change of that counts up the epoch that compiled code compares; others are seen without.
    """

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if modes.tracer is not None and _is_plain(value):
            modes.tracer.note_number(self, name, value)
        return value

    def live(self, name: str) -> Any:
        """The value now, for code that a compiled step asks anew at every call."""
        return super().__getitem__(name)

    def __setitem__(self, name: str, value: Any) -> None:
        if modes.tracer is not None:
            raise TraceError(at_user_line(f"setting an optimizer's {name} cannot be traced"))
        if name not in self or truth(self.live(name)) != truth(value):
            dispatch.epoch[0] += 1
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        dispatch.epoch[0] += 1
        super().__delitem__(name)

    def update(self, *args: Any, **kwargs: Any) -> None:
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def setdefault(self, name: str, value: Any = None) -> Any:
        if name not in self:
            self[name] = value
        return self.live(name)


def _is_plain(value: Any) -> bool:
    """Whether a hyperparameter is a number or the like, or a tuple of such."""
    return all(map(_is_plain, value)) if isinstance(value, tuple) else value is None or isinstance(value, int | float | str)


def truth(value: Any) -> bool:
    """Whether a hyperparameter is there: of a tensor, always."""
    return True if isinstance(value, Tensor) else bool(value)


class Optimizer:
    """What optimizers share; a subclass says what `step` does.

    `params`: tensors, pairs of a name and a tensor, or dicts with ``params`` and hyperparameters of their own.
    Raises ValueError for no parameters and for non-leaf tensors, TypeError for what is not a tensor.
    """

    _was_refused = False  # a step could not be traced

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            message = "params argument given to the optimizer should be an iterable of Tensors or dicts, but got a Tensor"
            raise TypeError(at_user_line(message))
        self.defaults = defaults
        self._make_hooks()
        self.state: defaultdict[Any, Any] = defaultdict(dict)
        self.param_groups: list[ParameterGroup] = []
        groups = list(params)
        if not groups:
            raise ValueError(at_user_line("optimizer got an empty parameter list"))
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def _make_hooks(self) -> None:
        """No hooks, and a step that calls those that come."""
        for name in _HOOKS:
            self.__dict__.setdefault(name, OrderedDict())
        kind = type(self)
        if not getattr(kind.step, "hooked", False):
            kind.step = _with_hooks(kind.step)  # type: ignore[method-assign]

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what `__getstate__` gave; hyperparameters that an older one lacks get their defaults."""
        self.__dict__.update(state)
        self._make_hooks()
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {name}: {group.live(name)}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, with hyperparameters where they differ from the defaults.  Raises as the constructor."""
        if not isinstance(param_group, dict):
            raise TypeError(at_user_line(f"param_group must be a dict, but got {type(param_group)}"))
        given = param_group["params"]
        if isinstance(given, set):
            raise TypeError(
                at_user_line(
                    "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in sets will "
                    "change between runs. Please use a list instead."
                )
            )
        members, names = _named([given] if isinstance(given, Tensor) else list(given))
        group = ParameterGroup({**param_group, "params": members})
        if names is not None:
            group["param_names"] = names
        self._check_members(members)
        self._check_names(group)
        for name, value in self.defaults.items():
            if value is required and name not in group:
                raise ValueError(at_user_line(f"parameter group didn't specify a value of required optimization parameter {name}"))
            group.setdefault(name, value)
        dispatch.epoch[0] += 1
        self.param_groups.append(group)

    def _check_members(self, members: list[Any]) -> None:
        differentiable = self.defaults.get("differentiable")
        for p in members:
            if not isinstance(p, Tensor):
                raise TypeError(at_user_line(f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}"))
            if not differentiable and not (p.is_leaf or p.retains_grad):
                raise ValueError(at_user_line("can't optimize a non-leaf Tensor"))
        ids = {id(p) for p in members}
        if len(ids) < len(members):
            warnings.warn("optimizer contains a parameter group with duplicate parameters", stacklevel=4)
        if not ids.isdisjoint(id(p) for group in self.param_groups for p in group["params"]):
            raise ValueError(at_user_line("some parameters appear in more than one parameter group"))

    def _check_names(self, group: ParameterGroup) -> None:
        if self.param_groups and ("param_names" in group) != ("param_names" in self.param_groups[0]):
            with_or_without = "with" if "param_names" in group else "without"
            message = "all optimizer param groups should be with/without names. cannot add param group"
            raise ValueError(at_user_line(f"{message} {with_or_without} names to the optimizer"))

    # ---- steps

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient.  Raises NotImplementedError where a subclass does not say how."""
        raise NotImplementedError(f"{type(self).__name__} has no update rule")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every gradient, or make it zeros."""
        plain = set_to_none and modes.tracer is None
        for group in self.param_groups:
            for p in group["params"]:
                if plain:
                    p._grad = None
                else:
                    clear_grad(p, set_to_none)

    # ---- hooks

    def register_step_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` before `step`; it may give other arguments, as a pair of a tuple and a dict."""
        return hooked(self._optimizer_step_pre_hooks, hook, _changed)  # type: ignore[attr-defined]

    def register_step_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` after `step`."""
        return hooked(self._optimizer_step_post_hooks, hook, _changed)  # type: ignore[attr-defined]

    def register_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer)`` before `state_dict`."""
        return self._hooked("_optimizer_state_dict_pre_hooks", hook, prepend)

    def register_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` on what `state_dict` made; what it gives, if anything, takes its place."""
        return self._hooked("_optimizer_state_dict_post_hooks", hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` before `load_state_dict`; what it gives, if anything, is loaded instead."""
        return self._hooked("_optimizer_load_state_dict_pre_hooks", hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer)`` after `load_state_dict`."""
        return self._hooked("_optimizer_load_state_dict_post_hooks", hook, prepend)

    def _hooked(self, name: str, hook: Hook, prepend: bool) -> RemovableHandle:
        hooks: OrderedDict[int, Hook] = getattr(self, name)
        handle = hooked(hooks, hook)
        if prepend:
            hooks.move_to_end(handle.id, last=False)
        return handle

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """State and hyperparameters, parameters by number, in PyTorch's form.  Tensors are the optimizer's own."""
        for hook in self._optimizer_state_dict_pre_hooks.values():  # type: ignore[attr-defined]
            hook(self)
        numbers: dict[int, int] = {}
        for group in self.param_groups:
            for p in group["params"]:
                numbers.setdefault(id(p), len(numbers))
        groups = []
        for group in self.param_groups:
            packed = {name: value for name, value in group.items() if name != "params"}
            groups.append({**packed, "params": [numbers[id(p)] for p in group["params"]]})
        state = {numbers[id(k)] if isinstance(k, Tensor) else k: v for k, v in self.state.items()}
        made: dict[str, Any] = {"state": state, "param_groups": groups}
        for hook in self._optimizer_state_dict_post_hooks.values():  # type: ignore[attr-defined]
            given = hook(self, made)
            made = made if given is None else given
        return made

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` of this optimizer, or of PyTorch's of the same name, gave.  Tensors are copied, and state
        that is there already keeps its memory.  State that stands for a floating parameter gets its dtype, but ``step``.

        Raises ValueError for other numbers of parameters or groups, or shapes; then nothing has changed.
        """
        state_dict = dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():  # type: ignore[attr-defined]
            given = hook(self, state_dict)
            state_dict = state_dict if given is None else given
        groups = state_dict["param_groups"]
        if len(groups) != len(self.param_groups):
            raise ValueError(at_user_line("loaded state dict has a different number of parameter groups"))
        if any(len(new["params"]) != len(own["params"]) for new, own in zip(groups, self.param_groups, strict=True)):
            raise ValueError(
                at_user_line("loaded state dict contains a parameter group that doesn't match the size of optimizer's group")
            )
        members: dict[Any, Any] = {}
        for new, own in zip(groups, self.param_groups, strict=True):
            members |= zip(new["params"], ((p, new) for p in own["params"]), strict=True)
        loaded: dict[Any, Any] = {}
        for key, value in state_dict["state"].items():
            if key in members:
                p, group = members[key]
                loaded[p] = self.loaded(p, group, "", value)
            else:
                loaded[key] = value
        for own, new in zip(self.param_groups, groups, strict=True):
            _regroup(own, copy.deepcopy({name: value for name, value in new.items() if name != "params"}))
        if any(key not in loaded for key in self.state):
            dispatch.epoch[0] += 1
        state: defaultdict[Any, Any] = defaultdict(dict)
        state.update({key: _taken(self.state.get(key), value) for key, value in loaded.items()})
        self.__setstate__({"state": state, "param_groups": self.param_groups})
        for hook in self._optimizer_load_state_dict_post_hooks.values():  # type: ignore[attr-defined]
            hook(self)

    def loaded(self, p: Any, group: Mapping[str, Any], name: str, value: Any) -> Any:
        """What the loaded state of parameter `p`, or a part of it called `name`, becomes here: tensors get its dtype, other things
        stay as they are.

        Raises ValueError where a subclass knows that it cannot be its state.
        """
        if isinstance(value, Mapping):
            return {k: self.loaded(p, group, k, v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.loaded(p, group, name, v) for v in value)
        if name == "step" and isinstance(value, int | float):
            return as_tensor(np.asarray(value, step_dtype().numpy))
        if not hasattr(value, "__array__"):
            return value
        tensor: Any = value if isinstance(value, Tensor) else as_tensor(np.asarray(value))
        if name == "step":
            return tensor.to(float32) if group.get("capturable") or group.get("fused") else tensor
        return tensor.to(p.dtype) if p.dtype.kind in "fc" else tensor


_HOOKS = (
    "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks", "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks", "_optimizer_load_state_dict_pre_hooks", "_optimizer_load_state_dict_post_hooks",
)  # fmt: skip


def evaluated(closure: Callable[[], Any] | None) -> Any:
    """What `closure`, which computes gradients anew, gives; None without one."""
    if closure is None:
        return None
    with enable_grad():
        return closure()


def step_dtype() -> DType:
    """The dtype of counts: float32, or float64 where that is the default."""
    return float64 if get_default_dtype() is float64 else float32


def _with_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """A class's `step` between the hooks of the optimizer and the global ones."""

    @functools.wraps(step)
    def stepped(self: Any, *args: Any, **kwargs: Any) -> Any:
        for hook in itertools.chain(_global_pre_hooks.values(), self._optimizer_step_pre_hooks.values()):
            given = hook(self, args, kwargs)
            if given is not None:
                if not (isinstance(given, tuple) and len(given) == 2):
                    message = f"{step} must return None or a tuple of (new_args, new_kwargs), but got {given}."
                    raise RuntimeError(at_user_line(message))
                args, kwargs = given
        result = (_outlasting if modes.tracer is None else _traced)(step, self, args, kwargs)
        for hook in itertools.chain(self._optimizer_step_post_hooks.values(), _global_post_hooks.values()):
            hook(self, args, kwargs)
        return result

    stepped.hooked = True  # type: ignore[attr-defined]
    return stepped


def _outlasting(step: Callable[..., Any], self: Optimizer, args: Any, kwargs: Any) -> Any:
    """An eager step.  Code that could not be traced before there was state can be now."""
    count = len(self.state)
    result = step(self, *args, **kwargs)
    if self._was_refused and len(self.state) != count:
        dispatch.epoch[0] += 1
    return result


def _traced(step: Callable[..., Any], self: Optimizer, args: Any, kwargs: Any) -> Any:
    """A traced step: what it does to the state must be done to tensors that outlive the trace.  Raises TraceError."""
    before = {key: dict(value) if isinstance(value, dict) else value for key, value in self.state.items()}
    try:
        result = step(self, *args, **kwargs)
        for key, value in self.state.items():
            known = before.get(key, {})
            for name in value if isinstance(value, dict) and isinstance(known, dict) else ():
                kept = value[name]
                if kept is not known.get(name, _ABSENT) and not (isinstance(kept, Tensor) and kept._storage.cell is None):
                    raise TraceError(at_user_line(f"a step that sets {name!r} in the optimizer's state cannot be traced"))
    except BaseException:
        self._was_refused = True
        for key in [key for key in self.state if key not in before]:
            del self.state[key]
        for key, value in before.items():
            if isinstance(value, dict):
                self.state[key].clear()
                self.state[key].update(value)
            else:
                self.state[key] = value
        raise
    return result


def _named(members: list[Any]) -> tuple[list[Any], list[Any] | None]:
    """Parameters and, if they came with names, those.  Raises ValueError where only some did."""
    if not any(isinstance(member, tuple) for member in members):
        return members, None
    if not all(isinstance(member, tuple) for member in members):
        raise ValueError(at_user_line("all optimizer params should be with/without names. Some param names are missing"))
    return [member[1] for member in members], [member[0] for member in members]


def _regroup(own: ParameterGroup, new: dict[str, Any]) -> None:
    """A group becomes a loaded one: the same dict, for compiled code holds on to it."""
    for name in [name for name in own if name not in new and name not in ("params", "param_names")]:
        del own[name]
    for name, value in new.items():
        own[name] = tuple(value) if isinstance(value, list) and isinstance(own.get(name), tuple) else value


def _taken(state: dict[str, Any] | None, loaded: Any) -> Any:
    """A parameter's state with what was loaded in it.  Tensors that were there keep their memory: compiled steps hold on to it."""
    if not isinstance(loaded, dict):
        return loaded
    state = {} if state is None else state
    taken: dict[str, Any] = {}
    if any(value is None or name not in loaded for name, value in state.items()):
        dispatch.epoch[0] += 1
    with no_grad():
        for name, value in loaded.items():
            held = state.get(name)
            if isinstance(held, Tensor) and isinstance(value, Tensor) and _alike(held, value):
                held.copy_(value)  # type: ignore[attr-defined]
                taken[name] = held
            else:
                dispatch.epoch[0] += 1
                taken[name] = _copied(value)
    return taken


def _alike(x: Tensor, y: Tensor) -> bool:
    return x.dtype is y.dtype and x.shape == y.shape


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_copied, value))
    return value
