"""Hooks around a module's call.

Enters: a module, its hooks, the arguments of a call.  Leaves: the output.  Never here: where hooks are registered (`module`).

Backward hooks stand on two nodes of the tape that do nothing else: one that the arguments went through, one that the results did.
While traced, hooks run once, as all Python code does; one that keeps a tensor it is given cannot be traced.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from graphc.eager.function import Function
from graphc.eager.hooks import RemovableHandle
from graphc.eager.modes import modes
from graphc.eager.tape import Node
from graphc.eager.tensor import Tensor
from graphc.errors import TraceError, at_user_line
from graphc.nn.watched import Watched
from graphc.trees import flatten

Hooks = Watched

# Hooks of every module, by handle.  kind: "pre" and "forward" around calls, "backward_pre", "backward" and "plain_backward" around
# gradients, "parameter", "buffer" and "module" when one is registered.
everywhere: Watched = Watched()


class Everywhere(NamedTuple):
    """A hook of every module.   always: it runs where `forward` fails too."""

    kind: str
    call: Callable[..., Any]
    with_kwargs: bool = False
    always: bool = False


def of_every_module(kind: str) -> list[Everywhere]:
    """The hooks of one kind that all modules have, the oldest first."""
    return [hook for hook in everywhere.values() if hook.kind == kind]


def registered(hooks: Hooks, hook: Any, prepend: bool = False, marks: tuple[dict[int, bool], ...] = ()) -> RemovableHandle:
    """Put a hook last or first among others, and its number into every dict of `marks`."""
    handle = RemovableHandle(hooks, extra_dict=list(marks))
    hooks[handle.id] = hook
    for mark in marks:
        mark[handle.id] = True
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle


def call(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A module's call where more than `forward` may have to run."""
    compiled = module._compiled_call_impl
    if compiled is not None and modes.tracer is None:
        return compiled(*args, **kwargs)
    return around(module, args, kwargs)


def around(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`forward` with every hook of the module around it."""
    ran: set[int] = set()
    output: Any = None
    try:
        args, kwargs = _before(module, args, kwargs)
        backward = _Backward(module)
        if backward.needed:
            args = backward.entered(args)
        output = module.forward(*args, **kwargs)
        for key, hook in _leaving(module):
            ran.add(key)
            output = _after(hook, module, args, kwargs, output)
        if backward.needed:
            output = backward.left(output)
        return backward.observed(output)
    except Exception:
        for key, hook in _leaving(module):
            if hook.always and key not in ran:
                try:
                    output = _after(hook, module, args, kwargs, output)
                except Exception as error:
                    text = (
                        "module forward hook with ``always_call=True`` raised an exception that was silenced as another error was"
                    )
                    warnings.warn(f"{text} raised in forward: {error}", stacklevel=2)
        raise


def _leaving(module: Any) -> list[tuple[int, Everywhere]]:
    """The hooks after `forward`, with their numbers."""
    found = [(key, hook) for key, hook in everywhere.items() if hook.kind == "forward"] if everywhere else []
    with_kwargs, always = module._forward_hooks_with_kwargs, module._forward_hooks_always_called
    found += [(k, Everywhere("forward", hook, k in with_kwargs, k in always)) for k, hook in module._forward_hooks.items()]
    return found


def _before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments after the hooks before `forward`."""
    entered = [(hook.call, False) for hook in of_every_module("pre")] if everywhere else []
    entered += [(hook, key in module._forward_pre_hooks_with_kwargs) for key, hook in module._forward_pre_hooks.items()]
    for hook, with_kwargs in entered:
        if with_kwargs:
            changed = _watched(hook, module, args, kwargs)
            if changed is None:
                continue
            if not isinstance(changed, tuple) or len(changed) != 2:
                text = "forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got"
                raise RuntimeError(at_user_line(f"{text} {changed}."))
            args, kwargs = changed
        else:
            changed = _watched(hook, module, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
    return args, kwargs


def _after(hook: Everywhere, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
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
        own = list(module._backward_hooks.values())
        self.hooks: list[Any] = own if module._is_full_backward_hook else []
        self.plain: list[Any] = own if module._is_full_backward_hook is False else []
        self.pre_hooks = list(module._backward_pre_hooks.values())
        if everywhere:
            self.hooks = [hook.call for hook in of_every_module("backward")] + self.hooks
            self.pre_hooks = [hook.call for hook in of_every_module("backward_pre")] + self.pre_hooks
            self.plain = [hook.call for hook in of_every_module("plain_backward")] + self.plain
        self.needed = bool(self.hooks or self.pre_hooks)
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
            if self.given is None:  # the gradient came round the output, as through a dict
                return None
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

    def observed(self, output: Any) -> Any:
        """The output, with the hooks of `register_backward_hook` on the node that made it."""
        if self.plain:
            found = flatten(output, lambda x: isinstance(x, Tensor))[0]
            node = found[0].grad_fn if found else None
            for hook in self.plain:
                if node is not None:
                    node.register_hook(functools.partial(hook, self.module))
        return output

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


__all__ = ["Everywhere", "Hooks", "around", "call", "everywhere", "of_every_module", "registered"]
