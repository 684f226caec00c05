"""State dicts: what a module writes into one and reads out of one, as PyTorch's.

Enters: modules, mappings of names to tensors.  Leaves: ordered dicts with ``_metadata``; modules with other elements.
Never here: files.

Loading collects its copies and makes them at the end, so that a mapping that does not fit changes nothing.  Only where user code
may look in between (an overridden `_load_from_state_dict`, a hook after loading) are copies made at once, and undone on failure.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from graphc.eager import dispatch
from graphc.eager.creation import as_tensor
from graphc.eager.hooks import RemovableHandle
from graphc.eager.modes import modes, no_grad
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.nn.hooks import Hooks, registered
from graphc.nn.parameter import Parameter, is_lazy

EXTRA_STATE = "_extra_state"
_thread = threading.local()  # .loading: the call of `load_state_dict` that a thread is in


class _IncompatibleKeys(namedtuple("IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """What `load_state_dict` gives: names the module has and the dict lacks, and the other way round."""

    __slots__ = ()

    def __repr__(self) -> str:
        return super().__repr__() if self.missing_keys or self.unexpected_keys else "<All keys matched successfully>"

    __str__ = __repr__


class _LoadHook(NamedTuple):
    """A hook before loading.   with_module: it gets the module first."""

    hook: Callable[..., Any]
    with_module: bool

    def __call__(self, module: Any, *args: Any) -> None:
        self.hook(*((module,) if self.with_module else ()), *args)


class _Step(NamedTuple):
    """One tensor to be loaded: into ``getattr(module, name)``, or instead of it."""

    module: Any
    name: str
    given: Any
    assign: bool


class _Loading:
    """One call of `load_state_dict`: what is to be copied, and what was there before where it has been."""

    def __init__(self) -> None:
        self.waiting: list[_Step] = []
        self.undo: list[_Step] = []

    def flush(self, errors: list[str]) -> None:
        """Make the copies that wait, unless loading has failed already."""
        if errors:
            return
        steps, self.waiting = self.waiting, []
        for step in steps:
            present = getattr(step.module, step.name)
            if not is_lazy(present):
                self.undo.append(step._replace(given=present if step.assign else present.detach().clone()))
            _put(step)

    def finish(self) -> None:
        """Make the last copies.  Raises RuntimeError for a tensor that cannot be written to."""
        for step in sorted(self.waiting, key=_is_possible):  # what fails comes first: copies to go back to would cost memory
            try:
                _put(step)
            except Exception as error:
                self.revert()
                text = f'While copying the parameter named "{step.name}", an exception occurred : {error.args}.'
                raise RuntimeError(at_user_line(text)) from error

    def revert(self) -> None:
        """Put back what was there."""
        for step in reversed(self.undo):
            _put(step)


def _is_possible(step: _Step) -> bool:
    """Whether the tensor that is there, if it has memory, can be written to."""
    present = getattr(step.module, step.name)
    return step.assign or is_lazy(present) or modes.tracer is not None or dispatch.has_own_elements(present._array)


@no_grad()
def _put(step: _Step) -> None:
    present = getattr(step.module, step.name)
    if step.assign:
        setattr(step.module, step.name, step.given)
    else:
        present.copy_(step.given)


class Stateful:
    """The part of `Module` that writes and reads state dicts."""

    _version: int = 1
    _parameters: Any
    _buffers: Any
    _modules: Any
    _non_persistent_buffers_set: set[str]
    _state_dict_hooks: Hooks
    _state_dict_pre_hooks: Hooks
    _load_state_dict_pre_hooks: Hooks
    _load_state_dict_post_hooks: Hooks

    # ---- writing

    def get_extra_state(self) -> Any:
        """What a subclass wants in its state dict beside tensors.  Raises RuntimeError where it does not say."""
        raise RuntimeError(
            at_user_line("get_extra_state() is to be overridden by a Module with extra state; nothing else calls it")
        )

    def set_extra_state(self, state: Any) -> None:
        """Take what `get_extra_state` gave.  Raises RuntimeError where a subclass does not say how."""
        raise RuntimeError(
            at_user_line("set_extra_state() is to be overridden by a Module with extra state; nothing else calls it")
        )

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Parameters, persistent buffers and extra state by name, on the same memory, off the tape unless `keep_vars`.

        The result's ``_metadata`` holds the version of every module.  destination: a dict to add to.
        """
        if args:
            warnings.warn("Positional args are being deprecated, use kwargs instead.", FutureWarning, stacklevel=2)
            destination = args[0] if destination is None else destination
            prefix = args[1] if len(args) > 1 and not prefix else prefix
            keep_vars = args[2] if len(args) > 2 and keep_vars is False else keep_vars
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        local_metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local_metadata
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._state_dict_hooks.values():
            given = hook(self, destination, prefix, local_metadata)
            if given is not None and getattr(hook, "_from_public_api", False):
                raise RuntimeError(at_user_line("state_dict post-hook must return None"))
            destination = destination if given is None else given
        return destination

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Put this module's own state (not that of modules below) into `destination`."""
        for name, tensor in (*self._parameters.items(), *self._buffers.items()):
            if tensor is not None and name not in self._non_persistent_buffers_set:
                destination[prefix + name] = tensor if keep_vars else tensor.detach()
        if type(self).get_extra_state is not Stateful.get_extra_state:
            destination[prefix + EXTRA_STATE] = self.get_extra_state()

    # ---- reading

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Take this module's own state (not that of modules below) out of `state_dict`; what does not fit goes into the lists."""
        given = (state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        for hook in self._load_state_dict_pre_hooks.values():
            hook(self, *given)
        kept = {k: b for k, b in self._buffers.items() if k not in self._non_persistent_buffers_set}
        local = {k: v for k, v in (*self._parameters.items(), *kept.items()) if v is not None}
        assign = bool(local_metadata.get("assign_to_params_buffers", False))
        steps = []
        for name, present in local.items():
            key = prefix + name
            if key in state_dict:
                found = _fitting(key, present, state_dict[key], error_msgs)
                if found is not None:
                    steps.append(_Step(self, name, _assigned(present, found, key) if assign else found, assign))
            elif strict:
                missing_keys.append(key)
        _take(self, steps, error_msgs)
        _load_extra_state(self, state_dict, prefix + EXTRA_STATE, strict, missing_keys, unexpected_keys)
        if strict:
            for key in state_dict:
                if key.startswith(prefix) and key != prefix + EXTRA_STATE:
                    name, dot, _ = key[len(prefix) :].partition(".")
                    if name not in (self._modules if dot else local):
                        unexpected_keys.append(key)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> _IncompatibleKeys:
        """Copy tensors (or anything NumPy reads as an array) into the parameters and buffers of the same names.

        assign: put the given tensors in the place of those that are there, instead of copying elements.
        Raises RuntimeError for missing or unexpected names (where `strict`) and for shapes that differ, TypeError for what is not a
        mapping.  Differs from torch: where it raises, nothing has been copied.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(at_user_line(f"Expected state_dict to be dict-like, got {type(state_dict)}."))
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        state: Any = OrderedDict(state_dict)
        metadata = getattr(state_dict, "_metadata", None)
        if metadata is not None:
            state._metadata = metadata
        outer, loading = getattr(_thread, "loading", None), _Loading()
        _thread.loading = loading
        try:
            _load(self, state, "", metadata, assign, (missing, unexpected, errors), loading)
        except BaseException:
            loading.revert()
            raise
        finally:
            _thread.loading = outer
        if strict:
            for kind, names in (("Unexpected", unexpected), ("Missing", missing)):
                if names:
                    errors.insert(0, f"{kind} key(s) in state_dict: " + ", ".join(f'"{name}"' for name in names) + ". ")
        if errors:
            loading.revert()
            raise RuntimeError("\n\t".join([f"Error(s) in loading state_dict for {type(self).__name__}:", *errors]))
        loading.finish()
        return _IncompatibleKeys(missing, unexpected)

    # ---- hooks

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata)`` after `state_dict`; what it gives, if anything, replaces it."""
        if getattr(hook, "_from_public_api", False):
            raise RuntimeError(at_user_line("a hook of register_state_dict_post_hook cannot be registered here too"))
        return registered(self._state_dict_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata)`` after `state_dict`; it may change the dict in place."""
        hook._from_public_api = True  # type: ignore[attr-defined]  # as PyTorch tells the two kinds apart
        return registered(self._state_dict_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, prefix, keep_vars)`` before `state_dict`."""
        return registered(self._state_dict_pre_hooks, hook)

    def _register_load_state_dict_pre_hook(self, hook: Callable[..., Any], with_module: bool = False) -> RemovableHandle:
        """Call `hook` with the arguments of `_load_from_state_dict` before it, and with the module first if `with_module`."""
        return registered(self._load_state_dict_pre_hooks, _LoadHook(hook, with_module))

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook` with the module and the arguments of `_load_from_state_dict` before it."""
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, incompatible_keys)`` after loading; it may change the keys in place."""
        return registered(self._load_state_dict_post_hooks, hook)


def _load(module: Any, state: Any, prefix: str, metadata: Any, assign: bool, lists: Any, loading: _Loading) -> None:
    """`_load_from_state_dict` of a module and of those below.  lists: missing names, unexpected names, messages of errors."""
    missing, unexpected, errors = lists
    local_metadata = {} if metadata is None else metadata.get(prefix[:-1], {})
    if assign:
        local_metadata["assign_to_params_buffers"] = assign
    module._load_from_state_dict(state, prefix, local_metadata, True, missing, unexpected, errors)
    for name, child in module._modules.items():
        if child is not None:
            below = f"{prefix}{name}."
            part = {key: x for key, x in state.items() if key.startswith(below)}
            _load(child, part, below, metadata, assign, lists, loading)
    if module._load_state_dict_post_hooks:
        loading.flush(errors)
    keys = _IncompatibleKeys(missing, unexpected)
    for hook in module._load_state_dict_post_hooks.values():
        if hook(module, keys) is not None:
            text = "Hooks registered with ``register_load_state_dict_post_hook`` must return None; change the keys in place"
            raise AssertionError(at_user_line(text))


def _take(module: Stateful, steps: list[_Step], errors: list[str]) -> None:
    """Load tensors, or have them wait for the end of `load_state_dict`."""
    loading: _Loading | None = getattr(_thread, "loading", None)
    if loading is None:
        for step in steps:
            try:
                _put(step)
            except Exception as error:
                errors.append(f'While copying the parameter named "{step.name}", an exception occurred : {error.args}.')
        return
    loading.waiting += steps
    if not type(module)._load_from_state_dict.__module__.startswith("graphc."):
        loading.flush(errors)


def _load_extra_state(module: Stateful, state: Any, key: str, strict: bool, missing: list[str], unexpected: list[str]) -> None:
    if type(module).set_extra_state is not Stateful.set_extra_state:
        if key in state:
            module.set_extra_state(state[key])
        elif strict:
            missing.append(key)
    elif strict and key in state:
        unexpected.append(key)


def _fitting(key: str, present: Any, given: Any, errors: list[str]) -> Any:
    """The tensor that `given` is, in the shape of what is there; None, with a message in `errors`, where it does not fit."""
    if not isinstance(given, Tensor):
        try:
            given = as_tensor(np.asarray(given))
        except (TypeError, ValueError, RuntimeError):
            errors.append(
                f'While copying the parameter named "{key}", expected graphc.Tensor or Tensor-like object from checkpoint '
                f"but received {type(given)}"
            )
            return None
    if is_lazy(present):
        return None if is_lazy(given) else given
    if is_lazy(given):
        errors.append(f"size mismatch for {key}: an uninitialized tensor in the checkpoint for one of shape {present.shape}.")
        return None
    if not present.ndim and given.ndim == 1 and len(given) == 1:  # old state dicts hold numbers so
        given = given[0]
    if given.shape != present.shape:
        errors.append(
            f"size mismatch for {key}: copying a param with shape {given.shape} from checkpoint, "
            f"the shape in current model is {present.shape}."
        )
        return None
    return given


def _assigned(present: Any, given: Any, key: str) -> Any:
    """What takes the place of a parameter or buffer: a parameter's is one."""
    if isinstance(present, Parameter) and not isinstance(given, Parameter):
        return Parameter(given, requires_grad=present.requires_grad)
    if isinstance(present, Parameter):
        return given.requires_grad_(present.requires_grad)
    return given


__all__ = ["EXTRA_STATE", "Stateful", "_IncompatibleKeys"]
