"""Hooks around a module's call.

Enters: a module, its hooks, the arguments of a call.  Leaves: the output.  Never here: where hooks are registered (`module`).

Backward hooks stand on two nodes of the tape that do nothing else: one that the arguments went through, one that the results did.
While traced, hooks run once, as all Python code does; one that keeps a tensor it is given cannot be traced.
"""

from __future__ import annotations

import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from graphc.eager import dispatch
from graphc.eager.function import Function
from graphc.eager.hooks import RemovableHandle
from graphc.eager.modes import modes
from graphc.eager.tape import Node
from graphc.eager.tensor import Tensor
from graphc.errors import TraceError, at_user_line
from graphc.trees import flatten

Hooks = OrderedDict[int, Any]


class Hook(NamedTuple):
    """A hook of a module.   with_kwargs: it sees keyword arguments.   always: it runs where `forward` fails too."""

    call: Callable[..., Any]
    with_kwargs: bool = False
    always: bool = False


def registered(hooks: Hooks, hook: Hook, prepend: bool = False) -> RemovableHandle:
    """Put a hook last or first among others."""
    handle = RemovableHandle(hooks, changed=_changed)
    hooks[handle.id] = hook
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    _changed()
    return handle


def _changed() -> None:
    dispatch.epoch[0] += 1


def call(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`forward` with every hook of the module around it."""
    ran: set[int] = set()
    output: Any = None
    try:
        args, kwargs = _before(module, args, kwargs)
        backward = _Backward(module) if module._backward_hooks or module._backward_pre_hooks else None
        if backward is not None:
            args = backward.entered(args)
        output = module.forward(*args, **kwargs)
        for key, hook in list(module._forward_hooks.items()):
            ran.add(key)
            output = _after(hook, module, args, kwargs, output)
        return output if backward is None else backward.left(output)
    except Exception:
        for key, hook in list(module._forward_hooks.items()):
            if hook.always and key not in ran:
                try:
                    output = _after(hook, module, args, kwargs, output)
                except Exception as error:
                    text = (
                        "module forward hook with ``always_call=True`` raised an exception that was silenced as another error was"
                    )
                    warnings.warn(f"{text} raised in forward: {error}", stacklevel=2)
        raise


def _before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments after the hooks before `forward`."""
    for hook in list(module._forward_pre_hooks.values()):
        if hook.with_kwargs:
            changed = _watched(hook.call, module, args, kwargs)
            if changed is None:
                continue
            if not isinstance(changed, tuple) or len(changed) != 2:
                text = "forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got"
                raise RuntimeError(at_user_line(f"{text} {changed}."))
            args, kwargs = changed
        else:
            changed = _watched(hook.call, module, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
    return args, kwargs


def _after(hook: Hook, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """The output after one hook."""
    given = (module, args, kwargs, output) if hook.with_kwargs else (module, args, output)
    changed = _watched(hook.call, *given)
    return output if changed is None else changed


def _watched(function: Callable[..., Any], *given: Any) -> Any:
    """A hook's result.  Raises TraceError where a hook being traced keeps a tensor: later calls would not give it theirs."""
    if modes.tracer is None or not modes.tracer.collects:
        return function(*given)
    tensors = flatten(given[1:], lambda x: isinstance(x, Tensor))[0]
    before = [(sys.getrefcount(x), sys.getrefcount(x._storage)) for x in tensors]
    result = function(*given)
    kept = result is None and before != [(sys.getrefcount(x), sys.getrefcount(x._storage)) for x in tensors]
    if kept:
        name = getattr(function, "__name__", type(function).__name__)
        raise TraceError(at_user_line(f"the hook '{name}' of a module keeps a tensor that it was given"))
    return result


# ---- backward --------------------------------------------------------------------------------------------------------------


class _Through(Function):
    """Tensors as they are, with one node of their own."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Any:
        ctx.mark_non_differentiable(*(x for x in tensors if not x.requires_grad))
        return tensors

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients


class _Backward:
    """The backward hooks of one call."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.hooks = [hook.call for hook in module._backward_hooks.values()]
        self.pre_hooks = [hook.call for hook in module._backward_pre_hooks.values()]
        self.inputs = 0  # positional arguments
        self.given: tuple[Any, ...] | None = None  # gradients of the outputs, once known
        self.waits = False  # whether the node of the arguments calls the hooks

    def entered(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, through a node if one of them requires grad."""
        self.inputs = len(args)
        places = [i for i, x in enumerate(args) if isinstance(x, Tensor)]
        through, node = self.applied([args[i] for i in places])
        if node is None:
            return args
        self.waits = bool(self.hooks)

        def hook(gradients: tuple[Any, ...], _: tuple[Any, ...]) -> Any:
            if self.given is None:
                raise RuntimeError(
                    "Module backward hook for grad_input is called before the grad_output one. This happens because the gradient "
                    "in your nn.Module flows to the Module's input without passing through the Module's output."
                )
            whole: list[Any] = [None] * self.inputs
            for i, g in zip(places, gradients, strict=True):
                whole[i] = g
            found = self.called(tuple(whole))
            return tuple(found[i] for i in places)

        if self.waits:
            node.register_hook(hook)
        replaced = list(args)
        for i, x in zip(places, through, strict=True):
            replaced[i] = x
        return tuple(replaced)

    def left(self, output: Any) -> Any:
        """The output, through a node if part of it requires grad."""
        single = isinstance(output, Tensor)
        if not single and not isinstance(output, tuple):
            text = "For hooks to be called, module output should be a Tensor or a tuple of Tensors but received"
            warnings.warn(f"{text} {type(output)}", stacklevel=2)
            return output
        whole = [output] if single else list(output)
        places = [i for i, x in enumerate(whole) if isinstance(x, Tensor)]
        through, node = self.applied([whole[i] for i in places])
        if node is None:
            return output
        count = len(whole)  # the hook must not hold tensors that hold its node

        def hook(gradients: tuple[Any, ...]) -> Any:
            spread: list[Any] = [None] * count
            for i, g in zip(places, gradients, strict=True):
                spread[i] = g
            given = tuple(spread)
            for pre_hook in self.pre_hooks:
                changed = pre_hook(self.module, given)
                if changed is not None:
                    given = self.fitting(changed, given, "pre hook")
            self.given = given
            if self.hooks and not self.waits:
                self.called((None,) * self.inputs)
            return tuple(given[i] for i in places)

        node.register_prehook(hook)
        for i, x in zip(places, through, strict=True):
            whole[i] = x
        if single:
            return whole[0]
        return type(output)(*whole) if hasattr(output, "_fields") else tuple(whole)

    @staticmethod
    def applied(tensors: list[Tensor]) -> tuple[tuple[Tensor, ...], Node | None]:
        """The tensors behind a node, and the node; None where nothing is recorded."""
        if not modes.grad or not any(x.requires_grad for x in tensors):
            return tuple(tensors), None
        through = _Through.apply(*tensors)
        return through, next(x.grad_fn for x in through if x.grad_fn is not None)

    def called(self, gradients: tuple[Any, ...]) -> tuple[Any, ...]:
        """Gradients of the arguments after the hooks."""
        given, self.given = self.given, None
        for hook in self.hooks:
            changed = hook(self.module, gradients, given)
            if changed is not None:
                gradients = self.fitting(changed, gradients, "hook")
        return gradients

    @staticmethod
    def fitting(changed: Any, before: tuple[Any, ...], what: str) -> tuple[Any, ...]:
        found = changed if isinstance(changed, tuple) else (changed,)
        if len(found) != len(before):
            text = f"Backward {what} returned an invalid number of grad_input, got {len(found)}, but expected {len(before)}"
            raise RuntimeError(at_user_line(text))
        return found


__all__ = ["Hook", "Hooks", "call", "registered"]
