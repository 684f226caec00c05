"""`Optimizer`: groups of parameters, their state, and steps that read both at every call.

Enters: parameters with gradients.  Leaves: the same parameters, changed in place.  Never here: a particular rule.

A step is public operators on tensors: hyperparameters enter as 0-d tensors read at each call (`host_scalar`), counts and averages
are tensors in `state` that are written to, so a compiled step bakes none of them in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from graphc.dtypes import DType, float32
from graphc.eager import dispatch
from graphc.eager.creation import as_tensor, host_scalar
from graphc.eager.modes import enable_grad, modes, no_grad
from graphc.eager.tensor import Tensor, wrap
from graphc.errors import TraceError, at_user_line
from graphc.nn.module import clear_grad

Member = tuple[Any, Any, dict[str, Any]]  # a parameter, its gradient, its state


class ParameterGroup(dict[str, Any]):
    """Hyperparameters of some parameters, as PyTorch's dicts.

    Which operators a step runs depends on hyperparameters only through their truth (is there momentum, weight decay, amsgrad), so a
    change of that counts up the epoch that compiled code compares; other changes are seen without.  Compiled code that reads ``lr``
    itself holds for that rate only, and does not set hyperparameters (TraceError).
    """

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if name == "lr" and modes.tracer is not None and not isinstance(value, Tensor):
            modes.tracer.note_number(self, name, value)
        return value

    def live(self, name: str) -> Any:
        """The value now, for code that a compiled step asks anew at every call."""
        return super().__getitem__(name)

    def __setitem__(self, name: str, value: Any) -> None:
        if modes.tracer is not None:
            raise TraceError(at_user_line(f"setting an optimizer's {name} cannot be traced"))
        if name not in self or _truth(self[name]) != _truth(value):
            dispatch.epoch[0] += 1
        super().__setitem__(name, value)


def _truth(value: Any) -> bool:
    return True if isinstance(value, Tensor) else bool(value)


class Optimizer:
    """What optimizers share.  A rule says which tensors it keeps (`state_names`) and how it changes parameters (`update`).

    `params`: tensors, or dicts with ``params`` and hyperparameters of their own.
    Raises ValueError for no parameters and for non-leaf tensors, TypeError for what is not a tensor.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError(
                at_user_line("params argument given to the optimizer should be an iterable of Tensors or dicts, but got a Tensor")
            )
        self.defaults = defaults
        self.state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[ParameterGroup] = []
        groups = list(params)
        if not groups:
            raise ValueError(at_user_line("optimizer got an empty parameter list"))
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, with hyperparameters where they differ from the defaults.  Raises as the constructor."""
        given = param_group["params"]
        members = [given] if isinstance(given, Tensor) else list(given)
        for p in members:
            if not isinstance(p, Tensor):
                raise TypeError(at_user_line(f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}"))
            if not p.is_leaf:
                raise ValueError(at_user_line("can't optimize a non-leaf Tensor"))
        known = {id(p) for group in self.param_groups for p in group["params"]}
        if len({id(p) for p in members}) < len(members) or known & {id(p) for p in members}:
            raise ValueError(at_user_line("some parameters appear in more than one parameter group"))
        group = ParameterGroup({**self.defaults, **param_group, "params": members})
        self.check(group)
        dispatch.epoch[0] += 1
        self.param_groups.append(group)

    # ---- what a rule says

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError for hyperparameters out of range."""

    def state_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """The tensors kept for each parameter, 0 at first: ``step`` is 0-d float32, others have the parameter's shape and dtype."""
        return ()

    def update(self, group: ParameterGroup, dtype: DType, members: list[Member]) -> None:
        """Change parameters of one group and dtype in place.  Raises NotImplementedError where a rule does not say."""
        raise NotImplementedError(f"{type(self).__name__} has no update rule")

    # ---- steps

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient.  Gives what `closure`, which computes gradients anew, returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                members: dict[DType, list[Member]] = {}
                for p in group["params"]:
                    grad = p.grad
                    if grad is not None:
                        members.setdefault(p.dtype, []).append((p, grad, self._state_of(group, p)))
                for dtype, alike in members.items():
                    self.update(group, dtype, alike)
        return loss

    def initialize_state(self) -> None:
        """Create now the state that the first step would create.  A tracer calls this, so that all steps are alike."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.requires_grad:
                    self._state_of(group, p)

    def _state_of(self, group: Mapping[str, Any], p: Any) -> dict[str, Any]:
        state = self.state[p]
        for name in self.state_names(group):
            if state.get(name) is None:
                state[name] = _zeros((), float32) if name == "step" else _zeros(tuple(p.shape), p.dtype)
        return state

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every gradient, or make it zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                clear_grad(p, set_to_none)

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """State and hyperparameters, parameters by number, in PyTorch's form.  Tensors are the optimizer's own."""
        members = [p for group in self.param_groups for p in group["params"]]
        numbers = {id(p): i for i, p in enumerate(members)}
        groups = [{**group, "params": [numbers[id(p)] for p in group["params"]]} for group in self.param_groups]
        return {"state": {numbers[id(p)]: dict(state) for p, state in self.state.items() if state}, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` of this optimizer, or of PyTorch's of the same name, gave.  Tensors are copied.

        Raises ValueError for other numbers or shapes of parameters; then nothing has changed.
        """
        groups = state_dict["param_groups"]
        if len(groups) != len(self.param_groups):
            raise ValueError(at_user_line("loaded state dict has a different number of parameter groups"))
        if any(len(new["params"]) != len(own["params"]) for new, own in zip(groups, self.param_groups, strict=True)):
            raise ValueError(
                at_user_line("loaded state dict contains a parameter group that doesn't match the size of optimizer's group")
            )
        members = [p for group in self.param_groups for p in group["params"]]
        numbers = [number for group in groups for number in group["params"]]
        loaded = {
            id(p): {name: _state_tensor(p, name, value) for name, value in state_dict["state"].get(number, {}).items()}
            for number, p in zip(numbers, members, strict=True)
        }
        for own, new in zip(self.param_groups, groups, strict=True):
            for name, value in new.items():
                if name != "params":
                    own[name] = tuple(value) if isinstance(value, list) else value
        for p in members:
            self._take(p, loaded[id(p)])

    def _take(self, p: Any, loaded: dict[str, Any]) -> None:
        """State tensors that are there already keep their memory: compiled steps hold on to it."""
        state = self.state[p]
        if any(value is None or name not in loaded for name, value in state.items()):
            dispatch.epoch[0] += 1
        for name in [name for name in state if name not in loaded]:
            del state[name]
        with no_grad():
            for name, value in loaded.items():
                held = state.get(name)
                if isinstance(held, Tensor) and isinstance(value, Tensor):
                    held.copy_(value)  # type: ignore[attr-defined]
                else:
                    dispatch.epoch[0] += 1
                    state[name] = value.clone() if isinstance(value, Tensor) else value  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


def _zeros(shape: tuple[int, ...], dtype: DType) -> Tensor:
    """Zeros in memory, also while a step is traced: state outlives the trace."""
    return wrap(np.zeros(shape, dtype.numpy), dtype)


def _state_tensor(p: Any, name: str, value: Any) -> Any:
    """A loaded value as a tensor for parameter `p`; what is not an array stays."""
    if not hasattr(value, "__array__") and not (name == "step" and isinstance(value, int | float)):
        return value
    tensor: Any = value if isinstance(value, Tensor) else as_tensor(np.asarray(value))
    shape = () if name == "step" else tuple(p.shape)
    if tuple(tensor.shape) != shape:
        raise ValueError(at_user_line(f"loaded state '{name}' has shape {list(tensor.shape)}, the parameter needs {list(shape)}"))
    return tensor.to(float32 if name == "step" else p.dtype)


def number(get: Callable[[], Any], dtype: DType) -> Any:
    """A hyperparameter as a 0-d tensor that a compiled step reads anew at every call; a tensor stays one."""
    value = get()
    return value.to(dtype) if isinstance(value, Tensor) else host_scalar(get, dtype)  # type: ignore[attr-defined]
