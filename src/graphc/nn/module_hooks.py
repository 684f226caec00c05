"""How hooks are registered: those of one module (`Hookable`), and those of every module.

Enters: functions.  Leaves: handles that take them away.  Never here: when hooks are called (`hooks`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.eager.hooks import RemovableHandle
from graphc.errors import at_user_line
from graphc.nn import hooks
from graphc.nn.hooks import Everywhere, Hooks, everywhere, registered


class Hookable:
    """The part of `Module` that registers what runs around calls and around gradients."""

    _forward_hooks: Hooks
    _forward_hooks_with_kwargs: dict[int, bool]
    _forward_hooks_always_called: dict[int, bool]
    _forward_pre_hooks: Hooks
    _forward_pre_hooks_with_kwargs: dict[int, bool]
    _backward_hooks: Hooks
    _backward_pre_hooks: Hooks
    _is_full_backward_hook: bool | None

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after `forward`; what it gives, if anything, replaces the output.

        prepend: before the hooks that there are.   with_kwargs: ``hook(module, args, kwargs, output)``.   always_call: also where
        `forward` or another hook raised.
        """
        marks = [self._forward_hooks_with_kwargs] if with_kwargs else []
        marks += [self._forward_hooks_always_called] if always_call else []
        return registered(self._forward_hooks, hook, prepend, tuple(marks))

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before `forward`; what it gives, if anything, replaces the arguments.

        prepend: before the hooks that there are.   with_kwargs: ``hook(module, args, kwargs)``, giving None or (args, kwargs).
        """
        marks = (self._forward_pre_hooks_with_kwargs,) if with_kwargs else ()
        return registered(self._forward_pre_hooks, hook, prepend, marks)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` when gradients of the arguments are known; a tuple that it gives replaces
        them.  Raises RuntimeError where the module has a hook of `register_backward_hook`."""
        _choose_backward_hooks(self, True)
        return registered(self._backward_hooks, hook, prepend)

    def register_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Deprecated: call ``hook(module, grad_input, grad_output)`` with the gradients around the operator that made the first
        output.  Raises RuntimeError where the module has a hook of `register_full_backward_hook`."""
        _choose_backward_hooks(self, False)
        return registered(self._backward_hooks, hook)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` before gradients go through the module; a tuple that it gives replaces them."""
        return registered(self._backward_pre_hooks, hook, prepend)

    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        """A call with its hooks, never compiled."""
        return hooks.around(self, args, kwargs)


def _choose_backward_hooks(module: Hookable, full: bool) -> None:
    """All backward hooks of a module are full, or none is.  Raises RuntimeError."""
    if module._is_full_backward_hook is (not full):
        text = "Cannot use both regular backward hooks and full backward hooks on a single Module. Please use only one of them."
        raise RuntimeError(at_user_line(text))
    module._is_full_backward_hook = full


# ---- of every module ---------------------------------------------------------------------------------------------------------


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, args)`` before `forward` of every module, before the module's own hooks."""
    return registered(everywhere, Everywhere("pre", hook))


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call ``hook(module, args, output)`` after `forward` of every module, before the module's own hooks."""
    return registered(everywhere, Everywhere("forward", hook, with_kwargs, always_call))


def register_module_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """`Module.register_backward_hook` on every module.  Raises RuntimeError beside full hooks of every module."""
    return _backward("plain_backward", "backward", hook)


def register_module_full_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """`Module.register_full_backward_hook` on every module.  Raises RuntimeError beside hooks that are not full."""
    return _backward("backward", "plain_backward", hook)


def _backward(kind: str, other: str, hook: Callable[..., Any]) -> RemovableHandle:
    if hooks.of_every_module(other):
        text = (
            "Cannot use both regular backward hooks and full backward hooks as a global Module hook. Please use only one of them."
        )
        raise RuntimeError(at_user_line(text))
    return registered(everywhere, Everywhere(kind, hook))


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """`Module.register_full_backward_pre_hook` on every module."""
    return registered(everywhere, Everywhere("backward_pre", hook))


def register_module_parameter_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, name, parameter)`` when a module registers one; what it gives, if anything, is registered instead."""
    return registered(everywhere, Everywhere("parameter", hook))


def register_module_buffer_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, name, buffer)`` when a module registers one; what it gives, if anything, is registered instead."""
    return registered(everywhere, Everywhere("buffer", hook))


def register_module_module_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, name, submodule)`` when a module registers one; what it gives, if anything, is registered instead."""
    return registered(everywhere, Everywhere("module", hook))


def replaced(kind: str, module: Any, name: str, value: Any) -> Any:
    """What the hooks of every module make of a value that is being registered."""
    for hook in hooks.of_every_module(kind) if everywhere else ():
        given = hook.call(module, name, value)
        value = value if given is None else given
    return value
